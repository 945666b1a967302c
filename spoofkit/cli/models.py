"""Verbs about models: info, merge, average."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo, echo_json


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the program."""
    app.command()(info)
    app.command()(merge)
    app.command()(average)


def info(
    name: Annotated[
        str,
        typer.Argument(
            help="Hub id, encoder folder, torchaudio:BUNDLE, tiny, sinc-aasist, sinc-rawnet2; a model folder; or "
            "hub:OWNER/MODEL.",
            metavar="ENCODER_OR_MODEL",
        ),
    ],
    config: options.Config = None,
    set_: options.Set = None,
    batch_size: Annotated[int, typer.Option("--batch", min=1, help="Utterances of the training step.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Their length.")] = 4.0,
    as_json: options.Json = False,
) -> None:
    """Say what an encoder or a model is: family, parameters, frames, memory of a training step, licence.

    Of an encoder, settings say what is kept, frozen and trained, and under which head; a model's own record says how it
    was trained.

    Example: `spoofkit info exp/x/finetune/model`

    Example: `spoofkit info facebook/wav2vec2-xls-r-300m -c conf/xlsr300m.yaml --batch 32`
    """
    from spoofkit.config import load_config
    from spoofkit.models.info import describe, print_facts

    facts = describe(name, load_config(config, set_) if config or set_ else None, batch_size, seconds)
    if as_json:
        echo_json(facts)
    else:
        print_facts(facts)


def merge(
    folder: Annotated[
        Path, typer.Argument(help="Encoder or model folder whose encoder is kept as adapters.", metavar="FOLDER")
    ],
    out: Annotated[Path, options.out(help="Folder to write.")],
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Merge adapters (encoder.lora) into the weights they were trained on: a plain folder that needs no base.

    An encoder becomes a Hugging Face folder for `AutoModel.from_pretrained` and `encoder.name`, a model a model folder
    that scores the same.

    Example: `spoofkit merge exp/x/posttrain/encoder -o encoders/posttrained`

    Example: `spoofkit merge exp/x/finetune/model -o models/detector`
    """
    from spoofkit.models.merge_adapters import merge as run
    from spoofkit.outputs import skipped

    is_written = run(folder, out, overwrite, reuse)
    echo(f"{out}: adapters of {folder} merged" if is_written else skipped(out))


def average(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Model folders (or encoder folders), two or more.", metavar="MODEL..."),
    ],
    out: Annotated[Path, options.out(help="Folder to write.")],
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Write the mean of several models' weights: of several seeds, or of several settings of one network.

    Example: `spoofkit average exp/seed0/finetune/model exp/seed1/finetune/model -o exp/mean`
    """
    from spoofkit.models.average import average as run
    from spoofkit.outputs import skipped

    is_written = run(folders, out, overwrite, reuse)
    echo(f"{out}: mean of {len(folders)} models" if is_written else skipped(out))
