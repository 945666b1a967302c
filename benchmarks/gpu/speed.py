"""Speed: matrix products, the forward pass of each family, files from disk to scores."""

import dataclasses
import time
from typing import Any

import numpy as np
import torch
from networks import MODELS, flops_of, make_encoder, make_network
from scoring import make_set

from gpu.bench import SAMPLES, SECONDS, Bench, computing_in, median_seconds, peak_of
from gpu.correctness import succeeded
from gpu.plan import NotPossible, Row, Rows
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import Detector, save_detector
from spoofkit.models.encoder import Encoder
from spoofkit.scoring.batches import score_manifest
from spoofkit.scoring.scorer import HeadScores
from spoofkit.scoring.with_torch import scorer_of

COMPILED_BATCH = 64


def products(bench: Bench) -> Rows:
    """Measure the best matrix products; shares of peak refer to these."""
    for precision in bench.precisions:
        peak = peak_of(bench.device, precision, bench.n_products)
        yield Row(f"{precision}  {peak / 1e12:8.2f} TFLOP/s", {precision: peak})


def forward(bench: Bench, name: str) -> Rows:
    """Time our encoder and transformers' module on utterances of 4 s, in eager mode."""
    network, extractor = make_network(name, bench.device, bench.is_small)
    encoder = make_encoder(name, network, extractor)
    n_flops = flops_of(encoder, torch.zeros(SAMPLES))
    yield Row(f"{n_flops / 1e9:.1f} GFLOP an utterance of {SECONDS} s")
    if MODELS[name][0] == "Whisper":
        yield Row("transformers' encoder gets the spectrogram of 30 s that it insists on; ours makes its own, of 4 s")
    heads = {"": 5, "batch": 6, "ms": 10, "x real time": 13, "of peak": 9, "transformers, ms": 18, "ratio": 8}
    yield Row("".join(f"{head:>{width}s}" for head, width in heads.items()))
    for precision in bench.precisions:
        peak = peak_of(bench.device, precision, bench.n_products)
        for batch in bench.batches:
            try:
                times = times_of(encoder, network, batch, precision, bench)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                yield Row(f"{precision:5s}{batch:6d}   out of memory", {f"{precision}, {batch}": "out of memory"})
                continue
            ours, theirs = times["ours"], times["transformers"]
            share = batch * n_flops / ours / peak
            yield Row(
                f"{precision:5s}{batch:6d}{1000 * ours:10.2f}{batch * SECONDS / ours:13,.0f}{share:9.0%}"
                f"{1000 * theirs:18.2f}{theirs / ours:8.2f}",
                {f"{precision}, {batch}": times | {"of peak": share}},
            )


def times_of(encoder: Encoder, network: Any, batch: int, precision: str, bench: Bench) -> dict[str, float]:
    """Time a batch whose waves are already on the device, in seconds."""
    wave_BS = 0.1 * torch.randn(batch, SAMPLES, device=bench.device)
    n_samples_B = torch.full((batch,), SAMPLES, device=bench.device)
    if hasattr(network, "conv1"):  # Whisper
        inputs = torch.randn(batch, network.config.num_mel_bins, 3000, device=bench.device)
    else:
        inputs = wave_BS
    with torch.inference_mode(), computing_in(precision, bench.device):
        return median_seconds(
            {"ours": lambda: encoder(wave_BS, n_samples_B), "transformers": lambda: network(inputs)}, bench
        )


def compiled(bench: Bench) -> Rows:
    """Time our encoder with compiled layers and in eager mode, at one shape."""
    if bench.device.type != "cuda":
        raise NotPossible("compiling is measured on a GPU; for a CPU see the entry on choices in the encoders")
    network, extractor = make_network("xlsr-300m", bench.device, bench.is_small)
    encoder = make_encoder("xlsr-300m", network, extractor)
    batch = min(COMPILED_BATCH, max(bench.batches))
    wave_BS = 0.1 * torch.randn(batch, SAMPLES, device=bench.device)
    n_samples_B = torch.full((batch,), SAMPLES, device=bench.device)
    with torch.inference_mode(), computing_in("bf16", bench.device):
        eager = median_seconds({"eager": lambda: encoder(wave_BS, n_samples_B)}, bench)["eager"]
        try:
            encoder.compile_layers()
        except SpoofkitError as error:
            raise NotPossible(str(error)) from error
        start = time.perf_counter()
        encoder(wave_BS, n_samples_B)
        torch.cuda.synchronize()
        first = time.perf_counter() - start
        after = median_seconds({"compiled": lambda: encoder(wave_BS, n_samples_B)}, bench)["compiled"]
    yield Row(
        f"bf16, batch {batch}: eager {1000 * eager:.2f} ms, compiled {1000 * after:.2f} ms "
        f"({eager / after:.2f} times), the first call {first:.0f} s",
        {"eager": eager, "compiled": after, "first call": first},
    )


def score_files(bench: Bench) -> Rows:
    """Time `score` on a manifest of FLAC files of 1 to 10 s with XLS-R 300M in fp32, and how long it waits for data."""
    start = time.perf_counter()
    manifest = make_set(bench.work / "files", bench.n_files)
    seconds = float(manifest.table["n_samples"].sum() / 16_000)
    yield Row(f"{bench.n_files} files, {seconds / 60:.0f} minutes; written in {time.perf_counter() - start:.0f} s")
    encoder = make_encoder("xlsr-300m", *make_network("xlsr-300m", bench.device, bench.is_small))
    detector = Detector(encoder, "mean").to(bench.device).eval()
    scorer = scorer_of(detector, bench.device)
    computing = 0.0

    def score_padded(wave_BS: np.ndarray, n_samples_B: np.ndarray) -> HeadScores:
        nonlocal computing
        began = time.perf_counter()
        scores = scorer.score_padded(wave_BS, n_samples_B)  # ends with the scores on the host: the device is done
        computing += time.perf_counter() - began
        return scores

    scorer.score_padded(np.zeros((1, SAMPLES), np.float32), np.array([SAMPLES]))  # warms up
    start = time.perf_counter()
    score_manifest(dataclasses.replace(scorer, score_padded=score_padded), manifest)
    took = time.perf_counter() - start
    waiting = 1 - computing / took
    yield Row(
        f"scoring alone    {bench.n_files / took:8.1f} files/s {seconds / took:9,.0f} x real time, "
        f"{waiting:.0%} of the time waiting for data ({scorer.n_decoders} decoding threads)",
        {"files a second": bench.n_files / took, "x real time": seconds / took, "waiting": waiting},
    )
    save_detector(bench.work / "large", detector, {"settings": None})
    out = bench.work / "files.tsv"
    ended = succeeded("score", bench.work / "large", bench.work / "files/set.tsv", "-o", out, "--device", bench.device)
    yield Row(
        f"the whole verb   {bench.n_files / ended.seconds:8.1f} files/s {seconds / ended.seconds:9,.0f} x real time, "
        "with reading the model, without importing",
        {"verb, files a second": bench.n_files / ended.seconds},
    )
