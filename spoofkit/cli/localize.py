"""Verbs about where an utterance is spoofed: localize, evaluate-segments."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import echo, echo_json, say

Experiment = Annotated[
    Path,
    typer.Argument(
        help="Folder of a finished `posttrain`, such as exp/x/posttrain; or a model with both heads, such as "
        "exp/x/timeline/model, or hub:OWNER/MODEL of one.",
        metavar="EXP_OR_MODEL",
    ),
]
Inputs = Annotated[
    list[Path],
    typer.Argument(help="Recordings (files, folders, quoted globs); or a manifest.", metavar="INPUT..."),
]
Out = Annotated[
    Path,
    options.out(
        help="Of recordings, the folder for the outputs; of a manifest, the frame scores to write.",
        metavar="OUTDIR|OUT.npz",
    ),
]
ThresholdFrom = Annotated[
    Path | None,
    typer.Option(
        help="Of recordings: segments.json of `evaluate-segments` on a development set, for threshold and smoothing.",
        metavar="SEGMENTS.json",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(help="Frames scoring at or below it are marked. Default: 0, and every output says it was not fitted."),
]
Smooth = Annotated[
    float | None, typer.Option(help="Seconds of a running median over the scores. Default: no smoothing.")
]
MinRegion = Annotated[float | None, typer.Option(help="Shorter regions are dropped. Default: 0.1 s.")]
Mix = Annotated[
    Path | None,
    typer.Option(
        help="Mix list drawn from the manifest: score its mixes, and write the regions that are to be found in them "
        "as OUT.segments.tsv.",
        metavar="MIX.tsv",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="Of recordings, with a model that has both heads: what `calibrate` made of its scores, for a "
        "probability and a decision.",
        metavar="CALIBRATION.json",
    ),
]
Known = Annotated[
    Path | None,
    typer.Option(
        help="Of recordings, regions that are known from labels: shown beside what is marked, and compared with it. "
        "The file names each recording as its own file is named, without suffix.",
        metavar="SET.segments.tsv|SET.rttm",
    ),
]
Note = Annotated[
    str | None, typer.Option(help="Of recordings: a text for the top of the page, such as where they are from.")
]

Frames = Annotated[Path, typer.Argument(help="Frame scores of `localize`.", metavar="FRAMES.npz")]
Segments = Annotated[
    Path,
    typer.Argument(
        help="Spoofed regions of the same utterances; or RTTM, with --manifest.", metavar="SET.segments.tsv|SET.rttm"
    ),
]
SegmentsOut = Annotated[Path, options.out(help="Folder for segments.json and segment_eer.png.")]
SegmentsManifest = Annotated[
    Path | None,
    typer.Option(
        help="Of the same utterances, for RTTM, which has no durations and nothing of clean utterances.",
        metavar="SET.tsv",
    ),
]
SegmentsThreshold = Annotated[
    float | None,
    typer.Option(help="For precision, recall and F1, such as one of dev. Default: where this set has its EER."),
]
SegmentsThresholdFrom = Annotated[
    Path | None,
    typer.Option(help="segments.json of a development set: its threshold and smoothing.", metavar="SEGMENTS.json"),
]
SegmentsSmooth = Annotated[
    str | None,
    typer.Option(
        help="Seconds of a running median over the scores; or `fit`: of 0 to 0.5 s the one with the lowest "
        "range-based EER, for a development set. Default: no smoothing.",
        metavar="SECONDS|fit",
    ),
]

OF_RECORDINGS = ("--threshold-from", "--threshold", "--smooth", "--min-region", "--calibration", "--known", "--note")


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the program."""
    app.command()(localize)
    app.command()(evaluate_segments)


