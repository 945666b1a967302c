"""Draw the figure of a sweep: the EER of each cell, or, where one number varies, curves over it."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sweep_plan import Plan

from spoofkit.evaluation.plots import EER_AXIS, SYSTEM_COLOURS
from spoofkit.pictures import BONAFIDE, FAINT, INK, SPOOF, STYLE

EER = "eer_official_percent"


def draw(plan: Plan, rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw a panel for each set and pool: seeds as dots, their mean and deviation; nothing for a cell without."""
    axes = plan.grid.axes
    is_curve = len(axes) == 1 and all(type(cell.at[axes[0]]) in (int, float) for cell, _ in plan.cells)
    n_rows = 1 if is_curve else len(plan.cells)
    with matplotlib.rc_context(STYLE):
        sets = list(dict.fromkeys(row["set"] for row in rows))
        size = (1.5 + 4.2 * len(sets), 3.6 if is_curve else 1.2 + 0.32 * n_rows)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
        for panel, name in zip(panels, sets, strict=True):
            of_set = [row for row in rows if row["set"] == name]
            if is_curve:
                _curves(panel, plan, of_set, axes[0])
            else:
                _dots(panel, plan, of_set)
            if len(sets) > 1:
                panel.set_title(name)
    return figure


def _dots(panel: Axes, plan: Plan, rows: Sequence[dict[str, Any]]) -> None:
    """Draw a line for each cell, from above; the control's mean goes through all of them."""
    for place, row in enumerate(rows):
        if row[EER] is None:
            continue
        is_control = row["cell"] == plan.grid.control
        color = SPOOF if is_control else BONAFIDE
        if is_control and not plan.grid.axes:
            panel.axvline(row[EER], color=FAINT, linewidth=1.2)
        panel.plot(row[f"{EER}_of_seeds"], [place] * len(row["seeds"]), "o", color=color, alpha=0.45, markersize=5)
        panel.errorbar(row[EER], place, xerr=row[f"{EER}_sd"], fmt="D", color=color, markersize=5, capsize=3)
    names = [", ".join(cell.parts) for cell, _ in plan.cells]
    panel.set_yticks(range(len(rows)), names)
    panel.set(xlabel=EER_AXIS, ylim=(len(rows) - 0.5, -0.5))
    panel.grid(True, axis="x")


def _curves(panel: Axes, plan: Plan, rows: Sequence[dict[str, Any]], axis: str) -> None:
    """Draw a curve for each cell, over the number that varies."""
    ticks = sorted({row[axis] for row in rows})
    is_log = ticks[0] > 0
    for number, name in enumerate(plan.grid.cells):
        beside = 0.02 * (number - (len(plan.grid.cells) - 1) / 2)  # or bars would hide each other
        color = SYSTEM_COLOURS[number % len(SYSTEM_COLOURS)]
        points = sorted(
            (row for row in rows if row["cell"] == name and row[EER] is not None), key=lambda row: row[axis]
        )
        span = ticks[-1] - ticks[0]
        x = [row[axis] * (1 + beside) if is_log else row[axis] + beside * span for row in points]
        y = [row[EER] for row in points]
        panel.errorbar(
            x, y, yerr=[row[f"{EER}_sd"] or 0 for row in points], fmt="o-", color=color, capsize=3, label=name
        )
        for place, row in zip(x, points, strict=True):
            values = row[f"{EER}_of_seeds"]
            panel.plot([place] * len(values), values, "o", color=color, alpha=0.35, markersize=4)
    if is_log:
        panel.set_xscale("log")
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks], color=INK)
    panel.minorticks_off()
    panel.set(xlabel=axis, ylabel=EER_AXIS)
    panel.grid(True)
    panel.legend()
