"""Which device and which precision: chosen for a stated reason."""

import torch

from spoofkit.errors import SpoofkitError


def choose_device(name: str) -> torch.device:
    """`auto` takes a CUDA device where there is one; any other name must exist.

    Raises:
        SpoofkitError: the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SpoofkitError(
            f"--device {name}: not to be had here ({str(error).splitlines()[0]}); try auto or cpu"
        ) from error
    return device


def training_precision(device: torch.device) -> tuple[torch.dtype, str]:
    """The autocast type for training, and the reason in words."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "bf16: the GPU supports it"
    if device.type == "cuda":
        return torch.float32, "fp32: the GPU has no bf16"
    return torch.float32, "fp32: on a CPU bf16 is not worth it or far slower"
