"""Test whether two systems differ on the same trials, resampling both together, speaker by speaker.

A system may have several score files, one per training seed: its figure is then their mean, and their spread shows the
effect of the seed.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.data.manifest import read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import (
    N_REPLICATES,
    Clusters,
    clusters_in_words,
    clusters_of,
    draw_clusters,
    eer_replicates,
    make_walk,
    min_dcf_replicates,
)
from spoofkit.evaluation.breakdown import is_of_spoofs, require_columns, score_warnings, split_classes
from spoofkit.evaluation.intervals import CONFIDENCE, difference_interval, highest_without_error, holm, p_value
from spoofkit.evaluation.metrics import ASVSPOOF5, EER_VARIANT, DcfCosts, eer, min_dcf
from spoofkit.evaluation.records import caveats
from spoofkit.evaluation.scores import read_trials
from spoofkit.files import file_sha256
from spoofkit.tables import Column, Row, Table, show

FIGURES = ("eer_official_percent", "min_dcf")
LEVEL = 0.05


def compare_files(
    first: Sequence[Path],
    second: Sequence[Path],
    manifest_path: Path,
    *,
    by: Sequence[str] = (),
    resample: str = "speaker",
    costs: DcfCosts = ASVSPOOF5,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two systems, each by its score files, one per seed.

    Args:
        first: Score files of system A.
        second: Those of system B.
        manifest_path: Manifest with the keys of the same trials.
        by, resample, costs, n_replicates, seed: See `compare`.

    Returns:
        The result of `compare`, with the files and their hashes, and `warnings` about them.

    Raises:
        SpoofkitError: a system has no file, or one twice; a file is not of these trials; or see `compare`.
    """
    manifest = read_keyed_manifest(manifest_path)
    files = {"A": list(first), "B": list(second)}
    for own in files.values():
        if not own or len(set(own)) < len(own):
            raise SpoofkitError(
                f"compare: found the score files {', '.join(map(str, own)) or 'none'} for one system, expected one "
                "for each of its seeds, each once"
            )
    trials = {name: [read_trials(path, manifest) for path in own] for name, own in files.items()}
    scores = {name: [of_seed["score"].to_numpy() for of_seed in own] for name, own in trials.items()}
    result = compare(
        scores, manifest.table, by=by, resample=resample, costs=costs, n_replicates=n_replicates, seed=seed
    )
    warnings = caveats(manifest, [path for own in files.values() for path in own])
    for name, own in files.items():
        for path, of_seed in zip(own, trials[name], strict=True):
            warnings += [f"{path}: {warning}" for warning in score_warnings(*split_classes(of_seed))]
    made_from = {
        "scores_sha256": {name: [file_sha256(path) for path in own] for name, own in files.items()},
        "manifest_sha256": file_sha256(manifest_path),
    }
    return result | {
        "dcf_costs": asdict(costs),
        "n_trials": manifest.table.height,
        "files": {name: [str(path) for path in own] for name, own in files.items()},
        "made_from": made_from,
        "warnings": warnings,
    }


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
        systems: The two systems by name: scores of each of its seeds, in the order of `trials`.
        trials: `key`, `speaker`, `attack` and the columns `by`.
        by: Columns to break down by. A column that only spoofs have, such as `attack`, compares all bona fide trials
            with each value's spoofs; another one uses each value's own trials. P values are corrected over the
            values of a column (Holm).
        resample: See `clusters_of`.
        costs: Prior and costs of the minDCF.
        n_replicates: Number of resampled lists.
        seed: Seed of the draws.

    Returns:
        JSON values: `rows`, the first for all trials, then those of each `column`, each with both systems' figures,
        their difference (second minus first), its interval and p value, or `left_out`: why it has none; and how they
        were computed.

    Raises:
        SpoofkitError: there are not two systems, a column does not exist, or there are too few clusters.
    """
    if len(systems) != 2:
        raise SpoofkitError(f"compare: found {len(systems)} systems, expected two")
    require_columns(trials, by)
    clusters = clusters_of(trials, resample)
    draws = draw_clusters(clusters.n_clusters, n_replicates, seed)
    rows: list[dict[str, Any]] = []
    for part_of, name, rows_N in _parts(trials, by):
        is_bonafide = (trials["key"] == "bonafide").to_numpy()[rows_N]
        row: dict[str, Any] = {"column": part_of, "part": name}
        row |= {"n_bonafide": int(is_bonafide.sum()), "n_spoof": int((~is_bonafide).sum())}
        scores = {name: [np.asarray(score)[rows_N] for score in seeds] for name, seeds in systems.items()}
        try:
            row |= _row(scores, is_bonafide, replace(clusters, number_N=clusters.number_N[rows_N]), draws, costs)
        except SpoofkitError as error:
            if not rows:
                raise
            row["left_out"] = str(error)
        rows.append(row)
    _correct(rows, by)
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
    """Yield column, value and row numbers of each part; the first part is all trials, its column None."""
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


def _correct(rows: list[dict[str, Any]], by: Sequence[str]) -> None:
    """Correct the p values of each breakdown for multiple comparisons; that of all trials needs no correction."""
    for column, figure in product(dict.fromkeys(by), FIGURES):
        parts = [row for row in rows if row["column"] == column and figure in row]
        for row, corrected in zip(parts, holm([row[figure]["p"] for row in parts]), strict=True):
            row[figure]["p_corrected"] = corrected


def _row(
    scores: dict[str, list[npt.NDArray[np.float64]]],
    is_bonafide: npt.NDArray[np.bool_],
    clusters: Clusters,
    draws: npt.NDArray[np.int64],
    costs: DcfCosts,
) -> dict[str, Any]:
    if is_bonafide.all() or not is_bonafide.any():
        raise SpoofkitError("holds one class only")
    found: dict[str, Any] = {}
    values: dict[str, dict[str, list[float]]] = {figure: {} for figure in FIGURES}
    replicates: dict[str, list[npt.NDArray[np.float64]]] = {figure: [] for figure in FIGURES}
    for name, seeds in scores.items():
        walks = [make_walk(score, is_bonafide, clusters.number_N, clusters.n_clusters) for score in seeds]
        classes = [(score[is_bonafide], score[~is_bonafide]) for score in seeds]
        values["eer_official_percent"][name] = [100 * eer(*pair).eer for pair in classes]
        values["min_dcf"][name] = [min_dcf(*pair, costs) for pair in classes]
        eers = [100 * eer_replicates(walk, draws) for walk in walks]
        replicates["eer_official_percent"].append(np.mean(eers, axis=0))
        replicates["min_dcf"].append(np.mean([min_dcf_replicates(walk, draws, costs) for walk in walks], axis=0))
    highest = highest_without_error(clusters.n_with(is_bonafide), clusters.n_with(~is_bonafide), costs)
    for figure in FIGURES:
        first, second = values[figure].values()
        first_R, second_R = replicates[figure]
        low, high = difference_interval(first_R, second_R, highest[figure])
        found[figure] = {
            "systems": {name: _summary(seeds) for name, seeds in values[figure].items()},
            "difference": statistics.fmean(second) - statistics.fmean(first),
            "low": low,
            "high": high,
            "p": p_value(second_R - first_R),
        }
        if min(len(first), len(second)) >= 3:
            found[figure]["p_seeds"] = _welch(first, second)
    return found


def _summary(seeds: list[float]) -> dict[str, Any]:
    spread = statistics.stdev(seeds) if len(seeds) > 1 else None
    return {"mean": statistics.fmean(seeds), "standard_deviation": spread, "seeds": seeds}


def _welch(first: list[float], second: list[float]) -> float:
    """Compute the p value of Welch's t test between the seeds of two systems."""
    from scipy.stats import ttest_ind

    if statistics.pstdev(first) == statistics.pstdev(second) == 0:
        return float(statistics.fmean(first) == statistics.fmean(second))
    return float(ttest_ind(first, second, equal_var=False).pvalue)


