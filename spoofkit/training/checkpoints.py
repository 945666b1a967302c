"""Checkpoints: each is complete or absent and is verified before it is read; at any moment one can be loaded.

step_0000500/           after 500 steps: model.safetensors, optimizer.pt, state.json, extra.safetensors if there are
                        further tensors, and SHA256SUMS, which `sha256sum -c` reads; the newest two are kept
best/                   the weights of the best evaluations so far: see spoofkit.training.averaging
damaged_step_0000500/   a checkpoint that does not match its checksums, set aside
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes

from spoofkit.checksums import SUMS, as_text, parse
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, file_sha256, read_json, read_text, remove_folder, sync, write_error

N_CHECKPOINTS_KEPT = 2
FILES = ("model.safetensors", "optimizer.pt", "extra.safetensors", "state.json")


@dataclass
class LoopState:
    """The state of the training loop besides tensors; `state.json` of a checkpoint."""

    n_steps_done: int = 0
    pending: dict[str, Any] | None = None
    """Metrics of a step that is saved but not yet evaluated."""
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Step, figures and checksum of each evaluation whose weights are kept, the best first."""
    n_without_better: int = 0
    """Number of evaluations since the best one."""
    last: dict[str, float] = field(default_factory=dict)
    """Figures of the last evaluation."""
    precision: str | None = None
    """Precision of the run; None before its first step."""
    eval_precision: str | None = None
    """Precision of its evaluations; None before the first one."""
    base_sha256: str | None = None
    """Hash of the frozen weights below the adapters."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run resumes from."""

    model: dict[str, torch.Tensor]
    """See `learnt_state`: if adapters are trained, the frozen weights below them are not included."""
    optimizer: dict[str, Any]
    """Parameter groups and moments, by parameter name; before format 2 by number."""
    state: LoopState
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    """Further tensors, such as a moving average of the weights."""


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write step_NNNNNNN atomically, then remove old checkpoints and the weights in best/ that no checkpoint needs.

    Args:
        folder: The folder of all checkpoints, in that of the experiment.
        checkpoint: What to write.

    Raises:
        SpoofkitError: the disk refuses to write; the older checkpoints are intact.
    """
    metrics = folder.parent / "metrics.jsonl"
    try:
        if metrics.exists():
            sync(metrics)  # a run that resumes from this checkpoint needs all lines before it
    except OSError as error:
        raise write_error(metrics, error) from error
    _write(folder / f"step_{checkpoint.state.n_steps_done:07d}", _files(checkpoint))
    folders = _step_folders(folder)
    for old in folders[:-N_CHECKPOINTS_KEPT]:
        remove_folder(old)
    try:
        states = [_read_state(path) for path in folders[-N_CHECKPOINTS_KEPT:]]
        needed = {best_path(folder, entry["step"]) for state in states for entry in state.kept}
    except (SpoofkitError, KeyError, TypeError):
        return  # an older one is damaged: what it needs is unknown, so everything stays
    for path in set((folder / "best").glob("step_*")) - needed:
        path.unlink(missing_ok=True)


def best_path(folder: Path, step: int) -> Path:
    """Return the path of the kept weights of an evaluation."""
    return folder / "best" / f"step_{step:07d}.safetensors"


def kept_weights(folder: Path, kept: list[dict[str, Any]]) -> list[Path]:
    """Return the paths of the weights of the best evaluations, verified.

    Args:
        folder: The experiment's folder.
        kept: See `LoopState`.

    Raises:
        SpoofkitError: one of them is missing or damaged.
    """
    paths = [best_path(folder / "checkpoints", entry["step"]) for entry in kept]
    for path, entry in zip(paths, kept, strict=True):
        if not path.is_file() or file_sha256(path) != entry["sha256"]:
            raise SpoofkitError(
                f"{path}: {'does not match its checksum' if path.is_file() else 'is missing'}, and the run needs these "
                "weights of one of its best evaluations; restore a copy, or pass --overwrite to train again"
            )
    return paths


def exist(folder: Path) -> bool:
    """Return whether there are checkpoints, damaged or not."""
    return bool(_step_folders(folder))


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """Find the newest intact checkpoint; None if there is no checkpoint yet.

    Newer damaged ones are set aside and reported through `say`. Only one process of a run may call this.

    Raises:
        SpoofkitError: all checkpoints are damaged; they stay where they are.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(_step_folders(folder)):
        reason = _damage(path)
        if reason is None:
            for other, why in damaged:
                aside = _set_aside(other).name
                say(f"{other}: damaged checkpoint ({why}), set aside as {aside}; resuming from {path.name}")
            return path
        damaged.append((path, reason))
    if damaged:
        found = "; ".join(f"{path.name}: {reason}" for path, reason in damaged)
        raise SpoofkitError(
            f"{folder}: no checkpoint can be read ({found}); restore a copy of one, or pass --overwrite to train again"
        )
    return None


