"""Does a frame head learn what it is shown, with the right sign and in the right place; and a model with both heads.

What is heard in a mix here is plain: white noise in the middle of a voice. So frames that are trained right are told
apart almost without error, and a frame that is looked for beside its place, or with its sign turned, shows.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import bytes_of_any_day, make_voice, refusal, run_cli, unchecked_calibration, without_sums
from safetensors.torch import load_file, save_file
from test_encoder import make_folder
from test_models import detector_of

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.segments import read_segments
from spoofkit.files import file_sha256, read_json, write_json
from spoofkit.models.detector import FrameClassifier, detector_sha256, folder_sha256, load_detector, save_detector
from spoofkit.models.encoder import Encoder
from spoofkit.models.frame_model import load_frame_model, score_timeline, write_frame_head
from spoofkit.scoring import windows
from spoofkit.training import loop

CONFIG = """
crop_samples: 16000
encoder: {{name: {encoder}, freeze: none}}
mix: {{n_train: 12, n_dev: 12, pairing: {pairing}, frame_target: {target}, n_regions: [1, 2], share: [0.15, 0.45],
  margin_samples: 1600, join: crossfade, level_match: true}}
posttrain: {{precision: fp32, n_steps: {n_steps}, batch_size: 4, eval_every: {n_steps}, checkpoint_every: 5,
  optim: {{lr: 2e-3, head_lr: 2e-3}}}}
finetune: {{precision: fp32, n_steps: 20, batch_size: 4, eval_every: 20, checkpoint_every: 20, bonafide_weight: 0.5,
  spoof_weight: 0.5, optim: {{lr: 1e-3}}}}
"""


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the manifest of six voices, which are bona fide, and six noises, which are not."""
    folder = tmp_path_factory.mktemp("noisy")
    rng = np.random.default_rng(0)
    for key in ("bonafide", "spoof"):
        (folder / "audio" / key).mkdir(parents=True)
        for index in range(6):
            voice_S, noise_S = make_voice(index, True), 0.05 * rng.standard_normal(SAMPLE_RATE)
            wave_S = voice_S if key == "bonafide" else noise_S
            soundfile.write(folder / "audio" / key / f"{key}{index}.wav", wave_S, SAMPLE_RATE)
    run_cli("prepare", "generic", folder / "audio", "-o", folder / "data")
    return folder / "data/audio.tsv"


def settings_of(folder: Path, encoder: str | Path, n_steps: int = 40, **mix: str) -> Path:
    conf = folder / "conf.yaml"
    conf.write_text(CONFIG.format(encoder=encoder, n_steps=n_steps, **mix))
    return conf


def draw_lists(folder: Path, manifest: Path, conf: Path) -> list[object]:
    """Options that name two mix lists."""
    run_cli("mixlist", "draw", manifest, "-o", folder / "mix.tsv", "-c", conf)
    run_cli("mixlist", "draw", manifest, "-o", folder / "mix_dev.tsv", "-c", conf, "--held-out")
    lists = ["--mix", folder / "mix.tsv", "--dev-mix", folder / "mix_dev.tsv"]
    return [*lists, "--train", manifest, "--dev", manifest, "-c", conf, "--device", "cpu"]


# ---- Learning


