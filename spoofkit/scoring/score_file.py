"""The score file and the files beside it: their contents, their record, and what they are made from.

For a manifest it is the score file of the ASVspoof 5 evaluation package, with decisions in a table beside it. For loose
recordings it is itself a table, in which a recording that failed has an error instead of a score.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.records import made_in, precision_of
from spoofkit.evaluation.score_table import read_table, table_text
from spoofkit.evaluation.scores import scores_text
from spoofkit.files import file_sha256, read_json, sha256_or_dash, text_sha256, write_json, write_text
from spoofkit.outputs import Output, read_json_record
from spoofkit.scoring import rows
from spoofkit.scoring.batches import plan_batches
from spoofkit.scoring.decisions import Decisions
from spoofkit.scoring.job import Plan, make_plan
from spoofkit.scoring.loose_files import LOOSE
from spoofkit.scoring.options import DECISIONS, RECORD
from spoofkit.scoring.parts import Outcome
from spoofkit.scoring.precision import with_precision
from spoofkit.scoring.recordings import Reading, Result
from spoofkit.scoring.scored import ScoredRecording, describe
from spoofkit.scoring.stream import in_chunks

MADE_FROM = ("model_sha256", "manifest_sha256", "input_policy", "channels", "windows", "speech", "calibration_sha256")


@dataclass(frozen=True)
class ScoreFile:
    """A score file and the files beside it: a `job.Target`."""

    out: Path
    manifest: Manifest
    reading: Reading
    apart: frozenset[int]
    """Rows of the manifest that are scored in batches of their own: see `rows_apart`."""
    decisions: Decisions | None
    windows_out: Path | None
    output: Output
    """The score file, the file of windows if there is one, and their record."""
    files: list[Path]
    """All files but the record."""
    table_out: Path
    """Table of decisions: for loose recordings the output itself, for a manifest a file beside it."""
    is_loose: bool
    """Whether recordings were named instead of a manifest."""

    @property
    def table_hash(self) -> str:
        """Entry of the record with the table's SHA-256."""
        return "scores_sha256" if self.is_loose else "decisions_sha256"

    def contents(self, outcome: Outcome) -> dict[Path, bytes]:
        """Return what the files hold, by path."""
        texts = {}
        results = outcome.in_order(self.manifest.table["utt_id"])
        if not self.is_loose:
            scored = [result for result in results if result.score is not None]
            score_N = np.array([result.score for result in scored], dtype=np.float32)
            calibration = None if self.decisions is None else self.decisions.calibration
            values = score_N if calibration is None else calibration.apply(score_N[:, None])
            texts[self.out] = scores_text(self.out, [result.name for result in scored], values)
        if self.is_loose or self.decisions is not None:
            names = rows.columns(self.decisions, self.reading)
            manifest = self.manifest.table
            named = dict(zip(manifest["utt_id"], manifest["path" if self.is_loose else "utt_id"], strict=True))
            table = (rows.cells(one, names, named[one.file]) for one in self._described(results))
            texts[self.table_out] = table_text(self.table_out, names, table)
        if self.windows_out is not None:
            texts[self.windows_out] = rows.windows_tsv(self._described(results), self.decisions, self.reading)
        return {path: text.encode() for path, text in texts.items()}

    def _described(self, results: Iterable[Result]) -> Iterator[ScoredRecording]:
        return (describe(result, self.decisions, self.reading) for result in results)

    def record(self, outcome: Outcome, known: dict[str, Any]) -> dict[str, Any]:
        """Return the record of files that are written."""
        windows_sha256 = None if self.windows_out is None else file_sha256(self.windows_out)
        result = {"scores_sha256": file_sha256(self.out), "windows_sha256": windows_sha256} | known
        result["n_trials"] = len(outcome.results) - len(outcome.errors)
        if self.decisions is not None:
            result |= {"decision": self.decisions.record(), self.table_hash: file_sha256(self.table_out)}
        if self.is_rounded:
            result["n_tied"] = outcome.n_tied
        if self.decisions is not None and self.other_precision:
            result["calibration_fitted_in"] = self.decisions.fitted_in[0]
        if outcome.errors:
            result["errors"] = outcome.errors
        if outcome.without_signal:
            result["without_signal"] = outcome.without_signal
        return self.output.made_from | result

    @property
    def is_rounded(self) -> bool:
        """Whether it is scored in less than fp32."""
        return "precision" in self.output.made_from

    @property
    def other_precision(self) -> str:
        """A remark if the calibration was fitted on scores of another precision; otherwise empty."""
        return "" if self.decisions is None else self.decisions.other_precision(precision_of(self.output.made_from))

    def in_precision(self, precision: str) -> "ScoreFile":
        """Return the same file, made in a precision."""
        return replace(self, output=with_precision(self.output, precision))

    @property
    def size_name(self) -> str:
        """Unit of a batch's size."""
        return "batch_files" if self.is_loose else "batch_samples"

    def plan(self, size: int) -> Plan:
        """Divide the rows into batches of a size.

        Utterances of a manifest that are longer than a window are batches of their own. The lengths of loose files are
        not known: they are taken in their order, `size` at a time.
        """
        if self.is_loose:
            batches = list(in_chunks(range(self.manifest.table.height), size))
        else:
            batches = []
            for batch in plan_batches(self.manifest, size, self.reading):
                together = [row for row in batch if row not in self.apart]
                batches += [[row] for row in batch if row in self.apart] + ([together] if together else [])
        return make_plan(batches, self.manifest, size, self.size_name)


