"""Decision thresholds: accept a score as bona fide, reject it as spoofed, or abstain."""

import math
from dataclasses import dataclass

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import DcfCosts


@dataclass(frozen=True)
class Thresholds:
    """Scores of at least `accept_from` are accepted, those below `reject_below` rejected; those between abstain."""

    accept_from: float
    reject_below: float

    def __post_init__(self) -> None:
        if not -math.inf < self.reject_below <= self.accept_from < math.inf:
            raise SpoofkitError(
                f"accept from {self.accept_from:g}, reject below {self.reject_below:g}: expected finite numbers, the "
                "second not above the first; correct the thresholds"
            )

    def decide(self, score: float) -> str:
        """Return `accept`, `reject` or `abstain`."""
        return "accept" if score >= self.accept_from else "reject" if score < self.reject_below else "abstain"


def bayes_thresholds(costs: DcfCosts, abstain_cost: float | None = None) -> Thresholds:
    """Compute the thresholds on log-likelihood ratios (nats) that minimise the expected cost.

    A trial whose probability of being spoofed is p costs C_fa p if it is accepted, C_miss (1 - p) if it is rejected and
    `abstain_cost` if it is put aside (Chow, "On optimum recognition error and reject tradeoff", 1970).

    Args:
        costs: Prior and costs of the two errors.
        abstain_cost: Cost of abstaining, such as that of a human listener. Default: always decide.

    Raises:
        SpoofkitError: abstaining costs nothing, or so much that deciding is always cheaper.
    """
    if abstain_cost is None:
        return Thresholds(costs.bayes_threshold, costs.bayes_threshold)
    dearest = costs.miss_cost * costs.fa_cost / (costs.miss_cost + costs.fa_cost)
    if not 0 < abstain_cost < dearest:
        raise SpoofkitError(
            f"--abstain-cost {abstain_cost}: expected more than 0 and less than {dearest:.4g} (from there deciding is "
            "always cheaper); change it or omit it"
        )
    prior_log_odds = math.log((1 - costs.spoof_prior) / costs.spoof_prior)
    return Thresholds(
        math.log(costs.fa_cost / abstain_cost - 1) - prior_log_odds,
        -math.log(costs.miss_cost / abstain_cost - 1) - prior_log_odds,
    )
