"""Reading packed audio: utterances as slices of memory-mapped int16 files, which `spoofkit pack` writes.

An utterance has an address, `train_00002.i16:480000+64000` (`spoofkit.data.packed`). A shard is raw little-endian
int16, 16 kHz, mono, one utterance after the other; its record, `train_00002.json`, is written last, so a shard that has
one is complete.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.packed import FULL_SCALE, SAMPLE_BYTES, Address
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_json

SUFFIX = ".i16"


def read_packed(address: Address, start: int = 0, n_samples: int | None = None) -> np.ndarray:
    """Read a packed utterance, or part of it: fewer samples, down to none, where it ends earlier.

    Returns:
        float32 array of shape (samples,).

    Raises:
        SpoofkitError: the shard is missing or not whole, or ends before the utterance does.
    """
    shard_N = _open(address.shard)
    if address.start + address.n_samples > shard_N.size:
        raise SpoofkitError(
            f"{address.shard}: holds {shard_N.size} samples, but the manifest has an utterance at {address.start} to "
            f"{address.start + address.n_samples}; they are from different packs, so recreate them with `spoofkit pack`"
        )
    first = address.start + min(start, address.n_samples)
    last = address.start + address.n_samples
    part_S = shard_N[first : last if n_samples is None else min(first + n_samples, last)]
    wave_S: np.ndarray = np.multiply(part_S, np.float32(1 / FULL_SCALE), dtype=np.float32)
    return wave_S


@cache
def _open(shard: str) -> np.ndarray:
    """Map the samples of a shard into memory, after comparing its length with its record."""
    require_whole(Path(shard))
    # A plain array: slices of np.memmap itself are three times as slow to make.
    return np.asarray(np.memmap(shard, dtype="<i2", mode="r"))


def record_path(shard: Path) -> Path:
    """Return the path of a shard's record."""
    return shard.with_suffix(".json")


def require_whole(shard: Path, read_all: bool = False) -> dict[str, Any]:
    """Compare a shard with its record, and return the record.

    Args:
        shard: The shard.
        read_all: Compare its SHA-256 too, not only its length.

    Raises:
        SpoofkitError: shard or record is missing or damaged.
    """
    if not shard.is_file() or not record_path(shard).is_file():
        missing = record_path(shard) if shard.is_file() else shard
        raise SpoofkitError(
            f"{missing}: no such file, expected a shard and its record; finish the pack with `spoofkit pack`, or, "
            "if it was moved, fix the line '# root=' of its manifest"
        )
    record: dict[str, Any] = read_json(record_path(shard))
    lengths = record.get("n_samples") if isinstance(record, dict) else None
    if not (isinstance(lengths, list) and all(type(n) is int for n in lengths) and type(record.get("sha256")) is str):
        raise SpoofkitError(
            f"{record_path(shard)}: is damaged, expected n_samples and sha256 of its shard; delete both and the "
            "manifest of the pack and run `spoofkit pack` again"
        )
    found, expected = shard.stat().st_size, SAMPLE_BYTES * sum(record["n_samples"])
    if found != expected:
        raise SpoofkitError(
            f"{shard}: has {found} bytes, its record says {expected}; it is damaged, so delete it and its manifest and "
            "run `spoofkit pack` again"
        )
    if read_all and file_sha256(shard) != record["sha256"]:
        raise SpoofkitError(
            f"{shard}: its bytes are not those that were packed (SHA-256 differs); it is damaged, so delete it and its "
            "manifest and run `spoofkit pack` again"
        )
    return record
