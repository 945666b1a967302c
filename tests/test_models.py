"""Whole detectors: every head, merge and loss trains, is kept in a folder and scores the same; what is no model is
refused in one sentence; `info` says what there is; where weights come from follows them to the report."""

import configparser
import io
import json
import os
import pickle
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refusal, run_cli, without_sums
from safetensors.torch import load_file, save_file

from spoofkit.config import load_config
from spoofkit.data.audio import read_audio
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.calibration import Calibration, read_calibration, write_calibration
from spoofkit.evaluation.scores import read_scores, write_scores
from spoofkit.models import device as devices
from spoofkit.models.detector import Detector, FrameClassifier, load_detector, save_detector
from spoofkit.models.heads import UTTERANCE_HEADS
from spoofkit.models.info import as_lines, describe
from spoofkit.models.layer_merge import MERGES
from spoofkit.models.losses import make_output
from spoofkit.models.memory import training_memory
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.provenance import Provenance, read_provenance
from spoofkit.processes import World
from spoofkit.settings import EncoderSettings, FinetuneSettings, LoraSettings, LossSettings, PosttrainSettings
from spoofkit.training.finetune import require_utterances

TINY = EncoderSettings(name="tiny", freeze="none")
LOSSES = ("ce", "focal", "am_softmax", "oc_softmax", "p2sgrad")
SHORT = ["--set", "finetune.n_steps=1", "--set", "finetune.batch_size=3", "--set", "crop_samples=8000"]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """`tiny` as a folder, so that parts of it may be frozen."""
    load_encoder(TINY).save(tmp_path / "plain")
    return tmp_path / "plain"


def detector_of(head: str, layers: str | int | None = None, loss: str = "ce") -> Detector:
    kind = UTTERANCE_HEADS[head]
    torch.manual_seed(3)
    encoder = load_encoder(EncoderSettings(name=kind.front_end) if kind.front_end else TINY)
    return Detector(encoder, head, layers or ("all" if kind.reads_all_layers else "last"), LossSettings(kind=loss))


def batch_for(detector: Detector) -> tuple[torch.Tensor, torch.Tensor]:
    n_samples = torch.tensor([max(9_000, detector.shortest + 400), max(6_000, detector.shortest)])
    wave = 0.1 * torch.randn(2, int(n_samples.max()), generator=torch.Generator().manual_seed(0))
    wave[1, n_samples[1] :] = 0
    return wave, n_samples


COMBINATIONS = (
    [(head, None, "ce") for head in UTTERANCE_HEADS]
    + [("mean", layers, "ce") for layers in (*MERGES, 0, 2)]
    + [("attentive", None, loss) for loss in LOSSES[1:]]
    + [("rawnet2", None, "oc_softmax"), ("sls", None, "p2sgrad")]
)


@pytest.mark.parametrize(("head", "layers", "loss"), COMBINATIONS)
def test_a_step_of_training_reaches_every_part_and_the_folder_scores_the_same(
    head: str, layers: str | int | None, loss: str, tmp_path: Path
) -> None:
    detector = detector_of(head, layers, loss).train()
    wave, n_samples = batch_for(detector)
    embedding = detector.embed(wave, n_samples)
    detector.head.output.loss(embedding, torch.tensor([1.0, 0.0]), torch.ones(2)).backward()
    trained = [name for name, p in detector.named_parameters() if p.requires_grad]
    assert [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None] == []
    assert any(name.startswith("head.output.") for name in trained)
    torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=1e-3).step()
    detector.eval()
    save_detector(tmp_path / "model", detector, {})
    again, record = load_detector(tmp_path / "model")
    assert (record["head"], record["layers"], record["loss"]["kind"]) == (head, detector.layers, loss)
    with torch.inference_mode():
        assert torch.equal(again(wave, n_samples), detector(wave, n_samples))
        alone = again(wave[1:, : n_samples[1]], n_samples[1:])
        assert torch.allclose(detector(wave, n_samples)[1:], alone, atol=2e-5)


