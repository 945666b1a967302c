"""Trivial predictors: one number per file that should not suffice to detect spoofs.

Each is tested alone, its sign chosen on train, and all together in a logistic regression fitted on train. A predictor
with an EER near 50 % is useless. A detector must beat the regression's EER on eval to have used the speech at all; it
is printed whenever a corpus is built and kept in cues.tsv.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import vocoders

from spoofkit.evaluation.metrics import eer
from spoofkit.files import write_text

SAMPLE_RATE = 16_000  # Hz
FRAME = 320  # samples, 20 ms
RIDGE = 1e-2  # weight of the penalty on standardised coefficients
NEWTON_STEPS = 30
ALL_TOGETHER = "all of them, logistic regression"


@dataclass(frozen=True)
class CueRow:
    """One row of the table; EERs as fractions."""

    cue: str
    train_eer: float
    eval_eer: float
    tier_eers: dict[str, float]
    """Of the spoofs of each tier of eval, against all its bona fide files."""


def measure(path: Path) -> dict[str, float]:
    """Measure every trivial cue of one file."""
    wave_S, _ = soundfile.read(path, dtype="float64")
    rms = np.sqrt((wave_S**2).mean())
    n_frames = len(wave_S) // FRAME
    frames_TS = wave_S[: n_frames * FRAME].reshape(n_frames, FRAME)
    level_T = 10 * np.log10((frames_TS**2).mean(axis=1) + 1e-10)
    power_K = (np.abs(np.fft.rfft(frames_TS * np.hanning(FRAME))) ** 2).mean(axis=0) + 1e-12
    hertz_K = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)
    in_band_K = (hertz_K > 200) & (hertz_K < 6500)
    centred_S = wave_S - wave_S.mean()
    pitch_T = vocoders.pitch(wave_S)
    return {
        "duration": len(wave_S) / SAMPLE_RATE,
        "rms": 20 * np.log10(rms),
        "DC": wave_S.mean(),
        "first 20 ms": level_T[0],
        "last 20 ms": level_T[-1],
        "energy over 4 kHz": 10 * np.log10(power_K[hertz_K > 4000].sum() / power_K.sum()),
        "energy over 7 kHz": 10 * np.log10(power_K[hertz_K > 7000].sum() / power_K.sum()),
        "energy under 150 Hz": 10 * np.log10(power_K[hertz_K < 150].sum() / power_K.sum()),
        "spectral tilt": float(np.polyfit(np.log2(hertz_K[in_band_K]), 10 * np.log10(power_K[in_band_K]), 1)[0]),
        "spectral centroid": float((hertz_K * power_K).sum() / power_K.sum()),
        "noise floor": float(np.percentile(level_T, 5) - np.percentile(level_T, 95)),
        "level spread": float(level_T.std()),
        "kurtosis": float((centred_S**4).mean() / (centred_S**2).mean() ** 2),
        "skewness": float((centred_S**3).mean() / (centred_S**2).mean() ** 1.5),
        "crest": 20 * np.log10(np.abs(wave_S).max() / rms),
        "zero crossings": float((np.diff(np.signbit(wave_S)) != 0).mean()),
        "median pitch": float(np.median(pitch_T[pitch_T > 0])) if (pitch_T > 0).any() else 0.0,
        "voiced share": float((pitch_T > 0).mean()),
    }


def cue_table(
    train: Sequence[dict[str, float]],
    train_is_bonafide: np.ndarray,
    evaluation: Sequence[dict[str, float]],
    eval_tiers: np.ndarray,
) -> list[CueRow]:
    """Compute the EER of each cue and of all together; the sign and the weights come from train alone.

    Args:
        train: What `measure` returned for each file of train.
        train_is_bonafide: Whether each of them is bona fide.
        evaluation: The same of eval.
        eval_tiers: The tier of each file of eval, `-` if it is bona fide.
    """
    names = list(train[0])
    train_NC = np.array([[row[name] for name in names] for row in train])
    eval_NC = np.array([[row[name] for name in names] for row in evaluation])

    def row(cue: str, train_N: np.ndarray, eval_N: np.ndarray) -> CueRow:
        is_bonafide_N = eval_tiers == "-"
        tier_eers = {
            str(tier): eer(eval_N[is_bonafide_N], eval_N[eval_tiers == tier]).eer
            for tier in dict.fromkeys(eval_tiers[~is_bonafide_N])
        }
        return CueRow(cue, _eer(train_N, train_is_bonafide), _eer(eval_N, is_bonafide_N), tier_eers)

    rows = []
    for column, name in enumerate(names):
        sign = 1.0 if _eer(train_NC[:, column], train_is_bonafide) <= 0.5 else -1.0
        rows.append(row(name, sign * train_NC[:, column], sign * eval_NC[:, column]))
    mean_C, deviation_C = train_NC.mean(axis=0), train_NC.std(axis=0).clip(1e-12)
    train_NC, eval_NC = (train_NC - mean_C) / deviation_C, (eval_NC - mean_C) / deviation_C
    weights = fit_logistic(train_NC, train_is_bonafide)
    rows.append(row(ALL_TOGETHER, train_NC @ weights[1:], eval_NC @ weights[1:]))
    return rows


def fit_logistic(features_NC: np.ndarray, is_one_N: np.ndarray) -> np.ndarray:
    """Fit a logistic regression by Newton's method; return the intercept and the C weights."""
    design_NC = np.column_stack([np.ones(len(features_NC)), features_NC])
    penalty_C = RIDGE * np.r_[0, np.ones(features_NC.shape[1])] * len(features_NC)
    weights_C = np.zeros(design_NC.shape[1])
    for _ in range(NEWTON_STEPS):
        probability_N = 1 / (1 + np.exp(-np.clip(design_NC @ weights_C, -30, 30)))
        gradient_C = design_NC.T @ (probability_N - is_one_N) + penalty_C * weights_C
        curvature_N = probability_N * (1 - probability_N)
        hessian_CC = (
            design_NC.T @ (design_NC * curvature_N[:, None]) + np.diag(penalty_C) + 1e-9 * np.eye(len(weights_C))
        )
        step_C = np.linalg.solve(hessian_CC, gradient_C)
        weights_C = weights_C - step_C
        if np.abs(step_C).max() < 1e-8:
            break
    return weights_C


def write_table(path: Path, rows: Sequence[CueRow]) -> None:
    """Write the table as TSV, EERs in percent: train, eval, and each tier of eval."""
    lines = [
        "\t".join(
            ["cue", "train_eer_percent", "eval_eer_percent", *(f"{tier}_eer_percent" for tier in rows[0].tier_eers)]
        )
    ]
    lines += ["\t".join([row.cue, *(f"{100 * value:.1f}" for value in _values(row))]) for row in rows]
    write_text(path, "\n".join(lines) + "\n", overwrite=True)


def text_table(rows: Sequence[CueRow]) -> str:
    """Format the table for the terminal."""
    width = max(len(row.cue) for row in rows)
    lines = ["EER in % of trivial predictors (50 = useless; a detector must beat the last line)"]
    lines += [f"{'':{width}}" + "".join(f"{name:>7}" for name in ("train", "eval", *rows[0].tier_eers))]
    lines += [f"{row.cue:{width}}" + "".join(f"{100 * value:7.1f}" for value in _values(row)) for row in rows]
    return "\n".join(lines)


def _values(row: CueRow) -> list[float]:
    return [row.train_eer, row.eval_eer, *row.tier_eers.values()]


def _eer(scores_N: np.ndarray, is_bonafide_N: np.ndarray) -> float:
    return eer(scores_N[is_bonafide_N], scores_N[~is_bonafide_N]).eer
