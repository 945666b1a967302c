"""Signals that ask long work to stop: it keeps what it has, and its exit code says whether the same command resumes."""

import os
import signal
import types
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: os.EX_TEMPFAIL, signal.SIGUSR1: os.EX_TEMPFAIL}
"""Ctrl-C: as shells have it. A scheduler's: 75, the same command resumes."""


class Caught:
    """Which signal came, if one did."""

    number: int | None = None

    def __bool__(self) -> bool:
        """Whether one came."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """Of a process that stops for it; 75 if only another process of the run was asked."""
        return os.EX_TEMPFAIL if self.number is None else EXIT_CODES[signal.Signals(self.number)]


@contextmanager
def caught_signals() -> Iterator[Caught]:
    """Note SIGINT, SIGTERM and SIGUSR1 instead of dying of them, for the length of the `with` block."""
    caught = Caught()

    def note(number: int, _: types.FrameType | None) -> None:
        caught.number = caught.number or number  # the first says what for

    before = {number: signal.signal(number, note) for number in EXIT_CODES}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
