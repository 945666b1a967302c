"""The networks of wav2vec 2.0 and HuBERT in torch alone, for scoring: to import transformers' takes twice as long as to
import torch, and longer than to score a recording.

Modules and tensors have transformers' names, and compute what transformers' compute, bit for bit, in evaluation mode.
`read_network` reads the folders that `Encoder.save` writes. Whatever it does not know exactly it leaves to
transformers: other families, activations and tensors, files of other programs, and everything that must be refused with
a reason.

Shapes: B batch, T frames, C channels, D features, H heads.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from spoofkit.models.weight_files import MOST_LAYERS, is_finite

FAMILIES = ("wav2vec2", "hubert")
EXPECTED = {
    "feat_extract_activation": "gelu", "hidden_act": "gelu", "add_adapter": False, "adapter_attn_dim": None,
    "conv_pos_batch_norm": False, "feat_proj_layer_norm": True,
}  # fmt: skip
"""Settings of config.json that must have these values, if they are there."""
NEEDED = (
    "conv_bias", "conv_dim", "conv_kernel", "conv_stride", "do_stable_layer_norm", "feat_extract_norm", "hidden_size",
    "intermediate_size", "layer_norm_eps", "num_attention_heads", "num_conv_pos_embedding_groups",
    "num_conv_pos_embeddings", "num_hidden_layers",
)  # fmt: skip
POSITIONAL = "encoder.pos_conv_embed.conv"


def read_network(folder: Path) -> tuple[nn.Module, Any, str] | None:
    """Read the network of a folder of weights, without transformers.

    Args:
        folder: Folder with config.json, preprocessor_config.json and model.safetensors.

    Returns:
        The network with its `config`, whether the input is normalised as an object with `do_normalize`, and in words
        how many tensors were read; None if the folder holds anything else than what is computed here.
    """
    try:
        config = SimpleNamespace(**json.loads((folder / "config.json").read_bytes()))
        extractor = SimpleNamespace(**json.loads((folder / "preprocessor_config.json").read_bytes()))
        if not _is_known(config, extractor):
            return None
        with torch.device("meta"):
            network = WaveNetwork(config)
        tensors = load_file(folder / "model.safetensors")
        n_tensors = len(tensors)
        tensors.pop("masked_spec_embed", None)  # it replaces masked frames, which do not occur
        if not all(tensor.dtype == torch.float32 and is_finite(tensor) for tensor in tensors.values()):
            return None
        norm, direction = (tensors.pop(f"{POSITIONAL}.parametrizations.weight.original{part}") for part in (0, 1))
        tensors[f"{POSITIONAL}.weight"] = torch._weight_norm(direction, norm, 2)
        network.load_state_dict(tensors, assign=True)
    except Exception:  # a damaged file can raise anything in a parser; transformers says what is wrong
        return None
    return network.eval(), extractor, f"{n_tensors} of {n_tensors} tensors"


def _is_known(config: Any, extractor: Any) -> bool:
    """Return whether both files describe a network of this module; its sizes are checked by the shapes of tensors."""
    return (
        getattr(config, "model_type", None) in FAMILIES
        and all(hasattr(config, name) for name in NEEDED)
        and all(getattr(config, name, value) == value for name, value in EXPECTED.items())
        and config.feat_extract_norm in ("group", "layer")
        and len(config.conv_dim) == len(config.conv_kernel) == len(config.conv_stride)
        and config.hidden_size % config.num_attention_heads == 0
        and config.num_hidden_layers <= MOST_LAYERS
        and getattr(extractor, "feature_extractor_type", None) == "Wav2Vec2FeatureExtractor"
        and getattr(extractor, "sampling_rate", None) == 16_000
        and isinstance(getattr(extractor, "do_normalize", None), bool)
    )


class WaveNetwork(nn.Module):
    """Convolutions, projection, and a transformer; `WaveEncoder` runs its parts."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = nn.Module()
        channels = (1, *config.conv_dim)
        self.feature_extractor.conv_layers = nn.ModuleList(
            Convolution(config, place, channels[place], channels[place + 1]) for place in range(len(config.conv_dim))
        )
        self.feature_projection = Projection(config)
        self.encoder = nn.Module()
        self.encoder.pos_conv_embed = Positional(config)
        self.encoder.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder.dropout = nn.Identity()
        self.encoder.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class Convolution(nn.Module):
    """A convolution of the stem: norm over time (the first alone), over channels, or none."""

    def __init__(self, config: Any, place: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, config.conv_kernel[place], config.conv_stride[place], bias=config.conv_bias)
        self.over_channels = config.feat_extract_norm == "layer"
        if self.over_channels:
            self.layer_norm: nn.Module = nn.LayerNorm(n_out)
        elif place == 0:
            self.layer_norm = nn.GroupNorm(n_out, n_out)
        self.activation = nn.GELU()

    def forward(self, hidden_BCT: torch.Tensor) -> torch.Tensor:
        """Convolve; the norm over time is `wave_encoder.group_norm`'s."""
        hidden_BCT = self.conv(hidden_BCT)
        if self.over_channels:
            hidden_BCT = self.layer_norm(hidden_BCT.transpose(1, 2)).transpose(1, 2)
        activated_BCT: torch.Tensor = self.activation(hidden_BCT)
        return activated_BCT


class Projection(nn.Module):
    """From the channels of the stem to the features of the transformer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], config.layer_norm_eps)
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden_size)

    def forward(self, stem_BTC: torch.Tensor) -> torch.Tensor:
        """Normalise and project; (B, T, D)."""
        projected_BTD: torch.Tensor = self.projection(self.layer_norm(stem_BTC))
        return projected_BTD


class Positional(nn.Module):
    """A convolution over time whose output is added as position embedding."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        kernel, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        self.conv = nn.Conv1d(config.hidden_size, config.hidden_size, kernel, padding=kernel // 2, groups=groups)

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Convolve; an even kernel gives one frame too many."""
        positions_BDT = self.conv(hidden_BTD.transpose(1, 2))[:, :, : hidden_BTD.shape[1]]
        positions_BTD: torch.Tensor = F.gelu(positions_BDT).transpose(1, 2)
        return positions_BTD


class Layer(nn.Module):
    """A layer of the transformer; its norms are before (`do_stable_layer_norm`) or after what they belong to."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.is_pre_norm = config.do_stable_layer_norm
        self.attention = Attention(config.hidden_size, config.num_attention_heads)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.feed_forward = FeedForward(config.hidden_size, config.intermediate_size)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, hidden_BTD: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Run the layer."""
        if self.is_pre_norm:
            hidden_BTD = hidden_BTD + self.attention(self.layer_norm(hidden_BTD), attention_mask)
            pre_norm_BTD: torch.Tensor = hidden_BTD + self.feed_forward(self.final_layer_norm(hidden_BTD))
            return pre_norm_BTD
        hidden_BTD = self.layer_norm(hidden_BTD + self.attention(hidden_BTD, attention_mask))
        output_BTD: torch.Tensor = self.final_layer_norm(hidden_BTD + self.feed_forward(hidden_BTD))
        return output_BTD


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden_BTD: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Attend to all frames, or to those of the mask."""
        query, key, value = (
            projection(hidden_BTD).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended_BHTd = F.scaled_dot_product_attention(query, key, value, attention_mask)
        attended_BTD: torch.Tensor = self.out_proj(attended_BHTd.transpose(1, 2).flatten(2))
        return attended_BTD


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.intermediate_dense, self.output_dense = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Apply both layers."""
        output_BTD: torch.Tensor = self.output_dense(F.gelu(self.intermediate_dense(hidden_BTD)))
        return output_BTD
