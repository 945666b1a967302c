"""MLAAD as released becomes a manifest of spoofed speech, whatever columns its lists have and transcripts hold."""

import csv
import io
from pathlib import Path

import polars as pl
import pytest
import soundfile
from conftest import SHARED, make_voice, refusal, run_cli

from spoofkit.corpora import mlaad
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError

OLD = "path|original_file|language|is_original_language|duration|training_data|model_name|architecture|transcript"
NEW = OLD + "|reference_speaker"
# The same file name below two models; transcripts with a quotation mark that closes nothing, NA and commas.
MODELS = {
    "en/tts_models_en_ljspeech_vits": (
        OLD,
        ["./fake/en/tts_models_en_ljspeech_vits/f_0.wav|en_US/f_0.wav|en|True|1.0|ljspeech|tts_models/en/vits|vits|"
         '"He said, and left.',
         "./fake/en/tts_models_en_ljspeech_vits/f_1.wav|en_US/f_1.wav|en|True|1.0|ljspeech|tts_models/en/vits|vits|NA"],
    ),
    "de/xtts_v2": (
        NEW,
        ["./fake/de/xtts_v2/f_0.wav|de_DE/f_0.wav|de|True|1.0|NA|xtts v2|XTTS|Er kam, sah|ref/1.wav"],
    ),
}  # fmt: skip


def make_mlaad(folder: Path) -> Path:
    """fake/LANGUAGE/MODEL with a list and half a second of sound a file."""
    for model, (header, lines) in MODELS.items():
        place = folder / "fake" / model
        place.mkdir(parents=True)
        (place / "meta.csv").write_text("\n".join([header, *lines]) + "\n")
        for index, line in enumerate(lines):
            soundfile.write(folder / line.split("|")[0], make_voice(index, False, 0.5), SAMPLE_RATE)
    return folder


def read_line(tmp_path: Path, line: str, header: str = OLD) -> pl.DataFrame:
    place = tmp_path / "fake/en/vits"
    place.mkdir(parents=True, exist_ok=True)
    (place / "meta.csv").write_text(f"{header}\n{line}\n")
    return mlaad.read(tmp_path)[0].table


def line_of(path: str) -> str:
    return f"{path}|en_US/x.wav|en|True|1.0|ljspeech|vits|vits|Hello."


def test_lists_of_several_versions_become_one_manifest_of_spoof(tmp_path: Path) -> None:
    corpus = make_mlaad(tmp_path / "mlaad")
    done = run_cli("prepare", "mlaad", corpus, "-o", tmp_path / "data")
    assert done.stdout.endswith("eval.tsv: 0 bona fide + 3 spoof\n")
    manifest = read_manifest(tmp_path / "data/eval.tsv")
    assert manifest.table.drop("path").rows() == [
        ("MLAAD_de_xtts_v2_f_0", "spoof", "-", "xtts v2", "-", 8000, "de_DE/f_0.wav", "de", "True", "NA", "XTTS",
         "ref/1.wav"),
        ("MLAAD_en_tts_models_en_ljspeech_vits_f_0", "spoof", "-", "tts_models/en/vits", "-", 8000, "en_US/f_0.wav",
         "en", "True", "ljspeech", "vits", "-"),
        ("MLAAD_en_tts_models_en_ljspeech_vits_f_1", "spoof", "-", "tts_models/en/vits", "-", 8000, "en_US/f_1.wav",
         "en", "True", "ljspeech", "vits", "-"),
    ]  # fmt: skip
    assert manifest.table.columns[7:] == [
        "original_file", "language", "is_original_language", "training_data", "architecture", "reference_speaker",
    ]  # fmt: skip
    assert manifest.table["path"][0] == "fake/de/xtts_v2/f_0.wav"


def test_prepare_says_of_a_corpus_without_published_counts_that_none_were_checked(tmp_path: Path) -> None:
    done = run_cli("prepare", "mlaad", make_mlaad(tmp_path / "mlaad"), "-o", tmp_path / "data")
    assert "eval: no published counts are known here; counts were not checked" in done.stderr


