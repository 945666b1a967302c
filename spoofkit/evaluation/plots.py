"""Figures of an evaluation: DET curves, score histograms, reliability, bars per attack, attack × codec heat map.

Each function returns a matplotlib Figure, of which `spoofkit.pictures` makes files. No metric is computed here.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from spoofkit.evaluation.metrics import EER_VARIANT, Eer, Scores, eer_of_sorted, operating_points
from spoofkit.evaluation.rocch import pav_bins
from spoofkit.pictures import BONAFIDE, FAINT, GREEN, HEAT, INK, PAGE, PURPLE, SPOOF, STYLE
from spoofkit.tables import eer_text, has_few
from spoofkit.terminal import visible

SYSTEM_COLOURS, SYSTEM_DASHES = (BONAFIDE, SPOOF, GREEN, PURPLE), ("-", (0, (5, 1.5)), (0, (1.5, 1)))
# Above this opacity the numbers in the cells would lose contrast, in the light page or in the dark one.
STRONGEST_HEAT = 0.75
DET_TICKS_PERCENT = (0.001, 0.005, 0.02, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 98, 99, 99.5, 99.9)
EER_AXIS = f"EER ({EER_VARIANT}), %"
N_BINS = 80
FURTHEST_LOG_ODDS = 20.0
"""Beyond any frame of a DET curve."""
FURTHEST = 12.0
"""Limit of the axes of a reliability plot, in nats."""


def det_curves(
    systems: Mapping[str, tuple[Scores, Scores]], digits: int = 3, points: Sequence[tuple[float, float]] = ()
) -> Figure:
    """Draw DET curves: miss against false alarm rate, in % on normal-deviate axes, with the EERs marked.

    Args:
        systems: Bona fide and spoof scores of each system, sorted ascending, by name; the axes fit all of them.
        digits: Decimal places of the EERs.
        points: False alarm and miss rate, as fractions, of further points of the first system to mark.
    """
    eers = [eer_of_sorted(*classes).eer for classes in systems.values()]
    ticks = _det_ticks(100 * min(eers), 100 * max(eers), max(part.size for part in next(iter(systems.values()))))
    low, high = _deviate(ticks[0] / 100), _deviate(ticks[-1] / 100)
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.8, 4.6)
        axes.plot((low, high), (low, high), color=FAINT, linewidth=0.8)
        for place, (name, classes) in enumerate(systems.items()):
            colour = SYSTEM_COLOURS[place % len(SYSTEM_COLOURS)]
            dashes = SYSTEM_DASHES[place // len(SYSTEM_COLOURS) % len(SYSTEM_DASHES)]
            # matplotlib hides a label that begins with "_"
            label = f"EER {100 * eers[place]:.{digits}f} %  {visible(name)}"
            axes.plot(*_det_points(*classes, low, high), color=colour, linestyle=dashes, linewidth=1.8, label=label)
            at = float(np.clip(_deviate(eers[place]), low, high))
            dot = SPOOF if len(systems) == 1 else colour
            axes.plot(at, at, "o", color=dot, markersize=7, clip_on=False, zorder=5)
        inside = [at for at in (tuple(map(_deviate, point)) for point in points) if low < min(at) and max(at) < high]
        if inside:
            axes.plot(*zip(*inside, strict=True), "o", color=BONAFIDE, markerfacecolor=PAGE, markersize=5, zorder=4)
        if len(systems) == 1:
            _annotate_eer(axes, f"EER {100 * eers[0]:.{digits}f} %", eers[0], low, high)
        else:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, fontsize=9)
        places, names = [_deviate(tick / 100) for tick in ticks], [f"{tick:g}" for tick in ticks]
        axes.set_xticks(places, names, rotation=45)
        axes.set_yticks(places, names)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set(xlabel="Spoof accepted (APCER, false alarms), %", ylabel="Bona fide rejected (BPCER, misses), %")
        axes.grid(True)
    return figure


def _det_points(bonafide: Scores, spoof: Scores, low: float, high: float) -> tuple[Scores, Scores]:
    """Compute false alarm and miss rates as normal deviates, without points that a screen cannot tell apart."""
    points = operating_points(bonafide, spoof)
    # Of 700,000 points a screen shows some thousand: keep those whose log-odds, which fall and rise as the deviates do,
    # differ by a fraction of a pixel.
    rates = np.stack((points.fa, points.miss))
    with np.errstate(divide="ignore"):
        log_odds = np.clip(np.log(rates / (1 - rates)), -FURTHEST_LOG_ODDS, FURTHEST_LOG_ODDS)
    grid = np.rint(log_odds * 500 / (high - low))
    kept = rates[:, np.append(True, np.any(np.diff(grid, axis=1) != 0, axis=0))]
    # Rates of 0 and 1 lie at infinity: the curve leaves the frame there.
    x, y = (np.clip([_deviate(rate) for rate in row], low - 1, high + 1) for row in kept.tolist())
    return x, y


def _deviate(rate: float) -> float:
    """Return the normal deviate of a rate; infinite for 0 and 1."""
    return NormalDist().inv_cdf(rate) if 0 < rate < 1 else math.copysign(math.inf, rate - 0.5)


def _annotate_eer(axes: Axes, words: str, eer: float, low: float, high: float) -> None:
    at = float(np.clip(_deviate(eer), low, high))
    to_left = at > (low + high) / 2
    axes.annotate(
        words,
        (at, at),
        (-10 if to_left else 10, -4 if to_left else 8),
        textcoords="offset points",
        ha="right" if to_left else "left",
        va="top" if to_left else "bottom",
        weight="bold",
    )


def score_histograms(bonafide: Scores, spoof: Scores, eer: Eer) -> Figure:
    """Draw histograms of both classes, each summing to 100 %, and the EER threshold.

    The outermost bars hold what lies beyond the 0.1 and 99.9 percentiles, so that no outlier flattens the picture.
    """
    # Clipped first because the difference of two scores near the largest float would be infinite.
    parts = [np.clip(scores, -1e300, 1e300) for scores in (bonafide, spoof)]
    low = min(float(np.quantile(part, 0.001)) for part in parts)
    high = max(float(np.quantile(part, 0.999)) for part in parts)
    if high - low <= 1e-12 * max(abs(low), abs(high)):  # no room for bars: all scores (nearly) the same
        low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
    edges = np.linspace(low, high, N_BINS + 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.4, 4.0)
        for part, name, color in zip(parts, ("bona fide", "spoof"), (BONAFIDE, SPOOF), strict=True):
            counts, _ = np.histogram(np.clip(part, low, high), edges)
            label = f"{name} ({part.size:,})"
            axes.stairs(100 * counts / part.size, edges, fill=True, color=color, alpha=0.45, linewidth=0, label=label)
            axes.stairs(100 * counts / part.size, edges, color=color, linewidth=1.2)
        threshold = float(np.clip(eer.threshold, low, high))
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="EER threshold")
        axes.set(xlabel="Score (higher = more bona fide)", ylabel="Share of the class, %", xlim=(low, high))
        axes.set_ylim(bottom=0)
        axes.grid(True, axis="y")
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, columnspacing=1.2, handlelength=1.4
        )
    return figure


def reliability(bonafide: Scores, spoof: Scores) -> Figure:
    """Draw observed against stated log-likelihood ratios; both classes are sorted ascending."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.8, 4.6)
        draw_staircases(axes, {"": (bonafide, spoof, BONAFIDE)})
        axes.set(aspect="equal")
    return figure


