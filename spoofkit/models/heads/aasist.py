"""AASIST: a spectral and a temporal graph that compete (Jung et al., arXiv:2110.01200), on SSL frames or raw waveforms.

The head takes a map of features over time for a picture, lets residual blocks read it, and makes a graph of its rows
and one of its columns (spoofkit.models.heads.graph).
Shapes: B batch, T frames, D features of a frame, C channels, F bands, N temporal nodes, E features of an embedding.
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.graph import GraphPart, GraphSizes
from spoofkit.models.heads.masking import (
    mask_or_none,
    masked_abs_max,
    masked_batch_norm,
    pool_time,
)
from spoofkit.models.heads.residual import ResidualBlock

FREQUENCY_POOL = 3


class RawAasistHead(UtteranceHead):
    """AASIST on the sinc filters of the raw waveform: 297,866 parameters with the two logits, as published.

    After the filters' magnitudes, seven poolings by three over time: 29 temporal nodes of 64,600 samples.
    """

    n_logits: ClassVar[int] = 2
    front_end: ClassVar[str | None] = "sinc-aasist"
    shortest_frames: ClassVar[int] = 3**7
    channels: ClassVar[tuple[int, ...]] = (32, 32, 64, 64, 64, 64)
    sizes: ClassVar[GraphSizes] = GraphSizes(temporal_share=0.7)

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm1d(1)
        self.blocks = _residual_blocks(self.channels)
        self.graph = GraphPart(self.sizes, width // FREQUENCY_POOL)
        self.embedding_width = 5 * self.sizes.stack_width

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward."""
        mask = mask_or_none(is_frame_BT)
        map_BCFT, mask = pool_time(layers[0].transpose(1, 2)[:, None].abs(), mask, FREQUENCY_POOL)
        map_BCFT = F.selu(masked_batch_norm(self.first_norm, map_BCFT, mask))
        for block in self.blocks:
            map_BCFT, mask = pool_time(block(map_BCFT, mask), mask)
        spectral_BFC = masked_abs_max(map_BCFT, mask).transpose(1, 2)
        temporal_BNC = map_BCFT.abs().amax(2).transpose(1, 2)
        embedding_BE: torch.Tensor = self.graph(spectral_BFC, temporal_BNC, mask)
        return embedding_BE


class RawAasistLightHead(RawAasistHead):
    """AASIST-L: 85,306 parameters with the two logits, as published."""

    channels: ClassVar[tuple[int, ...]] = (32, 32, 24, 24, 24, 24)
    sizes: ClassVar[GraphSizes] = GraphSizes(width=24, spectral_share=0.4, temporal_share=0.5, stack_share=0.7)


class AasistHead(UtteranceHead):
    """AASIST on SSL frames (Tak et al., arXiv:2202.12233, and their code).

    D features become 128, pooling by three leaves 42 bands and a third of the frames, and the residual blocks pool no
    more. Rows and columns are gathered by learned attention in place of the maximum. With D = 1024 and the two logits
    447,242 parameters: 317.8378 million with XLS-R 300M, as is published of SSL-AASIST. Attention looks at all pairs of
    nodes, so memory grows with the square of the duration: about 0.5 GB for scoring an utterance of a minute.
    """

    n_logits: ClassVar[int] = 2
    shortest_frames: ClassVar[int] = 3
    projected_width: ClassVar[int] = 128
    channels: ClassVar[tuple[int, ...]] = (32, 32, 64, 64, 64, 64)
    sizes: ClassVar[GraphSizes] = GraphSizes()

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        n_channels = self.channels[-1]
        self.project = nn.Linear(width, self.projected_width)
        self.first_norm = nn.BatchNorm1d(1)
        self.blocks = _residual_blocks(self.channels)
        self.last_norm = nn.BatchNorm1d(n_channels)
        self.attention_in = nn.Conv2d(n_channels, 128, 1)
        self.attention_norm = nn.BatchNorm1d(128)
        self.attention_out = nn.Conv2d(128, n_channels, 1)
        self.graph = GraphPart(self.sizes, self.projected_width // FREQUENCY_POOL)
        self.embedding_width = 5 * self.sizes.stack_width

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward."""
        mask = mask_or_none(is_frame_BT)
        map_BCFT, mask = pool_time(self.project(layers[0]).transpose(1, 2)[:, None], mask, FREQUENCY_POOL)
        map_BCFT = F.selu(masked_batch_norm(self.first_norm, map_BCFT, mask))
        for block in self.blocks:
            map_BCFT = block(map_BCFT, mask)
        map_BCFT = F.selu(masked_batch_norm(self.last_norm, map_BCFT, mask))
        score_BCFT = masked_batch_norm(self.attention_norm, F.selu(self.attention_in(map_BCFT)), mask)
        score_BCFT = self.attention_out(score_BCFT)
        temporal_BNC = (map_BCFT * score_BCFT.softmax(2)).sum(2).transpose(1, 2)
        if mask is not None:
            score_BCFT = score_BCFT.masked_fill(~mask[:, None, None], float("-inf"))
        spectral_BFC = (map_BCFT * score_BCFT.softmax(3)).sum(3).transpose(1, 2)
        embedding_BE: torch.Tensor = self.graph(spectral_BFC, temporal_BNC, mask)
        return embedding_BE


def _residual_blocks(channels: tuple[int, ...]) -> nn.ModuleList:
    pairs = pairwise((1, *channels))
    return nn.ModuleList(
        ResidualBlock(2, n_in, n_out, nn.SELU(), is_first=index == 0) for index, (n_in, n_out) in enumerate(pairs)
    )
