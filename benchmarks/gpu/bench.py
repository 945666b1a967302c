"""The means of measuring: device, sizes, precisions, clock, and the program's verbs."""

import contextlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from networks import gemm_peak, synchronise

from spoofkit.models.device import choose_device, plain_fp32

SECONDS = 4
SAMPLES = SECONDS * 16_000
PRECISIONS = ("fp32", "TF32", "bf16")


@dataclass(frozen=True)
class Bench:
    """What every part gets: device, sizes and folders."""

    device: torch.device
    work: Path
    """Folder for what the parts write, removed at the end."""
    is_small: bool
    """Narrow networks and few files, for a test of the script itself."""
    batches: tuple[int, ...]
    n_files: int
    train_batches: tuple[int, ...]
    n_train_steps: int
    n_products: int
    most_seconds: float
    """Seconds after which no further repeat of a measurement is begun."""
    workers: int
    """Loader processes."""

    @classmethod
    def of(cls, device: str, size: str, work: Path) -> "Bench":
        """Return the sizes of a name."""
        where = choose_device(device)
        if size == "tiny":
            return cls(where, work, True, (1, 2), 24, (2, 4), 2, 3, 0.05, 0)
        workers = max(0, min(8, (os.cpu_count() or 1) - 1))
        return cls(where, work, False, (1, 16, 64, 256), 3000, (32, 64), 10, 20, 0.5, workers)

    def clean_up(self) -> None:
        """Free the GPU memory that a part left."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions of the device; only GPUs have TF32."""
        return PRECISIONS if self.device.type == "cuda" else ("fp32", "bf16")


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in plain fp32, with TF32 in products and convolutions, or in bf16 by autocast."""
    if precision == "fp32":
        with plain_fp32():
            yield
    elif precision == "TF32":
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
    else:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield


@cache
def peak_of(device: torch.device, precision: str, n_products: int) -> float:
    """Measure the peak FLOP/s of matrix products in a precision, once per process."""
    if precision == "bf16":
        return gemm_peak(device, torch.bfloat16, n_products)
    with computing_in(precision, device):
        return gemm_peak(device, torch.float32, n_products)


def median_seconds(runs: dict[str, Callable[[], object]], bench: Bench) -> dict[str, float]:
    """Measure the median time of each run, interleaved in every round; the first two rounds warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    n_rounds, began = 0, time.perf_counter()
    while n_rounds < 5 or (n_rounds < 20 and time.perf_counter() - began < bench.most_seconds):
        for name, run in runs.items():
            synchronise(bench.device)
            start = time.perf_counter()
            run()
            synchronise(bench.device)
            times[name].append(time.perf_counter() - start)
        n_rounds += 1
    return {name: statistics.median(found[2:]) for name, found in times.items()}


@dataclass(frozen=True)
class Ended:
    """The result of a verb."""

    exit_code: int
    out: str
    err: str
    seconds: float


def verb(*arguments: object) -> Ended:
    """Run `spoofkit ARGUMENTS` in this process, which has imported everything already."""
    from spoofkit.cli.main import main

    out, err, exit_code, before = io.StringIO(), io.StringIO(), 0, sys.argv
    sys.argv = ["spoofkit", *map(str, arguments)]
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        exit_code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before
    seconds = time.perf_counter() - start
    print(f"$ spoofkit {' '.join(map(str, arguments))}\n{out.getvalue()}{err.getvalue()}[{exit_code}, {seconds:.1f} s]")
    return Ended(exit_code, out.getvalue(), err.getvalue(), seconds)
