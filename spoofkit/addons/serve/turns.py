"""Turns at the model: one batch is scored at a time, in the order in which batches come.

A long recording has a batch for each few windows, so short ones come in between. A request that would have to wait for
too long is refused at once, before it is decoded: the seconds that the model takes for a second of audio, and how long
recordings are, are measured all the time.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from spoofkit.addons.serve.refusals import Refused
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.scoring.scorer import HeadScores, ScorePadded

BUSY = 429
REMEMBERED = 0.8  # weight of what was measured before, against the last batch or recording
FIRST_SECONDS = 4.0
"""How long a recording is taken to be before any has come."""


def busy(why: str, again_seconds: int = 1) -> Refused:
    """Return the refusal of a request that comes at a bad time."""
    detail = f"this service is busy: the request {why}; try again in {again_seconds} s"
    return Refused(BUSY, detail, {"Retry-After": str(again_seconds)})


@dataclass(eq=False)
class _Turn:
    """What a request has to have scored next."""

    seconds: float
    """Of audio; as long as it is not decoded, what recordings mostly have."""
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
        self._turns: dict[_Turn, None] = {}  # in the order in which they came
        self._cost, self._typical_seconds = 0.0, min(FIRST_SECONDS, batch_seconds)

    def forget_cost(self) -> None:
        """Forget how long the model takes for a second of audio; it is measured again."""
        self._cost = 0.0

    def wait_seconds(self, own: _Turn | None = None) -> float:
        """Return for how long a request is expected to wait for those that came before it.

        Args:
            own: Its turn, if it has one already. None: it comes now.
        """
        now = time.monotonic()
        with self._lock:
            before = list(itertools.takewhile(lambda turn: turn is not own, self._turns))
        waits = (self._cost * turn.seconds - (now - (turn.began or now)) for turn in before)
        return sum(wait for wait in waits if wait > 0)

    def refuse_if_busy(self, waited_seconds: float = 0.0, own: _Turn | None = None) -> None:
        """Refuse a request that would have to wait for too long.

        Args:
            waited_seconds: For how long it has waited already.
            own: See `wait_seconds`.

        Raises:
            Refused: with when to come again.
        """
        wait = self.wait_seconds(own) + waited_seconds
        if wait > self.most_wait_seconds:
            again = max(1, math.ceil(wait - self.most_wait_seconds))
            raise busy(f"would wait for {wait:.1f} s, of at most {self.most_wait_seconds:g} s", again)

    @contextmanager
    def admitted(self) -> Iterator[Callable[[float, float], None]]:
        """Count a request of this thread among those that wait, from before it is decoded until it is scored.

        Yields:
            What has to be called with the seconds of audio, when they are known, and those for which the request has
            waited; it raises Refused if they are too many for those that came before.

        Raises:
            Refused: it would have to wait for too long.
        """
        turn = self._own.turn = _Turn(self._typical_seconds)
        with self._lock:
            self._turns[turn] = None
        try:
            self.refuse_if_busy(own=turn)
            yield partial(self._decoded, turn)
        finally:
            self._own.turn = None
            with self._lock:
                del self._turns[turn]

    def _decoded(self, turn: _Turn, seconds: float, waited_seconds: float) -> None:
        turn.seconds = min(seconds, self.batch_seconds)
        self._typical_seconds = REMEMBERED * self._typical_seconds + (1 - REMEMBERED) * turn.seconds
        self.refuse_if_busy(waited_seconds, turn)

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
