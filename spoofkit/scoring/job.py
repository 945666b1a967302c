"""A score file in the making: what it is made from, its batches, how they are scored, and how it is finished.

Batches of a manifest are planned by length; recordings longer than a window are batches of their own. Of loose files
nothing is known beforehand: they are taken some at a time, in the order of their names, and one that cannot be scored
has a reason in the record instead of a score.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.manifest import UNKNOWN_LENGTH, Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.score_table import read_table, table_text
from spoofkit.evaluation.scores import scores_text
from spoofkit.files import (
    file_sha256,
    read_json,
    read_text,
    refuse_existing,
    text_sha256,
    write_json,
    write_text,
)
from spoofkit.leftovers import remove_leftovers
from spoofkit.outputs import Output, is_up_to_date, read_json_record
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring import rows
from spoofkit.scoring.batches import Plan, batch_results, plan_batches
from spoofkit.scoring.decisions import Decisions
from spoofkit.scoring.loose_files import in_chunks
from spoofkit.scoring.outcome import Outcome, plain_results
from spoofkit.scoring.recordings import Reading
from spoofkit.scoring.scorer import Scorer

LOOSE = Path("-")
MADE_FROM = ("model_sha256", "manifest_sha256", "input_policy", "channels", "windows", "speech", "calibration_sha256")


@dataclass(frozen=True)
class Job:
    """A score file that is to be made, or one part of it."""

    manifest: Manifest
    out: Path
    reading: Reading
    rows_apart: frozenset[int]
    """Rows of a manifest that are scored recording by recording: `rows_apart`."""
    made_from: dict[str, Any]
    """Hashes of model, manifest and calibration, and the input policy."""
    decisions: Decisions | None
    windows_out: Path | None

    @property
    def output(self) -> Output:
        """The score file, the file of windows if there is one, and their record."""
        hashes = {"scores_sha256": self.out} | (
            {} if self.windows_out is None else {"windows_sha256": self.windows_out}
        )
        read = read_json_record(
            "scores_sha256", lambda record: {name: record[name] for name in MADE_FROM if name in record}, hashes
        )
        return Output("score", tuple(hashes.values()), self.out.with_suffix(".json"), self.made_from, read)

    @property
    def is_loose(self) -> bool:
        """Whether files were named instead of a manifest."""
        return self.manifest.path == LOOSE

    @property
    def table_out(self) -> Path:
        """Where decisions, seconds and remarks stand: of files in the output itself, of a manifest beside it."""
        return self.out if self.is_loose else decisions_path(self.out)

    @property
    def table_hash(self) -> str:
        """The name of the table's SHA-256 in the record."""
        return "scores_sha256" if self.is_loose else "decisions_sha256"

    @property
    def outputs(self) -> list[Path]:
        """All files that are written, but for the record."""
        beside = [] if self.decisions is None or self.is_loose else [self.table_out]
        return [self.out, *beside, *([] if self.windows_out is None else [self.windows_out])]

    @property
    def size_name(self) -> str:
        """What the size of a batch counts."""
        return "batch_files" if self.is_loose else "batch_samples"

    def size(self, scorer: Scorer) -> int:
        """Of a batch."""
        return scorer.n_together if self.is_loose else scorer.budget_samples

    def plan(self, size: int) -> tuple[Plan, list[list[str]], dict[str, Any]]:
        """The batches, the utterance ids of each, and what tells this plan from others."""
        utt_ids = self.manifest.table["utt_id"].to_list()
        if self.is_loose:
            plan = [[(0, row) for row in chunk] for chunk in in_chunks(range(len(utt_ids)), size)]
        else:
            whole = plan_batches(self.manifest, size, self.reading)
            plan = [part for batch in whole for part in _apart(batch, self.rows_apart)]
        batch_ids = [[utt_ids[row] for _, row in batch] for batch in plan]
        return plan, batch_ids, {self.size_name: size, "plan_sha256": text_sha256(json.dumps(batch_ids))}


