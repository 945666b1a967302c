"""RawNet2: sizes of the official baseline, a forward pass written out, and padding that changes nothing."""

import pytest
import torch
from test_aasist import (
    alone,
    check_that_all_parameters_learn,
    check_that_padding_changes_nothing_in_training,
    n_parameters,
    noise,
    padded,
    settled,
)
from torch.nn import functional as F

from spoofkit.models.heads.rawnet2 import RawNet2Asvspoof5Head, RawNet2Head
from spoofkit.models.sinc import SINC_FRONT_ENDS

WIDTH = SINC_FRONT_ENDS["sinc-rawnet2"].n_filters


def test_parameters_are_those_of_the_official_configuration() -> None:
    """model_config_RawNet.yaml of the ASVspoof 2021 baseline: filts [20, [20, 20], [20, 128], [128, 128]]."""
    blocks = [(20, 20), (20, 20), (20, 128), (128, 128), (128, 128), (128, 128)]
    n = 2 * 20  # first batch norm
    for index, (n_in, n_out) in enumerate(blocks):
        n += (2 * n_in if index else 0) + 2 * n_out  # batch norms, of which the first block has one
        n += (3 * n_in + 1) * n_out + (3 * n_out + 1) * n_out  # convolutions
        n += (n_in + 1) * n_out if n_in != n_out else 0  # shortcut
        n += (n_out + 1) * n_out  # filter-wise scaling
    n += 2 * 128  # batch norm before the GRU
    n += 3 * 1024 * (128 + 1024 + 2) + 2 * 3 * 1024 * (1024 + 1024 + 2)  # GRU: three gates, two biases
    n += (1024 + 1) * 1024 + (1024 + 1) * 2  # embedding, logits
    assert n_parameters(RawNet2Head(WIDTH, n_hidden=1)) == n == 17_621_410
    assert n_parameters(RawNet2Asvspoof5Head(WIDTH, n_hidden=1)) == n


@torch.inference_mode()
def test_forward_pass_is_that_of_the_official_baseline() -> None:
    torch.manual_seed(0)
    head = settled(RawNet2Head(WIDTH, n_hidden=1), WIDTH, 4400).double()
    hidden = noise(2, 6600, WIDTH).double()
    state = head.state_dict()

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        values = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        mean, variance, weight, bias = (value[:, None] for value in values)
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def convolve(name: str, x: torch.Tensor, padding: int) -> torch.Tensor:
        return F.conv1d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def pool(x: torch.Tensor) -> torch.Tensor:
        n = x.shape[2] // 3
        return x[..., : 3 * n].reshape(*x.shape[:2], n, 3).amax(3)

    x = F.selu(norm("first_norm", pool(hidden.abs().transpose(1, 2))))
    for index in range(6):
        block = f"blocks.{index}"
        y = F.leaky_relu(norm(f"{block}.norm", convolve(f"{block}.first", x, 1)), 0.3)
        y = convolve(f"{block}.second", y, 1)
        x = pool(y + (convolve(f"{block}.shortcut", x, 0) if f"{block}.shortcut.weight" in state else x))
        gate = torch.sigmoid(
            x.mean(2) @ state[f"scalings.{index}.gate.weight"].T + state[f"scalings.{index}.gate.bias"]
        )
        x = x * gate[..., None] + gate[..., None]
    x = F.selu(norm("last_norm", x))
    assert x.shape == (2, 128, 3)
    for layer in range(3):  # torch.nn.GRU's documented equations
        weight_x, weight_h = state[f"gru.weight_ih_l{layer}"], state[f"gru.weight_hh_l{layer}"]
        bias_x, bias_h = state[f"gru.bias_ih_l{layer}"], state[f"gru.bias_hh_l{layer}"]
        h, states = torch.zeros(2, 1024).double(), []
        for t in range(3):
            rx, zx, nx = (x[:, :, t] @ weight_x.T + bias_x).chunk(3, 1)
            rh, zh, nh = (h @ weight_h.T + bias_h).chunk(3, 1)
            z = torch.sigmoid(zx + zh)
            h = (1 - z) * torch.tanh(nx + torch.sigmoid(rx + rh) * nh) + z * h
            states.append(h)
        x = torch.stack(states, 2)
    expected = h @ state["embed.weight"].T + state["embed.bias"]
    embedding = head([hidden], torch.ones(2, 6600, dtype=torch.bool))
    torch.testing.assert_close(embedding, expected, atol=1e-9, rtol=1e-9)


@torch.inference_mode()
def test_embedding_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    lengths = [2187, 30_000, 4373, 8748]
    head = settled(RawNet2Head(WIDTH, 1), WIDTH, 9000)
    utterances = [noise(n, WIDTH, seed=n) for n in lengths]
    hidden, is_frame = padded(utterances, max(lengths) + 1)
    together = head([hidden], is_frame)
    assert together.shape == (4, 1024)
    for row, utterance in enumerate(utterances):
        torch.testing.assert_close(together[row], alone(head, utterance), atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing_in_training() -> None:
    check_that_padding_changes_nothing_in_training(RawNet2Head(WIDTH, 1), WIDTH, 4600, more=2300)


@pytest.mark.parametrize("kind", [RawNet2Head, RawNet2Asvspoof5Head])
def test_all_parameters_learn(kind: type[RawNet2Head]) -> None:
    torch.manual_seed(0)
    utterances = [noise(n, WIDTH, seed=n) for n in (4700, 7000)]
    check_that_all_parameters_learn(kind(WIDTH, 1), utterances, 7003)


@torch.inference_mode()
def test_the_shortest_utterance_has_an_embedding_and_a_shorter_one_has_not() -> None:
    head = RawNet2Head(WIDTH, 1).eval()
    assert bool(alone(head, noise(head.shortest_frames, WIDTH)).isfinite().all())
    with pytest.raises(RuntimeError, match=r"[Oo]utput size"):
        alone(head, noise(head.shortest_frames - 1, WIDTH))
