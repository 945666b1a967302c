"""The score file and what stands beside it: what it is made from, what it holds, and its record.

Of a manifest it is that of the ASVspoof 5 evaluation package, with decisions in a table beside it; of loose recordings
it is itself a table, in which one that cannot be scored has a reason instead of a score.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.manifest import UNKNOWN_LENGTH, Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.score_table import read_table, table_text
from spoofkit.evaluation.scores import scores_text
from spoofkit.files import file_sha256, read_json, read_text, text_sha256, write_json, write_text
from spoofkit.outputs import Output, read_json_record
from spoofkit.scoring import rows
from spoofkit.scoring.batches import plan_batches
from spoofkit.scoring.decisions import Decisions
from spoofkit.scoring.job import Plan, make_plan, raise_failed
from spoofkit.scoring.loose_files import LOOSE, in_chunks
from spoofkit.scoring.outcome import Outcome
from spoofkit.scoring.recordings import Reading

MADE_FROM = ("model_sha256", "manifest_sha256", "input_policy", "channels", "windows", "speech", "calibration_sha256")


@dataclass(frozen=True)
class ScoreFile:
    """A score file, and the files beside it: a `job.Target`."""

    out: Path
    manifest: Manifest
    reading: Reading
    apart: frozenset[int]
    """Rows of a manifest that are scored each by itself: see `rows_apart`."""
    decisions: Decisions | None
    windows_out: Path | None
    output: Output
    """The score file, the file of windows if there is one, and their record."""
    files: list[Path]
    """All files that are written, but for the record."""
    table_out: Path
    """Where decisions, seconds and remarks stand: of files in the output itself, of a manifest beside it."""
    is_loose: bool
    """Files were named instead of a manifest."""

    @property
    def table_hash(self) -> str:
        """The name of the table's SHA-256 in the record."""
        return "scores_sha256" if self.is_loose else "decisions_sha256"

    def contents(self, outcome: Outcome) -> dict[Path, bytes]:
        """Return what the score file and those beside it hold, by path."""
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
            table = (rows.cells(result, self.decisions, self.reading) for result in results)
            texts[self.table_out] = table_text(self.table_out, names, table)
        if self.windows_out is not None:
            texts[self.windows_out] = rows.windows_tsv(results, self.decisions, self.reading)
        return {path: text.encode() for path, text in texts.items()}

    def record(self, outcome: Outcome, how: dict[str, Any]) -> dict[str, Any]:
        """Return the record, once the files stand."""
        windows_sha256 = None if self.windows_out is None else file_sha256(self.windows_out)
        result = {"scores_sha256": file_sha256(self.out), "windows_sha256": windows_sha256} | how
        result["n_trials"] = len(outcome.results) - len(outcome.errors)
        if self.decisions is not None:
            result |= {"decision": self.decisions.record(), self.table_hash: file_sha256(self.table_out)}
        if outcome.errors:
            result["errors"] = outcome.errors
        if outcome.without_signal:
            result["without_signal"] = outcome.without_signal
        return self.output.made_from | result

    @property
    def size_name(self) -> str:
        """What the size of a batch counts."""
        return "batch_files" if self.is_loose else "batch_samples"

    def plan(self, size: int) -> Plan:
        """Plan the batches.

        Utterances of a manifest that are longer than a window are batches of their own. Of loose files nothing is known
        beforehand: they are taken some at a time, in the order of their names.
        """
        if self.is_loose:
            batches = list(in_chunks(range(self.manifest.table.height), size))
        else:
            whole = plan_batches(self.manifest, size, self.reading)
            batches = [part for batch in whole for part in _split(batch, self.apart)]
        return make_plan(batches, self.manifest, size, self.size_name)


def make_score_file(
    out: Path,
    manifest: Manifest,
    reading: Reading,
    made_from: dict[str, Any],
    decisions: Decisions | None,
    windows_out: Path | None,
) -> ScoreFile:
    """Say which files are written; `made_from` is what `inputs_record` returns."""
    hashes = {"scores_sha256": out} | ({} if windows_out is None else {"windows_sha256": windows_out})
    read = read_json_record(
        "scores_sha256", lambda record: {name: record[name] for name in MADE_FROM if name in record}, hashes
    )
    output = Output("score", tuple(hashes.values()), record_path(out), made_from, read)
    is_loose = manifest.path == LOOSE
    table_out = out if is_loose else decisions_path(out)
    beside = [] if decisions is None or is_loose else [table_out]
    files = [out, *beside, *([] if windows_out is None else [windows_out])]
    apart = rows_apart(manifest, reading)
    return ScoreFile(out, manifest, reading, apart, decisions, windows_out, output, files, table_out, is_loose)


