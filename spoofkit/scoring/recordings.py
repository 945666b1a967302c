"""Recordings to score, how they are read, and their results; decode and check the beginning of one.

Nothing is scored here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from spoofkit.data.audio import choose_channels, read_blocks
from spoofkit.data.channels import channel_number
from spoofkit.data.lengths import UNKNOWN_LENGTH, require_length, require_usable_length
from spoofkit.data.signal import SignalMeter
from spoofkit.data.wave import Wave
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.speech import VoiceActivity
from spoofkit.scoring.windows import Window, Windows, WindowScore, in_windows


def label_of(name: str, channel: int | None) -> str:
    """Name a recording, or a channel of it, for messages."""
    return name if channel is None else f"{name}, channel {channel}"


@dataclass(frozen=True)
class Recording:
    """A recording, or one channel of it, to score."""

    name: str
    path: Path | str
    downmix: str = "mean"
    n_samples: int = UNKNOWN_LENGTH
    """Length at 16 kHz that a manifest gives; another length is refused."""
    is_listed: bool = False
    """Whether it is scored even if it holds hardly any signal, because a list of trials must be complete."""
    channel: int | None = None
    """Number of the channel that `downmix` selects, from 1; None: all of them, or as a manifest says."""
    fault: str = ""
    """Why it is not read at all, such as a name that the table cannot hold."""
    make: Callable[[], np.ndarray] | None = None
    """Returns the samples, such as those of a mix. Default: `path` is read."""
    wave: Wave | None = None
    """The recording, if it is in memory: it is read instead of `path`."""

    @property
    def audio(self) -> Path | str | Wave:
        """What is read, unless `make` returns the samples."""
        return self.path if self.wave is None else self.wave

    @property
    def label(self) -> str:
        """Name for messages."""
        return label_of(self.name, self.channel)


@dataclass(frozen=True)
class Reading:
    """What is read of a recording, and how."""

    first_samples: int | None = None
    """Number of samples from the start. Default: all."""
    repeat_to: int | None = None
    """A shorter recording is repeated from its start to this number of samples. Default: it is not."""
    windows: Windows | None = None
    """How a longer recording is cut. Default: not at all."""
    voice: VoiceActivity | None = None
    """Finds windows and recordings with too little speech, which are not scored. Default: all are scored."""
    channels: str | None = None
    """Which channels are scored, as `choose_channels` takes it. Default: each recording's `downmix`."""
    keeps_wave: bool = False
    """Whether a recording is read as a whole, and its samples kept in the result; frames of a long one need it."""

    def n_scored(self, n_samples: int) -> int:
        """Return how many of `n_samples` are scored; UNKNOWN_LENGTH if that is not known."""
        if self.repeat_to is not None:
            return self.repeat_to
        return n_samples if self.first_samples is None else min(n_samples, self.first_samples)


WHOLE = Reading()


@dataclass(frozen=True, slots=True)
class Result:
    """The scores of a recording, or why it has none."""

    name: str
    channel: int | None = None
    """As in `Recording`."""
    seconds: float = 0.0
    """Seconds that were scored, from the start."""
    score: float | None = None
    """Score of the utterance head, with the precision of a float32; None: the model has none."""
    windows: tuple[WindowScore, ...] = ()
    """Scores of the windows of a recording that was cut."""
    error: str = ""
    lacks_speech: bool = False
    """Whether the error is too little speech."""
    lacks_signal: bool = False
    """Whether it holds hardly any signal, but is scored: see `Recording.is_listed`."""
    speech_seconds: float | None = None
    """Seconds of speech that were scored; None: speech was not measured."""
    frames: np.ndarray | None = None
    """Scores of its frames, float32, shape (frames,); None: the model has no frame head."""
    wave_S: np.ndarray | None = None
    """All samples, if `Reading.keeps_wave`."""


@dataclass(frozen=True)
class Opened:
    """A recording whose beginning is decoded."""

    recording: Recording
    first: Window
    others: Iterator[Window] | None
    """The windows after the first; None: there are no others."""
    meter: SignalMeter
    """Measures the signal while it is read."""
    wave_S: np.ndarray | None
    """All samples, if `Reading.keeps_wave`."""


def open_recording(recording: Recording, reading: Reading, scorer: Scorer) -> list[Opened | Result]:
    """Decode the first two windows of a recording, or of each channel that is scored.

    Returns:
        One for each channel that is scored; a `Result` with an error if it cannot be.
    """
    try:
        if recording.fault:
            raise SpoofkitError(recording.fault)
        if reading.channels is None:
            return [_open(recording, reading, scorer)]
        chosen = choose_channels(recording.audio, reading.channels)
    except (SpoofkitError, OSError) as error:
        return [Result(recording.name, recording.channel, error=str(error))]
    return [
        _open(replace(recording, downmix=downmix, channel=channel_number(downmix)), reading, scorer)
        for downmix in chosen
    ]


def _open(recording: Recording, reading: Reading, scorer: Scorer) -> Opened | Result:
    meter, wave_S = SignalMeter(), None
    try:
        if recording.make is None:
            blocks = read_blocks(recording.audio, reading.first_samples, recording.downmix)
        else:
            blocks = iter([recording.make()])
        blocks = meter.measure(blocks)
        if reading.keeps_wave:
            wave_S = np.concatenate(list(blocks))
            blocks = iter([wave_S])
        windows = in_windows(blocks, reading.windows, reading.voice)
        first, second = next(windows), next(windows, None)
        require_usable_length(recording.label, reading.n_scored(first.wave_S.size), scorer.shortest, scorer.longest)
        if second is not None:
            return Opened(recording, first, chain([second], windows), meter, wave_S)
        require_listed_length(recording, first.wave_S.size, reading)
        if reading.voice is not None and first.speech is not None and not first.is_scored:
            why = reading.voice.too_little(recording.label, [first.speech])
            return Result(recording.name, recording.channel, error=why, lacks_speech=True)
        if not recording.is_listed:
            meter.refuse_too_little(recording.label)
    except (SpoofkitError, OSError) as error:
        return Result(recording.name, recording.channel, error=str(error))
    return Opened(recording, first, None, meter, wave_S)


def require_listed_length(recording: Recording, n_samples: int, reading: Reading) -> None:
    """Refuse a recording whose length differs from the manifest's.

    Raises:
        SpoofkitError: it differs.
    """
    expected = recording.n_samples
    if expected == UNKNOWN_LENGTH:
        return
    if reading.first_samples is not None:
        expected = min(expected, reading.first_samples)
    require_length(recording.path, n_samples, expected)
