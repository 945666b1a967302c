"""Detection metrics, exactly as the ASVspoof challenges count them. numpy only; no files, no tables, no plots.

Everywhere a higher score means more bona fide. `bonafide` is a one-dimensional array of the B bona fide scores and
`spoof` one of the S spoof scores, in any order; functions named `…_of_sorted` want what `sorted_scores` returns, so
that a breakdown with hundreds of cells sorts each score once.

An *operating point* of the official ASVspoof code is what one has after walking k of the N = B + S trials upwards from
the lowest score and rejecting them: miss = rejected bona fide / B, fa = spoof not yet rejected / S, for k = 0 … N. The
walk is a *stable* sort of bona fide followed by spoof: inside a tie bona fide is rejected first, so a tie counts
against the system. There is no interpolation. The source of every formula is the evaluation package of ASVspoof 5
(asvspoof-challenge/asvspoof5 on GitHub, calculate_modules.py); its EER is that of ASVspoof 2019 and 2021.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spoofkit.errors import SpoofkitError

EER_VARIANT = "official ASVspoof"
# Below the lowest score by this much lies the threshold that rejects nothing (the official package's choice).
ACCEPT_ALL_MARGIN = 0.001

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Eer:
    """An equal error rate as a fraction, and the highest score that is rejected there."""

    eer: float
    threshold: float


@dataclass(frozen=True)
class MinDcf:
    """A minimum normalised detection cost, and the highest score that is rejected there."""

    min_dcf: float
    threshold: float


@dataclass(frozen=True)
class OperatingPoints:
    """The official operating points in the walk's order: fractions, fractions, scores; each of shape (N + 1,)."""

    miss: Scores
    fa: Scores
    thresholds: Scores


@dataclass(frozen=True)
class DcfCosts:
    """Prior and costs of a detection cost: C_miss (1 - pi_spoof) miss + C_fa pi_spoof fa."""

    spoof_prior: float
    miss_cost: float
    fa_cost: float

    def __post_init__(self) -> None:
        if not 0 < self.spoof_prior < 1 or not 0 < self.miss_cost < math.inf or not 0 < self.fa_cost < math.inf:
            raise SpoofkitError(
                f"{self._in_words}: expected a prior between 0 and 1 and positive, finite costs; give such values"
            )
        if not (self.miss_weight > 0 and self.fa_weight > 0):
            raise SpoofkitError(f"{self._in_words}: prior and costs are too small to tell from 0; give larger ones")
        if not 1e-300 < self.miss_weight / self.fa_weight < 1e300:
            raise SpoofkitError(f"{self._in_words}: the costs of the two errors are too far apart; give closer ones")

    @property
    def _in_words(self) -> str:
        return f"spoof prior {self.spoof_prior:g}, cost of a miss {self.miss_cost:g}, of a false alarm {self.fa_cost:g}"

    @property
    def miss_weight(self) -> float:
        """Cost of missing every bona fide trial, before normalisation."""
        return self.miss_cost * (1 - self.spoof_prior)

    @property
    def fa_weight(self) -> float:
        """Cost of accepting every spoof trial, before normalisation."""
        return self.fa_cost * self.spoof_prior

    @property
    def bayes_threshold(self) -> float:
        """Log-likelihood ratio (nats) from which accepting costs less than rejecting."""
        return -math.log(self.miss_weight / self.fa_weight)


ASVSPOOF5 = DcfCosts(spoof_prior=0.05, miss_cost=1, fa_cost=10)


def dcf_costs(
    spoof_prior: float | None = None, miss_cost: float | None = None, fa_cost: float | None = None
) -> DcfCosts:
    """Complete costs: those not given are those of ASVspoof 5, track 1.

    Raises:
        SpoofkitError: the prior is outside 0 to 1, or a cost is not positive and finite.
    """
    given = {"spoof_prior": spoof_prior, "miss_cost": miss_cost, "fa_cost": fa_cost}
    return replace(ASVSPOOF5, **{name: value for name, value in given.items() if value is not None})


def sorted_scores(scores: npt.ArrayLike, name: str) -> Scores:
    """Check one class's scores and sort them ascending.

    Args:
        scores: One-dimensional, at least one, all finite.
        name: Their name in error messages, such as "bona fide".

    Raises:
        SpoofkitError: The scores are not one-dimensional numbers, there is none, or one is NaN or infinite.

    >>> sorted_scores([3, 1, 2], "bona fide").tolist()
    [1.0, 2.0, 3.0]
    """
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SpoofkitError(f"{name} scores: found something that is not a number ({error}); pass numbers") from error
    if values.ndim != 1 or not values.size:
        raise SpoofkitError(f"{name} scores: found shape {values.shape}, expected one dimension and at least one score")
    is_finite = np.isfinite(values)
    if not is_finite.all():
        bad = np.flatnonzero(~is_finite)
        raise SpoofkitError(
            f"{name} scores: {bad.size} of {values.size} are NaN or infinite, the first at index {bad[0]}; "
            "expected finite numbers, so score these trials again"
        )
    return np.sort(values)


