"""RawNet2: residual blocks over the raw waveform's sinc filters, then a GRU that reads to the end.

Jung et al., arXiv:2004.00526, adapted to spoofing by Tak et al., arXiv:2011.01108; sizes are those of the official
baselines of ASVspoof 2021 and ASVspoof 5, which differ in what a block reads.

Shapes: B batch, C channels, T frames, E features of an embedding.
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.masking import mask_or_none, masked_batch_norm, masked_mean, pool_time
from spoofkit.models.heads.residual import ResidualBlock


class FeatureMapScaling(nn.Module):
    """Filter-wise scaling (FMS, arXiv:2004.00526): gates that read the mean over time scale and shift filters."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(n_channels, n_channels)

    def forward(self, hidden_BCT: torch.Tensor, is_valid_BT: torch.Tensor | None) -> torch.Tensor:
        """Return the scaled map, same shape; its invalid frames are meaningless."""
        gate_BC1 = torch.sigmoid(self.gate(masked_mean(hidden_BCT, is_valid_BT)))[..., None]
        return hidden_BCT * gate_BC1 + gate_BC1


class RawNet2Head(UtteranceHead):
    """RawNet2 of the ASVspoof 2021 baseline: 17,621,410 parameters with the two logits, most of them in the GRU.

    After the filters' magnitudes, seven poolings by three over time: 29 steps of the GRU for 64,600 samples.
    """

    n_logits: ClassVar[int] = 2
    front_end: ClassVar[str | None] = "sinc-rawnet2"
    shortest_frames: ClassVar[int] = 3**7
    channels: ClassVar[tuple[int, ...]] = (20, 20, 128, 128, 128, 128)
    embedding_width: int = 1024
    reads_normed: ClassVar[bool] = False
    """Whether blocks normalise what their first convolution reads."""

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm1d(width)
        pairs = pairwise((width, *self.channels))
        self.blocks = nn.ModuleList(
            ResidualBlock(1, n_in, n_out, nn.LeakyReLU(0.3), index == 0, self.reads_normed)
            for index, (n_in, n_out) in enumerate(pairs)
        )
        self.scalings = nn.ModuleList(FeatureMapScaling(n_out) for n_out in self.channels)
        self.last_norm = nn.BatchNorm1d(self.channels[-1])
        self.gru = nn.GRU(self.channels[-1], 1024, num_layers=3, batch_first=True)
        self.embed = nn.Linear(1024, self.embedding_width)

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward."""
        hidden_BCT, mask = pool_time(layers[0].transpose(1, 2).abs(), mask_or_none(is_frame_BT))
        hidden_BCT = F.selu(masked_batch_norm(self.first_norm, hidden_BCT, mask))
        for block, scaling in zip(self.blocks, self.scalings, strict=True):
            hidden_BCT, mask = pool_time(block(hidden_BCT, mask), mask)
            hidden_BCT = scaling(hidden_BCT, mask)
        hidden_BCT = F.selu(masked_batch_norm(self.last_norm, hidden_BCT, mask))
        state_BTC, _ = self.gru(hidden_BCT.transpose(1, 2))
        # The GRU reads forward, so what follows an utterance's last frame has not been seen there.
        if mask is None:
            last_BC = state_BTC[:, -1]
        else:
            last_BC = state_BTC[torch.arange(len(mask), device=mask.device), mask.sum(1) - 1]
        embedding_BE: torch.Tensor = self.embed(last_BC)
        return embedding_BE


class RawNet2Asvspoof5Head(RawNet2Head):
    """RawNet2 of the ASVspoof 5 baseline: as many parameters, but blocks read normalised, activated input.

    github.com/asvspoof-challenge/asvspoof5, Baseline-RawNet2/model.py; with 2021's weights it gives other scores.
    """

    reads_normed = True
