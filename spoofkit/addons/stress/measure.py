"""The figures of a stress card: each condition by itself, at the clean threshold, and against the clean scores.

Everything of a condition is measured on the same trials, and all conditions are resampled with the same draws of
speakers, so a speaker's effect on a condition and on the clean scores cancels in their difference. Nothing is read or
written here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from spoofkit.addons.stress.conditions import CLEAN
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import Clusters, clusters_of, draw_clusters, eer_replicates, make_walk
from spoofkit.evaluation.breakdown import score_warnings, split_classes
from spoofkit.evaluation.calibration import Calibration
from spoofkit.evaluation.error_rates import FEWEST_ERRORS, Limit, limited_point, lowest_above, rates_at
from spoofkit.evaluation.intervals import (
    difference_interval,
    fixed_rate_interval,
    highest_without_error,
    holm,
    p_value,
    rate_interval,
)
from spoofkit.evaluation.metrics import cllr_of_checked, eer_of_sorted
from spoofkit.evaluation.rocch import min_cllr_of_sorted
from spoofkit.scoring.decisions import Decisions

INTERVALS = ("eer_interval", "difference_interval", "apcer_interval", "bpcer_interval")
NO_INTERVALS = dict.fromkeys((*INTERVALS, "difference_p", "difference_p_holm"))


@dataclass(frozen=True)
class Cut:
    """The decision threshold that all conditions are held to."""

    accept_from: float
    """Lowest accepted score, or log-likelihood ratio if there is a calibration."""
    words: str


def find_cut(clean: pl.DataFrame, decisions: Decisions | None, limit: Limit | None) -> Cut:
    """Return the threshold that the options ask for.

    Args:
        clean: `score` and `key` of the clean trials.
        decisions: Thresholds, and with a calibration what scores become; None: neither was given.
        limit: Operating point of the clean scores. Default: that of the decisions; without these, the EER's.

    Raises:
        SpoofkitError: the set is too small for the operating point.
    """
    if limit is None and decisions is not None:
        on = "score" if decisions.calibration is None else "log-likelihood ratio"
        return Cut(decisions.thresholds.accept_from, f"{on}, {decisions.reason}")
    bonafide, spoof = split_classes(clean)
    if limit is None:
        rejected = eer_of_sorted(bonafide, spoof).threshold
        accepted = lowest_above(bonafide, spoof, rejected)
        accept_from = math.nextafter(rejected, math.inf) if accepted is None else accepted
        return Cut(accept_from, "EER threshold of the clean scores")
    point = limited_point(bonafide, spoof, limit)
    if point is None or point.accept_from is None:
        raise SpoofkitError(
            f"--operating-point {limit}: the {bonafide.size:,} bona fide and {spoof.size:,} spoofed trials do not have "
            f"it, expected at least {limit.fewest_trials:,} of the class; measure more (--trials), or choose another"
        )
    return Cut(point.accept_from, f"threshold of {limit} of the clean scores")


def measure_conditions(
    scored: Mapping[str, pl.DataFrame],
    decisions: Decisions | None = None,
    limit: Limit | None = None,
    *,
    resample: str = "speaker",
    n_replicates: int,
) -> dict[str, Any]:
    """Measure all conditions, as plain JSON values.

    Args:
        scored: Trials of each condition by its name, CLEAN first: `score`, `key`, `speaker` and `attack` of the same
            trials in the same order.
        decisions: See `find_cut`; its calibration also gives the figures of calibration.
        limit: See `find_cut`.
        resample: Unit of the bootstrap: see `bootstrap.clusters_of`.
        n_replicates: Number of resampled lists; 0: no intervals.

    Returns:
        `threshold`, `resampled` (how intervals were computed, or `left_out`: why there are none), `rows` (one for each
        condition: counts, EER, rates at the threshold, differences to clean, intervals; figures that are not known are
        None) and `warnings` about scores.
    """
    calibration = None if decisions is None else decisions.calibration
    values = {name: _calibrated(trials, calibration) for name, trials in scored.items()}
    clean = values[CLEAN]
    cut = find_cut(clean, decisions, limit)
    rows = [_row(name, trials, cut, calibration is not None) for name, trials in values.items()]
    for row in rows:
        row |= {"difference_percent": row["eer_official_percent"] - rows[0]["eer_official_percent"]} | NO_INTERVALS
    clusters = clusters_of(clean, resample)
    how: dict[str, Any] = {"resampled": clusters.of, "n_clusters": clusters.n_clusters, "note": clusters.note}
    how |= {"n_replicates": n_replicates, "left_out": "" if n_replicates else "--replicates 0"}
    if n_replicates:
        try:
            _add_intervals(rows, values, cut, clusters, n_replicates)
        except SpoofkitError as error:
            how["left_out"] = str(error)
            for row in rows:
                row |= NO_INTERVALS
    warnings = [f"{name}: {said}" for name, trials in scored.items() for said in score_warnings(*split_classes(trials))]
    threshold = {"accept_from": cut.accept_from, "is_llr": calibration is not None, "words": cut.words}
    return {"threshold": threshold, "resampled": how, "rows": rows, "warnings": warnings}


def _calibrated(trials: pl.DataFrame, calibration: Calibration | None) -> pl.DataFrame:
    if calibration is None:
        return trials
    return trials.with_columns(pl.Series("score", calibration.apply(trials["score"].to_numpy()[:, None])))


def _row(name: str, trials: pl.DataFrame, cut: Cut, is_llr: bool) -> dict[str, Any]:
    """Measure a condition by itself; scores are log-likelihood ratios if there is a calibration."""
    bonafide, spoof = split_classes(trials)
    apcer, bpcer = rates_at(bonafide, spoof, cut.accept_from)
    return {
        "condition": name,
        "n_bonafide": bonafide.size,
        "n_spoof": spoof.size,
        "eer_official_percent": 100 * eer_of_sorted(bonafide, spoof).eer,
        "apcer_percent": 100 * apcer,
        "apcer_few_errors": round(apcer * spoof.size) < FEWEST_ERRORS,
        "bpcer_percent": 100 * bpcer,
        "bpcer_few_errors": round(bpcer * bonafide.size) < FEWEST_ERRORS,
        "cllr_bits": cllr_of_checked(bonafide, spoof) if is_llr else None,
        "min_cllr_bits": min_cllr_of_sorted(bonafide, spoof) if is_llr else None,
    }


def _add_intervals(
    rows: list[dict[str, Any]], values: Mapping[str, pl.DataFrame], cut: Cut, clusters: Clusters, n_replicates: int
) -> None:
    """Add intervals and p values to the rows, in place.

    Raises:
        SpoofkitError: there are too few clusters.
    """
    draws_RC = draw_clusters(clusters.n_clusters, n_replicates)
    clean_R = None
    for row, trials in zip(rows, values.values(), strict=True):
        is_bonafide_N = (trials["key"] == "bonafide").to_numpy()
        walk = make_walk(trials["score"], is_bonafide_N, clusters.number_N, clusters.n_clusters)
        eer_R = 100 * eer_replicates(walk, draws_RC)
        n_speakers = clusters.n_with(is_bonafide_N), clusters.n_with(~is_bonafide_N)
        row["eer_interval"] = list(rate_interval(row["eer_official_percent"], eer_R, min(n_speakers)))
        is_accepted_N = trials["score"].to_numpy() >= cut.accept_from
        for rate, is_class_N, is_error_N in (
            ("apcer", ~is_bonafide_N, is_accepted_N),
            ("bpcer", is_bonafide_N, ~is_accepted_N),
        ):
            row[f"{rate}_interval"] = list(fixed_rate_interval(is_error_N, is_class_N, clusters, draws_RC))
        if clean_R is None:
            clean_R = eer_R
            continue
        most = highest_without_error(*n_speakers)["eer_official_percent"]
        row["difference_interval"] = list(difference_interval(clean_R, eer_R, most))
        row["difference_p"] = p_value(eer_R - clean_R)
    for row, corrected in zip(rows[1:], holm([row["difference_p"] for row in rows[1:]]), strict=True):
        row["difference_p_holm"] = corrected
