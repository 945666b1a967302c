"""Cut long recordings into windows while they are read, and combine the windows' scores into one.

A recording no longer than a window is scored whole. In a longer one, a window starts every hop, and a last one ends
where the recording ends: all are equally long, and none is too short for a detector. With voice activity detection,
windows with too little speech do not count, and the others are weighted by the speech they add.

The frames of a long recording are scored in other windows, which overlap and lie on one grid: a frame that two windows
share has the score from the window in which it is further from the edge.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.frames import FrameGeometry
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.speech import Speech, VoiceActivity

OVER = ("mean", "min")
SECONDS = 30.0
"""Default length of a window: most utterances of the field's corpora are shorter, and with XLS-R 300M half a minute
takes 0.6 to 0.8 GB beyond the model, a minute 1.4 GB (measured, fp32 on a CPU)."""


@dataclass(frozen=True)
class Windows:
    """How long recordings are cut, and how the windows' scores are combined."""

    n_samples: int
    hop_samples: int
    over: str
    """`mean`: the mean, each window weighted by the seconds (with voice activity detection, seconds of speech) that it
    adds to those before it; `min`: the lowest score, which finds a spoofed stretch, and falls with length."""

    @property
    def seconds(self) -> float:
        """Length of a window in seconds."""
        return self.n_samples / SAMPLE_RATE

    def record(self) -> dict[str, Any]:
        """Return the settings for the record of scores."""
        return {
            "window_seconds": self.seconds,
            "hop_seconds": self.hop_samples / SAMPLE_RATE,
            "over_windows": self.over,
        }


@dataclass(frozen=True)
class Window:
    """A stretch of a recording, in samples from its start."""

    start: int
    wave_S: np.ndarray
    speech: Speech | None = None
    """None: speech was not measured."""

    @property
    def is_scored(self) -> bool:
        """Whether it has enough speech, if that is required."""
        return self.speech is None or self.speech.is_enough

    @property
    def end(self) -> int:
        """The sample after the last one."""
        return self.start + self.wave_S.size


@dataclass(frozen=True)
class WindowScore:
    """Score of a window."""

    start_seconds: float
    end_seconds: float
    score: float
    speech_seconds: float | None = None
    """Seconds of speech that it adds to the windows scored before it; None: speech was not measured."""
    llr: float | None = None
    """Log-likelihood ratio of its score, in nats; None: it is not calibrated."""

    def known(self) -> dict[str, float]:
        """Return its values by name, without those that are None."""
        return {name: value for name, value in vars(self).items() if value is not None}


class FrameWindow(NamedTuple):
    """A window of a long recording whose frames are scored."""

    start: int
    """First sample: a multiple of the hop, so that its frames lie on the grid of the whole recording's."""
    end: int
    first: int
    """The first of its frames that counts."""
    last: int
    """The frame after the last that counts."""


LONGEST_SECONDS = 1e9
"""A longer window or hop is a mistake."""
OVERLAP_SECONDS = 2.0
"""Overlap of neighbouring windows for frames."""


def parse_windows(seconds: float, hop_seconds: float | None, over: str) -> Windows | None:
    """Parse the options of the command line; None: recordings are scored whole, however long.

    Raises:
        SpoofkitError: a hop that is not positive or leaves gaps, a negative length, or an unknown `over`.
    """
    if over not in OVER:
        raise SpoofkitError(f"--over-windows {over}: expected one of {', '.join(OVER)}")
    if seconds == 0:
        if hop_seconds is not None:
            raise SpoofkitError("--hop: has no effect with --window 0, which scores recordings whole; remove it")
        return None
    n_samples = round(seconds * SAMPLE_RATE) if 0 < seconds < LONGEST_SECONDS else 0
    if n_samples < 1:
        raise SpoofkitError(f"--window {seconds:g}: expected a positive number of seconds, or 0 for none")
    hop_seconds = seconds if hop_seconds is None else hop_seconds
    hop = round(hop_seconds * SAMPLE_RATE) if 0 < hop_seconds < LONGEST_SECONDS else 0
    if not 1 <= hop <= n_samples:
        raise SpoofkitError(f"--hop {hop_seconds:g}: expected seconds between 0 and those of --window, {seconds:g}")
    return Windows(n_samples, hop, over)


