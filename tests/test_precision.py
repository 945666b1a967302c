"""Scores in bf16: what stays fp32, what is measured and chosen, and that precisions are never mixed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import make_voice, refusal, run_cli
from safetensors.torch import load_file, save_file

from spoofkit.checksums import write_sums
from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.evaluation.calibration import Calibration, write_calibration
from spoofkit.models.detector import detector_sha256, load_detector
from spoofkit.models.precision import faster_precisions, with_bf16_products
from spoofkit.scoring import with_torch
from spoofkit.scoring.decisions import DecisionOptions, read_decisions
from spoofkit.scoring.precision import BOUND, compare
from spoofkit.scoring.scorer import pad
from spoofkit.scoring.with_torch import scorer_of

CPU = torch.device("cpu")
BATCH_BOUND = {"fp32": 1e-5, "bf16": 2e-2}
"""By how many standard deviations of the scores a score may depend on what else is in its batch."""


def record_of(scores: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(scores.with_suffix(".json").read_text())
    return record


@pytest.fixture(scope="module")
def scored(model: Path, manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with fp32.tsv and bf16.tsv of the same set; read only."""
    folder = tmp_path_factory.mktemp("scored")
    for precision in ("fp32", "bf16"):
        out = folder / f"{precision}.tsv"
        run_cli("score", model, manifests / "train.tsv", "-o", out, "--precision", precision)
    return folder


