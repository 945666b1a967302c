"""Metrics of a countermeasure in tandem with speaker verification (ASV): both versions of min t-DCF, a-DCF, t-EER.

The two versions of the t-DCF are not comparable, so a printed figure must name its version. numpy only; higher scores
mean more likely bona fide (countermeasure) and more likely the target speaker (ASV). The challenges' constants are
named presets; every constant can be passed as an argument.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import eer_of_sorted, operating_points, sorted_scores


@dataclass(frozen=True)
class AsvRates:
    """Error rates of the ASV system at its threshold, as fractions."""

    miss: float
    """Targets rejected."""
    fa: float
    """Nontargets accepted."""
    fa_spoof: float
    """Spoofed utterances accepted."""

    def __post_init__(self) -> None:
        if not all(0 <= rate <= 1 for rate in (self.miss, self.fa, self.fa_spoof)):
            raise SpoofkitError(f"{self}: expected fractions between 0 and 1; give the ASV system's error rates")


ASVSPOOF5_ASV = AsvRates(miss=0.01880141010575793, fa=0.01881016557566423, fa_spoof=0.4607082907604729)
"""The organisers' ASV system on ASVspoof 5 eval (asvspoof-challenge/asvspoof5, evaluation.py)."""


@dataclass(frozen=True)
class TandemCosts:
    """Priors and costs of a tandem system."""

    target_prior: float = 0.9405
    nontarget_prior: float = 0.0095
    spoof_prior: float = 0.05
    miss_cost: float = 1
    """Cost of rejecting a target, whichever system rejects it."""
    fa_cost: float = 10
    """Cost of accepting a nontarget."""
    fa_spoof_cost: float = 10
    """Cost of accepting a spoofed utterance."""

    def __post_init__(self) -> None:
        priors = (self.target_prior, self.nontarget_prior, self.spoof_prior)
        costs = (self.miss_cost, self.fa_cost, self.fa_spoof_cost)
        if min(priors) < 0 or abs(sum(priors) - 1) > 1e-9 or min(costs) <= 0:
            raise SpoofkitError(f"{self}: expected priors that sum to 1 and positive costs; give such values")


ASVSPOOF = TandemCosts()
"""The priors and costs of ASVspoof 2019 LA, 2021 LA and 5."""


def asv_rates(target: npt.ArrayLike, nontarget: npt.ArrayLike, spoof: npt.ArrayLike) -> AsvRates:
    """Compute the error rates of an ASV system at its own EER threshold (targets against nontargets).

    Raises:
        SpoofkitError: a class is empty, or a score is not a finite number.
    """
    names = ("target", "nontarget", "spoof (ASV)")
    targets, nontargets, spoofs = (
        sorted_scores(scores, name) for scores, name in zip((target, nontarget, spoof), names, strict=True)
    )
    threshold = eer_of_sorted(targets, nontargets).threshold
    below = [float(np.searchsorted(scores, threshold) / scores.size) for scores in (targets, nontargets, spoofs)]
    return AsvRates(below[0], 1 - below[1], 1 - below[2])


def min_tdcf_2019(bonafide: npt.ArrayLike, spoof: npt.ArrayLike, asv: AsvRates, costs: TandemCosts = ASVSPOOF) -> float:
    """Compute the minimum normalised tandem cost, the legacy version of ASVspoof 2019.

    Kinnunen et al., "t-DCF: a detection cost function for the tandem assessment of spoofing countermeasures and
    automatic speaker verification", Odyssey 2018: min (C1 miss + C2 fa) / min(C1, C2).

    Raises:
        SpoofkitError: a class is empty, a score is not finite, or the ASV system alone costs more than rejecting all.
    """
    c1 = costs.target_prior * costs.miss_cost * (1 - asv.miss) - costs.nontarget_prior * costs.fa_cost * asv.fa
    c2 = costs.fa_spoof_cost * costs.spoof_prior * asv.fa_spoof
    _require_positive(c1, c2, asv)
    points = operating_points(bonafide, spoof)
    return float(np.min(c1 * points.miss + c2 * points.fa) / min(c1, c2))


