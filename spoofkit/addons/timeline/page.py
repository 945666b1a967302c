"""The pages of `localize`, for viewing and listening to marked recordings.

A page is one file that loads nothing: audio as Ogg Opus (a lossy copy; the model saw the file itself), spectrograms as
PNG, curves as SVG, and a script that plays a region on a click. As many recordings as fit into PAGE_BYTES are on one.
No score is computed here.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.files import refuse_existing, write_text
from spoofkit.localisation.known import Known, KnownRegion
from spoofkit.localisation.picture import MOST_COLUMNS, N_LEVELS, Curve, envelope, spectrogram
from spoofkit.localisation.regions import CALLED, Frames, Marked, Rule
from spoofkit.terminal import visible_lines

PAGE_BYTES = 7_800_000
"""Largest size of a page, unless a single recording takes more, which needs thousands of regions."""
MOST_AUDIO_BYTES = 5_000_000
"""Largest size of one recording's audio, about 23 minutes; of a longer one the beginning is embedded."""
UNWRITTEN_BYTES = 20_000  # more than three seconds of Opus
MARK = "spoofkit localize"
"""Mark of a page that spoofkit wrote; only such pages are replaced."""
PIXELS_A_SECOND, MOST_PIXELS = 24, 6000  # a longer recording than fits the screen is scrolled


@dataclass(frozen=True)
class Facts:
    """Facts that hold for all recordings of a page."""

    model: str
    model_sha256: str
    label: str
    rule: Rule
    warnings: tuple[str, ...]
    meaning: str = ""
    """Meaning of the score of a whole recording; empty if the model has no utterance head."""
    known_from: str = ""
    """Where known regions are from; empty if there are none."""
    note: str = ""
    """What the user wants to be read first."""


@dataclass(frozen=True)
class Bar:
    """A marked or a known region and its position on the page."""

    start: float
    end: float
    left_percent: float
    width_percent: float
    said: str
    """Its mean score, or how much of it is marked."""
    is_playable: bool


@dataclass(frozen=True)
class Section:
    """A recording on a page."""

    path: str
    name: str
    seconds: float
    heard_seconds: float
    """Seconds of its beginning that are embedded."""
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
    """Position in percent from the left, and text, of each tick."""
    pixels: int
    """Width below which it is scrolled, in pixels."""
    bars: tuple[Bar, ...]
    known_bars: tuple[Bar, ...]
    said: str
    """Score of the whole recording, in words; empty if the model has no utterance head."""
    known_said: str
    """How much of its known regions is marked, in words; empty if none were given."""

    def size(self) -> int:
        """Estimate the bytes on the page from above."""
        return (
            sum(map(len, (self.audio, self.spectrogram, self.wave, self.curve)))
            + 700 * len(self.bars + self.known_bars)
            + 4000
        )


def page_facts(
    name: str,
    model: dict[str, str],
    rule: Rule,
    contamination: str | None,
    meaning: str,
    known_from: Path | None = None,
    note: str = "",
) -> Facts:
    """Return what a page says above its recordings; see `Facts`."""
    warnings = [] if rule.is_fitted else ["The threshold was not fitted on any data: what is marked shows where scores "
                                          "are low, not that these regions are spoofed."]  # fmt: skip
    if rule.is_weak:
        warnings.append(
            f"On the set that the threshold was fitted on, the frames had an EER of {rule.range_eer_percent:.1f} %; "
            "50 % is chance, so what is marked says hardly anything."
        )
    if model["frame_target"] == "region":
        warnings.append(
            "The frames were trained with mix.frame_target region: a low score says injected, of whatever kind, not "
            "spoofed."
        )
    return Facts(
        model=name, model_sha256=model["model_sha256"], label=CALLED[model["frame_target"]], rule=rule,
        warnings=(*warnings, *([contamination] if contamination else [])),
        meaning=meaning, known_from="" if known_from is None else str(known_from), note=note,
    )  # fmt: skip


class Pages:
    """A writer of pages that holds at most one page in memory."""

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
        """Add a recording; if it does not fit on the page, that is written first."""
        if self.sections and sum(map(Section.size, self.sections)) + section.size() > PAGE_BYTES:
            self._write(is_last=False)
        self.sections.append(section)

    def add_recording(
        self,
        path: str,
        name: str,
        wave_S: Frames,
        curve: Curve,
        regions: Sequence[Marked],
        rule: Rule,
        known: Known | None,
        said: str,
    ) -> None:
        """Add a recording: see `make_section`."""
        self.add(make_section(path, name, wave_S, curve, regions, rule, known, said))

    def add_failure(self, reason: str) -> None:
        """Add a recording that could not be marked; the last page names it."""
        self.failures.append(reason)

    def finish(self) -> list[Path]:
        """Write the last page, remove pages of an earlier call beyond it, and return the paths of all pages."""
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
    """Return whether a file is a page of this verb."""
    return f'content="{MARK}"' in path.read_text("utf-8", "replace")[:1000]


