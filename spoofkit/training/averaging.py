"""Averages of weights: a moving average over the steps, and the mean of the best evaluations.

checkpoints/best/step_0000500.safetensors   the weights of one of the best evaluations so far
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from spoofkit.files import atomic_path
from spoofkit.models.average import mean_of
from spoofkit.models.lora import Pair, merge_pairs, pairs_of, remove_lora, scale_of
from spoofkit.processes import World
from spoofkit.settings import TrainSettings
from spoofkit.training import checkpoints
from spoofkit.training.distributed import from_main
from spoofkit.training.resume import load_weights, whole_weights

TIE_BREAK_DIGITS = 6


class MovingAverage:
    """Exponential moving average of a model's trained parameters, starting from their current values.

    average = decay * average + (1 - decay) * parameter, after every step. Buffers (running statistics) are not
    averaged: they are averages already.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages; called after each optimiser step."""
        for name, parameter in self.parameters.items():
            self.averages[name].lerp_(parameter, 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averages for the length of the `with` block."""
        self.put_in_place()
        try:
            yield
        finally:
            self.put_in_place()

    @torch.no_grad()
    def put_in_place(self) -> None:
        """Swap the model's parameters and the averages."""
        for name, parameter in self.parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(own)


def keep_best(
    folder: Path,
    model: nn.Module,
    figures: dict[str, float],
    step: int,
    criteria: tuple[str, str],
    settings: TrainSettings,
    state: checkpoints.LoopState,
    world: World,
    log: Callable[[str], None],
) -> bool:
    """Keep the weights of an evaluation if it is among the best; return whether it is the best of all.

    `state.kept` lists the best first, sorted by the first criterion (lower is better), then the second, then the step.
    """
    new = {"step": step, "figures": figures}
    before = state.kept[:1]
    kept = sorted([*state.kept, new], key=lambda entry: (*ranking(entry["figures"], criteria), entry["step"]))
    kept = kept[: settings.average_best]
    if new in kept:
        weights = whole_weights(model)
        path = checkpoints.best_path(folder / "checkpoints", step)
        new["sha256"] = from_main(world, lambda: _write(path, weights))
    state.kept = kept
    if before and before[0]["figures"][criteria[0]] == figures[criteria[0]]:
        equal, best = before[0]["step"], kept[0]["step"]
        log(f"{criteria[0]} is the same as at step {equal}: step {best} is best by {criteria[1]}")
    return kept[0] is new


def ranking(figures: dict[str, float], criteria: tuple[str, str]) -> tuple[float, float]:
    """Return the figures by which evaluations are compared; lower is better.

    The second figure is rounded, so that a model that has converged does not improve by rounding errors. It is missing
    in the state of a run that an older version began; such an evaluation ranks last among its equals.
    """
    first, second = criteria
    return figures[first], round(figures.get(second, math.inf), TIE_BREAK_DIGITS)


def _write(path: Path, weights: dict[str, torch.Tensor]) -> str:
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def load_kept(folder: Path, model: nn.Module, kept: list[dict[str, Any]]) -> None:
    """Put the mean of the kept weights into the model; with several adapters, merge their mean.

    Raises:
        SpoofkitError: one of them is missing or damaged.
    """
    paths = checkpoints.kept_weights(folder, kept)
    encoder: Any = getattr(model, "encoder", None)
    if len(paths) == 1 or getattr(encoder, "lora", None) is None:
        load_weights(model, mean_of(paths))
        return
    adapters: list[dict[str, Pair]] = []
    for path in paths:
        load_weights(model, mean_of([path]))
        adapters.append({name: (a.clone(), b.clone()) for name, (a, b) in pairs_of(encoder.network).items()})
    load_weights(model, mean_of(paths))  # for the head
    scale = scale_of(encoder.network)
    remove_lora(encoder.network)
    merge_pairs(encoder.network, adapters, scale)
    encoder.lora = encoder.base = None
