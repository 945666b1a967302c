"""The table of `score`, for recordings and for decisions on a manifest: one row each, with a header of COLUMNS.

Tab-separated, without quotes; or, if the file's name ends in `.csv`, for spreadsheets: comma-separated, quoted where
needed, and with `./` before a text that they would compute. If a recording has no score, `error` says why, the decision
is `abstain` and the other cells are empty. `channel` is the number of the scored channel, from 1. It is empty if the
mean of all channels was scored; tables of a manifest have no such column.
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
"""All columns, in this order; some may be missing, others are not allowed."""
FORMULA = tuple("=+-@\t\r")
"""Beginnings of what spreadsheets compute instead of showing it."""


def columns_of(data: bytes) -> list[str]:
    """Return the columns of a table, given the bytes of a file; empty if the file is not such a table."""
    first = io.BytesIO(data).readline().rstrip(b"\n").decode("utf-8", "replace")
    names = first.split(_separator(first))
    known = [name for name in COLUMNS if name in names]
    return names if names == known and {"filename", "cm-score", "error"} <= set(names) else []


def score_column(names: Iterable[str]) -> str:
    """Return the column to use as the score: the log-likelihood ratios, if there are any, else the raw scores."""
    return "llr" if "llr" in names else "cm-score"


def table_text(path: Path, names: list[str], rows: Iterable[dict[str, str]]) -> str:
    """Format a table for the file `path`.

    Args:
        path: If it ends in `.csv`, the table is for spreadsheets.
        names: The columns.
        rows: Cells by column, for TSV without tabs and line breaks; cells of other columns are ignored.
    """
    line = _csv_line if path.suffix == ".csv" else "\t".join
    return "".join(line(cells) + "\n" for cells in (names, *([row[name] for name in names] for row in rows)))


def _csv_line(cells: list[str]) -> str:
    """Return a line of CSV without its end."""
    text = io.StringIO()
    # Before Python 3.13, only characters of the line's end are quoted: with "\n" alone a cell could not hold "\r".
    csv.writer(text, lineterminator="\r\n").writerow(map(_as_shown, cells))
    return text.getvalue().removesuffix("\r\n")


def _as_shown(cell: str) -> str:
    """Return a cell that a spreadsheet does not compute; a name stays that of its file."""
    try:
        float(cell)
    except ValueError:
        return f"./{cell}" if cell.startswith(FORMULA) else cell
    return cell


def _as_meant(cell: str) -> str:
    """Return the cell of which `_as_shown` made this one."""
    return cell[2:] if cell.startswith("./") and cell[2:].startswith(FORMULA) else cell


def read_table(text: str, path: Path | str) -> list[dict[str, str]]:
    """Read the rows of a table, at least one.

    Raises:
        SpoofkitError: the table has no row, or a row has another number of cells than the header.
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
        raise SpoofkitError(f"{path}: has a header but no rows, expected one recording per line; score again")
    for number, cells in enumerate(rows, 2):
        if len(cells) != len(names):
            raise SpoofkitError(
                f"{path}: row {number} has {len(cells)} cells, expected {len(names)} as in the header; the file was "
                "cut short or changed, so score again"
            )
    return [dict(zip(names, map(_as_meant, cells) if is_quoted else cells, strict=True)) for cells in rows]


def _separator(header: str) -> str:
    return "," if "," in header else "\t"
