"""Is the difference real? Two systems on the same trials, resampled together, speaker by speaker.

A system may be several score files, one for each seed it was trained with: its figure is then their mean, and their
spread says what a change of seed does to it. No files are read here; see `spoofkit.cli.compare`.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import (
    CONFIDENCE,
    N_REPLICATES,
    draw_clusters,
    eer_replicates,
    holm,
    interval,
    make_walk,
    min_dcf_replicates,
    p_value,
)
from spoofkit.evaluation.breakdown import is_of_spoofs
from spoofkit.evaluation.metrics import ASVSPOOF5, EER_VARIANT, DcfCosts, eer, min_dcf

RESAMPLED = ("speaker", "speaker_attack", "trial")
FIGURES = ("eer_official_percent", "min_dcf")
MOST_GROUPS = 2000  # of single trials
NO_PARTS = ("utt_id", "path", "key", "score", "n_samples")
"""Columns that do not divide a list into parts."""


@dataclass(frozen=True)
class Clusters:
    """What is resampled."""

    number_N: npt.NDArray[np.int64]
    """Of each trial's cluster."""
    n_clusters: int
    of: str
    """One of RESAMPLED."""
    note: str
    """Empty, or why it is not what was asked for."""


def clusters_of(trials: pl.DataFrame, resample: str = "speaker") -> Clusters:
    """Number the clusters of trials.

    Args:
        trials: With the columns `speaker` and `attack`.
        resample: `speaker`; `speaker_attack`: a speaker's bona fide trials, and those of each attack, apart; or
            `trial`.

    Raises:
        SpoofkitError: it is none of these.
    """
    if resample not in RESAMPLED:
        raise SpoofkitError(f"--resample {resample}: expected one of {', '.join(RESAMPLED)}")
    unknown = trials.filter(pl.col("speaker") == "-").height
    if resample != "trial" and unknown:
        note = (
            f"the speaker of {unknown:,} of {trials.height:,} trials is unknown, so single trials are resampled: where "
            "speakers differ, intervals are too narrow and p values too small"
        )
        return _single_trials(trials.height, note)
    if resample == "trial":
        return _single_trials(trials.height, "")
    columns = ["speaker"] if resample == "speaker" else ["speaker", "attack"]
    names = trials.select(pl.concat_str(columns, separator="\t")).to_series() if columns[1:] else trials["speaker"]
    values = names.unique().sort()
    codes = names.cast(pl.Enum(values)).to_physical().to_numpy().astype(np.int64)
    return Clusters(codes, values.len(), resample, "")


def _single_trials(n_trials: int, note: str) -> Clusters:
    """Trials as clusters; of very many, groups dealt at random, which vary as much and fit into memory."""
    number_N = np.random.default_rng(0).permutation(n_trials) % MOST_GROUPS if n_trials > MOST_GROUPS else None
    codes = np.arange(n_trials) if number_N is None else number_N
    return Clusters(codes, min(n_trials, MOST_GROUPS), "trial", note)


