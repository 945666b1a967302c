"""A table or a folder for each class becomes a manifest; what is ambiguous or would be lost is refused or said."""

import contextlib
import csv
import io
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import soundfile
from conftest import make_voice, refusal, run_cli

from spoofkit.corpora import generic
from spoofkit.corpora.prepare import prepare
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.loose_files import find_files

CSV = (
    "filename,truth,who,attack,note\n"
    'a/NA.wav,Bona-Fide,"Doe, Jane",,"said ""no"""\n'
    "./b.flac,fake,007,tts 1,NA\n"
    "c.d.wav,SPOOF,null,,\n"
)
NAMED = ("--column", "path=filename", "--column", "key=truth", "--column", "speaker=who")


def make_audio(folder: Path, *names: str) -> Path:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, make_voice(index, index % 2 == 0, 0.25), SAMPLE_RATE)
    return folder


def read_text(tmp_path: Path, text: str, name: str = "table.csv", **options: Any) -> pl.DataFrame:
    (tmp_path / name).write_text(text)
    return generic.read(tmp_path / name, **options)[0].table


def test_a_table_with_names_of_its_own_becomes_a_manifest(tmp_path: Path) -> None:
    corpus = make_audio(tmp_path / "mine", "a/NA.wav", "b.flac", "c.d.wav")
    (corpus / "my eval.csv").write_text(CSV)
    done = run_cli("prepare", "generic", corpus / "my eval.csv", "-o", tmp_path / "data", *NAMED)
    assert done.stdout.endswith("my eval.tsv: 1 bona fide + 2 spoof\n")
    manifest = read_manifest(tmp_path / "data/my eval.tsv")
    assert manifest.root == corpus
    assert manifest.table.columns[7:] == ["note"]
    assert manifest.table.rows() == [
        ("a_NA", "a/NA.wav", "bonafide", "Doe, Jane", "-", "-", 4000, 'said "no"'),
        ("b", "b.flac", "spoof", "007", "tts 1", "-", 4000, "NA"),
        ("c.d", "c.d.wav", "spoof", "null", "-", "-", 4000, ""),
    ]


def test_readers_that_split_or_guess_missing_values_get_it_wrong() -> None:
    rows = CSV.splitlines()[1:]
    assert [len(row.split(",")) for row in rows] != [5, 5, 5]
    assert len(next(csv.reader(io.StringIO(rows[0]), quoting=csv.QUOTE_NONE))) == 6
    guessed = pl.read_csv(CSV.encode(), null_values=["", "NA", "null"])
    assert guessed["note"].null_count() == 2  # what pandas does by default
    assert guessed["who"].null_count() == 1
    assert pl.read_csv(b"path,who\nb.wav,007\n")["who"].to_list() == [7]


@pytest.mark.parametrize(("separator", "name"), [("\t", "t.tsv"), ("|", "t.txt"), (",", "t.csv")])
def test_the_header_says_what_separates_the_columns(separator: str, name: str, tmp_path: Path) -> None:
    lines = [["utt_id", "path", "key", "attack", "codec"], ["u1", "x.wav", "spoof", "A 1", "C01"]]
    table = read_text(tmp_path, "\n".join(separator.join(line) for line in lines) + "\n", name)
    assert table.rows() == [("u1", "x.wav", "spoof", "-", "A 1", "C01")]


def test_a_comma_in_the_name_of_a_column_separates_nothing_where_tabs_do(tmp_path: Path) -> None:
    table = read_text(tmp_path, "path\tkey\tlength, s\nx.wav\tspoof\t1,5\n", "t.tsv")
    assert table.select("utt_id", "length, s").rows() == [("x", "1,5")]


def test_what_the_user_says_of_a_key_goes_before_its_usual_meaning(tmp_path: Path) -> None:
    assert read_text(tmp_path, "path,key\nx.wav,real\ny.wav,human\n", key={"real": "spoof"})["key"].to_list() == [
        "spoof",
        "bonafide",
    ]


def test_quotation_marks_between_tabs_are_characters(tmp_path: Path) -> None:
    table = read_text(tmp_path, 'path\tkey\tnote\nx.wav\tspoof\t"open\ny.wav\tspoof\tclosed"\n', "t.tsv")
    assert table["note"].to_list() == ['"open', 'closed"']


def test_lengths_come_from_the_headers_not_from_the_table(tmp_path: Path) -> None:
    corpus = make_audio(tmp_path / "mine", "x.wav")
    (corpus / "t.csv").write_text("path,key,n_samples\nx.wav,real,17\n")
    prepare("generic", corpus / "t.csv", tmp_path / "data")
    assert read_manifest(tmp_path / "data/t.tsv").lengths() == {"x": 4000}


