"""The summary of several reports: a row for each recording or channel, most likely spoofed first, failures last."""

from collections.abc import Iterator
from typing import Any

from spoofkit.addons.report.examine import LIMITS, WITH_CALIBRATION, WITHOUT_CALIBRATION
from spoofkit.addons.report.page import summary_page
from spoofkit.addons.report.together import write_together
from spoofkit.evaluation.score_table import table_text
from spoofkit.machine import command, now, version
from spoofkit.outputs import Output
from spoofkit.terminal import visible

FORMAT = 1
NAME = "summary"
COLUMNS = (
    "file", "channel", "score", "llr", "likelihood_ratio", "favours", "verdict", "seconds", "sha256", "page", "remarks",
    "error",
)  # fmt: skip


def rows_of(file: str, record: dict[str, Any] | str, output: Output) -> Iterator[dict[str, Any]]:
    """Yield a row for each channel; for a recording that cannot be read, one with the reason."""
    blank: dict[str, Any] = dict.fromkeys(COLUMNS) | {"file": file, "remarks": [], "error": ""}
    if isinstance(record, str):
        yield blank | {"error": record.removeprefix(f"{file}: ")}
        return
    for result in record["results"]:
        row = blank | {name: value for name, value in result.items() if name in COLUMNS}
        yield row | {"sha256": record["recording"]["sha256"], "page": output.files[0].name}


def write_summary(
    output: Output, n_recordings: int, rows: list[dict[str, Any]], known: dict[str, Any] | None, names: dict[str, str]
) -> None:
    """Write the summary; `known` is any of the reports."""
    is_calibrated = output.made_from["calibration_sha256"] is not None
    rows = sorted(
        rows, key=lambda row: (bool(row["error"]), 0.0 if row["score"] is None else row["score"], row["file"])
    )
    made_with = {"date": now(), "spoofkit": version(), "command": command()}
    summary = {
        "summary_format": FORMAT,
        "n_recordings": n_recordings,
        "rows": rows,
        "names": {file: name for file, name in names.items() if file},
        "model": {"name": known["model"]["name"] if known else "", "sha256": output.made_from["model_sha256"]},
        "calibration": is_calibrated,
        "limits": [WITH_CALIBRATION if is_calibrated else WITHOUT_CALIBRATION, *LIMITS],
        "made_with": made_with,
        "made_from": output.made_from,
    }
    page, table = output.files
    text = table_text(table, [*COLUMNS], map(_cells, rows))
    write_together(output, summary, {page: summary_page(summary).encode(), table: text.encode()})


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Return a row's cells for spreadsheets."""
    texts = row | {"remarks": "; ".join(row["remarks"])}
    return {name: "" if texts[name] is None else visible(str(texts[name])) for name in COLUMNS}
