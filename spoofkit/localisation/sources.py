"""What `localize` marks: recordings, or channels of them by themselves, each with a name for its outputs."""

from dataclasses import dataclass
from pathlib import Path

from spoofkit.data.audio import choose_channels
from spoofkit.data.channels import DOWNMIXES, channel_number
from spoofkit.errors import SpoofkitError
from spoofkit.localisation.marks import channel_name, safe_names
from spoofkit.scoring.loose_files import find_files
from spoofkit.scoring.recordings import Recording


@dataclass(frozen=True)
class Source:
    """A recording, or one channel of it."""

    recording: Recording
    file_name: str
    """Of the file, for RTTM."""

    @property
    def name(self) -> str:
        """For its outputs."""
        return channel_name(self.file_name, self.recording.channel)


def find_sources(inputs: list[Path], channels: str) -> list[Source]:
    """Find what is marked.

    Args:
        inputs: Files, folders, globs.
        channels: As `choose_channels` takes it.
    """
    found: dict[str, list[Recording]] = {}
    for path in find_files(inputs):
        shown = path.encode("utf-8", "backslashreplace").decode()  # a name on a disk need not be text
        try:
            chosen, fault = choose_channels(path, channels), ""
        except (SpoofkitError, OSError) as error:  # said when its turn comes
            chosen, fault = DOWNMIXES[:1], str(error)
        found[path] = [
            Recording(shown, path, downmix, channel=channel_number(downmix), fault=fault) for downmix in chosen
        ]
    names = safe_names({path: [one.channel for one in of_path] for path, of_path in found.items()})
    return [Source(one, names[path]) for path, of_path in found.items() for one in of_path]
