"""An open recording, whichever library decodes it: its facts, its blocks of samples, and checks that hold for all."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from spoofkit.data.containers import HOW, Extent
from spoofkit.data.flac import StreamInfo
from spoofkit.data.streams import Frames
from spoofkit.errors import SpoofkitError

READ_RATE = 16_000  # Hz; what every recording becomes
LONGEST_HOURS = "SPOOFKIT_LONGEST_HOURS"
DEFAULT_LONGEST_HOURS = 4.0  # of 16 kHz mono in memory: 0.9 GB
MOST_SAMPLES_A_BYTE = 10_000  # silence in FLAC: a frame of 65,535 samples takes some 14 bytes
LOWEST_RATE, HIGHEST_RATE = 2_000, 1_000_000  # Hz
UNTOLD = (
    "Invalid argument",
    "Operation not permitted",
    "integer division or modulo by zero",
)  # damaged headers
MOST_AT_ONCE = 1 << 20  # values in a block, whatever a header states
# Suffixes of headerless files: libsndfile's coding or FFmpeg's container, and the sampling rate.
HEADERLESS = {
    ".gsm": ("GSM610", 8_000), ".vox": ("VOX_ADPCM", 8_000), ".ul": ("ULAW", 8_000), ".ulaw": ("ULAW", 8_000),
    ".al": ("ALAW", 8_000), ".alaw": ("ALAW", 8_000), ".g722": ("g722", 16_000),
}  # fmt: skip


class TooLong(SpoofkitError):
    """A recording is beyond the longest duration that is read."""


@dataclass(frozen=True)
class AudioInfo:
    """Facts of a recording."""

    sample_rate: int
    """Hz, as stored."""
    n_channels: int
    subtype: str
    """How samples are stored: libsndfile's name (`PCM_16`, `FLOAT`, `VORBIS`), or FFmpeg's of the codec (`aac`)."""
    bits: int
    """Bits of a stored sample; 0 for lossy codecs."""
    reader: str
    """`soundfile`, `av`, or `pack`."""
    n_bytes: int
    """Size of the file, in bytes."""
    n_frames: int | None
    """Number of samples of each channel if the header can be trusted; None if only decoding tells."""
    flac_md5: str | None = None
    """MD5 that a FLAC states of its samples, in hex; empty if it states none, None if it is no FLAC."""

    @property
    def n_samples(self) -> int:
        """Length in samples after conversion to 16 kHz."""
        assert self.n_frames is not None, "only decoding tells"
        return length_at_16k(self.n_frames, self.sample_rate)


@dataclass(frozen=True)
class Layout:
    """What is known of a recording before it is decoded; without any fields, only the decoders know its kind."""

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


@dataclass(frozen=True)
class Stored:
    """An open recording."""

    where: str
    info: AudioInfo
    read: Callable[[int, int], Iterator[np.ndarray]]

    def blocks(self, first: int = 0, size: int = 0) -> Iterator[np.ndarray]:
        """Decode from a sample on, as float32 of shape (samples, channels), full scale 1.

        Args:
            first: The sample; if the format does not allow exact seeking, everything before it is decoded too.
            size: Most samples of a block; 0 gives about a second.

        Raises:
            SpoofkitError: the recording is damaged, cut short or too long; some blocks may have been yielded before.
        """
        with decoding_errors(self.where):
            at_most = MOST_AT_ONCE // self.info.n_channels
            yield from self.read(first, max(1, min(size or self.info.sample_rate, at_most)))


def length_at_16k(n_samples: int, rate: int) -> int:
    """Return the number of samples that `n_samples` at `rate` Hz have after conversion to 16 kHz."""
    # soxr returns round(n * 16000 / rate) samples; the integer form avoids rounding errors in long files.
    return (2 * n_samples * READ_RATE + rate) // (2 * rate)


@contextmanager
def decoding_errors(where: str) -> Iterator[None]:
    """Turn any exception of decoding into a SpoofkitError about the recording, so that others can still be read."""
    try:
        yield
    except SpoofkitError:
        raise
    except MemoryError as error:
        raise SpoofkitError(f"{where}: does not fit in memory; split it, or fetch it again if it is damaged") from error
    except OSError as error:
        if not isinstance(error, _ffmpeg_errors()):
            raise SpoofkitError(
                f"{where}: cannot be read ({error.strerror}); check its permissions and the disk"
            ) from error
        raise undecodable(where, error) from error
    except Exception as error:  # decoders raise of many kinds, and a damaged header makes any number of them
        raise undecodable(where, error) from error


def undecodable(where: str, error: Exception | str) -> SpoofkitError:
    """Return the error for what a decoder reported."""
    why = error if isinstance(error, str) else _in_words(error)
    return SpoofkitError(
        f"{where}: neither libsndfile nor FFmpeg can decode it ({why}); convert it to FLAC or fetch it again"
    )


def _in_words(error: Exception) -> str:
    words = " ".join(str(getattr(error, "strerror", "") or error).split())
    if (
        not words or words in UNTOLD or re.match(r"Error number|\[Errno", words)
    ):  # FFmpeg has no text for some of its own errors
        return "its header or its data are damaged"
    return "it ends before its first sample" if words == "End of file" else words


def _ffmpeg_errors() -> tuple[type[Exception], ...]:
    try:
        import av
    except ImportError:
        return ()
    return (av.FFmpegError,)


def require_plausible(stored: Stored) -> None:
    """Refuse implausible facts.

    Raises:
        SpoofkitError: the sampling rate or length is impossible, or beyond the limit.
    """
    where, info, n_frames = stored.where, stored.info, stored.info.n_frames
    if not LOWEST_RATE <= info.sample_rate <= HIGHEST_RATE:
        raise SpoofkitError(
            f"{where}: states a sampling rate of {info.sample_rate} Hz, expected {LOWEST_RATE} to "
            f"{HIGHEST_RATE}; its header is damaged, so fetch or convert it again"
        )
    if n_frames is not None and n_frames > MOST_SAMPLES_A_BYTE * info.n_bytes:
        raise SpoofkitError(
            f"{where}: its header states {n_frames:,} samples in {info.n_bytes:,} bytes, which is impossible; it is "
            "damaged, so fetch it again"
        )
    if n_frames is not None and info.reader != "pack":
        require_not_too_long(where, n_frames / info.sample_rate)


def require_not_too_long(where: str, seconds: float) -> None:
    """Refuse a recording beyond the longest duration, which SPOOFKIT_LONGEST_HOURS in the environment sets.

    Raises:
        TooLong: it is longer.
        SpoofkitError: the variable is no positive number.
    """
    text = os.environ.get(LONGEST_HOURS, "")
    try:
        longest_hours = float(text) if text else DEFAULT_LONGEST_HOURS
    except ValueError:
        longest_hours = 0.0
    if not longest_hours > 0:
        raise SpoofkitError(f"{LONGEST_HOURS}={text}: expected a positive number of hours; correct it or leave it out")
    if seconds > 3600 * longest_hours:
        raise TooLong(
            f"{where}: is longer than {longest_hours:g} h, the longest that is read; split it, or raise the limit with "
            f"{LONGEST_HOURS} in the environment"
        )


def check_length(where: str, rate: int, blocks: Iterator[np.ndarray], expected: int | None) -> Iterator[np.ndarray]:
    """Yield the blocks, and refuse a number of samples other than expected, or beyond the longest duration."""
    n_read = 0
    for block_SC in blocks:
        n_read += block_SC.shape[0]
        require_not_too_long(where, n_read / rate)
        yield block_SC
    if expected is not None and n_read != expected:
        raise SpoofkitError(
            f"{where}: decodes to {n_read} samples, expected {expected} from its header or size; it is cut short or "
            f"damaged, so {HOW}"
        )


def skip_samples(blocks: Iterator[np.ndarray], n_samples: int) -> Iterator[np.ndarray]:
    """Skip the first `n_samples` samples and yield the rest."""
    for block_SC in blocks:
        n_here = min(n_samples, block_SC.shape[0])
        n_samples -= n_here
        if n_here < block_SC.shape[0]:
            yield block_SC[n_here:]


def join_blocks(frames: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Join blocks until each has at least the given size; the last may be shorter."""
    waiting: list[np.ndarray] = []
    n_waiting = 0
    for frame_SC in frames:
        waiting.append(frame_SC)
        n_waiting += frame_SC.shape[0]
        if n_waiting >= size:
            yield np.concatenate(waiting)
            waiting, n_waiting = [], 0
    if waiting:
        yield np.concatenate(waiting)
