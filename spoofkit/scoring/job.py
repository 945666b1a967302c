"""The job that `score` and `localize` share: score the batches of a set, then write the files.

What is written of the scores is the job's *target*. Each batch is appended to a part (`parts`) as soon as it is scored,
so that the same command resumes after a kill; once all batches are there, the files are written.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

import spoofkit
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.files import atomic_path, file_sha256, refuse_existing, remove_leftovers, text_sha256, write_json
from spoofkit.interrupts import caught_signals
from spoofkit.machine import command
from spoofkit.outputs import Output, is_up_to_date
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring.batches import score_rows
from spoofkit.scoring.parts import BatchIds, OpenPart, Outcome, Part, PartFile, as_line
from spoofkit.scoring.recordings import Reading
from spoofkit.scoring.scorer import Scorer
from spoofkit.terminal import say

if TYPE_CHECKING:
    from spoofkit.data.manifest import Manifest


class Target(Protocol):
    """The files that a job writes."""

    @property
    def files(self) -> list[Path]:
        """All files but the record; the first is the one that the user named."""

    @property
    def output(self) -> Output:
        """The files and their record as `spoofkit.outputs` takes them."""

    def contents(self, outcome: Outcome) -> dict[Path, bytes]:
        """Return what the files hold, in the order in which they are written."""

    def record(self, outcome: Outcome, known: dict[str, Any]) -> dict[str, Any]:
        """Return the record of files that are written; `known` is the job's part of it."""


@dataclass(frozen=True)
class Plan:
    """Which rows are scored together."""

    batches: list[list[int]]
    """Rows of the manifest, in the order in which they are scored."""
    utt_ids: list[list[str]]
    """The same batches, by id."""
    made_from: dict[str, Any]
    """Identifies the plan: the size of its batches and a hash of their ids."""


@dataclass(frozen=True)
class Job:
    """What is scored, in which batches, and for which files."""

    target: Target
    manifest: "Manifest"
    reading: Reading
    plan: Plan
    made_from: dict[str, Any]
    """What the scores are a function of; a part is resumed only if it has the same."""
    record: dict[str, Any]
    """What the record of the files says of how the scores were made."""
    is_listed: bool = True
    """Every row must be scored. If False, a row may have an error instead."""
    make: Callable[[int], np.ndarray] | None = None
    """Returns the samples of a row. Default: its file is read."""


def make_plan(batches: list[list[int]], manifest: "Manifest", size: int, size_name: str = "batch_samples") -> Plan:
    """Make a plan of batches, given the size limit of a batch and what that counts."""
    names = manifest.table["utt_id"].to_list()
    utt_ids = [[names[row] for row in batch] for batch in batches]
    return Plan(batches, utt_ids, {size_name: size, "plan_sha256": text_sha256(json.dumps(utt_ids))})


def scoring_record(model: str, manifest: "Manifest", scorer: Scorer) -> dict[str, Any]:
    """Return what every record of scores says of how they were made."""
    return {
        "model": model,
        "manifest": str(manifest.path),
        "partial": manifest.partial,
        "n_rejected": manifest.n_rejected,
        "precision": scorer.precision,
        "device": scorer.device,
        **scorer.record,
        "versions": {"spoofkit": spoofkit.__version__, **scorer.runtime, "python": sys.version.split()[0]},
        "command": command(),
    }


