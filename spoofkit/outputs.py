"""The state of an output that stands there already: one rule for every verb that writes.

An output is one file or folder, or several that belong together. Its *record* says what it was **made from** (hashes of
the inputs, settings) and what its files were when they were written (SHA-256). It is the output itself where that has
room for it (a manifest, a mix list, `eval.json`), the JSON that a format has beside it (`eval.json` of `eval.tsv`), or
else `OUT.made_from.json`.

    missing       none of its files stands there           is made
    up to date    made from the same, every file whole     --reuse skips it
    incomplete    the same, but one of its files is gone    --reuse recreates it
    changed       made from other inputs or settings        refused; --overwrite recreates it
    damaged       not what was written                      refused; --overwrite recreates it
    foreign       another's                                 refused; if its record is another's, with --overwrite too

Without `--reuse` and `--overwrite` nothing that stands there is replaced; of both, `--overwrite` counts.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_json, refuse_existing, text_sha256, write_json

MadeFrom = dict[str, Any]
INPUTS = {
    "against_sha256": "scores of --against",
    "asv_sha256": "ASV scores",
    "format": "format of the results",
    "made_of_sha256": "scores",
    "on.manifest_sha256": "manifest of --on",
    "on.scores_sha256": "scores of --on",
    "plan_sha256": "order of the utterances",
    "sha256": "weights",
    "sidecar_sha256": "record of the scores",
    "threshold_from_sha256": "file of --threshold-from",
}
"""What names in records mean to people, where they do not say it: `manifest_sha256` is the manifest."""


class State(Enum):
    """Of an output, or of one of its files."""

    MISSING = "missing"
    UP_TO_DATE = "up to date"
    INCOMPLETE = "incomplete"
    CHANGED = "inputs have changed"
    DAMAGED = "damaged"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Standing:
    """What an output that stands says of itself."""

    made_from: MadeFrom | None
    """None: that it is of another verb, or of another program."""
    sha256: Mapping[Path, str] = field(default_factory=dict)
    """What its files were when they were written, as far as that is known."""
    damage: str = ""
    """Why it cannot be what was written; empty: nothing shows."""


@dataclass(frozen=True)
class Output:
    """What a verb is about to write."""

    verb: str
    files: tuple[Path, ...]
    """Files and folders; the first is the one that the user named."""
    record: Path
    """Which file says what they were made from; it may be one of them."""
    made_from: MadeFrom
    """What they would be made from now, as plain JSON values."""
    read: Callable[[Path], Standing]
    """Reads the record that stands."""
    is_own: Callable[[Path], bool] = lambda path: False
    """Of a file that stands without the record: whether it is what a kill left of this verb."""
    is_folder: bool = False
    """Whether the first of the files is a folder. Without its record --overwrite replaces only one that `is_older`."""
    is_older: Callable[[Path], bool] = lambda path: False
    """Whether a folder is what this verb wrote when it wrote no record yet."""

    def every(self) -> list[Path]:
        """All files and the record, each once."""
        return list(dict.fromkeys((*self.files, self.record)))


def is_up_to_date(output: Output, *, overwrite: bool, reuse: bool) -> bool:
    """Whether an output is up to date and skipped; otherwise it may be written, in place of what stands there.

    Raises:
        SpoofkitError: it may not, saying which file is in which state, and what to do.
    """
    standing = [path for path in output.files if _stands(path)]
    for path in standing:
        if not (output.is_folder and path == output.files[0]):
            refuse_existing(path, overwrite=True)  # a folder
    refuse_foreign(output)
    if overwrite or not standing:
        return False
    if not reuse:
        refuse_standing(standing)
    state, path, why = find_state(output)
    if state is State.FOREIGN:
        raise _foreign(output, path)
    if state is State.DAMAGED:
        raise SpoofkitError(f"{path}: damaged ({why}); use --overwrite to recreate it")
    if state is State.CHANGED:
        raise SpoofkitError(
            f"{path}: inputs have changed since ({why}); use --overwrite to recreate it, or name another output"
        )
    return state is State.UP_TO_DATE


def refuse_standing(files: Iterable[Path]) -> None:
    """Refuse files that stand there, where neither --reuse nor --overwrite says what to do with them.

    Raises:
        SpoofkitError: naming the first.
    """
    for path in files:
        if path.exists():
            raise SpoofkitError(
                f"{path}: exists already; pass --overwrite to recreate it, --reuse to skip it if it is up to date, or "
                "name another output"
            )


def refuse_foreign(output: Output) -> None:
    """Refuse what not even --overwrite replaces: the record of something else, and a folder of which nothing is known.

    Raises:
        SpoofkitError: naming it.
    """
    named = output.files[0]
    if output.record.exists():
        found = output.read(output.record)
        if found.made_from is None and not found.damage:
            raise _foreign(output, output.record)
        if stranger := _stranger(output, found):
            raise _foreign(output, stranger)
    elif output.is_folder and _stands(named) and not output.is_older(named):
        raise SpoofkitError(
            f"{named}: exists but was not written by `spoofkit {output.verb}`, as {output.record.name} beside it would "
            "say; name another output, or remove it"
        )


def find_state(output: Output) -> tuple[State, Path, str]:
    """The state of an output, the file that shows it, and why."""
    named = output.files[0]
    every = output.every()
    missing = [path for path in every if not _stands(path)]
    if len(missing) == len(every):
        return State.MISSING, named, ""
    if output.record in missing:
        others = [path for path in every if _stands(path) and not output.is_own(path)]
        return (State.FOREIGN, others[0], "") if others else (State.INCOMPLETE, output.record, "")
    found = output.read(output.record)
    if found.damage:
        return State.DAMAGED, output.record, found.damage
    if found.made_from is None:
        return State.FOREIGN, output.record, ""
    if stranger := _stranger(output, found):
        return State.FOREIGN, stranger, ""
    for path, sha256 in found.sha256.items():
        if path.exists() and file_sha256(path) != sha256:
            return State.DAMAGED, path, f"its SHA-256 differs from that in {output.record.name}"
    if changed := changed_inputs(found.made_from, output.made_from):
        return State.CHANGED, named, ", ".join(changed)
    missing += [path for path in found.sha256 if not path.exists()]
    return (State.INCOMPLETE, missing[0], "") if missing else (State.UP_TO_DATE, named, "")


def changed_inputs(before: MadeFrom, now: MadeFrom) -> list[str]:
    """Return what differs between two records of what an output was made from, in words; empty if nothing does.

    >>> changed_inputs({"mix_sha256": "a", "options": {"by": []}}, {"mix_sha256": "b", "options": {"by": ["codec"]}})
    ['mix', 'by']
    """
    words: list[str] = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name == "options" and isinstance(old, dict) and isinstance(new, dict):
            words += changed_inputs(old, new)
        else:
            words.append(INPUTS.get(name, name.removesuffix("_sha256").replace("_", " ")))
    return list(dict.fromkeys(words))


def refuse_replacing(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise SpoofkitError if an output would replace what it is made of, whatever the names say."""
    made_of = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in made_of:
            raise SpoofkitError(f"{path}: would replace what it is made of; name another output")