def test_readers_that_obey_quotes_or_name_by_file_get_it_wrong(tmp_path: Path) -> None:
    make_mlaad(tmp_path)
    text = (tmp_path / "fake/en/tts_models_en_ljspeech_vits/meta.csv").read_text()
    assert len(list(csv.DictReader(io.StringIO(text), delimiter="|"))) == 1  # the open quote swallows a row
    table = mlaad.read(tmp_path)[0].table
    assert table.height == 3
    assert table["path"].str.split("/").list.last().n_unique() == 2
    assert table["utt_id"].n_unique() == 3


def test_a_set_without_bona_fide_speech_is_no_evaluation(tmp_path: Path) -> None:
    corpus = make_mlaad(tmp_path / "mlaad")
    run_cli("prepare", "mlaad", corpus, "-o", tmp_path / "data", "--no-headers")
    ids = read_manifest(tmp_path / "data/eval.tsv").table["utt_id"]
    (tmp_path / "scores.tsv").write_text("filename\tcm-score\n" + "".join(f"{name}\t0.5\n" for name in ids))
    sentence = refusal("evaluate", tmp_path / "scores.tsv", tmp_path / "data/eval.tsv", "-o", tmp_path / "results")
    assert "bona fide" in sentence


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("./fake/en/vits/x.wav", "fake/en/vits/x.wav"),
        ("fake/en/vits/x.wav", "fake/en/vits/x.wav"),
        ("x.wav", "fake/en/vits/x.wav"),
    ],
)
def test_paths_are_below_the_corpus_or_beside_the_list(path: str, found: str, tmp_path: Path) -> None:
    assert read_line(tmp_path, line_of(path))["path"].to_list() == [found]


@pytest.mark.parametrize(
    "path",
    ["./fake/../../x.wav", "../x.wav", "/fake/en/x.wav", "other/x.wav", "", ".", "..", "./fake/en/", "fake//x.wav"],
)
def test_a_path_that_leaves_the_corpus_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=r"meta.csv, line 2: path is .*, expected a file below ./fake/"):
        read_line(tmp_path, line_of(path))


@pytest.mark.parametrize(
    ("line", "header", "sentence"),
    [
        (line_of("x.wav") + "|Hello.", OLD, "line 2: found 10 fields, expected 9"),
        (line_of("x.wav"), OLD.replace("|", ","), "line 2: found 9 fields, expected 1"),
        (line_of("x.wav"), OLD.replace("model_name", "model"), "line 1: column 'model_name' is missing"),
        (line_of("x.wav").replace("|vits|", "||", 1), OLD, "line 2: model_name is '', expected a name"),
        (line_of("x.wav") + "\n" + line_of("./fake/en/vits/x.wav"), OLD, "x.wav: stands in the lists twice"),
    ],
)
def test_another_list_is_refused_naming_the_line(line: str, header: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        read_line(tmp_path, line, header)


def test_a_model_without_list_and_a_folder_without_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match="found no folder fake/LANGUAGE/MODEL"):
        mlaad.read(tmp_path)
    (make_mlaad(tmp_path) / "fake/de/bark").mkdir()
    with pytest.raises(SpoofkitError, match=r"fake/de/bark/meta.csv: no such file"):
        mlaad.read(tmp_path)


def test_columns_called_as_ours_stay_apart(tmp_path: Path) -> None:
    table = read_line(tmp_path, line_of("x.wav") + "|bob|7", OLD + "|speaker|n_samples")
    assert table.select("speaker", "released_speaker", "released_n_samples").rows() == [("-", "bob", "7")]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the quoted headers are not on this machine")
def test_headers_quoted_from_the_releases_are_read(tmp_path: Path) -> None:
    lines = (SHARED / "cases/protocols/sample_lines.txt").read_text().splitlines()
    headers = [line for line in lines if line.startswith("path|")]
    assert headers == [OLD, NEW]
