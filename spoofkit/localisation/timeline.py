"""Marked recordings to look at and listen to: a picture of one, and pages of many.

A page is one file that loads nothing: audio as Ogg Opus (a lossy copy; the model saw the file itself), spectrograms as
PNG, curves as SVG, and a script that plays a region on a click. As many recordings as fit into PAGE_BYTES are on one.
No score is computed here.
"""

import base64
import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.files import refuse_existing, write_text
from spoofkit.localisation.regions import Frames, Marked, Rule
from spoofkit.terminal import visible, visible_lines

PAGE_BYTES = 7_800_000
"""Of a page, at most, as long as one recording does not take more: that would need thousands of regions."""
MOST_AUDIO_BYTES = 5_000_000
"""Of one recording's audio, about 23 minutes; of a longer one the beginning is embedded."""
UNWRITTEN_BYTES = 20_000  # more than three seconds of Opus
MARK = "spoofkit localize"
"""How a page says whose it is; only such pages are replaced."""
FFT_SAMPLES, SHORTEST_HOP, N_ROWS, N_LEVELS = 512, 128, 96, 48
MOST_COLUMNS = 1600
RANGE_DB, SILENCE_DB = 80.0, -60.0  # below the loudest; what is never louder is not stretched to be seen
PIXELS_A_SECOND, MOST_PIXELS = 24, 6000  # a longer recording than fits the screen is scrolled
COLOURS = {"wave": "#35506b", "curve": "#0072b2", "raw": "#8c959f", "region": "#d55e00"}


@dataclass(frozen=True)
class Curve:
    """The frame scores of a recording."""

    seconds_T: npt.NDArray[np.float64]
    """Where each frame is centred."""
    raw_T: Frames
    score_T: Frames
    """Smoothed; the same if nothing was smoothed."""


@dataclass(frozen=True)
class Facts:
    """What a page says of all its recordings."""

    model: str
    model_sha256: str
    label: str
    rule: Rule
    warnings: tuple[str, ...]
    meaning: str = ""
    """What the score of a whole recording is; empty: the model has no utterance head."""


@dataclass(frozen=True)
class Bar:
    """A region where it stands on the page."""

    start: float
    end: float
    left_percent: float
    width_percent: float
    mean_score: float
    is_playable: bool


@dataclass(frozen=True)
class Section:
    """A recording on a page."""

    path: str
    name: str
    seconds: float
    heard_seconds: float
    """How much of its beginning is embedded."""
    audio: str
    spectrogram: str
    wave: str
    """SVG path in a box of 1000 × 100."""
    curve: str
    threshold_y: float
    top: float
    bottom: float
    """Scores at the upper and the lower edge of the curve's box."""
    ticks: tuple[tuple[float, str], ...]
    """Percent from the left, and what stands there."""
    pixels: int
    """Width below which it is scrolled."""
    bars: tuple[Bar, ...]
    said: str
    """Of the whole recording, in words; empty: the model has no utterance head."""

    def size(self) -> int:
        """Bytes on the page, a little more than there are."""
        return sum(map(len, (self.audio, self.spectrogram, self.wave, self.curve))) + 700 * len(self.bars) + 4000


class Pages:
    """Writes pages as recordings come; at most one page is held."""

    def __init__(self, folder: Path, facts: Facts, overwrite: bool) -> None:
        self.folder, self.facts, self.overwrite = folder, facts, overwrite
        self.sections: list[Section] = []
        self.failures: list[str] = []
        self.written: list[Path] = []
        for path in sorted(folder.glob("timeline*.html")):
            refuse_existing(path, overwrite)
            if not is_page(path):
                raise SpoofkitError(f"{path}: is not a page of `{MARK}` and would be replaced; name another folder")

    def add(self, section: Section) -> None:
        """Take a recording; a page that it does not fit into any more is written."""
        if self.sections and sum(map(Section.size, self.sections)) + section.size() > PAGE_BYTES:
            self._write(is_last=False)
        self.sections.append(section)

    def add_failure(self, reason: str) -> None:
        """Take a recording that could not be marked; the last page names it."""
        self.failures.append(reason)

    def finish(self) -> list[Path]:
        """Write the last page, remove those that an earlier call wrote beyond it, and say which there are."""
        if self.sections or self.failures:
            self._write(is_last=True)
        for path in set(self.folder.glob("timeline*.html")).difference(self.written) if self.written else ():
            path.unlink()
        return self.written

    def _write(self, is_last: bool) -> None:
        number = len(self.written) + 1
        page = render(self.facts, self.sections, number, is_last, self.failures if is_last else ())
        self.written.append(page_path(self.folder, number))
        write_text(self.written[-1], page, self.overwrite)
        self.sections = []


