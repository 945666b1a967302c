"""Sets of which nobody says what is bona fide: whatever needs no key takes them, the rest says how many have none."""

import json
import re
from pathlib import Path

import pytest
import soundfile
import torch
from conftest import make_voice, refusal, run_cli

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import NO_KEY, read_manifest
from spoofkit.evaluation.scores import read_scores
from spoofkit.models.detector import Detector, save_detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.settings import EncoderSettings, LossSettings

N = 6
KEYS = {
    "keyless": [NO_KEY] * N,
    "mixed": ["bonafide", NO_KEY, "spoof", NO_KEY, "spoof", NO_KEY],
    "keyed": ["bonafide", "spoof"] * 3,
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with keyless.tsv, mixed.tsv and keyed.tsv of the same recordings, as `prepare generic` makes them."""
    folder = tmp_path_factory.mktemp("keyless")
    (folder / "wavs").mkdir()
    for index in range(N):
        soundfile.write(folder / f"wavs/{index}.wav", make_voice(index, index % 2 == 0, 0.3), SAMPLE_RATE)
    for name, keys in KEYS.items():
        rows = [f"trial_{index},wavs/{index}.wav,{key}" for index, key in enumerate(keys)]
        (folder / f"{name}.csv").write_text("\n".join(["utt_id,path,key", *rows]) + "\n")
        run_cli("prepare", "generic", folder / f"{name}.csv", "-o", folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    detector = Detector(load_encoder(EncoderSettings(name="tiny", freeze="none")), "mean", "last", LossSettings())
    save_detector(tmp_path_factory.mktemp("model") / "model", detector, {"settings": None})
    return tmp_path_factory.getbasetemp() / "model0/model"


@pytest.fixture(scope="module")
def scores(model: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    for name in KEYS:
        run_cli("score", model, sets / f"{name}.tsv", "-o", folder / f"{name}.tsv", "--device", "cpu")
    good = "".join(f"trial_{index}\t{score}\n" for index, score in enumerate((2.0, -2.0, -0.5, 0.5, 1.0, -1.0)))
    (folder / "good.tsv").write_text(f"filename\tcm-score\n{good}")
    return folder


def test_a_table_without_a_column_of_keys_is_prepared_and_said_to_have_none(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", make_voice(0, True, 0.3), SAMPLE_RATE)
    (tmp_path / "eval.csv").write_text("utt_id,path\nE_1,a.wav\n")
    done = run_cli("prepare", "generic", tmp_path / "eval.csv", "-o", tmp_path / "data")
    assert "0 bona fide + 0 spoof + 1 without a key" in done.stdout
    assert "--column key=NAME" in done.stderr
    assert read_manifest(tmp_path / "data/eval.tsv").table["key"].to_list() == [NO_KEY]


def test_keys_that_are_known_stay_beside_those_that_are_not(sets: Path) -> None:
    assert read_manifest(sets / "mixed.tsv").table["key"].to_list() == KEYS["mixed"]


def test_the_user_may_say_what_a_dash_means(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", make_voice(0, True, 0.3), SAMPLE_RATE)
    (tmp_path / "eval.csv").write_text("path,key\na.wav,-\n")
    run_cli("prepare", "generic", tmp_path / "eval.csv", "-o", tmp_path / "data", "--key", "-=spoof")
    assert read_manifest(tmp_path / "data/eval.tsv").table["key"].to_list() == ["spoof"]


def test_scores_under_their_ids_do_not_hang_on_keys(scores: Path) -> None:
    assert read_scores(scores / "keyed.tsv")["utt_id"].to_list() == [f"trial_{index}" for index in range(N)]
    for name in ("keyless", "mixed"):
        assert (scores / f"{name}.tsv").read_bytes() == (scores / "keyed.tsv").read_bytes()


@pytest.mark.parametrize("name", ["keyless", "mixed"])
def test_what_needs_no_key_takes_a_set_without(name: str, sets: Path, tmp_path: Path) -> None:
    manifest = sets / f"{name}.tsv"
    assert "0 errors" in run_cli("validate", manifest, "--read-audio").stderr
    run_cli("pack", manifest, "-o", tmp_path / "pack")
    assert read_manifest(tmp_path / f"pack/{name}.tsv").table["key"].to_list() == KEYS[name]
    run_cli("kaldi", manifest, "-o", tmp_path / "kaldi")
    run_cli("prepare", "kaldi", tmp_path / "kaldi", "-o", tmp_path / "back")
    assert read_manifest(tmp_path / "back/kaldi.tsv").table["key"].to_list() == KEYS[name]


def test_a_leak_is_found_and_an_unknown_key_is_no_other_key(sets: Path) -> None:
    found = json.loads(run_cli("overlap", sets / "keyed.tsv", sets / "keyless.tsv", "--json", ok=False).stdout)
    kind = next(kind for kind in found["kinds"] if kind["kind"] == "file")
    assert (kind["n_eval"], kind["n_other_key"]) == (N, 0)


def test_an_unknown_key_contradicts_none_and_tells_no_class(sets: Path, tmp_path: Path) -> None:
    rows = "".join(f"{name},wavs/0.wav,{key}\n" for name, key in (("a", "-"), ("b", "bonafide"), ("c", "-")))
    (sets.parent / "doubles.csv").write_text(f"utt_id,path,key\n{rows}")
    run_cli("prepare", "generic", sets.parent / "doubles.csv", "-o", tmp_path)
    assert "0 errors" in run_cli("validate", tmp_path / "doubles.tsv", "--read-audio").stderr


@pytest.mark.parametrize("layout", ["asvspoof5", "asvspoof2021_la", "asvspoof2021_df"])
def test_scores_without_keys_become_a_submission(layout: str, sets: Path, scores: Path, tmp_path: Path) -> None:
    for name in ("keyless", "keyed"):
        run_cli("reformat", scores / f"{name}.tsv", sets / f"{name}.tsv", "-o", tmp_path / name, "--layout", layout)
    assert (tmp_path / "keyless").read_bytes() == (tmp_path / "keyed").read_bytes()


def commands(sets: Path, scores: Path, model: Path, out: Path, name: str) -> dict[str, list[object]]:
    """Every verb that needs keys, with a set that lacks some where it wants them."""
    own, trials, keyed = sets / f"{name}.tsv", scores / f"{name}.tsv", sets / "keyed.tsv"
    (out / "conf.yaml").write_text("encoder: {name: tiny, freeze: none}\n")
    (out / "mix.tsv").write_text("")
    return {
        "evaluate": ["evaluate", trials, own, "-o", out / "results"],
        "compare": ["compare", trials, scores / "keyed.tsv", own],
        "calibrate": ["calibrate", trials, own, "-o", out / "cal.json"],
        "calibrate on": ["calibrate", scores / "good.tsv", keyed, "-o", out / "cal.json", "--on", trials, own],
        "fuse": ["fuse", trials, scores / "keyed.tsv", own, "-o", out / "fusion.json"],
        "audit": ["audit", own],
        "mixlist": ["mixlist", "draw", own, "-o", out / "drawn.tsv", "-c", out / "conf.yaml"],
        "mixlist show": ["mixlist", "show", out / "mix.tsv", own, "-o", out / "mix.png"],
        "posttrain": [
            "posttrain", out / "p", "--train", own, "--dev", keyed, "-c", out / "conf.yaml",
            "--mix", out / "mix.tsv", "--dev-mix", out / "mix.tsv",
        ],
        "finetune": ["finetune", out / "f", "--train", own, "--dev", keyed, "-c", out / "conf.yaml"],
        "finetune dev": ["finetune", out / "f", "--train", keyed, "--dev", own, "-c", out / "conf.yaml"],
        "export": ["export", model, "-o", out / "m.onnx", "--int8", own],
        "threshold": ["threshold", trials, own, "--accept-spoofed", 0.5],
        "stress": ["stress", model, own, "-o", out / "stress"],
        "reformat": ["reformat", trials, own, "-o", out / "sub.txt", "--layout", "asvspoof2019_la"],
    }  # fmt: skip


@pytest.mark.parametrize(("name", "n_without"), [("keyless", 6), ("mixed", 3)])
def test_what_needs_keys_says_how_many_rows_have_none(
    name: str, n_without: int, sets: Path, scores: Path, model: Path, tmp_path: Path
) -> None:
    for verb, command in commands(sets, scores, model, tmp_path, name).items():
        before = sorted(tmp_path.rglob("*"))
        sentence = refusal(*command)
        assert re.search(rf"{name}\.tsv: {n_without} of 6 rows have no key", sentence), (verb, sentence)
        left = [path for path in tmp_path.rglob("*") if path not in before and path.suffix not in (".lock", "")]
        assert not left, (verb, left)


def test_a_key_that_is_neither_is_still_refused(sets: Path, tmp_path: Path) -> None:
    text = (sets / "keyed.tsv").read_text()
    (tmp_path / "odd.tsv").write_text(text.replace("\tspoof\t", "\t--\t", 1))
    assert "key of 'trial_1' is '--'" in refusal("validate", tmp_path / "odd.tsv")


def test_every_verb_that_reads_keys_is_tried_here() -> None:
    """A module that reads keyed manifests stands behind a verb of `commands`."""
    package = Path(__file__).parents[1] / "spoofkit"
    users = {path.stem for path in package.rglob("*.py") if "read_keyed_manifest(" in path.read_text()}
    assert users == {
        "manifest", "measuring", "calibrate_files", "compare", "export", "mixlist", "posttrain", "finetune", "run",
        "localize", "decision_rule",
    }  # fmt: skip
