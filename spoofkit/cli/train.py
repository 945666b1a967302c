"""Verbs that train: posttrain, finetune."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo, say

Train = Annotated[Path, typer.Option("--train", help="Manifest to train on.", metavar="TRAIN.tsv")]
Dev = Annotated[Path, typer.Option("--dev", help="Manifest by which the weights are chosen.", metavar="DEV.tsv")]
Experiment = Annotated[
    Path, typer.Argument(help="Experiment folder; a run that stopped resumes from its checkpoint.", metavar="EXP")
]

Compile = Annotated[
    bool,
    typer.Option("--compile", help="Let torch compile the layers: slow to start, a few percent faster on a CPU."),
]

ShardLayers = Annotated[
    bool,
    typer.Option("--shard-layers", help="Under torchrun: each process keeps a share of every layer (FSDP2)."),
]

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what the first step sees, takes and costs; write nothing.")
]

TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write the figures for TensorBoard too.")]


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the program."""
    app.command()(posttrain)
    app.command()(finetune)


def posttrain(
    exp: Experiment,
    train: Train,
    dev: Dev,
    mix: Annotated[Path | None, typer.Option(help="Training mix list. Default: EXP/mix.tsv.")] = None,
    dev_mix: Annotated[Path | None, typer.Option(help="Held-out mix list. Default: EXP/mix_dev.tsv.")] = None,
    onto: Annotated[
        Path | None,
        typer.Option(
            help="Train a frame head alone, on the encoder of this model as it is; writes EXP/model, with both heads.",
            metavar="MODEL",
        ),
    ] = None,
    config: options.Config = None,
    set_: options.Set = None,
    device: options.Device = "auto",
    workers: options.Workers = 0,
    compile_: Compile = False,
    shard_layers: ShardLayers = False,
    overwrite: options.Overwrite = False,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
) -> None:
    """Train an encoder to find injected frames; writes EXP/encoder.

    Call it again after an interrupt: it resumes from the newest checkpoint, to the same result.

    Fine-tuning changes the encoder, so the frame head of post-training does not fit its model. `--onto` trains another
    on the encoder of that model, as it is: EXP/model scores as MODEL does, and `localize` takes it too.

    Example: `spoofkit posttrain exp/x/posttrain --train data/train.tsv --dev data/dev.tsv -c conf/xlsr300m.yaml`

    Example: `spoofkit posttrain exp/x/timeline --onto exp/x/finetune/model --mix exp/x/posttrain/mix.tsv
    --dev-mix exp/x/posttrain/mix_dev.tsv --train data/train.tsv --dev data/dev.tsv -c conf/xlsr300m.yaml
    --set mix.frame_target=authenticity`
    """
    from spoofkit.config import load_config
    from spoofkit.models.device import choose_device
    from spoofkit.training.loop import Run
    from spoofkit.training.posttrain import posttrain as train_encoder

    settings = load_config(config, set_)
    result = train_encoder(
        exp,
        settings,
        train_manifest=train,
        dev_manifest=dev,
        mix=mix or exp / "mix.tsv",
        dev_mix=dev_mix or exp / "mix_dev.tsv",
        onto=onto,
        run=Run(choose_device(device), workers, overwrite, compile_, shard_layers, tensorboard, dry_run),
    )
    _tell(exp / ("encoder" if onto is None else "model"), result)


def finetune(
    exp: Experiment,
    train: Train,
    dev: Dev,
    encoder: Annotated[
        str | None, typer.Option(help="Instead of encoder.name: a post-trained EXP/encoder.", metavar="ENCODER")
    ] = None,
    config: options.Config = None,
    set_: options.Set = None,
    device: options.Device = "auto",
    workers: options.Workers = 0,
    compile_: Compile = False,
    shard_layers: ShardLayers = False,
    overwrite: options.Overwrite = False,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
) -> None:
    """Train a detector on whole utterances; writes EXP/model.

    Call it again after an interrupt: it resumes from the newest checkpoint, to the same result. With the setting
    finetune.frozen_first the head is trained alone first, in EXP/frozen.

    Example: `spoofkit finetune exp/x/finetune --encoder exp/x/posttrain/encoder --train data/train.tsv
    --dev data/dev.tsv -c conf/xlsr300m.yaml`
    """
    from spoofkit.config import load_config
    from spoofkit.models.device import choose_device
    from spoofkit.training.finetune import finetune as train_detector
    from spoofkit.training.loop import Run

    if encoder is not None:
        # A revision in the file is that of the encoder there; one that --set gives is that of this encoder.
        set_ = ["encoder.revision=null", *(set_ or []), f"encoder.name={json.dumps(encoder)}"]
    settings = load_config(config, set_)
    result = train_detector(
        exp,
        settings,
        train_manifest=train,
        dev_manifest=dev,
        run=Run(choose_device(device), workers, overwrite, compile_, shard_layers, tensorboard, dry_run),
    )
    _tell(exp / "model", result)


def _tell(out: Path, result: dict[str, Any] | None) -> None:
    if os.environ.get("RANK", "0") != "0":
        return  # one process of a run speaks for all
    if result is None:
        say(f"{out}: finished already, skipped")
        return
    if "lines" in result:
        for line in result["lines"]:
            echo(line)
        return
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in result["figures"].items())
    echo(f"{out}: weights of step {result['step']} ({figures or 'not evaluated on dev'})")
