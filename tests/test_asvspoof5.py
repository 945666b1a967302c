"""ASVspoof 5 as released becomes manifests; other columns and counts are refused."""

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from conftest import SHARED, refusal, run_cli

from spoofkit.corpora.asvspoof5 import LISTS, TRIALS, read
from spoofkit.corpora.counts import published_counts
from spoofkit.corpora.prepare import Prepared, prepare
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.breakdown import measure

LINE = "T_4850 T_0000000000 F - - - AC3 A05 spoof -"
BONAFIDE = "T_3734 T_0000000011 F - - - - bonafide bonafide -"


def parse(tmp_path: Path, text: str, name: str = "train") -> pl.DataFrame:
    (tmp_path / LISTS[name][0]).write_text(text, newline="")
    return read(tmp_path, sets=(name,))[0].table


def prepare_whole(folder: Path, out: Path, **options: object) -> list[Prepared]:
    return prepare("asvspoof5", folder, out, headers=False, **options)


def write_published(folder: Path, name: str, left_out: str = "") -> None:
    """A list with the published counts, and with every attack and codec there is, but without one attack."""
    counts, (file_name, letter) = published_counts("asvspoof5")[name], LISTS[name]
    attacks, codecs = [a for a in counts["attack"] if a not in ("-", left_out)], counts["codec"]
    n_bonafide, lines = counts["key"]["bonafide"], []
    for index in range(sum(counts["key"].values())):
        attack, key = ("bonafide",) * 2 if index < n_bonafide else (attacks[index % len(attacks)], "spoof")
        codec = codecs[index % len(codecs)]
        lines.append(f"{letter}_1 {letter}_{index:010d} F {codec} - - - {attack} {key} -\n")
    (folder / file_name).write_text("".join(lines))


def test_first_protocol_row_is_kept(tmp_path: Path) -> None:
    table = parse(tmp_path, f"{LINE}\n{BONAFIDE}\n")
    assert table.rows(named=True) == [
        {
            "utt_id": "T_0000000000", "path": "flac_T/T_0000000000.flac", "key": "spoof", "speaker": "T_4850",
            "attack": "A05", "codec": "-", "gender": "F", "codec_q": "-", "codec_seed": "-", "attack_tag": "AC3",
        },
        {
            "utt_id": "T_0000000011", "path": "flac_T/T_0000000011.flac", "key": "bonafide", "speaker": "T_3734",
            "attack": "-", "codec": "-", "gender": "F", "codec_q": "-", "codec_seed": "-", "attack_tag": "-",
        },
    ]  # fmt: skip
    # What `header=0`, the default of many readers, makes of the same list: its first trial becomes a header.
    naive = pl.read_csv(tmp_path / LISTS["train"][0], separator=" ")
    assert naive.height == 1
    assert "T_0000000000" not in naive.to_series(1)


def test_a_line_of_ten_columns_is_no_line_of_six(tmp_path: Path) -> None:
    def naive(line: str) -> tuple[str, str]:
        _, utt_id, _, _, _, key = line.split(" ")
        return utt_id, key

    with pytest.raises(ValueError, match="too many values to unpack"):
        naive(LINE)
    assert LINE.split(" ")[5] == LINE.split(" ")[-1] == "-"  # nor is the key the sixth column or the last
    assert parse(tmp_path, LINE + "\n").select("utt_id", "key").row(0) == ("T_0000000000", "spoof")
    with pytest.raises(SpoofkitError, match="line 1: found 6 columns separated by spaces, expected 10"):
        parse(tmp_path, "T_4850 T_0000000000 F - A05 spoof\n")


def test_the_attack_is_the_label_and_not_the_tag(tmp_path: Path) -> None:
    assert parse(tmp_path, LINE + "\n").select("attack", "attack_tag").row(0) == ("A05", "AC3")
    swapped = LINE.replace("AC3 A05", "A05 AC3")
    (tmp_path / LISTS["train"][0]).write_text(swapped + "\n")
    with pytest.raises(SpoofkitError, match="attack 'AC3' is none of this set, expected -, A01, A02"):
        prepare_whole(tmp_path, tmp_path / "data", sets=("train",), partial=True)


