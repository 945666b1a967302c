"""An experiment folder: what a training writes, how it is locked, and how it is taken up again.

config.yaml       the resolved settings of this stage
inputs.json       hashes of what it was trained on
metrics.jsonl     one line a step; evaluations with the development error
train.log         what was decided and when
checkpoints/      step_0000500/ … (newest two) and best/
curve.png         loss and development error over steps
"""

import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save
from tqdm import tqdm

from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path, read_json, read_text, write_json, write_text

N_CHECKPOINTS_KEPT = 2


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an experiment folder for this process; a second run on it is refused, a dead one's lock is void."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The kernel lets go of the lock when the process dies, however it dies.
        handle = open(folder / ".lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise SpoofkitError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder for the experiment"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise SpoofkitError(
                f"{folder}: another run is at work here ({handle.read().strip()}); wait for it, or use another folder"
            ) from error
        # What a killed run was writing when it died.
        for left in (*folder.glob(".*.tmp*"), *(folder / "checkpoints").glob(".*.tmp*")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        handle.truncate(0)
        handle.write(f"{socket.gethostname()}, process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        handle.flush()
        yield


def open_experiment(folder: Path, settings: dict[str, Any], inputs: dict[str, str], overwrite: bool) -> None:
    """Begin an experiment, or make sure that the one in `folder` is this one.

    Args:
        folder: The experiment's folder; must be locked.
        settings: The resolved settings that matter to this stage.
        inputs: Hash by name of everything it reads.
        overwrite: Throw away what an earlier run left.

    Raises:
        SpoofkitError: the folder holds an experiment with other settings or inputs.
    """
    config_path, inputs_path = folder / "config.yaml", folder / "inputs.json"
    if overwrite:
        for name in ("config.yaml", "inputs.json", "metrics.jsonl", "train.log", "curve.png"):
            (folder / name).unlink(missing_ok=True)
        for name in ("checkpoints", "encoder", "frame_head", "model"):
            shutil.rmtree(folder / name, ignore_errors=True)
    if config_path.exists() and inputs_path.exists():
        before = yaml.safe_load(read_text(config_path)) | {"inputs": read_json(inputs_path)}
        changed = _differences(before, settings | {"inputs": inputs})
        if changed:
            raise SpoofkitError(
                f"{folder}: holds an experiment with other settings ({'; '.join(changed[:3])}); use another "
                "folder, or pass --overwrite to train anew"
            )
        return
    write_text(config_path, yaml.safe_dump(settings, sort_keys=False), overwrite=True)
    write_json(inputs_path, inputs, overwrite=True)


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"{name}: {before} there, {now} now"]
    keys = [*before, *(key for key in now if key not in before)]
    return [line for key in keys for line in _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))]


def log(folder: Path, message: str) -> None:
    """Add a line with the time to train.log, and show it."""
    tqdm.write(message, file=sys.stderr)
    with open(folder / "train.log", "a", encoding="utf-8") as handle:
        handle.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")


def append_metrics(folder: Path, line: dict[str, Any]) -> None:
    """Add one line to metrics.jsonl."""
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of metrics.jsonl; a last line that a kill cut short is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = read_text(path).split("\n")[:-1]
    return [json.loads(line) for line in lines]


def rewind_metrics(folder: Path, n_steps_done: int) -> None:
    """Drop what was written after the checkpoint at which a run is taken up again."""
    kept = [line for line in read_metrics(folder) if line["step"] <= n_steps_done]
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept), overwrite=True)


def save_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write checkpoints/step_NNNNNNN whole, then remove all but the newest few."""
    checkpoints = folder / "checkpoints"
    with atomic_path(checkpoints / f"step_{state['n_steps_done']:07d}", overwrite=True) as temporary:
        temporary.mkdir()
        _save_tensors(model, temporary / "model.safetensors")
        with open(temporary / "optimizer.pt", "wb") as handle:
            torch.save(optimizer.state_dict(), handle)
        write_json(temporary / "state.json", state)
    for old in _checkpoint_folders(folder)[:-N_CHECKPOINTS_KEPT]:
        shutil.rmtree(old)


def load_newest_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> dict[str, Any] | None:
    """Restore the newest checkpoint into model and optimiser; none if there is none yet.

    Raises:
        SpoofkitError: the newest checkpoint is damaged.
    """
    folders = _checkpoint_folders(folder)
    if not folders:
        return None
    newest = folders[-1]
    try:
        model.load_state_dict(load_file(newest / "model.safetensors", device=str(device)), strict=True)
        optimizer.load_state_dict(torch.load(newest / "optimizer.pt", map_location=device, weights_only=True))
        state: dict[str, Any] = read_json(newest / "state.json")
    except SpoofkitError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise SpoofkitError(
            f"{newest}: damaged checkpoint ({reason}); remove this folder to go on from the one before it"
        ) from error
    return state


def save_best(folder: Path, model: torch.nn.Module) -> None:
    """Keep the weights of the best evaluation so far."""
    with atomic_path(folder / "checkpoints" / "best.safetensors", overwrite=True) as temporary:
        _save_tensors(model, temporary)


def load_best(folder: Path, model: torch.nn.Module, device: torch.device) -> None:
    """Put the weights of the best evaluation back into the model."""
    model.load_state_dict(load_file(folder / "checkpoints" / "best.safetensors", device=str(device)), strict=True)


def _save_tensors(model: torch.nn.Module, path: Path) -> None:
    # Bytes written by Python, not by safetensors itself: a full disk is then an OSError like every other.
    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}))


def _checkpoint_folders(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step_*"))
