"""The verb `score`: from a model and a manifest or loose recordings to scores on stdout, or to a score file.

Scores of a file are kept in parts as they come (`parts`); when all are there, they become the score file and its
record (`job`). A model folder is scored with by torch, an exported model by onnxruntime; neither is imported here
before it is needed.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

import spoofkit
from spoofkit import addons
from spoofkit.data.channels import require_channels
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.data.signal import LEAST_SIGNAL_SECONDS
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.evaluation.records import identity
from spoofkit.files import file_sha256, text_sha256
from spoofkit.machine import command, commit, now
from spoofkit.outputs import refuse_foreign, refuse_replacing, skipped
from spoofkit.processes import World, meeting, read_world
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring.decisions import Decisions, read_decisions, require_fitted_on
from spoofkit.scoring.job import (
    LOOSE,
    Job,
    decide_again,
    decisions_path,
    finish,
    is_kept,
    raise_for,
    raise_for_kept,
    refuse_other_record,
    refuse_strangers,
    remove_unfinished,
    rows_apart,
    score_job,
)
from spoofkit.scoring.loose_files import STDIN, find_files, loose_manifest
from spoofkit.scoring.options import Options, refuse_contradictions, refuse_misplaced
from spoofkit.scoring.outcome import Outcome
from spoofkit.scoring.parts import Shard
from spoofkit.scoring.printing import print_scores, say_apart
from spoofkit.scoring.recordings import Reading
from spoofkit.scoring.scorer import Scorer, parse_input_policy
from spoofkit.scoring.speech import load_voice_activity
from spoofkit.scoring.windows import words
from spoofkit.signals import caught_signals
from spoofkit.stages import posttraining_in_words
from spoofkit.terminal import say


def score_inputs(model: Path, inputs: list[Path], out: Path | None, options: Options) -> Iterator[str]:
    """Score what the command line names, and yield the lines for stdout.

    Args:
        model: Model folder, or an exported model (`*.onnx`).
        inputs: A manifest; or files, folders, globs and `-`.
        out: Score file to write; none, of recordings alone: they are printed.
        options: The rest.

    Raises:
        SpoofkitError: an input is missing or not what was expected, the output exists, or, after all others were
            scored, a loose file could not be.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    runtime = _runtime(model)
    runtime.require_model(model)
    refuse_misplaced(inputs, out)
    is_loose = inputs[0].suffix != ".tsv"
    require_channels(options.channels, None if is_loose else inputs[0])
    world = read_world()
    part = _own_part(world, options, inputs, out)
    refuse_contradictions(options, out)
    outputs = [] if out is None else [out, out.with_suffix(".json"), decisions_path(out)]
    made_of = [model, *inputs, *([options.calibration] if options.calibration is not None else [])]
    if options.windows_out is not None:
        refuse_replacing([options.windows_out], [*outputs, *made_of])
    refuse_replacing(outputs, made_of)
    if options.crop is not None:
        parse_input_policy(options.crop)  # before a large model is read for nothing
    found = read_decisions(options.calibration, options.decision)
    voice = None if options.min_speech is None else load_voice_activity(options.min_speech)
    scorer: Scorer | None = None if options.merge else runtime.load_scorer(model, options.device, world)
    policy: str = options.crop or (runtime.input_policy(model) if scorer is None else scorer.input_policy)
    first_samples, repeat_to = parse_input_policy(policy)
    # What is repeated to a length is cut to it too.
    windows = None if repeat_to is not None else options.windows
    reading = Reading(first_samples, repeat_to, windows, voice, options.channels if is_loose else None)
    if scorer is not None:
        _require_enough(scorer, reading, policy)
        if found is not None:
            require_fitted_on(found, identity({"model_sha256": runtime.model_sha256(model)} | scorer.record), model)
    if found is not None and found.unchecked and world.is_main:
        say(f"spoofkit: warning: {found.unchecked}")
    if out is None:
        assert scorer is not None
        yield from print_scores(scorer, inputs, reading, found, options)
        return
    manifest = loose_manifest(find_files(inputs)) if is_loose else read_manifest(inputs[0])
    apart = rows_apart(manifest, reading)
    if world.is_main:
        _say_caveats(manifest, apart, reading)
    made_from = _inputs_record(runtime.model_sha256(model), manifest, policy, reading, bool(apart), found)
    job = Job(manifest, out, reading, apart, made_from, found, options.windows_out)
    refuse_foreign(job.output)
    refuse_other_record(out)
    if scorer is None:
        yield from _merge(job, options)
        return
    score = _score_part if world.size == 1 else _score_together
    yield from score(job, scorer, _record(model, manifest, scorer, found), part, options)


def _runtime(model: Path) -> ModuleType:
    """The module that scores with this model."""
    if model.suffix == ".onnx":
        return addons.find("onnx.with_onnx")
    from spoofkit.scoring import with_torch

    return with_torch


