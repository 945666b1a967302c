"""What a training would do, without doing it: sizes, memory, time, and what its first batch looks like."""

import time

import torch
from torch import nn

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.dataset import Batch, TrainingOrder
from spoofkit.data.loading import load_batches
from spoofkit.models.device import memory_advice, peak_gigabytes, training_precision
from spoofkit.settings import TrainSettings
from spoofkit.training.monitor import format_duration
from spoofkit.training.run import Run
from spoofkit.training.step import OUT_OF_MEMORY, Draw, Loss, Task, add_gradients


def first_step(task: Task, settings: TrainSettings, seed: int, run: Run) -> list[str]:
    """Compute the gradient of the first batch, twice, and say what was seen; nothing is written, nothing is learnt.

    Returns:
        Lines for stdout.
    """
    device = run.device
    model = task.model.to(device).train()
    encoder = model.get_submodule("encoder")
    dtype, reason = training_precision(device, settings.precision)
    order = TrainingOrder(task.n_items, settings.batch_size, seed, 0, 2, micro_batch_size=settings.micro_batch_size)
    loading = load_batches(
        task.items,
        order,
        workers=run.workers,
        shortest=int(model.shortest),  # type: ignore[arg-type]
        longest=getattr(encoder, "longest", None),
    )
    module = Loss(task)
    seconds, losses, first = [], [], []
    with memory_advice(OUT_OF_MEMORY), loading as batches:
        for step in range(2):
            started = time.perf_counter()
            parts = [next(batches) for _ in range(order.n_micro_batches)]
            weight = sum(task.weight(part) for part in parts)
            loss = add_gradients(module, parts, weight, Draw(seed, step), device, dtype)
            if step == 0:
                norm = float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
                first = [part.augmented(settings.augment) for part in parts]
            model.zero_grad(set_to_none=True)
            losses.append(loss)
            seconds.append(time.perf_counter() - started)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    n_passes = settings.n_steps * settings.batch_size / task.n_items
    return [
        f"parameters: {trained:,} of {sum(p.numel() for p in model.parameters()):,} trained; encoder: {encoder.loaded}",
        f"precision: {reason}",
        f"steps: {settings.n_steps:,} of {settings.batch_size} items, {n_passes:.2f} passes over {task.n_items:,}",
        *_describe(first),
        f"first batch: loss {losses[0]:.4f}, gradient norm {norm:.4f}",
        f"memory: {peak_gigabytes(device):.2f} GB so far, AdamW will take {8 * trained / 1e9:.2f} GB more",
        # The first step warms up.
        f"time: {seconds[1]:.2f} s a step on {device}, about {format_duration(settings.n_steps * seconds[1])} "
        "in all without evaluations",
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
