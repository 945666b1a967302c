"""Every container and codec that is read: whole, joined, cut, with a tag behind it and with a run of damaged bytes.

What a file holds is known, since it is made here. A file is read to its end or refused, whoever reads and whatever part
is asked for; a part of it never passes for the whole.
"""

import http.server
import io
import re
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from conftest import make_voice, refusal, run_cli, table_rows
from test_audio import write_flac

from spoofkit.checks.sound import examine
from spoofkit.data import audio
from spoofkit.data.audio import SAMPLE_RATE, probe, read_audio, read_blocks
from spoofkit.data.stored import LONGEST_HOURS, undecodable
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.windows import Windows, in_windows

SECONDS, MORE_SECONDS = 3.0, 2.0
TAG = b"TAG" + b"x" * 125  # ID3v1
KBIT = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # of MPEG-2, layer III


def by_libsndfile(container: str, subtype: str, rate: int, seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, make_voice(int(seconds), True, seconds, rate), rate, subtype, format=container)
    return file.getvalue()


def by_ffmpeg(container: str, codec: str, rate: int, seconds: float, **options: str) -> bytes:
    return with_tracks(container, [(codec, rate, seconds, 0.0)], **options)


def with_tracks(
    container: str, tracks: list[tuple[str, int, float, float]], has_video: bool = False, **options: str
) -> bytes:
    """A file of some audio tracks: their codecs, sampling rates, seconds, and when they begin."""
    file = io.BytesIO()
    container, *more = container.split(":")
    options |= dict(option.split("=") for option in more)
    bit_rate = options.pop("bit_rate", None)
    with av.open(file, "w", format=container, options=options) as opened:
        video = opened.add_stream("mpeg4", rate=25) if has_video else None
        streams = [opened.add_stream(codec, rate=rate, layout="mono") for codec, rate, _, _ in tracks]
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for stream in streams:
            if bit_rate is not None:
                stream.bit_rate = int(bit_rate)
            stream.codec_context.open()
        if video is not None:
            for number in range(100):
                picture = av.VideoFrame(64, 64, "yuv420p")
                picture.pts = number
                opened.mux(video.encode(picture))
            opened.mux(video.encode(None))
        for stream, (_, rate, seconds, begin) in zip(streams, tracks, strict=True):
            context = stream.codec_context
            resampler = av.AudioResampler(context.format, "mono", rate, frame_size=context.frame_size or None)
            wave_S = make_voice(int(seconds), True, seconds, rate)
            frame = av.AudioFrame.from_ndarray(wave_S[None], format="fltp", layout="mono")
            frame.rate, frame.pts = rate, int(begin * rate)
            for part in (*resampler.resample(frame), *resampler.resample(None)):
                opened.mux(stream.encode(part))
            opened.mux(stream.encode(None))
    return file.getvalue()


