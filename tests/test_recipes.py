"""The recipes run end to end on a miniature of ASVspoof 5, stage by stage, and do nothing over again."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SHARED, run_cli
from released import make_asvspoof2019, make_asvspoof2021_df, make_asvspoof2021_la
from safetensors.torch import load_file
from test_in_the_wild import make_in_the_wild
from test_partialspoof import make_partialspoof
from warm import WarmPython

from spoofkit.config import load_config, stage_settings
from spoofkit.files import file_sha256

WHISPER = SHARED / "models/whisper-base-encoder"
EGS = Path(__file__).parents[1] / "egs"
SETTINGS = (
    "crop_samples=16000 encoder.name=tiny encoder.freeze=none mix.n_train=24 mix.n_dev=12 "
    "mix.min_region_samples=800 mix.margin_samples=400 posttrain.n_steps=2 posttrain.batch_size=3 "
    "finetune.n_steps=4 finetune.batch_size=3 finetune.optim.lr=1e-3"
)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(warm_python: WarmPython) -> Run:
    """Run a recipe's run.sh from another folder, in the environment that runs the tests."""

    def run_recipe(
        recipe: str, *options: object, ok: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(EGS / recipe / "run.sh"), *map(str, options)]
        environment = warm_python.environ | {"COLUMNS": "100"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=cwd)
        assert (done.returncode == 0) == ok, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run_recipe


def results(exp: Path) -> dict[Path, int]:
    """What a second run must leave alone, with the time it was written."""
    return {p: p.stat().st_mtime_ns for p in exp.rglob("*") if p.is_file() and p.name not in (".lock", "run.log")}


def test_the_asvspoof5_recipe_runs_from_corpus_to_report(run: Run, corpus: Path, tmp_path: Path) -> None:
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
        "--evaluate-args",
        "--by speaker",
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
    figures = json.loads((exp / "results/eval/eval.json").read_text())
    assert figures["n_trials"] == 12
    assert "speaker" in figures["by"]  # of --evaluate-args
    assert (exp / "results/eval/report.html").is_file()
    settings = load_config(exp / "finetune/config.yaml")
    assert settings.finetune.n_steps == 4
    assert settings.encoder.name == str(exp / "posttrain/encoder")
    before = results(exp) | results(data)
    run("asvspoof5", "--corpus", corpus, *common)
    assert results(exp) | results(data) == before
    scores = (exp / "scores/eval.tsv").read_bytes()
    alone = run("asvspoof5", *common, "--stage", 5, "--stop-stage", 6, "--overwrite", "--ngpu", 2)
    assert "fine-tuning" not in alone.stderr
    after = results(exp)
    assert (exp / "scores/eval.tsv").read_bytes() == scores
    assert len(json.loads((exp / "scores/eval.json").read_text())["parts"]) == 2  # shared by two processes
    assert after[exp / "scores/eval.tsv"] > before[exp / "scores/eval.tsv"]
    assert after[exp / "results/eval/report.html"] > before[exp / "results/eval/report.html"]
    assert after[exp / "finetune/model/model.json"] == before[exp / "finetune/model/model.json"]
    with_frames = [*common, "--stage", 7]
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


PUBLISHED = "encoder.n_layers=2 encoder.lora.rank=4 crop_samples=16000 mix.n_train=16 mix.n_dev=8 " + " ".join(
    f"{stage}.n_steps=2 {stage}.batch_size=8 {stage}.micro_batch_size=4 {stage}.eval_every=2"
    for stage in ("posttrain", "finetune")
)


