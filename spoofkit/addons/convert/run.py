"""The verb `convert`: recognise a file by its content, convert it, write a folder, report what was found."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from spoofkit.addons.convert import aasist, classifier
from spoofkit.addons.convert.antideepfake import is_antideepfake
from spoofkit.addons.convert.classifier import is_classifier
from spoofkit.addons.convert.fairseq import Converted, from_fairseq, is_fairseq
from spoofkit.addons.convert.ssl_detectors import from_ssl_detector, is_ssl_detector
from spoofkit.addons.convert.unpickle import check_tensor, load_tensors
from spoofkit.addons.convert.unwrap import network_tensors
from spoofkit.addons.convert.write import (
    Summary,
    write_aasist,
    write_antideepfake,
    write_classifier,
    write_encoder,
    write_ssl_detector,
)
from spoofkit.checksums import folder_sha256
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_json
from spoofkit.models.provenance import (
    ANTI_DEEPFAKE,
    NOT_KNOWN,
    PUBLISHED_FILES,
    Provenance,
    known_provenance,
)
from spoofkit.outputs import is_up_to_date, output_with_own_record

# A safetensors file begins with the length of its JSON header.
SAFETENSORS = re.compile(rb".{8}\{", re.DOTALL)
# What `convert` writes, by its path inside the folder; transformers splits large weights into numbered files.
ENCODER_FILES = (
    r"(pre)?processor_config\.json|(config|provenance|stages)\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
    r"|SHA256SUMS"
)
WRITTEN = re.compile(rf"({ENCODER_FILES})|model\.json|head\.safetensors|encoder(/({ENCODER_FILES}))?")
RAWNET2 = {"bn_before_gru.weight", "fc1_gru.weight", "fc2_gru.weight"}


def convert(
    source: Path,
    out: Path,
    *,
    overwrite: bool = False,
    reuse: bool = False,
    same_as: str | None = None,
    bonafide: str | None = None,
    known: Provenance | None = None,
) -> Summary | None:
    """Convert a published checkpoint to an encoder folder or, if it is a whole detector, to a model folder.

    Args:
        source: The file, whose kind is recognised by its content, never by its name; or the folder of a classifier in
            transformers' format.
        out: Folder to write.
        overwrite: Replace a folder that an earlier conversion wrote; one that holds anything else is never replaced.
        reuse: Skip a folder that was made from the same.
        same_as: Hub id of what the user says is the same model; its licence and training data are recorded as stated by
            the user.
        bonafide: Of a classifier, the label of bona fide, if the names of its labels do not say it.
        known: Origin of the file, where it was fetched by name.

    Returns:
        None if it is up to date.

    Raises:
        SpoofkitError: `out` exists and may not be replaced, or holds `source`; nothing is known of `same_as`, or the
            file cannot be that model; the file is damaged, unsafe, or none of the kinds that can be converted.
    """
    _require_apart(out, source)
    stated = known_provenance(same_as) if same_as else None
    if same_as and stated is None:
        raise SpoofkitError(
            f"--same-as {same_as}: nothing is known of this hub id; leave it out, or name a common model"
        )
    if out.exists() and not out.is_dir():
        raise SpoofkitError(f"{out}: is not a folder, expected one or nothing there; name another, or move it away")
    if overwrite and out.exists() and (reason := _not_converted(out)):
        raise SpoofkitError(
            f"{out}: {reason}, expected an earlier conversion to replace; name another folder, or remove this one "
            "yourself"
        )
    made_from: dict[str, Any] = {"source_sha256": _source_sha256(source), "same_as": same_as}
    if bonafide is not None:
        made_from["bonafide"] = bonafide
    if known is not None:
        made_from["known"] = asdict(known)
    output = output_with_own_record("convert", out, made_from, is_folder=True, is_older=lambda path: True)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        return None
    if source.is_dir():
        return write_classifier(output, source, bonafide, _provenance(source, "transformers'", stated, known))
    if bonafide is not None:
        raise SpoofkitError(f"--bonafide {bonafide}: {source} has no labels, expected a classifier's folder; omit it")
    top = _read(source)
    tensors = network_tensors(top, source)
    if is_fairseq(tensors):
        converted = from_fairseq(tensors, top, source)
        provenance = _provenance(source, "fairseq's or WavLM's", stated, known)
        return write_encoder(
            output, converted, replace(provenance, notes=(*provenance.notes, *_former_task(converted)))
        )
    if is_antideepfake(tensors):
        if stated is not None and replace(stated, source=ANTI_DEEPFAKE.source) != ANTI_DEEPFAKE:
            raise SpoofkitError(
                f"--same-as {same_as}: {source} is built as AntiDeepfake's detectors are, expected the hub id of one "
                "of these, such as nii-yamagishilab/mms-300m-anti-deepfake; name another, or leave it out"
            )
        return write_antideepfake(output, source, tensors, _provenance(source, "AntiDeepfake's", stated, known))
    if stated is not None:
        raise SpoofkitError(
            f"{source}: is no checkpoint of fairseq, WavLM or AntiDeepfake, so --same-as does not apply; leave it out"
        )
    if is_ssl_detector(tensors):
        found = from_ssl_detector(tensors, source)
        provenance = _provenance(source, found.back_end.whose, None, known, may_state=False)
        return write_ssl_detector(output, found, len(tensors), provenance)
    if aasist.is_aasist(tensors):
        return write_aasist(output, source, tensors, _provenance(source, "AASIST's", None, known, may_state=False))
    raise _unknown(tensors, top, source)


def _require_apart(out: Path, source: Path) -> None:
    """Refuse a folder whose replacement would delete the checkpoint itself."""
    place = out.resolve()
    for file in (source.resolve(), source.parent.resolve() / source.name):  # both ends of a link
        if place == file or place in file.parents or file in place.parents:
            how = "is" if place == file else "holds" if place in file.parents else "lies in"
            raise SpoofkitError(f"{out}: {how} {source}, the checkpoint to convert; name another folder")


def _not_converted(folder: Path) -> str | None:
    """Return why a folder is no earlier conversion; None if it is one, or is empty."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not WRITTEN.fullmatch(name):
            return f"holds {name}, which convert does not write"
    if not any(folder.iterdir()):
        return None
    if not any((folder / name).exists() for name in ("provenance.json", "encoder/provenance.json")):
        return "holds no provenance.json, which convert writes"
    record = read_json(folder / "model.json") if (folder / "model.json").exists() else {"converted_from": ""}
    return None if "converted_from" in record else "holds a model that was trained here"


