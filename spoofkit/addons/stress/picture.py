"""The picture of a stress card: a line for each condition, with its EER and its error rates at the clean threshold."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spoofkit.addons.stress.conditions import CLEAN
from spoofkit.addons.stress.text import grouped
from spoofkit.evaluation.plots import EER_AXIS
from spoofkit.pictures import BONAFIDE, FAINT, INK, PURPLE, SPOOF, STYLE
from spoofkit.tables import Row
from spoofkit.terminal import visible

INCHES_A_LINE = 0.235
DASHES = (0, (4, 2))
MARKS = {
    "apcer": ("APCER: spoof accepted", SPOOF, "s", -0.17),
    "bpcer": ("BPCER: bona fide rejected", BONAFIDE, "o", 0.17),
}
"""Label, colour, marker and offset in lines of each error rate."""


def draw_card(result: Mapping[str, Any]) -> Figure:
    """Draw the card: EERs on the left, APCER and BPCER at one threshold on the right, with 95 % intervals.

    Args:
        result: As `run.stress` returns it.
    """
    lines = _lines(result["rows"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.3 + INCHES_A_LINE * len(lines)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
        _draw_eers(left, lines)
        _draw_rates(right, lines)
        for axes in (left, right):
            axes.set_ylim(len(lines) - 0.4, -0.6)
            axes.grid(True, axis="x")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        left.set_yticks(range(len(lines)), [visible(name) for name, _ in lines])
        for label, (_, row) in zip(left.get_yticklabels(), lines, strict=True):
            label.set_weight("normal" if row else "bold")
            label.set_fontsize(9)
    return figure


def _lines(rows: Sequence[Row]) -> list[tuple[str, Row | None]]:
    """Return the lines from the top: the clean row, then each group's title and its rows, the worst first."""
    lines: list[tuple[str, Row | None]] = [(CLEAN, rows[0])]
    for title, own in grouped(rows):
        lines += [(title, None), *((str(row["condition"]), row) for row in own)]
    return lines


def _draw_eers(axes: Axes, lines: Sequence[tuple[str, Row | None]]) -> None:
    for place, (name, row) in enumerate(lines):
        if row is None:
            continue
        if row["eer_interval"] is not None:
            axes.plot(row["eer_interval"], (place, place), color=INK, linewidth=1.2, solid_capstyle="butt")
        face = INK if name == CLEAN else PURPLE
        axes.plot(row["eer_official_percent"], place, "o", color=face, markersize=5.5, markeredgecolor=INK,
                  markeredgewidth=0.6, zorder=3)  # fmt: skip
    clean = lines[0][1]
    assert clean is not None
    axes.axvline(clean["eer_official_percent"], color=INK, linewidth=1, linestyle=DASHES, zorder=0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(EER_AXIS)
    axes.set_title("Separation: EER of each condition\nlines: 95 % interval; dashed: clean", fontsize=9, loc="left")


def _draw_rates(axes: Axes, lines: Sequence[tuple[str, Row | None]]) -> None:
    for rate, (label, colour, marker, offset) in MARKS.items():
        shown = [(place + offset, row) for place, (_, row) in enumerate(lines) if row is not None]
        for at, row in shown:
            if row[f"{rate}_interval"] is not None:
                axes.plot(row[f"{rate}_interval"], (at, at), color=colour, linewidth=1.2, solid_capstyle="butt")
        values = [row[f"{rate}_percent"] for _, row in shown]
        axes.plot(values, [at for at, _ in shown], marker, color=colour, markersize=4.5, label=label, linestyle="none")
    axes.axhline(0.5, color=FAINT, linewidth=0.8)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("Share of the class at one threshold, %")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, borderaxespad=0, columnspacing=1.2,
                handletextpad=0.2, fontsize=9)  # fmt: skip