@pytest.mark.parametrize(
    ("family", "target", "pairing"),
    [
        ("tiny", "region", "bonafide_base"),
        pytest.param("whisper", "authenticity", "cross", marks=pytest.mark.release),
    ],
)
def test_plain_artefacts_are_found_where_they_are(
    family: str, target: str, pairing: str, noisy: Path, tmp_path: Path
) -> None:
    """Frames of wav2vec 2.0 are centred on sample 200, those of Whisper on sample 0: both are looked for in place."""
    encoder = "tiny" if family == "tiny" else make_folder("whisper", tmp_path / "whisper")
    conf = settings_of(tmp_path, encoder, target=target, pairing=pairing)
    run_cli("posttrain", tmp_path / "exp", *draw_lists(tmp_path, noisy, conf))
    mixes = ["localize", tmp_path / "exp", noisy, "-o", tmp_path / "dev.npz", "--mix", tmp_path / "mix_dev.tsv"]
    run_cli(*mixes, "--device", "cpu")
    run_cli("evaluate-segments", tmp_path / "dev.npz", tmp_path / "dev.segments.tsv", "-o", tmp_path / "dev")
    result = json.loads((tmp_path / "dev/segments.json").read_text())
    # Guessing has 50, knowing the position alone 35, the wrong sign 95; a shift by a frame costs about 5.
    assert result["range_eer_percent"] < 6
    (last,) = [json.loads(line) for line in (tmp_path / "exp/metrics.jsonl").read_text().splitlines()[-1:]]
    assert last["dev_frame_eer_away_from_splices_percent"] < 1 < last["dev_position_only_eer_percent"]
    # The mixes as recordings: what is marked begins and ends where the samples do.
    sought = read_segments(tmp_path / "dev.segments.tsv")
    (tmp_path / "mixes").mkdir()
    for mix_id in sought:
        rendered = tmp_path / "mixes" / f"{mix_id}.wav"
        run_cli("mixlist", "render", tmp_path / "mix_dev.tsv", noisy, "-o", rendered, "--mix-id", mix_id)
    marked = ["localize", tmp_path / "exp", tmp_path / "mixes", "-o", tmp_path / "marked", "--device", "cpu"]
    run_cli(*marked, "--threshold-from", tmp_path / "dev/segments.json")
    off, n_alike = [], 0
    for mix_id, regions in sought.items():
        found = json.loads((tmp_path / "marked" / f"{mix_id}.json").read_text())["regions"]
        if len(found) == len(regions):
            n_alike += 1
            ends = np.array([(region["start_seconds"], region["end_seconds"]) for region in found]) * SAMPLE_RATE
            off.append(ends - regions)
    assert n_alike >= 10  # of 12
    # Less than a third of a frame, on either side: half a frame would be a frame beside its place.
    assert np.abs(np.median(np.concatenate(off), axis=0)).max() < 107


# ---- A model with both heads


