"""How well trivial predictors do on a list: the EER of duration, silences, levels, band and file format alone.

A number (`surface.NUMERIC`) is a score as it is, in the better of its two polarities. A name (`surface.CATEGORICAL`) is
scored by the share of spoof that its category has in the other folds of a five-fold split: taken from the utterance's
own fold too, many small categories would be known by heart; leaving out only the utterance itself, every score would
tell its own class backwards. EERs follow the official rule. Utterances of equal value are interleaved evenly by class
first: as they are, the rule would count each tie against the predictor, and one that is the same for all would have
100 %, not 50 %.

An interval is the 95 % cluster bootstrap's over speakers; utterances without one are dealt at random to groups, which
spread as utterances do that are drawn one by one.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from tqdm import tqdm

from spoofkit.addons.audit.measures import FORMAT, has_measures, measure_list
from spoofkit.addons.audit.surface import CATEGORICAL, NUMERIC
from spoofkit.data.manifest import Manifest, read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import Clusters, draw_clusters, eer_replicates, make_walk
from spoofkit.evaluation.intervals import rate_interval
from spoofkit.evaluation.metrics import EER_VARIANT, Scores, eer
from spoofkit.files import atomic_path, file_sha256, read_json, write_json
from spoofkit.lock import locked_outputs
from spoofkit.outputs import Output, is_up_to_date, read_json_record, refuse_replacing, skipped, with_checksums

PREDICTORS = {**NUMERIC, **CATEGORICAL}
WARN_BELOW_PERCENT = 35.0
WARN_RULE = (
    f"a warning is due from an EER below {WARN_BELOW_PERCENT:g} %, "
    "unless its 95 % interval reaches 50 %, where chance would be"
)
N_FOLDS = 5
MOST_GROUPS = 500  # of utterances without a speaker, in the bootstrap
N_WORST = 3

IsBonafide = npt.NDArray[np.bool_]


def audit(
    manifest_path: Path,
    out: Path | None = None,
    *,
    by: Sequence[str] = (),
    sample: int | None = None,
    seed: int = 0,
    workers: int = 8,
    overwrite: bool = False,
    reuse: bool = False,
) -> dict[str, Any]:
    """Measure every utterance of a list and compute the EERs of trivial predictors.

    Args:
        manifest_path: The list.
        out: Folder for audit.tsv (the measures), audit.json, audit.png and audit.pdf; None writes nothing.
        by: Columns to break down by; `attack` compares each attack with all bona fide.
        sample: Number of utterances to measure, half of each class if there are enough. Default: all.
        seed: Seed of the sample, the folds and the bootstrap.
        workers: Number of threads that decode.
        overwrite: Measure again what an earlier call measured.
        reuse: Skip an audit of the same list, sample, seed and columns.

    Returns:
        The result, as plain JSON values.

    Raises:
        SpoofkitError: the manifest is broken or lacks a class or column, a file cannot be decoded, or `out` holds
            measures of another manifest or files that no audit wrote.
    """
    manifest = read_keyed_manifest(manifest_path)
    table = manifest.table if sample is None else draw_sample(manifest.table, sample, seed)
    _require_auditable(manifest, table, by)
    identity = {"format": FORMAT, "manifest_sha256": file_sha256(manifest_path)}
    made_from = identity | {"by": list(by), "sample": sample, "seed": seed}
    if out is not None:
        refuse_replacing([out / name for name in ("audit.tsv", "audit.json")], [manifest_path])
        output = _output(out, made_from)
        if _is_skipped(output, overwrite=overwrite, reuse=reuse):
            recorded: dict[str, Any] = read_json(output.record)
            return recorded
    with ExitStack() as stack:
        if out is not None:
            stack.enter_context(locked_outputs(out, "audit"))
        features = measure_list(manifest, table, out, identity, workers, overwrite)
        trials = table.join(features.drop("key", "attack"), on="utt_id", how="left", maintain_order="left")
        result = {
            "manifest": str(manifest_path),
            "made_from": made_from,
            "sample": sample,
            "seed": seed,
            "n_of_list": manifest.table.height,
            "caveats": manifest.caveats(),
            **judge(trials, by, seed),
        }
        if out is not None:
            _write_results(out, result, trials)
    return result


def _output(out: Path, made_from: dict[str, Any]) -> Output:
    """Describe the files of an audit; beside measures, a file without the record is what a killed call left."""
    record = out / "audit.json"
    files = tuple(out / name for name in ("audit.tsv", "audit.png", "audit.pdf", record.name))
    return Output(
        "audit", files, record, made_from, read_json_record("warning_rule"), is_own=lambda path: has_measures(out)
    )


def _is_skipped(output: Output, *, overwrite: bool, reuse: bool) -> bool:
    """Return whether an audit is up to date; an earlier one is added to without --overwrite and --reuse, too.

    Raises:
        SpoofkitError: a file may not be replaced.
    """
    record = output.record
    is_own = output.read(record).made_from is not None if record.exists() else has_measures(record.parent)
    if is_own and not (overwrite or reuse):
        return False
    if not is_up_to_date(output, overwrite=overwrite, reuse=True):
        return False
    tqdm.write(skipped(record), file=sys.stderr)
    return True


def draw_sample(table: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """Draw `n` rows, half of each class if there are enough; all rows if there are not more.

    EERs do not depend on the classes' shares, and are most certain from equal ones.
    """
    if n >= table.height:
        return table
    rng = np.random.default_rng(seed)
    is_bonafide = (table["key"] == "bonafide").to_numpy()
    rows = [np.flatnonzero(of_class) for of_class in (is_bonafide, ~is_bonafide)]
    n_bonafide = min(max(n // 2, n - rows[1].size), rows[0].size)
    drawn = [rng.choice(of, size, replace=False) for of, size in zip(rows, (n_bonafide, n - n_bonafide), strict=True)]
    return table[np.sort(np.concatenate(drawn))]


# ---- Judging


def judge(trials: pl.DataFrame, by: Sequence[str] = (), seed: int = 0) -> dict[str, Any]:
    """Compute the EER of every predictor, overall and by column.

    Args:
        trials: A manifest's columns and those of PREDICTORS; both classes.
        by: Columns to break down by.
        seed: Seed of folds and bootstrap.

    Returns:
        `predictors` (a list, lowest EER first), `by`, counts, `warnings`, and the rules in words; plain JSON values.
    """
    is_bonafide = (trials["key"] == "bonafide").to_numpy()
    judged = {name: _judge_one(trials[name], is_bonafide, seed) for name in PREDICTORS}
    to_resample = {name: scores for name, (row, scores) in judged.items() if row["n_values"] > 1}
    try:
        intervals, problem = _intervals(to_resample, is_bonafide, trials["speaker"], seed), ""
    except SpoofkitError as error:
        intervals, problem = {}, str(error)
    rows = [
        {
            "predictor": name,
            "name": PREDICTORS[name],
            **row,
            **dict(zip(("low_percent", "high_percent"), intervals.get(name, (None, None)), strict=True)),
        }
        for name, (row, _) in judged.items()
    ]
    rows.sort(key=lambda row: row["eer_percent"])
    n_speakers = trials.filter(pl.col("speaker") != "-")["speaker"].n_unique()
    return {
        "n_bonafide": int(is_bonafide.sum()),
        "n_spoof": int((~is_bonafide).sum()),
        "n_speakers": n_speakers,
        "eer_variant": f"{EER_VARIANT}, ties interleaved, better polarity; categories cross-validated",
        "warning_rule": WARN_RULE,
        "interval_problem": problem,
        "predictors": rows,
        "by": {column: _breakdown(trials, column, seed) for column in by},
        "warnings": [_in_words(row) for row in rows if is_suspicious(row)],
    }


def is_suspicious(row: dict[str, Any]) -> bool:
    """Return whether a predictor's row needs a warning, by WARN_RULE."""
    return row["eer_percent"] < WARN_BELOW_PERCENT and (row["high_percent"] is None or row["high_percent"] < 50)


