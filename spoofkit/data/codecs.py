"""Speech and music codecs as augmentation: encoded and decoded in memory, without shifting samples.

G.711's two laws are numpy; GSM 06.10 comes with libsndfile, the others with FFmpeg, as far as its build has them.
Coding delays a waveform by some hundred samples. The delay is measured once for each codec and rate, on a fixed noise,
and removed, so that frame targets stay valid.
"""

import io
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import soundfile
import soxr

from spoofkit.errors import SpoofkitError

RATE = 16_000  # Hz
TELEPHONE_RATE = 8_000
# FFmpeg's encoder, decoder, sampling rate, and the bit rates that are drawn from.
FFMPEG = {
    "mp3": ("libmp3lame", "mp3float", 16_000, (16_000, 24_000, 32_000, 64_000)),
    "aac": ("aac", "aac", 16_000, (16_000, 24_000, 32_000, 64_000)),
    "opus": ("libopus", "libopus", 16_000, (8_000, 12_000, 16_000, 32_000)),
    "amr_nb": ("libopencore_amrnb", "libopencore_amrnb", 8_000, (4_750, 6_700, 7_950, 12_200)),
    "g722": ("g722", "g722", 16_000, (64_000,)),
}
OTHERS = ("mulaw", "mulaw_16k", "alaw", "gsm")
NAMES = (*FFMPEG, *OTHERS)
LONGEST_DELAY = 4_096  # samples; MP3's, the longest of these, is about 1,100
PROBE_SAMPLES = 16_000


def apply_codec(wave_S: np.ndarray, name: str, choice: float = 0.0) -> np.ndarray:
    """Encode a waveform and decode it again.

    Args:
        wave_S: float32, 16 kHz; louder than full scale is scaled down to it first.
        name: One of NAMES.
        choice: Chooses the bit rate where a codec has several: from 0, the first, to just below 1, the last.

    Returns:
        float32 array of the same length, not delayed.

    Raises:
        SpoofkitError: this build of FFmpeg lacks the codec.
    """
    rate = bit_rate(name, choice)
    peak = float(np.abs(wave_S).max(initial=0.0))
    wave_S = wave_S / np.float32(max(1.0, peak))
    return _aligned(wave_S, name, rate, _delay(name, rate))


def bit_rate(name: str, choice: float) -> int:
    """Return the bit rate, in bit/s, that `choice` selects."""
    rates = FFMPEG[name][3] if name in FFMPEG else (0,)
    return rates[int(choice * len(rates))]


def bit_rate_choice(name: str, rate: int) -> float:
    """Return the lowest choice for which `bit_rate` gives a rate of the codec, in bit/s.

    >>> bit_rate("opus", bit_rate_choice("opus", 12_000))
    12000
    """
    rates = FFMPEG[name][3]
    return rates.index(rate) / len(rates)


def require_codec(name: str, setting: str = "augment.codecs") -> None:
    """Raise SpoofkitError, which names the `setting`, if this machine cannot encode and decode `name`."""
    if name not in FFMPEG:
        return
    try:
        import av
    except ImportError as error:
        raise SpoofkitError(
            f"{setting}: {name} needs the package av, which is not installed; run `pip install av` or leave it out"
        ) from error
    encoder, decoder, _, _ = FFMPEG[name]
    try:
        av.CodecContext.create(encoder, "w")
        av.CodecContext.create(decoder, "r")
    except ValueError as error:  # PyAV's UnknownCodecError
        raise SpoofkitError(
            f"{setting}: the FFmpeg of this machine lacks {name} ({error}), expected {encoder} and {decoder}; "
            f"leave {name} out, or install PyAV's wheel from PyPI"
        ) from error


def _aligned(wave_S: np.ndarray, name: str, rate: int, delay: int) -> np.ndarray:
    """Return the coded waveform, `delay` samples earlier, with the original length."""
    # When the input ends, its last samples are still inside the encoder.
    coded_S = _there_and_back(name, rate)(np.pad(wave_S, (0, LONGEST_DELAY)))[delay:]
    short = max(0, wave_S.size - coded_S.size)
    return np.pad(coded_S[: wave_S.size], (0, short)).astype(np.float32, copy=False)


