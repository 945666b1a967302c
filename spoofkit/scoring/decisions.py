"""Decide on a score: accept, reject or abstain.

With a calibration, thresholds are on the log-likelihood ratio, which also gives a probability; without one, they are on
the score itself. `rows` writes decisions into tables.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.calibration import Calibration, read_calibration
from spoofkit.evaluation.metrics import ASVSPOOF5, DcfCosts, dcf_costs
from spoofkit.evaluation.records import fitted_in, made_by, models_of, other_precision, unchecked
from spoofkit.evaluation.thresholds import Thresholds, bayes_thresholds
from spoofkit.files import file_sha256

ABSTAIN = "abstain"


@dataclass(frozen=True)
class DecisionOptions:
    """Costs and thresholds of the command line; None: not given."""

    spoof_prior: float | None = None
    miss_cost: float | None = None
    fa_cost: float | None = None
    abstain_cost: float | None = None
    accept_from: float | None = None
    reject_below: float | None = None

    def given(self) -> list[str]:
        """Return the names of the options that were given."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class Decisions:
    """How scores are decided."""

    thresholds: Thresholds
    """On log-likelihood ratios; without a calibration, on the scores themselves."""
    reason: str
    """Where the thresholds come from, in words."""
    calibration: Calibration | None = None
    path: Path | None = None
    """Calibration file."""
    sha256: str = ""
    """SHA-256 of the calibration file."""
    spoof_prior: float = ASVSPOOF5.spoof_prior
    """Prior for the probability of bona fide."""
    fitted_on: dict[str, str] = field(default_factory=dict)
    """What is known of the system whose scores the calibration was fitted on: see `records.system_hashes`."""
    fitted_in: list[str] = field(default_factory=list)
    """Precision of those scores, as a list of one; empty: not known."""
    unchecked: str = ""
    """A warning if the model of the calibration is not known; otherwise empty."""

    @property
    def words(self) -> str:
        """Thresholds and where they come from, in words."""
        cut = self.thresholds
        between = "" if cut.accept_from == cut.reject_below else f", reject below {cut.reject_below:.4g}"
        between += ", abstain between" * bool(between)
        prior = "" if self.calibration is None else f"spoof prior {self.spoof_prior:g}; "
        return f"accept from {cut.accept_from:.4g}{between} ({prior}{self.reason})"

    def value(self, score: float) -> float:
        """Return what thresholds are applied to: the log-likelihood ratio in nats, without a calibration the score.

        The score is rounded to the nine digits that files hold, so that readers of the files decide alike.
        """
        return float(f"{score:.9g}") if self.calibration is None else float(self.calibration.apply([[score]])[0])

    def decide(self, score: float | None, has_signal: bool = True) -> dict[str, Any]:
        """Decide on a score.

        Args:
            score: The detector's score; None: there is none, and the decision is `abstain`.
            has_signal: If False, the score means nothing, and the decision is `abstain`.

        Returns:
            `decision` (`accept`, `reject` or `abstain`); of a score with a calibration, before it, `llr` (nats),
            `spoof_prior`, and `bonafide_probability` at that prior.
        """
        if score is None:
            return {"decision": ABSTAIN}
        value = self.value(score)
        decision = {"decision": self.thresholds.decide(value) if has_signal else ABSTAIN}
        if self.calibration is None:
            return decision
        log_odds = value + math.log((1 - self.spoof_prior) / self.spoof_prior)
        probability = 0.5 * (1 + math.tanh(log_odds / 2))
        return {"llr": value, "spoof_prior": self.spoof_prior, "bonafide_probability": probability} | decision

    def other_precision(self, precision: str) -> str:
        """Return a remark if the calibration was fitted on scores in another precision; otherwise empty."""
        return other_precision(self.fitted_in, [precision], self.path)

    def record(self) -> dict[str, float]:
        """Return thresholds and prior for the record of scores."""
        prior = {} if self.calibration is None else {"spoof_prior": self.spoof_prior}
        return prior | vars(self.thresholds)