@torch.inference_mode()
def test_several_layers_are_read_before_the_final_norm_and_models_of_format_2_as_they_were(tmp_path: Path) -> None:
    for layers in (*MERGES, 3, 2, "last"):
        detector = detector_of("attentive", layers).eval()
        wave, n_samples = batch_for(detector)
        save_detector(tmp_path / f"{layers}", detector, {})
        without_sums(tmp_path / f"{layers}")
        path = tmp_path / f"{layers}/model.json"
        record = json.loads(path.read_text())
        assert (record["format"], record["final_norm"]) == (3, layers == "last")
        new = detector(wave, n_samples)
        assert torch.equal(load_detector(path.parent)[0](wave, n_samples), new)
        states, is_frame = detector.encoder(wave, n_samples, "all")  # format 2: the last of them is normalised
        before = [states[layers]] if isinstance(layers, int) else states if layers in MERGES else states[-1:]
        old = detector.score_embedding(detector.embed_layers(before, is_frame))
        del record["final_norm"]
        path.write_text(json.dumps(record | {"format": 2}))
        assert torch.equal(load_detector(path.parent)[0](wave, n_samples), old)
        assert torch.equal(old, new) == (layers in (2, "last"))


@pytest.mark.parametrize(
    "change",
    [{"final_norm": None}, {"final_norm": 0}, {"format": 2}, {"format": 4}, {"layers": "last"}, "no such key"],
)
def test_a_record_that_says_nothing_clear_of_the_final_norm_is_refused(
    change: dict[str, object] | str, tmp_path: Path
) -> None:
    save_detector(tmp_path / "model", detector_of("mean", "weighted"), {})
    path = without_sums(tmp_path / "model") / "model.json"
    record = json.loads(path.read_text())
    if isinstance(change, str):
        del record["final_norm"]
    else:
        record |= change
    path.write_text(json.dumps(record))
    assert "model.json: does not describe a model of this version" in refusal("info", tmp_path / "model")


def test_the_final_norm_is_trained_only_where_it_is_read() -> None:
    for layers, is_read in (("last", True), ("gated", False), (3, False)):
        above = detector_of("mean", layers).encoder.parameters_above_layers()
        assert [parameter.requires_grad for parameter in above] == [is_read, is_read]


