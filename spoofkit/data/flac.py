"""FLAC's header, whether the file ends where it states, and its checksums (RFC 9639).

STREAMINFO (section 8.2: 20 bits of rate, 3 of channels - 1, 5 of sample width - 1, 36 of samples, then an MD5 of the
samples; 0 samples or an MD5 of zeros mean "not stated") may follow an ID3v2 tag. It describes one recording, even where
another was appended or the end is missing; so the last frame is searched for, which tells where the recording ends.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoofkit.data.spans import Span, end_of_content, skip_id3v2

STREAMINFO_BYTES = 34
TAIL_BYTES = 1 << 16  # that hold the last frame, unless STREAMINFO states longer frames
MOST_TAIL_BYTES = 1 << 24
SEARCHED_AT_ONCE = 1 << 20
WIDEST_EXACT = 24  # bits that a float32 holds without loss
MAGIC = b"fLaC"
BLOCK_SAMPLES = (0, 192, 576, 1152, 2304, 4608, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)  # by code
CRC8 = [0] * 256
CRC16 = [0] * 256
for _value in range(256):
    _short, _long = _value, _value << 8
    for _ in range(8):
        _short = _short << 1 ^ (0x107 if _short & 0x80 else 0)
        _long = _long << 1 ^ (0x18005 if _long & 0x8000 else 0)
    CRC8[_value], CRC16[_value] = _short, _long


@dataclass(frozen=True)
class StreamInfo:
    """What a FLAC's header states."""

    sample_rate: int
    n_channels: int
    bits: int
    n_samples: int
    """0 if not stated."""
    md5: str
    """MD5 of the samples, in hex; empty if not stated."""
    block_samples: int
    """Samples of every frame but the last, if all are equally long."""
    largest_frame: int
    """Size of the largest frame, in bytes; 0 if not stated."""
    frames_at: int
    """Byte at which the first frame begins."""


def stream_info(span: Span) -> StreamInfo | None:
    """Read STREAMINFO; None if it is no FLAC."""
    start = skip_id3v2(span)
    block = span.at(start, 8 + STREAMINFO_BYTES)
    if block[:4] != MAGIC or len(block) < 8 + STREAMINFO_BYTES or block[4] & 0x7F != 0:
        return None
    place, is_last = start + 4, False
    while not is_last and len(head := span.at(place, 4)) == 4:
        is_last, place = bool(head[0] & 0x80), place + 4 + int.from_bytes(head[1:], "big")
    packed = int.from_bytes(block[18:26], "big")
    return StreamInfo(
        sample_rate=packed >> 44,
        n_channels=(packed >> 41 & 0x7) + 1,
        bits=(packed >> 36 & 0x1F) + 1,
        n_samples=packed & 0xF_FFFF_FFFF,
        md5=block[26:42].hex() if any(block[26:42]) else "",
        block_samples=int.from_bytes(block[10:12], "big"),
        largest_frame=int.from_bytes(block[15:18], "big"),
        frames_at=place,
    )


def last_frame(span: Span, info: StreamInfo) -> int | None:
    """Find the last frame of the recording that the header states; None if the file does not end with it.

    Returns:
        The byte at which it begins.
    """
    end = end_of_content(span)
    tail_at = max(info.frames_at, end - min(MOST_TAIL_BYTES, max(TAIL_BYTES, 2 * info.largest_frame)))
    tail = span.at(tail_at, end - tail_at)
    if holds_another(span, tail_at):
        return None
    place = len(tail)
    while (place := tail.rfind(b"\xff", 0, place)) >= 0:
        if tail[place + 1 : place + 2] in (b"\xf8", b"\xf9"):
            ends_at = _frame_end(tail[place : place + 17], info)
            if ends_at is not None and ends_at == info.n_samples:
                return tail_at + place
    return None


def holds_another(span: Span, start: int) -> bool:
    """Return whether the header of a second FLAC follows a place; it may be exactly as long as the first."""
    for place in range(start, len(span), SEARCHED_AT_ONCE):
        block = span.at(place, SEARCHED_AT_ONCE + len(MAGIC) + 3)
        if any(MAGIC + kind + b"\0\0\x22" in block for kind in (b"\0", b"\x80")):
            return True
    return False


def is_whole_frame(span: Span, place: int) -> bool:
    """Return whether one frame extends from a place to the end of the file, by its CRC-16."""
    crc = 0
    for byte in span.at(place, end_of_content(span) - place):
        crc = crc << 8 & 0xFFFF ^ CRC16[crc >> 8 ^ byte]
    return crc == 0


def _frame_end(head: bytes, info: StreamInfo) -> int | None:
    """Return the number of the sample after a frame; None if this is no frame header."""
    if len(head) < 6:
        return None
    block_code, rate_code = head[2] >> 4, head[2] & 0xF
    n_leading = 8 - (head[4] ^ 0xFF).bit_length()  # leading ones of the number's first byte, as in UTF-8
    if block_code == 0 or rate_code == 15 or head[3] & 1 or n_leading in (1, 8):
        return None
    n_bytes = max(1, n_leading)
    number = head[4] & (0xFF >> (n_leading + 1))
    for byte in head[5 : 4 + n_bytes]:
        number = number << 6 | byte & 0x3F
    place = 4 + n_bytes
    if block_code in (6, 7):
        width = block_code - 5
        n_samples, place = int.from_bytes(head[place : place + width], "big") + 1, place + width
    else:
        n_samples = BLOCK_SAMPLES[block_code]
    place += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    crc = 0
    for byte in head[:place]:
        crc = CRC8[crc ^ byte]
    if place >= len(head) or head[place] != crc:
        return None
    first = number if head[1] & 1 else number * info.block_samples
    return first + n_samples


class SamplesMd5:
    """The MD5 that FLAC states of samples: signed, little-endian, interleaved, in whole bytes."""

    def __init__(self, bits: int) -> None:
        self.bits, self.digest = bits, hashlib.md5(usedforsecurity=False)

    def add(self, channels_SC: np.ndarray) -> None:
        """Add float32 samples of shape (samples, channels), full scale 1."""
        values_SC: Any = np.rint(channels_SC * np.float32(1 << (self.bits - 1)))
        width = (self.bits + 7) // 8
        if width == 2:
            self.digest.update(np.ascontiguousarray(values_SC.astype("<i2")).data)
            return
        data = np.ascontiguousarray(values_SC.astype("<i4")).view(np.uint8).reshape(-1, 4)[:, :width]
        self.digest.update(np.ascontiguousarray(data).data)
