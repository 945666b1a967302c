"""The training loop of both post-training and fine-tuning, in one process or many.

A run that is interrupted at any moment and resumed ends with the same weights and metrics as an uninterrupted one.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spoofkit.data.dataset import BaseDataset, Batch, TrainingOrder, UtteranceDataset
from spoofkit.data.loading import load_batches
from spoofkit.data.randomness import torch_seed
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.interrupts import Caught
from spoofkit.models.device import memory_advice, training_precision
from spoofkit.models.encoder import Encoder
from spoofkit.models.memory import count_parameters
from spoofkit.processes import World
from spoofkit.settings import TrainSettings
from spoofkit.training import checkpoints, distributed, experiment, resume
from spoofkit.training.averaging import MovingAverage, keep_best, load_kept
from spoofkit.training.checkpoints import LoopState
from spoofkit.training.eval_precision import choose_eval_precision, require_eval_precision
from spoofkit.training.optim import (
    LossFunction,
    LossModule,
    accumulate_gradients,
    freeze_encoder,
    learning_rate_factor,
    make_optimizer,
    set_learning_rate,
)
from spoofkit.training.progress import Progress, draw_curve, metrics_writer

OUT_OF_MEMORY = (
    "set or lower micro_batch_size, lower crop_samples, set encoder.gradient_checkpointing, keep fewer layers "
    "(encoder.n_layers), or use a larger GPU"
)


@dataclass(frozen=True)
class Task:
    """The model, data and loss of a training: everything in which the two stages differ."""

    model: nn.Module
    """Has `encoder`, `head` and `shortest`."""
    items: BaseDataset | UtteranceDataset
    n_items: int
    weight: Callable[[Batch], float]
    """Sum of the weights of a batch's items."""
    loss: LossFunction
    evaluate: Callable[[str, Callable[[], bool]], dict[str, float]]
    """Compute figures on the development set in a precision; calls its second argument regularly to ask whether to
    stop."""
    first_scores: Callable[[str], np.ndarray]
    """Compute the scores of the first items of the development set in a precision."""
    criteria: tuple[str, str]
    """The figure by which weights are chosen, and the tie-break; lower is better."""

    @property
    def encoder(self) -> Encoder:
        """The model's encoder."""
        return self.model.get_submodule("encoder")  # type: ignore[return-value]


@dataclass(frozen=True)
class Run:
    """Where and how a training runs: options that do not change its result and so are not settings."""

    device: torch.device
    workers: int = 0
    """Number of loader processes."""
    overwrite: bool = False
    """Start over."""
    compile_layers: bool = False
    """Compile the encoder's layers with torch.compile."""
    shard_layers: bool = False
    """Shard the encoder's layers over the processes."""
    tensorboard: bool = False
    """Also write the figures for TensorBoard."""
    dry_run: bool = False
    """Only report on the first step; nothing is written."""
    world: World = distributed.SINGLE_PROCESS
    """The processes that train together."""


@dataclass(frozen=True)
class Training:
    """A running training: what steps, evaluations and checkpoints share."""

    folder: Path
    task: Task
    settings: TrainSettings
    run: Run
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    state: LoopState
    dtype: torch.dtype
    """The dtype of autocast."""
    log: Callable[[str], None]
    """Append a line to train.log; does nothing except in rank 0."""
    write_metrics: Callable[[dict[str, Any]], None]
    """Append a line of figures; likewise."""

    @property
    def extra(self) -> dict[str, torch.Tensor]:
        """Further tensors of a checkpoint: the moving average."""
        return self.average.averages if self.average else {}

    @property
    def is_out_of_patience(self) -> bool:
        """Whether the last `patience` evaluations have brought no improvement."""
        patience = self.settings.patience
        return patience is not None and self.state.n_without_better >= patience


