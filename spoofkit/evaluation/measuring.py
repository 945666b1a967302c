"""What `spoofkit evaluate` computes: scores and keys are read, joined and measured; nothing is written."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import spoofkit
from spoofkit.data.manifest import Manifest, read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.asv import PRESET_ATTACKS, asv_inputs, read_asv_scores, require_same_attacks
from spoofkit.evaluation.bootstrap import N_REPLICATES, require_resampled
from spoofkit.evaluation.breakdown import measure, measure_systems, score_warnings, split_classes
from spoofkit.evaluation.decided import measure_decisions, read_decisions, unscored
from spoofkit.evaluation.error_rates import CHOSEN, Limit, measured_limits
from spoofkit.evaluation.intervals import apcer_intervals, intervals
from spoofkit.evaluation.layouts import SUBSETS, has_subsets, read_layout_keys, read_layout_scores
from spoofkit.evaluation.metrics import ASVSPOOF5, DcfCosts, Scores
from spoofkit.evaluation.records import name_systems, read_record, record_path, system_and_set
from spoofkit.evaluation.scores import final_newline_warning, join_scores, read_trials
from spoofkit.evaluation.tandem import ASVSPOOF5_ASV, asv_rates, concurrent_teer, min_tdcf_2019, min_tdcf_2021
from spoofkit.files import file_sha256
from spoofkit.machine import commit

FEWEST_REPLICATES = 100

FORMAT = 3
"""Version of eval.json; rises when a name in it changes its meaning."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What to compute beside the standard metrics, and the layout of the inputs."""

    by: tuple[str, ...] = ()
    """Further columns to break down by."""
    n_replicates: int = N_REPLICATES
    """Replicates of the bootstrap; 0 for no intervals."""
    resample: str = "speaker"
    """Unit of resampling: speaker, speaker_attack or trial."""
    asv: str | None = None
    """A file of ASV scores, or `asvspoof5` for the organisers' error rates; adds the t-DCF."""
    asv_keys: str | None = None
    """Keys of ASV scores of 2021. Default: the trial_metadata.txt beside them or one folder above."""
    layout: str | None = None
    """A challenge's layout of scores and keys. Default: spoofkit's score file and manifest."""
    subset: str = "eval"
    """Subset of a challenge's list to evaluate."""
    against: tuple[str, ...] = ()
    """Score files of other systems on the same trials, whose curves and figures are shown beside."""
    costs: DcfCosts = ASVSPOOF5
    """Prior and costs of minDCF and actDCF."""
    operating_point: Limit = CHOSEN
    """At its pooled threshold APCER and BPCER of all parts are measured."""
    n_examples: int = 6
    """Number of worst errors of each class to show with their audio."""


@dataclass(frozen=True)
class Measured:
    """The results of an evaluation, and what its page is made of."""

    result: dict[str, Any]
    trials: pl.DataFrame
    manifest: Manifest | None
    """None if a challenge's own list was read."""
    systems: dict[str, tuple[Scores, Scores]]
    """Bona fide and spoof scores, sorted ascending, of the evaluated system first, by name."""


