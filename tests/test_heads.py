"""Heads and merges: blind to padding, equal to their papers' formulas written down again, of the published size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from spoofkit.errors import SpoofkitError
from spoofkit.models.heads import UTTERANCE_HEADS, FrameHead, UtteranceHead
from spoofkit.models.heads.sls import WINDOW, window_frames
from spoofkit.models.layer_merge import MERGES, make_merge
from spoofkit.models.sinc import SINC_FRONT_ENDS

WIDTH, N_HIDDEN = 128, 4

# Parameters for XLS-R 300M (D = 1024, 25 hidden states), without and with the linear layer behind the embedding. Those
# with it are the published ones: 936k (lstm) and 23,399k (sls) in arXiv:2504.05657, table of results on ASVspoof 2021;
# 512,039 (nes2net) is what the layers of the authors' code for ASVspoof add up to, 8,607,744 (ecapa) what those of
# WeSpeaker's ECAPA_TDNN_GLOB_c512(1024, 192, emb_bn=True) at dfa7419 do. No paper has the others.
PARAMETERS = {
    "mean": (0, 1_025),
    "attentive": (131_329, 133_378),
    "lstm": (935_424, 935_810),
    "sls": (23_397_379, 23_399_429),
    "mhfa": (1_315_410, 1_315_667),
    "nes2net": (509_989, 512_039),
    "ecapa": (8_607_744, 8_608_130),
    "rat": (13_253_888, 13_254_402),
}
COUNTED_ELSEWHERE = {"aasist", "raw_aasist", "raw_aasist_l", "rawnet2", "rawnet2_asvspoof5"}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def make_head(name: str) -> UtteranceHead:
    """A head with random weights, biases and running statistics, without dropout."""
    torch.manual_seed(1)
    front_end = UTTERANCE_HEADS[name].front_end
    head = UTTERANCE_HEADS[name](WIDTH if front_end is None else SINC_FRONT_ENDS[front_end].n_filters, N_HIDDEN)
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5)
    return head


def make_layers(
    head: nn.Module, width: int, lengths: list[int], padded: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Hidden states that are the same for every `padded`, and large garbage where there is no frame."""
    n_layers = N_HIDDEN if getattr(head, "reads_all_layers", True) else 1
    is_frame = torch.arange(padded) < torch.tensor(lengths)[:, None]
    layers = []
    for layer in range(n_layers):
        hidden = 1e4 * torch.randn(len(lengths), padded, width, generator=torch.Generator().manual_seed(padded))
        for row, n_frames in enumerate(lengths):
            generator = torch.Generator().manual_seed(100 * layer + row)
            hidden[row, :n_frames] = torch.randn(n_frames, width, generator=generator) + 0.3
        layers.append(hidden)
    return layers, is_frame


def some_lengths(head: UtteranceHead) -> list[int]:
    """Several windows of SLS, one exactly, part of one, and the shortest utterance the head takes."""
    shortest = head.shortest_frames
    return [shortest + 700, shortest + 300, shortest] if head.front_end else [230, 201, 50, shortest]


def width_of(head: UtteranceHead) -> int:
    return WIDTH if head.front_end is None else SINC_FRONT_ENDS[head.front_end].n_filters


@pytest.mark.parametrize("name", UTTERANCE_HEADS)
@torch.inference_mode()
def test_embedding_in_a_padded_batch_equals_that_of_the_utterance_alone(name: str) -> None:
    head = make_head(name).eval()
    lengths = some_lengths(head)
    layers, is_frame = make_layers(head, width_of(head), lengths, max(lengths) + 5)
    together = head(layers, is_frame)
    assert together.shape == (len(lengths), head.embedding_width)
    # Far below what the frames themselves change, which is little in some heads with random weights.
    spread = float((together[0] - together[1]).abs().max())
    for row, n_frames in enumerate(lengths):
        alone = head([layer[row : row + 1, :n_frames] for layer in layers], is_frame[row : row + 1, :n_frames])
        assert float((together[row] - alone[0]).abs().max()) < min(1e-5, 0.01 * spread), (name, n_frames)


