"""Voice activity: how much speech a recording holds and where, measured while it is read.

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
"""Versions of the extra `vad` in setup.cfg; earlier ones have no model file that takes many frames at once."""
MODEL = "silero_vad/data/silero_vad_16k_sequence.onnx"
THRESHOLD = 0.5
"""Probability from which a frame is speech: the package's default."""
FRAME = 512  # samples: 32 ms
CONTEXT = 64  # samples before a frame that the model is given too
BLOCK = 32 * FRAME
"""Number of samples that the model gets at once, however the recording is read; about a second."""


@dataclass(frozen=True)
class Silero:
    """The model that finds speech, and the least speech that is required."""

    session: Any
    """onnxruntime's session; threads may share it, since a `SileroListener` holds the state of a recording."""
    version: str
    least_samples: int

    @property
    def least_seconds(self) -> float:
        """Least speech, in seconds, of what is scored."""
        return self.least_samples / SAMPLE_RATE

    def listener(self) -> "SileroListener":
        """Return a listener for a new recording."""
        return SileroListener(self)

    def record(self) -> dict[str, Any]:
        """Return the entry of the record of scores."""
        return {
            "min_speech_seconds": self.least_seconds,
            "library": PACKAGE,
            "version": self.version,
            "threshold": THRESHOLD,
        }

    def words(self) -> str:
        """Describe the rule in a sentence."""
        return (
            f"what has less than {self.least_seconds:g} s of speech, by {PACKAGE} {self.version} at a probability of "
            f"{THRESHOLD:g}, is left out"
        )

    def too_little(self, name: str, found: Sequence[Speech]) -> str:
        """Return why a recording has no score, given the speech in its windows."""
        most = max(speech.n_samples for speech in found) / SAMPLE_RATE
        where = "" if len(found) == 1 else f" in the best of its {len(found):,} windows"
        return (
            f"{name}: found {most:.3g} s of speech{where}, expected at least {self.least_seconds:g} s; remove it from "
            "the list, or lower --min-speech"
        )


def load_voice_activity(least_seconds: float) -> Silero:
    """Load the model, to run on one thread.

    Args:
        least_seconds: Speech that a window, or a recording that is no longer than one, must have to be scored.

    Raises:
        SpoofkitError: an invalid duration, or packages of the extra `vad` are missing or have other versions.
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
            "`tools/setup.sh --extras vad` or leave it out"
        )
    path = Path(str(package.locate_file(MODEL)))
    if not path.is_file():
        raise SpoofkitError(
            f"--min-speech: {PACKAGE} {package.version} has no file {MODEL}, expected a version {VERSIONS}; run "
            "`tools/setup.sh --extras vad`"
        )
    options = onnxruntime.SessionOptions()
    # The model is small: more threads would only slow the detector down.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised as well
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Silero(session, package.version, least_samples)


class SileroListener:
    """The speech in a recording up to where it has been read, one byte per frame: 0.1 MB an hour."""

    def __init__(self, voice: Silero) -> None:
        self._voice = voice
        self._is_speech = bytearray()
        self._n_read = 0
        self._context = np.zeros(CONTEXT, np.float32)
        self._hidden = self._cell = np.zeros((1, 1, 128), np.float32)
        self._counted = 0

    def read(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass on all samples of a recording, none before the model has run on its frame.

        Args:
            blocks: 16 kHz, float32, of any sizes; the first begins the recording.
        """
        waiting_S = np.zeros(0, np.float32)
        for block_S in blocks:
            waiting_S = np.concatenate([waiting_S, block_S])
            n_whole = waiting_S.size // BLOCK * BLOCK
            for start in range(0, n_whole, BLOCK):
                self._run_block(waiting_S[start : start + BLOCK])
            if n_whole:
                yield waiting_S[:n_whole]
                waiting_S = waiting_S[n_whole:]
        if waiting_S.size:
            self._run_block(waiting_S)
            yield waiting_S

    def speech_in(self, start: int, end: int) -> Speech:
        """Measure the speech between two samples; stretches must be asked for in order, once each.

        A frame is speech from its first sample to its last, so that adjacent stretches add up.
        """
        assert 0 <= start < end <= self._n_read
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

    def _run_block(self, block_S: np.ndarray) -> None:
        """Run the model on BLOCK samples, or on fewer at the end, whose last frame is padded with zeros."""
        frames_TF = np.pad(block_S, (0, -block_S.size % FRAME)).reshape(-1, FRAME)
        before_TC = np.concatenate([self._context[None], frames_TF[:-1, -CONTEXT:]])
        inputs = {"input": np.concatenate([before_TC, frames_TF], axis=1), "h": self._hidden, "c": self._cell}
        probability_T, self._hidden, self._cell = self._voice.session.run(["speech_probs", "hn", "cn"], inputs)
        self._context = frames_TF[-1, -CONTEXT:]
        self._is_speech += (probability_T >= THRESHOLD).astype(np.uint8).tobytes()
        self._n_read += block_S.size
