"""The interface of voice activity detection; the addon `voice` implements it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from spoofkit import addons


@dataclass(frozen=True)
class Speech:
    """Speech in a stretch of a recording."""

    n_samples: int
    n_new: int
    """Samples of speech that are in no earlier stretch with enough speech."""
    is_enough: bool


class Listener(Protocol):
    """The speech in a recording, up to where it has been read."""

    def read(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield all samples of a recording, each once the detector has read to the end of its frame."""

    def speech_in(self, start: int, end: int) -> Speech:
        """Return the speech between two samples; call it once for each stretch, in their order."""


class VoiceActivity(Protocol):
    """A voice activity detector, and how much speech is required."""

    def listener(self) -> Listener:
        """Start a new recording."""

    def record(self) -> dict[str, Any]:
        """Return the detector and its settings for the record of scores."""

    def words(self) -> str:
        """Describe the requirement in a sentence."""

    def too_little(self, name: str, found: Sequence[Speech]) -> str:
        """Return the error of a recording, given the speech in its windows (or in all of it)."""


def load_voice_activity(least_seconds: float) -> VoiceActivity:
    """Load the voice activity detector.

    Args:
        least_seconds: Speech that a window, or a recording that is not cut, needs to be scored.

    Raises:
        SpoofkitError: `least_seconds` is out of range, or the addon `voice` or a package that it needs is missing.
    """
    voice: VoiceActivity = addons.find("voice.silero").load_voice_activity(least_seconds)
    return voice
