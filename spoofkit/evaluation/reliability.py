"""The reliability plot: does a log-likelihood ratio of 2 come with odds of e² to 1?"""

import io
import math
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spoofkit.evaluation.metrics import sorted_scores
from spoofkit.evaluation.plots import BONAFIDE, FAINT, INK, SPOOF, STYLE
from spoofkit.evaluation.rocch import pav_bins
from spoofkit.files import atomic_path

N_BINS = 40
FURTHEST = 12.0  # nats that are shown to either side


def draw_reliability(
    path: Path,
    before_N: npt.NDArray[np.float64] | None,
    after_N: npt.NDArray[np.float64],
    is_bonafide_N: npt.NDArray[np.bool_],
    name: str,
    overwrite: bool = False,
) -> None:
    """Draw stated against observed log-likelihood ratios, and histograms of the stated ones.

    The observed ratio of a group of neighbouring scores is that of the shares of both classes that fall into it; the
    groups are those of `pav_bins`.

    Args:
        path: PNG to write.
        before_N: The scores as they came, taken for ratios; none: not drawn.
        after_N: The calibrated ratios, nats.
        is_bonafide_N: Classes.
        name: Of the set, for the title.
        overwrite: Replace an existing file.

    Raises:
        SpoofkitError: the file exists or cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.axline((0, 0), slope=1, color=FAINT, linewidth=1)
        for stated, label, colour in ((before_N, "before", SPOOF), (after_N, "after", BONAFIDE)):
            if stated is not None:
                left.plot(*_staircase(stated, is_bonafide_N), color=colour, linewidth=1.6, label=label)
        left.set(
            xlim=(-FURTHEST, FURTHEST),
            ylim=(-FURTHEST, FURTHEST),
            xlabel="log-likelihood ratio as stated, nats",
            ylabel="as observed, nats",
            title=f"Reliability on {name}",
        )
        left.annotate(
            "the diagonal is truth", (0.98, 0.03), xycoords="axes fraction", ha="right", color=INK, fontsize=9
        )
        left.legend(loc="upper left")
        _histograms(right, after_N, is_bonafide_N)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150)
    with atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(image.getvalue())


def _staircase(
    stated_N: npt.NDArray[np.float64], is_bonafide_N: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    bonafide, spoof = (sorted_scores(stated_N[c], "scores") for c in (is_bonafide_N, ~is_bonafide_N))
    bins = pav_bins(bonafide, spoof)
    with np.errstate(divide="ignore"):
        observed = np.log(bins.bonafide) - np.log(bins.spoof) - math.log(bonafide.size / spoof.size)
    ends = np.cumsum(bins.bonafide + bins.spoof).astype(int)
    ordered = np.sort(stated_N)
    x = np.column_stack([ordered[np.append(0, ends[:-1])], ordered[ends - 1]]).ravel()
    return x, np.clip(np.repeat(observed, 2), -2 * FURTHEST, 2 * FURTHEST)


def _histograms(axes: Axes, llr_N: npt.NDArray[np.float64], is_bonafide_N: npt.NDArray[np.bool_]) -> None:
    edges = np.linspace(-FURTHEST, FURTHEST, N_BINS + 1)
    shown = np.clip(llr_N, -FURTHEST, FURTHEST)
    for chosen, label, colour in ((is_bonafide_N, "bona fide", BONAFIDE), (~is_bonafide_N, "spoof", SPOOF)):
        share = np.histogram(shown[chosen], edges)[0] * 100 / max(1, int(chosen.sum()))
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.35, label=label)
        axes.stairs(share, edges, color=colour)
    axes.axvline(0, color=FAINT)
    axes.set(
        xlabel="log-likelihood ratio after, nats",
        ylabel="share of the class, %",
        title=f"{int(is_bonafide_N.sum()):,} bona fide, {int((~is_bonafide_N).sum()):,} spoof",
    )
    axes.legend()
