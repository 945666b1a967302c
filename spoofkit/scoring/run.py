"""The verb `score`: from a model and a manifest or loose recordings to scores on stdout, or to a score file.

A model folder runs on torch, an exported model on onnxruntime; neither is imported here before it is needed.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import spoofkit
from spoofkit import addons
from spoofkit.data.channels import require_channels
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.data.signal import LEAST_SIGNAL_SECONDS
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.records import system_hashes
from spoofkit.machine import command, commit, now
from spoofkit.outputs import refuse_foreign, refuse_replacing, skipped
from spoofkit.processes import World, barrier, read_world
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring import rows
from spoofkit.scoring.decisions import Decisions, read_decisions, require_fitted_on
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
from spoofkit.scoring.loose_files import STDIN, find_files, loose_manifest
from spoofkit.scoring.options import ScoreOptions, refuse_contradictions, refuse_misplaced
from spoofkit.scoring.outcome import Outcome
from spoofkit.scoring.parts import Part
from spoofkit.scoring.printing import print_scores, say_apart
from spoofkit.scoring.recordings import Reading
from spoofkit.scoring.score_file import (
    ScoreFile,
    decide_again,
    decisions_path,
    describe_inputs,
    make_score_file,
    raise_unscored,
    record_path,
    refuse_other_record,
)
from spoofkit.scoring.scorer import Scorer, parse_input_policy
from spoofkit.scoring.speech import load_voice_activity
from spoofkit.scoring.windows import words
from spoofkit.stages import describe_posttraining
from spoofkit.terminal import say


@dataclass(frozen=True)
class _Model:
    """A model, ready to score with."""

    path: Path
    runtime: ModuleType
    scorer: Scorer | None
    """None: parts are merged, and nothing is scored."""
    policy: str
    """Input policy: that of the command line, otherwise the model's."""

    @cached_property
    def sha256(self) -> str:
        """Hash of the model; for a large one it takes seconds."""
        sha256: str = self.runtime.model_sha256(self.path)
        return sha256


