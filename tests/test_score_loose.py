"""`score` for loose recordings: files, folders, globs, pipes, video, long recordings in windows, decisions."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from conftest import make_voice, refusal, run_cli, run_into_file, run_on_terminal
from conftest import table_rows as rows
from hypothesis import given, settings
from hypothesis import strategies as st
from warm import WarmPython

import spoofkit
from spoofkit.addons.pack.write import pack
from spoofkit.data.audio import SAMPLE_RATE, read_audio, read_blocks
from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.calibration import Calibration, write_calibration
from spoofkit.evaluation.score_table import read_table
from spoofkit.evaluation.scores import read_scores
from spoofkit.files import file_sha256, read_json
from spoofkit.models.detector import detector_sha256, load_detector
from spoofkit.scoring import with_torch
from spoofkit.scoring.parts import Part, part_path
from spoofkit.scoring.recordings import Reading, Recording
from spoofkit.scoring.stream import score_recordings
from spoofkit.scoring.windows import Windows, WindowScore, cut, in_windows, parse_windows, score_over
from spoofkit.scoring.with_torch import scorer_of

SCALE, OFFSET = 40.0, -12.0


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five recordings, one in a folder inside it."""
    folder = tmp_path_factory.mktemp("calls")
    (folder / "more").mkdir()
    for index in range(5):
        place = folder / "more" if index == 4 else folder
        soundfile.write(place / f"{index}.wav", make_voice(index, index % 2 == 0, 0.6 + 0.2 * index), SAMPLE_RATE)
    return folder


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "cal.json"
    write_calibration(path, Calibration((SCALE,), OFFSET, 0.5), {})
    return path


@pytest.fixture(scope="module")
def expected(model: Path, calls: Path) -> dict[str, float]:
    """Scores of each recording alone, by the model itself."""
    return {str(path): alone(model, read_audio(path)) for path in sorted(calls.rglob("*.wav"))}


def alone(model: Path, wave_S: np.ndarray) -> float:
    detector, _ = load_detector(model)
    with torch.inference_mode():
        return float(detector(torch.from_numpy(wave_S)[None], torch.tensor([wave_S.size])).item())


def lines(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stdout.splitlines()]


