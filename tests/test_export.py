"""An exported model: one file that scores as torch does, knows what it is, and is written only when checked."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_voice, refusal, run_cli
from test_encoder import FAMILIES, make_folder
from test_encoder import load as load_folder
from test_models import detector_of

import spoofkit
from spoofkit.addons.onnx import export as run
from spoofkit.addons.onnx import parity, traceable, with_onnx
from spoofkit.addons.onnx.with_onnx import OnnxDetector, load_onnx
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import eer
from spoofkit.files import file_sha256, read_json
from spoofkit.models import wave_encoder
from spoofkit.models.detector import Detector, folder_sha256, load_detector, save_detector
from spoofkit.models.heads import UTTERANCE_HEADS
from spoofkit.models.heads.graph import GraphPool
from spoofkit.models.heads.mean import MeanHead
from spoofkit.models.layer_merge import MERGES
from spoofkit.scoring import with_torch
from spoofkit.scoring.batches import score_manifest
from spoofkit.scoring.scorer import pad

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

MINI = Path(__file__).parents[1] / "egs/mini/exp/mixframe_seed0/finetune/model"
TWINS = ("raw_aasist", "rawnet2")  # of raw_aasist_l and rawnet2_asvspoof5: the same layers in other sizes


def voices(*lengths: int) -> list[np.ndarray]:
    """Waves of these lengths, loud and soft, with an offset that normalising takes away."""
    rng = np.random.default_rng(5)
    return [
        (gain * (rng.standard_normal(length) + 0.5)).astype(np.float32)
        for gain, length in zip(np.resize([0.1, 0.003], len(lengths)), lengths, strict=True)
    ]


@torch.no_grad()
def by_torch(detector: Detector, waves: list[np.ndarray]) -> np.ndarray:
    """Each utterance alone, by the model folder's own code."""
    return np.array([float(detector(torch.from_numpy(wave)[None], torch.tensor([wave.size]))) for wave in waves])


def save(detector: Detector, folder: Path, **record: object) -> Path:
    with torch.no_grad():  # weights of a mean over frames hardly move a score at first
        for parameter in detector.head.output.parameters():
            parameter.mul_(3)
    save_detector(folder, detector, record)
    return folder


def alone(exported: OnnxDetector, waves: list[np.ndarray]) -> np.ndarray:
    """The score of each wave in a batch of one."""
    return np.array([exported.score_padded(*pad([wave]))[0] for wave in waves])


def assert_same_detector(model: Path, exported: OnnxDetector) -> None:
    """The file scores as the folder does: whatever lengths, alone, and in batches unlike the one it was made from."""
    detector, _ = load_detector(model)
    shortest = detector.shortest
    waves = voices(shortest, shortest + 3_333, shortest + 17_007, shortest + 1)
    expected = by_torch(detector, waves)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(exported.score_padded(*pad(waves)), expected, atol=1e-4)
    np.testing.assert_allclose(alone(exported, waves), expected, atol=1e-4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder on `tiny`; read only."""
    return save(detector_of("attentive"), tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def exported(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, exported; read only."""
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    run_cli("export", tiny, "-o", out)
    return out


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=[pytest.mark.release] * (head in TWINS)) for head in UTTERANCE_HEADS]
)
def test_every_head_scores_as_it_does_in_torch(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "TOP_SECONDS", 1)  # 5 s of raw heads, a frame a sample, take a quarter of a minute
    model = save(detector_of(head), tmp_path / "model")
    run_cli("export", model, "-o", tmp_path / "model.onnx")
    assert_same_detector(model, load_onnx(tmp_path / "model.onnx"))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_front_end_scores_as_it_does_in_torch(name: str, tmp_path: Path) -> None:
    encoder = load_folder(make_folder(name, tmp_path / "encoder"))
    torch.manual_seed(3)
    model = save(Detector(encoder, "mean"), tmp_path / "model")
    run_cli("export", model, "-o", tmp_path / "model.onnx")
    exported = load_onnx(tmp_path / "model.onnx")
    assert exported.longest == (480_000 if name == "whisper" else None)
    assert_same_detector(model, exported)


