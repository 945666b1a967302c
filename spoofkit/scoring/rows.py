"""The row of a recording, in every form: TSV in a pipe, a table in a file (`.tsv`, `.csv`), a table on a terminal, a
line of JSON. A file and a pipe hold the same columns. The reason why a recording has no score is in `error`, never in
the column of the score.
"""

import io
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from spoofkit.data.signal import LEAST_SIGNAL_SECONDS
from spoofkit.evaluation.scores import number_text
from spoofkit.files import table_fault
from spoofkit.scoring.decisions import ABSTAIN, Decisions
from spoofkit.scoring.recordings import Reading, Result
from spoofkit.terminal import json_line, visible


def columns(decisions: Decisions | None, reading: Reading) -> list[str]:
    """Return the columns of a table: those of `score_table.COLUMNS` that apply, in that order."""
    names = ["filename", *(["channel"] if reading.channels is not None else []), "cm-score"]
    if decisions is not None:
        names += ["decision"] if decisions.calibration is None else ["llr", "bonafide_probability", "decision"]
    return [*names, "seconds", *(["speech_seconds"] if reading.voice is not None else []), "remarks", "error"]


def for_tsv(result: Result, to_file: bool) -> Result:
    """Return the result; if a TSV cannot hold its name, with that as the error instead of its score.

    Args:
        result: Result of a loose file.
        to_file: Whether it goes to a file, which is UTF-8; stdout takes the bytes of any name.
    """
    fault = table_fault(result.name, to_file)
    return replace(result, score=None, windows=(), error=fault) if fault and not result.error else result


def cells(result: Result, decisions: Decisions | None, reading: Reading, name: str | None = None) -> dict[str, str]:
    """Return a recording's cells by column; some may be empty.

    Args:
        result: Result of the recording.
        decisions: How scores are decided; None: they are not.
        reading: How it was read.
        name: Its name in the table, as it is. Default: that of the result, with tabs and line breaks escaped.
    """
    found = dict.fromkeys(columns(decisions, reading), "")
    found["filename"] = one_line(result.name) if name is None else name
    if result.channel is not None:
        found["channel"] = str(result.channel)
    if result.score is None:
        found["error"] = one_line(_utf8(result.error))
        return found | decision_cells(None, False, decisions)
    found["cm-score"] = f"{result.score:.9g}"  # nine digits restore a float32
    if result.seconds:  # parts of earlier versions lack them
        found["seconds"] = f"{result.seconds:.10g}"
    if result.speech_seconds is not None:
        found["speech_seconds"] = f"{result.speech_seconds:.10g}"
    found["remarks"] = "; ".join(_remarks(result, reading))
    return found | decision_cells(result.score, not result.lacks_signal, decisions)


def decision_cells(score: float | None, has_signal: bool, decisions: Decisions | None) -> dict[str, str]:
    """Return the cells that depend on decisions; a recording without a score is `abstain`."""
    if decisions is None:
        return {}
    if score is None:
        return {"decision": ABSTAIN}
    decided = decisions.decide(score, has_signal)
    if "llr" not in decided:
        return decided
    probability = f"{decided['bonafide_probability']:.6g}"
    return {"llr": number_text(decided["llr"]), "bonafide_probability": probability, "decision": decided["decision"]}


def _remarks(result: Result, reading: Reading) -> list[str]:
    remarks = []
    if result.windows and reading.windows is not None:
        over = "lowest" if reading.windows.over == "min" else "mean"
        remarks.append(f"{over} of {len(result.windows):,} windows of {reading.windows.seconds:g} s")
    if result.lacks_signal:
        remarks.append(f"less than {LEAST_SIGNAL_SECONDS:g} s of signal")
    return remarks


def as_json(result: Result, decisions: Decisions | None) -> str:
    """Return a recording's line of JSON."""
    if result.score is None:
        refused = {"file": _utf8(result.name), "channel": result.channel, "error": _utf8(result.error)}
        return json_line(refused | ({} if decisions is None else {"decision": ABSTAIN}))
    line: dict[str, Any] = {"file": _utf8(result.name), "channel": result.channel, "seconds": result.seconds}
    if result.speech_seconds is not None:
        line["speech_seconds"] = result.speech_seconds
    line["score"] = result.score
    if decisions is not None:
        line |= decisions.decide(result.score)
    if result.windows:
        line["windows"] = [
            window.known()
            | ({} if decisions is None or decisions.calibration is None else {"llr": decisions.value(window.score)})
            for window in result.windows
        ]
    return json_line(line)


def terminal_table(rows: list[dict[str, str]], width: int) -> list[str]:
    """Return the lines of a table `width` wide: name, score or log-likelihood ratio, decision, remarks, errors."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    left_out = {"seconds", "speech_seconds"}
    if "llr" in rows[0]:
        left_out.add("cm-score")
    left_out |= {name for name in ("channel", "remarks", "error") if not any(row.get(name) for row in rows)}
    grid = Table(box=None, pad_edge=False)
    texts = []
    for name in (name for name in rows[0] if name not in left_out):
        is_number = name in ("cm-score", "llr", "bonafide_probability")
        ratio = 1 if name == "error" else None
        grid.add_column(name, overflow="fold", justify="right" if is_number else "left", ratio=ratio)
        own = [row[name] for row in rows]
        texts.append([f"{float(text):.4g}" if text else "-" for text in own] if is_number else own)
    for of_row in zip(*texts, strict=True):
        grid.add_row(*(Text(visible(text)) for text in of_row))
    console = Console(file=io.StringIO(), width=width)
    console.print(grid)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def windows_tsv(results: Iterable[Result], decisions: Decisions | None, reading: Reading) -> str:
    """Return a table of the windows of all recordings that were cut."""
    has_channels = reading.channels is not None
    is_calibrated = decisions is not None and decisions.calibration is not None
    names = ["filename", *(["channel"] if has_channels else []), "start_seconds", "end_seconds"]
    names += [*(["speech_seconds"] if reading.voice is not None else []), "llr" if is_calibrated else "cm-score"]
    lines = ["\t".join(names)]
    for result in results:
        for window in result.windows:
            start, end, score, *speech = window.known().values()
            value = score if decisions is None else decisions.value(score)
            row = [one_line(result.name), *([str(result.channel or "")] if has_channels else [])]
            row += [*(f"{seconds:.10g}" for seconds in (start, end, *speech)), f"{value:.9g}"]
            lines.append("\t".join(row))
    return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    """Escape tabs and line breaks, so that a cell can hold the text."""
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _utf8(text: str) -> str:
    # Names on a disk need not be UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()
