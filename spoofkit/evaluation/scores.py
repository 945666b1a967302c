"""The score file: read and checked, written, and joined with a manifest.

It is the ASVspoof 5 evaluation package's, so a file can be handed to that package unchanged: the header
`filename<TAB>cm-score`, then one trial a line; a higher score means more bona fide. Ids are text: `NA` is an id and
leading zeros stay. A faulty file is refused, never repaired; no metric is computed here.

The table that `score` writes for recordings, or for decisions, is read as well: see `score_table`.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.data.manifest import KEYS, Manifest, all_different
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation import score_table
from spoofkit.files import lines_with_other_counts, read_error, write_text
from spoofkit.tables import number_text

HEADER = "filename\tcm-score"
N_NAMED = 5  # trials that an error sentence names; the rest are counted


def read_scores(path: Path | str) -> pl.DataFrame:
    """Read a score file, or the scores in a table of `score`: its column `llr` if it has one, else `cm-score`.

    Returns:
        Columns `utt_id` (text) and `score` (float64, finite), one row per trial, in the file's order. Rows of a table
        without a score are skipped.

    Raises:
        SpoofkitError: The file cannot be read, is empty or truncated, or has another header, another number of columns,
            an empty or repeated id, or a score that is not a finite number. The message names up to five trials.
    """
    data = _read_bytes(path)
    table = _read_table(data, path) if score_table.columns_of(data) else _read_pairs(data, path)
    _check_ids(table, path)
    # Not strict: polars would raise without the trial; what is no number becomes null, and is refused below by name.
    table = table.with_columns(pl.col("text").cast(pl.Float64, strict=False).alias("score"))
    bad = table.filter(pl.col("score").is_null() | ~pl.col("score").is_finite())
    if bad.height:
        shown = [
            f"{utt_id} {text!r} in line {line}"
            for line, utt_id, text in bad["line", "utt_id", "text"].head(N_NAMED).rows()
        ]
        raise SpoofkitError(
            f"{path}: found {_named(bad.height, 'score', shown)} where a finite number was expected; score these again"
        )
    return table.select("utt_id", "score")


def are_llr(path: Path | str) -> bool:
    """Return whether `read_scores` takes a file's scores from a column `llr`."""
    return score_table.score_column(score_table.columns_of(_read_bytes(path))) == "llr"


def _read_pairs(data: bytes, path: Path | str) -> pl.DataFrame:
    """Return `line`, `utt_id` and `text` of a score file."""
    _check_lines(data, path)
    columns = {"utt_id": pl.Utf8, "text": pl.Utf8}
    table = pl.read_csv(
        io.BytesIO(data), separator="\t", quote_char=None, has_header=False, skip_rows=1, schema=columns
    )
    # polars reads only an empty field as missing: "NA" stays an id.
    return table.fill_null("").with_row_index("line", offset=2)


def _read_table(data: bytes, path: Path | str) -> pl.DataFrame:
    """Return `line`, `utt_id` and `text` of the rows of a table of `score` that have a score."""
    rows = score_table.read_table(_decoded(data, path), path)
    name = score_table.score_column(rows[0])
    kept = [(line, _id_of(row), row[name]) for line, row in enumerate(rows, 2) if row[name] or not row["error"]]
    if not kept:
        raise SpoofkitError(f"{path}: none of its {len(rows):,} recordings has a score; the column `error` says why")
    return pl.DataFrame(kept, schema={"line": pl.Int64, "utt_id": pl.Utf8, "text": pl.Utf8}, orient="row")


def _id_of(row: dict[str, str]) -> str:
    channel = row.get("channel")
    return f"{row['filename']}, channel {channel}" if channel else row["filename"]


def final_newline_warning(path: Path | str) -> str | None:
    """Return a warning if a score file does not end in a newline: it may be truncated inside the last score."""
    data = _read_bytes(path)
    if data.endswith(b"\n"):
        return None
    last = data[data.rfind(b"\n") + 1 :].decode("utf-8", "replace").replace("\t", " ")
    return (
        f"{path}: does not end in a newline, so it may have been cut short and the last score may lack digits: {last!r}"
    )


def write_scores(path: Path | str, utt_ids: Sequence[str], scores: npt.ArrayLike, overwrite: bool = False) -> None:
    """Write a score file, whole or not at all.

    Args:
        path: The file to write; its folder is created.
        utt_ids: One id per trial, in the order of the file.
        scores: One finite score per trial; written with as many digits as restore its float32 or float64 exactly.
        overwrite: Replace an existing file.

    Raises:
        SpoofkitError: Lengths differ, there is no trial, an id is repeated, empty or holds a tab or a line break, a
            score is not finite, or the file exists already.
    """
    write_text(path, scores_text(path, utt_ids, scores), overwrite)


