"""Regions of recordings that are known from labels, beside those that a model marks.

They decide nothing: they are shown, and it is counted how much of each is marked, and how much is marked elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.rttm import SUFFIX, join_regions, read_spoofed
from spoofkit.data.segments import LONGEST_OVERHANG, Regions, read_segments
from spoofkit.errors import SpoofkitError
from spoofkit.localisation.regions import Marked, marked_seconds
from spoofkit.localisation.sources import Source


@dataclass(frozen=True)
class KnownRegion:
    """A known region of a recording."""

    start_seconds: float
    end_seconds: float
    marked_share: float
    """Share of its time that is marked."""


@dataclass(frozen=True)
class Known:
    """The known regions of a recording."""

    regions: tuple[KnownRegion, ...]
    marked_elsewhere_seconds: float
    """How much is marked outside of them."""
    elsewhere_seconds: float
    """How much there is outside of them."""

    def record(self) -> dict[str, Any]:
        """Return the entry `known` in the JSON of a recording."""
        return {
            "regions": [
                {"start_seconds": one.start_seconds, "end_seconds": one.end_seconds,
                 "marked_share": round(one.marked_share, 6)}
                for one in self.regions
            ],
            "marked_elsewhere_seconds": round(self.marked_elsewhere_seconds, 6),
            "elsewhere_seconds": round(self.elsewhere_seconds, 6),
        }  # fmt: skip

    def words(self) -> str:
        """Describe how much of them is marked.

        >>> Known((KnownRegion(1.0, 1.5, 0.9),), 0.1, 1.5).words()
        'known: 1.00-1.50 s, 90 % of it marked; marked elsewhere: 0.10 of 1.50 s'
        """
        regions = [
            f"{one.start_seconds:.2f}-{one.end_seconds:.2f} s, {100 * one.marked_share:.0f} % of it marked"
            for one in self.regions
        ]
        elsewhere = f"{self.marked_elsewhere_seconds:.2f} of {self.elsewhere_seconds:.2f} s"
        return f"known: {'; '.join(regions) or 'no region'}; marked elsewhere: {elsewhere}"


def compare_known(known_R2: Regions, regions: Sequence[Marked], n_samples: int) -> Known:
    """Count how much of the known regions of a recording is marked, and how much besides.

    Args:
        known_R2: Known regions, half-open, ascending, in samples.
        regions: Marked regions.
        n_samples: Length of the recording; what reaches beyond it is cut off.
    """
    known_R2 = np.minimum(known_R2, n_samples)
    known_R2 = known_R2[known_R2[:, 0] < known_R2[:, 1]]
    marked_samples = [
        sum(max(0, min(end, one.end) - max(start, one.start)) for one in regions) for start, end in known_R2.tolist()
    ]
    return Known(
        tuple(
            KnownRegion(start / SAMPLE_RATE, end / SAMPLE_RATE, inside / (end - start))
            for (start, end), inside in zip(known_R2.tolist(), marked_samples, strict=True)
        ),
        marked_seconds(regions) - sum(marked_samples) / SAMPLE_RATE,
        (n_samples - int(np.diff(known_R2).sum())) / SAMPLE_RATE,
    )


def read_known(path: Path, sources: Sequence[Source]) -> dict[str, Regions]:
    """Read the known regions of recordings; the file may have more about others.

    The file names a recording as its own file is named, without suffix. A recording that no line of RTTM names has no
    region, but at least one must be named; a file of regions has a line for each. Channels that are marked separately
    have the lines of their channel in RTTM; a file of regions has no channels, so its lines are of each.

    Args:
        path: RTTM (`.rttm`), or a file of regions (`spoofkit.data.segments`).
        sources: The recordings.

    Returns:
        Regions by the name of the outputs of a recording.

    Raises:
        SpoofkitError: not such a file, a recording that it does not hold, or two of one name.
    """
    paths: dict[str, str] = {}
    for source in sources:
        if paths.setdefault(_name(source), source.recording.name) != source.recording.name:
            raise SpoofkitError(
                f"--known {path}: {paths[_name(source)]} and {source.recording.name} are both named {_name(source)!r} "
                "in such a file, expected recordings of different names; mark them in two calls"
            )
    is_rttm = path.suffix == SUFFIX
    lines = read_spoofed(path) if is_rttm else {}
    regions = {} if is_rttm else read_segments(path)
    absent = [name for name in paths if name not in (lines if is_rttm else regions)]
    if len(absent) == len(paths) or (absent and not is_rttm):
        raise SpoofkitError(
            f"--known {path}: has nothing about {absent[0]!r}, the name of {paths[absent[0]]} without suffix, expected "
            "its regions; correct the names in the file"
        )
    if not is_rttm:
        return {source.name: regions[_name(source)] for source in sources}
    return {
        source.name: join_regions(
            (start, end)
            for channel, start, end in lines.get(_name(source), ())
            if source.recording.channel in (None, channel)
        )
        for source in sources
    }


def too_long(known_R2: Regions, n_samples: int) -> str:
    """Return what is wrong with the known regions of a recording that ends before they do; empty if nothing is."""
    if not known_R2.size or known_R2[-1, 1] <= n_samples + LONGEST_OVERHANG:
        return ""
    return (
        f"its last known region ends at {known_R2[-1, 1] / SAMPLE_RATE:g} s, but it is {n_samples / SAMPLE_RATE:g} s "
        "long; give the regions of this recording"
    )


def _name(source: Source) -> str:
    return Path(source.recording.name).stem
