"""fairseq's wav2vec 2.0, XLS-R and HuBERT checkpoints, and Microsoft's WavLM, as transformers networks.

Beside the tensors such a file has `cfg` (a nested record, or WavLM's flat one) or `args` (a flat one, before 2021);
fine-tuned for CTC, the tensors are called `w2v_encoder.w2v_model.…` and the encoder's own settings lie under
`w2v_args`; s3prl has `model_cfg` and `task_cfg`. Widths, layers and
kernels are read off the tensors and compared with the settings; heads, strides and the position of layer norms cannot
be seen in tensors, so settings without them are refused.

Names on both sides: fairseq/models/wav2vec/wav2vec2.py, unilm/wavlm/modules.py and transformers' modeling_*.py.
"""

import ast
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from spoofkit.addons.convert.unpickle import plain
from spoofkit.errors import SpoofkitError
from spoofkit.models.assemble import assemble

FINE_TUNED = "w2v_encoder.w2v_model."
MARK = "feature_extractor.conv_layers.0.0.weight"  # the first convolution: every such network has it
CONV, LAYERS, NUMBER = r"feature_extractor\.conv_layers\.", r"encoder\.layers\.", r"(\d{1,4})\."
LAYER, END = LAYERS + r"(\d+)\.", r"\.(weight|bias)"
# fairseq's name, as a pattern, and transformers' name.
RENAMES = (
    (r"mask_emb", r"masked_spec_embed"),
    (CONV + r"(\d+)\.0" + END, r"feature_extractor.conv_layers.\1.conv.\2"),
    (CONV + r"0\.2" + END, r"feature_extractor.conv_layers.0.layer_norm.\1"),
    (CONV + r"(\d+)\.2\.1" + END, r"feature_extractor.conv_layers.\1.layer_norm.\2"),
    (r"layer_norm" + END, r"feature_projection.layer_norm.\1"),
    (r"post_extract_proj" + END, r"feature_projection.projection.\1"),
    (r"encoder\.pos_conv\.0\.bias", r"encoder.pos_conv_embed.conv.bias"),
    # The weight is stored as magnitude g and direction v; torch's newer weight norm calls them original0, original1.
    (r"encoder\.pos_conv\.0\.weight_g", r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.layer_norm" + END, r"encoder.layer_norm.\1"),
    (LAYER + r"self_attn\.([qkv]|out)_proj" + END, r"encoder.layers.\1.attention.\2_proj.\3"),
    (LAYER + r"self_attn_layer_norm" + END, r"encoder.layers.\1.layer_norm.\2"),
    (LAYER + r"fc1" + END, r"encoder.layers.\1.feed_forward.intermediate_dense.\2"),
    (LAYER + r"fc2" + END, r"encoder.layers.\1.feed_forward.output_dense.\2"),
    (LAYER + r"final_layer_norm" + END, r"encoder.layers.\1.final_layer_norm.\2"),
    # WavLM's gated relative position bias; the first layer's table serves all.
    (LAYER + r"self_attn\.grep_linear" + END, r"encoder.layers.\1.attention.gru_rel_pos_linear.\2"),
    (LAYER + r"self_attn\.grep_a", r"encoder.layers.\1.attention.gru_rel_pos_const"),
    (LAYER + r"self_attn\.relative_attention_bias\.weight", r"encoder.layers.\1.attention.rel_attn_embed.weight"),
)
# What only the pre-training task or the CTC output needs.
LEFT_OUT = re.compile(r"(quantizer|project_q|final_proj|target_glu)\..+|label_embs_concat")
CTC_OUTPUT = re.compile(r"w2v_encoder\.proj\.(weight|bias)")
# Training settings that keep their meaning under another name.
DROPOUTS = {
    "dropout": "hidden_dropout", "attention_dropout": "attention_dropout", "activation_dropout": "activation_dropout",
    "encoder_layerdrop": "layerdrop", "dropout_input": "feat_proj_dropout",
}  # fmt: skip


@dataclass(frozen=True)
class Converted:
    """A network in transformers' form, and facts of its conversion."""

    family: str
    network: Any
    feature_extractor: Any
    n_tensors: int
    """Number of tensors in the file that belong to it."""
    left_out: tuple[str, ...]
    """Tensors that belong to its pre-training task or CTC output."""
    is_fine_tuned: bool = False
    """Whether it was trained to transcribe after its pre-training."""


def is_fairseq(tensors: dict[str, torch.Tensor]) -> bool:
    """Return whether these are the tensors of a network of fairseq's or WavLM's kind."""
    return MARK in tensors or FINE_TUNED + MARK in tensors


def from_fairseq(tensors: dict[str, torch.Tensor], top: dict[str, Any], where: Path | str) -> Converted:
    """Convert a complete checkpoint.

    Args:
        tensors: Tensors of its network, for which `is_fairseq` is true.
        top: Result of `load_tensors`, with the settings.
        where: Name in messages.

    Raises:
        SpoofkitError: settings missing or contradicting the tensors, tensors unknown, missing or of another shape.
    """
    settings, do_normalize = _settings(top, where)
    left_out = []
    is_fine_tuned = FINE_TUNED + MARK in tensors
    if is_fine_tuned:
        left_out = [name for name in tensors if CTC_OUTPUT.fullmatch(name)]
        tensors = {name.removeprefix(FINE_TUNED): t for name, t in tensors.items() if name not in left_out}
    converted = convert_tensors(tensors, settings, do_normalize, where)
    n_tensors, left_out = converted.n_tensors + len(left_out), [*converted.left_out, *left_out]
    return replace(converted, n_tensors=n_tensors, left_out=tuple(left_out), is_fine_tuned=is_fine_tuned)


def convert_tensors(
    tensors: dict[str, torch.Tensor], settings: dict[str, Any], do_normalize: bool, where: Path | str
) -> Converted:
    """Convert tensors under fairseq's bare names, given the settings of fairseq's model.

    Raises:
        SpoofkitError: see `from_fairseq`.
    """
    renamed: dict[str, torch.Tensor] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    for name, tensor in tensors.items():
        new = _rename(name)
        if new:
            renamed[new] = tensor
        else:
            (left_out if LEFT_OUT.fullmatch(name) else unknown).append(name)
    if unknown:
        raise SpoofkitError(
            f"{where}: {len(unknown)} tensors are unknown, first {', '.join(unknown[:3])}; expected those of wav2vec "
            "2.0, XLS-R, HuBERT or WavLM, without adapters or other additions"
        )
    is_wavlm = any(name.endswith("self_attn.grep_a") for name in tensors)
    name = str(settings.get("_name", settings.get("arch", "")))
    is_hubert = "label_embs_concat" in tensors or name.startswith("hubert")
    family = "wavlm" if is_wavlm else "hubert" if is_hubert else "wav2vec2"
    config = _config(tensors, settings, is_wavlm, where)
    network, feature_extractor = assemble(family, config, do_normalize, renamed, where)
    return Converted(family, network, feature_extractor, len(tensors), tuple(left_out))


def _rename(name: str) -> str | None:
    for pattern, new in RENAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(new)
    return None


def _settings(top: dict[str, Any], where: Path | str) -> tuple[dict[str, Any], bool]:
    """Return the model's settings under fairseq's names, and whether waveforms are normalised."""
    try:
        records = [plain(top.get(key)) for key in ("cfg", "args")]
        records.append({"model": plain(top.get("model_cfg")), "task": plain(top.get("task_cfg"))})
    except RecursionError as error:
        raise SpoofkitError(
            f"{where}: its settings are nested too deeply, expected a checkpoint as its authors released it"
        ) from error
    found: list[dict[str, Any]] = []  # the encoder's own settings come before those of the model around it
    for record in records:
        flat = [inside for inside in (_part(record, "model"), _part(record, "task"), _part(record)) if inside]
        for inside in flat:
            encoder = _part(inside, "w2v_args")
            found += [part for part in (_part(encoder, "model"), _part(encoder, "task"), encoder) if part]
        found += flat
    model = next((part for part in found if "encoder_attention_heads" in part), None)
    if model is None:
        raise SpoofkitError(
            f"{where}: lacks the settings of its network (encoder_attention_heads under cfg, args or model_cfg), "
            "expected a checkpoint as its authors released it, not only the tensors"
        )
    # Absent, it is false: the default of fairseq's tasks and of WavLM's loader. A string only refers to another place.
    said = [part for part in found if "normalize" in part] or [{"normalize": False}]
    task = next((part for part in said if isinstance(part["normalize"], bool)), said[0])
    return model, _require(task, "normalize", bool, where)


def _part(record: Any, key: str | None = None) -> dict[str, Any]:
    inside = record.get(key) if key is not None and isinstance(record, dict) else record if key is None else None
    return inside if isinstance(inside, dict) else {}


def _config(
    tensors: dict[str, torch.Tensor], settings: dict[str, Any], is_wavlm: bool, where: Path | str
) -> dict[str, Any]:
    """Derive transformers' settings from the tensors' shapes and fairseq's settings, which must agree."""
    n_conv, n_layers = _count(tensors, CONV, where), _count(tensors, LAYERS, where)
    conv = [_shape(tensors, f"feature_extractor.conv_layers.{i}.0.weight", 3, where) for i in range(n_conv)]
    width, width_of_group, kernel = _shape(tensors, "encoder.pos_conv.0.weight_v", 3, where)
    inner, _ = _shape(tensors, "encoder.layers.0.fc1.weight", 2, where)
    seen = {
        "encoder_layers": n_layers,
        "encoder_embed_dim": width,
        "encoder_ffn_embed_dim": inner,
        "extractor_mode": "layer_norm" if "feature_extractor.conv_layers.0.2.1.weight" in tensors else "default",
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in tensors,
        "conv_pos": kernel,
        "conv_pos_groups": width // width_of_group,
    }
    if is_wavlm:
        table = "encoder.layers.0.self_attn.relative_attention_bias.weight"
        seen["num_buckets"], seen["encoder_attention_heads"] = _shape(tensors, table, 2, where)
    heads = _require(settings, "encoder_attention_heads", int, where)
    pre_norm = _require(settings, "layer_norm_first", bool, where)
    layers = _conv_layers(_require(settings, "conv_feature_layers", str, where), where)
    for what, said, found in (
        *((key, settings[key], found) for key, found in seen.items() if key in settings),
        ("conv_feature_layers", [layer[:2] for layer in layers], [(shape[0], shape[2]) for shape in conv]),
        ("activation_fn", settings.get("activation_fn", "gelu"), "gelu"),
    ):
        if said != found:
            raise SpoofkitError(
                f"{where}: its settings say {what} {said!r:.200}, its tensors {found!r}, expected both to agree; use "
                "the checkpoint as its authors released it"
            )
    config = {
        "hidden_size": width,
        "num_hidden_layers": n_layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "conv_dim": [layer[0] for layer in layers],
        "conv_kernel": [layer[1] for layer in layers],
        "conv_stride": [layer[2] for layer in layers],
        "conv_bias": seen["conv_bias"],
        "feat_extract_norm": "group" if seen["extractor_mode"] == "default" else "layer",
        "do_stable_layer_norm": pre_norm,
        "num_conv_pos_embeddings": kernel,
        "num_conv_pos_embedding_groups": seen["conv_pos_groups"],
        **{new: float(settings[old]) for old, new in DROPOUTS.items() if isinstance(settings.get(old), (int, float))},
    }
    if is_wavlm:
        distance = _require(settings, "max_distance", int, where)
        config |= {"num_buckets": seen["num_buckets"], "max_bucket_distance": distance}
    return config


def _count(tensors: dict[str, torch.Tensor], part: str, where: Path | str) -> int:
    """Count convolutions or transformer layers, which must be numbered without a gap."""
    numbers = {int(match[1]) for match in (re.match(part + NUMBER, name) for name in tensors) if match}
    if numbers != set(range(len(numbers))) or not numbers:
        missing = min(set(range(len(numbers) + 1)) - numbers)
        raise SpoofkitError(
            f"{where}: has no tensors of {part.replace(chr(92), '')}{missing}, expected a whole model; fetch it again"
        )
    return len(numbers)


def _shape(tensors: dict[str, torch.Tensor], name: str, n_dims: int, where: Path | str) -> torch.Size:
    if name not in tensors or tensors[name].dim() != n_dims or not tensors[name].numel():
        found = f"of shape {tuple(tensors[name].shape)}" if name in tensors else "missing"
        raise SpoofkitError(
            f"{where}: tensor {name} is {found}, expected it with {n_dims} dimensions; fetch the file again"
        )
    return tensors[name].shape


def _require(settings: dict[str, Any], key: str, kind: type, where: Path | str) -> Any:
    """Return one setting of a type; numbers are counts."""
    value = settings.get(key)
    if type(value) is not kind or (kind is int and isinstance(value, int) and value <= 0):
        raise SpoofkitError(
            f"{where}: its settings say {key} {value!r:.80}, expected a {'positive ' if kind is int else ''}value of "
            f"type {kind.__name__}; the tensors do not show it, so use the checkpoint as its authors released it"
        )
    return value


def _conv_layers(text: str, where: Path | str) -> list[tuple[int, int, int]]:
    """Parse fairseq's expression for (channels, kernel, stride), such as `[(512, 10, 5)] + [(512, 3, 2)] * 4`."""

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and type(node.value) is int and 0 < node.value <= 10_000:
            return node.value
        if isinstance(node, ast.Tuple):
            return tuple(value(inside) for inside in node.elts)
        if isinstance(node, ast.List):
            return [value(inside) for inside in node.elts]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return value(node.left) + value(node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            left, right = value(node.left), value(node.right)
            if isinstance(left, list) and isinstance(right, int) and right <= 100 and len(left) <= 100:
                return left * right
        raise ValueError("only lists of numbers, + and *")

    try:
        layers = value(ast.parse(text, mode="eval").body)
        if not (isinstance(layers, list) and layers and all(len(layer) == 3 for layer in layers)):
            raise ValueError("no list of triples")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise SpoofkitError(
            f"{where}: its setting conv_feature_layers {text[:80]!r} cannot be read ({error}), expected a sum of lists "
            "of (channels, kernel, stride)"
        ) from error
    return [(int(layer[0]), int(layer[1]), int(layer[2])) for layer in layers]
