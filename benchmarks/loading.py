"""Measure the loader: crops per second from FLAC files and from a pack of them, interleaved in one run.

    python benchmarks/loading.py                       # 600 utterances of 8 s, 64,600 samples of each, 0, 1, 2 workers
    python benchmarks/loading.py --workers 0 4 --n-utterances 2000 --folder /slow/disk

The utterances are noise with a speech-like spectrum (FLAC of plain tones would be too easy to decode), written to a
temporary folder. Both rows are read from the page cache, so decoding, copying and the transfer between processes are
measured, not a disk. `crops` are training items of `finetune`, `mixes` those of `posttrain` with up to three regions.
The table shows medians over rounds with the smallest and largest; the first round warms up. The time to start the
workers is not included. A second table shows the cost of each augmentation for an utterance of 64,600 samples, in
batches on `--device`, but codecs one by one as in a loader process.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import soundfile
import soxr
import torch

from spoofkit.addons.pack.write import pack
from spoofkit.config import load_config
from spoofkit.data.acoustics import add_noise, reverberate
from spoofkit.data.codecs import NAMES, apply_codec
from spoofkit.data.dataset import MixDataset, TrainingOrder, UtteranceDataset
from spoofkit.data.frames import WAV2VEC2_GEOMETRY
from spoofkit.data.loading import load_batches
from spoofkit.data.manifest import Manifest, read_manifest, write_manifest
from spoofkit.data.mixdraw import draw_mixes
from spoofkit.data.rawboost import KINDS

RATE = 16_000
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-utterances", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="batches in one round")
    parser.add_argument("--folder", type=Path, help="where to write the corpus (default: the temporary folder)")
    parser.add_argument("--device", default="cpu", help="where batches are augmented")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"# {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, torch {torch.__version__}, one thread")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        manifests = make_corpus(Path(folder), options.n_utterances, options.seconds)
        benchmark(manifests, options.workers, options.repeats, options.steps)
    augmentation(torch.device(options.device), options.repeats)


def make_corpus(folder: Path, n_utterances: int, seconds: float) -> dict[str, Manifest]:
    rng = np.random.default_rng(0)
    n_samples = int(seconds * RATE)
    for index in range(n_utterances):
        noise = rng.standard_normal(n_samples // 4 + 1)
        envelope = np.repeat(rng.uniform(0.05, 1.0, n_samples // 1600 + 1), 1600)[:n_samples]
        wave = 0.1 * envelope * soxr.resample(noise, RATE // 4, RATE)[:n_samples]
        soundfile.write(folder / f"u{index:05d}.flac", wave + 0.001 * rng.standard_normal(n_samples), RATE)
    ids = [f"u{index:05d}" for index in range(n_utterances)]
    table = {"utt_id": ids, "path": [f"{i}.flac" for i in ids], "key": ["bonafide", "spoof"] * (n_utterances // 2)}
    table |= {name: ["-"] * n_utterances for name in ("speaker", "attack", "codec")}
    write_manifest(folder / "set.tsv", folder, pl.DataFrame(table | {"n_samples": [n_samples] * n_utterances}))
    n_bytes = sum(path.stat().st_size for path in folder.glob("*.flac"))
    for threads in (1, os.cpu_count() or 1):
        start = time.perf_counter()
        made = pack(folder / "set.tsv", folder / "packed", workers=threads, overwrite=True)
        took = time.perf_counter() - start
        print(f"# pack, {threads} threads: {n_utterances / took:.0f} utterances/s")
    size = sum(path.stat().st_size for path in (folder / "packed").glob("*.i16"))
    print(f"# {n_utterances} utterances of {seconds} s: {n_bytes / 1e6:.0f} MB of FLAC, {size / 1e6:.0f} MB packed")
    return {"flac": read_manifest(folder / "set.tsv"), "pack": read_manifest(made.manifest)}


def benchmark(manifests: dict[str, Manifest], workers: list[int], repeats: int, n_steps: int) -> None:
    config = load_config(None, ["mix.n_train=2000"])
    rows: dict[str, Callable[[], float]] = {}
    for source, manifest in manifests.items():
        crops = UtteranceDataset(manifest, config)
        mixes = MixDataset(draw_mixes(config, manifest), manifest, WAV2VEC2_GEOMETRY, "region")
        for kind, dataset in (("crops", crops), ("mixes", mixes)):
            for n_workers in workers:
                rows[f"{kind}, {source}, {n_workers} workers"] = _timed(dataset, n_workers, n_steps)
    rates: dict[str, list[float]] = {row: [] for row in rows}
    for round_ in range(repeats + 1):
        for row, run in rows.items():
            rate = run()
            if round_:
                rates[row].append(rate)
    print(f"{'':24s} {'items/s':>8s}   smallest-largest of {repeats} rounds")
    for row, found in rates.items():
        print(f"{row:24s} {statistics.median(found):8.0f}   {min(found):.0f}-{max(found):.0f}")


def augmentation(device: torch.device, repeats: int) -> None:
    wave_BS = 0.1 * torch.randn(BATCH, 64_600, device=device)
    n_samples_B = torch.full((BATCH,), 64_600, device=device)
    rir_BK, snr_db_B = torch.randn(BATCH, 8_000, device=device), torch.zeros(BATCH, device=device)
    wave_S = wave_BS[0].cpu().numpy()
    rows: dict[str, tuple[int, Callable[[], object]]] = {
        f"RawBoost, {kind}": (BATCH, partial(boost, wave_BS, n_samples_B, range(BATCH)))
        for kind, boost in KINDS.items()
    }
    rows["room of 0.5 s"] = BATCH, partial(reverberate, wave_BS, n_samples_B, rir_BK)
    rows["noise"] = BATCH, partial(add_noise, wave_BS, n_samples_B, wave_BS.flip(0), snr_db_B)
    rows |= {f"codec, {name}": (1, partial(apply_codec, wave_S, name, 0.5)) for name in NAMES}
    print(f"{'':24s} {'ms':>8s}   smallest-largest of {repeats} rounds, on {device}")
    for row, (n_utterances, run) in rows.items():
        times = []
        for round_ in range(repeats + 1):
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_:
                times.append(1000 * (time.perf_counter() - start) / n_utterances)
        print(f"{row:24s} {statistics.median(times):8.2f}   {min(times):.2f}-{max(times):.2f}")


def _timed(dataset: UtteranceDataset | MixDataset, workers: int, n_steps: int) -> Callable[[], float]:
    """Measure items per second between the first batch and the last."""

    def run() -> float:
        order = TrainingOrder(len(dataset), BATCH, 0, 0, n_steps + 1)
        with load_batches(dataset, order, workers=workers, shortest=400) as batches:
            return _rate(batches)

    def _rate(batches: Iterator[object]) -> float:
        next(batches)
        start = time.perf_counter()
        n_batches = sum(1 for _ in batches)
        return BATCH * n_batches / (time.perf_counter() - start)

    return run


if __name__ == "__main__":
    main()