def test_settings_name_the_heads_losses_and_merges_that_exist() -> None:
    """settings.py imports no torch, so its names stand there a second time."""
    assert set(FinetuneSettings.model_fields["head"].annotation.__args__) == set(UTTERANCE_HEADS)
    assert set(LossSettings.model_fields["kind"].annotation.__args__) == set(LOSSES)
    for kind in LOSSES:
        make_output(LossSettings(kind=kind), 4, 1)
    for stage, extra in ((FinetuneSettings, {"all"}), (PosttrainSettings, set())):
        names = stage.model_fields["layers"].annotation.__args__[0].__args__
        assert set(names) == {"last", *MERGES} | extra
    for head, kind in UTTERANCE_HEADS.items():
        layers = "all" if kind.reads_all_layers else "last"
        assert FinetuneSettings(head=head, layers=layers).head == head


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("finetune: {head: mhfa}", "finetune: layers: last does not go with head mhfa; sls and mhfa read all layers"),
        ("finetune: {layers: all}", "finetune: layers: all does not go with head mean"),
        ("finetune: {layers: -1}", "finetune.layers"),
        ("finetune: {loss: {kind: focal, margin: 0.5}}", "finetune.loss: margin: is not used by kind focal"),
        (
            "finetune: {head: ecapa, batch_size: 6, micro_batch_size: 1}",
            "finetune: micro_batch_size: 1 gives head ecapa",
        ),
        ("finetune: {head: ecapa, batch_size: 1}", "finetune: batch_size: 1 gives head ecapa one utterance"),
        ("finetune: {batch_size: 6, micro_batch_size: 4}", "micro_batch_size: batch_size 6 is not a multiple of 4"),
        ("finetune: {accumulate: 4}", "unknown setting finetune.accumulate; it is now micro_batch_size"),
        ("finetune: {average_best: 3, keep: last}", "finetune: average_best: is not used with keep: last"),
        ("posttrain: {augment: {trim: 0.5}}", "posttrain: augment.trim: 0.5 would move the injected regions"),
        ("finetune: {augment: {time_mask_share: [0.5, 0.2]}}", "time_mask_share: the first number must not be above"),
        ("posttrain: {loss: {kind: oc_softmax}}", "posttrain: loss.kind: oc_softmax needs one centre"),
        ("finetune: {loss: {kind: hinge}}", "finetune.loss.kind: Input should be 'ce', 'focal'"),
        ("encoder: {name: x/y, freeze: 2, lora: {}}", "encoder: freeze: lora trains only adapters"),
        ("encoder: {freeze: some}", "encoder.freeze"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text(settings)
    with pytest.raises(SpoofkitError) as caught:
        load_config(tmp_path / "conf.yaml")
    assert sentence in str(caught.value)


def test_a_batch_of_which_each_process_has_one_utterance_is_refused_for_heads_that_need_two() -> None:
    settings = FinetuneSettings(head="ecapa", batch_size=4)
    require_utterances(settings, World(rank=0, size=2))
    with pytest.raises(SpoofkitError, match=r"finetune\.batch_size: 4 gives head ecapa one utterance"):
        require_utterances(settings, World(rank=0, size=4))
    require_utterances(FinetuneSettings(head="mean", batch_size=4), World(rank=0, size=4))


def test_a_head_on_the_wrong_front_end_is_refused() -> None:
    with pytest.raises(SpoofkitError, match="head rawnet2: works on the front-end sinc-rawnet2 only"):
        Detector(load_encoder(TINY), "rawnet2")
    with pytest.raises(SpoofkitError, match="head mean: does not work on the front-end sinc-aasist"):
        Detector(load_encoder(EncoderSettings(name="sinc-aasist")), "mean")
    with pytest.raises(SpoofkitError, match="head raw_aasist_l: works on the front-end sinc-aasist only"):
        Detector(load_encoder(EncoderSettings(name="sinc-rawnet2")), "raw_aasist_l")


@pytest.mark.parametrize("loss", ["ce", "focal", "am_softmax", "p2sgrad"])
@pytest.mark.parametrize("layers", ["weighted", 2])
def test_frames_are_classified_from_any_layer_with_any_loss(layers: str | int, loss: str) -> None:
    classifier = FrameClassifier(load_encoder(TINY), "mlp", layers, LossSettings(kind=loss))
    wave, n_samples = torch.randn(2, 9_000), torch.tensor([9_000, 6_000])
    logit, is_frame = classifier(wave, n_samples)
    assert logit.shape == is_frame.shape == (2, 27)
    embedding, _ = classifier.embed(wave, n_samples)
    classifier.head.output.loss(
        embedding[is_frame], (logit[is_frame] > 0).float(), torch.ones(int(is_frame.sum()))
    ).backward()
    assert all(p.grad is not None for p in classifier.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["rawnet2", pytest.param("raw_aasist_l", marks=pytest.mark.release)])
def test_a_raw_waveform_baseline_goes_from_its_settings_to_an_evaluation(
    name: str, manifests: Path, tmp_path: Path
) -> None:
    front_end = UTTERANCE_HEADS[name].front_end
    settings = ["--set", f"encoder.name={front_end}", "--set", f"finetune.head={name}", *SHORT]
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv"]
    run_cli("finetune", tmp_path / "exp", *sources, *settings)
    run_cli("score", tmp_path / "exp/model", manifests / "eval.tsv", "-o", tmp_path / "eval.tsv")
    run_cli("evaluate", tmp_path / "eval.tsv", manifests / "eval.tsv", "-o", tmp_path / "results")
    assert json.loads((tmp_path / "results/eval.json").read_text())["n_trials"] == 12
    mixes = ["--mix", tmp_path / "no.tsv", "--dev-mix", tmp_path / "no.tsv"]
    for path in mixes[1::2]:
        path.write_text("")
    sentence = refusal("posttrain", tmp_path / "post", *sources, *settings, *mixes)
    assert "use `spoofkit finetune` directly" in sentence


def test_where_weights_come_from_follows_them_to_the_report(plain: Path, manifests: Path, tmp_path: Path) -> None:
    seen = Provenance("lab/seen-it-all", "CC BY-NC 4.0", ("ASVspoof 5",), (), ("ASVspoof 5",))
    encoder = load_encoder(EncoderSettings(name=str(plain)))
    encoder.provenance = seen
    encoder.save(tmp_path / "seen")
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", *SHORT]
    run_cli("finetune", tmp_path / "exp", *sources, "--encoder", tmp_path / "seen")
    assert read_provenance(tmp_path / "exp/model/encoder") == seen
    scores, results = tmp_path / "eval.tsv", tmp_path / "results"
    run_cli("score", tmp_path / "exp/model", manifests / "eval.tsv", "-o", scores)
    assert json.loads(scores.with_suffix(".json").read_text())["provenance"]["licence"] == "CC BY-NC 4.0"
    done = run_cli("evaluate", scores, manifests / "eval.tsv", "-o", results)
    sentence = "lab/seen-it-all was trained on ASVspoof 5: results there do not show how it does on unseen data"
    assert f"warning: {sentence}" in done.stderr
    assert sentence in json.loads((results / "eval.json").read_text())["warnings"]
    assert sentence in (results / "report.html").read_text()


def test_info_says_what_is_trained_under_the_settings(plain: Path) -> None:
    def facts(*settings: str) -> dict[str, object]:
        overrides = [part for setting in settings for part in ("--set", setting)]
        return json.loads(run_cli("info", plain, "--json", *overrides).stdout)

    whole = facts("encoder.freeze=none")
    assert (whole["family"], whole["layers"], whole["width"]) == ("wav2vec2", 3, 128)
    assert whole["encoder_parameters"] == whole["encoder_parameters_trained"] == 706_960
    assert whole["weights"].split()[0] == whole["weights"].split()[2]
    assert whole["geometry"]["receptive_field"] == 400
    stem = sum(p.numel() for module in load_encoder(TINY).stem for p in module.parameters())
    assert facts()["encoder_parameters_trained"] == 706_960 - stem
    assert facts("encoder.freeze=all")["encoder_parameters_trained"] == 0
    assert facts("finetune.head=attentive")["head_parameters"] == 128 * 128 + 257 + 257
    lora = facts("encoder.lora={rank: 4}")  # on query, key, value, and the two layers between 128 and 384 features
    assert lora["encoder_parameters_trained"] == 3 * 4 * (3 * 2 * 128 + 2 * (128 + 384))
    assert (
        facts("finetune.layers=1")["encoder_parameters_trained"]
        < facts("encoder.n_layers=2")["encoder_parameters_trained"]
    )


def test_info_of_a_model_reads_its_own_head_and_of_an_encoder_prints_a_table(tmp_path: Path) -> None:
    save_detector(tmp_path / "model", detector_of("mhfa"), {})
    lines = run_cli("info", tmp_path / "model").stdout
    reads = "mhfa on all layers, before the final norm"
    for words in (reads, "every 320 samples (20 ms)", "log-odds of bona fide", "not known"):
        assert words in " ".join(lines.split())
    lines = run_cli("info", "sinc-aasist").stdout
    assert "raw_aasist on the last layer: 297,866 parameters" in lines


def test_what_is_trained_alone_with_seed_and_settings_is_the_same_again(plain: Path) -> None:
    torch.manual_seed(1)
    first = load_encoder(EncoderSettings(name=str(plain), lora={"rank": 2}), seed=5)
    torch.manual_seed(2)
    second = load_encoder(EncoderSettings(name=str(plain), lora={"rank": 2}), seed=5)
    other = load_encoder(EncoderSettings(name=str(plain), lora={"rank": 2}), seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_class_weights_weigh_their_own_class(manifests: Path, tmp_path: Path) -> None:
    """The first step's loss, before anything was learnt, is the weighted mean of the utterances' losses."""
    options = ["--set", "encoder={name: tiny, freeze: none}", "--set", "finetune.bonafide_weight=5"]
    options += [
        "--set",
        "finetune.spoof_weight=0.25",
        "--set",
        "finetune.optim.lr=1e-12",
        "--set",
        "finetune.optim.head_lr=1e-12",
    ]
    options += ["--set", "finetune.n_steps=1", "--set", "finetune.batch_size=16", "--set", "crop_samples=64600"]
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv"]
    run_cli("finetune", tmp_path / "exp", *sources, *options, "--set", "finetune.precision=fp32")
    line = json.loads((tmp_path / "exp/metrics.jsonl").read_text().splitlines()[0])
    run_cli("score", tmp_path / "exp/model", manifests / "train.tsv", "-o", tmp_path / "train.tsv")
    score = read_scores(tmp_path / "train.tsv")["score"].to_numpy()
    is_bonafide = (read_manifest(manifests / "train.tsv").table["key"] == "bonafide").to_numpy()
    losses = np.logaddexp(0, np.where(is_bonafide, -score, score))
    weights = np.where(is_bonafide, 5.0, 0.25)
    assert line["loss"] == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-4)


def test_info_of_a_model_takes_what_its_record_says_of_its_training(tmp_path: Path, plain: Path) -> None:
    stem = sum(p.numel() for module in load_encoder(TINY).stem for p in module.parameters())
    n_adapters = 3 * 4 * (3 * 2 * 128 + 2 * (128 + 384))
    for settings, n_trained in (
        ({"freeze": "none"}, 706_960),
        ({"freeze": "stem"}, 706_960 - stem),
        ({"lora": LoraSettings(rank=4).model_dump(mode="json")}, n_adapters),
    ):
        detector = detector_of("mean")
        stage = {
            "stage": "fine-tuning", "settings": {"encoder": settings}, "inputs": {}, "weights": "from scratch",
            "n_steps": 1, "kept": {"step": 1, "figures": {}},
        }  # fmt: skip
        detector.encoder.stages = [stage]
        folder = tmp_path / str(n_trained)
        save_detector(folder, detector, {})
        facts = describe(str(folder), None, 2, 1.0)
        assert (facts["encoder_parameters_trained"], facts["from_scratch"]) == (n_trained, True)
        assert facts["training_memory"]["gradients"] == 4 * (n_trained + facts["head_parameters"])
        assert ("licence", "yours: trained from scratch here") in as_lines(facts)
    assert "its record says how it was trained" in refusal("info", folder, "--set", "encoder.freeze=all")
    detector.encoder.stages = [{"stage": "not recorded"}]
    save_detector(tmp_path / "unknown", detector, {})
    facts = describe(str(tmp_path / "unknown"), None, 2, 1.0)
    assert facts["encoder_parameters_trained"] is facts["training_memory"] is None
    words = dict(as_lines(facts))
    assert words["licence"].startswith("not known")
    assert words["parameters"].endswith("trained: not recorded")


def test_readers_take_texts_and_paths(model: Path, manifests: Path, corpus: Path, tmp_path: Path) -> None:
    call = next((corpus / "flac_E_eval").iterdir())
    write_scores(tmp_path / "s.tsv", ["a", "b"], [0.5, 1.0])
    write_calibration(tmp_path / "c.json", Calibration((1.0,), 0.0, 0.5), {})
    readers = (
        (load_detector, model), (read_audio, call), (read_manifest, manifests / "dev.tsv"),
        (read_scores, tmp_path / "s.tsv"), (read_calibration, tmp_path / "c.json"),
        (lambda path: load_encoder(EncoderSettings(name=path)), model / "encoder"),
    )  # fmt: skip
    for read, path in readers:
        assert type(read(str(path))) is type(read(path))


def test_the_package_ships_its_mark_that_it_is_typed() -> None:
    root, parser = Path(__file__).parents[1], configparser.ConfigParser()
    parser.read(root / "setup.cfg", encoding="utf-8")
    assert "py.typed" in parser["options.package_data"]["*"].split(", ")
    assert (root / "spoofkit/py.typed").is_file()


@pytest.mark.parametrize("where", ["config.json", "preprocessor_config.json"])
def test_code_that_comes_with_a_folder_is_not_run(
    where: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, marker = without_sums(shutil.copytree(plain, tmp_path / "remote")), tmp_path / "marker"
    values = json.loads((folder / where).read_text())
    if where == "config.json":
        values |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
    else:
        values |= {"feature_extractor_type": "Evil", "auto_map": {"AutoFeatureExtractor": "evil.Evil"}}
    (folder / where).write_text(json.dumps(values))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\n"))
    assert "cannot be loaded as an encoder" in refusal("info", folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("config.json", "null"),
        ("config.json", {"hidden_size": "abc"}),
        ("config.json", {"conv_stride": [0] * 2}),
        ("config.json", {"dtype": "nope"}),
        ("preprocessor_config.json", "[]"),
        ("preprocessor_config.json", {"feature_extractor_type": "WhisperFeatureExtractor"}),
        ("preprocessor_config.json", {"sampling_rate": 8000}),
    ],
)
def test_damaged_settings_of_a_folder_are_refused(where: str, change: object, plain: Path, tmp_path: Path) -> None:
    folder = without_sums(shutil.copytree(plain, tmp_path / "spoilt"))
    text = change if isinstance(change, str) else json.dumps(json.loads((folder / where).read_text()) | change)
    (folder / where).write_text(text)
    assert refusal("info", folder).startswith(f"{folder}")


def test_a_refused_call_leaves_the_run_before_it_alone(
    plain: Path, manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "--encoder", plain, *SHORT]
    run_cli("finetune", tmp_path / "exp", *sources)
    monkeypatch.setattr(devices, "_has_bf16", lambda _: (False, "not here"))
    for option in (
        ["--set", "finetune.precision=bf16"],
        ["--shard-layers"],
        ["--set", "finetune.head=raw_aasist"],
    ):
        refusal("finetune", tmp_path / "exp", *sources, "--overwrite", *option)
        assert (tmp_path / "exp/model/model.json").is_file(), option
    monkeypatch.setattr("spoofkit.training.progress.importlib.util.find_spec", lambda _: None)
    assert "tensorboard" in refusal("finetune", tmp_path / "exp", *sources, "--overwrite", "--tensorboard")
    assert (tmp_path / "exp/model/model.json").is_file()


@pytest.mark.parametrize("freeze", ["encoder.freeze=all", "encoder.freeze=2"])
def test_post_training_of_nothing_is_refused(freeze: str, plain: Path, manifests: Path, tmp_path: Path) -> None:
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "--set", f"encoder.name={plain}"]
    mixes = ["--mix", tmp_path / "mix.tsv", "--dev-mix", tmp_path / "mix.tsv"]
    (tmp_path / "mix.tsv").write_text("")
    options = ["--set", freeze, "--set", "posttrain.layers=2"]
    assert "are frozen" in refusal("posttrain", tmp_path / "exp", *sources, *mixes, *options)


