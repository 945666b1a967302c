"""Parts: scores as they come, so that a killed scoring resumes and the tasks of a job array share one.

    eval.tsv.parts/3of8.jsonl       beside eval.tsv, until that stands
    b1946ac9 {"part":"3/8","identity":{…},"record":{…}}
    591785b7 {"batch":2,"scores":{"E_0000000042":-1.25,…}}

A part is a journal: its header says what it belongs to, and each line holds a batch, as `outcome` makes it. Part K of N
holds the batches K - 1, K - 1 + N, … of the one batch plan: whole batches, so that every score is bit for bit the one
that a single process writes. Nothing is scored here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.files import remove_folder
from spoofkit.journal import Contents, open_journal, read_journal

Line = dict[str, Any]
"""What a part holds of a batch: `outcome` makes it and reads it."""
BatchIds = dict[int, list[str]]
"""Ids of the utterances of batches, by the batch's number in the plan."""
PartFile = Contents
"""What a part file holds. Header: `part`, `identity`: what it belongs to; `record`: how it was made; `replaces`."""


@dataclass(frozen=True)
class Part:
    """Part `number` of `n_parts` of a job, counted from 1; a single process scores part 1 of 1."""

    number: int = 1
    n_parts: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.n_parts}"

    def batches(self, batch_ids: list[list[str]]) -> BatchIds:
        """Its share of a plan's batches; none where there are fewer batches than parts."""
        return dict(list(enumerate(batch_ids))[self.number - 1 :: self.n_parts])


@dataclass(frozen=True)
class OpenPart:
    """A part that this process holds."""

    path: Path
    part: Part
    lines: dict[int, Line]
    """What it has, by batch."""
    add: Callable[[int, Line], None]
    """Adds a batch."""


def parse_part(text: str) -> Part:
    """Read `K/N`.

    Raises:
        SpoofkitError: not two whole numbers, or K is not between 1 and N.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text)
    if not match or int(match[1]) > int(match[2]):
        raise SpoofkitError(f"--shard {text}: expected K/N, part K of N counted from 1, such as 3/8")
    return Part(int(match[1]), int(match[2]))


def parts_folder(out: Path) -> Path:
    """Return where the parts of the score file `out` stand until it does."""
    return out.with_name(f"{out.name}.parts")


def part_path(out: Path, part: Part) -> Path:
    """Return where a part of the score file `out` stands."""
    return parts_folder(out) / f"{part.number}of{part.n_parts}.jsonl"


def find_parts(out: Path) -> dict[Part, Path]:
    """Find the part files of `out`, by part."""
    found = {}
    for path in parts_folder(out).glob("*.jsonl"):
        if match := re.fullmatch(r"(\d+)of(\d+)\.jsonl", path.name):
            found[Part(int(match[1]), int(match[2]))] = path
    return dict(sorted(found.items(), key=lambda item: (item[0].n_parts, item[0].number)))


def read_parts(out: Path) -> dict[Part, PartFile]:
    """Read the parts of `out` that stand there."""
    return {part: read_journal(path) for part, path in find_parts(out).items()}


def is_begun(file: PartFile, own: BatchIds) -> bool:
    """Tell whether there is anything to resume: a part that holds no batch yet claims nothing."""
    return bool(file.header) and (bool(file.lines) or not own)


def refuse_other_division(out: Path, found: Iterable[Part], n_parts: int) -> None:
    """Refuse parts of another number of parts beside ours: they hold the same utterances a second time.

    Raises:
        SpoofkitError: naming them.
    """
    others = [part_path(out, part).name for part in found if part.n_parts != n_parts]
    if others:
        raise SpoofkitError(
            f"{parts_folder(out)}: holds {', '.join(others[:3])}{' …' if others[3:] else ''} of another division, "
            f"expected parts of {n_parts} alone; continue with those (--shard, --merge) or remove the folder"
        )


def refuse_other_inputs(out: Path, found: dict[Part, PartFile], own: Part, identity: dict[str, Any]) -> None:
    """Refuse to score a part that would not fit those that stand beside it.

    Raises:
        SpoofkitError: a part with scores was made from other inputs.
    """
    for part, file in found.items():
        if part != own and file.lines and (changed := _changed(file, identity)):
            raise SpoofkitError(
                f"{part_path(out, part)}: was scored from other inputs than part {own} ({changed} differ), so the two "
                "cannot be joined; give all parts the same options, or start over with --overwrite"
            )


def check_part(path: Path, file: PartFile, part: Part, identity: dict[str, Any], own: BatchIds) -> dict[int, Line]:
    """Return the lines of a part that belongs to `identity`, by batch.

    Raises:
        SpoofkitError: it was made from other inputs, is another part than its name says, or holds a batch twice or
            other utterances than the plan.
    """
    if changed := _changed(file, identity):
        raise SpoofkitError(
            f"{path}: inputs have changed since ({changed}); score this part "
            "again with --overwrite, or name another score file"
        )
    if file.header["part"] != str(part):
        raise SpoofkitError(
            f"{path}: is part {file.header['part']}, expected part {part}; put back its name, or score this part "
            "again with --overwrite"
        )
    lines: dict[int, Line] = {}
    for line in file.lines:
        number = line["batch"]
        if number in lines or number not in own or _names(line) != set(own[number]):
            fault = "stands twice" if number in lines else "is not this part's, or holds other utterances"
            raise SpoofkitError(f"{path}: batch {number} {fault}; score this part again with --overwrite")
        lines[number] = line
    return lines


def _changed(file: PartFile, identity: dict[str, Any]) -> str:
    """Name what a part was made from other than `identity`; empty: nothing."""
    found = file.header["identity"]
    return ", ".join(sorted(name for name in found.keys() | identity.keys() if found.get(name) != identity.get(name)))


def _names(line: Line) -> set[str]:
    """Return what a batch's line is of: utterances, or files, whose channels may have scores of their own."""
    return {key.partition("\t")[0] for key in (*line["scores"], *line.get("frames", ()), *line.get("errors", ()))}


