"""The verb `score`: from a model folder and a manifest or loose recordings to scores on stdout, or to a score file.

Scores of a file are kept in parts as they come (`parts`); when all are there, they become the score file and its
record (`job`).
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import spoofkit
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.files import file_sha256, read_json, refuse_existing, text_sha256, write_text
from spoofkit.models.detector import Detector, folder_sha256, load_detector, require_model_folder
from spoofkit.models.device import choose_device
from spoofkit.models.provenance import contamination_warning
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring import verdicts
from spoofkit.scoring.job import (
    LOOSE,
    Job,
    Outcome,
    finish,
    is_kept,
    plain_windows,
    raise_for,
    refuse_foreign,
    rows_apart,
    score_job,
)
from spoofkit.scoring.loose_files import STDIN, find_files, in_chunks, loose_manifest
from spoofkit.scoring.options import Options, parse_crop, refuse_contradictions
from spoofkit.scoring.parts import Shard
from spoofkit.scoring.recordings import Reading, Recording, chunk_size, n_decoders, score_recordings
from spoofkit.scoring.verdicts import Verdicts, read_verdicts
from spoofkit.scoring.windows import Windows
from spoofkit.signals import caught_signals


def score_inputs(model: Path, inputs: list[Path], options: Options) -> Iterator[str]:
    """Score what the command line names, and yield the lines for stdout.

    Args:
        model: Model folder.
        inputs: A manifest and the score file; or files, folders, globs and `-`, and possibly a score file last.
        options: The rest.

    Raises:
        SpoofkitError: an input is missing or not what was expected, the output exists, or, after all others were
            scored, a loose file could not be.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    require_model_folder(model)
    policy = options.crop or _policy_of(model)
    first_samples, repeat_to = parse_crop(policy)
    part = Shard() if options.shard is None else score_parts.parse_shard(options.shard)
    inputs, out = _split(inputs)
    refuse_contradictions(options, out)
    found = read_verdicts(options.calibration, options.decision)
    if not options.merge:
        device = choose_device(options.device)
        detector, record = load_detector(model)
        if repeat_to is not None:
            detector.repeat_to, detector.shortest = repeat_to, 1
        elif options.windows and options.windows.n_samples < detector.shortest:
            raise SpoofkitError(
                f"--window: {options.windows.n_samples} samples are too few, the encoder needs at least "
                f"{detector.shortest}; make it longer"
            )
    # What is repeated to a length is cut to it too.
    reading = Reading(first_samples, None if repeat_to is not None else options.windows)
    if out is None:
        yield from _print_scores(detector.to(device), inputs, device, reading, found, options)
        return
    manifest = read_manifest(inputs[0]) if inputs[0].suffix == ".tsv" else loose_manifest(find_files(inputs))
    for caveat in manifest.caveats():
        tqdm.write(caveat, file=sys.stderr)
    apart = rows_apart(manifest, reading)
    if apart and manifest.path != LOOSE and reading.windows is not None:
        which = f"{len(apart):,} of {manifest.table.height:,} utterances are longer than a window, or of unknown length"
        tqdm.write(f"{manifest.path.name}: {which}; {reading.windows.words()}", file=sys.stderr)
    made_from = _inputs_record(model, manifest, policy, reading.windows if apart else None, found)
    job = Job(manifest, out, reading, apart, made_from, found, options.windows_out)
    refuse_foreign(out.with_suffix(".json"))
    if options.merge:
        yield from _merge(job, options)
        return
    how = _record(model, manifest, device, detector, record, found)
    yield from _score_part(job, detector, device, how, part, options)


def _print_scores(
    detector: Detector,
    inputs: list[Path],
    device: torch.device,
    reading: Reading,
    found: Verdicts | None,
    options: Options,
) -> Iterator[str]:
    """Score loose files; JSON or TSV line by line, or a table at the end for somebody who reads it."""
    if options.windows_out is not None:
        refuse_existing(options.windows_out, options.overwrite)
    files = find_files(inputs)
    is_table = options.width is not None and not options.json_lines
    # A pipe wants an answer to every name before it gives the next one.
    n_together = 1 if STDIN in map(str, inputs) else chunk_size(device)
    chunks = ([Recording(file, file) for file in chunk] for chunk in in_chunks(files, n_together))
    results = score_recordings(detector, chunks, device, reading, n_threads=n_decoders(device, options.workers))
    n_files, errors, cut, shown = 0, [], {}, []
    if not (is_table or options.json_lines):
        yield verdicts.header(found)
    with tqdm(desc="score", unit="file", disable=not is_table) as bar:
        for result in (result for chunk in results for result in chunk):
            n_files += 1
            bar.update()
            if result.error:
                errors.append(result.error)
            if result.windows:
                cut[result.name] = plain_windows(result)
            if is_table:
                shown.append(result)
            else:
                yield (
                    verdicts.as_json(result, found) if options.json_lines else "\t".join(verdicts.cells(result, found))
                )
    if options.width is not None and is_table:
        yield verdicts.table(shown, found, options.width)
    _explain(detector, found, reading.windows if cut else None)
    if options.windows_out is not None:
        write_text(options.windows_out, verdicts.windows_tsv(cut.items(), found), options.overwrite)
    raise_for(errors, n_files)


def _explain(detector: Detector, found: Verdicts | None, windows: Windows | None) -> None:
    """Beside the numbers, on stderr: what they mean."""
    tqdm.write(verdicts.meaning(found, detector.score_meaning), file=sys.stderr)
    if windows is not None:
        tqdm.write(windows.words(), file=sys.stderr)


def _policy_of(model: Path) -> str:
    """What a model says of the samples it is to be given; whole utterances if it says nothing."""
    record = read_json(model / "model.json")
    return str(record.get("input_policy", "whole")) if isinstance(record, dict) else "whole"


