"""Adapters: in every family what peft makes of them; kept without their base, which is known to the bit; the same ones
are trained in post-training and in fine-tuning; merged or not, they compute the same."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refusal, run_cli, without_sums
from safetensors.torch import load_file, save_file
from test_encoder import FAMILIES, last, make_folder, our_features, voices
from warm import WarmPython

from spoofkit.config import load_config
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.scores import read_scores
from spoofkit.models.detector import Detector, detector_sha256, folder_sha256, load_detector, save_detector
from spoofkit.models.encoder import Encoder
from spoofkit.models.pretrained import load_encoder
from spoofkit.settings import EncoderSettings
from spoofkit.training import checkpoints, resume

ADAPTERS = "adapter_model.safetensors"
ALL = ["attention", "output", "feed_forward"]
N_LINEAR = {"attention": 3, "output": 1, "feed_forward": 2}
SMALL = "encoder.lora={rank: 2, alpha: 3, dropout: 0.1, targets: [attention, feed_forward]}"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small random network of each family as a Hugging Face folder; read only."""
    return {name: make_folder(name, tmp_path_factory.mktemp(name)) for name in FAMILIES}


def load(folder: Path | str, lora: dict[str, object] | None = None, **options: object) -> Encoder:
    return load_encoder(EncoderSettings(name=str(folder), lora=lora, **options), seed=1).eval()


def learnt(encoder: Encoder, seed: int = 0) -> Encoder:
    """Give the adapters values, as a training would."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return encoder


@pytest.fixture(scope="module")
def adapted(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters on the small WavLM; read only."""
    folder = tmp_path_factory.mktemp("adapted") / "encoder"
    learnt(load(bases["wavlm-layer"], {"rank": 2, "alpha": 3})).save(folder)
    return folder


