"""Reading and writing Kaldi data directories (https://kaldi-asr.org/doc/data_prep.html): lines of a name and a value.

    wav.scp    T_0000000000 /data/asvspoof5/flac_T/T_0000000000.flac     files only: commands are not run
    utt2spk    T_0000000000 T_4850
    utt2key    T_0000000000 spoof

Kaldi itself knows no keys. Recipes for spoofed speech call their file `utt2key`, `utt2label`, `utt2lab` or `utt2cls`
(the last two: zlin0/wedefense); one of KEY_FILES must be there. Attacks stand in `utt2attack` or `utt2systemID` (as in
recipes after ASSERT, for ASVspoof 2019). Every other `utt2NAME` becomes a column NAME, save those of lengths, which are
read from the audio. Without `utt2spk` the speakers are `-`, and so is one who is called as the utterance is, which is
how Kaldi has it where speakers are unknown. `segments` is refused: an utterance is a file here. A relative path in
wav.scp is, as for Kaldi, relative to where the command is given.

Out: the same, with absolute paths, sorted as `LC_ALL=C sort` does, spk2utt, and `utt2num_samples` (at 16 kHz) of the
utterances whose length the manifest knows. A speaker `-` is written as the utterance's name. Kaldi's names hold no
spaces: those of a speaker become `_`, and `utt2speaker` keeps the names as they were. utils/validate_data_dir.sh also
wants utterances sorted by speaker, in effect names that begin with the speaker's; ids are kept as they are, and match
score files, unless `speaker_prefix` is asked for.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from spoofkit.corpora.generic import name_of_set
from spoofkit.corpora.readers import ReleasedSet
from spoofkit.corpora.tables import NO_ATTACK, with_keys
from spoofkit.data.channels import DOWNMIXES
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import COLUMNS, NO_SPEAKER, Manifest, read_manifest
from spoofkit.data.packed import parse_address
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, file_sha256, read_text
from spoofkit.outputs import is_up_to_date, output_with_own_record, write_own_record
from spoofkit.terminal import say

KEY_FILES = ("utt2key", "utt2label", "utt2lab", "utt2cls", "utt2spoof")
ATTACK_FILES = ("utt2attack", "utt2systemID")
NO_FILE = re.compile(r"\|$|:\d+$")
"""Paths that Kaldi would run as a command, or open as a place in an archive."""
FIXED_BY_KALDI = ("utt2spk", "utt2lang", "utt2uniq")
"""Of the files that are joined here, those from which Kaldi's utils/fix_data_dir.sh removes surplus lines unasked."""
MOST_NAMED = 5
LENGTH_FILES = ("utt2dur", "utt2num_frames", "utt2num_samples")
COLUMN_FILES = {
    **dict.fromkeys(KEY_FILES, "key"),
    **dict.fromkeys(ATTACK_FILES, "attack"),
    "utt2spk": "speaker",
    "utt2speaker": "speaker",
}


@dataclass(frozen=True)
class KaldiDirectory:
    """A data directory that was written."""

    path: Path
    n_utterances: int
    sorted_by_speaker: bool
    """Whether utils/validate_data_dir.sh accepts the order of speakers."""


