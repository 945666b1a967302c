"""PartialSpoof: utterances with some spoofed segments, and their labels.

Layout as released (version 1.2, https://zenodo.org/records/5766198; all archives unpack into one folder `database`):

    database/protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.train.trl.txt    25,380 utterances
                                                    PartialSpoof.LA.cm.dev.trl.txt      24,844
                                                    PartialSpoof.LA.cm.eval.trl.txt     71,237
    database/train/con_wav/CON_T_0000000.wav, LA_T_1138215.wav …                        dev/ and eval/ likewise
    database/segment_labels/train_seglab_0.01.npy … train_seglab_0.64.npy               seven resolutions a set

A list has the columns of ASVspoof 2019 LA, SPEAKER FILE - ATTACK KEY, separated by single spaces:

    LA_0079 CON_T_0000029 - CON spoof
    LA_0098 LA_T_9497115 - - bonafide

Utterances `CON_…` were spliced from bona fide and spoofed utterances of ASVspoof 2019 LA, `LA_…` are its bona fide
ones, all of them, and a set has as many utterances as there: both classes count as in ASVspoof 2019 LA (bona fide 2,580
in train, 2,548 in dev, 7,355 in eval).

Each set gets, beside its manifest, NAME.segments.tsv with the spoofed regions (`spoofkit.data.segments`), made of the
labels of 0.01 s; how these are read, and compared with the coarser ones, stands in `seglab`. Their regions
are therefore up to 10 ms too long at either end. What does not agree is said, counted, on stderr.

Zhang, Wang, Cooper, Evans, Yamagishi, "The PartialSpoof Database and Countermeasures for the Detection of Short Fake
Speech Segments Embedded in an Utterance", IEEE/ACM TASLP 31, 2023 (arXiv:2204.05177).
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from spoofkit.addons.partialspoof.seglab import (
    FINEST_SECONDS,
    SpoofFlags,
    compare_with_finest,
    read_labels,
    spoofed_runs,
)
from spoofkit.corpora.lists import find_list, read_columns, require_rows, require_unique
from spoofkit.corpora.readers import ReleasedSet, chosen_sets
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.segments import segment_table
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import say

COLUMNS = ("speaker", "utt_id", "unused", "attack", "key")
LETTERS = {"train": "T", "dev": "D", "eval": "E"}
LABELS_FROM = "unpack database_segment_labels_v1.2.tar.gz into the corpus folder"
FINEST_SAMPLES = round(FINEST_SECONDS * SAMPLE_RATE)


def read(folder: Path, *, sets: Sequence[str] = ()) -> list[ReleasedSet]:
    """Read the sets of a folder laid out as released: the folder `database` itself, or its parent.

    Raises:
        SpoofkitError: a list or label file is missing, damaged or hostile, lists and labels have other utterances, or
            naming the line that is not a trial of its set.
    """
    return [_read_set(folder, name) for name in chosen_sets(sets, list(LETTERS))]


def _read_set(folder: Path, name: str) -> ReleasedSet:
    letter = LETTERS[name]
    path = _find(
        folder, f"protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.{name}.trl.txt",
        "unpack database_protocols.tar.gz into the corpus folder",
    )  # fmt: skip
    table = read_columns(path, COLUMNS)
    is_spliced = pl.col("utt_id").str.starts_with("CON_")
    require_rows(
        path,
        table,
        {
            f"utterance id is {{utt_id!r}}, expected CON_{letter}_ or LA_{letter}_ and digits": pl.col(
                "utt_id"
            ).str.contains(rf"^(CON|LA)_{letter}_\d+$"),
            "key (column 5) is {key!r}, expected bonafide for LA_ and spoof for CON_": pl.col("key")
            == pl.when(is_spliced).then(pl.lit("spoof")).otherwise(pl.lit("bonafide")),
            "attack (column 4) is {attack!r}, expected CON for spoof and - for bonafide": pl.col("attack")
            == pl.when(is_spliced).then(pl.lit("CON")).otherwise(pl.lit("-")),
        },
    )
    require_unique(path, table, "utt_id")
    inside = path.parents[2].relative_to(folder)
    table = table.select(
        "utt_id",
        pl.format(f"{inside / name}/con_wav/{{}}.wav", "utt_id").alias("path"),
        "key",
        "speaker",
        "attack",
        pl.lit("-").alias("codec"),
    )
    labels, paths = _read_labels(path.parents[2] / "segment_labels", name, table)
    return ReleasedSet(
        name,
        table,
        (path, *paths),
        f"unpack database_{name}.tar.gz",
        segments=segment_table({utt_id: _regions(spoof) for utt_id, spoof in labels.items()}),
        labelled_samples={utt_id: FINEST_SAMPLES * len(spoof) for utt_id, spoof in labels.items()},
    )


def _read_labels(folder: Path, name: str, table: pl.DataFrame) -> tuple[dict[str, SpoofFlags], list[Path]]:
    """Read the finest labels of a set, compare them with all else that is known, and return them and their files."""
    path = folder / f"{name}_seglab_{FINEST_SECONDS:.2f}.npy"
    if not path.is_file():
        raise SpoofkitError(f"{path}: no such file; {LABELS_FROM}")
    labels = read_labels(path)
    if labels.keys() != set(table["utt_id"]):
        utt_id = min(labels.keys() ^ set(table["utt_id"]))
        raise SpoofkitError(f"{path}: {utt_id!r} is not in both these labels and the list of {name}; fetch both again")

    def of_resolution(seconds: float) -> Path | None:
        coarse = folder / f"{name}_seglab_{seconds:.2f}.npy"
        return coarse if coarse.is_file() else None

    paths, findings = compare_with_finest(labels, of_resolution, name)
    for key, others, are in (("bonafide", [k for k, v in labels.items() if v.any()], "a"),
                             ("spoof", [k for k, v in labels.items() if not v.any()], "no")):  # fmt: skip
        own = set(table.filter(pl.col("key") == key)["utt_id"])
        if wrong := [utt_id for utt_id in others if utt_id in own]:
            findings.append(f"{name}: {len(wrong):,} {key} utterances have {are} spoofed segment, first {wrong[0]}")
    for finding in findings:
        say(f"partialspoof, {finding}")
    return labels, [path, *paths]


def _regions(spoof: SpoofFlags) -> list[tuple[int, int]]:
    return [(FINEST_SAMPLES * start, FINEST_SAMPLES * end) for start, end in spoofed_runs(spoof)]


def _find(folder: Path, name: str, how: str) -> Path:
    return find_list(folder, [name, f"database/{name}"], how)
