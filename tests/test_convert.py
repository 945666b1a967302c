"""Conversion: hostile files run nothing; converted networks compute what an independent forward pass computes.

The forward pass below is written from the papers and reads fairseq's tensor names directly: wav2vec 2.0
(arXiv:2006.11477), HuBERT (same network), WavLM's gated relative position bias (arXiv:2110.13900, section 3.2).
"""

import argparse
import builtins
import collections
import json
import math
import os
import pickle
import random
import re
import struct
import sys
import types
import typing
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import SHARED, run_cli, table_rows
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.utils import collect_env

from spoofkit.addons.convert import aasist, antideepfake
from spoofkit.addons.convert.run import convert
from spoofkit.addons.convert.ssl_detectors import AASIST_PARTS
from spoofkit.addons.convert.unpickle import StandIn, load_tensors, plain
from spoofkit.errors import SpoofkitError
from spoofkit.models import provenance as facts
from spoofkit.models.assemble import assemble
from spoofkit.models.detector import load_detector
from spoofkit.models.heads.aasist import AasistHead, RawAasistLightHead
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.provenance import Provenance, contamination_warning, known_provenance, read_provenance
from spoofkit.models.torchaudio_bundle import (
    HUB_IDS,
    bundle_provenance,
    load_bundle,
    transformers_config,
    transformers_names,
)
from spoofkit.settings import EncoderSettings

CONV = [(16, 10, 5), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 2, 2), (16, 2, 2)]
CONV_TEXT = "[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16,2,2)] + [(16,2,2)]"
WIDTH, INNER, HEADS, LAYERS, KERNEL, GROUPS = 32, 48, 4, 2, 16, 4
BUCKETS, DISTANCE = 16, 20  # few and near, so that a second of frames reaches the last one
# What the networks of each kind have: norm of the stem, convolutions' bias, layer norms first.
KINDS = {
    "wav2vec2-base": ("default", False, False),
    "wav2vec2-xlsr": ("layer_norm", True, True),
    "hubert-large": ("layer_norm", False, True),
    "wavlm-base": ("default", False, False),
    "wavlm-large": ("layer_norm", False, True),
}


