"""MPEG's two containers, transport and program streams (ISO 13818-1): whether all of their packets are there.

Neither states its length, and a decoder silently skips to the next packet. A transport stream consists of packets of
188 bytes with a counter up to 15 for each stream; a program stream consists of packets that state their size.
"""

import numpy as np

from spoofkit.data.containers import HOW, refuse_cut
from spoofkit.data.spans import Span, end_of_content, end_without_tags
from spoofkit.errors import SpoofkitError

PACKET_BYTES, SYNC = 188, 0x47
NULL_STREAM = 0x1FFF  # fills up the rate, and has no counter
READ_AT_ONCE = PACKET_BYTES << 15
START, PACK, END = b"\0\0\1", 0xBA, 0xB9
FIRST_STREAM = 0xBB  # the first that states its size


def require_packets(span: Span, where: str) -> bool:
    """Check the packets of an MPEG-TS or MPEG-PS file; False if it is no such file.

    Raises:
        SpoofkitError: it is cut short, or packets are missing or damaged.
    """
    start = span.at(0, 2 * PACKET_BYTES + 1)
    if start[:4] == START + bytes([PACK]):
        _require_program(span, where)
    elif len(start) >= PACKET_BYTES and set(start[::PACKET_BYTES]) == {SYNC}:
        _require_transport(span, where)
    else:
        return False
    return True


def _require_transport(span: Span, where: str) -> None:
    end = end_without_tags(span)
    if n_more := end % PACKET_BYTES:
        refuse_cut(where, PACKET_BYTES - n_more)
    counted: dict[int, int] = {}  # by stream: the last packet's counter
    for place in range(0, end, READ_AT_ONCE):
        packets_PB = np.frombuffer(span.at(place, min(READ_AT_ONCE, end - place)), np.uint8).reshape(-1, PACKET_BYTES)
        is_bad_P = (packets_PB[:, 0] != SYNC) | (packets_PB[:, 1] & 0x80 > 0)
        if is_bad_P.any():
            _refuse_packet(where, place + PACKET_BYTES * int(is_bad_P.argmax()))
        stream_P = (packets_PB[:, 1].astype(int) & 0x1F) << 8 | packets_PB[:, 2]
        for stream in np.unique(stream_P[stream_P != NULL_STREAM]).tolist():
            at_N = np.flatnonzero((stream_P == stream) & (packets_PB[:, 3] & 0x10 > 0))  # with a payload
            head_NB = packets_PB[at_N, :6].astype(int)
            if not at_N.size:
                continue
            number_N = head_NB[:, 3] & 0xF
            step_N = np.diff(number_N, prepend=counted.get(stream, number_N[0] - 1)) % 16
            may_jump_N = (head_NB[:, 3] & 0x20 > 0) & (head_NB[:, 4] > 0) & (head_NB[:, 5] & 0x80 > 0)
            is_missing_N = (step_N > 1) & ~may_jump_N  # a packet may be sent twice
            if is_missing_N.any():
                _refuse_packet(where, place + PACKET_BYTES * int(at_N[is_missing_N.argmax()]))
            counted[stream] = int(number_N[-1])


def _require_program(span: Span, where: str) -> None:
    place, end = 0, end_of_content(span)
    while place < end:
        head = span.at(place, 14)
        if head[:3] != START or len(head) < 4:
            _refuse_packet(where, place)
        if head[3] == PACK:
            size = 12 if head[4:5] < b"\x40" else 14 + (head[13:14] or b"\0")[0] % 8  # MPEG-1, or MPEG-2 and stuffing
        elif head[3] == END:
            size = 4
        elif head[3] >= FIRST_STREAM:
            size = 6 + int.from_bytes(head[4:6], "big")
        else:
            _refuse_packet(where, place)
        if place + size > len(span):
            refuse_cut(where, place + size - len(span))
        place += size


def _refuse_packet(where: str, place: int) -> None:
    raise SpoofkitError(
        f"{where}: the MPEG packet at byte {place:,} is damaged or out of order; something is missing or was inserted "
        f"there, so {HOW}"
    )
