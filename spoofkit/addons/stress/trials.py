"""The trials that a stress card measures: all of a set, or a balanced part of it that depends on the seed alone.

Half of a part is bona fide, if the set has enough. Bona fide trials are dealt evenly over speakers, spoofed ones over
attacks and, within an attack, over speakers. One that has fewer trials than the others gives all. The order within is
that of a hash of (seed, id), so a smaller part lies within a larger one of the same seed.
"""

import hashlib
from pathlib import Path
from typing import Any

import polars as pl

from spoofkit.data.manifest import Manifest, find_record, read_manifest, write_manifest
from spoofkit.files import file_sha256
from spoofkit.outputs import Output, Record, is_up_to_date


def write_trials(manifest: Manifest, out: Path, n_trials: int, seed: int, overwrite: bool) -> Manifest:
    """Write the trials to measure as a manifest, unless it is up to date, and read it.

    Args:
        manifest: The whole set, with keys.
        out: The manifest to write.
        n_trials: Number of trials; 0: all.
        seed: Seed of the order.
        overwrite: Replace earlier trials.

    Raises:
        SpoofkitError: `out` holds trials of another set, number or seed, or something else.
    """
    sha256 = file_sha256(manifest.path)
    made_from: dict[str, Any] = {"verb": "stress", "manifest_sha256": sha256, "trials": n_trials, "seed": seed}
    corpus = {"corpus": manifest.made_from["corpus"]} if "corpus" in manifest.made_from else {}
    output = Output("stress", (out,), out, made_from | corpus, _find_record, is_named=False)
    if not is_up_to_date(output, overwrite=overwrite, reuse=True):
        table = manifest.table
        partial = manifest.partial
        if 0 < n_trials < table.height:
            table = draw_trials(table, n_trials, seed)
            drawn = f"{n_trials:,} of {manifest.table.height:,} trials of {manifest.path.name}, balanced, seed {seed}"
            partial = "; ".join(filter(None, (drawn, partial)))
        write_manifest(
            out, manifest.root, table, made_from=output.made_from, partial=partial, downmix=manifest.downmix,
            n_rejected=manifest.n_rejected, overwrite=True,
        )  # fmt: skip
    return read_manifest(out)


def _find_record(path: Path) -> Record:
    """Read what existing trials were made from; a manifest of another verb is foreign."""
    found = find_record(path)
    return found if (found.made_from or {}).get("verb") == "stress" else Record(None, damage=found.damage)


def draw_trials(table: pl.DataFrame, n_trials: int, seed: int) -> pl.DataFrame:
    """Draw rows of a manifest, in its order.

    Args:
        table: `utt_id`, `key`, `attack`, `speaker`.
        n_trials: Number of rows, fewer than there are.
        seed: Seed of the order.
    """
    ranked = table.with_columns(
        pl.Series("place", [hashlib.sha256(f"{seed}\t{utt_id}".encode()).hexdigest() for utt_id in table["utt_id"]])
    )
    for name, within in (("of_speaker", ["key", "attack", "speaker"]), ("of_attack", ["key", "attack"])):
        # Dealt round by round: everyone's first, then everyone's second …
        ranked = ranked.sort("place" if name == "of_speaker" else ["of_speaker", "place"])
        ranked = ranked.with_columns(pl.int_range(pl.len()).over(within).alias(name))
    ranked = ranked.sort("of_attack", "place")
    is_bonafide = pl.col("key") == "bonafide"
    bonafide, spoof = ranked.filter(is_bonafide), ranked.filter(~is_bonafide)
    n_bonafide = min(max(n_trials // 2, n_trials - spoof.height), bonafide.height)
    kept = pl.concat([bonafide.head(n_bonafide), spoof.head(n_trials - n_bonafide)])["utt_id"]
    return table.filter(pl.col("utt_id").is_in(kept.to_list()))