def test_eval_line_keeps_codec_and_quality(tmp_path: Path) -> None:
    coded = "E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -"
    uncoded = "E_1607 E_0009538970 M - 0 - AC1 A32 spoof -"
    rows = parse(tmp_path, f"{coded}\n{uncoded}\n", "eval").rows(named=True)
    assert rows[0]["path"] == "flac_E_eval/E_0009538969.flac"
    assert [rows[0][name] for name in ("codec", "codec_q", "codec_seed", "attack")] == [
        "C05", "2", "E_0009486171", "A26",
    ]  # fmt: skip
    assert (rows[1]["codec"], rows[1]["codec_q"], rows[1]["codec_seed"]) == ("-", "0", "-")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the quoted sample lines are not on this machine")
def test_lines_quoted_from_the_released_lists_are_read(tmp_path: Path) -> None:
    lines = (SHARED / "cases/protocols/sample_lines.txt").read_text().splitlines()
    tables = {}
    for name, (_, letter) in LISTS.items():
        mine = [line for line in lines if line.startswith(f"{letter}_") and len(line.split(" ")) == 10]
        tables[name] = parse(tmp_path, "\n".join(mine) + "\n", name)
    assert {name: table.height for name, table in tables.items()} == {"train": 2, "dev": 6, "eval": 1}
    wanted = ("utt_id", "key", "speaker", "attack", "codec", "gender")
    assert tables["dev"].select(wanted).row(2) == ("D_0000000190", "bonafide", "D_0461", "-", "-", "M")
    assert tables["dev"].select(wanted).row(4) == ("D_0000000232", "spoof", "D_1045", "A10", "-", "F")


@pytest.mark.parametrize("mangle", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text])
def test_a_list_that_went_through_a_windows_editor_is_the_same_list(mangle, tmp_path: Path) -> None:
    text = f"{LINE}\n{BONAFIDE}\n"
    assert parse(tmp_path, mangle(text)).equals(parse(tmp_path, text))


def test_an_id_or_field_of_the_word_na_is_a_word(tmp_path: Path) -> None:
    table = parse(tmp_path, LINE.replace("T_4850", "NA").replace(" F ", " null ") + "\n")
    assert table.select("speaker", "gender").row(0) == ("NA", "null")
    with pytest.raises(SpoofkitError, match="utterance id is 'NA', expected T_ and digits"):
        parse(tmp_path, LINE.replace("T_0000000000", "NA") + "\n")
    # What a reader that takes such words for missing values makes of it.
    assert pl.read_csv(b"NA T_1 null\n", separator=" ", has_header=False, null_values=["NA", "null"]).null_count().row(
        0
    ) == (1, 0, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        (
            "SPEAKER FILE GENDER CODEC CODEC_Q CODEC_SEED ATTACK_TAG ATTACK_LABEL KEY TMP\n" + LINE,
            "line 1: utterance id is 'FILE'",
        ),
        ("LA_0079 LA_T_1138215 - - bonafide\n", "line 1: found 5 columns separated by spaces, expected 10"),
        (LINE.replace(" ", "\t"), "found 1 columns"),
        (LINE.replace("T_4850", "T_\t4850"), "line 1: found 10 columns separated by spaces and a tab"),
        (LINE + "\n\n" + BONAFIDE, "line 2: is blank"),
        (LINE + "\n" + LINE.replace("spoof -", "fake -"), r"line 2: key \(column 9\) is 'fake'"),
        (LINE.replace("A05", "bonafide"), r"attack \(column 8\) is 'bonafide' where the key is 'spoof'"),
        (BONAFIDE.replace("bonafide bonafide", "A05 bonafide"), "is 'A05' where the key is 'bonafide'"),
        (LINE.replace("T_0000000000", "../T_1"), "utterance id is '../T_1'"),
        (LINE.replace("T_0000000000", "T_0/../../1"), "utterance id is 'T_0/../../1'"),
        (LINE.replace("T_0000000000", "D_0000000000"), "utterance id is 'D_0000000000', expected T_"),
        (
            f"{LINE}\n{BONAFIDE.replace('bonafide -', 'x -')}\n{LINE.replace('T_0', 'X_0')}",
            r"line 2: key \(column 9\) is 'x'",
        ),
        (f"{BONAFIDE}\n{LINE}\n{BONAFIDE}\n", "line 3: utt_id 'T_0000000011' stood in line 1 already"),
    ],
)
def test_a_list_of_another_shape_is_refused_naming_the_line(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=sentence):
        parse(tmp_path, text)


