"""Calibration and fusion: an affine map, fitted on a development set, turns scores into log-likelihood ratios.

Prior-weighted linear logistic regression (Brümmer and du Preez, "Application-independent evaluation of speaker
detection", Computer Speech and Language 20, 2006; Brümmer et al., "Fusion of heterogeneous speaker recognition
systems", IEEE TASLP 15, 2007). With one system it calibrates, with several it fuses: llr = offset + sum of
scale_k * score_k, in nats. The map does not depend on the classes' sizes in the development set, only on the prior for
which it is optimised.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json, write_json
from spoofkit.outputs import checksum, with_checksums

FORMAT = 2
"""Calibrations of format 1 carry no checksum."""
N_STEPS = 300
CLOSE = 1e-12  # what a step may still gain, as a share of the cost, when it is the last
RAREST = 1e-6  # prior of a class


@dataclass(frozen=True)
class Calibration:
    """An affine map from the scores of one or several systems to a log-likelihood ratio in nats."""

    scales: tuple[float, ...]
    """One per system."""
    offset: float
    bonafide_prior: float
    """The prior that the map was optimised for."""

    def apply(self, scores_NK: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Turn scores of shape (N, systems) into log-likelihood ratios of shape (N,)."""
        llr_N: npt.NDArray[np.float64] = np.asarray(scores_NK, dtype=np.float64) @ np.array(self.scales) + self.offset
        return llr_N


def fit(
    scores_NK: npt.ArrayLike, is_bonafide_N: npt.ArrayLike, bonafide_prior: float, names: tuple[str, ...] = ()
) -> Calibration:
    """Fit the map that minimises the prior-weighted cross-entropy.

    Args:
        scores_NK: Scores of the development trials by K systems.
        is_bonafide_N: Their classes.
        bonafide_prior: Probability of bona fide speech for which the map is optimised.
        names: Names of the systems, for error messages.

    Raises:
        SpoofkitError: a class is missing, a system's scores are constant, a weighted sum of the scores separates the
            classes without an error (then no finite map is optimal), or higher scores mean more spoofed.
    """
    score, is_bonafide = np.asarray(scores_NK, dtype=np.float64), np.asarray(is_bonafide_N, dtype=bool)
    names = names or tuple(f"system {k + 1}" for k in range(score.shape[1]))
    if not RAREST <= bonafide_prior <= 1 - RAREST:
        raise SpoofkitError(
            f"calibration: the bona fide prior is {bonafide_prior}, expected a value between {RAREST:g} and 1 - "
            f"{RAREST:g}"
        )
    if is_bonafide.all() or not is_bonafide.any():
        raise SpoofkitError("calibration: the development set holds one class only, expected both; use another set")
    constant = score.min(axis=0) == score.max(axis=0)
    if constant.any():
        raise SpoofkitError(f"calibration: all scores of {names[int(np.argmax(constant))]} are the same; score again")
    with np.errstate(over="ignore", invalid="ignore"):
        # The spread of the middle of the scores: one outlier must not shrink all others.
        low, centre, high = np.quantile(score, [0.16, 0.5, 0.84], axis=0)
        spread = np.where(high > low, (high - low) / 2, score.std(axis=0))
    odd = ~(np.isfinite(spread) & (spread > 1e-100) & (spread < 1e100))
    if odd.any():
        raise SpoofkitError(
            f"calibration: the scores of {names[int(np.argmax(odd))]} have a spread of "
            f"{spread[int(np.argmax(odd))]:g}, expected between 1e-100 and 1e100; fix the scores"
        )
    design = np.column_stack([(score - centre) / spread, np.ones(len(score))])
    weight = np.where(is_bonafide, bonafide_prior / is_bonafide.sum(), (1 - bonafide_prior) / (~is_bonafide).sum())
    sign, log_odds = np.where(is_bonafide, 1.0, -1.0), math.log(bonafide_prior / (1 - bonafide_prior))
    reversed_polarity = SpoofkitError(
        f"calibration: higher scores of {' and '.join(names)} mean more spoofed on this set, expected more bona fide; "
        "the polarity is reversed, or the scores do not separate the classes of this set"
    )
    if len(names) == 1 and score[is_bonafide].max() <= score[~is_bonafide].min():
        raise reversed_polarity
    parameters = _minimise(design, weight, sign, log_odds)
    scales = parameters[:-1] / spread
    if scales.max() <= 0:
        raise reversed_polarity
    return Calibration(tuple(map(float, scales)), float(parameters[-1] - scales @ centre), bonafide_prior)


