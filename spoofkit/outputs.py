"""The state of an output that exists already: one rule for every verb that writes.

An output is one file or folder, or several that belong together. Its *record* holds what it was **made from** (hashes
of the inputs, settings) and the SHA-256 of its files when they were written. The record is in the output itself where
its format allows that (a manifest, a mix list, `eval.json`), in the JSON beside it (`eval.json` of `eval.tsv`), or else
in `OUT.made_from.json`.

    missing       none of its files exists                  is created
    up to date    made from the same, every file intact     --reuse skips it
    incomplete    the same, but one of its files is missing --reuse recreates it
    changed       made from other inputs or settings        refused; --overwrite recreates it
    damaged       not what was written                      refused; --overwrite recreates it
    foreign       not written by this verb                  refused; if its record is foreign, with --overwrite too

Without `--reuse` and `--overwrite` nothing that exists is replaced; given both, `--overwrite` wins.
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
"""What names in records mean, where they do not say it themselves: `manifest_sha256` is the manifest."""


class State(Enum):
    """State of an output, or of one of its files."""

    MISSING = "missing"
    UP_TO_DATE = "up to date"
    INCOMPLETE = "incomplete"
    CHANGED = "inputs have changed"
    DAMAGED = "damaged"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Record:
    """What the record of an existing output says."""

    made_from: MadeFrom | None
    """None if another verb or another program wrote it."""
    sha256: Mapping[Path, str] = field(default_factory=dict)
    """SHA-256 of its files when they were written, as far as known."""
    damage: str = ""
    """Why it cannot be what was written; empty if no damage is known."""


@dataclass(frozen=True)
class Output:
    """What a verb is about to write."""

    verb: str
    files: tuple[Path, ...]
    """Files and folders; the user named the first."""
    record: Path
    """The file that holds what they were made from; it may be one of them."""
    made_from: MadeFrom
    """What they would be made from now, as plain JSON values."""
    read: Callable[[Path], Record]
    """Reads the record of the existing output."""
    is_own: Callable[[Path], bool] = lambda path: False
    """Whether a file without a record is what this verb left when it was killed."""
    is_folder: bool = False
    """Whether the first of the files is a folder. If it has no record, --overwrite replaces it only if `is_older`."""
    is_older: Callable[[Path], bool] = lambda path: False
    """Whether a folder is what an early version of this verb wrote, without a record."""
    is_named: bool = True
    """Whether the user named the first file. If the verb did, --overwrite replaces no file without a valid record."""

    def all_paths(self) -> list[Path]:
        """Return all files and the record, each once."""
        return list(dict.fromkeys((*self.files, self.record)))


def is_up_to_date(output: Output, *, overwrite: bool, reuse: bool) -> bool:
    """Return whether an output is up to date, so that it is skipped; otherwise it may be written or replaced.

    Raises:
        SpoofkitError: it may not be replaced; names the file, its state, and what to do.
    """
    standing = [path for path in output.files if _exists(path)]
    for path in standing:
        if not (output.is_folder and path == output.files[0]):
            refuse_existing(path, overwrite=True)  # a folder
    refuse_foreign(output)
    if overwrite or not standing:
        return False
    if not reuse:
        refuse_existing_files(standing)
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


def refuse_existing_files(files: Iterable[Path]) -> None:
    """Refuse existing files, where neither --reuse nor --overwrite was given.

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
    """Refuse what not even --overwrite replaces: the record of something else, and an unknown folder.

    Raises:
        SpoofkitError: naming it.
    """
    named = output.files[0]
    if output.record.exists():
        found = output.read(output.record)
        if found.made_from is None and not (found.damage and output.is_named):
            raise _foreign(output, output.record)
        if stranger := _foreign_file(output, found):
            raise _foreign(output, stranger)
        return
    unknown = [named] if output.is_folder and _exists(named) and not output.is_older(named) else []
    if not output.is_named:
        unknown = [path for path in output.files if _exists(path)]
    if unknown:
        raise SpoofkitError(
            f"{unknown[0]}: exists but was not written by `spoofkit {output.verb}` (there is no {output.record.name} "
            "beside it); name another output, or move it away"
        )


def find_state(output: Output) -> tuple[State, Path, str]:
    """Return the state of an output, the file that shows it, and why."""
    named = output.files[0]
    every = output.all_paths()
    missing = [path for path in every if not _exists(path)]
    if len(missing) == len(every):
        return State.MISSING, named, ""
    if output.record in missing:
        others = [path for path in every if _exists(path) and not output.is_own(path)]
        return (State.FOREIGN, others[0], "") if others else (State.INCOMPLETE, output.record, "")
    found = output.read(output.record)
    if found.damage:
        return State.DAMAGED, output.record, found.damage
    if found.made_from is None:
        return State.FOREIGN, output.record, ""
    if stranger := _foreign_file(output, found):
        return State.FOREIGN, stranger, ""
    for path, sha256 in found.sha256.items():
        if path.exists() and (path.is_dir() or file_sha256(path) != sha256):
            return State.DAMAGED, path, f"its SHA-256 differs from that in {output.record.name}"
    if changed := changed_inputs(found.made_from, output.made_from):
        return State.CHANGED, named, ", ".join(changed)
    missing += [path for path in found.sha256 if not path.exists()]
    return (State.INCOMPLETE, missing[0], "") if missing else (State.UP_TO_DATE, named, "")


