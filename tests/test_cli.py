"""The command line: what each verb prints and writes, and how it refuses."""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
import soundfile
from conftest import make_voice, refusal, run_cli, run_on_terminal, shown_on_terminal, table_rows, without_sums
from typer.main import get_command

from spoofkit.cli.main import app
from spoofkit.cli.verb import GROUPS
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.evaluation.scores import read_scores
from spoofkit.files import file_sha256
from spoofkit.terminal import prepare_streams

OBEYED = "\x1b]0;X\x07\u202e\nline two"

ROOT = Path(__file__).parents[1]
CONF = """
crop_samples: 16000
encoder: {name: tiny, freeze: none}
mix: {n_train: 24, n_dev: 12, min_region_samples: 800, margin_samples: 400}
finetune: {n_steps: 6, batch_size: 6, optim: {lr: 1e-3}}
"""


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conf") / "conf.yaml"
    path.write_text(CONF)
    return path


@pytest.fixture(scope="module")
def model(manifests: Path, conf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exp = tmp_path_factory.mktemp("exp")
    run_cli("finetune", exp, "--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", conf)
    return exp / "model"


def voice_file(path: Path, **options: float) -> Path:
    rate = int(options.pop("rate", SAMPLE_RATE))
    soundfile.write(path, make_voice(3, True, options.pop("seconds", 1.0), rate), rate)
    return path


# ---- The program


def verbs() -> set[str]:
    help_text = run_cli("--help").stdout
    return set(re.findall(r"^│ (\w[\w-]*) ", help_text, flags=re.MULTILINE)) - {"h"}


def test_the_readme_table_lists_exactly_the_verbs() -> None:
    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w[\w-]*)", readme, flags=re.MULTILINE)) == verbs()


def test_the_help_groups_every_verb_main_road_first() -> None:
    shown = run_cli("--help").stdout
    panels = re.findall(r"^╭─ ([^─]+) ─", shown, flags=re.MULTILINE)
    assert panels == ["Options", *GROUPS]  # none is in the panel "Commands", where a verb without a group goes
    order = re.findall(r"^│ (\w[\w-]*) ", shown, flags=re.MULTILINE)
    assert order == [verb for verbs in GROUPS.values() for verb in verbs]


def test_no_first_panel_has_more_than_ten_options() -> None:
    for verb in verbs() - {"mixlist"}:
        shown = run_cli(verb, "--help").stdout
        first = re.search(r"^╭─ Options ─.*?^╰", shown, flags=re.MULTILINE | re.DOTALL)
        assert first is not None, verb
        assert len(re.findall(r"^│ (?:[* ]  )?--", first[0], flags=re.MULTILINE)) <= 10, verb


def test_every_verb_has_help_that_begins_with_a_verb_and_has_an_example() -> None:
    for verb in verbs():
        text = run_cli(verb, "--help").stdout.partition("Arguments")[0]
        assert text.count(f"spoofkit {verb}") >= 2, verb  # the usage, and an example


def test_help_states_no_type_for_options_that_take_no_value() -> None:
    for verb in ([], ["mixlist"], ["mixlist", "draw"], ["score"]):
        shown = run_cli(*verb, "--help").stdout
        assert "Show this message and exit." in shown
        assert "bool" not in shown.lower()


def test_wrong_usage_exits_with_2() -> None:
    for arguments in (
        ["prepare"],
        ["score", "--divice", "cpu", "m", "x"],
        ["nonsense"],
        ["prepare", "asvspoof6", "a", "-o", "b"],
    ):
        assert run_cli(*arguments, ok=False).returncode == 2, arguments


def commands() -> dict[str, Any]:
    known: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return known | {f"mixlist {name}": command for name, command in known["mixlist"].commands.items()}


def test_only_o_names_an_output_in_every_verb() -> None:
    outputs = {name: param for name, verb in commands().items() for param in verb.params if param.name == "out"}
    assert len(outputs) == 26
    assert {name for name, param in outputs.items() if param.opts != ["--out", "-o"]} == set()


