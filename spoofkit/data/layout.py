"""What is known of a recording before it is decoded: its kind, its stated length, and that all bytes are there."""

from dataclasses import dataclass

from spoofkit.data.containers import Extent, plain_extent, require_filled
from spoofkit.data.flac import StreamInfo, last_frame, stream_info
from spoofkit.data.mpeg import require_packets
from spoofkit.data.ogg import recordings
from spoofkit.data.spans import Span
from spoofkit.data.streams import Frames, count_frames


@dataclass(frozen=True)
class Layout:
    """One recording of a file; without any fields, only the decoders know its kind."""

    flac: StreamInfo | None = None
    last_flac_frame: int | None = None
    """Byte at which it begins; None if the file does not end where its header states."""
    plain: Extent | None = None
    """The samples of WAV, AIFF, W64, CAF, AU and NIST."""
    frames: Frames | None = None
    """The frames of MPEG audio, ADTS and AMR."""
    is_ogg: bool = False
    is_filled: bool = False
    """Whether it is a container of chunks or packets (MP4, Matroska, ASF, AVI, MPEG), which fill it."""


def find_recordings(span: Span, where: str) -> list[tuple[Span, Layout]]:
    """Find the recordings in a file by its bytes: one, or several in an Ogg or MP3 file that was concatenated.

    Raises:
        SpoofkitError: it is cut short, or more follows than it states.
    """
    if (info := stream_info(span)) is not None:
        return [(span, Layout(flac=info, last_flac_frame=last_frame(span, info) if info.n_samples else None))]
    if span.at(0, 4) == b"OggS":
        return [(span.part(*part), Layout(is_ogg=True)) for part in recordings(span, where)]
    if (plain := plain_extent(span, where)) is not None:
        return [(span, Layout(plain=plain))]
    if require_filled(span, where) or require_packets(span, where):
        return [(span, Layout(is_filled=True))]
    frames = count_frames(span, where)
    return [(span.part(one.start, one.end), Layout(frames=one)) for one in frames] or [(span, Layout())]
