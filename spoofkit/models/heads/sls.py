"""Sensitive Layer Selection: gates weight each layer, then a fully connected layer sees all frames.

Zhang, Wen, Hu, "Audio Deepfake Detection with Self-Supervised XLS-R and SLS Classifier", ACM Multimedia 2024; sizes
from the authors' public code. There the network is built for 201 frames (64,600 samples) and nothing else: their
3 x 3 max-pooling makes 67 x 341 = 22,847 inputs of the fully connected layer. What other lengths mean is our reading:
`window_frames`.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.masking import masked_batch_norm, masked_mean

WINDOW = 201
POOL = 3


def window_frames(n_frames: int) -> torch.Tensor:
    """Return the indices of the frames in an utterance's windows of 201, shape (windows, 201).

    A shorter utterance is repeated until it fills one window. A longer one is cut into as few windows as hold it, one
    behind the other; the last ends with the utterance, so that it overlaps the one before instead of being padded.

    >>> window_frames(400)[:, [0, -1]].tolist()
    [[0, 200], [199, 399]]
    """
    frames = torch.arange(WINDOW)
    if n_frames <= WINDOW:
        return frames[None] % n_frames
    starts = torch.arange(math.ceil(n_frames / WINDOW)) * WINDOW
    return starts.clamp(max=n_frames - WINDOW)[:, None] + frames


class SlsHead(UtteranceHead):
    """Gated sum of the layers, 3 x 3 max-pooling, fully connected layer; mean over windows; E = D.

    The encoder's input (the first hidden state) is left out, as in the paper. The gates are one number a layer and
    utterance, from the mean over its valid frames. The authors put one more SELU behind the two logits; our output
    layer has none, so that every loss can follow (their own models, converted, have it: SCORES in models/detector.py).

    Parameters: 67 floor(D / 3) D + 2 D + 3; 23,397,379 for D = 1024. With the two logits behind it 23,399,429: that of
    the authors' code, and the 23,399k that arXiv:2504.05657 counts.
    """

    reads_all_layers = True
    n_logits = 2

    def __init__(self, width: int, n_hidden: int) -> None:
        super().__init__()
        self.embedding_width = width
        self.gate = nn.Linear(width, 1)
        self.norm = nn.BatchNorm1d(1)
        self.projection = nn.Linear((WINDOW // POOL) * (width // POOL), width)

    def forward(self, layers: list[torch.Tensor], is_frame_BT: torch.Tensor) -> torch.Tensor:
        """See UtteranceHead.forward."""
        hidden_BTD = torch.zeros_like(layers[0])
        for layer_BTD in layers[1:]:
            gate_B1 = torch.sigmoid(self.gate(masked_mean(layer_BTD.transpose(1, 2), is_frame_BT)))
            hidden_BTD = hidden_BTD + gate_B1[..., None] * layer_BTD
        windows = [window_frames(n_frames).to(hidden_BTD.device) for n_frames in is_frame_BT.sum(1).tolist()]
        # W windows of all utterances; they hold no padding.
        window_WTD = torch.cat([utterance_TD[frames] for utterance_TD, frames in zip(hidden_BTD, windows, strict=True)])
        window_W1TD = F.selu(masked_batch_norm(self.norm, window_WTD[:, None], None))
        pooled_WF = F.max_pool2d(window_W1TD, POOL).flatten(1)
        embedding_WE = F.selu(self.projection(pooled_WF))
        per_utterance = embedding_WE.split([len(frames) for frames in windows])
        return torch.stack([windows_WE.mean(0) for windows_WE in per_utterance])
