"""Draw a marked recording: waveform, spectrogram, frame scores, regions. No score is computed here."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.localisation.known import Known
from spoofkit.localisation.regions import Frames, Marked, Rule
from spoofkit.terminal import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

FFT_SAMPLES, SHORTEST_HOP, N_ROWS, N_LEVELS = 512, 128, 96, 48
MOST_COLUMNS = 1600
RANGE_DB, SILENCE_DB = 80.0, -60.0  # range below the loudest; a quieter recording is not amplified to fill it
COLOURS = {"wave": "#35506b", "curve": "#0072b2", "raw": "#8c959f", "region": "#d55e00", "known": "#009e73"}


@dataclass(frozen=True)
class Curve:
    """The frame scores of a recording."""

    seconds_T: npt.NDArray[np.float64]
    """Where each frame is centred."""
    raw_T: Frames
    score_T: Frames
    """Smoothed scores; equal to `raw_T` without smoothing."""


def picture(
    name: str, wave_S: Frames, curve: Curve, regions: Sequence[Marked], rule: Rule, label: str, known: Known | None
) -> bytes:
    """Draw one recording as a PNG."""
    from matplotlib.figure import Figure

    seconds = wave_S.size / SAMPLE_RATE
    figure = Figure(figsize=(min(24.0, max(10.0, seconds / 3)), 6), layout="constrained")
    figure.suptitle(f"{visible(name)}\n{rule.words()}", fontsize=10, parse_math=False)
    lower = draw(figure, wave_S, curve, regions, rule, label, known)[-1]
    lower.legend(loc="upper right", fontsize=8)
    return as_png(figure, 110)


def draw(
    figure: "FigureBase",
    wave_S: Frames,
    curve: Curve,
    regions: Sequence[Marked],
    rule: Rule,
    label: str,
    known: Known | None,
) -> tuple["Axes", ...]:
    """Draw waveform, spectrogram, and frame scores with the threshold, below each other; return their axes.

    Marked regions are a shade, known ones a bar along the upper edge of each.
    """
    seconds = wave_S.size / SAMPLE_RATE
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=[2, 3, 2])
    low, high = envelope(wave_S, MOST_COLUMNS)
    upper.fill_between(np.linspace(0, seconds, low.size), low, high, color=COLOURS["wave"], linewidth=0.3)
    upper.set_ylabel("amplitude")
    middle.imshow(
        spectrogram(wave_S), aspect="auto", origin="lower", cmap="magma", extent=(0, seconds, 0, SAMPLE_RATE / 2)
    )
    middle.set_ylabel("frequency, Hz")
    if rule.smooth_seconds:
        lower.plot(curve.seconds_T, curve.raw_T, color=COLOURS["raw"], linewidth=0.5, label="as the model gave it")
    lower.plot(curve.seconds_T, curve.score_T, color=COLOURS["curve"], linewidth=1, label="frame score")
    fitted = "" if rule.is_fitted else ", not fitted"
    lower.axhline(rule.threshold, color=COLOURS["region"], linestyle="--", linewidth=1, label=f"threshold{fitted}")
    lower.set(xlabel="time, s", ylabel="score (low: " + label + ")", xlim=(0, seconds))
    for number, region in enumerate(regions):
        for axes in (upper, lower):
            span = axes.axvspan(
                region.start_seconds, region.end_seconds, color=COLOURS["region"], alpha=0.25, linewidth=0
            )
        span.set_label("_" if number else "marked")
        for edge in (region.start_seconds, region.end_seconds):
            middle.axvline(edge, color="white", linestyle="--", linewidth=0.8)
    for number, one in enumerate(known.regions if known else ()):
        for axes in (upper, middle, lower):
            span = axes.axvspan(one.start_seconds, one.end_seconds, 0.94, 1, color=COLOURS["known"], linewidth=0)
        span.set_label("_" if number else "known region")
    return upper, middle, lower


def as_png(figure: "Figure", dpi: int) -> bytes:
    """Return a figure as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes; the file's name and the page show them.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def spectrogram(wave_S: Frames) -> npt.NDArray[np.uint8]:
    """Return levels 0 to N_LEVELS - 1 over RANGE_DB, shape (N_ROWS, columns), lowest frequency first."""
    padded = np.pad(wave_S, (0, max(0, FFT_SAMPLES - wave_S.size)))
    hop = max(SHORTEST_HOP, -(-padded.size // MOST_COLUMNS))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(FFT_SAMPLES), axis=1)[:, 1:]) ** 2
    edges = np.arange(N_ROWS) * (FFT_SAMPLES // 2) // N_ROWS
    decibel = 10 * np.log10(np.maximum(np.maximum.reduceat(power, edges, axis=1), 1e-20))
    level = np.clip(1 + (decibel - max(float(decibel.max()), SILENCE_DB)) / RANGE_DB, 0, 1)
    levels: npt.NDArray[np.uint8] = np.rint(level.T * (N_LEVELS - 1)).astype(np.uint8)
    return levels


def envelope(wave_S: Frames, n_columns: int) -> tuple[Frames, Frames]:
    """Return the lowest and the highest sample of each of at most `n_columns` stretches of equal length."""
    edges = np.unique(np.linspace(0, wave_S.size, n_columns + 1).astype(np.int64)[:-1])
    return np.minimum.reduceat(wave_S, edges), np.maximum.reduceat(wave_S, edges)
