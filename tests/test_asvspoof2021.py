"""ASVspoof 2021 LA and DF as released become manifests: the key is column 6, `eval` is the default, PA is refused."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import SHARED, refusal, run_cli
from released import make_asvspoof2021_df, make_asvspoof2021_la

from spoofkit.corpora.asvspoof2021 import read_df, read_la
from spoofkit.corpora.counts import published_counts
from spoofkit.corpora.prepare import prepare
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError

LA = "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval"
LA_BONAFIDE = "LA_0007 LA_E_5932896 none loc_tx bonafide bonafide notrim eval"
NEURAL = "neural_vocoder_nonautoregressive"
DF = f"TEF2 DF_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval {NEURAL} Task1 team20 FF E"
DF_BONAFIDE = "LA_0048 DF_E_2000058 nocodec asvspoof - bonafide notrim eval bonafide - - - -"
PA = "PA_0010 PA_E_1000001 R3 M3 d4 r1 m1 s4 c4 spoof notrim eval"
READERS = {"LA": read_la, "DF": read_df}


@pytest.fixture(scope="module")
def corpora_2021(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("released")
    return {"LA": make_asvspoof2021_la(folder / "la"), "DF": make_asvspoof2021_df(folder / "df")}


def keys_of(folder: Path, track: str) -> Path:
    return folder / "keys" / track / "CM" / "trial_metadata.txt"


def parse(tmp_path: Path, track: str, text: str, subset: str = "all") -> pl.DataFrame:
    keys_of(tmp_path, track).parent.mkdir(parents=True, exist_ok=True)
    keys_of(tmp_path, track).write_text(text, newline="")
    return READERS[track](tmp_path, subset=subset)[0].table


def write_published(folder: Path, track: str) -> None:
    """Keys with the published counts per class and subset, and with every attack and codec that is checked."""
    counts = published_counts(f"asvspoof2021_{track.lower()}")["eval"]
    n_eval, in_eval = counts["subset"]["eval"], counts["key in eval"]["bonafide"]
    in_others = counts["key"]["bonafide"] - in_eval
    subsets = [subset for subset, count in counts["subset"].items() for _ in range(count)]
    released = {"LA": "none", "DF": "nocodec"}[track]
    codecs = [released if codec == "-" else codec for codec in counts["codec"]]
    lines = []
    for index, subset in enumerate(subsets):
        is_bonafide = index < in_eval or n_eval <= index < n_eval + in_others
        codec, start = codecs[index % len(codecs)], f"s {track}_E_{index:07d}"
        if track == "LA":
            attack, key = ("bonafide", "bonafide") if is_bonafide else (f"A{7 + index % 13:02d}", "spoof")
            lines.append(f"{start} {codec} ita_tx {attack} {key} notrim {subset}\n")
        else:
            sources, vocoders = counts["source"], [v for v in counts["vocoder"] if v != "bonafide"]
            attack, key, vocoder = (
                ("-", "bonafide", "bonafide") if is_bonafide else ("A14", "spoof", vocoders[index % len(vocoders)])
            )
            source = sources[index % len(sources)]
            lines.append(f"{start} {codec} {source} {attack} {key} notrim {subset} {vocoder} - - - -\n")
    keys_of(folder, track).parent.mkdir(parents=True)
    keys_of(folder, track).write_text("".join(lines))


def test_a_line_of_la_keeps_all_of_its_columns(tmp_path: Path) -> None:
    assert parse(tmp_path, "LA", f"{LA}\n{LA_BONAFIDE}\n").rows(named=True) == [
        {
            "utt_id": "LA_E_9332881", "path": "ASVspoof2021_LA_eval/flac/LA_E_9332881.flac", "key": "spoof",
            "speaker": "LA_0009", "attack": "A07", "codec": "alaw", "trans": "ita_tx", "trim": "notrim",
            "subset": "eval",
        },
        {
            "utt_id": "LA_E_5932896", "path": "ASVspoof2021_LA_eval/flac/LA_E_5932896.flac", "key": "bonafide",
            "speaker": "LA_0007", "attack": "-", "codec": "-", "trans": "loc_tx", "trim": "notrim", "subset": "eval",
        },
    ]  # fmt: skip


def test_a_line_of_df_keeps_all_of_its_columns(tmp_path: Path) -> None:
    assert parse(tmp_path, "DF", f"{DF}\n{DF_BONAFIDE}\n").rows(named=True) == [
        {
            "utt_id": "DF_E_2000013", "path": "ASVspoof2021_DF_eval/flac/DF_E_2000013.flac", "key": "spoof",
            "speaker": "TEF2", "attack": "Task1-team20", "codec": "low_m4a", "source": "vcc2020", "trim": "notrim",
            "subset": "eval", "vocoder": "neural_vocoder_nonautoregressive", "task": "Task1", "team": "team20",
            "gender_pair": "FF", "language": "E",
        },
        {
            "utt_id": "DF_E_2000058", "path": "ASVspoof2021_DF_eval/flac/DF_E_2000058.flac", "key": "bonafide",
            "speaker": "LA_0048", "attack": "-", "codec": "-", "source": "asvspoof", "trim": "notrim",
            "subset": "eval", "vocoder": "bonafide", "task": "-", "team": "-", "gender_pair": "-", "language": "-",
        },
    ]  # fmt: skip


@pytest.mark.parametrize(("track", "lines"), [("LA", (LA, LA_BONAFIDE)), ("DF", (DF, DF_BONAFIDE))])
def test_the_key_is_column_6_and_not_where_others_look_for_it(
    track: str, lines: tuple[str, str], tmp_path: Path
) -> None:
    def naive_last(line: str) -> str:  # as in the lists of 2019
        return "bonafide" if line.split()[-1] == "bonafide" else "spoof"

    def naive_anywhere(line: str) -> str:
        return next(field for field in line.split() if field in ("bonafide", "spoof"))

    def naive_attack_column(line: str) -> str:
        return "bonafide" if line.split()[4] == "bonafide" else "spoof"

    table = parse(tmp_path, track, "\n".join(lines) + "\n")
    assert table["key"].to_list() == ["spoof", "bonafide"]
    assert [naive_last(line) for line in lines] == ["spoof", "spoof"]
    if track == "DF":
        assert [naive_attack_column(line) for line in lines] == ["spoof", "spoof"]
        # A speaker may have any name, so looking for the word in the whole line is no reader either.
        renamed = DF.replace("TEF2", "bonafide")
        assert naive_anywhere(renamed) == "bonafide"
        assert parse(tmp_path, "DF", renamed + "\n")["key"].to_list() == ["spoof"]


@pytest.mark.parametrize("track", ["LA", "DF"])
def test_first_trial_is_kept(track: str, tmp_path: Path) -> None:
    lines = {"LA": (LA, LA_BONAFIDE), "DF": (DF, DF_BONAFIDE)}[track]
    table = parse(tmp_path, track, "\n".join(lines) + "\n")
    naive = pl.read_csv(keys_of(tmp_path, track), separator=" ")  # header=0
    assert (table.height, naive.height) == (2, 1)
    assert table["utt_id"][0] == lines[0].split()[1]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the quoted sample lines are not on this machine")
def test_lines_quoted_from_the_released_keys_are_read(tmp_path: Path) -> None:
    lines = (SHARED / "cases/protocols/sample_lines.txt").read_text().splitlines()
    la = [line for line in lines if re.match(r"\S+ LA_E_\d+ ", line) and len(line.split(" ")) == 8]
    df = [line for line in lines if re.match(r"\S+ DF_E_\d+ ", line)]
    pa = [line for line in lines if re.match(r"\S+ PA_E_\d+ ", line)]
    wanted = ("utt_id", "speaker", "key", "attack", "codec", "subset", "trim")
    assert parse(tmp_path, "LA", "\n".join(la) + "\n").select(*wanted, "trans").rows() == [
        ("LA_E_9332881", "LA_0009", "spoof", "A07", "alaw", "eval", "notrim", "ita_tx")
    ]
    table = parse(tmp_path, "DF", "\n".join(df) + "\n")
    assert table.select(wanted).rows() == [
        ("DF_E_2000011", "LA_0023", "spoof", "A14", "-", "progress", "notrim"),
        ("DF_E_2000013", "TEF2", "spoof", "Task1-team20", "low_m4a", "eval", "notrim"),
        ("DF_E_2000024", "TGF1", "spoof", "Task2-team12", "mp3m4a", "eval", "notrim"),
    ]
    assert table.select("source", "vocoder", "task", "team", "gender_pair", "language").rows() == [
        ("asvspoof", "traditional_vocoder", "-", "-", "-", "-"),
        ("vcc2020", "neural_vocoder_nonautoregressive", "Task1", "team20", "FF", "E"),
        ("vcc2020", "traditional_vocoder", "Task2", "team12", "FF", "G"),
    ]
    with pytest.raises(SpoofkitError, match="track PA"):
        parse(tmp_path, "LA", "\n".join(pa) + "\n")


@pytest.mark.parametrize("track", ["LA", "DF"])
@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        ("eval", {"eval": 12}),
        ("progress", {"progress": 4}),
        ("hidden", {"hidden": 4}),
        ("all", {"eval": 12, "progress": 4, "hidden": 4}),
    ],
)
def test_a_miniature_becomes_the_manifest_of_a_subset(
    track: str, subset: str, expected: dict[str, int], corpora_2021: dict[str, Path], tmp_path: Path
) -> None:
    options = [] if subset == "eval" else ["--subset", subset]  # published EERs are of `eval`, so it is the default
    run_cli("prepare", f"asvspoof2021_{track.lower()}", corpora_2021[track], "-o", tmp_path, "--partial", *options)
    run_cli("validate", tmp_path / "eval.tsv", "--read-audio")
    table = read_manifest(tmp_path / "eval.tsv").table
    assert dict(table["subset"].value_counts().iter_rows()) == expected
    for key in ("bonafide", "spoof"):
        assert (table["key"] == key).sum() == sum(expected.values()) // 2


def test_a_miniature_holds_every_codec_and_vocoder_that_is_released(corpora_2021: dict[str, Path]) -> None:
    for track, columns in (("LA", ("codec", "subset")), ("DF", ("codec", "subset", "source", "vocoder"))):
        table = READERS[track](corpora_2021[track], subset="all")[0].table
        for column in columns:
            released = published_counts(f"asvspoof2021_{track.lower()}")["eval"][column]
            assert set(table[column]) == set(released)


def test_uncoded_speech_is_uncoded_as_in_the_other_corpora(corpora_2021: dict[str, Path]) -> None:
    for track, word in (("LA", "none"), ("DF", "nocodec")):
        table = READERS[track](corpora_2021[track], subset="all")[0].table
        lines = [line.split(" ") for line in keys_of(corpora_2021[track], track).read_text().splitlines()]
        expected = {fields[1]: "-" if fields[2] == word else fields[2] for fields in lines}
        assert dict(table.select("utt_id", "codec").iter_rows()) == expected


@pytest.mark.parametrize(("track", "eval_trials", "n_bonafide"), [("LA", 148_176, 18_452), ("DF", 533_928, 22_617)])
def test_counts_are_those_of_the_whole_list_whatever_subset_is_taken(
    track: str, eval_trials: int, n_bonafide: int, tmp_path: Path
) -> None:
    write_published(tmp_path, track)
    corpus = f"asvspoof2021_{track.lower()}"
    (found,) = prepare(corpus, tmp_path, tmp_path / "data", headers=False)
    assert (found.n_bonafide + found.n_spoof, found.partial) == (eval_trials, "")
    # One trial of `progress` less is noticed though only `eval` is wanted.
    before, _, after = keys_of(tmp_path, track).read_text().partition(" progress")
    keys_of(tmp_path, track).write_text(before[: before.rindex("\n")] + after[after.index("\n") :])
    expected = f"found {n_bonafide - 1:,} bonafide, published are {n_bonafide:,}; fetch the lists again"
    with pytest.raises(SpoofkitError, match=expected):
        prepare(corpus, tmp_path, tmp_path / "less", headers=False)


def test_classes_shuffled_over_the_subsets_are_noticed_though_all_totals_hold(tmp_path: Path) -> None:
    write_published(tmp_path, "LA")
    lines = keys_of(tmp_path, "LA").read_text().splitlines()
    first_eval, last = lines[0].split(" "), lines[-1].split(" ")
    first_eval[-1], last[-1] = last[-1], first_eval[-1]
    keys_of(tmp_path, "LA").write_text("\n".join([" ".join(first_eval), *lines[1:-1], " ".join(last)]) + "\n")
    with pytest.raises(SpoofkitError, match=r"14,815 bonafide \+ 133,361 spoof, published are 14,816 \+ 133,360"):
        prepare("asvspoof2021_la", tmp_path, tmp_path / "data", headers=False)


def test_another_subset_is_another_manifest(corpora_2021: dict[str, Path], tmp_path: Path) -> None:
    run_cli("prepare", "asvspoof2021_la", corpora_2021["LA"], "-o", tmp_path, "--partial")
    run_cli("prepare", "asvspoof2021_la", corpora_2021["LA"], "-o", tmp_path, "--partial", "--reuse")
    message = refusal(
        "prepare", "asvspoof2021_la", corpora_2021["LA"], "-o", tmp_path, "--partial", "--reuse", "--subset", "all"
    )
    assert "inputs have changed since (subset)" in message
    partial = read_manifest(tmp_path / "eval.tsv").partial
    assert partial.startswith("10 bonafide + 10 spoof, published are 18,452 + 163,114; 12 eval + 4 progress + 4 hidden")


def test_an_unknown_or_empty_subset_is_refused(corpora_2021: dict[str, Path], tmp_path: Path) -> None:
    message = refusal("prepare", "asvspoof2021_la", corpora_2021["LA"], "-o", tmp_path, "--subset", "test")
    assert message == "--subset: 'test' is none, expected eval, progress, hidden or all"
    with pytest.raises(SpoofkitError, match="holds no trial of subset 'hidden'"):
        parse(tmp_path, "LA", LA + "\n", subset="hidden")
    message = refusal("prepare", "asvspoof2021_df", corpora_2021["DF"], "-o", tmp_path, "--sets", "dev")
    assert "'dev' is not a set of this corpus, expected some of eval" in message


@pytest.mark.parametrize(
    ("track", "text", "sentence"),
    [
        ("LA", "", "is empty"),
        ("LA", f"{LA}\n{LA.removesuffix(' eval')}\n", "line 2: found 7 columns"),
        ("LA", DF, r"found 13 columns separated by spaces, expected 8 \(speaker utt_id codec trans"),
        ("DF", LA, "found 8 columns separated by spaces, expected 13"),
        ("DF", "- DF_E_2000011 - - - spoof - progress", "found 8 columns"),  # the keys of the first stage
        ("LA", "LA_0009 LA_E_9332881 - A07 spoof", "found 5 columns"),  # as in 2019
        ("LA", "LA_E_9332881", "found 1 columns"),  # the list of trials among the audio
        ("LA", LA.replace("LA_E_9332881", "DF_E_9332881"), "'DF_E_9332881', expected LA_E_ and digits"),
        ("DF", DF.replace("DF_E_2000013", "../../2000013"), "utterance id is '../../2000013'"),
        ("DF", DF.replace("DF_E_2000013", "DF_E_1/../2"), "utterance id is 'DF_E_1/../2'"),
        ("DF", DF.replace("DF_E_2000013", "NA"), "utterance id is 'NA'"),
        ("LA", LA.replace(" spoof ", " fake "), r"key \(column 6\) is 'fake'"),
        ("LA", LA.replace("A07", "bonafide"), r"attack \(column 5\) is 'bonafide' where the key is 'spoof'"),
        ("DF", DF_BONAFIDE.replace("asvspoof -", "asvspoof A14"), "is 'A14' where the key is 'bonafide'"),
        ("LA", LA.replace("notrim eval", "eval notrim"), r"subset \(column 8\) is 'notrim', expected eval, progress"),
        ("DF", f"{DF}\n{DF_BONAFIDE}\n{DF}\n", "line 3: utt_id 'DF_E_2000013' stood in line 1 already"),
    ],
)
def test_a_list_of_another_shape_is_refused_naming_the_line(
    track: str, text: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        parse(tmp_path, track, text)


@pytest.mark.parametrize(
    ("track", "old", "new", "sentence"),
    [
        ("LA", " g722 ", " g729 ", "codec 'g729' is none of this set, expected -, alaw, pstn"),
        ("LA", " A08 ", " A06 ", "attack 'A06' is none of this set, expected -, A07"),
        ("DF", " low_ogg ", " none_ogg ", "codec 'none_ogg' is none of this set"),
        ("DF", " vcc2018 ", " vcc2016 ", "source 'vcc2016' is none of this set, expected asvspoof, vcc2018, vcc2020"),
        ("DF", " waveform_concatenation ", " diffusion ", "vocoder 'diffusion' is none of this set"),
    ],
)
def test_a_value_that_was_never_released_is_refused_even_in_a_part(
    track: str, old: str, new: str, sentence: str, corpora_2021: dict[str, Path], tmp_path: Path
) -> None:
    keys_of(tmp_path, track).parent.mkdir(parents=True)
    text = keys_of(corpora_2021[track], track).read_text()
    assert old in text
    keys_of(tmp_path, track).write_text(text.replace(old, new))
    assert sentence in refusal(
        "prepare", f"asvspoof2021_{track.lower()}", tmp_path, "-o", tmp_path / "data", "--partial"
    )


def test_crlf_is_the_end_of_a_line(tmp_path: Path) -> None:
    text = f"{DF}\n{DF_BONAFIDE}\n"
    assert parse(tmp_path, "DF", text.replace("\n", "\r\n")).equals(parse(tmp_path, "DF", text))
    assert DF.replace("\n", "\r\n").split(" ")[-1] == "E"


def to_own_folder(folder: Path) -> None:
    (folder / "LA-keys-full").mkdir()
    (folder / "keys").rename(folder / "LA-keys-full" / "keys")


def without_keys_folder(folder: Path) -> None:
    (folder / "keys" / "LA").rename(folder / "LA")


def beside_the_audio(folder: Path) -> None:
    (folder / "keys").rename(folder / "ASVspoof2021_LA_eval" / "keys")


def among_the_audio(folder: Path) -> None:
    keys_of(folder, "LA").rename(folder / "ASVspoof2021_LA_eval" / "trial_metadata.txt")


@pytest.mark.parametrize("move", [to_own_folder, without_keys_folder, beside_the_audio, among_the_audio])
def test_keys_are_found_where_people_unpack_them(
    move: Callable[[Path], None], corpora_2021: dict[str, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(corpora_2021["LA"], tmp_path / "2021")
    move(copy)
    run_cli("prepare", "asvspoof2021_la", copy, "-o", tmp_path / "data", "--partial")
    assert read_manifest(tmp_path / "data/eval.tsv").table.height == 12


def test_a_folder_above_or_below_is_told_what_was_looked_for(corpora_2021: dict[str, Path], tmp_path: Path) -> None:
    for folder in (corpora_2021["LA"].parent, corpora_2021["LA"] / "ASVspoof2021_LA_eval"):
        message = refusal("prepare", "asvspoof2021_la", folder, "-o", tmp_path, "--partial")
        assert f"{folder}/keys/LA/CM/trial_metadata.txt: no such file, nor LA/CM/trial_metadata.txt" in message
        assert "expected the folder that holds ASVspoof2021_LA_eval, with LA-keys-full.tar.gz unpacked" in message
    message = refusal("prepare", "asvspoof2021_df", corpora_2021["LA"], "-o", tmp_path, "--partial")
    assert "keys/DF/CM/trial_metadata.txt: no such file" in message


@pytest.mark.parametrize("track", ["LA", "DF"])
def test_the_track_pa_is_refused_by_name(track: str, tmp_path: Path) -> None:
    keys_of(tmp_path, "PA").parent.mkdir(parents=True)
    keys_of(tmp_path, "PA").write_text(PA + "\n")
    message = refusal("prepare", f"asvspoof2021_{track.lower()}", tmp_path, "-o", tmp_path / "data", "--partial")
    assert "keys/PA/CM/trial_metadata.txt: is the list of track PA (physical access, 12 columns)" in message
    with pytest.raises(SpoofkitError, match=f"keys/{track}/CM/trial_metadata.txt: is the list of track PA"):
        parse(tmp_path, track, f"{PA}\n")


def test_missing_audio_is_told_with_the_archives_to_unpack(corpora_2021: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(corpora_2021["DF"], tmp_path / "2021")
    for path in (copy / "ASVspoof2021_DF_eval" / "flac").iterdir():
        path.unlink()
    message = refusal("prepare", "asvspoof2021_df", copy, "-o", tmp_path / "data", "--partial")
    assert re.search("12 of the 12 audio files of eval are missing, first /.*/DF_E_", message)
    assert "unpack all four ASVspoof2021_DF_eval_part*.tar.gz" in message
