"""The verb `localize` on recordings: from audio files to regions, as files for other programs and an HTML page.

It writes NAME.json, NAME.rttm, NAME.txt (Audacity) and NAME.png for each recording, then timeline.html, and last the
record of all of them, timeline.made_from.json. If channels are marked separately, each has such files: NAME.ch1.json
and so on. Recordings are read and scored as by `score` (`spoofkit.scoring.stream`). A model with both heads also gives
each recording a score (`utterance`).
"""

import json
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

import spoofkit
from spoofkit import addons
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.channels import AUTO, describe_separate_channels, require_channels
from spoofkit.data.frames import FrameGeometry
from spoofkit.data.segments import Regions
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.records import made_in
from spoofkit.files import atomic_path, file_sha256, read_json, refuse_existing, remove_leftovers, sync, write_json
from spoofkit.localisation.known import compare_known, read_known, too_long
from spoofkit.localisation.marks import KIND, as_json, audacity, rttm
from spoofkit.localisation.picture import Curve, picture
from spoofkit.localisation.regions import CALLED, Rule, find_regions, make_rule, marked_seconds, smooth
from spoofkit.localisation.sources import Source, find_sources
from spoofkit.localisation.utterance import OVER_WINDOWS, Judge, describe_score, make_judge
from spoofkit.machine import command
from spoofkit.models.device import choose_device
from spoofkit.models.frame_model import load_frame_model
from spoofkit.outputs import Output, is_up_to_date, read_json_record, skipped, with_checksums
from spoofkit.scoring import windows
from spoofkit.scoring.job import raise_failed
from spoofkit.scoring.precision import require_known, without_list
from spoofkit.scoring.recordings import Reading, Result
from spoofkit.scoring.scorer import FP32, Scorer
from spoofkit.scoring.stream import score_recordings
from spoofkit.scoring.windows import Windows
from spoofkit.scoring.with_torch import frame_scorer_of
from spoofkit.terminal import say

