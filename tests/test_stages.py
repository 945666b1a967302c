"""Records say how a model was trained, when, where and from which code; its hash depends on the first alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import refusal, run_cli

from spoofkit import stages
from spoofkit.config import load_config
from spoofkit.files import file_sha256
from spoofkit.machine import cpu_name
from spoofkit.models.detector import detector_sha256, folder_sha256
from spoofkit.models.pretrained import load_encoder
from spoofkit.training import experiment

SETTINGS = """
crop_samples: 16000
encoder: {name: tiny, freeze: none}
mix: {n_train: 12, n_dev: 6, min_region_samples: 800, margin_samples: 400}
posttrain: &short {precision: fp32, n_steps: 2, batch_size: 3, eval_every: 2, checkpoint_every: 2}
finetune: *short
"""


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def options(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """Of each verb that trains."""
    folder = tmp_path_factory.mktemp("lists")
    (folder / "conf.yaml").write_text(SETTINGS)
    run_cli("mixlist", "draw", manifests / "train.tsv", "-o", folder / "mix.tsv", "-c", folder / "conf.yaml")
    run_cli(
        "mixlist", "draw", manifests / "dev.tsv", "-o", folder / "mix_dev.tsv", "-c", folder / "conf.yaml", "--held-out"
    )
    sets = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", folder / "conf.yaml"]
    sets += ["--device", "cpu"]
    return {"posttrain": [*sets, "--mix", folder / "mix.tsv", "--dev-mix", folder / "mix_dev.tsv"], "finetune": sets}


def train(exp: Path, options: dict[str, list[object]]) -> Path:
    run_cli("posttrain", exp / "posttrain", *options["posttrain"])
    run_cli("finetune", exp / "finetune", "--encoder", exp / "posttrain/encoder", *options["finetune"])
    return exp


@pytest.fixture(scope="module")
def exp(options: dict[str, list[object]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with both stages."""
    return train(tmp_path_factory.mktemp("exp") / "mfpt", options)


def test_a_model_says_how_its_encoder_was_post_trained(exp: Path, options: dict[str, list[object]]) -> None:
    first, second = read(exp / "finetune/model/encoder/stages.json")
    assert [first] == read(exp / "posttrain/encoder/stages.json")
    assert [first["stage"], second["stage"]] == ["post-training", "fine-tuning"]
    given = dict(zip(options["posttrain"][::2], options["posttrain"][1::2], strict=True))
    names = {"train_manifest": "--train", "dev_manifest": "--dev", "mix": "--mix", "dev_mix": "--dev-mix"}
    hashes = {name: file_sha256(str(given[option])) for name, option in names.items()}
    assert first["inputs"] == hashes | {"encoder": "tiny"}
    assert first["settings"]["posttrain"]["batch_size"] == 3
    assert (first["n_steps"], first["kept"]["step"]) == (2, 2)
    assert first["kept"]["figures"].keys() >= {"dev_frame_eer_percent", "dev_frame_loss"}
    for stage in (first, second):
        (run,) = stage["runs"]
        assert run["steps"] == [0, 2]
        assert (run["hardware"], run["n_processes"], run["precision"]) == (cpu_name(), 1, "float32")
        assert run["versions"]["torch"] == torch.__version__
        assert run["began"] <= stage["finished"]
    assert read(exp / "finetune/model/model.json")["posttraining"] == stages.facts([first])


def test_the_same_training_on_another_day_machine_and_path_is_the_same_model(
    exp: Path, options: dict[str, list[object]], tmp_path: Path
) -> None:
    run_cli("posttrain", tmp_path / "elsewhere/posttrain", *options["posttrain"])
    record = tmp_path / "elsewhere/posttrain/encoder/stages.json"
    (stage,) = read(record)
    other_run = stage["runs"][0] | {"hardware": "NVIDIA H200", "n_processes": 8, "commit": "f" * 40}
    record.write_text(json.dumps([stage | {"finished": "2031-01-01T00:00:00+00:00", "runs": [other_run]}]))
    train(tmp_path / "elsewhere", options)
    models = [exp / "finetune/model", tmp_path / "elsewhere/finetune/model"]
    assert detector_sha256(models[0]) == detector_sha256(models[1])
    assert folder_sha256(exp / "posttrain/encoder") == folder_sha256(record.parent)
    assert read(models[1] / "encoder/stages.json")[0]["runs"] == [other_run]  # and yet it is known
    changed = read(models[1] / "model.json")
    changed["posttraining"][0]["inputs"]["mix"] = "0" * 64  # what it was trained on is part of what it is
    (models[1] / "model.json").write_text(json.dumps(changed))
    assert detector_sha256(models[0]) != detector_sha256(models[1])


