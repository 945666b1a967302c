"""Training: interrupted runs equal uninterrupted ones, nothing is lost, what is wrong stops it in one sentence."""

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import refusal, run_cli, without_sums
from safetensors.torch import load_file
from test_recipes import make_small_wavlm
from warm import WarmPython

from spoofkit.checks.experiment import require_folders
from spoofkit.config import load_config
from spoofkit.data.dataset import TrainingOrder, UtteranceDataset, collate
from spoofkit.data.lengths import batches_by_length
from spoofkit.data.manifest import read_manifest
from spoofkit.data.randomness import generator, torch_seed
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import Detector, load_detector
from spoofkit.models.encoder import Encoder
from spoofkit.models.losses import make_output
from spoofkit.models.pretrained import load_encoder
from spoofkit.scoring.batches import score_batches
from spoofkit.settings import LossSettings, OptimSettings
from spoofkit.training.optim import learning_rate_factor, make_optimizer
from spoofkit.training.progress import draw_curve
from spoofkit.training.supervision import frame_eer, frame_loss

TINY = ["encoder.name=tiny", "encoder.freeze=none"]
SETTINGS = """
crop_samples: 16000
encoder: {name: tiny, freeze: none}
mix: {n_train: 24, n_dev: 12, min_region_samples: 800, margin_samples: 400}
posttrain: &short {precision: fp32, n_steps: 8, batch_size: 3, eval_every: 4, checkpoint_every: 3, optim: {lr: 1e-3}}
finetune: *short
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "conf.yaml").write_text(SETTINGS)
    return tmp_path / "conf.yaml"


@pytest.fixture
def mixes(conf: Path, manifests: Path, tmp_path: Path) -> list[object]:
    """Options that name manifests and mix lists."""
    run_cli("mixlist", "draw", manifests / "train.tsv", "-o", tmp_path / "mix.tsv", "-c", conf)
    run_cli("mixlist", "draw", manifests / "dev.tsv", "-o", tmp_path / "mix_dev.tsv", "-c", conf, "--held-out")
    lists = ["--mix", tmp_path / "mix.tsv", "--dev-mix", tmp_path / "mix_dev.tsv"]
    return ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf, *lists]


def finetune_options(manifests: Path, conf: Path) -> list[object]:
    return ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def assert_same_weights(a: Path, b: Path) -> None:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def steps_of(exp: Path) -> list[int]:
    path = exp / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().split("\n")[:-1]] if path.exists() else []


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def start(warm_python: WarmPython) -> Start:
    """Start `spoofkit ARGUMENTS` in a process of its own."""

    def run(*arguments: object) -> subprocess.Popen[bytes]:
        command = [str(warm_python.python), "-m", "spoofkit", *map(str, arguments)]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env=warm_python.environ, **silent)  # type: ignore[call-overload]

    return run


def kill(exp: Path, process: subprocess.Popen[bytes]) -> int:
    """Kill the process that holds an experiment's lock, which must be the one that was started; its number."""
    holder = int(re.findall(r"process (\d+)", (exp / ".lock").read_text())[0])
    os.kill(holder, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return holder


def wait_for_step(exp: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    while not (steps := steps_of(exp)) or steps[-1] < step:
        assert process.poll() is None, f"the run ended before step {step}"
        time.sleep(0.005)


def test_a_killed_run_started_again_equals_an_uninterrupted_one(
    start: Start, mixes: list[object], tmp_path: Path
) -> None:
    # Dropout, so that the random numbers of every step matter.
    encoder = load_encoder(load_config(None, TINY).encoder)
    encoder.network.config.hidden_dropout = encoder.network.config.feat_proj_dropout = 0.2
    encoder.save(tmp_path / "encoder")
    mixes = [*mixes, "--set", f"encoder.name={tmp_path / 'encoder'}"]
    run_cli("posttrain", tmp_path / "whole", *mixes)
    killed = tmp_path / "killed"
    for step in (1, 5, 7):  # before the first checkpoint, between two, near the end
        process = start("posttrain", killed, *mixes)
        wait_for_step(killed, step, process)
        kill(killed, process)
    run_cli("posttrain", killed, *mixes)
    assert_same_weights(tmp_path / "whole/encoder/model.safetensors", killed / "encoder/model.safetensors")
    assert_same_weights(tmp_path / "whole/frame_head/head.safetensors", killed / "frame_head/head.safetensors")
    assert (killed / "metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
    assert steps_of(killed) == list(range(1, 9))


def test_a_terminated_run_saves_its_step_and_goes_on(start: Start, manifests: Path, conf: Path, tmp_path: Path) -> None:
    options = [*finetune_options(manifests, conf), "--set", "finetune.n_steps=12"]
    run_cli("finetune", tmp_path / "whole", *options)
    stopped = tmp_path / "stopped"
    process = start("finetune", stopped, *options)
    wait_for_step(stopped, 5, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    newest = max((stopped / "checkpoints").glob("step_*"))
    assert json.loads((newest / "state.json").read_text())["n_steps_done"] == steps_of(stopped)[-1]
    run_cli("finetune", stopped, *options)
    for name in ("head.safetensors", "encoder/model.safetensors"):
        assert_same_weights(tmp_path / "whole/model" / name, stopped / "model" / name)


def test_loader_processes_do_not_change_the_result(manifests: Path, conf: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        run_cli("finetune", tmp_path / str(workers), *finetune_options(manifests, conf), "--workers", workers)
    assert_same_weights(tmp_path / "0/model/encoder/model.safetensors", tmp_path / "2/model/encoder/model.safetensors")


def test_a_curve_is_drawn_whatever_the_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "$a_$_b"  # as a formula it would not parse
    folder.mkdir()
    lines = [
        {"step": step, "loss": 1 / step} | ({"dev_eer_percent": 9.0} if step == 30 else {}) for step in range(1, 31)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    draw_curve(folder, "dev_eer_percent")
    assert (folder / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_a_finished_run_is_left_as_it_is(manifests: Path, conf: Path, tmp_path: Path) -> None:
    options = [tmp_path / "exp", *finetune_options(manifests, conf), "--set", "finetune.n_steps=2"]
    run_cli("finetune", *options)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "exp/model").rglob("*")}
    assert "finished already" in run_cli("finetune", *options).stderr
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "exp/model").rglob("*")}
    config = tmp_path / "exp/config.yaml"
    older = config.read_text().replace("micro_batch_size: null", "accumulate: 1")
    assert older.count("accumulate") == 1
    config.write_text(older)
    assert "finished already" in run_cli("finetune", *options).stderr
    sentence = refusal("finetune", *options, "--set", "finetune.optim.lr=5e-4")
    assert "holds an experiment with other settings (finetune.optim.lr: 0.001 there, 0.0005 now)" in sentence
    run_cli("finetune", *options, "--set", "finetune.optim.lr=5e-4", "--overwrite")
    record = json.loads((tmp_path / "exp/model/model.json").read_text())
    assert record["settings"]["finetune"]["optim"]["lr"] == 5e-4
    assert load_config(tmp_path / "exp/config.yaml").finetune.optim.lr == 5e-4
    assert (tmp_path / "exp/curve.png").stat().st_size > 1000


def test_two_runs_on_one_folder_are_refused_and_a_dead_ones_lock_is_void(
    start: Start, manifests: Path, conf: Path, tmp_path: Path
) -> None:
    exp, options = tmp_path / "exp", [*finetune_options(manifests, conf), "--workers", 2]
    process = start("finetune", exp, *options, "--set", "finetune.n_steps=10000")
    wait_for_step(exp, 1, process)
    sentence = refusal("finetune", exp, *options)
    holder = kill(exp, process)
    assert f"another process is using this folder ({os.uname().nodename}, process {holder}," in sentence
    # Its loader processes may live a moment longer; they must not hold the lock.
    run_cli("finetune", exp, *options, "--overwrite", "--set", "finetune.n_steps=1")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_during_an_evaluation_says_by_its_exit_code_who_asked(
    number: int, exit_code: int, manifests: Path, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score_when_told_to_stop(*arguments: object, **options: object) -> Iterator[dict[str, float]]:
        os.kill(os.getpid(), number)
        return score_batches(*arguments, **options)

    options = finetune_options(manifests, conf)
    with monkeypatch.context() as patch:
        patch.setattr("spoofkit.training.finetune.score_batches", score_when_told_to_stop)
        done = run_cli("finetune", tmp_path / "exp", *options, ok=False)
    assert done.returncode == exit_code
    assert "stopped while evaluating step 4, which is saved" in done.stderr
    run_cli("finetune", tmp_path / "exp", *options)
    assert steps_of(tmp_path / "exp") == list(range(1, 9))


def test_a_signal_to_the_whole_group_saves_the_step_too(manifests: Path, conf: Path, tmp_path: Path) -> None:
    exp, options = tmp_path / "exp", [*finetune_options(manifests, conf), "--set", "finetune.n_steps=10000"]
    # With an interpreter of its own: of a warm one the group would hold no more than the one that waits for it.
    command = [sys.executable, "-m", "spoofkit", "finetune", exp, *options, "--workers", 2]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, **silent)  # type: ignore[call-overload]
    wait_for_step(exp, 2, process)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 75
    newest = max((exp / "checkpoints").glob("step_*"))
    assert json.loads((newest / "state.json").read_text())["n_steps_done"] == steps_of(exp)[-1]


def test_a_full_disk_leaves_the_older_checkpoint_intact(
    start: Start, warm_python: WarmPython, manifests: Path, conf: Path, tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    options = finetune_options(manifests, conf)
    process = start("finetune", exp, *options)
    wait_for_step(exp, 4, process)
    kill(exp, process)
    before = sorted(path.name for path in (exp / "checkpoints").glob("step_*"))
    assert before
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from spoofkit.cli.main import main; main()"
    )
    done = subprocess.run(
        [warm_python.python, "-c", code, "finetune", str(exp), *map(str, options)],
        env=warm_python.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be written (File too large)" in done.stderr
    assert sorted(path.name for path in (exp / "checkpoints").glob("step_*")) == before
    assert not list(exp.rglob("*.tmp*"))
    run_cli("finetune", exp, *options)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_loss_that_is_not_finite_stops_with_step_and_batch(manifests: Path, conf: Path, tmp_path: Path) -> None:
    sentence = refusal(
        "finetune", tmp_path / "exp", *finetune_options(manifests, conf), "--set", "finetune.optim.lr=1e30"
    )
    assert "at step " in sentence
    assert "(batch T_" in sentence
    assert "train again with --overwrite" in sentence  # nothing that it advises could be resumed
    assert not (tmp_path / "exp/model").exists()


def test_an_evaluation_that_does_not_fit_in_memory_names_no_option_of_score(
    manifests: Path, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Detector, "forward", refuse)  # which only scoring calls
    sentence = refusal("finetune", tmp_path / "exp", *finetune_options(manifests, conf))
    assert "remove the longest utterances of dev" in sentence
    assert "--crop" not in sentence


def test_a_development_utterance_that_the_encoder_cannot_take_is_refused_without_options_of_score(
    manifests: Path, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "longest", 10_000)
    options = finetune_options(manifests, conf)
    assert re.search(r"train.tsv, T_\w+: .* lower crop_samples$", refusal("finetune", tmp_path / "exp", *options))
    sentence = refusal("finetune", tmp_path / "exp", *options, "--set", "crop_samples=9000")
    assert re.search(r"dev.tsv, D_\w+: .* cut the file$", sentence)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_of_the_chosen_step_are_handed_on(keep: str, manifests: Path, conf: Path, tmp_path: Path) -> None:
    changes = [
        f"finetune.keep={keep}",
        "finetune.n_steps=8",
        "finetune.eval_every=1",
        "finetune.batch_size=8",
        "finetune.optim.lr=1e-2",
    ]
    sets = [part for change in changes for part in ("--set", change)]
    run_cli("finetune", tmp_path / "exp", *finetune_options(manifests, conf), *sets)
    lines = [json.loads(line) for line in (tmp_path / "exp/metrics.jsonl").read_text().splitlines()]
    errors = [(line["dev_eer_percent"], line["dev_cllr"]) for line in lines]
    best_step = errors.index(min(errors)) + 1
    assert best_step < 8, "the miniature is learnt before the last step, or this test tells nothing"
    kept = json.loads((tmp_path / "exp/model/model.json").read_text())["kept"]
    assert kept["step"] == (best_step if keep == "best" else 8)
    head = weights(tmp_path / "exp/model/head.safetensors")
    best = weights(tmp_path / f"exp/checkpoints/best/step_{best_step:07d}.safetensors")
    last = weights(tmp_path / "exp/checkpoints/step_0000008/model.safetensors")
    assert not torch.equal(best["head.output.linear.weight"], last["head.output.linear.weight"])
    chosen = best if keep == "best" else last
    assert torch.equal(head["output.linear.weight"], chosen["head.output.linear.weight"])


def test_training_without_evaluations_gives_the_weights_of_training_with_them(
    manifests: Path, conf: Path, tmp_path: Path
) -> None:
    for name, every in (("with", "4"), ("without", "null")):
        sets = ["--set", "finetune.keep=last", "--set", f"finetune.eval_every={every}"]
        done = run_cli("finetune", tmp_path / name, *finetune_options(manifests, conf), *sets)
    assert "not evaluated on dev" in done.stdout
    assert_same_weights(tmp_path / "with/model/head.safetensors", tmp_path / "without/model/head.safetensors")
    lines = [json.loads(line) for line in (tmp_path / "without/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert not any("dev_eer_percent" in line for line in lines)
    assert (tmp_path / "without/checkpoints/step_0000008").is_dir()
    assert (tmp_path / "without/curve.png").stat().st_size
    assert " step 8: " in (tmp_path / "without/train.log").read_text()  # from which a sweep tells the time it took
    for sets in (["finetune.keep=best"], ["finetune.keep=last", "finetune.patience=2"]):
        options = [part for change in [*sets, "finetune.eval_every=null"] for part in ("--set", change)]
        assert "eval_every" in refusal("finetune", tmp_path / "refused", *finetune_options(manifests, conf), *options)


def test_a_mix_list_drawn_with_other_settings_is_refused(mixes: list[object], tmp_path: Path) -> None:
    sentence = refusal("posttrain", tmp_path / "exp", *mixes, "--set", "mix.margin_samples=500")
    assert "was drawn with other settings (margin_samples was 400, now 500)" in sentence


def test_both_frame_targets_train_on_the_same_list(mixes: list[object], tmp_path: Path) -> None:
    for target in ("region", "authenticity"):
        run_cli(
            "posttrain",
            tmp_path / target,
            *mixes,
            "--set",
            f"mix.frame_target={target}",
            "--set",
            "posttrain.n_steps=2",
        )
        last = json.loads((tmp_path / target / "metrics.jsonl").read_text().splitlines()[-1])
        assert {"dev_frame_eer_percent", "dev_position_only_eer_percent"} <= last.keys()
        if target == "authenticity":
            assert "dev_frame_eer_away_from_splices_percent" in last
    a, b = (weights(tmp_path / t / "encoder/model.safetensors") for t in ("region", "authenticity"))
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_a_refused_overwrite_keeps_the_older_run(mixes: list[object], tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    run_cli("posttrain", exp, *mixes, "--set", "posttrain.n_steps=1")
    before = {p: p.stat().st_mtime_ns for p in exp.rglob("*.safetensors")}
    refusal("posttrain", exp, *mixes, "--overwrite", "--set", "seed=5")
    assert before == {p: p.stat().st_mtime_ns for p in exp.rglob("*.safetensors")}


def test_a_mix_list_that_is_not_there_is_said_to_be_drawn_and_nothing_is_left(
    mixes: list[object], manifests: Path, tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    train, dev = manifests / "train.tsv", manifests / "dev.tsv"
    sets = ["--train", train, "--dev", dev]
    sentence = refusal("posttrain", exp, *sets)
    assert sentence.startswith(f"{exp}: has no mix.tsv, expected the mix list of {train}; draw it with")
    assert f"`spoofkit mixlist draw {train} -o {exp}/mix.tsv`" in sentence
    assert "or name another with --mix" in sentence
    given = mixes[mixes.index("--mix") + 1]
    sentence = refusal("posttrain", exp, *sets, "--mix", given)
    assert f"{exp}: has no mix_dev.tsv" in sentence
    assert f"`spoofkit mixlist draw {dev} -o {exp}/mix_dev.tsv --held-out`" in sentence
    refusal("posttrain", exp, *sets, "--mix", given, "--dev-mix", given, "--dev", tmp_path / "none.tsv")
    assert not exp.exists()


def test_a_refused_first_call_claims_nothing(mixes: list[object], tmp_path: Path) -> None:
    assert "was drawn with other settings (seed" in refusal("posttrain", tmp_path / "exp", *mixes, "--set", "seed=5")
    run_cli("posttrain", tmp_path / "exp", *mixes, "--set", "posttrain.n_steps=1")


def test_checkpoints_without_their_settings_are_not_taken_up(manifests: Path, conf: Path, tmp_path: Path) -> None:
    exp, options = tmp_path / "exp", [*finetune_options(manifests, conf), "--set", "finetune.n_steps=1"]
    run_cli("finetune", exp, *options)
    for text in (None, "", "[1"):
        (exp / "config.yaml").unlink() if text is None else (exp / "config.yaml").write_text(text)
        assert "without a readable config.yaml" in refusal("finetune", exp, *options)


def test_what_no_training_of_this_stage_wrote_is_neither_deleted_nor_overwritten(
    mixes: list[object], manifests: Path, conf: Path, model: Path, tmp_path: Path
) -> None:
    converted, own_conf, other = tmp_path / "converted", tmp_path / "with conf", tmp_path / "posttrained"
    shutil.copytree(model, converted / "model")
    own_conf.mkdir()
    (own_conf / "config.yaml").write_text("# mine\nseed: 0\n")
    run_cli("posttrain", other, *mixes, "--set", "posttrain.n_steps=1")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for option in ([], ["--overwrite"], ["--dry-run"], ["--set", "finetune.frozen_first={n_steps: 1, eval_every: 1}"]):
        options = [*finetune_options(manifests, conf), "--encoder", model / "encoder", "--set", "encoder.freeze=stem"]
        for exp, fact in (
            (converted, "model: was not written by a training"),
            (own_conf, "config.yaml: was not written by a training"),
            (other, "holds a training of another stage (post-training, not fine-tuning)"),
        ):
            assert fact in refusal("finetune", exp, *options, *option)
            assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_revision_in_the_file_is_of_the_encoder_there_and_one_of_set_is_of_the_encoder_option(
    manifests: Path, conf: Path, model: Path, tmp_path: Path
) -> None:
    conf.write_text(SETTINGS.replace("{name: tiny, freeze: none}", "{name: lab/pinned, revision: abc}"))
    options = [tmp_path / "exp", *finetune_options(manifests, conf), "--encoder", model / "encoder", "--dry-run"]
    run_cli("finetune", *options)
    sentence = refusal("finetune", *options, "--set", "encoder.revision=def")
    assert f"encoder.revision: def is for a hub id, but {model / 'encoder'} is a folder" in sentence


@pytest.mark.parametrize("name", ["tiny", "sinc-aasist", "torchaudio:WAV2VEC2_BASE"])
def test_a_revision_of_an_encoder_that_the_hub_does_not_have_is_refused(name: str, tmp_path: Path) -> None:
    config = load_config(None, [f"encoder={{name: '{name}', revision: abc, freeze: none}}"])
    for check in (require_folders, lambda config: load_encoder(config.encoder)):
        with pytest.raises(SpoofkitError, match=r"encoder\.revision: abc is for a hub id"):
            check(config)


def test_an_empty_name_of_an_encoder_is_refused(manifests: Path, conf: Path, tmp_path: Path) -> None:
    assert "encoder.name" in refusal("finetune", tmp_path / "exp", *finetune_options(manifests, conf), "--encoder", "")


def test_an_encoder_is_known_by_its_content_not_by_its_path(manifests: Path, conf: Path, tmp_path: Path) -> None:
    load_encoder(load_config(None, TINY).encoder).save(tmp_path / "encoder")
    options = [*finetune_options(manifests, conf), "--set", "finetune.n_steps=1", "--encoder"]
    run_cli("finetune", tmp_path / "exp", *options, tmp_path / "encoder")
    (tmp_path / "encoder").rename(tmp_path / "moved")
    assert "finished already" in run_cli("finetune", tmp_path / "exp", *options, tmp_path / "moved").stderr
    load_encoder(load_config(None, TINY).encoder, seed=1).save(tmp_path / "other")
    assert "inputs.encoder" in refusal("finetune", tmp_path / "exp", *options, tmp_path / "other")


def test_an_encoder_from_scratch_with_a_frozen_stem_is_refused(manifests: Path, tmp_path: Path) -> None:
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv"]
    assert "freeze: tiny starts from random" in refusal("finetune", tmp_path / "e", *sources, "--encoder", "tiny")


@pytest.mark.parametrize("workers", [0, 2])
def test_audio_that_cannot_be_read_stops_training_with_its_name(
    workers: int, corpus: Path, conf: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    run_cli("prepare", "asvspoof5", copy, "-o", tmp_path / "data", "--partial")
    (copy / "flac_T/T_0000000011.flac").write_bytes(b"no audio at all" * 100)
    options = ["--train", tmp_path / "data/train.tsv", "--dev", tmp_path / "data/dev.tsv", "-c", conf]
    sentence = refusal("finetune", tmp_path / "exp", *options, "--workers", workers, "--set", "finetune.batch_size=16")
    assert sentence.startswith(f"{copy.resolve()}/flac_T/T_0000000011.flac: neither libsndfile nor FFmpeg")
    # Loader processes that outlived the error would keep the program from ending.
    assert not multiprocessing.active_children()


def test_an_encoder_in_the_folder_of_the_training_is_refused_and_stays(
    manifests: Path, conf: Path, tmp_path: Path
) -> None:
    own = make_small_wavlm(tmp_path / "exp" / "encoder")
    files = sorted(own.iterdir())
    for more in ([], ["--overwrite"]):
        sentence = refusal("finetune", tmp_path / "exp", *finetune_options(manifests, conf), "--encoder", own, *more)
        assert str(own) in sentence
        assert sorted(own.iterdir()) == files


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recording_that_is_too_long_stops_training_in_one_sentence(
    workers: int, manifests: Path, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOOFKIT_LONGEST_HOURS", "0.0001")
    options = [*finetune_options(manifests, conf), "--workers", workers]
    sentence = refusal("finetune", tmp_path / "exp", *options)
    assert "is longer than" in sentence
    assert "Traceback" not in sentence


def test_an_utterance_too_short_for_the_encoder_is_named_before_training(
    corpus: Path, conf: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    soundfile.write(copy / "flac_T/T_0000000022.flac", np.full(399, 0.1), 16_000)
    for headers in ("--headers", "--no-headers"):
        data = tmp_path / headers
        run_cli("prepare", "asvspoof5", copy, "-o", data, "--partial", headers)
        options = [
            "--train",
            data / "train.tsv",
            "--dev",
            data / "dev.tsv",
            "-c",
            conf,
            "--set",
            "finetune.batch_size=16",
        ]
        sentence = refusal("finetune", tmp_path / "exp", *options, "--overwrite")
        assert "T_0000000022: has 399 samples, the encoder needs at least 400" in sentence


def test_one_class_is_refused(manifests: Path, conf: Path, tmp_path: Path) -> None:
    lines = (manifests / "train.tsv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "\tspoof\t" not in line and not line.startswith("# rows=")]
    (tmp_path / "one.tsv").write_text("".join(kept))
    sentence = refusal(
        "finetune", tmp_path / "exp", "--train", tmp_path / "one.tsv", "--dev", manifests / "dev.tsv", "-c", conf
    )
    assert "has only bonafide utterances, expected both classes" in sentence


def test_training_learns_to_tell_the_miniature_apart(manifests: Path, conf: Path, tmp_path: Path) -> None:
    options = finetune_options(manifests, conf)
    run_cli("finetune", tmp_path / "exp", *options, "--set", "finetune.n_steps=30", "--set", "finetune.batch_size=8")
    lines = [json.loads(line) for line in (tmp_path / "exp/metrics.jsonl").read_text().splitlines()]
    assert np.mean([line["loss"] for line in lines[-5:]]) < 0.5 * lines[0]["loss"]
    assert lines[-1]["dev_eer_percent"] <= 20


# ---- Order, crops, losses, schedule


def test_dropout_differs_between_seeds_and_steps() -> None:
    draws = set()
    for seed, step in ((0, 0), (0, 1), (1, 0), (2**32 - 1, 0)):
        torch.manual_seed(torch_seed(seed, step))
        draws.add(float(torch.rand(1)))
    assert len(draws) == 4


def test_no_two_streams_share_their_numbers() -> None:
    keys = [(stream, epoch, index) for stream in range(1, 5) for epoch in range(3) for index in range(3)]
    assert len({generator(7, *key).random() for key in keys}) == len(keys)


@pytest.mark.parametrize(("n_items", "batch_size"), [(10, 3), (4, 6), (7, 7)])
def test_the_order_visits_everything_once_an_epoch_from_any_step(n_items: int, batch_size: int) -> None:
    whole = list(TrainingOrder(n_items, batch_size, 5, 0, 20))
    assert list(TrainingOrder(n_items, batch_size, 5, 8, 20)) == whole[8:]
    flat = [pair for batch in whole for pair in batch]
    for epoch in range(flat[-1][0]):
        assert sorted(index for e, index in flat if e == epoch) == list(range(n_items))
    assert list(TrainingOrder(n_items, batch_size, 6, 0, 20)) != whole


def test_a_crop_is_a_function_of_seed_epoch_and_index(manifests: Path) -> None:
    manifest = read_manifest(manifests / "train.tsv")

    def crop(seed: int, epoch: int, index: int) -> bytes:
        config = load_config(None, [f"seed={seed}", "crop_samples=12000"])
        item = UtteranceDataset(manifest, config)[epoch, index]
        assert item.wave_S.size == 12_000
        return item.wave_S.tobytes()

    assert crop(0, 0, 0) == crop(0, 0, 0)
    assert len({crop(seed, epoch, 0) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_batches_by_length_stay_within_the_budget_and_lose_nothing() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1000, 90_000, size=200)] + [500_000]
    batches = batches_by_length(lengths, 200_000)
    assert sorted(index for batch in batches for index in batch) == list(range(201))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[index] for index in batch) * len(batch) <= 200_000


def test_padding_frames_do_not_count_in_the_frame_loss() -> None:
    output = make_output(LossSettings(), 1, 1).requires_grad_(False)
    torch.nn.init.ones_(output.linear.weight)
    torch.nn.init.zeros_(output.linear.bias)  # so that the embedding is the logit
    logit, targets = torch.tensor([[[2.0], [-1.0], [9.0]]]), torch.tensor([[1.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    losses = np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0))
    assert float(frame_loss(output, logit, targets, mask, (1.0, 1.0), 2.0)) == pytest.approx(sum(losses) / 2, rel=1e-6)
    weighted = (3 * losses[0] + losses[1]) / 4
    assert float(frame_loss(output, logit, targets, mask, (3.0, 1.0), 4.0)) == pytest.approx(weighted, rel=1e-6)
    with pytest.raises(ValueError, match="frame targets for"):
        frame_loss(output, logit, targets[:, :2], mask, (1.0, 1.0), 2.0)


def test_an_utterance_that_would_be_too_short_played_faster_is_refused_at_the_start(
    manifests: Path, conf: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(manifests / "train.tsv")
    short = int(manifest.table["n_samples"].min())
    options = [*finetune_options(manifests, conf), "--set", "finetune.augment.speed=0.5", "--dry-run"]
    fast = ["--set", "finetune.augment.speed_factors=[1.9]", "--set", "crop_samples=3200"]
    assert run_cli("finetune", tmp_path / "exp", *options, *fast).stdout
    assert short > 3200
    raw = ["--set", "encoder.name=sinc-rawnet2", "--set", "encoder.freeze=stem", "--set", "finetune.head=rawnet2"]
    assert run_cli("finetune", tmp_path / "exp", *options[:-3], "--dry-run", *raw, "--set", "crop_samples=3300").stdout
    sentence = refusal("finetune", tmp_path / "exp", *options, *raw, *fast[:2], "--set", "crop_samples=3300")
    assert "has 3300 samples, the encoder needs at least 6102" in sentence


@pytest.mark.parametrize("stage", ["posttrain", "finetune"])
def test_augmentation_reaches_what_is_learnt_from(stage: str, mixes: list[object], tmp_path: Path) -> None:
    options = mixes if stage == "posttrain" else mixes[:6]
    lines = {}
    for name, extra in (("plain", []), ("rawboost", ["--set", f"{stage}.augment.rawboost=1.0"])):
        run_cli(stage, tmp_path / name, *options, "--set", f"{stage}.n_steps=1", *extra)
        lines[name] = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
    assert lines["plain"]["loss"] != lines["rawboost"]["loss"]


def test_frame_eer_takes_higher_logits_for_injected_frames() -> None:
    logits = np.array([3.0, 2.0, -1.0, -2.0])
    assert frame_eer(logits, np.array([True, True, False, False])) == 0
    assert frame_eer(-logits, np.array([True, True, False, False])) == 1


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_warms_up_and_comes_down(schedule: str) -> None:
    settings = OptimSettings(warmup_share=0.1, schedule=schedule)
    factors = [learning_rate_factor(step, 100, settings) for step in range(100)]
    assert factors[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert factors[10] == pytest.approx(1.0)
    closed = {"linear": 45 / 90, "cosine": 0.5, "constant": 1.0}[schedule]
    assert factors[55] == pytest.approx(closed)
    assert factors[99] == pytest.approx(
        {"linear": 1 / 90, "cosine": 0.5 * (1 - np.cos(np.pi / 90)), "constant": 1.0}[schedule]
    )


@pytest.fixture
def plain_encoder(tmp_path: Path) -> str:
    """An encoder's folder: `tiny`, but not by that name, so that parts of it may be frozen."""
    load_encoder(load_config(None, TINY).encoder).save(tmp_path / "plain")
    return f"encoder.name={tmp_path / 'plain'}"


@pytest.mark.parametrize("freeze", ["none", "stem", 2, "all"])
def test_parameter_groups_cover_every_trained_parameter_once(freeze: str | int, plain_encoder: str) -> None:
    detector = Detector(
        load_encoder(load_config(None, [plain_encoder, f"encoder.freeze={freeze}"]).encoder), "attentive"
    )
    optimizer = make_optimizer(detector.encoder, detector.head, OptimSettings())
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    trained = [id(p) for p in detector.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trained)
    assert all(p.ndim < 2 for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"])


def test_the_learning_rate_falls_layer_by_layer_down_to_the_stem(plain_encoder: str) -> None:
    detector = Detector(load_encoder(load_config(None, [plain_encoder, "encoder.freeze=none"]).encoder), "mean")
    network = detector.encoder.network
    optimizer = make_optimizer(detector.encoder, detector.head, OptimSettings(lr=1e-3, head_lr=0.5, layer_decay=0.5))
    rate = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}

    def rates(module: torch.nn.Module) -> set[float]:
        return {rate[id(p)] for p in module.parameters()}

    assert [rates(layer) for layer in network.encoder.layers] == [{0.25e-3}, {0.5e-3}, {1e-3}]
    assert rates(network.encoder.layer_norm) == {1e-3}  # above the last layer
    assert rates(network.feature_extractor) == rates(network.feature_projection) == {0.125e-3}
    assert rates(detector.head) == {0.5}


@pytest.mark.parametrize("head", ["mean", "attentive"])
def test_a_padded_batch_scores_as_one_by_one(head: str, manifests: Path) -> None:
    torch.manual_seed(0)
    config = load_config(None, ["encoder.name=tiny", "encoder.freeze=none"])
    detector = Detector(load_encoder(config.encoder), head).eval()
    dataset = UtteranceDataset(read_manifest(manifests / "eval.tsv"))
    items = [dataset[0, index] for index in range(8)]
    with torch.inference_mode():
        batch = collate(items)
        together = detector(batch.wave_BS, batch.n_samples_B)
        alone = torch.cat([detector(b.wave_BS, b.n_samples_B) for b in (collate([item]) for item in items)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_model_folder_loads_back_with_the_same_scores_and_refuses_damage(
    manifests: Path, conf: Path, tmp_path: Path
) -> None:
    run_cli("finetune", tmp_path / "exp", *finetune_options(manifests, conf), "--set", "finetune.n_steps=1")
    detector, record = load_detector(tmp_path / "exp/model")
    assert record["settings"]["finetune"]["n_steps"] == 1
    assert not detector.training
    (without_sums(tmp_path / "exp/model") / "head.safetensors").write_bytes(b"x" * 100)
    audio = next(read_manifest(manifests / "eval.tsv").root.rglob("*.flac"))
    assert "does not fit this head" in refusal("score", tmp_path / "exp/model", audio)
    (tmp_path / "exp/model/model.json").unlink()
    assert "not a spoofkit model (no model.json)" in refusal("score", tmp_path / "exp/model", audio)
