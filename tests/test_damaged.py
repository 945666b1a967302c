"""Damaged and odd inputs end in one sentence, never in a traceback."""

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import make_voice, refusal, run_cli, write_frames
from test_score_verb import make_model
from warm import WarmPython

from spoofkit.addons.pack.write import pack
from spoofkit.checksums import SUMS, folder_sha256, parse
from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.data.frames import WAV2VEC2_GEOMETRY
from spoofkit.data.manifest import read_manifest
from spoofkit.data.mixlist import read_mix_list
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.calibration import Calibration, read_calibration, write_calibration
from spoofkit.evaluation.records import read_record
from spoofkit.files import file_sha256
from spoofkit.localisation import frame_scores
from spoofkit.models.detector import FrameClassifier, load_detector
from spoofkit.models.frame_model import load_frame_model, write_frame_head
from spoofkit.training import checkpoints
from spoofkit.training.experiment import read_metrics

WEIGHTS = "encoder/model.safetensors"
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
    run_cli("pack", manifests / "train.tsv", "-o", tmp_path / "packed", "--overwrite")


@pytest.mark.parametrize("line", ['{"stop": 2, "loss": 0.1}', '{"step": 2}', '{"step": "2", "loss": 0.1}', "[2]"])
def test_metrics_with_a_damaged_key_are_refused_with_their_line(line: str, tmp_path: Path) -> None:
    first = json.dumps({"step": 1, "loss": 0.5})
    (tmp_path / "metrics.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(SpoofkitError, match=r"metrics\.jsonl: line 2 is damaged"):
        read_metrics(tmp_path)


def test_link_that_leads_to_itself_is_one_sentence(manifests: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "loop" in refusal("pack", manifests / "train.tsv", "-o", tmp_path / "loop")
    assert "loop" in refusal("validate", tmp_path / "loop")


# As Python starts with `<&-` or `2>&-`: the stream is None, and its number goes to the file that is opened next.
CLOSED = """
import os, runpy, sys
os.close({number})
sys.{stream} = sys.__{stream}__ = None
runpy.run_module("spoofkit", run_name="__main__")
"""


def test_closed_stdin_is_one_sentence(model: Path, warm_python: WarmPython) -> None:
    command = [warm_python.python, "-c", CLOSED.format(number=0, stream="stdin"), "score", model, "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=warm_python.environ)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "stdin is closed" in done.stderr


def test_closed_stderr_does_not_change_what_is_printed_nor_the_exit_code(warm_python: WarmPython) -> None:
    command = [warm_python.python, "-c", CLOSED.format(number=2, stream="stderr"), "info", "tiny", "--json"]
    closed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=warm_python.environ)
    assert (closed.returncode, closed.stdout) == (0, run_cli("info", "tiny", "--json").stdout)


# ---- A byte that is another one


def flipped(path: Path, at: int) -> None:
    """Damage one bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << (at % 7)
    path.write_bytes(content)


def places(path: Path, n: int) -> list[int]:
    """Where to damage a file: its first and last byte, and `n` between, the same in every run."""
    size = path.stat().st_size
    return [0, size - 1, *random.Random(path.name).sample(range(1, size - 1), n)]


@pytest.fixture(scope="module")
def both_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a frame head; read only."""
    folder = make_model(tmp_path_factory.mktemp("both") / "model")
    (folder / "frame_head").mkdir()
    frames = FrameClassifier(load_detector(folder)[0].encoder, "linear")
    stage = {"stage": "post-training", "kept": {}, "settings": {}, "inputs": {}}
    write_frame_head(folder / "frame_head", frames, "region", folder_sha256(folder / "encoder"), [stage])
    return folder


def test_damaged_byte_anywhere_in_a_model_folder_is_refused(both_heads: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(both_heads, tmp_path / "model"))
    load_frame_model(folder)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "stages.json"]
    assert len(files) == 10
    for path in files:
        whole = path.read_bytes()
        for at in places(path, 8):
            flipped(path, at)
            with pytest.raises(SpoofkitError) as caught:
                load_frame_model(folder)
            assert path.name in str(caught.value) or SUMS in str(caught.value)
            path.write_bytes(whole)
        path.write_bytes(whole[:-1])
        with pytest.raises(SpoofkitError):
            load_frame_model(folder)
        path.write_bytes(whole)
        if path.name != SUMS:
            path.unlink()
            with pytest.raises(SpoofkitError):
                load_frame_model(folder)
            path.write_bytes(whole)
    load_frame_model(folder)


def test_checksums_cover_all_files_but_when_and_where_it_was_trained(both_heads: Path) -> None:
    covered = {"config.json", "model.safetensors", "preprocessor_config.json"}
    of_model = {"model.json", "head.safetensors", *(f"encoder/{name}" for name in covered)}
    for folder, names in (("encoder", covered), ("frame_head", {"head.json", "head.safetensors"}), (".", of_model)):
        assert parse((both_heads / folder / SUMS).read_text()).keys() == names


@pytest.mark.parametrize("damaged", [WEIGHTS, "encoder/config.json", "head.safetensors", "model.json"])
@pytest.mark.parametrize("verb", ["score", "localize", "export", "average", "info", "posttrain --onto"])
def test_every_verb_that_loads_a_model_names_the_damaged_file(
    verb: str, damaged: str, both_heads: Path, manifests: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(both_heads, tmp_path / "model"))
    flipped(folder / damaged, (folder / damaged).stat().st_size // 2)
    sets = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv"]
    lists = ["--mix", manifests / "train.tsv", "--dev-mix", manifests / "dev.tsv"]
    out = tmp_path / "out"
    commands = {
        "score": ["score", folder, manifests / "dev.tsv", "-o", out / "dev.tsv"],
        "localize": ["localize", folder, manifests.parent, "-o", out],
        "export": ["export", folder, "-o", out / "model.onnx"],
        "average": ["average", both_heads, folder, "-o", out],
        "info": ["info", folder],
        "posttrain --onto": ["posttrain", out, "--onto", folder, *sets, *lists],
    }
    assert damaged in refusal(*commands[verb])
    assert not out.exists()


@pytest.mark.parametrize("verb", ["finetune", "info", "average"])
def test_every_verb_that_loads_an_encoder_names_the_damaged_file(
    verb: str, both_heads: Path, manifests: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(both_heads / "encoder", tmp_path / "encoder"))
    flipped(folder / "model.safetensors", 12_345)
    sets = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv"]
    commands = {
        "finetune": ["finetune", tmp_path / "out", "--encoder", folder, *sets],
        "info": ["info", folder],
        "average": ["average", both_heads / "encoder", folder, "-o", tmp_path / "out"],
    }
    assert f"{folder}/model.safetensors" in refusal(*commands[verb])
    assert not (tmp_path / "out/model").exists()


def damages(path: Path, n: int) -> Iterator[None]:
    """Damage a file in turn at many places, one at a time."""
    whole = path.read_bytes()
    for at in places(path, n):
        flipped(path, at)
        yield
        path.write_bytes(whole)


def test_damaged_calibration_is_refused_or_says_the_same(tmp_path: Path) -> None:
    calibration, made_by = Calibration((1.25, 0.5), -3.125, 0.5), [{"model_sha256": "a" * 64}]
    write_calibration(tmp_path / "c.json", calibration, {"fitted_on": {"made_by": made_by}, "cllr": 0.25})
    expected = read_calibration(tmp_path / "c.json")
    n_refused = 0
    for _ in damages(tmp_path / "c.json", 150):
        try:
            assert read_calibration(tmp_path / "c.json") == expected
        except SpoofkitError:
            n_refused += 1
    assert n_refused > 100  # the rest was blank space


def test_damaged_scores_beside_their_record_are_refused(tmp_path: Path) -> None:
    scores = tmp_path / "s.tsv"
    scores.write_text("filename\tcm-score\n" + "".join(f"u{number}\t{number / 7:.9g}\n" for number in range(50)))
    (tmp_path / "s.json").write_text(json.dumps({"scores_sha256": file_sha256(scores), "model_sha256": "a" * 64}))
    assert read_record(scores)
    for _ in damages(scores, 30):
        with pytest.raises(SpoofkitError):
            read_record(scores)


def test_damaged_mix_list_is_refused(manifests: Path, tmp_path: Path) -> None:
    sets = ["--set", "crop_samples=12000", "--set", "mix.n_train=20", "--set", "mix.min_region_samples=800"]
    path, manifest = tmp_path / "mix.tsv", read_manifest(manifests / "train.tsv")
    run_cli("mixlist", "draw", manifests / "train.tsv", "-o", path, *sets, "--set", "mix.share=[0.15,0.45]")
    read_mix_list(path, manifest)
    for _ in damages(path, 80):
        with pytest.raises(SpoofkitError):
            read_mix_list(path, manifest)


def test_damaged_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    state = checkpoints.LoopState(n_steps_done=5)
    checkpoints.save(tmp_path, checkpoints.Checkpoint({"w": torch.arange(300.0)}, {"state": {1: 2}}, state))
    path, said = tmp_path / "step_0000005", list[str]()
    assert checkpoints.newest(tmp_path, said.append) == path
    for file in sorted(path.iterdir()):
        for _ in damages(file, 8):
            with pytest.raises(SpoofkitError, match="no checkpoint can be read"):
                checkpoints.newest(tmp_path, said.append)


def test_damaged_pack_is_found_when_its_audio_is_validated(manifests: Path, tmp_path: Path) -> None:
    pack(manifests / "train.tsv", tmp_path)
    run_cli("validate", tmp_path / "train.tsv", "--read-audio")
    for _ in damages(tmp_path / "train_00000.i16", 4):
        done = run_cli("validate", tmp_path / "train.tsv", "--read-audio", ok=False)
        assert "damaged pack" in done.stdout + done.stderr


def test_damaged_frame_scores_are_refused(tmp_path: Path) -> None:
    path, n_samples = tmp_path / "f.npz", {"a": 4000, "b": 8000}
    scores = {name: np.full(WAV2VEC2_GEOMETRY.n_frames(n), 0.5, np.float32) for name, n in n_samples.items()}
    record = {"geometry": frame_scores.geometry_record(WAV2VEC2_GEOMETRY)}
    write_frames(path, list(scores), n_samples, scores, record)
    frame_scores.read_frames(path)
    for _ in damages(path, 30):
        with pytest.raises(SpoofkitError):
            frame_scores.read_frames(path)


@pytest.mark.parametrize(
    ("there", "asked", "difference"),
    [
        ("e\u0301.wav", "\u00e9.wav", "NFD"),
        ("\u00e9.wav", "e\u0301.wav", "NFC"),
        ("Call.WAV", "call.wav", "capitals"),
        ("call.flac", "call.wav", "suffix"),
        ("recording_0001.wav", "recording_001.wav", "nearest"),
    ],
)
def test_of_a_missing_file_its_whole_path_is_said_and_what_is_there_instead(
    there: str, asked: str, difference: str, tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    soundfile.write(folder / there, make_voice(0, True), SAMPLE_RATE, format="WAV")
    soundfile.write(folder / "else.wav", make_voice(1, True), SAMPLE_RATE)
    with pytest.raises(SpoofkitError) as caught:
        read_audio(folder / asked)
    table = folder / "list.csv"
    table.write_text(f"path,key\n{asked},bonafide\nelse.wav,spoof\n", encoding="utf-8")
    for sentence in (str(caught.value), refusal("prepare", "generic", table, "-o", tmp_path / "data")):
        assert str(folder / asked) in sentence
        assert repr(there) in sentence
        assert difference in sentence


def test_of_a_missing_list_the_folder_that_is_missing_and_a_similar_name_are_said(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "eval.tsv").touch()
    (tmp_path / "data" / "link.tsv").symlink_to("nowhere.tsv")
    for asked, said in (("data/evall.tsv", "'eval.tsv'"), ("dta/eval.tsv", "'data'"), ("data/link.tsv", "nowhere.tsv")):
        sentence = refusal("validate", tmp_path / asked)
        assert str(tmp_path / asked) in sentence
        assert said in sentence