def fairseq_tensors(kind: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under fairseq's names, as a pre-training checkpoint has them."""
    mode, conv_bias, _ = KINDS[kind]
    shapes: dict[str, tuple[int, ...]] = {"mask_emb": (WIDTH,)}
    before = 1
    for i, (channels, kernel, _) in enumerate(CONV):
        shapes[f"feature_extractor.conv_layers.{i}.0.weight"] = (channels, before, kernel)
        if conv_bias:
            shapes[f"feature_extractor.conv_layers.{i}.0.bias"] = (channels,)
        norm = (
            f"feature_extractor.conv_layers.{i}.2.1" if mode == "layer_norm" else f"feature_extractor.conv_layers.{i}.2"
        )
        if mode == "layer_norm" or i == 0:
            shapes |= {f"{norm}.weight": (channels,), f"{norm}.bias": (channels,)}
        before = channels
    shapes |= {"layer_norm.weight": (before,), "layer_norm.bias": (before,)}
    shapes |= {"post_extract_proj.weight": (WIDTH, before), "post_extract_proj.bias": (WIDTH,)}
    shapes |= {"encoder.pos_conv.0.weight_g": (1, 1, KERNEL), "encoder.pos_conv.0.bias": (WIDTH,)}
    shapes |= {"encoder.pos_conv.0.weight_v": (WIDTH, WIDTH // GROUPS, KERNEL)}
    shapes |= {"encoder.layer_norm.weight": (WIDTH,), "encoder.layer_norm.bias": (WIDTH,)}
    for i in range(LAYERS):
        at = f"encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{at}.self_attn.{part}.weight": (WIDTH, WIDTH), f"{at}.self_attn.{part}.bias": (WIDTH,)}
        for part in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{at}.{part}.weight": (WIDTH,), f"{at}.{part}.bias": (WIDTH,)}
        shapes |= {f"{at}.fc1.weight": (INNER, WIDTH), f"{at}.fc1.bias": (INNER,)}
        shapes |= {f"{at}.fc2.weight": (WIDTH, INNER), f"{at}.fc2.bias": (WIDTH,)}
        if kind.startswith("wavlm"):
            head = WIDTH // HEADS
            shapes |= {f"{at}.self_attn.grep_linear.weight": (8, head), f"{at}.self_attn.grep_linear.bias": (8,)}
            shapes |= {f"{at}.self_attn.grep_a": (1, HEADS, 1, 1)}
            if i == 0:
                shapes |= {f"{at}.self_attn.relative_attention_bias.weight": (BUCKETS, HEADS)}
    if kind.startswith("wav2vec2"):
        shapes |= {"quantizer.vars": (1, 8, 4), "quantizer.weight_proj.weight": (8, 16), "project_q.bias": (4,)}
        shapes |= {"final_proj.weight": (4, WIDTH)}
    if kind.startswith("hubert"):
        shapes |= {"label_embs_concat": (9, 4), "final_proj.weight": (4, WIDTH), "final_proj.bias": (4,)}
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (1.0 if "norm.weight" in name or name.endswith((".2.weight", ".2.1.weight", "weight_g")) else 0.0)
        + 0.3 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def fairseq_settings(kind: str) -> dict[str, Any]:
    mode, conv_bias, pre_norm = KINDS[kind]
    found: dict[str, Any] = {
        "_name": kind.partition("-")[0], "extractor_mode": mode, "conv_bias": conv_bias, "layer_norm_first": pre_norm,
        "encoder_layers": LAYERS, "encoder_embed_dim": WIDTH, "encoder_ffn_embed_dim": INNER,
        "encoder_attention_heads": HEADS, "activation_fn": "gelu", "conv_feature_layers": CONV_TEXT,
        "conv_pos": KERNEL, "conv_pos_groups": GROUPS, "dropout": 0.1, "encoder_layerdrop": 0.05,
    }  # fmt: skip
    if kind.startswith("wavlm"):
        found |= {"num_buckets": BUCKETS, "max_distance": DISTANCE, "gru_rel_pos": True}
    return found


def checkpoint(kind: str) -> dict[str, Any]:
    """What the authors' files hold beside the tensors: WavLM flat settings, fairseq nested ones."""
    _, _, pre_norm = KINDS[kind]
    found, tensors = fairseq_settings(kind), fairseq_tensors(kind)
    if kind.startswith("wavlm"):
        return {"cfg": found | {"normalize": pre_norm}, "model": tensors}
    return {"args": None, "cfg": {"model": found, "task": {"normalize": pre_norm}}, "model": tensors}


def save_checkpoint(folder: Path, top: Any, name: str = "model.pt", legacy: bool = False) -> Path:
    torch.save(top, folder / name, _use_new_zipfile_serialization=not legacy)
    return folder / name


def linear(t: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def layer_norm(t: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * t[f"{name}.weight"] + t[f"{name}.bias"]
    )


def position_bias_HTT(table: torch.Tensor, n_frames: int) -> torch.Tensor:
    """T5's buckets: one a distance up to a quarter of them, then logarithmic; the upper half looks ahead."""
    half, exact = BUCKETS // 2, BUCKETS // 4
    bias = torch.zeros(HEADS, n_frames, n_frames)
    for query in range(n_frames):
        for key in range(n_frames):
            distance = abs(key - query)
            bucket = distance
            if distance >= exact:
                share = math.log(distance / exact) / math.log(DISTANCE / exact)
                bucket = min(half - 1, exact + int(share * (half - exact)))
            bias[:, query, key] = table[bucket + (half if key > query else 0)]
    return bias


def attention(t: dict[str, torch.Tensor], at: str, x_TD: torch.Tensor, bias_HTT: torch.Tensor | None) -> torch.Tensor:
    n_frames, head = len(x_TD), WIDTH // HEADS
    mixed = []
    for h in range(HEADS):
        own = slice(h * head, (h + 1) * head)
        query, key, value = (linear(t, f"{at}.{part}_proj", x_TD)[:, own] for part in "qkv")
        score_TT = query @ key.T / math.sqrt(head)
        if bias_HTT is not None:
            gates_T8 = x_TD[:, own] @ t[f"{at}.grep_linear.weight"].T + t[f"{at}.grep_linear.bias"]
            update_T, reset_T = (torch.sigmoid(gates_T8.view(n_frames, 2, 4).sum(2))[:, i] for i in (0, 1))
            gate_T = update_T * (reset_T * t[f"{at}.grep_a"][0, h, 0, 0] - 1) + 2
            score_TT = score_TT + gate_T[:, None] * bias_HTT[h]
        mixed.append(torch.softmax(score_TT, dim=1) @ value)
    return linear(t, f"{at}.out_proj", torch.cat(mixed, dim=1))


def fairseq_forward(t: dict[str, torch.Tensor], kind: str, wave_S: torch.Tensor) -> torch.Tensor:
    """Frames (T, D) of one waveform."""
    mode, _, pre_norm = KINDS[kind]
    x_CT = wave_S[None]
    for i, (_, _, stride) in enumerate(CONV):
        at = f"feature_extractor.conv_layers.{i}"
        x_CT = F.conv1d(x_CT[None], t[f"{at}.0.weight"], t.get(f"{at}.0.bias"), stride=stride)[0]
        if mode == "layer_norm":
            x_CT = layer_norm(t, f"{at}.2.1", x_CT.T).T
        elif i == 0:  # a group a channel: over time
            centred = x_CT - x_CT.mean(1, keepdim=True)
            x_CT = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)
            x_CT = x_CT * t[f"{at}.2.weight"][:, None] + t[f"{at}.2.bias"][:, None]
        x_CT = F.gelu(x_CT)
    x_TD = linear(t, "post_extract_proj", layer_norm(t, "layer_norm", x_CT.T))
    direction = t["encoder.pos_conv.0.weight_v"]
    weight = t["encoder.pos_conv.0.weight_g"] * direction / direction.square().sum((0, 1), keepdim=True).sqrt()
    around = F.conv1d(x_TD.T[None], weight, t["encoder.pos_conv.0.bias"], padding=KERNEL // 2, groups=GROUPS)[0, :, :-1]
    x_TD = x_TD + F.gelu(around).T
    bias = None
    if kind.startswith("wavlm"):
        bias = position_bias_HTT(t["encoder.layers.0.self_attn.relative_attention_bias.weight"], len(x_TD))
    if not pre_norm:
        x_TD = layer_norm(t, "encoder.layer_norm", x_TD)
    for i in range(LAYERS):
        at = f"encoder.layers.{i}"
        if pre_norm:
            x_TD = x_TD + attention(t, f"{at}.self_attn", layer_norm(t, f"{at}.self_attn_layer_norm", x_TD), bias)
            inner = F.gelu(linear(t, f"{at}.fc1", layer_norm(t, f"{at}.final_layer_norm", x_TD)))
            x_TD = x_TD + linear(t, f"{at}.fc2", inner)
        else:
            x_TD = layer_norm(t, f"{at}.self_attn_layer_norm", x_TD + attention(t, f"{at}.self_attn", x_TD, bias))
            inner = F.gelu(linear(t, f"{at}.fc1", x_TD))
            x_TD = layer_norm(t, f"{at}.final_layer_norm", x_TD + linear(t, f"{at}.fc2", inner))
    return layer_norm(t, "encoder.layer_norm", x_TD) if pre_norm else x_TD


def voice(n_samples: int = 12_000) -> torch.Tensor:
    return 0.3 * torch.randn(n_samples, generator=torch.Generator().manual_seed(5)) + 0.1


def hf_frames(folder: Path, wave_S: torch.Tensor) -> torch.Tensor:
    """What transformers alone makes of a folder."""
    import transformers as hf

    network = hf.AutoModel.from_pretrained(folder).eval()
    inputs = hf.AutoFeatureExtractor.from_pretrained(folder)(wave_S.numpy(), sampling_rate=16_000, return_tensors="pt")
    return network(inputs.input_values).last_hidden_state[0]


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
@torch.inference_mode()
def test_converted_network_computes_what_the_papers_say(kind: str, tmp_path: Path) -> None:
    _, _, pre_norm = KINDS[kind]
    top = checkpoint(kind)
    summary = convert(save_checkpoint(tmp_path, top), tmp_path / "encoder")
    wave = voice()
    heard = (wave - wave.mean()) / torch.sqrt(wave.var(correction=0) + 1e-7) if pre_norm else wave
    expected = fairseq_forward(top["model"], kind, heard)
    assert torch.allclose(hf_frames(tmp_path / "encoder", wave), expected, atol=1e-5)
    ours = load_encoder(EncoderSettings(name=str(tmp_path / "encoder"))).eval()
    hidden = ours(wave[None], torch.tensor([len(wave)]))[0]
    last = hidden[-1] if isinstance(hidden, list) else hidden
    assert torch.allclose(last[0], expected, atol=1e-5)
    assert (summary.kind, summary.family, summary.n_layers, summary.width) == (
        "encoder", kind.partition("-")[0], LAYERS, WIDTH,
    )  # fmt: skip


def test_settings_of_all_published_shapes_are_found(tmp_path: Path) -> None:
    """Old fairseq has a flat namespace; fine-tuned models nest the encoder's; s3prl has dictionaries of its own."""
    import transformers as hf

    found, tensors = fairseq_settings("wav2vec2-xlsr"), fairseq_tensors("wav2vec2-xlsr")
    bare = {name: t for name, t in tensors.items() if not name.startswith(("quantizer", "project_q", "final_proj"))}
    tuned = {f"w2v_encoder.w2v_model.{name}": t for name, t in bare.items()}
    tuned |= {"w2v_encoder.proj.weight": torch.zeros(5, WIDTH), "w2v_encoder.proj.bias": torch.zeros(5)}
    ctc = {"_name": "wav2vec_ctc", "dropout": 0.0, "normalize": True}
    tops = {
        "args": {"args": argparse.Namespace(**found, arch="wav2vec2", normalize=True), "cfg": None, "model": tensors},
        "namespace-in-cfg": {
            "cfg": {"model": argparse.Namespace(**found), "task": {"normalize": True}},
            "model": tensors,
        },
        "ctc": {
            "cfg": {"model": ctc | {"w2v_args": {"model": found, "task": {}}}, "task": {"normalize": True}},
            "model": tuned,
        },
        "ctc-args": {
            "args": argparse.Namespace(arch="wav2vec_ctc", normalize=True, w2v_args=argparse.Namespace(**found)),
            "model": tuned,
        },
        "s3prl": {"task_cfg": {"normalize": True}, "model_cfg": found, "model_weight": tensors},
    }
    folders = {}
    for name, top in tops.items():
        folders[name] = tmp_path / name
        summary = convert(save_checkpoint(tmp_path, top, f"{name}.pt", legacy=name == "args"), folders[name])
        assert ("trained to transcribe" in " ".join(summary.lines())) == name.startswith("ctc")
        assert hf.AutoFeatureExtractor.from_pretrained(folders[name]).do_normalize, name
    first = load_file(folders["args"] / "model.safetensors")
    config = json.loads((folders["args"] / "config.json").read_text())
    assert config["model_type"] == "wav2vec2"
    assert config["layerdrop"] == 0.05
    for name, folder in folders.items():
        assert json.loads((folder / "config.json").read_text()) == config, name
        tensors = load_file(folder / "model.safetensors")
        assert tensors.keys() == first.keys()
        assert all(torch.equal(tensors[key], first[key]) for key in first)


def test_masking_vector_is_kept_and_not_needed(tmp_path: Path) -> None:
    top = checkpoint("hubert-large")
    convert(save_checkpoint(tmp_path, top), tmp_path / "with")
    assert torch.equal(
        load_file(tmp_path / "with" / "model.safetensors")["masked_spec_embed"], top["model"]["mask_emb"]
    )
    del top["model"]["mask_emb"]
    convert(save_checkpoint(tmp_path, top), tmp_path / "without")
    assert "masked_spec_embed" not in load_file(tmp_path / "without" / "model.safetensors")


def test_half_precision_weights_become_single(tmp_path: Path) -> None:
    top = checkpoint("wavlm-base")
    top["model"] = {name: tensor.half() for name, tensor in top["model"].items()}
    convert(save_checkpoint(tmp_path, top), tmp_path / "encoder")
    assert {t.dtype for t in load_file(tmp_path / "encoder" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder_layers", 3), ("encoder_embed_dim", 64), ("encoder_ffn_embed_dim", 64), ("extractor_mode", "default"),
        ("conv_bias", False), ("conv_pos", 128), ("conv_pos_groups", 16), ("activation_fn", "relu"),
        ("conv_feature_layers", "[(16, 10, 5)] + [(16, 3, 2)] * 6"), ("conv_feature_layers", "open('/etc')"),
        ("conv_feature_layers", "[(16, 10)]"), ("conv_feature_layers", "[(16, 10, 5)] * 10 ** 9"),
        ("layer_norm_first", None), ("encoder_attention_heads", 5),
    ],
)  # fmt: skip
def test_settings_against_the_tensors_are_refused(key: str, value: object, tmp_path: Path) -> None:
    top = checkpoint("wav2vec2-xlsr")
    top["cfg"]["model"][key] = value
    with pytest.raises(SpoofkitError, match="num_attention_heads|embed_dim" if key.endswith("heads") else key):
        convert(save_checkpoint(tmp_path, top), tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    "change", ["adapter", "missing", "shape", "nan", "no settings", "second table", "no bias table"]
)
def test_tensors_that_do_not_fit_are_refused_by_name(change: str, tmp_path: Path) -> None:
    top = checkpoint("wavlm-large" if "table" in change else "wav2vec2-xlsr")
    tensors = top["model"]
    if change == "adapter":
        tensors["encoder.layers.1.adapter.weight"] = torch.zeros(3)
        named = r"encoder\.layers\.1\.adapter\.weight"
    elif change == "missing":
        del tensors["encoder.layers.1.self_attn.k_proj.bias"]
        named = r"encoder\.layers\.1\.attention\.k_proj\.bias"
    elif change == "shape":
        tensors["encoder.layers.1.self_attn.k_proj.bias"] = torch.zeros(WIDTH + 1)
        named = r"of another shape.*k_proj\.bias"
    elif change == "nan":
        tensors["layer_norm.weight"][3] = float("nan")
        named = r"model\.layer_norm\.weight holds NaN"
    elif change == "no settings":
        del top["cfg"]
        named = "encoder_attention_heads"
    elif change == "second table":  # another layer's own table would be ignored by transformers
        tensors["encoder.layers.1.self_attn.relative_attention_bias.weight"] = torch.zeros(BUCKETS, HEADS)
        named = r"unknown.*layers\.1\.attention\.rel_attn_embed"
    else:
        del tensors["encoder.layers.0.self_attn.relative_attention_bias.weight"]
        named = "relative_attention_bias"
    with pytest.raises(SpoofkitError, match=named):
        convert(save_checkpoint(tmp_path, top), tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


ODD = {
    "float8": (torch.zeros(WIDTH, dtype=torch.float8_e4m3fn), "is of type float8_e4m3fn, expected float16"),
    "complex": (torch.zeros(WIDTH, dtype=torch.complex64), "is of type complex64, expected float16"),
    "unsigned": (torch.zeros(WIDTH, dtype=torch.uint16), "is of type uint16, expected float16"),
    "packed": (torch.zeros(WIDTH, dtype=torch.float4_e2m1fn_x2), "is of type float4_e2m1fn_x2, expected float16"),
    "spread": (torch.zeros(1).expand(10**6, 10**9), "has 1,000,000,000,000,000 values, but fewer are stored"),
    "sparse": (torch.eye(WIDTH).to_sparse(), "is sparse, nested, quantised or empty of values"),
    "meta": (torch.zeros(WIDTH, device="meta"), "is sparse, nested, quantised or empty of values"),
}


@pytest.mark.parametrize("kind", list(ODD))
def test_tensors_that_are_no_ordinary_numbers_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    tensor, said = ODD[kind]
    top = checkpoint("wavlm-base")
    top["model"]["layer_norm.weight"] = tensor
    with pytest.raises(SpoofkitError, match=rf"tensor model\.layer_norm\.weight {said}"):
        convert(save_checkpoint(tmp_path, top), tmp_path / "encoder")
    if kind in ("float8", "complex", "unsigned", "packed"):
        save_file({"layer_norm.weight": tensor}, tmp_path / "m.safetensors")
        with pytest.raises(SpoofkitError, match=rf"tensor layer_norm\.weight {said}"):
            convert(tmp_path / "m.safetensors", tmp_path / "encoder")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({7: torch.zeros(2)}, "entry 7 is a Tensor"),
        ({"version": 3}, "entry 'version' is a int, expected only names and tensors"),
        ({"encoder.layers.7.fc1.bias": torch.zeros(INNER)}, "has no tensors of encoder.layers.2,"),
        ({"encoder.layers.99999999999.fc1.bias": torch.zeros(INNER)}, "tensors are unknown"),
        ({"encoder.layers.0.fc1.weight": torch.tensor(1.0)}, r"fc1\.weight is of shape \(\), expected it with 2"),
        ({"feature_extractor.conv_layers.2.0.weight": torch.zeros(9)}, r"2\.0\.weight is of shape \(9,\), expected"),
        ({"encoder.pos_conv.0.weight_v": torch.zeros(0, 0, 0)}, r"weight_v is of shape \(0, 0, 0\), expected"),
        ({"a\nb": torch.zeros(2)}, r"has a tensor called 'model\.a\\nb'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(next(iter(value)))[:30],
)
def test_models_that_are_no_whole_network_are_refused_in_one_sentence(
    change: dict[Any, Any], said: str, tmp_path: Path
) -> None:
    top = checkpoint("wav2vec2-base")
    top["model"] |= change
    with pytest.raises(SpoofkitError, match=said) as refused:
        convert(save_checkpoint(tmp_path, top), tmp_path / "encoder")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder_attention_heads", 0), ("encoder_attention_heads", -4), ("encoder_attention_heads", True),
        ("conv_pos", torch.zeros(3)), ("activation_fn", "x" * 10_000), ("normalize", "maybe"), ("normalize", None),
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_another_kind_are_refused_in_one_sentence(key: str, value: object, tmp_path: Path) -> None:
    top = checkpoint("wav2vec2-base")
    top["cfg"]["task" if key == "normalize" else "model"][key] = value
    with pytest.raises(SpoofkitError, match=key) as refused:
        convert(save_checkpoint(tmp_path, top), tmp_path / "encoder")
    assert len(str(refused.value)) < 600


def test_a_reference_to_another_setting_is_not_taken_for_its_value(tmp_path: Path) -> None:
    """fairseq's model settings say `${task.normalize}` where the task's own say yes or no."""
    top = checkpoint("wav2vec2-base")
    top["cfg"]["model"]["normalize"] = "${task.normalize}"
    for said in (False, True):
        top["cfg"]["task"]["normalize"] = said
        convert(save_checkpoint(tmp_path, top), tmp_path / f"encoder-{said}")
        written = json.loads((tmp_path / f"encoder-{said}" / "preprocessor_config.json").read_text())
        assert written["do_normalize"] is said


def test_an_earlier_conversion_is_replaced_only_on_request(tmp_path: Path) -> None:
    path, out = save_checkpoint(tmp_path, checkpoint("wavlm-base")), tmp_path / "encoder"
    convert(path, out)
    before = contents(out)
    other = save_checkpoint(tmp_path, checkpoint("hubert-large"), "other.pt")
    with pytest.raises(SpoofkitError, match="--overwrite"):
        convert(other, out)
    assert contents(out) == before
    convert(other, out, overwrite=True)
    assert json.loads((out / "config.json").read_text())["model_type"] == "hubert"
    (tmp_path / "empty").mkdir()
    convert(path, tmp_path / "empty", overwrite=True)
    assert contents(tmp_path / "empty").keys() == before.keys()


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_converted_detector_is_replaced_and_a_trained_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = save_antideepfake(tmp_path, monkeypatch), tmp_path / "model"
    convert(path, out)
    before = contents(out)
    convert(path, out, overwrite=True)
    assert contents(out) == before
    record = json.loads((out / "model.json").read_text())
    del record["converted_from"]  # as fine-tuning writes it
    (out / "model.json").write_text(json.dumps(record))
    with pytest.raises(SpoofkitError, match="model: holds a model that was trained here"):
        convert(path, out, overwrite=True)
    assert contents(out).keys() == before.keys()


@pytest.mark.parametrize("link", ["", "of the file", "of the folder"])
@pytest.mark.parametrize(
    "out", [".", "victim", "victim/in", "victim/in/model.pt", "victim/in/model.pt/x", "victim/../victim"]
)
def test_the_checkpoint_itself_is_never_replaced(
    out: str, link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one of the two is named by a link, as the files of a Hugging Face cache are."""
    (tmp_path / "victim" / "in").mkdir(parents=True)
    source = save_checkpoint(tmp_path / "victim" / "in", checkpoint("wavlm-base"))
    if link == "of the file":
        source = tmp_path / "model.pt"
        source.symlink_to(tmp_path / "victim" / "in" / "model.pt")
    elif link == "of the folder":
        (tmp_path / "link").symlink_to(tmp_path / "victim")
        out = out.replace("victim", "link", 1)
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(SpoofkitError, match=r"(is|holds|lies in) .*model\.pt, the checkpoint to convert"):
            convert(source, Path(out), overwrite=overwrite)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("foreign", ["notes.txt", "encoder/thesis.tex", "model.json/x", "data/config.json", "a link"])
def test_a_folder_that_holds_anything_else_is_never_replaced(foreign: str, tmp_path: Path) -> None:
    path, out = save_checkpoint(tmp_path, checkpoint("wavlm-base")), tmp_path / "out"
    convert(path, out)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    if foreign == "a link":
        (out / "encoder").symlink_to(tmp_path / "precious")
    else:
        (out / foreign).parent.mkdir(exist_ok=True)
        (out / foreign).touch()
    before = contents(tmp_path)
    named = "encoder" if foreign == "a link" else foreign.partition("/config")[0].replace("json/x", "json")
    with pytest.raises(SpoofkitError, match=rf"out: holds {named}.*expected an earlier conversion"):
        convert(path, out, overwrite=True)
    assert contents(tmp_path) == before


def test_a_folder_of_the_hubs_is_no_earlier_conversion(tmp_path: Path) -> None:
    path, out = save_checkpoint(tmp_path, checkpoint("wavlm-base")), tmp_path / "download"
    convert(path, out)
    (out / "provenance.json").unlink()
    with pytest.raises(SpoofkitError, match=r"download: holds no provenance\.json"):
        convert(path, out, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(SpoofkitError, match="file: is not a folder"):
        convert(path, tmp_path / "file", overwrite=True)
    assert (out / "model.safetensors").exists()


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint("wavlm-base"))
    said = run_cli("convert", path, "-o", tmp_path / "encoder").stdout
    n_parameters = sum(t.numel() for t in checkpoint("wavlm-base")["model"].values())
    assert "wavlm, 2 layers of width 32" in said
    assert f"{len(checkpoint('wavlm-base')['model'])} of" in said
    assert f"{n_parameters:,} parameters" in said
    assert "licence: not known" in said
    found = read_provenance(tmp_path / "encoder")
    assert (found.source, found.licence, found.trained_on) == ("model.pt", "not known", ())


# --- detectors --------------------------------------------------------------------------------------------------------


def antideepfake_tensors() -> dict[str, torch.Tensor]:
    """A detector under the published names, of another size."""
    generator = torch.Generator().manual_seed(1)
    tensors = {f"m_ssl.model.{name}": tensor for name, tensor in fairseq_tensors("wav2vec2-xlsr").items()}
    output = {"weight": torch.randn(2, WIDTH, generator=generator), "bias": torch.randn(2, generator=generator)}
    return tensors | {f"proj_fc.{name}": tensor for name, tensor in output.items()}


def save_antideepfake(folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str = "ckpt") -> Path:
    monkeypatch.setitem(antideepfake.SIZES, (LAYERS, WIDTH), (HEADS, True))
    monkeypatch.setattr(antideepfake, "CONV_LAYERS", CONV_TEXT)
    path, tensors = folder / f"model.{suffix}", antideepfake_tensors()
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    return path


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@torch.inference_mode()
def test_antideepfake_scores_as_its_authors_do(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole utterances, mean over frames, two logits, real is the second; names are the published ones, sizes not."""
    path = save_antideepfake(tmp_path, monkeypatch, suffix)
    convert(path, tmp_path / "model")
    detector, record = load_detector(tmp_path / "model")
    wave, tensors = voice(), antideepfake_tensors()
    frames_TD = fairseq_forward(fairseq_tensors("wav2vec2-xlsr"), "wav2vec2-xlsr", F.layer_norm(wave, wave.shape))
    logit_fake, logit_real = tensors["proj_fc.weight"] @ frames_TD.mean(0) + tensors["proj_fc.bias"]
    score = detector(wave[None], torch.tensor([len(wave)]))
    assert torch.allclose(score, (logit_real - logit_fake)[None], atol=1e-3)
    assert (record["head"], record["input_policy"]) == ("mean", "whole")
    assert read_provenance(tmp_path / "model" / "encoder").licence == "not known"  # only its shape says what it is
    with pytest.raises(SpoofkitError, match="expected the hub id of one of these"):
        convert(path, tmp_path / "other", same_as="facebook/mms-300m")
    summary = convert(path, tmp_path / "stated", same_as="nii-yamagishilab/mms-300m-anti-deepfake")
    assert "scores: whole utterances" in summary.lines()
    assert "ASVspoof 5" in json.loads((tmp_path / "stated" / "model.json").read_text())["trained_on"]
    assert summary.kind == "model"
    assert any("was trained on ASVspoof 2019 LA" in line for line in summary.lines())
    kept = read_provenance(tmp_path / "stated" / "encoder")
    assert kept.contaminates
    assert "In-the-Wild" not in kept.contaminates
    assert "not checked" in kept.notes[0]


@pytest.mark.parametrize(("norm", "width"), [(torch.ones(WIDTH), WIDTH), (torch.tensor(1.0), 1), (None, 0)])
def test_antideepfake_of_unknown_size_is_refused(norm: torch.Tensor | None, width: int, tmp_path: Path) -> None:
    tensors = antideepfake_tensors()
    del tensors["m_ssl.model.encoder.layer_norm.weight"]
    torch.save(tensors | ({} if norm is None else {"m_ssl.model.encoder.layer_norm.weight": norm}), tmp_path / "m.ckpt")
    with pytest.raises(SpoofkitError, match=f"2 layers of width {width}, expected one of AntiDeepfake's"):
        convert(tmp_path / "m.ckpt", tmp_path / "model")


@pytest.mark.skipif(not (SHARED / "models" / "aasist").is_dir(), reason="the published AASIST weights are not here")
@pytest.mark.parametrize(("name", "head"), [("AASIST", "raw_aasist"), ("AASIST-L", "raw_aasist_l")])
def test_published_aasist_scores_as_its_authors_code(name: str, head: str, tmp_path: Path) -> None:
    """By two commands; the logits of the authors' own code stand beside the weights.

    What follows the 64,600th sample does not count, and a short utterance is repeated, as the model's record says.
    """
    folder = SHARED / "models" / "aasist"
    reference = json.loads((folder / "aasist_reference.json").read_text())
    said = run_cli("convert", folder / f"{name}.pth", "-o", tmp_path / "model").stdout
    assert f"{reference[name]['parameters']:,} parameters" in said
    assert "scores: the first 64,600 samples of an utterance, a shorter one repeated up to them" in said
    assert "licence: MIT\ntrained on: ASVspoof 2019 LA\n" in said
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    # Both published models score so: data_utils.py of github.com/clovaai/aasist, `pad`.
    assert (record["head"], record["input_policy"]) == (head, "repeat:64600")
    signals = reference["signals"][:2]
    for signal in signals:
        rng, k, time = np.random.default_rng(signal["k"]), signal["k"], np.arange(signal["n"]) / 16_000
        wave = 0.1 * rng.standard_normal(signal["n"]) + 0.2 * np.sin(2 * np.pi * 100 * (k + 1) * time) * np.exp(-time)
        wave = np.concatenate([wave, rng.standard_normal(20_000 * k)])
        soundfile.write(tmp_path / f"{k}.wav", wave.astype(np.float32), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", wave[:20_000].astype(np.float32), 16_000, subtype="FLOAT")
    tiled = np.tile(wave[:20_000], 4)[:64_600].astype(np.float32)
    soundfile.write(tmp_path / "tiled.wav", tiled, 16_000, subtype="FLOAT")
    files = [tmp_path / f"{each}.wav" for each in (0, 1, "short", "tiled")]
    scored = run_cli("score", tmp_path / "model", *files).stdout
    scores = [float(row["cm-score"]) for row in table_rows(scored).values()]
    assert scores[:2] == pytest.approx([signal[name][1] for signal in signals], abs=1e-3)
    assert scores[2] == pytest.approx(scores[3], abs=1e-4)


def aasist_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the authors' names."""
    torch.manual_seed(seed)
    head = RawAasistLightHead(70, n_hidden=1)
    tensors = {aasist.authors_name(ours): tensor for ours, tensor in head.state_dict().items()}
    return tensors | {"out_layer.weight": torch.randn(2, head.embedding_width), "out_layer.bias": torch.zeros(2)}


@pytest.mark.parametrize("changed", ["random weights", "one value", "another container"])
def test_what_only_looks_like_a_published_file_gets_none_of_its_facts(changed: str, tmp_path: Path) -> None:
    path = tmp_path / "AASIST-L.pth"
    if changed == "random weights":
        torch.save(aasist_tensors(), path)
    else:
        if not (SHARED / "models" / "aasist").is_dir():
            pytest.skip("the published AASIST weights are not here")
        tensors = torch.load(SHARED / "models/aasist/AASIST-L.pth", weights_only=True, map_location="cpu")
        if changed == "one value":
            tensors["out_layer.bias"][0] += 1e-3
        torch.save(tensors, path)
    summary = convert(path, tmp_path / "model")
    kept = read_provenance(tmp_path / "model/encoder")
    assert (kept.source, kept.licence, kept.trained_on) == ("AASIST-L.pth", "not known", ())
    assert "licence: not known" in summary.lines()
    assert "trained on: not known" in summary.lines()
    assert json.loads((tmp_path / "model/model.json").read_text())["trained_on"] == []
    assert "MIT" not in " ".join(summary.lines())


@pytest.mark.skipif(not (SHARED / "models" / "aasist").is_dir(), reason="the published AASIST weights are not here")
def test_of_a_published_file_nothing_else_can_be_stated(tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match="--same-as"):
        convert(SHARED / "models/aasist/AASIST.pth", tmp_path / "model", same_as="facebook/wav2vec2-base")


# --- wrapped networks -------------------------------------------------------------------------------------------------


def wrap(tensors: dict[str, torch.Tensor], prefix: str, containers: tuple[str, ...]) -> dict[str, Any]:
    """As a training loop saves a network: compiled or in parallel, beside what else it keeps."""
    top: dict[str, Any] = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    for container in containers:
        top = {container: top, "epoch": 3, "loss": torch.tensor(0.5), "optimizer": {"state": {0: torch.zeros(2)}}}
    return top


WRAPPED = [
    ("module.", ()), ("_orig_mod.", ()), ("module._orig_mod.", ("model_state_dict",)), ("", ("state_dict",)),
    ("_orig_mod.module.", ("net",)), ("module.", ("model", "state_dict")), ("module.module.", ("model",)),
]  # fmt: skip


def ssl_tensors(back_end: str = "SSL-AASIST") -> dict[str, torch.Tensor]:
    """SSL-AASIST or SLS under the published names, on a small encoder."""
    torch.manual_seed(2)
    if back_end == "SSL-AASIST":
        head = AasistHead(WIDTH, 2)
        above = {aasist.authors_name(name, AASIST_PARTS): tensor for name, tensor in head.state_dict().items()}
        above |= {"out_layer.weight": torch.randn(2, head.embedding_width), "out_layer.bias": torch.randn(2)}
    else:
        parts = {
            "first_bn": torch.nn.BatchNorm2d(1),
            "fc0": torch.nn.Linear(WIDTH, 1),
            "fc1": torch.nn.Linear(67 * (WIDTH // 3), WIDTH),
            "fc3": torch.nn.Linear(WIDTH, 2),
        }
        above = torch.nn.ModuleDict(parts).state_dict()
    inside = fairseq_tensors("wav2vec2-xlsr")
    return {f"module.ssl_model.model.{name}": tensor for name, tensor in inside.items()} | {
        f"module.{name}": tensor for name, tensor in above.items()
    }


@pytest.mark.parametrize(
    ("back_end", "last", "score"),
    [("SSL-AASIST", "out_layer", "bonafide_logit"), ("SLS", "fc3", "selu_log_odds")],
)
@torch.inference_mode()
def test_a_detector_on_xls_r_is_converted_whole(
    back_end: str, last: str, score: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_antideepfake(tmp_path, monkeypatch)  # the sizes are those of its encoders
    tensors = ssl_tensors(back_end)
    torch.save(tensors, tmp_path / "best.pth")
    found = convert(tmp_path / "best.pth", tmp_path / "model")
    assert found is not None
    assert found.input_policy == "repeat:64600"
    assert not any("--same-as" in note for note in found.provenance.notes)  # it is refused for such files
    detector, record = load_detector(tmp_path / "model")
    assert record["score"] == score
    assert record["final_norm"] is (back_end == "SSL-AASIST")  # SLS reads all layers, the last one before the norm
    # The authors do not normalise the waveform.
    assert detector.encoder.feature_extractor.do_normalize is False
    wave = voice()[None]
    embedding = detector.embed(wave, torch.tensor([wave.shape[1]]))
    spoof, bonafide = F.linear(embedding, tensors[f"module.{last}.weight"], tensors[f"module.{last}.bias"])[0]
    if back_end == "SLS":
        probability = F.softmax(F.selu(torch.stack([spoof, bonafide])), 0)[1]  # the authors score by its logarithm
        bonafide = torch.logit(probability)
    torch.testing.assert_close(detector(wave, torch.tensor([wave.shape[1]]))[0], bonafide)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"LL.weight": torch.zeros(128, WIDTH + 1)}, "LL.weight"),
        ({"first_bn1.extra": torch.zeros(1)}, "first_bn1.extra"),
        ({"pos_S": None}, "above an encoder"),
    ],
)
def test_another_back_end_above_xls_r_is_refused_by_name(
    change: dict[str, Any], fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_antideepfake(tmp_path, monkeypatch)
    changed = ssl_tensors() | {f"module.{name}": tensor for name, tensor in change.items()}
    torch.save({name: tensor for name, tensor in changed.items() if tensor is not None}, tmp_path / "other.pth")
    with pytest.raises(SpoofkitError, match=re.escape(fact)):
        convert(tmp_path / "other.pth", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_rawnet2_is_refused_because_its_file_does_not_say_which_it_is(tmp_path: Path) -> None:
    tensors = {f"{name}.weight": torch.zeros(2) for name in ("first_bn", "bn_before_gru", "fc1_gru", "fc2_gru")}
    with pytest.raises(SpoofkitError, match=r"RawNet2.*rawnet2_asvspoof5"):
        convert(save_checkpoint(tmp_path, tensors), tmp_path / "model")


@pytest.mark.parametrize(("prefix", "containers"), WRAPPED)
@pytest.mark.parametrize("kind", ["wav2vec2-xlsr", "wavlm-base", "antideepfake", "aasist"])
def test_wrapped_networks_are_those_that_were_wrapped(
    kind: str, prefix: str, containers: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {}
    if kind == "antideepfake":
        tensors = load_tensors(save_antideepfake(tmp_path, monkeypatch))
    elif kind == "aasist":
        tensors = aasist_tensors()
    else:
        settings = checkpoint(kind)
        tensors = settings.pop("model")
        containers = containers or ("model",)
    bare = settings | (wrap(tensors, "", ("model",)) if settings else tensors)
    convert(save_checkpoint(tmp_path, bare), tmp_path / "bare")
    convert(save_checkpoint(tmp_path, settings | wrap(tensors, prefix, containers), "w.pt"), tmp_path / "wrapped")
    weights = sorted((tmp_path / "bare").rglob("*.safetensors"))
    assert weights
    for path in weights:
        assert (tmp_path / "wrapped" / path.relative_to(tmp_path / "bare")).read_bytes() == path.read_bytes()


def test_a_wrapped_network_in_safetensors_or_compiled_in_part_is_read_too(tmp_path: Path) -> None:
    tensors = aasist_tensors()
    inside = {name.replace("encoder.0.", "encoder.0._orig_mod."): tensor for name, tensor in tensors.items()}
    assert inside.keys() != tensors.keys()
    save_file({f"module.{name}": tensor for name, tensor in inside.items()}, tmp_path / "m.safetensors")
    convert(tmp_path / "m.safetensors", tmp_path / "wrapped")
    convert(save_checkpoint(tmp_path, tensors), tmp_path / "bare")
    heads = [load_file(tmp_path / name / "head.safetensors") for name in ("wrapped", "bare")]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[1])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_wrapped_and_bare_names_in_one_network_are_refused_by_name(prefix: str, tmp_path: Path) -> None:
    tensors = aasist_tensors()
    mixed = {name if name == "pos_S" else f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    for top in (mixed, {"model_state_dict": mixed}):
        with pytest.raises(SpoofkitError, match=f"{prefix}.*pos_S"):
            convert(save_checkpoint(tmp_path, top), tmp_path / "model")
    twice = tensors | {"encoder.0._orig_mod.0.conv1.weight": tensors["encoder.0.0.conv1.weight"]}
    with pytest.raises(SpoofkitError, match=r"encoder\.0\.0\.conv1\.weight is there twice"):
        convert(save_checkpoint(tmp_path, twice), tmp_path / "model")
    itself: dict[str, Any] = dict(tensors)
    itself["model"] = itself
    with pytest.raises(SpoofkitError, match="one network"):
        convert(save_checkpoint(tmp_path, itself), tmp_path / "model")
    two = {"model": tensors, "state_dict": tensors}
    with pytest.raises(SpoofkitError, match="model, state_dict"):
        convert(save_checkpoint(tmp_path, two), tmp_path / "model")
    assert not (tmp_path / "model").exists()


# --- hostile and broken files -----------------------------------------------------------------------------------------


class Touch:
    """Unpickled without care, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class Evaluate(Touch):
    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.eval, (f"open({str(self.marker)!r}, 'w').close()",)


def fairseq_class(monkeypatch: pytest.MonkeyPatch, marker: Path) -> Any:
    """An object of a class that is called fairseq's, whose unpickling would touch the marker."""
    module = types.ModuleType("fairseq.data.dictionary")

    class Dictionary:
        def __init__(self) -> None:
            self.symbols = ["a"]

        def __setstate__(self, state: object) -> None:
            marker.touch()

    Dictionary.__module__, Dictionary.__qualname__ = module.__name__, "Dictionary"
    module.Dictionary = Dictionary  # type: ignore[attr-defined]
    for name in ("fairseq", "fairseq.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Dictionary()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("bomb", ["system", "eval", "in settings"])
def test_a_pickle_bomb_is_named_and_does_not_go_off(bomb: str, legacy: bool, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    top = checkpoint("wavlm-base")
    if bomb == "in settings":
        top["cfg"] = argparse.Namespace(deep=[{"er": Touch(marker)}])
    else:
        top["extra"] = Touch(marker) if bomb == "system" else Evaluate(marker)
    path = save_checkpoint(tmp_path, top, legacy=legacy)
    named = r"builtins\.eval" if bomb == "eval" else rf"{os.system.__module__}\.system"
    with pytest.raises(SpoofkitError, match=named) as refused:
        convert(path, tmp_path / "encoder")
    assert "nothing of it was run" in str(refused.value)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # it is a bomb: read without care it goes off
    assert marker.exists()


def test_attributes_cannot_be_reached_through_getattr(tmp_path: Path) -> None:
    """getattr(__import__('os'), 'system') written by hand, in a file of both formats."""
    marker = tmp_path / "marker"
    code = (
        b"\x80\x02c__builtin__\ngetattr\nc__builtin__\n__import__\nX\x02\x00\x00\x00os\x85RX\x06\x00\x00\x00system\x86R"
    )
    command = f"touch {marker}".encode()
    code += b"X" + struct.pack("<I", len(command)) + command + b"\x85R."
    with zipfile.ZipFile(tmp_path / "new.pt", "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/version", "3\n")
    old = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    (tmp_path / "old.pt").write_bytes(b"".join([*old, code, pickle.dumps([], protocol=2)]))
    (tmp_path / "bare.pt").write_bytes(code)
    for name in ("new.pt", "old.pt", "bare.pt"):
        with pytest.raises(SpoofkitError, match=r"builtins\.(getattr|__import__)"):
            load_tensors(tmp_path / name)
    assert not marker.exists()


def test_later_protocols_cannot_hide_a_name(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"model": Touch(marker)}, tmp_path / "m.pt", pickle_protocol=4)
    with pytest.raises(SpoofkitError, match=rf"{os.system.__module__}\.system"):
        load_tensors(tmp_path / "m.pt")
    assert not marker.exists()


class Shell(Touch):
    def __reduce__(self) -> tuple[Any, ...]:
        return collect_env.run, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_functions_of_torch_that_run_programs_are_refused(legacy: bool, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = save_checkpoint(tmp_path, {"model": Shell(marker)}, legacy=legacy)
    with pytest.raises(SpoofkitError, match=r"torch\.utils\.collect_env\.run"):
        load_tensors(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_class_of_a_framework_is_stood_in_for_and_never_called(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    thing = fairseq_class(monkeypatch, marker)
    path = save_checkpoint(tmp_path, {"task_state": {"dictionary": thing}, "model": {}}, legacy=legacy)
    found = load_tensors(path)["task_state"]["dictionary"]
    assert isinstance(found, StandIn)
    assert plain(found) == {"symbols": ["a"]}
    assert not marker.exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_types_and_numbers_that_settings_mention_are_no_reason_to_refuse(legacy: bool, tmp_path: Path) -> None:
    """omegaconf stores the types of its values, fairseq numpy's numbers; Python 2 called int `long`."""
    counts = collections.defaultdict(list, {"a": [1]})
    settings_ = argparse.Namespace(kind=int, any=typing.Any, counts=counts, best=np.float64(1.5), at=Path("x"), heads=4)
    found = load_tensors(save_checkpoint(tmp_path, {"args": settings_}, legacy=legacy))
    values = plain(found["args"])
    assert (values["heads"], values["counts"]) == (4, {"a": [1]})
    assert set(values) == {"kind", "any", "counts", "best", "at", "heads"}


def test_what_hides_behind_a_frameworks_name_is_not_looked_up(tmp_path: Path) -> None:
    """`fairseq os.system` names a stand-in, whatever attributes such a module might have; calling it does nothing."""
    marker = tmp_path / "marker"
    command = f"touch {marker}".encode()
    code = b"\x80\x02}X\x01\x00\x00\x00acfairseq\nos.system\nX" + struct.pack("<I", len(command)) + command + b"\x85Rs."
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/version", "3\n")
    found = load_tensors(tmp_path / "m.pt")
    assert found["a"].args == (command.decode(),)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "git lfs pull"),
        (b"RIFF....WAVEfmt ", "is no checkpoint"),
        (b"PK\x03\x04 but then nothing of a zip", "damaged or cut short"),
        (pickle.dumps({"a": 1}, protocol=2), "damaged or cut short"),
        (b"\x80\x02cfair\\q\nX\n.", r"would call fair\\q\.X"),  # Python warns of the escape, which is not the user's
    ],
)
def test_files_that_are_no_checkpoint_are_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(SpoofkitError, match=said):
        load_tensors(tmp_path / "model.pt")
    with pytest.raises(SpoofkitError, match="No such file"):
        convert(tmp_path / "absent.pt", tmp_path / "out")


def test_other_things_that_torch_saves_are_named(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(SpoofkitError, match=r"holds a pickled torch\.nn\.modules\.linear\.Linear"):
        load_tensors(tmp_path / "module.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(SpoofkitError, match="holds a Tensor, expected a dictionary"):
        load_tensors(tmp_path / "tensor.pt")
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(SpoofkitError, match="is a safetensors file"):
        load_tensors(tmp_path / "a.safetensors")
    with pytest.raises(SpoofkitError, match=r"1 tensors \(a\).*cannot be converted"):
        convert(tmp_path / "a.safetensors", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("code/data.pkl", b"")
        archive.writestr("code/constants.pkl", b"")
    with pytest.raises(SpoofkitError, match="TorchScript"):
        load_tensors(tmp_path / "program.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    """Cut short, bytes changed, bits flipped; what still reads as a checkpoint is none that can be converted."""
    tensors = {"weight": torch.arange(40.0), "bias": torch.zeros(3).half()}
    path, out = tmp_path / "damaged.pt", tmp_path / "out"
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        save_checkpoint(tmp_path, {"model": tensors, "n": 3}, path.name, legacy=kind == "legacy")
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(600):
        damaged = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.2 else whole)
        for _ in range(min(rng.randint(1, 5), len(damaged))):
            at = rng.randrange(len(damaged))
            damaged[at] = rng.randrange(256) if rng.random() < 0.5 else damaged[at] ^ 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(SpoofkitError) as refused:  # any other exception fails the test
            convert(path, out)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpoofkitError, match=r"damaged or cut short|cannot be read"):
        convert(path, out)


# Offsets from the start of a zip's central directory entry (APPNOTE.TXT, section 4.3.12).
ZIP_FIELDS = {"version": 6, "flags": 8, "compression": 10}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("version", 99, "zip file version 9.9"),
        ("flags", 1, "encrypted"),
        ("flags", 64, "strong encryption"),
        ("compression", 8, "is a compressed zip archive"),
        ("compression", 14, "is a compressed zip archive"),
        ("compression", 77, "is a compressed zip archive"),
    ],
)
def test_zip_archives_that_torch_did_not_write_are_refused(field: str, value: int, said: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"model": torch.zeros(3)})
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    local = content.index(b"PK\x03\x04")
    content[entry + ZIP_FIELDS[field]] = content[local + ZIP_FIELDS[field] - 2] = value
    path.write_bytes(content)
    with pytest.raises(SpoofkitError, match=said):
        load_tensors(path)


def test_packed_archives_are_refused_because_torch_would_read_nonsense(tmp_path: Path) -> None:
    """Whole and sound otherwise: somebody zipped the contents again."""
    path = save_checkpoint(tmp_path, {"weight": torch.ones(1_000)})
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for part in archive.namelist():
            packed.writestr(part, archive.read(part))
    with pytest.raises(SpoofkitError, match=r"packed\.pt: is a compressed zip archive.*fetch it again"):
        load_tensors(tmp_path / "packed.pt")


def test_settings_nested_without_end_are_refused(tmp_path: Path) -> None:
    top = checkpoint("wavlm-base") | {"cfg": "placeholder"}
    path = save_checkpoint(tmp_path, top)
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    deep = b"]" * 10_000 + b"a" * 9_999  # a list in a list in a list
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content.replace(b"X\x0b\x00\x00\x00placeholder", deep))
    with pytest.raises(SpoofkitError, match="nested too deeply"):
        convert(path, tmp_path / "encoder")


def test_settings_that_hold_themselves_end() -> None:
    loop: dict[str, Any] = {"a": 1}
    loop["loop"] = loop
    assert plain(loop) == {"a": 1, "loop": None}
    node, record = StandIn(), StandIn()
    node.state = {"_val": 12, "_parent": record}
    record.state = {"_content": {"encoder_layers": node}, "_parent": None}
    assert plain(record) == {"encoder_layers": 12}


# --- torchaudio -------------------------------------------------------------------------------------------------------


def torchaudio_tensors(kind: str) -> dict[str, torch.Tensor]:
    """fairseq's tensors under torchaudio's names.

    The names were compared with `torchaudio.models.wav2vec2_model(...).state_dict()` and `wavlm_model(...)` of 2.11,
    run as plain Python; the published files have weight_g and weight_v, the running model their newer names.
    """
    parts = {
        "self_attn.": "attention.", "self_attn_layer_norm": "layer_norm", "fc1": "feed_forward.intermediate_dense",
        "fc2": "feed_forward.output_dense", "final_layer_norm": "final_layer_norm",
    }  # fmt: skip
    is_wavlm, renamed, fairseq = kind.startswith("wavlm"), {}, fairseq_tensors(kind)
    for name, tensor in fairseq.items():
        if name.startswith("feature_extractor"):
            _, _, i, *rest = name.split(".")
            part = "conv" if rest[0] == "0" else "layer_norm"
            renamed[f"feature_extractor.conv_layers.{i}.{part}.{rest[-1]}"] = tensor
        elif name.startswith(("layer_norm", "post_extract_proj")):
            renamed[f"encoder.feature_projection.{name.replace('post_extract_proj', 'projection')}"] = tensor
        elif name.startswith("encoder.pos_conv.0."):
            renamed[f"encoder.transformer.pos_conv_embed.conv.{name.rpartition('.')[2]}"] = tensor
        elif name.startswith("encoder.layer_norm"):
            renamed[f"encoder.transformer.{name.removeprefix('encoder.')}"] = tensor
        elif name.startswith("encoder.layers"):
            _, _, i, rest = name.split(".", 3)
            for old, new in parts.items():
                if rest.startswith(old):
                    rest = new + rest.removeprefix(old)
                    break
            for old, new in (("grep_linear", "gru_rel_pos_linear"), ("grep_a", "gru_rel_pos_const")):
                rest = rest.replace(old, new)
            rest = rest.replace("relative_attention_bias", "rel_attn_embed")
            if is_wavlm:
                rest = rest.replace("attention.out_proj", "attention.attention.out_proj")
            if not (is_wavlm and "_proj" in rest and "out_proj" not in rest):
                renamed[f"encoder.transformer.layers.{i}.{rest}"] = tensor
    if is_wavlm:
        for i in range(LAYERS):
            for part in ("weight", "bias"):
                third = [fairseq[f"encoder.layers.{i}.self_attn.{which}_proj.{part}"] for which in "qkv"]
                renamed[f"encoder.transformer.layers.{i}.attention.attention.in_proj_{part}"] = torch.cat(third)
    return renamed


def torchaudio_params(kind: str) -> dict[str, Any]:
    mode, conv_bias, pre_norm = KINDS[kind]
    params = {
        "extractor_mode": "group_norm" if mode == "default" else mode, "extractor_conv_layer_config": CONV,
        "extractor_conv_bias": conv_bias, "encoder_embed_dim": WIDTH, "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": KERNEL, "encoder_pos_conv_groups": GROUPS, "encoder_num_layers": LAYERS,
        "encoder_num_heads": HEADS, "encoder_attention_dropout": 0.1, "encoder_ff_interm_features": INNER,
        "encoder_ff_interm_dropout": 0.0, "encoder_dropout": 0.1, "encoder_layer_norm_first": pre_norm,
        "encoder_layer_drop": 0.05, "aux_num_out": None,
    }  # fmt: skip
    wavlm = {"encoder_num_buckets": BUCKETS, "encoder_max_distance": DISTANCE}
    return params | (wavlm if kind.startswith("wavlm") else {})


@pytest.mark.parametrize("kind", list(KINDS))
@torch.inference_mode()
def test_torchaudio_names_become_the_same_network(kind: str) -> None:
    tensors = transformers_names(torchaudio_tensors(kind) | {"aux.weight": torch.zeros(29, WIDTH)})
    config = transformers_config(torchaudio_params(kind))
    network, _ = assemble(kind.partition("-")[0], config, False, tensors, kind)
    expected = fairseq_forward(fairseq_tensors(kind), kind, voice())
    assert torch.allclose(network(voice()[None]).last_hidden_state[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
@torch.inference_mode()
def test_torchaudio_itself_computes_the_same(kind: str) -> None:
    try:
        from torchaudio import models as ta
    except (ImportError, OSError) as error:
        pytest.skip(f"torchaudio does not import here: {error}")
    make = ta.wavlm_model if kind.startswith("wavlm") else ta.wav2vec2_model
    torch.manual_seed(0)
    theirs = make(**torchaudio_params(kind)).eval()
    config = transformers_config(torchaudio_params(kind))
    ours, _ = assemble(kind.partition("-")[0], config, False, transformers_names(theirs.state_dict()), kind)
    assert torch.allclose(ours(voice()[None]).last_hidden_state, theirs(voice()[None])[0], atol=1e-5)


def test_broken_torchaudio_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its newest wheel behaves beside a CPU torch."""
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise OSError('libc10_cuda.so: cannot open shared object')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SpoofkitError, match=r"torchaudio:WAV2VEC2_BASE: .*libc10_cuda\.so.*install"):
        load_bundle("WAV2VEC2_BASE")


def stand_in_bundles(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    """A module that behaves as torchaudio.pipelines does, with one small bundle that normalises."""
    kind = "hubert-large"
    bundle, holder, wrapped = types.SimpleNamespace(), torch.nn.Module(), torch.nn.Module()

    def get_model() -> torch.nn.Module:
        if error:
            raise error
        wrapped.model = holder
        return wrapped

    holder.state_dict = lambda: torchaudio_tensors(kind)  # type: ignore[assignment,method-assign]
    bundle.get_model, bundle._params, bundle._normalize_waveform = get_model, torchaudio_params(kind), True
    pipelines = types.ModuleType("torchaudio.pipelines")
    pipelines.HUBERT_LARGE, pipelines.TACOTRON = bundle, types.SimpleNamespace(_params={})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    monkeypatch.setitem(sys.modules, "torchaudio.pipelines", pipelines)


def test_a_bundle_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_bundles(monkeypatch)
    network, feature_extractor = load_bundle("HUBERT_LARGE")
    assert network.config.model_type == "hubert"
    assert feature_extractor.do_normalize
    for name in ("HUBERT_LARG", "TACOTRON", "__name__"):
        with pytest.raises(SpoofkitError, match=r"no such bundle.*HUBERT_LARGE"):
            load_bundle(name)
    stand_in_bundles(monkeypatch, OSError("<urlopen error no network>"))
    with pytest.raises(SpoofkitError, match=r"no network.*checkpoints"):
        load_bundle("HUBERT_LARGE")


# --- provenance -------------------------------------------------------------------------------------------------------


def test_provenance_survives_writing_and_reading(tmp_path: Path) -> None:
    record = Provenance("x/y", "MIT", ("A",), ("said in B",), ("ASVspoof 5",))
    facts.write_provenance(tmp_path, record)
    assert read_provenance(tmp_path) == record
    whole = json.loads((tmp_path / "provenance.json").read_text())
    for wrong in ({"source": "x"}, whole | {"licence": 3}, whole | {"notes": [1]}, whole | {"more": []}, []):
        (tmp_path / "provenance.json").write_text(json.dumps(wrong))
        with pytest.raises(SpoofkitError, match="no provenance record"):
            read_provenance(tmp_path)
    assert read_provenance(tmp_path / "empty") is None


@pytest.mark.parametrize(
    ("hub_id", "licence", "corpus"),
    [
        ("facebook/wav2vec2-xls-r-300m", "Apache-2.0", "VoxPopuli"),
        ("facebook/wav2vec2-base", "Apache-2.0", "LibriSpeech"),
        ("facebook/wav2vec2-large-lv60", "Apache-2.0", "Libri-Light"),
        ("facebook/wav2vec2-base-10k-voxpopuli", "CC BY-NC 4.0", "VoxPopuli"),
        ("facebook/mms-1b", "CC BY-NC 4.0", "MMS-lab-U"),
        ("facebook/hubert-xlarge-ll60k", "Apache-2.0", "Libri-Light"),
        ("microsoft/wavlm-large", "MIT", "GigaSpeech"),
        ("facebook/w2v-bert-2.0", "MIT", "4.5 million hours"),
        ("facebook/wav2vec2-large-west_germanic-voxpopuli-v2", "CC BY-NC 4.0", "VoxPopuli"),
        ("utter-project/mHuBERT-147", "CC BY-NC-SA 4.0", "VoxLingua107"),
        ("facebook/hubert-large-ls960-ft", "Apache-2.0", "LibriSpeech"),
        ("facebook/mms-1b-all", "CC BY-NC 4.0", "FLEURS"),
        ("openai/whisper-base", "MIT", "web audio"),
        ("nii-yamagishilab/mms-300m-anti-deepfake-nda", "CC BY-NC-SA 4.0", "ASVspoof 5"),
    ],
)
def test_licence_and_training_data_of_common_models(hub_id: str, licence: str, corpus: str) -> None:
    known = known_provenance(hub_id)
    assert licence in known.licence
    assert any(corpus in name for name in known.trained_on)
    assert known.source == hub_id
    is_post_trained = "anti-deepfake" in hub_id
    assert (contamination_warning(known) is not None) == is_post_trained


PRE_TRAINED = (
    "facebook/wav2vec2-base", "facebook/wav2vec2-large", "facebook/wav2vec2-large-lv60",
    "facebook/wav2vec2-large-robust", "facebook/wav2vec2-large-xlsr-53", "facebook/wav2vec2-xls-r-2b",
    "facebook/wav2vec2-base-10k-voxpopuli", "facebook/wav2vec2-base-de-voxpopuli-v2", "facebook/mms-300m",
    "facebook/mms-1b", "facebook/hubert-base-ls960", "facebook/hubert-xlarge-ll60k", "facebook/data2vec-audio-large",
    "utter-project/mHuBERT-147", "microsoft/wavlm-base", "microsoft/unispeech-sat-large", "facebook/w2v-bert-2.0",
)  # fmt: skip
FINE_TUNED = (
    "facebook/wav2vec2-base-100h", "facebook/wav2vec2-base-960h", "facebook/wav2vec2-large-960h",
    "facebook/wav2vec2-large-960h-lv60-self", "facebook/wav2vec2-lv-60-espeak-cv-ft",
    "facebook/wav2vec2-large-robust-ft-swbd-300h", "facebook/wav2vec2-large-xlsr-53-german",
    "facebook/wav2vec2-xlsr-53-espeak-cv-ft", "facebook/wav2vec2-xls-r-300m-21-to-en",
    "facebook/wav2vec2-xls-r-2b-22-to-16", "facebook/wav2vec2-base-10k-voxpopuli-ft-de", "facebook/mms-1b-all",
    "facebook/mms-1b-fl102", "facebook/mms-lid-126", "facebook/hubert-large-ls960-ft",
    "facebook/hubert-xlarge-ls960-ft", "facebook/data2vec-audio-base-960h", "facebook/data2vec-audio-large-10m",
)  # fmt: skip


@pytest.mark.parametrize("hub_id", [*PRE_TRAINED, *FINE_TUNED])
def test_fine_tuned_models_are_not_called_pre_trained(hub_id: str) -> None:
    known = known_provenance(hub_id)
    assert known.notes[0].startswith("pre-trained without labels (arXiv:")
    assert ("then fine-tuned with labels to " in known.notes[0]) == (hub_id in FINE_TUNED)
    assert sum(re.fullmatch(pattern, hub_id) is not None for pattern, _ in facts.KNOWN) == 1


def test_a_converted_file_takes_the_facts_of_the_hub_id_that_it_is_said_to_be(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint("wav2vec2-xlsr"))
    summary = convert(path, tmp_path / "encoder", same_as="facebook/wav2vec2-xls-r-300m")
    kept = read_provenance(tmp_path / "encoder")
    assert kept == summary.provenance
    assert kept.source == "model.pt (stated to be facebook/wav2vec2-xls-r-300m)"
    assert "not checked" in kept.notes[0]
    assert "VoxPopuli" in kept.trained_on
    assert "converted from model.pt" in " ".join(kept.notes)
    assert load_encoder(EncoderSettings(name=str(tmp_path / "encoder"))).provenance == kept
    with pytest.raises(SpoofkitError, match="--same-as some/body"):
        convert(path, tmp_path / "other", same_as="some/body")
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(SpoofkitError, match="--same-as does not apply"):
        convert(tmp_path / "a.safetensors", tmp_path / "other", same_as="facebook/wav2vec2-xls-r-300m")


def test_every_bundle_with_facts_takes_them_from_the_table() -> None:
    for name in HUB_IDS:
        known = bundle_provenance(name)
        assert known is not None, name
        assert known.trained_on
        assert known.source == f"torchaudio:{name}"
    assert bundle_provenance("WAV2VEC2_ASR_BASE_960H") is None


def test_unknown_models_have_no_record() -> None:
    assert known_provenance("somebody/wav2vec2-base") is None
    for hub_id in ("wav2vec2-base-finetuned-elsewhere", "hubert-large-ll60k-x", "mms-1b-x", "data2vec-audio-base-x"):
        assert known_provenance(f"facebook/{hub_id}") is None
    assert contamination_warning(None) is None


def test_a_model_that_saw_an_evaluation_set_is_named_with_it() -> None:
    known = known_provenance("nii-yamagishilab/xls-r-2b-anti-deepfake")
    warning = contamination_warning(known)
    for name in (
        "xls-r-2b-anti-deepfake",
        "ASVspoof 2019 LA",
        "ASVspoof 2021 DF",
        "ASVspoof 5",
        "MLAAD",
        "PartialSpoof",
    ):
        assert name in warning
    for name in ("In-the-Wild", "Deepfake-Eval-2024", "ADD 2023", "FakeOrReal"):
        assert name not in warning
