"""A run that is killed, runs out of disk or finds its checkpoint damaged loses nothing but time."""

import errno
import fcntl
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from conftest import bytes_of_any_day, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spoofkit import lock
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, atomic_path, write_text
from spoofkit.lock import held
from spoofkit.training import checkpoints, experiment, resume

WIDTH = 24


@pytest.fixture(autouse=True)
def fsync_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here; that fsync is called, and when, has a test of its own."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


# ---- A run in miniature: all its tensors hold the number of its step


def run_at(step: int) -> tuple[nn.Module, torch.optim.Optimizer, dict[str, torch.Tensor]]:
    """Model, optimiser and a moving average, after so many steps."""
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.0, 0.0))  # so that exp_avg is the last gradient
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, step)
    optimizer.step()
    for parameter in model.parameters():
        nn.init.constant_(parameter, step)
    return model, optimizer, {"average.weight": torch.full((WIDTH,), float(step))}


def save(exp: Path, *steps: int, kept: tuple[int, ...] = ()) -> Path:
    for step in steps:
        model, optimizer, extra = run_at(step)
        state = checkpoints.LoopState(n_steps_done=step, kept=[{"step": best} for best in kept])
        checkpoints.save(exp / "checkpoints", resume.take(model, optimizer, state, extra))
    return exp


def loaded_step(exp: Path) -> int:
    """Load the newest checkpoint, see that all of it belongs together, and say which it is."""
    model, optimizer, extra = run_at(0)
    path = checkpoints.newest(exp / "checkpoints", lambda message: experiment.log(exp, message))
    assert path is not None, "no checkpoint is whole"
    checkpoint = checkpoints.read(path)
    resume.restore(path, checkpoint, model, optimizer, extra)
    step = checkpoint.state.n_steps_done
    assert path.name == f"step_{step:07d}"
    moments = [moment["exp_avg"] for moment in optimizer.state_dict()["state"].values()]
    assert len(moments) == 2
    for tensor in (*model.parameters(), *moments, extra["average.weight"]):
        assert torch.equal(tensor, torch.full_like(tensor, step))
    return step


def names_in(exp: Path) -> set[str]:
    return {path.name for path in (exp / "checkpoints").iterdir()}


# ---- Killing and refusing, one file operation at a time


def forked(work: Callable[[], object]) -> tuple[int, str]:
    """Do `work` in a copy of this process; its exit code (7: refused with the sentence that is returned)."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads, here those of torch
        child = os.fork()
    if not child:
        code, text = 8, ""
        try:
            text, code = str(work() or ""), 0
        except SpoofkitError as error:
            text, code = str(error), 7
        except BaseException:
            text = traceback.format_exc()
        os.write(writer, text.encode())
        os._exit(code)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def before_every_change(do: Callable[[str, str, str], None]) -> None:
    """For the rest of this process: call do(what, path, new path) before each operation that changes the disk."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(flags := arguments[2], int) and flags & (os.O_WRONLY | os.O_RDWR):
            do("open", str(arguments[0]), "")
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            do(event.removeprefix("os."), str(arguments[0]), str(arguments[1]) if event == "os.rename" else "")

    fsync = os.fsync

    def watched_fsync(descriptor: int) -> None:
        do("fsync", os.readlink(f"/proc/self/fd/{descriptor}"), "")
        fsync(descriptor)

    sys.addaudithook(hook)
    os.fsync = watched_fsync


def die_before_change(number: int) -> None:
    """Kill this process before it changes the disk for the `number`-th time."""
    numbers, own = count(1), os.getpid()

    def do(*_: str) -> None:
        if os.getpid() == own and next(numbers) == number:  # not a loader process, which has temporary files of its own
            os.kill(own, signal.SIGKILL)

    before_every_change(do)


