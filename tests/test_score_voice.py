"""`score --min-speech`: where speech is found, what is left out, and how the rest is weighed."""

import configparser
import functools
import json
import subprocess
import sys
import tracemalloc
from importlib import metadata, util
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
import soundfile
import soxr
import torch
from conftest import refusal, run_cli, table_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from spoofkit.addons.voice import silero as voice
from spoofkit.addons.voice.silero import Silero, SileroListener, load_voice_activity
from spoofkit.data.audio import SAMPLE_RATE, read_audio, read_blocks
from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.evaluation.scores import read_scores
from spoofkit.models.detector import Detector, load_detector
from spoofkit.scoring.windows import Windows, WindowScore, in_windows, score_over

VOWELS_HERTZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


def make_speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Syllables: glottal pulses through the resonances of vowels (Peterson and Barney, 1952), some after a hiss."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    phase = 0.0
    while sum(part.size for part in parts) < seconds * SAMPLE_RATE:
        n_samples = int(rng.uniform(0.12, 0.25) * SAMPLE_RATE)
        pitch = 110 * (1 + 0.1 * np.sin(np.linspace(0, 2, n_samples) + rng.uniform(0, 6)))
        turns = phase + np.cumsum(pitch) / SAMPLE_RATE
        phase = turns[-1]
        pulses = np.diff(np.floor(turns), prepend=np.floor(turns[0]))
        wave = lfilter([1], [1, -0.95], pulses) + 0.01 * rng.standard_normal(n_samples)
        formants = np.array(VOWELS_HERTZ[rng.integers(len(VOWELS_HERTZ))]) * rng.uniform(0.95, 1.05)
        for hertz, width in zip((*formants, 3500), (80, 100, 120, 200), strict=True):
            radius = np.exp(-np.pi * width / SAMPLE_RATE)
            feedback = [1, -2 * radius * np.cos(2 * np.pi * hertz / SAMPLE_RATE), radius**2]
            wave = lfilter([sum(feedback)], feedback, wave)
        if rng.random() < 0.5:
            hiss = lfilter([1, -0.9], [1], rng.standard_normal(SAMPLE_RATE // 16))
            parts.append(0.1 * np.abs(wave).max() * hiss * np.hanning(hiss.size))
        parts.append(wave * np.sqrt(np.hanning(n_samples)))
    joined = np.concatenate(parts)[: round(seconds * SAMPLE_RATE)]
    return (0.1 * joined / np.abs(joined).max()).astype(np.float32)


def make_noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.05 * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def make_music(seconds: float) -> np.ndarray:
    """Broken chords of a plucked string: harmonics that die away, two notes a second."""
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    notes = [
        sum(np.sin(2 * np.pi * k * hertz * time) / k**2 for k in range(1, 8)) * np.exp(-4 * time)
        for hertz in (220, 277.2, 329.6, 440)
    ]
    return (0.1 * np.resize(np.concatenate(notes), round(seconds * SAMPLE_RATE))).astype(np.float32)


@pytest.fixture(scope="module")
def half_second() -> Silero:
    return load_voice_activity(0.5)


@pytest.fixture(scope="module")
def mixed() -> np.ndarray:
    """11.3 s: speech, noise, silence, speech, music, and a bit of speech that a window ends in."""
    parts = (make_speech(2.7), make_noise(1.8), np.zeros(25_001, np.float32), make_speech(1.9, 1), make_music(2.2))
    return np.concatenate([*parts, make_speech(11.3 - sum(p.size for p in parts) / SAMPLE_RATE, 2)])


@functools.cache
def for_streams() -> onnxruntime.InferenceSession:
    """The package's model for streams: another file than ours, which is given a frame at a time."""
    spec = util.find_spec("silero_vad")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / "silero_vad.onnx"
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def probabilities(wave_S: np.ndarray) -> np.ndarray:
    """Of speech in every 32 ms of a whole wave."""
    padded_S = np.concatenate([np.zeros(64), wave_S, np.zeros(-wave_S.size % 512)]).astype(np.float32)
    state, found = np.zeros((2, 1, 128), np.float32), []
    for start in range(64, padded_S.size, 512):
        inputs = {"input": padded_S[None, start - 64 : start + 512], "state": state, "sr": np.array(16_000)}
        probability, state = for_streams().run(None, inputs)
        found.append(probability.item())
    return np.array(found)


def is_speech(wave_S: np.ndarray) -> np.ndarray:
    """For every sample whether it is speech."""
    found = probabilities(wave_S)
    assert np.abs(found - 0.5).min() > 1e-4  # too near to call
    return np.repeat(found >= 0.5, 512)[: wave_S.size]


def listen(voice_activity: Silero, blocks: list[np.ndarray]) -> SileroListener:
    listener = SileroListener(voice_activity)
    assert np.array_equal(np.concatenate(list(listener.read(iter(blocks)))), np.concatenate(blocks))
    return listener


# ---- Where speech is


@pytest.mark.parametrize("seed", range(3))
def test_voices_are_speech(half_second: Silero, seed: int) -> None:
    wave_S = make_speech(4, seed)
    assert listen(half_second, [wave_S]).speech_in(0, wave_S.size).n_samples > 0.8 * wave_S.size


@pytest.mark.parametrize(
    "wave_S", [np.zeros(64_000, np.float32), make_noise(4), make_music(4)], ids=["silence", "noise", "music"]
)
def test_silence_noise_and_music_are_not(half_second: Silero, wave_S: np.ndarray) -> None:
    found = listen(half_second, [wave_S]).speech_in(0, wave_S.size)
    assert found.n_samples < 0.1 * wave_S.size
    assert not found.is_enough


def test_speech_is_where_the_model_for_streams_finds_it(half_second: Silero, mixed: np.ndarray) -> None:
    expected_S = is_speech(mixed)
    assert 0.2 < expected_S.mean() < 0.8
    listener = listen(half_second, [mixed])
    rng = np.random.default_rng(0)
    for start, end in np.sort(rng.integers(0, mixed.size + 1, (200, 2)), axis=1):
        if start < end:
            assert listener.speech_in(start, end).n_samples == expected_S[start:end].sum()
    cuts = [0, 1, 511, 512, 513, 40_000, mixed.size - 1, mixed.size]
    parts = [listener.speech_in(start, end).n_samples for start, end in pairwise(cuts)]
    assert sum(parts) == expected_S.sum()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_how_a_recording_is_read_changes_nothing(data: st.DataObject, half_second: Silero, mixed: np.ndarray) -> None:
    wave_S = mixed[: data.draw(st.sampled_from([1, 511, 513, 16_384, 40_000, mixed.size]))]
    ends = sorted(data.draw(st.lists(st.integers(0, wave_S.size), max_size=8)))
    in_blocks, at_once = listen(half_second, np.split(wave_S, ends)), listen(half_second, [wave_S])
    assert in_blocks._is_speech == at_once._is_speech
    assert len(at_once._is_speech) == -(-wave_S.size // 512)


def test_nothing_is_handed_on_before_it_is_heard(half_second: Silero, mixed: np.ndarray) -> None:
    listener, n_given = SileroListener(half_second), 0
    for block_S in listener.read(np.array_split(mixed, 7)):
        n_given += block_S.size
        assert listener.speech_in(n_given - 1, n_given).n_samples in (0, 1)
    with pytest.raises(AssertionError):
        listener.speech_in(0, mixed.size + 1)


def test_recordings_that_are_heard_side_by_side_do_not_mix(half_second: Silero, mixed: np.ndarray) -> None:
    other = make_speech(11, 5)
    alone = [bytes(listen(half_second, [wave_S])._is_speech) for wave_S in (mixed, other)]
    listeners = SileroListener(half_second), SileroListener(half_second)
    hearing = [
        listener.read(np.array_split(wave_S, 9)) for listener, wave_S in zip(listeners, (mixed, other), strict=True)
    ]
    for _ in zip(*hearing, strict=False):
        pass
    for rest in hearing:
        list(rest)
    assert [bytes(listener._is_speech) for listener in listeners] == alone


def test_what_is_new_is_what_no_stretch_with_enough_speech_before_has(half_second: Silero) -> None:
    wave_S = np.concatenate([make_speech(2), np.zeros(32_000, np.float32), make_speech(2, 1)])
    expected_S = is_speech(wave_S)
    listener = listen(half_second, [wave_S])
    first, silent, both, last = (
        listener.speech_in(start, end)
        for start, end in ((0, 30_000), (36_000, 60_000), (20_000, 80_000), (70_000, 96_000))
    )
    assert first.n_new == first.n_samples == expected_S[:30_000].sum()
    assert not silent.is_enough
    assert both.is_enough
    assert both.n_new == expected_S[30_000:80_000].sum() < both.n_samples
    assert last.n_new == expected_S[80_000:].sum() < last.n_samples


def test_enough_is_from_the_amount_on_that_was_asked_for(mixed: np.ndarray) -> None:
    n_samples = int(is_speech(mixed).sum())
    for least, is_enough in ((n_samples, True), (n_samples + 1, False)):
        asked = load_voice_activity(least / SAMPLE_RATE)
        assert asked.least_samples == least
        assert listen(asked, [mixed]).speech_in(0, mixed.size).is_enough == is_enough


# ---- Windows


@pytest.mark.parametrize("name", ["mono.flac", "stereo.wav", "cd.wav", "phone.wav", "float.wav"])
def test_windows_of_any_recording_know_their_speech(
    name: str, half_second: Silero, mixed: np.ndarray, tmp_path: Path
) -> None:
    rate = {"cd.wav": 44_100, "phone.wav": 8000}.get(name, SAMPLE_RATE)
    stored = mixed if rate == SAMPLE_RATE else soxr.resample(mixed, SAMPLE_RATE, rate)
    if name == "stereo.wav":
        stored = np.stack([stored, 0.5 * stored], 1)
    soundfile.write(tmp_path / name, stored, rate, "FLOAT" if name == "float.wav" else "PCM_16")
    wave_S = read_audio(tmp_path / name)
    expected_S = is_speech(wave_S)
    for windows in (
        Windows(32_000, 32_000, "mean"),
        Windows(30_001, 7_000, "mean"),
        Windows(10**7, 10**7, "mean"),
        None,
    ):
        found = list(in_windows(read_blocks(tmp_path / name), windows, half_second))
        plain = list(in_windows(read_blocks(tmp_path / name), windows))
        assert [window.start for window in found] == [window.start for window in plain]
        until = 0
        for window, same in zip(found, plain, strict=True):
            assert np.array_equal(window.wave_S, same.wave_S)
            assert same.speech is None
            assert same.is_scored
            assert window.speech is not None
            assert window.speech.n_samples == expected_S[window.start : window.end].sum()
            assert window.speech.n_new == expected_S[max(window.start, until) : window.end].sum()
            assert window.is_scored == (window.speech.n_samples >= 8000)
            until = window.end if window.is_scored else until
    (cropped,) = in_windows(read_blocks(tmp_path / name, 20_000), None, half_second)
    assert cropped.speech is not None
    assert cropped.speech.n_samples == is_speech(wave_S[:20_000]).sum()


class AlwaysSpeech:
    """In place of the model's session."""

    def run(self, _: list[str], inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        return np.ones(len(inputs["input"]), np.float32), inputs["h"], inputs["c"]


@pytest.mark.parametrize("hop_samples", [30_000, 9_000])
def test_where_all_is_speech_windows_count_as_without_voice_activity(
    hop_samples: int, mixed: np.ndarray, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "mixed.wav", mixed, SAMPLE_RATE)
    windows = Windows(30_000, hop_samples, "mean")
    found = list(in_windows(read_blocks(tmp_path / "mixed.wav"), windows, Silero(AlwaysSpeech(), "0", 30_000)))
    scores = np.random.default_rng(0).standard_normal(len(found))
    plain, heard = [], []
    for window, score in zip(found, scores, strict=True):
        assert window.speech is not None
        start, end = window.start / SAMPLE_RATE, window.end / SAMPLE_RATE
        plain.append(WindowScore(start, end, score))
        heard.append(WindowScore(start, end, score, window.speech.n_new / SAMPLE_RATE))
    assert score_over(heard, "mean") == pytest.approx(score_over(plain, "mean"), abs=1e-12)


def test_memory_does_not_grow_with_the_recording(half_second: Silero, tmp_path: Path) -> None:
    peaks = []
    for seconds in (20, 200):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, np.zeros(seconds * 44_100, np.int16), 44_100)
        tracemalloc.start()
        n_windows = sum(1 for _ in in_windows(read_blocks(path), Windows(64_000, 64_000, "mean"), half_second))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n_windows == seconds / 4
    assert peaks[1] < 1.2 * peaks[0]


# ---- The verb


@pytest.fixture(scope="module")
def folder(mixed: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings by what is in them: two that a window of 2 s cuts have speech, one has none, so for the short ones."""
    folder = tmp_path_factory.mktemp("recordings")
    noise = make_noise(5.1)
    waves = {"long": mixed, "long2": make_speech(4.5, 7), "noise": noise, "short": make_speech(1.7, 3)}
    for name, wave_S in (waves | {"short2": make_speech(1.2, 4), "hum": noise[:20_000]}).items():
        soundfile.write(folder / f"{name}.flac", wave_S, SAMPLE_RATE)
    return folder


SPOKEN = ("long", "long2", "short", "short2")
WINDOWS = ("--window", 2, "--min-speech", 0.4)
LEAST = round(0.4 * SAMPLE_RATE)


@pytest.fixture(scope="module")
def listed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of them; of two the length is not known."""
    names = sorted(path.stem for path in folder.glob("*.flac"))
    lengths = [-1 if name in ("long2", "short2") else soundfile.info(folder / f"{name}.flac").frames for name in names]
    table = pl.DataFrame({"utt_id": names, "path": [f"{name}.flac" for name in names], "n_samples": lengths})
    blank = [pl.lit("-").alias(name) for name in ("speaker", "attack", "codec")]
    path = tmp_path_factory.mktemp("data") / "set.tsv"
    write_manifest(path, folder, table.with_columns(pl.lit("spoof").alias("key"), *blank))
    return path


@functools.cache
def loaded(model: Path) -> Detector:
    return load_detector(model)[0].eval()


def alone(model: Path, wave_S: np.ndarray) -> float:
    with torch.inference_mode():
        return float(loaded(model)(torch.from_numpy(wave_S)[None], torch.tensor([wave_S.size])))


def by_the_rule(model: Path, wave_S: np.ndarray, hop: int = 32_000) -> list[tuple[float, float, float]]:
    """Start in seconds, weight in seconds and score of each window of 2 s that counts, in plain numpy."""
    is_speech_S = is_speech(wave_S)
    if wave_S.size <= 32_000:
        return [(0.0, 1.0, alone(model, wave_S))] if is_speech_S.sum() >= LEAST else []
    starts = [*range(0, wave_S.size - 32_000, hop), wave_S.size - 32_000]
    is_counted_S, rows = np.zeros(wave_S.size, bool), []
    for start in starts:
        inside = slice(start, start + 32_000)
        if is_speech_S[inside].sum() >= LEAST:
            weight = (is_speech_S[inside] & ~is_counted_S[inside]).sum() / SAMPLE_RATE
            rows.append((start / SAMPLE_RATE, float(weight), alone(model, wave_S[inside])))
            is_counted_S[inside] = True
    return rows


def mean_of(rows: list[tuple[float, float, float]]) -> float:
    return sum(weight * score for _, weight, score in rows) / sum(weight for _, weight, _ in rows)


@pytest.fixture(scope="module")
def expected(model: Path, folder: Path) -> dict[str, float]:
    return {name: mean_of(by_the_rule(model, read_audio(folder / f"{name}.flac"))) for name in SPOKEN}


def rows_of(stdout: str) -> dict[str, str]:
    """Scores, or why there are none."""
    return {Path(name).stem: row["cm-score"] or row["error"] for name, row in table_rows(stdout).items()}


def test_windows_count_by_their_speech_and_what_has_none_is_left_out(
    model: Path, folder: Path, expected: dict[str, float], tmp_path: Path
) -> None:
    done = run_cli("score", model, folder, *WINDOWS, "--windows", tmp_path / "windows.tsv", ok=False)
    found = rows_of(done.stdout)
    assert found.keys() == {path.stem for path in folder.glob("*.flac")}
    assert {name: float(found.pop(name)) for name in SPOKEN} == pytest.approx(expected, abs=1e-6)
    assert found["noise"].startswith(f"{folder / 'noise.flac'}: found 0 s of speech in the best of its 3 windows")
    assert found["hum"].startswith(f"{folder / 'hum.flac'}: found 0 s of speech, expected at least 0.4 s")
    assert "2 of 6 recordings failed" in done.stderr
    version = metadata.version("silero-vad")
    assert f"less than 0.4 s of speech, by silero-vad {version} at a probability of 0.5, is left out; " in done.stderr
    assert "the mean over its windows, weighted by the speech each adds" in done.stderr
    table = pl.read_csv(tmp_path / "windows.tsv", separator="\t")
    assert table.columns == ["filename", "channel", "start_seconds", "end_seconds", "speech_seconds", "cm-score"]
    for name in ("long", "long2"):
        rows = by_the_rule(model, read_audio(folder / f"{name}.flac"))
        own = table.filter(pl.col("filename") == str(folder / f"{name}.flac"))
        assert own["start_seconds"].to_list() == pytest.approx([start for start, _, _ in rows], abs=1e-6)
        assert own["speech_seconds"].to_list() == pytest.approx([weight for _, weight, _ in rows], abs=1e-6)
        assert own["cm-score"].to_list() == pytest.approx([score for _, _, score in rows], abs=1e-6)
    assert len(own) < 3 * 2 + 1
    assert set(table["filename"]) == {str(folder / f"{name}.flac") for name in ("long", "long2")}
    plain = rows_of(run_cli("score", model, folder, "--window", 2).stdout)
    assert abs(float(plain["long"]) - expected["long"]) > 1e-4
    assert float(plain["short"]) == pytest.approx(expected["short"], abs=1e-6)


@pytest.mark.parametrize("hop", [0.5, 1.3])
def test_speech_that_windows_share_counts_once(hop: float, model: Path, folder: Path) -> None:
    done = run_cli("score", model, folder / "long.flac", *WINDOWS, "--hop", hop, "--json-lines")
    line = json.loads(done.stdout)
    rows = by_the_rule(model, read_audio(folder / "long.flac"), round(hop * SAMPLE_RATE))
    assert line["score"] == pytest.approx(mean_of(rows), abs=1e-6)
    assert [list(window) for window in line["windows"]] == [
        ["start_seconds", "end_seconds", "score", "speech_seconds"] for _ in rows
    ]
    assert [window["speech_seconds"] for window in line["windows"]] == pytest.approx([weight for _, weight, _ in rows])


def test_the_lowest_is_the_lowest_of_those_with_speech(model: Path, folder: Path) -> None:
    arguments = ("score", model, folder / "long.flac", "--window", 2, "--over-windows", "min")
    lowest = rows_of(run_cli(*arguments, "--min-speech", 0.4).stdout)["long"]
    rows = by_the_rule(model, read_audio(folder / "long.flac"))
    assert float(lowest) == pytest.approx(min(score for _, _, score in rows), abs=1e-6)


def test_a_recording_that_is_not_cut_is_scored_whole_or_not_at_all(model: Path, folder: Path) -> None:
    wave_S = read_audio(folder / "long.flac")
    n_seconds = is_speech(wave_S).sum() / SAMPLE_RATE
    arguments = ("score", model, folder / "long.flac", "--window", 0, "--min-speech")
    done = run_cli(*arguments, n_seconds)
    assert float(rows_of(done.stdout)["long"]) == pytest.approx(alone(model, wave_S), abs=1e-6)
    assert "is left out" in done.stderr
    assert "windows" not in done.stderr
    assert "1 of 1 recordings failed" in refusal(*arguments, n_seconds + 0.001)
    # What is repeated to a length is heard before that.
    cropped = run_cli("score", model, folder / "long.flac", "--crop", "repeat:20000", "--min-speech", 0.4)
    assert float(rows_of(cropped.stdout)["long"]) == pytest.approx(alone(model, wave_S[:20_000]), abs=1e-6)
    n_seconds = is_speech(wave_S[:20_000]).sum() / SAMPLE_RATE
    for crop in ("first:20000", "repeat:40000", "repeat:20000"):
        least = n_seconds + 0.001 if crop != "repeat:40000" else is_speech(wave_S[:40_000]).sum() / SAMPLE_RATE + 0.001
        assert "s of speech, expected" in refusal(*arguments, least, "--crop", crop)


def test_utterances_of_a_manifest_without_speech_are_named_beside_the_scores(
    model: Path, listed: Path, expected: dict[str, float], tmp_path: Path
) -> None:
    out = tmp_path / "scores.tsv"
    arguments = ("score", model, listed, "-o", out, *WINDOWS)
    windows = tmp_path / "windows.tsv"
    assert "2 of 6 recordings failed" in refusal(*arguments, "--windows", windows)
    assert dict(read_scores(out).iter_rows()) == pytest.approx(expected, abs=1e-6)
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["errors"].keys() == {"hum", "noise"}
    assert record["errors"]["noise"].startswith("noise: found 0 s of speech in the best of its 3 windows, expected at")
    assert record["speech"] == {
        "min_speech_seconds": 0.4,
        "library": "silero-vad",
        "version": metadata.version("silero-vad"),
        "threshold": 0.5,
    }
    table = pl.read_csv(windows, separator="\t")
    assert table.columns == ["filename", "start_seconds", "end_seconds", "speech_seconds", "cm-score"]
    assert set(table["filename"]) == {"long", "long2"}
    kept = run_cli(*arguments, "--windows", windows, "--reuse", ok=False)
    assert "up to date, skipped" in kept.stdout
    assert "2 of 6 recordings failed" in kept.stderr
    changed = ("score", model, listed, "-o", out, "--window", 2, "--min-speech", 0.5)
    assert "(speech)" in refusal(*changed, "--reuse")
    assert "(speech)" in refusal(*arguments[:5], "--window", 2, "--reuse")


def test_parts_without_speech_are_merged_to_the_same_files(model: Path, listed: Path, tmp_path: Path) -> None:
    whole, merged = tmp_path / "whole.tsv", tmp_path / "merged.tsv"
    refusal("score", model, listed, "-o", whole, *WINDOWS, "--windows", tmp_path / "whole_windows.tsv")
    for part in ("1/3", "2/3", "3/3"):
        run_cli("score", model, listed, "-o", merged, *WINDOWS, "--part", part)
    other = ("score", model, listed, "-o", merged, "--window", 2, "--min-speech", 0.5)
    assert "(speech)" in refusal(*other, "--merge")
    message = refusal(
        "score", model, listed, "-o", merged, *WINDOWS, "--merge", "--windows", tmp_path / "merged_windows.tsv"
    )
    assert "2 of 6 recordings failed" in message
    assert merged.read_bytes() == whole.read_bytes()
    assert (tmp_path / "merged_windows.tsv").read_bytes() == (tmp_path / "whole_windows.tsv").read_bytes()
    errors = [json.loads(path.with_suffix(".json").read_text())["errors"] for path in (whole, merged)]
    assert errors[0] == errors[1]


def test_another_fault_of_a_manifest_still_ends_it(model: Path, listed: Path, folder: Path, tmp_path: Path) -> None:
    table = read_manifest(listed).table
    missing = table.with_columns(path=pl.col("path").str.replace("short2", "nowhere"))
    write_manifest(tmp_path / "set.tsv", folder, missing)
    assert "nowhere.flac" in refusal("score", model, tmp_path / "set.tsv", "-o", tmp_path / "out.tsv", *WINDOWS)
    assert not (tmp_path / "out.tsv").exists()


def test_loose_files_without_speech_are_named_beside_their_scores(
    model: Path, folder: Path, expected: dict[str, float], tmp_path: Path
) -> None:
    out = tmp_path / "scores.tsv"
    refusal("score", model, folder, "-o", out, *WINDOWS)
    found = {Path(name).stem: score for name, score in read_scores(out).iter_rows()}
    assert found == pytest.approx(expected, abs=1e-6)
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["errors"].keys() == {str(folder / "noise.flac"), str(folder / "hum.flac")}
    table = {Path(name).stem: row for name, row in table_rows(out.read_text()).items()}
    assert {name for name, row in table.items() if row["error"]} == {"noise", "hum"}
    windows = by_the_rule(model, read_audio(folder / "long.flac"))
    assert float(table["long"]["speech_seconds"]) == pytest.approx(sum(weight for _, weight, _ in windows))
    in_short = is_speech(read_audio(folder / "short.flac")).sum() / SAMPLE_RATE
    assert float(table["short"]["speech_seconds"]) == pytest.approx(in_short)
    assert table["hum"]["speech_seconds"] == table["hum"]["seconds"] == ""


def test_decoding_threads_and_other_recordings_change_nothing(model: Path, folder: Path) -> None:
    together = [run_cli("score", model, folder, *WINDOWS, "--workers", n, ok=False).stdout for n in (1, 4)]
    assert together[0] == together[1]
    for name in ("long", "short"):
        single = run_cli("score", model, folder / f"{name}.flac", *WINDOWS).stdout.splitlines()[1]
        assert single in together[0].splitlines()


def test_without_the_option_nothing_is_said_of_speech(model: Path, listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.tsv"
    done = run_cli("score", model, listed, "-o", out, "--window", 2, "--windows", tmp_path / "windows.tsv")
    assert "speech" not in json.loads(out.with_suffix(".json").read_text())
    assert "left out" not in done.stderr
    assert "weighted by the time each adds" in done.stderr
    assert "speech_seconds" not in (tmp_path / "windows.tsv").read_text()


@pytest.mark.parametrize("seconds", [0, -1, "nan", "inf", 0.00001])
def test_an_amount_of_speech_that_is_none_is_refused(seconds: object, model: Path, folder: Path) -> None:
    message = refusal("score", model, folder, "--min-speech", seconds)
    assert message.startswith("--min-speech ")
    assert "expected" in message


def test_more_speech_than_a_window_holds_is_refused(model: Path, folder: Path) -> None:
    message = refusal("score", model, folder, "--window", 2, "--min-speech", 2.5)
    assert message.startswith("--min-speech 2.5: ")
    assert "2 s of --window" in message


def test_a_missing_package_is_named_with_what_mends_it(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("score", model, folder, *WINDOWS)
    needs = (
        "--min-speech: needs the package {}, which is not installed; run `tools/setup.sh --extras vad` or leave it out"
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert refusal(*arguments) == needs.format("onnxruntime")
    package, real = metadata.distribution("silero-vad"), metadata.distribution

    def absent(name: str) -> metadata.Distribution:
        if name == "silero-vad":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    with monkeypatch.context() as patch:
        patch.setattr(metadata, "distribution", absent)
        assert refusal(*arguments) == needs.format("silero-vad")
        patch.setitem(sys.modules, "onnxruntime", None)
        assert refusal(*arguments) == needs.format("onnxruntime and silero-vad")
    with monkeypatch.context() as patch:
        patch.setattr(type(package), "locate_file", lambda _, path: tmp_path / path)
        message = refusal(*arguments)
    assert "has no file silero_vad/data/silero_vad_16k_sequence.onnx, expected a version >=6.2.2,<7" in message
    assert "tools/setup.sh --extras vad" in message


def test_versions_are_those_of_the_extra() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    extras = {name: set(lines.split()) for name, lines in parser["options.extras_require"].items()}
    assert f"{voice.PACKAGE}{voice.VERSIONS}" in extras["vad"]
    assert extras["vad"] <= extras["dev"]


def test_neither_torch_nor_the_package_is_imported_to_hear_speech(folder: Path) -> None:
    code = (
        "import sys; from spoofkit.addons.voice.silero import load_voice_activity;"
        "from spoofkit.data.audio import read_blocks; from spoofkit.scoring.windows import in_windows;"
        f"(window,) = in_windows(read_blocks({str(folder / 'short.flac')!r}), None, load_voice_activity(0.4));"
        "print(window.is_scored, *({'torch', 'silero_vad'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