def read_decisions(calibration: Path | None, options: DecisionOptions) -> Decisions | None:
    """Read a calibration, and work out the thresholds that the options ask for.

    Returns:
        None if there are neither a calibration nor thresholds: then nothing is decided.

    Raises:
        SpoofkitError: the calibration is not of a single system, or options contradict each other or need one.
    """
    if calibration is None:
        others = [name for name in options.given() if name not in ("--accept-from", "--reject-below")]
        if others:
            raise SpoofkitError(
                f"{others[0]}: needs calibrated scores, found no --calibration; make one with `spoofkit calibrate`, or "
                "give a decision threshold with --accept-from"
            )
        return Decisions(*_thresholds(options, ASVSPOOF5)) if options.given() else None
    found, record = read_calibration(calibration)
    if len(found.scales) != 1:
        raise SpoofkitError(
            f"{calibration}: is a fusion of {len(found.scales)} systems, expected the calibration of one; make it with "
            "`spoofkit calibrate`"
        )
    prior = ASVSPOOF5.spoof_prior if options.spoof_prior is None else options.spoof_prior
    thresholds, reason = _thresholds(options, dcf_costs(prior, options.miss_cost, options.fa_cost))
    fitted_on, warning = (made_by(record) or [{}])[0], unchecked(record, calibration)
    sha256 = file_sha256(calibration)
    return Decisions(thresholds, reason, found, calibration, sha256, prior, fitted_on, fitted_in(record), warning)


def require_fitted_on(decisions: Decisions, known: dict[str, str], model: Path) -> None:
    """Refuse a calibration whose file says that it was fitted on scores of another model.

    Args:
        decisions: The calibration.
        known: Hashes of the model: see `records.system_hashes`.
        model: Path of the model, for the error.

    Raises:
        SpoofkitError: the models differ, or the calibration is for scores that are calibrated already.
    """
    fitted = decisions.fitted_on
    if "calibration_sha256" in fitted:
        raise SpoofkitError(
            f"{decisions.path}: was fitted on calibrated scores, expected uncalibrated ones; score without "
            "--calibration and fit it on those"
        )
    if models_of(fitted) and not models_of(fitted) & models_of(known):
        raise SpoofkitError(
            f"{decisions.path}: was fitted on scores of model {fitted['model_sha256'][:12]}, found {model}, which is "
            f"{known['model_sha256'][:12]}; fit one for this model with `spoofkit calibrate`"
        )


def _thresholds(options: DecisionOptions, costs: DcfCosts) -> tuple[Thresholds, str]:
    if options.accept_from is None:
        if options.reject_below is not None:
            raise SpoofkitError("--reject-below: found without --accept-from, expected both; add --accept-from")
        words = f"costs: reject bona fide {costs.miss_cost:g}, accept spoof {costs.fa_cost:g}"
        if options.abstain_cost is not None:
            words += f", abstain {options.abstain_cost:g}"
        return bayes_thresholds(costs, options.abstain_cost), words
    others = [name for name in options.given() if name.endswith("-cost")]
    if others:
        raise SpoofkitError(
            f"--accept-from and {others[0]}: both set the decision threshold, expected one of them; leave one out"
        )
    below = options.accept_from if options.reject_below is None else options.reject_below
    return Thresholds(options.accept_from, below), "as given"


def meaning(decisions: Decisions | None, score_meaning: str) -> str:
    """Explain the numbers in one line.

    Args:
        decisions: How scores are decided. Default: they are not.
        score_meaning: What the detector's score is.
    """
    plain = f"cm-score: {score_meaning}, higher = more bona fide; not calibrated, so it has no probability"
    if decisions is None:
        return f"{plain} and no decision: compare it with scores of the same model, or give --calibration"
    if decisions.calibration is None:
        return f"{plain}; {decisions.words}"
    return (
        f"llr: log-likelihood ratio of bona fide to spoof, in nats, by {decisions.path}; bonafide_probability: at the "
        f"spoof prior; {decisions.words}"
    )
