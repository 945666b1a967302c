"""Several processes, started by torchrun, that train on shares of the same batches and decide together.

This module is all that the others need to know of it. In a single process every function does nothing.

An encoder that does not fit on one GPU is sharded: each process keeps a share of every layer (FSDP2, arXiv:2304.11277).
The layers hold nearly all parameters; stem, projection and head stay whole in every process, and their gradients are
averaged here. Checkpoints hold whole tensors, so a run may resume with another number of processes, sharded or not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from spoofkit.errors import SpoofkitError
from spoofkit.models.encoder import Encoder
from spoofkit.models.wave_encoder import WavLMEncoder
from spoofkit.processes import World, own_device, read_world

# Rank 0 may write a checkpoint of many gigabytes to slow storage while the others wait for it.
PATIENCE = timedelta(minutes=60)
SINGLE_PROCESS = World()

Answer = TypeVar("Answer")


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that torchrun started, if any, for the length of the outermost `with` block.

    Two trainings of one command must share a group: a second one can meet addresses of the first in torchrun's store.

    Args:
        device: The requested device; `cuda` becomes this process's own GPU.

    Raises:
        SpoofkitError: this machine has fewer GPUs than processes, one GPU is named for all of them, or some of
            torchrun's variables are missing.
    """
    world = read_world()
    device = own_device(device, world)
    if not world.has_group or dist.is_initialized():
        yield world, device
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield world, device
    finally:
        dist.destroy_process_group()


@contextmanager
def main_first(world: World, context: Any) -> Iterator[None]:
    """Enter a context in rank 0 only; the other processes wait until it has."""
    with context if world.is_main else nullcontext():
        barrier(world)
        yield


def wrap(module: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Wrap a module so that its backward pass averages gradients over all processes."""
    if not world.has_group:
        return module
    parallel = DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)
    # See joint_statistics. Set here because torch 2.13 has renamed the argument.
    parallel.broadcast_buffers = False
    return parallel


@contextmanager
def without_averaging(module: nn.Module, active: bool) -> Iterator[None]:
    """Accumulate gradients in this process only; used for all but the last of its micro-batches."""
    if active and isinstance(module, DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        yield


@contextmanager
def joint_statistics(module: nn.Module, world: World) -> Iterator[None]:
    """Give batch normalisation in every process the running statistics of one process with all micro-batches in order.

    An update by the statistics x of a micro-batch is r <- (1 - m) r + m x. From the same r, n updates bring process k
    to a r + S_k with a = (1 - m)^n. All updates in the order of the W processes give a^W r + sum_k a^(W - 1 - k) S_k.
    """
    norms: list[Any] = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and world.has_group]
    starts = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    yield
    for norm, (mean, variance, n_before) in zip(norms, starts, strict=True):
        n_updates = int(norm.num_batches_tracked - n_before)  # 0 if it is frozen
        kept = (1 - norm.momentum) ** n_updates
        for running, start in ((norm.running_mean, mean), (norm.running_var, variance)):
            own = (running - kept * start) * kept ** (world.size - 1 - world.rank)
            dist.all_reduce(own)
            running.copy_(kept**world.size * start + own)
        norm.num_batches_tracked.fill_(int(n_before) + n_updates * world.size)


def total(numbers: list[float], world: World, device: torch.device) -> list[float]:
    """Sum each number over all processes."""
    if not world.has_group:
        return numbers
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return [float(value) for value in sums]


def any_of(is_so: bool, world: World, device: torch.device) -> bool:
    """Return in all processes whether it is so in at least one; every process must call this."""
    (n_so,) = total([float(is_so)], world, device)
    return n_so > 0


def from_main(world: World, compute: Callable[[], Answer]) -> Answer:
    """Compute in rank 0 and return the result in every process; the others wait."""
    if not world.has_group:
        return compute()
    answer = [compute() if world.is_main else None]
    dist.broadcast_object_list(answer, src=0)
    return answer[0]  # type: ignore[return-value]


def merged(values: dict[str, Any], world: World) -> dict[str, Any]:
    """Merge the dictionaries of all processes into one, for every process.

    Raises:
        ValueError: two processes have the same key, which is a bug.
    """
    if not world.has_group:
        return values
    parts: list[dict[str, Any]] = [{} for _ in range(world.size)]
    dist.all_gather_object(parts, values)
    together = {key: value for part in parts for key, value in part.items()}
    if len(together) != sum(map(len, parts)):
        raise ValueError("two processes computed the same item")
    return together


def barrier(world: World) -> None:
    """Wait until all processes are here."""
    if world.has_group:
        dist.barrier()


def require_shardable(encoder: Encoder, world: World) -> None:
    """Refuse an encoder that cannot be sharded.

    Raises:
        SpoofkitError: there is only one process, or the layers of this family cannot be sharded.
    """
    if not world.has_group:
        raise SpoofkitError("--shard-layers: needs several processes, found one; start them with torchrun")
    if isinstance(encoder, WavLMEncoder):
        raise SpoofkitError(
            "--shard-layers: WavLM's layers cannot be sharded; omit it, since the largest WavLM fits on one GPU"
        )
    if encoder.lora is not None:
        raise SpoofkitError(
            "--shard-layers: cannot be combined with encoder.lora, whose frozen weights have neither gradients nor "
            "moments; omit it"
        )
    if not len(encoder.layers):
        raise SpoofkitError("--shard-layers: this encoder has no layers; omit it")


def shard_layers(encoder: Encoder, world: World, device: torch.device) -> None:
    """Shard the parameters of the encoder's layers over the processes, on `device`."""
    mesh = init_device_mesh(device.type, (world.size,))
    for layer in encoder.layers:
        # Explicit, because a layer without a sharded module above it would stay whole after its forward pass.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def clip_gradients(model: nn.Module, largest: float, world: World, is_sharded: bool) -> float:
    """Clip gradients to a norm of `largest` and return the norm before; average the whole ones of a sharded model."""
    if not is_sharded:
        return float(nn.utils.clip_grad_norm_(model.parameters(), largest))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for gradient in gradients:
        if not isinstance(gradient, DTensor):  # FSDP averages what is sharded
            dist.all_reduce(gradient)
            gradient /= world.size
    # Like torch's clip_grad_norm_, which does not accept a mixture of whole and sharded gradients.
    squares = [whole(torch.linalg.vector_norm(gradient)).square() for gradient in gradients]
    norm = float(torch.stack(squares).sum().sqrt())
    factor = min(1.0, largest / (norm + 1e-6))
    for gradient in gradients:
        gradient.mul_(factor)
    return norm


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor, sharded or not; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_as(tensor: torch.Tensor, parameter: torch.Tensor | None) -> torch.Tensor:
    """Shard a whole tensor like the parameter that it belongs to."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor  # another shape: a count of steps, or an error that loading will report
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def put_together(model: nn.Module) -> None:
    """Make every parameter whole again, in every process, in CPU memory, so that the model can be written."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            share: torch.Tensor | None = parameter
            if isinstance(share, DTensor):
                module._parameters[name] = nn.Parameter(share.full_tensor().cpu(), share.requires_grad)
