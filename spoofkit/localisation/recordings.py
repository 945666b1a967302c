"""The verb `localize` on recordings: audio files to regions, as files for other programs and a page to listen to.

A folder gets NAME.json, NAME.rttm, NAME.txt (Audacity) and NAME.png of each recording, then timeline.html, and last
timeline.made_from.json, for --reuse. Where channels are marked by themselves, each has such files, called NAME.ch1 and
so on.
Recordings are read and scored as by `score` (`spoofkit.scoring.stream`). A model with both heads gives each recording a
score too (`utterance`).
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
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path, file_sha256, read_json, refuse_existing, sync, write_json
from spoofkit.leftovers import remove_leftovers
from spoofkit.localisation.marks import KIND, as_json, audacity, rttm
from spoofkit.localisation.picture import Curve, picture
from spoofkit.localisation.regions import CALLED, Rule, find_regions, make_rule, marked_seconds, smooth
from spoofkit.localisation.sources import Source, find_sources
from spoofkit.localisation.utterance import OVER_WINDOWS, Judge, in_words, make_judge
from spoofkit.machine import command
from spoofkit.models.device import choose_device
from spoofkit.models.frame_model import load_frame_model
from spoofkit.outputs import Output, is_up_to_date, read_json_record, skipped, with_checksums
from spoofkit.scoring import windows
from spoofkit.scoring.recordings import Reading, Result
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.stream import score_recordings
from spoofkit.scoring.windows import Windows
from spoofkit.scoring.with_torch import frame_scorer_of
from spoofkit.terminal import say

PAGE = "timeline.html"  # and timeline_2.html …
SUFFIXES = (".rttm", ".txt", ".png", ".json")  # the record last


@dataclass(frozen=True)
class RegionOptions:
    """What a command line says about regions; see `regions.make_rule`."""

    threshold: float | None
    threshold_from: Path | None
    smooth_seconds: float | None
    min_region_seconds: float


@dataclass(frozen=True)
class _Marker:
    """What marking a recording takes besides its scores."""

    out_dir: Path
    rule: Rule
    label: str
    """What a region with low scores is called."""
    geometry: FrameGeometry
    windows: Windows
    """How long recordings are cut."""
    how: dict[str, Any]
    """How scores are made, as it stands in each JSON."""
    judge: Judge | None
    pages: Any
    """Of the addon `timeline`; none: there is none."""
    overwrite: bool


def localize_recordings(
    folder: Path,
    inputs: list[Path],
    out_dir: Path,
    options: RegionOptions,
    *,
    channels: str,
    calibration: Path | None,
    device: str,
    overwrite: bool,
    reuse: bool = False,
) -> Iterator[str]:
    """Mark the regions of recordings, write them, and yield a line for each.

    Args:
        folder: What post-training left, or a model with a frame head, which also gives each recording a score.
        inputs: Files, folders, globs.
        out_dir: Folder of the outputs; made if it is not there.
        options: How regions are made of scores.
        channels: Which are marked by themselves, as `choose_channels` takes it.
        calibration: Of the scores of recordings, which a model with both heads gives; none: they are not calibrated.
        device: Name of the device.
        overwrite: Replace what an earlier call wrote there; nothing else is ever replaced.
        reuse: Skip all of it if it is up to date; recreate it if a file is missing, as where a recording failed.

    Raises:
        SpoofkitError: an input is not what was expected, an output exists; or, at the end, a recording was not read.
    """
    require_channels(channels)
    _refuse_no_folder(out_dir)
    chosen, model = choose_device(device), load_frame_model(folder)
    judge = make_judge(folder, model, calibration)
    identity = {"model_sha256": model.sha256, "frame_target": model.target}
    rule = make_rule(
        options.threshold, options.threshold_from, options.smooth_seconds, options.min_region_seconds, identity
    )
    sources = find_sources(inputs, channels)
    page = _page_addon()
    made_from = identity | rule.record() | {"calibration": calibration and file_sha256(calibration)}
    output = _output(out_dir, sources, made_from, has_page=page is not None)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        yield skipped(out_dir)
        return
    overwrite = overwrite or reuse  # what stands there is ours, and not complete
    _make_room(out_dir, [source.name for source in sources], overwrite)
    scorer = frame_scorer_of(model, chosen)
    pages = None
    if page is not None:
        contamination, meaning = scorer.record["contamination"], "" if judge is None else judge.meaning
        pages = page.Pages(out_dir, page.page_facts(folder, identity, rule, contamination, meaning), overwrite)
    marker = _make_marker(out_dir, rule, scorer, _how(folder, identity, scorer), judge, pages, overwrite)
    faults = yield from _mark_all(sources, scorer, marker)
    has_regions = len(faults) < len(sources)
    yield from _finish(output, marker, has_regions)
    _say_caveats(sources, channels, rule)
    if faults:
        raise SpoofkitError(
            f"{out_dir}: {len(faults)} of {len(sources)} recordings could not be localized, "
            f"{'the others are there' if has_regions else 'none is there'}; first: {faults[0]}"
        )


def _make_marker(
    out_dir: Path, rule: Rule, scorer: Scorer, how: dict[str, Any], judge: Judge | None, pages: Any, overwrite: bool
) -> _Marker:
    """Say how recordings are cut and marked."""
    assert scorer.geometry is not None
    window = round(windows.SECONDS * SAMPLE_RATE)
    window = window if scorer.longest is None else min(window, scorer.longest)
    cut = Windows(window, window, OVER_WINDOWS)
    return _Marker(out_dir, rule, CALLED[how["frame_target"]], scorer.geometry, cut, how, judge, pages, overwrite)


def _how(folder: Path, identity: dict[str, str], scorer: Scorer) -> dict[str, Any]:
    return {
        "model": str(folder),
        **identity,
        "score": scorer.meaning,
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
            if result.error:
                faults.append(result.error)
                if marker.pages is not None:
                    marker.pages.add_failure(result.error)
                say(f"spoofkit: {result.error}")
                continue
            yield _mark(source, result, marker)
    return faults


def _finish(output: Output, marker: _Marker, has_regions: bool) -> Iterator[str]:
    """Finish the pages, if there are any, then the record of all files; yield a line for each page."""
    written = [] if marker.pages is None else marker.pages.finish()
    files = [*written, *(path for path in output.files if path.name != PAGE and path.exists())]
    hashes = {path.name: file_sha256(path) for path in files}
    write_json(output.record, with_checksums({"made_from": output.made_from}, hashes), overwrite=True)
    for path in written:
        shows = (
            f"{marker.label} regions to look at and listen to" if has_regions else "why no recording could be marked"
        )
        yield f"{path}: {shows}"


def _say_caveats(sources: list[Source], channels: str, rule: Rule) -> None:
    apart = {str(one.recording.path) for one in sources if one.recording.channel is not None and channels == AUTO}
    if apart:
        say(describe_separate_channels(sorted(apart)))
    if not rule.is_fitted or rule.is_weak:
        say(f"spoofkit: warning: {rule.words()}; see --threshold-from")


def _page_addon() -> ModuleType | None:
    """Find what writes the pages; where there is no such addon, that is said, and all else is written."""
    try:
        return addons.find("timeline.page")
    except SpoofkitError as error:
        say(f"spoofkit: warning: {PAGE} is not written: {error}")
        return None


def _output(out_dir: Path, sources: list[Source], made_from: dict[str, Any], has_page: bool) -> Output:
    """All that a call writes; its own record is `timeline.made_from.json`, beside the page."""
    # A file that cannot be read has its reason on the page.
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
    """Whether a file is of an earlier call, which was killed before it wrote its record."""
    if path.suffix == ".html":
        is_page: bool = addons.find("timeline.page").is_page(path)
        return is_page
    sidecar = path.with_suffix(".json")
    record = read_json(sidecar) if sidecar.exists() else None
    return isinstance(record, dict) and record.get("kind") == KIND


def _mark(source: Source, result: Result, marker: _Marker) -> str:
    """Mark one recording, write its files and show it on a page, if there are any; return the line for stdout."""
    target = marker.out_dir / source.name
    wave_S, raw_T, rule, label = result.wave_S, result.frames, marker.rule, marker.label
    assert wave_S is not None
    assert raw_T is not None
    geometry, recording = marker.geometry, source.recording
    score_T = smooth(raw_T, rule.smooth_seconds, geometry.hop)
    regions = find_regions(score_T, wave_S.size, geometry, rule)
    curve = Curve(geometry.centres(wave_S.size) / SAMPLE_RATE, raw_T, score_T)
    utterance = None if marker.judge is None else marker.judge.record(result)
    is_cut = wave_S.size > marker.windows.n_samples
    own = {
        "recording": recording.name,
        "channel": recording.channel,
        "audio_sha256": file_sha256(recording.path),
        "n_samples": wave_S.size,
        **marker.how,
        "windows": _windows_record() if is_cut else None,
        "utterance": utterance,
    }
    record = as_json(own, raw_T, score_T, regions, geometry, rule, label)
    contents = {
        ".rttm": rttm(source.file_name, regions, label, rule, recording.channel).encode(),
        ".txt": audacity(regions, label, rule).encode(),
        ".png": picture(target.name, wave_S, curve, regions, rule, label),
        ".json": f"{json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode(),
    }
    _write_together(target, contents, marker.overwrite)
    seconds = f"{marked_seconds(regions):.2f} of {wave_S.size / SAMPLE_RATE:.2f} s"
    line = f"{recording.label}: {len(regions)} {label} regions, {seconds}, in {_beside(target, '.json')}"
    said = "" if utterance is None else in_words(utterance)
    if marker.pages is not None:
        marker.pages.add_recording(recording.label, target.name, wave_S, curve, regions, rule, said)
    return f"{line}; {said}" if said else line


def _windows_record() -> dict[str, float]:
    return {"window_seconds": windows.SECONDS, "overlap_seconds": windows.OVERLAP_SECONDS}


def _write_together(target: Path, contents: dict[str, bytes], overwrite: bool) -> None:
    """Write a recording's files; all stand complete under temporary names before the first appears.

    That is the JSON, by which a later call knows the others for what it may replace; and what stands beside it is of
    the same call, wherever a kill falls.
    """
    with ExitStack() as stack:
        for suffix in SUFFIXES:  # the last that is entered appears first
            temporary = stack.enter_context(atomic_path(_beside(target, suffix), overwrite))
            temporary.write_bytes(contents[suffix])
            sync(temporary)  # a disk that refuses does so now
        if overwrite:
            for suffix in SUFFIXES[:-1]:
                _beside(target, suffix).unlink(missing_ok=True)


def _beside(target: Path, suffix: str) -> Path:
    # Not with_suffix: a name may hold points.
    return target.with_name(target.name + suffix)


def _refuse_no_folder(out_dir: Path) -> None:
    if out_dir.exists() and not out_dir.is_dir():
        raise SpoofkitError(f"{out_dir}: is a file, expected the folder for the outputs; name one with -o")


def _make_room(out_dir: Path, names: list[str], overwrite: bool) -> None:
    """Remove what killed calls left, and refuse what stands there; with `overwrite`, what is not of an earlier call."""
    for name in names:
        standing = [path for path in (_beside(out_dir / name, suffix) for suffix in SUFFIXES) if path.exists()]
        for path in standing:
            refuse_existing(path, overwrite)
        if standing and not _is_own(_beside(out_dir / name, ".json")):
            raise SpoofkitError(
                f"{standing[0]}: would be replaced and is not of `spoofkit localize` ({name}.json does not say so); "
                "name another folder, or move it away"
            )
    remove_leftovers(out_dir, "|".join(map(re.escape, names)))