PAGE = "timeline.html"  # and timeline_2.html …
SUFFIXES = (".rttm", ".txt", ".png", ".json")  # the record last


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

    out_dir: Path
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
    overwrite: bool


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
        folder: Folder of a post-training, or a model with a frame head, which also gives each recording a score.
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
        reuse: Skip all outputs if they are up to date; recreate them if one is missing, such as after an error.

    Raises:
        SpoofkitError: an input is not what was expected, an output exists, or, at the end, a recording failed.
    """
    require_channels(channels)
    require_known(precision)
    if out_dir.exists() and not out_dir.is_dir():
        raise SpoofkitError(f"{out_dir}: is a file, expected the folder for the outputs; name one with -o")
    chosen, model = choose_device(device), load_frame_model(folder)
    judge = make_judge(folder, model, calibration)
    of_model = {"model_sha256": model.sha256, "frame_target": model.target}
    rule = make_rule(
        options.threshold, options.threshold_from, options.smooth_seconds, options.min_region_seconds, of_model
    )
    sources = find_sources(inputs, channels)
    page = _page_addon()
    made_from = of_model | rule.record() | {"calibration": calibration and file_sha256(calibration)}
    made_from |= (
        made_in(precision) | ({"known": file_sha256(known)} if known else {}) | ({"note": note} if note else {})
    )
    output = _output(out_dir, sources, made_from, has_page=page is not None)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        yield skipped(out_dir)
        return
    known_regions = {} if known is None else read_known(known, sources)
    scorer = without_list(precision, frame_scorer_of(model, chosen))
    if judge is not None and judge.decisions is not None and (remark := judge.decisions.other_precision(precision)):
        say(f"spoofkit: warning: {remark}")
    overwrite = overwrite or reuse  # existing outputs are ours, and incomplete
    _make_room(out_dir, [source.name for source in sources], overwrite)
    pages = None
    if page is not None:
        contamination, meaning = scorer.record["contamination"], "" if judge is None else judge.meaning
        facts = page.page_facts(folder, of_model, rule, contamination, meaning, known, note)
        pages = page.Pages(out_dir, facts, overwrite)
    record = _record(folder, of_model, scorer)
    marker = _make_marker(out_dir, rule, scorer, record, judge, known_regions, pages, overwrite)
    faults = yield from _mark_all(sources, scorer, marker)
    yield from _finish(output, marker, has_regions=len(faults) < len(sources))
    _say_caveats(sources, channels, rule)
    raise_failed(faults, len(sources))


def _make_marker(
    out_dir: Path,
    rule: Rule,
    scorer: Scorer,
    record: dict[str, Any],
    judge: Judge | None,
    known: dict[str, Regions],
    pages: Any,
    overwrite: bool,
) -> _Marker:
    """Choose how recordings are cut and marked."""
    assert scorer.geometry is not None
    window = round(windows.SECONDS * SAMPLE_RATE)
    window = window if scorer.longest is None else min(window, scorer.longest)
    cut, label = Windows(window, window, OVER_WINDOWS), CALLED[record["frame_target"]]
    return _Marker(out_dir, rule, label, scorer.geometry, cut, record, judge, known, pages, overwrite)


def _record(folder: Path, of_model: dict[str, str], scorer: Scorer) -> dict[str, Any]:
    return {
        "model": str(folder),
        **of_model,
        "score": scorer.meaning,
        **made_in(scorer.precision),
        "contamination": scorer.record["contamination"],
        "versions": {"spoofkit": spoofkit.__version__, **scorer.runtime},
        "command": command(),
    }


def _mark_all(sources: list[Source], scorer: Scorer, marker: _Marker) -> Generator[str, None, list[str]]:
    """Score recordings, mark them, and yield a line for each; return why some could not be scored."""
    reading = Reading(windows=marker.windows, keeps_wave=True)
    chunks = [[source.recording] for source in sources]
    faults = []
    with tqdm(total=len(sources), desc="localize", unit="file", disable=not sys.stderr.isatty()) as bar:
        for source, (result,) in zip(sources, score_recordings(scorer, chunks, reading), strict=True):
            bar.update()
            if fault := result.error or _fault_of_known(source, result, marker):
                faults.append(fault)
                if marker.pages is not None:
                    marker.pages.add_failure(fault)
                say(f"spoofkit: {fault}")
                continue
            yield _mark(source, result, marker)
    return faults


def _fault_of_known(source: Source, result: Result, marker: _Marker) -> str:
    """Return why the known regions of a recording cannot be its own; empty if they can, or none are known."""
    assert result.wave_S is not None
    fault = too_long(marker.known[source.name], result.wave_S.size) if marker.known else ""
    return fault and f"{source.recording.label}: {fault}"


def _finish(output: Output, marker: _Marker, has_regions: bool) -> Iterator[str]:
    """Finish the pages, if there are any, and write the record of all files; yield a line for each page."""
    written = [] if marker.pages is None else marker.pages.finish()
    files = [*written, *(path for path in output.files if path.name != PAGE and path.exists())]
    hashes = {path.name: file_sha256(path) for path in files}
    write_json(output.record, with_checksums({"made_from": output.made_from}, hashes), overwrite=True)
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
        say(f"spoofkit: warning: {PAGE} is not written: {error}")
        return None


def _output(out_dir: Path, sources: list[Source], made_from: dict[str, Any], has_page: bool) -> Output:
    """Return all that a call writes; its record is `timeline.made_from.json`, beside the page."""
    # A missing file is no reason to stop: the page shows its error.
    of_files = {one.recording.name: Path(one.recording.path) for one in sources}
    hashes = {name: file_sha256(path) if path.is_file() else "-" for name, path in of_files.items()}
    made_from |= {"recordings": hashes, "channels": [one.recording.downmix for one in sources]}
    page = out_dir / PAGE
    files = [_beside(out_dir / one.name, suffix) for one in sources for suffix in SUFFIXES]
    files = [*([page] if has_page else []), *files]
    record = page.with_suffix(".made_from.json")
    read = read_json_record("made_from")
    return Output("localize", tuple(files), record, json.loads(json.dumps(made_from)), read, is_own=_is_own)


def _is_own(path: Path) -> bool:
    """Return whether an earlier call wrote a file and was killed before it wrote the record."""
    if path.suffix == ".html":
        is_page: bool = addons.find("timeline.page").is_page(path)
        return is_page
    sidecar = path.with_suffix(".json")
    record = read_json(sidecar) if sidecar.exists() else None
    return isinstance(record, dict) and record.get("kind") == KIND


def _mark(source: Source, result: Result, marker: _Marker) -> str:
    """Mark one recording, write its files and add it to the pages; return the line for stdout."""
    target = marker.out_dir / source.name
    wave_S, raw_T, rule, label = result.wave_S, result.frames, marker.rule, marker.label
    assert wave_S is not None
    assert raw_T is not None
    geometry, recording = marker.geometry, source.recording
    score_T = smooth(raw_T, rule.smooth_seconds, geometry.hop)
    regions = find_regions(score_T, wave_S.size, geometry, rule)
    curve = Curve(geometry.centres(wave_S.size) / SAMPLE_RATE, raw_T, score_T)
    known = compare_known(marker.known[source.name], regions, wave_S.size) if marker.known else None
    utterance = None if marker.judge is None else marker.judge.record(result)
    cut = {"window_seconds": windows.SECONDS, "overlap_seconds": windows.OVERLAP_SECONDS}
    own = {
        "recording": recording.name,
        "channel": recording.channel,
        "audio_sha256": file_sha256(recording.path),
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
        ".png": picture(target.name, wave_S, curve, regions, rule, label, known),
        ".json": f"{json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode(),
    }
    _write_together(target, contents, marker.overwrite)
    seconds = f"{marked_seconds(regions):.2f} of {wave_S.size / SAMPLE_RATE:.2f} s"
    counted = f"{len(regions)} {label} region{'' if len(regions) == 1 else 's'}"
    line = f"{recording.label}: {counted}, {seconds}, in {_beside(target, '.json')}"
    said = "" if utterance is None else describe_score(utterance)
    if marker.pages is not None:
        marker.pages.add_recording(recording.label, target.name, wave_S, curve, regions, rule, known, said)
    return "; ".join([line, *([known.words()] if known else []), *([said] if said else [])])


def _write_together(target: Path, contents: dict[str, bytes], overwrite: bool) -> None:
    """Write a recording's files; all are complete under temporary names before the first appears.

    The first is the JSON, by which a later call recognises the others as its own. Files beside it are always of the
    same call, even after a kill.
    """
    with ExitStack() as stack:
        for suffix in SUFFIXES:  # the last that is entered appears first
            temporary = stack.enter_context(atomic_path(_beside(target, suffix), overwrite))
            temporary.write_bytes(contents[suffix])
            sync(temporary)  # a full disk fails here
        if overwrite:
            for suffix in SUFFIXES[:-1]:
                _beside(target, suffix).unlink(missing_ok=True)


def _beside(target: Path, suffix: str) -> Path:
    # Not with_suffix: a name may contain dots.
    return target.with_name(target.name + suffix)


def _make_room(out_dir: Path, names: list[str], overwrite: bool) -> None:
    """Remove temporary files of killed calls; refuse existing files, with `overwrite` only those of other programs."""
    for name in names:
        existing = [path for path in (_beside(out_dir / name, suffix) for suffix in SUFFIXES) if path.exists()]
        for path in existing:
            refuse_existing(path, overwrite)
        if existing and not _is_own(_beside(out_dir / name, ".json")):
            raise SpoofkitError(
                f"{existing[0]}: would be replaced, but was not written by `spoofkit localize` ({name}.json does not "
                "say so); name another folder, or move it away"
            )
    remove_leftovers(out_dir, "|".join(map(re.escape, names)))
