"""The verb `audit`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo_json, say


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(audit)


def audit(
    manifest: Annotated[Path, typer.Argument(help="The list.", metavar="MANIFEST")],
    out: Annotated[
        Path | None,
        options.out(help="Folder for audit.tsv, audit.json, audit.png and audit.pdf.", metavar="DIR"),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Break down by a column, such as attack or codec; may be repeated.", metavar="COLUMN"),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=2, help="Measure a sample of this size, half of each class.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample, the folds and the bootstrap.")] = 0,
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
    as_json: options.Json = False,
) -> None:
    """Measure the EER of trivial predictors of a list: duration, silence, level, band or file format alone.

    Where one is far below 50 %, a detector can score well without listening to the voice. Measures are saved
    continuously: after a kill the same command resumes, and one with another --by or --sample measures only what is not
    measured yet.

    Example: `spoofkit audit data/train.tsv --out exp/audit/train --by attack`
    """

    from spoofkit.addons.audit.run import audit as run
    from spoofkit.addons.audit.text import print_audit

    result = run(
        manifest,
        out,
        by=by or (),
        sample=sample,
        seed=seed,
        workers=workers or options.DECODER_THREADS,
        overwrite=overwrite,
        reuse=reuse,
    )
    if as_json:
        echo_json(result)
    else:
        print_audit(result)
    for warning in result["warnings"]:
        say(f"spoofkit: warning: {warning}")
    if result["warnings"]:
        say(f"spoofkit: {result['warning_rule']}")
    if out is not None:
        say(f"picture: {out / 'audit.png'}")
