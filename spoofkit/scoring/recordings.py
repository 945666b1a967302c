"""Scoring recordings one by one as they are decoded: loose files, and those of a manifest that are cut into windows.

Threads decode ahead while the model computes. On a CPU each recording is a batch, which is fastest there; on a GPU
those of a chunk are sorted by length and padded to batches. What cannot be scored has a reason instead of a score.
Nothing is written here.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.dataset import Item, batches_by_length, collate
from spoofkit.data.loading import require_usable_length
from spoofkit.data.manifest import UNKNOWN_LENGTH
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.models.detector import Detector
from spoofkit.models.device import memory_advice, plain_fp32
from spoofkit.scoring.batches import batch_budget
from spoofkit.scoring.windows import Window, Windows, WindowScore, read_windows, score_over

GPU_CHUNK = 64  # recordings that are sorted by length together


@dataclass(frozen=True)
class Recording:
    """What is to be scored."""

    name: str
    path: Path | str
    downmix: str = "mean"
    n_samples: int = UNKNOWN_LENGTH
    """At 16 kHz, as a manifest says; another length is refused."""


@dataclass(frozen=True)
class Result:
    """A recording's score, or why it has none."""

    name: str
    seconds: float = 0.0
    """Scored, from the start."""
    score: float | None = None
    windows: tuple[WindowScore, ...] = ()
    """Of a recording that was cut."""
    error: str = ""


@dataclass(frozen=True)
class Reading:
    """What of a recording is read, and how."""

    first_samples: int | None
    windows: Windows | None


@dataclass(frozen=True)
class _Opened:
    """A recording of which the beginning is decoded, or that cannot be."""

    recording: Recording
    first: Window | None = None
    others: Iterator[Window] | None = None
    """The windows after the first; none: that one is all."""
    error: str = ""


def chunk_size(device: torch.device) -> int:
    """How many recordings are handed to the model together."""
    return GPU_CHUNK if device.type == "cuda" else 1


def n_decoders(device: torch.device, workers: int) -> int:
    """How many threads decode: as many as asked for, or if none were, what keeps the device busy."""
    return workers or (min(8, os.cpu_count() or 1) if device.type == "cuda" else 2)


def score_recordings(
    detector: Detector,
    chunks: Iterable[list[Recording]],
    device: torch.device,
    reading: Reading,
    *,
    n_threads: int = 2,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[list[Result]]:
    """Score chunks of recordings in fp32, in their order.

    Args:
        detector: On `device`.
        chunks: Recordings that may share batches; taken as they come, so they may be those of a pipe.
        device: Where to compute.
        reading: What of each is read.
        n_threads: That decode ahead.
        should_stop: Asked before each recording or batch.

    Yields:
        A chunk's results, in its order.

    Raises:
        Interrupted: `should_stop` said so.
    """
    was_training = detector.training
    detector.eval()

    def score(named: dict[str, np.ndarray]) -> list[Result]:
        if should_stop():
            raise Interrupted("stopped while scoring")
        return _score_batch(detector, named, device)

    n_ahead = 1 if device.type == "cuda" else 4  # chunks of a GPU are large
    try:
        with ThreadPoolExecutor(n_threads, "decode") as pool:
            for opened in _open_ahead(pool, chunks, lambda recording: _open(recording, reading, detector), n_ahead):
                yield _score_chunk(opened, score, reading, pool, batch_budget(device))
    finally:
        detector.train(was_training)


def _open(recording: Recording, reading: Reading, detector: Detector) -> _Opened:
    """Decode a recording, or the first two windows of it."""
    try:
        windows = read_windows(recording.path, reading.windows, reading.first_samples, recording.downmix)
        first, second = next(windows), next(windows, None)
        require_usable_length(recording.name, first.wave_S.size, detector.shortest, detector.encoder.longest)
        if second is not None:
            return _Opened(recording, first, chain([second], windows))
        _require_length(recording, first.end, reading)
        return _Opened(recording, first)
    except (SpoofkitError, OSError) as error:
        return _Opened(recording, error=str(error))


def _require_length(recording: Recording, n_samples: int, reading: Reading) -> None:
    expected = recording.n_samples
    if expected == UNKNOWN_LENGTH:
        return
    if reading.first_samples is not None:
        expected = min(expected, reading.first_samples)
    if n_samples != expected:
        raise SpoofkitError(
            f"{recording.path}: found {n_samples} samples where {expected} were expected; the file is cut short or the "
            "manifest is older than it"
        )


def _open_ahead(
    pool: ThreadPoolExecutor,
    chunks: Iterable[list[Recording]],
    open_: Callable[[Recording], _Opened],
    n_ahead: int,
) -> Iterator[list[_Opened]]:
    """Chunks of opened recordings, some ahead.

    Names are taken by a thread of their own: while a pipe has no next one, those that came are scored.
    """
    waiting: queue.Queue[list[Future[_Opened]] | Exception | None] = queue.Queue(n_ahead)
    is_over = threading.Event()

    def put(item: list[Future[_Opened]] | Exception | None) -> None:
        while not is_over.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=0.2)
                return

    def feed() -> None:
        try:
            for chunk in chunks:
                put([pool.submit(open_, recording) for recording in chunk])
                if is_over.is_set():
                    return
            put(None)
        except Exception as error:  # handed to who waits for it
            put(error)

    threading.Thread(target=feed, name="names", daemon=True).start()  # a pipe may never end
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield [future.result() for future in item]
    finally:
        is_over.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _score_chunk(
    chunk: list[_Opened],
    score: Callable[[dict[str, np.ndarray]], list[Result]],
    reading: Reading,
    pool: ThreadPoolExecutor,
    budget_samples: int,
) -> list[Result]:
    results = {one.recording.name: Result(one.recording.name, error=one.error) for one in chunk}
    whole = [one for one in chunk if one.first is not None and one.others is None]
    for batch in batches_by_length([_wave(one).size for one in whole], budget_samples):
        scored = score({whole[index].recording.name: _wave(whole[index]) for _, index in batch})
        results |= {result.name: result for result in scored}
    for one in chunk:
        if one.others is not None:
            results[one.recording.name] = _score_long(one, score, reading, pool, budget_samples)
    return [results[one.recording.name] for one in chunk]