def test_an_encoder_named_on_the_command_line_is_cut_as_the_settings_say(
    plain: Path, manifests: Path, tmp_path: Path
) -> None:
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "--encoder", plain, *SHORT]
    run_cli("finetune", tmp_path / "exp", *sources, "--set", "encoder.n_layers=1")
    assert len(load_detector(tmp_path / "exp/model")[0].encoder.layers) == 1


@pytest.mark.parametrize("change", [{"layers": -1}, {"layers": "all"}, {"score": "bonafide_logit"}, {"head": "nope"}])
def test_an_edited_model_record_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    save_detector(tmp_path / "model", detector_of("mean"), {})
    without_sums(tmp_path / "model")
    record = json.loads((tmp_path / "model/model.json").read_text())
    (tmp_path / "model/model.json").write_text(json.dumps(record | change))
    assert "does not describe a model of this version" in refusal("info", tmp_path / "model")


def test_memory_grows_with_the_batch_and_shrinks_with_what_is_kept(plain: Path) -> None:
    def memory(batch_size: int, seconds: float = 2.0, **settings: object) -> dict[str, int]:
        encoder = load_encoder(EncoderSettings(name=str(plain), **settings))
        return training_memory(Detector(encoder, "mean"), batch_size, seconds)

    one, four = memory(1), memory(4)
    assert four["activations"] == 4 * one["activations"]
    assert four["weights"] == 4 * (706_960 + 129)
    assert one["optimizer"] == 2 * one["gradients"]
    assert 1.8 < memory(1, 4.0)["activations"] / one["activations"] < 4.1
    assert memory(1, gradient_checkpointing=True)["activations"] < 0.7 * one["activations"]
    assert memory(1, freeze=2)["activations"] < 0.6 * one["activations"]


