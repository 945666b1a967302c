"""Compare systems that were trained with the same seeds: both the speakers and the seeds are samples.

`spoofkit.evaluation.compare` draws speakers and keeps the seeds as they are, so its interval holds for these trained
models. Here it holds for the method: a difference counts that would come again with other speakers and other seeds.

The two variances of the mean difference are added. That of the speakers is the variance of its bootstrap replicates,
all systems and seeds resampled together; that of the seeds is the variance of the differences seed by seed, divided by
their number. The difference over its standard error is compared with Student's t distribution, whose degrees of freedom
follow from both parts (Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
Bulletin 2, 1946): with three seeds that differ much there are two, with one seed there are those of the speakers
(`freedom_of_speakers`).
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import Clusters, eer_replicates, make_walk, min_dcf_replicates
from spoofkit.evaluation.compare import FIGURES
from spoofkit.evaluation.intervals import CONFIDENCE, interval
from spoofkit.evaluation.metrics import ASVSPOOF5, DcfCosts, eer, min_dcf


@dataclass(frozen=True)
class Measured:
    """One figure of a system: its value for each seed, and each seed's replicates over speakers."""

    values_S: list[float]
    replicates_SR: npt.NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.values_S)

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds; None of a single seed."""
        return statistics.stdev(self.values_S) if len(self.values_S) > 1 else None


def measure_seeds(
    scores_S: Sequence[npt.ArrayLike],
    trials: pl.DataFrame,
    clusters: Clusters,
    draws_RC: npt.NDArray[np.integer],
    costs: DcfCosts = ASVSPOOF5,
) -> dict[str, Measured]:
    """Compute the figures of a system for each of its seeds, and their replicates.

    Args:
        scores_S: Scores of each seed, in the order of `trials`.
        trials: Has the column `key`.
        clusters: The speakers of the trials, see `bootstrap.clusters_of`.
        draws_RC: How often each is in each replicate; the same for all systems that are to be compared.
        costs: Prior and costs of the minDCF.

    Returns:
        For each of FIGURES its values and replicates.
    """
    is_bonafide = (trials["key"] == "bonafide").to_numpy()
    values: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    replicates: dict[str, list[npt.NDArray[np.float64]]] = {figure: [] for figure in FIGURES}
    for scores in scores_S:
        score = np.asarray(scores, dtype=np.float64)
        classes = score[is_bonafide], score[~is_bonafide]
        walk = make_walk(score, is_bonafide, clusters.number_N, clusters.n_clusters)
        values["eer_official_percent"].append(100 * eer(*classes).eer)
        values["min_dcf"].append(min_dcf(*classes, costs))
        replicates["eer_official_percent"].append(100 * eer_replicates(walk, draws_RC))
        replicates["min_dcf"].append(min_dcf_replicates(walk, draws_RC, costs))
    return {figure: Measured(values[figure], np.stack(replicates[figure])) for figure in FIGURES}


def freedom_of_speakers(clusters: Clusters, is_bonafide_N: npt.NDArray[np.bool_]) -> float:
    """Return the degrees of freedom of the variance of the speakers.

    Either class has a variance of its own, so they are Welch's ("The generalization of 'Student's' problem when several
    different population variances are involved", Biometrika 34, 1947), as if the speakers of both classes varied alike:
    2.8 of 17 human and 3 synthetic voices. They are less than the number of speakers, who may be of both classes.
    """
    n_of = [clusters.n_with(is_bonafide_N), clusters.n_with(~is_bonafide_N)]
    of_both = sum(1 / n for n in n_of) ** 2 / sum(1 / n**2 / max(1, n - 1) for n in n_of)
    return min(of_both, clusters.n_with(np.full_like(is_bonafide_N, True)) - 1)


def paired_difference(control: Measured, other: Measured, freedom: float) -> dict[str, Any]:
    """Compute the mean difference between two systems over the same seeds, its interval and p value.

    Args:
        control: One figure of the control.
        other: The same of the other system, with the same seeds in the same order and the same draws.
        freedom: Degrees of freedom of the speakers that were drawn.

    Returns:
        JSON values: `difference` (other minus control), `low`, `high`, two-sided `p`, and `degrees_of_freedom`.

    Raises:
        SpoofkitError: too many replicates lack a class, or no trial is an error.
    """
    from scipy.stats import t as student

    difference_S = np.subtract(other.values_S, control.values_S)
    replicates_R = (other.replicates_SR - control.replicates_SR).mean(axis=0)
    interval(replicates_R)  # refuses replicates that lack a class
    parts = [(float(np.nanvar(replicates_R, ddof=1)), freedom)]
    if difference_S.size > 1:
        parts.append((float(difference_S.var(ddof=1)) / difference_S.size, difference_S.size - 1))
    difference, variance = float(difference_S.mean()), sum(part for part, _ in parts)
    found = {"difference": difference, "low": difference, "high": difference}
    if variance == 0 and not control.replicates_SR.any() and not other.replicates_SR.any():
        raise SpoofkitError("no trial is an error in either, so it is not known how much they may differ")
    if variance == 0:  # the same scores
        return found | {"p": float(difference == 0), "degrees_of_freedom": None}
    of_both = variance**2 / sum(part**2 / n for part, n in parts)
    error = variance**0.5
    reach = float(student.ppf((1 + CONFIDENCE) / 2, of_both)) * error
    p = float(2 * student.sf(abs(difference) / error, of_both))
    return found | {"low": difference - reach, "high": difference + reach, "p": p, "degrees_of_freedom": of_both}
