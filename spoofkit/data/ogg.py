"""Ogg: pages with checksums, and several recordings in one file (RFC 3533, "chained").

Every page's CRC-32 is compared, no page may be missing, and the last of each recording must be marked as the last. A
decoder silently skips a damaged page, and libsndfile reads only the first of several recordings.
"""

import zlib

from spoofkit.data.containers import HOW, refuse_cut, refuse_rest, refuse_tracks
from spoofkit.data.spans import Span, end_of_content
from spoofkit.errors import SpoofkitError

FIRST, LAST = 2, 4  # flags of a page
AUDIO = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")  # how the first packet of a stream begins
NO_POSITION = (1 << 64) - 1
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def page_crc(page: bytes) -> int:
    """Compute an Ogg page's checksum: CRC-32 with polynomial 0x04C11DB7, bits unreflected, from 0.

    That is zlib's CRC of the bytes with their bits in reverse order, itself reversed.
    """
    reflected = zlib.crc32(page.translate(REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{reflected:032b}"[::-1], 2)


def recordings(span: Span, where: str) -> tuple[tuple[int, int], ...]:
    """Walk the pages of an Ogg file, and return where each recording in it begins and ends, in bytes.

    Raises:
        SpoofkitError: a page is damaged, missing or cut, the last is not marked as such, or two streams are
            interleaved.
    """
    found: list[tuple[int, int]] = []
    started = n_tracks = 0
    pages: dict[int, tuple[int, int]] = {}  # by stream that has not ended: page number, position
    place, content_end, in_front = 0, end_of_content(span), True
    while place < content_end:
        head = span.at(place, 27 + 255)
        if head[:5] != b"OggS\0":
            if pages or not found:
                _refuse_damaged(where, place)
            refuse_rest(where, content_end - place)
        n_segments = head[26] if len(head) > 26 else 255
        size = 27 + n_segments + sum(head[27 : 27 + n_segments])
        if len(head) < 27 + n_segments or place + size > len(span):
            refuse_cut(where, max(1, place + size - len(span)))
        page = span.at(place, size)
        if page_crc(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            _refuse_damaged(where, place)
        position, serial, number = (int.from_bytes(page[a:b], "little") for a, b in ((6, 14), (14, 18), (18, 22)))
        if page[5] & FIRST:
            if not in_front:
                if pages:
                    _refuse_unended(where, place)
                found.append((started, place))
                started, n_tracks = place, 0
            n_tracks += page[27 + n_segments :].startswith(AUDIO)
            if n_tracks > 1:
                refuse_tracks(where, n_tracks)
            in_front, pages[serial] = True, (number, 0)
        else:
            in_front = False
            before, reached = pages.get(serial, (-1, 0))
            if number != before + 1 or serial not in pages or (position != NO_POSITION and position < reached):
                _refuse_damaged(where, place)
            pages[serial] = number, reached if position == NO_POSITION else position
        if page[5] & LAST:
            pages.pop(serial, None)
        place += size
    if pages:
        _refuse_unended(where, len(span))
    return (*found, (started, content_end))


def _refuse_damaged(where: str, place: int) -> None:
    raise SpoofkitError(
        f"{where}: the Ogg page at byte {place:,} is damaged or out of order (checksum, number or position); fetch it "
        "again"
    )


def _refuse_unended(where: str, place: int) -> None:
    raise SpoofkitError(
        f"{where}: ends at byte {place:,} without a page that is marked as the last; it is cut short or still being "
        f"written, so {HOW}"
    )
