"""Reading audio: any rate, width and channel count becomes 16 kHz mono, or is refused by name."""

import hashlib
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import make_voice
from hypothesis import given, settings
from hypothesis import strategies as st

from spoofkit.checks.sound import examine
from spoofkit.data.audio import SAMPLE_RATE, probe, read_audio, read_blocks
from spoofkit.data.channels import DOWNMIXES
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


@pytest.mark.parametrize("rate", [8000, 11025, SAMPLE_RATE, 22050, 44100, 48000, 96000])
def test_part_of_a_file_is_that_part_of_the_whole_bit_for_bit(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", make_voice(1, True, 4.0, rate), rate)
    whole = read_audio(tmp_path / "a.flac")
    for start, n_samples in ((0, 10), (3000, 5000), (20_000, 12_345), (63_000, 1000)):
        part = read_audio(tmp_path / "a.flac", start, n_samples)
        assert np.array_equal(part, whole[start : start + n_samples])


def test_a_part_at_another_rate_does_not_decode_what_comes_later(tmp_path: Path, monkeypatch) -> None:
    soundfile.write(tmp_path / "a.flac", make_voice(1, True, 10.0, 22050), 22050)
    asked, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, frames, *a, **k: asked.append(frames) or read(self, frames, *a, **k)
    )
    read_audio(tmp_path / "a.flac", 16_000, 16_000)
    assert 2 * 22050 <= sum(asked) <= 4 * 22050


@settings(max_examples=30, deadline=None)
@given(n_samples=st.integers(50, 5000), rate=st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000]))
def test_the_header_tells_the_length_that_decoding_gives(n_samples: int, rate: int, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("lengths") / "a.wav"
    soundfile.write(path, np.full(n_samples, 0.1, dtype=np.float32), rate)
    assert probe(path).n_samples == read_audio(path).size


def write_with_av(path: Path, codec: str, waves_CS: np.ndarray, rate: int, pts: int | None = 0) -> None:
    """float32 channels as MP3, AAC or Apple Lossless."""
    import av

    layout = {1: "mono", 2: "stereo"}[waves_CS.shape[0]]
    if codec == "alac":
        waves_CS = np.round(waves_CS * 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(waves_CS), format="s16p" if codec == "alac" else "fltp", layout=layout
        )
        frame.rate, frame.pts = rate, pts
        container.mux([*stream.encode(frame), *stream.encode(None)])


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 44100])
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize(
    ("name", "codec", "reader"),
    [("a.m4a", "aac", "av"), ("a.m4a", "alac", "av"), ("a.mp3", "libmp3lame", "av"), ("a.aac", "aac", "av")],
)
def test_lossy_and_foreign_formats_give_the_tone_that_went_in(
    name: str, codec: str, reader: str, n_channels: int, rate: int, tmp_path: Path
) -> None:
    write_with_av(tmp_path / name, codec, np.stack([tone(440, 1.0, rate)] * n_channels), rate)
    info, decoded = probe(tmp_path / name), read_audio(tmp_path / name)
    assert (info.reader, info.sample_rate, info.n_channels, info.n_samples) == (reader, rate, n_channels, decoded.size)
    assert abs(decoded.size - SAMPLE_RATE) < 2100  # AAC pads to frames of 1024
    peak = np.abs(np.fft.rfft(decoded[4000:12000])).argmax() * SAMPLE_RATE / 8000
    assert abs(peak - 440) < 4
    assert abs(np.abs(decoded[4000:12000]).max() - 0.5) < 0.03  # LAME scales by 0.95


def test_without_av_wav_and_flac_are_read_and_what_needs_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = tone(440, 0.5, SAMPLE_RATE)
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, wave, SAMPLE_RATE, subtype="PCM_24")
    write_with_av(tmp_path / "a.m4a", "aac", wave[None], SAMPLE_RATE)
    monkeypatch.setitem(sys.modules, "av", None)  # as Python itself has it: importing fails
    for name in ("a.wav", "a.flac"):
        assert probe(tmp_path / name).n_samples == wave.size
        assert np.abs(read_audio(tmp_path / name) - wave).max() < 1e-6
    for read in (probe, read_audio, lambda path: list(read_blocks(path))):
        with pytest.raises(SpoofkitError, match="pip install av"):
            read(tmp_path / "a.m4a")


