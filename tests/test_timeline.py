"""`localize` on recordings: names, files for other programs, windows, and the page; Chromium looks at it, if there.

Regions are compared with a reference that goes sample by sample; RTTM and Audacity's labels are read back by field.
"""

import base64
import hashlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from conftest import make_voice, refusal, run_cli, without_sums
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report_browser import CHROMIUM, PHONE, Tab, opened

from spoofkit.addons.timeline import page as timeline
from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.data.frames import WAV2VEC2_GEOMETRY, FrameGeometry
from spoofkit.data.rttm import rttm_line
from spoofkit.data.segments import segment_table, write_segments
from spoofkit.localisation import marked_files, recordings
from spoofkit.localisation.marks import safe_names, shown
from spoofkit.localisation.picture import Curve
from spoofkit.localisation.picture import picture as draw_picture
from spoofkit.localisation.regions import Marked, Rule
from spoofkit.models.detector import folder_sha256
from spoofkit.models.frame_model import load_frame_model
from spoofkit.outputs import with_checksums
from spoofkit.scoring import windows
from spoofkit.scoring.recordings import Reading, Recording
from spoofkit.scoring.stream import score_recordings
from spoofkit.scoring.windows import Windows, frame_windows
from spoofkit.scoring.with_torch import frame_scorer_of

CONFIG = """
crop_samples: 12000
encoder: {name: tiny, freeze: none}
mix: {n_train: 16, n_dev: 4, n_regions: [1, 3], share: [0.15, 0.45], min_region_samples: 800, margin_samples: 400,
  join: crossfade, level_match: true, frame_target: authenticity}
posttrain: {precision: fp32, n_steps: 4, batch_size: 4, eval_every: 4, checkpoint_every: 4}
"""
SUFFIXES = ("json", "png", "rttm", "txt")
OF_ALL = ("timeline.html", "timeline.made_from.json")
FITTED = Rule(0.5, "a test", True, 0.0, 0.1)


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """Most of the time goes into pictures, which depend on their arguments alone: the same one is drawn once."""
    drawn: dict[bytes, bytes] = {}

    def picture(*arguments: Any) -> bytes:
        key = pickle.dumps(arguments)
        if key not in drawn:
            drawn[key] = draw_picture(*arguments)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recordings, "picture", picture)
        yield


