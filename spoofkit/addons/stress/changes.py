"""What happens to a waveform outside the lab, where codecs and rooms of `spoofkit.data` do not cover it already.

Waveforms are float32 at 16 kHz, shape (samples,), 1 = full scale. Nothing here draws, except from a given generator.
"""

import numpy as np
import soxr
import torch
from scipy.fft import irfft, next_fast_len
from scipy.signal import lfilter

from spoofkit.data.acoustics import add_noise, reverberate
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.augment import leading_silence

PCM_LEVELS = 32_768
LEVEL_SECONDS = 0.01
"""Time constant of the level that the compressor sees."""
COMPRESSED_BELOW_LOUDEST_DB, COMPRESSION_RATIO = 24.0, 4.0
LOWEST_PINK_HZ = 20.0


def at_level(wave_S: np.ndarray, gain_db: float) -> np.ndarray:
    """Change the level and store the result in 16 bits: what exceeds full scale is clipped, what is small rounded."""
    steps_S = np.rint(wave_S * (PCM_LEVELS * 10 ** (gain_db / 20)))
    return (np.clip(steps_S, -PCM_LEVELS, PCM_LEVELS - 1) / PCM_LEVELS).astype(np.float32)


def clip_loudest(wave_S: np.ndarray, share: float) -> np.ndarray:
    """Clip the loudest samples, a share of all, to the level of the loudest one that remains."""
    limit = np.quantile(np.abs(wave_S), 1 - share, method="lower")
    clipped_S: np.ndarray = np.clip(wave_S, -limit, limit).astype(np.float32)
    return clipped_S


def compress(wave_S: np.ndarray) -> np.ndarray:
    """Compress the dynamics 4 : 1 from 24 dB below the loudest level on, and restore the power of the whole.

    The level is the power, smoothed by one pole of 10 ms, so the gain falls and rises with this lag.
    """
    pole = np.exp(-1 / (LEVEL_SECONDS * SAMPLE_RATE))
    power_S = np.square(wave_S, dtype=np.float64)
    level_S = lfilter([1 - pole], [1, -pole], power_S)
    threshold = level_S.max(initial=0.0) * 10 ** (-COMPRESSED_BELOW_LOUDEST_DB / 10)
    if threshold == 0:
        return wave_S
    gain_S = (np.maximum(level_S, threshold) / threshold) ** ((1 / COMPRESSION_RATIO - 1) / 2)
    compressed_S = wave_S * gain_S
    restored_S: np.ndarray = compressed_S * np.sqrt(power_S.sum() / np.square(compressed_S).sum())
    return restored_S.astype(np.float32)


def through_rate(wave_S: np.ndarray, rate: int) -> np.ndarray:
    """Resample to another rate, in Hz, and back: the band ends at half of it, and no sample is shifted."""
    back_S = soxr.resample(soxr.resample(wave_S, SAMPLE_RATE, rate), rate, SAMPLE_RATE)[: wave_S.size]
    return np.pad(back_S, (0, wave_S.size - back_S.size)).astype(np.float32, copy=False)


def trim(wave_S: np.ndarray) -> np.ndarray:
    """Remove the silence at both ends, by the rule of `leading_silence`: a second is always left."""
    from_sound_S = wave_S[leading_silence(wave_S) :]
    return np.ascontiguousarray(from_sound_S[: from_sound_S.size - leading_silence(from_sound_S[::-1])])


def with_noise(wave_S: np.ndarray, noise_S: np.ndarray, snr_db: float) -> np.ndarray:
    """Add noise of the same length at a ratio of the powers over the whole utterance, as augmentation does."""
    wave_1S, noise_1S = torch.from_numpy(wave_S)[None], torch.from_numpy(noise_S)[None]
    noisy_1S = add_noise(wave_1S, torch.tensor([wave_S.size]), noise_1S, torch.tensor([snr_db]))
    noisy_S: np.ndarray = noisy_1S[0].numpy()
    return noisy_S


def in_room(wave_S: np.ndarray, rir_K: np.ndarray) -> np.ndarray:
    """Convolve with a room impulse response that begins with its direct path, and restore the power."""
    wet_1S = reverberate(
        torch.from_numpy(wave_S)[None], torch.tensor([wave_S.size]), torch.from_numpy(rir_K.astype(np.float32))[None]
    )
    wet_S: np.ndarray = wet_1S[0].numpy()
    return wet_S


def white_noise(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """Draw white Gaussian noise, float32."""
    return rng.standard_normal(n_samples, dtype=np.float32)


def pink_noise(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """Draw noise whose power falls by 3 dB per octave from 20 Hz on, float32; below it is flat."""
    n_fft = next_fast_len(n_samples, real=True)
    n_bins = n_fft // 2 + 1
    spectrum_F = rng.standard_normal(n_bins) + 1j * rng.standard_normal(n_bins)
    frequency_F = np.maximum(np.arange(n_bins) * SAMPLE_RATE / n_fft, LOWEST_PINK_HZ)
    noise_S: np.ndarray = irfft(spectrum_F / np.sqrt(frequency_F), n_fft)[:n_samples]
    return noise_S.astype(np.float32)


def exponential_room(rng: np.random.Generator, decay_seconds: float, direct_db: float) -> np.ndarray:
    """Draw a room impulse response: the direct path, then noise that decays by 60 dB in `decay_seconds`.

    Args:
        rng: Draws the noise.
        decay_seconds: Reverberation time, RT60.
        direct_db: Ratio of the energy of the direct path to that of the rest, in dB.

    Returns:
        float32 array of shape (taps,), as long as the reverberation time. It has no single early reflections, as a
        real room has.
    """
    time_K = np.arange(1, round(decay_seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail_K = rng.standard_normal(time_K.size) * 10 ** (-3 * time_K / decay_seconds)
    tail_K *= np.sqrt(10 ** (-direct_db / 10) / np.square(tail_K).sum())
    return np.concatenate([[1.0], tail_K]).astype(np.float32)
