"""Detectors whose one state dict holds a fairseq XLS-R under `ssl_model.model.` and a back-end above it.

* SSL-AASIST (Tak et al., arXiv:2202.12233): model.py of github.com/TakHemlata/SSL_Anti-spoofing.
* Nes2Net-X (Liu et al., arXiv:2504.05657): model_scripts/wav2vec2_Nes2Net_X.py of
  github.com/Liu-Tianchi/Nes2Net_ASVspoof_ITW, with its defaults: mean pooling, 8 x 8 parts, no reduction.
* SLS (Zhang et al., ACM Multimedia 2024): model.py of github.com/QiShanZhang/SLSforASVspoof-2021-DF.

All feed waveforms that are not normalised. The first two read the last layer behind the final norm and score by logit 1
of two (main_SSL_DF.py, easy_inference_demo.py). SLS reads every layer before that norm, puts a SELU on its two logits
and scores by their log-softmax (main.py); here its score is their difference, the log-odds of the same probability.
Files say nothing of fairseq's settings, so an encoder is recognised by its size, as AntiDeepfake's is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from spoofkit.addons.convert import aasist, antideepfake
from spoofkit.addons.convert.fairseq import Converted, convert_tensors
from spoofkit.errors import SpoofkitError
from spoofkit.models.heads import UTTERANCE_HEADS

ENCODER = "ssl_model.model."
REPEAT = "repeat:64600"  # `pad` in data_utils_SSL.py of SSL-AASIST and of SLS
AASIST_PARTS = {
    "project": "LL",
    "last_norm": "first_bn1",
    "attention_in": "attention.0",
    "attention_norm": "attention.2",
    "attention_out": "attention.3",
}
"""Our names of the parts that AASIST on raw waveforms lacks, and theirs."""
NES2NET = "Nested_Res2Net_TDNN."
# Ours, as a pattern, and theirs.
NES2NET_NAMES = (
    (r"norm\.(.+)", r"bn.\1"),
    (r"blocks\.(\d+)\.norm\.(.+)", r"bns.\1.\2"),
    (r"blocks\.(\d+)\.conv_in\.(.+)", r"Build_in_Res2Nets.\1.conv1.\2"),
    (r"blocks\.(\d+)\.norm_in\.(.+)", r"Build_in_Res2Nets.\1.bn1.\2"),
    (r"blocks\.(\d+)\.parts\.(\d+)\.conv\.(.+)", r"Build_in_Res2Nets.\1.convs.\2.\3"),
    (r"blocks\.(\d+)\.parts\.(\d+)\.norm\.(.+)", r"Build_in_Res2Nets.\1.bns.\2.\3"),
    (r"blocks\.(\d+)\.parts\.(\d+)\.weight_K", r"Build_in_Res2Nets.\1.weighted_sum.\2"),
    (r"blocks\.(\d+)\.conv_out\.(.+)", r"Build_in_Res2Nets.\1.conv3.\2"),
    (r"blocks\.(\d+)\.norm_out\.(.+)", r"Build_in_Res2Nets.\1.bn3.\2"),
    (r"blocks\.(\d+)\.excitation\.0\.(.+)", r"Build_in_Res2Nets.\1.se.se.1.\2"),
    (r"blocks\.(\d+)\.excitation\.2\.(.+)", r"Build_in_Res2Nets.\1.se.se.3.\2"),
)
# Our parts and theirs; what is inside them has the same names.
SLS_PARTS = {"gate": "fc0", "norm": "first_bn", "projection": "fc1"}


@dataclass(frozen=True)
class BackEnd:
    """A published back-end."""

    whose: str
    known_by: tuple[str, ...]
    """Tensors that no other has."""
    head: str
    """Name of our head."""
    last: str
    """What the names of its output layer begin with."""
    input_policy: str
    layers: str = "last"
    """What the head reads."""
    score: str = "bonafide_logit"
    """See SCORES of models/detector.py."""


BACK_ENDS = (
    BackEnd("SSL-AASIST's", ("pos_S", "LL.weight"), "aasist", "out_layer.", REPEAT),
    BackEnd("Nes2Net-X's", (f"{NES2NET}fc.weight",), "nes2net", f"{NES2NET}fc.", "whole"),
    BackEnd("SLS's", ("fc0.weight", "fc1.weight", "fc3.weight"), "sls", "fc3.", REPEAT, "all", "selu_log_odds"),
)


@dataclass(frozen=True)
class SslDetector:
    """A converted detector, in parts."""

    back_end: BackEnd
    converted: Converted
    state: dict[str, torch.Tensor]
    """Tensors of head and output layer."""


def is_ssl_detector(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Return whether these are the tensors of a back-end above an encoder of fairseq."""
    return any(name.startswith(ENCODER) for name in tensors)


