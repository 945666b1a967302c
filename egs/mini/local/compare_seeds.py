#!/usr/bin/env python3
"""Compare mix-frame post-training with direct fine-tuning at equal steps: EER by seed, tier and voice, with intervals.

    python local/compare_seeds.py exp data/eval.tsv 0 1 2

Reads what stages 3 to 6 wrote, prints tables and writes EXP/comparison.json, which has all digits. Every figure is the
official ASVspoof EER in percent. A tier is a value of the manifest's column `attack_tag`; its EER is that of its spoofs
against all bona fide trials, in files without a codec: codecs are unseen in train too, and have a row of their own.
Intervals resample voices; a difference is post-trained minus direct, paired by trial, and over several seeds its
interval has the variance of the seeds too (`spoofkit.evaluation.paired`). There is no verdict.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml

from spoofkit.data.manifest import Manifest, read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import N_REPLICATES, Clusters, clusters_of, draw_clusters
from spoofkit.evaluation.intervals import CONFIDENCE, rate_interval
from spoofkit.evaluation.metrics import EER_VARIANT, eer
from spoofkit.evaluation.paired import Measured, freedom_of_speakers, measure_seeds, paired_difference
from spoofkit.evaluation.scores import read_trials
from spoofkit.files import read_text, write_json
from spoofkit.stages import read_stages
from spoofkit.tables import Column, Table, show

Row = dict[str, Any]
Scores = dict[str, list[npt.NDArray[np.float64]]]  # of each method, by seed
METHODS = {"direct": "direct", "mixframe": "post-trained"}
FIGURE = "eer_official_percent"
TIER = "attack_tag"
TIERS = ("near", "mid", "far", "mel")
"""Tiers in the order of the table; others follow. A log-mel encoder hears next to nothing of the last."""
HARDEST = TIERS[-1]
UNCODED, CODED = "-", "coded"
FRAMES = {
    "dev_frame_eer_percent": "all",
    "dev_frame_eer_away_from_splices_percent": "away from splices",
    "dev_position_only_eer_percent": "position alone",
}


def n_steps(experiment: Path) -> int:
    """Count the optimiser steps of an experiment, over both stages."""
    configs = [experiment / stage / "config.yaml" for stage in ("posttrain", "finetune")]
    settings = [yaml.safe_load(read_text(path)) for path in configs if path.exists()]
    return sum(s["posttrain" if "posttrain" in s else "finetune"]["n_steps"] for s in settings)


def tiers(table: pl.DataFrame) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the trials of each row: all, all but the hardest tier, each tier without codecs, all but it with them."""
    is_bonafide = (table["key"] == "bonafide").to_numpy()
    tag = table[TIER if TIER in table.columns else "key"].to_numpy()
    found = set(tag[~is_bonafide])
    chosen = {"all": np.full(table.height, True)}
    if len(found) == 1:
        return chosen
    is_rest = is_bonafide | (tag != HARDEST)
    if HARDEST in found:
        chosen[f"all but {HARDEST}"] = is_rest
    is_coded = (table["codec"] != UNCODED).to_numpy()
    ordered = [tier for tier in TIERS if tier in found] + sorted(found - set(TIERS))
    chosen |= {str(tier): (is_bonafide | (tag == tier)) & ~is_coded for tier in ordered}
    return chosen | ({CODED: is_rest & is_coded} if is_coded.any() else {})


