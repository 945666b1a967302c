"""Reference-augmented training: who stands beside an utterance, what it changes, and two trainings in one command."""

import importlib
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from conftest import bytes_of_any_day, refusal, run_cli
from safetensors.torch import load_file

from spoofkit.config import load_config
from spoofkit.data.dataset import Item, UtteranceDataset, collate
from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.data.references import bonafide_of_speakers
from spoofkit.models.detector import Detector, load_detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.settings import EncoderSettings
from spoofkit.stages import read_stages

CONF = Path(__file__).parents[1] / "egs/asvspoof5/conf"
SETTINGS = """
crop_samples: 16000
encoder: {freeze: stem}
finetune:
  {precision: fp32, n_steps: 3, batch_size: 4, eval_every: 3, checkpoint_every: 1, head: rat, layers: all,
   optim: {lr: 1e-3, head_lr: 1e-3}, frozen_first: {n_steps: 4, batch_size: 6, eval_every: 4, head_lr: 1e-2}}
"""


def with_speakers(manifests: Path, folder: Path) -> Path:
    """Write train.tsv and dev.tsv with four utterances a speaker, two of them bona fide."""
    for name in ("train", "dev"):
        manifest = read_manifest(manifests / f"{name}.tsv")
        speaker = [f"{name}_{row // 4}" for row in range(manifest.table.height)]
        write_manifest(
            folder / f"{name}.tsv", manifest.root, manifest.table.with_columns(pl.Series("speaker", speaker))
        )
    return folder


@pytest.fixture(scope="module")
def speakers(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with train.tsv and dev.tsv in which every speaker has references; read only."""
    return with_speakers(manifests, tmp_path_factory.mktemp("speakers"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` as a folder, so that parts of it may be frozen; read only."""
    folder = tmp_path_factory.mktemp("encoder") / "plain"
    load_encoder(EncoderSettings(name="tiny", freeze="none")).save(folder)
    return folder


@pytest.fixture
def options(speakers: Path, encoder: Path, tmp_path: Path) -> list[object]:
    (tmp_path / "conf.yaml").write_text(SETTINGS)
    sources = ["--train", speakers / "train.tsv", "--dev", speakers / "dev.tsv", "--encoder", encoder]
    return [*sources, "-c", tmp_path / "conf.yaml"]


def with_references(path: Path, *overrides: str) -> UtteranceDataset:
    manifest = read_manifest(path)
    config = load_config(None, ["crop_samples=9000", *overrides])
    return UtteranceDataset(manifest, config, references=bonafide_of_speakers(manifest))


def drawn(item: Item) -> tuple[str, bytes, str, bytes]:
    assert item.reference is not None, f"{item.utt_id} has no reference"
    return item.utt_id, item.wave_S.tobytes(), item.reference.utt_id, item.reference.wave_S.tobytes()


def test_a_reference_is_a_bona_fide_utterance_of_the_speaker_and_each_of_them_in_turn(speakers: Path) -> None:
    dataset = with_references(speakers / "train.tsv")
    rows = {row["utt_id"]: row for row in dataset.manifest.table.iter_rows(named=True)}
    found: dict[str, set[str]] = {}
    for epoch in range(12):
        for index in range(len(dataset)):
            utt_id, _, reference, _ = drawn(dataset[epoch, index])
            assert rows[reference]["speaker"] == rows[utt_id]["speaker"]
            assert rows[reference]["key"] == "bonafide"
            found.setdefault(utt_id, set()).add(reference)
    # As in the authors' code, a bona fide utterance may be its own reference.
    assert all(len(references) == 2 for references in found.values())


def test_a_reference_and_its_crop_are_a_function_of_seed_epoch_and_index(speakers: Path, tmp_path: Path) -> None:
    dataset, again = (with_references(speakers / "train.tsv") for _ in range(2))
    keys = [(epoch, index) for epoch in range(3) for index in range(len(dataset))]
    forward = {key: drawn(dataset[key]) for key in keys}
    assert {key: drawn(again[key]) for key in reversed(keys)} == forward
    other_seed = with_references(speakers / "train.tsv", "seed=1")
    assert any(drawn(other_seed[key])[2] != forward[key][2] for key in keys)
    # The utterance's own crop is that of any other head.
    plain = UtteranceDataset(dataset.manifest, dataset.crop_with)
    assert all(plain[key].wave_S.tobytes() == forward[key][1] for key in keys)
    # An utterance that is its own reference stands there in another crop.
    same = [found for found in forward.values() if found[0] == found[2]]
    assert same
    assert all(found[1] != found[3] for found in same)
    run_cli("pack", speakers / "train.tsv", "-o", tmp_path / "packed")
    packed = with_references(tmp_path / "packed/train.tsv")
    assert {key: drawn(packed[key]) for key in keys} == forward


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (pl.lit("-"), ("16 of 16 utterances have no speaker",)),
        (pl.col("key"), ("1 of 2 speakers", "no bona fide", "spoof")),  # a speaker for each class
    ],
)
def test_a_training_list_without_references_is_refused_unless_they_are_zeros(
    change: pl.Expr, facts: tuple[str, ...], speakers: Path, options: list[object], tmp_path: Path
) -> None:
    manifest = read_manifest(speakers / "train.tsv")
    write_manifest(tmp_path / "train.tsv", manifest.root, manifest.table.with_columns(change.alias("speaker")))
    options[1] = tmp_path / "train.tsv"
    sentence = refusal("finetune", tmp_path / "exp", *options)
    assert all(fact in sentence for fact in (str(tmp_path / "train.tsv"), *facts, "finetune.reference: zeros"))
    run_cli("finetune", tmp_path / "exp", *options, "--set", "finetune.reference=zeros", "--dry-run")


