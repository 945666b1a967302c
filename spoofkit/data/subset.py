"""Subsets of a manifest: nested, in proportion, and drawn by name, so that experiments with less data can be compared.

Each utterance (or speaker) has a place in an order that depends on the seed and its name alone. A subset takes the
first of that order in each stratum, so with one seed 10 % lies in 20 % and 20 % in 50 %, and further rows in the
manifest do not reshuffle the others. Of a stratum of n it takes `share` times n, rounded to the nearest whole number,
halves up: a number that never falls as the share grows, which keeps subsets nested. (Rounding of all strata together by
largest remainders does not: there a stratum may lose a row as the share grows.)

    by utterance   strata are key and attack
    by speaker     whole speakers; strata are the classes that a speaker has, so `share` is that of the speakers
"""

import hashlib
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl

from spoofkit.data.manifest import NO_SPEAKER, Manifest, find_record, read_manifest, write_manifest
from spoofkit.data.rejected import rejected_path
from spoofkit.data.segments import read_segments, segment_table, segments_text
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, table_fault, text_sha256, write_text
from spoofkit.outputs import Output, Record, is_up_to_date, refuse_replacing

UNITS = ("utterance", "speaker")
"""What a subset is made of: single utterances, or all those of a speaker."""


@dataclass(frozen=True)
class Subset:
    """A subset that was written, or was up to date."""

    before: pl.DataFrame
    """The rows it was drawn from."""
    after: pl.DataFrame
    """Its own."""
    remark: str
    """What manifests and reports say of it."""
    kept: bool
    """Whether it was up to date and skipped."""


def write_subset(
    manifest_path: Path,
    out: Path,
    *,
    share: float,
    seed: int = 0,
    by: str = UNITS[0],
    overwrite: bool = False,
    reuse: bool = False,
) -> Subset:
    """Draw a subset of a manifest, and write it as a manifest, with its regions if the manifest has some beside it.

    Args:
        manifest_path: The manifest to draw from.
        out: The manifest to write, NAME.tsv.
        share: Share of each stratum: see the module's docstring.
        seed: Seed of the order; subsets of one seed are nested.
        by: One of UNITS.
        overwrite: Replace an existing subset.
        reuse: Skip a subset that is up to date.

    Raises:
        SpoofkitError: see `draw_subset`; or the output may not be written.
    """
    if out.suffix != ".tsv":
        raise SpoofkitError(f"{out}: expected a name that ends in .tsv, as manifests have; rename it")
    manifest = read_manifest(manifest_path)
    table = draw_subset(manifest, share, seed, by)
    remark = _remark(manifest, table, share, seed, by)
    regions, segments = _regions_of(manifest, table), out.with_suffix(".segments.tsv")
    output = _output(manifest, out, {"share": share, "seed": seed, "by": by}, regions, segments)
    refuse_replacing(output.files, (manifest_path, manifest_path.with_suffix(".segments.tsv")))
    kept = is_up_to_date(output, overwrite=overwrite, reuse=reuse)
    if not kept:
        # Before the manifest, so that where that stands its regions stand beside it.
        if regions is not None:
            write_text(segments, regions, overwrite=True)
        write_manifest(
            out,
            manifest.root,
            table,
            made_from=output.made_from,
            partial=remark,
            downmix=manifest.downmix,
            overwrite=True,
        )
        rejected_path(out).unlink(missing_ok=True)  # of an older manifest
    return Subset(manifest.table, table, remark, kept)


def draw_subset(manifest: Manifest, share: float, seed: int, by: str) -> pl.DataFrame:
    """Return the rows of a subset, in the manifest's order.

    Raises:
        SpoofkitError: a share outside (0, 1], another unit than UNITS, rows without a speaker where speakers are drawn,
            or a class of which nothing is drawn.
    """
    if not 0 < share <= 1:
        raise SpoofkitError(f"--share {share:g}: expected a share of the set, above 0 and at most 1")
    if by not in UNITS:
        raise SpoofkitError(f"--by {by}: expected one of {', '.join(UNITS)}")
    units = _units(manifest, by)
    places = [hashlib.sha256(f"{seed}\t{name}".encode()).hexdigest() for name in units["name"]]
    ranked = (
        units.with_columns(pl.Series("place", places))
        .sort("place")
        .with_columns(pl.int_range(pl.len()).over("stratum").alias("rank"), pl.len().over("stratum").alias("n"))
    )
    exact = Fraction(str(share))  # 0.15 of 10 is 1.5, in binary a little less
    taken = {n: int(exact * n + Fraction(1, 2)) for n in ranked["n"].unique()}
    drawn = ranked.filter(pl.col("rank") < pl.col("n").replace_strict(taken, return_dtype=pl.Int64))
    column = "speaker" if by == "speaker" else "utt_id"
    table = manifest.table.join(drawn, left_on=column, right_on="name", how="semi", maintain_order="left")
    for key in manifest.table["key"].unique().sort():
        if not (table["key"] == key).any():
            n_rows = (manifest.table["key"] == key).sum()
            raise SpoofkitError(
                f"{manifest.path}: --share {share:g} by {by} with seed {seed} draws none of the {n_rows:,} utterances "
                f"with key {key!r}, expected some; draw a larger share, or use another seed or unit (--by)"
            )
    return table


