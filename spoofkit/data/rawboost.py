"""RawBoost (Tak et al., arXiv:2111.04433): channel and noise made from the waveform alone, in batches, on any device.

Three kinds, applied one after the other as the settings list them:
    convolutive   linear and non-linear convolutive noise: powers of the waveform, each through its own notch filters
    impulsive     impulsive, signal-dependent: single samples multiplied by random factors
    stationary    stationary, signal-independent: filtered Gaussian noise

Constants are those of the authors' published programs. Differences: filters have no delay at all (theirs shift the
waveform by one sample), the filters of a batch are designed and applied together by Fourier transforms, and each sample
becomes an impulse with a probability instead of exactly that share of them. The random numbers of a row are a function
of its seed (and, for noise, of the kind of device), whatever else is in the batch.

Shapes: B batch, S samples, F filters, N notches of a filter, K taps.
"""

from collections.abc import Sequence

import numpy as np
import torch

from spoofkit.data.acoustics import add_noise, fft_length, is_sample

RATE = 16_000  # Hz
N_POWERS = 5  # x, x^2, … x^5
N_NOTCHES = 5
NOTCH_CENTRE_HZ = (20.0, 8000.0)
NOTCH_WIDTH_HZ = (100.0, 1000.0)
NOTCH_TAPS = (10, 100)  # taps of one notch filter; even numbers are raised by one
POWER_GAIN_DB = (-20.0, -5.0)  # gain of x^2 and above, relative to 0 dB of x
MAX_IMPULSE_SHARE = 0.1
IMPULSE_GAIN = 2.0
SNR_DB = (10.0, 40.0)

HALF_TAPS = NOTCH_TAPS[1] // 2  # a filter's taps run from -HALF_TAPS to HALF_TAPS
DESIGN_LENGTH = 1024  # holds N_NOTCHES such filters convolved
assert N_NOTCHES * 2 * HALF_TAPS < DESIGN_LENGTH


def rawboost(
    wave_BS: torch.Tensor, n_samples_B: torch.Tensor, seeds: Sequence[int], kinds: Sequence[str]
) -> torch.Tensor:
    """Apply RawBoost to every row.

    Args:
        wave_BS: Waveforms, zero from `n_samples_B` on.
        n_samples_B: Their lengths.
        seeds: One number per row.
        kinds: Some of `convolutive`, `impulsive` and `stationary`, in the order in which they are applied.

    Returns:
        Tensor of shape (B, S): no sample is shifted; rows louder than full scale are scaled to it.
    """
    for kind in kinds:
        wave_BS = KINDS[kind](wave_BS, n_samples_B, seeds)
    return wave_BS


