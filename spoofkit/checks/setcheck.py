"""Findings about a whole set: duplicates, outliers, and properties that give the class away."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.checks.filecheck import WHOLE_SET, Finding, Row
from spoofkit.checks.sound import Sound
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import NO_KEY, Manifest
from spoofkit.data.packed import parse_address
from spoofkit.data.rejected import read_rejected, rejected_path
from spoofkit.data.stored import AudioInfo
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256

# A length is outlying if its logarithm is farther from the median than both; so of log-normal lengths none is.
OUTLYING_DEVIATIONS = 6.0  # standard deviations, estimated as 1.4826 times the median absolute deviation
OUTLYING_FACTOR = 4.0  # and this many times longer or shorter than the median
FEWEST_FOR_OUTLIERS = 20
# A property tells the classes apart if its shares differ by both.
TELLING_DEVIATIONS = 3.0  # standard errors of the difference of two shares
TELLING_DIFFERENCE = 0.01
PIECE_BYTES = 4_096  # of files of one size, from the middle: almost all differ there


def findings_of_set(rows: list[Row], manifest: Manifest, workers: int) -> Iterator[Finding]:
    """Yield the findings that need all files; `workers` threads compare files of equal size."""
    with_info = [(row, row.info) for row in rows if isinstance(row.info, AudioInfo)]
    yield from _rejected_list(manifest)
    yield from _doubles(rows, manifest, workers)
    if not with_info:
        return
    common_rate = Counter(info.sample_rate for _, info in with_info).most_common(1)[0][0]
    common_channels = Counter(info.n_channels for _, info in with_info).most_common(1)[0][0]
    for row, info in with_info:
        if info.sample_rate != common_rate:
            problem = f"is sampled at {info.sample_rate} Hz, most others at {common_rate} Hz; all are read at 16 kHz"
            yield Finding(row.utt_id, "warning", "other rate", problem)
        if info.n_channels != common_channels:
            problem = f"has {info.n_channels} channels, most others {common_channels}; down-mix: {manifest.downmix}"
            yield Finding(row.utt_id, "warning", "other channels", problem)
    if common_rate != SAMPLE_RATE:
        problem = f"most files are sampled at {common_rate} Hz; all are converted to {SAMPLE_RATE} Hz when read"
        yield Finding(WHOLE_SET, "warning", "rate", problem)
    if common_channels != 1:
        problem = f"most files have {common_channels} channels; down-mix: {manifest.downmix}"
        yield Finding(WHOLE_SET, "warning", "channels", problem)
    yield from _outlying_lengths(with_info)
    yield from _telling_properties(with_info)


def _outlying_lengths(with_info: list[tuple[Row, AudioInfo]]) -> Iterator[Finding]:
    if len(with_info) < FEWEST_FOR_OUTLIERS:
        return
    log_length_N = np.log([info.n_samples for _, info in with_info])
    median = float(np.median(log_length_N))
    deviation = 1.4826 * float(np.median(np.abs(log_length_N - median)))
    limit = max(OUTLYING_DEVIATIONS * deviation, float(np.log(OUTLYING_FACTOR)))
    for (row, info), far in zip(with_info, log_length_N - median, strict=True):
        if abs(far) > limit:
            problem = f"lasts {info.n_samples / SAMPLE_RATE:.2f} s, the median is {np.exp(median) / SAMPLE_RATE:.2f} s"
            yield Finding(row.utt_id, "warning", "other length", problem)


def _telling_properties(with_info: list[tuple[Row, AudioInfo]]) -> Iterator[Finding]:
    """Find properties of the files by which a detector could tell the classes without listening."""
    with_info = [(row, info) for row, info in with_info if row.key != NO_KEY]
    keys = Counter(row.key for row, _ in with_info)
    if len(keys) < 2:
        return
    for name, of in (
        ("sampling rate", lambda info: f"{info.sample_rate} Hz"),
        ("number of channels", lambda info: info.n_channels),
        ("sample format", lambda info: info.subtype),
    ):
        counts = Counter((of(info), row.key) for row, info in with_info)
        for value in sorted({value for value, _ in counts}, key=str):
            share, other = (counts[value, key] / keys[key] for key in ("bonafide", "spoof"))
            pooled = (counts[value, "bonafide"] + counts[value, "spoof"]) / len(with_info)
            error = (pooled * (1 - pooled) * (1 / keys["bonafide"] + 1 / keys["spoof"])) ** 0.5
            if abs(share - other) > max(TELLING_DIFFERENCE, TELLING_DEVIATIONS * error):
                problem = (
                    f"{name} {value}: {100 * share:.1f} % of bona fide, {100 * other:.1f} % of spoof; a detector may "
                    "learn that instead of speech"
                )
                yield Finding(WHOLE_SET, "warning", "tells the class", problem)


def _rejected_list(manifest: Manifest) -> Iterator[Finding]:
    n_listed = read_rejected(manifest.path).height
    if n_listed != manifest.n_rejected:
        where = rejected_path(manifest.path).name
        problem = f"{where} lists {n_listed:,} utterances, the manifest says that {manifest.n_rejected:,} were rejected"
        yield Finding(WHOLE_SET, "warning", "rejected list", problem)


def _doubles(rows: list[Row], manifest: Manifest, workers: int) -> Iterator[Finding]:
    """Find duplicates: the same file, the same MD5 in FLAC's header, the same samples, or the same bytes."""
    for group in _same_content(rows, manifest, workers):
        first_of_key = {row.key: row for row in reversed(group) if row.key != NO_KEY}
        for row in group:
            other = next(other for other in group[:2] if other is not row)
            same = "the file" if other.path == row.path else "the audio"
            contradiction = next((other for key, other in first_of_key.items() if NO_KEY != row.key != key), None)
            if contradiction is not None:
                problem = f"is {row.key} and {same} of {contradiction.utt_id}, which is {contradiction.key}"
                yield Finding(row.utt_id, "error", "contradiction", problem)
            else:
                others = f" and {len(group) - 2:,} others" if len(group) > 2 else ""
                yield Finding(row.utt_id, "warning", "double", f"is {same} of {other.utt_id}{others}")


