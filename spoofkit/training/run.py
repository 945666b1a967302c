"""Where and how a training runs, which changes nothing of its result; and opening its folder for it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from spoofkit.errors import SpoofkitError
from spoofkit.models.device import training_precision
from spoofkit.models.encoder import Encoder
from spoofkit.processes import World, require_equal_shares
from spoofkit.settings import TrainSettings
from spoofkit.training import distributed, experiment, sharding
from spoofkit.training.monitor import require_tensorboard

SINGLE_PROCESS = World()


@dataclass(frozen=True)
class Run:
    """The options of a training that are no settings."""

    device: torch.device
    workers: int = 0
    """Loader processes."""
    overwrite: bool = False
    """Start over."""
    compile_layers: bool = False
    """Have torch compile the encoder's layers."""
    shard_layers: bool = False
    """Each of several processes keeps a share of every layer."""
    tensorboard: bool = False
    """Write the figures for TensorBoard too."""
    dry_run: bool = False
    """Only say what the first step does; nothing is written."""
    world: World = SINGLE_PROCESS
    """The processes that train together."""


@contextmanager
def opened(folder: Path, run: Run) -> Iterator[Run]:
    """Join the other processes and lock the experiment's folder; yields the run with this process's own device."""
    with (
        distributed.joined(run.device) as (world, device),
        distributed.main_first(world, nullcontext() if run.dry_run else experiment.locked(folder)),
    ):
        yield replace(run, world=world, device=device)


def require_runnable(run: Run, encoder: Encoder, settings: TrainSettings) -> None:
    """Refuse what could not be trained, before an older run is thrown away for it.

    Raises:
        SpoofkitError: a batch that cannot be shared, a precision the device lacks, or options that are not available.
    """
    require_equal_shares(settings, run.world.size)
    if run.dry_run and run.world.size > 1:
        raise SpoofkitError("--dry-run: looks at the whole batch in one process; start it without torchrun")
    training_precision(run.device, settings.precision)
    if run.tensorboard:
        require_tensorboard()
    if run.shard_layers:
        sharding.require_shardable(encoder, run.world)
        for what, is_on in (("--compile", run.compile_layers), ("head_first_steps", settings.optim.head_first_steps)):
            if is_on:
                raise SpoofkitError(f"--shard-layers: does not go with {what}; leave out one of them")
    if run.compile_layers:
        encoder.to(run.device).compile_layers()


def progress_bar(world: World, what: str, unit: str, total: int) -> "tqdm[Any]":
    """A bar of rank 0 on a terminal; a job's log has none."""
    return tqdm(total=total, desc=what, unit=unit, leave=False, disable=None if world.is_main else True)


def begin(folder: Path, run: Run, settings: dict[str, Any], inputs: dict[str, str]) -> None:
    """Everything was checked: only now may an older run be thrown away. Then record what this one is."""
    if run.world.is_main and not run.dry_run:
        if run.overwrite:
            experiment.clear(folder)
        experiment.record(folder, settings, inputs)
    distributed.wait(run.world)