def test_absolute_paths_below_the_table_become_relative(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for place in ("real", "link"):
        table = read_text(tmp_path / "link", f"path,key\n{tmp_path / place}/a/x.wav,spoof\n")
        assert table["path"].to_list() == ["a/x.wav"]


@pytest.mark.parametrize(
    "path", ["/etc/x.wav", "../x.wav", "a/../../x.wav", "a/..", "", "{0}-other/x.wav", "{0}/../x.wav"]
)
def test_paths_that_leave_the_folder_of_the_table_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=r"line 3: path is .*, expected the path of a file below"):
        read_text(tmp_path, f"path,key\nok.wav,spoof\n{path.format(tmp_path)},spoof\n")


@pytest.mark.parametrize("value", ["1", "0"])
def test_numbers_mean_nothing_until_the_user_says_what(value: str, tmp_path: Path) -> None:
    text = f"path,key\nx.wav,{value}\n"
    with pytest.raises(SpoofkitError, match=rf"line 2: key is '{value}' \(some corpora mean bona fide by it and some"):
        read_text(tmp_path, text)
    assert read_text(tmp_path, text, key={value: "bonafide"})["key"].to_list() == ["bonafide"]
    assert read_text(tmp_path, text, key={value: "spoof"})["key"].to_list() == ["spoof"]


