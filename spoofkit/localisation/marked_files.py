"""The files that `localize` writes of recordings, and what state they are in: see `spoofkit.outputs`.

Each recording, or channel of it, is an output by itself: NAME.json is the record of NAME.rttm, NAME.txt and NAME.png.
The pages are one more output, whose record, timeline.made_from.json, also names the recordings. It is written before
the first recording and says `unfinished` until all are marked, so that the same call resumes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path, file_sha256, json_text, read_json, sync, write_json
from spoofkit.localisation.sources import Source
from spoofkit.outputs import MadeFrom, Output, changed_inputs, is_up_to_date, read_json_record, with_checksums

PAGE = "timeline.html"  # and timeline_2.html …
RECORD = "timeline.made_from.json"
SUFFIXES = (".rttm", ".txt", ".png", ".json")  # the record last
IsPage = Callable[[Path], bool]
MARK = "marked_share"
"""An entry that only the JSON of a marked recording has."""


@dataclass(frozen=True)
class Plan:
    """What a call writes, and what of it is up to date already."""

    sources: list[Source]
    outputs: list[Output]
    """The files of each recording."""
    is_done: list[bool]
    """Whether they are up to date."""
    pages: Output
    are_pages_done: bool
    replaces: dict[str, str]
    """SHA-256 of the records that this call replaces, by name."""
    may_replace: bool
    """Whether existing files may be replaced; none that is refused is left when there is a plan."""


def beside(target: Path, suffix: str) -> Path:
    """Return the path of one of a recording's files, given their common path without a suffix."""
    # Not with_suffix: a name may contain dots.
    return target.with_name(target.name + suffix)


# ---- One recording


def output_of(out_dir: Path, source: Source, settings: MadeFrom) -> Output:
    """Return the files of a recording as an output.

    Args:
        out_dir: Folder of the outputs.
        source: The recording, or channel of it.
        settings: What all recordings are marked with.
    """
    recording = source.recording
    path = Path(recording.path)
    own = {
        "recording": recording.label,
        # A missing file is no reason to stop: the page shows its error.
        "recording_sha256": file_sha256(path) if path.is_file() else "-",
        "channels": recording.downmix,
    }
    *others, record = (beside(out_dir / source.name, suffix) for suffix in SUFFIXES)
    read = read_json_record(MARK)
    return Output("localize", (record, *others), record, _plain(settings | own), read, is_named=False)


def write_recording(output: Output, record: dict[str, Any], contents: Mapping[str, bytes], overwrite: bool) -> None:
    """Write a recording's files; all are complete under temporary names before the first appears.

    The first is the record. Files beside it are always of the same call, even after a kill.

    Args:
        output: The files.
        record: What the JSON holds, except for what the files were made from and checksums.
        contents: The other files, by suffix.
        overwrite: Replace existing files.
    """
    target = output.record.with_name(output.record.name.removesuffix(SUFFIXES[-1]))
    hashes = {beside(target, suffix).name: hashlib.sha256(data).hexdigest() for suffix, data in contents.items()}
    whole = with_checksums(record | {"made_from": output.made_from}, hashes)
    text = json_text(whole)
    write_together(target, {**contents, SUFFIXES[-1]: text.encode()}, overwrite)


def write_together(target: Path, contents: Mapping[str, bytes], overwrite: bool) -> None:
    """Write files that belong together: the record appears first, and no file of an earlier call is left beside it."""
    with ExitStack() as stack:
        for suffix in SUFFIXES:  # the last that is entered appears first
            temporary = stack.enter_context(atomic_path(beside(target, suffix), overwrite))
            temporary.write_bytes(contents[suffix])
            sync(temporary)  # a full disk fails here
        if overwrite:
            for suffix in SUFFIXES[:-1]:
                beside(target, suffix).unlink(missing_ok=True)


# ---- All of a call


def pages_output(out_dir: Path, sources: Iterable[Source], settings: MadeFrom, is_page: IsPage | None) -> Output:
    """Return the pages of all recordings as an output; without the addon that writes pages, the record alone.

    If pages show only some of the recordings, they count as made from the same: the others are added.

    Args:
        out_dir: Folder of the outputs.
        sources: All recordings of the call.
        settings: What all recordings are marked with.
        is_page: Tells whether this verb wrote a file; None: no pages are written.
    """
    now = {source.recording.label: source.file_name for source in sources}
    record = out_dir / RECORD

    def made_from(found: dict[str, Any]) -> MadeFrom:
        before: MadeFrom = found["made_from"]
        return before | {"recordings": now} if set(before["recordings"]) <= set(now) else before

    files = (record,) if is_page is None else (out_dir / PAGE,)
    read = read_json_record("made_from", made_from)
    return Output("localize", files, record, _plain(settings | {"recordings": now}), read, is_own=is_page or _nothing)