def fail_from_change(number: int, code: int, whats: tuple[str, ...], n_times: int) -> list[str]:
    """Let the disk refuse from the `number`-th of the changes `whats` on, so many times; what was refused."""
    numbers, refused = count(1), list[str]()

    def do(what: str, path: str, _: str) -> None:
        if what in whats and number <= next(numbers) < number + n_times:
            refused.append(what)
            raise OSError(code, os.strerror(code), path)

    before_every_change(do)
    return refused


@pytest.mark.parametrize(("step", "before_mending", "after_mending"), [(9, {6, 9}, {6, 9}), (6, {3, 6}, {6})])
def test_at_every_moment_of_saving_a_checkpoint_can_be_loaded(
    step: int, before_mending: set[int], after_mending: set[int], tmp_path: Path
) -> None:
    before, n_killed = save(tmp_path / "before", 3, 6), 0
    for number in count(1):
        exp = shutil.copytree(before, tmp_path / str(number))
        code, text = forked(lambda n=number, e=exp: (die_before_change(n), save(e, step)))
        assert code in (0, -signal.SIGKILL), text
        assert loaded_step(exp) in before_mending
        with experiment.locked(exp):
            assert loaded_step(exp) in after_mending
            save(exp, step)  # what the same command comes to in the end
        assert loaded_step(exp) == step
        assert names_in(exp) == {"step_0000006", "step_0000009" if step == 9 else "step_0000003"}
        if code == 0:
            break
        n_killed += 1
    assert n_killed >= 15


def test_at_every_moment_of_clearing_what_is_left_is_whole(tmp_path: Path) -> None:
    names = {"encoder": {"a", "b"}, "model": {"a", "b"}, "checkpoints": {"step_0000003", "step_0000006"}}
    for number in count(1):
        exp = save(tmp_path / str(number), 3, 6)
        experiment.record(exp, {"seed": 1}, {})
        for name in ("encoder", "model"):
            with atomic_folder(exp / name) as folder:
                for inside in names[name]:
                    (folder / inside).write_text("whole")
        code, _ = forked(lambda n=number, e=exp: (die_before_change(n), experiment.clear(e)))
        for name, inside in names.items():
            assert not (exp / name).exists() or {path.name for path in (exp / name).iterdir()} == inside
        if any((exp / name).exists() for name in names):
            experiment.is_finished(exp, ("model",), {"seed": 1}, {})  # and its record is still there
        if code == 0:
            break
    assert number > 10
    assert list(exp.iterdir()) == []


def test_a_file_has_its_bytes_on_the_disk_before_its_name_and_its_name_before_older_ones_go(tmp_path: Path) -> None:
    exp = save(tmp_path / "exp", 3, 6)
    experiment.append_metrics(exp, {"step": 9})

    def work() -> str:
        changes: list[tuple[str, str, str]] = []
        before_every_change(lambda *change: changes.append(change))
        save(exp, 9)
        return json.dumps(changes)

    code, text = forked(work)
    assert code == 0, text
    changes = [tuple(change) for change in json.loads(text)]
    folder = exp / "checkpoints"
    (naming,) = (i for i, (what, _, new) in enumerate(changes) if what == "rename" and new == f"{folder}/step_0000009")
    temporary = changes[naming][1]
    written = [path for what, path, _ in changes if what == "open" and path.startswith(temporary)]
    assert {Path(path).name for path in written} == {
        "model.safetensors", "optimizer.pt", "extra.safetensors", "state.json", "SHA256SUMS",
    }  # fmt: skip
    for path in written:
        assert changes.index(("open", path, "")) < changes.index(("fsync", path, "")) < naming
    last_write = max(changes.index(("open", path, "")) for path in written)
    assert last_write < changes.index(("fsync", temporary, "")) < naming
    assert changes.index(("fsync", f"{exp}/metrics.jsonl", "")) < naming
    going = min(i for i, (_, path, _) in enumerate(changes) if "step_0000003" in path)
    assert naming < changes.index(("fsync", str(folder), "")) < going


