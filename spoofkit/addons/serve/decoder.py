"""Decode a recording that was sent, in the program `decoding`; start that program again if it has died."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from spoofkit.addons.serve.decoding import HEADER_BYTES, NOT_AUDIO, Limits, as_argument
from spoofkit.addons.serve.refusals import Refused
from spoofkit.addons.serve.turns import busy
from spoofkit.data.audio import SAMPLE_RATE

PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from spoofkit.addons.serve.decoding import main; main()"
"""Modules come from where this process has them, and not from the current folder."""
MOST_HEADER_BYTES = 20_000
TRIES = 2
"""How often a recording is decoded whose process died: whatever killed it may have been meant for another."""
GRACE_SECONDS = 2  # beyond the time that a process gives itself


class Decoded(NamedTuple):
    """A channel of a recording that is scored by itself, or the mean of all."""

    channel: int | None
    """From 1; None: the mean of all, or the only one."""
    wave_S: np.ndarray
    """16 kHz."""


@dataclass
class _Program:
    process: subprocess.Popen[bytes]
    jobs: socket.socket


class Decoder:
    """The program that decodes, for several threads; `n_at_once` of them find a place at the same time."""

    def __init__(self, limits: Limits, n_at_once: int) -> None:
        self._limits = limits
        self._places, self._lock = threading.Semaphore(n_at_once), threading.Lock()
        self._program = self._start()

    @property
    def pid(self) -> int:
        """Number of the process that copies itself."""
        return self._program.process.pid

    @contextmanager
    def place(self, patience_seconds: float) -> Iterator[None]:
        """Take one of the places, in which a recording is decoded.

        Raises:
            Refused: none became free in time.
        """
        if not self._places.acquire(timeout=max(0.0, patience_seconds)):
            raise busy("waits behind others that are decoded")
        try:
            yield
        finally:
            self._places.release()

    def decode(self, audio: int, channels: str) -> list[Decoded]:
        """Decode a recording.

        Args:
            audio: Descriptor of a file with it.
            channels: Which channels are scored, as `choose_channels` takes it.

        Raises:
            Refused: it is no audio, is too long, or takes too much time or memory.
        """
        started = time.monotonic()
        for _ in range(TRIES):
            found = self._try(audio, channels)
            if found is not None:
                return found
            if time.monotonic() - started >= self._limits.wall_seconds:
                break
        late = time.monotonic() - started >= self._limits.wall_seconds
        why = (
            f"takes longer than {self._limits.wall_seconds:g} s to decode" if late else "ends the process that reads it"
        )
        raise Refused(NOT_AUDIO, f"{why}; convert it to FLAC, or send a part of it")

    def close(self) -> None:
        """End the program."""
        with self._lock:
            self._end(self._program)

    def _try(self, audio: int, channels: str) -> list[Decoded] | None:
        """Decode once; None if the process ended before it had answered."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                program = self._send(channels.encode(), [audio, theirs.fileno()])
            ours.settimeout(self._limits.wall_seconds + GRACE_SECONDS)
            try:
                return self._receive(ours)
            except TimeoutError:  # a copy ends itself before, so it was never made
                with self._lock:
                    self._replace(program)
            except (EOFError, OSError):
                pass
        return None

    def _receive(self, answer: socket.socket) -> list[Decoded]:
        n_bytes = int.from_bytes(_exactly(answer, HEADER_BYTES), "big")
        if n_bytes > MOST_HEADER_BYTES:
            raise EOFError
        header: dict[str, Any] = json.loads(_exactly(answer, n_bytes))
        if "error" in header:
            raise Refused(int(header["status"]), str(header["error"]))
        counts = [int(n_samples) for n_samples in header["samples"]]
        if min(counts) < 0 or sum(counts) > self._limits.seconds * SAMPLE_RATE + 1:
            raise EOFError
        waves = [np.frombuffer(_exactly(answer, 4 * n_samples), np.float32) for n_samples in counts]
        return [Decoded(*one) for one in zip(header["channels"], waves, strict=True)]

    def _send(self, rule: bytes, files: list[int]) -> _Program:
        """Hand a recording to the program, which is started again if it has died; return the program."""
        with self._lock:
            try:
                socket.send_fds(self._program.jobs, [rule], files)
            except OSError:
                self._replace(self._program)
                socket.send_fds(self._program.jobs, [rule], files)
            return self._program

    def _replace(self, broken: _Program) -> None:
        """Start the program again, unless another thread has done so."""
        if self._program is broken:
            self._end(broken)
            self._program = self._start()

    def _start(self) -> _Program:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(GRACE_SECONDS)
        command = [sys.executable, "-c", PROGRAM, as_argument(self._limits), *sys.path]
        # One thread is enough, and copies of several would lack all but one.
        environ = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environ)
        return _Program(process, ours)

    @staticmethod
    def _end(program: _Program) -> None:
        program.jobs.close()
        program.process.kill()
        program.process.wait()


def _exactly(answer: socket.socket, n_bytes: int) -> bytearray:
    """Receive exactly `n_bytes` bytes.

    Raises:
        EOFError: there are fewer.
    """
    found = bytearray(n_bytes)
    view = memoryview(found)
    while view:
        n_received = answer.recv_into(view)
        if not n_received:
            raise EOFError
        view = view[n_received:]
    return found