def decisions_path(out: Path) -> Path:
    """Return where the decisions on a manifest's scores stand: `eval.decisions.tsv` beside `eval.tsv`."""
    return out.with_suffix(".decisions.tsv")


def rows_apart(manifest: Manifest, reading: Reading) -> frozenset[int]:
    """Rows of utterances that are longer than a window, or may be: their length is not known."""
    if reading.windows is None:
        return frozenset()
    longest = float("inf") if reading.first_samples is None else reading.first_samples
    n_samples = manifest.table["n_samples"].to_numpy()
    is_long = np.minimum(n_samples, longest) > reading.windows.n_samples
    return frozenset(np.flatnonzero(is_long | (n_samples == UNKNOWN_LENGTH)).tolist())


def score_job(
    job: Job,
    scorer: Scorer,
    todo: dict[int, list[tuple[int, int]]],
    keep: Callable[..., None],
    workers: int,
    should_stop: Callable[[], bool],
) -> None:
    """Score some batches of a job's plan.

    Args:
        job: What is scored.
        scorer: What scores.
        todo: Batches by their number in the plan.
        keep: Gets a batch's number, and by keyword what `plain_results` makes of its results.
        workers: Threads that decode; 0: as many as keep the device busy.
        should_stop: Asked before each batch.

    Raises:
        SpoofkitError: an utterance of a manifest cannot be scored, and not for lack of speech.
        Interrupted: `should_stop` said so.
    """
    batches = batch_results(scorer, job.manifest, todo, job.reading, workers, should_stop, not job.is_loose)
    for number, results in batches:
        for result in results:
            if result.error and not (job.is_loose or result.lacks_speech):
                raise SpoofkitError(result.error)
        keep(number, **plain_results(results))


def finish(job: Job, outcome: Outcome, how: dict[str, Any], replaceable: set[str]) -> None:
    """Write the score file and its record; only when both stand are the parts removed.

    Args:
        job: What was scored.
        outcome: What came of it.
        how: The rest of the record.
        replaceable: As `refuse_strangers` takes it.

    Raises:
        SpoofkitError: a file has appeared in the way; the parts stay.
    """
    out, errors = job.out, outcome.errors
    remove_unfinished(out)
    if not outcome.scores:
        score_parts.discard_parts(out)
        raise_for(list(errors.values()), len(errors))
    texts = _texts(job, outcome)
    # What a kill left of just this is ours.
    refuse_strangers([path for path, text in texts.items() if _differs(path, text)], replaceable)
    for path, text in texts.items():
        write_text(path, text, overwrite=True)
    windows_sha256 = None if job.windows_out is None else file_sha256(job.windows_out)
    result = (
        {"scores_sha256": file_sha256(out), "windows_sha256": windows_sha256} | how | {"n_trials": len(outcome.scores)}
    )
    if job.decisions is not None:
        result |= {"decision": job.decisions.record(), job.table_hash: file_sha256(job.table_out)}
    if errors:
        result["errors"] = errors
    if outcome.without_signal:
        result["without_signal"] = outcome.without_signal
    write_json(out.with_suffix(".json"), job.made_from | result, overwrite=True)
    score_parts.discard_parts(out)


def _texts(job: Job, outcome: Outcome) -> dict[Path, str]:
    """Return what the score file and those beside it hold, by path."""
    texts = {}
    results = outcome.in_order(job.manifest.table["utt_id"])
    if not job.is_loose:
        scored = [result for result in results if result.score is not None]
        score_N = np.array([result.score for result in scored], dtype=np.float32)
        calibration = None if job.decisions is None else job.decisions.calibration
        values = score_N if calibration is None else calibration.apply(score_N[:, None])
        texts[job.out] = scores_text(job.out, [result.name for result in scored], values)
    if job.is_loose or job.decisions is not None:
        names = rows.columns(job.decisions, job.reading)
        table = (rows.cells(result, job.decisions, job.reading) for result in results)
        texts[job.table_out] = table_text(job.table_out, names, table)
    if job.windows_out is not None:
        texts[job.windows_out] = rows.windows_tsv(results, job.decisions, job.reading)
    return texts


