"""Manifests of a corpus: its lists are read and checked, lengths come from headers, and each set gets its NAME.tsv."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from spoofkit.corpora.counts import difference_from_published
from spoofkit.corpora.lengths import compare_with_labels, with_lengths, with_unknown_lengths
from spoofkit.corpora.readers import ReleasedSet, options_in_effect, reader_of, refuse_unknown_options
from spoofkit.data.channels import DOWNMIXES
from spoofkit.data.manifest import KEYS, NO_KEY, Manifest, find_record, read_manifest, write_manifest
from spoofkit.data.rejected import rejected_path, write_rejected
from spoofkit.data.segments import read_segments, write_segments
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, text_sha256
from spoofkit.outputs import Output, is_up_to_date, refuse_replacing

ALWAYS_RECORDED = {"subset": "eval", "columns": {}, "keys": {}}
"""What the first manifests state of every corpus; still written, so that these are up to date."""
RECORDED_AS = {"column": "columns", "key": "keys"}


@dataclass(frozen=True)
class Prepared:
    """What became of one set."""

    path: Path
    """Of the manifest."""
    n_bonafide: int
    n_spoof: int
    partial: str
    """In words, in what the set differs from the published one; empty if in nothing."""
    kept: bool
    """Whether an up-to-date manifest was there already."""
    n_without_key: int = 0
    n_rejected: int = 0
    """Utterances that are left out because their files cannot be used."""


@dataclass(frozen=True)
class _Plan:
    """A set whose lists are checked, and what is to become of it."""

    released: ReleasedSet
    root: Path
    output: Output
    partial: str
    kept: bool

    @property
    def path(self) -> Path:
        return self.output.record


def prepare(
    corpus: str,
    folder: Path | str,
    out: Path | str,
    *,
    partial: bool = False,
    headers: bool = True,
    on_error: str = "stop",
    downmix: str = DOWNMIXES[0],
    workers: int = 16,
    overwrite: bool = False,
    reuse: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> list[Prepared]:
    """Write `out`/NAME.tsv for each set of a corpus, and NAME.segments.tsv where it says which regions are spoofed.

    Args:
        corpus: One of CORPORA.
        folder: The corpus, laid out as released.
        out: Folder for the manifests.
        partial: Accept other counts than the published ones; the manifest then says so.
        headers: Read each file's header for its length; otherwise `n_samples` is unknown.
        on_error: What a file that cannot be read means: `stop`, or `skip`, which leaves it out and lists it in
            NAME.rejected.tsv.
        downmix: How several channels become one, one of DOWNMIXES.
        workers: Threads that read headers.
        overwrite: Replace existing manifests.
        reuse: Keep manifests that were made from the same lists.
        dry_run: Only read and check the lists and what stands in `out`: no audio is touched, nothing is written.
        **options: Those of the corpus: the keyword parameters of its reader, such as `sets` or `subset`.

    Raises:
        SpoofkitError: the corpus or an option is unknown, a list or file is missing, a line is malformed, a count is
            not the published one.
    """
    folder, how = Path(folder), {"partial": partial, "headers": headers, "on_error": on_error, "downmix": downmix}
    refuse_unknown_options(corpus, options)
    _refuse_contradictions(corpus, folder, headers, on_error, downmix)
    how |= _recorded(options_in_effect(corpus, options))
    # All lists are checked before the first of a million headers is read.
    plans = []
    for released in reader_of(corpus)(folder, **options):
        difference, root = difference_from_published(corpus, released, partial), (released.root or folder).resolve()
        output = _output(corpus, released, root, Path(out), how)
        kept = is_up_to_date(output, overwrite=overwrite, reuse=reuse)
        plans.append(_Plan(released, root, output, difference, kept))
    if dry_run:
        return [_prepared(plan, plan.released.table) for plan in plans]
    written = [_write(plan, headers, on_error, downmix, workers) for plan in plans]
    return [_prepared(plan, manifest.table, manifest.n_rejected) for plan, manifest in zip(plans, written, strict=True)]


def _refuse_contradictions(corpus: str, folder: Path, headers: bool, on_error: str, downmix: str) -> None:
    if not folder.exists():
        raise SpoofkitError(f"{folder}: no such folder, expected {corpus} as released; check the path")
    if on_error == "skip" and not headers:
        raise SpoofkitError("--on-error skip with --no-headers: no file is read, expected one of the two; give one")
    if downmix not in DOWNMIXES:
        raise SpoofkitError(f"--downmix {downmix}: expected one of {', '.join(DOWNMIXES)}")


def _recorded(options: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest states of the corpus' options; which sets were asked for is not part of it."""
    named = {RECORDED_AS.get(name, name): value for name, value in options.items() if name != "sets"}
    return ALWAYS_RECORDED | named


def _output(corpus: str, released: ReleasedSet, root: Path, out: Path, how: dict[str, Any]) -> Output:
    path = out / f"{released.name}.tsv"
    lists = [file_sha256(path) for path in released.lists] or [text_sha256(released.table.write_csv())]
    made_from = {"corpus": corpus, "root": str(root), "lists": lists, **how}
    refuse_replacing((path,), released.lists)
    return Output("prepare", (path,), path, made_from, find_record)


def _write(plan: _Plan, headers: bool, on_error: str, downmix: str, workers: int) -> Manifest:
    """Write the files of one set, and read its manifest back."""
    if plan.kept:
        manifest = read_manifest(plan.path)
        _write_segments(plan, manifest.table)
        return manifest
    if headers:
        table, rejected = with_lengths(plan.released, plan.root, plan.path, on_error, workers)
        compare_with_labels(plan.released, table)
    else:
        table, rejected = with_unknown_lengths(plan.released.table), pl.DataFrame()
    if rejected.height:
        write_rejected(plan.path, rejected)
    # Before the manifest, so that where that stands its regions stand beside it.
    _write_segments(plan, table)
    write_manifest(
        plan.path,
        plan.root,
        table,
        made_from=plan.output.made_from,
        partial=plan.partial,
        downmix=downmix,
        n_rejected=rejected.height,
        overwrite=True,
    )
    if not rejected.height:
        rejected_path(plan.path).unlink(missing_ok=True)  # of an older manifest
    return read_manifest(plan.path)


def _write_segments(plan: _Plan, table: pl.DataFrame) -> None:
    """Write the spoofed regions of the utterances in `table`; those beside an up-to-date manifest are kept."""
    path, segments = plan.path.with_suffix(".segments.tsv"), plan.released.segments
    if segments is None:
        return
    if not (plan.kept and path.exists()):
        write_segments(path, segments.filter(pl.col("utt_id").is_in(table["utt_id"].to_list())), overwrite=True)
        return
    try:
        read_segments(path)
    except SpoofkitError as error:
        why = str(error).removeprefix(f"{path}: ").partition(";")[0]
        raise SpoofkitError(f"{path}: damaged ({why}); use --overwrite to recreate it") from error


def _prepared(plan: _Plan, table: pl.DataFrame, n_rejected: int = 0) -> Prepared:
    n_bonafide, n_spoof, n_without = (int((table["key"] == key).sum()) for key in (*KEYS, NO_KEY))
    return Prepared(plan.path, n_bonafide, n_spoof, plan.partial, plan.kept, n_without, n_rejected)
