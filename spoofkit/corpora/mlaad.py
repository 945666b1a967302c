"""MLAAD: what many TTS models say in many languages. It holds no bona fide speech.

Layout as released (Müller et al., "MLAAD: the multi-language audio anti-spoofing dataset", IJCNN 2024,
arXiv:2401.09512; https://huggingface.co/datasets/mueller91/MLAAD):

    fake/en/tts_models_en_ljspeech_vits/meta.csv    one list for each language and model
    fake/en/tts_models_en_ljspeech_vits/*.wav

A list is separated by `|` and has a header; the columns grew with the versions, and may differ within one:

    path|original_file|language|is_original_language|duration|training_data|model_name|architecture|transcript
    path|original_file|language|is_original_language|duration|training_data|model_name|architecture|transcript|
        reference_speaker                                                                       (one line)

`path` begins with `./fake/` or `fake/`, from the folder that holds `fake`; a name without folders is beside its list
(public readers of MLAAD know both). Transcripts may hold quotation marks that close nothing, so these are read as they
stand: a reader that obeys them swallows the rows up to the next one.

There is one set, `eval`, all of it spoof: for an error rate it needs bona fide speech, such as the M-AILABS recordings
that `original_file` names, in the same manifest. An utterance's name is `MLAAD_` and its path below `fake` with `_` for
`/`, because the models share file names; attack is `model_name`, which stands in several languages. Transcript and
duration are not taken over; whatever other columns a list has are, with `-` where another list has none. Counts differ
from version to version, so none is checked.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from spoofkit.corpora.readers import ReleasedSet, chosen_sets
from spoofkit.corpora.tables import read_table, require
from spoofkit.errors import SpoofkitError

NEEDED = ("path", "language", "model_name")
LEFT_OUT = ("duration", "transcript")
OURS = ("utt_id", "key", "speaker", "attack", "codec", "n_samples")
NOT_RELEASED = "it is not the released list, so fetch it again"


def read(folder: Path, *, sets: Sequence[str] = ()) -> list[ReleasedSet]:
    """Read the one set of the folder that holds `fake`: all languages, all models.

    Raises:
        SpoofkitError: no list is found or a model has none, a column is missing, or naming the line that is not an
            utterance.
    """
    chosen_sets(sets, ["eval"])
    lists = _find_lists(folder)
    table = pl.concat([_read_list(folder, path) for path in lists], how="diagonal")
    table = table.with_columns(pl.col(table.columns).fill_null("-"))
    again = table.filter(~pl.col("utt_id").is_first_distinct())
    if again.height:
        raise SpoofkitError(
            f"{folder / again['path'][0]}: stands in the lists twice, or is called {again['utt_id'][0]!r} as another "
            "file is, expected each file once; fetch the lists again"
        )
    return [ReleasedSet("eval", table, lists, "fetch the missing models of MLAAD again")]


def _find_lists(folder: Path) -> tuple[Path, ...]:
    models = sorted(path for path in (folder / "fake").glob("*/*") if path.is_dir())
    if not models:
        raise SpoofkitError(
            f"{folder / 'fake'}: found no folder fake/LANGUAGE/MODEL, expected MLAAD as released; name the folder that "
            "holds fake"
        )
    lists = tuple(model / "meta.csv" for model in models)
    without = [path for path in lists if not path.is_file()]
    if without:
        raise SpoofkitError(f"{without[0]}: no such file, expected one for each model; fetch that model again")
    return lists


def _read_list(folder: Path, path: Path) -> pl.DataFrame:
    table = read_table(path, "|", LEFT_OUT)
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise SpoofkitError(
            f"{path}, line 1: column {missing[0]!r} is missing, found {', '.join(table.columns)}; {NOT_RELEASED}"
        )
    table = table.rename({name: f"released_{name}" for name in OURS if name in table.columns})
    beside = path.parent.relative_to(folder).as_posix()
    name = pl.col("path").str.replace(r"^\./", "")
    below = pl.when(name.str.contains("/", literal=True)).then(name).otherwise(pl.format(f"{beside}/{{}}", name))
    is_inside = below.str.starts_with("fake/") & ~below.str.contains(r"(^|/)\.{0,2}(/|$)")
    require(path, table, "path", is_inside, "a file below ./fake/", NOT_RELEASED)
    require(path, table, "model_name", pl.col("model_name").str.strip_chars() != "", "a name", NOT_RELEASED)
    return table.select(
        pl.format("MLAAD_{}", below.str.strip_prefix("fake/").str.replace(r"\.[^./]*$", "").str.replace_all("/", "_"))
        .alias("utt_id"),
        below.alias("path"),
        pl.lit("spoof").alias("key"),
        pl.lit("-").alias("speaker"),
        pl.col("model_name").alias("attack"),
        pl.lit("-").alias("codec"),
        pl.exclude("path", "model_name"),
    )  # fmt: skip
