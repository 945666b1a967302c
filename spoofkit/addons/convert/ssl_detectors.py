"""Detectors whose one state dict holds a fairseq XLS-R under `ssl_model.model.` and a back-end above it.

* SSL-AASIST (Tak et al., arXiv:2202.12233): model.py of github.com/TakHemlata/SSL_Anti-spoofing.
* Nes2Net-X (Liu et al., arXiv:2504.05657): model_scripts/wav2vec2_Nes2Net_X.py of
  github.com/Liu-Tianchi/Nes2Net_ASVspoof_ITW, with its defaults: mean pooling, 8 x 8 parts, no reduction.

Both feed waveforms that are not normalised, read the last layer behind the final norm, and score by logit 1 of two
(main_SSL_DF.py, easy_inference_demo.py). Files say nothing of fairseq's settings, so an encoder is recognised by its
size, as AntiDeepfake's is. SLS (github.com/QiShanZhang/SLSforASVspoof-2021-DF) is known and refused: it puts a SELU on
its two logits, which our output layer does not have.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from spoofkit.addons.convert import aasist, antideepfake
from spoofkit.addons.convert.fairseq import Converted, convert_tensors
from spoofkit.errors import SpoofkitError
from spoofkit.models.heads.aasist import AasistHead
from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.nes2net import Nes2NetHead

ENCODER = "ssl_model.model."
REPEAT = "repeat:64600"  # `pad` in their data_utils_SSL.py
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
SLS = {"fc0.weight", "fc1.weight", "fc3.weight"}


@dataclass(frozen=True)
class SslDetector:
    """A converted detector, in parts."""

    whose: str
    converted: Converted
    head: str
    """Name of its head."""
    state: dict[str, torch.Tensor]
    """Tensors of head and output layer."""
    input_policy: str


def is_ssl_detector(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Return whether these are the tensors of a back-end above an encoder of fairseq."""
    return any(name.startswith(ENCODER) for name in tensors)


def from_ssl_detector(tensors: Mapping[str, torch.Tensor], where: Path | str) -> SslDetector:
    """Convert a detector.

    Raises:
        SpoofkitError: another back-end; an encoder of unknown size; tensors unknown, missing or of another shape.
    """
    above = {name: tensor for name, tensor in tensors.items() if not name.startswith(ENCODER)}
    if above.keys() >= SLS:
        raise SpoofkitError(
            f"{where}: is an SLS detector, which puts a SELU on its two logits, expected SSL-AASIST or Nes2Net-X; it "
            "cannot be computed exactly here (train the head sls instead)"
        )
    if "pos_S" in above and "LL.weight" in above:
        whose, head, last, policy = "SSL-AASIST's", "aasist", "out_layer.", REPEAT
    elif any(name.startswith(NES2NET) for name in above):
        whose, head, last, policy = "Nes2Net-X's", "nes2net", f"{NES2NET}fc.", "whole"
    else:
        first = ", ".join(sorted(above)[:5]) or "nothing"
        raise SpoofkitError(
            f"{where}: has {first} above an encoder of fairseq, expected the back-end of SSL-AASIST or Nes2Net-X; "
            "others are not known"
        )
    converted = _encoder({n.removeprefix(ENCODER): t for n, t in tensors.items() if n.startswith(ENCODER)}, where)
    width = converted.network.config.hidden_size
    ours: UtteranceHead = AasistHead(width, 2) if head == "aasist" else Nes2NetHead(width, 2)
    theirs = {f"head.{name}": _their_name(head, name) for name in ours.state_dict()}
    theirs |= {f"output.linear.{name}": f"{last}{name}" for name in ("weight", "bias")}
    shapes = {f"head.{name}": tensor.shape for name, tensor in ours.state_dict().items()}
    shapes |= {"output.linear.weight": torch.Size([2, ours.embedding_width]), "output.linear.bias": torch.Size([2])}
    unknown = above.keys() - set(theirs.values())
    missing = set(theirs.values()) - above.keys()
    for what, names in (("unknown", unknown), ("missing", missing)):
        if names:
            raise SpoofkitError(
                f"{where}: {len(names)} tensors are {what}, first {min(names)}; expected those of {whose} "
                "published code"
            )
    state = {name: _shaped(above[their], shapes[name]) for name, their in theirs.items()}
    wrong = sorted(theirs[name] for name, tensor in state.items() if tensor.shape != shapes[name])
    if wrong:
        raise SpoofkitError(
            f"{where}: {len(wrong)} tensors are of another shape, first {wrong[0]}; expected the sizes of {whose} "
            "published code"
        )
    return SslDetector(whose, converted, head, state, policy)


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
