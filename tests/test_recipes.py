"""The recipes run end to end on a miniature of ASVspoof 5, stage by stage, and do nothing over again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SHARED
from released import make_asvspoof2019, make_asvspoof2021_df, make_asvspoof2021_la
from safetensors.torch import load_file
from test_in_the_wild import make_in_the_wild
from test_partialspoof import make_partialspoof

from spoofkit.config import load_config

WHISPER = SHARED / "models/whisper-base-encoder"
EGS = Path(__file__).parents[1] / "egs"
SETTINGS = (
    "crop_samples=16000 encoder.name=tiny encoder.freeze=none mix.n_train=24 mix.n_dev=12 "
    "mix.min_region_samples=800 mix.margin_samples=400 posttrain.n_steps=2 posttrain.batch_size=3 "
    "finetune.n_steps=4 finetune.batch_size=3 finetune.optim.lr=1e-3"
)


def run(recipe: str, *options: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a recipe's run.sh from another folder, in the environment that runs the tests."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100"}
    command = ["bash", str(EGS / recipe / "run.sh"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode == 0) == ok, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def results(exp: Path) -> dict[Path, int]:
    """What a second run must leave alone, with the time it was written."""
    return {p: p.stat().st_mtime_ns for p in exp.rglob("*") if p.is_file() and p.name not in (".lock", "run.log")}


@pytest.mark.slow
def test_the_asvspoof5_recipe_runs_from_corpus_to_report(corpus: Path, tmp_path: Path) -> None:
    exp, data = tmp_path / "exp", tmp_path / "data"
    common = [
        "--conf",
        EGS / "asvspoof5/conf/xlsr300m.yaml",
        "--data",
        data,
        "--exp",
        exp,
        "--settings",
        SETTINGS,
        "--partial",
        "true",
        "--device",
        "cpu",
        "--workers",
        0,
    ]
    first = run("asvspoof5", "--corpus", corpus, *common)
    assert ": timeline ==" not in first.stderr
    for title in ("data", "mix lists", "post-training", "fine-tuning", "scores", "report"):
        assert f": {title} ==" in first.stderr
    assert (exp / "posttrain/encoder/model.safetensors").is_file()
    assert json.loads((exp / "results/eval/eval.json").read_text())["n_trials"] == 12
    assert (exp / "results/eval/report.html").is_file()
    settings = load_config(exp / "finetune/config.yaml")
    assert settings.finetune.n_steps == 4
    assert settings.encoder.name == str(exp / "posttrain/encoder")
    before = results(exp) | results(data)
    run("asvspoof5", "--corpus", corpus, *common)
    assert results(exp) | results(data) == before
    scores = (exp / "scores/eval.tsv").read_bytes()
    alone = run("asvspoof5", *common, "--stage", 5, "--stop-stage", 6, "--overwrite", "true", "--ngpu", 2)
    assert "fine-tuning" not in alone.stderr
    after = results(exp)
    assert (exp / "scores/eval.tsv").read_bytes() == scores
    assert len(json.loads((exp / "scores/eval.json").read_text())["parts"]) == 2  # shared by two processes
    assert after[exp / "scores/eval.tsv"] > before[exp / "scores/eval.tsv"]
    assert after[exp / "results/eval/report.html"] > before[exp / "results/eval/report.html"]
    assert after[exp / "finetune/model/model.json"] == before[exp / "finetune/model/model.json"]
    with_frames = [*common, "--stage", 7, "--timeline", "true"]
    assert ": timeline ==" in run("asvspoof5", *with_frames).stderr
    both = exp / "timeline/model"
    assert json.loads((both / "frame_head/head.json").read_text())["frame_target"] == "authenticity"
    assert (both / "head.safetensors").read_bytes() == (exp / "finetune/model/head.safetensors").read_bytes()
    assert (exp / "timeline/results/segments.json").is_file()
    before = results(exp)
    run("asvspoof5", *with_frames)
    assert results(exp) == before


def make_small_wavlm(folder: Path) -> Path:
    """A random network of WavLM-Large's kind (pre-norm, layer-norm convolutions), three layers of width 32."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, feat_extract_norm="layer",
        do_stable_layer_norm=True, mask_time_prob=0.0,
    )  # fmt: skip
    WavLMModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_published_recipe_trains_one_set_of_adapters_through_both_stages(corpus: Path, tmp_path: Path) -> None:
    exp, wavlm = tmp_path / "exp", make_small_wavlm(tmp_path / "wavlm")
    small = f"encoder.name={wavlm} encoder.n_layers=2 encoder.lora.rank=4 crop_samples=16000 "
    small += "mix.n_train=16 mix.n_dev=8 "
    for stage in ("posttrain", "finetune"):
        small += f"{stage}.n_steps=2 {stage}.batch_size=8 {stage}.micro_batch_size=4 {stage}.eval_every=2 "
    options = ["--settings", small.strip(), "--data", tmp_path / "data", "--exp", exp, "--partial", "true"]
    run("asvspoof5", "--corpus", corpus, *options, "--ngpu", 0, "--workers", 0)
    adapters = {
        stage: load_file(exp / stage / "adapter_model.safetensors")
        for stage in ("posttrain/encoder", "finetune/model/encoder")
    }
    first, second = adapters.values()
    assert first.keys() == second.keys()
    # A and B of query, key, value and both dense layers, in two layers.
    assert len(first) == 2 * 5 * 2
    assert all(tensor.shape[0 if ".lora_A." in name else 1] == 4 for name, tensor in first.items())
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for stage in adapters:
        assert not (exp / stage / "model.safetensors").exists()
    model = json.loads((exp / "finetune/model/model.json").read_text())
    assert (model["head"], model["layers"], model["final_norm"]) == ("ecapa", "gated", False)
    assert model["posttraining"] != "not recorded"
    mixes = [line.split("\t") for line in (exp / "posttrain/mix.tsv").read_text().splitlines()]
    header = next(row for row in mixes if row[0] == "mix_id")
    rows = [dict(zip(header, row, strict=True)) for row in mixes[mixes.index(header) + 1 :]]
    assert len({row["mix_id"] for row in rows}) == len(rows) == 16  # one region each
    assert all(0.1 <= int(row["n_samples"]) / int(row["crop_samples"]) <= 0.3 for row in rows)
    assert json.loads((exp / "results/eval/eval.json").read_text())["n_trials"] == 12


