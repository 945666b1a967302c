"""Temporary names under which outputs are written, and removing what killed processes left under them.

A process locks what it is writing, and the kernel drops the lock when the process dies, however it dies. So a temporary
file without a lock is a leftover, and one that another process is writing is not touched; where the file system has no
locks, nothing is removed.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

TOKEN = "[0-9a-f]{8}"


@contextmanager
def temporary_beside(path: Path, is_folder: bool = False) -> Iterator[Path]:
    """Yield an empty file, or folder, beside `path`, and remove it at the end if it is still there.

    What an earlier, killed process left of writing `path` is removed first.

    Raises:
        OSError: the disk refuses.
    """
    remove_leftovers_of(path)
    temporary, descriptor = _made(path, is_folder)
    try:
        yield temporary
    finally:
        os.close(descriptor)
        remove(temporary)


def remove_leftovers_of(path: Path) -> None:
    """Remove what killed processes left of writing `path`; each folder is searched once a process."""
    own = re.compile(rf"\.{re.escape(path.stem)}\.{TOKEN}\.tmp{re.escape(path.suffix)}")
    for name in _seen_in(path.parent.resolve()):
        if own.fullmatch(name):
            _remove_unless_held(path.parent / name)


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


def _made(path: Path, is_folder: bool) -> tuple[Path, int]:
    while True:
        # The suffix stays last because matplotlib chooses its format by it.
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
        if is_folder:
            temporary.mkdir()
        else:
            temporary.touch(exist_ok=False)
        descriptor = os.open(temporary, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if temporary.exists():  # else taken for a leftover before it was held
            return temporary, descriptor
        os.close(descriptor)


@lru_cache(1024)
def _seen_in(folder: Path) -> tuple[str, ...]:
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
