"""A stress card as text: the table on the terminal and in the page, the TSV, and the sentences below them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spoofkit.addons.stress.conditions import CLEAN, GROUPS
from spoofkit.evaluation.bootstrap import clusters_in_words
from spoofkit.evaluation.error_rates import FEWEST_ERRORS
from spoofkit.tables import BONAFIDE, ROUGH, SPOOF, Column, Row, Table, eer_text, few_in_words, percent_digits, show

LEVEL = 0.05
"""Corrected p value from which a difference is marked."""
RATES = ("apcer", "bpcer")


def grouped(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows of each group with its title, in the order of GROUPS, and in it the highest EER first."""
    found = [(title, [row for row in rows if row["group"] == group]) for group, title in GROUPS.items()]
    return [(title, sorted(own, key=lambda row: -row["eer_official_percent"])) for title, own in found if own]


def print_card(result: Mapping[str, Any]) -> None:
    """Print the card's table, worst condition first in each group, and what must be known to read it."""
    show(f"{heading(result)}\n", card_table(result), "\n" + "\n".join(notes(result)))


def heading(result: Mapping[str, Any]) -> str:
    """Return a line about the trials."""
    clean = result["rows"][0]
    n_trials = clean["n_bonafide"] + clean["n_spoof"]
    part = f", drawn evenly from {result['n_of_list']:,}" if n_trials < result["n_of_list"] else ""
    speakers = f"{result['n_speakers']:,} speakers" if result["n_speakers"] else "speakers not known"
    return (
        f"{n_trials:,} trials: {clean['n_bonafide']:,} bona fide, {clean['n_spoof']:,} spoof{part}; {speakers}; "
        f"{len(result['rows']) - 1} conditions"
    )


def card_table(result: Mapping[str, Any]) -> Table:
    """Return the table for people: the clean row, then each group under its title."""
    rows: list[Row] = [_shown(result["rows"][0])]
    for title, own in grouped(result["rows"]):
        rows += [dict.fromkeys(rows[0], "") | {"condition": title}, *map(_shown, own)]
    return Table(columns(result), rows)


def columns(result: Mapping[str, Any]) -> list[Column]:
    """Return the columns of the table for people, as far as the card has their figures."""
    has_intervals = not result["resampled"]["left_out"]
    return [
        Column("condition"),
        Column("eer", "EER, %"),
        *([Column("eer_interval", "95 %")] if has_intervals else []),
        Column("difference", "to clean"),
        Column("apcer", "APCER, %"),
        Column("bpcer", "BPCER, %"),
        *([Column("cllr", "Cllr"), Column("min_cllr", "at best")] if result["threshold"]["is_llr"] else []),
    ]


def _shown(row: Row) -> Row:
    """Format a row for people."""
    digits = min(1, percent_digits(min(row["n_bonafide"], row["n_spoof"])))
    ends, p = row["eer_interval"], row["difference_p_holm"]
    difference = "" if row["condition"] == CLEAN else f"{row['difference_percent']:+.{digits}f}"
    shown = {
        "condition": row["condition"],
        "says": row["says"],
        "eer": eer_text(row, most=1),
        "eer_interval": "-" if ends is None else f"{ends[0]:.{digits}f}-{ends[1]:.{digits}f}",
        "difference": difference + (" *" if p is not None and p < LEVEL else "  " if difference else ""),
        **{rate: rate_text(row, rate) for rate in RATES},
    }
    bits = {"cllr": row["cllr_bits"], "min_cllr": row["min_cllr_bits"]}
    return shown | {name: "-" if value is None else f"{value:.2f}" for name, value in bits.items()}


def rate_text(row: Row, rate: str) -> str:
    """Format APCER or BPCER; with the mark ROUGH if it rests on fewer than FEWEST_ERRORS errors."""
    n_trials = row["n_spoof" if rate == "apcer" else "n_bonafide"]
    text = f"{row[f'{rate}_percent']:.{min(1, percent_digits(n_trials))}f}"
    return ROUGH + text if row[f"{rate}_few_errors"] else text


def notes(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences that must be known to read the card."""
    threshold, how = result["threshold"], result["resampled"]
    yield (
        f"APCER (spoof accepted) and BPCER (bona fide rejected) are at one threshold for all conditions: accept from "
        f"{threshold['accept_from']:.6g} ({threshold['words']})."
    )
    if any(row[f"{rate}_few_errors"] for row in result["rows"] for rate in RATES):
        yield f"{ROUGH}: fewer than {FEWEST_ERRORS} errors, so the rate is not known to 30 % of it (rule of 30)."
    if words := few_in_words(result["rows"]):
        yield f"{words}."
    if how["left_out"]:
        yield f"No intervals: {how['left_out']}."
    else:
        n_trials = sum(result["rows"][0][name] for name in ("n_bonafide", "n_spoof"))
        yield (
            f"*: the EER differs from the clean one (paired bootstrap over {clusters_in_words(how, n_trials)}, "
            f"p < {LEVEL:g}, corrected for all conditions)."
        )
        if (lowest := 2 * (len(result["rows"]) - 1) / (how["n_replicates"] + 1)) >= LEVEL:
            yield f"With {how['n_replicates']:,} replicates no corrected p is below {lowest:.2g}; give more."
    if how["note"]:
        yield f"{how['note'][0].upper()}{how['note'][1:]}."
    if threshold["is_llr"]:
        yield "Cllr in bits: of the clean calibration, and at best, after recalibration on the condition itself."
    yield from (f"{sentence}." for sentence in (*result["conditions_left_out"], *result["caveats"]))


def full_table(result: Mapping[str, Any]) -> Table:
    """Return the table of all figures for stress.tsv, in the order in which conditions are defined."""
    flat = []
    for row in result["rows"]:
        ends = {
            f"{name.removesuffix('_interval')}_{end}_percent": None if row[name] is None else row[name][place]
            for name in row
            if name.endswith("_interval")
            for place, end in enumerate(("low", "high"))
        }
        flat.append({name: value for name, value in row.items() if not name.endswith("_interval")} | ends)
    first = [Column("condition"), Column("group"), BONAFIDE, SPOOF]
    known = {column.name for column in first}
    return Table([*first, *(Column(name) for name in flat[0] if name not in known)], flat)
