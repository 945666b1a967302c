"""Subsets of a manifest: nested, in proportion, drawn by name; manifests like any other."""

from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import refusal, run_cli

from spoofkit.data.manifest import Manifest, read_manifest, write_manifest
from spoofkit.data.segments import read_segments, segment_table, write_segments
from spoofkit.data.subset import draw_subset

SHARES = (0.1, 0.145, 0.2, 0.35, 0.5, 0.55, 0.999, 1.0)
COLUMNS = ("utt_id", "path", "key", "speaker", "attack", "codec", "n_samples")


def rows_of(rng: np.random.Generator, numbers: range, n_speakers: int = 12) -> pl.DataFrame:
    """Utterances of uneven strata; every speaker has both classes."""
    rows = []
    for number in numbers:
        attack = rng.choice(["-", "A01", "A02", "A03"], p=[0.3, 0.5, 0.15, 0.05])
        key = "bonafide" if attack == "-" else "spoof"
        speaker = f"S{rng.integers(n_speakers)}"
        rows.append((f"U_{number:05d}", f"{number}.flac", key, speaker, str(attack), "-", 16000))
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def ids(table: pl.DataFrame, **of: str) -> set[str]:
    return set(table.filter(**of)["utt_id"])


@pytest.mark.parametrize("seed", range(5))
def test_subsets_are_nested_and_each_stratum_is_rounded_to_the_nearest(seed: int) -> None:
    table = rows_of(np.random.default_rng(seed), range(60 + 97 * seed))
    manifest = Manifest(Path("set.tsv"), Path("/"), table)
    strata = table.select("key", "attack").unique().rows(named=True)
    drawn = [draw_subset(manifest, share, seed, "utterance") for share in SHARES]
    for smaller, larger in pairwise(drawn):
        assert ids(smaller) <= ids(larger)
    assert drawn[-1].equals(table)
    for share, own in zip(SHARES, drawn, strict=True):
        for stratum in strata:
            exact = Decimal(str(share)) * len(ids(table, **stratum))
            assert len(ids(own, **stratum)) == exact.to_integral_value(ROUND_HALF_UP)
    assert ids(draw_subset(manifest, 0.5, seed + 1, "utterance")) != ids(draw_subset(manifest, 0.5, seed, "utterance"))


@pytest.mark.parametrize("by", ["utterance", "speaker"])
def test_further_rows_do_not_reshuffle_the_others(by: str) -> None:
    rng = np.random.default_rng(1)
    before, more = rows_of(rng, range(0, 800, 2)), rows_of(rng, range(1, 800, 2), n_speakers=20)
    after = pl.concat([before, more]).sort("utt_id")
    for share in (0.2, 0.5):
        old, new = (draw_subset(Manifest(Path("set.tsv"), Path("/"), table), share, 3, by) for table in (before, after))
        of = ["key", "attack"] if by == "utterance" else []
        for stratum in before.select(of).unique().rows(named=True) if of else [{}]:
            a, b = ids(old, **stratum), ids(new, **stratum) & ids(before)
            assert a <= b or b <= a  # both are the first of one order


def test_whole_speakers_are_drawn_of_each_kind_and_nested() -> None:
    table = rows_of(np.random.default_rng(2), range(900), n_speakers=20)
    attackers = rows_of(np.random.default_rng(3), range(900, 1200), n_speakers=10).filter(key="spoof")
    table = pl.concat([table, attackers.with_columns(speaker="X" + pl.col("speaker"))])
    manifest = Manifest(Path("set.tsv"), Path("/"), table)
    before: set[str] = set()
    for share, n_both, n_attackers in ((0.2, 4, 2), (0.25, 5, 3), (0.5, 10, 5)):
        own = draw_subset(manifest, share, 0, "speaker")
        speakers = set(own["speaker"])
        assert ids(own) == ids(table.filter(pl.col("speaker").is_in(list(speakers))))
        assert len([name for name in speakers if name.startswith("X")]) == n_attackers
        assert len(speakers) == n_both + n_attackers
        assert before < speakers
        before = speakers


def test_a_seed_draws_the_same_in_every_version() -> None:
    """The SHA-256 of seed, tab and id is the order: `printf '0\\tU_00000' | sha256sum`."""
    table = rows_of(np.random.default_rng(0), range(40)).with_columns(key=pl.lit("spoof"), attack=pl.lit("A01"))
    own = draw_subset(Manifest(Path("set.tsv"), Path("/"), table), 0.1, 0, "utterance")
    assert own["utt_id"].to_list() == ["U_00003", "U_00010", "U_00022", "U_00028"]


