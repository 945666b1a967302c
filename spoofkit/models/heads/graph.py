"""The graph part of AASIST: attention between nodes, pooling of nodes, and the stack of both (arXiv:2110.01200).

A node is a vector: a spectral node stands for a band, a temporal one for a frame. Spectral nodes are equally many in
all utterances; of temporal ones an utterance has as many as its length gives, marked by a mask (none: all valid).
Shapes: B batch, N or M nodes, T temporal nodes, S spectral nodes, D features.
"""

from dataclasses import dataclass

import torch
from torch import nn

from spoofkit.models.heads.masking import masked_abs_max, masked_batch_norm, masked_mean


@dataclass(frozen=True)
class GraphSizes:
    """Sizes of the graph part, as the published configurations give them."""

    width: int = 64
    """Number of features of a node before the stack."""
    stack_width: int = 32
    """Number of features of a node in the stack."""
    spectral_share: float = 0.5
    """Share of spectral nodes that pooling keeps before the stack."""
    temporal_share: float = 0.5
    """Share of temporal nodes that pooling keeps before the stack."""
    stack_share: float = 0.5
    """Share of both kinds of nodes that pooling keeps inside the stack."""
    temperature: float = 2.0
    """Divisor of attention before the stack."""
    stack_temperature: float = 100.0
    """Divisor of attention in the stack."""


class Spread(nn.Module):
    """The end of both graph layers: nodes plus what they receive, batch norm, SELU."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.received = nn.Linear(n_in, n_out)
        self.own = nn.Linear(n_in, n_out)
        self.norm = nn.BatchNorm1d(n_out)

    def forward(self, node_BND: torch.Tensor, score_BNM: torch.Tensor, is_node_BN: torch.Tensor | None) -> torch.Tensor:
        """Return new nodes, each the mean of all valid ones weighted by its row of scores; invalid ones are zero."""
        if is_node_BN is not None:
            score_BNM = score_BNM.masked_fill(~is_node_BN[:, None], float("-inf"))
        received_BND = score_BNM.softmax(2) @ node_BND
        node_BND = self.received(received_BND) + self.own(node_BND)
        normal_BDN = masked_batch_norm(self.norm, node_BND.transpose(1, 2), is_node_BN)
        return nn.functional.selu(normal_BDN.transpose(1, 2))


class GraphAttention(nn.Module):
    """Attention among nodes of one kind (arXiv:2110.01200, section 2.2): 3 D² + 6 D parameters."""

    def __init__(self, width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.dropout = nn.Dropout(0.2)
        self.pair = nn.Linear(width, width)
        self.score = _weight(width)
        self.spread = Spread(width, width)

    def forward(self, node_BND: torch.Tensor, is_node_BN: torch.Tensor | None) -> torch.Tensor:
        """Return new nodes, same shape; invalid ones are zero."""
        node_BND = self.dropout(_zero_nodes(node_BND, is_node_BN))
        pair_BNMD = torch.tanh(self.pair(node_BND[:, :, None] * node_BND[:, None]))
        score_BNM = (pair_BNMD @ self.score).squeeze(-1) / self.temperature
        new_BND: torch.Tensor = self.spread(node_BND, score_BNM, is_node_BN)
        return new_BND


class StackAttention(nn.Module):
    """Attention among temporal and spectral nodes, and a master node that reads them all (section 3.2, HS-GAL).

    Other nodes do not read the master.
    """

    def __init__(self, n_in: int, n_out: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.dropout = nn.Dropout(0.2)
        self.temporal = nn.Linear(n_in, n_in)
        self.spectral = nn.Linear(n_in, n_in)
        self.pair = nn.Linear(n_in, n_out)
        self.score_temporal, self.score_spectral, self.score_mixed = _weight(n_out), _weight(n_out), _weight(n_out)
        self.spread = Spread(n_in, n_out)
        self.master_pair = nn.Linear(n_in, n_out)
        self.master_score = _weight(n_out)
        self.master_received = nn.Linear(n_in, n_out)
        self.master_own = nn.Linear(n_in, n_out)

    def forward(
        self,
        temporal_BTD: torch.Tensor,
        spectral_BSD: torch.Tensor,
        master_B1D: torch.Tensor,
        is_temporal_BT: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return new temporal nodes (invalid ones zero), spectral nodes and master."""
        n_temporal, n_spectral = temporal_BTD.shape[1], spectral_BSD.shape[1]
        node_BND = torch.cat([self.temporal(temporal_BTD), self.spectral(spectral_BSD)], dim=1)
        is_node_BN = None
        if is_temporal_BT is not None:
            is_node_BN = nn.functional.pad(is_temporal_BT, (0, n_spectral), value=True)
        node_BND = self.dropout(_zero_nodes(node_BND, is_node_BN))
        new_master_B1D = self._master(node_BND, master_B1D, is_node_BN)
        new_BND = self.spread(node_BND, self._scores(node_BND, n_temporal), is_node_BN)
        return new_BND[:, :n_temporal], new_BND[:, n_temporal:], new_master_B1D

    def _scores(self, node_BND: torch.Tensor, n: int) -> torch.Tensor:
        """Compute the attention of all pairs, shape (B, N, N), with weights for temporal, spectral and mixed pairs."""
        pair_BNMD = torch.tanh(self.pair(node_BND[:, :, None] * node_BND[:, None]))
        temporal_BNM1 = torch.cat(
            [pair_BNMD[:, :n, :n] @ self.score_temporal, pair_BNMD[:, :n, n:] @ self.score_mixed], 2
        )
        spectral_BNM1 = torch.cat(
            [pair_BNMD[:, n:, :n] @ self.score_mixed, pair_BNMD[:, n:, n:] @ self.score_spectral], 2
        )
        return torch.cat([temporal_BNM1, spectral_BNM1], dim=1).squeeze(-1) / self.temperature

    def _master(
        self, node_BND: torch.Tensor, master_B1D: torch.Tensor, is_node_BN: torch.Tensor | None
    ) -> torch.Tensor:
        score_BN1 = torch.tanh(self.master_pair(node_BND * master_B1D)) @ self.master_score / self.temperature
        if is_node_BN is not None:
            score_BN1 = score_BN1.masked_fill(~is_node_BN[..., None], float("-inf"))
        received_B1D = score_BN1.softmax(1).transpose(1, 2) @ node_BND
        new_B1D: torch.Tensor = self.master_received(received_B1D) + self.master_own(master_B1D)
        return new_B1D


