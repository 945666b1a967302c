"""Figures in words: as many digits as the trials and the interval support, and a mark where there are too few trials.

eval.json and `--tsv` have all digits. No metric is computed here.
"""

import math
from collections.abc import Mapping
from typing import Any

FEWEST_TRIALS = 100
"""Of either class: with fewer, one trial moves an error rate by more than a point, and the EER is in parentheses."""
MOST_DIGITS = 3
"""After the point, of an EER in percent."""


def eer_digits(row: Mapping[str, Any]) -> int:
    """Return the digits after the point that an EER in percent supports.

    Args:
        row: `n_bonafide` and `n_spoof`, the fewer of which say by how much one trial moves the EER: below 1 point for
            one digit, 0.1 for two. If it has `intervals`, also no more than two digits of half the interval's width.

    >>> [eer_digits({"n_bonafide": n, "n_spoof": 10**6}) for n in (10, 100, 7_355, 138_688)]
    [0, 1, 2, 3]
    >>> eer_digits({"n_bonafide": 10**5, "n_spoof": 10**5, "intervals": {"eer_official_percent": [19.0, 38.0]}})
    1
    """
    digits = int(math.log10(max(1, min(row["n_bonafide"], row["n_spoof"])))) - 1
    low, high = (row.get("intervals") or {}).get("eer_official_percent", (0, 0))
    if high > low:
        digits = min(digits, 1 - math.floor(math.log10((high - low) / 2)))
    return min(MOST_DIGITS, max(0, digits))


def eer_text(row: Mapping[str, Any], most: int = MOST_DIGITS) -> str:
    """Write a row's EER in percent; in parentheses where it has too few trials, empty where it has none.

    >>> eer_text({"n_bonafide": 500, "n_spoof": 10, "eer_official_percent": 0.0})
    '(0)'
    """
    if row["eer_official_percent"] is None:
        return ""
    text = f"{row['eer_official_percent']:.{min(most, eer_digits(row))}f}"
    return f"({text})" if min(row["n_bonafide"], row["n_spoof"]) < FEWEST_TRIALS else text


def rounded(value: float, row: Mapping[str, Any], more: int = 0) -> str:
    """Write a number with as many digits after the point as the row's EER has, and `more`."""
    return f"{value:.{eer_digits(row) + more}f}"


def figure_text(row: Mapping[str, Any], name: str) -> str:
    """Write another figure of a row, such as `min_dcf`: one digit more than its EER has, empty where it has none."""
    return "" if row[name] is None else rounded(row[name], row, 1)


def has_few(rows: list[Mapping[str, Any]]) -> bool:
    """Say whether an EER of these rows stands in parentheses."""
    return any(eer_text(row).startswith("(") for row in rows)
