"""Decision thresholds: accept a score as bona fide, reject it as spoofed, or abstain; and how to choose them."""

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

CALIBRATION = "CAL.json"  # placeholder for a calibration whose name is not known


@dataclass(frozen=True)
class Thresholds:
    """Scores of at least `accept_from` are accepted, those below `reject_below` rejected; those between abstain."""

    accept_from: float
    reject_below: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.accept_from) and self.reject_below <= self.accept_from):
            raise SpoofkitError(f"{self}: expected finite thresholds with reject_below <= accept_from")

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


def genuine_threshold(bonafide: npt.ArrayLike, rate: float) -> tuple[float, float, float]:
    """Choose the threshold that rejects a given share of bona fide scores, and bound the share it rejects of others.

    It lies midway between the lowest accepted and the highest rejected score, so that rounded scores give the same
    decisions.

    Args:
        bonafide: Scores of recordings that are known to be bona fide.
        rate: Largest share of them to reject.

    Returns:
        The threshold; the share of these scores below it; and the upper end of the one-sided 95 % interval of the
        share of other bona fide recordings of this kind that it rejects (Clopper and Pearson, 1934).

    Raises:
        SpoofkitError: there are too few scores for this rate, or one is not finite.
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
    """Choose a threshold from the scores of recordings that are known to be bona fide.

    Args:
        scores: Score file, or a table of `score`; raw scores or log-likelihood ratios.
        rate: Largest share of these recordings to reject.

    Returns:
        `accept_from` and `reject_below`, on the scale of the file's scores; `n_bonafide`; `rejects`, the share
        rejected of these, and `rejects_at_most`, its bound for others; and, unless the scores are fused,
        `score_options`, the options of `score` that apply it.

    Raises:
        SpoofkitError: see `read_scores` and `genuine_threshold`.
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
    """Choose thresholds on log-likelihood ratios from the costs of errors.

    Returns:
        `accept_from` and `reject_below` (nats), and `score_options`.

    Raises:
        SpoofkitError: see `bayes_thresholds`.
    """
    cut = bayes_thresholds(costs, abstain_cost)
    given = {"spoof-prior": costs.spoof_prior, "miss-cost": costs.miss_cost, "fa-cost": costs.fa_cost}
    given |= {} if abstain_cost is None else {"abstain-cost": abstain_cost}
    # Not the thresholds: `score` gives probabilities at this prior too.
    options = [word for name, value in given.items() for word in (f"--{name}", f"{value!r}")]
    return vars(cut) | {"score_options": ["--calibration", CALIBRATION, *options]}


def describe_threshold(found: dict[str, Any]) -> list[str]:
    """Return lines that state the thresholds, and how `score` applies them."""
    accept_from, reject_below = found["accept_from"], found["reject_below"]
    if "rejects" in found:
        said = (
            f"accept from {accept_from!r}: rejects {found['rejects']:.2%} of these {found['n_bonafide']:,} "
            f"genuine recordings, and at most {found['rejects_at_most']:.2%} of others like them (95 % confidence)"
        )
    else:
        said = f"log-likelihood ratios (nats): accept from {accept_from:.6g}, reject below {reject_below:.6g}"
        if accept_from != reject_below:
            said += ", abstain between"
    if "score_options" not in found:
        return [said, "`score` cannot apply it: these scores are a fusion of several systems"]
    return [said, f"to apply it: spoofkit score MODEL INPUT... {shlex.join(found['score_options'])}"]
