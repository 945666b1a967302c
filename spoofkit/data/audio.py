"""Reading audio: any file libsndfile or FFmpeg can decode becomes 16 kHz mono float32, or is refused by name.

soundfile first; av for what libsndfile refuses (libsndfile 1.2.2 rejects a good part of the ASVspoof 2021 FLACs, and
knows no AAC). A file that cannot be decoded, is empty or holds NaN raises; nothing is replaced by silence. The address
of a packed utterance (`shards`) may stand wherever a path may, and is read without decoding.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from spoofkit.data.shards import parse_address, read_packed
from spoofkit.errors import SpoofkitError

SAMPLE_RATE = 16_000  # Hz; what every supported encoder was trained on
EXTENSIONS = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".au", ".sph", ".webm", ".mp4")


# TypeError: a name in .raw, which says nothing about rate and width.
UNKNOWN_TO_SOUNDFILE = (soundfile.LibsndfileError, TypeError)


@dataclass(frozen=True)
class AudioInfo:
    """Facts of a file's header."""

    n_samples: int
    """Length after conversion to 16 kHz."""
    sample_rate: int
    """Hz, as stored."""
    n_channels: int


def probe(path: Path | str) -> AudioInfo:
    """Read a file's header; files that libsndfile does not know are decoded to be measured.

    Raises:
        SpoofkitError: missing, unreadable or empty.
    """
    if (address := parse_address(path)) is not None:
        read_packed(address, n_samples=0)  # for its checks
        return AudioInfo(address.n_samples, SAMPLE_RATE, 1)
    _require_file(path)
    try:
        info = soundfile.info(str(path))
        rate, channels, n_samples = info.samplerate, info.channels, info.frames
    except UNKNOWN_TO_SOUNDFILE:
        wave, rate = _decode_with_av(path)
        channels, n_samples = wave.shape[1], wave.shape[0]
    if n_samples <= 0:
        raise SpoofkitError(f"{path}: holds no samples, expected speech; remove it from the list or fetch it again")
    return AudioInfo(_length_at_16k(n_samples, rate), rate, channels)


def read_audio(path: Path | str, start: int = 0, n_samples: int | None = None) -> np.ndarray:
    """Decode a file, or part of it, to 16 kHz mono.

    Args:
        path: Any audio file, or an address.
        start: First sample, counted at 16 kHz.
        n_samples: How many samples at 16 kHz; none reads to the end.

    Returns:
        float32 array of shape (samples,); several channels are averaged.

    Raises:
        SpoofkitError: missing, undecodable, empty, shorter than asked for, or not finite.
    """
    address = parse_address(path)
    wave_S = _decode(path, start, n_samples) if address is None else read_packed(address, start, n_samples)
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


def _decode(path: Path | str, start: int, n_samples: int | None) -> np.ndarray:
    """The part that was asked for, or as much of it as there is."""
    _require_file(path)
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            if rate == SAMPLE_RATE:
                # A partial read skips the decoding of what is not wanted.
                file.seek(min(start, file.frames))
                channels_SC = file.read(-1 if n_samples is None else n_samples, dtype="float32", always_2d=True)
                start = 0
            else:
                channels_SC = file.read(dtype="float32", always_2d=True)
    except UNKNOWN_TO_SOUNDFILE:
        channels_SC, rate = _decode_with_av(path)
    wave_S: np.ndarray = channels_SC.mean(axis=1, dtype=np.float32)
    if rate != SAMPLE_RATE:
        wave_S = soxr.resample(wave_S, rate, SAMPLE_RATE)
    return wave_S[start : None if n_samples is None else start + n_samples]


def _require_file(path: Path | str) -> None:
    if not Path(path).is_file():
        raise SpoofkitError(f"{path}: no such file; check the corpus folder and the list")


def _length_at_16k(n_samples: int, rate: int) -> int:
    # soxr returns round(n * 16000 / rate) samples; the integer form avoids rounding errors in long files.
    return (2 * n_samples * SAMPLE_RATE + rate) // (2 * rate)


def _decode_with_av(path: Path | str) -> tuple[np.ndarray, int]:
    """Decode with FFmpeg's libraries: (samples, channels) float32 and the sampling rate."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise SpoofkitError(f"{path}: has no audio stream, expected speech; remove it from the list")
            stream = container.streams.audio[0]
            rate = stream.rate
            resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
            blocks = [block.to_ndarray() for frame in container.decode(stream) for block in resampler.resample(frame)]
            blocks += [block.to_ndarray() for block in resampler.resample(None)]
    except av.FFmpegError as error:
        raise SpoofkitError(
            f"{path}: neither libsndfile nor FFmpeg can decode it ({error}); convert it to FLAC or fetch it again"
        ) from error
    if not blocks:
        raise SpoofkitError(f"{path}: holds no samples, expected speech; remove it from the list or fetch it again")
    return np.concatenate(blocks, axis=1).T.astype(np.float32), rate