@pytest.mark.parametrize("name", UTTERANCE_HEADS)
def test_training_does_not_depend_on_padding(name: str) -> None:
    lengths = some_lengths(make_head(name))
    found = []
    for padded in (max(lengths), max(lengths) + 7):
        head = make_head(name).train()
        layers, is_frame = make_layers(head, width_of(head), lengths, padded)
        layers = [layer.requires_grad_() for layer in layers]
        embedding = head(layers, is_frame)
        (embedding * torch.linspace(-1, 1, embedding.shape[1])).sum().backward()
        for layer in layers:
            if layer.grad is not None:  # SLS leaves the first out
                assert not layer.grad[~is_frame].any(), "a gradient reaches the padding"
                assert layer.grad.isfinite().all()
        statistics = [buffer.double() for buffer in head.buffers()]
        gradients = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
        found.append(([embedding.detach(), *statistics], gradients))
    (values, gradients), (padded_values, padded_gradients) = found
    for less, more in zip(values, padded_values, strict=True):
        assert torch.allclose(less, more, atol=1e-5 * max(1.0, float(less.abs().max())), rtol=1e-4)
    # A bias before a batch normalisation has a gradient of nothing but rounding, of the size of the others'.
    largest = max((float(gradient.abs().max()) for gradient in gradients), default=0.0)
    for less, more in zip(gradients, padded_gradients, strict=True):
        assert torch.allclose(less, more, atol=1e-4 * largest, rtol=0)


@pytest.mark.parametrize("name", UTTERANCE_HEADS)
def test_gradients_are_the_slopes_of_the_embedding(name: str) -> None:
    """In training, with padding, in double precision: along one random direction of all frames and parameters."""
    head = make_head(name).train().double()
    shortest = head.shortest_frames
    layers, is_frame = make_layers(head, width_of(head), [shortest + 9, shortest], shortest + 10)
    inputs = [layer.double().masked_fill(~is_frame[..., None], 0.0).requires_grad_() for layer in layers]
    tensors = [*inputs, *(parameter for parameter in head.parameters() if parameter.requires_grad)]
    directions = [torch.randn_like(tensor) for tensor in tensors]

    def value() -> torch.Tensor:
        embedding = head(inputs, is_frame)
        return (embedding * torch.linspace(-1, 1, embedding.shape[1], dtype=torch.float64)).sum()

    gradients = torch.autograd.grad(value(), tensors, allow_unused=True)
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
    values = []
    for step in (1e-9, -2e-9):  # so short that no maximum changes hands
        with torch.no_grad():
            for tensor, direction in zip(tensors, directions, strict=True):
                tensor.add_(step * direction)
            values.append(float(value()))
    assert (values[0] - values[1]) / 2e-9 == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", UTTERANCE_HEADS)
def test_mixed_precision_gives_finite_gradients(name: str) -> None:
    if name == "lstm" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("torch has no LSTM in bf16 for this CPU")
    head = make_head(name).train()
    shortest = head.shortest_frames
    layers, is_frame = make_layers(head, width_of(head), [shortest + 5, shortest], shortest + 6)
    layers = [layer.requires_grad_() for layer in layers]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = head(layers, is_frame)
    assert embedding.isfinite().all()
    embedding.float().square().sum().backward()
    for tensor in (*layers, *head.parameters()):
        assert tensor.grad is None or tensor.grad.isfinite().all()


@pytest.mark.parametrize("name", MERGES)
def test_merges_do_not_see_padding(name: str) -> None:
    torch.manual_seed(1)
    merge = make_merge(name, N_HIDDEN, WIDTH)
    lengths = [30, 11, 1]
    layers, is_frame = make_layers(merge, WIDTH, lengths, 33)
    layers = [layer.requires_grad_() for layer in layers]
    together = merge(layers, is_frame)
    assert together.shape == (3, 33, WIDTH)
    for row, n_frames in enumerate(lengths):
        alone = merge([layer[row : row + 1, :n_frames] for layer in layers], is_frame[row : row + 1, :n_frames])
        assert torch.allclose(together[row, :n_frames], alone[0], atol=1e-5)
    together[is_frame].square().sum().backward()
    for layer in layers:
        assert layer.grad is None or not layer.grad[~is_frame].any()