@pytest.mark.parametrize("pts", [0, None])
@pytest.mark.parametrize("rate", [22_050, 44_100])  # whose milliseconds are no whole samples
@pytest.mark.parametrize("n_samples", [15_360, 16_000, 30_001])
def test_an_mp4_is_as_long_as_decoding_it_gives(n_samples: int, rate: int, pts: int | None, tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    write_with_av(path, "aac", tone(440, 2.0, rate)[None, :n_samples], rate, pts)
    expected = n_samples * SAMPLE_RATE / rate
    assert expected - 20 <= probe(path).n_samples == read_audio(path).size <= expected + 2048 * SAMPLE_RATE / rate


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24, 32])
def test_flac_of_any_width_is_read_exactly_though_libsndfile_refuses_some(
    bits: int, n_channels: int, tmp_path: Path
) -> None:
    path, top = tmp_path / "a.flac", 1 << (bits - 1)
    samples_SC = np.random.default_rng(0).integers(-top // 2, top // 2, (4000, n_channels))
    write_flac(path, samples_SC, SAMPLE_RATE, bits)
    info = probe(path)
    assert (info.n_samples, info.n_channels, info.bits) == (4000, n_channels, bits)
    assert info.reader == ("soundfile" if bits in (8, 16, 24) else "av")
    assert np.abs(read_audio(path) - samples_SC.mean(axis=1) / top).max() < 1e-6
    assert np.array_equal(read_audio(path, 1000, 500), read_audio(path)[1000:1500])


def test_a_flac_that_states_no_length_is_decoded_to_be_measured(tmp_path: Path) -> None:
    samples_SC = np.random.default_rng(0).integers(-9000, 9000, (4000, 1))
    write_flac(tmp_path / "a.flac", samples_SC, SAMPLE_RATE, 16, total=0)
    info = probe(tmp_path / "a.flac")
    assert (info.n_samples, info.reader) == (4000, "soundfile")
    assert np.abs(read_audio(tmp_path / "a.flac") - samples_SC[:, 0] / 32768).max() < 1e-6


def test_what_ffmpeg_decodes_of_a_damaged_flac_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", make_voice(1, True, 2.0), SAMPLE_RATE)
    whole = (tmp_path / "a.flac").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "a.flac").write_bytes(whole[:middle])
    for damaged in (whole[:middle], whole[:middle] + b"\xff" * 8 + whole[middle + 8 :]):  # FFmpeg drops that frame
        (tmp_path / "a.flac").write_bytes(damaged)
        with pytest.raises(SpoofkitError, match=r"neither libsndfile nor FFmpeg|decodes to \d+ samples"):
            read_audio(tmp_path / "a.flac")


def test_a_tag_before_a_flac_does_not_hide_its_header(tmp_path: Path) -> None:
    write_flac(tmp_path / "a.flac", np.full((4000, 1), 700), SAMPLE_RATE, 12)
    md5 = probe(tmp_path / "a.flac").flac_md5
    tagged = b"ID3\x04\0\0\0\0\x01\x05" + bytes(133) + (tmp_path / "a.flac").read_bytes()  # 1 * 128 + 5 bytes
    (tmp_path / "a.flac").write_bytes(tagged)
    assert (probe(tmp_path / "a.flac").flac_md5, probe(tmp_path / "a.flac").bits) == (md5, 12)
    assert len(md5) == 32


