"""The frame classifier's folder, and models with both heads: frame and utterance scores from one encoder pass.

frame_head/
  head.safetensors     merge, head and output layer
  head.json            which they are, the frames' targets, the hash of the encoder that they were trained on
  SHA256SUMS           of these (spoofkit.checksums)

It lies beside that encoder: in the folder that post-training writes, or in a model folder (`posttrain --onto`).
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save

from spoofkit.checksums import folder_sha256, require_intact, write_sums
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, read_json, text_sha256, write_json
from spoofkit.models.detector import (
    FRAME_HEAD,
    Detector,
    FrameClassifier,
    load_detector,
    load_head,
    read_final_norm,
)
from spoofkit.models.encoder import Encoder
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.sinc_encoder import SincEncoder
from spoofkit.settings import EncoderSettings, LossSettings, PosttrainSettings
from spoofkit.stages import Stage, makes_frame_head, read_stages, write_stages

FORMAT = 4
"""Format of head.json. Frame heads of format 3 read every hidden state through the final norm, without stating it."""
FRAME_TARGETS = {"region": "not injected", "authenticity": "bona fide"}
"""What a higher frame score means, by the target of the training (mix.frame_target)."""


@dataclass(frozen=True)
class FrameModel:
    """A model for localisation, in evaluation mode."""

    classifier: FrameClassifier
    """Its logits are higher for spoofed (or injected) frames."""
    target: str
    """Target of its training: one of FRAME_TARGETS."""
    sha256: str
    """Hash of encoder and frame head, which identifies frame scores and thresholds fitted on them."""
    detector: Detector | None
    """The utterance head on the same encoder object; None if there is only the frame head."""

    @property
    def identity(self) -> dict[str, str]:
        """What a record says of it, and what a threshold must have been fitted on."""
        return {"model_sha256": self.sha256, "frame_target": self.target}

    @property
    def score_meaning(self) -> str:
        """Meaning of the frame scores, in words."""
        is_log_odds = self.classifier.loss_settings.kind in ("ce", "focal")
        return f"{'log-odds' if is_log_odds else 'difference of cosines'}, {FRAME_TARGETS[self.target]}; not calibrated"

    @property
    def shortest(self) -> int:
        """Smallest number of samples of a recording."""
        return max(self.classifier.shortest, self.detector.shortest if self.detector else 0)

    def to(self, device: torch.device) -> None:
        """Move the model to a device."""
        self.classifier.to(device)
        if self.detector is not None:
            self.detector.to(device)


def write_frame_head(
    folder: Path, classifier: FrameClassifier, target: str, encoder_sha256: str, stages: list[Stage]
) -> None:
    """Write a frame head's folder.

    Args:
        folder: An empty folder, beside the finished folder `encoder`.
        classifier: The frame classifier.
        target: Target of its training.
        encoder_sha256: Hash of the folder `encoder`.
        stages: How encoder and frame head were trained; the last one goes into head.json too.
    """
    (folder / "head.safetensors").write_bytes(save(classifier.head.state_dict()))
    own = {
        "format": FORMAT,
        "head": classifier.kind,
        "layers": classifier.layers,
        "final_norm": classifier.head.final_norm,
        "loss": classifier.loss_settings.model_dump(mode="json"),
        "frame_target": target,
        "encoder_sha256": encoder_sha256,
    }
    write_json(folder / "head.json", own | {name: stages[-1][name] for name in ("kept", "settings", "inputs")})
    write_stages(folder, stages)
    write_sums(folder)


def _read_record(folder: Path) -> dict[str, Any]:
    """Read head.json in a folder that has encoder and frame head."""
    parts = ("encoder", f"{FRAME_HEAD}/head.json", f"{FRAME_HEAD}/head.safetensors")
    missing = [name for name in parts if not (folder / name).exists()]
    if missing == list(parts[1:]) and _is_of_control(folder / "encoder"):
        raise SpoofkitError(
            f"{folder}: is a control of post-training without a frame head (posttrain.supervision: utterances or "
            "mix.frame_target: random), expected frames with meaningful targets; name another folder, or fine-tune "
            "this encoder and add a frame head with `spoofkit posttrain EXP --onto MODEL`"
        )
    if missing:
        raise SpoofkitError(
            f"{folder}: has no {missing[0]}, expected a folder of `spoofkit posttrain`, such as exp/x/posttrain, or a "
            "model with a frame head (`spoofkit posttrain EXP --onto MODEL` makes one); name such a folder"
        )
    path = folder / FRAME_HEAD / "head.json"
    record: Any = read_json(path)
    try:
        if record["frame_target"] not in FRAME_TARGETS:
            raise ValueError
        read_final_norm(record, FORMAT)
        LossSettings.model_validate(record["loss"], strict=True)
        PosttrainSettings.model_validate({"head": record["head"], "layers": record["layers"]}, strict=True)
        if not isinstance(record["encoder_sha256"], str):
            raise ValueError
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise SpoofkitError(
            f"{path}: does not describe a frame head of this version (format {FORMAT}); it is damaged or was written "
            "by another version of spoofkit, so post-train again"
        ) from error
    found: dict[str, Any] = record
    return found


def _is_of_control(encoder: Path) -> bool:
    """Return whether an encoder was last trained by a control of post-training that leaves no frame head."""
    stages = read_stages(encoder)
    return bool(stages) and not makes_frame_head(stages[-1].get("settings", {}))


def load_frame_model(folder: Path) -> FrameModel:
    """Read the folder of a post-training, or a model with both heads.

    Args:
        folder: Has `encoder` and `frame_head`; if it has `model.json` too, it must be a complete model folder.

    Raises:
        SpoofkitError: not such a folder, a damaged one, one of another version, tensors that do not fit, or a frame
            head of another encoder.
    """
    _read_record(folder)  # another folder is refused before anything large is read
    require_intact(folder)
    detector = load_detector(folder)[0] if (folder / "model.json").exists() else None
    encoder = detector.encoder if detector else load_encoder(EncoderSettings(name=str(folder / "encoder")))
    return read_frame_head(folder, encoder, detector)


def read_frame_head(folder: Path, encoder: Encoder, detector: Detector | None) -> FrameModel:
    """Read the frame head of a folder whose encoder, and utterance head if any, were read already.

    Raises:
        SpoofkitError: see `load_frame_model`.
    """
    record = _read_record(folder)
    encoder_sha256 = folder_sha256(folder / "encoder")
    if record["encoder_sha256"] != encoder_sha256:
        raise SpoofkitError(
            f"{folder}/{FRAME_HEAD}: was trained on another encoder than the one beside it; copy the whole folder "
            "again, or train a frame head with `spoofkit posttrain EXP --onto MODEL`"
        )
    classifier = FrameClassifier(encoder, record["head"], record["layers"], LossSettings.model_validate(record["loss"]))
    classifier.head.final_norm = read_final_norm(record, FORMAT)
    load_head(folder / FRAME_HEAD / "head.safetensors", classifier.head)
    sha256 = text_sha256(encoder_sha256 + folder_sha256(folder / FRAME_HEAD))
    return FrameModel(classifier.eval(), record["frame_target"], sha256, detector)


def check_onto(folder: Path, onto: Path) -> None:
    """Refuse a model that no frame head fits, or that would be deleted by starting over.

    Args:
        folder: The experiment in which the frame head is trained.
        onto: The model folder.

    Raises:
        SpoofkitError: see `load_detector`; or it lies inside `folder`, has a frame head already, has a frame for each
            sample, or does not score whole utterances.
    """
    detector, record = load_detector(onto)
    if folder.resolve() in (onto.resolve(), *onto.resolve().parents):
        raise SpoofkitError(
            f"{folder}: holds the model {onto} itself, expected a folder for the training of the frame head; name "
            "another one"
        )
    if (onto / FRAME_HEAD).exists():
        raise SpoofkitError(
            f"{onto}: has a frame head already, expected a model without; name the one it was made from"
        )
    if isinstance(detector.encoder, SincEncoder):
        raise SpoofkitError(
            f"{onto}: its front-end {detector.encoder.name} has a frame for each sample, expected an encoder with "
            "frames of about 20 ms; name another model"
        )
    policy = record.get("input_policy", "whole")
    if policy != "whole":
        raise SpoofkitError(
            f"{onto}: scores {policy} of an utterance, but localisation needs a model that scores whole utterances; "
            "name another model"
        )


def save_onto(out: Path, onto: Path, classifier: FrameClassifier, target: str, stage: Stage) -> None:
    """Write an exact copy of the model, with the frame head in it.

    Args:
        out: The model folder to write.
        onto: The model.
        classifier: The frame classifier, trained on the model's encoder.
        target: Target of its training.
        stage: How it was trained; its `inputs` have the hash of the `model` on which training began.

    Raises:
        SpoofkitError: the model has changed since training began.
    """
    with atomic_folder(out) as temporary:
        if not onto.is_dir() or folder_sha256(onto) != stage["inputs"]["model"]:
            raise SpoofkitError(
                f"{onto}: was changed while its frame head was trained; restore the original model, and the same "
                "command resumes from its last checkpoint"
            )
        shutil.copytree(onto, temporary, dirs_exist_ok=True)
        (temporary / FRAME_HEAD).mkdir()
        stages = [*classifier.encoder.stages, stage]
        encoder_sha256 = folder_sha256(temporary / "encoder")
        write_frame_head(temporary / FRAME_HEAD, classifier, target, encoder_sha256, stages)


def score_timeline(
    model: FrameModel, wave_BS: torch.Tensor, n_samples_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Score frames and utterances of a batch in one pass of the encoder.

    Args:
        model: The model, on the device of the batch.
        wave_BS: 16 kHz waveforms, zero-padded at the end.
        n_samples_B: Valid samples of each.

    Returns:
        logit_BT, higher for spoofed (or injected) frames; is_frame_BT; and the scores of the utterances, shape (B,),
        higher = more bona fide, or None if there is no utterance head.
    """
    frames, detector = model.classifier, model.detector
    if detector is None:
        logit_BT, is_frame_BT = frames(wave_BS, n_samples_B)
        return logit_BT, is_frame_BT, None
    heads = (frames.head, detector.head)
    alike = frames.head.reads == detector.head.reads
    layers, is_frame_BT = frames.encoder(wave_BS, n_samples_B, *(frames.head.reads if alike else ("all", False)))
    of_frames, of_utterance = (layers if alike else head.select(layers, frames.encoder) for head in heads)
    logit_BT = frames.head.output(frames.embed_layers(of_frames, is_frame_BT))
    return logit_BT, is_frame_BT, detector.score_embedding(detector.embed_layers(of_utterance, is_frame_BT))
