"""Training steps of `finetune`: speed, memory compared with the estimate of `info`, time of each part."""

import argparse
import contextlib
import io

import torch
from loading import make_corpus
from training import CROP, WARM_UP, breakdown, flops_of_step, measure, our_encoder

from gpu.bench import Bench, peak_of
from gpu.plan import Row, Rows
from spoofkit.models.detector import Detector
from spoofkit.models.device import training_precision
from spoofkit.models.memory import training_memory

RANK = 32
SECONDS = 5.0


def steps(bench: Bench, name: str, rank: int | None) -> Rows:
    """Run our loop in its default precision, on crops of 4.04 s from files of 5 s."""
    corpus = bench.work / "to_train_on"
    if not corpus.exists():
        corpus.mkdir()
        with contextlib.redirect_stdout(io.StringIO()):
            make_corpus(corpus, 2 * max(bench.train_batches), SECONDS)
    rank = rank and min(rank, 4 if bench.is_small else rank)
    settings = argparse.Namespace(
        model=name, device=str(bench.device), small=bench.is_small, lora=rank, workers=bench.workers,
        steps=bench.n_train_steps, corpus=corpus, row="ours, auto",
    )  # fmt: skip
    dtype, reason = training_precision(bench.device, "auto")
    n_flops = flops_of_step(settings)
    peak = peak_of(bench.device, "bf16" if dtype == torch.bfloat16 else "fp32", bench.n_products)
    what = f"LoRA of rank {rank}" if rank else "all weights but the stem's"
    yield Row(
        f"{what}; {reason}; {CROP} samples an utterance, {bench.n_train_steps} steps after {WARM_UP} to warm up, "
        f"{bench.workers} loader processes"
    )
    yield Row(f"{'batch':>5s}{'utt/s':>9s}{'of peak':>9s}{'peak memory':>13s}{'info, fp32':>14s}{'ratio':>8s}")
    for batch in bench.train_batches:
        settings.batch = batch
        try:
            found = measure(settings)
        except Exception as error:
            if "out of memory" not in str(error):
                raise
            yield Row(f"{batch:5d}   out of memory", {str(batch): "out of memory"})
            continue
        foretold = training_memory(Detector(our_encoder(settings), "mean").to("cpu"), batch, CROP / 16_000)["total"]
        share = found["rate"] * n_flops / peak
        memory, ratio = "-", "-"  # on a CPU the peak is that of the whole process so far
        if bench.device.type == "cuda":
            memory, ratio = f"{found['peak_GB']:.2f} GB", f"{1e9 * found['peak_GB'] / foretold:.2f}"
        yield Row(
            f"{batch:5d}{found['rate']:9.1f}{share:9.0%}{memory:>13s}{foretold / 1e9:11.3f} GB{ratio:>8s}",
            {str(batch): found | {"of peak": share, "foretold_GB": foretold / 1e9}},
        )
    times = breakdown(settings)
    words = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in times.items())
    yield Row(f"ms of a step of {settings.batch}, each part waited for: {words}", {"breakdown": times})
