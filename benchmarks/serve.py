"""Load `spoofkit serve` over the loopback: latencies, ten times the capacity, memory over many requests.

    python benchmarks/serve.py                                # base size in int8, all parts
    python benchmarks/serve.py --parts poisson --seconds 300
    python benchmarks/serve.py --parts memory --requests 1000

The model is a detector of wav2vec 2.0's base size with random weights, exported to ONNX in int8 (`--precision fp32`:
in fp32), the fastest on a CPU. Recordings are noise in syllables, of 4 s, as FLAC; a request sends one of 16 in turn.

`alone`: one request after another, which gives the capacity. `poisson`: requests come at random, on average
`--a-core` a second for each core; a latency counts from when the request should have been sent, so a client that falls
behind makes nothing look faster. `overload`: the same at ten times the capacity. `memory`: `--requests` requests, four
at a time, to the `tiny` model, because what leaks does so with any; RSS of the service and of its decoder, in 10^6
bytes, while they come in.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import soundfile
from scoring import RATE, exported_of, make_model, noise

from spoofkit.addons.onnx.export import export
from spoofkit.data.manifest import write_manifest

PARTS = ("alone", "poisson", "overload", "memory")
SECONDS = 4.0
N_RECORDINGS = 16
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--model", choices=("tiny", "wav2vec2-base"), default="wav2vec2-base")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="int8")
    parser.add_argument("--a-core", type=float, default=0.5, help="requests a second for each core, on average")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long requests come")
    parser.add_argument("--overload-seconds", type=float, default=20.0)
    parser.add_argument("--requests", type=int, default=10_000, help="of the part `memory`")
    options = parser.parse_args()
    n_cores = os.cpu_count() or 1
    print(f"# {time.strftime('%Y-%m-%d')}, {n_cores} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        recordings = [recording(folder, seed) for seed in range(N_RECORDINGS)]
        if {*options.parts} - {"memory"}:
            with serving(model_of(folder / "model", options.model, options.precision, folder)) as (url, _):
                print(f"\n{options.model}, {options.precision}, {SECONDS:g} s of audio a request")
                asyncio.run(under_load(url, recordings, options, n_cores))
        if "memory" in options.parts:
            with serving(model_of(folder / "small", "tiny", "fp32", folder)) as (url, pid):
                print(f"\ntiny, fp32: memory over {options.requests:,} requests")
                asyncio.run(memory(url, pid, recordings, options.requests))


def recording(folder: Path, seed: int) -> bytes:
    path = folder / f"{seed}.flac"
    soundfile.write(path, noise(np.random.default_rng(seed), int(SECONDS * RATE)), RATE)
    return path.read_bytes()


def model_of(folder: Path, name: str, precision: str, recordings: Path) -> Path:
    """Make a model with random weights and export it; the list on which int8 is measured says nothing, then."""
    make_model(folder, name)
    if precision == "fp32":
        return exported_of(folder / "model")
    names = [f"{seed}.flac" for seed in range(8)]
    keys = ["bonafide", "spoof"] * 4
    table = pl.DataFrame({"utt_id": names, "path": names, "key": keys, "n_samples": [int(SECONDS * RATE)] * 8})
    blank = [pl.lit("-").alias(name) for name in ("speaker", "attack", "codec")]
    write_manifest(folder / "set.tsv", recordings, table.with_columns(*blank))
    for line in export(folder / "model", folder / "int8.onnx", int8=folder / "set.tsv"):
        print(f"# {line.replace(str(folder), '')}")
    return folder / "int8.onnx"


@contextmanager
def serving(model: Path) -> Iterator[tuple[str, int]]:
    """Run the program; yield its address and the number of its process."""
    command = [sys.executable, "-m", "spoofkit", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    url = next(found[1] for line in lines if (found := re.search(r"on (http://\S+);", line)))
    log = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)  # or the pipe would fill
    try:
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(60)
        log.wait(60)


async def under_load(url: str, recordings: list[bytes], options: argparse.Namespace, n_cores: int) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60, verify=False, limits=LIMITS) as client:
        alone = [await ask(client, recordings[n % N_RECORDINGS], time.perf_counter()) for n in range(24)][4:]
        capacity = len(alone) / sum(seconds for _, seconds in alone)
        print(f"  {'':34s} {'200':>6s} {'429':>6s} {'other':>6s} {'p50':>8s} {'p95':>8s} {'p99':>8s} {'max':>8s}")
        print(row(f"alone: {capacity:.2f} a second", alone))
        if "poisson" in options.parts:
            rate = options.a_core * n_cores
            found = await poisson(client, recordings, rate, options.seconds)
            print(row(f"poisson, {rate:g} a second", found))
        if "overload" in options.parts:
            found = await poisson(client, recordings, 10 * capacity, options.overload_seconds)
            print(row(f"overload, {10 * capacity:.0f} a second", found))
            print(row("  of these, those with 200", [one for one in found if one[0] == 200]))
            again = [await ask(client, recordings[n], time.perf_counter()) for n in range(8)]
            print(row("alone again", again))


async def ask(client: httpx.AsyncClient, content: bytes, due: float) -> tuple[int, float]:
    """Ask once; return the status, 0 for none, and the seconds since `due`."""
    try:
        status = (await client.post("/v1/score", content=content)).status_code
    except httpx.HTTPError:
        status = 0
    return status, time.perf_counter() - due


async def poisson(
    client: httpx.AsyncClient, recordings: list[bytes], rate: float, seconds: float
) -> list[tuple[int, float]]:
    """Ask at random times, whether or not earlier requests have been answered."""
    rng = np.random.default_rng(0)
    due, tasks, began = 0.0, [], time.perf_counter()
    while (due := due + rng.exponential(1 / rate)) < seconds:
        await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
        content = recordings[len(tasks) % N_RECORDINGS]
        tasks.append(asyncio.create_task(ask(client, content, began + due)))
    return list(await asyncio.gather(*tasks))


def row(name: str, found: list[tuple[int, float]]) -> str:
    counts = Counter(status for status, _ in found)
    others = len(found) - counts[200] - counts[429]
    times = np.array([seconds for _, seconds in found]) if found else np.zeros(1)
    figures = " ".join(f"{1e3 * value:5.0f} ms" for value in (*np.quantile(times, (0.5, 0.95, 0.99)), times.max()))
    return f"  {name:34s} {counts[200]:6d} {counts[429]:6d} {others:6d} {figures}"


async def memory(url: str, pid: int, recordings: list[bytes], n_requests: int) -> None:
    """Ask four at a time, and print the memory of the processes now and then."""
    print(f"  {'requests':>10s} {'service':>10s} {'decoder':>10s} {'not 200':>10s}")
    async with httpx.AsyncClient(base_url=url, timeout=60, verify=False, limits=LIMITS) as client:
        done, failed, marks = 0, 0, {0, *(n_requests * share // 100 for share in (1, 5, 10, 25, 50, 75, 100))}

        async def keep_asking() -> None:
            nonlocal done, failed
            while done < n_requests:
                if done in marks:
                    marks.discard(done)
                    service, decoder = megabytes(pid), sum(map(megabytes, children(pid)))
                    print(f"  {done:10,d} {service:7.0f} MB {decoder:7.0f} MB {failed:10,d}", flush=True)
                done += 1
                failed += (await ask(client, recordings[done % N_RECORDINGS], 0.0))[0] != 200

        await asyncio.gather(*(keep_asking() for _ in range(4)))
        service, decoder = megabytes(pid), sum(map(megabytes, children(pid)))
        print(f"  {done:10,d} {service:7.0f} MB {decoder:7.0f} MB {failed:10,d}")


def megabytes(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(number) for task in tasks for number in (task / "children").read_text().split()]


if __name__ == "__main__":
    main()
