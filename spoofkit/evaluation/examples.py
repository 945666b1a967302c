"""The worst errors of a system for the report page: which trials, their audio and their spectrograms.

The audio is read as a detector reads it (`Manifest.read_audio`) and embedded as 16-bit FLAC, which keeps every detail
that a detector could have used. If audio cannot be read, the example says why; that is not an error.
"""

import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import soundfile

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import KEYS, Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.page import data_address

LONGEST_SECONDS = 10.0
ALL_SECONDS = 120.0
"""Length of all examples together, which keeps a page below 8 MB; with many examples each is shorter."""
FFT_SAMPLES, HOP_SAMPLES = 512, 256  # 32 ms, 16 ms
RANGE_DB = 80.0  # below the loudest; what is softer is black
SILENCE_DB = -60.0  # 100 dB below a sine of full scale: not stretched to be seen
N_COLOURS = 128


@dataclass(frozen=True)
class Example:
    """One trial to look at and listen to."""

    utt_id: str
    key: str
    score: float
    attack: str
    codec: str
    speaker: str
    seconds: float | None
    """Length of the utterance; None if unknown."""
    shown_seconds: float
    """Length of the embedded beginning."""
    audio: str
    """`data:` address of a FLAC file; empty if the audio could not be read."""
    spectrogram: str
    """`data:` address of a PNG image."""
    missing: str
    """Why there is no audio; empty if there is."""


def worst_trials(trials: pl.DataFrame, n_examples: int) -> dict[str, list[dict[str, Any]]]:
    """Find the worst errors: the bona fide trials with the lowest and the spoofs with the highest scores.

    Args:
        trials: `utt_id`, `key`, `score` and what else a manifest has.
        n_examples: Largest number per class.

    Returns:
        Rows by class, the worst first; equal scores in the order of ids.
    """
    found = {}
    for key in KEYS:
        of_class = trials.lazy().filter(pl.col("key") == key)
        sign = 1 if key == "bonafide" else -1
        of_class = of_class.with_columns((sign * pl.col("score")).alias("_order")).sort("_order", "utt_id")
        found[key] = of_class.head(n_examples).drop("_order").collect().to_dicts()
    return found


def make_examples(trials: pl.DataFrame, manifest: Manifest | None, n_examples: int) -> dict[str, list[Example]]:
    """Collect the worst errors with their audio.

    Args:
        trials: As for `worst_trials`.
        manifest: Says where the audio is; None for a challenge's list, which does not.
        n_examples: Largest number per class; may be 0.
    """
    shown_seconds = min(LONGEST_SECONDS, ALL_SECONDS / max(1, 2 * n_examples))
    worst = worst_trials(trials, n_examples)
    return {key: [_example(row, manifest, shown_seconds) for row in rows] for key, rows in worst.items()}


def _example(row: Mapping[str, Any], manifest: Manifest | None, shown_seconds: float) -> Example:
    audio = spectrogram = missing = ""
    n_samples, n_shown = row.get("n_samples", UNKNOWN_LENGTH), round(shown_seconds * SAMPLE_RATE)
    wave_S = np.zeros(0, dtype=np.float32)
    if manifest is None:
        missing = "the list does not say where the audio is"
    else:
        try:
            needed = None if n_samples == UNKNOWN_LENGTH else min(n_samples, n_shown)
            wave_S = manifest.read_audio(row["path"], 0, needed)
        except SpoofkitError as error:
            missing = str(error)
    if not missing:
        n_samples = max(n_samples, wave_S.size)
        wave_S = wave_S[:n_shown]
        audio, spectrogram = data_address("audio/flac", flac(wave_S)), data_address("image/png", picture(wave_S))
    names = {name: row.get(name, "-") for name in ("attack", "codec", "speaker")}
    return Example(
        utt_id=row["utt_id"], key=row["key"], score=row["score"], **names,
        seconds=None if n_samples == UNKNOWN_LENGTH else n_samples / SAMPLE_RATE,
        shown_seconds=wave_S.size / SAMPLE_RATE, audio=audio, spectrogram=spectrogram, missing=missing,
    )  # fmt: skip


def flac(wave_S: npt.NDArray[np.float32]) -> bytes:
    """Encode float samples at 16 kHz as 16-bit FLAC; samples beyond full scale are clipped."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave_S, -1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def picture(wave_S: npt.NDArray[np.float32]) -> bytes:
    """Draw a spectrogram as a PNG image: 16 ms a pixel to the right, 0 to 8 kHz upwards, 80 dB from black to bright."""
    from PIL import Image

    padded = np.pad(wave_S, (0, max(0, FFT_SAMPLES - wave_S.size)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::HOP_SAMPLES]
    power = np.abs(np.fft.rfft(frames * np.hanning(FFT_SAMPLES), axis=1)) ** 2
    power = power[:, 1:].reshape(power.shape[0], -1, 2).mean(axis=2)  # 128 rows of 62.5 Hz are enough for a thumbnail
    decibel = 10 * np.log10(np.maximum(power, 1e-20))
    level = np.clip(1 + (decibel - max(decibel.max(), SILENCE_DB)) / RANGE_DB, 0, 1)
    image = Image.fromarray(np.rint(level.T[::-1] * (N_COLOURS - 1)).astype(np.uint8))
    image.putpalette(_palette())  # a third of true colour
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@functools.lru_cache(maxsize=1)
def _palette() -> bytes:
    from matplotlib import colormaps

    colours: bytes = np.rint(255 * colormaps["magma"](np.linspace(0, 1, N_COLOURS))[:, :3]).astype(np.uint8).tobytes()
    return colours