def _judge_one(values: pl.Series, is_bonafide: IsBonafide, seed: int) -> tuple[dict[str, Any], Scores]:
    """Return the row of one predictor, and its scores: higher = more bona fide, all different unless all are equal."""
    n_values = values.n_unique()
    if n_values == 1:
        return {"eer_percent": 50.0, "bonafide_is": "the same", "n_values": 1}, np.zeros(is_bonafide.size)
    if values.name in NUMERIC:
        higher = interleave_ties(values.to_numpy().astype(np.float64), is_bonafide, seed)
        scores, says = min(((higher, "higher"), (-higher, "lower")), key=lambda found: _eer(found[0], is_bonafide))
    else:
        share = spoof_share_of_category(values, is_bonafide, seed)
        scores, says = interleave_ties(-share, is_bonafide, seed), "by category"
    return {"eer_percent": 100 * _eer(scores, is_bonafide), "bonafide_is": says, "n_values": n_values}, scores


def _eer(scores: Scores, is_bonafide: IsBonafide) -> float:
    return eer(scores[is_bonafide], scores[~is_bonafide]).eer


def interleave_ties(values: Scores, is_bonafide: IsBonafide, seed: int = 0) -> Scores:
    """Rank values; the ranks of equal values are shared so that both classes are spread evenly over them.

    Args:
        values: Shape (trials,).
        is_bonafide: Shape (trials,).
        seed: Seed of the order within a class.

    >>> interleave_ties(np.array([7.0, 7.0, 7.0, 1.0]), np.array([True, False, False, False])).tolist()
    [2.0, 3.0, 1.0, 0.0]
    """
    order = np.random.default_rng(seed).permutation(values.size)
    _, tie = np.unique(values[order], return_inverse=True)
    place = np.empty(values.size)
    for of_class in (is_bonafide[order], ~is_bonafide[order]):
        ties = tie[of_class]
        counts = np.bincount(ties, minlength=tie.max() + 1)
        firsts = np.cumsum(counts) - counts
        within = np.empty(ties.size)
        within[np.argsort(ties, kind="stable")] = np.arange(ties.size) - np.repeat(firsts, counts)
        place[of_class] = (within + 0.5) / counts[ties]
    ranks = np.empty(values.size)
    ranks[order[np.lexsort((place, tie))]] = np.arange(values.size)
    return ranks