def min_tdcf_2021(bonafide: npt.ArrayLike, spoof: npt.ArrayLike, asv: AsvRates, costs: TandemCosts = ASVSPOOF) -> float:
    """Compute the minimum normalised tandem cost, the version of ASVspoof 2021 and 5; at most 1.

    Kinnunen et al., "Tandem assessment of spoofing countermeasures and automatic speaker verification: fundamentals",
    IEEE/ACM TASLP 28, 2020: min (C0 + C1 miss + C2 fa) / (C0 + min(C1, C2)).

    Raises:
        SpoofkitError: see `min_tdcf_2019`.
    """
    c0 = costs.target_prior * costs.miss_cost * asv.miss + costs.nontarget_prior * costs.fa_cost * asv.fa
    c1 = costs.target_prior * costs.miss_cost - c0
    c2 = costs.spoof_prior * costs.fa_spoof_cost * asv.fa_spoof
    _require_positive(c1, c2, asv)
    points = operating_points(bonafide, spoof)
    return float(np.min(c0 + c1 * points.miss + c2 * points.fa) / (c0 + min(c1, c2)))


def _require_positive(c1: float, c2: float, asv: AsvRates) -> None:
    if c1 <= 0 or c2 <= 0:
        raise SpoofkitError(
            f"t-DCF: with {asv} the weights of miss and false alarm are {c1:.4g} and {c2:.4g}, expected positive ones; "
            "this ASV system is worse than none, or accepts no spoof; use the scores of another"
        )


def min_adcf(
    target: npt.ArrayLike, nontarget: npt.ArrayLike, spoof: npt.ArrayLike, costs: TandemCosts = ASVSPOOF
) -> float:
    """Compute the minimum normalised architecture-agnostic DCF (a-DCF) of spoofing-aware verification; at most 1.

    Shim et al., "a-DCF: an architecture agnostic metric with application to spoofing-robust speaker verification",
    Odyssey 2024: min over thresholds of [Cmiss Ptar Pmiss + Cfa Pnon Pfa_non + Cfa_spf Pspf Pfa_spf], divided by the
    lower of the costs of accepting everything and of rejecting everything. A score at the threshold is accepted.

    Args:
        target: Scores of the target speaker's bona fide trials, from one system of any architecture.
        nontarget: Scores of other speakers' bona fide trials.
        spoof: Scores of spoofed trials.
        costs: Priors and costs.

    Raises:
        SpoofkitError: a class is empty, or a score is not a finite number.
    """
    classes = [
        sorted_scores(scores, name) for scores, name in ((target, "target"), (nontarget, "nontarget"), (spoof, "spoof"))
    ]
    thresholds = np.append(np.unique(np.concatenate(classes)), np.inf)
    miss, below_non, below_spoof = (np.searchsorted(scores, thresholds) / scores.size for scores in classes)
    weights = (
        costs.miss_cost * costs.target_prior,
        costs.fa_cost * costs.nontarget_prior,
        costs.fa_spoof_cost * costs.spoof_prior,
    )
    cost = weights[0] * miss + weights[1] * (1 - below_non) + weights[2] * (1 - below_spoof)
    return float(np.min(cost) / min(weights[0], weights[1] + weights[2]))


