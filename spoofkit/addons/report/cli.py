"""The verb `report`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import echo

Calibration = Annotated[
    Path | None,
    typer.Option(
        help="From `calibrate`, fitted on material like the recording. Without it there is no verdict.",
        metavar="CAL.json",
    ),
]
ThresholdFrom = Annotated[
    Path | None,
    typer.Option(
        help="With a model that has a frame head: segments.json of `evaluate-segments`, to mark regions.",
        metavar="SEGMENTS.json",
    ),
]
Verify = Annotated[
    Path | None,
    typer.Option(
        help="Examine the recording again, and say in what this report differs. In place of -o.", metavar="CALL.json"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(report)


def report(
    model: options.Detector,
    inputs: Annotated[
        list[Path], typer.Argument(help="One recording; or several, folders, quoted globs.", metavar="INPUT...")
    ],
    out: Annotated[
        Path | None, options.out(help="The page on one recording; of several, a folder.", metavar="CALL.html|DIR")
    ] = None,
    calibration: Calibration = None,
    threshold_from: ThresholdFrom = None,
    verify: Verify = None,
    channels: options.Channels = "auto",
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Report on a recording, for people who have to rely on it: a page that prints, and a JSON that can be verified.

    The page says what was read, the likelihood ratio and its words, how reliable the calibration is and for what it
    holds, where in the recording scores are low, what the model is, and what all this does not say. Of several
    recordings there is a summary too: HTML, CSV and JSON, most likely spoofed first, with those that cannot be read.

    Example: `spoofkit report MODEL call.wav -o call.html --calibration cal.json`

    Example: `spoofkit report MODEL calls/ -o reports --calibration cal.json`

    Example: `spoofkit report MODEL call.wav --verify call.json --calibration cal.json`
    """
    from spoofkit.addons.report import run
    from spoofkit.addons.report import verify as verification
    from spoofkit.addons.report.instruments import Wanted

    wanted = Wanted(calibration, threshold_from, channels, device)
    if verify is not None:
        given = {"-o": out, "--channels": channels != "auto", "--overwrite": overwrite, "--reuse": reuse}
        if extra := next((name for name, value in given.items() if value), None):
            raise SpoofkitError(
                f"--verify and {extra}: a report is only read, and says itself how it was made; leave {extra} out"
            )
        lines = verification.verify(verify, model, inputs, wanted)
    elif out is None:
        raise SpoofkitError(
            "report: found neither an output nor --verify; write `-o CALL.html`, or of several recordings `-o DIR`"
        )
    else:
        lines = run.report(model, inputs, out, wanted, overwrite=overwrite, reuse=reuse)
    for line in lines:
        echo(line)
