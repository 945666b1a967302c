"""Scores of a speaker verification system (ASV) as the organisers give them, and whether they fit the trials.

    2019    ATTACK-or-bonafide target|nontarget|spoof SCORE    ASVspoof2019.LA.asv.eval.gi.trl.scores.txt
    2021    SPEAKER TRIAL SCORE                                keys/LA/ASV/ASVTorch_Kaldi/score.txt
            SPEAKER TRIAL CODEC TRANSMISSION ATTACK target|nontarget|spoof TRIM SUBSET
                                                               keys/LA/ASV/trial_metadata.txt

The two files of 2021 have one line a trial, in the same order, and the challenge's figures are those of one subset
(asvspoof-challenge/2021, eval-package/main.py). A tandem figure holds for one set of attacks, so ASV scores of other
attacks are refused.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from spoofkit.corpora.lists import read_columns, require_rows, with_scores
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text

PRESET = "asvspoof5"
PRESET_ATTACKS = frozenset(f"A{number}" for number in range(17, 33))
"""Attacks of ASVspoof 5 eval, on which the organisers' error rates were measured."""
CLASSES = ("target", "nontarget", "spoof")
KEY_COLUMNS = ("speaker", "trial", "codec", "trans", "attack", "kind", "trim", "subset")
KEYS_NAME = "trial_metadata.txt"
NO_SCORES = "this is not a file of ASV scores"


@dataclass(frozen=True)
class AsvScores:
    """Scores of each class, and the attacks among the spoofed trials."""

    target: list[float]
    nontarget: list[float]
    spoof: list[float]
    attacks: frozenset[str]


def asv_inputs(asv: str | None, asv_keys: str | None) -> list[Path]:
    """List the files that the ASV scores are read from: the scores and, for ASVspoof 2021, their keys.

    Args:
        asv: A file of scores, `asvspoof5` or None.
        asv_keys: The keys of scores of 2021. Default: the trial_metadata.txt beside them or one folder above, as in
            LA-keys-full.tar.gz.

    Raises:
        SpoofkitError: the keys are missing, or keys were given for scores that need none.
    """
    is_2021 = asv not in (None, PRESET) and _is_2021(Path(str(asv)))
    if asv_keys is not None and not is_2021:
        raise SpoofkitError(f"--asv-keys {asv_keys}: only ASV scores of 2021 (SPEAKER TRIAL SCORE) have keys; omit it")
    if asv in (None, PRESET):
        return []
    path = Path(str(asv))
    if not is_2021:
        return [path]
    if asv_keys is not None:
        return [path, Path(asv_keys)]
    for folder in (path.parent, path.absolute().parent.parent):
        if (folder / KEYS_NAME).is_file():
            return [path, folder / KEYS_NAME]
    raise SpoofkitError(
        f"{path}: has the layout of 2021 (SPEAKER TRIAL SCORE), but there is no {KEYS_NAME} beside it or one folder "
        "above; name the keys of these trials with --asv-keys"
    )


def read_asv_scores(paths: list[Path], trials: pl.DataFrame) -> AsvScores:
    """Read the scores of an ASV system.

    Args:
        paths: As `asv_inputs` returns them.
        trials: The countermeasure's trials; of the scores of 2021, those of the same `subset` are used.

    Raises:
        SpoofkitError: a line is not a score, or belongs to another trial than its key; a class is missing; or the
            scores are of 2021 and the trials have no subset.
    """
    table = _read_2019(paths[0]) if len(paths) == 1 else _read_2021(*paths)
    if "subset" in table.columns:
        if "subset" not in trials.columns:
            raise SpoofkitError(
                f"{paths[0]}: holds ASV scores of ASVspoof 2021, whose trials have a subset, but the evaluated trials "
                "have no column subset; give the ASV scores of the evaluated set"
            )
        table = table.filter(pl.col("subset").is_in(trials["subset"].unique().to_list()))
    found = {kind: table.filter(pl.col("kind") == kind)["score"].to_list() for kind in CLASSES}
    for kind, scores in found.items():
        if not scores:
            raise SpoofkitError(f"{paths[0]}: has no {kind} scores, expected {', '.join(CLASSES)}")
    attacks = frozenset(table.filter(pl.col("kind") == "spoof")["attack"].unique().to_list())
    return AsvScores(found["target"], found["nontarget"], found["spoof"], attacks)


def require_same_attacks(asv: str, attacks: frozenset[str], trials: pl.DataFrame) -> str:
    """Refuse ASV scores whose attacks are not those of the evaluated trials.

    Returns:
        A warning if one of the two does not name its attacks; otherwise an empty string.

    Raises:
        SpoofkitError: the attacks differ; the message names those that only one of the two has.
    """
    evaluated = frozenset(trials.filter(pl.col("key") == "spoof")["attack"].unique().to_list())
    if "-" in evaluated | attacks:
        return (
            f"--asv {asv}: not all spoofed trials name their attack, so it was not checked whether both have the same"
        )
    if evaluated == attacks:
        return ""
    faults = [
        f"{', '.join(sorted(only))} only {where}"
        for only, where in (
            (attacks - evaluated, "in the ASV scores"),
            (evaluated - attacks, "in the evaluated trials"),
        )
        if only
    ]
    raise SpoofkitError(
        f"--asv {asv}: its attacks differ from those of the evaluated trials ({'; '.join(faults)}), expected the same; "
        "give the ASV scores of the evaluated set"
    )


def _is_2021(path: Path) -> bool:
    first = read_text(path).partition("\n")[0].split(" ")
    return len(first) == 3 and first[1] not in CLASSES and first[0] not in ("", "bonafide")


def _read_2019(path: Path) -> pl.DataFrame:
    table = with_scores(path, read_columns(path, ("attack", "kind", "text"), conclusion=NO_SCORES), NO_SCORES)
    known = {"column 2 is {kind!r}, expected target, nontarget or spoof": pl.col("kind").is_in(CLASSES)}
    require_rows(path, table, known, conclusion=NO_SCORES)
    return table


def _read_2021(path: Path, keys_path: Path) -> pl.DataFrame:
    """Join scores and keys line by line, as the organisers do, and require the same names in both."""
    keys = read_columns(keys_path, KEY_COLUMNS)
    known = {"key (column 6) is {kind!r}, expected target, nontarget or spoof": pl.col("kind").is_in(CLASSES)}
    require_rows(keys_path, keys, known)
    columns = read_columns(path, ("asv_speaker", "asv_trial", "text"), conclusion=NO_SCORES)
    scores = with_scores(path, columns, NO_SCORES)
    if scores.height != keys.height:
        raise SpoofkitError(
            f"{path}: has {scores.height:,} scores, but {keys_path} has {keys.height:,} trials, expected one score per "
            "trial, in the same order"
        )
    table = pl.concat([scores, keys], how="horizontal")
    same = (pl.col("asv_speaker") == pl.col("speaker")) & (pl.col("asv_trial") == pl.col("trial"))
    said = f"is {{asv_speaker}} {{asv_trial}}, but the same line of {keys_path} is {{speaker}} {{trial}}"
    require_rows(path, table, {said: same}, conclusion="put both in the same order")
    return table
