"""The verb `evaluate-segments`: frame scores and spoofed regions to segments.json, segment_eer.png, a table."""

import math
import platform
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

import spoofkit
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.rttm import read_regions
from spoofkit.data.segments import LONGEST_OVERHANG, Regions
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import EER_VARIANT
from spoofkit.files import atomic_path, file_sha256, read_json, write_json
from spoofkit.localisation.frame_scores import FrameScores, read_frames
from spoofkit.localisation.metrics import (
    Samples,
    Timeline,
    frame_operation,
    frame_stretches,
    is_spoof,
    make_timeline,
    range_eer,
    segment_eer,
    spoofed_before,
)
from spoofkit.localisation.regions import SMOOTHINGS_SECONDS, make_rule, require_smoothing, smooth_frames
from spoofkit.outputs import Output, is_up_to_date, read_json_record, require_unchanged, skipped, with_checksums
from spoofkit.tables import BONAFIDE, SPOOF, Column, Table, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
"""Version of segments.json; raised when an entry changes its meaning."""
RULE = (
    "a segment is spoofed if any part of it is, its score is the lowest of the frames centred in it; every segment is "
    f"a trial; EER: {EER_VARIANT} variant"
)
RESOLUTIONS_MS = (10, 20, 40, 80, 160, 320, 640)
"""Resolutions of PartialSpoof's segment labels (version 1.2)."""


def evaluate_segments(
    frames_path: Path,
    segments_path: Path,
    out_dir: Path,
    *,
    manifest: Path | None = None,
    threshold: float | None = None,
    threshold_from: Path | None = None,
    smoothing: str | None = None,
    overwrite: bool = False,
    reuse: bool = False,
) -> dict[str, Any]:
    """Measure frame scores against spoofed regions, and write `segments.json` and `segment_eer.png` into a folder.

    Args:
        frames_path: Frame scores (`spoofkit localize`).
        segments_path: The spoofed regions of exactly the same utterances; `.rttm` is read as RTTM.
        out_dir: Folder of the results; created if it does not exist.
        manifest: Manifest of the same utterances; only for RTTM, which lacks durations and utterances without regions.
        threshold: For precision, recall and F1. Default: that of the range-based EER of this set.
        threshold_from: A `segments.json` of a development set, whose threshold and smoothing are used instead.
        smoothing: Seconds of the running median over the scores, as text; or `fit`: the one of SMOOTHINGS_SECONDS with
            the lowest range-based EER of this set. Default: no smoothing.
        overwrite: Replace existing results.
        reuse: Skip results that are up to date; recreate those of an interrupted run.

    Returns:
        The contents of segments.json.

    Raises:
        SpoofkitError: a result exists already, an input is damaged or does not match the other, or the disk refuses.
    """
    json_path, png_path = out_dir / "segments.json", out_dir / "segment_eer.png"
    if threshold is not None and not math.isfinite(threshold):
        raise SpoofkitError(f"--threshold {threshold}: expected a finite number; give one")

    def hashed() -> dict[str, Any]:
        return {
            "format": FORMAT,
            "frames_sha256": file_sha256(frames_path),
            "segments_sha256": file_sha256(segments_path),
            "threshold": threshold,
            "threshold_from_sha256": None if threshold_from is None else file_sha256(threshold_from),
            "smoothing": smoothing,
            **({} if manifest is None else {"manifest_sha256": file_sha256(manifest)}),
        }

    made_from = hashed()
    output = Output("evaluate-segments", (json_path, png_path), json_path, made_from, read_json_record("made_from"))
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        tqdm.write(skipped(json_path), file=sys.stderr)
    else:
        measured, made_with = _measure_files(frames_path, segments_path, manifest, threshold, threshold_from, smoothing)
        require_unchanged(json_path, made_from, hashed())
        _write(json_path, png_path, measured | {"made_from": made_from, "made_with": made_with})
    result: dict[str, Any] = read_json(json_path)
    return result


