"""The residual block that AASIST and RawNet2 share, over frequency and time or over time alone."""

import torch
from torch import nn

from spoofkit.models.heads.masking import masked_batch_norm, zero_invalid


class ResidualBlock(nn.Module):
    """Convolution, batch norm, activation, convolution, and a shortcut around them, on (B, C, T) or (B, C, F, T).

    In the papers a block other than the first starts with batch norm and activation, and so it does in ASVspoof 5's
    RawNet2. In the code of AASIST and of ASVspoof 2021's RawNet2, whose results are the published ones, the first
    convolution reads the block's input instead, and what they made of it is dropped. `unused_norm` keeps those
    parameters, so that numbers and names agree; it is frozen and never called.
    """

    def __init__(
        self, dimensions: int, n_in: int, n_out: int, activation: nn.Module, is_first: bool, reads_normed: bool = False
    ) -> None:
        """Make a block.

        Args:
            dimensions: 1 is RawNet2's block (taps over time), 2 is AASIST's (over frequency and time).
            n_in: Channels before.
            n_out: Channels after.
            activation: Of both batch norms.
            is_first: Whether no block comes before it; then it has no batch norm for its input.
            reads_normed: Whether the first convolution reads the input after batch norm and activation.
        """
        super().__init__()
        self.activation = activation
        self.shortcut: nn.Module = nn.Identity()
        self.norm = nn.BatchNorm1d(n_out)
        norm = None if is_first else nn.BatchNorm1d(n_in)
        self.first_norm = norm if reads_normed else None
        self.unused_norm = norm.requires_grad_(False) if norm is not None and not reads_normed else None
        if dimensions == 1:
            self.first: nn.Module = nn.Conv1d(n_in, n_out, 3, padding=1)
            self.second: nn.Module = nn.Conv1d(n_out, n_out, 3, padding=1)
            if n_in != n_out:
                self.shortcut = nn.Conv1d(n_in, n_out, 1)
        else:
            self.first = nn.Conv2d(n_in, n_out, (2, 3), padding=(1, 1))  # one band more ...
            self.second = nn.Conv2d(n_out, n_out, (2, 3), padding=(0, 1))  # ... and back
            if n_in != n_out:
                self.shortcut = nn.Conv2d(n_in, n_out, (1, 3), padding=(0, 1))

    def forward(self, hidden: torch.Tensor, is_valid_BT: torch.Tensor | None) -> torch.Tensor:
        """Return the block's output, same size; its invalid frames are meaningless."""
        hidden = zero_invalid(hidden, is_valid_BT)
        residual = hidden
        if self.first_norm is not None:
            residual = self.activation(masked_batch_norm(self.first_norm, hidden, is_valid_BT))
        residual = self.activation(masked_batch_norm(self.norm, self.first(residual), is_valid_BT))
        output: torch.Tensor = self.second(residual) + self.shortcut(hidden)
        return output
