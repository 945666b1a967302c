"""The manifest: written sorted and checked, read back the same, refused when a rule is broken."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

import spoofkit
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.data.rejected import read_rejected, write_rejected
from spoofkit.errors import SpoofkitError


def table(**columns: list) -> pl.DataFrame:
    n = len(next(iter(columns.values()), ["a", "b"]))
    default = {
        "utt_id": [f"u{i}" for i in range(n)],
        "path": [f"flac/u{i}.flac" for i in range(n)],
        "key": ["bonafide", "spoof"] * (n // 2) + ["spoof"] * (n % 2),
        "speaker": ["s"] * n,
        "attack": ["-"] * n,
        "codec": ["-"] * n,
        "n_samples": [16000] * n,
    }
    return pl.DataFrame(default | columns)


def write_and_read(path: Path, frame: pl.DataFrame, **options: object):
    write_manifest(path, Path("/corpus"), frame, **options)
    return read_manifest(path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    frame = table(
        utt_id=["NA", "0007"], path=["a/NA.flac", "a/0007.flac"], gender=["F", "null"], n_samples=[5, UNKNOWN_LENGTH]
    )
    back = write_and_read(
        tmp_path / "m.tsv", frame, made_from={"protocol": "abc"}, partial="2 of 9", downmix="second", n_rejected=7
    )
    assert back.table.sort("utt_id").equals(frame.sort("utt_id"))
    assert (back.root, back.made_from, back.partial) == (Path("/corpus"), {"protocol": "abc"}, "2 of 9")
    assert (back.downmix, back.n_rejected) == ("second", 7)


def test_a_manifest_that_says_nothing_of_channels_means_their_mean(tmp_path: Path) -> None:
    back = write_and_read(tmp_path / "m.tsv", table())
    assert "downmix" not in (tmp_path / "m.tsv").read_text()
    assert (back.downmix, back.n_rejected, back.caveats()) == ("mean", 0, [])


def test_what_a_reader_of_figures_must_know_is_said_in_sentences(tmp_path: Path) -> None:
    back = write_and_read(tmp_path / "eval.tsv", table(), partial="2 of 9", n_rejected=1234)
    assert back.caveats() == [
        "eval.tsv: partial: 2 of 9",
        "eval.tsv: 1,234 of 1,236 utterances were rejected, see eval.rejected.tsv",
    ]


def test_audio_is_read_as_the_manifest_says(tmp_path: Path) -> None:
    left, right = np.full(400, 0.25, np.float32), np.full(400, -0.125, np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16_000)
    for downmix, value in (("mean", 0.0625), ("first", 0.25), ("second", -0.125)):
        frame = table(utt_id=["a"], path=["a.wav"], key=["spoof"])
        write_manifest(tmp_path / "m.tsv", tmp_path, frame, downmix=downmix, overwrite=True)
        manifest = read_manifest(tmp_path / "m.tsv")
        assert np.array_equal(manifest.read_audio("a.wav"), np.full(400, value))
        assert np.array_equal(manifest.read_audio("a.wav", 300, 50), np.full(50, value))


def test_nothing_reads_a_sets_audio_without_its_down_mix() -> None:
    folder = Path(spoofkit.__file__).parent
    bare = re.compile(r"(?<!\.)\bread_audio\((?!.*\bdownmix\b)")
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if any(bare.search(line) and "def " not in line for line in path.read_text().splitlines())
    }
    # Rooms, noises and the recordings that `localize` is given belong to no set.
    assert found <= {"data/manifest.py", "data/augment.py", "localisation/recordings.py"}


def test_rejected_utterances_are_listed_and_read_back(tmp_path: Path) -> None:
    rows = {"utt_id": ["b", "a"], "path": ["b.wav", "a.wav"], "key": ["spoof"] * 2, "reason": ["two\nlines\tof", "x"]}
    write_rejected(tmp_path / "eval.tsv", pl.DataFrame(rows))
    assert (tmp_path / "eval.rejected.tsv").read_text().splitlines()[1:] == [
        "a\ta.wav\tspoof\tx",
        "b\tb.wav\tspoof\ttwo lines of",
    ]
    assert read_rejected(tmp_path / "eval.tsv")["utt_id"].to_list() == ["a", "b"]
    assert read_rejected(tmp_path / "none.tsv").height == 0
    (tmp_path / "eval.rejected.tsv").write_text("something else\n")
    with pytest.raises(SpoofkitError, match=r"eval.rejected.tsv: is not the list of rejected utterances"):
        read_rejected(tmp_path / "eval.tsv")


def test_rows_are_sorted_by_id(tmp_path: Path) -> None:
    assert write_and_read(tmp_path / "m.tsv", table(utt_id=["b", "a"])).table["utt_id"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"utt_id": ["a", "a"]}, "utt_id 'a' occurs 2 times"),
        ({"key": ["bonafide", "genuine"]}, "key of 'u1' is 'genuine', expected bonafide, spoof or '-'"),
        (
            {"path": ["x.flac", "../../etc/passwd"]},
            "path of 'u1' is '../../etc/passwd', expected a path below the root",
        ),
        ({"path": ["x.flac", "/etc/passwd"]}, "expected a path below the root"),
        ({"n_samples": [16000, 0]}, "n_samples of 'u1' is not positive"),
        ({"speaker": ["s", " "]}, "speaker is empty for utterance 'u1'"),
        ({"utt_id": []}, "no utterances"),
    ],
)
def test_a_broken_rule_is_refused_when_writing(columns: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=sentence.replace(".", r"\.")):
        write_and_read(tmp_path / "m.tsv", table(**columns))
    assert not (tmp_path / "m.tsv").exists()


HEADER = "utt_id\tpath\tkey\tspeaker\tattack\tcodec\tn_samples\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty, expected a manifest, whose first line is '# root=FOLDER'"),
        (HEADER + "a\tp\tspoof\ts\t-\t-\t5\n", "first line is '# root=FOLDER'"),
        ("# root=/c\n", "has no rows"),
        ("# root=/c\n" + HEADER, "no utterances"),
        ("# root=/c\nutt_id\tpath\nx\ty\n", "column 'key' is missing"),
        ("# root=/c\n" + HEADER + "a\tp\tspoof\ts\t-\t-\tlong\n", "n_samples is 'long'"),
        ("# root=/c\n" + HEADER + "b\tp\tspoof\ts\t-\t-\t5\na\tp\tspoof\ts\t-\t-\t5\n", "not sorted by utt_id .'a'"),
        ("# root=/c\n" + HEADER + "a\tp\n", "line 3: .* has 2 fields, expected 7"),
        ("# root=/c\n" + HEADER + "a\tp\tspoof\ts\t-\t-\t5\t6\n", "line 3: .* has 8 fields, expected 7"),
        ("# root=/c\n" + HEADER + "a\tp\tspoof\ts\t-\t-\t5\n\n", "line 4: '' has 1 fields"),
        ("# root=/c\n" + HEADER.replace("codec", "attack") + "a\tp\tspoof\ts\t-\t-\t5\n", "two columns 'attack'"),
        ("# root=/c\n# rows=2\n" + HEADER + "a\tp\tspoof\ts\t-\t-\t5\n", "holds 1 rows, expected 2"),
        ("# root=/c\n" + HEADER + "a\tp\tspoof\ts\t-\t-\t5", "cut short"),
        ("# root=/c\n# made_from={x\n" + HEADER + "a\tp\tspoof\ts\t-\t-\t5\n", "made_from=' is damaged"),
        ("# root=/c\n# downmix=left\n" + HEADER + "a\tp\tspoof\ts\t-\t-\t5\n", "'# downmix=' says 'left', expected"),
        ("# root=/c\n# rejected=-1\n" + HEADER + "a\tp\tspoof\ts\t-\t-\t5\n", "'# rejected=' says '-1', expected"),
        ("filename\tcm-score\n", "begins with 'filename"),
    ],
)
def test_a_broken_file_is_refused_when_reading(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text(text)
    with pytest.raises(SpoofkitError, match=sentence):
        read_manifest(tmp_path / "m.tsv")


def test_an_existing_manifest_is_kept_unless_overwritten(tmp_path: Path) -> None:
    first = write_and_read(tmp_path / "m.tsv", table())
    with pytest.raises(SpoofkitError, match="exists already"):
        write_manifest(tmp_path / "m.tsv", Path("/corpus"), table(speaker=["x", "y"]))
    assert read_manifest(tmp_path / "m.tsv").table.equals(first.table)
    write_manifest(tmp_path / "m.tsv", Path("/corpus"), table(speaker=["x", "y"]), overwrite=True)
    assert read_manifest(tmp_path / "m.tsv").table["speaker"].to_list() == ["x", "y"]
