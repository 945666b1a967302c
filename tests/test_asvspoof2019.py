"""ASVspoof 2019 LA as released becomes manifests; the real lists hold the published counts."""

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from conftest import SHARED, refusal, run_cli
from released import SETS_2019, make_asvspoof2019

from spoofkit.corpora.asvspoof2019 import LISTS, PROTOCOLS, read
from spoofkit.corpora.prepare import prepare
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError

REAL = SHARED / "cases/protocols"
BONAFIDE = "LA_0079 LA_T_1138215 - - bonafide"
SPOOF = "LA_0080 LA_T_1271820 - A03 spoof"


@pytest.fixture(scope="module")
def corpus_2019(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_asvspoof2019(tmp_path_factory.mktemp("released") / "LA")


@pytest.fixture
def real_lists(tmp_path: Path) -> Path:
    if not REAL.is_dir():
        pytest.skip("the released lists of ASVspoof 2019 LA are not on this machine")
    (tmp_path / "LA" / PROTOCOLS).mkdir(parents=True)
    for list_name, _ in LISTS.values():
        shutil.copy(REAL / list_name, tmp_path / "LA" / PROTOCOLS)
    return tmp_path / "LA"


def parse(tmp_path: Path, text: str, name: str = "train") -> pl.DataFrame:
    (tmp_path / PROTOCOLS).mkdir(exist_ok=True)
    (tmp_path / PROTOCOLS / LISTS[name][0]).write_text(text, newline="")
    return read(tmp_path, sets=(name,))[0].table


def test_the_real_lists_hold_the_published_counts(real_lists: Path, tmp_path: Path) -> None:
    found = prepare("asvspoof2019_la", real_lists, tmp_path / "data", headers=False)
    assert [(p.path.stem, p.n_bonafide, p.n_spoof, p.partial) for p in found] == [
        ("train", 2_580, 22_800, ""), ("dev", 2_548, 22_296, ""), ("eval", 7_355, 63_882, ""),
    ]  # fmt: skip
    attacks = dict(read_manifest(tmp_path / "data/eval.tsv").table["attack"].value_counts().iter_rows())
    assert attacks == {"-": 7_355} | {f"A{number:02d}": 4_914 for number in range(7, 20)}


def test_the_manifest_of_a_real_list_says_what_each_of_its_lines_says(real_lists: Path, tmp_path: Path) -> None:
    prepare("asvspoof2019_la", real_lists, tmp_path / "data", headers=False)
    for name, (list_name, _) in LISTS.items():
        lines = (real_lists / PROTOCOLS / list_name).read_text().splitlines()
        expected = {}
        for line in lines:
            speaker, utt_id, _, attack, key = line.split(" ")
            expected[utt_id] = (utt_id, f"ASVspoof2019_LA_{name}/flac/{utt_id}.flac", key, speaker, attack, "-", -1)
        assert read_manifest(tmp_path / f"data/{name}.tsv").table.rows() == [
            expected[utt_id] for utt_id in sorted(expected)
        ]


def test_a_real_list_that_lost_its_first_line_is_told_with_both_numbers(real_lists: Path, tmp_path: Path) -> None:
    # What `header=0` makes of a list without header: one trial less, bona fide in train and dev, A11 in eval.
    path = real_lists / PROTOCOLS / LISTS["train"][0]
    naive = pl.read_csv(path, separator=" ")
    assert naive.height == 25_379
    path.write_text(path.read_text().partition("\n")[2])
    with pytest.raises(SpoofkitError, match="found 2,579 bonafide, published are 2,580; fetch the lists again"):
        prepare("asvspoof2019_la", real_lists, tmp_path / "data", headers=False)
    prepare("asvspoof2019_la", real_lists, tmp_path / "data", headers=False, partial=True)
    assert read_manifest(tmp_path / "data/train.tsv").partial == (
        "2,579 bonafide, published are 2,580; 2,579 without attack, published are 2,580"
    )
    assert read_manifest(tmp_path / "data/dev.tsv").partial == ""


def test_counts_are_checked_per_attack(real_lists: Path, tmp_path: Path) -> None:
    path = real_lists / PROTOCOLS / LISTS["eval"][0]
    path.write_text(path.read_text().replace(" A11 spoof", " A12 spoof", 1))
    with pytest.raises(SpoofkitError, match=r"found 4,913 A11 \+ 4,915 A12, published are 4,914 \+ 4,914; fetch"):
        prepare("asvspoof2019_la", real_lists, tmp_path / "data", headers=False)


def test_a_miniature_becomes_manifests_with_lengths(corpus_2019: Path, tmp_path: Path) -> None:
    run_cli("prepare", "asvspoof2019_la", corpus_2019, "-o", tmp_path, "--partial")
    run_cli("validate", tmp_path / "train.tsv", tmp_path / "dev.tsv", tmp_path / "eval.tsv", "--read-audio")
    for name, (_, prefix, _, n_utterances) in SETS_2019.items():
        table = read_manifest(tmp_path / f"{name}.tsv").table
        assert (table.height, table["n_samples"].min() > 12_000) == (n_utterances, True)
        assert table["utt_id"].str.starts_with(prefix).all()
    assert "published are 2,580 + 22,800" in read_manifest(tmp_path / "train.tsv").partial


def test_first_trial_is_kept_and_the_key_is_the_fifth_column(tmp_path: Path) -> None:
    assert parse(tmp_path, f"{BONAFIDE}\n{SPOOF}\n").rows() == [
        ("LA_T_1138215", "ASVspoof2019_LA_train/flac/LA_T_1138215.flac", "bonafide", "LA_0079", "-", "-"),
        ("LA_T_1271820", "ASVspoof2019_LA_train/flac/LA_T_1271820.flac", "spoof", "LA_0080", "A03", "-"),
    ]


def test_crlf_and_a_missing_last_newline_change_nothing(tmp_path: Path) -> None:
    text = f"{BONAFIDE}\n{SPOOF}\n"
    assert parse(tmp_path, text.replace("\n", "\r\n")).equals(parse(tmp_path, text))
    assert parse(tmp_path, text.removesuffix("\n")).equals(parse(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("SPEAKER FILE - ATTACK KEY\n" + BONAFIDE, "line 1: utterance id is 'FILE', expected LA_T_ and digits"),
        (f"{BONAFIDE}\n{SPOOF} eval\n", "line 2: found 6 columns separated by spaces, expected 5"),
        (f"{BONAFIDE}\n\n", "line 2: is blank"),
        (f"{BONAFIDE}\n{SPOOF.replace(' A03', '  A03')}\n", "line 2: found 6 columns"),
        (f"{SPOOF}\n{BONAFIDE.replace('bonafide', 'genuine')}", r"line 2: key \(column 5\) is 'genuine'"),
        (SPOOF.replace("A03", "-"), r"attack \(column 4\) is '-' where the key is 'spoof'"),
        (BONAFIDE.replace("- -", "- A01"), "is 'A01' where the key is 'bonafide'"),
        (f"{BONAFIDE}\n{SPOOF}\n{BONAFIDE}\n", "line 3: utt_id 'LA_T_1138215' stood in line 1 already"),
        (SPOOF.replace("LA_T_1271820", "NA"), "utterance id is 'NA'"),
        (SPOOF.replace("LA_T_1271820", "../LA_T_1271820"), "utterance id is '../LA_T_1271820'"),
        (SPOOF.replace("LA_T_1271820", "LA_E_1271820"), "is 'LA_E_1271820', expected LA_T_ and digits"),
        ("PA_0079 PA_T_0000001 aaa - bonafide", "utterance id is 'PA_T_0000001'"),
        (BONAFIDE.replace(" - - ", " aaa - "), "column 3 is 'aaa', expected '-'"),
        ("LA_0015 LA_T_1103494 bonafide target", "found 4 columns"),
    ],
)
def test_a_list_of_another_shape_is_refused_naming_the_line(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        parse(tmp_path, text)


def test_an_attack_of_eval_in_train_is_refused_even_in_a_part(corpus_2019: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus_2019, tmp_path / "LA")
    path = copy / PROTOCOLS / LISTS["train"][0]
    path.write_text(path.read_text().replace("A02", "A17"))
    message = refusal("prepare", "asvspoof2019_la", copy, "-o", tmp_path / "data", "--partial")
    assert "attack 'A17' is none of this set, expected -, A01, A02, A03, A04, A05, A06" in message


def test_a_folder_above_or_below_is_told_what_was_looked_for(corpus_2019: Path, tmp_path: Path) -> None:
    for folder in (corpus_2019.parent, corpus_2019 / PROTOCOLS):
        message = refusal("prepare", "asvspoof2019_la", folder, "-o", tmp_path, "--partial")
        assert f"{folder / PROTOCOLS}/ASVspoof2019.LA.cm.train.trn.txt: no such file" in message
        assert "expected the folder LA that LA.zip unpacks to" in message


def test_the_track_pa_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "PA" / "ASVspoof2019_PA_cm_protocols").mkdir(parents=True)
    message = refusal("prepare", "asvspoof2019_la", tmp_path / "PA", "-o", tmp_path / "data")
    assert "PA: holds the track PA (physical access), which is not read; expected the folder LA" in message


def test_only_the_sets_that_are_asked_for_are_read(corpus_2019: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus_2019, tmp_path / "LA")
    shutil.rmtree(copy / "ASVspoof2019_LA_train")
    run_cli("prepare", "asvspoof2019_la", copy, "-o", tmp_path / "data", "--partial", "--sets", "dev,eval")
    assert sorted(path.name for path in (tmp_path / "data").glob("*.tsv")) == ["dev.tsv", "eval.tsv"]
    message = refusal("prepare", "asvspoof2019_la", copy, "-o", tmp_path / "train", "--partial")
    assert re.search("16 of the 16 audio files of train are missing, first /.*/LA_T_", message)
    assert "unpack LA.zip again" in message
