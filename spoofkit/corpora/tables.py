"""Tables with a header, as people and pandas write them, and how their keys are spelled. Nothing of a corpus is here.

A field is text whatever it looks like: `NA`, `null`, `007` and an empty field stay what they are.
"""

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from spoofkit.data.manifest import KEYS, NO_KEY, UNWRITABLE
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text

SPELLINGS = {
    **dict.fromkeys(("bonafide", "bona-fide", "bona_fide", "bona fide", "genuine", "real", "human"), "bonafide"),
    **dict.fromkeys(("spoof", "spoofed", "fake", "deepfake"), "spoof"),
}
"""Spellings of the two keys that can mean only one thing; capital letters make no difference."""
AMBIGUOUS = ("0", "1")
BYTE_ORDER_MARK = "\ufeff"  # spreadsheets put it before UTF-8
NO_ATTACK = ("-", *(value for value, key in SPELLINGS.items() if key == "bonafide"))
"""What stands as the attack of a bona fide utterance, in small letters."""


def separator_of(path: Path) -> str:
    """Find what separates the columns of a table: the first of tab, `|`, semicolon and comma in its header.

    Raises:
        SpoofkitError: the header holds none of them.
    """
    header = read_text(path).removeprefix(BYTE_ORDER_MARK).partition("\n")[0]
    found = [separator for separator in "\t|;," if separator in header]
    if not found:
        raise SpoofkitError(
            f"{path}, line 1: found the header {header[:80]!r}, expected at least two column names separated by tabs, "
            "'|', semicolons or commas; give the table such a header"
        )
    return found[0]


def read_table(path: Path, separator: str, leave_out: Sequence[str] = ()) -> pl.DataFrame:
    """Read a table with a header.

    A field between commas or semicolons may be quoted (RFC 4180); between tabs or `|` a quotation mark is a character
    like others.

    Args:
        path: The table.
        separator: What stands between two fields.
        leave_out: Columns that are not wanted, whatever they hold.

    Returns:
        Text columns named as in the header: row 0 is line 2.

    Raises:
        SpoofkitError: no such file, a column without a name or with one that another has, no rows, or a line (which is
            named) with another number of fields or with a line break, tab or NUL inside a field.
    """
    text = read_text(path).removeprefix(BYTE_ORDER_MARK)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if separator in ",;" else csv.QUOTE_NONE,
        strict=True,
    )
    rows: list[list[str]] = []
    try:
        header = next(reader, [])
        _require_names(path, header)
        for row in reader:
            if len(row) != len(header) or reader.line_num != len(rows) + 2:
                raise _not_a_row(path, len(rows) + 2, row, header)
            rows.append(row)
    except csv.Error as error:
        raise SpoofkitError(
            f"{path}, line {reader.line_num}: is not a row of a table ({error}); fix its quotation marks"
        ) from error
    if not rows:
        raise SpoofkitError(f"{path}: has a header and no rows, expected one utterance a line; fill or fetch it again")
    table = pl.DataFrame(dict(zip(header, zip(*rows, strict=True), strict=True)), schema=dict.fromkeys(header, pl.Utf8))
    table = table.drop(name for name in header if name in leave_out)
    for name in table.columns:
        require(
            path, table, name, ~pl.col(name).str.contains(UNWRITABLE), "text without tabs, line breaks and NUL",
            "take them out of the table",
        )  # fmt: skip
    return table


def require(
    path: Path, table: pl.DataFrame, column: str, rule: pl.Expr, expected: str, fix: str, first_line: int = 2
) -> None:
    """Refuse a table in which a rule does not hold, naming the first line where.

    Raises:
        SpoofkitError: with the line, the value of `column` there, what was expected and how to fix it.
    """
    holds = table.select(rule.fill_null(False)).to_series()
    if not holds.all():
        index = int((~holds).arg_max() or 0)
        raise SpoofkitError(
            f"{path}, line {index + first_line}: {column} is {table[column][index]!r}, expected {expected}; {fix}"
        )


def key_meanings(values: Iterable[str], named: dict[str, str]) -> dict[str, str]:
    """Return what each value of a key column means, where that is known.

    Args:
        values: The different values there are.
        named: What the user said of values (`--key VALUE=KEY`), which goes before SPELLINGS.

    Returns:
        `bonafide` or `spoof` by value; a value whose meaning is unknown is not in it.

    Raises:
        SpoofkitError: `named` maps to something else, or speaks of a value that is not there.

    >>> key_meanings(["Bona-Fide", "fake", "1"], {"fake": "spoof"})
    {'Bona-Fide': 'bonafide', 'fake': 'spoof'}
    """
    values = list(values)
    for value, key in named.items():
        if key not in KEYS:
            raise SpoofkitError(f"--key {value}={key}: found {key!r}, expected {value}=bonafide or {value}=spoof")
        if value not in values:
            raise SpoofkitError(
                f"--key {value}={key}: no key is spelled {value!r}, found {', '.join(sorted(values)[:10])}; "
                "leave it out or fix its spelling"
            )
    meanings = {value: SPELLINGS[value.lower()] for value in values if value.lower() in SPELLINGS}
    return meanings | named


def unknown_key(where: str, value: str) -> SpoofkitError:
    """Write the message for a key whose meaning is not known."""
    both = " or ".join(f"--key {shlex.quote(f'{value}={key}')}" for key in KEYS)
    why = " (some corpora mean bona fide by it and some spoof)" if value in AMBIGUOUS else ""
    return SpoofkitError(f"{where}: key is {value!r}{why}, expected bonafide or spoof; say which it is with {both}")


def with_keys(path: Path, table: pl.DataFrame, column: str, named: dict[str, str], first_line: int = 2) -> pl.DataFrame:
    """Replace the values of a key column by `bonafide` and `spoof`; `-` stays, unless `named` says what it is.

    Raises:
        SpoofkitError: naming the first line whose key means neither.
    """
    meanings = {NO_KEY: NO_KEY} | key_meanings(table[column].unique().to_list(), named)
    unknown = ~table[column].is_in(list(meanings))
    if unknown.any():
        index = int(unknown.arg_max() or 0)
        where, value = f"{path}, line {index + first_line}", table[column][index]
        if not value.strip():
            raise SpoofkitError(f"{where}: key is {value!r}, expected bonafide or spoof; write '-' where it is unknown")
        raise unknown_key(where, value)
    return table.with_columns(pl.col(column).replace(meanings))


def _require_names(path: Path, header: list[str]) -> None:
    for number, name in enumerate(header, start=1):
        if not name.strip():
            raise SpoofkitError(
                f"{path}, line 1: column {number} has no name, expected one for each; write the table without an index "
                "(pandas: to_csv(..., index=False)) or name the column"
            )
        if name != name.strip():
            raise SpoofkitError(
                f"{path}, line 1: column {name!r} has spaces at an end, expected its bare name; take them out"
            )
        if header.index(name) != number - 1:
            raise SpoofkitError(
                f"{path}, line 1: two columns are called {name!r}, expected different names; rename one"
            )
    if not header:
        raise SpoofkitError(f"{path}: is empty, expected a header and one utterance a line; fill or fetch it again")


def _not_a_row(path: Path, line: int, row: list[str], header: list[str]) -> SpoofkitError:
    if not row:
        found = "is blank"
    elif len(row) != len(header):
        found = f"found {len(row)} fields"
    else:
        found = "a quoted field goes over several lines"
    return SpoofkitError(
        f"{path}, line {line}: {found}, expected {len(header)} fields on one line ({', '.join(header)}); fix that line"
    )
