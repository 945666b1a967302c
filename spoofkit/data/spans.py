"""A span of a file as a file object, and where the tags after its sound begin."""

import io
import os
from typing import Any

TAIL_BYTES = 1 << 16
ID3V1_BYTES, LYRICS_END_BYTES, APE_BYTES = 128, 15, 32
FEWEST_ZEROS = 16  # fewer may belong to the data before them


class Span(io.RawIOBase):
    """Bytes `start` to `stop` of an open file; it has no name, and its own position."""

    def __init__(self, descriptor: int, start: int = 0, stop: int | None = None) -> None:
        self.descriptor, self.start = descriptor, start
        self.stop = os.fstat(descriptor).st_size if stop is None else stop
        self.place = start

    def __len__(self) -> int:
        return self.stop - self.start

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: it can be read from anywhere."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of the span."""
        view = memoryview(buffer).cast("B")[: max(0, self.stop - self.place)]
        n_read = os.preadv(self.descriptor, [view], self.place) if view else 0
        self.place += n_read
        return n_read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        self.place = offset + {os.SEEK_SET: self.start, os.SEEK_CUR: self.place, os.SEEK_END: self.stop}[whence]
        self.place = max(self.start, self.place)
        return self.tell()

    def tell(self) -> int:
        """Return the position."""
        return self.place - self.start

    def part(self, start: int, stop: int) -> "Span":
        """Return the span of bytes `start` to `stop` of this span."""
        return Span(self.descriptor, self.start + start, self.start + stop)

    def at(self, place: int, n_bytes: int) -> bytes:
        """Read bytes from a place on, counted from the start; fewer if the span ends before."""
        n_bytes = min(n_bytes, len(self) - place)
        return os.pread(self.descriptor, n_bytes, self.start + place) if n_bytes > 0 else b""


def skip_id3v2(span: Span) -> int:
    """Return where the content after ID3v2 tags at the start begins."""
    place = 0
    while (head := span.at(place, 10))[:3] == b"ID3" and len(head) == 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        place += 10 + size + (10 if head[5] & 0x10 else 0)
    return place


def end_of_content(span: Span) -> int:
    """Return where the tags and zeros at the end of a file begin; its length if it has none."""
    end = end_without_tags(span)
    while end > 0:
        tail = span.at(max(0, end - TAIL_BYTES), min(end, TAIL_BYTES))
        n_zeros = len(tail) - len(tail.rstrip(b"\0"))
        if n_zeros < FEWEST_ZEROS:
            return end
        end = end_without_tags(span.part(0, end - n_zeros))
    return 0


def end_without_tags(span: Span) -> int:
    """Return where the tags (ID3v1, APE, Lyrics3) at the end of a file begin; its length if it has none."""
    end = len(span)
    while (n_bytes := _tag_bytes(span.at(max(0, end - ID3V1_BYTES), min(end, ID3V1_BYTES)))) and n_bytes <= end:
        end -= n_bytes
    return end


def _tag_bytes(tail: bytes) -> int:
    """Return the size of the tag that a file ends with; 0 if there is none."""
    if len(tail) == ID3V1_BYTES and tail[:3] == b"TAG":
        return ID3V1_BYTES
    footer = tail[-APE_BYTES:]
    if footer[:8] == b"APETAGEX":
        size = int.from_bytes(footer[12:16], "little")  # with the footer, without a header
        return size + (APE_BYTES if footer[23] & 0x80 else 0)
    if tail[-9:] == b"LYRICS200" and tail[-LYRICS_END_BYTES:-9].isdigit():
        return LYRICS_END_BYTES + int(tail[-LYRICS_END_BYTES:-9])
    return 0
