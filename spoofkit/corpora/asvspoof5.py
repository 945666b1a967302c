"""ASVspoof 5, track 1: the released protocols become manifests.

Layout as released (README of the ASVspoof 5 database, 2024):

    ASVspoof5.train.tsv         182,357 utterances   flac_T/T_0000000000.flac
    ASVspoof5.dev.track_1.tsv   140,950 utterances   flac_D/D_0000000001.flac
    ASVspoof5.eval.track_1.tsv  680,774 utterances   flac_E_eval/E_0009538969.flac

The lists have no header and ten columns separated by single spaces (its README says "FIVE", and the names say tsv):

    SPEAKER FILE GENDER CODEC CODEC_Q CODEC_SEED ATTACK_TAG ATTACK_LABEL KEY TMP
    E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -
    T_3734 T_0000000011 F - - - - bonafide bonafide -

ATTACK_LABEL is the attack (A01-A08 train, A09-A16 dev, A17-A32 eval); ATTACK_TAG (AC1-AC3) is the attacker's
adaptation condition, not the attack. The protocols unpack beside the flac folders or into a folder
`ASVspoof5_protocols`; both are found. Counts: Wang et al., "ASVspoof 5: design, collection and validation" and the
released README; https://www.asvspoof.org.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from spoofkit.data import audio
from spoofkit.data.manifest import UNKNOWN_LENGTH, read_made_from, write_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, is_up_to_date, read_text, refuse_existing

PROTOCOL_COLUMNS = (
    "speaker", "utt_id", "gender", "codec", "codec_q", "codec_seed", "attack_tag", "attack", "key", "reserved",
)  # fmt: skip


@dataclass(frozen=True)
class ReleasedSet:
    """One set as released: its list, its audio folder, and the counts that must hold."""

    protocol: str
    folder: str
    id_prefix: str
    n_bonafide: int
    n_spoof: int


SETS = {
    "train": ReleasedSet("ASVspoof5.train.tsv", "flac_T", "T_", 18_797, 163_560),
    "dev": ReleasedSet("ASVspoof5.dev.track_1.tsv", "flac_D", "D_", 31_334, 109_616),
    "eval": ReleasedSet("ASVspoof5.eval.track_1.tsv", "flac_E_eval", "E_", 138_688, 542_086),
}


@dataclass(frozen=True)
class Prepared:
    """What became of one set."""

    name: str
    path: Path
    n_bonafide: int
    n_spoof: int
    partial: str
    kept: bool
    """Whether an up-to-date manifest was there already."""


def prepare(
    corpus: Path,
    out: Path,
    *,
    partial: bool = False,
    headers: bool = True,
    overwrite: bool = False,
    reuse: bool = False,
) -> list[Prepared]:
    """Write `out`/{train,dev,eval}.tsv from a corpus folder laid out as released.

    Args:
        corpus: Folder that holds the three flac folders and the protocols.
        out: Folder for the manifests.
        partial: Accept other counts than the published ones; the manifest then says so.
        headers: Read each file's header for its length; otherwise `n_samples` is unknown.
        overwrite: Replace existing manifests.
        reuse: Keep manifests that were made from the same protocols.

    Raises:
        SpoofkitError: a list or file is missing, a line is malformed, a count is not the published one.
    """
    if not corpus.is_dir():
        raise SpoofkitError(
            f"{corpus}: no such folder, expected ASVspoof 5 as released (flac_T, "
            "flac_D, flac_E_eval and the ASVspoof5.*.tsv lists)"
        )
    protocols = {name: _find_protocol(corpus, released) for name, released in SETS.items()}
    # All three lists are checked before the first of a million headers is read.
    tables, parts, kept = {}, {}, {}
    for name, released in SETS.items():
        tables[name] = read_protocol(protocols[name], released)
        parts[name] = _check_counts(tables[name], released, protocols[name], partial)
        made_from = _made_from(corpus, protocols[name], partial, headers)
        kept[name] = is_up_to_date(out / f"{name}.tsv", made_from, read_made_from, reuse)
        if not kept[name]:
            refuse_existing(out / f"{name}.tsv", overwrite)
    results = []
    for name, table in tables.items():
        path = out / f"{name}.tsv"
        if not kept[name]:
            measured = _read_lengths(table, corpus, name) if headers else table
            made_from = _made_from(corpus, protocols[name], partial, headers)
            write_manifest(
                path, corpus.resolve(), measured, made_from=made_from, partial=parts[name], overwrite=overwrite
            )
        keys = Counter(table["key"])
        results.append(Prepared(name, path, keys["bonafide"], keys["spoof"], parts[name], kept[name]))
    return results


def _made_from(corpus: Path, protocol: Path, partial: bool, headers: bool) -> dict[str, Any]:
    return {
        "corpus": "asvspoof5",
        "root": str(corpus.resolve()),
        "protocol": file_sha256(protocol),
        "partial": partial,
        "headers": headers,
    }


def read_protocol(path: Path, released: ReleasedSet) -> pl.DataFrame:
    """Read a released list into the manifest's columns, lengths unknown.

    Raises:
        SpoofkitError: naming the line that is not a trial of this set.
    """
    lines = read_text(path).splitlines()
    if not lines:
        raise SpoofkitError(
            f"{path}: is empty, expected {released.n_bonafide + released.n_spoof:,} trials; unpack "
            "ASVspoof5_protocols.tar.gz again"
        )
    rows = [line.split(" ") for line in lines]
    first_seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        problem = _row_problem(row, released)
        if not problem and first_seen.setdefault(row[1], number) != number:
            problem = f"utterance id {row[1]!r} stood in line {first_seen[row[1]]} already"
        if problem:
            raise SpoofkitError(
                f"{path}, line {number}: {problem}; expected the released list, one trial a line and no header"
            )
    table = pl.DataFrame(rows, schema=dict.fromkeys(PROTOCOL_COLUMNS, pl.Utf8), orient="row")
    return table.select(
        "utt_id",
        (pl.lit(f"{released.folder}/") + pl.col("utt_id") + pl.lit(".flac")).alias("path"),
        "key",
        "speaker",
        pl.when(pl.col("key") == "bonafide").then(pl.lit("-")).otherwise(pl.col("attack")).alias("attack"),
        "codec",
        pl.lit(UNKNOWN_LENGTH).alias("n_samples"),
        "gender",
        "codec_q",
        "codec_seed",
        "attack_tag",
    )


def _row_problem(row: list[str], released: ReleasedSet) -> str:
    if row == [""]:
        return "is blank"
    if len(row) != len(PROTOCOL_COLUMNS):
        return f"found {len(row)} columns separated by spaces, expected {len(PROTOCOL_COLUMNS)}"
    utt_id, attack, key = row[1], row[7], row[8]
    if not utt_id.startswith(released.id_prefix) or not utt_id[2:].isdigit():
        return f"utterance id is {utt_id!r}, expected {released.id_prefix} and digits"
    if key not in ("bonafide", "spoof"):
        return f"key (column 9) is {key!r}, expected bonafide or spoof"
    if (attack == "bonafide") != (key == "bonafide"):
        return f"attack (column 8) is {attack!r} where the key is {key!r}"
    return ""


def _find_protocol(corpus: Path, released: ReleasedSet) -> Path:
    places = [corpus / released.protocol, corpus / "ASVspoof5_protocols" / released.protocol]
    for place in places:
        if place.is_file():
            return place
    raise SpoofkitError(
        f"{places[0]}: no such file, nor in ASVspoof5_protocols; "
        "unpack ASVspoof5_protocols.tar.gz into the corpus folder"
    )


def _check_counts(table: pl.DataFrame, released: ReleasedSet, protocol: Path, partial: bool) -> str:
    keys = Counter(table["key"])
    found, expected = (keys["bonafide"], keys["spoof"]), (released.n_bonafide, released.n_spoof)
    if found == expected:
        return ""
    difference = f"{found[0]:,} bona fide + {found[1]:,} spoof, published are {expected[0]:,} + {expected[1]:,}"
    if not partial:
        raise SpoofkitError(
            f"{protocol}: found {difference}; "
            "fetch the protocols again, or pass --partial to work on a subset knowingly"
        )
    return difference


def _read_lengths(table: pl.DataFrame, corpus: Path, name: str) -> pl.DataFrame:
    paths = [corpus / path for path in table["path"]]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = ", ".join(path.name for path in islice(missing, 5))
        raise SpoofkitError(
            f"{corpus}: {len(missing):,} of the {len(paths):,} audio files of {name} are missing, first {names}; "
            f"unpack all {paths[0].parent.name}_*.tar"
        )
    # Threads: libsndfile works outside Python's lock, and on a network disk waiting is all there is.
    with ThreadPoolExecutor(max_workers=16) as pool:
        progress = tqdm(pool.map(audio.probe, paths), total=len(paths), desc=f"headers of {name}", unit="file")
        lengths = [info.n_samples for info in progress]
    return table.with_columns(pl.Series("n_samples", lengths, dtype=pl.Int64))
