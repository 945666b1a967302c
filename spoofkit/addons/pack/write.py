"""Packing: every utterance of a manifest is decoded once into a few large files that are read without decoding.

    OUT/train.tsv          a manifest like any other, whose paths are addresses in shards; written last
        train_00000.i16    a shard: raw little-endian int16, 16 kHz mono, about 1 GB
        train_00000.json   its record: ids, lengths, SHA-256; written when the shard is complete

Utterances that are 16-bit, 16 kHz and mono give the same values as their files. All others are rounded to the nearest
of 65,536 steps (an error of at most 2^-16 of full scale; what is louder than full scale is clipped) and counted.
`shards` reads packed audio.
"""

import hashlib
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from spoofkit.addons.pack.shards import SUFFIX, record_path, require_whole
from spoofkit.data.audio import read_blocks
from spoofkit.data.channels import DOWNMIXES
from spoofkit.data.lengths import UNKNOWN_LENGTH, require_length
from spoofkit.data.manifest import Manifest, find_record, read_manifest, write_manifest
from spoofkit.data.packed import FULL_SCALE, parse_address
from spoofkit.data.rejected import read_rejected, write_rejected
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path, file_sha256, remove_leftovers, text_sha256, write_json
from spoofkit.lock import locked_outputs
from spoofkit.outputs import Output, is_up_to_date
from spoofkit.terminal import visible

SHARD_BYTES = 1_000_000_000
N_NAMED = 20  # utterances that cannot be packed which a message names
AHEAD = 8  # utterances that each thread may be ahead of the writing: a bound on memory


@dataclass(frozen=True)
class Pack:
    """The result of packing."""

    manifest: Path
    n_utterances: int
    n_shards: int
    n_rounded: int
    """Number of utterances whose samples were rounded to multiples of 2^-15."""
    n_clipped: int
    """Number of samples beyond full scale."""
    kept: bool = False
    """Whether it was up to date and skipped (`reuse`)."""


@dataclass(frozen=True)
class _Decoded:
    utt_id: str
    source: str
    pcm_S: np.ndarray
    is_rounded: bool
    n_clipped: int


def pack(
    manifest_path: Path,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 1,
    overwrite: bool = False,
    reuse: bool = False,
) -> Pack:
    """Decode every utterance of a manifest into shards; an interrupted call resumes after its last complete shard.

    Args:
        manifest_path: The manifest to pack.
        out: Folder for the shards and their manifest, which gets the name of `manifest_path`.
        shard_bytes: A shard ends with the utterance that reaches this size.
        workers: Threads that decode; libsndfile and FFmpeg let go of Python's lock while they do.
        overwrite: Delete an older pack of that name first, since there may be no room for both.
        reuse: Skip a pack that was made from the same manifest.

    Raises:
        SpoofkitError: utterances cannot be decoded or have other lengths than in the manifest (all are named at the
            end); the pack exists, another process is writing it, or the disk refuses.
    """
    target = out / manifest_path.name
    if target.resolve() == manifest_path.resolve():
        raise SpoofkitError(
            f"{target}: is the manifest to pack and would be replaced; name another folder for the pack"
        )
    corpus = read_manifest(manifest_path).made_from.get("corpus", "")
    made_from = {"manifest": file_sha256(manifest_path), "corpus": corpus}
    shard_names = rf"{re.escape(manifest_path.stem)}_\d{{5,}}"
    output = Output("pack", (target,), target, made_from, find_record)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        # The shards that its manifest names, not all that are there.
        addresses = [parse_address(path) for path in read_manifest(target).table["path"]]
        shards_named = dict.fromkeys(out / address.shard for address in addresses if address is not None)
        return _summary(target, [require_whole(shard) for shard in shards_named], kept=True)
    manifest = read_manifest(manifest_path)
    with locked_outputs(out, manifest_path.stem):
        remove_leftovers(out, f"{shard_names}|{re.escape(manifest_path.stem)}")
        if overwrite:
            target.unlink(missing_ok=True)  # first, because without its shards it is invalid
            _remove(_shards(out, shard_names))
        shards = _pack_all(manifest, out, shard_bytes, workers)
        records = list(shards.values())
        if manifest.n_rejected:
            write_rejected(target, read_rejected(manifest_path))
        write_manifest(
            target,
            out.resolve(),
            _addressed(manifest.table, shards),
            made_from=made_from,
            partial=manifest.partial,
            downmix=manifest.downmix,
            n_rejected=manifest.n_rejected,
        )
    return _summary(target, records)


def _pack_all(manifest: Manifest, out: Path, shard_bytes: int, workers: int) -> dict[Path, dict[str, Any]]:
    """Write all shards and return them with their records, in order; complete shards are skipped."""
    rows = [
        (utt_id, str(manifest.audio_path(path)), n_samples)
        for utt_id, path, n_samples in manifest.table.select("utt_id", "path", "n_samples").iter_rows()
    ]
    shards: dict[Path, dict[str, Any]] = {}
    n_done, decoded = 0, None
    bar = tqdm(total=len(rows), desc=visible(f"pack {manifest.path.name}"), unit="utt")
    with bar, ThreadPoolExecutor(workers) as pool:
        while n_done < len(rows):
            shard = out / f"{manifest.path.stem}_{len(shards):05d}{SUFFIX}"
            record = _complete_record(shard, rows[n_done:], manifest.downmix)
            if record is not None:
                decoded = None
                bar.update(len(record["utt_ids"]))
            else:
                if decoded is None:
                    decoded = _decode_in_order(pool, rows[n_done:], manifest.downmix, AHEAD * workers, bar)
                record = _write_shard(shard, decoded, shard_bytes, bar, manifest.downmix)
            shards[shard] = record
            n_done += len(record["utt_ids"])
    return shards