def from_ssl_detector(tensors: Mapping[str, torch.Tensor], where: Path | str) -> SslDetector:
    """Convert a detector.

    Raises:
        SpoofkitError: another back-end; an encoder of unknown size; tensors unknown, missing or of another shape.
    """
    above = {name: tensor for name, tensor in tensors.items() if not name.startswith(ENCODER)}
    back_end = next((one for one in BACK_ENDS if above.keys() >= set(one.known_by)), None)
    if back_end is None:
        first = ", ".join(sorted(above)[:5]) or "nothing"
        raise SpoofkitError(
            f"{where}: has {first} above an encoder of fairseq, expected the back-end of SSL-AASIST, Nes2Net-X or SLS; "
            "others are not known"
        )
    converted = _encoder({n.removeprefix(ENCODER): t for n, t in tensors.items() if n.startswith(ENCODER)}, where)
    config = converted.network.config
    ours = UTTERANCE_HEADS[back_end.head](config.hidden_size, config.num_hidden_layers + 1)
    theirs = {f"head.{name}": _their_name(back_end.head, name) for name in ours.state_dict()}
    theirs |= {f"output.linear.{name}": f"{back_end.last}{name}" for name in ("weight", "bias")}
    shapes = {f"head.{name}": tensor.shape for name, tensor in ours.state_dict().items()}
    shapes |= {"output.linear.weight": torch.Size([2, ours.embedding_width]), "output.linear.bias": torch.Size([2])}
    unknown = above.keys() - set(theirs.values())
    missing = set(theirs.values()) - above.keys()
    for what, names in (("unknown", unknown), ("missing", missing)):
        if names:
            raise SpoofkitError(
                f"{where}: {len(names)} tensors are {what}, first {min(names)}; expected those of {back_end.whose} "
                "published code"
            )
    state = {name: _shaped(above[their], shapes[name]) for name, their in theirs.items()}
    wrong = sorted(theirs[name] for name, tensor in state.items() if tensor.shape != shapes[name])
    if wrong:
        raise SpoofkitError(
            f"{where}: {len(wrong)} tensors are of another shape, first {wrong[0]}; expected the sizes of "
            f"{back_end.whose} published code"
        )
    return SslDetector(back_end, converted, state)


def _encoder(inside: dict[str, torch.Tensor], where: Path | str) -> Converted:
    """Convert the encoder; what only its pre-training needs is left out."""
    n_layers = len({name.split(".")[2] for name in inside if name.startswith("encoder.layers.")})
    width = inside.get("encoder.layer_norm.weight", torch.empty(0)).numel()
    if (n_layers, width) not in antideepfake.SIZES:
        sizes = ", ".join(f"{layers} x {d}" for layers, d in antideepfake.SIZES)
        raise SpoofkitError(f"{where}: its encoder has {n_layers} layers of width {width}, expected one of {sizes}")
    heads, pre_norm = antideepfake.SIZES[n_layers, width]
    settings = {
        "encoder_attention_heads": heads,
        "layer_norm_first": pre_norm,
        "conv_feature_layers": antideepfake.CONV_LAYERS,
    }
    return convert_tensors(inside, settings, False, where)


def _their_name(head: str, ours: str) -> str:
    if head == "aasist":
        return aasist.authors_name(ours, AASIST_PARTS)
    if head == "sls":
        part, _, rest = ours.partition(".")
        return f"{SLS_PARTS[part]}.{rest}"
    for pattern, theirs in NES2NET_NAMES:
        match = re.fullmatch(pattern, ours)
        if match:
            return NES2NET + match.expand(theirs)
    raise KeyError(ours)


def _shaped(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return a tensor of theirs as ours has it: a product with one frame is a linear layer here, and time is last."""
    if tensor.dim() == 4 and tensor.shape[:2] == (1, 1) and len(shape) == 1:  # weights of parts side by side
        return tensor.flatten()
    if tensor.dim() == 3 and len(shape) == 2 and tensor.shape[2] == 1:
        return tensor[..., 0]
    if tensor.dim() == 4 and tensor.shape != shape and tensor.transpose(2, 3).shape == shape:
        return tensor.transpose(2, 3).contiguous()
    return tensor