def count_strata(before: pl.DataFrame, after: pl.DataFrame) -> list[dict[str, Any]]:
    """Count rows before and after, and speakers after, for each key and attack; the last row is of all together."""
    rows: list[dict[str, Any]] = []
    for (key, attack), own in before.group_by("key", "attack", maintain_order=False):
        drawn = after.filter(pl.col("key") == key, pl.col("attack") == attack)
        rows.append({"key": key, "attack": attack, **_counts(own, drawn)})
    return [
        *sorted(rows, key=lambda row: (row["key"], row["attack"])),
        {"key": "all", "attack": "", **_counts(before, after)},
    ]


def _counts(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, Any]:
    speakers = after.filter(pl.col("speaker") != NO_SPEAKER)["speaker"].n_unique()
    return {"before": before.height, "after": after.height, "share": after.height / before.height, "speakers": speakers}


def _units(manifest: Manifest, by: str) -> pl.DataFrame:
    """Return the names of what is drawn, and the stratum of each."""
    table = manifest.table
    if by == "utterance":
        return table.select(pl.col("utt_id").alias("name"), pl.struct("key", "attack").alias("stratum"))
    unknown = table.filter(pl.col("speaker") == NO_SPEAKER)["utt_id"]
    if unknown.len():
        raise SpoofkitError(
            f"{manifest.path}: the speaker of {unknown.len():,} of {table.height:,} utterances is unknown (first: "
            f"{unknown[0]!r}), expected one for each; draw --by utterance"
        )
    classes = pl.col("key").unique().sort().str.join("+")
    return table.group_by("speaker").agg(classes.alias("stratum")).rename({"speaker": "name"})


def _remark(manifest: Manifest, table: pl.DataFrame, share: float, seed: int, by: str) -> str:
    """Say what was drawn from what, and all that must be known of the set it was drawn from."""
    of, n_before = manifest.path.name, manifest.table.height
    if fault := table_fault(str(manifest.path), to_file=True):
        raise SpoofkitError(fault)
    speakers = ""
    if by == "speaker":
        speakers = f"{table['speaker'].n_unique():,} of {manifest.table['speaker'].n_unique():,} speakers, "
    drawn = f"{table.height:,} of {n_before:,} utterances ({100 * table.height / n_before:.3g} %)"
    caveats = "".join(f"; {caveat}" for caveat in manifest.caveats())
    return f"subset of {of}: share {share:g} by {by}, seed {seed}: {speakers}{drawn}{caveats}"


def _regions_of(manifest: Manifest, table: pl.DataFrame) -> str | None:
    """Return the regions of the subset's utterances as a file's text; None if the manifest has none beside it."""
    path = manifest.path.with_suffix(".segments.tsv")
    if not path.exists():
        return None
    regions = read_segments(path)
    missing = [utt_id for utt_id in table["utt_id"] if utt_id not in regions]
    if missing:
        raise SpoofkitError(
            f"{path}: lacks {missing[0]!r} of {manifest.path.name}, expected every utterance of it; recreate both with "
            "`spoofkit prepare`, or remove it"
        )
    return segments_text(segment_table({utt_id: regions[utt_id].tolist() for utt_id in table["utt_id"]}))


def _output(manifest: Manifest, out: Path, drawn: dict[str, Any], regions: str | None, segments: Path) -> Output:
    made_from = {"manifest": file_sha256(manifest.path), "corpus": manifest.made_from.get("corpus", ""), **drawn}
    if regions is None:
        return Output("subset", (out,), out, made_from, find_record)
    sha256 = text_sha256(regions)

    def read(path: Path) -> Record:
        found = find_record(path)
        written = (found.made_from or {}).get("segments_sha256")
        return replace(found, sha256={segments: written} if written else {})

    def is_own(path: Path) -> bool:
        return path == segments and file_sha256(path) == sha256

    return Output("subset", (out, segments), out, made_from | {"segments_sha256": sha256}, read, is_own)
