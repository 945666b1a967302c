"""Operating points and decisions as text, for the terminal and the page: rows of a table and sentences."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from spoofkit.evaluation.bootstrap import RESAMPLED
from spoofkit.evaluation.error_rates import FEWEST_ERRORS, Limit, trial_interval
from spoofkit.tables import (
    FEWEST_TRIALS,
    MOST_DIGITS,
    ROUGH,
    SPOOF,
    Column,
    Table,
    eer_text,
    few_in_words,
    percent_digits,
)
from spoofkit.terminal import visible

MEANING = (
    "APCER: share of spoofed trials that are accepted; BPCER: share of bona fide trials that are rejected (ISO/IEC "
    "30107-3). We avoid 'false alarm': to some readers it is an accepted spoof (so in ASVspoof), to others a rejected "
    "bona fide trial"
)
ROUGH_RATES = f"{ROUGH}: the limit allows fewer than {FEWEST_ERRORS} errors (rule of 30)"
RULE = (
    "A trial is accepted from the threshold on, which is a realised score. The rate that is named first is at most its "
    "limit, and the other one is the lowest possible: ties count against the system, and nothing is interpolated"
)


def point_rows(result: Mapping[str, Any], most: int = MOST_DIGITS) -> list[dict[str, str]]:
    """Return a row of texts for each operating point, with at most `most` digits.

    A value has the mark ROUGH where its limit allows few errors, and is `-` where it allows none.
    """
    ends_of = {
        (row["rate"], row["percent"]): row for row in (result.get("intervals") or {}).get("operating_points", ())
    }
    n_spoof = {row["attack"]: row["n_spoof"] for row in result["by_attack"]}
    rows = []
    for found in result["operating_points"]:
        limit = Limit(found["rate"], found["percent"])
        row = {"point": str(limit), "measured": limit.other.upper(), "left_out": found.get("left_out", "")}
        row |= {"rate": f"{row['measured']} at {limit}"}
        row |= dict.fromkeys(("value", "interval", "accept_from", "worst_attack"), "-")
        if not row["left_out"]:
            ends = ends_of.get((limit.rate, limit.percent), {}).get(limit.name_of_other)
            digits = min(most, percent_digits(min(result["n_bonafide"], result["n_spoof"]), ends))
            value, attack = f"{found[limit.name_of_other]:.{digits}f}", found["worst_attack"]
            row["value"] = ROUGH + value if found["few_errors"] else value
            row["interval"] = "-" if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
            row["accept_from"] = "-" if found["accept_from"] is None else f"{found['accept_from']:.6g}"
            apcer = apcer_text(found["apcer_percent_by_attack"][attack], n_spoof[attack])
            row["worst_attack"] = f"{attack} {apcer} %"
        rows.append(row)
    return rows


def accepted_in_words(result: Mapping[str, Any], name: str) -> str:
    """Say from which score trials are accepted, so that the figure `name`, `eer` or `min_dcf`, is what comes of it.

    The score is written with as many digits as it takes to lie above the highest one that is rejected.
    """
    rejected, accepted = result[f"{name}_threshold"], result.get(f"{name}_accept_from")
    if accepted is None:  # all are rejected, or an earlier version measured
        return f"accept above {rejected:.6g}"
    texts = (f"{accepted:.{digits}g}" for digits in range(6, 18))
    return f"accept from {next(text for text in texts if rejected < float(text) <= accepted)}"


def apcer_text(percent: float | None, n_spoof: int) -> str:
    """Format the APCER of an attack: as many digits as its trials support, in parentheses where these are few."""
    if percent is None:
        return "-"
    text = f"{percent:.{percent_digits(n_spoof)}f}"
    return f"({text})" if n_spoof < FEWEST_TRIALS else text


def apcer_interval_text(result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Format the interval of an attack's APCER at the chosen threshold; `-` if there is none."""
    ends = ((result.get("intervals") or {}).get("apcer_percent_by_attack") or {}).get(row["attack"])
    digits = percent_digits(row["n_spoof"])
    return "-" if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def chosen_row(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the row of `point_rows` that was chosen for all parts."""
    chosen = str(Limit(**result["operating_point"]))
    return next(row for row in point_rows(result) if row["point"] == chosen)


def wilson_in_words(result: Mapping[str, Any], intervals: Iterable[Sequence[float] | None]) -> str:
    """Say how intervals that reach 0 or 100 % were computed, if some do; otherwise empty."""
    found = result.get("intervals") or {"left_out": ""}
    if "left_out" in found or not any(ends and (ends[0] == 0 or ends[1] == 100) for ends in intervals):
        return ""
    return (
        "an interval that reaches 0 or 100 % is no narrower than Wilson's for the number of "
        f"{RESAMPLED[found['resampled']]}, since resampling shows no error where there is none"
    )


def points_in_words(result: Mapping[str, Any]) -> str:
    """Describe the operating points in two lines, and the worst attack at the chosen one; explain the mark ROUGH."""
    rows = point_rows(result, most=2)
    chosen = chosen_row(result)
    lines = []
    for measured in ("BPCER", "APCER"):
        of_kind = [row for row in rows if row["measured"] == measured]
        limited, places = of_kind[0]["point"].split()[0], ", ".join(row["point"].split()[1] for row in of_kind)
        line = f"{measured} at {limited} {places} %: {', '.join(row['value'] for row in of_kind)} %"
        if chosen["measured"] == measured and not chosen["left_out"]:
            line += f"; worst at {chosen['point'].split(maxsplit=1)[1]}: {chosen['worst_attack']}"
        lines.append(line)
    return "\n".join(lines + [ROUGH_RATES] * _has_rough(rows))


def _has_rough(rows: Iterable[Mapping[str, str]]) -> bool:
    return any(row["value"].startswith(ROUGH) for row in rows)


def notes(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences: why a figure is missing or marked, and what the figures mean."""
    rows = point_rows(result)
    left_out = [row["left_out"] for row in rows if row["left_out"]]
    if left_out:
        yield f"-: {'; '.join(left_out)}"
    if _has_rough(rows):
        yield f"{ROUGH_RATES}, so the limited rate itself is not known to 30 % of it"
    if words := few_in_words(result["by_attack"]):
        yield words
    found = result.get("intervals") or {}
    points = found.get("operating_points", ())
    of_points = [ends for point in points for name, ends in point.items() if name.endswith("pcer_percent")]
    if words := wilson_in_words(result, [*of_points, *found.get("apcer_percent_by_attack", {}).values()]):
        yield f"{words[0].upper()}{words[1:]}."
    yield f"{MEANING}."
    yield f"{RULE}. The thresholds are of this set; choose one for use on a development set (`spoofkit threshold`)."


def point_tables(result: Mapping[str, Any]) -> Iterator[str | Table]:
    """Yield the table of operating points, and that of the attacks at the chosen one."""
    columns = [
        *(Column("rate", "operating point"), Column("value", "%"), Column("interval", "95 %")),
        *(Column("accept_from", "accept from"), Column("worst_attack", "APCER of worst")),
    ]
    yield "\nOperating points: the lowest rate where the other one is limited\n"
    yield Table(columns, point_rows(result))
    chosen = chosen_row(result)
    if not chosen["left_out"]:
        yield f"\nPer attack at the threshold of {chosen['point']}, accepting from {chosen['accept_from']}\n"
        apcer = Column("apcer_percent", "APCER, %", lambda row: apcer_text(row["apcer_percent"], row["n_spoof"]))
        ends = Column("interval", "95 %", lambda row: apcer_interval_text(result, row))
        yield Table([Column("attack"), SPOOF, apcer, ends], [*result["by_attack"], {**result, "attack": "all"}])
    yield "\n" + "\n".join(notes(result))


def decisions_in_words(result: Mapping[str, Any]) -> str:
    """Describe the decisions on the trials in one line; empty if none are known."""
    found = result.get("decisions")
    if found is None:
        return ""
    digits = {"a": percent_digits(found["n_spoof"]), "b": percent_digits(found["n_bonafide"])}
    no_answer = (
        f"no answer: APNRR {found['apnrr_percent']:.{digits['a']}f} %, BPNRR {found['bpnrr_percent']:.{digits['b']}f} %"
    )
    if found["apcer_percent"] is None:
        return f"{no_answer} ({found['n_without_score']:,} trials without a score)"
    worst = next(row for row in found["by_attack"] if row["attack"] == found["worst_attack"])
    return (
        f"as decided: APCER {found['apcer_percent']:.{digits['a']}f} % (worst attack, {worst['attack']}: "
        f"{apcer_text(worst['apcer_percent'], worst['n_spoof'])} %), BPCER {found['bpcer_percent']:.{digits['b']}f} %; "
        + no_answer
    )


def cell_in_words(row: Mapping[str, Any]) -> str:
    """Describe a part for whoever points at it: its name, EER, interval and numbers of trials."""
    name = " in ".join(visible(str(row[column])) for column in ("attack", "codec") if column in row) or "all"
    counts = f"{row['n_bonafide']:,} bona fide, {row['n_spoof']:,} spoof"
    if row["eer_official_percent"] is None:
        return f"{name}: no EER; {counts}"
    ends = trial_interval(row["eer_official_percent"] / 100, row["n_bonafide"], row["n_spoof"])
    digits = percent_digits(min(row["n_bonafide"], row["n_spoof"]), [100 * end for end in ends])
    low, high = (f"{100 * end:.{digits}f}" for end in ends)
    return f"{name}: EER {eer_text(row)} %, {low} to {high} % (95 %, if trials were independent); {counts}"
