"""The mix list as a file: one row per injected region, positions in samples of their own file.

    # seed=0 config=5f0c… rows=39871 sha256=b01d…
    # made_from={"crop_samples": 64600, "manifest": "…", "mix": {…}, "n_mixes": 20000, "seed": 0}
    mix_id       base_id       injector_id   base_start  injector_start  n_samples  crop_start  crop_samples
    mix_0000000  T_0000000011  T_0000000000  20311       3100            9713       1280        64600

Rows of one mix are adjacent. `config` is a hash of the value in the second line, `sha256` one of the rows with their
header, which lists of older versions lack.
"""

import io
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from spoofkit.data.manifest import Manifest
from spoofkit.data.mixdraw import DRAW_SETTINGS
from spoofkit.data.mixframe import Mix, MixList, Region
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text, text_sha256, write_text
from spoofkit.outputs import Record

COLUMNS = (
    "mix_id",
    "base_id",
    "injector_id",
    "base_start",
    "injector_start",
    "n_samples",
    "crop_start",
    "crop_samples",
)


def write_mix_list(path: Path | str, mix_list: MixList, overwrite: bool = False) -> None:
    """Write a list: `# seed=… config=… rows=… sha256=…`, `# made_from={…}`, then one row per injected region."""
    record = json.dumps(mix_list.made_from, sort_keys=True)
    rows = [
        (
            mix.mix_id,
            mix.base_id,
            mix.injector_id,
            *(r.base_start, r.injector_start, r.n_samples),
            mix.crop_start,
            mix.crop_samples,
        )
        for mix in mix_list.mixes
        for r in mix.regions
    ]
    table = "\n".join(["\t".join(COLUMNS), *("\t".join(map(str, row)) for row in rows)]) + "\n"
    first = f"{_first_line(mix_list.made_from['seed'], record)} rows={len(rows)} sha256={text_sha256(table)[:16]}"
    write_text(path, f"{first}\n# made_from={record}\n{table}", overwrite)


def _first_line(seed: int, record: str) -> str:
    return f"# seed={seed} config={text_sha256(record)[:16]}"


def find_record(path: Path) -> Record:
    """Read what an existing list was drawn from, and whether it is intact, for `spoofkit.outputs`."""
    try:
        text = read_text(path)
        if not text.startswith("# seed="):
            return Record(None)
        return Record(_read_header(text, path))
    except SpoofkitError as error:
        return Record(None, damage=str(error).removeprefix(f"{path}: ").partition(";")[0])


def _read_header(text: str, path: Path | str) -> dict[str, Any]:
    lines = text.split("\n", 2)
    if len(lines) < 3 or not lines[0].startswith("# seed=") or not lines[1].startswith("# made_from="):
        raise SpoofkitError(
            f"{path}: not a mix list, expected '# seed=… config=… rows=…' first; draw one with `spoofkit mixlist draw`"
        )
    text_record = lines[1].removeprefix("# made_from=")
    first, _, of_rows = lines[0].rpartition(" rows=")
    n_rows, has_checksum, checksum = of_rows.partition(" sha256=")
    try:
        record: dict[str, Any] = json.loads(text_record)
    except (ValueError, RecursionError):
        record = {}
    if not isinstance(record, dict) or first != _first_line(record.get("seed", 0), text_record):
        raise SpoofkitError(
            f"{path}: its settings do not match their hash in the first line; it was edited by hand, so draw it again"
        )
    if set(record.get("mix", {})) != set(DRAW_SETTINGS):
        raise SpoofkitError(
            f"{path}: was drawn by another version of spoofkit; draw it again with `spoofkit mixlist draw`"
        )
    n_found = lines[2].count("\n") - 1
    if not text.endswith("\n") or n_rows != str(n_found):
        raise SpoofkitError(
            f"{path}: holds {n_found} rows, its first line states {n_rows}; it is cut short, so draw it again"
        )
    if has_checksum and text_sha256(lines[2])[:16] != checksum:
        raise SpoofkitError(
            f"{path}: its rows do not match their hash in the first line; it was edited or damaged, so draw it again"
        )
    return record


def read_mix_list(path: Path | str, manifest: Manifest) -> MixList:
    """Read a list and check it against the manifest that its ids come from.

    Raises:
        SpoofkitError: not a mix list, cut short, an unknown id, a region outside its crop or file.
    """
    text = read_text(path)
    record = _read_header(text, path)
    body = text.split("\n", 2)[2]
    try:
        table = pl.read_csv(
            io.StringIO(body),
            separator="\t",
            quote_char=None,
            schema={name: pl.Utf8 if name.endswith("_id") else pl.Int64 for name in COLUMNS},
        )
    except pl.exceptions.PolarsError as error:
        raise SpoofkitError(
            f"{path}: not a mix list table ({str(error).splitlines()[0]}); draw it again with `spoofkit mixlist draw`"
        ) from error
    if table.null_count().sum_horizontal().item():
        raise SpoofkitError(f"{path}: a row has an empty field; it was edited or cut short, so draw it again")
    mixes = tuple(_group_rows(table))
    if len(mixes) != record["n_mixes"]:
        raise SpoofkitError(
            f"{path}: holds {len(mixes)} mixes, expected {record['n_mixes']}; it was edited, so draw it again"
        )
    lengths = manifest.lengths()
    for mix in mixes:
        _check_mix(mix, lengths, path, manifest.path)
    return MixList(mixes, record)


def _group_rows(table: pl.DataFrame) -> Iterator[Mix]:
    for key, rows in groupby(table.iter_rows(), key=lambda row: (*row[:3], *row[6:])):
        mix_id, base_id, injector_id, crop_start, crop_samples = key
        yield Mix(mix_id, base_id, injector_id, crop_start, crop_samples, tuple(Region(*row[3:6]) for row in rows))


def _check_mix(mix: Mix, lengths: dict[str, int], path: Path | str, manifest_path: Path) -> None:
    for utt_id in (mix.base_id, mix.injector_id):
        if utt_id not in lengths:
            raise SpoofkitError(
                f"{path}: {mix.mix_id} uses {utt_id!r}, which is not in {manifest_path}; "
                "draw the list from this manifest"
            )
    inside_crop = all(0 <= start < end <= mix.crop_samples for start, end in mix.injected())
    inside_base = mix.crop_start >= 0 and mix.crop_start + mix.crop_samples <= lengths[mix.base_id]
    inside_injector = all(0 <= r.injector_start <= lengths[mix.injector_id] - r.n_samples for r in mix.regions)
    if not (inside_crop and inside_base and inside_injector):
        raise SpoofkitError(
            f"{path}: a region of {mix.mix_id} lies outside its utterance; draw the list again from {manifest_path}"
        )
