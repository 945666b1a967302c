"""Several processes that torchrun started as one run: which of them this is, its device, and the barrier between them.

torch is imported only where there are several.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from spoofkit.errors import SpoofkitError

if TYPE_CHECKING:
    import torch

    from spoofkit.settings import TrainSettings

GROUP_OF_ONE = "SPOOFKIT_GROUP_OF_ONE"
"""For tests only: if it is 1, a single process of torchrun joins a process group as one of several would."""
LONGEST_WAIT = timedelta(days=30)  # one process may have the long recordings, another nothing left to do


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is."""

    rank: int = 0
    size: int = 1
    groups_one: bool = False
    """Whether a single process joins a process group too: see GROUP_OF_ONE."""

    @property
    def has_group(self) -> bool:
        """Whether its processes communicate."""
        return self.size > 1 or self.groups_one

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes; the others read what it wrote."""
        return self.rank == 0


def read_world() -> World:
    """Read torchrun's variables from the environment; without them there is one process.

    Raises:
        SpoofkitError: only some of torchrun's variables are set.
    """
    try:
        size = int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise SpoofkitError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']!r}, expected a number: start with torchrun, or unset it"
        ) from error
    groups_one = os.environ.get(GROUP_OF_ONE) == "1"
    if size == 1 and not groups_one:
        return World()
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise SpoofkitError(
            f"WORLD_SIZE is {size} but {', '.join(missing)} is not set: start with torchrun, or unset WORLD_SIZE"
        )
    return World(int(os.environ["RANK"]), size, groups_one)


def own_device(device: "torch.device", world: World) -> "torch.device":
    """Return the device of this process: with several processes, `cuda` becomes its own GPU.

    Raises:
        SpoofkitError: fewer GPUs on this machine than processes, or one GPU named for all of them.
    """
    if not world.has_group:
        return device
    if ":" in str(device):
        raise SpoofkitError(f"--device {device}: under torchrun each process takes its own GPU; use --device cuda")
    if device.type != "cuda":
        return device
    import torch

    local_rank = int(os.environ["LOCAL_RANK"])
    if local_rank >= torch.cuda.device_count():
        raise SpoofkitError(
            f"torchrun: process {local_rank + 1} on this machine, but it has {torch.cuda.device_count()} GPUs; "
            "start one process a GPU (--nproc-per-node)"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def require_equal_shares(settings: "TrainSettings", n_processes: int) -> None:
    """Refuse a batch that cannot be divided equally among the processes, in whole micro-batches.

    Raises:
        SpoofkitError: names the batch sizes that are possible.
    """
    unit = (settings.micro_batch_size or 1) * n_processes
    if settings.batch_size % unit:
        parts = f" in micro-batches of {settings.micro_batch_size}" if settings.micro_batch_size else ""
        raise SpoofkitError(
            f"batch_size: {settings.batch_size} cannot be shared equally by {n_processes} processes{parts}; choose a "
            f"multiple of {unit}, or another number of processes"
        )


@contextmanager
def barrier() -> Iterator[Callable[[], None]]:
    """Yield a barrier: a function that returns when all processes of the run have called it.

    Raises:
        SpoofkitError: by that function, if another process ended before it reached the barrier.
    """
    from torch import distributed as dist

    def wait() -> None:
        try:
            dist.barrier()
        except RuntimeError as error:
            raise SpoofkitError(
                "torchrun: another process of this run has ended, see its message; the work of this process is saved, "
                "and the same command resumes"
            ) from error

    dist.init_process_group("gloo", timeout=LONGEST_WAIT)  # over the host's network, so that no GPU is busy waiting
    try:
        yield wait
    finally:
        dist.destroy_process_group()
