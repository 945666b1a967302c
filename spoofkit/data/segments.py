"""The file of spoofed regions, one per set, beside its manifest: which parts of each utterance are spoofed.

    # rows=3
    utt_id         start_seconds  end_seconds
    CON_D_0000000  1.06           1.8
    CON_D_0000000  2.5            2.75
    LA_D_1047731   -              -

Tab-separated, sorted by utterance and start. It holds every utterance of the set: one without a spoofed region has `-`
in both columns. Regions are half-open, do not overlap, and lie on samples of 16 kHz; labels of any resolution are
derived from them. This module knows no corpus' labels.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text, write_text

COLUMNS = ("utt_id", "start_seconds", "end_seconds")
NONE = "-"
LONGEST_OVERHANG = SAMPLE_RATE // 100 - 1
"""Number of samples by which a region may extend beyond its utterance, as labels of 10 ms segments may."""

Regions = npt.NDArray[np.int64]
"""Half-open (start, end) of an utterance's spoofed regions in samples, ascending; shape (regions, 2)."""


def segment_table(regions: Mapping[str, Sequence[tuple[int, int]]]) -> pl.DataFrame:
    """Build the table of a set's regions.

    Args:
        regions: Spoofed regions of every utterance of the set, half-open, in samples; empty if there are none.

    Returns:
        Text columns COLUMNS, sorted.

    Raises:
        SpoofkitError: a region is empty, begins before its utterance, or overlaps the one before it.
    """
    rows = []
    for utt_id in sorted(regions):
        own = sorted(regions[utt_id])
        _check(utt_id, own, "regions")
        rows += [(utt_id, exact_seconds(start), exact_seconds(end)) for start, end in own] or [(utt_id, NONE, NONE)]
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.Utf8), orient="row")


def write_segments(path: Path | str, table: pl.DataFrame, overwrite: bool = False) -> None:
    """Write the table of `segment_table`.

    Raises:
        SpoofkitError: the file exists and `overwrite` is false, or the disk refuses.
    """
    write_text(path, segments_text(table), overwrite)


def segments_text(table: pl.DataFrame) -> str:
    """Return what `write_segments` writes."""
    body = table.write_csv(separator="\t", quote_style="never")
    return f"# rows={table.height}\n{body}"


def read_segments(path: Path | str) -> dict[str, Regions]:
    """Read the spoofed regions of every utterance of a set.

    Raises:
        SpoofkitError: no such file, another kind of file, cut short, a time that is no number, a region that is empty
            or overlaps another, an utterance whose lines are not adjacent or that has both `-` and a region.
    """
    text = read_text(path)
    first, _, body = text.partition("\n")
    if not first.startswith("# rows=") or not body:
        raise SpoofkitError(
            f"{path}: begins with {first[:60]!r}, expected a file of spoofed regions, whose first line is '# rows=N'; "
            "`spoofkit prepare partialspoof` writes such files; an RTTM file ends in .rttm"
        )
    try:
        table = pl.read_csv(io.StringIO(body), separator="\t", quote_char=None, infer_schema=False).fill_null("")
    except pl.exceptions.PolarsError as error:
        raise SpoofkitError(f"{path}: not a tab-separated table ({str(error).splitlines()[0]})") from error
    if tuple(table.columns) != COLUMNS:
        raise SpoofkitError(
            f"{path}: has the columns {', '.join(table.columns)}, expected {', '.join(COLUMNS)}; rename them"
        )
    if first != f"# rows={table.height}" or not text.endswith("\n"):
        raise SpoofkitError(
            f"{path}: holds {table.height} rows but states {first[2:]!r}; it is cut short or was edited, so recreate it"
        )
    return _by_utterance(table, str(path))


def _by_utterance(table: pl.DataFrame, where: str) -> dict[str, Regions]:
    found: dict[str, list[tuple[int, int]]] = {}
    last = None
    for line, (utt_id, start, end) in enumerate(table.iter_rows(), start=3):
        is_none = (start, end) == (NONE, NONE)
        if utt_id in found and (utt_id != last or is_none or not found[utt_id]):
            raise SpoofkitError(
                f"{where}, line {line}: {utt_id!r} is on earlier lines too, expected its regions on adjacent lines, or "
                "one line with '-'; sort the file"
            )
        own = found.setdefault(utt_id, [])
        last = utt_id
        if not is_none:
            own.append((_samples(start, where, line), _samples(end, where, line)))
            _check(utt_id, own[-2:], f"{where}, line {line}")
    return {utt_id: np.array(own, dtype=np.int64).reshape(-1, 2) for utt_id, own in found.items()}


def _check(utt_id: str, own: Sequence[tuple[int, int]], where: str) -> None:
    """Refuse regions that are not ascending."""
    before = 0
    for start, end in own:
        if not before <= start < end:
            raise SpoofkitError(
                f"{where}: region {exact_seconds(start)} to {exact_seconds(end)} s of {utt_id!r} is empty or overlaps "
                "the one before it, expected ascending regions that share no sample; correct it there"
            )
        before = end


def exact_seconds(n_samples: int) -> str:
    """Format a number of samples in seconds, exactly: a sample is 62.5 µs, so seven digits are enough."""
    return f"{n_samples / SAMPLE_RATE:.7f}".rstrip("0").rstrip(".")


def _samples(seconds: str, where: str, line: int) -> int:
    try:
        value = float(seconds) * SAMPLE_RATE
        return round(value)
    except (ValueError, OverflowError) as error:
        raise SpoofkitError(
            f"{where}, line {line}: found {seconds!r}, expected a time in seconds, or '-' in both columns"
        ) from error
