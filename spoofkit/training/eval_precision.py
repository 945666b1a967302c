"""The precision of evaluations on the development set: chosen at the first one, and kept for all that follow."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from spoofkit.errors import SpoofkitError
from spoofkit.models.precision import faster_precisions
from spoofkit.scoring.precision import AUTO_PRECISION, BOUND, compare
from spoofkit.scoring.scorer import FP32


def require_eval_precision(wanted: str, device: torch.device, is_sharded: bool, begun: Path | None = None) -> None:
    """Refuse a precision in which evaluations would be no faster than in fp32, or could not be made.

    Args:
        wanted: The setting, or the precision in which evaluations began.
        device: Device of the training.
        is_sharded: Whether the encoder's layers are sharded.
        begun: The experiment whose evaluations began in that precision.

    Raises:
        SpoofkitError: the device does not multiply faster in it, or it is bf16 and layers are sharded.
    """
    possible = (FP32, *_candidates(device, is_sharded))
    if wanted in (AUTO_PRECISION, *possible):
        return
    is_for_shards = wanted in faster_precisions(device)
    reason = "which --shard-layers does not allow" if is_for_shards else f"in which this {device.type} is no faster"
    if begun is None:
        raise SpoofkitError(f"eval_precision: found {wanted}, {reason}; expected auto or {' or '.join(possible)}")
    cure = "without that option" if is_for_shards else "on hardware of the kind on which it began"
    raise SpoofkitError(
        f"{begun}: its evaluations began in {wanted}, {reason}; resume {cure}, or start again with --overwrite"
    )


def choose_eval_precision(
    wanted: str, device: torch.device, is_sharded: bool, first_scores: Callable[[str], np.ndarray]
) -> tuple[str, str]:
    """Choose the precision of all evaluations, and say why in words.

    Args:
        wanted: `auto`, or a precision that `require_eval_precision` accepts.
        device: Device of the training.
        is_sharded: Whether the encoder's layers are sharded.
        first_scores: Scores of the first items of the development set in a precision, shape (items or frames,).
    """
    if wanted != AUTO_PRECISION:
        return wanted, "the settings say so"
    candidates = _candidates(device, is_sharded)
    if not candidates:
        return FP32, f"this {device.type} multiplies faster in no other"
    exact_N = first_scores(FP32)
    said = []
    for name in candidates:
        shift = compare({"": exact_N}, {"": first_scores(name)}, None)["shift"]
        said.append(f"{name} shifts scores by {'an unknown part' if shift is None else f'{shift:.2g}'} of their spread")
        if shift is not None and shift <= BOUND:
            return name, said[-1]
    return FP32, f"{', '.join(said)}, more than {BOUND:g}"


def _candidates(device: torch.device, is_sharded: bool) -> tuple[str, ...]:
    # bf16 needs a rounded copy of the encoder, which no process has whole if layers are sharded.
    return tuple(name for name in faster_precisions(device) if not (is_sharded and name == "bf16"))
