"""Mean over frames: the simplest head, without parameters (the linear output layer has D + 1)."""

import torch

from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.masking import masked_mean


class MeanHead(UtteranceHead):
    """Mean of the valid frames; E = D."""

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        self.embedding_width = width

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward."""
        return masked_mean(layers[0].transpose(1, 2), is_frame_BT)
