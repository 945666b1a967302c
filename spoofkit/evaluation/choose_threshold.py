"""What the verb `threshold` finds: where to cut scores, and the options with which `score` cuts there."""

import shlex
from pathlib import Path
from typing import Any

from spoofkit.evaluation.decision import bayes_thresholds, genuine_threshold
from spoofkit.evaluation.metrics import DcfCosts
from spoofkit.evaluation.records import read_record
from spoofkit.evaluation.scores import are_llr, read_scores

CALIBRATION = "CAL.json"  # stands for one that is not known


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
