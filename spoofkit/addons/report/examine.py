"""Examine a recording: everything that its report says, as plain values, and what is drawn of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoofkit.addons.report.instruments import FrameHead, Instruments
from spoofkit.addons.report.recording import Unchanged, describe_recording
from spoofkit.addons.report.scale import SOURCE, weigh
from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.localisation.marking import mark, windows_for_frames
from spoofkit.localisation.picture import Curve
from spoofkit.localisation.regions import Frames, Marked
from spoofkit.scoring.recordings import Reading, Recording, Result
from spoofkit.scoring.scored import ScoredRecording, score_loose
from spoofkit.scoring.stream import score_recordings
from spoofkit.scoring.windows import SECONDS
from spoofkit.stages import describe_stages

FORMAT = 1
"""Version of the JSON; raised when an entry changes its meaning."""
TOLERANCE = 1e-3
"""Largest difference of a score examined again, in its own unit; of one beyond ±1, as a share of it."""
LIMITS = (
    "A likelihood ratio says how much more likely the score is for one kind of speech than for the other. It is not "
    "the probability that the recording is genuine or spoofed: that depends on everything else that is known, too.",
    "Spoofing methods, languages, codecs, rooms and microphones that the training data lack may be scored wrongly, and "
    "with great confidence.",
    "A recording that is spoofed in part, or was edited, may have the score of a genuine one.",
    "Nothing here says who speaks.",
)
"""What every report states about itself."""
WITHOUT_CALIBRATION = (
    "Scores are not calibrated, so there is no likelihood ratio and no verdict. A score can only be compared with "
    "other scores of the same model. This page must not be used as evidence."
)
WITH_CALIBRATION = (
    "The likelihood ratio holds for recordings like those that the calibration was fitted on. Nothing here shows that "
    "a recording is like them; an expert has to judge that. Without a calibration on like material this page must not "
    "be used as evidence in court, or for any other decision about a person."
)


NOT_JUDGED = dict.fromkeys(("llr", "favours", "likelihood_ratio", "is_limited", "is_outside", "verdict"))
NO_RESULT = {"channel": None, "error": "", "seconds": None, "score": None, **NOT_JUDGED}
NO_RESULT |= {"remarks": [], "windows": [], "regions": None}
"""The entry of a recording, or a channel, without a score."""


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a channel: its samples and its scores over time."""

    channel: int | None
    wave_S: Frames
    curve: Curve | None
    line: float | None
    """Score at which a dashed line is drawn."""
    caption: str


def examine(file: str, instruments: Instruments) -> tuple[dict[str, Any], list[Drawn]]:
    """Examine a recording.

    Args:
        file: Its path.
        instruments: The model and its calibration.

    Returns:
        What its report says; nothing in it depends on where files lie, on the day or on the machine, but for scores,
        within TOLERANCE, and the names of files. And what is drawn.

    Raises:
        SpoofkitError: it cannot be read.
    """
    unchanged = Unchanged(file)
    recording = describe_recording(file)
    loaded, scorer = instruments.loaded, instruments.scorer
    scored = list(score_loose(scorer, [Recording(file, file)], loaded.reading, loaded.decisions))
    results, drawn = [], []
    for one in scored:
        if one.error:
            results.append(NO_RESULT | {"channel": one.channel, "error": one.reason})
            continue
        marked, picture = _over_time(file, one, instruments)
        results.append(_result(one, instruments, marked))
        drawn.append(picture)
    unchanged.require()
    return {
        "report_format": FORMAT,
        "kind": "report on a recording",
        "recording": recording,
        "results": results,
        "model": _model(instruments),
        "calibration": instruments.calibration,
        "scale": SOURCE,
        "warnings": _warnings(results, instruments),
        "limits": [WITHOUT_CALIBRATION if instruments.calibration is None else WITH_CALIBRATION, *LIMITS],
    }, drawn


def judge(score: float, instruments: Instruments) -> dict[str, Any]:
    """Return what follows from a score alone; without a calibration, every entry is None."""
    decisions, calibration = instruments.loaded.decisions, instruments.calibration
    if calibration is None or decisions is None:
        return NOT_JUDGED
    llr = decisions.value(score)
    fitted = calibration["fitted_on"]
    verdict = weigh(llr, fitted.get("n_bonafide"), fitted.get("n_spoof"))
    lowest, highest = (fitted.get(name, [score])[0] for name in ("lowest_score", "highest_score"))
    return {
        "llr": llr,
        "favours": verdict.favours,
        "likelihood_ratio": verdict.ratio,
        "is_limited": verdict.is_limited,
        "is_outside": not lowest <= score <= highest,
        "verdict": verdict.words(),
    }


