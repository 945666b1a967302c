"""What a model is known by: everything that makes its scores, wherever a link or an index leads."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import refusal, run_cli, without_sums
from safetensors.torch import load_file, save_file

from spoofkit import checksums
from spoofkit.checksums import folder_sha256
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import Detector, load_detector, save_detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.settings import EncoderSettings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    torch.manual_seed(0)
    detector = Detector(load_encoder(EncoderSettings(name="tiny", freeze="none")), "mean")
    save_detector(folder, detector, {"settings": None})
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def change_a_weight(weights: Path) -> None:
    tensors = load_file(weights)
    first = next(iter(tensors))
    save_file(tensors | {first: tensors[first] + 0.01}, weights, metadata={"format": "pt"})


@pytest.mark.parametrize("linked", ["encoder", "encoder/model.safetensors", "head.safetensors"])
def test_weights_behind_a_link_belong_to_the_identity(linked: str, model: Path, tmp_path: Path) -> None:
    before = folder_sha256(model)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(model / linked, elsewhere)
    (model / linked).symlink_to(elsewhere)
    assert folder_sha256(model) == before  # where the bytes lie is no part of it
    change_a_weight(elsewhere / "model.safetensors" if elsewhere.is_dir() else elsewhere)
    assert folder_sha256(model) != before


def test_checksums_are_read_by_sha256sum_and_change_no_identity(model: Path) -> None:
    before = folder_sha256(model)
    for folder in (model, model / "encoder"):
        subprocess.run(["sha256sum", "--check", "--strict", "--status", "SHA256SUMS"], cwd=folder, check=True)
    assert folder_sha256(without_sums(model)) == before


def test_folder_of_an_older_version_is_read_with_one_remark_a_process(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checksums, "_warned", set())
    load_detector(model)
    assert not capsys.readouterr().err
    for _ in range(3):
        load_detector(without_sums(model))
        load_encoder(EncoderSettings(name=str(model / "encoder")))
    assert capsys.readouterr().err.count("has no SHA256SUMS") == 1


def test_folder_of_others_is_read_without_a_remark(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checksums, "_warned", set())
    (without_sums(model) / "encoder" / "stages.json").unlink()
    load_encoder(EncoderSettings(name=str(model / "encoder")))
    assert not capsys.readouterr().err


def test_link_to_a_folder_above_it_is_refused(model: Path) -> None:
    (model / "encoder" / "again").symlink_to(model)
    with pytest.raises(SpoofkitError, match="again: is a link to a folder that contains it"):
        folder_sha256(model)


@pytest.mark.parametrize("name", ["../outside.safetensors", "{absolute}", "a/../../outside.safetensors"])
def test_index_that_names_weights_outside_its_folder_is_refused(name: str, model: Path, tmp_path: Path) -> None:
    encoder = without_sums(model) / "encoder"
    outside = model / "outside.safetensors"
    shutil.move(encoder / "model.safetensors", outside)
    name = name.format(absolute=outside)
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(load_file(outside), name)}
    (encoder / "model.safetensors.index.json").write_text(json.dumps(index))
    for folder in (encoder, model):
        sentence = refusal("info", folder)
        assert "model.safetensors.index.json" in sentence
        assert name in sentence


def test_weights_in_several_files_of_the_folder_are_read(model: Path) -> None:
    encoder = without_sums(model) / "encoder"
    tensors = load_file(encoder / "model.safetensors")
    (encoder / "model.safetensors").unlink()
    parts = {name: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, name in enumerate(tensors)}
    for part in set(parts.values()):
        own = {name: tensors[name] for name in parts if parts[name] == part}
        save_file(own, encoder / part, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": parts}
    (encoder / "model.safetensors.index.json").write_text(json.dumps(index))
    run_cli("info", encoder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": []}'])
def test_damaged_index_is_refused_by_name(content: str, model: Path) -> None:
    (without_sums(model) / "encoder" / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refusal("info", model / "encoder")


@pytest.mark.parametrize("size", ["num_hidden_layers", "hidden_size", "intermediate_size"])
def test_sizes_beyond_all_measure_are_refused_before_a_network_is_built(size: str, model: Path) -> None:
    path = without_sums(model) / "encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {size: 1_000_000_000}))
    assert f"{size}: 1000000000" in refusal("info", model / "encoder")