def test_every_head_has_a_count_and_says_it() -> None:
    assert set(PARAMETERS) | COUNTED_ELSEWHERE == set(UTTERANCE_HEADS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_paper(name: str) -> None:
    with torch.device("meta"):
        head = UTTERANCE_HEADS[name](1024, 25)
        output = nn.Linear(head.embedding_width, head.n_logits)
    assert (count(head), count(head) + count(output)) == PARAMETERS[name]
    if name != "mean":
        assert f"{count(head):,}" in (type(head).__doc__ or "")


@pytest.mark.parametrize(
    ("name", "n_hidden", "parameters"), [("weighted", 25, 25), ("gated", 25, 157_295_168), ("gated", 13, 40_899_728)]
)
def test_parameters_of_merges_are_those_they_state(name: str, n_hidden: int, parameters: int) -> None:
    with torch.device("meta"):
        merge = make_merge(name, n_hidden, 1024)
    assert count(merge) == parameters
    assert f"{parameters:,}" in (type(merge).__doc__ or "")


@pytest.mark.parametrize("name", ["nes2net", "ecapa", "sls", "mhfa", "lstm", "attentive"])
@pytest.mark.parametrize("width", [64, 128, 512])
def test_stated_formula_counts_parameters_at_other_widths(name: str, width: int) -> None:
    n_channels, n_part = width // 8, width // 64
    formula = {
        "attentive": 128 * width + 257,
        "lstm": 768 * (width + 194),
        "sls": 67 * (width // 3) * width + 2 * width + 3,
        "mhfa": 2 * N_HIDDEN + 256 * (width + 1) + 1_052_960,
        "ecapa": 2560 * width + 5_986_304,
        "nes2net": 7 * (4 * n_channels**2 + 10 * n_channels + 21 * n_part**2 + 21 * n_part + 35) + 2 * width,
    }
    assert count(UTTERANCE_HEADS[name](width, N_HIDDEN)) == formula[name]


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    power = np.exp(x - x.max(axis, keepdims=True))
    return power / power.sum(axis, keepdims=True)


def selu(x: np.ndarray) -> np.ndarray:
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(np.minimum(x, 0)) - 1))


def one_utterance(head: nn.Module, n_frames: int) -> tuple[list[torch.Tensor], torch.Tensor, np.ndarray]:
    """Its hidden states, its mask, and the same as an array of shape (layers, frames, features)."""
    layers, is_frame = make_layers(head, WIDTH, [n_frames], n_frames)
    return layers, is_frame, np.stack([layer[0].double().numpy() for layer in layers])


@torch.inference_mode()
def test_attentive_statistics_are_those_of_the_paper() -> None:
    head = make_head("attentive").eval()
    layers, is_frame, (hidden_TD,) = one_utterance(head, 19)
    weights = arrays(head)
    inner = np.tanh(hidden_TD @ weights["attention.0.weight"].T + weights["attention.0.bias"])
    weight_T = softmax(inner @ weights["attention.2.weight"][0] + weights["attention.2.bias"], 0)
    mean = weight_T @ hidden_TD
    deviation = np.sqrt(weight_T @ hidden_TD**2 - mean**2)
    np.testing.assert_allclose(head(layers, is_frame)[0], np.concatenate([mean, deviation]), atol=1e-5)


@torch.inference_mode()
def test_lstm_embedding_is_the_mean_of_its_steps() -> None:
    head = make_head("lstm").eval()
    layers, is_frame, (hidden_TD,) = one_utterance(head, 13)
    weights = arrays(head)
    state, cell, steps = np.zeros(192), np.zeros(192), []
    for frame in hidden_TD:
        gates = weights["lstm.weight_ih_l0"] @ frame + weights["lstm.bias_ih_l0"]
        gates = gates + weights["lstm.weight_hh_l0"] @ state + weights["lstm.bias_hh_l0"]
        enter, forget, new, leave = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
        state = sigmoid(leave) * np.tanh(cell)
        steps.append(state)
    np.testing.assert_allclose(head(layers, is_frame)[0], np.mean(steps, axis=0), atol=1e-5)


@torch.inference_mode()
def test_sls_is_that_of_the_paper_on_201_frames() -> None:
    head = make_head("sls").eval()
    layers, is_frame, hidden_LTD = one_utterance(head, 201)
    weights = arrays(head)
    transformer = hidden_LTD[1:]  # without the encoder's input
    gates = sigmoid(transformer.mean(1) @ weights["gate.weight"][0] + weights["gate.bias"])
    merged_TD = (gates[:, None, None] * transformer).sum(0)
    normal = (merged_TD - weights["norm.running_mean"]) / np.sqrt(weights["norm.running_var"] + 1e-5)
    active = selu(normal * weights["norm.weight"] + weights["norm.bias"])
    pooled = active[:, : WIDTH // 3 * 3].reshape(67, 3, WIDTH // 3, 3).max((1, 3))
    expected = selu(weights["projection.weight"] @ pooled.ravel() + weights["projection.bias"])
    np.testing.assert_allclose(head(layers, is_frame)[0], expected, atol=1e-5)


@torch.inference_mode()
def test_sls_repeats_short_utterances_and_averages_windows_of_long_ones() -> None:
    head = make_head("sls").eval()
    head.gate.weight.zero_()  # or the gates of an utterance and of its windows would differ a little
    layers, is_frame, _ = one_utterance(head, 80)
    repeated = [torch.cat([layer, layer, layer[:, :41]], dim=1) for layer in layers]
    assert torch.allclose(head(layers, is_frame), head(repeated, torch.ones(1, 201, dtype=torch.bool)), atol=1e-5)
    layers, is_frame, _ = one_utterance(head, 500)
    windows = [(0, 201), (201, 402), (299, 500)]
    parts = [head([layer[:, start:end] for layer in layers], is_frame[:, start:end]) for start, end in windows]
    assert torch.allclose(head(layers, is_frame), torch.stack(parts).mean(0), atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2000))
