"""Scoring: a detector's log-odds for every utterance of a manifest, the same whatever else is in the batch."""

from collections.abc import Callable

import numpy as np
import torch

from spoofkit.data.dataset import UtteranceDataset, batches_by_length
from spoofkit.data.loading import load_batches, require_usable_length
from spoofkit.data.manifest import UNKNOWN_LENGTH, Manifest
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.models.detector import Detector
from spoofkit.models.device import memory_advice, plain_fp32

CPU_BUDGET_SAMPLES = 8 * 32_000  # small batches stay in a CPU's caches
GPU_BUDGET_SAMPLES = 64 * 64_600

Plan = list[list[tuple[int, int]]]
"""Batches in their order, each as pairs of 0 (there are no epochs) and an utterance's row in the manifest."""


def batch_budget(device: torch.device) -> int:
    """Most samples in a padded batch when nothing has to be kept for gradients."""
    return GPU_BUDGET_SAMPLES if device.type == "cuda" else CPU_BUDGET_SAMPLES


def plan_batches(manifest: Manifest, budget_samples: int, first_samples: int | None = None) -> Plan:
    """Which utterances are scored together: a function of the manifest, longest utterances first.

    Args:
        manifest: What to score.
        budget_samples: Most samples in a padded batch.
        first_samples: So many samples from the start of each are scored; none: whole utterances.
    """
    return batches_by_length(_lengths(manifest, first_samples), budget_samples)


def score_manifest(
    detector: Detector,
    manifest: Manifest,
    device: torch.device,
    *,
    first_samples: int | None = None,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Score every utterance in fp32.

    Args:
        detector: On `device`.
        manifest: What to score.
        device: Where to compute.
        first_samples: Score only so many samples from the start of each; none: whole utterances.
        workers: Loader processes; 0 decodes in this one.
        should_stop: Asked before each batch.

    Returns:
        float32 scores in the manifest's order, shape (utterances,).

    Raises:
        SpoofkitError: an utterance cannot be read, has a length the encoder cannot use, or a non-finite score.
        Interrupted: `should_stop` said so.
    """
    scores: dict[str, float] = {}
    score_batches(
        detector,
        manifest,
        dict(enumerate(plan_batches(manifest, batch_budget(device), first_samples))),
        device,
        lambda _, batch: scores.update(batch),
        first_samples=first_samples,
        workers=workers,
        should_stop=should_stop,
    )
    return in_manifest_order(scores, manifest)


def score_batches(
    detector: Detector,
    manifest: Manifest,
    batches: dict[int, list[tuple[int, int]]],
    device: torch.device,
    keep: Callable[[int, dict[str, float]], None],
    *,
    first_samples: int | None = None,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Score some batches of a plan in fp32, and hand on each as soon as it is there.

    Args:
        detector: On `device`.
        manifest: What the plan is of.
        batches: Batches by their number in the plan, in the order in which they are scored.
        device: Where to compute.
        keep: Gets the number of a batch and its scores by utterance id.
        first_samples: As the plan was made with.
        workers: Loader processes; 0 decodes in this one.
        should_stop: Asked before each batch.

    Raises:
        SpoofkitError: an utterance cannot be read, has a length the encoder cannot use, or a non-finite score.
        Interrupted: `should_stop` said so.
    """
    was_training = detector.training
    detector.eval()
    _require_usable_lengths(detector, manifest, batches, first_samples)
    loading = load_batches(
        UtteranceDataset(manifest, first_samples=first_samples),
        list(batches.values()),
        workers=workers,
        shortest=detector.shortest,
        longest=detector.encoder.longest,
    )
    out_of_memory = memory_advice(
        "score only the beginning of long recordings with --crop first:N, or use --device cpu"
    )
    # Not inference_mode: what sharded layers gather in it could not be trained on afterwards.
    with torch.no_grad(), plain_fp32(), out_of_memory, loading as loaded:
        for number, batch in zip(batches, loaded, strict=True):
            if should_stop():
                raise Interrupted("stopped while scoring")
            batch = batch.to(device)
            score_B = detector(batch.wave_BS, batch.n_samples_B).tolist()
            for utt_id, score in zip(batch.utt_ids, score_B, strict=True):
                if not np.isfinite(score):
                    raise SpoofkitError(
                        f"{utt_id}: its score is {score}, expected a finite number; check the audio and the model"
                    )
            keep(number, dict(zip(batch.utt_ids, score_B, strict=True)))
    detector.train(was_training)


def in_manifest_order(scores: dict[str, float], manifest: Manifest) -> np.ndarray:
    """float32 scores in the manifest's order, shape (utterances,)."""
    return np.array([scores[utt_id] for utt_id in manifest.table["utt_id"]], dtype=np.float32)


def _lengths(manifest: Manifest, first_samples: int | None) -> list[int]:
    lengths = manifest.table["n_samples"].to_list()
    return lengths if first_samples is None else [min(length, first_samples) for length in lengths]


def _require_usable_lengths(
    detector: Detector, manifest: Manifest, batches: dict[int, list[tuple[int, int]]], first_samples: int | None
) -> None:
    """Refuse at the start what would be met at the end: the shortest utterances are scored last."""
    utt_ids, lengths = manifest.table["utt_id"].to_list(), _lengths(manifest, first_samples)
    for batch in batches.values():
        for _, row in batch:
            if lengths[row] != UNKNOWN_LENGTH:
                require_usable_length(utt_ids[row], lengths[row], detector.shortest, detector.encoder.longest)
