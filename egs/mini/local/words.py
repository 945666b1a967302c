"""Find stretches of speech as long as a word, between two dips of the level. No recognition: a stretch may be half a
word, or two.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

from spoofkit.data.audio import SAMPLE_RATE

Samples = npt.NDArray[np.float32]

HOP, WINDOW = SAMPLE_RATE // 100, SAMPLE_RATE // 25  # the level every 10 ms, over 40 ms
DIP_DB = 6.0
"""How far the level falls between two louder places."""
SPEECH_DB = 25.0
"""Speech is at most this far below the loud parts of its recording (the 95th percentile of the level)."""
SPEECH_SHARE = 0.8
"""Least share of a stretch that is speech."""
SHORTEST, LONGEST = round(0.3 * SAMPLE_RATE), round(0.7 * SAMPLE_RATE)


def level_db(wave_S: Samples) -> npt.NDArray[np.float64]:
    """Return the level around every HOP-th sample, in dB of full scale, shape (samples // HOP + 1,)."""
    power = np.pad(np.square(wave_S, dtype=np.float64), WINDOW // 2)
    total = np.append(0, np.cumsum(power))
    start_T = HOP * np.arange(wave_S.size // HOP + 1)
    decibel: npt.NDArray[np.float64] = 10 * np.log10((total[start_T + WINDOW] - total[start_T]) / WINDOW + 1e-10)
    return decibel


def find_words(wave_S: Samples) -> list[tuple[int, int]]:
    """Return every stretch of speech of SHORTEST to LONGEST samples from one dip to another, half-open."""
    dips, share = _dips_and_share(wave_S)
    pairs = [(start, end) for start in dips for end in dips if SHORTEST <= end - start <= LONGEST]
    return [pair for pair in pairs if share(*pair) >= SPEECH_SHARE]


def find_places(wave_S: Samples, n_samples: int, margin: int = 0) -> list[int]:
    """Return every dip at which a stretch of speech of this length begins.

    Args:
        wave_S: The recording.
        n_samples: Length of the stretch.
        margin: Fewest samples before and after it.
    """
    dips, share = _dips_and_share(wave_S)
    starts = [dip for dip in dips if margin <= dip <= wave_S.size - n_samples - margin]
    return [start for start in starts if share(start, start + n_samples) >= SPEECH_SHARE]


def _dips_and_share(wave_S: Samples) -> tuple[list[int], Callable[[int, int], float]]:
    """Return the samples at which the level dips, and a function for the share of a stretch that is speech."""
    level_T = level_db(wave_S)
    is_speech_T = level_T > np.percentile(level_T, 95) - SPEECH_DB
    dips, _ = find_peaks(-level_T, prominence=DIP_DB)
    return [HOP * int(dip) for dip in dips], lambda start, end: float(is_speech_T[start // HOP : end // HOP].mean())