def draw_staircases(axes: Axes, stated: Mapping[str, tuple[Scores, Scores, str]]) -> None:
    """Draw observed against stated log-likelihood ratios into axes; the observed ratios are of `pav_bins`' groups.

    Args:
        axes: Empty axes.
        stated: Bona fide ratios, spoof ratios (nats, sorted ascending) and colour of each line, by its name.
    """
    axes.axline((0, 0), slope=1, color=FAINT, linewidth=1)
    furthest = 3.0
    for name, (bonafide, spoof, colour) in stated.items():
        x, y = (np.clip(corners, -2 * FURTHEST, 2 * FURTHEST) for corners in staircase(bonafide, spoof))
        axes.plot(x, y, color=colour, linewidth=1.6, label=visible(name))
        furthest = max(furthest, float(np.abs(x).max()))
    limits = (-math.ceil(min(furthest, FURTHEST)), math.ceil(min(furthest, FURTHEST)))
    axes.set(xlim=limits, ylim=limits, ylabel="as observed, nats", xlabel="log-likelihood ratio as stated, nats")
    axes.annotate(
        "diagonal: perfectly calibrated", (0.98, 0.03), xycoords="axes fraction", ha="right", color=INK, fontsize=9
    )
    if len(stated) > 1:
        axes.legend(loc="upper left")


def staircase(bonafide: Scores, spoof: Scores) -> tuple[Scores, Scores]:
    """Compute the corners of the line of observed over stated log-likelihood ratios, in nats.

    Both classes are sorted ascending. The observed ratio of a group of neighbouring scores is the ratio of the shares
    of both classes that fall into it; it is infinite for a group of one class only.
    """
    bins = pav_bins(bonafide, spoof)
    with np.errstate(divide="ignore"):
        observed = np.log(bins.bonafide) - np.log(bins.spoof) - math.log(bonafide.size / spoof.size)
    ends = np.cumsum(bins.bonafide + bins.spoof).astype(int)
    ordered = np.sort(np.concatenate((bonafide, spoof)))
    return np.column_stack([ordered[np.append(0, ends[:-1])], ordered[ends - 1]]).ravel(), np.repeat(observed, 2)


