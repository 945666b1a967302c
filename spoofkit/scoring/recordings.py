"""A recording as it is scored: what of it is read, its beginning decoded and checked, and what comes of it.

Nothing is scored here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from spoofkit.data.audio import choose_channels, read_blocks
from spoofkit.data.channels import channel_number
from spoofkit.data.lengths import require_usable_length
from spoofkit.data.manifest import UNKNOWN_LENGTH
from spoofkit.data.signal import SignalMeter
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.speech import VoiceActivity
from spoofkit.scoring.windows import Window, Windows, WindowScore, in_windows


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
    make: Callable[[], np.ndarray] | None = None
    """Gives the samples of what is no file, such as a mix; none: `path` is read."""

    @property
    def label(self) -> str:
        """Its name in a sentence."""
        return self.name if self.channel is None else f"{self.name}, channel {self.channel}"


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
    keeps_wave: bool = False
    """A recording is read as a whole, and its samples stay with the result; frames of a long one need that too."""

    def n_scored(self, n_samples: int) -> int:
        """Samples that are scored of so many; UNKNOWN_LENGTH if that cannot be told."""
        if self.repeat_to is not None:
            return self.repeat_to
        return n_samples if self.first_samples is None else min(n_samples, self.first_samples)


WHOLE = Reading()


@dataclass(frozen=True, slots=True)
class Result:
    """The scores of a recording, or why it has none."""

    name: str
    channel: int | None = None
    """See `Recording.channel`."""
    seconds: float = 0.0
    """Scored, from the start."""
    score: float | None = None
    """A float32, as is that of a recording that was cut; none: the model has no utterance head."""
    windows: tuple[WindowScore, ...] = ()
    """Of a recording that was cut."""
    error: str = ""
    lacks_speech: bool = False
    """That is the error, and nothing else."""
    lacks_signal: bool = False
    """It is scored all the same: see `Recording.is_listed`."""
    speech_seconds: float | None = None
    """That were scored; none: speech was not looked for."""
    frames: np.ndarray | None = None
    """Scores of its frames, float32, shape (frames,); none: the model has no frame head."""
    wave_S: np.ndarray | None = None
    """See `Reading.keeps_wave`."""


@dataclass(frozen=True)
class Opened:
    """A recording of which the beginning is decoded."""

    recording: Recording
    first: Window
    others: Iterator[Window] | None
    """The windows after the first; none: that one is all."""
    meter: SignalMeter
    """Has measured what was read of it."""
    wave_S: np.ndarray | None
    """All of it: see `Reading.keeps_wave`."""


def open_recording(recording: Recording, reading: Reading, scorer: Scorer) -> list[Opened | Result]:
    """Decode a recording, or the first two windows of it; or of each channel that is scored.

    Returns:
        Of one that cannot be scored the result, which says why.
    """
    try:
        if recording.fault:
            raise SpoofkitError(recording.fault)
        if reading.channels is None:
            return [_open(recording, reading, scorer)]
        chosen = choose_channels(recording.path, reading.channels)
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
            blocks = read_blocks(recording.path, reading.first_samples, recording.downmix)
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
    """Refuse a recording that is not as long as its manifest says.

    Raises:
        SpoofkitError: naming the file.
    """
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
