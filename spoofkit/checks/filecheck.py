"""Findings about single audio files, from their headers and their samples."""

from collections.abc import Iterator
from dataclasses import dataclass

from spoofkit.checks.sound import Sound
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import Manifest
from spoofkit.data.packed import parse_address
from spoofkit.data.stored import AudioInfo

SHORTEST_SAMPLES = 3_200  # 0.2 s: below this the encoders have fewer than ten frames
LONG_ZEROS_SECONDS = 0.5  # exact zeros at one end: recordings have none, cutting and padding tools leave them
CLIPPED_SHARE = 1e-3  # share of samples at full scale that is audible; a single peak is not
OFFSET = 0.01  # share of full scale: -40 dB
WHOLE_SET = "-"


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one utterance, or with the whole set."""

    utt_id: str
    """WHOLE_SET if the finding is not about a single utterance."""
    severity: str
    """`error`: the utterance cannot be used. `warning`: it can be used, but the reader should know."""
    kind: str
    """Kind of finding, in a word or two."""
    problem: str


@dataclass(frozen=True)
class Row:
    """One utterance and what is known of its file."""

    utt_id: str
    path: str
    key: str
    n_samples: int
    info: AudioInfo | str
    sound: Sound | str | None


def findings_of_files(rows: list[Row], manifest: Manifest, damaged: dict[str, str]) -> Iterator[Finding]:
    """Yield the findings about each file; `damaged` maps each damaged shard to what is wrong with it."""
    for row in rows:
        address = parse_address(manifest.audio_path(row.path))
        if address is not None and address.shard in damaged:
            yield Finding(row.utt_id, "error", "damaged pack", damaged[address.shard])
        elif isinstance(row.info, str):
            kind = "missing" if "no such file" in row.info else "unreadable"
            yield Finding(row.utt_id, "error", kind, row.info)
        else:
            yield from (Finding(row.utt_id, *found) for found in _check_header(row.info, row.n_samples))
            if isinstance(row.sound, str):
                yield Finding(row.utt_id, "error", "unreadable", row.sound)
            elif row.sound is not None:
                found_in = _check_sound(row.sound, manifest.downmix)
                yield from (Finding(row.utt_id, *found) for found in found_in)


def _check_header(info: AudioInfo, n_samples: int) -> Iterator[tuple[str, str, str]]:
    if n_samples not in (UNKNOWN_LENGTH, info.n_samples):
        yield (
            "error",
            "length",
            f"has {info.n_samples} samples, the manifest says {n_samples}; prepare the set again",
        )
    if info.n_samples < SHORTEST_SAMPLES:
        seconds, fewest = info.n_samples / SAMPLE_RATE, SHORTEST_SAMPLES / SAMPLE_RATE
        yield "error", "too short", f"lasts {seconds:.3f} s, expected at least {fewest} s"


def _check_sound(sound: Sound, downmix: str) -> Iterator[tuple[str, str, str]]:
    if sound.n_not_finite:
        yield "error", "not finite", f"holds {sound.n_not_finite} NaN or infinite samples; download or convert it again"
    if not sound.peak:
        yield "error", "silence", "contains only digital silence"
    elif max(sound.zeros_before_s, sound.zeros_after_s) >= LONG_ZEROS_SECONDS:
        yield (
            "warning",
            "zeros",
            f"begins with {sound.zeros_before_s:.2f} s and ends with {sound.zeros_after_s:.2f} s of exact zeros",
        )
    if sound.is_cancelled and downmix == "mean":
        problem = "its channels cancel each other in the mean; prepare the set with --downmix first"
        yield "error", "channels cancel", problem
    if sound.clipped_share >= CLIPPED_SHARE:
        yield "warning", "clipping", f"{100 * sound.clipped_share:.2f} % of its samples are at full scale or beyond"
    if sound.offset >= OFFSET:
        yield "warning", "offset", f"has a mean of {sound.offset:.3f} of full scale, expected about 0"
