"""The verb `export`: from a model folder to one ONNX file that scores waveforms, and the record beside it.

torch's exporter by tracing writes the graph (`dynamo=False`). The newer one by torch.export makes graphs that are as
exact, but takes ten to twenty times as long, needs one package more (onnxscript), and with torch 2.13 bakes the number
of windows of the head `sls` into the graph. The older one is deprecated; the bound of torch in setup.cfg keeps it.
"""

import json
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import spoofkit
from spoofkit.addons.onnx import int8 as eight_bits
from spoofkit.addons.onnx.onnx_file import OPERATORS, SEAL, ZEROS, operators, seal
from spoofkit.addons.onnx.parity import LARGEST_DIFFERENCE, measure_parity, require_parity
from spoofkit.addons.onnx.traceable import traceable
from spoofkit.addons.onnx.with_onnx import FORMAT, OnnxDetector, open_session
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import Manifest, read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path, file_sha256, remove_leftovers, write_json
from spoofkit.machine import command
from spoofkit.models.detector import Detector, detector_sha256, load_detector, require_model_folder
from spoofkit.models.names import find_model
from spoofkit.models.provenance import contamination_warning
from spoofkit.outputs import Output, is_up_to_date, read_json_record, skipped
from spoofkit.stages import facts

OPSET = 17
PACKAGES = ("onnx", "onnxruntime")
MOST_BYTES = 2**31 - 2**24
"""protobuf's limit for one file, less the graph itself."""


def export(
    model: Path,
    out: Path,
    *,
    int8: Path | None = None,
    overwrite: bool = False,
    reuse: bool = False,
) -> Iterator[str]:
    """Write a model folder as one ONNX file, and yield the lines for stdout.

    Args:
        model: Model folder, or `hub:OWNER/MODEL`.
        out: The file to write, `*.onnx`; its record is written beside it, `*.json`.
        int8: Manifest on which the shift of the EER is measured; matrix products are quantised.
        overwrite: Replace an existing file.
        reuse: Skip a file that was made from the same model, in the same precision.

    Raises:
        SpoofkitError: a package is not installed; not a model folder; a network that cannot be exported, or whose
            graph scores otherwise than torch; the output exists.
    """
    _require_packages()
    named = find_model(model)
    model = named.path
    manifest = _check(model, out, int8)
    sidecar = out.with_suffix(".json")
    made_from = {
        "model_sha256": detector_sha256(model),
        "precision": "fp32" if int8 is None else "int8",
        "manifest_sha256": None if manifest is None else file_sha256(manifest.path),
    }
    read = read_json_record(
        "onnx_sha256", lambda record: {name: record.get(name) for name in made_from}, {"onnx_sha256": out}
    )
    if is_up_to_date(Output("export", (out,), sidecar, made_from, read), overwrite=overwrite, reuse=reuse):
        yield skipped(out)
        return
    remove_leftovers(out.parent, re.escape(out.stem))
    detector, model_record = load_detector(model)
    _require_room(model, detector)
    record = made_from | _record(named.name, detector, model_record)
    with atomic_path(out, overwrite=True) as temporary, _removed(temporary.with_suffix(".fp32.onnx")) as fp32:
        trace(model, detector, fp32)
        exported = OnnxDetector(open_session(fp32), record | {"precision": "fp32"})
        parity = measure_parity(detector, exported)
        require_parity(model, parity)
        record |= {"parity": asdict(parity) | {"limit": LARGEST_DIFFERENCE}}
        yield (
            f"parity: scores of {parity.n_utterances} random utterances differ from torch's by "
            f"{parity.largest_difference:.1e} at most"
        )
        if manifest is None:
            fp32.rename(temporary)
        else:
            eight_bits.quantise(fp32, temporary)
            megabytes = (fp32.stat().st_size / 1e6, temporary.stat().st_size / 1e6)
            quantised = OnnxDetector(open_session(temporary), record)
            shift = eight_bits.measure_shift(exported, quantised, manifest, megabytes)
            record |= {"int8": asdict(shift)}
            yield shift.line()
        _write_metadata(temporary, record)
        # The record is written first, so that a kill leaves no model without it.
        write_json(sidecar, record | {"onnx_sha256": file_sha256(temporary)}, overwrite=True)
    yield f"{out}: {out.stat().st_size / 1e6:.1f} MB, {record['score']}, higher = more bona fide"


