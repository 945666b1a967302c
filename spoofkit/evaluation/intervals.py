"""Confidence intervals and p values from figures of resampled lists, which `bootstrap.py` draws.

Resampling cannot show an error where there is none: all replicates of a perfect list are perfect, and a percentile
interval would be 0 to 0, as if the error rate were known. So where an interval reaches 0, its upper end is at least
Wilson's of no error, and likewise at 100 %, with as many independent trials as there are speakers: at worst, all trials
of a speaker are errors together. Of n speakers without an error its upper end is 3.84 / (n + 3.84). The "rule of three"
has 3 / n, one-sided (Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249, 1983).
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import (
    N_REPLICATES,
    Clusters,
    clusters_of,
    draw_clusters,
    eer_replicates,
    limited_replicates,
    make_walk,
    min_dcf_replicates,
)
from spoofkit.evaluation.error_rates import Limit, wilson_interval
from spoofkit.evaluation.metrics import ASVSPOOF5, DcfCosts

CONFIDENCE = 0.95
MOST_EMPTY = 0.05  # share of replicates that may lack a class


def p_value(differences_R: npt.NDArray[np.float64]) -> float:
    """Compute the two-sided p value of a difference from its replicates.

    It is twice the smaller share of replicates on either side of 0, counting the observed list as one of them (Davison
    and Hinkley, "Bootstrap methods and their application", 1997, sections 4.2 and 5.4): at least 2 / (replicates + 1).
    """
    known = differences_R[~np.isnan(differences_R)]
    below, above = int((known <= 0).sum()), int((known >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (known.size + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for multiple comparisons (Holm, 1979); each may then be compared with the overall level.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def interval(replicates: npt.NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the ends of a percentile interval of a figure, given its replicates.

    Raises:
        SpoofkitError: too many replicates lack a class.
    """
    n_empty = int(np.isnan(replicates).sum())
    if n_empty > MOST_EMPTY * replicates.size:
        raise SpoofkitError(
            f"bootstrap: {n_empty:,} of {replicates.size:,} resampled lists lack a class, since too few speakers have "
            "both; resample single trials, which holds for these speakers only, or do without intervals"
        )
    low, high = np.nanquantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def rate_interval(percent: float, replicates_R: npt.NDArray[np.float64], n_speakers: int) -> tuple[float, float]:
    """Return the ends of an interval of an error rate, in percent.

    If it reaches 0 %, its upper end is at least Wilson's of no error, or one error would give a narrower interval than
    none does; and likewise at 100 %.

    Args:
        percent: The rate.
        replicates_R: The rate of each replicate, in percent.
        n_speakers: Number of speakers whose trials may be errors, see `Clusters.n_with`. Of an EER it is the smaller of
            both classes': where neither has an error, each rate is below its own upper end with 97.5 % confidence, so
            with 95 % both are, and the EER is not above the larger one.

    Raises:
        SpoofkitError: too many replicates lack a class, and some trials are errors.
    """
    known_R = replicates_R[~np.isnan(replicates_R)] if percent in (0.0, 100.0) else replicates_R
    low, high = interval(known_R) if known_R.size else (percent, percent)
    if low == 0:
        high = max(high, 100 * float(wilson_interval(0.0, n_speakers)[1]))
    if high == 100:
        low = min(low, 100 * float(wilson_interval(1.0, n_speakers)[0]))
    return low, high


def highest_without_error(n_bonafide: int, n_spoof: int, costs: DcfCosts = ASVSPOOF5) -> dict[str, float]:
    """Return the upper ends of EER in percent and minDCF where no trial is an error, from the numbers of speakers.

    A DCF is the weighted sum of both error rates, so its upper end is that of theirs, see `rate_interval`.
    """
    miss, fa = (wilson_interval(0.0, n)[1] for n in (n_bonafide, n_spoof))
    dcf = (costs.miss_weight * miss + costs.fa_weight * fa) / min(costs.miss_weight, costs.fa_weight)
    return {"eer_official_percent": 100 * max(miss, fa), "min_dcf": min(1.0, dcf)}


def difference_interval(
    first_R: npt.NDArray[np.float64], second_R: npt.NDArray[np.float64], most: float
) -> tuple[float, float]:
    """Return the ends of an interval of a difference, second minus first, of the same draws.

    Args:
        first_R: A figure of each replicate.
        second_R: The same of another system.
        most: What `highest_without_error` returns: how far the figures may differ if neither has an error.

    Raises:
        SpoofkitError: too many replicates lack a class.
    """
    ends = interval(second_R - first_R)
    return ends if np.nan_to_num([first_R, second_R]).any() else (-most, most)