def _unknown(tensors: dict[str, torch.Tensor], top: dict[str, Any], source: Path) -> SpoofkitError:
    """Return the sentence for a file that cannot be converted."""
    if tensors.keys() >= RAWNET2:
        return SpoofkitError(
            f"{source}: is a RawNet2, whose versions of ASVspoof 2021 and ASVspoof 5 have the same tensors but compute "
            "differently, expected a detector that its file tells apart; train the head rawnet2 or rawnet2_asvspoof5"
        )
    first = ", ".join(" ".join(name.split())[:40] for name in sorted(tensors or map(str, top))[:5])
    return SpoofkitError(
        f"{source}: holds {len(tensors)} tensors ({first}), expected a checkpoint of wav2vec 2.0, XLS-R "
        "or HuBERT (fairseq, s3prl), WavLM, AntiDeepfake, AASIST, SSL-AASIST, Nes2Net-X or SLS; other kinds cannot be "
        "converted"
    )


def _read(source: Path) -> dict[str, Any]:
    """Read the top object of a pickle checkpoint, or the tensors of a safetensors file."""
    try:
        with source.open("rb") as file:
            is_safetensors = SAFETENSORS.match(file.read(16)) is not None
        if not is_safetensors:
            return load_tensors(source)
        tensors: dict[str, Any] = load_file(source)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SpoofkitError(f"{source}: cannot be read ({reason}); check the name, or fetch it again") from error
    for name, tensor in tensors.items():
        check_tensor(name, tensor, source)
    return tensors


def _source_sha256(source: Path) -> str:
    """Hash a checkpoint or the folder of a classifier.

    Raises:
        SpoofkitError: a folder that holds something else.
    """
    if not source.is_dir():
        return file_sha256(source)
    if not is_classifier(source):
        raise SpoofkitError(
            f"{source}: is a folder, expected a checkpoint file, or a folder whose config.json names a "
            f"…{classifier.ARCHITECTURE}; an encoder in transformers' format needs no conversion"
        )
    return folder_sha256(source)


def _provenance(
    source: Path, whose: str, stated: Provenance | None, known: Provenance | None = None, may_state: bool = True
) -> Provenance:
    """Return what is known of a file: by its name on the hub, by its hash, by the user's statement, or nothing.

    Args:
        source: The file.
        whose: Whose names and shapes its tensors have, which alone does not tell where they were trained.
        stated: The facts of the hub id of --same-as.
        known: Its origin, where it was fetched by name.
        may_state: Whether --same-as applies to such files.

    Raises:
        SpoofkitError: another model was stated for a published file.
    """
    sha256 = _source_sha256(source)
    provenance = known or PUBLISHED_FILES.get(sha256)
    if provenance is not None and stated is not None:
        raise SpoofkitError(f"{source}: its SHA-256 is that of {provenance.source}; leave --same-as out")
    if provenance is None and stated is not None:
        note = (
            f"that it is {stated.source} was stated (--same-as), not checked; licence and training data are those of it"
        )
        provenance = replace(
            stated, source=f"{source.name} (stated to be {stated.source})", notes=(note, *stated.notes)
        )
    if provenance is None:
        note = (
            f"its tensors are named and shaped as {whose}, but its SHA-256 is that of no published file that spoofkit "
            "knows"
        )
        note += "; --same-as HUB_ID records the facts of a model that you know it to be" if may_state else ""
        provenance = Provenance(source.name, NOT_KNOWN, (), (note,))
    name = "a folder" if source.is_dir() else source.name
    return replace(provenance, notes=(*provenance.notes, f"converted from {name} (sha256 {sha256})"))


def _former_task(converted: Converted) -> tuple[str, ...]:
    fine_tuned = ("the file holds a model trained to transcribe (CTC) after its pre-training",)
    left_out = (f"left out: {len(converted.left_out)} tensors of its former task",)
    return (*(fine_tuned if converted.is_fine_tuned else ()), *(left_out if converted.left_out else ()))