@pytest.fixture(scope="module")
def sources(
    bases: dict[str, Path], manifests: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[object]]:
    """Options of short trainings, by stage."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "conf.yaml").write_text(
        f"crop_samples: 8000\n"
        f"encoder: {{name: {bases['wavlm-layer']}}}\n"
        "mix: {n_train: 12, n_dev: 8, min_region_samples: 800, margin_samples: 400}\n"
        "posttrain: &short\n"
        "  {precision: fp32, n_steps: 4, batch_size: 4, eval_every: 2, checkpoint_every: 1, keep: last,\n"
        "   optim: {lr: 1e-2, warmup_share: 0}}\n"
        "finetune: {<<: *short}\n"
    )
    for name, more in (("train", []), ("dev", ["--held-out"])):
        listed = manifests / f"{name}.tsv"
        run_cli("mixlist", "draw", listed, "-o", folder / listed.name, "-c", folder / "conf.yaml", *more)
    common = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", folder / "conf.yaml"]
    mixes = ["--mix", folder / "train.tsv", "--dev-mix", folder / "dev.tsv"]
    return {"finetune": common, "posttrain": [*common, *mixes]}


def sets(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


# ---- What peft makes of the same folder


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # that of peft's wrapper
@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_peft_reads_the_folder_without_a_missing_key_and_computes_the_same(
    name: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    import transformers as hf
    from peft import PeftModel

    encoder = load(bases[name], {"rank": 2, "alpha": 3, "targets": ALL})
    wave, n_samples = voices([480_000 if name == "whisper" else 16_000])
    before = last(encoder, wave, n_samples)
    assert torch.allclose(before, last(load(bases[name]), wave, n_samples), atol=1e-5)  # they start at zero
    trained = last(learnt(encoder), wave, n_samples)
    assert (trained - before).abs().max() > 0.01
    encoder.save(tmp_path / "encoder")
    wrapped = PeftModel.from_pretrained(hf.AutoModel.from_pretrained(bases[name]), str(tmp_path / "encoder")).eval()
    kept = load_file(tmp_path / "encoder" / ADAPTERS)
    own = {key.replace(".default", ""): t for key, t in wrapped.state_dict().items() if ".lora_" in key}
    assert own.keys() == kept.keys()
    assert all(torch.equal(own[key], kept[key]) for key in kept)
    features = our_features(encoder, wave, n_samples, bases[name])
    network = wrapped.base_model.model
    outputs = []
    for _ in range(2):
        outputs.append((network.encoder if name == "whisper" else network)(features).last_hidden_state)
        network = wrapped.merge_and_unload()
    unmerged, merged = outputs
    assert torch.allclose(merged, trained, atol=1e-4)
    # transformers' WavLM reads the weights of its projections past their adapters, as docs/models.md says.
    assert torch.allclose(unmerged, trained, atol=1e-4) != name.startswith("wavlm")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_peft_misses_no_key_where_its_base_has_more_layers_than_are_kept(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    import transformers as hf
    from peft import PeftModel

    base = bases["wavlm-layer"]
    encoder = load(base, {"rank": 2}, n_layers=1)
    learnt(encoder).save(tmp_path / "encoder")
    network = hf.AutoModel.from_pretrained(base)
    assert len(network.encoder.layers) > 1
    wrapped = PeftModel.from_pretrained(network, str(tmp_path / "encoder"))  # it warns of keys that it misses
    own = {key.replace(".default", "") for key in wrapped.state_dict() if ".lora_" in key}
    assert own == load_file(tmp_path / "encoder" / ADAPTERS).keys()


@pytest.mark.parametrize("name", ["wav2vec2-layer", "wavlm-group", "w2v-bert-relative_key", "whisper"])
@torch.inference_mode()
def test_a_role_means_the_same_layers_in_every_family_and_they_are_read_merged(
    name: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    wave, n_samples = voices([8_000])
    for role, n_linear in N_LINEAR.items():
        encoder = load(bases[name], {"rank": 2, "targets": [role]}, n_layers=2)
        trained = {n for n, p in encoder.network.named_parameters() if p.requires_grad}
        twice = 2 if role == "feed_forward" and name.startswith("w2v-bert") else 1
        assert len(trained) == 2 * 2 * n_linear * twice
        assert all(".lora_" in n for n in trained)
        learnt(encoder).save(tmp_path / role)
        assert not list((tmp_path / role).glob("model*"))
        again = load(tmp_path / role)
        assert (len(again.layers), again.adapters["targets"]) == (2, [role])
        assert again.network.state_dict().keys() == load(bases[name], n_layers=2).network.state_dict().keys()
        assert torch.allclose(last(again, wave, n_samples), last(encoder, wave, n_samples), atol=1e-4)


def test_a_target_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("encoder: {lora: {targets: [q_proj]}}")
    with pytest.raises(SpoofkitError, match=r"encoder\.lora\.targets.*'attention', 'output' or 'feed_forward'.*q_proj"):
        load_config(tmp_path / "conf.yaml")
    with pytest.raises(SpoofkitError, match=r"encoder\.lora\.targets: attention matches no linear layer"):
        load("sinc-aasist", {})


@pytest.mark.parametrize("name", ["wavlm-layer", "w2v-bert-rotary", "whisper"])
def test_the_frozen_network_below_the_adapters_has_no_dropout_in_training(name: str, bases: dict[str, Path]) -> None:
    encoder = load(bases[name], {"rank": 2})
    if name == "whisper":
        encoder.network.dropout = 0.5
    else:
        encoder.network.encoder.dropout.p = 0.5
    wave, n_samples = torch.randn(1, 8_000), torch.tensor([8_000])
    in_scoring, in_training = (encoder.train(mode)(wave, n_samples, wanted=0)[0][0] for mode in (False, True))
    assert torch.equal(in_scoring, in_training)


# ---- From post-training to a detector


@pytest.fixture(scope="module")
def trained(bases: dict[str, Path], sources: dict[str, list[object]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with adapters through both stages; read only."""
    exp = tmp_path_factory.mktemp("exp")
    before = folder_sha256(bases["wavlm-layer"])
    run_cli("posttrain", exp / "posttrain", *sources["posttrain"], *sets(SMALL))
    encoder = ["--encoder", exp / "posttrain/encoder"]
    run_cli("finetune", exp / "finetune", *sources["finetune"], *encoder, *sets(SMALL))
    assert folder_sha256(bases["wavlm-layer"]) == before
    return exp