def compare(exp: Path, manifest: Manifest, seeds: Sequence[str], n_replicates: int = N_REPLICATES) -> dict[str, Any]:
    """Compare both methods by tier and by human voice, and tell what post-training measured of frames.

    Raises:
        SpoofkitError: a run is missing, or the two methods had different numbers of optimiser steps.
    """
    steps = {f"{method}_seed{seed}": n_steps(exp / f"{method}_seed{seed}") for seed in seeds for method in METHODS}
    if len(set(steps.values())) > 1:
        raise SpoofkitError(f"{exp}: found {steps} optimiser steps, expected equal ones; train again with --overwrite")
    table = manifest.table
    scores: Scores = {method: [] for method in METHODS}
    for method, seed in product(METHODS, seeds):
        trials = read_trials(exp / f"{method}_seed{seed}" / "scores" / "eval.tsv", manifest)
        scores[method].append(trials["score"].to_numpy())
    clusters = clusters_of(table)
    if clusters.n_clusters == 1:
        clusters = clusters_of(table, "trial")
    draws = draw_clusters(clusters.n_clusters, n_replicates)
    return {
        "seeds": list(seeds),
        "optimiser_steps": next(iter(steps.values())),
        "eer_variant": EER_VARIANT,
        "confidence": CONFIDENCE,
        "n_replicates": n_replicates,
        "resampled": clusters.of,
        "n_clusters": clusters.n_clusters,
        "note": clusters.note,
        "tiers": [tier_row(name, chosen, table, scores, clusters, draws) for name, chosen in tiers(table).items()],
        "voices": voice_rows(table, scores),
        "frames": [frame_figures(exp / f"mixframe_seed{seed}") for seed in seeds],
    }


def tier_row(
    name: str,
    chosen: npt.NDArray[np.bool_],
    table: pl.DataFrame,
    scores: Scores,
    clusters: Clusters,
    draws: npt.NDArray[np.int64],
) -> Row:
    """Compute the figures of some trials, for each seed and over the seeds."""
    own = replace(clusters, number_N=clusters.number_N[chosen])
    trials = table.filter(pl.Series(chosen))
    measured = {
        method: measure_seeds([score[chosen] for score in of_seeds], trials, own, draws)[FIGURE]
        for method, of_seeds in scores.items()
    }
    n_seeds = len(next(iter(scores.values())))
    is_bonafide = (trials["key"] == "bonafide").to_numpy()
    freedom = freedom_of_speakers(own, is_bonafide)
    n_voices = min(own.n_with(is_bonafide), own.n_with(~is_bonafide))
    return {
        "name": name,
        "n_bonafide": int(is_bonafide.sum()),
        "n_spoof": int((~is_bonafide).sum()),
        "seeds": [
            figures({m: _of_seed(of, place) for m, of in measured.items()}, freedom, n_voices)
            for place in range(n_seeds)
        ],
        "over_seeds": figures(measured, freedom, n_voices),
    }


def _of_seed(measured: Measured, place: int) -> Measured:
    return Measured(measured.values_S[place : place + 1], measured.replicates_SR[place : place + 1])


def figures(measured: Mapping[str, Measured], freedom: float, n_voices: int) -> Row:
    """Return the EER of both methods, mean over seeds, and their difference, each with its interval.

    An interval is None where too few voices have both classes, that of a difference also where no trial is an error.
    `freedom` is that of the voices, `n_voices` the number of the class that has fewer.
    """
    row: Row = {}
    for method, of in measured.items():
        try:
            low, high = rate_interval(of.mean, of.replicates_SR.mean(axis=0), n_voices)
        except SpoofkitError:
            low = high = None
        row[method] = {"eer_percent": of.mean, "low": low, "high": high}
    control, other = measured.values()
    try:
        row["difference"] = paired_difference(control, other, freedom)
    except SpoofkitError:
        row["difference"] = {"difference": other.mean - control.mean, "low": None, "high": None}
    return row


def voice_rows(table: pl.DataFrame, scores: Scores) -> list[Row]:
    """Compute the EER of each human voice against all spoofs, mean over seeds; a single voice has no interval."""
    is_bonafide = (table["key"] == "bonafide").to_numpy()
    speaker = table["speaker"].to_numpy()
    rows: list[Row] = []
    for voice in sorted(set(speaker[is_bonafide])):
        own = is_bonafide & (speaker == voice)
        row: Row = {"name": voice, "n_bonafide": int(own.sum())}
        for method, of_seeds in scores.items():
            row[method] = 100 * float(np.mean([eer(score[own], score[~is_bonafide]).eer for score in of_seeds]))
        rows.append(row)
    return rows


