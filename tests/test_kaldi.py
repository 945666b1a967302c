"""Kaldi data directories in and out: the same rows come back, nothing is run, and Kaldi's own rules hold."""

import os
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import soundfile
from conftest import make_voice, refusal, run_cli

from spoofkit.addons.kaldi import directory as kaldi
from spoofkit.addons.kaldi.directory import write_kaldi
from spoofkit.corpora.prepare import prepare
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.errors import SpoofkitError


def make_directory(tmp_path: Path, **files: str) -> Path:
    """A data directory of two utterances whose audio lies elsewhere; `files` replaces some of its files, "" removes."""
    audio, folder = tmp_path / "audio", tmp_path / "data/train"
    folder.mkdir(parents=True)
    for index, name in enumerate(("x.wav", "deep/y z.flac")):
        (audio / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio / name, make_voice(index, index == 0, 0.25), SAMPLE_RATE)
    texts = {
        "wav_scp": f"s1-x {audio}/x.wav\ns2-y\t{audio}/deep/y z.flac \n",
        "utt2spk": "s1-x s1\ns2-y s2\n",
        "utt2key": "s1-x bonafide\ns2-y spoof\n",
    } | files
    for name, text in texts.items():
        if text:
            (folder / name.replace("wav_scp", "wav.scp")).write_text(text)
    return folder


def test_what_a_kaldi_directory_cannot_say_is_said(tmp_path: Path) -> None:
    make_directory(tmp_path)
    prepare_kaldi = ("prepare", "kaldi", tmp_path / "data/train", "-o", tmp_path / "out")
    run_cli(*prepare_kaldi, "--downmix", "first")
    sentence = refusal("kaldi", tmp_path / "out/train.tsv", "-o", tmp_path / "k")
    assert "mixed as 'first', which a Kaldi directory cannot say" in sentence
    assert not (tmp_path / "k").exists()
    (tmp_path / "audio/x.wav").write_bytes(b"no audio")
    run_cli(*prepare_kaldi, "--on-error", "skip", "--overwrite")
    assert (
        "1 of 2 utterances were rejected" in run_cli("kaldi", tmp_path / "out/train.tsv", "-o", tmp_path / "k").stderr
    )


def test_byte_order_marks_are_no_part_of_a_name(tmp_path: Path) -> None:
    folder = make_directory(tmp_path)
    for path in folder.iterdir():
        path.write_text("\ufeff" + path.read_text())
    assert table_of(folder)["utt_id"].to_list() == ["s1-x", "s2-y"]


def table_of(folder: Path, **options: Any) -> pl.DataFrame:
    return kaldi.read(folder, **options)[0].table


def make_manifest(tmp_path: Path, **columns: list[object]) -> Path:
    """Three utterances with a column of their own; `columns` replaces some columns."""
    names = ["T_1", "T_2", "T_3"]
    for index, name in enumerate(names):
        path = tmp_path / f"corpus/flac {index % 2}/{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, make_voice(index, index == 0, 0.25), SAMPLE_RATE)
    table = pl.DataFrame(
        {
            "utt_id": names,
            "path": [f"flac {index % 2}/{name}.flac" for index, name in enumerate(names)],
            "key": ["bonafide", "spoof", "spoof"],
            "speaker": ["S_1", "S_2", "S_2"],
            "attack": ["-", "A01", "tts two"],
            "codec": ["-", "-", "C01"],
            "n_samples": [4000, 4000, 4000],
            "gender": ["F", "M", "NA"],
        }
        | columns
    )
    write_manifest(tmp_path / "train.tsv", tmp_path / "corpus", table, overwrite=True)
    return tmp_path / "train.tsv"


