"""ASVspoof 5 as released becomes manifests; other columns and counts are refused."""

import shutil
from pathlib import Path

import pytest
from conftest import SHARED

from spoofkit.corpora.asvspoof5 import SETS, ReleasedSet, prepare, read_protocol
from spoofkit.data.manifest import UNKNOWN_LENGTH, read_manifest
from spoofkit.errors import SpoofkitError

TRAIN = SETS["train"]
LINE = "T_4850 T_0000000000 F - - - AC3 A05 spoof -"


def parse(tmp_path: Path, text: str, released: ReleasedSet = TRAIN):
    (tmp_path / "list.tsv").write_text(text)
    return read_protocol(tmp_path / "list.tsv", released)


def test_first_protocol_row_is_kept(tmp_path: Path) -> None:
    table = parse(tmp_path, LINE + "\nT_3734 T_0000000011 F - - - - bonafide bonafide -\n")
    assert table.rows(named=True) == [
        {
            "utt_id": "T_0000000000", "path": "flac_T/T_0000000000.flac", "key": "spoof", "speaker": "T_4850",
            "attack": "A05", "codec": "-", "n_samples": UNKNOWN_LENGTH, "gender": "F", "codec_q": "-",
            "codec_seed": "-", "attack_tag": "AC3",
        },
        {
            "utt_id": "T_0000000011", "path": "flac_T/T_0000000011.flac", "key": "bonafide", "speaker": "T_3734",
            "attack": "-", "codec": "-", "n_samples": UNKNOWN_LENGTH, "gender": "F", "codec_q": "-",
            "codec_seed": "-", "attack_tag": "-",
        },
    ]  # fmt: skip


def test_eval_line_keeps_codec_and_quality(tmp_path: Path) -> None:
    row = parse(tmp_path, "E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -\n", SETS["eval"]).row(0, named=True)
    assert row["path"] == "flac_E_eval/E_0009538969.flac"
    assert (row["codec"], row["codec_q"], row["codec_seed"], row["attack"]) == ("C05", "2", "E_0009486171", "A26")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the quoted sample lines are not on this machine")
def test_lines_quoted_from_the_released_lists_are_read(tmp_path: Path) -> None:
    lines = (SHARED / "cases/protocols/sample_lines.txt").read_text().splitlines()
    for name, released in SETS.items():
        mine = [
            line for line in lines if line.split(" ")[0].startswith(released.id_prefix) and len(line.split(" ")) == 10
        ]
        table = parse(tmp_path, "\n".join(mine) + "\n", released)
        assert table.height == {"train": 2, "dev": 6, "eval": 1}[name]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        (
            "SPEAKER FILE GENDER CODEC CODEC_Q CODEC_SEED ATTACK_TAG ATTACK_LABEL KEY TMP\n" + LINE,
            "line 1: utterance id is 'FILE'",
        ),
        ("LA_0079 LA_T_1138215 - - bonafide\n", "line 1: found 5 columns separated by spaces, expected 10"),
        (LINE.replace(" ", "\t"), "found 1 columns"),
        (LINE + "\n\n" + LINE, "line 2: is blank"),
        (LINE + "\n" + LINE.replace("spoof -", "fake -"), "line 2: key .column 9. is 'fake'"),
        (LINE.replace("A05", "bonafide"), "attack .column 8. is 'bonafide' where the key is 'spoof'"),
        (LINE.replace("T_0000000000", "../T_1"), "utterance id is '../T_1'"),
        (LINE.replace("T_0000000000", "D_0000000000"), "utterance id is 'D_0000000000', expected T_"),
    ],
)
def test_a_list_of_another_shape_is_refused_naming_the_line(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        parse(tmp_path, text)


def test_duplicate_ids_are_refused(corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    protocol = copy / TRAIN.protocol
    protocol.write_text(protocol.read_text() + protocol.read_text().splitlines()[0] + "\n")
    with pytest.raises(SpoofkitError, match="line 17: utterance id 'T_0000000000' stood in line 1 already"):
        prepare(copy, tmp_path / "data", partial=True)


def test_other_counts_than_the_published_ones_need_partial(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=r"found 8 bona fide \+ 8 spoof, published are 18,797 \+ 163,560"):
        prepare(corpus, tmp_path)
    assert list(tmp_path.iterdir()) == []
    found = prepare(corpus, tmp_path, partial=True)
    assert [(p.name, p.n_bonafide, p.n_spoof) for p in found] == [("train", 8, 8), ("dev", 5, 5), ("eval", 6, 6)]
    assert "published are" in read_manifest(tmp_path / "eval.tsv").partial


def test_whole_lists_of_the_published_counts_are_accepted(tmp_path: Path) -> None:
    for released in SETS.values():
        (tmp_path / released.folder).mkdir()
        keys = [("bonafide", "bonafide")] * released.n_bonafide + [("A17", "spoof")] * released.n_spoof
        letter = released.id_prefix
        lines = [f"{letter}1 {letter}{i:010d} F - - - - {attack} {key} -\n" for i, (attack, key) in enumerate(keys)]
        (tmp_path / released.protocol).write_text("".join(lines))
    found = prepare(tmp_path, tmp_path / "data", headers=False)
    assert sum(p.n_bonafide + p.n_spoof for p in found) == 182_357 + 140_950 + 680_774
    assert all(not p.partial for p in found)


def test_lengths_come_from_the_headers(manifests: Path) -> None:
    import soundfile

    manifest = read_manifest(manifests / "eval.tsv")
    for utt_id, n_samples in manifest.lengths().items():
        assert soundfile.info(str(manifest.root / "flac_E_eval" / f"{utt_id}.flac")).frames == n_samples


def test_missing_audio_is_counted_and_named(corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    (copy / "flac_D" / "D_0000000011.flac").unlink()
    with pytest.raises(SpoofkitError, match=r"1 of the 10 audio files of dev are missing, first D_0000000011.flac"):
        prepare(copy, tmp_path / "data", partial=True)


def test_reuse_keeps_what_is_up_to_date_and_refuses_what_is_not(corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    prepare(copy, tmp_path / "data", partial=True)
    before = (tmp_path / "data/dev.tsv").stat().st_mtime_ns
    assert all(p.kept for p in prepare(copy, tmp_path / "data", partial=True, reuse=True))
    assert (tmp_path / "data/dev.tsv").stat().st_mtime_ns == before
    protocol = copy / SETS["dev"].protocol
    protocol.write_text("".join(protocol.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(SpoofkitError, match=r"dev.tsv: was made from something else \(protocol changed\)"):
        prepare(copy, tmp_path / "data", partial=True, reuse=True)