def localize(
    experiment: Experiment,
    inputs: Inputs,
    out: Out,
    threshold_from: ThresholdFrom = None,
    threshold: Threshold = None,
    smooth: Smooth = None,
    min_region: MinRegion = None,
    mix: Mix = None,
    calibration: Calibration = None,
    known: Known = None,
    note: Note = None,
    channels: options.Channels = "auto",
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Find the spoofed regions of recordings, with a frame head.

    Of recordings, OUTDIR gets NAME.rttm, NAME.txt (Audacity labels), NAME.png and NAME.json of each, and timeline.html
    to look at and listen to. Of a manifest, OUT.npz gets the scores of all frames, higher = more bona fide: after a
    kill or a stop, the same command resumes where it was, and ends with the same file.

    With --reuse, recordings that are up to date are skipped, so that those that have come since can be added: name all
    of them. A call that was stopped resumes when it is given again.

    Channels that differ, such as the two parties of a call, are marked by themselves: NAME.ch1.rttm and so on.

    A model with both heads (`posttrain --onto`) gives each recording its score of `spoofkit score` too. Up to half a
    minute, frames and score come from one pass of the encoder; a longer recording takes two.

    If the regions of a recording are known, `--known` shows them too, and says how much of them is marked.

    To find spoofed regions, post-train with `mix.frame_target: authenticity`; with `region` a low score says injected,
    of whatever kind.

    Example: `spoofkit localize exp/x/posttrain call.wav calls/ -o marked --threshold-from
    exp/x/results/dev/segments.json`

    Example: `spoofkit localize exp/x/timeline/model call.wav -o marked --calibration exp/x/calibration.json`

    Example: `spoofkit localize exp/x/posttrain data/eval.tsv -o exp/x/frames/eval.npz`

    Example: `spoofkit localize exp/x/posttrain data/dev.tsv -o exp/x/frames/mix_dev.npz --mix
    exp/x/posttrain/mix_dev.tsv`
    """
    if out.suffix == ".npz" or mix is not None or inputs[0].suffix == ".tsv":
        from spoofkit.localisation.localize import localize as localize_set

        of_recordings = (threshold_from, threshold, smooth, min_region, calibration, known, note)
        _require_one_manifest(inputs, channels, dict(zip(OF_RECORDINGS, of_recordings, strict=True)))
        lines = localize_set(
            experiment,
            inputs[0],
            out,
            mix_path=mix,
            device=device,
            precision=precision,
            workers=workers,
            overwrite=overwrite,
            reuse=reuse,
        )
    else:
        from spoofkit.localisation.recordings import RegionOptions, localize_recordings

        if workers:
            raise SpoofkitError("--workers: is about manifests, found recordings; leave it out")
        lines = localize_recordings(
            experiment,
            inputs,
            out,
            RegionOptions(threshold, threshold_from, smooth, min_region),
            channels=channels,
            calibration=calibration,
            known=known,
            note=note or "",
            device=device,
            precision=precision,
            overwrite=overwrite,
            reuse=reuse,
        )
    for line in lines:
        echo(line)


def _require_one_manifest(inputs: list[Path], channels: str, of_recordings: dict[str, object]) -> None:
    """Refuse several inputs, and options that are about recordings."""
    from spoofkit.data.channels import require_channels

    if len(inputs) > 1:
        raise SpoofkitError(f"localize: found {len(inputs)} inputs, expected one manifest; name one")
    require_channels(channels, inputs[0])
    for name, value in of_recordings.items():
        if value is not None:
            raise SpoofkitError(
                f"{name}: is about recordings, found a manifest, of which frame scores are written as they are; "
                "leave it out (`spoofkit evaluate-segments` takes thresholds, `spoofkit score` calibrations)"
            )


def evaluate_segments(
    frames: Frames,
    segments: Segments,
    out: SegmentsOut,
    manifest: SegmentsManifest = None,
    threshold: SegmentsThreshold = None,
    threshold_from: SegmentsThresholdFrom = None,
    smooth: SegmentsSmooth = None,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
    as_json: options.Json = False,
) -> None:
    """Compute range-based EER, segment EER from 0.02 to 0.64 s, precision, recall and F1; table, JSON and a picture.

    Of a development set, segments.json holds the threshold and the smoothing that `localize --threshold-from` takes.

    Example: `spoofkit evaluate-segments exp/x/frames/dev.npz data/dev.segments.tsv -o exp/x/results/dev --smooth fit`

    Example: `spoofkit evaluate-segments exp/x/frames/eval.npz data/eval.segments.tsv -o exp/x/results/eval
    --threshold-from exp/x/results/dev/segments.json`

    Example: `spoofkit evaluate-segments exp/x/frames/eval.npz eval.rttm -o exp/x/results/eval --manifest data/eval.tsv`
    """

    from spoofkit.localisation.segment_report import evaluate_segments as run
    from spoofkit.localisation.segment_report import print_segments

    result = run(
        frames,
        segments,
        out,
        manifest=manifest,
        threshold=threshold,
        threshold_from=threshold_from,
        smoothing=smooth,
        overwrite=overwrite,
        reuse=reuse,
    )
    for warning in result["warnings"]:
        say(f"spoofkit: warning: {warning}")
    if as_json:
        echo_json(result)
    else:
        print_segments(result)
    say(f"picture: {out / 'segment_eer.png'}")
