"""Writing files so that a file that exists is complete, and reading small structured ones.

Every output goes to a temporary name in the folder of its final name, is fsynced and then renamed, and the folder is
fsynced: an interrupt, a kill, a full disk or a power cut leaves either the old file or the new one, never half of one.

A process locks what it is writing, and the kernel drops the lock when the process dies, however it dies. So a temporary
file without a lock is a leftover, and one that another process is writing is not touched; where the file system has no
locks, nothing is removed.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spoofkit.errors import SpoofkitError
from spoofkit.suggestions import nearest_name
from spoofkit.terminal import visible

TOKEN = "[0-9a-f]{8}"  # in temporary names
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Some network and FUSE file systems cannot sync a folder, and say one of these.
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise SpoofkitError if the file `path` exists and may not be replaced; a folder or a device never is."""
    if path.is_dir():
        raise SpoofkitError(f"{path}: is a folder, expected the name of a file; name a file inside it")
    if path.exists() and not path.is_file():
        raise SpoofkitError(f"{path}: is a device or a pipe, expected the name of a file; name a file")
    if path.exists() and not overwrite:
        raise SpoofkitError(f"{path}: exists already; pass --overwrite to recreate it, or name another output")


@contextmanager
def atomic_path(path: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path that becomes the file `path` when the block ends without an exception.

    Args:
        path: Final name; its parent folders are created.
        overwrite: Replace an existing file; otherwise it is refused before any work is done.

    Raises:
        SpoofkitError: `path` exists and `overwrite` is false, it is a folder, or the disk refuses (full, read-only,
            no permission).
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    with _temporary_beside(path) as temporary:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces the folder `path` when the block ends.

    A folder cannot be renamed over a full one, so for an instant the old one has a name that ends in
    `.old`; `remove_leftovers` restores it if the process died at that moment.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or path.is_symlink()):
        raise SpoofkitError(f"{path}: is not a folder, expected a folder or a new name; move it away")
    with _temporary_beside(path, is_folder=True) as temporary:
        yield temporary
        for inside in temporary.rglob("*"):
            sync(inside)
        sync(temporary)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
        if path.exists():
            os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except OSError:
            if aside.exists():
                os.rename(aside, path)
            raise
        # Only a name that survives a power cut may cost the old folder its bytes.
        sync(path.parent)
        remove(aside)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill halfway leaves no incomplete folder under its name.

    Raises:
        SpoofkitError: the disk refuses.
    """
    try:
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        os.rename(path, aside)
        sync(path.parent)
    except OSError as error:
        raise write_error(path, error, "removed") from error
    remove(aside)


@contextmanager
def _temporary_beside(path: Path, is_folder: bool = False) -> Iterator[Path]:
    """Yield an empty file, or folder, beside `path`, and remove it at the end if it is still there.

    What earlier, killed processes left of writing `path` is removed first; each folder is searched once a process.
    """
    own = re.compile(rf"\.{re.escape(path.stem)}\.{TOKEN}\.tmp{re.escape(path.suffix)}")
    try:
        make_folder(path.parent)
        for name in filter(own.fullmatch, _temporary_names(path.parent.resolve())):
            _remove_unless_held(path.parent / name)
        # The suffix stays last because matplotlib chooses its format by it.
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
        with ExitStack() as stack:
            stack.callback(remove, temporary)  # first: a signal may stop the program as soon as it is there
            stack.callback(os.close, _make_held(temporary, is_folder))
            yield temporary
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError, done: str = "written") -> SpoofkitError:
    """Return the error for a disk that refuses to write: full, read-only, no permission."""
    fix = "free some space" if error.errno in NO_ROOM else "check the folder's permissions"
    return SpoofkitError(
        f"{path}: cannot be {done} ({error.strerror or error}); the previous file is intact; "
        f"{fix} and run the same command again"
    )


def make_folder(path: Path) -> None:
    """Create a folder and its parents, durably: a power cut does not undo it.

    Raises:
        OSError: the disk refuses.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def write_text(path: Path | str, text: str, overwrite: bool = False) -> None:
    """Write `text` as UTF-8 to `path`, completely or not at all."""
    with atomic_path(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any, overwrite: bool = False) -> None:
    """Write a value as `json_text` formats it."""
    write_text(path, json_text(value), overwrite)


