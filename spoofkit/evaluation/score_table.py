"""The table that `score` writes of recordings, and of its decisions on a manifest: a row for each, a header of COLUMNS.

Tab-separated, without quotes; or comma-separated and quoted where needed, if the file ends in `.csv`. Why a recording
has no score stands in `error`; then its other cells are empty, but for the decision, which is `abstain`. `channel`
says which one of a recording was scored, from 1; it is empty where all were, as their mean, and missing of a manifest.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from spoofkit.errors import SpoofkitError

COLUMNS = (
    "filename",
    "channel",
    "cm-score",
    "llr",
    "bonafide_probability",
    "decision",
    "seconds",
    "speech_seconds",
    "remarks",
    "error",
)
"""In this order; some may be missing, no other may stand between them."""


def columns_of(data: bytes) -> list[str]:
    """Return the columns of a table, given the bytes of a file; empty if they are none."""
    first = data.split(b"\n", 1)[0].decode("utf-8", "replace")
    names = first.split(_separator(first))
    known = [name for name in COLUMNS if name in names]
    return names if names == known and {"filename", "cm-score", "error"} <= set(names) else []


def score_column(names: Iterable[str]) -> str:
    """Return the column that counts as the score: log-likelihood ratios, if a calibration made them."""
    return "llr" if "llr" in names else "cm-score"


def table_text(path: Path, names: list[str], rows: Iterable[dict[str, str]]) -> str:
    """Return a table as a file of the name `path` holds it.

    Args:
        path: Says by `.csv` that commas separate the cells.
        names: The columns.
        rows: Cells by column, without tabs and line breaks; those of other columns are left out.
    """
    if path.suffix != ".csv":
        return "".join("\t".join(cells) + "\n" for cells in (names, *([row[name] for name in names] for row in rows)))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_table(text: str, path: Path | str) -> list[dict[str, str]]:
    """Read the rows of a table, of which there is at least one.

    Raises:
        SpoofkitError: naming `path`; there is no row, or one has other columns than the header.
    """
    lines = io.StringIO(text, newline="")
    is_quoted = _separator(text.split("\n", 1)[0]) == ","
    try:
        names, *rows = (
            csv.reader(lines, strict=True) if is_quoted else (line.rstrip("\n").split("\t") for line in lines)
        )
    except csv.Error as error:
        raise SpoofkitError(f"{path}: cannot be read as a table ({error}); score again") from error
    if not rows:
        raise SpoofkitError(f"{path}: has a header but no recording, expected one a line; score again")
    for number, cells in enumerate(rows, 2):
        if len(cells) != len(names):
            raise SpoofkitError(
                f"{path}: row {number} has {len(cells)} cells, expected {len(names)} as in the header; the file was "
                "cut short or changed, so score again"
            )
    return [dict(zip(names, cells, strict=True)) for cells in rows]


def _separator(header: str) -> str:
    return "," if "," in header else "\t"
