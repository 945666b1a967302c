"""The manifest: one TSV per set, into which a corpus' protocol is converted.

    # root=/data/asvspoof5
    # rows=140950
    # made_from={"corpus": "asvspoof5", "lists": ["cbfa08e2…"], …}
    # downmix=first                 only if it is not the mean of the channels
    # rejected=12                   only if files were rejected; eval.rejected.tsv lists them
    utt_id        path                      key    speaker  attack  codec  n_samples
    D_0000000169  flac_D/D_0000000169.flac  spoof  D_4461   A14     -      64000

Sorted by `utt_id`, ids unique, `-` = does not apply, `path` relative to the root. Further columns are kept as text.
The key of an utterance may be `-`, unknown, as in a challenge's evaluation set. Such a set is scored, localized,
validated and packed like others; training and evaluation, which need keys, read with `read_keyed_manifest`.
This module knows no corpus. Audio is read through `Manifest.read_audio`, so that no reader forgets the down-mix.
"""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import polars as pl

from spoofkit.data.audio import read_audio
from spoofkit.data.channels import DOWNMIXES
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.rejected import rejected_path
from spoofkit.errors import SpoofkitError
from spoofkit.files import lines_with_other_counts, read_utf8, table_fault, write_text
from spoofkit.outputs import Record

KEYS = ("bonafide", "spoof")
NO_KEY = "-"
"""Key of an utterance of which it is not known whether it is bona fide or spoof."""
NO_SPEAKER = "-"
"""Speaker of an utterance of which it is not known who speaks."""
COLUMNS = ("utt_id", "path", "key", "speaker", "attack", "codec", "n_samples")
# Characters that would end a field or a row, since fields are never quoted.
UNWRITABLE = r"[\t\n\r\x00]"


@dataclass(frozen=True)
class Manifest:
    """A checked manifest: its table, and the folder of its audio."""

    path: Path
    root: Path
    table: pl.DataFrame
    made_from: dict[str, Any] = field(default_factory=dict)
    partial: str = ""
    """How the set differs from the released one if it is only a part of it; empty if it is complete."""
    downmix: str = DOWNMIXES[0]
    """How several channels are mixed into one."""
    n_rejected: int = 0
    """Number of utterances that were rejected because their files cannot be used; `rejected_path` lists them."""

    def read_audio(self, relative: str, start: int = 0, n_samples: int | None = None) -> np.ndarray:
        """Read the audio of a row, or part of it, with the set's down-mix: see `spoofkit.data.audio.read_audio`."""
        return read_audio(self.audio_path(relative), start, n_samples, self.downmix)

    def caveats(self) -> list[str]:
        """List what must be known to read any figure of this set, one sentence each."""
        partial = f"{self.path.name}: partial: {self.partial}" if self.partial else ""
        return [caveat for caveat in (partial, self.rejection()) if caveat]

    def summary(self) -> str:
        """Say in one line which corpus this is of, how many utterances, and of what it is only a part."""
        corpus, partial = self.made_from.get("corpus"), f": {self.partial}" if self.partial else ""
        return f"{f'{corpus}, ' if corpus else ''}{self.path.name}, {self.table.height:,} utterances{partial}"

    def rejection(self) -> str:
        """Describe how many utterances were rejected; empty if none."""
        if not self.n_rejected:
            return ""
        return (
            f"{self.path.name}: {self.n_rejected:,} of {self.table.height + self.n_rejected:,} utterances were "
            f"rejected, see {rejected_path(self.path).name}"
        )

    def audio_path(self, relative: str) -> Path:
        """Return the path of a row's audio; it was checked that it stays below the root."""
        return self.root / relative

    def lengths(self) -> dict[str, int]:
        """Return the number of samples of each utterance by id."""
        return dict(self.table.select("utt_id", "n_samples").iter_rows())


