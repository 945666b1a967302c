"""`tools/count_calls.py`: what it counts of a command."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_functions_and_modules_that_a_command_enters_are_counted_and_listed(tmp_path: Path) -> None:
    command = ["evaluate", tmp_path / "no_scores.tsv", tmp_path / "no_keys.tsv"]
    tool = [sys.executable, ROOT / "tools/count_calls.py", "--list", "--", *command]
    done = subprocess.run(tool, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    *_, counts = done.stderr.splitlines()
    listed = [line for line in done.stderr.splitlines() if ":" in line and " " not in line]
    assert listed[0] == "cli.main:main"
    assert "cli.evaluate:evaluate" in listed
    assert not [name for name in listed if name.endswith((":<module>", ":<lambda>"))]
    assert counts.startswith(f"{len(listed)} functions in {len({name.partition(':')[0] for name in listed})} modules")
    assert done.returncode == 1  # the command's own