def print_comparison(result: Mapping[str, Any]) -> None:
    """Print the result of `compare` for each figure, and how it was computed; `n_trials` is added by the caller."""
    show(*_comparison(result, "eer_official_percent", "EER, %", 3), "")
    show(*_comparison(result, "min_dcf", "minDCF", 4), "")
    what = clusters_in_words(result, result["n_trials"])
    show(f"{result['n_replicates']:,} draws of {what}, both systems together; EER: {result['eer_variant']} variant")
    n_parts = max(Counter(row["column"] for row in result["rows"]).values())
    if (lowest := 2 * n_parts / (result["n_replicates"] + 1)) >= LEVEL:
        show(f"with so few draws no corrected p of {n_parts} parts is below {lowest:.2g}; give more (--replicates)")


def _comparison(result: Mapping[str, Any], figure: str, name: str, digits: int) -> Iterator[str | Table]:
    def part(row: Row) -> str:
        """Name a part by its value, with its column if there are several."""
        return f"{row['column']} {row['part']}" if len(result["by"]) > 1 and row["column"] else str(row["part"])

    def cells(row: Row) -> Row:
        found, around = row[figure], (row[figure]["low"], row[figure]["high"])
        return {
            "part": part(row),
            **{system: of["mean"] for system, of in found["systems"].items()},
            "B - A": found["difference"],
            "interval": " to ".join(f"{end:+.{digits}f}" for end in around),
            "p": found["p"],
            "p, corrected": f"{found['p_corrected']:.3g}" if "p_corrected" in found else "",
        }

    columns = [
        Column("part", ", ".join(result["by"])),
        Column("A", f"A {name}", f".{digits}f"),
        Column("B", form=f".{digits}f"),
        Column("B - A", form=f"+.{digits}f"),
        Column("interval", f"{result['confidence']:.0%} interval"),
        Column("p", form=".3g"),
        *([Column("p, corrected")] if len(result["rows"]) > 1 else []),
    ]
    yield Table(columns, [cells(row) for row in result["rows"] if figure in row])
    if skipped := [part(row) for row in result["rows"] if "left_out" in row]:
        yield f"skipped, too few speakers or a single class: {', '.join(skipped)}"
    first = result["rows"][0][figure]
    if any(system["standard_deviation"] is None for system in first["systems"].values()):
        return
    spreads = ", ".join(
        f"{name} {of['mean']:.{digits}f} ± {of['standard_deviation']:.{digits}f} ({len(of['seeds'])} seeds)"
        for name, of in first["systems"].items()
    )
    if "p_seeds" in first:
        exceeds = "exceeds" if first["p_seeds"] < 0.05 else "does not exceed"
        spreads += f"; the difference {exceeds} the variation between seeds (Welch's t test, p {first['p_seeds']:.3g})"
    yield spreads
