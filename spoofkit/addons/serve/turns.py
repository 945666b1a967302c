"""Turns at the model: one batch is scored at a time, in the order in which batches come.

A long recording has a batch for each few windows, so short ones come in between. A request that would have to wait for
too long is refused at once: the seconds that the model takes for a second of audio are measured all the time.
"""

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from spoofkit.addons.serve.refusals import Refused
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.scoring.scorer import HeadScores, ScorePadded

BUSY = 429
REMEMBERED = 0.8  # weight of what was measured before, against the last batch


def busy(why: str, again_seconds: int = 1) -> Refused:
    """Return the refusal of a request that comes at a bad time."""
    detail = f"this service is busy: the request {why}; try again in {again_seconds} s"
    return Refused(BUSY, detail, {"Retry-After": str(again_seconds)})


@dataclass(eq=False)
class _Turn:
    """What a request has to have scored next."""

    seconds: float
    """Of audio."""
    began: float | None = None
    """When the model began with it; None: it waits."""


class Turns:
    """The turns at one model.

    Args:
        most_wait_seconds: A request that is expected to wait for longer is refused.
        batch_seconds: Longest audio that is scored at once.
    """

    def __init__(self, most_wait_seconds: float, batch_seconds: float) -> None:
        self.most_wait_seconds, self.batch_seconds = most_wait_seconds, batch_seconds
        self._model = ThreadPoolExecutor(1, "model")
        self._lock, self._own = threading.Lock(), threading.local()
        self._turns: set[_Turn] = set()
        self._cost = 0.0

    def forget_cost(self) -> None:
        """Forget how long the model takes for a second of audio; it is measured again."""
        self._cost = 0.0

    def wait_seconds(self) -> float:
        """Return for how long a request that comes now is expected to wait."""
        now = time.monotonic()
        with self._lock:
            waits = [self._cost * turn.seconds - (now - (turn.began or now)) for turn in self._turns]
        return sum(wait for wait in waits if wait > 0)

    def refuse_if_busy(self, waited_seconds: float = 0.0) -> None:
        """Refuse a request that would have to wait for too long.

        Args:
            waited_seconds: For how long it has waited already.

        Raises:
            Refused: with when to come again.
        """
        wait = self.wait_seconds() + waited_seconds
        if wait > self.most_wait_seconds:
            again = max(1, math.ceil(wait - self.most_wait_seconds))
            raise busy(f"would wait for {wait:.1f} s, of at most {self.most_wait_seconds:g} s", again)

    @contextmanager
    def admitted(self, seconds: float, waited_seconds: float = 0.0) -> Iterator[None]:
        """Count a request of this thread among those that wait, until it is scored.

        Args:
            seconds: Length of what is to be scored.
            waited_seconds: For how long it has waited already.

        Raises:
            Refused: it would have to wait for too long.
        """
        self.refuse_if_busy(waited_seconds)
        turn = _Turn(min(seconds, self.batch_seconds))
        with self._lock:
            self._turns.add(turn)
        self._own.turn = turn
        try:
            yield
        finally:
            self._own.turn = None
            with self._lock:
                self._turns.discard(turn)

    def through(self, score_padded: ScorePadded) -> ScorePadded:
        """Return what scores a batch when its turn comes."""

        def score(turn: _Turn | None, wave_BS: np.ndarray, n_samples_B: np.ndarray) -> HeadScores:
            began = time.monotonic()
            if turn is not None:
                turn.began = began
            found = score_padded(wave_BS, n_samples_B)
            cost = (time.monotonic() - began) / (wave_BS.size / SAMPLE_RATE)
            self._cost = REMEMBERED * self._cost + (1 - REMEMBERED) * cost if self._cost else cost
            return found

        def in_turn(wave_BS: np.ndarray, n_samples_B: np.ndarray) -> HeadScores:
            turn = getattr(self._own, "turn", None)
            if turn is not None:
                turn.seconds, turn.began = wave_BS.size / SAMPLE_RATE, None
            return self._model.submit(score, turn, wave_BS, n_samples_B).result()

        return in_turn

    def close(self) -> None:
        """End the thread of the model."""
        self._model.shutdown()
