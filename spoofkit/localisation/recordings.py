"""The verb `localize` on recordings: audio files to regions, as files for other programs and a page to listen to.

A folder gets NAME.json, NAME.rttm, NAME.txt (Audacity) and NAME.png of each recording, then timeline.html, and last
timeline.made_from.json, for --reuse. Where channels are marked by themselves, each has such files, called NAME.ch1 and
so on.
A recording longer than half a minute is scored in overlapping windows whose frames lie on one grid; of two windows that
both have a frame, the one counts in which it lies further from the edge.

A model with both heads gives each recording a score too (`utterance`).
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import spoofkit
from spoofkit import addons
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.channels import AUTO, apart_in_words, require_channels
from spoofkit.data.frames import FrameGeometry
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path, file_sha256, read_json, refuse_existing, sync, write_json
from spoofkit.leftovers import remove_leftovers
from spoofkit.localisation.marks import KIND, as_json, audacity, rttm
from spoofkit.localisation.picture import Curve, picture
from spoofkit.localisation.regions import CALLED, Frames, Rule, find_regions, make_rule, marked_seconds, smooth
from spoofkit.localisation.sources import Source, find_sources, read_source
from spoofkit.localisation.utterance import Judge, in_words, make_judge
from spoofkit.machine import command
from spoofkit.models.device import choose_device, memory_advice, plain_fp32
from spoofkit.models.frame_model import FrameModel, load_frame_model, score_timeline
from spoofkit.models.provenance import contamination_warning
from spoofkit.outputs import Output, is_up_to_date, read_json_record, sealed, skipped
from spoofkit.scoring.windows import WindowScore
from spoofkit.terminal import say

WINDOW_SECONDS = 30.0
OVERLAP_SECONDS = 2.0
PAGE = "timeline.html"  # and timeline_2.html …
SUFFIXES = (".rttm", ".txt", ".png", ".json")  # the record last


@dataclass(frozen=True)
class RuleOptions:
    """What a command line says about regions; see `regions.make_rule`."""

    threshold: float | None
    threshold_from: Path | None
    smooth_seconds: float | None
    min_region_seconds: float


def localize_recordings(
    folder: Path,
    inputs: list[Path],
    out_dir: Path,
    options: RuleOptions,
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
        SpoofkitError: an input is not what was expected, an output exists; or, at the end, a recording could not be
            read, which does not keep the others from being written.
    """
    require_channels(channels)
    _refuse_no_folder(out_dir)
    chosen = choose_device(device)
    model = load_frame_model(folder)
    judge = make_judge(folder, model, calibration)
    model.to(chosen)
    identity = {"model_sha256": model.sha256, "frame_target": model.target}
    rule = make_rule(
        options.threshold, options.threshold_from, options.smooth_seconds, options.min_region_seconds, identity
    )
    contamination = contamination_warning(model.classifier.encoder.provenance)
    sources = find_sources(inputs, channels)
    page = _page_addon()
    made_from = identity | rule.record() | {"calibration": calibration and file_sha256(calibration)}
    output = _output(out_dir, sources, made_from, has_page=page is not None)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        yield skipped(out_dir)
        return
    overwrite = overwrite or reuse  # what stands there is ours, and not complete
    for one in sources:
        _refuse_others(out_dir, one.name, overwrite)
    remove_leftovers(out_dir, "|".join(re.escape(one.name) for one in sources))
    pages = None
    if page is not None:
        facts = page.page_facts(folder, identity, rule, contamination, "" if judge is None else judge.meaning)
        pages = page.Pages(out_dir, facts, overwrite)
    how = {
        "model": str(folder),
        **identity,
        "score": model.score_meaning,
        "contamination": contamination,
        "versions": {"spoofkit": spoofkit.__version__, "torch": str(torch.__version__)},
        "command": command(),
    }
    faults = []
    for one in tqdm(sources, desc="localize", unit="file", disable=not sys.stderr.isatty()):
        try:
            line = _localize_one(one, out_dir / one.name, model, chosen, rule, how, judge, pages, overwrite)
        except _CannotRead as error:
            faults.append(str(error))
            if pages is not None:
                pages.add_failure(str(error))
            say(f"spoofkit: {error}")
            continue
        yield line
    written = [] if pages is None else pages.finish()
    _write_record(output, written)
    for path in written:
        shows = f"{CALLED[model.target]} regions to look at and listen to"
        yield f"{path}: {shows if len(faults) < len(sources) else 'why no recording could be marked'}"
    if apart := {one.path for one in sources if one.channel is not None and channels == AUTO}:
        say(apart_in_words(sorted(apart)))
    if not rule.is_fitted or rule.is_weak:
        say(f"spoofkit: warning: {rule.words()}; see --threshold-from")
    if faults:
        raise SpoofkitError(
            f"{out_dir}: {len(faults)} of {len(sources)} recordings could not be localized, "
            f"{'the others are there' if len(faults) < len(sources) else 'none is there'}; first: {faults[0]}"
        )