def write_mp4(path: Path, wave_S: np.ndarray, rate: int, n_pictures: int = 5) -> Path:
    """A video with a sound track, AAC, as phones and messengers make them."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=rate)
        audio.layout = "mono"
        for number in range(n_pictures):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="rgb24")
            container.mux(video.encode(picture))
        frame = av.AudioFrame.from_ndarray(wave_S[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    return path


# ---- No verdict from nothing


@pytest.fixture
def without_signal(tmp_path: Path) -> dict[str, Path]:
    """Recordings that say nothing of their speaker: silence, dither, a constant, a scrap; long silence."""
    rng = np.random.default_rng(0)
    loud = make_voice(1, True, 0.2)
    waves = {
        "zeros": np.zeros(32_000),
        "dither": rng.choice([-1, 0, 1], 32_000) / 32_768,
        "constant": np.full(32_000, 0.25),
        "scrap": loud,
        "scrap_in_silence": np.concatenate([np.zeros(20_000), loud, np.zeros(20_000)]),
        "long": np.zeros(100 * SAMPLE_RATE),
    }
    paths = {name: tmp_path / f"{name}.flac" for name in waves}
    for name, wave in waves.items():
        soundfile.write(paths[name], wave, SAMPLE_RATE)
    return paths


def test_silence_and_scraps_get_no_score_and_the_decision_abstain(
    model: Path, calls: Path, calibration: Path, without_signal: dict[str, Path]
) -> None:
    files = [calls / "more/4.wav", calls / "3.wav", *without_signal.values()]
    for options in ((), ("--window", 1), ("--crop", "first:32000"), ("--window", 0)):
        done = run_cli("score", model, *files, "--calibration", calibration, "--json-lines", *options, ok=False)
        found = {Path(str(line["file"])).stem: line for line in lines(done.stdout)}
        for name in without_signal:
            assert found[name]["decision"] == "abstain"
            assert "score" not in found[name]
            assert "of signal above -70 dBFS" in str(found[name]["error"])
        assert {found[name]["decision"] for name in ("3", "4")} <= {"accept", "reject"}
    table = rows(run_cli("score", model, *files, "--calibration", calibration, ok=False).stdout)
    assert {table[str(path)]["decision"] for path in without_signal.values()} == {"abstain"}


def test_quiet_speech_is_signal(model: Path, tmp_path: Path) -> None:
    voice = make_voice(1, True, 1.0)
    soundfile.write(tmp_path / "quiet.flac", voice * 10 ** (-35 / 20), SAMPLE_RATE, "PCM_24")  # some -60 dBFS
    assert len(rows(run_cli("score", model, tmp_path / "quiet.flac").stdout)) == 1


def test_a_list_is_scored_whole_and_what_lacks_signal_is_counted_in_its_record(
    model: Path, calls: Path, without_signal: dict[str, Path], tmp_path: Path
) -> None:
    paths = {path.stem: path for path in (calls / "0.wav", without_signal["zeros"], without_signal["scrap"])}
    table = pl.DataFrame(
        [(name, str(path), soundfile.info(path).frames) for name, path in sorted(paths.items())],
        schema={"utt_id": pl.Utf8, "path": pl.Utf8, "n_samples": pl.Int64},
        orient="row",
    ).with_columns(pl.col("path").str.strip_prefix("/"))
    blank = [pl.lit("-").alias(name) for name in ("speaker", "attack", "codec")]
    write_manifest(tmp_path / "set.tsv", Path("/"), table.with_columns(pl.lit("spoof").alias("key"), *blank))
    for parts in ((), ("1/2", "2/2")):
        out = tmp_path / f"{len(parts)}.tsv"
        for part in parts:
            run_cli("score", model, tmp_path / "set.tsv", "-o", out, "--part", part)
        done = run_cli("score", model, tmp_path / "set.tsv", "-o", out, *(["--merge"] if parts else []))
        assert "2 utterances hold less than 0.5 s of signal" in done.stderr
        assert read_scores(out).height == 3
        assert json.loads(out.with_suffix(".json").read_text())["without_signal"] == ["scrap", "zeros"]


# ---- What may be named


def test_files_folders_globs_and_stdin_name_the_same_recordings(
    model: Path, calls: Path, expected: dict[str, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("\n".join([*expected, "", ""]))
    with open(tmp_path / "list") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        found = {
            "files": run_cli("score", model, *expected).stdout,
            "folder": run_cli("score", model, calls).stdout,
            "glob": run_cli("score", model, calls / "**" / "*.wav").stdout,
            "stdin": run_cli("score", model, "-").stdout,
            "twice": run_cli("score", model, calls / "more", calls, calls / "?.wav").stdout,
        }
    for name, stdout in found.items():
        assert stdout.splitlines()[0].split("\t") == [
            "filename",
            "channel",
            "cm-score",
            "seconds",
            "remarks",
            "error",
        ], name
        found_scores = {file: float(row["cm-score"]) for file, row in rows(stdout).items()}
        assert found_scores == pytest.approx(expected, abs=1e-6), name
        assert len(stdout.splitlines()) == 1 + len(expected), name
    assert len(set(expected.values())) == 5


def test_what_names_nothing_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "*.wav: matches no file" in refusal("score", model, tmp_path / "*.wav")
    assert "no audio files inside" in refusal("score", model, tmp_path)
    assert refusal("score", model, "-", "-").startswith("-: found - (paths on stdin) twice")
    with open(os.devnull) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert refusal("score", model, "-").startswith("-: found no paths on stdin")


def test_a_folder_leaves_nothing_out_but_hidden_files(model: Path, calls: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    with av.open(str(folder / "broadcast.ts"), "w", format="mpegts") as container:
        stream = container.add_stream("mp2", rate=SAMPLE_RATE, layout="mono")
        pcm = (2**15 * make_voice(0, True, 1.0)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (folder / "telephone.ulaw").write_bytes(bytes(range(256)) * 20)
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    shutil.copy(calls / "0.wav", folder)
    (folder / "._0.wav").write_bytes(b"Mac OS X")
    found = rows(run_cli("score", model, folder, ok=False).stdout)
    assert sorted(Path(name).name for name in found) == ["0.wav", "broadcast.ts", "gone.wav", "telephone.ulaw"]
    assert {Path(name).name for name, row in found.items() if "no such file" in row["error"]} == {"gone.wav"}


@pytest.mark.parametrize("name", ["out.csv", "out.txt", "out.JSON"])
def test_an_output_named_otherwise_than_a_score_file_is_refused_before_anything_is_scored(
    model: Path, calls: Path, tmp_path: Path, name: str
) -> None:
    done = run_cli("score", model, calls, tmp_path / name, ok=False)
    assert done.stdout == ""
    assert f"{tmp_path / name}: is not a recording" in done.stderr
    assert f"-o {tmp_path / name}".replace(".txt", ".tsv").replace(".JSON", ".tsv") in done.stderr


def test_a_broken_link_that_a_glob_matches_gets_a_row_with_its_error(model: Path, calls: Path, tmp_path: Path) -> None:
    shutil.copy(sorted(calls.glob("*.wav"))[0], tmp_path / "whole.wav")
    (tmp_path / "broken.wav").symlink_to("nowhere.wav")
    done = run_cli("score", model, tmp_path / "*.wav", ok=False)
    assert done.returncode == 1
    assert [line.split("\t")[0] for line in done.stdout.splitlines()[1:]] == [
        str(tmp_path / name) for name in ("broken.wav", "whole.wav")
    ]


def test_a_name_with_the_signs_of_a_glob_is_a_file(model: Path, calls: Path, tmp_path: Path) -> None:
    odd = shutil.copy(calls / "0.wav", tmp_path / "[1] call*.wav")
    assert list(rows(run_cli("score", model, odd).stdout)) == [str(odd)]


def test_the_sound_of_a_video_is_scored(model: Path, tmp_path: Path) -> None:
    video = write_mp4(tmp_path / "clip.mp4", make_voice(1, True, 1.0, 44_100), 44_100)
    soundfile.write(tmp_path / "clip.flac", read_audio(video), SAMPLE_RATE, subtype="PCM_24")
    score, same = (float(row["cm-score"]) for row in rows(run_cli("score", model, tmp_path).stdout).values())
    assert score == pytest.approx(same, abs=1e-5)
    assert list(rows(run_cli("score", model, tmp_path, "--window", 0).stdout)) == [
        str(tmp_path / "clip.flac"),
        str(video),
    ]


def test_a_pipe_is_answered_name_by_name(model: Path, expected: dict[str, float], warm_python: WarmPython) -> None:
    command = [warm_python.folder / "bin/spoofkit", "score", model, "-", "--json-lines"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=warm_python.environ) as process:
        assert process.stdin
        assert process.stdout
        for file, score in expected.items():  # the next name is given only when the last is answered
            process.stdin.write(f"{file}\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert (answer["file"], answer["score"]) == (file, pytest.approx(score, abs=1e-5))
        process.stdin.close()
        assert process.wait() == 0


# ---- What is said


def test_without_a_calibration_there_is_no_probability_and_no_decision(
    model: Path, calls: Path, expected: dict[str, float]
) -> None:
    done = run_cli("score", model, calls, "--json-lines")
    assert [line.keys() for line in lines(done.stdout)] == [{"file", "channel", "seconds", "score"}] * 5
    assert {line["file"]: line["score"] for line in lines(done.stdout)} == pytest.approx(expected, abs=1e-6)
    assert [line["seconds"] for line in lines(done.stdout)] == pytest.approx([0.6, 0.8, 1.0, 1.2, 1.4])
    assert "cm-score: log-odds of bona fide, higher = more bona fide; not calibrated" in done.stderr
    for option in ("--spoof-prior", "--miss-cost", "--fa-cost", "--abstain-cost"):
        assert f"{option}: needs calibrated scores" in refusal("score", model, calls, option, "0.5")


def test_a_calibration_gives_llr_probability_and_decision(
    model: Path, calls: Path, expected: dict[str, float], calibration: Path
) -> None:
    options = ("--spoof-prior", 0.2, "--miss-cost", 2, "--fa-cost", 5, "--abstain-cost", 0.9)
    done = run_cli("score", model, calls, "--calibration", calibration, *options)
    decisions = set()
    for file, row in rows(done.stdout).items():
        llr, decision = float(row["llr"]), row["decision"]
        assert llr == SCALE * float(np.float32(row["cm-score"])) + OFFSET
        assert llr == pytest.approx(SCALE * expected[file] + OFFSET, abs=1e-3)
        bonafide = 0.8 * math.exp(llr) / (0.8 * math.exp(llr) + 0.2)  # Bayes' rule
        assert float(row["bonafide_probability"]) == pytest.approx(bonafide, abs=1e-5)
        # The cheapest of the three, worked out for this one recording.
        costs = {"accept": 5 * (1 - bonafide), "reject": 2 * bonafide, "abstain": 0.9}
        assert decision == min(costs, key=costs.__getitem__)
        decisions.add(decision)
    assert len(decisions) >= 2
    assert f"in nats, by {calibration}; bonafide_probability: at the spoof prior" in done.stderr
    assert "(spoof prior 0.2; costs: reject bona fide 2, accept spoof 5, abstain 0.9)" in done.stderr
    as_json = lines(run_cli("score", model, calls, "--calibration", calibration, *options, "--json-lines").stdout)
    assert [line["decision"] for line in as_json] == [row["decision"] for row in rows(done.stdout).values()]
    assert [line["llr"] for line in as_json] == [float(row["llr"]) for row in rows(done.stdout).values()]
    assert {line["spoof_prior"] for line in as_json} == {0.2}


def test_thresholds_may_be_given(model: Path, calls: Path, calibration: Path) -> None:
    arguments = ("score", model, calls, "--calibration", calibration)
    llrs = sorted(float(row["llr"]) for row in rows(run_cli(*arguments).stdout).values())
    done = run_cli(*arguments, "--accept-from", llrs[3], "--reject-below", llrs[1])
    decided = {float(row["llr"]): row["decision"] for row in rows(done.stdout).values()}
    assert [decided[llr] for llr in llrs] == ["reject", "abstain", "abstain", "accept", "accept"]
    assert "--accept-from and --fa-cost: " in refusal(*arguments, "--accept-from", 1, "--fa-cost", 3)
    assert "--reject-below: found without --accept-from" in refusal(*arguments, "--reject-below", 1)


def test_a_calibration_of_several_systems_is_refused(model: Path, calls: Path, tmp_path: Path) -> None:
    write_calibration(tmp_path / "fusion.json", Calibration((1.0, 2.0), 0.0, 0.5), {})
    sentence = refusal("score", model, calls, "--calibration", tmp_path / "fusion.json")
    assert "is a fusion of 2 systems, expected the calibration of one" in sentence


def table_shown(*arguments: object, ok: bool = True) -> list[str]:
    """The table, between the progress bar and what it means."""
    shown = run_on_terminal(*arguments, ok=ok)
    end = "llr: " if "--calibration" in arguments else "cm-score: "
    return shown[shown.index("filename ") : shown.index(f"\n{end}")].split("\n")


def test_a_terminal_gets_a_table(model: Path, calls: Path, calibration: Path, tmp_path: Path) -> None:
    shown = table_shown("score", model, calls, "--calibration", calibration)
    assert shown[0].split() == ["filename", "llr", "bonafide_probability", "decision"]
    assert "\t" not in "".join(shown)
    plain = rows(run_cli("score", model, calls, "--calibration", calibration).stdout)
    assert [line.split()[0] for line in shown[1:]] == list(plain)
    assert [float(line.split()[1]) for line in shown[1:]] == pytest.approx(
        [float(row["llr"]) for row in plain.values()], 1e-3
    )
    (tmp_path / "[red]bad.wav").write_text("no sound")
    shown = table_shown("score", model, calls, tmp_path / "[red]bad.wav", ok=False)
    assert shown[0].split() == ["filename", "cm-score", "error"]
    (first,) = (number for number, line in enumerate(shown) if "[red]bad.wav  " in line)
    assert "can decode it" in " ".join(" ".join(shown[first:]).split())


OBEYED = re.compile("[\x07\x1b\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
NASTY = ("\x1b]0;X\x07\x1b[2J", "\x9b1A\x7f", "\u202egpj\u2066", "odd\udcff")
BROKEN = ("first\nsecond", "first\tsecond", "first\rsecond")


@pytest.fixture
def nasty(calls: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "nasty"
    folder.mkdir()
    for name in (*NASTY, *BROKEN):
        shutil.copy(calls / "0.wav", folder / f"{name}.wav")
    (folder / "\x1b[31mtext.wav").write_text("no sound")
    return folder


def test_on_a_terminal_names_are_shown_with_their_control_characters_escaped(
    model: Path, nasty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(nasty.parent)  # a long path would be wrapped
    table = table_shown("score", model, nasty.name, ok=False)
    assert not OBEYED.search("".join(table))
    for shown in (r"\x1b]0;X\x07\x1b[2J.wav", r"\x9b1A\x7f.wav", r"\u202egpj\u2066.wav", r"odd\xff.wav"):
        assert sum(line.split()[0].endswith("/" + shown) for line in table) == 1
    assert sum(line.split()[0].endswith(r"first\nsecond.wav") and is_number(line.split()[1]) for line in table) == 1
    lines = run_on_terminal("score", model, nasty, "--json-lines", ok=False)
    assert not OBEYED.search(lines)
    objects = [json.loads(line) for line in lines.split("\n") if line.startswith("{")]
    assert {Path(found["file"]).stem for found in objects} >= {*NASTY, *BROKEN}
    missing = run_on_terminal("score", model, nasty / f"{NASTY[0]}\nsecond", ok=False)
    assert not OBEYED.search(missing)
    assert not any(line.startswith("second") for line in missing.split("\n"))


def test_in_a_pipe_names_are_the_bytes_on_the_disk_and_rows_cannot_be_broken(
    model: Path, nasty: Path, tmp_path: Path
) -> None:
    columns, *lines = run_into_file(tmp_path / "out", "score", model, nasty).removesuffix(b"\n").split(b"\n")
    cells = [dict(zip(columns.split(b"\t"), line.split(b"\t"), strict=True)) for line in lines]
    found = {row[b"filename"]: row for row in cells}
    assert len(found) == len(cells) == len(list(nasty.iterdir()))
    for name in NASTY:
        assert is_number(found[os.fsencode(nasty / f"{name}.wav")][b"cm-score"])
    for escaped in (b"\x1b[31mtext", rb"first\nsecond", rb"first\tsecond", rb"first\rsecond"):
        row = found[os.fsencode(nasty) + b"/" + escaped + b".wav"]
        assert row[b"error"]
        assert not row[b"cm-score"]
    (nasty / "\x1b[31mtext.wav").unlink()


def test_of_a_name_that_is_not_utf_8_json_and_a_pipe_have_the_bytes_on_the_disk_and_sentences_one_escape(
    model: Path, calls: Path, tmp_path: Path
) -> None:
    good, bad = (os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/a\xff.wav", b"/b\xff.wav"))
    shutil.copy(calls / "0.wav", good)
    Path(bad).write_text("no sound")
    lines = run_into_file(tmp_path / "lines", "score", model, good, bad, "--json-lines").decode().splitlines()
    assert [json.loads(line)["file"] for line in lines] == [good, bad]
    _, *rows = run_into_file(tmp_path / "rows", "score", model, good, bad).splitlines()
    assert [row.split(b"\t")[0] for row in rows] == [os.fsencode(good), os.fsencode(bad)]
    assert rows[1].split(b"\t")[-1].startswith(os.fsencode(tmp_path) + rb"/b\xff.wav: ")
    refusal("score", model, calls / "0.wav", good, bad, "-o", tmp_path / "table.tsv")
    for of_file in read_table((tmp_path / "table.tsv").read_text(), "table")[1:]:
        assert of_file["error"].startswith(f"{of_file['filename']}: ")
        assert r"\xff.wav" in of_file["filename"]


def test_no_cell_of_a_csv_begins_as_a_formula_does_but_numbers(
    model: Path, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("=cmd|' -C calc'!A0.wav", "+1.wav", "-.wav", "@SUM(A1).wav")
    for name in names:
        shutil.copy(calls / "0.wav", name)
    Path("=broken.wav").write_text("no sound")
    refusal("score", model, "*.wav", "-o", "scores.csv")
    (_, *rows), text = csv.reader(Path("scores.csv").read_text().splitlines()), Path("scores.csv").read_text()
    cells = [cell for row in rows for cell in row]
    assert {f"./{name}" for name in names} < set(cells)
    assert any(cell.startswith("./=broken.wav: ") for cell in cells)
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@")) and not is_number(cell)]
    assert "./-1" not in text  # a negative score stays a number
    assert set(read_scores("scores.csv")["utt_id"]) == {*names}  # who reads it back gets the names
    run_cli("report", model, "=cmd*.wav", "[-].wav", "-o", "reports")
    rows = list(csv.DictReader(Path("reports/summary.csv").read_text().splitlines()))
    assert {row["file"] for row in rows} == {f"./{names[0]}", "./-.wav"}
    assert not [cell for row in rows for cell in row.values() if cell.startswith(tuple("=+-@")) and not is_number(cell)]


def test_options_of_windows_are_refused_where_recordings_are_never_cut(
    model: Path, calls: Path, tmp_path: Path
) -> None:
    command = ("score", model, calls / "0.wav", "--crop", "repeat:16000")
    for *options, named in (
        ("--window", 2, "--window:"),
        ("--window", 2, "--hop", 1, "--window and --hop:"),
        ("--over-windows", "min", "--over-windows:"),
        ("--windows", tmp_path / "w.tsv", "--windows:"),
    ):
        sentence = refusal(*command, *options)
        assert sentence.startswith(named)
        assert "repeat:16000" in sentence
    assert not (tmp_path / "w.tsv").exists()
    with pytest.raises(spoofkit.SpoofkitError, match="--hop: "):
        spoofkit.load(model, crop="repeat:16000", hop=10.0)
    run_cli(*command, "--window", 0)  # not cut, as it is


def test_an_empty_file_and_names_between_nuls_are_said_to_be_what_they_are(
    model: Path, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.wav").touch()
    assert "is empty (0 bytes)" in refusal("score", model, calls / "0.wav", tmp_path / "empty.wav")
    (tmp_path / "names").write_bytes(b"\0".join(os.fsencode(path) for path in sorted(calls.iterdir())))
    with open(tmp_path / "names") as names:
        monkeypatch.setattr("sys.stdin", names)
        assert "separated by NUL" in refusal("score", model, "-")


@pytest.mark.parametrize(("name", "holds"), [("s.tsv", ()), ("s.csv", BROKEN), ("w.csv", ())])
def test_a_name_that_a_file_cannot_hold_is_the_reason_of_its_row_and_the_others_are_scored(
    model: Path, nasty: Path, tmp_path: Path, name: str, holds: tuple[str, ...]
) -> None:
    (nasty / "\x1b[31mtext.wav").unlink()
    shutil.copy(nasty / f"{NASTY[0]}.wav", nasty / r"odd\xff.wav")  # what another name is once it is escaped
    scores, scored = tmp_path / name, sorted([*NASTY[:3], r"odd\xff", *holds])
    # A table of windows is TSV.
    windows = ["--window", "0.3", "--windows", tmp_path / "w.tsv"] if name == "w.csv" else []
    command = ("score", model, nasty, "-o", scores, "--accept-from", "-99", "--reject-below", "-99", *windows)
    sentence = refusal(*command)
    n_all = len(NASTY) + len(BROKEN) + 1
    assert f"{n_all - len(scored)} of {n_all} recordings failed" in sentence
    assert sorted(Path(name).stem for name in read_scores(scores)["utt_id"]) == scored
    text = scores.read_bytes().decode()
    for broken in {*BROKEN} - {*holds}:
        escaped = broken.encode("unicode_escape").decode()
        assert sum(f"{escaped}.wav" in line and "cannot hold this name" in line for line in text.split("\n")) == 1
    assert sum(r"odd\xff.wav (2)" in line and "cannot hold this name" in line for line in text.split("\n")) == 1
    if windows:
        lines = (tmp_path / "w.tsv").read_bytes().decode().split("\n")[1:-1]
        assert {Path(line.split("\t")[0]).stem for line in lines} == set(scored)
    assert "up to date" in run_cli(*command, "--reuse", ok=False).stdout
    before = read_table(text, scores)
    run_cli(*command[:6], "99", "--reject-below", "99", *windows, "--reuse", ok=False)
    after = read_table(scores.read_bytes().decode(), scores)
    assert [row | {"decision": ""} for row in after] == [row | {"decision": ""} for row in before]
    assert {row["decision"] for row in after if row["cm-score"]} == {"reject"}
    if name.endswith(".csv"):
        with open(scores, encoding="utf-8", newline="") as file:
            assert {Path(row["filename"]).stem for row in csv.DictReader(file) if row["cm-score"]} == set(scored)


def is_number(text: str | bytes) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


# ---- What cannot be scored


@pytest.fixture
def mixed(calls: Path, tmp_path: Path) -> dict[str, Path]:
    """Good recordings, and between them some of every fault."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "b_text.wav").write_text("this is not audio " * 50)
    soundfile.write(folder / "d_short.wav", np.full(100, 0.1), SAMPLE_RATE)
    soundfile.write(folder / "f_nan.wav", np.full(9000, np.nan), SAMPLE_RATE, subtype="FLOAT")
    for name, index in (("a", 0), ("c", 1), ("i", 2)):
        shutil.copy(calls / f"{index}.wav", folder / f"{name}.wav")
    return {path.stem: path for path in [*folder.iterdir(), folder / "g_missing.wav"]}