def test_new_folders_have_their_names_on_the_disk_too(tmp_path: Path) -> None:
    def work() -> str:
        changes: list[tuple[str, str, str]] = []
        before_every_change(lambda *change: changes.append(change))
        with atomic_path(tmp_path / "a/b/file") as temporary:
            temporary.write_text("text")
        return json.dumps(changes)

    changes = json.loads(forked(work)[1])
    whats = [what for what, *_ in changes]
    assert ["fsync", f"{tmp_path}/a/b", ""] in changes[whats.index("rename") :]
    for parent, child in ((tmp_path, "a"), (tmp_path / "a", "a/b")):
        assert changes.index(["mkdir", f"{tmp_path}/{child}", ""]) < changes.index(["fsync", str(parent), ""])


WRITER = """
import sys
from pathlib import Path
from spoofkit.files import atomic_path
with atomic_path(Path(sys.argv[1]), overwrite=True) as temporary:
    temporary.write_text("by another process")
    print(temporary, flush=True)
    sys.stdin.read(1)
"""


def test_what_a_killed_process_left_of_an_output_is_removed_by_the_next_one_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "eval.tsv"
    strangers = [".eval.0123abcd.tmp.json", ".eval2.0123abcd.tmp.tsv", ".eval.0123abcd.tsv", ".eval.tmp.tsv"]
    for name in strangers:
        (tmp_path / name).write_text("of somebody else")
    command = [sys.executable, "-c", WRITER, str(out)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as killed, subprocess.Popen(command, **pipes) as alive:  # type: ignore[call-overload]
        leftover, held_by_alive = (Path(process.stdout.readline().strip()) for process in (killed, alive))
        killed.kill()
        killed.wait()
        assert {leftover.read_text(), held_by_alive.read_text()} == {"by another process"}
        write_text(out, "of this process")
        assert not leftover.exists()
        assert out.read_text() == "of this process"
        alive.communicate("\n")
    assert alive.returncode == 0
    assert out.read_text() == "by another process"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*strangers, "eval.tsv"])


# ---- A disk that refuses

NEED_ROOM = ("open", "mkdir", "rename", "fsync")


@pytest.mark.parametrize(
    ("code", "n_times", "whats", "step"),
    [
        (errno.ENOSPC, 1, NEED_ROOM, 9),
        (errno.EIO, 1, NEED_ROOM, 9),
        (errno.EROFS, 10**6, (*NEED_ROOM, "remove", "rmdir"), 9),
        (errno.ENOSPC, 1, NEED_ROOM, 6),
    ],
    ids=["full", "broken", "read-only", "full, in place of an older one"],
)
def test_whenever_the_disk_refuses_it_is_one_sentence_and_the_newest_checkpoint_stays(
    code: int, n_times: int, whats: tuple[str, ...], step: int, tmp_path: Path
) -> None:
    before, n_refused = save(tmp_path / "before", 3, 6), 0
    for number in count(1):
        exp = shutil.copytree(before, tmp_path / str(number))

        def work(number: int = number, exp: Path = exp) -> str:
            refused = fail_from_change(number, code, whats, n_times)
            save(exp, step)
            return " ".join(refused)

        done, text = forked(work)
        assert loaded_step(exp) in (6, 9)
        if n_times == 1:  # nothing unfinished takes up room
            unfinished = rf"\.step_{step:07d}\.\w+\.tmp"
            assert not [name for name in names_in(exp) if re.fullmatch(unfinished, name)]
        save(exp, step)  # the disk is fixed
        assert loaded_step(exp) == step
        if (done, text) == (0, ""):
            break
        if done == 0:  # to make a folder that is there, to remove what is left of an old one: nobody minds
            assert set(text.split()) <= {"mkdir", "remove", "rmdir"}
            continue
        n_refused += 1
        assert done == 7, text
        assert "\n" not in text
        assert str(exp / "checkpoints/step_00000") in text
        assert f" ({os.strerror(code)})" in text
        assert ("free some space" if code == errno.ENOSPC else "permissions") in text
    assert n_refused >= 15


