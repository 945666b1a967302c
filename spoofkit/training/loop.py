"""THE training loop, used by post-training and fine-tuning alike, in one process or many.

In this order: learning rate, batch, loss, clip, step, log, checkpoint, evaluate. A run that is interrupted at any
moment and started again ends with the same weights and metrics as one that was not.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from spoofkit.data.dataset import Batch, TrainingOrder
from spoofkit.data.loading import load_batches
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.models.device import memory_advice, training_precision
from spoofkit.models.encoder import Encoder
from spoofkit.models.lora import learnt_state
from spoofkit.settings import TrainSettings
from spoofkit.signals import Caught, caught_signals
from spoofkit.training import checkpoints, distributed, experiment, sharding
from spoofkit.training.averaging import MovingAverage, keep_best, kept_weights, load_kept
from spoofkit.training.checkpoints import LoopState
from spoofkit.training.monitor import N_STEPS_TO_JUDGE, Pace, draw_curve, open_board
from spoofkit.training.optim import learning_rate_factor, make_optimizer, set_learning_rate
from spoofkit.training.run import Run
from spoofkit.training.step import (
    OUT_OF_MEMORY,
    Draw,
    Loss,
    Task,
    add_gradients,
    clip_gradients,
    freeze_encoder,
    require_finite,
)


@dataclass(frozen=True)
class Training:
    """A training under way: what steps, evaluations and checkpoints share."""

    folder: Path
    task: Task
    settings: TrainSettings
    seed: int
    run: Run
    model: nn.Module
    """That of the task, on the device of the run."""
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    state: LoopState
    dtype: torch.dtype
    """Of autocast."""

    @property
    def encoder(self) -> Encoder:
        """The model's encoder."""
        return self.model.get_submodule("encoder")  # type: ignore[return-value]

    @property
    def extra(self) -> dict[str, torch.Tensor]:
        """Further tensors of a checkpoint: the moving average."""
        return self.average.averages if self.average else {}

    def log(self, message: str) -> None:
        """Log a line, in rank 0."""
        if self.run.world.is_main:
            experiment.log(self.folder, message)


def train(folder: Path, task: Task, settings: TrainSettings, seed: int, run: Run) -> dict[str, Any]:
    """Train, from the newest checkpoint on if there is one, and leave the chosen weights in `task.model`.

    Args:
        folder: The experiment's folder, opened and recorded.
        task: What to train.
        settings: Steps, batch size, optimiser.
        seed: Of the order of utterances and of dropout.
        run: Where and how; the data depend neither on loader processes nor on the number of processes.

    Returns:
        `step` and `figures` of the evaluation whose weights were chosen (of an average: of the best one).

    Raises:
        SpoofkitError: loss or gradient is not finite, a checkpoint is damaged, disk or memory is full.
        Interrupted: after SIGINT, SIGTERM or SIGUSR1; the step at work is saved.
    """
    training = _set_up(folder, task, settings, seed, run)
    _take_steps(training)
    return _choose_weights(training)


def _take_steps(training: Training) -> None:
    """The loop: until the last step, or until evaluations have not become better for long."""
    task, settings, run, state = training.task, training.settings, training.run, training.state
    order = TrainingOrder(
        task.n_items,
        settings.batch_size,
        training.seed,
        state.n_steps_done,
        settings.n_steps,
        micro_batch_size=settings.micro_batch_size,
        rank=run.world.rank,
        world_size=run.world.size,
    )
    loading = load_batches(
        task.items,
        order,
        workers=run.workers,
        shortest=int(training.model.shortest),  # type: ignore[arg-type]
        longest=training.encoder.longest,
        pin=run.device.type == "cuda",
    )
    write_metrics = _metrics_writer(training)
    with caught_signals() as caught, _progress_bar(training) as bar, memory_advice(OUT_OF_MEMORY), loading as batches:
        if state.pending:
            _evaluate(training, state.pending, caught, write_metrics)
        module: nn.Module | None = None
        pace = Pace(settings.batch_size)
        while (step := state.n_steps_done) < settings.n_steps and _is_patient(training):
            if module is None or step == settings.optim.head_first_steps:
                module = _loss_module(training, is_head_first=step < settings.optim.head_first_steps)
            parts = pace.wait(lambda: [next(batches) for _ in range(order.n_micro_batches)])
            line = _take_step(training, module, parts, order.first_micro_batch)
            is_evaluated = line["step"] == settings.n_steps or line["step"] % settings.eval_every == 0
            state.n_steps_done, state.pending = line["step"], line if is_evaluated else None
            if not is_evaluated:
                write_metrics(line)
            # Before the evaluation, which may take long: a run that is killed in it has lost nothing.
            _save_if_due(training, caught)
            if is_evaluated:
                _evaluate(training, line, caught, write_metrics)
            pace.n_steps += 1
            if pace.n_steps == N_STEPS_TO_JUDGE:
                training.log(pace.outlook(run.device, settings.n_steps - state.n_steps_done))
            bar.update()
            dev = f", dev {state.last[task.criteria[0]]:.2f}" if state.last else ""
            rate = training.optimizer.param_groups[0]["lr"]
            bar.set_postfix_str(f"loss {line['loss']:.3f}{dev}, lr {rate:.1e}, {pace.in_words()}")
    if not _is_patient(training):
        training.log(f"stopped after step {state.n_steps_done}: {settings.patience} evaluations without a better one")


