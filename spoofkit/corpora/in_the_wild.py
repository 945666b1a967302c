"""In-the-Wild: speech of public persons, recorded and deepfaked, collected from the web.

Layout as released (Müller et al., "Does audio deepfake detection generalize?", Interspeech 2022;
https://huggingface.co/datasets/mueller91/In-The-Wild):

    release_in_the_wild/meta.csv     31,779 utterances and a header
    release_in_the_wild/0.wav        to 31778.wav, all in one folder

The list is comma-separated, and names of speakers hold spaces:

    file,speaker,label
    0.wav,Alec Guinness,spoof

`label` is `bona-fide` (19,963) or `spoof` (11,816). There is one set, `eval`. The released names are numbers and would
be those of other corpora in a pooled set, so `N.wav` is called `ITW_` and N in five digits (`ITW_00000`), which also
sorts by number; the path stays as released. How an utterance was faked is not published: attack is `-`.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from spoofkit.corpora.lists import find_list, require_rows, require_unique
from spoofkit.corpora.readers import ReleasedSet, chosen_sets
from spoofkit.corpora.tables import read_table
from spoofkit.errors import SpoofkitError

COLUMNS = ["file", "speaker", "label"]
LABELS = {"bona-fide": "bonafide", "spoof": "spoof"}
UNPACK = "unpack release_in_the_wild.zip and name its folder or the one above"


def read(folder: Path, *, sets: Sequence[str] = ()) -> list[ReleasedSet]:
    """Read the one set of release_in_the_wild, or of the folder above it.

    Raises:
        SpoofkitError: the list is missing, has other columns, or naming the line that is not an utterance.
    """
    chosen_sets(sets, ["eval"])
    path = find_list(folder, ["meta.csv", "release_in_the_wild/meta.csv"], UNPACK)
    table = read_table(path, ",")
    if table.columns != COLUMNS:
        raise SpoofkitError(
            f"{path}, line 1: found the columns {', '.join(table.columns)}, expected {', '.join(COLUMNS)}; "
            "it is not the released list"
        )
    require_rows(
        path,
        table,
        {
            "file is {file!r}, expected a number and .wav": pl.col("file").str.contains(r"^\d{1,5}\.wav$"),
            "label is {label!r}, expected bona-fide or spoof": pl.col("label").is_in(list(LABELS)),
            "speaker is {speaker!r}, expected a name": pl.col("speaker").str.strip_chars() != "",
        },
        first_line=2,
    )
    require_unique(path, table, "file", first_line=2)
    table = table.select(
        pl.format("ITW_{}", pl.col("file").str.strip_suffix(".wav").str.zfill(5)).alias("utt_id"),
        pl.col("file").alias("path"),
        pl.col("label").replace(LABELS).alias("key"),
        "speaker",
        pl.lit("-").alias("attack"),
        pl.lit("-").alias("codec"),
    )
    return [ReleasedSet("eval", table, (path,), "unpack release_in_the_wild.zip whole", root=path.parent)]