def train(folder: Path, task: Task, settings: TrainSettings, seed: int, run: Run, caught: Caught) -> dict[str, Any]:
    """Train, resuming from the newest checkpoint if there is one, and put the chosen weights into `task.model`.

    Args:
        folder: The experiment's folder, locked and recorded.
        task: What to train.
        settings: Steps, batch size, optimiser.
        seed: Seed of the order of utterances and of dropout.
        run: Where and how; the data depend neither on the loader processes nor on the number of processes.
        caught: The signal that asked to stop, if any; one that comes after the last step is left to the caller.

    Returns:
        `step` and `figures` of the evaluation whose weights were chosen; for an average, of the best one. Without
        evaluations (`eval_every: null`) there are no figures.

    Raises:
        SpoofkitError: loss or gradient is not finite, a checkpoint is damaged, disk or memory is full.
        Interrupted: after SIGINT, SIGTERM or SIGUSR1; the current step is saved.
    """
    training = _set_up(folder, task, settings, run)
    optimizer, state, optim, world = training.optimizer, training.state, settings.optim, run.world
    order, loading = load_parts(task, settings, seed, run, state.n_steps_done, settings.n_steps)
    progress = Progress(folder.name, settings, state.n_steps_done, run.device, world)
    module: nn.Module | None = None
    with progress.bar, memory_advice(OUT_OF_MEMORY), loading as batches:
        if state.pending:
            _evaluate(training, state.pending, caught)
        while (step := state.n_steps_done) < settings.n_steps and not training.is_out_of_patience:
            if module is None or step == optim.head_first_steps:
                module = _loss_module(training, is_head_first=step < optim.head_first_steps)
            factor = learning_rate_factor(step, settings.n_steps, optim)
            set_learning_rate(optimizer, factor)

            parts = progress.wait(lambda: [next(batches) for _ in range(order.n_micro_batches)])
            (weight,) = distributed.total([sum(map(task.weight, parts))], world, run.device)
            seeds = [torch_seed(seed, step, order.first_micro_batch + number) for number in range(len(parts))]
            optimizer.zero_grad(set_to_none=True)
            with distributed.joint_statistics(task.model, world):
                loss = accumulate_gradients(module, parts, weight, seeds, run.device, training.dtype, world)
            norm = distributed.clip_gradients(task.model, optim.clip_norm, world, run.shard_layers)
            (loss,) = distributed.total([loss], world, run.device)
            _require_finite(folder, step + 1, parts, loss, norm)
            optimizer.step()
            if training.average:
                training.average.update()

            line = {"step": step + 1, "loss": loss, "grad_norm": norm, "lr_factor": factor}
            _save_and_evaluate(training, line, caught)
            progress.show(line, state.last.get(task.criteria[0]), optimizer.param_groups[0]["lr"], training.log)
    if training.is_out_of_patience:
        training.log(f"stopped after step {state.n_steps_done}: no improvement in {settings.patience} evaluations")
    return _choose_weights(training)


def load_parts(
    task: Task, settings: TrainSettings, seed: int, run: Run, first_step: int, n_steps: int
) -> tuple[TrainingOrder, AbstractContextManager[Iterator[Batch]]]:
    """Return the order of this process's micro-batches from a step on, and a context manager that loads them."""
    order = TrainingOrder(
        task.n_items,
        settings.batch_size,
        seed,
        first_step,
        n_steps,
        micro_batch_size=settings.micro_batch_size,
        rank=run.world.rank,
        world_size=run.world.size,
    )
    loading = load_batches(
        task.items,
        order,
        workers=run.workers,
        shortest=int(task.model.shortest),  # type: ignore[arg-type]
        longest=task.encoder.longest,
        pin=run.device.type == "cuda",
    )
    return order, loading


def _set_up(folder: Path, task: Task, settings: TrainSettings, run: Run) -> Training:
    """Move the model to its device, resume from the newest checkpoint, and record in the folder that a run begins."""
    encoder, world = task.encoder, run.world
    dtype, reason = training_precision(run.device, settings.precision)
    if run.shard_layers:  # before the rest moves to the device, where the whole encoder may not fit
        distributed.shard_layers(encoder, world, run.device)
    with memory_advice(OUT_OF_MEMORY):
        model = task.model.to(run.device).train()
    optimizer = make_optimizer(encoder, model.get_submodule("head"), settings.optim)
    average = MovingAverage(model, settings.ema_decay) if settings.ema_decay is not None else None

    def log(message: str) -> None:
        if world.is_main:
            experiment.log(folder, message)

    state = resume.resume(folder, model, optimizer, average.averages if average else {}, world, log)
    resume.require_same_precision(folder, state, dtype, reason)
    if state.eval_precision is not None:
        require_eval_precision(state.eval_precision, run.device, run.shard_layers, begun=folder)
    resume.require_same_base(folder, state, encoder)
    n_evaluated = state.n_steps_done - (state.pending is not None)  # a pending step was saved before its evaluation
    if world.is_main:
        experiment.rewind_metrics(folder, n_evaluated)
        experiment.append_run(folder, state.n_steps_done, run.device, world.size, str(state.precision))
    write_metrics = metrics_writer(folder, n_evaluated + 1, run.tensorboard) if world.is_main else lambda line: None
    trained, total = count_parameters(model, trained=True), count_parameters(model)
    log(
        f"from step {state.n_steps_done} of {settings.n_steps} on {run.device}"
        f"{f' and {world.size - 1} more processes' if world.size > 1 else ''}, {reason}; "
        f"encoder: {encoder.loaded}; {trained:,} of {total:,} parameters trained; {task.n_items:,} items, batches of "
        f"{settings.batch_size}"
    )
    return Training(folder, task, settings, run, optimizer, average, state, dtype, log, write_metrics)