def test_an_unknown_key_is_named_with_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,key\nx.wav,spoof\ny.wav,voice conversion\n")
    sentence = refusal("prepare", "generic", tmp_path / "t.csv", "-o", tmp_path / "data")
    assert sentence == (
        f"{tmp_path / 't.csv'}, line 3: key is 'voice conversion', expected bonafide or spoof; say which it is with "
        "--key 'voice conversion=bonafide' or --key 'voice conversion=spoof'"
    )


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("path key\nx.wav spoof\n", {}, "line 1: found the header 'path key', expected at least two column"),
        ("file,key\nx.wav,spoof\n", {}, "column 'path' is missing, found file, key; say which .* --column path="),
        ("path,key\nx.wav,spoof\n", {"column": {"file": "path"}}, "'file' is no column of a manifest"),
        ("path,key\nx.wav,spoof\n", {"column": {"key": "label"}}, "has no column 'label', found path, key"),
        ("path,key,file\na,spoof,b\n", {"column": {"path": "file"}}, "has a column 'path' too, expected one"),
        ("p,key\nx.wav,spoof\n", {"column": {"path": "p", "utt_id": "p"}}, "one column stands for two"),
        ("path,key,key\nx.wav,spoof,spoof\n", {}, "line 1: two columns are called 'key'"),
        ("path,key\nx.wav,spoof\n", {"key": {"spoof": "fake"}}, "--key spoof=fake: found 'fake', expected"),
        ("path,key\nx.wav,spoof\n", {"key": {"fakes": "spoof"}}, "no key is spelled 'fakes', found spoof"),
        ("path,key\nx.wav,\n", {}, "line 2: key is '', expected bonafide or spoof"),
        (
            "path,key\na/x.wav,spoof\na_x.flac,real\n",
            {},
            "line 3: 'a_x.flac' is called 'a_x' as 'a/x.wav' in line 2",
        ),
        ("utt_id,path,key\n,x.wav,spoof\n", {}, "line 2: utt_id is '', expected a name"),
        (
            "path,key,attack\nx.wav,real,A01\n",
            {},
            "line 2: attack is 'A01', expected - where the key is bonafide",
        ),
        ("path,key,note\nx.wav,real,a\tb\n", {}, "found the columns|line 2: |column 'path' is missing"),
        ('path,key,note\nx.wav,real,"a\tb"\n', {}, "line 2: note is .*, expected text without tabs"),
        ("path,key\nx.wav,spoof\n", {"sets": ("a", "b")}, "--sets a,b: found 2 names, expected one"),
        ("path,key\nx.wav,spoof\n", {"sets": ("../a",)}, "--sets: found '../a', expected the name"),
    ],
)
def test_a_table_that_says_too_little_or_too_much_is_refused(
    text: str, options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        read_text(tmp_path, text, **options)


def test_two_columns_may_swap_their_names(tmp_path: Path) -> None:
    swapped = {"path": "key", "key": "path"}
    assert read_text(tmp_path, "path,key\nspoof,x.wav\n", column=swapped).row(0)[:3] == ("x", "x.wav", "spoof")


def test_the_users_own_table_is_never_replaced(tmp_path: Path) -> None:
    make_audio(tmp_path, "a.wav", "b.wav")
    (tmp_path / "list.tsv").write_text("path\tkey\na.wav\treal\nb.wav\tfake\n")
    sentence = refusal("prepare", "generic", tmp_path / "list.tsv", "-o", tmp_path, "--overwrite")
    assert "list.tsv: would replace" in sentence
    assert (tmp_path / "list.tsv").read_text().startswith("path\tkey\n")


def test_a_column_called_reason_is_kept_like_any_other(tmp_path: Path) -> None:
    make_audio(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text("path,key,reason\na.wav,real,noise\nb.wav,fake,none\n")
    run_cli("prepare", "generic", tmp_path / "t.csv", "-o", tmp_path / "data")
    assert read_manifest(tmp_path / "data/t.tsv").table["reason"].to_list() == ["noise", "none"]


def test_names_that_no_manifest_can_hold_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    make_audio(tmp_path / "k", "real/a\tb.wav", "fake/c.wav")
    assert "a\\tb.wav" in refusal("prepare", "generic", tmp_path / "k", "-o", tmp_path / "data")
    (tmp_path / "k/real/a\tb.wav").rename(os.fsdecode(os.fsencode(tmp_path / "k/real") + b"/\xff.wav"))
    assert "expected a name in UTF-8" in refusal("prepare", "generic", tmp_path / "k", "-o", tmp_path / "data")
    assert not (tmp_path / "data/k.tsv").exists()
    with pytest.raises(SpoofkitError, match="column ' speaker' has spaces at an end"):
        read_text(tmp_path, "path,key, speaker\na.wav,real,x\n")


def test_the_set_is_called_as_asked(tmp_path: Path) -> None:
    corpus = make_audio(tmp_path / "mine", "x.wav")
    (corpus / "t.csv").write_text("path,key\nx.wav,spoof\n")
    run_cli("prepare", "generic", corpus / "t.csv", "-o", tmp_path / "data", "--sets", "wild")
    assert read_manifest(tmp_path / "data/wild.tsv").table.height == 1


def test_an_attack_column_may_say_that_speech_is_bona_fide(tmp_path: Path) -> None:
    table = read_text(tmp_path, "path,key,attack\nx.wav,real,Bonafide\ny.wav,fake,A1\nz.wav,real,-\n")
    assert table["attack"].to_list() == ["-", "A1", "-"]


def test_a_folder_for_each_class_becomes_a_manifest(tmp_path: Path) -> None:
    corpus = make_audio(tmp_path / "mine", "Real/x.wav", "Real/deep/er/x.WAV", "deepfake/x.flac", "genuine/y.ogg")
    done = run_cli("prepare", "generic", corpus, "-o", tmp_path / "data")
    assert done.stdout.endswith("mine.tsv: 3 bona fide + 1 spoof\n")
    assert "left out" not in done.stderr
    manifest = read_manifest(tmp_path / "data/mine.tsv")
    assert manifest.root == corpus
    assert manifest.table.select("utt_id", "path", "key", "attack").rows() == [
        ("Real_deep_er_x", "Real/deep/er/x.WAV", "bonafide", "-"),
        ("Real_x", "Real/x.wav", "bonafide", "-"),
        ("deepfake_x", "deepfake/x.flac", "spoof", "-"),
        ("genuine_y", "genuine/y.ogg", "bonafide", "-"),
    ]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("separator", ["\t", "|", ";", ","])
def test_a_table_of_a_spreadsheet_is_read_whatever_separates_its_columns(
    tmp_path: Path, separator: str, mark: str
) -> None:
    table = tmp_path / "mine.csv"
    rows = [["path", "key", "speaker"], ["x.wav", "bonafide", "Doe"], ["y.wav", "fake", "Roe"]]
    table.write_text(mark + "".join(separator.join(row) + "\n" for row in rows))
    (released,) = generic.read(table)
    assert released.table.select("path", "key", "speaker").rows() == [
        ("x.wav", "bonafide", "Doe"),
        ("y.wav", "spoof", "Roe"),
    ]


def test_a_field_between_semicolons_may_be_quoted_and_hold_commas(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text('path;key;speaker\nx.wav;bonafide;"Doe; Jane, Dr."\n')
    (released,) = generic.read(table)
    assert released.table["speaker"].to_list() == ["Doe; Jane, Dr."]


def test_a_header_without_separators_is_shown_without_the_byte_order_mark(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("\ufeffpath\nx.wav\n")
    with pytest.raises(SpoofkitError) as refused:
        generic.read(table)
    assert "ufeff" not in str(refused.value)


@pytest.mark.parametrize("suffix", [".amr", ".wma", ".mkv", ".ts", ".g722", ".ulaw"])
def test_what_score_takes_from_a_folder_prepare_takes_too(tmp_path: Path, suffix: str) -> None:
    corpus = make_audio(tmp_path / "mine", "real/x.wav", "fake/y.wav")
    (corpus / "fake/y.wav").rename(corpus / f"fake/y{suffix}")
    (released,) = generic.read(corpus)
    assert released.table["path"].to_list() == [f"fake/y{suffix}", "real/x.wav"]


def test_what_is_no_audio_is_left_out_aloud(tmp_path: Path) -> None:
    corpus = make_audio(tmp_path / "mine", "real/x.wav", "fake/y.wav")
    for name in ("README.md", "real/x.txt", "fake/._y.wav", "fake/sub/list.csv", ".hidden.wav"):
        (corpus / name).parent.mkdir(exist_ok=True)
        (corpus / name).write_text("")
    done = run_cli("prepare", "generic", corpus, "-o", tmp_path / "data")
    warnings = [line for line in done.stderr.splitlines() if "are skipped" in line]
    assert warnings == [
        f"{corpus}: 5 files are not audio and are skipped: .hidden.wav, README.md, fake/._y.wav, fake/sub/list.csv, "
        "real/x.txt"
    ]
    assert read_manifest(tmp_path / "data/mine.tsv").table["utt_id"].to_list() == ["fake_y", "real_x"]


def test_linked_folders_are_entered_by_no_verb_and_all_say_so(tmp_path: Path) -> None:
    make_audio(tmp_path / "elsewhere", "z.wav")
    corpus = make_audio(tmp_path / "mine", "real/x.wav", "fake/y.wav")
    for number, target in enumerate((corpus, corpus / "real", tmp_path / "elsewhere")):  # two lead round in circles
        (corpus / f"real/link{number}").symlink_to(target)
    (corpus / "real/file.wav").symlink_to(tmp_path / "elsewhere/z.wav")
    here = [str(corpus / name) for name in ("fake/y.wav", "real/file.wav", "real/x.wav")]
    shown = []

    def prepared() -> list[str]:
        done = run_cli("prepare", "generic", corpus, "-o", tmp_path / "data")
        shown.append(done.stderr)
        return sorted(str(corpus / path) for path in read_manifest(tmp_path / "data/mine.tsv").table["path"])

    def found(argument: Path) -> list[str]:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            files = list(find_files([argument]))
        shown.append(err.getvalue())
        return files

    assert prepared() == found(corpus) == found(corpus / "**/*.wav") == here
    for text in shown:
        assert "3 linked folders are not followed" in text
        assert all(str(corpus / f"real/link{number}") in text for number in range(3))
    assert found(corpus / "real/link2") == [str(corpus / "real/link2/z.wav")]  # named
    assert found(corpus / "r*/link2/*.wav") == [str(corpus / "real/link2/z.wav")]
    assert found(corpus / "**") == here
    assert found(corpus / "**/real/**/x.*") == [str(corpus / "real/x.wav")]


def test_a_linked_class_folder_is_read(tmp_path: Path) -> None:
    make_audio(tmp_path / "elsewhere", "x.wav")
    corpus = make_audio(tmp_path / "mine", "real/x.wav")
    (corpus / "fake").symlink_to(tmp_path / "elsewhere")
    prepare("generic", corpus, tmp_path / "data")
    assert read_manifest(tmp_path / "data/mine.tsv").table["utt_id"].to_list() == ["fake_x", "real_x"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    corpus = make_audio(tmp_path / "mine", "real/deep/x.wav", "real/y.wav")
    (corpus / "real/deep").chmod(0)
    sentence = refusal("prepare", "generic", corpus, "-o", tmp_path / "data")
    assert sentence.startswith(f"{corpus / 'real/deep'}: cannot be read (Permission denied)")


def test_unknown_class_folders_are_refused_until_named(tmp_path: Path) -> None:
    corpus = make_audio(tmp_path / "mine", "real/x.wav", "tts/y.wav")
    sentence = refusal("prepare", "generic", corpus, "-o", tmp_path / "data")
    assert sentence.startswith(f"{corpus / 'tts'}: key is 'tts', expected bonafide or spoof; say which")
    run_cli("prepare", "generic", corpus, "-o", tmp_path / "data", "--key", "tts=spoof")
    assert read_manifest(tmp_path / "data/mine.tsv").table["key"].to_list() == ["bonafide", "spoof"]


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        ((), {}, "holds no folders, expected one for each class"),
        (("x.wav",), {}, "holds no folders"),
        (("x.wav", "real/x.wav"), {}, "x.wav: is in no class folder, expected it in one of real"),
        (("real/x.wav", "real/x.flac"), {}, "x.wav: is called 'real_x' as another file is"),
        (("real/x.wav",), {"column": {"path": "file"}}, "--column: .* is a folder and has no columns"),
        (("real/x.wav",), {"key": {"fake": "spoof"}}, "no key is spelled 'fake', found real"),
    ],
)
def test_folders_that_say_too_little_are_refused(
    names: tuple[str, ...], options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        generic.read(make_audio(tmp_path, *names), **options)


def test_class_folders_without_audio_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    with pytest.raises(SpoofkitError, match=r"holds no audio, expected files ending in .flac"):
        generic.read(tmp_path)