def _result(one: ScoredRecording, instruments: Instruments, marked: Sequence[Marked] | None) -> dict[str, Any]:
    assert one.score is not None
    score = float(f"{one.score:.9g}")  # nine digits restore a float32
    return {
        "channel": one.channel,
        "error": "",
        "seconds": one.seconds,
        "score": score,
        **judge(score, instruments),
        "remarks": list(one.remarks),
        "windows": [
            {"start_seconds": window.start_seconds, "end_seconds": window.end_seconds, "score": window.score}
            for window in one.windows
        ],
        "regions": None
        if marked is None
        else [
            {"start_seconds": one.start_seconds, "end_seconds": one.end_seconds, "score": one.mean_score}
            for one in marked
        ],
    }


def _over_time(file: str, one: ScoredRecording, instruments: Instruments) -> tuple[list[Marked] | None, Drawn]:
    """Return the marked regions, None if nothing can be marked, and what is drawn of a recording or channel."""
    downmix = "mean" if one.channel is None else str(one.channel)
    if (frames := instruments.frames) is not None:
        reading = Reading(windows=windows_for_frames(frames.scorer.longest), keeps_wave=True)
        recording = Recording(file, file, downmix, channel=one.channel)
        ((result,),) = score_recordings(frames.scorer, [[recording]], reading)
        if result.wave_S is not None and result.frames is not None:
            return _in_frames(one.channel, result, frames)
    wave_S = read_audio(file, downmix=downmix)
    if not one.windows:
        caption = "The recording was scored as a whole, and the model has no frame head: there is no score over time."
        return None, Drawn(one.channel, wave_S, None, None, caption)
    ends = [window.end_seconds for window in one.windows]
    # Of a window that overlaps the one before, such as the last, what is new.
    starts = [max(window.start_seconds, end) for window, end in zip(one.windows, [0.0, *ends[:-1]], strict=True)]
    seconds = [second for both in zip(starts, ends, strict=True) for second in both]
    scores = np.array([window.score for window in one.windows for _ in range(2)], dtype=np.float32)
    caption = "Score of each window; the dashed line is the score of the recording."
    return None, Drawn(one.channel, wave_S, Curve(np.array(seconds), scores, scores), one.score, caption)


def _in_frames(channel: int | None, result: Result, frames: FrameHead) -> tuple[list[Marked] | None, Drawn]:
    """Return the marked regions and what is drawn of a recording whose frames have scores."""
    assert result.wave_S is not None
    assert result.frames is not None
    caption = f"Score of each frame, higher = less likely {'spoofed' if frames.label == 'spoof' else 'injected'}."
    if frames.rule is None:
        curve = Curve(frames.geometry.centres(result.wave_S.size) / SAMPLE_RATE, result.frames, result.frames)
        caption += " No threshold was fitted for it, so nothing is marked."
        return None, Drawn(channel, result.wave_S, curve, None, caption)
    marked = mark(result, frames.rule, frames.label, frames.geometry)
    curve = Curve(marked.frame_seconds, marked.frame_scores, marked.smoothed_scores)
    caption += f" Frames at or below the dashed line are marked: {frames.rule.words()}."
    return list(marked.regions), Drawn(channel, result.wave_S, curve, frames.rule.threshold, caption)


def _model(instruments: Instruments) -> dict[str, Any]:
    """Describe the model: its card."""
    scorer, record = instruments.scorer, instruments.scorer.record
    provenance = record.get("provenance") or {}
    return {
        "name": instruments.named.name,
        "sha256": instruments.loaded.sha256,
        "score": f"{scorer.meaning}, higher = more bona fide",
        "input_policy": instruments.loaded.policy,
        "precision": scorer.precision,
        "channels": instruments.wanted.channels,
        "window_seconds": SECONDS,
        "training": dict(describe_stages(record.get("stages") or [])),
        "weights_from": provenance.get("source"),
        "licence": provenance.get("licence"),
        "trained_on": list(provenance.get("trained_on") or []),
        "notes": list(provenance.get("notes") or []),
        "contamination": record.get("contamination"),
        "frame_head": _of_frames(instruments),
    }


def _of_frames(instruments: Instruments) -> dict[str, Any] | None:
    frames = instruments.frames
    if frames is None:
        return None
    rule = None if frames.rule is None else frames.rule.record()
    return {
        "score": frames.scorer.meaning,
        "label": frames.label,
        "rule": rule and {name: rule[name] for name in ("threshold", "smooth_seconds", "min_region_seconds")},
    }


def _warnings(results: Sequence[Mapping[str, Any]], instruments: Instruments) -> list[str]:
    """List what holds of this report, and would mislead if it were not said."""
    warnings = []
    calibration = instruments.calibration
    if any(result["is_limited"] for result in results) and calibration is not None:
        fitted = calibration["fitted_on"]
        warnings.append(
            f"The ratio is stated as the highest that {fitted['n_bonafide']:,} bona fide and {fitted['n_spoof']:,} "
            "spoofed trials can support; the computed one is higher, and is in the JSON (llr)."
        )
    if any(result["is_outside"] for result in results):
        warnings.append(
            "The score lies outside all scores that the calibration was fitted on, so the ratio is extrapolated: the "
            "recording is unlike that material."
        )
    if contamination := instruments.scorer.record.get("contamination"):
        warnings.append(str(contamination))
    return warnings
