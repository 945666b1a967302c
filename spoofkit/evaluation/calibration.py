"""Scores that mean something: an affine map, fitted on a development set, makes log-likelihood ratios of them.

Prior-weighted linear logistic regression (Brümmer and du Preez, "Application-independent evaluation of speaker
detection", Computer Speech and Language 20, 2006; Brümmer et al., "Fusion of heterogeneous speaker recognition
systems", IEEE TASLP 15, 2007). With one system it calibrates, with several it fuses: llr = offset + sum of
scale_k * score_k, in nats. The classes' sizes in the development set do not matter; the prior says where the map is to
be best.
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
from spoofkit.outputs import checksum, sealed

FORMAT = 2
"""Calibrations of format 1 carry no checksum."""
N_STEPS = 300
CLOSE = 1e-12  # what a step may still gain, as a share of the cost, when it is the last
RAREST = 1e-6  # prior of a class


@dataclass(frozen=True)
class Calibration:
    """An affine map from the scores of one or several systems to a log-likelihood ratio in nats."""

    scales: tuple[float, ...]
    """One a system."""
    offset: float
    bonafide_prior: float
    """For which it was fitted."""

    def apply(self, scores_NK: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Log-likelihood ratios, shape (N,), of scores of shape (N, systems)."""
        llr_N: npt.NDArray[np.float64] = np.asarray(scores_NK, dtype=np.float64) @ np.array(self.scales) + self.offset
        return llr_N


def fit(
    scores_NK: npt.ArrayLike, is_bonafide_N: npt.ArrayLike, bonafide_prior: float, names: tuple[str, ...] = ()
) -> Calibration:
    """Fit the map that minimises the prior-weighted cross-entropy.

    Args:
        scores_NK: Scores of the development trials by K systems.
        is_bonafide_N: Their classes.
        bonafide_prior: Probability of bona fide speech at which the map is to be best.
        names: Of the systems, for error sentences.

    Raises:
        SpoofkitError: a class is missing, a system's scores are constant, a weighted sum of them separates the classes
            without an error (then no finite map is best), or the map turns a system's scores around.
    """
    score, is_bonafide = np.asarray(scores_NK, dtype=np.float64), np.asarray(is_bonafide_N, dtype=bool)
    names = names or tuple(f"system {k + 1}" for k in range(score.shape[1]))
    if not RAREST <= bonafide_prior <= 1 - RAREST:
        raise SpoofkitError(
            f"calibration: the prior of bona fide is {bonafide_prior}, expected one between {RAREST:g} and 1 - "
            f"{RAREST:g}"
        )
    if is_bonafide.all() or not is_bonafide.any():
        raise SpoofkitError("calibration: the development set holds one class only, expected both; take another")
    constant = score.min(axis=0) == score.max(axis=0)
    if constant.any():
        raise SpoofkitError(f"calibration: all scores of {names[int(np.argmax(constant))]} are the same; score again")
    with np.errstate(over="ignore", invalid="ignore"):
        # Of the middle of the scores: an outlier would make all others alike.
        low, centre, high = np.quantile(score, [0.16, 0.5, 0.84], axis=0)
        spread = np.where(high > low, (high - low) / 2, score.std(axis=0))
    odd = ~(np.isfinite(spread) & (spread > 1e-100) & (spread < 1e100))
    if odd.any():
        raise SpoofkitError(
            f"calibration: the scores of {names[int(np.argmax(odd))]} spread by {spread[int(np.argmax(odd))]:g}, "
            "expected numbers of a usual size; fix the scores"
        )
    design = np.column_stack([(score - centre) / spread, np.ones(len(score))])
    weight = np.where(is_bonafide, bonafide_prior / is_bonafide.sum(), (1 - bonafide_prior) / (~is_bonafide).sum())
    sign, log_odds = np.where(is_bonafide, 1.0, -1.0), math.log(bonafide_prior / (1 - bonafide_prior))
    reversed_polarity = SpoofkitError(
        f"calibration: higher scores of {' and '.join(names)} mean more spoofed on this set, expected more bona fide; "
        "the polarity is reversed, or the set tells nothing"
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
    """Newton's method, damped where a step goes too far (Levenberg and Marquardt), on a convex function."""

    def cost_of(parameters: npt.NDArray[np.float64]) -> float:
        return float(weight @ np.logaddexp(0, -sign * (design @ parameters + log_odds)))

    parameters = np.zeros(design.shape[1])
    cost = cost_of(parameters)
    for _ in range(N_STEPS):
        margin = sign * (design @ parameters + log_odds)
        if margin.min() > 30:  # every trial is on its side with certainty: it only goes on to infinity
            break
        wrong = 0.5 * (1 - np.tanh(margin / 2))  # probability that the map gives to the other class
        gradient = -design.T @ (weight * sign * wrong)
        curvature = (design * (weight * wrong * (1 - wrong))[:, None]).T @ design
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        gain = float(gradient @ step)
        if gain <= CLOSE * cost:  # any less drowns in the rounding of the cost
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
            "calibration: the classes of the development set overlap in no more than one score, so every larger scale "
            "would be better and none is best; fit it on a set on which the system errs"
        )
    raise SpoofkitError(
        f"calibration: found no best map within {N_STEPS} steps; look for scores far from all others, and score again"
    )


def _separates(
    design: npt.NDArray[np.float64], sign: npt.NDArray[np.float64], parameters: npt.NDArray[np.float64]
) -> bool:
    # Where the classes only touch there is no best map either: the tie costs less the larger the scale.
    combined = design[:, :-1] @ parameters[:-1]
    lowest, highest = combined[sign > 0].min(), combined[sign < 0].max()
    return bool(lowest >= highest and combined.max() > combined.min())


def write_calibration(
    path: Path, calibration: Calibration, record: dict[str, Any], beside: Mapping[str, str] | None = None
) -> None:
    """Write a calibration and what it was fitted on, in place of one that stands there.

    Args:
        path: Where to.
        calibration: The map.
        record: What it was fitted on.
        beside: SHA-256 of files that belong to it, by name.

    Raises:
        SpoofkitError: the file cannot be written.
    """
    write_json(path, sealed({"format": FORMAT, **asdict(calibration), **record}, beside), overwrite=True)


def read_calibration(path: Path | str) -> tuple[Calibration, dict[str, Any]]:
    """Read a calibration, and all that stands in its file.

    Raises:
        SpoofkitError: it is none, one that this version does not know, damaged, or one that turns decisions around.
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
                f"{path}: its values are not those of its checksum (sha256), so it is damaged or was edited; copy it "
                "again, or fit it again with `spoofkit calibrate`"
            )
        if max(scales) <= 0:  # of several systems one may correct another, but not all may be turned around
            raise SpoofkitError(
                f"{path}: its scales are {', '.join(f'{scale:g}' for scale in scales)}, expected a positive one; it "
                "would turn every decision around, so fit it again with `spoofkit calibrate`"
            )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SpoofkitError(
            f"{path}: not a calibration of format {FORMAT}, expected what `spoofkit calibrate` or `spoofkit fuse` wrote"
        ) from error
    return Calibration(tuple(map(float, scales)), float(offset), float(prior)), record