def skipped(path: Path) -> str:
    """What is said of an output that is up to date."""
    return f"{path}: up to date, skipped"


def hashes_of(path: Path, name: str) -> dict[str, str]:
    """SHA-256 of a file that is to be called `name`, or of all files of a folder."""
    if not path.is_dir():
        return {name: file_sha256(path)}
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    return {f"{name}/{file.relative_to(path).as_posix()}": file_sha256(file) for file in inside}


# ---- Records


def read_json_record(
    mark: str,
    made_from: Callable[[dict[str, Any]], MadeFrom] = lambda record: record["made_from"],
    hashes: Mapping[str, Path] | None = None,
) -> Callable[[Path], Standing]:
    """Make the reader of a JSON record.

    Args:
        mark: An entry that only the records of this verb have.
        made_from: What of a record says what the output was made from.
        hashes: Entries that hold the SHA-256 of one file; besides, `files_sha256` holds those of files by their names.
    """

    def read(path: Path) -> Standing:
        try:
            record = read_json(path)
        except SpoofkitError:
            return Standing(None, damage="it is not valid JSON")
        if not isinstance(record, dict) or mark not in record:
            return Standing(None)
        if record.get("sha256", checksum(record)) != checksum(record):
            return Standing(None, damage="it was edited: its sha256 differs")
        known = {file: record[name] for name, file in (hashes or {}).items() if name in record}
        own = record.get("files_sha256", {})
        known |= {path.parent / name: sha256 for name, sha256 in (own.items() if isinstance(own, dict) else ())}
        try:
            return Standing(made_from(record), known)
        except (KeyError, TypeError, AttributeError):
            return Standing({}, known)  # of an earlier version

    return read


def sealed(record: dict[str, Any], contents: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A record with the SHA-256 of files beside it, by name, and of itself."""
    whole = record | ({"files_sha256": dict(contents)} if contents else {})
    return whole | {"sha256": checksum(whole)}


def checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 of all values of a record but the checksum itself, however they are laid out as JSON."""
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return text_sha256(json.dumps(rest, sort_keys=True))


def output_with_own_record(
    verb: str,
    path: Path,
    made_from: MadeFrom,
    *,
    is_folder: bool = False,
    is_older: Callable[[Path], bool] = lambda path: False,
) -> Output:
    """An output that has no room for a record, and no JSON beside it: `OUT.made_from.json` is its record."""
    record = path.with_name(f"{path.name}.made_from.json")
    # As JSON gives them back: tuples become lists.
    plain = json.loads(json.dumps({"verb": verb, **made_from}))
    read = read_json_record("made_from")

    def read_of_verb(path: Path) -> Standing:
        found = read(path)
        return found if (found.made_from or {"verb": verb}).get("verb") == verb else Standing(None)

    return Output(verb, (path,), record, plain, read_of_verb, is_folder=is_folder, is_older=is_older)


def write_own_record(output: Output, temporary: Path, **more: Any) -> None:
    """Write the record of `output_with_own_record` before its one file appears: a kill leaves no file without record.

    Args:
        output: What is written.
        temporary: Where the file, or folder, stands complete.
        more: What else is to be read back.
    """
    hashes = hashes_of(temporary, output.files[0].name)
    write_json(output.record, sealed({"made_from": output.made_from, **more}, hashes), overwrite=True)


def _stands(path: Path) -> bool:
    """An empty folder is as good as none."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def _stranger(output: Output, found: Standing) -> Path | None:
    """A file in the folder that was not written with it."""
    if not output.is_folder or not found.sha256:
        return None
    inside = (path for path in sorted(output.files[0].rglob("*")) if path.is_file() or path.is_symlink())
    return next((path for path in inside if path not in found.sha256), None)


def _foreign(output: Output, path: Path) -> SpoofkitError:
    if output.record.exists():
        return SpoofkitError(
            f"{path}: exists but was not written by `spoofkit {output.verb}`; name another output, or move it away"
        )
    return SpoofkitError(
        f"{path}: exists, but {output.record.name}, which would say what it was made from, is missing; name another "
        "output, or use --overwrite to recreate it"
    )
