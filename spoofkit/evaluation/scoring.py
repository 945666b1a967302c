"""Scoring: a detector's log-odds for every utterance of a manifest, the same whatever else is in the batch."""

from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from spoofkit.data.dataset import UtteranceDataset, batches_by_length
from spoofkit.data.loading import load_batches
from spoofkit.data.manifest import Manifest
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.models.detector import Detector
from spoofkit.models.device import memory_advice, plain_fp32

CPU_BUDGET_SAMPLES = 8 * 32_000  # small batches stay in a CPU's caches
GPU_BUDGET_SAMPLES = 64 * 64_600


def batch_budget(device: torch.device) -> int:
    """Most samples in a padded batch when nothing has to be kept for gradients."""
    return GPU_BUDGET_SAMPLES if device.type == "cuda" else CPU_BUDGET_SAMPLES


def score_manifest(
    detector: Detector,
    manifest: Manifest,
    device: torch.device,
    *,
    first_samples: int | None = None,
    workers: int = 0,
    progress: str = "score",
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Score every utterance in fp32.

    Args:
        detector: On `device`.
        manifest: What to score.
        device: Where to compute.
        first_samples: Score only so many samples from the start of each; none: whole utterances.
        workers: Loader processes; 0 decodes in this one.
        progress: Words before the progress bar.
        should_stop: Asked before each batch.

    Returns:
        float32 scores in the manifest's order, shape (utterances,).

    Raises:
        SpoofkitError: an utterance cannot be read, has a length the encoder cannot use, or a non-finite score.
        Interrupted: `should_stop` said so.
    """
    was_training = detector.training
    detector.eval()
    lengths = manifest.table["n_samples"].to_list()
    if first_samples is not None:
        lengths = [min(length, first_samples) for length in lengths]
    loading = load_batches(
        UtteranceDataset(manifest, first_samples=first_samples),
        batches_by_length(lengths, batch_budget(device)),
        workers=workers,
        shortest=detector.shortest,
        longest=detector.encoder.longest,
    )
    scores: dict[str, float] = {}
    out_of_memory = memory_advice(
        "score only the beginning of long recordings with --crop first:N, or use --device cpu"
    )
    bar = tqdm(total=len(lengths), desc=progress, unit="utt")
    with torch.inference_mode(), plain_fp32(), out_of_memory, bar, loading as batches:
        for batch in batches:
            if should_stop():
                raise Interrupted("stopped while scoring")
            batch = batch.to(device)
            for utt_id, score in zip(batch.utt_ids, detector(batch.wave_BS, batch.n_samples_B).tolist(), strict=True):
                if not np.isfinite(score):
                    raise SpoofkitError(
                        f"{utt_id}: its score is {score}, expected a finite number; check the audio and the model"
                    )
                scores[utt_id] = score
            bar.update(len(batch.utt_ids))
    detector.train(was_training)
    return np.array([scores[utt_id] for utt_id in manifest.table["utt_id"]], dtype=np.float32)
