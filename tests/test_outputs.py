"""What verbs write: where the output is named, and what is done with one that stands there already."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from conftest import Done, make_voice, refusal, run_cli
from typer.main import get_command

from spoofkit.cli.main import app
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.evaluation.calibration import Calibration, write_calibration
from spoofkit.evaluation.scores import write_scores
from spoofkit.models.detector import Detector, save_detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.outputs import changed_inputs, with_checksums
from spoofkit.settings import EncoderSettings


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
    run_cli("prepare", "generic", tmp_path / "list.csv", "-o", tmp_path / "data")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("apply", "cal.json", "s0.tsv", "s1.tsv"),
        ("fuse", "s0.tsv", "s1.tsv", "data/list.tsv", "fusion.json"),
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
    assert f"write `-o {arguments[-1]}`" in refusal(*arguments, *options)
    assert tree(two_systems) == before


def test_a_manifest_is_not_scored_without_a_file_for_its_scores(two_systems: Path) -> None:
    (two_systems / "m.onnx").write_bytes(b"")
    assert "-o scores/eval.tsv" in refusal("score", two_systems / "m.onnx", two_systems / "data/list.tsv")


# ---- What stands there already


N = 6
LIST, SCORES = "data/list.tsv", "scores.tsv"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what the verbs need: recordings, a manifest, a model, scores of it and a calibration."""
    folder = tmp_path_factory.mktemp("inputs")
    for start, name in enumerate(("list", "eval")):
        rows = ["utt_id,path,key,speaker"]
        for index in range(N):
            wave = make_voice(10 * start + index, index % 2 == 0, 1.0)
            soundfile.write(folder / f"{name}{index}.wav", wave, SAMPLE_RATE)
            rows.append(f"{name[0]}{index},{name}{index}.wav,{'spoof' if index % 2 else 'bonafide'},s{start}{index}")
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
        run_cli("prepare", "generic", folder / f"{name}.csv", "-o", folder / "data")
    for name, scores in {
        "scores": [2.0, -2.0, 1.0, 0.5, -0.2, -1.0],
        "others": [1.5, 1.0, 0.5, 1.0, 0.0, -2.0],
    }.items():
        write_scores(folder / f"{name}.tsv", [f"l{index}" for index in range(N)], scores)
    write_calibration(folder / "cal.json", Calibration((2.0,), 0.5, 0.5), {})
    for name in ("model", "model2"):
        torch.manual_seed(len(name))
        encoder = load_encoder(EncoderSettings(name="tiny", freeze="none"))
        save_detector(folder / name, Detector(encoder, "mean"), {"settings": None})
    return folder


