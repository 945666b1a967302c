"""Dynamic int8 quantisation of an exported graph, and its effect on a list of trials.

Weights of matrix products are stored as 8-bit numbers, one scale a column; activations get their scale as they come, so
no data are needed to choose any. The scale is that of a whole batch, so utterances are scored one by one: only then is
a score independent of its neighbours. Weights are signed, from -64 to 64. Signed ones are multiplied faster, but x86
processors without VNNI (AVX2, early AVX-512) add two products in 16 bits, where two of 255 x 64 fit and larger ones
overflow (onnxruntime's documentation, "Quantize ONNX models", on U8S8). So a measured shift holds for every kind of
machine.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from spoofkit.addons.onnx.with_onnx import OnnxDetector, scorer_of
from spoofkit.data.manifest import KEYS, Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import eer
from spoofkit.scoring.batches import in_manifest_order, plan_batches, score_batches
from spoofkit.scoring.recordings import Reading
from spoofkit.scoring.scorer import parse_input_policy


@dataclass(frozen=True)
class Shift:
    """The effect of quantisation on the scores of a list."""

    manifest: str
    n_trials: int
    eer_percent_fp32: float
    eer_percent_int8: float
    largest_score_difference: float
    mean_score_difference: float
    shift: float | None
    """Root mean square of the differences, in standard deviations of the scores in fp32; None: those have no spread."""
    decisions_changed: int
    """Trials that are on the other side of the threshold of the EER in fp32."""
    megabytes_fp32: float
    megabytes_int8: float

    def line(self) -> str:
        """Format the figures as the command prints them."""
        points = self.eer_percent_int8 - self.eer_percent_fp32
        shift = "" if self.shift is None else f" (root mean square {self.shift:.2g} standard deviations)"
        return (
            f"int8: EER {self.eer_percent_fp32:.2f} % -> {self.eer_percent_int8:.2f} % ({points:+.2f} points) on "
            f"{self.n_trials:,} trials of {self.manifest}; scores move by {self.mean_score_difference:.2g} on average, "
            f"{self.largest_score_difference:.2g} at most{shift}, {self.decisions_changed:,} decisions change; "
            f"{self.megabytes_fp32:.1f} MB -> {self.megabytes_int8:.1f} MB"
        )


def quantise(fp32: Path, int8: Path) -> None:
    """Write the graph `fp32` with 8-bit matrix products to `int8`.

    Those of the spectrograms are not changed: their factors are computed, not weights.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it lists what it does not quantise, and recommends a pre-processing
    try:
        quantize_dynamic(
            fp32,
            int8,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)


def require_both_keys(manifest: Manifest) -> None:
    """Refuse a list on which no EER can be computed.

    Raises:
        SpoofkitError: one of the two keys is missing.
    """
    missing = sorted(set(KEYS) - set(manifest.table["key"]))
    if missing:
        raise SpoofkitError(
            f"{manifest.path}: has no trial with the key {missing[0]}, expected both; --int8 needs a list "
            "that an EER can be computed on, such as data/dev.tsv"
        )


def measure_shift(fp32: OnnxDetector, int8: OnnxDetector, manifest: Manifest, megabytes: tuple[float, float]) -> Shift:
    """Score a list with both, and compare.

    Raises:
        SpoofkitError: an utterance cannot be read or used.
    """
    reading = Reading(*parse_input_policy(str(fp32.record["input_policy"])))
    before, after = (_scores(detector, manifest, reading) for detector in (fp32, int8))
    is_bonafide = (manifest.table["key"] == "bonafide").to_numpy()
    eer_before, eer_after = (eer(found[is_bonafide], found[~is_bonafide]) for found in (before, after))
    difference, spread = np.abs(after - before), float(before.std())
    return Shift(
        manifest.path.name,
        manifest.table.height,
        100 * eer_before.eer,
        100 * eer_after.eer,
        float(difference.max()),
        float(difference.mean()),
        float(np.sqrt(np.mean(difference**2))) / spread if spread else None,
        int(((before > eer_before.threshold) != (after > eer_before.threshold)).sum()),
        *megabytes,
    )


def _scores(detector: OnnxDetector, manifest: Manifest, reading: Reading) -> np.ndarray:
    """Score a manifest as `spoofkit score` does, in its order."""
    scorer, scores = scorer_of(detector), dict[str, float]()
    plan = plan_batches(manifest, scorer.budget_samples, reading)
    with tqdm(desc=scorer.precision, total=manifest.table.height, unit="utt") as bar:
        for batch in score_batches(scorer, manifest, plan, reading):
            scores |= batch
            bar.update(len(batch))
    return in_manifest_order(scores, manifest)