def _minimise(
    design: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    sign: npt.NDArray[np.float64],
    log_odds: float,
) -> npt.NDArray[np.float64]:
    """Minimise the convex cost by Newton's method, damped if a step goes too far (Levenberg and Marquardt)."""

    def cost_of(parameters: npt.NDArray[np.float64]) -> float:
        return float(weight @ np.logaddexp(0, -sign * (design @ parameters + log_odds)))

    parameters = np.zeros(design.shape[1])
    cost = cost_of(parameters)
    for _ in range(N_STEPS):
        margin = sign * (design @ parameters + log_odds)
        if margin.min() > 30:  # the classes are separated: the scale would grow without end
            break
        wrong = 0.5 * (1 - np.tanh(margin / 2))  # probability that the map gives to the other class
        gradient = -design.T @ (weight * sign * wrong)
        curvature = (design * (weight * wrong * (1 - wrong))[:, None]).T @ design
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        gain = float(gradient @ step)
        if gain <= CLOSE * cost:  # a smaller gain is lost in the rounding of the cost
            if _separates(design, sign, parameters):
                break
            return np.asarray(parameters - step)
        damping, new = 0.0, cost_of(parameters - step)
        while not new <= cost - 1e-4 * gain and damping < 1e12:
            damping = max(1e-3, 10 * damping)
            damped = curvature + damping * np.diag(np.diag(curvature))
            step = np.linalg.lstsq(damped, gradient, rcond=None)[0]
            gain, new = float(gradient @ step), cost_of(parameters - step)
        if not new <= cost:
            break
        parameters, cost = parameters - step, new
    if _separates(design, sign, parameters):
        raise SpoofkitError(
            "calibration: the classes of the development set overlap in at most one score, so no finite scale is "
            "optimal; fit on a set on which the system makes errors"
        )
    raise SpoofkitError(
        f"calibration: the fit did not converge in {N_STEPS} steps; look for outliers among the scores and score again"
    )


def _separates(
    design: npt.NDArray[np.float64], sign: npt.NDArray[np.float64], parameters: npt.NDArray[np.float64]
) -> bool:
    # If the classes only touch there is no optimal map either: the tie costs less the larger the scale.
    combined = design[:, :-1] @ parameters[:-1]
    lowest, highest = combined[sign > 0].min(), combined[sign < 0].max()
    return bool(lowest >= highest and combined.max() > combined.min())


def write_calibration(
    path: Path, calibration: Calibration, record: dict[str, Any], beside: Mapping[str, str] | None = None
) -> None:
    """Write a calibration and what it was fitted on, replacing an existing file.

    Args:
        path: Where to.
        calibration: The map.
        record: What it was fitted on.
        beside: SHA-256 by name of the files that belong to it.

    Raises:
        SpoofkitError: the file cannot be written.
    """
    write_json(path, with_checksums({"format": FORMAT, **asdict(calibration), **record}, beside), overwrite=True)


def read_calibration(path: Path | str) -> tuple[Calibration, dict[str, Any]]:
    """Read a calibration, and the whole content of its file.

    Raises:
        SpoofkitError: it is not a calibration, has an unknown format, is damaged, or reverses every decision.
    """
    record = read_json(path)
    try:
        scales, offset, prior = record["scales"], record["offset"], record["bonafide_prior"]
        numbers = [*scales, offset, prior]
        if record["format"] not in (1, FORMAT) or not scales or not all(type(n) in (int, float) for n in numbers):
            raise ValueError
        if not all(map(math.isfinite, numbers)) or not 0 < prior < 1:
            raise ValueError
        if (record["format"] == FORMAT or "sha256" in record) and record["sha256"] != checksum(record):
            raise SpoofkitError(
                f"{path}: its values do not match its checksum (sha256), so it is damaged or was edited; copy it "
                "again, or fit it again with `spoofkit calibrate`"
            )
        if max(scales) <= 0:  # one of several systems may correct another, but not all may be reversed
            raise SpoofkitError(
                f"{path}: its scales are {', '.join(f'{scale:g}' for scale in scales)}, expected a positive one; it "
                "would reverse every decision, so fit it again with `spoofkit calibrate`"
            )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SpoofkitError(
            f"{path}: not a calibration of format {FORMAT}, expected one of `spoofkit calibrate` or `spoofkit fuse`"
        ) from error
    return Calibration(tuple(map(float, scales)), float(offset), float(prior)), record
