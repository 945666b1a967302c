"""The steps around the loop that both stages share: lock the folder, check, train, write; and the dry run."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spoofkit.checksums import folder_sha256
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.dataset import Batch
from spoofkit.data.randomness import torch_seed
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.interrupts import caught_signals
from spoofkit.models.device import memory_advice, peak_gigabytes, training_precision
from spoofkit.models.encoder import Encoder
from spoofkit.models.memory import count_parameters
from spoofkit.models.names import find_named, refuse_revision
from spoofkit.processes import require_equal_shares
from spoofkit.settings import Config, TrainSettings
from spoofkit.stages import Stage
from spoofkit.training import distributed, experiment
from spoofkit.training.eval_precision import require_eval_precision
from spoofkit.training.loop import OUT_OF_MEMORY, Run, Task, load_parts, train
from spoofkit.training.optim import LossModule, accumulate_gradients
from spoofkit.training.progress import format_duration, require_tensorboard


@dataclass(frozen=True)
class Prepared:
    """A stage whose inputs have been read and checked."""

    task: Task
    caveats: list[str]
    """Lines for the log."""
    save: Callable[[Stage], None]
    """Write the products, given this stage's entry of `stages.json`."""


def run_stage(
    folder: Path,
    name: str,
    products: tuple[str, ...],
    inputs: dict[str, str],
    recorded: dict[str, Any],
    settings: TrainSettings,
    seed: int,
    run: Run,
    prepare: Callable[[Run], Prepared],
) -> dict[str, Any] | None:
    """Train in an experiment's folder, unless it is finished.

    Args:
        folder: The experiment's folder.
        name: Name of the stage.
        products: Folders that it makes.
        inputs: Hash by name of everything it reads.
        recorded: The resolved settings of this stage, for config.yaml.
        settings: Those of them that the loop needs.
        seed: Seed of data and dropout.
        run: Where and how; with `dry_run` the result has `lines` to show, and nothing is written.
        prepare: Reads and checks the inputs, given the run with this process's device and its world.

    Returns:
        Step and figures of the chosen weights; None if the folder was already finished.

    Raises:
        Interrupted: after SIGINT, SIGTERM or SIGUSR1; what was trained is saved.
    """
    experiment.refuse_loss(folder, name, recorded["encoder"]["name"])
    locked = nullcontext() if run.dry_run else experiment.locked(folder)
    with distributed.joined(run.device) as (world, device), distributed.main_first(world, locked):
        run = replace(run, world=world, device=device)
        if not (run.overwrite or run.dry_run) and experiment.is_finished(folder, products, recorded, inputs):
            return None
        prepared = prepare(run)
        task = prepared.task
        _require_runnable(run, task.encoder, settings)
        if run.dry_run:
            return {"lines": _first_step(task, settings, seed, run)}
        if world.is_main:  # everything was checked: only now may an older run be deleted
            if run.overwrite:
                experiment.clear(folder)
            experiment.record(folder, recorded, inputs)
            for caveat in prepared.caveats:
                experiment.log(folder, caveat)
        distributed.barrier(world)
        with caught_signals() as caught:  # to the end, so that a signal in the last second does not lose hours of work
            result = train(folder, task, settings, seed, run, caught)
            if world.is_main:
                stage = experiment.finished_stage(
                    folder, name, task.encoder, task.items.manifest.summary(), result, recorded, inputs
                )
                prepared.save(stage)
            distributed.barrier(world)
        if distributed.any_of(bool(caught), world, device):  # another training, or a stage of a recipe, may come next
            raise Interrupted(f"{folder}: finished and saved; the same command goes on from there", caught.exit_code)
        return result


def with_commit(config: Config) -> Config:
    """Return the settings with an encoder of the hub named by its commit, so that they say what is trained.

    Raises:
        SpoofkitError: see `refuse_revision`, which asks before anything is fetched; or the encoder cannot be fetched.
    """
    refuse_revision(config.encoder.name, config.encoder.revision)
    encoder = config.encoder.model_copy(update={"name": find_named(config.encoder.name).name})
    return config.model_copy(update={"encoder": encoder})


def encoder_hash(name: str) -> str:
    """Return what identifies an encoder: the hash of its folder, or its name (`tiny`, a hub id with its commit)."""
    return folder_sha256(Path(name)) if Path(name).is_dir() else name


