"""Comparing an exported graph with torch on random utterances, alone and in padded batches."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spoofkit.addons.onnx.with_onnx import OnnxDetector
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import Detector
from spoofkit.scoring.scorer import pad

LARGEST_DIFFERENCE = 1e-4
BATCH_SIZES = (3, 1, 4, 2)
TOP_SECONDS = 5


@dataclass(frozen=True)
class Parity:
    """The result of a comparison."""

    largest_difference: float
    where: str
    """The utterance with that difference."""
    n_utterances: int
    fewest_samples: int
    most_samples: int


def measure_parity(detector: Detector, exported: OnnxDetector, seed: int = 0) -> Parity:
    """Score the same random utterances with both; each utterance in its batch and alone.

    Lengths are drawn evenly on a logarithmic scale from the shortest that the detector can use to 5 s (longer where it
    needs more); the first batch holds both extremes. Levels differ by 40 dB, and there is an offset.
    """
    rng = np.random.default_rng(seed)
    low, high = _lengths(detector)
    differences: list[tuple[float, str]] = []
    for batch_size in BATCH_SIZES:
        lengths = np.exp(rng.uniform(np.log(low), np.log(high), batch_size)).astype(int).clip(low, high).tolist()
        if not differences:
            lengths[:2] = high, low
        waves = [_wave(rng, length) for length in lengths]
        together = _difference(detector, exported, waves)
        for number, (wave, difference) in enumerate(zip(waves, together, strict=True), start=1):
            differences.append((difference, f"{wave.size} samples, number {number} of a batch of {batch_size}"))
            differences.append((_difference(detector, exported, [wave])[0], f"{wave.size} samples, alone"))
    largest, where = max(differences, key=lambda pair: pair[0])
    return Parity(largest, where, len(differences) // 2, low, high)


def require_parity(name: Any, parity: Parity) -> None:
    """Refuse a graph that scores otherwise than torch.

    Raises:
        SpoofkitError: the largest difference is not below 1e-4.
    """
    if not parity.largest_difference < LARGEST_DIFFERENCE:
        raise SpoofkitError(
            f"{name}: the exported graph's scores differ from torch's by up to {parity.largest_difference:.1e} (an "
            f"utterance of {parity.where}), expected less than {LARGEST_DIFFERENCE:.0e}; nothing was written, score "
            "with the model folder instead"
        )


def _lengths(detector: Detector) -> tuple[int, int]:
    """Return the smallest and largest number of samples of the utterances that are compared."""
    high = max(TOP_SECONDS * SAMPLE_RATE, 3 * detector.shortest)
    longest = detector.encoder.longest
    return detector.shortest, high if longest is None else min(high, longest)


def _wave(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    level = 10 ** rng.uniform(-2.5, -0.5)
    return (level * (rng.standard_normal(n_samples) + 0.3)).astype(np.float32)


def _difference(detector: Detector, exported: OnnxDetector, waves: list[np.ndarray]) -> list[float]:
    """Return the difference of each utterance's two scores; infinite if one of them is not finite."""
    wave_BS, n_samples_B = pad(waves)
    with torch.no_grad():
        expected_B = detector(torch.from_numpy(wave_BS), torch.from_numpy(n_samples_B)).numpy()
    difference_B = np.abs(exported.score_padded(wave_BS, n_samples_B) - expected_B)
    return [float(difference) for difference in np.where(np.isfinite(difference_B), difference_B, np.inf)]