def is_page(path: Path) -> bool:
    """Whether a file is a page of this verb."""
    return f'content="{MARK}"' in path.read_text("utf-8", "replace")[:1000]


def page_path(folder: Path, number: int) -> Path:
    """Where page `number`, from 1, stands."""
    return folder / ("timeline.html" if number == 1 else f"timeline_{number}.html")


def render(facts: Facts, sections: Sequence[Section], number: int, is_last: bool, failures: Sequence[str] = ()) -> str:
    """One page; `failures` say which recordings could not be marked, and why."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=visible_lines
    )
    environment.filters["csp_hash"] = _csp_hash
    template = resources.files("spoofkit.localisation").joinpath("timeline.html.jinja").read_text(encoding="utf-8")
    before, after = (page_path(Path(), other).name for other in (max(1, number - 1), number + 1))
    return environment.from_string(template).render(
        facts=facts, sections=sections, failures=failures, mark=MARK, number=number,
        before=before if number > 1 else "", after="" if is_last else after,
    )  # fmt: skip


def make_section(
    path: str, name: str, wave_S: Frames, curve: Curve, regions: Sequence[Marked], rule: Rule, said: str = ""
) -> Section:
    """A recording as a page shows it.

    Args:
        path: As it was named.
        name: That of its other files.
        wave_S: The whole recording, 16 kHz.
        curve: Its frame scores.
        regions: What was marked.
        rule: How.
        said: Of the whole recording, in words.
    """
    seconds = wave_S.size / SAMPLE_RATE
    audio, n_heard = opus_within(wave_S, MOST_AUDIO_BYTES)
    bottom, top = score_range(curve.score_T, rule.threshold)
    bars = tuple(
        Bar(
            region.start_seconds,
            region.end_seconds,
            100 * region.start_seconds / seconds,
            100 * (region.end_seconds - region.start_seconds) / seconds,
            region.mean_score,
            region.start < n_heard,
        )
        for region in regions
    )
    return Section(
        path=path, name=name, seconds=seconds, heard_seconds=n_heard / SAMPLE_RATE,
        audio=_data_address("audio/ogg", audio), spectrogram=_data_address("image/png", spectrogram_png(wave_S)),
        wave=wave_path(wave_S), curve=curve_path(curve, seconds, bottom, top),
        threshold_y=100 * (top - rule.threshold) / (top - bottom), top=top, bottom=bottom, ticks=time_ticks(seconds),
        pixels=min(MOST_PIXELS, round(PIXELS_A_SECOND * seconds)), bars=bars, said=said,
    )  # fmt: skip


def picture(name: str, wave_S: Frames, curve: Curve, regions: Sequence[Marked], rule: Rule, label: str) -> bytes:
    """A PNG of one recording: waveform, spectrogram, frame scores with the threshold, marked regions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seconds = wave_S.size / SAMPLE_RATE
    figure = Figure(figsize=(min(24.0, max(10.0, seconds / 3)), 6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=[2, 3, 2])
    figure.suptitle(f"{visible(name)}\n{rule.words()}", fontsize=10, parse_math=False)
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
    lower.legend(loc="upper right", fontsize=8)
    for region in regions:
        for axes in (upper, lower):
            axes.axvspan(region.start_seconds, region.end_seconds, color=COLOURS["region"], alpha=0.25, linewidth=0)
        for edge in (region.start_seconds, region.end_seconds):
            middle.axvline(edge, color="white", linestyle="--", linewidth=0.8)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Of scripts that the font lacks boxes are drawn; the file's name and the page have the letters.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def opus_within(wave_S: Frames, n_bytes: int) -> tuple[bytes, int]:
    """Mono 16 kHz as Ogg Opus, about 3.6 kB a second of speech; what exceeds full scale is clipped.

    Returns:
        The file, and how many samples it holds: all, or of a longer recording as many whole seconds as fit.
    """
    buffer = io.BytesIO()
    n_samples = 0
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE, 1, format="OGG", subtype="OPUS") as file:
        # A second at a time: libsndfile keeps what it is given on its stack, and writes a second or two later.
        while n_samples < wave_S.size and buffer.tell() < n_bytes - UNWRITTEN_BYTES:
            block_S = wave_S[n_samples : n_samples + SAMPLE_RATE]
            file.write(np.clip(block_S, -1, 1))
            n_samples += block_S.size
    return buffer.getvalue(), n_samples


