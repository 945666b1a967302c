"""An encoder that is stored as adapters: the files in its folder, and how its base is identified.

encoder/
  adapter_model.safetensors   the adapters, in peft's own format
  adapter_config.json         rank, alpha, which layers, in peft's own format
  base.json                   the base weights: name, revision, SHA-256, layers; SHA-256 of the adapters
  config.json                 configuration of the network, with the layers that are kept
  preprocessor_config.json    how its input is prepared
  provenance.json             where the base came from, if known

The base is not copied. It is read from the hub id or the folder that base.json names, or from SPOOFKIT_BASE if that is
set, and must have exactly the weights on which the adapters were trained.
"""

import hashlib
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_json, write_json
from spoofkit.models.lora import Pair, adapted_layers, lora_config, roles_of
from spoofkit.models.names import find_named, is_hub_name
from spoofkit.settings import LoraSettings

FORMAT = 1
WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "base.json"
FILES = (WEIGHTS, CONFIG, RECORD)
BASE_VARIABLE = "SPOOFKIT_BASE"
"""Environment variable that names the base if it is not where base.json says."""
PEFT_PREFIX = "base_model.model."
"""Prefix that peft writes before the names of a network's layers."""
# Kinds of LoRA that are computed differently.
OTHER_KINDS = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")


@dataclass(frozen=True)
class Base:
    """The weights that adapters were trained on."""

    name: str | None
    """Hub id, `hub:` name with a commit, folder or torchaudio:BUNDLE; None for merged weights that are in no folder."""
    revision: str | None
    """Commit of a hub id."""
    sha256: str
    """Hash of its tensors: see `network_sha256`."""
    n_layers: int
    """Number of its transformer layers."""
    n_kept: int
    """Number of lowest layers that are used and have adapters."""


@dataclass(frozen=True)
class Adapters:
    """The contents of a folder of adapters."""

    base: Base
    settings: LoraSettings
    """Rank, alpha, dropout and targets."""
    pairs: dict[str, Pair]
    """The adapters, by the name of the linear layer in transformers' whole network."""

    @property
    def scale(self) -> float:
        """Factor on the product of a pair."""
        return self.settings.alpha / self.settings.rank

    def facts(self) -> dict[str, Any]:
        """Return what `info` shows of them."""
        return {
            "base": self.base.name,
            "base_revision": self.base.revision,
            "base_sha256": self.base.sha256,
            "rank": self.settings.rank,
            "alpha": self.settings.alpha,
            "targets": self.settings.targets,
            "parameters": sum(tensor.numel() for pair in self.pairs.values() for tensor in pair),
        }


def is_adapter_folder(folder: Path) -> bool:
    """Return whether a folder is meant to hold adapters, complete or not."""
    return any((folder / name).is_file() for name in FILES)


def network_sha256(network: nn.Module) -> str:
    """Hash the names, types, shapes and values of all tensors of a network.

    Tensors are hashed, not files: a base is the same whether it is stored as safetensors or as a .bin, in one file or
    several, and every bit of it that is used counts.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def make_base(network: nn.Module, n_layers: int, name: str | None, revision: str | None) -> Base:
    """Return the record of a base that was just loaded, before layers are removed."""
    if name is not None and Path(name).is_dir():
        name = str(Path(name).resolve())
    elif name is not None and is_hub_name(name):
        name = find_named(name).name
    elif name is not None and name.count("/") == 1:
        revision = _commit(name, revision) or revision
    return Base(name, revision, network_sha256(network), n_layers, n_layers)


def _commit(hub_id: str, revision: str | None) -> str | None:
    """Return the commit that the hub's cache holds, since a branch may move."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    return Path(config).parent.name if isinstance(config, str) else None


def require_base(folder: Path, base: Base, name: str, network: nn.Module) -> None:
    """Refuse weights that are not those on which the adapters of `folder` were trained.

    Raises:
        SpoofkitError: another SHA-256.
    """
    found = network_sha256(network)
    if found != base.sha256:
        raise SpoofkitError(
            f"{folder}: its adapters were trained on {base.name} with SHA-256 {base.sha256[:16]}…, but {name} now has "
            f"{found[:16]}…; restore that base, or name a copy of it with {BASE_VARIABLE}=FOLDER"
        )


