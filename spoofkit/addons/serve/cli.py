"""The verb `serve`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.cli.localize import MinRegion, Smooth, Threshold
from spoofkit.cli.score import AcceptFrom, Calibration, Crop, Hop, MinSpeech, OverWindows, RejectBelow, Window
from spoofkit.errors import SpoofkitError

Model = Annotated[
    Path,
    typer.Argument(
        help="Model folder, `*.onnx` of `export`, hub:OWNER/MODEL, or, to localize only, the folder of a "
        "post-training.",
        metavar="MODEL",
    ),
]
Host = Annotated[str, typer.Option(help="Address to bind; one that others can reach needs --keys.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")]
Keys = Annotated[
    Path | None,
    typer.Option(help="File with the keys of those who may ask, one a line.", metavar="FILE"),
]
MostMegabytes = Annotated[float, typer.Option(help="Largest recording that is taken, in MB.")]
MostSeconds = Annotated[
    float, typer.Option(help="Longest recording that is taken; of separate channels, all of them together.")
]
UploadSeconds = Annotated[float, typer.Option(help="Seconds in which a recording has to come in.")]
MostWait = Annotated[
    float,
    typer.Option(min=0, help="Seconds; a request that is expected to wait longer for the model is refused (429)."),
]
LogNames = Annotated[bool, typer.Option("--log-names", help="Write the names of recordings into the log too.")]
ThresholdFrom = Annotated[
    Path | None,
    typer.Option(
        help="Threshold and smoothing from `evaluate-segments` on a development set.", metavar="SEGMENTS.json"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(serve)


def serve(
    model: Model,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    keys: Keys = None,
    most_megabytes: MostMegabytes = 64.0,
    most_seconds: MostSeconds = 600.0,
    upload_seconds: UploadSeconds = 60.0,
    most_wait: MostWait = 0.8,
    log_names: LogNames = False,
    crop: Crop = None,
    channels: options.Channels = "auto",
    window: Window = 30.0,
    hop: Hop = None,
    over_windows: OverWindows = "mean",
    min_speech: MinSpeech = None,
    calibration: Calibration = None,
    spoof_prior: options.SpoofPrior = None,
    miss_cost: options.MissCost = None,
    fa_cost: options.FaCost = None,
    abstain_cost: options.AbstainCost = None,
    accept_from: AcceptFrom = None,
    reject_below: RejectBelow = None,
    threshold: Threshold = None,
    threshold_from: ThresholdFrom = None,
    smooth: Smooth = None,
    min_region: MinRegion = None,
    device: options.Device = "auto",
    precision: Annotated[str, typer.Option(help="As in `score`, but not auto.", metavar="fp32|tf32|bf16")] = "fp32",
) -> None:
    """Serve a model over HTTP: scores and regions for programs, and a page for people.

    `POST /v1/score` and `POST /v1/localize` take a recording, as the body or as the file of a form, and answer with the
    numbers of `score` and `localize`. `/` is a page where recordings are dropped, `/docs` the reference. Recordings are
    held in memory until they are answered; the log holds no names. Ctrl-C or SIGTERM ends it, after the requests that
    are at work.

    Example: `spoofkit serve exp/x/finetune/model --calibration cal.json --abstain-cost 0.2`

    Example: `spoofkit serve model.onnx --host 0.0.0.0 --keys keys.txt`

    Example: `curl -F file=@call.wav http://127.0.0.1:8000/v1/score`
    """
    try:
        from spoofkit.addons.serve.run import ServeOptions
        from spoofkit.addons.serve.run import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "spoofkit":
            raise
        raise SpoofkitError(f"serve: needs the package {error.name}; run `tools/setup.sh --extras serve`") from error
    run(
        model,
        ServeOptions(
            host=host,
            port=port,
            keys=keys,
            most_megabytes=most_megabytes,
            most_seconds=most_seconds,
            upload_seconds=upload_seconds,
            most_wait=most_wait,
            log_names=log_names,
            channels=channels,
            detector={
                "crop": crop,
                "window": window,
                "hop": hop,
                "over_windows": over_windows,
                "min_speech": min_speech,
                "calibration": calibration,
                "spoof_prior": spoof_prior,
                "miss_cost": miss_cost,
                "fa_cost": fa_cost,
                "abstain_cost": abstain_cost,
                "accept_from": accept_from,
                "reject_below": reject_below,
                "device": device,
                "precision": precision,
            },
            regions={
                "threshold": threshold,
                "threshold_from": threshold_from,
                "smooth": smooth,
                "min_region": min_region,
            },
        ),
    )