def measure_files(
    scores_path: Path | str,
    manifest_path: Path | str,
    options: EvaluationOptions | None = None,
    made_from: dict[str, Any] | None = None,
    when_pooled: Callable[[dict[str, Any], dict[str, tuple[Scores, Scores]]], None] = lambda *_: None,
) -> Measured:
    """Evaluate a score file against a manifest, and write nothing.

    Args:
        scores_path: See `evaluate`.
        manifest_path: See `evaluate`.
        options: What else to compute.
        made_from: Hashes of the inputs. Default: computed here.
        when_pooled: Called with the figures of `breakdown.measure`, the intervals of the pooled ones, and the systems.

    Returns:
        The figures of `breakdown.measure` with `intervals`, `decisions`, `tandem`, `systems`, `warnings`, `made_from`
        and `made_with`; and what they were computed from.

    Raises:
        SpoofkitError: An input is broken or does not fit the other.
    """
    options = options or EvaluationOptions()
    scores_path, manifest_path = Path(scores_path), Path(manifest_path)
    made_from = made_from or inputs_record(scores_path, manifest_path, options)
    paths = [scores_path, *map(Path, options.against)]
    names = name_systems(paths)
    records = [read_record(path) for path in paths]
    no_score = unscored(scores_path, records[0])
    manifest, tables = _read_all_trials(paths, manifest_path, options, no_score)
    trials = tables[0]
    systems = dict(zip(names, map(split_classes, tables), strict=True))
    result = measure_trials(trials, options, lambda found: when_pooled(found, systems))
    result["partial"] = manifest.partial if manifest else ""
    result["n_rejected"] = manifest.n_rejected if manifest else 0
    result["made_from"] = made_from
    listed = trials if manifest is None else manifest.table
    result["decisions"] = measure_decisions(listed, read_decisions(scores_path, records[0]), no_score)
    result["tandem"], unchecked = (None, "") if options.asv is None else _tandem(trials, options)
    result["systems"] = (
        measure_systems(systems, paths, options.costs, options.operating_point) if options.against else []
    )
    rejection = manifest.rejection() if manifest else ""
    result["warnings"] += filter(None, (unchecked, rejection, _without_score(no_score, listed.height)))
    result["warnings"] += _caveats(scores_path, records[0])
    for path, record, (name, classes) in zip(paths[1:], records[1:], list(systems.items())[1:], strict=True):
        result["warnings"] += [f"{name}: {warning}" for warning in (*_caveats(path, record), *score_warnings(*classes))]
    result["made_with"] = _made_with(scores_path, records[0], manifest_path, options, manifest, names)
    return Measured(result, trials, manifest, systems)