def requires_of_validate_data_dir(folder: Path) -> dict[str, bool]:
    """What utils/validate_data_dir.sh (kaldi-asr/kaldi) asks of these files, with the same `sort`."""

    def sort(text: str, *options: str) -> str:
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(
            ["sort", *options], input=text, capture_output=True, text=True, check=True, env=environment
        ).stdout

    texts = {path.name: path.read_text() for path in folder.iterdir()}
    ids = {name: [line.split()[0] for line in text.splitlines()] for name, text in texts.items()}
    utt2spk = [line.split() for line in texts["utt2spk"].splitlines()]
    from_spk2utt = [[utt, line.split()[0]] for line in texts["spk2utt"].splitlines() for utt in line.split()[1:]]
    return {
        "sorted": all("\n".join(found) + "\n" == sort("\n".join(found) + "\n", "-u") for found in ids.values()),
        "two_columns": all(len(line) == 2 for line in utt2spk),
        "same_ids": all(ids[name] == ids["utt2spk"] for name in texts if name != "spk2utt"),
        "by_speaker": sort(texts["utt2spk"], "-k2") == texts["utt2spk"],
        "spk2utt": from_spk2utt == utt2spk,
        "newline": all(text.endswith("\n") for text in texts.values()),
    }


def test_a_data_directory_becomes_a_manifest_called_like_it(tmp_path: Path) -> None:
    folder = make_directory(tmp_path, utt2systemID="s2-y A01 vocoded\ns1-x bonafide\n", utt2lang="s1-x en\ns2-y de\n")
    run_cli("prepare", "kaldi", folder, "-o", tmp_path / "manifests")
    manifest = read_manifest(tmp_path / "manifests/train.tsv")
    assert manifest.root == tmp_path / "audio"
    assert manifest.table.columns[7:] == ["lang"]
    assert manifest.table.rows() == [
        ("s1-x", "x.wav", "bonafide", "s1", "-", "-", 4000, "en"),
        ("s2-y", "deep/y z.flac", "spoof", "s2", "A01 vocoded", "-", 4000, "de"),
    ]


def test_readers_that_split_at_spaces_lose_half_a_path(tmp_path: Path) -> None:
    folder = make_directory(tmp_path)
    naive = dict(line.split()[:2] for line in (folder / "wav.scp").read_text().splitlines())
    assert not Path(naive["s2-y"]).exists()
    released = kaldi.read(folder)[0]
    assert all((released.root / path).is_file() for path in released.table["path"])


@pytest.mark.parametrize("name", ["utt2label", "utt2lab", "utt2cls", "utt2spoof"])
def test_keys_may_stand_in_the_files_of_other_recipes(name: str, tmp_path: Path) -> None:
    folder = make_directory(tmp_path, utt2key="", **{name: "s2-y fake\ns1-x Bona-Fide\n"})
    assert table_of(folder)["key"].to_list() == ["bonafide", "spoof"]


def test_unknown_keys_are_refused_until_named(tmp_path: Path) -> None:
    folder = make_directory(tmp_path, utt2key="s2-y 0\ns1-x 1\n")
    sentence = refusal("prepare", "kaldi", folder, "-o", tmp_path / "out")
    assert sentence.startswith(f"{folder / 'utt2key'}, line 1: key is '0' (some corpora")
    key = {"0": "spoof", "1": "bonafide"}
    assert table_of(folder, key=key)["key"].to_list() == ["bonafide", "spoof"]


def test_speakers_called_like_their_utterance_or_not_at_all_are_unknown(tmp_path: Path) -> None:
    folder = make_directory(tmp_path, utt2spk="s1-x s1-x\ns2-y s2\n")
    assert table_of(folder)["speaker"].to_list() == ["-", "s2"]
    (folder / "utt2spk").unlink()
    assert table_of(folder)["speaker"].to_list() == ["-", "-"]


