"""Compare our evaluation with the plain sort and walk of the official packages, interleaved in one run.

    python benchmarks/evaluate.py                       # a list of the size of ASVspoof 5 eval
    python benchmarks/evaluate.py --trials 10000000 --repeats 3

Scores are normal, with the attacks, codecs and class sizes of ASVspoof 5 eval and 700 speakers. `plain` does what the
official evaluation packages do: it joins the classes, argsorts them, walks with cumulative sums for the EER and again
for the DCF, and does so for each attack and codec after filtering the trials. The figures of both must be equal. The
table shows medians over rounds, and ratios with the smallest and largest of a round.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from spoofkit.data.manifest import write_manifest
from spoofkit.evaluation.bootstrap import draw_clusters, eer_replicates, make_walk, min_dcf_replicates
from spoofkit.evaluation.breakdown import measure
from spoofkit.evaluation.measuring import EvaluationOptions, measure_files
from spoofkit.evaluation.metrics import act_dcf, cllr, eer, min_dcf
from spoofkit.evaluation.scores import write_scores

BONAFIDE_SHARE = 138_688 / 680_774
N_SPEAKERS = 700


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=680_774)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    trials = make_trials(options.trials)
    print(f"# {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {options.trials:,} trials, {options.repeats} rounds")
    is_bonafide = (trials["key"] == "bonafide").to_numpy()
    score = trials["score"].to_numpy()
    classes = score[is_bonafide], score[~is_bonafide]
    cluster = trials["speaker"].cast(pl.Int64).to_numpy()
    draws = draw_clusters(N_SPEAKERS, 1000)
    assert ours(*classes)[:2] == plain(*classes)[:2]
    found = measure(trials)["by_attack_and_codec"]
    for place in (0, 100, len(found) - 1):
        row = found[place]
        cell = trials.filter(pl.col("codec") == row["codec"])
        spoof = cell.filter(pl.col("attack") == row["attack"])["score"].to_numpy()
        expected = plain(cell.filter(pl.col("key") == "bonafide")["score"].to_numpy(), spoof)
        assert row["eer_official_percent"] == 100 * expected[0], row
    compare("pooled: EER, minDCF, actDCF, Cllr", lambda: ours(*classes), lambda: plain(*classes), options.repeats)
    compare("all attacks x codecs", lambda: measure(trials), lambda: plain_breakdown(trials), options.repeats)
    walk = make_walk(score, is_bonafide, cluster, N_SPEAKERS)
    one = draws[:1]
    print("1,000 replicates of the EER by speaker; plain: one replicate, times 1,000")
    compare(
        "  EER",
        lambda: eer_replicates(make_walk(score, is_bonafide, cluster, N_SPEAKERS), draws),
        lambda: plain_replicate(score, is_bonafide, cluster, one[0]),
        options.repeats,
        scale=1000,
    )
    times = [seconds(lambda: min_dcf_replicates(walk, draws)) for _ in range(options.repeats)]
    print(f"  {'minDCF':40s} ours {statistics.median(times):8.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        whole_command(Path(folder), trials, options.repeats)


def make_trials(n_trials: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    is_bonafide = rng.random(n_trials) < BONAFIDE_SHARE
    attacks, codecs = np.array([f"A{k}" for k in range(17, 33)]), np.array(["-", *(f"C{k:02d}" for k in range(1, 12))])
    attack = np.where(is_bonafide, "-", attacks[rng.integers(0, 16, n_trials)])
    return pl.DataFrame(
        {
            "utt_id": [f"E_{index:010d}" for index in range(n_trials)],
            "key": np.where(is_bonafide, "bonafide", "spoof"),
            "attack": attack,
            "codec": codecs[rng.integers(0, 12, n_trials)],
            "speaker": rng.integers(0, N_SPEAKERS, n_trials).astype(str),
            "score": rng.normal(0, 1, n_trials) + 3 * is_bonafide,
        }
    )


def ours(bonafide: np.ndarray, spoof: np.ndarray) -> tuple[float, ...]:
    return eer(bonafide, spoof).eer, min_dcf(bonafide, spoof), act_dcf(bonafide, spoof), cllr(bonafide, spoof)


def plain(bonafide: np.ndarray, spoof: np.ndarray) -> tuple[float, ...]:
    scores = np.concatenate((bonafide, spoof))
    classes = np.concatenate((np.ones(bonafide.size), np.zeros(spoof.size)))
    figures = []
    for figure in ("eer", "dcf"):
        classes_in_order = classes[np.argsort(scores, kind="mergesort")]
        rejected = np.cumsum(classes_in_order)
        rejected_spoof = np.arange(1, scores.size + 1) - rejected
        miss = np.concatenate(([0], rejected / bonafide.size))
        fa = np.concatenate(([1], (spoof.size - rejected_spoof) / spoof.size))
        if figure == "eer":
            best = np.argmin(np.abs(miss - fa))
            figures.append(float(np.mean((miss[best], fa[best]))))
        else:
            figures.append(float(np.min((0.95 * miss + 0.5 * fa) / 0.5)))
    cut = -np.log(1.9)
    figures.append(float((0.95 * np.mean(bonafide < cut) + 0.5 * np.mean(spoof >= cut)) / 0.5))
    figures.append(float((np.mean(np.log2(1 + np.exp(-bonafide))) + np.mean(np.log2(1 + np.exp(spoof)))) / 2))
    return tuple(figures)


def plain_breakdown(trials: pl.DataFrame) -> list[tuple[float, ...]]:
    score, key = trials["score"].to_numpy(), trials["key"].to_numpy()
    attack, codec = trials["attack"].to_numpy(), trials["codec"].to_numpy()
    found = []
    codecs, attacks = np.unique(codec), np.unique(attack[key == "spoof"])
    for one_codec in [None, *codecs]:
        in_codec = np.ones(score.size, dtype=bool) if one_codec is None else codec == one_codec
        for one_attack in [None, *attacks]:
            is_spoof = (key == "spoof") if one_attack is None else attack == one_attack
            found.append(plain(score[in_codec & (key == "bonafide")], score[in_codec & is_spoof]))
    return found


def plain_replicate(score: np.ndarray, is_bonafide: np.ndarray, cluster: np.ndarray, draw: np.ndarray) -> float:
    rows = np.repeat(np.arange(score.size), draw[cluster])
    return plain(score[rows][is_bonafide[rows]], score[rows][~is_bonafide[rows]])[0]


def whole_command(folder: Path, trials: pl.DataFrame, repeats: int) -> None:
    table = trials.drop("score").with_columns(path=pl.col("utt_id") + ".flac", n_samples=pl.lit(64_000, dtype=pl.Int64))
    write_manifest(folder / "eval.tsv", folder, table)
    write_scores(folder / "scores.tsv", trials["utt_id"].to_list(), trials["score"].to_numpy())
    paths = folder / "scores.tsv", folder / "eval.tsv"
    quick = EvaluationOptions(n_replicates=0)
    measure_files(*paths, quick)  # what is imported late is imported here
    show("evaluate after imports: files to all figures", lambda: measure_files(*paths, quick), repeats)
    show("evaluate after imports: with 1,000 replicates", lambda: measure_files(*paths), repeats)
    command = [sys.executable, "-m", "spoofkit", "evaluate", *map(str, paths)]
    for name, more in (
        ("the command, no intervals, nothing written", ["--replicates", "0"]),
        ("the command, with intervals", []),
        ("the command, with page, PDF and PNG", ["-o", str(folder / "out"), "--overwrite"]),
    ):
        show(name, partial(subprocess.run, [*command, *more], check=True, capture_output=True), repeats)
    print(f"peak memory of a process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.2f} GB")


def show(name: str, call: Callable[[], Any], repeats: int) -> None:
    times = [seconds(call) for _ in range(repeats)]
    print(f"{name:47s} {statistics.median(times):8.3f} s ({min(times):.3f}-{max(times):.3f})", flush=True)


def compare(name: str, first: Callable[[], Any], second: Callable[[], Any], repeats: int, scale: float = 1) -> None:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        times[0].append(seconds(first))
        times[1].append(scale * seconds(second))
    ratios = [b / a for a, b in zip(*times, strict=True)]
    a, b = map(statistics.median, times)
    print(f"{name:42s} ours {a:8.3f} s   plain {b:8.3f} s   {b / a:6.1f} times ({min(ratios):.1f}-{max(ratios):.1f})")


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
