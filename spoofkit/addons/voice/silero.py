"""Voice activity: how much speech a recording holds and where, found while it is read.

The model is Silero VAD: for every 32 ms at 16 kHz a probability of speech, made of those and of all before them. The
package silero-vad brings it as a file, which onnxruntime runs here. The package itself is not imported: that would
import torch and leave it with one thread.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.speech import Speech

PACKAGE, VERSIONS = "silero-vad", ">=6.2.2,<7"
"""In the extra `vad` of setup.cfg; versions before have no file that takes many frames at once."""
MODEL = "silero_vad/data/silero_vad_16k_sequence.onnx"
THRESHOLD = 0.5
"""Probability from which a frame is speech: the default of the package."""
FRAME = 512  # samples: 32 ms
CONTEXT = 64  # samples before a frame that the model is given too
BLOCK = 32 * FRAME
"""Samples that the model is given at once, however the recording is read; about a second."""


@dataclass(frozen=True)
class Silero:
    """How speech is found, and how much is asked for."""

    session: Any
    """onnxruntime's; threads may share it, what it remembers of a recording is in a `SileroListener`."""
    version: str
    least_samples: int

    @property
    def least_seconds(self) -> float:
        """What has less speech is not scored."""
        return self.least_samples / SAMPLE_RATE

    def listener(self) -> "SileroListener":
        """Begin a recording."""
        return SileroListener(self)

    def record(self) -> dict[str, Any]:
        """As it stands beside scores."""
        return {
            "min_speech_seconds": self.least_seconds,
            "library": PACKAGE,
            "version": self.version,
            "threshold": THRESHOLD,
        }

    def words(self) -> str:
        """In a sentence."""
        return (
            f"what has less than {self.least_seconds:g} s of speech, by {PACKAGE} {self.version} at a probability of "
            f"{THRESHOLD:g}, is left out"
        )

    def too_little(self, name: str, found: Sequence[Speech]) -> str:
        """Why a recording has no score, given the speech in its windows, of which there may be one."""
        most = max(speech.n_samples for speech in found) / SAMPLE_RATE
        where = "" if len(found) == 1 else f" in the best of its {len(found):,} windows"
        return (
            f"{name}: found {most:.3g} s of speech{where}, expected at least {self.least_seconds:g} s; take it off the "
            "list, or lower --min-speech"
        )


def load_voice_activity(least_seconds: float) -> Silero:
    """The model, ready to run on one thread.

    Args:
        least_seconds: Speech that a window, or a recording that is no longer than one, must have to be scored.

    Raises:
        SpoofkitError: a length that is none, or the packages of the extra `vad` are missing or of other versions.
    """
    least_samples = round(least_seconds * SAMPLE_RATE) if 0 < least_seconds < 1e9 else 0
    if least_samples < 1:
        raise SpoofkitError(f"--min-speech {least_seconds:g}: expected a positive number of seconds")
    missing = []
    try:
        import onnxruntime
    except ImportError:
        missing.append("onnxruntime")
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        missing.append(PACKAGE)
    if missing:
        raise SpoofkitError(
            f"--min-speech: needs the package {' and '.join(missing)}, which is not installed; run "
            "`pip install 'spoofkit[vad]'` or leave it out"
        )
    path = Path(str(package.locate_file(MODEL)))
    if not path.is_file():
        raise SpoofkitError(
            f"--min-speech: {PACKAGE} {package.version} has no file {MODEL}, expected a version {VERSIONS}; run "
            "`pip install 'spoofkit[vad]'`"
        )
    options = onnxruntime.SessionOptions()
    # As small as it is, more threads would only take time from the detector's.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised as well
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Silero(session, package.version, least_samples)


class SileroListener:
    """What was found in a recording up to where it has been read: a byte for each frame is kept, 0.1 MB an hour."""

    def __init__(self, voice: Silero) -> None:
        self._voice = voice
        self._is_speech = bytearray()
        self._heard = 0
        self._context = np.zeros(CONTEXT, np.float32)
        self._hidden = self._cell = np.zeros((1, 1, 128), np.float32)
        self._counted = 0

    def read(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Hand on a recording's samples, all of them and none before its frame has been heard to its end.

        Args:
            blocks: 16 kHz, float32, of any sizes; the first begins the recording.
        """
        waiting_S = np.zeros(0, np.float32)
        for block_S in blocks:
            waiting_S = np.concatenate([waiting_S, block_S])
            n_whole = waiting_S.size // BLOCK * BLOCK
            for start in range(0, n_whole, BLOCK):
                self._hear_block(waiting_S[start : start + BLOCK])
            if n_whole:
                yield waiting_S[:n_whole]
                waiting_S = waiting_S[n_whole:]
        if waiting_S.size:
            self._hear_block(waiting_S)
            yield waiting_S

    def speech_in(self, start: int, end: int) -> Speech:
        """Speech between two samples; stretches are asked for in their order, once each.

        A frame is speech from its first sample to its last, so that stretches side by side add up.
        """
        assert 0 <= start < end <= self._heard
        n_samples = self._count(start, end)
        n_new = self._count(max(start, self._counted), end)
        is_enough = n_samples >= self._voice.least_samples
        if is_enough:
            self._counted = end
        return Speech(n_samples, n_new, is_enough)

    def _count(self, start: int, end: int) -> int:
        first, last = start // FRAME, -(-end // FRAME)
        edges = np.clip(np.arange(first, last + 1) * FRAME, start, end)
        return int(np.diff(edges) @ np.frombuffer(bytes(self._is_speech[first:last]), np.uint8))

    def _hear_block(self, block_S: np.ndarray) -> None:
        """Up to BLOCK samples; after fewer there are no more, and the last frame is filled up with zeros."""
        frames_TF = np.pad(block_S, (0, -block_S.size % FRAME)).reshape(-1, FRAME)
        before_TC = np.concatenate([self._context[None], frames_TF[:-1, -CONTEXT:]])
        inputs = {"input": np.concatenate([before_TC, frames_TF], axis=1), "h": self._hidden, "c": self._cell}
        probability_T, self._hidden, self._cell = self._voice.session.run(["speech_probs", "hn", "cn"], inputs)
        self._context = frames_TF[-1, -CONTEXT:]
        self._is_speech += (probability_T >= THRESHOLD).astype(np.uint8).tobytes()
        self._heard += block_S.size
