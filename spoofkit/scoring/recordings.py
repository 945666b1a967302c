"""Scoring recordings as they are decoded, in chunks: a batch of a manifest's plan, or some loose files.

Threads decode ahead while the model computes. The recordings of a chunk are sorted by length and padded to batches;
those longer than a window are cut. Of a loose recording each channel may be scored by itself: it is read as a recording
of its own. What cannot be scored has a reason instead of a score. Nothing is written here.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE, choose_channels
from spoofkit.data.channels import channel_number
from spoofkit.data.lengths import batches_by_length, require_usable_length
from spoofkit.data.manifest import UNKNOWN_LENGTH
from spoofkit.data.signal import SignalMeter
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.scoring.ahead import chunks_ahead, next_ahead
from spoofkit.scoring.scorer import Scorer, pad
from spoofkit.scoring.speech import Speech, VoiceActivity
from spoofkit.scoring.windows import Window, Windows, WindowScore, read_windows, score_over

FILES_AHEAD = 4  # at least so many are decoded, or being decoded, beyond those that the model is at


@dataclass(frozen=True)
class Recording:
    """What is to be scored."""

    name: str
    path: Path | str
    downmix: str = "mean"
    n_samples: int = UNKNOWN_LENGTH
    """At 16 kHz, as a manifest says; another length is refused."""
    is_listed: bool = False
    """Scored even if it holds hardly any signal, because a list of trials must be complete."""
    channel: int | None = None
    """The one that `downmix` says, from 1, of a loose recording; none: all of them, or as a manifest says."""
    fault: str = ""
    """Why it is not read at all, such as a name that the table cannot hold."""

    @property
    def label(self) -> str:
        """Its name in a sentence."""
        return self.name if self.channel is None else f"{self.name}, channel {self.channel}"


@dataclass(frozen=True, slots=True)
class Result:
    """A recording's score, or why it has none."""

    name: str
    channel: int | None = None
    """See `Recording.channel`."""
    seconds: float = 0.0
    """Scored, from the start."""
    score: float | None = None
    """A float32, as is that of a recording that was cut."""
    windows: tuple[WindowScore, ...] = ()
    """Of a recording that was cut."""
    error: str = ""
    lacks_speech: bool = False
    """That is the error, and nothing else."""
    lacks_signal: bool = False
    """It is scored all the same: see `Recording.is_listed`."""
    speech_seconds: float | None = None
    """That were scored; none: speech was not looked for."""


@dataclass(frozen=True)
class Reading:
    """What of a recording is read, and how."""

    first_samples: int | None = None
    """So many from the start; none: all."""
    repeat_to: int | None = None
    """What is shorter is repeated from its start until it has so many; none: it is not."""
    windows: Windows | None = None
    """How a longer one is cut; none: not."""
    voice: VoiceActivity | None = None
    """What has too little speech is left out; none: nothing is."""
    channels: str | None = None
    """Which channels are scored, as `choose_channels` takes it; none: as each recording's `downmix` says."""

    def n_scored(self, n_samples: int) -> int:
        """Samples that are scored of so many; UNKNOWN_LENGTH if that cannot be told."""
        if self.repeat_to is not None:
            return self.repeat_to
        return n_samples if self.first_samples is None else min(n_samples, self.first_samples)


WHOLE = Reading()


