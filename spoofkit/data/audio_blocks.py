"""Reading audio in blocks: what `read_audio` gives, a second at a time, so that an hour takes no more than a minute.

Formats, down-mix and refusals are those of `audio`; what can only be known at the end (channels that cancel each other,
a file that is cut short and no WAV) is refused at the end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from spoofkit.data.audio import (
    AUDIBLE,
    CANCELLED,
    DOWNMIXES,
    NOT_STATED,
    SAMPLE_RATE,
    SIZED_FORMATS,
    UNKNOWN_TO_SOUNDFILE,
    _head,
    _opened_with_av,
    _refuse_cut,
    _require_file,
    _stated_samples,
    length_at_16k,
    mix_down,
)
from spoofkit.data.shards import parse_address, read_packed
from spoofkit.errors import SpoofkitError


def stated_length(path: Path | str) -> int | None:
    """Samples at 16 kHz as a header states them that costs nothing to read; none: only decoding tells.

    Raises:
        SpoofkitError: no such file.
    """
    if (address := parse_address(path)) is not None:
        return address.n_samples
    _require_file(path)
    try:
        with soundfile.SoundFile(str(path)) as file:
            return length_at_16k(file.frames, file.samplerate) if file.frames < NOT_STATED else None
    except UNKNOWN_TO_SOUNDFILE:
        return None


def read_blocks(path: Path | str, n_samples: int | None = None, downmix: str = DOWNMIXES[0]) -> Iterator[np.ndarray]:
    """Decode a file to 16 kHz mono, block by block; together they equal what `read_audio` returns, bit for bit.

    Args:
        path: Any audio file, or an address.
        n_samples: Most samples at 16 kHz that are read; none: all.
        downmix: One of DOWNMIXES.

    Yields:
        float32 arrays of shape (samples,), about a second each.

    Raises:
        SpoofkitError: missing, undecodable, empty, not finite or cut short; it lacks the channel asked for, or its
            channels cancel each other.
    """
    n_read = 0
    for wave_S in _packed(path) if parse_address(path) else _decoded(path, downmix):
        if not np.isfinite(wave_S).all():
            raise SpoofkitError(
                f"{path}: holds NaN or infinite samples, expected finite ones; fetch or convert it again"
            )
        wave_S = wave_S if n_samples is None else wave_S[: n_samples - n_read]
        n_read += wave_S.size
        if wave_S.size:
            yield np.ascontiguousarray(wave_S)
        if n_read == n_samples:
            return
    if n_read == 0:
        raise SpoofkitError(f"{path}: holds no samples, expected speech; remove it from the list or fetch it again")


def _packed(path: Path | str) -> Iterator[np.ndarray]:
    address = parse_address(path)
    assert address is not None
    for start in range(0, address.n_samples, SAMPLE_RATE):
        yield read_packed(address, start, SAMPLE_RATE)


def _decoded(path: Path | str, downmix: str) -> Iterator[np.ndarray]:
    with _stored(path) as (rate, blocks):
        mono = _mixed(blocks, downmix, path)
        if rate == SAMPLE_RATE:
            yield from mono
            return
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        for block_S in mono:
            yield resampler.resample_chunk(block_S)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _mixed(blocks: Iterator[np.ndarray], downmix: str, path: Path | str) -> Iterator[np.ndarray]:
    """One channel of several; whether they cancel each other is judged over all that was read."""
    energy = mixed = 0.0
    n_samples = 0
    for channels_SC in blocks:
        if downmix != "mean" or channels_SC.shape[1] == 1:
            yield mix_down(channels_SC, downmix, path)
            continue
        wave_S = channels_SC.mean(axis=1, dtype=np.float32)
        with np.errstate(all="ignore"):  # what is not finite is refused elsewhere
            energy += float(np.square(channels_SC, dtype=np.float64).mean(axis=1).sum())
            mixed += float(np.square(wave_S, dtype=np.float64).sum())
        n_samples += wave_S.size
        yield wave_S
    if energy > AUDIBLE**2 * n_samples and mixed < CANCELLED * energy:
        raise SpoofkitError(
            f"{path}: its channels cancel each other (their mean is more than 30 dB below them), expected speech that "
            "survives their mean; take one of them, or remove it from the list"
        )


@contextmanager
def _stored(path: Path | str) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Sampling rate, and blocks as they are stored, float32 of shape (samples, channels)."""
    _require_file(path)
    try:
        file = soundfile.SoundFile(str(path))
    except UNKNOWN_TO_SOUNDFILE:
        file = None
    if file is not None and file.frames < NOT_STATED:
        with file:
            if file.format in SIZED_FORMATS:
                _refuse_cut(path, _head(path))
            yield file.samplerate, _of_soundfile(file, path)
        return
    head = _head(path)
    _refuse_cut(path, head)
    with _opened_with_av(path) as (container, stream):
        stated = _stated_samples(container, stream, head)
        yield stream.rate, _of_av(container, stream, stated, path)


def _of_soundfile(file: soundfile.SoundFile, path: Path | str) -> Iterator[np.ndarray]:
    try:
        while (block_SC := file.read(file.samplerate, dtype="float32", always_2d=True)).size:
            yield block_SC
    except soundfile.LibsndfileError as error:
        raise SpoofkitError(
            f"{path}: cannot be decoded beyond {file.tell() / file.samplerate:.1f} s ({error}); convert it to FLAC or "
            "fetch it again"
        ) from error


def _of_av(container: Any, stream: Any, stated: int | None, path: Path | str) -> Iterator[np.ndarray]:
    """Blocks of a second; what an encoder added to fill its last frame is cut off."""
    n_read = 0
    for block_SC in _joined(_frames(container, stream), stream.rate):
        yield block_SC if stated is None else block_SC[: max(0, stated - n_read)]
        n_read += block_SC.shape[0]
    if stated is not None and n_read < stated:
        raise SpoofkitError(
            f"{path}: decodes to {n_read} samples, its header states {stated}; it is cut short or damaged, so fetch it "
            "again"
        )


def _frames(container: Any, stream: Any) -> Iterator[np.ndarray]:
    """FFmpeg's frames, some milliseconds each, of shape (channels, samples)."""
    import av

    resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
    has_frames = False
    for frame in container.decode(stream):
        has_frames = True
        yield from (part.to_ndarray() for part in resampler.resample(frame))
    if has_frames:
        yield from (part.to_ndarray() for part in resampler.resample(None))


def _joined(frames: Iterator[np.ndarray], at_least: int) -> Iterator[np.ndarray]:
    """Blocks of shape (samples, channels) of so many samples or a frame more; the last of what is left."""
    waiting: list[np.ndarray] = []
    for frame_CS in frames:
        waiting.append(frame_CS)
        if sum(block.shape[1] for block in waiting) >= at_least:
            yield np.concatenate(waiting, axis=1).T.astype(np.float32)
            waiting = []
    if waiting:
        yield np.concatenate(waiting, axis=1).T.astype(np.float32)
