"""Compare our encoders with unchanged transformers, interleaved in one run.

    python benchmarks/encoder.py                                 # wav2vec 2.0 base, WavLM base, XLS-R 300M
    python benchmarks/encoder.py --models wavlm-base --repeats 7 --device cuda

Weights are random, of the published sizes; utterances have mixed lengths. Every row is timed once in every round, so
that a machine that slows down slows all rows. The table shows medians over rounds and the ratio to transformers' row,
with the smallest and largest ratio of a round. `deviation` is the distance of a padded batch's frames from those of the
utterance alone, in standard deviations. The first round warms up and is not counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from networks import MODELS, RATE, cpu_name, flops_of, gemm_peak, make_encoder, make_network, pad, synchronise

from spoofkit.data.lengths import batches_by_length
from spoofkit.models.device import training_precision
from spoofkit.models.encoder import Encoder
from spoofkit.scoring.with_torch import batch_budget

NAMES = [name for name in MODELS if not name.startswith("whisper")]  # transformers' Whisper takes 30 s alone
BATCH = 6  # of the unsorted padded batches
TRAIN_BATCH, TRAIN_SAMPLES = 4, 2 * RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=["wav2vec2-base", "wavlm-base", "xlsr-300m"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--utterances", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    peak = gemm_peak(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    print(f"# {time.strftime('%Y-%m-%d')}, {name}, {options.threads} threads, torch {torch.__version__}")
    print(f"# fp32 matrix product: {peak / 1e9:.0f} GFLOP/s; {options.repeats} rounds after one to warm up")
    for model in options.models:
        benchmark(model, device, options.repeats, options.utterances, peak)


def benchmark(name: str, device: torch.device, repeats: int, n_utterances: int, peak: float) -> None:
    encoder, theirs, extractor = make(name, device)
    rng = np.random.default_rng(0)
    lengths = np.clip(RATE * rng.lognormal(1.0, 0.5, n_utterances), RATE, 10 * RATE).astype(int)
    waves = [torch.from_numpy(0.1 * rng.standard_normal(n)).float() for n in lengths]
    seconds = float(lengths.sum() / RATE)
    in_order = [list(range(i, min(i + BATCH, n_utterances))) for i in range(0, n_utterances, BATCH)]
    by_length = batches_by_length(lengths.tolist(), batch_budget(device))
    singly = [[i] for i in range(n_utterances)]

    def ours_on(batches: list[list[int]]) -> list[torch.Tensor]:
        frames: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for batch in batches:
                wave, n_samples = pad([waves[i] for i in batch], device)
                (hidden,), is_frame = encoder(wave, n_samples)
                frames |= {i: h[m].cpu() for i, h, m in zip(batch, hidden, is_frame, strict=True)}
        return [frames[i] for i in range(n_utterances)]

    def theirs_on(batches: list[list[int]]) -> list[torch.Tensor]:
        frames: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for batch in batches:
                inputs = extractor(
                    [waves[i].numpy() for i in batch], sampling_rate=RATE, padding=True, return_tensors="pt",
                    return_attention_mask=True,
                ).to(device)  # fmt: skip
                mask = inputs["attention_mask"] if len(batch) > 1 else None
                hidden = theirs(inputs["input_values"], attention_mask=mask).last_hidden_state
                for i, h in zip(batch, hidden, strict=True):
                    frames[i] = h[: encoder.geometry.n_frames(int(lengths[i]))].cpu()
        return [frames[i] for i in range(n_utterances)]

    rows: dict[str, Callable[[], Any]] = {
        "transformers, one by one": lambda: theirs_on(singly),
        "ours, one by one": lambda: ours_on(singly),
        f"transformers, padded {BATCH}": lambda: theirs_on(in_order),
        f"ours, padded {BATCH}": lambda: ours_on(in_order),
        "ours, by length": lambda: ours_on(by_length),
    }
    alone = {"ours": ours_on(singly), "transformers": theirs_on(singly)}
    n_flops = sum(flops_of(encoder, wave) for wave in waves)
    print(f"\n{name}: {n_utterances} utterances, {seconds:.0f} s, {n_flops / seconds / 1e9:.1f} GFLOP/s")
    print(f"  {'forward':34s} {'s':>7s} {'x real time':>12s} {'of peak':>8s} {'ratio':>22s} {'deviation':>10s}")
    times = interleave(rows, repeats, device)
    reference = times["transformers, one by one"]
    for row, run in rows.items():
        median = statistics.median(times[row])
        deviation = deviation_of(run(), alone[row.split(",")[0]])
        share = n_flops / median / peak
        print(
            f"  {row:34s} {median:7.2f} {seconds / median:12.1f} {share:8.0%} {ratio(reference, times[row]):>22s} "
            f"{deviation:10.1e}"
        )
    train_rows = training_rows(encoder, theirs, device)
    print(f"  {'training step, ' + str(TRAIN_BATCH) + ' x 2 s':34s} {'s':>7s} {'':12s} {'':8s} {'ratio':>22s}")
    times = interleave(train_rows, repeats, device)
    for row in train_rows:
        seconds = statistics.median(times[row])
        print(f"  {row:34s} {seconds:7.2f} {'':12s} {'':8s} {ratio(times['transformers'], times[row]):>22s}")


def make(name: str, device: torch.device) -> tuple[Encoder, Any, Any]:
    """Make our encoder and transformers' model with the same weights, and the feature extractor."""
    theirs, extractor = make_network(name, device)
    same, _ = make_network(name, device)
    same.load_state_dict(theirs.state_dict())
    theirs.feature_extractor._freeze_parameters()
    return make_encoder(name, same, extractor), theirs, extractor


def training_rows(encoder: Encoder, theirs: Any, device: torch.device) -> dict[str, Callable[[], Any]]:
    """Time a training step (forward, backward, AdamW): ours with fused AdamW, theirs with torch's default."""
    dtype, _ = training_precision(device, "auto")
    wave = 0.1 * torch.randn(TRAIN_BATCH, TRAIN_SAMPLES, device=device)
    n_samples = torch.full((TRAIN_BATCH,), TRAIN_SAMPLES, device=device)
    fused = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-6, fused=True)
    plain = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-6)

    def step(optimizer: torch.optim.Optimizer, forward: Callable[[], torch.Tensor]) -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = forward().float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def checkpointed() -> None:
        encoder.gradient_checkpointing = True
        step(fused, lambda: encoder(wave, n_samples)[0][0])
        encoder.gradient_checkpointing = False

    encoder.train()
    theirs.train()
    return {
        "transformers": lambda: step(plain, lambda: theirs(wave).last_hidden_state),
        "ours": lambda: step(fused, lambda: encoder(wave, n_samples)[0][0]),
        "ours, checkpointed": checkpointed,
    }


def interleave(rows: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {row: [] for row in rows}
    for round_ in range(repeats + 1):
        for row, run in rows.items():
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            if round_:
                times[row].append(time.perf_counter() - start)
    return times


def ratio(reference: list[float], times: list[float]) -> str:
    ratios = [r / t for r, t in zip(reference, times, strict=True)]
    return f"{statistics.median(reference) / statistics.median(times):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def deviation_of(frames: list[torch.Tensor], alone: list[torch.Tensor]) -> float:
    """Compute the largest difference of a frame from the utterance's alone, in standard deviations of its frames."""
    return max(float((f - a).abs().max() / a.std()) for f, a in zip(frames, alone, strict=True))


if __name__ == "__main__":
    main()
