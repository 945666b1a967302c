"""What verbs import: an answer takes as long as the modules that are loaded for it, so none is loaded in vain."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import make_voice

import spoofkit
from spoofkit.data.manifest import read_manifest
from spoofkit.evaluation.scores import write_scores

HEAVY = {"transformers", "huggingface_hub", "scipy", "matplotlib", "peft", "sympy", "torch._dynamo", "PIL", "jinja2"}
"""What neither scoring with wav2vec 2.0 nor reading tables needs."""
RUN = """
import json, sys
commands, first = json.loads(sys.argv[1])
for module in first:
    __import__(module)
before = set(sys.modules)
from spoofkit.cli.main import main
for arguments in commands:
    sys.argv, code = ["spoofkit", *arguments], 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    assert code == 0, arguments
print("\\n" + json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(*commands: list[object], after: tuple[str, ...] = ()) -> set[str]:
    """The modules that verbs load, one after another in a new interpreter, beside those of some other modules."""
    request = json.dumps([[[str(word) for word in command] for command in commands], after])
    done = subprocess.run([sys.executable, "-c", RUN, request], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_does_not_wait_for_libraries() -> None:
    found = loaded()
    assert not found & {"torch", "numpy", "polars", "pydantic", *HEAVY}
    assert len(found) < 200


def test_the_package_loads_nothing_before_a_name_is_used_and_no_torch_before_a_model_is() -> None:
    program = "import sys; import spoofkit; print(*sys.modules); spoofkit.load, spoofkit.evaluate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    at_first, then = (set(line.split()) for line in done.stdout.splitlines())
    assert {name for name in at_first if name.startswith("spoofkit")} == {"spoofkit"}
    assert not at_first & {"numpy", "polars", "pydantic"}
    assert not then & {"torch", "typer", "rich", *HEAVY}
    for name in dir(spoofkit):
        getattr(spoofkit, name)
    assert {"load", "evaluate", "prepare", "SpoofkitError", "ScoredRecording"} <= {*dir(spoofkit)}
    with pytest.raises(AttributeError, match="lode"):
        spoofkit.lode  # noqa: B018


def test_score_with_wav2vec_2_loads_torch_and_little_else(model: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.wav", make_voice(0, True), 16_000)
    found = loaded(["score", model, tmp_path / "call.wav"], after=("torch",))
    assert not found & {"torch", "rich", "polars", *HEAVY}  # torch was there before
    assert len(found) < 350


def test_verbs_on_tables_load_neither_torch_nor_scipy(manifests: Path, tmp_path: Path) -> None:
    keys, scores = manifests / "eval.tsv", tmp_path / "scores.tsv"
    ids = read_manifest(keys).table["utt_id"].to_list()
    write_scores(scores, ids, np.random.default_rng(0).normal(size=len(ids)))
    found = loaded(
        ["evaluate", scores, keys],
        ["evaluate", scores, keys, "--replicates", "0", "--json"],
        ["overlap", manifests / "train.tsv", keys],
        ["subset", keys, "--share", "0.5", "-o", tmp_path / "half.tsv"],
    )
    assert not found & {"torch", "av", "spoofkit.settings", *HEAVY}
    assert len(found) < 800


def test_evaluate_leaves_matplotlib_to_the_processes_that_draw(manifests: Path, tmp_path: Path) -> None:
    keys, scores = manifests / "eval.tsv", tmp_path / "scores.tsv"
    ids = read_manifest(keys).table["utt_id"].to_list()
    write_scores(scores, ids, np.random.default_rng(0).normal(size=len(ids)))
    found = loaded(["evaluate", scores, keys, "-o", tmp_path / "out", "--examples", "0"])
    assert (tmp_path / "out" / "figures" / "det.pdf").exists()
    assert not found & ({"torch", *HEAVY} - {"jinja2"})
