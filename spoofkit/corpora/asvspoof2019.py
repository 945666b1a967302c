"""ASVspoof 2019, logical access (LA).

Layout as released: LA.zip unpacks to a folder `LA`, and that folder is the corpus:

    ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.train.trn.txt    25,380 utterances
    ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.dev.trl.txt      24,844 utterances
    ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.eval.trl.txt     71,237 utterances
    ASVspoof2019_LA_train/flac/LA_T_1138215.flac …  ASVspoof2019_LA_dev/flac/…  ASVspoof2019_LA_eval/flac/…

The lists have no header and five columns separated by single spaces, SPEAKER FILE - ATTACK KEY; the third is used by
the other track, physical access (PA), only:

    LA_0079 LA_T_1138215 - - bonafide
    LA_0039 LA_E_2834763 - A11 spoof

Attacks A01-A06 in train and dev, A07-A19 in eval; A16 and A19 are the algorithms of A04 and A06. Nothing is coded. The
counts are those of the lists themselves; also Wang et al., "ASVspoof 2019: a large-scale public database of
synthesized, converted and replayed speech", Computer Speech & Language 64 (2020).
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from spoofkit.corpora.lists import find_list, read_columns, require_rows, require_unique
from spoofkit.corpora.readers import ReleasedSet, chosen_sets
from spoofkit.errors import SpoofkitError

COLUMNS = ("speaker", "utt_id", "unused", "attack", "key")
PROTOCOLS = "ASVspoof2019_LA_cm_protocols"
LISTS = {
    "train": ("ASVspoof2019.LA.cm.train.trn.txt", "LA_T"),
    "dev": ("ASVspoof2019.LA.cm.dev.trl.txt", "LA_D"),
    "eval": ("ASVspoof2019.LA.cm.eval.trl.txt", "LA_E"),
}
LAYOUT = f"expected the folder LA that LA.zip unpacks to, with {PROTOCOLS} and ASVspoof2019_LA_train, _dev, _eval in it"


def read(folder: Path, *, sets: Sequence[str] = ()) -> list[ReleasedSet]:
    """Read the sets of a folder laid out as released.

    Raises:
        SpoofkitError: a list is missing, or naming the line that is not a trial of its set.
    """
    return [_read_set(folder, name) for name in chosen_sets(sets, list(LISTS))]


def _read_set(folder: Path, name: str) -> ReleasedSet:
    list_name, prefix = LISTS[name]
    if not (folder / PROTOCOLS).is_dir() and (folder / PROTOCOLS.replace("LA", "PA")).is_dir():
        raise SpoofkitError(f"{folder}: holds the track PA (physical access), which is not read; {LAYOUT}")
    path = find_list(folder, [f"{PROTOCOLS}/{list_name}"], LAYOUT)
    table = read_columns(path, COLUMNS)
    require_rows(
        path,
        table,
        {
            f"utterance id is {{utt_id!r}}, expected {prefix}_ and digits": pl.col("utt_id").str.contains(
                rf"^{prefix}_[0-9]+$"
            ),
            "column 3 is {unused!r}, expected '-'": pl.col("unused") == "-",
            "key (column 5) is {key!r}, expected bonafide or spoof": pl.col("key").is_in(["bonafide", "spoof"]),
            "attack (column 4) is {attack!r} where the key is {key!r}": (pl.col("attack") == "-")
            == (pl.col("key") == "bonafide"),
        },
    )
    require_unique(path, table, "utt_id")
    table = table.select(
        "utt_id",
        pl.format(f"ASVspoof2019_LA_{name}/flac/{{}}.flac", "utt_id").alias("path"),
        "key",
        "speaker",
        "attack",
        pl.lit("-").alias("codec"),
    )
    return ReleasedSet(name, table, (path,), "unpack LA.zip again")
