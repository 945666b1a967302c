"""Metrics after the optimal monotone map of the scores: pool adjacent violators, min Cllr, EER on the convex hull.

Also the EER where the ROC crosses the diagonal. These two EERs are used elsewhere; published ASVspoof figures are
`spoofkit.evaluation.metrics.eer`, which is neither. numpy only; a higher score means more bona fide.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spoofkit.evaluation.metrics import Scores, sorted_scores


@dataclass(frozen=True)
class Bins:
    """Groups of trials in ascending order of score: the number of each class; shape (groups,)."""

    bonafide: npt.NDArray[np.float64]
    spoof: npt.NDArray[np.float64]


def tied_bins(bonafide: Scores, spoof: Scores) -> Bins:
    """Make a group of each unique score; both classes are already sorted and checked."""
    scores = np.concatenate((bonafide, spoof))
    order = np.argsort(scores, kind="stable")  # merges two sorted runs, which is quick
    ordered, is_bonafide = scores[order], order < bonafide.size
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    n_bonafide = np.add.reduceat(is_bonafide, starts, dtype=np.float64)
    return Bins(n_bonafide, np.diff(np.append(starts, scores.size)) - n_bonafide)


def pav_bins(bonafide: Scores, spoof: Scores) -> Bins:
    """Make groups whose share of bona fide rises strictly, by the pool adjacent violators algorithm.

    The groups are the segments of the ROC's convex hull (Brümmer and du Preez, "Application-independent evaluation of
    speaker detection", Computer Speech and Language 20, 2006; Fawcett and Niculescu-Mizil, 2007).
    """
    return pooled_bins(tied_bins(bonafide, spoof))


def pooled_bins(bins: Bins) -> Bins:
    """Make `pav_bins` of groups in ascending order of score.

    Each round joins all runs of neighbours whose shares do not rise; the order of joining does not matter. Counts are
    whole numbers, so shares are compared exactly. To import scipy's isotonic regression takes longer than all metrics.
    """
    while True:
        bonafide, spoof = bins.bonafide, bins.spoof
        rises = bonafide[1:] * spoof[:-1] > bonafide[:-1] * spoof[1:]
        if rises.all():
            return bins
        starts = np.flatnonzero(np.append(True, rises))
        bins = Bins(np.add.reduceat(bonafide, starts), np.add.reduceat(spoof, starts))


def min_cllr(bonafide: npt.ArrayLike, spoof: npt.ArrayLike) -> float:
    """Compute Cllr in bits after the optimal monotone map of the scores (Brümmer and du Preez, 2006).

    Raises:
        SpoofkitError: A class is empty, or a score is not a finite number.

    >>> min_cllr([3.0, 2.0], [1.0]), min_cllr([1.0], [1.0])
    (0.0, 1.0)
    """
    return min_cllr_of_sorted(sorted_scores(bonafide, "bona fide"), sorted_scores(spoof, "spoof"))


def min_cllr_of_sorted(bonafide: Scores, spoof: Scores) -> float:
    """Compute `min_cllr` of scores that are already sorted and checked."""
    return min_cllr_of_pooled(pav_bins(bonafide, spoof))


def min_cllr_of_pooled(bins: Bins) -> float:
    """Compute `min_cllr` of the groups of `pav_bins`."""
    n_bonafide, n_spoof = bins.bonafide.sum(), bins.spoof.sum()
    mixed = (bins.bonafide > 0) & (bins.spoof > 0)  # elsewhere the ratio is infinite and the cost is 0
    b, s = bins.bonafide[mixed], bins.spoof[mixed]
    llr = np.log(b / s) - math.log(n_bonafide / n_spoof)
    nats = b @ np.logaddexp(0, -llr) / n_bonafide + s @ np.logaddexp(0, llr) / n_spoof
    return float(nats / 2 / math.log(2))


def rocch_eer(bonafide: npt.ArrayLike, spoof: npt.ArrayLike) -> float:
    """Compute the EER on the convex hull of the ROC, as a fraction.

    Raises:
        SpoofkitError: A class is empty, or a score is not a finite number.

    >>> round(rocch_eer([0.9, 0.8, 0.3], [0.7, 0.2]), 12)
    0.2
    """
    return crossing(pav_bins(sorted_scores(bonafide, "bona fide"), sorted_scores(spoof, "spoof")))


def interpolated_eer(bonafide: npt.ArrayLike, spoof: npt.ArrayLike) -> float:
    """Compute the EER where the interpolated ROC crosses the diagonal, as a fraction; ties are one point.

    Raises:
        SpoofkitError: A class is empty, or a score is not a finite number.

    >>> round(interpolated_eer([0.9, 0.8, 0.3], [0.7, 0.2]), 12)
    0.333333333333
    """
    return crossing(tied_bins(sorted_scores(bonafide, "bona fide"), sorted_scores(spoof, "spoof")))


def crossing(bins: Bins) -> float:
    """Compute the EER where the line through the operating points between groups crosses the diagonal."""
    miss = np.append(0, np.cumsum(bins.bonafide)) / bins.bonafide.sum()
    fa = np.append(bins.spoof.sum(), bins.spoof.sum() - np.cumsum(bins.spoof)) / bins.spoof.sum()
    after = int(np.argmax(miss >= fa))  # the first point beyond the diagonal, or on it; never the first of all
    before = after - 1
    gap = fa[before] - miss[before]
    share = gap / (gap + miss[after] - fa[after])
    return float(miss[before] + share * (miss[after] - miss[before]))
