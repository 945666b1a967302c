"""Decoding with libsndfile: WAV, FLAC, Ogg and others whose length it knows exactly."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import soundfile

from spoofkit.data.spans import Span, end_without_tags
from spoofkit.data.stored import HEADERLESS, AudioInfo, Layout, Stored, check_length, skip_samples
from spoofkit.errors import SpoofkitError

NOT_STATED = 1 << 62  # libsndfile's length of a FLAC that states none is the largest number it has
WIDTHS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
STORED_BYTES = {"ULAW": 1, "ALAW": 1} | {subtype: bits // 8 for subtype, bits in WIDTHS.items()}


def by_libsndfile(stack: ExitStack, where: str, span: Span, layout: Layout) -> Stored | None:
    """Open a file with libsndfile until `stack` is closed; None if it does not know it, or guesses its length.

    Raises:
        SpoofkitError: libsndfile knows the format, but nothing shows whether the file is complete.
    """
    file = _opened(span, where, layout)
    if file is None:
        return None
    stack.enter_context(file)
    if _is_misread(file, where, layout):
        return None
    flac, rate = layout.flac, file.samplerate
    is_stated = file.frames < NOT_STATED and (flac is None or layout.last_flac_frame is not None)
    # Adaptive and transform codecs depend on earlier samples.
    is_exact = is_stated and soundfile.SoundFile.seekable(file) and (flac is not None or file.subtype in STORED_BYTES)

    def read(first: int, size: int) -> Iterator[np.ndarray]:
        blocks = _blocks(file, size)
        if is_exact and first:
            file.seek(min(first, file.frames))
            return blocks
        return skip_samples(check_length(where, rate, blocks, file.frames if file.frames < NOT_STATED else None), first)

    bits = WIDTHS.get(file.subtype, flac.bits if flac else 0)
    n_frames = file.frames if is_stated else None
    md5 = flac.md5 if flac else None
    info = AudioInfo(rate, file.channels, file.subtype, bits, "soundfile", len(span), n_frames, md5)
    return Stored(where, info, read)


class _Sequential(soundfile.SoundFile):
    """A sound file that soundfile does not seek in after every block, which is slow and not every codec can do."""

    def seekable(self) -> bool:
        return False


def _opened(span: Span, where: str, layout: Layout) -> _Sequential | None:
    end = end_without_tags(span)
    is_all = end == os.fstat(span.descriptor).st_size
    # A descriptor would be read without Span; libsndfile would take tags for samples.
    source = span.descriptor if is_all else span.part(0, end)
    os.lseek(span.descriptor, 0, os.SEEK_SET)
    try:
        if layout.flac is not None or not _looks_like_mpeg(span):
            return _Sequential(source, closefd=False)
    except soundfile.LibsndfileError:
        pass
    coding, rate = HEADERLESS.get(Path(where).suffix.lower(), ("", 0))
    if layout != Layout() or coding not in soundfile.available_subtypes("RAW"):
        return None
    source = span.descriptor if is_all else span.part(0, end)
    os.lseek(span.descriptor, 0, os.SEEK_SET)
    return _Sequential(source, closefd=False, format="RAW", subtype=coding, samplerate=rate, channels=1)


def _looks_like_mpeg(span: Span) -> bool:
    """Return whether libsndfile would take it for MPEG audio: FFmpeg decodes that, libmpg123 would write to stderr."""
    head = span.at(0, 3)
    return head == b"ID3" or (len(head) == 3 and head[0] == 0xFF and head[1] >= 0xE0)


def _is_misread(file: soundfile.SoundFile, where: str, layout: Layout) -> bool:
    """Return whether libsndfile would not read all samples.

    Raises:
        SpoofkitError: it cannot be told.
    """
    if "MPEG" in file.subtype or file.format == "MP3":  # whose length it guesses
        return True
    if layout == Layout() and file.format != "RAW":
        raise SpoofkitError(
            f"{where}: is {file.format}, a format that does not show whether the file is complete (see docs/audio.md); "
            "convert it to FLAC"
        )
    width = STORED_BYTES.get(file.subtype, 0) * file.channels
    if layout.plain is not None and width:
        return bool(file.frames != layout.plain.n_bytes // width)
    return False


def _blocks(file: soundfile.SoundFile, size: int) -> Iterator[np.ndarray]:
    while (block_SC := file.read(size, dtype="float32", always_2d=True)).size:
        yield block_SC