FAULTS = {
    "b_text": "neither libsndfile nor FFmpeg can decode it",
    "d_short": "has 100 samples, the encoder needs at least 400",
    "f_nan": "holds NaN or infinite samples",
    "g_missing": "no such file",
}


@pytest.mark.parametrize("window", [0, 30])
def test_what_cannot_be_scored_is_a_row_with_its_reason_and_the_rest_is_scored(
    window: float, model: Path, mixed: dict[str, Path], expected: dict[str, float]
) -> None:
    files = [mixed[name] for name in sorted(mixed)]
    done = run_cli("score", model, *files, "--window", window, ok=False)
    assert done.returncode == 1
    found = rows(done.stdout)
    assert list(found) == list(map(str, files))
    for name, path in mixed.items():
        row = found[str(path)]
        if name in FAULTS:
            assert FAULTS[name] in row["error"]
            assert (row["cm-score"], row["seconds"], row["remarks"]) == ("", "", "")
        else:
            float(row["cm-score"])
            assert row["error"] == ""
    assert "spoofkit: error: 4 of 7 recordings failed" in done.stderr
    told = lines(run_cli("score", model, *files, "--json-lines", "--window", window, ok=False).stdout)
    assert [set(line) for line in told if "error" in line] == [{"file", "channel", "error"}] * 4


