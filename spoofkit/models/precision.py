"""Precisions in which a model scores: which ones a device has, and models that multiply in them.

Only the products of the encoder's layers are ever less than fp32. In fp32 stay the normalisation of the waveform,
spectrograms, norms and their statistics, heads with their poolings and softmax, and the output layer.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from spoofkit.errors import SpoofkitError
from spoofkit.models.device import plain_fp32
from spoofkit.models.encoder import Encoder

CPU_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
"""Units that were measured to score faster in bf16 (benchmarks/RESULTS.md). `auto` in training takes AMX alone: what
began in fp32 on another CPU could not be resumed."""
TF32_CAPABILITY = (8, 0)

Model = TypeVar("Model")


def faster_precisions(device: torch.device) -> tuple[str, ...]:
    """Return the precisions in which a device multiplies faster than in fp32, the fastest first."""
    if device.type == "cuda":
        has = {
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
            "tf32": torch.cuda.get_device_capability(device) >= TF32_CAPABILITY,
        }
        return tuple(name for name, is_there in has.items() if is_there)
    return ("bf16",) if CPU_FLAGS & _cpu_flags() else ()


def require_precision(precision: str, device: torch.device) -> str:
    """Refuse a precision that a device does not have.

    Returns:
        A warning if scoring in it is slow; otherwise empty.

    Raises:
        SpoofkitError: tf32 where the device has no such products.
    """
    if precision in ("fp32", *faster_precisions(device)):
        return ""
    if precision == "tf32":
        found = "a CPU" if device.type == "cpu" else "a GPU without it"
        raise SpoofkitError(
            f"--precision tf32: found {found}, expected an NVIDIA GPU of compute capability 8.0 or higher; use fp32 or "
            "auto"
        )
    return "--precision bf16: this device has no bf16 products, so scoring is 20 to 60 times slower than in fp32"


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Multiply what is not bf16 in fp32, or in tf32 on a GPU if `precision` says so."""
    with plain_fp32():
        if precision != "tf32":
            yield
            return
        torch.backends.cuda.matmul.allow_tf32 = True  # restored by `plain_fp32`
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            yield


def with_bf16_products(model: Model, encoder: Encoder) -> Model:
    """Copy a model so that its encoder multiplies in bf16 and returns fp32; all other weights are shared.

    The weights of linear layers and convolutions are rounded once, instead of in every pass. It is for scoring alone,
    and so in evaluation mode, also if the model is being trained.

    Args:
        model: Contains `encoder`: a detector, a frame model, or the encoder itself.
        encoder: The encoder; it is not changed.
    """
    # deepcopy takes what the memo has under an object's id instead of copying it.
    parameters = (parameter for module in _modules_of(model, encoder) for parameter in module.parameters())
    memo: dict[int, Any] = {id(parameter): parameter for parameter in parameters}
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and not is_parametrized(module):
            for parameter in module.parameters(recurse=False):
                memo[id(parameter)] = nn.Parameter(parameter.detach().bfloat16(), requires_grad=False)
    fast = copy.deepcopy(model, memo)
    inner: Encoder = memo[id(encoder)]
    inner.forward = _in_bf16(inner.forward)  # type: ignore[method-assign]
    for module in _modules_of(fast, inner):
        module.eval()
    return fast


def _in_bf16(forward: Callable[..., tuple[list[torch.Tensor], torch.Tensor]]) -> Callable[..., Any]:
    def run(wave_BS: torch.Tensor, *arguments: Any, **named: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
        with torch.autocast(wave_BS.device.type, torch.bfloat16):
            layers, is_frame_BT = forward(wave_BS, *arguments, **named)
        return [layer_BTD.float() for layer_BTD in layers], is_frame_BT

    return run


def _modules_of(model: Any, encoder: Encoder) -> list[nn.Module]:
    parts = [model] if isinstance(model, nn.Module) else vars(model).values()
    return [*(part for part in parts if isinstance(part, nn.Module)), encoder]


def _cpu_flags() -> frozenset[str]:
    """Return the instruction sets of the CPU as Linux names them; empty elsewhere."""
    cpu = Path("/proc/cpuinfo")
    return frozenset(cpu.read_text().split()) if cpu.is_file() else frozenset()
