"""Decoding with FFmpeg's libraries: formats that libsndfile does not know or whose length it guesses (MPEG audio).

A file is read from its start to its end, without seeking. FFmpeg gets an open file without a name, and may use only the
containers listed here and no protocol: a playlist, a list of files or a name like `http:…` opens nothing.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.containers import HOW, refuse_rest, refuse_tracks
from spoofkit.data.spans import Span, end_of_content, end_without_tags
from spoofkit.data.stored import (
    HEADERLESS,
    AudioInfo,
    Layout,
    Stored,
    check_length,
    join_blocks,
    skip_samples,
    undecodable,
)
from spoofkit.errors import SpoofkitError

FFMPEG_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,g722,matroska,mov,mp3,mp4,mpeg,mpegts,nistsphere,ogg,"
    "shn,tta,w64,wav,webm,wv"
)
# Containers that are not walked and end with their last frame; FFmpeg reads only the first of several recordings.
ENDING_WITH_FRAMES = ("ape", "shn", "tta", "wv")
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
MOST_TAIL_BYTES = 4_096  # after that frame
MP4_SLACK = 0.005  # seconds; its edit list counts whole milliseconds
PRIMING_FRAMES = 2  # before the encoded sound; without an edit list the length of MP4's fragments includes them


def by_ffmpeg(stack: ExitStack, where: str, span: Span, layout: Layout) -> Stored:
    """Open a file with FFmpeg until `stack` is closed.

    Raises:
        SpoofkitError: FFmpeg does not know the format, or PyAV is not installed.
    """
    container, stream = _opened(stack, where, span, layout)
    flac = layout.flac
    rate, channels, codec = stream.rate, stream.channels, stream.codec_context.name

    def read(first: int, size: int) -> Iterator[np.ndarray]:
        expected = (flac.n_samples or None) if flac else _plain_frames(stream, layout)
        frames = check_length(where, rate, _decoded(where, span, layout, container, stream), expected)
        yield from skip_samples(join_blocks(frames, size), first)

    if flac is None:
        return Stored(where, AudioInfo(rate, channels, codec, 0, "av", len(span), None), read)
    n_frames = None if layout.last_flac_frame is None else flac.n_samples
    info = AudioInfo(rate, channels, f"PCM_{flac.bits}", flac.bits, "av", len(span), n_frames, flac.md5)
    return Stored(where, info, read)


def _opened(stack: ExitStack, where: str, span: Span, layout: Layout) -> tuple[Any, Any]:
    """Open a file's container and audio stream."""
    try:
        import av
    except ImportError as error:
        raise SpoofkitError(
            f"{where}: libsndfile does not read this format, and PyAV, which does, is not installed; install it with "
            "`pip install av`, or convert the file to FLAC"
        ) from error
    headerless = HEADERLESS.get(Path(where).suffix.lower(), ("", 0))[0]
    name = headerless if layout == Layout() and headerless in FFMPEG_CONTAINERS.split(",") else None
    options = {"format_whitelist": FFMPEG_CONTAINERS, "protocol_whitelist": "none"}
    source = span.part(0, end_without_tags(span))
    try:
        container = stack.enter_context(av.open(source, format=name, options=options, metadata_errors="replace"))
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise undecodable(where, error) from error
    if not container.streams.audio:
        raise SpoofkitError(f"{where}: has no audio stream, expected speech; remove it from the list")
    if (n_tracks := len(container.streams.audio)) > 1:
        refuse_tracks(where, n_tracks)
    stream = container.streams.audio[0]
    if stream.codec_context is None or not stream.rate:
        raise undecodable(where, "its codec is unknown, or its header is damaged")
    if layout == Layout() and container.format.name not in (*ENDING_WITH_FRAMES, name):
        raise undecodable(where, f"it does not begin with two frames of {stream.codec_context.name}")
    if layout.plain is not None and stream.codec_context.name == "flac":
        raise undecodable(where, "FFmpeg silently drops damaged FLAC frames in this container")
    stream.codec_context.options = {"err_detect": "crccheck+explode"}  # reports all damage that it notices
    return container, stream


