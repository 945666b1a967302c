"""Low-rank adapters (LoRA, arXiv:2106.09685) on an encoder's linear layers, by the library peft (extra `lora`).

The weights themselves are frozen; what is saved is a plain Hugging Face folder with the adapters merged in.
"""

import re
from typing import Any

import torch
from torch import nn

from spoofkit.errors import SpoofkitError
from spoofkit.settings import LoraSettings

BASE = "base_layer."  # peft's name for the layer that it wraps


def add_lora(network: nn.Module, layers: nn.ModuleList, settings: LoraSettings) -> None:
    """Freeze `network` and wrap the linear layers of `layers` whose names match; only the adapters are trained then.

    Raises:
        SpoofkitError: peft is not installed, or no linear layer has one of the names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise SpoofkitError(
            "encoder.lora: needs the package peft, which is not installed; run `pip install 'spoofkit[lora]'`"
        ) from error
    names = {name.rsplit(".", 1)[-1] for name, module in layers.named_modules() if isinstance(module, nn.Linear)}
    unknown = sorted(set(settings.targets) - names)
    if unknown:
        raise SpoofkitError(
            f"encoder.lora.targets: this encoder has no linear layers named {', '.join(unknown)}; "
            f"it has {', '.join(sorted(names))}"
        )
    network.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a factor, whatever the annotation says
        lora_dropout=settings.dropout,
        target_modules=rf".*layers\.\d+\..*\b({'|'.join(map(re.escape, settings.targets))})",
    )
    inject_adapter_in_model(config, network)


def merged_state_dict(network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights under their plain names, each adapter added to the layer that it belongs to."""
    tensors: dict[str, torch.Tensor] = dict(network.state_dict())
    for name, module in network.named_modules():
        wrapped: Any = module
        if hasattr(wrapped, "get_delta_weight"):
            (adapter,) = wrapped.lora_A.keys()
            weight = tensors[f"{name}.{BASE}weight"]
            with torch.no_grad():
                tensors[f"{name}.{BASE}weight"] = weight + wrapped.get_delta_weight(adapter).to(weight.dtype)
    return {name.replace(BASE, ""): tensor for name, tensor in tensors.items() if ".lora_" not in name}
