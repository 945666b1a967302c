"""Choose decision thresholds: from scores, for an operating point, or from the costs of errors."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.data.manifest import read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.error_rates import RATES, Limit, limited_point
from spoofkit.evaluation.metrics import DcfCosts, Scores, sorted_scores
from spoofkit.evaluation.records import read_record
from spoofkit.evaluation.scores import are_llr, read_scores, read_trials
from spoofkit.evaluation.thresholds import bayes_thresholds

CALIBRATION = "CAL.json"  # placeholder for a calibration whose name is not known


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
    scores = sorted_scores(bonafide, "bona fide")
    limit = limit_of_share("bpcer", rate)
    n_rejected = limit.n_allowed(scores.size)
    if n_rejected < 1:
        raise _too_few(limit, scores.size)
    lowest = float(scores[n_rejected])
    n_below = int(np.searchsorted(scores, lowest))
    return _midway(lowest, scores), n_below / scores.size, _at_most(n_below, scores.size)


def limit_of_share(rate: str, share: float) -> Limit:
    """Return the limit of a rate (`apcer` or `bpcer`), given as a share.

    Raises:
        SpoofkitError: the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        option = "--reject-genuine" if rate == "bpcer" else "--accept-spoofed"
        raise SpoofkitError(f"{option} {share}: expected a share between 0 and 1, such as 0.01")
    return Limit(rate, 100 * share)


def _too_few(limit: Limit, n_scores: int) -> SpoofkitError:
    return SpoofkitError(
        f"found {n_scores} {RATES[limit.rate]} scores, expected at least {limit.fewest_trials} for a share of "
        f"{limit.percent / 100:g}; score more recordings or allow a larger share"
    )


def _midway(lowest: float, *parts: Scores) -> float:
    """Return the threshold midway between the lowest accepted and the highest rejected score of sorted ones."""
    below = [score for part in parts for score in part[: np.searchsorted(part, lowest)][-1:]]
    return (float(max(below)) + lowest) / 2 if below else lowest


def _at_most(n_errors: int, n_trials: int) -> float:
    """Return the upper end of the one-sided 95 % interval of a rate (Clopper and Pearson, 1934)."""
    from scipy.stats import beta

    return 1.0 if n_errors == n_trials else float(beta.ppf(0.95, n_errors + 1, n_trials - n_errors))


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
    found = {"accept_from": accept_from, "reject_below": accept_from, "n_bonafide": table.height}
    found |= {"rejects": share, "rejects_at_most": at_most, "confidence": 0.95}
    return found | _score_options(scores, accept_from)


def threshold_of_set(scores: Path, manifest: Path, limit: Limit) -> dict[str, Any]:
    """Choose the threshold of an operating point from the scores of a set with keys, such as a development set.

    It is the point of `error_rates.limited_point`; as in `genuine_threshold`, the threshold lies midway to the next
    lower score.

    Args:
        scores: Score file; raw scores or log-likelihood ratios.
        manifest: Manifest of the same trials.
        limit: The limited rate.

    Returns:
        As `threshold_of_genuine` does; and `n_spoof`; `accepts`, the share of these spoofs that is accepted, and
        `accepts_at_most`, its bound for others; `worst_attack`, and the share of its spoofs, `accepts_of_worst`.

    Raises:
        SpoofkitError: a file is broken or does not fit the other; there are too few trials for this rate; or too
            many spoofs share the highest score, so that nothing may be accepted.
    """
    trials = read_trials(scores, read_keyed_manifest(manifest))
    bonafide, spoof = (
        sorted_scores(trials.filter(pl.col("key") == key)["score"].to_numpy(), name)
        for key, name in (("bonafide", "bona fide"), ("spoof", "spoof"))
    )
    point = limited_point(bonafide, spoof, limit)
    if point is None:
        raise _too_few(limit, (spoof if limit.rate == "apcer" else bonafide).size)
    if point.accept_from is None:
        raise SpoofkitError(
            f"{scores}: at {limit} nothing may be accepted, since too many spoofs have the highest score; allow a "
            "larger share"
        )
    is_accepted = pl.col("score") >= point.accept_from
    of_attack = trials.filter(pl.col("key") == "spoof").group_by("attack").agg(is_accepted.mean().alias("accepts"))
    worst = of_attack.sort("accepts", "attack", descending=[True, False]).row(0, named=True)
    accept_from = _midway(point.accept_from, bonafide, spoof)
    return {
        "accept_from": accept_from,
        "reject_below": accept_from,
        "limit": str(limit),
        "n_bonafide": bonafide.size,
        "rejects": point.bpcer,
        "rejects_at_most": _at_most(round(point.bpcer * bonafide.size), bonafide.size),
        "n_spoof": spoof.size,
        "accepts": point.apcer,
        "accepts_at_most": _at_most(round(point.apcer * spoof.size), spoof.size),
        "worst_attack": worst["attack"],
        "accepts_of_worst": worst["accepts"],
        "confidence": 0.95,
    } | _score_options(scores, accept_from)


def _score_options(scores: Path, accept_from: float) -> dict[str, Any]:
    """Return the options of `score` that apply a threshold on the scale of a score file; none for a fusion."""
    record = read_record(scores)
    if len(record.get("made_of_sha256", ())) > 1:
        return {}
    calibration = record.get("calibration") or (CALIBRATION if are_llr(scores) else None)
    options = [] if calibration is None else ["--calibration", str(calibration)]
    return {"score_options": [*options, "--accept-from", repr(accept_from)]}


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
    if "limit" in found:
        said = (
            f"accept from {accept_from!r} ({found['limit']}): accepts {found['accepts']:.2%} of these "
            f"{found['n_spoof']:,} spoofed recordings ({found['worst_attack']}, the worst attack: "
            f"{found['accepts_of_worst']:.2%}) and rejects {found['rejects']:.2%} of {found['n_bonafide']:,} bona fide "
            f"ones; of others like them at most {found['accepts_at_most']:.2%} and {found['rejects_at_most']:.2%} "
            "(95 % confidence each, if recordings are independent)"
        )
    elif "rejects" in found:
        said = (
            f"accept from {accept_from!r}: rejects {found['rejects']:.2%} of these {found['n_bonafide']:,} "
            f"genuine recordings, and at most {found['rejects_at_most']:.2%} of others like them (95 % confidence, if "
            "recordings are independent)"
        )
    else:
        said = f"log-likelihood ratios (nats): accept from {accept_from:.6g}, reject below {reject_below:.6g}"
        if accept_from != reject_below:
            said += ", abstain between"
    if "score_options" not in found:
        return [said, "`score` cannot apply it: these scores are a fusion of several systems"]
    return [said, f"to apply it: spoofkit score MODEL INPUT... {shlex.join(found['score_options'])}"]
