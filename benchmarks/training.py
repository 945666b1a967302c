"""Compare utterances per second and peak memory of our training loop with a common plain transformers loop.

    python benchmarks/training.py                                    # wav2vec 2.0 base, 8 utterances a step
    python benchmarks/training.py --model xlsr-300m --batch 2
    python benchmarks/training.py --model xlsr-300m --batch 32 --device cuda --workers 8 --breakdown

`plain` is fp32, torch's default AdamW, files decoded whole, then repeated or cut to 64,600 samples, and collated one by
one in Python. `ours` is the loop of `spoofkit finetune` itself, on the same encoder (random weights, nothing
frozen but the stem, no dropout, no masking of time), the same FLAC files, the same number of loader processes and
threads; once in fp32 and once in the precision it chooses by itself. Every row runs in a process of its own, once in
every round, so that a machine that slows down slows all rows and a peak of memory belongs to one row. Time is taken
from the start of one forward pass to that of the last, without the first two steps; memory is the peak in that time.
Evaluation and checkpoints are not included. For the loader alone see `benchmarks/loading.py`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from loading import make_corpus
from networks import MODELS, cpu_name, flops_of, gemm_peak, make_encoder, make_network, synchronise
from torch import nn

from spoofkit.config import load_config
from spoofkit.data.dataset import Batch, TrainingOrder, UtteranceDataset
from spoofkit.data.loading import load_batches
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.models.detector import Detector
from spoofkit.models.device import training_precision
from spoofkit.models.encoder import Encoder
from spoofkit.models.lora import add_lora
from spoofkit.settings import LoraSettings
from spoofkit.training.loop import Run, Task, train
from spoofkit.training.optim import LossModule, make_optimizer

NAMES = [name for name in MODELS if not name.startswith("whisper")]  # transformers' Whisper takes 30 s alone
CROP = 64_600
WARM_UP = 2
ROWS = {"plain": "fp32", "ours, fp32": "fp32", "ours, auto": "auto"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=NAMES, default="wav2vec2-base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help=f"of a row in one round, {WARM_UP} more to warm up")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the files; 4.04 s of each are used")
    parser.add_argument("--breakdown", action="store_true", help="also show how the time of our step is spent")
    parser.add_argument("--lora", type=int, help="rank of adapters, which then are all that is trained of the encoder")
    parser.add_argument("--small", action="store_true", help="a few narrow layers instead of the published shape")
    parser.add_argument("--row", choices=[*ROWS, "breakdown"], help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.row:
        print(json.dumps(breakdown(options) if options.row == "breakdown" else measure(options)))
        return
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(Path(folder), options.batch * 8, options.seconds)
        print(f"# {time.strftime('%Y-%m-%d')}, {name}, {options.threads} threads, torch {torch.__version__}")
        print(
            f"# {options.model}, {options.batch} x {CROP} samples a step, {options.steps} steps in each of "
            f"{options.repeats} rounds, {options.workers} loader processes"
        )
        found: dict[str, list[dict[str, Any]]] = {row: [] for row in ROWS}
        for _ in range(options.repeats):
            for row in ROWS:
                found[row].append(in_own_process(row, Path(folder)))
        report(found, device, options)
        if options.breakdown:
            for what, seconds in in_own_process("breakdown", Path(folder)).items():
                print(f"  {what:24s} {1000 * seconds:9.1f} ms")


def in_own_process(row: str, corpus: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--row", row, "--corpus", str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{row}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def report(found: dict[str, list[dict[str, Any]]], device: torch.device, options: argparse.Namespace) -> None:
    n_flops = flops_of_step(options)
    peaks = {dtype: gemm_peak(device, dtype) for dtype in (torch.float32, training_precision(device, "auto")[0])}
    for dtype, peak in peaks.items():
        print(f"# matrix product in {str(dtype).removeprefix('torch.')}: {peak / 1e9:.0f} GFLOP/s")
    print(f"{'':14s} {'utt/s':>8s} {'of peak':>8s} {'speed':>20s} {'memory':>9s}   {'of it the process at rest'}")
    plain = [run["rate"] for run in found["plain"]]
    for row, runs in found.items():
        rates = [run["rate"] for run in runs]
        ratios = [rate / other for rate, other in zip(rates, plain, strict=True)]
        ratio = f"{statistics.median(rates) / statistics.median(plain):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        dtype = training_precision(device, ROWS[row])[0]
        share = statistics.median(rates) * n_flops / peaks[dtype]
        memory, rest = (statistics.median(run[what] for run in runs) for what in ("peak_GB", "rest_GB"))
        print(f"{row:14s} {statistics.median(rates):8.2f} {share:8.0%} {ratio:>20s} {memory:6.2f} GB   {rest:.2f} GB")


def measure(options: argparse.Namespace) -> dict[str, float]:
    device = torch.device(options.device)
    manifest = read_manifest(options.corpus / "set.tsv")
    clock = Clock(device, WARM_UP + options.steps + 1)
    with suppress(Enough):
        (plain_loop if options.row == "plain" else our_loop)(manifest, options, device, clock)
    assert len(clock.times) == clock.n_ticks
    seconds = clock.times[-1] - clock.times[WARM_UP]
    return {"rate": options.steps * options.batch / seconds, "peak_GB": clock.peak_GB, "rest_GB": clock.rest_GB}


class Enough(Exception):
    """Raised at the last forward pass: what follows, such as a checkpoint, is not measured."""


@dataclass
class Clock:
    """Records time and peak memory at the start of every forward pass, and ends the run at the last."""

    device: torch.device
    n_ticks: int
    times: list[float] = field(default_factory=list)
    rest_GB: float = 0.0
    peak_GB: float = 0.0

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        self.rest_GB = self._peak()  # imports and, on a GPU, nothing

    def tick(self) -> None:
        """Record the start of a forward pass."""
        synchronise(self.device)
        self.times.append(time.perf_counter())
        self.peak_GB = self._peak()
        if len(self.times) == self.n_ticks:
            raise Enough

    def _peak(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def our_loop(manifest: Manifest, options: argparse.Namespace, device: torch.device, clock: Clock) -> None:
    task, config = our_task(manifest, options, device, clock)
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), task, config.finetune, config.seed, Run(device, workers=options.workers))


def our_task(manifest: Manifest, options: argparse.Namespace, device: torch.device, clock: Clock) -> tuple[Task, Any]:
    n_steps = clock.n_ticks
    changes = {"batch_size": options.batch, "n_steps": n_steps, "checkpoint_every": n_steps, "keep": "last"}
    changes |= {"eval_every": n_steps, "precision": ROWS.get(options.row, "auto")}
    config = load_config(None, [f"finetune.{name}={value}" for name, value in changes.items()])
    detector = Detector(our_encoder(options), "mean")

    def loss(batch: Batch, weight: float) -> torch.Tensor:
        clock.tick()
        embedding = detector.embed(batch.wave_BS, batch.n_samples_B)
        return detector.head.output.loss(embedding, batch.is_bonafide_B, torch.ones_like(batch.is_bonafide_B), weight)

    def evaluate(precision: str, should_stop: Callable[[], bool]) -> dict[str, float]:
        return {"dev_eer_percent": 0.0}

    items, criteria = UtteranceDataset(manifest, config), ("dev_eer_percent", "dev_eer_percent")
    weight, first_scores = lambda batch: float(len(batch.utt_ids)), lambda precision: np.zeros(0)
    return Task(detector, items, len(items), weight, loss, evaluate, first_scores, criteria), config


def our_encoder(options: argparse.Namespace) -> Encoder:
    device = torch.device(options.device)
    encoder = make_encoder(options.model, *make_network(options.model, device, options.small))
    if options.lora:
        add_lora(encoder.network, encoder.layers, LoraSettings(rank=options.lora))
    return encoder.to(device)


def plain_loop(manifest: Manifest, options: argparse.Namespace, device: torch.device, clock: Clock) -> None:
    class Files(torch.utils.data.Dataset[tuple[np.ndarray, int]]):
        def __len__(self) -> int:
            return manifest.table.height

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            path, key = manifest.table["path"][index], manifest.table["key"][index]
            wave, _ = soundfile.read(manifest.audio_path(path))
            repeated = np.tile(wave, CROP // len(wave) + 1)[:CROP]
            return repeated, int(key == "bonafide")

    def collate(items: list[tuple[np.ndarray, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([torch.tensor(wave, dtype=torch.float32) for wave, _ in items]), torch.tensor(
            [label for _, label in items]
        )

    encoder = make_network(options.model, device, options.small)[0].train()
    encoder.feature_extractor._freeze_parameters()
    head = nn.Linear(encoder.config.hidden_size, 2).to(device)
    parameters = [p for p in [*encoder.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)
    loader = torch.utils.data.DataLoader(
        Files(), options.batch, shuffle=True, num_workers=options.workers, collate_fn=collate, drop_last=True
    )
    while True:
        for wave, label in loader:
            clock.tick()
            loss = nn.functional.cross_entropy(
                head(encoder(wave.to(device)).last_hidden_state.mean(1)), label.to(device)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()


def breakdown(options: argparse.Namespace) -> dict[str, float]:
    """Measure the median seconds of each part of our step, waiting for the device after each."""
    device = torch.device(options.device)
    clock = Clock(device, WARM_UP + options.steps + 1)
    task, config = our_task(read_manifest(options.corpus / "set.tsv"), options, device, clock)
    dtype, _ = training_precision(device, "auto")
    model = task.model.to(device).train()
    optimizer = make_optimizer(model.get_submodule("encoder"), model.get_submodule("head"), config.finetune.optim)
    order = TrainingOrder(task.n_items, options.batch, 0, 0, config.finetune.n_steps)
    step_of = LossModule(model, task.loss)
    times: dict[str, list[float]] = {}
    loading = load_batches(
        task.items, order, workers=options.workers, shortest=int(model.shortest), pin=device.type == "cuda"
    )
    with suppress(Enough), loading as batches:
        mark = time.perf_counter()

        def done(what: str) -> None:
            nonlocal mark
            synchronise(device)
            now = time.perf_counter()
            times.setdefault(what, []).append(now - mark)
            mark = now

        for batch in batches:
            done("waiting for data")
            here = batch.to(device)
            done("copy to the device")
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                loss = step_of(here, float(options.batch))
            done("forward")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            done("backward")
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            done("clip")
            optimizer.step()
            done("optimiser")
    return {what: statistics.median(found[WARM_UP:]) for what, found in times.items()}


def flops_of_step(options: argparse.Namespace) -> int:
    """Count the floating-point operations of a training step per utterance, without adapters.

    A backward pass costs twice the forward pass, or once if the weights are frozen; the stem, which is always frozen,
    costs nothing.
    """
    device = torch.device(options.device)
    encoder = make_encoder(options.model, *make_network(options.model, device, options.small))
    forward = flops_of(encoder, torch.zeros(CROP))
    return forward + (1 if options.lora else 2) * (forward - flops_of_stem(encoder, device))


def flops_of_stem(encoder: Any, device: torch.device) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        encoder.network.feature_extractor(torch.zeros(1, CROP, device=device))
    return flops.get_total_flops()


if __name__ == "__main__":
    main()
