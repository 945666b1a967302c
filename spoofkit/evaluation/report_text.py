"""The results of an evaluation as text: tables for a terminal, TSV, LaTeX, sentences."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from spoofkit.evaluation.breakdown import METRICS
from spoofkit.evaluation.digits import FEWEST_TRIALS, eer_text, figure_text, has_few, rounded
from spoofkit.evaluation.metrics import ASVSPOOF5, EER_VARIANT, DcfCosts
from spoofkit.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


FEW = f"In parentheses: fewer than {FEWEST_TRIALS} bona fide or spoof trials; one moves the EER by more than a point"
CLUSTERS = {"speaker": "speakers", "speaker_attack": "speakers and attacks", "trial": "single trials"}
"""What is drawn, in words."""


def clusters_in_words(found: Mapping[str, Any], n_trials: int) -> str:
    """How many of what are drawn, from the record of some intervals."""
    in_groups = found["resampled"] == "trial" and found["n_clusters"] < n_trials
    return f"{found['n_clusters']:,} {'random groups of trials' if in_groups else CLUSTERS[found['resampled']]}"


def print_table(result: Mapping[str, Any], console: "Console") -> None:
    """Print the pooled numbers, then the EER per attack × codec, as wide as the console is (80 columns in a pipe)."""
    say = {"highlight": False, "markup": False, "soft_wrap": True}
    console.print(
        f"EER {rounded(result['eer_official_percent'], result)} % ({EER_VARIANT}), "
        f"threshold {result['eer_threshold']:.6g}\n"
        f"minDCF {figure_text(result, 'min_dcf')}   actDCF {figure_text(result, 'act_dcf')}   "
        f"Cllr {figure_text(result, 'cllr_bits')} bits (min {figure_text(result, 'min_cllr_bits')})\n"
        f"{result['n_trials']:,} trials: {result['n_bonafide']:,} bona fide, {result['n_spoof']:,} spoof",
        **say,  # type: ignore[arg-type]
    )
    partial = f"partial set: {result['partial']}" if result["partial"] else ""
    for line in (partial, costs_in_words(result), intervals_in_words(result), tandem_in_words(result)):
        if line:
            console.print(line, **say)  # type: ignore[arg-type]
    one_codec = len(result["by_codec"]) == 1
    console.print(f"\nPer attack{'' if one_codec else ' × codec'}: EER in % is the {EER_VARIANT} variant", **say)  # type: ignore[arg-type]
    tables = _codec_tables(result, "attack", result["by_attack"], result["by_attack_and_codec"], console.width)
    for table in [_attack_table(result)] if one_codec else tables:
        console.print()
        console.print(table)
    for column, rows in result["by"].items():
        cells = result["by_and_codec"].get(column)
        of = "its bona fide against its spoof trials" if cells is None else "all bona fide against its spoof trials"
        console.print(f"\nPer {column}: {of}", **say)  # type: ignore[arg-type]
        table = _table([column, "bona fide", "spoof", "EER, %", "minDCF"])
        for row in rows:
            numbers = (f"{row['n_bonafide']:,}", f"{row['n_spoof']:,}", eer_text(row), figure_text(row, "min_dcf"))
            _add_row(table, row[column], *numbers)
        console.print()
        console.print(table)
        if cells and not one_codec:
            console.print(f"\nPer {column} × codec: EER in %", **say)  # type: ignore[arg-type]
            for table in _codec_tables(result, column, rows, cells, console.width):
                console.print()
                console.print(table)
    shown = [*result["by_attack"], *result["by_codec"], *(row for rows in result["by"].values() for row in rows)]
    if has_few(shown if one_codec else [*shown, *result["by_attack_and_codec"]]):
        console.print(f"\n{FEW}", **say)  # type: ignore[arg-type]


def costs_in_words(result: Mapping[str, Any]) -> str:
    """One line about the costs of the DCFs; empty if they are those of ASVspoof 5."""
    costs = DcfCosts(**result["dcf_costs"])
    if costs == ASVSPOOF5:
        return ""
    return (
        f"DCFs with P(spoof) {costs.spoof_prior:g}, costs {costs.miss_cost:g} of a miss and {costs.fa_cost:g} of a "
        f"false alarm, not those of ASVspoof 5; actDCF cuts at {costs.bayes_threshold:.4f}"
    )


def intervals_in_words(result: Mapping[str, Any]) -> str:
    """One line about the intervals; empty if none were asked for."""
    found = result.get("intervals")
    if found is None:
        return ""
    if "left_out" in found:
        return f"no intervals: {found['left_out']}"
    low, high = found["eer_official_percent"]
    low_dcf, high_dcf = found["min_dcf"]
    words = (
        f"{found['confidence']:.0%} intervals: EER {rounded(low, result)} to {rounded(high, result)} %, "
        f"minDCF {rounded(low_dcf, result, 1)} to {rounded(high_dcf, result, 1)} "
        f"({found['n_replicates']:,} draws of {clusters_in_words(found, result['n_trials'])})"
    )
    return f"{words}; {found['note']}" if found["note"] else words


def tandem_in_words(result: Mapping[str, Any]) -> str:
    """One line about the tandem costs; empty if none were asked for."""
    found = result.get("tandem")
    if found is None:
        return ""
    teer = "" if found["teer_percent"] is None else f"concurrent t-EER {found['teer_percent']:.3f} %; "
    return (
        f"min t-DCF {found['min_tdcf_2021']:.6f} (version of 2021 and 5), {found['min_tdcf_2019']:.6f} (legacy, 2019); "
        f"{teer}ASV: miss {found['asv']['miss']:.4%}, false alarm {found['asv']['fa']:.4%}, of spoofs "
        f"{found['asv']['fa_spoof']:.4%}"
    )


def rows_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All parts of an evaluation as flat rows: what they are of, their counts, METRICS."""

    def row(part: str, value: str, of: Mapping[str, Any]) -> dict[str, Any]:
        counts = {"n_bonafide": of["n_bonafide"], "n_spoof": of["n_spoof"]}
        return {"part": part, "value": value, **counts, **{name: of[name] for name in METRICS}}

    rows = [row("all", "", result)]
    rows += [row("attack", entry["attack"], entry) for entry in result["by_attack"]]
    rows += [row("codec", entry["codec"], entry) for entry in result["by_codec"]]
    pairs = result["by_attack_and_codec"]
    rows += [row("attack and codec", f"{entry['attack']} {entry['codec']}", entry) for entry in pairs]
    for column, entries in result["by"].items():
        rows += [row(column, entry[column], entry) for entry in entries]
    for column, entries in result["by_and_codec"].items():
        rows += [row(f"{column} and codec", f"{entry[column]} {entry['codec']}", entry) for entry in entries]
    return rows