def _measure_files(
    frames_path: Path,
    segments_path: Path,
    manifest: Path | None,
    threshold: float | None,
    threshold_from: Path | None,
    smoothing: str | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure two files; return the results with smoothing and warnings, and what they were made with."""
    frames, record = read_frames(frames_path)
    timeline = _timeline(frames, frames_path, segments_path, read_regions(segments_path, manifest))
    if threshold_from is None:
        smooth_seconds, tried = _smoothing(smoothing, frames, timeline)
        rule_words = "the command line"
    else:
        rule = make_rule(
            threshold, threshold_from, None if smoothing is None else 0.0, 0.0, _model(record, frames_path)
        )
        threshold, rule_words, smooth_seconds, tried = rule.threshold, rule.threshold_from, rule.smooth_seconds, []
    result = measure(smooth_frames(frames, smooth_seconds), timeline, threshold, rule_words)
    result |= {
        "smooth_seconds": smooth_seconds,
        "smoothings_tried": tried,
        "warnings": _warnings(record, file_sha256(segments_path)),
        "partial": record.get("partial", ""),
        "n_rejected": record.get("n_rejected", 0),
    }
    return result, {
        "frames": str(frames_path),
        "segments": str(segments_path),
        "spoofkit": spoofkit.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "frames_made_with": record,
    }


def _write(json_path: Path, png_path: Path, result: dict[str, Any]) -> None:
    from spoofkit.pictures import png

    picture = png(eer_over_resolution(result))
    result = with_checksums(result, {png_path.name: sha256(picture).hexdigest()})
    # The picture is complete before the record appears: a kill leaves no picture without its record.
    with atomic_path(png_path, overwrite=True) as temporary_png:
        temporary_png.write_bytes(picture)
        write_json(json_path, result, overwrite=True)


def measure(
    frames: FrameScores, timeline: Timeline, threshold: float | None = None, threshold_from: str = "the command line"
) -> dict[str, Any]:
    """Compute all measures as plain values with their units in their names."""
    utterance_N, centre_N, hop = frames.utterance_of_frame(), frames.centres(), frames.geometry.hop
    spoof_samples_N, bonafide_samples_N = _samples_of_frames(frames, timeline)
    overall = range_eer(frames.score_N, spoof_samples_N, bonafide_samples_N)
    last_N = timeline.n_samples_U[utterance_N] - 1
    operation = frame_operation(
        frames.score_N,
        is_spoof(timeline, timeline.start_U[utterance_N] + np.minimum(centre_N, last_N)),
        overall.threshold if threshold is None else threshold,
    )
    # A segment shorter than the hop may have no frame.
    measured = [ms for ms in RESOLUTIONS_MS if ms * SAMPLE_RATE >= 1000 * hop]
    return {
        "n_utterances": len(frames.utt_ids),
        "n_frames": int(frames.score_N.size),
        "frame_hop_seconds": hop / SAMPLE_RATE,
        "seconds": int(timeline.n_samples_U.sum()) / SAMPLE_RATE,
        "spoofed_seconds": int(spoof_samples_N.sum()) / SAMPLE_RATE,
        "range_eer_percent": 100 * overall.eer,
        "range_eer_threshold": overall.threshold,
        "segments": [_segments(frames, timeline, ms) for ms in measured],
        "left_out_seconds": [ms / 1000 for ms in RESOLUTIONS_MS if ms not in measured],
        "frames": {
            "threshold": operation.threshold,
            "threshold_from": "range-based EER of this set" if threshold is None else threshold_from,
            "precision_percent": _percent(operation.precision),
            "recall_percent": _percent(operation.recall),
            "f1_percent": _percent(operation.f1),
        },
    }


def _segments(frames: FrameScores, timeline: Timeline, ms: int) -> dict[str, Any]:
    """Compute the official EER of segments of some milliseconds, and count them."""
    utterance_N, centre_N = frames.utterance_of_frame(), frames.centres()
    found = segment_eer(timeline, utterance_N, centre_N, frames.score_N, ms * SAMPLE_RATE // 1000)
    return {
        "resolution_seconds": ms / 1000,
        "eer_official_percent": None if found.eer is None else 100 * found.eer.eer,
        "eer_threshold": None if found.eer is None else found.eer.threshold,
        "n_bonafide": found.n_bonafide,
        "n_spoof": found.n_spoof,
        "n_without_frame": found.n_without_frame,
    }


def eer_over_resolution(result: Mapping[str, Any]) -> "Figure":
    """Plot the segment EER over the resolution, and the range-based EER, which has none, as a line."""
    import matplotlib
    from matplotlib.figure import Figure

    from spoofkit.pictures import BONAFIDE, PAGE, SPOOF, STYLE

    rows = [row for row in result["segments"] if row["eer_official_percent"] is not None]
    seconds = [row["resolution_seconds"] for row in rows]
    values = [row["eer_official_percent"] for row in rows]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.8), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(seconds, values, "o-", color=BONAFIDE, linewidth=1.8, label=f"segment EER ({EER_VARIANT})")
        for x, y in zip(seconds, values, strict=True):
            axes.annotate(
                f"{y:.2f}",
                (x, y),
                (0, 8),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                bbox={"facecolor": PAGE, "edgecolor": "none", "pad": 0.8},  # the other line may pass here
            )
        overall = result["range_eer_percent"]
        label = f"range-based EER {overall:.2f} %"
        axes.axhline(overall, color=SPOOF, linewidth=1.4, linestyle=(0, (4, 2)), label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(seconds, [f"{second:g}" for second in seconds])
        axes.set_ylim(0, max(1.25 * max(*values, overall) if values else 1.25 * overall, 0.1))
        axes.set(xlabel="Length of a segment, s", ylabel="EER, %")
        axes.grid(True)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return figure


def print_segments(result: Mapping[str, Any]) -> None:
    """Print the range-based EER, the frames at the threshold, then the EER at every resolution."""
    columns = [
        Column("resolution_seconds", "segment, s", "g"),
        Column("eer_official_percent", "EER, %", ".3f"),
        *(BONAFIDE, SPOOF, Column("n_without_frame", "no frame", ",")),
    ]
    show(*_in_words(result), f"{RULE}\n", Table(columns, result["segments"]))


def _in_words(result: Mapping[str, Any]) -> Iterator[str]:
    frames = result["frames"]
    smoothed = f"running median of {result['smooth_seconds']:g} s" if result["smooth_seconds"] else "not smoothed"
    fitted = ", fitted on this set" if result["smoothings_tried"] else ""
    yield (
        f"range-based EER {result['range_eer_percent']:.3f} %, threshold {result['range_eer_threshold']:.6g}; scores "
        f"{smoothed}{fitted}"
    )
    values = {name: frames[f"{name.lower()}_percent"] for name in ("precision", "recall", "F1")}
    words = ", ".join(f"{name} {'-' if value is None else f'{value:.2f} %'}" for name, value in values.items())
    yield f"frames at {frames['threshold']:.6g} ({frames['threshold_from']}): {words}"
    yield (
        f"{result['n_utterances']:,} utterances, {result['seconds']:,.1f} s, {result['spoofed_seconds']:,.1f} s of it "
        "spoofed"
    )
    if result["left_out_seconds"]:
        finer = ", ".join(f"{seconds:g}" for seconds in result["left_out_seconds"])
        yield f"skipped: {finer} s, shorter than the hop of the frames ({result['frame_hop_seconds']:g} s)"
    if result["partial"]:
        yield f"partial set: {result['partial']}"
    if result["n_rejected"]:
        yield f"{result['n_rejected']:,} utterances were rejected because their files cannot be used"


def _samples_of_frames(frames: FrameScores, timeline: Timeline) -> tuple[Samples, Samples]:
    """Count the samples of each frame's stretch that are spoofed, and that are not; shape (N,) each."""
    start_N, end_N = frame_stretches(timeline, frames.utterance_of_frame(), frames.centres(), frames.geometry.hop)
    spoof_samples_N = spoofed_before(timeline, end_N) - spoofed_before(timeline, start_N)
    return spoof_samples_N, end_N - start_N - spoof_samples_N


def _smoothing(smoothing: str | None, frames: FrameScores, timeline: Timeline) -> tuple[float, list[dict[str, float]]]:
    """Return the seconds of the running median and, if it is fitted, all that were tried."""
    if smoothing != "fit":
        try:
            seconds = float(smoothing or 0)
        except ValueError:
            raise SpoofkitError(f"--smooth {smoothing}: expected seconds, such as 0.1, or fit; give one") from None
        require_smoothing(seconds)
        return seconds, []
    samples = _samples_of_frames(frames, timeline)
    tried = [
        {
            "smooth_seconds": seconds,
            "range_eer_percent": 100 * range_eer(smooth_frames(frames, seconds).score_N, *samples).eer,
        }
        for seconds in SMOOTHINGS_SECONDS
    ]
    return min(tried, key=lambda row: row["range_eer_percent"])["smooth_seconds"], tried


def _timeline(frames: FrameScores, frames_path: Path, segments_path: Path, regions: Mapping[str, Regions]) -> Timeline:
    if regions.keys() != set(frames.utt_ids):
        utt_id = min(regions.keys() ^ set(frames.utt_ids))
        there = segments_path if utt_id in regions else frames_path
        raise SpoofkitError(
            f"{frames_path} with {segments_path}: {utt_id!r} is only in {there}, expected the same utterances in both; "
            "give the regions of the set that was localized"
        )
    for utt_id, n_samples in zip(frames.utt_ids, frames.n_samples_U.tolist(), strict=True):
        own = regions[utt_id]
        if own.size and own[-1, 1] > n_samples + LONGEST_OVERHANG:
            raise SpoofkitError(
                f"{segments_path}: a region of {utt_id!r} ends at {own[-1, 1] / SAMPLE_RATE:g} s, but the utterance is "
                f"{n_samples / SAMPLE_RATE:g} s long; give the regions of the audio that was localized"
            )
    return make_timeline(frames.n_samples_U, [regions[utt_id] for utt_id in frames.utt_ids])


def _model(record: Mapping[str, Any], frames_path: Path) -> dict[str, str]:
    """Return the model of frame scores; records of other programs may lack it."""
    names = ("model_sha256", "frame_target")
    if lacking := [name for name in names if name not in record]:
        raise SpoofkitError(
            f"--threshold-from: the record of {frames_path} has no {' and no '.join(lacking)}, so the threshold may be "
            "of another model; give --threshold instead"
        )
    return {name: str(record[name]) for name in names}


def _warnings(record: Mapping[str, Any], segments_sha256: str) -> list[str]:
    warnings = []
    of_mixes = record.get("segments_sha256") == segments_sha256 and {"mix", "regions"} <= record.keys()
    if of_mixes:
        warnings.append(
            f"the utterances are mixes of {Path(record['mix']).name} and the regions {record['regions']}: the figures "
            "measure how well spliced samples of such mixes are found, not how well other forgeries are"
        )
    if record.get("frame_target") == "region" and not of_mixes:
        warnings.append(
            "the frames were trained with mix.frame_target region: a low score means injected, not spoofed; post-train "
            "with mix.frame_target authenticity to find spoofed regions"
        )
    if record.get("contamination"):
        warnings.append(str(record["contamination"]))
    return warnings


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
