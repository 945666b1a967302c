"""Several processes train as one: the same batches, the same losses, the same decisions; none is left waiting."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import refusal, run_cli
from safetensors.torch import load_file
from test_rat import with_speakers
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from warm import WarmPython

from spoofkit.data.dataset import TrainingOrder
from spoofkit.models.pretrained import load_encoder
from spoofkit.processes import GROUP_OF_ONE
from spoofkit.settings import EncoderSettings
from spoofkit.training.distributed import joined, wrap

SETTINGS = """
crop_samples: 16000
encoder: {name: tiny, freeze: none}
mix: {n_train: 24, n_dev: 12, min_region_samples: 800, margin_samples: 400}
posttrain: &short
  {precision: fp32, n_steps: 4, batch_size: 8, eval_every: 2, checkpoint_every: 3, keep: last, optim: {lr: 1e-3}}
finetune: {<<: *short, head: attentive, bonafide_weight: 0.9, spoof_weight: 0.1}
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "conf.yaml").write_text(SETTINGS)
    return tmp_path / "conf.yaml"


Torchrun = Callable[..., subprocess.CompletedProcess[str]]


def command_of(python: WarmPython, n_processes: int, *arguments: object) -> list[str]:
    """A verb as torchrun starts it, on one machine."""
    run = [str(python.python), "-m", "spoofkit.torchrun", "--standalone", f"--nproc-per-node={n_processes}"]
    return [*run, "-m", "spoofkit", *map(str, arguments)]


@pytest.fixture(scope="module")
def torchrun(warm_python: WarmPython) -> Torchrun:
    """Run a verb in several processes to its end."""

    def run(n_processes: int, *arguments: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command_of(warm_python, n_processes, *arguments),
            env=warm_python.environ, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert (done.returncode == 0) == ok, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def ranks_of(exp: Path) -> list[int]:
    """Numbers of the processes that torchrun started for a fine-tuning."""
    asked = f"-u\0-m\0spoofkit\0finetune\0{exp}\0".encode()
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if asked in path.read_bytes()]


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_course(one: Path, many: Path, weights: str, agreement: float = 2e-5) -> None:
    for a, b in zip(metrics(one), metrics(many), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=5 * agreement, abs=1e-6), (a["step"], name)
    first, second = load_file(one / weights), load_file(many / weights)
    assert first.keys() == second.keys()
    # AdamW divides a gradient that is nothing but rounding by its own size, so a few weights may differ by a step.
    far = sum(int((first[name] - second[name]).abs().gt(agreement).sum()) for name in first)
    assert far < 0.01 * sum(tensor.numel() for tensor in first.values())


def test_one_two_and_four_processes_agree_to_a_millionth_on_the_same_micro_batches(
    torchrun: Torchrun, conf: Path, manifests: Path, tmp_path: Path
) -> None:
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    run_cli("finetune", tmp_path / "whole", *sources)
    sources += ["--set", "finetune.micro_batch_size=2"]
    run_cli("finetune", tmp_path / "one", *sources)
    torchrun(2, "finetune", tmp_path / "two", *sources)
    torchrun(4, "finetune", tmp_path / "four", *sources)
    for weights in ("model/head.safetensors", "model/encoder/model.safetensors"):
        assert_same_course(tmp_path / "whole", tmp_path / "one", weights)
        for name in ("two", "four"):
            assert_same_course(tmp_path / "one", tmp_path / name, weights, agreement=1e-6)
    log = (tmp_path / "two/train.log").read_text()
    assert "on cpu and 1 more processes" in log
    assert log.count("step 4:") == 1  # rank 0 alone writes


def test_batch_norm_and_dropout_do_not_know_how_many_processes_there_are(
    torchrun: Torchrun, conf: Path, manifests: Path, tmp_path: Path
) -> None:
    """AASIST has both: the statistics and the noise of a micro-batch are the same in whichever process."""
    options = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    options += ["--set", "finetune.micro_batch_size=2", "--set", "finetune.n_steps=1", "--set", "finetune.head=aasist"]
    run_cli("finetune", tmp_path / "one", *options)
    torchrun(2, "finetune", tmp_path / "two", *options)
    (one,), (two,) = (metrics(tmp_path / name) for name in ("one", "two"))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-5)
    first, second = (load_file(tmp_path / name / "model/head.safetensors") for name in ("one", "two"))
    statistics = [name for name in first if "running" in name or "num_batches" in name]
    assert statistics
    for name in statistics:
        assert float((first[name] - second[name]).abs().max()) < 1e-6, name