def run_job(
    job: Job,
    scorer: Scorer,
    part: Part,
    *,
    overwrite: bool,
    reuse: bool,
    workers: int = 0,
    finishes: bool = True,
) -> Outcome | None:
    """Score the batches that a part lacks, then write the files.

    Args:
        job: What is scored.
        scorer: The model.
        part: Which batches are scored by this process.
        overwrite: Replace existing files; discard what an interrupted call left.
        reuse: Skip a job whose files are up to date.
        workers: Threads that decode. Default: as many as keep the device busy.
        finishes: Write the files. If False, the part is left for `--merge`.

    Returns:
        The results; None if the files are up to date and the job was skipped.

    Raises:
        SpoofkitError: an output exists, a part was made from other inputs, or a row that must be scored cannot be.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    target, out = job.target, job.target.files[0]
    path, own = score_parts.part_path(out, part), part.batches(job.plan.utt_ids)
    found = score_parts.read_parts(out)
    score_parts.refuse_other_division(out, found, part.n_parts)
    if not overwrite:
        score_parts.refuse_other_inputs(out, found, part, job.made_from)
    # A part with scores was allowed to replace the files when it was begun, and so are the others of its division.
    is_begun = part in found and score_parts.is_begun(found[part], own)
    is_new = overwrite or not (is_begun or any(file.lines for file in found.values()))
    if is_new and is_skipped(target, overwrite=overwrite, reuse=reuse):
        return None
    replaces = [file_sha256(path) for path in target.files if path.is_file()] if is_new else []
    replaceable = replaceable_files(found) | set(replaces)
    if is_new or part not in found or len(found[part].lines) < len(own):
        refuse_foreign_files(target.files, replaceable)  # otherwise `finish` checks whether the files are its own
    with score_parts.open_part(
        path, part, job.made_from, own, job.record, start_over=overwrite, replaces=replaces
    ) as opened:
        _score_rest(job, scorer, opened, own, workers, overwrite)
        outcome = Outcome.of(opened.lines.values())
        if finishes:
            finish(target, outcome, job.record, replaceable)
    return outcome


def _score_rest(job: Job, scorer: Scorer, opened: OpenPart, own: BatchIds, workers: int, overwrite: bool) -> None:
    """Score the batches that an open part lacks; the message of an interruption depends on `overwrite`."""
    todo = {number: job.plan.batches[number] for number in own if number not in opened.lines}
    n_total, n_rest = sum(map(len, own.values())), sum(map(len, todo.values()))
    if n_rest < n_total:
        say(f"{opened.path}: resuming: {n_total - n_rest:,} of {n_total:,} utterances already scored")
    name = job.target.output.verb + ("" if opened.part.n_parts == 1 else f" {opened.part}")
    interval = 0.1 if sys.stderr.isatty() else 60  # a log gets a line a minute
    bar = tqdm(total=n_total, initial=n_total - n_rest, desc=name, unit="utt", mininterval=interval)
    with bar, caught_signals() as caught:
        try:
            results = score_rows(
                scorer, job.manifest, list(todo.values()), job.reading, workers=workers,
                should_stop=lambda: bool(caught), is_listed=job.is_listed, make=job.make,
            )  # fmt: skip
            for number, of_batch in zip(todo, results, strict=True):
                opened.add(number, as_line(of_batch))
                bar.update(len(todo[number]))
        except Interrupted:
            n_done = sum(len(own[number]) for number in opened.lines)
            without = " without --overwrite" if overwrite and n_done else ""
            raise Interrupted(
                f"{opened.path}: stopped after {n_done:,} of {n_total:,} utterances; run the same command{without} to "
                "resume",
                caught.exit_code,
            ) from None


def finish(target: Target, outcome: Outcome, record: dict[str, Any], replaceable: set[str]) -> None:
    """Write the files and their record, then remove the parts.

    Args:
        target: The files.
        outcome: The results of all rows.
        record: The job's part of the record.
        replaceable: SHA-256 of the files that may be replaced.

    Raises:
        SpoofkitError: a file has appeared where one is to be written (the parts are kept), or no recording was scored.
    """
    remove_unfinished(target)
    if len(outcome.errors) == len(outcome.results):
        score_parts.discard_parts(target.files[0])
        raise_failed(list(outcome.errors.values()), len(outcome.results))
    contents = target.contents(outcome)
    # A file with these very bytes was written by a call that was killed here.
    others = [path for path, data in contents.items() if not path.is_file() or path.read_bytes() != data]
    refuse_foreign_files(others, replaceable)
    for path, data in contents.items():
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(data)
    write_json(target.output.record, target.record(outcome, record), overwrite=True)
    score_parts.discard_parts(target.files[0])


def replaceable_files(found: dict[Part, PartFile]) -> set[str]:
    """Return the SHA-256 of the files that parts were allowed to replace when they were begun."""
    return {sha256 for file in found.values() for sha256 in file.header.get("replaces", ())}


def refuse_foreign_files(paths: Iterable[Path], replaceable: set[str]) -> None:
    """Refuse files that were not where the results go when the job began.

    Args:
        paths: Where results go.
        replaceable: SHA-256 of the files that may be replaced. It must be read from the parts before one is opened: a
            process that opens and closes a file it has locked loses the lock.

    Raises:
        SpoofkitError: such a file exists.
    """
    for path in paths:
        refuse_existing(path, overwrite=True)  # a folder
        if path.exists() and file_sha256(path) not in replaceable:
            raise SpoofkitError(
                f"{path}: appeared after scoring had begun and is not replaced; move it away, then run the same "
                "command to resume"
            )


def remove_unfinished(target: Target) -> None:
    """Remove temporary files that a killed call left."""
    out = target.files[0]
    names = {path.stem for path in (*target.files, target.output.record) if path.parent == out.parent}
    names.add(score_parts.parts_folder(out).name)
    remove_leftovers(out.parent, "|".join(map(re.escape, sorted(names))))


def raise_failed(errors: list[str], n_files: int) -> None:
    """Raise SpoofkitError if some recordings could not be scored."""
    if errors:
        raise SpoofkitError(f"{len(errors):,} of {n_files:,} recordings failed. First error: {errors[0]}")


def is_skipped(target: Target, *, overwrite: bool, reuse: bool) -> bool:
    """Return whether the files are up to date; refuse files that may not be replaced.

    Raises:
        SpoofkitError: an output exists, or was made from other inputs.
    """
    output = target.output
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        return True
    for path in target.files:
        refuse_existing(path, overwrite or path in output.files)
    return False