def _decoded(where: str, span: Span, layout: Layout, container: Any, stream: Any) -> Iterator[np.ndarray]:
    """Yield FFmpeg's frames, some milliseconds each, of shape (samples, channels)."""
    import av

    rate, layout_name = stream.rate, stream.layout.name
    resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
    n_samples = n_packet_bytes = duration = end = 0
    for packet in container.demux(stream):
        if packet.is_corrupt and layout.plain is None:  # the last packet of plain samples may be short
            raise undecodable(where, "a packet is damaged")
        n_packet_bytes, duration = n_packet_bytes + packet.size, duration + (packet.duration or 0)
        end = max(end, (packet.pos or 0) + packet.size)
        for frame in packet.decode():
            if (frame.sample_rate, frame.layout.name) != (rate, layout_name):
                raise SpoofkitError(
                    f"{where}: changes from {rate} Hz, {layout_name} to {frame.sample_rate} Hz, {frame.layout.name} "
                    f"after {n_samples / rate:.1f} s, expected one coding throughout; split it there, or {HOW}"
                )
            for part in resampler.resample(frame):
                n_samples += part.samples
                yield part.to_ndarray().T.astype(np.float32, copy=False)
    if n_samples:
        for part in resampler.resample(None):
            n_samples += part.samples
            yield part.to_ndarray().T.astype(np.float32, copy=False)
    if layout.flac is not None and n_packet_bytes < end_of_content(span) - layout.flac.frames_at:
        raise undecodable(where, f"only {n_packet_bytes:,} bytes of it are FLAC frames")
    if container.format.name in ENDING_WITH_FRAMES and end_of_content(span) - end > MOST_TAIL_BYTES:
        refuse_rest(where, end_of_content(span) - end)
    expected, slack = _expected_seconds(container, stream, layout)
    _require_all(where, n_samples / rate, expected, slack)
    if container.format.name == MP4:
        _require_all(where, float(duration * stream.time_base), expected, MP4_SLACK)


def _plain_frames(stream: Any, layout: Layout) -> int | None:
    """Return the number of samples in a container of uncompressed samples; None if it is compressed."""
    codec = stream.codec_context
    if layout.plain is None or not codec.name.startswith("pcm_") or not codec.format:
        return None
    bits = {"pcm_mulaw": 8, "pcm_alaw": 8, "pcm_s24le": 24, "pcm_s24be": 24}.get(codec.name, 8 * codec.format.bytes)
    n_frames: int = layout.plain.n_bytes // (bits // 8 * stream.channels)
    return n_frames


def _expected_seconds(container: Any, stream: Any, layout: Layout) -> tuple[float, float]:
    """Return how long a recording must be, and by how much it may be shorter."""
    if layout.frames is not None:
        return layout.frames.seconds, layout.frames.slack_seconds
    if container.format.name == MP4 and stream.duration:
        primed = PRIMING_FRAMES * stream.codec_context.frame_size / stream.rate
        return float(stream.duration * stream.time_base), max(MP4_SLACK, primed)
    if container.streams.video:  # the header may state the length of the video
        return 0.0, 0.0
    if container.format.name == "avi" and stream.duration:
        return float(stream.duration * stream.time_base), 0.005
    if container.format.name in ("asf", "matroska,webm") and container.duration:
        return container.duration / 1_000_000, 0.1  # more than one of their frames
    return 0.0, 0.0


def _require_all(where: str, seconds: float, expected: float, slack: float) -> None:
    if seconds < expected - slack:
        raise SpoofkitError(
            f"{where}: decodes to {seconds:.2f} s, expected {expected:.2f} s from its frames or header; it is cut "
            f"short or damaged, so {HOW}"
        )