def scores_text(path: Path | str, utt_ids: Sequence[str], scores: npt.ArrayLike) -> str:
    """Format scores as `write_scores` writes them, with the same errors, which name `path`."""
    values = np.asarray(scores)
    if values.dtype.kind not in "fiu":
        raise SpoofkitError(f"{path}: scores are of type {values.dtype}, expected numbers")
    if values.shape != (len(utt_ids),) or not len(utt_ids):
        raise SpoofkitError(
            f"{path}: {len(utt_ids)} ids and scores of shape {values.shape}, expected one score per id and at least one"
        )
    table = pl.DataFrame({"line": range(2, len(utt_ids) + 2), "utt_id": pl.Series(list(utt_ids), dtype=pl.Utf8)})
    _check_ids(table, path)
    broken = table.filter(pl.col("utt_id").str.contains(r"[\t\r\n]"))["utt_id"]
    if broken.len():
        shown = [repr(utt_id) for utt_id in broken.head(N_NAMED)]
        raise SpoofkitError(
            f"{path}: found a tab or a line break in {_named(broken.len(), 'id', shown)}; rename the trials"
        )
    unfit = np.flatnonzero(~np.isfinite(values))
    if unfit.size:
        shown = [f"{utt_ids[i]} {float(values[i])}" for i in unfit[:N_NAMED]]
        raise SpoofkitError(
            f"{path}: found {_named(unfit.size, 'score', shown)} where a finite number was expected; fix the model"
        )
    rows = [f"{utt_id}\t{text}\n" for utt_id, text in zip(utt_ids, number_texts(values), strict=True)]
    return HEADER + "\n" + "".join(rows)


def number_texts(values: npt.NDArray[np.generic]) -> list[str]:
    """Format numbers with enough digits to restore them: nine for a float32, for a float64 sometimes more."""
    if values.dtype == np.float32:
        return [f"{value:.9g}" for value in values.tolist()]
    return [number_text(value) for value in values.tolist()]


def add_scores(scores: pl.DataFrame, manifest_table: pl.DataFrame) -> pl.DataFrame:
    """Add each trial's score to its row of the manifest, whatever its key.

    Args:
        scores: As `read_scores` returns them.
        manifest_table: At least the column `utt_id`.

    Returns:
        The manifest's rows in its order, with one more column `score`.

    Raises:
        SpoofkitError: An id is in only one of the two, or occurs twice.
    """
    if "score" in manifest_table.columns:
        raise SpoofkitError(
            "manifest: has a column named 'score', which is taken by the score file; rename that column"
        )
    in_order = scores.height == manifest_table.height and (scores["utt_id"] == manifest_table["utt_id"]).all()
    if not in_order or not all_different(scores["utt_id"]):
        _check_same_ids(scores, manifest_table)
    if in_order:  # the order that `spoofkit score` writes; saves most of the time of a large set
        return manifest_table.with_columns(scores["score"])
    return manifest_table.join(scores, on="utt_id", how="left", maintain_order="left")


def read_trials(path: Path, manifest: Manifest, with_keys: bool = True) -> pl.DataFrame:
    """Read a score file and join it with the manifest of exactly the same trials.

    Args:
        path: The score file.
        manifest: The manifest.
        with_keys: Require a key of each trial, see `join_scores`; else see `add_scores`.

    Raises:
        SpoofkitError: the file is broken, or does not fit the manifest; the message names both.
    """
    scores = read_scores(path)
    try:
        return join_scores(scores, manifest.table) if with_keys else add_scores(scores, manifest.table)
    except SpoofkitError as error:
        raise SpoofkitError(f"{path} with {manifest.path}: {error}") from error


def join_scores(scores: pl.DataFrame, manifest_table: pl.DataFrame) -> pl.DataFrame:
    """Add each trial's score to its row of the manifest, and require both classes, as metrics do.

    Raises:
        SpoofkitError: see `add_scores`; or a key is neither `bonafide` nor `spoof`, or a class has no trial.
    """
    trials = add_scores(scores, manifest_table)
    # A null key is not a member either, but `is_in` gives null for it.
    unknown = manifest_table.filter(~pl.col("key").is_in(KEYS).fill_null(False))
    if unknown.height:
        shown = [f"{utt_id} {key!r}" for utt_id, key in unknown["utt_id", "key"].head(N_NAMED).rows()]
        raise SpoofkitError(
            f"manifest: found {_named(unknown.height, 'unknown key', shown)}; expected bonafide or spoof; fix them"
        )
    for key in KEYS:
        if not (manifest_table["key"] == key).any():
            raise SpoofkitError(
                f"manifest: none of the {manifest_table.height} trials is {key}, expected both classes; "
                "metrics need bona fide and spoof trials, so evaluate a set that has both"
            )
    return trials


