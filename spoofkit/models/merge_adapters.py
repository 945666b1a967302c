"""Merging adapters into a plain folder, for `spoofkit merge` and `spoofkit average`."""

import shutil
from pathlib import Path
from typing import Any

from spoofkit.checksums import folder_sha256, require_intact, write_sums
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, read_json, write_json
from spoofkit.models import adapter_folder
from spoofkit.models.detector import FRAME_HEAD, detector_sha256
from spoofkit.models.pretrained import load_encoder
from spoofkit.outputs import is_up_to_date, output_with_own_record, refuse_replacing, write_own_record
from spoofkit.settings import EncoderSettings


def has_adapters(folder: Path) -> bool:
    """Return whether an encoder folder, or the encoder of a model folder, is stored as adapters."""
    return adapter_folder.is_adapter_folder(_encoder_of(folder))


def _encoder_of(folder: Path) -> Path:
    return folder / "encoder" if (folder / "model.json").is_file() else folder


def merge(folder: Path, out: Path, overwrite: bool = False, reuse: bool = False) -> bool:
    """Write a copy of a folder with the adapters merged into its encoder's weights, which then needs no base.

    Args:
        folder: An encoder folder with adapters, or a model folder with such an encoder.
        out: The folder to write.
        overwrite: Replace one that an earlier call wrote.
        reuse: Skip one that was made from the same.

    Returns:
        Whether it was written; False if it is up to date.

    Raises:
        SpoofkitError: `out` exists or lies inside `folder`, which is missing or has no adapters, or see `load_encoder`.
    """
    if folder.resolve() in out.resolve().parents:
        raise SpoofkitError(f"{out}: lies inside {folder}, which is to be merged; name a folder outside")
    if not folder.is_dir():
        raise SpoofkitError(f"{folder}: no such folder, expected an encoder or a model with adapters; check the name")
    source = _encoder_of(folder)
    if not has_adapters(folder):
        raise SpoofkitError(
            f"{folder}: has no adapters to merge, expected an encoder or a model that `posttrain` or `finetune` "
            "trained with encoder.lora; use it as it is"
        )
    require_intact(folder)
    refuse_replacing([out], [folder])
    output = output_with_own_record("merge", out, {"sha256": folder_sha256(folder)}, is_folder=True)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        return False
    encoder = load_encoder(EncoderSettings(name=str(source)))
    with atomic_folder(out) as temporary:
        target = temporary / source.relative_to(folder)
        shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*adapter_folder.FILES))
        encoder.save(target)
        change_record(temporary / "model.json", {"merged_from": detector_sha256(folder)})
        if (temporary / FRAME_HEAD).is_dir():
            change_record(temporary / FRAME_HEAD / "head.json", {"encoder_sha256": folder_sha256(target)})
        write_all_sums(temporary)
        write_own_record(output, temporary)
    return True


def change_record(record: Path, changed: dict[str, Any]) -> None:
    """Replace some values of a JSON file in a folder that is being written; an encoder folder has none."""
    if record.is_file():
        write_json(record, read_json(record) | changed, overwrite=True)


def write_all_sums(folder: Path) -> None:
    """Write the checksums of an encoder or a model folder that is being made from others."""
    for part in (folder / "encoder", folder / FRAME_HEAD, folder):
        if part.is_dir():
            write_sums(part, without=FRAME_HEAD)
