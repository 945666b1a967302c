"""Spoofing-aware speaker verification (ASVspoof 5, track 2): a system that also says who speaks; a-DCF and the rest.

A trial is a claimed speaker and an utterance: `target`, `nontarget` (bona fide speech of somebody else) or `spoof`.
Scores are the evaluation package's: a table with header and tabs, `spk filename cm-score asv-score sasv-score` (without
`spk` where an utterance stands once), and `-` in the columns of a system that has one score only. Keys are its
`spk filename cm-label asv-label`, or the list as released: TARGET_SPEAKER FILE GENDER ATTACK_LABEL ASV_KEY.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.corpora.asvspoof5 import TRIAL_COLUMNS
from spoofkit.corpora.lists import read_columns, require_rows
from spoofkit.data.manifest import KEYS
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import eer
from spoofkit.evaluation.tandem import ASVSPOOF, ASVSPOOF5_ASV, TandemCosts, concurrent_teer, min_adcf, min_tdcf_2021
from spoofkit.files import file_sha256, read_text

CLASSES = ("target", "nontarget", "spoof")
SYSTEMS = ("cm", "asv", "sasv")
N_NAMED = 5


def evaluate_sasv(scores_path: Path, keys_path: Path, costs: TandemCosts = ASVSPOOF) -> dict[str, Any]:
    """Compute the figures of ASVspoof 5, track 2, as plain JSON values.

    Of the sasv-score the minimum a-DCF and two EERs (targets against nontargets, and against spoofs); where cm-score
    and asv-score are there, the minimum t-DCF of the countermeasure beside the organisers' ASV system, as the
    evaluation package takes it, and the concurrent t-EER of both.

    Args:
        scores_path: The score file.
        keys_path: The keys of exactly the same trials.
        costs: Priors and costs of a-DCF and t-DCF.

    Raises:
        SpoofkitError: a file is no such table, a trial stands twice or in one file only, a class is missing, a score
            is not a finite number, or a column holds scores in some rows and `-` in others.
    """
    trials = join_trials(scores_path, keys_path)
    by_class = {kind: trials.filter(pl.col("kind") == kind) for kind in CLASSES}
    for kind, part in by_class.items():
        if not part.height:
            raise SpoofkitError(f"{keys_path}: holds no {kind} trial, expected all of {', '.join(CLASSES)}")
    sasv = {kind: part["sasv"].to_numpy() for kind, part in by_class.items()}
    result: dict[str, Any] = {
        "min_adcf": min_adcf(sasv["target"], sasv["nontarget"], sasv["spoof"], costs),
        "sv_eer_official_percent": 100 * eer(sasv["target"], sasv["nontarget"]).eer,
        "spf_eer_official_percent": 100 * eer(sasv["target"], sasv["spoof"]).eer,
        "min_tdcf_2021": None,
        "teer_percent": None,
        "n_trials": trials.height,
        **{f"n_{kind}": part.height for kind, part in by_class.items()},
        "costs": asdict(costs),
        "scores_sha256": file_sha256(scores_path),
        "keys_sha256": file_sha256(keys_path),
    }
    if trials["cm"].null_count() or trials["asv"].null_count():
        return result
    bonafide, spoof = _cm_scores(by_class)
    asv = [by_class[kind]["asv"].to_numpy() for kind in CLASSES]
    result["min_tdcf_2021"] = min_tdcf_2021(bonafide, spoof, ASVSPOOF5_ASV, costs)
    result["teer_percent"] = 100 * concurrent_teer(bonafide, spoof, *asv)
    return result


def describe_sasv(result: dict[str, Any]) -> list[str]:
    """Format the figures as lines for a terminal."""
    lines = [
        f"min a-DCF {result['min_adcf']:.6f}",
        f"EER of the sasv-score: {result['sv_eer_official_percent']:.3f} % against nontargets, "
        f"{result['spf_eer_official_percent']:.3f} % against spoofs (official)",
        "min t-DCF and t-EER: not without cm-score and asv-score"
        if result["min_tdcf_2021"] is None
        else f"min t-DCF {result['min_tdcf_2021']:.6f} (version of 2021 and 5, the organisers' ASV)   concurrent t-EER "
        f"{result['teer_percent']:.3f} %",
    ]
    counts = ", ".join(f"{result[f'n_{kind}']:,} {kind}" for kind in CLASSES)
    return [*lines, f"{result['n_trials']:,} trials: {counts}"]


def join_trials(scores_path: Path, keys_path: Path) -> pl.DataFrame:
    """Join scores with their keys.

    Returns:
        `trial` (the claimed speaker and the utterance, or the utterance), `kind` (one of CLASSES), and `cm`, `asv`,
        `sasv` (float64; `cm` and `asv` null throughout where the file says `-`).

    Raises:
        SpoofkitError: see `evaluate_sasv`.
    """
    keys, scores = _read_keys(keys_path), _read_scores(scores_path)
    if "spk" not in scores.columns and keys["filename"].n_unique() == keys.height:
        keys = keys.select(pl.exclude("spk"))  # an utterance stands once, so it is the trial
    on = [name for name in ("spk", "filename") if name in scores.columns]
    if [name for name in on if name not in keys.columns] or ("spk" in keys.columns and "spk" not in on):
        lacking = keys_path if "spk" in on else scores_path
        raise SpoofkitError(
            f"{lacking}: has no column spk, expected it as in the other file: an utterance stands in trials of several "
            "speakers; add the claimed speaker"
        )
    for path, table in ((scores_path, scores), (keys_path, keys)):
        twice = table.select(on).filter(table.select(on).is_duplicated()).unique(maintain_order=True)
        if twice.height:
            raise SpoofkitError(f"{path}: trials stand more than once: {_named(twice, on)}; keep one row of each")
    faults = [
        f"{said} {_named(rest, on)}"
        for said, rest in (
            ("no score for", keys.join(scores, on=on, how="anti", maintain_order="left")),
            ("not in the keys are", scores.join(keys, on=on, how="anti", maintain_order="left")),
        )
        if rest.height
    ]
    if faults:
        raise SpoofkitError(
            f"{scores_path}: {scores.height:,} scores do not fit the {keys.height:,} trials of {keys_path}: "
            f"{'; '.join(faults)}; expected exactly one for each trial"
        )
    joined = keys.join(scores, on=on, how="left", maintain_order="left")
    return joined.select(pl.concat_str(on, separator=" ").alias("trial"), "kind", *SYSTEMS)


def _read_scores(path: Path) -> pl.DataFrame:
    table, names = _read_table(path)
    expected = ["filename", *(f"{system}-score" for system in SYSTEMS)]
    if names not in (expected, ["spk", *expected]):
        raise SpoofkitError(
            f"{path}: line 1 holds {', '.join(names)}, expected {', '.join(expected)} with tabs between, and spk "
            "before them where a speaker is claimed; a file of track 2 has them"
        )
    # Not strict: polars would raise without the line; what is no number becomes null, and is refused below.
    numbers = {system: table[f"{system}-score"].cast(pl.Float64, strict=False) for system in SYSTEMS}
    for system, values in numbers.items():
        text = table[f"{system}-score"]
        if system != "sasv" and (text == "-").all():
            continue
        bad = (values.is_null() | ~values.is_finite()).fill_null(True)
        if bad.any():
            line = int(bad.arg_max() or 0)
            dashes = "" if system == "sasv" else ", or - in every row"
            raise SpoofkitError(
                f"{path}, line {line + 2}: {system}-score is {text[line]!r}, expected a finite number{dashes}; score "
                "this trial again"
            )
    return table.drop(expected[1:]).with_columns(**numbers)


def _read_keys(path: Path) -> pl.DataFrame:
    """Read `filename`, `kind`, and `spk` if the list has it."""
    if "\t" in read_text(path).partition("\n")[0]:
        table, names = _read_table(path)
        expected = ["filename", "cm-label", "asv-label"]
        if names not in (expected, ["spk", *expected]):
            raise SpoofkitError(
                f"{path}: line 1 holds {', '.join(names)}, expected {', '.join(expected)}, and spk before them where a "
                "speaker is claimed; a key file of track 2 has them"
            )
        first_line, table = 2, table.rename({"asv-label": "kind"})
        agrees = (pl.col("cm-label") == "spoof") == (pl.col("kind") == "spoof")
        rules = {
            "cm-label is {cm-label!r}, expected bonafide or spoof": pl.col("cm-label").is_in(KEYS),
            "cm-label {cm-label!r} contradicts asv-label {kind!r}": agrees,
        }
    else:
        first_line, table = 1, read_columns(path, TRIAL_COLUMNS)
        table = table.rename({TRIAL_COLUMNS[0]: "spk", TRIAL_COLUMNS[1]: "filename", TRIAL_COLUMNS[-1]: "kind"})
        agrees = (pl.col("attack") != "bonafide") == (pl.col("kind") == "spoof")
        rules = {"attack {attack!r} contradicts the key {kind!r}": agrees}
    known = {"the key is {kind!r}, expected target, nontarget or spoof": pl.col("kind").is_in(CLASSES)}
    named = {"holds no utterance": pl.col("filename") != ""}
    require_rows(path, table, named | known | rules, first_line, conclusion="fix the line")
    return table.select([name for name in ("spk", "filename", "kind") if name in table.columns])


def _read_table(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """Read a tab-separated table whose first line names its columns; all text."""
    names = read_text(path).partition("\n")[0].removeprefix("\ufeff").split("\t")
    if len(set(names)) < len(names):
        raise SpoofkitError(f"{path}: line 1 names a column twice ({', '.join(names)}), expected different names")
    table = read_columns(path, names, "\t", conclusion="fix the line").slice(1)
    if not table.height:
        raise SpoofkitError(f"{path}: has a header but no trial, expected one trial a line; recreate it")
    return table, names


def _cm_scores(by_class: dict[str, pl.DataFrame]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the countermeasure's scores of bona fide trials, whoever speaks, and of spoofed ones."""
    bonafide = pl.concat([by_class["target"]["cm"], by_class["nontarget"]["cm"]])
    return bonafide.to_numpy(), by_class["spoof"]["cm"].to_numpy()


def _named(rows: pl.DataFrame, on: Sequence[str]) -> str:
    shown = [" ".join(row) for row in rows.select(on).head(N_NAMED).rows()]
    more = f" and {rows.height - len(shown):,} more" if rows.height > len(shown) else ""
    return f"{rows.height:,} ({', '.join(shown)}{more})"
