"""What the first bytes of a file say of it, where the decoding libraries keep it to themselves.

FLAC's STREAMINFO block (RFC 9639, section 8.2: 20 bits of rate, 3 of channels - 1, 5 of sample width - 1, 36 of
samples, then an MD5 of the samples; 0 samples or an MD5 of zeros mean "not stated"), which may stand behind an ID3v2
tag; and the sizes of WAV (RIFF, RIFX, RF64: EBU Tech 3306, BW64: ITU-R BS.2088), AIFF and AU. Nothing is decoded here.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

STREAMINFO_BYTES = 34
# The data size of a WAV that was written to a pipe is 0 or about the largest that its writer has: 0xFFFF_FFFF (FFmpeg),
# 0x7FFF_F000 less what is no whole frame (SoX), 0x8000_0000 (arecord).
LARGEST = (1 << 31, 1 << 32)
ABOUT = 1 << 16
LONG = (b"RF64", b"BW64")  # state sizes of more than 4 GiB in a chunk of their own
MOST_CHUNKS = 64  # before the samples; more are no WAV
WIDEST_EXACT = 24  # bits that a float32 holds without loss


@dataclass(frozen=True)
class StreamInfo:
    """FLAC's own header."""

    sample_rate: int
    n_channels: int
    bits: int
    n_samples: int
    """0: not stated."""
    md5: str
    """Of the samples, in hex; empty: not stated."""


@dataclass(frozen=True)
class Head:
    """What a file's first bytes say."""

    flac: StreamInfo | None = None
    missing_bytes: int = 0
    """Of WAV, AIFF and AU: how many bytes of samples the header states and the file lacks."""


def read_head(path: Path | str) -> Head:
    """Read the first bytes of a file of any kind.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(12)
        if start[:4] in (b"RIFF", b"RIFX", *LONG) and start[8:] == b"WAVE":
            return Head(missing_bytes=_missing_bytes(file, start[:4]))
        if start[:4] == b"FORM" and start[8:] in (b"AIFF", b"AIFC"):
            return Head(missing_bytes=_missing_bytes(file, b"FORM"))
        if start[:4] == b".snd":
            offset, size = (int.from_bytes(start[place : place + 4], "big") for place in (4, 8))
            return Head(missing_bytes=_lacking(offset + size, file) if _is_stated(size) else 0)
        if start[:3] == b"ID3" and len(start) >= 10:
            file.seek(10 + sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True)))
        else:
            file.seek(0)
        return Head(flac=_stream_info(file.read(8 + STREAMINFO_BYTES)))


def _stream_info(block: bytes) -> StreamInfo | None:
    if block[:4] != b"fLaC" or len(block) < 8 + STREAMINFO_BYTES or block[4] & 0x7F != 0:
        return None
    packed = int.from_bytes(block[18:26], "big")
    md5 = block[26:42]
    return StreamInfo(
        sample_rate=packed >> 44,
        n_channels=(packed >> 41 & 0x7) + 1,
        bits=(packed >> 36 & 0x1F) + 1,
        n_samples=packed & 0xF_FFFF_FFFF,
        md5=md5.hex() if any(md5) else "",
    )


def _missing_bytes(file: BinaryIO, kind: bytes) -> int:
    order = "big" if kind in (b"RIFX", b"FORM") else "little"
    samples, long_size = b"SSND" if kind == b"FORM" else b"data", 0
    for _ in range(MOST_CHUNKS):
        header = file.read(8)
        size = int.from_bytes(header[4:8], order)  # type: ignore[arg-type]
        if header[:4] == samples:
            if kind in LONG and size == 0xFFFF_FFFF:
                is_stated, size = long_size not in (0, (1 << 64) - 1), long_size
            else:
                is_stated = _is_stated(size)
            return _lacking(file.tell() + size, file) if is_stated else 0
        if len(header) < 8:
            break
        if header[:4] == b"ds64":
            long_size = int.from_bytes(file.read(16)[8:], "little")
            size -= 16
        file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def _is_stated(size: int) -> bool:
    return size > 0 and all(abs(size - largest) > ABOUT for largest in LARGEST)


def _lacking(end: int, file: BinaryIO) -> int:
    return max(0, end - os.fstat(file.fileno()).st_size)


def samples_md5(channels_SC: np.ndarray, bits: int) -> str:
    """The MD5 that FLAC states of samples: signed, little-endian, interleaved, in whole bytes.

    Args:
        channels_SC: float32 samples of shape (samples, channels), full scale 1.
        bits: Their width, at most WIDEST_EXACT.
    """
    values_SC = np.rint(channels_SC * np.float32(1 << (bits - 1))).astype("<i4")
    width = (bits + 7) // 8
    data = np.ascontiguousarray(values_SC).view(np.uint8).reshape(-1, 4)[:, :width]
    return hashlib.md5(data.tobytes(), usedforsecurity=False).hexdigest()