# What makes a file, its name, the most samples at 16 kHz by which its length differs (delay and padding), and what is
# made of it when joined, cut, and damaged: `whole` (as long as it was made), `rest` (what is there), `refused`.
MP3 = ("mp3", "libmp3lame", 16_000)
FRAGMENTS = ("mp4:movflags=frag_keyframe+empty_moov+delay_moov:frag_duration=500000", "aac")
FORMATS = {
    "wav": (by_libsndfile, ("WAV", "PCM_16", 16_000), "a.wav", 0, "refused", "refused", "whole"),
    "wav ulaw": (by_libsndfile, ("WAV", "ULAW", 8_000), "a.wav", 0, "refused", "refused", "whole"),
    "wav ima adpcm": (by_libsndfile, ("WAV", "IMA_ADPCM", 8_000), "a.wav", 1000, "refused", "refused", "whole"),
    "wav gsm": (by_libsndfile, ("WAV", "GSM610", 8_000), "a.wav", 640, "refused", "refused", "whole"),
    "w64": (by_libsndfile, ("W64", "PCM_24", 16_000), "a.w64", 0, "refused", "refused", "whole"),
    "rf64": (by_libsndfile, ("RF64", "FLOAT", 16_000), "a.wav", 0, "refused", "refused", "either"),
    "aiff": (by_libsndfile, ("AIFF", "PCM_16", 16_000), "a.aiff", 0, "refused", "refused", "whole"),
    "aiff dwvw": (by_libsndfile, ("AIFF", "DWVW_16", 16_000), "a.aiff", 0, "refused", "refused", "whole"),
    "au": (by_libsndfile, ("AU", "PCM_16", 16_000), "a.au", 0, "refused", "refused", "whole"),
    "au g721": (by_libsndfile, ("AU", "G721_32", 8_000), "a.au", 0, "refused", "refused", "whole"),
    "caf": (by_libsndfile, ("CAF", "PCM_16", 16_000), "a.caf", 0, "refused", "refused", "whole"),
    "nist": (by_libsndfile, ("NIST", "PCM_16", 16_000), "a.sph", 0, "refused", "refused", "whole"),
    "flac": (by_libsndfile, ("FLAC", "PCM_16", 16_000), "a.flac", 0, "refused", "refused", "refused"),
    "flac 24 bit": (by_libsndfile, ("FLAC", "PCM_24", 44_100), "a.flac", 0, "refused", "refused", "refused"),
    "ogg vorbis": (by_libsndfile, ("OGG", "VORBIS", 16_000), "a.ogg", 0, "whole", "refused", "refused"),
    "ogg opus": (by_libsndfile, ("OGG", "OPUS", 16_000), "a.opus", 0, "whole", "refused", "refused"),
    "ogg flac": (by_ffmpeg, ("ogg", "flac", 16_000), "a.oga", 0, "whole", "refused", "refused"),
    "mp3": (by_ffmpeg, MP3, "a.mp3", 0, "whole", "refused", "either"),
    "mp2": (by_ffmpeg, ("mp2", "mp2", 48_000), "a.mp2", 400, "whole", "refused", "either"),
    "aac": (by_ffmpeg, ("adts", "aac", 16_000), "a.aac", 1200, "whole", "refused", "either"),
    "amr": (by_ffmpeg, ("amr", "libopencore_amrnb", 8_000), "a.amr", 400, "refused", "refused", "either"),
    "m4a aac": (by_ffmpeg, ("mp4", "aac", 16_000), "a.m4a", 1024, "refused", "refused", "either"),
    "mov alac": (by_ffmpeg, ("mov", "alac", 16_000), "a.mov", 0, "refused", "refused", "refused"),
    "mp4 in fragments": (by_ffmpeg, (*FRAGMENTS, 16_000), "a.mp4", 1024, "refused", "refused", "either"),
    "3gp amr": (by_ffmpeg, ("3gp", "libopencore_amrnb", 8_000), "a.3gp", 400, "refused", "refused", "either"),
    "webm opus": (by_ffmpeg, ("webm", "libopus", 48_000), "a.webm", 200, "refused", "refused", "either"),
    "mka flac": (by_ffmpeg, ("matroska", "flac", 16_000), "a.mka", 0, "refused", "refused", "refused"),
    "avi mp3": (by_ffmpeg, ("avi", "libmp3lame", 16_000), "a.avi", 1800, "refused", "refused", "either"),
    "wma": (by_ffmpeg, ("asf:bit_rate=64000", "wmav2", 44_100), "a.wma", 500, "refused", "refused", "either"),
    "ac3": (by_ffmpeg, ("ac3", "ac3", 48_000), "a.ac3", 600, "whole", "refused", "refused"),
    "eac3": (by_ffmpeg, ("eac3", "eac3", 44_100), "a.eac3", 600, "whole", "refused", "refused"),
    "tta": (by_ffmpeg, ("tta", "tta", 16_000), "a.tta", 0, "refused", "refused", "refused"),
    "wavpack": (by_ffmpeg, ("wv", "wavpack", 16_000), "a.wv", 0, "refused", "refused", "refused"),
    "mpegts": (by_ffmpeg, ("mpegts", "mp2", 48_000), "a.ts", 400, "refused", "refused", "either"),
    "mpeg": (by_ffmpeg, ("mpeg", "mp2", 48_000), "a.mpg", 400, "whole", "refused", "either"),
    "g722": (by_ffmpeg, ("g722", "g722", 16_000), "a.g722", 0, "whole", "rest", "whole"),
}  # fmt: skip