def test_two_processes_train_on_the_references_of_one_in_both_trainings_of_rat(
    torchrun: Torchrun, conf: Path, manifests: Path, tmp_path: Path
) -> None:
    with_speakers(manifests, tmp_path)
    load_encoder(EncoderSettings(name="tiny", freeze="none")).save(tmp_path / "plain")
    options = ["--train", tmp_path / "train.tsv", "--dev", tmp_path / "dev.tsv", "-c", conf]
    options += ["--encoder", tmp_path / "plain", "--set", "encoder.freeze=stem", "--set", "finetune.head=rat"]
    options += ["--set", "finetune.n_steps=1", "--set", "finetune.micro_batch_size=4"]
    options += ["--set", "finetune.frozen_first={n_steps: 1, batch_size: 8, micro_batch_size: 4}"]
    run_cli("finetune", tmp_path / "one", *options)
    torchrun(2, "finetune", tmp_path / "two", *options)
    for name in ("frozen", "."):
        assert_same_course(tmp_path / "one" / name, tmp_path / "two" / name, "model/head.safetensors")


def test_the_development_figures_of_a_model_that_errs_are_the_same_for_any_number_of_processes(
    torchrun: Torchrun, conf: Path, manifests: Path, tmp_path: Path
) -> None:
    """What is learnt is next to nothing, so that all have the same model; it is random, so that it errs."""
    changes = ["n_steps=1", "eval_every=1", "optim.lr=1e-15", "optim.head_lr=1e-15"]
    options = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    options += [part for change in changes for part in ("--set", f"finetune.{change}")]
    run_cli("finetune", tmp_path / "one", *options)
    torchrun(2, "finetune", tmp_path / "two", *options)
    names = ("dev_eer_percent", "dev_min_dcf")
    found = [[metrics(tmp_path / folder)[-1][name] for name in names] for folder in ("one", "two")]
    assert found[0][0] > 5, found
    assert found[1] == found[0]


@pytest.mark.parametrize(
    "sharded", [[], pytest.param(["--shard-layers"], marks=pytest.mark.release)], ids=["whole", "sharded"]
)
def test_heads_with_batch_norm_on_published_kinds_of_encoder_end_and_go_on(
    torchrun: Torchrun, sharded: list[str], conf: Path, manifests: Path, tmp_path: Path
) -> None:
    """Such encoders have a vector for masked frames, without a gradient; such heads statistics of their own share."""
    import transformers as hf

    network = load_encoder(EncoderSettings(name="tiny", freeze="none")).network
    network.config.mask_time_prob = 0.05
    masking = hf.Wav2Vec2Model(network.config)
    assert "masked_spec_embed" in masking.state_dict()  # a parameter without a gradient here, which processes must bear
    masking.save_pretrained(tmp_path / "masking")
    hf.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(tmp_path / "masking")
    options = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    options += ["--encoder", tmp_path / "masking", "--set", "encoder.freeze=stem", "--set", "finetune.head=nes2net"]
    options += ["--set", "finetune.keep=best", "--set", "finetune.eval_every=1", "--set", "finetune.patience=2"]
    exp = tmp_path / "exp"
    torchrun(2, "finetune", exp, *options, *sharded)
    before = metrics(exp)
    shutil.rmtree(exp / "model")
    for path in sorted((exp / "checkpoints").glob("step_*"))[1:]:
        shutil.rmtree(path)  # the older one is left, whose evaluation is to be repeated
    torchrun(2, "finetune", exp, *options, *sharded)
    assert metrics(exp) == before