def eer(bonafide: npt.ArrayLike, spoof: npt.ArrayLike) -> Eer:
    """Compute the equal error rate, official ASVspoof variant.

    It is the mean of miss and fa at the first of the N + 1 official operating points where |miss - fa| is smallest.

    Args:
        bonafide: Bona fide scores, shape (B,).
        spoof: Spoof scores, shape (S,).

    Returns:
        The rate as a fraction (0.25 is 25 %) and its threshold, the highest score rejected at that point.

    Raises:
        SpoofkitError: A class is empty, or a score is not a finite number.

    >>> round(100 * eer([0.9, 0.8, 0.3], [0.7, 0.2]).eer, 3)
    41.667
    >>> eer([1, 1, 1, 0], [0, 0, 0, 1, 1])  # a tie counts against the system
    Eer(eer=0.45, threshold=1.0)
    >>> eer([5, 5], [5, 5, 5]).eer  # all scores equal
    1.0
    """
    return eer_of_sorted(sorted_scores(bonafide, "bona fide"), sorted_scores(spoof, "spoof"))


def eer_of_sorted(bonafide: Scores, spoof: Scores) -> Eer:
    """Compute `eer` of scores that are already sorted and checked, in O(log² N) and without a walk.

    miss - fa rises with every step of the walk, so the smallest |miss - fa| lies next to its change of sign. The walk's
    points are those that reject a bona fide score and those that reject a spoof score. Bisection finds the change of
    sign in either chain, and the best of the four neighbours (and the start) is the best of the walk.
    """
    n_bonafide, n_spoof = bonafide.size, spoof.size

    def after_bonafide(i: int) -> tuple[int, int]:
        # Rejected (bona fide, spoof) when the i-th lowest bona fide score, from 1, has just been rejected.
        return i, int(np.searchsorted(spoof, bonafide[i - 1], side="left"))

    def after_spoof(j: int) -> tuple[int, int]:
        return int(np.searchsorted(bonafide, spoof[j - 1], side="right")), j

    def rates(point: tuple[int, int]) -> tuple[float, float]:
        # (n - k) / n and not 1 - k / n: the rounding of the latter moves the argmin on small sets.
        return point[0] / n_bonafide, (n_spoof - point[1]) / n_spoof

    candidates = [((0, 0), float(min(bonafide[0], spoof[0])) - ACCEPT_ALL_MARGIN)]
    for scores, after in ((bonafide, after_bonafide), (spoof, after_spoof)):
        low, high = 1, scores.size  # the first k whose point has miss >= fa, or the last k if none has
        while low < high:
            middle = (low + high) // 2
            miss, fa = rates(after(middle))
            low, high = (low, middle) if miss >= fa else (middle + 1, high)
        candidates += [(after(k), float(scores[k - 1])) for k in (low - 1, low) if k >= 1]

    def official_order(candidate: tuple[tuple[int, int], float]) -> tuple[float, int]:
        miss, fa = rates(candidate[0])
        return abs(miss - fa), sum(candidate[0])  # among equals the first in the walk

    best, threshold = min(candidates, key=official_order)
    miss, fa = rates(best)
    return Eer((miss + fa) / 2, threshold)


def operating_points(bonafide: npt.ArrayLike, spoof: npt.ArrayLike) -> OperatingPoints:
    """Compute all N + 1 official operating points, from accepting everything to rejecting everything.

    Args:
        bonafide: Bona fide scores, shape (B,).
        spoof: Spoof scores, shape (S,).

    Returns:
        Three arrays of shape (B + S + 1,): miss rises from 0 to 1, fa falls from 1 to 0, both fractions; the threshold
        of a point is the highest score that it rejects.

    Raises:
        SpoofkitError: A class is empty, or a score is not a finite number.

    >>> points = operating_points([0.9, 0.3], [0.2])
    >>> points.miss.tolist(), points.fa.tolist()
    ([0.0, 0.0, 0.5, 1.0], [1.0, 0.0, 0.0, 0.0])
    >>> points.thresholds.round(3).tolist()
    [0.199, 0.2, 0.3, 0.9]
    """
    bonafide, spoof = sorted_scores(bonafide, "bona fide"), sorted_scores(spoof, "spoof")
    n_bonafide, n_spoof = bonafide.size, spoof.size
    is_bonafide = np.zeros(n_bonafide + n_spoof, dtype=bool)
    is_bonafide[np.arange(n_bonafide) + np.searchsorted(spoof, bonafide, side="left")] = True
    thresholds = np.empty(is_bonafide.size + 1)
    thresholds[0] = min(bonafide[0], spoof[0]) - ACCEPT_ALL_MARGIN
    thresholds[1:][is_bonafide] = bonafide
    thresholds[1:][~is_bonafide] = spoof
    rejected_bonafide = np.concatenate(([0], np.cumsum(is_bonafide)))
    rejected_spoof = np.arange(thresholds.size) - rejected_bonafide
    return OperatingPoints(rejected_bonafide / n_bonafide, (n_spoof - rejected_spoof) / n_spoof, thresholds)


