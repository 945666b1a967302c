"""Models by name, against a stand-in hub on this machine; no test reaches the network."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from conftest import make_voice, refusal, run_cli, table_rows
from safetensors.torch import save
from stand_in_hub import StandInHub
from test_convert import save_antideepfake
from test_encoder import SMALL

from spoofkit.addons.convert.classifier import bonafide_class, from_classifier
from spoofkit.addons.hub import facts
from spoofkit.addons.hub.licences import licence_to_state
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import Detector, save_detector
from spoofkit.models.names import find_named
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.provenance import Provenance
from spoofkit.outputs import with_checksums
from spoofkit.settings import EncoderSettings, LoraSettings
from spoofkit.training import checkpoints


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    """The stand-in, which huggingface_hub asks instead, with empty caches."""
    from huggingface_hub import constants

    server = StandInHub()
    of_hub = {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "hf/hub"),
        "HF_ASSETS_CACHE": str(tmp_path / "hf/assets"),
        "HF_TOKEN_PATH": str(tmp_path / "hf/token"),
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in of_hub.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(facts, "_said", set())
    yield server
    server.close()


@pytest.fixture
def call(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "call.wav", make_voice(3, True), 16_000)
    return tmp_path / "call.wav"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def classifier(folder: Path, family: str = "Wav2Vec2", labels: tuple[str, ...] = ("fake", "real"), **more: Any) -> Any:
    """A small random classifier of transformers, saved to a folder."""
    import transformers as hf

    torch.manual_seed(4)
    config = getattr(hf, f"{family}Config")(**SMALL, classifier_proj_size=24, id2label=dict(enumerate(labels)), **more)
    network = getattr(hf, f"{family}ForSequenceClassification")(config).eval()
    for parameter in (*network.projector.parameters(), *network.classifier.parameters()):
        torch.nn.init.normal_(parameter)
    network.save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return network


def small_encoder(folder: Path, seed: int) -> dict[str, bytes]:
    """The files of a small random encoder of transformers."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(seed)
    Wav2Vec2Model(Wav2Vec2Config(**SMALL)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return files_of(folder)


def test_a_model_of_ours_scores_by_name_as_from_its_folder(
    hub: StandInHub, model: Path, call: Path, tmp_path: Path
) -> None:
    files = {**files_of(model), "README.md": b"a card", "notes/a.json": b"{}"}
    sha = hub.commit("me/detector", files, {"license": "other", "license_name": "our-noncommercial"})
    said = run_cli("score", f"hub:me/detector@{sha}", call, "-o", tmp_path / "named.tsv").stderr
    assert "MAY NOT BE USED COMMERCIALLY (our-noncommercial)" in said
    run_cli("score", model, call, "-o", tmp_path / "folder.tsv")
    assert (tmp_path / "named.tsv").read_bytes() == (tmp_path / "folder.tsv").read_bytes()
    named, own = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("named", "folder"))
    assert named["model"] == f"hub:me/detector@{sha}"
    assert named["model_sha256"] == own["model_sha256"]
    # What spoofkit does not read is not downloaded.
    assert not any("README" in request or "notes" in request for request in hub.requests)


def test_a_pinned_commit_stays_when_the_branch_moves(hub: StandInHub, model: Path, tmp_path: Path) -> None:
    first = hub.commit("me/detector", files_of(model))
    assert find_named("hub:me/detector").name == f"hub:me/detector@{first}"
    second = hub.commit("me/detector", {"frame_head/head.json": b"{}"})
    assert find_named("hub:me/detector").name == f"hub:me/detector@{second}"
    hub.requests.clear()
    pinned = find_named(f"hub:me/detector@{first}")
    assert not (pinned.path / "frame_head").exists()
    assert not hub.requests  # a commit in the cache needs no network
    shutil.rmtree(tmp_path / "hf/hub")  # the cache may be deleted at any time
    assert files_of(find_named(f"hub:me/detector@{first}").path) == files_of(model)


