"""What verbs write: where the output is named, and what is done with one that stands there already."""

from pathlib import Path

import pytest
import soundfile
from conftest import make_voice, refusal, run_cli

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.evaluation.calibration import Calibration, write_calibration
from spoofkit.evaluation.scores import write_scores


def tree(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Content, inode and time of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns)
        for path in files
    }


@pytest.fixture
def two_systems(tmp_path: Path) -> Path:
    """Folder with scores of two systems, s0.tsv and s1.tsv, a calibration, a recording and a manifest of it."""
    for seed in range(2):
        write_scores(tmp_path / f"s{seed}.tsv", ["a", "b"], [1.0 + seed, -1.0])
    write_calibration(tmp_path / "cal.json", Calibration((2.0,), 0.5, 0.5), {})
    soundfile.write(tmp_path / "a.wav", make_voice(0, True, 0.3), SAMPLE_RATE)
    (tmp_path / "list.csv").write_text("utt_id,path,key\na,a.wav,bonafide\n")
    run_cli("prepare", "generic", tmp_path / "list.csv", tmp_path / "data")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("apply", "cal.json", "s0.tsv", "s1.tsv"),
        ("fuse", "data/list.tsv", "s0.tsv", "s1.tsv", "fusion.json"),
        ("average", "model", "model", "mean"),
        ("localize", "model", "a.wav", "marked"),
        ("localize", "model", "data/list.tsv", "frames.npz"),
        ("score", "m.onnx", "data/list.tsv", "out.tsv"),
        ("score", "m.onnx", "a.wav", "out.tsv"),
        ("score", "m.onnx", "a.wav", "s1.tsv"),
        ("score", "m.onnx", "a.wav", "out.csv"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_a_last_input_is_never_taken_for_the_output_and_the_sentence_says_what_to_write(
    arguments: tuple[str, ...], options: tuple[str, ...], two_systems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two_systems)
    (two_systems / "m.onnx").write_bytes(b"")
    before = tree(two_systems)
    if arguments[0] == "average":
        options = ()  # it has no --overwrite
    named = arguments[-1].replace(".csv", ".tsv")
    assert f"write `-o {named}`" in refusal(*arguments, *options)
    assert tree(two_systems) == before


def test_a_manifest_is_not_scored_without_a_file_for_its_scores(two_systems: Path) -> None:
    (two_systems / "m.onnx").write_bytes(b"")
    assert "-o scores/eval.tsv" in refusal("score", two_systems / "m.onnx", two_systems / "data/list.tsv")
