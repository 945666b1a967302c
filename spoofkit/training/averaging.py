"""Weights that are averages: a moving one over the steps, and the mean of the best evaluations.

checkpoints/best/step_0000500.safetensors   the weights of one of the best evaluations so far
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from spoofkit.files import atomic_path
from spoofkit.models.average import mean_of
from spoofkit.settings import TrainSettings
from spoofkit.training import checkpoints
from spoofkit.training.distributed import World, wait
from spoofkit.training.sharding import as_sharded, whole_everywhere


class MovingAverage:
    """Exponential moving average of a model's trained parameters; starts from what they are.

    average = decay * average + (1 - decay) * parameter, after every step. Buffers (running statistics) are not
    averaged: they are averages already.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """After a step of the optimiser."""
        for name, parameter in self.parameters.items():
            self.averages[name].lerp_(parameter, 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averages for the length of the `with` block."""
        self.put_in_place()
        try:
            yield
        finally:
            self.put_in_place()

    @torch.no_grad()
    def put_in_place(self) -> None:
        """Exchange the model's parameters and the averages."""
        for name, parameter in self.parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(own)


def keep_best(
    folder: Path,
    model: nn.Module,
    figures: dict[str, float],
    step: int,
    criterion: str,
    settings: TrainSettings,
    state: dict[str, Any],
    world: World,
) -> bool:
    """Keep the weights of an evaluation if it is among the best; says whether it is the best of all.

    `state["kept"]` lists step and figures of those kept, the best first; of equals the earlier.
    """
    kept = [*state["kept"], {"step": step, "figures": figures}]
    kept.sort(key=lambda entry: (entry["figures"][criterion], entry["step"]))
    kept = kept[: settings.average_best]
    is_kept = any(entry["step"] == step for entry in kept)
    weights = whole_everywhere(model.state_dict()) if is_kept else {}
    if world.is_main and is_kept:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        path = checkpoints.best_path(folder / "checkpoints", step)
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(save(tensors))
    wait(world)
    state["kept"] = kept
    return bool(kept[0]["step"] == step)


def load_kept(folder: Path, model: nn.Module, steps: list[int]) -> None:
    """Put the mean of the kept weights into the model.

    Raises:
        SpoofkitError: one of them is missing or damaged.
    """
    paths = [checkpoints.best_path(folder / "checkpoints", step) for step in steps]
    model.load_state_dict(as_sharded(mean_of(paths), model), strict=True)