def test_a_score_file_holds_what_could_be_scored_and_its_record_the_rest(
    model: Path, mixed: dict[str, Path], tmp_path: Path
) -> None:
    files = [mixed[name] for name in sorted(mixed)]
    sentence = refusal("score", model, *files, "-o", tmp_path / "out.tsv")
    assert sentence.startswith("4 of 7 recordings failed")
    assert set(read_scores(tmp_path / "out.tsv")["utt_id"]) == {str(mixed[name]) for name in ("a", "c", "i")}
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["n_trials"] == 3
    assert {Path(file).stem for file in record["errors"]} == set(FAULTS)
    for file, reason in record["errors"].items():
        assert FAULTS[Path(file).stem] in reason
    # In parts too, and in any order.
    for number in (3, 1, 2):
        run_cli("score", model, *files, "-o", tmp_path / "cut.tsv", "--part", f"{number}/3")
    refusal("score", model, *files, "-o", tmp_path / "cut.tsv", "--merge")
    assert (tmp_path / "cut.tsv").read_bytes() == (tmp_path / "out.tsv").read_bytes()
    assert json.loads((tmp_path / "cut.json").read_text())["errors"] == record["errors"]


def test_a_recording_that_the_disk_refuses_is_a_row_with_its_reason_too(
    model: Path, calls: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").symlink_to("/proc/self/mem")  # it opens, and reading it is an error
    refusal("score", model, calls / "0.wav", tmp_path / "bad.wav", "-o", tmp_path / "out.tsv")
    found = rows((tmp_path / "out.tsv").read_text())
    assert float(found[str(calls / "0.wav")]["cm-score"])
    assert found[str(tmp_path / "bad.wav")]["cm-score"] == ""
    assert str(tmp_path / "bad.wav") in found[str(tmp_path / "bad.wav")]["error"]


def test_a_manifest_whose_name_is_no_utf_8_is_recorded_by_its_name(model: Path, calls: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"m\xff.tsv")
    rows = [(name, f"{name}.wav", soundfile.info(calls / f"{name}.wav").frames, "s", "A01", "-") for name in "01"]
    table = pl.DataFrame(rows, schema=["utt_id", "path", "n_samples", "speaker", "attack", "codec"], orient="row")
    write_manifest(odd, calls, table.with_columns(key=pl.Series(["bonafide", "spoof"])))
    run_cli("score", model, odd, "-o", tmp_path / "out.tsv")
    assert read_json(tmp_path / "out.json")["manifest"] == str(odd)
    run_cli("score", model, odd, "-o", tmp_path / "out.tsv", "--reuse")
    run_cli("evaluate", tmp_path / "out.tsv", odd, "-o", tmp_path / "results", "--replicates", 0)
    assert read_json(tmp_path / "results/eval.json")["made_with"]["manifest"] == str(odd)


def test_a_part_with_errors_is_gone_on_with(model: Path, mixed: dict[str, Path], tmp_path: Path) -> None:
    files, out = [mixed[name] for name in sorted(mixed)], tmp_path / "out.tsv"
    run_cli("score", model, *files, "-o", out, "--part", "1/1")
    path = part_path(out, Part())
    part = path.read_bytes().splitlines(keepends=True)
    assert len(part) == 1 + 7
    refusal("score", model, *files, "-o", out)
    whole = out.read_bytes()
    out.unlink()
    out.with_suffix(".json").unlink()
    path.parent.mkdir()
    path.write_bytes(b"".join(part[:5]))
    done = run_cli("score", model, *files, "-o", out, ok=False)
    assert "resuming: 4 of 7 utterances" in done.stderr
    assert out.read_bytes() == whole
    assert len(json.loads(out.with_suffix(".json").read_text())["errors"]) == 4


# ---- Windows


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_windows_are_those_of_the_whole_wave(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 300))
    hop = data.draw(st.integers(1, length))
    wave_S = np.arange(data.draw(st.integers(1, 2000)), dtype=np.float32)
    ends = sorted(data.draw(st.lists(st.integers(0, wave_S.size), max_size=20)))
    found = list(cut(np.split(wave_S, ends), Windows(length, hop, "mean")))
    if wave_S.size <= length:
        starts, length = [0], wave_S.size
    else:  # every hop as long as another window fits behind it, then the one that ends with the wave
        starts = [start for start in range(0, wave_S.size, hop) if start + length < wave_S.size]
        starts.append(wave_S.size - length)
    assert [window.start for window in found] == starts
    for window in found:
        assert np.array_equal(window.wave_S, wave_S[window.start : window.start + length])
    assert found[-1].end == wave_S.size


