"""Code and decode audio, aligned: input and output waves correspond sample by sample.

All codecs come with PyAV's and soundfile's wheels, so no ffmpeg program is needed. PyAV's build has no Speex encoder;
AAC, also a codec of ASVspoof 5, replaces it. There are two groups: the codecs of Debian's human recordings (every file
of both classes goes through one of these), and the conditions of the eval set.
"""

import io
from dataclasses import dataclass

import av
import numpy as np
import soundfile

from spoofkit.errors import SpoofkitError

SAMPLE_RATE = 16_000  # Hz, in and out
G722_DELAY = 22  # samples at 16 kHz; the QMF pair of encoder and decoder
VORBIS_QUALITY = 0.6  # soundfile's compression level, 0 (large) to 1 (small): near 50 kbit/s at 16 kHz


@dataclass(frozen=True)
class Codec:
    """One condition of the eval set: its values of the columns CODEC and CODEC_Q, and how to code."""

    codec: str
    quality: str
    description: str
    encoder: str
    """FFmpeg's name."""
    container: str
    sample_rate: int
    """Sampling rate of the codec, in Hz."""
    bit_rate: int | None
    """bit/s; None if the format fixes it."""


EVAL_CODECS = (
    Codec("C01", "1", "Opus, 8 kbit/s", "libopus", "ogg", 16_000, 8_000),
    Codec("C01", "2", "Opus, 16 kbit/s", "libopus", "ogg", 16_000, 16_000),
    Codec("C02", "1", "MP3, 32 kbit/s", "libmp3lame", "mp3", 16_000, 32_000),
    Codec("C03", "1", "AAC in M4A, 16 kbit/s", "aac", "mp4", 16_000, 16_000),
    Codec("C04", "1", "G.711 mu-law, 8 kHz, 64 kbit/s", "pcm_mulaw", "wav", 8_000, None),
)


def check_encoders() -> None:
    """Raise SpoofkitError naming the encoder that this PyAV lacks."""
    for encoder in sorted({codec.encoder for codec in EVAL_CODECS} | {"g722"}):
        if encoder not in av.codecs_available:
            raise SpoofkitError(
                f"PyAV {av.__version__} has no encoder {encoder}; install the wheel from PyPI: pip install -U av"
            )


def through(codec: Codec, wave_S: np.ndarray) -> np.ndarray:
    """Code and decode with one of EVAL_CODECS; same length, aligned."""
    return _through_av(wave_S, codec.encoder, codec.container, codec.sample_rate, codec.bit_rate, delay=0)


def through_g722(wave_S: np.ndarray) -> np.ndarray:
    """Code and decode with G.722 at 64 kbit/s, the codec of the Asterisk prompts; same length, aligned."""
    return _through_av(wave_S, "g722", "g722", SAMPLE_RATE, None, delay=G722_DELAY)


def through_vorbis(wave_S: np.ndarray) -> np.ndarray:
    """Code and decode with Ogg Vorbis, the codec of the Tux Paint recordings; same length, aligned."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", SAMPLE_RATE, 1, format="OGG", subtype="VORBIS", compression_level=VORBIS_QUALITY
    ) as file:
        file.write(wave_S)
    buffer.seek(0)
    decoded_S, _ = soundfile.read(buffer, dtype="float64")
    return _fit(decoded_S, len(wave_S), 0, "vorbis")


def decode_g722(data: bytes) -> np.ndarray:
    """Decode a raw G.722 stream, such as an Asterisk prompt, to 16 kHz."""
    if not data:
        raise SpoofkitError("a G.722 recording is empty; fetch the package again")
    return _decode(io.BytesIO(data), "g722")


def _through_av(
    wave_S: np.ndarray, encoder: str, container: str, rate: int, bit_rate: int | None, delay: int
) -> np.ndarray:
    # Some silence at the end, so that a delayed codec still returns the last samples.
    padded_S = np.concatenate([wave_S, np.zeros(SAMPLE_RATE // 10)])
    pcm_S = np.round(np.clip(padded_S, -1, 1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm_S[None], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    frame.pts = 0
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(encoder, rate=rate)
        stream.layout = "mono"
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        resampler = av.AudioResampler(
            format=stream.format.name, layout="mono", rate=rate, frame_size=stream.frame_size or None
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    buffer.seek(0)
    return _fit(_decode(buffer, "g722" if container == "g722" else None), len(wave_S), delay, encoder)


def _decode(buffer: io.BytesIO, container: str | None) -> np.ndarray:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    pieces = []
    with av.open(buffer, "r", format=container) as file:
        for frame in file.decode(audio=0):
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    return np.concatenate(pieces) / 32768 if pieces else np.zeros(0)


def _fit(decoded_S: np.ndarray, n_samples: int, delay: int, what: str) -> np.ndarray:
    aligned_S = decoded_S[delay : delay + n_samples]
    if len(aligned_S) < n_samples:
        raise RuntimeError(f"{what} gave back {len(aligned_S)} of {n_samples} samples")
    return aligned_S