def json_text(value: Any) -> str:
    """Format a value as indented JSON; non-finite numbers are refused because JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Bytes of a file name that are no UTF-8 become escapes, which JSON reads as the same name.
    return text.encode("utf-8", "backslashreplace").decode()


def read_text(path: Path | str) -> str:
    """Read a UTF-8 file, or raise SpoofkitError saying why it cannot be read; every line end becomes `\\n`."""
    return read_utf8(path).decode("utf-8")


def read_utf8(path: Path | str) -> bytes:
    """Read a UTF-8 file as checked bytes: a list of a million lines needs no str."""
    try:
        data = Path(path).read_bytes()
        if not data.isascii():
            data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError):
            line = data.count(b"\n", 0, error.start) + 1
            raise SpoofkitError(f"{path}: line {line} is not UTF-8 text, expected UTF-8; convert the file") from error
        raise read_error(path, error) from error
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def read_error(path: Path | str, error: OSError) -> SpoofkitError:
    """Return the error for a file that cannot be read; for a missing one it names the nearest existing name."""
    instead = nearest_name(path) if isinstance(error, FileNotFoundError) else ""
    return SpoofkitError(f"{path}: cannot be read ({error.strerror}){instead}; check the name")


def lines_with_other_counts(data: bytes, character: bytes, count: int) -> npt.NDArray[np.int64]:
    """Return the indices of the lines in which a character does not occur `count` times; the last may lack a newline.

    >>> lines_with_other_counts(b"a.b\\nc\\n..", b".", 1).tolist()
    [1, 2]
    """
    others = bytes(set(range(256)) - set(b"\n" + character))
    marks = np.frombuffer(data.translate(None, others), dtype=np.uint8)  # a tenth of a list; quicker than any mask
    if data and not data.endswith(b"\n"):
        marks = np.append(marks, ord("\n"))
    return np.flatnonzero(np.diff(np.flatnonzero(marks == ord("\n")), prepend=-1) != count + 1)


def read_json(path: Path | str) -> Any:
    """Read a JSON file, or raise SpoofkitError saying where it is broken."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, brackets in brackets
        raise SpoofkitError(f"{path}: not valid JSON ({error}); recreate it with the command that wrote it") from error


def table_fault(name: str, to_file: bool, is_csv: bool = False) -> str:
    """Return why a table cannot hold a name, on stdout or in a file; empty if it can.

    Args:
        name: The name.
        to_file: Whether the table is a file, which is UTF-8; stdout takes the bytes of any name.
        is_csv: Whether the file is CSV, which quotes tabs and line breaks.
    """
    # What os.fsdecode makes of bytes that are no UTF-8 is written to stdout as those bytes; a file is UTF-8.
    if not re.search(r"[\udc80-\udcff]" if is_csv else r"[\t\r\n\udc80-\udcff]" if to_file else r"[\t\r\n]", name):
        return ""
    expected = "UTF-8" if is_csv else f"{'UTF-8' if to_file else 'one'} without tabs and line breaks"
    return f"{visible(name)}: a table cannot hold this name, expected {expected}; rename the file"


def sha256_or_dash(path: Path | str) -> str:
    """Return the SHA-256 of a file among many; `-` if it cannot be read, which is no reason to stop."""
    try:
        return file_sha256(path) if Path(path).is_file() else "-"
    except SpoofkitError:
        return "-"


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise read_error(path, error) from error
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to disk.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in CANNOT_SYNC):
            raise
    finally:
        os.close(descriptor)


# ---- Temporary names, and what killed processes left under them


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove what killed processes were writing in `folder`, and restore a folder that was being replaced.

    Args:
        folder: Where to look; nothing below it.
        names: Regular expression for the final names of the caller's own files.
    """
    pattern = re.compile(rf"\.({names})\.{TOKEN}\.(tmp|old)(\..*)?")
    for left in sorted(folder.glob(".*")):
        match = pattern.fullmatch(left.name)
        if match and match[2] == "old" and not (folder / match[1]).exists():
            os.rename(left, folder / match[1])
        elif match:
            _remove_unless_held(left)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _make_held(temporary: Path, is_folder: bool) -> int:
    """Make an empty file or folder, and return a descriptor that locks it."""
    while True:
        if is_folder:
            temporary.mkdir()
        else:
            temporary.touch(exist_ok=False)
        descriptor = os.open(temporary, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if temporary.exists():  # else taken for a leftover before it was held
            return descriptor
        os.close(descriptor)


@lru_cache(1024)
def _temporary_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the temporary files in a folder when it is first searched."""
    pattern = re.compile(rf"\..+\.{TOKEN}\.tmp(\..*)?")
    with suppress(OSError), os.scandir(folder) as entries:
        return tuple(entry.name for entry in entries if pattern.fullmatch(entry.name))
    return ()


def _remove_unless_held(left: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(left)
        finally:
            os.close(descriptor)