def test_the_mean_over_windows_weighs_each_by_the_time_it_adds() -> None:
    scores = [WindowScore(0, 10, 1.0), WindowScore(5, 15, 2.0), WindowScore(7, 17, 4.0)]
    assert score_over(scores, "mean") == pytest.approx((10 * 1 + 5 * 2 + 2 * 4) / 17)
    assert score_over(scores, "min") == 1.0


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7.3 s, the second half another voice."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    soundfile.write(path, np.concatenate([make_voice(1, True, 3.6), make_voice(2, False, 3.7)]), SAMPLE_RATE)
    return path


@pytest.mark.parametrize(("options", "starts"), [((), [0, 2, 4, 5.3]), (("--hop", 1.5), [0, 1.5, 3, 4.5, 5.3])])
def test_a_long_recording_is_scored_window_by_window(
    options: tuple[object, ...], starts: list[float], model: Path, long: Path, calls: Path, tmp_path: Path
) -> None:
    wave_S = read_audio(long)
    starts_S = [round(start * SAMPLE_RATE) for start in starts]
    alone_W = [alone(model, wave_S[start : start + 2 * SAMPLE_RATE]) for start in starts_S]
    arguments = ("score", model, long, calls / "0.wav", "--window", 2, *options)
    done = run_cli(*arguments, "--json-lines", "--windows", tmp_path / "windows.tsv")
    first, second = lines(done.stdout)
    assert [w["start_seconds"] for w in first["windows"]] == starts  # type: ignore[attr-defined]
    assert [w["end_seconds"] for w in first["windows"]] == pytest.approx([s + 2 for s in starts])  # type: ignore[attr-defined]
    assert [w["score"] for w in first["windows"]] == pytest.approx(alone_W, abs=1e-6)  # type: ignore[attr-defined]
    added = np.diff([0, *(start + 2 for start in starts)])
    assert first["score"] == pytest.approx(float(added @ alone_W) / 7.3, abs=1e-6)
    assert first["seconds"] == pytest.approx(7.3)
    assert "windows" not in second
    table = pl.read_csv(tmp_path / "windows.tsv", separator="\t")
    assert table.columns == ["filename", "channel", "start_seconds", "end_seconds", "cm-score"]
    assert table["start_seconds"].to_list() == starts
    assert table["cm-score"].to_list() == pytest.approx(alone_W, abs=1e-6)
    lowest = rows(run_cli(*arguments, "--over-windows", "min").stdout)[str(long)]
    assert float(lowest["cm-score"]) == pytest.approx(min(alone_W), abs=1e-6)
    assert np.ptp(alone_W) > 1e-3
    assert "is scored in windows of 2 s every" in done.stderr
    whole = rows(run_cli("score", model, long, "--window", 0).stdout)[str(long)]
    assert float(whole["cm-score"]) == pytest.approx(alone(model, wave_S), abs=1e-5)
    cropped = rows(run_cli(*arguments, "--crop", "first:40000").stdout)[str(long)]
    two = [alone(model, wave_S[:32000]), alone(model, wave_S[8000:40000])]
    assert float(cropped["cm-score"]) == pytest.approx((2 * two[0] + 0.5 * two[1]) / 2.5, abs=1e-6)


