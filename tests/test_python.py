"""From Python: the calls give what the command line gives, digit for digit, and every documented example runs."""

import contextlib
import dataclasses
import io
import itertools
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import make_voice, run_cli
from released import make_asvspoof2021_la

import spoofkit
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import read_manifest
from spoofkit.evaluation.calibration import Calibration, write_calibration
from spoofkit.evaluation.scores import read_trials, write_scores

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/*.ipynb"))]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of several rates, one of two parties, a long one, silence, and a file that is no audio."""
    folder = tmp_path_factory.mktemp("python") / "calls"
    folder.mkdir()
    for seed, rate in enumerate((16_000, 8_000, 44_100)):
        soundfile.write(folder / f"{rate}.wav", make_voice(seed, seed == 0, 1.2, rate), rate)
    parties = np.stack([make_voice(3, True, 1.1), make_voice(4, False, 1.1)], axis=1)
    soundfile.write(folder / "parties.flac", parties, SAMPLE_RATE)
    soundfile.write(folder / "long.wav", make_voice(5, False, 2.7), SAMPLE_RATE)
    soundfile.write(folder / "silent.wav", np.zeros(16_000), SAMPLE_RATE)
    (folder / "torn.wav").write_text("no sound")
    return folder


@pytest.fixture(scope="module")
def calibration(calls: Path) -> Path:
    path = calls.parent / "calibration.json"
    write_calibration(path, Calibration((40.0,), -12.0, 0.5), {})
    return path


def printed(*arguments: object) -> list[dict[str, Any]]:
    """What `score --json-lines` prints."""
    with contextlib.redirect_stderr(io.StringIO()):
        done = run_cli("score", *arguments, "--json-lines", ok=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def known(one: spoofkit.ScoredRecording) -> dict[str, Any]:
    """A record as a line of JSON has it: without what is not there."""
    values = {name: value for name, value in dataclasses.asdict(one).items() if value not in (None, (), "", 0.0)}
    windows = [
        {name: value for name, value in window.items() if value is not None} for window in values.pop("windows", ())
    ]
    values.pop("remarks", None)
    return values | {"channel": one.channel} | ({"windows": windows} if windows else {})


# ---- Scores


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, []),
        ({"channels": "mean", "crop": "first:9000"}, ["--channels", "mean", "--crop", "first:9000"]),
        (
            {"window": 1.0, "hop": 0.5, "over_windows": "min", "spoof_prior": 0.5, "abstain_cost": 0.1},
            ["--window", 1, "--hop", 0.5, "--over-windows", "min", "--spoof-prior", 0.5, "--abstain-cost", 0.1],
        ),
    ],
)
def test_files_have_the_records_that_the_program_prints(
    options: dict[str, Any], arguments: list[object], model: Path, calls: Path, calibration: Path
) -> None:
    if "spoof_prior" in options:
        options, arguments = options | {"calibration": calibration}, [*arguments, "--calibration", calibration]
    detector = spoofkit.load(str(model), **options)
    lines = printed(model, calls, calls / "missing.wav", *arguments)
    found = [known(one) for one in detector.score_files([calls, calls / "missing.wav", str(calls / "long.wav")])]
    assert found == lines
    assert {"error", "score"} <= {name for line in lines for name in line}
    assert {line["channel"] for line in lines} == ({None} if options.get("channels") == "mean" else {None, 1, 2})
    assert [known(one) for one in detector.score(calls / "parties.flac")] == [
        line for line in lines if line["file"].endswith("parties.flac")
    ]


@pytest.mark.parametrize(("rate", "n_channels"), [(8_000, 2), (16_000, 1), (16_000, 3), (22_050, 1), (44_100, 2)])
def test_samples_in_memory_have_the_scores_of_their_file(
    rate: int, n_channels: int, model: Path, tmp_path: Path
) -> None:
    wave_CS = np.stack([make_voice(seed, seed == 1, 1.1, rate) for seed in range(n_channels)])
    pcm_CS = np.round(wave_CS * 32_767).astype(np.int16)
    detector = spoofkit.load(model)
    forms: dict[str, list[Any]] = {
        "PCM_16": [pcm_CS, np.asfortranarray(pcm_CS), (pcm_CS / 32_768).astype(np.float64), torch.tensor(pcm_CS)],
        "PCM_32": [pcm_CS.astype(np.int32) << 16],
        "FLOAT": [wave_CS, torch.from_numpy(wave_CS).requires_grad_()],
    }
    for subtype, samples in forms.items():
        soundfile.write(tmp_path / "a.wav", wave_CS.T if subtype == "FLOAT" else pcm_CS.T, rate, subtype)
        expected = [dataclasses.replace(one, file="wave") for one in detector.score(tmp_path / "a.wav")]
        assert len(expected) == n_channels
        for one in samples:
            assert detector.score(one, rate) == expected
            assert n_channels > 1 or detector.score(one[0], rate) == expected


def test_a_long_wave_is_cut_and_a_silent_one_has_its_reason(model: Path, calls: Path) -> None:
    detector = spoofkit.load(model, window=1.0)
    long_S, rate = soundfile.read(calls / "long.wav", dtype="float32")
    (one,) = detector.score(long_S, rate)
    assert len(one.windows) == 3
    assert one.remarks == ("mean of 3 windows of 1 s",)
    for wave_S in (np.zeros(16_000, np.float32), np.full(16_000, np.nan), np.zeros((1, 0)), long_S[:300]):
        (one,) = detector.score(wave_S, 16_000)
        assert one.score is None
        assert one.error.startswith("wave: ")


@pytest.mark.parametrize(
    ("samples", "rate", "fact"),
    [
        (np.zeros((16_000, 2)), 16_000, "transpose"),
        (np.zeros((1, 2, 16_000)), 16_000, "(1, 2, 16000)"),
        (np.float32(1), 16_000, "()"),
        (np.zeros(16_000, np.uint8), 16_000, "uint8"),
        (np.zeros(16_000, complex), 16_000, "complex128"),
        (1_000 * np.ones(16_000, np.float32), 16_000, "1,000"),
        (np.zeros(16_000), 16_000.5, "16000.5"),
        (np.zeros(16_000), 16, "16"),
        (np.zeros(16_000), "16k", "16k"),
        (torch.zeros(16_000, dtype=torch.bfloat16), 16_000, "BFloat16"),
        ([[0.0, 0.1], [0.2]], 16_000, "no array"),
        (np.zeros(16_000), None, "sample_rate"),
        ("call.wav", 16_000, "sample_rate=16000"),
    ],
)
def test_samples_that_mean_something_else_are_refused(samples: Any, rate: Any, fact: str, model: Path) -> None:
    with pytest.raises(spoofkit.SpoofkitError, match=re.escape(fact)):
        spoofkit.load(model).score(samples, rate)


def test_an_iterator_is_scored_while_it_runs_and_a_list_is_checked_first(model: Path, calls: Path) -> None:
    detector = spoofkit.load(model)
    scored = detector.score_files(calls / f"{name}.wav" for name in itertools.chain(["long"], itertools.count()))
    first = next(scored)
    assert (first.score, first.error) == (detector.score(calls / "long.wav")[0].score, "")
    assert next(scored).error
    scored.close()  # type: ignore[attr-defined]
    (calls.parent / "empty").mkdir(exist_ok=True)
    for wrong in (calls.parent / "empty", "nothing/*.wav"):
        with pytest.raises(spoofkit.SpoofkitError, match=re.escape(str(wrong))):
            detector.score_files([calls / "long.wav", wrong])
    assert list(detector.score_files([])) == []
    (one,) = detector.score_files("-")  # a file of that name, not stdin
    assert one.error


def test_an_exported_model_scores_as_the_program_does(model: Path, calls: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    run_cli("export", model, "-o", path)
    detector = spoofkit.load(path)
    assert [known(one) for one in detector.score_files(calls)] == printed(path, calls)
    with pytest.raises(spoofkit.SpoofkitError, match="no frame head"):
        detector.localize(calls / "long.wav")


def test_what_is_no_model_and_options_that_make_no_sense_are_refused(model: Path, tmp_path: Path) -> None:
    for options in (
        {"device": "tpu"}, {"precision": "auto"}, {"channels": "left"}, {"crop": "last:3"}, {"window": -1.0},
        {"hop": 40.0}, {"spoof_prior": 0.5}, {"over_windows": "max"}, {"calibration": tmp_path / "none.json"},
        {"reject_below": 0.0},
    ):  # fmt: skip
        with pytest.raises(spoofkit.SpoofkitError):
            spoofkit.load(model, **options)
    for name, value in (
        ("channels", 2), ("window", "30"), ("window", None), ("device", 0), ("crop", 5), ("min_speech", "1"),
        ("precision", None), ("workers", -1), ("workers", 1.5), ("spoof_prior", "x"),
    ):  # fmt: skip
        with pytest.raises(spoofkit.SpoofkitError, match=rf"^{name}={value!r}: "):
            spoofkit.load(model, **{name: value})
    with pytest.raises(spoofkit.SpoofkitError, match=r"accept from nan, .* finite"):
        spoofkit.load(model, accept_from=math.nan)
    with pytest.raises(spoofkit.SpoofkitError, match="no such folder"):
        spoofkit.load(tmp_path / "none")


# ---- Regions


def test_regions_and_frames_are_those_that_localize_writes(
    both_heads: Path, calls: Path, calibration: Path, tmp_path: Path
) -> None:
    rule = ["--threshold", 0.02, "--smooth", 0.1, "--min-region", 0.05]
    paths = [calls / name for name in ("44100.wav", "parties.flac", "torn.wav")]
    run_cli("localize", both_heads, *paths, "-o", tmp_path, *rule, "--calibration", calibration, ok=False)
    detector = spoofkit.load(both_heads, calibration=calibration)
    n_regions = 0
    for path in paths:
        for one in detector.localize(path, threshold=0.02, smooth=0.1, min_region=0.05):
            written = tmp_path / (path.stem + (f".ch{one.channel}" if one.channel else "") + ".json")
            assert bool(one.error) != written.exists()
            if one.error:
                continue
            record = json.loads(written.read_text())
            assert [region.start_seconds for region in one.regions] == [
                region["start_seconds"] for region in record["regions"]
            ]
            assert np.round(one.frame_scores.astype(float), 4).tolist() == record["frames"]["score"]
            assert np.round(one.smoothed_scores.astype(float), 4).tolist() == record["frames"]["smoothed_score"]
            assert one.frame_seconds[0] == record["frames"]["first_centre_seconds"]
            assert (one.label, one.seconds, one.channel) == (record["label"], record["seconds"], record["channel"])
            assert one.scored is not None
            assert one.scored.score == record["utterance"]["score"]
            assert one.scored.llr == record["utterance"]["llr"]
            n_regions += len(one.regions)
    assert n_regions
    samples, rate = soundfile.read(calls / "44100.wav", dtype="int16")
    of_file, of_wave = (detector.localize(*source)[0] for source in ((calls / "44100.wav",), (samples, rate)))
    assert np.array_equal(of_file.frame_scores, of_wave.frame_scores)
    assert of_file.regions == of_wave.regions
    assert dataclasses.replace(detector.score(samples, rate)[0]) == of_wave.scored


def test_a_model_with_one_head_does_what_that_head_does(
    model: Path, both_heads: Path, calls: Path, tmp_path: Path
) -> None:
    with pytest.raises(spoofkit.SpoofkitError, match="no frame head"):
        spoofkit.load(model).localize(calls / "long.wav")
    for name in ("encoder", "frame_head"):
        shutil.copytree(both_heads / name, tmp_path / "posttrain" / name)
    frames = spoofkit.load(tmp_path / "posttrain")
    (one,), (both,) = (detector.localize(calls / "long.wav") for detector in (frames, spoofkit.load(both_heads)))
    assert np.array_equal(one.frame_scores, both.frame_scores)
    assert one.scored is None
    with pytest.raises(spoofkit.SpoofkitError, match="only a frame head"):
        frames.score(calls / "long.wav")
    with pytest.raises(spoofkit.SpoofkitError, match="only a frame head"):
        spoofkit.load(tmp_path / "posttrain", accept_from=0.0)


# ---- Figures and manifests


def test_figures_of_files_and_of_arrays_are_those_of_the_verb(manifests: Path, tmp_path: Path) -> None:
    keys, scores = manifests / "eval.tsv", tmp_path / "scores.tsv"
    manifest = read_manifest(keys)
    ids = manifest.table["utt_id"].to_list()
    write_scores(scores, ids, np.random.default_rng(0).normal(size=len(ids)))
    costs = {"spoof_prior": 0.5, "miss_cost": 2.0}
    options = ["--by", "gender", "--replicates", 200, "--spoof-prior", 0.5, "--miss-cost", 2]
    expected = json.loads(run_cli("evaluate", scores, keys, *options, "--json").stdout)
    found = spoofkit.evaluate(scores, str(keys), by=["gender"], replicates=200, **costs)
    assert json.loads(json.dumps(found)) == expected
    trials = read_trials(scores, manifest)
    columns = {name: trials[name].to_list() for name in ("speaker", "attack", "codec", "gender")}
    found = spoofkit.evaluate(
        trials["score"].to_numpy(), trials["key"].to_list(), columns=columns, by=["gender"], replicates=200, **costs
    )
    assert found
    assert found.items() <= expected.items()
    assert spoofkit.evaluate([1, 2, 0], np.array(["bonafide", "spoof", "spoof"]))["intervals"] is None


@pytest.mark.parametrize(
    ("scores", "keys", "options", "fact"),
    [
        ([1.0, 0.0], ["bonafide"], {}, "1 values of key"),
        ([1.0, np.nan], ["bonafide", "spoof"], {}, "finite"),
        ([1.0, None], ["bonafide", "spoof"], {}, "object"),
        ([1.0, 0.0], [True, False], {}, "np.where"),
        ([1.0, 0.0], ["bonafide", "fake"], {}, "fake"),
        ([1.0, 0.0], ["bonafide", "bonafide"], {}, "spoof"),
        ([1.0, 0.0], ["bonafide", "spoof"], {"columns": {"score": ["a", "b"]}}, "score"),
        ([1.0, 0.0], ["bonafide", "spoof"], {"by": ["gender"]}, "gender"),
        ([1.0, 0.0], ["bonafide", "spoof"], {"replicates": 5}, "5"),
        ("scores.tsv", ["bonafide", "spoof"], {}, "array"),
        ("scores.tsv", "eval.tsv", {"columns": {}}, "columns"),
    ],
)
def test_scores_and_keys_that_do_not_fit_are_refused(scores: Any, keys: Any, options: Any, fact: str) -> None:
    with pytest.raises(spoofkit.SpoofkitError, match=re.escape(fact)):
        spoofkit.evaluate(scores, keys, **options)


def test_a_corpus_is_prepared_as_by_the_verb(corpus: Path, tmp_path: Path) -> None:
    run_cli("prepare", "asvspoof5", corpus, "-o", tmp_path / "verb", "--partial", "--sets", "dev")
    (prepared,) = spoofkit.prepare("asvspoof5", str(corpus), str(tmp_path / "call"), partial=True, sets=("dev",))
    assert prepared.path.read_bytes() == (tmp_path / "verb/dev.tsv").read_bytes()


# ---- Documented examples


@pytest.fixture(scope="module")
def experiment(
    model: Path, both_heads: Path, manifests: Path, calls: Path, calibration: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """A folder in which the examples run: models, recordings, a set and its scores."""
    folder = tmp_path_factory.mktemp("examples")
    places = {
        "exp/x/finetune/model": model,
        "exp/x/timeline/model": both_heads,
        "exp/x/calibration.json": calibration,
        "egs/mini/exp/mixframe_seed0/finetune/model": model,
        "egs/mini/corpus/flac_E_eval": calls,
        "data": manifests,
        "calls": calls,
        "call.wav": calls / "long.wav",
    }
    for place, target in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(target)
    make_asvspoof2021_la(folder / "ASVspoof2021")
    run_cli("score", model, manifests / "eval.tsv", "-o", folder / "exp/x/scores/eval.tsv")
    return folder


def cells_of(page: Path) -> list[str]:
    """The code of a page: its fenced blocks of Python, or the code cells of a notebook."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)


@pytest.mark.parametrize("page", [page for page in PAGES if cells_of(page)], ids=lambda page: page.name)
def test_examples_run_in_their_order(
    page: Path, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in experiment.iterdir():  # what an example writes stays out of it
        (tmp_path / place.name).symlink_to(place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells_of(page):
        exec(compile(cell, f"{page.name}: {cell[:40]!r}", "exec"), names)
    assert capsys.readouterr().out


def test_the_page_of_python_and_its_notebook_have_examples_and_the_notebook_holds_no_output() -> None:
    assert all(cells_of(ROOT / name) for name in ("README.md", "docs/python.md", "docs/detector.ipynb"))
    notebook = json.loads((ROOT / "docs/detector.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        assert cell["id"]
        assert cell["cell_type"] in ("markdown", "code")
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)
