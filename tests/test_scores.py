"""The score file: what is read, what is refused and in which words, what is written."""

import gzip
import math
import os
import random

import numpy as np
import polars as pl
import pytest

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.scores import final_newline_warning, join_scores, read_scores, write_scores

HEADER = "filename\tcm-score\n"


@pytest.fixture
def score_file(tmp_path):
    def write(text):
        path = tmp_path / "eval_scores.tsv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def manifest_table(*rows):
    return pl.DataFrame(rows, schema={"utt_id": pl.Utf8, "key": pl.Utf8, "attack": pl.Utf8}, orient="row")


def scores_table(**scores):
    return pl.DataFrame({"utt_id": list(scores), "score": list(scores.values())})


TWO = manifest_table(("a", "bonafide", "-"), ("b", "spoof", "A01"))


def test_ids_are_text_and_scores_are_numbers(score_file):
    path = score_file(HEADER + 'NA\t1\n007\t-2.5e-3\nnull\t.5\n"q\t+3\nid with space\t0\nnaïve\t7\n')
    assert read_scores(path).rows() == [
        ("NA", 1.0), ("007", -0.0025), ("null", 0.5), ('"q', 3.0), ("id with space", 0.0), ("naïve", 7.0)
    ]  # fmt: skip


def test_scores_are_read_as_python_reads_them(score_file):
    source = random.Random(3)
    texts = [repr(source.gauss(0, 1) * 10 ** source.randint(-12, 12)) for _ in range(3_000)]
    texts += ["1e308", "5e-324", "0.1", "9007199254740993", "-0.0", "123456789012345678901234567890"]
    path = score_file(HEADER + "".join(f"u{place}\t{text}\n" for place, text in enumerate(texts)))
    assert read_scores(path)["score"].to_list() == [float(text) for text in texts]


def test_missing_final_newline_is_a_warning_and_no_error(score_file):
    path = score_file(HEADER + "a\t1.5\nb\t-2.25")
    assert read_scores(path)["score"].to_list() == [1.5, -2.25]
    warning = final_newline_warning(path)
    assert "eval_scores.tsv: does not end in a newline" in warning
    assert "'b -2.25'" in warning
    assert final_newline_warning(score_file(HEADER + "a\t1.5\n")) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty", "filename<TAB>cm-score"]),
        ("\n\n", ["is empty"]),
        (HEADER, ["has a header but no trial"]),
        (HEADER.strip(), ["has a header but no trial"]),
        ("a\t1\nb\t2\n", ["line 1 is 'a\\t1'", "expected the header 'filename<TAB>cm-score'"]),
        ("filename cm-score\na 1\n", ["line 1 is 'filename cm-score'"]),
        ("filename\tcm-score\tkey\na\t1\tspoof\n", ["line 1 is 'filename\\tcm-score\\tkey'"]),
        ("\ufeff" + HEADER + "a\t1\n", ["line 1 is '\\ufefffilename"]),
        (HEADER.replace("\n", "\r\n") + "a\t1\r\n", ["Windows line ends"]),
        (HEADER + "a\t1\nb\t2\tx\n\nc 3\n", ["in 3 lines", "line 3 'b\\t2\\tx'", "line 4 ''", "line 5 'c 3'"]),
        (HEADER + "a\t1\nE_00", ["in 1 line (line 3 'E_00')", "truncated"]),
        (HEADER + "a\t1\nb\t", ["1 score (b '' in line 3)"]),
        (HEADER + "a\tnan\nb\tinf\nc\t-Infinity\nd\thigh\ne\t1_0\nf\t\ng\t1e999\nh\t1\n",
         ["7 scores (a 'nan' in line 2, b 'inf' in line 3, c '-Infinity' in line 4, d 'high' in line 5, "
          "e '1_0' in line 6 and 2 more)", "a finite number was expected"]),
        (HEADER + "a\t1\nb\t2\nNA\t3\nNA\t3\na\t1\na\t1\n",
         ["2 ids (a in lines 2, 6, 7, NA in lines 4, 5) more than once"]),
        (HEADER + "\t1\na\t2\n\t3\n", ["no id in 2 lines (2, 4)"]),
        (HEADER.encode() + b"a\t1\n\xff\t2\n", ["line 3 is not UTF-8"]),
    ],
)  # fmt: skip
def test_broken_score_files_are_refused_in_one_sentence(score_file, text, words):
    with pytest.raises(SpoofkitError) as refusal:
        read_scores(score_file(text))
    message = str(refusal.value)
    assert "eval_scores.tsv: " in message
    assert "\n" not in message
    for word in words:
        assert word in message


TABLE = "filename\tcm-score\tllr\tbonafide_probability\tdecision\tseconds\tremarks\terror\n"


