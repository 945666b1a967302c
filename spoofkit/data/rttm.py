"""Reading and writing RTTM: spoofed regions as other programs of the field write them (NIST RT-09 plan, appendix A).

    SPEAKER my%20call 1 1.06 0.74 <NA> <NA> spoof <NA> <NA>

A line is a region: the recording, its channel, start and duration in seconds, and the label in the field "speaker".
Blanks, control characters and `%` in a recording's name are percent-encoded, so that every name is read back unchanged.
Times are written exactly: a sample of 16 kHz is 62.5 µs, so seven digits after the point are enough.

RTTM has neither durations nor recordings without a region. Both come from the manifest that it is read with.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import polars as pl

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.data.segments import LONGEST_OVERHANG, Regions, exact_seconds, read_segments
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text

SUFFIX = ".rttm"
SPOOFED = ("spoof", "injected")
BONAFIDE = "bonafide"
"""Label of lines that are skipped: what no line marks as spoofed is bona fide."""
UNFITTED = "_threshold_not_fitted"
"""Suffix of a label whose regions were made with a threshold that was not fitted on any data."""
ENCODED = r"[\s%\x00-\x1f\x7f]|^;"  # a line that begins with ;; is a comment
COUNTS = (9, 10)
"""Numbers of fields of a line; before RT-09 there was one less."""


def encode_name(name: str) -> str:
    """Encode a recording's name as one field of RTTM.

    >>> encode_name("my call 100%"), encode_name("通话")
    ('my%20call%20100%25', '通话')
    """
    return re.sub(ENCODED, lambda found: quote(found.group(), safe=""), name)


def rttm_line(name: str, start: int, end: int, label: str, channel: int = 1) -> str:
    """Format a half-open region, in samples, as a line; channels count from 1, also for mono recordings."""
    times = f"{exact_seconds(start)} {exact_seconds(end - start)}"
    return f"SPEAKER {encode_name(name)} {channel} {times} <NA> <NA> {label} <NA> <NA>\n"


def read_regions(path: Path, manifest: Path | None) -> dict[str, Regions]:
    """Read the spoofed regions of a set: RTTM, which needs a manifest, or else its file of regions.

    Raises:
        SpoofkitError: RTTM without a manifest, or the reverse; or see `read_rttm` and `read_segments`.
    """
    is_rttm = path.suffix == SUFFIX
    if is_rttm and manifest is None:
        raise SpoofkitError(
            f"{path}: RTTM has neither durations nor utterances without a region; name the manifest of the set with "
            "--manifest"
        )
    if manifest is None:
        return read_segments(path)
    if not is_rttm:
        raise SpoofkitError(f"--manifest {manifest}: is for regions in {SUFFIX}, found {path}; leave it out")
    return read_rttm(path, read_manifest(manifest))


def read_rttm(path: Path, manifest: Manifest) -> dict[str, Regions]:
    """Read the spoofed regions of every utterance of a manifest.

    Utterances that no line names have none. Overlapping regions are merged into one.

    Args:
        path: The RTTM file; its names are ids of the manifest.
        manifest: The set.

    Raises:
        SpoofkitError: a line is no region, its name is no id, its label is unknown, or it ends after its utterance or
            is in one whose key is bonafide; or an utterance whose key is spoof has no region.
    """
    rows = {utt_id: (key, n) for utt_id, key, n in manifest.table.select("utt_id", "key", "n_samples").iter_rows()}
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for where, name, _, start, end, label in _read_lines(path):
        if name not in rows:
            raise SpoofkitError(
                f"{where}: recording {name!r} is not in {manifest.path}, expected one of its ids (blanks as %20); "
                "name the manifest of the set that the file belongs to"
            )
        if label == BONAFIDE:
            continue
        key, n_samples = rows[name]
        if key == "bonafide":
            raise SpoofkitError(
                f"{where}: a region of {name!r} is {label}, but its key in {manifest.path} is bonafide; correct one of "
                "the two"
            )
        if n_samples != UNKNOWN_LENGTH and end > n_samples + LONGEST_OVERHANG:
            raise SpoofkitError(
                f"{where}: the region ends at {exact_seconds(end)} s, but {name!r} lasts {exact_seconds(n_samples)} s; "
                "name the manifest of the audio that the file belongs to"
            )
        found[name].append((start, end))
    spoofed = manifest.table.filter(pl.col("key") == "spoof")["utt_id"].to_list()
    if without := [utt_id for utt_id in spoofed if utt_id not in found]:
        raise SpoofkitError(
            f"{path}: has no region for {len(without):,} utterances whose key is spoof (first: {without[0]!r}), "
            f"expected at least one for each; complete the file, or write '-' as their key in {manifest.path}"
        )
    return {utt_id: join_regions(found.get(utt_id, [])) for utt_id in rows}


def read_spoofed(path: Path) -> dict[str, list[tuple[int, int, int]]]:
    """Read the spoofed regions of a file without a manifest: (channel, start, end) of each line, by recording.

    A recording that is named at all is in the result, if only by lines that say bonafide.

    Raises:
        SpoofkitError: a line is no region, or its label is unknown.
    """
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for _, name, channel, start, end, label in _read_lines(path):
        found[name] += [] if label == BONAFIDE else [(channel, start, end)]
    return dict(found)


def _read_lines(path: Path) -> Iterator[tuple[str, str, int, int, int, str]]:
    """Yield of each region where it stands, name, channel, first sample, the sample after the last, and label."""
    for number, line in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), start=1):
        if line.strip() and not line.startswith(";;"):
            where = f"{path}, line {number}"
            yield where, *_parse(line, where)


def _parse(line: str, where: str) -> tuple[str, int, int, int, str]:
    """Parse a line into name, channel, first sample, the sample after the last, and label."""
    fields = line.split()
    if len(fields) not in COUNTS or fields[0] != "SPEAKER":
        raise SpoofkitError(
            f"{where}: found {line[:80]!r}, expected 'SPEAKER NAME CHANNEL START DURATION <NA> <NA> LABEL <NA> <NA>', "
            "with blanks in the name as %20"
        )
    try:
        start, seconds = float(fields[3]), float(fields[4])
        is_region = 0 <= start < math.inf and 0 < seconds < math.inf and round(seconds * SAMPLE_RATE) > 0
    except ValueError:
        is_region = False
    if not is_region:
        raise SpoofkitError(
            f"{where}: found start {fields[3]!r} and duration {fields[4]!r}, expected seconds, the duration above 0"
        )
    label = fields[7].removesuffix(UNFITTED)
    if label not in (*SPOOFED, BONAFIDE):
        raise SpoofkitError(
            f"{where}: the label (field 8) is {fields[7]!r}, expected {', '.join(SPOOFED)} or {BONAFIDE}; rename it"
        )
    channel = int(fields[2]) if fields[2].isdecimal() else 1
    return unquote(fields[1]), channel, round(start * SAMPLE_RATE), round((start + seconds) * SAMPLE_RATE), label


def join_regions(regions: Iterable[tuple[int, int]]) -> Regions:
    """Sort regions and merge those that overlap; regions that only touch stay separate."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(regions):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return np.array(joined, dtype=np.int64).reshape(-1, 2)
