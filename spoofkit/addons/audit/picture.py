"""The picture of an audit: how well each trivial predictor separates the classes, and the values of the worst ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from spoofkit.evaluation.plots import EER_AXIS
from spoofkit.pictures import BONAFIDE, INK, PAGE, SPOOF, STYLE
from spoofkit.terminal import visible

HARMLESS = "#8c959f"
MOST_CATEGORIES = 6
N_BINS = 40


def draw_audit(
    result: Mapping[str, Any], worst: Sequence[Mapping[str, Any]], trials: Any, warn_below_percent: float
) -> Figure:
    """Draw the EER of every trivial predictor as a bar, and the values of the worst ones by class.

    Args:
        result: As `audit.judge` returns it.
        worst: Rows of the predictors to show in detail; may be none.
        trials: Table with `key` and a column for each predictor.
        warn_below_percent: EER under which a bar is marked.
    """
    rows = result["predictors"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.0, max(1.2 + 0.3 * len(rows), 0.6 + 1.75 * len(worst))), layout="constrained")
        grid = figure.add_gridspec(max(1, len(worst)), 2, width_ratios=(1.15, 1))
        _predictor_bars(figure.add_subplot(grid[:, 0]), rows, warn_below_percent)
        for place, row in enumerate(worst):
            _class_histograms(figure.add_subplot(grid[place, 1]), row, trials)
        name, counts = result.get("manifest", ""), f"{result['n_bonafide']:,} bona fide, {result['n_spoof']:,} spoof"
        figure.suptitle(f"What trivial predictors tell: {visible(name)} ({counts})", fontsize=10, x=0.01, ha="left")
        classes = [
            Patch(color=color, alpha=0.45, label=of) for of, color in (("bona fide", BONAFIDE), ("spoof", SPOOF))
        ]
        figure.legend(handles=classes, loc="upper right", ncols=2, borderaxespad=0.2, handlelength=1.4)
    return figure


def _predictor_bars(axes: Axes, rows: Sequence[Mapping[str, Any]], warn_below_percent: float) -> None:
    places = np.arange(len(rows))
    values = [row["eer_percent"] for row in rows]
    colors = [SPOOF if value < warn_below_percent else HARMLESS for value in values]
    axes.barh(places, values, height=0.68, color=colors, alpha=0.75)
    for place, row in zip(places, rows, strict=True):
        end = row["eer_percent"]
        if row["low_percent"] is not None:
            axes.plot((row["low_percent"], row["high_percent"]), (place, place), color=INK, linewidth=1.2)
            end = max(end, row["high_percent"])
        axes.annotate(
            f"{row['eer_percent']:.1f}", (end, float(place)), (5, 0), textcoords="offset points", va="center",
            fontsize=9, bbox={"facecolor": PAGE, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    marks = ((50.0, "50 %: chance", "-"), (warn_below_percent, f"warning below {warn_below_percent:g} %", (0, (4, 2))))
    for at, label, style in marks:
        axes.axvline(at, color=INK, linewidth=1.2, linestyle=style, zorder=0.5)
        axes.annotate(
            label, (at, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="left" if at == 50 else "right", va="bottom", fontsize=9,
        )  # fmt: skip
    axes.set_yticks(places, [row["name"] for row in rows])
    axes.set(xlabel=f"{EER_AXIS}; lines: 95 % interval", ylim=(len(rows) - 0.4, -0.6))
    axes.set_xlim(0, max(60.0, *(row["high_percent"] or 0 for row in rows)) * 1.08)
    axes.grid(True, axis="x")


def _class_histograms(axes: Axes, row: Mapping[str, Any], trials: Any) -> None:
    """Draw the values of one predictor by class, each class summing to 100 %; the outermost bars hold outliers."""
    is_bonafide = (trials["key"] == "bonafide").to_numpy()
    values = trials[row["predictor"]].to_numpy()
    if values.dtype.kind == "f":
        low, high = np.quantile(values, (0.005, 0.995))
        if high <= low:
            low, high = float(values.min()), float(values.max())
        edges = np.linspace(low, high, N_BINS + 1)
        numbers = np.clip(values, low, high)
    else:
        names, counts = np.unique(values, return_counts=True)
        shown = names[np.argsort(-counts, kind="stable")][:MOST_CATEGORIES].tolist()
        others = [] if names.size == len(shown) else ["others"]
        numbers = np.array([shown.index(value) if value in shown else len(shown) for value in values], dtype=float)
        edges = np.arange(len(shown) + len(others) + 1) - 0.5
        axes.set_xticks(np.arange(len(shown) + len(others)), [*map(visible, shown), *others], fontsize=8)
    for of_class, color in ((is_bonafide, BONAFIDE), (~is_bonafide, SPOOF)):
        counts, _ = np.histogram(numbers[of_class], edges)
        share = 100 * counts / of_class.sum()
        axes.stairs(share, edges, fill=True, color=color, alpha=0.45, linewidth=0)
        axes.stairs(share, edges, color=color, linewidth=1.2)
    axes.set_title(f"{row['name']}: {row['eer_percent']:.1f} % EER", fontsize=10, loc="left")
    axes.set(ylabel="Share, %", xlim=(edges[0], edges[-1]), xlabel=row["predictor"])
    axes.set_ylim(bottom=0)
    axes.grid(True, axis="y")
