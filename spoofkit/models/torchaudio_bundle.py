"""torchaudio's pre-trained bundles as transformers networks, such as `torchaudio:WAV2VEC2_XLSR_300M`.

torchaudio names its tensors almost as transformers does, one level deeper; WavLM's attention keeps queries, keys and
values in one matrix. torchaudio is optional, and imported only here.
"""

import re
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from spoofkit.errors import SpoofkitError
from spoofkit.models.assemble import assemble
from spoofkit.models.provenance import Provenance, known_provenance

# The same weights on the Hugging Face hub, where what they were trained on is known.
HUB_IDS = {
    "WAV2VEC2_BASE": "facebook/wav2vec2-base",
    "WAV2VEC2_LARGE": "facebook/wav2vec2-large",
    "WAV2VEC2_LARGE_LV60K": "facebook/wav2vec2-large-lv60",
    "WAV2VEC2_XLSR53": "facebook/wav2vec2-large-xlsr-53",
    "WAV2VEC2_XLSR_300M": "facebook/wav2vec2-xls-r-300m",
    "WAV2VEC2_XLSR_1B": "facebook/wav2vec2-xls-r-1b",
    "WAV2VEC2_XLSR_2B": "facebook/wav2vec2-xls-r-2b",
    "HUBERT_BASE": "facebook/hubert-base-ls960",
    "HUBERT_LARGE": "facebook/hubert-large-ll60k",
    "HUBERT_XLARGE": "facebook/hubert-xlarge-ll60k",
    "WAVLM_BASE": "microsoft/wavlm-base",
    "WAVLM_BASE_PLUS": "microsoft/wavlm-base-plus",
    "WAVLM_LARGE": "microsoft/wavlm-large",
}
POSITION = "encoder.transformer.pos_conv_embed.conv."
# torchaudio's name, as a pattern, and transformers' name. `aux` is a bundle's output for speech recognition.
RENAMES = (
    (r"feature_extractor\.(.+)", r"feature_extractor.\1"),
    (r"encoder\.feature_projection\.(.+)", r"feature_projection.\1"),
    # Published bundles were saved with torch's older weight norm, present torch names its parts differently.
    (rf"{re.escape(POSITION)}weight_g", r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (rf"{re.escape(POSITION)}weight_v", r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.transformer\.(layers\.\d+\.attention)\.attention\.out_proj\.(.+)", r"encoder.\1.out_proj.\2"),
    (r"encoder\.transformer\.(.+)", r"encoder.\1"),
)
WHOLE_ATTENTION = re.compile(r"encoder\.transformer\.(layers\.\d+\.attention)\.attention\.in_proj_(weight|bias)")


def load_bundle(name: str) -> tuple[Any, Any]:
    """Load a bundle, from torch hub's cache or the network.

    Args:
        name: Name in `torchaudio.pipelines`, such as WAV2VEC2_BASE, HUBERT_LARGE, WAVLM_LARGE.

    Returns:
        transformers' network in evaluation mode, and its feature extractor.

    Raises:
        SpoofkitError: torchaudio absent or broken, no such bundle, weights not available or not fitting.
    """
    where = f"torchaudio:{name}"
    try:
        pipelines: Any = import_module("torchaudio.pipelines")
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise SpoofkitError(
            f"{where}: torchaudio cannot be imported ({reason}); install a torchaudio built for this torch, or use the "
            "same model from the Hugging Face hub"
        ) from error
    bundle: Any = getattr(pipelines, name, None)
    bundles = [other for other in dir(pipelines) if _is_bundle(getattr(pipelines, other))]
    if name not in bundles:
        raise SpoofkitError(f"{where}: no such bundle of a waveform encoder; torchaudio has {', '.join(bundles)}")
    try:
        model = bundle.get_model()
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise SpoofkitError(
            f"{where}: its weights cannot be loaded ({reason}); without network, put them into torch hub's cache "
            f"({torch.hub.get_dir()}/checkpoints)"
        ) from error
    # A bundle that normalises wraps the model to do so.
    tensors = getattr(model, "model", model).state_dict()
    family = "hubert" if name.startswith("HUBERT") else "wavlm" if name.startswith("WAVLM") else "wav2vec2"
    config = transformers_config(bundle._params)
    return assemble(family, config, bundle._normalize_waveform, transformers_names(tensors), where)


def bundle_provenance(name: str) -> Provenance | None:
    """Return licence and training data of a bundle that was not fine-tuned; torchaudio distributes them under MIT.

    They follow from the bundle's name. torchaudio does not check the hash of the file in torch hub's cache.
    """
    known = known_provenance(HUB_IDS.get(name, ""))
    if known is None:
        return None
    note = "known by the bundle's name; torchaudio does not check the file in torch hub's cache"
    licence = "MIT, says torchaudio's documentation"
    return replace(known, source=f"torchaudio:{name}", licence=licence, notes=(*known.notes, note))


def transformers_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a torchaudio model's tensors; a name that no pattern fits is kept and then refused."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        whole = WHOLE_ATTENTION.fullmatch(name)
        if whole:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"encoder.{whole[1]}.{part}_proj.{whole[2]}"] = third.clone()
        elif not name.startswith("aux."):
            match = next((m.expand(new) for old, new in RENAMES if (m := re.fullmatch(old, name))), name)
            renamed[match] = tensor
    return renamed


def transformers_config(params: dict[str, Any]) -> dict[str, Any]:
    """Convert the arguments of torchaudio's `wav2vec2_model` or `wavlm_model` to transformers' settings."""
    layers = params["extractor_conv_layer_config"] or [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2
    config = {
        "hidden_size": params["encoder_embed_dim"],
        "num_hidden_layers": params["encoder_num_layers"],
        "num_attention_heads": params["encoder_num_heads"],
        "intermediate_size": params["encoder_ff_interm_features"],
        "conv_dim": [layer[0] for layer in layers],
        "conv_kernel": [layer[1] for layer in layers],
        "conv_stride": [layer[2] for layer in layers],
        "conv_bias": params["extractor_conv_bias"],
        "feat_extract_norm": "group" if params["extractor_mode"] == "group_norm" else "layer",
        "do_stable_layer_norm": params["encoder_layer_norm_first"],
        "num_conv_pos_embeddings": params["encoder_pos_conv_kernel"],
        "num_conv_pos_embedding_groups": params["encoder_pos_conv_groups"],
        "feat_proj_dropout": params["encoder_projection_dropout"],
        "attention_dropout": params["encoder_attention_dropout"],
        "activation_dropout": params["encoder_ff_interm_dropout"],
        "hidden_dropout": params["encoder_dropout"],
        "layerdrop": params["encoder_layer_drop"],
    }
    if "encoder_num_buckets" in params:
        config |= {
            "num_buckets": params["encoder_num_buckets"],
            "max_bucket_distance": params["encoder_max_distance"],
        }
    return config


def _is_bundle(bundle: Any) -> bool:
    return hasattr(bundle, "_normalize_waveform") and "encoder_embed_dim" in getattr(bundle, "_params", {})