def test_fine_tuning_goes_on_with_the_same_adapters(trained: Path, bases: dict[str, Path]) -> None:
    left = load_file(trained / "posttrain/encoder" / ADAPTERS)
    assert any(bool(t.any()) for name, t in left.items() if "lora_B" in name)
    lora = {"rank": 2, "alpha": 3}
    first = load(trained / "posttrain/encoder", lora).network.state_dict()
    for name, tensor in left.items():
        own = name.replace("base_model.model.", "").replace(".weight", ".default.weight")
        assert torch.equal(first[own], tensor)
    further = load_file(trained / "finetune/model/encoder" / ADAPTERS)
    assert all(not torch.equal(left[name], further[name]) for name in left)
    record = json.loads((trained / "finetune/model/encoder/base.json").read_text())
    assert record["name"] == str(bases["wavlm-layer"])
    # Neither a model nor a checkpoint holds the base.
    small = (bases["wavlm-layer"] / "model.safetensors").stat().st_size / 2
    for kind in ("posttrain/encoder", "finetune/model", "finetune/checkpoints/step_0000004"):
        assert sum(path.stat().st_size for path in (trained / kind).rglob("*") if path.is_file()) < small, kind


def test_every_verb_takes_a_model_with_adapters(
    trained: Path, sources: dict[str, list[object]], manifests: Path, corpus: Path, tmp_path: Path
) -> None:
    model, audio = trained / "finetune/model", sorted(corpus.rglob("flac_E_eval/*.flac"))[:2]
    run_cli("merge", model, "-o", tmp_path / "merged")
    assert not (tmp_path / "merged/encoder/adapter_config.json").exists()
    for name in (model, tmp_path / "merged"):
        run_cli("score", name, manifests / "eval.tsv", "-o", tmp_path / f"{name.name}.tsv")
    scores = [read_scores(tmp_path / f"{name}.tsv")["score"].to_numpy() for name in ("model", "merged")]
    assert np.abs(scores[0] - scores[1]).max() < 1e-5
    facts = json.loads(run_cli("info", model, "--json").stdout)
    assert facts["adapters"]["rank"] == 2
    assert facts["adapters"]["targets"] == ["attention", "feed_forward"]
    assert facts["adapters"]["parameters"] == 3 * 2 * (3 * 2 * 32 + 2 * (32 + 48))
    lines = " ".join(run_cli("info", trained / "posttrain/encoder").stdout.split())
    assert facts["adapters"]["base_sha256"] in lines
    assert "LoRA of rank 2, alpha 3, on attention, feed_forward" in lines
    run_cli("localize", trained / "posttrain", *audio, "-o", tmp_path / "marked")
    onto = ["--onto", model, *sources["posttrain"]]
    run_cli("posttrain", tmp_path / "timeline", *onto)
    both = tmp_path / "timeline/model"
    assert detector_sha256(both) == detector_sha256(model)
    run_cli("merge", both, "-o", tmp_path / "both")
    run_cli("localize", tmp_path / "both", *audio, "-o", tmp_path / "marked2")
    assert "has no adapters to merge" in refusal("merge", tmp_path / "both", "-o", tmp_path / "x")
    assert "exists already" in refusal("merge", both, "-o", tmp_path / "both")


def test_a_model_with_adapters_is_exported(trained: Path, manifests: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    run_cli("export", trained / "finetune/model", "-o", tmp_path / "model.onnx")
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["model_sha256"] == detector_sha256(trained / "finetune/model")


@torch.inference_mode()
def test_scores_of_a_model_in_training_equal_those_of_its_folder(bases: dict[str, Path], tmp_path: Path) -> None:
    detector = Detector(learnt(load(bases["wavlm-layer"], {"rank": 4})), "attentive").eval()
    wave, n_samples = voices([9_000, 6_000])
    save_detector(tmp_path / "model", detector, {})
    again, _ = load_detector(tmp_path / "model")
    assert torch.allclose(again(wave, n_samples), detector(wave, n_samples), atol=1e-5)


def test_adapters_are_merged_for_new_ones_or_for_all_weights_when_told_so(
    trained: Path, sources: dict[str, list[object]], tmp_path: Path
) -> None:
    options = [*sources["finetune"], "--encoder", trained / "posttrain/encoder"]
    merged = load(trained / "posttrain/encoder").network.state_dict()
    adapted = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "_dense.weight")
    for name, how in (("all", []), ("new", ["encoder.lora={rank: 3, start: new}"])):
        run_cli("finetune", tmp_path / name, *options, *sets("finetune.n_steps=1", "finetune.optim.lr=1e-5", *how))
        assert "of its adapters, merged; " in (tmp_path / name / "train.log").read_text()
        weights = load_file(tmp_path / name / "model/encoder/model.safetensors")  # plain
        assert all(torch.allclose(weights[key], merged[key], atol=1e-4) for key in merged)
        moved = {key for key in merged if not torch.equal(weights[key], merged[key])}
        of_new_ones = {key for key in merged if key.endswith(adapted)}
        assert moved > of_new_ones if name == "all" else moved == of_new_ones


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("lora: {rank: 4, alpha: 3}", "encoder.lora.rank: 4 in the settings, but the adapters of .* have 2"),
        ("lora: {rank: 2, alpha: 4}", "encoder.lora.alpha: 4.0 in the settings, but the adapters of .* have 3.0"),
        (
            "lora: {rank: 2, alpha: 3, targets: [output]}",
            "encoder.lora.targets: .*output.* have .*attention.*feed_forward",
        ),
        ("lora: {rank: 2, alpha: 3}, n_layers: 2", "encoder.n_layers: 2 in the settings, but .* adapters in 3 layers"),
        ("lora: {rank: 2, alpha: 3}, n_layers: 4", "encoder.n_layers: 4 in the settings, but .* adapters in 3 layers"),
    ],
)
def test_adapters_do_not_go_on_under_other_settings(
    settings: str, sentence: str, adapted: Path, tmp_path: Path
) -> None:
    (tmp_path / "conf.yaml").write_text(f"encoder: {{name: {adapted}, {settings}}}")
    with pytest.raises(SpoofkitError, match=sentence):
        load_encoder(load_config(tmp_path / "conf.yaml").encoder)


