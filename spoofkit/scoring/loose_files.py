"""Which recordings a command line names: files, folders, globs, and `-` for a list on stdin."""

import fnmatch
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import polars as pl

from spoofkit.data.audio import EXTENSIONS, is_audio_name
from spoofkit.data.folders import files_below
from spoofkit.data.manifest import UNKNOWN_LENGTH, Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.files import tsv_fault
from spoofkit.terminal import visible

T = TypeVar("T")

STDIN = "-"
LOOSE = Path("-")
"""Path of the manifest that `loose_manifest` makes."""


def find_files(inputs: list[Path]) -> Iterator[str]:
    """The files that arguments name, each once, in the order given; a folder's and a glob's sorted.

    Names on stdin, one a line, are taken as they come.

    Raises:
        SpoofkitError: a folder without recordings, a glob that matches nothing, or stdin named twice. That a file is
            missing is found when it is read.
    """
    if [str(path) for path in inputs].count(STDIN) > 1:
        raise SpoofkitError("-: found - (paths on stdin) twice, expected it once; leave the other out")
    # What can be refused is refused before anything is scored.
    named = [None if str(path) == STDIN else _expanded(path) for path in inputs]
    return _each_once(file for files in named for file in (_on_stdin() if files is None else files))


def in_chunks(files: Iterable[T], n: int) -> Iterator[list[T]]:
    """So many at a time; one at a time they are handed on as they come."""
    files = iter(files)
    while chunk := list(islice(files, n)):
        yield chunk


def loose_manifest(files: Iterable[str]) -> Manifest:
    """Make up a manifest for files, in the order given: nothing is known of them.

    A name that a table cannot hold stands there with escapes, and in the column `fault` why the file is not read.

    Raises:
        SpoofkitError: two names would be the same there.
    """
    names = list(files)
    shown = [visible(name) if tsv_fault(name, to_file=True) else name for name in names]
    if len(set(shown)) < len(shown):
        twice = next(name for name in shown if shown.count(name) > 1)
        raise SpoofkitError(f"{twice}: two files would be called so in the table; rename one of them")
    faults = [tsv_fault(name, to_file=True) for name in names]
    table = pl.DataFrame({"utt_id": shown, "path": shown, "n_samples": [UNKNOWN_LENGTH] * len(names), "fault": faults})
    blank = [pl.lit("-").alias(name) for name in ("key", "speaker", "attack", "codec")]
    return Manifest(LOOSE, Path(), table.with_columns(blank))


def _expanded(path: Path) -> list[str]:
    if path.is_dir():
        # A link that leads nowhere is taken, and its row says what is wrong.
        inside = sorted(str(file) for file in files_below(path) if is_audio_name(file.name))
        if not inside:
            raise SpoofkitError(f"{path}: no audio files inside, expected some of {', '.join(EXTENSIONS)}")
        return inside
    if glob.has_magic(str(path)) and not path.exists():
        matching = sorted(file for file in _matching(path) if Path(file).is_file())
        if not matching:
            raise SpoofkitError(f"{path}: matches no file, expected some recordings; check the pattern")
        return matching
    return [str(path)]


def _matching(pattern: Path) -> Iterator[str]:
    """What a pattern matches; `**` enters no linked folder, as nothing does that looks for files below a folder."""
    n_plain = next(n for n, part in enumerate(pattern.parts) if glob.has_magic(part))
    if "**" not in pattern.parts[n_plain:]:
        return iter(glob.glob(str(pattern)))
    folder, below = Path(*pattern.parts[:n_plain]), pattern.parts[n_plain:]
    return (str(file) for file in files_below(folder) if _matches(file.relative_to(folder).parts, below))


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not (parts and pattern):
        return not parts and set(pattern) <= {"**"}
    if pattern[0] == "**":
        is_below = not parts[0].startswith(".") and _matches(parts[1:], pattern)
        return is_below or _matches(parts, pattern[1:])
    is_hidden = parts[0].startswith(".") and not pattern[0].startswith(".")
    return not is_hidden and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _on_stdin() -> Iterator[str]:
    if sys.stdin is None:
        raise SpoofkitError("-: stdin is closed, expected paths on it, one a line; see what was to write them")
    # Unbuffered: a name is there as soon as its line is, and at exit no lock of a waiting thread is left.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as lines:
        for line in lines:
            if b"\0" in line:
                raise SpoofkitError(
                    "-: found names separated by NUL on stdin, expected one a line; leave out -print0 or -z of what "
                    "writes them"
                )
            if name := line.rstrip(b"\r\n"):
                yield os.fsdecode(name)


def _each_once(files: Iterable[str]) -> Iterator[str]:
    seen = set()
    for file in files:
        if file not in seen:
            seen.add(file)
            yield file
    if not seen:
        raise SpoofkitError("-: found no paths on stdin, expected one a line; see what was to write them")
