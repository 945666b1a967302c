"""Several processes as one: started by torchrun, they train on shares of the same batches and decide together.

What stands here is all that the rest needs to know of it. In a process of its own every function is the identity.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from spoofkit.processes import World, own_device, read_world

# Rank 0 may write a checkpoint of many gigabytes to slow storage while the others wait for it.
PATIENCE = timedelta(minutes=60)


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
    if world.size == 1:
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
    if world.size == 1:
        return module
    return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)


@contextmanager
def without_averaging(module: nn.Module, active: bool) -> Iterator[None]:
    """Keep gradients to this process: for all but the last part of an accumulated batch."""
    if active and isinstance(module, DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        yield


def share_buffers(module: nn.Module, world: World) -> None:
    """Give every process rank 0's buffers: running statistics of batch normalisation, which each makes of its share."""
    if world.size > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def total(numbers: list[float], world: World, device: torch.device) -> list[float]:
    """Each number summed over all processes."""
    if world.size == 1:
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
    if world.size == 1:
        return compute()
    answer = [compute() if world.is_main else None]
    dist.broadcast_object_list(answer, src=0)
    return answer[0]  # type: ignore[return-value]


def merged(values: dict[str, Any], world: World) -> dict[str, Any]:
    """The dictionaries of all processes in one; every process gets it.

    Raises:
        ValueError: two processes have the same key: a defect.
    """
    if world.size == 1:
        return values
    parts: list[dict[str, Any]] = [{} for _ in range(world.size)]
    dist.all_gather_object(parts, values)
    together = {key: value for part in parts for key, value in part.items()}
    if len(together) != sum(map(len, parts)):
        raise ValueError("two processes computed the same item")
    return together


def wait(world: World) -> None:
    """Go on when all processes are here."""
    if world.size > 1:
        dist.barrier()