def base_name(folder: Path, base: Base) -> tuple[str, str | None]:
    """Return where the base is now, and its revision.

    Raises:
        SpoofkitError: its folder is missing, or is a folder of adapters itself.
    """
    own = os.environ.get(BASE_VARIABLE)
    name = own or base.name or ""
    if is_adapter_folder(Path(name)):
        raise SpoofkitError(
            f"{folder}: {name} holds adapters, expected the base that they were trained on; name its folder with "
            f"{BASE_VARIABLE}=FOLDER"
        )
    if not Path(name).is_dir() and (own or Path(name).is_absolute()):
        raise SpoofkitError(
            f"{folder}: the base of its adapters, the folder {name}, is missing; restore it, or name its present "
            f"folder with {BASE_VARIABLE}=FOLDER (its SHA-256 is checked)"
        )
    return name, None if own else base.revision


def write_adapters(
    folder: Path, base: Base, settings: LoraSettings, family: str, pairs: dict[str, Pair], prefix: str
) -> None:
    """Write the adapters' own files into a folder that is being written.

    Args:
        folder: The folder.
        base: The weights that they were trained on.
        settings: The settings of their training.
        family: `model_type` of the network.
        pairs: The adapters, by the name of the linear layer in `network`.
        prefix: Prefix of those names in the network that `AutoModel` opens.
    """
    tensors = {}
    for name, pair in pairs.items():
        for letter, tensor in zip("AB", pair, strict=True):
            tensors[f"{PEFT_PREFIX}{prefix}{name}.lora_{letter}.weight"] = tensor.detach().cpu().contiguous()
    (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
    names = {"base_model_name_or_path": base.name, "revision": base.revision, "inference_mode": True}
    lora_config(settings, family, "encoder.", base.n_kept, **names).save_pretrained(str(folder))
    # Adapters that were copied beside the record of another base must not be taken for its own.
    write_json(folder / RECORD, {"format": FORMAT, "adapters_sha256": file_sha256(folder / WEIGHTS)} | asdict(base))


def read_adapters(folder: Path) -> Adapters:
    """Read a folder of adapters, without its base.

    Raises:
        SpoofkitError: a file is missing or damaged, values are not finite, or it holds other adapters than those that
            `write_adapters` writes.
    """
    missing = [name for name in (*FILES, "config.json") if not (folder / name).is_file()]
    if missing:
        raise SpoofkitError(
            f"{folder}: holds adapters but no {missing[0]}, expected {', '.join(FILES)} and config.json as spoofkit "
            "writes them; copy the folder again, or have peft merge adapters that it wrote elsewhere"
        )
    base, adapters_sha256 = _read_record(folder / RECORD)
    family = _family(folder / "config.json")
    tensors = _read_tensors(folder / WEIGHTS)
    if file_sha256(folder / WEIGHTS) != adapters_sha256:
        raise SpoofkitError(
            f"{folder}/{WEIGHTS}: its SHA-256 differs from that in {RECORD}: it holds other adapters, perhaps of "
            "another base, or is a damaged copy; copy the folder again"
        )
    pairs = {}
    for name in sorted({key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for key in tensors}):
        keys = [f"{name}.lora_{letter}.weight" for letter in "AB"]
        if not (name.startswith(PEFT_PREFIX) and all(key in tensors for key in keys)):
            raise SpoofkitError(f"{folder}/{WEIGHTS}: {name} is no whole adapter, expected A and B; copy it again")
        pairs[name.removeprefix(PEFT_PREFIX)] = (tensors[keys[0]], tensors[keys[1]])
    settings = _read_settings(folder / CONFIG, family, pairs)
    return Adapters(base, settings, pairs)


def _read_record(path: Path) -> tuple[Base, str]:
    """Return the base, and the SHA-256 of the adapters."""
    values = read_json(path)
    try:
        own = values["format"] == FORMAT
        base = Base(*(values[field.name] for field in fields(Base)))
    except (KeyError, TypeError):
        own = False
    if not (
        own
        and sorted(values) == sorted(("format", "adapters_sha256", *asdict(base)))
        and isinstance(base.name, str)
        and isinstance(base.revision, str | None)
        and isinstance(base.sha256, str)
        and all(isinstance(n, int) and n >= 1 for n in (base.n_layers, base.n_kept))
    ):
        raise SpoofkitError(
            f"{path}: does not describe the base of adapters (format {FORMAT}); it is damaged or was written by "
            "another version of spoofkit"
        )
    return base, str(values["adapters_sha256"])


def _family(path: Path) -> str:
    values = read_json(path)
    return str(values.get("model_type")) if isinstance(values, dict) else ""


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise SpoofkitError(f"{path}: damaged or cut short ({reason}); copy the folder again") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise SpoofkitError(f"{path}: tensor {name} holds NaN or infinite values; train again or copy it again")
    return tensors


def _read_settings(path: Path, family: str, pairs: dict[str, Pair]) -> LoraSettings:
    """Read rank, alpha and dropout from peft's file, and the roles of the layers that have an adapter."""
    values = read_json(path)
    parts = {name.split(".", 3)[-1] for name in pairs}  # encoder.layers.0.PART
    targets = [role for role, names in roles_of(family).items() if parts & set(names)]
    try:
        others = [name for name in OTHER_KINDS if values.get(name)]
        if values["peft_type"] != "LORA" or values["bias"] != "none" or others:
            raise ValueError
        settings = LoraSettings(
            rank=values["r"],
            alpha=values["lora_alpha"],
            dropout=values["lora_dropout"],
            targets=targets,  # type: ignore[arg-type]  # names of roles
        )
    except (AttributeError, KeyError, TypeError, ValueError, ValidationError) as error:
        raise SpoofkitError(
            f"{path}: does not describe adapters as spoofkit trains them (plain LoRA on the roles "
            f"{', '.join(roles_of(family))} of one {family} network); copy the folder again"
        ) from error
    return settings


def fitting_pairs(
    folder: Path, adapters: Adapters, network: nn.Module, layers: nn.ModuleList, prefix: str
) -> dict[str, Pair]:
    """Return the adapters by the names of `network`; every layer of their roles must have one, of the right shapes.

    Raises:
        SpoofkitError: adapters are missing, unexpected or of another shape.
    """
    expected = adapted_layers(network, layers, adapters.settings.targets)
    pairs = {name.removeprefix(prefix): pair for name, pair in adapters.pairs.items()}
    rank = adapters.settings.rank
    for what, names in (
        ("missing", set(expected) - pairs.keys()),
        ("unknown", pairs.keys() - set(expected)),
        ("of another shape", {n for n in expected if n in pairs and not _fits(pairs[n], network, n, rank)}),
    ):
        if names:
            raise SpoofkitError(
                f"{folder}/{WEIGHTS}: {len(names)} adapters are {what}, first {min(names)}; they are not those of "
                f"{len(layers)} layers of {adapters.base.name}, so copy the folder again"
            )
    return pairs


def _fits(pair: Pair, network: nn.Module, name: str, rank: int) -> bool:
    layer: Any = network.get_submodule(name)
    return pair[0].shape == (rank, layer.in_features) and pair[1].shape == (layer.out_features, rank)


def require_same_settings(folder: Path, adapters: Adapters, wanted: LoraSettings, n_layers: int | None) -> None:
    """Refuse to train adapters further with another rank, alpha, other targets or in other layers than they have.

    Args:
        folder: Where they were read.
        adapters: The adapters.
        wanted: What the settings say of adapters.
        n_layers: Number of layers to keep; None: those that have adapters.

    Raises:
        SpoofkitError: something differs.
    """
    if n_layers not in (None, adapters.base.n_kept):
        raise SpoofkitError(
            f"encoder.n_layers: {n_layers} in the settings, but {folder} has adapters in {adapters.base.n_kept} "
            "layers; use that, or leave it out"
        )
    family_order = list(roles_of(""))
    for name in ("rank", "alpha", "targets"):
        here, there = getattr(wanted, name), getattr(adapters.settings, name)
        if name == "targets":
            here, there = (sorted(set(roles), key=family_order.index) for roles in (here, there))
        if here != there:
            raise SpoofkitError(
                f"encoder.lora.{name}: {here} in the settings, but the adapters of {folder} have {there}; use that, or "
                "set encoder.lora.start: new to merge them and train new ones"
            )
