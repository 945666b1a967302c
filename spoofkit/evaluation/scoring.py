"""Scoring: a detector's log-odds for every utterance of a manifest, the same whatever else is in the batch."""

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from spoofkit.data.dataset import Item, UtteranceDataset, batches_by_length, collate
from spoofkit.data.manifest import Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import Detector

CPU_BUDGET_SAMPLES = 8 * 32_000  # small batches stay in a CPU's caches
GPU_BUDGET_SAMPLES = 64 * 64_600


class CroppedUtterances(UtteranceDataset):
    """Utterances of which only the first so many samples are scored; none scores them whole."""

    def __init__(self, manifest: Manifest, first_samples: int | None) -> None:
        super().__init__(manifest)
        self.first_samples = first_samples

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Item:
        item = super().__getitem__(epoch_and_index)
        return Item(item.utt_id, item.wave_S[: self.first_samples], item.is_bonafide)


def score_manifest(
    detector: Detector,
    manifest: Manifest,
    device: torch.device,
    *,
    first_samples: int | None = None,
    workers: int = 0,
    progress: str = "score",
) -> np.ndarray:
    """Score every utterance in fp32.

    Args:
        detector: On `device`.
        manifest: What to score.
        device: Where to compute.
        first_samples: Score only so many samples from the start of each; none: whole utterances.
        workers: Loader processes; 0 decodes in this one.
        progress: Words before the progress bar.

    Returns:
        float32 scores in the manifest's order, shape (utterances,).

    Raises:
        SpoofkitError: an utterance cannot be read, is too short for the encoder, or gets a non-finite score.
    """
    was_training = detector.training
    detector.eval()
    lengths = manifest.table["n_samples"].to_list()
    if first_samples is not None:
        lengths = [min(length, first_samples) for length in lengths]
    budget = GPU_BUDGET_SAMPLES if device.type == "cuda" else CPU_BUDGET_SAMPLES
    loader = DataLoader(
        CroppedUtterances(manifest, first_samples),
        batch_sampler=batches_by_length(lengths, budget),
        collate_fn=collate,
        num_workers=workers,
    )
    shortest = detector.encoder.geometry.shortest
    scores: dict[str, float] = {}
    with torch.inference_mode(), tqdm(total=manifest.table.height, desc=progress, unit="utt") as bar:
        for batch in loader:
            too_short = int(batch.n_samples_B.argmin())
            if batch.n_samples_B[too_short] < shortest:
                raise SpoofkitError(
                    f"{batch.utt_ids[too_short]}: has {int(batch.n_samples_B[too_short])} samples, the encoder "
                    f"needs {shortest}; "
                    "remove it from the list"
                )
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