# ---- Resuming, averages


def test_a_resumed_run_with_adapters_ends_with_the_same_bits(
    trained: Path, sources: dict[str, list[object]], tmp_path: Path
) -> None:
    """Whole kills at random moments: tests/test_resume.py, case lora."""
    exp = Path(shutil.copytree(trained / "finetune", tmp_path / "exp"))
    shutil.rmtree(exp / "model")
    shutil.rmtree(exp / "checkpoints/step_0000004")
    options = [*sources["finetune"], "--encoder", trained / "posttrain/encoder", *sets(SMALL)]
    run_cli("finetune", exp, *options)
    assert "from step 3 of 4" in (exp / "train.log").read_text()
    for name in (f"model/encoder/{ADAPTERS}", "model/head.safetensors", "metrics.jsonl"):
        assert (exp / name).read_bytes() == (trained / "finetune" / name).read_bytes(), name


def test_a_run_is_not_resumed_on_other_frozen_weights(bases: dict[str, Path], tmp_path: Path) -> None:
    encoder, state = load(bases["wavlm-layer"], {}), checkpoints.LoopState()
    resume.require_same_base(tmp_path, state, encoder)
    resume.require_same_base(tmp_path, state, encoder)
    other = load(change_a_bit(bases["wavlm-layer"], tmp_path / "other"), {})
    with pytest.raises(SpoofkitError, match="began on frozen weights with SHA-256"):
        resume.require_same_base(tmp_path, state, other)


