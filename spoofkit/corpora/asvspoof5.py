"""ASVspoof 5: track 1, and the countermeasure's part of track 2.

Layout as released (README of the ASVspoof 5 database, 2024):

    ASVspoof5.train.tsv              182,357 utterances   flac_T/T_0000000000.flac
    ASVspoof5.dev.track_1.tsv        140,950 utterances   flac_D/D_0000000001.flac
    ASVspoof5.eval.track_1.tsv       680,774 utterances   flac_E_eval/E_0009538969.flac
    ASVspoof5.dev.track_2.trial.tsv  282,456 ASV trials of the utterances of dev
    ASVspoof5.eval.track_2.trial.tsv 834,536 ASV trials of the utterances of eval

The lists of track 1 have no header and ten columns separated by single spaces (its README says "FIVE", and the names
say tsv):

    SPEAKER FILE GENDER CODEC CODEC_Q CODEC_SEED ATTACK_TAG ATTACK_LABEL KEY TMP
    E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -
    T_3734 T_0000000011 F - - - - bonafide bonafide -

ATTACK_LABEL is the attack (A01-A08 train, A09-A16 dev, A17-A32 eval); ATTACK_TAG (AC1-AC3) is the attacker's
adaptation condition, not the attack. CODEC_Q of an uncoded utterance is `0` in eval and `-` in train.

A list of track 2 has five columns, TARGET_SPEAKER FILE GENDER ATTACK_LABEL ASV_KEY, with ASV_KEY one of target,
nontarget and spoof; an utterance stands in several trials, with different target speakers. To a countermeasure an
utterance is bona fide or spoofed whoever it claims to be: `dev_track2` and `eval_track2` hold each utterance once, with
what track 1's list says of it.

The protocols unpack beside the flac folders or into a folder `ASVspoof5_protocols`; both are found. Counts: Wang et
al., "ASVspoof 5: design, collection and validation" and the released README; https://www.asvspoof.org.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from spoofkit.corpora.lists import find_list, read_columns, require_rows, require_unique
from spoofkit.corpora.readers import ReleasedSet, chosen_sets

COLUMNS = (
    "speaker", "utt_id", "gender", "codec", "codec_q", "codec_seed", "attack_tag", "attack", "key", "reserved",
)  # fmt: skip
TRIAL_COLUMNS = ("target_speaker", "utt_id", "gender", "attack", "asv_key")
FOLDERS = {"T": "flac_T", "D": "flac_D", "E": "flac_E_eval"}
LISTS = {
    "train": ("ASVspoof5.train.tsv", "T"),
    "dev": ("ASVspoof5.dev.track_1.tsv", "D"),
    "eval": ("ASVspoof5.eval.track_1.tsv", "E"),
}
TRIALS = {
    "dev_track2": ("ASVspoof5.dev.track_2.trial.tsv", "dev"),
    "eval_track2": ("ASVspoof5.eval.track_2.trial.tsv", "eval"),
}
UNPACK = "unpack ASVspoof5_protocols.tar.gz into the corpus folder, or name the sets that you have with --sets"


def read(folder: Path, *, sets: Sequence[str] = ()) -> list[ReleasedSet]:
    """Read the sets of a folder laid out as released: those of track 1, and others on request.

    Raises:
        SpoofkitError: a list is missing, or naming the line that is not a trial of its set.
    """
    names = chosen_sets(sets, [*LISTS, *TRIALS]) if sets else list(LISTS)
    return [_read_track_1(folder, name) if name in LISTS else _read_track_2(folder, name) for name in names]


def _read_track_1(folder: Path, name: str) -> ReleasedSet:
    path, letter = _find(folder, LISTS[name][0]), LISTS[name][1]
    table = read_columns(path, COLUMNS)
    require_rows(
        path,
        table,
        {
            f"utterance id is {{utt_id!r}}, expected {letter}_ and digits": pl.col("utt_id").str.contains(
                rf"^{letter}_[0-9]+$"
            ),
            "key (column 9) is {key!r}, expected bonafide or spoof": pl.col("key").is_in(["bonafide", "spoof"]),
            "attack (column 8) is {attack!r} where the key is {key!r}": (pl.col("attack") == "bonafide")
            == (pl.col("key") == "bonafide"),
        },
    )
    require_unique(path, table, "utt_id")
    table = table.select(
        "utt_id",
        pl.format(FOLDERS[letter] + "/{}.flac", "utt_id").alias("path"),
        "key",
        "speaker",
        pl.col("attack").replace("bonafide", "-"),
        "codec",
        "gender",
        "codec_q",
        "codec_seed",
        "attack_tag",
    )
    return ReleasedSet(name, table, (path,), f"unpack all {FOLDERS[letter]}_*.tar".replace("_eval_", "_"))


def _read_track_2(folder: Path, name: str) -> ReleasedSet:
    trial_list, set_name = TRIALS[name]
    path, whole = _find(folder, trial_list), _read_track_1(folder, set_name)
    trials = read_columns(path, TRIAL_COLUMNS).with_columns(pl.col("attack").replace("bonafide", "-"))
    known = whole.table.select("utt_id", "key", in_track_1="attack")
    trials = trials.join(known, on="utt_id", how="left", maintain_order="left")
    track_1 = whole.lists[0].name
    require_rows(
        path,
        trials,
        {
            "ASV key (column 5) is {asv_key!r}, expected target, nontarget or spoof": pl.col("asv_key").is_in(
                ["target", "nontarget", "spoof"]
            ),
            f"utterance {{utt_id!r}} is not in {track_1}": pl.col("key").is_not_null(),
            f"ASV key (column 5) is {{asv_key!r}} and {track_1} says {{key}}": (pl.col("asv_key") == "spoof")
            == (pl.col("key") == "spoof"),
            f"attack (column 4) is {{attack!r}} and {{in_track_1!r}} in {track_1}": pl.col("attack")
            == pl.col("in_track_1"),
        },
    )
    per_utterance = trials.group_by("utt_id").agg(n_trials=pl.len().cast(pl.Utf8))
    table = whole.table.join(per_utterance, on="utt_id", how="inner", maintain_order="left")
    counted = trials.select("utt_id", line=pl.lit("trials"))
    return ReleasedSet(name, table, (path, *whole.lists), whole.audio_from, counted)


def _find(folder: Path, name: str) -> Path:
    return find_list(folder, [name, f"ASVspoof5_protocols/{name}"], UNPACK)
