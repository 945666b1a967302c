"""Confidence intervals and p values from figures of resampled lists, which `bootstrap.py` draws.

As there, a replicate draws speakers with replacement. The APCER of each attack is at one threshold, which stays. Where
none of an attack's trials is accepted, or every one, resampling them says nothing; the interval is then Wilson's for as
many independent trials as there are speakers of that attack.
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


def intervals(
    trials: pl.DataFrame,
    resample: str = "speaker",
    costs: DcfCosts = ASVSPOOF5,
    limits: Sequence[Limit] = (),
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute percentile intervals of one system's pooled EER and minDCF, and of rates at operating points.

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
        draws = draw_clusters(clusters.n_clusters, n_replicates, seed)
        walk = make_walk(trials["score"], trials["key"] == "bonafide", clusters.number_N, clusters.n_clusters)
        rejected = walk.rejected(draws)
        eers = interval(100 * eer_replicates(walk, draws, rejected))
        dcfs = interval(min_dcf_replicates(walk, draws, costs, rejected))
        of_limits = {limit: list(interval(100 * limited_replicates(walk, draws, limit, rejected))) for limit in limits}
    except SpoofkitError as error:
        return {**how, "left_out": str(error)}
    points = [{**asdict(limit), limit.name_of_other: ends} for limit, ends in of_limits.items()]
    return {**how, "eer_official_percent": list(eers), "min_dcf": list(dcfs), "operating_points": points}


def apcer_intervals(
    trials: pl.DataFrame,
    accept_from: float | None,
    resample: str = "speaker",
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute 95 % intervals of the APCER of each attack, in percent.

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
    is_accepted_N = (trials["score"].to_numpy() >= accept_from) if accept_from is not None else np.zeros(trials.height)
    is_spoof_N, attack_N = (trials["key"] == "spoof").to_numpy(), trials["attack"].to_numpy()
    found: dict[str, Any] = {}
    for attack in sorted(set(attack_N[is_spoof_N])):
        own_N = is_spoof_N & (attack_N == attack)
        number_N, accepted_N = clusters.number_N[own_N], is_accepted_N[own_N].astype(np.float64)
        n_C = np.bincount(number_N, minlength=clusters.n_clusters)
        n_accepted_C = np.bincount(number_N, accepted_N, minlength=clusters.n_clusters)
        rate = float(accepted_N.mean())
        if rate in (0.0, 1.0):
            ends = wilson_interval(rate, int(np.count_nonzero(n_C)))
        else:
            n_R = draws_RC @ n_C
            if np.count_nonzero(n_R == 0) > MOST_EMPTY * n_R.size:
                found[attack] = None
                continue
            rate_R = np.divide(draws_RC @ n_accepted_C, n_R, out=np.full(n_R.size, np.nan), where=n_R > 0)
            ends = interval(rate_R)
        found[attack] = [100 * end for end in ends]
    return found
