"""Score with a model folder: torch, on a CPU or a GPU."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spoofkit.files import read_json
from spoofkit.models.detector import FRAME_HEAD, Detector, detector_sha256, load_detector, require_model_folder
from spoofkit.models.device import choose_device, hardware, memory_advice
from spoofkit.models.encoder import Encoder
from spoofkit.models.frame_model import FrameModel, read_frame_head, score_timeline
from spoofkit.models.precision import faster_precisions, products, require_precision, with_bf16_products
from spoofkit.models.provenance import contamination_warning
from spoofkit.processes import World, own_device
from spoofkit.scoring.scorer import CPU_BUDGET_SAMPLES, FP32, HeadScores, ScorePadded, Scorer
from spoofkit.terminal import say

GPU_BUDGET_SAMPLES = 64 * 64_600
GPU_TOGETHER = 64  # recordings that are sorted by length together
LARGE = 10_000_000  # parameters from which one utterance keeps a CPU busy: a batch would only add padding
CPU_DECODERS, MOST_DECODERS = 2, 8
Heads = Callable[[torch.Tensor, torch.Tensor], HeadScores]
"""Scores `wave_BS` and `n_samples_B` on their device."""
# `loaded` finds these by the same names in the addon `onnx`.
require_model, model_sha256 = require_model_folder, detector_sha256


def batch_budget(device: torch.device) -> int:
    """Return the most samples in a padded batch when nothing is kept for gradients."""
    return GPU_BUDGET_SAMPLES if device.type == "cuda" else CPU_BUDGET_SAMPLES


def scorer_of(
    detector: Detector,
    device: torch.device,
    advice: str = "give a shorter --window or --crop first:N, or use --device cpu",
) -> Scorer:
    """Make a scorer of a detector that is on `device`; while it scores, it is in evaluation mode.

    Args:
        detector: The model.
        device: Where it is.
        advice: What to do if memory does not suffice, for the error.
    """

    def heads_in(precision: str) -> Heads:
        whole = with_bf16_products(detector, detector.encoder) if precision == "bf16" else detector
        return lambda wave_BS, n_samples_B: HeadScores(_numpy(whole(wave_BS, n_samples_B)))

    n_parameters = sum(parameter.numel() for parameter in detector.parameters())
    is_alone = device.type != "cuda" and n_parameters >= LARGE
    return _scorer(
        detector,
        heads_in,
        device,
        advice,
        shortest=detector.shortest,
        longest=detector.encoder.longest,
        budget_samples=0 if is_alone else batch_budget(device),
        n_together=GPU_TOGETHER if device.type == "cuda" else 1,
        meaning=detector.score_meaning,
    )


def frame_scorer_of(model: FrameModel, device: torch.device) -> Scorer:
    """Make a scorer of a frame head and, if the model has one, the utterance head on the same encoder.

    Args:
        model: Moved to `device`. Class 1 of its output layer is spoofed (or injected), so the sign of its frame scores
            is inverted.
        device: Where to compute.

    Raises:
        SpoofkitError: it does not fit into the memory of the device.
    """
    with memory_advice("use a larger GPU or --device cpu"):
        model.to(device)

    def heads_in(precision: str) -> Heads:
        whole = with_bf16_products(model, model.classifier.encoder) if precision == "bf16" else model

        def heads(wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> HeadScores:
            logit_BT, is_frame_BT, score_B = score_timeline(whole, wave_BS, n_samples_B)
            frames = [_numpy(-logit_T[is_frame_T]) for logit_T, is_frame_T in zip(logit_BT, is_frame_BT, strict=True)]
            return HeadScores(None if score_B is None else _numpy(score_B), frames)

        return heads

    encoder = model.classifier.encoder
    return _scorer(
        model.classifier,
        heads_in,
        device,
        "cut long recordings into shorter ones, or use --device cpu",
        shortest=model.shortest,
        longest=encoder.longest,
        budget_samples=batch_budget(device),
        n_together=1,
        meaning=model.score_meaning,
        has_utterance_head=model.detector is not None,
        geometry=encoder.geometry,
        record=_encoder_record(encoder),
    )


def _scorer(
    module: torch.nn.Module,
    heads_in: Callable[[str], Heads],
    device: torch.device,
    advice: str,
    **of_model: Any,
) -> Scorer:
    """Make a scorer that runs heads in fp32, in evaluation mode and without gradients.

    Args:
        module: Module to put into evaluation mode.
        heads_in: Returns what scores a batch on `device` in a precision.
        device: Where to compute.
        advice: What to do if memory does not suffice, for the error.
        of_model: The other fields of the scorer.
    """

    def in_precision(precision: str) -> ScorePadded:
        if slow := require_precision(precision, device):
            say(f"spoofkit: warning: {slow}")
        heads = heads_in(precision)

        def score_padded(wave_BS: np.ndarray, n_samples_B: np.ndarray) -> HeadScores:
            was_training = module.training
            if was_training:
                module.eval()
            # Weights that sharded layers gather in inference_mode could not be trained afterwards.
            no_gradients = torch.no_grad() if was_training else torch.inference_mode()
            try:
                with no_gradients, products(precision), memory_advice(advice):
                    return heads(torch.from_numpy(wave_BS).to(device), torch.from_numpy(n_samples_B).to(device))
            finally:
                if was_training:
                    module.train()

        return score_padded

    return Scorer(
        in_precision(FP32),
        n_decoders=min(MOST_DECODERS, os.cpu_count() or 1) if device.type == "cuda" else CPU_DECODERS,
        device=str(device),
        precision=FP32,
        faster=faster_precisions(device),
        in_precision=in_precision,
        runtime={"torch": str(torch.__version__)},
        **of_model,
    )


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()


def _encoder_record(encoder: Encoder) -> dict[str, Any]:
    provenance = encoder.provenance
    return {
        "provenance": None if provenance is None else asdict(provenance),
        "contamination": contamination_warning(provenance),
    }


def input_policy(folder: Path) -> str:
    """Read the input policy of a model. Default: whole utterances."""
    record = read_json(folder / "model.json")
    return str(record.get("input_policy", "whole")) if isinstance(record, dict) else "whole"


def load_scorer(folder: Path, device: str, world: World) -> Scorer:
    """Load a model folder onto a device.

    Args:
        folder: The model folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1` …
        world: The processes of torchrun, each with its own GPU.

    Raises:
        SpoofkitError: see `load_detector` and `choose_device`.
    """
    where = own_device(choose_device(device), world)
    detector, record = load_detector(folder, for_scoring=True)
    of_model = {
        **_encoder_record(detector.encoder),
        "settings": record.get("settings"),
        "stages": detector.encoder.stages,
        "hardware": hardware(where),
    }
    with memory_advice("use a larger GPU or --device cpu"):
        detector = detector.to(where)
    policy = str(record.get("input_policy", "whole"))
    frames = (lambda: read_frame_head(folder, detector.encoder, detector)) if (folder / FRAME_HEAD).exists() else None
    return replace(scorer_of(detector, where), input_policy=policy, record=of_model, read_frame_model=frames)
