"""Make the planned files: cut, copy or synthesize speech, then disguise, code and write it as FLAC.

A chunk of files is the unit of work. Chunks are cut from the plan without regard to the number of workers, so the
bytes are the same for any `--jobs`; a file that exists is complete, so an interrupted build resumes where it was.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import compress
import disguise
import human
import numpy as np
import soundfile
import texts
from attacks import BY_LABEL, Attack
from plan import BONAFIDE, PlannedFile
from synthesize import ENGINES
from tqdm import tqdm

from spoofkit.errors import SpoofkitError

CHUNK = 25  # files; small enough to share out, large enough to pay for a synthesizer's start
CHARACTERS_PER_SECOND = 15
MOST_ROUNDS = 6  # how often a text that came out too short is tried again, longer
_DISGUISE, _COPY, _TEXT, _STYLE, _BATCH = range(5)  # purposes of random draws; each has its own stream


@dataclass(frozen=True)
class Studio:
    """The data that every chunk needs."""

    out: Path
    seed: int
    speeches: dict[str, human.Speech]
    texts: texts.Texts
    root: Path | None
    """Folder of the unpacked Debian packages."""


def chunks_of(files: Iterable[PlannedFile]) -> list[list[PlannedFile]]:
    """Cut a plan into chunks of one group each."""
    groups: dict[tuple[str, str], list[PlannedFile]] = {}
    for file in files:
        groups.setdefault((file.set_name, file.group), []).append(file)
    return [group[start : start + CHUNK] for group in groups.values() for start in range(0, len(group), CHUNK)]


def make_chunk(files: list[PlannedFile], studio: Studio) -> int:
    """Make the missing files of a chunk; return how many files the chunk has."""
    missing = [file for file in files if not (studio.out / file.path).exists()]
    if not missing:
        return len(files)
    group = files[0].group
    attack = None if group == BONAFIDE else BY_LABEL[group]
    if attack is not None and attack.copy is None:
        # A batch is always synthesized as a whole, because a synthesizer's output depends on its earlier output.
        spoken = dict(zip(files, _spoken(files, attack, studio), strict=True))
        waves: Iterable[np.ndarray] = (spoken[file] for file in missing)
    else:
        waves = (_from_human(file, attack, studio) for file in missing)
    for file, wave_S in zip(missing, waves, strict=True):
        rng = _rng(studio, file, _DISGUISE)
        pcm_S = disguise.finish(disguise.cut(wave_S, file.n_samples, rng), rng)
        if file.codec is not None:
            decoded_S = compress.through(file.codec, pcm_S / 32768)
            pcm_S = np.round(np.clip(decoded_S, -1, 1) * 32767).astype(np.int16)
        _write(studio.out / file.path, pcm_S)
    return len(files)


def _rng(studio: Studio, file: PlannedFile, purpose: int) -> np.random.Generator:
    return np.random.default_rng([studio.seed, human.SETS.index(file.set_name), file.index, purpose])


def _from_human(file: PlannedFile, attack: Attack | None, studio: Studio) -> np.ndarray:
    speech_S = studio.speeches[file.voice].read(file.start, file.end)
    if attack is None:
        return speech_S
    assert attack.copy is not None
    rng = _rng(studio, file, _COPY)
    room = len(speech_S) - file.n_samples - 2 * disguise.MARGIN
    start = int(rng.integers(room + 1))
    piece_S = speech_S[start : start + file.n_samples + 2 * disguise.MARGIN]
    return attack.copy(piece_S, rng)


def _spoken(files: list[PlannedFile], attack: Attack, studio: Studio) -> list[np.ndarray]:
    """Synthesize texts long enough for each file; retry those that are too short with more text."""
    waves: dict[int, np.ndarray] = {}
    voices = {voice.name: voice for voice in attack.voices}
    for attempt in range(MOST_ROUNDS):
        missing = [file for file in files if file.index not in waves]
        if not missing:
            break
        sentences, options = [], []
        for file in missing:
            n_characters = int(CHARACTERS_PER_SECOND * (file.n_samples / disguise.SAMPLE_RATE + 0.4) * 1.3**attempt)
            sentences.append(
                texts.draw(studio.texts[file.set_name, file.language], n_characters, _rng(studio, file, _TEXT))
            )
            option = {**voices[file.voice].options, **attack.style(_rng(studio, file, _STYLE))}
            if attack.engine == "espeak":
                option["voice"] = f"{file.language}+{option['variant']}"
            options.append(option)
        batch_seed = int(_rng(studio, missing[0], _BATCH).integers(2**31)) + attempt
        for file, wave_S in zip(
            missing, ENGINES[attack.engine](sentences, options, batch_seed, studio.root), strict=True
        ):
            speech_S = disguise.active_speech(wave_S)
            if len(speech_S) >= file.n_samples + 2 * disguise.MARGIN:
                waves[file.index] = speech_S
    short = [file.utt_id for file in files if file.index not in waves]
    if short:
        raise SpoofkitError(
            f"{files[0].group} ({attack.description}): {len(short)} of {len(files)} texts gave too little speech, "
            f"first {short[0]}; check the synthesizer"
        )
    return [waves[file.index] for file in files]


def _write(path: Path, pcm_S: np.ndarray) -> None:
    # No fsync for each of thousands of files: the stamp that says "complete" comes after all of them.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.flac")
    try:
        soundfile.write(temporary, pcm_S, disguise.SAMPLE_RATE, subtype="PCM_16")
        os.replace(temporary, path)
    except (OSError, soundfile.LibsndfileError) as error:
        raise SpoofkitError(
            f"{path}: cannot be written ({error}); free some disk space and run again to resume"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def workers(jobs: int) -> Iterator[Executor | None]:
    """Start `jobs` processes for `in_parallel`; None for a single job, which then runs in this process."""
    if jobs == 1:
        yield None
        return
    # spawn: a fork of a process that has used threads (BLAS, tqdm) may hang.
    with ProcessPoolExecutor(max_workers=jobs, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is killed, so that no worker waits for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_parallel(
    pool: Executor | None, function: Callable[..., Any], items: list[Any], *arguments: Any
) -> Iterator[tuple[Any, Any]]:
    """Yield (item, function(item, *arguments)) as they finish."""
    if pool is None:
        for item in items:
            yield item, function(item, *arguments)
        return
    futures = {pool.submit(function, item, *arguments): item for item in items}
    for future in as_completed(futures):
        yield futures[future], future.result()


def make_files(files: list[PlannedFile], studio: Studio, pool: Executor | None) -> None:
    """Make all planned files, with a progress bar."""
    for file in files:
        (studio.out / file.path).parent.mkdir(parents=True, exist_ok=True)
    # Slow chunks first, so that none is the last to run.
    chunks = sorted(chunks_of(files), key=lambda chunk: _cost(chunk[0].group), reverse=True)
    with tqdm(total=len(files), desc="speech", unit="file") as bar:
        for _, n_made in in_parallel(pool, make_chunk, chunks, studio):
            bar.update(n_made)


def _cost(group: str) -> int:
    attack = BY_LABEL.get(group)
    return {"piper": 3, "hibari": 3, "festival": 2}.get(attack.engine, 1) if attack else 0
