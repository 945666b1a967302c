"""Find the recordings that a command line names: files, folders, globs, and `-` for a list on stdin."""

import fnmatch
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from spoofkit.data.audio import EXTENSIONS, is_audio_name
from spoofkit.data.folders import files_below
from spoofkit.errors import SpoofkitError

STDIN = "-"
LOOSE = Path("-")
"""Path of the manifest of loose files."""


def find_files(inputs: list[Path]) -> Iterator[str]:
    """Yield the files that arguments name, each once, in the order given; those of a folder or glob sorted.

    Names on stdin, one a line, are yielded as they come.

    Raises:
        SpoofkitError: a folder without recordings, a glob that matches nothing, or stdin named twice. A missing file is
            only found when it is read.
    """
    if [str(path) for path in inputs].count(STDIN) > 1:
        raise SpoofkitError("-: found - (paths on stdin) twice, expected it once; remove one")
    # Not inside the generator: an error must come before anything is scored.
    named = [None if str(path) == STDIN else expand(path) for path in inputs]
    return _some(each_once(file for files in named for file in (_on_stdin() if files is None else files)))


def expand(path: Path) -> list[str]:
    """Return the recordings that a path means: those of a folder or a glob, sorted; otherwise the path itself.

    Raises:
        SpoofkitError: a folder without recordings, or a glob that matches nothing.
    """
    if path.is_dir():
        # A broken link is included; its row gets an error.
        inside = sorted(str(file) for file in files_below(path) if is_audio_name(file.name))
        if not inside:
            raise SpoofkitError(f"{path}: no audio files inside, expected some of {', '.join(EXTENSIONS)}")
        return inside
    if glob.has_magic(str(path)) and not path.exists():
        # A broken link is included, as above.
        found = map(Path, _matching(path))
        matching = sorted(str(file) for file in found if file.is_file() or (file.is_symlink() and not file.exists()))
        if not matching:
            raise SpoofkitError(f"{path}: matches no file, expected some recordings; check the pattern")
        return matching
    return [str(path)]


def _matching(pattern: Path) -> Iterator[str]:
    """Yield the files that a pattern matches; like `files_below`, `**` does not follow linked folders."""
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
        raise SpoofkitError("-: stdin is closed, expected one path per line; check the command that writes them")
    # Unbuffered: each name is available at once, and no waiting thread holds a lock at exit.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as lines:
        for line in lines:
            if b"\0" in line:
                raise SpoofkitError(
                    "-: found names separated by NUL on stdin, expected one per line; remove -print0 or -z from the "
                    "command that writes them"
                )
            if name := line.rstrip(b"\r\n"):
                yield os.fsdecode(name)


def each_once(files: Iterable[str]) -> Iterator[str]:
    """Yield each name once, in the order of its first."""
    seen = set()
    for file in files:
        if file not in seen:
            seen.add(file)
            yield file


def _some(files: Iterator[str]) -> Iterator[str]:
    first = next(files, None)
    if first is None:
        raise SpoofkitError("-: found no paths on stdin, expected one per line; check the command that writes them")
    yield first
    yield from files