def _own_part(world: World, options: Options, inputs: list[Path], out: Path | None) -> Shard:
    """The part of the work that is this process's own."""
    if world.size == 1:
        return Shard() if options.shard is None else score_parts.parse_shard(options.shard)
    if options.merge or options.shard is not None:
        raise SpoofkitError(
            f"torchrun and {'--merge' if options.merge else '--shard'}: the processes of torchrun share the work and "
            "join their parts themselves; leave one of the two out"
        )
    if out is None or STDIN in map(str, inputs):
        what = "no score file" if out is None else "names on stdin"
        raise SpoofkitError(
            f"torchrun: found {what}, expected recordings that are named and a score file, such as "
            "`-o scores/eval.tsv`; or start without torchrun"
        )
    return Shard(world.rank + 1, world.size)


def _require_enough(scorer: Scorer, reading: Reading, policy: str) -> None:
    """Refuse a window or a crop of which no recording could be scored."""
    given = [(f"--crop {policy}", reading.first_samples)]
    if reading.windows is not None:
        given.append(("--window", reading.windows.n_samples))
    for name, n_samples in given:
        if n_samples is not None and n_samples < scorer.shortest:
            raise SpoofkitError(
                f"{name}: {n_samples} samples are too few, the encoder needs at least {scorer.shortest}; make it longer"
            )
    if reading.repeat_to is not None and scorer.longest is not None and reading.repeat_to > scorer.longest:
        raise SpoofkitError(
            f"--crop {policy}: is more than the encoder can place, expected at most {scorer.longest} samples"
        )


def _say_caveats(manifest: Manifest, apart: frozenset[int], reading: Reading) -> None:
    for caveat in manifest.caveats():
        say(caveat)
    if apart and manifest.path != LOOSE and reading.windows is not None:
        which = f"{len(apart):,} of {manifest.table.height:,} utterances are longer than a window, or of unknown length"
        say(f"{manifest.path.name}: {which}; {words(reading.windows, reading.voice)}")
    elif reading.voice is not None:
        say(words(reading.windows if apart else None, reading.voice))


def _score_part(job: Job, scorer: Scorer, how: dict[str, Any], part: Shard, options: Options) -> Iterator[str]:
    """Score what a part lacks; one that is all there is becomes the score file."""
    out, path = job.out, score_parts.part_path(job.out, part)
    plan, batch_ids, planned = job.plan(job.size(scorer))
    identity = job.made_from | planned | {"spoofkit": spoofkit.__version__} | scorer.runtime
    own = part.batches(batch_ids)
    score_parts.refuse_other_divisions(out, part.n_parts)
    if not options.overwrite:
        score_parts.refuse_other_parts(out, part, identity)
    # A part that was begun had leave to replace the score file, and the others of its division with it.
    is_new = options.overwrite or not (
        score_parts.is_begun(score_parts.read_part(path), own) or score_parts.any_has_scores(out)
    )
    if is_new and is_kept(job, overwrite=options.overwrite, reuse=options.reuse):
        yield from _keep(job, is_alone=part.n_parts == 1)
        return
    replaces = [file_sha256(path) for path in job.outputs if path.is_file()] if is_new else []
    replaceable = score_parts.may_be_replaced(out) | set(replaces)
    if is_new or len(score_parts.read_part(path).lines) < len(own):
        refuse_strangers(job.outputs, replaceable)  # else `finish` looks whether what stands there is its own
    lines: list[dict[str, Any]] = []
    with score_parts.open_part(
        path, part, identity, own, how, start_over=options.overwrite, lines=lines, replaces=replaces
    ) as (done, keep):
        todo = {number: plan[number] for number in own if number not in done}
        n_total = sum(map(len, own.values()))
        n_before = n_total - sum(map(len, todo.values()))
        if n_before:
            say(f"{path}: resuming: {n_before:,} of {n_total:,} utterances already scored")
        # In a job's log a line now and then.
        patience = 0.1 if sys.stderr.isatty() else 60
        name = "score" if part.n_parts == 1 else f"score {part}"
        bar = tqdm(total=n_total, initial=n_before, desc=name, unit="utt", mininterval=patience)

        def keep_and_count(number: int, scores: dict[str, float], **more: dict[str, Any]) -> None:
            keep(number, scores, **more)
            bar.update(len(plan[number]))

        with bar, caught_signals() as caught:
            try:
                score_job(job, scorer, todo, keep_and_count, options.workers, lambda: bool(caught))
            except Interrupted:
                n_done = sum(len(own[number]) for number in done)
                again = "the same command" + (" without --overwrite" if options.overwrite and n_done else "")
                far = f"{n_done:,} of {n_total:,} utterances"
                raise Interrupted(
                    f"{path}: stopped after {far}, which are kept; {again} resumes from there", caught.exit_code
                ) from None
        if options.shard is not None or part.n_parts > 1:
            outcome = Outcome.of(lines)
            without = f", {len(outcome.errors):,} recordings without" if outcome.errors else ""
            said = f"{len(outcome.scores):,} scores{without}, part {part}"
            yield f"{path}: {said}; when all parts are there, --merge joins them"
            return
        outcome = Outcome.of(lines)
        finish(job, outcome, how, replaceable)
    _say_without_signal(outcome)
    say_apart(outcome.of_channels, job.reading)
    yield f"{out}: {len(outcome.scores):,} {_called(job)}, higher = more bona fide"
    raise_for(list(outcome.errors.values()), len(outcome.scores) + len(outcome.errors))


