"""Front-ends whose convolutions read the waveform: wav2vec 2.0 (XLS-R, MMS), HuBERT, WavLM, data2vec-audio,
UniSpeech-SAT.

Where padding would reach valid frames, and what is done about it:

* the input is normalised over the utterance's own samples;
* group-norm stems (wav2vec2-base, HuBERT-base, WavLM-base) average over time: over the utterance's own length;
* the positional convolution reads neighbours: frames beyond the end are zero, before each of data2vec's five;
* attention looks at valid frames only.

WavLM's attention is computed here, because transformers' reads the weights of its projections past any adapter (LoRA),
which would then learn nothing. Torch's fused attention gets the gated bias; neither time nor memory differ
(benchmarks/RESULTS.md).

Shapes: B batch, S samples, T frames, C channels, D features, H heads.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.data.frames import FrameGeometry
from spoofkit.errors import SpoofkitError
from spoofkit.models.encoder import Encoder, is_valid, key_mask
from spoofkit.models.heads.masking import mask_or_none, masked_batch_norm

WAVE_FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech-sat")


class WaveEncoder(Encoder):
    """Convolutions, projection, positional convolution, transformer layers."""

    def __init__(self, network: Any, feature_extractor: Any) -> None:
        super().__init__(network, feature_extractor)
        config = network.config
        self.has_group_norm = getattr(config, "feat_extract_norm", "layer") == "group"
        self.is_pre_norm = getattr(config, "do_stable_layer_norm", False)
        self.width = config.hidden_size
        self.geometry = geometry_of_convolutions(config.conv_kernel, config.conv_stride)
        self.shortest = self.geometry.shortest

    @property
    def layers(self) -> nn.ModuleList:
        """See Encoder."""
        layers: nn.ModuleList = self.network.encoder.layers
        return layers

    @property
    def stem(self) -> list[nn.Module]:
        """See Encoder."""
        return [self.network.feature_extractor]

    def embed(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Encoder."""
        if self.feature_extractor.do_normalize:
            wave_BS = normalise(wave_BS, n_samples_B)
        stem_BTC = self.convolve(wave_BS, n_samples_B).transpose(1, 2)
        is_frame_BT = is_valid(self.n_frames(n_samples_B), stem_BTC.shape[1])
        projected = self.network.feature_projection(stem_BTC)
        hidden_BTD = projected[0] if isinstance(projected, tuple) else projected
        hidden_BTD = hidden_BTD + self._positions(hidden_BTD, is_frame_BT[..., None])
        encoder = self.network.encoder
        if not self.is_pre_norm:
            hidden_BTD = encoder.layer_norm(hidden_BTD)
        return encoder.dropout(hidden_BTD), is_frame_BT

    @property
    def below_layers(self) -> list[nn.Module]:
        """See Encoder."""
        return [self.network.encoder.dropout]

    def context(self, hidden_BTD: torch.Tensor, is_frame_BT: torch.Tensor) -> dict[str, Any]:
        """See Encoder."""
        return {"attention_mask": key_mask(is_frame_BT)}

    def finish(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """See Encoder."""
        if not self.is_pre_norm:
            return hidden_BTD
        normal_BTD: torch.Tensor = self.network.encoder.layer_norm(hidden_BTD)
        return normal_BTD

    def parameters_above_layers(self) -> list[nn.Parameter]:
        """See Encoder."""
        return list(self.network.encoder.layer_norm.parameters()) if self.is_pre_norm else []

    def convolve(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
        """Run the stem; (B, C, T)."""
        first, *others = self.network.feature_extractor.conv_layers
        hidden_BCT = wave_BS[:, None]
        if self.has_group_norm:
            hidden_BCT = first.conv(hidden_BCT)
            n_valid_B = (n_samples_B - first.conv.kernel_size[0]) // first.conv.stride[0] + 1
            hidden_BCT = first.activation(group_norm(first.layer_norm, hidden_BCT, n_valid_B))
        else:
            hidden_BCT = first(hidden_BCT)
        for layer in others:
            hidden_BCT = layer(hidden_BCT)
        stem_BCT: torch.Tensor = hidden_BCT
        return stem_BCT

    def _positions(self, hidden_BTD: torch.Tensor, is_frame_BT1: torch.Tensor) -> torch.Tensor:
        positional = self.network.encoder.pos_conv_embed
        if hasattr(positional, "layers"):  # data2vec: a stack
            for layer in positional.layers:
                hidden_BTD = layer((hidden_BTD * is_frame_BT1).transpose(1, 2)).transpose(1, 2)
            return hidden_BTD
        if getattr(positional, "batch_norm", None) is None:
            positions_BTD: torch.Tensor = positional(hidden_BTD * is_frame_BT1)
            return positions_BTD
        # Some HuBERTs normalise first, and a normalised zero is none.
        is_frame_BT = is_frame_BT1[..., 0]
        hidden_BDT = masked_batch_norm(positional.batch_norm, hidden_BTD.transpose(1, 2), mask_or_none(is_frame_BT))
        hidden_BDT = positional.padding(positional.conv(hidden_BDT * is_frame_BT[:, None]))
        activated_BDT: torch.Tensor = positional.activation(hidden_BDT)
        return activated_BDT.transpose(1, 2)


class WavLMEncoder(WaveEncoder):
    """WavLM: a relative position bias, gated by the frame that looks (arXiv:2110.13900, section III-B)."""

    def context(self, hidden_BTD: torch.Tensor, is_frame_BT: torch.Tensor) -> dict[str, Any]:
        """See Encoder."""
        n_frames = hidden_BTD.shape[1]
        bias_HTT = self.layers[0].attention.compute_bias(n_frames, n_frames)  # type: ignore[union-attr,operator]
        return {"bias_HTT": bias_HTT, "key_mask": key_mask(is_frame_BT)}

    def run_layer(self, layer: Any, hidden_BTD: torch.Tensor, context: dict[str, Any]) -> torch.Tensor:
        """See Encoder."""
        if self.is_pre_norm:
            attended_BTD = _gated_attention(layer.attention, layer.layer_norm(hidden_BTD), **context)
            hidden_BTD = hidden_BTD + layer.dropout(attended_BTD)
            output_BTD: torch.Tensor = hidden_BTD + layer.feed_forward(layer.final_layer_norm(hidden_BTD))
            return output_BTD
        attended_BTD = _gated_attention(layer.attention, hidden_BTD, **context)
        hidden_BTD = layer.layer_norm(hidden_BTD + layer.dropout(attended_BTD))
        output_BTD = layer.final_layer_norm(hidden_BTD + layer.feed_forward(hidden_BTD))
        return output_BTD


def _gated_attention(
    attention: Any, hidden_BTD: torch.Tensor, bias_HTT: torch.Tensor, key_mask: torch.Tensor | None
) -> torch.Tensor:
    n_heads = attention.num_heads
    hidden_BHTd = hidden_BTD.unflatten(2, (n_heads, -1)).transpose(1, 2)
    gates_BHT2 = torch.sigmoid(attention.gru_rel_pos_linear(hidden_BHTd).unflatten(3, (2, 4)).sum(-1))
    update_BHT1, reset_BHT1 = gates_BHT2.chunk(2, dim=-1)
    gate_BHT1 = update_BHT1 * (reset_BHT1 * attention.gru_rel_pos_const - 1.0) + 2.0
    bias_BHTT = gate_BHT1 * bias_HTT
    if key_mask is not None:
        bias_BHTT = bias_BHTT.masked_fill(~key_mask, float("-inf"))
    query, key, value = (
        projection(hidden_BTD).unflatten(2, (n_heads, -1)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    dropout = attention.dropout if attention.training else 0.0
    attended_BHTd = F.scaled_dot_product_attention(query, key, value, bias_BHTT.to(query.dtype), dropout)
    attended_BTD: torch.Tensor = attention.out_proj(attended_BHTd.transpose(1, 2).flatten(2))
    return attended_BTD


def check_wave_config(name: str, config: Any) -> None:
    """Refuse a configuration that is not supported, instead of computing something else."""
    norm = getattr(config, "feat_extract_norm", "layer")
    if norm not in ("group", "layer"):
        raise SpoofkitError(f"{name}: feat_extract_norm of its config.json is {norm!r}, expected group or layer")
    if min(*config.conv_kernel, *config.conv_stride) < 1:
        raise SpoofkitError(f"{name}: kernels and strides of its config.json must be at least 1, found smaller ones")


def geometry_of_convolutions(kernels: tuple[int, ...], strides: tuple[int, ...]) -> FrameGeometry:
    """Return the geometry of the frames of a stack of unpadded convolutions.

    >>> geometry_of_convolutions((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    FrameGeometry(receptive_field=400, hop=320, shortest=400, first_centre=200)
    """
    receptive_field, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        receptive_field += (kernel - 1) * hop
        hop *= stride
    return FrameGeometry(receptive_field, hop, shortest=receptive_field, first_centre=receptive_field // 2)


def normalise(wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
    """Normalise each utterance's own samples to zero mean and unit variance, as Wav2Vec2FeatureExtractor does."""
    is_sample_BS = is_valid(n_samples_B, wave_BS.shape[1])
    mean_B1 = (wave_BS * is_sample_BS).sum(1, keepdim=True) / n_samples_B[:, None]
    centred_BS = (wave_BS - mean_B1) * is_sample_BS
    variance_B1 = centred_BS.square().sum(1, keepdim=True) / n_samples_B[:, None]
    return centred_BS / torch.sqrt(variance_B1 + 1e-7)


def group_norm(norm: nn.GroupNorm, hidden_BCT: torch.Tensor, n_valid_B: torch.Tensor) -> torch.Tensor:
    """Apply GroupNorm to each row's own positions; zeros elsewhere.

    Row by row torch's own kernel reads the large output of the first convolution once; masks would read it six times.
    """
    length = hidden_BCT.shape[2]
    n_valid = n_valid_B.tolist()
    if min(n_valid) == length:
        whole_BCT: torch.Tensor = norm(hidden_BCT)
        return whole_BCT
    rows = [F.pad(norm(row_CT[None, :, :n]), (0, length - n)) for row_CT, n in zip(hidden_BCT, n_valid, strict=True)]
    return torch.cat(rows)