def measure_trials(
    trials: pl.DataFrame, options: EvaluationOptions, when_pooled: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """Compute the figures of `breakdown.measure` and their `intervals`, None without replicates.

    Args:
        trials: As `breakdown.measure` takes them, with `speaker`.
        options: Columns, costs and replicates are used.
        when_pooled: Called with all but the intervals of single attacks, which no figure shows.

    Raises:
        SpoofkitError: an option has no effect or no meaning; see `breakdown.measure` and `bootstrap.intervals`.
    """
    _check_options(options)
    result = measure(trials, options.costs, options.by, options.operating_point)
    result["intervals"] = None
    if options.n_replicates:
        limits = measured_limits(result)
        result["intervals"] = intervals(trials, options.resample, options.costs, limits, options.n_replicates)
    when_pooled(result)
    chosen = next(row for row in result["operating_points"] if row.items() >= result["operating_point"].items())
    if "left_out" not in (result["intervals"] or {"left_out": ""}) and "left_out" not in chosen:
        result["intervals"]["apcer_percent_by_attack"] = apcer_intervals(
            trials, chosen["accept_from"], options.resample, options.n_replicates
        )
    return result


def inputs_record(scores_path: Path, manifest_path: Path, options: EvaluationOptions) -> dict[str, Any]:
    """Record the hashes of all inputs, and the options.

    Raises:
        SpoofkitError: an input cannot be read, or an option has no effect or no meaning.
    """
    _check_options(options)
    sidecar_path = record_path(scores_path)
    return {
        "format": FORMAT,
        "scores_sha256": file_sha256(scores_path),
        "manifest_sha256": file_sha256(manifest_path),
        "sidecar_sha256": None if sidecar_path is None else file_sha256(sidecar_path),
        "options": {**asdict(options), "by": list(options.by), "against": list(options.against)},
        "asv_sha256": [file_sha256(path) for path in asv_inputs(options.asv, options.asv_keys)],
        "against_sha256": [file_sha256(path) for path in options.against],
    }


def _read_all_trials(
    paths: Sequence[Path], manifest_path: Path, options: EvaluationOptions, no_score: Sequence[str]
) -> tuple[Manifest | None, list[pl.DataFrame]]:
    """Read the trials of each score file, and their manifest unless it is a challenge's own list.

    Utterances to which `score` gave no score for lack of speech are in the manifest, but not among the trials. The
    systems beside must have scores of the same trials.
    """
    if options.layout is None:
        manifest = read_keyed_manifest(manifest_path)
        has_score = ~pl.col("utt_id").is_in(no_score)
        scored = replace(manifest, table=manifest.table.filter(has_score)) if no_score else manifest
        return manifest, [read_trials(path, scored) for path in paths]
    keys = read_layout_keys(manifest_path, options.layout, "all")
    return None, [_read_layout_trials(path, keys, options) for path in paths]


def _without_score(no_score: Sequence[str], n_trials: int) -> str:
    """Return a warning if trials have no score; otherwise empty."""
    if not no_score:
        return ""
    return (
        f"{len(no_score):,} of {n_trials:,} trials have no score, since they have too little speech (first: "
        f"{no_score[0]!r}); EER, DCF, Cllr and operating points are of the others, and do not compare with figures of "
        "the whole list"
    )


def _caveats(scores_path: Path, record: dict[str, Any]) -> list[str]:
    """List what a reader of a score file's figures must know."""
    found = (record.get("contamination"), final_newline_warning(scores_path))
    return [str(warning) for warning in found if warning]


def _made_with(
    scores_path: Path,
    record: dict[str, Any],
    manifest_path: Path,
    options: EvaluationOptions,
    manifest: Manifest | None,
    names: Sequence[str],
) -> dict[str, Any]:
    """Record what the results are of, and the versions of the software."""
    corpus = str(manifest.made_from.get("corpus", "")) if manifest else f"{options.layout} {options.subset}"
    system, set_name = system_and_set(scores_path, manifest_path, corpus)
    return {
        "system": names[0] if options.against else system,
        "set": set_name + (" (partial)" if manifest.partial else "") if manifest else corpus,
        "scored": str(record.get("began", ""))[: len("2026-11-29")],
        "scores": str(scores_path),
        "manifest": str(manifest_path),
        "spoofkit": spoofkit.__version__,
        "numpy": np.__version__,
        "polars": pl.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "scores_made_with": record or None,
    }


def _check_options(options: EvaluationOptions) -> None:
    """Refuse options that would have no effect or no meaning."""
    if options.subset not in SUBSETS:
        raise SpoofkitError(f"--subset {options.subset}: expected one of {', '.join(SUBSETS)}")
    if options.subset != "eval" and not has_subsets(options.layout):
        raise SpoofkitError(f"--subset {options.subset}: only the lists of 2021 have subsets; omit it")
    require_resampled(options.resample)
    if 0 < options.n_replicates < FEWEST_REPLICATES:
        raise SpoofkitError(
            f"--replicates {options.n_replicates}: too few for an interval, expected at least {FEWEST_REPLICATES}, or 0"
        )
    for column in options.by:
        if column in ("attack", "codec"):
            raise SpoofkitError(f"--by {column}: is always in the report; omit it")


def _read_layout_trials(path: Path, keys: pl.DataFrame, options: EvaluationOptions) -> pl.DataFrame:
    """Read scores of a whole challenge list or of the subset alone, and return the trials of the subset."""
    in_subset = keys
    if "subset" in keys.columns and options.subset != "all":
        in_subset = keys.filter(pl.col("subset") == options.subset)
        if not in_subset.height:
            raise SpoofkitError(f"--subset {options.subset}: the list of keys holds no such trial; choose another")
    scores = read_layout_scores(path, str(options.layout), keys)
    try:
        if scores.height == keys.height:
            whole = join_scores(scores, keys)
            return whole.join(in_subset.select("utt_id"), on="utt_id", how="semi", maintain_order="left")
        return join_scores(scores, in_subset)
    except SpoofkitError as error:
        raise SpoofkitError(f"{path}: {error}") from error


def _tandem(trials: pl.DataFrame, options: EvaluationOptions) -> tuple[dict[str, Any], str]:
    """Compute both versions of the min t-DCF with the ASV system of a score file, or the organisers' of ASVspoof 5.

    A score file also gives the concurrent t-EER, which needs more than rates at one threshold. The second value is a
    warning if it is unknown whether the ASV scores are of the same attacks.
    """
    paths = asv_inputs(options.asv, options.asv_keys)
    scores = read_asv_scores(paths, trials) if paths else None
    unchecked = require_same_attacks(str(options.asv), scores.attacks if scores else PRESET_ATTACKS, trials)
    rates = asv_rates(scores.target, scores.nontarget, scores.spoof) if scores else ASVSPOOF5_ASV
    classes = split_classes(trials)
    teer = concurrent_teer(*classes, scores.target, scores.nontarget, scores.spoof) if scores else None
    return {
        "asv": asdict(rates),
        "min_tdcf_2019": min_tdcf_2019(*classes, rates),
        "min_tdcf_2021": min_tdcf_2021(*classes, rates),
        "teer_percent": None if teer is None else 100 * teer,
    }, unchecked