def test_a_manifest_with_long_utterances_is_cut_too_continued_and_shared(
    model: Path, long: Path, calls: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(calls, corpus)
    shutil.copy(long, corpus)
    names = [*(f"{index}.wav" for index in range(4)), "long.flac"]
    lengths = [soundfile.info(corpus / name).frames for name in names]
    table = pl.DataFrame({"utt_id": names, "path": names, "n_samples": lengths})
    blank = [pl.lit("-").alias(name) for name in ("speaker", "attack", "codec")]
    table = table.with_columns(pl.lit("spoof").alias("key"), *blank)
    write_manifest(corpus / "set.tsv", corpus, table)
    arguments = ("score", model, corpus / "set.tsv")
    one, out = tmp_path / "one.tsv", tmp_path / "out.tsv"
    done = run_cli(*arguments, "-o", one, "--window", 2, "--windows", tmp_path / "one.windows.tsv")
    assert "set.tsv: 1 of 5 utterances are longer than a window" in done.stderr
    loose = rows(run_cli("score", model, corpus, "--window", 2).stdout)
    scores = dict(read_scores(one).iter_rows())
    assert scores == pytest.approx({name: float(loose[str(corpus / name)]["cm-score"]) for name in names}, abs=1e-5)
    record = json.loads(one.with_suffix(".json").read_text())
    assert record["windows"] == {"window_seconds": 2.0, "hop_seconds": 2.0, "over_windows": "mean"}
    for number in (2, 1):
        run_cli(*arguments, "-o", out, "--window", 2, "--part", f"{number}/2")
    assert "(windows)" in refusal(*arguments, "-o", out, "--window", 3, "--merge")
    run_cli(*arguments, "-o", out, "--window", 2, "--merge", "--windows", tmp_path / "out.windows.tsv")
    assert out.read_bytes() == one.read_bytes()
    assert (tmp_path / "out.windows.tsv").read_bytes() == (tmp_path / "one.windows.tsv").read_bytes()
    assert "(windows)" in refusal(*arguments, "-o", out, "--window", 3, "--reuse")
    # What is asked for and not there is recreated.
    run_cli(*arguments, "-o", one, "--window", 2, "--reuse", "--windows", tmp_path / "new.windows.tsv")
    assert (tmp_path / "new.windows.tsv").read_bytes() == (tmp_path / "one.windows.tsv").read_bytes()
    # Where nothing is longer than a window, windows are not what scores were made from.
    run_cli(*arguments, "-o", tmp_path / "whole.tsv", "--window", 10)
    assert "windows" not in json.loads((tmp_path / "whole.json").read_text())
    assert "up to date, skipped" in run_cli(*arguments, "-o", tmp_path / "whole.tsv", "--window", 0, "--reuse").stdout
    # Of an unknown length it may be longer.
    write_manifest(corpus / "set.tsv", corpus, table.with_columns(pl.lit(-1).alias("n_samples")), overwrite=True)
    run_cli(*arguments, "-o", tmp_path / "unknown.tsv", "--window", 2)
    assert dict(read_scores(tmp_path / "unknown.tsv").iter_rows()) == pytest.approx(scores, abs=1e-5)
    # And a manifest that is older than the file is refused.
    for expected in (lengths[-1] + 5, lengths[-1] - 5):
        wrong = table.with_columns(pl.Series("n_samples", [*lengths[:-1], expected]))
        write_manifest(corpus / "set.tsv", corpus, wrong, overwrite=True)
        sentence = refusal(*arguments, "-o", tmp_path / "wrong.tsv", "--window", 2)
        assert f"found {lengths[-1]} samples, expected {expected}" in sentence


def test_repeat_says_what_is_scored_and_nothing_is_cut(model: Path, long: Path) -> None:
    arguments = ("score", model, long, "--crop", "repeat:64600")
    assert run_cli(*arguments).stdout == run_cli(*arguments, "--window", 0).stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--window", -1), "--window -1: expected a positive number of seconds"),
        (("--window", "nan"), "--window nan: expected a positive number"),
        (("--window", "inf"), "--window inf: expected a positive number"),
        (("--window", 2, "--hop", 3), "--hop 3: expected seconds between 0 and those of --window, 2"),
        (("--window", 2, "--hop", 0), "--hop 0: expected seconds"),
        (("--window", 0, "--hop", 1), "--hop: has no effect with --window 0"),
        (("--window", 0.01), "--window: 160 samples are too few, the encoder needs at least 400"),
        (("--over-windows", "max"), "--over-windows max: expected one of mean, min"),
    ],
)
def test_windows_that_mean_nothing_are_refused(
    options: tuple[object, ...], words: str, model: Path, calls: Path
) -> None:
    assert words in refusal("score", model, calls, *options)


