"""Encoders that do not fit on one GPU: each process keeps a share of every layer (FSDP2, arXiv:2304.11277).

Only the transformer layers are sharded, which is where nearly all parameters are; stem, projection and head stay whole
in every process, and their gradients are averaged here. Checkpoints hold whole tensors, so a run may resume with
another number of processes, sharded or not.
"""

from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from spoofkit.errors import SpoofkitError
from spoofkit.models.encoder import Encoder
from spoofkit.models.wave_encoder import WavLMEncoder
from spoofkit.processes import World
from spoofkit.training.checkpoints import Checkpoint


def require_shardable(encoder: Encoder, world: World) -> None:
    """Refuse what cannot be sharded.

    Raises:
        SpoofkitError: one process only, or a family whose layers cannot be sharded.
    """
    if not world.has_group:
        raise SpoofkitError("--shard-layers: shares layers between processes, found one; start several with torchrun")
    if isinstance(encoder, WavLMEncoder):
        raise SpoofkitError(
            "--shard-layers: not for WavLM, whose layers are called part by part; its largest fits on one GPU"
        )
    if encoder.lora is not None:
        raise SpoofkitError(
            "--shard-layers: does not go with encoder.lora, whose frozen weights have neither gradients nor moments; "
            "leave it out"
        )
    if not len(encoder.layers):
        raise SpoofkitError("--shard-layers: this encoder has no layers; leave it out")


def shard_layers(encoder: Encoder, world: World, device: torch.device) -> None:
    """Replace the parameters of the encoder's layers by each process's share of them, on `device`."""
    mesh = init_device_mesh(device.type, (world.size,))
    for layer in encoder.layers:
        # Said outright: a layer that has no sharded module above it would otherwise stay whole after its forward pass.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def average_whole_gradients(model: nn.Module, world: World) -> None:
    """Average the gradients of what is not sharded; FSDP does it for what is."""
    for parameter in model.parameters():
        if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
            dist.all_reduce(parameter.grad)
            parameter.grad /= world.size


def clip_gradients(model: nn.Module, largest: float) -> float:
    """As torch's clip_grad_norm_, over whole and sharded gradients together; returns the norm before."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    squares = [whole(torch.linalg.vector_norm(gradient)).square() for gradient in gradients]
    norm = float(torch.stack(squares).sum().sqrt())
    factor = min(1.0, largest / (norm + 1e-6))
    for gradient in gradients:
        gradient.mul_(factor)
    return norm


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor, sharded or not; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_everywhere(value: Any) -> Any:
    """The same for all tensors in dictionaries and lists."""
    if isinstance(value, dict):
        return {key: whole_everywhere(inside) for key, inside in value.items()}
    if isinstance(value, (list, tuple)):
        return [whole_everywhere(inside) for inside in value]
    return whole(value) if isinstance(value, torch.Tensor) else value


def shared_out(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    """A checkpoint's tensors, sharded as the parameters that they belong to."""
    in_order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {
        number: {
            name: _like(value, in_order[number]) if isinstance(value, torch.Tensor) else value
            for name, value in state.items()
        }
        for number, state in checkpoint.optimizer["state"].items()
    }
    return Checkpoint(
        as_sharded(checkpoint.model, model),
        checkpoint.optimizer | {"state": states},
        checkpoint.state,
        as_sharded(checkpoint.extra, model),
    )


def as_sharded(tensors: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Whole tensors, sharded where the model's parameters of the same name are."""
    parameters = dict(model.named_parameters())
    return {name: _like(tensor, parameters.get(name)) for name, tensor in tensors.items()}


def _like(tensor: torch.Tensor, parameter: torch.Tensor | None) -> torch.Tensor:
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor  # the latter: counts of steps, or a mistake that loading will name
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def put_together(model: nn.Module) -> None:
    """Make every parameter whole again, in every process, in the CPU's memory: for what is written at the end."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            share: torch.Tensor | None = parameter
            if isinstance(share, DTensor):
                module._parameters[name] = nn.Parameter(share.full_tensor().cpu(), share.requires_grad)