def _take_step(training: Training, module: nn.Module, parts: list[Batch], first_micro_batch: int) -> dict[str, Any]:
    """Take one optimiser step with a batch; its line of figures."""
    settings, run, step = training.settings, training.run, training.state.n_steps_done
    factor = learning_rate_factor(step, settings.n_steps, settings.optim)
    set_learning_rate(training.optimizer, factor)
    weights = [sum(training.task.weight(part) for part in parts)]
    (weight,) = distributed.total(weights, run.world, run.device)
    training.optimizer.zero_grad(set_to_none=True)
    draw = Draw(training.seed, step, first_micro_batch)
    with distributed.joint_statistics(training.model, run.world):
        loss = add_gradients(module, parts, weight, draw, run.device, training.dtype, run.world)
    norm = clip_gradients(training.model, settings.optim.clip_norm, run)
    (loss,) = distributed.total([loss], run.world, run.device)
    require_finite(training.folder, step + 1, parts, loss, norm)
    training.optimizer.step()
    if training.average:
        training.average.update()
    return {"step": step + 1, "loss": loss, "grad_norm": norm, "lr_factor": factor}


def _set_up(folder: Path, task: Task, settings: TrainSettings, seed: int, run: Run) -> Training:
    """Put the model on its device, resume from the newest checkpoint, and note in the folder that a run begins."""
    encoder: Any = task.model.get_submodule("encoder")
    if run.shard_layers:  # before the rest moves: what does not fit must not be there whole
        sharding.shard_layers(encoder, run.world, run.device)
    with memory_advice(OUT_OF_MEMORY):
        model = task.model.to(run.device).train()
    optimizer = make_optimizer(encoder, model.get_submodule("head"), settings.optim)
    average = MovingAverage(model, settings.ema_decay) if settings.ema_decay is not None else None
    dtype, reason = training_precision(run.device, settings.precision)
    training = Training(folder, task, settings, seed, run, model, optimizer, average, LoopState(), dtype)
    training = replace(training, state=_resume(training))
    state = training.state
    _require_same_precision(training, reason)
    checkpoints.require_same_base(folder, state, encoder)
    if run.world.is_main:
        # A checkpoint with a pending line was saved before its step was evaluated.
        experiment.rewind_metrics(folder, state.n_steps_done - (state.pending is not None))
        experiment.append_run(folder, state.n_steps_done, run.device, run.world.size, str(state.precision))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    training.log(
        f"from step {state.n_steps_done} of {settings.n_steps} on {run.device}"
        f"{f' and {run.world.size - 1} more processes' if run.world.size > 1 else ''}, {reason}; "
        f"encoder: {encoder.loaded}; {trained:,} of {total:,} parameters trained; {task.n_items:,} items, batches of "
        f"{settings.batch_size}"
    )
    return training


def _resume(training: Training) -> LoopState:
    """Restore the newest checkpoint, if there is one; the state of the run."""
    folder, run, optimizer = training.folder, training.run, training.optimizer
    path = distributed.from_main(run.world, lambda: checkpoints.newest(folder / "checkpoints", training.log))
    if path is None:
        return LoopState()
    checkpoint = checkpoints.read(path, torch.device("cpu") if run.shard_layers else run.device)
    if run.shard_layers:
        checkpoint = sharding.shared_out(checkpoint, training.model, optimizer)
    kept_weights(folder, checkpoint.state.kept)  # not in the end, after hours
    how = [{name: group[name] for name in ("fused", "foreach")} for group in optimizer.param_groups]
    checkpoints.restore(path, checkpoint, training.model, optimizer, training.extra)
    for group, own in zip(optimizer.param_groups, how, strict=True):
        group.update(own)  # which kernel computes is this run's to say, not the checkpoint's
    return checkpoint.state