def spoil(folder: Path, how: str, marker: Path) -> None:
    weights = folder / "model.safetensors"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:20_000])
    elif how == "NaN":
        tensors = load_file(weights)
        next(iter(tensors.values())).view(-1)[0] = float("nan")
        save_file(tensors, weights, metadata={"format": "pt"})
    elif how == "wrong family":
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "wavlm", "architectures": ["WavLMModel"]}
        (folder / "config.json").write_text(json.dumps(config))
    elif how == "no weights":
        weights.unlink()
    elif how == "adapter":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"add_adapter": True}))
    elif how == "no JSON":
        (folder / "config.json").write_text("{")
    else:
        weights.unlink()

        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.system, (f"touch {marker}",)

        if how == "pickle bomb":
            torch.save({"encoder.layer_norm.weight": Bomb()}, folder / "pytorch_model.bin")
        else:
            (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("truncated", "cannot be loaded as an encoder"),
        ("NaN", "holds NaN or infinite values"),
        ("wrong family", "tensors are missing"),
        ("no weights", "cannot be loaded as an encoder"),
        ("adapter", "has add_adapter"),
        ("no JSON", "cannot be loaded as an encoder"),
        ("pickle bomb", "cannot be loaded as an encoder"),
        ("bare pickle bomb", "cannot be loaded as an encoder"),
    ],
)
def test_a_damaged_or_malicious_folder_is_refused_in_one_sentence(
    how: str, sentence: str, plain: Path, tmp_path: Path
) -> None:
    folder = without_sums(shutil.copytree(plain, tmp_path / "spoilt"))
    spoil(folder, how, tmp_path / "marker")
    said = refusal("info", folder)
    assert said.startswith(f"{folder}: ")
    assert sentence in said
    assert not (tmp_path / "marker").exists()


