"""Output layers: an embedding becomes a score, and the loss that trains it.

Class 1 is `bona fide` for utterances and `injected` for frames; scores are higher for class 1. Output layers compute in
fp32 whatever the autocast type: scores rounded to bf16 would tie, and ties move an EER.

Shapes: N items, E features of an embedding, C classes; x stands for any leading dimensions, or none.
"""

import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.settings import LossSettings

# Embeddings with a smaller norm have no direction; their cosines are zero, and gradients stay finite.
SHORTEST_EMBEDDING = 1e-6


class Output(nn.Module):
    """Base of all output layers."""

    def forward(self, embedding_xE: torch.Tensor) -> torch.Tensor:
        """Score embeddings, shape (x): a higher score is more of class 1."""
        raise NotImplementedError

    def loss(
        self,
        embedding_NE: torch.Tensor,
        is_positive_N: torch.Tensor,
        weight_N: torch.Tensor,
        total_weight: float | None = None,
    ) -> torch.Tensor:
        """Return the weighted mean of the items' losses, a scalar.

        Args:
            embedding_NE: Embeddings of the head.
            is_positive_N: 1.0 for class 1, 0.0 for class 0.
            weight_N: Weights of the items; their sum must not be zero. For `ce` this is torch's CrossEntropyLoss
                with class weights.
            total_weight: Divisor. Default: the sum of `weight_N`; for a part of a batch, give the whole batch's weight.
        """
        loss_N = self._losses(embedding_NE, is_positive_N)
        return (weight_N * loss_N).sum() / (weight_N.sum() if total_weight is None else total_weight)

    def _losses(self, embedding_NE: torch.Tensor, is_positive_N: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def make_output(settings: LossSettings, width: int, n_logits: int) -> Output:
    """Build the output layer with the loss that the settings name.

    Args:
        settings: The loss, and its constants.
        width: E.
        n_logits: Outputs of the linear layer of `ce` and `focal`, 1 or 2; the others have one vector per class.
    """
    if settings.kind in ("ce", "focal"):
        return LinearOutput(width, n_logits, settings.gamma if settings.kind == "focal" else 0.0)
    return CosineOutput(width, settings)


class LinearOutput(Output):
    """`ce` and `focal`: the score is the log-odds of class 1, either one logit or the difference of two.

    Two logits under a softmax and one under a sigmoid are the same model: softmax cross-entropy depends on the
    difference of the logits alone. Parameters: n_logits (E + 1).
    """

    def __init__(self, width: int, n_logits: int, gamma: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, n_logits)
        self.gamma = gamma

    def logits(self, embedding_xE: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (x, C); of two, class 0 is first."""
        with torch.autocast(embedding_xE.device.type, enabled=False):
            logit_xC: torch.Tensor = self.linear(embedding_xE.float())
        return logit_xC

    def forward(self, embedding_xE: torch.Tensor) -> torch.Tensor:
        """Return the log-odds of class 1, shape (x)."""
        logit_xC = self.logits(embedding_xE)
        score_x: torch.Tensor = logit_xC[..., -1] if logit_xC.shape[-1] == 1 else logit_xC[..., 1] - logit_xC[..., 0]
        return score_x

    def _losses(self, embedding_NE: torch.Tensor, is_positive_N: torch.Tensor) -> torch.Tensor:
        return focal_losses(self(embedding_NE), is_positive_N, self.gamma)


class CosineOutput(Output):
    """`am_softmax`, `oc_softmax` and `p2sgrad`: scores are cosines between the embedding and one vector per class.

    `oc_softmax` has one vector, that of class 1, and its score is the cosine to it; the others have two and score the
    difference. Parameters: E or 2 E.
    """

    def __init__(self, width: int, settings: LossSettings) -> None:
        super().__init__()
        self.settings = settings
        self.centres = nn.Parameter(torch.randn(1 if settings.kind == "oc_softmax" else 2, width))

    def cosines(self, embedding_xE: torch.Tensor) -> torch.Tensor:
        """Return the cosine to each class' vector, shape (x, C); of two classes class 0 is first."""
        with torch.autocast(embedding_xE.device.type, enabled=False):
            direction_xE = F.normalize(embedding_xE.float(), dim=-1, eps=SHORTEST_EMBEDDING)
            return F.linear(direction_xE, F.normalize(self.centres, dim=-1))

    def forward(self, embedding_xE: torch.Tensor) -> torch.Tensor:
        """Return the cosine of class 1, minus that of class 0 if there is one; shape (x)."""
        cosine_xC = self.cosines(embedding_xE)
        return cosine_xC[..., 0] if len(self.centres) == 1 else cosine_xC[..., 1] - cosine_xC[..., 0]

    def _losses(self, embedding_NE: torch.Tensor, is_positive_N: torch.Tensor) -> torch.Tensor:
        settings = self.settings
        if settings.kind == "p2sgrad":
            return p2sgrad_losses(self.cosines(embedding_NE), is_positive_N)
        score_N = self(embedding_NE)
        if settings.kind == "am_softmax":
            return am_softmax_losses(score_N, is_positive_N, settings.scale, settings.margin)
        return oc_softmax_losses(
            score_N, is_positive_N, settings.scale, settings.margin_bonafide, settings.margin_spoof
        )


def focal_losses(score_N: torch.Tensor, is_positive_N: torch.Tensor, gamma: float) -> torch.Tensor:
    """Compute -(1 - p)^gamma log p, with p the probability of the item's own class; gamma 0 is cross-entropy.

    Lin et al., "Focal Loss for Dense Object Detection" (arXiv:1708.02002), equation 4. Their class weights (alpha) are
    the items' weights here.

    Args:
        score_N: Log-odds of class 1.
        is_positive_N: 1.0 for class 1, 0.0 for class 0.
        gamma: How strongly easy items are down-weighted.
    """
    own_N = score_N * (2 * is_positive_N - 1)
    # The power is taken in the logarithm: the gradient at a probability that is zero in fp32 would be infinite.
    return -F.logsigmoid(own_N) * torch.exp(gamma * F.logsigmoid(-own_N))


def am_softmax_losses(score_N: torch.Tensor, is_positive_N: torch.Tensor, scale: float, margin: float) -> torch.Tensor:
    """Compute the softmax cross-entropy of scaled cosines, with the own class' cosine reduced by a margin.

    Wang et al., "Additive Margin Softmax for Face Verification" (arXiv:1801.05599), section 3. With two classes:
    log(1 + exp(scale (margin - (cosine of the own class - cosine of the other)))).

    Args:
        score_N: Cosine of class 1 minus cosine of class 0.
        is_positive_N: 1.0 for class 1, 0.0 for class 0.
        scale: Factor on the cosines.
        margin: Margin between the cosines.
    """
    return F.softplus(scale * (margin - score_N * (2 * is_positive_N - 1)))


def oc_softmax_losses(
    cosine_N: torch.Tensor, is_positive_N: torch.Tensor, scale: float, margin_bonafide: float, margin_spoof: float
) -> torch.Tensor:
    """Pull class 1 into a cone around its centre, and push class 0 out of a wider one.

    Zhang, Jiang, Duan, "One-Class Learning Towards Synthetic Voice Spoofing Detection" (arXiv:2010.13995), section
    III: log(1 + exp(scale (margin_bonafide - cosine))) for class 1, log(1 + exp(scale (cosine - margin_spoof))) for
    class 0.

    Args:
        cosine_N: Cosine to the centre of class 1.
        is_positive_N: 1.0 for class 1, 0.0 for class 0.
        scale: The paper's alpha.
        margin_bonafide: Class 1 is pulled above this cosine (m_0).
        margin_spoof: Class 0 is pushed below this cosine (m_1).
    """
    distance_N = torch.where(is_positive_N > 0.5, margin_bonafide - cosine_N, cosine_N - margin_spoof)
    return F.softplus(scale * distance_N)


def p2sgrad_losses(cosine_NC: torch.Tensor, is_positive_N: torch.Tensor) -> torch.Tensor:
    """Compute the squared distance between both cosines and the one-hot vector of the item's class.

    Wang, Yamagishi, "A Comparative Study on Recent Neural Spoofing Countermeasures for Synthetic Speech Detection"
    (arXiv:2103.11326), section 2: mean squared error for the probability-to-similarity gradient. The authors' code
    divides by the number of classes as well: half of ours.

    Args:
        cosine_NC: Cosines to class 0 and class 1.
        is_positive_N: 1.0 for class 1, 0.0 for class 0.
    """
    target_NC = torch.stack([1 - is_positive_N, is_positive_N], dim=-1)
    return (cosine_NC - target_NC).square().sum(-1)