def page_path(folder: Path, number: int) -> Path:
    """Return the path of page `number`, from 1."""
    return folder / ("timeline.html" if number == 1 else f"timeline_{number}.html")


def render(facts: Facts, sections: Sequence[Section], number: int, is_last: bool, failures: Sequence[str] = ()) -> str:
    """Render one page; `failures` say which recordings could not be marked, and why."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=visible_lines
    )
    environment.filters["csp_hash"] = _csp_hash
    template = resources.files("spoofkit.addons.timeline").joinpath("timeline.html.jinja").read_text(encoding="utf-8")
    before, after = (page_path(Path(), other).name for other in (max(1, number - 1), number + 1))
    return environment.from_string(template).render(
        facts=facts, sections=sections, failures=failures, mark=MARK, number=number,
        before=before if number > 1 else "", after="" if is_last else after,
    )  # fmt: skip


def make_section(
    path: str,
    name: str,
    wave_S: Frames,
    curve: Curve,
    regions: Sequence[Marked],
    rule: Rule,
    known: Known | None = None,
    said: str = "",
) -> Section:
    """Make the section of a recording.

    Args:
        path: Path as the user named it.
        name: Name of its other files.
        wave_S: The whole recording, 16 kHz.
        curve: Its frame scores.
        regions: Its marked regions.
        rule: The rule by which they were marked.
        known: Its known regions. Default: none are known.
        said: Score of the whole recording, in words.
    """
    seconds = wave_S.size / SAMPLE_RATE
    audio, n_heard = opus_within(wave_S, MOST_AUDIO_BYTES)
    bottom, top = score_range(curve.score_T, rule.threshold)
    heard_seconds = n_heard / SAMPLE_RATE

    def bar(region: Marked | KnownRegion, words: str) -> Bar:
        start, end = region.start_seconds, region.end_seconds
        return Bar(start, end, 100 * start / seconds, 100 * (end - start) / seconds, words, start < heard_seconds)

    bars = tuple(bar(region, f"score {region.mean_score:.2f}") for region in regions)
    known_regions = () if known is None else known.regions
    known_bars = tuple(bar(region, f"{100 * region.marked_share:.0f} % marked") for region in known_regions)
    return Section(
        path=path, name=name, seconds=seconds, heard_seconds=heard_seconds,
        audio=_data_address("audio/ogg", audio), spectrogram=_data_address("image/png", spectrogram_png(wave_S)),
        wave=wave_path(wave_S), curve=curve_path(curve, seconds, bottom, top),
        threshold_y=100 * (top - rule.threshold) / (top - bottom), top=top, bottom=bottom, ticks=time_ticks(seconds),
        pixels=min(MOST_PIXELS, round(PIXELS_A_SECOND * seconds)), bars=bars, known_bars=known_bars, said=said,
        known_said="" if known is None else known.words(),
    )  # fmt: skip


def opus_within(wave_S: Frames, n_bytes: int) -> tuple[bytes, int]:
    """Encode mono 16 kHz as Ogg Opus, about 3.6 kB per second of speech; beyond full scale it is clipped.

    Returns:
        The file, and the number of samples in it: all, or as many whole seconds as fit.
    """
    buffer = io.BytesIO()
    n_samples = 0
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE, 1, format="OGG", subtype="OPUS") as file:
        # A second at a time: libsndfile keeps its input on the stack, and writes a second or two later.
        while n_samples < wave_S.size and buffer.tell() < n_bytes - UNWRITTEN_BYTES:
            block_S = wave_S[n_samples : n_samples + SAMPLE_RATE]
            file.write(np.clip(block_S, -1, 1))
            n_samples += block_S.size
    return buffer.getvalue(), n_samples


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


def score_range(score_T: Frames, threshold: float) -> tuple[float, float]:
    """Return the lowest and highest score of a curve's box: all scores and the threshold, with a margin."""
    low, high = min(float(score_T.min()), threshold), max(float(score_T.max()), threshold)
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


def _data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _csp_hash(script: str) -> str:
    """Return the hash by which a Content-Security-Policy names the only script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
