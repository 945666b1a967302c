"""An open recording, whoever decodes it: its facts, its samples in blocks, and what is refused of any."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from spoofkit.data.containers import HOW
from spoofkit.errors import SpoofkitError

READ_RATE = 16_000  # Hz; what every recording becomes
LONGEST_HOURS = "SPOOFKIT_LONGEST_HOURS"
DEFAULT_LONGEST_HOURS = 4.0  # of 16 kHz mono in memory: 0.9 GB
MOST_SAMPLES_A_BYTE = 10_000  # silence in FLAC: a frame of 65,535 samples takes some 14 bytes
LOWEST_RATE, HIGHEST_RATE = 2_000, 1_000_000  # Hz
UNTOLD = ("Invalid argument", "Operation not permitted", "integer division or modulo by zero")  # of damaged headers
MOST_AT_ONCE = 1 << 20  # numbers in a block, whatever a header states
# Names of headerless files, which say nothing: libsndfile's coding or FFmpeg's container, and the sampling rate.
HEADERLESS = {
    ".gsm": ("GSM610", 8_000), ".vox": ("VOX_ADPCM", 8_000), ".ul": ("ULAW", 8_000), ".ulaw": ("ULAW", 8_000),
    ".al": ("ALAW", 8_000), ".alaw": ("ALAW", 8_000), ".g722": ("g722", 16_000),
}  # fmt: skip


@dataclass(frozen=True)
class AudioInfo:
    """Facts of a recording."""

    sample_rate: int
    """Hz, as stored."""
    n_channels: int
    subtype: str
    """How samples are stored: libsndfile's name (`PCM_16`, `FLOAT`, `VORBIS`), or FFmpeg's of the codec (`aac`)."""
    bits: int
    """Width of a stored sample; 0 for lossy codecs, which have none."""
    reader: str
    """`soundfile`, `av`, or `pack`."""
    n_bytes: int
    """Size of the file."""
    n_frames: int | None
    """How many samples each channel has, where the header can be trusted; none: only decoding tells."""
    flac_md5: str | None = None
    """What a FLAC states of its samples, in hex; empty where it states nothing, none if it is no FLAC."""

    @property
    def n_samples(self) -> int:
        """Length after conversion to 16 kHz."""
        assert self.n_frames is not None, "only decoding tells"
        return length_at_16k(self.n_frames, self.sample_rate)


@dataclass(frozen=True)
class Stored:
    """An open recording."""

    where: str
    info: AudioInfo
    read: Callable[[int, int], Iterator[np.ndarray]]

    def blocks(self, first: int = 0, size: int = 0) -> Iterator[np.ndarray]:
        """Decode from a sample on, as float32 of shape (samples, channels), full scale 1.

        Args:
            first: The sample; where a format cannot be entered exactly, all before it is decoded too.
            size: Most samples of a block; 0: about a second.

        Raises:
            SpoofkitError: the recording is damaged, cut short or too long; some of it may have been given before.
        """
        with as_sentence(self.where):
            at_most = MOST_AT_ONCE // self.info.n_channels
            yield from self.read(first, max(1, min(size or self.info.sample_rate, at_most)))


def length_at_16k(n_samples: int, rate: int) -> int:
    """How many samples remain of `n_samples` at `rate` Hz after conversion to 16 kHz."""
    # soxr returns round(n * 16000 / rate) samples; the integer form avoids rounding errors in long files.
    return (2 * n_samples * READ_RATE + rate) // (2 * rate)


def longest_seconds() -> float:
    """Return the longest duration that is read, in seconds; the environment's SPOOFKIT_LONGEST_HOURS raises it.

    Raises:
        SpoofkitError: that is no positive number.
    """
    text = os.environ.get(LONGEST_HOURS, "")
    try:
        hours = float(text) if text else DEFAULT_LONGEST_HOURS
    except ValueError:
        hours = 0.0
    if not hours > 0:
        raise SpoofkitError(f"{LONGEST_HOURS}={text}: expected a positive number of hours; correct it or leave it out")
    return 3600 * hours


@contextmanager
def as_sentence(where: str) -> Iterator[None]:
    """Say whatever decoding raises as one sentence about the recording, so that it ends no other's."""
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
    """Make a sentence of what a decoder said."""
    why = error if isinstance(error, str) else _in_words(error)
    return SpoofkitError(
        f"{where}: neither libsndfile nor FFmpeg can decode it ({why}); convert it to FLAC or fetch it again"
    )


def _in_words(error: Exception) -> str:
    words = " ".join(str(getattr(error, "strerror", "") or error).split())
    if (
        not words or words in UNTOLD or re.match(r"Error number|\[Errno", words)
    ):  # FFmpeg has no words for some of its own
        return "its header or its data are damaged"
    return "it ends before its first sample" if words == "End of file" else words


def _ffmpeg_errors() -> tuple[type[Exception], ...]:
    try:
        import av
    except ImportError:
        return ()
    return (av.FFmpegError,)


def require_plausible(stored: Stored) -> None:
    """Refuse facts that no recording has.

    Raises:
        SpoofkitError: its sampling rate or length cannot be, or is beyond the limit.
    """
    where, info, n_frames = stored.where, stored.info, stored.info.n_frames
    if not LOWEST_RATE <= info.sample_rate <= HIGHEST_RATE:
        raise SpoofkitError(
            f"{where}: states a sampling rate of {info.sample_rate} Hz, expected {LOWEST_RATE} to "
            f"{HIGHEST_RATE}; its header is damaged, so fetch or convert it again"
        )
    if n_frames is not None and n_frames > MOST_SAMPLES_A_BYTE * info.n_bytes:
        raise SpoofkitError(
            f"{where}: states {n_frames:,} samples in {info.n_bytes:,} bytes, which no codec can hold; its header is "
            "damaged, so fetch it again"
        )
    if n_frames is not None and info.reader != "pack":
        require_not_too_long(where, n_frames / info.sample_rate)


def require_not_too_long(where: str, seconds: float) -> None:
    """Refuse recordings beyond the limit.

    Raises:
        SpoofkitError: this one is.
    """
    if seconds > longest_seconds():
        raise SpoofkitError(
            f"{where}: is longer than {longest_seconds() / 3600:g} h, expected recordings of at most that; split it, "
            f"or set {LONGEST_HOURS} in the environment to more"
        )


def checked(where: str, rate: int, blocks: Iterator[np.ndarray], expected: int | None) -> Iterator[np.ndarray]:
    """The same blocks, of which there must be as many samples as expected, and not too many."""
    n_read = 0
    for block_SC in blocks:
        n_read += block_SC.shape[0]
        require_not_too_long(where, n_read / rate)
        yield block_SC
    if expected is not None and n_read != expected:
        raise SpoofkitError(
            f"{where}: decodes to {n_read} samples, expected {expected} by its header or size; it is cut short or "
            f"damaged, so {HOW}"
        )


def skipped(blocks: Iterator[np.ndarray], n_samples: int) -> Iterator[np.ndarray]:
    """Yield what follows the first `n_samples` samples."""
    for block_SC in blocks:
        n_here = min(n_samples, block_SC.shape[0])
        n_samples -= n_here
        if n_here < block_SC.shape[0]:
            yield block_SC[n_here:]


def gathered(frames: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
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
