"""Scoring with an exported model: onnxruntime and numpy, without torch and without any file but the ONNX one.

Its inputs are `wave` (B, S), float32 at 16 kHz, each row padded with zeros at the end, and `n_samples` (B), int64: the
samples that are the utterance's own; its output is `score` (B). What else one has to know stands in the file's
metadata, each field as JSON.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.addons.onnx.onnx_file import SEAL, require_own
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256
from spoofkit.machine import cpu_name
from spoofkit.processes import World
from spoofkit.scoring.scorer import CPU_BUDGET_SAMPLES, HeadScores, Scorer, parse_input_policy
from spoofkit.stages import NOT_RECORDED, are_stages
from spoofkit.terminal import say

FORMAT = 2
"""Format of the metadata. Files of format 1 have no checksum."""
_TEXT, _KNOWN = (str,), (dict, type(None))
FIELDS = {
    "format": (int,), "score": _TEXT, "polarity": _TEXT, "model_sha256": _TEXT, "provenance": _KNOWN,
    "contamination": (str, type(None)), "input_policy": _TEXT, "shortest": (int,), "longest": (int, type(None)),
    "precision": _TEXT, "versions": (dict,),
}  # fmt: skip
"""Required entries of the metadata, and their types."""
_warned: set[str] = set()


@dataclass(frozen=True)
class OnnxDetector:
    """An exported detector: a score for every utterance, higher means more bona fide."""

    session: Any
    """onnxruntime's InferenceSession."""
    record: dict[str, Any]
    """The metadata: the meaning of a score, the model, the measurements of the export."""

    @property
    def longest(self) -> int | None:
        """Largest number of samples of an utterance; None for no limit."""
        return None if self.record["longest"] is None else int(self.record["longest"])

    @property
    def budget_samples(self) -> int:
        """Largest number of samples in a padded batch; 0 in int8, where a batch would share one scale."""
        return 0 if self.record["precision"] == "int8" else CPU_BUDGET_SAMPLES

    def score_padded(self, wave_BS: np.ndarray, n_samples_B: np.ndarray) -> np.ndarray:
        """Score one batch in the graph's own form, shape (B,); nothing is cut, repeated or checked.

        Raises:
            SpoofkitError: onnxruntime fails, usually for lack of memory.
        """
        try:
            (score_B,) = self.session.run(["score"], {"wave": wave_BS, "n_samples": n_samples_B})
        except Exception as error:  # its exceptions have no base class of their own
            raise SpoofkitError(
                f"onnxruntime cannot score {wave_BS.shape[0]} x {wave_BS.shape[1]} samples ({_reason(error)}); give a "
                "shorter --window or --crop first:N"
            ) from error
        score_B = np.asarray(score_B)
        if score_B.shape != (len(wave_BS),) or score_B.dtype != np.float32:
            raise SpoofkitError(
                f"the exported model gives {score_B.dtype} of shape {score_B.shape} for {len(wave_BS)} utterances, "
                "expected a float32 score each; export the model folder again"
            )
        return score_B


def load_onnx(path: Path | str, threads: int | None = None) -> OnnxDetector:
    """Open an exported model.

    Args:
        path: What `spoofkit export` wrote.
        threads: Threads of onnxruntime. Default: OMP_NUM_THREADS, or the number of cores of this process.

    Raises:
        SpoofkitError: onnxruntime is not installed; a file that is missing, damaged, or not of spoofkit.
    """
    session = open_session(path, threads)
    found = session.get_modelmeta().custom_metadata_map
    try:
        record = {name: json.loads(value) for name, value in found.items()}
        wrong = [name for name, kinds in FIELDS.items() if name not in record or type(record[name]) not in kinds]
        if wrong or not are_stages(record.get("stages", [])):
            raise ValueError
        if record["format"] != (FORMAT if record.pop(SEAL, None) else FORMAT - 1):
            raise ValueError
        parse_input_policy(record["input_policy"])
        names = [[one.name for one in ends] for ends in (session.get_inputs(), session.get_outputs())]
        if names != [["wave", "n_samples"], ["score"]]:
            raise ValueError
    except (ValueError, RecursionError, SpoofkitError) as error:
        raise SpoofkitError(
            f"{path}: has no record of `spoofkit export` of this version (format {FORMAT}) in its metadata; "
            "export the model folder again"
        ) from error
    if record["format"] != FORMAT and str(path) not in _warned:
        _warned.add(str(path))
        say(f"{path}: has no checksum, so damage to it would not be detected; export it again")
    return OnnxDetector(session, record)


def scorer_of(detector: OnnxDetector) -> Scorer:
    """Make a scorer of an exported detector; the reader of the audio applies the input policy."""
    import onnxruntime

    record = detector.record
    return Scorer(
        lambda wave_BS, n_samples_B: HeadScores(detector.score_padded(wave_BS, n_samples_B)),
        shortest=int(record["shortest"]),
        longest=detector.longest,
        budget_samples=detector.budget_samples,
        n_together=1,
        n_decoders=2,
        meaning=str(record["score"]).removesuffix(", not calibrated"),
        device="cpu",
        precision=str(record["precision"]),
        runtime={"onnxruntime": onnxruntime.__version__},
        input_policy=str(record["input_policy"]),
        record={
            "provenance": record["provenance"],
            "contamination": record["contamination"],
            "exported_from_sha256": record["model_sha256"],
            "stages": record.get("stages", [{"stage": NOT_RECORDED}]),
            "hardware": cpu_name(),
        },
    )


def require_model(path: Path) -> None:
    """Refuse a path that is no file.

    Raises:
        SpoofkitError: it does not exist.
    """
    if not path.is_file():
        raise SpoofkitError(f"{path}: no such file, expected what `spoofkit export` wrote; check the name")


def model_sha256(path: Path) -> str:
    """Return the hash by which a score file identifies the model."""
    return file_sha256(path)


def input_policy(path: Path) -> str:
    """Return the input policy that a model states."""
    return str(load_onnx(path).record["input_policy"])


def load_scorer(path: Path, device: str, _: World) -> Scorer:
    """Open an exported model to score with it.

    Args:
        path: What `spoofkit export` wrote.
        device: `auto` or `cpu`.

    Raises:
        SpoofkitError: another device, or see `load_onnx`.
    """
    if device not in ("auto", "cpu"):
        raise SpoofkitError(
            f"--device {device}: an exported model is scored on the CPU, expected auto or cpu; score with the model "
            "folder to use another device"
        )
    return scorer_of(load_onnx(path))


def open_session(path: Path | str, threads: int | None = None) -> Any:
    """Open onnxruntime's session of a file, on the CPU.

    Raises:
        SpoofkitError: onnxruntime is not installed, or cannot open the file; or see `require_own`.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SpoofkitError(
            f"{path}: scoring with an ONNX file needs the package onnxruntime; run `tools/setup.sh --extras onnx`"
        ) from error
    require_model(Path(path))
    require_own(Path(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _n_threads()
    options.add_session_config_entry(
        "session.load_model_format", "ONNX"
    )  # the format that was checked, whatever its name
    options.log_severity_level = 4  # errors are raised as well
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base class of their own
        raise SpoofkitError(
            f"{path}: cannot be opened by onnxruntime ({_reason(error)}); export the model again"
        ) from error


def _n_threads() -> int:
    """Return the number of threads as torch does: by default onnxruntime would use cores that this process may not."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else len(os.sched_getaffinity(0))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