def convolutive_noise(wave_BS: torch.Tensor, n_samples_B: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Apply linear and non-linear convolutive noise (section 3.1): the sum of filtered powers, without its mean."""
    rngs = _generators(seeds, 1)
    gain_db_BF = np.stack([np.append(0.0, rng.uniform(*POWER_GAIN_DB, N_POWERS - 1)) for rng in rngs])
    taps_BFK = _notch_filters(rngs, gain_db_BF, wave_BS.device)
    n_fft = _length_for(wave_BS)
    spectrum_BW = torch.zeros(1, device=wave_BS.device)
    power_BS = torch.ones_like(wave_BS)
    for taps_BK in taps_BFK.unbind(dim=1):
        power_BS = power_BS * wave_BS
        spectrum_BW = spectrum_BW + torch.fft.rfft(power_BS, n_fft) * torch.fft.rfft(_around_zero(taps_BK, n_fft))
    is_sample_BS = is_sample(wave_BS, n_samples_B)
    out_BS = torch.fft.irfft(spectrum_BW, n_fft)[:, : wave_BS.shape[1]] * is_sample_BS
    mean_B1 = out_BS.sum(dim=1, keepdim=True) / n_samples_B[:, None]
    return _within_full_scale((out_BS - mean_B1) * is_sample_BS)


def impulsive_noise(wave_BS: torch.Tensor, n_samples_B: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Add impulsive, signal-dependent noise (section 3.2): up to a tenth of the samples change, by up to twice."""
    rngs = _generators(seeds, 2)
    share_B = torch.tensor([rng.uniform(0, MAX_IMPULSE_SHARE) for rng in rngs], device=wave_BS.device)
    uniform_3BS = torch.zeros(3, *wave_BS.shape, device=wave_BS.device)
    for row, (generator, n) in enumerate(zip(_on(wave_BS.device, rngs), n_samples_B.tolist(), strict=True)):
        uniform_3BS[:, row, :n] = torch.rand(3, n, generator=generator, device=wave_BS.device)
    factor_BS = (2 * uniform_3BS[1] - 1) * (2 * uniform_3BS[2] - 1)
    is_impulse_BS = uniform_3BS[0] < share_B[:, None]
    return _within_full_scale(wave_BS + is_impulse_BS * IMPULSE_GAIN * factor_BS * wave_BS)


def stationary_noise(wave_BS: torch.Tensor, n_samples_B: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Add stationary, signal-independent noise (section 3.3): Gaussian, through notch filters, at 10 to 40 dB."""
    rngs = _generators(seeds, 3)
    snr_db_B = torch.tensor([rng.uniform(*SNR_DB) for rng in rngs], device=wave_BS.device)
    taps_BFK = _notch_filters(rngs, np.zeros((len(rngs), 1)), wave_BS.device)
    noise_BS = torch.zeros_like(wave_BS)
    for row, (generator, n) in enumerate(zip(_on(wave_BS.device, rngs), n_samples_B.tolist(), strict=True)):
        noise_BS[row, :n] = torch.randn(n, generator=generator, device=wave_BS.device)
    n_fft = _length_for(wave_BS)
    filtered_BW = torch.fft.rfft(noise_BS, n_fft) * torch.fft.rfft(_around_zero(taps_BFK[:, 0], n_fft))
    coloured_BS = torch.fft.irfft(filtered_BW, n_fft)[:, : wave_BS.shape[1]]
    return add_noise(wave_BS, n_samples_B, coloured_BS, snr_db_B)


KINDS = {"convolutive": convolutive_noise, "impulsive": impulsive_noise, "stationary": stationary_noise}


def _generators(seeds: Sequence[int], number: int) -> list[np.random.Generator]:
    """Make one generator per row; `number` is that of the kind, so that no two kinds share random numbers."""
    return [np.random.default_rng((seed, number)) for seed in seeds]


def _on(device: torch.device, rngs: list[np.random.Generator]) -> list[torch.Generator]:
    """Make generators for long noise on the device."""
    return [torch.Generator(device).manual_seed(int(rng.integers(2**62))) for rng in rngs]


def _notch_filters(rngs: list[np.random.Generator], gain_db_BF: np.ndarray, device: torch.device) -> torch.Tensor:
    """Draw filters, each several notches in series, scaled to a largest gain; tap 0 first, then 1, 2, … -2, -1.

    A notch is a band-stop filter by the window method (Hamming), scaled to a gain of 1 at 0 Hz.

    Returns:
        Tensor of shape (B, F, DESIGN_LENGTH).
    """
    shape = (*gain_db_BF.shape[1:], N_NOTCHES)
    centre, width = (
        np.stack([rng.uniform(*bounds, shape) for rng in rngs]) for bounds in (NOTCH_CENTRE_HZ, NOTCH_WIDTH_HZ)
    )
    taps = np.stack([rng.integers(*NOTCH_TAPS, shape) for rng in rngs]) | 1
    edges = [np.clip(centre + sign * width / 2, 1e-3, RATE / 2 - 1e-3) / RATE for sign in (-1, 1)]
    low_BFN1, high_BFN1, taps_BFN1 = (torch.tensor(x, device=device)[..., None] for x in (*edges, taps))
    # float64: otherwise low edges of a millihertz are lost; these tensors are small.
    k_K = torch.arange(-HALF_TAPS, HALF_TAPS + 1, device=device, dtype=torch.float64)
    ideal_BFNK = (k_K == 0).double() - 2 * high_BFN1 * torch.sinc(2 * high_BFN1 * k_K)
    ideal_BFNK = ideal_BFNK + 2 * low_BFN1 * torch.sinc(2 * low_BFN1 * k_K)
    window_BFNK = 0.54 + 0.46 * torch.cos(2 * torch.pi * k_K / (taps_BFN1 - 1))
    notch_BFNK = ideal_BFNK * window_BFNK * (k_K.abs() <= (taps_BFN1 - 1) / 2)
    notch_BFNK = notch_BFNK / notch_BFNK.sum(dim=-1, keepdim=True)
    response_BFW = torch.fft.rfft(_around_zero(notch_BFNK, DESIGN_LENGTH, HALF_TAPS)).real.prod(dim=2)
    gain_BF1 = 10 ** (torch.tensor(gain_db_BF, device=device)[..., None] / 20)
    # The largest gain is searched below the last frequency, as scipy's freqz does for the authors.
    scaled_BFW = gain_BF1 * response_BFW / response_BFW[..., :-1].abs().amax(dim=-1, keepdim=True)
    taps_BFK: torch.Tensor = torch.fft.irfft(scaled_BFW.to(torch.complex128), DESIGN_LENGTH)
    return taps_BFK.float()


def _around_zero(taps_K: torch.Tensor, length: int, zero: int = 0) -> torch.Tensor:
    """Put taps into a longer, circular row whose first element is tap 0; `zero` is the present index of tap 0."""
    taps_K = taps_K.roll(-zero, dims=-1)
    n_after = (taps_K.shape[-1] + 1) // 2
    before_K = taps_K[..., n_after:]
    middle = taps_K.new_zeros(*taps_K.shape[:-1], length - taps_K.shape[-1])
    return torch.cat([taps_K[..., :n_after], middle, before_K], dim=-1)


def _length_for(wave_BS: torch.Tensor) -> int:
    # Filters reach as far before a sample as after it, so only half of one is needed beyond the end.
    return fft_length(max(wave_BS.shape[1] + DESIGN_LENGTH // 2, DESIGN_LENGTH))


def _within_full_scale(wave_BS: torch.Tensor) -> torch.Tensor:
    return wave_BS / wave_BS.abs().amax(dim=1, keepdim=True).clamp_min(1)
