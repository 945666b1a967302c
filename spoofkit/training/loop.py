"""THE training loop, used by post-training and fine-tuning alike, in one process or many.

In this order: learning rate, batch, loss, clip, step, log, checkpoint, evaluate. A run that is interrupted at any
moment and started again ends with the same weights and metrics as one that was not.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from spoofkit.data.dataset import Batch, Item, TrainingOrder
from spoofkit.data.loading import load_batches
from spoofkit.data.randomness import torch_seed
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.models.device import memory_advice, peak_gigabytes, training_precision
from spoofkit.models.lora import learnt_state
from spoofkit.processes import World
from spoofkit.settings import TrainSettings
from spoofkit.signals import Caught, caught_signals
from spoofkit.training import checkpoints, distributed, experiment, sharding
from spoofkit.training.averaging import MovingAverage, keep_best, kept_weights, load_kept
from spoofkit.training.curve import draw_curve
from spoofkit.training.optim import learning_rate_factor, make_optimizer, set_learning_rate
from spoofkit.training.run import Run
from spoofkit.training.tensorboard import open_board

OUT_OF_MEMORY = (
    "set or lower micro_batch_size, lower crop_samples, set encoder.gradient_checkpointing, keep fewer layers "
    "(encoder.n_layers), or use a larger GPU"
)
N_STEPS_TO_JUDGE = 10  # after so many, memory and time are foretold


@dataclass(frozen=True)
class Task:
    """What is trained: everything in which the two stages differ."""

    model: nn.Module
    """Has `encoder`, `head` and `shortest`."""
    items: Dataset[Item]
    n_items: int
    weight: Callable[[Batch], float]
    """Sum of the weights of a batch' items."""
    loss: Callable[[Batch, float], torch.Tensor]
    """Sum of their weighted losses, divided by the number given: the weight of the whole batch."""
    evaluate: Callable[[Callable[[], bool]], dict[str, float]]
    """Figures on the development set; asks now and then whether to stop."""
    criteria: tuple[str, str]
    """The figure by which weights are chosen, and the one that decides between equals; lower is better."""


