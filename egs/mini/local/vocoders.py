"""Copy-synthesis: analyse human speech into parameters and synthesize it again, in numpy and scipy.

An LPC vocoder, Griffin-Lim from a mel or a linear spectrogram, and two plain voice conversions that change pitch and
formants: a pulse-and-noise cepstral vocoder and PSOLA. Shape legend: `S` samples at 16 kHz, `T` frames, `K` frequency
bins, `M` mel bands. Each takes a random generator because phases and noise are drawn.
"""

import numpy as np
from scipy.signal import lfilter

SAMPLE_RATE = 16_000  # Hz
PITCH_HOP = 160  # samples, 10 ms
PITCH_WINDOW = 640  # samples, 40 ms
PITCH_RANGE_HZ = (65, 400)
VOICED_CORRELATION = 0.45


def pitch(wave_S: np.ndarray) -> np.ndarray:
    """Estimate the fundamental frequency every 10 ms by normalised autocorrelation.

    Returns:
        Hz per frame, 0 where unvoiced; shape (S // 160 + 1,).
    """
    frames_TS = _frames(wave_S, PITCH_WINDOW, PITCH_HOP)
    frames_TS = (frames_TS - frames_TS.mean(axis=1, keepdims=True)) * np.hanning(PITCH_WINDOW)
    shortest, longest = SAMPLE_RATE // PITCH_RANGE_HZ[1], SAMPLE_RATE // PITCH_RANGE_HZ[0]
    window_correlation = _autocorrelation(np.hanning(PITCH_WINDOW)[None])[0]
    correlation_TL = _autocorrelation(frames_TS) / window_correlation[None, :PITCH_WINDOW].clip(1e-3)
    correlation_TL /= correlation_TL[:, :1].clip(1e-9)
    # Slightly less weight for long lags, so that one period is not mistaken for two.
    lags = np.arange(shortest, longest)
    weighted_TL = correlation_TL[:, shortest:longest] * (1 - 0.12 * lags / longest)
    best_T = weighted_TL.argmax(axis=1)
    loud_T = (frames_TS**2).mean(axis=1) > 1e-3 * np.percentile((frames_TS**2).mean(axis=1), 95)
    is_voiced_T = (weighted_TL.max(axis=1) > VOICED_CORRELATION) & loud_T
    return np.where(is_voiced_T, SAMPLE_RATE / lags[best_T], 0.0)


