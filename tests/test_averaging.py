"""Averages of weights, early stopping, head first: closed forms, and the verbs that use them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import refusal, run_cli
from safetensors.torch import load_file, save_file

from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import Detector, folder_sha256, load_detector, save_detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.provenance import Provenance
from spoofkit.processes import World
from spoofkit.settings import EncoderSettings, FinetuneSettings, LossSettings, OptimSettings
from spoofkit.training.averaging import MovingAverage, keep_best, mean_of
from spoofkit.training.checkpoints import LoopState
from spoofkit.training.optim import learning_rate_factor

TINY = EncoderSettings(name="tiny", freeze="none")


@pytest.fixture
def options(manifests: Path) -> list[object]:
    sets = [
        "encoder={name: tiny, freeze: none}",
        "crop_samples=8000",
        "finetune.precision=fp32",
        "finetune.batch_size=4",
    ]
    sets += ["finetune.optim.lr=1e-3", "finetune.n_steps=6", "finetune.eval_every=1"]
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv"]
    return [*sources, *(part for setting in sets for part in ("--set", setting))]


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_moving_average_is_the_sum_it_says() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    average = MovingAverage(layer, 0.9)
    for value in (2.0, 3.0):
        with torch.no_grad():
            layer.weight.fill_(value)
        average.update()
    expected = 0.81 * 1 + 0.09 * 2 + 0.1 * 3
    assert torch.allclose(average.averages["weight"], torch.tensor(expected))
    with average.in_place():
        assert torch.allclose(layer.weight, torch.tensor(expected))
    assert torch.equal(layer.weight, torch.full((1, 2), 3.0))
    assert torch.allclose(average.averages["weight"], torch.tensor(expected))


def test_the_mean_of_files_is_that_of_numpy_and_other_tensors_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for number, path in enumerate(paths):
        save_file({"w": torch.tensor([1.0, 4.0]) * (number + 1), "n": torch.tensor(7 + number)}, path)
    mean = mean_of(paths)
    assert torch.equal(mean["w"], torch.tensor([2.0, 8.0]))
    assert int(mean["n"]) == 7
    save_file({"v": torch.zeros(2)}, paths[1])
    with pytest.raises(SpoofkitError, match=r"1\.safetensors: has other tensors than .*0\.safetensors"):
        mean_of(paths)


def test_the_mean_of_the_best_evaluations_is_handed_on(options: list[object], tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    run_cli("finetune", exp, *options, "--set", "finetune.average_best=3", "--set", "finetune.choose_by=min_dcf")
    lines = sorted(metrics(exp), key=lambda line: (line["dev_min_dcf"], line["dev_cllr"], line["step"]))
    best = [exp / f"checkpoints/best/step_{line['step']:07d}.safetensors" for line in lines[:3]]
    expected = torch.stack([load_file(path)["head.output.linear.weight"] for path in best]).mean(0)
    kept = load_file(exp / "model/head.safetensors")["output.linear.weight"]
    assert torch.allclose(kept, expected, atol=1e-7)
    assert json.loads((exp / "model/model.json").read_text())["kept"]["step"] == lines[0]["step"]


def keep(folder: Path, evaluations: list[dict[str, float]], **changes: object) -> tuple[list[int], list[bool]]:
    """Evaluate in turn, step 1, 2, …: the steps kept in the end, and whether each was the best when it came."""
    state = LoopState()
    settings = FinetuneSettings.model_validate(changes)
    model = torch.nn.Linear(1, 1)
    criteria = ("dev_eer_percent", "dev_cllr")
    (folder / "checkpoints").mkdir(parents=True)
    is_best = [
        keep_best(folder, model, figures, step, criteria, settings, state, World(), lambda _: None)
        for step, figures in enumerate(evaluations, start=1)
    ]
    return [entry["step"] for entry in state.kept], is_best


def test_of_evaluations_with_the_same_eer_that_of_the_lower_cllr_is_the_better(tmp_path: Path) -> None:
    figures = [(1.0, 0.1), (0.0, 0.4), (0.0, 0.2), (0.0, 0.3), (0.0, 0.2), (0.5, 0.0)]
    evaluations = [{"dev_eer_percent": eer, "dev_cllr": cllr} for eer, cllr in figures]
    kept, is_best = keep(tmp_path / "one", evaluations)
    assert kept == [3]
    assert is_best == [True, True, True, False, False, False]  # what `patience` counts
    assert keep(tmp_path / "three", evaluations, average_best=3)[0] == [3, 5, 4]


def test_rounding_errors_of_the_cllr_make_no_evaluation_better(tmp_path: Path) -> None:
    evaluations = [{"dev_eer_percent": 0.0, "dev_cllr": 0.2 - 1e-12 * step} for step in range(3)]
    assert keep(tmp_path, evaluations) == ([1], [True, False, False])


def test_evaluation_of_a_run_begun_before_there_was_a_second_figure_loses_a_tie(tmp_path: Path) -> None:
    evaluations = [{"dev_eer_percent": 0.0}, {"dev_eer_percent": 0.0, "dev_cllr": 0.9}, {"dev_eer_percent": 1.0}]
    assert keep(tmp_path, evaluations) == ([2], [True, True, False])


def test_log_names_a_tie_and_which_step_it_makes_the_best(options: list[object], tmp_path: Path) -> None:
    changes = ["finetune.n_steps=3", "finetune.optim={lr: 1e-12, head_lr: 1e-12}"]  # every evaluation is the same
    run_cli("finetune", tmp_path / "exp", *options, *(part for change in changes for part in ("--set", change)))
    tie = "dev_eer_percent is the same as at step 1: step 1 is best by dev_cllr"
    assert (tmp_path / "exp/train.log").read_text().count(tie) == 2


def test_a_moving_average_is_evaluated_and_handed_on(options: list[object], tmp_path: Path) -> None:
    run_cli("finetune", tmp_path / "exp", *options, "--set", "finetune.ema_decay=0.5", "--set", "finetune.keep=last")
    last = tmp_path / "exp/checkpoints/step_0000006"
    averages = load_file(last / "extra.safetensors")
    name = "head.output.linear.weight"
    assert not torch.equal(averages[name], load_file(last / "model.safetensors")[name])
    kept = load_file(tmp_path / "exp/model/head.safetensors")["output.linear.weight"]
    assert torch.equal(kept, averages[name])


def test_a_run_stops_when_nothing_gets_better(options: list[object], tmp_path: Path) -> None:
    changes = ["finetune.patience=2", "finetune.n_steps=40", "finetune.optim={lr: 1e-12, head_lr: 1e-12}"]
    sets = [part for change in changes for part in ("--set", change)]
    run_cli("finetune", tmp_path / "exp", *options, *sets)
    assert len(metrics(tmp_path / "exp")) == 3  # the first is the best, two are not better
    assert "stopped after step 3: no improvement in 2 evaluations" in (tmp_path / "exp/train.log").read_text()
    assert (tmp_path / "exp/model/model.json").is_file()


def test_in_the_first_steps_the_head_learns_alone(options: list[object], tmp_path: Path) -> None:
    changes = ["finetune.n_steps=3", "finetune.optim.head_first_steps=2", "finetune.checkpoint_every=1"]
    sets = [part for change in changes for part in ("--set", change)]
    run_cli("finetune", tmp_path / "exp", *options, *sets)
    start = load_encoder(TINY).network.state_dict()
    for step, is_same in ((2, True), (3, False)):
        model = load_file(tmp_path / f"exp/checkpoints/step_{step:07d}/model.safetensors")
        assert all(torch.equal(model[f"encoder.network.{name}"], start[name]) for name in start) == is_same
    sentence = refusal("finetune", tmp_path / "x", *options, *sets, "--set", "finetune.n_steps=2")
    assert "optim.head_first_steps: 2 of 2 steps would leave none for the encoder" in sentence


def test_a_run_taken_up_around_the_end_of_head_first_has_the_dropout_of_one_that_was_not(
    options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout follows what is trained: off in a frozen encoder, on from the step at which it learns."""
    monkeypatch.setattr("spoofkit.training.checkpoints.N_CHECKPOINTS_KEPT", 99)
    encoder = load_encoder(TINY)
    for name in ("hidden_dropout", "attention_dropout"):
        setattr(encoder.network.config, name, 0.3)
    encoder.save(tmp_path / "dropping")
    changes = ["finetune.optim.head_first_steps=3", "finetune.checkpoint_every=1", "finetune.eval_every=2"]
    sets = [*(part for change in changes for part in ("--set", change)), "--encoder", tmp_path / "dropping"]
    options = [option for option in options if option != "encoder={name: tiny, freeze: none}"]
    options.pop(options.index("--set"))  # that of the encoder
    whole = tmp_path / "whole"
    run_cli("finetune", whole, *options, *sets)
    assert len(list((whole / "checkpoints").glob("step_*"))) == 6
    for stopped_at in (2, 3, 4):
        folder = tmp_path / f"stopped_{stopped_at}"
        shutil.copytree(whole, folder)
        shutil.rmtree(folder / "model")
        for path in (folder / "checkpoints").glob("step_*"):
            if int(path.name[5:]) > stopped_at:
                shutil.rmtree(path)
        run_cli("finetune", folder, *options, *sets)
        assert metrics(folder) == metrics(whole), stopped_at


