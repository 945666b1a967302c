"""Reading audio: any file libsndfile or FFmpeg can decode becomes 16 kHz mono float32, or is refused by name.

soundfile first; av for what libsndfile refuses (libsndfile 1.2.2 rejects a good part of the ASVspoof 2021 FLACs, and
knows no AAC). A file that cannot be decoded, is empty, holds NaN or loses its voice when its channels are averaged
raises, and so does a WAV that is shorter than its header states; nothing is replaced by silence. The address of a
packed utterance (`shards`) may stand wherever a path may, and is read without decoding. Audio of a manifest is read
through `Manifest.read_audio`, which knows the set's down-mix.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from spoofkit.data.containers import Head, read_head
from spoofkit.data.shards import SAMPLE_BYTES, parse_address, read_packed
from spoofkit.errors import SpoofkitError

SAMPLE_RATE = 16_000  # Hz; what every supported encoder was trained on
EXTENSIONS = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".au", ".sph", ".webm", ".mp4")
DOWNMIXES = ("mean", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
"""How several channels become one: their mean, or one of them. A file of one channel is that channel."""

# TypeError: a name in .raw, which says nothing about rate and width.
UNKNOWN_TO_SOUNDFILE = (soundfile.LibsndfileError, TypeError)
NOT_STATED = 1 << 62  # libsndfile's length of a FLAC that states none is the largest number it has
CANCELLED = 1e-3  # of the channels' mean energy: -30 dB; of unrelated channels' there remains 1 / channels
AUDIBLE = 1e-4  # of full scale, as a root mean square: what is softer is dither and may cancel
MOST_SAMPLES_A_BYTE = 10_000  # silence in FLAC: a frame of 65,535 samples takes some 14 bytes
LOWEST_RATE = 2_000  # Hz
RESAMPLER_SECONDS = 1.0  # far more than the resampler's filters are long
# libsndfile's names of those that state their sizes; it takes what a file has for all that it should have.
SIZED_FORMATS = ("WAV", "WAVEX", "RF64", "AIFF", "AU")
WIDTHS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}


@dataclass(frozen=True)
class AudioInfo:
    """Facts of a file's header."""

    n_samples: int
    """Length after conversion to 16 kHz."""
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
    missing_bytes: int
    """How many bytes of samples a WAV's header states and the file lacks: it was cut, or is still being written."""
    is_stated: bool
    """Whether the header states the length; otherwise the file was decoded to be measured."""
    flac_md5: str | None
    """What a FLAC states of its samples, in hex; empty where it states nothing, none if it is no FLAC."""


@dataclass(frozen=True)
class Decoded:
    """A file's samples as they are stored."""

    channels_SC: np.ndarray
    """float32, shape (samples, channels), full scale 1."""
    sample_rate: int
    reader: str


def probe(path: Path | str) -> AudioInfo:
    """Read a file's header; only files of which nothing states the length are decoded to be measured.

    Raises:
        SpoofkitError: missing, unreadable or empty.
    """
    if (address := parse_address(path)) is not None:
        read_packed(address, n_samples=0)  # for its checks
        n_bytes = SAMPLE_BYTES * address.n_samples
        return AudioInfo(address.n_samples, SAMPLE_RATE, 1, "PCM_16", 16, "pack", n_bytes, 0, True, None)
    head, n_bytes = _head(path), Path(path).stat().st_size
    is_stated, reader = True, "soundfile"
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate, channels, n_samples, subtype = file.samplerate, file.channels, file.frames, file.subtype
    except UNKNOWN_TO_SOUNDFILE:
        n_samples = NOT_STATED
    if n_samples >= NOT_STATED:
        rate, channels, stated, subtype = _probe_with_av(path, head)
        is_stated, reader = stated is not None, "av"
        n_samples = _decode_with_av(path, head).channels_SC.shape[0] if stated is None else stated
    if n_samples <= 0:
        raise SpoofkitError(f"{path}: holds no samples, expected speech; remove it from the list or fetch it again")
    if n_samples > MOST_SAMPLES_A_BYTE * n_bytes:
        raise SpoofkitError(
            f"{path}: states {n_samples:,} samples in {n_bytes:,} bytes, which no codec can hold; its header is "
            "damaged, so fetch it again"
        )
    if rate < LOWEST_RATE:
        raise SpoofkitError(
            f"{path}: states a sampling rate of {rate} Hz, expected at least {LOWEST_RATE}; its header is damaged, so "
            "fetch or convert it again"
        )
    return AudioInfo(
        length_at_16k(n_samples, rate),
        rate,
        channels,
        subtype,
        WIDTHS.get(subtype, head.flac.bits if head.flac else 0),
        reader,
        n_bytes,
        head.missing_bytes,
        is_stated,
        head.flac.md5 if head.flac else None,
    )