def _page_addon() -> ModuleType | None:
    """What writes the pages; where there is no such addon, that is said, and all else is written."""
    try:
        return addons.find("timeline.page")
    except SpoofkitError as error:
        say(f"spoofkit: warning: {PAGE} is not written: {error}")
        return None


def _output(out_dir: Path, sources: list[Source], made_from: dict[str, Any], has_page: bool) -> Output:
    """All that a call writes; its own record is `timeline.made_from.json`, beside the page."""
    # A file that cannot be read has its reason on the page.
    hashes = {one.shown: file_sha256(one.path) if Path(one.path).is_file() else "-" for one in sources}
    made_from |= {"recordings": hashes, "channels": [one.downmix for one in sources]}
    page = out_dir / PAGE
    files = [_beside(out_dir / one.name, suffix) for one in sources for suffix in SUFFIXES]
    files = [*([page] if has_page else []), *files]
    record = page.with_suffix(".made_from.json")
    read = read_json_record("made_from")
    return Output("localize", tuple(files), record, json.loads(json.dumps(made_from)), read, is_own=_is_own)


def _write_record(output: Output, pages: list[Path]) -> None:
    files = [*pages, *(path for path in output.files if path.name != PAGE and path.exists())]
    hashes = {path.name: file_sha256(path) for path in files}
    write_json(output.record, sealed({"made_from": output.made_from}, hashes), overwrite=True)


def _is_own(path: Path) -> bool:
    """Whether a file is of an earlier call, which was killed before it wrote its record."""
    if path.suffix == ".html":
        is_page: bool = addons.find("timeline.page").is_page(path)
        return is_page
    sidecar = path.with_suffix(".json")
    record = read_json(sidecar) if sidecar.exists() else None
    return isinstance(record, dict) and record.get("kind") == KIND


