"""Reading audio: any rate, width and channel count becomes 16 kHz mono, or is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import make_voice
from hypothesis import given, settings
from hypothesis import strategies as st

from spoofkit.data.audio import SAMPLE_RATE, probe, read_audio
from spoofkit.errors import SpoofkitError


def tone(hertz: float, seconds: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_any_rate_and_width_gives_the_same_tone(rate: int, subtype: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, 0.5, rate), rate, subtype=subtype)
    wave = read_audio(tmp_path / "a.wav")
    inside = slice(800, 7200)  # the resampler's edges left out
    assert wave.dtype == np.float32
    assert wave.size == 8000
    assert np.abs(wave[inside] - tone(440, 0.5, SAMPLE_RATE)[inside]).max() < 1e-3


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(300, 0.3, SAMPLE_RATE), tone(700, 0.3, SAMPLE_RATE)
    soundfile.write(tmp_path / "a.flac", np.stack([left, right], axis=1), SAMPLE_RATE)
    assert probe(tmp_path / "a.flac").n_channels == 2
    assert np.abs(read_audio(tmp_path / "a.flac") - (left + right) / 2).max() < 1e-4


def test_part_of_a_file_is_that_part_of_the_whole(tmp_path: Path) -> None:
    for name, rate in (("a.flac", SAMPLE_RATE), ("b.flac", 22050)):
        soundfile.write(tmp_path / name, make_voice(1, True, 1.0, rate), rate)
        whole = read_audio(tmp_path / name)
        assert np.array_equal(read_audio(tmp_path / name, 3000, 5000), whole[3000:8000])


@settings(max_examples=30, deadline=None)
@given(n_samples=st.integers(50, 5000), rate=st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000]))
def test_the_header_tells_the_length_that_decoding_gives(n_samples: int, rate: int, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("lengths") / "a.wav"
    soundfile.write(path, np.full(n_samples, 0.1, dtype=np.float32), rate)
    assert probe(path).n_samples == read_audio(path).size


def test_what_libsndfile_does_not_know_is_decoded_by_ffmpeg(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.m4a"
    wave = tone(440, 1.0, SAMPLE_RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(str(path))
    decoded = read_audio(path)
    assert abs(decoded.size - wave.size) < 2100  # AAC pads to frames of 1024
    peak = np.abs(np.fft.rfft(decoded[4000:12000])).argmax() * SAMPLE_RATE / 8000
    assert abs(peak - 440) < 4


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "neither libsndfile nor FFmpeg can decode"),
        (lambda path: path.write_bytes(b"not audio" * 99), "neither libsndfile nor FFmpeg can decode"),
        (lambda path: soundfile.write(path, np.zeros(0), SAMPLE_RATE), "holds no samples"),
        (lambda path: soundfile.write(path, np.array([0.1, np.nan]), SAMPLE_RATE, subtype="FLOAT"), "holds NaN"),
    ],
    ids=["missing", "empty file", "text", "no samples", "NaN"],
)
def test_what_cannot_be_used_is_refused_by_name(make, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(SpoofkitError, match=sentence) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)


def test_a_file_shorter_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tone(200, 0.5, SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(SpoofkitError, match="found 1000 samples where 2000 were expected"):
        read_audio(tmp_path / "a.flac", 7000, 2000)
