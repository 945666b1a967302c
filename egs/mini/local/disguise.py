"""Remove trivial cues: every file of both classes is processed alike, so that only the speech tells the class.

Human prompts and synthetic speech differ in bandwidth, level, silence, length, noise and compression, and a detector
learns that first. The steps are: high-pass, shorten pauses and trim the ends (`active_speech`); cut a piece that begins
and ends mid-speech, with a length drawn from the bona fide lengths (`cut`); low-pass, level, noise up to a drawn
signal-to-noise ratio, fades, and one of the codecs of the human recordings (`finish`).
"""

import itertools

import compress
import numpy as np
from scipy.signal import butter, sosfilt, sosfiltfilt

SAMPLE_RATE = 16_000  # Hz
HIGH_PASS_HZ = 60
LOW_PASS_HZ = 6_800  # the band of G.722, the narrowest of the human sources
FRAME = 160  # samples, 10 ms: the grid on which speech and pauses are told apart
SPEECH_RANGE_DB = 32  # a frame this far below the loud ones (95th percentile) is a pause
LONGEST_PAUSE = 20  # frames: what is longer is cut to this
MARGIN = 1_280  # samples, 80 ms: how far inside the active speech a piece begins and ends at least
LEVEL_DBFS = (-29.0, -23.0)
NOISE_SNR_DB = (30.0, 42.0)
FADE = 320  # samples, 20 ms
PEAK = 0.98

_HIGH_PASS = butter(4, HIGH_PASS_HZ, "highpass", fs=SAMPLE_RATE, output="sos")
_LOW_PASS = butter(8, LOW_PASS_HZ, "lowpass", fs=SAMPLE_RATE, output="sos")


def active_speech(wave_S: np.ndarray) -> np.ndarray:
    """High-pass a recording, trim its ends and shorten its pauses to LONGEST_PAUSE frames.

    Args:
        wave_S: Any recording at 16 kHz.

    Returns:
        Its speech; empty if there is none.
    """
    wave_S = sosfilt(_HIGH_PASS, wave_S)
    n_frames = len(wave_S) // FRAME
    if n_frames < 5:
        return np.zeros(0)
    frames_TF = wave_S[: n_frames * FRAME].reshape(n_frames, FRAME)
    level_T = _smoothed(10 * np.log10((frames_TF**2).mean(axis=1) + 1e-10))
    loud = np.percentile(level_T, 95)
    if loud < -60:
        return np.zeros(0)
    is_speech_T = level_T > loud - SPEECH_RANGE_DB
    kept = np.flatnonzero(_without_long_pauses(is_speech_T))
    return _joined(wave_S, kept)


def _smoothed(level_T: np.ndarray) -> np.ndarray:
    return np.convolve(np.pad(level_T, 1, "edge"), np.ones(3) / 3, "valid")


def _without_long_pauses(is_speech_T: np.ndarray) -> np.ndarray:
    """Mark the frames to keep: speech, and the first and last LONGEST_PAUSE / 2 frames of each inner pause."""
    speech = np.flatnonzero(is_speech_T)
    keep_T = np.zeros(len(is_speech_T), dtype=bool)
    if speech.size == 0:
        return keep_T
    keep_T[speech] = True
    half = LONGEST_PAUSE // 2
    for end, start in itertools.pairwise(speech):
        if start - end - 1 <= LONGEST_PAUSE:
            keep_T[end:start] = True
        else:
            keep_T[end : end + 1 + half] = True
            keep_T[start - half : start] = True
    return keep_T


def _joined(wave_S: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Join runs of kept frames with cross-fades of one frame, so that no click marks a shortened pause."""
    if kept.size == 0:
        return np.zeros(0)
    runs = np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)
    pieces = [wave_S[run[0] * FRAME : (run[-1] + 1) * FRAME].copy() for run in runs]
    ramp = np.linspace(0, 1, FRAME)
    for before, after in itertools.pairwise(pieces):
        after[:FRAME] = after[:FRAME] * ramp + before[-FRAME:] * (1 - ramp)
    return np.concatenate([*(piece[:-FRAME] for piece in pieces[:-1]), pieces[-1]])


def cut(active_S: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a piece of active speech that begins and ends mid-speech."""
    room = len(active_S) - 2 * MARGIN - n_samples
    if room < 0:
        raise ValueError(f"{len(active_S)} samples of speech are too few for a piece of {n_samples}")
    start = MARGIN + int(rng.integers(room + 1))
    return active_S[start : start + n_samples]


def finish(piece_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give a piece its final bandwidth, level, noise, fades and compression.

    Args:
        piece_S: From `cut`.
        rng: Draws level, noise and codec; the draws do not depend on the class.

    Returns:
        int16 array of the same length.
    """
    level_db, snr_db = rng.uniform(*LEVEL_DBFS), rng.uniform(*NOISE_SNR_DB)
    noise_S = rng.standard_normal(len(piece_S))
    is_g722 = rng.random() < 0.5
    wave_S = sosfiltfilt(_LOW_PASS, piece_S - piece_S.mean(), padlen=min(200, len(piece_S) - 1))
    rms = np.sqrt((wave_S**2).mean())
    if not rms > 1e-5:
        raise RuntimeError("a piece of speech is silent")
    wave_S *= 10 ** (level_db / 20) / rms
    noise_rms = 10 ** ((level_db - snr_db) / 20)
    wave_S += noise_S * np.sqrt(max(0.0, noise_rms**2 - _noise_floor(wave_S) ** 2))
    wave_S *= min(1.0, PEAK / np.abs(wave_S).max())
    ramp = np.sin(np.linspace(0, np.pi / 2, FADE)) ** 2
    wave_S[:FADE] *= ramp
    wave_S[-FADE:] *= ramp[::-1]
    wave_S = (compress.through_g722 if is_g722 else compress.through_vorbis)(wave_S)
    return np.round(np.clip(wave_S, -1, 1) * 32767).astype(np.int16)


def _noise_floor(wave_S: np.ndarray) -> float:
    """Compute the RMS of the quietest frames; a recording's own noise counts towards the noise that is added."""
    frames_TF = wave_S[: len(wave_S) // FRAME * FRAME].reshape(-1, FRAME)
    return float(np.percentile(np.sqrt((frames_TF**2).mean(axis=1)), 3))