class GraphPool(nn.Module):
    """Pooling: the nodes of highest score, in that order, each times its score (section 2.2): D + 1 parameters."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        self.share = share
        self.dropout = nn.Dropout(0.3)
        self.score = nn.Linear(width, 1)

    def forward(
        self, node_BND: torch.Tensor, is_node_BN: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the kept nodes and which are valid: `share` of an utterance's own, rounded down, but at least one.

        Scores that differ by no more than rounding may change places between one batch and another.
        """
        score_BN1 = torch.sigmoid(self.score(self.dropout(node_BND)))
        rank_BN = score_BN1.squeeze(-1)
        is_kept_BM = None
        if is_node_BN is None:
            n_kept = max(int(node_BND.shape[1] * self.share), 1)
        else:
            # In double precision, as in Python above.
            n_kept_B = (is_node_BN.sum(1).double() * self.share).long().clamp(min=1)
            n_kept = int(n_kept_B.max())
            is_kept_BM = torch.arange(n_kept, device=n_kept_B.device) < n_kept_B[:, None]
            rank_BN = rank_BN.masked_fill(~is_node_BN, -1.0)  # behind every sigmoid
        kept_BM1 = rank_BN.topk(n_kept, dim=1).indices[..., None]
        return (node_BND * score_BN1).gather(1, kept_BM1.expand(-1, -1, node_BND.shape[2])), is_kept_BM