def refuse_strangers(paths: Iterable[Path], replaceable: set[str]) -> None:
    """Refuse files that stand where results go, and that the scoring had no leave to replace when it began.

    Args:
        paths: Of the results.
        replaceable: SHA-256 of the files that may be replaced: `parts.may_be_replaced`, read before a part is opened
            (a process that opens and closes a file it has locked loses the lock).

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


def _differs(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_bytes() != text.encode()


def is_kept(job: Job, *, overwrite: bool, reuse: bool) -> bool:
    """Whether the score file is up to date; otherwise nothing may be in the way.

    Raises:
        SpoofkitError: an output exists, or was made from other inputs.
    """
    if is_up_to_date(job.output, overwrite=overwrite, reuse=reuse):
        return True
    for path in job.outputs:
        refuse_existing(path, overwrite or path in job.output.files)
    return False


def decide_again(job: Job) -> bool:
    """Recreate the table of decisions from its own scores, where the score file is up to date but they are not.

    Returns:
        Whether other decisions were asked for than it held.

    Raises:
        SpoofkitError: the table is missing, or not the one that was written with the scores; or it has decisions, and
            none are asked for.
    """
    if job.decisions is None and not job.is_loose:
        return False
    path, sidecar = job.table_out, job.out.with_suffix(".json")
    record = read_json(sidecar)
    if not path.is_file() or file_sha256(path) != record.get(job.table_hash):
        fault = "is not the one that was written with" if path.is_file() else "is missing beside"
        raise SpoofkitError(f"{path}: {fault} {job.out.name}; pass --overwrite to score again and recreate both")
    wanted = None if job.decisions is None else job.decisions.record()
    if record.get("decision") == wanted:
        return False
    if wanted is None:
        raise SpoofkitError(
            f"{path}: holds decisions, found no options that make some; give the options of the first call again, or "
            "use --overwrite to score without decisions"
        )
    silent = set(record.get("without_signal", ()))
    table = read_table(read_text(path), path)
    for row in table:
        score = float(np.float32(row["cm-score"])) if row["cm-score"] else None
        row |= rows.decision_cells(score, row["filename"] not in silent, job.decisions)
    write_text(path, table_text(path, rows.columns(job.decisions, job.reading), table), overwrite=True)
    record |= {"decision": wanted, job.table_hash: file_sha256(path)}
    write_json(sidecar, record, overwrite=True)
    return True


def remove_unfinished(out: Path) -> None:
    """Remove what a kill left of writing `out` and its record, or of removing its parts."""
    names = (out.stem, decisions_path(out).stem, score_parts.parts_folder(out).name)
    remove_leftovers(out.parent, "|".join(map(re.escape, names)))


def raise_for_kept(out: Path) -> None:
    """What was said when the score file that is kept was made: some recordings may have no score."""
    record = read_json(out.with_suffix(".json"))
    errors = list(record.get("errors", {}).values())
    raise_for(errors, len(errors) + record["n_trials"])


def raise_for(errors: list[str], n_files: int) -> None:
    """Say at the end that some recordings could not be scored."""
    if errors:
        raise SpoofkitError(f"{len(errors):,} of {n_files:,} recordings failed. First error: {errors[0]}")


def refuse_other_record(out: Path) -> None:
    """Refuse to replace the record of other scores of the same name, `out.csv` beside `out.tsv`."""
    sidecar = out.with_suffix(".json")
    record = read_json(sidecar) if sidecar.exists() else {}
    for other in (out.with_suffix(suffix) for suffix in (".tsv", ".csv") if suffix != out.suffix):
        if other.is_file() and record.get("scores_sha256") == file_sha256(other):
            raise SpoofkitError(f"{sidecar}: is the record of {other.name} and would be replaced; name other scores")


def _apart(batch: list[tuple[int, int]], rows: frozenset[int]) -> Plan:
    """A batch with those of some rows in batches of their own."""
    rest = [pair for pair in batch if pair[1] not in rows]
    return [[pair] for pair in batch if pair[1] in rows] + ([rest] if rest else [])
