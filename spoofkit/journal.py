"""Journals: finished work, kept line by line, so that a killed process can be resumed.

    b1946ac9 {"part":"3/8","identity":{…}}                   the header: what the lines belong to
    591785b7 {"batch":2,"scores":{"E_0000000042":-1.25,…}}

A line is the CRC-32 of what follows it, a blank, and JSON. What the JSON means is up to the caller: parts of scores,
caches of headers, measures of an audit. Lines are only ever appended, by one process at a time. A kill loses nothing, a
power cut at most the last FSYNC_SECONDS. Only lines before the first torn or damaged one count: a journal that is
resumed is truncated there, and the rest is done again.
"""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from spoofkit.errors import SpoofkitError
from spoofkit.files import NO_ROOM, make_folder, sync
from spoofkit.lock import locked
from spoofkit.terminal import say

FSYNC_SECONDS = 5.0


@dataclass(frozen=True)
class Contents:
    """The contents of a journal, up to the first torn or damaged line."""

    header: dict[str, Any]
    """What the lines belong to; empty if there is no header, and then no lines."""
    lines: list[Any]
    n_bytes: int
    """Bytes of header and lines in the file."""
    is_whole: bool
    """Whether nothing follows them."""


class Journal:
    """A journal that this process has locked: see `open_journal`."""

    def __init__(self, path: Path, handle: IO[bytes], lines: list[Any]) -> None:
        self.lines = lines
        """Lines that it held when it was opened."""
        self._path = path
        self._handle = handle
        self._synced_at = time.monotonic()

    def append(self, *lines: Any) -> None:
        """Append lines, each a plain JSON value.

        Raises:
            SpoofkitError: the disk refuses; what was appended before is kept.
        """
        rest = memoryview(b"".join(encode(line) for line in lines))
        try:
            while rest:
                rest = rest[self._handle.write(rest) :]
            if time.monotonic() - self._synced_at >= FSYNC_SECONDS:
                self.sync()
        except OSError as error:
            raise _not_written(self._path, error) from error

    def sync(self) -> None:
        """Flush all lines to disk.

        Raises:
            OSError: the disk refuses.
        """
        os.fsync(self._handle)
        self._synced_at = time.monotonic()


def read_journal(path: Path) -> Contents:
    """Read the undamaged beginning of a journal; a missing one is empty.

    Raises:
        SpoofkitError: it cannot be read.
    """
    try:
        return parse(path.read_bytes() if path.exists() else b"")
    except OSError as error:
        raise SpoofkitError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


@contextmanager
def open_journal(path: Path, header: dict[str, Any], resumes: Callable[[Contents], bool]) -> Iterator[Journal]:
    """Lock a journal for this process while the `with` block lasts.

    Do not open the file in another way meanwhile: closing it anywhere in this process drops the lock.

    Args:
        path: The file; created with its folder if it is not there.
        header: What the lines of a new journal belong to, as plain JSON values.
        resumes: Whether to append to what is there; otherwise it is discarded. An exception from it leaves the file
            unchanged.

    Raises:
        SpoofkitError: another process has locked it, or the disk refuses.
    """
    try:
        make_folder(path.parent)
        handle = open(path, "a+b", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise _not_written(path, error) from error
    with handle, locked(handle, path, lambda: _held(path)) as note:
        if note:
            say(note)
        handle.seek(0)
        found = parse(handle.read())
        is_resumed = bool(found.header) and resumes(found)
        handle.truncate(found.n_bytes if is_resumed else 0)
        journal = Journal(path, handle, found.lines if is_resumed else [])
        if not is_resumed:
            journal.append(header)
            sync(path.parent)
        try:
            yield journal
        finally:
            try:
                journal.sync()
            except OSError as error:
                raise _not_written(path, error) from error


def encode(value: Any) -> bytes:
    """Encode a value as a line."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    line = text.encode("utf-8", "backslashreplace")  # as `json_text`
    return b"%08x %s\n" % (zlib.crc32(line), line)


def parse(data: bytes) -> Contents:
    """Parse lines up to the first torn or damaged one."""
    values: list[Any] = []
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        checksum, _, text = data[start:end].partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            break
        try:
            values.append(json.loads(text))
        except (ValueError, RecursionError):
            break
        if not isinstance(values[0], dict):
            return Contents({}, [], 0, False)
        start = end + 1
    return Contents(values[0] if values else {}, values[1:], start, start == len(data))


def _held(path: Path) -> SpoofkitError:
    return SpoofkitError(f"{path}: another process is writing this file; wait for it, or name another output")


def _not_written(path: Path, error: OSError) -> SpoofkitError:
    fix = "free some space" if error.errno in NO_ROOM else "check the folder's permissions"
    return SpoofkitError(f"{path}: cannot be written ({error.strerror}); {fix}, then the same command resumes")