def _check_same_ids(scores: pl.DataFrame, manifest_table: pl.DataFrame) -> None:
    """Refuse ids that occur twice, or in only one of the two tables."""
    for name, table in (("score file", scores), ("manifest", manifest_table)):
        if not all_different(table["utt_id"]):
            twice = table["utt_id"].filter(table["utt_id"].is_duplicated()).unique(maintain_order=True)
            shown = twice.head(N_NAMED).to_list()
            raise SpoofkitError(
                f"{name}: found {_named(twice.len(), 'id', shown)} more than once; keep one row of each"
            )
    missing = manifest_table.join(scores, on="utt_id", how="anti", maintain_order="left")["utt_id"]
    extra = scores.join(manifest_table, on="utt_id", how="anti", maintain_order="left")["utt_id"]
    faults = [
        f"{what} {_named(ids.len(), 'trial', ids.head(N_NAMED).to_list())}"
        for what, ids in (("no score for", missing), ("not in the manifest are", extra))
        if ids.len()
    ]
    if faults:
        raise SpoofkitError(
            f"score file: {scores.height} scores do not fit the manifest's {manifest_table.height} trials: "
            f"{'; '.join(faults)}; expected exactly one score for each trial, so score this manifest"
        )


def _read_bytes(path: Path | str) -> bytes:
    if Path(path).exists() and not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "is not a regular file and cannot be read more than once"
        raise SpoofkitError(f"{path}: {what}, expected a score file; name one")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise read_error(path, error) from error


def _check_lines(data: bytes, path: Path | str) -> None:
    """Refuse a file that is not a header followed by rows of exactly two fields."""
    if not data or data.isspace():
        raise SpoofkitError(
            f"{path}: is empty, expected the header 'filename<TAB>cm-score' and one trial per line; score again"
        )
    first = io.BytesIO(data).readline().rstrip(b"\n")
    if data.startswith(b"\x1f\x8b"):
        raise SpoofkitError(f"{path}: is compressed (gzip), expected text; unpack it first")
    if b"\r" in data:
        raise SpoofkitError(
            f"{path}: has Windows line ends (CRLF), expected LF; convert it, for instance with dos2unix"
        )
    if first != HEADER.encode():
        raise SpoofkitError(
            f"{path}: line 1 is {_shown(first)}, expected the header 'filename<TAB>cm-score'; "
            "a score file is the ASVspoof 5 evaluation package's"
        )
    body = data[len(first) + 1 :]
    if not body:
        raise SpoofkitError(f"{path}: has a header but no trial, expected one trial per line; score again")
    bad = lines_with_other_counts(body, b"\t", 1)
    if bad.size:
        lines = body.split(b"\n")
        last = len(lines) - 1 - body.endswith(b"\n")
        cut = bad.size == 1 and bad[0] == last and not body.endswith(b"\n") and b"\t" not in lines[last]
        shown = [f"line {i + 2} {_shown(lines[i])}" for i in bad[:N_NAMED].tolist()]
        cure = "the file was truncated, so score again" if cut else "recreate it with `spoofkit score`"
        raise SpoofkitError(
            f"{path}: expected two tab-separated columns, found others in {_named(bad.size, 'line', shown)}; {cure}"
        )
    _decoded(data, path)


def _decoded(data: bytes, path: Path | str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpoofkitError(f"{path}: line {line} is not UTF-8 text, expected UTF-8; convert the file") from error


def _check_ids(table: pl.DataFrame, path: Path | str) -> None:
    """Refuse empty and repeated ids; `table` has the columns `line` and `utt_id`."""
    empty = table.filter(pl.col("utt_id").fill_null("") == "")
    if empty.height:
        shown = [str(line) for line in empty["line"].head(N_NAMED)]
        raise SpoofkitError(f"{path}: found no id in {_named(empty.height, 'line', shown)}; give every trial an id")
    if all_different(table["utt_id"]):
        return
    lines = table.group_by("utt_id", maintain_order=True).agg("line").filter(pl.col("line").list.len() > 1)
    shown = [f"{utt_id} in lines {', '.join(map(str, at[:N_NAMED]))}" for utt_id, at in lines.head(N_NAMED).rows()]
    raise SpoofkitError(
        f"{path}: found {_named(lines.height, 'id', shown)} more than once; keep one score for each trial"
    )


def _named(n: int, noun: str, shown: Sequence[str]) -> str:
    """Format a number with the first items by name: `7 scores (a, b, c, d, e and 2 more)`."""
    rest = f" and {n - len(shown)} more" if n > len(shown) else ""
    return f"{n} {noun}{'' if n == 1 else 's'} ({', '.join(shown)}{rest})"


def _shown(line: bytes) -> str:
    """Quote a line for an error message: readable, and not too long."""
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "…")