def spoof_share_of_category(values: pl.Series, is_bonafide: IsBonafide, seed: int = 0) -> Scores:
    """Return the share of spoof of each trial's category in the other folds; of all trials if it is not in them."""
    category = values.rank("dense").to_numpy().astype(np.int64) - 1
    n_categories = int(category.max()) + 1
    fold = np.empty(category.size, dtype=np.int64)
    for of_class in (is_bonafide, ~is_bonafide):  # equally many of each class in every fold, or one less
        fold[of_class] = np.random.default_rng(seed).permutation(int(of_class.sum())) % N_FOLDS
    shares = np.empty(category.size)
    for number in range(N_FOLDS):
        others, own = fold != number, fold == number
        total = np.bincount(category[others], minlength=n_categories)
        spoof = np.bincount(category[others & ~is_bonafide], minlength=n_categories)
        overall = spoof.sum() / max(1, total.sum())
        shares[own] = np.where(total > 0, spoof / np.maximum(total, 1), overall)[category[own]]
    return shares


def _intervals(
    scores: dict[str, Scores], is_bonafide: IsBonafide, speakers: pl.Series, seed: int
) -> dict[str, tuple[float, float]]:
    """Compute the 95 % interval of each predictor's EER, in %.

    Raises:
        SpoofkitError: there are too few speakers.
    """
    clusters = _clusters(speakers, seed)
    draws = draw_clusters(clusters.n_clusters, seed=seed)
    n_speakers = min(clusters.n_with(is_bonafide), clusters.n_with(~is_bonafide))
    found = {}
    for name, of_predictor in scores.items():
        replicates = 100 * eer_replicates(
            make_walk(of_predictor, is_bonafide, clusters.number_N, clusters.n_clusters), draws
        )
        found[name] = rate_interval(100 * _eer(of_predictor, is_bonafide), replicates, n_speakers)
    return found