def test_without_network_the_cache_answers(
    hub: StandInHub, model: Path, call: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.commit("me/detector", files_of(model))
    before = run_cli("score", "hub:me/detector", call).stdout
    go_offline(monkeypatch)
    done = run_cli("score", "hub:me/detector", call)
    assert done.stdout == before
    assert f"@{sha}" in find_named("hub:me/detector").name
    found = refusal("score", "hub:me/other", call)
    assert "hub:me/other" in found
    assert "HF_HUB_OFFLINE" in found
    assert "hf download" in found


def test_a_hub_that_does_not_answer_is_no_reason_to_stop_if_the_cache_has_it(
    hub: StandInHub, model: Path, call: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = hub.commit("me/detector", files_of(model))
    find_named("hub:me/detector")
    hub.close()
    capsys.readouterr()
    assert find_named("hub:me/detector").name.endswith(sha)
    assert sha[:12] in capsys.readouterr().err
    assert "hub:me/other" in refusal("score", "hub:me/other", call)


def test_what_hf_download_left_in_the_cache_is_used(
    hub: StandInHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    sha = hub.commit("me/detector", files_of(model))
    for file in files_of(model):
        hf_hub_download("me/detector", file)
    go_offline(monkeypatch)
    assert find_named("hub:me/detector").name.endswith(sha)


@pytest.mark.parametrize(
    ("fault", "facts_of_message"),
    [
        ("gated", ["gated", "hf auth login"]),
        ("absent", ["no such model"]),
        ("missing", ["lacks head.safetensors"]),
        ("truncated", ["head.safetensors"]),
        ("revision", ["no revision old"]),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(
    hub: StandInHub, model: Path, call: Path, tmp_path: Path, fault: str, facts_of_message: list[str]
) -> None:
    hub.commit("me/detector", files_of(model))
    repository = hub.repositories["me/detector"]
    if fault == "gated":
        repository.gated = True
    elif fault == "absent":
        del hub.repositories["me/detector"]
    elif fault != "revision":
        getattr(repository, fault).add("head.safetensors")
    found = refusal("score", "hub:me/detector" + ("@old" if fault == "revision" else ""), call)
    assert all(fact in found for fact in ["hub:me/detector", *facts_of_message]), found
    if fault in ("missing", "truncated"):  # nothing half made is left, and the next time it works
        repository.missing, repository.truncated = set(), set()
        run_cli("score", "hub:me/detector", call)


@pytest.mark.parametrize("family", ["Wav2Vec2", "WavLM", "Hubert"])
def test_a_classifier_of_transformers_scores_as_its_own_class(
    hub: StandInHub, tmp_path: Path, call: Path, family: str
) -> None:
    own = classifier(tmp_path / "own", family, do_stable_layer_norm=family != "Hubert")
    hub.commit("them/fake-or-real", files_of(tmp_path / "own"), {"license": "apache-2.0"})
    done = run_cli("score", "hub:them/fake-or-real", call, "-o", tmp_path / "scores.tsv")
    assert "apache-2.0" in done.stderr
    assert "not which parts" not in done.stderr
    wave, _ = soundfile.read(call, dtype="float32")
    normal = (wave - wave.mean()) / (wave.var() + 1e-7) ** 0.5
    with torch.inference_mode():
        logits = own(torch.from_numpy(normal)[None]).logits[0]
    ours = float(table_rows((tmp_path / "scores.tsv").read_text())[str(call)]["cm-score"])
    assert ours == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)


def test_a_classifier_on_the_sum_of_all_layers(tmp_path: Path) -> None:
    own = classifier(tmp_path / "own", labels=("bonafide", "spoof"), use_weighted_layer_sum=True)
    own.layer_weights.data.copy_(torch.tensor([0.3, -1.0, 2.0, 0.0]))
    own.save_pretrained(tmp_path / "own")
    detector, _ = from_classifier(tmp_path / "own")
    wave = torch.from_numpy(make_voice(5, False))[None]
    normal = (wave - wave.mean()) / (wave.var(correction=0) + 1e-7) ** 0.5
    with torch.inference_mode():
        logits, ours = own(normal).logits[0], detector(wave, torch.tensor([wave.shape[1]]))
    assert float(ours) == pytest.approx(float(logits[0] - logits[1]), abs=1e-5)


def test_labels_that_do_not_say_what_is_genuine_are_refused_unless_it_is_stated(
    hub: StandInHub, tmp_path: Path, call: Path
) -> None:
    own = classifier(tmp_path / "own", labels=("LABEL_0", "LABEL_1"))
    hub.commit("them/unnamed", files_of(tmp_path / "own"))
    found = refusal("score", "hub:them/unnamed", call)
    assert "hub:them/unnamed" in found
    assert "'LABEL_0', 'LABEL_1'" in found
    assert "--bonafide" in found
    run_cli("convert", "hub:them/unnamed", "-o", tmp_path / "stated", "--bonafide", "LABEL_0")
    assert "LABEL_7" in refusal("convert", "hub:them/unnamed", "-o", tmp_path / "no", "--bonafide", "LABEL_7")
    before = run_cli("score", tmp_path / "stated", call).stdout
    torch.save(own.state_dict(), tmp_path / "own/pytorch_model.bin")
    (tmp_path / "own/model.safetensors").unlink()
    (tmp_path / "own/training_args.bin").write_bytes(b"not read")
    run_cli("convert", tmp_path / "own", "-o", tmp_path / "pickled", "--bonafide", "LABEL_0")
    assert run_cli("score", tmp_path / "pickled", call).stdout == before


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (("fake", "real"), 1),
        (("Bona-Fide", "Spoof"), 0),
        (("AIVoice", "HumanVoice"), 1),
        (("ai_generated", "human"), 1),
        (("true", "false"), 0),
        (("real", "not real"), None),
        (("real", "genuine"), None),
        (("real fake", "fake"), None),
        (("male", "female"), None),
        (("real", "fake", "unsure"), None),
    ],
)
def test_which_label_is_bona_fide(labels: tuple[str, ...], positive: int | None) -> None:
    named = {str(number): label for number, label in enumerate(labels)}
    if positive is not None:
        assert bonafide_class(named, "model") == positive
        return
    with pytest.raises(SpoofkitError) as refused:
        bonafide_class(named, "model")
    assert all(repr(label) in str(refused.value) for label in labels)


def test_licence_and_training_data_are_said_once_and_loudly(hub: StandInHub, tmp_path: Path, call: Path) -> None:
    classifier(tmp_path / "own")
    card = {"license": "cc-by-nc-4.0", "datasets": ["x/ASVspoof2019-LA"], "base_model": "facebook/mms-300m"}
    sha = hub.commit("them/nc", files_of(tmp_path / "own"), card)
    said = run_cli("score", "hub:them/nc", call).stderr
    name = f"hub:them/nc@{sha}"
    assert f"{name} MAY NOT BE USED COMMERCIALLY (cc-by-nc-4.0)" in said
    assert "ASVspoof 2019 LA" in said
    assert "PartialSpoof" in said
    assert "MMS-lab-U" in said
    assert "COMMERCIALLY" not in run_cli("score", "hub:them/nc", call).stderr
    info = json.loads(run_cli("info", "hub:them/nc", "--json").stdout)
    assert info["name"] == info["provenance"]["source"] == name
    assert info["provenance"]["licence"] == "cc-by-nc-4.0"


def test_code_of_a_model_is_never_run(hub: StandInHub, tmp_path: Path, call: Path) -> None:
    config = {"model_type": "antispoofing", "architectures": ["DF_Arena"], "auto_map": {"AutoModel": "evil.Net"}}
    bomb = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    hub.commit("arena/model", {"config.json": json.dumps(config).encode(), "evil.py": bomb.encode(), "a.bin": b"x"})
    found = refusal("score", "hub:arena/model", call)
    assert "DF_Arena" in found
    assert "never run" in found
    assert not (tmp_path / "ran").exists()
    assert not any("evil" in request for request in hub.requests)


def test_an_encoder_by_name_is_the_encoder_itself_and_pinned(hub: StandInHub, tmp_path: Path) -> None:
    sha = hub.commit("facebook/mms-300m", small_encoder(tmp_path / "own", 1))
    ours, theirs = (
        load_encoder(EncoderSettings(name=name)) for name in ("hub:facebook/mms-300m", str(tmp_path / "own"))
    )
    for mine, other in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert ours.provenance is not None
    assert ours.provenance.licence == "CC BY-NC 4.0"
    assert ours.provenance.source == f"hub:facebook/mms-300m@{sha}"
    assert ours.stages == []
    found = refusal("score", "hub:facebook/mms-300m", tmp_path)
    assert "hub:facebook/mms-300m" in found
    assert "encoder" in found


def test_a_training_stays_at_the_commit_that_it_began_with(
    hub: StandInHub, manifests: Path, call: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub.commit("them/base", small_encoder(tmp_path / "base", 1), {"license": "mit"})
    (tmp_path / "conf.yaml").write_text(
        "crop_samples: 16000\nencoder: {name: hub:them/base, freeze: none}\n"
        "finetune: {precision: fp32, n_steps: 2, batch_size: 2, eval_every: 1, checkpoint_every: 1}\n"
    )
    train = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", tmp_path / "conf.yaml"]
    run_cli("finetune", tmp_path / "whole", *train)
    with monkeypatch.context() as stopping:
        save = checkpoints.save

        def save_and_stop(*arguments: Any) -> None:
            save(*arguments)
            raise KeyboardInterrupt

        stopping.setattr(checkpoints, "save", save_and_stop)
        run_cli("finetune", tmp_path / "stopped", *train, ok=False)
    hub.commit("them/base", small_encoder(tmp_path / "base", 2))
    found = refusal("finetune", tmp_path / "stopped", *train)
    assert f"hub:them/base@{first}" in found
    # The message names the commit; under this name the training resumes, and ends as the one that was not stopped.
    run_cli("finetune", tmp_path / "stopped", *train, "--set", f"encoder.name=hub:them/base@{first}")
    assert [json.loads(run)["from_step"] for run in (tmp_path / "stopped/runs.jsonl").read_text().splitlines()] == [
        0,
        1,
    ]
    models = tmp_path / "whole/model", tmp_path / "stopped/model"
    for name in ("head.safetensors", "encoder/model.safetensors"):
        assert (models[0] / name).read_bytes() == (models[1] / name).read_bytes()
    stages = json.loads((models[1] / "encoder/stages.json").read_text())
    assert f"hub:them/base@{first}" in json.dumps(stages)
    assert "mit" in (models[1] / "encoder/provenance.json").read_text()


def test_a_model_with_both_heads_is_exported_and_localizes_by_name(
    hub: StandInHub, both_heads: Path, call: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    sha = hub.commit("me/both", files_of(both_heads))
    run_cli("export", "hub:me/both", "-o", tmp_path / "m.onnx")
    assert json.loads((tmp_path / "m.json").read_text())["model"] == f"hub:me/both@{sha}"
    run_cli("localize", "hub:me/both", call, "-o", tmp_path / "named", "--threshold", "0")
    run_cli("localize", both_heads, call, "-o", tmp_path / "folder", "--threshold", "0")
    named, own = (json.loads((tmp_path / name / "call.json").read_text()) for name in ("named", "folder"))
    assert f"hub:me/both@{sha}" in json.dumps(named)
    assert named["frames"] == own["frames"]
    assert named["utterance"] == own["utterance"]


def test_a_published_checkpoint_is_converted_by_its_name(
    hub: StandInHub, tmp_path: Path, call: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = save_antideepfake(tmp_path, monkeypatch, "safetensors").read_bytes()
    # The authors' config.json describes no model of transformers.
    files = {"model.safetensors": weights, "config.json": b"{}", "pytorch_model.bin": b"not read"}
    name = "nii-yamagishilab/mms-300m-anti-deepfake"
    sha = hub.commit(name, files)
    said = run_cli("score", f"hub:{name}", call).stderr
    assert "MAY NOT BE USED COMMERCIALLY" in said
    assert "was trained on ASVspoof 2019 LA" in said
    run_cli("pull", f"hub:{name}", "-o", tmp_path / "pulled")
    run_cli("convert", f"hub:{name}@{sha}", "-o", tmp_path / "converted")
    assert files_of(tmp_path / "pulled") == files_of(tmp_path / "converted")
    hub.commit("them/unknown", {"model.safetensors": save({"a": torch.zeros(3)}), "training_args.bin": b"x"})
    found = refusal("score", "hub:them/unknown", call)
    assert "hub:them/unknown" in found
    assert "AntiDeepfake" in found
    assert str(tmp_path) not in found


def test_a_pulled_model_needs_the_hub_no_more(hub: StandInHub, model: Path, call: Path, tmp_path: Path) -> None:
    hub.commit("me/detector", files_of(model))
    run_cli("pull", "hub:me/detector", "-o", tmp_path / "own")
    assert files_of(tmp_path / "own") == files_of(model)
    assert not any(path.is_symlink() for path in (tmp_path / "own").rglob("*"))
    assert "exists" in refusal("pull", "hub:me/detector", "-o", tmp_path / "own")
    assert "up to date" in run_cli("pull", "hub:me/detector", "-o", tmp_path / "own", "--reuse").stdout
    hub.commit("me/detector", {"frame_head/head.json": b"{}"})
    assert "changed" in refusal("pull", "hub:me/detector", "-o", tmp_path / "own", "--reuse")


@pytest.fixture(scope="module")
def measured(model: Path, manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """eval.json of the model."""
    folder = tmp_path_factory.mktemp("measured")
    run_cli("score", model, manifests / "eval.tsv", "-o", folder / "eval.tsv")
    run_cli("evaluate", folder / "eval.tsv", manifests / "eval.tsv", "-o", folder / "results")
    return (folder / "results/eval.json").read_bytes()


@pytest.fixture
def results(measured: bytes, tmp_path: Path) -> Path:
    """A copy of it to change."""
    (tmp_path / "eval.json").write_bytes(measured)
    return tmp_path / "eval.json"


def test_a_pushed_model_scores_the_same_elsewhere(
    hub: StandInHub, model: Path, results: Path, call: Path, tmp_path: Path
) -> None:
    (tmp_path / "hf").mkdir(exist_ok=True)
    (tmp_path / "hf/token").write_text("hf_secret")
    done = run_cli("push", model, "me/new", "--licence", "cc-by-4.0", "--results", results, "--private")
    assert hub.repositories["me/new"].private
    assert "hf_secret" not in done.stdout + done.stderr
    sha = list(hub.repositories["me/new"].commits)[-1]
    assert f"hub:me/new@{sha}" in done.stdout
    assert set(hub.newest("me/new")) == {*files_of(model), "README.md", ".gitattributes"}
    run_cli("pull", "hub:me/new", "-o", tmp_path / "elsewhere")
    assert files_of(tmp_path / "elsewhere") == files_of(model)
    assert run_cli("score", tmp_path / "elsewhere", call).stdout == run_cli("score", model, call).stdout


def test_the_card_says_what_the_records_say(model: Path, results: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    figures = json.loads(results.read_text())
    intervals = {"eer_official_percent": [12.3, 45.6], "resampled": "speaker", "n_clusters": 4}
    results.write_text(json.dumps(with_checksums(figures | {"intervals": intervals})))
    push = ("push", model, "me/new", "--licence", "cc-by-4.0", "--results", results, "--dry-run", "-o")
    run_cli(*push, tmp_path / "dry")
    card = ModelCard.load(tmp_path / "dry/README.md")
    assert card.data.license == "cc-by-4.0"
    assert f"| EER in % | {figures['eer_official_percent']:.2f} | 12.30 to 45.60 |" in card.text
    assert "spoofkit score hub:me/new call.wav" in card.text
    assert "A32" in card.text
    results.write_text(json.dumps(figures | {"eer_official_percent": 0.1}))
    assert "edited" in refusal(*push, tmp_path / "no")
    of_another = figures["made_with"] | {"scores_made_with": {"model_sha256": "0" * 64}}
    results.write_text(json.dumps(with_checksums(figures | {"made_with": of_another})))
    assert "0" * 64 in refusal(*push, tmp_path / "no")


def test_only_the_model_itself_is_pushed_and_what_an_earlier_push_left_of_one_is_deleted(
    hub: StandInHub, model: Path, tmp_path: Path
) -> None:
    hub.commit("me/again", {"frame_head/head.json": b"{}", "notes.md": b"mine"})
    own = Path(shutil.copytree(model, tmp_path / "own"))
    (own / "passwords.txt").write_text("secret")
    run_cli("push", own, "me/again", "--licence", "mit")
    assert set(hub.newest("me/again")) - {".gitattributes"} == {*files_of(model), "README.md", "notes.md"}


def test_a_model_that_is_not_what_was_written_is_not_pushed(hub: StandInHub, model: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(model, tmp_path / "damaged"))
    weights = next(damaged.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert weights.name in refusal("push", damaged, "me/new", "--licence", "mit")
    (damaged / "SHA256SUMS").unlink()
    assert "SHA256SUMS" in refusal("push", damaged, "me/new", "--licence", "mit")
    assert "me/new" not in hub.repositories


def test_a_dry_run_of_a_push_writes_into_a_new_folder_only(model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert str(tmp_path) in refusal("push", model, "me/new", "--licence", "mit", "--dry-run", "-o", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("base", "stated", "outcome"),
    [
        ("Apache-2.0", None, "apache-2.0"),
        ("Apache-2.0", "mit", "mit"),
        ("CC BY-NC-SA 4.0", None, "cc-by-nc-sa-4.0"),
        ("CC BY-NC-SA 4.0", "mit", "does not allow"),
        ("CC BY-NC 4.0", "apache-2.0", "does not allow"),
        ("CC BY-NC 4.0", "cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"),
        ("cc-by-nc-nd-4.0", "cc-by-nc-nd-4.0", "forbids"),
        ("not known", None, "--licence"),
        ("MIT, say some; Apache-2.0, say others", None, "--licence"),
        (None, None, "--licence"),
        (None, "mit", "mit"),
    ],
)
def test_which_licence_a_pushed_model_has(base: str | None, stated: str | None, outcome: str) -> None:
    provenance = None if base is None else Provenance("a/b", base)
    if outcome in ("does not allow", "forbids", "--licence"):
        with pytest.raises(SpoofkitError, match=outcome):
            licence_to_state(provenance, base is None, stated)
    else:
        assert licence_to_state(provenance, base is None, stated) == outcome


def test_of_adapters_only_they_are_pushed_and_their_base_is_fetched_by_name(
    hub: StandInHub, call: Path, tmp_path: Path
) -> None:
    sha = hub.commit("them/base", small_encoder(tmp_path / "base", 1), {"license": "mit"})
    lora = LoraSettings(rank=2, targets=["attention"])
    for name, folder in (("hub:them/base", "named"), (str(tmp_path / "base"), "local")):
        torch.manual_seed(0)
        encoder = load_encoder(EncoderSettings(name=name, lora=lora))
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        save_detector(tmp_path / folder, Detector(encoder, "mean"), {"settings": None})
    found = refusal("push", tmp_path / "local", "me/adapted", "--licence", "mit")
    assert str(tmp_path / "base") in found
    assert "spoofkit merge" in found
    before = run_cli("score", tmp_path / "named", call).stdout
    run_cli("push", tmp_path / "named", "me/adapted")
    assert not any("encoder/model" in name for name in hub.newest("me/adapted"))
    assert "base_model: them/base" in hub.newest("me/adapted")["README.md"].decode()
    assert json.loads(hub.newest("me/adapted")["encoder/base.json"])["name"] == f"hub:them/base@{sha}"
    assert run_cli("score", "hub:me/adapted", call).stdout == before


def test_a_push_that_the_hub_refuses_is_one_sentence(hub: StandInHub, model: Path) -> None:
    hub.commit("them/theirs", {"a": b""})
    hub.repositories["them/theirs"].gated = True
    found = refusal("push", model, "them/theirs", "--licence", "mit")
    assert "them/theirs" in found
    assert "hf auth login" in found
    assert "SHA256SUMS" not in hub.newest("them/theirs")
