"""What sits on an encoder: a frame classifier for post-training, an utterance classifier for detection.

Both are mask-correct: frames that are padding change nothing. Shapes: B batch, T frames, D features.
"""

import torch
from torch import nn

UTTERANCE_HEADS = ("mean", "attentive")


class FrameHead(nn.Module):
    """Frame classifier: log-odds that a frame's target is 1.

    `linear`: D + 1 parameters. `mlp`: one hidden layer of D GELU units, D² + 2 D + 1 parameters.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        if kind == "linear":
            self.layers = nn.Sequential(nn.Linear(width, 1))
        elif kind == "mlp":
            self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        else:
            raise ValueError(f"frame head {kind!r}: expected linear or mlp")

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Log-odds of each frame, shape (B, T)."""
        logit_BT: torch.Tensor = self.layers(hidden_BTD).squeeze(-1)
        return logit_BT


class UtteranceHead(nn.Module):
    """Utterance classifier: log-odds that the utterance is bona fide.

    `mean`: mean over frames, then linear. `attentive`: attentive statistics pooling (Okabe et al., arXiv:1803.10963,
    equations 1-6): weighted mean and standard deviation under learned weights, then linear.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "mean":
            self.classifier = nn.Linear(width, 1)
        elif kind == "attentive":
            self.attention = nn.Sequential(nn.Linear(width, 128), nn.Tanh(), nn.Linear(128, 1))
            self.classifier = nn.Linear(2 * width, 1)
        else:
            raise ValueError(f"utterance head {kind!r}: expected mean or attentive")

    def forward(self, hidden_BTD: torch.Tensor, is_frame_BT: torch.Tensor) -> torch.Tensor:
        """Log-odds of each utterance, shape (B,)."""
        hidden_BTD = hidden_BTD.masked_fill(~is_frame_BT[..., None], 0.0)
        if self.kind == "mean":
            pooled_BD = hidden_BTD.sum(1) / is_frame_BT.sum(1, keepdim=True)
        else:
            attention_BT1 = self.attention(hidden_BTD).masked_fill(~is_frame_BT[..., None], float("-inf"))
            weight_BT1 = torch.softmax(attention_BT1, dim=1)
            mean_BD = (weight_BT1 * hidden_BTD).sum(1)
            # The difference from the mean, squared, cannot come out negative as E[h²] - E[h]² can.
            variance_BD = (weight_BT1 * (hidden_BTD - mean_BD[:, None]).square()).sum(1)
            pooled_BD = torch.cat([mean_BD, torch.sqrt(variance_BD + 1e-8)], dim=1)
        logit_B: torch.Tensor = self.classifier(pooled_BD).squeeze(-1)
        return logit_B