@pytest.fixture(scope="module")
def exp(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hardly trained: what it marks is not looked at, only that it is marked right."""
    folder = tmp_path_factory.mktemp("exp")
    conf = folder / "conf.yaml"
    conf.write_text(CONFIG)
    run_cli("mixlist", "draw", manifests / "train.tsv", "-o", folder / "mix.tsv", "-c", conf)
    run_cli("mixlist", "draw", manifests / "dev.tsv", "-o", folder / "mix_dev.tsv", "-c", conf, "--held-out")
    lists = ["--mix", folder / "mix.tsv", "--dev-mix", folder / "mix_dev.tsv"]
    sets = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv"]
    run_cli("posttrain", folder / "posttrain", *sets, "-c", conf, *lists, "--device", "cpu")
    return folder / "posttrain"


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with two recordings of one name, in two formats, and one of an awkward name."""
    folder = tmp_path_factory.mktemp("calls")
    (folder / "b").mkdir()
    # Voice and noise in turn, so that some region begins in the middle, whichever of them scores lower.
    noise_S = 0.05 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    voice_S = make_voice(1, True, 0.5)
    soundfile.write(folder / "call.wav", np.concatenate([voice_S, noise_S, voice_S, noise_S]), SAMPLE_RATE)
    soundfile.write(folder / "b/call.flac", make_voice(2, False, 1.5, 8000), 8000)
    soundfile.write(folder / "b/<b>&my call;.wav", make_voice(3, False, 0.7), SAMPLE_RATE)
    return folder


@pytest.fixture(scope="module")
def middle(exp: Path, calls: Path) -> float:
    """A threshold that some frames are below and some above."""
    return float(np.median(frames_of(exp, calls / "call.wav")))


@pytest.fixture(scope="module")
def marked(exp: Path, calls: Path, middle: float, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("marked") / "out"
    rule = ["--threshold", middle, "--smooth", "0.1", "--min-region", "0.05"]
    done = run_cli("localize", exp, calls, calls / "call.wav", "-o", out, *rule)
    assert done.stdout.count("spoof regions, ") == 3
    assert "timeline.html: " in done.stdout
    return out


def frames_of(exp: Path, path: Path, windows: Windows | None = None) -> np.ndarray:
    scorer = frame_scorer_of(load_frame_model(exp), torch.device("cpu"))
    reading = Reading(windows=windows, keeps_wave=True)
    ((result,),) = score_recordings(scorer, [[Recording("call", path)]], reading)
    assert (result.score, result.windows) == (None, ())
    assert result.frames is not None
    return result.frames


def read_record(path: Path) -> Any:
    return json.loads(path.read_text())


def slow_regions(score_T: np.ndarray, n_samples: int, threshold: float, shortest: float) -> list[tuple[int, int]]:
    """Regions sample by sample: each sample is called by the frame whose centre is nearest to it, of two the later."""
    centre_T = 200 + 320 * np.arange(score_T.size)
    nearest_S = score_T.size - 1 - np.argmin(np.abs(np.arange(n_samples)[:, None] - centre_T[::-1]), axis=1)
    called_S = [False, *(score_T[nearest_S] <= threshold).tolist(), False]
    starts = [at for at in range(n_samples) if called_S[at + 1] and not called_S[at]]
    ends = [at + 1 for at in range(n_samples) if called_S[at + 1] and not called_S[at + 2]]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if b - a >= shortest * SAMPLE_RATE]


# ---- Files


def test_regions_in_every_file_are_those_of_the_frames(exp: Path, calls: Path, middle: float, marked: Path) -> None:
    classifier = load_frame_model(exp).classifier
    n_regions = 0
    for name in ("call", "call_2", "b_my_call"):
        record = read_record(marked / f"{name}.json")
        wave_S = read_audio(record["recording"])
        assert record["n_samples"] == wave_S.size
        with torch.no_grad():
            logit_BT, _ = classifier(torch.from_numpy(wave_S)[None], torch.tensor([wave_S.size]))
        raw_T = -logit_BT[0].numpy()
        np.testing.assert_allclose(record["frames"]["score"], raw_T, atol=1e-4)
        padded = np.concatenate([raw_T[:1], raw_T[:1], raw_T, raw_T[-1:], raw_T[-1:]])
        score_T = np.array([np.sort(padded[at : at + 5])[2] for at in range(raw_T.size)])
        np.testing.assert_allclose(record["frames"]["smoothed_score"], score_T, atol=1e-4)
        expected = np.array(slow_regions(score_T, wave_S.size, middle, 0.05)).reshape(-1, 2) / SAMPLE_RATE
        n_regions += len(expected)
        found = [(region["start_seconds"], region["end_seconds"]) for region in record["regions"]]
        np.testing.assert_allclose(np.array(found).reshape(-1, 2), expected, atol=1e-9)
        lines = [line.split(" ") for line in (marked / f"{name}.rttm").read_text().splitlines()]
        assert {(*line[:3], *line[5:]) for line in lines} <= {
            ("SPEAKER", name, "1", "<NA>", "<NA>", "spoof", "<NA>", "<NA>")
        }
        timed = np.array([(float(line[3]), float(line[3]) + float(line[4])) for line in lines]).reshape(-1, 2)
        np.testing.assert_allclose(timed, expected, atol=1e-9)
        labels = [line.split("\t") for line in (marked / f"{name}.txt").read_text().splitlines()]
        assert all(len(label) == 3 and label[2].startswith("spoof (") for label in labels)
        timed = np.array([tuple(map(float, label[:2])) for label in labels]).reshape(-1, 2)
        np.testing.assert_allclose(timed, expected, atol=1e-6)
        assert (marked / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        hashes = folder_sha256(exp / "encoder") + folder_sha256(exp / "frame_head")
        assert record["model_sha256"] == hashlib.sha256(hashes.encode()).hexdigest()
        assert record["utterance"] is None  # there is no utterance head
    assert n_regions > 2


def test_two_recordings_of_one_name_and_awkward_names_stay_apart_and_inside(calls: Path, marked: Path) -> None:
    names = ("call", "call_2", "b_my_call")
    expected = {f"{name}.{suffix}" for name in names for suffix in SUFFIXES} | set(OF_ALL)
    assert {path.name for path in marked.rglob("*")} == expected
    assert sorted(path.name for path in marked.parent.iterdir()) == ["out"]
    paths = {read_record(marked / f"{name}.json")["recording"] for name in names}
    assert paths == {str(calls / "call.wav"), str(calls / "b/call.flac"), str(calls / "b/<b>&my call;.wav")}


@given(st.lists(st.text(min_size=1).filter(lambda text: "\0" not in text), unique=True))
def test_names_are_one_a_recording_and_never_leave_a_folder(paths: list[str]) -> None:
    names = safe_names(dict.fromkeys(paths, (None,)))
    assert list(names) == paths
    assert len({name.lower() for name in names.values()}) == len(paths)
    for name in names.values():
        assert not set(name) & set("/\\:*?<>|%\"'$&; ")
        assert name[0] not in "._-"
        assert len(name.encode()) <= 180
        assert name.isprintable()
        assert Path("out", name).parent == Path("out")
        assert not name.endswith(".")


def test_names_that_differ_by_a_number_or_by_capitals_do_not_collide() -> None:
    paths = ["a/call.wav", "b/call.wav", "call_2.wav", "CALL.wav", "..", "../../etc/x.wav", "."]
    names = safe_names(dict.fromkeys(paths, (None,)))
    assert list(names.values()) == ["call", "call_2", "call_2_2", "CALL_3", "recording", "x", "recording_2"]


def test_names_keep_the_letters_of_every_script() -> None:
    paths = ["通话.wav", "звонок 1.flac", "b/звонок 1.wav", "नमस्ते.mp3", "caf\u00e9.wav", "cafe\u0301.wav", "語" * 74]
    names = list(safe_names(dict.fromkeys(paths, (None,))).values())
    assert names[:6] == ["通话", "звонок_1", "звонок_1_2", "नमस्ते", "caf\u00e9", "caf\u00e9_2"]
    assert names[6] == "語" * (160 // 3)


def test_a_name_that_an_earlier_call_gave_is_kept_if_it_is_safe_and_free() -> None:
    paths = dict.fromkeys(["a/call.wav", "b/call.wav", "c/call.wav"], (None,))
    known = {"a/call.wav": "../call", "b/call.wav": "call", "c/call.wav": "CALL"}
    assert safe_names(paths, known) == {"a/call.wav": "call_2", "b/call.wav": "call", "c/call.wav": "call_3"}


def test_names_of_channels_are_no_other_recordings() -> None:
    names = safe_names({"a/call.wav": [1, 2], "call.ch1.wav": [None], "b/call.wav": [None], "CALL.CH2.wav": [1]})
    assert list(names.values()) == ["call", "call.ch1_2", "call_2", "CALL.CH2_2"]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A call in stereo, and its two channels as files."""
    folder = tmp_path_factory.mktemp("parties")
    left_S, right_S = make_voice(1, True, 1.2), make_voice(2, False, 1.2)
    for name, wave in {"call": np.stack([left_S, right_S], 1), "left": left_S, "right": right_S}.items():
        soundfile.write(folder / f"{name}.wav", wave, SAMPLE_RATE, "FLOAT")
    return folder


def test_channels_are_marked_by_themselves_each_as_the_channel_as_a_file(
    exp: Path, middle: float, parties: Path, tmp_path: Path
) -> None:
    done = run_cli("localize", exp, parties, "-o", tmp_path, "--threshold", middle, "--min-region", 0.02)
    names = [f"{stem}.{suffix}" for stem in ("call.ch1", "call.ch2", "left", "right") for suffix in SUFFIXES]
    assert {path.name for path in tmp_path.iterdir()} == {*names, *OF_ALL}
    page, call = (tmp_path / "timeline.html").read_text(), str(parties / "call.wav")
    for number, alone in ((1, "left"), (2, "right")):
        mine, expected = (read_record(tmp_path / f"{name}.json") for name in (f"call.ch{number}", alone))
        assert (mine["recording"], mine["channel"], expected["channel"]) == (call, number, None)
        assert (mine["frames"], mine["regions"]) == (expected["frames"], expected["regions"])
        of_channel = (tmp_path / f"{alone}.rttm").read_text().replace(f" {alone} 1 ", f" call {number} ")
        assert (tmp_path / f"call.ch{number}.rttm").read_text() == of_channel
        assert f"<h2>{call}, channel {number}</h2>" in page
        assert f"{call}, channel {number}: " in done.stdout
    assert any((tmp_path / f"call.ch{number}.rttm").read_text() for number in (1, 2))
    assert "call.wav: its channels differ" in done.stderr


def test_the_channel_may_be_chosen_and_what_lacks_it_is_named(exp: Path, parties: Path, tmp_path: Path) -> None:
    files = [parties / "call.wav", parties / "left.wav"]
    said = refusal("localize", exp, *files, "-o", tmp_path / "out", "--channels", 2)
    assert "1 of 2 recordings" in said
    assert "has 1 channel, expected channel 2" in said
    assert {path.name for path in (tmp_path / "out").glob("*.rttm")} == {"call.ch2.rttm"}
    run_cli("localize", exp, files[0], "-o", tmp_path / "mean", "--channels", "mean")
    assert read_record(tmp_path / "mean/call.json")["channel"] is None
    assert "header" in refusal("localize", exp, tmp_path / "set.tsv", "-o", tmp_path / "x.npz", "--channels", 2)
    assert "expected auto, mean" in refusal("localize", exp, files[0], "-o", tmp_path / "x", "--channels", "left")


# ---- Regions that are known


def slow_shares(record: Any, known: list[tuple[int, int]]) -> tuple[list[float], float, float]:
    """The share of each known region that is marked, and seconds marked and not elsewhere, sample by sample."""
    marked_S, known_S = (np.zeros(record["n_samples"], dtype=bool) for _ in range(2))
    for region in record["regions"]:
        marked_S[round(SAMPLE_RATE * region["start_seconds"]) : round(SAMPLE_RATE * region["end_seconds"])] = True
    shares = []
    for start, end in known:
        shares.append(float(marked_S[start:end].mean()))
        known_S[start:end] = True
    elsewhere = int((~known_S).sum()) / SAMPLE_RATE
    return shares, int((marked_S & ~known_S).sum()) / SAMPLE_RATE, elsewhere


def test_known_regions_are_shown_and_compared_with_what_is_marked(
    exp: Path, calls: Path, middle: float, tmp_path: Path
) -> None:
    known = {"call": [(4000, 12000), (30000, 32080)], "<b>&my call;": []}  # 5 ms more than there is
    segments, rttm = tmp_path / "known.segments.tsv", tmp_path / "known.rttm"
    write_segments(segments, segment_table(known | {"other": [(0, 9)]}))
    rttm.write_text(
        "".join(rttm_line(name, *one, "spoof") for name, own in known.items() for one in own)
        + rttm_line("call", 12000, 20000, "bonafide")
    )
    inputs, rule = [calls / "call.wav", calls / "b/<b>&my call;.wav"], ["--threshold", middle, "--smooth", 0.1]
    for path in (segments, rttm):
        out = tmp_path / path.suffix
        done = run_cli("localize", exp, *inputs, "-o", out, *rule, "--known", path, "--note", "heard <b>twice</b>")
        record = read_record(out / "call.json")
        shares, marked, elsewhere = slow_shares(record, known["call"])
        found = record["known"]
        assert [one["start_seconds"] for one in found["regions"]] == [0.25, 1.875]
        assert [one["end_seconds"] for one in found["regions"]] == [0.75, 2.0]
        assert [one["marked_share"] for one in found["regions"]] == pytest.approx(shares, abs=1e-6)
        assert 0 < sum(shares) < 2
        assert found["marked_elsewhere_seconds"] == pytest.approx(marked, abs=1e-6)
        assert found["elsewhere_seconds"] == pytest.approx(elsewhere, abs=1e-6)
        assert f"known: 0.25-0.75 s, {100 * shares[0]:.0f} % of it marked" in done.stdout
        assert read_record(next(out.glob("*my_call*.json")))["known"]["regions"] == []
        page = (out / "timeline.html").read_text()
        assert "heard &lt;b&gt;twice&lt;/b&gt;" in page
        for one in found["regions"]:
            start, end = one["start_seconds"], one["end_seconds"]
            assert len(re.findall(f'class="known (?:band|chip)"[^>]*data-start="{start}" data-end="{end}"', page)) == 2
        plain = tmp_path / f"plain{path.suffix}"
        run_cli("localize", exp, *inputs, "-o", plain, *rule)
        same = read_record(plain / "call.json")
        assert (same["frames"], same["regions"]) == (record["frames"], record["regions"])
        assert "known" not in same
        assert bar_share(out / "call.png") > bar_share(plain / "call.png") == 0


def bar_share(path: Path) -> float:
    """The share of a picture that has the colour of known regions."""
    with PIL.Image.open(path) as image:
        return float((np.asarray(image.convert("RGB")) == [0x00, 0x9E, 0x73]).all(axis=2).mean())


def test_each_channel_has_the_known_regions_of_its_own_lines(exp: Path, parties: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.rttm"
    known.write_text(rttm_line("call", 1600, 3200, "spoof", 1) + rttm_line("call", 4800, 8000, "spoof", 2))
    run_cli("localize", exp, parties / "call.wav", "-o", tmp_path / "out", "--known", known)
    for number, start in ((1, 0.1), (2, 0.3)):
        (region,) = read_record(tmp_path / f"out/call.ch{number}.json")["known"]["regions"]
        assert region["start_seconds"] == start


def test_known_regions_of_other_recordings_are_refused(exp: Path, calls: Path, tmp_path: Path) -> None:
    of_other, too_late = tmp_path / "other.segments.tsv", tmp_path / "late.rttm"
    write_segments(of_other, segment_table({"coll": [(0, 1600)]}))
    too_late.write_text(rttm_line("call", 0, 32320, "spoof"))
    command = ["localize", exp, calls / "call.wav", "-o", tmp_path / "out"]
    assert "has nothing about 'call'" in refusal(*command, "--known", of_other)
    both = ["localize", exp, calls / "call.wav", calls / "b/call.flac", "-o", tmp_path / "out"]
    assert "are both named 'call'" in refusal(*both, "--known", too_late)
    assert not (tmp_path / "out").exists()
    done = run_cli(*command, "--known", too_late, ok=False)
    assert "ends at 2.02 s, but it is 2 s long" in done.stderr
    assert not (tmp_path / "out/call.json").exists()


def test_of_every_recording_the_line_says_which_files_are_its_own(exp: Path, calls: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(calls / "call.wav", tmp_path / folder / "通话.wav")
    inputs = [tmp_path / "a/通话.wav", tmp_path / "b/通话.wav"]
    done = run_cli("localize", exp, *inputs, "-o", tmp_path / "out", "--threshold", "9")
    for path, name in zip(inputs, ("通话", "通话_2"), strict=True):
        assert any(str(path) in line and f"{name}.json" in line for line in done.stdout.splitlines())
        assert {line.split()[1] for line in (tmp_path / f"out/{name}.rttm").read_text().splitlines()} == {name}


def test_a_threshold_that_is_not_fitted_is_said_everywhere(exp: Path, calls: Path, tmp_path: Path) -> None:
    # Only the sign says something at 0, so the head is told that every frame is spoofed.
    other = without_sums(shutil.copytree(exp, tmp_path / "posttrain", ignore=shutil.ignore_patterns("checkpoints")))
    from safetensors.torch import load_file, save_file

    tensors = load_file(other / "frame_head/head.safetensors")
    (bias,) = [name for name in tensors if name.startswith("output") and name.endswith("bias")]
    tensors[bias] += 100
    save_file(tensors, other / "frame_head/head.safetensors")
    done = run_cli("localize", other, calls / "call.wav", "-o", tmp_path / "out")
    assert "not fitted on any data" in done.stderr
    assert "1 spoof region, 2.00 of 2.00 s" in done.stdout
    assert (tmp_path / "out/call.rttm").read_text().split()[7] == "spoof_threshold_not_fitted"
    assert "threshold not fitted" in (tmp_path / "out/call.txt").read_text()
    record = read_record(tmp_path / "out/call.json")
    assert (record["threshold"], record["threshold_is_fitted"]) == (0.0, False)
    assert record["threshold_from"] == "default"
    assert "The threshold was not fitted on any data" in (tmp_path / "out/timeline.html").read_text()


def test_threshold_and_smoothing_come_from_a_development_set(
    exp: Path, manifests: Path, calls: Path, tmp_path: Path
) -> None:
    mix_path = exp.parent / "mix_dev.tsv"
    run_cli("localize", exp, manifests / "dev.tsv", "-o", tmp_path / "dev.npz", "--mix", mix_path)
    results = tmp_path / "results"
    run_cli(
        "evaluate-segments", tmp_path / "dev.npz", tmp_path / "dev.segments.tsv", "-o", results, "--smooth", "0.18"
    )  # fmt: skip
    fitted = results / "segments.json"
    done = run_cli("localize", exp, calls / "call.wav", "-o", tmp_path / "out", "--threshold-from", fitted)
    assert "not fitted" not in done.stderr
    record = read_record(tmp_path / "out/call.json")
    assert record["threshold"] == read_record(fitted)["range_eer_threshold"]
    assert (record["smooth_seconds"], record["threshold_is_fitted"]) == (0.18, True)
    assert record["threshold_from"].endswith("% of dev.npz")
    assert record["min_region_seconds"] == 0.1
    for percent, is_weak in ((12.5, False), (54.9, True)):
        weak = tmp_path / f"{percent}.json"
        weak.write_text(json.dumps(read_record(fitted) | {"range_eer_percent": percent}))
        done = run_cli("localize", exp, calls / "call.wav", "-o", tmp_path / str(percent), "--threshold-from", weak)
        assert ("hardly better than chance" in done.stderr) == is_weak
        page = (tmp_path / str(percent) / "timeline.html").read_text()
        assert ("an EER of 54.9 %; 50 % is chance" in page) == is_weak
    again = ["localize", exp, calls / "call.wav", "-o", tmp_path / "other"]
    assert "found --smooth too" in refusal(*again, "--threshold-from", fitted, "--smooth", "0")
    fitted.write_text(fitted.read_text().replace('"authenticity"', '"region"'))
    assert "another model (frame target)" in refusal(*again, "--threshold-from", fitted)
    assert "is a folder, expected a segments.json" in refusal(*again, "--threshold-from", results)
    assert "--min-region -1" in refusal(*again, "--min-region", "-1")
    assert "expected a finite number" in refusal(*again, "--threshold", "nan")
    assert not (tmp_path / "other").exists()


def test_nothing_but_an_earlier_result_is_replaced(exp: Path, calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = ["localize", exp, calls / "call.wav", "-o", out, "--threshold", "0"]
    (out / "call.txt").write_text("hello, who is there?")
    for options in ((), ("--reuse",), ("--overwrite",)):
        assert "call.txt: exists but was not written by `spoofkit localize`" in refusal(*command, *options)
    for other in ('{"said": "hello, who is there?"}', "hello, who is there?"):
        (out / "call.json").write_text(other)
        assert "call.json: exists but was not written by" in refusal(*command, "--overwrite")
    assert sorted(path.name for path in out.iterdir()) == ["call.json", "call.txt"]
    for name in ("call.json", "call.txt"):
        (out / name).unlink()
    run_cli(*command)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "exists already; pass --overwrite" in refusal(*command)
    (out / "timeline_2.html").write_text("<html>mine</html>")
    assert "is not a page of `spoofkit localize`" in refusal(*command, "--overwrite")
    shutil.copy(out / "timeline.html", out / "timeline_2.html")
    run_cli(*command, "--overwrite")
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert after.keys() == before.keys()  # the page of a larger call is gone
    assert all(after[name] == before[name] for name in ("call.rttm", "call.txt", "call.png"))


def contents(out: Path) -> dict[str, bytes]:
    """Hidden files too."""
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_full_disk_leaves_a_recording_without_files_or_with_the_old_ones_and_the_same_call_goes_on(
    exp: Path, calls: Path, middle: float, tmp_path: Path
) -> None:
    command = ["localize", exp, calls / "call.wav", "-o", tmp_path / "out", "--threshold"]

    def refused_at(suffix: str, *rest: object) -> None:
        """The first file that is larger than those before it finds no room."""
        n_bytes = (marked_at_0 / f"call{suffix}").stat().st_size - 1
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            sentence = refusal(*command, *rest)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert f"call{suffix}: cannot be written (File too large); the previous file is intact" in sentence

    marked_at_0 = tmp_path / "marked"
    run_cli("localize", exp, calls / "call.wav", "-o", marked_at_0, "--threshold", "0")
    refused_at(".png", "0")
    assert list(contents(tmp_path / "out")) == ["timeline.made_from.json"]
    run_cli(*command, "0")
    before = contents(tmp_path / "out")
    refused_at(".png", middle, "--overwrite")
    begun = {"timeline.made_from.json": contents(tmp_path / "out")["timeline.made_from.json"]}
    assert contents(tmp_path / "out") == before | begun
    run_cli(*command, middle, "--overwrite")
    assert contents(tmp_path / "out") != before


class Killed(BaseException):
    """After it, nothing is changed on the disk any more: not even cleaned up."""


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "in place of others"])
def test_after_a_kill_at_any_moment_the_same_call_ends_as_if_nothing_had_been(
    is_first: bool, exp: Path, calls: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    command = ["localize", exp, calls / "call.wav", "-o", out, "--overwrite", "--threshold"]
    run_cli("localize", exp, calls / "call.wav", "-o", other, "--threshold", "0")
    written = {suffix: (other / f"call{suffix}").read_bytes() for suffix in marked_files.SUFFIXES}
    if not is_first:
        run_cli("localize", exp, calls / "call.wav", "-o", tmp_path / "before", "--threshold", "0.5")
    seen, n_before, is_killed = set(), 0, True
    while is_killed:
        shutil.rmtree(out, ignore_errors=True)
        if not is_first:
            shutil.copytree(tmp_path / "before", out)
        n_left = n_before

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal n_left
                if n_left == 0:
                    raise Killed
                n_left -= 1
                return real(*arguments, **options)

            return call

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "replace", dying(os.replace))
            patched.setattr(Path, "write_bytes", dying(Path.write_bytes))
            patched.setattr(Path, "unlink", dying(Path.unlink))
            try:
                marked_files.write_together(out / "call", written, overwrite=True)
                is_killed = False
            except Killed:
                n_before += 1
        standing = {path.name for path in out.glob("call.*")}
        is_new = frozenset(standing) not in seen
        seen.add(frozenset(standing))
        if standing:
            assert "call.json" in standing
            if read_record(out / "call.json")["threshold"] == 0:  # then nothing of the earlier call is beside it
                assert all((out / name).read_bytes() == written[Path(name).suffix] for name in standing)
        if is_killed and is_new:
            run_cli(*command, "0")
            found = contents(out)
            assert sorted(found) == [*(f"call.{suffix}" for suffix in SUFFIXES), *OF_ALL]
            assert all(found[f"call{suffix}"] == written[suffix] for suffix in (".rttm", ".txt", ".png"))
            assert read_record(out / "call.json")["threshold"] == 0
    assert n_before > 10
    assert len(seen) >= 4


def test_what_is_no_earlier_result_survives_the_mending_of_one(exp: Path, calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".call.0123abcd.tmp.png", ".calls.0123abcd.tmp.png", ".call.png", "notes.txt"):
        (out / name).write_bytes(b"-")
    run_cli("localize", exp, calls / "call.wav", "-o", out, "--threshold", "0")
    left = {name for name, content in contents(out).items() if content == b"-"}
    assert left == {".calls.0123abcd.tmp.png", ".call.png", "notes.txt"}


def test_a_recording_that_cannot_be_read_is_named_and_the_others_are_written(
    exp: Path, calls: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    soundfile.write(tmp_path / "short.wav", np.zeros(20, np.float32), SAMPLE_RATE)
    soundfile.write(tmp_path / "silence.wav", np.zeros(32_000, np.float32), SAMPLE_RATE)
    inputs = [tmp_path / "bad.wav", calls / "call.wav", tmp_path / "short.wav", tmp_path / "silence.wav"]
    sentence = refusal("localize", exp, *inputs, "-o", tmp_path / "out", "--threshold", "0")
    assert "3 of 4 recordings failed" in sentence
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"call.{suffix}" for suffix in SUFFIXES),
        *OF_ALL,
    }
    del inputs[1]
    refusal("localize", exp, *inputs, "-o", tmp_path / "none", "--threshold", "0")
    assert sorted(path.name for path in (tmp_path / "none").iterdir()) == [*OF_ALL]
    for folder in ("out", "none"):
        page = (tmp_path / folder / "timeline.html").read_text()
        assert "3 recordings could not be marked" in page
        for name in ("bad", "short", "silence"):
            assert page.count(f"{tmp_path / name}.wav: ") == 1


def test_recordings_that_are_localized_are_skipped_and_what_is_not_so_any_more_is_named(
    exp: Path, calls: Path, tmp_path: Path
) -> None:
    call, out = shutil.copy(calls / "call.wav", tmp_path / "call.wav"), tmp_path / "out"
    again = ("localize", exp, call, "-o", out, "--reuse")
    run_cli(*again)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in out.iterdir()}
    assert run_cli(*again).stdout == f"{out}: up to date, skipped\n"
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in out.iterdir()} == before
    assert "(threshold, threshold from, threshold is fitted)" in refusal(*again, "--threshold", "1")
    (out / "call.rttm").unlink()
    run_cli(*again)
    assert (out / "call.rttm").read_bytes() == before[out / "call.rttm"][1]
    (out / "timeline.made_from.json").unlink()  # as after a kill
    run_cli(*again)
    (out / "call.txt").write_text("1\t2\tx\n")
    assert f"{out}/call.txt: damaged" in refusal(*again)
    run_cli("localize", exp, call, "-o", out, "--overwrite")
    wave, rate = soundfile.read(call)
    soundfile.write(call, wave[::-1], rate)
    assert f"{out}/call.json: inputs have changed since (recording)" in refusal(*again)
    run_cli("localize", exp, call, "-o", out, "--overwrite")


def test_further_recordings_are_added_to_those_that_are_up_to_date(exp: Path, calls: Path, tmp_path: Path) -> None:
    inbox, out, at_once = tmp_path / "inbox", tmp_path / "out", tmp_path / "at once"
    (inbox / "b").mkdir(parents=True)
    shutil.copy(calls / "call.wav", inbox / "b/call.wav")
    (inbox / "c.wav").write_text("cut off while it was copied")
    again = ("localize", exp, inbox, "-o", out, "--threshold", "0", "--smooth", "0.1", "--reuse")
    refusal(*again)
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in out.glob("call.*")}
    # The first of them would be called `call`, if an earlier call had not given that name away.
    (inbox / "a").mkdir()
    shutil.copy(calls / "b/call.flac", inbox / "a/call.flac")
    shutil.copy(calls / "b/call.flac", inbox / "c.wav")
    done = run_cli(*again)
    assert f"{out}: 1 of 3 recordings up to date, skipped" in done.stdout
    assert [line.partition(": ")[0] for line in done.stdout.splitlines() if ".json" in line] == [
        f"{inbox}/a/call.flac",
        f"{inbox}/c.wav",
    ]
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in out.glob("call.*")} == before
    assert read_record(out / "call_2.json")["recording"] == f"{inbox}/a/call.flac"
    assert run_cli(*again).stdout == f"{out}: up to date, skipped\n"
    # The page is the one of a single call, except that a name was given away.
    run_cli(*(at_once if word == out else word for word in again))
    swapped = re.sub(r'call(_2)?"', lambda name: 'call"' if name[1] else 'call_2"', seen_on_page(at_once))
    assert seen_on_page(out) == swapped
    # What the page shows does not vanish from it unsaid.
    (inbox / "c.wav").unlink()
    assert f"{out}/timeline.html: inputs have changed since (recordings)" in refusal(*again)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": None},
        {"frames": {"score": [0.0]}},
        {"frames": {"score": None, "smoothed_score": None}},
        {"frames": {"score": "many", "smoothed_score": None}},
        {"frames": {"score": [0.0], "smoothed_score": None}},
        {"frames": {"score": [1e300] * 74, "smoothed_score": None}},
        {"frames": {"score": [float("nan")] * 74, "smoothed_score": None}},
        {"frames": {"score": [0.0] * 74, "smoothed_score": [[0.0]] * 74}},
        {"regions": 5},
        {"regions": [{}]},
        {"regions": [{"start_seconds": 1.5, "end_seconds": 1.0, "mean_score": 0.0, "lowest_score": 0.0}]},
        {"regions": [{"start_seconds": 1.0, "end_seconds": 2.5, "mean_score": 0.0, "lowest_score": 0.0}]},
        {"regions": [{"start_seconds": 1.0, "end_seconds": 1e999, "mean_score": 0.0, "lowest_score": 0.0}]},
        {"regions": [{"start_seconds": 1.0, "end_seconds": 1.5, "mean_score": "low", "lowest_score": 0.0}]},
    ],
)
def test_frames_and_regions_that_localize_does_not_write_are_not_shown(change: dict[str, Any], marked: Path) -> None:
    record = read_record(marked / "call.json")
    n_frames, n_samples = record["frames"]["n_frames"], record["n_samples"]
    assert (n_frames, n_samples) == (74, 24_000)
    assert len(shown(record, n_frames, n_samples)[2]) == len(record["regions"])
    with pytest.raises((LookupError, TypeError, ValueError, OverflowError)):
        shown(record | change, n_frames, n_samples)


def test_a_strangers_record_of_a_recording_is_refused_in_one_sentence(exp: Path, calls: Path, tmp_path: Path) -> None:
    again = ("localize", exp, calls / "call.wav", "-o", tmp_path / "out", "--threshold", "0", "--reuse")
    run_cli(*again)
    path = tmp_path / "out/call.json"
    record = read_record(path)
    del record["sha256"]
    path.write_text(json.dumps(with_checksums(record | {"utterance": {"score": "high"}})))
    (tmp_path / "out/timeline.made_from.json").unlink()  # as after a kill: the page is written again
    found = refusal(*again)
    assert str(path) in found
    assert "--overwrite" in found


def seen_on_page(out: Path) -> str:
    """The page without the audio: libsndfile gives each Ogg stream a random number."""
    return re.sub(r"data:audio/ogg;base64,[^\"]*", "", (out / "timeline.html").read_text(encoding="utf-8"))


def test_a_stopped_call_resumes_with_the_same_command_and_ends_with_the_same_files(
    exp: Path, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    run_cli("localize", exp, calls, "-o", other, "--threshold", "0")
    run_cli("localize", exp, calls, "-o", out, "--threshold", "1")
    command = ("localize", exp, calls, "-o", out, "--threshold", "0")
    write, n_left = marked_files.write_recording, 1

    def stopping(*arguments: Any) -> None:
        nonlocal n_left
        if n_left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        n_left -= 1
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(marked_files, "write_recording", stopping)
        done = run_cli(*command, "--overwrite", ok=False)
    assert done.returncode == 75
    assert "stopped after 2 of 3 recordings" in done.stderr
    assert "(threshold)" in refusal("localize", exp, calls, "-o", out, "--threshold", "0.5", "--reuse")
    assert "2 of 3 recordings up to date, skipped" in run_cli(*command).stdout
    assert "--reuse" in refusal(*command)  # it is complete now

    def killed(*arguments: Any) -> None:
        raise Killed

    def but_command(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = contents(folder) | {"timeline.html": seen_on_page(folder)}
        for name in (name for name in found if name.endswith(".json")):
            record = json.loads(found[name])
            left_out = ("command", "sha256", *(["files_sha256"] if name == "timeline.made_from.json" else []))
            found[name] = {key: value for key, value in record.items() if key not in left_out}
        return found

    assert but_command(out) == but_command(other)
    with monkeypatch.context() as patched:
        patched.setattr(marked_files, "finish", killed)
        with pytest.raises(Killed):
            run_cli("localize", exp, calls, "-o", tmp_path / "third", "--threshold", "0")
    run_cli("localize", exp, calls, "-o", tmp_path / "third", "--threshold", "0")
    assert but_command(tmp_path / "third") == but_command(other)


def test_a_name_that_is_no_text_is_written_down_as_escapes(exp: Path, calls: Path, tmp_path: Path) -> None:
    odd, bad = (tmp_path / os.fsdecode(name) for name in (b"latin\xe9.wav", b"bad\xe9.wav"))
    shutil.copy(calls / "call.wav", odd)
    bad.write_text("no sound")
    assert "1 of 2 recordings" in refusal("localize", exp, odd, bad, "-o", tmp_path / "out", "--threshold", "0")
    record = json.loads((tmp_path / "out/latin.json").read_text(encoding="utf-8"))
    assert record["recording"].endswith(r"latin\udce9.wav")
    assert any(word.endswith(r"bad\udce9.wav") for word in record["command"])


def test_arguments_that_do_not_go_together_are_refused(exp: Path, manifests: Path, calls: Path, tmp_path: Path) -> None:
    call, out = calls / "call.wav", tmp_path / "out"
    assert "found no output" in refusal("localize", exp, call)
    assert "is a file, expected the folder for the outputs" in refusal("localize", exp, calls, "-o", call)
    assert "expected .npz" in refusal("localize", exp, manifests / "dev.tsv", "-o", out)
    assert "expected one manifest" in refusal("localize", exp, call, call, "-o", tmp_path / "x.npz")
    assert "--workers: is about manifests" in refusal("localize", exp, call, "-o", out, "--workers", "1")
    sentence = refusal("localize", exp, manifests / "dev.tsv", "-o", tmp_path / "x.npz", "--threshold", "1")
    assert "`spoofkit evaluate-segments` takes thresholds" in sentence
    assert list(tmp_path.iterdir()) == []


# ---- Long recordings


@pytest.mark.parametrize(
    "geometry", [WAV2VEC2_GEOMETRY, FrameGeometry(1040, 320, 160, 0), FrameGeometry(25, 11, 25, 12)]
)
@settings(max_examples=40, deadline=None)
@given(n_samples=st.integers(400, 4_000_000), longest=st.sampled_from([480_000, 100_000]))
def test_windows_give_every_frame_once_and_none_near_an_inner_edge(
    geometry: FrameGeometry, n_samples: int, longest: int
) -> None:
    found = frame_windows(n_samples, geometry, longest)
    frames: list[int] = []
    for number, (start, end, first, last) in enumerate(found):
        assert start % geometry.hop == 0
        assert geometry.shortest <= end - start <= longest
        assert 0 <= first < last <= geometry.n_frames(end - start)
        frames += range(start // geometry.hop + first, start // geometry.hop + last)
        half_second = 8000 - geometry.hop
        assert number == 0 or first * geometry.hop >= half_second
        assert number == len(found) - 1 or end - start - last * geometry.hop >= half_second
    assert frames == list(range(geometry.n_frames(n_samples)))
    assert found[-1].end == n_samples


def test_a_long_recording_is_scored_in_windows_that_meet_on_one_grid(
    exp: Path, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load_frame_model(exp).classifier
    wave_S = read_audio(calls / "call.wav")  # 2 s
    monkeypatch.setattr(windows, "SECONDS", 1.2)
    monkeypatch.setattr(windows, "OVERLAP_SECONDS", 0.4)
    found_T = frames_of(exp, calls / "call.wav", Windows(19_200, 19_200, "mean"))
    pieces = []
    for start, end, first, last in ((0, 19200, 0, 50), (12800, 32000, 10, 59)):
        with torch.no_grad():
            logit_BT, _ = classifier(torch.from_numpy(wave_S[start:end])[None], torch.tensor([end - start]))
        pieces.append(-logit_BT[0].numpy()[first:last])
    assert found_T.tolist() == np.concatenate(pieces).tolist()
    assert found_T.size == WAV2VEC2_GEOMETRY.n_frames(wave_S.size)
    run_cli("localize", exp, calls / "call.wav", "-o", tmp_path / "out", "--threshold", "0")
    assert read_record(tmp_path / "out/call.json")["windows"] == {"window_seconds": 1.2, "overlap_seconds": 0.4}


# ---- The page


def make_section(name: str, wave_S: np.ndarray, regions: list[Marked]) -> timeline.Section:
    seconds_T = WAV2VEC2_GEOMETRY.centres(wave_S.size) / SAMPLE_RATE
    score_T = np.linspace(-1, 1, seconds_T.size).astype(np.float32)
    curve = Curve(seconds_T, score_T, score_T)
    return timeline.make_section(name, name, wave_S, curve, regions, FITTED)


def test_pages_are_filled_and_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = [make_section(f"call_{n}", make_voice(n, True, 3.0), []) for n in range(5)]
    monkeypatch.setattr(timeline, "PAGE_BYTES", int(2.5 * sections[0].size()))
    facts = timeline.Facts("exp", "0" * 64, "spoof", FITTED, ())
    pages = timeline.Pages(tmp_path, facts, overwrite=False)
    for section in sections:
        pages.add(section)
    written = pages.finish()
    assert [path.name for path in written] == ["timeline.html", "timeline_2.html", "timeline_3.html"]
    texts = [path.read_text() for path in written]
    shown = [re.findall(r'data-recording="(\w+)"', text) for text in texts]
    assert shown == [["call_0", "call_1"], ["call_2", "call_3"], ["call_4"]]
    assert [re.findall(r'href="([^"]+)"', text) for text in texts] == [
        ["timeline_2.html"],
        ["timeline.html", "timeline_3.html"],
        ["timeline_2.html"],
    ]
    for text, names in zip(texts, shown, strict=True):
        assert len(text.encode()) < sum(section.size() for section in sections[: len(names)]) + 15_000


def test_of_a_recording_too_long_for_a_page_the_beginning_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    wave_S = np.tile(make_voice(4, True, 2.0), 12)
    monkeypatch.setattr(timeline, "MOST_AUDIO_BYTES", 50_000)
    regions = [Marked(8000, 16000, -1.0, -2.0), Marked(370_000, 380_000, -1.0, -2.0)]
    section = make_section("call", wave_S, regions)
    content = base64.b64decode(section.audio.removeprefix("data:audio/ogg;base64,"))
    assert 25_000 < len(content) <= 50_000
    info = soundfile.info(io.BytesIO(content))
    assert info.frames == round(section.heard_seconds * SAMPLE_RATE)
    assert 5 < section.heard_seconds < 20
    assert [bar.is_playable for bar in section.bars] == [True, False]
    page = timeline.render(timeline.Facts("exp", "0" * 64, "spoof", FITTED, ()), [section], 1, True)
    assert f"Only its first {section.heard_seconds:.0f} s" in page
    assert page.count(" disabled>") == 2  # the second region, on the timeline and in the list


def test_embedded_audio_is_the_recording_in_time(marked: Path, calls: Path) -> None:
    page = (marked / "timeline.html").read_text()
    audio = [base64.b64decode(text) for text in re.findall(r'src="data:audio/ogg;base64,([^"]+)"', page)]
    assert len(audio) == 3
    by_length = {soundfile.info(io.BytesIO(content)).frames: content for content in audio}
    wave_S = read_audio(calls / "call.wav")
    heard_S, rate = soundfile.read(io.BytesIO(by_length[wave_S.size]), dtype="float32")
    assert rate == SAMPLE_RATE
    spectrum = np.fft.rfft(heard_S, 2 * wave_S.size) * np.conj(np.fft.rfft(wave_S, 2 * wave_S.size))
    delay = int(np.argmax(np.fft.irfft(spectrum)))
    assert min(delay, 2 * wave_S.size - delay) <= 16  # a millisecond


def test_a_page_loads_nothing_and_names_are_text(marked: Path) -> None:
    page = (marked / "timeline.html").read_text()
    assert len(page) < 8_000_000
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in page.replace("http-equiv", "")
    assert "<b>&my" not in page
    assert "&lt;b&gt;&amp;my call;.wav" in page
    record = read_record(marked / "call.json")
    for region in record["regions"]:
        assert page.count(f'data-start="{region["start_seconds"]}" data-end="{region["end_seconds"]}"') >= 2


# ---- In a browser


@pytest.fixture(scope="module")
def tab(marked: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("no Chromium (sudo apt install chromium)")
    with opened(tmp_path_factory.mktemp("profile")) as tab:
        tab.open(marked / "timeline.html")
        yield tab


def test_page_opens_without_an_error_and_every_player_has_its_recording(tab: Tab, marked: Path) -> None:
    tab.open(marked / "timeline.html")
    loaded = """Promise.all([...document.querySelectorAll("audio")].map((player) => new Promise((done) => {
        const say = () => done([player.duration, player.error && player.error.code]);
        player.readyState >= 1 || player.error ? say() : (player.onloadedmetadata = player.onerror = say);
    })))"""
    lengths = [read_record(path)["seconds"] for path in marked.glob("*.json") if path.name not in OF_ALL]
    players = tab.run(loaded)
    assert sorted(duration for duration, _ in players) == pytest.approx(sorted(lengths), abs=0.03)
    assert {error for _, error in players} == {None}
    assert tab.run("[...document.images].every((image) => image.complete && image.naturalWidth > 40)") is True
    assert tab.happened("Runtime.exceptionThrown") == []
    assert tab.happened("Runtime.consoleAPICalled") == []
    assert [entry["entry"]["text"] for entry in tab.happened("Log.entryAdded")] == []
    asked = {request["request"]["url"] for request in tab.happened("Network.requestWillBeSent")}
    assert {url for url in asked if not url.startswith("data:")} == {(marked / "timeline.html").as_uri()}


@pytest.mark.parametrize("kind", ["band", "chip"])
def test_a_click_on_a_region_plays_it_from_its_start_to_its_end(tab: Tab, marked: Path, kind: str) -> None:
    tab.open(marked / "timeline.html")
    tab.run(f"""window.region = [...document.querySelectorAll("[aria-label$='/call.wav'] .{kind}")].find(
            (button) => button.dataset.start > 0.2 && button.dataset.end < 1.7);  // of 2 s: neither end is the file's
        window.audio = region.closest("[data-recording]").querySelector("audio"); window.heard = [];
        audio.addEventListener("playing", () => heard.push(audio.currentTime));
        window.over = new Promise((done) => audio.addEventListener("pause", () => done(audio.currentTime)));
        region.scrollIntoView({{ block: "center", inline: "center" }}); undefined""")
    x, y, start, end = tab.run(
        "(() => { const box = region.getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2, +region.dataset.start, +region.dataset.end]; })()"
    )
    for what in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=what, x=x, y=y, button="left", clickCount=1)
    stopped = tab.run("over")
    heard = tab.run("heard")
    assert heard[0] == pytest.approx(start, abs=0.05)
    assert end - 0.01 <= stopped <= end + 0.25
    assert tab.run("document.querySelectorAll('output')[0].textContent") == ""
    assert tab.happened("Runtime.exceptionThrown") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_no_wider_than_a_phone_and_follows_the_colour_scheme(tab: Tab, marked: Path, scheme: str) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", **PHONE)
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.open(marked / "timeline.html")
    assert tab.run("document.documentElement.scrollWidth") <= PHONE["width"]
    colours = tab.run("['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])")
    ink, paper = (sum(map(int, colour.strip("rgb()").split(", "))) for colour in colours)
    assert (ink < paper) == (scheme == "light")
    assert abs(ink - paper) > 3 * 128
    tab.call("Emulation.clearDeviceMetricsOverride")
    tab.call("Emulation.setEmulatedMedia", features=[])
