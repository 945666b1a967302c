"""`evaluate`: the figures of `spoofkit evaluate`, of score files and of arrays."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.api.detector import StrPath
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.measuring import EvaluationOptions, measure_files, measure_trials
from spoofkit.evaluation.metrics import dcf_costs
from spoofkit.evaluation.scores import join_scores

COLUMNS = ("speaker", "attack", "codec")
"""Columns of every manifest; `-` where nothing is known."""


def evaluate(
    scores: StrPath | npt.ArrayLike,
    keys: StrPath | Sequence[str] | npt.NDArray[Any],
    *,
    columns: Mapping[str, Sequence[str]] | None = None,
    by: Sequence[str] = (),
    replicates: int = 0,
    resample: str = "speaker",
    spoof_prior: float | None = None,
    miss_cost: float | None = None,
    fa_cost: float | None = None,
) -> dict[str, Any]:
    """Compute EER, minDCF, actDCF, Cllr and breakdowns: what `spoofkit evaluate --json` prints.

    Args:
        scores: A score file; or a score for each trial, shape (trials,), higher = more bona fide.
        keys: The manifest of the same trials; or `bonafide` or `spoof` for each.
        columns: With arrays: further columns by name, a text for each trial. `speaker` (for intervals), `attack` and
            `codec` (broken down always) have a meaning. A manifest has its own.
        by: Further columns to break down by.
        replicates: Draws of the bootstrap, at least 100 (the command line's default is 1000). Default: no intervals.
        resample: Unit of the bootstrap: `speaker`, `speaker_attack` or `trial`.
        spoof_prior: Prior of spoofs for minDCF and actDCF. Default: 0.05.
        miss_cost: Cost of rejecting bona fide speech. Default: 1.
        fa_cost: Cost of accepting spoofed speech. Default: 10.

    Returns:
        The content of eval.json, as docs/formats.md describes it: `eer_official_percent`, `min_dcf`, `by_attack`,
        `intervals`, `warnings` … Of arrays, without what is known of files (`made_from`, `made_with` …).

    Raises:
        SpoofkitError: scores and keys do not fit each other, a score is not finite, a key is unknown, a class is
            missing.

    >>> evaluate([2.0, 1.0, 0.0, 1.5], ["bonafide", "bonafide", "spoof", "spoof"])["eer_official_percent"]
    50.0
    """
    options = EvaluationOptions(
        by=tuple(by),
        n_replicates=replicates,
        resample=resample,
        costs=dcf_costs(spoof_prior, miss_cost, fa_cost),
    )
    are_files = [isinstance(one, (str, os.PathLike)) for one in (scores, keys)]
    if are_files == [True, True]:
        if columns is not None:
            raise SpoofkitError("evaluate: found columns beside a manifest, which has its own; leave them out")
        return measure_files(Path(scores), Path(keys), options).result  # type: ignore[arg-type]
    if any(are_files):
        raise SpoofkitError("evaluate: found a file and an array, expected a score file and a manifest, or two arrays")
    return measure_trials(_trials(np.asarray(scores), np.asarray(keys).tolist(), columns or {}), options)


def _trials(score_N: npt.NDArray[Any], keys: list[Any], columns: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Make the table of trials that are numbered from 0."""
    if score_N.ndim != 1 or score_N.dtype.kind not in "fiu" or not np.isfinite(score_N).all():
        raise SpoofkitError(
            f"evaluate: found scores of type {score_N.dtype} and shape {score_N.shape}, expected a finite number for "
            "each trial, shape (trials,); leave out trials without a score"
        )
    texts = {"key": keys, **dict.fromkeys(COLUMNS, ["-"] * score_N.size), **columns}
    for name, values in texts.items():
        if name in ("utt_id", "score") or (name == "key" and values is not keys):
            raise SpoofkitError(f"evaluate: found a column named {name!r}, which has a meaning already; rename it")
        if len(values) != score_N.size or not all(isinstance(value, str) for value in values):
            raise SpoofkitError(
                f"evaluate: found {len(values):,} values of {name}, expected a text for each of {score_N.size:,} scores"
                + ("; write bonafide or spoof, such as np.where(is_bonafide, 'bonafide', 'spoof')" * (name == "key"))
            )
    utt_ids = pl.Series("utt_id", range(score_N.size)).cast(pl.Utf8)
    table = pl.DataFrame([utt_ids, *(pl.Series(name, [*values], pl.Utf8) for name, values in texts.items())])
    return join_scores(pl.DataFrame([utt_ids, pl.Series("score", score_N, pl.Float64)]), table)
