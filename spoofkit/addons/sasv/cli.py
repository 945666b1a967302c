"""The verb `evaluate-sasv`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo_json, say


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(evaluate_sasv)


def evaluate_sasv(
    scores: Annotated[
        Path, typer.Argument(help="TSV: [spk] filename cm-score asv-score sasv-score.", metavar="SCORES")
    ],
    keys: Annotated[
        Path,
        typer.Argument(help="TSV: [spk] filename cm-label asv-label; or the list of track 2.", metavar="KEYS"),
    ],
    as_json: options.Json = False,
) -> None:
    """Compute a-DCF, min t-DCF and t-EER of a speaker verification system that also faces spoofs (track 2).

    Costs and priors are those of ASVspoof 5.

    Example: `spoofkit evaluate-sasv sasv_scores.tsv ASVspoof5.eval.track_2.trial.tsv`
    """
    from spoofkit.addons.sasv.evaluate import describe_sasv
    from spoofkit.addons.sasv.evaluate import evaluate_sasv as run
    from spoofkit.evaluation.scores import final_newline_warning
    from spoofkit.tables import show

    result = run(scores, keys)
    if warning := final_newline_warning(scores):
        say(f"spoofkit: warning: {warning}")
    if as_json:
        echo_json(result)
    else:
        show(*describe_sasv(result))
