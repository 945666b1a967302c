"""Parts: scores as they come, so that a killed scoring resumes and the tasks of a job array share one.

    eval.tsv.parts/3of8.jsonl       beside eval.tsv, until that stands
    b1946ac9 {"part":"3/8","identity":{…},"record":{…}}
    591785b7 {"batch":2,"scores":{"E_0000000042":-1.25,…}}

A part is a journal: its header says what it belongs to, and each line holds a batch.
A batch also holds `seconds` and, if there are any, `errors` (why a recording has no score), `windows` (of those that
were cut), `speech_seconds`, and of a manifest `without_signal` (ids). Where channels are scored by themselves, a name
is followed by a tab and the channel.
Part K of N holds the batches K - 1, K - 1 + N, … of the one batch plan: whole batches, so that every score is bit for
bit the one that a single process writes. Nothing is scored here.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.files import remove_folder
from spoofkit.journal import Contents, open_journal, read_journal

Scores = dict[str, float]
"""Scores by utterance id."""
BatchIds = dict[int, list[str]]
"""Ids of the utterances of batches, by the batch's number in the plan."""
BatchScores = dict[int, Scores]
"""Scores of batches, by the batch's number."""
Part = Contents
"""What a part file holds. Header: `part`, `identity`: what it belongs to; `record`: how it was made; `replaces`."""
read_part = read_journal


@dataclass(frozen=True)
class Shard:
    """Part `number` of `n_parts`, counted from 1; a single process scores part 1 of 1."""

    number: int = 1
    n_parts: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.n_parts}"

    def batches(self, batch_ids: list[list[str]]) -> BatchIds:
        """Its share of a plan's batches; none where there are fewer batches than parts."""
        return dict(list(enumerate(batch_ids))[self.number - 1 :: self.n_parts])


def parse_shard(text: str) -> Shard:
    """Read `K/N`.

    Raises:
        SpoofkitError: not two whole numbers, or K is not between 1 and N.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text)
    if not match or int(match[1]) > int(match[2]):
        raise SpoofkitError(f"--shard {text}: expected K/N, part K of N counted from 1, such as 3/8")
    return Shard(int(match[1]), int(match[2]))


def parts_folder(out: Path) -> Path:
    """Where the parts of the score file `out` stand until it does."""
    return out.with_name(f"{out.name}.parts")


def part_path(out: Path, shard: Shard) -> Path:
    """Where a part of the score file `out` stands."""
    return parts_folder(out) / f"{shard.number}of{shard.n_parts}.jsonl"


def find_parts(out: Path) -> dict[Shard, Path]:
    """The part files of `out`, by part."""
    found = {}
    for path in parts_folder(out).glob("*.jsonl"):
        if match := re.fullmatch(r"(\d+)of(\d+)\.jsonl", path.name):
            found[Shard(int(match[1]), int(match[2]))] = path
    return dict(sorted(found.items(), key=lambda item: (item[0].n_parts, item[0].number)))


def refuse_other_divisions(out: Path, n_parts: int) -> None:
    """Refuse parts of another number of parts beside ours: they hold the same utterances a second time."""
    others = [path.name for shard, path in find_parts(out).items() if shard.n_parts != n_parts]
    if others:
        raise SpoofkitError(
            f"{parts_folder(out)}: holds {', '.join(others[:3])}{' …' if others[3:] else ''} of another division, "
            f"expected parts of {n_parts} alone; continue with those (--shard, --merge) or remove the folder"
        )


def is_begun(part: Part, own: BatchIds) -> bool:
    """Whether there is anything to resume: a part that holds no batch yet claims nothing."""
    return bool(part.header) and (bool(part.lines) or not own)


def any_has_scores(out: Path) -> bool:
    """Whether any part of the score file `out` holds a batch."""
    return any(read_part(path).lines for path in find_parts(out).values())


def may_be_replaced(out: Path) -> set[str]:
    """SHA-256 of the files that stood where the results go when parts were begun with leave to replace them."""
    return {sha256 for path in find_parts(out).values() for sha256 in read_part(path).header.get("replaces", ())}


def refuse_other_parts(out: Path, shard: Shard, identity: dict[str, Any]) -> None:
    """Refuse to score a part that would not fit those that stand beside it.

    Raises:
        SpoofkitError: a part with scores was made from other inputs.
    """
    for other, path in find_parts(out).items():
        part = read_part(path)
        if other == shard or not part.lines:
            continue
        found = part.header["identity"]
        changed = sorted(name for name in found.keys() | identity.keys() if found.get(name) != identity.get(name))
        if changed:
            raise SpoofkitError(
                f"{path}: was scored from other inputs than part {shard} ({', '.join(changed)} differ), so the two "
                "cannot be joined; give all parts the same options, or start over with --overwrite"
            )


def check_part(path: Path, part: Part, shard: Shard, identity: dict[str, Any], own: BatchIds) -> BatchScores:
    """The scores of a part that belongs to `identity`, by batch.

    Raises:
        SpoofkitError: it was made from other inputs, is another part than its name says, or holds a batch twice or
            other utterances than the plan.
    """
    found, expected = part.header["identity"], identity
    changed = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if changed:
        raise SpoofkitError(
            f"{path}: inputs have changed since ({', '.join(changed)}); score this part "
            "again with --overwrite, or name another score file"
        )
    if part.header["part"] != str(shard):
        raise SpoofkitError(
            f"{path}: is part {part.header['part']}, expected part {shard}; put back its name, or score this part "
            "again with --overwrite"
        )
    scores: BatchScores = {}
    for line in part.lines:
        number = line["batch"]
        if number in scores or number not in own or _names(line) != set(own[number]):
            fault = "stands twice" if number in scores else "is not this part's, or holds other utterances"
            raise SpoofkitError(f"{path}: batch {number} {fault}; score this part again with --overwrite")
        scores[number] = line["scores"]
    return scores


def _names(line: dict[str, Any]) -> set[str]:
    """What a batch's line is of: utterances, or files, whose channels may have scores of their own."""
    return {key.partition("\t")[0] for key in (*line["scores"], *line.get("errors", ()))}


