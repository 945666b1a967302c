"""A set's scores in the making: its batches, the part that holds what is done, and how the files are finished.

`score` and `localize` have the same job; what they write of its scores is the job's *target*. Scores are kept in a part
as they come (`parts`), so that the same command resumes after a kill; when all are there, they become the files.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

import spoofkit
from spoofkit.data.manifest import Manifest
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.files import atomic_path, file_sha256, refuse_existing, text_sha256, write_json
from spoofkit.leftovers import remove_leftovers
from spoofkit.machine import command
from spoofkit.outputs import Output, is_up_to_date
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring.batches import score_rows
from spoofkit.scoring.outcome import Outcome, as_line
from spoofkit.scoring.parts import BatchIds, OpenPart, Part, PartFile
from spoofkit.scoring.recordings import Reading
from spoofkit.scoring.scorer import Scorer
from spoofkit.signals import caught_signals
from spoofkit.terminal import say


class Target(Protocol):
    """The files that scores become."""

    @property
    def files(self) -> list[Path]:
        """All but the record; the first is the one that the user named."""

    @property
    def output(self) -> Output:
        """The files as `spoofkit.outputs` judges them, and their record."""

    def contents(self, outcome: Outcome) -> dict[Path, bytes]:
        """Return what the files hold, in the order in which they are written."""

    def record(self, outcome: Outcome, how: dict[str, Any]) -> dict[str, Any]:
        """Return the record, once the files stand; `how` is that of the job."""


@dataclass(frozen=True)
class Plan:
    """Which rows are scored together."""

    batches: list[list[int]]
    """Rows of the manifest, in the order in which they are scored."""
    utt_ids: list[list[str]]
    """The same, by id."""
    record: dict[str, Any]
    """What tells this plan from others."""


@dataclass(frozen=True)
class Job:
    """What is scored, in which batches, and what for."""

    target: Target
    manifest: Manifest
    reading: Reading
    plan: Plan
    identity: dict[str, Any]
    """What the scores are a function of; a part that is resumed must have the same."""
    how: dict[str, Any]
    """How they are made, for the record."""
    is_listed: bool = True
    """Each row must be scored; otherwise it may have an error instead."""
    make: Callable[[int], np.ndarray] | None = None
    """Gives the samples of a row that is no file."""


def make_plan(batches: list[list[int]], manifest: Manifest, size: int, size_name: str = "batch_samples") -> Plan:
    """Make a plan of batches, given the size that they were made with and what it counts."""
    names = manifest.table["utt_id"].to_list()
    utt_ids = [[names[row] for row in batch] for batch in batches]
    return Plan(batches, utt_ids, {size_name: size, "plan_sha256": text_sha256(json.dumps(utt_ids))})


def how_made(model: Path, manifest: Manifest, scorer: Scorer) -> dict[str, Any]:
    """Return how scores are made, for their record."""
    return {
        "model": str(model),
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
    """Score what a part lacks, and if it is all there is, write the files.

    Args:
        job: What is scored.
        scorer: What scores.
        part: Which batches are scored here.
        overwrite: Replace existing files; start over what an interrupted call left.
        reuse: Skip a job whose files are up to date.
        workers: Threads that decode; 0: as many as keep the device busy.
        finishes: Write the files; otherwise the part is left for `parts.read_all_parts`.

    Returns:
        What came of it; none: the files are up to date, and nothing was done.

    Raises:
        SpoofkitError: an output exists, a part was made from other inputs, or a row that must be scored cannot be.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    target, out = job.target, job.target.files[0]
    path, own = score_parts.part_path(out, part), part.batches(job.plan.utt_ids)
    found = score_parts.read_parts(out)
    score_parts.refuse_other_division(out, found, part.n_parts)
    if not overwrite:
        score_parts.refuse_other_inputs(out, found, part, job.identity)
    # A part that was begun had leave to replace the files, and the others of its division with it.
    is_begun = part in found and score_parts.is_begun(found[part], own)
    is_new = overwrite or not (is_begun or any(file.lines for file in found.values()))
    if is_new and is_kept(target, overwrite=overwrite, reuse=reuse):
        return None
    replaces = [file_sha256(path) for path in target.files if path.is_file()] if is_new else []
    replaceable = replaceable_files(found) | set(replaces)
    if is_new or part not in found or len(found[part].lines) < len(own):
        refuse_foreign_files(target.files, replaceable)  # else `finish` looks whether what stands there is its own
    with score_parts.open_part(
        path, part, job.identity, own, job.how, start_over=overwrite, replaces=replaces
    ) as opened:
        _score_rest(job, scorer, opened, own, workers, overwrite)
        outcome = Outcome.of(opened.lines.values())
        if finishes:
            finish(target, outcome, job.how, replaceable)
    return outcome