def _score_together(job: Job, scorer: Scorer, how: dict[str, Any], part: Shard, options: Options) -> Iterator[str]:
    """Score the part of one process of torchrun's; when all are done, the first one joins the parts."""
    with meeting() as wait:
        list(_score_part(job, scorer, how, part, options))  # what it says of its part is not the result
        wait()
    if part.number == 1:
        yield from _merge(job, options)


def _merge(job: Job, options: Options) -> Iterator[str]:
    """Make the score file of its parts, and a record that says so."""
    out = job.out
    if not score_parts.find_parts(out) and is_kept(job, overwrite=options.overwrite, reuse=options.reuse):
        yield from _keep(job)
        return
    parts = score_parts.read_all_parts(out)
    headers = [part.header for part in parts.values()]
    # The parts say how large batches were: they may have been scored on a GPU, and this machine may have none.
    first = headers[0]["identity"]
    _, batch_ids, planned = job.plan(first.get(job.size_name, 1))
    score_parts.join_parts(out, parts, first | job.made_from | planned, batch_ids)
    outcome = Outcome.of(line for part in parts.values() for line in part.lines)
    how = headers[0]["record"] | {
        "device": ", ".join(sorted({header["record"]["device"] for header in headers})),
        "command": command(),
        "merged_from": len(parts),
        "parts": [
            {"part": h["part"], "device": h["record"]["device"], "command": h["record"]["command"]} for h in headers
        ],
    }
    finish(job, outcome, how, score_parts.may_be_replaced(out))
    _say_without_signal(outcome)
    say_apart(outcome.of_channels, job.reading)
    yield f"{out}: {len(outcome.scores):,} {_called(job)}, merged from {len(parts)} parts, higher = more bona fide"
    raise_for(list(outcome.errors.values()), len(outcome.scores) + len(outcome.errors))


def _called(job: Job) -> str:
    """What the numbers of a score file are: with a calibration, those of its official column are its ratios."""
    is_calibrated = job.decisions is not None and job.decisions.calibration is not None
    return "log-likelihood ratios" if is_calibrated and not job.is_loose else "scores"


def _keep(job: Job, is_alone: bool = True) -> Iterator[str]:
    """Leave the score file as it is; its decisions may be others, which of several processes only the last writes."""
    if is_alone:
        remove_unfinished(job.out)
        if decide_again(job):
            yield f"{job.table_out}: decided again"
    yield skipped(job.out)
    raise_for_kept(job.out)


def _say_without_signal(outcome: Outcome) -> None:
    if outcome.without_signal:
        first = ", ".join(sorted(outcome.without_signal)[:5])
        say(
            f"spoofkit: warning: {len(outcome.without_signal):,} utterances hold less than {LEAST_SIGNAL_SECONDS:g} s "
            f"of signal, first {first}; a list of trials must be complete, so they have scores, but these mean nothing"
        )


def _inputs_record(
    model_sha256: str, manifest: Manifest, policy: str, reading: Reading, is_cut: bool, found: Decisions | None
) -> dict[str, Any]:
    """What a score file is made from; what does not matter to it is not mentioned."""
    made_from: dict[str, Any] = {
        "model_sha256": model_sha256,
        "manifest_sha256": _identity(manifest),
        "input_policy": policy,
    }
    if reading.channels is not None:
        made_from["channels"] = reading.channels
    if is_cut and reading.windows is not None:
        made_from["windows"] = reading.windows.record()
    if reading.voice is not None:
        made_from["speech"] = reading.voice.record()
    if found is not None and found.calibration is not None:
        made_from["calibration_sha256"] = found.sha256
    return made_from


def _identity(manifest: Manifest) -> str:
    if manifest.path != LOOSE:
        return file_sha256(manifest.path)
    # A file that is missing has an error for a score.
    names = manifest.table["path"].to_list()
    return text_sha256("\n".join(f"{path} {file_sha256(path) if Path(path).is_file() else '-'}" for path in names))


def _record(model: Path, manifest: Manifest, scorer: Scorer, found: Decisions | None) -> dict[str, Any]:
    """How a score file is made."""
    calibrated_by = None if found is None else found.path
    return {
        "polarity": "higher = more bona fide",
        "score": f"{scorer.meaning}, not calibrated" if calibrated_by is None else "log-likelihood ratio, nats",
        "calibration": None if calibrated_by is None else str(calibrated_by),
        "model": str(model),
        "manifest": str(manifest.path),
        "partial": manifest.partial,
        "n_rejected": manifest.n_rejected,
        "precision": scorer.precision,
        "device": scorer.device,
        "began": now(),
        **scorer.record,
        "posttraining": posttraining_in_words(scorer.record["stages"]),
        "commit": commit(),
        "versions": {"spoofkit": spoofkit.__version__, **scorer.runtime, "python": sys.version.split()[0]},
        "command": command(),
    }
