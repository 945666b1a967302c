"""The authors' published AASIST weights under our names (github.com/clovaai/aasist, models/weights/*.pth).

Every tensor is accounted for: one that is missing, unknown or of another shape is refused by name. The files were
written on a GPU: read them with `torch.load(path, weights_only=True, map_location="cpu")`.
"""

from collections.abc import Iterable, Mapping

import torch

from spoofkit.errors import SpoofkitError
from spoofkit.models.heads.aasist import RawAasistHead, RawAasistLightHead
from spoofkit.models.sinc import SINC_FRONT_ENDS

# The input that the authors score: data_utils.py, `pad` in Dataset_ASVspoof2019_devNeval.
INPUT_POLICY = "repeat:64600"
HEADS: dict[str, type[RawAasistHead]] = {"raw_aasist": RawAasistHead, "raw_aasist_l": RawAasistLightHead}

# Names of the parts: ours, theirs. `{}` is a number, in theirs of the same part.
BRANCH_PARTS = {
    "master": "master{}",
    "first": "HtrgGAT_layer_ST{}1",
    "second": "HtrgGAT_layer_ST{}2",
    "temporal_pool": "pool_hT{}",
    "spectral_pool": "pool_hS{}",
}
PARTS = {
    "first_norm": "first_bn",
    "graph.position": "pos_S",
    "graph.spectral": "GAT_layer_S",
    "graph.temporal": "GAT_layer_T",
    "graph.spectral_pool": "pool_S",
    "graph.temporal_pool": "pool_T",
    **{f"blocks.{n}": f"encoder.{n}.0" for n in range(6)},
    **{f"graph.branches.{n}.{ours}": theirs.format(n + 1) for n in range(2) for ours, theirs in BRANCH_PARTS.items()},
}
# Names inside a part; those that are not listed are the same in both.
INSIDE = {
    "unused_norm": "bn1",
    "first": "conv1",
    "norm": "bn2",
    "second": "conv2",
    "shortcut": "conv_downsample",
    "score": "proj",  # in a pooling; in attention it is a bare tensor
}
INSIDE_ATTENTION = {
    "pair": "att_proj",
    "score": "att_weight",
    "score_temporal": "att_weight11",
    "score_spectral": "att_weight22",
    "score_mixed": "att_weight12",
    "temporal": "proj_type1",
    "spectral": "proj_type2",
    "spread.received": "proj_with_att",
    "spread.own": "proj_without_att",
    "spread.norm": "bn",
    "master_pair": "att_projM",
    "master_score": "att_weightM",
    "master_received": "proj_with_attM",
    "master_own": "proj_without_attM",
}
OUTPUT = {"weight": "out_layer.weight", "bias": "out_layer.bias"}


def is_aasist(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Return whether tensors have the names of AASIST's authors (but not SSL-AASIST, which has more)."""
    return {"pos_S", "master1", "GAT_layer_S.att_weight", "out_layer.weight"} <= tensors.keys() and not any(
        name.startswith(("ssl_model.", "LL.")) for name in tensors
    )


def from_authors(
    tensors: Mapping[str, torch.Tensor], where: str = "AASIST weights"
) -> tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Rename the authors' tensors.

    Args:
        tensors: State dict of a published file.
        where: Name in messages, usually the path.

    Returns:
        Name of the head, the head's state dict, and the output layer's `weight` and `bias`, whose logit 1 is bona fide.

    Raises:
        SpoofkitError: neither AASIST nor AASIST-L, or tensors missing, unknown, of another shape or not finite.
    """
    width = tensors["pos_S"].shape[-1] if "pos_S" in tensors and tensors["pos_S"].dim() else 0
    kinds = {kind.sizes.width: name for name, kind in HEADS.items()}
    if width not in kinds:
        raise SpoofkitError(
            f"{where}: tensor pos_S has {width} features, expected 64 (AASIST) or 24 (AASIST-L); "
            "only these two published models can be imported"
        )
    kind = HEADS[kinds[width]]
    head = kind(SINC_FRONT_ENDS[str(kind.front_end)].n_filters, n_hidden=1)
    names = {ours: authors_name(ours) for ours in head.state_dict()}
    shapes = {names[ours]: tensor.shape for ours, tensor in head.state_dict().items()}
    shapes[OUTPUT["weight"]] = torch.Size([kind.n_logits, head.embedding_width])
    shapes[OUTPUT["bias"]] = torch.Size([kind.n_logits])

    common = shapes.keys() & tensors.keys()
    _refuse(where, "missing", shapes.keys() - tensors.keys())
    _refuse(where, "unknown", tensors.keys() - shapes.keys())
    _refuse(where, "of another shape", (name for name in common if tensors[name].shape != shapes[name]))
    _refuse(where, "not finite", (name for name in common if not bool(torch.isfinite(tensors[name]).all())))
    return (
        kinds[width],
        {ours: tensors[theirs] for ours, theirs in names.items()},
        {ours: tensors[theirs] for ours, theirs in OUTPUT.items()},
    )


def authors_name(ours: str, more: Mapping[str, str] | None = None) -> str:
    """Return what the authors call a tensor of the head; `more` are names of further parts, ours and theirs."""
    parts = {**PARTS, **(more or {})}
    part = max((part for part in parts if f"{ours}.".startswith(f"{part}.")), key=len)
    theirs, rest = parts[part], ours.removeprefix(part).removeprefix(".")
    inside = INSIDE_ATTENTION if "GAT" in theirs else INSIDE
    for name, their_name in inside.items():
        if f"{rest}.".startswith(f"{name}."):
            rest = their_name + rest.removeprefix(name)
            break
    return f"{theirs}.{rest}" if rest else theirs


def _refuse(where: str, what: str, names: Iterable[str]) -> None:
    found = sorted(names)
    if found:
        raise SpoofkitError(
            f"{where}: {len(found)} tensors are {what}, first {', '.join(found[:5])}; "
            "fetch AASIST.pth or AASIST-L.pth of github.com/clovaai/aasist again"
        )
