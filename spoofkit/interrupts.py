"""Signals that stop a long run: it saves its work, and its exit code says whether the same command resumes it."""

import os
import signal
import types
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: os.EX_TEMPFAIL, signal.SIGUSR1: os.EX_TEMPFAIL}
"""Ctrl-C gives the code that shells use; a scheduler's signals give 75: the same command resumes."""


class Caught:
    """The signal that was received, if any."""

    number: int | None = None

    def __bool__(self) -> bool:
        """Return whether a signal was received."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """Exit code of a process that stops for it; 75 if only another process of the run received it."""
        return os.EX_TEMPFAIL if self.number is None else EXIT_CODES[signal.Signals(self.number)]


@contextmanager
def caught_signals() -> Iterator[Caught]:
    """Note SIGINT, SIGTERM and SIGUSR1 instead of dying from them, while the `with` block lasts."""
    caught = Caught()

    def note(number: int, _: types.FrameType | None) -> None:
        caught.number = caught.number or number  # the first says what for

    before = {number: signal.signal(number, note) for number in EXIT_CODES}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
