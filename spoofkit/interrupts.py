"""Signals that stop a program: it ends in order, and its exit code says whether the same command resumes its work."""

import os
import signal
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: os.EX_TEMPFAIL, signal.SIGUSR1: os.EX_TEMPFAIL}
"""Ctrl-C gives the code that shells use; a scheduler's signals give 75: the same command resumes."""


class Stopped(BaseException):
    """A signal stops the program wherever it is; no `except Exception` may keep it from ending."""

    def __init__(self, number: int) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(f"stopped by {name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """The code that a shell gives a process that died of the signal: nothing says that its work is resumed."""
        return 128 + self.number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Stopped on SIGINT, SIGTERM and SIGUSR1, so that no temporary file is left, while the `with` block lasts."""

    def stop(number: int, _: types.FrameType | None) -> None:
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice, and the first is being obeyed
        raise Stopped(number)

    with _handled_by(stop):
        yield


class Caught:
    """The signal that was received, if any."""

    number: int | None = None

    def __bool__(self) -> bool:
        """Return whether a signal was received."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """Exit code of a process that stops for it; 75 if only another process of the run received it."""
        return os.EX_TEMPFAIL if self.number is None else EXIT_CODES[self.number]


@contextmanager
def caught_signals() -> Iterator[Caught]:
    """Note SIGINT, SIGTERM and SIGUSR1 instead of dying from them, while the `with` block lasts."""
    caught = Caught()

    def note(number: int, _: types.FrameType | None) -> None:
        caught.number = caught.number or number  # the first says what for

    with _handled_by(note):
        yield caught


@contextmanager
def _handled_by(handler: Callable[[int, types.FrameType | None], None]) -> Iterator[None]:
    # A signal that this process was started to ignore, such as Ctrl-C in the background of a script, stays ignored.
    # Only the main thread may handle signals.
    is_main = threading.current_thread() is threading.main_thread()
    heard = [number for number in EXIT_CODES if is_main and signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
