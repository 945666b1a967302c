"""Reverberation and background noise on batches of waveforms, on any device.

Shapes: B batch, S samples, K taps of a room impulse response. Rows are zero from `n_samples_B` on and stay so, keep
their length, and do not depend on each other.
"""

import scipy.fft
import torch


def is_sample(wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
    """Mark samples as True and padding as False; boolean tensor of shape (B, S)."""
    is_sample_BS: torch.Tensor = torch.arange(wave_BS.shape[1], device=wave_BS.device) < n_samples_B[:, None]
    return is_sample_BS


def reverberate(wave_BS: torch.Tensor, n_samples_B: torch.Tensor, rir_BK: torch.Tensor) -> torch.Tensor:
    """Convolve each row with its room impulse response, and restore its level.

    Args:
        wave_BS: Waveforms.
        n_samples_B: Their lengths.
        rir_BK: The responses from their direct path on, so that speech is not delayed.

    Returns:
        Tensor of shape (B, S); the reverberation after the end is cut off.
    """
    n_fft = fft_length(wave_BS.shape[1] + rir_BK.shape[1] - 1)
    wet_BS: torch.Tensor = torch.fft.irfft(torch.fft.rfft(wave_BS, n_fft) * torch.fft.rfft(rir_BK, n_fft), n_fft)
    wet_BS = wet_BS[:, : wave_BS.shape[1]] * is_sample(wave_BS, n_samples_B)
    return wet_BS * _ratio(_energy(wave_BS), _energy(wet_BS)).sqrt()[:, None]


def add_noise(
    wave_BS: torch.Tensor, n_samples_B: torch.Tensor, noise_BS: torch.Tensor, snr_db_B: torch.Tensor
) -> torch.Tensor:
    """Add noise at a signal-to-noise ratio whose powers are measured over the whole utterance.

    Args:
        wave_BS: Waveforms.
        n_samples_B: Their lengths.
        noise_BS: Noise at any level; nothing is added where a row of it, or the waveform, is silent.
        snr_db_B: Ratio of the powers, in dB.

    Returns:
        Tensor of shape (B, S).
    """
    noise_BS = noise_BS * is_sample(wave_BS, n_samples_B)
    gain_B = (_ratio(_energy(wave_BS), _energy(noise_BS)) * 10 ** (-snr_db_B / 10)).sqrt()
    return wave_BS + gain_B[:, None] * noise_BS


def fft_length(n_samples: int) -> int:
    """Return a length of at least `n_samples` whose Fourier transform is fast."""
    return int(scipy.fft.next_fast_len(n_samples, real=True))


def _energy(wave_BS: torch.Tensor) -> torch.Tensor:
    return wave_BS.square().sum(dim=1)


def _ratio(above_B: torch.Tensor, below_B: torch.Tensor) -> torch.Tensor:
    """Divide `above_B` by `below_B`; 0 where `below_B` is 0."""
    return torch.where(below_B > 0, above_B / below_B.clamp_min(torch.finfo(below_B.dtype).tiny), 0)
