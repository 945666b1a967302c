"""Facts of hundreds of thousands of audio files: read by threads, kept beside the manifest, resumed after a kill.

    data/.eval.headers.jsonl        beside data/eval.tsv; hidden, and safe to delete at any time
    5b1c90a2 {"format":3,"root":"/data/asvspoof5","fields":["n_samples",…],"libsndfile":…,"av":…}
    0f3d77e1 ["flac_E_eval/E_0009538969.flac",73512,1718000000000000000,[64000,16000,1,…]]

A journal: its header says what the facts belong to, and each line holds a file's path, its size and time of change
(ns), and its facts. A killed pass resumes where it stopped; a file of other size or time is read again. What could not
be read is not kept: the next pass asks the disk again. Facts of another root or made by another version of the decoders
are thrown away. A pass that cannot keep what it reads, such as beside another process that does, continues without.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import soundfile
from tqdm import tqdm

from spoofkit.data.audio import probe
from spoofkit.data.packed import parse_address
from spoofkit.data.stored import AudioInfo
from spoofkit.errors import SpoofkitError
from spoofkit.journal import Journal, open_journal, read_journal
from spoofkit.terminal import say, visible

FORMAT = 3  # 1: lengths as headers state them; 2: of recordings that hide others
HEADERS_AT_ONCE = 256  # files a thread reads before they are written down: less than a second's work

Fact = TypeVar("Fact")
Line = list[Any]
"""A file's path, size, time of change, and the values of its facts."""
Known = dict[str, tuple[int, int, list[Any]]]
"""Of each path: size, time of change, and the values of its facts."""


def headers_path(manifest: Path) -> Path:
    """Where the header facts of a manifest's audio are kept: `.eval.headers.jsonl` beside `eval.tsv`."""
    return manifest.with_name(f".{manifest.stem}.headers.jsonl")


def read_headers(
    root: Path, relatives: Sequence[str], cache: Path, *, workers: int = 16, name: str = "headers"
) -> list[AudioInfo | str]:
    """What the headers of files say, or why a file cannot be used.

    Args:
        root: Folder that the paths are relative to.
        relatives: Paths, or addresses of packed audio.
        cache: Where the facts are kept, see `headers_path`.
        workers: Threads that read.
        name: For the progress bar.
    """
    return read_facts(AudioInfo, probe, root, relatives, cache, workers=workers, at_once=HEADERS_AT_ONCE, name=name)


def read_facts(
    kind: type[Fact],
    examine: Callable[[Path], Fact],
    root: Path,
    relatives: Sequence[str],
    cache: Path,
    *,
    workers: int,
    at_once: int,
    name: str,
) -> list[Fact | str]:
    """Facts of files, in their order, from `cache` where it knows them and else from `examine`; or why there are none.

    Args:
        kind: The dataclass of the facts, all of whose fields are plain JSON values.
        examine: Makes them; what it raises as SpoofkitError is a file's reason.
        root: Folder that the paths are relative to.
        relatives: Paths, or addresses of packed audio, which are never kept: their shards have records.
        cache: Where the facts are kept.
        workers: Threads that read.
        at_once: Files that a thread examines before they are written down.
        name: For the progress bar.
    """
    belongs_to = {
        "format": FORMAT,
        "root": str(root),
        "fields": [field.name for field in fields(kind)],  # type: ignore[arg-type]
        "libsndfile": soundfile.__libsndfile_version__,
        "av": _av_version(),
    }
    known = _load(cache, belongs_to)
    blocks = [relatives[start : start + at_once] for start in range(0, len(relatives), at_once)]
    read_block = partial(_read_block, kind, examine, root, known)
    found: list[Fact | str] = []
    with (
        tqdm(total=len(relatives), desc=visible(name), unit="file") as bar,
        _kept(cache, belongs_to) as keep,
        _threads(workers) as pool,
    ):
        for facts, lines in pool.map(read_block, blocks):
            found += facts
            keep(lines)
            bar.update(len(facts))
    return found


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    # libsndfile and FFmpeg work outside Python's lock, and on a network disk waiting is all there is.
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # a signal does not wait for a million headers


def _read_block(
    kind: type[Fact], examine: Callable[[Path], Fact], root: Path, known: Known, relatives: Sequence[str]
) -> tuple[list[Fact | str], list[Line]]:
    """Facts of some files, and the lines that are new to the cache."""
    found: list[Fact | str] = []
    lines: list[Line] = []
    for relative in relatives:
        file = root / relative
        try:
            status = None if parse_address(relative) else os.stat(file)
        except OSError:
            status = None  # `examine` says what is wrong
        size_and_time = None if status is None else (status.st_size, status.st_mtime_ns)
        old = known.get(relative)
        if old is not None and old[:2] == size_and_time:
            found.append(kind(*old[2]))
            continue
        try:
            facts = examine(file)
        except SpoofkitError as error:
            found.append(str(error))
            continue
        found.append(facts)
        if size_and_time is not None:
            lines.append([relative, *size_and_time, list(vars(facts).values())])
    return found, lines


def _load(cache: Path, belongs_to: dict[str, Any]) -> Known:
    """What a cache holds that belongs to `belongs_to`; nothing if it is missing, of something else or unreadable."""
    try:
        contents = read_journal(cache)
    except SpoofkitError:
        return {}
    if contents.header != belongs_to:
        return {}
    return {path: (size, mtime_ns, values) for path, size, mtime_ns, values in contents.lines}


@contextmanager
def _kept(cache: Path, belongs_to: dict[str, Any]) -> Iterator[Callable[[list[Line]], None]]:
    """Give a function that adds lines to a cache; where that cannot be written, say so once and continue without it."""
    journal: Journal | None = None
    refused = False

    def keep(lines: list[Line]) -> None:
        nonlocal journal, refused
        if refused or not lines:
            return
        try:
            if journal is None:  # a pass that reads nothing new needs no disk that can be written to
                journal = stack.enter_context(
                    open_journal(cache, belongs_to, lambda contents: contents.header == belongs_to)
                )
            journal.append(*lines)
        except SpoofkitError as error:
            refused = True
            say(f"{error}; what is read now is not kept")

    stack = ExitStack()
    try:
        yield keep
    finally:
        with suppress(SpoofkitError):  # of the last fsync: what is not kept is read again
            stack.close()


def _av_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("av")
    except PackageNotFoundError:
        return "not installed"
