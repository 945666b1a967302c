"""THE training loop, used by post-training and fine-tuning alike.

In this order: learning rate, batch, loss, clip, step, log, checkpoint, evaluate. A run that is interrupted at any
moment and started again ends with the same weights and metrics as one that was not.
"""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from spoofkit.config import TrainSettings
from spoofkit.data.dataset import Batch, Item, TrainingOrder
from spoofkit.data.loading import load_batches
from spoofkit.data.randomness import torch_seed
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.models.device import memory_advice, training_precision
from spoofkit.training import experiment
from spoofkit.training.curve import draw_curve
from spoofkit.training.optim import learning_rate_factor, make_optimizer, set_learning_rate


@dataclass(frozen=True)
class Task:
    """What is trained: everything in which the two stages differ."""

    model: nn.Module
    """Has `encoder`, `head` and `shortest`."""
    items: Dataset[Item]
    n_items: int
    loss: Callable[[Batch], torch.Tensor]
    evaluate: Callable[[Callable[[], bool]], dict[str, float]]
    """Figures on the development set; asks now and then whether to stop. Lower `criterion` is better."""
    criterion: str


def train(
    folder: Path, task: Task, settings: TrainSettings, *, seed: int, device: torch.device, workers: int
) -> dict[str, Any]:
    """Train, from the newest checkpoint on if there is one, and leave the chosen weights in `task.model`.

    Args:
        folder: The experiment's folder, locked and opened.
        task: What to train.
        settings: Steps, batch size, optimiser.
        seed: Of the order of utterances and of dropout.
        device: Where to train.
        workers: Loader processes; the data do not depend on it.

    Returns:
        `step` and `figures` of the evaluation whose weights were chosen.

    Raises:
        SpoofkitError: loss or gradient is not finite, a checkpoint is damaged, disk or memory is full.
        Interrupted: after SIGINT or SIGTERM; the step at work is saved.
    """
    model = task.model.to(device).train()
    encoder: Any = model.get_submodule("encoder")
    optimizer = make_optimizer(encoder, model.get_submodule("head"), settings.optim)
    state = experiment.load_newest_checkpoint(folder, model, optimizer, device)
    state = state or {"n_steps_done": 0, "pending": None, "best_step": 0, "best": {}, "last": {}}
    # A checkpoint with a pending line was saved before its step was evaluated.
    experiment.rewind_metrics(folder, state["n_steps_done"] - (state["pending"] is not None))
    dtype, reason = training_precision(device, settings.precision)
    precision = str(dtype).removeprefix("torch.")
    if state.setdefault("precision", precision) != precision:
        raise SpoofkitError(
            f"{folder}: was begun in {state['precision']}, here it would go on in {precision} ({reason}); set "
            "precision to fp32 or bf16 and begin anew with --overwrite, or go on where it was begun"
        )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    experiment.log(
        folder,
        f"from step {state['n_steps_done']} of {settings.n_steps} on {device}, {reason}; encoder: {encoder.loaded}; "
        f"{trained:,} of {total:,} "
        f"parameters trained; {task.n_items:,} items, batches of {settings.batch_size}",
    )

    def evaluate(line: dict[str, Any], should_stop: Callable[[], bool]) -> None:
        try:
            figures = task.evaluate(should_stop)
        except Interrupted:
            raise Interrupted(
                f"{folder}: stopped while evaluating step {line['step']}, which is saved; "
                "the same command goes on from there"
            ) from None
        model.train()
        state["last"] = figures
        if not state["best"] or figures[task.criterion] < state["best"][task.criterion]:
            state.update(best=figures, best_step=line["step"])
            experiment.save_best(folder, model)
        state["pending"] = None
        experiment.log(folder, f"step {line['step']}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
        experiment.append_metrics(folder, line | figures)
        draw_curve(folder, task.criterion)

    order = TrainingOrder(task.n_items, settings.batch_size, seed, state["n_steps_done"], settings.n_steps)
    loading = load_batches(
        task.items,
        order,
        workers=workers,
        shortest=int(model.shortest),  # type: ignore[arg-type]
        longest=encoder.longest,
        pin=device.type == "cuda",
    )
    out_of_memory = memory_advice(
        "lower batch_size or crop_samples, set encoder.gradient_checkpointing, keep fewer layers (encoder.n_layers), "
        "or use a larger GPU"
    )
    progress = tqdm(total=settings.n_steps, initial=state["n_steps_done"], desc=folder.name, unit="step")
    with _stop_signals() as stop, progress as bar, out_of_memory, loading as batches:
        if state["pending"]:
            evaluate(state["pending"], stop.is_set)
        for step, batch in enumerate(batches, start=state["n_steps_done"]):
            factor = learning_rate_factor(step, settings.n_steps, settings.optim)
            set_learning_rate(optimizer, factor)
            torch.manual_seed(torch_seed(seed, step))  # dropout is a function of (seed, step)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                loss = task.loss(batch.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.optim.clip_norm)
            _require_finite(folder, step, batch, loss.item(), norm.item())
            optimizer.step()
            done = step + 1
            line = {"step": done, "loss": loss.item(), "grad_norm": norm.item(), "lr_factor": factor}
            is_evaluated = done == settings.n_steps or done % settings.eval_every == 0
            state.update(n_steps_done=done, pending=line if is_evaluated else None)
            if not is_evaluated:
                experiment.append_metrics(folder, line)
            if is_evaluated or stop.is_set() or done % settings.checkpoint_every == 0:
                # Before the evaluation, which may take long: a run that is killed in it has lost nothing.
                experiment.save_checkpoint(folder, model, optimizer, state)
            if stop.is_set():
                raise Interrupted(
                    f"{folder}: stopped after step {done}, which is saved; the same command goes on from there"
                )
            if is_evaluated:
                evaluate(line, stop.is_set)
            bar.update()
            dev = f", dev {state['last'][task.criterion]:.2f}" if state["last"] else ""
            bar.set_postfix_str(f"loss {loss.item():.3f}{dev}")
    if settings.keep == "best":
        experiment.load_best(folder, model)
        return {"step": state["best_step"], "figures": state["best"]}
    return {"step": state["n_steps_done"], "figures": state["last"]}


def _require_finite(folder: Path, step: int, batch: Batch, loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise SpoofkitError(
        f"{folder}: at step {step + 1} the loss is {loss} and the gradient's norm {norm} (batch "
        f"{', '.join(batch.utt_ids[:4])} …); "
        "nothing after the last checkpoint was kept: lower the learning rate or check these utterances"
    )


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that the step at work is finished and saved first."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
