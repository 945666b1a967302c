"""The same computations without branches on values, for tracing an exported graph.

A graph is recorded once and holds for every batch, so nothing in it may ask what lengths a batch has: no `if` on a
mask, no loop over rows, no number taken out of a tensor. While `traceable()` lasts, the few functions of
spoofkit.models that do so, each to save work, are replaced by those here, which always mask; `parity` compares the
graph with the originals before anything is written.

Shapes: as in the modules whose functions are replaced; W windows of 201 frames.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.models import mel_encoder, wave_encoder
from spoofkit.models.encoder import is_valid
from spoofkit.models.heads import aasist, ecapa, graph, nes2net, rawnet2, sls
from spoofkit.models.heads.masking import masked_batch_norm, masked_mean, pool_time
from spoofkit.models.mel_encoder import W2vBertFrontEnd, WhisperFrontEnd
from spoofkit.models.wave_encoder import WaveEncoder


@contextmanager
def traceable() -> Iterator[None]:
    """Replace the functions that branch on values, in this process, while the block lasts."""
    replaced: list[tuple[Any, str, Any]] = [
        (wave_encoder, "key_mask", _key_mask),
        (mel_encoder, "key_mask", _key_mask),
        (wave_encoder, "mask_or_none", _mask),
        (aasist, "mask_or_none", _mask),
        (ecapa, "mask_or_none", _mask),
        (nes2net, "mask_or_none", _mask),
        (rawnet2, "mask_or_none", _mask),
        (WaveEncoder, "convolve", convolve),
        (WhisperFrontEnd, "features", whisper_features),
        (W2vBertFrontEnd, "features", filter_banks),
        (W2vBertFrontEnd, "context", conformer_context),
        (graph.GraphPool, "forward", pool_nodes),
        (rawnet2.RawNet2Head, "forward", read_to_the_end),
        (sls.SlsHead, "forward", select_layers),
    ]
    originals = [(where, name, getattr(where, name)) for where, name, _ in replaced]
    try:
        for where, name, function in replaced:
            setattr(where, name, function)
        yield
    finally:
        for where, name, function in originals:
            setattr(where, name, function)


def _key_mask(is_frame_BT: torch.Tensor) -> torch.Tensor:
    return is_frame_BT[:, None, None, :]


def _mask(is_frame_BT: torch.Tensor) -> torch.Tensor:
    return is_frame_BT


def convolve(self: WaveEncoder, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
    """Compute WaveEncoder.convolve as matrix products, which int8 quantises; frames beyond an utterance are not zero.

    Between the layers lie whole frames, (B, T, C), so the norm over channels needs no transposition.
    """
    first, *others = self.network.feature_extractor.conv_layers
    if self.has_group_norm:
        hidden_BTC = first.activation(_normalised_convolution(first, wave_BS, n_samples_B))
    else:  # a waveform is too coarse in 8 bits: it stays a convolution
        hidden_BTC = first(wave_BS[:, None]).transpose(1, 2)
    for layer in others:
        # To shapes in numbers: so the exporter stores the result, and int8 finds a weight.
        filter_XC = layer.conv.weight.permute(2, 1, 0).reshape(-1, layer.conv.out_channels)
        hidden_BTC = _windows(hidden_BTC, layer.conv) @ filter_XC
        if layer.conv.bias is not None:
            hidden_BTC = hidden_BTC + layer.conv.bias
        if hasattr(layer, "layer_norm"):
            hidden_BTC = layer.layer_norm(hidden_BTC)
        hidden_BTC = layer.activation(hidden_BTC)
    stem_BCT: torch.Tensor = hidden_BTC.transpose(1, 2)
    return stem_BCT


def _normalised_convolution(first: Any, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
    """Convolve a waveform, and normalise each channel over the utterance's own frames; (B, T, C).

    The mean and variance of a channel follow from those of the K samples under its filter w: around their means, the
    outputs have mean 0 and variance w' S w, where S is the covariance of the samples (K, K). So the large output is
    written once.
    """
    kernel, stride = first.conv.kernel_size[0], first.conv.stride[0]
    window_BTK = _windows(wave_BS[..., None], first.conv)
    n_own_B = (n_samples_B - kernel) // stride + 1
    n_own_B11 = n_own_B[:, None, None]
    is_own_BT1 = is_valid(n_own_B, window_BTK.shape[1])[..., None]
    mean_B1K = (window_BTK * is_own_BT1).sum(1, keepdim=True) / n_own_B11
    centred_BTK = (window_BTK - mean_B1K) * is_own_BT1
    covariance_BKK = (centred_BTK.transpose(1, 2).double() @ centred_BTK.double()) / n_own_B11
    filter_CK = first.conv.weight[:, 0].double()
    variance_BC = ((filter_CK @ covariance_BKK) * filter_CK).sum(2)
    gain_BC = first.layer_norm.weight / torch.sqrt(variance_BC + first.layer_norm.eps)
    filter_BKC = (filter_CK * gain_BC[..., None]).transpose(1, 2).float()
    normal_BTC: torch.Tensor = centred_BTK @ filter_BKC + first.layer_norm.bias
    return normal_BTC


def _windows(hidden_BTC: torch.Tensor, conv: nn.Conv1d) -> torch.Tensor:
    """Lay the positions that each output of an unpadded convolution sees side by side: (B, T', K x C)."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    n_windows = (hidden_BTC.shape[1] - kernel) // stride + 1
    position_TK = torch.arange(n_windows, device=hidden_BTC.device)[:, None] * stride + torch.arange(kernel)
    window_BXC = hidden_BTC[:, position_TK.flatten()]
    return window_BXC.reshape(hidden_BTC.shape[0], n_windows, kernel * conv.in_channels)


def whisper_features(self: WhisperFrontEnd, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
    """Compute WhisperFrontEnd.features: each utterance is reflected at its own ends."""
    half, n_mel = self.n_fft // 2, wave_BS.shape[1] // self.mel_hop
    start_M1 = torch.arange(n_mel, device=wave_BS.device)[:, None] * self.mel_hop - half
    position_MW = (start_M1 + torch.arange(self.n_fft, device=wave_BS.device)).abs()
    last_B1 = (n_samples_B - 1)[:, None]
    position_BP = position_MW.flatten()[None]
    position_BP = torch.where(position_BP > last_B1, 2 * last_B1 - position_BP, position_BP).clamp(min=0)
    frame_BMW = wave_BS.gather(1, position_BP).unflatten(1, (-1, self.n_fft))
    power_BMF = _power(frame_BMW.double() * self.window_W.double(), self.n_fft)
    log_BMC = (power_BMF.float() @ self.mel_CF.T).clamp(min=1e-10).log10()
    is_own_BM1 = is_valid(n_samples_B // self.mel_hop, n_mel)[..., None]
    loudest_B11 = log_BMC.masked_fill(~is_own_BM1, -10.0).amax((1, 2), keepdim=True)
    log_BMC = torch.maximum(log_BMC, loudest_B11 - 8.0)
    return ((log_BMC + 4.0) / 4.0 * is_own_BM1).transpose(1, 2)


def filter_banks(self: W2vBertFrontEnd, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
    """Compute W2vBertFrontEnd.features: mean and variance over each utterance's own frames."""
    n_mel = (wave_BS.shape[1] - self.WINDOW) // self.HOP + 1
    start_M1 = torch.arange(n_mel, device=wave_BS.device)[:, None] * self.HOP
    position_MW = start_M1 + torch.arange(self.WINDOW, device=wave_BS.device)
    frame_BMW = wave_BS[:, position_MW.flatten()].unflatten(1, (-1, self.WINDOW)).double() * 2**15
    frame_BMW = frame_BMW - frame_BMW.mean(2, keepdim=True)
    before_BMW = torch.cat([frame_BMW[..., :1], frame_BMW[..., :-1]], dim=2)
    power_BMF = _power((frame_BMW - self.PREEMPHASIS * before_BMW) * self.window_W, self.N_FFT)
    log_BMC = (power_BMF @ self.mel_CF.T).clamp(min=self.MEL_FLOOR).log()
    n_own_B = (n_samples_B - self.WINDOW) // self.HOP + 1
    is_own_BM1 = is_valid(n_own_B, n_mel)[..., None]
    n_own_B11 = n_own_B[:, None, None].double()
    mean_B1C = (log_BMC * is_own_BM1).sum(1, keepdim=True) / n_own_B11
    centred_BMC = (log_BMC - mean_B1C) * is_own_BM1
    variance_B1C = centred_BMC.square().sum(1, keepdim=True) / (n_own_B11 - 1)
    normal_BMC = (centred_BMC / torch.sqrt(variance_B1C + 1e-7)).float()
    n_stacks = n_mel // self.n_stacked
    stacked_BTC = normal_BMC[:, : n_stacks * self.n_stacked].reshape(-1, n_stacks, self.n_stacked * normal_BMC.shape[2])
    # A stack with one mel frame of padding is no frame.
    return (stacked_BTC * is_valid(n_own_B // self.n_stacked, n_stacks)[..., None]).transpose(1, 2)


def _power(frame_BMW: torch.Tensor, n_fft: int) -> torch.Tensor:
    """Compute the power spectrum, (B, M, F), by sines and cosines in double precision: the exporter has no FFT."""
    tap_W1 = torch.arange(frame_BMW.shape[2], dtype=torch.float64)[:, None]
    bin_F = torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    angle_WF = 2 * math.pi / n_fft * (tap_W1 * bin_F)
    return (frame_BMW @ angle_WF.cos()).square() + (frame_BMW @ angle_WF.sin()).square()


def conformer_context(self: W2vBertFrontEnd, hidden_BTD: torch.Tensor, is_frame_BT: torch.Tensor) -> dict[str, Any]:
    """Compute W2vBertFrontEnd.context, with position embeddings that transformers keeps between calls."""
    positions: Any = self.network.encoder.embed_positions
    embedded = None
    n_frames = hidden_BTD.shape[1]
    if hasattr(positions, "inv_freq"):  # rotary
        angle_TD = torch.arange(n_frames).float()[:, None] * positions.inv_freq.repeat(2)
        embedded = torch.stack([angle_TD.cos(), angle_TD.sin()])[:, :, None, None]
    elif positions is not None:  # relative: from n_frames - 1 to the left to as many to the right
        distance_R1 = (n_frames - 1 - torch.arange(2 * n_frames - 1)).float()[:, None]
        even_D = torch.arange(0, positions.d_model, 2).float()
        angle_RD = distance_R1 * torch.exp(even_D * -(math.log(10000.0) / positions.d_model))
        embedded = torch.stack([angle_RD.sin(), angle_RD.cos()], dim=2).flatten(1)[None]
    return {
        "attention_mask": _key_mask(is_frame_BT),
        "conv_attention_mask": is_frame_BT,
        "relative_position_embeddings": embedded,
    }


def pool_nodes(
    self: graph.GraphPool, node_BND: torch.Tensor, is_node_BN: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute GraphPool.forward with as many nodes as an utterance of full length keeps, masked."""
    score_BN1 = torch.sigmoid(self.score(node_BND))
    rank_BN = score_BN1.squeeze(-1)
    is_kept_BM = None
    if is_node_BN is None:  # equally many in all utterances: a number of the graph
        n_kept: Any = max(int(int(node_BND.shape[1]) * self.share), 1)
    else:
        # Shares are tenths; one node more covers the least of 1, and what a double rounds up.
        n_kept = node_BND.shape[1] * round(self.share * 10) // 10 + 1
        n_kept_B = (is_node_BN.sum(1).double() * self.share).long().clamp(min=1)
        is_kept_BM = is_valid(n_kept_B, n_kept)
        rank_BN = rank_BN.masked_fill(~is_node_BN, -1.0)
    kept_BM1 = rank_BN.topk(n_kept, dim=1).indices[..., None]
    return (node_BND * score_BN1).gather(1, kept_BM1.expand(-1, -1, node_BND.shape[2])), is_kept_BM


def read_to_the_end(self: rawnet2.RawNet2Head, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
    """Compute RawNet2Head.forward with a gather of the last state."""
    hidden_BCT, mask_BT = pool_time(layers[0].transpose(1, 2).abs(), is_frame_BT)
    hidden_BCT = F.selu(masked_batch_norm(self.first_norm, hidden_BCT, mask_BT))
    for block, scaling in zip(self.blocks, self.scalings, strict=True):
        hidden_BCT, mask_BT = pool_time(block(hidden_BCT, mask_BT), mask_BT)
        hidden_BCT = scaling(hidden_BCT, mask_BT)
    hidden_BCT = F.selu(masked_batch_norm(self.last_norm, hidden_BCT, mask_BT))
    state_BTC, _ = self.gru(hidden_BCT.transpose(1, 2))
    assert mask_BT is not None
    last_B11 = (mask_BT.sum(1) - 1)[:, None, None]
    embedding_BE: torch.Tensor = self.embed(state_BTC.gather(1, last_B11.expand(-1, 1, state_BTC.shape[2]))[:, 0])
    return embedding_BE


def select_layers(self: sls.SlsHead, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
    """Compute SlsHead.forward with as many windows as the longest utterance has, averaging each one's own."""
    hidden_BTD = torch.zeros_like(layers[0])
    for layer_BTD in layers[1:]:
        gate_B1 = torch.sigmoid(self.gate(masked_mean(layer_BTD.transpose(1, 2), is_frame_BT)))
        hidden_BTD = hidden_BTD + gate_B1[..., None] * layer_BTD
    n_B1 = is_frame_BT.sum(1, keepdim=True)
    n_windows_B1 = (n_B1 + sls.WINDOW - 1) // sls.WINDOW
    n_windows = (hidden_BTD.shape[1] + sls.WINDOW - 1) // sls.WINDOW
    first_BW = torch.minimum(torch.arange(n_windows)[None] * sls.WINDOW, (n_B1 - sls.WINDOW).clamp(min=0))
    # The remainder repeats an utterance that is shorter than a window; elsewhere it changes nothing.
    frame_BWt = (first_BW[..., None] + torch.arange(sls.WINDOW)) % n_B1[..., None]
    index_BXD = frame_BWt.flatten(1)[..., None].expand(-1, -1, hidden_BTD.shape[2])
    window_X1tD = hidden_BTD.gather(1, index_BXD).reshape(-1, 1, sls.WINDOW, hidden_BTD.shape[2])
    pooled_XF = F.max_pool2d(F.selu(masked_batch_norm(self.norm, window_X1tD, None)), sls.POOL).flatten(1)
    embedding_BWE = F.selu(self.projection(pooled_XF)).reshape(-1, n_windows, self.embedding_width)
    return masked_mean(embedding_BWE.transpose(1, 2), is_valid(n_windows_B1[:, 0], n_windows))
