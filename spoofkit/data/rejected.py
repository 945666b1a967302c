"""The list of utterances that were rejected from a manifest because their files cannot be used."""

from pathlib import Path

import polars as pl

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text, write_text

REJECTED_COLUMNS = ("utt_id", "path", "key", "reason")


def rejected_path(manifest: Path) -> Path:
    """Return the path of the list of a manifest's rejected utterances: `eval.rejected.tsv` beside `eval.tsv`."""
    return manifest.with_name(f"{manifest.stem}.rejected.tsv")


def write_rejected(manifest: Path, rejected: pl.DataFrame) -> None:
    """Write the list of a manifest's rejected utterances, with the columns REJECTED_COLUMNS; an older one is replaced.

    It is written before the manifest that lacks those utterances, so that each of them is accounted for.
    """
    tidy = pl.col("reason").str.replace_all(r"\s+", " ")
    table = rejected.select(REJECTED_COLUMNS).with_columns(tidy).sort("utt_id")
    write_text(rejected_path(manifest), table.write_csv(separator="\t", quote_style="never"), overwrite=True)


def read_rejected(manifest: Path) -> pl.DataFrame:
    """Read the list of a manifest's rejected utterances; no rows if there is no list.

    Raises:
        SpoofkitError: it is not such a list.
    """
    path = rejected_path(manifest)
    if not path.exists():
        return pl.DataFrame(schema=dict.fromkeys(REJECTED_COLUMNS, pl.Utf8))
    lines = [line.split("\t") for line in read_text(path).removesuffix("\n").split("\n")]
    if lines[0] != list(REJECTED_COLUMNS) or any(len(line) != len(REJECTED_COLUMNS) for line in lines):
        raise SpoofkitError(
            f"{path}: is not the list of rejected utterances that belongs to {manifest.name}, expected the columns "
            f"{', '.join(REJECTED_COLUMNS)}; restore it, or recreate the manifest with `spoofkit prepare`"
        )
    return pl.DataFrame(lines[1:], schema=dict.fromkeys(REJECTED_COLUMNS, pl.Utf8), orient="row")
