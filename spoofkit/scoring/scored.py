"""What is said of a recording that was scored: score, log-likelihood ratio, decision, windows; or why it has no score.

Every output is made of this record: tables, lines of JSON (`rows`), and what Python callers get.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.signal import LEAST_SIGNAL_SECONDS
from spoofkit.scoring.decisions import Decisions
from spoofkit.scoring.recordings import Reading, Recording, Result, label_of
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.stream import in_chunks, score_recordings
from spoofkit.scoring.windows import WindowScore


@dataclass(frozen=True, slots=True)
class ScoredRecording:
    """The score of a recording, or of one of its channels; or the reason why it has none."""

    file: str
    """Name of the file; `wave` if it was in memory."""
    channel: int | None = None
    """Number of the channel, from 1; None: the mean of all, or the only one."""
    score: float | None = None
    """The detector's score, higher = more bona fide, not calibrated; None: see `error`."""
    llr: float | None = None
    """Log-likelihood ratio of bona fide to spoof, in nats; None: there is no calibration."""
    bonafide_probability: float | None = None
    """Probability of bona fide, at the prior `spoof_prior`; None: there is no calibration."""
    spoof_prior: float | None = None
    decision: str | None = None
    """`accept`, `reject` or `abstain`; None: there is neither a calibration nor a threshold."""
    seconds: float = 0.0
    """Seconds that were scored, from the start."""
    speech_seconds: float | None = None
    """Seconds of speech that were scored; None: speech was not measured."""
    windows: tuple[WindowScore, ...] = ()
    """Windows of a recording that was cut, in their order."""
    remarks: tuple[str, ...] = ()
    error: str = ""
    """Why there is no score, in a sentence; empty if there is one."""

    @property
    def reason(self) -> str:
        """The error without what it begins with: the name of the recording, or of the channel."""
        return self.error.removeprefix(f"{self.file}: ").removeprefix(f"{label_of(self.file, self.channel)}: ")


def score_loose(
    scorer: Scorer,
    recordings: Iterable[Recording],
    reading: Reading,
    decisions: Decisions | None,
    *,
    n_together: int | None = None,
    workers: int = 0,
) -> Iterator[ScoredRecording]:
    """Score recordings that no list requires, in their order, while they are read.

    Args:
        scorer: The model.
        recordings: Taken as they come, some ahead of what is yielded.
        reading: What is read of each.
        decisions: How scores are decided; None: they are not.
        n_together: Number of recordings that are sorted by length into batches. Default: the model's.
        workers: Threads that decode. Default: as many as keep the device busy.

    Yields:
        One for each recording, or for each of its channels that is scored.
    """
    chunks = in_chunks(recordings, n_together or scorer.n_together)
    for results in score_recordings(scorer, chunks, reading, n_threads=workers):
        for result in results:
            yield describe(result, decisions, reading)


def describe(result: Result, decisions: Decisions | None, reading: Reading) -> ScoredRecording:
    """Describe a result.

    Args:
        result: Result of the recording.
        decisions: How scores are decided; None: they are not.
        reading: How it was read.
    """
    decided = {} if decisions is None else decisions.decide(result.score, not result.lacks_signal)
    if result.score is None:
        return ScoredRecording(result.name, result.channel, error=result.error, **decided)
    windows = result.windows
    if decisions is not None and decisions.calibration is not None:
        windows = tuple(replace(window, llr=decisions.value(window.score)) for window in windows)
    return ScoredRecording(
        result.name,
        result.channel,
        result.score,
        seconds=result.seconds,
        speech_seconds=result.speech_seconds,
        windows=windows,
        remarks=tuple(_remarks(result, reading)),
        **decided,
    )


def _remarks(result: Result, reading: Reading) -> Iterator[str]:
    if result.windows and reading.windows is not None:
        over = "lowest" if reading.windows.over == "min" else "mean"
        yield f"{over} of {len(result.windows):,} windows of {reading.windows.seconds:g} s"
    if reading.first_samples is not None and round(result.seconds * SAMPLE_RATE) >= reading.first_samples:
        yield f"the first {reading.first_samples / SAMPLE_RATE:.4g} s alone"
    if result.lacks_signal:
        yield f"less than {LEAST_SIGNAL_SECONDS:g} s of signal"
