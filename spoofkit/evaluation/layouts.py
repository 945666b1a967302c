"""Score files and key lists in the challenges' own layouts, for scores of other toolkits and for official packages.

    layout            scores, one trial a line                 keys
    asvspoof5         filename<TAB>cm-score, with a header     ASVspoof5.{dev,eval}.track_1.tsv
    asvspoof2021_la   UTTERANCE SCORE                          keys/LA/CM/trial_metadata.txt
    asvspoof2021_df   UTTERANCE SCORE                          keys/DF/CM/trial_metadata.txt
    asvspoof2019_la   UTTERANCE ATTACK KEY SCORE, or as 2021   ASVspoof2019.LA.cm.{dev.trl,eval.trl}.txt

Ids may end in .wav or .flac, lines in CRLF. Keys inside a score file must agree with the list's. The layout asvspoof5
is what `score` writes (`spoofkit.evaluation.scores`). The columns of a list are defined by its module in
`spoofkit.corpora`.
"""

from pathlib import Path

import polars as pl

from spoofkit.corpora import asvspoof5, asvspoof2019, asvspoof2021
from spoofkit.corpora.lists import read_columns, require_rows, require_unique, with_scores
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.scores import number_texts, read_scores, scores_text
from spoofkit.files import read_text

KEY_COLUMNS = {
    "asvspoof5": asvspoof5.COLUMNS,
    "asvspoof2021_la": asvspoof2021.LA_COLUMNS,
    "asvspoof2021_df": asvspoof2021.DF_COLUMNS,
    "asvspoof2019_la": asvspoof2019.COLUMNS,
}
LAYOUTS = tuple(KEY_COLUMNS)
WITH_KEYS = ("asvspoof2019_la",)
"""Layouts whose score files also hold the keys."""
NO_SCORES = "this is not a score file of this layout"
SUBSETS = ("eval", "progress", "hidden", "all")
SUFFIX = r"\.(wav|flac)$"


def require_layout(layout: str) -> None:
    """Refuse an unknown layout.

    Raises:
        SpoofkitError: it is not in LAYOUTS.
    """
    if layout not in LAYOUTS:
        raise SpoofkitError(f"--layout {layout}: unknown, expected one of {', '.join(LAYOUTS)}")


def has_subsets(layout: str | None) -> bool:
    """Return whether the lists of a layout divide their trials into SUBSETS."""
    return layout in KEY_COLUMNS and "subset" in KEY_COLUMNS[layout]


def read_layout_scores(path: Path, layout: str, keys: pl.DataFrame) -> pl.DataFrame:
    """Read a score file.

    Args:
        path: The file.
        layout: One of LAYOUTS.
        keys: `utt_id`, `key` and `attack` of the trials; labels inside the file must agree with them.

    Returns:
        Columns `utt_id` and `score`.

    Raises:
        SpoofkitError: a line is not a score, or contradicts the keys.
    """
    require_layout(layout)
    if layout == "asvspoof5":
        return _without_suffix(read_scores(path))
    first = read_text(path).partition("\n")[0].strip()
    n_columns = first.count(" ") + 1
    with_keys = layout == "asvspoof2019_la" and n_columns == 4
    if not with_keys and n_columns != 2:
        expected = "UTTERANCE SCORE" + (" or UTTERANCE ATTACK KEY SCORE" if layout == "asvspoof2019_la" else "")
        raise SpoofkitError(
            f"{path}, line 1: found {n_columns} columns separated by spaces, expected {expected}; name its --layout"
        )
    columns = ("utt_id", "attack", "key", "text") if with_keys else ("utt_id", "text")
    table = _without_suffix(read_columns(path, columns, conclusion=NO_SCORES))
    table = with_scores(path, table, NO_SCORES)
    require_unique(path, table, "utt_id", conclusion=NO_SCORES)
    if with_keys:
        both = table.join(keys.select("utt_id", true_key="key"), on="utt_id", how="left", maintain_order="left")
        agrees = pl.col("true_key").is_null() | (pl.col("key") == pl.col("true_key"))  # unknown ids are refused later
        require_rows(
            path, both, {"key of {utt_id!r} is {key!r}, the list says {true_key!r}": agrees}, conclusion=NO_SCORES
        )
    return table.select("utt_id", "score")


def read_layout_keys(path: Path, layout: str, subset: str = "eval") -> pl.DataFrame:
    """Read a list of keys.

    Args:
        path: The list as released.
        layout: One of LAYOUTS.
        subset: Subset of the lists of 2021: `eval`, `progress`, `hidden` or `all`.

    Returns:
        `utt_id`, `key`, `speaker`, `attack`, `codec` and the list's other columns.

    Raises:
        SpoofkitError: a line is not a trial of this layout, or the subset is unknown or empty.
    """
    require_layout(layout)
    table = read_columns(path, KEY_COLUMNS[layout])
    require_rows(
        path, table, {"key is {key!r}, expected bonafide or spoof": pl.col("key").is_in(["bonafide", "spoof"])}
    )
    require_unique(path, table, "utt_id")
    if subset not in SUBSETS:
        raise SpoofkitError(f"--subset {subset}: expected one of {', '.join(SUBSETS)}")
    if "subset" in table.columns and subset != "all":
        table = table.filter(pl.col("subset") == subset)
        if not table.height:
            raise SpoofkitError(f"{path}: holds no trial of subset {subset!r}; choose another with --subset")
    codec = pl.col("codec").replace(["none", "nocodec"], "-") if "codec" in table.columns else pl.lit("-")
    return table.with_columns(codec.alias("codec"), pl.col("attack").replace("bonafide", "-"))


def layout_text(path: Path, layout: str, trials: pl.DataFrame) -> str:
    """Format scores as a challenge's own evaluation package reads them.

    Args:
        path: The file to be written, for error messages.
        layout: One of LAYOUTS.
        trials: `utt_id`, `score`, and for asvspoof2019_la `key` and `attack`.

    Raises:
        SpoofkitError: the layout is unknown, a score is not finite, or a name contains a space and the layout separates
            columns by spaces.
    """
    require_layout(layout)
    if layout == "asvspoof5":
        return scores_text(path, trials["utt_id"].to_list(), trials["score"].to_numpy())
    for name in ("utt_id", "attack"):
        spaced = trials.filter(pl.col(name).str.contains(r"\s")) if name in trials.columns else trials.clear()
        if spaced.height:
            raise SpoofkitError(
                f"{path}: {name} {spaced[name][0]!r} contains a space, which separates columns in {layout}"
            )
    score = pl.Series("score", number_texts(trials["score"].to_numpy()))
    columns = [trials["utt_id"], score]
    if layout in WITH_KEYS:
        columns = [trials["utt_id"], trials["attack"], trials["key"], score]
    lines = pl.DataFrame(columns).select(pl.concat_str(pl.all(), separator=" ")).to_series()
    return "\n".join(lines) + "\n"


def _without_suffix(table: pl.DataFrame) -> pl.DataFrame:
    """Remove .wav or .flac from the ids if all of them end so."""
    if table["utt_id"].str.contains(SUFFIX).all():
        return table.with_columns(pl.col("utt_id").str.replace(SUFFIX, ""))
    return table
