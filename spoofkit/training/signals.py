"""Signals that ask a training to stop: it finishes its step, saves it, and says with its exit code how to go on."""

import signal
import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spoofkit.training.distributed import World, total

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}
"""Ctrl-C: as shells have it. A scheduler's: EX_TEMPFAIL, the same command goes on; job scripts requeue by it."""


class Stop:
    """Whether to stop, and what for."""

    def __init__(self, world: World, device: torch.device) -> None:
        self.world, self.device = world, device
        self.number = 0

    @property
    def exit_code(self) -> int:
        """Of a run that stops for it; of a process that was only told by the others, that of a scheduler's."""
        return EXIT_CODES.get(signal.Signals(self.number), 75) if self.number else 75

    def by_any(self) -> bool:
        """True in all processes once one of them was asked; every process must ask at the same place."""
        (n_asked,) = total([float(bool(self.number))], self.world, self.device)
        return n_asked > 0

    def while_evaluating(self) -> bool:
        """An evaluation of several processes goes on to its end: none may leave the others waiting."""
        return self.world.size == 1 and bool(self.number)


@contextmanager
def stop_signals(world: World, device: torch.device) -> Iterator[Stop]:
    """Catch SIGINT, SIGTERM and SIGUSR1 for the length of the `with` block."""
    stop = Stop(world, device)

    def note(number: int, _: types.FrameType | None) -> None:
        stop.number = number

    before = {number: signal.signal(number, note) for number in EXIT_CODES}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
