"""Tables of figures on a terminal, as TSV and as LaTeX: no figure is cut, and no name of a stranger acts."""

import io

import pytest
from rich.console import Console

from spoofkit.tables import EER, Column, Table, as_html, as_latex, as_tsv, show

NAMES = Column("name", "system")
FIGURES = [Column("value", "EER, %", ".3f"), Column("n", "trials", ",")]
ROWS = [{"name": "a", "value": 1 / 3, "n": 71_237}, {"name": "b & c_d", "value": None, "n": 0}]


def shown(*parts: str | Table, width: int = 80) -> list[str]:
    stream = io.StringIO()
    show(*parts, console=Console(file=stream, width=width))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_people_get_rounded_figures_and_tsv_all_digits() -> None:
    table = Table([NAMES, *FIGURES], ROWS)
    head, _, first, second = shown(table)
    assert head.split() == ["system", "EER,", "%", "trials"]
    assert first.split() == ["a", "0.333", "71,237"]
    assert second.split() == ["b", "&", "c_d", "-", "0"]
    assert as_tsv(table) == f"name\tvalue\tn\na\t{1 / 3!r}\t71237\nb & c_d\t\t0\n"


@pytest.mark.parametrize("width", [12, 20, 30, 80])
def test_whatever_the_width_no_figure_is_cut(width: int) -> None:
    columns = [NAMES, *(Column(f"f{place}", form=".6f") for place in range(9))]
    row = {"name": "x", **{f"f{place}": place + 1 / 7 for place in range(9)}}
    lines = shown(Table(columns, [row]), width=width)
    cells = [cell for line in lines if line.startswith("x ") for cell in line.split()[1:]]
    assert cells == [f"{place + 1 / 7:.6f}" for place in range(9)]  # each once, in order, with its row's name
    assert max(map(len, lines)) <= width


def test_text_wraps_where_figures_stand_beside_it() -> None:
    words = " ".join(f"word{place}" for place in range(30))
    lines = shown(Table([NAMES, FIGURES[1], Column("words", is_text=True)], [ROWS[0] | {"words": words}]), width=40)
    assert " ".join(" ".join(lines[2:]).split()) == f"a 71,237 {words}"


@pytest.mark.parametrize("is_text", [True, False])
def test_names_of_strangers_are_shown_and_neither_markup_nor_control(is_text: bool) -> None:
    hostile = "[red]\x1b[2J\n\u202e[/]"
    row = {"name": hostile, "note": hostile}
    text = "\n".join(
        shown(hostile, Table([Column("name", hostile), Column("note", is_text=is_text)], [row]), width=200)
    )
    assert not any(character in text for character in "\x1b\u202e")
    assert text.count(r"[red]\x1b[2J") == 4  # the sentence, a heading, two cells
    assert text.count(r"[red]\x1b[2J\n\u202e[/]") == 3  # a cell has one line, a sentence may have several


def test_latex_escapes_cells_and_rules_off_the_totals() -> None:
    lines = as_latex(Table([NAMES, FIGURES[0]], ROWS, totals=[{"name": "all", "value": 2.0}])).splitlines()
    assert lines[0] == r"\begin{tabular}{lr}"
    assert lines[2] == r"system & EER, % \\"  # a heading is LaTeX already
    assert lines[4:] == [
        *(r"a & 0.333 \\", r"b \& c\_d & - \\", r"\midrule", r"all & 2.000 \\", r"\bottomrule", r"\end{tabular}")
    ]


def test_an_eer_has_as_many_digits_as_its_own_row_supports() -> None:
    rows = [{"eer_official_percent": 100 / 7, "n_bonafide": n, "n_spoof": 10**6} for n in (50, 500, 7_355, 138_688)]
    assert EER.texts(rows)[1:] == ["(14)", "14.3", "14.29", "14.286"]


def test_html_escapes_headings_and_cells() -> None:
    text = as_html(Table([Column("name", "<b>"), FIGURES[0]], [{"name": "a<script>&", "value": 1 / 3}]))
    assert "<th>&lt;b&gt;</th>" in text
    assert '<td>a&lt;script&gt;&amp;</td><td class="number">0.333</td>' in text