def trace(model: Path, detector: Detector, path: Path) -> None:
    """Write a detector's graph, for any batch and any length.

    Raises:
        SpoofkitError: the network has a part that ONNX, or the exporter, does not know.
    """
    lengths = (detector.shortest + SAMPLE_RATE, detector.shortest + SAMPLE_RATE // 2)
    example = (0.1 * torch.randn(2, lengths[0], generator=torch.Generator().manual_seed(0)), torch.tensor(lengths))
    try:
        with traceable(), torch.no_grad(), warnings.catch_warnings():
            # Warnings of its deprecation, and of constants in the graph: the comparison shows whether those matter.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                detector,
                example,
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["wave", "n_samples"],
                output_names=["score"],
                dynamic_axes={
                    "wave": {0: "batch", 1: "samples"},
                    "n_samples": {0: "batch"},
                    "score": {0: "batch"},
                },
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SpoofkitError(
            f"{model}: cannot be exported, torch's exporter does not know a part of this network ({reason}); "
            "score with the model folder instead"
        ) from error
    unknown = sorted(operators(path) - OPERATORS)
    if unknown:
        raise SpoofkitError(
            f"{model}: cannot be exported, its graph would hold the operator {unknown[0]!r}, which `spoofkit score` "
            "does not support; score with the model folder instead"
        )


def _require_packages() -> None:
    try:
        for name in PACKAGES:
            import_module(name)
    except ImportError as error:
        raise SpoofkitError(
            f"export: needs the packages onnx and onnxruntime ({error}); run `tools/setup.sh --extras onnx`"
        ) from error


def _check(model: Path, out: Path, int8: Path | None) -> Manifest | None:
    """Refuse what cannot be exported or measured, and return the manifest, if there is one."""
    if out.suffix != ".onnx":
        raise SpoofkitError(f"{out}: expected the name of an ONNX file, such as {out.with_suffix('.onnx')}")
    require_model_folder(model)
    if int8 is None:
        return None
    manifest = read_keyed_manifest(int8)
    eight_bits.require_both_keys(manifest)
    return manifest


def _require_room(model: Path, detector: Detector) -> None:
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in detector.state_dict().values())
    if n_bytes > MOST_BYTES:
        raise SpoofkitError(
            f"{model}: has {n_bytes / 1e9:.1f} GB of weights, an ONNX file holds at most 2 GB; score with the model "
            "folder"
        )


@contextmanager
def _removed(path: Path) -> Iterator[Path]:
    """Yield a path that is removed when the block ends."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write_metadata(path: Path, record: dict[str, Any]) -> None:
    import onnx

    graph = onnx.load(path)
    # The file may be passed on, so names of local folders are only in the record beside it, and so is when and where it
    # was trained: the same training gives the same file.
    carried = record | {"stages": facts(record["stages"])}
    fields = {
        name: json.dumps(value, allow_nan=False) for name, value in carried.items() if name not in ("model", "command")
    }
    onnx.helper.set_model_props(graph, fields | {SEAL: json.dumps(ZEROS.decode())})
    onnx.save(graph, path)
    seal(path)


def _record(model: str, detector: Detector, model_record: dict[str, Any]) -> dict[str, Any]:
    provenance = detector.encoder.provenance
    return {
        "format": FORMAT,
        "score": f"{detector.score_meaning}, not calibrated",
        "polarity": "higher = more bona fide",
        "model": model,
        "head": detector.kind,
        "stages": detector.encoder.stages,
        "provenance": None if provenance is None else asdict(provenance),
        "contamination": contamination_warning(provenance),
        "inputs": "wave (B, S) float32, 16 kHz mono, zeros behind the end; n_samples (B) int64",
        "sample_rate": SAMPLE_RATE,
        "input_policy": str(model_record.get("input_policy", "whole")),
        "shortest": detector.shortest,
        "longest": detector.encoder.longest,
        "opset": OPSET,
        "versions": {"spoofkit": spoofkit.__version__, "python": sys.version.split()[0]}
        | {name: version(name) for name in ("torch", "transformers", *PACKAGES)},
        "command": command(),
    }
