"""An experiment folder: what a training writes, how it is locked, and what is kept when it resumes.

config.yaml       the resolved settings of this stage
inputs.json       hashes of what it was trained on
runs.jsonl        one line per start: when, where, from which step
metrics.jsonl     one line per step; evaluations with the development error
train.log         the log, with times
checkpoints/      see spoofkit.training.checkpoints
curve.png         loss and development error over steps
tensorboard/      the same figures, if asked for
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

import spoofkit
from spoofkit.config import differences, read_recorded
from spoofkit.errors import SpoofkitError
from spoofkit.files import (
    make_folder,
    read_json,
    read_text,
    remove_folder,
    remove_leftovers,
    write_error,
    write_json,
    write_text,
)
from spoofkit.lock import held
from spoofkit.machine import commit, now
from spoofkit.models.device import hardware
from spoofkit.models.encoder import Encoder
from spoofkit.stages import FINETUNING, FRAME_HEAD, POSTTRAINING, Stage
from spoofkit.terminal import say
from spoofkit.training import checkpoints

PRODUCTS = ("encoder", "frame_head", "model")
"""All folders that trainings make; each training makes some of them."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock an experiment folder for this process; the lock of a dead process is ignored.

    Raises:
        SpoofkitError: another process is using the folder, or it cannot be written to.
    """
    with ExitStack() as stack:
        try:
            make_folder(folder)
            note = stack.enter_context(held(folder / ".lock"))
            remove_leftovers(
                folder, "|".join(("config", "inputs", "metrics", "runs", "curve", "checkpoints", *PRODUCTS))
            )
            remove_leftovers(folder / "checkpoints", r"step_\d+|damaged_step_\d+")
            remove_leftovers(folder / "checkpoints" / "best", r"step_\d+")
        except OSError as error:
            raise SpoofkitError(
                f"{folder}: cannot be written ({error.strerror or error}); choose another folder for the experiment"
            ) from error
        if note:
            log(folder, note)
        yield


def is_finished(folder: Path, products: tuple[str, ...], settings: dict[str, Any], inputs: dict[str, str]) -> bool:
    """Return whether `folder` holds everything that this experiment would make.

    Args:
        folder: The experiment's folder.
        products: Folders that a finished training leaves, of PRODUCTS.
        settings: The resolved settings of this stage.
        inputs: Hash by name of everything it reads.

    Raises:
        SpoofkitError: the folder holds an experiment with other settings or inputs, or a damaged record of one.
    """
    has_products = any((folder / product).exists() for product in PRODUCTS)
    if not (has_products or checkpoints.exist(folder / "checkpoints")):
        return False  # a run that stopped before its first checkpoint leaves nothing to protect
    try:
        before = read_recorded(folder / "config.yaml") | {"inputs": read_json(folder / "inputs.json")}
    except SpoofkitError as error:
        raise SpoofkitError(
            f"{folder}: holds checkpoints without a readable config.yaml and inputs.json; "
            "pass --overwrite to train again"
        ) from error
    changed = differences(before, settings | {"inputs": inputs})
    if changed:
        raise SpoofkitError(
            f"{folder}: holds an experiment with other settings ({'; '.join(changed[:3])}); "
            "use another folder, or pass --overwrite to train again"
        )
    return all((folder / product).is_dir() for product in products)


def refuse_loss(folder: Path, stage: str, encoder: str) -> None:
    """Refuse a folder in which `clear` or `record` would destroy what no training of this stage wrote.

    Args:
        folder: The experiment's folder.
        stage: Name of the stage; see spoofkit.stages.
        encoder: The encoder that is to be trained, a folder or another name.

    Raises:
        SpoofkitError: the folder holds this encoder, a training of another stage, or what no training wrote.
    """
    if Path(encoder).is_dir() and Path(encoder).resolve().is_relative_to(folder.resolve()):
        raise SpoofkitError(
            f"{folder}: holds the encoder {encoder} that is to be trained, expected another folder; name one"
        )
    at_stake = [folder / name for name in ("checkpoints", *PRODUCTS, "tensorboard", "config.yaml")]
    found = next((path for path in at_stake if path.exists()), None)
    if found is None:
        return
    try:
        before = read_json(folder / "inputs.json") if (folder / "inputs.json").exists() else None
    except SpoofkitError:
        return  # the damaged record of a training, which --overwrite replaces
    if not isinstance(before, dict) or "train_manifest" not in before:
        raise SpoofkitError(
            f"{found}: was not written by a training (no inputs.json beside it says so); name another folder, or move "
            "it away"
        )
    of_mixes = FRAME_HEAD if "model" in before else POSTTRAINING
    if (there := of_mixes if "mix" in before else FINETUNING) != stage:
        raise SpoofkitError(f"{folder}: holds a training of another stage ({there}, not {stage}); name another folder")


def clear(folder: Path) -> None:
    """Delete what an earlier run left, its settings last, so that a kill leaves nothing a later run could misread."""
    for name in ("checkpoints", *PRODUCTS, "tensorboard"):
        if (folder / name).exists():
            remove_folder(folder / name)
    for name in ("metrics.jsonl", "runs.jsonl", "train.log", "curve.png", "config.yaml", "inputs.json"):
        (folder / name).unlink(missing_ok=True)


def record(folder: Path, settings: dict[str, Any], inputs: dict[str, str]) -> None:
    """Write what this experiment is: inputs.json and config.yaml."""
    write_json(folder / "inputs.json", inputs, overwrite=True)  # first, so that no config.yaml of ours is without it
    write_text(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False), overwrite=True)


def append_run(folder: Path, from_step: int, device: torch.device, n_processes: int, precision: str) -> None:
    """Record that training starts or resumes here and now."""
    line = {
        "began": now(),
        "from_step": from_step,
        "hardware": hardware(device),
        "n_processes": n_processes,
        "precision": precision,
        "versions": {"spoofkit": spoofkit.__version__, "torch": version("torch"), "python": sys.version.split()[0]},
        "commit": commit(),
    }
    path = folder / "runs.jsonl"
    write_text(path, "".join(json.dumps(run) + "\n" for run in [*_read_lines(path), line]), overwrite=True)


def finished_stage(
    folder: Path,
    name: str,
    encoder: Encoder,
    trained_on: str,
    kept: dict[str, Any],
    settings: dict[str, Any],
    inputs: dict[str, str],
) -> Stage:
    """Return the entry of `stages.json` for a finished training; its `runs` are those whose steps are in the weights.

    Args:
        folder: The experiment's folder.
        name: Name of the stage.
        encoder: The trained encoder.
        trained_on: Summary of the training manifest.
        kept: Step and figures of the weights that were chosen.
        settings: The resolved settings of this stage.
        inputs: Hash by name of what it read.
    """
    n_steps = end = read_metrics(folder)[-1]["step"]
    runs: list[dict[str, Any]] = []
    for line in reversed(_read_lines(folder / "runs.jsonl")):
        if line["from_step"] < end:  # else a later run repeated its steps
            runs.insert(0, {"steps": [line.pop("from_step"), end], **line})
            end = runs[0]["steps"][0]
    return {
        "stage": name,
        "settings": without_paths(settings),
        "inputs": inputs,
        "trained_on": trained_on,
        "weights": encoder.loaded,
        "n_steps": n_steps,
        "kept": kept,
        "finished": now(),
        "runs": runs,
    }


def without_paths(settings: Any) -> Any:
    """Reduce each folder in settings to its name: where it is on this machine does not identify a model."""
    if isinstance(settings, dict):
        return {name: without_paths(value) for name, value in settings.items()}
    return Path(settings).name if isinstance(settings, str) and Path(settings).is_dir() else settings


def log(folder: Path, message: str) -> None:
    """Append a line with the time to train.log, and print it."""
    say(message)
    _append(folder / "train.log", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")


def append_metrics(folder: Path, line: dict[str, Any]) -> None:
    """Append a line to metrics.jsonl."""
    _append(folder / "metrics.jsonl", json.dumps(line) + "\n")


def _append(path: Path, text: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(text)
    except OSError as error:
        raise write_error(path, error) from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read all complete lines of metrics.jsonl: see `_read_lines`.

    Raises:
        SpoofkitError: a complete line lacks its step or loss, which no kill can cause.
    """
    path = folder / "metrics.jsonl"
    lines = _read_lines(path)
    for number, line in enumerate(lines, start=1):
        if not (isinstance(line, dict) and all(type(line.get(name)) in (int, float) for name in ("step", "loss"))):
            raise SpoofkitError(
                f"{path}: line {number} is damaged, expected numbers for step and loss; delete it and the lines after "
                "it, or train again with --overwrite"
            )
    return lines


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a file up to the first that a kill, a full disk or a power cut broke."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        for line in read_text(path).split("\n")[:-1]:
            try:
                lines.append(json.loads(line))
            except (ValueError, RecursionError):
                break
    return lines


def rewind_metrics(folder: Path, n_steps_written: int) -> None:
    """Drop the metrics after the checkpoint from which a run resumes."""
    kept = [line for line in read_metrics(folder) if line["step"] <= n_steps_written]
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept), overwrite=True)