@pytest.mark.parametrize("chunk", [b"", b"LIST" + (5).to_bytes(4, "little") + b"notes\0"], ids=["plain", "odd chunk"])
def test_a_wav_that_was_cut_says_how_many_bytes_it_lacks(chunk: bytes, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", make_voice(1, True), SAMPLE_RATE)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[:36] + chunk + whole[36:])
    assert probe(tmp_path / "a.wav").n_samples == SAMPLE_RATE
    (tmp_path / "a.wav").write_bytes(whole[:36] + chunk + whole[36:-1234])
    refused_as_cut(tmp_path / "a.wav", 1234)


STREAMED = (0, 0xFFFF_FFFF, 0xFFFF_FFDB, 0x7FFF_F000, 0x7FFF_EFD0, 0x7FFF_FFFF, 0x8000_0000)


@pytest.mark.parametrize("size", [*STREAMED, 32_002, 0x1000_0000, 0xF000_0000])
def test_a_wav_from_a_pipe_lacks_nothing_that_it_states(size: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", make_voice(1, True), SAMPLE_RATE)
    whole = bytearray((tmp_path / "a.wav").read_bytes())
    whole[40:44] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(whole)
    if size in STREAMED:
        assert probe(tmp_path / "a.wav").n_samples == read_audio(tmp_path / "a.wav").size == SAMPLE_RATE
    else:
        refused_as_cut(tmp_path / "a.wav", size - 32_000)


def refused_as_cut(path: Path, n_bytes: int) -> None:
    """By all that reads sound, also where the part that is asked for is there."""
    sentence = rf"{path.name}: lacks {n_bytes:,} bytes of the samples that its header states"
    for read in (probe, read_audio, lambda path: read_audio(path, 100, 50), lambda path: next(read_blocks(path, 50))):
        with pytest.raises(SpoofkitError, match=sentence):
            read(path)


@pytest.mark.parametrize("after", [b"", b"LIST" + (5).to_bytes(4, "little") + b"notes\0"], ids=["plain", "chunk after"])
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64"])
def test_a_wav_that_lacks_a_frame_is_refused_and_a_whole_one_is_read(
    kind: str, subtype: str, n_channels: int, after: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    frames_SC = np.stack([tone(440, 0.1, SAMPLE_RATE)[:1599]] * n_channels, axis=1)  # odd, so that bytes are padded
    soundfile.write(path, frames_SC, SAMPLE_RATE, subtype, format=kind)
    whole = path.read_bytes()
    width = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1}[subtype]
    size = width * n_channels * 1599
    whole = whole[: whole.index(b"data") + 8 + size]  # libsndfile puts a PEAK chunk after floats
    path.write_bytes(whole + bytes(size % 2) + after)
    assert read_audio(path).size == np.concatenate(list(read_blocks(path))).size == 1599
    path.write_bytes(whole)  # a byte of padding is not missed
    assert read_audio(path, 1000, 599).size == 599
    path.write_bytes(whole[: -width * n_channels])
    refused_as_cut(path, width * n_channels)
    path.write_bytes(whole[:-1])
    refused_as_cut(path, 1)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("kind", ["AIFF", "AU"])
def test_an_aiff_or_au_that_was_cut_is_refused_and_a_whole_one_is_read(kind: str, subtype: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    soundfile.write(path, make_voice(1, True)[:15_999], SAMPLE_RATE, subtype, format=kind)
    assert read_audio(path).size == 15_999
    # libsndfile ends an AIFF of floats with its peaks, so that what is cut off may be those.
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(SpoofkitError) as caught:
        read_audio(path)
    lacking = int(re.search(r"lacks ([\d,]+) bytes", str(caught.value))[1].replace(",", ""))
    assert 3900 < lacking <= 4000
    refused_as_cut(path, lacking)


def test_a_cut_wav_that_only_ffmpeg_decodes_is_refused_too(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", make_voice(1, True), SAMPLE_RATE, format="RF64")
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(b"BW64" + whole[4:])
    assert probe(tmp_path / "a.wav").reader == "av"
    assert read_audio(tmp_path / "a.wav").size == SAMPLE_RATE
    (tmp_path / "a.wav").write_bytes(b"BW64" + whole[4:-2000])
    refused_as_cut(tmp_path / "a.wav", 2000)


def test_what_is_no_regular_file_is_said_to_be_none_and_what_is_missing_to_be_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "nowhere.wav").symlink_to("none.wav")
    soundfile.write(tmp_path / "a.wav", make_voice(1, True), SAMPLE_RATE)
    (tmp_path / "good.wav").symlink_to("a.wav")
    for path in (tmp_path / "pipe.wav", tmp_path / "loop.wav", tmp_path, Path(os.devnull)):
        for read in (read_audio, probe, lambda path: next(read_blocks(path))):
            with pytest.raises(SpoofkitError, match=r"is no regular file"):
                read(path)
    for name in ("nowhere.wav", "none.wav", "a.wav/b.wav"):
        with pytest.raises(SpoofkitError, match="no such file"):
            read_audio(tmp_path / name)
    with pytest.raises(SpoofkitError, match="File name too long"):
        read_audio(tmp_path / f"{300 * 'a'}.wav")
    assert read_audio(tmp_path / "good.wav").size == SAMPLE_RATE


def test_rf64_states_its_size_elsewhere(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", make_voice(1, True), SAMPLE_RATE, format="RF64")
    whole = (tmp_path / "a.wav").read_bytes()
    assert whole[:4] == b"RF64"
    assert probe(tmp_path / "a.wav").n_samples == SAMPLE_RATE
    (tmp_path / "a.wav").write_bytes(whole[:-500])
    refused_as_cut(tmp_path / "a.wav", 500)
    for size in (0, (1 << 64) - 1):  # from a pipe
        streamed = bytearray(whole[:-500])
        streamed[28:36] = size.to_bytes(8, "little")
        (tmp_path / "a.wav").write_bytes(streamed)
        with pytest.raises(SpoofkitError, match=r"cannot|neither|decodes to 0 samples"):
            read_audio(tmp_path / "a.wav")


# ---- several channels


def test_a_channel_can_be_chosen_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    left, right = tone(300, 0.3, SAMPLE_RATE), tone(700, 0.3, SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), SAMPLE_RATE, subtype="FLOAT")
    assert np.array_equal(read_audio(tmp_path / "a.wav", downmix="first"), left)
    assert np.array_equal(read_audio(tmp_path / "a.wav", 100, 50, "second"), right[100:150])
    with pytest.raises(SpoofkitError, match="has 2 channels, expected channel 3"):
        read_audio(tmp_path / "a.wav", downmix="third")
    soundfile.write(tmp_path / "a.wav", left, SAMPLE_RATE, subtype="FLOAT")
    for downmix in DOWNMIXES:
        assert np.array_equal(read_audio(tmp_path / "a.wav", downmix=downmix), left)


@pytest.mark.parametrize(
    ("second", "is_lost"),
    [
        (lambda wave: -wave, True),
        (lambda wave: -0.95 * wave, True),  # 32 dB below
        (lambda wave: -0.85 * wave, False),  # 22 dB below
        (lambda wave: np.random.default_rng(1).permutation(wave), False),
        (np.zeros_like, False),
    ],
)
def test_channels_that_cancel_each_other_are_refused_and_never_become_silence(second, is_lost, tmp_path: Path) -> None:
    wave = tone(300, 0.3, SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, second(wave)], axis=1), SAMPLE_RATE, subtype="FLOAT")
    if is_lost:
        with pytest.raises(SpoofkitError, match=r"channels cancel each other .* --channels .* --downmix"):
            read_audio(tmp_path / "a.wav")
    else:
        assert np.abs(read_audio(tmp_path / "a.wav")).max() > 0.02
    assert np.array_equal(read_audio(tmp_path / "a.wav", downmix="first"), wave)


@pytest.mark.parametrize("rate", [8000, SAMPLE_RATE, 44100])
def test_a_part_that_libsndfile_gives_up_on_is_that_part_by_ffmpeg(rate: int, tmp_path: Path, monkeypatch) -> None:
    stereo_SC = np.stack([make_voice(1, True, 2.0, rate), make_voice(2, True, 2.0, rate)], axis=1)
    soundfile.write(tmp_path / "a.flac", stereo_SC, rate)
    expected = read_audio(tmp_path / "a.flac", 7000, 3000, "second")

    def refuse(*_: object, **__: object) -> None:
        raise soundfile.LibsndfileError(0)

    monkeypatch.setattr(soundfile.SoundFile, "read", refuse)
    assert np.array_equal(read_audio(tmp_path / "a.flac", 7000, 3000, "second"), expected)


def test_dither_of_opposite_sign_is_silence_and_no_lost_speech(tmp_path: Path) -> None:
    dither = np.random.default_rng(0).choice([-1, 1], 4000) / 32768
    soundfile.write(tmp_path / "a.wav", np.stack([dither, -dither], axis=1), SAMPLE_RATE)
    assert not read_audio(tmp_path / "a.wav").any()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"not audio" * 99), "neither libsndfile nor FFmpeg can decode"),
        (lambda path: soundfile.write(path, np.zeros(0), SAMPLE_RATE), "holds no samples"),
        (lambda path: soundfile.write(path, np.array([0.1, np.nan]), SAMPLE_RATE, subtype="FLOAT"), "holds NaN"),
        (
            lambda path: soundfile.write(path, np.array([0.1, -32768.0]), SAMPLE_RATE, subtype="FLOAT"),
            "up to 32,768, expected full scale 1",
        ),
    ],
    ids=["missing", "empty file", "text", "no samples", "NaN", "float that is int16"],
)
def test_what_cannot_be_used_is_refused_by_name(make, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(SpoofkitError, match=sentence) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)