@pytest.fixture
def fast_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device counts as one that multiplies faster in bf16, whatever this CPU is."""
    monkeypatch.setattr(with_torch, "faster_precisions", lambda _: ("bf16",))


@pytest.mark.parametrize("precision", BATCH_BOUND)
def test_a_score_depends_on_its_batch_by_less_than_the_bound_of_its_precision(precision: str, model: Path) -> None:
    scorer = scorer_of(load_detector(model)[0], CPU)
    assert scorer.in_precision is not None  # for mypy: an exported model has none
    score_padded = scorer.in_precision(precision)
    waves = [make_voice(seed, seed % 2 == 0, 0.3 + seed / 10) for seed in range(12)]
    alone = np.array([score_padded(*pad([wave])).utterance_B for wave in waves])[:, 0]
    together = score_padded(*pad(waves)).utterance_B
    assert together is not None  # for mypy: a model without an utterance head gives none
    assert together.shape == (len(waves),)
    assert np.abs(together - alone).max() / alone.std() < BATCH_BOUND[precision]


def test_only_products_of_the_encoder_are_rounded_and_the_model_itself_is_not(model: Path) -> None:
    detector = load_detector(model)[0]
    waves = torch.from_numpy(pad([make_voice(1, True)])[0]), torch.tensor([16_000])
    with torch.inference_mode():
        before = detector(*waves)
        fast = with_bf16_products(detector, detector.encoder)
        score = fast(*waves)
        assert torch.equal(detector(*waves), before)
    assert score.dtype == torch.float32
    assert 0 < abs(float(score - before)) < 0.05 * abs(float(before)) + 0.05
    own, rounded = dict(detector.named_parameters()), dict(fast.named_parameters())
    kinds = {name: parameter.dtype for name, parameter in rounded.items()}
    assert {name for name, kind in kinds.items() if kind != torch.float32} == {
        f"encoder.{name}.{kind}"
        for name, module in detector.encoder.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d) and "pos_conv" not in name
        for kind, _ in module.named_parameters(recurse=False)
    }
    # What is not rounded is the same memory, not a copy.
    assert all(rounded[name] is own[name] for name, kind in kinds.items() if kind == torch.float32)


def test_precision_is_recorded_and_measured(scored: Path) -> None:
    exact, rounded = record_of(scored / "fp32.tsv"), record_of(scored / "bf16.tsv")
    assert (exact["precision"], rounded["precision"]) == ("fp32", "bf16")
    assert not {"precision_measured", "n_tied"} & exact.keys()
    (measured,) = rounded["precision_measured"]
    values = [np.loadtxt(scored / f"{name}.tsv", skiprows=1, usecols=1) for name in ("fp32", "bf16")]
    difference = values[1] - values[0]
    assert measured["recordings"] == len(difference) == 16
    assert measured["shift"] == pytest.approx(np.sqrt(np.mean(difference**2)) / values[0].std(), rel=0.01)
    assert measured["largest_shift"] == pytest.approx(np.abs(difference).max() / values[0].std(), rel=0.01)
    assert rounded["n_tied"] == 0


def test_what_a_precision_changes_is_counted_in_standard_deviations_and_decisions() -> None:
    exact = {"a": np.array([-1.0]), "b": np.array([1.0]), "c": np.array([9.0])}
    found = {"a": np.array([-1.0]), "b": np.array([1.2])}
    decisions = read_decisions(None, DecisionOptions(accept_from=1.1))
    known = {"recordings": 2, "shift": 0.141, "largest_shift": 0.2}
    assert compare(exact, found, decisions) == known | {"decisions_changed": 1}
    assert compare({"a": exact["a"]}, found, None)["shift"] is None  # one score has no spread


def test_scores_of_another_precision_are_neither_kept_nor_joined(
    scored: Path, model: Path, manifests: Path, tmp_path: Path
) -> None:
    common = ("score", model, manifests / "train.tsv", "-o")
    assert "precision" in refusal(*common, scored / "bf16.tsv", "--reuse")
    assert "precision" in refusal(*common, scored / "fp32.tsv", "--reuse", "--precision", "bf16")
    assert "up to date" in run_cli(*common, scored / "bf16.tsv", "--reuse", "--precision", "bf16").stdout
    out = tmp_path / "train.tsv"
    run_cli(*common, out, "--part", "1/2", "--precision", "bf16")
    assert "precision" in refusal(*common, out, "--part", "2/2")
    assert "precision" in refusal(*common, out, "--part", "1/2")  # to resume
    run_cli(*common, out, "--part", "2/2", "--precision", "bf16")
    assert "precision" in refusal(*common, out, "--merge")
    run_cli(*common, out, "--merge", "--precision", "bf16")
    assert out.read_bytes() == (scored / "bf16.tsv").read_bytes()
    assert record_of(out)["precision"] == "bf16"


def test_a_record_that_does_not_say_its_precision_is_of_fp32(
    scored: Path, model: Path, manifests: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copy(scored / "fp32.tsv", tmp_path))
    record = record_of(scored / "fp32.tsv")
    del record["precision"]
    out.with_suffix(".json").write_text(json.dumps(record))
    common = ("score", model, manifests / "train.tsv", "-o", out, "--reuse")
    assert "up to date" in run_cli(*common).stdout
    assert "precision" in refusal(*common, "--precision", "bf16")


def test_what_a_cpu_does_not_have_is_refused(model: Path, manifests: Path, tmp_path: Path) -> None:
    common = ("score", model, manifests / "train.tsv", "-o", tmp_path / "x.tsv", "--precision")
    assert "GPU" in refusal(*common, "tf32")
    assert "fp32, tf32, bf16, auto" in refusal(*common, "fp16")
    assert not list(tmp_path.iterdir())


def test_bf16_without_its_unit_is_slow_and_auto_does_not_take_it(
    model: Path, manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoofkit.models.precision._cpu_flags", lambda: frozenset({"avx2"}))
    common = ("score", model, manifests / "dev.tsv", "-o")
    assert "slow" in run_cli(*common, tmp_path / "a.tsv", "--precision", "bf16").stderr
    run_cli(*common, tmp_path / "b.tsv", "--precision", "auto")
    assert record_of(tmp_path / "b.tsv")["precision"] == "fp32"
    # What was begun in bf16 elsewhere is not resumed here.
    assert "slow" in refusal(*common, tmp_path / "a.tsv", "--precision", "auto", "--reuse")


@pytest.mark.skipif("bf16" not in faster_precisions(CPU), reason="this CPU has neither amx_bf16 nor avx512_bf16")
def test_auto_takes_bf16_where_the_cpu_has_it_and_the_shift_is_small(
    scored: Path, model: Path, manifests: Path, tmp_path: Path
) -> None:
    out = tmp_path / "train.tsv"
    run_cli("score", model, manifests / "train.tsv", "-o", out, "--precision", "auto")
    assert record_of(out)["precision_measured"][0]["shift"] <= BOUND
    assert out.read_bytes() == (scored / "bf16.tsv").read_bytes()


@pytest.mark.usefixtures("fast_in_bf16")
def test_auto_keeps_fp32_where_bf16_shifts_scores(model: Path, manifests: Path, tmp_path: Path) -> None:
    # Products near 1000 are rounded to multiples of 4 in bf16; the norm behind them removes the 1000.
    rough = Path(shutil.copytree(model, tmp_path / "model"))
    weights = rough / "encoder" / "model.safetensors"
    tensors = load_file(weights)
    (last,) = sorted(name for name in tensors if name.endswith("feed_forward.output_dense.bias"))[-1:]
    save_file(tensors | {last: tensors[last] + 1000}, weights, metadata={"format": "pt"})
    write_sums(rough / "encoder")
    write_sums(rough)
    common = ("score", rough, manifests / "train.tsv", "-o")
    run_cli(*common, tmp_path / "auto.tsv", "--precision", "auto")
    record = record_of(tmp_path / "auto.tsv")
    assert record["precision"] == "fp32"
    assert record["precision_measured"][0]["shift"] > BOUND
    run_cli(*common, tmp_path / "fp32.tsv")
    assert (tmp_path / "auto.tsv").read_bytes() == (tmp_path / "fp32.tsv").read_bytes()


@pytest.mark.usefixtures("fast_in_bf16")
def test_auto_follows_the_part_that_was_first(scored: Path, model: Path, manifests: Path, tmp_path: Path) -> None:
    common = ("score", model, manifests / "train.tsv", "-o", tmp_path / "train.tsv")
    run_cli(*common, "--part", "1/2")
    done = run_cli(*common, "--part", "2/2", "--precision", "auto")
    assert "fp32" in done.stderr
    run_cli(*common, "--merge", "--precision", "auto")
    assert (tmp_path / "train.tsv").read_bytes() == (scored / "fp32.tsv").read_bytes()


def test_a_calibration_of_another_precision_is_remarked(
    scored: Path, model: Path, manifests: Path, tmp_path: Path
) -> None:
    known = {"model_sha256": detector_sha256(model), "precision": "bf16"}
    calibration = tmp_path / "c.json"
    write_calibration(calibration, Calibration((1.0,), 0.0, 0.5), {"fitted_on": {"made_by": [known]}})
    common = ("score", model, manifests / "train.tsv", "--calibration", calibration, "-o")
    assert "bf16" in run_cli(*common, tmp_path / "fp32.tsv").stderr
    assert record_of(tmp_path / "fp32.tsv")["calibration_fitted_in"] == "bf16"
    assert "was fitted" not in run_cli(*common, tmp_path / "bf16.tsv", "--precision", "bf16").stderr
    record = record_of(tmp_path / "bf16.tsv")
    assert "calibration_fitted_in" not in record
    assert record["precision_measured"][0]["decisions_changed"] >= 0
    assert "was fitted" in run_cli("apply", calibration, scored / "fp32.tsv", "-o", tmp_path / "llr.tsv").stderr
    # A random model scores the classes the wrong way round; a few keys stay, so that they overlap.
    listed = read_manifest(manifests / "train.tsv")
    is_kept = pl.int_range(pl.len()) % 5 == 0
    is_spoof = (pl.col("key") == "spoof") == is_kept
    key = pl.when(is_spoof).then(pl.lit("spoof")).otherwise(pl.lit("bonafide")).alias("key")
    write_manifest(tmp_path / "train.tsv", listed.root, listed.table.with_columns(key, pl.lit("-").alias("attack")))
    run_cli("calibrate", scored / "bf16.tsv", tmp_path / "train.tsv", "-o", tmp_path / "fit.json")
    assert json.loads((tmp_path / "fit.json").read_text())["fitted_on"]["made_by"] == [known]


def test_recordings_without_a_list_are_scored_in_bf16_but_not_in_auto(model: Path, corpus: Path) -> None:
    call = sorted((corpus / "flac_D").iterdir())[0]
    exact, rounded = (
        json.loads(run_cli("score", model, call, "--json-lines", "--precision", precision).stdout)["score"]
        for precision in ("fp32", "bf16")
    )
    assert exact != rounded == pytest.approx(exact, abs=0.05)
    assert "auto" in refusal("score", model, call, "--precision", "auto")


def test_equal_scores_are_counted(model: Path, corpus: Path, tmp_path: Path) -> None:
    call = sorted((corpus / "flac_D").iterdir())[0]
    copies = [Path(shutil.copy(call, tmp_path / name)) for name in ("a.flac", "b.flac")]
    done = run_cli("score", model, *copies, "-o", tmp_path / "x.tsv", "--precision", "bf16")
    assert record_of(tmp_path / "x.tsv")["n_tied"] == 2
    assert "2 scores equal" in done.stderr
