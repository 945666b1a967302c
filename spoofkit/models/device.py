"""Which device and which precision: chosen for a stated reason."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spoofkit.errors import SpoofkitError


def choose_device(name: str) -> torch.device:
    """`auto` takes a CUDA device where there is one; any other name must exist.

    Raises:
        SpoofkitError: not a device we know, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise SpoofkitError(f"--device {name}: unknown device, expected auto, cpu, cuda, or cuda:N")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SpoofkitError(f"--device {name}: not to be had here ({reason}); try auto or cpu") from error
    return device


@contextmanager
def plain_fp32() -> Iterator[None]:
    """Compute in fp32 proper: CUDA's convolutions otherwise round to TF32, and a score would move with its batch."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turn an out-of-memory error into a sentence that ends in `advice`."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in reason:
            raise SpoofkitError(f"out of memory ({reason}); {advice}") from error
        raise


def training_precision(device: torch.device) -> tuple[torch.dtype, str]:
    """The autocast type for training, and the reason in words."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "bf16: the GPU supports it"
    if device.type == "cuda":
        return torch.float32, "fp32: the GPU has no bf16"
    return torch.float32, "fp32: on a CPU bf16 is not worth it or far slower"