@pytest.mark.parametrize("layers", ["all", "last", "weighted", "gated", 2])
def test_a_reference_reaches_the_embedding_whatever_is_beside_it_in_the_batch(layers: str | int) -> None:
    torch.manual_seed(3)
    detector = Detector(load_encoder(EncoderSettings(name="tiny", freeze="none")), "rat", layers).eval()
    waves = [np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in (9_000, 4_000, 5_000, 11_000)]
    tested, references = (collate([Item("", wave) for wave in part]) for part in (waves[:2], waves[2:]))
    together = detector.embed_with_reference(
        (tested.wave_BS, tested.n_samples_B), (references.wave_BS, references.n_samples_B)
    )
    with torch.no_grad():
        for row in range(2):
            pair = [collate([Item("", wave)]) for wave in (waves[row], waves[2 + row])]
            alone = detector.embed_with_reference(*((part.wave_BS, part.n_samples_B) for part in pair))
            assert torch.allclose(together[row], alone[0], atol=1e-5)
        without = detector.embed(tested.wave_BS, tested.n_samples_B)
    assert float((together.detach() - without).abs().max()) > 1e-3
    together.sum().backward()
    assert all(parameter.grad is not None for parameter in detector.head.head.parameters())


def test_both_trainings_resume_to_the_same_bytes_and_are_recorded(options: list[object], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    run_cli("finetune", whole, *options)
    for kept in ("frozen/checkpoints/step_0000002", "checkpoints/step_0000002"):
        cut = tmp_path / kept.replace("/", "_")
        shutil.copytree(whole, cut)
        shutil.rmtree(cut / "model")
        if kept.startswith("frozen"):
            for name in ("checkpoints", "frozen/model"):
                shutil.rmtree(cut / name)
        for step in list((cut / kept).parent.glob("step_*")):
            if step.name > "step_0000002":
                shutil.rmtree(step)
        run_cli("finetune", cut, *options)
        for path in sorted(path for path in (whole / "model").rglob("*") if path.is_file() and path.suffix != ".json"):
            if path.name != "SHA256SUMS":  # stages.json says when
                assert path.read_bytes() == (cut / path.relative_to(whole)).read_bytes(), path
        for stage in ("model", "frozen/model"):
            assert bytes_of_any_day(cut / stage / "encoder/stages.json") == bytes_of_any_day(
                whole / stage / "encoder/stages.json"
            )
    stages = read_stages(whole / "model/encoder")
    assert [(stage["n_steps"], stage["settings"]["encoder"]["freeze"]) for stage in stages] == [(4, "all"), (3, "stem")]
    assert set(stages[1]["inputs"]) - set(stages[0]["inputs"]) == {"model"}
    before = (whole / "metrics.jsonl").stat().st_mtime_ns
    assert "finished already" in run_cli("finetune", whole, *options).stderr
    assert (whole / "metrics.jsonl").stat().st_mtime_ns == before
    assert "holds an experiment with other settings" in refusal(
        "finetune", whole, *options, "--set", "finetune.frozen_first.n_steps=5"
    )


@pytest.mark.parametrize(
    ("moment", "number", "exit_code"),
    [("loop.draw_curve", signal.SIGTERM, 75), ("finetune.save_detector", signal.SIGINT, 130)],
)
def test_a_signal_after_the_last_step_of_the_first_training_keeps_the_second_from_beginning(
    moment: str, number: int, exit_code: int, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name = f"spoofkit.training.{moment}".rsplit(".", 1)
    work = getattr(importlib.import_module(module), name)

    def work_when_told_to_stop(*arguments: object) -> None:
        os.kill(os.getpid(), number)
        work(*arguments)

    exp = tmp_path / "exp"
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{name}", work_when_told_to_stop)
        done = run_cli("finetune", exp, *options, ok=False)
    assert done.returncode == exit_code
    assert f"{exp / 'frozen'}: finished and saved" in done.stderr
    assert (exp / "frozen/model/model.json").is_file()
    assert not (exp / "metrics.jsonl").exists()
    run_cli("finetune", exp, *options)
    assert len((exp / "frozen/runs.jsonl").read_text().splitlines()) == 1
    assert (exp / "model/model.json").is_file()


def test_the_second_training_continues_the_head_of_the_first_on_an_encoder_that_it_left_alone(
    options: list[object], encoder: Path, tmp_path: Path
) -> None:
    nothing = ["--set", "finetune.n_steps=1", "--set", "finetune.optim={lr: 1e-12, head_lr: 1e-12}"]
    adapters = ["--set", "encoder.lora={rank: 4}"]
    for name, extra in (("weights", []), ("adapters", adapters)):
        exp = tmp_path / name
        run_cli("finetune", exp, *options, *nothing, *extra)
        first, second = (load_file(exp / part / "head.safetensors") for part in ("frozen/model", "model"))
        for tensor in first:
            if "running" not in tensor and "num_batches" not in tensor:
                assert torch.allclose(first[tensor], second[tensor], atol=1e-9), tensor
        untouched = load_file(encoder / "model.safetensors")
        frozen = load_file(exp / "frozen/model/encoder/model.safetensors")
        assert all(torch.equal(frozen[tensor], untouched[tensor]) for tensor in untouched)
        assert (exp / "model/encoder/adapter_model.safetensors").exists() == (name == "adapters")
    fresh = Detector(load_encoder(EncoderSettings(name=str(encoder))), "rat", "all")
    learnt, _ = load_detector(tmp_path / "weights/model")
    assert not torch.allclose(fresh.head.head.mlp[0].weight, learnt.head.head.mlp[0].weight)


def test_a_dry_run_describes_both_trainings_and_writes_nothing(options: list[object], tmp_path: Path) -> None:
    done = run_cli("finetune", tmp_path / "exp", *options, "--dry-run")
    steps = [line for line in done.stdout.splitlines() if "steps:" in line]
    assert [line.split(":")[0] for line in steps] == ["frozen", "all"]
    assert "4 of 6 items" in steps[0]
    assert "3 of 4 items" in steps[1]
    trained = [int(line.split()[2].replace(",", "")) for line in done.stdout.splitlines() if "parameters:" in line]
    head = Detector(load_encoder(EncoderSettings(name="tiny", freeze="none")), "rat", "all").head
    assert trained[0] == sum(parameter.numel() for parameter in head.parameters()) < trained[1]
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(
    ("settings", "fact"),
    [
        ("finetune: {reference: zeros}", "reference: is not used by head mean"),
        ("finetune: {head: rat, frozen_first: {batch_size: 1}}", "frozen_first: batch_size: 1 gives head rat"),
        ("finetune: {frozen_first: {batch_size: 6, micro_batch_size: 4}}", "frozen_first: micro_batch_size"),
        ("finetune: {frozen_first: {lr: 1}}", "unknown setting finetune.frozen_first.lr"),
        ("{encoder: {name: tiny, freeze: none}, finetune: {frozen_first: {}}}", "tiny starts from random weights"),
    ],
)
def test_settings_of_the_first_training_are_checked_with_the_others(settings: str, fact: str, tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text(settings)
    assert fact in refusal("finetune", tmp_path / "exp", "--train", "a", "--dev", "b", "-c", tmp_path / "conf.yaml")


@pytest.mark.release
def test_a_dry_run_of_the_published_recipe_counts_the_parameters_of_xls_r_300m(speakers: Path, tmp_path: Path) -> None:
    """With random weights in its shape."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    shape = Wav2Vec2Config(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, conv_bias=True,
        do_stable_layer_norm=True, feat_extract_norm="layer",
    )  # fmt: skip
    Wav2Vec2Model(shape).save_pretrained(tmp_path / "xlsr")
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(tmp_path / "xlsr")
    small = [f"finetune.{name}=2" for name in ("batch_size", "micro_batch_size")]
    small += ["finetune.frozen_first.batch_size=2", "finetune.frozen_first.micro_batch_size=2", "crop_samples=16000"]
    done = run_cli(
        *("finetune", tmp_path / "exp", "--train", speakers / "train.tsv", "--dev", speakers / "dev.tsv", "--dry-run"),
        *("-c", CONF / "rat.yaml", "--encoder", tmp_path / "xlsr", "--device", "cpu"),
        *(part for setting in small for part in ("--set", setting)),
    )
    found = re.findall(r"(\w+): parameters: ([\d,]+) of ([\d,]+)", done.stdout)
    counts = {stage: (int(trained.replace(",", "")), int(n.replace(",", ""))) for stage, trained, n in found}
    n_encoder, n_head = 315_438_720, 13_254_402  # the head: of the authors' classifier
    assert counts["frozen"] == (n_head, n_encoder + n_head)
    unused = counts["all"][1] - counts["all"][0]  # by scores: the embedding of masked frames, the last norm
    assert counts["all"][1] == n_encoder + n_head
    assert 0 <= unused <= 3 * 1024


def shortened(stage: str, n: int) -> list[object]:
    sets = [f"{stage}.n_steps={n}", f"{stage}.batch_size=4", f"{stage}.eval_every={n}"]
    if stage == "finetune":
        sets.append("finetune.frozen_first={n_steps: 1, batch_size: 4}")
    else:
        sets.append("posttrain.micro_batch_size=4")
    return [part for setting in sets for part in ("--set", setting)]


def test_both_recipes_train_in_miniature_and_score_and_export_without_references(
    speakers: Path, encoder: Path, tmp_path: Path
) -> None:
    """Every augmentation of the two files is on; noise, which needs files, is not among them."""
    sources = ["--train", speakers / "train.tsv", "--dev", speakers / "dev.tsv"]
    smaller = ["--set", f"encoder.name={encoder}", "--set", "mix.n_train=8", "--set", "mix.n_dev=8"]
    post = ["-c", CONF / "mfpt_rat.yaml", *smaller]
    for name, held_out in (("train", []), ("dev", ["--held-out"])):
        out = tmp_path / f"post/mix{'_dev' if held_out else ''}.tsv"
        out.parent.mkdir(exist_ok=True)
        run_cli("mixlist", "draw", speakers / f"{name}.tsv", "-o", out, *post, *held_out)
    run_cli("posttrain", tmp_path / "post", *sources, *post, *shortened("posttrain", 1))
    both = [*post, "--encoder", tmp_path / "post/encoder"]
    for name, conf in (("rat", ["-c", CONF / "rat.yaml", "--encoder", encoder]), ("mfpt_rat", both)):
        run_cli("finetune", tmp_path / name, *sources, *conf, *shortened("finetune", 1))
    before, after = (load_config(CONF / f"{name}.yaml").finetune for name in ("rat", "mfpt_rat"))
    assert after == before
    stages = read_stages(tmp_path / "mfpt_rat/model/encoder")
    assert [stage["stage"] for stage in stages] == ["post-training", "fine-tuning", "fine-tuning"]
    run_cli("export", tmp_path / "rat/model", "-o", tmp_path / "rat.onnx")
    for model in ("rat/model", "rat.onnx"):
        run_cli("score", tmp_path / model, speakers / "dev.tsv", "-o", tmp_path / f"{Path(model).name}.tsv")
    torch_scores, onnx_scores = (
        pl.read_csv(tmp_path / f"{name}.tsv", separator="\t", comment_prefix="#").to_series(1)
        for name in ("model", "rat.onnx")
    )
    assert np.abs(torch_scores.to_numpy() - onnx_scores.to_numpy()).max() < 1e-4


def test_an_experiment_of_a_version_without_these_settings_is_still_finished(
    options: list[object], tmp_path: Path
) -> None:
    short = ["--set", "finetune={head: mean, n_steps: 1, batch_size: 4}"]
    run_cli("finetune", tmp_path / "exp", *options, *short)
    recorded = yaml.safe_load((tmp_path / "exp/config.yaml").read_text())
    for name in ("reference", "frozen_first"):
        del recorded["finetune"][name]
    (tmp_path / "exp/config.yaml").write_text(yaml.safe_dump(recorded))
    assert "finished already" in run_cli("finetune", tmp_path / "exp", *options, *short).stderr