# ---- Blocks


@pytest.mark.parametrize("rate", [16_000, 8_000, 44_100])
@pytest.mark.parametrize("name", ["mono.wav", "stereo.flac", "coded.mp4", "coded.ogg"])
def test_blocks_are_bit_for_bit_what_a_whole_read_gives(rate: int, name: str, tmp_path: Path) -> None:
    wave = make_voice(3, True, 2.7, rate)
    path = tmp_path / name
    if name == "coded.mp4":
        write_mp4(path, wave, rate)
    else:
        soundfile.write(path, np.stack([wave, 0.5 * wave], 1) if name == "stereo.flac" else wave, rate)
    blocks = list(read_blocks(path))
    assert len(blocks) >= 3
    assert np.array_equal(np.concatenate(blocks), read_audio(path))
    assert np.array_equal(np.concatenate(list(read_blocks(path, 20_000))), read_audio(path, 0, 20_000))
    if name == "stereo.flac":
        second = np.concatenate(list(read_blocks(path, downmix="second")))
        assert np.array_equal(second, read_audio(path, downmix="second"))


def test_blocks_of_a_packed_utterance_are_its_samples(long: Path, tmp_path: Path) -> None:
    table = pl.DataFrame({"utt_id": ["u"], "path": ["long.flac"], "key": ["spoof"], "n_samples": [-1]})
    blank = [pl.lit("-").alias(name) for name in ("speaker", "attack", "codec")]
    write_manifest(tmp_path / "set.tsv", long.parent, table.with_columns(*blank))
    made = read_manifest(pack(tmp_path / "set.tsv", tmp_path / "packed").manifest)
    path = made.audio_path(made.table["path"][0])
    assert np.array_equal(np.concatenate(list(read_blocks(path))), read_audio(long))
    windows = list(in_windows(read_blocks(path), Windows(32_000, 32_000, "mean")))
    assert [window.start for window in windows] == [0, 32_000, 64_000, 84_800]


def test_faults_of_a_long_recording_are_found_in_blocks_too(model: Path, tmp_path: Path) -> None:
    wave = make_voice(1, True, 5.0)
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(wave.size) == 70_000, np.nan, wave), 16_000, "FLOAT")
    write_mp4(tmp_path / "cut.mp4", wave, 16_000)
    found = rows(run_cli("score", model, tmp_path, "--window", 2, ok=False).stdout)
    assert "holds NaN or infinite samples" in found[str(tmp_path / "nan.wav")]["error"]
    float(found[str(tmp_path / "cut.mp4")]["cm-score"])
    for path, message in (("nan.wav", "NaN"), ("none.wav", "no such file")):
        with pytest.raises(SpoofkitError, match=message):
            list(read_blocks(tmp_path / path))


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    peaks = []
    for seconds in (20, 200):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, np.zeros(seconds * 44_100, np.int16), 44_100)
        tracemalloc.start()
        n_windows = sum(1 for _ in in_windows(read_blocks(path), Windows(64_000, 64_000, "mean")))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n_windows == seconds / 4
    assert peaks[1] < 1.2 * peaks[0]


