"""What two lists share: told from files, ids, speakers, decoded samples, and what is published of corpora."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from conftest import make_voice, refusal, run_cli

from spoofkit.addons.pack.write import pack
from spoofkit.checks.overlap import find_overlap
from spoofkit.corpora import CORPORA
from spoofkit.corpora.sources import ancestry, known_corpora, shared_sources
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import write_manifest
from spoofkit.models.provenance import LIBRIVOX_NOTE, known_provenance

# As integers, because libsndfile rounds floats in another way for FLAC than for WAV.
VOICE = np.rint(make_voice(1, True, 0.8) * 20_000).astype(np.int16)


def write_list(path: Path, rows: dict[str, dict], root: Path | None = None, corpus: str = "generic") -> Path:
    """A manifest of `utt_id: its columns`; what is not said is the same in every row."""
    default = {"key": "bonafide", "speaker": "-", "attack": "-", "codec": "-", "n_samples": VOICE.size}
    table = pl.DataFrame(
        [{"utt_id": utt_id, "path": f"{utt_id}.wav", **default, **row} for utt_id, row in rows.items()]
    )
    write_manifest(path, root or path.parent / path.stem, table, made_from={"corpus": corpus})
    return path


def write_audio(folder: Path, waves: dict[str, np.ndarray], rate: int = SAMPLE_RATE) -> Path:
    folder.mkdir(exist_ok=True)
    for name, wave in waves.items():
        soundfile.write(folder / name, wave, rate)
    return folder


def counts(train: Path, evaluation: Path, **options: object) -> dict[str, int]:
    return {kind["kind"]: kind["n_eval"] for kind in find_overlap(train, evaluation, **options).summary["kinds"]}


def test_columns_of_the_list_do_not_pass_for_those_of_the_other(tmp_path: Path) -> None:
    train = write_list(tmp_path / "a.tsv", {"one": {"speaker": "s"}})
    claims = {"train_utt_id": "x", "train_key": "spoof", "train_speaker": "t"}
    evaluation = write_list(tmp_path / "b.tsv", {"one": {"speaker": "s", **claims}})
    found = find_overlap(train, evaluation)
    assert found.is_leak
    assert found.rows.filter(pl.col("kind") == "utterance")["train_utt_id"].to_list() == ["one"]


# ---- Audio


def test_the_same_samples_are_the_same_audio_in_any_lossless_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "a", {"one.wav": VOICE})
    write_audio(tmp_path / "b", {"x.flac": VOICE, "y.wav": VOICE // 2, "z.wav": np.roll(VOICE, 1)})
    soundfile.write(tmp_path / "b/float.wav", VOICE / 32768, SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b/fine.wav", (VOICE + 0.2) / 32768, SAMPLE_RATE, subtype="PCM_24")
    train = write_list(tmp_path / "a.tsv", {"one": {}})
    names = {"x": {"path": "x.flac"}, "y": {}, "z": {}, "float": {}, "fine": {}}
    evaluation = write_list(tmp_path / "b.tsv", names)
    found = find_overlap(train, evaluation, audio=True)
    same = found.rows.filter(pl.col("kind") == "audio")
    assert same.select("eval_utt_id", "train_utt_id").rows() == [(name, "one") for name in ("fine", "float", "x")]
    assert found.summary["leaks"] == ["audio"]
    pack(evaluation, tmp_path / "packed")
    assert counts(train, tmp_path / "packed/b.tsv", audio=True)["audio"] == 3


def test_a_copy_at_another_sampling_rate_is_other_audio(tmp_path: Path) -> None:
    import soxr

    write_audio(tmp_path / "a", {"u.wav": VOICE})
    write_audio(tmp_path / "b", {"u.wav": soxr.resample(VOICE / 32768, SAMPLE_RATE, 8000)}, rate=8000)
    lists = [write_list(tmp_path / f"{name}.tsv", {"u": {}}) for name in "ab"]
    assert counts(*lists, audio=True) == {"file": 0, "utterance": 0, "id": 1, "speaker": 0, "audio": 0}


@pytest.mark.parametrize("place", [0, -1, VOICE.size // 2])
def test_one_sample_that_differs_makes_other_audio(place: int, tmp_path: Path) -> None:
    other = VOICE.copy()
    other[place] += 100
    write_audio(tmp_path / "a", {"u.wav": VOICE, "v.wav": VOICE})
    write_audio(tmp_path / "b", {"u.wav": other, "v.wav": VOICE})
    lists = [write_list(tmp_path / f"{name}.tsv", {"u": {"speaker": "s"}, "v": {}}) for name in "ab"]
    found = find_overlap(*lists, audio=True).rows.filter(pl.col("kind") == "audio")
    # Both of the evaluation's are compared with both of training; `u` was changed, `v` was not.
    assert found["eval_utt_id"].to_list() == ["v"]


def test_files_of_lengths_that_the_other_list_lacks_are_not_opened(tmp_path: Path) -> None:
    write_audio(tmp_path / "a", {"u.wav": VOICE})
    write_audio(tmp_path / "b", {"u.wav": VOICE})
    train = write_list(tmp_path / "a.tsv", {"u": {}, "gone": {"n_samples": 7000}})
    evaluation = write_list(tmp_path / "b.tsv", {"u": {}, "gone": {"n_samples": 7001}})
    assert counts(train, evaluation, audio=True)["audio"] == 1
    assert "gone.wav: no such file" in refusal("overlap", train, train, "--audio")


def test_lengths_that_a_manifest_does_not_state_are_read_from_the_files(tmp_path: Path) -> None:
    write_audio(tmp_path / "a", {"u.wav": VOICE, "v.wav": VOICE[:9000]})
    train = write_list(tmp_path / "a.tsv", {utt_id: {"n_samples": UNKNOWN_LENGTH} for utt_id in "uv"})
    write_audio(tmp_path / "b", {"w.wav": VOICE})
    evaluation = write_list(tmp_path / "b.tsv", {"w": {}})
    assert counts(train, evaluation, audio=True)["audio"] == 1
    assert counts(evaluation, train, audio=True)["audio"] == 1


# ---- Ids, speakers, files


def test_the_same_id_is_a_leak_only_with_the_same_speaker(tmp_path: Path) -> None:
    train = write_list(tmp_path / "a.tsv", {"0": {"speaker": "p1"}, "1": {"speaker": "p1"}, "2": {}, "3": {}})
    evaluation = write_list(
        tmp_path / "b.tsv", {"0": {"speaker": "p1"}, "1": {"speaker": "p2"}, "2": {"speaker": "p3"}, "3": {}, "4": {}}
    )
    found = find_overlap(train, evaluation)
    assert found.rows.filter(pl.col("kind") == "utterance")["eval_utt_id"].to_list() == ["0"]
    assert found.rows.filter(pl.col("kind") == "id")["eval_utt_id"].to_list() == ["1", "2", "3"]
    assert found.summary["leaks"] == ["utterance"]


def test_speakers_are_shared_by_name_and_a_dash_is_nobody(tmp_path: Path) -> None:
    train = write_list(tmp_path / "a.tsv", {"t1": {"speaker": "p1"}, "t2": {"speaker": "p2"}, "t3": {}})
    rows = {"e1": {"speaker": "p2"}, "e2": {"speaker": "p2"}, "e3": {"speaker": "p3"}, "e4": {}}
    done = run_cli("overlap", train, write_list(tmp_path / "b.tsv", rows))  # a warning, so exit code 0
    line = next(line for line in done.stdout.splitlines() if line.startswith("same speaker"))
    assert line.split() == ["same", "speaker", "2", "50.00", "e1,", "e2"]
    assert "1 speakers are in both lists" in done.stdout


def test_the_same_file_below_the_same_root_is_a_leak_whatever_its_id(tmp_path: Path) -> None:
    lists = [
        write_list(tmp_path / f"{name}.tsv", {name: {"path": "x/1.wav", "key": key}}, root=tmp_path / "root")
        for name, key in (("a", "bonafide"), ("b", "spoof"))
    ]
    done = run_cli("overlap", *lists, ok=False)
    assert done.returncode == 1
    assert "leak: the training list holds utterances of the evaluation list (1 with the same file)" in done.stdout
    assert "1 of those with the same file are bona fide in one list and spoof in the other" in done.stdout
    elsewhere = write_list(tmp_path / "c.tsv", {"c": {"path": "x/1.wav"}}, root=tmp_path / "root2")
    assert counts(lists[0], elsewhere)["file"] == 0


# ---- The verb


def test_table_and_json_hold_what_is_printed(tmp_path: Path) -> None:
    rows = {f"u{number}": {"speaker": "s"} for number in range(7)}
    lists = write_list(tmp_path / "a.tsv", rows), write_list(tmp_path / "b.tsv", rows | {"v": {}})
    out = tmp_path / "out/shared.tsv"
    summary = json.loads(run_cli("overlap", *lists, "--out", out, "--json", ok=False).stdout)
    utterance = next(kind for kind in summary["kinds"] if kind["kind"] == "utterance")
    assert (utterance["n_eval"], utterance["percent_of_eval"]) == (7, 87.5)
    assert utterance["examples"] == [[f"u{number}"] * 2 for number in range(5)]
    table = pl.read_csv(out, separator="\t", infer_schema=False)
    assert table.filter(pl.col("kind") == "utterance")["eval_utt_id"].to_list() == sorted(rows)
    assert "exists already" in refusal("overlap", *lists, "--out", out)
    assert run_cli("overlap", *lists, ok=False).stdout.splitlines()[-1].startswith("1 speakers are in both lists")


def test_lists_that_share_nothing_pass_and_say_whether_audio_was_compared(tmp_path: Path) -> None:
    write_audio(tmp_path / "a", {"u.wav": VOICE})
    write_audio(tmp_path / "b", {"v.wav": VOICE[::-1]})
    lists = write_list(tmp_path / "a.tsv", {"u": {}}), write_list(tmp_path / "b.tsv", {"v": {}})
    assert "audio was not compared (--audio)" in run_cli("overlap", *lists).stdout
    assert "no file, utterance or audio of the evaluation list" in run_cli("overlap", *lists, "--audio").stdout


# ---- Corpora


def says(tmp_path: Path, train: str, evaluation: str, *options: str) -> str:
    lists = (
        write_list(tmp_path / "a.tsv", {"u": {}}, corpus=train),
        write_list(tmp_path / "b.tsv", {"v": {}}, corpus=evaluation),
    )
    return run_cli("overlap", *lists, *options).stdout


def test_corpora_that_come_from_one_source_are_told(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    (tmp_path / "3").mkdir()
    text = says(tmp_path / "1", "asvspoof2019_la", "partialspoof")
    assert "PartialSpoof is made from ASVspoof 2019 LA (arXiv:2204.05177)" in text
    assert "the same recordings by design" in text
    assert "both come from LibriVox" in says(tmp_path / "2", "asvspoof5", "mlaad")
    assert "have no known source in common" in says(tmp_path / "3", "asvspoof5", "spoofceleb")


def test_a_corpus_that_no_manifest_names_is_unknown_until_it_is_named(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    text = says(tmp_path / "0", "asvspoof2019_la", "generic")
    assert "the corpus of the evaluation list is unknown; name it with --eval-corpus" in text
    assert "both come from VCTK" in says(tmp_path / "1", "asvspoof2019_la", "generic", "--eval-corpus", "DFADD")
    lists = [write_list(tmp_path / f"2/{name}.tsv", {name: {}}) for name in "ab"]
    assert "--train-corpus Atlantis: no such corpus" in refusal("overlap", *lists, "--train-corpus", "Atlantis")


def test_sources_are_whole_and_cited() -> None:
    corpora = known_corpora()
    for corpus in corpora.values():
        assert set(corpus.made_of) <= set(corpora), corpus.name
        assert corpus.cite.strip(), corpus.name
    prepared = [corpus.prepare for corpus in corpora.values() if corpus.prepare]
    assert sorted(prepared) == sorted(set(CORPORA) - {"generic", "kaldi"})


def test_shared_sources_are_the_nearest_ones() -> None:
    assert shared_sources("PartialSpoof", "ASVspoof 2019 LA") == ["ASVspoof 2019 LA"]
    assert shared_sources("LibriSeVoc", "LibriTTS-R") == ["LibriTTS"]
    assert shared_sources("SpoofCeleb", "In-the-Wild") == []
    assert ancestry("a corpus of one's own") == {"a corpus of one's own"}


def test_encoders_that_heard_librivox_are_those_that_the_sources_say() -> None:
    assert LIBRIVOX_NOTE in known_provenance("microsoft/wavlm-large").notes
    assert LIBRIVOX_NOTE not in known_provenance("facebook/wav2vec2-large-de-voxpopuli").notes


def test_neither_verb_needs_torch() -> None:
    code = (
        "import sys, spoofkit.checks.overlap, spoofkit.addons.audit.run\n"
        "assert not {'torch', 'matplotlib', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