def test_the_mean_of_models_is_that_of_their_merged_weights(bases: dict[str, Path], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        save_detector(folder, Detector(learnt(load(bases["wavlm-layer"], {"rank": 2}), seed), "attentive"), {})
    run_cli("average", *folders, "-o", tmp_path / "mean")
    states = [load_detector(folder)[0].state_dict() for folder in folders]
    mean = load_detector(tmp_path / "mean")[0].state_dict()
    for name, tensor in mean.items():
        assert torch.allclose(tensor, torch.stack([state[name] for state in states]).mean(0), atol=1e-6), name
    assert {path.name for path in (tmp_path / "mean/encoder").iterdir()} == {
        "SHA256SUMS", "config.json", "model.safetensors", "preprocessor_config.json", "stages.json",
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "mean", "mean.made_from.json"]


def test_a_damaged_head_is_not_merged(bases: dict[str, Path], tmp_path: Path) -> None:
    save_detector(tmp_path / "model", Detector(learnt(load(bases["wavlm-layer"], {"rank": 2}), 0), "attentive"), {})
    head = tmp_path / "model/head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\0")
    assert "head.safetensors" in refusal("merge", tmp_path / "model", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_mean_of_the_best_evaluations_is_merged_before_it_is_made(
    bases: dict[str, Path], sources: dict[str, list[object]], tmp_path: Path
) -> None:
    exp, options = tmp_path / "exp", [*sources["finetune"], *sets(SMALL, "finetune.keep=best", "finetune.eval_every=1")]
    run_cli("finetune", exp, *options, *sets("finetune.average_best=3"))
    kept = [load_file(path) for path in sorted((exp / "checkpoints/best").iterdir())]
    assert len(kept) == 3
    plain = load(bases["wavlm-layer"]).network.state_dict()
    found = load_file(exp / "model/encoder/model.safetensors")
    assert found.keys() == plain.keys()
    for name, tensor in plain.items():
        start = f"encoder.network.{name.removesuffix('.weight')}.lora_"
        if f"{start}A.default.weight" in kept[0]:
            products = [best[f"{start}B.default.weight"] @ best[f"{start}A.default.weight"] for best in kept]
            tensor = tensor + 3 / 2 * torch.stack(products).mean(0)
        assert torch.allclose(found[name], tensor, atol=1e-6), name
    head = torch.stack([best["head.output.linear.weight"] for best in kept]).mean(0)
    assert torch.allclose(load_file(exp / "model/head.safetensors")["output.linear.weight"], head, atol=1e-6)


def test_a_moving_average_of_adapters_is_evaluated_and_handed_on_as_adapters(
    sources: dict[str, list[object]], tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    run_cli("finetune", exp, *sources["finetune"], *sets(SMALL, "finetune.ema_decay=0.5"))
    averages = load_file(exp / "checkpoints/step_0000004/extra.safetensors")
    found = load_file(exp / "model/encoder" / ADAPTERS)
    for name, tensor in found.items():
        own = name.replace("base_model.model.", "encoder.network.").replace(".weight", ".default.weight")
        assert torch.equal(tensor, averages[own])


# ---- The base


def change_a_bit(base: Path, copy: Path) -> Path:
    """A copy of a folder, in whose weights one bit is another."""
    shutil.copytree(base, copy)
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1  # the last bit of the last number
    path.write_bytes(content)
    return copy


def test_a_base_changed_by_one_bit_is_refused_and_one_that_moved_is_found_by_its_hash(
    bases: dict[str, Path], manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(bases["wavlm-layer"], tmp_path / "base"))
    save_detector(tmp_path / "model", Detector(learnt(load(base, {"rank": 2})), "mean"), {})
    score = ["score", tmp_path / "model", manifests / "eval.tsv"]
    run_cli(*score, "-o", tmp_path / "first.tsv")
    base.rename(tmp_path / "moved")
    sentence = refusal(*score, "-o", tmp_path / "x.tsv")
    assert f"the folder {base}, is missing" in sentence
    assert "SPOOFKIT_BASE=FOLDER" in sentence
    monkeypatch.setenv("SPOOFKIT_BASE", str(tmp_path / "moved"))
    run_cli(*score, "-o", tmp_path / "second.tsv")
    assert (tmp_path / "first.tsv").read_bytes() == (tmp_path / "second.tsv").read_bytes()
    hashes = [json.loads((tmp_path / f"{name}.json").read_text())["model_sha256"] for name in ("first", "second")]
    assert hashes[0] == hashes[1]
    monkeypatch.delenv("SPOOFKIT_BASE")
    change_a_bit(tmp_path / "moved", base)
    sentence = refusal(*score, "-o", tmp_path / "x.tsv")
    assert f"its adapters were trained on {base} with SHA-256" in sentence
    assert not (tmp_path / "x.tsv").exists()


def test_a_base_may_be_kept_in_another_kind_of_file(bases: dict[str, Path], adapted: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    AutoModel.from_pretrained(bases["wavlm-layer"]).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    copy = without_sums(shutil.copytree(adapted, tmp_path / "encoder"))
    edit_json(copy / "base.json", {"name": str(tmp_path / "shards")})
    assert load(copy).adapters["base"] == str(tmp_path / "shards")


def test_a_base_from_the_hub_is_known_by_its_commit(
    warm_python: WarmPython, bases: dict[str, Path], tmp_path: Path
) -> None:
    """In a cache as the hub's client leaves it, without network; main has moved on to other weights since."""
    repository = Path(warm_python.environ["HF_HUB_CACHE"]) / "models--lab--wavlm"
    first, second = (letter * 40 for letter in "ab")
    shutil.copytree(bases["wavlm-layer"], repository / "snapshots" / first)
    change_a_bit(bases["wavlm-layer"], repository / "snapshots" / second)
    (repository / "refs").mkdir()
    code = (
        "import pathlib, sys\n"
        "from spoofkit.models.pretrained import load_encoder\n"
        "from spoofkit.settings import EncoderSettings\n"
        "name, folder = sys.argv[1:]\n"
        "encoder = load_encoder(EncoderSettings(name=name, lora={} if folder else None))\n"
        "encoder.save(pathlib.Path(folder)) if folder else print(encoder.adapters)\n"
    )

    def run(main: str, name: str, folder: str) -> subprocess.CompletedProcess[str]:
        (repository / "refs/main").write_text(main)
        return subprocess.run(
            [warm_python.python, "-c", code, name, folder],
            env=warm_python.environ,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run(first, "lab/wavlm", str(tmp_path / "encoder"))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "encoder/base.json").read_text())
    assert (record["name"], record["revision"]) == ("lab/wavlm", first)
    done = run(second, str(tmp_path / "encoder"), "")
    assert f"'base_revision': '{first}'" in done.stdout, done.stderr
    edit_json(without_sums(tmp_path / "encoder") / "base.json", {"revision": "main"})
    done = run(second, str(tmp_path / "encoder"), "")
    assert "were trained on lab/wavlm with SHA-256" in done.stderr


# ---- What is no folder of adapters


def edit_json(path: Path, changes: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path, dict[str, Path]], None]:
    def change(folder: Path, _: dict[str, Path]) -> None:
        tensors = load_file(folder / ADAPTERS)
        edit(tensors)
        save_file(tensors, folder / ADAPTERS, metadata={"format": "pt"})

    return change


def of_another_base(folder: Path, bases: dict[str, Path]) -> None:
    """As good in every shape and name."""
    other = change_a_bit(bases["wavlm-layer"], folder.parent / "other")
    learnt(load(other, {"rank": 2, "alpha": 3}), 1).save(folder.parent / "others")
    shutil.copy(folder.parent / "others" / ADAPTERS, folder)


def as_hubert(folder: Path, bases: dict[str, Path]) -> None:
    """HuBERT's tensors are called as WavLM's, but for its position bias."""
    edit_json(folder / "base.json", {"name": str(bases["hubert-layer"])})


def as_whisper(folder: Path, bases: dict[str, Path]) -> None:
    shutil.copy(bases["whisper"] / "config.json", folder)
    shutil.copy(bases["whisper"] / "preprocessor_config.json", folder)
    edit_json(folder / "base.json", {"name": str(bases["whisper"])})


def cut_short(folder: Path, _: dict[str, Path]) -> None:
    (folder / ADAPTERS).write_bytes((folder / ADAPTERS).read_bytes()[:5000])


FIRST = "base_model.model.encoder.layers.0.attention.k_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (of_another_base, "its SHA-256 differs from that in base.json"),
        (as_hubert, "tensors are missing"),
        (as_whisper, "does not describe adapters as spoofkit trains them"),
        (edit_tensors(lambda tensors: tensors[FIRST].fill_(float("nan"))), "holds NaN or infinite values"),
        (cut_short, "damaged or cut short"),
        (edit_tensors(lambda tensors: tensors.pop(FIRST)), "its SHA-256 differs from that in base.json"),
        (lambda folder, _: (folder / "base.json").unlink(), "holds adapters but no base.json"),
        (lambda folder, _: edit_json(folder / "base.json", {"more": 1}), "does not describe the base of adapters"),
        (lambda folder, _: edit_json(folder / "adapter_config.json", {"use_dora": True}), "plain LoRA on the roles"),
        (lambda folder, _: edit_json(folder / "adapter_config.json", {"r": 3}), "adapters are of another shape"),
        (lambda folder, _: edit_json(folder / "base.json", {"n_kept": 2}), "adapters are unknown"),
        (lambda folder, _: edit_json(folder / "base.json", {"name": str(folder)}), "holds adapters, expected the base"),
    ],
    ids=lambda value: getattr(value, "__name__", None) if callable(value) else value[:20],
)
def test_adapters_that_do_not_belong_are_refused_in_one_sentence(
    damage: Callable[[Path, dict[str, Path]], object],
    sentence: str,
    adapted: Path,
    bases: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = without_sums(shutil.copytree(adapted, tmp_path / "encoder"))
    load(folder)
    damage(folder, bases)
    with pytest.raises(SpoofkitError, match=sentence) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_not_said_to_have_no_adapters(tmp_path: Path) -> None:
    assert "no such folder" in refusal("merge", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