class StackBranch(nn.Module):
    """One of the two competing branches: attention, pooling, and attention with a residual connection."""

    def __init__(self, sizes: GraphSizes) -> None:
        super().__init__()
        self.master = nn.Parameter(torch.randn(1, 1, sizes.width))
        self.first = StackAttention(sizes.width, sizes.stack_width, sizes.stack_temperature)
        self.temporal_pool = GraphPool(sizes.stack_width, sizes.stack_share)
        self.spectral_pool = GraphPool(sizes.stack_width, sizes.stack_share)
        self.second = StackAttention(sizes.stack_width, sizes.stack_width, sizes.stack_temperature)
        self.dropout = nn.Dropout(0.2)

    def forward(
        self, temporal_BTD: torch.Tensor, spectral_BSD: torch.Tensor, is_temporal_BT: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return temporal nodes, spectral nodes, master, and which temporal nodes are valid."""
        temporal, spectral, master = self.first(temporal_BTD, spectral_BSD, self.master, is_temporal_BT)
        temporal, is_kept_BT = self.temporal_pool(temporal, is_temporal_BT)
        spectral, _ = self.spectral_pool(spectral, None)
        more = self.second(temporal, spectral, master, is_kept_BT)
        temporal, spectral, master = (
            self.dropout(old + new) for old, new in zip((temporal, spectral, master), more, strict=True)
        )
        return temporal, spectral, master, is_kept_BT


class GraphPart(nn.Module):
    """From spectral and temporal nodes to an embedding of 5 times `stack_width` (section 3)."""

    def __init__(self, sizes: GraphSizes, n_spectral: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, n_spectral, sizes.width))
        self.spectral = GraphAttention(sizes.width, sizes.temperature)
        self.temporal = GraphAttention(sizes.width, sizes.temperature)
        self.spectral_pool = GraphPool(sizes.width, sizes.spectral_share)
        self.temporal_pool = GraphPool(sizes.width, sizes.temporal_share)
        self.branches = nn.ModuleList([StackBranch(sizes), StackBranch(sizes)])
        self.dropout = nn.Dropout(0.5)

    def forward(
        self, spectral_BSD: torch.Tensor, temporal_BTD: torch.Tensor, is_temporal_BT: torch.Tensor | None
    ) -> torch.Tensor:
        """Embed utterances, shape (B, 5 * stack_width): max and mean of temporal and spectral nodes, and the master."""
        spectral_BSD, _ = self.spectral_pool(self.spectral(spectral_BSD + self.position, None), None)
        temporal_BTD, is_kept_BT = self.temporal_pool(self.temporal(temporal_BTD, is_temporal_BT), is_temporal_BT)
        left, right = (branch(temporal_BTD, spectral_BSD, is_kept_BT) for branch in self.branches)
        is_last_BT = left[3]  # the same in both: it depends only on numbers of nodes
        # Max graph operation: nodes of equal rank compete, feature by feature.
        temporal_BDT = torch.maximum(left[0], right[0]).transpose(1, 2)
        spectral_BDS = torch.maximum(left[1], right[1]).transpose(1, 2)
        master_BD = torch.maximum(left[2], right[2]).squeeze(1)
        readout = [
            masked_abs_max(temporal_BDT, is_last_BT),
            masked_mean(temporal_BDT, is_last_BT),
            masked_abs_max(spectral_BDS, None),
            masked_mean(spectral_BDS, None),
            master_BD,
        ]
        embedding_BE: torch.Tensor = self.dropout(torch.cat(readout, dim=1))
        return embedding_BE


def _weight(width: int) -> nn.Parameter:
    """Make the weights that turn a pair's features into a score, shape (width, 1)."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(width, 1)))


def _zero_nodes(node_BND: torch.Tensor, is_node_BN: torch.Tensor | None) -> torch.Tensor:
    return node_BND if is_node_BN is None else node_BND.masked_fill(~is_node_BN[..., None], 0.0)