def test_a_file_shorter_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tone(200, 0.5, SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(SpoofkitError, match="found 1000 samples, expected 2000"):
        read_audio(tmp_path / "a.flac", 7000, 2000)


# ---- files that libsndfile does not read


def crc(data: bytes, polynomial: int, width: int) -> int:
    """CRC of FLAC's frames (RFC 9639, 9.1.8 and 9.3), bit by bit."""
    value, top = 0, 1 << (width - 1)
    for byte in data:
        value ^= byte << (width - 8)
        for _ in range(8):
            value = (value << 1) ^ polynomial if value & top else value << 1
        value &= (1 << width) - 1
    return value


def write_flac(
    path: Path, samples_SC: np.ndarray, rate: int, bits: int, *, total: int | None = None, comment: bytes = b""
) -> None:
    """A FLAC of one uncompressed frame of any width, from RFC 9639; libsndfile knows 8, 16 and 24 bits only."""
    n_samples, n_channels = samples_SC.shape
    width = (bits + 7) // 8
    raw = b"".join(int(v).to_bytes(width, "little", signed=True) for v in samples_SC.ravel())
    stated = n_samples if total is None else total
    info = n_samples.to_bytes(2, "big") * 2 + bytes(6)
    info += (rate << 44 | (n_channels - 1) << 41 | (bits - 1) << 36 | stated).to_bytes(8, "big")
    info += hashlib.md5(raw).digest()
    head = bytes([0xFF, 0xF8, 0b0111_0000, (n_channels - 1) << 4, 0]) + (n_samples - 1).to_bytes(2, "big")
    frame = head + bytes([crc(head, 0x07, 8)])
    mask = (1 << bits) - 1
    subframes = "".join(
        "00000010" + "".join(format(int(v) & mask, f"0{bits}b") for v in samples_SC[:, c]) for c in range(n_channels)
    )
    subframes += "0" * (-len(subframes) % 8)
    frame += int(subframes, 2).to_bytes(len(subframes) // 8, "big")
    blocks = [info]
    if comment:
        blocks.append(bytes(4) + (1).to_bytes(4, "little") + len(comment).to_bytes(4, "little") + comment)
    # The first byte of a block's header is its kind (0 STREAMINFO, 4 comments), and 128 more for the last.
    kinds = [(0, 4)[i] + 128 * (i == len(blocks) - 1) for i in range(len(blocks))]
    header = b"".join(bytes([k]) + len(b).to_bytes(3, "big") + b for k, b in zip(kinds, blocks, strict=True))
    path.write_bytes(b"fLaC" + header + frame + crc(frame, 0x8005, 16).to_bytes(2, "big"))


def test_a_part_that_cancels_of_a_file_that_does_not_is_read(tmp_path: Path) -> None:
    """What `validate` passes must not end a training at some crop."""
    wave = tone(300, 0.4, SAMPLE_RATE)
    second = np.where(np.arange(wave.size) < wave.size // 2, wave, -wave)
    soundfile.write(tmp_path / "half.wav", np.stack([wave, second], axis=1), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "lost.wav", np.stack([wave, -wave], axis=1), SAMPLE_RATE, subtype="FLOAT")
    assert not examine(tmp_path / "half.wav").is_cancelled
    assert np.abs(read_audio(tmp_path / "half.wav", wave.size // 2 + 10, 2000)).max() < 1e-6
    with pytest.raises(SpoofkitError, match="channels cancel each other"):
        read_audio(tmp_path / "lost.wav", 1000, 2000)


def test_damaged_headers_are_sentences(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", make_voice(0, True), SAMPLE_RATE)
    soundfile.write(tmp_path / "a.flac", make_voice(0, True), SAMPLE_RATE)
    wav, flac = (bytearray((tmp_path / f"a.{kind}").read_bytes()) for kind in ("wav", "flac"))
    wav[20:22] = b"\x77\x77"  # the codec's tag
    flac[21] |= 0x0F  # the highest bits of the number of samples
    (tmp_path / "tag.wav").write_bytes(wav)
    (tmp_path / "length.flac").write_bytes(flac)
    slow = bytearray((tmp_path / "a.wav").read_bytes())
    slow[24:28] = (1).to_bytes(4, "little")
    (tmp_path / "slow.wav").write_bytes(slow)
    slow[24:28] = (2_000_000_000).to_bytes(4, "little")  # a second of which is 8 GB
    (tmp_path / "fast.wav").write_bytes(slow)
    for name, sentence in (
        ("tag.wav", "neither libsndfile nor FFmpeg"),
        ("length.flac", r"decodes to 16000 samples, expected 64424525440"),
        ("slow.wav", "states a sampling rate of 1 Hz, expected 2000 to 1000000"),
        ("fast.wav", "states a sampling rate of 2000000000 Hz"),
    ):
        with pytest.raises(SpoofkitError, match=sentence):
            probe(tmp_path / name)
    with pytest.raises(SpoofkitError, match="neither libsndfile nor FFmpeg"):
        read_audio(tmp_path / "tag.wav")


def test_a_clip_of_exactly_the_length_that_is_asked_for_is_read_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", make_voice(0, True), SAMPLE_RATE)
    assert read_audio(tmp_path / "a.flac", 0, SAMPLE_RATE).size == SAMPLE_RATE
