"""Speech in recordings as scoring sees it; the addon `voice` finds it."""

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
    """Of it, what no stretch with enough speech before has."""
    is_enough: bool


class Listener(Protocol):
    """What was found in a recording up to where it has been read."""

    def read(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Hand on a recording's samples, all of them and none before its frame has been read to its end."""

    def speech_in(self, start: int, end: int) -> Speech:
        """Return the speech between two samples; stretches are asked for in their order, once each."""


class VoiceActivity(Protocol):
    """How speech is found, and how much is asked for."""

    def listener(self) -> Listener:
        """Begin a recording."""

    def record(self) -> dict[str, Any]:
        """Return it as it stands beside scores."""

    def words(self) -> str:
        """Return it in a sentence."""

    def too_little(self, name: str, found: Sequence[Speech]) -> str:
        """Say why a recording has no score, given the speech in its windows, of which there may be one."""


def load_voice_activity(least_seconds: float) -> VoiceActivity:
    """Load what finds speech.

    Args:
        least_seconds: Speech that a window, or a recording that is no longer than one, must have to be scored.

    Raises:
        SpoofkitError: a length that is none, or there is no addon `voice` here, or a package that it needs is missing.
    """
    voice: VoiceActivity = addons.find("voice.silero").load_voice_activity(least_seconds)
    return voice
