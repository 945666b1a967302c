"""The reliability plot: does a log-likelihood ratio of 2 come with odds of e² to 1?"""

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spoofkit.evaluation.metrics import Scores, sorted_scores
from spoofkit.evaluation.plots import FURTHEST, draw_staircases
from spoofkit.pictures import BONAFIDE, FAINT, SPOOF, STYLE, png

N_BINS = 40


def reliability_png(
    before_N: npt.NDArray[np.float64] | None,
    after_N: npt.NDArray[np.float64],
    is_bonafide_N: npt.NDArray[np.bool_],
    name: str,
) -> bytes:
    """Draw observed against stated log-likelihood ratios, and histograms of the stated ones.

    The observed ratio of a group of neighbouring scores is the ratio of the shares of both classes that fall into it;
    the groups are those of `pav_bins`.

    Args:
        before_N: The raw scores, taken as ratios; None to leave them out.
        after_N: The calibrated ratios, nats.
        is_bonafide_N: Classes.
        name: Name of the set, for the title.

    Returns:
        The bytes of a PNG file.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        stated = {"before": (before_N, SPOOF), "after": (after_N, BONAFIDE)}
        draw_staircases(
            left,
            {
                label: (*_classes(llr_N, is_bonafide_N), colour)
                for label, (llr_N, colour) in stated.items()
                if llr_N is not None
            },
        )
        left.set_title(f"Reliability, {name}")
        _histograms(right, after_N, is_bonafide_N)
    return png(figure)


def _classes(llr_N: npt.NDArray[np.float64], is_bonafide_N: npt.NDArray[np.bool_]) -> tuple[Scores, Scores]:
    bonafide, spoof = (sorted_scores(llr_N[chosen], "scores") for chosen in (is_bonafide_N, ~is_bonafide_N))
    return bonafide, spoof


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
