r"""How figures are shown: a table on a terminal, as TSV, LaTeX and HTML; and how many digits of a figure are written.

A table is columns and rows of plain JSON values. `--tsv`, `--json` and eval.json have all digits of them; what people
read has as many as the trials and the interval support, and a mark where there are too few trials. Text from strangers
becomes `visible` here. No figure is computed here.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from spoofkit.terminal import visible, visible_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

Row = Mapping[str, Any]
FEWEST_TRIALS = 100
"""Trials of either class: with fewer, one trial moves an error rate by more than a point; it is in parentheses."""
FEW = f"In parentheses: fewer than {FEWEST_TRIALS} bona fide or spoof trials; one moves the rate by more than a point"
ROUGH = "~"
"""Mark of a rate that rests on fewer than 30 errors, see `error_rates.FEWEST_ERRORS`."""
MOST_DIGITS = 3
"""Digits after the point of an EER in percent."""
GAP = 2  # spaces between two columns
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}"}
)


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    """Key of the value in a row, and the column's name in TSV."""
    heading: str | None = None
    """Heading on a terminal and in LaTeX. Default: the name."""
    form: str | Callable[[Row], str] = ""
    """How the value is shown: a format such as `,` or `.3f`, where None becomes `-`, or a function of the row."""
    is_text: bool = False
    """Whether it is aligned left and wrapped where the line is too short. Figures are aligned right and never cut."""
    style: Callable[[Row], str] = lambda row: ""
    """Colour of a cell on a terminal, as rich names it."""

    def texts(self, rows: Sequence[Row]) -> list[str]:
        """Format the heading and the cells for people."""
        heading = self.name if self.heading is None else self.heading
        if callable(self.form):
            return [heading, *map(self.form, rows)]
        values = (row[self.name] for row in rows)
        return [heading, *("-" if value is None else format(value, self.form) for value in values)]


