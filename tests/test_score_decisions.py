"""`score` writes down what it decides: beside the scores of a manifest, and in a table of recordings.

The expected decisions are worked out here, from costs by Bayes' rule, and from thresholds by hand.
"""

import csv
import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import make_voice, refusal, run_cli, table_rows
from test_score_verb import list_utterances, make_calls, make_model

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.evaluation.calibration import Calibration, write_calibration
from spoofkit.evaluation.scores import read_scores
from spoofkit.files import file_sha256, read_json
from spoofkit.scoring import score_file

N_CALLS = 6
SCALE = 40.0
COSTS = ("--spoof-prior", 0.2, "--miss-cost", 2, "--fa-cost", 5, "--abstain-cost", 0.9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings, a long one, and one without signal."""
    folder = tmp_path_factory.mktemp("calls") / "calls"
    make_calls(folder, N_CALLS)
    soundfile.write(folder / "long.wav", make_voice(9, True, 3.0), SAMPLE_RATE)
    soundfile.write(folder / "silent.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    return folder


@pytest.fixture(scope="module")
def manifest(calls: Path) -> Path:
    rows = [(path.stem, path.name, soundfile.info(path).frames) for path in sorted(calls.glob("*.wav"))]
    return list_utterances(calls / "set.tsv", calls, rows)


@pytest.fixture(scope="module")
def calibration(model: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With offset such that some decisions are of every kind."""
    folder = tmp_path_factory.mktemp("calibration")
    run_cli("score", model, manifest, "-o", folder / "raw.tsv", "--window", 1)
    middle = float(np.median(read_scores(folder / "raw.tsv")["score"].to_numpy()))
    write_calibration(folder / "cal.json", Calibration((SCALE,), -SCALE * middle, 0.5), {})
    return folder / "cal.json"


@pytest.fixture(scope="module")
def decided(model: Path, manifest: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decided") / "eval.tsv"
    run_cli("score", model, manifest, "-o", out, "--window", 1, "--calibration", calibration, *COSTS)
    return out


def by_costs(llr: float) -> str:
    """The cheapest of the three at COSTS."""
    bonafide = 1 / (1 + math.exp(-llr) * 0.2 / 0.8)
    costs = {"accept": 5 * (1 - bonafide), "reject": 2 * bonafide, "abstain": 0.9}
    return min(costs, key=costs.__getitem__)


def test_decisions_on_a_manifest_stand_beside_its_official_scores(decided: Path, calls: Path) -> None:
    assert sorted(path.name for path in decided.parent.iterdir()) == ["eval.decisions.tsv", "eval.json", "eval.tsv"]
    official = dict(line.split("\t") for line in decided.read_text().splitlines())
    assert official.pop("filename") == "cm-score"
    table = table_rows((decided.parent / "eval.decisions.tsv").read_text())
    assert list(table) == list(official) == sorted(path.stem for path in calls.glob("*.wav"))
    for name, row in table.items():
        llr = float(row["llr"])
        assert row["llr"] == official[name]  # to the last digit
        assert float(row["bonafide_probability"]) == pytest.approx(1 / (1 + math.exp(-llr) / 4), rel=1e-5)
        assert float(row["seconds"]) == soundfile.info(calls / f"{name}.wav").duration
        assert row["error"] == ""
        if name != "silent":
            assert row["decision"] == by_costs(llr)
    assert len({row["decision"] for row in table.values()}) == 3
    assert table["silent"]["decision"] == "abstain"
    assert "0.5 s of signal" in table["silent"]["remarks"]
    assert table["long"]["remarks"] == "mean of 3 windows of 1 s"
    assert table["call_00"]["remarks"] == ""
    record = read_json(decided.with_suffix(".json"))
    assert record["decisions_sha256"] == file_sha256(decided.with_suffix(".decisions.tsv"))
    assert record["decision"]["spoof_prior"] == 0.2
    assert read_scores(decided.with_suffix(".decisions.tsv")).equals(read_scores(decided))


def test_decisions_merged_of_parts_are_those_of_one_process(
    model: Path, manifest: Path, calibration: Path, decided: Path, tmp_path: Path
) -> None:
    arguments = ("score", model, manifest, "-o", tmp_path / "eval.tsv", "--window", 1, "--calibration", calibration)
    for number in random.Random(0).sample((1, 2, 3), 3):
        run_cli(*arguments, "--part", f"{number}/3")
    run_cli(*arguments, *COSTS, "--merge")
    for name in ("eval.tsv", "eval.decisions.tsv"):
        assert (tmp_path / name).read_bytes() == (decided.parent / name).read_bytes()
    assert not (tmp_path / "eval.tsv.parts").exists()


def test_other_decisions_on_the_same_scores_are_made_without_scoring_again(
    model: Path, calls: Path, calibration: Path, decided: Path, tmp_path: Path
) -> None:
    rows = [(path.stem, path.name, soundfile.info(path).frames) for path in sorted(calls.glob("*.wav"))]
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in calls.glob("*.wav"):
        (copies / path.name).write_bytes(path.read_bytes())
    listed = list_utterances(tmp_path / "set.tsv", copies, rows)
    for inputs, out, table in (
        ([listed], tmp_path / "eval.tsv", tmp_path / "eval.decisions.tsv"),
        (sorted(calls.glob("call*.wav")), tmp_path / "calls.csv", tmp_path / "calls.csv"),
    ):
        arguments = ("score", model, *inputs, "-o", out, "--window", 1, "--calibration", calibration)
        run_cli(*arguments, "--accept-from", 0)
        first = table.read_bytes()
        assert "accept from" not in run_cli(*arguments, "--accept-from", 0, "--reuse").stdout
        for path in copies.iterdir():
            path.unlink()  # who reads audio now cannot end
        assert "accept from" in run_cli(*arguments, *COSTS, "--reuse").stdout
        assert table.read_bytes() != first
        if out.suffix == ".tsv":
            assert table.read_bytes() == decided.with_suffix(".decisions.tsv").read_bytes()
        run_cli(*arguments, "--accept-from", 0, "--reuse")
        assert table.read_bytes() == first
        assert read_json(out.with_suffix(".json"))["decision"]["accept_from"] == 0


@pytest.mark.parametrize("killed_at", ["write_text", "finish_deciding"], ids=["before the table", "after the table"])
@pytest.mark.parametrize("is_listed", [True, False], ids=["manifest", "recordings"])
def test_new_decisions_survive_a_kill_between_table_and_record(
    killed_at: str, is_listed: bool, model: Path, calls: Path, manifest: Path, calibration: Path, tmp_path: Path
) -> None:
    inputs = [manifest] if is_listed else sorted(calls.glob("call*.wav"))
    arguments = ("score", model, *inputs, "-o", tmp_path / "a.tsv", "--window", 1, "--calibration", calibration)
    run_cli(*arguments, "--accept-from", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_file, killed_at, lambda *_, **__: sys.exit(9))
        assert run_cli(*arguments, *COSTS, "--reuse", ok=False).returncode == 9
    assert len([*tmp_path.glob("a.json*")]) == 2
    run_cli(*arguments, *COSTS, "--reuse")
    run_cli("score", model, *inputs, "-o", tmp_path / "b.tsv", *arguments[-4:], *COSTS)
    assert {path.name for path in tmp_path.glob("a.*")} == {f"a{path.name[1:]}" for path in tmp_path.glob("b.*")}
    for path in tmp_path.glob("b*.tsv"):
        assert (tmp_path / f"a{path.name[1:]}").read_bytes() == path.read_bytes()
    assert read_json(tmp_path / "a.json")["decision"] == read_json(tmp_path / "b.json")["decision"]


def test_decisions_that_are_missing_or_changed_are_noticed(
    model: Path, manifest: Path, calibration: Path, decided: Path, tmp_path: Path
) -> None:
    for path in decided.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table = tmp_path / "eval.decisions.tsv"
    arguments = ("score", model, manifest, "-o", tmp_path / "eval.tsv", "--window", 1, "--calibration", calibration)
    table.write_text(table.read_text().replace("accept", "reject", 1))
    for options in (COSTS, ("--accept-from", 0)):
        assert str(table) in refusal(*arguments, *options, "--reuse")
    table.unlink()
    assert str(table) in refusal(*arguments, *COSTS, "--reuse")
    run_cli(*arguments, *COSTS, "--overwrite")
    assert table.read_bytes() == decided.with_suffix(".decisions.tsv").read_bytes()
    # And a stranger's table is not replaced without leave.
    (tmp_path / "other.decisions.tsv").write_text("mine")
    sentence = refusal(*arguments[:4], tmp_path / "other.tsv", "--window", 1, "--calibration", calibration)
    assert "other.decisions.tsv: exists already" in sentence


def test_scores_as_they_are_can_be_decided_on_and_have_no_probability(
    model: Path, manifest: Path, tmp_path: Path
) -> None:
    plain, out = tmp_path / "plain.tsv", tmp_path / "out.tsv"
    run_cli("score", model, manifest, "-o", plain)
    assert not (tmp_path / "plain.decisions.tsv").exists()
    texts = dict(line.split("\t") for line in plain.read_text().splitlines()[1:])
    texts.pop("silent")
    low, high = sorted(texts.values(), key=float)[2:4]
    run_cli("score", model, manifest, "-o", out, "--accept-from", high, "--reject-below", low)
    assert out.read_bytes() == plain.read_bytes()
    table = table_rows((tmp_path / "out.decisions.tsv").read_text())
    assert list(next(iter(table.values()))) == ["filename", "cm-score", "decision", "seconds", "remarks", "error"]
    for name, text in texts.items():
        expected = "accept" if float(text) >= float(high) else "reject" if float(text) < float(low) else "abstain"
        assert table[name]["decision"] == expected  # those at a threshold too, by their printed digits
    assert read_json(out.with_suffix(".json"))["decision"] == {"accept_from": float(high), "reject_below": float(low)}
    assert "--fa-cost" in refusal("score", model, manifest, "-o", tmp_path / "no.tsv", "--fa-cost", 3)


def test_a_table_of_recordings_holds_what_stdout_says_in_the_order_given(
    model: Path, calls: Path, calibration: Path, tmp_path: Path
) -> None:
    odd = tmp_path / 'he said "no", twice.wav'
    odd.write_bytes((calls / "call_01.wav").read_bytes())
    files = [calls / "long.wav", odd, tmp_path / "gone.wav", calls / "silent.wav", calls / "call_00.wav"]
    arguments = ("score", model, *files, "--calibration", calibration, "--window", 1)
    printed = run_cli(*arguments, ok=False).stdout
    for suffix in (".tsv", ".csv"):
        refusal(*arguments, "-o", tmp_path / f"out{suffix}")
        (tmp_path / "out.json").unlink()
    assert (tmp_path / "out.tsv").read_text() == printed
    with open(tmp_path / "out.csv", newline="") as lines:
        written = list(csv.DictReader(lines))
    assert written == list(table_rows(printed).values())
    assert [row["filename"] for row in written] == list(map(str, files))
    for row in written:
        has_score = row["filename"] not in (str(files[2]), str(files[3]))
        assert (row["error"] == "") == has_score
        for name in ("cm-score", "llr", "bonafide_probability", "seconds"):
            assert (row[name] != "") == has_score  # a number, or nothing
        assert has_score or row["decision"] == "abstain"
    told = [json.loads(line) for line in run_cli(*arguments, "--json-lines", ok=False).stdout.splitlines()]
    assert [line.get("llr") for line in told] == [float(row["llr"]) if row["llr"] else None for row in written]
    assert [line.get("error", "") for line in told] == [row["error"] for row in written]
    both = read_scores(tmp_path / "out.csv")
    assert both.equals(read_scores(tmp_path / "out.tsv"))
    assert dict(both.iter_rows()) == {row["filename"]: float(row["llr"]) for row in written if row["llr"]}
    # Its record is not replaced by that of another table.
    run_cli("score", model, calls / "call_00.wav", "-o", tmp_path / "other.tsv")
    assert "is the record of other.tsv" in refusal("score", model, calls / "call_00.wav", "-o", tmp_path / "other.csv")
    assert "expected .tsv" in refusal("score", model, calls / "set.tsv", "-o", tmp_path / "set.csv")


def test_score_decides_by_costs_as_threshold_says(model: Path, calls: Path, calibration: Path) -> None:
    found = json.loads(run_cli("threshold", *COSTS, "--json").stdout)
    options = [str(calibration) if word == "CAL.json" else word for word in found["score_options"]]
    rows = table_rows(run_cli("score", model, *calls.glob("call*.wav"), *options).stdout).values()
    for row in rows:
        llr, cuts = float(row["llr"]), (found["reject_below"], found["accept_from"])
        assert row["decision"] == ["reject", "abstain", "accept"][np.searchsorted(cuts, llr, side="right")]
        assert float(row["bonafide_probability"]) == pytest.approx(1 / (1 + math.exp(-llr) / 4), rel=1e-5)


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_score_applies_what_threshold_prints(
    is_calibrated: bool, model: Path, calls: Path, calibration: Path, tmp_path: Path
) -> None:
    files = [calls / f"call_{index:02d}.wav" for index in range(N_CALLS)]
    options = ("--calibration", calibration) if is_calibrated else ()
    run_cli("score", model, *files, "-o", tmp_path / "mine.tsv", *options)
    command = ("threshold", tmp_path / "mine.tsv", "--reject-genuine", 0.34)
    found = json.loads(run_cli(*command, "--json").stdout)
    assert found["rejects"] == pytest.approx(2 / 6)
    assert ("--calibration" in found["score_options"]) == is_calibrated
    shown = run_cli(*command).stdout.splitlines()[-1]
    assert shown.endswith(" ".join(found["score_options"]))
    table = table_rows(run_cli("score", model, *files, *found["score_options"]).stdout)
    score = {name: float(row["llr" if is_calibrated else "cm-score"]) for name, row in table.items()}
    rejected = {name for name, row in table.items() if row["decision"] == "reject"}
    assert rejected == set(sorted(score, key=score.__getitem__)[:2])
    # From a copy without a record the column says which scores these are.
    (tmp_path / "copy.tsv").write_bytes((tmp_path / "mine.tsv").read_bytes())
    copied = json.loads(run_cli("threshold", tmp_path / "copy.tsv", "--reject-genuine", 0.34, "--json").stdout)
    assert copied["accept_from"] == found["accept_from"]
    assert ("--calibration" in copied["score_options"]) == is_calibrated