def attack_bars(result: Mapping[str, Any]) -> Figure:
    """Draw the EER of each attack as a bar and the pooled EER as a line; `result` is of `breakdown.measure`."""
    rows = result["by_attack"]
    values = [row["eer_official_percent"] for row in rows]
    pooled = result["eer_official_percent"]
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.4, 0.95 + 0.27 * len(rows))
        places = np.arange(len(rows))
        axes.barh(places, values, height=0.68, color=SPOOF, alpha=0.75)
        for place, (row, value) in enumerate(zip(rows, values, strict=True)):
            axes.annotate(
                _short(row),
                (value, float(place)),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                bbox={"facecolor": PAGE, "edgecolor": "none", "pad": 0.8},  # the line of the pooled EER may pass here
            )
        axes.axvline(pooled, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2.5)
        axes.annotate(
            f"pooled {_short(result).strip('()')}", (pooled, 1), (0, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", fontsize=9,
        )  # fmt: skip
        axes.set_yticks(places, [visible(row["attack"]) for row in rows])
        axes.set(xlabel=EER_AXIS, ylabel="Attack", ylim=(len(rows) - 0.4, -0.6))
        axes.set_xlim(0, max(1.12 * max(*values, pooled), 0.1))
        axes.grid(True, axis="x")
    return figure


def heat_cells(result: Mapping[str, Any]) -> list[tuple[float, float, Mapping[str, Any]]]:
    """Return the left and upper edge and the row of figures of each cell of a heat map; a cell is a unit wide."""
    attacks = [row["attack"] for row in result["by_attack"]]
    codecs = [row["codec"] for row in result["by_codec"]]
    rows = {(row["attack"], row["codec"]): row for row in result["by_attack_and_codec"]}
    # The margins are set apart: they are comparisons of their own, not means of the cells.
    right, below = len(codecs) + 0.3, len(attacks) + 0.3
    return [
        *((c, a, rows[attack, codec]) for a, attack in enumerate(attacks) for c, codec in enumerate(codecs)),
        *((right, a, row) for a, row in enumerate(result["by_attack"])),
        *((c, below, row) for c, row in enumerate(result["by_codec"])),
        (right, below, result),
    ]


def heat_map(result: Mapping[str, Any]) -> Figure:
    """Draw the EER of each attack in each codec, with margins over all; an empty cell stays empty."""
    attacks = [row["attack"] for row in result["by_attack"]]
    codecs = [row["codec"] for row in result["by_codec"]]
    cells = heat_cells(result)
    right, below, _ = cells[-1]
    top = max(row["eer_official_percent"] or 0 for _, _, row in cells) or 1.0
    with matplotlib.rc_context(STYLE):
        # Room for the longest names, so that a cell always holds its number.
        longest_attack, longest_codec = max(map(len, [*attacks, "all"])), max(map(len, [*codecs, "all"]))
        turned = longest_codec > 5
        above = 0.6 + (0.08 * longest_codec if turned else 0)
        figure, axes = _figure(0.6 + 0.1 * longest_attack + 0.52 * (right + 1), above + 0.3 * (below + 1))
        # A shade is as sure as its trials are many: cells with few of them have none.
        shades = [
            0 if has_few(row) else STRONGEST_HEAT * (row["eer_official_percent"] or 0) / top for _, _, row in cells
        ]
        corners = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for x, y, _ in cells]
        colours = [(HEAT, shade) for shade in shades]
        axes.add_collection(
            PolyCollection(corners, facecolors=colours, edgecolors=FAINT, linewidths=0.6), autolim=False
        )
        for x, y, row in cells:
            if row["eer_official_percent"] is not None:
                number = axes.text(x + 0.5, y + 0.5, _short(row), ha="center", va="center_baseline", fontsize=9)
                number.set_in_layout(False)
        axes.set_xticks(
            [*np.arange(len(codecs)) + 0.5, right + 0.5], [*map(visible, codecs), "all"], rotation=90 if turned else 0
        )
        axes.set_yticks([*np.arange(len(attacks)) + 0.5, below + 0.5], [*map(visible, attacks), "all"])
        axes.set(xlim=(0, right + 1), ylim=(below + 1, 0), xlabel="Codec", ylabel="Attack")
        axes.tick_params(length=0)
        axes.xaxis.set_ticks_position("top")
        axes.xaxis.set_label_position("top")
        axes.spines[:].set_visible(False)
    return figure


def _figure(width_inches: float, height_inches: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    return figure, figure.add_subplot()


def _det_ticks(lowest_percent: float, highest_percent: float, n_trials: int) -> Sequence[float]:
    """Choose ticks from a decade below the lowest EER, or what the trials can resolve, to well above the highest."""
    low = max(min(lowest_percent / 20, 1.0), 50 / n_trials)
    odds = 6 * highest_percent / max(100 - highest_percent, 1e-9)
    high = min(max(100 * odds / (1 + odds), 20.0), 99.9)
    first = max((i for i, tick in enumerate(DET_TICKS_PERCENT) if tick <= low), default=0)
    last = min(i for i, tick in enumerate(DET_TICKS_PERCENT) if tick >= high)
    return DET_TICKS_PERCENT[min(first, last - 1) : last + 1]


def _short(row: Mapping[str, Any]) -> str:
    """Format an EER with as many digits as fit into a small cell."""
    value = row["eer_official_percent"] or 0
    return eer_text(row, most=2 if value < 9.995 else 1 if value < 99.95 else 0)
