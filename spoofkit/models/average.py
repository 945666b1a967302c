"""Averaging models of the same kind: the mean of their weights, for `spoofkit average`."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from spoofkit.checksums import folder_sha256, require_intact
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, make_folder, read_json, write_error
from spoofkit.models.detector import FRAME_HEAD
from spoofkit.models.merge_adapters import change_record, has_adapters, merge, write_all_sums
from spoofkit.outputs import Output, is_up_to_date, output_with_own_record, refuse_replacing, write_own_record
from spoofkit.stages import AVERAGE, posttraining, read_stages, write_stages
from spoofkit.stages import FILE as STAGES


def average(folders: list[Path], out: Path, overwrite: bool = False, reuse: bool = False) -> bool:
    """Write the mean of model folders, or of encoder folders, into `out`.

    Everything but the weights is taken from the first. Adapters are merged first, since the mean of B A is not the
    product of two means: what is written is a plain folder.

    Args:
        folders: The folders to average.
        out: The folder to write.
        overwrite: Replace one that an earlier call wrote.
        reuse: Skip one that was made from the same.

    Returns:
        Whether it was written; False if it is up to date.

    Raises:
        SpoofkitError: fewer than two folders, a folder without weights, folders of different kinds or origins, or `out`
            exists or lies inside one of them.
    """
    if len(folders) < 2:
        raise SpoofkitError(f"average: found only {folders[0]}, expected at least two models; name the others")
    for folder in folders:
        if folder.resolve() in out.resolve().parents:
            raise SpoofkitError(f"{out}: lies inside {folder}, which is to be averaged; name a folder outside")
        if folder.is_dir():  # a missing one is refused below
            require_intact(folder)
    refuse_replacing([out], folders)
    made_from = {"models_sha256": [folder_sha256(folder) for folder in folders if folder.is_dir()]}
    output = output_with_own_record("average", out, made_from, is_folder=True)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        return False
    try:
        make_folder(out.parent)
        room = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.")
    except OSError as error:
        raise write_error(out, error) from error
    with room as merged:
        plain = list(folders)
        for number, folder in enumerate(folders):
            if has_adapters(folder):
                plain[number] = Path(merged) / str(number)
                merge(folder, plain[number])
        _average(plain, folders, output)
    return True


def _average(plain: list[Path], folders: list[Path], output: Output) -> None:
    """Write the mean of `plain` folders, which messages call by the names of `folders`."""
    names = [_weights(folder) for folder in plain]
    kinds = [_kind(folder) for folder in plain]
    for folder, found in zip(folders, names, strict=True):
        if found != names[0]:
            raise SpoofkitError(
                f"{folder}: has other weight files than {folders[0]} ({', '.join(sorted(found ^ names[0]))}), so they "
                "cannot be averaged"
            )
    for folder, kind in zip(folders, kinds, strict=True):
        different = sorted(name for name in kind.keys() | kinds[0].keys() if kind.get(name) != kinds[0].get(name))
        if different:
            raise SpoofkitError(
                f"{folder}: differs from {folders[0]} in {', '.join(different[:3])}, so they cannot be averaged"
            )
    with atomic_folder(output.files[0]) as temporary:
        shutil.copytree(plain[0], temporary, dirs_exist_ok=True)
        for name in sorted(names[0]):
            mean = mean_of([folder / name for folder in plain])
            (temporary / name).write_bytes(save(mean, metadata={"format": "pt"}))
        hashes = [folder_sha256(folder) for folder in folders]
        changed: dict[str, Any] = {"averaged": hashes, "kept": None}
        for file in list(temporary.rglob(STAGES)):
            inside = file.parent.relative_to(temporary)
            of = [
                {"sha256": sha256, "stages": read_stages(folder / inside)}
                for sha256, folder in zip(hashes, folders, strict=True)
            ]
            write_stages(file.parent, [{"stage": AVERAGE, "of": of}])
        before = posttraining(read_stages(temporary / "encoder"))
        change_record(temporary / "model.json", changed | {"posttraining": before})
        if (temporary / FRAME_HEAD).is_dir():
            own = {"encoder_sha256": folder_sha256(temporary / "encoder")}
            change_record(temporary / FRAME_HEAD / "head.json", changed | own)
        write_all_sums(temporary)
        write_own_record(output, temporary)


def _weights(folder: Path) -> set[str]:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}
    if not names:
        raise SpoofkitError(f"{folder}: holds no weights (*.safetensors), expected a model or an encoder folder")
    return names


def _kind(folder: Path) -> dict[str, Any]:
    """Return what must be equal in models whose weights are averaged: what they compute, and their origin."""
    kind: dict[str, Any] = {}
    of_training = ("kept", "settings", "inputs", "versions", "posttraining", "averaged", "merged_from")
    for name, ignored in (
        ("model.json", of_training),
        (f"{FRAME_HEAD}/head.json", (*of_training, "encoder_sha256")),
        ("config.json", ("_name_or_path", "transformers_version")),
        ("provenance.json", ()),
    ):
        for path in (folder / name, folder / "encoder" / name):
            values = read_json(path) if path.is_file() else {}
            where = path.relative_to(folder).as_posix()
            kind |= {f"{where}: {key}": value for key, value in values.items() if key not in ignored}
    return kind


def mean_of(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Average the tensors of several files in double precision; counts (integers) are those of the first.

    Raises:
        SpoofkitError: a file is missing or damaged, or has other tensors than the first.
    """
    first = _read(paths[0])
    if len(paths) == 1:
        return first
    shapes = {name: tensor.shape for name, tensor in first.items()}
    sums = {name: tensor.double() for name, tensor in first.items() if tensor.is_floating_point()}
    for path in paths[1:]:
        tensors = _read(path)
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise SpoofkitError(f"{path}: has other tensors than {paths[0]}, so they cannot be averaged")
        for name, tensor in sums.items():
            tensor += tensors[name]
    return first | {name: (tensor / len(paths)).to(first[name].dtype) for name, tensor in sums.items()}


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise SpoofkitError(f"{path}: damaged or missing ({reason}); restore a copy of it, or train again") from error
