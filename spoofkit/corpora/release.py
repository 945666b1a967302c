"""What all corpora have in common: checking a released set's counts, finding its audio, writing its manifest.

A reader (one module a corpus) turns the lists of a corpus folder into `ReleasedSet`s and touches no audio; `prepare`
does the rest. The counts that must hold stand in counts.yaml.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from spoofkit import addons
from spoofkit.corpora import CORPORA
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.channels import DOWNMIXES
from spoofkit.data.headers import headers_path, read_headers
from spoofkit.data.manifest import KEYS, NO_KEY, UNKNOWN_LENGTH, find_standing, read_manifest, write_manifest
from spoofkit.data.rejected import rejected_path, write_rejected
from spoofkit.data.segments import read_segments, write_segments
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, text_sha256
from spoofkit.nearest import instead_of
from spoofkit.outputs import Output, is_up_to_date, refuse_replacing
from spoofkit.terminal import say

OWN = ("generic", "kaldi")  # corpora of the user's, of which nothing is published
N_NAMED = 3  # of missing files, in a message
LABEL_SLACK = SAMPLE_RATE // 100  # a label of the finest resolution more or less


@dataclass(frozen=True)
class ReleasedSet:
    """One set of a corpus, read from its lists."""

    name: str
    """Of the manifest: NAME.tsv."""
    table: pl.DataFrame
    """The manifest's columns without `n_samples`, then further ones; `path` is relative to the corpus folder."""
    lists: tuple[Path, ...]
    """The files it was read from."""
    audio_from: str
    """What to do when audio is missing, such as `unpack all flac_T_*.tar`."""
    counted: pl.DataFrame | None = None
    """What the published counts are of, if not of `table`: the whole list where `table` is one of its subsets."""
    segments: pl.DataFrame | None = None
    """Spoofed regions of every utterance (`spoofkit.data.segments`), for NAME.segments.tsv beside the manifest."""
    labelled_samples: dict[str, int] | None = None
    """How much of each utterance the labels of `segments` cover, in samples at 16 kHz, to compare with its audio."""
    root: Path | None = None
    """The folder that `path` is relative to, if not the one that was asked for."""


@dataclass(frozen=True)
class Wanted:
    """What the user asked of a reader."""

    sets: tuple[str, ...] = ()
    """Names of the sets to prepare; empty: all."""
    subset: str = "eval"
    """Of the lists that mark subsets (ASVspoof 2021): `eval`, `progress`, `hidden` or `all`."""
    columns: dict[str, str] = field(default_factory=dict)
    """For `generic`: which column of the user's table is what."""
    keys: dict[str, str] = field(default_factory=dict)
    """For `generic` and `kaldi`: which value of the key column means bonafide or spoof."""


Reader = Callable[[Path, Wanted], list[ReleasedSet]]


@dataclass(frozen=True)
class Prepared:
    """What became of one set."""

    path: Path
    n_bonafide: int
    n_spoof: int
    partial: str
    kept: bool
    """Whether an up-to-date manifest was there already."""
    n_without_key: int = 0
    n_rejected: int = 0
    """Utterances that are left out because their files cannot be used."""


def prepare(
    corpus: str,
    folder: Path,
    out: Path,
    *,
    wanted: Wanted | None = None,
    partial: bool = False,
    headers: bool = True,
    on_error: str = "stop",
    downmix: str = DOWNMIXES[0],
    workers: int = 16,
    overwrite: bool = False,
    reuse: bool = False,
    dry_run: bool = False,
) -> list[Prepared]:
    """Write `out`/NAME.tsv for each set of a corpus, and NAME.segments.tsv where it says which regions are spoofed.

    Args:
        corpus: One of CORPORA.
        folder: The corpus, laid out as released.
        out: Folder for the manifests.
        wanted: Which sets and subsets.
        partial: Accept other counts than the published ones; the manifest then says so.
        headers: Read each file's header for its length; otherwise `n_samples` is unknown.
        on_error: What a file that cannot be read means: `stop`, or `skip`, which leaves it out and lists it in
            NAME.rejected.tsv.
        downmix: How several channels become one, one of DOWNMIXES.
        workers: Threads that read headers.
        overwrite: Replace existing manifests.
        reuse: Keep manifests that were made from the same lists.
        dry_run: Only read and check the lists and what stands in `out`: no audio is touched, nothing is written.

    Raises:
        SpoofkitError: a list or file is missing, a line is malformed, a count is not the published one.
    """
    wanted = wanted or Wanted()
    _refuse_contradictions(corpus, folder, wanted, headers, on_error, downmix)
    # All lists are checked before the first of a million headers is read.
    checked = []
    for released in reader_of(corpus)(folder, wanted):
        part = _difference_from_published(corpus, released, partial)
        if corpus not in OWN and not published_counts(corpus).get(released.name):
            say(f"{released.name}: no published counts are known here; counts were not checked")
        made_from = _made_from(corpus, folder, released, wanted, partial, headers, on_error, downmix)
        path = out / f"{released.name}.tsv"
        refuse_replacing((path,), released.lists)
        output = Output("prepare", (path,), path, made_from, find_standing)
        checked.append((released, output, part, is_up_to_date(output, overwrite=overwrite, reuse=reuse)))
    results = []
    for released, output, part, kept in checked:
        path, table, n_rejected = output.record, released.table, 0
        if not dry_run:
            root = (released.root or folder).resolve()
            table = _table_of(released, root, path, kept, headers, on_error, workers)
            if not kept:
                n_rejected = released.table.height - table.height
                write_manifest(
                    path,
                    root,
                    table,
                    made_from=output.made_from,
                    partial=part,
                    downmix=downmix,
                    n_rejected=n_rejected,
                    overwrite=True,
                )
                if not n_rejected:
                    rejected_path(path).unlink(missing_ok=True)  # of an older manifest
            written = read_manifest(path)
            table, n_rejected = written.table, written.n_rejected
        n_bonafide, n_spoof, n_without = (int((table["key"] == key).sum()) for key in (*KEYS, NO_KEY))
        results.append(Prepared(path, n_bonafide, n_spoof, part, kept, n_without, n_rejected))
    return results


