"""Parts of a score file, so that a killed `score` resumes and the tasks of a job array share the work.

    eval.tsv.parts/3of8.jsonl       beside eval.tsv, until that is complete
    b1946ac9 {"part":"3/8","identity":{…},"record":{…}}
    591785b7 {"batch":2,"scores":{"E_0000000042":-1.25,…}}

A part is a journal: `identity` in its header is what its scores are made from, and each line holds a batch. Part K of N
holds the batches K - 1, K - 1 + N, … of the batch plan: whole batches, so that every score is bit for bit the one that
a single process writes. Nothing is scored here.

A line holds, each by recording (or by recording, a tab and the channel): `scores`; and if there are any, `frames`
(float32 in base64: a third longer than its bytes, and exact), `seconds`, `errors` (why a recording has no score),
`windows` (of those that were cut), `speech_seconds`; and of a manifest `without_signal` (ids).
"""

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.files import remove_folder
from spoofkit.journal import Contents, open_journal, read_journal
from spoofkit.outputs import MadeFrom, changed_inputs
from spoofkit.scoring.recordings import Result
from spoofkit.scoring.windows import WindowScore

Line = dict[str, Any]
"""The results of a batch: see above."""
BatchIds = dict[int, list[str]]
"""Utterance ids of batches, by the batch's number in the plan."""
PartFile = Contents
"""Contents of a part file. Header: `part`; `identity`: what it was made from; `record`: how; `replaces`."""


@dataclass(frozen=True)
class Part:
    """Part `number` of `n_parts` of a job, counted from 1; a single process scores part 1 of 1."""

    number: int = 1
    n_parts: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.n_parts}"

    def batches(self, batch_ids: list[list[str]]) -> BatchIds:
        """Return its share of a plan's batches; empty if there are fewer batches than parts."""
        return dict(list(enumerate(batch_ids))[self.number - 1 :: self.n_parts])


@dataclass(frozen=True)
class OpenPart:
    """A part that this process has locked."""

    path: Path
    part: Part
    lines: dict[int, Line]
    """Its lines, by batch."""
    add: Callable[[int, Line], None]
    """Appends the line of a batch."""


def parse_part(text: str) -> Part:
    """Read `K/N`.

    Raises:
        SpoofkitError: not two whole numbers, or K is not between 1 and N.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text)
    if not match or int(match[1]) > int(match[2]):
        raise SpoofkitError(f"--part {text}: expected K/N (part K of N, counted from 1), such as 3/8")
    return Part(int(match[1]), int(match[2]))


def parts_folder(out: Path) -> Path:
    """Return the folder for the parts of the score file `out`."""
    return out.with_name(f"{out.name}.parts")


def part_path(out: Path, part: Part) -> Path:
    """Return the path of a part of the score file `out`."""
    return parts_folder(out) / f"{part.number}of{part.n_parts}.jsonl"


def find_parts(out: Path) -> dict[Part, Path]:
    """Return the part files of `out`, by part."""
    found = {}
    for path in parts_folder(out).glob("*.jsonl"):
        if match := re.fullmatch(r"(\d+)of(\d+)\.jsonl", path.name):
            found[Part(int(match[1]), int(match[2]))] = path
    return dict(sorted(found.items(), key=lambda item: (item[0].n_parts, item[0].number)))


def read_parts(out: Path) -> dict[Part, PartFile]:
    """Read the parts of `out`."""
    return {part: read_journal(path) for part, path in find_parts(out).items()}


def is_begun(file: PartFile, own: BatchIds) -> bool:
    """Return whether there is anything to resume: not if a part has batches to score and none is scored yet."""
    return bool(file.header) and (bool(file.lines) or not own)


def refuse_other_division(out: Path, found: Iterable[Part], n_parts: int) -> None:
    """Refuse parts of a division into another number of parts: they hold the same utterances a second time.

    Raises:
        SpoofkitError: there are such parts.
    """
    others = [part_path(out, part).name for part in found if part.n_parts != n_parts]
    if others:
        raise SpoofkitError(
            f"{parts_folder(out)}: found {', '.join(others[:3])}{' …' if others[3:] else ''}, expected only parts of "
            f"{n_parts}; finish those first (--part, --merge) or remove the folder"
        )


def refuse_other_inputs(out: Path, found: dict[Part, PartFile], own: Part, made_from: MadeFrom) -> None:
    """Refuse to score a part that cannot be joined with the others.

    Raises:
        SpoofkitError: a part with scores was made from other inputs.
    """
    for part, file in found.items():
        if part != own and file.lines and (changed := changed_inputs(file.header["identity"], made_from)):
            raise SpoofkitError(
                f"{part_path(out, part)}: was made from other inputs than part {own} ({', '.join(changed)}); score all "
                "parts with the same inputs and options, or start over with --overwrite"
            )


def check_part(path: Path, file: PartFile, part: Part, made_from: MadeFrom, own: BatchIds) -> dict[int, Line]:
    """Return the lines of a part, by batch.

    Raises:
        SpoofkitError: it was made from other inputs, is another part than its name says, or holds a batch twice or
            other utterances than the plan.
    """
    if changed := changed_inputs(file.header["identity"], made_from):
        raise SpoofkitError(
            f"{path}: inputs have changed since ({', '.join(changed)}); use --overwrite to score this part again, or "
            "name another score file"
        )
    if file.header["part"] != str(part):
        raise SpoofkitError(
            f"{path}: is part {file.header['part']}, expected part {part}; restore its name, or use --overwrite to "
            "score this part again"
        )
    lines: dict[int, Line] = {}
    for line in file.lines:
        number = line["batch"]
        if number in lines or number not in own or _names(line) != set(own[number]):
            fault = "appears twice" if number in lines else "is of another part, or holds other utterances"
            raise SpoofkitError(f"{path}: batch {number} {fault}; use --overwrite to score this part again")
        lines[number] = line
    return lines


def _names(line: Line) -> set[str]:
    """Return the utterances, or files, that a batch's line is about, without the channels."""
    return {key.partition("\t")[0] for key in (*line["scores"], *line.get("frames", ()), *line.get("errors", ()))}


