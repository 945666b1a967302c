"""Addons can be deleted: each breaks its own verbs and options, says so, and nothing else."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from conftest import make_voice, run_cli, without_sums
from warm import WarmPython

import spoofkit
from spoofkit.addons import ADDONS, VERBS, find
from spoofkit.checksums import folder_sha256
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.models.detector import FrameClassifier, load_detector
from spoofkit.models.frame_model import write_frame_head

PACKAGE = Path(spoofkit.__file__).parent


def imported(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_addons_are_the_folders_there_are() -> None:
    assert sorted(path.parent.name for path in PACKAGE.glob("addons/*/__init__.py")) == sorted(ADDONS)
    assert {path.parent.name for path in PACKAGE.glob("addons/*/cli.py")} == set(VERBS.values())


def test_no_module_imports_an_addon_that_is_not_its_own() -> None:
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts
        for name in imported(path):
            if name.startswith("spoofkit.addons.") and name != "spoofkit.addons.VERBS":
                assert own[:2] == ("addons", name.split(".")[2]), f"{path} imports {name}"


def test_a_package_that_an_addon_lacks_is_not_a_missing_addon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "spoofkit.addons.sasv.evaluate", raising=False)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ModuleNotFoundError):
        find("sasv.evaluate")


@pytest.fixture(scope="module")
def both_heads(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a frame head too."""
    folder = Path(shutil.copytree(model, tmp_path_factory.mktemp("both") / "model"))
    (without_sums(folder) / "frame_head").mkdir()
    frames = FrameClassifier(load_detector(folder)[0].encoder, "linear")
    stage = {"stage": "post-training", "kept": {}, "settings": {}, "inputs": {}}
    write_frame_head(folder / "frame_head", frames, "region", folder_sha256(folder / "encoder"), [stage])
    return folder


def test_without_an_addon_its_own_verbs_are_refused_and_all_else_works(
    model: Path, both_heads: Path, manifests: Path, warm_python: WarmPython, tmp_path: Path
) -> None:
    package = shutil.copytree(PACKAGE, tmp_path / "copy/spoofkit")
    dev, call = manifests / "dev.tsv", tmp_path / "mine/call.wav"
    call.parent.mkdir()
    (call.parent / "table.csv").write_text("path,key\ncall.wav,spoof\n")
    soundfile.write(call, make_voice(1, True, 1.0), SAMPLE_RATE)
    run_cli("pack", dev, "-o", tmp_path / "packed")
    own = {
        "audit": [("audit", dev)],
        "convert": [("convert", "a.pt", "-o", "b")],
        "hub": [("pull", "hub:a/b", "-o", "c"), ("push", model, "a/b"), ("score", "hub:a/b", call)],
        "kaldi": [("kaldi", dev, "-o", "a"), ("prepare", "kaldi", call.parent, "-o", "b")],
        "onnx": [("export", model, "-o", "a.onnx"), ("score", "a.onnx", call)],
        "pack": [("pack", dev, "-o", "a"), ("score", model, tmp_path / "packed/dev.tsv", "-o", tmp_path / "p.tsv")],
        "partialspoof": [("prepare", "partialspoof", call.parent, "-o", "a")],
        "report": [("report", model, call, "-o", "a.html")],
        "sasv": [("evaluate-sasv", "a.tsv", "b.tsv"), ("evaluate-sasv", "--help")],
        "serve": [("serve", model)],
        "stress": [("stress", model, dev, "-o", "a")],
        "timeline": [],
        "voice": [("score", model, call, "--min-speech", "0.5")],
    }
    works = {addon: [("--help",), *((verb, "--help") for verb in VERBS if VERBS[verb] != addon)] for addon in ADDONS}
    for addon, commands in works.items():
        out = tmp_path / addon
        commands.append(("prepare", "generic", call.parent / "table.csv", "-o", out / "data"))
        commands.append(("score", model, dev, "-o", out / "scores.tsv"))
        commands.append(("evaluate", out / "scores.tsv", dev, "--replicates", 0))
    works["timeline"].append(("localize", both_heads, call, "-o", tmp_path / "marked"))
    cases = {addon: (own[addon], works[addon]) for addon in ADDONS}
    (tmp_path / "cases.json").write_text(json.dumps(cases, default=str))
    program = [warm_python.python, Path(__file__).with_name("without_addons.py"), package, tmp_path / "cases.json"]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, env=warm_python.environ)
    assert done.returncode == 0, done.stderr
    marked = {path.name for path in (tmp_path / "marked").iterdir()}
    assert marked == {"call.json", "call.png", "call.rttm", "call.txt", "timeline.made_from.json"}
