"""What a folder of weights may hold: nothing that leads out of it.

A model is known by the hash of its folder (`folder_sha256` in `detector`), so every weight has to lie in the folder, or
behind a link in it, which the hash follows.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json


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