@cache
def _delay(name: str, rate: int) -> int:
    """Measure a codec's delay in samples, from the cross-correlation with its input."""
    rng = np.random.default_rng(0)
    noise_S = 0.1 * soxr.resample(rng.standard_normal(PROBE_SAMPLES // 8), RATE // 8, RATE).astype(np.float32)
    coded_S = _there_and_back(name, rate)(np.pad(noise_S, (0, LONGEST_DELAY)))
    n_fft = 2 * (PROBE_SAMPLES + LONGEST_DELAY)
    likeness = np.fft.irfft(np.fft.rfft(coded_S, n_fft) * np.fft.rfft(noise_S, n_fft).conj(), n_fft)
    return int(np.argmax(likeness[:LONGEST_DELAY]))


def _there_and_back(name: str, rate: int) -> Callable[[np.ndarray], np.ndarray]:
    if name in FFMPEG:
        encoder, decoder, sampling_rate, _ = FFMPEG[name]
        coder = partial(_ffmpeg, encoder=encoder, decoder=decoder, sampling_rate=sampling_rate, rate=rate)
        return partial(_at_rate, sampling_rate, coder)
    rate_there = RATE if name == "mulaw_16k" else TELEPHONE_RATE
    law = name.removesuffix("_16k")
    return partial(_at_rate, rate_there, _gsm if name == "gsm" else partial(_quantised, _g711_levels(law)))


def _at_rate(sampling_rate: int, coder: Callable[[np.ndarray], np.ndarray], wave_S: np.ndarray) -> np.ndarray:
    if sampling_rate == RATE:
        return coder(wave_S)
    # soxr's filters have no delay.
    coded_S: np.ndarray = soxr.resample(coder(soxr.resample(wave_S, RATE, sampling_rate)), sampling_rate, RATE)
    return coded_S


def _quantised(levels: np.ndarray, wave_S: np.ndarray) -> np.ndarray:
    """Round each sample to the nearest level."""
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, wave_S)
    return levels[nearest].astype(np.float32)


@cache
def _g711_levels(law: str) -> np.ndarray:
    """Return the 255 or 256 values of 8-bit G.711 (ITU-T G.711, tables 1 and 2), sorted, 1 = full scale."""
    segment, step = np.meshgrid(np.arange(8), np.arange(16), indexing="ij")
    if law == "mulaw":
        magnitude = ((8 * step + 132) << segment) - 132
    else:
        magnitude = np.where(segment == 0, 16 * step + 8, (16 * step + 264) << np.maximum(segment - 1, 0))
    return np.unique(np.concatenate([-magnitude.ravel(), magnitude.ravel()])) / 32_768


def _gsm(wave_S: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, wave_S, TELEPHONE_RATE, format="WAV", subtype="GSM610")
    file.seek(0)
    coded_S: np.ndarray = soundfile.read(file, dtype="float32")[0]
    return coded_S


def _ffmpeg(wave_S: np.ndarray, encoder: str, decoder: str, sampling_rate: int, rate: int) -> np.ndarray:
    """Encode and decode without a container, which would hide the delay."""
    import av

    out: Any = av.CodecContext.create(encoder, "w")
    out.sample_rate, out.bit_rate = sampling_rate, rate
    out.layout = "mono"
    out.format = out.codec.audio_formats[0].name
    pcm_1S = np.rint(wave_S * 32_767).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(pcm_1S, format="s16", layout="mono")
    frame.sample_rate, frame.pts = sampling_rate, 0
    packets = [*out.encode(frame), *out.encode(None)]
    back: Any = av.CodecContext.create(decoder, "r")
    back.sample_rate, back.layout = sampling_rate, "mono"
    if out.extradata:
        back.extradata = out.extradata
    frames: list[Any] = [found for packet in (*packets, None) for found in back.decode(packet)]
    blocks = [_as_float(found.to_ndarray()) for found in frames]
    decoded_S = np.concatenate(blocks)
    if frames[0].sample_rate == sampling_rate:
        return decoded_S
    resampled_S: np.ndarray = soxr.resample(decoded_S, frames[0].sample_rate, sampling_rate)  # Opus decodes at 48 kHz
    return resampled_S


def _as_float(block: np.ndarray) -> np.ndarray:
    """Convert one mono block of a decoder to float32, 1 = full scale."""
    wave_S = block.reshape(-1)
    return wave_S / np.float32(32_768) if wave_S.dtype == np.int16 else wave_S.astype(np.float32)