def test_an_output_among_the_inputs_or_none_is_refused_with_what_to_write(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused = set()
    for name, verb in commands().items():
        inputs = [param for param in verb.params if param.param_type_name == "argument"]
        output = next((param for param in verb.params if param.name == "out"), None)
        if output is None or any(param.nargs < 0 for param in inputs):
            continue  # of verbs with any number of inputs: test_outputs.py
        call = [*name.split(), *("generic" if param.name == "corpus" else tmp_path / "in" for param in inputs)]
        sentence = refusal(*call, out)
        assert f"{name}: found an extra argument {out}; " in sentence
        assert sentence.endswith(f"write `-o {out}`"), name
        if output.required:
            assert f"found no output; outputs are named with -o: write `-o {output.metavar}`" in refusal(*call)
        refused.add(name)
    assert {"prepare", "mixlist draw", "evaluate", "export"} <= refused
    assert not out.exists()


def test_other_wrong_arguments_are_not_taken_for_outputs() -> None:
    for arguments, said in (
        (("evaluate", "a", "b", "c", "-o", "d"), "(c)"),
        (("compare", "a", "b", "c", "d"), "(d)"),
        (("evaluate", "a"), "'MANIFEST'"),
        (("pack", "a", "b", "--divice"), "--divice"),
    ):
        done = run_cli(*arguments, ok=False)
        assert (done.returncode, said in done.stderr) == (2, True), arguments


def test_a_shell_completes_verbs(tmp_path: Path) -> None:
    program = tmp_path / "spoofkit"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m spoofkit "$@"\n')
    program.chmod(0o755)
    script = f"""
        eval "$({program} --show-completion)"
        COMP_WORDS=(spoofkit evaluate-s) COMP_CWORD=1
        _spoofkit_completion {program}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == ["evaluate-sasv", "evaluate-segments"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", f"model{OBEYED}", "a.wav"),
        ("validate", f"{OBEYED}.tsv"),
        ("info", OBEYED),
        ("info", "tiny", "--set", f"finetune.{OBEYED}=1"),
        ("prepare", OBEYED, "corpus", "-o", "out"),
        ("score", "model", f"--{OBEYED}"),
        ("prepare", "generic", f"corpus{OBEYED}", "-o", "out"),
    ],
)
def test_no_message_lets_control_characters_reach_a_terminal(arguments: tuple[str, ...]) -> None:
    shown = run_on_terminal(*arguments, ok=False)
    assert r"\x1b]0;X\x07" in shown
    # Panels of wrong usage are coloured.
    assert not re.search("[\x07\x80-\x9f\u202a-\u202e\u2066-\u2069]|\x1b(?!\\[[0-9;]*m)", shown)
    assert not any(line.startswith("line two") for line in shown.split("\n"))


def test_a_traceback_on_a_terminal_is_escaped() -> None:
    def fail(screen: TextIO) -> None:
        with contextlib.redirect_stderr(screen):
            prepare_streams()
            sys.excepthook(ValueError, ValueError(OBEYED), None)

    assert "ValueError: \\x1b]0;X\\x07" in shown_on_terminal(fail)


def test_too_small_an_address_space_is_a_sentence_at_once(tmp_path: Path) -> None:
    """Where torch, scipy or OpenBLAS are loaded in too little memory, they abort or ask for it for ever."""
    command = f"ulimit -v 1200000; exec {sys.executable} -m spoofkit score {tmp_path} {tmp_path}/a.flac"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("spoofkit: error: ulimit -v: the address space is limited to 1.23 GB")
    assert len(done.stderr.splitlines()) == 1


def test_names_in_another_encoding_than_the_locale_s_are_those_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "mine/real").mkdir(parents=True)
    soundfile.write(tmp_path / "mine/real/\u00e9.wav", make_voice(0, True), SAMPLE_RATE)
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "spoofkit", "prepare", "generic", str(tmp_path / "mine"), "-o", str(tmp_path)]
    subprocess.run(command, capture_output=True, env=environment, check=True)
    assert "\treal/\u00e9.wav\t" in (tmp_path / "mine.tsv").read_text(encoding="utf-8")


def test_the_program_itself_exits_with_1_and_no_traceback() -> None:
    command = [sys.executable, "-c", "from spoofkit.cli.main import main; main()", "validate", "nowhere.tsv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "spoofkit: error: nowhere.tsv: cannot be read (No such file or directory); check the name\n"


@contextlib.contextmanager
def stop_in(module: str, name: str, number: int, n_before: int = 0) -> Iterator[None]:
    """Send this process a signal when a function is called, after `n_before` calls that send none."""
    called = getattr(importlib.import_module(module), name)
    n_calls = iter(range(1_000_000))

    def stopping(*arguments: Any, **options: Any) -> Any:
        if next(n_calls) == n_before:
            os.kill(os.getpid(), number)
        return called(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{module}.{name}", stopping)
        yield


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_file_half_written_and_ends_with_the_exit_code_of_shells(
    manifests: Path, tmp_path: Path, number: int, exit_code: int
) -> None:
    command = ("subset", manifests / "train.tsv", "--share", "0.5", "-o", tmp_path / "half.tsv")
    with stop_in("spoofkit.files", "sync", number):
        done = run_cli(*command, ok=False)
    assert done.returncode == exit_code
    assert done.stderr.splitlines()[-1].startswith("spoofkit: subset: stopped by ")
    assert list(tmp_path.iterdir()) == []
    run_cli(*command)
    # What a signal does to the caller is as it was.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_that_the_caller_has_ignored_stays_ignored(manifests: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts jobs in the background of a script
    try:
        with stop_in("spoofkit.files", "sync", signal.SIGINT):
            run_cli("subset", manifests / "train.tsv", "--share", "0.5", "-o", tmp_path / "half.tsv")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "half.tsv").exists()


def test_a_verb_runs_in_a_thread_of_another_program_whose_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run_cli, "--version").result().stdout.startswith("spoofkit ")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_does_not_disturb_the_end_that_the_first_one_began(manifests: Path, tmp_path: Path) -> None:
    with (
        stop_in("spoofkit.files", "sync", signal.SIGTERM),
        stop_in("spoofkit.files", "remove", signal.SIGTERM),
    ):
        done = run_cli("subset", manifests / "train.tsv", "--share", "0.5", "-o", tmp_path / "half.tsv", ok=False)
    assert done.returncode == 143
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, os.EX_TEMPFAIL), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("verb", "module", "name"),
    [
        ("audit", "spoofkit.addons.audit.measures", "measure"),
        ("pack", "spoofkit.addons.pack.write", "_decode"),
        ("stress", "spoofkit.addons.stress.run", "measure_conditions"),  # scored, but not written
        ("score", "spoofkit.scoring.job", "write_json"),
    ],
)
def test_the_exit_code_of_a_verb_that_resumes_tells_a_scheduler_to_run_it_again(
    model: Path, manifests: Path, tmp_path: Path, verb: str, module: str, name: str, number: int, exit_code: int
) -> None:
    inputs = [model] if verb in ("stress", "score") else []
    options = ["--conditions", "quiet", "--replicates", 0] if verb == "stress" else []
    out = tmp_path / ("out.tsv" if verb == "score" else "out")
    command = (verb, *inputs, manifests / "dev.tsv", "-o", out, *options)
    with stop_in(module, name, number, 5 if verb in ("audit", "pack") else 0):
        done = run_cli(*command, ok=False)
    assert done.returncode == exit_code
    assert done.stderr.splitlines()[-1].endswith("run the same command to resume")
    run_cli(*command)


def test_without_an_output_nothing_is_resumed(manifests: Path) -> None:
    with stop_in("spoofkit.addons.audit.measures", "measure", signal.SIGTERM):
        assert run_cli("audit", manifests / "dev.tsv", ok=False).returncode == 128 + signal.SIGTERM


def test_doctor_says_what_it_found() -> None:
    checks = json.loads(run_cli("doctor", "--json").stdout)["checks"]
    assert {"torch", "decoders"} <= {check["name"] for check in checks}


# ---- validate


def test_validate_names_every_utterance_that_cannot_be_used(corpus: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(corpus, tmp_path / "corpus")
    run_cli("prepare", "asvspoof5", copy, "-o", tmp_path / "data", "--partial")
    assert run_cli("validate", tmp_path / "data/dev.tsv", "--read-audio").stdout == ""
    files = sorted((copy / "flac_D").iterdir())
    files[0].unlink()
    files[1].write_bytes(b"")
    voice_file(files[2], seconds=0.1)
    soundfile.write(files[3], np.zeros(20_000), SAMPLE_RATE)
    voice_file(files[4], rate=8000)
    done = run_cli("validate", tmp_path / "data/dev.tsv", "--read-audio", ok=False)
    assert done.returncode == 1
    found = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(f[0][-2:], f[1]) for f in found if "manifest says" not in f[2]] == [
        ("00", "error"), ("11", "error"), ("22", "error"), ("33", "error"), ("44", "warning"),
    ]  # fmt: skip
    assert "no such file" in found[0][2]
    assert any("digital silence" in f[2] for f in found)
    assert any("sampled at 8000 Hz" in f[2] for f in found)


# ---- mixlist


def test_mixlist_draws_shows_and_renders(manifests: Path, conf: Path, tmp_path: Path) -> None:
    mix, train = tmp_path / "mix.tsv", manifests / "train.tsv"
    assert f"mixlist: found {train}, expected draw, show, render" in refusal("mixlist", train, "-o", mix)
    text = run_cli("mixlist", "draw", train, "-o", mix, "-c", conf).stdout
    assert "24 mixes" in text
    assert "share" in text
    statistics = json.loads(run_cli("mixlist", "draw", train, "-o", tmp_path / "b.tsv", "-c", conf, "--json").stdout)
    assert sum(statistics["base_from_injector"].values()) == statistics["n_mixes"] == 24
    run_cli("mixlist", "show", mix, train, "-o", tmp_path / "mix.png", "-c", conf, "--mix-id", "mix_0000002")
    assert (tmp_path / "mix.png").read_bytes().startswith(b"\x89PNG")
    run_cli("mixlist", "render", mix, train, "-o", tmp_path / "mix.wav", "--mix-id", "mix_0000002")
    row = next(line.split("\t") for line in mix.read_text().splitlines() if line.startswith("mix_0000002"))
    assert soundfile.info(tmp_path / "mix.wav").frames == int(row[7])
    assert "nosuch: not in the mix list" in refusal(
        "mixlist", "render", mix, train, "-o", tmp_path / "x.wav", "--mix-id", "nosuch"
    )
    assert "expected .wav or .flac" in refusal("mixlist", "render", mix, train, "-o", tmp_path / "x.mp3")


def test_an_existing_mix_list_is_refused_kept_or_replaced(manifests: Path, conf: Path, tmp_path: Path) -> None:
    draw = ("mixlist", "draw", manifests / "train.tsv", "-o", tmp_path / "mix.tsv", "-c", conf)
    run_cli(*draw)
    before = file_sha256(tmp_path / "mix.tsv")
    assert "exists already; pass --overwrite" in refusal(*draw)
    assert "up to date, skipped" in run_cli(*draw, "--reuse").stderr
    assert "inputs have changed since (seed)" in refusal(*draw, "--reuse", "--set", "seed=5")
    assert file_sha256(tmp_path / "mix.tsv") == before
    run_cli(*draw, "--overwrite", "--set", "seed=5")
    assert file_sha256(tmp_path / "mix.tsv") != before


# ---- score


def test_a_manifest_is_scored_into_the_official_layout_with_a_record_beside_it(
    model: Path, manifests: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores/eval.tsv"
    run_cli("score", model, manifests / "eval.tsv", "-o", out)
    lines = out.read_text().splitlines()
    assert lines[0] == "filename\tcm-score"
    assert len(lines) == 13
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["polarity"] == "higher = more bona fide"
    assert record["manifest_sha256"] == file_sha256(manifests / "eval.tsv")
    assert record["input_policy"] == "whole"


def test_the_model_folder_alone_is_enough(model: Path, manifests: Path, tmp_path: Path) -> None:
    import shutil

    moved = shutil.copytree(model, tmp_path / "elsewhere")
    for name, folder in (("a", model), ("b", moved)):
        run_cli("score", folder, manifests / "eval.tsv", "-o", tmp_path / f"{name}.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_loose_files_get_the_scores_they_get_in_a_list(
    model: Path, manifests: Path, corpus: Path, tmp_path: Path
) -> None:
    run_cli("score", model, manifests / "eval.tsv", "-o", tmp_path / "list.tsv")
    run_cli("score", model, corpus / "flac_E_eval", "-o", tmp_path / "folder.tsv")
    listed, loose = (read_scores(tmp_path / f"{name}.tsv")["score"].to_numpy() for name in ("list", "folder"))
    assert np.allclose(listed, loose, atol=1e-5)
    files = sorted((corpus / "flac_E_eval").iterdir())[:2]
    printed = table_rows(run_cli("score", model, *files).stdout).values()
    assert [float(row["cm-score"]) for row in printed] == pytest.approx(listed[:2].tolist(), abs=1e-5)


def test_other_rates_and_channels_are_scored_as_16_khz_mono(model: Path, tmp_path: Path) -> None:
    wave = make_voice(7, True, 1.5)
    soundfile.write(tmp_path / "mono.wav", wave, SAMPLE_RATE)
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, wave], axis=1), SAMPLE_RATE)
    a, b = (float(row["cm-score"]) for row in table_rows(run_cli("score", model, tmp_path).stdout).values())
    assert a == pytest.approx(b, abs=1e-4)
    voice_file(tmp_path / "slow.wav", rate=44100)
    assert len(run_cli("score", model, tmp_path / "slow.wav").stdout.splitlines()) == 2


def test_a_crop_scores_only_the_first_samples(model: Path, tmp_path: Path) -> None:
    wave = make_voice(7, True, 2.0)
    soundfile.write(tmp_path / "long.flac", wave, SAMPLE_RATE)
    soundfile.write(tmp_path / "short.flac", wave[:16000], SAMPLE_RATE)
    (cropped,) = table_rows(run_cli("score", model, tmp_path / "long.flac", "--crop", "first:16000").stdout).values()
    (whole,) = table_rows(run_cli("score", model, tmp_path / "short.flac").stdout).values()
    assert float(cropped["cm-score"]) == pytest.approx(float(whole["cm-score"]), abs=1e-6)
    assert "expected whole, first:N or repeat:N" in refusal("score", model, tmp_path / "long.flac", "--crop", "4s")


def bad_audio(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not audio " * 50)
    soundfile.write(tmp_path / "nan.wav", np.full(9000, np.nan), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", np.full(100, 0.1), SAMPLE_RATE)
    return {name: tmp_path / f"{name}.wav" for name in ("missing", "empty", "text", "nan", "short")}


def test_audio_that_cannot_be_scored_is_named_and_nothing_is_written(model: Path, tmp_path: Path) -> None:
    expected = {
        "missing": "no such file",
        "empty": "is empty (0 bytes)",
        "text": "neither libsndfile nor FFmpeg can decode it",
        "nan": "holds NaN or infinite samples",
        "short": "has 100 samples, the encoder needs at least 400",
    }
    for name, path in bad_audio(tmp_path).items():
        sentence = refusal("score", model, path, "-o", tmp_path / "out.tsv")
        assert str(path) in sentence
        assert expected[name] in sentence
        assert not (tmp_path / "out.tsv").exists()


def test_score_refuses_what_it_cannot_read_or_replace(model: Path, manifests: Path, tmp_path: Path) -> None:
    eval_, out = manifests / "eval.tsv", tmp_path / "out.tsv"
    assert "found no -o" in refusal("score", model, eval_)
    assert "not a spoofkit model" in refusal("score", tmp_path, eval_, "-o", out)
    (tmp_path / "none").mkdir()
    assert "no audio files inside" in refusal("score", model, tmp_path / "none")
    assert "--device cuda:7: not available" in refusal("score", model, eval_, "-o", out, "--device", "cuda:7")
    assert "unknown device, expected auto" in refusal("score", model, eval_, "-o", out, "--device", "banana")
    run_cli("score", model, eval_, "-o", out)
    before = out.stat().st_mtime_ns
    assert "exists already" in refusal("score", model, eval_, "-o", out)
    assert "up to date, skipped" in run_cli("score", model, eval_, "-o", out, "--reuse").stdout
    assert "inputs have changed since (input policy)" in refusal(
        "score", model, eval_, "-o", out, "--reuse", "--crop", "first:9000"
    )
    assert out.stat().st_mtime_ns == before


def test_a_cut_wav_is_not_scored(model: Path, corpus: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(corpus, tmp_path / "corpus")
    run_cli("prepare", "asvspoof5", copy, "-o", tmp_path / "data", "--partial")
    voice_file(copy / "flac_D/D_0000000011.flac", seconds=0.5)
    sentence = refusal("score", model, tmp_path / "data/dev.tsv", "-o", tmp_path / "dev.tsv")
    assert "D_0000000011.flac: found 8000 samples" in sentence


def test_scores_and_their_record_belong_together(model: Path, manifests: Path, tmp_path: Path) -> None:
    eval_, out = manifests / "eval.tsv", tmp_path / "eval.tsv"
    run_cli("score", model, eval_, "-o", out)
    out.write_text(out.read_text().replace("E_0000000000\t", "E_0000000000\t9"))
    assert "damaged" in refusal("score", model, eval_, "-o", out, "--reuse")
    (tmp_path / "other.json").write_text('{"eer": 1}')
    assert "was not written by `spoofkit score`" in refusal("score", model, eval_, "-o", tmp_path / "other.tsv")
    assert (tmp_path / "other.json").read_text() == '{"eer": 1}'


def test_a_model_folder_that_is_not_whole_is_refused(model: Path, manifests: Path, tmp_path: Path) -> None:
    import shutil

    arguments = (manifests / "eval.tsv", "-o", tmp_path / "out.tsv")
    copy = without_sums(shutil.copytree(model, tmp_path / "model"))
    shutil.rmtree(copy / "encoder")
    assert "has no encoder/ inside" in refusal("score", copy, *arguments)
    for text in ("[]", '{"format": 1, "head": "asp"}', '{"format": 2, "head": "mean"}'):
        (copy / "model.json").write_text(text)
        assert "does not describe a model of this version" in refusal("score", copy, *arguments)
    (copy / "model.json").write_text("{")
    assert "not valid JSON" in refusal("score", copy, *arguments)


def test_a_folder_is_never_overwritten_by_a_file(manifests: Path, conf: Path, tmp_path: Path) -> None:
    (tmp_path / "precious/deep").mkdir(parents=True)
    (tmp_path / "precious/deep/file").write_text("years of work")
    draw = ("mixlist", "draw", manifests / "train.tsv", "-o", tmp_path / "precious", "-c", conf, "--overwrite")
    assert "is a folder, expected the name of a file" in refusal(*draw)
    assert (tmp_path / "precious/deep/file").read_text() == "years of work"


# ---- evaluate


def test_evaluate_prints_a_table_and_writes_json_and_report(model: Path, manifests: Path, tmp_path: Path) -> None:
    scores, eval_, out = tmp_path / "eval.tsv", manifests / "eval.tsv", tmp_path / "results"
    run_cli("score", model, eval_, "-o", scores)
    done = run_cli("evaluate", scores, eval_, "-o", out)
    assert "EER" in done.stdout
    assert "A32" in done.stdout
    result = json.loads((out / "eval.json").read_text())
    assert result["n_trials"] == 12
    again = json.loads(run_cli("evaluate", scores, eval_, "-o", out, "--overwrite", "--json").stdout)
    # The page says when it was made.
    assert {name for name in result if again[name] != result[name]} <= {"files_sha256", "sha256"}
    assert again.keys() == result.keys()
    assert "<svg" in (out / "report.html").read_text()
    assert "exists already" in refusal("evaluate", scores, eval_, "-o", out)
    run_cli("evaluate", scores, eval_, "-o", out, "--reuse")


def test_evaluate_refuses_scores_of_other_trials(model: Path, manifests: Path, tmp_path: Path) -> None:
    run_cli("score", model, manifests / "dev.tsv", "-o", tmp_path / "dev.tsv")
    sentence = refusal("evaluate", tmp_path / "dev.tsv", manifests / "eval.tsv", "-o", tmp_path / "results")
    assert "E_0000000000" in sentence
    assert not (tmp_path / "results").exists()