def _clusters(speakers: pl.Series, seed: int) -> Clusters:
    """Return the speaker of each trial, or a random group."""
    is_known = (speakers != "-").to_numpy()
    known = speakers.filter(speakers != "-")
    n_unknown, n_speakers = speakers.len() - known.len(), known.n_unique()
    n_groups = min(n_unknown, MOST_GROUPS)
    clusters = np.empty(is_known.size, dtype=np.int64)
    clusters[is_known] = known.rank("dense").to_numpy() - 1
    clusters[~is_known] = n_speakers + np.random.default_rng(seed).permutation(n_unknown) % max(1, n_groups)
    return Clusters(clusters, n_speakers + n_groups, "speaker", "")


def _breakdown(trials: pl.DataFrame, column: str, seed: int) -> list[dict[str, Any]]:
    """Compute EERs for each value of a column: an attack against all bona fide, else both classes with that value."""
    bonafide = trials.filter(pl.col("key") == "bonafide")
    of_column = trials.filter(pl.col("key") == "spoof") if column == "attack" else trials
    rows = []
    for value in sorted(of_column[column].unique()):
        part = of_column.filter(pl.col(column) == value)
        part = pl.concat([bonafide, part]) if column == "attack" else part
        is_bonafide = (part["key"] == "bonafide").to_numpy()
        counts = {"value": value, "n_bonafide": int(is_bonafide.sum()), "n_spoof": int((~is_bonafide).sum())}
        both = counts["n_bonafide"] and counts["n_spoof"]
        percent = {
            name: _judge_one(part[name], is_bonafide, seed)[0]["eer_percent"] if both else None for name in PREDICTORS
        }
        rows.append({**counts, "eer_percent": percent})
    return rows


def _in_words(row: dict[str, Any]) -> str:
    between = "" if row["low_percent"] is None else f" ({row['low_percent']:.1f}-{row['high_percent']:.1f})"
    return f"{row['name']} alone: {row['eer_percent']:.1f} % EER{between}"


def _require_auditable(manifest: Manifest, table: pl.DataFrame, by: Sequence[str]) -> None:
    if table["key"].n_unique() < 2:
        raise SpoofkitError(
            f"{manifest.path}: {'the sample' if table.height < manifest.table.height else 'the list'} holds "
            f"{table['key'][0]} only, expected both classes; give a list (or a larger --sample) with both"
        )
    unknown = [column for column in by if column not in manifest.table.columns]
    if unknown:
        raise SpoofkitError(
            f"--by {unknown[0]}: no such column in {manifest.path}, expected one of {', '.join(manifest.table.columns)}"
        )
    taken = [name for name in manifest.table.columns if name in PREDICTORS]
    if taken:
        raise SpoofkitError(f"{manifest.path}: column {taken[0]!r} has the name of a measure; rename it")


# ---- Output


def _write_results(out: Path, result: dict[str, Any], trials: pl.DataFrame) -> None:
    """Write pictures first and the record last; all follow from audit.tsv, so they may be replaced at any time."""
    from spoofkit import pictures
    from spoofkit.addons.audit.picture import draw_audit

    worst = [row for row in result["predictors"] if row["n_values"] > 1][:N_WORST]
    figure = draw_audit(result, worst, trials, WARN_BELOW_PERCENT)
    for name, image in (("audit.png", pictures.png(figure)), ("audit.pdf", pictures.pdf(figure))):
        with atomic_path(out / name, overwrite=True) as temporary:
            temporary.write_bytes(image)
    hashes = {name: file_sha256(out / name) for name in ("audit.tsv", "audit.png", "audit.pdf")}
    write_json(out / "audit.json", with_checksums(result, hashes), overwrite=True)
