"""Make a manifest of loose files, so that they are scored into a file as a listed set is."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import Manifest
from spoofkit.files import table_fault
from spoofkit.scoring.loose_files import LOOSE
from spoofkit.terminal import visible


def loose_manifest(files: Iterable[str], is_csv: bool = False) -> Manifest:
    """Make a manifest of loose files, in the order given; lengths and keys are unknown.

    Ids are the names, escaped if they have tabs, line breaks or bytes that are no UTF-8; they are unique. The column
    `fault` says why a file is not read: the table cannot hold its name. The others have their own name in `path`.

    Args:
        files: Names of files, each once.
        is_csv: Whether the table is CSV, which holds more names than TSV.
    """
    names = list(files)
    shown = _ids(names)
    faults = [table_fault(name, to_file=True, is_csv=is_csv) for name in names]
    paths = [own if fault else name for own, name, fault in zip(shown, names, faults, strict=True)]
    table = pl.DataFrame({"utt_id": shown, "path": paths, "n_samples": [UNKNOWN_LENGTH] * len(names), "fault": faults})
    blank = [pl.lit("-").alias(name) for name in ("key", "speaker", "attack", "codec")]
    return Manifest(LOOSE, Path(), table.with_columns(blank))


def _ids(names: list[str]) -> list[str]:
    """Return an id for each name; one that is escaped gets a number if another file has it."""
    is_escaped = [bool(table_fault(name, to_file=True)) for name in names]
    taken = {name for name, escaped in zip(names, is_escaped, strict=True) if not escaped}
    ids = []
    for name, escaped in zip(names, is_escaped, strict=True):
        own, number = visible(name) if escaped else name, 1
        while escaped and own in taken:
            number += 1
            own = f"{visible(name)} ({number})"
        taken.add(own)
        ids.append(own)
    return ids
