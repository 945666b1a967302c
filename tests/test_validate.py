"""validate and the pass over headers: what is damaged is found, what is whole is not accused, a kill loses nothing."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from conftest import SAMPLE_RATE, make_voice, refusal, run_cli
from test_audio import write_flac, write_with_av
from test_partialspoof import make_partialspoof

from spoofkit.checks.filecheck import Finding
from spoofkit.checks.sound import examine
from spoofkit.checks.validate import Validation, reject, summary, validate
from spoofkit.data import headers
from spoofkit.data.audio import probe
from spoofkit.data.headers import headers_path, read_facts, read_headers
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.data.rejected import read_rejected
from spoofkit.data.segments import read_segments, segment_table, write_segments
from spoofkit.data.stored import AudioInfo
from spoofkit.files import read_json

N_SOUND = 24  # whole files beside the damaged ones


def write_set(folder: Path, keys: dict[str, str], lengths: dict[str, int] | None = None, **options) -> Path:
    """A manifest of files that are there already; ids are their names without suffix, lengths mostly unknown."""
    n = len(keys)
    columns = {"utt_id": [Path(name).stem for name in keys], "path": list(keys), "key": list(keys.values())}
    columns |= {"speaker": ["s"] * n, "attack": ["-"] * n, "codec": ["-"] * n}
    columns["n_samples"] = [(lengths or {}).get(name, UNKNOWN_LENGTH) for name in keys]
    write_manifest(folder / "set.tsv", folder, pl.DataFrame(columns), overwrite=True, **options)
    return folder / "set.tsv"


def write_sound_files(folder: Path, n: int = N_SOUND) -> dict[str, str]:
    """Whole 16-bit FLACs of 0.8 to 1.2 s, and their keys."""
    keys = {}
    for index in range(n):
        seconds = 0.8 + 0.4 * index / n
        soundfile.write(folder / f"whole{index:02d}.flac", make_voice(index, index % 2 == 0, seconds), SAMPLE_RATE)
        keys[f"whole{index:02d}.flac"] = ("bonafide", "spoof")[index % 2]
    return keys


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Folder of whole files, and their keys; read only."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, write_sound_files(folder)


def found_of(result: Validation, utt_id: str) -> list[tuple[str, str]]:
    return [(finding.severity, finding.kind) for finding in result.findings if finding.utt_id == utt_id]


def voice(seed: int = 99, seconds: float = 1.0, rate: int = SAMPLE_RATE) -> np.ndarray:
    return make_voice(seed, True, seconds, rate)


def altered(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flip_md5(data: bytes) -> bytes:
    return data[:30] + bytes([data[30] ^ 1]) + data[31:]


def no_md5(data: bytes) -> bytes:
    return data[:26] + bytes(16) + data[42:]


def no_length(data: bytes) -> bytes:
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


def write_voice(path: Path, **options) -> None:
    soundfile.write(path, voice(**options), options.get("rate", SAMPLE_RATE))


def write_float(path: Path, wave: np.ndarray) -> None:
    soundfile.write(path, wave, SAMPLE_RATE, subtype="FLOAT")


def with_value(value: float) -> np.ndarray:
    wave = voice()
    wave[500] = value
    return wave


def padded(before: float, after: float) -> np.ndarray:
    return np.concatenate([np.zeros(int(before * SAMPLE_RATE)), voice(), np.zeros(int(after * SAMPLE_RATE))])


def damaged(path: Path, change: Callable[[bytes], bytes]) -> None:
    write_voice(path)
    altered(path, change)


# What is wrong with a file, its name's suffix, how to make it, what its header tells, what decoding it tells.
FAULTS = {
    "missing": (".flac", lambda p: None, ["error missing"], None),
    "empty file": (".flac", lambda p: p.write_bytes(b""), ["error unreadable"], None),
    "text": (".wav", lambda p: p.write_bytes(b"not audio" * 999), ["error unreadable"], None),
    "too short": (".flac", lambda p: write_voice(p, seconds=0.15), ["error too short", "warning other length"], None),
    "cut wav": (".wav", lambda p: damaged(p, lambda d: d[:-9000]), ["error unreadable"], None),
    "cut flac": (".flac", lambda p: damaged(p, lambda d: d[: len(d) // 2]), ["error unreadable"], None),
    "bad bytes in flac": (
        ".flac",
        lambda p: damaged(p, lambda d: d[:9000] + b"\xff" * 8 + d[9008:]),
        [],
        ["error unreadable"],
    ),
    "wrong md5": (".flac", lambda p: damaged(p, flip_md5), [], ["error unreadable"]),
    "no md5": (".flac", lambda p: damaged(p, no_md5), [], []),
    "no length": (".flac", lambda p: damaged(p, no_length), [], []),
    "nan": (".wav", lambda p: write_float(p, with_value(np.nan)), [], ["error not finite"]),
    "infinite": (".wav", lambda p: write_float(p, with_value(np.inf)), [], ["error not finite"]),
    "silence": (".flac", lambda p: soundfile.write(p, np.zeros(16_000), SAMPLE_RATE), [], ["error silence"]),
    "zeros before": (".flac", lambda p: soundfile.write(p, padded(0.6, 0), SAMPLE_RATE), [], ["warning zeros"]),
    "zeros after": (".flac", lambda p: soundfile.write(p, padded(0, 0.6), SAMPLE_RATE), [], ["warning zeros"]),
    "few zeros": (".flac", lambda p: soundfile.write(p, padded(0.4, 0.4), SAMPLE_RATE), [], []),
    "clipped": (".flac", lambda p: soundfile.write(p, 20 * voice(), SAMPLE_RATE), [], ["warning clipping"]),
    "clipped 8 bit": (
        ".wav",
        lambda p: soundfile.write(p, np.clip(20 * voice(), -0.99, 0.99), SAMPLE_RATE, subtype="PCM_U8"),
        [],
        ["warning clipping"],
    ),
    "offset": (".flac", lambda p: soundfile.write(p, voice() + 0.05, SAMPLE_RATE), [], ["warning offset"]),
    "opposite channels": (
        ".wav",
        lambda p: soundfile.write(p, np.stack([voice(), -voice()], axis=1), SAMPLE_RATE),
        ["warning other channels"],
        ["error channels cancel"],
    ),
    "stereo": (
        ".wav",
        lambda p: soundfile.write(p, np.stack([voice(), voice(98)], axis=1), SAMPLE_RATE),
        ["warning other channels"],
        [],
    ),
    "other rate": (".flac", lambda p: write_voice(p, rate=44_100), ["warning other rate"], []),
    "long": (".flac", lambda p: write_voice(p, seconds=6.0), ["warning other length"], []),
    "tag in latin-1": (
        ".flac",
        lambda p: write_flac(p, (2000 * voice()[:, None]).astype(int), SAMPLE_RATE, 12, comment=b"TITLE=Stra\xdfe"),
        [],
        [],
    ),
    "8 bit": (".wav", lambda p: soundfile.write(p, voice(), SAMPLE_RATE, subtype="PCM_U8"), [], []),
    "24 bit": (".flac", lambda p: soundfile.write(p, voice(), SAMPLE_RATE, subtype="PCM_24"), [], []),
    "12 bit": (
        ".flac",
        lambda p: write_flac(p, (2000 * voice()[:, None]).astype(int), SAMPLE_RATE, 12),
        [],
        [],
    ),
    "m4a": (
        ".m4a",
        lambda p: write_with_av(p, "aac", np.stack([voice(rate=44_100)] * 2), 44_100),
        ["warning other rate", "warning other channels"],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_whole_files_are_not_accused(fault: str, whole, tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    suffix, make, in_header, in_sound = FAULTS[fault]
    make(folder / f"x{suffix}")
    manifest = write_set(folder, {**whole[1], f"x{suffix}": "spoof"})
    by_header, by_all = validate(manifest), validate(manifest, read_all_audio=True)
    found = [" ".join(pair) for pair in found_of(by_header, "x")]
    assert sorted(found) == sorted(in_header)
    assert sorted(" ".join(pair) for pair in found_of(by_all, "x")) == sorted(in_header + (in_sound or []))
    assert {finding.utt_id for finding in (*by_header.findings, *by_all.findings)} <= {"x"}


def test_the_facts_of_a_sound_are_those_it_was_made_with(tmp_path: Path) -> None:
    left_S = np.concatenate([np.zeros(2000), np.full(3000, 0.5), np.full(1000, 1.0), np.zeros(4000)])
    right_S = np.concatenate([np.zeros(2000), np.full(7000, -0.25), np.zeros(1000)])
    soundfile.write(tmp_path / "a.wav", np.stack([left_S, right_S], axis=1), 8000, subtype="FLOAT")
    sound = examine(tmp_path / "a.wav")
    assert (sound.n_samples, sound.reader, sound.n_not_finite) == (20_000, "soundfile", 0)
    assert (sound.zeros_before_s, sound.zeros_after_s) == (0.25, 0.125)
    assert (sound.peak, sound.clipped_share, sound.is_cancelled) == (1.0, 1000 / 20_000, False)
    assert abs(sound.offset - 0.25) < 1e-9  # of the left channel


def test_what_ffmpeg_reads_and_what_cannot_be_checked_is_counted_and_said(whole, tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    for name in ("a.flac", "b.flac"):
        write_flac(folder / name, (2000 * voice(ord(name[0]))[:, None]).astype(int), SAMPLE_RATE, 12)
    damaged(folder / "c.flac", no_md5)
    result = validate(write_set(folder, {**whole[1], **dict.fromkeys(["a.flac", "b.flac", "c.flac"], "spoof")}))
    assert (result.n_by_av, result.n_without_md5, result.findings) == (2, 1, [])
    assert "2 files are read by FFmpeg because libsndfile refuses them" in "\n".join(summary(result))
    assert "1 FLACs state no MD5" in "\n".join(summary(result))
    assert "stored as PCM_16 16000 Hz: 25, PCM_12 16000 Hz: 2" in "\n".join(summary(result))


def test_the_length_in_the_manifest_is_compared_with_the_header(whole, tmp_path: Path) -> None:
    folder, keys = whole
    right = {name: soundfile.info(folder / name).frames for name in keys}
    for change, expected in ((0, []), (1, [("error", "length")])):
        lengths = right | {"whole03.flac": right["whole03.flac"] + change}
        copy = shutil.copytree(folder, tmp_path / f"corpus{change}")
        assert found_of(validate(write_set(copy, keys, lengths)), "whole03") == expected


@pytest.mark.parametrize("read_all", [False, True])
@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_one_recording_under_two_ids_is_a_warning_and_under_two_keys_an_error(
    suffix: str, read_all: bool, whole, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    for name, seed in (("a", 70), ("b", 70), ("c", 71), ("d", 71), ("e", 72)):
        write_voice(folder / f"{name}{suffix}", seed=seed)
    # As large as the others, and other inside.
    keys = dict(zip("abcde", ("spoof", "spoof", "spoof", "bonafide", "spoof"), strict=True))
    result = validate(write_set(folder, {**whole[1], **{f"{n}{suffix}": k for n, k in keys.items()}}), read_all)
    findings = {finding.utt_id: finding for finding in result.findings}
    assert findings.keys() == set("abcd")
    assert {name: (f.severity, f.kind) for name, f in findings.items()} == {
        "a": ("warning", "double"), "b": ("warning", "double"),
        "c": ("error", "contradiction"), "d": ("error", "contradiction"),
    }  # fmt: skip
    assert findings["c"].problem == "is spoof and the audio of d, which is bonafide"


def test_the_same_samples_in_other_containers_are_found_by_decoding(whole, tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    for name in ("a.flac", "b.wav"):
        soundfile.write(folder / name, (32767 * voice()).astype(np.int16), SAMPLE_RATE)
    manifest = write_set(folder, {**whole[1], "a.flac": "spoof", "b.wav": "spoof"})
    assert validate(manifest).findings == []
    assert [(f.utt_id, f.kind) for f in validate(manifest, True).findings] == [("a", "double"), ("b", "double")]


def test_two_ids_of_one_path_are_found(whole, tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    manifest = write_set(folder, whole[1])
    table = read_manifest(manifest).table
    twin = table.filter(pl.col("utt_id") == "whole00").with_columns(utt_id=pl.lit("x"), key=pl.lit("spoof"))
    write_manifest(manifest, folder, pl.concat([table, twin]), overwrite=True)
    for read_all in (False, True):
        findings = validate(manifest, read_all).findings
        assert [f.problem for f in findings] == [
            "is bonafide and the file of x, which is spoof", "is spoof and the file of whole00, which is bonafide",
        ]  # fmt: skip


def test_a_property_of_the_files_that_tells_the_class_is_said_of_the_set(tmp_path: Path) -> None:
    keys = {}
    for index in range(40):
        key = ("bonafide", "spoof")[index % 2]
        rate = 24_000 if key == "spoof" and index % 4 == 1 else SAMPLE_RATE
        subtype = "PCM_24" if index % 8 < 2 else "PCM_16"  # of both classes alike
        soundfile.write(tmp_path / f"{index:02d}.wav", make_voice(index, True, 0.5, rate), rate, subtype=subtype)
        keys[f"{index:02d}.wav"] = key
    of_set = [finding for finding in validate(write_set(tmp_path, keys)).findings if finding.utt_id == "-"]
    assert {finding.kind for finding in of_set} == {"tells the class"}
    assert of_set[0].problem.startswith("sampling rate 16000 Hz: 100.0 % of bona fide, 50.0 % of spoof")
    assert len(of_set) == 2  # both rates, and no sample format


def test_a_set_that_is_all_at_another_rate_is_said_once(tmp_path: Path) -> None:
    keys = {}
    for index in range(6):
        stereo = np.stack([make_voice(index, True, 0.5, 8000), make_voice(index + 50, True, 0.5, 8000)], axis=1)
        soundfile.write(tmp_path / f"{index}.wav", stereo, 8000)
        keys[f"{index}.wav"] = ("bonafide", "spoof")[index % 2]
    findings = validate(write_set(tmp_path, keys, downmix="first")).findings
    assert [(f.utt_id, f.kind) for f in findings] == [("-", "rate"), ("-", "channels")]
    assert "down-mix: first" in findings[1].problem


def test_with_another_down_mix_opposite_channels_are_usable(tmp_path: Path) -> None:
    for name in "ab":
        wave = voice(ord(name))
        soundfile.write(tmp_path / f"{name}.wav", np.stack([wave, -wave], axis=1), SAMPLE_RATE)
    for downmix, n_errors in (("mean", 2), ("first", 0)):
        manifest = write_set(tmp_path, {"a.wav": "spoof", "b.wav": "bonafide"}, downmix=downmix)
        assert validate(manifest, read_all_audio=True).n_errors == n_errors


def test_utterances_that_contradict_each_other_are_both_left_out(whole, tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    for name in "cd":
        write_voice(folder / f"{name}.flac")
    manifest = write_set(folder, {**whole[1], "c.flac": "spoof", "d.flac": "bonafide"})
    run_cli("validate", manifest, "--on-error", "skip")
    assert read_rejected(manifest).select("utt_id", "key").rows() == [("c", "spoof"), ("d", "bonafide")]
    assert validate(manifest).findings == []


def test_the_regions_of_what_is_left_out_go_too(whole, tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    manifest = write_set(folder, whole[1])
    regions = {Path(name).stem: [(index, 1001), (1600, 3200 + index)] for index, name in enumerate(whole[1])}
    regions["whole09"] = []
    write_segments(folder / "set.segments.tsv", segment_table(regions))
    (folder / "whole03.flac").unlink()
    run_cli("validate", manifest, "--on-error", "skip")
    found = {
        utt_id: [tuple(pair) for pair in own] for utt_id, own in read_segments(folder / "set.segments.tsv").items()
    }
    assert found == {utt_id: own for utt_id, own in regions.items() if utt_id != "whole03"}


def test_prepare_writes_no_regions_of_what_it_leaves_out(tmp_path: Path) -> None:
    truth = make_partialspoof(tmp_path)["dev"]
    (tmp_path / f"database/dev/con_wav/{max(truth)}.wav").unlink()
    call = ["prepare", "partialspoof", tmp_path, "-o", tmp_path / "data", "--partial", "--sets", "dev"]
    run_cli(*call, "--on-error", "skip")
    path = tmp_path / "data/dev.segments.tsv"
    assert sorted(read_segments(path)) == sorted(truth.keys() - {max(truth)})
    before = path.read_bytes()
    path.unlink()
    run_cli(*call, "--on-error", "skip", "--reuse")  # only that is missing
    assert path.read_bytes() == before


# ---- the verb


def test_findings_go_to_a_file_whole_and_are_summed_up_by_kind(whole, tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    for name in ("whole00.flac", "whole01.flac", "whole02.flac", "whole05.flac"):
        (folder / name).unlink()
    write_voice(folder / "x.flac", seconds=6.0)
    manifest = write_set(folder, {**whole[1], "x.flac": "spoof"})
    done = run_cli("validate", manifest, "--out", tmp_path / "found.tsv", ok=False)
    assert (done.returncode, done.stdout) == (1, "")
    lines = [line.split("\t") for line in (tmp_path / "found.tsv").read_text().splitlines()]
    assert lines[0] == ["utt_id", "severity", "problem", "kind", "manifest"]
    assert {line[4] for line in lines[1:]} == {str(manifest)}
    assert [(line[0], line[1], line[3]) for line in lines[1:]] == [
        *((f"whole{n:02d}", "error", "missing") for n in (0, 1, 2, 5)), ("x", "warning", "other length"),
    ]  # fmt: skip
    assert "25 utterances, 4 errors, 1 warnings" in done.stderr
    assert "error: missing: 4 (whole00, whole01, whole02, …)" in done.stderr
    assert "warning: other length: 1 (x)" in done.stderr
    assert "exists already" in refusal("validate", manifest, "--out", tmp_path / "found.tsv")
    on_stdout = run_cli("validate", manifest, ok=False).stdout
    assert ["\t".join(line[:4]) for line in lines[1:]] == on_stdout.splitlines()
    assert "is one of the manifests" in refusal("validate", manifest, "--out", manifest, "--overwrite")


def test_warnings_alone_exit_with_zero(whole, tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    write_voice(folder / "x.flac", seconds=6.0)
    done = run_cli("validate", write_set(folder, {**whole[1], "x.flac": "spoof"}), "--read-audio")
    assert "0 errors, 1 warnings" in done.stderr


# ---- the pass over headers


def test_a_second_pass_reads_no_header_again_and_a_changed_file_is_read(whole, tmp_path: Path, monkeypatch) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    names, cache = list(whole[1]), tmp_path / "out/.set.headers.jsonl"
    asked: list[str] = []
    monkeypatch.setattr(headers, "probe", lambda path: asked.append(Path(path).name) or probe(path))
    first = read_headers(folder, names, cache)
    assert first == [probe(folder / name) for name in names]
    assert sorted(asked) == names
    asked.clear()
    assert read_headers(folder, names, cache) == first
    assert asked == []
    write_voice(folder / names[3])
    os.utime(folder / names[4], ns=(0, 12345))  # as large as before, and written again
    again = read_headers(folder, names, cache)
    assert asked == names[3:5]
    assert (again[3], again[4]) == (probe(folder / names[3]), first[4])


def test_what_cannot_be_read_is_a_reason_and_is_asked_again(tmp_path: Path) -> None:
    write_voice(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"no audio")
    cache = tmp_path / ".set.headers.jsonl"
    for _ in range(2):
        found = read_headers(tmp_path, ["b.wav", "a.wav", "c.wav"], cache)
        assert "neither libsndfile nor FFmpeg can decode" in found[0]
        assert found[1].n_samples == SAMPLE_RATE
        assert "no such file" in found[2]
    write_voice(tmp_path / "b.wav")
    assert isinstance(read_headers(tmp_path, ["b.wav"], cache)[0], AudioInfo)


KILLED = """
import os, signal, sys
from pathlib import Path
from spoofkit.data.audio import probe
from spoofkit.data.stored import AudioInfo
from spoofkit.checks.filecheck import Finding
from spoofkit.data.headers import read_facts
folder, cache = Path(sys.argv[1]), Path(sys.argv[2])
names = sorted(path.name for path in folder.glob("*.flac"))
def examine(path):
    if path.name == names[-2]:
        while not cache.exists() or cache.read_bytes().count(b"\\n") < 9:
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return probe(path)
read_facts(AudioInfo, examine, folder, names, cache, workers=2, at_once=4, name="x")
"""


def test_a_killed_pass_goes_on_where_it_stopped(whole, tmp_path: Path) -> None:
    folder, cache = whole[0], tmp_path / "cache.jsonl"
    killed = subprocess.run([sys.executable, "-c", KILLED, folder, cache], capture_output=True, timeout=100)
    assert killed.returncode == -9, killed.stderr
    n_kept = cache.read_bytes().count(b"\n") - 1
    assert 8 <= n_kept < N_SOUND
    asked = []
    found = read_facts(
        AudioInfo, lambda path: asked.append(path) or probe(path), folder, list(whole[1]), cache,
        workers=2, at_once=4, name="x",
    )  # fmt: skip
    assert found == [probe(folder / name) for name in whole[1]]
    assert len(asked) == N_SOUND - n_kept


@pytest.mark.parametrize(
    ("damage", "n_asked"),
    [
        (lambda data: data[:-20], 1),  # a torn last line
        (lambda data: data.replace(b"whole05", b"whole06", 1), N_SOUND - 5),  # a line that would lie about another file
        (lambda data: data + b"\n\nnonsense\n00000000 \n", 0),
        (lambda data: b"", N_SOUND),
        (lambda data: data[1:], N_SOUND),  # nothing says what it belongs to
        (lambda data: b"\xff\xfe" * 99, N_SOUND),
    ],
)
def test_what_was_kept_before_a_damaged_line_is_taken_and_the_rest_is_read_again(
    damage, n_asked: int, whole, tmp_path: Path, monkeypatch
) -> None:
    folder, names = whole[0], list(whole[1])
    cache = tmp_path / ".set.headers.jsonl"
    first = read_headers(folder, names, cache)
    altered(cache, damage)
    asked: list[Path] = []
    monkeypatch.setattr(headers, "probe", lambda path: asked.append(path) or probe(path))
    for expected in (n_asked, 0):
        asked.clear()
        assert read_headers(folder, names, cache) == first
        assert len(asked) == expected


def test_facts_of_another_root_are_not_taken(whole, tmp_path: Path) -> None:
    cache = tmp_path / ".set.headers.jsonl"
    read_headers(whole[0], ["whole00.flac"], cache)
    other = tmp_path / "other"
    other.mkdir()
    write_voice(other / "whole00.flac")
    status = (whole[0] / "whole00.flac").stat()
    altered(other / "whole00.flac", lambda data: (data + bytes(status.st_size))[: status.st_size])
    os.utime(other / "whole00.flac", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read_headers(other, ["whole00.flac"], cache) == [probe(other / "whole00.flac")]


def test_a_disk_that_refuses_what_is_kept_does_not_stop_the_pass(whole, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    found = read_headers(whole[0], list(whole[1]), tmp_path / "file/.set.headers.jsonl")
    assert found == [probe(whole[0] / name) for name in whole[1]]
    assert capsys.readouterr().err.count("headers are read without a cache") == 1


def test_decoded_facts_are_kept_too(whole, tmp_path: Path, monkeypatch) -> None:
    from spoofkit.checks import validate as module

    folder = shutil.copytree(whole[0], tmp_path / "corpus")
    manifest = write_set(folder, whole[1])
    asked: list[Path] = []
    monkeypatch.setattr(module, "examine", lambda path: asked.append(path) or examine(path))
    assert validate(manifest, read_all_audio=True).findings == []
    assert len(asked) == N_SOUND
    altered(folder / "whole07.flac", flip_md5)
    assert found_of(validate(manifest, read_all_audio=True), "whole07") == [("error", "unreadable")]
    assert len(asked) == N_SOUND + 1


def test_what_prepare_read_is_not_read_again_by_validate(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    run_cli("prepare", "asvspoof5", corpus, "-o", tmp_path, "--partial", "--sets", "dev")
    monkeypatch.setattr(headers, "probe", None)  # would fail
    assert validate(tmp_path / "dev.tsv").findings == []


# ---- leaving out what cannot be used


def damaged_corpus(corpus: Path, folder: Path) -> Path:
    """The miniature with two files of dev that no header pass accepts, and two that only decoding refuses."""
    copy = shutil.copytree(corpus, folder)
    files = sorted((copy / "flac_D").iterdir())
    files[0].unlink()
    files[1].write_bytes(b"")
    altered(files[2], flip_md5)
    soundfile.write(files[3], np.zeros(20_000), SAMPLE_RATE)
    return copy


def test_a_file_that_cannot_be_read_stops_prepare_unless_it_may_be_skipped(corpus: Path, tmp_path: Path) -> None:
    copy, data = damaged_corpus(corpus, tmp_path / "corpus"), tmp_path / "data"
    call = ["prepare", "asvspoof5", copy, "-o", data, "--partial", "--sets", "dev"]
    assert "1 of the 10 audio files of dev are missing" in refusal(*call)
    shutil.copy(corpus / "flac_D/D_0000000000.flac", copy / "flac_D")
    assert "pass --on-error skip to continue without" in refusal(*call)
    assert not (data / "dev.tsv").exists()
    (copy / "flac_D/D_0000000000.flac").unlink()
    done = run_cli(*call, "--on-error", "skip")
    assert "4 bona fide + 4 spoof" in done.stdout
    assert "2 rejected: see dev.rejected.tsv" in done.stdout
    manifest = read_manifest(data / "dev.tsv")
    assert (manifest.n_rejected, manifest.table.height) == (2, 8)
    rejected = read_rejected(data / "dev.tsv")
    assert rejected["utt_id"].to_list() == ["D_0000000000", "D_0000000011"]
    assert rejected["key"].to_list() == ["bonafide", "spoof"]
    assert "no such file" in rejected["reason"][0]
    assert "2 rejected" in run_cli(*call, "--on-error", "skip", "--reuse").stdout
    assert "(on error)" in refusal(*call, "--reuse")
    assert "(downmix)" in refusal(*call, "--on-error", "skip", "--downmix", "first", "--reuse")
    assert "no file is read" in refusal(*call, "--on-error", "skip", "--no-headers", "--overwrite")
    assert "--downmix left: expected one of mean, first" in refusal(*call, "--downmix", "left")
    # Fixed, nothing is rejected any more.
    shutil.copytree(corpus, copy, dirs_exist_ok=True)
    run_cli(*call, "--on-error", "skip", "--overwrite", "--downmix", "second")
    assert not (data / "dev.rejected.tsv").exists()
    fixed = read_manifest(data / "dev.tsv")
    assert (fixed.n_rejected, fixed.table.height, fixed.downmix) == (0, 10, "second")


def test_a_set_of_which_nothing_is_left_is_refused(corpus: Path, tmp_path: Path) -> None:
    copy, data = shutil.copytree(corpus, tmp_path / "corpus"), tmp_path / "data"
    run_cli("prepare", "asvspoof5", copy, "-o", data, "--partial", "--sets", "dev")
    before = (data / "dev.tsv").read_bytes()
    shutil.rmtree(copy / "flac_D")
    assert "all 10 utterances have errors" in refusal("validate", data / "dev.tsv", "--on-error", "skip")
    assert (data / "dev.tsv").read_bytes() == before
    assert not (data / "dev.rejected.tsv").exists()
    call = ["prepare", "asvspoof5", copy, "-o", data, "--partial", "--sets", "dev", "--on-error", "skip", "--overwrite"]
    assert "10 files of dev cannot be read" in refusal(*call)


def test_validate_moves_what_only_decoding_refuses_and_loses_nothing_in_a_crash(
    corpus: Path, tmp_path: Path, monkeypatch
) -> None:
    from spoofkit.checks import validate as module

    copy, data = damaged_corpus(corpus, tmp_path / "corpus"), tmp_path / "data"
    call = ["prepare", "asvspoof5", copy, "-o", data, "--partial", "--sets", "dev"]
    run_cli(*call, "--on-error", "skip", "--downmix", "second")
    path, before = data / "dev.tsv", read_manifest(data / "dev.tsv")
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_manifest", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            reject(validate(path, read_all_audio=True))
    # The list was written, the manifest was not: no row is gone, and the set says that they do not fit.
    assert read_manifest(path).table.equals(before.table)
    assert ("-", "rejected list") in {(f.utt_id, f.kind) for f in validate(path).findings}
    done = run_cli("validate", path, "--read-audio", "--on-error", "skip")
    assert "dev.tsv: 2 utterances moved to dev.rejected.tsv" in done.stderr
    after = read_manifest(path)
    assert (after.n_rejected, after.table.height) == (4, 6)
    assert read_rejected(path)["utt_id"].to_list() == [f"D_{11 * index:010d}" for index in range(4)]
    assert "silence" in read_rejected(path)["reason"][3]
    for field in dataclasses.fields(before):
        if field.name not in ("table", "n_rejected"):
            assert getattr(after, field.name) == getattr(before, field.name)
    done = run_cli("validate", path, "--read-audio", "--on-error", "skip")
    assert "moved" not in done.stderr
    assert "4 of 10 utterances were rejected, see dev.rejected.tsv" in done.stderr
    assert read_manifest(path).table.equals(after.table)
    (data / "dev.rejected.tsv").unlink()
    assert ("-", "rejected list") in {(f.utt_id, f.kind) for f in validate(path).findings}


def test_rejected_files_are_told_at_every_later_stage(corpus: Path, tmp_path: Path) -> None:
    copy, data, exp = damaged_corpus(corpus, tmp_path / "corpus"), tmp_path / "data", tmp_path / "exp"
    run_cli("prepare", "asvspoof5", copy, "-o", data, "--partial", "--on-error", "skip")
    run_cli("validate", data / "dev.tsv", "--read-audio", "--on-error", "skip")
    sentence = "dev.tsv: 4 of 10 utterances were rejected, see dev.rejected.tsv"
    tiny = [
        "encoder.name=tiny",
        "encoder.freeze=none",
        "finetune.n_steps=2",
        "finetune.eval_every=2",
        "crop_samples=8000",
    ]
    options = [word for setting in tiny for word in ("--set", setting)]
    train = ["finetune", exp, "--train", data / "train.tsv", "--dev", data / "dev.tsv", "--device", "cpu"]
    run_cli(*train, "--workers", 0, *options)
    log = (exp / "train.log").read_text()
    assert sentence in log
    assert "train.tsv: partial: " in log
    done = run_cli("score", exp / "model", data / "dev.tsv", "-o", exp / "dev.tsv", "--device", "cpu", "--workers", 0)
    assert sentence in done.stderr
    assert read_json(exp / "dev.json")["n_rejected"] == 4
    done = run_cli("evaluate", exp / "dev.tsv", data / "dev.tsv", "-o", exp / "results")
    assert sentence in done.stderr
    assert sentence in read_json(exp / "results/eval.json")["warnings"]
    assert sentence in (exp / "results/report.html").read_text()
    run_cli("pack", data / "dev.tsv", "-o", tmp_path / "packed")
    packed = read_manifest(tmp_path / "packed/dev.tsv")
    assert packed.caveats() == read_manifest(data / "dev.tsv").caveats()
    assert read_rejected(packed.path).equals(read_rejected(data / "dev.tsv"))
    assert validate(packed.path, read_all_audio=True).findings == []


def test_a_pack_is_of_the_down_mix_of_its_set_and_is_made_anew_with_another(tmp_path: Path) -> None:
    left, right = voice(1), voice(2)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), SAMPLE_RATE)
    manifest = write_set(tmp_path, {"a.wav": "spoof"}, downmix="first")
    run_cli("pack", manifest, "-o", tmp_path / "packed")
    (tmp_path / "packed/set.tsv").unlink()  # as if killed just before its end
    for downmix, expected, more in (("first", left, []), ("second", right, ["--overwrite"])):
        write_set(tmp_path, {"a.wav": "spoof"}, downmix=downmix)
        if more:
            assert "holds other utterances" in refusal("pack", manifest, "-o", tmp_path / "packed")
        run_cli("pack", manifest, "-o", tmp_path / "packed", *more)
        assert read_manifest(tmp_path / "packed/set.tsv").downmix == downmix
        pcm = np.fromfile(tmp_path / "packed/set_00000.i16", dtype="<i2")  # an open shard would be remembered
        assert np.abs(pcm / 32768 - expected).max() < 2**-14
        (tmp_path / "packed/set.tsv").unlink()


def test_findings_are_plain_lines(whole) -> None:
    from spoofkit.checks.validate import findings_text

    manifest = read_manifest(write_set(shutil.copytree(whole[0], whole[0].parent / "lines"), whole[1]))
    result = Validation(manifest, [Finding("a", "error", "unreadable", "a\tb\nc")], 0, 0, {})
    assert findings_text(result) == "a\terror\ta b c\tunreadable\n"
    assert headers_path(Path("data/eval.tsv")) == Path("data/.eval.headers.jsonl")
