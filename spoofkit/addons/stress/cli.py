"""The verb `stress`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo_json, say

Conditions = Annotated[
    list[str] | None,
    typer.Option(
        help="Conditions or groups (telephone, media, noise, room, level, band, cut), separated by commas; may be "
        "repeated. Default: all.",
        metavar="NAME,...",
    ),
]
Trials = Annotated[
    int, typer.Option(min=0, help="Number of trials to draw, evenly from keys, attacks and speakers; 0: the whole set.")
]
NoiseFolder = Annotated[
    Path | None, typer.Option(help="Folder of noises: adds noise_20, noise_10, noise_5.", metavar="DIR")
]
ReverbFolder = Annotated[
    Path | None,
    typer.Option(help="Folder of room impulse responses, in place of the synthetic rooms.", metavar="DIR"),
]
OperatingPoint = Annotated[
    str | None,
    typer.Option(
        help="Keep the threshold of this operating point of the clean scores, such as bpcer:1 or apcer:5. Default: the "
        "EER's; with --calibration, that of the costs.",
        metavar="RATE:PERCENT",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="From `calibrate`, of clean scores: adds Cllr, and the threshold that follows from costs.",
        metavar="CAL.json",
    ),
]
AcceptFrom = Annotated[
    float | None,
    typer.Option(help="Keep this threshold, a log-likelihood ratio; without --calibration, a score."),
]


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(stress)


def stress(
    model: options.Detector,
    manifest: Annotated[Path, typer.Argument(help="The set, with keys.", metavar="MANIFEST")],
    out: Annotated[Path, options.out(help="Folder of the card.", metavar="DIR")],
    conditions: Conditions = None,
    trials: Trials = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trials, noises and rooms.")] = 0,
    noise_folder: NoiseFolder = None,
    reverb_folder: ReverbFolder = None,
    operating_point: OperatingPoint = None,
    calibration: Calibration = None,
    spoof_prior: options.SpoofPrior = None,
    miss_cost: options.MissCost = None,
    fa_cost: options.FaCost = None,
    accept_from: AcceptFrom = None,
    replicates: Annotated[int, typer.Option(min=0, help="Resampled lists for intervals; 0: none.")] = 4000,
    resample: options.Resample = "speaker",
    crop: Annotated[
        str | None, typer.Option(help="As in `score`: `whole`, `first:N` or `repeat:N`. Default: as the model says.")
    ] = None,
    window: Annotated[float, typer.Option(help="As in `score`: seconds of a window of long recordings.")] = 30.0,
    device: options.Device = "auto",
    precision: Annotated[str, typer.Option(help="As in `score`, but not auto.", metavar="fp32|tf32|bf16")] = "fp32",
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
    as_json: options.Json = False,
) -> None:
    """Measure how a detector stands what happens to audio outside the lab: codecs, noise, rooms, levels, cuts.

    Each condition changes all trials and scores them as `score` does. The card has the EER of each with its interval
    and difference to clean, and APCER and BPCER at one threshold for all. Scores are kept as they come: after a kill
    the same command resumes. With --reuse, further conditions or another threshold use the scores that are there.

    Example: `spoofkit stress exp/x/finetune/model data/eval.tsv -o exp/x/stress`

    Example: `spoofkit stress exp/x/finetune/model data/eval.tsv -o exp/x/stress --calibration cal.json --reuse`

    Example: `spoofkit stress MODEL eval.tsv -o DIR --conditions telephone,white_10 --trials 500`
    """
    from spoofkit.addons.stress.run import StressOptions
    from spoofkit.addons.stress.run import stress as run
    from spoofkit.addons.stress.text import print_card
    from spoofkit.evaluation.error_rates import parse_limit
    from spoofkit.scoring.decisions import DecisionOptions
    from spoofkit.scoring.options import ScoreOptions
    from spoofkit.scoring.windows import parse_windows

    wanted = StressOptions(
        conditions=tuple(name for names in conditions or () for name in names.split(",") if name),
        n_trials=trials,
        seed=seed,
        noise_folder=noise_folder,
        reverb_folder=reverb_folder,
        operating_point=None if operating_point is None else parse_limit(operating_point),
        n_replicates=replicates,
        resample=resample,
        score=ScoreOptions(
            crop=crop,
            windows=parse_windows(window, None, "mean"),
            device=device,
            precision=precision,
            workers=workers,
            calibration=calibration,
            decision=DecisionOptions(spoof_prior, miss_cost, fa_cost, None, accept_from, None),
            overwrite=overwrite,
            reuse=reuse,
        ),
    )
    result = run(model, manifest, out, wanted)
    if as_json:
        echo_json(result)
    else:
        print_card(result)
    for warning in result["warnings"]:
        say(f"spoofkit: warning: {warning}")
    say(f"page: {out / 'stress.html'}")
