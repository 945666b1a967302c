"""What was decided on the trials of a list: error rates at the decisions' own threshold, and non-response rates.

    APNRR   share of spoofed trials without an answer, BPNRR of bona fide ones (ISO/IEC 30107-3)

A trial has no answer if the decision is `abstain`, or if `score` gave it no score, since it has too little speech
(`--min-speech`). All rates are shares of all trials of a class: accepted, rejected and unanswered ones add up to 100 %.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation import score_table
from spoofkit.files import file_sha256, read_utf8

DECISIONS = ("accept", "reject", "abstain")


def unscored(scores: Path, record: Mapping[str, Any]) -> list[str]:
    """Return the utterances of a manifest that have no score for lack of speech, as the record beside the scores says.

    Any other fault of an utterance ends the scoring of a manifest. A table of recordings may have other faults.
    """
    errors = record.get("errors") if "speech" in record and not _is_table(scores) else None
    return [*errors] if isinstance(errors, dict) else []


def read_decisions(scores: Path, record: Mapping[str, Any]) -> pl.DataFrame | None:
    """Read the decisions on the trials of a score file: from the table beside it, or from the file if it is a table.

    Returns:
        Columns `utt_id` and `decision`, a row for each trial; None if nothing was decided, or the table is not there.

    Raises:
        SpoofkitError: the table is not the one that was written with the scores, or holds something else.
    """
    path = scores
    if not _is_table(scores):
        path = scores.with_suffix(".decisions.tsv")
        if "decisions_sha256" not in record or not path.is_file():
            return None
        if file_sha256(path) != record["decisions_sha256"]:
            raise SpoofkitError(
                f"{path}: is not the one that was written with {scores.name}; score again, or move it away to evaluate "
                "the scores alone"
            )
    data = read_utf8(path)
    names = score_table.columns_of(data)
    if "decision" not in names:
        return None
    is_quoted = b"," in data[: data.find(b"\n")]
    table = pl.read_csv(
        io.BytesIO(data),
        separator="," if is_quoted else "\t",
        quote_char='"' if is_quoted else None,
        infer_schema=False,
    ).fill_null("")
    unknown = table.filter(~pl.col("decision").is_in(DECISIONS))
    if unknown.height:
        raise SpoofkitError(
            f"{path}: the decision on {unknown['filename'][0]!r} is {unknown['decision'][0]!r}, expected one of "
            f"{', '.join(DECISIONS)}; score again"
        )
    return table.select(_utt_ids(table), "decision")


def measure_decisions(
    trials: pl.DataFrame, decisions: pl.DataFrame | None, no_score: list[str]
) -> dict[str, Any] | None:
    """Compute the rates of decisions, pooled and of each attack, as plain JSON values.

    Args:
        trials: All trials, those without a score too: `utt_id`, `key`, `attack`.
        decisions: `utt_id`, `decision`; None: only which trials have no score is known.
        no_score: Trials without a score.

    Returns:
        `n_bonafide`, `n_spoof`, `n_without_score`; `apcer_percent`, `bpcer_percent` (None without decisions),
        `apnrr_percent`, `bpnrr_percent`; `by_attack`, with `n_spoof` and the rates of spoofs; `worst_attack`, with the
        highest APCER. None if there is neither a decision nor a trial without a score.

    Raises:
        SpoofkitError: the decisions are not on these trials.
    """
    if decisions is None and not no_score:
        return None
    has_score = ~pl.col("utt_id").is_in(no_score)
    if decisions is None:
        answers = trials.with_columns(
            pl.when(has_score).then(pl.lit("")).otherwise(pl.lit("abstain")).alias("decision")
        )
    else:
        answers = trials.join(decisions, on="utt_id", how="left", maintain_order="left")
        lacking = answers.filter(pl.col("decision").is_null())["utt_id"]
        if lacking.len():
            raise SpoofkitError(
                f"found no decision on {lacking.len():,} of {trials.height:,} trials (first: {lacking[0]!r}), expected "
                "one on each; score this manifest with the same options again"
            )
    answers = answers.with_columns(pl.when(has_score).then("decision").otherwise(pl.lit("abstain")).alias("decision"))

    def rates(part: pl.DataFrame, kind: str, error: str) -> dict[str, float | None]:
        of = {name: 100 * part.filter(pl.col("decision") == name).height / part.height for name in (error, "abstain")}
        return {f"{kind}cer_percent": None if decisions is None else of[error], f"{kind}nrr_percent": of["abstain"]}

    bonafide, spoof = (answers.filter(pl.col("key") == key) for key in ("bonafide", "spoof"))
    by_attack = [
        {"attack": attack, "n_spoof": part.height, **rates(part, "ap", "accept")}
        for (attack,), part in sorted(spoof.partition_by("attack", as_dict=True).items())
    ]
    return {
        "n_bonafide": bonafide.height,
        "n_spoof": spoof.height,
        "n_without_score": len(no_score),
        **rates(spoof, "ap", "accept"),
        **rates(bonafide, "bp", "reject"),
        "by_attack": by_attack,
        "worst_attack": None
        if decisions is None
        else max(by_attack, key=lambda row: float(row["apcer_percent"]))["attack"],
    }


def _utt_ids(table: pl.DataFrame) -> pl.Expr:
    """Name the rows as `scores.read_scores` does."""
    name = pl.col("filename").alias("utt_id")
    if "channel" not in table.columns:
        return name
    return (
        pl.when(pl.col("channel") == "")
        .then(name)
        .otherwise(pl.format("{}, channel {}", "filename", "channel"))
        .alias("utt_id")
    )


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(score_table.columns_of(file.readline(10_000)))