@dataclass(frozen=True)
class Table:
    """Columns and rows; the first column names what a row describes."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    totals: Sequence[Row] = ()
    """Total rows, below the others."""
    has_headings: bool = True


def show(*parts: str | Table, console: "Console | None" = None) -> None:
    """Print sentences and tables for people on stdout, in a pipe too: `--tsv` and `--json` keep names as they are.

    A table is as wide as the console (80 columns in a pipe). A table without a text column to wrap is printed in as
    many blocks of columns as it needs.
    """
    from rich.console import Console

    out = console or Console(markup=False, highlight=False, emoji=False)
    for part in parts:
        if isinstance(part, str):
            out.print(visible_lines(part), soft_wrap=True, highlight=False, markup=False)
            continue
        for place, columns in enumerate(_blocks(part, out.width)):
            if place:
                out.print()
            out.print(_drawn(part, columns))


def as_tsv(table: Table) -> str:
    """Format a table as TSV with all digits; None is an empty field."""
    names = [column.name for column in table.columns]
    values = [[row[name] for name in names] for row in (*table.rows, *table.totals)]
    lines = [names, *(["" if value is None else str(value) for value in row] for row in values)]
    return "".join("\t".join(cells) + "\n" for cells in lines)


def as_latex(table: Table) -> str:
    """Format a table as LaTeX (booktabs). Headings are LaTeX already, cells are escaped."""
    rows = [*table.rows, *table.totals]
    headings, *cells = zip(*(column.texts(rows) for column in table.columns), strict=True)
    lines = [" & ".join(text.translate(LATEX) for text in row) + r" \\" for row in cells]
    if table.totals:
        lines.insert(len(table.rows), r"\midrule")
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            *(r"\toprule", " & ".join(headings) + r" \\", r"\midrule"),
            *lines,
            *(r"\bottomrule", r"\end{tabular}", ""),
        ]
    )


def as_html(table: Table) -> str:
    """Format a table as HTML; text is escaped, all columns but the first have the class `number`."""
    rows = [*table.rows, *table.totals]

    def line(texts: Sequence[str], tag: str) -> str:
        first, *others = (escape(visible(text)) for text in texts)
        return f"<tr><{tag}>{first}</{tag}>" + "".join(f'<{tag} class="number">{x}</{tag}>' for x in others) + "</tr>\n"

    headings, *cells = zip(*(column.texts(rows) for column in table.columns), strict=True)
    body = "".join(line(texts, "td") for texts in cells)
    return f"<table>\n<thead>{line(headings, 'th')}</thead>\n<tbody>\n{body}</tbody></table>\n"


def _blocks(table: Table, width: int) -> Iterator[Sequence[Column]]:
    """Yield the columns of tables that fit a width, each with the first column and some of the others."""
    first, *others = table.columns
    if any(column.is_text for column in others):
        yield table.columns
        return
    rows = [*table.rows, *table.totals]
    first_width, *widths = (max(len(visible(text)) for text in column.texts(rows)) for column in table.columns)
    block: list[Column] = []
    used = first_width
    for column, needed in zip(others, widths, strict=True):
        if block and used + GAP + needed > width:
            yield [first, *block]
            block, used = [], first_width
        block.append(column)
        used += GAP + needed
    yield [first, *block]


def _drawn(table: Table, columns: Sequence[Column]) -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        box=box.SIMPLE_HEAD if table.has_headings else None,
        show_header=table.has_headings,
        show_edge=False,
        padding=(0, 0, 0, GAP - table.has_headings),  # of a headed table the rule adds one
        pad_edge=False,
    )
    rows = [*table.rows, *table.totals]
    cells = []
    has_text = any(column.is_text for column in columns)
    for place, column in enumerate(columns):
        # Text and not str: a name such as "[b]" is a name, not markup.
        heading, *texts = map(visible, column.texts(rows))
        is_number = isinstance(column.form, str) and column.form != ""
        is_left = column.is_text or (place == 0 and not is_number)
        wraps = column.is_text or (place == 0 and not has_text)
        drawn.add_column(Text(heading), justify="left" if is_left else "right", no_wrap=not wraps, overflow="fold")
        cells.append([Text(text, column.style(row)) for text, row in zip(texts, rows, strict=True)])
    for row_cells in zip(*cells, strict=True):
        drawn.add_row(*row_cells)
    return drawn


# ---- Digits


def eer_digits(row: Row) -> int:
    """Return the digits after the point that an EER in percent supports.

    Args:
        row: Has `n_bonafide` and `n_spoof`: the smaller decides by how much one trial moves the EER, below 1 point for
            one digit, 0.1 for two. If it has `intervals`, also no more than two digits of half the interval's width.

    >>> [eer_digits({"n_bonafide": n, "n_spoof": 10**6}) for n in (10, 100, 7_355, 138_688)]
    [0, 1, 2, 3]
    >>> eer_digits({"n_bonafide": 10**5, "n_spoof": 10**5, "intervals": {"eer_official_percent": [19.0, 38.0]}})
    1
    """
    ends = (row.get("intervals") or {}).get("eer_official_percent")
    return percent_digits(min(row["n_bonafide"], row["n_spoof"]), ends)


def percent_digits(n_trials: int, ends: Sequence[float] | None = None) -> int:
    """Return the digits after the point that a rate in percent of some trials supports, given its interval if known."""
    digits = int(math.log10(max(1, n_trials))) - 1
    if ends is not None and ends[1] > ends[0]:
        digits = min(digits, 1 - math.floor(math.log10((ends[1] - ends[0]) / 2)))
    return min(MOST_DIGITS, max(0, digits))


def eer_text(row: Row, most: int = MOST_DIGITS) -> str:
    """Format a row's EER in percent; in parentheses where it has too few trials, empty where it has none.

    >>> eer_text({"n_bonafide": 500, "n_spoof": 10, "eer_official_percent": 0.0})
    '(0)'
    """
    if row["eer_official_percent"] is None:
        return ""
    text = f"{row['eer_official_percent']:.{min(most, eer_digits(row))}f}"
    return f"({text})" if has_few(row) else text


def has_few(row: Row) -> bool:
    """Return whether the EER of a row rests on too few trials, and so is put in parentheses."""
    return row["eer_official_percent"] is not None and min(row["n_bonafide"], row["n_spoof"]) < FEWEST_TRIALS


def few_in_words(rows: Iterable[Row]) -> str:
    """Explain the parentheses, if one of the rows has too few trials; otherwise empty."""
    return FEW if any(map(has_few, rows)) else ""


def rounded(value: float, row: Row, more: int = 0) -> str:
    """Format a number with as many digits after the point as the row's EER has, plus `more`."""
    return f"{value:.{eer_digits(row) + more}f}"


def number_text(value: float) -> str:
    """Format a float64 with enough digits to restore it, nine if they suffice."""
    text = f"{value:.9g}"
    return text if float(text) == value else repr(value)


def figure_text(row: Row, name: str) -> str:
    """Format another figure of a row, such as `min_dcf`: one digit more than its EER has, empty where it has none."""
    return "" if row[name] is None else rounded(row[name], row, 1)


def figure(name: str, heading: str) -> Column:
    """Return a column of such a figure."""
    return Column(name, heading, lambda row: figure_text(row, name))


EER = Column("eer_official_percent", "EER, %", eer_text)
BONAFIDE, SPOOF = Column("n_bonafide", "bona fide", ","), Column("n_spoof", "spoof", ",")
