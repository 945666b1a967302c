"""The verb `localize` on recordings: from audio files to regions, as files for other programs and an HTML page.

It writes NAME.json, NAME.rttm, NAME.txt (Audacity) and NAME.png for each recording (`marked_files`), then
timeline.html. If channels are marked separately, each has such files: NAME.ch1.json and so on. Recordings are read and
scored as by `score` (`spoofkit.scoring.stream`). A model with both heads also gives each recording a score
(`utterance`). The page shows what the JSON files hold, so it does not depend on which call marked a recording.
"""

import re
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

import spoofkit
from spoofkit import addons
from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.data.channels import AUTO, describe_separate_channels, require_channels
from spoofkit.data.frames import FrameGeometry
from spoofkit.data.segments import Regions
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.evaluation.records import made_in
from spoofkit.files import file_sha256, read_json, remove_leftovers
from spoofkit.interrupts import caught_signals
from spoofkit.localisation import marked_files
from spoofkit.localisation.known import Known, compare_known, read_known, too_long
from spoofkit.localisation.marking import mark, windows_for_frames
from spoofkit.localisation.marks import as_json, audacity, rttm, shown
from spoofkit.localisation.picture import Curve, picture
from spoofkit.localisation.regions import CALLED, Frames, Marked, Rule, make_rule, marked_seconds
from spoofkit.localisation.sources import Source, find_sources
from spoofkit.localisation.utterance import Judge, describe_score, make_judge
from spoofkit.machine import command
from spoofkit.models.device import choose_device
from spoofkit.models.frame_model import load_frame_model
from spoofkit.models.names import find_model
from spoofkit.outputs import Output, skipped
from spoofkit.scoring import windows
from spoofkit.scoring.job import raise_failed
from spoofkit.scoring.precision import require_known, without_list
from spoofkit.scoring.recordings import Reading, Result
from spoofkit.scoring.scorer import FP32, Scorer
from spoofkit.scoring.stream import score_recordings
from spoofkit.scoring.windows import Windows
from spoofkit.scoring.with_torch import frame_scorer_of
from spoofkit.terminal import say


@dataclass(frozen=True)
class RegionOptions:
    """The options that control how regions are marked; see `regions.make_rule`."""

    threshold: float | None
    threshold_from: Path | None
    smooth_seconds: float | None
    min_region_seconds: float | None


@dataclass(frozen=True)
class _Marker:
    """What marking a recording needs besides its scores."""

    rule: Rule
    label: str
    """Name of a region with low scores."""
    geometry: FrameGeometry
    windows: Windows
    """How long recordings are cut."""
    record: dict[str, Any]
    """How scores are made; part of each JSON."""
    judge: Judge | None
    known: dict[str, Regions]
    """Known regions by name of the outputs; empty if none were given."""
    pages: Any
    """Pages of the addon `timeline`; None: it is not there."""


def localize_recordings(
    folder: Path,
    inputs: list[Path],
    out_dir: Path,
    options: RegionOptions,
    *,
    channels: str,
    calibration: Path | None,
    known: Path | None = None,
    note: str = "",
    device: str,
    precision: str = FP32,
    overwrite: bool,
    reuse: bool = False,
) -> Iterator[str]:
    """Mark the regions of recordings, write them, and yield a line for each.

    Args:
        folder: Folder of a post-training, or a model with a frame head, or `hub:OWNER/MODEL` of one; a model
            also gives each recording a score.
        inputs: Files, folders, globs.
        out_dir: Folder of the outputs; created if it does not exist.
        options: How regions are marked.
        channels: Which channels are marked separately, as `choose_channels` takes it.
        calibration: Calibration for the scores of the utterance head; None: they are not calibrated.
        known: Regions that are known from labels, as `read_known` takes them, to be shown and compared. Default: none.
        note: What the page says above its recordings. Default: nothing.
        device: Name of the device.
        precision: `fp32`, `tf32` or `bf16`.
        overwrite: Replace what an earlier call wrote; nothing else is ever replaced.
        reuse: Skip recordings that are up to date, and mark the others. A call that was stopped does so anyway.

    Raises:
        SpoofkitError: an input is not what was expected, an output exists, or, at the end, a recording failed.
        Interrupted: a signal asked to stop; recordings that were marked are kept.
    """
    require_channels(channels)
    require_known(precision)
    if out_dir.exists() and not out_dir.is_dir():
        raise SpoofkitError(f"{out_dir}: is a file, expected the folder for the outputs; name one with -o")
    named = find_model(folder)
    folder = named.path
    chosen, model = choose_device(device), load_frame_model(folder)
    judge = make_judge(folder, model, calibration)
    of_model = model.identity
    rule = make_rule(
        options.threshold, options.threshold_from, options.smooth_seconds, options.min_region_seconds, of_model
    )
    sources = find_sources(inputs, channels, {} if overwrite else marked_files.known_names(out_dir))
    page = _page_addon()
    settings = of_model | rule.record() | {"calibration": calibration and file_sha256(calibration)}
    settings |= made_in(precision) | ({"known": file_sha256(known)} if known else {})
    of_pages = {"channels": channels, **({"note": note} if note else {})}
    is_page = None if page is None else page.is_page
    plan = marked_files.make_plan(out_dir, sources, settings, of_pages, is_page, overwrite=overwrite, reuse=reuse)
    if plan.are_pages_done and all(plan.is_done):
        yield skipped(out_dir)
        return
    known_regions = {} if known is None else read_known(known, sources)
    scorer = without_list(precision, frame_scorer_of(model, chosen))
    if judge is not None and judge.decisions is not None and (remark := judge.decisions.other_precision(precision)):
        say(f"spoofkit: warning: {remark}")
    pages = None
    if page is not None:
        contamination, meaning = scorer.record["contamination"], "" if judge is None else judge.meaning
        facts = page.page_facts(named.name, of_model, rule, contamination, meaning, known, note)
        pages = page.Pages(out_dir, facts, plan.may_replace)
    remove_leftovers(out_dir, "|".join(re.escape(source.name) for source in sources))
    marker = _make_marker(rule, scorer, _record(named.name, of_model, scorer), judge, known_regions, pages)
    if n_done := sum(plan.is_done):
        yield f"{out_dir}: {n_done:,} of {len(sources):,} recordings up to date, skipped"
    marked_files.begin(plan.pages, plan.replaces)
    faults = yield from _mark_all(plan, scorer, marker)
    yield from _finish(plan.pages, marker, has_regions=len(faults) < len(sources))
    _say_caveats(sources, channels, rule)
    raise_failed(faults, len(sources))


