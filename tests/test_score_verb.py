"""`score` is unbreakable and can be shared: killed and continued, or cut in parts and merged, it writes the same bytes.

What a scoring was killed at is made by cutting the part file: that is all a kill leaves. One test does kill processes.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from conftest import make_voice, refusal, run_cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spoofkit
from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.evaluation.scores import read_scores
from spoofkit.files import file_sha256, text_sha256
from spoofkit.journal import encode, read_journal
from spoofkit.models.detector import Detector, load_detector, save_detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring import with_torch
from spoofkit.scoring.batches import plan_batches, score_batches, score_manifest
from spoofkit.scoring.parts import Part, part_path
from spoofkit.scoring.with_torch import scorer_of
from spoofkit.settings import EncoderSettings, LossSettings

N_UTTERANCES = 36
BUDGET = 10_000  # samples of a batch: a dozen batches


def make_model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    detector = Detector(load_encoder(EncoderSettings(name="tiny", freeze="none")), "mean", "last", LossSettings())
    save_detector(folder, detector, {"settings": None})
    return folder


def list_utterances(path: Path, root: Path, rows: list[tuple[str, str, int]]) -> Path:
    columns = {"utt_id": pl.Utf8, "path": pl.Utf8, "n_samples": pl.Int64}
    table = pl.DataFrame(rows, schema=columns, orient="row")
    blank = [pl.lit("-").alias(name) for name in ("speaker", "attack", "codec")]
    write_manifest(path, root, table.with_columns(pl.lit("spoof").alias("key"), *blank), overwrite=True)
    return path


def make_calls(folder: Path, n_files: int) -> list[Path]:
    """Recordings that hold enough signal to be judged without a list."""
    folder.mkdir()
    files = [folder / f"call_{index:02d}.wav" for index in range(n_files)]
    for index, file in enumerate(files):
        soundfile.write(file, make_voice(index, index % 2 == 0, 0.6 + index / 50), SAMPLE_RATE)
    return files


def make_set(folder: Path) -> Path:
    """Short utterances of many lengths, some of the same, and their manifest."""
    rng = np.random.default_rng(1)
    rows = []
    for index in range(N_UTTERANCES):
        seconds = int(rng.integers(5, 30)) / 100
        wave = make_voice(index, index % 2 == 0, seconds)
        soundfile.write(folder / f"{index:02d}.wav", wave, SAMPLE_RATE)
        rows.append((f"utt_{index:02d}", f"{index:02d}.wav", wave.size))
    return list_utterances(folder / "set.tsv", folder, rows)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_torch, "CPU_BUDGET_SAMPLES", BUDGET)


@pytest.fixture(scope="module")
def whole(model: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The score file that a process writes which nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "out.tsv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(with_torch, "CPU_BUDGET_SAMPLES", BUDGET)
        run_cli("score", model, manifest, "-o", out)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.json", "out.tsv"]
    return out.read_bytes()


@pytest.fixture(scope="module")
def complete_part(model: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The part file of a process that was killed when all was scored."""
    out = tmp_path_factory.mktemp("part") / "out.tsv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(with_torch, "CPU_BUDGET_SAMPLES", BUDGET)
        run_cli("score", model, manifest, "-o", out, "--part", "1/1")
    return part_path(out, Part()).read_bytes()


def killed(out: Path, part: bytes) -> Path:
    """Leave what a process leaves that is killed when it has written `part`."""
    path = part_path(out, Part())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(part)
    return path


def lines_of(part: bytes, n_batches: int) -> bytes:
    """The header and the first so many batches."""
    return b"".join(part.splitlines(keepends=True)[: 1 + n_batches])


def ids_of(part: bytes) -> list[list[str]]:
    """The utterances of each batch of a part."""
    return [list(json.loads(line.split(b" ", 1)[1])["scores"]) for line in part.splitlines()[1:]]


def forged(part: bytes, change: Callable[[dict[str, object]], object], line: int) -> bytes:
    """A part with one line changed, its checksum too."""
    lines = part.splitlines(keepends=True)
    value = json.loads(lines[line].split(b" ", 1)[1])
    change(value)
    lines[line] = encode(value)
    return b"".join(lines)


# ---- What is written


