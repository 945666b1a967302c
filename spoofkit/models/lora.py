"""Low-rank adapters (LoRA, arXiv:2106.09685) on an encoder's linear layers: adding, merging, removing.

The encoder's own weights are frozen. Training wraps linear layers with the library peft; for inference adapters are
merged into the weights, which does not need peft. `spoofkit.models.adapter_folder` stores adapters.

Shapes: R rank, I inputs, O outputs of a linear layer.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from spoofkit.errors import SpoofkitError
from spoofkit.settings import LoraSettings

BASE = "base_layer."  # peft's name for the layer that it wraps
NAME = "default"  # peft's name for an adapter that was not given one
Pair = tuple[torch.Tensor, torch.Tensor]
"""A_RI and B_OR: what is added to a weight_OI is scale * B A."""

_WAVE = {
    "attention": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "output": ("attention.out_proj",),
    "feed_forward": ("feed_forward.intermediate_dense", "feed_forward.output_dense"),
}
_WHISPER = {
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.out_proj",),
    "feed_forward": ("fc1", "fc2"),
}
_W2V_BERT = {  # a conformer layer has two feed-forwards
    "attention": ("self_attn.linear_q", "self_attn.linear_k", "self_attn.linear_v"),
    "output": ("self_attn.linear_out",),
    "feed_forward": ("ffn1.intermediate_dense", "ffn1.output_dense", "ffn2.intermediate_dense", "ffn2.output_dense"),
}


def roles_of(family: str) -> dict[str, tuple[str, ...]]:
    """Return the linear layers of a transformer layer by role, for transformers' network of a family (`model_type`)."""
    return {"whisper": _WHISPER, "wav2vec2-bert": _W2V_BERT}.get(family, _WAVE)


def parts_of(family: str, targets: Iterable[str]) -> list[str]:
    """Return the names, inside a transformer layer, of the linear layers of some roles, in the order of the roles."""
    wanted = set(targets)
    return [part for role, parts in roles_of(family).items() if role in wanted for part in parts]


def adapted_layers(network: nn.Module, layers: nn.ModuleList, targets: Iterable[str]) -> list[str]:
    """Return the names in `network` of the linear layers of some roles in all of its transformer `layers`.

    Raises:
        SpoofkitError: a role matches nothing in a layer.
    """
    config: Any = getattr(network, "config", None)
    family = config.model_type if config is not None else "encoder without layers"
    prefix = next((name for name, module in network.named_modules() if module is layers), "")
    names = []
    for role in targets:
        found = [
            f"{prefix}.{number}.{part}"
            for number, layer in enumerate(layers)
            for part in parts_of(family, [role])
            if isinstance(dict(layer.named_modules()).get(part), nn.Linear)
        ]
        if not found:
            raise SpoofkitError(
                f"encoder.lora.targets: {role} matches no linear layer of this {family}, expected some in each of its "
                f"{len(layers)} layers; leave it out, or use another encoder"
            )
        names += found
    return names


def lora_config(settings: LoraSettings, family: str, prefix: str, n_layers: int, **further: Any) -> Any:
    """Return peft's description of the adapters.

    Args:
        settings: Rank, alpha, dropout, targets.
        family: `model_type` of the network.
        prefix: Prefix of `layers.0` in the names of the network.
        n_layers: Number of lowest layers that have adapters; a network elsewhere may have more.
        further: Further fields of peft's LoraConfig.
    """
    from peft import LoraConfig

    parts, numbers = "|".join(map(re.escape, parts_of(family, settings.targets))), "|".join(map(str, range(n_layers)))
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a factor, whatever the annotation says
        lora_dropout=settings.dropout,
        target_modules=rf"{re.escape(prefix)}layers\.({numbers})\.({parts})",
        **further,
    )


def add_lora(
    network: Any, layers: nn.ModuleList, settings: LoraSettings, pairs: Mapping[str, Pair] | None = None
) -> None:
    """Freeze `network` and add adapters to the linear layers of some roles in `layers`; only these are trained then.

    Args:
        network: The transformers module.
        layers: Its transformer layers.
        settings: Rank, alpha, dropout, targets.
        pairs: Adapters to start from, by linear layer. Default: new ones, which change nothing until they are trained.

    Raises:
        SpoofkitError: a role matches nothing.
    """
    names = adapted_layers(network, layers, settings.targets)
    from peft import inject_adapter_in_model

    network.requires_grad_(False)
    prefix = names[0][: names[0].index("layers.")]
    config = lora_config(settings, network.config.model_type, prefix, len(layers))
    inject_adapter_in_model(config, network, adapter_name=NAME)
    if pairs is not None:
        with torch.no_grad():
            for name, own in pairs_of(network).items():
                for tensor, given in zip(own, pairs[name], strict=True):
                    tensor.copy_(given)


def pairs_of(network: nn.Module) -> dict[str, Pair]:
    """Return the adapters of a network, by the name of the linear layer; not copied."""
    pairs = {}
    for name, module in network.named_modules():
        wrapped: Any = module
        if hasattr(wrapped, "lora_A"):
            pairs[name] = (wrapped.lora_A[NAME].weight, wrapped.lora_B[NAME].weight)
    return pairs


def scale_of(network: nn.Module) -> float:
    """Return the factor on the adapters of a network: alpha / rank."""
    return next(float(module.scaling[NAME]) for module in network.modules() if hasattr(module, "lora_A"))  # type: ignore[index]


@torch.no_grad()
def merge_pairs(network: nn.Module, adapters: list[dict[str, Pair]], scale: float) -> None:
    """Merge adapters into the weights of a plain network; for several, the mean of their products B A.

    That mean is not the product of the mean of B and the mean of A.
    """
    for name in adapters[0]:
        layer: Any = network.get_submodule(name)
        products = [pairs[name][1].double() @ pairs[name][0].double() for pairs in adapters]
        added = scale * torch.stack(products).mean(0)
        layer.weight.copy_((layer.weight.double() + added.to(layer.weight.device)).to(layer.weight.dtype))


def remove_lora(network: nn.Module) -> None:
    """Remove the adapters from a network, without merging them."""
    for name in list(pairs_of(network)):
        parent, _, child = name.rpartition(".")
        wrapped: Any = network.get_submodule(name)
        setattr(network.get_submodule(parent), child, wrapped.base_layer)


@torch.no_grad()
def merged_state_dict(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights under their plain names, with each adapter merged into its layer."""
    tensors: dict[str, torch.Tensor] = dict(network.state_dict())
    for name, (a_RI, b_OR) in pairs_of(network).items():
        key = f"{name}.{BASE}weight"
        added = scale_of(network) * (b_OR.double() @ a_RI.double())
        tensors[key] = (tensors[key].double() + added).to(tensors[key].dtype)
    return {name.replace(BASE, ""): tensor for name, tensor in tensors.items() if ".lora_" not in name}


def learnt_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of encoder and head without the frozen base of adapters: what a checkpoint holds."""
    state: dict[str, torch.Tensor] = model.state_dict()
    if getattr(getattr(model, "encoder", None), "base", None) is None:
        return state
    frozen = "encoder.network."
    return {name: tensor for name, tensor in state.items() if not name.startswith(frozen) or ".lora_" in name}
