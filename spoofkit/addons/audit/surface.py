"""Measures of an audio file that need no listening: length, silences, levels, band, and how it is stored.

The signal is measured as detectors get it, 16 kHz and mono; the rest is read from the header. None of this says whether
speech is genuine, so a list where it does has a fault that a detector will find: that silences do in ASVspoof 2019 LA
(15.1 % EER from the leading one alone) is Müller et al.'s "Speech is Silver, Silence is Golden", arXiv:2106.12914.
"""

from pathlib import Path

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE, probe, read_audio
from spoofkit.data.channels import DOWNMIXES
from spoofkit.data.decoders import open_recording
from spoofkit.data.packed import parse_address
from spoofkit.data.signal import FRAME_SAMPLES, sound_frames
from spoofkit.data.stored import AudioInfo

SPECTRUM_SAMPLES = 512  # 32 ms
BAND_ENERGY = 0.99
HIGH_BAND_HZ = 6_000.0
FLOOR_DB = -200.0  # for digital silence, which has no level
FLOAT_BITS = 24  # of float32's mantissa, sign included: all that lossy codecs decode to

NUMERIC = {
    "duration_s": "duration",
    "leading_silence_s": "leading silence",
    "trailing_silence_s": "trailing silence",
    "silence_share": "share of silence",
    "level_db": "level (RMS)",
    "peak_db": "peak",
    "dc_offset": "DC offset",
    "bandwidth_hz": "bandwidth (99 %)",
    "high_band_db": "energy above 6 kHz",
    "used_bits": "bits used",
    "bytes_per_second": "bytes per second",
}
"""Measures that are numbers, with their names in a table."""
CATEGORICAL = {
    "sample_rate": "sampling rate",
    "n_channels": "channels",
    "file_type": "file type",
    "encoding": "encoding",
}
"""Measures that are names."""


def measure(path: Path | str, downmix: str = DOWNMIXES[0]) -> dict[str, float | str]:
    """Measure one file; decoded once, or twice if it is not 16 kHz mono.

    Args:
        path: Any audio file, or an address of packed audio.
        downmix: How several channels become one: `spoofkit.data.channels.DOWNMIXES`.

    Returns:
        NUMERIC as numbers and CATEGORICAL as text. Seconds, Hz and bytes as the names say. `level_db` and `peak_db` are
        in dB relative to full scale; `dc_offset` is the absolute mean, full scale = 1; `bandwidth_hz` the frequency
        below which 99 % of the energy lies; `high_band_db` the energy above 6 kHz relative to all, in dB; `used_bits`
        see there; `file_type` is the ending of the file's name, `encoding` how samples are stored in it.

    Raises:
        SpoofkitError: the file cannot be decoded, or is empty.
    """
    wave_S, info = read_audio(path, downmix=downmix), probe(path)
    seconds = wave_S.size / SAMPLE_RATE
    return {
        "duration_s": seconds,
        **_silences(wave_S),
        **_levels(wave_S),
        **_band(wave_S),
        "used_bits": _stored_bits(path, wave_S, info),
        "bytes_per_second": info.n_bytes / seconds,
        "sample_rate": str(info.sample_rate),
        "n_channels": str(info.n_channels),
        "file_type": "pack" if parse_address(path) else Path(path).suffix.lower().removeprefix(".") or "-",
        "encoding": info.subtype,
    }


def used_bits(samples: np.ndarray) -> float:
    """Count the bits down to the lowest one set: 16 for 16-bit audio, 8 for 8-bit audio in a 16-bit file, at most 24.

    Args:
        samples: Floats of any shape, full scale = 1.

    >>> used_bits(np.array([0.5, -0.25])), used_bits(np.array([3 / 32768]))
    (3.0, 16.0)
    """
    scaled = np.asarray(samples * np.float64(1 << (FLOAT_BITS - 1)))
    whole = scaled.astype(np.int64)
    if not np.array_equal(scaled, whole):
        return FLOAT_BITS
    set_bits = int(np.bitwise_or.reduce(np.abs(whole), axis=None))
    return float(FLOAT_BITS + 1 - (set_bits & -set_bits).bit_length()) if set_bits else 0.0


def _silences(wave_S: np.ndarray) -> dict[str, float]:
    is_sound_T = sound_frames(wave_S)
    n_frames = is_sound_T.size
    first, last = (is_sound_T.argmax(), is_sound_T[::-1].argmax()) if is_sound_T.any() else (n_frames, n_frames)
    seconds = FRAME_SAMPLES / SAMPLE_RATE
    return {
        "leading_silence_s": float(first * seconds),
        "trailing_silence_s": float(last * seconds),
        "silence_share": float(1 - is_sound_T.mean()),
    }


def _levels(wave_S: np.ndarray) -> dict[str, float]:
    wave_S = wave_S.astype(np.float64)
    return {
        "level_db": _decibels(np.mean(wave_S**2)),
        "peak_db": _decibels(np.max(np.abs(wave_S)) ** 2),
        "dc_offset": float(abs(np.mean(wave_S))),
    }


def _band(wave_S: np.ndarray) -> dict[str, float]:
    """Measure the band on the mean of the power spectra of frames that overlap by half."""
    padded_S = np.pad(wave_S - wave_S.mean(), (0, max(0, SPECTRUM_SAMPLES - wave_S.size)))
    frames_TS = np.lib.stride_tricks.sliding_window_view(padded_S, SPECTRUM_SAMPLES)[:: SPECTRUM_SAMPLES // 2]
    power_F = np.mean(np.abs(np.fft.rfft(frames_TS * np.hanning(SPECTRUM_SAMPLES), axis=1)) ** 2, axis=0)
    frequency_F = np.fft.rfftfreq(SPECTRUM_SAMPLES, 1 / SAMPLE_RATE)
    total = power_F.sum()
    if total <= 0:
        return {"bandwidth_hz": 0.0, "high_band_db": FLOOR_DB}
    high = power_F[frequency_F >= HIGH_BAND_HZ].sum()
    return {
        "bandwidth_hz": float(np.interp(BAND_ENERGY, np.cumsum(power_F) / total, frequency_F)),
        "high_band_db": _decibels(high / total),
    }


def _decibels(power: float) -> float:
    return max(FLOOR_DB, float(10 * np.log10(power))) if power > 0 else FLOOR_DB


def _stored_bits(path: Path | str, downmixed_S: np.ndarray, info: AudioInfo) -> float:
    """Return `used_bits` of the samples as stored, which resampling or mixing has not rounded."""
    if (info.sample_rate, info.n_channels) == (SAMPLE_RATE, 1):
        return used_bits(downmixed_S)
    with open_recording(path) as stored:
        return max(map(used_bits, stored.blocks()))
