"""Facts of hundreds of thousands of audio files: read by threads, cached beside the manifest, resumed after a kill.

    data/.eval.headers.jsonl        beside data/eval.tsv; hidden, and safe to delete at any time
    5b1c90a2 {"format":3,"root":"/data/asvspoof5","fields":["n_samples",…],"libsndfile":…,"av":…}
    0f3d77e1 ["flac_E_eval/E_0009538969.flac",73512,1718000000000000000,[64000,16000,1,…]]

The cache is a journal: its header says what the facts belong to, and each line holds a file's path, its size and
modification time (ns), and its facts. A killed pass resumes where it stopped; a file whose size or time differs is read
again. Errors are not cached: the next pass reads the file again. Facts of another root or of another version of the
decoders are discarded. A pass that cannot write the cache, because another process does, continues without it.
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
HEADERS_AT_ONCE = 256  # files a thread reads before they are cached: less than a second's work

Fact = TypeVar("Fact")
Line = list[Any]
"""A file's path, size, modification time, and the values of its facts."""
Known = dict[str, tuple[int, int, list[Any]]]
"""For each path its size, modification time, and the values of its facts."""


def headers_path(manifest: Path) -> Path:
    """Return the path of the header cache of a manifest: `.eval.headers.jsonl` beside `eval.tsv`."""
    return manifest.with_name(f".{manifest.stem}.headers.jsonl")


def read_headers(
    root: Path, relatives: Sequence[str], cache: Path, *, workers: int = 16, name: str = "headers"
) -> list[AudioInfo | str]:
    """Read the headers of files; for a file that cannot be used, return why.

    Args:
        root: Folder that the paths are relative to.
        relatives: Paths, or addresses of packed audio.
        cache: Path of the cache, see `headers_path`.
        workers: Number of threads.
        name: Label of the progress bar.
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
    """Return the facts of files, from `cache` where it has them, else from `examine`; or why there are none.

    Args:
        kind: The dataclass of the facts, all of whose fields are plain JSON values.
        examine: Reads the facts of a file; a SpoofkitError that it raises becomes that file's reason.
        root: Folder that the paths are relative to.
        relatives: Paths, or addresses of packed audio, which are never cached: their shards have records.
        cache: Path of the cache.
        workers: Number of threads.
        at_once: Number of files that a thread examines before they are cached.
        name: Label of the progress bar.
    """
    made_from = {
        "format": FORMAT,
        "root": str(root),
        "fields": [field.name for field in fields(kind)],  # type: ignore[arg-type]
        "libsndfile": soundfile.__libsndfile_version__,
        "av": _av_version(),
    }
    known = _load(cache, made_from)
    blocks = [relatives[start : start + at_once] for start in range(0, len(relatives), at_once)]
    read_block = partial(_read_block, kind, examine, root, known)
    found: list[Fact | str] = []
    with (
        tqdm(total=len(relatives), desc=visible(name), unit="file") as bar,
        _kept(cache, made_from) as keep,
        _threads(workers) as pool,
    ):
        for facts, lines in pool.map(read_block, blocks):
            found += facts
            keep(lines)
            bar.update(len(facts))
    return found


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    # libsndfile and FFmpeg release Python's lock, and on a network disk nearly all time is waiting.
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # a signal does not wait for a million headers


def _read_block(
    kind: type[Fact], examine: Callable[[Path], Fact], root: Path, known: Known, relatives: Sequence[str]
) -> tuple[list[Fact | str], list[Line]]:
    """Return the facts of some files, and the lines that are new to the cache."""
    found: list[Fact | str] = []
    lines: list[Line] = []
    for relative in relatives:
        file = root / relative
        try:
            status = None if parse_address(relative) else os.stat(file)
        except OSError:
            status = None  # `examine` reports what is wrong
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


def _load(cache: Path, made_from: dict[str, Any]) -> Known:
    """Read the facts of a cache with that header; none if it is missing, unreadable or has another header."""
    try:
        contents = read_journal(cache)
    except SpoofkitError:
        return {}
    if contents.header != made_from:
        return {}
    return {path: (size, mtime_ns, values) for path, size, mtime_ns, values in contents.lines}


@contextmanager
def _kept(cache: Path, made_from: dict[str, Any]) -> Iterator[Callable[[list[Line]], None]]:
    """Yield a function that adds lines to a cache; if it cannot be written, say so once and continue without it."""
    journal: Journal | None = None
    refused = False

    def keep(lines: list[Line]) -> None:
        nonlocal journal, refused
        if refused or not lines:
            return
        try:
            if journal is None:  # a pass that reads nothing new needs no writable disk
                journal = stack.enter_context(
                    open_journal(cache, made_from, lambda contents: contents.header == made_from)
                )
            journal.append(*lines)
        except SpoofkitError as error:
            refused = True
            say(f"{error}; headers are read without a cache")

    stack = ExitStack()
    try:
        yield keep
    finally:
        with suppress(SpoofkitError):  # of the last fsync: what is lost is read again
            stack.close()


def _av_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("av")
    except PackageNotFoundError:
        return "not installed"