def frame_figures(experiment: Path) -> dict[str, float]:
    """Return what post-training measured of frames, on held-out mixes of dev; nothing of a control without frames."""
    stages = read_stages(experiment / "posttrain" / "encoder")
    measured = stages[-1].get("kept", {}).get("figures", {}) if stages else {}
    return {name: measured[name] for name in FRAMES if name in measured}


def print_comparison(found: Mapping[str, Any]) -> None:
    """Print a table for each seed, one over seeds if there are several, one of voices and one of frames."""
    seeds = found["seeds"]
    show("", f"EER in % ({found['eer_variant']}) on eval, {found['optimiser_steps']} optimiser steps each")
    for place, seed in enumerate(seeds):
        show("", tier_table(f"seed {seed}", [(row, row["seeds"][place]) for row in found["tiers"]]))
    if len(seeds) > 1:
        show("", tier_table("mean over seeds", [(row, row["over_seeds"]) for row in found["tiers"]]))
    has_codecs = any(row["name"] == CODED for row in found["tiers"])
    what = "voices" if found["resampled"] == "speaker" else "single trials"
    draws = f"{found['n_replicates']:,} draws of {found['n_clusters']} {what}"
    of_seeds = "that of the mean difference has the variation of seeds too" if len(seeds) > 1 else "one seed"
    show(
        "",
        "Beside a name: the number of its spoofs. difference: post-trained minus direct, paired by trial.",
        *(["Tiers are without codecs; coded: what codecs do to all of them."] if has_codecs else []),
        f"{found['confidence']:.0%} intervals: {draws}; {of_seeds}.",
        *([found["note"]] if found["note"] else []),
    )
    if len(found["voices"]) > 1:
        columns = [Column("name", "human voice"), *(Column(method, name, ".1f") for method, name in METHODS.items())]
        show("", Table(columns, found["voices"]))
    if all(found["frames"]):
        columns = [Column("seed", "frames"), *(Column(name, heading, ".1f") for name, heading in FRAMES.items())]
        frames = [{"seed": f"seed {seed}"} | row for seed, row in zip(seeds, found["frames"], strict=True)]
        show("", "Frame EER in % after post-training, on held-out mixes of dev:", "", Table(columns, frames))


def tier_table(title: str, rows: Sequence[tuple[Row, Row]]) -> Table:
    """Lay out rows: a tier and its figures."""
    columns = [Column("name", title), *(Column(method, name) for method, name in METHODS.items()), Column("difference")]
    return Table(
        columns,
        [
            {"name": f"{tier['name']}, {tier['n_spoof']:,}"}
            | {method: _cell(row[method]["eer_percent"], row[method], "") for method in METHODS}
            | {"difference": _cell(row["difference"]["difference"], row["difference"], "+")}
            for tier, row in rows
        ],
    )


def _cell(value: float, ends: Row, sign: str) -> str:
    """Format a figure with its interval, such as 24.4 [19.1, 33.2]."""
    if ends["low"] is None:
        return f"{value:{sign}.1f}"
    return f"{value:{sign}.1f} [{ends['low']:{sign}.1f}, {ends['high']:{sign}.1f}]"


def main() -> None:
    """Read the command line and compare; an error is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path, help="folder with direct_seed0, mixframe_seed0 …")
    parser.add_argument("manifest", type=Path, help="the eval manifest")
    parser.add_argument("seeds", nargs="+")
    arguments = parser.parse_args()
    try:
        found = compare(arguments.exp, read_keyed_manifest(arguments.manifest), arguments.seeds)
        write_json(arguments.exp / "comparison.json", found, overwrite=True)
    except SpoofkitError as error:
        sys.exit(f"compare_seeds: error: {error}")
    print_comparison(found)
    print()
    for method in METHODS:
        report = arguments.exp / f"{method}_seed{arguments.seeds[0]}" / "results" / "eval" / "report.html"
        print(f"report: {report.resolve()}")  # the user may be in another folder than the recipe


if __name__ == "__main__":
    main()