def read(folder: Path, *, sets: Sequence[str] = (), key: dict[str, str] | None = None) -> list[ReleasedSet]:
    """Read the one set of a data directory.

    Args:
        folder: The directory.
        sets: What the set is called, if not as the directory is.
        key: What values of the keys mean: `bonafide` or `spoof`.

    Raises:
        SpoofkitError: wav.scp or the keys are missing, wav.scp holds a command, two files do not speak of the same
            utterances, or naming the line that cannot be used.
    """
    if (folder / "segments").exists():
        raise SpoofkitError(
            f"{folder / 'segments'}: cuts recordings into utterances, expected a file for each utterance; cut them "
            "with Kaldi's extract-segments first"
        )
    scp = folder / "wav.scp"
    table = _read_map(scp, "path")
    _require_files(scp, table)
    maps = _maps(folder)
    for path in maps:
        other = _read_map(path, _column(path))
        if path.name in KEY_FILES:
            other = with_keys(path, other, "key", key or {}, first_line=1)
        _require_same(scp, table, path, other)
        table = table.join(other, on="utt_id", how="left", maintain_order="left")
    table = table.with_columns(
        pl.lit("-").alias(name) for name in ("speaker", "attack", "codec") if name not in table.columns
    )
    is_nobody = pl.col("speaker") == pl.col("utt_id")
    table = table.with_columns(pl.when(is_nobody).then(pl.lit("-")).otherwise(pl.col("speaker")).alias("speaker"))
    paths = [_absolute(path) for path in table["path"]]
    root = _root(scp, folder, paths)
    table = table.with_columns(pl.Series("path", [path.removeprefix(f"{root}/") for path in paths]))
    ours = ("utt_id", "path", "key", "speaker", "attack", "codec")
    table = _without_attack_of_bonafide(folder, table).select(*ours, pl.exclude(*ours))
    name = name_of_set(sets, folder.resolve().name)
    return [ReleasedSet(name, table, (scp, *maps), "fix the paths in wav.scp", root=Path(root), is_public=False)]