def test_score_record_info_and_report_say_it_too(exp: Path, manifests: Path, tmp_path: Path) -> None:
    scores, model = exp / "scores/eval.tsv", exp / "finetune/model"
    run_cli("score", model, manifests / "eval.tsv", "-o", scores, "--device", "cpu")
    record, mix = read(scores.with_suffix(".json")), read(exp / "posttrain/inputs.json")["mix"][:12]
    assert record["stages"] == read(model / "encoder/stages.json")
    assert record["hardware"] == cpu_name()
    for said in ("2 steps, weights of step 2 (dev frame eer percent ", f"mix {mix}", cpu_name(), "1 process"):
        assert said in record["posttraining"]
    assert f"mix {mix}" in " ".join(run_cli("info", model).stdout.split())
    assert [stage["stage"] for stage in json.loads(run_cli("info", model, "--json").stdout)["stages"]] == [
        "post-training",
        "fine-tuning",
    ]
    run_cli("evaluate", scores, manifests / "eval.tsv", "-o", tmp_path / "out", "--replicates", 0)
    page = (tmp_path / "out/report.html").read_text()
    title = f"mfpt on asvspoof5 eval (partial), {record['began'][:10]}"
    assert f"<title>{title}: EER" in page
    assert f"<h1>{title}</h1>" in page
    assert "<dt>post-training</dt>" in page
    assert f"mix {mix}" in page
    # A record of another kind says nothing, and breaks nothing.
    scores.with_suffix(".json").write_text('{"stages": [{"stage": "post-training", "runs": 5}], "began": 7}')
    run_cli("evaluate", scores, manifests / "eval.tsv", "-o", tmp_path / "out", "--replicates", 0, "--overwrite")
    assert "<dd>not recorded</dd>" in (tmp_path / "out/report.html").read_text()


def test_a_model_without_post_training_says_so_and_an_older_one_that_nothing_is_recorded(
    exp: Path, options: dict[str, list[object]], manifests: Path, tmp_path: Path
) -> None:
    settings = load_config(None, ["encoder.name=tiny", "encoder.freeze=none"]).encoder
    load_encoder(settings).save(tmp_path / "published")
    run_cli("finetune", tmp_path / "direct", "--encoder", tmp_path / "published", *options["finetune"])
    assert read(tmp_path / "direct/model/model.json")["posttraining"] == "none: encoder as published"
    run_cli("finetune", tmp_path / "random", *options["finetune"])
    assert read(tmp_path / "random/model/model.json")["posttraining"] == "none: encoder from random weights"
    older = shutil.copytree(exp / "finetune/model", tmp_path / "older")
    before = detector_sha256(older)
    (older / "encoder/stages.json").unlink()
    assert detector_sha256(older) == before
    run_cli("score", older, manifests / "eval.tsv", "-o", tmp_path / "older.tsv", "--device", "cpu")
    assert read(tmp_path / "older.json")["posttraining"] == "not recorded"
    assert "not recorded" in run_cli("info", older).stdout
    (older / "encoder/stages.json").write_text('[{"stage": "post-training"}]')
    assert "stages.json: is no record of training stages" in refusal("info", older)


def test_a_mean_of_models_says_of_which_and_how_each_was_made(exp: Path, tmp_path: Path) -> None:
    model = exp / "finetune/model"
    run_cli("average", model, model, "-o", tmp_path / "mean")
    (stage,) = read(tmp_path / "mean/encoder/stages.json")
    assert [one["sha256"] for one in stage["of"]] == [folder_sha256(model)] * 2
    assert [one["stages"] for one in stage["of"]] == [read(model / "encoder/stages.json")] * 2
    assert read(tmp_path / "mean/model.json")["posttraining"] == stages.facts([stage])
    shown = " ".join(run_cli("info", tmp_path / "mean").stdout.split())
    assert "the mean of 2" in shown
    assert "2: post-training" in shown


def test_an_exported_model_carries_its_stages_without_dates(exp: Path, manifests: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = exp / "finetune/model"
    run_cli("export", model, "-o", tmp_path / "model.onnx")
    known = read(model / "encoder/stages.json")
    assert read(tmp_path / "model.json")["stages"] == known
    run_cli("score", tmp_path / "model.onnx", manifests / "eval.tsv", "-o", tmp_path / "eval.tsv")
    assert read(tmp_path / "eval.json")["stages"] == stages.facts(known)


def test_runs_are_those_whose_steps_remain(tmp_path: Path) -> None:
    """The first was killed after its checkpoint at 6, the second before any; a checkpoint at 9 was damaged."""
    encoder = load_encoder(load_config(None, ["encoder.name=tiny", "encoder.freeze=none"]).encoder)
    runs = tmp_path / "runs.jsonl"
    for from_step, n_processes in ((0, 1), (6, 2), (6, 3), (8, 4)):
        experiment.append_run(tmp_path, from_step, torch.device("cpu"), n_processes, "float32")
        runs.write_text(runs.read_text() + '{"began": "20')  # by a power cut
    experiment.append_metrics(tmp_path, {"step": 12, "loss": 0.5})
    kept = {"step": 10, "figures": {"dev_eer_percent": 1.5}}
    stage = experiment.finished_stage(tmp_path, stages.FINETUNING, encoder, "x.tsv", kept, {}, {})
    assert [(run["steps"], run["n_processes"]) for run in stage["runs"]] == [([0, 6], 1), ([6, 8], 3), ([8, 12], 4)]
    assert stage["n_steps"] == 12
    assert stages.are_stages([stage])
    assert not stages.are_stages([stage | {"runs": [{}]}])


def test_the_commit_is_that_of_the_checkout_and_says_whether_files_differ(tmp_path: Path) -> None:
    package = Path(stages.__file__).parent
    (tmp_path / "spoofkit").mkdir()
    for name in ("__init__.py", "machine.py"):
        shutil.copy(package / name, tmp_path / "spoofkit")

    def commit() -> str:
        code = "from spoofkit.machine import commit; print(commit())"
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", code]
        options = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True, "check": True}
        return subprocess.run(command, **options).stdout.strip()

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert commit() == "None"  # an installed package
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "notes.txt").write_text("not of the package")
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "spoofkit/machine.py").write_text("# other\n" + (package / "machine.py").read_text())
    assert commit() == git("rev-parse", "HEAD") + "+dirty"
