"""The frame head, between the encoder's frames and the output layer that classifies each of them."""

import torch
from torch import nn


class FrameHead(nn.Module):
    """Trunk of the frame classifier; the output layer (`spoofkit.models.losses`) follows it, frame by frame.

    `linear`: the frames as they are, no parameters. `mlp`: one hidden layer of D GELU units, D² + D parameters.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.embedding_width = width
        if kind == "linear":
            self.trunk: nn.Module = nn.Identity()
        elif kind == "mlp":
            self.trunk = nn.Sequential(nn.Linear(width, width), nn.GELU())
        else:
            raise ValueError(f"frame head {kind!r}: expected linear or mlp")

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Return embedding_BTE with E = D."""
        embedding_BTE: torch.Tensor = self.trunk(hidden_BTD)
        return embedding_BTE