@pytest.fixture(scope="module")
def published(run: Run, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published experiment on a small WavLM, with adapters through both stages; read only."""
    folder = tmp_path_factory.mktemp("published")
    settings = f"encoder.name={make_small_wavlm(folder / 'wavlm')} {PUBLISHED}"
    options = ["--settings", settings, "--data", folder / "data", "--exp", folder / "exp", "--partial", "true"]
    run("asvspoof5", "--corpus", corpus, *options, "--ngpu", 0, "--workers", 0, "--stop-stage", 4)
    return folder / "exp"


def test_the_published_recipe_trains_one_set_of_adapters_through_both_stages(published: Path) -> None:
    exp = published
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


@pytest.mark.parametrize("stop_stage", [4, pytest.param(7, marks=pytest.mark.release)])
def test_adapters_post_trained_on_asvspoof5_are_fine_tuned_on_a_share_of_another_corpus(
    run: Run, published: Path, stop_stage: int, tmp_path: Path
) -> None:
    exp, data = tmp_path / "exp", tmp_path / "data"
    options = ["--la19", make_asvspoof2019(tmp_path / "LA19"), "--data", data, "--exp", exp, "--partial"]
    if stop_stage == 7:
        options += ["--la21", make_asvspoof2021_la(tmp_path / "LA21")]
        options += ["--df21", make_asvspoof2021_df(tmp_path / "DF21")]
    options += ["--conf", EGS / "asvspoof5/conf/mfpt.yaml", "--posttrain", "false", "--share", 0.5]
    options += ["--encoder", "posttrain/encoder", "--ngpu", 0, "--workers", 0, "--stop-stage", stop_stage]
    # With such a rate what fine-tuning ends with is what it began with.
    run("asvspoof2021", *options, "--settings", f"{PUBLISHED} finetune.optim.lr=1e-9 seed=3", cwd=published)
    theirs, ours = (
        load_file(folder / "encoder/adapter_model.safetensors")
        for folder in (published / "posttrain", exp / "finetune/model")
    )
    assert theirs.keys() == ours.keys()
    assert all(torch.allclose(theirs[name], ours[name], rtol=0, atol=1e-7) for name in theirs)
    # Fresh ones have B = 0.
    assert min(tensor.abs().max() for name, tensor in ours.items() if ".lora_B." in name) > 1e-5
    model = json.loads((exp / "finetune/model/model.json").read_text())
    before = json.loads((published / "posttrain/encoder/stages.json").read_text())[-1]
    assert [stage["inputs"] for stage in model["posttraining"]] == [before["inputs"]]
    subset = exp / "data/train_share0.5.tsv"
    assert model["inputs"]["train_manifest"] == file_sha256(subset)
    assert model["inputs"]["dev_manifest"] == file_sha256(data / "la19/dev.tsv")  # whole
    assert "subset of train.tsv: share 0.5 by utterance, seed 3" in (exp / "finetune/train.log").read_text()
    told = " ".join(run_cli("info", exp / "finetune/model").stdout.split())
    assert re.search(r"post-training .*2 steps.* on asvspoof5, train\.tsv, 16 utterances", told)
    assert re.search(r"fine-tuning 2 steps.* on asvspoof2019_la, train_share0\.5\.tsv, \d+ utterances: subset of", told)
    if stop_stage == 7:
        assert "df21/eval - la21/eval" in json.loads((exp / "gap.json").read_text())["figures"]


@pytest.mark.release
@pytest.mark.skipif(not WHISPER.is_dir(), reason="the real Whisper-base encoder is not on this machine")
def test_the_recipe_runs_on_the_real_whisper_base_with_the_settings_of_the_mini_recipe(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    short = "crop_samples=16000 encoder.n_layers=1 mix.n_train=12 mix.n_dev=6 posttrain.n_steps=2 finetune.n_steps=2"
    options = ["--settings", f"encoder.name={WHISPER} {short}", "--conf", EGS / "mini/conf/whisper.yaml"]
    options += ["--data", tmp_path / "data", "--exp", exp, "--partial", "true", "--device", "cpu", "--workers", 0]
    run("asvspoof5", "--corpus", corpus, *options)
    assert "97 of 97 tensors" in (exp / "posttrain/train.log").read_text()
    assert json.loads((exp / "finetune/model/encoder/config.json").read_text())["encoder_layers"] == 1
    assert json.loads((exp / "results/eval/eval.json").read_text())["n_trials"] == 12


@pytest.mark.release
def test_a_baseline_of_the_asvspoof5_recipe_runs_without_post_training(run: Run, corpus: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    options = ["--settings", "crop_samples=8000 finetune.n_steps=1 finetune.batch_size=3", "--posttrain", "false"]
    options += ["--data", tmp_path / "data", "--exp", exp, "--partial", "true", "--device", "cpu", "--workers", 0]
    run("asvspoof5", "--conf", EGS / "asvspoof5/conf/rawnet2.yaml", "--corpus", corpus, *options)
    assert json.loads((exp / "finetune/model/model.json").read_text())["head"] == "rawnet2_asvspoof5"
    assert (exp / "results/eval/report.html").is_file()


def test_the_mini_recipe_compares_both_methods_at_equal_steps(run: Run, corpus: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    common = ["--corpus", corpus, "--data", tmp_path / "data", "--exp", exp, "--stage", 1]
    common += ["--seeds", "4", "--encoder", "tiny", "--settings", SETTINGS, "--stop-stage", 7]
    done = run("mini", *common)
    found = json.loads((exp / "comparison.json").read_text())
    assert found["seeds"] == ["4"]
    assert found["optimiser_steps"] == 6
    pooled = found["tiers"][0]["seeds"][0]
    for method in ("direct", "mixframe"):
        results = json.loads((exp / f"{method}_seed4/results/eval/eval.json").read_text())
        assert pooled[method]["eer_percent"] == pytest.approx(results["eer_official_percent"])
    assert not (exp / "direct_seed4/posttrain").exists()
    settings = load_config(exp / "direct_seed4/finetune/config.yaml")
    assert (settings.seed, settings.encoder.name, settings.finetune.optim.head_lr) == (4, "tiny", 1e-3)
    steps = (exp / "mixframe_seed4/posttrain/metrics.jsonl").read_text().splitlines()
    assert found["frames"][0].items() <= json.loads(steps[-1]).items()
    assert "dev_position_only_eer_percent" in found["frames"][0]
    assert str(exp / "mixframe_seed4/results/eval/report.html") in done.stdout


def test_the_mini_recipe_without_its_encoder_says_which_stage_fetches_it(run: Run, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    done = run("mini", "--stage", 1, "--downloads", downloads, "--exp", tmp_path / "exp", ok=False)
    assert done.returncode == 1
    assert str(downloads / "whisper-base-encoder") in done.stderr
    assert "--stage 0" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "given", "wanted"),
    [
        ("asvspoof5", [], "corpus"),
        ("asvspoof2021", ["--itw", "."], "la19"),
        ("partialspoof", ["--la19", "."], "corpus"),
    ],
)
def test_data_preparation_without_a_corpus_says_what_to_give(
    run: Run, recipe: str, given: list[str], wanted: str, tmp_path: Path
) -> None:
    done = run(recipe, *given, "--data", tmp_path, ok=False, cwd=tmp_path)
    assert done.returncode == 1
    assert f"stage 1 needs --{wanted} DIR" in done.stderr


@pytest.mark.parametrize(("ngpu", "device"), [("two", "auto"), ("-1", "auto"), ("0", "cuda")])
def test_a_number_of_gpus_that_is_none_is_refused(run: Run, ngpu: str, device: str, tmp_path: Path) -> None:
    done = run("asvspoof5", f"--ngpu={ngpu}", "--device", device, "--exp", tmp_path / "exp", ok=False)
    assert done.returncode == 1
    assert f"--ngpu {ngpu} means the CPU" in done.stderr if ngpu == "0" else f"--ngpu is '{ngpu}'" in done.stderr


@pytest.mark.parametrize("share", ["0", "0.0", "1.2", "20%", "-0.2"])
def test_a_share_outside_0_to_1_is_refused(run: Run, share: str, tmp_path: Path) -> None:
    done = run("asvspoof2021", "--la19", tmp_path, f"--share={share}", "--exp", tmp_path / "exp", ok=False)
    assert (done.returncode, f"--share is '{share}'" in done.stderr) == (1, True)
    assert "unknown option --share" in run("partialspoof", f"--share={share}", ok=False).stderr  # fine-tunes nothing


INPUTS = {"asvspoof5": ["corpus"], "asvspoof2021": ["la19"], "partialspoof": ["la19", "corpus"], "mini": ["speech"]}


@pytest.mark.parametrize("recipe", INPUTS)
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--settings", "foo=1"], "foo"),
        (["--conf", "conf/nonexist.yaml"], "conf/nonexist.yaml"),
        (["--encoder", "no/such/folder"], "no/such/folder"),
    ],
)
def test_wrong_settings_are_refused_before_a_header_is_read(
    run: Run, recipe: str, given: list[str], named: str, tmp_path: Path
) -> None:
    inputs = [part for name in INPUTS[recipe] for part in (f"--{name}", tmp_path)]
    inputs += ["--stage", 1]  # stage 0 of egs/mini needs synthesizers
    done = run(recipe, *inputs, "--data", "data", "--exp", "exp", *given, ok=False, cwd=tmp_path)
    assert done.returncode == 1
    assert named in done.stderr
    assert "== Stage" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("stage", "of"), [(3, "posttrain"), (5, "finetune")])
def test_settings_that_are_not_those_of_the_experiment_are_refused_before_a_stage_skips_or_reads_it(
    run: Run, stage: int, of: str, tmp_path: Path
) -> None:
    config = load_config(EGS / "asvspoof5/conf/mfpt.yaml", ["seed=0"])
    for name in ("data/train", "data/dev", "data/eval", "exp/posttrain/mix", "exp/posttrain/mix_dev"):
        (tmp_path / f"{name}.tsv").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.tsv").touch()
    for name in ("posttrain", of):
        (tmp_path / f"exp/{name}/{'encoder' if name == 'posttrain' else 'model'}/part").mkdir(
            parents=True, exist_ok=True
        )
        (tmp_path / f"exp/{name}/config.yaml").write_text(yaml.safe_dump(stage_settings(config, name)))
    options = ["--data", "data", "--exp", "exp", "--stage", stage, "--dry-run"]
    can_run = f"stages {' '.join(map(str, range(stage, 7)))} can run"
    assert can_run in run("asvspoof5", *options, cwd=tmp_path).stderr
    # Fine-tuning takes post-training's encoder, without the revision that the conf may pin.
    assert can_run in run("asvspoof5", *options, "--settings", "encoder.revision=abc", cwd=tmp_path).stderr
    done = run("asvspoof5", *options, "--settings", "seed=1", ok=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "seed: 0 there, 1 now" in done.stderr
    # A stage that is run again needs no training of the same settings; one that reads an older stage does.
    run("asvspoof5", *options, "--settings", "seed=1", "--overwrite", cwd=tmp_path, ok=stage == 3)


@pytest.mark.parametrize("recipe", INPUTS)
def test_a_folder_that_is_not_there_is_refused_before_any_other_is_read(run: Run, recipe: str, tmp_path: Path) -> None:
    *others, last = [*INPUTS[recipe], *(["asv21"] if recipe == "asvspoof2021" else [])]
    inputs = [part for name in others for part in (f"--{name}", tmp_path)]
    done = run(recipe, *inputs, f"--{last}", "typo", ok=False, cwd=tmp_path)
    assert (done.returncode, "== Stage" in done.stderr) == (1, False)
    assert f"--{last} typo: there is no {tmp_path}/typo and no {EGS / recipe}/typo" in done.stderr


@pytest.mark.parametrize(
    ("recipe", "options", "missing"),
    [
        ("asvspoof5", ["--stage", 2], "data/train.tsv"),
        ("asvspoof5", ["--stage", 3], "exp/posttrain/mix.tsv"),
        ("asvspoof5", ["--stage", 3, "--posttrain", "false"], "data/eval.tsv"),  # of stage 5, not of the next one
        ("asvspoof5", ["--stage", 4], "exp/posttrain/encoder"),
        ("asvspoof5", ["--stage", 6], "exp/scores/dev.tsv"),
        ("asvspoof5", ["--stage", 7], "exp/finetune/model"),
        ("asvspoof2021", ["--stage", 5], "exp/finetune/model"),
        ("partialspoof", ["--stage", 5], "data/dev.segments.tsv"),
    ],
)
def test_a_stage_that_reads_what_is_not_there_is_refused_before_the_first_begins(
    run: Run, recipe: str, options: list[object], missing: str, tmp_path: Path
) -> None:
    (tmp_path / "data/la19").mkdir(parents=True)
    for name in ("train", "dev", "eval", "la19/train", "la19/dev", "la19/eval"):
        (tmp_path / f"data/{name}.tsv").touch()
    (tmp_path / missing).unlink(missing_ok=True)
    done = run(recipe, *options, "--data", "data", "--exp", "exp", ok=False, cwd=tmp_path)
    assert (done.returncode, "== Stage" in done.stderr) == (1, False)
    assert str(tmp_path / missing) in done.stderr
    assert not (tmp_path / "exp").exists()


def test_an_experiment_is_named_after_its_settings_unless_told(run: Run, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.v2.yaml").write_text("seed: 1\n")
    (tmp_path / "corpus").symlink_to(corpus)
    dry = ["--corpus", "corpus", "--data", "data", "--partial", "--dry-run"]
    assert f"experiment {EGS}/asvspoof5/exp/mfpt;" in run("asvspoof5", *dry, cwd=tmp_path).stderr
    assert (
        f"experiment {EGS}/asvspoof5/exp/aasist;"
        in run("asvspoof5", *dry, "--conf", "conf/aasist.yaml", "--posttrain", "false", cwd=tmp_path).stderr
    )
    assert (
        f"experiment {EGS}/asvspoof5/exp/mine.v2;"
        in run("asvspoof5", *dry, "--conf", "mine.v2.yaml", cwd=tmp_path).stderr
    )
    done = run("asvspoof5", *dry, "--conf", "mine.v2.yaml", "--exp", "here", cwd=tmp_path)
    assert f"experiment {tmp_path}/here;" in done.stderr
    # What was given, with paths that mean the same from any folder: slurm/submit.sh hands these to its jobs.
    assert done.stdout.splitlines() == [
        f"--corpus={tmp_path}/corpus",
        f"--conf={tmp_path}/mine.v2.yaml",
        f"--data={tmp_path}/data",
        f"--exp={tmp_path}/here",
        "--partial=true",
    ]


LISTS = {  # a recipe's corpora, by option, and a list of the last one, which stage 1 reads
    "asvspoof5": (["corpus"], "ASVspoof5.dev.track_1.tsv"),
    "asvspoof2021": (["la19", "la21", "itw", "df21"], "keys/DF/CM/trial_metadata.txt"),
    "partialspoof": (["la19", "corpus"], "PartialSpoof.LA.cm.eval.trl.txt"),
    "mini": (["corpus"], "ASVspoof5.eval.track_1.tsv"),
}


@pytest.mark.parametrize("recipe", LISTS)
def test_a_dry_run_refuses_a_corpus_without_the_lists_that_stage_1_reads(
    run: Run, recipe: str, corpus: Path, tmp_path: Path
) -> None:
    make = {"la19": make_asvspoof2019, "la21": make_asvspoof2021_la, "df21": make_asvspoof2021_df}
    make |= {"itw": make_in_the_wild, "corpus": make_partialspoof}
    names, name = LISTS[recipe]
    options: list[object] = ["--data", tmp_path / "data", "--exp", tmp_path / "exp", "--stage", 1, "--dry-run"]
    options += ["--encoder", "tiny"] if recipe == "mini" else ["--partial"]
    for one in names:
        options += [f"--{one}", tmp_path / one]
        if name.startswith("ASVspoof5"):
            shutil.copytree(corpus, tmp_path / one, symlinks=True)
        else:
            make[one](tmp_path / one)
    assert "can run" in run(recipe, *options).stderr
    (missing,) = (path for path in (tmp_path / names[-1]).rglob(Path(name).name) if str(path).endswith(name))
    missing.unlink()
    done = run(recipe, *options, ok=False)
    assert (done.returncode, "can run" in done.stderr) == (1, False)
    assert name in done.stderr
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "exp").exists()
    shutil.rmtree(tmp_path / names[0])
    (tmp_path / names[0]).mkdir()
    assert str(tmp_path / names[0]) in run(recipe, *options, ok=False).stderr


def test_stages_of_which_nothing_would_run_are_refused(run: Run) -> None:
    done = run("asvspoof5", "--stage", 2, "--stop-stage", 3, "--posttrain", "false", ok=False)
    assert "nothing would run" in done.stderr


def test_a_number_of_gpus_that_cannot_share_a_batch_is_refused_before_the_first_stage(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    options = ["--data", tmp_path / "data", "--exp", tmp_path / "exp", "--corpus", corpus, "--partial"]
    settings = ["--settings", "posttrain.batch_size=6 finetune.batch_size=4"]
    few = ["--settings", "posttrain.micro_batch_size=null finetune.micro_batch_size=null", "--ngpu", 3]
    done = run("asvspoof5", *options, *settings, *few, ok=False)
    assert "batch_size: 4 cannot be shared equally by 3 processes" in done.stderr
    assert list(tmp_path.iterdir()) == []
    run("asvspoof5", *options, *settings, *few, "--stop-stage", 3, "--dry-run")  # fine-tuning is not asked for


def test_arguments_that_a_verb_does_not_know_are_refused_before_the_first_stage(run: Run, tmp_path: Path) -> None:
    done = run("asvspoof5", "--corpus", tmp_path, "--finetune-args", "--tensorbord", "--data", tmp_path, ok=False)
    assert "--tensorbord" in done.stderr
    assert "--finetune-args" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--finetune-args", "--tensorboard --set finetune.optim.lr=1e-4"),
        ("--posttrain-args", "-c other.yaml"),
        ("--mixlist-args", "--set=mix.share=[0.3,0.5]"),
    ],
)
def test_settings_and_inputs_that_no_check_would_know_are_refused_before_the_first_stage(
    run: Run, option: str, words: str, corpus: Path, tmp_path: Path
) -> None:
    folders = ["--data", tmp_path / "data", "--exp", tmp_path / "exp", "--corpus", corpus, "--partial"]
    done = run("asvspoof5", *folders, option, words, "--dry-run", ok=False)
    assert done.returncode == 1
    assert f"{option}: " in done.stderr
    assert "use --settings" in done.stderr


def test_every_verb_of_the_stages_takes_arguments(run: Run, corpus: Path, tmp_path: Path) -> None:
    taken = {
        "prepare": "--on-error skip", "validate": "--read-audio", "mixlist": "--json", "posttrain": "--compile",
        "finetune": "--tensorboard", "score": "--crop whole", "evaluate": "--by speaker",
        "localize": "--min-region 0.1", "evaluate-segments": "--threshold 0",
    }  # fmt: skip
    options = [word for verb, words in taken.items() for word in (f"--{verb}-args", words)]
    folders = ["--data", tmp_path / "data", "--exp", tmp_path / "exp", "--corpus", corpus, "--partial"]
    done = run("asvspoof5", *folders, *options, "--dry-run")
    assert "can run" in done.stderr
    known = Path(__file__).parents[1].joinpath("tools/stages.sh").read_text()
    assert {name.replace("_", "-") for name in re.findall(r"^(\w+)_args=", known, re.MULTILINE)} == set(taken)


def test_a_misspelt_option_is_fatal(run: Run) -> None:
    done = run("asvspoof5", "--stagee", 3, ok=False)
    assert done.returncode == 1
    assert "did you mean --stage?" in done.stderr


def test_the_asvspoof2021_recipe_runs_from_four_corpora_to_the_gap(run: Run, tmp_path: Path) -> None:
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


def test_the_partialspoof_recipe_runs_from_two_corpora_to_segment_figures(run: Run, tmp_path: Path) -> None:
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
