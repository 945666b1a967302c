"""AntiDeepfake's published detectors (Ge et al., arXiv:2506.21090; github.com/nii-yamagishilab/AntiDeepfake).

A network of fairseq's kind under `m_ssl.model.`, the mean over its frames, and a linear layer of two logits, `proj_fc`:
logit 0 is fake, logit 1 is real (their dataio.py and evaluation.py). The difference of the two is the log-odds of bona
fide. The files are bare state dicts (`.ckpt` on Zenodo, `model.safetensors` on the hub), so this module holds the
settings that tensors do not show, from their models/W2V_configs.py and HBT_configs.py.
"""

from pathlib import Path
from typing import Any

import torch

from spoofkit.addons.convert.fairseq import Converted, convert_tensors
from spoofkit.errors import SpoofkitError

ENCODER, OUTPUT = "m_ssl.model.", "proj_fc."
# Their input: dataio.py, dataio_prepare_test, which neither cuts nor pads.
INPUT_POLICY = "whole"
CONV_LAYERS = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2"
# Layers and width: attention heads, and whether layer norms come first.
SIZES = {
    (12, 768): (12, False),  # W2V-Small
    (24, 1024): (16, True),  # W2V-Large, MMS-300M
    (48, 1280): (16, True),  # MMS-1B, XLS-R-1B, HuBERT-XL
    (48, 1920): (16, True),  # XLS-R-2B
}


def is_antideepfake(tensors: dict[str, Any]) -> bool:
    """Return whether these are the tensors of such a detector."""
    return f"{OUTPUT}weight" in tensors and any(name.startswith(ENCODER) for name in tensors)


def from_antideepfake(
    tensors: dict[str, torch.Tensor], where: Path | str
) -> tuple[Converted, torch.Tensor, torch.Tensor]:
    """Convert a detector.

    Returns:
        The encoder, and weight and bias of a linear layer of one logit, the log-odds of bona fide: (1, D) and (1,).

    Raises:
        SpoofkitError: none of the published sizes, tensors unknown, missing or of another shape.
    """
    inside = {name.removeprefix(ENCODER): t for name, t in tensors.items() if name.startswith(ENCODER)}
    others = [name for name in tensors if not name.startswith((ENCODER, OUTPUT))]
    n_layers = len({name.split(".")[2] for name in inside if name.startswith("encoder.layers.")})
    width = inside.get("encoder.layer_norm.weight", torch.empty(0)).numel()
    if others or (n_layers, width) not in SIZES:
        found = f"tensors such as {others[0]}" if others else f"{n_layers} layers of width {width}"
        sizes = ", ".join(f"{layers} x {d}" for layers, d in SIZES)
        raise SpoofkitError(f"{where}: has {found}, expected one of AntiDeepfake's published models ({sizes})")
    weight_2D, bias_2 = tensors[f"{OUTPUT}weight"], tensors.get(f"{OUTPUT}bias", torch.empty(0))
    if weight_2D.shape != (2, width) or bias_2.shape != (2,):
        raise SpoofkitError(f"{where}: proj_fc is not a linear layer from {width} features to two logits with a bias")
    heads, pre_norm = SIZES[n_layers, width]
    settings = {
        "encoder_attention_heads": heads,
        "layer_norm_first": pre_norm,
        "conv_feature_layers": CONV_LAYERS,
    }
    # Their loader normalises every waveform to zero mean and unit variance, also for W2V-Small.
    converted = convert_tensors(inside, settings, True, where)
    return converted, (weight_2D[1:] - weight_2D[:1]).float(), (bias_2[1:] - bias_2[:1]).float()