def test_training_in_bf16_needs_hardware_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert devices.training_precision(cpu, "fp32")[0] is torch.float32
    monkeypatch.setattr(devices, "_has_bf16", lambda _: (False, "the CPU has no unit for it"))
    assert devices.training_precision(cpu, "auto") == (torch.float32, "fp32: the CPU has no unit for it")
    with pytest.raises(SpoofkitError, match=r"bf16 would be far slower than fp32 here \(the CPU has no unit"):
        devices.training_precision(cpu, "bf16")
    monkeypatch.setattr(devices, "_has_bf16", lambda _: (True, "it has"))
    assert devices.training_precision(cpu, "auto")[0] is torch.bfloat16


def test_a_run_goes_on_in_the_precision_it_was_begun_in(
    plain: Path, manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "--encoder", plain, *SHORT]
    monkeypatch.setattr(devices, "_has_bf16", lambda _: (False, "not here"))
    run_cli("finetune", tmp_path / "exp", *sources)
    shutil.rmtree(tmp_path / "exp/model")  # as if killed before it was written
    monkeypatch.setattr(devices, "_has_bf16", lambda _: (True, "here"))
    assert "began in float32, but would resume in bfloat16" in refusal("finetune", tmp_path / "exp", *sources)


def test_training_in_bf16_leaves_finite_fp32_weights(
    plain: Path, manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_has_bf16", lambda _: (True, "for this test"))
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "--encoder", plain, *SHORT]
    run_cli("finetune", tmp_path / "exp", *sources, "--set", "finetune.precision=bf16")
    assert "bf16: for this test" in (tmp_path / "exp/train.log").read_text()
    tensors = load_file(tmp_path / "exp/model/encoder/model.safetensors")
    assert all(t.dtype == torch.float32 and bool(torch.isfinite(t).all()) for t in tensors.values())


@pytest.mark.release
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of its older compiler
def test_compiled_layers_give_the_same_frames(plain: Path) -> None:
    if not shutil.which("g++") or not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        pytest.skip("torch.compile needs g++ and Python's headers")
    encoder = load_encoder(EncoderSettings(name=str(plain))).eval()
    wave, n_samples = torch.randn(2, 9_000), torch.tensor([9_000, 6_000])
    with torch.no_grad():
        (expected,), is_frame = encoder(wave, n_samples)
        encoder.compile_layers()
        (compiled,), _ = encoder(wave, n_samples)
    assert torch.allclose(compiled[is_frame], expected[is_frame], atol=1e-5)
