"""Save and restore the state of a run: checkpoints hold whole tensors, whatever the number of processes.

A resumed run equals an uninterrupted one in weights and metrics, bit for bit with the same number of processes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
)

from spoofkit.errors import SpoofkitError
from spoofkit.models.encoder import Encoder
from spoofkit.models.lora import learnt_state
from spoofkit.processes import World
from spoofkit.training import checkpoints, distributed
from spoofkit.training.checkpoints import Checkpoint, LoopState

FORMAT = 2
"""Version of optimizer.pt, whose parameters have names. Before format 2 they had numbers, which are read as well."""
IN_RANK_0 = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Sharded tensors are gathered one at a time, so that all of them together need not fit on one GPU."""


def take(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: LoopState, extra: dict[str, torch.Tensor]
) -> Checkpoint:
    """Collect what a checkpoint holds, as whole tensors; all processes must call this, and rank 0 gets it."""
    moments = get_optimizer_state_dict(model, optimizer, options=IN_RANK_0)
    whole_extra = {name: distributed.whole(tensor).cpu() for name, tensor in extra.items()}
    return Checkpoint(whole_weights(model), {"format": FORMAT, **moments}, state, whole_extra)


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Collect `learnt_state` as whole tensors; all processes must call this, and rank 0 gets it."""
    state = learnt_state(model)
    # Adapters are never sharded, and torch's helper would copy the frozen weights below them every time.
    return state if len(state) < len(model.state_dict()) else dict(get_model_state_dict(model, options=IN_RANK_0))  # type: ignore[arg-type]


def load_weights(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Load the result of `whole_weights` into a model, sharded or not.

    Raises:
        RuntimeError: names or shapes differ.
    """
    others = sorted(tensors.keys() ^ learnt_state(model).keys())
    if others:
        raise RuntimeError(f"{len(others)} tensors are missing or unknown, first {', '.join(others[:3])}")
    # Not strict: frozen weights below adapters are in no checkpoint; all that was learnt is, as was checked above.
    set_model_state_dict(model, {**tensors}, options=StateDictOptions(full_state_dict=True, strict=False))


def resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, torch.Tensor],
    world: World,
    log: Callable[[str], None],
) -> LoopState:
    """Restore the newest checkpoint of an experiment, if there is one, and return the state of the run.

    Args:
        folder: The experiment's folder.
        model: Receives the weights.
        optimizer: Receives the moments.
        extra: Receive the further tensors.
        world: The processes that train together.
        log: Reports damaged checkpoints.

    Raises:
        SpoofkitError: see `newest`, `read`, `kept_weights`, `restore`.
    """
    path = distributed.from_main(world, lambda: checkpoints.newest(folder / "checkpoints", log))
    if path is None:
        return LoopState()
    checkpoint = checkpoints.read(path)
    checkpoints.kept_weights(folder, checkpoint.state.kept)  # verified now, not after hours of training
    restore(path, checkpoint, model, optimizer, extra)
    return checkpoint.state


def restore(
    path: Path,
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, torch.Tensor],
) -> None:
    """Load a checkpoint's tensors into model, optimiser and the tensors of `extra`.

    Raises:
        SpoofkitError: names or shapes differ.
    """
    parameters = dict(model.named_parameters())
    try:
        load_weights(model, checkpoint.model)
        _load_moments(optimizer, checkpoint.optimizer, parameters)
        if checkpoint.extra.keys() != extra.keys():
            raise ValueError(f"further tensors {sorted(checkpoint.extra)[:3]}, expected {sorted(extra)[:3]}")
        with torch.no_grad():
            for name, tensor in extra.items():
                if tensor.shape != checkpoint.extra[name].shape:
                    raise ValueError(f"shape of {name}")
                tensor.copy_(distributed.sharded_as(checkpoint.extra[name], tensor))
    except (RuntimeError, ValueError, KeyError) as error:
        raise SpoofkitError(
            f"{path}: does not fit this model ({checkpoints.one_line(error)}), probably because another version of "
            "spoofkit wrote it; continue with that version, or pass --overwrite to train again"
        ) from error


def _load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any], parameters: dict[str, nn.Parameter]) -> None:
    """Load saved moments into the optimiser.

    torch's set_optimizer_state_dict is not used: it takes a step to create moments, also for parameters that had none,
    so that a resumed run would differ from an uninterrupted one.

    Raises:
        ValueError: the moments belong to other parameters.
    """
    name_of = {parameter: name for name, parameter in parameters.items()}
    here = [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    there = [key for group in saved["param_groups"] for key in group["params"]]
    if "format" in saved and (saved["format"], there) != (FORMAT, here):
        raise ValueError(
            f"moments of format {saved['format']} and of {len(there)} parameters, expected {FORMAT} and {len(here)}"
        )
    belongs_to = dict(zip(there, here, strict=True))  # numbers before format 2, counted through all groups
    state = {
        key: {what: distributed.sharded_as(value, parameters[belongs_to[key]]) for what, value in values.items()}
        for key, values in saved["state"].items()
    }
    groups = [  # the kernel is a choice of this run, not of the checkpoint; it decides where steps are counted
        group | {kernel: own[kernel] for kernel in ("fused", "foreach")}
        for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def require_same_precision(folder: Path, state: LoopState, dtype: torch.dtype, reason: str) -> None:
    """Record the precision of a new run; refuse to resume it in another.

    Raises:
        SpoofkitError: the run began in another precision.
    """
    precision = str(dtype).removeprefix("torch.")
    state.precision = state.precision or precision
    if state.precision != precision:
        raise SpoofkitError(
            f"{folder}: began in {state.precision}, but would resume in {precision} ({reason}); resume on the kind of "
            "hardware on which it began, or set precision to fp32 or bf16 and start again with --overwrite"
        )


def require_same_base(folder: Path, state: LoopState, encoder: Encoder) -> None:
    """Record the hash of the frozen weights below a run's adapters, which no checkpoint holds; refuse others.

    Raises:
        SpoofkitError: the run began on other weights.
    """
    if encoder.base is None:
        return
    found = encoder.base.sha256
    state.base_sha256 = state.base_sha256 or found
    if state.base_sha256 != found:
        raise SpoofkitError(
            f"{folder}: began on frozen weights with SHA-256 {state.base_sha256[:16]}…, but those of "
            f"{encoder.base.name} now have {found[:16]}…; restore the first encoder, or pass --overwrite to train again"
        )
