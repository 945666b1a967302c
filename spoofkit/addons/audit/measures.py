"""Measures of a list's utterances, saved continuously, so that a killed audit can be resumed.

    # made_from={"format": 1, "manifest_sha256": "54f8…"}
    utt_id        key    attack  duration_s  leading_silence_s  …
    D_0000000169  spoof  A14     4           0.12               …

audit.tsv is sorted by utt_id and complete for the requested rows. Until then audit.tsv.part, a journal, holds a list of
the same cells for each utterance, in the order of the manifest. A later call for more utterances of the same manifest
measures only those. An audit.tsv.part that is no journal, as early versions wrote it, is discarded.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from spoofkit.addons.audit.surface import CATEGORICAL, NUMERIC, measure
from spoofkit.data.manifest import Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text, write_text
from spoofkit.journal import open_journal, read_journal

FORMAT = 1
ROWS_AT_ONCE = 256  # handed to the threads
COLUMNS = ("utt_id", "key", "attack", *NUMERIC, *CATEGORICAL)


def measure_list(
    manifest: Manifest, table: pl.DataFrame, out: Path | None, made_from: dict[str, Any], workers: int, overwrite: bool
) -> pl.DataFrame:
    """Measure the utterances of a list that were not measured before.

    Args:
        manifest: The manifest, which locates the audio.
        table: The rows to measure.
        out: Folder of audit.tsv; None writes nothing.
        made_from: What the measures are made from.
        workers: Number of threads that decode.
        overwrite: Discard the measures in `out`.

    Returns:
        COLUMNS of these utterances and of all others in `out`.

    Raises:
        SpoofkitError: a file cannot be decoded, or `out` holds measures of something else or damaged ones.
    """
    lines: dict[str, str] = {}
    if out is not None and overwrite:
        for path in (out / "audit.tsv", _part(out)):
            path.unlink(missing_ok=True)
    elif out is not None:
        lines = {**_read_lines(out / "audit.tsv", made_from), **_read_part(_part(out), made_from)}
    todo = table.select("utt_id", "path", "key", "attack").filter(~pl.col("utt_id").is_in(list(lines)))
    with ExitStack() as stack:
        part = None
        if out is not None and todo.height:
            part = stack.enter_context(open_journal(_part(out), made_from, lambda found: found.header == made_from))
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=workers))
        progress = stack.enter_context(
            tqdm(total=table.height, initial=table.height - todo.height, desc="audit", unit="file")
        )
        for block in todo.iter_slices(ROWS_AT_ONCE):
            files = [manifest.audio_path(path) for path in block["path"]]
            found_each = pool.map(partial(measure, downmix=manifest.downmix), files)
            for row, found in zip(block.iter_rows(), found_each, strict=True):
                utt_id, _, key, attack = row
                cells = [utt_id, key, attack, *(_as_text(found[name]) for name in COLUMNS[3:])]
                lines[utt_id] = "\t".join(cells)
                if part is not None:
                    part.append(cells)
                progress.update()
    body = "\n".join(("\t".join(COLUMNS), *(lines[utt_id] for utt_id in sorted(lines)))) + "\n"
    if out is not None and (todo.height or _part(out).exists()):
        write_text(out / "audit.tsv", _header(made_from) + body, overwrite=True)
        _part(out).unlink(missing_ok=True)
    frame = pl.read_csv(body.encode(), separator="\t", quote_char=None, infer_schema=False)
    return frame.with_columns(pl.col(list(NUMERIC)).cast(pl.Float64))


def has_measures(out: Path) -> bool:
    """Return whether an audit has begun in a folder."""
    return (out / "audit.tsv").exists() or _part(out).exists()


def _part(out: Path) -> Path:
    """Return the path of the journal of measures, until audit.tsv is written."""
    return out / "audit.tsv.part"


def _header(made_from: dict[str, Any]) -> str:
    return f"# made_from={json.dumps(made_from, sort_keys=True)}\n"


def _as_text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"


def _read_lines(path: Path, made_from: dict[str, Any]) -> dict[str, str]:
    """Read the lines of audit.tsv by utterance.

    Raises:
        SpoofkitError: it is damaged, or of another manifest.
    """
    if not path.exists():
        return {}
    header, *lines = read_text(path).split("\n")
    if header + "\n" != _header(made_from):
        raise _of_another(path)
    whole = [line for line in lines[:-1] if line != "\t".join(COLUMNS)]
    broken = [line for line in whole if line.count("\t") != len(COLUMNS) - 1]
    if broken:
        raise SpoofkitError(f"{path}: a line is damaged ({broken[0][:60]!r}); pass --overwrite to measure again")
    return {line.partition("\t")[0]: line for line in whole}


def _read_part(path: Path, made_from: dict[str, Any]) -> dict[str, str]:
    """Read the lines of audit.tsv that an interrupted audit measured, by utterance.

    Raises:
        SpoofkitError: they are of another manifest.
    """
    found = read_journal(path)
    if found.header and found.header != made_from:
        raise _of_another(path)
    return {cells[0]: "\t".join(cells) for cells in found.lines}


def _of_another(path: Path) -> SpoofkitError:
    return SpoofkitError(
        f"{path}: holds measures of another manifest or version; name another folder, or pass --overwrite to measure "
        "this one"
    )