def read_audio(
    path: Path | str, start: int = 0, n_samples: int | None = None, downmix: str = DOWNMIXES[0]
) -> np.ndarray:
    """Decode a file, or part of it, to 16 kHz mono.

    Args:
        path: Any audio file, or an address.
        start: First sample, counted at 16 kHz.
        n_samples: How many samples at 16 kHz; none reads to the end.
        downmix: One of DOWNMIXES; nothing is left to do of it for an address.

    Returns:
        float32 array of shape (samples,).

    Raises:
        SpoofkitError: missing, undecodable, empty, shorter than its header states or than asked for, not finite; it
            lacks the channel asked for, or its channels cancel each other.
    """
    address = parse_address(path)
    if address is None:
        wave_S = _read_part(path, start, n_samples, downmix)
    else:
        wave_S = read_packed(address, start, n_samples)
    if wave_S.size == 0:
        raise SpoofkitError(
            f"{path}: holds no samples{f' from {start} on' if start else ''}, "
            "expected speech; remove it from the list or fetch it again"
        )
    if n_samples is not None and wave_S.size < n_samples:
        raise SpoofkitError(
            f"{path}: found {wave_S.size} samples where {n_samples} were expected; "
            "the file is cut short or the manifest is older than it"
        )
    if not np.isfinite(wave_S).all():
        raise SpoofkitError(f"{path}: holds NaN or infinite samples, expected finite ones; fetch or convert it again")
    return np.ascontiguousarray(wave_S)


def decode(path: Path | str) -> Decoded:
    """Decode a whole file as it is stored, or what a cut WAV has: nothing is resampled, mixed or checked; no address.

    Raises:
        SpoofkitError: missing, undecodable, or cut short and no WAV.
    """
    return _decode_part(path, 0, None, is_whole=False)[0]


def mix_down(channels_SC: np.ndarray, downmix: str, where: Path | str) -> np.ndarray:
    """Make one channel of several.

    Args:
        channels_SC: float32 samples of shape (samples, channels).
        downmix: One of DOWNMIXES.
        where: For the message.

    Returns:
        float32 array of shape (samples,).

    Raises:
        SpoofkitError: there are several channels but not the one asked for; or their mean is more than 30 dB below
            their mean energy, so that the speech would be lost.
    """
    n_channels = channels_SC.shape[1]
    if n_channels == 1:
        return channels_SC[:, 0]
    if downmix != "mean":
        if DOWNMIXES.index(downmix) > n_channels:
            raise SpoofkitError(
                f"{where}: has {n_channels} channels, expected a {downmix} one; prepare the set with another --downmix"
            )
        return np.ascontiguousarray(channels_SC[:, DOWNMIXES.index(downmix) - 1])
    if cancels(channels_SC):
        raise SpoofkitError(
            f"{where}: its {n_channels} channels cancel each other (their mean is more than 30 dB below them), "
            "expected speech that survives their mean; prepare the set with --downmix first, or remove it from the list"
        )
    wave_S: np.ndarray = channels_SC.mean(axis=1, dtype=np.float32)
    return wave_S


def cancels(channels_SC: np.ndarray) -> bool:
    """Whether the mean of several channels that are not silent is more than 30 dB below their mean energy."""
    with np.errstate(all="ignore"):  # what is not finite is refused elsewhere
        energy = float(np.mean(np.square(channels_SC, dtype=np.float64)))
        mixed = float(np.mean(np.square(channels_SC.mean(axis=1, dtype=np.float64))))
    return channels_SC.shape[1] > 1 and energy > AUDIBLE**2 and mixed < CANCELLED * energy


def length_at_16k(n_samples: int, rate: int) -> int:
    """How many samples remain of `n_samples` at `rate` Hz after conversion to 16 kHz."""
    # soxr returns round(n * 16000 / rate) samples; the integer form avoids rounding errors in long files.
    return (2 * n_samples * SAMPLE_RATE + rate) // (2 * rate)


def _read_part(path: Path | str, start: int, n_samples: int | None, downmix: str) -> np.ndarray:
    """The part that was asked for, or as much of it as there is."""
    found, start = _decode_part(path, start, n_samples, is_whole=True)
    # A file is judged as a whole: a part of it may cancel where the file does not.
    is_part_of_sound = (
        downmix == "mean" and n_samples is not None and cancels(found.channels_SC) and not _cancels_whole(path)
    )
    if is_part_of_sound:
        wave_S: np.ndarray = found.channels_SC.mean(axis=1, dtype=np.float32)
    else:
        wave_S = mix_down(found.channels_SC, downmix, path)
    if found.sample_rate != SAMPLE_RATE:
        wave_S = soxr.resample(wave_S, found.sample_rate, SAMPLE_RATE)
    return wave_S[start : None if n_samples is None else start + n_samples]