@pytest.mark.parametrize("name", ["whisper", "w2v-bert-relative"])
def test_spectrograms_are_the_same_to_the_last_frame(name: str, tmp_path: Path) -> None:
    """Tones far above the noise: what is wrong at an end of an utterance does not drown in it."""
    encoder = load_folder(make_folder(name, tmp_path / "encoder"))
    lengths = [20_000, 9_039, 9_120, encoder.shortest, 4_801]
    tones = [np.sin(0.3 * np.arange(n) ** 1.1).astype(np.float32) + 1e-3 * make_voice(n, True)[:1] for n in lengths]
    tones.append(np.append(0.01 * tones[1][:-10], np.full(211, 0.9)))  # loud where Whisper drops a frame
    wave, n_samples = (torch.from_numpy(array) for array in pad([tone.astype(np.float32) for tone in tones]))
    expected = encoder.features(wave, n_samples)
    with traceable.traceable():
        found = encoder.features(wave, n_samples)
    np.testing.assert_allclose(found[..., : expected.shape[2]].numpy(), expected.numpy(), atol=2e-3)
    assert expected.std() > 0.1


@pytest.mark.parametrize(("layers", "loss"), [(MERGES[0], "ce"), (MERGES[1], "oc_softmax"), (2, "p2sgrad")])
def test_merges_layers_and_losses_are_in_the_graph(layers: str | int, loss: str, tmp_path: Path) -> None:
    model = save(detector_of("attentive", layers, loss), tmp_path / "model")
    run_cli("export", model, "-o", tmp_path / "model.onnx")
    exported = load_onnx(tmp_path / "model.onnx")
    assert_same_detector(model, exported)
    assert exported.record["score"] == f"{load_detector(model)[0].score_meaning}, not calibrated"


