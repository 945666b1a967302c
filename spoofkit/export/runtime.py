"""Scoring with an exported model: onnxruntime and numpy, no torch and no other file than the ONNX one.

Its inputs are `wave` (B, S), float32 at 16 kHz, each row padded with zeros at the end, and `n_samples` (B), int64: the
samples that are the utterance's own; its output is `score` (B). What else one has to know stands in the file's
metadata, each field as JSON.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.errors import SpoofkitError

FORMAT = 1
BATCH_SAMPLES = 8 * 32_000  # of a padded batch: small ones stay in a CPU's caches
FIELDS = ("format", "score", "polarity", "model_sha256", "input_policy", "shortest", "longest", "precision", "versions")
"""What the metadata must hold; there is more."""


@dataclass(frozen=True)
class OnnxDetector:
    """An exported detector: a score for every utterance, higher means more bona fide."""

    session: Any
    """onnxruntime's InferenceSession."""
    record: dict[str, Any]
    """The metadata: what a score means, of which model it is, what the export measured."""
    first_samples: int | None
    """So many samples from the start of each utterance are scored; none: all."""
    repeat_to: int | None
    """Samples to which shorter utterances are repeated from their start; none: they are not."""

    @property
    def shortest(self) -> int:
        """Fewest samples of an utterance."""
        return 1 if self.repeat_to is not None else int(self.record["shortest"])

    @property
    def longest(self) -> int | None:
        """Most samples of an utterance that the graph can place; none: no limit."""
        return None if self.record["longest"] is None else int(self.record["longest"])

    def score(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Score utterances, the same whatever else is scored with them.

        Args:
            waves: float32 arrays of shape (samples,), 16 kHz mono.

        Returns:
            float32 scores in the order of `waves`, shape (utterances,).

        Raises:
            SpoofkitError: a wave of another shape, NaN in it, too short or too long; a score that is not finite.
        """
        prepared = [self._prepare(number, wave) for number, wave in enumerate(waves)]
        scores = np.empty(len(prepared), dtype=np.float32)
        # In int8 a batch has one scale for all its activations.
        budget = 0 if self.record["precision"] == "int8" else BATCH_SAMPLES
        for rows in _batches([wave.size for wave in prepared], budget):
            scores[rows] = self.score_padded(*pad([prepared[row] for row in rows]))
        unfit = np.flatnonzero(~np.isfinite(scores))
        if unfit.size:
            raise SpoofkitError(
                f"wave {unfit[0]}: its score is {scores[unfit[0]]}, expected a finite number; check the audio and the "
                "model"
            )
        return scores

    def score_padded(self, wave_BS: np.ndarray, n_samples_B: np.ndarray) -> np.ndarray:
        """Scores of one batch as the graph takes it, shape (B,); nothing is cut, repeated or checked."""
        (score_B,) = self.session.run(["score"], {"wave": wave_BS, "n_samples": n_samples_B})
        return np.asarray(score_B)

    def _prepare(self, number: int, wave: np.ndarray) -> np.ndarray:
        wave_S = np.asarray(wave, dtype=np.float32)
        if wave_S.ndim != 1 or not wave_S.size or not np.isfinite(wave_S).all():
            raise SpoofkitError(
                f"wave {number}: found shape {wave_S.shape}, expected one dimension of finite samples, 16 kHz mono"
            )
        wave_S = wave_S[: self.first_samples]
        if self.repeat_to is not None:
            wave_S = np.resize(wave_S, self.repeat_to)  # numpy's resize repeats from the start
        if wave_S.size < self.shortest or (self.longest is not None and wave_S.size > self.longest):
            limits = f"at least {self.shortest}" + ("" if self.longest is None else f" and at most {self.longest}")
            raise SpoofkitError(f"wave {number}: has {wave_S.size} samples, the model needs {limits}; leave it out")
        return wave_S


def load_onnx(path: Path | str, input_policy: str | None = None, threads: int | None = None) -> OnnxDetector:
    """Open an exported model.

    Args:
        path: What `spoofkit export` wrote.
        input_policy: `whole`, `first:N` or `repeat:N`; none: as the model says.
        threads: Of onnxruntime; none: as many as this process has cores.

    Raises:
        SpoofkitError: onnxruntime is not installed; a file that is missing, damaged, or not of spoofkit.
    """
    session = open_session(path, threads)
    found = session.get_modelmeta().custom_metadata_map
    try:
        record = {name: json.loads(value) for name, value in found.items()}
        if [name for name in FIELDS if name not in record] or record["format"] != FORMAT:
            raise ValueError
    except ValueError as error:
        raise SpoofkitError(
            f"{path}: has no record of `spoofkit export` of this version (format {FORMAT}) in its metadata; "
            "export the model folder again"
        ) from error
    return detector_of(session, record, input_policy)


def detector_of(session: Any, record: dict[str, Any], input_policy: str | None = None) -> OnnxDetector:
    """A session and what is known of it, as a detector."""
    return OnnxDetector(session, record, *parse_input_policy(input_policy or record["input_policy"]))


def open_session(path: Path | str, threads: int | None = None) -> Any:
    """onnxruntime's session of a file, on the CPU.

    Raises:
        SpoofkitError: onnxruntime is not installed, or cannot open the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SpoofkitError(
            f"{path}: scoring with an ONNX file needs the package onnxruntime; run `pip install 'spoofkit[onnx]'`"
        ) from error
    if not Path(path).is_file():
        raise SpoofkitError(f"{path}: no such file, expected what `spoofkit export` wrote; check the name")
    options = onnxruntime.SessionOptions()
    # Left to itself it takes every core of the machine, also those that a scheduler gave to others.
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base class of their own
        reason = " ".join(str(error).split())[:160]
        raise SpoofkitError(f"{path}: cannot be opened by onnxruntime ({reason}); export the model again") from error


def parse_input_policy(policy: str) -> tuple[int | None, int | None]:
    """Samples from the start of each utterance that are read, and what shorter ones are repeated to; none: all, not.

    Raises:
        SpoofkitError: a policy that is none.

    >>> parse_input_policy("repeat:64600")
    (64600, 64600)
    """
    if policy == "whole":
        return None, None
    name, _, number = policy.partition(":")
    if name in ("first", "repeat") and number.isdigit() and int(number) > 0:
        return int(number), int(number) if name == "repeat" else None
    raise SpoofkitError(f"--crop {policy}: expected whole, first:N or repeat:N, such as first:64600")


def pad(waves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """wave_BS, padded with zeros at the end, and n_samples_B.

    >>> pad([np.ones(2), np.ones(1)])[0].tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    n_samples_B = np.array([wave.size for wave in waves], dtype=np.int64)
    wave_BS = np.zeros((len(waves), n_samples_B.max()), dtype=np.float32)
    for row_S, wave_S in zip(wave_BS, waves, strict=True):
        row_S[: wave_S.size] = wave_S
    return wave_BS, n_samples_B


def _batches(lengths: list[int], budget_samples: int) -> list[list[int]]:
    """Numbers of utterances that are scored together, longest first, so that little of a batch is padding."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget_samples:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