def _score_long(
    one: _Opened,
    score: Callable[[dict[str, np.ndarray]], list[Result]],
    reading: Reading,
    pool: ThreadPoolExecutor,
    budget_samples: int,
) -> Result:
    """Score a recording window by window, while the next one is read."""
    name, windows = one.recording.name, reading.windows
    assert windows is not None
    assert one.first is not None
    assert one.others is not None
    scores: list[WindowScore] = []
    end = 0
    at_once = max(1, budget_samples // windows.n_samples)
    try:
        for group in _grouped(_ahead(pool, chain([one.first], one.others)), at_once):
            named = {f"{name} at {window.start / SAMPLE_RATE:.12g} s": window.wave_S for window in group}
            for window, result in zip(group, score(named), strict=True):
                if result.score is None:
                    return Result(name, error=result.error)
                end = window.end
                scores.append(WindowScore(window.start / SAMPLE_RATE, end / SAMPLE_RATE, result.score))
        _require_length(one.recording, end, reading)
    except (SpoofkitError, OSError) as error:
        return Result(name, error=str(error))
    return Result(name, end / SAMPLE_RATE, score_over(scores, windows.over), tuple(scores))


def _score_batch(detector: Detector, named: dict[str, np.ndarray], device: torch.device) -> list[Result]:
    """Score some recordings or windows together; a fault is that of all."""
    batch = collate([Item(name, wave_S) for name, wave_S in named.items()]).to(device)
    try:
        with torch.no_grad(), plain_fp32(), memory_advice("give a shorter --window, or use --device cpu"):
            score_B = detector(batch.wave_BS, batch.n_samples_B).tolist()
    except SpoofkitError as error:
        return [Result(name, error=f"{name}: {error}") for name in named]
    return [
        Result(name, wave_S.size / SAMPLE_RATE, score)
        if np.isfinite(score)
        else Result(
            name, error=f"{name}: its score is {score}, expected a finite number; check the audio and the model"
        )
        for (name, wave_S), score in zip(named.items(), score_B, strict=True)
    ]


def _wave(one: _Opened) -> np.ndarray:
    assert one.first is not None
    return one.first.wave_S


def _ahead(pool: ThreadPoolExecutor, windows: Iterator[Window]) -> Iterator[Window]:
    """The same windows, the next one read while this one is used."""
    coming = pool.submit(next, windows, None)
    while (window := coming.result()) is not None:
        coming = pool.submit(next, windows, None)
        yield window


def _grouped(windows: Iterator[Window], n: int) -> Iterator[list[Window]]:
    while group := list(islice(windows, n)):
        yield group
