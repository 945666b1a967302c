"""From a score to a decision: accept as bona fide, reject as spoofed, or abstain; and how a threshold is chosen."""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import DcfCosts, sorted_scores
from spoofkit.evaluation.records import read_record
from spoofkit.evaluation.scores import are_llr, read_scores

CALIBRATION = "CAL.json"  # stands for one that is not known


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


def threshold_of_genuine(scores: Path, rate: float) -> dict[str, Any]:
    """Choose a threshold by scores of recordings that are known to be bona fide.

    Args:
        scores: Score file, or a table of `score`; log-likelihood ratios or scores as they are.
        rate: Share of these recordings that may be rejected.

    Returns:
        `accept_from` and `reject_below`, on the kind of scores that the file holds; `n_bonafide`, and the share that is
        rejected of these and, at most, of others; `score_options` for such scores, if `score` can make them.

    Raises:
        SpoofkitError: as `read_scores` and `genuine_threshold` do.
    """
    table = read_scores(scores)
    accept_from, share, at_most = genuine_threshold(table["score"].to_numpy(), rate)
    record = read_record(scores)
    calibration = record.get("calibration") or (CALIBRATION if are_llr(scores) else None)
    options = [] if calibration is None else ["--calibration", str(calibration)]
    found = {"accept_from": accept_from, "reject_below": accept_from, "n_bonafide": table.height}
    found |= {"rejects": share, "rejects_at_most": at_most, "confidence": 0.95}
    is_fused = len(record.get("made_of_sha256", ())) > 1
    return found | ({} if is_fused else {"score_options": [*options, "--accept-from", repr(accept_from)]})


def threshold_of_costs(costs: DcfCosts, abstain_cost: float | None) -> dict[str, Any]:
    """Choose thresholds on log-likelihood ratios by what errors cost.

    Returns:
        `accept_from`, `reject_below` (nats), and `score_options`.

    Raises:
        SpoofkitError: as `bayes_thresholds` does.
    """
    cut = bayes_thresholds(costs, abstain_cost)
    given = {"spoof-prior": costs.spoof_prior, "miss-cost": costs.miss_cost, "fa-cost": costs.fa_cost}
    given |= {} if abstain_cost is None else {"abstain-cost": abstain_cost}
    # Not the thresholds: `score` gives probabilities at this prior too.
    options = [word for name, value in given.items() for word in (f"--{name}", f"{value!r}")]
    return vars(cut) | {"score_options": ["--calibration", CALIBRATION, *options]}


def in_words(found: dict[str, Any]) -> list[str]:
    """Say in lines what was found, and how `score` applies it."""
    accept_from, reject_below = found["accept_from"], found["reject_below"]
    if "rejects" in found:
        said = (
            f"accept from {accept_from!r} on: of {found['n_bonafide']:,} genuine recordings {found['rejects']:.2%} "
            f"would be rejected, and of others alike at most {found['rejects_at_most']:.2%} (95 % confidence)"
        )
    else:
        said = f"log-likelihood ratios (nats): accept from {accept_from:.6g} on, reject below {reject_below:.6g}"
        if accept_from != reject_below:
            said += ", abstain between"
    if "score_options" not in found:
        return [said, "`score` cannot apply it: these are scores of several systems together"]
    return [said, f"to apply it: spoofkit score MODEL INPUT... {shlex.join(found['score_options'])}"]
