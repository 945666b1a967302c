"""Utterance classifiers in transformers' format (Wav2Vec2ForSequenceClassification and its siblings) as detectors.

transformers applies a linear layer to each frame (`projector`), takes the mean over frames, and applies a second linear
layer (`classifier`) of one logit a label. No nonlinearity stands between them, so the mean may come first, and both are
one linear layer; the difference of two labels' logits is the log-odds of bona fide. The labels' names say which is
which.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from spoofkit.addons.convert.unpickle import load_tensors
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json
from spoofkit.models.detector import Detector
from spoofkit.models.encoder import Encoder
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.wave_encoder import WAVE_FAMILIES, WaveEncoder
from spoofkit.settings import EncoderSettings

ARCHITECTURE = "ForSequenceClassification"
INPUT_POLICY = "whole"
BONAFIDE = {"bonafide", "bona", "fide", "real", "human", "genuine", "true", "authentic", "natural", "original"}
SPOOF = {
    "spoof", "spoofed", "spoofing", "fake", "synthetic", "synthesized", "synthesised", "ai", "deepfake", "deepfakes",
    "false", "cloned", "artificial", "tts",
}  # fmt: skip
NEUTRAL = {"audio", "voice", "speech", "generated", "class", "label", "sample", "recording", "clip", "s"}
"""Words beside those; with any other word, such as `not`, a label is not understood."""
PARTS = ("projector.weight", "projector.bias", "classifier.weight", "classifier.bias")
LAYER_WEIGHTS = "layer_weights"


def is_classifier(folder: Path) -> bool:
    """Return whether a folder holds such a model."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    named = config.get("architectures") if isinstance(config, dict) else None
    return isinstance(named, list) and any(str(name).endswith(ARCHITECTURE) for name in named)


def from_classifier(folder: Path, bonafide: str | None = None) -> tuple[Detector, int]:
    """Convert a classifier.

    Args:
        folder: With config.json, preprocessor_config.json and weights.
        bonafide: The label of bona fide, if the names of the labels do not say it.

    Returns:
        The detector, and how many tensors were used.

    Raises:
        SpoofkitError: see `load_encoder`; another family, other than two labels, labels whose meaning is not known, a
            classifier that is not two linear layers, or layers that are summed before a final norm.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") not in WAVE_FAMILIES:
        raise SpoofkitError(
            f"{folder}: is a {config.get('model_type')!r} classifier, expected one of {', '.join(WAVE_FAMILIES)}: what "
            "others compute cannot be reproduced exactly"
        )
    # transformers leaves out the names that it gives two labels itself.
    labels = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    positive = bonafide_class(labels, folder, bonafide)
    encoder = load_encoder(EncoderSettings(name=str(folder)))
    is_summed = bool(config.get("use_weighted_layer_sum"))
    if is_summed and isinstance(encoder, WaveEncoder) and encoder.is_pre_norm:
        raise SpoofkitError(
            f"{folder}: sums all layers of a network with a final norm, which versions of transformers apply "
            "differently; such a classifier cannot be reproduced exactly"
        )
    tensors = _head_tensors(folder, (*PARTS, LAYER_WEIGHTS) if is_summed else PARTS)
    detector = Detector(encoder, "mean", "weighted" if is_summed else "last")
    weight_1D, bias_1 = _folded(tensors, positive, folder, encoder)
    state = {"output.linear.weight": weight_1D, "output.linear.bias": bias_1}
    if is_summed:
        state["merge.logits"] = tensors[LAYER_WEIGHTS].float()
    try:
        detector.head.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise SpoofkitError(f"{folder}: its classifier does not fit its encoder ({reason}); fetch it again") from error
    encoder.ignored = ()
    return detector.eval(), len(encoder.network.state_dict()) + len(tensors)


def bonafide_class(labels: Any, where: Path | str, stated: str | None = None) -> int:
    """Return the class that is bona fide.

    Args:
        labels: `id2label` of config.json.
        where: Name of the model in messages.
        stated: The label of bona fide, as the user says.

    Raises:
        SpoofkitError: not two labels; or their names do not say it, or contradict what is stated.
    """
    names = _names(labels)
    shown = ", ".join(map(repr, names)) or "none"
    if len(names) != 2:
        raise SpoofkitError(f"{where}: has {len(names)} labels ({shown}), expected two, of bona fide and of spoof")
    if stated is not None:
        if stated not in names:
            raise SpoofkitError(f"--bonafide {stated}: {where} has the labels {shown}, expected one of them")
        return names.index(stated)
    meanings = [_meaning(name) for name in names]
    if sorted(map(str, meanings)) != ["bonafide", "spoof"]:
        raise SpoofkitError(
            f"{where}: its labels are {shown}, which do not say which one is bona fide (real, human, genuine …) and "
            "which is spoof (fake, synthetic, AI …); if its authors say it, name the label of bona fide: "
            "`spoofkit convert … --bonafide LABEL`"
        )
    return meanings.index("bonafide")


def _names(labels: Any) -> list[str]:
    """Return the labels in the order of their classes; none if they are not numbered from 0."""
    if not isinstance(labels, Mapping) or {str(key) for key in labels} != {str(n) for n in range(len(labels))}:
        return []
    by_number = {int(key): " ".join(str(label).split())[:40] for key, label in labels.items()}
    return [by_number[number] for number in sorted(by_number)]


def _meaning(label: str) -> str | None:
    """Return what a label means, if each of its words is known.

    >>> _meaning("AIVoice"), _meaning("Bona-Fide"), _meaning("not fake"), _meaning("LABEL_1")
    ('spoof', 'bonafide', None, None)
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+", " ", label)
    words = set(apart.lower().split())
    if words - BONAFIDE - SPOOF - NEUTRAL:
        return None
    is_bonafide, is_spoof = bool(words & BONAFIDE), bool(words & SPOOF)
    return None if is_bonafide == is_spoof else "bonafide" if is_bonafide else "spoof"