def lpc_vocoder(wave_S: np.ndarray, rng: np.random.Generator, order: int = 18, hop: int = 160) -> np.ndarray:
    """Vocode by linear prediction every `hop` samples, excited by pulses if voiced and by noise if not."""
    window = 480
    frames_TS = _frames(wave_S, window, hop) * np.hanning(window)
    r_TP = _autocorrelation(frames_TS)[:, : order + 1]
    r_TP[:, 0] = r_TP[:, 0] * 1.0005 + 1e-7  # a noise floor keeps silent frames solvable
    lag_PP = np.abs(np.subtract.outer(np.arange(order), np.arange(order)))
    a_TP = np.linalg.solve(r_TP[:, lag_PP], -r_TP[:, 1:, None])[:, :, 0]
    power_T = (r_TP[:, 0] + (a_TP * r_TP[:, 1:]).sum(axis=1)).clip(0) / (np.hanning(window) ** 2).sum()
    excitation_S = _excitation(_median3(pitch(wave_S)), len(wave_S), rng)
    out_S, state = np.zeros(len(wave_S)), np.zeros(order)
    for t in range(-(-len(wave_S) // hop)):
        part = slice(t * hop, min((t + 1) * hop, len(wave_S)))
        frame = min(t, len(a_TP) - 1)
        out_S[part], state = lfilter([np.sqrt(power_T[frame])], [1.0, *a_TP[frame]], excitation_S[part], zi=state)
    return out_S


def _excitation(pitch_T: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Make a unit-power excitation: pulses in voiced frames, white noise in unvoiced ones."""
    pitch_S = np.repeat(pitch_T, PITCH_HOP)[:n_samples]
    pitch_S = np.pad(pitch_S, (0, n_samples - len(pitch_S)), "edge")
    phase_S = np.cumsum(pitch_S / SAMPLE_RATE)
    is_pulse_S = np.diff(np.floor(phase_S), prepend=0) > 0
    noise_S = rng.standard_normal(n_samples)
    pulses_S = is_pulse_S * np.sqrt(SAMPLE_RATE / pitch_S.clip(PITCH_RANGE_HZ[0]))
    return np.where(pitch_S > 0, pulses_S + 0.05 * noise_S, noise_S)


def mel_griffin_lim(
    wave_S: np.ndarray, rng: np.random.Generator, n_fft: int, hop: int, n_mels: int, n_iterations: int
) -> np.ndarray:
    """Invert a mel spectrogram: spread the bands over the bins, find the phases by Griffin-Lim."""
    magnitude_TK = np.abs(_stft(wave_S, n_fft, hop))
    filters_MK = mel_filters(n_fft, n_mels)
    mel_TM = magnitude_TK @ filters_MK.T
    spread_TK = mel_TM @ np.linalg.pinv(filters_MK).T
    return griffin_lim(spread_TK.clip(0), len(wave_S), n_fft, hop, n_iterations, rng)


def mel_own_phases(wave_S: np.ndarray, rng: np.random.Generator, n_fft: int, hop: int, n_mels: int) -> np.ndarray:
    """Invert a mel spectrogram with the phases it was taken from, which a neural vocoder can only approach."""
    spectrum_TK = _stft(wave_S, n_fft, hop)
    filters_MK = mel_filters(n_fft, n_mels)
    spread_TK = (np.abs(spectrum_TK) @ filters_MK.T @ np.linalg.pinv(filters_MK).T).clip(0)
    return _istft(spread_TK * np.exp(1j * np.angle(spectrum_TK)), len(wave_S), n_fft, hop)


def linear_griffin_lim(
    wave_S: np.ndarray, rng: np.random.Generator, n_fft: int, hop: int, n_iterations: int
) -> np.ndarray:
    """Keep the magnitudes of a short-time spectrum and replace its phases by Griffin-Lim's."""
    magnitude_TK = np.abs(_stft(wave_S, n_fft, hop))
    return griffin_lim(magnitude_TK, len(wave_S), n_fft, hop, n_iterations, rng)


def griffin_lim(
    magnitude_TK: np.ndarray, n_samples: int, n_fft: int, hop: int, n_iterations: int, rng: np.random.Generator
) -> np.ndarray:
    """Find phases by fast Griffin-Lim (Perraudin et al., 2013; momentum 0.99) from random ones."""
    phase_TK = np.exp(2j * np.pi * rng.random(magnitude_TK.shape))
    previous_TK = np.zeros_like(phase_TK)
    for _ in range(n_iterations):
        rebuilt_TK = _stft(_istft(magnitude_TK * phase_TK, n_samples, n_fft, hop), n_fft, hop)
        accelerated_TK = rebuilt_TK + 0.99 * (rebuilt_TK - previous_TK)
        previous_TK = rebuilt_TK
        phase_TK = accelerated_TK / np.abs(accelerated_TK).clip(1e-9)
    return _istft(magnitude_TK * phase_TK, n_samples, n_fft, hop)


def mel_filters(n_fft: int, n_mels: int) -> np.ndarray:
    """Make triangular filters of equal width in mel (2595 log10(1 + f/700)), from 0 Hz to 8 kHz; shape (M, K)."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top, n_mels + 2) / 2595) - 1)
    bins_hz = np.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1)
    # A filter narrower than a bin would be empty and its band lost.
    width_hz = np.maximum(np.diff(edges_hz), SAMPLE_RATE / n_fft)
    rising = 1 - (edges_hz[1:-1, None] - bins_hz) / width_hz[:-1, None]
    falling = 1 - (bins_hz - edges_hz[1:-1, None]) / width_hz[1:, None]
    return np.where(bins_hz <= edges_hz[1:-1, None], rising, falling).clip(0)


def convert_voice(
    wave_S: np.ndarray, rng: np.random.Generator, pitch_factor: float, formant_factor: float, order: int = 44
) -> np.ndarray:
    """Change pitch and formants with a cepstral vocoder: minimum-phase pulses below, noise above and where unvoiced.

    Args:
        wave_S: Human speech.
        rng: Draws the noise.
        pitch_factor: New pitch over old.
        formant_factor: New formant frequencies over old.
        order: Cepstral coefficients that make up the spectral envelope.
    """
    n_fft, hop = 1024, 80
    window = np.hanning(400)
    power_TK = np.abs(np.fft.rfft(_frames(wave_S, 400, hop) * window, n_fft)) ** 2 / (window**2).sum()
    log_TK = 0.5 * np.log(power_TK + 1e-9)
    bins = np.arange(n_fft // 2 + 1)
    source_bins = (bins / formant_factor).clip(0, n_fft // 2)
    below = np.floor(source_bins).astype(int).clip(0, n_fft // 2 - 1)
    fraction = source_bins - below
    warped_TK = log_TK[:, below] * (1 - fraction) + log_TK[:, below + 1] * fraction
    cepstrum_TQ = np.fft.irfft(warped_TK, n_fft)
    cepstrum_TQ[:, 0] += 0.58 / 2  # mean of log |noise|² is 0.58 below the log of its mean
    minimum_TQ = np.zeros_like(cepstrum_TQ)
    minimum_TQ[:, 0] = cepstrum_TQ[:, 0]
    minimum_TQ[:, 1:order] = 2 * cepstrum_TQ[:, 1:order]
    envelope_TK = np.exp(np.fft.rfft(minimum_TQ, n_fft))

    pitch_T = _median3(pitch(wave_S)) * pitch_factor
    pitch_S = np.pad(np.repeat(pitch_T, PITCH_HOP), (0, PITCH_HOP), "edge")[: len(wave_S)]
    is_noise_K = 1 / (1 + np.exp(-(bins * SAMPLE_RATE / n_fft - 4_000) / 400))
    pulses = np.flatnonzero(np.diff(np.floor(np.cumsum(pitch_S / SAMPLE_RATE)), prepend=0) > 0)
    out_S = np.zeros(len(wave_S) + n_fft)
    if pulses.size:
        frame_P = (pulses // hop).clip(0, len(envelope_TK) - 1)
        spectra_PK = envelope_TK[frame_P] * np.sqrt(1 - is_noise_K)
        pieces_PS = np.fft.irfft(spectra_PK, n_fft) * np.sqrt(SAMPLE_RATE / pitch_S[pulses])[:, None]
        for start, piece_S in zip(pulses, pieces_PS, strict=True):
            out_S[start : start + n_fft] += piece_S
    out_S = out_S[: len(wave_S)]
    # Noise: shaped frame by frame; voiced frames take only its upper band.
    is_voiced_T = pitch_S[(np.arange(len(envelope_TK)) * hop).clip(0, len(pitch_S) - 1)] > 0
    share_TK = np.where(is_voiced_T[:, None], np.sqrt(is_noise_K), 1.0)
    noise_TS = _frames(rng.standard_normal(len(wave_S)), 160, hop) * np.hanning(160)
    shaped_TS = np.fft.irfft(np.fft.rfft(noise_TS, n_fft) * envelope_TK * share_TK, n_fft)
    noise_S = np.zeros(len(wave_S) + n_fft + 160)
    for t, piece_S in enumerate(shaped_TS):
        noise_S[t * hop : t * hop + n_fft] += piece_S
    return out_S + noise_S[80 : 80 + len(wave_S)] / np.sqrt(0.75)  # two Hann windows overlap: their squares sum to 0.75


def psola(wave_S: np.ndarray, rng: np.random.Generator, pitch_factor: float, formant_factor: float) -> np.ndarray:
    """Change pitch and formants by overlapping pitch periods at other distances (TD-PSOLA), each resampled.

    Args:
        wave_S: Human speech.
        rng: Draws the distances where speech is unvoiced, so that they do not ring.
        pitch_factor: New pitch over old.
        formant_factor: New formant frequencies over old.
    """
    pitch_T = _median3(pitch(wave_S))
    padded_S = np.pad(wave_S, PITCH_WINDOW)
    marks = _pitch_marks(wave_S, pitch_T)
    out_S = np.zeros(len(wave_S) + 2 * PITCH_WINDOW)
    weight_S = np.full_like(out_S, 1e-3)
    place = 0.0
    while place < len(wave_S):
        mark = marks[np.abs(marks - place).argmin()]
        pitch_hz = pitch_T[int(mark) // PITCH_HOP]
        period = SAMPLE_RATE / pitch_hz if pitch_hz else PITCH_HOP / 2
        half = int(period)
        offsets = np.arange(-half, half + 1)
        source = (PITCH_WINDOW + mark + offsets * formant_factor).clip(0, len(padded_S) - 1)
        window = 0.5 + 0.5 * np.cos(np.pi * offsets / (half + 1))
        target = int(place) + PITCH_WINDOW + offsets
        out_S[target] += window * np.interp(source, np.arange(len(padded_S)), padded_S)
        weight_S[target] += window
        place += period / pitch_factor if pitch_hz else period * rng.uniform(0.8, 1.2)
    return (out_S / weight_S.clip(0.5))[PITCH_WINDOW : PITCH_WINDOW + len(wave_S)]


def _pitch_marks(wave_S: np.ndarray, pitch_T: np.ndarray) -> np.ndarray:
    """Find the highest sample of each pitch period; where unvoiced, a mark every 5 ms."""
    marks, place = [0], 0.0
    while place < len(wave_S) - 1:
        pitch_hz = pitch_T[int(place) // PITCH_HOP]
        period = SAMPLE_RATE / pitch_hz if pitch_hz else PITCH_HOP / 2
        place += period
        if pitch_hz:
            start = max(0, int(place - 0.2 * period))
            around_S = wave_S[start : int(place + 0.2 * period) + 1]
            if around_S.size:
                place = max(start + int(around_S.argmax()), marks[-1] + 1)
        marks.append(int(min(place, len(wave_S) - 1)))
    return np.array(marks)


def _median3(values_T: np.ndarray) -> np.ndarray:
    padded = np.pad(values_T, 1, "edge")
    return np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)


def _frames(wave_S: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Cut into frames, with frame t centred on sample t * hop; shape (S // hop + 1, window)."""
    padded_S = np.pad(wave_S, window // 2)
    starts = np.arange(len(wave_S) // hop + 1) * hop
    return np.lib.stride_tricks.sliding_window_view(padded_S, window)[starts]


def _autocorrelation(frames_TS: np.ndarray) -> np.ndarray:
    n = frames_TS.shape[1]
    return np.fft.irfft(np.abs(np.fft.rfft(frames_TS, 2 * n)) ** 2)[:, :n]


def _stft(wave_S: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    return np.fft.rfft(_frames(wave_S, n_fft, hop) * _hann(n_fft))


def _istft(spectrum_TK: np.ndarray, n_samples: int, n_fft: int, hop: int) -> np.ndarray:
    pieces_TS = np.fft.irfft(spectrum_TK, n_fft) * _hann(n_fft)
    n_frames, parts = len(pieces_TS), n_fft // hop
    # Overlap-add without a Python loop over frames: one shifted sum for each hop-long part of the window.
    sum_TH = np.zeros((n_frames + parts, hop))
    weight_TH = np.zeros((n_frames + parts, hop))
    square = _hann(n_fft) ** 2
    for part in range(parts):
        inside = slice(part * hop, (part + 1) * hop)
        sum_TH[part : part + n_frames] += pieces_TS[:, inside]
        weight_TH[part : part + n_frames] += square[inside]
    wave_S = (sum_TH / weight_TH.clip(1e-3)).ravel()[n_fft // 2 : n_fft // 2 + n_samples]
    return np.pad(wave_S, (0, n_samples - len(wave_S)))


def _hann(n: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