def min_dcf(bonafide: npt.ArrayLike, spoof: npt.ArrayLike, costs: DcfCosts = ASVSPOOF5) -> float:
    """Compute the minimum normalised detection cost over the official operating points; at most 1.

    With the costs of ASVspoof 5, track 1: min [0.95 miss + 0.5 fa] / 0.5 = min (1.9 miss + fa).

    Args:
        bonafide: Bona fide scores, shape (B,).
        spoof: Spoof scores, shape (S,).
        costs: Prior and costs of the two errors.

    Raises:
        SpoofkitError: A class is empty, or a score is not a finite number.

    >>> min_dcf([2.0, 1.0, -3.0], [-1.0, -2.0]) == 1.9 / 3
    True
    """
    return min_dcf_of_sorted(sorted_scores(bonafide, "bona fide"), sorted_scores(spoof, "spoof"), costs).min_dcf


def min_dcf_of_sorted(bonafide: Scores, spoof: Scores, costs: DcfCosts = ASVSPOOF5) -> MinDcf:
    """Compute `min_dcf` and its threshold, of scores that are already sorted and checked.

    Rejecting a bona fide trial can only raise the cost and rejecting a spoof trial only lower it, so the minimum lies
    just before a bona fide score or at the end: B + 1 points instead of N + 1.
    """
    rejected_bonafide = np.arange(bonafide.size + 1)
    rejected_spoof = np.append(np.searchsorted(spoof, bonafide, side="left"), spoof.size)
    cost = _dcf(rejected_bonafide / bonafide.size, (spoof.size - rejected_spoof) / spoof.size, costs)
    best = int(np.argmin(cost))  # among equals the first in the walk
    rejected = [*bonafide[:best][-1:], *spoof[: rejected_spoof[best]][-1:]]  # the highest of each class
    threshold = max(rejected) if rejected else min(bonafide[0], spoof[0]) - ACCEPT_ALL_MARGIN
    return MinDcf(float(cost[best]), float(threshold))


def act_dcf(bonafide: npt.ArrayLike, spoof: npt.ArrayLike, costs: DcfCosts = ASVSPOOF5) -> float:
    """Compute the actual normalised detection cost of log-likelihood ratios (nats) at the Bayes threshold.

    That is `costs.bayes_threshold`, -ln 1.9 = -0.641854 for ASVspoof 5. The cost also measures calibration, so it may
    exceed 1.

    Args:
        bonafide: Bona fide scores, shape (B,).
        spoof: Spoof scores, shape (S,).
        costs: Prior and costs of the two errors.

    Raises:
        SpoofkitError: A class is empty, or a score is not a finite number.

    >>> act_dcf([2.0, 1.0], [-1.0, 0.0])  # half of the spoof trials lie above -0.64
    0.5
    """
    return act_dcf_of_sorted(sorted_scores(bonafide, "bona fide"), sorted_scores(spoof, "spoof"), costs)


def act_dcf_of_sorted(bonafide: Scores, spoof: Scores, costs: DcfCosts = ASVSPOOF5) -> float:
    """Compute `act_dcf` of scores that are already sorted and checked."""
    n_missed = int(np.searchsorted(bonafide, costs.bayes_threshold, side="left"))
    n_rejected_spoof = int(np.searchsorted(spoof, costs.bayes_threshold, side="left"))
    return float(_dcf(n_missed / bonafide.size, (spoof.size - n_rejected_spoof) / spoof.size, costs))


def cllr(bonafide: npt.ArrayLike, spoof: npt.ArrayLike) -> float:
    """Compute the cost of the log-likelihood ratio, in bits: 0 is perfect, 1 is that of a constant score of 0.

    1/2 [mean over B of log2(1 + e^-s) + mean over S of log2(1 + e^s)] (Brümmer and du Preez, 2006), formed with
    logaddexp so that no score overflows (the official form does past 709).

    Args:
        bonafide: Bona fide log-likelihood ratios in nats, shape (B,).
        spoof: Spoof log-likelihood ratios in nats, shape (S,).

    Raises:
        SpoofkitError: A class is empty, or a score is not a finite number.

    >>> cllr([0.0, 0.0], [0.0])
    1.0
    """
    return cllr_of_checked(sorted_scores(bonafide, "bona fide"), sorted_scores(spoof, "spoof"))


def cllr_of_checked(bonafide: Scores, spoof: Scores) -> float:
    """Compute `cllr` of scores that are already checked, in any order."""
    costs = np.logaddexp(0.0, -bonafide), np.logaddexp(0.0, spoof)
    with np.errstate(over="ignore"):
        nats = np.mean(costs[0]) + np.mean(costs[1])
    if not np.isfinite(nats):  # the sum is beyond a float, the mean is not
        return float(sum(np.sum(cost / cost.size / 2 / math.log(2)) for cost in costs))
    return float(nats / 2 / math.log(2))


def _dcf(miss: Any, fa: Any, costs: DcfCosts) -> Any:
    """Compute the normalised detection cost of one operating point or of arrays of them."""
    return (costs.miss_weight * miss + costs.fa_weight * fa) / min(costs.miss_weight, costs.fa_weight)