# ---- Calibrated score files, devices that take many at once


def test_a_score_file_holds_log_likelihood_ratios_if_a_calibration_is_given(
    model: Path, calls: Path, expected: dict[str, float], calibration: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    arguments = ("score", model, calls, "-o", out)
    run_cli(*arguments, "--calibration", calibration)
    found = dict(read_scores(out).iter_rows())
    assert found == pytest.approx({file: SCALE * score + OFFSET for file, score in expected.items()}, abs=1e-3)
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["score"] == "log-likelihood ratio, nats"
    assert record["calibration_sha256"] == file_sha256(calibration)
    assert "(calibration)" in refusal(*arguments, "--reuse")
    out.unlink()
    out.with_suffix(".json").unlink()
    run_cli(*arguments, "--calibration", calibration, "--part", "1/2")
    assert "(calibration)" in refusal(*arguments, "--part", "1/2")
    assert "--json-lines: " in refusal(*arguments, "--json-lines")


def test_chunks_are_batched_by_length_and_keep_their_order(
    model: Path, calls: Path, long: Path, expected: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_torch, "CPU_BUDGET_SAMPLES", 40_000)
    detector, _ = load_detector(model)
    seen: list[list[int]] = []
    detector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].tolist()))
    files = [str(calls / "2.wav"), str(long), str(calls / "none.wav"), *sorted(expected)[:2]]
    reading = Reading(windows=Windows(16_000, 16_000, "mean"))
    chunk = [Recording(file, file) for file in files]
    (results,) = score_recordings(scorer_of(detector, torch.device("cpu")), [chunk], reading)
    assert [result.name for result in results] == files
    assert seen[:2] == [[16_000, 12_800], [9_600]]
    assert all(sizes == [16_000] * len(sizes) for sizes in seen[2:])
    assert max(map(len, seen[2:])) == 2  # windows of a long one together too
    for result in results:
        if result.name in expected:
            assert result.score == pytest.approx(expected[result.name], abs=1e-5)
    assert len(results[1].windows) == 8
    assert "no such file" in results[2].error


def test_what_is_repeated_is_batched_by_the_length_it_then_has(
    model: Path, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_torch, "CPU_BUDGET_SAMPLES", 20_000)
    click = make_voice(9, True, 0.01)  # of itself too short for the encoder
    soundfile.write(tmp_path / "click.wav", click, SAMPLE_RATE, "FLOAT")
    files = [str(tmp_path / "click.wav"), *(str(calls / f"{index}.wav") for index in range(3))]
    detector, _ = load_detector(model)
    seen: list[list[int]] = []
    detector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].tolist()))
    chunk = [Recording(file, file, is_listed=True) for file in files]
    (results,) = score_recordings(scorer_of(detector, torch.device("cpu")), [chunk], Reading(6000, 6000))
    assert seen == [[6000] * 3, [6000]]
    assert results[0].score == pytest.approx(alone(model, np.tile(click, 38)[:6000]), abs=1e-5)
    assert [result.seconds for result in results] == pytest.approx([0.01, 0.375, 0.375, 0.375])  # not what was repeated
    sentence = refusal("score", model, *files, "--crop", "repeat:300")
    assert "--crop repeat:300: 300 samples are too few, the encoder needs at least 400" in sentence


def test_decoding_threads_change_nothing(model: Path, calls: Path) -> None:
    assert run_cli("score", model, calls).stdout == run_cli("score", model, calls, "--workers", 5).stdout


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert not left


def test_hop_and_window_are_counted_in_samples() -> None:
    assert parse_windows(4.0375, None, "mean") == Windows(64_600, 64_600, "mean")
    assert parse_windows(2, 0.5, "min") == Windows(32_000, 8_000, "min")
    assert parse_windows(0, None, "mean") is None


def test_a_calibration_of_another_model_is_refused(model: Path, calls: Path, tmp_path: Path) -> None:
    """As far as its file says on whose scores it was fitted."""

    def fitted_on(**known: str) -> Path:
        path = tmp_path / "c.json"
        write_calibration(path, Calibration((SCALE,), OFFSET, 0.5), {"fitted_on": {"made_by": [known]}})
        return path

    done = run_cli("score", model, calls, "--calibration", fitted_on(model_sha256=detector_sha256(model)))
    assert "not checked" not in done.stderr
    assert "does not record the model" in run_cli("score", model, calls, "--calibration", fitted_on()).stderr
    other = refusal("score", model, calls, "--calibration", fitted_on(model_sha256="b" * 64))
    assert "c.json: was fitted on scores of model bbbbbbbbbbbb, found" in other
    assert "fit one for this model with `spoofkit calibrate`" in other
    twice = fitted_on(model_sha256=detector_sha256(model), calibration_sha256="c" * 64)
    assert "was fitted on calibrated scores" in refusal("score", model, calls, "--calibration", twice)


def test_what_does_not_fit_in_memory_is_a_reason(model: Path, calls: Path) -> None:
    done = run_cli("score", model, calls / "0.wav", "--crop", "repeat:99999999999999", ok=False)
    assert "do not fit in memory" in done.stdout


@pytest.mark.parametrize(
    "option",
    [("--hop=-inf",), ("--window=1e308",), ("--hop=nan",), ("--min-speech=1e308",), ("--crop=first:²",)],
)
def test_numbers_that_mean_nothing_are_refused(model: Path, calls: Path, option: tuple[str]) -> None:
    assert refusal("score", model, calls, *option).startswith(option[0].split("=")[0])


def test_a_recording_of_which_only_the_beginning_is_scored_says_so(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n_samples in (("long", 20_000), ("short", 12_000)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(n_samples), SAMPLE_RATE)
    for crop in ("first:16000", "repeat:16000"):
        found = rows(run_cli("score", model, tmp_path, "--crop", crop).stdout)
        assert found[str(tmp_path / "long.wav")]["remarks"] == "the first 1 s alone"
        assert found[str(tmp_path / "short.wav")]["remarks"] == ""
