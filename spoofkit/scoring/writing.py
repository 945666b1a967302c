"""Write the score file of the verb `score`: plan the batches, score them or a part of them, merge parts, report."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import spoofkit
from spoofkit.data.channels import AUTO, describe_separate_channels
from spoofkit.data.manifest import read_manifest
from spoofkit.data.signal import LEAST_SIGNAL_SECONDS
from spoofkit.evaluation.records import precision_of, refuse_other_record
from spoofkit.files import read_json
from spoofkit.machine import command, commit, now
from spoofkit.outputs import refuse_foreign, skipped
from spoofkit.processes import World, barrier
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring.job import (
    Job,
    finish,
    is_skipped,
    raise_failed,
    remove_unfinished,
    replaceable_files,
    run_job,
    scoring_record,
)
from spoofkit.scoring.loaded import Loaded
from spoofkit.scoring.loose_files import find_files
from spoofkit.scoring.loose_list import loose_manifest
from spoofkit.scoring.options import ScoreOptions
from spoofkit.scoring.parts import Outcome, Part
from spoofkit.scoring.precision import AUTO_PRECISION, FirstOfList, begun, choose_precision
from spoofkit.scoring.score_file import ScoreFile, decide_again, finish_deciding, make_score_file
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.windows import words
from spoofkit.stages import describe_posttraining
from spoofkit.terminal import say


def write_score_file(
    out: Path,
    inputs: list[Path],
    loaded: Loaded,
    part: Part,
    world: World,
    options: ScoreOptions,
    *,
    model: str,
) -> Iterator[str]:
    """Write the score file, or a part of it; without a scorer, merge its parts. Yield the lines for stdout.

    Args:
        out: Score file.
        inputs: A manifest; or files, folders, globs and `-`.
        loaded: The model.
        part: The part of the work that this process does.
        world: The processes of torchrun.
        options: The other options.
        model: What records call the model.

    Raises:
        SpoofkitError: see `run.score_inputs`.
    """
    is_loose = inputs[0].suffix != ".tsv"
    # The table of windows is TSV always.
    is_csv = out.suffix == ".csv" and options.windows_out is None
    manifest = loose_manifest(find_files(inputs), is_csv) if is_loose else read_manifest(inputs[0])
    target = make_score_file(
        out, manifest, loaded.reading, loaded.decisions, options.windows_out,
        model_sha256=loaded.sha256, policy=loaded.policy,
    )  # fmt: skip
    yield from _write(target, model, loaded.scorer, part, world, options)


def _say_caveats(target: ScoreFile) -> None:
    manifest, reading, apart = target.manifest, target.reading, target.apart
    for caveat in manifest.caveats():
        say(caveat)
    if apart and not target.is_loose and reading.windows is not None:
        which = f"{len(apart):,} of {manifest.table.height:,} utterances are longer than a window or of unknown length"
        say(f"{manifest.path.name}: {which}; {words(reading.windows, reading.voice)}")
    elif reading.voice is not None:
        say(words(reading.windows if apart else None, reading.voice))


def _write(
    target: ScoreFile, model: str, scorer: Scorer | None, part: Part, world: World, options: ScoreOptions
) -> Iterator[str]:
    """Write the score file, or a part of it; without a scorer, merge its parts."""
    if world.is_main:
        finish_deciding(target)
        _say_caveats(target)
    refuse_foreign(target.output)
    refuse_other_record(target.out, target.output.record)
    if scorer is None:
        yield from _merge(target, options)
        return
    first = FirstOfList(target.manifest, target.reading, target.decisions)
    scorer = choose_precision(
        options.precision, scorer, target.output, first, overwrite=options.overwrite, is_main=world.is_main
    )
    target = target.in_precision(scorer.precision)
    if world.is_main and (remark := target.other_precision):
        say(f"spoofkit: warning: {remark}")
    job = _make_job(target, model, scorer)
    if world.size == 1:
        yield from _score_part(job, target, scorer, part, options)
        return
    with barrier() as wait:
        list(_score_part(job, target, scorer, part, options))  # its lines are not the command's result
        wait()
    if world.is_main:
        yield from _merge(target, options)


def _make_job(target: ScoreFile, model: str, scorer: Scorer) -> Job:
    """Plan the batches, and note how the scores are made."""
    plan = target.plan(scorer.n_together if target.is_loose else scorer.budget_samples)
    made_from = target.output.made_from | plan.made_from | {"spoofkit": spoofkit.__version__} | scorer.runtime
    calibrated_by = None if target.decisions is None else target.decisions.path
    record = {
        "polarity": "higher = more bona fide",
        "score": f"{scorer.meaning}, not calibrated" if calibrated_by is None else "log-likelihood ratio, nats",
        "calibration": None if calibrated_by is None else str(calibrated_by),
        "began": now(),
        **scoring_record(model, target.manifest, scorer),
        "posttraining": describe_posttraining(scorer.record["stages"]),
        "commit": commit(),
    }
    return Job(target, target.manifest, target.reading, plan, made_from, record, is_listed=not target.is_loose)


def _score_part(job: Job, target: ScoreFile, scorer: Scorer, part: Part, options: ScoreOptions) -> Iterator[str]:
    """Score the batches that a part lacks; write the score file if this is the only part."""
    finishes = options.part is None and part.n_parts == 1
    outcome = run_job(
        job, scorer, part, overwrite=options.overwrite, reuse=options.reuse, workers=options.workers, finishes=finishes
    )
    if outcome is None:
        yield from _skip(target, is_alone=part.n_parts == 1)
    elif finishes:
        yield from _report(target, outcome)
    else:
        failed = f", {len(outcome.errors):,} recordings failed" if outcome.errors else ""
        path = score_parts.part_path(target.out, part)
        n_scores = len(outcome.results) - len(outcome.errors)
        yield f"{path}: {n_scores:,} scores{failed}, part {part}; run --merge once all parts are scored"


def _merge(target: ScoreFile, options: ScoreOptions) -> Iterator[str]:
    """Join the parts into the score file."""
    out = target.out
    is_kept = options.precision == AUTO_PRECISION
    target = target.in_precision(precision_of(begun(target.output)) if is_kept else options.precision)
    found = score_parts.read_parts(out)
    if not found and is_skipped(target, overwrite=options.overwrite, reuse=options.reuse):
        yield from _skip(target)
        return
    score_parts.require_all(out, found)
    headers = [file.header for file in found.values()]
    # The size of batches is that of the parts: they may come from a GPU, and this machine may have none.
    first = headers[0]["identity"]
    plan = target.plan(first.get(target.size_name, 1))
    wanted = {name: value for name, value in first.items() if name != "precision"}
    score_parts.require_complete(out, found, wanted | target.output.made_from | plan.made_from, plan.utt_ids)
    outcome = Outcome.of(line for file in found.values() for line in file.lines)
    record = headers[0]["record"] | {
        "device": ", ".join(sorted({header["record"]["device"] for header in headers})),
        "command": command(),
        "merged_from": len(found),
        "parts": [
            {"part": h["part"], "device": h["record"]["device"], "command": h["record"]["command"]} for h in headers
        ],
    }
    finish(target, outcome, record, replaceable_files(found))
    yield from _report(target, outcome, f", merged from {len(found)} parts")


def _report(target: ScoreFile, outcome: Outcome, more: str = "") -> Iterator[str]:
    """Yield the lines about a score file that was written; raise SpoofkitError if some recordings failed."""
    if outcome.without_signal:
        first = ", ".join(outcome.without_signal[:5]) + " …" * bool(outcome.without_signal[5:])
        say(
            f"spoofkit: warning: {len(outcome.without_signal):,} utterances hold less than {LEAST_SIGNAL_SECONDS:g} s "
            f"of signal ({first}); they are scored because a list of trials must be complete, but their scores mean "
            "nothing"
        )
    if target.is_rounded and (n_tied := outcome.n_tied):
        say(
            f"spoofkit: warning: {n_tied:,} scores equal another one; if that many do not in fp32, an EER of these "
            "scores is less exact"
        )
    if outcome.of_channels and target.reading.channels == AUTO:
        say(describe_separate_channels(outcome.of_channels))
    # With a calibration, the column cm-score of a manifest's score file holds log-likelihood ratios.
    is_calibrated = target.decisions is not None and target.decisions.calibration is not None
    called = "log-likelihood ratios" if is_calibrated and not target.is_loose else "scores"
    yield f"{target.out}: {len(outcome.results) - len(outcome.errors):,} {called}{more}, higher = more bona fide"
    if target.decisions is not None:
        decided = [target.decisions.decide(one.score, not one.lacks_signal) for one in outcome.results.values()]
        yield _decided(target, [one["decision"] for one in decided])
    raise_failed(list(outcome.errors.values()), len(outcome.results))


def _decided(target: ScoreFile, decisions: list[str]) -> str:
    """Return the line about decisions: how many of each there are, and the thresholds."""
    assert target.decisions is not None
    counts = ", ".join(f"{n:,} {decision}" for decision, n in sorted(Counter(decisions).items()))
    return f"{target.table_out}: {counts}; {target.decisions.words}"


def _skip(target: ScoreFile, is_alone: bool = True) -> Iterator[str]:
    """Skip a score file that is up to date; unless there are other processes, update its decisions."""
    if is_alone:
        remove_unfinished(target)
        if decisions := decide_again(target):
            yield _decided(target, decisions)
    yield skipped(target.out)
    record = read_json(target.output.record)
    errors = list(record.get("errors", {}).values())
    raise_failed(errors, len(errors) + record["n_trials"])
