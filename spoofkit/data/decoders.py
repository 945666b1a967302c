"""Decoding recordings: block by block, as stored, to the end of the file or not at all.

libsndfile decodes the formats whose length it knows exactly, FFmpeg's libraries the rest; docs/audio.md says which,
and what is checked. Both get an open file and never its name, so nothing is opened that a name or a file's content
points to.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from spoofkit.data.containers import HOW, plain_extent, require_filled
from spoofkit.data.flac import WIDEST_EXACT, SamplesMd5, holds_another, is_whole_frame, last_frame, stream_info
from spoofkit.data.mpeg import require_packets
from spoofkit.data.ogg import recordings
from spoofkit.data.packed import SAMPLE_BYTES, Address, parse_address, read_packed
from spoofkit.data.spans import Span
from spoofkit.data.stored import READ_RATE, AudioInfo, Layout, Stored, decoding_errors, require_plausible, skip_samples
from spoofkit.data.streams import count_frames
from spoofkit.data.wave import Wave, open_wave
from spoofkit.data.with_ffmpeg import by_ffmpeg
from spoofkit.data.with_libsndfile import by_libsndfile
from spoofkit.errors import SpoofkitError
from spoofkit.suggestions import nearest_name


@contextmanager
def open_recording(path: Path | str | Wave) -> Iterator[Stored]:
    """Open any audio file, an address of packed audio, or a recording in memory.

    Raises:
        SpoofkitError: missing, undecodable, cut short, too long, with something after its samples that would not be
            read, or changed before it is closed.
    """
    if isinstance(path, Wave):
        yield open_wave(path)
        return
    where = str(path)
    if (address := parse_address(path)) is not None:
        yield _packed(where, address)
        return
    _require_file(path)
    with ExitStack() as stack:
        with decoding_errors(where):
            descriptor = os.open(path, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            before = os.fstat(descriptor)
            if not before.st_size:
                raise SpoofkitError(f"{path}: is empty (0 bytes), expected audio; fetch it again")
            parts = [_open_one(stack, where, *part) for part in _find_recordings(Span(descriptor), where)]
            stored = _joined(where, parts) if parts[1:] else parts[0]
            require_plausible(stored)
        yield stored
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise SpoofkitError(
                f"{path}: changed while it was read, expected a finished file; wait until it is written"
            )


def _require_file(path: Path | str) -> None:
    why = ""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        raise SpoofkitError(f"{path}: no such file{nearest_name(path)}; check its name and folder") from error
    except PermissionError as error:
        raise SpoofkitError(f"{path}: cannot be read ({error.strerror}); check its folder's permissions") from error
    except OSError as error:
        why = f" ({error.strerror})"
    raise SpoofkitError(f"{path}: is no regular file{why}, expected an audio file; write the audio to a file first")


def _packed(where: str, address: Address) -> Stored:
    read_packed(address, n_samples=0)  # for its checks

    def read(first: int, size: int) -> Iterator[np.ndarray]:
        for start in range(first, address.n_samples, size):
            yield read_packed(address, start, size)[:, None]

    n_bytes = SAMPLE_BYTES * address.n_samples
    return Stored(where, AudioInfo(READ_RATE, 1, "PCM_16", 16, "pack", n_bytes, address.n_samples), read)


def _find_recordings(span: Span, where: str) -> list[tuple[Span, Layout]]:
    """Find the recordings in a file by its bytes: one, or several in an Ogg or MP3 file that was concatenated.

    Raises:
        SpoofkitError: it is cut short, or more follows than it states.
    """
    if (info := stream_info(span)) is not None:
        return [(span, Layout(flac=info, last_flac_frame=last_frame(span, info) if info.n_samples else None))]
    if span.at(0, 4) == b"OggS":
        return [(span.part(*part), Layout(is_ogg=True)) for part in recordings(span, where)]
    if (plain := plain_extent(span, where)) is not None:
        return [(span, Layout(plain=plain))]
    if require_filled(span, where) or require_packets(span, where):
        return [(span, Layout(is_filled=True))]
    frames = count_frames(span, where)
    return [(span.part(one.start, one.end), Layout(frames=one)) for one in frames] or [(span, Layout())]


def _open_one(stack: ExitStack, where: str, span: Span, layout: Layout) -> Stored:
    stored = None
    if layout.frames is None and not layout.is_filled:
        stored = by_libsndfile(stack, where, span, layout)
    if stored is None:
        stored = by_ffmpeg(stack, where, span, layout)
    return stored if layout.flac is None else _flac(where, span, layout, stored)


def _joined(where: str, parts: list[Stored]) -> Stored:
    """Join the recordings of one file, one after the other."""
    infos = [part.info for part in parts]
    if len({(info.sample_rate, info.n_channels) for info in infos}) > 1:
        raise SpoofkitError(
            f"{where}: holds {len(parts)} recordings of different sampling rates or numbers of channels, expected one; "
            f"split them, or {HOW}"
        )

    def read(first: int, size: int) -> Iterator[np.ndarray]:
        return skip_samples(chain.from_iterable(part.read(0, size) for part in parts), first)

    lengths = [info.n_frames for info in infos if info.n_frames is not None]
    n_frames = sum(lengths) if len(lengths) == len(parts) else None
    return Stored(where, replace(infos[0], n_bytes=sum(info.n_bytes for info in infos), n_frames=n_frames), read)


def _flac(where: str, span: Span, layout: Layout, stored: Stored) -> Stored:
    """Check a FLAC as a whole; libsndfile and FFmpeg compare the CRC of each frame that they read."""
    flac, last = layout.flac, layout.last_flac_frame
    assert flac is not None

    def by_either(first: int, size: int) -> Iterator[np.ndarray]:
        try:
            for block_SC in stored.read(first, size):
                first += block_SC.shape[0]
                yield block_SC
        except soundfile.LibsndfileError:  # it fails on some intact files, so FFmpeg decides
            with ExitStack() as stack:
                yield from by_ffmpeg(stack, where, span, layout).read(first, size)

    def read(first: int, size: int) -> Iterator[np.ndarray]:
        if first:
            yield from by_either(first, size)
            return
        md5 = SamplesMd5(flac.bits) if flac.md5 and flac.bits <= WIDEST_EXACT else None
        for block_SC in by_either(0, size):
            if md5 is not None:
                md5.add(block_SC)
            yield block_SC
        if md5 is not None and md5.digest.hexdigest() != flac.md5:
            raise SpoofkitError(
                f"{where}: the MD5 of its samples differs from that in its FLAC header; it is damaged, or something "
                f"was appended to it, so {HOW}"
            )
        if flac.n_samples and (last is None or not is_whole_frame(span, last) or holds_another(span, flac.frames_at)):
            raise SpoofkitError(
                f"{where}: does not end with the last of the {flac.n_samples:,} samples that its FLAC header states; "
                f"something was appended to it, or it is damaged, so {HOW}"
            )

    return replace(stored, read=read)
