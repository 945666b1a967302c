"""The back-end of AttM-LSTM: one LSTM over the frames, mean of its outputs.

Pan, Liu, Sailor, Wang, "Attentive Merging of Hidden Embeddings from Pre-trained Speech Model for Anti-spoofing
Detection", Interspeech 2024 (arXiv:2406.10283); sizes from the authors' public code. Their merging of layers is the
merge `gated` (`spoofkit.models.layer_merge`).
"""

import torch
from torch import nn

from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.masking import masked_mean

LSTM_WIDTH = 192


class LstmHead(UtteranceHead):
    """Mean over the valid frames of an LSTM's outputs; E = 192.

    The LSTM runs forwards only, so what follows an utterance never reaches its own frames.

    Parameters: 768 (D + 194); 935,424 for D = 1024. With the two logits behind it 935,810: the 936k that
    arXiv:2504.05657 counts for AttM-LSTM.
    """

    n_logits = 2

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        self.embedding_width = LSTM_WIDTH
        self.lstm = nn.LSTM(width, LSTM_WIDTH, batch_first=True)

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward."""
        output_BTE, _ = self.lstm(layers[0])
        return masked_mean(output_BTE.transpose(1, 2), is_frame_BT)