def read_by_all(path: Path) -> int | None:
    """The length that every reader finds, or none if every one refuses."""
    found = set()
    for read in (
        lambda: read_audio(path).size,
        lambda: probe(path).n_samples,
        lambda: sum(block.size for block in read_blocks(path)),
        lambda: list(in_windows(read_blocks(path), Windows(16_000, 16_000, "mean")))[-1].end,
        lambda: examine(path).n_samples,
    ):
        try:
            found.add(read())
        except SpoofkitError as error:
            found.add(None if str(error).startswith(f"{path}: ") else -1)
    if found == {None}:
        return None
    lengths = found - {None}
    assert len(lengths) == 1, found
    # A header alone does not show damage inside, and is no reading.
    if None in found:
        with pytest.raises(SpoofkitError):
            read_audio(path)
        with pytest.raises(SpoofkitError):
            list(read_blocks(path))
        return None
    return lengths.pop()


def expect(path: Path, outcome: str, seconds: float, slack: int) -> None:
    found = read_by_all(path)
    if outcome == "refused" or (outcome == "either" and found is None):
        assert found is None
    else:
        assert abs(found - seconds * SAMPLE_RATE) <= slack


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_read_to_its_end_or_refused(name: str, tmp_path: Path) -> None:
    make, arguments, file_name, slack, joined, cut, damaged = FORMATS[name]
    path, data, more = tmp_path / file_name, make(*arguments, SECONDS), make(*arguments, MORE_SECONDS)
    path.write_bytes(data)
    expect(path, "whole", SECONDS, slack)
    whole = read_audio(path)
    assert np.array_equal(np.concatenate(list(read_blocks(path))), whole)
    assert np.array_equal(read_audio(path, 20_001, 3_000), whole[20_001:23_001])
    path.write_bytes(data + TAG)
    assert np.array_equal(read_audio(path), whole)
    path.write_bytes(data + more)
    expect(path, joined, SECONDS + MORE_SECONDS, 2 * slack + 600)
    path.write_bytes(data[: len(data) * 4 // 9])
    expect(path, cut, SECONDS * 4 / 9, 2 * slack + 1200)
    for place in (len(data) // 2, len(data) // 3):
        path.write_bytes(data[:place] + bytes(255 - byte for byte in data[place : place + 64]) + data[place + 64 :])
        expect(path, damaged, SECONDS, slack)


@pytest.mark.parametrize("options", [{}, {"write_xing": "0"}], ids=["Info", "no Info"])
def test_joined_mp3s_are_read_over_the_seam_and_what_is_missing_is_noticed(options: dict, tmp_path: Path) -> None:
    first, second = (by_ffmpeg(*MP3, seconds, **options) for seconds in (SECONDS, MORE_SECONDS))
    one, other, joined = (tmp_path / name for name in ("one.mp3", "other.mp3", "joined.mp3"))
    one.write_bytes(first)
    other.write_bytes(second)
    joined.write_bytes(first + second)
    assert probe(joined).n_samples == probe(one).n_samples + probe(other).n_samples
    expected = np.concatenate([read_audio(one), read_audio(other)])
    assert np.array_equal(read_audio(joined)[: read_audio(one).size], read_audio(one))
    assert read_audio(joined).size == expected.size
    assert np.array_equal(read_audio(joined), expected)
    if not options:  # the Info frame says how many there are, wherever they are cut
        begins = [first.index(b"\xff\xf3")]
        while begins[-1] < len(first):
            head = first[begins[-1] :]
            begins.append(begins[-1] + 72 * KBIT[head[2] >> 4] * 1000 // 16_000 + (head[2] >> 1 & 1))
        assert begins[-1] == len(first)
        for n_missing in (1, 2, len(begins) // 2):
            joined.write_bytes(first[: begins[-1 - n_missing]])
            assert read_by_all(joined) is None


def test_chained_ogg_is_its_recordings_one_after_the_other(tmp_path: Path) -> None:
    parts = [by_libsndfile("OGG", "VORBIS", 16_000, seconds) for seconds in (SECONDS, MORE_SECONDS)]
    (tmp_path / "chained.ogg").write_bytes(b"".join(parts))
    waves = []
    for data in parts:
        (tmp_path / "a.ogg").write_bytes(data)
        waves.append(read_audio(tmp_path / "a.ogg"))
    assert np.array_equal(read_audio(tmp_path / "chained.ogg"), np.concatenate(waves))
    (tmp_path / "chained.ogg").write_bytes(parts[0] + by_libsndfile("OGG", "VORBIS", 8_000, MORE_SECONDS))
    with pytest.raises(SpoofkitError, match="different sampling rates"):
        read_audio(tmp_path / "chained.ogg")


@pytest.mark.parametrize("size", [0, 1_000, 95_000, 96_000, 200_000, 0xFFFF_FFFF])
def test_a_wav_whose_size_disagrees_is_read_whole_or_refused(size: int, tmp_path: Path) -> None:
    data = bytearray(by_libsndfile("WAV", "PCM_16", 16_000, SECONDS))
    data[40:44] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    assert read_by_all(tmp_path / "a.wav") == (48_000 if size in (0, 96_000, 0xFFFF_FFFF) else None)


@pytest.mark.parametrize("between", [b"", b"ID3\x04\0\0\0\0\x02\0" + bytes(256)], ids=["", "tag"])
@pytest.mark.parametrize("md5", [b"", bytes(16)], ids=["MD5", "no MD5"])
def test_a_flac_does_not_hide_another_of_the_same_length(md5: bytes, between: bytes, tmp_path: Path) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    for file, seed in ((first, 1), (second, 2)):
        soundfile.write(file, make_voice(seed, True, 4.0), SAMPLE_RATE, format="FLAC")
    data = first.getvalue()
    (tmp_path / "a.flac").write_bytes(data[:26] + (md5 or data[26:42]) + data[42:] + between + second.getvalue())
    for read in (read_audio, examine, lambda path: list(read_blocks(path))):
        with pytest.raises(SpoofkitError, match="something was appended to"):
            read(tmp_path / "a.flac")


def test_flacs_that_state_no_length_are_read_one_after_the_other(tmp_path: Path) -> None:
    parts = [bytearray(by_libsndfile("FLAC", "PCM_16", 16_000, seconds)) for seconds in (SECONDS, MORE_SECONDS)]
    for data in parts:
        data[21] &= 0xF0
        data[22:42] = bytes(20)  # the rest of the length, and the MD5
    (tmp_path / "a.flac").write_bytes(b"".join(parts))
    assert read_by_all(tmp_path / "a.flac") == (SECONDS + MORE_SECONDS) * SAMPLE_RATE


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("matroska", "flac", 16_000),
        ("mp4", "aac", 16_000),
        ("mpegts", "mp2", 48_000),
        ("mpeg", "mp2", 48_000),
        ("avi", "pcm_s16le", 16_000),
        ("ogg", "flac", 16_000),
        ("ogg", "libopus", 48_000),
    ],
)
def test_a_second_track_is_not_left_out(container: str, codec: str, rate: int, tmp_path: Path) -> None:
    (tmp_path / "a.x").write_bytes(with_tracks(container, [(codec, rate, 1.0, 0.0), (codec, rate, 2.0, 0.0)]))
    with pytest.raises(SpoofkitError, match="has 2 audio tracks"):
        probe(tmp_path / "a.x")


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "aac"), ("matroska", "aac"), ("avi", "libmp3lame"), ("mpegts", "mp2")]
)
@pytest.mark.parametrize("begin", [0.0, 1.5])
def test_of_a_video_all_of_the_sound_is_read_wherever_it_begins(
    begin: float, container: str, codec: str, tmp_path: Path
) -> None:
    (tmp_path / "a.x").write_bytes(with_tracks(container, [(codec, 48_000, 2.0, begin)], has_video=True))
    assert 0 <= read_by_all(tmp_path / "a.x") - 2 * SAMPLE_RATE < 1200


