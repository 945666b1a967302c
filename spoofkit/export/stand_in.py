"""An exported model in the place of a model folder: for code that scores with a Detector, torch tensors in and out."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from spoofkit.export.runtime import OnnxDetector, load_onnx
from spoofkit.models.detector import Detector, repeated
from spoofkit.models.provenance import Provenance


class ExportedDetector(Detector):
    """A Detector without weights, whose forward is onnxruntime's, on the CPU; it cannot be trained or saved."""

    def __init__(self, exported: OnnxDetector) -> None:
        nn.Module.__init__(self)  # not Detector's: there is neither encoder nor head to build
        record = exported.record
        found = record["provenance"]
        provenance = found and Provenance(**{name: _plain(value) for name, value in found.items()})
        self.exported = exported
        self.encoder: Any = SimpleNamespace(longest=exported.longest, provenance=provenance)
        self.repeat_to = exported.repeat_to
        self.shortest = exported.shortest

    @property
    def score_meaning(self) -> str:
        """See Detector."""
        return str(self.exported.record["score"]).removesuffix(", not calibrated")

    def forward(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
        """See Detector; one by one in int8, where a batch has one scale."""
        if self.repeat_to is not None:
            wave_BS, n_samples_B = repeated(wave_BS, n_samples_B, self.repeat_to)
        wave, n_samples = wave_BS.cpu().numpy(), n_samples_B.cpu().numpy()
        if self.exported.record["precision"] == "int8":
            rows = zip(wave, n_samples, strict=True)
            scores = [self.exported.score_padded(row_S[None, :n], np.array([n])) for row_S, n in rows]
            return torch.from_numpy(np.concatenate(scores))
        return torch.from_numpy(self.exported.score_padded(wave, n_samples))


def load_exported(path: Path, input_policy: str | None = None) -> tuple[Detector, dict[str, Any]]:
    """Open an exported model as load_detector opens a model folder.

    Args:
        path: What `spoofkit export` wrote.
        input_policy: `whole`, `first:N` or `repeat:N`; none: as the model says.

    Returns:
        What scores, and the record in the file's metadata; samples are cut to `first:N` by who reads the audio.

    Raises:
        SpoofkitError: as load_onnx.
    """
    exported = load_onnx(path, input_policy)
    return ExportedDetector(exported).eval(), exported.record


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
