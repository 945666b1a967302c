"""Attentive statistics pooling: mean and standard deviation over frames under learned weights.

Okabe, Koshinaka, Shinoda, "Attentive Statistics Pooling for Deep Speaker Embedding", Interspeech 2018
(arXiv:1803.10963), equations 1-6, with tanh for their activation f and 128 hidden units.
"""

import torch
from torch import nn

from spoofkit.models.heads.base import UtteranceHead

ATTENTION_WIDTH = 128


class AttentiveHead(UtteranceHead):
    """Weighted mean and standard deviation of the valid frames; E = 2 D.

    Parameters: 128 D + 257; 131,329 for D = 1024.
    """

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        self.embedding_width = 2 * width
        self.attention = nn.Sequential(nn.Linear(width, ATTENTION_WIDTH), nn.Tanh(), nn.Linear(ATTENTION_WIDTH, 1))

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward."""
        is_padding_BT1 = ~is_frame_BT[..., None]
        hidden_BTD = layers[0].masked_fill(is_padding_BT1, 0.0)
        attention_BT1 = self.attention(hidden_BTD).masked_fill(is_padding_BT1, float("-inf"))
        weight_BT1 = torch.softmax(attention_BT1, dim=1)
        mean_BD = (weight_BT1 * hidden_BTD).sum(1)
        # The difference from the mean, squared, cannot come out negative as E[h²] - E[h]² can.
        variance_BD = (weight_BT1 * (hidden_BTD - mean_BD[:, None]).square()).sum(1)
        return torch.cat([mean_BD, torch.sqrt(variance_BD + 1e-8)], dim=1)
