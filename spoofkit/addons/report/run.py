"""Make reports: examine recordings, write a page and a JSON on each, and of several a summary.

call.html, call.json        of one recording
DIR/NAME.html, NAME.json    of several, and DIR/summary.html, .csv, .json
"""

import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spoofkit.addons.report.examine import examine
from spoofkit.addons.report.instruments import Instruments, Wanted, load_instruments, what_it_is_made_from
from spoofkit.addons.report.page import report_page
from spoofkit.addons.report.summary import NAME, rows_of, write_summary
from spoofkit.addons.report.together import write_together
from spoofkit.data.channels import require_channels
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json, sha256_or_dash
from spoofkit.localisation.marks import safe_names
from spoofkit.lock import locked_outputs
from spoofkit.machine import command, now, version
from spoofkit.outputs import Output, is_up_to_date, read_json_record, refuse_replacing, skipped
from spoofkit.scoring.job import raise_failed
from spoofkit.scoring.loose_files import find_files
from spoofkit.scoring.recordings import label_of
from spoofkit.terminal import say

PAGE = ".html"
MadeFrom = dict[str, Any]


def report(
    model: Path, inputs: list[Path], out: Path, wanted: Wanted, *, overwrite: bool = False, reuse: bool = False
) -> Iterator[str]:
    """Write the report on a recording, or on several with a summary, and yield a line for each.

    Args:
        model: Model folder, an exported model, or `hub:OWNER/MODEL`.
        inputs: Files, folders, globs, and `-` for names on stdin.
        out: The page, `*.html`, of one recording; otherwise a folder.
        wanted: Calibration, channels, device.
        overwrite: Replace what an earlier call wrote.
        reuse: Skip reports that are up to date.

    Raises:
        SpoofkitError: an input is not what was expected, an output exists or another process is writing it, or, at the
            end, a recording has no score.
    """
    require_channels(wanted.channels)
    files = list(find_files(inputs))
    is_single = out.suffix == PAGE
    if is_single and len(files) > 1:
        raise SpoofkitError(
            f"-o {out}: is the page on one recording, found {len(files):,}; name a folder, such as `-o "
            f"{out.with_suffix('')}`"
        )
    if not is_single and out.exists() and not out.is_dir():
        raise SpoofkitError(f"-o {out}: is a file, expected a folder, or a page *.html; name another output")
    used = [path for path in (wanted.calibration, wanted.threshold_from) if path is not None]
    made_from = what_it_is_made_from(model, wanted)
    names = {files[0]: out.stem} if is_single else _names(out, files)
    folder = out.parent if is_single else out
    outputs = {file: _output(folder, names[file], made_from, file) for file in files}
    refuse_replacing((path for one in outputs.values() for path in one.all_paths()), [*map(Path, files), model, *used])
    with locked_outputs(folder, out.stem if is_single else NAME):
        is_done = {file: is_up_to_date(one, overwrite=overwrite, reuse=reuse) for file, one in outputs.items()}
        summary = _summary_output(out, made_from)
        if not is_single:
            is_up_to_date(summary, overwrite=overwrite, reuse=reuse)
        instruments = None if all(is_done.values()) else load_instruments(model, wanted)
        records: dict[str, Any] = {}
        for file in tqdm(files, desc="report", unit="file", disable=is_single or not sys.stderr.isatty()):
            one = outputs[file]
            if is_done[file]:
                records[file] = read_json(one.record)
                yield skipped(one.files[0])
                continue
            assert instruments is not None
            try:
                records[file] = _write(one, file, instruments)
                yield f"{one.files[0]}: {_said(records[file])}"
            except SpoofkitError as error:
                if is_single:
                    raise
                records[file] = str(error)
                say(f"spoofkit: {error}")
        rows = [row for file in files for row in rows_of(file, records[file], outputs[file])]
        if not is_single:
            known = next((record for record in records.values() if isinstance(record, dict)), None)
            write_summary(summary, len(files), rows, known, names)
            yield f"{summary.files[0]}: {len(rows):,} rows, most likely spoofed first"
        raise_failed(
            [f"{label_of(row['file'], row['channel'])}: {row['error']}" for row in rows if row["error"]], len(rows)
        )


def _names(out: Path, files: list[str]) -> dict[str, str]:
    """Choose the names of the files on each recording; those of an earlier call stay."""
    record = out / f"{NAME}.json"
    known: Any = {}
    if record.is_file():
        found = read_json(record)
        known = found.get("names") if isinstance(found, dict) else None
    kept = {file: str(name) for file, name in known.items() if file in files} if isinstance(known, dict) else {}
    # The summary, which is no file and so has an empty path, takes its name first.
    return safe_names({"": (None,), **dict.fromkeys(files, (None,))}, {"": NAME, **kept})


def _output(folder: Path, name: str, made_from: MadeFrom, file: str) -> Output:
    page, record = folder / f"{name}{PAGE}", folder / f"{name}.json"
    own = {"recording_sha256": sha256_or_dash(file)}
    return Output("report", (page,), record, made_from | own, read_json_record("report_format"))


def _summary_output(out: Path, made_from: MadeFrom) -> Output:
    files = (out / f"{NAME}{PAGE}", out / f"{NAME}.csv")
    return Output("report", files, out / f"{NAME}.json", made_from, read_json_record("summary_format"))


def _write(output: Output, file: str, instruments: Instruments) -> dict[str, Any]:
    """Examine a recording and write its page and JSON; return what the JSON holds."""
    record, drawn = examine(file, instruments)
    if record["recording"]["sha256"] != output.made_from["recording_sha256"]:
        raise SpoofkitError(f"{file}: has changed since this call began, expected a finished file; run it again")
    record |= {"made_with": _made_with(instruments), "made_from": output.made_from}
    page = report_page(record, drawn, output.record.name).encode()
    return write_together(output, record, {output.files[0]: page})


def _made_with(instruments: Instruments) -> dict[str, Any]:
    scorer = instruments.scorer
    return {
        "date": now(),
        "spoofkit": version(),
        "python": platform.python_version(),
        **scorer.runtime,
        "device": scorer.device,
        "hardware": scorer.record.get("hardware"),
        "command": command(),
    }


def _said(record: Mapping[str, Any]) -> str:
    """Return the verdicts of a report in a line."""
    said = []
    for result in record["results"]:
        channel = f"channel {result['channel']}: " if result["channel"] else ""
        said.append(channel + (result["error"] or result["verdict"] or "no verdict: the score is not calibrated"))
    return " ".join(said)
