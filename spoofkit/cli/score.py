"""The verb `score`."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo

Model = Annotated[
    Path,
    typer.Argument(
        help="Model folder, such as EXP/model of `finetune`; what `export` made of it, `*.onnx`, which needs no torch; "
        "or hub:OWNER/MODEL of the Hugging Face hub.",
        metavar="MODEL",
    ),
]
Inputs = Annotated[
    list[Path],
    typer.Argument(
        help="A manifest; or recordings (files, folders, quoted globs, `-` for paths on stdin).", metavar="INPUT..."
    ),
]
Out = Annotated[
    Path | None,
    options.out(
        help="Score file to write, with a record (`OUT.json`) and, if something is decided, `OUT.decisions.tsv` "
        "beside it; of recordings a table, `.tsv` or `.csv`. Default, of recordings: print.",
        metavar="OUT.tsv",
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        help="`whole`; `first:N`, the first N samples (16 kHz); `repeat:N`, the same, with shorter ones repeated to "
        "N. Default: as the model says, mostly whole."
    ),
]
Window = Annotated[float, typer.Option(help="Seconds of a window; longer recordings are scored in windows. 0: never.")]
Hop = Annotated[float | None, typer.Option(help="Seconds from one window to the next. Default: they do not overlap.")]
OverWindows = Annotated[
    str, typer.Option(help="A long recording's score: `mean` of its windows, weighted by the time each adds; or `min`.")
]
MinSpeech = Annotated[
    float | None,
    typer.Option(
        help="Leave out windows and recordings with less than this many seconds of speech, such as 0.5; a mean "
        "is then weighted by the speech each window adds. Needs the extra `vad`. Default: everything is scored.",
        metavar="SECONDS",
    ),
]
WindowsOut = Annotated[Path | None, typer.Option(help="Also write the windows' scores here.", metavar="WINDOWS.tsv")]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="From `calibrate`: scores become log-likelihood ratios, with a probability of bona fide and a "
        "decision each.",
        metavar="CAL.json",
    ),
]
AcceptFrom = Annotated[
    float | None,
    typer.Option(
        help="Accept from this log-likelihood ratio on, whatever the costs; without --calibration, from this score."
    ),
]
RejectBelow = Annotated[
    float | None,
    typer.Option(help="With --accept-from: reject below this one, abstain between. Default: the same."),
]
JsonLines = Annotated[
    bool, typer.Option("--json-lines", help="Print a line of JSON for each recording as soon as it is scored.")
]
Part = Annotated[
    str | None,
    typer.Option(help="Score only part K of N, such as 3/8, for job arrays; then --merge.", metavar="K/N"),
]
Merge = Annotated[bool, typer.Option("--merge", help="Score nothing: join the parts that --part left beside OUT.tsv.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(score)


def score(
    model: Model,
    inputs: Inputs,
    out: Out = None,
    crop: Crop = None,
    channels: options.Channels = "auto",
    window: Window = 30.0,
    hop: Hop = None,
    over_windows: OverWindows = "mean",
    min_speech: MinSpeech = None,
    windows: WindowsOut = None,
    calibration: Calibration = None,
    spoof_prior: options.SpoofPrior = None,
    miss_cost: options.MissCost = None,
    fa_cost: options.FaCost = None,
    abstain_cost: options.AbstainCost = None,
    accept_from: AcceptFrom = None,
    reject_below: RejectBelow = None,
    json_lines: JsonLines = False,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    workers: options.Workers = 0,
    part: Part = None,
    merge: Merge = False,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Score utterances: higher = more likely bona fide.

    A manifest gives the score file of the ASVspoof 5 evaluation package; beside it a JSON that says how it was made
    and, with a calibration or --accept-from, a table of decisions. Other recordings (any audio, and the sound
    of a video) have a row each in the table that `-o` names, or on stdout: aligned on a terminal, as TSV in a
    pipe. Channels that differ, such as the two parties of a call, have rows of their own (see --channels). One that
    cannot be read says why in its row, the others are scored, and the exit code is 1. Scores in a file are kept as
    they come: after a kill or a stop, the same command resumes where it was, and ends with the same file.

    Example: `spoofkit score exp/x/finetune/model data/eval.tsv -o exp/x/scores/eval.tsv`

    Example: `spoofkit score exp/x/finetune/model call.wav other_calls/ --calibration cal.json --abstain-cost 0.2`

    Example: `spoofkit score hub:nii-yamagishilab/mms-300m-anti-deepfake call.wav`

    Example: `spoofkit score MODEL calls/ -o calls.csv --calibration cal.json`

    Example: `spoofkit score MODEL meeting.mp4 --min-speech 0.5 --windows windows.tsv`

    Example: `spoofkit score MODEL call.wav --channels 2`

    Example: `find /calls -name '*.wav' | spoofkit score MODEL - --json-lines`

    Example: `spoofkit score MODEL eval.tsv -o OUT.tsv --part 3/8`, then, when all 8 are there, the same with `--merge`

    Example: `torchrun --nproc-per-node 4 -m spoofkit score MODEL eval.tsv -o OUT.tsv`, on four GPUs
    """
    from spoofkit.scoring.decisions import DecisionOptions
    from spoofkit.scoring.options import ScoreOptions
    from spoofkit.scoring.run import score_inputs
    from spoofkit.scoring.windows import parse_windows

    wanted = ScoreOptions(
        crop=crop,
        channels=channels,
        windows=parse_windows(window, hop, over_windows),
        min_speech=min_speech,
        device=device,
        precision=precision,
        workers=workers,
        calibration=calibration,
        decision=DecisionOptions(spoof_prior, miss_cost, fa_cost, abstain_cost, accept_from, reject_below),
        windows_out=windows,
        json_lines=json_lines,
        width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None,
        overwrite=overwrite,
        reuse=reuse,
        part=part,
        merge=merge,
    )
    for line in score_inputs(model, inputs, out, wanted):
        echo(line)
