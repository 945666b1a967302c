"""A recording in memory, which is read as a file is: its channels, its sampling rate, its length are treated alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from spoofkit.data.stored import HIGHEST_RATE, LOWEST_RATE, AudioInfo, Stored, require_plausible
from spoofkit.errors import SpoofkitError

NAME = "wave"
"""What a recording in memory is called, in messages and results."""
LOUDEST = 100.0
"""Largest value of a float sample, 40 dB above full scale: beyond it the samples are integers that were not scaled."""
SHAPES = "(samples,) or (channels, samples)"


@dataclass(frozen=True, eq=False)
class Wave:
    """A recording in memory."""

    wave_CS: np.ndarray
    """float32, full scale 1."""
    sample_rate: int
    """Hz."""

    def __str__(self) -> str:
        return NAME


def make_wave(samples: Any, sample_rate: int) -> Wave:
    """Make a recording of samples in memory.

    Args:
        samples: Array or torch tensor of shape (samples,) or (channels, samples): floats with full scale 1, or int16 or
            int32, which are scaled as those of a file.
        sample_rate: Hz, a whole number.

    Raises:
        SpoofkitError: another shape, type, scale or rate.
    """
    rate: object = sample_rate  # of callers who check no types
    is_whole = isinstance(rate, Real) and float(rate).is_integer()
    if not is_whole or not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise SpoofkitError(
            f"{NAME}: found the sampling rate {sample_rate}, expected a whole number of Hz from {LOWEST_RATE} to "
            f"{HIGHEST_RATE}; give that of the samples"
        )
    try:
        array = np.asarray(samples.detach().cpu() if hasattr(samples, "detach") else samples)
    except (TypeError, ValueError) as error:  # of a torch type that numpy lacks, or of lists of several lengths
        raise SpoofkitError(f"{NAME}: is no array ({error}), expected float32 or int16 of shape {SHAPES}") from error
    if array.ndim not in (1, 2):
        raise SpoofkitError(f"{NAME}: found an array of shape {array.shape}, expected {SHAPES}; take one recording")
    wave_CS = np.atleast_2d(array)
    if wave_CS.shape[0] > max(1, wave_CS.shape[1]):
        raise SpoofkitError(
            f"{NAME}: found an array of shape {array.shape}, which would be {wave_CS.shape[0]:,} channels, expected "
            f"{SHAPES}; transpose it"
        )
    return Wave(_scaled(wave_CS), int(sample_rate))


def open_wave(wave: Wave) -> Stored:
    """Open a recording in memory.

    Raises:
        SpoofkitError: it is too long.
    """
    wave_SC = wave.wave_CS.T

    def read(first: int, size: int) -> Iterator[np.ndarray]:
        for start in range(first, wave_SC.shape[0], size):
            yield np.ascontiguousarray(wave_SC[start : start + size])  # as decoders give them: sums have an order

    n_samples, n_channels = wave_SC.shape
    info = AudioInfo(wave.sample_rate, n_channels, "FLOAT", 32, "memory", wave_SC.nbytes, n_samples)
    stored = Stored(str(wave), info, read)
    require_plausible(stored)
    return stored


def _scaled(wave_CS: np.ndarray) -> np.ndarray:
    """Return samples as float32 with full scale 1."""
    kind = wave_CS.dtype
    if kind in (np.int16, np.int32):
        scaled_CS: np.ndarray = np.divide(wave_CS, 2 ** (8 * kind.itemsize - 1), dtype=np.float32, casting="unsafe")
        return scaled_CS
    if kind.kind != "f":
        raise SpoofkitError(f"{NAME}: found samples of type {kind}, expected float32 or int16; convert them")
    require_scaled(NAME, float(np.abs(wave_CS).max(initial=0.0)))
    return wave_CS.astype(np.float32)


def require_scaled(where: str, peak: float) -> None:
    """Refuse float samples, of a file or in memory, that are integers which nobody scaled.

    Raises:
        SpoofkitError: the largest of them is beyond LOUDEST, and not infinite.
    """
    if LOUDEST < peak < np.inf:
        raise SpoofkitError(
            f"{where}: found float samples up to {peak:,.0f}, expected full scale 1; divide them by 32768, or store "
            "them as int16"
        )
