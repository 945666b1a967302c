"""The recordings, or channels of recordings, that `localize` marks, each with a name for its outputs."""

from collections.abc import Mapping
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
    """Name of the file in RTTM."""

    @property
    def name(self) -> str:
        """Name of its outputs."""
        return channel_name(self.file_name, self.recording.channel)


def find_sources(inputs: list[Path], channels: str, known: Mapping[str, str]) -> list[Source]:
    """Find the recordings to mark.

    Args:
        inputs: Files, folders, globs.
        channels: Which channels are marked separately, as `choose_channels` takes it.
        known: Names that earlier calls gave to recordings, by label: further ones do not change them.
    """
    found: dict[str, list[Recording]] = {}
    for path in find_files(inputs):
        shown = path.encode("utf-8", "backslashreplace").decode()  # a file name need not be UTF-8
        try:
            chosen, fault = choose_channels(path, channels), ""
        except (SpoofkitError, OSError) as error:  # reported when its turn comes
            chosen, fault = DOWNMIXES[:1], str(error)
        found[path] = [
            Recording(shown, path, downmix, channel=channel_number(downmix), fault=fault) for downmix in chosen
        ]
    before = {path: known[one.label] for path, of_path in found.items() for one in of_path if one.label in known}
    names = safe_names({path: [one.channel for one in of_path] for path, of_path in found.items()}, before)
    return [Source(one, names[path]) for path, of_path in found.items() for one in of_path]
