"""SpoofCeleb as released becomes manifests; a00 is bona fide, and the same file name stands below several attacks."""

from pathlib import Path

import pytest
import soundfile
from conftest import make_voice, refusal, run_cli

from spoofkit.corpora import spoofceleb
from spoofkit.corpora.prepare import prepare
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError

HEADER = "file,speaker,attack\n"
NAMES = ("YYsxcZ5saac-00002-006", "-KOA_Q89wDM-00066-003")
ATTACKS = {"train": "a01", "development": "a06", "evaluation": "a15"}


def make_spoofceleb(folder: Path) -> Path:
    """spoofceleb/metadata and spoofceleb/flac below `folder`: two sentences a set, bona fide and by one attack."""
    corpus = folder / "spoofceleb"
    (corpus / "metadata").mkdir(parents=True)
    for number, (released, attack) in enumerate(ATTACKS.items()):
        lines = [
            f"{which}/id1000{number}/{name}.flac,id1000{number},{which}" for which in ("a00", attack) for name in NAMES
        ]
        (corpus / f"metadata/{released}.csv").write_text(HEADER + "\n".join(lines) + "\n")
        for index, line in enumerate(lines):
            path = corpus / "flac" / released / line.split(",")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, make_voice(10 * number + index, index < 2, 0.5), SAMPLE_RATE)
    return corpus


def read_text(tmp_path: Path, text: str) -> list[tuple[str, ...]]:
    (tmp_path / "metadata").mkdir(exist_ok=True)
    (tmp_path / "metadata/train.csv").write_text(text)
    return spoofceleb.read(tmp_path, sets=("train",))[0].table.rows()


@pytest.mark.parametrize("above", [True, False])
def test_three_sets_become_three_manifests(above: bool, tmp_path: Path) -> None:
    corpus = make_spoofceleb(tmp_path / "hub")
    run_cli("prepare", "spoofceleb", corpus.parent if above else corpus, "-o", tmp_path / "data", "--partial")
    assert sorted(path.name for path in (tmp_path / "data").glob("*.tsv")) == ["dev.tsv", "eval.tsv", "train.tsv"]
    manifest = read_manifest(tmp_path / "data/dev.tsv")
    assert manifest.root == corpus
    assert manifest.table.select("utt_id", "path", "key", "speaker", "attack", "n_samples").rows() == [
        ("a00_id10001_-KOA_Q89wDM-00066-003", "flac/development/a00/id10001/-KOA_Q89wDM-00066-003.flac", "bonafide",
         "id10001", "-", 8000),
        ("a00_id10001_YYsxcZ5saac-00002-006", "flac/development/a00/id10001/YYsxcZ5saac-00002-006.flac", "bonafide",
         "id10001", "-", 8000),
        ("a06_id10001_-KOA_Q89wDM-00066-003", "flac/development/a06/id10001/-KOA_Q89wDM-00066-003.flac", "spoof",
         "id10001", "a06", 8000),
        ("a06_id10001_YYsxcZ5saac-00002-006", "flac/development/a06/id10001/YYsxcZ5saac-00002-006.flac", "spoof",
         "id10001", "a06", 8000),
    ]  # fmt: skip


def test_readers_by_file_name_or_by_the_word_bonafide_get_it_wrong(tmp_path: Path) -> None:
    rows = (make_spoofceleb(tmp_path) / "metadata/train.csv").read_text().splitlines()[1:]
    assert len({row.split(",")[0].split("/")[-1] for row in rows}) == len(rows) / 2
    assert {"bonafide" if row.split(",")[2] == "bonafide" else "spoof" for row in rows} == {"spoof"}
    table = spoofceleb.read(tmp_path, sets=("train",))[0].table
    assert table["utt_id"].n_unique() == len(rows)
    assert (table["key"] == "bonafide").sum() == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a00/id1/x.flac,id1,a00\n",
            "line 1: found 'a00/id1/x.flac,id1,a00', expected the header 'file,speaker,attack'",
        ),
        (HEADER + "a00/id1/x.flac,id1\n", "line 2: found 2 columns separated by commas, expected 3"),
        (HEADER + "a00/id1/x.flac,id1,bonafide\n", "line 2: attack is 'bonafide', expected a00"),
        (
            HEADER + "a01/id1/x.flac,id1,a00\n",
            "line 2: file is 'a01/id1/x.flac', expected a path to a .flac below 'a00'",
        ),
        (HEADER + "a00/../../x.flac,id1,a00\n", "line 2: file is 'a00/../../x.flac'"),
        (HEADER + "a00/id1/x.flac,id1,a00\na00/id1/x.flac,id1,a00\n", "line 3: file 'a00/id1/x.flac' stood in line 2"),
        (HEADER + "a00/id1/x.flac,,a00\n", "line 2: speaker is '', expected id and digits"),
    ],
)
def test_another_list_is_refused_naming_the_line(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        read_text(tmp_path, text)


def test_counts_of_the_released_lists_are_accepted_and_others_need_partial(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    attacks = ["a00"] * 7_963 + ["a06"] * 47_778
    rows = "".join(f"{attack}/id1/{number}.flac,id1,{attack}\n" for number, attack in enumerate(attacks))
    (tmp_path / "metadata/development.csv").write_text(HEADER + rows)
    found = prepare("spoofceleb", tmp_path, tmp_path / "data", sets=("dev",), headers=False)[0]
    assert (found.n_bonafide, found.n_spoof, found.partial) == (7_963, 47_778, "")
    (tmp_path / "metadata/development.csv").write_text(HEADER + rows.partition("\n")[2])
    sentence = refusal("prepare", "spoofceleb", tmp_path, "-o", tmp_path / "less", "--sets", "dev")
    assert "7,962 bonafide" in sentence
    assert "published are 7,963" in sentence


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=r"train.csv: no such file, nor spoofceleb/metadata/train.csv.*; name the"):
        spoofceleb.read(tmp_path)
