"""The printed result of `spoofkit audit`."""

from collections.abc import Iterator
from typing import Any

from spoofkit.addons.audit.run import N_WORST, PREDICTORS
from spoofkit.tables import BONAFIDE, SPOOF, Column, Row, Table, show


def print_audit(result: dict[str, Any]) -> None:
    """Print the predictors, lowest EER first, and for each breakdown its three lowest."""
    show(*_parts(result))


def _parts(result: dict[str, Any]) -> Iterator[str | Table]:
    n_trials = result["n_bonafide"] + result["n_spoof"]
    part = f", a sample of {result['n_of_list']:,}" if n_trials < result["n_of_list"] else ""
    yield (
        f"{n_trials:,} trials: {result['n_bonafide']:,} bona fide, {result['n_spoof']:,} spoof{part}; "
        f"{result['n_speakers']:,} speakers\nEER of one trivial measure alone, 50 % = tells nothing "
        f"({result['eer_variant']})\n"
    )
    columns = [
        Column("name", "predictor"),
        Column("eer_percent", "EER, %", ".1f"),
        Column("low_percent", "95 %", _between),
        Column("bonafide_is", "bona fide is", is_text=True),
    ]
    yield Table(columns, result["predictors"])
    yield from result["caveats"]
    if result["interval_problem"]:
        yield f"no intervals: {result['interval_problem']}"
    for column, rows in result["by"].items():
        against = "each attack against all bona fide" if column == "attack" else f"within each {column}"
        yield f"\nThe {N_WORST} lowest {against}"
        yield Table(
            [Column("value", column), BONAFIDE, SPOOF, Column("eer_percent", "EER, %", _lowest, is_text=True)], rows
        )


def _between(row: Row) -> str:
    low, high = row["low_percent"], row["high_percent"]
    return "-" if low is None else f"{low:.1f}-{high:.1f}"


def _lowest(row: Row) -> str:
    lowest = sorted((value, name) for name, value in row["eer_percent"].items() if value is not None)[:N_WORST]
    return ", ".join(f"{PREDICTORS[name]} {value:.1f}" for value, name in lowest) or "-"
