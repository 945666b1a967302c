"""What `spoofkit audit` prints of its result."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spoofkit.addons.audit.run import N_WORST, PREDICTORS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_audit(result: dict[str, Any], console: "Console") -> None:
    """Print the predictors, lowest EER first, and for each breakdown its three lowest."""
    say: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
    n_trials = result["n_bonafide"] + result["n_spoof"]
    part = f", a sample of {result['n_of_list']:,}" if n_trials < result["n_of_list"] else ""
    console.print(
        f"{n_trials:,} trials: {result['n_bonafide']:,} bona fide, {result['n_spoof']:,} spoof{part}; "
        f"{result['n_speakers']:,} speakers\nEER of one trivial measure alone, 50 % = tells nothing "
        f"({result['eer_variant']})\n",
        **say,
    )
    table = _table(("predictor", "EER, %", "95 %", "bona fide is"))
    for row in result["predictors"]:
        low, high = row["low_percent"], row["high_percent"]
        between = "-" if low is None else f"{low:.1f}-{high:.1f}"
        table.add_row(row["name"], f"{row['eer_percent']:.1f}", between, row["bonafide_is"])
    console.print(table)
    for caveat in result["caveats"]:
        console.print(caveat, **say)
    if result["interval_problem"]:
        console.print(f"no intervals: {result['interval_problem']}", **say)
    for column, rows in result["by"].items():
        against = "each attack against all bona fide" if column == "attack" else f"within each {column}"
        console.print(f"\nThe {N_WORST} lowest {against}", **say)
        table = _table((column, "bona fide", "spoof", "EER, %"))
        for row in rows:
            lowest = sorted((value, name) for name, value in row["eer_percent"].items() if value is not None)[:N_WORST]
            words = ", ".join(f"{PREDICTORS[name]} {value:.1f}" for value, name in lowest) or "-"
            table.add_row(row["value"], f"{row['n_bonafide']:,}", f"{row['n_spoof']:,}", words)
        console.print(table)


def _table(columns: Sequence[str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
    for place, column in enumerate(columns):
        is_text = place in (0, len(columns) - 1)
        table.add_column(column, justify="left" if is_text else "right", no_wrap=not is_text)
    return table
