"""Nes2Net-X: a Res2Net whose parts are Res2Nets, on frames of the encoder's full width.

Liu, Truong, Das, Lee, Li, "Nes2Net: A Lightweight Nested Architecture for Foundation Model Driven Speech
Anti-Spoofing", IEEE TIFS 2025 (arXiv:2504.05657); sizes from the authors' public code for ASVspoof (8 x 8 parts,
kernel 3, dilation 2, squeeze-excitation without reduction, mean pooling).

Shapes: C channels of a group (D / 8), W channels of a part of it (C / 8), K parts side by side.
"""

import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.errors import SpoofkitError
from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.masking import mask_or_none, masked_batch_norm, masked_mean

N_GROUPS = 8
N_PARTS = 8
KERNEL, DILATION = 3, 2


class Nes2NetHead(UtteranceHead):
    """Eight groups of features, each but the last through a block that also sees what the one before made; E = D.

    Parameters: 7 (4 C² + 10 C + 21 W² + 21 W + 35) + 2 D with C = D / 8 and W = C / 8; 509,989 for D = 1024. With two
    logits behind it 512,039, with one 511,014: the 511k of the paper (the authors' code has one logit for singing
    voices, two for ASVspoof).
    """

    n_logits = 2

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        if width % N_GROUPS:
            raise SpoofkitError(
                f"head nes2net: the encoder's frames have {width} features, expected a multiple of {N_GROUPS}; "
                "choose another head or encoder"
            )
        self.embedding_width = width
        self.blocks = nn.ModuleList(Res2NetBlock(width // N_GROUPS) for _ in range(N_GROUPS - 1))
        self.norm = nn.BatchNorm1d(width)

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward."""
        mask = mask_or_none(is_frame_BT)
        *groups, last_BCT = layers[0].transpose(1, 2).chunk(N_GROUPS, dim=1)
        outputs: list[torch.Tensor] = []
        for block, group_BCT in zip(self.blocks, groups, strict=True):
            outputs.append(block(outputs[-1] + group_BCT if outputs else group_BCT, mask))
        hidden_BDT = F.relu(masked_batch_norm(self.norm, torch.cat([*outputs, last_BCT], dim=1), mask))
        return masked_mean(hidden_BDT, mask)


class Res2NetBlock(nn.Module):
    """Res2Net block of Nes2Net-X: what the parts see is not added up but kept side by side."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        n_part = max(1, n_channels // N_PARTS)
        self.conv_in = nn.Conv1d(n_channels, N_PARTS * n_part, 1)
        self.norm_in = nn.BatchNorm1d(N_PARTS * n_part)
        self.parts = nn.ModuleList(Res2NetPart(n_part, n_side) for n_side in range(2, N_PARTS + 1))
        self.conv_out = nn.Conv1d(N_PARTS * n_part, n_channels, 1)
        self.norm_out = nn.BatchNorm1d(n_channels)
        self.excitation = nn.Sequential(
            nn.Linear(n_channels, n_channels), nn.ReLU(), nn.Linear(n_channels, n_channels), nn.Sigmoid()
        )
        self.norm = nn.BatchNorm1d(n_channels)

    def forward(self, group_BCT: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Transform frames, same shape; `mask` is is_frame_BT, or None if all are valid."""
        hidden_BCT = masked_batch_norm(self.norm_in, F.relu(self.conv_in(group_BCT)), mask)
        *inputs, last_BWT = hidden_BCT.chunk(N_PARTS, dim=1)
        side_BWKT = last_BWT[:, :, None]
        outputs: list[torch.Tensor] = []
        for part, input_BWT in zip(self.parts, inputs, strict=True):
            side_BWKT, output_BWT = part(torch.cat([side_BWKT, input_BWT[:, :, None]], dim=2), mask)
            outputs.append(output_BWT)
        hidden_BCT = F.relu(self.conv_out(torch.cat([*outputs, last_BWT], dim=1)))
        hidden_BCT = masked_batch_norm(self.norm_out, hidden_BCT, mask)
        gate_BC1 = self.excitation(masked_mean(hidden_BCT, mask))[..., None]
        return masked_batch_norm(self.norm, F.relu(hidden_BCT * gate_BC1 + group_BCT), mask)


class Res2NetPart(nn.Module):
    """One convolution over everything side by side, and its sum under learned weights, which start equal."""

    def __init__(self, n_channels: int, n_side: int) -> None:
        super().__init__()
        # Time is the last dimension here; the authors have it second to last, so their kernels are transposed.
        self.conv = nn.Conv2d(
            n_channels, n_channels, (1, KERNEL), dilation=(1, DILATION), padding=(0, KERNEL // 2 * DILATION)
        )
        self.norm = nn.BatchNorm1d(n_channels)
        self.weight_K = nn.Parameter(torch.full((n_side,), 1 / n_side))

    def forward(self, side_BWKT: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the frames side by side for the next part, and the sum, shape (B, W, T)."""
        # After an utterance the convolution must see zeros, as without padding: masked_batch_norm has set them.
        side_BWKT = masked_batch_norm(self.norm, F.relu(self.conv(side_BWKT)), mask)
        return side_BWKT, (side_BWKT * self.weight_K[:, None]).sum(2)
