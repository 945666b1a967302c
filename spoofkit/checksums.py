"""What a folder of weights is known by, and whether it is still what was written: SHA-256 of its files.

SHA256SUMS stands in each folder that spoofkit writes weights to and covers all files in it that make a score, as
`sha256sum -c SHA256SUMS` reads it. The hash of a folder is that of the same list, whether it stands there or not.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_text, text_sha256
from spoofkit.stages import FILE as STAGES
from spoofkit.terminal import say

SUMS = "SHA256SUMS"
NOT_COVERED = (STAGES, SUMS)
OURS = (STAGES, "model.json")
"""What tells a folder that spoofkit wrote from one of others."""
SETTLED_SECONDS = 2.0
"""After so long a change of a file shows in its time, however coarse the clock of the file system."""
_hashed: dict[tuple[int, ...], str] = {}
_remarked: set[str] = set()


def folder_sha256(folder: Path, without: str = "") -> str:
    """One hash over the names and bytes of all files of a folder, so that a model is known by it.

    When and where it was trained is left out: see spoofkit.stages. Links are followed, to files and to folders: what
    they lead to makes the scores, and the hub's cache consists of links.

    Args:
        folder: The folder.
        without: A folder in it that is left out.

    Raises:
        SpoofkitError: a file cannot be read, or a link leads to a folder that it lies in.
    """
    sums = {name: _sha256_once(path) for name, path in _files_below(folder, without).items()}
    return text_sha256("\n".join(f"{name} {digest}" for name, digest in sums.items()))


def write_sums(folder: Path, without: str = "") -> None:
    """Write the checksums of a folder that is being made, as the last of its files; see `folder_sha256`."""
    sums = {name: file_sha256(path) for name, path in _files_below(folder, without).items()}
    (folder / SUMS).write_text(as_text(sums), encoding="utf-8")


def require_intact(folder: Path) -> None:
    """Refuse a folder whose files are not those that spoofkit wrote; the folders in it are looked at too.

    A folder of ours from before there were checksums is read with a remark, once a process; one of others without.

    Raises:
        SpoofkitError: a file is missing, damaged or was changed.
    """
    inside = sorted(path.parent for path in folder.glob(f"*/{SUMS}"))
    for part in (folder, *inside):
        if (part / SUMS).is_file():
            _require_as_written(part)
        elif any((part / name).is_file() for name in OURS) and not _remarked:
            _remarked.add(str(part))
            say(f"{part}: has no {SUMS}, so damage to its files may go unnoticed")


def _require_as_written(folder: Path) -> None:
    try:
        sums = parse(read_text(folder / SUMS))
    except ValueError as error:
        raise SpoofkitError(f"{folder / SUMS}: is damaged, expected a checksum a line; copy it again") from error
    # Nothing is opened because its name stands in a file.
    there = _files_below(folder, "")
    for name, digest in sums.items():
        if name not in there:
            raise SpoofkitError(f"{folder}: has no {name}, which its {SUMS} names; copy the folder again")
        if _sha256_once(there[name]) != digest:
            raise SpoofkitError(
                f"{folder / name}: its SHA-256 is not that of {SUMS}, so it is damaged or was changed; copy the folder "
                f"again, or remove {folder / SUMS} if you changed the file yourself"
            )


def as_text(sums: dict[str, str]) -> str:
    """Checksums by name, as `sha256sum` writes them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def parse(text: str) -> dict[str, str]:
    """Read them back.

    Raises:
        ValueError: it is empty, or not exactly what `as_text` writes.
    """
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in text.splitlines())}
    # A line may be damaged so that it still looks like one.
    if not sums or as_text(sums) != text:
        raise ValueError("not what was written")
    return sums


def _sha256_once(path: Path) -> str:
    """As `file_sha256`, read once a process: loading a model asks for it, and so does its identity."""
    try:
        found = path.stat()
    except OSError:
        return file_sha256(path)  # which says why
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if key not in _hashed:
        digest = file_sha256(path)
        if abs(time.time() - found.st_ctime) < SETTLED_SECONDS:
            return digest
        _hashed[key] = digest
    return _hashed[key]


def _files_below(folder: Path, without: str) -> dict[str, Path]:
    """The files that count, by name, sorted."""
    paths = sorted(path for path in _walk(folder) if path.relative_to(folder).parts[0] != without)
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        raise SpoofkitError(f"{folder}: is a link to a folder that it lies in, so it has no end; remove the link")
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path, (*above, real))
        elif path.is_file() and path.name not in NOT_COVERED:
            yield path
