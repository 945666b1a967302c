"""From a score to a decision: accept as bona fide, reject as spoofed, or abstain."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import DcfCosts, sorted_scores


@dataclass(frozen=True)
class Thresholds:
    """Scores from `accept_from` on are accepted, those below `reject_below` rejected; between them is no decision."""

    accept_from: float
    reject_below: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.accept_from) and self.reject_below <= self.accept_from):
            raise SpoofkitError(f"{self}: expected finite thresholds, the one to reject at most the one to accept")

    def decide(self, score: float) -> str:
        """`accept`, `reject` or `abstain`."""
        return "accept" if score >= self.accept_from else "reject" if score < self.reject_below else "abstain"


def bayes_thresholds(costs: DcfCosts, abstain_cost: float | None = None) -> Thresholds:
    """Where a log-likelihood ratio (nats) is to be cut so that the expected cost is least.

    A trial whose probability of being spoofed is p costs C_fa p if it is accepted, C_miss (1 - p) if it is rejected and
    `abstain_cost` if it is put aside (Chow, "On optimum recognition error and reject tradeoff", 1970).

    Args:
        costs: Prior and costs of the two errors.
        abstain_cost: Of no decision, such as that of a person who listens; none: always decide.

    Raises:
        SpoofkitError: abstaining costs nothing, or so much that it never pays.
    """
    if abstain_cost is None:
        return Thresholds(costs.bayes_threshold, costs.bayes_threshold)
    dearest = costs.miss_cost * costs.fa_cost / (costs.miss_cost + costs.fa_cost)
    if not 0 < abstain_cost < dearest:
        raise SpoofkitError(
            f"--abstain-cost {abstain_cost}: expected more than 0 and less than {dearest:.4g}, from where deciding is "
            "always cheaper; change it or leave it out"
        )
    prior_log_odds = math.log((1 - costs.spoof_prior) / costs.spoof_prior)
    return Thresholds(
        math.log(costs.fa_cost / abstain_cost - 1) - prior_log_odds,
        -math.log(costs.miss_cost / abstain_cost - 1) - prior_log_odds,
    )


def genuine_threshold(bonafide: npt.ArrayLike, rate: float) -> tuple[float, float, float]:
    """Choose the threshold that rejects as many of some bona fide scores as a share allows, and bound what it rejects.

    It lies midway between the lowest score that it accepts and the highest that it rejects, so that digits which a file
    leaves out cannot turn a decision.

    Args:
        bonafide: Scores of recordings that are known to be bona fide.
        rate: Share of them that may be rejected.

    Returns:
        The threshold, to accept from; the share of these scores below it; and the upper end of the one-sided 95 %
        interval of the share of other bona fide recordings, drawn alike, that it rejects (Clopper and Pearson, 1934).

    Raises:
        SpoofkitError: too few scores for such a rate, or they are not finite.
    """
    from scipy.stats import beta

    scores = sorted_scores(bonafide, "bona fide")
    if not 0 < rate < 1:
        raise SpoofkitError(f"--reject-genuine {rate}: expected a share between 0 and 1, such as 0.01")
    n_rejected = math.floor(rate * scores.size + 1e-9)
    if n_rejected < 1:
        raise SpoofkitError(
            f"found {scores.size} bona fide scores, expected at least {math.ceil(1 / rate)} for a share of {rate:g}; "
            "score more recordings or allow a larger share"
        )
    lowest = float(scores[n_rejected])
    n_below = int(np.searchsorted(scores, lowest))
    threshold = (float(scores[n_below - 1]) + lowest) / 2 if n_below else lowest
    return threshold, n_below / scores.size, float(beta.ppf(0.95, n_below + 1, scores.size - n_below))