def fixed_rate_interval(
    is_error_N: npt.NDArray[np.bool_],
    is_own_N: npt.NDArray[np.bool_],
    clusters: Clusters,
    draws_RC: npt.NDArray[np.integer],
) -> tuple[float, float]:
    """Compute the interval of a share of trials that are errors at one threshold, which stays, in percent.

    Args:
        is_error_N: Whether each trial is an error.
        is_own_N: Of which trials it is a share, such as those of a class or an attack.
        clusters: The speakers of all trials.
        draws_RC: How often each is in each replicate.

    Raises:
        SpoofkitError: too many replicates have none of these trials, and some of these are errors.
    """
    n_C, errors_C = (
        np.bincount(clusters.number_N[is_part_N], minlength=clusters.n_clusters)
        for is_part_N in (is_own_N, is_own_N & is_error_N)
    )
    with np.errstate(invalid="ignore"):
        replicates_R = 100 * (draws_RC @ errors_C) / (draws_RC @ n_C)
    return rate_interval(100 * (errors_C.sum() / n_C.sum()), replicates_R, clusters.n_with(is_own_N))


def intervals(
    trials: pl.DataFrame,
    resample: str = "speaker",
    costs: DcfCosts = ASVSPOOF5,
    limits: Sequence[Limit] = (),
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute intervals of one system's pooled EER and minDCF, and of rates at operating points.

    They are percentile intervals; where no trial is an error, see the head of this module.

    Args:
        trials: `score`, `key`, `speaker`, `attack`.
        resample: See `clusters_of`.
        costs: Prior and costs of the minDCF.
        limits: Operating points.
        n_replicates: Number of resampled lists.
        seed: Seed of the draws.

    Returns:
        JSON values: (low, high) of `eer_official_percent`, of `min_dcf` and, for each of the limits, of the rate that
        it does not limit (`operating_points`), and how they were computed; or `left_out`: why there are none.

    Raises:
        SpoofkitError: an unknown `resample`.
    """
    clusters = clusters_of(trials, resample)
    how = {
        "confidence": CONFIDENCE,
        "n_replicates": n_replicates,
        "seed": seed,
        "resampled": clusters.of,
        "n_clusters": clusters.n_clusters,
        "note": clusters.note,
    }
    try:
        drawn = draw_clusters(clusters.n_clusters, n_replicates, seed)
        draws = np.vstack((np.ones_like(drawn[:1]), drawn))  # the first is the list itself
        is_bonafide_N = (trials["key"] == "bonafide").to_numpy()
        n_of = {"bpcer": clusters.n_with(is_bonafide_N), "apcer": clusters.n_with(~is_bonafide_N)}
        walk = make_walk(trials["score"], is_bonafide_N, clusters.number_N, clusters.n_clusters)
        rejected = walk.rejected(draws)
        eer_R = 100 * eer_replicates(walk, draws, rejected)
        eers = rate_interval(eer_R[0], eer_R[1:], min(n_of.values()))
        low, high = interval(min_dcf_replicates(walk, draws, costs, rejected)[1:])
        if low == 0:
            high = max(high, highest_without_error(n_of["bpcer"], n_of["apcer"], costs)["min_dcf"])
        of_limits = {}
        for limit in limits:
            rate_R = 100 * limited_replicates(walk, draws, limit, rejected)
            of_limits[limit] = list(rate_interval(rate_R[0], rate_R[1:], n_of[limit.other]))
    except SpoofkitError as error:
        return {**how, "left_out": str(error)}
    points = [{**asdict(limit), limit.name_of_other: ends} for limit, ends in of_limits.items()]
    return {**how, "eer_official_percent": list(eers), "min_dcf": [low, high], "operating_points": points}


def apcer_intervals(
    trials: pl.DataFrame,
    accept_from: float | None,
    resample: str = "speaker",
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute 95 % intervals of the APCER of each attack at one threshold, in percent.

    Args:
        trials: `score`, `key`, `speaker`, `attack`.
        accept_from: The threshold; None: every trial is rejected.
        resample: See `bootstrap.clusters_of`.
        n_replicates: Number of resampled lists.
        seed: Seed of the draws.

    Returns:
        `[low, high]` by attack; None where more than 5 % of the replicates lack the attack.

    Raises:
        SpoofkitError: an unknown `resample`, or fewer than two speakers.
    """
    clusters = clusters_of(trials, resample)
    draws_RC = draw_clusters(clusters.n_clusters, n_replicates, seed)
    score_N, is_spoof_N = trials["score"].to_numpy(), (trials["key"] == "spoof").to_numpy()
    is_accepted_N = np.full(score_N.size, False) if accept_from is None else score_N >= accept_from
    # Codes, since to compare 700,000 texts for each attack takes longer than all that is counted.
    attacks = trials["attack"].unique().sort()
    code_N = trials["attack"].cast(pl.Enum(attacks)).to_physical().to_numpy()
    found: dict[str, Any] = {}
    for code, attack in enumerate(attacks):
        own_N = is_spoof_N & (code_N == code)
        if not own_N.any():  # what bona fide trials have there
            continue
        try:
            found[attack] = list(fixed_rate_interval(is_accepted_N, own_N, clusters, draws_RC))
        except SpoofkitError:
            found[attack] = None
    return found
