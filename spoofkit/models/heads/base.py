"""The base of utterance heads: frames in, one embedding per utterance out.

The embedding goes to an output layer (`spoofkit.models.losses`), which makes the score and the loss; so any head can be
trained with any loss. Shapes: B batch, T frames, D features of a frame, E features of an embedding.
"""

from typing import ClassVar

import torch
from torch import nn


class UtteranceHead(nn.Module):
    """Base of all utterance heads.

    Frames that are padding change nothing: neither the embedding, nor (in training) batch statistics.

    Args of every constructor:
        width: D.
        n_hidden: Hidden states that the encoder offers: its input to the first layer, then one for each layer.
    """

    reads_all_layers: ClassVar[bool] = False
    """Whether `forward` can get all hidden states, not just one."""
    n_logits: ClassVar[int] = 1
    """Outputs of the linear layer after the embedding: 2 where the paper has two, so that parameters agree."""
    front_end: ClassVar[str | None] = None
    """The only encoder that this head works on (raw-waveform baselines); None for any."""
    shortest_frames: ClassVar[int] = 1
    """Smallest number of valid frames that the head can use."""
    embedding_width: int
    """E."""

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """Embed utterances; shape (B, E).

        Args:
            layers: One hidden_BTD, or with `reads_all_layers` all `n_hidden` of them, lowest first. Values where
                `is_frame_BT` is false are meaningless and may be anything finite.
            is_frame_BT: True where a frame is the utterance's own: first frames true, the rest false.
        """
        raise NotImplementedError