def _require_runnable(run: Run, encoder: Encoder, settings: TrainSettings) -> None:
    """Refuse what cannot be trained, before an older run is deleted.

    Raises:
        SpoofkitError: a batch cannot be shared, the device lacks the precision, or an option is not available.
    """
    require_equal_shares(settings, run.world.size)
    if run.dry_run and run.world.size > 1:
        raise SpoofkitError("--dry-run: runs in a single process; start it without torchrun")
    training_precision(run.device, settings.precision)
    require_eval_precision(settings.eval_precision, run.device, run.shard_layers)
    if run.tensorboard:
        require_tensorboard()
    if run.shard_layers:
        distributed.require_shardable(encoder, run.world)
        for what, is_on in (("--compile", run.compile_layers), ("head_first_steps", settings.optim.head_first_steps)):
            if is_on:
                raise SpoofkitError(f"--shard-layers: cannot be combined with {what}; omit one of them")
    if run.compile_layers:
        encoder.to(run.device).compile_layers()


def _first_step(task: Task, settings: TrainSettings, seed: int, run: Run) -> list[str]:
    """Compute the gradient of the first two batches, the second to time it, without training or writing anything.

    Returns:
        Lines for stdout: sizes, memory, time, and a description of the first batch.
    """
    model = task.model.to(run.device).train()
    dtype, reason = training_precision(run.device, settings.precision)
    order, loading = load_parts(task, settings, seed, run, 0, 2)
    module = LossModule(model, task.loss)
    seconds, losses, first = [], [], []
    with memory_advice(OUT_OF_MEMORY), loading as batches:
        for step in range(2):
            started = time.perf_counter()
            parts = [next(batches) for _ in range(order.n_micro_batches)]
            seeds = [torch_seed(seed, step, number) for number in range(len(parts))]
            weight = sum(map(task.weight, parts))
            losses.append(accumulate_gradients(module, parts, weight, seeds, run.device, dtype, run.world))
            if step == 0:
                norm = float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
                first = [part.augmented(settings.augment) for part in parts]
            model.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - started)
    trained, total = count_parameters(model, trained=True), count_parameters(model)
    n_passes = settings.n_steps * settings.batch_size / task.n_items
    return [
        f"parameters: {trained:,} of {total:,} trained; encoder: {task.encoder.loaded}",
        f"precision: {reason}",
        f"steps: {settings.n_steps:,} of {settings.batch_size} items, {n_passes:.2f} passes over {task.n_items:,}",
        *_describe(first),
        f"first batch: loss {losses[0]:.4f}, gradient norm {norm:.4f}",
        f"memory: peak {peak_gigabytes(run.device):.2f} GB so far, AdamW will need {8 * trained / 1e9:.2f} GB more",
        # The first step warms up.
        f"time: {seconds[1]:.2f} s per step on {run.device}, about {format_duration(settings.n_steps * seconds[1])} "
        "in total, without evaluations",
    ]


def _describe(parts: list[Batch]) -> list[str]:
    waves = [wave[:n] for part in parts for wave, n in zip(part.wave_BS, part.n_samples_B.tolist(), strict=True)]
    lengths = torch.tensor([len(wave) / SAMPLE_RATE for wave in waves])
    levels = torch.tensor([20 * torch.log10(wave.square().mean().sqrt() + 1e-9) for wave in waves])
    peaks = torch.tensor([wave.abs().max() for wave in waves])
    lines = [
        f"first batch: {len(waves)} items of {lengths.min():.2f} to {lengths.max():.2f} s, RMS {levels.min():.1f} to "
        f"{levels.max():.1f} dB, peaks {peaks.min():.3f} to {peaks.max():.3f}"
    ]
    if any(part.targets_BT.numel() for part in parts):
        n_injected = sum(float(part.targets_BT.sum()) for part in parts)
        n_frames = sum(part.targets_BT.numel() for part in parts)
        lines.append(f"first batch: {n_injected / n_frames:.1%} of the frames (padding included) have target 1")
    else:
        n_bonafide = sum(float(part.is_bonafide_B.sum()) for part in parts)
        lines.append(f"first batch: {n_bonafide:.0f} bona fide, {len(waves) - n_bonafide:.0f} spoofed")
    return lines
