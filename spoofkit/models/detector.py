"""Encoder, merge of layers, head, output layer; and the folder that a detector is stored in.

model/
  encoder/             a Hugging Face folder, as post-training writes it
  head.safetensors     merge, head and output layer
  model.json           which they are, resolved settings, what it was trained on
  SHA256SUMS           of these (spoofkit.checksums)
  frame_head/          of `posttrain --onto` alone: a frame classifier on the same encoder (spoofkit.models.frame_model)
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional as F

from spoofkit.checksums import folder_sha256, require_intact, write_sums
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, read_json, write_json
from spoofkit.models.encoder import Encoder, LayersWanted
from spoofkit.models.heads import UTTERANCE_HEADS
from spoofkit.models.heads.frame import FrameHead
from spoofkit.models.layer_merge import MERGES, make_merge
from spoofkit.models.losses import LinearOutput, make_output
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.sinc_encoder import SincEncoder
from spoofkit.settings import EncoderSettings, FinetuneSettings, LossSettings

FRAME_HEAD = "frame_head"
"""Folder of the frame head that a model may also have."""
FORMAT = 3
"""Format of model.json. Models of format 2 read every hidden state through the final norm, without stating it."""
SCORES = ("log_odds", "bonafide_logit", "selu_log_odds")
"""What a model scores by: its output layer; or, as authors of published models do, the logit of bona fide, or the
difference of two logits behind a SELU (SLS)."""
Waves = tuple[torch.Tensor, torch.Tensor]
"""wave_BS and n_samples_B."""


class Classifier(nn.Module):
    """The classifier on an encoder: a merge of its layers, a head, an output layer."""

    final_norm: bool
    """Whether the last layer's output is read through the encoder's final norm."""

    def __init__(self, encoder: Encoder, layers: str | int, head: nn.Module, n_logits: int, loss: LossSettings) -> None:
        super().__init__()
        n_hidden = len(encoder.layers) + 1
        if isinstance(layers, int) and layers >= n_hidden:
            raise SpoofkitError(f"layers: {layers} is out of range, the encoder has {n_hidden - 1} layers")
        self.final_norm = layers == "last"
        self.wanted: LayersWanted = layers if isinstance(layers, int) or layers == "last" else "all"  # type: ignore[assignment]
        self.merge = make_merge(layers, n_hidden, encoder.width) if layers in MERGES else None
        self.head = head
        self.output = make_output(loss, head.embedding_width, n_logits)  # type: ignore[arg-type]

    @property
    def reads(self) -> tuple[LayersWanted, bool]:
        """What it needs from an encoder: which hidden states, and whether the last layer's is normalised."""
        return self.wanted, self.final_norm

    def read(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> list[torch.Tensor]:
        """Return the hidden states for the head: merged into one, or unchanged."""
        return layers if self.merge is None else [self.merge(layers, is_frame_BT)]

    def select(self, layers: list[torch.Tensor], encoder: Encoder) -> list[torch.Tensor]:
        """Select what `reads` names from all hidden states, which were taken before the final norm."""
        if self.final_norm:
            layers = [*layers[:-1], encoder.finish(layers[-1])]
        if self.wanted == "all":
            return layers
        return [layers[-1 if self.wanted == "last" else self.wanted]]


class FrameClassifier(nn.Module):
    """Encoder and frame classifier: log-odds for every frame."""

    def __init__(
        self, encoder: Encoder, kind: str, layers: str | int = "last", loss: LossSettings | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.kind, self.layers, self.loss_settings = kind, layers, loss or LossSettings()
        self.shortest = encoder.shortest
        self.head = Classifier(encoder, layers, FrameHead(encoder.width, kind), 1, self.loss_settings)
        if kind == "linear" and isinstance(self.head.output, LinearOutput):
            nn.init.xavier_uniform_(self.head.output.linear.weight)  # as arXiv:2606.25328
        _train_only_what_is_used(encoder, self.head)

    def embed(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the input of the output layer, (B, T, E), and is_frame_BT."""
        layers, is_frame_BT = self.encoder(wave_BS, n_samples_B, *self.head.reads)
        return self.embed_layers(layers, is_frame_BT), is_frame_BT

    def embed_layers(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """Return the input of the output layer, given hidden states."""
        (hidden_BTD,) = self.head.read(layers, is_frame_BT)
        embedding_BTE: torch.Tensor = self.head.head(hidden_BTD)
        return embedding_BTE

    def forward(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logit_BT and is_frame_BT."""
        embedding_BTE, is_frame_BT = self.embed(wave_BS, n_samples_B)
        return self.head.output(embedding_BTE), is_frame_BT


class Detector(nn.Module):
    """Encoder and utterance classifier: a score for every utterance, higher means more bona fide."""

    def __init__(
        self, encoder: Encoder, kind: str, layers: str | int = "last", loss: LossSettings | None = None
    ) -> None:
        super().__init__()
        head_class = UTTERANCE_HEADS[kind]
        if head_class.front_end and not (isinstance(encoder, SincEncoder) and encoder.name == head_class.front_end):
            raise SpoofkitError(
                f"head {kind}: works on the front-end {head_class.front_end} only; set encoder.name to it"
            )
        if isinstance(encoder, SincEncoder) and encoder.name != head_class.front_end:
            raise SpoofkitError(
                f"head {kind}: does not work on the front-end {encoder.name}, which gives a frame a sample"
            )
        self.encoder = encoder
        self.kind, self.layers, self.loss_settings = kind, layers, loss or LossSettings()
        head = head_class(encoder.width, len(encoder.layers) + 1)
        self.head = Classifier(encoder, layers, head, head_class.n_logits, self.loss_settings)
        self.score = "log_odds"
        self.shortest = max(
            encoder.shortest, encoder.geometry.shortest + (head_class.shortest_frames - 1) * encoder.geometry.hop
        )
        _train_only_what_is_used(encoder, self.head)

    @property
    def score_meaning(self) -> str:
        """Meaning of the score, in words."""
        if self.score == "bonafide_logit":
            return "logit of bona fide, as the model's authors score"
        kind = self.loss_settings.kind
        if kind in ("ce", "focal"):
            return "log-odds of bona fide"
        return "cosine to the bona fide centre" + ("" if kind == "oc_softmax" else " less that to the spoof centre")

    def embed(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
        """Return the input of the output layer, (B, E)."""
        layers, is_frame_BT = self.encoder(wave_BS, n_samples_B, *self.head.reads)
        return self.embed_layers(layers, is_frame_BT)

    def embed_with_reference(self, tested: Waves, reference: Waves) -> torch.Tensor:
        """Return the input of the output layer, (B, E), of utterances beside one reference each (head rat)."""
        layers, is_frame_BT = self.encoder(*tested, *self.head.reads)
        reference_layers, is_frame_BR = self.encoder(*reference, *self.head.reads)
        read = self.head.read(reference_layers, is_frame_BR)
        embedding_BE: torch.Tensor = self.head.head(
            self.head.read(layers, is_frame_BT), is_frame_BT, (read, is_frame_BR)
        )
        return embedding_BE

    def embed_layers(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """Return the input of the output layer, given hidden states."""
        embedding_BE: torch.Tensor = self.head.head(self.head.read(layers, is_frame_BT), is_frame_BT)
        return embedding_BE

    def forward(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
        """Score a batch; shape (B,)."""
        return self.score_embedding(self.embed(wave_BS, n_samples_B))

    def score_embedding(self, embedding_BE: torch.Tensor) -> torch.Tensor:
        """Score the input of the output layer; shape (B,)."""
        output: Any = self.head.output
        if self.score == "log_odds":
            score_B: torch.Tensor = output(embedding_BE)
            return score_B
        logit_B2: torch.Tensor = output.logits(embedding_BE)
        if self.score == "bonafide_logit":
            return logit_B2[:, 1]
        logit_B2 = F.selu(logit_B2)
        return logit_B2[:, 1] - logit_B2[:, 0]


def _train_only_what_is_used(encoder: Encoder, classifier: Classifier) -> None:
    """Freeze layers above the one that is read: they get no gradient, so the optimiser must not have them."""
    if isinstance(classifier.wanted, int):
        for module in encoder.layers[classifier.wanted :]:
            module.requires_grad_(False)
    if not classifier.final_norm:
        for parameter in encoder.parameters_above_layers():
            parameter.requires_grad_(False)


def save_detector(folder: Path, detector: Detector, record: dict[str, Any]) -> None:
    """Write a model folder, completely or not at all; `record` goes into model.json."""
    with atomic_folder(folder) as temporary:
        write_detector(temporary, detector, record)


def write_detector(folder: Path, detector: Detector, record: dict[str, Any]) -> None:
    """Write the files of a model folder into `folder`."""
    detector.encoder.save(folder / "encoder")
    (folder / "head.safetensors").write_bytes(save(detector.head.state_dict()))
    own = {
        "format": FORMAT,
        "head": detector.kind,
        "layers": detector.layers,
        "final_norm": detector.head.final_norm,
        "loss": detector.loss_settings.model_dump(mode="json"),
        "score": detector.score,
    }
    write_json(folder / "model.json", own | record)
    write_sums(folder, without=FRAME_HEAD)


def require_model_folder(folder: Path) -> None:
    """Refuse a path that is no model folder.

    Raises:
        SpoofkitError: it has no model.json.
    """
    if not (folder / "model.json").is_file():
        found = "not a spoofkit model (no model.json)" if folder.is_dir() else "no such folder"
        raise SpoofkitError(
            f"{folder}: {found}; name the folder EXP/model that `spoofkit finetune` wrote, or hub:OWNER/MODEL"
        )


def load_detector(
    folder: Path | str, training: EncoderSettings | None = None, for_scoring: bool = False
) -> tuple[Detector, dict[str, Any]]:
    """Read a model folder.

    Args:
        folder: Its path.
        training: How the encoder is to be trained; its `name` is not used. Default: not at all, adapters are merged.
        for_scoring: It only scores: see `load_encoder`.

    Returns:
        The detector in evaluation mode, and the record of model.json.

    Raises:
        SpoofkitError: not a model folder, a damaged one, or tensors that do not fit.
    """
    folder = Path(folder)
    require_model_folder(folder)
    require_intact(folder)
    record = read_json(folder / "model.json")
    try:
        if record["head"] not in UTTERANCE_HEADS or record["score"] not in SCORES:
            raise ValueError
        final_norm = read_final_norm(record, FORMAT)
        loss = LossSettings.model_validate(record["loss"], strict=True)
        layers = record["layers"]
        FinetuneSettings.model_validate({"head": record["head"], "layers": layers}, strict=True)
        if record["score"] != "log_odds" and (
            UTTERANCE_HEADS[record["head"]].n_logits != 2 or loss.kind not in ("ce", "focal")
        ):
            raise ValueError
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise SpoofkitError(
            f"{folder}/model.json: does not describe a model of this version (format {FORMAT}, head one of "
            f"{', '.join(UTTERANCE_HEADS)}); it is damaged or was written by another version of spoofkit"
        ) from error
    if not (folder / "encoder").is_dir():
        # Otherwise its name would be looked up on the hub.
        raise SpoofkitError(f"{folder}: has no encoder/ inside, expected a complete model folder; copy it again")
    settings = (training or EncoderSettings()).model_copy(update={"name": str(folder / "encoder")})
    encoder = load_encoder(settings, for_scoring=for_scoring)
    detector = Detector(encoder, record["head"], layers, loss)
    detector.score = record["score"]
    detector.head.final_norm = final_norm
    load_head(folder / "head.safetensors", detector.head)
    return detector.eval(), record


def read_final_norm(record: dict[str, Any], newest: int) -> bool:
    """Return what a record says of the final norm; in the format before `newest` it is true without being stated.

    Raises:
        ValueError: another format, no boolean, or `layers: last` without the norm.
        KeyError: something is missing.
    """
    if record["format"] == newest - 1 and "final_norm" not in record:
        return True
    final_norm = record["final_norm"]
    if record["format"] != newest or not isinstance(final_norm, bool):
        raise ValueError
    if record["layers"] == "last" and not final_norm:
        raise ValueError
    return final_norm


def load_head(path: Path, head: nn.Module) -> None:
    """Load a head's tensors; names and shapes must match exactly, and values must be finite."""
    try:
        tensors = load_file(path)
        head.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SpoofkitError(f"{path}: does not fit this head ({reason}); copy the model folder again") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise SpoofkitError(f"{path}: holds NaN or infinite values; train the model again or copy the folder again")


def detector_sha256(folder: Path) -> str:
    """Hash all files of a model folder that affect its scores: not those of a frame head."""
    return folder_sha256(folder, without=FRAME_HEAD)
