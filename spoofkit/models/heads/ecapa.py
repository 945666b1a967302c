"""ECAPA-TDNN: Res2Net blocks with squeeze-excitation, all of them pooled by attention that knows the whole utterance.

Desplanques, Thienpondt, Demuynck, "ECAPA-TDNN: Emphasized Channel Attention, Propagation and Aggregation in TDNN Based
Speaker Verification", Interspeech 2020 (arXiv:2005.07143), with C = 512 and embeddings of 192. Numbers are those of
WeSpeaker's ECAPA_TDNN_GLOB_c512 with `emb_bn` (a test compares them), the variant that has the paper's context in its
pooling and its batch norm behind the embedding. What is known to differ elsewhere:

* A block reads the block before it, in WeSpeaker as in SpeechBrain; section 3.3 of the paper adds up the outputs of
  all blocks before it.
* The paper leaves the activation of the attention's hidden layer open; it is tanh in WeSpeaker, and here.
* AttM's public code (arXiv:2406.10283) has a linear layer for the first convolution, the sums of section 3.3, and 256
  units with ReLU, batch norm and tanh in its attention.

Shapes: B batch, C channels, W channels of a part (C / 8), T frames, E features of an embedding.
"""

import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.errors import SpoofkitError
from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.masking import mask_or_none, masked_batch_norm, masked_mean, zero_invalid

CHANNELS = 512
DILATIONS = (2, 3, 4)
N_PARTS = 8
POOLED = 1536
BOTTLENECK = 128  # of squeeze-excitation and of the attention
EMBEDDING = 192
SMALLEST_VARIANCE = 1e-7  # WeSpeaker's; the root of nothing has no gradient


class EcapaHead(UtteranceHead):
    """Three SE-Res2Blocks, attentive statistics of all their outputs, a linear layer; E = 192.

    In training a batch needs two utterances: the last two batch norms see one vector of each.

    Parameters: 2560 D + 5,986,304; 8,607,744 for D = 1024, and for the 80 features of the paper its 6.2 million.
    """

    n_logits = 2

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        self.embedding_width = EMBEDDING
        self.first = NormedConvolution(width, CHANNELS, kernel=5)
        self.blocks = nn.ModuleList(SeRes2Block(CHANNELS, dilation) for dilation in DILATIONS)
        self.aggregation = nn.Conv1d(len(DILATIONS) * CHANNELS, POOLED, 1)
        self.pooling = ContextPooling(POOLED)
        self.pooled_norm = nn.BatchNorm1d(2 * POOLED)
        self.embed = nn.Linear(2 * POOLED, EMBEDDING)
        self.embedding_norm = nn.BatchNorm1d(EMBEDDING)

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward.

        Raises:
            SpoofkitError: in training, for a single utterance.
        """
        if self.training and len(is_frame_BT) == 1:
            raise SpoofkitError(
                "head ecapa: its batch norms need at least two utterances, found one in a micro-batch; raise "
                "batch_size or micro_batch_size, or use fewer processes"
            )
        mask = mask_or_none(is_frame_BT)
        hidden_BCT = self.first(zero_invalid(layers[0].transpose(1, 2), mask), mask)
        outputs: list[torch.Tensor] = []
        for block in self.blocks:
            hidden_BCT = block(hidden_BCT, mask)
            outputs.append(hidden_BCT)
        pooled_BC = self.pooling(F.relu(self.aggregation(torch.cat(outputs, dim=1))), is_frame_BT)
        embedding_BE: torch.Tensor = self.embedding_norm(self.embed(self.pooled_norm(pooled_BC)))
        return embedding_BE


class NormedConvolution(nn.Module):
    """Convolution over time, ReLU, batch norm, in the paper's order; frames that are padding come out as zeros."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, kernel, dilation=dilation, padding=kernel // 2 * dilation)
        self.norm = nn.BatchNorm1d(n_out)

    def forward(self, hidden_BCT: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Convolve frames to the same number of frames; padding in `hidden_BCT` must be zero."""
        return masked_batch_norm(self.norm, F.relu(self.conv(hidden_BCT)), mask)


class SeRes2Block(nn.Module):
    """Each part of the channels is convolved together with what the part before it became; then squeeze-excitation."""

    def __init__(self, n_channels: int, dilation: int) -> None:
        super().__init__()
        n_part = n_channels // N_PARTS
        self.conv_in = NormedConvolution(n_channels, n_channels)
        self.parts = nn.ModuleList(NormedConvolution(n_part, n_part, 3, dilation) for _ in range(N_PARTS - 1))
        self.conv_out = NormedConvolution(n_channels, n_channels)
        self.excitation = nn.Sequential(
            nn.Linear(n_channels, BOTTLENECK), nn.ReLU(), nn.Linear(BOTTLENECK, n_channels), nn.Sigmoid()
        )

    def forward(self, hidden_BCT: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Transform frames; same shape."""
        *inputs, last_BWT = self.conv_in(hidden_BCT, mask).chunk(N_PARTS, dim=1)
        outputs: list[torch.Tensor] = []
        for part, input_BWT in zip(self.parts, inputs, strict=True):
            outputs.append(part(outputs[-1] + input_BWT if outputs else input_BWT, mask))
        inner_BCT = self.conv_out(torch.cat([*outputs, last_BWT], dim=1), mask)
        gate_BC1 = self.excitation(masked_mean(inner_BCT, mask))[..., None]
        output_BCT: torch.Tensor = hidden_BCT + gate_BC1 * inner_BCT
        return output_BCT


class ContextPooling(nn.Module):
    """Weighted mean and standard deviation; the weights, one a channel and frame, also see the plain ones."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.read_frame = nn.Conv1d(n_channels, BOTTLENECK, 1)
        # The same for all frames of an utterance, so it is multiplied once: one layer with the one above.
        self.read_context = nn.Linear(2 * n_channels, BOTTLENECK, bias=False)
        self.attend = nn.Conv1d(BOTTLENECK, n_channels, 1)

    def forward(self, hidden_BCT: torch.Tensor, is_frame_BT: torch.Tensor) -> torch.Tensor:
        """Pool frames; shape (B, 2 C)."""
        mean_BC = masked_mean(hidden_BCT, is_frame_BT)
        squares_BC = zero_invalid(hidden_BCT - mean_BC[..., None], is_frame_BT).square().sum(-1)
        variance_BC = squares_BC / (is_frame_BT.sum(1, keepdim=True) - 1).clamp(min=1)
        context_BC = torch.cat([mean_BC, torch.sqrt(variance_BC + SMALLEST_VARIANCE)], dim=1)
        read_BCT = torch.tanh(self.read_frame(hidden_BCT) + self.read_context(context_BC)[..., None])
        attention_BCT = self.attend(read_BCT).masked_fill(~is_frame_BT[:, None], float("-inf"))
        weight_BCT = torch.softmax(attention_BCT, dim=-1)
        mean_BC = (weight_BCT * hidden_BCT).sum(-1)
        variance_BC = (weight_BCT * (hidden_BCT - mean_BC[..., None]).square()).sum(-1)
        return torch.cat([mean_BC, variance_BC.clamp(min=SMALLEST_VARIANCE).sqrt()], dim=1)