def inputs_record(
    model_sha256: str, manifest: Manifest, policy: str, reading: Reading, decisions: Decisions | None
) -> dict[str, Any]:
    """Return what a score file is made from; what does not matter to it is not mentioned."""
    made_from: dict[str, Any] = {
        "model_sha256": model_sha256,
        "manifest_sha256": _manifest_sha256(manifest),
        "input_policy": policy,
    }
    if reading.channels is not None:
        made_from["channels"] = reading.channels
    if reading.windows is not None and rows_apart(manifest, reading):
        made_from["windows"] = reading.windows.record()
    if reading.voice is not None:
        made_from["speech"] = reading.voice.record()
    if decisions is not None and decisions.calibration is not None:
        made_from["calibration_sha256"] = decisions.sha256
    return made_from


def _manifest_sha256(manifest: Manifest) -> str:
    if manifest.path != LOOSE:
        return file_sha256(manifest.path)
    # A file that is missing has an error for a score.
    names = manifest.table["path"].to_list()
    return text_sha256("\n".join(f"{path} {file_sha256(path) if Path(path).is_file() else '-'}" for path in names))


def record_path(out: Path) -> Path:
    """Return where the record of a score file stands: `eval.json` beside `eval.tsv`."""
    return out.with_suffix(".json")


def decisions_path(out: Path) -> Path:
    """Return where the decisions on a manifest's scores stand: `eval.decisions.tsv` beside `eval.tsv`."""
    return out.with_suffix(".decisions.tsv")


def rows_apart(manifest: Manifest, reading: Reading) -> frozenset[int]:
    """Return rows of utterances that are longer than a window, or may be: their length is not known."""
    if reading.windows is None:
        return frozenset()
    longest = float("inf") if reading.first_samples is None else reading.first_samples
    n_samples = manifest.table["n_samples"].to_numpy()
    is_long = np.minimum(n_samples, longest) > reading.windows.n_samples
    return frozenset(np.flatnonzero(is_long | (n_samples == UNKNOWN_LENGTH)).tolist())


def decide_again(target: ScoreFile) -> bool:
    """Recreate the table of decisions from its own scores, where the score file is up to date but they are not.

    Returns:
        Whether other decisions were asked for than it held.

    Raises:
        SpoofkitError: the table is missing, or not the one that was written with the scores; or it has decisions, and
            none are asked for.
    """
    if target.decisions is None and not target.is_loose:
        return False
    path, sidecar = target.table_out, record_path(target.out)
    record = read_json(sidecar)
    if not path.is_file() or file_sha256(path) != record.get(target.table_hash):
        fault = "is not the one that was written with" if path.is_file() else "is missing beside"
        raise SpoofkitError(f"{path}: {fault} {target.out.name}; pass --overwrite to score again and recreate both")
    wanted = None if target.decisions is None else target.decisions.record()
    if record.get("decision") == wanted:
        return False
    if wanted is None:
        raise SpoofkitError(
            f"{path}: holds decisions, found no options that make some; give the options of the first call again, or "
            "use --overwrite to score without decisions"
        )
    without_signal = set(record.get("without_signal", ()))
    table = read_table(read_text(path), path)
    for row in table:
        score = float(np.float32(row["cm-score"])) if row["cm-score"] else None
        row |= rows.decision_cells(score, row["filename"] not in without_signal, target.decisions)
    write_text(path, table_text(path, rows.columns(target.decisions, target.reading), table), overwrite=True)
    record |= {"decision": wanted, target.table_hash: file_sha256(path)}
    write_json(sidecar, record, overwrite=True)
    return True


def raise_unscored(out: Path) -> None:
    """Raise SpoofkitError for a score file that is up to date, if some recordings have no score in it."""
    record = read_json(record_path(out))
    errors = list(record.get("errors", {}).values())
    raise_failed(errors, len(errors) + record["n_trials"])


def refuse_other_record(out: Path) -> None:
    """Refuse to replace the record of other scores of the same name, `out.csv` beside `out.tsv`."""
    sidecar = record_path(out)
    record = read_json(sidecar) if sidecar.exists() else {}
    for other in (out.with_suffix(suffix) for suffix in (".tsv", ".csv") if suffix != out.suffix):
        if other.is_file() and record.get("scores_sha256") == file_sha256(other):
            raise SpoofkitError(f"{sidecar}: is the record of {other.name} and would be replaced; name other scores")


def _split(batch: list[int], apart: frozenset[int]) -> list[list[int]]:
    """Split a batch: some rows in batches of their own, and the rest."""
    rest = [row for row in batch if row not in apart]
    return [[row] for row in batch if row in apart] + ([rest] if rest else [])
