"""The page `report.html` and the pictures in `figures/`.

The page is one file that loads nothing. Its only script sorts tables; without it everything still reads. No metric is
computed here.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from spoofkit.data.manifest import Manifest
from spoofkit.evaluation.drawing import Picture
from spoofkit.evaluation.examples import LONGEST_SECONDS, Example, make_examples
from spoofkit.evaluation.report_points import (
    accepted_in_words,
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
from spoofkit.tables import eer_text, few_in_words, figure_text, rounded


def report_files(
    result: Mapping[str, Any],
    pictures: Mapping[str, Picture],
    trials: pl.DataFrame,
    manifest: Manifest | None,
    n_examples: int,
) -> dict[str, bytes]:
    """Make the page and its pictures.

    Args:
        result: As `measuring.measure_files` returns it.
        pictures: Its figures, as `drawing.drawn_pictures` returns them.
        trials: Scores and keys of the evaluated system.
        manifest: Says where the audio is; None for a challenge's list, which does not.
        n_examples: Number of worst errors of each class to show with their audio; may be 0.

    Returns:
        The content of each file by its name in the folder of the results.
    """
    page = _render(result, pictures, make_examples(trials, manifest, n_examples))
    files = {"report.html": page.encode()}
    for name, picture in pictures.items():
        files |= {f"figures/{name}.pdf": picture.pdf, f"figures/{name}.png": picture.png}
    return files


def _render(
    result: Mapping[str, Any], pictures: Mapping[str, Picture], examples: Mapping[str, Sequence[Example]]
) -> str:
    """Render the whole report as one HTML page that loads nothing."""
    shown = [example for of_class in examples.values() for example in of_class]
    return render(
        "evaluation/report.html.jinja",
        {"cell": cell_in_words, "eer": eer_text, "few": few_in_words, "figure": figure_text, "rounded": rounded},
        result=result,
        made_with=result["made_with"],
        intervals=None if "left_out" in (result["intervals"] or {"left_out": ""}) else result["intervals"],
        intervals_in_words=intervals_in_words(result),
        point_rows=point_rows(result),
        chosen=chosen_row(result),
        point_notes=[*notes(result)],
        accepted={name: accepted_in_words(result, name) for name in ("eer", "min_dcf")},
        decisions_in_words=decisions_in_words(result),
        figures={name: picture.svg for name, picture in pictures.items()},  # ours, with their texts escaped already
        spoof_columns={
            column: {(cell[column], cell["codec"]): cell for cell in cells}
            for column, cells in {"attack": result["by_attack_and_codec"], **result["by_and_codec"]}.items()
        },
        apcer_text=apcer_text,
        apcer_interval_text=apcer_interval_text,
        examples=examples,
        no_audio=shown[0].missing if shown and not any(example.audio for example in shown) else "",
        longest_seconds=LONGEST_SECONDS,
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