@contextmanager
def open_part(
    path: Path,
    part: Part,
    made_from: MadeFrom,
    own: BatchIds,
    record: dict[str, Any],
    *,
    start_over: bool,
    replaces: Sequence[str] = (),
) -> Iterator[OpenPart]:
    """Lock a part for this process, while the `with` block lasts.

    Args:
        path: The part file; created with its folder if it does not exist.
        part: Which part it is.
        made_from: What its scores are made from.
        own: The batches that belong to it.
        record: How its scores are made, for the record of the score file.
        start_over: Discard its lines.
        replaces: SHA-256 of the files that the results may replace; stored in a new part.

    Raises:
        SpoofkitError: another process holds it, it was made from other inputs, or the disk refuses.
    """
    header = {"part": str(part), "identity": made_from, "record": record, "replaces": list(replaces)}
    lines: dict[int, Line] = {}

    def resumes(file: PartFile) -> bool:
        if start_over or not is_begun(file, own):
            return False
        lines.update(check_part(path, file, part, made_from, own))
        return True

    with open_journal(path, header, resumes) as journal:

        def add(number: int, line: Line) -> None:
            journal.append({"batch": number} | line)
            lines[number] = line

        try:
            yield OpenPart(path, part, lines, add)
        finally:
            if own and not lines:  # failed before its first batch, such as at an utterance that cannot be read
                path.unlink(missing_ok=True)
                with suppress(OSError):  # other parts are in it
                    path.parent.rmdir()


def require_all(out: Path, found: dict[Part, PartFile]) -> None:
    """Refuse to merge if a part is missing, damaged or of another division.

    Raises:
        SpoofkitError: one is, or there are no parts.
    """
    if not found:
        raise SpoofkitError(
            f"{parts_folder(out)}: found no parts, expected those that `spoofkit score … --part K/N` writes"
        )
    n_parts = max(part.n_parts for part in found)
    refuse_other_division(out, found, n_parts)
    missing = [str(part) for number in range(1, n_parts + 1) if (part := Part(number, n_parts)) not in found]
    if missing:
        raise SpoofkitError(
            f"{parts_folder(out)}: {len(missing)} of {n_parts} parts are missing ({', '.join(missing[:5])}"
            f"{' …' if missing[5:] else ''}); score them with --part, then merge again"
        )
    for part, file in found.items():
        if not file.header or not file.is_whole:
            raise SpoofkitError(
                f"{part_path(out, part)}: damaged after {len(file.lines)} batches; run --part {part} again to score "
                "the rest"
            )


