#!/usr/bin/env python3
"""Compare mix-frame post-training with direct fine-tuning at equal steps: EER by seed, pool, attack and voice.

    python local/compare_seeds.py exp data/eval.tsv 0 1 2

Reads what stages 3 to 6 wrote, prints a table and writes EXP/comparison.json. Every figure is the official ASVspoof
EER in percent. Values are shown seed by seed, with paired differences and no verdict: at this size seeds and voices
move the figure more than a method does.
"""

import argparse
import statistics
import sys
from pathlib import Path

import polars as pl
import yaml

from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import eer
from spoofkit.evaluation.scores import join_scores, read_scores
from spoofkit.files import read_text, write_json

METHODS = {"direct": "direct fine-tuning", "mixframe": "mix-frame post-training"}
# Attacks that a listener hears at once, and attacks that keep the human spectrum; see corpus/ORIGIN.tsv.
SYNTHESIZERS = ("A17", "A18", "A19", "A22", "A23")
COPIES = ("A20", "A21")


def n_steps(experiment: Path) -> int:
    """Count the optimiser steps of an experiment, over both stages."""
    configs = [experiment / stage / "config.yaml" for stage in ("posttrain", "finetune")]
    settings = [yaml.safe_load(read_text(path)) for path in configs if path.exists()]
    return sum(s["posttrain" if "posttrain" in s else "finetune"]["n_steps"] for s in settings)


def pools(trials: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the trials of each line: all bona fide with some attacks, or one voice's bona fide with all attacks."""
    is_bonafide = pl.col("key") == "bonafide"
    chosen = {
        "all": pl.lit(True),
        "  synthesizers": is_bonafide | pl.col("attack").is_in(SYNTHESIZERS),
        "  copies of human speech": is_bonafide | pl.col("attack").is_in(COPIES),
    }
    for attack in trials.filter(~is_bonafide)["attack"].unique().sort():
        chosen[f"  attack {attack}"] = is_bonafide | (pl.col("attack") == attack)
    for voice in trials.filter(is_bonafide)["speaker"].unique().sort():
        chosen[f"  human voice {voice}"] = ~is_bonafide | (pl.col("speaker") == voice)
    found = {name: trials.filter(choice) for name, choice in chosen.items()}
    return {name: pool for name, pool in found.items() if pool["key"].n_unique() == 2}


def eer_percent(trials: pl.DataFrame) -> float:
    """Compute the EER of a pool, in percent."""
    is_bonafide = trials["key"] == "bonafide"
    bonafide, spoof = (trials.filter(chosen)["score"].to_numpy() for chosen in (is_bonafide, ~is_bonafide))
    return 100 * eer(bonafide, spoof).eer


def compare(exp: Path, manifest_path: Path, seeds: list[str]) -> dict[str, dict[str, list[float]]]:
    """Compute the EER in percent by pool, method and seed.

    Raises:
        SpoofkitError: a run is missing, or the two methods had different numbers of optimiser steps.
    """
    table = read_manifest(manifest_path).table
    found: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        steps = {method: n_steps(exp / f"{method}_seed{seed}") for method in METHODS}
        if len(set(steps.values())) > 1:
            raise SpoofkitError(f"{exp}: seed {seed} had {steps} optimiser steps, expected equal ones; retrain them")
        for method in METHODS:
            trials = join_scores(read_scores(exp / f"{method}_seed{seed}" / "scores" / "eval.tsv"), table)
            for name, pool in pools(trials).items():
                found.setdefault(name, {m: [] for m in METHODS})[method].append(eer_percent(pool))
    return found


def print_table(found: dict[str, dict[str, list[float]]], seeds: list[str], steps: int) -> None:
    """Print EERs to stdout: both methods and their difference by seed, then means by pool."""
    print(f"\nEER in % (official ASVspoof rule), eval set, {steps} optimiser steps each\n")
    print(f"{'':32}" + "".join(f"{'seed ' + seed:>9}" for seed in seeds) + f"{'mean':>9}{'spread':>9}")
    for method, name in METHODS.items():
        print_row(name, found["all"][method])
    differences = [after - before for before, after in zip(*found["all"].values(), strict=True)]
    print_row("mix-frame minus direct", differences, sign="+")
    print(f"\nmean over seeds by pool{'':9}{'direct':>9}{'mix-frame':>11}{'difference, seed by seed':>27}")
    for name, by_method in found.items():
        before, after = (statistics.mean(values) for values in by_method.values())
        by_seed = " ".join(f"{b - a:+.1f}" for a, b in zip(*by_method.values(), strict=True))
        print(f"{name:32}{before:9.2f}{after:11.2f}{by_seed:>27}")
    print("\nA corpus of a dozen voices cannot tell two methods apart by a few points; see README.md.")


def print_row(name: str, values: list[float], sign: str = "") -> None:
    """Print one line: a value per seed, their mean and their range."""
    cells = [f"{value:{sign}.2f}" for value in [*values, statistics.mean(values)]]
    print(f"{name:32}" + "".join(f"{cell:>9}" for cell in [*cells, f"{max(values) - min(values):.2f}"]))


def main() -> None:
    """Read the command line and compare; an error is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path, help="folder with direct_seed0, mixframe_seed0 …")
    parser.add_argument("manifest", type=Path, help="the eval manifest")
    parser.add_argument("seeds", nargs="+")
    arguments = parser.parse_args()
    try:
        found = compare(arguments.exp, arguments.manifest, arguments.seeds)
        write_json(arguments.exp / "comparison.json", {"seeds": arguments.seeds, "eer_percent": found}, overwrite=True)
    except SpoofkitError as error:
        sys.exit(f"compare_seeds: error: {error}")
    print_table(found, arguments.seeds, n_steps(arguments.exp / f"direct_seed{arguments.seeds[0]}"))
    for method in METHODS:
        report = arguments.exp / f"{method}_seed{arguments.seeds[0]}" / "results" / "eval" / "report.html"
        print(f"report: {report.resolve()}")  # the user may be in another folder than the recipe


if __name__ == "__main__":
    main()
