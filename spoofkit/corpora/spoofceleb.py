"""SpoofCeleb: VoxCeleb1 speech (by way of TITW) and what 23 TTS systems trained on it say in the same voices.

Layout as downloaded from its authors' dataset page (Jung et al., "SpoofCeleb: speech deepfake detection and SASV in
the wild", IEEE OJSP 2025, arXiv:2409.17285; https://jungjee.github.io/spoofceleb):

    spoofceleb/metadata/train.csv, development.csv, evaluation.csv
    spoofceleb/flac/train/a00/id11178/LAHad7VLKXw-00007-001.flac
    spoofceleb/flac/development/..., spoofceleb/flac/evaluation/...

Each list is comma-separated; `file` is below the set's flac folder and begins with the attack, and a00 is bona fide:

    file,speaker,attack
    a00/id10318/YYsxcZ5saac-00002-006.flac,id10318,a00

The sets are called `train`, `dev` and `eval` here. An utterance's name is its path with `_` for `/`, because the same
name stands below several attacks: `a00_id10318_YYsxcZ5saac-00002-006`.

Sources: columns, folders and the meaning of a00 from three public readers that agree (nii-yamagishilab/AntiDeepfake,
protocols/SpoofCeleb.py; zlin0/wedefense, egs/detection/spoofceleb; DeepFense/SpoofCeleb on Hugging Face); the counts
from the last of them, which counted the released lists. Its totals for each set, as everything else here, were not
compared with a copy of the corpus. Which attacks are in which set is not checked. The protocols for SASV are not read.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from spoofkit.corpora.lists import find_list, read_columns, require_rows, require_unique
from spoofkit.corpora.readers import ReleasedSet, chosen_sets
from spoofkit.errors import SpoofkitError

COLUMNS = ("file", "speaker", "attack")
BONAFIDE = "a00"
SETS = {"train": "train", "dev": "development", "eval": "evaluation"}


def read(folder: Path, *, sets: Sequence[str] = ()) -> list[ReleasedSet]:
    """Read the sets of the folder that holds `metadata` and `flac`, or of the one above it.

    Raises:
        SpoofkitError: a list is missing, has other columns, or naming the line that is not an utterance.
    """
    return [_read_set(folder, name) for name in chosen_sets(sets, list(SETS))]


def _read_set(folder: Path, name: str) -> ReleasedSet:
    released = SETS[name]
    places = [f"metadata/{released}.csv", f"spoofceleb/metadata/{released}.csv"]
    path = find_list(folder, places, "name the folder that holds SpoofCeleb's metadata and flac")
    # Millions of rows and nothing quoted: split as a whole.
    table = read_columns(path, COLUMNS, ",")
    if table.row(0) != COLUMNS:
        raise SpoofkitError(
            f"{path}, line 1: found {','.join(table.row(0))!r}, expected the header {','.join(COLUMNS)!r}; "
            "it is not the released list"
        )
    table = table.slice(1)
    require_rows(
        path,
        table,
        {
            "attack is {attack!r}, expected a00 (bona fide) or a and two digits": pl.col("attack").str.contains(
                r"^a\d\d$"
            ),
            "file is {file!r}, expected a path to a .flac below {attack!r}": pl.col("file").str.starts_with(
                pl.col("attack") + "/"
            )
            & pl.col("file").str.contains(r"^[\w/-]+\.flac$"),
            "speaker is {speaker!r}, expected id and digits": pl.col("speaker").str.contains(r"^id\d+$"),
        },
        first_line=2,
    )
    require_unique(path, table, "file", first_line=2)
    table = table.select(
        pl.col("file").str.strip_suffix(".flac").str.replace_all("/", "_").alias("utt_id"),
        pl.format(f"flac/{released}/{{}}", "file").alias("path"),
        pl.when(pl.col("attack") == BONAFIDE).then(pl.lit("bonafide")).otherwise(pl.lit("spoof")).alias("key"),
        "speaker",
        pl.col("attack").replace(BONAFIDE, "-"),
        pl.lit("-").alias("codec"),
    )
    return ReleasedSet(name, table, (path,), f"unpack all of flac/{released}", root=path.parent.parent)
