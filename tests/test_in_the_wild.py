"""In-the-Wild as released becomes a manifest; names with spaces and commas, `bona-fide` and colliding ids included."""

import csv
from pathlib import Path

import polars as pl
import pytest
import soundfile
from conftest import SHARED, make_voice, refusal, run_cli

from spoofkit.corpora import in_the_wild
from spoofkit.corpora.prepare import prepare
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError

HEADER = "file,speaker,label\n"
# A comma in a name is quoted; NA and 007 are names like others.
ROWS = [
    ("0.wav", "Alec Guinness", "spoof"),
    ("1.wav", "NA", "bona-fide"),
    ("2.wav", "King, Martin Luther", "bona-fide"),
    ("10.wav", "007", "spoof"),
]


def make_in_the_wild(folder: Path) -> Path:
    """release_in_the_wild below `folder`, a second of sound a file."""
    corpus = folder / "release_in_the_wild"
    corpus.mkdir(parents=True)
    with open(corpus / "meta.csv", "w", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([("file", "speaker", "label"), *ROWS])
    for index, (file, _, label) in enumerate(ROWS):
        soundfile.write(corpus / file, make_voice(index, label == "bona-fide"), SAMPLE_RATE)
    return corpus


def read_text(tmp_path: Path, text: str) -> pl.DataFrame:
    (tmp_path / "meta.csv").write_text(text)
    return in_the_wild.read(tmp_path)[0].table


@pytest.mark.parametrize("above", [True, False])
def test_the_folder_or_the_one_above_becomes_the_same_manifest(above: bool, tmp_path: Path) -> None:
    corpus = make_in_the_wild(tmp_path / "unpacked")
    run_cli("prepare", "in_the_wild", corpus.parent if above else corpus, "-o", tmp_path / "data", "--partial")
    manifest = read_manifest(tmp_path / "data/eval.tsv")
    assert manifest.root == corpus
    assert manifest.table.select("utt_id", "path", "key", "speaker", "attack", "codec", "n_samples").rows() == [
        ("ITW_00000", "0.wav", "spoof", "Alec Guinness", "-", "-", SAMPLE_RATE),
        ("ITW_00001", "1.wav", "bonafide", "NA", "-", "-", SAMPLE_RATE),
        ("ITW_00002", "2.wav", "bonafide", "King, Martin Luther", "-", "-", SAMPLE_RATE),
        ("ITW_00010", "10.wav", "spoof", "007", "-", "-", SAMPLE_RATE),
    ]


def test_readers_that_split_or_look_for_bonafide_get_it_wrong(tmp_path: Path) -> None:
    """What a naive reader makes of the same file, so that the miniature holds the traps it claims to hold."""
    lines = (make_in_the_wild(tmp_path) / "meta.csv").read_text().splitlines()[1:]
    truth = {file: ("bonafide" if label == "bona-fide" else "spoof", speaker) for file, speaker, label in ROWS}
    by_spaces = {line.split(" ")[0]: line.split(" ")[-1] for line in lines}
    assert by_spaces != {file: label for file, _, label in ROWS}
    by_commas = {line.split(",")[0]: (line.split(",")[2], line.split(",")[1]) for line in lines}
    assert by_commas["2.wav"][0] not in ("bona-fide", "spoof")
    assert {"bonafide" if line.endswith(",bonafide") else "spoof" for line in lines} == {"spoof"}
    ours = in_the_wild.read(tmp_path)[0].table
    assert {row["path"]: (row["key"], row["speaker"]) for row in ours.to_dicts()} == truth


def test_ids_collide_with_no_numbered_corpus_and_sort_by_number(tmp_path: Path) -> None:
    make_in_the_wild(tmp_path)
    ids = in_the_wild.read(tmp_path)[0].table["utt_id"].to_list()
    assert sorted(ids) == ids
    assert not {file.removesuffix(".wav") for file, _, _ in ROWS} & set(ids)
    assert sorted(file for file, _, _ in ROWS) != [file for file, _, _ in ROWS]  # as they are named they do not


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "meta.csv: is empty"),
        (HEADER, "has a header and no rows"),
        ("0.wav,A B,spoof\n1.wav,A B,spoof\n", "line 1: found the columns 0.wav, .*, expected file, speaker, label"),
        (",file,speaker,label\n0,0.wav,A,spoof\n", "line 1: column 1 has no name"),
        (HEADER + "0.wav,A,spoof\n1.wav,A,bonafide\n", "line 3: label is 'bonafide', expected bona-fide or spoof"),
        (HEADER + "../0.wav,A,spoof\n", "line 2: file is '../0.wav', expected a number"),
        (HEADER + "0.wav,A,spoof\n0.wav,B,spoof\n", "line 3: file '0.wav' stood in line 2 already"),
        (HEADER + "0.wav,A,spoof\n\n1.wav,A,spoof\n", "line 3: is blank"),
        (HEADER + "0.wav,King, M,spoof\n", "line 2: found 4 fields, expected 3"),
        (HEADER + '0.wav,"A\nB",spoof\n', "line 2: a quoted field goes over several lines"),
        (HEADER + '0.wav,"A,spoof\n', "is not a row of a table .unexpected end of data."),
        (HEADER + "0.wav,,spoof\n", "line 2: speaker is '', expected a name"),
    ],
)
def test_another_list_is_refused_naming_the_line(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        read_text(tmp_path, text)


def test_a_list_saved_by_windows_is_the_same(tmp_path: Path) -> None:
    plain = read_text(tmp_path, HEADER + "0.wav,A B,spoof\n")
    (tmp_path / "meta.csv").write_bytes(("\ufeff" + HEADER + "0.wav,A B,spoof\n").replace("\n", "\r\n").encode())
    assert in_the_wild.read(tmp_path)[0].table.equals(plain)


def test_published_counts_are_accepted_and_others_need_partial(tmp_path: Path) -> None:
    labels = ["bona-fide"] * 19_963 + ["spoof"] * 11_816
    rows = "".join(f"{number}.wav,Some One,{label}\n" for number, label in enumerate(labels))
    (tmp_path / "meta.csv").write_text(HEADER + rows)
    found = prepare("in_the_wild", tmp_path, tmp_path / "data", headers=False)[0]
    assert (found.n_bonafide, found.n_spoof, found.partial) == (19_963, 11_816, "")
    (tmp_path / "meta.csv").write_text(HEADER + rows[: rows.rindex("\n", 0, -1) + 1])
    sentence = refusal("prepare", "in_the_wild", tmp_path, "-o", tmp_path / "less")
    assert "11,815 spoof" in sentence
    assert "11,816" in sentence


def test_no_list_and_no_such_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=r"meta.csv: no such file, nor release_in_the_wild/meta.csv; unpack"):
        in_the_wild.read(tmp_path)
    with pytest.raises(SpoofkitError, match="'train' is not a set of this corpus"):
        in_the_wild.read(make_in_the_wild(tmp_path), sets=("train",))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the quoted sample lines are not on this machine")
def test_lines_quoted_from_the_released_list_are_read(tmp_path: Path) -> None:
    lines = (SHARED / "cases/protocols/sample_lines.txt").read_text().splitlines()
    start = lines.index(HEADER.strip())
    table = read_text(tmp_path, "\n".join(lines[start : start + 3]) + "\n")
    assert table.select("utt_id", "key", "speaker").rows() == [
        ("ITW_00000", "spoof", "Alec Guinness"),
        ("ITW_00001", "spoof", "Alec Guinness"),
    ]
