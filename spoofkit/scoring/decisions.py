"""What a score of a loose file says: with a calibration a log-likelihood ratio, a probability and a decision; without,
no more than which of two recordings is more likely bona fide. And how that is printed.
"""

import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.calibration import Calibration, read_calibration
from spoofkit.evaluation.decision import Thresholds, bayes_thresholds
from spoofkit.evaluation.metrics import ASVSPOOF5, DcfCosts, dcf_costs
from spoofkit.evaluation.records import made_by, models_of, unchecked
from spoofkit.evaluation.scores import HEADER
from spoofkit.files import file_sha256
from spoofkit.scoring.recordings import Result

CALIBRATED_HEADER = "filename\tllr\tbonafide_probability\tdecision"
WINDOWS_HEADER = "filename\tstart_seconds\tend_seconds"


@dataclass(frozen=True)
class DecisionOptions:
    """As the command line gives them; none: not given."""

    spoof_prior: float | None = None
    miss_cost: float | None = None
    fa_cost: float | None = None
    abstain_cost: float | None = None
    accept_from: float | None = None
    reject_below: float | None = None

    def given(self) -> list[str]:
        """Names of the options that were given."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class Decisions:
    """How log-likelihood ratios are read."""

    path: Path
    calibration: Calibration
    sha256: str
    spoof_prior: float
    thresholds: Thresholds
    reason: str
    """Where the thresholds are from, in words."""
    fitted_on: dict[str, str]
    """What is known of the system on whose scores the calibration was fitted: `records.identity`."""
    unchecked: str
    """A warning where its model is not known; otherwise empty."""

    def llr(self, score: float) -> float:
        """Log-likelihood ratio in nats."""
        return float(self.calibration.apply([[score]])[0])

    def probability(self, score: float) -> float:
        """Probability of bona fide at the prior."""
        log_odds = self.llr(score) + math.log((1 - self.spoof_prior) / self.spoof_prior)
        return 0.5 * (1 + math.tanh(log_odds / 2))

    def decide(self, score: float) -> str:
        """`accept`, `reject` or `abstain`."""
        return self.thresholds.decide(self.llr(score))


def read_decisions(calibration: Path | None, options: DecisionOptions) -> Decisions | None:
    """Read a calibration and what is to be decided with it; none: scores stay as they are.

    Raises:
        SpoofkitError: no calibration of a single system, options that need one or exclude each other.
    """
    if calibration is None:
        if options.given():
            raise SpoofkitError(
                f"{options.given()[0]}: means nothing for scores that are not calibrated; add --calibration, which "
                "`spoofkit calibrate` makes"
            )
        return None
    found, record = read_calibration(calibration)
    if len(found.scales) != 1:
        raise SpoofkitError(
            f"{calibration}: is for {len(found.scales)} systems together, expected one for this model alone; make it "
            "with `spoofkit calibrate`"
        )
    prior = ASVSPOOF5.spoof_prior if options.spoof_prior is None else options.spoof_prior
    thresholds, reason = _thresholds(options, dcf_costs(prior, options.miss_cost, options.fa_cost))
    fitted_on, warning = (made_by(record) or [{}])[0], unchecked(record, calibration)
    return Decisions(calibration, found, file_sha256(calibration), prior, thresholds, reason, fitted_on, warning)


def require_fitted_on(decisions: Decisions, known: dict[str, str], model: Path) -> None:
    """Refuse a calibration that was fitted on scores of another model, as far as its file says whose they were.

    Args:
        decisions: The calibration.
        known: Hashes of the model: `records.identity`.
        model: Where it is, for the error sentence.

    Raises:
        SpoofkitError: the models differ, or the calibration is for scores that are calibrated already.
    """
    fitted = decisions.fitted_on
    if "calibration_sha256" in fitted:
        raise SpoofkitError(
            f"{decisions.path}: was fitted on scores that were calibrated already, expected the scores of a model as "
            "they come; fit it on those"
        )
    if models_of(fitted) and not models_of(fitted) & models_of(known):
        raise SpoofkitError(
            f"{decisions.path}: was fitted on scores of model {fitted['model_sha256'][:12]}, found {model}, which is "
            f"{known['model_sha256'][:12]}; fit one for this model with `spoofkit calibrate`"
        )


def _thresholds(options: DecisionOptions, costs: DcfCosts) -> tuple[Thresholds, str]:
    if options.accept_from is None:
        if options.reject_below is not None:
            raise SpoofkitError("--reject-below: found without --accept-from, expected both; give it too")
        words = f"costs: reject bona fide {costs.miss_cost:g}, accept spoof {costs.fa_cost:g}"
        if options.abstain_cost is not None:
            words += f", abstain {options.abstain_cost:g}"
        return bayes_thresholds(costs, options.abstain_cost), words
    others = [name for name in options.given() if name.endswith("-cost")]
    if others:
        raise SpoofkitError(
            f"--accept-from and {others[0]}: both say what is decided, expected one of them; leave the other out"
        )
    below = options.accept_from if options.reject_below is None else options.reject_below
    return Thresholds(options.accept_from, below), "as given"


def meaning(decisions: Decisions | None, score_meaning: str) -> str:
    """In a line, what the numbers are.

    Args:
        decisions: None: they are not calibrated.
        score_meaning: What the detector's own score is.
    """
    if decisions is None:
        return (
            f"cm-score: {score_meaning}, higher = more bona fide; not calibrated, so it has no probability and no "
            "decision: compare it with scores of the same model, or give --calibration"
        )
    cut = decisions.thresholds
    between = "" if cut.accept_from == cut.reject_below else f", reject below {cut.reject_below:.4g}, abstain between"
    return (
        f"llr: log-likelihood ratio of bona fide against spoof in nats, by {decisions.path}; bonafide_probability: "
        f"where {decisions.spoof_prior:g} of recordings are spoofed; accept from {cut.accept_from:.4g}{between} "
        f"({decisions.reason})"
    )


def as_json(result: Result, decisions: Decisions | None) -> str:
    """A line of JSON."""
    if result.score is None:
        refused = {"file": _utf8(result.name), "error": _utf8(result.error)}
        return json.dumps(refused | ({} if decisions is None else {"decision": "abstain"}), ensure_ascii=False)
    line: dict[str, Any] = {"file": _utf8(result.name), "seconds": result.seconds, "score": result.score}
    if decisions is not None:
        line |= {
            "llr": decisions.llr(result.score),
            "spoof_prior": decisions.spoof_prior,
            "bonafide_probability": decisions.probability(result.score),
            "decision": decisions.decide(result.score),
        }
    if result.windows:
        line["windows"] = [
            {name: value for name, value in vars(window).items() if value is not None}
            | ({} if decisions is None else {"llr": decisions.llr(window.score)})
            for window in result.windows
        ]
    return json.dumps(line, ensure_ascii=False, allow_nan=False)


def header(decisions: Decisions | None) -> str:
    """Of the TSV."""
    return HEADER if decisions is None else CALIBRATED_HEADER


def cells(result: Result, decisions: Decisions | None) -> list[str]:
    """A row: the file and what is said of it; where the score would stand, `error: ` and the reason."""
    if result.score is None:
        said = [f"error: {result.error}"] + ([] if decisions is None else ["-", "abstain"])
    elif decisions is None:
        said = [f"{result.score:.9g}"]
    else:
        score = result.score
        said = [f"{decisions.llr(score):.9g}", f"{decisions.probability(score):.6g}", decisions.decide(score)]
    return [_one_line(text) for text in (result.name, *said)]


def table(results: Iterable[Result], decisions: Decisions | None, width: int) -> str:
    """A table to read, so many characters wide."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = list(results)
    grid = Table(box=None, pad_edge=False)
    for number, name in enumerate(header(decisions).split("\t")):
        grid.add_column(name, overflow="fold", justify="right" if number in (1, 2) else "left")
    if any(result.error for result in shown):
        grid.add_column("error", overflow="fold", ratio=1)
    for result in shown:
        name, *said = cells(result, decisions)
        row = [name, *("-" for _ in said), result.error] if result.error else [name, *map(_rounded, said)]
        grid.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=width)
    console.print(grid)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def windows_tsv(
    scored: Iterable[tuple[str, Iterable[Iterable[float]]]], decisions: Decisions | None, has_speech: bool
) -> str:
    """All windows that were scored of the recordings that were cut.

    Args:
        scored: Names, and of each window start, end, score and, with `has_speech`, seconds of speech that it adds.
        decisions: None: scores are not calibrated.
        has_speech: Whether speech was looked for.
    """
    of_speech = "\tspeech_seconds" if has_speech else ""
    rows = [f"{WINDOWS_HEADER}{of_speech}\t{'cm-score' if decisions is None else 'llr'}"]
    for name, windows in scored:
        for start, end, score, *speech in windows:
            value = score if decisions is None else decisions.llr(score)
            times = "\t".join(f"{seconds:.10g}" for seconds in (start, end, *speech))
            rows.append(f"{_one_line(name)}\t{times}\t{value:.9g}")
    return "\n".join(rows) + "\n"


def _rounded(text: str) -> str:
    return text if text.isalpha() else f"{float(text):.4g}"


def _one_line(text: str) -> str:
    return _utf8(text).replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _utf8(text: str) -> str:
    # Names on a disk need not be UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()