def cut_windows(n_samples: int, geometry: FrameGeometry, longest: int | None) -> list[tuple[int, int, int, int]]:
    """How a recording is cut, and which of a window's frames count.

    Args:
        n_samples: Of the recording.
        geometry: The encoder's.
        longest: Most samples that the encoder can place; none: no limit.

    Returns:
        For each window its start and end in samples, and the half-open range of its own frames that count. All starts
        are multiples of the hop, so that frames fall on those of the whole recording.

    >>> cut_windows(16_000 * 40, FrameGeometry(400, 320, 400, 200), None)
    [(0, 480000, 0, 1450), (448000, 640000, 50, 599)]
    """
    hop = geometry.hop
    window = int(min(WINDOW_SECONDS * SAMPLE_RATE, longest or np.inf)) // hop * hop
    margin = min(int(OVERLAP_SECONDS * SAMPLE_RATE), window // 2) // (2 * hop)  # frames, half of the overlap
    step = window - 2 * margin * hop
    found = []
    start = 0
    while start + window < n_samples:
        found.append((start, start + window, margin if start else 0, step // hop + margin))
        start += step
    return [*found, (start, n_samples, margin if start else 0, geometry.n_frames(n_samples - start))]


def score_recording(
    model: FrameModel, wave_S: np.ndarray, device: torch.device
) -> tuple[Frames, list[WindowScore] | None]:
    """Score one recording in fp32; higher = more bona fide.

    Returns:
        Scores of its frames, shape (frames,); and of its windows, if there is an utterance head: of a recording that is
        not cut, the one.
    """
    parts, windows = [], []
    with torch.no_grad(), plain_fp32(), memory_advice("use --device cpu"):
        encoder = model.classifier.encoder
        for start, end, first, last in cut_windows(wave_S.size, encoder.geometry, encoder.longest):
            wave_BS = torch.from_numpy(wave_S[start:end])[None].to(device)
            logit_BT, is_frame_BT, score_B = score_timeline(model, wave_BS, torch.tensor([end - start], device=device))
            parts.append(-logit_BT[0][is_frame_BT[0]].float().cpu().numpy()[first:last])
            if score_B is not None:
                windows.append(WindowScore(start / SAMPLE_RATE, end / SAMPLE_RATE, score_B.item()))
    return np.concatenate(parts).astype(np.float32), windows or None


class _CannotRead(Exception):
    """A recording that is left out."""


def _localize_one(
    one: Source,
    target: Path,
    model: FrameModel,
    device: torch.device,
    rule: Rule,
    how: dict[str, Any],
    judge: Judge | None,
    pages: Any,
    overwrite: bool,
) -> str:
    """Mark one recording, write its files and show it on a page, if there are any; the line for stdout."""
    try:
        wave_S, audio_sha256 = read_source(one, model.shortest)
    except (SpoofkitError, OSError) as error:
        raise _CannotRead(str(error)) from error
    encoder, label = model.classifier.encoder, CALLED[model.target]
    geometry = encoder.geometry
    raw_T, windows = score_recording(model, wave_S, device)
    if not np.isfinite([*raw_T, *(window.score for window in windows or [])]).all():
        raise _CannotRead(f"{one.label}: one of its scores is not a finite number; check the audio and the model")
    score_T = smooth(raw_T, rule.smooth_seconds, geometry.hop)
    regions = find_regions(score_T, wave_S.size, geometry, rule)
    curve = Curve(geometry.centres(wave_S.size) / SAMPLE_RATE, raw_T, score_T)
    utterance = None if judge is None or windows is None else judge.record(windows)
    is_cut = len(cut_windows(wave_S.size, geometry, encoder.longest)) > 1
    recording = {
        "recording": one.shown,
        "channel": one.channel,
        "audio_sha256": audio_sha256,
        "n_samples": wave_S.size,
        **how,
        "windows": {"window_seconds": WINDOW_SECONDS, "overlap_seconds": OVERLAP_SECONDS} if is_cut else None,
        "utterance": utterance,
    }
    record = as_json(recording, raw_T, score_T, regions, geometry, rule, label)
    contents = {
        ".rttm": rttm(one.file_name, regions, label, rule, one.channel).encode(),
        ".txt": audacity(regions, label, rule).encode(),
        ".png": picture(target.name, wave_S, curve, regions, rule, label),
        ".json": f"{json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode(),
    }
    _write_together(target, contents, overwrite)
    seconds = f"{marked_seconds(regions):.2f} of {wave_S.size / SAMPLE_RATE:.2f} s"
    line = f"{one.label}: {len(regions)} {label} regions, {seconds}, in {_beside(target, '.json')}"
    said = "" if utterance is None else in_words(utterance)
    if pages is not None:
        pages.add_recording(one.label, target.name, wave_S, curve, regions, rule, said)
    return f"{line}; {said}" if said else line


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


def _refuse_others(out_dir: Path, name: str, overwrite: bool) -> None:
    """Refuse what stands there; with `overwrite`, what is not of an earlier call."""
    standing = [path for path in (_beside(out_dir / name, suffix) for suffix in SUFFIXES) if path.exists()]
    for path in standing:
        refuse_existing(path, overwrite)
    if standing and not _is_own(_beside(out_dir / name, ".json")):
        raise SpoofkitError(
            f"{standing[0]}: would be replaced and is not of `spoofkit localize` ({name}.json does not say so); "
            "name another folder, or move it away"
        )