def test_lengths_of_kaldi_are_not_taken_over(tmp_path: Path) -> None:
    folder = make_directory(tmp_path, utt2dur="s1-x 9.0\n", utt2num_samples="s1-x 7\n", utt2num_frames="s1-x 8\n")
    prepare("kaldi", folder, tmp_path / "out")
    assert read_manifest(tmp_path / "out/train.tsv").lengths() == {"s1-x": 4000, "s2-y": 4000}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("sph2pipe -f wav x.sph |", "is a command, and commands of a list are not run"),
        ("touch {0}/ran; cat {0}/audio/x.wav|", "is a command"),
        ("| cat", "is a command"),
        ("/data/raw.ark:1234", "is a place in an archive"),
        ("-", "is a stream"),
    ],
)
def test_what_is_no_file_is_refused_and_never_run(value: str, sentence: str, tmp_path: Path) -> None:
    folder = make_directory(tmp_path, wav_scp=f"s1-x {tmp_path}/audio/x.wav\ns2-y {value.format(tmp_path)}\n")
    assert f"line 2: {value.format(tmp_path)!r} {sentence}" in refusal(
        "prepare", "kaldi", folder, "-o", tmp_path / "out"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"wav_scp": ""}, "wav.scp: cannot be read"),
        ({"segments": "s1-x r1 0.0 1.0\n"}, "segments: cuts recordings into utterances"),
        ({"utt2key": ""}, "has no utt2key, utt2label, utt2lab, utt2cls or utt2spoof"),
        ({"utt2lab": "s1-x bonafide\ns2-y spoof\n"}, "both utt2key and utt2lab say the keys"),
        ({"utt2attack": "s1-x -\ns2-y A1\n", "utt2systemID": "s1-x -\ns2-y A1\n"}, "both utt2attack and utt2systemID"),
        ({"utt2key": "s1-x bonafide\ns2-y\n"}, "utt2key, line 2: found 's2-y', expected an utterance, a space and its"),
        ({"utt2key": "s1-x bonafide\n\ns2-y spoof\n"}, "utt2key, line 2: found ''"),
        ({"utt2key": "s1-x bonafide\ns1-x spoof\n"}, "utt2key, line 2: 's1-x' is on an earlier line too"),
        ({"utt2attack": "s1-x A01\ns2-y A02\n"}, "'s1-x' is bona fide but has the attack 'A01'"),
        ({"utt2path": "s1-x a\ns2-y b\n"}, "utt2path: cannot be a column"),
        ({"wav_scp": "s1-x /one/x.wav\ns2-y /two/y.wav\n"}, "have only / in common"),
    ],
)
def test_directories_that_do_not_fit_together_are_refused(files: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        table_of(make_directory(tmp_path, **files))


def test_files_of_other_utterances_are_refused_naming_the_lines_of_both(tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError) as refused:
        table_of(make_directory(tmp_path, utt2attack="s2-z A01\ns1-x -\n"))
    assert "wav.scp has lines that utt2attack lacks: 2 ('s2-y')" in str(refused.value)
    assert "utt2attack has lines that wav.scp lacks: 1 ('s2-z')" in str(refused.value)
    # Called without this option, as everyone does first, it leaves the file alone.
    assert "fix_data_dir.sh --utt-extra-files utt2attack" in str(refused.value)


def test_of_many_lines_that_disagree_some_are_named_and_all_are_counted(tmp_path: Path) -> None:
    keys = "".join(f"u{n} spoof\n" for n in range(9))
    with pytest.raises(SpoofkitError, match=r"3 \('u0'\), .*7 \('u4'\) and 4 more"):
        table_of(make_directory(tmp_path, utt2key="s1-x bonafide\ns2-y spoof\n" + keys))


def test_audio_inside_the_directory_is_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_directory(tmp_path, wav_scp="s1-x data/train/wav/x.wav\ns2-y data/train/../train/wav/y.wav\n")
    monkeypatch.chdir(tmp_path)  # where Kaldi takes relative paths from
    released = kaldi.read(folder, sets=("dev",))[0]
    assert (released.name, released.root) == ("dev", folder)
    assert released.table["path"].to_list() == ["wav/x.wav", "wav/y.wav"]


@pytest.mark.parametrize("speakers", [["S_1", "S_2", "S_2"], ["-", "-", "-"], ["Alec Guinness", "-", "King, Martin"]])
def test_a_manifest_comes_back_as_it_was(speakers: list[object], tmp_path: Path) -> None:
    before = make_manifest(tmp_path, speaker=speakers)
    write_kaldi(before, tmp_path / "kaldi")
    prepare("kaldi", tmp_path / "kaldi", tmp_path / "back", sets=("train",))
    manifests = [read_manifest(path) for path in (before, tmp_path / "back/train.tsv")]
    assert manifests[0].table.equals(manifests[1].table)
    paths = [[manifest.audio_path(path) for path in manifest.table["path"]] for manifest in manifests]
    assert paths[0] == paths[1]


def test_what_is_written_is_what_kaldi_wants(tmp_path: Path) -> None:
    found = write_kaldi(make_manifest(tmp_path), tmp_path / "kaldi")
    assert sorted(path.name for path in (tmp_path / "kaldi").iterdir()) == [
        "spk2utt", "utt2attack", "utt2codec", "utt2gender", "utt2key", "utt2num_samples", "utt2spk", "wav.scp",
    ]  # fmt: skip
    assert (tmp_path / "kaldi/spk2utt").read_text() == "S_1 T_1\nS_2 T_2 T_3\n"
    assert (tmp_path / "kaldi/utt2num_samples").read_text() == "T_1 4000\nT_2 4000\nT_3 4000\n"
    assert (tmp_path / "kaldi/wav.scp").read_text().startswith(f"T_1 {tmp_path}/corpus/flac 0/T_1.flac\n")
    assert found.sorted_by_speaker
    assert all(requires_of_validate_data_dir(tmp_path / "kaldi").values())


def test_speakers_that_do_not_sort_as_their_utterances_are_said_and_can_be_put_before(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, speaker=["b", "B", "-"])
    kept = write_kaldi(manifest, tmp_path / "kept")
    rules = requires_of_validate_data_dir(tmp_path / "kept")
    assert not kept.sorted_by_speaker
    assert {name for name, holds in rules.items() if not holds} == {"by_speaker", "spk2utt"}
    prefixed = write_kaldi(manifest, tmp_path / "prefixed", speaker_prefix=True)
    assert prefixed.sorted_by_speaker
    assert all(requires_of_validate_data_dir(tmp_path / "prefixed").values())
    assert (tmp_path / "prefixed/utt2spk").read_text() == "B-T_2 B\nT_3 T_3\nb-T_1 b\n"


def test_only_known_lengths_are_written(tmp_path: Path) -> None:
    write_kaldi(make_manifest(tmp_path, n_samples=[UNKNOWN_LENGTH, 4000, UNKNOWN_LENGTH]), tmp_path / "some")
    assert (tmp_path / "some/utt2num_samples").read_text() == "T_2 4000\n"
    write_kaldi(make_manifest(tmp_path, n_samples=[UNKNOWN_LENGTH] * 3), tmp_path / "none")
    assert not (tmp_path / "none/utt2num_samples").exists()


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"utt_id": ["T 1", "T_2", "T_3"]}, "utt_id 'T 1' holds spaces"),
        ({"path": ["a.wav", "b |", "c.wav"]}, "path of 'T_2' is 'b |', which Kaldi would not take for a file"),
        ({"path": ["a.i16:0+4000", "b.wav", "c.wav"]}, "'T_1' lies in a pack"),
        ({"path": ["a.wav", "b.ark:17", "c.wav"]}, "path of 'T_2' is 'b.ark:17'"),
        ({"speaker": ["A B", "A_B", "C"]}, "speakers differ only in spaces"),
        ({"label": ["a", "b", "c"]}, "column 'label' cannot become a file utt2label"),
        ({"my note": ["a", "b", "c"]}, "column 'my note' cannot become a file"),
    ],
)
def test_what_kaldi_would_misread_is_refused(columns: dict[str, list[object]], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError) as refused:
        write_kaldi(make_manifest(tmp_path, **columns), tmp_path / "kaldi")
    assert sentence in str(refused.value)
    assert not (tmp_path / "kaldi").exists()


def test_prefixes_that_make_two_names_one_are_refused(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, utt_id=["b-c", "c", "d"], speaker=["a", "a-b", "e"])
    with pytest.raises(SpoofkitError, match="two utterances would have one name"):
        write_kaldi(manifest, tmp_path / "kaldi", speaker_prefix=True)


def test_a_directory_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    manifest, out = make_manifest(tmp_path), tmp_path / "kaldi"
    out.mkdir()
    write_kaldi(manifest, out)
    with pytest.raises(SpoofkitError, match="exists already; pass --overwrite"):
        write_kaldi(manifest, out)
    write_kaldi(manifest, out, overwrite=True)
    (out / "feats.scp").write_text("T_1 feats.ark:4\n")
    with pytest.raises(SpoofkitError, match=r"holds feats.scp"):
        write_kaldi(manifest, out, overwrite=True)
    assert (out / "feats.scp").exists()
