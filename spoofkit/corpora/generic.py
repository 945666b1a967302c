"""A corpus of the user's own: a table with a header, or a folder for each class.

A table is separated by tabs, `|`, semicolons or commas, whichever of these its header holds (in this order):

    path,key,speaker
    wavs/0001.wav,bonafide,"Doe, Jane"

It needs the column `path`. Without a column `key`, or where it is `-`, keys are unknown: such utterances can be
scored, but not evaluated. `utt_id`, `speaker`, `attack` and `codec` are taken if they are there (an empty field is
`-`), and all others are kept, save `n_samples`: lengths come from the headers. `--column path=filename` says which
column is what. Paths are relative to the table's folder and stay below it; absolute ones below it are made relative.

A folder holds one folder for each class, in which audio lies at any depth:

    mine/real/0001.wav    mine/fake/tts/0001.wav

Keys, and names of class folders, may be spelled as in `spoofkit.corpora.tables.SPELLINGS`. What is spelled otherwise is
refused until `--key VALUE=bonafide` says what it means; so are 1 and 0, which corpora use both ways.

There is one set. Its name is what `--sets` says, else that of the table or folder. An utterance without `utt_id` is
called by its path without suffix, with `_` for `/`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from spoofkit.corpora.readers import ReleasedSet
from spoofkit.corpora.tables import (
    NO_ATTACK,
    key_meanings,
    read_table,
    require,
    separator_of,
    unknown_key,
    with_keys,
)
from spoofkit.data.audio import EXTENSIONS, is_audio_name
from spoofkit.data.folders import files_below
from spoofkit.data.manifest import NO_KEY
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import say

OPTIONAL = ("utt_id", "speaker", "attack", "codec")
OURS = ("utt_id", "path", "key", "speaker", "attack", "codec")
FIX = "fix that line"
# Of the files that are left out, how many a message names.
N_NAMED = 5


def read(
    path: Path,
    *,
    sets: Sequence[str] = (),
    column: dict[str, str] | None = None,
    key: dict[str, str] | None = None,
) -> list[ReleasedSet]:
    """Read the one set of a table or of a folder of class folders.

    Args:
        path: The table or folder.
        sets: What the set is called, if not as the table or folder is.
        column: Names of the table's columns, by those of the manifest.
        key: What values of the key column, or names of class folders, mean: `bonafide` or `spoof`.

    Raises:
        SpoofkitError: a column is missing or unknown, a name stands twice, or naming the line or folder that cannot be
            used.
    """
    if path.is_dir():
        if column:
            raise SpoofkitError(
                f"--column: {path} is a folder and has no columns, expected a table; leave --column out"
            )
        return [_read_folder(path, name_of_set(sets, path.resolve().name), key or {})]
    return [_read_file(path, name_of_set(sets, path.stem), column or {}, key or {})]


def name_of_set(sets: Sequence[str], otherwise: str) -> str:
    """Return what the one set of a corpus without released sets is called.

    Raises:
        SpoofkitError: several names are asked for, or one that is no file's name.
    """
    if len(sets) > 1:
        raise SpoofkitError(f"--sets {','.join(sets)}: found {len(sets)} names, expected one: for the set")
    name = sets[0] if sets else otherwise
    if "/" in name or name in ("", ".", ".."):
        raise SpoofkitError(f"--sets: found {name!r}, expected the name of the manifest without .tsv, such as eval")
    return name


def _read_file(path: Path, set_name: str, columns: dict[str, str], keys: dict[str, str]) -> ReleasedSet:
    table = _renamed(path, read_table(path, separator_of(path)), columns)
    relative = _below(pl.col("path"), path.parent)
    is_inside = (relative != "") & ~relative.str.starts_with("/") & ~relative.str.contains(r"(^|/)\.\.(/|$)")
    require(path, table, "path", is_inside, f"the path of a file below {path.parent}", "move the table or the audio")
    table = with_keys(path, table.with_columns(relative.alias("path")), "key", keys)
    for name in OPTIONAL:
        if name not in table.columns:
            default = _name_of("path") if name == "utt_id" else pl.lit("-")
            table = table.with_columns(default.alias(name))
        elif name != "utt_id":
            is_empty = pl.col(name).str.strip_chars() == ""
            table = table.with_columns(pl.when(is_empty).then(pl.lit("-")).otherwise(pl.col(name)).alias(name))
    table = _without_attack_of_bonafide(path, table)
    _require_names(path, table)
    table = table.select(*OURS, pl.exclude(*OURS, "n_samples"))
    return ReleasedSet(set_name, table, (path,), "fix the paths of the table", root=path.parent, is_public=False)


def _renamed(path: Path, table: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
    for name, column in columns.items():
        if name not in OURS:
            raise SpoofkitError(
                f"--column {name}={column}: {name!r} is no column of a manifest, expected {', '.join(OURS)}"
            )
        if column not in table.columns:
            raise SpoofkitError(
                f"--column {name}={column}: {path} has no column {column!r}, found {', '.join(table.columns)}; "
                "fix its spelling"
            )
        if name != column and name in table.columns and name not in columns.values():
            raise SpoofkitError(
                f"--column {name}={column}: {path} has a column {name!r} too, expected one of the two; "
                f"rename {name!r} in the table"
            )
    if len(set(columns.values())) < len(columns):
        raise SpoofkitError(f"--column: {', '.join(columns.values())}: one column stands for two, expected each once")
    table = table.rename({column: name for name, column in columns.items()})
    if "path" not in table.columns:
        raise SpoofkitError(
            f"{path}, line 1: column 'path' is missing, found {', '.join(table.columns)}; say which column it is with "
            "--column path=NAME"
        )
    if "key" not in table.columns:
        say(
            f"{path}: has no column 'key' (found {', '.join(table.columns)}), so its utterances have no key and cannot "
            "be evaluated; if a column holds the keys, name it with --column key=NAME"
        )
        table = table.with_columns(key=pl.lit(NO_KEY))
    return table


def _below(path: pl.Expr, folder: Path) -> pl.Expr:
    """Return a path relative to the table's folder if it is below that, otherwise unchanged."""
    for root in {os.path.abspath(folder), os.path.realpath(folder)}:
        path = path.str.strip_prefix(root.rstrip("/") + "/")
    return path.str.replace(r"^(\./+)+", "")


