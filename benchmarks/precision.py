"""Score the same waves in fp32 and in another precision, in turn: seconds of the CPU, and shift.

    python benchmarks/precision.py --model wav2vec2-base

The weights are random, so the shift says what rounding does, not what it costs in truth: for that score a set with a
trained model in both precisions, and evaluate both.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scoring import MODELS, make_model, noise

from spoofkit.scoring.precision import compare
from spoofkit.scoring.scorer import pad
from spoofkit.scoring.with_torch import scorer_of

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="wav2vec2-base")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "tf32"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--waves", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.04)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scorer = scorer_of(make_model(Path(folder), options.model).to(options.device), torch.device(options.device))
    assert scorer.in_precision is not None
    fast = scorer.in_precision(options.precision)
    waves = [noise(np.random.default_rng(seed), int(options.seconds * RATE)) for seed in range(options.waves)]

    def score(score_padded: Callable) -> tuple[float, dict[str, np.ndarray]]:
        start = clock(options.device)
        found = {str(n): score_padded(*pad([wave])).utterance_B for n, wave in enumerate(waves)}
        return clock(options.device) - start, found

    pairs = [(score(scorer.score_padded), score(fast)) for _ in range(options.rounds + 1)][1:]  # one to warm up
    seconds = [statistics.median(pair[side][0] for pair in pairs) / len(waves) for side in (0, 1)]
    ratios = [exact[0] / rounded[0] for exact, rounded in pairs]
    shift = compare(pairs[0][0][1], pairs[0][1][1], None)
    print(
        f"{options.model}, {len(waves)} x {options.seconds:g} s, {torch.get_num_threads()} thread(s), one by one: fp32 "
        f"{seconds[0]:.3f} s, {options.precision} {seconds[1]:.3f} s a wave; {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}) times as fast; shift {shift['shift']}, largest {shift['largest_shift']}"
    )


def clock(device: str) -> float:
    """Return the seconds of the process's CPU time; on a GPU, whose scores are on the host by then, of a clock."""
    return time.process_time() if device == "cpu" else time.perf_counter()


if __name__ == "__main__":
    main()