def score_inputs(model: Path, inputs: list[Path], out: Path | None, options: ScoreOptions) -> Iterator[str]:
    """Score what the command line names, and yield the lines for stdout.

    Args:
        model: Model folder, or an exported model (`*.onnx`).
        inputs: A manifest; or files, folders, globs and `-`.
        out: Score file to write. Default, for recordings only: scores are printed.
        options: The other options.

    Raises:
        SpoofkitError: an input is missing or not what was expected, the output exists, or, at the end, a loose file
            could not be scored.
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
    _refuse_replacing(model, inputs, out, options)
    if options.crop is not None:
        parse_input_policy(options.crop)  # fails before a large model is read
    decisions = read_decisions(options.calibration, options.decision)
    voice = None if options.min_speech is None else load_voice_activity(options.min_speech)
    used = _load(runtime, model, options, world)
    first_samples, repeat_to = parse_input_policy(used.policy)
    # `repeat:N` also cuts to N samples.
    windows = None if repeat_to is not None else options.windows
    reading = Reading(first_samples, repeat_to, windows, voice, options.channels if is_loose else None)
    if used.scorer is not None:
        _require_enough(used.scorer, reading, used.policy)
        if decisions is not None:
            require_fitted_on(decisions, system_hashes({"model_sha256": used.sha256} | used.scorer.record), model)
    if decisions is not None and decisions.unchecked and world.is_main:
        say(f"spoofkit: warning: {decisions.unchecked}")
    if out is None:
        assert used.scorer is not None
        yield from print_scores(used.scorer, inputs, reading, decisions, options)
        return
    manifest = loose_manifest(find_files(inputs)) if is_loose else read_manifest(inputs[0])
    yield from _write_scores(used, manifest, out, reading, decisions, part, world, options)


def _runtime(model: Path) -> ModuleType:
    """Return the module that runs this model."""
    if model.suffix == ".onnx":
        return addons.find("onnx.with_onnx")
    from spoofkit.scoring import with_torch

    return with_torch


def _load(runtime: ModuleType, model: Path, options: ScoreOptions, world: World) -> _Model:
    scorer: Scorer | None = None if options.merge else runtime.load_scorer(model, options.device, world)
    policy: str = options.crop or (runtime.input_policy(model) if scorer is None else scorer.input_policy)
    return _Model(model, runtime, scorer, policy)


def _refuse_replacing(model: Path, inputs: list[Path], out: Path | None, options: ScoreOptions) -> None:
    outputs = [] if out is None else [out, record_path(out), decisions_path(out)]
    made_of = [model, *inputs, *([options.calibration] if options.calibration is not None else [])]
    if options.windows_out is not None:
        refuse_replacing([options.windows_out], [*outputs, *made_of])
    refuse_replacing(outputs, made_of)


def _own_part(world: World, options: ScoreOptions, inputs: list[Path], out: Path | None) -> Part:
    """Return the part of the work that this process does."""
    if world.size == 1:
        return Part() if options.part is None else score_parts.parse_part(options.part)
    if options.merge or options.part is not None:
        raise SpoofkitError(
            f"torchrun and {'--merge' if options.merge else '--part'}: torchrun divides the work and merges the parts "
            "itself, expected one of them; remove one"
        )
    if out is None or STDIN in map(str, inputs):
        what = "no score file" if out is None else "names on stdin"
        raise SpoofkitError(
            f"torchrun: found {what}, expected named recordings and a score file, such as `-o scores/eval.tsv`; add "
            "them, or run without torchrun"
        )
    return Part(world.rank + 1, world.size)


def _require_enough(scorer: Scorer, reading: Reading, policy: str) -> None:
    """Refuse a window or a crop that the encoder cannot use."""
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
            f"--crop {policy}: is longer than the encoder can take, expected at most {scorer.longest} samples"
        )


def _say_caveats(target: ScoreFile) -> None:
    manifest, reading, apart = target.manifest, target.reading, target.apart
    for caveat in manifest.caveats():
        say(caveat)
    if apart and not target.is_loose and reading.windows is not None:
        which = f"{len(apart):,} of {manifest.table.height:,} utterances are longer than a window or of unknown length"
        say(f"{manifest.path.name}: {which}; {words(reading.windows, reading.voice)}")
    elif reading.voice is not None:
        say(words(reading.windows if apart else None, reading.voice))


def _write_scores(
    used: _Model,
    manifest: Manifest,
    out: Path,
    reading: Reading,
    decisions: Decisions | None,
    part: Part,
    world: World,
    options: ScoreOptions,
) -> Iterator[str]:
    """Write the score file, or a part of it."""
    made_from = describe_inputs(used.sha256, manifest, used.policy, reading, decisions)
    target = make_score_file(out, manifest, reading, made_from, decisions, options.windows_out)
    if world.is_main:
        _say_caveats(target)
    refuse_foreign(target.output)
    refuse_other_record(out)
    if used.scorer is None:
        yield from _merge(target, options)
        return
    plan = target.plan(used.scorer.n_together if target.is_loose else used.scorer.budget_samples)
    of_parts = made_from | plan.made_from | {"spoofkit": spoofkit.__version__} | used.scorer.runtime
    record = _record(used.path, manifest, used.scorer, decisions)
    job = Job(target, manifest, reading, plan, of_parts, record, is_listed=not target.is_loose)
    if world.size == 1:
        yield from _score_part(job, target, used.scorer, part, options)
        return
    with barrier() as wait:
        list(_score_part(job, target, used.scorer, part, options))  # its lines are not the command's result
        wait()
    if world.is_main:
        yield from _merge(target, options)


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
    found = score_parts.read_parts(out)
    if not found and is_skipped(target, overwrite=options.overwrite, reuse=options.reuse):
        yield from _skip(target)
        return
    score_parts.require_all(out, found)
    headers = [file.header for file in found.values()]
    # The size of batches is that of the parts: they may come from a GPU, and this machine may have none.
    first = headers[0]["identity"]
    plan = target.plan(first.get(target.size_name, 1))
    score_parts.require_complete(out, found, first | target.output.made_from | plan.made_from, plan.utt_ids)
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
    say_apart(outcome.of_channels, target.reading)
    # With a calibration, the column cm-score of a manifest's score file holds log-likelihood ratios.
    is_calibrated = target.decisions is not None and target.decisions.calibration is not None
    called = "log-likelihood ratios" if is_calibrated and not target.is_loose else "scores"
    yield f"{target.out}: {len(outcome.results) - len(outcome.errors):,} {called}{more}, higher = more bona fide"
    if target.decisions is not None:
        results = outcome.results.values()
        cells = [rows.decision_cells(one.score, not one.lacks_signal, target.decisions) for one in results]
        yield _decided(target, [cell["decision"] for cell in cells])
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
    raise_unscored(target.out)


def _record(model: Path, manifest: Manifest, scorer: Scorer, decisions: Decisions | None) -> dict[str, Any]:
    """Return what the record says of how the scores were made."""
    calibrated_by = None if decisions is None else decisions.path
    return {
        "polarity": "higher = more bona fide",
        "score": f"{scorer.meaning}, not calibrated" if calibrated_by is None else "log-likelihood ratio, nats",
        "calibration": None if calibrated_by is None else str(calibrated_by),
        "began": now(),
        **scoring_record(model, manifest, scorer),
        "posttraining": describe_posttraining(scorer.record["stages"]),
        "commit": commit(),
    }