class Step(nn.Module):
    """The loss as a module: what several processes average gradients of."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model, self.task = task.model, task

    def forward(self, batch: Batch, weight: float) -> torch.Tensor:
        """Loss of a part of a batch."""
        return self.task.loss(batch, weight)


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
    device, world = run.device, run.world
    encoder: Any = task.model.get_submodule("encoder")
    if run.shard_layers:  # before the rest moves: what does not fit must not be there whole
        sharding.shard_layers(encoder, world, device)
    with memory_advice(OUT_OF_MEMORY):
        model = task.model.to(device).train()
    optimizer = make_optimizer(encoder, model.get_submodule("head"), settings.optim)
    average = MovingAverage(model, settings.ema_decay) if settings.ema_decay is not None else None
    extra = average.averages if average else {}
    log = _logger(folder, world)
    state = _take_up(folder, model, optimizer, extra, run, log)
    dtype, reason = training_precision(device, settings.precision)
    precision = str(dtype).removeprefix("torch.")
    if state.setdefault("precision", precision) != precision:
        raise SpoofkitError(
            f"{folder}: was begun in {state['precision']}, here it would go on in {precision} ({reason}); set "
            "precision to fp32 or bf16 and begin anew with --overwrite, or go on where it was begun"
        )
    checkpoints.require_same_base(folder, state, encoder)
    if world.is_main:
        # A checkpoint with a pending line was saved before its step was evaluated.
        experiment.rewind_metrics(folder, state["n_steps_done"] - (state["pending"] is not None))
        experiment.append_run(folder, state["n_steps_done"], device, world.size, precision)
    first_step = state["n_steps_done"] + (state["pending"] is None)  # whose figures are written next
    write_board = open_board(folder, first_step) if run.tensorboard and world.is_main else None

    def write_metrics(line: dict[str, Any]) -> None:
        if world.is_main:
            experiment.append_metrics(folder, line)
            if write_board:
                write_board(line)

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    log(
        f"from step {state['n_steps_done']} of {settings.n_steps} on {device}"
        f"{f' and {world.size - 1} more processes' if world.size > 1 else ''}, {reason}; encoder: {encoder.loaded}; "
        f"{trained:,} of {total:,} parameters trained; {task.n_items:,} items, batches of {settings.batch_size}"
    )

    def evaluate(line: dict[str, Any], caught: Caught) -> None:
        # An evaluation of several processes goes on to its end: none may leave the others waiting.
        def should_stop() -> bool:
            return world.size == 1 and bool(caught)

        try:
            with average.in_place() if average else nullcontext():
                own = task.evaluate(should_stop)
                # One opinion for all: what follows from it must be the same everywhere.
                figures = distributed.from_main(world, lambda: own)
                is_better = keep_best(folder, model, figures, line["step"], task.criteria, settings, state, world, log)
        except Interrupted:
            raise Interrupted(
                f"{folder}: stopped while evaluating step {line['step']}, which is saved; "
                "the same command goes on from there",
                caught.exit_code,
            ) from None
        model.train()
        state.update(last=figures, pending=None, n_without_better=0 if is_better else state["n_without_better"] + 1)
        log(f"step {line['step']}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
        write_metrics(line | figures)
        if world.is_main:
            draw_curve(folder, task.criteria[0])

    def is_patient() -> bool:
        return settings.patience is None or state["n_without_better"] < settings.patience

    order = TrainingOrder(
        task.n_items,
        settings.batch_size,
        seed,
        state["n_steps_done"],
        settings.n_steps,
        micro_batch_size=settings.micro_batch_size,
        rank=world.rank,
        world_size=world.size,
    )
    loading = load_batches(
        task.items,
        order,
        workers=run.workers,
        shortest=int(model.shortest),  # type: ignore[arg-type]
        longest=encoder.longest,
        pin=device.type == "cuda",
    )
    progress = tqdm(
        total=settings.n_steps,
        initial=state["n_steps_done"],
        desc=folder.name,
        unit="step",
        disable=None if world.is_main else True,
    )
    step_of = Step(task)
    parallel: nn.Module | None = None
    with caught_signals() as caught, progress as bar, memory_advice(OUT_OF_MEMORY), loading as batches:
        if state["pending"]:
            evaluate(state["pending"], caught)
        seconds_waited, started, n_steps_here = 0.0, time.perf_counter(), 0
        while (step := state["n_steps_done"]) < settings.n_steps and is_patient():
            if parallel is None or step == settings.optim.head_first_steps:
                _freeze_for_head_first(optimizer, model, step < settings.optim.head_first_steps)
                model.train()  # what is frozen is in evaluation mode, and that has changed just now
                parallel = step_of if run.shard_layers else distributed.wrap(step_of, world, device)
            factor = learning_rate_factor(step, settings.n_steps, settings.optim)
            set_learning_rate(optimizer, factor)
            asked = time.perf_counter()
            parts = [next(batches) for _ in range(order.n_micro_batches)]
            seconds_waited += time.perf_counter() - asked
            (weight,) = distributed.total([sum(task.weight(part) for part in parts)], world, device)
            optimizer.zero_grad(set_to_none=True)
            loss = 0.0
            with distributed.joint_statistics(model, world):
                for number, part in enumerate(parts):
                    # Dropout is a function of (seed, step, micro-batch), whichever process has it.
                    torch.manual_seed(torch_seed(seed, step, order.first_micro_batch + number))
                    is_last = number == len(parts) - 1
                    with (
                        distributed.without_averaging(parallel, not is_last),
                        torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32),
                    ):
                        part_loss = parallel(part.to(device), weight)
                        # Processes average their gradients, and this is a sum.
                        (part_loss if world.size == 1 else part_loss * world.size).backward()
                    loss += part_loss.item()
            norm = _clip(model, settings.optim.clip_norm, run)
            (loss,) = distributed.total([loss], world, device)
            _require_finite(folder, step, parts, loss, norm)
            optimizer.step()
            if average:
                average.update()
            done = step + 1
            line = {"step": done, "loss": loss, "grad_norm": norm, "lr_factor": factor}
            is_evaluated = done == settings.n_steps or done % settings.eval_every == 0
            state.update(n_steps_done=done, pending=line if is_evaluated else None)
            if not is_evaluated:
                write_metrics(line)
            should_stop = distributed.any_of(bool(caught), world, device)
            if is_evaluated or should_stop or done % settings.checkpoint_every == 0:
                # Before the evaluation, which may take long: a run that is killed in it has lost nothing.
                _save(folder, model, optimizer, state, extra, run)
            if should_stop:
                raise Interrupted(
                    f"{folder}: stopped after step {done}, which is saved; the same command goes on from there",
                    caught.exit_code,
                )
            if is_evaluated:
                evaluate(line, caught)
            n_steps_here += 1
            if n_steps_here == N_STEPS_TO_JUDGE:
                log(_outlook(device, (time.perf_counter() - started) / n_steps_here, settings.n_steps - done))
            bar.update()
            dev = f", dev {state['last'][task.criteria[0]]:.2f}" if state["last"] else ""
            seconds = time.perf_counter() - started
            bar.set_postfix_str(
                f"loss {loss:.3f}{dev}, lr {optimizer.param_groups[0]['lr']:.1e}, "
                f"{n_steps_here * settings.batch_size / seconds:.1f} samples/s, "
                f"{seconds_waited / seconds:.0%} waiting for data"
            )
        if not is_patient():
            log(f"stopped after step {state['n_steps_done']}: {settings.patience} evaluations without a better one")
        if settings.keep == "best":
            load_kept(folder, model, state["kept"])
        elif average:
            average.put_in_place()
        if run.shard_layers:
            sharding.put_together(model)
    if settings.keep == "best":
        return {"step": state["kept"][0]["step"], "figures": state["kept"][0]["figures"]}
    return {"step": state["n_steps_done"], "figures": state["last"]}


def _take_up(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, torch.Tensor],
    run: Run,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Restore the newest checkpoint, if there is one; the state of the run."""
    path = distributed.from_main(run.world, lambda: checkpoints.newest(folder / "checkpoints", log))
    if path is None:
        return {"n_steps_done": 0, "pending": None, "kept": [], "n_without_better": 0, "last": {}}
    checkpoint = checkpoints.read(path, torch.device("cpu") if run.shard_layers else run.device)
    if run.shard_layers:
        checkpoint = sharding.shared_out(checkpoint, model, optimizer)
    kept_weights(folder, checkpoint.state["kept"])  # not in the end, after hours
    how = [{name: group[name] for name in ("fused", "foreach")} for group in optimizer.param_groups]
    checkpoints.restore(path, checkpoint, model, optimizer, extra)
    for group, own in zip(optimizer.param_groups, how, strict=True):
        group.update(own)  # which kernel computes is this run's to say, not the checkpoint's
    return checkpoint.state


