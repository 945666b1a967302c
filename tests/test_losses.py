"""Output layers and losses: against torch's own, and against the published formulas in numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from spoofkit.models.losses import CosineOutput, LinearOutput, Output, focal_losses, make_output
from spoofkit.settings import LossSettings

KINDS = ("ce", "focal", "am_softmax", "oc_softmax", "p2sgrad")
N, WIDTH = 12, 6


def make(kind: str, n_logits: int = 2, width: int = WIDTH, **constants: float) -> Output:
    torch.manual_seed(3)
    return make_output(LossSettings(kind=kind, **constants), width, n_logits)  # type: ignore[arg-type]


def examples(n: int = N, width: int = WIDTH) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings, classes 0 and 1, unequal weights."""
    generator = torch.Generator().manual_seed(0)
    embedding = 2 * torch.randn(n, width, generator=generator)
    return embedding, (torch.arange(n) % 3 == 0).float(), torch.rand(n, generator=generator) + 0.1


def cosines(output: CosineOutput, embedding: torch.Tensor) -> np.ndarray:
    """By the definition: dot product over the product of the lengths."""
    x, w = embedding.double().numpy(), output.centres.detach().double().numpy()
    return (x @ w.T) / np.outer(np.sqrt((x**2).sum(1)), np.sqrt((w**2).sum(1)))


def weighted_mean(losses: np.ndarray, weight: torch.Tensor) -> float:
    return float(np.average(losses, weights=weight.double().numpy()))


def test_one_logit_cross_entropy_is_torchs_binary_cross_entropy() -> None:
    embedding, is_positive, weight = examples()
    output = make("ce", n_logits=1)
    logit = output.linear(embedding)[:, 0]
    assert torch.allclose(output(embedding), logit)
    expected = F.binary_cross_entropy_with_logits(logit, is_positive, weight, reduction="sum") / weight.sum()
    assert torch.allclose(output.loss(embedding, is_positive, weight), expected)


def test_two_logit_cross_entropy_is_torchs_with_class_weights() -> None:
    embedding, is_positive, _ = examples()
    output = make("ce")
    logits = output.linear(embedding)
    assert torch.allclose(output(embedding), logits[:, 1] - logits[:, 0])
    expected = F.cross_entropy(logits, is_positive.long(), weight=torch.tensor([0.1, 0.9]))
    assert torch.allclose(output.loss(embedding, is_positive, torch.where(is_positive > 0, 0.9, 0.1)), expected)


@pytest.mark.parametrize("n_logits", [1, 2])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_the_papers(n_logits: int, gamma: float) -> None:
    embedding, is_positive, weight = examples()
    output = make("focal", n_logits, gamma=gamma)
    logits = output.linear(embedding).detach().double().numpy()
    if n_logits == 1:
        probability = 1 / (1 + np.exp(-logits[:, 0]))
    else:
        probability = np.exp(logits[:, 1]) / np.exp(logits).sum(1)
    own = np.where(is_positive.numpy() > 0, probability, 1 - probability)
    expected = weighted_mean(-((1 - own) ** gamma) * np.log(own), weight)
    assert output.loss(embedding, is_positive, weight).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_of_known_probabilities() -> None:
    # Worked by hand: p = 0.9 gives 0.1² x 0.105361 = 0.00105361; as class 0 it is 0.9² x 2.302585 = 1.865094.
    score = torch.tensor([math.log(9.0), math.log(9.0)])
    losses = focal_losses(score, torch.tensor([1.0, 0.0]), gamma=2.0)
    assert losses.tolist() == pytest.approx([0.00105361, 1.865094], rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.floats(-40, 40), st.booleans())
def test_focal_loss_without_gamma_is_cross_entropy_and_with_it_is_less(score: float, is_positive: bool) -> None:
    scores, targets = torch.tensor([score]), torch.tensor([float(is_positive)])
    # In double precision, for torch subtracts two large numbers where the loss is small.
    cross_entropy = F.binary_cross_entropy_with_logits(scores.double(), targets.double(), reduction="none")
    assert torch.allclose(focal_losses(scores, targets, 0.0).double(), cross_entropy, atol=1e-9)
    assert bool(focal_losses(scores, targets, 2.0) <= cross_entropy + 1e-9)


@pytest.mark.parametrize(("scale", "margin"), [(20.0, 0.9), (30.0, 0.35), (1.0, 0.0)])
def test_am_softmax_is_the_papers(scale: float, margin: float) -> None:
    """Equation of arXiv:1801.05599: softmax cross-entropy over s (cos - m at the own class)."""
    embedding, is_positive, weight = examples()
    output = make("am_softmax", scale=scale, margin=margin)
    cosine, own = cosines(output, embedding), is_positive.long().numpy()
    np.testing.assert_allclose(output(embedding).detach(), cosine[:, 1] - cosine[:, 0], atol=1e-6)
    logits = scale * (cosine - margin * np.eye(2)[own])
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(N), own]
    expected = weighted_mean(losses, weight)
    assert output.loss(embedding, is_positive, weight).item() == pytest.approx(expected, rel=1e-5)


def test_oc_softmax_is_the_papers() -> None:
    """Equation of arXiv:2010.13995: y = 0 is bona fide there, log(1 + exp(alpha (m_y - cos) (-1)^y))."""
    embedding, is_positive, weight = examples()
    output = make("oc_softmax", scale=15.0, margin_bonafide=0.8, margin_spoof=0.3)
    cosine = cosines(output, embedding)
    assert cosine.shape == (N, 1)
    np.testing.assert_allclose(output(embedding).detach(), cosine[:, 0], atol=1e-6)
    y = 1 - is_positive.long().numpy()
    losses = np.log1p(np.exp(15.0 * (np.array([0.8, 0.3])[y] - cosine[:, 0]) * (-1.0) ** y))
    expected = weighted_mean(losses, weight)
    assert output.loss(embedding, is_positive, weight).item() == pytest.approx(expected, rel=1e-5)


