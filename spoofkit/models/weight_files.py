"""What a folder of weights may hold: nothing that leads out of it, no sizes beyond all measure.

A model is known by the hash of its folder (`folder_sha256` in `detector`), so every weight has to lie in the folder, or
behind a link in it, which the hash follows.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json

MOST_LAYERS = 1_000
MOST_SIZE = 100_000
SIZES = ("hidden_size", "intermediate_size", "d_model", "encoder_ffn_dim", "max_source_positions", "num_mel_bins")


def require_possible_sizes(name: str, config: Any) -> None:
    """Refuse, before a network is built, a config.json whose sizes no published encoder comes near.

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
    """Refuse a folder whose index of weights names files elsewhere.

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
