"""RTTM in and out: read back to the sample; what says too little or contradicts is refused, by line."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import refusal, run_cli, write_frames
from hypothesis import given
from hypothesis import strategies as st

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.frames import WAV2VEC2_GEOMETRY
from spoofkit.data.manifest import Manifest, write_manifest
from spoofkit.data.rttm import encode_name, read_rttm
from spoofkit.data.segments import read_segments, segment_table, write_segments
from spoofkit.errors import SpoofkitError
from spoofkit.localisation import frame_scores
from spoofkit.localisation.marks import rttm
from spoofkit.localisation.regions import Marked, Rule

LENGTHS = {"clean": 32_000, "my call": 48_000, "通话 1": 16_000}
SPOOFED = {"clean": [], "my call": [(3200, 6403), (20_001, 48_000)], "通话 1": [(0, 16_000)]}
KEYS = {"clean": "bonafide", "my call": "spoof", "通话 1": "spoof"}


def table_of(lengths: dict[str, int], keys: dict[str, str]) -> pl.DataFrame:
    ids = sorted(lengths)
    known = {"utt_id": ids, "path": ["x.wav"] * len(ids), "key": [keys[utt_id] for utt_id in ids]}
    blank = {name: ["-"] * len(ids) for name in ("speaker", "attack", "codec")}
    return pl.DataFrame({**known, **blank, "n_samples": [lengths[utt_id] for utt_id in ids]})


def manifest_of(lengths: dict[str, int], keys: dict[str, str] = KEYS) -> Manifest:
    return Manifest(Path("set.tsv"), Path(), table_of(lengths, keys))


def written(name: str, regions: list[tuple[int, int]], is_fitted: bool = True) -> str:
    marked = [Marked(start, end, 0.0, 0.0) for start, end in regions]
    return rttm(name, marked, "spoof", Rule(0.0, "a test", is_fitted, 0.0, 0.0))


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "set.rttm"
    path.write_text("".join(written(name, own) for name, own in SPOOFED.items()))
    return path


NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)


@given(NAMES, st.lists(st.integers(1, 500_000), max_size=8), st.booleans())
def test_what_localize_writes_is_read_back_to_the_sample_under_its_name(
    tmp_path_factory: pytest.TempPathFactory, name: str, steps: list[int], is_fitted: bool
) -> None:
    edges = np.cumsum(steps)[: len(steps) // 2 * 2].tolist()
    regions = list(zip(edges[::2], edges[1::2], strict=True))
    path = tmp_path_factory.getbasetemp() / "identity.rttm"
    path.write_text(written(name, regions, is_fitted), newline="")
    found = read_rttm(path, manifest_of({name: 5_000_000}, {name: "-"}))
    assert list(found) == [name]
    assert [tuple(own) for own in found[name].tolist()] == regions


def test_names_stay_one_field_and_as_readable_as_they_were() -> None:
    assert encode_name("a b\tc%20\n") == "a%20b%09c%2520%0A"
    assert encode_name("通话.x_1-2") == "通话.x_1-2"


def test_lines_in_any_order_comments_bona_fide_and_overlaps_are_understood(tmp_path: Path) -> None:
    lines = [
        ";; made by hand",
        "SPEAKER my%20call 1 2.0 1.0 <NA> <NA> spoof <NA>",
        "",
        "SPEAKER my%20call 1 1.5 0.75 <NA> <NA> injected <NA> <NA>",
        "SPEAKER clean 1 0 2 <NA> <NA> bonafide <NA> <NA>",
        "SPEAKER\tmy%20call 1 0.1 .2 <NA> <NA> spoof <NA> <NA>",
        "SPEAKER 通话%201 1 0 1.005 <NA> <NA> spoof <NA> <NA>",  # within the overhang of 10 ms
    ]
    (tmp_path / "x.rttm").write_text("\ufeff" + "\r\n".join(lines))
    found = read_rttm(tmp_path / "x.rttm", manifest_of(LENGTHS))
    assert found["clean"].shape == (0, 2)
    assert found["my call"].tolist() == [[1600, 4800], [24_000, 48_000]]
    assert found["通话 1"].tolist() == [[0, 16_080]]


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("SPEAKER my call 1 0 1 <NA> <NA> spoof <NA> <NA>", "with blanks in the name as %20"),
        ("SPEAKER my%20call 1 0 1 spoof", "expected 'SPEAKER NAME"),
        ("LEXEME my%20call 1 0 1 <NA> <NA> spoof <NA> <NA>", "expected 'SPEAKER NAME"),
        ("SPEAKER nobody 1 0 1 <NA> <NA> spoof <NA> <NA>", "'nobody' is not in set.tsv"),
        ("SPEAKER nobody 1 0 1 <NA> <NA> bonafide <NA> <NA>", "'nobody' is not in set.tsv"),
        ("SPEAKER my%20call 1 0 3.02 <NA> <NA> spoof <NA> <NA>", "ends at 3.02 s, but 'my call' lasts 3 s"),
        ("SPEAKER my%20call 1 -1 1 <NA> <NA> spoof <NA> <NA>", "expected seconds"),
        ("SPEAKER my%20call 1 0 0 <NA> <NA> spoof <NA> <NA>", "the duration above 0"),
        ("SPEAKER my%20call 1 0 1e-9 <NA> <NA> spoof <NA> <NA>", "the duration above 0"),
        ("SPEAKER my%20call 1 nan 1 <NA> <NA> spoof <NA> <NA>", "expected seconds"),
        ("SPEAKER my%20call 1 0 inf <NA> <NA> spoof <NA> <NA>", "expected seconds"),
        ("SPEAKER my%20call 1 1,5 1 <NA> <NA> spoof <NA> <NA>", "'1,5'"),
        ("SPEAKER my%20call 1 0 1 <NA> <NA> anna <NA> <NA>", "'anna', expected spoof, injected or bonafide"),
        ("SPEAKER clean 1 0 1 <NA> <NA> spoof <NA> <NA>", "its key in set.tsv is bonafide"),
    ],
)
def test_a_line_that_cannot_be_right_is_named(line: str, fact: str, reference: Path) -> None:
    with reference.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(SpoofkitError) as error:
        read_rttm(reference, manifest_of(LENGTHS))
    assert str(error.value).startswith(f"{reference}, line 4: ")
    assert fact in str(error.value)


def test_a_spoofed_utterance_without_a_region_is_refused_unless_its_key_is_unknown(reference: Path) -> None:
    reference.write_text(written("my call", SPOOFED["my call"]))
    with pytest.raises(SpoofkitError, match="no region for 1 utterances whose key is spoof"):
        read_rttm(reference, manifest_of(LENGTHS))
    found = read_rttm(reference, manifest_of(LENGTHS, KEYS | {"通话 1": "-"}))
    assert found["通话 1"].shape == (0, 2)


def test_figures_are_those_of_the_same_regions_in_a_segments_file(reference: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = sorted(LENGTHS)
    n_frames = {utt_id: WAV2VEC2_GEOMETRY.n_frames(LENGTHS[utt_id]) for utt_id in ids}
    scores = {utt_id: rng.standard_normal(n_frames[utt_id]).astype(np.float32) for utt_id in ids}
    record = {"geometry": frame_scores.geometry_record(WAV2VEC2_GEOMETRY)}
    write_frames(tmp_path / "set.npz", ids, LENGTHS, scores, record)
    write_manifest(tmp_path / "set.tsv", tmp_path, table_of(LENGTHS, KEYS))
    write_segments(tmp_path / "set.segments.tsv", segment_table(SPOOFED))
    frames, manifest = tmp_path / "set.npz", ["--manifest", tmp_path / "set.tsv"]
    run_cli("evaluate-segments", frames, tmp_path / "set.segments.tsv", "-o", tmp_path / "a")
    run_cli("evaluate-segments", frames, reference, "-o", tmp_path / "b", *manifest)
    of_segments, of_rttm = (json.loads((tmp_path / name / "segments.json").read_text()) for name in "ab")
    assert of_rttm["made_from"]["manifest_sha256"]
    for result in (of_segments, of_rttm):
        del result["made_from"], result["made_with"], result["sha256"]
    assert of_rttm == of_segments
    spoofed = sum(end - start for own in SPOOFED.values() for start, end in own)
    assert of_rttm["spoofed_seconds"] == pytest.approx(spoofed / SAMPLE_RATE)
    run_cli("evaluate-segments", frames, reference, "-o", tmp_path / "b", *manifest, "--reuse")
    assert "--manifest" in refusal("evaluate-segments", frames, reference, "-o", tmp_path / "c")
    assert "leave it out" in refusal(
        "evaluate-segments", frames, tmp_path / "set.segments.tsv", "-o", tmp_path / "c", *manifest
    )
    assert not (tmp_path / "c").exists()


def test_a_segments_file_as_the_design_describes_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("# rows=2\nutt_id\tstart_seconds\tend_seconds\na\t0.5\t1.25\nb\t-\t-\n")
    assert {utt_id: own.tolist() for utt_id, own in read_segments(tmp_path / "s.tsv").items()} == {
        "a": [[8000, 20_000]],
        "b": [],
    }
