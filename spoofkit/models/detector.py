"""Encoder plus head, and the folder a detector is kept in.

model/
  encoder/             a Hugging Face folder, as post-training writes it
  head.safetensors     the utterance head
  model.json           kind of head, resolved settings, what it was trained on
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from spoofkit.config import EncoderSettings
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, file_sha256, read_json, text_sha256, write_json
from spoofkit.models.encoder import Encoder, load_encoder
from spoofkit.models.heads import UTTERANCE_HEADS, FrameHead, UtteranceHead


class FrameClassifier(nn.Module):
    """Encoder and frame head: log-odds for every frame."""

    def __init__(self, encoder: Encoder, kind: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.kind = kind
        self.head = FrameHead(encoder.width, kind)

    def forward(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """logit_BT and is_frame_BT."""
        hidden_BTD, is_frame_BT = self.encoder(wave_BS, n_samples_B)
        return self.head(hidden_BTD), is_frame_BT


class Detector(nn.Module):
    """Encoder and utterance head: log-odds of bona fide for every utterance."""

    def __init__(self, encoder: Encoder, kind: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.kind = kind
        self.head = UtteranceHead(encoder.width, kind)

    def forward(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
        """Scores, shape (B,): higher means more bona fide."""
        score_B: torch.Tensor = self.head(*self.encoder(wave_BS, n_samples_B))
        return score_B


def save_detector(folder: Path, detector: Detector, record: dict[str, Any]) -> None:
    """Write a model folder, whole or not at all; `record` is kept in model.json."""
    with atomic_folder(folder) as temporary:
        detector.encoder.save(temporary / "encoder")
        (temporary / "head.safetensors").write_bytes(save(detector.head.state_dict()))
        write_json(temporary / "model.json", {"format": 1, "head": detector.kind, **record})


def load_detector(folder: Path) -> tuple[Detector, dict[str, Any]]:
    """Read a model folder.

    Returns:
        The detector in evaluation mode, and the record of model.json.

    Raises:
        SpoofkitError: not a model folder, a damaged one, or tensors that do not fit.
    """
    if not (folder / "model.json").is_file():
        raise SpoofkitError(
            f"{folder}: not a spoofkit model (no model.json); name the folder EXP/model that `spoofkit finetune` wrote"
        )
    record = read_json(folder / "model.json")
    if not isinstance(record, dict) or record.get("format") != 1 or record.get("head") not in UTTERANCE_HEADS:
        raise SpoofkitError(
            f"{folder}/model.json: does not describe a model of this version (format 1, head one of "
            f"{', '.join(UTTERANCE_HEADS)}); it is damaged or was written by another version of spoofkit"
        )
    if not (folder / "encoder").is_dir():
        # Its name must never be looked up on the hub.
        raise SpoofkitError(f"{folder}: has no encoder/ inside, expected a whole model folder; copy it again")
    encoder = load_encoder(EncoderSettings(name=str(folder / "encoder")))
    detector = Detector(encoder, record["head"])
    load_head(folder / "head.safetensors", detector.head)
    return detector.eval(), record


def save_frame_head(folder: Path, classifier: FrameClassifier) -> None:
    """Keep the frame head beside the encoder it was trained with: localisation needs it."""
    with atomic_folder(folder) as temporary:
        (temporary / "head.safetensors").write_bytes(save(classifier.head.state_dict()))
        write_json(temporary / "head.json", {"format": 1, "head": classifier.kind})


def load_head(path: Path, head: nn.Module) -> None:
    """Load a head's tensors; names and shapes must be exactly its own, values finite."""
    try:
        tensors = load_file(path)
        head.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SpoofkitError(
            f"{path}: cannot be loaded into this head ({reason}); copy the model folder again"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise SpoofkitError(f"{path}: holds NaN or infinite values; train the model again or copy the folder again")


def folder_sha256(folder: Path) -> str:
    """One hash over the names and bytes of all files of a folder, so that a model is known by it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return text_sha256("\n".join(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}" for path in files))
