"""Mark the regions of one recording: from the scores of its frames to the record that every output is made of."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.frames import FrameGeometry
from spoofkit.localisation.regions import Marked, Rule, find_regions, smooth
from spoofkit.localisation.utterance import OVER_WINDOWS
from spoofkit.scoring import windows
from spoofkit.scoring.recordings import Result
from spoofkit.scoring.scored import ScoredRecording


@dataclass(frozen=True, slots=True, eq=False)
class LocalizedRecording:
    """The marked regions of a recording, or of one of its channels, and the frame scores behind them; or an error."""

    file: str
    """Name of the file; `wave` if it was in memory."""
    channel: int | None
    """Number of the channel, from 1; None: the mean of all, or the only one."""
    regions: tuple[Marked, ...] = ()
    """Regions whose frames score not above the threshold, in their order."""
    label: str = ""
    """What a region is called: `spoof`, or `injected`, by what the frames were trained for."""
    rule: Rule | None = None
    """Threshold, where it comes from, and smoothing; None: there is an error."""
    seconds: float = 0.0
    """Length of the recording."""
    frame_seconds: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Time of each frame's centre, in seconds, shape (frames,)."""
    frame_scores: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Score of each frame, higher = more bona fide (or: not injected), shape (frames,)."""
    smoothed_scores: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """The same after smoothing: what the threshold was applied to."""
    scored: ScoredRecording | None = None
    """Score of the whole recording; None: the model has no utterance head, or there is an error."""
    error: str = ""
    """Why the recording could not be read or scored, in a sentence; empty if it was."""


def windows_for_frames(longest: int | None) -> windows.Windows:
    """Return how long recordings are cut, of which frames are scored too.

    Args:
        longest: Most samples that the encoder takes; None: no limit.
    """
    n_samples = round(windows.SECONDS * SAMPLE_RATE)
    n_samples = n_samples if longest is None else min(n_samples, longest)
    return windows.Windows(n_samples, n_samples, OVER_WINDOWS)


def mark(result: Result, rule: Rule, label: str, geometry: FrameGeometry) -> LocalizedRecording:
    """Mark the regions of a recording; its score, if it has one, is left out.

    Args:
        result: Its samples and its frame scores, or an error.
        rule: How regions are marked.
        label: Name of a region.
        geometry: Geometry of the frames.
    """
    if result.error:
        return LocalizedRecording(result.name, result.channel, error=result.error)
    wave_S, raw_T = result.wave_S, result.frames
    assert wave_S is not None
    assert raw_T is not None
    score_T = smooth(raw_T, rule.smooth_seconds, geometry.hop)
    return LocalizedRecording(
        result.name,
        result.channel,
        tuple(find_regions(score_T, wave_S.size, geometry, rule)),
        label,
        rule,
        wave_S.size / SAMPLE_RATE,
        geometry.centres(wave_S.size) / SAMPLE_RATE,
        raw_T,
        score_T,
    )
