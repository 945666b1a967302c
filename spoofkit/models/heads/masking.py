"""Zeroing, pooling and batch normalisation that padding does not reach.

Shapes: (B, C, T), or (B, C, F, T) with a frequency axis between; nodes of a graph stand in place of frames. A mask is
is_valid_BT, or None if all frames are valid: a batch without padding takes torch's plain path.
"""

import torch
from torch import nn
from torch.nn import functional as F

TIME_POOL = 3


def mask_or_none(is_frame_BT: torch.Tensor) -> torch.Tensor | None:
    """Return the mask, or None if nothing is padding."""
    return None if bool(is_frame_BT.all()) else is_frame_BT


def zero_invalid(hidden: torch.Tensor, is_valid_BT: torch.Tensor | None) -> torch.Tensor:
    """Set invalid frames to zero, which is what a convolution sees after the end of a single utterance."""
    if is_valid_BT is None:
        return hidden
    invalid = ~is_valid_BT[:, None] if hidden.dim() == 3 else ~is_valid_BT[:, None, None]
    return hidden.masked_fill(invalid, 0.0)


def masked_mean(hidden: torch.Tensor, is_valid_BT: torch.Tensor | None) -> torch.Tensor:
    """Average the valid frames over the last axis, time."""
    if is_valid_BT is None:
        return hidden.mean(-1)
    n_valid_B = is_valid_BT.sum(1)
    return zero_invalid(hidden, is_valid_BT).sum(-1) / n_valid_B.view(-1, *[1] * (hidden.dim() - 2))


def masked_abs_max(hidden: torch.Tensor, is_valid_BT: torch.Tensor | None) -> torch.Tensor:
    """Return the largest magnitude of the valid frames over the last axis, time."""
    return zero_invalid(hidden, is_valid_BT).abs().amax(-1)


def masked_batch_norm(norm: nn.BatchNorm1d, hidden: torch.Tensor, is_valid_BT: torch.Tensor | None) -> torch.Tensor:
    """Normalise valid frames; in training, statistics are of valid frames only. Invalid frames become zero.

    Bands are flattened away beforehand, and BatchNorm2d never called: torch 2.13 on a CPU returns wrong gradients for
    (B, C, F, 1) where they arrive in another memory format than the input's.

    Raises:
        ValueError: in training, from torch, where the batch holds a single value for each channel.
    """
    if is_valid_BT is None or not norm.training:
        normal: torch.Tensor = norm(hidden.flatten(2)).reshape(hidden.shape)
        return zero_invalid(normal, is_valid_BT)
    # The valid frames side by side are a batch without padding: (frames, C) or (frames, C, F).
    hidden = hidden.movedim(-1, 1)
    valid = norm(hidden[is_valid_BT])
    normal = valid.new_zeros(hidden.shape)
    normal[is_valid_BT] = valid
    return normal.movedim(1, -1)


def pool_time(
    hidden: torch.Tensor, is_valid_BT: torch.Tensor | None, frequency_pool: int = 1
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Take the maximum of every three frames; n valid ones become n // 3, as without padding.

    Args:
        hidden: Shape (B, C, T) or (B, C, F, T).
        is_valid_BT: Which frames are valid.
        frequency_pool: Number of neighbours on the frequency axis that are pooled together.
    """
    if hidden.dim() == 3:
        hidden = F.max_pool1d(hidden, TIME_POOL)
    else:
        hidden = F.max_pool2d(hidden, (frequency_pool, TIME_POOL))
    # A window is the utterance's own if its last frame is.
    return hidden, None if is_valid_BT is None else is_valid_BT[:, TIME_POOL - 1 :: TIME_POOL]
