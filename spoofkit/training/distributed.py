"""Several processes as one: started by torchrun, they train on shares of the same batches and decide together.

What stands here is all that the rest needs to know of it. In a process of its own every function is the identity.

An encoder that does not fit on one GPU is sharded: each process keeps a share of every layer (FSDP2, arXiv:2304.11277).
That is where nearly all parameters are; stem, projection and head stay whole in every process, and their gradients are
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
    """Join the processes that torchrun started, if it did, for the length of the `with` block.

    Args:
        device: What was asked for; `cuda` becomes this process's own GPU.

    Raises:
        SpoofkitError: fewer GPUs on this machine than processes, one GPU named for all of them, or only some of
            torchrun's variables.
    """
    world = read_world()
    device = own_device(device, world)
    if not world.has_group:
        yield world, device
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield world, device
    finally:
        dist.destroy_process_group()


@contextmanager
def main_first(world: World, context: Any) -> Iterator[None]:
    """Enter a context in rank 0 alone; the others come in after it has."""
    with context if world.is_main else nullcontext():
        wait(world)
        yield


def wrap(module: nn.Module, world: World, device: torch.device) -> nn.Module:
    """The module whose backward pass averages gradients over all processes."""
    if not world.has_group:
        return module
    parallel = DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)
    # See joint_statistics. Not as an argument, which torch 2.13 has renamed.
    parallel.broadcast_buffers = False
    return parallel


@contextmanager
def without_averaging(module: nn.Module, active: bool) -> Iterator[None]:
    """Keep gradients to this process: for all but the last of its micro-batches."""
    if active and isinstance(module, DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        yield


@contextmanager
def joint_statistics(module: nn.Module, world: World) -> Iterator[None]:
    """Batch normalisation: leave every process the running statistics of one that had all the micro-batches in order.

    An update by the statistics x of a micro-batch is r <- (1 - m) r + m x. From the same r, n updates bring process k
    to a r + S_k with a = (1 - m)^n; all updates, one process after the other, to a^W r + sum_k a^(W - 1 - k) S_k.
    """
    norms: list[Any] = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and world.has_group]
    starts = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    yield
    for norm, (mean, variance, n_before) in zip(norms, starts, strict=True):
        n_updates = int(norm.num_batches_tracked - n_before)  # none where it is frozen
        kept = (1 - norm.momentum) ** n_updates
        for running, start in ((norm.running_mean, mean), (norm.running_var, variance)):
            own = (running - kept * start) * kept ** (world.size - 1 - world.rank)
            dist.all_reduce(own)
            running.copy_(kept**world.size * start + own)
        norm.num_batches_tracked.fill_(int(n_before) + n_updates * world.size)


def total(numbers: list[float], world: World, device: torch.device) -> list[float]:
    """Each number summed over all processes."""
    if not world.has_group:
        return numbers
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return [float(value) for value in sums]


def any_of(is_so: bool, world: World, device: torch.device) -> bool:
    """True in all processes if it is so in one of them; every process must ask at the same place."""
    (n_so,) = total([float(is_so)], world, device)
    return n_so > 0


def from_main(world: World, compute: Callable[[], Answer]) -> Answer:
    """What rank 0 computed, in every process; the others wait for it."""
    if not world.has_group:
        return compute()
    answer = [compute() if world.is_main else None]
    dist.broadcast_object_list(answer, src=0)
    return answer[0]  # type: ignore[return-value]


def merged(values: dict[str, Any], world: World) -> dict[str, Any]:
    """The dictionaries of all processes in one; every process gets it.

    Raises:
        ValueError: two processes have the same key: a defect.
    """
    if not world.has_group:
        return values
    parts: list[dict[str, Any]] = [{} for _ in range(world.size)]
    dist.all_gather_object(parts, values)
    together = {key: value for part in parts for key, value in part.items()}
    if len(together) != sum(map(len, parts)):
        raise ValueError("two processes computed the same item")
    return together


def wait(world: World) -> None:
    """Go on when all processes are here."""
    if world.has_group:
        dist.barrier()


def require_shardable(encoder: Encoder, world: World) -> None:
    """Refuse what cannot be sharded.

    Raises:
        SpoofkitError: one process only, or a family whose layers cannot be sharded.
    """
    if not world.has_group:
        raise SpoofkitError("--shard-layers: shares layers between processes, found one; start several with torchrun")
    if isinstance(encoder, WavLMEncoder):
        raise SpoofkitError(
            "--shard-layers: not for WavLM, whose layers are called part by part; its largest fits on one GPU"
        )
    if encoder.lora is not None:
        raise SpoofkitError(
            "--shard-layers: does not go with encoder.lora, whose frozen weights have neither gradients nor moments; "
            "leave it out"
        )
    if not len(encoder.layers):
        raise SpoofkitError("--shard-layers: this encoder has no layers; leave it out")


def shard_layers(encoder: Encoder, world: World, device: torch.device) -> None:
    """Replace the parameters of the encoder's layers by each process's share of them, on `device`."""
    mesh = init_device_mesh(device.type, (world.size,))
    for layer in encoder.layers:
        # Said outright: a layer that has no sharded module above it would otherwise stay whole after its forward pass.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def clip_gradients(model: nn.Module, largest: float, world: World, is_sharded: bool) -> float:
    """Clip the gradients to a norm of `largest`; the norm before. Average those that a sharded model has whole."""
    if not is_sharded:
        return float(nn.utils.clip_grad_norm_(model.parameters(), largest))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for gradient in gradients:
        if not isinstance(gradient, DTensor):  # FSDP averages what is sharded
            dist.all_reduce(gradient)
            gradient /= world.size
    # As torch's clip_grad_norm_, which takes no mixture of whole and sharded gradients.
    squares = [whole(torch.linalg.vector_norm(gradient)).square() for gradient in gradients]
    norm = float(torch.stack(squares).sum().sqrt())
    factor = min(1.0, largest / (norm + 1e-6))
    for gradient in gradients:
        gradient.mul_(factor)
    return norm


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor, sharded or not; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_as(tensor: torch.Tensor, parameter: torch.Tensor | None) -> torch.Tensor:
    """A whole tensor, sharded as the parameter that it belongs to is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor  # the latter: counts of steps, or a mistake that loading will name
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def put_together(model: nn.Module) -> None:
    """Make every parameter whole again, in every process, in the CPU's memory: for what is written at the end."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            share: torch.Tensor | None = parameter
            if isinstance(share, DTensor):
                module._parameters[name] = nn.Parameter(share.full_tensor().cpu(), share.requires_grad)
