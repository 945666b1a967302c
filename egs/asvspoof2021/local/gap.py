#!/usr/bin/env python3
"""Compare two evaluation sets: both EERs, their difference, and intervals from resampled speakers.

    python local/gap.py exp/xlsr300m data la21/eval df21/eval

Reads EXP/scores/SET.tsv and DATA/SET.tsv, prints a table and writes EXP/gap.json. EERs are the official ASVspoof
figure, in percent. A speaker who is in both sets is drawn for both, so that an effect on both figures does not widen
the interval of their difference. A small gap says nothing by itself: two sets can be equally bad.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import N_REPLICATES, draw_clusters, eer_replicates, make_walk
from spoofkit.evaluation.intervals import CONFIDENCE, interval, rate_interval
from spoofkit.evaluation.metrics import EER_VARIANT, eer
from spoofkit.evaluation.scores import join_scores, read_scores
from spoofkit.files import write_json
from spoofkit.terminal import say


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs=2, metavar="SET")
    options = parser.parse_args()
    try:
        found = gap(options.exp, options.data, options.sets)
        write_json(options.exp / "gap.json", found, overwrite=True)
    except SpoofkitError as error:
        say(f"gap.py: {error}")
        raise SystemExit(1) from None
    for caveat in found["caveats"]:
        print(caveat)
    print(f"EER in percent ({EER_VARIANT}), {CONFIDENCE:.0%} interval of {N_REPLICATES:,} draws of speakers")
    for name, line in found["figures"].items():
        around = f"{line['low']:.3f} to {line['high']:.3f}"
        print(f"  {name:32s} {line['value']:7.3f}   {around}   {line['n_speakers']} speakers")


def gap(exp: Path, data: Path, sets: list[str]) -> dict[str, object]:
    """Compute the EERs of both sets and their difference, each with its interval."""
    manifests = [read_manifest(data / f"{name}.tsv") for name in sets]
    trials = [
        join_scores(read_scores(exp / "scores" / f"{name}.tsv"), manifest.table)
        for name, manifest in zip(sets, manifests, strict=True)
    ]
    for name, table in zip(sets, trials, strict=True):
        unknown = table.filter(pl.col("speaker") == "-").height
        if unknown:
            raise SpoofkitError(
                f"{data / name}.tsv: the speaker of {unknown:,} trials is unknown, so speakers cannot be resampled"
            )
    speakers = sorted(set().union(*(table["speaker"].unique() for table in trials)))
    number = {speaker: index for index, speaker in enumerate(speakers)}
    draws_RC = draw_clusters(len(speakers))
    lines: dict[str, dict[str, float]] = {}
    replicates, values = [], []
    for name, table in zip(sets, trials, strict=True):
        score, is_bonafide = table["score"].to_numpy(), (table["key"] == "bonafide").to_numpy()
        cluster = table["speaker"].replace_strict(number).to_numpy()
        values.append(100 * eer(score[is_bonafide], score[~is_bonafide]).eer)
        replicates.append(100 * eer_replicates(make_walk(score, is_bonafide, cluster, len(speakers)), draws_RC))
        n_speakers = min(np.unique(cluster[own]).size for own in (is_bonafide, ~is_bonafide))
        ends = rate_interval(values[-1], replicates[-1], n_speakers)
        lines[name] = line_of(values[-1], ends, int(table["speaker"].n_unique()))
    ends = interval(replicates[1] - replicates[0])
    lines[f"{sets[1]} - {sets[0]}"] = line_of(values[1] - values[0], ends, len(speakers))
    caveats = [caveat for manifest in manifests for caveat in manifest.caveats()]
    return {
        "caveats": caveats,
        "eer_variant": EER_VARIANT,
        "confidence": CONFIDENCE,
        "n_replicates": N_REPLICATES,
        "figures": lines,
    }


def line_of(value: float, ends: tuple[float, float], n_speakers: int) -> dict[str, float]:
    """Return a figure and its interval."""
    return {"value": value, "low": ends[0], "high": ends[1], "n_speakers": n_speakers}


if __name__ == "__main__":
    main()
