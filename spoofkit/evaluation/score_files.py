"""The verb `score`: from a model folder and a manifest or loose audio to a score file and the record beside it."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import torch

import spoofkit
from spoofkit.data.audio import EXTENSIONS, probe
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.scores import HEADER, write_scores
from spoofkit.evaluation.scoring import score_manifest
from spoofkit.files import file_sha256, is_up_to_date, read_json, refuse_existing, text_sha256, write_json
from spoofkit.models.detector import Detector, folder_sha256, load_detector
from spoofkit.models.device import choose_device
from spoofkit.models.provenance import contamination_warning


def score_inputs(
    model: Path, inputs: list[Path], *, crop: str, device: str, workers: int, overwrite: bool, reuse: bool
) -> Iterator[str]:
    """Score what the command line names, and yield the lines for stdout.

    Args:
        model: Model folder.
        inputs: A manifest and the score file; or audio files and folders, and possibly a score file last.
        crop: `whole` or `first:N`.
        device: Name of the device.
        workers: Loader processes.
        overwrite: Replace an existing score file.
        reuse: Keep a score file made by the same model from the same manifest.

    Raises:
        SpoofkitError: an input is missing or not what was expected, or the output exists.
    """
    first_samples = _parse_crop(crop)
    chosen = choose_device(device)
    detector, record = load_detector(model)
    manifest, out = _resolve(inputs)
    made_from = (
        {}
        if out is None
        else {
            "model_sha256": folder_sha256(model),
            "manifest_sha256": _identity(manifest),
            "input_policy": crop,
        }
    )
    if out is not None:
        if is_up_to_date(out, made_from, _made_from, reuse):
            yield f"{out}: kept as it was"
            return
        refuse_existing(out, overwrite)
        _refuse_foreign(out.with_suffix(".json"))
    scores = score_manifest(detector.to(chosen), manifest, chosen, first_samples=first_samples, workers=workers)
    ids = manifest.table["utt_id"].to_list()
    if out is None:
        yield HEADER
        yield from (f"{utt_id}\t{value:.9g}" for utt_id, value in zip(ids, scores, strict=True))
        return
    write_scores(out, ids, scores, overwrite=True)
    made_by = _record(model, manifest, chosen, detector, record)
    write_json(out.with_suffix(".json"), made_from | {"scores_sha256": file_sha256(out)} | made_by, overwrite=True)
    yield f"{out}: {len(ids):,} scores, higher = more bona fide"


def _parse_crop(crop: str) -> int | None:
    if crop == "whole":
        return None
    name, _, number = crop.partition(":")
    if name == "first" and number.isdigit() and int(number) > 0:
        return int(number)
    raise SpoofkitError(f"--crop {crop}: expected whole or first:N, such as first:64600")


def _resolve(inputs: list[Path]) -> tuple[Manifest, Path | None]:
    """The manifest to score, made up for loose audio, and the score file to write if one is named."""
    first, *others = inputs
    if first.suffix == ".tsv":
        if len(others) != 1 or others[0].suffix != ".tsv":
            found = ", ".join(map(str, others)) or "nothing"
            raise SpoofkitError(
                f"{first}: a manifest is followed by the score file to write, such as scores/eval.tsv; found {found}"
            )
        return read_manifest(first), others[0]
    out = inputs[-1] if inputs[-1].suffix == ".tsv" else None
    return _manifest_of_audio(inputs[:-1] if out else inputs), out


def _manifest_of_audio(inputs: list[Path]) -> Manifest:
    files: dict[str, Path] = {}
    for path in inputs:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            if not inside:
                raise SpoofkitError(f"{path}: no audio files inside, expected some of {', '.join(EXTENSIONS)}")
        else:
            inside = [path]
        files |= {str(file): file for file in inside}
    lengths = [probe(file).n_samples for file in files.values()]
    table = pl.DataFrame({"utt_id": list(files), "path": list(files), "n_samples": lengths}).sort("utt_id")
    blank = [pl.lit("-").alias(name) for name in ("key", "speaker", "attack", "codec")]
    return Manifest(Path("-"), Path(), table.with_columns(blank))


def _identity(manifest: Manifest) -> str:
    if manifest.path != Path("-"):
        return file_sha256(manifest.path)
    return text_sha256("\n".join(f"{path} {file_sha256(path)}" for path in manifest.table["path"]))


def _made_from(out: Path) -> dict[str, Any]:
    """What an existing score file was made from; nothing if its record is missing or of other scores."""
    sidecar = out.with_suffix(".json")
    record = read_json(sidecar) if sidecar.exists() else None
    if not isinstance(record, dict) or record.get("scores_sha256") != file_sha256(out):
        return {}
    return {name: record.get(name) for name in ("model_sha256", "manifest_sha256", "input_policy")}


def _refuse_foreign(sidecar: Path) -> None:
    """The record must not replace somebody else's JSON, such as the eval.json of `spoofkit evaluate`."""
    if sidecar.exists() and "scores_sha256" not in read_json(sidecar):
        raise SpoofkitError(
            f"{sidecar}: is not the record of a score file and would be replaced by one; name other scores"
        )


def _record(
    model: Path, manifest: Manifest, device: torch.device, detector: Detector, record: dict[str, Any]
) -> dict[str, Any]:
    provenance = detector.encoder.provenance
    return {
        "polarity": "higher = more bona fide",
        "score": f"{detector.score_meaning}, not calibrated",
        "provenance": None if provenance is None else asdict(provenance),
        "contamination": contamination_warning(provenance),
        "model": str(model),
        "manifest": str(manifest.path),
        "partial": manifest.partial,
        "n_trials": manifest.table.height,
        "precision": "fp32",
        "device": str(device),
        "settings": record.get("settings"),
        "versions": {"spoofkit": spoofkit.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        "command": ["spoofkit", *sys.argv[1:]],
    }
