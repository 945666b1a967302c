"""A program that decodes what strangers send: each recording in a process of its own, which has little and ends soon.

`decoder` starts it, with the limits as its argument and one end of a socket of packets as its stdin. It imports the
decoders once and then copies itself for each recording, so that a copy takes milliseconds. A copy may take so much
memory, CPU and time, may write no file, and answers with plain numbers: nothing that it sends can become code. It
answers on a socket that came with the recording: the length of a JSON header in four bytes, the header, and the samples
(float32, 16 kHz, one channel after the other).
"""

import ctypes
import gc
import json
import math
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE, choose_channels, read_blocks
from spoofkit.data.channels import channel_number
from spoofkit.data.stored import LONGEST_HOURS, TooLong
from spoofkit.errors import SpoofkitError

HEADER_BYTES = 4
"""Bytes of the length of the header; big-endian."""
TOO_LARGE, NOT_AUDIO = 413, 422
"""What is wrong with a recording, as HTTP calls it (RFC 9110)."""
NO_MEMORY = "takes more memory to decode than this service grants; convert it, or send a part of it"
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h


@dataclass(frozen=True)
class Limits:
    """What the decoding of one recording may take."""

    seconds: float
    """Longest recording; of separate channels, all of them together."""
    wall_seconds: float = 20.0
    memory_bytes: int = 1_000_000_000
    """Address space beyond that of the program itself."""


def as_argument(limits: Limits) -> str:
    """Return the argument of the program."""
    return json.dumps(asdict(limits))


def main() -> None:
    """Copy this process for each recording that comes, until the socket is closed."""
    import av  # noqa: F401 - once, and not in each copy

    limits = Limits(**json.loads(sys.argv[1]))
    os.environ[LONGEST_HOURS] = repr(limits.seconds / 3600)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the service ends this program
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the copies
    gc.freeze()  # or each copy would look through all of it, and so copy it
    with socket.socket(fileno=0) as jobs:
        while True:
            rule, files, *_ = socket.recv_fds(jobs, 64, 2)
            if not rule:
                return
            audio, answer = files
            if not os.fork():
                jobs.close()
                _end(audio, answer, rule.decode(), limits)
            os.close(audio)
            os.close(answer)


def _end(audio: int, answer: int, rule: str, limits: Limits) -> None:
    """Decode one recording, answer, and end this process."""
    try:
        _confine(limits)
        with socket.socket(fileno=answer) as out:
            header, waves = _decode(f"/proc/self/fd/{audio}", rule, limits)
            text = json.dumps(header).encode()
            out.sendall(len(text).to_bytes(HEADER_BYTES, "big") + text)
            for wave_S in waves:
                out.sendall(wave_S.data)
    finally:
        os._exit(0)


def _confine(limits: Limits) -> None:
    """Give up what decoding does not need."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)  # SIGALRM ends a process that does not handle it
    with open("/proc/self/statm") as pages:
        own = int(pages.read().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, own + limits.memory_bytes),
        (resource.RLIMIT_CPU, math.ceil(limits.wall_seconds)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _decode(path: str, rule: str, limits: Limits) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Decode a recording.

    Returns:
        The header (`channels` and `samples`, a number for each wave; or `status` and `error`), and the waves.
    """
    chosen: tuple[str, ...] = ()
    try:
        chosen = choose_channels(path, rule)
        waves: list[np.ndarray] = []
        left = round(limits.seconds * SAMPLE_RATE)
        for downmix in chosen:
            blocks = []
            for block_S in read_blocks(path, downmix=downmix):
                left -= block_S.size
                if left < 0:
                    raise TooLong
                blocks.append(block_S)
            waves.append(np.concatenate(blocks))
    except TooLong:
        channels = " (all channels together)" if len(chosen) > 1 else ""
        error = f"is longer than {limits.seconds:g} s{channels}, the most that this service takes; send a part of it"
        return {"status": TOO_LARGE, "error": error}, []
    except MemoryError:
        return {"status": TOO_LARGE, "error": NO_MEMORY}, []
    except (SpoofkitError, OSError) as error:
        if isinstance(error.__cause__, MemoryError):
            return {"status": TOO_LARGE, "error": NO_MEMORY}, []
        return {"status": NOT_AUDIO, "error": str(error).removeprefix(f"{path}: ")}, []
    return {"channels": [channel_number(one) for one in chosen], "samples": [wave_S.size for wave_S in waves]}, waves


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
