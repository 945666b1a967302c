"""ASVspoof 2021: logical access (LA) and speech deepfake (DF); evaluation sets only, to be trained for on 2019 LA.

Layout as released: audio and keys are archives of their own, and the corpus is the folder into which both are unpacked:

    ASVspoof2021_LA_eval/flac/LA_E_9332881.flac …     ASVspoof2021_LA_eval.tar.gz
    keys/LA/CM/trial_metadata.txt                     LA-keys-full.tar.gz           181,566 trials
    ASVspoof2021_DF_eval/flac/DF_E_2000011.flac …     ASVspoof2021_DF_eval_part00.tar.gz … part03.tar.gz
    keys/DF/CM/trial_metadata.txt                     DF-keys-full.tar.gz           611,829 trials

The list of trials among the audio (ASVspoof2021.LA.cm.eval.trl.txt) holds ids only. The keys are found as well in a
folder named as their archive, and beside the audio. They have no header, and columns separated by single spaces:

    LA, 8     SPEAKER FILE CODEC TRANS ATTACK KEY TRIM SUBSET
              LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval
    DF, 13    SPEAKER FILE CODEC SOURCE ATTACK KEY TRIM SUBSET VOCODER TASK TEAM GENDER_PAIR LANGUAGE
              TEF2 DF_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval neural_vocoder_… Task1 team20 FF E

In both the key is column 6, not the last. The attack of bona fide speech is `bonafide` in LA and `-` in DF. Subsets are
eval, progress and hidden (of which the speech pauses are cut away); published results are those of `eval` alone, which
is the default here. TRANS is the way it was transmitted (ita_tx: between France and Italy …). Uncoded speech (`none` in
LA, `nocodec` in DF) becomes `-`, as in ASVspoof 5.

The third track, physical access (PA; 12 columns), is replayed speech and is refused.

Columns, codecs, sources and vocoders: https://github.com/asvspoof-challenge/2021, eval-package/README.md; Liu et al.,
"ASVspoof 2021: towards spoofed and deepfake speech detection in the wild", IEEE/ACM TASLP 31 (2023), arXiv:2210.02437.
Counts per class: those of the packaged lists, https://huggingface.co/datasets/SpeechAntiSpoofingBenchmarks. Counts per
codec and attack and the values of TRANS and TRIM are not checked: no list of them was found.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from spoofkit.corpora.lists import find_list, read_columns, require_rows, require_unique
from spoofkit.corpora.readers import ReleasedSet, chosen_sets
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text

SUBSETS = ("eval", "progress", "hidden")
LA_COLUMNS = ("speaker", "utt_id", "codec", "trans", "attack", "key", "trim", "subset")
DF_COLUMNS = (
    "speaker", "utt_id", "codec", "source", "attack", "key", "trim", "subset", "vocoder", "task", "team", "gender_pair",
    "language",
)  # fmt: skip
N_COLUMNS_PA = 12


def read_la(folder: Path, *, sets: Sequence[str] = (), subset: str = "eval") -> list[ReleasedSet]:
    """Read the evaluation set of LA, or a subset of it: `eval`, `progress`, `hidden` or `all`.

    Raises:
        SpoofkitError: the keys are missing or another track's, or naming the line that is not a trial.
    """
    chosen_sets(sets, ["eval"])
    return _read(folder, subset, "LA", LA_COLUMNS, "unpack ASVspoof2021_LA_eval.tar.gz")


def read_df(folder: Path, *, sets: Sequence[str] = (), subset: str = "eval") -> list[ReleasedSet]:
    """Read the evaluation set of DF, or a subset of it: `eval`, `progress`, `hidden` or `all`.

    Raises:
        SpoofkitError: as `read_la`.
    """
    chosen_sets(sets, ["eval"])
    return _read(folder, subset, "DF", DF_COLUMNS, "unpack all four ASVspoof2021_DF_eval_part*.tar.gz into it")


def _read(folder: Path, subset: str, track: str, columns: tuple[str, ...], audio_from: str) -> list[ReleasedSet]:
    if subset not in (*SUBSETS, "all"):
        raise SpoofkitError(f"--subset: {subset!r} is none, expected {', '.join(SUBSETS)} or all")
    path = _find_keys(folder, track)
    try:
        table = read_columns(path, columns)
    except SpoofkitError:
        _refuse_pa(path, track)
        raise
    is_bonafide = pl.col("key") == "bonafide"
    require_rows(
        path,
        table,
        {
            f"utterance id is {{utt_id!r}}, expected {track}_E_ and digits": pl.col("utt_id").str.contains(
                rf"^{track}_E_[0-9]+$"
            ),
            "key (column 6) is {key!r}, expected bonafide or spoof": pl.col("key").is_in(["bonafide", "spoof"]),
            "attack (column 5) is {attack!r} where the key is {key!r}": pl.col("attack").is_in(["bonafide", "-"])
            == is_bonafide,
            f"subset (column 8) is {{subset!r}}, expected {', '.join(SUBSETS)}": pl.col("subset").is_in(SUBSETS),
        },
    )
    require_unique(path, table, "utt_id")
    whole = table.select(
        "utt_id",
        pl.format(f"ASVspoof2021_{track}_eval/flac/{{}}.flac", "utt_id").alias("path"),
        "key",
        "speaker",
        pl.col("attack").replace("bonafide", "-"),
        pl.col("codec").replace(["none", "nocodec"], "-"),
        *(name for name in columns if name not in ("speaker", "utt_id", "codec", "attack", "key")),
    )
    chosen = whole if subset == "all" else whole.filter(pl.col("subset") == subset)
    if not chosen.height:
        raise SpoofkitError(f"{path}: holds no trial of subset {subset!r}; choose another with --subset")
    # Counts are published of the whole list, and by class of the subset that results are published of.
    counted = whole.with_columns(
        pl.when(pl.col("subset") == "eval").then(pl.col("key")).otherwise(pl.lit("-")).alias("key in eval")
    )
    return [ReleasedSet("eval", chosen, (path,), audio_from, counted=counted)]


def _find_keys(folder: Path, track: str) -> Path:
    try:
        return find_list(folder, _places(track), _layout(track))
    except SpoofkitError:
        for place in _places("PA"):
            if (folder / place).is_file():
                _refuse_pa(folder / place, track)
        raise


def _refuse_pa(path: Path, track: str) -> None:
    """Say so if a list that cannot be used is that of the third track."""
    first_line = read_text(path).partition("\n")[0].split(" ")
    if len(first_line) == N_COLUMNS_PA and first_line[1].startswith("PA_"):
        raise SpoofkitError(
            f"{path}: is the list of track PA (physical access, {N_COLUMNS_PA} columns), which is not read; "
            f"{_layout(track)}"
        ) from None


def _layout(track: str) -> str:
    return f"expected the folder that holds ASVspoof2021_{track}_eval, with {track}-keys-full.tar.gz unpacked beside it"


def _places(track: str) -> list[str]:
    within_keys, audio = f"{track}/CM/trial_metadata.txt", f"ASVspoof2021_{track}_eval"
    return [
        f"keys/{within_keys}",
        within_keys,
        f"{track}-keys-full/keys/{within_keys}",
        f"{audio}/keys/{within_keys}",
        f"{audio}/trial_metadata.txt",
    ]
