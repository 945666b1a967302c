"""What a model with both heads says of a whole recording, beside its regions.

The score is that of `spoofkit score`: from the pass of the encoder that gives the frames, and of a recording longer
than half a minute from the windows of `score`.
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
    """How the scores of an utterance head are read and written."""

    model_sha256: str
    """As `score` knows the model."""
    meaning: str
    decisions: Decisions | None
    """None: scores are not calibrated, and there is no decision."""

    def record(self, result: Result) -> dict[str, Any]:
        """Return what stands in the JSON of a recording that has a score."""
        assert result.score is not None
        record: dict[str, Any] = {"score": result.score, "meaning": self.meaning, "model_sha256": self.model_sha256}
        if self.decisions is not None:
            record |= self.decisions.decide(result.score) | {"calibration_sha256": self.decisions.sha256}
        if result.windows:
            record |= {"over_windows": OVER_WINDOWS, "windows": [window.known() for window in result.windows]}
        return record


def make_judge(folder: Path, model: FrameModel, calibration: Path | None) -> Judge | None:
    """How scores of a model's utterance head are read; none if it has none.

    Args:
        folder: The model's.
        model: Read from it.
        calibration: What `spoofkit calibrate` made of the scores of this model; none: scores stay as they are.

    Raises:
        SpoofkitError: a calibration without an utterance head, or none of a single system.
    """
    if model.detector is None:
        if calibration is not None:
            raise SpoofkitError(
                f"--calibration: is about scores of utterances, but {folder} has a frame head alone; leave it out, or "
                "name a model with both (`spoofkit posttrain EXP --onto MODEL` makes one)"
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


def in_words(record: dict[str, Any]) -> str:
    """What is said of a recording, for a person.

    >>> in_words({"score": 1.23456})
    'score 1.2346'
    """
    words = f"score {record['score']:.4f}"
    if "llr" in record:
        words += (
            f", LLR {record['llr']:.2f}, probability of bona fide {record['bonafide_probability']:.3f} (spoof prior "
            f"{record['spoof_prior']:g}): {record['decision']}"
        )
    return words
