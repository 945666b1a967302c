"""The pages of `localize`, for viewing and listening to marked recordings.

A page is one file that loads nothing: audio as Ogg Opus (a lossy copy; the model saw the file itself), spectrograms as
PNG, curves as SVG, and a script that plays a region on a click. As many recordings as fit into PAGE_BYTES are on one.
No score is computed here.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.files import refuse_existing, write_text
from spoofkit.localisation.known import Known, KnownRegion
from spoofkit.localisation.picture import Curve
from spoofkit.localisation.regions import CALLED, Frames, Marked, Rule
from spoofkit.localisation.track import Track, make_track
from spoofkit.page import data_address
from spoofkit.page import render as render_page

PAGE_BYTES = 7_800_000
"""Largest size of a page, unless a single recording takes more, which needs thousands of regions."""
MOST_AUDIO_BYTES = 5_000_000
"""Largest size of one recording's audio, about 23 minutes; of a longer one the beginning is embedded."""
UNWRITTEN_BYTES = 20_000  # more than three seconds of Opus
MARK = "spoofkit localize"
"""Mark of a page that spoofkit wrote; only such pages are replaced."""


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
    track: Track
    bars: tuple[Bar, ...]
    known_bars: tuple[Bar, ...]
    said: str
    """Score of the whole recording, in words; empty if the model has no utterance head."""
    known_said: str
    """How much of its known regions is marked, in words; empty if none were given."""

    def size(self) -> int:
        """Estimate the bytes on the page from above."""
        return len(self.audio) + self.track.size() + 700 * len(self.bars + self.known_bars) + 4000


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
    before, after = (page_path(Path(), other).name for other in (max(1, number - 1), number + 1))
    return render_page(
        "addons/timeline/timeline.html.jinja", facts=facts, sections=sections, failures=failures, mark=MARK,
        number=number, before=before if number > 1 else "", after="" if is_last else after,
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
    heard_seconds = n_heard / SAMPLE_RATE

    def bar(region: Marked | KnownRegion, words: str) -> Bar:
        start, end = region.start_seconds, region.end_seconds
        return Bar(start, end, 100 * start / seconds, 100 * (end - start) / seconds, words, start < heard_seconds)

    bars = tuple(bar(region, f"score {region.mean_score:.2f}") for region in regions)
    known_regions = () if known is None else known.regions
    known_bars = tuple(bar(region, f"{100 * region.marked_share:.0f} % marked") for region in known_regions)
    return Section(
        path=path, name=name, seconds=seconds, heard_seconds=heard_seconds,
        audio=data_address("audio/ogg", audio), track=make_track(wave_S, curve, rule.threshold),
        bars=bars, known_bars=known_bars, said=said,
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
