"""The page `report.html` and the pictures in `figures/`.

The page is one file that loads nothing. Its only script sorts tables; without it everything still reads. No metric is
computed here.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from spoofkit.data.manifest import Manifest
from spoofkit.evaluation.examples import LONGEST_SECONDS, Example, make_examples
from spoofkit.evaluation.metrics import Scores
from spoofkit.evaluation.report_points import (
    apcer_interval_text,
    apcer_text,
    cell_in_words,
    chosen_row,
    decisions_in_words,
    notes,
    point_rows,
)
from spoofkit.evaluation.report_text import intervals_in_words
from spoofkit.machine import command
from spoofkit.page import render
from spoofkit.stages import are_stages, describe_stages
from spoofkit.tables import FEWEST_TRIALS, eer_digits, eer_text, figure_text, rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = {
    "det": "DET curve",
    "histograms": "Histograms of bona fide and spoof scores",
    "reliability": "Reliability: stated against observed log-likelihood ratios",
    "bars": "Bars: EER of each attack",
    "heat": "Heat map: EER of each attack in each codec",
}
"""All figures that a page may have, and their descriptions for screen readers."""
SUFFIXES = (".pdf", ".png")
DOTS_PER_INCH = 200
NARROWEST_HEAT = 0.75  # of its width; then the map scrolls, so that its numbers can be read on a phone


def figure_paths(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the paths of the pictures of some figures."""
    return [folder / "figures" / f"{name}{suffix}" for name in names for suffix in SUFFIXES]


def report_files(
    result: Mapping[str, Any],
    systems: Mapping[str, tuple[Scores, Scores]],
    trials: pl.DataFrame,
    manifest: Manifest | None,
    n_examples: int,
) -> tuple[dict[str, bytes], list[str]]:
    """Make the page and its pictures.

    Args:
        result: As `report.measure_files` returns it.
        systems: Bona fide and spoof scores, sorted ascending, of the evaluated system first, then of the others.
        trials: Scores and keys of the evaluated system.
        manifest: Says where the audio is; None for a challenge's list, which does not.
        n_examples: Number of worst errors of each class to show with their audio; may be 0.

    Returns:
        The content of each file by its name in the folder of the results; and which of FIGURES were drawn.
    """
    from spoofkit import pictures

    figures = _draw_figures(result, systems)
    page = _render(result, figures, make_examples(trials, manifest, n_examples))
    files = {"report.html": page.encode()}
    for name, figure in figures.items():
        files[f"figures/{name}.pdf"] = pictures.pdf(figure)
        files[f"figures/{name}.png"] = pictures.png(figure, DOTS_PER_INCH)
    return files, [*figures]


def _draw_figures(result: Mapping[str, Any], systems: Mapping[str, tuple[Scores, Scores]]) -> dict[str, "Figure"]:
    """Draw the figures that this evaluation calls for, by their names in FIGURES."""
    from spoofkit import pictures
    from spoofkit.evaluation import plots
    from spoofkit.evaluation.metrics import Eer

    bonafide, spoof = next(iter(systems.values()))
    eer = Eer(result["eer_official_percent"] / 100, result["eer_threshold"])
    points = [
        (row["apcer_percent"] / 100, row["bpcer_percent"] / 100)
        for row in result["operating_points"]
        if "left_out" not in row
    ]
    figures = {
        "det": plots.det_curves(systems, eer_digits(result), points),
        "histograms": plots.score_histograms(bonafide, spoof, eer),
        "reliability": plots.reliability(bonafide, spoof),
    }
    if len(result["by_attack"]) > 1:
        figures["bars"] = plots.attack_bars(result)
    if len(result["by_codec"]) > 1:
        figures["heat"] = plots.heat_map(result)
    return {name: pictures.settle(figure) for name, figure in figures.items()}


def _render(
    result: Mapping[str, Any], figures: Mapping[str, "Figure"], examples: Mapping[str, Sequence[Example]]
) -> str:
    """Render the whole report as one HTML page that loads nothing."""
    from spoofkit import pictures
    from spoofkit.evaluation import plots

    descriptions = {**FIGURES, "det": f"DET curve; EER {rounded(result['eer_official_percent'], result)} %"}
    svgs = {
        name: pictures.inline_svg(figure, name, descriptions[name])
        for name, figure in figures.items()
        if name != "heat"
    }
    if "heat" in figures:
        titles = [(x, y, cell_in_words(row)) for x, y, row in plots.heat_cells(result)]
        svgs["heat"] = pictures.inline_svg(figures["heat"], "heat", descriptions["heat"], NARROWEST_HEAT, titles)
    shown = [example for of_class in examples.values() for example in of_class]
    return render(
        "evaluation/report.html.jinja",
        {"cell": cell_in_words, "eer": eer_text, "figure": figure_text, "rounded": rounded},
        result=result,
        made_with=result["made_with"],
        intervals=None if "left_out" in (result["intervals"] or {"left_out": ""}) else result["intervals"],
        intervals_in_words=intervals_in_words(result),
        point_rows=point_rows(result),
        chosen=chosen_row(result),
        point_notes=[*notes(result)],
        decisions_in_words=decisions_in_words(result),
        figures=svgs,  # ours, with their texts escaped already
        spoof_columns={
            column: {(cell[column], cell["codec"]): cell for cell in cells}
            for column, cells in {"attack": result["by_attack_and_codec"], **result["by_and_codec"]}.items()
        },
        apcer_text=apcer_text,
        apcer_interval_text=apcer_interval_text,
        examples=examples,
        no_audio=shown[0].missing if shown and not any(example.audio for example in shown) else "",
        longest_seconds=LONGEST_SECONDS,
        fewest_trials=FEWEST_TRIALS,
        command=shlex.join(command()),
        model=_model(result["made_with"]["scores_made_with"]),
        scores_made_with=json.dumps(result["made_with"]["scores_made_with"], indent=2, ensure_ascii=False),
    )


def _model(sidecar: Any) -> dict[str, str]:
    """List what the record beside the scores says of the model, the most important first."""
    if not isinstance(sidecar, dict):
        return {}
    stages: Any = sidecar.get("stages")
    trained = dict(describe_stages(stages)) if are_stages(stages) else {"post-training": "not recorded"}
    names = {
        "model": "model",
        "model_sha256": "its SHA-256",
        "score": "its score",
        "input_policy": "input",
        "precision": "precision",
        "device": "device",
        "hardware": "on",
        "began": "scored from",
        "commit": "with commit",
        "command": "scored by",
    }
    found = {shown: sidecar[name] for name, shown in names.items() if sidecar.get(name)}
    return trained | {
        name: shlex.join(map(str, value)) if isinstance(value, list) else str(value) for name, value in found.items()
    }