def shows_all(pages: Output) -> bool:
    """Return whether pages that are up to date show all recordings of the call."""
    record = _read_record(pages.record)
    return not record.get("unfinished") and record.get("made_from") == pages.made_from


def is_unfinished(pages: Output) -> bool:
    """Return whether an earlier call, of the same settings and no other recordings, was stopped."""
    if not _read_record(pages.record).get("unfinished"):
        return False
    before = pages.read(pages.record).made_from
    return before is not None and not changed_inputs(before, pages.made_from)


def replaceable(pages: Output) -> dict[str, str]:
    """Return what a call that was stopped was allowed to replace: SHA-256 of recordings' records, by name."""
    found = _read_record(pages.record).get("replaces")
    return found if isinstance(found, dict) else {}


def begin(pages: Output, replaces: Mapping[str, str]) -> None:
    """Write the record of a call that begins.

    Args:
        pages: The pages.
        replaces: See `replaceable`.
    """
    record = {"made_from": pages.made_from, "unfinished": True, "replaces": dict(replaces)}
    write_json(pages.record, with_checksums(record), overwrite=True)


def finish(pages: Output, written: Iterable[Path]) -> None:
    """Write the record of a call that has marked all recordings and written their pages."""
    hashes = {path.name: file_sha256(path) for path in written}
    write_json(pages.record, with_checksums({"made_from": pages.made_from}, hashes), overwrite=True)


def known_names(out_dir: Path) -> dict[str, str]:
    """Return the names that earlier calls gave to recordings, by label; they are not checked."""
    made_from = _read_record(out_dir / RECORD).get("made_from")
    names = made_from.get("recordings") if isinstance(made_from, dict) else None
    return {label: str(name) for label, name in names.items()} if isinstance(names, dict) else {}


def make_plan(
    out_dir: Path,
    sources: list[Source],
    settings: dict[str, Any],
    of_pages: dict[str, Any],
    is_page: IsPage | None,
    *,
    overwrite: bool,
    reuse: bool,
) -> Plan:
    """Find out which outputs are up to date.

    Args:
        out_dir: Folder of the outputs.
        sources: All recordings of the call.
        settings: What all recordings are marked with.
        of_pages: What the pages depend on besides.
        is_page: Tells whether this verb wrote a file; None: no pages are written.
        overwrite: See `recordings.localize_recordings`.
        reuse: See `recordings.localize_recordings`.

    Raises:
        SpoofkitError: an output may not be replaced.
    """
    pages = pages_output(out_dir, sources, settings | of_pages, is_page)
    reuse = reuse or (not overwrite and is_unfinished(pages))
    replaces = replaceable(pages) if reuse and not overwrite else {}
    are_pages_done = is_up_to_date(pages, overwrite=overwrite, reuse=reuse) and shows_all(pages)
    outputs = [output_of(out_dir, source, settings) for source in sources]
    is_done = []
    for output in outputs:
        record = output.record
        sha256 = file_sha256(record) if record.is_file() and (overwrite or record.name in replaces) else ""
        is_replaced = overwrite or sha256 == replaces.get(record.name)
        is_done.append(is_up_to_date(output, overwrite=is_replaced, reuse=reuse))
        if overwrite and sha256:
            replaces[record.name] = sha256
    return Plan(sources, outputs, is_done, pages, are_pages_done, replaces, overwrite or reuse)


def _read_record(path: Path) -> dict[str, Any]:
    """Read a record; empty if there is none, or it is damaged, which `spoofkit.outputs` reports."""
    with suppress(SpoofkitError):
        record = read_json(path) if path.is_file() else None
        return record if isinstance(record, dict) else {}
    return {}


def _plain(made_from: MadeFrom) -> MadeFrom:
    """Return values as JSON returns them."""
    plain: MadeFrom = json.loads(json.dumps(made_from))
    return plain


def _nothing(path: Path) -> bool:
    return False