def _refuse_contradictions(
    corpus: str, folder: Path, wanted: Wanted, headers: bool, on_error: str, downmix: str
) -> None:
    if not folder.exists():
        raise SpoofkitError(f"{folder}: no such folder, expected {corpus} as released; check the path")
    if on_error == "skip" and not headers:
        raise SpoofkitError("--on-error skip with --no-headers: no file is read, expected one of the two; give one")
    if downmix not in DOWNMIXES:
        raise SpoofkitError(f"--downmix {downmix}: expected one of {', '.join(DOWNMIXES)}")
    if wanted.columns and corpus != "generic":
        raise SpoofkitError(
            f"--column: the columns of {corpus} are known, expected this for generic only; leave it out"
        )
    if wanted.keys and corpus not in OWN:
        raise SpoofkitError(f"--key: the keys of {corpus} are known, expected this for generic and kaldi; leave it out")
    if wanted.subset != "eval" and not corpus.startswith("asvspoof2021"):
        raise SpoofkitError(f"--subset {wanted.subset}: {corpus} has no subsets, expected none; leave it out")


def _table_of(
    released: ReleasedSet, root: Path, path: Path, kept: bool, headers: bool, on_error: str, workers: int
) -> pl.DataFrame:
    """The manifest's table; before the manifest are written the list of rejected files and the spoofed regions."""
    if kept:
        table = read_manifest(path).table
    elif headers:
        table, rejected = _with_lengths(released, root, path, on_error, workers)
        if released.labelled_samples is not None:
            _compare_lengths(released, table)
        if rejected.height:
            write_rejected(path, rejected)
    else:
        table = _with_unknown_lengths(released.table)
    segments = path.with_suffix(".segments.tsv")
    if released.segments is not None and kept and segments.exists():
        _refuse_damaged(segments)
    elif released.segments is not None:
        # Before the manifest, so that where that stands its regions stand beside it.
        is_kept = pl.col("utt_id").is_in(table["utt_id"].to_list())
        write_segments(segments, released.segments.filter(is_kept), overwrite=True)
    return table


def _refuse_damaged(segments: Path) -> None:
    try:
        read_segments(segments)
    except SpoofkitError as error:
        why = str(error).removeprefix(f"{segments}: ").partition(";")[0]
        raise SpoofkitError(f"{segments}: damaged ({why}); use --overwrite to recreate it") from error


def reader_of(corpus: str) -> Reader:
    """The function that reads the lists of a corpus.

    Raises:
        SpoofkitError: an addon reads them that is not here.
    """
    module, _, name = CORPORA[corpus].partition(":")
    addon = module.removeprefix("addons.")
    lists = import_module(f"spoofkit.corpora.{module}") if addon == module else addons.find(addon)
    reader: Reader = getattr(lists, name)
    return reader


def chosen_sets(wanted: Wanted, known: Sequence[str]) -> list[str]:
    """The sets that were asked for, in the corpus' order.

    Raises:
        SpoofkitError: one of them is unknown.
    """
    unknown = [name for name in wanted.sets if name not in known]
    if unknown:
        raise SpoofkitError(f"--sets: {unknown[0]!r} is no set of this corpus, expected some of {', '.join(known)}")
    return [name for name in known if name in wanted.sets or not wanted.sets]


def published_counts(corpus: str) -> dict[str, dict[str, Any]]:
    """What counts.yaml says of a corpus: set, column, then values with their counts, or a list of the values there are.

    A corpus or column without published counts is not there.
    """
    text = resources.files("spoofkit.corpora").joinpath("counts.yaml").read_text(encoding="utf-8")
    counts: dict[str, dict[str, Any]] = yaml.safe_load(text).get(corpus, {})
    return counts