def _same_content(rows: list[Row], manifest: Manifest, workers: int) -> list[list[Row]]:
    usable = [(row, row.info) for row in rows if isinstance(row.info, AudioInfo) and not isinstance(row.sound, str)]
    if all(row.sound is not None for row, _ in usable):
        return _groups((row, row.sound.digest) for row, _ in usable if isinstance(row.sound, Sound))
    same = _groups((row, row.path) for row, _ in usable)
    first_of_path = {row.path: (row, info) for row, info in reversed(usable)}
    stated = [(row, (i.flac_md5, i.sample_rate, i.n_samples)) for row, i in first_of_path.values() if i.flac_md5]
    others = [(row, (i.n_bytes, i.n_samples)) for row, i in first_of_path.values() if not i.flac_md5]
    of_files = [group for group in _groups(others) if not parse_address(group[0].path)]
    candidates = [row for group in of_files for row in group]
    with ThreadPoolExecutor(workers) as pool:
        pieces = pool.map(lambda row: _piece(manifest.audio_path(row.path)), candidates)
        alike = [row for group in _groups(zip(candidates, pieces, strict=True)) for row in group]
        hashes = pool.map(lambda row: file_sha256(manifest.audio_path(row.path)), alike)
        return same + _groups(stated) + _groups(zip(alike, hashes, strict=True))


def _groups(rows_and_values: Iterable[tuple[Row, Hashable]]) -> list[list[Row]]:
    """Group rows by value, keeping groups of at least two."""
    by_value: dict[Any, list[Row]] = defaultdict(list)
    for row, value in rows_and_values:
        by_value[value].append(row)
    return [group for group in by_value.values() if len(group) > 1]


def _piece(path: Path) -> tuple[int, str]:
    """Return a file's size and the hash of its middle."""
    try:
        n_bytes = path.stat().st_size
        with open(path, "rb") as file:
            file.seek(max(0, (n_bytes - PIECE_BYTES) // 2))
            return n_bytes, hashlib.blake2b(file.read(PIECE_BYTES), digest_size=16).hexdigest()
    except OSError as error:
        raise SpoofkitError(f"{path}: can no longer be read ({error.strerror}); run the command again") from error