def test_sls_windows_hold_every_frame_in_order_and_no_more_windows_than_needed(n_frames: int) -> None:
    windows = window_frames(n_frames)
    assert windows.shape == (-(-n_frames // WINDOW), WINDOW)
    assert set(windows.flatten().tolist()) == set(range(n_frames))
    steps = windows.diff(dim=1)
    assert set(steps.unique().tolist()) <= ({1} if n_frames >= WINDOW else {1, 1 - n_frames})


@torch.inference_mode()
def test_mhfa_is_that_of_the_paper() -> None:
    head = make_head("mhfa").eval()
    for parameter in (head.key_merge.logits, head.value_merge.logits):
        parameter.normal_()
    layers, is_frame, hidden_LTD = one_utterance(head, 17)
    weights = arrays(head)
    key_TD = np.tensordot(softmax(weights["key_merge.logits"], 0), hidden_LTD, 1)
    value_TD = np.tensordot(softmax(weights["value_merge.logits"], 0), hidden_LTD, 1)
    key_TC = key_TD @ weights["key.weight"].T + weights["key.bias"]
    value_TC = value_TD @ weights["value.weight"].T + weights["value.bias"]
    pooled = []
    for vector, offset in zip(weights["attention.weight"], weights["attention.bias"], strict=True):
        pooled.append(softmax(key_TC @ vector + offset, 0) @ value_TC)
    expected = weights["projection.weight"] @ np.concatenate(pooled) + weights["projection.bias"]
    np.testing.assert_allclose(head(layers, is_frame)[0], expected, atol=1e-5)


def norm_by_hand(hidden_CT: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    mean, variance = weights[f"{name}.running_mean"][:, None], weights[f"{name}.running_var"][:, None]
    normal = (hidden_CT - mean) / np.sqrt(variance + 1e-5)
    return normal * weights[f"{name}.weight"][:, None] + weights[f"{name}.bias"][:, None]


@torch.inference_mode()
def test_nes2net_is_that_of_the_paper() -> None:
    """Part by part and tap by tap, with every side-by-side map kept in a list."""
    head = make_head("nes2net").eval()
    for part in head.blocks[0].parts:
        assert torch.allclose(part.weight_K, torch.full_like(part.weight_K, 1 / len(part.weight_K)))
    for parameter in head.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape))  # sums and gates that are not all alike
    layers, is_frame, (hidden_TD,) = one_utterance(head, 12)
    weights = arrays(head)

    def affine(hidden_CT: np.ndarray, name: str) -> np.ndarray:
        kernel = weights[f"{name}.weight"]
        return kernel.reshape(*kernel.shape[:2]) @ hidden_CT + weights[f"{name}.bias"][:, None]

    def dilated(hidden_CT: np.ndarray, name: str) -> np.ndarray:
        padded = np.pad(hidden_CT, ((0, 0), (2, 2)))
        taps = [padded[:, 2 * tap : 2 * tap + hidden_CT.shape[1]] for tap in range(3)]
        kernel = weights[f"{name}.weight"][:, :, 0]
        return sum(kernel[:, :, tap] @ taps[tap] for tap in range(3)) + weights[f"{name}.bias"][:, None]

    def block(group_CT: np.ndarray, name: str) -> np.ndarray:
        inner = norm_by_hand(np.maximum(affine(group_CT, f"{name}.conv_in"), 0), weights, f"{name}.norm_in")
        splits = np.split(inner, 8)
        side, outputs = [splits[7]], []
        for index in range(7):
            part = f"{name}.parts.{index}"
            side = [np.maximum(dilated(one, f"{part}.conv"), 0) for one in [*side, splits[index]]]
            side = [norm_by_hand(one, weights, f"{part}.norm") for one in side]
            outputs.append(sum(w * one for w, one in zip(weights[f"{part}.weight_K"], side, strict=True)))
        outer = np.maximum(affine(np.concatenate([*outputs, splits[7]]), f"{name}.conv_out"), 0)
        outer = norm_by_hand(outer, weights, f"{name}.norm_out")
        squeezed = np.maximum(affine(outer.mean(1, keepdims=True), f"{name}.excitation.0"), 0)
        return outer * sigmoid(affine(squeezed, f"{name}.excitation.2")) + group_CT

    groups, outputs = np.split(hidden_TD.T, 8), []
    for index in range(7):
        group = groups[index] + (outputs[-1] if outputs else 0)
        after = np.maximum(block(group, f"blocks.{index}"), 0)
        outputs.append(norm_by_hand(after, weights, f"blocks.{index}.norm"))
    last = np.maximum(norm_by_hand(np.concatenate([*outputs, groups[7]]), weights, "norm"), 0)
    np.testing.assert_allclose(head(layers, is_frame)[0], last.mean(1), atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_weighted_merge_starts_as_the_mean_and_weighs_by_softmax() -> None:
    merge = make_merge("weighted", N_HIDDEN, WIDTH)
    layers, is_frame, hidden_LTD = one_utterance(merge, 9)
    np.testing.assert_allclose(merge(layers, is_frame)[0], hidden_LTD.mean(0), atol=1e-6)
    merge.logits.copy_(torch.tensor([2.0, 1.0, 1.0, 1.0]).log())
    expected = np.tensordot([0.4, 0.2, 0.2, 0.2], hidden_LTD, 1)
    np.testing.assert_allclose(merge(layers, is_frame)[0], expected, atol=1e-6)


@torch.inference_mode()
def test_gated_merge_is_that_of_the_paper() -> None:
    torch.manual_seed(1)
    merge = make_merge("gated", N_HIDDEN, WIDTH)
    layers, is_frame, hidden_LTD = one_utterance(merge, 9)
    weights = arrays(merge)
    x1 = hidden_LTD[1:]  # without the encoder's input
    x3 = x1.mean(1) @ weights["pool.weight"][0]
    x3 = x3 * sigmoid(x3)
    inner = weights["squeeze.weight"] @ x3
    x4 = sigmoid(weights["excite.weight"] @ (inner * sigmoid(inner)))
    assert x4.std() > 1e-3
    x5 = np.concatenate(x4[:, None, None] * x1, axis=1)
    hidden = x5 @ weights["projection.0.weight"].T + weights["projection.0.bias"]
    assert hidden.shape == (9, 3 * WIDTH // 4)
    expected = (hidden * sigmoid(hidden)) @ weights["projection.2.weight"].T + weights["projection.2.bias"]
    np.testing.assert_allclose(merge(layers, is_frame)[0], expected, atol=1e-5)


@torch.inference_mode()
def test_frame_head_leaves_frames_as_they_are_or_puts_one_hidden_layer_above() -> None:
    hidden = torch.randn(2, 5, 16)
    linear, mlp = FrameHead(16, "linear"), FrameHead(16, "mlp")
    assert linear.embedding_width == mlp.embedding_width == 16
    assert torch.equal(linear(hidden), hidden)
    assert (count(linear), count(mlp)) == (0, 16 * 16 + 16)
    weight, bias = mlp.parameters()
    assert torch.allclose(mlp(hidden), F.gelu(hidden @ weight.T + bias), atol=1e-6)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(
        SpoofkitError, match="head nes2net: the encoder's frames have 100 features, expected a multiple"
    ):
        UTTERANCE_HEADS["nes2net"](100, 25)
    with pytest.raises(SpoofkitError, match="head ecapa: its batch norms need at least two utterances, found one"):
        make_head("ecapa").train()([torch.zeros(1, 9, WIDTH)], torch.ones(1, 9, dtype=torch.bool))
    with pytest.raises(SpoofkitError, match="layers: gated merges the outputs of the encoder's layers, found none"):
        make_merge("gated", 1, 70)
    with pytest.raises(ValueError, match="merge 'max': expected one of weighted, gated"):
        make_merge("max", 4, 8)
    with pytest.raises(ValueError, match="frame head 'conv': expected linear or mlp"):
        FrameHead(8, "conv")
