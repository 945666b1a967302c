"""One optimiser step, in one process or many: the gradients of a batch, clipped, checked and applied."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from spoofkit.data.dataset import Batch, Item
from spoofkit.data.randomness import torch_seed
from spoofkit.errors import SpoofkitError
from spoofkit.processes import World
from spoofkit.training import distributed, sharding
from spoofkit.training.run import SINGLE_PROCESS, Run

OUT_OF_MEMORY = (
    "set or lower micro_batch_size, lower crop_samples, set encoder.gradient_checkpointing, keep fewer layers "
    "(encoder.n_layers), or use a larger GPU"
)


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


class Loss(nn.Module):
    """The loss as a module: what several processes average gradients of."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model, self.task = task.model, task

    def forward(self, batch: Batch, weight: float) -> torch.Tensor:
        """Compute the loss of a part of a batch."""
        return self.task.loss(batch, weight)


@dataclass(frozen=True)
class Draw:
    """Where a process's micro-batches stand in the run: dropout is a function of it, whichever process has them."""

    seed: int
    step: int
    first_micro_batch: int = 0


def add_gradients(
    module: nn.Module,
    parts: list[Batch],
    weight: float,
    draw: Draw,
    device: torch.device,
    dtype: torch.dtype,
    world: World = SINGLE_PROCESS,
) -> float:
    """Add the gradients of the micro-batches `parts` to those of the parameters.

    Args:
        module: A `Loss`, possibly wrapped for several processes.
        parts: This process's micro-batches of the batch.
        weight: Sum of the weights of the whole batch, over all processes.
        draw: Of dropout.
        device: Of the module.
        dtype: Of autocast; float32: none.
        world: The processes among which the batch is shared.

    Returns:
        The loss of these micro-batches: their share of the batch's.
    """
    loss = 0.0
    for number, part in enumerate(parts):
        torch.manual_seed(torch_seed(draw.seed, draw.step, draw.first_micro_batch + number))
        is_last = number == len(parts) - 1
        with (
            distributed.without_averaging(module, not is_last),
            torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32),
        ):
            part_loss = module(part.to(device), weight)
            # Processes average their gradients, and this is a sum.
            (part_loss if world.size == 1 else part_loss * world.size).backward()
        loss += part_loss.item()
    return loss


def clip_gradients(model: nn.Module, largest: float, run: Run) -> float:
    """Clip the gradients to a norm of `largest`; the norm before."""
    if run.shard_layers:
        sharding.average_whole_gradients(model, run.world)
        return sharding.clip_gradients(model, largest)
    return float(nn.utils.clip_grad_norm_(model.parameters(), largest))


def freeze_encoder(optimizer: torch.optim.Optimizer, model: nn.Module, active: bool) -> None:
    """Freeze the encoder's trained parameters, or thaw them; without gradients the optimiser leaves them out."""
    in_encoder = {id(parameter) for parameter in model.get_submodule("encoder").parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(not (active and id(parameter) in in_encoder))


def require_finite(folder: Path, step: int, parts: list[Batch], loss: float, norm: float) -> None:
    """Refuse a step whose loss or gradient is not finite, naming utterances of its batch.

    Raises:
        SpoofkitError: it is not.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    utt_ids = [utt_id for part in parts for utt_id in part.utt_ids]
    raise SpoofkitError(
        f"{folder}: at step {step} the loss is {loss} and the gradient's norm {norm} (batch "
        f"{', '.join(utt_ids[:4])} …); "
        "nothing after the last checkpoint was kept: lower the learning rate or check these utterances"
    )
