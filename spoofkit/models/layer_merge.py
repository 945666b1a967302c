"""How the hidden states of all layers become one, for heads that read one.

Padding changes no result. The last layer is taken before the encoder's final norm (docs/models.md).

Shapes: B batch, T frames, D features, L layers.
"""

import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.errors import SpoofkitError

MERGES = ("weighted", "gated")


def make_merge(kind: str, n_hidden: int, width: int) -> nn.Module:
    """Build the merge of that name; its forward takes all hidden states and is_frame_BT and returns one hidden_BTD.

    Args:
        kind: One of `MERGES`.
        n_hidden: Number of hidden states: the input of the first layer, then one for each layer.
        width: D.

    Raises:
        SpoofkitError: `gated` without layers to gate.
    """
    if kind == "weighted":
        return WeightedMerge(n_hidden)
    if kind == "gated":
        if n_hidden < 2:
            raise SpoofkitError("layers: gated merges the outputs of the encoder's layers, found none; use last")
        return GatedMerge(n_hidden, width)
    raise ValueError(f"merge {kind!r}: expected one of {', '.join(MERGES)}")


class WeightedMerge(nn.Module):
    """Weighted sum of all hidden states; the weights add up to one and start equal.

    Yang et al., "SUPERB: Speech processing Universal PERformance Benchmark" (arXiv:2105.01051), section 3: the
    weighted sum that S3PRL uses for every task, where the last state is taken after the final norm.

    Parameters: n_hidden; 25 for XLS-R 300M.
    """

    def __init__(self, n_hidden: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_hidden))

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """Return the merged hidden_BTD."""
        weight_L = torch.softmax(self.logits, dim=0)
        hidden_BTD = torch.zeros_like(layers[0])
        for weight, layer_BTD in zip(weight_L, layers, strict=True):
            hidden_BTD = hidden_BTD + weight * layer_BTD
        return hidden_BTD


class GatedMerge(nn.Module):
    """Attentive merging (AttM): layers are gated utterance by utterance, concatenated and projected to one.

    Pan, Liu, Sailor, Wang (arXiv:2406.10283), section 2; sizes from the authors' public code. With X1 the L layers:
    X2 is the mean of X1 over time, X3 = swish(X2 W) one number a layer, X4 = sigmoid(swish(X3 W1) W2) the gates,
    X5 = X4 X1; the L D features of a frame then go through a hidden layer of L D / 4 swish units to D. The encoder's
    input (the first hidden state) is left out, so L = n_hidden - 1. Weights start as torch's linear layers do; the
    authors draw W, W1 and W2 from a normal distribution of variance 1, which closes or opens most gates at once.

    Parameters: D + 2 L floor(L / 2) + H (L D + 1) + D (H + 1) with H = floor(L D / 4); for D = 1024 157,295,168 with
    24 layers and 40,899,728 with the 12 that the paper keeps. Nearly all of it is the projection, which the paper's
    counts of its back-end leave out.
    """

    def __init__(self, n_hidden: int, width: int) -> None:
        super().__init__()
        n_layers = n_hidden - 1
        n_squeezed = max(1, n_layers // 2)
        n_units = n_layers * width // 4
        self.pool = nn.Linear(width, 1, bias=False)
        self.squeeze = nn.Linear(n_layers, n_squeezed, bias=False)
        self.excite = nn.Linear(n_squeezed, n_layers, bias=False)
        self.projection = nn.Sequential(nn.Linear(n_layers * width, n_units), nn.SiLU(), nn.Linear(n_units, width))

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """Return the merged hidden_BTD."""
        layers = layers[1:]
        n_frames_B1 = is_frame_BT.sum(1, keepdim=True)
        is_padding_BT1 = ~is_frame_BT[..., None]
        means = [layer_BTD.masked_fill(is_padding_BT1, 0.0).sum(1) / n_frames_B1 for layer_BTD in layers]
        pooled_BL = F.silu(self.pool(torch.stack(means, dim=1)).squeeze(-1))
        gate_BL = torch.sigmoid(self.excite(F.silu(self.squeeze(pooled_BL))))
        gated = [gate_B[:, None, None] * layer_BTD for gate_B, layer_BTD in zip(gate_BL.unbind(1), layers, strict=True)]
        hidden_BTD: torch.Tensor = self.projection(torch.cat(gated, dim=-1))
        return hidden_BTD
