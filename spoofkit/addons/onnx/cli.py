"""The verb `export`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(export)


def export(
    model: Annotated[
        Path,
        typer.Argument(help="Model folder, such as EXP/model of `finetune`, or hub:OWNER/MODEL.", metavar="MODEL"),
    ],
    out: Annotated[Path, options.out(help="File to write; its record goes beside it.", metavar="OUT.onnx")],
    int8: Annotated[
        Path | None,
        typer.Option(
            help="Quantise matrix products, and measure on this manifest (with keys) by how much the EER shifts.",
            metavar="MANIFEST",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Write a model as one ONNX file: waveforms in, scores out, for onnxruntime without torch.

    Front-end, input normalisation and head are one graph, for any batch and any length. It is compared with torch on
    random utterances, alone and in padded batches, and written only if no score differs by 1e-4.

    Example: `spoofkit export exp/x/finetune/model -o detector.onnx`

    Example: `spoofkit export exp/x/finetune/model -o small.onnx --int8 data/dev.tsv`
    """
    from spoofkit.addons.onnx.export import export as run

    for line in run(model, out, int8=int8, overwrite=overwrite, reuse=reuse):
        echo(line)