def words(windows: Windows | None, voice: VoiceActivity | None) -> str:
    """Describe in a sentence how recordings are cut and scored; empty if they are scored whole."""
    parts = [] if voice is None else [voice.words()]
    if windows is not None:
        added = "time" if voice is None else "speech"
        mean = f"the mean over its windows, weighted by the {added} each adds"
        rule = mean if windows.over == "mean" else "the lowest of its windows"
        length, hop = windows.seconds, windows.hop_samples / SAMPLE_RATE
        parts.append(
            f"a recording longer than {length:g} s is scored in windows of {length:g} s every {hop:g} s; its score is "
            f"{rule}"
        )
    return "; ".join(parts)


def in_windows(
    blocks: Iterable[np.ndarray], windows: Windows | None, voice: VoiceActivity | None = None
) -> Iterator[Window]:
    """Cut a recording that is read in blocks, and measure the speech in each window.

    Args:
        blocks: Its samples, 16 kHz, float32, in blocks of any sizes.
        windows: How it is cut; None: not at all.
        voice: Measures the speech. Default: it is not measured.
    """
    if voice is None:
        yield from cut(blocks, windows)
        return
    listener = voice.listener()
    for window in cut(listener.read(blocks), windows):
        yield replace(window, speech=listener.speech_in(window.start, window.end))


def cut(blocks: Iterable[np.ndarray], windows: Windows | None) -> Iterator[Window]:
    """Yield the windows of a recording that is read in blocks, holding no more than a window and a block."""
    if windows is None:
        yield Window(0, np.concatenate(list(blocks)))
        return
    held_S, held_from, start = np.zeros(0, np.float32), 0, 0
    for block_S in _grown(blocks, windows.n_samples):
        held_S = np.concatenate([held_S, block_S])
        # `>`, not `>=`: the last window is yielded after the loop.
        while held_from + held_S.size > start + windows.n_samples:
            offset = start - held_from
            yield Window(start, held_S[offset : offset + windows.n_samples])
            start += windows.hop_samples
        # The last window may begin before the next regular one.
        n_passed = min(start - held_from, held_S.size - windows.n_samples)
        if n_passed > 0:
            held_S, held_from = held_S[n_passed:], held_from + n_passed
    last_S = held_S[-windows.n_samples :]
    yield Window(held_from + held_S.size - last_S.size, last_S)


def _grown(blocks: Iterable[np.ndarray], at_first: int) -> Iterator[np.ndarray]:
    """Yield the blocks, with the first ones joined until they have more than `at_first` samples."""
    blocks, waiting, n_waiting = iter(blocks), [], 0
    for block_S in blocks:
        waiting.append(block_S)
        n_waiting += block_S.size
        if n_waiting > at_first:
            break
    yield np.concatenate([np.zeros(0, np.float32), *waiting])
    yield from blocks


def frame_windows(n_samples: int, geometry: FrameGeometry, longest: int) -> list[FrameWindow]:
    """Return how a recording is cut for its frames, and which of a window's frames count.

    Args:
        n_samples: Length of the recording.
        geometry: Frames of the encoder.
        longest: Most samples of a window.

    >>> for window in frame_windows(16_000 * 40, FrameGeometry(400, 320, 400, 200), 480_000): print(*window)
    0 480000 0 1450
    448000 640000 50 599
    """
    hop = geometry.hop
    window = longest // hop * hop
    margin = min(int(OVERLAP_SECONDS * SAMPLE_RATE), window // 2) // (2 * hop)  # frames, half of the overlap
    step = window - 2 * margin * hop
    found = []
    start = 0
    while start + window < n_samples:
        found.append(FrameWindow(start, start + window, margin if start else 0, step // hop + margin))
        start += step
    n_frames = geometry.n_frames(n_samples - start)
    return [*found, FrameWindow(start, n_samples, margin if start else 0, n_frames)]


def score_over(scores: list[WindowScore], over: str) -> float:
    """Combine the scores of a recording's windows into one; `over` is one of OVER."""
    if over == "min":
        return min(window.score for window in scores)
    added, end = [], 0.0
    for window in scores:
        added.append(window.end_seconds - end if window.speech_seconds is None else window.speech_seconds)
        end = window.end_seconds
    return float(np.average([window.score for window in scores], weights=added))