def _make_marker(
    rule: Rule, scorer: Scorer, record: dict[str, Any], judge: Judge | None, known: dict[str, Regions], pages: Any
) -> _Marker:
    """Choose how recordings are cut and marked."""
    assert scorer.geometry is not None
    cut, label = windows_for_frames(scorer.longest), CALLED[record["frame_target"]]
    return _Marker(rule, label, scorer.geometry, cut, record, judge, known, pages)


def _record(name: str, of_model: dict[str, str], scorer: Scorer) -> dict[str, Any]:
    return {
        "model": name,
        **of_model,
        "score": scorer.meaning,
        **made_in(scorer.precision),
        "contamination": scorer.record["contamination"],
        "versions": {"spoofkit": spoofkit.__version__, **scorer.runtime},
        "command": command(),
    }


def _mark_all(plan: marked_files.Plan, scorer: Scorer, marker: _Marker) -> Generator[str, None, list[str]]:
    """Mark the recordings that are not up to date, and yield a line for each; return why some could not be marked."""
    reading = Reading(windows=marker.windows, keeps_wave=True)
    of_all = list(zip(plan.sources, plan.outputs, plan.is_done, strict=True))
    chunks = [[source.recording] for source, _, is_done in of_all if not is_done]
    faults, n_marked = [], 0
    bar = tqdm(total=len(of_all), desc="localize", unit="file", disable=not sys.stderr.isatty())
    with bar, caught_signals() as caught:
        results = score_recordings(scorer, chunks, reading, should_stop=lambda: bool(caught))
        try:
            for source, output, is_done in of_all:
                if caught:
                    raise Interrupted("stopped while marking")
                if is_done:
                    fault = "" if marker.pages is None else _show_again(source, output, marker)
                else:
                    (result,) = next(results)
                    fault = result.error or _fault_of_known(source, result, marker)
                    if not fault:
                        yield _mark(source, output, result, marker, plan.may_replace)
                if fault:
                    faults.append(fault)
                    if marker.pages is not None:
                        marker.pages.add_failure(fault)
                    say(f"spoofkit: {fault}")
                n_marked += 1
                bar.update()
        except Interrupted:
            folder = plan.pages.record.parent
            raise Interrupted(
                f"{folder}: stopped after {n_marked:,} of {len(of_all):,} recordings; run the same command, without "
                "--overwrite, to resume",
                caught.exit_code,
            ) from None
    return faults


def _fault_of_known(source: Source, result: Result, marker: _Marker) -> str:
    """Return why the known regions of a recording cannot be its own; empty if they can, or none are known."""
    assert result.wave_S is not None
    fault = too_long(marker.known[source.name], result.wave_S.size) if marker.known else ""
    return fault and f"{source.recording.label}: {fault}"


