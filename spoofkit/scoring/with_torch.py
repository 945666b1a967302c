"""Scoring with a model folder: torch, on a CPU or a GPU, in fp32."""

import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from spoofkit.files import read_json
from spoofkit.models.detector import Detector, detector_sha256, load_detector, require_model_folder
from spoofkit.models.device import choose_device, hardware, memory_advice, plain_fp32
from spoofkit.models.provenance import contamination_warning
from spoofkit.processes import World, own_device
from spoofkit.scoring.scorer import CPU_BUDGET_SAMPLES, Scorer

GPU_BUDGET_SAMPLES = 64 * 64_600
GPU_TOGETHER = 64  # recordings that are sorted by length together
LARGE = 10_000_000  # parameters with which one utterance fills a CPU: in a batch it would only hear padding
CPU_DECODERS, MOST_DECODERS = 2, 8


def batch_budget(device: torch.device) -> int:
    """Most samples in a padded batch when nothing has to be kept for gradients."""
    return GPU_BUDGET_SAMPLES if device.type == "cuda" else CPU_BUDGET_SAMPLES


def scorer_of(detector: Detector, device: torch.device) -> Scorer:
    """A detector that lies on `device`, as a scorer; while it scores it is in evaluation mode."""

    def score_padded(wave_BS: np.ndarray, n_samples_B: np.ndarray) -> np.ndarray:
        was_training = detector.training
        if was_training:
            detector.eval()
        # What sharded layers gather in inference_mode could not be trained on afterwards.
        no_gradients = torch.no_grad() if was_training else torch.inference_mode()
        out_of_memory = memory_advice("give a shorter --window or --crop first:N, or use --device cpu")
        try:
            with no_gradients, plain_fp32(), out_of_memory:
                wave, n_samples = torch.from_numpy(wave_BS), torch.from_numpy(n_samples_B)
                score_B: torch.Tensor = detector(wave.to(device), n_samples.to(device))
                return score_B.float().cpu().numpy()
        finally:
            if was_training:
                detector.train()

    is_gpu = device.type == "cuda"
    is_alone = not is_gpu and sum(parameter.numel() for parameter in detector.parameters()) >= LARGE
    return Scorer(
        score_padded,
        shortest=detector.shortest,
        longest=detector.encoder.longest,
        budget_samples=0 if is_alone else batch_budget(device),
        n_together=GPU_TOGETHER if is_gpu else 1,
        n_decoders=min(MOST_DECODERS, os.cpu_count() or 1) if is_gpu else CPU_DECODERS,
        meaning=detector.score_meaning,
        device=str(device),
        precision="fp32",
        runtime={"torch": str(torch.__version__)},
    )


def require_model(folder: Path) -> None:
    """Refuse what is no model folder.

    Raises:
        SpoofkitError: it has no model.json.
    """
    require_model_folder(folder)


def model_sha256(folder: Path) -> str:
    """By what a score file knows the model that scored it."""
    return detector_sha256(folder)


def input_policy(folder: Path) -> str:
    """What a model says of the samples it is to be given; whole utterances if it says nothing."""
    record = read_json(folder / "model.json")
    return str(record.get("input_policy", "whole")) if isinstance(record, dict) else "whole"


def load_scorer(folder: Path, device: str, world: World) -> Scorer:
    """Read a model folder.

    Args:
        folder: Of the model.
        device: `auto`, `cpu`, `cuda`, `cuda:1` …
        world: The processes of the run, each of which has its own GPU.

    Raises:
        SpoofkitError: see `load_detector` and `choose_device`.
    """
    where = own_device(choose_device(device), world)
    detector, record = load_detector(folder)
    provenance = detector.encoder.provenance
    of_model = {
        "provenance": None if provenance is None else asdict(provenance),
        "contamination": contamination_warning(provenance),
        "settings": record.get("settings"),
        "stages": detector.encoder.stages,
        "hardware": hardware(where),
    }
    with memory_advice("use a larger GPU or --device cpu"):
        detector = detector.to(where)
    return replace(scorer_of(detector, where), input_policy=input_policy(folder), record=of_model)