def make_score_file(
    out: Path,
    manifest: Manifest,
    reading: Reading,
    decisions: Decisions | None,
    windows_out: Path | None,
    *,
    model_sha256: str,
    policy: str,
) -> ScoreFile:
    """Return which files are written, and what they are made from, leaving out options that change no score."""
    is_loose = manifest.path == LOOSE
    apart = rows_apart(manifest, reading)
    made_from: dict[str, Any] = {
        "model_sha256": model_sha256,
        "manifest_sha256": _files_sha256(manifest) if is_loose else file_sha256(manifest.path),
        "input_policy": policy,
    }
    if reading.channels is not None:
        made_from["channels"] = reading.channels
    if reading.windows is not None and apart:
        made_from["windows"] = reading.windows.record()
    if reading.voice is not None:
        made_from["speech"] = reading.voice.record()
    if decisions is not None and decisions.calibration is not None:
        made_from["calibration_sha256"] = decisions.sha256
    hashes = {"scores_sha256": out} | ({} if windows_out is None else {"windows_sha256": windows_out})
    read = read_json_record("scores_sha256", _made_from, hashes)
    output = Output("score", tuple(hashes.values()), out.with_suffix(RECORD), made_from, read)
    table_out = out if is_loose else out.with_suffix(DECISIONS)
    beside = [] if decisions is None or is_loose else [table_out]
    files = [out, *beside, *([] if windows_out is None else [windows_out])]
    return ScoreFile(out, manifest, reading, apart, decisions, windows_out, output, files, table_out, is_loose)


def _made_from(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in MADE_FROM if name in record} | made_in(precision_of(record))


def _files_sha256(manifest: Manifest) -> str:
    """Hash the names and contents of loose files."""
    names = manifest.table["path"].to_list()
    return text_sha256("\n".join(f"{path} {sha256_or_dash(path)}" for path in names))


def rows_apart(manifest: Manifest, reading: Reading) -> frozenset[int]:
    """Return the rows of utterances that are longer than a window, or whose length is not known."""
    if reading.windows is None:
        return frozenset()
    longest = float("inf") if reading.first_samples is None else reading.first_samples
    n_samples = manifest.table["n_samples"].to_numpy()
    is_long = np.minimum(n_samples, longest) > reading.windows.n_samples
    return frozenset(np.flatnonzero(is_long | (n_samples == UNKNOWN_LENGTH)).tolist())


def finish_deciding(target: ScoreFile) -> None:
    """Complete what a `decide_again` left that was killed: its table has the new decisions, or still the old ones."""
    coming = _coming_record(target)
    if not coming.is_file():
        return
    table_sha256 = file_sha256(target.table_out) if target.table_out.is_file() else None
    if read_json(coming).get(target.table_hash) == table_sha256:
        coming.replace(target.output.record)
    else:
        coming.unlink()


def _coming_record(target: ScoreFile) -> Path:
    """Return where the new record waits until the table that it describes is in its place."""
    return target.output.record.with_name(f"{target.output.record.name}.coming")


def decide_again(target: ScoreFile) -> list[str]:
    """Recreate the table of decisions from its own scores, if other thresholds are given than it was made with.

    Returns:
        All decisions; empty if the table is up to date.

    Raises:
        SpoofkitError: the table is missing, or not the one that was written with the scores; or it has decisions, and
            no thresholds are given.
    """
    if target.decisions is None and not target.is_loose:
        return []
    path, sidecar = target.table_out, target.output.record
    record = read_json(sidecar)
    if not path.is_file() or file_sha256(path) != record.get(target.table_hash):
        fault = "is not the one that was written with" if path.is_file() else "is missing beside"
        raise SpoofkitError(f"{path}: {fault} {target.out.name}; use --overwrite to score again and recreate both")
    wanted = None if target.decisions is None else target.decisions.record()
    if record.get("decision") == wanted:
        return []
    if wanted is None:
        raise SpoofkitError(
            f"{path}: holds decisions, found neither --calibration nor --accept-from; give the same options again, or "
            "use --overwrite to score without decisions"
        )
    without_signal = set(record.get("without_signal", ()))
    table = read_table(path.read_bytes().decode(), path)  # a name may hold any line end
    for row in table:
        score = float(np.float32(row["cm-score"])) if row["cm-score"] else None
        if target.decisions is not None:
            row |= rows.decision_cells(target.decisions.decide(score, row["filename"] not in without_signal))
    text = table_text(path, rows.columns(target.decisions, target.reading), table)
    # Table and record cannot be replaced at once: whichever a kill leaves, `finish_deciding` completes it.
    record |= {"decision": wanted, target.table_hash: text_sha256(text)}
    write_json(_coming_record(target), record, overwrite=True)
    write_text(path, text, overwrite=True)
    finish_deciding(target)
    return [row["decision"] for row in table]