def _save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    extra: dict[str, torch.Tensor],
    run: Run,
) -> None:
    """Write a checkpoint of whole tensors."""
    tensors = (learnt_state(model), optimizer.state_dict(), state, extra)
    checkpoint = checkpoints.Checkpoint(*(sharding.whole_everywhere(tensors) if run.shard_layers else tensors))
    if run.world.is_main:
        checkpoints.save(folder / "checkpoints", checkpoint)
    distributed.wait(run.world)


def _clip(model: nn.Module, largest: float, run: Run) -> float:
    """Clip the gradient; its norm before."""
    if run.shard_layers:
        sharding.average_whole_gradients(model, run.world)
        return sharding.clip_gradients(model, largest)
    return float(nn.utils.clip_grad_norm_(model.parameters(), largest))


def words_of(seconds: float) -> str:
    """A duration as people say it.

    >>> words_of(40), words_of(5000)
    ('40 s', '1.4 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _outlook(device: torch.device, seconds_a_step: float, n_steps: int) -> str:
    peak = peak_gigabytes(device)
    return (
        f"{seconds_a_step:.2f} s a step, {peak:.2f} GB at most so far; about {words_of(seconds_a_step * n_steps)} to go"
    )


def _logger(folder: Path, world: World) -> Callable[[str], None]:
    def log(message: str) -> None:
        if world.is_main:
            experiment.log(folder, message)

    return log


def _freeze_for_head_first(optimizer: torch.optim.Optimizer, model: nn.Module, active: bool) -> None:
    """While the head learns alone, the encoder's parameters have no gradient, so the optimiser leaves them out."""
    in_encoder = {id(parameter) for parameter in model.get_submodule("encoder").parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(not (active and id(parameter) in in_encoder))


def _require_finite(folder: Path, step: int, parts: list[Batch], loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    utt_ids = [utt_id for part in parts for utt_id in part.utt_ids]
    raise SpoofkitError(
        f"{folder}: at step {step + 1} the loss is {loss} and the gradient's norm {norm} (batch "
        f"{', '.join(utt_ids[:4])} …); "
        "nothing after the last checkpoint was kept: lower the learning rate or check these utterances"
    )
