"""Choosing device and precision, with the reason."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from spoofkit.errors import SpoofkitError
from spoofkit.machine import cpu_name


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` takes a CUDA device if there is one.

    Raises:
        SpoofkitError: an unknown device, or one that is not available.
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
        raise SpoofkitError(f"--device {name}: not available ({reason}); use auto or cpu") from error
    return device


@contextmanager
def plain_fp32() -> Iterator[None]:
    """Compute in true fp32: otherwise CUDA's convolutions round to TF32, and a score depends on its batch."""
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


def training_precision(device: torch.device, wanted: str) -> tuple[torch.dtype, str]:
    """Return the autocast type for training, and the reason in words.

    Args:
        device: Device of the training.
        wanted: `auto`, `fp32` or `bf16`.

    Raises:
        SpoofkitError: bf16 is wanted but the hardware lacks it: emulated, it is about twenty times slower.
    """
    has_bf16, words = _has_bf16(device)
    if wanted == "fp32":
        return torch.float32, "fp32: the settings say so"
    if wanted == "bf16" and not has_bf16:
        raise SpoofkitError(f"precision: bf16 would be far slower than fp32 here ({words}); use auto")
    return (torch.bfloat16, f"bf16: {words}") if has_bf16 else (torch.float32, f"fp32: {words}")


def hardware(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def peak_gigabytes(device: torch.device) -> float:
    """Return the peak memory of this process in 10^9 bytes: on the GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _has_bf16(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return has, "the GPU has it" if has else "the GPU has no bf16"
    # AMX alone, although avx512_bf16 is faster than fp32 too (see `precision.CPU_FLAGS`): an experiment that began in
    # fp32 on such a CPU could not be resumed.
    cpu = Path("/proc/cpuinfo")
    has = cpu.is_file() and " amx_bf16 " in cpu.read_text()
    return has, "the CPU multiplies in it (amx_bf16)" if has else "the CPU has no matrix unit for it (amx_bf16)"
