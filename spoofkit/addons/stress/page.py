"""The page of a stress card: one file that loads nothing and has no script."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spoofkit.addons.stress.text import card_table, columns, grouped, heading, notes
from spoofkit.page import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NARROWEST = 0.75  # of the picture's width; then it scrolls, so that its names can be read on a phone


def page_html(result: Mapping[str, Any], figure: "Figure") -> str:
    """Render the page.

    Args:
        result: As `run.stress` returns it.
        figure: Its picture.
    """
    from spoofkit import pictures

    says = {row["condition"]: row["says"] for row in result["rows"]}
    return render(
        "addons/stress/stress.html.jinja",
        result=result,
        heading=heading(result),
        worst=max(result["rows"][1:], key=lambda row: row["eer_official_percent"]),
        titles=[title for title, _ in grouped(result["rows"])],
        columns=columns(result),
        rows=card_table(result).rows,
        says=says,
        notes=[*notes(result)],
        figure=pictures.inline_svg(figure, "stress", "EER, APCER and BPCER of each condition", NARROWEST),
        command=shlex.join(result["made_with"]["command"]),
    )
