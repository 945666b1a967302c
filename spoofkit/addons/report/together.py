"""Write files that belong together, with the record that holds their hashes."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from spoofkit.files import atomic_path, json_text
from spoofkit.outputs import Output, with_checksums


def write_together(output: Output, record: dict[str, Any], contents: Mapping[Path, bytes]) -> dict[str, Any]:
    """Write files and their record, which appears first."""
    whole = with_checksums(record, {path.name: sha256(data).hexdigest() for path, data in contents.items()})
    text = json_text(whole)
    _write_inside([*contents.items(), (output.record, text.encode())])
    return whole


def _write_inside(files: list[tuple[Path, bytes]]) -> None:
    """Write files that belong together: none appears before all are complete, the last first."""
    if not files:
        return
    (path, data), *others = files
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_bytes(data)
        _write_inside(others)
