"""The score of a whole recording that a model with both heads gives, beside its regions.

It is the score of `spoofkit score`: from the same pass of the encoder as the frames; for a recording longer than half a
minute, from the windows of `score`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import detector_sha256
from spoofkit.models.frame_model import FrameModel
from spoofkit.scoring.decisions import DecisionOptions, Decisions, read_decisions, require_fitted_on
from spoofkit.scoring.recordings import Result
from spoofkit.terminal import say

OVER_WINDOWS = "mean"
"""One of `spoofkit.scoring.windows.OVER`."""


@dataclass(frozen=True)
class Judge:
    """How the scores of an utterance head are written."""

    model_sha256: str
    """Hash of the model that `score` records."""
    meaning: str
    decisions: Decisions | None
    """None: scores are not calibrated, and there is no decision."""

    def record(self, result: Result) -> dict[str, Any]:
        """Return the entry `utterance` in the JSON of a recording."""
        assert result.score is not None
        record: dict[str, Any] = {"score": result.score, "meaning": self.meaning, "model_sha256": self.model_sha256}
        if self.decisions is not None:
            record |= self.decisions.decide(result.score) | {"calibration_sha256": self.decisions.sha256}
        if result.windows:
            record |= {"over_windows": OVER_WINDOWS, "windows": [window.known() for window in result.windows]}
        return record


def make_judge(folder: Path, model: FrameModel, calibration: Path | None) -> Judge | None:
    """Read the calibration for the utterance head of a model; return None if it has no such head.

    Args:
        folder: Folder of the model.
        model: The model.
        calibration: Calibration that `spoofkit calibrate` made for this model; None: scores are not calibrated.

    Raises:
        SpoofkitError: a calibration for a model without an utterance head, or one that is not for this model alone.
    """
    if model.detector is None:
        if calibration is not None:
            raise SpoofkitError(
                f"--calibration: needs an utterance head, but {folder} has only a frame head; remove the option, or "
                "use a model with both heads (`spoofkit posttrain EXP --onto MODEL` makes one)"
            )
        return None
    meaning = f"{model.detector.score_meaning}, higher = more bona fide; "
    meaning += "not calibrated" if calibration is None else "llr: log-likelihood ratio"
    judge = Judge(detector_sha256(folder), meaning, read_decisions(calibration, DecisionOptions()))
    if judge.decisions is not None:
        require_fitted_on(judge.decisions, {"model_sha256": judge.model_sha256}, folder)
        if judge.decisions.unchecked:
            say(f"spoofkit: warning: {judge.decisions.unchecked}")
    return judge


def describe_score(record: dict[str, Any]) -> str:
    """Describe the score of a recording in words.

    >>> describe_score({"score": 1.23456})
    'score 1.2346'
    """
    words = f"score {record['score']:.4f}"
    if "llr" in record:
        words += (
            f", LLR {record['llr']:.2f}, probability of bona fide {record['bonafide_probability']:.3f} (spoof prior "
            f"{record['spoof_prior']:g}): {record['decision']}"
        )
    return words