def _complete_record(shard: Path, rows: list[tuple[str, str, int]], downmix: str) -> dict[str, Any] | None:
    """Return the record of an undamaged shard that holds the first of these rows, or None if there is none.

    Raises:
        SpoofkitError: the shard holds other utterances: a manifest elsewhere, or under another name, may read it.
    """
    try:
        record = require_whole(shard, read_all=True)
    except SpoofkitError:
        return None
    rows = rows[: len(record["utt_ids"])]
    same_ids = record["utt_ids"] == [utt_id for utt_id, _, _ in rows]
    if same_ids and record["sources"] == _made_from([source for _, source, _ in rows], downmix):
        return record
    raise SpoofkitError(
        f"{shard}: exists already and holds other utterances, which another manifest may read; pass --overwrite to "
        "replace it, or name another folder"
    )


def _made_from(sources: list[str], downmix: str) -> str:
    # The usual down-mix is left out, so that records made before there were others still count.
    return text_sha256("\n".join([*sources, *([downmix] if downmix != DOWNMIXES[0] else [])]))


def _decode_in_order(
    pool: ThreadPoolExecutor, rows: list[tuple[str, str, int]], downmix: str, ahead: int, bar: Any
) -> Iterator[_Decoded]:
    """Yield decoded utterances in order; after the first that cannot be decoded the others are only checked.

    Raises:
        SpoofkitError: at the end; names those that cannot be decoded.
    """
    faults = []
    for future in _submitted(pool, rows, downmix, ahead):
        try:
            found = future.result()
        except SpoofkitError as error:
            faults.append(str(error))
        if faults:
            bar.update()
        else:
            yield found
    if faults:
        more = f"; and {len(faults) - N_NAMED:,} more" if faults[N_NAMED:] else ""
        raise SpoofkitError(
            f"{len(faults):,} of {len(rows):,} utterances cannot be packed, fix them or reject them with `spoofkit "
            f"validate --read-audio --on-error skip`: {'; '.join(faults[:N_NAMED])}{more}"
        )


def _submitted(
    pool: ThreadPoolExecutor, rows: list[tuple[str, str, int]], downmix: str, ahead: int
) -> Iterator[Future[_Decoded]]:
    futures: deque[Future[_Decoded]] = deque()
    for row in rows:
        futures.append(pool.submit(_decode, *row, downmix))
        if len(futures) > ahead:
            yield futures.popleft()
    yield from futures


def _decode(utt_id: str, source: str, n_samples: int, downmix: str) -> _Decoded:
    blocks, is_rounded, n_clipped = [], False, 0
    for wave_S in read_blocks(source, downmix=downmix):
        scaled_S = wave_S * np.float32(FULL_SCALE)
        rounded_S = np.rint(scaled_S)
        clipped_S = np.clip(rounded_S, -FULL_SCALE, FULL_SCALE - 1)
        is_rounded |= not np.array_equal(scaled_S, rounded_S)
        n_clipped += int(np.sum(clipped_S != rounded_S))
        blocks.append(clipped_S.astype("<i2"))
    pcm_S = np.concatenate(blocks)
    if n_samples != UNKNOWN_LENGTH:
        require_length(source, pcm_S.size, n_samples)
    return _Decoded(utt_id, source, pcm_S, is_rounded, n_clipped)


def _write_shard(shard: Path, decoded: Iterator[_Decoded], shard_bytes: int, bar: Any, downmix: str) -> dict[str, Any]:
    """Fill one shard, then write its record."""
    record_path(shard).unlink(missing_ok=True)  # it describes other bytes than those that follow
    utterances: list[tuple[str, str, int]] = []
    n_rounded = n_clipped = n_bytes = 0
    digest = hashlib.sha256()
    with atomic_path(shard, overwrite=True) as temporary, open(temporary, "wb") as file:
        for found in decoded:
            data = found.pcm_S.tobytes()
            file.write(data)
            digest.update(data)
            utterances.append((found.utt_id, found.source, found.pcm_S.size))
            n_rounded, n_clipped = n_rounded + found.is_rounded, n_clipped + found.n_clipped
            n_bytes += len(data)
            bar.update()
            if n_bytes >= shard_bytes:
                break
        file.flush()
    record = {
        "utt_ids": [utt_id for utt_id, _, _ in utterances],
        "n_samples": [n_samples for _, _, n_samples in utterances],
        "sources": _made_from([source for _, source, _ in utterances], downmix),
        "sha256": digest.hexdigest(),
        "n_rounded": n_rounded,
        "n_clipped": n_clipped,
    }
    write_json(record_path(shard), record, overwrite=True)
    return record


def _addressed(table: pl.DataFrame, shards: dict[Path, dict[str, Any]]) -> pl.DataFrame:
    """Return the manifest's table with addresses as paths, and the lengths that were found."""
    addresses, lengths = [], []
    for shard, record in shards.items():
        ends = accumulate(record["n_samples"])
        addresses += [f"{shard.name}:{end - n}+{n}" for end, n in zip(ends, record["n_samples"], strict=True)]
        lengths += record["n_samples"]
    return table.with_columns(pl.Series("path", addresses), pl.Series("n_samples", lengths))


def _shards(out: Path, names: str) -> list[Path]:
    return sorted(path for path in out.glob(f"*{SUFFIX}") if re.fullmatch(names, path.stem))


def _remove(shards: Any) -> None:
    for shard in shards:
        record_path(shard).unlink(missing_ok=True)
        shard.unlink()


def _summary(target: Path, records: list[dict[str, Any]], kept: bool = False) -> Pack:
    return Pack(
        target,
        sum(len(record["utt_ids"]) for record in records),
        len(records),
        sum(record["n_rounded"] for record in records),
        sum(record["n_clipped"] for record in records),
        kept,
    )
