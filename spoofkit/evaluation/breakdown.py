"""Compute the figures of a report from joined trials: pooled, by attack, codec or any column; and warn of odd scores.

    attack row    all bona fide trials       against  that attack's trials
    codec row     that codec's bona fide     against  that codec's spoof; so are rows of other columns
    cell          that codec's bona fide     against  that attack's trials in that codec
    pooled        everything, one threshold: never a mean of rows

A column that only spoofs have, as the vocoder of 2021 DF, is broken down as attacks are (asvspoof-challenge/2021,
eval-package/config.py, factors of type `spoof`).

The metrics of a cell without bona fide or without spoof trials are None, not 0.5. Nothing is read or written here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.error_rates import (
    CHOSEN,
    LIMITS,
    Limit,
    Point,
    limited_point,
    lowest_above,
    measure_points,
    rates_at,
)
from spoofkit.evaluation.metrics import (
    ASVSPOOF5,
    EER_VARIANT,
    DcfCosts,
    Scores,
    act_dcf_of_sorted,
    cllr_of_checked,
    eer_of_sorted,
    min_dcf_of_sorted,
    sorted_scores,
)
from spoofkit.evaluation.rocch import crossing, min_cllr_of_pooled, min_cllr_of_sorted, pooled_bins, tied_bins

METRICS = ("eer_official_percent", "min_dcf", "act_dcf", "cllr_bits", "apcer_percent", "bpcer_percent")
MOST_VALUES = 5000
"""Most values of a further column; with more it is not a condition but a property of each trial."""
MANY_TIES = 0.01
"""Share of trials that share their exact score with the other class, from which a warning is given."""


def measure(
    trials: pl.DataFrame, costs: DcfCosts = ASVSPOOF5, by: Sequence[str] = (), chosen: Limit = CHOSEN
) -> dict[str, Any]:
    """Compute all figures of one evaluation, as plain JSON values.

    Args:
        trials: As `spoofkit.evaluation.scores.join_scores` returns them: `score`, `key`, `attack` and `codec`.
        costs: Prior and costs of the DCFs.
        by: Further columns to break down by.
        chosen: The operating point at whose pooled threshold APCER and BPCER of all parts are measured.

    Returns:
        The pooled metrics (METRICS and their thresholds; min Cllr; the two other EERs in use, by name), the
        `operating_points` (see `error_rates.measure_points`) and the chosen one, the counts, the lists `by_attack`,
        `by_codec` and `by_attack_and_codec` (each entry: names, counts, METRICS), `by`: such a list for each further
        column, `by_and_codec`: one with codecs for each column that only spoofs have, the costs, and `warnings`.

    Raises:
        SpoofkitError: One of the two classes has no trial, or a column does not exist.

    >>> trials = pl.DataFrame({"score": [2.0, 1.0, 0.0, 1.5], "key": ["bonafide", "bonafide", "spoof", "spoof"],
    ...                        "attack": ["-", "-", "A31", "A32"], "codec": ["-", "-", "-", "-"]})
    >>> [(row["attack"], row["eer_official_percent"]) for row in measure(trials)["by_attack"]]
    [('A31', 0.0), ('A32', 75.0)]
    """
    require_columns(trials, by)
    bonafide, spoof = split_classes(trials)
    pooled = eer_of_sorted(bonafide, spoof)
    pooled_dcf = min_dcf_of_sorted(bonafide, spoof, costs)
    bins = tied_bins(bonafide, spoof)
    hull = pooled_bins(bins)
    point = limited_point(bonafide, spoof, chosen)
    parts, spoof_of_attack = _breakdowns(trials, bonafide, costs, by, point)
    return {
        "eer_variant": EER_VARIANT,
        "eer_official_percent": 100 * pooled.eer,
        "eer_threshold": pooled.threshold,
        "eer_accept_from": lowest_above(bonafide, spoof, pooled.threshold),
        "min_dcf": pooled_dcf.min_dcf,
        "min_dcf_threshold": pooled_dcf.threshold,
        "min_dcf_accept_from": lowest_above(bonafide, spoof, pooled_dcf.threshold),
        "act_dcf": act_dcf_of_sorted(bonafide, spoof, costs),
        "act_dcf_threshold": costs.bayes_threshold,
        "cllr_bits": cllr_of_checked(bonafide, spoof),
        **_rates(bonafide, spoof, point),
        "operating_point": asdict(chosen),
        "operating_points": measure_points(bonafide, spoof_of_attack, spoof, (*dict.fromkeys((*LIMITS, chosen)),)),
        "min_cllr_bits": min_cllr_of_pooled(hull),
        "eer_interpolated_percent": 100 * crossing(bins),
        "eer_rocch_percent": 100 * crossing(hull),
        "dcf_costs": {"spoof_prior": costs.spoof_prior, "miss_cost": costs.miss_cost, "fa_cost": costs.fa_cost},
        "n_trials": trials.height,
        "n_bonafide": bonafide.size,
        "n_spoof": spoof.size,
        **parts,
        "warnings": score_warnings(bonafide, spoof),
    }


def measure_systems(
    systems: Mapping[str, tuple[Scores, Scores]], paths: Sequence[Path], costs: DcfCosts, chosen: Limit = CHOSEN
) -> list[dict[str, Any]]:
    """Compute pooled METRICS, EER threshold, min Cllr and counts of each system, as plain JSON values.

    Args:
        systems: Bona fide and spoof scores, sorted ascending, by name.
        paths: Their score files.
        costs: Prior and costs of the DCFs.
        chosen: Operating point; each system has its own threshold for it.
    """
    rows = []
    for (name, (bonafide, spoof)), path in zip(systems.items(), paths, strict=True):
        others = {"eer_threshold": eer_of_sorted(bonafide, spoof).threshold}
        others["min_cllr_bits"] = min_cllr_of_sorted(bonafide, spoof)
        point = limited_point(bonafide, spoof, chosen)
        rows.append({"name": name, "scores": str(path), **part_metrics(bonafide, spoof, costs, point), **others})
    return rows


def split_classes(trials: pl.DataFrame) -> tuple[Scores, Scores]:
    """Return the bona fide and the spoof scores of joined trials, each sorted ascending."""
    score, is_bonafide = trials["score"].to_numpy(), (trials["key"] == "bonafide").to_numpy()
    bonafide, spoof = score[is_bonafide], score[~is_bonafide]
    return sorted_scores(bonafide, "bona fide"), sorted_scores(spoof, "spoof")


def score_warnings(bonafide: Scores, spoof: Scores) -> list[str]:
    """Warn of suspicious scores, one sentence each; both classes are sorted ascending."""
    lowest, highest = min(bonafide[0], spoof[0]), max(bonafide[-1], spoof[-1])
    if lowest == highest:
        return [
            f"all scores are the same ({lowest:g}): the system does not separate the classes, whatever the metrics say"
        ]
    warnings = []
    if all(np.all((scores == lowest) | (scores == highest)) for scores in (bonafide, spoof)):
        warnings.append("the scores take only two values, so they look like decisions; EER and minDCF need soft scores")
    elif lowest >= 0 and highest <= 1:
        warnings.append(
            "all scores lie between 0 and 1, so they look like probabilities; EER and minDCF are right, but actDCF and "
            "Cllr expect log-likelihood ratios and mean nothing here; write log-odds, ln p - ln (1 - p)"
        )
    error_rate = 100 * eer_of_sorted(bonafide, spoof).eer
    if error_rate > 50:
        turned = 100 * eer_of_sorted(-bonafide[::-1], -spoof[::-1]).eer
        warnings.append(
            f"EER is above 50 % ({error_rate:.3f} %), so the polarity may be reversed: a higher score must mean more "
            f"bona fide, and the negated scores would have {turned:.3f} %"
        )
    n_tied = _count_shared(bonafide, spoof) + _count_shared(spoof, bonafide)
    n_trials = bonafide.size + spoof.size
    if n_tied > MANY_TIES * n_trials:
        # With the classes exchanged the same walk rejects spoof first inside a tie, and its rates are 1 - miss, 1 - fa.
        favourable = 100 * (1 - eer_of_sorted(spoof, bonafide).eer)
        warnings.append(
            f"{n_tied} of {n_trials} trials ({100 * n_tied / n_trials:.1f} %) have "
            "exactly the score of a trial of the other class; "
            f"the {EER_VARIANT} EER counts such ties against the system ({error_rate:.3f} %, "
            f"{favourable:.3f} % if they counted for it), so write scores with more digits"
        )
    return warnings


def _count_shared(scores: Scores, others: Scores) -> int:
    """Count the `scores` that are also in `others`; both are sorted."""
    at = np.searchsorted(others, scores)
    return int(np.count_nonzero(others[np.minimum(at, others.size - 1)] == scores))


def _breakdowns(
    trials: pl.DataFrame, all_bonafide: Scores, costs: DcfCosts, by: Sequence[str], point: Point | None
) -> tuple[dict[str, Any], dict[str, Scores]]:
    """Compute the three lists and those of further columns, and return the sorted spoof scores of each attack too.

    Scores are sorted once: stable splits keep every part sorted.
    """
    score = trials["score"].to_numpy()
    order = np.argsort(score)  # of equal scores any order will do
    score, is_bonafide = score[order], (trials["key"] == "bonafide").to_numpy()[order]

    def split(key: npt.NDArray[np.bool_], codes: npt.NDArray[np.int64], n_parts: int) -> list[Scores]:
        return _split(score[key], codes[order][key], n_parts)

    def by_column(column: str) -> tuple[list[str], list[Scores], list[Scores]]:
        names, codes = _codes(trials[column])
        return names, split(is_bonafide, codes, len(names)), split(~is_bonafide, codes, len(names))

    def rows(column: str, values: list[str], bonafide: list[Scores], spoof: list[Scores]) -> list[dict[str, Any]]:
        parts = zip(values, bonafide, spoof, strict=True)
        return [{column: value, **part_metrics(b, s, costs, point)} for value, b, s in parts]

    codecs, bonafide_in_codec, spoof_in_codec = by_column("codec")
    codec_codes = _codes(trials["codec"])[1]

    def of_spoofs(column: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Scores]]:
        """Compute rows and cells of a column that only spoofs have; its value for bona fide trials is ignored."""
        names, codes = _codes(trials[column])
        spoof = split(~is_bonafide, codes, len(names))
        in_cell = split(~is_bonafide, codes * len(codecs) + codec_codes, len(names) * len(codecs))
        places = [place for place, part in enumerate(spoof) if part.size]
        cells = [
            {column: names[place], "codec": codec}
            | part_metrics(in_codec, in_cell[place * len(codecs) + c], costs, point)
            for place in places
            for c, (codec, in_codec) in enumerate(zip(codecs, bonafide_in_codec, strict=True))
        ]
        of_value = {names[place]: spoof[place] for place in places}
        wholes = [{column: name, **part_metrics(all_bonafide, part, costs, point)} for name, part in of_value.items()]
        return wholes, cells, of_value

    by_attack, by_attack_and_codec, spoof_of_attack = of_spoofs("attack")
    spoof_only = {column: of_spoofs(column) for column in by if is_of_spoofs(trials, column)}
    return {
        "by_attack": by_attack,
        "by_codec": rows("codec", codecs, bonafide_in_codec, spoof_in_codec),
        "by_attack_and_codec": by_attack_and_codec,
        "by": {
            column: spoof_only[column][0] if column in spoof_only else rows(column, *by_column(column)) for column in by
        },
        "by_and_codec": {column: cells for column, (_, cells, _) in spoof_only.items()},
    }, spoof_of_attack


def is_of_spoofs(trials: pl.DataFrame, column: str) -> bool:
    """Return whether only spoofs have a column: attack, or one where bona fide trials share a value no spoof has."""
    if column == "attack":
        return True
    is_bonafide = trials["key"] == "bonafide"
    values = trials[column].filter(is_bonafide).unique()
    return values.len() == 1 and not trials[column].filter(~is_bonafide).is_in(values.to_list()).any()


def require_columns(trials: pl.DataFrame, by: Sequence[str]) -> None:
    """Refuse columns that do not exist, or whose values are not conditions.

    Raises:
        SpoofkitError: a column does not exist, is named like a metric, or has too many values.
    """
    possible = [name for name in trials.columns if name not in ("utt_id", "path", "key", "score", "n_samples")]
    for column in by:
        if column not in possible:
            raise SpoofkitError(f"--by {column}: no such column, expected one of {', '.join(possible)}")
        if column in ("n_bonafide", "n_spoof", *METRICS):
            raise SpoofkitError(f"--by {column}: is also the name of a metric; rename the column")
        if (n_values := trials[column].n_unique()) > MOST_VALUES:
            raise SpoofkitError(
                f"--by {column}: has {n_values:,} values, expected at most {MOST_VALUES:,}; name a column of conditions"
            )


def _codes(column: pl.Series) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the unique values, sorted, and each row's index into them."""
    names = sorted(column.unique().to_list())
    codes = column.cast(pl.Enum(names)).to_physical().to_numpy()
    return names, codes.astype(np.int64)