def _loss_module(training: Training, is_head_first: bool) -> nn.Module:
    """Build the loss as a module over all processes; while only the head is trained, freeze the encoder."""
    task, run = training.task, training.run
    freeze_encoder(training.optimizer, task.encoder, is_head_first)
    task.model.train()  # frozen parts are in evaluation mode, and which parts are frozen has just changed
    loss = LossModule(task.model, task.loss)
    return loss if run.shard_layers else distributed.wrap(loss, run.world, run.device)


def _require_finite(folder: Path, step: int, parts: list[Batch], loss: float, norm: float) -> None:
    """Refuse a step whose loss or gradient is not finite, naming utterances of its batch.

    Raises:
        SpoofkitError: loss or gradient is not finite.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    utt_ids = [utt_id for part in parts for utt_id in part.utt_ids]
    raise SpoofkitError(
        f"{folder}: at step {step} the loss is {loss} and the gradient norm {norm}, expected finite numbers (batch "
        f"{', '.join(utt_ids[:4])} …); lower the learning rate, or remove damaged utterances from the list, and train "
        "again with --overwrite"
    )


def _save_and_evaluate(training: Training, line: dict[str, Any], caught: Caught) -> None:
    """Finish a step: write its figures, and a checkpoint and an evaluation if they are due."""
    state, settings = training.state, training.settings
    is_last, every = line["step"] == settings.n_steps, settings.eval_every
    is_evaluated = every is not None and (is_last or line["step"] % every == 0)
    state.n_steps_done, state.pending = line["step"], line if is_evaluated else None
    if not is_evaluated:
        training.write_metrics(line)
    # Before the evaluation, which may take long, so that a run killed in it loses nothing.
    _save_if_due(training, caught)
    if is_evaluated:
        _evaluate(training, line, caught)
    elif is_last:
        training.log(f"step {line['step']}: the last, not evaluated")
        if training.run.world.is_main:
            draw_curve(training.folder, training.task.criteria[0])


def _save_if_due(training: Training, caught: Caught) -> None:
    """Write a checkpoint every `checkpoint_every` steps, before an evaluation, at the end and before a stop.

    Raises:
        Interrupted: a signal asked one of the processes to stop.
    """
    state, run = training.state, training.run
    should_stop = distributed.any_of(bool(caught), run.world, run.device)
    is_last = state.n_steps_done == training.settings.n_steps
    if not (state.pending or is_last or should_stop or state.n_steps_done % training.settings.checkpoint_every == 0):
        return
    checkpoint = resume.take(training.task.model, training.optimizer, state, training.extra)
    if run.world.is_main:
        checkpoints.save(training.folder / "checkpoints", checkpoint)
    distributed.barrier(run.world)
    if should_stop:
        raise Interrupted(
            f"{training.folder}: stopped after step {state.n_steps_done}, which is saved; run the same command to "
            "resume",
            caught.exit_code,
        )


def _evaluate(training: Training, line: dict[str, Any], caught: Caught) -> None:
    """Evaluate a step that was saved, keep its weights if they are among the best, and write its figures."""
    folder, task, run, state = training.folder, training.task, training.run, training.state

    # An evaluation of several processes is not interrupted: none may leave the others waiting.
    def should_stop() -> bool:
        return run.world.size == 1 and bool(caught)

    try:
        with training.average.in_place() if training.average else nullcontext():
            if state.eval_precision is None:
                wanted = training.settings.eval_precision
                chosen = choose_eval_precision(wanted, run.device, run.shard_layers, task.first_scores)
                state.eval_precision, reason = distributed.from_main(run.world, lambda: chosen)
                training.log(f"evaluations in {state.eval_precision}: {reason}")
            own = task.evaluate(state.eval_precision, should_stop)
            # Rank 0's figures count, so that all processes decide the same.
            figures = distributed.from_main(run.world, lambda: own)
            is_better = keep_best(
                folder, task.model, figures, line["step"], task.criteria, training.settings, state,
                run.world, training.log,
            )  # fmt: skip
    except Interrupted:
        raise Interrupted(
            f"{folder}: stopped while evaluating step {line['step']}, which is saved; run the same command to resume",
            caught.exit_code,
        ) from None
    task.model.train()
    state.last, state.pending = figures, None
    state.n_without_better = 0 if is_better else state.n_without_better + 1
    training.log(f"step {line['step']}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    training.write_metrics(line | figures)
    if run.world.is_main:
        draw_curve(folder, task.criteria[0])


def _choose_weights(training: Training) -> dict[str, Any]:
    """Put the weights that the settings choose into the model, whole, and return their step and figures."""
    state = training.state
    if training.settings.keep == "best":
        load_kept(training.folder, training.task.model, state.kept)
        chosen = {"step": state.kept[0]["step"], "figures": state.kept[0]["figures"]}
    else:
        if training.average:
            training.average.put_in_place()
        chosen = {"step": state.n_steps_done, "figures": state.last}
    if training.run.shard_layers:
        distributed.put_together(training.task.model)
    return chosen
