"""Evaluations of a training in bf16: the figures of `score --precision bf16`, chosen once, and never the weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import refusal, run_cli
from test_training import SETTINGS

from spoofkit.data.manifest import read_keyed_manifest
from spoofkit.evaluation.breakdown import split_classes
from spoofkit.evaluation.metrics import cllr, eer
from spoofkit.evaluation.scores import read_trials

FAST, SLOW = frozenset({"avx512_bf16"}), frozenset({"avx2"})


@pytest.fixture(autouse=True)
def fast_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """This CPU counts as one that multiplies faster in bf16, and trains in fp32."""
    monkeypatch.setattr("spoofkit.models.precision._cpu_flags", lambda: FAST)


@pytest.fixture
def utterances(manifests: Path, tmp_path: Path) -> list[object]:
    """Options of `finetune`."""
    (tmp_path / "conf.yaml").write_text(SETTINGS)
    return ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", tmp_path / "conf.yaml"]


@pytest.fixture
def mixes(utterances: list[object], manifests: Path, tmp_path: Path) -> list[object]:
    """Options of `posttrain`."""
    for name, held_out in (("train", []), ("dev", ["--held-out"])):
        out = tmp_path / f"mix_{name}.tsv"
        run_cli("mixlist", "draw", manifests / f"{name}.tsv", "-o", out, "-c", tmp_path / "conf.yaml", *held_out)
    return [*utterances, "--mix", tmp_path / "mix_train.tsv", "--dev-mix", tmp_path / "mix_dev.tsv"]


def evaluations(exp: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if any(name.startswith("dev_") for name in line)]


def newest_state(exp: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((max((exp / "checkpoints").glob("step_*")) / "state.json").read_text())
    return state


@pytest.mark.parametrize("head", ["mean", "aasist"])  # the second has dropout and batch norm
def test_figures_are_those_of_scores_in_that_precision_and_weights_stay(
    head: str, utterances: list[object], manifests: Path, tmp_path: Path
) -> None:
    options = [*utterances, "--set", "finetune.keep=last", "--set", f"finetune.head={head}"]
    for precision in ("fp32", "bf16"):
        exp = tmp_path / precision
        run_cli("finetune", exp, *options, "--set", f"finetune.eval_precision={precision}")
        run_cli("score", exp / "model", manifests / "dev.tsv", "-o", exp / "dev.tsv", "--precision", precision)
        trials = read_trials(exp / "dev.tsv", read_keyed_manifest(manifests / "dev.tsv"))
        last = evaluations(exp)[-1]
        assert last["dev_eer_percent"] == 100 * eer(*split_classes(trials)).eer
        assert last["dev_cllr"] == pytest.approx(cllr(*split_classes(trials)), rel=1e-7)  # of scores with nine digits
    one, other = (evaluations(tmp_path / precision)[-1]["dev_cllr"] for precision in ("fp32", "bf16"))
    assert one != other
    weights = [(tmp_path / exp / "model/encoder/model.safetensors").read_bytes() for exp in ("fp32", "bf16")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("supervision", ["frames", "utterances"])
def test_post_training_evaluates_in_bf16_and_ends_with_the_same_weights(
    supervision: str,
    mixes: list[object],
    tmp_path: Path,
) -> None:
    settings = ["--set", "posttrain.keep=last", "--set", f"posttrain.supervision={supervision}"]
    for precision in ("fp32", "bf16"):
        exp = tmp_path / precision
        run_cli("posttrain", exp, *mixes, *settings, "--set", f"posttrain.eval_precision={precision}")
    name = f"dev_{supervision[:-1]}_loss"
    exact, fast = ([line[name] for line in evaluations(tmp_path / exp)] for exp in ("fp32", "bf16"))
    assert exact != fast
    assert exact == pytest.approx(fast, rel=0.05)
    weights = [(tmp_path / exp / "encoder/model.safetensors").read_bytes() for exp in ("fp32", "bf16")]
    assert weights[0] == weights[1]


def test_auto_is_measured_at_the_first_evaluation_and_kept(
    utterances: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exp, options = tmp_path / "exp", [*utterances, "--set", "finetune.eval_precision=auto"]
    monkeypatch.setattr("spoofkit.training.eval_precision.BOUND", 1.0)
    run_cli("finetune", exp, *options)
    assert newest_state(exp)["eval_precision"] == "bf16"
    assert "evaluations in bf16" in (exp / "train.log").read_text()
    # A killed run goes on in what was chosen, whatever a measurement would say now; elsewhere it is refused.
    shutil.rmtree(exp / "model")
    shutil.rmtree(max((exp / "checkpoints").glob("step_*")))
    monkeypatch.setattr("spoofkit.training.eval_precision.BOUND", 0.0)
    monkeypatch.setattr("spoofkit.models.precision._cpu_flags", lambda: SLOW)
    assert f"{exp}: its evaluations began in bf16" in refusal("finetune", exp, *options)
    monkeypatch.setattr("spoofkit.models.precision._cpu_flags", lambda: FAST)
    before = evaluations(exp)
    run_cli("finetune", exp, *options)
    assert evaluations(exp) == before
    assert newest_state(exp)["eval_precision"] == "bf16"


@pytest.mark.parametrize("flags", [FAST, SLOW])
def test_auto_stays_in_fp32_where_nothing_else_is_faster_or_scores_shift(
    flags: frozenset[str],
    mixes: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("spoofkit.models.precision._cpu_flags", lambda: flags)
    monkeypatch.setattr("spoofkit.training.eval_precision.BOUND", 0.0)
    run_cli("posttrain", tmp_path / "exp", *mixes, "--set", "posttrain.eval_precision=auto")
    assert newest_state(tmp_path / "exp")["eval_precision"] == "fp32"


def test_what_is_not_faster_or_never_used_is_refused(
    utterances: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    common = ["finetune", tmp_path / "exp", *utterances, "--set"]
    assert "expected auto or fp32 or bf16" in refusal(*common, "finetune.eval_precision=tf32")
    assert "expected auto or fp32 or bf16" in refusal(*common, "finetune.eval_precision=tf32", "--dry-run")
    monkeypatch.setattr("spoofkit.models.precision._cpu_flags", lambda: SLOW)
    assert "found bf16" in refusal(*common, "finetune.eval_precision=bf16")
    without = ["--set", "finetune.eval_every=null", "--set", "finetune.keep=last"]
    assert "eval_every" in refusal(*common, "finetune.eval_precision=bf16", *without)
    assert not (tmp_path / "exp/model").exists()
