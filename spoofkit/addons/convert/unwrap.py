"""Finding the tensors of a checkpoint, under whatever keys and wrappers its network was saved."""

from pathlib import Path
from typing import Any

import torch

from spoofkit.addons.convert.unpickle import named_tensors
from spoofkit.errors import SpoofkitError

CONTAINERS = ("model", "model_weight", "model_state_dict", "state_dict", "net")
"""Keys under which programs save tensors: fairseq and WavLM, s3prl, and training loops with an optimiser's state."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that (Distributed)DataParallel and torch.compile add to every name."""


def network_tensors(top: dict[Any, Any], where: Path | str) -> dict[str, torch.Tensor]:
    """Find the tensors of a checkpoint's network and give them the network's own names.

    Args:
        top: The top object of a checkpoint, or the tensors of a safetensors file.
        where: Name in messages.

    Returns:
        Tensors by name. Other entries of a bare state dict are ignored.

    Raises:
        SpoofkitError: several networks; entries that are no tensors; wrapped and bare names in one network.
    """
    found: dict[Any, Any] = top
    path: list[str] = []
    while inside := [key for key in CONTAINERS if _holds_tensors(found.get(key))]:
        if len(inside) > 1 or len(path) > len(CONTAINERS):  # a hostile file can contain itself
            raise SpoofkitError(
                f"{where}: holds tensors under {', '.join(inside)}, expected one network; save the state_dict of the "
                "one that you want"
            )
        path += inside
        found = found[inside[0]]
    if not path:
        found = {name: tensor for name, tensor in top.items() if isinstance(tensor, torch.Tensor)}
    for name, tensor in found.items():
        if not (isinstance(name, str) and isinstance(tensor, torch.Tensor)):
            raise SpoofkitError(
                f"{where}: its model's entry {name!r:.80} is a {type(tensor).__name__}, expected only names and "
                "tensors; use the checkpoint as its authors released it"
            )
    return _unwrapped(found, where)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and next(named_tensors(value), None) is not None


def _unwrapped(tensors: dict[str, torch.Tensor], where: Path | str) -> dict[str, torch.Tensor]:
    """Remove the prefixes of wrappers of the network, or of compiled parts of it, from the tensors' names."""
    while wrapper := next((start for start in WRAPPERS if any(name.startswith(start) for name in tensors)), None):
        bare = [name for name in tensors if not name.startswith(wrapper)]
        if bare:
            raise SpoofkitError(
                f"{where}: {len(tensors) - len(bare)} tensors are called {wrapper}…, {len(bare)} are not, first "
                f"{', '.join(bare[:3])}; expected all or none; save the state_dict of the network itself"
            )
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    names = [name.replace("._orig_mod.", ".") for name in tensors]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SpoofkitError(
            f"{where}: tensor {twice} is there twice, compiled and not; save the state_dict of the network itself"
        )
    return dict(zip(names, tensors.values(), strict=True))
