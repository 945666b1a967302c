"""Score recordings as they are decoded, in chunks: a batch of a manifest's plan, or some loose files.

Threads decode ahead while the model computes. The recordings of a chunk are sorted by length and padded to batches;
those longer than a window are cut. A channel that is scored separately is read as a recording of its own. A model gives
each recording an utterance score, frame scores, or both from one pass of the encoder; a recording that cannot be scored
gets an error instead. Nothing is written here.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.frames import FrameGeometry
from spoofkit.data.lengths import batches_by_length
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.scoring.recordings import (
    WHOLE,
    Opened,
    Reading,
    Recording,
    Result,
    open_recording,
    require_listed_length,
)
from spoofkit.scoring.scorer import Scorer, pad
from spoofkit.scoring.speech import Speech
from spoofkit.scoring.windows import Window, Windows, WindowScore, frame_windows, score_over

FILES_AHEAD = 4  # at least this many are decoded ahead of the model

T = TypeVar("T")
_Chunk = list[Future[list[Opened | Result]]]
"""Recordings that are being opened, each with all channels that are scored."""


@dataclass(frozen=True)
class _Work:
    """What scoring needs besides the recordings."""

    scorer: Scorer
    reading: Reading
    pool: ThreadPoolExecutor
    should_stop: Callable[[], bool]


class _Scores(NamedTuple):
    """Scores of a recording or a window."""

    utterance: float | None = None
    frame_T: np.ndarray | None = None
    error: str = ""


def score_recordings(
    scorer: Scorer,
    chunks: Iterable[list[Recording]],
    reading: Reading = WHOLE,
    *,
    n_threads: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[list[Result]]:
    """Score chunks of recordings, in their order.

    Args:
        scorer: The model.
        chunks: Recordings that may share batches; taken as they come, such as from a pipe.
        reading: What is read of each recording.
        n_threads: Threads that decode ahead. Default: as many as keep the device busy.
        should_stop: Called before each batch.

    Yields:
        A chunk's results, in its order: one for each recording, or for each of its channels.

    Raises:
        Interrupted: `should_stop` returned True.
    """
    # Whole recordings may be long: one is decoded while another is scored.
    n_ahead = 1 if reading.keeps_wave else max(1, FILES_AHEAD // scorer.n_together)
    with ThreadPoolExecutor(n_threads or scorer.n_decoders, "decode") as pool:
        work = _Work(scorer, reading, pool, should_stop)
        for opened in _opened_ahead(work, chunks, n_ahead):
            yield _score_chunk([one for future in opened for one in future.result()], work)


def _opened_ahead(
    work: _Work, chunks: Iterable[list[Recording]], n_ahead: int
) -> Iterator[list[Future[list[Opened | Result]]]]:
    """Yield chunks that are being opened, in order, up to `n_ahead` chunks ahead of the caller.

    A thread takes the names, so that chunks are yielded while it waits for the next name of a pipe.
    """
    waiting: queue.Queue[_Chunk | Exception | None] = queue.Queue()
    room = threading.Semaphore(n_ahead)
    is_over = threading.Event()

    def feed() -> None:
        try:
            for chunk in chunks:
                room.acquire()
                if is_over.is_set():
                    return
                waiting.put([work.pool.submit(open_recording, one, work.reading, work.scorer) for one in chunk])
            waiting.put(None)
        except Exception as error:  # raised again below
            waiting.put(error)

    threading.Thread(target=feed, name="names", daemon=True).start()  # a pipe may never end
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, Exception):
                raise item
            room.release()
            yield item
    finally:
        is_over.set()
        room.release()
        work.pool.shutdown(wait=False, cancel_futures=True)


def _score_chunk(chunk: list[Opened | Result], work: _Work) -> list[Result]:
    """Score the recordings of a chunk in batches, and each of the long ones alone."""
    results = {row: one for row, one in enumerate(chunk) if isinstance(one, Result)}
    opened = {row: one for row, one in enumerate(chunk) if isinstance(one, Opened)}
    # Channels of a recording share no batch, so that each gets bit for bit the score that it would get as a file.
    for channel in dict.fromkeys(one.recording.channel for one in opened.values()):
        rows = [row for row, one in opened.items() if one.others is None and one.recording.channel == channel]
        lengths = [work.reading.n_scored(opened[row].first.wave_S.size) for row in rows]
        for batch in batches_by_length(lengths, work.scorer.budget_samples):
            labels = [opened[rows[index]].recording.label for index in batch]
            waves = [opened[rows[index]].first.wave_S for index in batch]
            for index, scores in zip(batch, _score_waves(labels, waves, work), strict=True):
                results[rows[index]] = _result(opened[rows[index]], scores)
    for row, one in opened.items():
        if one.others is not None:
            results[row] = _score_long(one, one.others, work)
    return [results[row] for row in range(len(chunk))]


def _result(one: Opened, scores: _Scores) -> Result:
    """Return the result of a recording that is not cut."""
    name, channel = one.recording.name, one.recording.channel
    if scores.error:
        return Result(name, channel, error=scores.error)
    speech = one.first.speech
    return Result(
        name,
        channel,
        one.first.wave_S.size / SAMPLE_RATE,
        scores.utterance,
        lacks_signal=not one.meter.is_enough,
        speech_seconds=None if speech is None else speech.n_samples / SAMPLE_RATE,
        frames=scores.frame_T,
        wave_S=one.wave_S,
    )


def _score_waves(labels: list[str], waves: list[np.ndarray], work: _Work) -> list[_Scores]:
    """Score recordings or windows in one batch; an error of the scorer is that of each."""
    if work.should_stop():
        raise Interrupted("stopped while scoring")
    repeat_to = work.reading.repeat_to
    try:
        if repeat_to is not None:
            waves = [np.resize(wave_S, repeat_to) for wave_S in waves]  # np.resize repeats from the start
        score_B, frames = work.scorer.score_padded(*pad(waves))
    except MemoryError:
        n_samples = repeat_to or max(wave_S.size for wave_S in waves)
        fault = f"{len(waves)} x {n_samples:,} samples do not fit in memory; give a shorter --window or --crop"
        return [_Scores(error=f"{label}: {fault}") for label in labels]
    except SpoofkitError as error:
        return [_Scores(error=f"{label}: {error}") for label in labels]
    found = []
    for row, label in enumerate(labels):
        score = None if score_B is None else float(score_B[row])
        frame_T = None if frames is None else frames[row]
        if score is not None and not np.isfinite(score):
            fault = f"its score is {score}, expected a finite number; check the audio and the model"
            found.append(_Scores(error=f"{label}: {fault}"))
        elif frame_T is not None and not np.isfinite(frame_T).all():
            fault = "a frame's score is NaN or infinite, expected finite numbers; check the audio and the model"
            found.append(_Scores(error=f"{label}: {fault}"))
        else:
            found.append(_Scores(score, frame_T))
    return found


def _score_long(one: Opened, others: Iterator[Window], work: _Work) -> Result:
    """Score a recording window by window while the next one is read; then its frames, in other windows."""
    recording, reading, windows = one.recording, work.reading, work.reading.windows
    assert windows is not None
    scores: list[WindowScore] = []
    found: list[Speech] = []
    end = 0
    at_once = max(1, work.scorer.budget_samples // windows.n_samples)
    try:
        for group in in_chunks(_next_ahead(work.pool, chain([one.first], others)), at_once):
            end = group[-1].end
            found += [window.speech for window in group if window.speech is not None]
            if work.scorer.has_utterance_head:
                scores += _score_windows(recording.label, [window for window in group if window.is_scored], work)
        require_listed_length(recording, end, reading)
        if not recording.is_listed:
            one.meter.refuse_too_little(recording.label)
        if reading.voice is not None and not scores:
            why = reading.voice.too_little(recording.label, found)
            return Result(recording.name, recording.channel, error=why, lacks_speech=True)
        frames = None if work.scorer.geometry is None else _score_frames(one, windows, work.scorer.geometry, work)
    except (SpoofkitError, OSError) as error:
        return Result(recording.name, recording.channel, error=str(error))
    return Result(
        recording.name,
        recording.channel,
        end / SAMPLE_RATE,
        float(np.float32(score_over(scores, windows.over))) if scores else None,
        tuple(scores),
        lacks_signal=not one.meter.is_enough,
        speech_seconds=None if reading.voice is None else sum(window.speech_seconds or 0 for window in scores),
        frames=frames,
        wave_S=one.wave_S,
    )


def _score_windows(label: str, windows: list[Window], work: _Work) -> list[WindowScore]:
    """Score windows of a recording in one batch.

    Raises:
        SpoofkitError: a window cannot be scored.
    """
    if not windows:
        return []
    labels = [f"{label} at {window.start / SAMPLE_RATE:.12g} s" for window in windows]
    found = []
    for window, scores in zip(windows, _score_waves(labels, [one.wave_S for one in windows], work), strict=True):
        if scores.utterance is None:
            raise SpoofkitError(scores.error)
        added = None if window.speech is None else window.speech.n_new / SAMPLE_RATE
        found.append(WindowScore(window.start / SAMPLE_RATE, window.end / SAMPLE_RATE, scores.utterance, added))
    return found


def _score_frames(one: Opened, windows: Windows, geometry: FrameGeometry, work: _Work) -> np.ndarray:
    """Score the frames of a recording that is longer than a window, shape (frames,).

    Raises:
        SpoofkitError: a window cannot be scored.
    """
    wave_S = one.wave_S
    assert wave_S is not None
    parts = []
    for start, end, first, last in frame_windows(wave_S.size, geometry, windows.n_samples):
        label = f"{one.recording.label} at {start / SAMPLE_RATE:.12g} s"
        (scores,) = _score_waves([label], [wave_S[start:end]], work)
        if scores.frame_T is None:
            raise SpoofkitError(scores.error)
        parts.append(scores.frame_T[first:last])
    return np.concatenate(parts)


def _next_ahead(pool: ThreadPoolExecutor, items: Iterator[T]) -> Iterator[T]:
    """Yield the items, computing the next one while the caller uses this one."""
    coming = pool.submit(next, items, None)
    while (item := coming.result()) is not None:
        coming = pool.submit(next, items, None)
        yield item


def in_chunks(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """Yield lists of `n` items; with n = 1 each as soon as it comes."""
    items = iter(items)
    while chunk := list(islice(items, n)):
        yield chunk