@pytest.mark.parametrize("weight", ["injected_weight=3", pytest.param("spoof_weight=3", marks=pytest.mark.release)])
def test_post_training_by_two_processes_follows_the_course_of_one(
    torchrun: Torchrun, weight: str, conf: Path, manifests: Path, tmp_path: Path
) -> None:
    supervision = "utterances" if "spoof" in weight else "frames"
    run_cli("mixlist", "draw", manifests / "train.tsv", "-o", tmp_path / "mix.tsv", "-c", conf)
    run_cli("mixlist", "draw", manifests / "dev.tsv", "-o", tmp_path / "mix_dev.tsv", "-c", conf, "--held-out")
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    sources += ["--mix", tmp_path / "mix.tsv", "--dev-mix", tmp_path / "mix_dev.tsv"]
    sources += ["--set", f"posttrain.supervision={supervision}", "--set", f"posttrain.{weight}"]
    run_cli("posttrain", tmp_path / "one", *sources)
    torchrun(2, "posttrain", tmp_path / "two", *sources)
    assert_same_course(tmp_path / "one", tmp_path / "two", "encoder/model.safetensors")


def test_adapters_trained_by_two_processes_follow_the_course_of_one(
    torchrun: Torchrun, conf: Path, manifests: Path, tmp_path: Path
) -> None:
    load_encoder(EncoderSettings(name="tiny", freeze="none")).save(tmp_path / "base")
    options = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    options += ["--encoder", tmp_path / "base", "--set", "encoder={name: x/y, lora: {rank: 4}}"]
    run_cli("finetune", tmp_path / "one", *options)
    torchrun(2, "finetune", tmp_path / "two", *options)
    assert_same_course(tmp_path / "one", tmp_path / "two", "model/encoder/adapter_model.safetensors")
    done = torchrun(2, "finetune", tmp_path / "three", *options, "--shard-layers", ok=False)
    assert "--shard-layers: cannot be combined with encoder.lora" in done.stderr


def test_sharded_layers_follow_the_course_of_whole_ones_and_their_checkpoints_are_whole(
    torchrun: Torchrun, conf: Path, manifests: Path, tmp_path: Path
) -> None:
    sources = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    sources += ["--set", "finetune.ema_decay=0.5", "--set", "finetune.keep=best"]
    run_cli("finetune", tmp_path / "one", *sources)
    torchrun(2, "finetune", tmp_path / "two", *sources, "--shard-layers")
    assert_same_course(tmp_path / "one", tmp_path / "two", "model/encoder/model.safetensors")
    assert_same_course(tmp_path / "one", tmp_path / "two", "checkpoints/step_0000004/model.safetensors")
    # What sharded processes left at step 3, one whole process takes up; and the reverse.
    for name in ("one", "two"):
        folder = shutil.copytree(tmp_path / name, tmp_path / f"{name}, resumed")
        shutil.rmtree(folder / "checkpoints/step_0000004")
        shutil.rmtree(folder / "model")
        if name == "one":
            torchrun(2, "finetune", folder, *sources, "--shard-layers")
        else:
            run_cli("finetune", folder, *sources)
        assert_same_course(tmp_path / "one", folder, "model/encoder/model.safetensors")


def test_two_processes_stop_together_with_exit_code_75_and_go_on_as_one(
    warm_python: WarmPython, conf: Path, manifests: Path, tmp_path: Path
) -> None:
    options = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    options += ["--set", "finetune.n_steps=60", "--set", "finetune.eval_every=60"]
    exp, n_done = tmp_path / "exp", 0
    for to_all in (True, False):
        command = command_of(warm_python, 2, "finetune", exp, *options)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=warm_python.environ)
        deadline = time.monotonic() + 120
        while not (exp / "metrics.jsonl").exists() or len(metrics(exp)) < n_done + 5:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        # torchrun hands it to both; or one of them is told and takes the other with it.
        os.kill(process.pid if to_all else ranks_of(exp)[-1], signal.SIGTERM)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 75, said
        assert "which is saved" in said
        assert "Traceback" not in said
        n_before, n_done = n_done, metrics(exp)[-1]["step"]
        assert n_before + 5 <= n_done < 60
        assert (exp / f"checkpoints/step_{n_done:07d}").is_dir()
    run_cli("finetune", exp, *options)
    assert (exp / "model/model.json").is_file()
    assert [line["step"] for line in metrics(exp)] == list(range(1, 61))


