"""Recordings of several channels: which are told apart, and that each is scored as if it stood alone."""

import csv
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import make_voice, refusal, run_cli

from spoofkit.data.audio import SAMPLE_RATE, choose_channels, read_audio
from spoofkit.evaluation.calibration import Calibration, write_calibration
from spoofkit.evaluation.scores import read_scores
from spoofkit.scoring.parts import Part, part_path

MEAN = ("mean",)


def write(path: Path, *channels: np.ndarray, rate: int = SAMPLE_RATE) -> Path:
    soundfile.write(path, np.stack(channels, axis=1), rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def told(*arguments: object, ok: bool = True) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run_cli(*arguments, "--json-lines", ok=ok).stdout.splitlines()]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A call in stereo, its two channels as files, and another recording whose two channels are one."""
    folder = tmp_path_factory.mktemp("parties")
    left, right = make_voice(1, True, 2.3), make_voice(2, False, 2.3)
    write(folder / "call.wav", left, right)
    for name, wave in (("left", left), ("right", right)):
        write(folder / f"{name}.wav", wave)
    write(folder / "dual.wav", left, left)
    return folder


# ---- Which channels are told apart


def beside(wave: np.ndarray, decibel: float) -> np.ndarray:
    """A second channel that differs from a wave by so much of the level of both."""
    noise = np.random.default_rng(3).standard_normal(wave.size)
    noise *= np.sqrt(np.square(wave).sum() / np.square(noise).sum()) * 10 ** (decibel / 20)
    return (wave + noise).astype(np.float32)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (lambda wave: wave, MEAN),
        (lambda wave: beside(wave, -41), MEAN),
        (lambda wave: beside(wave, -39), ("1", "2")),
        (lambda wave: -wave, ("1", "2")),
        (np.zeros_like, ("1", "2")),
        (lambda wave: make_voice(2, False, 2.3), ("1", "2")),
    ],
)
def test_channels_are_told_apart_if_their_difference_is_above_40_db_below_them(second, expected, tmp_path) -> None:
    wave = make_voice(1, True, 2.3)
    assert choose_channels(write(tmp_path / "a.wav", wave, second(wave))) == expected
    # Of three it may be the last that differs.
    chosen = choose_channels(write(tmp_path / "b.wav", wave, wave, second(wave)))
    assert chosen == (expected if expected == MEAN else ("1", "2", "3"))


def test_dither_does_not_tell_channels_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dither = [(rng.choice([-1, 0, 1], 32_000) / 32_768).astype(np.float32) for _ in range(2)]
    assert choose_channels(write(tmp_path / "a.wav", *dither)) == MEAN


def test_a_difference_is_found_wherever_it_begins_and_memory_does_not_grow(tmp_path: Path) -> None:
    wave = make_voice(1, True, 60.0)
    other = wave.copy()
    other[45 * SAMPLE_RATE :] = make_voice(2, False, 15.0)
    write(tmp_path / "late.flac", wave, other)
    tracemalloc.start()
    assert choose_channels(tmp_path / "late.flac") == ("1", "2")
    assert tracemalloc.get_traced_memory()[1] < wave.nbytes / 2
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("rule", "of_call", "of_dual", "of_left"),
    [
        ("auto", ("1", "2"), MEAN, MEAN),
        ("mean", MEAN, MEAN, MEAN),
        ("first", ("1",), ("1",), ("1",)),
        ("each", ("1", "2"), ("1", "2"), ("1",)),
        ("2", ("2",), ("2",), None),
    ],
)
def test_the_rule_says_which_channels_are_read(rule, of_call, of_dual, of_left, parties: Path) -> None:
    assert choose_channels(parties / "call.wav", rule) == of_call
    assert choose_channels(parties / "dual.wav", rule) == of_dual
    if of_left is not None:
        assert choose_channels(parties / "left.wav", rule) == of_left
    for downmix in of_call:
        expected = {"1": ["left"], "2": ["right"], "mean": ["left", "right"]}[downmix]
        waves = [read_audio(parties / f"{name}.wav") for name in expected]
        found = read_audio(parties / "call.wav", downmix=downmix)
        assert np.array_equal(found, np.mean(waves, axis=0, dtype=np.float32))


# ---- score


@pytest.mark.parametrize("rate", [8_000, SAMPLE_RATE])
@pytest.mark.parametrize(
    "options", [(), ("--crop", "first:9000"), ("--crop", "repeat:50000"), ("--window", 1, "--hop", 0.5)]
)
def test_two_parties_have_two_rows_each_that_of_the_channel_as_a_file(
    options: tuple[object, ...], rate: int, model: Path, tmp_path: Path
) -> None:
    left, right = make_voice(1, True, 2.3, rate), make_voice(2, False, 2.3, rate)
    call = write(tmp_path / "call.wav", left, right, rate=rate)
    files = [write(tmp_path / "left.wav", left, rate=rate), write(tmp_path / "right.wav", right, rate=rate)]
    alone = told("score", model, *files, *options)
    found = told("score", model, call, *options)
    assert [line["channel"] for line in alone] == [None, None]
    assert [(line["file"], line["channel"]) for line in found] == [(str(call), 1), (str(call), 2)]
    unnamed = [{name: value for name, value in line.items() if name not in ("file", "channel")} for line in found]
    assert unnamed == [{name: line[name] for name in unnamed[0]} for line in alone]
    assert found[0]["score"] != found[1]["score"]


def test_speech_is_looked_for_in_each_channel(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("silero_vad")
    noise = 0.01 * np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE).astype(np.float32)
    from test_score_voice import make_speech

    speech = make_speech(3.0)
    call, alone = write(tmp_path / "call.wav", noise, speech), write(tmp_path / "speech.wav", speech)
    options = ("--min-speech", 0.4, "--window", 1)
    first, second = told("score", model, call, *options, ok=False)
    assert "s of speech" in first["error"]
    (expected,) = told("score", model, alone, *options)
    assert (second["channel"], second["score"], second["windows"]) == (2, expected["score"], expected["windows"])


def test_recordings_whose_channels_agree_have_one_row(model: Path, parties: Path, tmp_path: Path) -> None:
    (line,) = told("score", model, parties / "dual.wav")
    (expected,) = told("score", model, parties / "left.wav")
    assert (line["channel"], line["score"]) == (None, expected["score"])


def test_a_silent_channel_has_its_reason_and_the_speaking_one_its_score(model: Path, parties: Path, tmp_path) -> None:
    write_calibration(tmp_path / "cal.json", Calibration((40.0,), -12.0, 0.5), {})
    wave = read_audio(parties / "left.wav")
    call = write(tmp_path / "call.wav", np.zeros_like(wave), wave)
    silent, speaking = told("score", model, call, "--calibration", tmp_path / "cal.json", ok=False)
    (expected,) = told("score", model, parties / "left.wav", "--calibration", tmp_path / "cal.json")
    assert (silent["channel"], silent["decision"]) == (1, "abstain")
    assert "channel 1: holds 0.00 s of signal" in silent["error"]
    assert "score" not in silent
    assert (speaking["channel"], speaking["score"], speaking["llr"]) == (2, expected["score"], expected["llr"])
    for how in ((), ("--reuse",)):
        said = refusal("score", model, call, "-o", tmp_path / "out.csv", *how)
        assert said.startswith("1 of 2 recordings failed")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [(row["channel"], bool(row["cm-score"])) for row in rows] == [("1", False), ("2", True)]


def test_the_table_in_a_pipe_has_a_column_for_the_channel(model: Path, parties: Path) -> None:
    done = run_cli("score", model, parties / "call.wav", parties / "left.wav")
    rows = table(done.stdout)
    assert [(Path(row["filename"]).stem, row["channel"]) for row in rows] == [
        ("call", "1"),
        ("call", "2"),
        ("left", ""),
    ]
    assert "call.wav: its channels differ" in done.stderr
    assert "--channels mean" in done.stderr
    # Who asked for it knows.
    assert "channels differ" not in run_cli("score", model, parties / "call.wav", "--channels", "each").stderr


def test_windows_name_their_channel(model: Path, parties: Path, tmp_path: Path) -> None:
    arguments = ("score", model, parties / "call.wav", "--window", 1, "--windows", tmp_path / "windows.tsv")
    lines = told(*arguments)
    rows = table((tmp_path / "windows.tsv").read_text())
    assert [row["channel"] for row in rows] == ["1"] * 3 + ["2"] * 3
    expected = [window["score"] for line in lines for window in line["windows"]]
    assert [float(row["cm-score"]) for row in rows] == pytest.approx(expected, rel=1e-6)


def test_channels_that_cancel_are_apart_and_their_mean_advises_an_option_of_the_verb(
    model: Path, parties: Path, tmp_path: Path
) -> None:
    wave = read_audio(parties / "left.wav")
    path = write(tmp_path / "anti.wav", wave, -wave)
    assert [line["channel"] for line in told("score", model, path)] == [1, 2]
    (line,) = told("score", model, path, "--channels", "mean", ok=False)
    assert "channels cancel each other" in line["error"]
    assert "--channels" in line["error"]
    (line,) = told("score", model, path, "--channels", "first")
    (expected,) = told("score", model, parties / "left.wav")
    assert (line["channel"], line["score"]) == (1, expected["score"])


def test_a_channel_that_is_not_there_is_a_reason_and_the_others_are_scored(model: Path, parties: Path) -> None:
    files = [parties / "left.wav", parties / "call.wav"]
    left, call = told("score", model, *files, "--channels", 2, ok=False)
    assert "has 1 channel, expected channel 2" in left["error"]
    assert (call["channel"], call["score"]) == (2, told("score", model, parties / "right.wav")[0]["score"])


@pytest.mark.parametrize("rule", ["0", "-1", "01", "left", "", "second", "²", "9" * 5000])
def test_a_rule_that_is_none_is_refused(rule: str, model: Path, parties: Path) -> None:
    assert "expected auto, mean, first, each or a number" in refusal(
        "score", model, parties / "call.wav", f"--channels={rule}"
    )


# ---- Score files


def test_a_score_file_holds_every_channel_and_is_resumed(model: Path, parties: Path, tmp_path: Path) -> None:
    files, out = [parties / f"{name}.wav" for name in ("call", "dual", "left")], tmp_path / "out.tsv"
    done = run_cli("score", model, *files, "-o", out)
    whole, record = out.read_bytes(), json.loads(out.with_suffix(".json").read_text())
    printed = told("score", model, *files)
    rows = table(whole.decode())
    assert [(row["filename"], row["channel"]) for row in rows] == [
        (line["file"], str(line["channel"] or "")) for line in printed
    ]
    assert [float(row["cm-score"]) for row in rows] == pytest.approx([line["score"] for line in printed], rel=1e-6)
    assert (record["channels"], record["n_trials"]) == ("auto", 4)
    names = [str(path) for path in files]
    assert read_scores(out)["utt_id"].to_list() == [f"{names[0]}, channel 1", f"{names[0]}, channel 2", *names[1:]]
    assert "4 scores" in done.stdout
    assert "its channels differ" in done.stderr
    # What a kill left of a part is completed.
    cut = tmp_path / "cut.tsv"
    run_cli("score", model, *files, "-o", cut, "--part", "1/1")
    part = part_path(cut, Part()).read_bytes().splitlines(keepends=True)
    part_path(cut, Part()).write_bytes(b"".join(part[:2]))
    run_cli("score", model, *files, "-o", cut)
    assert cut.read_bytes() == whole


def test_scores_of_other_channels_are_neither_joined_nor_reused(model: Path, parties: Path, tmp_path: Path) -> None:
    arguments, rule = ("score", model, parties / "call.wav", "-o", tmp_path / "out.tsv"), ("--channels", "mean")
    run_cli(*arguments)
    assert "channels" in refusal(*arguments, *rule, "--reuse")
    run_cli(*arguments, "--reuse")
    (tmp_path / "out.tsv").unlink()
    (tmp_path / "out.json").unlink()
    run_cli(*arguments, "--part", "1/1")
    assert "channels" in refusal(*arguments, *rule)


def test_a_manifest_says_its_own(model: Path, parties: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "set.tsv"
    columns = "utt_id\tpath\tkey\tspeaker\tattack\tcodec\tn_samples"
    manifest.write_text(f"# root={parties}\n# downmix=second\n{columns}\na\tcall.wav\t-\t-\t-\t-\t36800\n")
    assert "header" in refusal("score", model, manifest, "-o", tmp_path / "out.tsv", "--channels", "1")
    run_cli("score", model, manifest, "-o", tmp_path / "out.tsv")
    (row,) = table((tmp_path / "out.tsv").read_text())
    assert list(row) == ["filename", "cm-score"]
    (expected,) = told("score", model, parties / "right.wav")
    assert float(row["cm-score"]) == pytest.approx(expected["score"], rel=1e-6)
