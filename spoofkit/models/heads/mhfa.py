"""Multi-head factorized attentive pooling: keys and values are two different sums of the layers.

Peng, Plchot, Stafylakis, Mošner, Burget, Černocký, "An attention-based backend allowing efficient fine-tuning of
transformer models for speaker verification", SLT 2022 (arXiv:2210.01273), section 2; sizes from the authors' public
code (32 heads, compression to 128, embeddings of 256), which public recipes for spoofing detection use too.
"""

import torch
from torch import nn

from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.layer_merge import WeightedMerge

N_HEADS = 32
COMPRESSED = 128
EMBEDDING = 256


class MhfaHead(UtteranceHead):
    """Keys say where each head looks, values what it finds there; E = 256.

    Parameters: 2 n + 256 (D + 1) + 1,052,960 with n = n_hidden; 1,315,410 for D = 1024 and n = 25. No paper states its
    count for this geometry; the formula follows from the layers of the authors' code.
    """

    reads_all_layers = True

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        self.embedding_width = EMBEDDING
        self.key_merge = WeightedMerge(n_hidden)
        self.value_merge = WeightedMerge(n_hidden)
        self.key = nn.Linear(width, COMPRESSED)
        self.value = nn.Linear(width, COMPRESSED)
        self.attention = nn.Linear(COMPRESSED, N_HEADS)
        self.projection = nn.Linear(N_HEADS * COMPRESSED, EMBEDDING)

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward."""
        key_BTC = self.key(self.key_merge(layers, is_frame_BT))
        value_BTC = self.value(self.value_merge(layers, is_frame_BT))
        attention_BTH = self.attention(key_BTC).masked_fill(~is_frame_BT[..., None], float("-inf"))
        weight_BTH = torch.softmax(attention_BTH, dim=1)
        pooled_BHC = weight_BTH.transpose(1, 2) @ value_BTC
        embedding_BE: torch.Tensor = self.projection(pooled_BHC.flatten(1))
        return embedding_BE
