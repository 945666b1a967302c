"""Reports on recordings: what they say, how several are summed up, and what `--verify` finds."""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import make_voice, refusal, run_cli, without_sums
from test_report_browser import CHROMIUM, PHONE, opened

import spoofkit
from spoofkit.addons.report import run
from spoofkit.addons.report.examine import examine
from spoofkit.addons.report.scale import band_of, ratio_text, weigh
from spoofkit.checksums import folder_sha256
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import read_manifest
from spoofkit.evaluation.scores import write_scores
from spoofkit.files import file_sha256
from spoofkit.models.detector import FrameClassifier, load_detector
from spoofkit.models.frame_model import load_frame_model, write_frame_head
from spoofkit.outputs import checksum

SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of several kinds, one of them none; read only."""
    folder = tmp_path_factory.mktemp("calls")
    voices = [make_voice(seed, seed % 2 == 0, 1.5) for seed in range(3)]
    soundfile.write(folder / "call.flac", voices[0], SAMPLE_RATE)
    soundfile.write(folder / "parties.wav", np.stack(voices[1:], 1), 8000)
    soundfile.write(folder / f"{SCRIPT}.wav", voices[1], SAMPLE_RATE)
    soundfile.write(folder / "summary.wav", np.tile(voices[2], 21), SAMPLE_RATE)  # more than a window
    (folder / "broken.wav").write_bytes(b"RIFF, but nothing of the kind")
    return folder


@pytest.fixture(scope="module")
def calibration(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of made-up scores on dev: it says of which trials, but not of which model."""
    folder = tmp_path_factory.mktemp("calibration")
    table = read_manifest(manifests / "dev.tsv").table
    is_bonafide = (table["key"] == "bonafide").to_numpy()
    scores = np.zeros(is_bonafide.size)
    scores[is_bonafide], scores[~is_bonafide] = [-0.5, 0.2, 0.8, 1.2, 2.0], [-2.0, -1.2, -0.6, -0.1, 0.6]
    write_scores(folder / "dev.tsv", table["utt_id"].to_list(), scores)
    run_cli("calibrate", folder / "dev.tsv", manifests / "dev.tsv", "-o", folder / "cal.json")
    return folder / "cal.json"


