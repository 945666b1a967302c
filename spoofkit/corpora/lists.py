"""Reading a released list strictly: every line has its columns, every rule holds, and what does not is named."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text
from spoofkit.suggestions import nearest_name

NOT_RELEASED = "it is not the released list"


def read_columns(
    path: Path, names: Sequence[str], separator: str = " ", conclusion: str = NOT_RELEASED
) -> pl.DataFrame:
    """Read a list without header: every line has these columns, exactly one separator between two.

    Returns:
        Text columns in the order of the file: row 0 is line 1. A final blank line is not one; CRLF is a line's end.

    Raises:
        SpoofkitError: no such file, it is empty, or a line (which is named) has other columns.
    """
    # Reading as text has made CRLF one character; Windows' editors may put a byte-order mark before all.
    lines = pl.Series(read_text(path).removeprefix("\ufeff").removesuffix("\n").split("\n"), dtype=pl.Utf8)
    if lines.len() == 1 and not lines[0]:
        raise SpoofkitError(f"{path}: is empty, expected one trial a line; unpack or fetch it again")
    n_columns = lines.str.count_matches(separator, literal=True) + 1
    has_tab = lines.str.contains("\t", literal=True) if separator != "\t" else pl.repeat(False, lines.len(), eager=True)
    wrong = (n_columns != len(names)) | has_tab
    if wrong.any():
        index = wrong.arg_max() or 0
        called = {" ": "spaces", "\t": "tabs", "|": "'|'", ",": "commas"}[separator]
        found = f"found {n_columns[index]} columns separated by {called}" if lines[index] else "is blank"
        found += " and a tab" if has_tab[index] else ""
        raise SpoofkitError(
            f"{path}, line {index + 1}: {found}, expected {len(names)} ({' '.join(names)}); {conclusion}"
        )
    fields = lines.str.split_exact(separator, len(names) - 1).struct.rename_fields(list(names))
    return fields.struct.unnest()


def require_rows(
    path: Path, table: pl.DataFrame, rules: dict[str, pl.Expr], first_line: int = 1, conclusion: str = NOT_RELEASED
) -> None:
    """Refuse a list in which a rule does not hold, naming the first line where.

    Args:
        path: The list, for the message.
        table: Its rows.
        rules: What is said of a row that breaks a rule, with `{column!r}` for its values; and what must hold. Of
            several that the same row breaks the first is said.
        first_line: Line number of the first row.
        conclusion: What follows for the person who reads it.

    Raises:
        SpoofkitError: naming the line, what was found and what was expected.
    """
    broken: dict[int, str] = {}
    for sentence, rule in rules.items():
        holds = table.select(rule.fill_null(False)).to_series()
        if not holds.all():
            broken.setdefault(int((~holds).arg_max() or 0), sentence)
    if broken:
        index = min(broken)
        problem = broken[index].format(**table.row(index, named=True))
        raise SpoofkitError(f"{path}, line {index + first_line}: {problem}; {conclusion}")


def with_scores(path: Path, table: pl.DataFrame, conclusion: str) -> pl.DataFrame:
    """Add the column `score`, the numbers that `text` holds.

    Raises:
        SpoofkitError: the first line whose text is not a finite number.
    """
    # Not strict: text that is not a number becomes null, which is refused below with its line number.
    numbers = table["text"].cast(pl.Float64, strict=False)  # polars would raise without the line
    table = table.with_columns(numbers.alias("score"))
    finite = {"score is {text!r}, expected a finite number": pl.col("score").is_finite()}
    require_rows(path, table, finite, conclusion=conclusion)
    return table


def require_unique(
    path: Path, table: pl.DataFrame, column: str, first_line: int = 1, conclusion: str = NOT_RELEASED
) -> None:
    """Refuse a list in which a value of a column stands twice.

    Raises:
        SpoofkitError: naming both lines.
    """
    if table[column].n_unique() == table.height:
        return
    again = int((~table[column].is_first_distinct()).arg_max() or 0)
    value = table[column][again]
    before = int((table[column] == value).arg_max() or 0)
    raise SpoofkitError(
        f"{path}, line {again + first_line}: {column} {value!r} stood in line {before + first_line} already; "
        f"{conclusion}"
    )


def find_list(folder: Path, places: Sequence[str], how: str) -> Path:
    """Return the first of some places below the corpus folder where a list lies.

    Raises:
        SpoofkitError: it is in none of them; `how` says how to fix it.
    """
    for place in places:
        if (folder / place).is_file():
            return folder / place
    others = f", nor {', nor '.join(places[1:])}" if places[1:] else ""
    raise SpoofkitError(f"{folder / places[0]}: no such file{others}{nearest_name(folder / places[0])}; {how}")
