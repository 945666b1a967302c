"""Mark regions by frame scores: smoothing, a threshold, a shortest length. No torch, no audio.

Smoothing is a running median: it removes single frames that disagree with their neighbours, and does not move edges.
A `Rule` holds the threshold and where it comes from, so that every output says whether it was fitted. As everywhere,
higher scores mean bona fide; a frame is called spoofed (or injected) if its score is not above the threshold, as in the
range-based EER.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.frames import FrameGeometry
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json
from spoofkit.localisation.frame_scores import FrameScores
from spoofkit.localisation.metrics import frame_stretches, make_timeline
from spoofkit.outputs import changed_inputs

Frames = npt.NDArray[np.float32]

CALLED = {"region": "injected", "authenticity": "spoof"}
"""Name of a region with low scores, by what the frames were trained for (mix.frame_target)."""
NOT_FITTED = "default"
SMOOTHINGS_SECONDS = (0.0, 0.06, 0.1, 0.18, 0.3, 0.5)
"""Lengths that `--smooth fit` tries; the shortest of those with the lowest range-based EER is used."""
MOST_SMOOTH_SECONDS = 10.0
MIN_REGION_SECONDS = 0.1
WEAK_EER_PERCENT = 40.0
"""Range-based EER of a development set from which marked regions are hardly better than chance (50 %)."""


@dataclass(frozen=True)
class Rule:
    """How regions are marked by frame scores."""

    threshold: float
    threshold_from: str
    """Where the threshold comes from, in words."""
    is_fitted: bool
    smooth_seconds: float
    """Length of the running median; 0: no smoothing."""
    min_region_seconds: float
    """Shorter regions are dropped."""
    range_eer_percent: float | None = None
    """Range-based EER of the scores that the threshold was fitted on."""

    @property
    def is_weak(self) -> bool:
        """Whether those scores were hardly better than chance."""
        return self.range_eer_percent is not None and self.range_eer_percent >= WEAK_EER_PERCENT

    def record(self) -> dict[str, Any]:
        """Return the rule for the record of the regions."""
        return {
            "threshold": self.threshold,
            "threshold_from": self.threshold_from,
            "threshold_is_fitted": self.is_fitted,
            "smoothing": "running median, ends repeated",
            "smooth_seconds": self.smooth_seconds,
            "min_region_seconds": self.min_region_seconds,
        }

    def words(self) -> str:
        """Describe the rule in a sentence."""
        smoothed = f"median of {self.smooth_seconds:g} s" if self.smooth_seconds else "not smoothed"
        doubt = "" if self.is_fitted else "; threshold not fitted on any data"
        doubt += "; hardly better than chance" * self.is_weak
        return (
            f"threshold {self.threshold:.6g} ({self.threshold_from}), scores {smoothed}, regions shorter than "
            f"{self.min_region_seconds:g} s dropped{doubt}"
        )


@dataclass(frozen=True)
class Marked:
    """A marked region of a recording."""

    start: int
    """First sample, 16 kHz."""
    end: int
    """The sample after the last one."""
    mean_score: float
    lowest_score: float

    @property
    def start_seconds(self) -> float:
        """Start in seconds."""
        return self.start / SAMPLE_RATE

    @property
    def end_seconds(self) -> float:
        """End in seconds."""
        return self.end / SAMPLE_RATE


def window_frames(seconds: float, hop: int) -> int:
    """Return the odd number of frames in a running median of some seconds; 1: no smoothing.

    >>> [window_frames(seconds, 320) for seconds in (0, 0.02, 0.06, 0.1)]
    [1, 1, 3, 5]
    """
    return 2 * (round(seconds * SAMPLE_RATE / hop) // 2) + 1 if seconds else 1


def smooth(score_T: Frames, seconds: float, hop: int) -> Frames:
    """Smooth one utterance's scores with a running median; beyond its ends, the first and the last one are repeated."""
    size = window_frames(seconds, hop)
    return score_T if size == 1 or not score_T.size else median_filter(score_T, size, mode="nearest")


def smooth_frames(frames: FrameScores, seconds: float) -> FrameScores:
    """Smooth the scores of each utterance."""
    parts = np.split(frames.score_N, np.cumsum(frames.n_frames_U)[:-1])
    smoothed = [smooth(score_T, seconds, frames.geometry.hop) for score_T in parts]
    score_N = np.concatenate(smoothed).astype(np.float32)
    return FrameScores(frames.utt_ids, frames.n_samples_U, frames.n_frames_U, score_N, frames.geometry)


