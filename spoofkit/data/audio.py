"""Reading audio: any recording becomes 16 kHz mono float32, whole, in part or block by block, or is refused by name.

All functions read the blocks of `decoders`, so that samples depend neither on the caller nor on the part that is read.
A part is read in place if the header can be trusted and the format allows exact seeking; before a part of any other
file, or of one whose channels are averaged, the whole file is decoded once, so that parts are refused for the same
reasons as the whole. Nothing is replaced by silence. Every path may also be the address of a packed utterance
(`packed`), or a recording in memory (`wave`). Audio of a manifest is read through `Manifest.read_audio`, which knows
the set's down-mix.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import soxr

from spoofkit.data.channels import AUTO, DOWNMIXES, ChannelMeter, mix_down, refuse_too_few
from spoofkit.data.decoders import open_recording
from spoofkit.data.lengths import require_length
from spoofkit.data.packed import parse_address, read_packed
from spoofkit.data.stored import HEADERLESS, READ_RATE, AudioInfo, Stored
from spoofkit.data.wave import Wave, require_scaled
from spoofkit.errors import SpoofkitError

SAMPLE_RATE = READ_RATE  # Hz; what every supported encoder was trained on
EXTENSIONS = (
    *(".flac", ".wav", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".aif", ".au", ".sph", ".caf"),
    *(".wma", ".amr", ".3gp", ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".mka", ".avi", ".mpg", ".ts"),
    *HEADERLESS,
)
"""Suffixes of recordings inside a folder; of a video the sound is read. A file that the user names may have any."""
MEASURED_FILES = 100_000  # whose measurements a process remembers
NO_SAMPLES = "holds no samples, expected speech; remove it from the list or fetch it again"


def is_audio_name(name: str) -> bool:
    """Return whether a file in a folder is taken for a recording, by its name.

    Hidden files are not: macOS leaves files (`._x.wav`) that have the suffix and are no audio.

    >>> is_audio_name("call.AMR"), is_audio_name("._call.wav"), is_audio_name("README.md")
    (True, False, False)
    """
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def probe(path: Path | str) -> AudioInfo:
    """Read the facts of a file; it is decoded if its header does not tell its length reliably.

    Raises:
        SpoofkitError: missing, unreadable, empty, cut short, or longer than its header states.
    """
    with open_recording(path) as stored:
        info = stored.info
    n_frames = _measure(path).n_samples if info.n_frames is None else info.n_frames
    if n_frames <= 0:
        raise SpoofkitError(f"{path}: {NO_SAMPLES}")
    return replace(info, n_frames=n_frames)


def read_audio(
    path: Path | str | Wave, start: int = 0, n_samples: int | None = None, downmix: str = DOWNMIXES[0]
) -> np.ndarray:
    """Decode a file, or part of it, to 16 kHz mono.

    Args:
        path: Any audio file, an address, or a recording in memory.
        start: First sample, counted at 16 kHz.
        n_samples: Number of samples at 16 kHz. Default: up to the end.
        downmix: One of DOWNMIXES, or a channel's number from 1; without effect for an address.

    Returns:
        float32 array of shape (samples,).

    Raises:
        SpoofkitError: missing, undecodable, empty, damaged, shorter than its header states or than asked for, longer
            than its header states, too long, not finite; it lacks the channel, or its channels cancel each other.
    """
    if not isinstance(path, Wave) and (address := parse_address(path)) is not None:
        wave_S = read_packed(address, start, n_samples)
    else:
        blocks = list(_wave(path, start, n_samples, downmix))
        wave_S = blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.float32), *blocks])
    if wave_S.size == 0:
        raise SpoofkitError(f"{path}: {NO_SAMPLES if not start else NO_SAMPLES.replace(',', f' from {start} on,', 1)}")
    if n_samples is not None:
        require_length(str(path), wave_S.size, n_samples)
    return np.ascontiguousarray(wave_S)


def read_blocks(
    path: Path | str | Wave, n_samples: int | None = None, downmix: str = DOWNMIXES[0]
) -> Iterator[np.ndarray]:
    """Decode a file to 16 kHz mono, block by block; together they are what `read_audio` returns, bit for bit.

    Args:
        path: Any audio file, an address, or a recording in memory.
        n_samples: Number of samples at 16 kHz to read from the start. Default: all.
        downmix: One of DOWNMIXES, or a channel's number from 1.

    Yields:
        float32 arrays of shape (samples,), about a second each.

    Raises:
        SpoofkitError: see `read_audio`; some blocks may have been yielded before a fault is found.
    """
    is_empty = True
    for block_S in _wave(path, 0, n_samples, downmix):
        is_empty = False
        yield block_S
    if is_empty:
        raise SpoofkitError(f"{path}: {NO_SAMPLES}")


def choose_channels(path: Path | str | Wave, rule: str = AUTO) -> tuple[str, ...]:
    """Choose the channels of a recording that are read separately, each a `downmix` for `read_audio`.

    The header tells how many there are. The recording is decoded only to measure whether several differ.

    Args:
        path: Any audio file, an address, or a recording in memory.
        rule: `auto`: each where channels differ (`ChannelMeter.are_different`), else their mean; `mean`; `first`;
            `each`; or a channel's number, from 1.

    Returns:
        `("mean",)`, or numbers of channels, such as `("1", "2")`.

    Raises:
        SpoofkitError: it cannot be read, or lacks the channel.
    """
    if rule in ("mean", "first"):
        return ("mean",) if rule == "mean" else ("1",)
    with open_recording(path) as stored:
        n_channels = stored.info.n_channels
    if rule.isdigit():
        refuse_too_few(n_channels, int(rule), str(path))
        return (rule,)
    if rule == AUTO and (n_channels == 1 or not _measure(path).are_different):
        return ("mean",)
    return tuple(str(number) for number in range(1, n_channels + 1))


def _wave(path: Path | str | Wave, start: int, n_samples: int | None, downmix: str) -> Iterator[np.ndarray]:
    """Yield finite blocks at 16 kHz: the part that was asked for, or as much of it as there is."""
    is_part = start > 0 or n_samples is not None
    with open_recording(path) as stored:
        is_mixed = downmix == DOWNMIXES[0] and stored.info.n_channels > 1
        meter = ChannelMeter()
        if is_part and (stored.info.n_frames is None or is_mixed):
            meter = _measure(path)
            if is_mixed:
                meter.refuse_lost_mean(stored.where)
        heard = meter if is_mixed and not is_part else None
        for block_S in _at_16k(stored, start, n_samples, downmix, heard):
            block_S = block_S[:n_samples]
            peak = float(np.abs(block_S).max(initial=0.0))
            require_scaled(str(path), peak)
            if not np.isfinite(peak):
                raise SpoofkitError(
                    f"{path}: holds NaN or infinite samples, expected finite ones; fetch or convert it again"
                )
            if block_S.size:
                yield block_S
            if n_samples is not None:
                n_samples -= block_S.size
                if n_samples == 0:
                    break  # decoding stops at the block that holds the last sample
        if is_mixed:
            meter.refuse_lost_mean(stored.where)


def _at_16k(
    stored: Stored, start: int, n_samples: int | None, downmix: str, meter: ChannelMeter | None
) -> Iterator[np.ndarray]:
    """Yield blocks at 16 kHz from a sample on; `meter` gets all that is decoded."""
    is_native = stored.info.sample_rate == SAMPLE_RATE
    # Resampled sound does not depend on what comes later, bit for bit, but it does on where it begins.
    resampler = None if is_native else soxr.ResampleStream(stored.info.sample_rate, SAMPLE_RATE, 1, dtype="float32")
    # Reading a part in one piece is fastest.
    for channels_SC in stored.blocks(start, n_samples or 0) if is_native else stored.blocks():
        if meter is not None:
            meter.add(channels_SC)
        wave_S = mix_down(channels_SC, downmix, stored.where)
        if resampler is None:
            yield wave_S
            continue
        wave_S = resampler.resample_chunk(wave_S)
        yield wave_S[start:]
        start = max(0, start - wave_S.size)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)[start:]


def _measure(path: Path | str | Wave) -> ChannelMeter:
    """Decode a whole recording, a file once per process, and compare its channels."""
    if isinstance(path, Wave):
        return _compare_channels(path)
    status = os.stat(path)
    return _measured(str(path), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(MEASURED_FILES)
def _measured(path: str, *_: int) -> ChannelMeter:
    return _compare_channels(path)


def _compare_channels(path: str | Wave) -> ChannelMeter:
    meter = ChannelMeter()
    with open_recording(path) as stored:
        for channels_SC in stored.blocks():
            meter.add(channels_SC)
    return meter