def _require_same_precision(training: Training, reason: str) -> None:
    """Note the precision of a run that begins; refuse to resume it in another."""
    state, precision = training.state, str(training.dtype).removeprefix("torch.")
    state.precision = state.precision or precision
    if state.precision != precision:
        raise SpoofkitError(
            f"{training.folder}: was begun in {state.precision}, here it would resume in {precision} ({reason}); set "
            "precision to fp32 or bf16 and start again with --overwrite, or resume where it was begun"
        )


def _loss_module(training: Training, is_head_first: bool) -> nn.Module:
    """The loss as a module of all processes; while the head learns alone, the encoder is frozen."""
    freeze_encoder(training.optimizer, training.model, is_head_first)
    training.model.train()  # what is frozen is in evaluation mode, and that has changed just now
    loss, run = Loss(training.task), training.run
    return loss if run.shard_layers else distributed.wrap(loss, run.world, run.device)


def _is_patient(training: Training) -> bool:
    patience = training.settings.patience
    return patience is None or training.state.n_without_better < patience


def _save_if_due(training: Training, caught: Caught) -> None:
    """Write a checkpoint every `checkpoint_every` steps, before an evaluation and before a stop.

    Raises:
        Interrupted: a signal asked one of the processes to stop.
    """
    state, run = training.state, training.run
    should_stop = distributed.any_of(bool(caught), run.world, run.device)
    if not (state.pending or should_stop or state.n_steps_done % training.settings.checkpoint_every == 0):
        return
    tensors = (learnt_state(training.model), training.optimizer.state_dict(), training.extra)
    weights, moments, extra = sharding.whole_everywhere(tensors) if run.shard_layers else tensors
    if run.world.is_main:
        checkpoints.save(training.folder / "checkpoints", checkpoints.Checkpoint(weights, moments, state, extra))
    distributed.wait(run.world)
    if should_stop:
        raise Interrupted(
            f"{training.folder}: stopped after step {state.n_steps_done}, which is saved; the same command resumes "
            "from there",
            caught.exit_code,
        )


def _evaluate(
    training: Training, line: dict[str, Any], caught: Caught, write_metrics: Callable[[dict[str, Any]], None]
) -> None:
    """Evaluate a step that was saved, keep its weights if they are among the best, and write its figures."""
    folder, run, state, criteria = training.folder, training.run, training.state, training.task.criteria
    model, settings = training.model, training.settings

    # An evaluation of several processes runs to its end: none may leave the others waiting.
    def should_stop() -> bool:
        return run.world.size == 1 and bool(caught)

    try:
        with training.average.in_place() if training.average else nullcontext():
            own = training.task.evaluate(should_stop)
            # One opinion for all: what follows from it must be the same everywhere.
            figures = distributed.from_main(run.world, lambda: own)
            is_better = keep_best(
                folder, model, figures, line["step"], criteria, settings, state, run.world, training.log
            )
    except Interrupted:
        raise Interrupted(
            f"{folder}: stopped while evaluating step {line['step']}, which is saved; the same command resumes from "
            "there",
            caught.exit_code,
        ) from None
    model.train()
    state.last, state.pending = figures, None
    state.n_without_better = 0 if is_better else state.n_without_better + 1
    training.log(f"step {line['step']}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    write_metrics(line | figures)
    if run.world.is_main:
        draw_curve(folder, criteria[0])


def _choose_weights(training: Training) -> dict[str, Any]:
    """Put the weights into the model that the settings choose, whole; the step and the figures that they have."""
    state = training.state
    if training.settings.keep == "best":
        load_kept(training.folder, training.model, state.kept)
        chosen = {"step": state.kept[0]["step"], "figures": state.kept[0]["figures"]}
    else:
        if training.average:
            training.average.put_in_place()
        chosen = {"step": state.n_steps_done, "figures": state.last}
    if training.run.shard_layers:
        sharding.put_together(training.model)
    return chosen


def _metrics_writer(training: Training) -> Callable[[dict[str, Any]], None]:
    """What writes a line of figures to metrics.jsonl and TensorBoard, in rank 0."""
    folder, run, state = training.folder, training.run, training.state
    if not run.world.is_main:
        return lambda line: None
    first_step = state.n_steps_done + (state.pending is None)  # whose figures are written next
    write_board = open_board(folder, first_step) if run.tensorboard else None

    def write(line: dict[str, Any]) -> None:
        experiment.append_metrics(folder, line)
        if write_board:
            write_board(line)

    return write


def _progress_bar(training: Training) -> "tqdm[Any]":
    return tqdm(
        total=training.settings.n_steps,
        initial=training.state.n_steps_done,
        desc=training.folder.name,
        unit="step",
        disable=None if training.run.world.is_main else True,
    )