def find_regions(score_T: Frames, n_samples: int, geometry: FrameGeometry, rule: Rule) -> list[Marked]:
    """Return the regions of one recording whose frames are not above the threshold.

    A frame stands for the time nearest to its centre, the first and the last one also for the recording's ends, as in
    the range-based EER.

    Args:
        score_T: Smoothed scores, shape (frames,).
        n_samples: Length of the recording.
        geometry: Geometry of the frames.
        rule: Threshold and shortest length; its smoothing is not applied.
    """
    if not score_T.size:
        return []
    length_U = np.array([n_samples], dtype=np.int64)
    timeline = make_timeline(length_U, [np.zeros((0, 2), dtype=np.int64)])
    utterance_T = np.zeros(score_T.size, dtype=np.int64)
    start_T, end_T = frame_stretches(timeline, utterance_T, geometry.centres(n_samples), geometry.hop)
    is_low_T = np.concatenate([[False], score_T <= rule.threshold, [False]])
    edges = np.flatnonzero(is_low_T[1:] != is_low_T[:-1]).reshape(-1, 2)
    found = []
    for first, last in edges.tolist():
        own_T = score_T[first:last]
        found.append(Marked(int(start_T[first]), int(end_T[last - 1]), float(own_T.mean()), float(own_T.min())))
    shortest = rule.min_region_seconds * SAMPLE_RATE
    return [region for region in found if region.end > region.start and region.end - region.start >= shortest]


def make_rule(
    threshold: float | None,
    threshold_from: Path | None,
    smooth_seconds: float | None,
    min_region_seconds: float | None,
    model: Mapping[str, str],
) -> Rule:
    """Make the rule that the options ask for.

    Args:
        threshold: Default: that of `threshold_from`, otherwise 0.
        threshold_from: A `segments.json` of `evaluate-segments`, for threshold and smoothing. Default: none.
        smooth_seconds: Default: that of `threshold_from`, otherwise no smoothing.
        min_region_seconds: Shorter regions are dropped. Default: MIN_REGION_SECONDS.
        model: `model_sha256` and `frame_target` of the frame model that is used.

    Raises:
        SpoofkitError: options that contradict each other, numbers out of range, or a file of another model.
    """
    min_region_seconds = MIN_REGION_SECONDS if min_region_seconds is None else min_region_seconds
    if not 0 <= min_region_seconds <= MOST_SMOOTH_SECONDS:
        raise SpoofkitError(
            f"--min-region {min_region_seconds:g}: expected 0 to {MOST_SMOOTH_SECONDS:g} seconds; give such a number"
        )
    if smooth_seconds is not None:
        require_smoothing(smooth_seconds)
    if threshold_from is None:
        if threshold is not None and not np.isfinite(threshold):
            raise SpoofkitError(f"--threshold {threshold}: expected a finite number; give one")
        words = NOT_FITTED if threshold is None else "the command line"
        return Rule(threshold or 0.0, words, threshold is not None, smooth_seconds or 0.0, min_region_seconds)
    if threshold is not None or smooth_seconds is not None:
        other = "--threshold" if threshold is not None else "--smooth"
        raise SpoofkitError(
            f"--threshold-from {threshold_from}: sets threshold and smoothing, found {other} too; remove one of them"
        )
    return read_fitted(threshold_from, model, min_region_seconds)


def read_fitted(path: Path, model: Mapping[str, str], min_region_seconds: float) -> Rule:
    """Read threshold and smoothing of a `segments.json`.

    Args:
        path: A `segments.json` that `evaluate-segments` wrote for a development set.
        model: `model_sha256` and `frame_target` of the frame model that is used.
        min_region_seconds: Shorter regions are dropped.

    Raises:
        SpoofkitError: another kind of file, or one of another model.
    """
    if path.is_dir():
        raise SpoofkitError(
            f"{path}: is a folder, expected a segments.json of `spoofkit evaluate-segments`; name the file"
        )
    value = read_json(path)
    try:
        threshold, smooth_seconds = float(value["range_eer_threshold"]), float(value["smooth_seconds"])
        made_with = value["made_with"]["frames_made_with"]
        found = {name: str(made_with[name]) for name in model}
        eer, name = float(value["range_eer_percent"]), Path(value["made_with"]["frames"]).name
    except (KeyError, TypeError, ValueError) as error:
        raise SpoofkitError(
            f"{path}: found no threshold and smoothing, expected a segments.json of `spoofkit evaluate-segments`; "
            "recreate it with that verb"
        ) from error
    if changed := changed_inputs(found, dict(model)):
        raise SpoofkitError(
            f"{path}: was fitted on scores of another model ({', '.join(changed)}); run localize and evaluate-segments "
            "on a development set with this model"
        )
    words = f"range-based EER {eer:.2f} % of {name}"
    return Rule(threshold, words, True, smooth_seconds, min_region_seconds, eer)


def require_smoothing(seconds: float) -> None:
    """Refuse a length of the running median that is out of range."""
    if not 0 <= seconds <= MOST_SMOOTH_SECONDS:
        raise SpoofkitError(
            f"--smooth {seconds:g}: expected 0 (no smoothing) to {MOST_SMOOTH_SECONDS:g} seconds; give such a number"
        )


def marked_seconds(regions: Sequence[Marked]) -> float:
    """Return the total length of the regions."""
    return sum(region.end - region.start for region in regions) / SAMPLE_RATE
