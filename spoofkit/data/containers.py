"""The layout of a recording's bytes: whether all are there, and nothing after its samples would be left out.

A container is a row of chunks that fills its file: WAV (RIFF, RIFX, RF64: EBU Tech 3306, BW64: ITU-R BS.2088), AIFF,
W64, CAF, MP4 and MOV (ISO 14496-12), Matroska and WebM (RFC 9559), ASF and AVI; AU and NIST SPHERE are a header and
samples.
A decoder reads what it finds and stops silently where a file was cut, or where a second recording or more samples
follow than the header states. So the chunks are walked first, and a file that they do not fill is refused. Tags and
zeros after the samples are allowed. Nothing is decoded here.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from spoofkit.data.spans import FEWEST_ZEROS, Span, end_of_content
from spoofkit.errors import SpoofkitError

# The data size of a WAV that was written to a pipe is 0 or about the largest that its writer has: 0xFFFF_FFFF (FFmpeg),
# 0x7FFF_F000 less what is no whole frame (SoX), 0x8000_0000 (arecord).
LARGEST = (1 << 31, 1 << 32)
ABOUT = 1 << 16
LONG = (b"RF64", b"BW64")  # state sizes of more than 4 GiB in a separate chunk
MOST_CHUNKS = 10_000_000  # more than the blocks of a day of Matroska
W64_START = bytes.fromhex("726966662e91cf11a5d628db04c10000")  # "riff" and the rest of Sony's identifier
W64_DATA = b"data"
ASF_START = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
EBML, SEGMENT, CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
MATROSKA = {  # the elements that a segment and a cluster hold
    bytes.fromhex(name)
    for name in (
        *("114d9b74", "1549a966", "1654ae6b", "1f43b675", "1c53bb6b", "1043a770", "1254c367", "1941a469", "ec", "bf"),
        *("e7", "a3", "a0", "ab", "a7", "af", "5854"),
    )
}
HOW = "fetch it again, or to use what there is, re-export it with `ffmpeg -i IN OUT.flac`"


class Chunk(NamedTuple):
    """One piece of a container."""

    name: bytes
    start: int
    """Where its content begins."""
    end: int | None
    """Where its content ends; None if it states no size and extends to the end of the file."""
    following: int = 0
    """Where the next chunk begins; 0 means at `end`."""


@dataclass(frozen=True)
class Extent:
    """Extent of the samples in a container of uncompressed samples."""

    n_bytes: int
    is_stated: bool
    """Whether its header states a size; otherwise everything up to the end of the file is samples."""


def refuse_cut(where: str, n_missing: int) -> NoReturn:
    """Raise SpoofkitError: the file ends before the samples that its header states."""
    raise SpoofkitError(
        f"{where}: lacks {n_missing:,} bytes of the samples that its header states; it is cut short or still being "
        f"written, so {HOW}"
    )


def refuse_rest(where: str, n_bytes: int) -> NoReturn:
    """Raise SpoofkitError: something follows the samples that no decoder would read."""
    raise SpoofkitError(
        f"{where}: {n_bytes:,} bytes follow the samples that its header states, expected only tags; the header is "
        f"wrong, or something was appended to the file, so {HOW}"
    )


def refuse_joined(where: str, place: int) -> NoReturn:
    """Raise SpoofkitError: a second recording follows in the file."""
    raise SpoofkitError(
        f"{where}: a second recording begins at byte {place:,}, expected one per file; split them, or join them with "
        "`ffmpeg -f concat` instead"
    )


def refuse_tracks(where: str, n_tracks: int) -> NoReturn:
    """Raise SpoofkitError: the file has several audio tracks."""
    raise SpoofkitError(
        f"{where}: has {n_tracks} audio tracks, expected one; take each out with `ffmpeg -i IN -map 0:a:0 OUT.flac`"
    )


def plain_extent(span: Span, where: str) -> Extent | None:
    """Find the samples of a WAV, AIFF, W64, CAF, AU or NIST file; None if it is no such file.

    Raises:
        SpoofkitError: it is cut short, or more follows than it states.
    """
    start = span.at(0, 40)
    if start[:4] in (b"RIFF", b"RIFX", *LONG) and start[8:12] == b"WAVE":
        order = "big" if start[:4] == b"RIFX" else "little"
        return _only(span, where, 12, _riff(span, order, start[:4] in LONG), b"data")
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        found = _only(span, where, 12, _riff(span, "big", False), b"SSND")
        return Extent(max(0, found.n_bytes - 8), found.is_stated)  # behind an offset and a block size
    if start[:16] == W64_START:
        return _only(span, where, 40, _guid(span, 8), W64_DATA)
    if start[:4] == b"caff":
        found = _only(span, where, 8, _caf(span), b"data")
        return Extent(max(0, found.n_bytes - 4), found.is_stated)  # behind a count of edits
    if start[:4] == b".snd":
        offset, size = (int.from_bytes(start[place : place + 4], "big") for place in (4, 8))
        return _one_piece(span, where, offset, size if _is_stated(size) else None)
    if start[:7] == b"NIST_1A":
        return _nist(span, where)
    return None


def require_filled(span: Span, where: str) -> bool:
    """Check the chunks of an MP4, Matroska, ASF or AVI file; False if it is no such file.

    Raises:
        SpoofkitError: it is cut short, damaged between its chunks, or a second recording follows.
    """
    start = span.at(0, 16)
    if start[:4] == EBML:
        _require_matroska(span, where)
        return True
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        parse, is_head = _riff(span, "little", False), lambda chunk: span.at(chunk.start, 4) == b"AVI "
    elif start == ASF_START:
        parse, is_head = _guid(span, 1), lambda chunk: chunk.name == ASF_START
    elif start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        parse, is_head = _boxes(span), lambda chunk: chunk.name in (b"ftyp", b"moov")
    else:
        return False
    heads: set[bytes] = set()
    for chunk in _walk(span, where, 0, parse, ()):
        if is_head(chunk) and chunk.name in heads:
            refuse_joined(where, chunk.start)
        heads |= {chunk.name} if is_head(chunk) else set()
    return True


Parser = Callable[[int], Chunk | None]
"""Takes a place and returns the chunk there; None if the file ends within its header."""


def _riff(span: Span, order: str, is_long: bool) -> Parser:
    long_size = 0

    def parse(place: int) -> Chunk | None:
        nonlocal long_size
        header = span.at(place, 24)
        if len(header) < 8:
            return None
        size = int.from_bytes(header[4:8], order)  # type: ignore[arg-type]
        if header[:4] == b"ds64":
            long_size = int.from_bytes(header[16:24], "little")
        is_samples = header[:4] in (b"data", b"SSND")
        if is_samples and is_long and size == 0xFFFF_FFFF:
            size = long_size if long_size != (1 << 64) - 1 else 0
        elif is_samples and not _is_stated(size) and place + 8 + size > len(span):
            size = 0
        if is_samples and not size and not _is_filled(span, place + 8, parse):
            return Chunk(header[:4], place + 8, None)
        end = place + 8 + size
        # A chunk of odd size is followed by a zero, which some writers omit.
        return Chunk(header[:4], place + 8, end, end + (size % 2 and span.at(end, 1) == b"\0"))

    return parse


def _guid(span: Span, aligned: int) -> Parser:
    def parse(place: int) -> Chunk | None:
        header = span.at(place, 24)
        size = int.from_bytes(header[16:], "little")
        if len(header) < 24:
            return None
        # W64's chunk names differ in the first four letters only.
        name = header[:4] if aligned > 1 else header[:16]
        is_unstated = size in (0, 24) and (aligned == 1 or name == W64_DATA) and place + 24 < end_of_content(span)
        if is_unstated or (name == W64_DATA and size >= 1 << 62):
            return Chunk(name, place + 24, None)
        end = place + max(24, size)
        return Chunk(name, place + 24, end, end + -end % aligned)

    return parse


def _caf(span: Span) -> Parser:
    def parse(place: int) -> Chunk | None:
        header = span.at(place, 12)
        if len(header) < 12:
            return None
        size = int.from_bytes(header[4:], "big", signed=True)
        return Chunk(header[:4], place + 12, None if size < 0 else place + 12 + size)

    return parse


def _boxes(span: Span) -> Parser:
    def parse(place: int) -> Chunk | None:
        header = span.at(place, 16)
        if len(header) < 8:
            return None
        size, start = int.from_bytes(header[:4], "big"), place + 8
        if size == 1:
            size, start = int.from_bytes(header[8:], "big"), place + 16
        return Chunk(header[4:8], start, place + max(size, start - place) if size else None)

    return parse


SAMPLES = (b"data", b"SSND")


def _walk(span: Span, where: str, place: int, parse: Parser, samples: tuple[bytes, ...] = SAMPLES) -> Iterator[Chunk]:
    """Yield the chunks up to the end of a file, or to where its tags begin.

    Args:
        span: The file.
        where: Its name.
        place: Where the first chunk begins.
        parse: Reads a chunk's header.
        samples: Names of chunks that only small ones follow; empty: any may be cut.

    Raises:
        SpoofkitError: one does not end where the file does, or something that is no chunk follows.
    """
    content_end, is_behind = end_of_content(span), not samples
    while place < len(span) and not (is_behind and place and place >= content_end):
        if len(span) - place < FEWEST_ZEROS and not span.at(place, FEWEST_ZEROS).strip(b"\0"):
            return
        chunk = parse(place)
        if chunk is None or not re.fullmatch(rb"[\x20-\x7e\xa9]{4}|.{16}", chunk.name, re.DOTALL):
            refuse_rest(where, len(span) - place)
        if chunk.end is not None and chunk.end > len(span):
            if samples and is_behind and chunk.name not in samples:
                refuse_rest(where, len(span) - place)
            refuse_cut(where, chunk.end - len(span))
        yield chunk
        if chunk.end is None:
            return
        is_behind |= chunk.name in samples
        place = max(chunk.following, chunk.end)


def _is_filled(span: Span, place: int, parse: Parser) -> bool:
    """Return whether only whole chunks, or nothing, follow from a place on."""
    try:
        names = [chunk.name for chunk in _walk(span, "", place, parse)]
    except SpoofkitError:
        return False
    return not set(SAMPLES) & set(names)


def _only(span: Span, where: str, place: int, parse: Parser, samples: bytes) -> Extent:
    """Find the only chunk of samples."""
    found = None
    for chunk in _walk(span, where, place, parse):
        if chunk.name in (b"RIFF", b"RIFX", b"FORM", b"caff", b"riff", *LONG) or (found and chunk.name == samples):
            refuse_joined(where, chunk.start)
        if chunk.name == samples:
            found = Extent((len(span) if chunk.end is None else chunk.end) - chunk.start, chunk.end is not None)
    if found is None:
        raise SpoofkitError(f"{where}: holds no samples, expected speech; remove it from the list or {HOW}")
    return found


def _one_piece(span: Span, where: str, offset: int, size: int | None) -> Extent:
    """Return the extent of samples from an offset on; nothing may follow them."""
    if size is None:
        return Extent(max(0, len(span) - offset), False)
    if offset + size > len(span):
        refuse_cut(where, offset + size - len(span))
    if offset + size < end_of_content(span) - 1:  # a byte of padding
        refuse_rest(where, end_of_content(span) - offset - size)
    return Extent(size, True)


def _nist(span: Span, where: str) -> Extent | None:
    """Find the samples of SPHERE, whose header has lines `name -type value`; compressed samples state no size."""
    head = span.at(0, 1 << 16)
    words = head[:16].split()
    offset = int(words[1]) if len(words) > 1 and words[1].isdigit() else 1024
    fields = dict(re.findall(rb"^(\w+) -\w+ (\S+)", head[:offset].partition(b"end_head")[0], re.MULTILINE))
    if b"," in fields.get(b"sample_coding", b""):
        return None
    count, width, channels = (fields.get(name, b"") for name in (b"sample_count", b"sample_n_bytes", b"channel_count"))
    if not (count.isdigit() and width.isdigit() and int(count)):
        return _one_piece(span, where, offset, None)
    return _one_piece(span, where, offset, int(count) * int(width) * (int(channels) if channels.isdigit() else 1))


def _require_matroska(span: Span, where: str) -> None:
    place, end = 0, end_of_content(span)
    for _ in range(MOST_CHUNKS):
        if place >= end:
            return
        header = span.at(place, 12)
        id_bytes = 9 - header[0].bit_length()
        name, rest = header[:id_bytes], header[id_bytes:]
        size_bytes = 9 - rest[0].bit_length() if rest else 9
        if name == EBML and place:
            refuse_joined(where, place)
        if name not in MATROSKA | {EBML, SEGMENT} or size_bytes > min(8, len(rest)):
            refuse_rest(where, end - place)
        marker = 1 << 7 * size_bytes
        size = int.from_bytes(rest[:size_bytes], "big") - marker
        place += id_bytes + size_bytes
        is_unknown = size == marker - 1
        if not is_unknown and place + size > len(span):
            refuse_cut(where, place + size - len(span))
        if name not in (SEGMENT, CLUSTER):
            if is_unknown:
                refuse_rest(where, end - place)
            place += size


def _is_stated(size: int) -> bool:
    return size > 0 and all(abs(size - largest) > ABOUT for largest in LARGEST)