def test_a_subset_is_a_manifest_that_says_what_it_is(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.tsv"
    shown = run_cli("subset", manifests / "train.tsv", "-o", out, "--share", "0.5", "--seed", 3).stdout
    source, own = read_manifest(manifests / "train.tsv"), read_manifest(out)
    assert (own.root, own.table.height, source.table.height) == (source.root, 8, 16)
    assert ids(own.table) < ids(source.table)
    assert {"share": 0.5, "seed": 3, "by": "utterance", "corpus": "asvspoof5"}.items() <= own.made_from.items()
    assert "subset of train.tsv: share 0.5 by utterance, seed 3: 8 of 16 utterances (50 %)" in own.partial
    assert f"train.tsv: partial: {source.partial}" in own.partial
    assert [line.split()[2:] for line in shown.splitlines() if line.startswith("all")] == [["8", "50.0%", "4"]]
    run_cli("validate", out, "--read-audio")
    run_cli("mixlist", "draw", out, "-o", tmp_path / "mix.tsv", "--set", "mix.n_train=4")
    run_cli("pack", manifests / "train.tsv", "-o", tmp_path / "packed")
    packed = tmp_path / "packed/half.tsv"
    run_cli("subset", tmp_path / "packed/train.tsv", "-o", packed, "--share", "0.5", "--seed", 3)
    assert ids(read_manifest(packed).table) == ids(own.table)
    run_cli("validate", packed, "--read-audio")


def test_an_output_is_reused_recreated_or_refused_as_in_every_verb(manifests: Path, tmp_path: Path) -> None:
    out, call = tmp_path / "part.tsv", ["subset", manifests / "train.tsv", "-o", tmp_path / "part.tsv", "--share"]
    run_cli(*call, 0.5)
    before = out.read_bytes()
    assert "exists already" in refusal(*call, 0.5)
    assert "up to date, skipped" in run_cli(*call, 0.5, "--reuse").stderr
    assert "inputs have changed since (by, seed)" in refusal(*call, 0.5, "--reuse", "--seed", 1, "--by", "speaker")
    run_cli(*call, 1, "--overwrite")
    run_cli(*call, 0.5, "--overwrite")
    assert out.read_bytes() == before
    assert "one of its own inputs" in refusal("subset", out, "-o", out, "--share", 0.5, "--overwrite")


def test_regions_beside_a_manifest_are_drawn_along(manifests: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "train.tsv", tmp_path / "part.tsv"
    source.write_bytes((manifests / "train.tsv").read_bytes())
    names = read_manifest(source).table["utt_id"]
    regions = {
        name: [(160 * number, 160 * number + 80), (9_000, 9_001)][: number % 3] for number, name in enumerate(names)
    }
    write_segments(tmp_path / "train.segments.tsv", segment_table(regions))
    call = ["subset", source, "-o", out, "--share", 0.5]
    run_cli(*call)
    found = {
        name: [tuple(region) for region in own.tolist()]
        for name, own in read_segments(tmp_path / "part.segments.tsv").items()
    }
    assert found == {name: regions[name] for name in read_manifest(out).table["utt_id"]}
    written = (tmp_path / "part.segments.tsv").read_bytes()
    for damage, state in ((lambda path: path.unlink(), None), (lambda path: path.write_text("x"), "damaged")):
        damage(tmp_path / "part.segments.tsv")
        if state:
            assert state in refusal(*call, "--reuse")
        run_cli(*call, "--overwrite" if state else "--reuse")
        assert (tmp_path / "part.segments.tsv").read_bytes() == written
    out.unlink()  # as a kill between the two leaves it
    run_cli(*call, "--reuse")
    write_segments(tmp_path / "train.segments.tsv", segment_table(dict(list(regions.items())[1:])), overwrite=True)
    assert f"lacks {names[0]!r}" in refusal("subset", source, "-o", tmp_path / "whole.tsv", "--share", 1)


@pytest.mark.parametrize("share", ["0", "-0.2", "1.01", "nan", "20"])
def test_a_share_outside_0_to_1_is_refused(share: str, manifests: Path, tmp_path: Path) -> None:
    message = refusal("subset", manifests / "train.tsv", "-o", tmp_path / "x.tsv", f"--share={share}")
    assert f"--share {float(share):g}" in message
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_drawn_is_refused(manifests: Path, tmp_path: Path) -> None:
    source = read_manifest(manifests / "train.tsv")
    call = ["-o", tmp_path / "x.tsv", "--share"]
    message = refusal("subset", source.path, *call, 0.05)
    assert str(source.path) in message
    assert "none of the 8 utterances with key 'bonafide'" in message
    one = pl.when(pl.col("utt_id") == source.table["utt_id"][2]).then(pl.lit("-")).otherwise(pl.col("speaker"))
    write_manifest(tmp_path / "unknown.tsv", source.root, source.table.with_columns(one.alias("speaker")))
    message = refusal("subset", tmp_path / "unknown.tsv", *call, 0.5, "--by", "speaker")
    assert "the speaker of 1 of 16 utterances is unknown" in message
    assert source.table["utt_id"][2] in message
    assert "ends in .tsv" in refusal("subset", source.path, "-o", tmp_path / "x", "--share", 0.5)
    assert not (tmp_path / "x.tsv").exists()
