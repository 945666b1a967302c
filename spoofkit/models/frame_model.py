"""The frame classifier that post-training leaves, read back: EXP/posttrain/encoder and EXP/posttrain/frame_head."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json, read_text, text_sha256
from spoofkit.models.detector import FORMAT, FrameClassifier, folder_sha256, load_head
from spoofkit.models.pretrained import load_encoder
from spoofkit.settings import EncoderSettings, LossSettings, MixSettings, PosttrainSettings

FRAME_TARGETS = {"region": "not injected", "authenticity": "bona fide"}
"""What a higher frame score means more of, by what the frames were trained for (mix.frame_target)."""


def load_frame_classifier(folder: Path) -> tuple[FrameClassifier, str]:
    """Read what post-training left.

    Args:
        folder: The experiment's folder, with `encoder`, `frame_head` and `config.yaml`.

    Returns:
        The classifier in evaluation mode, whose logits are higher for spoofed (or injected) frames, and what it was
        trained for: one of FRAME_TARGETS.

    Raises:
        SpoofkitError: not such a folder, a damaged one, one of another version, or tensors that do not fit.
    """
    target = read_frame_target(folder)
    record = read_json(folder / "frame_head" / "head.json")
    try:
        if record["format"] != FORMAT:
            raise ValueError
        loss = LossSettings.model_validate(record["loss"], strict=True)
        kind, layers = record["head"], record["layers"]
        PosttrainSettings.model_validate({"head": kind, "layers": layers}, strict=True)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise SpoofkitError(
            f"{folder}/frame_head/head.json: does not describe a frame head of this version (format {FORMAT}); it is "
            "damaged or was written by another version of spoofkit"
        ) from error
    encoder = load_encoder(EncoderSettings(name=str(folder / "encoder")))
    classifier = FrameClassifier(encoder, kind, layers, loss)
    load_head(folder / "frame_head" / "head.safetensors", classifier.head)
    return classifier.eval(), target


def read_frame_target(folder: Path) -> str:
    """What the frames of an experiment were trained for, of its config.yaml.

    Raises:
        SpoofkitError: not a folder that post-training finished.
    """
    parts = ("encoder", "frame_head/head.json", "frame_head/head.safetensors", "config.yaml")
    missing = [name for name in parts if not (folder / name).exists()]
    if missing:
        raise SpoofkitError(
            f"{folder}: has no {missing[0]}, expected a folder that `spoofkit posttrain` finished; name it, such as "
            "exp/x/posttrain"
        )
    try:
        config: Any = yaml.safe_load(read_text(folder / "config.yaml"))
        return MixSettings.model_validate(config["mix"]).frame_target
    except (yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise SpoofkitError(
            f"{folder}/config.yaml: does not say what the frames were trained for (mix.frame_target); copy the folder "
            "that `spoofkit posttrain` wrote again"
        ) from error


def frame_model_sha256(folder: Path) -> str:
    """One hash over encoder and frame head, so that frame scores are known by it."""
    return text_sha256(folder_sha256(folder / "encoder") + folder_sha256(folder / "frame_head"))
