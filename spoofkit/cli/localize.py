"""Verbs about where an utterance is spoofed: localize, evaluate-segments."""

import json
from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.cli.options import say


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the program."""
    app.command()(localize)
    app.command()(evaluate_segments)


def localize(
    experiment: Annotated[
        Path, typer.Argument(help="Folder of a finished `posttrain`, such as exp/x/posttrain.", metavar="EXP")
    ],
    manifest: Annotated[Path, typer.Argument(help="Manifest of what is to be scored.", metavar="MANIFEST")],
    out: Annotated[Path, typer.Argument(help="Frame scores to write, and their record beside.", metavar="OUT.npz")],
    device: options.Device = "auto",
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Score every frame with the frame head that post-training left: higher = more bona fide.

    To find spoofed regions, post-train with `mix.frame_target: authenticity`; with `region` a low score says injected,
    of whatever kind. Scores are kept as they come: after a kill or a stop, the same command goes on where it was, and
    ends with the same file.

    Example: `spoofkit localize exp/x/posttrain data/eval.tsv exp/x/frames/eval.npz`
    """
    from spoofkit.localisation.localize import localize as run

    for line in run(experiment, manifest, out, device=device, workers=workers, overwrite=overwrite, reuse=reuse):
        typer.echo(line)


def evaluate_segments(
    frames: Annotated[Path, typer.Argument(help="Frame scores of `localize`.", metavar="FRAMES.npz")],
    segments: Annotated[
        Path, typer.Argument(help="Spoofed regions of the same utterances.", metavar="SET.segments.tsv")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for segments.json and segment_eer.png.", metavar="OUT")],
    threshold: Annotated[
        float | None,
        typer.Option(help="For precision, recall and F1, such as one of dev. None: where this set has its EER."),
    ] = None,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
    as_json: options.Json = False,
) -> None:
    """Compute range-based EER, segment EER from 0.02 to 0.64 s, precision, recall and F1; table, JSON and a picture.

    Example: `spoofkit evaluate-segments exp/x/frames/eval.npz data/eval.segments.tsv exp/x/results/eval_segments`
    """
    from rich.console import Console

    from spoofkit.localisation.segment_report import evaluate_segments as run
    from spoofkit.localisation.segment_report import print_table

    result = run(frames, segments, out, threshold=threshold, overwrite=overwrite, reuse=reuse)
    for warning in result["warnings"]:
        say(f"spoofkit: warning: {warning}")
    if as_json:
        typer.echo(json.dumps(result))
    else:
        print_table(result, Console())
    say(f"picture: {out / 'segment_eer.png'}")