def spectrogram(wave_S: Frames) -> npt.NDArray[np.uint8]:
    """Levels 0 to N_LEVELS - 1, shape (N_ROWS, columns), lowest frequency first; 80 dB from none to full."""
    padded = np.pad(wave_S, (0, max(0, FFT_SAMPLES - wave_S.size)))
    hop = max(SHORTEST_HOP, -(-padded.size // MOST_COLUMNS))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(FFT_SAMPLES), axis=1)[:, 1:]) ** 2
    edges = np.arange(N_ROWS) * (FFT_SAMPLES // 2) // N_ROWS
    decibel = 10 * np.log10(np.maximum(np.maximum.reduceat(power, edges, axis=1), 1e-20))
    level = np.clip(1 + (decibel - max(float(decibel.max()), SILENCE_DB)) / RANGE_DB, 0, 1)
    levels: npt.NDArray[np.uint8] = np.rint(level.T * (N_LEVELS - 1)).astype(np.uint8)
    return levels


def spectrogram_png(wave_S: Frames) -> bytes:
    """The spectrogram alone, a pixel a column."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, spectrogram(wave_S), cmap="magma", vmin=0, vmax=N_LEVELS - 1, origin="lower", format="png")
    return buffer.getvalue()


def envelope(wave_S: Frames, n_columns: int) -> tuple[Frames, Frames]:
    """Lowest and highest sample of each of at most so many stretches of equal length."""
    edges = np.unique(np.linspace(0, wave_S.size, n_columns + 1).astype(np.int64)[:-1])
    return np.minimum.reduceat(wave_S, edges), np.maximum.reduceat(wave_S, edges)


def wave_path(wave_S: Frames) -> str:
    """SVG path of the waveform in a box of 1000 × 100: its loudest sample touches the edge."""
    low, high = envelope(wave_S, MOST_COLUMNS // 2)
    scale = 50 / max(float(np.abs(wave_S).max()), 1e-3)
    x = np.linspace(0, 1000, low.size)
    points = [f"{a:.1f} {50 - scale * b:.1f}" for a, b in zip(x, high, strict=True)]
    points += [f"{a:.1f} {50 - scale * b:.1f}" for a, b in zip(x[::-1], low[::-1], strict=True)]
    return f"M{'L'.join(points)}Z"


def score_range(score_T: Frames, threshold: float) -> tuple[float, float]:
    """Lowest and highest score of a curve's box: all scores and the threshold, with a margin."""
    low, high = min(float(score_T.min()), threshold), max(float(score_T.max()), threshold)
    margin = max(0.05 * (high - low), 0.1)
    return low - margin, high + margin


def curve_path(curve: Curve, seconds: float, bottom: float, top: float) -> str:
    """SVG path of frame scores in a box of 1000 × 100; of many frames, lowest and highest of each stretch."""
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
    """Up to ten round times, as percent from the left and text.

    >>> time_ticks(4.0)[:3]
    ((0.0, '0 s'), (12.5, '0.5'), (25.0, '1'))
    """
    steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 36000]
    step = next((step for step in steps if seconds / step <= 10), seconds)
    count = int(seconds / step * 0.97) + 1
    return tuple((100 * n * step / seconds, clock(n * step) if n else "0 s") for n in range(count))


def clock(seconds: float) -> str:
    """A time as one reads it.

    >>> clock(2.5), clock(75)
    ('2.5', '1:15')
    """
    return f"{round(seconds, 3):g}" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _csp_hash(script: str) -> str:
    """How a Content-Security-Policy names the one script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