@pytest.fixture(scope="module")
def lists(noisy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options of `posttrain`, for frames that say whether they are spoofed."""
    folder = tmp_path_factory.mktemp("lists")
    return draw_lists(folder, noisy, settings_of(folder, "tiny", n_steps=10, target="authenticity", pairing="cross"))


@pytest.fixture(scope="module")
def model(noisy: Path, lists: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned model."""
    folder = tmp_path_factory.mktemp("finetune")
    run_cli("finetune", folder, *lists[4:])
    return folder / "model"


@pytest.fixture(scope="module")
def timeline(model: Path, lists: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment in which that model got a frame head."""
    folder = tmp_path_factory.mktemp("timeline")
    run_cli("posttrain", folder, "--onto", model, *lists)
    return folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "call.wav"
    soundfile.write(path, make_voice(40, True, 1.3), SAMPLE_RATE)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): bytes_of_any_day(path) for path in folder.rglob("*") if path.is_file()}


def jsons_of_recordings(out: Path) -> list[Path]:
    return [path for path in out.glob("*.json") if path.name != "timeline.made_from.json"]


def judged(*arguments: object) -> dict[str, Any]:
    """What is said of the one recording that is localized."""
    *_, out = arguments
    run_cli("localize", *arguments, "--device", "cpu")
    (path,) = jsons_of_recordings(Path(str(out)))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_frame_head_is_added_and_nothing_else_is_changed(model: Path, timeline: Path) -> None:
    before, after = files_of(model), files_of(timeline / "model")
    assert {name: digest for name, digest in after.items() if name in before} == before
    new = {"SHA256SUMS", "head.json", "head.safetensors", "stages.json"}
    assert after.keys() - before.keys() == {f"frame_head/{name}" for name in new}
    assert folder_sha256(model) != folder_sha256(timeline / "model")
    record = json.loads((timeline / "model/frame_head/head.json").read_text())
    assert record["encoder_sha256"] == folder_sha256(model / "encoder")
    assert record["inputs"]["model"] == folder_sha256(model)
    assert record["kept"]["step"] == 10
    assert record["settings"]["encoder"]["freeze"] == "all"
    # It has learnt something: its loss is not that of the first step.
    losses = [json.loads(line)["loss"] for line in (timeline / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    trained = (timeline / "train.log").read_text()
    assert "129 of 7" in trained  # a linear head on 128 features; of the encoder nothing


def test_scores_of_sets_are_those_of_the_model_without_it(
    model: Path, timeline: Path, noisy: Path, tmp_path: Path
) -> None:
    for name, folder in (("without", model), ("with", timeline / "model")):
        run_cli("score", folder, noisy, "-o", tmp_path / f"{name}.tsv", "--device", "cpu")
    assert (tmp_path / "without.tsv").read_bytes() == (tmp_path / "with.tsv").read_bytes()
    hashes = [json.loads((tmp_path / f"{name}.json").read_text())["model_sha256"] for name in ("without", "with")]
    assert hashes == [folder_sha256(model)] * 2


def test_a_recording_gets_the_score_of_the_verb_score_and_regions_from_one_pass(
    timeline: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = run_cli("score", timeline / "model", recording, "--json-lines", "--device", "cpu").stdout
    n_passes = []
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda *a, **k: (n_passes.append(1), forward(*a, **k))[1])
    found = judged(timeline / "model", recording, "-o", tmp_path / "out")
    assert n_passes == [1]
    assert found["utterance"]["score"] == pytest.approx(json.loads(printed)["score"], abs=1e-5)
    assert found["utterance"]["meaning"] == "log-odds of bona fide, higher = more bona fide; not calibrated"
    assert found["utterance"]["model_sha256"] == detector_sha256(timeline / "model")
    assert "windows" not in found["utterance"]
    classifier = load_frame_model(timeline / "model").classifier
    wave_S = torch.from_numpy(soundfile.read(recording, dtype="float32")[0])
    with torch.no_grad():
        logit_BT, _ = classifier(wave_S[None], torch.tensor([wave_S.numel()]))
    np.testing.assert_allclose(found["frames"]["score"], -logit_BT[0].numpy(), atol=1e-4)
    words = f"score {found['utterance']['score']:.4f}"
    page = (tmp_path / "out/timeline.html").read_text()
    assert f"The whole recording: {words}." in page
    assert "Score of a whole recording: log-odds of bona fide, higher = more bona fide; not calibrated." in page
    again = run_cli("localize", timeline / "model", recording, "-o", tmp_path / "out", "--overwrite", "--device", "cpu")
    assert again.stdout.splitlines()[0].endswith(f"; {words}")


@pytest.mark.parametrize(
    ("head", "layers", "frame_layers"),
    [("mean", "last", 1), ("mean", "gated", "last"), ("mhfa", "all", "weighted"), ("mean", 1, 1), ("mean", 3, "last")],
)
def test_heads_that_read_other_layers_read_theirs_from_one_pass(
    head: str, layers: str | int, frame_layers: str | int, tmp_path: Path, noisy: Path, lists: list[object]
) -> None:
    save_detector(tmp_path / "model", detector_of(head, layers), {})
    options = ["--set", f"posttrain.layers={frame_layers}", "--set", "posttrain.n_steps=1"]
    run_cli("posttrain", tmp_path / "exp", "--onto", tmp_path / "model", *lists, *options)
    both = load_frame_model(tmp_path / "exp/model")
    wave_BS = torch.from_numpy(np.stack([make_voice(1, True, 0.5), np.pad(make_voice(2, False, 0.4), (0, 1600))]))
    n_samples_B = torch.tensor([8000, 6400])
    with torch.no_grad():
        logit_BT, is_frame_BT, score_B = score_timeline(both, wave_BS, n_samples_B)
        expected_BT, expected_is_frame_BT = both.classifier(wave_BS, n_samples_B)
        expected_B = load_detector(tmp_path / "model")[0](wave_BS, n_samples_B)
    assert torch.equal(is_frame_BT, expected_is_frame_BT)
    torch.testing.assert_close(logit_BT, expected_BT)
    torch.testing.assert_close(score_B, expected_B)


@pytest.mark.parametrize("frames_of", [3, 4])
@pytest.mark.parametrize("model_of", [2, 3])
@torch.no_grad()
def test_heads_of_before_and_of_now_read_the_last_layer_each_their_way_from_one_pass(
    model_of: int, frames_of: int, tmp_path: Path
) -> None:
    detector = detector_of("attentive", "gated").eval()
    frames = FrameClassifier(detector.encoder, "linear", "gated").eval()
    save_detector(tmp_path / "model", detector, {})
    (tmp_path / "model/frame_head").mkdir()
    encoder_sha256 = folder_sha256(tmp_path / "model/encoder")
    stage = {"stage": "post-training", "kept": {}, "settings": {}, "inputs": {}}
    write_frame_head(tmp_path / "model/frame_head", frames, "region", encoder_sha256, [stage])
    without_sums(tmp_path / "model")
    for name, number, now in (("model.json", model_of, 3), ("frame_head/head.json", frames_of, 4)):
        record = read_json(tmp_path / "model" / name)
        assert (record["format"], record.pop("final_norm")) == (now, False)
        if number != now:
            write_json(tmp_path / "model" / name, record | {"format": number}, overwrite=True)
    wave_BS, n_samples_B = torch.from_numpy(make_voice(1, True, 0.5))[None], torch.tensor([8000])
    normed, is_frame_BT = detector.encoder(wave_BS, n_samples_B, "all", final_norm=True)
    plain, _ = detector.encoder(wave_BS, n_samples_B, "all", final_norm=False)
    logit_BT, _, score_B = score_timeline(load_frame_model(tmp_path / "model"), wave_BS, n_samples_B)
    layers = normed if frames_of == 3 else plain
    assert torch.equal(logit_BT, frames.head.output(frames.embed_layers(layers, is_frame_BT)))
    layers = normed if model_of == 2 else plain
    assert torch.equal(score_B, detector.score_embedding(detector.embed_layers(layers, is_frame_BT)))


def test_a_recording_that_is_too_short_for_the_utterance_head_is_left_out_by_name(
    recording: Path, lists: list[object], tmp_path: Path
) -> None:
    save_detector(tmp_path / "model", detector_of("aasist"), {})  # wants three frames, and so 1,040 samples
    options = ["--set", "posttrain.n_steps=1", "--set", "posttrain.eval_every=1"]
    run_cli("posttrain", tmp_path / "exp", "--onto", tmp_path / "model", *lists, *options)
    soundfile.write(tmp_path / "short.wav", make_voice(1, True, 1.0)[:1039], SAMPLE_RATE)
    files = [tmp_path / "short.wav", recording]
    sentence = refusal("localize", tmp_path / "exp/model", *files, "-o", tmp_path / "out")
    assert "1 of 2 recordings failed" in sentence
    assert "short.wav: has 1039 samples, the encoder needs at least 1040" in sentence
    assert [path.stem for path in jsons_of_recordings(tmp_path / "out")] == ["call"]


def test_a_long_recording_has_the_mean_of_its_windows(
    timeline: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "SECONDS", 0.8)
    monkeypatch.setattr(windows, "OVERLAP_SECONDS", 0.2)
    printed = run_cli(
        "score", timeline / "model", recording, "--window", "0.8", "--json-lines", "--device", "cpu"
    ).stdout
    found = judged(timeline / "model", recording, "-o", tmp_path / "out")["utterance"]
    assert (found["score"], found["windows"]) == tuple(json.loads(printed)[name] for name in ("score", "windows"))
    wave_S = torch.from_numpy(soundfile.read(recording, dtype="float32")[0])  # 1.3 s
    detector, _ = load_detector(timeline / "model")
    expected = []
    for start, end in ((0, 12_800), (8_000, 20_800)):
        with torch.no_grad():
            expected.append(float(detector(wave_S[None, start:end], torch.tensor([end - start]))))
    assert [window["score"] for window in found["windows"]] == pytest.approx(expected, abs=1e-5)
    assert [(w["start_seconds"], w["end_seconds"]) for w in found["windows"]] == [(0, 0.8), (0.5, 1.3)]
    assert all(set(window) == {"start_seconds", "end_seconds", "score"} for window in found["windows"])
    # As `score` has it: the first window brings 0.8 s, the second 0.5 s more.
    assert found["score"] == pytest.approx((0.8 * expected[0] + 0.5 * expected[1]) / 1.3, abs=1e-5)
    assert found["over_windows"] == "mean"


def test_a_calibrated_model_says_how_probable_and_what_to_do(
    timeline: Path, noisy: Path, recording: Path, tmp_path: Path
) -> None:
    both = timeline / "model"
    run_cli("score", both, noisy, "-o", tmp_path / "dev.tsv", "--device", "cpu")
    lines = (tmp_path / "dev.tsv").read_text().splitlines()
    # Two trials change places, or the classes would be told apart without error and nothing could be fitted.
    cells = [line.split("\t") for line in lines]
    cells[1][1], cells[-1][1] = cells[-1][1], cells[1][1]
    (tmp_path / "mixed.tsv").write_text("\n".join(map("\t".join, cells)) + "\n")
    run_cli("calibrate", tmp_path / "mixed.tsv", noisy, "-o", tmp_path / "calibration.json")
    calibration = ["--calibration", tmp_path / "calibration.json"]
    printed = json.loads(run_cli("score", both, recording, "--json-lines", *calibration, "--device", "cpu").stdout)
    found = judged(both, recording, *calibration, "-o", tmp_path / "out")["utterance"]
    for name in ("llr", "bonafide_probability", "decision", "spoof_prior"):
        assert found[name] == (printed[name] if isinstance(printed[name], str) else pytest.approx(printed[name]))
    assert found["calibration_sha256"] == file_sha256(tmp_path / "calibration.json")
    text = (tmp_path / "out/timeline.html").read_text()
    assert f"probability of bona fide {found['bonafide_probability']:.3f}" in text
    assert found["decision"] in text
    record: Any = unchecked_calibration(tmp_path / "calibration.json")
    record["fitted_on"]["made_by"] = [{"model_sha256": "b" * 64}]
    (tmp_path / "other.json").write_text(json.dumps(record))
    other = refusal("localize", both, recording, "--calibration", tmp_path / "other.json", "-o", tmp_path / "out2")
    assert "was fitted on scores of model bbbbbbbbbbbb" in other
    npz = ["localize", both, noisy, "-o", tmp_path / "x.npz", *calibration]
    assert "--calibration: is about recordings, found a manifest" in refusal(*npz)


def test_a_model_with_both_heads_localizes_sets_too(timeline: Path, noisy: Path, tmp_path: Path) -> None:
    run_cli("localize", timeline / "model", noisy, "-o", tmp_path / "frames.npz", "--device", "cpu")
    record = json.loads((tmp_path / "frames.json").read_text())
    both = load_frame_model(timeline / "model")
    assert record["model_sha256"] == both.sha256
    # A changed tensor of the frame head, and nothing else, is another frame model.
    other = without_sums(shutil.copytree(timeline / "model", tmp_path / "model"))
    tensors = {name: tensor + 1 for name, tensor in load_file(other / "frame_head/head.safetensors").items()}
    save_file(tensors, other / "frame_head/head.safetensors")
    assert load_frame_model(other).sha256 != both.sha256
    assert folder_sha256(other) != folder_sha256(timeline / "model")


def test_info_of_what_holds_a_model_or_an_encoder_names_it(timeline: Path, tmp_path: Path) -> None:
    assert refusal("info", timeline).endswith(f"name {timeline / 'model'}")
    shutil.copytree(timeline / "model/encoder", tmp_path / "posttrain/encoder")
    shutil.copytree(timeline / "model/frame_head", tmp_path / "posttrain/frame_head")
    assert refusal("info", tmp_path / "posttrain").endswith(f"name {tmp_path / 'posttrain/encoder'}")
    run_cli("info", tmp_path / "posttrain/encoder")
    (tmp_path / "model.onnx").write_bytes(b"-")
    sentence = refusal("info", tmp_path / "model.onnx")
    assert "is an ONNX file, expected an encoder or a model folder" in sentence
    assert "see model.json" in sentence


def test_info_names_both_heads(model: Path, timeline: Path) -> None:
    facts = json.loads(run_cli("info", timeline / "model", "--json").stdout)
    assert facts["frame_head"] == {
        "head": "linear",
        "head_reads": "last",
        "final_norm": True,
        "head_parameters": 129,
        "frame_target": "authenticity",
        "score": "log-odds, bona fide; not calibrated",
    }
    shown = " ".join(run_cli("info", timeline / "model").stdout.split())
    assert "frame head linear on the last layer: 129 parameters" in shown
    assert json.loads(run_cli("info", model, "--json").stdout)["frame_head"] is None


def test_to_scores_and_calibrations_a_frame_head_makes_no_other_model(model: Path, timeline: Path) -> None:
    assert detector_sha256(timeline / "model") == detector_sha256(model) == folder_sha256(model)
    assert folder_sha256(timeline / "model") != folder_sha256(model)


def test_models_with_both_heads_are_averaged_whole(timeline: Path, tmp_path: Path) -> None:
    other = without_sums(shutil.copytree(timeline / "model", tmp_path / "other"))
    for name in ("encoder/model.safetensors", "head.safetensors", "frame_head/head.safetensors"):
        tensors = {key: tensor + 0.5 for key, tensor in load_file(other / name).items()}
        save_file(tensors, other / name, metadata={"format": "pt"})
    head = json.loads((other / "frame_head/head.json").read_text())
    (other / "frame_head/head.json").write_text(json.dumps(head | {"encoder_sha256": folder_sha256(other / "encoder")}))
    run_cli("average", timeline / "model", other, "-o", tmp_path / "mean")
    before = load_file(timeline / "model/frame_head/head.safetensors")
    after = load_file(tmp_path / "mean/frame_head/head.safetensors")
    assert all(torch.allclose(after[name], before[name] + 0.25) for name in before)
    heads = [load_frame_model(folder).detector.kind for folder in (tmp_path / "mean", timeline / "model")]
    assert heads[0] == heads[1]
    (other / "frame_head/head.json").write_text(json.dumps(head | {"frame_target": "region"}))
    sentence = refusal("average", timeline / "model", other, "-o", tmp_path / "mean2")
    assert "differs from" in sentence
    assert "frame_target" in sentence


def test_a_killed_run_goes_on_and_ends_with_the_same_model(
    model: Path, timeline: Path, lists: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = loop.experiment.append_metrics

    def die_at_seven(folder: Path, line: dict[str, Any]) -> None:
        if line["step"] == 7:
            raise KeyboardInterrupt
        append(folder, line)

    monkeypatch.setattr(loop.experiment, "append_metrics", die_at_seven)
    run_cli("posttrain", tmp_path / "exp", "--onto", model, *lists, ok=False)
    assert not (tmp_path / "exp/model").exists()
    monkeypatch.setattr(loop.experiment, "append_metrics", append)
    done = run_cli("posttrain", tmp_path / "exp", "--onto", model, *lists)
    assert "from step 5 of 10" in done.stderr
    assert files_of(tmp_path / "exp/model") == files_of(timeline / "model")
    assert "finished already" in run_cli("posttrain", tmp_path / "exp", "--onto", model, *lists).stderr


def test_a_model_that_was_changed_meanwhile_is_not_completed(
    model: Path, lists: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(model, tmp_path / "model")
    append = loop.experiment.append_metrics

    def change_it(folder: Path, line: dict[str, Any]) -> None:
        (own / "head.safetensors").write_bytes(b"")
        append(folder, line)

    monkeypatch.setattr(loop.experiment, "append_metrics", change_it)
    assert "was changed while its frame head was trained" in refusal("posttrain", tmp_path / "e", "--onto", own, *lists)
    assert not (tmp_path / "e/model").exists()
    monkeypatch.setattr(loop.experiment, "append_metrics", append)
    shutil.copy(model / "head.safetensors", own / "head.safetensors")
    assert "from step 10 of 10" in run_cli("posttrain", tmp_path / "e", "--onto", own, *lists).stderr
    assert (tmp_path / "e/model/frame_head/head.json").is_file()


def test_what_a_frame_head_does_not_fit_is_refused(
    model: Path, timeline: Path, lists: list[object], tmp_path: Path
) -> None:
    def said(onto: Path, exp: Path = tmp_path / "exp") -> str:
        return refusal("posttrain", exp, "--onto", onto, *lists)

    assert "no such folder" in said(tmp_path / "nothing")
    assert "has a frame head already" in said(timeline / "model")
    own = shutil.copytree(model, tmp_path / "x/model")
    for exp in (own, tmp_path / "x"):
        sentence = refusal("posttrain", exp, "--onto", own, *lists, "--overwrite")
        assert "holds the model" in sentence
    assert files_of(own) == files_of(model)
    record = json.loads((without_sums(own) / "model.json").read_text())
    (own / "model.json").write_text(json.dumps(record | {"input_policy": "first:64600"}))
    assert "scores first:64600 of an utterance" in said(own)
    save_detector(tmp_path / "raw", detector_of("rawnet2"), {})
    assert "sinc-rawnet2 has a frame for each sample" in said(tmp_path / "raw")
    assert not (tmp_path / "exp").exists()
    # A finished experiment of another kind, even without its checkpoints, is not written over.
    exp = shutil.copytree(model.parent, tmp_path / "posttrain", ignore=shutil.ignore_patterns("checkpoints"))
    for product in ("model", "encoder"):
        (exp / "model").rename(exp / product)
        before = files_of(exp)
        assert "holds a training of another stage (fine-tuning, not frame head)" in said(model, exp)
        assert files_of(exp) == before
        (exp / product).rename(exp / "model")


def test_a_damaged_missing_or_foreign_frame_head_is_refused(
    model: Path, timeline: Path, recording: Path, tmp_path: Path
) -> None:
    def said(folder: Path) -> str:
        return refusal("localize", folder, recording, "-o", tmp_path / "out")

    sentence = said(model)
    assert "has no frame_head/head.json" in sentence
    assert "posttrain EXP --onto MODEL" in sentence
    # Of another model: the tensors fit, the encoder is another.
    foreign = without_sums(shutil.copytree(model, tmp_path / "foreign"))
    shutil.copytree(timeline / "model/frame_head", foreign / "frame_head")
    weights = load_file(foreign / "encoder/model.safetensors")
    save_file({n: 1.01 * t for n, t in weights.items()}, foreign / "encoder/model.safetensors", {"format": "pt"})
    assert "was trained on another encoder" in said(foreign)
    damaged = without_sums(shutil.copytree(timeline / "model", tmp_path / "damaged"))
    path = damaged / "frame_head/head.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"more": torch.zeros(1)}, path)
    assert "does not fit this head" in said(damaged)
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, path)
    assert "holds NaN" in said(damaged)
    # A folder with half of a model is none: its score would be missed.
    broken = shutil.copytree(timeline / "model", tmp_path / "broken")
    (broken / "head.safetensors").unlink()
    assert "head.safetensors" in said(broken)
    calibration = ["--calibration", tmp_path / "c.json"]
    posttrained = without_sums(shutil.copytree(timeline / "model", tmp_path / "frames_alone"))
    (posttrained / "model.json").unlink()
    sentence = refusal("localize", posttrained, recording, "-o", tmp_path / "out", *calibration)
    assert "has only a frame head" in sentence
    assert not (tmp_path / "out").exists()