def _split(scores: Scores, codes: npt.NDArray[np.int64], n_parts: int) -> list[Scores]:
    """Split scores by code, keeping their order."""
    # A stable sort of 16-bit integers is a radix sort, ten times faster than one of 64 bits.
    narrow = codes.astype(np.int16) if n_parts <= np.iinfo(np.int16).max else codes
    order = np.argsort(narrow, kind="stable")
    return np.split(scores[order], np.cumsum(np.bincount(codes, minlength=n_parts))[:-1])


def _rates(bonafide: Scores, spoof: Scores, point: Point | None) -> dict[str, float | None]:
    """Compute APCER and BPCER in percent at the threshold of an operating point; None where there is no such point."""
    if point is None:
        return {"apcer_percent": None, "bpcer_percent": None}
    apcer, bpcer = rates_at(bonafide, spoof, point.accept_from)
    return {"apcer_percent": 100 * apcer, "bpcer_percent": 100 * bpcer}


def part_metrics(
    bonafide: Scores, spoof: Scores, costs: DcfCosts = ASVSPOOF5, point: Point | None = None
) -> dict[str, Any]:
    """Count and measure one part; METRICS of a part without one of the classes are None.

    Args:
        bonafide: Bona fide scores, sorted ascending.
        spoof: Spoof scores, sorted ascending.
        costs: Prior and costs of the DCFs.
        point: Operating point at whose threshold APCER and BPCER are measured. Default: they are None.
    """
    counts = {"n_bonafide": bonafide.size, "n_spoof": spoof.size}
    if not (bonafide.size and spoof.size):
        return {**counts, **dict.fromkeys(METRICS)}
    values = (
        100 * eer_of_sorted(bonafide, spoof).eer,
        min_dcf_of_sorted(bonafide, spoof, costs).min_dcf,
        act_dcf_of_sorted(bonafide, spoof, costs),
        cllr_of_checked(bonafide, spoof),
        *_rates(bonafide, spoof, point).values(),
    )
    return {**counts, **dict(zip(METRICS, values, strict=True))}
