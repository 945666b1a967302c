"""The verb `convert`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit import addons
from spoofkit.cli import options
from spoofkit.terminal import echo


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(convert)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint: .pt, .pth, .ckpt or .safetensors; the folder of a classifier in transformers' format; or "
            "hub:OWNER/MODEL.",
            metavar="FILE",
        ),
    ],
    out: Annotated[Path, options.out(help="Folder to write.")],
    same_as: Annotated[
        str | None,
        typer.Option(
            help="Hub id of the same model, if you know it; its licence is recorded as stated.",
            metavar="HUB_ID",
        ),
    ] = None,
    bonafide: Annotated[
        str | None,
        typer.Option(
            help="Of a classifier whose labels do not say it, the label of bona fide, such as LABEL_1.", metavar="LABEL"
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Convert a published checkpoint into a folder that spoofkit and transformers read.

    Encoders (fairseq's wav2vec 2.0, XLS-R and HuBERT, s3prl's copies of them, WavLM) become a Hugging Face folder for
    `encoder.name`; detectors (AntiDeepfake, AASIST, SSL-AASIST, Nes2Net-X, SLS, classifiers of transformers) become a
    model folder for `score`. The kind is recognised by the content. Nothing in the file is run: one that needs more
    than tensors and settings is refused.

    Example: `spoofkit convert xlsr2_300m.pt -o encoders/xlsr300m --same-as facebook/wav2vec2-xls-r-300m`

    Example: `spoofkit convert AASIST.pth -o models/aasist && spoofkit score models/aasist call.wav`
    """
    from spoofkit.addons.convert.run import convert as run
    from spoofkit.models.names import is_hub_name
    from spoofkit.outputs import skipped

    if is_hub_name(source):
        lines = addons.find("hub.pull").convert_by_name(str(source), out, same_as, bonafide, overwrite, reuse)
        for line in lines:
            echo(line)
        return
    found = run(source, out, overwrite=overwrite, reuse=reuse, same_as=same_as, bonafide=bonafide)
    for line in [skipped(out)] if found is None else found.lines():
        echo(line)
