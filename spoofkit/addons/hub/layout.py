"""What a repository of the hub holds, from the names of its files and its config.json, and which of them are read."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoofkit.addons.hub.names import HubName
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json
from spoofkit.models.pretrained import FAMILIES
from spoofkit.models.wave_encoder import WAVE_FAMILIES

OURS, ENCODER, CLASSIFIER, CHECKPOINT = "ours", "encoder", "classifier", "checkpoint"
CONFIG, EXTRACTOR = "config.json", "preprocessor_config.json"
INSIDE = r"([\w-]+\.json|(adapter_)?(head|model)(-\d+-of-\d+)?\.safetensors(\.index\.json)?|SHA256SUMS)"
MODEL_FILES = re.compile(rf"model\.json|head\.safetensors|SHA256SUMS|(encoder|frame_head)/{INSIDE}")
"""The files of a model folder of spoofkit."""
ENCODER_FILES = re.compile(
    r"(config|preprocessor_config|provenance|stages|base|adapter_config)\.json|SHA256SUMS"
    r"|(adapter_)?model(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
)
"""The files of an encoder folder of spoofkit."""
# In the order in which they are preferred: safetensors hold no code.
WEIGHTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"model\.safetensors",
        r"model-\d+-of-\d+\.safetensors|model\.safetensors\.index\.json",
        r"pytorch_model\.bin",
        r"pytorch_model-\d+-of-\d+\.bin|pytorch_model\.bin\.index\.json",
    )
)
CHECKPOINTS = (r"[\w.-]+\.safetensors", r"[\w.-]+\.(bin|ckpt|pt|pth)")
NOT_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|rng_state.*|scaler)\.(bin|pt|pth)")


@dataclass(frozen=True)
class Layout:
    """What a repository is, and the files to read."""

    kind: str
    """`ours`, `encoder`, `classifier` or `checkpoint`."""
    what: str
    """The same in words."""
    files: tuple[str, ...]


def find_layout(name: HubName, files: Sequence[str], download: Callable[[str], Path]) -> Layout:
    """Find out what a repository holds.

    Args:
        name: Its name.
        files: Names of all its files.
        download: Fetches one of them; asked for config.json.

    Raises:
        SpoofkitError: nothing that spoofkit can read, with what was found.
    """
    if "model.json" in files:
        return Layout(OURS, "a model of spoofkit", tuple(filter(MODEL_FILES.fullmatch, files)))
    if CONFIG in files and "stages.json" in files:
        return Layout(OURS, "an encoder of spoofkit", tuple(filter(ENCODER_FILES.fullmatch, files)))
    config: Any = read_json(download(CONFIG)) if CONFIG in files else {}
    if isinstance(config, dict) and isinstance(config.get("model_type"), str):
        return _of_transformers(name, files, config)
    return _checkpoint(name, files)


def _of_transformers(name: HubName, files: Sequence[str], config: dict[str, Any]) -> Layout:
    """Lay out a model of transformers."""
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    family = config["model_type"]
    is_classifier = architecture.endswith("ForSequenceClassification")
    if family not in (WAVE_FAMILIES if is_classifier else FAMILIES) or architecture.endswith("ForAudioClassification"):
        own = "; it needs code of its own, which is never run" if "auto_map" in config or _has_code(files) else ""
        raise SpoofkitError(
            f"{name}: is a {architecture or family} ({family}){own}, expected a model of spoofkit, an encoder "
            f"({', '.join(FAMILIES)}), …ForSequenceClassification of {', '.join(WAVE_FAMILIES)}, or a checkpoint that "
            "`spoofkit convert` reads; other kinds cannot be computed exactly"
        )
    chosen = next((found for kind in WEIGHTS if (found := list(filter(kind.fullmatch, files)))), None)
    missing = EXTRACTOR if EXTRACTOR not in files else "weights (model.safetensors)" if chosen is None else ""
    if missing:
        raise SpoofkitError(
            f"{name}: has no {missing}, expected {CONFIG}, {EXTRACTOR} and model.safetensors or pytorch_model.bin; "
            "ask its owner to add it"
        )
    assert chosen is not None
    kind, what = (CLASSIFIER, "a classifier") if is_classifier else (ENCODER, "an encoder")
    return Layout(kind, f"{what} of transformers ({architecture or family})", (CONFIG, EXTRACTOR, *chosen))


def _checkpoint(name: HubName, files: Sequence[str]) -> Layout:
    """Lay out a repository with one checkpoint in a format of its own."""
    for kind in CHECKPOINTS:
        found = [file for file in files if re.fullmatch(kind, file) and not NOT_WEIGHTS.fullmatch(file)]
        if len(found) == 1:
            return Layout(CHECKPOINT, f"the checkpoint {found[0]}", (found[0],))
        if found:
            raise SpoofkitError(
                f"{name}: holds {len(found)} checkpoints ({', '.join(found[:5])}), expected one; fetch the one you "
                f"want (`hf download {name.id} {found[0]}`) and use `spoofkit convert`"
            )
    shown = ", ".join(files[:5]) or "no files"
    raise SpoofkitError(
        f"{name}: holds {shown}, expected a model of spoofkit (model.json), a model of transformers (config.json) or "
        "one checkpoint"
    )


def _has_code(files: Sequence[str]) -> bool:
    return any(file.endswith(".py") for file in files)