def test_nothing_is_written_when_one_of_the_lists_is_refused(corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    protocol = copy / LISTS["eval"][0]
    protocol.write_text(protocol.read_text() + protocol.read_text().splitlines()[0] + "\n")
    message = refusal("prepare", "asvspoof5", copy, "-o", tmp_path / "data", "--partial")
    assert "line 13: utt_id 'E_0000000000' stood in line 1 already" in message
    assert not (tmp_path / "data").exists()


def test_a_dry_run_checks_lists_and_counts_and_touches_neither_audio_nor_disk(corpus: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for path in corpus.glob("*.tsv"):
        shutil.copy(path, lists)  # without any audio
    call = ("prepare", "asvspoof5", lists, "-o", tmp_path / "data")
    lines = run_cli(*call, "--partial", "--dry-run").stdout.splitlines()
    assert [line.split(": ")[1].split(" (")[0] for line in lines] == [
        "8 bona fide + 8 spoof", "5 bona fide + 5 spoof", "6 bona fide + 6 spoof",
    ]  # fmt: skip
    assert "published are" in refusal(*call, "--dry-run")
    assert not (tmp_path / "data").exists()
    assert "audio files of train are missing" in refusal(*call, "--partial")


def test_other_counts_than_the_published_ones_need_partial(corpus: Path, tmp_path: Path) -> None:
    message = refusal("prepare", "asvspoof5", corpus, "-o", tmp_path)
    assert "found 8 bonafide + 8 spoof, published are 18,797 + 163,560" in message
    assert "--partial" in message
    assert list(tmp_path.iterdir()) == []
    found = prepare("asvspoof5", corpus, tmp_path, partial=True)
    assert [(p.path.name, p.n_bonafide, p.n_spoof) for p in found] == [
        ("train.tsv", 8, 8), ("dev.tsv", 5, 5), ("eval.tsv", 6, 6),
    ]  # fmt: skip
    partial = read_manifest(tmp_path / "eval.tsv").partial
    assert partial == "6 bonafide + 6 spoof, published are 138,688 + 542,086; no attack A18; no codec C02"


def test_whole_lists_of_the_published_counts_are_accepted(tmp_path: Path) -> None:
    for name in LISTS:
        write_published(tmp_path, name)
    found = prepare_whole(tmp_path, tmp_path / "data")
    assert [(p.n_bonafide, p.n_spoof, p.partial) for p in found] == [
        (18_797, 163_560, ""), (31_334, 109_616, ""), (138_688, 542_086, ""),
    ]  # fmt: skip


@pytest.mark.skipif(not SHARED.is_dir(), reason="the released README is not on this machine")
def test_the_totals_are_those_of_the_released_readme() -> None:
    readme = (SHARED / "cases/protocols/ASVspoof5.README.txt").read_text()
    n_lines = dict(re.findall(r"^[0-9a-f]{32}  (ASVspoof5\S+) +(\d+)$", readme, re.MULTILINE))
    counts = published_counts("asvspoof5")
    for name, (list_name, _) in (LISTS | TRIALS).items():
        assert sum(counts[name]["key" if name in LISTS else "line"].values()) == int(n_lines[list_name])


def test_a_list_without_its_last_attack_is_not_whole(tmp_path: Path) -> None:
    write_published(tmp_path, "eval", left_out="A32")
    with pytest.raises(SpoofkitError, match=r"eval.track_1.tsv: found no attack A32; fetch the lists again, or pass"):
        prepare_whole(tmp_path, tmp_path / "data", sets=("eval",))


def test_the_last_label_is_an_attack_and_is_reported(tmp_path: Path) -> None:
    def naive(attacks: pl.Series) -> list[str]:
        return sorted(attacks.unique())[:-1]  # "the last one is bonafide"

    lines = [LINE.replace("T_", "E_").replace("A05", attack) for attack in ("A17", "A32")]
    lines += [BONAFIDE.replace("T_", "E_"), BONAFIDE.replace("T_", "E_").replace("0011", "0012")]
    lines[1] = lines[1].replace("0000 F", "0001 F")
    trials = parse(tmp_path, "\n".join(lines) + "\n", "eval").with_columns(score=pl.Series([0.1, 0.2, 0.3, 0.4]))
    assert naive(trials["attack"]) == ["-", "A17"]
    assert [row["attack"] for row in measure(trials)["by_attack"]] == ["A17", "A32"]


def test_one_trial_too_few_is_told_with_both_numbers(tmp_path: Path) -> None:
    write_published(tmp_path, "dev")
    protocol = tmp_path / LISTS["dev"][0]
    protocol.write_text(protocol.read_text().partition("\n")[2])
    with pytest.raises(SpoofkitError, match="found 31,333 bonafide, published are 31,334; fetch the lists again"):
        prepare_whole(tmp_path, tmp_path / "data", sets=("dev",))


def test_a_codec_in_train_is_refused_even_in_a_part(tmp_path: Path) -> None:
    (tmp_path / LISTS["train"][0]).write_text(LINE.replace("F - -", "F C05 2") + "\n")
    with pytest.raises(SpoofkitError, match="codec 'C05' is none of this set, expected -; fetch"):
        prepare_whole(tmp_path, tmp_path / "data", sets=("train",), partial=True)


def test_lists_in_a_folder_of_their_own_are_found(corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    (copy / "ASVspoof5_protocols").mkdir()
    for name, _ in LISTS.values():
        (copy / name).rename(copy / "ASVspoof5_protocols" / name)
    assert len(prepare("asvspoof5", copy, tmp_path / "data", partial=True)) == 3


def test_a_folder_without_lists_is_told_what_was_looked_for(corpus: Path, tmp_path: Path) -> None:
    message = refusal("prepare", "asvspoof5", corpus / "flac_T", "-o", tmp_path / "data", "--partial")
    assert re.search(r"flac_T/ASVspoof5.train.tsv: no such file, nor ASVspoof5_protocols/ASVspoof5.train.tsv;", message)
    assert "ASVspoof5_protocols.tar.gz" in message
    assert "asvspoof5 as released" in refusal("prepare", "asvspoof5", corpus / "nowhere", "-o", tmp_path / "data")


def test_only_the_sets_that_are_asked_for_are_read(corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    (copy / LISTS["eval"][0]).unlink()
    run_cli("prepare", "asvspoof5", copy, "-o", tmp_path / "data", "--partial", "--sets", "dev,train")
    assert sorted(path.name for path in (tmp_path / "data").glob("*.tsv")) == ["dev.tsv", "train.tsv"]
    message = refusal("prepare", "asvspoof5", copy, "-o", tmp_path / "data", "--partial", "--sets", "test")
    assert "'test' is not a set of this corpus, expected some of train, dev, eval, dev_track2, eval_track2" in message


def test_lengths_come_from_the_headers(manifests: Path) -> None:
    import soundfile

    manifest = read_manifest(manifests / "eval.tsv")
    for utt_id, n_samples in manifest.lengths().items():
        assert soundfile.info(str(manifest.root / "flac_E_eval" / f"{utt_id}.flac")).frames == n_samples


@pytest.mark.parametrize(
    ("name", "lost", "sentence"),
    [
        (
            "dev",
            "flac_D/D_0000000011.flac",
            r"1 of the 10 audio files of dev .*, first .*/flac_D/D_0000000011.flac.*; .* flac_D_\*",
        ),
        ("eval", "flac_E_eval/E_0000000000.flac", r"1 of the 12 audio files of eval .* unpack all flac_E_\*.tar"),
    ],
)
def test_missing_audio_is_counted_and_named(name: str, lost: str, sentence: str, corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    (copy / lost).unlink()
    with pytest.raises(SpoofkitError, match=sentence):
        prepare("asvspoof5", copy, tmp_path / "data", partial=True, sets=(name,))


def test_reuse_keeps_what_is_up_to_date_and_refuses_what_is_not(corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    prepare("asvspoof5", copy, tmp_path / "data", partial=True)
    before = (tmp_path / "data/dev.tsv").stat().st_mtime_ns
    assert all(p.kept for p in prepare("asvspoof5", copy, tmp_path / "data", partial=True, reuse=True))
    assert (tmp_path / "data/dev.tsv").stat().st_mtime_ns == before
    protocol = copy / LISTS["dev"][0]
    protocol.write_text("".join(protocol.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(SpoofkitError, match=r"dev.tsv: inputs have changed since \(lists\)"):
        prepare("asvspoof5", copy, tmp_path / "data", partial=True, reuse=True)


TRACK_2 = """\
D_0001 D_0000000000 F bonafide target
D_0002 D_0000000000 F bonafide nontarget
D_0001 D_0000000011 F A09 spoof
D_0001 D_0000000022 M bonafide nontarget
"""


def with_trials(corpus: Path, tmp_path: Path, text: str) -> Path:
    copy = shutil.copytree(corpus, tmp_path / "corpus", dirs_exist_ok=True)
    (copy / TRIALS["dev_track2"][0]).write_text(text)
    return copy


def test_track_2_holds_each_utterance_once_with_the_key_of_track_1(corpus: Path, tmp_path: Path) -> None:
    copy = with_trials(corpus, tmp_path, TRACK_2)
    run_cli("prepare", "asvspoof5", copy, "-o", tmp_path / "data", "--partial", "--sets", "dev_track2")
    manifest = read_manifest(tmp_path / "data/dev_track2.tsv")
    found = manifest.table.select("utt_id", "key", "attack", "speaker", "n_trials").rows()
    assert found == [
        ("D_0000000000", "bonafide", "-", "D_0000", "2"),  # the speaker who speaks, not the one who is claimed
        ("D_0000000011", "spoof", "A09", "D_0001", "1"),
        ("D_0000000022", "bonafide", "-", "D_0002", "1"),
    ]
    assert manifest.partial == "4 trials, published are 282,456"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("A09 spoof", "A09 spoofed", r"line 3: ASV key \(column 5\) is 'spoofed', expected target, nontarget or spoof"),
        ("D_0000000011", "D_0000000012", "line 3: utterance 'D_0000000012' is not in ASVspoof5.dev.track_1.tsv"),
        (
            "A09 spoof",
            "A09 target",
            r"line 3: ASV key \(column 5\) is 'target' and ASVspoof5.dev.track_1.tsv says spoof",
        ),
        (
            "bonafide nontarget\nD_0001 D_0000000011",
            "bonafide spoof\nD_0001 D_0000000011",
            "line 2: ASV key .* says bona",
        ),
        ("A09 spoof", "A10 spoof", r"line 3: attack \(column 4\) is 'A10' and 'A09' in ASVspoof5.dev.track_1.tsv"),
    ],
)
def test_trials_of_track_2_that_contradict_track_1_are_refused(
    old: str, new: str, sentence: str, corpus: Path, tmp_path: Path
) -> None:
    assert old in TRACK_2
    copy = with_trials(corpus, tmp_path, TRACK_2.replace(old, new))
    with pytest.raises(SpoofkitError, match=sentence):
        read(copy, sets=("dev_track2",))