def test_the_scores_in_a_table_are_read_and_rows_that_say_why_there_is_none_are_left_out(score_file, tmp_path):
    rows = 'a,"1".wav\t0.5\t-2\t0.7\treject\t4\t\t\nb\t\t\t\tabstain\t\t\tno, such file\nNA\t1\t3\t0.9\taccept\t4\t\t\n'
    assert read_scores(score_file(TABLE + rows)).rows() == [('a,"1".wav', -2.0), ("NA", 3.0)]
    raw = "filename\tcm-score\tseconds\tremarks\terror\na\t0.5\t4\t\t\n"
    assert read_scores(score_file(raw)).rows() == [("a", 0.5)]
    (tmp_path / "table.csv").write_text(
        'filename,cm-score,seconds,remarks,error\n"a,""1"".wav",.5,4,,\nb,,,,"no, file"\n'
    )
    assert read_scores(tmp_path / "table.csv").rows() == [('a,"1".wav', 0.5)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TABLE, "has a header but no rows"),
        (TABLE + "a\t1\t2\t0.9\taccept\t4\t\t\nb\t1\t2\n", "row 3 has 3 cells, expected 8"),
        (TABLE + "a\t\t\t\tabstain\t\t\tsilence\n", "none of its 1 recordings has a score"),
        (TABLE + "a\t1\t\t0.9\taccept\t4\t\t\n", "1 score (a '' in line 2)"),
        (TABLE + "a\t\t\t\t\t\t\t\n", "1 score (a '' in line 2)"),
        (TABLE + 2 * "a\t1\t2\t0.9\taccept\t4\t\t\n", "1 id (a in lines 2, 3) more than once"),
        (TABLE.replace("remarks", "notes") + "a\t1\t2\t0.9\taccept\t4\t\t\n", "expected the header"),
        (TABLE.replace("\tcm-score", "") + "a\t2\t0.9\taccept\t4\t\t\n", "expected the header"),
        (TABLE.replace("\n", "\r\n") + "a\t1\t2\t0.9\taccept\t4\t\t\r\n", "Windows line ends"),
    ],
)
def test_a_broken_table_is_refused(score_file, text, words):
    with pytest.raises(SpoofkitError) as refusal:
        read_scores(score_file(text))
    assert words in str(refusal.value)


def test_missing_score_file_is_refused_by_name(tmp_path):
    with pytest.raises(SpoofkitError, match=r"nowhere\.tsv: cannot be read \(No such file"):
        read_scores(tmp_path / "nowhere.tsv")


def test_written_scores_restore_every_float32(tmp_path):
    bits = np.random.default_rng(5).integers(0, 2**32, 20_000, dtype=np.uint32)
    scores = bits.view(np.float32)
    scores = scores[np.isfinite(scores)]
    ids = [f"E_{place:05d}" for place in range(scores.size)]
    write_scores(tmp_path / "deep" / "eval.tsv", ids, scores)
    table = read_scores(tmp_path / "deep" / "eval.tsv")
    assert table["utt_id"].to_list() == ids
    assert (table["score"].to_numpy().astype(np.float32) == scores).all()


def test_written_file_is_the_evaluation_package_s(tmp_path):
    write_scores(tmp_path / "eval.tsv", ["NA", "007"], [0.1, -12345678.0])
    assert (tmp_path / "eval.tsv").read_bytes() == b"filename\tcm-score\nNA\t0.1\n007\t-12345678\n"


def test_existing_score_file_is_replaced_only_on_demand(tmp_path):
    write_scores(tmp_path / "eval.tsv", ["a"], [1.0])
    with pytest.raises(SpoofkitError, match=r"eval\.tsv: exists already"):
        write_scores(tmp_path / "eval.tsv", ["a"], [2.0])
    assert read_scores(tmp_path / "eval.tsv")["score"].to_list() == [1.0]
    write_scores(tmp_path / "eval.tsv", ["a"], [2.0], overwrite=True)
    assert read_scores(tmp_path / "eval.tsv")["score"].to_list() == [2.0]


@pytest.mark.parametrize(
    ("ids", "scores", "words"),
    [
        (["a", "b"], [1.0], r"2 ids and scores of shape \(1,\)"),
        ([], [], "at least one"),
        (["a", "a"], [1.0, 2.0], "1 id .a in lines 2, 3. more than once"),
        (["a", ""], [1.0, 2.0], r"no id in 1 line \(3\)"),
        (["a\tb", "c\n"], [1.0, 2.0], r"a tab or a line break in 2 ids \('a\\tb', 'c\\n'\)"),
        (["a", "b"], [1.0, math.nan], r"1 score \(b nan\) where a finite number was expected"),
    ],
)
def test_scores_that_could_not_be_read_back_are_not_written(tmp_path, ids, scores, words):
    with pytest.raises(SpoofkitError, match=words):
        write_scores(tmp_path / "eval.tsv", ids, scores)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scores", [scores_table(a=1.0, b=2.0), scores_table(b=2.0, a=1.0)])