def require_complete(out: Path, found: dict[Part, PartFile], made_from: MadeFrom, batch_ids: list[list[str]]) -> None:
    """Refuse parts that do not hold each utterance of a plan exactly once.

    Raises:
        SpoofkitError: a part was made from other inputs, or is not complete.
    """
    for part, file in found.items():
        path, own = part_path(out, part), part.batches(batch_ids)
        n_lines = len(check_part(path, file, part, made_from, own))
        if n_lines < len(own):
            raise SpoofkitError(
                f"{path}: holds {n_lines} of its {len(own)} batches; run --part {part} again to score the rest"
            )


def discard_parts(out: Path) -> None:
    """Remove the parts of a complete score file, in one step: a kill must not leave some of them."""
    if parts_folder(out).exists():
        remove_folder(parts_folder(out))


@dataclass(frozen=True)
class Outcome:
    """The results of a job, from which its files are made."""

    results: dict[str, Result]
    """Result of each recording, or of each channel of one, by the keys of lines."""
    errors: dict[str, str]
    """Why some have no score, by the keys of lines, sorted."""
    without_signal: list[str]
    """Ids of a manifest that have a score but hardly any signal, sorted."""
    of_channels: list[str]
    """Names of the recordings whose channels are scored separately, sorted."""

    @staticmethod
    def of(lines: Iterable[dict[str, Any]]) -> "Outcome":
        """Read lines of parts."""
        results = {}
        for line in lines:
            scores, frames, seconds = line["scores"], line.get("frames", {}), line.get("seconds", {})
            if any(isinstance(value, list) for value in scores.values()):  # written by an earlier `localize`
                frames = {key: text for key, (_, text) in scores.items()}
                seconds = {key: n_samples / SAMPLE_RATE for key, (n_samples, _) in scores.items()}
                scores = {}
            for key in dict.fromkeys((*scores, *frames, *line.get("errors", ()))):
                name, _, channel = key.partition("\t")
                results[key] = Result(
                    name,
                    int(channel) if channel else None,
                    seconds.get(key, 0.0),
                    scores.get(key),
                    tuple(WindowScore(*window) for window in line.get("windows", {}).get(key, ())),
                    line.get("errors", {}).get(key, ""),
                    lacks_signal=key in line.get("without_signal", ()),
                    speech_seconds=line.get("speech_seconds", {}).get(key),
                    frames=np.frombuffer(base64.b64decode(frames[key]), "<f4") if key in frames else None,
                )
        return Outcome(
            results,
            {key: result.error for key, result in sorted(results.items()) if result.error},
            sorted(key for key, result in results.items() if result.lacks_signal),
            sorted({result.name for result in results.values() if result.channel is not None}),
        )

    @property
    def n_tied(self) -> int:
        """Number of scores that another one equals."""
        counts = Counter(result.score for result in self.results.values() if result.score is not None)
        return sum(n for n in counts.values() if n > 1)

    def in_order(self, names: Iterable[str]) -> list[Result]:
        """Return all results in the order of names, and the channels of a recording in their order."""
        of_name: dict[str, list[Result]] = {}
        for result in self.results.values():
            of_name.setdefault(result.name, []).append(result)
        return [result for name in names for result in sorted(of_name[name], key=lambda one: one.channel or 0)]


def as_line(results: Iterable[Result]) -> dict[str, Any]:
    """Return the results of a batch as a line of a part; empty entries except `scores` are left out."""
    line: dict[str, dict[str, Any]] = {
        "scores": {}, "frames": {}, "errors": {}, "windows": {}, "seconds": {}, "speech_seconds": {},
    }  # fmt: skip
    without_signal = []
    for result in results:
        key = result.name if result.channel is None else f"{result.name}\t{result.channel}"  # no name holds a tab
        if result.error:
            line["errors"][key] = result.error
            continue
        line["seconds"][key] = result.seconds
        if result.score is not None:
            line["scores"][key] = result.score
        if result.frames is not None:
            line["frames"][key] = base64.b64encode(result.frames.astype("<f4").tobytes()).decode()
        if result.windows:
            line["windows"][key] = [list(window.known().values()) for window in result.windows]
        if result.speech_seconds is not None:
            line["speech_seconds"][key] = result.speech_seconds
        if result.lacks_signal:
            without_signal.append(result.name)
    found: dict[str, Any] = {name: of_key for name, of_key in line.items() if of_key or name == "scores"}
    return found | ({"without_signal": without_signal} if without_signal else {})
