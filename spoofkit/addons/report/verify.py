"""Verify a report: are its inputs the same, and does examining the recording again give what it says?

Hashes must be equal. Scores may differ by TOLERANCE, as they do between processors; what follows from a score must
follow exactly from the one in the report. All else must be equal, but for when, where and by which version it was made,
and the names of files. The page must say what the JSON says.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spoofkit.addons.report.examine import TOLERANCE, Drawn, examine, judge
from spoofkit.addons.report.instruments import Wanted, load_instruments, what_it_is_made_from
from spoofkit.addons.report.page import report_page
from spoofkit.data.channels import require_channels
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_json
from spoofkit.machine import version
from spoofkit.outputs import checksum
from spoofkit.scoring.loose_files import find_files
from spoofkit.terminal import visible

SECONDS = 0.05
"""Largest difference of the edge of a region."""
EXACT = 1e-9  # relative; JSON holds all digits
PAGE = ".html"
NOT_COMPARED = ("made_from", "made_with", "sha256", "files_sha256")
NAMES = (("recording", "file"), ("model", "name"), ("calibration", "file"))
LONGEST = 60  # characters of a value in a message


def verify(path: Path, model: Path, inputs: list[Path], wanted: Wanted) -> Iterator[str]:
    """Examine the recording of a report again, and yield what is confirmed.

    Args:
        path: JSON of the report.
        model: The model, wherever it lies now; so are the other inputs.
        inputs: The recording.
        wanted: Calibration and device; channels are those of the report.

    Raises:
        SpoofkitError: it is no report, or is not confirmed: names every input and entry that differs.
    """
    recorded = read_report(path)
    files = list(find_files(inputs))
    if len(files) != 1:
        raise SpoofkitError(
            f"--verify {path}: found {len(files):,} recordings, expected the one of the report; name it"
        )
    before = recorded["made_from"]
    wanted = Wanted(wanted.calibration, wanted.threshold_from, str(before.get("channels", "auto")), wanted.device)
    require_channels(wanted.channels)
    found = []
    if is_edited(recorded):
        found.append(f"{path.name}: was edited (its sha256 differs)")
    page = path.with_suffix(PAGE)
    names = {sha256: name for name, sha256 in recorded["files_sha256"].items()}
    if page.is_file() and file_sha256(page) not in names:
        found.append(f"{page.name}: is not the page of this report (another SHA-256)")
    now_from = what_it_is_made_from(model, wanted) | {"recording_sha256": file_sha256(files[0])}
    called = {"recording_sha256": f"recording {files[0]}", "model_sha256": f"model {model}"}
    called |= {"calibration_sha256": f"calibration {wanted.calibration or '(none given)'}"}
    called |= {"threshold_from_sha256": f"threshold of {wanted.threshold_from or '(none given)'}"}
    others = [name for name in now_from if now_from[name] != before.get(name)]
    found += [f"{called.get(name, name)}: is not that of the report ({_hash(before.get(name))} recorded, "
              f"{_hash(now_from[name])} found)" for name in others]  # fmt: skip
    if not others:  # scores of other inputs would say nothing
        instruments = load_instruments(model, wanted)
        again, drawn = examine(files[0], instruments)
        found += differences(recorded, again, lambda score: judge(score, instruments))
        if (made := recorded["made_with"].get("spoofkit")) != version():
            words = f"; the words of {page.name} were not compared with {path.name}" if page.is_file() else ""
            yield f"made by spoofkit {made}, verified by {version()}{words}"
        elif not found and page.is_file():
            found += _differing_page(page, recorded, drawn, names[file_sha256(page)])
    if found:
        raise SpoofkitError(f"{path}: not confirmed: " + "; ".join(map(visible, found)))
    yield f"{path}: confirmed: its inputs are the same, and its scores are found again"


def read_report(path: Path) -> dict[str, Any]:
    """Read the JSON of a report; whether it was edited is not checked.

    Raises:
        SpoofkitError: it is no report.
    """
    record = read_json(path)
    parts = ("made_from", "made_with", "files_sha256")
    is_report = isinstance(record, dict) and "report_format" in record
    if not is_report or not all(isinstance(record.get(part), dict) for part in parts):
        raise SpoofkitError(
            f"{path}: is not the JSON of a report on a recording, expected one that `spoofkit report` wrote; name it"
        )
    found: dict[str, Any] = record
    return found


def is_edited(record: dict[str, Any]) -> bool:
    """Return whether a report was changed by somebody who did not renew its checksum."""
    return record.get("sha256") != checksum(record)


def differences(recorded: dict[str, Any], found: dict[str, Any], judge: Callable[[float], dict[str, Any]]) -> list[str]:
    """List in what a report differs from a new examination.

    Args:
        recorded: The report.
        found: What `examine` says now, of the same inputs.
        judge: Returns what follows from a score.
    """
    found = json.loads(json.dumps(found))
    # Not strict, here and within: where one has more rows than the other, `_compare` names those that are missing.
    for one, other in zip(_rows(found, "results"), _rows(recorded, "results"), strict=False):
        if _is_close(one.get("score"), other.get("score")):
            one |= {"score": other["score"]} | json.loads(json.dumps(judge(other["score"])))
        for part in ("windows", "regions"):
            for now, before in zip(_rows(one, part), _rows(other, part), strict=False):  # as above
                now |= {name: before[name] for name in now if _settles(name, now[name], before.get(name))}
    return list(_compare(_comparable(recorded), _comparable(found), ""))


def _differing_page(page: Path, recorded: dict[str, Any], drawn: list[Drawn], name: str) -> Iterator[str]:
    """Yield a line if a page does not say what its JSON says; `name` is what it was called when it was written."""
    record = {key: value for key, value in recorded.items() if key not in ("sha256", "files_sha256")}
    expected = report_page(record, drawn, Path(name).with_suffix(".json").name)
    if _words(page.read_text(encoding="utf-8")) != _words(expected):
        yield f"{page.name}: does not say what the JSON says"


def _words(page: str) -> str:
    """Return a page with the kinds of elements and the words of each picture in its place: curves differ a little."""

    def of_picture(found: re.Match[str]) -> str:
        return " ".join([*sorted(set(re.findall(r"<([a-zA-Z]+)", found[0]))), *re.findall(r">([^<]+)<", found[0])])

    return re.sub(r"<svg\b.*?</svg>", of_picture, page, flags=re.DOTALL)


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    """Return a report without what may differ."""
    kept = {name: value for name, value in record.items() if name not in NOT_COMPARED}
    for part, name in NAMES:
        if isinstance(kept.get(part), dict):
            kept[part] = {key: value for key, value in kept[part].items() if key != name}
    return kept


def _rows(record: Any, name: str) -> list[dict[str, Any]]:
    rows = record.get(name) if isinstance(record, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _is_close(now: Any, before: Any) -> bool:
    if not _is_number(now) or not _is_number(before):
        return False
    return bool(abs(now - before) <= TOLERANCE * max(1.0, abs(now)))


def _settles(name: str, now: Any, before: Any) -> bool:
    """Return whether a window's or a region's value is near enough to that of the report."""
    if name == "score":
        return _is_close(now, before)
    return _is_number(now) and _is_number(before) and abs(now - before) <= SECONDS


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _compare(before: Any, now: Any, place: str) -> Iterator[str]:
    """Yield a line for each value that differs, named by its place, such as `results[0].score`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*before, *now)):
            inside = f"{place}.{name}" if place else str(name)
            if name not in before or name not in now:
                yield f"{inside}: {'is new' if name not in before else 'is not found again'}"
            else:
                yield from _compare(before[name], now[name], inside)
    elif isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            yield f"{place}: {len(before)} entries recorded, {len(now)} found"
            return
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _compare(one, other, f"{place}[{number}]")
    elif _is_number(before) and _is_number(now):
        if not math.isclose(before, now, rel_tol=EXACT):
            yield f"{place}: {before!r} recorded, {now!r} found"
    elif before != now or type(before) is not type(now):
        yield f"{place}: {_short(before)} recorded, {_short(now)} found"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _hash(value: Any) -> str:
    return "none" if value is None else str(value)[:12]