def write_manifest(
    path: Path | str,
    root: Path,
    table: pl.DataFrame,
    *,
    made_from: dict[str, Any] | None = None,
    partial: str = "",
    downmix: str = DOWNMIXES[0],
    n_rejected: int = 0,
    overwrite: bool = False,
) -> None:
    """Sort, check and write a manifest.

    Args:
        path: The file to write.
        root: Folder that the `path` column is relative to.
        table: The columns of COLUMNS, `n_samples` as integers (UNKNOWN_LENGTH: not known), then any others.
        made_from: What it was made from, for `--reuse`.
        partial: How the set differs from the released one if it is only a part of it.
        downmix: One of DOWNMIXES.
        n_rejected: Number of utterances that are missing because their files cannot be used.
        overwrite: Replace an existing file.

    Raises:
        SpoofkitError: a rule of the format is broken, or the file cannot be written.
    """
    table = table.sort("utt_id")
    _check(table, str(path))
    for name in table.columns:
        broken = table.filter(pl.col(name).cast(pl.Utf8).str.contains(UNWRITABLE))
        if broken.height:
            raise SpoofkitError(
                f"{path}: {name} of {broken['utt_id'][0]!r} is {broken[name][0]!r}, expected text without tabs, line "
                "breaks and NUL; remove them, or rename the file"
            )
    if fault := table_fault(str(root), to_file=True):
        raise SpoofkitError(fault)
    header = [f"# root={root}", f"# rows={table.height}", f"# made_from={json.dumps(made_from or {}, sort_keys=True)}"]
    if partial:
        header.append(f"# partial={partial}")
    if downmix != DOWNMIXES[0]:
        header.append(f"# downmix={downmix}")
    if n_rejected:
        header.append(f"# rejected={n_rejected}")
    lengths = (
        pl.when(pl.col("n_samples") == UNKNOWN_LENGTH).then(pl.lit("-")).otherwise(pl.col("n_samples").cast(pl.Utf8))
    )
    body = table.with_columns(lengths.alias("n_samples")).write_csv(separator="\t", quote_style="never")
    write_text(path, "\n".join(header) + "\n" + body, overwrite)


