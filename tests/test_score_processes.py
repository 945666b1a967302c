"""`torchrun … -m spoofkit score`: several processes share the work, and leave the file that one would have written."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import refusal, run_cli
from test_score_verb import BUDGET, N_UTTERANCES, list_utterances, make_calls, make_model, make_set
from warm import WarmPython

from spoofkit.addons.onnx import with_onnx
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.scores import read_scores
from spoofkit.files import read_json
from spoofkit.journal import read_journal
from spoofkit.processes import World, own_device, read_world
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring import with_torch
from spoofkit.scoring.parts import Part, part_path

# As `-m spoofkit`, but with batches so small that there are many.
PROGRAM = f"""
from spoofkit.cli.main import main
from spoofkit.scoring import with_torch
from spoofkit.addons.onnx import with_onnx
with_onnx.CPU_BUDGET_SAMPLES = with_torch.CPU_BUDGET_SAMPLES = {BUDGET}
main()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "spoofkit_in_small_batches.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (with_onnx, with_torch):
        monkeypatch.setattr(module, "CPU_BUDGET_SAMPLES", BUDGET)


def command(python: Path | str, program: Path, n_processes: int, *arguments: object) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
    return [str(python), *launcher, str(program), *map(str, arguments)]


Torchrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def torchrun(warm_python: WarmPython, program: Path) -> Torchrun:
    """Runs the program as torchrun starts it, on one machine."""

    def run(n_processes: int, *arguments: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(warm_python.python, program, n_processes, *arguments),
            capture_output=True, text=True, check=False, timeout=240,
            env=warm_python.environ | {"PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        assert (done.returncode == 0) == ok, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def counted(table: Path, threshold: float) -> str:
    """The line about a table of decisions with one threshold, counted from the table."""
    decisions = [row["decision"] for row in csv.DictReader(table.read_text().splitlines(), delimiter="\t")]
    counts = ", ".join(f"{decisions.count(one)} {one}" for one in sorted(set(decisions)))
    return f"{table}: {counts}; accept from {threshold} (as given)"


def test_two_and_three_processes_write_the_file_of_one(
    torchrun: Torchrun, model: Path, manifest: Path, tmp_path: Path
) -> None:
    one = tmp_path / "one.tsv"
    decided = ("--accept-from", 0.1)
    run_cli("score", model, manifest, "-o", one, "--window", 0.2, "--windows", tmp_path / "one.windows.tsv", *decided)
    for n_processes in (2, 3):
        out, windows = tmp_path / f"{n_processes}.tsv", tmp_path / f"{n_processes}.windows.tsv"
        arguments = ("score", model, manifest, "-o", out, "--window", 0.2, "--windows", windows, *decided)
        done = torchrun(n_processes, *arguments)
        scores, decisions = done.stdout.splitlines()  # rank 0 alone speaks
        assert scores.startswith(f"{out}: {N_UTTERANCES} scores, merged from {n_processes} parts")
        assert decisions == counted(out.with_suffix(".decisions.tsv"), 0.1)
        assert out.read_bytes() == one.read_bytes()
        assert windows.read_bytes() == (tmp_path / "one.windows.tsv").read_bytes()
        assert out.with_suffix(".decisions.tsv").read_bytes() == (tmp_path / "one.decisions.tsv").read_bytes()
        record = read_json(out.with_suffix(".json"))
        assert [part["part"] for part in record["parts"]] == [f"{k + 1}/{n_processes}" for k in range(n_processes)]
        assert not score_parts.parts_folder(out).exists()
    # Other decisions on the same scores: one process writes, and none takes its temporary file for a leftover.
    decisions, skipped = torchrun(2, *arguments[:-1], 0.2, "--reuse").stdout.splitlines()
    assert decisions == counted(out.with_suffix(".decisions.tsv"), 0.2)
    assert skipped == f"{out}: up to date, skipped"
    assert read_json(out.with_suffix(".json"))["decision"]["accept_from"] == 0.2
    assert "exists already; pass --overwrite" in torchrun(2, *arguments, ok=False).stderr
    assert out.read_bytes() == one.read_bytes()


def test_an_exported_model_and_loose_files_are_shared_too(torchrun: Torchrun, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run_cli("export", model, "-o", tmp_path / "model.onnx")
    make_calls(tmp_path / "calls", 12)
    (tmp_path / "bad.wav").write_text("no sound")
    inputs = ("score", tmp_path / "model.onnx", tmp_path / "calls", tmp_path / "bad.wav")
    refusal(*inputs, "-o", tmp_path / "one.tsv")
    done = torchrun(2, *inputs, "-o", tmp_path / "two.tsv", ok=False)
    assert "1 of 13 recordings failed" in done.stderr
    assert (tmp_path / "two.tsv").read_bytes() == (tmp_path / "one.tsv").read_bytes()
    assert read_json(tmp_path / "two.json")["errors"] == read_json(tmp_path / "one.json")["errors"]


def test_one_that_fails_ends_all_and_what_was_scored_is_kept(
    torchrun: Torchrun, model: Path, manifest: Path, tmp_path: Path
) -> None:
    one, out = tmp_path / "one.tsv", tmp_path / "out.tsv"
    run_cli("score", model, manifest, "-o", one, "--part", "1/1")
    lines = read_journal(part_path(one, Part())).lines
    run_cli("score", model, manifest, "-o", one)
    audio = manifest.parent / f"{next(iter(lines[7]['scores']))[-2:]}.wav"  # of the second process, its fourth batch
    good = audio.read_bytes()
    try:
        audio.write_bytes(b"not audio")
        began = time.monotonic()
        done = torchrun(2, "score", model, manifest, "-o", out, ok=False)
        assert time.monotonic() - began < 120  # nobody waits for what does not come
        assert done.stderr.count(f"spoofkit: error: {audio}: ") == 1
    finally:
        audio.write_bytes(good)
    assert not out.exists()
    assert not out.with_suffix(".json").exists()
    second = read_journal(part_path(out, Part(2, 2)))
    assert [line["batch"] for line in second.lines] == [1, 3, 5]
    # One process alone does not take up what two began.
    assert "expected only parts of 1" in refusal("score", model, manifest, "-o", out)
    assert "already scored" in torchrun(2, "score", model, manifest, "-o", out).stderr
    assert out.read_bytes() == one.read_bytes()


@pytest.mark.release
def test_killed_at_any_moment_the_same_command_goes_on_to_the_same_file(
    program: Path, torchrun: Torchrun, model: Path, manifest: Path, tmp_path: Path
) -> None:
    files = sorted(manifest.parent.glob("*.wav"))
    lengths = {row[0]: row[1] for row in read_lengths(manifest)}
    rows = [(f"u{i:05d}", files[i % N_UTTERANCES].name, lengths[files[i % N_UTTERANCES].name]) for i in range(2_500)]
    many = list_utterances(tmp_path / "many.tsv", manifest.parent, rows)
    one, out = tmp_path / "one.tsv", tmp_path / "out.tsv"
    run_cli("score", model, many, "-o", one)
    # With leave to replace what stands there; the leave outlives the kill, whichever process had begun.
    out.write_text("someone's scores")
    rng, options = random.Random(1), ["--overwrite"]
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        goal = n_batches(out) + rng.randint(2, 30)
        process = subprocess.Popen(
            command(sys.executable, program, 2, "score", model, many, "-o", out, *options),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        while n_batches(out) < goal:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        # What torchrun is told by SIGTERM it tells its processes; what kills it leaves them to be killed too.
        for pid in [process.pid, *children(process.pid)] if number == signal.SIGKILL else [process.pid]:
            os.kill(pid, number)
        assert process.wait() != 0
        assert out.read_text() == "someone's scores"
        options = []
    done = torchrun(2, "score", model, many, "-o", out)
    assert "already scored" in done.stderr  # of two processes one may have been killed before its first batch
    assert out.read_bytes() == one.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"many.tsv", "one.tsv", "one.json", "out.tsv", "out.json"}


def read_lengths(manifest: Path) -> list[tuple[str, int]]:
    from spoofkit.data.manifest import read_manifest

    return list(read_manifest(manifest).table.select("path", "n_samples").iter_rows())


def n_batches(out: Path) -> int:
    """Batches in both parts; of a part that is just being removed none."""
    found = 0
    for path in score_parts.parts_folder(out).glob("*.jsonl"):
        try:
            found += max(0, path.read_bytes().count(b"\n") - 1)
        except FileNotFoundError:
            continue
    return found


def children(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# ---- What is refused; nobody is waited for


@pytest.fixture
def in_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun says to the second of two processes."""
    said = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("in_torchrun")
def test_torchrun_is_refused_what_its_processes_cannot_share(model: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tsv"
    for arguments, sentence in [
        ((manifest, "-o", out, "--part", "1/2"), "torchrun and --part: torchrun divides the work"),
        ((manifest, "-o", out, "--merge"), "torchrun and --merge: torchrun divides the work"),
        ((manifest.parent,), "torchrun: found no score file"),
        (("-", "-o", out), "torchrun: found names on stdin"),
    ]:
        assert refusal("score", model, *arguments).startswith(sentence)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("in_torchrun")
def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    world = read_world()
    assert (world.rank, world.size, world.is_main) == (1, 2, False)
    assert own_device(torch.device("cuda"), world) == torch.device("cuda", 1)
    assert taken == [torch.device("cuda", 1)]
    assert own_device(torch.device("cpu"), world) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SpoofkitError, match="torchrun: process 2 on this machine, but it has 1 GPUs"):
        own_device(torch.device("cuda"), world)
    with pytest.raises(SpoofkitError, match="--device cuda:0: under torchrun each process takes its own GPU"):
        own_device(torch.device("cuda:0"), world)
    assert own_device(torch.device("cuda:0"), World()) == torch.device("cuda:0")


def test_half_of_torchruns_variables_are_refused(
    model: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    sentence = refusal("score", model, manifest, "-o", tmp_path / "out.tsv")
    assert "WORLD_SIZE is 2 but LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set: start with torchrun" in sentence


def test_a_part_of_a_division_that_was_begun_with_leave_gives_it_to_the_others(
    model: Path, manifest: Path, tmp_path: Path
) -> None:
    """A task that was killed before its first batch need not be told again that the old scores may go."""
    one, out = tmp_path / "one.tsv", tmp_path / "out.tsv"
    run_cli("score", model, manifest, "-o", one)
    out.write_text("someone's scores")
    assert "exists already" in refusal("score", model, manifest, "-o", out, "--part", "2/2")
    run_cli("score", model, manifest, "-o", out, "--part", "1/2", "--overwrite")
    run_cli("score", model, manifest, "-o", out, "--part", "2/2")
    assert out.read_text() == "someone's scores"
    run_cli("score", model, manifest, "-o", out, "--merge")
    assert out.read_bytes() == one.read_bytes()
    assert len(read_scores(out)) == json.loads(out.with_suffix(".json").read_text())["n_trials"]