def test_join_goes_by_id_and_keeps_the_manifest_s_order(scores):
    joined = join_scores(scores, TWO)
    assert joined.columns == ["utt_id", "key", "attack", "score"]
    assert joined.rows() == [("a", "bonafide", "-", 1.0), ("b", "spoof", "A01", 2.0)]


def test_join_keeps_an_id_named_na():
    table = manifest_table(("NA", "bonafide", "-"), ("null", "spoof", "A01"))
    assert join_scores(scores_table(null=2.0, NA=1.0), table)["score"].to_list() == [1.0, 2.0]


def test_join_names_missing_and_extra_trials():
    table = manifest_table(*((f"m{place}", "spoof", "A01") for place in range(7)), ("a", "bonafide", "-"))
    with pytest.raises(SpoofkitError) as refusal:
        join_scores(scores_table(a=1.0, x=1.0, y=2.0), table)
    assert "no score for 7 trials (m0, m1, m2, m3, m4 and 2 more)" in str(refusal.value)
    assert "not in the manifest are 2 trials (x, y)" in str(refusal.value)
    assert "3 scores do not fit the manifest's 8 trials" in str(refusal.value)


def test_one_missing_and_one_extra_do_not_cancel_out():
    with pytest.raises(SpoofkitError, match=r"no score for 1 trial \(b\); not in the manifest are 1 trial \(x\)"):
        join_scores(scores_table(a=1.0, x=2.0), TWO)


def test_join_refuses_repeated_ids_on_either_side():
    twice = pl.DataFrame({"utt_id": ["a", "a"], "score": [1.0, 2.0]})
    with pytest.raises(SpoofkitError, match=r"score file: found 1 id \(a\) more than once"):
        join_scores(twice, TWO)
    with pytest.raises(SpoofkitError, match=r"manifest: found 1 id \(a\) more than once"):
        join_scores(scores_table(a=1.0, b=2.0), pl.concat([TWO, TWO.head(1)]))
    # In the same order on both sides too.
    with pytest.raises(SpoofkitError, match=r"found 1 id \(a\) more than once"):
        join_scores(twice, manifest_table(("a", "bonafide", "-"), ("a", "spoof", "A01")))


@pytest.mark.parametrize("key", ["bona-fide", "", None, "Spoof"])
def test_join_refuses_unknown_keys(key):
    table = manifest_table(("a", "bonafide", "-"), ("b", "spoof", "A01"), ("c", key, "A01"))
    with pytest.raises(SpoofkitError) as refusal:
        join_scores(scores_table(a=1.0, b=2.0, c=3.0), table)
    assert f"1 unknown key (c {key!r}); expected bonafide or spoof" in str(refusal.value)


@pytest.mark.parametrize(("key", "absent"), [("spoof", "bonafide"), ("bonafide", "spoof")])
def test_join_refuses_a_set_of_one_class(key, absent):
    with pytest.raises(SpoofkitError, match=f"none of the 2 trials is {absent}"):
        join_scores(scores_table(a=1.0, b=2.0), manifest_table(("a", key, "-"), ("b", key, "-")))


def test_join_refuses_a_manifest_that_has_scores_already():
    with pytest.raises(SpoofkitError, match="has a column named 'score'"):
        join_scores(scores_table(a=1.0, b=2.0), TWO.with_columns(score=pl.lit(0.0)))


def test_every_digit_of_a_float64_is_written_and_nine_of_a_float32(tmp_path):
    values = [0.1, 1 - 2.4e-11, 1e-300, -3.0, 1 / 3]
    write_scores(tmp_path / "s.tsv", list("abcde"), values)
    assert read_scores(tmp_path / "s.tsv")["score"].to_list() == values
    assert (tmp_path / "s.tsv").read_text().splitlines()[1:5:3] == ["a\t0.1", "d\t-3"]
    short = np.array([1 / 3, 0.1], dtype=np.float32)
    write_scores(tmp_path / "t.tsv", ["a", "b"], short)
    assert (tmp_path / "t.tsv").read_text().splitlines()[1:] == ["a\t0.333333343", "b\t0.100000001"]
    assert np.array_equal(read_scores(tmp_path / "t.tsv")["score"].to_numpy().astype(np.float32), short)


def test_what_is_no_file_of_text_is_refused_by_what_it_is(tmp_path):
    with pytest.raises(SpoofkitError, match="is a folder, expected a score file"):
        read_scores(tmp_path)
    (tmp_path / "s.tsv").write_bytes(gzip.compress(b"filename\tcm-score\na\t1\n"))
    with pytest.raises(SpoofkitError, match=r"is compressed \(gzip\)"):
        read_scores(tmp_path / "s.tsv")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SpoofkitError, match="is not a regular file"):
        read_scores(tmp_path / "pipe")
    with pytest.raises(SpoofkitError, match="pipe: is a device or a pipe"):
        write_scores(tmp_path / "pipe", ["a"], np.zeros(1), overwrite=True)
    assert (tmp_path / "pipe").is_fifo()