def test_a_model_scores_with_its_file_alone_and_without_torch(tiny: Path, exported: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(exported, tmp_path / "moved.onnx"))
    np.save(tmp_path / "wave.npy", voices(9_000)[0])
    program = (
        "import sys, numpy, spoofkit\n"
        f"print(spoofkit.load({str(moved)!r}).score(numpy.load({str(tmp_path / 'wave.npy')!r}), 16_000)[0].score)\n"
        "print(sorted({'torch', 'transformers', 'onnx', 'spoofkit.models.detector'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    score, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert float(score) == pytest.approx(by_torch(load_detector(tiny)[0], voices(9_000))[0], abs=1e-4)


def test_the_file_says_what_it_is_and_the_record_beside_it_the_same(tiny: Path, exported: Path) -> None:
    inside, beside = load_onnx(exported).record, read_json(exported.with_suffix(".json"))
    assert beside.pop("onnx_sha256") == file_sha256(exported)
    assert beside.pop("model") == str(tiny)
    assert beside.pop("command")[:2] == ["spoofkit", "export"]
    assert inside == beside
    assert inside["model_sha256"] == folder_sha256(tiny)
    assert inside["score"] == "log-odds of bona fide, not calibrated"
    assert inside["polarity"] == "higher = more bona fide"
    assert (inside["input_policy"], inside["shortest"], inside["longest"]) == ("whole", 400, None)
    assert inside["versions"]["torch"] == str(torch.__version__)
    assert inside["versions"]["onnxruntime"] == onnxruntime.__version__
    assert inside["parity"]["largest_difference"] < inside["parity"]["limit"] == 1e-4
    assert (inside["parity"]["fewest_samples"], inside["parity"]["most_samples"]) == (400, 80_000)
    assert str(tiny) not in exported.read_bytes().decode("latin-1")  # folders of the one who exported are nobody's


@pytest.mark.parametrize("policy", ["first:10000", "repeat:10000"])
def test_the_input_policy_of_a_model_goes_with_it(policy: str, tmp_path: Path) -> None:
    model = save(detector_of("mean"), tmp_path / "model", input_policy=policy)
    run_cli("export", model, "-o", tmp_path / "model.onnx")
    detector, _ = load_detector(model)
    waves = voices(9_000, 20_000)
    heard = [np.resize(waves[0], 10_000) if policy.startswith("repeat") else waves[0], waves[1][:10_000]]
    for crop, expected in ((None, heard), ("whole", waves)):
        exported = spoofkit.load(tmp_path / "model.onnx", crop=crop)
        scores = [exported.score(wave, SAMPLE_RATE)[0].score for wave in waves]
        np.testing.assert_allclose(scores, by_torch(detector, expected), atol=1e-4)


def test_scores_do_not_hang_on_neighbours_or_order(exported: Path) -> None:
    detector = load_onnx(exported)
    waves = voices(70_000, 5_000, 400, 300_000, 5_000, 64_000)
    together = detector.score_padded(*pad(waves))
    np.testing.assert_allclose(detector.score_padded(*pad(waves[::-1]))[::-1], together, atol=1e-5)
    np.testing.assert_allclose(alone(detector, waves), together, atol=1e-5)
    assert len(set(together.round(4))) == len(waves)


def test_what_is_no_exported_model_is_refused_in_one_sentence(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    with pytest.raises(SpoofkitError, match=r"nothing.onnx: no such file"):
        load_onnx(tmp_path / "nothing.onnx")
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:5_000])
    with pytest.raises(SpoofkitError, match=r"cut.onnx: cannot be read as an ONNX model"):
        load_onnx(tmp_path / "cut.onnx")
    graph = onnx.load(exported)
    ours = {prop.key: prop.value for prop in graph.metadata_props if prop.key != "sha256"}
    for fields in ({}, ours, ours | {"format": "99"}, ours | {"format": "not JSON"}):
        onnx.helper.set_model_props(graph, fields)
        onnx.save(graph, tmp_path / "foreign.onnx")
        with pytest.raises(SpoofkitError, match=r"foreign.onnx: has no record of `spoofkit export` of this version"):
            load_onnx(tmp_path / "foreign.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SpoofkitError, match=r"needs the package onnxruntime; run `tools/setup.sh --extras onnx`"):
        load_onnx(exported)


@pytest.mark.parametrize("where", ["padding", "alone"])
def test_a_graph_that_scores_otherwise_is_not_written(
    where: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask forgotten shows in padded batches alone, a length that is written into the graph everywhere."""
    wrong = {
        "padding": ("_key_mask", lambda is_frame_BT: torch.ones_like(is_frame_BT)[:, None, None, :]),
        "alone": (
            "_key_mask",
            lambda is_frame_BT: is_frame_BT[:, None, None, :] & (torch.arange(is_frame_BT.shape[1]) < 40),
        ),
    }
    monkeypatch.setattr(traceable, *wrong[where])
    sentence = refusal("export", tiny, "-o", tmp_path / "new" / "model.onnx")
    assert "the exported graph's scores differ from torch's by up to " in sentence
    assert "expected less than 1e-04; nothing was written" in sentence
    assert re.search(r"\(an utterance of \d+ samples, (alone|number \d of a batch of \d)\)", sentence)
    assert list((tmp_path / "new").iterdir()) == []


def test_what_the_exporter_does_not_know_is_refused_and_nothing_stays_replaced(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(detector_of("mean"), tmp_path / "model")
    forward = MeanHead.forward
    monkeypatch.setattr(MeanHead, "forward", lambda *a: torch.special.bessel_j0(forward(*a)))
    before = (wave_encoder.key_mask, GraphPool.forward)
    sentence = refusal("export", model, "-o", tmp_path / "new" / "model.onnx")
    assert sentence.startswith(f"{model}: cannot be exported, torch's exporter does not know a part of this network (")
    assert "bessel_j0" in sentence
    assert (wave_encoder.key_mask, GraphPool.forward) == before
    assert list((tmp_path / "new").iterdir()) == []


def test_a_model_that_one_file_cannot_hold_is_refused_before_work(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MOST_BYTES", 2_000_000)
    monkeypatch.setattr(run, "trace", lambda *_: pytest.fail("work was done"))
    assert "has 0.0 GB of weights, an ONNX file" in refusal("export", tiny, "-o", tmp_path / "model.onnx")


def test_calls_that_cannot_be_followed_are_refused(tiny: Path, manifests: Path, tmp_path: Path) -> None:
    out, dev = tmp_path / "model.onnx", manifests / "dev.tsv"
    one_class = tmp_path / "one.tsv"
    one_class.write_text(dev.read_text().replace("\tspoof\t", "\tbonafide\t"))
    for options, sentence in [
        (("-o", out, "--int8", one_class), "has no trial with the key spoof, expected both"),
        (("-o", out, "--int8", tmp_path / "no.tsv"), "no.tsv: cannot be read"),
        (("-o", tmp_path / "model.pb"), "model.pb: expected the name of an ONNX file"),
    ]:
        assert sentence in refusal("export", tiny, *options)
    assert "not a spoofkit model (no model.json)" in refusal("export", tmp_path, "-o", out)
    assert not out.exists()


def test_outputs_are_kept_replaced_or_refused_as_asked(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    (tmp_path / ".model.0123abcd.tmp.fp32.onnx").write_bytes(b"of a killed export")
    run_cli("export", tiny, "-o", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.onnx"]
    before = out.read_bytes()
    assert "exists already; pass --overwrite" in refusal("export", tiny, "-o", out)
    assert "up to date, skipped" in run_cli("export", tiny, "-o", out, "--reuse").stdout
    other = save(detector_of("mean"), tmp_path / "other")
    assert "inputs have changed since (model)" in refusal("export", other, "-o", out, "--reuse")
    assert out.read_bytes() == before
    run_cli("export", other, "-o", out, "--overwrite")
    assert load_onnx(out).record["head"] == "mean"
    (tmp_path / "results.json").write_text('{"eer": 1}')
    assert "results.json: exists but was not written by `spoofkit export`" in refusal(
        "export", tiny, "-o", tmp_path / "results.onnx"
    )
    assert json.loads((tmp_path / "results.json").read_text()) == {"eer": 1}


def test_a_missing_package_is_named(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "run `tools/setup.sh --extras onnx`" in refusal("export", tiny, "-o", tmp_path / "model.onnx")


def test_int8_is_written_with_what_it_costs(tiny: Path, manifests: Path, tmp_path: Path) -> None:
    out, dev = tmp_path / "small.onnx", manifests / "dev.tsv"
    lines = run_cli("export", tiny, "-o", out, "--int8", dev).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["parity", "int8", str(out)]
    manifest = read_manifest(dev)
    waves = [manifest.read_audio(path) for path in manifest.table["path"]]
    is_bonafide = (manifest.table["key"] == "bonafide").to_numpy()
    quantised, detector = load_onnx(out), load_detector(tiny)[0]
    before = score_manifest(with_torch.scorer_of(detector, torch.device("cpu")), manifest)
    after = alone(quantised, waves)
    shift = quantised.record["int8"]
    assert quantised.record["precision"] == "int8"
    assert shift["n_trials"] == len(waves) == 10
    for found, name in ((before, "eer_percent_fp32"), (after, "eer_percent_int8")):
        assert shift[name] == pytest.approx(100 * eer(found[is_bonafide], found[~is_bonafide]).eer)
        assert f"{shift[name]:.2f} %" in lines[1]
    assert shift["largest_score_difference"] == pytest.approx(np.abs(before - after).max(), abs=1e-5)
    assert shift["largest_score_difference"] > 1e-4  # it is another network
    assert shift["shift"] == pytest.approx(np.sqrt(np.mean((before - after) ** 2)) / before.std(), rel=1e-2)
    threshold = eer(before[is_bonafide], before[~is_bonafide]).threshold
    assert shift["decisions_changed"] == np.sum((before > threshold) != (after > threshold))
    assert 4 * out.stat().st_size / 1e6 == pytest.approx(4 * shift["megabytes_int8"], rel=0.01)
    assert shift["megabytes_int8"] < 0.6 * shift["megabytes_fp32"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["small.json", "small.onnx"]


def test_a_tone_an_offset_and_silence_score_as_they_do_in_torch(tmp_path: Path) -> None:
    """Of a tone most filters of the stem hear next to nothing, and the norm over time magnifies that."""
    encoder = load_folder(make_folder("wav2vec2-group", tmp_path / "encoder"))
    model = save(Detector(encoder, "mean"), tmp_path / "model")
    run_cli("export", model, "-o", tmp_path / "model.onnx")
    second = np.arange(16_000) / 16_000
    noise = np.random.default_rng(5).standard_normal(16_000)
    waves = [np.sin(2 * np.pi * 100 * second), 1e-3 * noise + 0.8, np.zeros(16_000), np.sign(noise)]
    waves = [wave.astype(np.float32) for wave in waves]
    expected = by_torch(load_detector(model)[0], waves)
    np.testing.assert_allclose(load_onnx(tmp_path / "model.onnx").score_padded(*pad(waves)), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["whisper", "w2v-bert-relative"])
def test_int8_leaves_spectrograms_as_they_are(name: str, manifests: Path, tmp_path: Path) -> None:
    import onnx

    torch.manual_seed(3)
    model = save(Detector(load_folder(make_folder(name, tmp_path / "encoder")), "mean"), tmp_path / "model")
    run_cli("export", model, "-o", tmp_path / "small.onnx", "--int8", manifests / "dev.tsv")
    nodes = onnx.load(tmp_path / "small.onnx").graph.node
    assert any(node.op_type == "MatMulInteger" for node in nodes)
    # Two products make the spectrum, one the mel bands; those of the layers have longer names.
    assert sum(node.op_type == "MatMul" and node.name.startswith("/encoder/MatMul") for node in nodes) == 3
    assert load_onnx(tmp_path / "small.onnx").record["int8"]["mean_score_difference"] < 0.1


def test_int8_multiplies_the_stem_with_weights_that_no_processor_overflows_on(manifests: Path, tmp_path: Path) -> None:
    import onnx

    torch.manual_seed(3)
    encoder = load_folder(make_folder("wav2vec2-group", tmp_path / "encoder"))
    model = save(Detector(encoder, "mean"), tmp_path / "model")
    run_cli("export", model, "-o", tmp_path / "small.onnx", "--int8", manifests / "dev.tsv")
    graph = onnx.load(tmp_path / "small.onnx").graph
    weights = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
    convolutions = [layer.conv for layer in encoder.network.feature_extractor.conv_layers]
    stem = {(conv.in_channels * conv.kernel_size[0], conv.out_channels) for conv in convolutions[1:]}
    assert stem <= {weight.shape for weight in weights}
    assert sum(node.op_type == "Conv" for node in graph.node) == 1  # the positional one
    assert max(np.abs(weight.astype(int)).max() for weight in weights) == 64  # 2 x 255 x 64 < 2**15


def test_int8_is_measured_on_what_the_model_hears(manifests: Path, tmp_path: Path) -> None:
    dev = read_manifest(manifests / "dev.tsv")
    model = save(detector_of("mean"), tmp_path / "model", input_policy="repeat:20000")
    run_cli("export", model, "-o", tmp_path / "small.onnx", "--int8", dev.path)
    detector, _ = load_detector(model)
    waves = [np.resize(dev.read_audio(path), 20_000) for path in dev.table["path"]]
    quantised = load_onnx(tmp_path / "small.onnx")
    difference = np.abs(by_torch(detector, waves) - alone(quantised, waves))
    assert quantised.record["int8"]["largest_score_difference"] == pytest.approx(difference.max(), abs=1e-5)
    assert difference.max() > 1e-4


def test_an_int8_scorer_takes_one_utterance_at_a_time(tiny: Path, manifests: Path, tmp_path: Path) -> None:
    run_cli("export", tiny, "-o", tmp_path / "small.onnx", "--int8", manifests / "dev.tsv")
    detector, manifest = load_onnx(tmp_path / "small.onnx"), read_manifest(manifests / "dev.tsv")
    expected = alone(detector, [manifest.read_audio(path) for path in manifest.table["path"]])
    np.testing.assert_array_equal(score_manifest(with_onnx.scorer_of(detector), manifest), expected)


@pytest.mark.skipif(not MINI.is_dir(), reason="the mini recipe has not been run here")
def test_the_model_of_the_mini_recipe_scores_voices_as_torch_does(tmp_path: Path) -> None:
    run_cli("export", MINI, "-o", tmp_path / "mini.onnx")
    exported = load_onnx(tmp_path / "mini.onnx")
    waves = [make_voice(seed, seed % 2 == 0, 0.5 + 0.3 * seed) for seed in range(8)]
    np.testing.assert_allclose(alone(exported, waves), by_torch(load_detector(MINI)[0], waves), atol=1e-4)