@pytest.mark.slow
@pytest.mark.skipif(not WHISPER.is_dir(), reason="the real Whisper-base encoder is not on this machine")
def test_the_recipe_runs_on_the_real_whisper_base_with_the_settings_of_the_mini_recipe(
    corpus: Path, tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    short = "crop_samples=16000 encoder.n_layers=1 mix.n_train=12 mix.n_dev=6 posttrain.n_steps=2 finetune.n_steps=2"
    options = ["--settings", f"encoder.name={WHISPER} {short}", "--conf", EGS / "mini/conf/whisper_base.yaml"]
    options += ["--data", tmp_path / "data", "--exp", exp, "--partial", "true", "--device", "cpu", "--workers", 0]
    run("asvspoof5", "--corpus", corpus, *options)
    assert "97 of 97 tensors" in (exp / "posttrain/train.log").read_text()
    assert json.loads((exp / "finetune/model/encoder/config.json").read_text())["encoder_layers"] == 1
    assert json.loads((exp / "results/eval/eval.json").read_text())["n_trials"] == 12


@pytest.mark.slow
def test_a_baseline_of_the_asvspoof5_recipe_runs_without_post_training(corpus: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    options = ["--settings", "crop_samples=8000 finetune.n_steps=1 finetune.batch_size=3", "--posttrain", "false"]
    options += ["--data", tmp_path / "data", "--exp", exp, "--partial", "true", "--device", "cpu", "--workers", 0]
    run("asvspoof5", "--conf", EGS / "asvspoof5/conf/rawnet2.yaml", "--corpus", corpus, *options)
    assert json.loads((exp / "finetune/model/model.json").read_text())["head"] == "rawnet2_asvspoof5"
    assert (exp / "results/eval/report.html").is_file()


@pytest.mark.slow
def test_the_mini_recipe_compares_both_methods_at_equal_steps(corpus: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    common = ["--corpus", corpus, "--data", tmp_path / "data", "--exp", exp, "--stage", 1]
    common += ["--seeds", "0 4", "--settings", SETTINGS]
    done = run("mini", *common)
    found = json.loads((exp / "comparison.json").read_text())
    assert found["seeds"] == ["0", "4"]
    assert len(found["eer_percent"]["all"]["mixframe"]) == 2
    assert not (exp / "direct_seed0/posttrain").exists()
    assert load_config(exp / "direct_seed4/finetune/config.yaml").seed == 4
    assert "6 optimiser steps each" in done.stdout
    assert str(exp / "mixframe_seed0/results/eval/report.html") in done.stdout


def test_data_preparation_without_a_corpus_says_what_to_give(tmp_path: Path) -> None:
    done = run("asvspoof5", "--data", tmp_path, ok=False)
    assert done.returncode == 1
    assert "stage 1 needs --corpus DIR" in done.stderr


@pytest.mark.parametrize("recipe", ["asvspoof5", "asvspoof2021", "partialspoof"])
@pytest.mark.parametrize(("ngpu", "device"), [("two", "auto"), ("-1", "auto"), ("0", "cuda")])
def test_a_number_of_gpus_that_is_none_is_refused(recipe: str, ngpu: str, device: str, tmp_path: Path) -> None:
    done = run(recipe, f"--ngpu={ngpu}", "--device", device, "--exp", tmp_path / "exp", ok=False)
    assert done.returncode == 1
    assert f"--ngpu is '{ngpu}' with --device {device}" in done.stderr


def test_a_misspelt_option_is_fatal() -> None:
    done = run("asvspoof5", "--stagee", 3, ok=False)
    assert done.returncode == 1
    assert "did you mean --stage?" in done.stderr


@pytest.mark.slow
def test_the_asvspoof2021_recipe_runs_from_four_corpora_to_the_gap(tmp_path: Path) -> None:
    exp, data = tmp_path / "exp", tmp_path / "data"
    corpora = {
        "--la19": make_asvspoof2019(tmp_path / "LA19"),
        "--la21": make_asvspoof2021_la(tmp_path / "LA21"),
        "--df21": make_asvspoof2021_df(tmp_path / "DF21"),
        "--itw": make_in_the_wild(tmp_path / "itw"),
    }
    options = [part for pair in corpora.items() for part in pair]
    options += ["--data", data, "--exp", exp, "--settings", SETTINGS, "--partial", "true", "--device", "cpu"]
    options += ["--asv21", tmp_path / "LA21/keys/LA/ASV/ASVTorch_Kaldi/score.txt"]
    done = run("asvspoof2021", *options, "--workers", 0)
    assert "gap between LA and DF ==" in done.stderr
    found = json.loads((exp / "gap.json").read_text())["figures"]
    la, df, gap = (found[name] for name in ("la21/eval", "df21/eval", "df21/eval - la21/eval"))
    assert gap["value"] == pytest.approx(df["value"] - la["value"])
    assert gap["low"] <= gap["value"] <= gap["high"]
    for name in ("la21/eval", "df21/eval"):
        result = json.loads((exp / f"results/{name}/eval.json").read_text())
        assert result["eer_official_percent"] == pytest.approx(found[name]["value"])
        assert f"{found[name]['value']:.3f}" in done.stdout
    la21, df21 = (json.loads((exp / f"results/{name}/eval/eval.json").read_text()) for name in ("la21", "df21"))
    assert 0 < la21["tandem"]["min_tdcf_2021"] <= 1
    assert {row["vocoder"] for row in df21["by"]["vocoder"]} >= {"traditional_vocoder"}
    assert all(row["n_bonafide"] == df21["n_bonafide"] for row in df21["by"]["vocoder"])
    assert (exp / "results/itw/eval/report.html").is_file()
    before = results(exp) | results(data)
    del before[exp / "gap.json"]
    run("asvspoof2021", *options, "--workers", 0)
    after = results(exp) | results(data)
    assert {path: after[path] for path in before} == before


@pytest.mark.slow
def test_the_partialspoof_recipe_runs_from_two_corpora_to_segment_figures(tmp_path: Path) -> None:
    exp, data = tmp_path / "exp", tmp_path / "data"
    make_partialspoof(tmp_path / "PartialSpoof")
    options = ["--la19", make_asvspoof2019(tmp_path / "LA19"), "--corpus", tmp_path / "PartialSpoof"]
    settings = SETTINGS.replace("posttrain.n_steps=2", "posttrain.n_steps=20") + " posttrain.optim.lr=1e-3"
    options += ["--data", data, "--exp", exp, "--settings", settings, "--partial", "true", "--device", "cpu"]
    done = run("partialspoof", *options, "--workers", 0)
    assert "frame scores ==" in done.stderr
    for name in ("dev", "eval"):
        assert (exp / f"frames/{name}.npz").is_file()
        assert list((exp / f"results/{name}").glob("*.json"))
    before = results(exp) | results(data)
    run("partialspoof", *options, "--workers", 0)
    assert results(exp) | results(data) == before


def test_a_misspelt_data_folder_is_no_success(tmp_path: Path) -> None:
    done = run("asvspoof2021", "--stage", 5, "--data", tmp_path / "typo", "--exp", tmp_path / "exp", ok=False)
    assert "holds no manifest of a set to evaluate; run stage 1, or mend --data" in done.stderr
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(("recipe", "sentence"), [("asvspoof2021", "--la19 DIR"), ("partialspoof", "--corpus DIR")])
def test_recipes_of_other_corpora_say_what_to_give(recipe: str, sentence: str, tmp_path: Path) -> None:
    assert "stage 1 needs --la19 DIR" in run(recipe, "--data", tmp_path, ok=False).stderr
    assert sentence in run(recipe, "--data", tmp_path, ok=False).stderr
