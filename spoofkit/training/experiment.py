"""An experiment folder: what a training writes, how it is locked, and how it is taken up again.

config.yaml       the resolved settings of this stage
inputs.json       hashes of what it was trained on
metrics.jsonl     one line a step; evaluations with the development error
train.log         what was decided and when
checkpoints/      step_0000500/ … (newest two) and best/
curve.png         loss and development error over steps
"""

import fcntl
import io
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
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tqdm import tqdm

from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, atomic_path, mend_interrupted, read_json, read_text, write_json, write_text

N_CHECKPOINTS_KEPT = 2


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an experiment folder for this process; a second run on it is refused, a dead one's lock is void."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise SpoofkitError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder for the experiment"
        ) from error
    with handle:
        try:
            # The kernel lets go of it when this process dies, however it dies; loader processes do not inherit it.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            handle.seek(0)
            raise SpoofkitError(
                f"{folder}: another run is at work here ({handle.read().strip()}); wait for it, or use another folder"
            ) from error
        mend_interrupted(folder, "config|inputs|metrics|curve|encoder|frame_head|model")
        mend_interrupted(folder / "checkpoints", r"best|step_\d+")
        handle.truncate(0)
        handle.write(f"{socket.gethostname()}, process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        handle.flush()
        yield


def is_finished(folder: Path, products: tuple[str, ...], settings: dict[str, Any], inputs: dict[str, str]) -> bool:
    """Whether `folder` holds everything that this experiment would make.

    Args:
        folder: The experiment's folder.
        products: Folders that a finished run leaves.
        settings: The resolved settings that matter to this stage.
        inputs: Hash by name of everything it reads.

    Raises:
        SpoofkitError: the folder holds an experiment with other settings or inputs, or a damaged record of one.
    """
    has_checkpoints, has_products = bool(_checkpoint_folders(folder)), any((folder / p).exists() for p in products)
    if not (has_checkpoints or has_products):
        return False  # a run that was refused before its first checkpoint claims nothing
    try:
        before = yaml.safe_load(read_text(folder / "config.yaml")) | {"inputs": read_json(folder / "inputs.json")}
    except (SpoofkitError, yaml.YAMLError, TypeError) as error:
        raise SpoofkitError(
            f"{folder}: holds checkpoints without a readable config.yaml and inputs.json; "
            "pass --overwrite to train anew"
        ) from error
    changed = _differences(before, settings | {"inputs": inputs})
    if changed:
        raise SpoofkitError(
            f"{folder}: holds an experiment with other settings ({'; '.join(changed[:3])}); "
            "use another folder, or pass --overwrite to train anew"
        )
    return all((folder / product).is_dir() for product in products)


def clear(folder: Path) -> None:
    """Throw away what an earlier run left: first what a later run could take for its own, its settings last."""
    for name in ("checkpoints", "encoder", "frame_head", "model"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    for name in ("metrics.jsonl", "train.log", "curve.png", "inputs.json", "config.yaml"):
        (folder / name).unlink(missing_ok=True)


def record(folder: Path, settings: dict[str, Any], inputs: dict[str, str]) -> None:
    """Write what this experiment is: config.yaml and inputs.json."""
    write_text(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False), overwrite=True)
    write_json(folder / "inputs.json", inputs, overwrite=True)


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"{name}: {before} there, {now} now"]
    # An encoder is known by its hash among the inputs: the same folder under another path is the same encoder.
    keys = [key for key in dict.fromkeys([*before, *now]) if not (name == "encoder" and key == "name")]
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


def rewind_metrics(folder: Path, n_steps_written: int) -> None:
    """Drop what was written after the checkpoint at which a run is taken up again."""
    kept = [line for line in read_metrics(folder) if line["step"] <= n_steps_written]
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept), overwrite=True)


def save_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write checkpoints/step_NNNNNNN whole, then remove all but the newest few."""
    checkpoints = folder / "checkpoints"
    with atomic_folder(checkpoints / f"step_{state['n_steps_done']:07d}") as temporary:
        _save_tensors(model, temporary / "model.safetensors")
        # Bytes written by Python, not by torch or safetensors: a full disk is then an OSError like every other.
        buffer = io.BytesIO()
        torch.save(optimizer.state_dict(), buffer)
        (temporary / "optimizer.pt").write_bytes(buffer.getbuffer())
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
        model.load_state_dict(load_file(newest / "model.safetensors"), strict=True)
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


def load_best(folder: Path, model: torch.nn.Module) -> None:
    """Put the weights of the best evaluation back into the model.

    Raises:
        SpoofkitError: they are missing or damaged.
    """
    path = folder / "checkpoints" / "best.safetensors"
    try:
        model.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise SpoofkitError(f"{path}: damaged or missing ({reason}); pass --overwrite to train anew") from error


def _save_tensors(model: torch.nn.Module, path: Path) -> None:
    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}))


def _checkpoint_folders(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step_*"))