def test_wherever_a_full_disk_cuts_a_file_the_older_checkpoints_stay(tmp_path: Path) -> None:
    exp = save(tmp_path / "exp", 3, 6)
    largest = max(path.stat().st_size for path in exp.rglob("*"))
    for limit in range(0, largest, 256):

        def work(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(exp, 9)

        code, text = forked(work)
        assert code == 7, text
        assert "step_0000009: cannot be written (File too large)" in text
        assert names_in(exp) == {"step_0000003", "step_0000006"}
    assert loaded_step(exp) == 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own, mounted again with the options given."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")

    def remount(options: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)
        return disk

    yield remount
    subprocess.run(["umount", disk], check=True)


def test_a_really_full_disk_and_a_really_read_only_one(small_disk: Callable[[str], Path]) -> None:
    exp = save(small_disk("size=1m") / "exp", 3, 6)
    used_kib = sum(path.stat().st_blocks // 2 for path in exp.rglob("*"))
    outcomes = []
    for room_kib in range(4, used_kib, 4):
        small_disk(f"size={used_kib + room_kib}k")
        try:
            save(exp, 9)
        except SpoofkitError as error:
            assert "cannot be written (No space left on device)" in str(error)  # noqa: PT017
            assert names_in(exp) == {"step_0000003", "step_0000006"}
            assert loaded_step(exp) == 6
            outcomes.append("full")
        else:
            outcomes.append("saved")
            break
    assert outcomes[-1] == "saved"
    assert len(outcomes) > 3
    small_disk("ro")
    with pytest.raises(SpoofkitError, match=r"step_0000012: cannot be written \(Read-only file system\)"):
        save(exp, 12)
    with pytest.raises(SpoofkitError, match=r"exp: cannot be written \(Read-only"), experiment.locked(exp):
        pass
    with pytest.raises(SpoofkitError, match=r"metrics.jsonl: cannot be written \(Read-only file system\)"):
        experiment.append_metrics(exp, {"step": 1})
    assert loaded_step(exp) == 9


def test_a_file_system_that_cannot_sync_folders_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    assert loaded_step(save(tmp_path, 3)) == 3


# ---- Damage


def damage(path: Path, how: str, where: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    position = int(where * len(content))
    if how == "missing":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(content[:position])
    else:
        content[position] ^= 1 << (position % 8)
        path.write_bytes(content)


NAMES = ("model.safetensors", "optimizer.pt", "extra.safetensors", "state.json", "SHA256SUMS")


@pytest.mark.parametrize("how", ["missing", "cut short", "flipped"])
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_checkpoint_is_reported_and_set_aside_and_the_one_before_it_used(
    name: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = save(tmp_path, 3, 6)
    damage(exp / "checkpoints/step_0000006" / name, how)
    assert loaded_step(exp) == 3
    damaged = name if how == "missing" else f"{name} {'is damaged' if name == 'SHA256SUMS' else 'does not match'}"
    sentence = capsys.readouterr().err.strip()
    assert sentence.startswith(f"{exp}/checkpoints/step_0000006: damaged checkpoint (")
    assert f"({damaged}" in sentence
    assert "), set aside as damaged_step_0000006; resuming from step_0000003" in sentence
    assert (exp / "train.log").read_text().strip().endswith(sentence)
    assert names_in(exp) == {"step_0000003", "damaged_step_0000006"}
    assert loaded_step(exp) == 3
    assert capsys.readouterr().err == ""
    save(exp, 6)
    assert loaded_step(exp) == 6


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.sampled_from(["cut short", "flipped"]), st.floats(0, 1, exclude_max=True))
def test_every_flipped_bit_and_every_missing_end_is_noticed(name: str, how: str, where: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        exp, said = save(Path(folder), 3, 6), list[str]()
        damage(exp / "checkpoints/step_0000006" / name, how, where)
        chosen = checkpoints.newest(exp / "checkpoints", said.append)
        assert chosen == exp / "checkpoints/step_0000003"
        assert len(said) == 1


def test_where_all_checkpoints_are_damaged_the_run_is_refused_and_nothing_moved(tmp_path: Path) -> None:
    exp = save(tmp_path, 3, 6)
    damage(exp / "checkpoints/step_0000003/model.safetensors", "flipped")
    damage(exp / "checkpoints/step_0000006/state.json", "missing")
    for _ in range(2):  # the second time must not take the folder for a new one
        with pytest.raises(SpoofkitError) as refused:
            loaded_step(exp)
        assert "step_0000006: state.json is missing; step_0000003: model.safetensors does not" in str(refused.value)
        assert names_in(exp) == {"step_0000003", "step_0000006"}
    save(exp, 9)  # what a damaged one counts on cannot be told, but it is in nobody's way
    assert loaded_step(exp) == 9


def test_a_checkpoint_of_another_model_is_refused_not_called_damaged(tmp_path: Path) -> None:
    path = save(tmp_path, 3) / "checkpoints/step_0000003"
    checkpoint = checkpoints.read(path)
    model, optimizer, extra = run_at(0)
    with pytest.raises(SpoofkitError, match="step_0000003: does not fit this model"):
        resume.restore(path, checkpoint, nn.Linear(2, 2), optimizer, extra)
    with pytest.raises(SpoofkitError, match="step_0000003: does not fit this model"):
        resume.restore(path, checkpoint, model, torch.optim.SGD([next(model.parameters())], lr=1.0), extra)
    for wrong in ({}, {"another": torch.zeros(WIDTH)}, {"average.weight": torch.zeros(1)}):
        with pytest.raises(SpoofkitError, match="step_0000003: does not fit this model"):
            resume.restore(path, checkpoint, model, optimizer, wrong)
    renamed = [group | {"params": ["bias", "weight"]} for group in checkpoint.optimizer["param_groups"]]
    for change in ({"param_groups": renamed}, {"format": 3}):
        other = replace(checkpoint, optimizer=checkpoint.optimizer | change)
        with pytest.raises(SpoofkitError, match="step_0000003: does not fit this model"):
            resume.restore(path, other, model, optimizer, extra)
    resume.restore(path, checkpoint, model, optimizer, extra)


def test_moments_of_numbered_parameters_as_older_versions_wrote_them_are_restored(tmp_path: Path) -> None:
    _, saved, _ = run_at(3)
    model, optimizer, extra = run_at(0)
    path = save(tmp_path, 3) / "checkpoints/step_0000003"
    numbered = replace(checkpoints.read(path), optimizer=saved.state_dict())
    assert numbered.optimizer["param_groups"][0]["params"] == [0, 1]
    resume.restore(path, numbered, model, optimizer, extra)
    for restored, expected in zip(optimizer.state.values(), saved.state.values(), strict=True):
        assert all(torch.equal(restored[name], expected[name]) for name in expected)


def test_a_checkpoint_can_be_verified_with_coreutils(tmp_path: Path) -> None:
    exp = save(tmp_path, 3)
    assert subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=exp / "checkpoints/step_0000003",
        capture_output=True,
        check=True,
    ).stdout.decode().split() == [word for name in NAMES[:4] for word in (f"{name}:", "OK")]  # fmt: skip


def test_steps_are_numbers_and_what_others_put_there_is_left_alone(tmp_path: Path) -> None:
    exp = save(tmp_path, 9_999_998, 9_999_999, 10_000_000)
    assert names_in(exp) == {"step_9999999", "step_10000000"}
    shutil.copytree(exp / "checkpoints/step_9999999", exp / "checkpoints/step_9999999 of Monday")
    (exp / "checkpoints/step_10000000/notes.txt").write_text("before the power cut")
    assert loaded_step(exp) == 10_000_000
    save(exp, 10_000_001)
    assert names_in(exp) == {"step_10000000", "step_10000001", "step_9999999 of Monday"}


def test_best_weights_stay_as_long_as_a_checkpoint_counts_on_them(tmp_path: Path) -> None:
    exp, best = tmp_path, tmp_path / "checkpoints/best"

    def keep(step: int) -> None:
        with atomic_path(checkpoints.best_path(exp / "checkpoints", step)) as temporary:
            temporary.write_bytes(b"weights")

    keep(2)
    save(exp, 3, kept=(2,))
    keep(4)
    save(exp, 6, kept=(4,))
    # The checkpoint of step 3 may yet be needed, and with it the weights of step 2.
    assert {path.name for path in best.iterdir()} == {"step_0000002.safetensors", "step_0000004.safetensors"}
    save(exp, 9, kept=(4,))
    assert {path.name for path in best.iterdir()} == {"step_0000004.safetensors"}


def test_metrics_are_read_up_to_the_first_broken_line(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        experiment.append_metrics(tmp_path, {"step": step, "loss": 0.5})
    whole = (tmp_path / "metrics.jsonl").read_text()
    for broken in ('{"step": 4', '{"st\n{"step": 5}\n', "\0" * 50 + "\n", "\0" * 50):
        (tmp_path / "metrics.jsonl").write_text(whole + broken)
        assert [line["step"] for line in experiment.read_metrics(tmp_path)] == [1, 2, 3]
    experiment.rewind_metrics(tmp_path, 2)
    assert [line["step"] for line in experiment.read_metrics(tmp_path)] == [1, 2]


# ---- The lock


@contextmanager
def other_run(exp: Path) -> Iterator[int]:
    """Another process that holds the folder, and is killed at the end of the `with` block."""
    ready, say_ready = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            with experiment.locked(exp):
                os.write(say_ready, b"!")
                signal.pause()
        finally:
            os._exit(8)
    os.close(say_ready)
    try:
        assert os.read(ready, 1) == b"!"
        os.close(ready)
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


OWN_HOST = os.uname().nodename
NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


def without_locks(code: int) -> Callable[..., None]:
    def lockf(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return lockf


def test_a_second_run_is_refused_and_a_dead_ones_lock_taken_over_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = tmp_path / "new/exp"
    since = time.strftime("%Y-%m-%d ")
    with other_run(exp) as other, pytest.raises(SpoofkitError) as refused, experiment.locked(exp):
        pass
    assert f"{exp}: another process is using this folder ({OWN_HOST}, process {other}, since {since}" in str(
        refused.value
    )
    with experiment.locked(exp):
        said = capsys.readouterr().err
        assert f"{exp}: took over the lock of a process that died ({OWN_HOST}, process {other}, since {since}" in said
        assert said.strip() in (exp / "train.log").read_text()
        code, text = forked(lambda: experiment.locked(exp).__enter__())
        assert code == 7
        assert f"another process is using this folder ({OWN_HOST}, process {os.getpid()}," in text
    with experiment.locked(exp):
        assert capsys.readouterr().err == ""  # that one gave it back


def test_a_run_that_fails_gives_its_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), experiment.locked(tmp_path):
        _ = 1 / 0
    with held(tmp_path / ".lock") as note:
        assert note is None


@pytest.mark.parametrize("code", NO_LOCKS)
def test_where_there_are_no_locks_a_file_names_the_run(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "lockf", without_locks(code))
    with other_run(tmp_path) as other, pytest.raises(SpoofkitError) as refused, experiment.locked(tmp_path):
        pass
    assert f"another process is using this folder ({OWN_HOST}, process {other}," in str(refused.value)
    assert f"if it is dead, remove {tmp_path}/.lock_owner; else wait for it" in str(refused.value)
    assert (tmp_path / ".lock_owner").exists(), "a refused run must not take away the other's file"
    with experiment.locked(tmp_path):
        said = capsys.readouterr().err
        assert f"this file system has no locks ({os.strerror(code)})" in said
        assert f"took over that of a process that died ({OWN_HOST}, process {other}," in said
        assert f"process {os.getpid()}," in (tmp_path / ".lock_owner").read_text()
    assert not (tmp_path / ".lock_owner").exists()


def test_without_locks_only_one_of_two_runs_that_find_a_dead_one_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "lockf", without_locks(errno.ENOLCK))
    (tmp_path / ".lock_owner").write_text(f"{OWN_HOST}, process {2**22 + 1}, since 2026-01-01 00:00:00")
    others = []

    def is_dead(name: str) -> bool:
        monkeypatch.undo()
        monkeypatch.setattr(fcntl, "lockf", without_locks(errno.ENOLCK))
        others.append(forked(lambda: experiment.locked(tmp_path).__enter__()))  # at the very moment
        return True

    monkeypatch.setattr(lock, "_is_dead_here", is_dead)
    with experiment.locked(tmp_path):
        assert f"process {os.getpid()}," in (tmp_path / ".lock_owner").read_text()
    ((code, text),) = others
    assert code == 7
    assert "another process is using this folder" in text


def test_without_locks_a_run_of_another_host_or_an_unreadable_name_is_never_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "lockf", without_locks(errno.ENOLCK))
    for name in ("elsewhere, process 1, since 2026-01-01 00:00:00", "", f"{OWN_HOST}, process , since"):
        (tmp_path / ".lock_owner").write_text(name)
        with pytest.raises(SpoofkitError, match=r"another process is using this folder \(.*\); if it is dead, remove "):
            experiment.locked(tmp_path).__enter__()
        assert (tmp_path / ".lock_owner").read_text() == name


def test_any_other_refusal_of_a_lock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "lockf", without_locks(errno.EIO))
    with pytest.raises(SpoofkitError, match=r"cannot be written \(Input/output error\)"), experiment.locked(tmp_path):
        pass


