"""Reference-augmented training (RAT): in training the head also sees a bona fide utterance of the same speaker.

"Reference-Augmented Training for ASV Anti-Spoofing" (arXiv:2606.10908, Interspeech 2026); sizes and formula from the
authors' code (github.com/Security-FIT/RAT, 04eaf56, classifiers/differential/RAT.py). At inference the reference is
zeros, so the trained model scores single utterances. Their code knows no padding, of which ours leaves every frame out.
"""

import torch
from torch import nn

from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.masking import masked_mean

N_HEADS = 4


class RatHead(UtteranceHead):
    """Each frame attends to the reference's frames; mean over layers and time, two layers with batch norm; E = D / 4.

    One block for every hidden state: h' = LN(h + attention(LN(h), LN(r), LN(r)) + MLP(LN(h))), r the reference's hidden
    state. Of several hidden states the first, the encoder's input, is left out, as in the authors' code.

    Parameters: 4 D (D + 1) + D (8 D + 5) + 4 D + (D / 2) (D + 3) + (D / 4) (D / 2 + 3); 13,253,888 for D = 1024 however
    many layers, and 13,254,402 with the two logits behind it, as in the authors' code.
    """

    reads_all_layers = True
    n_logits = 2

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        inner = width // 2
        self.embedding_width = inner // 2
        self.norm_in = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, N_HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.norm_out = nn.LayerNorm(width)
        self.classifier = nn.Sequential(
            nn.Linear(width, inner), nn.BatchNorm1d(inner), nn.ReLU(),
            nn.Linear(inner, self.embedding_width), nn.BatchNorm1d(self.embedding_width), nn.ReLU(),
        )  # fmt: skip

    def forward(
        self,
        layers: list[torch.Tensor],
        is_frame_BT: torch.Tensor,
        reference: tuple[list[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """See UtteranceHead.forward; `reference` has the same two of the reference utterances. Default: zeros."""
        layers = above_input(layers)
        if reference is None:  # as many equal keys as one likes are as one
            keys, is_padding_BR = [torch.zeros_like(layers[0][:, :1])] * len(layers), None
        else:
            keys, is_padding_BR = [self.norm_in(hidden_BRD) for hidden_BRD in above_input(reference[0])], ~reference[1]
        mean_BD = torch.zeros_like(layers[0][:, 0])
        for hidden_BTD, keys_BRD in zip(layers, keys, strict=True):
            normal_BTD = self.norm_in(hidden_BTD)
            attended_BTD, _ = self.attention(
                normal_BTD, keys_BRD, keys_BRD, key_padding_mask=is_padding_BR, need_weights=False
            )
            informed_BTD = self.norm_out(hidden_BTD + attended_BTD + self.mlp(normal_BTD))
            mean_BD = mean_BD + masked_mean(informed_BTD.transpose(1, 2), is_frame_BT) / len(layers)
        embedding_BE: torch.Tensor = self.classifier(mean_BD)
        return embedding_BE


def above_input(layers: list[torch.Tensor]) -> list[torch.Tensor]:
    """Leave out the first of several hidden states, the encoder's input."""
    return layers[1:] or layers