@pytest.fixture(scope="module")
def reports(model: Path, calls: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports on all recordings."""
    out = tmp_path_factory.mktemp("reports") / "out"
    done = run_cli("report", model, calls, "-o", out, "--calibration", calibration, ok=False)
    assert done.returncode == 1
    assert "broken.wav" in done.stderr
    return out


# ---- What a likelihood ratio says


@pytest.mark.parametrize(
    ("ratio", "word"),
    [(1.0, ""), (1.99, ""), (2.0, "weak"), (9.9, "weak"), (10.1, "moderate"), (101, "moderately strong"),
     (1001, "strong"), (10_001, "very strong"), (999_999, "very strong"), (1_000_001, "extremely strong")],
)  # fmt: skip
def test_words_are_those_of_the_guideline_in_both_directions(ratio: float, word: str) -> None:
    for sign, favoured in ((1, "bonafide"), (-1, "spoof")):
        verdict = weigh(sign * math.log(ratio), None, None)
        assert (verdict.favours, verdict.strength) == (favoured if word else None, word)
        assert f" {word} support" in verdict.words() if word else "neither" in verdict.words()
    spans = [float(text.replace(",", "")) for text in re.findall(r"[\d,]+", band_of(ratio))]
    assert spans[0] <= ratio or not word


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0, "1"), (1.96, "1.9"), (2.3, "2.3"), (9.96, "9.9"), (10.0, "10"), (99.7, "99"), (301, "300"), (999.6, "990"),
     (9_999, "9,900"), (12_345, "12,000"), (999_999, "990,000"), (1e6, "1,000,000"), (9.6e11, "9e+11")],
)  # fmt: skip
def test_the_number_on_the_page_lies_in_the_band_of_its_words(ratio: float, text: str) -> None:
    assert ratio_text(ratio) == text
    assert band_of(float(text.replace(",", ""))) == band_of(ratio)


def test_a_ratio_is_no_higher_than_the_trials_of_the_other_class_can_support() -> None:
    assert weigh(20.0, 5, 99).ratio == 100
    assert weigh(-20.0, 5, 99).ratio == 6
    assert weigh(-20.0, 5, 99).is_limited
    assert not weigh(1.0, 5, 99).is_limited
    assert weigh(5000.0, None, None).ratio > 1e300


# ---- Reports


def test_a_calibration_of_an_earlier_version_which_does_not_say_of_which_trials_is_used_with_a_warning(
    model: Path, calls: Path, calibration: Path, tmp_path: Path
) -> None:
    record = json.loads(calibration.read_text())
    record["fitted_on"] = {name: record["fitted_on"][name] for name in ("scores", "manifest", "manifest_sha256")}
    del record["files_sha256"]
    (tmp_path / "cal.json").write_text(json.dumps(record | {"sha256": checksum(record)}))
    run_cli("report", model, calls / "call.flac", "-o", tmp_path / "call.html", "--calibration", tmp_path / "cal.json")
    found = json.loads((tmp_path / "call.json").read_text())
    assert any("trials" in warning for warning in found["calibration"]["warnings"])
    assert record["fitted_on"]["manifest"] in (tmp_path / "call.html").read_text()


def test_a_folder_has_a_row_for_each_channel_most_likely_spoofed_first_and_failures_with_their_reason(
    model: Path, calls: Path, reports: Path
) -> None:
    rows = list(csv.DictReader((reports / "summary.csv").read_text().splitlines()))
    scored = {(one.file, str(one.channel or "")): one.score for one in spoofkit.load(model).score_files(calls)}
    assert {(row["file"], row["channel"]) for row in rows} == scored.keys()
    values = [float(row["score"]) for row in rows[:-1]]
    assert values == sorted(values)
    assert values == pytest.approx([scored[row["file"], row["channel"]] for row in rows[:-1]], abs=1e-4)
    assert rows[-1]["file"] == str(calls / "broken.wav")
    assert rows[-1]["error"]
    assert not rows[-1]["score"]
    # The recording that is called as the summary has another name.
    assert {row["page"] for row in rows} >= {"call.html", "parties.html", "summary_2.html", ""}
    page = (reports / "summary.html").read_text()
    assert page.index("call.flac") < page.index("broken.wav")
    assert rows[-1]["error"].split("(")[0] in page


def test_a_report_says_what_was_read_and_how_far_it_reaches(reports: Path, calibration: Path, model: Path) -> None:
    report = json.loads((reports / "parties.json").read_text())
    of = report["recording"]
    assert (of["container"], of["codec"], of["sample_rate"], of["channels"]) == ("WAV", "PCM_16", 8000, 2)
    assert [result["channel"] for result in report["results"]] == [1, 2]
    fitted = report["calibration"]["fitted_on"]
    assert (fitted["n_bonafide"], fitted["n_spoof"], fitted["attacks"]) == (5, 5, ["A09", "A10"])
    cal = json.loads(calibration.read_text())
    for result in report["results"]:
        llr = cal["offset"] + cal["scales"][0] * result["score"]
        assert result["llr"] == pytest.approx(llr)
        stated = min(math.exp(abs(llr)), 6)
        assert result["likelihood_ratio"] == pytest.approx(stated)
        assert result["is_outside"] == (not fitted["lowest_score"][0] <= result["score"] <= fitted["highest_score"][0])
    page = (reports / "parties.html").read_text()
    assert "must not be used as evidence in court" in " ".join(page.split())
    assert "few" in " ".join(report["calibration"]["warnings"])
    assert of["sha256"] in page
    assert report["model"]["sha256"] in page
    windows = json.loads((reports / "summary_2.json").read_text())["results"][0]["windows"]
    assert [window["start_seconds"] for window in windows] == [0, 1.5]


def test_without_a_calibration_there_is_no_verdict_and_the_page_says_that_it_is_no_evidence(
    model: Path, calls: Path, tmp_path: Path
) -> None:
    run_cli("report", model, calls / "call.flac", "-o", tmp_path / "call.html")
    (result,) = json.loads((tmp_path / "call.json").read_text())["results"]
    assert np.isfinite(result["score"])
    assert {result[name] for name in ("llr", "likelihood_ratio", "favours", "verdict")} == {None}
    page = (tmp_path / "call.html").read_text()
    assert "This page is no evidence" in page
    assert "support for" not in page


def test_pages_load_nothing_and_names_are_text(reports: Path) -> None:
    pages = sorted(reports.glob("*.html"))
    assert len(pages) == 5
    for page in pages:
        text = page.read_text()
        assert "<img src=x" not in text
        assert "<script" not in text
        assert "default-src 'none'" in text
        assert not re.search(r'(?:src|href)="(?!data:|[\w.]+\.html")', text)
    assert "&lt;img src=x onerror=alert(1)&gt;" in (reports / "summary.html").read_text()


def test_reports_that_are_up_to_date_are_skipped_and_others_are_refused(
    model: Path, calls: Path, calibration: Path, reports: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(reports, tmp_path / "mine")
    call = [model, calls, "-o", mine, "--calibration", calibration]
    before = {path.name: path.read_bytes() for path in mine.iterdir() if not path.name.startswith("summary.")}
    assert "exists already" in refusal("report", *call)
    done = run_cli("report", *call, "--reuse", ok=False)
    assert done.stdout.count("up to date") == 4
    assert {path.name: path.read_bytes() for path in mine.iterdir() if path.name in before} == before
    assert "calibration" in refusal("report", *call[:-2], "--reuse")
    assert "one recording" in refusal("report", model, calls, "-o", tmp_path / "x.html")
    assert "broken.wav" in refusal("report", model, calls / "broken.wav", "-o", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_reports_on_a_folder_that_a_signal_stopped_go_on_with_reuse(
    model: Path, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("report", model, calls, "-o", tmp_path)

    def stopping(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return examine(*arguments)

    run_cli("report", model, calls / "call.flac", "-o", tmp_path / "call.html")
    with monkeypatch.context() as patch:
        patch.setattr(run, "examine", stopping)
        done = run_cli(*command, "--reuse", ok=False)
        assert done.returncode == 128 + signal.SIGTERM  # not 75: a scheduler's same command would be refused
        assert run_cli("report", model, calls, "-o", tmp_path / "other", ok=False).stderr.endswith(", with --reuse\n")
    assert "exists already" in refusal(*command)
    done = run_cli(*command, "--reuse", ok=False)
    assert "call.html: up to date, skipped" in done.stdout
    assert (tmp_path / "summary.html").is_file()


def test_two_processes_do_not_write_the_same_reports(model: Path, calls: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from spoofkit.lock import held\n"
        "with held(Path(sys.argv[1])): print(flush=True), input()"
    )
    for out, lock in ((tmp_path / "call.html", ".call.lock"), (tmp_path, ".summary.lock")):
        command = [sys.executable, "-c", code, str(tmp_path / lock)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            sentence = refusal("report", model, calls / "call.flac", "-o", out, "--overwrite")
            other.communicate(b"\n")
        assert f"process {other.pid}" in sentence
        assert not list(tmp_path.glob("*.html"))
    run_cli("report", model, calls / "call.flac", "-o", tmp_path)


def test_a_channel_without_a_score_has_its_reason_without_its_name_and_is_named_once(
    model: Path, calls: Path, tmp_path: Path
) -> None:
    voice_S = soundfile.read(calls / "call.flac")[0]
    soundfile.write(tmp_path / "call.wav", np.stack([voice_S, 0 * voice_S], 1), SAMPLE_RATE)
    done = run_cli("report", model, tmp_path / "call.wav", "-o", tmp_path / "call.html", ok=False)
    (_, silent) = json.loads((tmp_path / "call.json").read_text())["results"]
    assert silent["channel"] == 2
    assert silent["error"].startswith("holds 0.00 s of signal")
    assert f"{tmp_path / 'call.wav'}, channel 2: holds 0.00 s" in done.stderr
    assert done.stderr.count("channel 2") == 1
    assert done.stdout.count("channel 2") == 1


def test_a_name_that_is_not_utf_8_is_the_same_in_each_report_and_known_again(
    model: Path, calls: Path, tmp_path: Path
) -> None:
    (tmp_path / "odd").mkdir()
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/odd/call\xff.flac")
    shutil.copy(calls / "call.flac", odd)
    command = ("report", model, tmp_path / "odd", "-o", tmp_path / "out")
    run_cli(*command)
    summary, report = (json.loads((tmp_path / f"out/{name}.json").read_text()) for name in ("summary", "call"))
    assert summary["rows"][0]["file"] == report["recording"]["file"] == odd
    assert summary["names"] == {odd: "call"}
    for name in ("call.html", "summary.html", "summary.csv"):
        assert r"call\xff.flac" in (tmp_path / "out" / name).read_text()
    shutil.copy(calls / "parties.wav", tmp_path / "odd/call.wav")  # it would take the name if that were not known
    assert "call.html: up to date, skipped" in run_cli(*command, "--reuse").stdout
    run_cli("report", model, odd, "--verify", tmp_path / "out/call.json")


def test_of_a_model_with_a_frame_head_regions_are_marked_where_a_threshold_was_fitted(
    model: Path, calls: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (without_sums(folder) / "frame_head").mkdir()
    torch.manual_seed(0)
    frames = FrameClassifier(load_detector(folder)[0].encoder, "linear")
    stage: dict[str, Any] = {"stage": "post-training", "kept": {}, "settings": {}, "inputs": {}}
    write_frame_head(folder / "frame_head", frames, "authenticity", folder_sha256(folder / "encoder"), [stage])
    (one,) = spoofkit.load(folder).localize(calls / "call.flac")
    threshold = float(np.quantile(one.frame_scores, 0.8))
    of_model = load_frame_model(folder).identity
    fitted = {"range_eer_threshold": threshold, "smooth_seconds": 0.1, "range_eer_percent": 10.0}
    fitted |= {"made_with": {"frames": "dev.npz", "frames_made_with": of_model}}
    path = tmp_path / "segments.json"
    path.write_text(json.dumps(fitted))
    command = ["report", folder, calls / "call.flac", "-o"]
    run_cli(*command, tmp_path / "plain.html")
    assert json.loads((tmp_path / "plain.json").read_text())["results"][0]["regions"] is None
    assert "nothing is marked" in (tmp_path / "plain.html").read_text()
    run_cli(*command, tmp_path / "marked.html", "--threshold-from", path)
    (expected,) = spoofkit.load(folder).localize(calls / "call.flac", threshold_from=path)
    found = json.loads((tmp_path / "marked.json").read_text())["results"][0]["regions"]
    assert [(one["start_seconds"], one["end_seconds"]) for one in found] == [
        (one.start_seconds, one.end_seconds) for one in expected.regions
    ]
    assert found
    assert (tmp_path / "marked.html").read_text().count('class="region"') == len(found)
    verify = ["report", folder, calls / "call.flac", "--verify", tmp_path / "marked.json"]
    run_cli(*verify, "--threshold-from", path)
    assert "threshold" in refusal(*verify)


# ---- Verification


def edited(report: dict[str, Any], path: Path, **changes: Any) -> Path:
    """Write a report with another first result, and the checksum that fits it."""
    report = json.loads(json.dumps(report))
    report["results"][0] |= changes
    path.write_text(json.dumps(report | {"sha256": checksum(report)}))
    return path


def test_verify_confirms_a_report_wherever_its_files_lie(
    model: Path, calls: Path, calibration: Path, reports: Path, tmp_path: Path
) -> None:
    for name in ("call.json", "call.html"):
        shutil.copy(reports / name, tmp_path / name)
    moved = shutil.copy(calls / "call.flac", tmp_path / "other name.flac")
    other = shutil.copytree(model, tmp_path / "model")
    run_cli("report", other, moved, "--verify", tmp_path / "call.json", "--calibration", calibration)
    report = json.loads((reports / "call.json").read_text())
    # What another processor may find, and what it may not.
    for shift, is_near in ((5e-4, True), (5e-3, False)):
        score = report["results"][0]["score"] + shift
        llr = report["calibration"]["offset"] + report["calibration"]["scale"] * score
        verdict = weigh(llr, 5, 5)
        other_score = edited(
            report, tmp_path / "other.json", score=score, llr=llr, likelihood_ratio=verdict.ratio,
            favours=verdict.favours, verdict=verdict.words(),
        )  # fmt: skip
        done = run_cli("report", model, moved, "--verify", other_score, "--calibration", calibration, ok=is_near)
        assert ("results[0].score" in done.stderr) == (not is_near)


def test_verify_names_every_input_that_differs(
    model: Path, calls: Path, calibration: Path, reports: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.flac"
    soundfile.write(changed, soundfile.read(calls / "call.flac")[0] * 0.99, SAMPLE_RATE)
    other = Path(shutil.copytree(model, tmp_path / "model"))
    record = json.loads((without_sums(other) / "model.json").read_text())
    (other / "model.json").write_text(json.dumps(record | {"input_policy": "first:8000"}))
    cal = json.loads(calibration.read_text())
    cal["offset"] += 1
    (tmp_path / "cal.json").write_text(json.dumps(cal | {"sha256": checksum(cal)}))
    verify = ["--verify", reports / "call.json", "--calibration"]
    cases = {
        "recording": (model, changed, *verify, calibration),
        "model": (other, calls / "call.flac", *verify, calibration),
        "calibration": (model, calls / "call.flac", *verify, tmp_path / "cal.json"),
    }
    for name, arguments in cases.items():
        said = refusal("report", *arguments)
        assert f"{name} {dict(zip(cases, (changed, other, tmp_path / 'cal.json'), strict=True))[name]}: is not" in said
        assert not any(f"{other_name} /" in said for other_name in cases if other_name != name)
    every = refusal("report", other, changed, *verify, tmp_path / "cal.json")
    assert all(f"{name} /" in every for name in cases)


def test_verify_names_what_was_edited(
    model: Path, calls: Path, calibration: Path, reports: Path, tmp_path: Path
) -> None:
    report = json.loads((reports / "call.json").read_text())
    page = shutil.copy(reports / "call.html", tmp_path / "call.html")
    Path(page).write_text(Path(page).read_text() + " ")
    shutil.copy(reports / "call.json", tmp_path / "call.json")
    plain = tmp_path / "plain.json"
    plain.write_text((reports / "call.json").read_text().replace('"kind"', '"type"', 1))
    verdict = {"llr": 8.0, "favours": "bonafide", "likelihood_ratio": 2981.0, "verdict": "It is genuine."}
    cases = {
        tmp_path / "call.json": ["call.html"],
        plain: ["plain.json: was edited", "kind", "type"],
        edited(report, tmp_path / "a.json", score=9.0): ["results[0].score"],
        edited(report, tmp_path / "b.json", **verdict): [f"results[0].{name}" for name in verdict if name != "favours"],
        edited(report, tmp_path / "c.json", score="9"): ["results[0].score"],
        edited(report, tmp_path / "d.json", windows=None): ["results[0].windows"],
    }
    for path, named in cases.items():
        said = refusal("report", model, calls / "call.flac", "--verify", path, "--calibration", calibration)
        assert all(name in said for name in named), (path.name, said)
        assert "edited" in said or path != plain
    words = Path(page).read_text().replace("support", "evidence", 1)
    Path(page).write_text(words)
    forged = report | {"files_sha256": {"call.html": file_sha256(Path(page))}}
    (tmp_path / "call.json").write_text(json.dumps(forged | {"sha256": checksum(forged)}))
    forgery = ["--verify", tmp_path / "call.json", "--calibration", calibration]
    assert "call.html: does not say what the JSON says" in refusal("report", model, calls / "call.flac", *forgery)
    assert "is not the JSON of a report" in refusal(
        "report", model, calls / "call.flac", "--verify", calibration, "--calibration", calibration
    )


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (sudo apt install chromium)")
def test_in_a_browser_pages_fit_a_phone_ask_for_nothing_and_print(reports: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "profile") as tab:
        tab.call("Emulation.setDeviceMetricsOverride", **PHONE)
        for name in ("summary.html", "parties.html", "summary_2.html"):
            tab.open(reports / name)
            assert tab.run("innerWidth") == PHONE["width"], name
            assert tab.run("document.documentElement.scrollWidth") <= PHONE["width"], name
            asked = [event["request"]["url"][:5] for event in tab.happened("Network.requestWillBeSent")]
            assert set(asked) <= {"file:", "data:"}
            assert not tab.happened("Log.entryAdded")
        # On paper, what is folded on the screen is open.
        tab.call("Emulation.setEmulatedMedia", media="print")
        assert tab.run("document.querySelector('details table').getBoundingClientRect().height") > 0