# ---- Whole trainings, killed and killed again

SETTINGS = """
crop_samples: 8000
encoder: {name: ENCODER, freeze: none}
mix: {n_train: 12, n_dev: 6, min_region_samples: 800, margin_samples: 400}
posttrain: &short
  {precision: fp32, n_steps: 8, batch_size: 3, eval_every: 5, checkpoint_every: 1, optim: {lr: 1e-3}}
finetune: *short
"""
CASES: dict[str, tuple[str, list[str], int]] = {  # verb, further options, kills
    "posttrain": ("posttrain", [], 15),
    "finetune": ("finetune", [], 10),
    "averages": ("finetune", ["--set", "finetune.ema_decay=0.8", "--set", "finetune.average_best=2"], 10),
    "lora": ("finetune", ["--set", "encoder.lora.rank=2", "--set", "encoder.freeze=stem"], 10),
    "workers": ("finetune", ["--workers", "1"], 5),
}


def small_encoder(folder: Path) -> Path:
    """A wav2vec 2.0 with dropout, so that the random numbers of every step matter."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=(32, 32),
        conv_kernel=(400, 2),
        conv_stride=(160, 2),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        hidden_dropout=0.2,
        feat_proj_dropout=0.2,
        layerdrop=0.0,
        mask_time_prob=0.0,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder


def products(exp: Path) -> dict[str, bytes]:
    """All that a finished run hands on, and what it measured on the way."""
    paths = [path for name in ("encoder", "frame_head", "model") for path in (exp / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(exp)): bytes_of_any_day(path) for path in (*paths, exp / "metrics.jsonl")}


def begin(arguments: list[str], log: Path, dying_at: int | None = None, count_into: Path | None = None) -> int:
    """Start `spoofkit ARGUMENTS` in a copy of this process, to die before its so-many-th change of the disk."""
    child = os.fork()
    if not child:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code, changes = 8, list[str]()
        try:
            if dying_at is not None:
                die_before_change(dying_at)
            if count_into is not None:
                before_every_change(lambda what, *_: changes.append(what))
            code = run_cli(*arguments).returncode
            if count_into is not None:
                count_into.write_text(str(len(changes)))
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        os._exit(code)
    return child


def end(child: int, seconds: float) -> int:
    """Kill a child after so long, if it has not ended by then; its exit code."""
    deadline = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.002)


def kill_trainings(folder: Path, options: dict[str, list[str]]) -> None:
    """Kill trainings at random moments until they are done, and see each time that they equal the undisturbed one.

    Runs in a process of its own, which has imported what takes long, computed nothing, and is copied for every
    attempt: the threads that torch starts when it first computes, and polars at once, would be missing in a copy.
    """
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import scipy.signal  # noqa: F401
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model  # noqa: F401

    import spoofkit.models.detector
    import spoofkit.models.pretrained
    import spoofkit.models.wave_encoder  # noqa: F401

    assert "polars" not in sys.modules
    assert len(list(Path("/proc/self/task").iterdir())) == 1
    os.fsync = lambda _: None
    for case, (verb, further, n_kills) in CASES.items():
        draw, n_killed, n_damaged, log = random.Random(case), 0, 0, folder / f"{case}.log"
        started = time.monotonic()
        whole, n_changes_file = folder / case, folder / f"{case}.count"
        undisturbed = begin([verb, str(whole), *options[verb], *further], log, count_into=n_changes_file)
        assert end(undisturbed, 60) == 0, log.read_text()
        seconds, n_changes, expected = time.monotonic() - started, int(n_changes_file.read_text()), products(whole)
        while n_killed < n_kills:
            exp, code = folder / f"{case}-{n_killed}", -signal.SIGKILL
            while code != 0:
                dying_at = draw.choice([None, draw.randint(1, n_changes)])
                child = begin([verb, str(exp), *options[verb], *further], log, dying_at)
                code = end(child, draw.uniform(0, seconds) if dying_at is None else 60)
                assert code in (0, -signal.SIGKILL), log.read_text()
                n_killed += code != 0
                saved = sorted((exp / "checkpoints").glob("step_*"))
                if code != 0 and len(saved) == 2 and draw.random() < 0.4:
                    n_damaged += 1
                    damage(saved[-1] / "optimizer.pt", "cut short")
            found = products(exp)
            different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
            assert not different, (case, exp, different)
        print(
            f"{case}: {n_killed} kills, {n_damaged} damaged checkpoints; undisturbed {n_changes} changes of the disk "
            f"in {seconds:.1f} s, {time.monotonic() - started:.1f} s in all"
        )


@pytest.mark.release
def test_trainings_killed_at_random_moments_end_as_if_nothing_had_happened(manifests: Path, tmp_path: Path) -> None:
    conf = tmp_path / "conf.yaml"
    conf.write_text(SETTINGS.replace("ENCODER", str(small_encoder(tmp_path / "small"))))
    for name, more in (("train", []), ("dev", ["--held-out"])):
        run_cli("mixlist", "draw", manifests / f"{name}.tsv", "-o", tmp_path / f"mix_{name}.tsv", "-c", conf, *more)
    sources = [f"--train={manifests}/train.tsv", f"--dev={manifests}/dev.tsv", f"--config={conf}"]
    mixes = [f"--mix={tmp_path}/mix_train.tsv", f"--dev-mix={tmp_path}/mix_dev.tsv"]
    options = {"finetune": sources, "posttrain": [*sources, *mixes]}
    code = (
        "import json, pathlib, sys, test_resume\n"
        "test_resume.kill_trainings(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(options)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,  # against a copy that hangs, not a slow machine
    )
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout)