def test_a_process_that_dies_ends_the_run(torchrun: Torchrun, conf: Path, manifests: Path, tmp_path: Path) -> None:
    """One that raises takes the others with it, within seconds, and says why."""
    options = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    done = torchrun(2, "finetune", tmp_path / "exp", *options, "--set", "finetune.batch_size=9", ok=False)
    assert "batch_size: 9 cannot be shared equally by 2 processes; choose a multiple of 2" in done.stderr
    done = torchrun(2, "finetune", tmp_path / "exp2", *options, "--set", "finetune.optim.lr=1e30", ok=False)
    assert "gradient" in done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert not (tmp_path / "exp2/model").exists()


def test_running_statistics_are_those_of_one_process_that_saw_every_micro_batch(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "import torch\n"
        "from spoofkit.training.distributed import joint_statistics, joined\n"
        "with joined(torch.device('cpu')) as (world, device):\n"
        "    steps = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(0))\n"
        "    one, own = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)\n"
        "    for micro_batches in steps:\n"
        "        for values in micro_batches:\n"
        "            one(values)\n"
        "        with joint_statistics(own, world):\n"
        "            for values in micro_batches[2 * world.rank : 2 * world.rank + 2]:\n"
        "                own(values)\n"
        "        for expected, found in zip(one.buffers(), own.buffers(), strict=True):\n"
        "            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)\n"
    )
    # Started by itself, as nobody else here is: torchrun and both processes import torch.
    command = [sys.executable, "-m", "spoofkit.torchrun", "--standalone", "--nproc-per-node=2", tmp_path / "two.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun tells a single process, and the switch that makes it join a group all the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in (variables | {"MASTER_PORT": str(port), GROUP_OF_ONE: "1"}).items():
        monkeypatch.setenv(name, value)


def test_a_single_process_joins_a_group_if_a_test_wants_it(group_of_one: None, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(2, 2)
    with joined(torch.device("cpu")) as (world, device):
        assert dist.is_initialized()
        assert isinstance(wrap(layer, world, device), DistributedDataParallel)
    monkeypatch.delenv(GROUP_OF_ONE)
    with joined(torch.device("cpu")) as (world, device):
        assert not dist.is_initialized()
        assert wrap(layer, world, device) is layer


@pytest.mark.parametrize("options", [(), ("--shard-layers",)])
def test_training_in_a_group_of_one_is_training_alone(
    options: tuple[str, ...], conf: Path, manifests: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lists = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf, "--device", "cpu"]
    run_cli("finetune", tmp_path / "alone", *lists)
    if options:
        assert "--shard-layers" in refusal("finetune", tmp_path / "refused", *lists, *options)
    request.getfixturevalue("group_of_one")
    run_cli("finetune", tmp_path / "group", *lists, *options)
    assert_same_course(tmp_path / "alone", tmp_path / "group", "model/encoder/model.safetensors")


def test_half_of_torchruns_variables_are_refused(
    conf: Path, manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf]
    sentence = refusal("finetune", tmp_path / "exp", *options)
    assert "WORLD_SIZE is 2 but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set: start with torchrun" in sentence


@pytest.mark.parametrize(("world_size", "size", "n_each"), [(1, 8, 1), (1, 2, 4), (2, 4, 1), (2, 2, 2), (4, 2, 1)])
def test_micro_batches_of_all_processes_are_the_batch(world_size: int, size: int, n_each: int) -> None:
    whole = list(TrainingOrder(10, 8, 3, 2, 7))
    orders = [
        TrainingOrder(10, 8, 3, 2, 7, micro_batch_size=size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    shares = [list(order) for order in orders]
    assert all(len(order) == len(share) == 5 * n_each for order, share in zip(orders, shares, strict=True))
    assert [order.first_micro_batch for order in orders] == [rank * n_each for rank in range(world_size)]
    for step, batch in enumerate(whole):
        parts = [part for share in shares for part in share[step * n_each : (step + 1) * n_each]]
        assert [pair for part in parts for pair in part] == batch
        assert {len(part) for part in parts} == {size}
    alone = TrainingOrder(10, 8, 3, 2, 7, rank=world_size - 1, world_size=world_size)
    assert list(alone) == [batch[-8 // world_size :] for batch in whole]