@dataclass(frozen=True)
class _Opened:
    """A recording of which the beginning is decoded, or that cannot be."""

    recording: Recording
    first: Window | None = None
    others: Iterator[Window] | None = None
    """The windows after the first; none: that one is all."""
    error: str = ""
    lacks_speech: bool = False
    meter: SignalMeter = field(default_factory=SignalMeter)
    """Has heard what was read of it."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is in the first window."""
        return self.first is not None and self.others is None


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
        scorer: What scores.
        chunks: Recordings that may share batches; taken as they come, so they may be those of a pipe.
        reading: What of each is read.
        n_threads: That decode ahead; 0: as many as keep the device busy.
        should_stop: Asked before each batch.

    Yields:
        A chunk's results, in its order; of a recording one, or one for each channel.

    Raises:
        Interrupted: `should_stop` said so.
    """

    def score(named: list[tuple[str, np.ndarray]]) -> list[Result]:
        if should_stop():
            raise Interrupted("stopped while scoring")
        return _score_batch(scorer, named, reading)

    n_ahead = max(1, FILES_AHEAD // scorer.n_together)
    with ThreadPoolExecutor(n_threads or scorer.n_decoders, "decode") as pool:
        for opened in chunks_ahead(pool, chunks, lambda recording: _open(recording, reading, scorer), n_ahead):
            yield _score_chunk(opened, score, reading, pool, scorer.budget_samples)


def _open(recording: Recording, reading: Reading, scorer: Scorer) -> list[_Opened]:
    """Decode a recording, or the first two windows of it; or of each channel that is scored."""
    if recording.fault:
        return [_Opened(recording, error=recording.fault)]
    if reading.channels is None:
        return [_open_one(recording, reading, scorer)]
    try:
        chosen = choose_channels(recording.path, reading.channels)
    except (SpoofkitError, OSError) as error:
        return [_Opened(recording, error=str(error))]
    return [
        _open_one(replace(recording, downmix=downmix, channel=channel_number(downmix)), reading, scorer)
        for downmix in chosen
    ]


def _open_one(recording: Recording, reading: Reading, scorer: Scorer) -> _Opened:
    meter = SignalMeter()
    try:
        windows = read_windows(
            recording.path, reading.windows, reading.first_samples, recording.downmix, reading.voice, meter
        )
        first, second = next(windows), next(windows, None)
        n_scored = reading.n_scored(first.wave_S.size)
        require_usable_length(recording.label, n_scored, scorer.shortest, scorer.longest)
        if second is not None:
            return _Opened(recording, first, chain([second], windows), meter=meter)
        _require_length(recording, first.end, reading)
        if first.speech is not None and reading.voice is not None and not first.is_scored:
            why = reading.voice.too_little(recording.label, [first.speech])
            return _Opened(recording, error=why, lacks_speech=True)
        if not recording.is_listed:
            meter.refuse_too_little(recording.label)
        return _Opened(recording, first, meter=meter)
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


def _score_chunk(
    chunk: list[_Opened],
    score: Callable[[list[tuple[str, np.ndarray]]], list[Result]],
    reading: Reading,
    pool: ThreadPoolExecutor,
    budget_samples: int,
) -> list[Result]:
    results = {
        row: Result(one.recording.name, error=one.error, lacks_speech=one.lacks_speech)
        for row, one in enumerate(chunk)
        if one.error
    }
    # Channels of a recording share no batch, so that each has to the bit the score that it has as a file.
    for channel in dict.fromkeys(one.recording.channel for one in chunk):
        whole = [row for row, one in enumerate(chunk) if one.is_whole and one.recording.channel == channel]
        for batch in batches_by_length([reading.n_scored(_wave(chunk[row]).size) for row in whole], budget_samples):
            rows = [whole[index] for _, index in batch]
            scored = score([(chunk[row].recording.label, _wave(chunk[row])) for row in rows])
            results |= zip(rows, scored, strict=True)
    for row, one in enumerate(chunk):
        if one.others is not None:
            results[row] = _score_long(one, score, reading, pool, budget_samples)
    return [_of(one, results[row]) for row, one in enumerate(chunk)]


def _of(one: _Opened, result: Result) -> Result:
    """Add whose it is, and to a score how much speech it is of (known if it was cut), and whether of any signal."""
    result = replace(result, name=one.recording.name, channel=one.recording.channel)
    if result.score is None:
        return result
    if one.others is None and one.first is not None and one.first.speech is not None:
        result = replace(result, speech_seconds=one.first.speech.n_samples / SAMPLE_RATE)
    return result if one.meter.is_enough else replace(result, lacks_signal=True)


def _score_long(
    one: _Opened,
    score: Callable[[list[tuple[str, np.ndarray]]], list[Result]],
    reading: Reading,
    pool: ThreadPoolExecutor,
    budget_samples: int,
) -> Result:
    """Score a recording window by window, while the next one is read."""
    name, windows = one.recording.label, reading.windows
    assert windows is not None
    assert one.first is not None
    assert one.others is not None
    scores: list[WindowScore] = []
    heard: list[Speech] = []
    end = 0
    at_once = max(1, budget_samples // windows.n_samples)
    try:
        for group in _grouped(next_ahead(pool, chain([one.first], one.others)), at_once):
            end = group[-1].end
            heard += [window.speech for window in group if window.speech is not None]
            group = [window for window in group if window.is_scored]
            named = [(f"{name} at {window.start / SAMPLE_RATE:.12g} s", window.wave_S) for window in group]
            for window, result in zip(group, score(named) if named else [], strict=True):
                if result.score is None:
                    return Result(name, error=result.error)
                added = None if window.speech is None else window.speech.n_new / SAMPLE_RATE
                scores.append(WindowScore(window.start / SAMPLE_RATE, window.end / SAMPLE_RATE, result.score, added))
        _require_length(one.recording, end, reading)
        if not one.recording.is_listed:
            one.meter.refuse_too_little(name)
    except (SpoofkitError, OSError) as error:
        return Result(name, error=str(error))
    if reading.voice is not None and not scores:
        return Result(name, error=reading.voice.too_little(name, heard), lacks_speech=True)
    score_32 = float(np.float32(score_over(scores, windows.over)))
    added = None if reading.voice is None else sum(window.speech_seconds or 0 for window in scores)
    return Result(name, seconds=end / SAMPLE_RATE, score=score_32, windows=tuple(scores), speech_seconds=added)


def _score_batch(scorer: Scorer, named: list[tuple[str, np.ndarray]], reading: Reading) -> list[Result]:
    """Score some recordings or windows together; a fault is that of all."""
    waves = [wave_S for _, wave_S in named]
    try:
        if reading.repeat_to is not None:
            waves = [np.resize(wave_S, reading.repeat_to) for wave_S in waves]  # numpy's resize repeats from the start
        score_B = scorer.score_padded(*pad(waves)).tolist()
    except MemoryError:
        n_samples = reading.repeat_to or max(wave_S.size for wave_S in waves)
        fault = f"{len(waves)} x {n_samples:,} samples do not fit in memory; give a shorter --window or --crop"
        return [Result(name, error=f"{name}: {fault}") for name, _ in named]
    except SpoofkitError as error:
        return [Result(name, error=f"{name}: {error}") for name, _ in named]
    return [
        Result(name, seconds=wave_S.size / SAMPLE_RATE, score=score)
        if np.isfinite(score)
        else Result(
            name, error=f"{name}: its score is {score}, expected a finite number; check the audio and the model"
        )
        for (name, wave_S), score in zip(named, score_B, strict=True)
    ]


def _wave(one: _Opened) -> np.ndarray:
    assert one.first is not None
    return one.first.wave_S


def _grouped(windows: Iterator[Window], n: int) -> Iterator[list[Window]]:
    while group := list(islice(windows, n)):
        yield group
