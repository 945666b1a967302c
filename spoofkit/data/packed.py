"""Packed audio as the rest of the package sees it: an address, and the addon that reads it.

A packed utterance has an address that can be used like a path: `train_00002.i16:480000+64000` is the 64,000 samples of
that shard that begin at sample 480,000.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spoofkit import addons

FULL_SCALE = 32_768  # of int16; a power of two, so that int16 -> float32 -> int16 loses nothing
SAMPLE_BYTES = 2
ADDRESS = re.compile(r"(.+\.i16):(\d+)\+(\d+)")


class Address(NamedTuple):
    """Address of a packed utterance."""

    shard: str
    start: int
    """First sample."""
    n_samples: int


def parse_address(path: Path | str) -> Address | None:
    """Parse an address; None if `path` is the name of an ordinary file.

    >>> parse_address("packs/train_00002.i16:480000+64000")
    Address(shard='packs/train_00002.i16', start=480000, n_samples=64000)
    """
    match = ADDRESS.fullmatch(str(path))
    return Address(match[1], int(match[2]), int(match[3])) if match else None


def read_packed(address: Address, start: int = 0, n_samples: int | None = None) -> np.ndarray:
    """Read a packed utterance, or part of it: see the addon's `read_packed`.

    Raises:
        SpoofkitError: the addon is not installed, or see the addon's `read_packed`.
    """
    wave_S: np.ndarray = addons.find("pack.shards").read_packed(address, start, n_samples)
    return wave_S