def test_scores_are_those_of_each_utterance_alone(model: Path, manifest: Path, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "out.tsv").write_bytes(whole)
    scores = read_scores(tmp_path / "out.tsv")
    detector, _ = load_detector(model)
    alone = []
    for index in range(N_UTTERANCES):
        wave_BS = torch.from_numpy(read_audio(manifest.parent / f"{index:02d}.wav"))[None]
        with torch.inference_mode():
            alone.append(detector(wave_BS, torch.tensor([wave_BS.shape[1]])).item())
    assert scores["utt_id"].to_list() == [f"utt_{index:02d}" for index in range(N_UTTERANCES)]
    assert np.allclose(scores["score"], alone, atol=1e-5)
    assert np.std(alone) > 1e-3  # or the order could be anything


@pytest.mark.parametrize("crop", ["first:2000", "repeat:2000"])
def test_what_is_scored_of_an_utterance_is_its_beginning_repeated_if_so_asked(
    crop: str, model: Path, manifest: Path, tmp_path: Path
) -> None:
    run_cli("score", model, manifest, "-o", tmp_path / "out.tsv", "--crop", crop)
    found = dict(read_scores(tmp_path / "out.tsv").iter_rows())
    detector, _ = load_detector(model)
    lengths = set()
    for index in range(N_UTTERANCES):
        wave_S = read_audio(manifest.parent / f"{index:02d}.wav")
        lengths.add(wave_S.size > 2000)
        heard_S = wave_S[:2000] if crop.startswith("first") else np.concatenate([wave_S] * 3)[:2000]
        with torch.inference_mode():
            alone = detector(torch.from_numpy(heard_S)[None], torch.tensor([heard_S.size])).item()
        assert found[f"utt_{index:02d}"] == pytest.approx(alone, abs=1e-5)
    assert lengths == {True, False}


def test_decoding_threads_change_no_byte(model: Path, manifest: Path, whole: bytes, tmp_path: Path) -> None:
    run_cli("score", model, manifest, "-o", tmp_path / "out.tsv", "--workers", 2)
    assert (tmp_path / "out.tsv").read_bytes() == whole


def test_a_detector_in_training_scores_as_in_evaluation_and_is_trained_on(model: Path, manifest: Path) -> None:
    detector, _ = load_detector(model)
    scorer, listed = scorer_of(detector, torch.device("cpu")), read_manifest(manifest)
    expected = score_manifest(scorer, listed)
    assert not detector.training
    modes: list[bool] = []
    detector.head.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    detector.encoder.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    detector.train()
    assert np.array_equal(score_manifest(scorer, listed), expected)
    assert set(modes) == {False}
    assert detector.training
    assert detector.head.training
    wave_BS = torch.from_numpy(read_audio(manifest.parent / "00.wav"))[None]
    detector(wave_BS, torch.tensor([wave_BS.shape[1]])).sum().backward()


def test_a_manifest_without_one_of_its_utterances_has_no_scores(model: Path, manifest: Path, tmp_path: Path) -> None:
    corpus = shutil.copytree(manifest.parent, tmp_path / "corpus")
    (corpus / "set.tsv").write_text(manifest.read_text().replace(str(manifest.parent), str(corpus)))
    (corpus / "11.wav").unlink()
    scorer = scorer_of(load_detector(model)[0], torch.device("cpu"))
    with pytest.raises(SpoofkitError, match=r"11.wav: no such file"):
        score_manifest(scorer, read_manifest(corpus / "set.tsv"))
    listed = read_manifest(manifest)
    with pytest.raises(Interrupted):
        list(score_batches(scorer, listed, plan_batches(listed, BUDGET), should_stop=lambda: True))