def as_tsv(result: Mapping[str, Any]) -> str:
    """`rows_of` as a table with tabs, all digits; a part without trials of a class has empty fields."""
    rows = rows_of(result)
    lines = ["\t".join(rows[0])]
    lines += ["\t".join("" if value is None else str(value) for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def as_latex(result: Mapping[str, Any]) -> str:
    """The pooled figures and those by attack as a LaTeX table (booktabs)."""
    costs = DcfCosts(**result["dcf_costs"])
    escaped = str.maketrans(
        {character: f"\\{character}" for character in "&%$#_{}"}
        | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}"}
    )
    lines = [
        f"% EER: {EER_VARIANT} variant; {result['n_trials']} trials{_partial(result)}",
        f"% minDCF: P(spoof) {costs.spoof_prior:g}, cost of a miss {costs.miss_cost:g}, of a false alarm "
        f"{costs.fa_cost:g}",
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"Attack & Spoof & EER (\%) & minDCF & $C_\mathrm{llr}$ (bits) \\",
        r"\midrule",
    ]
    for name, row in [*((entry["attack"], entry) for entry in result["by_attack"]), ("Pooled", result)]:
        if row is result:
            lines.append(r"\midrule")
        numbers = f"{row['eer_official_percent']:.2f} & {row['min_dcf']:.4f} & {row['cllr_bits']:.4f}"
        lines.append(f"{name.translate(escaped)} & {row['n_spoof']} & {numbers} " + r"\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _partial(result: Mapping[str, Any]) -> str:
    words = " ".join(result["partial"].split())
    return f"; partial set: {words}" if words else ""


def _attack_table(result: Mapping[str, Any]) -> "Table":
    table = _table(["attack", "spoof", "EER, %", "minDCF", "actDCF", "Cllr"])
    pooled = {"attack": "all", **result}
    for row in (*result["by_attack"], pooled):
        numbers = (figure_text(row, name) for name in ("min_dcf", "act_dcf", "cllr_bits"))
        _add_row(table, row["attack"], f"{row['n_spoof']:,}", eer_text(row), *numbers)
    return table


def _codec_tables(
    result: Mapping[str, Any], name: str, rows: list[dict[str, Any]], cells: list[dict[str, Any]], width: int
) -> Iterator["Table"]:
    """EER per value of a column that only spoofs have (down) and codec (across), in as many tables as fit the width."""
    cell_of = {(cell[name], cell["codec"]): cell for cell in cells}
    # By place and not by name: a codec may be called "all".
    columns = [("all", [*rows, result])]
    for codec in result["by_codec"]:
        columns.append((codec["codec"], [*(cell_of[row[name], codec["codec"]] for row in rows), codec]))
    texts = [(codec, [eer_text(row, most=2) for row in column]) for codec, column in columns]
    values = [*(row[name] for row in rows), "all"]
    first_width = max(map(len, [*values, name])) + 2
    blocks: list[list[tuple[str, list[str]]]] = []
    used = width
    for codec, column in texts:
        needed = max(map(len, [codec, *column])) + 2
        if used + needed > width:
            blocks.append([])
            used = first_width
        blocks[-1].append((codec, column))
        used += needed
    for block in blocks:
        table = _table([name, *(codec for codec, _ in block)])
        for place, value in enumerate(values):
            _add_row(table, value, *(column[place] for _, column in block))
        yield table


def _table(columns: list[str]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Text and not str: a name such as "[b]" is a name, not markup.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(Text(visible(column)), justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _add_row(table: "Table", *texts: str) -> None:
    from rich.text import Text

    table.add_row(*(Text(visible(text)) for text in texts))