def text_of(name: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def other_weights(folder: Path) -> None:
    shutil.copytree(folder / "model2", folder / "model", dirs_exist_ok=True)


CHANGED_LIST = text_of(LIST, "# rows=", "# partial=half\n# rows=")
CHANGED_SCORES = text_of(SCORES, "l0\t2", "l0\t3")
VERBS: dict[str, tuple[str, str, Change, str]] = {
    # verb: its arguments, its output, what changes an input, and what this is called
    "prepare": ("prepare generic list.csv -o out", "out/list.tsv", text_of("list.csv", ",s00", ",s99"), "lists"),
    "subset": (f"subset {LIST} -o out.tsv --share 0.5", "out.tsv", CHANGED_LIST, "manifest"),
    "pack": (f"pack {LIST} -o out", "out/list.tsv", CHANGED_LIST, "manifest"),
    "mixlist": (f"mixlist draw {LIST} -o out.tsv --set mix.n_train=4", "out.tsv", CHANGED_LIST, "manifest"),
    "kaldi": (f"kaldi {LIST} -o out", "out/wav.scp", CHANGED_LIST, "(manifest)"),
    "overlap": (f"overlap {LIST} data/eval.tsv -o out.tsv", "out.tsv", CHANGED_LIST, "(train)"),
    "reformat": (
        f"reformat {SCORES} {LIST} -o out.txt --layout asvspoof2019_la",
        "out.txt",
        CHANGED_SCORES,
        "(scores)",
    ),
    "calibrate": (f"calibrate {SCORES} {LIST} -o out.json", "out.json", CHANGED_SCORES, "(scores)"),
    "fuse": (f"fuse {SCORES} others.tsv {LIST} -o out.json", "out.json", CHANGED_SCORES, "(scores)"),
    "apply": (f"apply cal.json {SCORES} -o out.tsv", "out.tsv", CHANGED_SCORES, "(scores)"),
    "evaluate": (f"evaluate {SCORES} {LIST} -o out --replicates 0", "out/eval.json", CHANGED_SCORES, "(scores)"),
    "audit": (f"audit {LIST} -o out", "out/audit.json", CHANGED_LIST, "(manifest)"),
    "average": (
        "average model model2 -o out",
        "out/model.json",
        other_weights,
        "(models)",
    ),
    "score": (f"score model {LIST} -o out.tsv --device cpu", "out.tsv", CHANGED_LIST, "(manifest)"),
}
RECREATED = {"calibrate": "out.png", "evaluate": "out/report.html", "audit": "out/audit.png", "kaldi": "out/utt2spk"}
REFUSED = {
    "overlap": "out.tsv.made_from.json",
    "average": "out.made_from.json",
    "apply": "out.json",
    "score": "out.json",
}


@pytest.fixture
def place(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `inputs`, which is the working folder."""
    folder = Path(shutil.copytree(inputs, tmp_path / "place"))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_an_output_is_skipped_or_refused_by_its_state_and_the_sentence_names_file_and_reason(
    verb: str, place: Path
) -> None:
    arguments, out, change, changed = VERBS[verb]
    command = arguments.split()
    run_cli(*command)
    before = tree(place)
    if verb != "audit":  # measures more of the same list
        assert "--reuse" in refusal(*command)
    assert "up to date, skipped" in said(run_cli(*command, "--reuse"))
    assert tree(place) == before
    whole = (place / out).read_bytes()
    (place / out).write_bytes(whole[:-5])
    sentence = refusal(*command, "--reuse")
    assert sentence.startswith(f"{out}: damaged ("), sentence
    assert "--overwrite" in sentence
    (place / out).write_bytes(whole)
    change(place)
    sentence = refusal(*command, "--reuse")
    assert "inputs have changed since" in sentence
    assert changed in sentence
    run_cli(*command, "--overwrite")
    assert "up to date, skipped" in said(run_cli(*command, "--reuse"))


def said(done: Done) -> str:
    return done.stdout + done.stderr


@pytest.mark.parametrize("verb", [*RECREATED, *REFUSED])
def test_an_output_of_which_a_file_is_gone_is_recreated_or_refused_never_up_to_date(verb: str, place: Path) -> None:
    command = VERBS[verb][0].split()
    run_cli(*command)
    gone = place / (RECREATED | REFUSED)[verb]
    gone.unlink()
    if verb in RECREATED:
        assert "up to date, skipped" not in said(run_cli(*command, "--reuse"))
        assert gone.exists()
    else:
        assert gone.name in refusal(*command, "--reuse")
    run_cli(*command, *(["--overwrite"] if verb != "average" else ["--reuse"]), ok=verb != "average")


@pytest.mark.parametrize("verb", ["mixlist", "calibrate", "evaluate", "score", "apply", "average", "kaldi"])
def test_what_another_program_wrote_is_not_even_overwritten(verb: str, place: Path) -> None:
    command, out, *_ = VERBS[verb]
    foreign = place / {"score": "out.json", "apply": "out.json", "kaldi": "out/precious"}.get(verb, out)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text('{"years of": "work"}')
    for options in ((), ("--reuse",), ("--overwrite",)):
        refusal(*command.split(), *options)
    assert foreign.read_text() == '{"years of": "work"}'


def test_a_score_file_is_never_replaced_by_ratios_made_of_others(place: Path) -> None:
    run_cli(*VERBS["score"][0].split())
    before = tree(place)
    for options in ((), ("--overwrite",), ("--reuse",)):
        refusal("apply", "cal.json", SCORES, "out.tsv", *options)
        refusal("apply", "cal.json", SCORES, "-o", "out.tsv", *options)
    assert tree(place) == before


def test_every_verb_that_writes_has_both_options() -> None:
    others = {
        "validate": "says what is on the disk now",
        "posttrain": "resumes",
        "finetune": "resumes",
        "push": "uploads; -o is where a dry run shows what it would upload",
    }
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    commands |= {f"mixlist {name}": command for name, command in commands.pop("mixlist").commands.items()}
    writing = {name: {o for p in c.params for o in p.opts} for name, c in commands.items() if name not in others}
    writing = {name: opts for name, opts in writing.items() if "--out" in opts}
    assert set(writing) == {
        *("prepare", "pack", "kaldi", "audit", "overlap", "mixlist draw", "mixlist show", "mixlist render", "score"),
        *("evaluate", "calibrate", "fuse", "apply", "reformat", "localize", "evaluate-segments", "convert", "merge"),
        *("average", "export", "subset", "stress", "pull", "report"),
    }
    assert {name for name, opts in writing.items() if not {"--overwrite", "--reuse"} <= opts} == set()


def test_a_strangers_record_is_refused_and_no_file_is_opened_that_it_points_to_outside_its_folder(place: Path) -> None:
    command = VERBS["audit"][0].split()
    run_cli(*command)
    path = place / "out/audit.json"
    record = json.loads(path.read_text())
    for name in ("/dev/zero", "../other.wav", "", ".", "a\0b"):
        path.write_text(json.dumps(with_checksums(record, {name: "0" * 64})))
        sentence = refusal(*command, "--reuse")
        assert sentence.startswith("out/audit.json: damaged (")
        assert repr(name) in sentence
    (place / "out/folder").mkdir()
    path.write_text(json.dumps(with_checksums(record, {"folder": "0" * 64})))
    assert refusal(*command, "--reuse").startswith("out/folder: damaged (")
    for made_from in ([1], "this", None, 5):
        path.write_text(json.dumps(with_checksums(record | {"made_from": made_from})))
        assert "inputs have changed" in refusal(*command, "--reuse")


@pytest.mark.parametrize("verb", ["evaluate", "audit", "calibrate"])
def test_a_record_that_was_edited_is_damaged_even_without_its_checksum(verb: str, place: Path) -> None:
    arguments, out, *_ = VERBS[verb]
    run_cli(*arguments.split())
    record = json.loads((place / out).read_text())
    for edited in (record | {"sha256": "0" * 64}, {name: value for name, value in record.items() if name != "sha256"}):
        (place / out).write_text(json.dumps(edited))
        sentence = refusal(*arguments.split(), "--reuse")
        assert sentence.startswith(f"{out}: damaged (")
        assert "sha256" in sentence


def test_changed_inputs_are_named_in_words_and_an_option_by_its_own_name() -> None:
    before = {"manifest_sha256": "1", "sidecar_sha256": "1", "seed": 1, "options": {"by": [], "asv": None}}
    now = {"manifest_sha256": "2", "sidecar_sha256": "2", "seed": 1, "options": {"by": ["codec"], "asv": None}}
    assert changed_inputs(before, now) == ["manifest", "by", "record of the scores"]
    assert changed_inputs(now, now) == []