def _finish(output: Output, marker: _Marker, has_regions: bool) -> Iterator[str]:
    """Finish the pages, if there are any, and write their record; yield a line for each page."""
    written = [] if marker.pages is None else marker.pages.finish()
    marked_files.finish(output, written)
    shows = (
        f"open it in a browser to see and hear the {marker.label} regions" if has_regions else "all recordings failed"
    )
    yield from (f"{path}: {shows}" for path in written)


def _say_caveats(sources: list[Source], channels: str, rule: Rule) -> None:
    apart = {str(one.recording.path) for one in sources if one.recording.channel is not None and channels == AUTO}
    if apart:
        say(describe_separate_channels(sorted(apart)))
    if not rule.is_fitted or rule.is_weak:
        say(f"spoofkit: warning: {rule.words()}; see --threshold-from")


def _page_addon() -> ModuleType | None:
    """Find the addon that writes pages; warn if it is not there, because all other files are still written."""
    try:
        return addons.find("timeline.page")
    except SpoofkitError as error:
        say(f"spoofkit: warning: {marked_files.PAGE} is not written: {error}")
        return None


def _mark(source: Source, output: Output, result: Result, marker: _Marker, overwrite: bool) -> str:
    """Mark one recording, write its files and add it to the pages; return the line for stdout."""
    wave_S, rule, label = result.wave_S, marker.rule, marker.label
    assert wave_S is not None
    geometry, recording = marker.geometry, source.recording
    one = mark(result, rule, label, geometry)
    raw_T, score_T, regions = one.frame_scores, one.smoothed_scores, one.regions
    curve = Curve(one.frame_seconds, raw_T, score_T)
    known = _compare(source, regions, wave_S, marker)
    utterance = None if marker.judge is None else marker.judge.record(result)
    cut = {"window_seconds": windows.SECONDS, "overlap_seconds": windows.OVERLAP_SECONDS}
    own = {
        "recording": recording.name,
        "channel": recording.channel,
        "audio_sha256": output.made_from["recording_sha256"],
        "n_samples": wave_S.size,
        **marker.record,
        "windows": cut if wave_S.size > marker.windows.n_samples else None,
        "utterance": utterance,
        **({} if known is None else {"known": known.record()}),
    }
    record = as_json(own, raw_T, score_T, regions, geometry, rule, label)
    contents = {
        ".rttm": rttm(source.file_name, regions, label, rule, recording.channel).encode(),
        ".txt": audacity(regions, label, rule).encode(),
        ".png": picture(source.name, wave_S, curve, regions, rule, label, known),
    }
    marked_files.write_recording(output, record, contents, overwrite)
    if marker.pages is not None:
        _show(source, _entry(record, wave_S.size, marker), wave_S, marker)
    seconds = f"{marked_seconds(regions):.2f} of {wave_S.size / SAMPLE_RATE:.2f} s"
    counted = f"{len(regions)} {label} region{'' if len(regions) == 1 else 's'}"
    line = f"{recording.label}: {counted}, {seconds}, in {output.record}"
    said = "" if utterance is None else describe_score(utterance)
    return "; ".join([line, *([known.words()] if known else []), *([said] if said else [])])


def _compare(source: Source, regions: Sequence[Marked], wave_S: Frames, marker: _Marker) -> Known | None:
    """Compare the marked regions with the known ones; None if none were given."""
    return compare_known(marker.known[source.name], regions, wave_S.size) if marker.known else None


def _show_again(source: Source, output: Output, marker: _Marker) -> str:
    """Add a recording that is up to date to the pages; return why it cannot be, else an empty text."""
    try:
        wave_S = read_audio(source.recording.path, downmix=source.recording.downmix)
        record = read_json(output.record)
        try:
            entry = _entry(record, wave_S.size, marker)
        except (LookupError, TypeError, ValueError, OverflowError):
            return (
                f"{output.record}: its frames, regions or score are not those of this recording as `localize` writes "
                "them; remove it, or pass --overwrite"
            )
        _show(source, entry, wave_S, marker)
    except (SpoofkitError, OSError) as error:
        return str(error)
    return ""


def _entry(record: dict[str, Any], n_samples: int, marker: _Marker) -> tuple[Curve, list[Marked], str]:
    """Return curve, regions and score in words of a recording as its JSON has them; see `shown`."""
    centre_T = marker.geometry.centres(n_samples)
    raw_T, score_T, regions = shown(record, centre_T.size, n_samples)
    said = "" if record["utterance"] is None else describe_score(record["utterance"])
    return Curve(centre_T / SAMPLE_RATE, raw_T, score_T), regions, said


def _show(source: Source, entry: tuple[Curve, list[Marked], str], wave_S: Frames, marker: _Marker) -> None:
    """Add a recording to the pages: the same whether it was marked now or by an earlier call."""
    curve, regions, said = entry
    known = _compare(source, regions, wave_S, marker)
    marker.pages.add_recording(source.recording.label, source.name, wave_S, curve, regions, marker.rule, known, said)