def _difference_from_published(corpus: str, released: ReleasedSet, partial: bool) -> str:
    """In words, in what a set differs from the published one; empty if in nothing.

    Values that the corpus does not have are refused even in a knowing part of it.
    """
    table = released.table if released.counted is None else released.counted
    where, differences = released.lists[0] if released.lists else released.root, []
    for column, expected in published_counts(corpus).get(released.name, {}).items():
        found = dict(table[column].value_counts().iter_rows())
        unknown = sorted(found.keys() - set(expected))
        if unknown:
            raise SpoofkitError(
                f"{where}: {column} {unknown[0]!r} is none of this set, expected {', '.join(map(str, expected))}; "
                "fetch the lists again"
            )
        missing = [value for value in expected if value not in found]
        if isinstance(expected, dict):
            other = [value for value, count in expected.items() if found.get(value, 0) != count]
            if other:
                called = {"-": f"without {column}"}
                counts = " + ".join(f"{found.get(value, 0):,} {called.get(value, value)}" for value in other)
                published = " + ".join(f"{expected[value]:,}" for value in other)
                differences.append(f"{counts}, published are {published}")
        elif missing:
            differences.append(f"no {column} {missing[0]}")
    if differences and not partial:
        raise SpoofkitError(
            f"{where}: found {differences[0]}; fetch the lists again, or pass --partial to work on a subset knowingly"
        )
    return "; ".join(differences)


def _made_from(
    corpus: str,
    folder: Path,
    released: ReleasedSet,
    wanted: Wanted,
    partial: bool,
    headers: bool,
    on_error: str,
    downmix: str,
) -> dict[str, Any]:
    return {
        "corpus": corpus,
        "root": str((released.root or folder).resolve()),
        "lists": [file_sha256(path) for path in released.lists] or [text_sha256(released.table.write_csv())],
        "subset": wanted.subset,
        "columns": wanted.columns,
        "keys": wanted.keys,
        "partial": partial,
        "headers": headers,
        "on_error": on_error,
        "downmix": downmix,
    }


def _compare_lengths(released: ReleasedSet, table: pl.DataFrame) -> None:
    """Compare the lengths of labels with those of the audio: regions beyond its end are refused, others counted."""
    labelled = released.labelled_samples or {}
    differences = [(utt_id, labelled[utt_id] - n) for utt_id, n in table.select("utt_id", "n_samples").iter_rows()]
    differing = [(utt_id, by) for utt_id, by in differences if not -LABEL_SLACK <= by <= LABEL_SLACK]
    if differing:
        utt_id, by = max(differing, key=lambda found: abs(found[1]))
        say(
            f"{released.name}: the labels of {len(differing):,} utterances are not as long as their audio, most of all "
            f"those of {utt_id}, by {by / SAMPLE_RATE:+.2f} s; what is not labelled counts as bona fide"
        )
    ends = dict(released.segments.group_by("utt_id").agg(pl.col("end_seconds").last()).iter_rows())  # type: ignore[union-attr]
    for utt_id, n_samples in table.select("utt_id", "n_samples").iter_rows():
        end = ends.get(utt_id, "-")
        if end != "-" and float(end) * SAMPLE_RATE > n_samples + LABEL_SLACK:
            raise SpoofkitError(
                f"{released.lists[-1].parent}: a spoofed region of {utt_id} ends at {float(end):.2f} s, but its audio "
                f"at {n_samples / SAMPLE_RATE:.2f} s, expected labels of this audio; fetch both again"
            )


def _with_unknown_lengths(table: pl.DataFrame) -> pl.DataFrame:
    position = table.columns.index("codec") + 1
    return table.insert_column(position, pl.Series("n_samples", [UNKNOWN_LENGTH]).new_from_index(0, table.height))


def _with_lengths(
    released: ReleasedSet, folder: Path, path: Path, on_error: str, workers: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The table with lengths, and the rows whose files cannot be read, with reasons."""
    files = released.table["path"].to_list()
    missing = [file for file in files if not (folder / file).is_file()]
    if missing and on_error == "stop":
        names = ", ".join(str(folder / file) for file in missing[:N_NAMED])
        raise SpoofkitError(
            f"{folder}: {len(missing):,} of the {len(files):,} audio files of {released.name} are missing, first "
            f"{names}{instead_of(folder / missing[0])}; {released.audio_from}"
        )
    found = read_headers(folder, files, headers_path(path), workers=workers, name=f"headers of {released.name}")
    reasons = [fact if isinstance(fact, str) else None for fact in found]
    unreadable = [reason for reason in reasons if reason is not None]
    if unreadable and (on_error == "stop" or len(unreadable) == len(files)):
        others = f" ({len(unreadable):,} files of {released.name} cannot be read)" if unreadable[1:] else ""
        how = ", or pass --on-error skip to continue without" if on_error == "stop" else ""
        raise SpoofkitError(f"{unreadable[0]}{others}{how}")
    lengths = [UNKNOWN_LENGTH if isinstance(fact, str) else fact.n_samples for fact in found]
    table = _with_unknown_lengths(released.table).with_columns(pl.Series("n_samples", lengths, dtype=pl.Int64))
    reason = pl.Series("reason", reasons, dtype=pl.Utf8)
    rejected = table.filter(reason.is_not_null()).with_columns(reason.drop_nulls())
    return table.filter(reason.is_null()), rejected
