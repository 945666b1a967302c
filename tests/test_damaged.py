"""Damaged and odd inputs end in one sentence, never in a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import refusal, run_cli
from test_score_verb import make_model

from spoofkit.data.manifest import read_manifest
from spoofkit.data.pack import pack
from spoofkit.errors import SpoofkitError
from spoofkit.training.experiment import read_metrics

DEEP, LONG = "[" * 100_000 + "]" * 100_000, "9" * 5000


@pytest.mark.parametrize("text", [DEEP, LONG, "[]"])
def test_manifest_whose_made_from_is_no_record_is_refused_by_file(text: str, manifests: Path, tmp_path: Path) -> None:
    lines = (manifests / "train.tsv").read_text().splitlines(keepends=True)
    damaged = [f"# made_from={text}\n" if line.startswith("# made_from=") else line for line in lines]
    (tmp_path / "train.tsv").write_text("".join(damaged))
    with pytest.raises(SpoofkitError, match=r"train\.tsv: its line '# made_from=' is damaged"):
        read_manifest(tmp_path / "train.tsv")


@pytest.mark.parametrize("record", ["[]", "{}", '{"n_samples": [1]}', '{"n_samples": ["1"], "sha256": "0"}', DEEP])
def test_pack_record_that_lacks_what_it_should_hold_is_refused_by_name(
    record: str, manifests: Path, tmp_path: Path
) -> None:
    pack(manifests / "train.tsv", tmp_path / "packed")
    (tmp_path / "packed" / "train_00000.json").write_text(record)
    done = run_cli("validate", tmp_path / "packed" / "train.tsv", "--read-audio", ok=False)
    assert "error: damaged pack: 16" in done.stdout + done.stderr
    run_cli("pack", manifests / "train.tsv", tmp_path / "packed", "--overwrite")


@pytest.mark.parametrize("line", ['{"stop": 2, "loss": 0.1}', '{"step": 2}', '{"step": "2", "loss": 0.1}', "[2]"])
def test_metrics_with_a_damaged_key_are_refused_with_their_line(line: str, tmp_path: Path) -> None:
    first = json.dumps({"step": 1, "loss": 0.5})
    (tmp_path / "metrics.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(SpoofkitError, match=r"metrics\.jsonl: line 2 is damaged"):
        read_metrics(tmp_path)


def test_link_that_leads_to_itself_is_one_sentence(manifests: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "loop" in refusal("pack", manifests / "train.tsv", tmp_path / "loop")
    assert "loop" in refusal("validate", tmp_path / "loop")


def test_closed_stdin_is_one_sentence(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    command = f'"{sys.executable}" -m spoofkit score "{model}" - <&-'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "stdin is closed" in done.stderr


def test_closed_stderr_does_not_change_what_is_printed_nor_the_exit_code() -> None:
    command = [f'"{sys.executable}" -m spoofkit info tiny --json {end}' for end in ("2>&-", "2>/dev/null")]
    closed, open_ = (subprocess.run(["bash", "-c", one], stdout=subprocess.PIPE, check=False) for one in command)
    assert (closed.returncode, closed.stdout) == (open_.returncode, open_.stdout) == (0, open_.stdout)