def _head_tensors(folder: Path, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Read the tensors above the encoder, whichever file holds them."""
    found: dict[str, torch.Tensor] = {}
    safe = sorted(folder.glob("model*.safetensors"))
    for path in safe:
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in wanted if name in file.keys()}  # noqa: SIM118 - no dict
    for path in [] if safe else sorted(folder.glob("pytorch_model*.bin")):
        tensors = load_tensors(path)
        found |= {name: tensors[name] for name in wanted if isinstance(tensors.get(name), torch.Tensor)}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SpoofkitError(
            f"{folder}: has no tensor {missing[0]}, expected a projector and a classifier above the encoder; it is no "
            f"…{ARCHITECTURE}"
        )
    for name, tensor in found.items():
        if not bool(tensor.isfinite().all()):
            raise SpoofkitError(f"{folder}: tensor {name} holds NaN or infinite values; fetch the weights again")
    return found


def _folded(
    tensors: dict[str, torch.Tensor], positive: int, folder: Path, encoder: Encoder
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return projector and classifier as one linear layer of one logit, weight (1, D) and bias (1,)."""
    projector_PD, projector_P, classifier_2P, classifier_2 = (tensors[name].double() for name in PARTS)
    width = projector_P.numel()
    if (
        projector_PD.shape != (width, encoder.width)
        or projector_P.shape != (width,)
        or classifier_2P.shape != (2, width)
        or classifier_2.shape != (2,)
    ):
        raise SpoofkitError(
            f"{folder}: projector and classifier have the shapes {tuple(projector_PD.shape)} and "
            f"{tuple(classifier_2P.shape)}, expected (P, {encoder.width}) and (2, P); fetch the weights again"
        )
    difference_P = classifier_2P[positive] - classifier_2P[1 - positive]
    bias = classifier_2[positive] - classifier_2[1 - positive] + difference_P @ projector_P
    return (difference_P @ projector_PD)[None].float(), bias[None].float()