# ---- Killed and continued


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_scoring_cut_at_any_byte_goes_on_to_the_same_file(
    data: st.DataObject, model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    out.unlink(missing_ok=True)
    cut = data.draw(st.integers(0, len(complete_part)), label="cut")
    # A power cut may leave blocks that were never written, and later lines behind them.
    tail = data.draw(st.sampled_from([b"", bytes(100), b"\n", bytes(50) + complete_part[cut + 50 :]]), label="tail")
    path = killed(out, complete_part[:cut] + tail)
    run_cli("score", model, manifest, "-o", out, "--part", "1/1")
    assert path.read_bytes().splitlines()[1:] == complete_part.splitlines()[1:]
    run_cli("score", model, manifest, "-o", out)
    assert out.read_bytes() == whole
    assert {path.name for path in tmp_path.iterdir()} == {"out.tsv", "out.json"}


@pytest.mark.parametrize("n_batches", [1, 4, 11])
def test_what_was_scored_is_not_scored_again(
    n_batches: int, model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    corpus = shutil.copytree(manifest.parent, tmp_path / "corpus")
    part = lines_of(complete_part, n_batches)
    done = [utt_id for batch in ids_of(part) for utt_id in batch]
    assert 0 < len(done) < N_UTTERANCES
    moved = manifest.read_text().replace(str(manifest.parent), str(corpus))
    (corpus / "set.tsv").write_text(moved)
    # The audio of what was scored is gone: only who does not read it can end.
    for utt_id in done:
        (corpus / f"{utt_id[-2:]}.wav").unlink()
    out = tmp_path / "out.tsv"
    sha256 = file_sha256(corpus / "set.tsv")
    killed(out, forged(part, lambda header: header["identity"].update(manifest_sha256=sha256), line=0))  # type: ignore[attr-defined]
    stderr = run_cli("score", model, corpus / "set.tsv", "-o", out).stderr
    assert f"resuming: {len(done)} of {N_UTTERANCES} utterances" in stderr
    assert out.read_bytes() == whole


def test_a_kill_between_the_score_file_and_its_record_is_made_good(
    model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    killed(out, complete_part)
    out.write_bytes(whole)
    (tmp_path / ".out.0123abcd.tmp.json").write_text("{")  # the record, half written
    (tmp_path / ".out.tsv.parts.0123abcd.tmp").mkdir()  # parts of an earlier one, half removed
    run_cli("score", model, manifest, "-o", out, "--reuse")
    assert out.read_bytes() == whole
    assert json.loads((tmp_path / "out.json").read_text())["n_trials"] == N_UTTERANCES
    assert {path.name for path in tmp_path.iterdir()} == {"out.tsv", "out.json"}


def test_a_part_made_from_something_else_is_refused_and_started_over_with_overwrite(
    model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.tsv"
    part = lines_of(complete_part, 5)
    path = killed(out, part)
    other = make_model(tmp_path / "other", seed=1)
    fewer = tmp_path / "fewer.tsv"
    fewer.write_text(
        "".join(manifest.read_text().splitlines(keepends=True)[:-1]).replace(f"# rows={N_UTTERANCES}\n", "")
    )
    changed = {
        "model": (other, manifest, "-o", out),
        "manifest, order of the utterances": (model, fewer, "-o", out),
        "input policy": (model, manifest, "-o", out, "--crop", "first:100000"),
    }
    for names, arguments in changed.items():
        sentence = refusal("score", *arguments)
        assert f"{path}: inputs have changed since ({names})" in sentence
    with monkeypatch.context() as patch:
        patch.setattr(with_torch, "CPU_BUDGET_SAMPLES", BUDGET // 2)
        assert "(batch samples, order of the utterances)" in refusal("score", model, manifest, "-o", out)
    with monkeypatch.context() as patch:
        patch.setattr(spoofkit, "__version__", "99")
        assert "(spoofkit)" in refusal("score", model, manifest, "-o", out)
    assert path.read_bytes() == part
    assert not out.exists()
    run_cli("score", other, manifest, "-o", out, "--overwrite")
    assert out.read_bytes() != whole
    assert json.loads((tmp_path / "out.json").read_text())["model"] == str(other)


def test_a_damaged_record_is_refused_and_replaced_with_overwrite(
    model: Path, manifest: Path, whole: bytes, tmp_path: Path
) -> None:
    out, record = tmp_path / "out.tsv", tmp_path / "out.json"
    run_cli("score", model, manifest, "-o", out)
    record.write_bytes(record.read_bytes()[:100])
    assert str(record) in refusal("score", model, manifest, "-o", out, "--reuse")
    run_cli("score", model, manifest, "-o", out, "--overwrite")
    assert out.read_bytes() == whole
    run_cli("score", model, manifest, "-o", out, "--reuse")


def test_overwrite_forgets_what_was_kept_and_the_plain_command_does_not(
    model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    first = ids_of(complete_part)[0][0]
    wrong = forged(complete_part, lambda line: line["scores"].update({first: 77.0}), line=1)  # type: ignore[attr-defined]
    killed(out, wrong)
    run_cli("score", model, manifest, "-o", out)
    assert f"{first}\t77\n".encode() in out.read_bytes()
    killed(out, wrong)
    run_cli("score", model, manifest, "-o", out, "--overwrite")
    assert out.read_bytes() == whole


def test_what_a_part_holds_must_be_the_plans(model: Path, manifest: Path, complete_part: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.tsv"
    lines = complete_part.splitlines(keepends=True)
    faults = {
        "batch 0 appears twice": b"".join([*lines[:3], lines[1]]),
        "batch 99 is of another part": forged(complete_part, lambda line: line.update(batch=99), line=2),
        "batch 1 is of another part, or holds other": forged(
            complete_part,
            lambda line: line["scores"].update(stranger=0.5),  # type: ignore[attr-defined]
            line=2,
        ),
    }
    for words, part in faults.items():
        path = killed(out, part)
        sentence = refusal("score", model, manifest, "-o", out)
        assert sentence.startswith(f"{path}: {words}")
        assert not out.exists()


def test_existing_scores_are_replaced_only_by_what_was_begun_with_leave(
    model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    out.write_text("someone's scores")
    for option in ((), ("--part", "1/2"), ("--part", "1/1")):
        assert "exists already; pass --overwrite" in refusal("score", model, manifest, "-o", out, *option)
    assert {path.name for path in tmp_path.iterdir()} == {"out.tsv"}
    # Begun with --overwrite and killed: the plain command resumes.
    leave = {"replaces": [text_sha256("someone's scores")]}
    killed(out, forged(lines_of(complete_part, 3), lambda header: header.update(leave), 0))
    run_cli("score", model, manifest, "-o", out)
    assert out.read_bytes() == whole


def test_a_part_without_a_batch_claims_nothing(
    model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    killed(out, lines_of(complete_part, 0))
    out.write_text("someone's scores")
    assert "exists already" in refusal("score", model, manifest, "-o", out)
    out.unlink()
    run_cli("score", model, manifest, "-o", out, "--crop", "first:100000")
    assert out.read_bytes() == whole  # all are shorter
    assert json.loads((tmp_path / "out.json").read_text())["input_policy"] == "first:100000"


def test_an_utterance_that_cannot_be_read_costs_only_itself(
    model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    audio = manifest.parent / f"{ids_of(complete_part)[5][0][-2:]}.wav"
    out, good = tmp_path / "out.tsv", audio.read_bytes()
    try:
        audio.write_bytes(b"not audio")
        assert str(audio) in refusal("score", model, manifest, "-o", out)
    finally:
        audio.write_bytes(good)
    assert part_path(out, Part()).read_bytes().count(b"\n") == 1 + 5
    assert "already scored" in run_cli("score", model, manifest, "-o", out).stderr
    assert out.read_bytes() == whole


def test_a_length_that_the_encoder_cannot_use_is_refused_before_anything_is_scored(
    model: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_torch, "CPU_BUDGET_SAMPLES", 1)  # a batch each; the shortest would come last
    soundfile.write(tmp_path / "click.wav", np.full(100, 0.1), SAMPLE_RATE)
    shutil.copy(manifest.parent / "00.wav", tmp_path)
    rows = [("click", "click.wav", 100), ("utt_00", "00.wav", soundfile.info(tmp_path / "00.wav").frames)]
    sentence = refusal(
        "score", model, list_utterances(tmp_path / "set.tsv", tmp_path, rows), "-o", tmp_path / "out.tsv"
    )
    assert sentence.startswith("click: has 100 samples, the encoder needs at least 400")
    assert not (tmp_path / "out.tsv.parts").exists()


def test_a_full_disk_is_one_sentence_and_costs_nothing(
    model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(lines_of(complete_part, 4)) + 20, hard))
    try:
        sentence = refusal("score", model, manifest, "-o", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sentence.startswith(f"{part_path(out, Part())}: cannot be written (File too large)")
    assert "already scored" in run_cli("score", model, manifest, "-o", out).stderr
    assert out.read_bytes() == whole


# ---- Shards


@pytest.mark.parametrize("n_parts", [1, 2, 3, 7])
def test_merged_parts_are_byte_for_byte_the_file_of_one_process(
    n_parts: int, model: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_torch, "CPU_BUDGET_SAMPLES", 33_000)  # four batches: fewer than seven parts
    one, out = tmp_path / "one.tsv", tmp_path / "out.tsv"
    run_cli("score", model, manifest, "-o", one)
    n_scored = 0
    for number in random.Random(n_parts).sample(range(1, n_parts + 1), n_parts):
        n_scored += int(run_cli("score", model, manifest, "-o", out, "--part", f"{number}/{n_parts}").stdout.split()[1])
    assert n_scored == N_UTTERANCES
    assert not out.exists()
    n_batches = [path.read_bytes().count(b"\n") - 1 for path in score_parts.find_parts(out).values()]
    assert sum(n_batches) == 4
    assert max(n_batches) - min(n_batches) <= 1
    # The merging machine may have another device; the plan is that of the parts.
    monkeypatch.setattr(with_torch, "CPU_BUDGET_SAMPLES", 1)
    assert f"merged from {n_parts} parts" in run_cli("score", model, manifest, "-o", out, "--merge").stdout
    assert out.read_bytes() == one.read_bytes()
    record, alone = (json.loads(path.with_suffix(".json").read_text()) for path in (out, one))
    assert record["merged_from"] == n_parts
    assert [part["part"] for part in record["parts"]] == [f"{k + 1}/{n_parts}" for k in range(n_parts)]
    own = {"command", "began"}
    same = record.keys() & alone.keys() - own
    assert {name: record[name] for name in same} == {name: alone[name] for name in alone if name not in own}
    assert not (tmp_path / "out.tsv.parts").exists()
    assert "up to date, skipped" in run_cli("score", model, manifest, "-o", out, "--merge", "--reuse").stdout
    assert (
        "up to date, skipped"
        in run_cli("score", model, manifest, "-o", out, "--part", f"1/{n_parts}", "--reuse").stdout
    )
    assert "exists already" in refusal("score", model, manifest, "-o", out, "--merge")


@pytest.fixture(scope="module")
def three_parts(model: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the three parts of a set; copied, not changed."""
    out = tmp_path_factory.mktemp("three") / "out.tsv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(with_torch, "CPU_BUDGET_SAMPLES", BUDGET)
        for number in (1, 2, 3):
            run_cli("score", model, manifest, "-o", out, "--part", f"{number}/3")
    return out.parent


@pytest.fixture
def parts(three_parts: Path, tmp_path: Path) -> Path:
    """The score file that stands beside three complete parts of its own, once they are merged."""
    return Path(shutil.copytree(three_parts, tmp_path / "scores")) / "out.tsv"


def test_merge_names_the_parts_that_are_missing(model: Path, manifest: Path, parts: Path) -> None:
    merge = ("score", model, manifest, "-o", parts, "--merge")
    part_path(parts, Part(2, 3)).unlink()
    assert "1 of 3 parts are missing (2/3); score them with --part" in refusal(*merge)
    part_path(parts, Part(1, 3)).unlink()
    assert "2 of 3 parts are missing (1/3, 2/3)" in refusal(*merge)
    part_path(parts, Part(3, 3)).unlink()
    assert "found no parts" in refusal(*merge)
    assert not parts.exists()


def test_merge_refuses_a_part_that_is_not_complete_until_its_command_was_given_again(
    model: Path, manifest: Path, parts: Path, whole: bytes
) -> None:
    path = part_path(parts, Part(2, 3))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    sentence = refusal("score", model, manifest, "-o", parts, "--merge")
    assert sentence.startswith(f"{path}: holds 3 of its 4 batches; run --part 2/3 again")
    run_cli("score", model, manifest, "-o", parts, "--part", "2/3")
    run_cli("score", model, manifest, "-o", parts, "--merge")
    assert parts.read_bytes() == whole


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_merge_refuses_a_part_with_any_bit_flipped_by_its_name(
    share: float, bit: int, model: Path, manifest: Path, parts: Path
) -> None:
    path = part_path(parts, Part(3, 3))
    good = path.read_bytes()
    bad = bytearray(good)
    bad[int(share * len(bad))] ^= 1 << bit
    path.write_bytes(bad)
    assert refusal("score", model, manifest, "-o", parts, "--merge").startswith(f"{path}: damaged after")
    assert not parts.exists()
    path.write_bytes(good)


def test_merge_refuses_overlaps(model: Path, manifest: Path, parts: Path) -> None:
    merge = ("score", model, manifest, "-o", parts, "--merge")
    first, second = part_path(parts, Part(1, 3)), part_path(parts, Part(2, 3))
    good = second.read_bytes()
    shutil.copy(first, second)
    assert f"{second}: is part 1/3, expected part 2/3; " in refusal(*merge)
    second.write_bytes(good)
    shutil.copy(first, part_path(parts, Part(1, 2)))
    for command in (merge, ("score", model, manifest, "-o", parts, "--part", "3/3")):
        assert "found 1of2.jsonl, expected only parts of 3" in refusal(*command)
    assert "expected only parts of 1" in refusal("score", model, manifest, "-o", parts)
    assert not parts.exists()


def test_merge_refuses_parts_of_others(model: Path, manifest: Path, parts: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=1)
    second = part_path(parts, Part(2, 3))
    sentence = refusal("score", other, manifest, "-o", parts, "--merge")
    assert sentence.startswith(f"{part_path(parts, Part(1, 3))}: inputs have changed since (model)")
    assert "(input policy, order of the utterances)" in refusal(
        "score", model, manifest, "-o", parts, "--merge", "--crop", "first:1000"
    )
    run_cli("score", other, manifest, "-o", parts, "--part", "2/3", "--overwrite")
    sentence = refusal("score", model, manifest, "-o", parts, "--merge")
    assert sentence.startswith(f"{second}: inputs have changed since (model)")
    run_cli("score", model, manifest, "-o", parts, "--part", "2/3", "--overwrite")
    run_cli("score", model, manifest, "-o", parts, "--merge")


def test_part_and_merge_refuse_what_they_cannot_mean(model: Path, manifest: Path, tmp_path: Path) -> None:
    arguments = ("score", model, manifest, "-o", tmp_path / "out.tsv")
    for text in ("0/3", "4/3", "3", "x/3", "1/0", "-1/3", "1/3/5", "1.0/3", "1 /3", ""):
        assert "expected K/N" in refusal(*arguments, f"--part={text}")
    assert "expected one of them" in refusal(*arguments, "--part", "1/2", "--merge")
    for option in (("--part", "1/2"), ("--merge",)):
        sentence = refusal("score", model, manifest.parent / "00.wav", *option)
        assert sentence.startswith(f"{option[0]}: needs the score file")


def test_loose_files_can_be_shared_too(model: Path, tmp_path: Path) -> None:
    files = make_calls(tmp_path / "calls", 12)
    one, out = tmp_path / "one.tsv", tmp_path / "out.tsv"
    run_cli("score", model, *files, "-o", one)
    for number in (1, 2):
        run_cli("score", model, *files, "-o", out, "--part", f"{number}/2")
    run_cli("score", model, *files, "-o", out, "--merge")
    assert out.read_bytes() == one.read_bytes()


# ---- Real processes

CHILDREN = """
import json, os, signal, sys, time
import transformers.models.wav2vec2.modeling_wav2vec2
from spoofkit.cli.main import main
from spoofkit.files import text_sha256
from spoofkit.scoring import with_torch, writing

with_torch.CPU_BUDGET_SAMPLES = int(sys.argv[1])
for line in sys.stdin:
    arguments, log, kill_after = json.loads(line)
    if not (pid := os.fork()):
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.argv, code = ["spoofkit", *arguments], 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        sys.stdout.flush()
        os._exit(code)
    print(pid, flush=True)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Processes:
    """Starts `spoofkit` in processes of its own, which have nothing left to import."""

    def __init__(self, budget: int, log: Path) -> None:
        self.log = log
        command = [sys.executable, "-W", "ignore", "-c", CHILDREN, str(budget)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.parent = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment)

    def start(self, *arguments: object, kill_after: float | None = None) -> int:
        """Process id; the process is killed after so many seconds."""
        assert self.parent.stdin
        assert self.parent.stdout
        self.parent.stdin.write(json.dumps([list(map(str, arguments)), str(self.log), kill_after]) + "\n")
        self.parent.stdin.flush()
        return int(self.parent.stdout.readline())

    def wait(self) -> int:
        """Exit code, negative for a signal."""
        assert self.parent.stdout
        return int(self.parent.stdout.readline())

    def close(self) -> None:
        assert self.parent.stdin
        assert self.parent.stdout
        self.parent.stdin.close()
        self.parent.wait()
        self.parent.stdout.close()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    started = Processes(BUDGET, tmp_path_factory.mktemp("log") / "log.txt")
    yield started
    started.close()


@pytest.fixture(scope="module")
def long_set(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some seconds of work: the same files under many names."""
    lengths = [soundfile.info(manifest.parent / f"{index:02d}.wav").frames for index in range(N_UTTERANCES)]
    rows = [(f"u{i:05d}", f"{i % N_UTTERANCES:02d}.wav", lengths[i % N_UTTERANCES]) for i in range(3_000)]
    return list_utterances(tmp_path_factory.mktemp("long") / "set.tsv", manifest.parent, rows)


def wait_for_batches(path: Path, n: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or path.read_bytes().count(b"\n") < 1 + n:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_stop_signals_keep_the_batch_at_work_and_say_how_to_go_on(
    processes: Processes, model: Path, long_set: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    path = part_path(out, Part())
    n_before = 0
    for number, exit_code in ((signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)):
        pid = processes.start("score", model, long_set, "-o", out, "--workers", 1)
        wait_for_batches(path, n_before + 3)
        os.kill(pid, number)
        assert processes.wait() == exit_code
        part = read_journal(path)
        assert part.is_whole
        assert len(part.lines) >= n_before + 3
        n_scored, n_before = sum(len(line["scores"]) for line in part.lines), len(part.lines)
        last = processes.log.read_text().splitlines()[-1]
        assert last.startswith(f"spoofkit: {path}: stopped after {n_scored:,} of 3,000 utterances; ")
    assert not out.exists()


def test_two_processes_do_not_score_the_same_part(
    processes: Processes, model: Path, long_set: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    pid = processes.start("score", model, long_set, "-o", out)
    wait_for_batches(part_path(out, Part()), 1)
    os.kill(pid, signal.SIGSTOP)
    try:
        for option in ((), ("--overwrite",)):
            assert "another process is writing this file" in refusal("score", model, long_set, "-o", out, *option)
    finally:
        os.kill(pid, signal.SIGKILL)
        processes.wait()
    assert read_journal(part_path(out, Part())).lines


def n_lines_in(path: Path) -> int:
    """Lines of a file that a process writes and removes when it likes."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.release
def test_fifty_kills_at_random_moments_leave_the_same_file_and_score_nothing_twice(
    processes: Processes, model: Path, manifest: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    path = part_path(out, Part())
    command = ("score", model, manifest, "-o", out, "--reuse")

    def kept() -> bytes:
        if not path.exists():
            return b""
        data = path.read_bytes()
        return data[: read_journal(path).n_bytes]

    began = time.monotonic()
    processes.start(*command)
    assert processes.wait() == 0
    longest = time.monotonic() - began
    rng = random.Random(0)
    n_kills = n_partial = n_finished = 0
    before = b""
    while n_kills < 50:
        if out.with_suffix(".json").exists() and not path.exists():
            assert out.read_bytes() == whole
            left = {entry.name for entry in tmp_path.iterdir()} - {"out.tsv", "out.json"}
            assert all(name.startswith(".out.tsv.parts.") for name in left)  # killed while it removed them
            n_finished += 1
            for entry in tmp_path.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            before = b""
        began = time.monotonic()
        if n_kills % 2:
            processes.start(*command, kill_after=rng.uniform(0, longest))
        else:  # however fast the machine is just now: amid the batches
            process = processes.start(*command)
            goal, deadline = before.count(b"\n") + rng.randint(1, 8), time.monotonic() + longest + 30
            while n_lines_in(path) < goal:
                if out.with_suffix(".json").exists() or time.monotonic() > deadline:
                    break
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        code = processes.wait()
        assert code in (0, -signal.SIGKILL), processes.log.read_text()
        n_kills += code != 0
        if code == 0:
            longest = time.monotonic() - began  # the load of the machine changes
        if not path.parent.exists():
            continue
        after = kept()
        if before.count(b"\n") > 1:  # a header alone claims nothing
            assert after.startswith(before)
        n_partial += 1 < after.count(b"\n") < whole.count(b"\n")
        before = after
    processes.start(*command)
    assert processes.wait() == 0
    assert out.read_bytes() == whole
    print(f"{n_kills} kills, {n_partial} in the midst of scoring, {n_finished} files finished")
    assert n_partial >= 10


def test_a_misspelt_model_is_said_to_be_none_before_its_parts_are_blamed(
    model: Path, manifest: Path, tmp_path: Path
) -> None:
    run_cli("score", model, manifest, "-o", tmp_path / "s.tsv", "--part", "1/2")
    sentence = refusal("score", model.with_name("misspelt"), manifest, "-o", tmp_path / "s.tsv", "--merge")
    assert "misspelt: no such folder" in sentence


def test_any_json_beside_the_scores_that_is_no_record_is_left_alone(
    model: Path, manifest: Path, tmp_path: Path
) -> None:
    (tmp_path / "s.json").write_text("5")
    assert "was not written by `spoofkit score`" in refusal("score", model, manifest, "-o", tmp_path / "s.tsv")
    assert (tmp_path / "s.json").read_text() == "5"


# ---- Files in the way


def test_outputs_that_are_inputs_or_each_other_are_refused(model: Path, manifest: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "set.tsv", tmp_path / "out.tsv"
    own.write_bytes(manifest.read_bytes())
    for arguments in (
        (own, "-o", own),
        (own, "-o", out, "--windows", out),
        (own, "-o", out, "--windows", tmp_path / "out.json"),
        (own, "-o", out, "--windows", own),
    ):
        sentence = refusal("score", model, *arguments, "--overwrite")
        assert "would replace" in sentence
    assert own.read_bytes() == manifest.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["set.tsv"]


def test_a_table_of_windows_that_is_to_be_csv_is_refused(model: Path, manifest: Path, tmp_path: Path) -> None:
    assert "w.tsv" in refusal("score", model, manifest, "-o", tmp_path / "out.tsv", "--windows", tmp_path / "w.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("way", ["resume", "merge"])
def test_what_appeared_after_the_scoring_began_is_not_replaced_and_costs_nothing(
    way: str, model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    out, windows = tmp_path / "out.tsv", tmp_path / "windows.tsv"
    killed(out, complete_part if way == "merge" else lines_of(complete_part, 5))
    command = ("score", model, manifest, "-o", out, "--windows", windows, *(["--merge"] if way == "merge" else []))
    for path in (out, windows):
        path.write_text("precious")
        sentence = refusal(*command)
        assert f"{path}: appeared after scoring had begun" in sentence
        assert path.read_text() == "precious"
        path.unlink()
    run_cli(*command)
    assert out.read_bytes() == whole


def test_what_stood_there_when_the_scoring_began_with_leave_to_replace_it_is_replaced(
    model: Path, manifest: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    out.write_text("old")
    run_cli("score", model, manifest, "-o", out, "--part", "1/2", "--overwrite")
    run_cli("score", model, manifest, "-o", out, "--part", "2/2")
    run_cli("score", model, manifest, "-o", out, "--merge")
    assert out.read_bytes() == whole
    out.write_text("old")
    run_cli("score", model, manifest, "-o", out, "--part", "1/1", "--overwrite")
    out.write_text("newer")
    assert "appeared after scoring had begun" in refusal("score", model, manifest, "-o", out, "--merge")
    assert out.read_text() == "newer"


def test_parts_of_other_options_or_models_are_refused_before_they_are_scored(
    model: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    run_cli("score", model, manifest, "-o", out, "--part", "1/2")
    for arguments in (
        (model, manifest, "-o", out, "--crop", "first:1000"),
        (make_model(tmp_path / "b", 1), manifest, "-o", out),
    ):
        sentence = refusal("score", *arguments, "--part", "2/2")
        assert "1of2.jsonl: was made from other inputs than part 2/2" in sentence
    assert [path.name for path in (tmp_path / "out.tsv.parts").iterdir()] == ["1of2.jsonl"]
    run_cli("score", model, manifest, "-o", out, "--part", "2/2")


def test_a_kept_file_that_lacks_recordings_is_no_success(model: Path, tmp_path: Path) -> None:
    (good,), bad, out = make_calls(tmp_path / "calls", 1), tmp_path / "bad.wav", tmp_path / "out.tsv"
    bad.write_bytes(b"not audio")
    said = refusal("score", model, good, bad, "-o", out)
    assert "1 of 2 recordings failed" in said
    assert refusal("score", model, good, bad, "-o", out, "--reuse") == said
    part = run_cli("score", model, good, bad, "-o", tmp_path / "b.tsv", "--part", "1/1").stdout
    assert "1 scores, 1 recordings failed, part 1/1" in part


def test_a_large_model_scores_one_by_one_on_a_cpu_and_parts_of_it_join(
    model: Path, manifest: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_torch, "LARGE", 1)
    detector, _ = load_detector(model)
    assert scorer_of(detector, torch.device("cpu")).budget_samples == 0
    out = tmp_path / "out.tsv"
    for part in ("1/2", "2/2"):
        run_cli("score", model, manifest, "-o", out, "--part", part)
    assert [len(ids) for path in score_parts.find_parts(out).values() for ids in ids_of(path.read_bytes())] == [1] * 36
    run_cli("score", model, manifest, "-o", out, "--merge")
    found, expected = (
        np.array([line.split("\t")[1] for line in text.splitlines()[1:]], dtype=float)
        for text in (out.read_text(), whole.decode())
    )
    assert found == pytest.approx(expected, abs=1e-5)
