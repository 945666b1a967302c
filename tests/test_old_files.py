"""Files that an early version (commit bf1d7d5) wrote are still read, with the same figures.

`written_by_bf1d7d5/` is what its verbs left of twelve synthetic voices, which this test makes again.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import make_voice, run_cli

from spoofkit.config import differences, read_recorded, stage_settings
from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.data.manifest import read_manifest
from spoofkit.data.mixlist import read_mix_list
from spoofkit.evaluation.scores import read_scores
from spoofkit.settings import Config

WRONG_VOICES = (4, 7)  # sound like the other class, so that there is something to calibrate


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files, with the audio to which manifest and pack lead."""
    folder = tmp_path_factory.mktemp("old") / "files"
    shutil.copytree(Path(__file__).with_name("written_by_bf1d7d5"), folder)
    (folder / "corpus").mkdir()
    for index in range(12):
        wave = make_voice(index, (index % 2 == 0) != (index in WRONG_VOICES), 0.8)
        soundfile.write(folder / f"corpus/u{index}.wav", wave, SAMPLE_RATE)
    for name, root in {"data/list.tsv": "corpus", "packed/one.tsv": "packed"}.items():
        path = folder / name
        header, rest = path.read_text().split("\n", 1)
        assert header.startswith("# root=/corpus")
        path.with_name(f"moved_{path.name}").write_text(f"# root={folder / root}\n{rest}")
    return folder


def scores_of(path: Path) -> list[float]:
    return [float(score) for score in read_scores(path)["score"].to_list()]


def test_manifest_and_mix_lists(old: Path) -> None:
    manifest = read_manifest(old / "data/list.tsv")
    assert manifest.table["n_samples"].to_list() == [12_800] * 12
    for name, n_mixes in {"mix.tsv": 6, "mix_dev.tsv": 4}.items():
        assert len(read_mix_list(old / "posttrain" / name, manifest).mixes) == n_mixes


def test_scores_and_their_record(old: Path) -> None:
    files = old / "scores/list.tsv", old / "data/list.tsv"
    result = json.loads(run_cli("evaluate", *files, "--replicates", 0, "--json").stdout)
    before = json.loads((old / "results/eval.json").read_text())
    names = [name for name, value in before.items() if isinstance(value, float)]
    assert len(names) > 8
    assert {name: result[name] for name in names} == {name: before[name] for name in names}


def test_calibration(old: Path, tmp_path: Path) -> None:
    run_cli("apply", old / "cal.json", old / "scores/list.tsv", "-o", tmp_path / "llr.tsv")
    assert (tmp_path / "llr.tsv").read_bytes() == (old / "scores/llr.tsv").read_bytes()


@pytest.mark.parametrize("model", ["finetune/model", "model.onnx"])
def test_model_and_exported_model(model: str, old: Path, tmp_path: Path) -> None:
    run_cli("score", old / model, old / "data/moved_list.tsv", "-o", tmp_path / "scores.tsv", "--device", "cpu")
    assert scores_of(tmp_path / "scores.tsv") == pytest.approx(scores_of(old / "scores/list.tsv"), abs=1e-5)


def test_frame_head_and_frame_scores(old: Path, tmp_path: Path) -> None:
    run_cli("localize", old / "posttrain", old / "data/moved_list.tsv", "-o", tmp_path / "f.npz", "--device", "cpu")
    with np.load(tmp_path / "f.npz") as now, np.load(old / "frames/list.npz") as before:
        assert now.files == before.files
        assert now["score"] == pytest.approx(before["score"], abs=1e-5)
    rows = ["u0\t-\t-", "u1\t0.2\t0.5", *(f"u{index}\t-\t-" for index in (10, 11, *range(2, 10)))]
    table = ["# rows=12", "utt_id\tstart_seconds\tend_seconds", *rows]
    (tmp_path / "set.segments.tsv").write_text("\n".join(table) + "\n")
    run_cli("evaluate-segments", old / "frames/list.npz", tmp_path / "set.segments.tsv", "-o", tmp_path / "results")


def test_settings_of_an_experiment_are_those_of_today(old: Path, tmp_path: Path) -> None:
    for file, stage in {"posttrain/frame_head/head.json": "posttrain", "finetune/model/model.json": "finetune"}.items():
        path = tmp_path / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(json.loads((old / file).read_text())["settings"]))
        found = read_recorded(path)
        assert differences(found, stage_settings(Config.model_validate(found), stage)) == []


def test_encoder_for_further_training(old: Path) -> None:
    facts = json.loads(run_cli("info", old / "posttrain/encoder", "--json").stdout)
    assert (facts["family"], facts["weights"], facts["encoder_parameters"]) == ("wav2vec2", "49 of 49 tensors", 6804)


def test_pack(old: Path) -> None:
    manifest = read_manifest(old / "packed/moved_one.tsv")
    packed = read_audio(manifest.audio_path(manifest.table["path"][0]))
    assert packed == pytest.approx(make_voice(0, True, 0.8), abs=2**-15)