def read_manifest(path: Path | str) -> Manifest:
    """Read and check a manifest.

    Raises:
        SpoofkitError: missing, empty, a column missing or unknown key, duplicate or unsorted ids, a path that leaves
            the root.
    """
    data = read_utf8(path)
    header, body = _split_header(data)
    if "root" not in header:
        found = f"begins with {data.splitlines()[0][:60].decode(errors='replace')!r}" if data.strip() else "is empty"
        raise SpoofkitError(
            f"{path}: {found}, expected a manifest, whose first line is '# root=FOLDER'; "
            "make one with `spoofkit prepare`"
        )
    if not body or body.isspace():
        raise SpoofkitError(
            f"{path}: has no rows, expected a header and one row per utterance; recreate it with `spoofkit prepare`"
        )
    _check_widths(body, data.count(b"\n", 0, len(data) - len(body)), path)
    try:
        table = pl.read_csv(body, separator="\t", quote_char=None, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise SpoofkitError(f"{path}: not a tab-separated table ({str(error).splitlines()[0]})") from error
    table = table.fill_null("")  # an empty field is empty text; "NA" and "null" are text like any other
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise SpoofkitError(
            f"{path}: column {missing[0]!r} is missing, expected {', '.join(COLUMNS)}; "
            "recreate it with `spoofkit prepare`"
        )
    table = table.with_columns(_parse_lengths(table["n_samples"], str(path)))
    if not data.endswith(b"\n") or header.get("rows", str(table.height)) != str(table.height):
        raise SpoofkitError(
            f"{path}: holds {table.height} rows, expected {header.get('rows', 'a final newline')}; "
            "it is cut short or was edited, so recreate it with `spoofkit prepare`"
        )
    _check(table, str(path))
    return Manifest(Path(path), Path(header["root"]), table, **_parse_header(header, path))


def read_keyed_manifest(path: Path | str) -> Manifest:
    """Read a manifest whose rows must all have a key, for training and evaluation.

    Raises:
        SpoofkitError: see `read_manifest`; or rows have no key.
    """
    manifest = read_manifest(path)
    without = manifest.table.filter(pl.col("key") == NO_KEY)["utt_id"]
    if without.len():
        raise SpoofkitError(
            f"{path}: {without.len():,} of {manifest.table.height:,} rows have no key (first: {without[0]!r}), "
            "expected bonafide or spoof in each; use a set with keys, or prepare this one with its keys"
        )
    return manifest


def find_record(path: Path) -> Record:
    """Read what an existing manifest was made from, and whether it is intact, for `spoofkit.outputs`."""
    try:
        if not read_utf8(path).startswith(b"# root="):
            return Record(None)
        return Record(read_manifest(path).made_from)
    except SpoofkitError as error:
        return Record(None, damage=str(error).removeprefix(f"{path}: ").partition(";")[0])


def _parse_header(header: dict[str, str], path: Path | str) -> dict[str, Any]:
    """Return what the lines `# made_from=` to `# rejected=` say, as fields of a manifest."""
    try:
        made_from = json.loads(header.get("made_from", "{}"))
        if not isinstance(made_from, dict):
            raise ValueError(f"found {type(made_from).__name__}, expected an object")
    except (ValueError, RecursionError) as error:
        raise SpoofkitError(f"{path}: its line '# made_from=' is damaged ({error}); recreate it") from error
    downmix, n_rejected = header.get("downmix", DOWNMIXES[0]), header.get("rejected", "0")
    if downmix not in DOWNMIXES:
        raise SpoofkitError(
            f"{path}: its line '# downmix=' says {downmix!r}, expected one of {', '.join(DOWNMIXES)}; recreate it "
            "with `spoofkit prepare`"
        )
    if not n_rejected.isdecimal():
        raise SpoofkitError(
            f"{path}: its line '# rejected=' says {n_rejected!r}, expected a number of utterances; recreate it with "
            "`spoofkit prepare`"
        )
    partial = header.get("partial", "")
    return {"made_from": made_from, "partial": partial, "downmix": downmix, "n_rejected": int(n_rejected)}


def _split_header(data: bytes) -> tuple[dict[str, str], bytes]:
    header, start = {}, 0
    while data.startswith(b"# ", start):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        name, _, value = data[start + 2 : end].decode().partition("=")
        header[name] = value
        start = end + 1
    return header, data[start:]


def _check_widths(body: bytes, n_header_lines: int, path: Path | str) -> None:
    """Refuse a row with fewer or more fields than the line of column names, and duplicate names."""
    names = io.BytesIO(body).readline().rstrip(b"\n").decode().split("\t")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SpoofkitError(f"{path}: there are two columns {twice!r}, expected different names; rename one")
    wrong = lines_with_other_counts(body, b"\t", len(names) - 1)
    if wrong.size:
        line = body.split(b"\n", int(wrong[0]) + 1)[int(wrong[0])].decode()
        raise SpoofkitError(
            f"{path}, line {n_header_lines + int(wrong[0]) + 1}: {line[:60]!r} has {line.count(chr(9)) + 1} fields, "
            f"expected {len(names)} separated by tabs; fix it, or recreate the manifest with `spoofkit prepare`"
        )


def _parse_lengths(column: pl.Series, where: str) -> pl.Series:
    text = column.replace("-", str(UNKNOWN_LENGTH))
    # Not strict: polars would raise without the place; what is no number becomes null and is refused by name below.
    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count():
        wrong = column.filter(numbers.is_null())[0]
        raise SpoofkitError(f"{where}: n_samples is {wrong!r}, expected a whole number of samples or '-'")
    named: pl.Series = numbers.alias("n_samples")
    return named


def all_different(ids: pl.Series) -> bool:
    """Return whether all ids are different; fast if they are sorted."""
    return (not ids.null_count() and bool((ids > ids.shift()).all())) or ids.n_unique() == ids.len()


def _check(table: pl.DataFrame, where: str) -> None:
    if table.height == 0:
        raise SpoofkitError(f"{where}: no utterances, expected at least one; check the protocol that it is made from")
    is_blank = table.select(pl.col("utt_id", "path", "speaker", "attack", "codec").str.strip_chars() == "")
    for column in is_blank:
        if column.any():
            utt_id = table["utt_id"].filter(column)[0]
            raise SpoofkitError(f"{where}: {column.name} is empty for utterance {utt_id!r}, expected a value or '-'")
    ids = table["utt_id"]
    if not all_different(ids):
        twice = ids.filter(ids.is_duplicated())
        raise SpoofkitError(
            f"{where}: utt_id {twice[0]!r} occurs {(ids == twice[0]).sum()} times ({twice.n_unique()} ids "
            "repeat), expected unique ids"
        )
    if not ids.is_sorted():
        late = table.filter(pl.col("utt_id") < pl.col("utt_id").shift())["utt_id"][0]
        raise SpoofkitError(
            f"{where}: not sorted by utt_id ({late!r} follows a later id); recreate it with `spoofkit prepare`"
        )
    wrong = table.filter(~pl.col("key").is_in([*KEYS, NO_KEY]))
    if wrong.height:
        raise SpoofkitError(
            f"{where}: key of {wrong['utt_id'][0]!r} is {wrong['key'][0]!r}, expected bonafide, spoof or '-'"
        )
    # An id or path must never reach a file outside the corpus root.
    outside = table.filter(pl.col("path").str.starts_with("/") | pl.col("path").str.contains(r"(^|/)\.\.(/|$)|\x00"))
    if outside.height:
        raise SpoofkitError(
            f"{where}: path of {outside['utt_id'][0]!r} is {outside['path'][0]!r}, expected a path below the root "
            f"(such as {PurePosixPath('flac_T') / 'T_0000000000.flac'})"
        )
    if (table["n_samples"] < UNKNOWN_LENGTH).any() or (table["n_samples"] == 0).any():
        short = table.filter((pl.col("n_samples") < UNKNOWN_LENGTH) | (pl.col("n_samples") == 0))["utt_id"][0]
        raise SpoofkitError(
            f"{where}: n_samples of {short!r} is not positive; the file is empty or the manifest is broken"
        )
