"""The pages of `report`: one on each recording, and a summary of several. They load nothing and have no script."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spoofkit.addons.report.examine import TOLERANCE, Drawn
from spoofkit.addons.report.scale import PROPOSITIONS, band_of, bands, ratio_text
from spoofkit.localisation.track import Track, make_track
from spoofkit.page import render

N_NAMED = 12  # attacks or codecs of a calibration's set


def report_page(record: Mapping[str, Any], drawn: Sequence[Drawn], name: str) -> str:
    """Render the page on a recording.

    Args:
        record: What `examine` says, with `made_with` and `made_from`.
        drawn: What it draws, a channel each.
        name: File name of its JSON.
    """
    tracks: list[tuple[Drawn, Track]] = [(one, make_track(one.wave_S, one.curve, one.line)) for one in drawn]
    regions = {result["channel"]: result["regions"] for result in record["results"]}
    return render(
        "addons/report/report.html.jinja",
        {"ratio": ratio_text, "listed": _listed},
        report=record,
        title=Path(record["recording"]["file"]).name,
        scored=[result for result in record["results"] if result["score"] is not None],
        tracks=tracks,
        regions=regions,
        propositions=PROPOSITIONS,
        bands=bands(),
        here={band_of(result["likelihood_ratio"]) for result in record["results"] if result["likelihood_ratio"]},
        tolerance=TOLERANCE,
        command=shlex.join(record["made_with"]["command"]),
        json_name=name,
    )


def summary_page(summary: Mapping[str, Any]) -> str:
    """Render the summary.

    Args:
        summary: Content of summary.json.
    """
    return render(
        "addons/report/summary.html.jinja",
        {"ratio": ratio_text},
        summary=summary,
        failed=[row for row in summary["rows"] if row["error"]],
        has_channels=any(row["channel"] for row in summary["rows"]),
        command=shlex.join(summary["made_with"]["command"]),
    )


def _listed(names: Sequence[str]) -> str:
    """List the first names, and how many others there are."""
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more or "not known"
