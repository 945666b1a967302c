"""benchmarks/gpu.sh without a GPU: every part has its block, whatever becomes of the others."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from warm import WarmPython

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/gpu.sh"
FAMILIES = ("wav2vec2-base", "xlsr-300m", "wavlm-large", "whisper-base")
RIGHT = ("scores", "end_to_end", "resume", "lora", "out_of_memory", "group")
FAST = (
    "products", "forward_wav2vec2_base", "forward_xlsr_300m", "forward_wavlm_large", "forward_whisper_base",
    "score_files", "train_xlsr_300m", "train_wavlm_large", "train_xlsr_300m_lora", "train_wavlm_large_lora",
)  # fmt: skip
LAST = ("profile_scoring", "profile_training", "compiled")
NEED_A_GPU = {"out_of_memory", "compiled"}


def start(python: Path | str, out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [str(SCRIPT), str(out), "--device", "cpu", "--size", "tiny", *arguments]
    environment = os.environ | {"PYTHON": str(python), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def statuses_when_running(out: Path, name: str, process: subprocess.Popen[str]) -> dict[str, str]:
    """What the results say of all parts while one is at work."""
    while process.poll() is None:
        if (out / "results.json").exists():
            statuses = {part: block["status"] for part, block in results(out)["parts"].items()}
            if statuses[name] == "running":
                return statuses
        time.sleep(0.05)
    raise AssertionError(f"{name} never ran")


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="matrix products in bf16 take minutes on this CPU"
)
def test_every_part_has_its_block_when_one_fails_and_one_hangs(warm_python: WarmPython, tmp_path: Path) -> None:
    statuses = {"products": "done", "forward_wavlm_large": "failed", "train_wavlm_large_lora": "failed"}
    options = ["--commit", "c0ffee1", "--parts", ",".join([*statuses, "compiled"])]
    options += ["--sabotage", "forward_wavlm_large=fail", "--sabotage", "train_wavlm_large_lora=hang"]
    process = start(warm_python.python, tmp_path / "out", *options)
    before = statuses_when_running(tmp_path / "out", "train_wavlm_large_lora", process)
    shown, _ = process.communicate(timeout=400)
    assert process.returncode == 1, shown
    # A machine that is taken away leaves what was done.
    assert [before[name] for name in ("products", "forward_wavlm_large")] == ["done", "failed"]
    parts = check_parts(tmp_path / "out", statuses | {"compiled": "not possible here"})
    assert parts["products"]["figures"][0]["fp32"] > 0


@pytest.mark.release
def test_every_part_gives_its_figures(tmp_path: Path) -> None:
    # Not a warm one: a part kills a training and resumes it at once, and a copy outlives its client by a moment.
    process = start(sys.executable, tmp_path / "out", "--commit", "c0ffee1")
    shown, _ = process.communicate(timeout=400)
    assert process.returncode == 0, shown
    statuses = dict.fromkeys((*RIGHT, *FAST, *LAST), "done") | dict.fromkeys(NEED_A_GPU, "not possible here")
    parts = check_parts(tmp_path / "out", statuses)
    assert "communication between processes was not tested" in (tmp_path / "out/block.md").read_text()
    scores = {name: row for figures in parts["scores"]["figures"] for name, row in figures.items()}
    assert tuple(scores) == FAMILIES
    assert all(row["spread"] > 1e-3 and row["padded"] < 1e-4 for row in scores.values())
    times = {name for figures in parts["forward_xlsr_300m"]["figures"] for name in figures}
    assert times == {"fp32, 1", "fp32, 2", "bf16, 1", "bf16, 2"}
    for name in ("train_xlsr_300m", "train_xlsr_300m_lora"):
        assert {key for figures in parts[name]["figures"] for key in figures} == {"2", "4", "breakdown"}


def check_parts(out: Path, statuses: dict[str, str]) -> dict[str, Any]:
    """Check that each part has its status and its block; what the results say of the parts."""
    parts: dict[str, Any] = results(out)["parts"]
    assert {name: part["status"] for name, part in parts.items()} == statuses
    assert tuple(parts) == tuple(statuses)
    assert all(part["figures"] for part in parts.values() if part["status"] == "done")
    assert all(part["why"] for part in parts.values() if part["status"] != "done")
    files = list(out.iterdir())
    assert {file.name for file in files} == {"block.md", "results.json", "log.txt"}
    assert all(file.stat().st_size < 16 * 2**20 for file in files)
    block = (out / "block.md").read_text()
    assert [line for line in block.splitlines() if line.startswith("### ")] == [
        f"### {part['title']}" for part in parts.values()
    ]
    assert "c0ffee1" in block
    return parts


@pytest.mark.parametrize(
    "arguments",
    [("--parts", "scores,speeed"), ("--sabotage", "scores=explode"), ("--device", "tpu"), ("--sized", "tiny")],
)
def test_what_it_does_not_know_is_refused(warm_python: WarmPython, tmp_path: Path, arguments: tuple[str, str]) -> None:
    process = start(warm_python.python, tmp_path / "out", *arguments)
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_with_older_results_is_refused(warm_python: WarmPython, tmp_path: Path) -> None:
    (tmp_path / "block.md").write_text("an older run\n")
    process = start(warm_python.python, tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert (tmp_path / "block.md").read_text() == "an older run\n"