def changed_inputs(before: MadeFrom, now: MadeFrom) -> list[str]:
    """Name the inputs and settings in which two `made_from` differ; empty if they are equal.

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


def require_unchanged(path: Path, before: MadeFrom, now: MadeFrom) -> None:
    """Refuse to write a result of inputs that changed between being hashed and being read.

    Args:
        path: The result, for the message.
        before: What it is to be made from.
        now: The same, computed again after the inputs were read.

    Raises:
        SpoofkitError: they differ.
    """
    if changed := changed_inputs(before, now):
        raise SpoofkitError(
            f"{path}: not written, since inputs changed while they were read ({', '.join(changed)}); run it again"
        )


def refuse_replacing(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise SpoofkitError if an output would replace one of its own inputs, under whatever name."""
    made_of = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in made_of:
            raise SpoofkitError(f"{path}: would replace one of its own inputs; name another output")


def skipped(path: Path) -> str:
    """Return the message for an output that is up to date."""
    return f"{path}: up to date, skipped"


def hashes_of(path: Path, name: str) -> dict[str, str]:
    """Return the SHA-256 of a file that is to be called `name`, or of all files of a folder."""
    if not path.is_dir():
        return {name: file_sha256(path)}
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    return {f"{name}/{file.relative_to(path).as_posix()}": file_sha256(file) for file in inside}


# ---- Records


def read_json_record(
    mark: str,
    made_from: Callable[[dict[str, Any]], MadeFrom] = lambda record: record["made_from"],
    hashes: Mapping[str, Path] | None = None,
) -> Callable[[Path], Record]:
    """Make the reader of a JSON record.

    Args:
        mark: An entry that only the records of this verb have.
        made_from: Takes what the output was made from out of a record.
        hashes: Entries that hold the SHA-256 of one file; without them the record must have a checksum of itself. The
            entry `files_sha256` holds the SHA-256 of files by their names.
    """

    def read(path: Path) -> Record:
        try:
            record = read_json(path)
        except SpoofkitError:
            return Record(None, damage="it is not valid JSON")
        if not isinstance(record, dict) or mark not in record:
            return Record(None)
        if hashes is None and "sha256" not in record:
            return Record({}, damage="it was edited, or an early version wrote it: it has no sha256")
        if record.get("sha256", checksum(record)) != checksum(record):
            return Record({}, damage="it was edited: its sha256 differs")
        known = {file: record[name] for name, file in (hashes or {}).items() if name in record}
        own = record.get("files_sha256", {})
        own = own if isinstance(own, dict) else {}
        # A record may come from a stranger; nothing is opened that it points to.
        if outside := [name for name in own if not _is_inside(name)]:
            return Record({}, damage=f"it names a file outside its folder, {outside[0]!r}")
        known |= {path.parent / name: sha256 for name, sha256 in own.items()}
        try:
            found = made_from(record)
        except (KeyError, TypeError, AttributeError):
            found = {}  # of an earlier version
        return Record(found if isinstance(found, dict) else {}, known)

    return read


def _is_inside(name: str) -> bool:
    """Return whether a name in a record can be that of a file in its folder."""
    path = Path(name)
    return path.name != "" and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def with_checksums(record: dict[str, Any], contents: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Add to a record the SHA-256 of files beside it, by name, and of itself."""
    whole = record | ({"files_sha256": dict(contents)} if contents else {})
    return whole | {"sha256": checksum(whole)}


def checksum(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all values of a record but the checksum itself, however the JSON is formatted."""
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
    """Describe an output whose record is `OUT.made_from.json`, since neither it nor a JSON beside it can hold one."""
    record = path.with_name(f"{path.name}.made_from.json")
    # As JSON returns them: tuples become lists.
    plain = json.loads(json.dumps({"verb": verb, **made_from}))
    read = read_json_record("made_from")

    def read_of_verb(path: Path) -> Record:
        found = read(path)
        return found if (found.made_from or {"verb": verb}).get("verb") == verb else Record(None)

    return Output(verb, (path,), record, plain, read_of_verb, is_folder=is_folder, is_older=is_older)


def write_own_record(output: Output, temporary: Path, **more: Any) -> None:
    """Write the record of `output_with_own_record` before its file appears: a kill leaves no file without a record.

    Args:
        output: The output.
        temporary: The complete file or folder, under its temporary name.
        more: Further entries of the record.
    """
    hashes = hashes_of(temporary, output.files[0].name)
    write_json(output.record, with_checksums({"made_from": output.made_from, **more}, hashes), overwrite=True)


def _exists(path: Path) -> bool:
    """Return whether a path exists; an empty folder counts as missing."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def _foreign_file(output: Output, found: Record) -> Path | None:
    """Return a file in the output's folder that was not written with it."""
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
        f"{path}: exists, but its record {output.record.name} is missing, so what it was made from is unknown; name "
        "another output, or use --overwrite to recreate it"
    )