def _split(inputs: list[Path]) -> tuple[list[Path], Path | None]:
    """What is scored, and the score file to write if one is named."""
    first, *others = inputs
    if first.suffix == ".tsv":
        if len(others) != 1 or others[0].suffix != ".tsv":
            found = ", ".join(map(str, others)) or "nothing"
            raise SpoofkitError(
                f"{first}: a manifest is followed by the score file to write, such as scores/eval.tsv; found {found}"
            )
        return [first], others[0]
    return (inputs[:-1], inputs[-1]) if inputs[-1].suffix == ".tsv" else (inputs, None)


def _score_part(
    job: Job, detector: Detector, device: torch.device, how: dict[str, Any], part: Shard, options: Options
) -> Iterator[str]:
    """Score what a part lacks; one that is all there is becomes the score file."""
    out, path = job.out, score_parts.part_path(job.out, part)
    plan, batch_ids, planned = job.plan(job.size(device))
    identity = job.made_from | planned | {"spoofkit": spoofkit.__version__, "torch": str(torch.__version__)}
    own = part.batches(batch_ids)
    score_parts.refuse_other_divisions(out, part.n_parts)
    # A part that was begun had leave to replace the score file.
    is_new = options.overwrite or not score_parts.is_begun(score_parts.read_part(path), own)
    if is_new and is_kept(job, overwrite=options.overwrite, reuse=options.reuse):
        yield f"{out}: kept as it was"
        return
    lines: list[dict[str, Any]] = []
    with score_parts.open_part(path, part, identity, own, how, anew=options.overwrite, lines=lines) as (done, keep):
        todo = {number: plan[number] for number in own if number not in done}
        n_total = sum(map(len, own.values()))
        n_before = n_total - sum(map(len, todo.values()))
        if n_before:
            tqdm.write(f"{path}: goes on after {n_before:,} of {n_total:,} utterances", file=sys.stderr)
        # In a job's log a line now and then.
        patience = 0.1 if sys.stderr.isatty() else 60
        bar = tqdm(total=n_total, initial=n_before, desc="score", unit="utt", mininterval=patience)

        def keep_and_count(number: int, scores: dict[str, float], **more: dict[str, Any]) -> None:
            keep(number, scores, **more)
            bar.update(len(plan[number]))

        with bar, caught_signals() as caught:
            try:
                score_job(job, detector.to(device), device, todo, keep_and_count, options.workers, lambda: bool(caught))
            except Interrupted:
                n_done = sum(len(own[number]) for number in done)
                again = "the same command" + (" without --overwrite" if options.overwrite and n_done else "")
                far = f"{n_done:,} of {n_total:,} utterances"
                raise Interrupted(
                    f"{path}: stopped after {far}, which are kept; {again} goes on from there", caught.exit_code
                ) from None
        if options.shard is not None:
            yield f"{path}: {n_total:,} scores, part {part}; when all parts are there, --merge joins them"
            return
        outcome = Outcome.of(lines)
        finish(job, outcome, how)
    yield f"{out}: {len(outcome.scores):,} scores, higher = more bona fide"
    raise_for(list(outcome.errors.values()), n_total)


def _merge(job: Job, options: Options) -> Iterator[str]:
    """Make the score file of its parts, and a record that says so."""
    out = job.out
    if not score_parts.find_parts(out) and is_kept(job, overwrite=options.overwrite, reuse=options.reuse):
        yield f"{out}: kept as it was"
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
        "command": ["spoofkit", *sys.argv[1:]],
        "merged_from": len(parts),
        "parts": [
            {"part": h["part"], "device": h["record"]["device"], "command": h["record"]["command"]} for h in headers
        ],
    }
    finish(job, outcome, how)
    yield f"{out}: {len(outcome.scores):,} scores, merged from {len(parts)} parts, higher = more bona fide"
    raise_for(list(outcome.errors.values()), job.manifest.table.height)


def _inputs_record(
    model: Path, manifest: Manifest, policy: str, windows: Windows | None, found: Verdicts | None
) -> dict[str, Any]:
    """What a score file is made from; what does not matter to it is not mentioned."""
    made_from: dict[str, Any] = {
        "model_sha256": folder_sha256(model),
        "manifest_sha256": _identity(manifest),
        "input_policy": policy,
    }
    if windows is not None:
        made_from["windows"] = windows.record()
    if found is not None:
        made_from["calibration_sha256"] = found.sha256
    return made_from


def _identity(manifest: Manifest) -> str:
    if manifest.path != LOOSE:
        return file_sha256(manifest.path)
    # A file that is missing has an error for a score.
    names = manifest.table["path"].to_list()
    return text_sha256("\n".join(f"{path} {file_sha256(path) if Path(path).is_file() else '-'}" for path in names))


def _record(
    model: Path,
    manifest: Manifest,
    device: torch.device,
    detector: Detector,
    record: dict[str, Any],
    found: Verdicts | None,
) -> dict[str, Any]:
    provenance = detector.encoder.provenance
    return {
        "polarity": "higher = more bona fide",
        "score": f"{detector.score_meaning}, not calibrated" if found is None else "log-likelihood ratio, nats",
        "calibration": None if found is None else str(found.path),
        "provenance": None if provenance is None else asdict(provenance),
        "contamination": contamination_warning(provenance),
        "model": str(model),
        "manifest": str(manifest.path),
        "partial": manifest.partial,
        "n_rejected": manifest.n_rejected,
        "precision": "fp32",
        "device": str(device),
        "settings": record.get("settings"),
        "versions": {"spoofkit": spoofkit.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        "command": ["spoofkit", *sys.argv[1:]],
    }
