"""Measure how well frame scores tell *where* an utterance is spoofed. numpy only; no files, no tables, no plots.

A higher score means more bona fide; *spoof* is the class to detect. Times are whole samples (16 kHz), so that
durations add up exactly. Three measures of the same frames:

* Segment EER at a resolution (Zhang et al., "The PartialSpoof Database and Countermeasures …", arXiv:2204.05177):
  every segment of, say, 0.16 s is a trial. It is spoof if any part of it is; its score is the lowest of the frames that
  are centred in it, as in the authors' evaluation (nii-yamagishilab/PartialSpoof, metric/SegmentEER.py: `min` when
  scores are taken to a coarser resolution). The EER is the official ASVspoof variant, as there. The authors train a
  model for each resolution; with one frame classifier for all, coarse resolutions are computed from fine scores, which
  they call the upper triangle of their EER matrix.
* Range-based EER (Zhang et al., "Range-Based Equal Error Rate for Spoof Localization", Interspeech 2023,
  arXiv:2305.17739): without segments, the amount of *time* that is classified wrongly. Every stretch whose score is not
  above the threshold is called spoof; FNR is the share of spoofed time that is missed, FPR the share of bona fide time
  that is called spoof. The EER is their mean where they are closest. The authors search by bisection
  (metric/RangeEER.py, whose last line prints only the FPR of that point); here every threshold is tried.
* Precision, recall and F1 of the frames at one threshold; a frame is spoof if its centre is.

Shapes: U utterances, N frames of all of them, R regions of all of them, G segments.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import ACCEPT_ALL_MARGIN, Eer, eer

Samples = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Timeline:
    """Utterances laid end to end, so that one position identifies both utterance and sample."""

    start_U: Samples
    """Where each utterance begins, ascending."""
    n_samples_U: Samples
    spoof_start_R: Samples
    """Where each spoofed region begins, ascending; regions do not overlap and do not leave their utterance."""
    spoof_end_R: Samples


@dataclass(frozen=True)
class SegmentEer:
    """Segment EER at one resolution."""

    segment_samples: int
    eer: Eer | None
    """None if all segments are of one class."""
    n_bonafide: int
    n_spoof: int
    n_without_frame: int
    """Segments in which no frame is centred, such as an utterance's last; not trials, as in the authors' code."""


@dataclass(frozen=True)
class Operation:
    """Precision and recall at a threshold: frames whose score is not above it are called spoof."""

    threshold: float
    precision: float | None
    """Share of the frames called spoof that are spoof; None if no frame is called spoof."""
    recall: float | None
    """Share of the spoofed frames that are called spoof; None if there are none."""
    f1: float | None


def make_timeline(n_samples_U: Samples, regions: list[Samples]) -> Timeline:
    """Lay utterances end to end.

    Args:
        n_samples_U: Length of each utterance.
        regions: Spoofed regions of each utterance, half-open (start, end), ascending, shape (regions, 2); they are cut
            off at the end of the utterance.
    """
    start_U = np.cumsum(n_samples_U) - n_samples_U
    counts_U = np.array([len(own) for own in regions], dtype=np.int64)
    region_R2 = np.concatenate([np.zeros((0, 2), dtype=np.int64), *regions])
    offset_R = np.repeat(start_U, counts_U)
    end_R = np.minimum(region_R2[:, 1], np.repeat(n_samples_U, counts_U))
    inside_R = region_R2[:, 0] < end_R
    return Timeline(start_U, n_samples_U, (offset_R + region_R2[:, 0])[inside_R], (offset_R + end_R)[inside_R])


def is_spoof(timeline: Timeline, position_N: Samples) -> Flags:
    """Return whether positions are in a spoofed region, shape (N,)."""
    row_N = np.searchsorted(timeline.spoof_start_R, position_N, side="right") - 1
    flags: Flags = (row_N >= 0) & (position_N < np.append(timeline.spoof_end_R, 0)[row_N])
    return flags


def spoofed_before(timeline: Timeline, position_N: Samples) -> Samples:
    """Count the spoofed samples before each position, over all utterances, shape (N,)."""
    length_R = timeline.spoof_end_R - timeline.spoof_start_R
    total_R = np.append(0, np.cumsum(length_R))
    n_begun_N = np.searchsorted(timeline.spoof_start_R, position_N, side="left")
    # The last region that began before the position may reach beyond it.
    beyond_N = np.append(0, timeline.spoof_end_R)[n_begun_N] - position_N
    before: Samples = total_R[n_begun_N] - np.maximum(beyond_N, 0)
    return before


def segment_eer(
    timeline: Timeline, utterance_N: Samples, centre_N: Samples, score_N: Values, segment_samples: int
) -> SegmentEer:
    """Compute the segment EER at one resolution; see the module's docstring.

    Args:
        timeline: Utterances and their spoofed regions.
        utterance_N: Row of each frame's utterance, ascending.
        centre_N: Sample of its utterance on which a frame is centred, ascending within an utterance.
        score_N: Scores of the frames.
        segment_samples: Length of a segment; the last one of an utterance may be shorter.
    """
    n_segments_U = -(-timeline.n_samples_U // segment_samples)
    first_U = np.cumsum(n_segments_U) - n_segments_U
    start_G = np.repeat(timeline.start_U, n_segments_U) + segment_samples * (
        np.arange(n_segments_U.sum()) - np.repeat(first_U, n_segments_U)
    )
    end_G = np.minimum(start_G + segment_samples, np.repeat(timeline.start_U + timeline.n_samples_U, n_segments_U))
    is_spoof_G = spoofed_before(timeline, end_G) > spoofed_before(timeline, start_G)
    # A centre past the end (Whisper's frames may have one) belongs to the last segment.
    within_N = np.minimum(centre_N // segment_samples, n_segments_U[utterance_N] - 1)
    segment_N = first_U[utterance_N] + within_N
    has_frame_K, begins_K = np.unique(segment_N, return_index=True)
    lowest_K = np.minimum.reduceat(score_N, begins_K)
    is_spoof_K = is_spoof_G[has_frame_K]
    bonafide, spoof = lowest_K[~is_spoof_K], lowest_K[is_spoof_K]
    return SegmentEer(
        segment_samples,
        eer(bonafide, spoof) if bonafide.size and spoof.size else None,
        bonafide.size,
        spoof.size,
        int(is_spoof_G.size - has_frame_K.size),
    )


def frame_stretches(timeline: Timeline, utterance_N: Samples, centre_N: Samples, hop: int) -> tuple[Samples, Samples]:
    """Return the stretch of time that each frame stands for: all that is nearest to its centre.

    The first frame of an utterance reaches to its start, the last one to its end, so that all time is covered.

    Returns:
        Half-open (start, end) on the timeline, each of shape (N,).
    """
    is_first_N = np.append(True, np.diff(utterance_N) > 0)
    start_N = timeline.start_U[utterance_N] + np.where(is_first_N, 0, centre_N - hop // 2)
    utterance_end_N = (timeline.start_U + timeline.n_samples_U)[utterance_N]
    is_last_N = np.append(is_first_N[1:], True)
    start_N = np.minimum(start_N, utterance_end_N)
    return start_N, np.where(is_last_N, utterance_end_N, np.append(start_N[1:], 0))


def range_eer(score_N: Values, spoof_samples_N: Samples, bonafide_samples_N: Samples) -> Eer:
    """Compute the range-based EER; see the module's docstring.

    Stretches with equal scores are called spoof together. If FNR and FPR are equally close at two thresholds, the lower
    one counts.

    Args:
        score_N: Scores of stretches of time.
        spoof_samples_N: Number of spoofed samples in each stretch.
        bonafide_samples_N: Number of bona fide samples in each stretch.

    Raises:
        SpoofkitError: no sample is spoofed, or none is bona fide.

    >>> range_eer(np.array([0.0, 1.0, 2.0]), np.array([30, 10, 0]), np.array([0, 20, 40]))
    Eer(eer=0.125, threshold=0.0)
    """
    n_spoof, n_bonafide = int(spoof_samples_N.sum()), int(bonafide_samples_N.sum())
    if not n_spoof or not n_bonafide:
        raise SpoofkitError(
            f"spoofed regions: found {n_spoof:,} spoofed and {n_bonafide:,} bona fide samples, expected some of both; "
            "evaluate a set with both"
        )
    order_N = np.argsort(score_N, kind="stable")
    sorted_N = score_N[order_N].astype(np.float64)
    is_last_of_tie_N = np.append(sorted_N[1:] > sorted_N[:-1], True)
    rejected_spoof = np.append(0, np.cumsum(spoof_samples_N[order_N])[is_last_of_tie_N])
    rejected_bonafide = np.append(0, np.cumsum(bonafide_samples_N[order_N])[is_last_of_tie_N])
    thresholds = np.append(sorted_N[0] - ACCEPT_ALL_MARGIN, sorted_N[is_last_of_tie_N])
    fnr, fpr = (n_spoof - rejected_spoof) / n_spoof, rejected_bonafide / n_bonafide
    best = int(np.argmin(np.abs(fpr - fnr)))
    return Eer(float(fpr[best] + fnr[best]) / 2, float(thresholds[best]))


def frame_operation(score_N: Values, is_spoof_N: Flags, threshold: float) -> Operation:
    """Compute precision, recall and F1 of finding spoofed frames at a threshold.

    >>> frame_operation(np.array([0.0, 1.0, 2.0, 3.0]), np.array([True, False, True, False]), 1.0)
    Operation(threshold=1.0, precision=0.5, recall=0.5, f1=0.5)
    """
    called_N = score_N <= threshold
    n_right, n_called, n_spoof = int((called_N & is_spoof_N).sum()), int(called_N.sum()), int(is_spoof_N.sum())
    return Operation(
        threshold,
        n_right / n_called if n_called else None,
        n_right / n_spoof if n_spoof else None,
        2 * n_right / (n_called + n_spoof) if n_called + n_spoof else None,
    )
