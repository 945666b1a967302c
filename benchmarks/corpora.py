"""Time how long `prepare` takes to read ASVspoof 5's lists, compared with a plain loop over lines.

    python benchmarks/corpora.py                   # the three lists of track 1 with their published counts
    python benchmarks/corpora.py --repeats 7 --set eval

The lists are generated: ids, attacks and codecs in the published numbers, in random order, without audio. The rows are
interleaved in every round; the first round warms up:

    naive          a loop over lines: split, compare the number of fields, append to lists; checks nothing else
    read           our reader: checks columns, ids, keys, attacks and that no id occurs twice
    prepare        the verb without headers: read, check the published counts, hash the list, write the manifest
    read_manifest  read the manifest back, with its own checks

Times are wall-clock seconds in one process, without imports: medians with the smallest and largest.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from spoofkit.corpora import asvspoof5
from spoofkit.corpora.counts import published_counts
from spoofkit.corpora.prepare import prepare
from spoofkit.data.manifest import read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(asvspoof5.LISTS), action="append", help="lists (default: all three)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write the lists (default: the temporary folder)")
    options = parser.parse_args()
    print(f"# {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, polars {pl.__version__}")
    print(f"{'':24s} {'seconds':>8s}   smallest-largest of {options.repeats} rounds")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in options.set or asvspoof5.LISTS:
            n_trials = write_list(Path(folder), name)
            print(f"# {name}: {n_trials:,} trials")
            benchmark(Path(folder), name, options.repeats)


def write_list(folder: Path, name: str) -> int:
    """Write a list of ASVspoof 5 with the published counts, attacks and codecs evenly distributed."""
    rng = np.random.default_rng(0)
    counts: dict[str, Any] = published_counts("asvspoof5")[name]
    file_name, letter = asvspoof5.LISTS[name]
    n_trials = sum(counts["key"].values())
    is_spoof = rng.permutation(n_trials) >= counts["key"]["bonafide"]
    attacks = rng.choice([attack for attack in counts["attack"] if attack != "-"], n_trials)
    codecs = rng.choice(counts["codec"], n_trials)
    numbers = rng.permutation(n_trials) * 11
    with (folder / file_name).open("w") as lines:
        for index in range(n_trials):
            attack, key, tag = (attacks[index], "spoof", "AC1") if is_spoof[index] else ("bonafide", "bonafide", "-")
            codec, utt_id = codecs[index], f"{letter}_{numbers[index]:010d}"
            quality, seed = ("2", f"{letter}_{numbers[index] + 1:010d}") if codec != "-" else ("0", "-")
            speaker, gender = f"{letter}_{index % 1000:04d}", "FM"[index % 2]
            lines.write(f"{speaker} {utt_id} {gender} {codec} {quality} {seed} {tag} {attack} {key} -\n")
    return n_trials


def benchmark(folder: Path, name: str, repeats: int) -> None:
    out, sets = folder / "data", (name,)
    rows: dict[str, Callable[[], object]] = {
        "naive": lambda: naive(folder / asvspoof5.LISTS[name][0]),
        "read": lambda: asvspoof5.read(folder, sets=sets),
        "prepare": lambda: prepare("asvspoof5", folder, out, sets=sets, headers=False, overwrite=True),
        "read_manifest": lambda: read_manifest(out / f"{name}.tsv"),
    }
    times: dict[str, list[float]] = {row: [] for row in rows}
    for round_ in range(repeats + 1):
        for row, run in rows.items():
            start = time.perf_counter()
            run()
            if round_:
                times[row].append(time.perf_counter() - start)
    for row, found in times.items():
        print(f"{row:24s} {statistics.median(found):8.3f}   {min(found):.3f}-{max(found):.3f}")


def naive(path: Path) -> pl.DataFrame:
    columns: dict[str, list[str]] = {column: [] for column in asvspoof5.COLUMNS}
    with path.open() as lines:
        for line in lines:
            fields = line.split()
            if len(fields) != len(columns):
                raise ValueError(line)
            for column, value in zip(columns, fields, strict=True):
                columns[column].append(value)
    return pl.DataFrame(columns)


if __name__ == "__main__":
    main()