def _name_of(column: str) -> pl.Expr:
    return pl.col(column).str.replace(r"\.[^./]*$", "").str.replace_all("/", "_")


def _without_attack_of_bonafide(path: Path, table: pl.DataFrame) -> pl.DataFrame:
    """Bona fide speech has no attack; some tables say so by the key."""
    is_bonafide = pl.col("key") == "bonafide"
    has_none = pl.col("attack").str.to_lowercase().is_in(NO_ATTACK)
    require(path, table, "attack", ~is_bonafide | has_none, "- where the key is bonafide", "fix one of the two")
    return table.with_columns(pl.when(is_bonafide).then(pl.lit("-")).otherwise(pl.col("attack")).alias("attack"))


def _require_names(path: Path, table: pl.DataFrame) -> None:
    require(path, table, "utt_id", pl.col("utt_id").str.strip_chars() != "", "a name", FIX)
    if table["utt_id"].n_unique() == table.height:
        return
    again = int((~table["utt_id"].is_first_distinct()).arg_max() or 0)
    name = table["utt_id"][again]
    before = int((table["utt_id"] == name).arg_max() or 0)
    raise SpoofkitError(
        f"{path}, line {again + 2}: {table['path'][again]!r} is called {name!r} as {table['path'][before]!r} in line "
        f"{before + 2} is, expected different names; give the table a column utt_id that tells them apart"
    )


def _read_folder(folder: Path, set_name: str, keys: dict[str, str]) -> ReleasedSet:
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise SpoofkitError(
            f"{folder}: holds no folders, expected one for each class, such as bonafide and spoof; name the folder "
            "above them, or a table"
        )
    meanings = key_meanings(classes, keys)
    rows, ignored = [], [path.name for path in folder.iterdir() if not path.is_dir() or path.name.startswith(".")]
    loose = sorted(name for name in ignored if is_audio_name(name))
    if loose:
        raise SpoofkitError(
            f"{folder / loose[0]}: is in no class folder, expected it in one of {', '.join(classes)}; move it there"
        )
    for name in classes:
        if name not in meanings:
            raise unknown_key(str(folder / name), name)
        found, others = _walk(folder, name)
        rows += [(path, meanings[name]) for path in found]
        ignored += others
    if ignored:
        named = ", ".join(sorted(ignored)[:N_NAMED])
        more = ", …" if len(ignored) > N_NAMED else ""
        say(f"{folder}: {len(ignored):,} files are not audio and are skipped: {named}{more}")
    if not rows:
        raise SpoofkitError(f"{folder}: holds no audio, expected files ending in {', '.join(EXTENSIONS)}")
    table = pl.DataFrame(rows, schema={"path": pl.Utf8, "key": pl.Utf8}, orient="row")
    table = table.select(
        _name_of("path").alias("utt_id"), "path", "key", *(pl.lit("-").alias(name) for name in OURS[3:])
    )
    again = table.filter(~pl.col("utt_id").is_first_distinct())
    if again.height:
        raise SpoofkitError(
            f"{folder / again['path'][0]}: is called {again['utt_id'][0]!r} as another file is, expected different "
            "names; rename one of them"
        )
    return ReleasedSet(set_name, table, (), "give the command again", root=folder, is_public=False)


def _walk(folder: Path, class_name: str) -> tuple[list[str], list[str]]:
    """Audio of a class, and what else lies there, as paths from `folder`; both sorted."""
    audio: list[str] = []
    others: list[str] = []
    for file in files_below(folder / class_name):
        if not file.name.isprintable():  # a name that is no UTF-8 holds lone surrogates, which are not
            raise SpoofkitError(
                f"{file.parent}: a file is called {file.name!r}, expected a name in UTF-8 without control characters; "
                "rename it"
            )
        (audio if is_audio_name(file.name) else others).append(file.relative_to(folder).as_posix())
    return sorted(audio), sorted(others)