def _score_rest(job: Job, scorer: Scorer, opened: OpenPart, own: BatchIds, workers: int, overwrite: bool) -> None:
    """Score the batches that an open part lacks; `overwrite` is for what is said of an interruption."""
    todo = {number: job.plan.batches[number] for number in own if number not in opened.lines}
    n_total, n_rest = sum(map(len, own.values())), sum(map(len, todo.values()))
    if n_rest < n_total:
        say(f"{opened.path}: resuming: {n_total - n_rest:,} of {n_total:,} utterances already scored")
    name = job.target.output.verb + ("" if opened.part.n_parts == 1 else f" {opened.part}")
    patience = 0.1 if sys.stderr.isatty() else 60  # in a job's log a line now and then
    bar = tqdm(total=n_total, initial=n_total - n_rest, desc=name, unit="utt", mininterval=patience)
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
            again = "the same command" + (" without --overwrite" if overwrite and n_done else "")
            raise Interrupted(
                f"{opened.path}: stopped after {n_done:,} of {n_total:,} utterances, which are kept; {again} resumes "
                "from there",
                caught.exit_code,
            ) from None


def finish(target: Target, outcome: Outcome, how: dict[str, Any], replaceable: set[str]) -> None:
    """Write the files and their record; only when all stand are the parts removed.

    Args:
        target: What is written.
        outcome: What came of the job.
        how: The rest of the record.
        replaceable: As `refuse_foreign_files` takes it.

    Raises:
        SpoofkitError: a file has appeared in the way, and the parts stay; or no recording could be scored.
    """
    remove_unfinished(target)
    if len(outcome.errors) == len(outcome.results):
        score_parts.discard_parts(target.files[0])
        raise_failed(list(outcome.errors.values()), len(outcome.results))
    contents = target.contents(outcome)
    # What a kill left of just this is ours.
    others = [path for path, data in contents.items() if not path.is_file() or path.read_bytes() != data]
    refuse_foreign_files(others, replaceable)
    for path, data in contents.items():
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(data)
    write_json(target.output.record, target.record(outcome, how), overwrite=True)
    score_parts.discard_parts(target.files[0])


def replaceable_files(found: dict[Part, PartFile]) -> set[str]:
    """Return SHA-256 of the files that stood where the results go when parts were begun with leave to replace them."""
    return {sha256 for file in found.values() for sha256 in file.header.get("replaces", ())}


def refuse_foreign_files(paths: Iterable[Path], replaceable: set[str]) -> None:
    """Refuse files that stand where results go, and that the job had no leave to replace when it began.

    Args:
        paths: Of the results.
        replaceable: SHA-256 of the files that may be replaced. Parts are read for it before one is opened: a process
            that opens and closes a file it has locked loses the lock.

    Raises:
        SpoofkitError: naming the first.
    """
    for path in paths:
        refuse_existing(path, overwrite=True)  # a folder
        if path.exists() and file_sha256(path) not in replaceable:
            raise SpoofkitError(
                f"{path}: appeared after the scoring had begun, and is not replaced; move it away, then the same "
                "command resumes (what was scored is kept)"
            )


def remove_unfinished(target: Target) -> None:
    """Remove what a kill left of writing files and their record, or of removing parts."""
    out = target.files[0]
    names = {path.stem for path in (*target.files, target.output.record) if path.parent == out.parent}
    names.add(score_parts.parts_folder(out).name)
    remove_leftovers(out.parent, "|".join(map(re.escape, sorted(names))))


def raise_failed(errors: list[str], n_files: int) -> None:
    """Raise SpoofkitError at the end, if some recordings could not be scored."""
    if errors:
        raise SpoofkitError(f"{len(errors):,} of {n_files:,} recordings failed. First error: {errors[0]}")


def is_kept(target: Target, *, overwrite: bool, reuse: bool) -> bool:
    """Tell whether the files are up to date; otherwise nothing may be in the way.

    Raises:
        SpoofkitError: an output exists, or was made from other inputs.
    """
    output = target.output
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        return True
    for path in target.files:
        refuse_existing(path, overwrite or path in output.files)
    return False
