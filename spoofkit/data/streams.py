"""Files of coded frames without a container: MPEG audio (MP3, MP2), AAC in ADTS, AC-3, and AMR.

They do not state their length, or a Xing or Info frame states that of the first of several that were concatenated. So
the frames are counted by their headers: they must follow each other to the end of the file, or to its tags. Decoders
silently skip what is between frames; here it is refused, and so is a change of rate or channels.

ISO 11172-3 and 13818-3 (MPEG audio), 13818-7 (ADTS), ETSI TS 102 366 (AC-3, E-AC-3), RFC 4867 section 5 (AMR).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from spoofkit.data.containers import HOW, refuse_cut
from spoofkit.data.spans import ID3V1_BYTES, Span, end_of_content, end_without_tags, skip_id3v2
from spoofkit.errors import SpoofkitError

READ_AT_ONCE = 1 << 20
KBIT = {  # by (is version 1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
AMR = {  # bytes of a frame by its type; sampling rate, samples a frame
    b"#!AMR\n": ((13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 1, 1), 8_000, 160),
    b"#!AMR-WB\n": ((18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1), 16_000, 320),
}
AC3_RATES = (48_000, 44_100, 32_000)
AC3_KBIT = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
AC3_SAMPLES = 256  # of a block; AC-3 has six blocks in a frame
XING_BYTES = 200  # of a frame, within which such a header begins
# Most frames of an encoder's delay and padding, and the frame with the header that states them.
TRIMMED_FRAMES = 8


class Frame(NamedTuple):
    """The header of a frame."""

    n_bytes: int
    n_samples: int
    kind: tuple[int, ...]
    """Properties that are constant within a recording, the sampling rate first."""


Parser = Callable[[bytes], Frame | None]


class Frames(NamedTuple):
    """The frames of one recording."""

    start: int
    """Byte at which they begin."""
    end: int
    seconds: float
    slack_seconds: float
    """By how much less may be decoded: what the encoder added before and after the sound."""


def count_frames(span: Span, where: str) -> tuple[Frames, ...]:
    """Count the frames of each recording in a file; empty if it does not begin with two frames.

    Raises:
        SpoofkitError: they do not reach its end, are fewer than it states, or change their rate or channels.
    """
    start, end = skip_id3v2(span), end_without_tags(span)
    for magic, (sizes, rate, n_samples) in AMR.items():
        if span.at(start, len(magic)) == magic:
            amr = partial(_amr, sizes=sizes, rate=rate, n_samples=n_samples)
            counted = _count(span, where, "amr", start + len(magic), end, amr)
            return tuple(frames._replace(start=start) for frames in counted)
    start += len(zeros := span.at(start, READ_AT_ONCE)) - len(zeros.lstrip(b"\0"))
    for codec, parse in (("mpeg", _mpeg), ("aac", _adts), ("ac-3", _ac3)):
        first = parse(span.at(start, 8))
        if first is not None:
            second = parse(span.at(start + first.n_bytes, 8))
            if start + first.n_bytes >= end or (second is not None and second.kind == first.kind):
                return tuple(_count(span, where, codec, start, end_of_content(span), parse))
    return ()


def _count(span: Span, where: str, codec: str, place: int, end: int, parse: Parser) -> Iterator[Frames]:
    """Walk from frame to frame; a tag or another header begins a further recording."""
    start, n_frames, n_stated, longest = place, 0, 0, 0
    kind: tuple[int, ...] = (0,)
    block, block_at = b"", place

    def recording() -> Frames:
        if n_frames - bool(n_stated) < n_stated:
            refuse_cut(where, 1 + (n_stated + 1 - n_frames) * (place - start) // n_frames)
        seconds = longest / kind[0]
        return Frames(start, place, n_frames * seconds, min(TRIMMED_FRAMES, n_frames) * seconds)

    while place < end:
        offset = place - block_at
        if len(block) - offset < XING_BYTES and block_at + len(block) < len(span):
            block, block_at, offset = span.at(place, READ_AT_ONCE), place, 0
        frame = parse(block[offset : offset + 8])
        behind_tag = place if frame is not None else _skip_tag(span, place)
        if frame is None and behind_tag == place:
            raise SpoofkitError(
                f"{where}: there is no {codec.upper()} frame at byte {place:,}, expected frames up to the end of the "
                f"file; it is damaged there, or something else was appended to it, so {HOW}"
            )
        n_frames_here = None
        if frame is not None and codec == "mpeg":
            n_frames_here = _stated_frames(block[offset : offset + min(XING_BYTES, frame.n_bytes)])
        if n_frames and (frame is None or n_frames_here is not None):
            yield recording()
            start, n_frames, n_stated, longest = behind_tag, 0, 0, 0
        n_stated = n_stated or n_frames_here or 0
        if frame is None:
            start = place = behind_tag
            continue
        if frame.kind != kind and kind != (0,):
            raise SpoofkitError(
                f"{where}: changes its coding at byte {place:,} (from {kind[0]} to {frame.kind[0]} Hz, or the number "
                f"of channels), expected one throughout; split it there, or {HOW}"
            )
        if place + frame.n_bytes > len(span):
            refuse_cut(where, place + frame.n_bytes - len(span))
        kind, longest, n_frames = frame.kind, max(longest, frame.n_samples), n_frames + 1
        place += frame.n_bytes
    if n_frames:
        n_zeros = end_without_tags(span) - place
        if not n_stated and n_zeros * n_frames > place - start:  # room for a frame
            _refuse_zeros(where, n_zeros)
        yield recording()


def _refuse_zeros(where: str, n_zeros: int) -> None:
    raise SpoofkitError(
        f"{where}: {n_zeros:,} zeros follow the last frame, expected frames up to the end; a download is incomplete, "
        f"so {HOW}"
    )


def _skip_tag(span: Span, place: int) -> int:
    """Return where an ID3 tag between two recordings ends; the place itself if there is none."""
    if span.at(place, 3) == b"TAG":
        return place + ID3V1_BYTES
    return place + skip_id3v2(span.part(place, len(span)))


def _stated_frames(start: bytes) -> int | None:
    """Return the number of frames that a Xing or Info frame states, 0 if none; None if it is no such frame."""
    place = max(start.find(b"Xing"), start.find(b"Info"))
    if place < 0:
        return 0 if b"VBRI" in start else None
    return int.from_bytes(start[place + 8 : place + 12], "big") if start[place + 7] & 1 else 0


def _amr(head: bytes, sizes: tuple[int, ...], rate: int, n_samples: int) -> Frame | None:
    size = sizes[head[0] >> 3 & 0xF]
    # With padding bits, or marked as damaged by its quality bit, it does not count.
    return Frame(size, n_samples, (rate,)) if size and head[0] & 0x87 == 0x04 else None


def _mpeg(head: bytes) -> Frame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    kbit_index, rate_index = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or kbit_index in (0, 15) or rate_index == 3:
        return None  # free bit rates are not read
    is_first = version == 3
    rate, bit_rate = MPEG_RATES[version][rate_index], 1000 * KBIT[is_first, layer][kbit_index]
    padding, n_channels = head[2] >> 1 & 1, 1 if head[3] >> 6 == 3 else 2
    if layer == 1:
        return Frame(4 * (12 * bit_rate // rate + padding), 384, (rate, n_channels, layer))
    n_samples = 1152 if is_first or layer == 2 else 576
    return Frame(n_samples // 8 * bit_rate // rate + padding, n_samples, (rate, n_channels, layer))


def _adts(head: bytes) -> Frame | None:
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 0xF >= len(AAC_RATES):
        return None
    n_bytes = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    n_channels = (head[2] & 1) << 2 | head[3] >> 6
    n_samples = 1024 * ((head[6] & 3) + 1)
    return Frame(n_bytes, n_samples, (AAC_RATES[head[2] >> 2 & 0xF], n_channels)) if n_bytes >= 7 else None


def _ac3(head: bytes) -> Frame | None:
    """Parse a frame of AC-3, or of E-AC-3 with one stream at full rate."""
    if len(head) < 7 or head[:2] != b"\x0b\x77" or head[4] >> 6 == 3:
        return None
    rate, version = AC3_RATES[head[4] >> 6], head[5] >> 3
    if 10 < version <= 16:
        n_bytes, n_blocks = 2 * ((head[2] & 7) << 8 | head[3]) + 2, (1, 2, 3, 6)[head[4] >> 4 & 3]
        is_first = head[2] >> 3 in (0, 16)  # what it depends on, or not; and its number
        return Frame(n_bytes, n_blocks * AC3_SAMPLES, (rate, head[4] >> 1 & 7)) if is_first else None
    code = head[4] & 0x3F
    if version > 8 or code >= 2 * len(AC3_KBIT):
        return None
    n_words = 1000 * AC3_KBIT[code >> 1] * 6 * AC3_SAMPLES // rate // 16 + (rate == 44_100 and code & 1)
    return Frame(2 * n_words, 6 * AC3_SAMPLES, (rate, head[6] >> 5))
