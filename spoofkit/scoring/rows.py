"""The row of a recording, in every form: TSV in a pipe, a table in a file (`.tsv`, `.csv`), a table on a terminal, a
line of JSON. A file and a pipe hold the same columns. The reason why a recording has no score is in `error`, never in
the column of the score.
"""

import io
from collections.abc import Iterable, Mapping
from typing import Any

from spoofkit.files import table_fault
from spoofkit.scoring.decisions import ABSTAIN, Decisions
from spoofkit.scoring.recordings import Reading
from spoofkit.scoring.scored import ScoredRecording
from spoofkit.tables import number_text
from spoofkit.terminal import json_line, visible

DECIDED = ("llr", "bonafide_probability", "decision")
"""Columns of what is decided."""


def columns(decisions: Decisions | None, reading: Reading) -> list[str]:
    """Return the columns of a table: those of `score_table.COLUMNS` that apply, in that order."""
    names = ["filename", *(["channel"] if reading.channels is not None else []), "cm-score"]
    if decisions is not None:
        names += ["decision"] if decisions.calibration is None else DECIDED
    return [*names, "seconds", *(["speech_seconds"] if reading.voice is not None else []), "remarks", "error"]


def for_tsv(one: ScoredRecording, to_file: bool) -> ScoredRecording:
    """Return the record; if a TSV cannot hold its name, with that as the error instead of its score.

    Args:
        one: Record of a loose file.
        to_file: Whether it goes to a file, which is UTF-8; stdout takes the bytes of any name.
    """
    fault = table_fault(one.file, to_file)
    if not fault or one.error:
        return one
    return ScoredRecording(one.file, one.channel, decision=one.decision and ABSTAIN, error=fault)


def cells(one: ScoredRecording, names: list[str], filename: str | None = None) -> dict[str, str]:
    """Return a recording's cells of some columns; some may be empty.

    Args:
        one: Record of the recording.
        names: The columns.
        filename: Its name in the table, as it is. Default: that of the record, with tabs and line breaks escaped.
    """
    texts = {
        "filename": one_line(one.file) if filename is None else filename,
        "channel": str(one.channel or ""),
        "cm-score": "" if one.score is None else f"{one.score:.9g}",  # nine digits restore a float32
        **decision_cells({name: getattr(one, name) for name in DECIDED}),
        "seconds": f"{one.seconds:.10g}" if one.seconds else "",  # parts of earlier versions lack them
        "speech_seconds": "" if one.speech_seconds is None else f"{one.speech_seconds:.10g}",
        "remarks": "; ".join(one.remarks),
        "error": visible(one.error),
    }
    return {name: texts[name] for name in names}


def decision_cells(decided: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of what `Decisions.decide` says; one that it leaves out, or that is None, is empty."""
    llr, probability, decision = (decided.get(name) for name in DECIDED)
    return {
        "llr": "" if llr is None else number_text(llr),
        "bonafide_probability": "" if probability is None else f"{probability:.6g}",
        "decision": decision or "",
    }


def record(one: ScoredRecording) -> dict[str, Any]:
    """Return a recording's record as plain values, without those that are not there; remarks are left out."""
    found: dict[str, Any] = {"file": one.file, "channel": one.channel}
    if one.score is None:
        found["error"] = one.error
    else:
        names = ("seconds", "speech_seconds", "score", "llr", "spoof_prior", "bonafide_probability")
        found |= {name: value for name in names if (value := getattr(one, name)) is not None}
    if one.decision is not None:
        found["decision"] = one.decision
    if one.windows:
        found["windows"] = [window.known() for window in one.windows]
    return found


def as_json(one: ScoredRecording) -> str:
    """Return a recording's line of JSON."""
    return json_line(record(one))


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


def windows_tsv(scored: Iterable[ScoredRecording], decisions: Decisions | None, reading: Reading) -> str:
    """Return a table of the windows of all recordings that were cut."""
    has_channels = reading.channels is not None
    is_calibrated = decisions is not None and decisions.calibration is not None
    names = ["filename", *(["channel"] if has_channels else []), "start_seconds", "end_seconds"]
    names += [*(["speech_seconds"] if reading.voice is not None else []), "llr" if is_calibrated else "cm-score"]
    lines = ["\t".join(names)]
    for one in scored:
        for window in one.windows:
            seconds = [window.start_seconds, window.end_seconds]
            seconds += [] if window.speech_seconds is None else [window.speech_seconds]
            row = [one_line(one.file), *([str(one.channel or "")] if has_channels else [])]
            value = window.score if window.llr is None else window.llr
            lines.append("\t".join([*row, *(f"{number:.10g}" for number in seconds), f"{value:.9g}"]))
    return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    """Escape tabs and line breaks, so that a cell can hold the text."""
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