def _decode_part(path: Path | str, start: int, n_samples: int | None, *, is_whole: bool) -> tuple[Decoded, int]:
    """What is needed for a part counted at 16 kHz; and where in it, counted at 16 kHz, that part begins.

    With `is_whole`, a WAV, AIFF or AU that was cut is refused, also where the part itself is there.
    """
    _require_file(path)
    try:
        with soundfile.SoundFile(str(path)) as file:
            if is_whole and file.format in SIZED_FORMATS:
                _refuse_cut(path, _head(path))
            if file.frames < NOT_STATED:
                first, needed = start, -1 if n_samples is None else n_samples
                if file.samplerate == SAMPLE_RATE:
                    file.seek(min(start, file.frames))
                    first = 0
                elif n_samples is not None:
                    # Resampled sound does not depend on what comes later, bit for bit; on where it began it does.
                    needed = -(-(start + n_samples) * file.samplerate // SAMPLE_RATE)
                    needed += int(RESAMPLER_SECONDS * file.samplerate)
                channels_SC = file.read(needed, dtype="float32", always_2d=True)
                return Decoded(channels_SC, file.samplerate, "soundfile"), first
    except UNKNOWN_TO_SOUNDFILE:
        pass  # FFmpeg is asked next, and what it says counts
    except MemoryError as error:
        raise SpoofkitError(
            f"{path}: states {file.frames:,} samples, more than there is memory for; split it, or fetch it again"
        ) from error
    head = _head(path)
    if is_whole:
        _refuse_cut(path, head)
    return _decode_with_av(path, head), start


def _cancels_whole(path: Path | str) -> bool:
    return cancels(decode(path).channels_SC)


def _require_file(path: Path | str) -> None:
    why = ""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        raise SpoofkitError(f"{path}: no such file; check the corpus folder and the list") from error
    except PermissionError as error:
        raise SpoofkitError(f"{path}: cannot be read ({error.strerror}); check its folder's permissions") from error
    except OSError as error:
        why = f" ({error.strerror})"
    raise SpoofkitError(f"{path}: is no regular file{why}, expected audio in one; name one, or write the audio to one")


def _refuse_cut(path: Path | str, head: Head) -> None:
    if head.missing_bytes:
        raise SpoofkitError(
            f"{path}: ends {head.missing_bytes:,} bytes before the samples do that its header states, expected all of "
            "them; it is cut short or still being written, so fetch it again (or convert it, to use what there is)"
        )


def _head(path: Path | str) -> Head:
    _require_file(path)
    try:
        return read_head(path)
    except OSError as error:
        raise SpoofkitError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from error


@contextmanager
def _opened_with_av(path: Path | str) -> Iterator[tuple[Any, Any]]:
    """A file's container and audio stream, and FFmpeg's errors as sentences."""
    try:
        import av
    except ImportError as error:  # where it cannot be installed, WAV and FLAC are read all the same
        raise SpoofkitError(
            f"{path}: libsndfile cannot decode it, and the package av, which might, is not installed; run `pip install "
            "av` or convert it to FLAC"
        ) from error
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.audio:
                raise SpoofkitError(f"{path}: has no audio stream, expected speech; remove it from the list")
            if container.streams.audio[0].codec_context is None:
                raise SpoofkitError(
                    f"{path}: is coded in a way that neither libsndfile nor FFmpeg knows, or is damaged; convert it to "
                    "FLAC or fetch it again"
                )
            yield container, container.streams.audio[0]
    # What a damaged header makes of a number, PyAV refuses as a value or overflow, and memory may not suffice for it.
    except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        raise SpoofkitError(
            f"{path}: neither libsndfile nor FFmpeg can decode it ({' '.join(str(error).split())}); convert it to FLAC "
            "or fetch it again"
        ) from error


def _stated_samples(container: Any, stream: Any, head: Head) -> int | None:
    """The length that a container states reliably: FLAC and MP4 do, others guess it from the bit rate."""
    if head.flac is not None:
        return head.flac.n_samples or None
    if "mp4" in container.format.name.split(",") and stream.duration:
        # The edit list of MP4 counts whole milliseconds: one less is never more than there is.
        n_samples: int = int(stream.duration * stream.time_base * stream.rate) - stream.rate // 1000
        return n_samples
    return None


def _probe_with_av(path: Path | str, head: Head) -> tuple[int, int, int | None, str]:
    """Sampling rate, channels, length (none: not stated) and the codec's name."""
    with _opened_with_av(path) as (container, stream):
        codec = f"PCM_{head.flac.bits}" if head.flac else stream.codec_context.name
        return stream.rate, stream.channels, _stated_samples(container, stream, head), codec


def _decode_with_av(path: Path | str, head: Head) -> Decoded:
    """Decode with FFmpeg's libraries; what an encoder added to fill its last frame is cut off."""
    with _opened_with_av(path) as (container, stream):
        import av

        rate, stated = stream.rate, _stated_samples(container, stream, head)
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        blocks = [block.to_ndarray() for frame in container.decode(stream) for block in resampler.resample(frame)]
        if blocks:
            blocks += [block.to_ndarray() for block in resampler.resample(None)]
    if not blocks:
        raise SpoofkitError(f"{path}: holds no samples, expected speech; remove it from the list or fetch it again")
    channels_SC = np.concatenate(blocks, axis=1).T.astype(np.float32)[:stated]
    if stated is not None and channels_SC.shape[0] < stated:
        raise SpoofkitError(
            f"{path}: decodes to {channels_SC.shape[0]} samples, its header states {stated}; it is cut short or "
            "damaged, so fetch it again"
        )
    return Decoded(channels_SC, rate, "av")