def concurrent_teer(
    bonafide: npt.ArrayLike,
    spoof: npt.ArrayLike,
    target: npt.ArrayLike,
    nontarget: npt.ArrayLike,
    asv_spoof: npt.ArrayLike,
) -> float:
    """Compute the concurrent tandem EER, as a fraction.

    It is the error rate at the pair of thresholds where the miss rate and both false alarm rates are equal.
    Kinnunen et al., "t-EER: parameter-free tandem evaluation of countermeasures and biometric comparators", IEEE TPAMI
    46, 2024. The errors of the two systems are assumed to be independent. A target is missed if either system rejects
    it. A nontarget is accepted if the countermeasure accepts it as bona fide and the ASV system accepts the speaker. A
    spoof is accepted if both systems accept it.

    On real scores the three rates are never exactly equal, so a rule must choose the thresholds. This is the rule of
    the evaluation package (asvspoof-challenge/asvspoof5, calculate_modules.py, compute_teer), without its coarse search
    of large sets. Each ASV threshold at which fewer targets are missed than impostors accepted is paired with the
    countermeasure threshold at which the tandem's miss rate is nearest to the mean of its false alarm rates. Of these
    pairs, the one is chosen at which both false alarm rates are nearest to each other: the ASV system's ratio of
    nontarget to spoof acceptance rates is compared with the countermeasure's ratio of spoof to bona fide acceptance
    rates. Among equals the first in ascending order is chosen. The share of spoofs accepted by both is the t-EER.

    Args:
        bonafide: Countermeasure's scores of bona fide trials.
        spoof: Countermeasure's scores of spoofed trials.
        target: ASV scores of targets.
        nontarget: ASV scores of nontargets.
        asv_spoof: ASV scores of spoofed trials.

    Raises:
        SpoofkitError: a class is empty, a score is not a finite number, or no pair of thresholds accepts both a spoof
            and a bona fide trial.
    """
    cm = operating_points(bonafide, spoof)
    miss_A, fa_A, fa_spoof_A = _asv_walk(target, nontarget, asv_spoof)
    # Where the ASV system accepts no spoof, the package's criterion is infinite: such a pair is never chosen.
    allowed = (miss_A < 0.5 * fa_A + 0.5 * fa_spoof_A) & (fa_spoof_A > 0)
    miss_A, fa_A, fa_spoof_A = miss_A[allowed], fa_A[allowed], fa_spoof_A[allowed]

    def gap(place_A: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        # The package's own order of operations: on small sets its rounding decides between equal distances.
        miss, fa = cm.miss[place_A], cm.fa[place_A]
        return (miss + (1 - miss) * miss_A) - (0.5 * (1 - miss) * fa_A + 0.5 * fa * fa_spoof_A)

    # The gap rises with every step of the countermeasure's walk: bisect to the first point where it is not negative.
    low_A, high_A = np.zeros(miss_A.size, dtype=np.int64), np.full(miss_A.size, cm.miss.size - 1)
    while (low_A < high_A).any():
        middle_A = (low_A + high_A) // 2
        beyond = gap(middle_A) >= 0
        low_A, high_A = np.where(beyond, low_A, middle_A + 1), np.where(beyond, middle_A, high_A)
    before_A = np.maximum(low_A - 1, 0)
    place_A = np.where(np.abs(gap(before_A)) <= np.abs(gap(low_A)), before_A, low_A)
    accepted_A = 1 - cm.miss[place_A]
    possible = np.flatnonzero(accepted_A > 0)
    if not possible.size:
        raise SpoofkitError(
            "concurrent t-EER: no pair of thresholds accepts a spoof and a bona fide trial while fewer targets are "
            "missed than impostors accepted, expected one; give scores of more trials, or of an ASV system that works"
        )
    criterion = np.abs(fa_A / fa_spoof_A - cm.fa[place_A] / np.where(accepted_A > 0, accepted_A, 1))
    best = possible[np.argmin(criterion[possible])]
    return float(fa_spoof_A[best] * cm.fa[place_A[best]])


def _asv_walk(
    target: npt.ArrayLike, nontarget: npt.ArrayLike, spoof: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute miss and both fa after rejecting 0, 1, … trials in ascending order; ties: targets, nontargets, spoofs."""
    names = ("target", "nontarget", "spoof (ASV)")
    classes = [sorted_scores(scores, name) for scores, name in zip((target, nontarget, spoof), names, strict=True)]
    order = np.argsort(np.concatenate(classes), kind="stable")
    kind = np.repeat(np.arange(3), [scores.size for scores in classes])[order]
    shares = [np.append(0, np.cumsum(kind == k)) / scores.size for k, scores in enumerate(classes)]
    return shares[0], 1 - shares[1], 1 - shares[2]
