"""The interface of a model that scores: padded waves in, scores out.

`with_torch` implements it for a model folder, the addon `onnx` for an exported file. Nothing else in this package knows
which of the two it has, and neither is imported before it is needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spoofkit.data.frames import FrameGeometry
from spoofkit.errors import SpoofkitError

if TYPE_CHECKING:
    from spoofkit.models.frame_model import FrameModel

FP32 = "fp32"
CPU_BUDGET_SAMPLES = 8 * 32_000  # small batches stay in a CPU's caches


class HeadScores(NamedTuple):
    """Scores of a model's heads for a batch of B recordings, float32, higher = more bona fide."""

    utterance_B: np.ndarray | None = None
    """None: the model has no utterance head."""
    frames: Sequence[np.ndarray] | None = None
    """Frame scores of each recording, shape (frames,); None: the model has no frame head."""


ScorePadded = Callable[[np.ndarray, np.ndarray], HeadScores]
"""Scores `wave_BS` (float32, 16 kHz, padded with zeros at the end) and `n_samples_B` (int64) in one pass of the
encoder. Raises SpoofkitError if memory does not suffice."""


@dataclass(frozen=True)
class Scorer:
    """A model on its device, and what is known of it."""

    score_padded: ScorePadded
    shortest: int
    """Fewest samples of an utterance."""
    longest: int | None
    """Most samples of an utterance; None: no limit."""
    budget_samples: int
    """Most samples in a padded batch; 0: every utterance alone."""
    n_together: int
    """Number of recordings of unknown length that are read before they are sorted by length into batches."""
    n_decoders: int
    """Default number of threads that decode: as many as keep the device busy."""
    meaning: str
    """What its score is, in words."""
    device: str
    precision: str
    """`fp32`, `tf32`, `bf16`; of an exported model also `int8`."""
    runtime: dict[str, str]
    """Name and version of the library that computes: another one may give other last digits."""
    faster: tuple[str, ...] = ()
    """Precisions in which its device multiplies faster than in fp32, the fastest first."""
    in_precision: Callable[[str], ScorePadded] | None = None
    """Returns `score_padded` in a precision, or raises SpoofkitError if the device does not have it; None: the
    precision is that of the model's file."""
    has_utterance_head: bool = True
    geometry: FrameGeometry | None = None
    """Geometry of its frames; None: it has no frame head."""
    read_frame_model: "Callable[[], FrameModel] | None" = None
    """Reads the frame head beside the model, onto the same encoder; None: there is none."""
    input_policy: str = "whole"
    """Which samples of an utterance the model takes: see `parse_input_policy`."""
    record: dict[str, Any] = field(default_factory=dict)
    """What the record of its scores says of the model."""


def parse_input_policy(policy: str) -> tuple[int | None, int | None]:
    """Parse a policy into how many samples are read from the start, and to how many shorter utterances are repeated.

    Each is None where that does not happen.

    Raises:
        SpoofkitError: an unknown policy.

    >>> parse_input_policy("repeat:64600")
    (64600, 64600)
    """
    if policy == "whole":
        return None, None
    name, _, number = policy.partition(":")
    if name in ("first", "repeat") and number.isascii() and number.isdigit() and int(number) > 0:
        return int(number), int(number) if name == "repeat" else None
    raise SpoofkitError(f"--crop {policy}: expected whole, first:N or repeat:N, such as first:64600")


def pad(waves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pad waves with zeros at the end.

    Returns:
        `wave_BS` and `n_samples_B`.

    >>> pad([np.ones(2), np.ones(1)])[0].tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    n_samples_B = np.array([wave.size for wave in waves], dtype=np.int64)
    wave_BS = np.zeros((len(waves), n_samples_B.max()), dtype=np.float32)
    for row_S, wave_S in zip(wave_BS, waves, strict=True):
        row_S[: wave_S.size] = wave_S
    return wave_BS, n_samples_B
