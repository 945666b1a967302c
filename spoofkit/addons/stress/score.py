"""The score files of a stress card: one for each condition, written as it is scored, and resumed after a kill."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import spoofkit
from spoofkit.addons.stress.conditions import CLEAN, Condition
from spoofkit.data.lengths import UNKNOWN_LENGTH, require_length
from spoofkit.data.manifest import Manifest
from spoofkit.errors import Interrupted
from spoofkit.evaluation.records import made_in, precision_of
from spoofkit.machine import commit, now
from spoofkit.outputs import read_json_record, refuse_foreign
from spoofkit.scoring.job import Job, run_job, scoring_record
from spoofkit.scoring.loaded import Loaded
from spoofkit.scoring.parts import Part, discard_parts, parts_folder
from spoofkit.scoring.score_file import MADE_FROM, ScoreFile, make_score_file
from spoofkit.scoring.scorer import Scorer
from spoofkit.stages import describe_posttraining
from spoofkit.terminal import say

OF_CONDITION = ("condition", "stress_seed", "sounds_sha256")
"""Entries of a score file's record that say what happened to the audio."""


@dataclass(frozen=True)
class Stressed:
    """What is scored under all conditions."""

    loaded: Loaded
    scorer: Scorer
    """The model in its precision."""
    model: str
    """Name of the model, as the user gave it."""
    trials: Manifest
    seed: int
    workers: int


def score_file(work: Stressed, condition: Condition, folder: Path) -> ScoreFile:
    """Return the score file of a condition in a folder, and what it is made from."""
    path = folder / f"{condition.name}.tsv"
    target = make_score_file(
        path, work.trials, work.loaded.reading, None, None, model_sha256=work.loaded.sha256, policy=work.loaded.policy
    )

    def made_from(record: dict[str, Any]) -> dict[str, Any]:
        known = {name: record[name] for name in (*MADE_FROM, *OF_CONDITION) if name in record}
        return known | made_in(precision_of(record))

    output = replace(
        target.output,
        verb="stress",
        made_from=target.output.made_from | condition.made_from(work.seed),
        read=read_json_record("stress_seed", made_from, {"scores_sha256": path}),
    )
    return replace(target, output=output).in_precision(work.scorer.precision)


def score_conditions(work: Stressed, conditions: Sequence[Condition], folder: Path, overwrite: bool) -> list[Path]:
    """Score the trials under each condition, unless its scores are up to date, and return the score files.

    Args:
        work: Model and trials.
        conditions: The clean one first.
        folder: Folder of the score files.
        overwrite: Remove earlier scores of these conditions first.

    Raises:
        SpoofkitError: a score file is of other inputs, or an utterance cannot be scored.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    targets = [score_file(work, condition, folder) for condition in conditions]
    for target in targets:
        refuse_foreign(target.output)
    for target in targets if overwrite else ():
        if target.output.record.exists() or parts_folder(target.out).exists():  # otherwise the file is not ours
            for path in (target.output.record, target.out):
                path.unlink(missing_ok=True)
            discard_parts(target.out)
    for number, (condition, target) in enumerate(zip(conditions, targets, strict=True), 1):
        say(f"condition {number} of {len(targets)}: {condition.name} ({condition.says})")
        try:
            run_job(
                _make_job(work, condition, target), work.scorer, Part(), overwrite=False, reuse=True,
                workers=work.workers,
            )  # fmt: skip
        except Interrupted as stop:
            more = "; without --overwrite, which starts over" if overwrite else ""
            raise Interrupted(f"{stop}{more}", stop.exit_code) from None
    return [target.out for target in targets]


def _make_job(work: Stressed, condition: Condition, target: ScoreFile) -> Job:
    """Plan the batches of a condition, as `score` would plan them, and note how the scores are made."""
    manifest = work.trials
    rows = list(manifest.table.select("utt_id", "path", "n_samples").iter_rows())
    n_first = work.loaded.reading.first_samples
    if condition.most_samples is not None:
        lengths = pl.col("n_samples").clip(upper_bound=condition.most_samples)
        manifest = replace(manifest, table=manifest.table.with_columns(lengths))
        target = replace(target, manifest=manifest)
    plan = target.plan(work.scorer.budget_samples)
    if not condition.keeps_length:  # what is left of an utterance is known once it is read
        manifest = replace(manifest, table=manifest.table.with_columns(pl.lit(UNKNOWN_LENGTH).alias("n_samples")))

    def changed(row: int) -> np.ndarray:
        utt_id, path, n_samples = rows[row]
        wave_S = work.trials.read_audio(path)
        if n_samples != UNKNOWN_LENGTH:
            require_length(work.trials.audio_path(path), wave_S.size, n_samples)
        return condition.apply(wave_S, work.seed, utt_id)[:n_first]

    versions = {"spoofkit": spoofkit.__version__} | work.scorer.runtime
    record = {
        "polarity": "higher = more bona fide",
        "score": f"{work.scorer.meaning}, not calibrated",
        "calibration": None,
        "began": now(),
        **scoring_record(work.model, work.trials, work.scorer),
        "posttraining": describe_posttraining(work.scorer.record["stages"]),
        "commit": commit(),
    }
    make = None if condition.name == CLEAN else changed
    return Job(
        target, manifest, work.loaded.reading, plan, target.output.made_from | plan.made_from | versions, record,
        make=make,
    )  # fmt: skip
