"""AASIST: the published weights give the published logits; padding reaches neither nodes nor statistics."""

import hashlib
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import firwin
from torch import nn
from torch.nn import functional as F
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from spoofkit.addons.convert.aasist import HEADS, from_authors, is_aasist
from spoofkit.errors import SpoofkitError
from spoofkit.models.heads.aasist import AasistHead, RawAasistHead, RawAasistLightHead
from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.graph import GraphAttention, GraphPart, GraphPool, GraphSizes, StackAttention
from spoofkit.models.heads.masking import masked_batch_norm, pool_time
from spoofkit.models.sinc import SINC_FRONT_ENDS, sinc_filters, sinc_frames, sinc_geometry

PUBLISHED = SHARED / "models" / "aasist"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published weights are not here")
MODELS = ["AASIST", "AASIST-L"]
SSL_WIDTH = 12


# --- what test_rawnet2.py needs, too ---


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def n_parameters(head: UtteranceHead) -> int:
    """Of the head and the linear output layer behind it."""
    return sum(p.numel() for p in head.parameters()) + head.n_logits * (head.embedding_width + 1)


def padded(utterances: list[torch.Tensor], n_frames: int, seed: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch whose padding is large and random, and its mask."""
    hidden = 1e4 * noise(len(utterances), n_frames, utterances[0].shape[1], seed=seed).to(utterances[0])
    is_frame = torch.zeros(len(utterances), n_frames, dtype=torch.bool)
    for row, utterance in enumerate(utterances):
        hidden[row, : len(utterance)] = utterance
        is_frame[row, : len(utterance)] = True
    return hidden, is_frame


def alone(head: UtteranceHead, utterance_TD: torch.Tensor) -> torch.Tensor:
    return head([utterance_TD[None]], torch.ones(1, len(utterance_TD), dtype=torch.bool))[0]


def settled(head: UtteranceHead, width: int, n_frames: int) -> UtteranceHead:
    """In evaluation mode, batch norms with statistics, scales and shifts that are not 1 and 0."""
    for module in head.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        head.train()([noise(3, n_frames, width, seed=5)], torch.ones(3, n_frames, dtype=torch.bool))
    return head.eval()


def without_dropout(head: UtteranceHead) -> UtteranceHead:
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return head.train()


def check_that_padding_changes_nothing_in_training(head: UtteranceHead, width: int, n_frames: int, more: int) -> None:
    """Two utterances of equal length, with padding behind both and without: embeddings, statistics and gradients."""
    utterances = [noise(n_frames, width, seed=seed).double() for seed in (1, 2)]
    results = []
    before = {name: tensor.clone() for name, tensor in head.double().state_dict().items()}
    for n_padded in (n_frames, n_frames + more):
        head.load_state_dict(before)
        hidden, is_frame = padded(utterances, n_padded)
        embedding = without_dropout(head)([hidden], is_frame)
        head.zero_grad()
        embedding.square().sum().backward()
        gradients = {name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}
        results.append((embedding.detach(), {k: v.clone() for k, v in head.state_dict().items()}, gradients))
    (embedding, state, gradients), (embedding_padded, state_padded, gradients_padded) = results
    torch.testing.assert_close(embedding_padded, embedding, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(state_padded, state, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(gradients_padded, gradients, atol=1e-7, rtol=1e-7)


def check_that_all_parameters_learn(head: UtteranceHead, utterances: list[torch.Tensor], n_frames: int) -> None:
    """But those that the papers count and their code does not use, which are frozen."""
    hidden, is_frame = padded(utterances, n_frames)
    hidden.requires_grad_(True)
    head.train()([hidden], is_frame).square().sum().backward()
    for name, parameter in head.named_parameters():
        if "unused_norm" in name:
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.ne(0).any()), name
    assert not hidden.grad[~is_frame].any()
    assert hidden.grad[is_frame].any()


# --- the front-end ---


@pytest.mark.parametrize("name", SINC_FRONT_ENDS)
def test_sinc_filters_are_those_of_the_window_method_between_mel_spaced_edges(name: str) -> None:
    n_filters, kernel = SINC_FRONT_ENDS[name].n_filters, SINC_FRONT_ENDS[name].kernel
    edges = mel_to_hertz(np.linspace(0, hertz_to_mel(8000.0, "htk"), n_filters + 1), "htk")
    expected = [firwin(kernel, edges[1], window="hamming", scale=False, fs=16_000)]
    for low, high in itertools.pairwise(edges[1:-1]):
        expected.append(firwin(kernel, [low, high], window="hamming", pass_zero=False, scale=False, fs=16_000))
    expected.append(firwin(kernel, edges[-2], window="hamming", pass_zero=False, scale=False, fs=16_000))
    filters = sinc_filters(n_filters, kernel)
    assert filters.dtype == torch.float32
    np.testing.assert_allclose(filters, expected, atol=1e-7)


@pytest.mark.parametrize("name", SINC_FRONT_ENDS)
def test_sinc_filters_together_pass_the_sample_a_frame_is_centred_on(name: str) -> None:
    kernel = SINC_FRONT_ENDS[name].kernel
    geometry = sinc_geometry(kernel)
    wave = noise(2, kernel + 50)
    hidden = sinc_frames(wave, sinc_filters(SINC_FRONT_ENDS[name].n_filters, kernel))
    centres = geometry.centres(kernel + 50)
    assert hidden.shape == (2, 51, SINC_FRONT_ENDS[name].n_filters)
    assert len(centres) == 51
    assert geometry.n_frames(kernel - 1) == 0
    torch.testing.assert_close(hidden.sum(-1), wave[:, centres], atol=1e-4, rtol=0)


# --- the published weights ---


def published(name: str) -> dict[str, torch.Tensor]:
    return dict(torch.load(PUBLISHED / f"{name}.pth", weights_only=True, map_location="cpu"))


def reference_signal(entry: dict[str, Any]) -> np.ndarray:
    """As aasist_reference.json describes it."""
    rng = np.random.default_rng(entry["k"])
    t = np.arange(entry["n"]) / 16_000
    frequency = 100 * (entry["k"] + 1)
    wave = 0.1 * rng.standard_normal(entry["n"]) + 0.2 * np.sin(2 * np.pi * frequency * t) * np.exp(-t)
    return wave.astype(np.float32)


@needs_published
@pytest.mark.release  # of two of the eight signals, test_convert.py compares them by the verbs
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_published_weights_give_the_logits_of_the_authors_code(name: str) -> None:
    entries = json.loads((PUBLISHED / "aasist_reference.json").read_text())["signals"]
    kind, head_tensors, output = from_authors(published(name))
    assert kind == {"AASIST": "raw_aasist", "AASIST-L": "raw_aasist_l"}[name]
    head = HEADS[kind](70, n_hidden=1).eval()
    head.load_state_dict(head_tensors, strict=True)
    filters = sinc_filters(70, 129)
    assert len(entries) == 8
    for entry in entries:
        wave = reference_signal(entry)
        assert hashlib.sha256(wave.tobytes()).hexdigest() == entry["sha256_float32"]
        embedding = alone(head, sinc_frames(torch.from_numpy(wave)[None], filters)[0])
        logits = F.linear(embedding, output["weight"], output["bias"])
        np.testing.assert_allclose(logits, entry[name], atol=1e-4, rtol=0)


@needs_published
def test_published_tensors_are_recognised_and_all_used() -> None:
    tensors = published("AASIST")
    assert is_aasist(tensors)
    assert not is_aasist({**tensors, "LL.weight": torch.zeros(128, 1024)})
    assert not is_aasist({"encoder.layers.0.weight": torch.zeros(1)})
    _, head, output = from_authors(tensors)
    # The stack's attention is nearly even (temperature 100), so logits alone would hardly show these interchanged.
    for ours, theirs in [("temporal", "11"), ("spectral", "22"), ("mixed", "12")]:
        for branch, position in itertools.product((0, 1), ("first", "second")):
            layer = f"HtrgGAT_layer_ST{branch + 1}{1 + (position == 'second')}"
            assert head[f"graph.branches.{branch}.{position}.score_{ours}"] is tensors[f"{layer}.att_weight{theirs}"]
    used = sorted(id(tensor) for tensor in (*head.values(), *output.values()))
    assert used == sorted(id(tensor) for tensor in tensors.values())


@needs_published
def test_tensors_that_do_not_fit_are_refused_by_name() -> None:
    tensors = published("AASIST-L")
    wrong_shape = {**tensors, "pool_hT1.proj.weight": torch.zeros(1, 31)}
    not_finite = {**tensors, "GAT_layer_S.bn.running_var": torch.full((24,), math.nan)}
    other_size = {**tensors, "pos_S": torch.zeros(1, 23, 48)}
    missing = {name: tensor for name, tensor in tensors.items() if name != "encoder.3.0.bn2.running_mean"}
    for changed, sentence in [
        (missing, r"^file: 1 tensors are missing, first encoder\.3\.0\.bn2\.running_mean;"),
        ({**tensors, "encoder.6.0.conv1.bias": torch.zeros(24)}, r"1 tensors are unknown, first encoder\.6\.0\.conv1"),
        (wrong_shape, r"1 tensors are of another shape, first pool_hT1\.proj\.weight;"),
        (not_finite, r"1 tensors are not finite, first GAT_layer_S\.bn\.running_var;"),
        (other_size, r"pos_S has 48 features, expected 64 \(AASIST\) or 24"),
    ]:
        with pytest.raises(SpoofkitError, match=sentence):
            from_authors(changed, "file")


def test_parameters_are_as_many_as_published() -> None:
    assert n_parameters(RawAasistHead(70, n_hidden=1)) == 297_866
    assert n_parameters(RawAasistLightHead(70, n_hidden=1)) == 85_306
    ssl = n_parameters(AasistHead(1024, n_hidden=25))
    assert ssl == 447_242
    # The model card of SSL-AASIST says 317.8378 million; XLS-R 300M with its quantizer has 317,390,592.
    assert round((ssl + 317_390_592) / 1e6, 4) == 317.8378


# --- the map and the graph, written out ---


def blocks_written_out(head: nn.Module, x: torch.Tensor, pool: bool) -> torch.Tensor:
    """First norm and residual blocks on a map that has been pooled once."""
    x = F.selu(norm_written_out(head, "first_norm", x))
    for index in range(6):
        block = f"blocks.{index}"
        y = F.selu(norm_written_out(head, f"{block}.norm", convolve(head, f"{block}.first", x, (1, 1))))
        y = convolve(head, f"{block}.second", y, (0, 1))
        x = y + (
            convolve(head, f"{block}.shortcut", x, (0, 1)) if f"{block}.shortcut.weight" in head.state_dict() else x
        )
        if pool:
            n = x.shape[3] // 3
            x = x[..., : 3 * n].reshape(*x.shape[:3], n, 3).amax(4)
    return x


def norm_written_out(head: nn.Module, name: str, x: torch.Tensor) -> torch.Tensor:
    values = (head.state_dict()[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    mean, variance, weight, bias = (value[:, None, None] for value in values)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def convolve(head: nn.Module, name: str, x: torch.Tensor, padding: tuple[int, int]) -> torch.Tensor:
    state = head.state_dict()
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)


@torch.inference_mode()
def test_ssl_head_reads_the_map_as_the_authors_code_does() -> None:
    head = settled(AasistHead(SSL_WIDTH, n_hidden=1), SSL_WIDTH, 20)
    hidden = noise(2, 31, SSL_WIDTH)
    # 128 features x 31 frames: the largest of each 3 x 3, what is left over at the ends is dropped
    x = (hidden @ head.project.weight.T + head.project.bias).transpose(1, 2)
    x = blocks_written_out(head, x[:, :126, :30].reshape(2, 42, 3, 10, 3).amax((2, 4))[:, None], pool=False)
    x = F.selu(norm_written_out(head, "last_norm", x))
    attention = norm_written_out(head, "attention_norm", F.selu(convolve(head, "attention_in", x, (0, 0))))
    w = convolve(head, "attention_out", attention, (0, 0)).exp()
    spectral = torch.einsum("bcft,bcft->bfc", x, w / w.sum(3, keepdim=True))
    temporal = torch.einsum("bcft,bcft->btc", x, w / w.sum(2, keepdim=True))
    assert spectral.shape == (2, 42, 64)
    assert temporal.shape == (2, 10, 64)
    embedding = head([hidden], torch.ones(2, 31, dtype=torch.bool))
    torch.testing.assert_close(embedding, head.graph(spectral, temporal, None), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_raw_head_reads_the_map_as_the_authors_code_does() -> None:
    head = settled(RawAasistLightHead(70, n_hidden=1), 70, 4500)
    hidden = noise(1, 6565, 70)
    x = hidden.abs().transpose(1, 2)[:, :69, :6564].reshape(1, 23, 3, 2188, 3).amax((2, 4))[:, None]
    x = blocks_written_out(head, x, pool=True).abs()
    assert x.shape == (1, 24, 23, 3)
    expected = head.graph(x.amax(3).transpose(1, 2), x.amax(2).transpose(1, 2), None)
    torch.testing.assert_close(alone(head, hidden[0]), expected[0], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_two_branches_compete_and_extremes_and_means_are_read_out() -> None:
    torch.manual_seed(0)
    sizes = GraphSizes(width=6, stack_width=4, spectral_share=0.5, temporal_share=0.6, stack_share=0.75)
    graph = GraphPart(sizes, n_spectral=8).eval()
    spectral, temporal = noise(2, 8, 6), noise(2, 10, 6, seed=1)
    left_and_right = []
    for branch in graph.branches:
        s, _ = graph.spectral_pool(graph.spectral(spectral + graph.position, None), None)
        t, _ = graph.temporal_pool(graph.temporal(temporal, None), None)
        assert (s.shape, t.shape) == ((2, 4, 6), (2, 6, 6))
        t, s, m = branch.first(t, s, branch.master, None)
        t, s = branch.temporal_pool(t, None)[0], branch.spectral_pool(s, None)[0]
        t_more, s_more, m_more = branch.second(t, s, m, None)
        left_and_right.append((t + t_more, s + s_more, m + m_more))
    t, s, m = (torch.stack(pair).amax(0) for pair in zip(*left_and_right, strict=True))
    assert (t.shape, s.shape, m.shape) == ((2, 4, 4), (2, 3, 4), (2, 1, 4))
    expected = torch.cat([t.abs().amax(1), t.mean(1), s.abs().amax(1), s.mean(1), m[:, 0]], dim=1)
    torch.testing.assert_close(graph(spectral, temporal, None), expected)


# --- padding ---


@pytest.mark.parametrize(
    ("head", "width", "lengths"),
    [
        (AasistHead(SSL_WIDTH, 1), SSL_WIDTH, [40, 3, 17, 26, 200]),
        (RawAasistHead(70, 1), 70, [2187, 13_000, 4373, 7777]),
        (RawAasistLightHead(70, 1), 70, [13_000, 2187, 4374, 9000]),
    ],
    ids=["ssl", "raw", "light"],
)
@torch.inference_mode()
def test_embedding_does_not_depend_on_the_batch(head: UtteranceHead, width: int, lengths: list[int]) -> None:
    torch.manual_seed(0)
    settled(head, width, max(lengths))
    utterances = [noise(n, width, seed=n) for n in lengths]
    hidden, is_frame = padded(utterances, max(lengths) + 1)
    together = head([hidden], is_frame)
    assert together.shape == (len(lengths), 160)
    for row, utterance in enumerate(utterances):
        # Rounding that swaps two nodes of nearly equal score would show here; in double precision it cannot.
        torch.testing.assert_close(together[row], alone(head, utterance), atol=1e-5, rtol=1e-5)


@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(3, 60), min_size=2, max_size=4), more=st.integers(0, 7), seed=st.integers(0, 99))
@torch.inference_mode()
def test_ssl_embedding_does_not_depend_on_the_batch_in_double_precision(
    lengths: list[int], more: int, seed: int
) -> None:
    torch.manual_seed(seed)
    head = settled(AasistHead(SSL_WIDTH, 1), SSL_WIDTH, 30).double()
    utterances = [noise(n, SSL_WIDTH, seed=seed + n).double() for n in lengths]
    hidden, is_frame = padded(utterances, max(lengths) + more)
    together = head([hidden], is_frame)
    for row, utterance in enumerate(utterances):
        torch.testing.assert_close(together[row], alone(head, utterance), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ("head", "width", "n_frames"), [(AasistHead(SSL_WIDTH, 1), SSL_WIDTH, 16), (RawAasistLightHead(70, 1), 70, 4600)]
)
def test_padding_changes_nothing_in_training(head: UtteranceHead, width: int, n_frames: int) -> None:
    check_that_padding_changes_nothing_in_training(head, width, n_frames, more=n_frames // 2)


@pytest.mark.parametrize(
    ("head", "width", "lengths"),
    [(AasistHead(SSL_WIDTH, 1), SSL_WIDTH, [16, 29]), (RawAasistHead(70, 1), 70, [4700, 7000])],
)
def test_all_parameters_learn(head: UtteranceHead, width: int, lengths: list[int]) -> None:
    torch.manual_seed(0)
    utterances = [noise(n, width, seed=n) for n in lengths]
    check_that_all_parameters_learn(head, utterances, max(lengths) + 3)


@pytest.mark.parametrize(("kind", "width"), [(AasistHead, SSL_WIDTH), (RawAasistHead, 70), (RawAasistLightHead, 70)])
@torch.inference_mode()
def test_the_shortest_utterance_has_an_embedding_and_a_shorter_one_has_not(
    kind: type[UtteranceHead], width: int
) -> None:
    head = kind(width, 1).eval()
    assert bool(alone(head, noise(kind.shortest_frames, width)).isfinite().all())
    with pytest.raises(RuntimeError, match="too small"):
        alone(head, noise(kind.shortest_frames - 1, width))


@torch.inference_mode()
def test_evaluation_repeats_itself_and_training_drops_out() -> None:
    head = AasistHead(SSL_WIDTH, 1)
    inputs = ([noise(2, 20, SSL_WIDTH)], torch.ones(2, 20, dtype=torch.bool))
    assert bool((head.train()(*inputs) == 0).float().mean() > 0.3)  # half of the embedding is dropped
    assert torch.equal(head.eval()(*inputs), head(*inputs))


# --- parts ---


@pytest.mark.parametrize("with_bands", [False, True])
def test_batch_norm_knows_valid_frames_only(with_bands: bool) -> None:
    norm = nn.BatchNorm1d(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    shape = (3, 4, 5, 7) if with_bands else (3, 4, 7)
    hidden = noise(*shape).double()
    is_valid = torch.arange(7) < torch.tensor([[7], [2], [4]])
    valid = np.concatenate([row[..., :n].reshape(4, -1) for row, n in zip(hidden.numpy(), (7, 2, 4), strict=True)], 1)
    out = masked_batch_norm(norm.double(), hidden, is_valid).detach().numpy()
    mean, variance = valid.mean(1), valid.var(1)
    ours = np.concatenate([row[..., :n].reshape(4, -1) for row, n in zip(out, (7, 2, 4), strict=True)], 1)
    expected = (valid - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
    expected = expected * norm.weight.detach().numpy()[:, None] + norm.bias.detach().numpy()[:, None]
    np.testing.assert_allclose(ours, expected, atol=1e-10)
    np.testing.assert_allclose(norm.running_mean, 0.1 * mean, atol=1e-12)
    np.testing.assert_allclose(norm.running_var, 0.9 + 0.1 * valid.var(1, ddof=1), atol=1e-12)
    for training in (True, False):
        out = masked_batch_norm(norm.train(training), hidden, is_valid).detach().numpy()
        assert not out[1, ..., 2:].any()
        assert not out[2, ..., 4:].any()
        assert out[1, ..., :2].all()


@given(n=st.integers(3, 40))
def test_pooled_frames_are_a_third_rounded_down(n: int) -> None:
    is_valid = torch.arange(40)[None] < n
    pooled, is_pooled = pool_time(torch.arange(40.0)[None, None], is_valid)
    assert is_pooled.shape == pooled.shape[::2]
    assert pooled[0, 0, is_pooled[0]].tolist() == list(range(2, n - n % 3, 3))


@settings(deadline=None)
@given(n_nodes=st.lists(st.integers(1, 30), min_size=1, max_size=4), share=st.sampled_from([0.4, 0.5, 0.7]))
@torch.inference_mode()
def test_graph_pool_keeps_an_utterances_own_share_highest_first(n_nodes: list[int], share: float) -> None:
    pool = GraphPool(6, share).double().eval()
    nodes = noise(len(n_nodes), 30, 6).double()
    is_node = torch.arange(30) < torch.tensor(n_nodes)[:, None]
    nodes[~is_node] = 1e3 * pool.score.weight.data[0]  # the highest scores of all, were they asked
    kept, is_kept = pool(nodes, is_node)
    for row, n in enumerate(n_nodes):
        scores = [1 / (1 + math.exp(-float(pool.score(node)))) for node in nodes[row, :n]]
        order = sorted(range(n), key=lambda index: -scores[index])[: max(int(n * share), 1)]
        expected = torch.stack([nodes[row, index] * scores[index] for index in order])
        assert int(is_kept[row].sum()) == len(order)
        torch.testing.assert_close(kept[row, is_kept[row]], expected)
        own, _ = pool(nodes[row : row + 1, :n], None)
        torch.testing.assert_close(own[0], expected)


@torch.inference_mode()
def test_attention_asks_valid_nodes_only() -> None:
    """Against plain loops over pairs of nodes."""
    torch.manual_seed(0)
    graph = GraphAttention(5, temperature=2.0).double().eval()
    nodes = noise(1, 6, 5).double()
    is_node = torch.arange(6)[None] < 4
    expected = []
    for i in range(4):
        scores = torch.stack([torch.tanh(graph.pair(nodes[0, i] * nodes[0, j])) @ graph.score for j in range(4)])
        weights = torch.softmax(scores[:, 0] / 2.0, 0)
        received = sum(weights[j] * nodes[0, j] for j in range(4))
        expected.append(F.selu((graph.spread.received(received) + graph.spread.own(nodes[0, i])) / math.sqrt(1 + 1e-5)))
    out = graph(nodes, is_node)
    torch.testing.assert_close(out[0, :4], torch.stack(expected))
    assert not out[0, 4:].any()


@torch.inference_mode()
def test_stack_weighs_pairs_by_kind_and_its_master_reads_all_valid_nodes() -> None:
    torch.manual_seed(0)
    stack = StackAttention(4, 3, temperature=0.5).double().eval()
    temporal, spectral, master = (
        noise(1, 5, 4).double(),
        noise(1, 2, 4, seed=1).double(),
        noise(1, 1, 4, seed=2).double(),
    )
    valid_temporal, valid_spectral, new_master = stack(temporal, spectral, master, torch.arange(5)[None] < 3)
    nodes = [*stack.temporal(temporal[0, :3]), *stack.spectral(spectral[0])]
    kinds = "tttss"
    weight_of = {
        "tt": stack.score_temporal,
        "ss": stack.score_spectral,
        "ts": stack.score_mixed,
        "st": stack.score_mixed,
    }
    expected = []
    for i, node in enumerate(nodes):
        scores = [torch.tanh(stack.pair(node * nodes[j])) @ weight_of[kinds[i] + kinds[j]] for j in range(5)]
        weights = torch.softmax(torch.cat(scores) / 0.5, 0)
        received = sum(weights[j] * nodes[j] for j in range(5))
        expected.append(F.selu((stack.spread.received(received) + stack.spread.own(node)) / math.sqrt(1 + 1e-5)))
    torch.testing.assert_close(valid_temporal[0, :3], torch.stack(expected[:3]))
    torch.testing.assert_close(valid_spectral[0], torch.stack(expected[3:]))
    scores = [torch.tanh(stack.master_pair(node * master[0, 0])) @ stack.master_score for node in nodes]
    weights = torch.softmax(torch.cat(scores) / 0.5, 0)
    received = sum(weights[j] * nodes[j] for j in range(5))
    torch.testing.assert_close(new_master[0, 0], stack.master_received(received) + stack.master_own(master[0, 0]))
