"""The track of a recording on a page: waveform, spectrogram and scores over time, as SVG and PNG.

`track.html.jinja` places it, `track.css.jinja` styles it. No score is computed here.
"""

import io
from dataclasses import dataclass

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.localisation.picture import MOST_COLUMNS, N_LEVELS, Curve, envelope, spectrogram
from spoofkit.localisation.regions import Frames
from spoofkit.page import data_address

PIXELS_A_SECOND, MOST_PIXELS = 24, 6000  # a longer recording than fits the screen is scrolled


@dataclass(frozen=True)
class Track:
    """What is drawn of a recording."""

    spectrogram: str
    """Address of the picture."""
    wave: str
    """SVG path in a box of 1000 × 100."""
    curve: str
    """The same of the scores; empty: there are none over time."""
    line_y: float | None
    """Where the dashed line lies, in percent from above; None: there is none."""
    top: float
    bottom: float
    """Scores at the upper and the lower edge of the curve's box."""
    ticks: tuple[tuple[float, str], ...]
    """Position in percent from the left, and text, of each tick."""
    pixels: int
    """Width below which it is scrolled, in pixels."""

    def size(self) -> int:
        """Return the bytes on the page, but for its frame."""
        return len(self.spectrogram) + len(self.wave) + len(self.curve)


def make_track(wave_S: Frames, curve: Curve | None, line: float | None) -> Track:
    """Draw a recording.

    Args:
        wave_S: The whole recording, 16 kHz.
        curve: Its scores over time; None: there are none.
        line: Score at which a dashed line is drawn, such as a threshold; None: nowhere.
    """
    seconds = wave_S.size / SAMPLE_RATE
    bottom, top = (0.0, 1.0) if curve is None else score_range(curve.score_T, line)
    return Track(
        spectrogram=data_address("image/png", spectrogram_png(wave_S)),
        wave=wave_path(wave_S),
        curve="" if curve is None else curve_path(curve, seconds, bottom, top),
        line_y=None if line is None else 100 * (top - line) / (top - bottom),
        top=top,
        bottom=bottom,
        ticks=time_ticks(seconds),
        pixels=min(MOST_PIXELS, round(PIXELS_A_SECOND * seconds)),
    )


def spectrogram_png(wave_S: Frames) -> bytes:
    """Draw the spectrogram without axes, one pixel per column."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, spectrogram(wave_S), cmap="magma", vmin=0, vmax=N_LEVELS - 1, origin="lower", format="png")
    return buffer.getvalue()


def wave_path(wave_S: Frames) -> str:
    """Draw the waveform as an SVG path in a box of 1000 × 100, whose edge its loudest sample touches."""
    low, high = envelope(wave_S, MOST_COLUMNS // 2)
    scale = 50 / max(float(np.abs(wave_S).max()), 1e-3)
    x = np.linspace(0, 1000, low.size)
    points = [f"{a:.1f} {50 - scale * b:.1f}" for a, b in zip(x, high, strict=True)]
    points += [f"{a:.1f} {50 - scale * b:.1f}" for a, b in zip(x[::-1], low[::-1], strict=True)]
    return f"M{'L'.join(points)}Z"


def score_range(score_T: Frames, line: float | None) -> tuple[float, float]:
    """Return the lowest and highest score of a curve's box: all scores and the dashed line, with a margin."""
    shown = [float(score_T.min()), float(score_T.max()), *([] if line is None else [line])]
    low, high = min(shown), max(shown)
    margin = max(0.05 * (high - low), 0.1)
    return low - margin, high + margin


def curve_path(curve: Curve, seconds: float, bottom: float, top: float) -> str:
    """Draw frame scores as an SVG path in a box of 1000 × 100; of many frames, the extremes of each stretch."""
    edges = np.unique(np.linspace(0, curve.score_T.size, MOST_COLUMNS + 1).astype(np.int64)[:-1])
    x = 1000 * curve.seconds_T[edges] / seconds
    sides = (np.maximum.reduceat(curve.score_T, edges), np.minimum.reduceat(curve.score_T, edges))
    y = [100 * (top - side) / (top - bottom) for side in sides]
    is_thin = curve.score_T.size <= MOST_COLUMNS
    points = [
        f"{a:.1f} {b:.1f}" if is_thin else f"{a:.1f} {b:.1f}V{c:.1f}" for a, b, c in zip(x, y[0], y[1], strict=True)
    ]
    return f"M{'L'.join(points)}"


def time_ticks(seconds: float) -> tuple[tuple[float, str], ...]:
    """Choose up to ten round times, as percent from the left and text.

    >>> time_ticks(4.0)[:3]
    ((0.0, '0 s'), (12.5, '0.5'), (25.0, '1'))
    """
    steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 36000]
    step = next((step for step in steps if seconds / step <= 10), seconds)
    count = int(seconds / step * 0.97) + 1
    return tuple((100 * n * step / seconds, clock(n * step) if n else "0 s") for n in range(count))


def clock(seconds: float) -> str:
    """Format a time for people.

    >>> clock(2.5), clock(75)
    ('2.5', '1:15')
    """
    return f"{round(seconds, 3):g}" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
