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
    app.command()(push)


def pull(
    name: Name,
    out: Annotated[Path, options.out(help="Folder to write.")],
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Copy a model or an encoder of the Hugging Face hub into a folder that works offline.

    A model that is not in spoofkit's format is converted. Most verbs take the name itself; `merge`, `average`, `push`
    and `posttrain --onto` need a folder.

    Example: `spoofkit pull hub:nii-yamagishilab/mms-300m-anti-deepfake -o models/mms300m`
    """
    from spoofkit.addons.hub.pull import pull as run

    echo(run(name, out, overwrite=overwrite, reuse=reuse))


def push(
    folder: Annotated[Path, typer.Argument(help="Model or encoder folder that spoofkit wrote.", metavar="MODEL")],
    repository: Annotated[str, typer.Argument(help="Where on the hub; created if it does not exist.", metavar="REPO")],
    results: Annotated[
        Path | None, typer.Option(help="eval.json of this model; its figures go into the card.", metavar="EVAL.json")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the model, such as cc-by-4.0. Default: that of its base.", metavar="LICENCE"),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="If the repository is new, make it private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Upload nothing: write it to the folder of -o.")] = False,
    out: Annotated[Path | None, options.out(help="With --dry-run: folder to write.")] = None,
) -> None:
    """Upload a model or an encoder to the Hugging Face hub, with a card made from its records.

    The card says what the model was trained on and how, its figures with intervals, licence, contamination and limits.
    Of an encoder with adapters only the adapters are uploaded; their base must be on the hub. The token is that of
    `hf auth login`, or HF_TOKEN.

    Example: `spoofkit push exp/x/finetune/model me/detector --results exp/x/results/eval/eval.json --dry-run -o card`

    Example: `spoofkit push exp/x/finetune/model me/detector --results exp/x/results/eval/eval.json --private`
    """
    from spoofkit.addons.hub.push import push as run
    from spoofkit.errors import SpoofkitError

    if dry_run != (out is not None):
        raise SpoofkitError("push: --dry-run and -o belong together, found one of them; add the other, or leave both")
    for line in run(folder, repository, results=results, licence=licence, private=private, dry_run=out):
        echo(line)
