"""Checks of a folder of weights: no path leads out of it, and no size is absurd.

The hash of its folder identifies a model (`folder_sha256` in `checksums`), so every weight must be in the folder, or
behind a link in it, which the hash follows. Tensors of the task that an encoder was trained for are ignored by name: an
encoder that misses a tensor, or has an unexpected one, would compute something else.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json

MOST_LAYERS = 1_000
MOST_SIZE = 100_000
# Tensors of transformers' ...ForPreTraining, ForCTC, ForSequenceClassification and ForAudioFrameClassification,
# ForXVector; `masked_spec_embed` replaces masked frames, which do not occur here.
MASKED, CTC = r"masked_spec_embed", r"lm_head\.(weight|bias)"
CODEBOOKS = r"quantizer\.(codevectors|weight_proj\.(weight|bias))|project_(q|hid)\.(weight|bias)"
CLASSES = r"(projector|classifier)\.(weight|bias)|layer_weights"
X_VECTOR = r"tdnn\.\d+\.kernel\.(weight|bias)|feature_extractor\.(weight|bias)|objective\.weight"
CLUSTERS = r"final_proj\.(weight|bias)|label_embs_concat"  # HuBERT's own task, kept in some folders
SPEAKERS = r"speaker_proj\.(weight|bias)|label_embeddings_concat|layer_norm_for_extract\.(weight|bias)"
OF_A_TASK = {
    "wav2vec2": (MASKED, CTC, CODEBOOKS, CLASSES, X_VECTOR),
    "hubert": (MASKED, CTC, CLUSTERS, CLASSES),
    "wavlm": (MASKED, CTC, CLUSTERS, CLASSES, X_VECTOR),
    "data2vec-audio": (MASKED, CTC, CLASSES, X_VECTOR),
    "unispeech-sat": (MASKED, CTC, CODEBOOKS, SPEAKERS, CLASSES, X_VECTOR),
    "wav2vec2-bert": (MASKED, CTC, CLASSES, X_VECTOR),
    "whisper": (r"decoder\..+", r"proj_out\.weight", CLASSES),
}
"""By family: patterns of whole names, outside the encoder."""
SIZES = ("hidden_size", "intermediate_size", "d_model", "encoder_ffn_dim", "max_source_positions", "num_mel_bins")


def is_of_a_task(family: str, tensor: str) -> bool:
    """Return whether a tensor of a family's checkpoint belongs to the task it was trained for, not to its encoder.

    >>> is_of_a_task("wav2vec2", "feature_extractor.weight")  # a linear layer of ...ForXVector
    True
    >>> is_of_a_task("wav2vec2", "feature_extractor.conv_layers.0.conv.weight")
    False
    """
    return any(re.fullmatch(pattern, tensor) for pattern in OF_A_TASK[family])


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all values of a tensor are finite.

    A finite sum has finite terms, and adding is ten times faster than looking at each.
    """
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def require_possible_sizes(name: str, config: Any) -> None:
    """Refuse, before a network is built, a config.json with sizes far beyond those of published encoders.

    Raises:
        SpoofkitError: more than MOST_LAYERS layers, or a size beyond MOST_SIZE.
    """
    layers = dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers"), MOST_LAYERS)
    for key, most in (layers | dict.fromkeys(SIZES, MOST_SIZE)).items():
        found = getattr(config, key, None)
        if isinstance(found, int) and found > most:
            raise SpoofkitError(
                f"{name}: its config.json says {key}: {found}, expected at most {most:,}; copy it again"
            )


def require_own_weights(folder: Path) -> None:
    """Refuse a folder whose index of weights names files outside it.

    Raises:
        SpoofkitError: an index is damaged, or names an absolute path or one with `..`.
    """
    for index in sorted(folder.glob("*.index.json")):
        content: Any = read_json(index)
        names = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise SpoofkitError(f"{index}: is no index of weights, expected weight_map with file names; copy it again")
        for name in names.values():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise SpoofkitError(
                    f"{index}: names {name!r}, which lies outside {folder}, expected files of the folder itself; copy "
                    "them into it and correct the index"
                )
