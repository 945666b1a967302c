"""Intervals of the APCER of each attack at one threshold, which stays: what it would be with other speakers.

As in `bootstrap.py`, a replicate draws speakers with replacement; its rate is that of the attack's trials in it. Where
none of an attack's trials is accepted, or every one, resampling them says nothing; the interval is then Wilson's for as
many independent trials as there are speakers of that attack.
"""

from typing import Any

import numpy as np
import polars as pl

from spoofkit.evaluation.bootstrap import MOST_EMPTY, N_REPLICATES, clusters_of, draw_clusters, interval
from spoofkit.evaluation.error_rates import wilson_interval


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
    is_spoof_N = (trials["key"] == "spoof").to_numpy()
    names = trials["attack"].filter(is_spoof_N)
    attacks = names.unique().sort()
    # Codes, since 17 comparisons of 700,000 texts take longer than all that is counted.
    attack_S = names.cast(pl.Enum(attacks)).to_physical().to_numpy()
    shape = (attacks.len(), clusters.n_clusters)
    place_S = attack_S * np.int64(shape[1]) + clusters.number_N[is_spoof_N]
    n_AC = np.bincount(place_S, minlength=shape[0] * shape[1]).reshape(shape)
    score_S = trials["score"].to_numpy()[is_spoof_N]
    accepted_S = np.zeros(score_S.size) if accept_from is None else score_S >= accept_from
    n_accepted_AC = np.bincount(place_S, accepted_S, minlength=shape[0] * shape[1]).reshape(shape)
    found: dict[str, Any] = {}
    for attack, n_C, n_accepted_C in zip(attacks, n_AC, n_accepted_AC, strict=True):
        rate = float(n_accepted_C.sum() / n_C.sum())
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