@contextmanager
def open_part(
    path: Path,
    part: Part,
    identity: dict[str, Any],
    own: BatchIds,
    record: dict[str, Any],
    *,
    start_over: bool,
    replaces: Sequence[str] = (),
) -> Iterator[OpenPart]:
    """Hold a part for this process, while the `with` block lasts.

    Args:
        path: The part file; made with its folder if it is not there.
        part: Which part it is.
        identity: What its scores are made from.
        own: The batches that belong to it.
        record: How it is made, for the record of the score file.
        start_over: Throw away what it holds.
        replaces: Of a new part, SHA-256 of the files that stood where the results go, which these may replace.

    Raises:
        SpoofkitError: another process holds it, it was made from other inputs, or the disk refuses.
    """
    header = {"part": str(part), "identity": identity, "record": record, "replaces": list(replaces)}
    lines: dict[int, Line] = {}

    def resumes(file: PartFile) -> bool:
        if start_over or not is_begun(file, own):
            return False
        lines.update(check_part(path, file, part, identity, own))
        return True

    with open_journal(path, header, resumes) as journal:

        def add(number: int, line: Line) -> None:
            journal.append({"batch": number} | line)
            lines[number] = line

        try:
            yield OpenPart(path, part, lines, add)
        finally:
            if own and not lines:  # refused before its first batch, such as by an utterance that cannot be read
                path.unlink(missing_ok=True)
                with suppress(OSError):  # other parts stand in it
                    path.parent.rmdir()


def require_all(out: Path, found: dict[Part, PartFile]) -> None:
    """Refuse parts of which one is missing, or of another division, or damaged.

    Raises:
        SpoofkitError: naming it, or saying that there are none.
    """
    if not found:
        raise SpoofkitError(
            f"{parts_folder(out)}: holds no parts, expected those that `spoofkit score … --shard K/N` writes"
        )
    n_parts = max(part.n_parts for part in found)
    refuse_other_division(out, found, n_parts)
    missing = [str(part) for number in range(1, n_parts + 1) if (part := Part(number, n_parts)) not in found]
    if missing:
        raise SpoofkitError(
            f"{parts_folder(out)}: {len(missing)} of {n_parts} parts are missing ({', '.join(missing[:5])}"
            f"{' …' if missing[5:] else ''}); score them with --shard, then merge again"
        )
    for part, file in found.items():
        if not file.header or not file.is_whole:
            raise SpoofkitError(
                f"{part_path(out, part)}: is damaged after {len(file.lines)} whole batches; give the command of "
                f"--shard {part} again, which scores the rest"
            )


def require_complete(
    out: Path, found: dict[Part, PartFile], identity: dict[str, Any], batch_ids: list[list[str]]
) -> None:
    """Refuse parts that are not together the scores of a plan, each utterance exactly once.

    Raises:
        SpoofkitError: a part belongs to another `identity`, or is not complete.
    """
    for part, file in found.items():
        path, own = part_path(out, part), part.batches(batch_ids)
        n_lines = len(check_part(path, file, part, identity, own))
        if n_lines < len(own):
            raise SpoofkitError(
                f"{path}: holds {n_lines} of its {len(own)} batches; give the command of --shard {part} again, "
                "which resumes from there"
            )


def discard_parts(out: Path) -> None:
    """Remove the parts of a score file that stands: all in one step, so that a kill leaves no hole among them."""
    if parts_folder(out).exists():
        remove_folder(parts_folder(out))