def test_p2sgrad_is_the_papers() -> None:
    embedding, is_positive, weight = examples()
    output = make("p2sgrad")
    cosine = cosines(output, embedding)
    np.testing.assert_allclose(output(embedding).detach(), cosine[:, 1] - cosine[:, 0], atol=1e-6)
    losses = ((cosine - np.eye(2)[is_positive.long().numpy()]) ** 2).sum(1)
    expected = weighted_mean(losses, weight)
    assert output.loss(embedding, is_positive, weight).item() == pytest.approx(expected, rel=1e-5)


def test_settings_reach_the_loss_and_defaults_are_the_papers() -> None:
    defaults = LossSettings()
    assert (defaults.kind, defaults.gamma, defaults.scale, defaults.margin) == ("ce", 2.0, 20.0, 0.9)
    assert (defaults.margin_bonafide, defaults.margin_spoof) == (0.9, 0.2)
    embedding, is_positive, weight = examples()
    changes = {
        "focal": {"gamma": 1.0},
        "am_softmax": {"margin": 0.2},
        "oc_softmax": {"margin_spoof": 0.5, "margin_bonafide": 0.7},
    }
    for kind, constants in changes.items():
        for name, value in constants.items():
            one, other = make(kind), make(kind, **{name: value})
            assert one.loss(embedding, is_positive, weight) != other.loss(embedding, is_positive, weight), name


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_a_linear_layer_or_a_vector_a_class(kind: str) -> None:
    shapes = {name: tuple(p.shape) for name, p in make(kind).named_parameters()}
    if kind in ("ce", "focal"):
        assert shapes == {"linear.weight": (2, WIDTH), "linear.bias": (2,)}
        assert isinstance(make(kind), LinearOutput)
    else:
        assert shapes == {"centres": (1 if kind == "oc_softmax" else 2, WIDTH)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (2, 3, 4)])
def test_scores_have_the_leading_shape_of_the_embeddings(kind: str, shape: tuple[int, ...]) -> None:
    output = make(kind)
    embedding = torch.randn(*shape, WIDTH)
    scores = output(embedding)
    assert scores.shape == shape
    one_by_one = [output(row) for row in embedding.reshape(-1, WIDTH)]
    assert torch.allclose(scores.flatten(), torch.stack(one_by_one), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_items_without_weight_and_scaled_weights_change_nothing(kind: str) -> None:
    output = make(kind)
    embedding, is_positive, weight = examples()
    expected = output.loss(embedding[:7], is_positive[:7], weight[:7])
    weight[7:] = 0
    assert torch.allclose(output.loss(embedding, is_positive, weight), expected)
    assert torch.allclose(output.loss(embedding, is_positive, 100 * weight), expected)


@pytest.mark.parametrize(
    ("kind", "constants"),
    [(kind, {}) for kind in KINDS] + [("focal", {"gamma": gamma}) for gamma in (0.0, 0.5)],
)
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-4, 1.0, 1e4])
def test_gradients_stay_finite_at_extreme_inputs(kind: str, constants: dict[str, float], size: float) -> None:
    """Embeddings of no length, and of such length that logits are about ±1e4."""
    output = make(kind, n_logits=1, **constants)
    embedding = (size * torch.sign(examples()[0])).requires_grad_()
    is_positive = torch.arange(N) % 2 * 1.0
    loss = output.loss(embedding, is_positive, torch.ones(N))
    loss.backward()
    assert loss.isfinite()
    for gradient in (embedding.grad, *(parameter.grad for parameter in output.parameters())):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("score", [-1e4, 1e4])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_confident_mistake_costs_its_score_and_pulls_with_slope_one(score: float, gamma: float) -> None:
    scores = torch.tensor([score, score], requires_grad=True)
    losses = focal_losses(scores, torch.tensor([1.0, 0.0]), gamma)
    (slope,) = torch.autograd.grad(losses.sum(), scores)
    right, wrong = (0, 1) if score > 0 else (1, 0)
    assert losses.tolist()[wrong] == pytest.approx(1e4)
    assert losses.tolist()[right] == pytest.approx(0.0, abs=1e-6)
    assert slope.tolist()[wrong] == pytest.approx(math.copysign(1.0, score))
    assert slope.tolist()[right] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_training_separates_two_classes_with_higher_scores_for_class_one(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    is_positive = (torch.arange(64) % 2).float()
    embedding = torch.randn(64, 8, generator=generator) + 2 * (2 * is_positive - 1)[:, None] * torch.eye(8)[0]
    output = make(kind, width=8)
    optimizer = torch.optim.Adam(output.parameters(), lr=0.05)
    weight = torch.where(is_positive > 0, 0.9, 0.1)
    losses = []
    for _ in range(150):
        loss = output.loss(embedding, is_positive, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    scores = output(embedding).detach()
    higher = (scores[is_positive == 1][:, None] > scores[is_positive == 0]).float().mean()
    assert higher > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_scores_keep_single_precision_under_autocast(kind: str) -> None:
    output = make(kind)
    embedding, is_positive, weight = examples()
    expected = output(embedding), output.loss(embedding, is_positive, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, loss = output(embedding), output.loss(embedding, is_positive, weight)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, expected[0])
    assert torch.equal(loss, expected[1])
    assert output(embedding.bfloat16()).dtype == torch.float32