@contextmanager
def open_part(
    path: Path,
    shard: Shard,
    identity: dict[str, Any],
    own: BatchIds,
    record: dict[str, Any],
    *,
    start_over: bool,
    lines: list[dict[str, Any]] | None = None,
    replaces: Sequence[str] = (),
) -> Iterator[tuple[BatchScores, Callable[..., None]]]:
    """Hold a part for this process: what it has, and a function that adds a batch (and what else belongs to it).

    Args:
        path: The part file; made with its folder if it is not there.
        shard: Which part it is.
        identity: What its scores are made from.
        own: The batches that belong to it.
        record: How it is made, for the record of the score file.
        start_over: Throw away what it holds.
        lines: Gets the lines of all its batches, those that it has and those that are added.
        replaces: Of a new part, SHA-256 of the files that the result has leave to replace: see `may_be_replaced`.

    Raises:
        SpoofkitError: another process holds it, it was made from other inputs, or the disk refuses.
    """
    lines = [] if lines is None else lines
    header = {"part": str(shard), "identity": identity, "record": record, "replaces": list(replaces)}
    scores: BatchScores = {}

    def resumes(part: Part) -> bool:
        if start_over or not is_begun(part, own):
            return False
        scores.update(check_part(path, part, shard, identity, own))
        return True

    with open_journal(path, header, resumes) as journal:
        lines += journal.lines

        def add_batch(number: int, batch: Scores, **more: Any) -> None:
            lines.append({"batch": number, "scores": batch, **more})
            journal.append(lines[-1])
            scores[number] = batch

        try:
            yield scores, add_batch
        finally:
            if own and not scores:  # refused before its first batch, such as by an utterance that cannot be read
                path.unlink(missing_ok=True)
                with suppress(OSError):  # other parts stand in it
                    path.parent.rmdir()


def read_all_parts(out: Path) -> dict[Shard, Part]:
    """All parts of the score file `out`, in order.

    Raises:
        SpoofkitError: there are none, one is missing or damaged, or one is of another division.
    """
    found = find_parts(out)
    if not found:
        raise SpoofkitError(
            f"{parts_folder(out)}: holds no parts, expected those that `spoofkit score … --shard K/N` writes"
        )
    n_parts = max(shard.n_parts for shard in found)
    refuse_other_divisions(out, n_parts)
    shards = [Shard(number, n_parts) for number in range(1, n_parts + 1)]
    missing = [str(shard) for shard in shards if shard not in found]
    if missing:
        raise SpoofkitError(
            f"{parts_folder(out)}: {len(missing)} of {n_parts} parts are missing ({', '.join(missing[:5])}"
            f"{' …' if missing[5:] else ''}); score them with --shard, then merge again"
        )
    parts = {shard: read_part(found[shard]) for shard in shards}
    for shard, part in parts.items():
        if not part.header or not part.is_whole:
            raise SpoofkitError(
                f"{found[shard]}: is damaged after {len(part.lines)} whole batches; give the command of "
                f"--shard {shard} again, which scores the rest"
            )
    return parts


def join_parts(out: Path, parts: dict[Shard, Part], identity: dict[str, Any], batch_ids: list[list[str]]) -> Scores:
    """Scores by id from all parts, each utterance of the plan exactly once.

    Raises:
        SpoofkitError: a part belongs to another `identity`, or is not complete.
    """
    scores: Scores = {}
    for shard, part in parts.items():
        path, own = part_path(out, shard), shard.batches(batch_ids)
        batches = check_part(path, part, shard, identity, own)
        if len(batches) < len(own):
            raise SpoofkitError(
                f"{path}: holds {len(batches)} of its {len(own)} batches; give the command of --shard {shard} again, "
                "which resumes from there"
            )
        for batch in batches.values():
            scores |= batch
    return scores


def discard_parts(out: Path) -> None:
    """Remove the parts of a score file that stands: all in one step, so that a kill leaves no hole among them."""
    if parts_folder(out).exists():
        remove_folder(parts_folder(out))
