"""APCER and BPCER, the two error rates of ISO/IEC 30107-3, where one of them is limited. numpy only; no files.

    APCER   share of spoofed trials that are accepted as bona fide ("false alarms" in ASVspoof's words)
    BPCER   share of bona fide trials that are rejected as spoofed ("misses" there)

A score is accepted if it is at least the threshold. "BPCER at APCER 1 %" is the lowest BPCER of all thresholds whose
APCER is at most 1 %, and the other way round. There is no interpolation: the threshold is the score of a trial, the
lowest one that is accepted. Trials with equal scores are accepted or rejected together, so with ties the limited rate
may stay below its limit, never above.

In the standard APCER is the rate of one attack species, and the worst one counts; over all attacks it is "pooled" here.
Both are shares of all trials of their class.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import Scores

RATES = {"apcer": "spoofed", "bpcer": "bona fide"}
"""The two rates, and of which trials each is a share."""
FEWEST_ERRORS = 30
"""Doddington's rule of 30: with 30 errors the true rate lies within 30 % of the observed one, with 90 % confidence, if
trials are independent (Doddington, Przybocki, Martin, Reynolds, "The NIST speaker recognition evaluation: overview,
methodology, systems, results, perspective", Speech Communication 31(2-3), 225-254, 2000)."""


@dataclass(frozen=True)
class Limit:
    """An upper limit of one of the two rates, which defines an operating point."""

    rate: str
    """`apcer` or `bpcer`."""
    percent: float

    def __post_init__(self) -> None:
        if self.rate not in RATES or not 0 < self.percent < 100:
            raise SpoofkitError(f"{self.rate}:{self.percent:g}: expected apcer or bpcer and more than 0, less than 100")

    @property
    def other(self) -> str:
        """The rate that is measured where this one is limited."""
        return "bpcer" if self.rate == "apcer" else "apcer"

    @property
    def name_of_other(self) -> str:
        """The name of the other rate among the figures of an evaluation."""
        return f"{self.other}_percent"

    def n_allowed(self, n_trials: int) -> int:
        """Return how many of a class's trials may be errors.

        >>> Limit("apcer", 0.1).n_allowed(3000), Limit("apcer", 1).n_allowed(99)
        (3, 0)
        """
        n_errors = math.floor(self.percent * n_trials / 100 + 1e-9)  # 0.1 % of 3,000 is 3, whatever floats say
        return min(n_errors, n_trials - 1)

    @property
    def fewest_trials(self) -> int:
        """Trials from which on a single error is allowed."""
        return math.ceil(100 / self.percent - 1e-9)

    def __str__(self) -> str:
        return f"{self.rate.upper()} {self.percent:g} %"


LIMITS = (
    *(Limit("apcer", percent) for percent in (1, 5, 10)),
    *(Limit("bpcer", percent) for percent in (0.1, 1, 5)),
)
"""Operating points of every evaluation."""
CHOSEN = Limit("bpcer", 1)
"""The point at whose threshold all parts are measured, unless another is asked for."""


@dataclass(frozen=True)
class Point:
    """A threshold, and both error rates at it, as fractions."""

    accept_from: float | None
    """The lowest accepted score; None: every trial is rejected."""
    apcer: float
    bpcer: float


def wilson_interval(rate: float, n_trials: float) -> tuple[float, float]:
    """Return the ends of a 95 % interval of a rate of independent trials, as fractions (Wilson, 1927).

    It has a width at rates of 0 and 1 too.

    >>> [round(end, 4) for end in wilson_interval(0.0, 10)]
    [0.0, 0.2775]
    """
    z = 1.959964
    middle = (rate + z**2 / (2 * n_trials)) / (1 + z**2 / n_trials)
    half = z * math.sqrt(rate * (1 - rate) / n_trials + (z / (2 * n_trials)) ** 2) / (1 + z**2 / n_trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def trial_interval(rate: float, n_bonafide: int, n_spoof: int) -> tuple[float, float]:
    """Return the ends of a 95 % interval of an EER, as fractions, from its numbers of trials alone.

    Wilson's interval with the variance of the mean of both error rates (Bengio and Mariethoz, "A statistical
    significance test for person authentication", Odyssey 2004). It takes trials as independent; where they share
    speakers it is too narrow.

    >>> trial_interval(0.0, 10, 10)[1] > 0.1, trial_interval(0.0, 10**6, 10**6)[1] < 1e-5
    (True, True)
    """
    return wilson_interval(rate, 4 / (1 / n_bonafide + 1 / n_spoof))


def measured_limits(result: Mapping[str, Any]) -> list[Limit]:
    """Return the limits of an evaluation's operating points, but those with too few trials."""
    return [Limit(row["rate"], row["percent"]) for row in result["operating_points"] if "left_out" not in row]


def parse_limit(text: str) -> Limit:
    """Read a limit such as `apcer:1`, in percent.

    Raises:
        SpoofkitError: it is not of this form, or out of range.
    """
    rate, _, percent = text.partition(":")
    try:
        return Limit(rate, float(percent))
    except (ValueError, SpoofkitError) as error:
        raise SpoofkitError(
            f"{text!r}: expected apcer:PERCENT or bpcer:PERCENT, more than 0 and less than 100, such as apcer:1"
        ) from error


def limited_point(bonafide: Scores, spoof: Scores, limit: Limit) -> Point | None:
    """Find the point where one rate is at most its limit and the other as low as possible.

    Args:
        bonafide: Bona fide scores, shape (B,), sorted ascending.
        spoof: Spoof scores, shape (S,), sorted ascending.
        limit: The limit.

    Returns:
        None if the class has too few trials for a single error to be allowed.

    >>> bonafide, spoof = np.array([1.0, 2.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0, 2.0])
    >>> limited_point(bonafide, spoof, Limit("apcer", 25))  # of two equal scores both are accepted, or neither
    Point(accept_from=4.0, apcer=0.0, bpcer=0.75)
    >>> limited_point(bonafide, spoof, Limit("bpcer", 50))
    Point(accept_from=2.0, apcer=0.5, bpcer=0.25)
    """
    scores = spoof if limit.rate == "apcer" else bonafide
    n_allowed = limit.n_allowed(scores.size)
    if n_allowed < 1:
        return None
    if limit.rate == "bpcer":
        accept_from: float | None = float(bonafide[n_allowed])  # the lowest that has to be accepted
    else:
        rejected = spoof[spoof.size - n_allowed - 1]  # the highest that has to be
        accept_from = lowest_above(bonafide, spoof, float(rejected))
    return Point(accept_from, *rates_at(bonafide, spoof, accept_from))


def lowest_above(bonafide: Scores, spoof: Scores, rejected: float) -> float | None:
    """Return the score from which trials are accepted if one score and all below it are rejected; None: no trial is.

    >>> lowest_above(np.array([1.0, 3.0]), np.array([0.0, 2.0]), rejected=1.0)
    2.0
    """
    lowest = [score for part in (bonafide, spoof) for score in part[np.searchsorted(part, rejected, "right") :][:1]]
    return float(min(lowest)) if lowest else None


def rates_at(bonafide: Scores, spoof: Scores, accept_from: float | None) -> tuple[float, float]:
    """Compute APCER and BPCER at a threshold, as fractions, of sorted scores; None rejects all."""
    if accept_from is None:
        return 0.0, 1.0
    n_accepted = spoof.size - int(np.searchsorted(spoof, accept_from, side="left"))
    return n_accepted / spoof.size, int(np.searchsorted(bonafide, accept_from, side="left")) / bonafide.size


def measure_points(
    bonafide: Scores, by_attack: Mapping[str, Scores], spoof: Scores, limits: tuple[Limit, ...] = LIMITS
) -> list[dict[str, Any]]:
    """Measure the pooled operating points, and each attack at their thresholds, as plain JSON values.

    Args:
        bonafide: Bona fide scores, sorted ascending.
        by_attack: Spoof scores of each attack, sorted ascending.
        spoof: All spoof scores, sorted ascending.
        limits: What is limited.

    Returns:
        A row for each limit: `rate` and `percent` of the limit; `accept_from`, `apcer_percent`, `bpcer_percent`;
        `few_errors`: whether fewer than FEWEST_ERRORS are allowed; `apcer_percent_by_attack`, and `worst_attack`, which
        has the highest. Where there are too few trials all of them are None, and `left_out` says why.
    """
    rows = []
    for limit in limits:
        point = limited_point(bonafide, spoof, limit)
        n_trials = (spoof if limit.rate == "apcer" else bonafide).size
        row: dict[str, Any] = asdict(limit) | dict.fromkeys(
            ("accept_from", "apcer_percent", "bpcer_percent", "few_errors", "apcer_percent_by_attack", "worst_attack")
        )
        if point is None:
            row["left_out"] = (
                f"{limit} needs at least {limit.fewest_trials:,} {RATES[limit.rate]} trials, found {n_trials:,}"
            )
        else:
            of_attack = {name: 100 * rates_at(bonafide, part, point.accept_from)[0] for name, part in by_attack.items()}
            row |= {
                "accept_from": point.accept_from,
                "apcer_percent": 100 * point.apcer,
                "bpcer_percent": 100 * point.bpcer,
                "few_errors": limit.n_allowed(n_trials) < FEWEST_ERRORS,
                "apcer_percent_by_attack": of_attack,
                "worst_attack": max(of_attack, key=lambda name: of_attack[name]),
            }
        rows.append(row)
    return rows