def read(path: Path) -> Checkpoint:
    """Read a checkpoint that `newest` has verified, into the memory of the CPU.

    Raises:
        SpoofkitError: it cannot be read after all.
    """
    try:
        extra = path / "extra.safetensors"
        return Checkpoint(
            load_file(path / "model.safetensors"),
            torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True),
            _read_state(path),
            load_file(extra) if extra.exists() else {},
        )
    except SpoofkitError:
        raise
    except Exception as error:  # whatever torch, pickle, zip and safetensors raise
        raise SpoofkitError(
            f"{path}: cannot be read ({one_line(error)}); remove this folder to resume from the one before it"
        ) from error


def _files(checkpoint: Checkpoint) -> Iterator[tuple[str, bytes | memoryview]]:
    """Yield name and content of each file, so that only one content is in memory at a time."""
    # Python writes the bytes, not torch or safetensors, so that a full disk is an OSError as elsewhere.
    yield "model.safetensors", _tensor_bytes(checkpoint.model)
    buffer = io.BytesIO()
    torch.save(checkpoint.optimizer, buffer)
    yield "optimizer.pt", buffer.getbuffer()
    if checkpoint.extra:
        yield "extra.safetensors", _tensor_bytes(checkpoint.extra)
    yield "state.json", (json.dumps(asdict(checkpoint.state), indent=2, allow_nan=False) + "\n").encode()


def _read_state(path: Path) -> LoopState:
    return LoopState(**read_json(path / "state.json"))


def _tensor_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    return as_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _write(path: Path, files: Iterator[tuple[str, bytes | memoryview]]) -> None:
    with atomic_folder(path) as temporary:
        sums = {}
        for name, content in files:
            (temporary / name).write_bytes(content)
            sums[name] = hashlib.sha256(content).hexdigest()
        (temporary / SUMS).write_text(as_text(sums), encoding="utf-8")


def _damage(path: Path) -> str | None:
    """Return how the files of a folder differ from those that `_write` wrote; None if they do not."""
    name = SUMS
    try:
        sums = parse(read_text(path / SUMS))
        # A line may be missing altogether. Files that a user put beside ours are not damage.
        there = {name for name in FILES if (path / name).exists()}
        if not there <= sums.keys() <= set(FILES):
            return f"{SUMS} is damaged"
        for name, digest in sums.items():
            if file_sha256(path / name) != digest:
                return f"{name} does not match its checksum"
    except SpoofkitError as error:
        if isinstance(error.__cause__, PermissionError):
            raise  # another user's, not damaged
        return f"{name} {'is missing' if isinstance(error.__cause__, FileNotFoundError) else 'cannot be read'}"
    except ValueError:
        return f"{SUMS} is damaged"
    return None


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"damaged_{path.name}")
    if aside.exists():
        remove_folder(aside)
    try:
        os.rename(path, aside)
        sync(path.parent)
    except OSError as error:
        raise write_error(aside, error) from error
    return aside


def _step_folders(folder: Path) -> list[Path]:
    """List the checkpoints, oldest first; other files beside them are ignored."""
    found = [path for path in folder.glob("step_*") if re.fullmatch(r"step_\d{7,}", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def one_line(error: Exception) -> str:
    """Shorten an error's message to one line."""
    return " ".join(str(error).split())[:160]
