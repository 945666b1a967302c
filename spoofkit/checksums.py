"""SHA-256 of a folder of weights: what identifies it, and whether it is still what was written.

Each folder that spoofkit writes weights to has a SHA256SUMS. It covers all files in the folder that affect a score, as
`sha256sum -c SHA256SUMS` reads it. The hash of a folder is that of the same list, whether the file is there or not.
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
"""Files that only a folder written by spoofkit has."""
SETTLED_SECONDS = 2.0
"""After this time a change of a file shows in its modification time, however coarse the file system's clock."""
_hashed: dict[tuple[int, ...], str] = {}
_warned: set[str] = set()


def folder_sha256(folder: Path, without: str = "") -> str:
    """Hash the names and bytes of all files of a folder, to identify a model.

    When and where it was trained is left out: see spoofkit.stages. Links to files and folders are followed: what they
    lead to determines the scores, and the hub's cache consists of links.

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
    """Refuse a folder whose files are not those that spoofkit wrote; its subfolders are checked too.

    A folder that spoofkit wrote before there were checksums is read with a warning, once a process; a folder of other
    programs is read without one.

    Raises:
        SpoofkitError: a file is missing, damaged or was changed.
    """
    inside = sorted(path.parent for path in folder.glob(f"*/{SUMS}"))
    for part in (folder, *inside):
        if (part / SUMS).is_file():
            _require_as_written(part)
        elif any((part / name).is_file() for name in OURS) and not _warned:
            _warned.add(str(part))
            say(f"{part}: has no {SUMS}, so damage to its files would not be detected")


def _require_as_written(folder: Path) -> None:
    try:
        sums = parse(read_text(folder / SUMS))
    except ValueError as error:
        raise SpoofkitError(f"{folder / SUMS}: is damaged, expected one checksum per line; copy it again") from error
    # Nothing is opened because a file names it.
    there = _files_below(folder, "")
    for name, digest in sums.items():
        if name not in there:
            raise SpoofkitError(f"{folder}: has no {name}, which its {SUMS} names; copy the folder again")
        if _sha256_once(there[name]) != digest:
            raise SpoofkitError(
                f"{folder / name}: its SHA-256 differs from that in {SUMS}: it is damaged or was changed; copy the "
                f"folder again, or remove {folder / SUMS} if you changed the file yourself"
            )


def as_text(sums: dict[str, str]) -> str:
    """Format checksums by name as `sha256sum` writes them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def parse(text: str) -> dict[str, str]:
    """Parse what `as_text` wrote.

    Raises:
        ValueError: it is empty, or not exactly what `as_text` writes.
    """
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in text.splitlines())}
    # A line may be damaged so that it still looks like one.
    if not sums or as_text(sums) != text:
        raise ValueError("not what was written")
    return sums


def _sha256_once(path: Path) -> str:
    """Return `file_sha256`, computed once a process: loading a model needs it, and so does the record of its scores."""
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
    """Return the files that count, by name, sorted."""
    paths = sorted(path for path in _walk(folder) if path.relative_to(folder).parts[0] != without)
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        raise SpoofkitError(f"{folder}: is a link to a folder that contains it, which never ends; remove the link")
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path, (*above, real))
        elif path.is_file() and path.name not in NOT_COVERED:
            yield path