@pytest.mark.parametrize(("name", "options"), [("mp3", {"write_xing": "0"}), ("aac", {}), ("amr", {})])
def test_zeros_in_the_place_of_frames_are_a_download_that_did_not_finish(
    name: str, options: dict[str, str], tmp_path: Path
) -> None:
    make, arguments, file_name, *_ = FORMATS[name]
    data = make(*arguments, SECONDS, **options)
    for n_zeros in (len(data) // 2, 400):
        (tmp_path / file_name).write_bytes(data[:-n_zeros] + bytes(n_zeros))
        assert read_by_all(tmp_path / file_name) is None


def chunk(name: bytes, data: bytes, padding: bytes = b"\0") -> bytes:
    return name + len(data).to_bytes(4, "little") + data + padding[: len(data) % 2]


@pytest.mark.parametrize(
    ("make", "n_samples"),
    [
        (lambda head, data: head + chunk(b"data", data) + chunk(b"JUNK", bytes(5_000)), 16_000),
        (lambda head, data: chunk(b"JUNK", b"odd") + head + chunk(b"data", data) + chunk(b"LIST", b"INFOa"), 16_000),
        (lambda head, data: chunk(b"bext", bytes(602)) + head + chunk(b"data", data + b"\1"), 16_000),
        (lambda head, data: head + chunk(b"data", data + b"\1", b"") + chunk(b"LIST", b"INFO"), 16_000),
        (lambda head, data: chunk(b"data", data) + head, 16_000),
        (lambda head, data: head + 2 * chunk(b"data", data), None),
        (lambda head, data: head + chunk(b"LIST", b"wavl" + 2 * chunk(b"data", data)), None),
        (lambda head, data: head, None),
    ],
    ids=["junk", "odd chunks", "odd data", "no padding", "data first", "two data", "wave list", "no data"],
)
def test_chunks_around_the_samples_of_a_wav_are_no_part_of_them(make, n_samples: int | None, tmp_path: Path) -> None:
    wav = by_libsndfile("WAV", "PCM_16", 16_000, 1.0)
    chunks = make(wav[12:36], wav[44:])
    (tmp_path / "a.wav").write_bytes(b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WAVE" + chunks)
    assert read_by_all(tmp_path / "a.wav") == n_samples


@pytest.mark.parametrize("container", sorted(set(soundfile.available_formats()) - {"RAW", "OGG", "MP3", "SD2"}))
def test_whatever_libsndfile_knows_is_read_whole_or_refused(container: str, tmp_path: Path) -> None:
    """But SD2, of which it writes the header to a file beside it."""
    rate = 44_100 if container == "XI" else 8_000
    for subtype in soundfile.available_subtypes(container):
        path = tmp_path / f"{subtype}.x"
        try:
            data = by_libsndfile(container, subtype, rate, 0.5)
        except (soundfile.LibsndfileError, ValueError):
            continue  # it reads, and does not write
        path.write_bytes(data)
        whole = read_by_all(path)
        assert whole is None or 0 <= whole - 8_000 < 1_000, (container, subtype)
        path.write_bytes(data[: len(data) // 2])
        assert read_by_all(path) is None, (container, subtype)
        path.write_bytes(2 * data)
        assert read_by_all(path) in (None, 2 * (whole or 0)), (container, subtype)


@pytest.mark.parametrize("name", ["wav", "flac", "mp3"])
@pytest.mark.parametrize("n_bytes", [-500, 500])
def test_a_file_that_changes_while_it_is_read_is_refused(n_bytes: int, name: str, tmp_path: Path) -> None:
    make, arguments, file_name, *_ = FORMATS[name]
    path, data = tmp_path / file_name, make(*arguments, 4.0)
    path.write_bytes(data)
    blocks = read_blocks(path)
    next(blocks)
    path.write_bytes((data + bytes(500))[: len(data) + n_bytes])
    with pytest.raises(SpoofkitError, match=r"changed while it was read|is cut short or damaged|can decode it"):
        list(blocks)


def test_headerless_telephone_files_are_read_through(tmp_path: Path) -> None:
    for suffix, subtype in ((".gsm", "GSM610"), (".vox", "VOX_ADPCM"), (".ul", "ULAW")):
        path = tmp_path / f"a{suffix}"
        soundfile.write(path, make_voice(1, True, 2.0, 8_000), 8_000, subtype, format="RAW")
        assert abs(read_by_all(path) - 32_000) <= 640


# ---- checksums


def test_no_damaged_byte_of_a_flac_is_ever_read(tmp_path: Path) -> None:
    data = by_libsndfile("FLAC", "PCM_16", 16_000, 1.0)
    path, rng = tmp_path / "a.flac", np.random.default_rng(0)
    for _ in range(60):
        place, length = int(rng.integers(8_300, len(data) - 8)), int(rng.integers(1, 65))
        other = bytes(rng.integers(0, 256, length, dtype=np.uint8))
        damaged = (data[:place] + other + data[place + length :])[: len(data)]
        path.write_bytes(damaged)
        if damaged != data:
            for read in (read_audio, lambda path: list(read_blocks(path)), examine):
                with pytest.raises(SpoofkitError):
                    read(path)
    path.write_bytes(data)
    assert read_audio(path).size == SAMPLE_RATE


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24])
def test_samples_of_a_flac_must_be_those_of_its_md5(bits: int, tmp_path: Path) -> None:
    path, top = tmp_path / "a.flac", 1 << (bits - 1)
    write_flac(path, np.random.default_rng(0).integers(-top, top, (4_000, 2)), SAMPLE_RATE, bits)
    assert read_audio(path).size == 4_000
    data = bytearray(path.read_bytes())
    data[30] ^= 1  # of the MD5; every frame is as it was
    path.write_bytes(data)
    for read in (read_audio, examine, lambda path: list(read_blocks(path))):
        with pytest.raises(SpoofkitError, match="MD5"):
            read(path)


def test_ffmpeg_compares_the_checksums_of_a_flac_that_libsndfile_refuses(tmp_path: Path) -> None:
    samples_SC = np.random.default_rng(0).integers(-900, 900, (8000, 1))
    write_flac(tmp_path / "a.flac", samples_SC, SAMPLE_RATE, 12)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.flac").write_bytes(data)
    for read in (read_audio, lambda path: read_audio(path, 100, 50)):
        with pytest.raises(SpoofkitError, match="neither libsndfile nor FFmpeg can decode it"):
            read(tmp_path / "a.flac")


# ---- channels that cancel


@pytest.mark.parametrize("n_loud", [0, 16_000])
def test_channels_that_cancel_are_refused_whatever_part_is_read(n_loud: int, tmp_path: Path) -> None:
    wave_S = np.random.default_rng(0).standard_normal(96_000).astype(np.float32) / 10
    second_S = np.where(np.arange(wave_S.size) < n_loud, 0.01 * wave_S, -wave_S)
    first_S = np.where(np.arange(wave_S.size) < n_loud, 0.01 * wave_S, wave_S)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([first_S, second_S], axis=1), SAMPLE_RATE, "FLOAT")
    for read in (
        read_audio,
        lambda path: read_audio(path, 0, 16_000),
        lambda path: read_audio(path, 40_000),
        lambda path: next(read_blocks(path, 32_000)),
        lambda path: list(read_blocks(path)),
        lambda path: list(in_windows(read_blocks(path, 32_000), Windows(16_000, 16_000, "mean"))),
    ):
        with pytest.raises(SpoofkitError, match="channels cancel each other"):
            read(path)
    assert read_audio(path, 0, 16_000, "first").size == 16_000


# ---- one file ends no other


def test_whatever_a_decoder_raises_is_the_reason_of_its_file_only(tmp_path: Path, monkeypatch) -> None:
    for name in ("a.flac", "b.flac"):
        soundfile.write(tmp_path / name, make_voice(1, True), SAMPLE_RATE)
    read = soundfile.SoundFile.read

    def odd(self: soundfile.SoundFile, *arguments: object, **named: object) -> np.ndarray:
        if self.frames == SAMPLE_RATE and odd.is_first:  # type: ignore[attr-defined]
            odd.is_first = False  # type: ignore[attr-defined]
            raise ZeroDivisionError("of a decoder")
        return read(self, *arguments, **named)

    odd.is_first = True  # type: ignore[attr-defined]
    monkeypatch.setattr(soundfile.SoundFile, "read", odd)
    with pytest.raises(SpoofkitError, match=r"a\.flac: .*of a decoder"):
        read_audio(tmp_path / "a.flac")
    assert read_audio(tmp_path / "b.flac").size == SAMPLE_RATE


def test_what_decoders_write_to_stderr_is_not_seen_and_their_numbers_become_words(tmp_path: Path, capfd) -> None:
    """libmpg123 has notes on damaged MPEG audio; FFmpeg has errors without a name."""
    tag = b"ID3\x04\x00\x3b\x00\x00\x0f\x76"
    parts = (b"\xff\xfb\x50\xc4", tag, tag + b"\xff\xfb\x50\xc4")
    for number, start in enumerate(parts):
        (tmp_path / f"{number}.mp3").write_bytes(start + bytes(3_000))
    for path in tmp_path.iterdir():
        with pytest.raises(SpoofkitError):
            read_audio(path)
    assert capfd.readouterr().err == ""
    for unnamed in (av.FFmpegError(16_976_906, "Error number -16976906 occurred"), av.FFmpegError(1_094_995_529, "")):
        assert not re.search(r"\d{4}", str(undecodable("a.ac3", unnamed)))


@pytest.mark.parametrize("options", [(), ("--window", "0"), ("--window", "1"), ("--crop", "first:16000")])
def test_score_gives_each_file_its_row_and_none_for_a_part(
    options: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    flac, noise_S = by_libsndfile("FLAC", "PCM_16", 16_000, 2.0), np.random.default_rng(0).standard_normal(32_000) / 10
    soundfile.write(tmp_path / "cancel.wav", np.stack([noise_S, -noise_S], axis=1), SAMPLE_RATE)
    (tmp_path / "cut.mp3").write_bytes(by_ffmpeg(*MP3, 2.0)[:-50])
    (tmp_path / "gsm.wav").write_bytes(by_libsndfile("WAV", "GSM610", 8_000, 2.0))
    (tmp_path / "joined.flac").write_bytes(flac + by_libsndfile("FLAC", "PCM_16", 16_000, 3.0))
    (tmp_path / "whole.flac").write_bytes(flac)
    done = run_cli("score", model, tmp_path, "--channels", "mean", *options, ok=False)
    found = {Path(name).stem: row for name, row in table_rows(done.stdout).items()}
    assert {name for name, row in found.items() if row["error"]} == {"cancel", "cut", "joined"}
    assert np.isfinite([float(found[name]["cm-score"]) for name in ("gsm", "whole")]).all()


def test_telephone_files_go_through_prepare_validate_pack_and_audit(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    for key, more in (("bonafide", 0.5), ("spoof", 0.7)):
        (folder / key).mkdir(parents=True)
        for number in (1, 2, 3):
            data = by_libsndfile("WAV", "GSM610", 8_000, more + number)
            (folder / key / f"{key}{number}.wav").write_bytes(data)
    damaged = by_libsndfile("FLAC", "PCM_16", 16_000, 2.0)
    (folder / "spoof/damaged.flac").write_bytes(damaged[:20_000] + bytes(64) + damaged[20_064:])
    manifest = tmp_path / "data/mine.tsv"
    run_cli("prepare", "generic", folder, "-o", tmp_path / "data", "--sets", "mine")
    found = [line.split("\t") for line in run_cli("validate", manifest, "--read-audio", ok=False).stdout.splitlines()]
    assert [(Path(row[0]).stem, row[3]) for row in found if row[1] == "error"] == [("spoof_damaged", "unreadable")]
    assert "damaged.flac" in refusal("pack", manifest, "-o", tmp_path / "packed")
    (folder / "spoof/damaged.flac").unlink()
    run_cli("prepare", "generic", folder, "-o", tmp_path / "data", "--sets", "mine", "--overwrite")
    run_cli("pack", manifest, "-o", tmp_path / "packed")
    run_cli("audit", manifest, "--out", tmp_path / "audit")


# ---- nothing is opened that a name or a content points to


@pytest.fixture
def asked() -> tuple[int, list[str]]:
    """The port of a server on this machine, and what it was asked for."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, requests
    server.shutdown()
    server.server_close()


def test_a_name_is_a_name_and_no_address(asked, tmp_path: Path, monkeypatch) -> None:
    port, requests = asked
    monkeypatch.chdir(tmp_path)
    mp3 = by_ffmpeg(*MP3, 1.0)
    Path("other.mp3").write_bytes(by_ffmpeg(*MP3, 2.0))
    for name in (
        f"http:/127.0.0.1:{port}/x.wav",
        "concat:other.mp3",
        "file:other.mp3",
        "subfile,,start,0,end,9,,:a.mp3",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(mp3)
        assert abs(read_audio(name).size - SAMPLE_RATE) < 10
    assert read_by_all(Path("cache:other.mp3")) is None
    assert requests == []


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile other.mp3\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{folder}/other.mp3\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/x.mp3\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>',
    ],
    ids=["ffconcat", "hls of a file", "hls of a server", "sdp", "dash"],
)
@pytest.mark.parametrize("suffix", [".wav", ".m3u8", ".mp3"])
def test_a_list_of_other_files_is_no_recording(content: str, suffix: str, asked, tmp_path: Path, monkeypatch) -> None:
    port, requests = asked
    monkeypatch.chdir(tmp_path)
    Path("other.mp3").write_bytes(by_ffmpeg(*MP3, 1.0))
    path = tmp_path / f"list{suffix}"
    path.write_text(content.replace("{port}", str(port)).replace("{folder}", str(tmp_path)))
    assert read_by_all(path) is None
    assert requests == []


def test_an_image_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    assert read_by_all(tmp_path / "a.wav") is None


# ---- limits


def test_a_recording_beyond_the_limit_is_refused_and_the_limit_can_be_raised(tmp_path: Path, monkeypatch) -> None:
    flac, mp3 = tmp_path / "a.flac", tmp_path / "a.mp3"
    soundfile.write(flac, make_voice(1, True, 5.0), SAMPLE_RATE)
    mp3.write_bytes(by_ffmpeg(*MP3, 5.0))
    monkeypatch.setenv(LONGEST_HOURS, str(4 / 3600))
    audio._measured.cache_clear()
    for path in (flac, mp3):
        assert read_by_all(path) is None
        with pytest.raises(SpoofkitError, match=LONGEST_HOURS):
            read_audio(path)
    monkeypatch.setenv(LONGEST_HOURS, str(6 / 3600))
    assert read_by_all(flac) == 80_000
    monkeypatch.setenv(LONGEST_HOURS, "many")
    with pytest.raises(SpoofkitError, match="expected a positive number of hours"):
        read_audio(flac)


def test_a_flac_that_states_no_length_is_given_up_when_it_is_too_long(tmp_path: Path, monkeypatch) -> None:
    """A megabyte of constant frames is days of silence."""
    path, samples_SC = tmp_path / "a.flac", np.zeros((60_000, 1), int)
    write_flac(path, samples_SC, SAMPLE_RATE, 16, total=0)
    data = path.read_bytes()
    path.write_bytes(data[: 4 + 4 + 18] + bytes(16) + data[4 + 4 + 34 :])  # no MD5
    assert read_by_all(path) == 60_000
    monkeypatch.setenv(LONGEST_HOURS, str(3 / 3600))
    assert read_by_all(path) is None


def test_prepare_states_the_length_that_decoding_gives(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    for key, seconds in (("bonafide", 2.0), ("spoof", 3.0)):
        (folder / key).mkdir(parents=True)
        (folder / key / f"{key}.mp3").write_bytes(by_ffmpeg(*MP3, seconds, write_xing="0"))
    run_cli("prepare", "generic", folder, "-o", tmp_path / "data", "--sets", "mine")
    lines = [line.split("\t") for line in (tmp_path / "data/mine.tsv").read_text().splitlines() if line[0] != "#"]
    lengths = {row[1]: int(row[lines[0].index("n_samples")]) for row in lines[1:]}
    assert lengths == {name: read_audio(folder / name).size for name in lengths}
    assert len(lengths) == 2
