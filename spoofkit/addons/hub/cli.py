"""The verbs `pull` and `push`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo

Name = Annotated[str, typer.Argument(help="hub:OWNER/MODEL, or hub:OWNER/MODEL@REVISION.", metavar="hub:OWNER/MODEL")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.command()(pull)


def pull(
    name: Name,
    out: Annotated[Path, options.out(help="Folder to write.")],
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Copy a model or an encoder of the Hugging Face hub into a folder, which needs the hub no more.

    A model that is not in spoofkit's format is converted. Other verbs take the name itself, wherever they take a model.

    Example: `spoofkit pull hub:nii-yamagishilab/mms-300m-anti-deepfake -o models/mms300m`
    """
    from spoofkit.addons.hub.pull import pull as run

    echo(run(name, out, overwrite=overwrite, reuse=reuse))