def write_kaldi(
    manifest: Path | str, out: Path, *, speaker_prefix: bool = False, overwrite: bool = False, reuse: bool = False
) -> KaldiDirectory | None:
    """Write a manifest as a data directory.

    Args:
        manifest: The manifest, whose audio must be files, since Kaldi cannot read a pack.
        out: The directory; it must be new or empty.
        speaker_prefix: Call an utterance SPEAKER-UTT_ID, so that Kaldi's own check accepts the order.
        overwrite: Replace a directory that holds only files of this verb.
        reuse: Skip one that was made from the same.

    Returns:
        None if it is up to date.

    Raises:
        SpoofkitError: a name or path that Kaldi would take for something else, or `out` holds other files.
    """
    utterances = read_manifest(manifest)
    if utterances.downmix != DOWNMIXES[0]:
        raise SpoofkitError(
            f"{manifest}: its channels are mixed as {utterances.downmix!r}, which a Kaldi directory cannot say, "
            "expected their mean; write its audio to files of one channel first"
        )
    for caveat in utterances.caveats():
        say(f"{caveat}; a Kaldi directory cannot say so")
    files = _files(utterances, speaker_prefix)
    _require_free(out, set(files))
    made_from = {"manifest_sha256": file_sha256(manifest), "speaker_prefix": speaker_prefix}
    output = output_with_own_record("kaldi", out, made_from, is_folder=True, is_older=lambda path: True)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        return None
    with atomic_folder(out) as temporary:
        for name, lines in files.items():
            (temporary / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        write_own_record(output, temporary)
    speakers = [line.split(" ")[1] for line in files["utt2spk"]]
    return KaldiDirectory(out, utterances.table.height, speakers == sorted(speakers))


def _read_map(path: Path, column: str) -> pl.DataFrame:
    """Read a file of Kaldi's: `utt_id` and what follows it; row 0 is line 1."""
    lines = pl.Series(read_text(path).removeprefix("\ufeff").removesuffix("\n").split("\n"), dtype=pl.Utf8)
    fields = lines.str.extract_groups(r"^(\S+)[ \t]+(\S|\S.*\S)\s*$").struct.unnest()
    fields.columns = ["utt_id", column]
    wrong = fields["utt_id"].is_null()
    if wrong.any():
        index = int(wrong.arg_max() or 0)
        raise SpoofkitError(
            f"{path}, line {index + 1}: found {lines[index][:80]!r}, expected an utterance, a space and its {column}; "
            "fix that line"
        )
    again = ~fields["utt_id"].is_first_distinct()
    if again.any():
        index = int(again.arg_max() or 0)
        raise SpoofkitError(
            f"{path}, line {index + 1}: {fields['utt_id'][index]!r} is on an earlier line too, expected each utterance "
            "once; remove one of the two"
        )
    return fields


def _require_files(scp: Path, table: pl.DataFrame) -> None:
    path = pl.col("path")
    refusals = {
        "is a command, and commands of a list are not run": path.str.contains(r"^\||\|$"),
        "is a place in an archive": path.str.contains(r":\d+$"),
        "is a stream": path == "-",
    }
    for sentence, rule in refusals.items():
        refused = table.select(rule).to_series()
        if refused.any():
            index = int(refused.arg_max() or 0)
            raise SpoofkitError(
                f"{scp}, line {index + 1}: {table['path'][index]!r} {sentence}, expected the path of an audio file; "
                "write the audio to files first (Kaldi: wav-copy)"
            )


def _maps(folder: Path) -> list[Path]:
    """Return the files to join, at most one for each column."""
    left_out = (*LENGTH_FILES, "utt2spk") if (folder / "utt2speaker").is_file() else LENGTH_FILES
    paths = [path for path in sorted(folder.glob("utt2*")) if path.is_file() and path.name not in left_out]
    for what, names in (("keys", KEY_FILES), ("attacks", ATTACK_FILES)):
        found = [path.name for path in paths if path.name in names]
        if len(found) > 1:
            raise SpoofkitError(
                f"{folder}: both {found[0]} and {found[1]} say the {what}, expected one of them; move the other away"
            )
        if what == "keys" and not found:
            raise SpoofkitError(
                f"{folder}: has no {', '.join(KEY_FILES[:-1])} or {KEY_FILES[-1]}, expected one that says of each "
                "utterance whether it is bonafide or spoof, or '-' where that is unknown; write utt2key"
            )
    return paths


def _column(path: Path) -> str:
    name = COLUMN_FILES.get(path.name, path.name.removeprefix("utt2"))
    if not name or (name in COLUMNS and name != "codec" and path.name not in COLUMN_FILES):
        raise SpoofkitError(f"{path}: cannot be a column, expected another name after utt2; rename or move it away")
    return name


def _require_same(scp: Path, table: pl.DataFrame, path: Path, other: pl.DataFrame) -> None:
    found = []
    for has, lacks, one, two in ((table, other, scp, path), (other, table, path, scp)):
        missing = has.with_row_index("line", offset=1).join(lacks, on="utt_id", how="anti", maintain_order="left")
        lines = [f"{line} ({name!r})" for line, name in missing.select("line", "utt_id").head(MOST_NAMED).rows()]
        if lines:
            more = f" and {missing.height - len(lines):,} more" if missing.height > len(lines) else ""
            found.append(f"{one.name} has lines that {two.name} lacks: {', '.join(lines)}{more}")
    if found:
        hint = "" if path.name in FIXED_BY_KALDI else f" --utt-extra-files {path.name}"
        raise SpoofkitError(
            f"{scp.parent}: {'; '.join(found)}; expected the same utterances in both: add what is missing or remove "
            f"these lines (surplus ones of {path.name}: utils/fix_data_dir.sh{hint})"
        )


def _without_attack_of_bonafide(folder: Path, table: pl.DataFrame) -> pl.DataFrame:
    is_bonafide = pl.col("key") == "bonafide"
    attacked = table.filter(is_bonafide & ~pl.col("attack").str.to_lowercase().is_in(NO_ATTACK))
    if attacked.height:
        raise SpoofkitError(
            f"{folder}: {attacked['utt_id'][0]!r} is bona fide but has the attack {attacked['attack'][0]!r}, expected "
            "-; fix one of the two"
        )
    return table.with_columns(pl.when(is_bonafide).then(pl.lit("-")).otherwise(pl.col("attack")).alias("attack"))


def _root(scp: Path, folder: Path, paths: list[str]) -> str:
    """Return the data directory if all audio is below it, else the folder that all audio has in common."""
    above = os.path.commonpath({os.path.dirname(path) for path in paths})
    own = os.path.abspath(folder)
    if os.path.commonpath([own, above]) == own:
        return own
    if above == "/":
        raise SpoofkitError(
            f"{scp}: its files have only / in common, expected them below one folder; link them there and use those "
            "paths"
        )
    return above


def _absolute(path: str) -> str:
    # After a link `..` is not the component before it.
    return os.path.realpath(path) if ".." in path.split("/") else os.path.abspath(path)


def _files(manifest: Manifest, speaker_prefix: bool) -> dict[str, list[str]]:
    """Return the lines of each file, in Kaldi's order."""
    table = manifest.table
    names, speakers = table["utt_id"].to_list(), table["speaker"].to_list()
    _require_writable(manifest)
    one_word = {speaker: "_".join(speaker.split()) for speaker in set(speakers)}
    if len(set(one_word.values())) < len(one_word):
        raise SpoofkitError(
            f"{manifest.path}: speakers differ only in spaces, which Kaldi's names cannot hold; rename them"
        )
    written = [
        name if speaker == NO_SPEAKER else one_word[speaker] for name, speaker in zip(names, speakers, strict=True)
    ]
    if speaker_prefix:
        names = [name if speaker == name else f"{speaker}-{name}" for name, speaker in zip(names, written, strict=True)]
        if len(set(names)) < len(names):
            raise SpoofkitError(f"{manifest.path}: two utterances would have one name; leave the speakers' prefix out")
    columns: dict[str, Iterable[str]] = {
        "wav.scp": (os.path.abspath(manifest.audio_path(path)) for path in table["path"]),
        "utt2spk": written,
        "utt2key": table["key"],
        "utt2attack": table["attack"],
    }
    if (table["codec"] != "-").any():
        columns["utt2codec"] = table["codec"]
    if any(speaker != word for speaker, word in one_word.items()):
        columns["utt2speaker"] = speakers
    columns |= {f"utt2{name}": table[name] for name in table.columns if name not in COLUMNS}
    files = {
        file: sorted(f"{name} {value.strip() or '-'}" for name, value in zip(names, values, strict=True))
        for file, values in columns.items()
    }
    known = [(name, n) for name, n in zip(names, table["n_samples"], strict=True) if n != UNKNOWN_LENGTH]
    if known:
        files["utt2num_samples"] = sorted(f"{name} {n}" for name, n in known)
    utterances: dict[str, list[str]] = {}
    for line in files["utt2spk"]:
        name, speaker = line.split(" ")
        utterances.setdefault(speaker, []).append(name)
    files["spk2utt"] = sorted(f"{speaker} {' '.join(names)}" for speaker, names in utterances.items())
    return files


def _require_writable(manifest: Manifest) -> None:
    for name, path in manifest.table.select("utt_id", "path").iter_rows():
        if name.split() != [name]:
            raise SpoofkitError(f"{manifest.path}: utt_id {name!r} holds spaces, which Kaldi's names cannot; rename it")
        if parse_address(path) is not None:
            raise SpoofkitError(
                f"{manifest.path}: {name!r} lies in a pack, which Kaldi cannot read; give the manifest that was packed"
            )
        if NO_FILE.search(path) or path != path.strip():
            raise SpoofkitError(
                f"{manifest.path}: path of {name!r} is {path!r}, which Kaldi would not take for a file; rename the file"
            )
    reserved = {file.removeprefix("utt2") for file in (*COLUMN_FILES, *LENGTH_FILES)}
    for column in manifest.table.columns:
        if column not in COLUMNS and (column in reserved or column.split() != [column] or "/" in column):
            raise SpoofkitError(
                f"{manifest.path}: column {column!r} cannot become a file utt2{column}, expected a name of one word "
                "that means nothing else to Kaldi or here; rename or drop it"
            )


def _require_free(out: Path, ours: set[str]) -> None:
    if not out.is_dir():
        return  # a file of that name is refused when the folder is made
    inside = sorted(path.name for path in out.iterdir())
    others = [name for name in inside if name not in ours]
    if others:
        raise SpoofkitError(
            f"{out}: holds {others[0]}, which `spoofkit kaldi` does not write, expected a new or empty folder; name "
            "another"
        )