def test_kept_weights_that_are_not_what_was_written_are_refused_at_the_start(
    options: list[object], tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    run_cli("finetune", exp, *options, "--set", "finetune.average_best=2")
    shutil.rmtree(exp / "model")
    state = json.loads((exp / "checkpoints/step_0000006/state.json").read_text())
    best = exp / f"checkpoints/best/step_{state['kept'][0]['step']:07d}.safetensors"
    content = bytearray(best.read_bytes())
    content[-3] ^= 1  # a last bit: the mean would be hardly another
    best.write_bytes(content)
    assert f"{best}: does not match" in refusal("finetune", exp, *options, "--set", "finetune.average_best=2")
    best.unlink()
    assert f"{best}: is missing" in refusal("finetune", exp, *options, "--set", "finetune.average_best=2")


def test_the_exponential_schedule_ends_at_a_hundredth() -> None:
    settings = OptimSettings(schedule="exponential", warmup_share=0.1)
    factors = [learning_rate_factor(step, 100, settings) for step in range(100)]
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.1)
    assert factors[99] == pytest.approx(0.01, rel=0.06)


def test_average_takes_the_mean_of_models_and_refuses_others(tmp_path: Path) -> None:
    detectors = []
    for seed in range(3):
        torch.manual_seed(seed)
        detectors.append(Detector(load_encoder(TINY, seed), "attentive"))
        save_detector(tmp_path / f"m{seed}", detectors[-1], {"kept": None})
    folders = [tmp_path / f"m{seed}" for seed in range(3)]
    run_cli("average", *folders, "-o", tmp_path / "mean")
    mean, record = load_detector(tmp_path / "mean")
    states = [detector.state_dict() for detector in detectors]
    for name, tensor in mean.state_dict().items():
        assert torch.allclose(tensor, torch.stack([state[name] for state in states]).mean(0), atol=1e-6)
    assert record["averaged"] == [folder_sha256(folder) for folder in folders]
    others = {
        "model.json: head": Detector(load_encoder(TINY), "mean"),
        "model.json: layers": Detector(load_encoder(TINY), "attentive", 2),
        "model.json: loss": Detector(load_encoder(TINY), "attentive", "last", LossSettings(kind="p2sgrad")),
    }
    for what, detector in others.items():
        save_detector(tmp_path / "other", detector, {})
        assert what in refusal("average", folders[0], tmp_path / "other", "-o", tmp_path / "x")
    seen = Detector(load_encoder(TINY), "attentive")
    seen.encoder.provenance = Provenance("lab/seen", "MIT", contaminates=("ASVspoof 5",))
    save_detector(tmp_path / "other", seen, {})
    assert "encoder/provenance.json" in refusal("average", folders[0], tmp_path / "other", "-o", tmp_path / "x")
    assert "lies inside" in refusal("average", *folders, "-o", folders[1] / "new")
    assert "exists already" in refusal("average", *folders, "-o", tmp_path / "mean")
    assert not (tmp_path / "x").exists()
    run_cli("average", *(folder / "encoder" for folder in folders), "-o", tmp_path / "encoder")
    assert len(load_encoder(EncoderSettings(name=str(tmp_path / "encoder"))).layers) == 3