def intervals(
    trials: pl.DataFrame,
    resample: str = "speaker",
    costs: DcfCosts = ASVSPOOF5,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Percentile intervals of one system's pooled EER and minDCF.

    Args:
        trials: `score`, `key`, `speaker`, `attack`.
        resample: See `clusters_of`.
        costs: Of the minDCF.
        n_replicates: Resampled lists.
        seed: Of the draws.

    Returns:
        JSON values: a pair for each of FIGURES, and how they were made; or `left_out`, why there are none.

    Raises:
        SpoofkitError: an unknown `resample`.
    """
    clusters = clusters_of(trials, resample)
    how = {
        "confidence": CONFIDENCE,
        "n_replicates": n_replicates,
        "seed": seed,
        "resampled": clusters.of,
        "n_clusters": clusters.n_clusters,
        "note": clusters.note,
    }
    try:
        draws = draw_clusters(clusters.n_clusters, n_replicates, seed)
        walk = make_walk(trials["score"], trials["key"] == "bonafide", clusters.number_N, clusters.n_clusters)
        eers = interval(100 * eer_replicates(walk, draws), clusters.n_clusters)
        dcfs = interval(min_dcf_replicates(walk, draws, costs), clusters.n_clusters)
    except SpoofkitError as error:
        return {**how, "left_out": str(error)}
    return {**how, "eer_official_percent": [eers.low, eers.high], "min_dcf": [dcfs.low, dcfs.high]}


def compare(
    systems: Mapping[str, Sequence[npt.ArrayLike]],
    trials: pl.DataFrame,
    *,
    by: Sequence[str] = (),
    resample: str = "speaker",
    costs: DcfCosts = ASVSPOOF5,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two systems on the same trials.

    Args:
        systems: Two, by name: scores of each of its seeds, in the order of `trials`.
        trials: `key`, `speaker`, `attack` and the columns `by`.
        by: Columns to break down by: for `attack` and others that only spoofs have all bona fide trials against each
            value's, else the trials of each value. P values are corrected over the values of a column (Holm).
        resample: See `clusters_of`.
        costs: Of the minDCF.
        n_replicates: Resampled lists.
        seed: Of the draws.

    Returns:
        JSON values: `rows`, the first of all trials, then those of each `column`, each with both systems' figures,
        their difference (second minus first), its interval and p value, or `left_out`: why they cannot be told; and
        how this was done.

    Raises:
        SpoofkitError: not two systems, no such column, or too few clusters.
    """
    if len(systems) != 2:
        raise SpoofkitError(f"compare: found {len(systems)} systems, expected two")
    for column in by:
        if column not in trials.columns or column in NO_PARTS:
            possible = [name for name in trials.columns if name not in NO_PARTS]
            raise SpoofkitError(f"--by {column}: no such column, expected one of {', '.join(possible)}")
    clusters = clusters_of(trials, resample)
    draws = draw_clusters(clusters.n_clusters, n_replicates, seed)
    rows: list[dict[str, Any]] = []
    for part_of, name, rows_N in _parts(trials, by):
        is_bonafide = (trials["key"] == "bonafide").to_numpy()[rows_N]
        row: dict[str, Any] = {"column": part_of, "part": name}
        row |= {"n_bonafide": int(is_bonafide.sum()), "n_spoof": int((~is_bonafide).sum())}
        if row["n_bonafide"] and row["n_spoof"]:
            scores = {name: [np.asarray(score)[rows_N] for score in seeds] for name, seeds in systems.items()}
            try:
                row |= _row(scores, is_bonafide, clusters.number_N[rows_N], draws, costs)
            except SpoofkitError as error:
                if not rows:
                    raise
                row["left_out"] = str(error)
        else:
            row["left_out"] = "holds one class only"
        rows.append(row)
    # Those of a breakdown are many, and are corrected for being many; the row of all trials stands for itself.
    for column, figure in product(dict.fromkeys(by), FIGURES):
        parts = [row for row in rows if row["column"] == column and figure in row]
        for row, corrected in zip(parts, holm([row[figure]["p"] for row in parts]), strict=True):
            row[figure]["p_corrected"] = corrected
    return {
        "systems": {name: len(seeds) for name, seeds in systems.items()},
        "by": list(dict.fromkeys(by)),
        "rows": rows,
        "eer_variant": EER_VARIANT,
        "confidence": CONFIDENCE,
        "n_replicates": n_replicates,
        "resampled": clusters.of,
        "n_clusters": clusters.n_clusters,
        "note": clusters.note,
    }


def _parts(trials: pl.DataFrame, by: Sequence[str]) -> Iterator[tuple[str | None, str, npt.NDArray[np.int64]]]:
    """Yield column, value and rows of each part; the first, of no column, is all trials."""
    everything = np.arange(trials.height)
    yield None, "all", everything
    is_spoof = (trials["key"] != "bonafide").to_numpy()
    for column in dict.fromkeys(by):
        of_spoofs = is_of_spoofs(trials, column)
        for value in trials[column].unique().sort():
            chosen = (trials[column] == value).to_numpy()
            if of_spoofs:
                if not (chosen & is_spoof).any():
                    continue
                chosen = (chosen & is_spoof) | ~is_spoof
            yield column, str(value), everything[chosen]


def _row(
    scores: dict[str, list[npt.NDArray[np.float64]]],
    is_bonafide: npt.NDArray[np.bool_],
    cluster: npt.NDArray[np.int64],
    draws: npt.NDArray[np.int64],
    costs: DcfCosts,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    values: dict[str, dict[str, list[float]]] = {figure: {} for figure in FIGURES}
    replicates: dict[str, list[npt.NDArray[np.float64]]] = {figure: [] for figure in FIGURES}
    for name, seeds in scores.items():
        walks = [make_walk(score, is_bonafide, cluster, draws.shape[1]) for score in seeds]
        classes = [(score[is_bonafide], score[~is_bonafide]) for score in seeds]
        values["eer_official_percent"][name] = [100 * eer(*pair).eer for pair in classes]
        values["min_dcf"][name] = [min_dcf(*pair, costs) for pair in classes]
        eers = [100 * eer_replicates(walk, draws) for walk in walks]
        replicates["eer_official_percent"].append(np.mean(eers, axis=0))
        replicates["min_dcf"].append(np.mean([min_dcf_replicates(walk, draws, costs) for walk in walks], axis=0))
    for figure in FIGURES:
        first, second = values[figure].values()
        difference_R = replicates[figure][1] - replicates[figure][0]
        around = interval(difference_R, draws.shape[1])
        found[figure] = {
            "systems": {name: _summary(seeds) for name, seeds in values[figure].items()},
            "difference": statistics.fmean(second) - statistics.fmean(first),
            "low": around.low,
            "high": around.high,
            "p": p_value(difference_R),
        }
        if min(len(first), len(second)) >= 3:
            found[figure]["p_seeds"] = _welch(first, second)
    return found


def _summary(seeds: list[float]) -> dict[str, Any]:
    spread = statistics.stdev(seeds) if len(seeds) > 1 else None
    return {"mean": statistics.fmean(seeds), "standard_deviation": spread, "seeds": seeds}


def _welch(first: list[float], second: list[float]) -> float:
    """P value of Welch's t test: whether the seeds' means differ by more than seeds do."""
    from scipy.stats import ttest_ind

    if statistics.pstdev(first) == statistics.pstdev(second) == 0:
        return float(statistics.fmean(first) == statistics.fmean(second))
    return float(ttest_ind(first, second, equal_var=False).pvalue)
