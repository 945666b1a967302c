"""What `localize` marks: recordings, or channels of them by themselves, each with a name for its outputs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spoofkit.data.audio import choose_channels, read_audio
from spoofkit.data.channels import DOWNMIXES, channel_number
from spoofkit.data.lengths import require_usable_length
from spoofkit.data.signal import SignalMeter
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256
from spoofkit.localisation.marks import channel_name, safe_names
from spoofkit.scoring.loose_files import find_files


@dataclass(frozen=True)
class Source:
    """A recording, or one channel of it."""

    path: str
    file_name: str
    """Of the file, for RTTM."""
    downmix: str = DOWNMIXES[0]
    fault: str = ""
    """Why its channels could not be told."""

    @property
    def channel(self) -> int | None:
        """Which channel it is, from 1; none: the mean of all."""
        return channel_number(self.downmix)

    @property
    def name(self) -> str:
        """For its outputs."""
        return channel_name(self.file_name, self.channel)

    @property
    def shown(self) -> str:
        """Its path as text, which a name on a disk need not be."""
        return self.path.encode("utf-8", "backslashreplace").decode()

    @property
    def label(self) -> str:
        """What it is called in a sentence."""
        return self.shown if self.channel is None else f"{self.shown}, channel {self.channel}"


def find_sources(inputs: list[Path], channels: str) -> list[Source]:
    """Find what is marked.

    Args:
        inputs: Files, folders, globs.
        channels: As `choose_channels` takes it.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    faults: dict[str, str] = {}
    for path in find_files(inputs):
        try:
            chosen[path] = choose_channels(path, channels)
        except (SpoofkitError, OSError) as error:  # said when its turn comes
            chosen[path], faults[path] = DOWNMIXES[:1], str(error)
    names = safe_names({path: list(map(channel_number, downmixes)) for path, downmixes in chosen.items()})
    return [
        Source(path, names[path], downmix, faults.get(path, ""))
        for path, downmixes in chosen.items()
        for downmix in downmixes
    ]


def read_source(source: Source, shortest: int) -> tuple[np.ndarray, str]:
    """Read a recording, or a channel of it.

    Args:
        source: What is read.
        shortest: Fewest samples at 16 kHz that can be scored.

    Returns:
        The samples (16 kHz, float32), and the SHA-256 of the file.

    Raises:
        SpoofkitError, OSError: it cannot be read, is too short, or holds too little signal.
    """
    if source.fault:
        raise SpoofkitError(source.fault)
    wave_S = read_audio(source.path, downmix=source.downmix)
    require_usable_length(source.label, wave_S.size, shortest, None)
    meter = SignalMeter()
    list(meter.hear([wave_S]))
    meter.refuse_too_little(source.label)
    return wave_S, file_sha256(source.path)
