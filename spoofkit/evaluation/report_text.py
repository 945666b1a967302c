"""The results of an evaluation as text: tables and sentences for a terminal, TSV, LaTeX."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from spoofkit import tables
from spoofkit.evaluation.bootstrap import clusters_in_words
from spoofkit.evaluation.breakdown import METRICS
from spoofkit.evaluation.error_rates import Limit
from spoofkit.evaluation.metrics import ASVSPOOF5, EER_VARIANT, DcfCosts
from spoofkit.evaluation.report_points import (
    ROUGH_RATES,
    accepted_in_words,
    decisions_in_words,
    point_tables,
    points_in_words,
    wilson_in_words,
)
from spoofkit.tables import (
    BONAFIDE,
    EER,
    FEWEST_TRIALS,
    ROUGH,
    SPOOF,
    Column,
    Row,
    Table,
    eer_text,
    few_in_words,
    figure,
    figure_text,
    rounded,
)

if TYPE_CHECKING:
    from rich.console import Console


def print_report(result: Mapping[str, Any], console: "Console | None" = None, with_points: bool = False) -> None:
    """Print the pooled figures, then those of each part, as wide as the console is (80 columns in a pipe).

    Args:
        result: As `measuring.measure_files` returns it.
        console: Where to print.
        with_points: Whether operating points have a table; two lines otherwise.
    """
    points = point_tables(result) if with_points else ()
    tables.show(*_pooled(result), *points, *_parts(result), console=console)


def _pooled(result: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"EER {rounded(result['eer_official_percent'], result)} % ({EER_VARIANT}), "
        f"{accepted_in_words(result, 'eer')}\n"
        f"minDCF {figure_text(result, 'min_dcf')}   actDCF {figure_text(result, 'act_dcf')}   "
        f"Cllr {figure_text(result, 'cllr_bits')} bits (min {figure_text(result, 'min_cllr_bits')})\n"
        f"{result['n_trials']:,} trials: {result['n_bonafide']:,} bona fide, {result['n_spoof']:,} spoof"
    )
    partial = f"partial set: {result['partial']}" if result["partial"] else ""
    said = (points_in_words, decisions_in_words, costs_in_words, intervals_in_words, tandem_in_words)
    yield from filter(None, (partial, *(words(result) for words in said)))


def _parts(result: Mapping[str, Any]) -> Iterator[str | Table]:
    one_codec = len(result["by_codec"]) == 1
    yield f"\nPer attack{'' if one_codec else ' × codec'}: EER in % is the {EER_VARIANT} variant\n"
    if one_codec:
        figures = [figure("min_dcf", "minDCF"), figure("act_dcf", "actDCF"), figure("cllr_bits", "Cllr")]
        yield Table([Column("attack"), SPOOF, EER, *figures], [*result["by_attack"], {**result, "attack": "all"}])
    else:
        yield _codec_table(result, "attack", result["by_attack"], result["by_attack_and_codec"])
    for column, rows in result["by"].items():
        cells = result["by_and_codec"].get(column)
        of = "its bona fide against its spoof trials" if cells is None else "all bona fide against its spoof trials"
        yield f"\nPer {column}: {of}\n"
        yield Table([Column(column), BONAFIDE, SPOOF, EER, figure("min_dcf", "minDCF")], rows)
        if cells and not one_codec:
            yield f"\nPer {column} × codec: EER in %\n"
            yield _codec_table(result, column, rows, cells)
    shown = [*result["by_attack"], *result["by_codec"], *(row for rows in result["by"].values() for row in rows)]
    if words := few_in_words(shown if one_codec else [*shown, *result["by_attack_and_codec"]]):
        yield f"\n{words}"


def _codec_table(
    result: Mapping[str, Any], name: str, rows: list[dict[str, Any]], cells: list[dict[str, Any]]
) -> Table:
    """Build the table of EERs by a column that only spoofs have (down) and codec (across)."""
    cell_of = {(cell[name], cell["codec"]): cell for cell in cells}
    codecs = result["by_codec"]
    lines: list[tuple[str, list[Row]]] = [
        (row[name], [row, *(cell_of[row[name], codec["codec"]] for codec in codecs)]) for row in rows
    ]
    lines.append(("all", [result, *codecs]))
    # By place and not by name: a codec may be called "all".
    columns = [Column(str(place), heading) for place, heading in enumerate(["all", *(row["codec"] for row in codecs)])]
    texts = [
        {"": value, **{str(place): eer_text(cell, most=2) for place, cell in enumerate(line)}} for value, line in lines
    ]
    return Table([Column("", name), *columns], texts)


def costs_in_words(result: Mapping[str, Any]) -> str:
    """Describe the costs of the DCFs in one line; empty if they are those of ASVspoof 5."""
    costs = DcfCosts(**result["dcf_costs"])
    if costs == ASVSPOOF5:
        return ""
    return (
        f"DCF costs, not those of ASVspoof 5: P(spoof) {costs.spoof_prior:g}, miss {costs.miss_cost:g}, false alarm "
        f"{costs.fa_cost:g}; threshold of actDCF {costs.bayes_threshold:.4f}"
    )


def intervals_in_words(result: Mapping[str, Any]) -> str:
    """Describe the intervals in one line; empty if none were requested."""
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
    return "; ".join(filter(None, (words, wilson_in_words(result, [found["eer_official_percent"]]), found["note"])))


def tandem_in_words(result: Mapping[str, Any]) -> str:
    """Describe the tandem costs in one line; empty if none were requested."""
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
    """Flatten all parts of an evaluation into rows: part, value, counts, METRICS."""
    parts = [
        ("all", [result], ()),
        *(("attack", result["by_attack"], ("attack",)), ("codec", result["by_codec"], ("codec",))),
        ("attack and codec", result["by_attack_and_codec"], ("attack", "codec")),
        *((column, rows, (column,)) for column, rows in result["by"].items()),
        *((f"{column} and codec", rows, (column, "codec")) for column, rows in result["by_and_codec"].items()),
    ]
    figures = ("n_bonafide", "n_spoof", *METRICS)
    return [
        {"part": part, "value": " ".join(row[name] for name in names), **{name: row[name] for name in figures}}
        for part, rows, names in parts
        for row in rows
    ]


def as_tsv(result: Mapping[str, Any]) -> str:
    """Format `rows_of` as TSV with all digits; the metrics of a part without one of the classes are empty."""
    rows = rows_of(result)
    return tables.as_tsv(Table([*map(Column, rows[0])], rows))


def as_latex(result: Mapping[str, Any]) -> str:
    """Format the pooled figures and those by attack as a LaTeX table (booktabs), with all the marks of the text."""
    costs = DcfCosts(**result["dcf_costs"])
    partial = f"; partial set: {' '.join(result['partial'].split())}" if result["partial"] else ""

    def rate(row: Row, name: str, is_few: bool) -> str:
        return "-" if row[name] is None else f"({row[name]:.2f})" if is_few else f"{row[name]:.2f}"

    chosen = next(row for row in result["operating_points"] if row.items() >= result["operating_point"].items())
    is_rough = bool(chosen.get("few_errors"))

    def apcer(row: Row) -> str:
        text = rate(row, "apcer_percent", row["n_spoof"] < FEWEST_TRIALS)
        return ROUGH + text if is_rough and "operating_points" in row else text  # of all trials

    columns = [
        Column("attack", "Attack"),
        Column("n_spoof", "Spoof"),
        Column("eer_official_percent", r"EER (\%)", lambda row: rate(row, "eer_official_percent", tables.has_few(row))),
        Column("min_dcf", "minDCF", ".4f"),
        Column("cllr_bits", r"$C_\mathrm{llr}$ (bits)", ".4f"),
        Column("apcer_percent", r"APCER (\%)", apcer),
    ]
    few = few_in_words([result, *result["by_attack"]])
    return (
        f"% EER: {EER_VARIANT} variant; {result['n_trials']} trials{partial}\n"
        f"% minDCF: P(spoof) {costs.spoof_prior:g}, cost of a miss {costs.miss_cost:g}, of a false alarm "
        f"{costs.fa_cost:g}\n% APCER: at the pooled threshold of {Limit(**result['operating_point'])}\n"
        + (f"% {few}\n" if few else "")
        + (f"% {ROUGH_RATES}\n" if is_rough else "")
        + tables.as_latex(Table(columns, result["by_attack"], [{**result, "attack": "Pooled"}]))
    )
