"""The challenges' own score files and key lists; and what `evaluate` computes beside the usual."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import SHARED, refusal, run_cli

from spoofkit.data.manifest import write_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation import metrics, tandem
from spoofkit.evaluation.bootstrap import draw_clusters, eer_replicates, make_walk
from spoofkit.evaluation.intervals import interval
from spoofkit.evaluation.layouts import layout_text, read_layout_keys, read_layout_scores
from spoofkit.evaluation.scores import write_scores

REAL_KEYS = SHARED / "cases/protocols/ASVspoof2019.LA.cm.eval.trl.txt"
REAL_SCORES = SHARED / "cases/scores/la19eval_rawgat_st_mul.txt"
REAL_ASV = SHARED / "cases/scores/ASVspoof2019.LA.asv.eval.gi.trl.scores.txt"

LA19 = """LA_0001 LA_E_1 - - bonafide
LA_0002 LA_E_2 - A07 spoof
LA_0001 LA_E_3 - A08 spoof
"""
LA21 = """LA_0009 LA_E_1 alaw ita_tx bonafide bonafide notrim eval
LA_0010 LA_E_2 none ita_tx A07 spoof notrim eval
LA_0011 LA_E_3 none ita_tx A07 spoof notrim progress
"""


@pytest.mark.skipif(not REAL_SCORES.is_file(), reason="the real score files are not on this machine")
def test_a_real_system_is_evaluated_from_the_organisers_files_as_they_are(tmp_path: Path) -> None:
    layout = ["--layout", "asvspoof2019_la", "--asv", REAL_ASV, "--json"]
    found = json.loads(run_cli("evaluate", REAL_SCORES, REAL_KEYS, "-o", tmp_path / "out", *layout).stdout)
    assert found["eer_official_percent"] == pytest.approx(1.060134752, abs=1e-9)
    assert found["tandem"]["min_tdcf_2019"] == pytest.approx(0.033538947, abs=1e-9)
    assert found["tandem"]["min_tdcf_2021"] == pytest.approx(0.094167831, abs=1e-9)
    # compute_teer of the ASVspoof 5 package (fe23d30), every threshold of both systems.
    assert found["tandem"]["teer_percent"] == pytest.approx(2.668238677840516, abs=1e-9)
    assert found["min_cllr_bits"] == pytest.approx(0.046527091, abs=1e-9)
    # Resampling trials gives a standard error of 0.076 points, resampling speakers 0.196.
    low, high = found["intervals"]["eer_official_percent"]
    assert 0.4 < (high - low) / 2 / 1.96 / 0.196 < 2
    assert found["intervals"]["n_clusters"] == 67


@pytest.mark.parametrize(
    "text",
    [
        "LA_E_1 - bonafide 1.5\nLA_E_2 A07 spoof -1\nLA_E_3 A08 spoof -2e0\n",
        "LA_E_3 -2\nLA_E_1 1.5\nLA_E_2 -1\n",
        "LA_E_1.flac 1.5\r\nLA_E_2.flac -1\r\nLA_E_3.flac -2\r\n",
        "LA_E_1.wav 1.5\nLA_E_2.wav -1\nLA_E_3.wav -2",
    ],
)
def test_every_way_in_which_scores_of_2019_are_written_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(LA19)
    (tmp_path / "scores.txt").write_bytes(text.encode())
    keys = read_layout_keys(tmp_path / "keys.txt", "asvspoof2019_la")
    found = read_layout_scores(tmp_path / "scores.txt", "asvspoof2019_la", keys)
    assert dict(found.iter_rows()) == {"LA_E_1": 1.5, "LA_E_2": -1.0, "LA_E_3": -2.0}
    assert keys["attack"].to_list() == ["-", "A07", "A08"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("LA_E_1 - spoof 1.5\nLA_E_2 A07 spoof -1\n", "line 1: key of 'LA_E_1' is 'spoof', the list says 'bonafide'"),
        ("LA_E_1 1.5\nLA_E_2 nan\n", "line 2: score is 'nan', expected a finite number"),
        ("LA_E_1 1.5\nLA_E_1 1.5\n", "line 2: utt_id 'LA_E_1' stood in line 1 already"),
        ("LA_E_1 1.5\nLA_E_2 A07 spoof 1\n", "line 2: found 4 columns"),
        ("LA_E_1 - 1.5\n", "line 1: found 3 columns separated by spaces, expected UTTERANCE SCORE or"),
    ],
)
def test_scores_that_are_none_or_contradict_the_keys_are_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(LA19)
    (tmp_path / "scores.txt").write_text(text)
    keys = read_layout_keys(tmp_path / "keys.txt", "asvspoof2019_la")
    with pytest.raises(SpoofkitError, match=sentence.replace("(", r"\(")):
        read_layout_scores(tmp_path / "scores.txt", "asvspoof2019_la", keys)


def test_lists_of_2021_are_cut_to_the_subset_that_is_published(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(LA21)
    keys = read_layout_keys(tmp_path / "keys.txt", "asvspoof2021_la")
    assert keys.select("utt_id", "key", "attack", "codec").rows() == [
        ("LA_E_1", "bonafide", "-", "alaw"),
        ("LA_E_2", "spoof", "A07", "-"),
    ]
    assert read_layout_keys(tmp_path / "keys.txt", "asvspoof2021_la", "all").height == 3
    (tmp_path / "scores.txt").write_text("LA_E_1 2\nLA_E_2 -1\nLA_E_3 0\n")
    command = ("evaluate", tmp_path / "scores.txt", tmp_path / "keys.txt", "-o", tmp_path / "out")
    # Scores of the whole list, as the organisers' package wants them, and of the subset alone.
    run_cli(*command, "--layout", "asvspoof2021_la", "--replicates", 0)
    assert json.loads((tmp_path / "out/eval.json").read_text())["n_trials"] == 2
    (tmp_path / "scores.txt").write_text("LA_E_1 2\nLA_E_2 -1\n")
    run_cli(*command, "--layout", "asvspoof2021_la", "--replicates", 0, "--overwrite")
    (tmp_path / "scores.txt").write_text("LA_E_1 2\nLA_E_3 -1\n")
    assert "not in the manifest are 1 trial (LA_E_3)" in refusal(*command, "--layout", "asvspoof2021_la", "--overwrite")
    (tmp_path / "scores.txt").write_text("LA_E_1 2\nLA_E_2 -1\nLA_E_3 0\n")
    assert "--layout asvspoof2015: unknown" in refusal(*command, "--layout", "asvspoof2015", "--overwrite")
    run_cli(*command, "--layout", "asvspoof2021_la", "--subset", "all", "--replicates", 0, "--overwrite")
    for options, sentence in (
        (("--subset", "all"), "only the lists of 2021 have subsets"),
        (("--subset", "all", "--layout", "asvspoof2019_la"), "only the lists of 2021 have subsets"),
        (("--resample", "bogus"), "--resample bogus: expected one of"),
        (("--replicates", 5), "too few for an interval"),
        (("--by", "attack"), "--by attack: "),
    ):
        assert sentence in refusal(*command, *options, "--overwrite")


@pytest.mark.parametrize("layout", ["asvspoof2019_la", "asvspoof2021_la", "asvspoof5"])
def test_scores_are_written_as_the_packages_read_them(layout: str, tmp_path: Path) -> None:
    trials = pl.DataFrame(
        {"utt_id": ["b", "a"], "score": [0.1, -3.0], "key": ["bonafide", "spoof"], "attack": ["-", "A07"]}
    )
    (tmp_path / "s.txt").write_text(layout_text(tmp_path / "s.txt", layout, trials))
    assert (tmp_path / "s.txt").read_text() == {
        "asvspoof2019_la": "b - bonafide 0.1\na A07 spoof -3\n",
        "asvspoof2021_la": "b 0.1\na -3\n",
        "asvspoof5": "filename\tcm-score\nb\t0.1\na\t-3\n",
    }[layout]
    found = read_layout_scores(tmp_path / "s.txt", layout, trials)
    assert found.rows() == [("b", 0.1), ("a", -3.0)]


def test_reformat_writes_what_evaluate_reads_back(files: tuple[Path, Path, pl.DataFrame], tmp_path: Path) -> None:
    scores, manifest, trials = files
    run_cli("reformat", scores, manifest, "-o", tmp_path / "s.txt", "--layout", "asvspoof2019_la")
    found = read_layout_scores(tmp_path / "s.txt", "asvspoof2019_la", trials)
    assert found["score"].to_numpy() == pytest.approx(trials["score"].to_numpy(), rel=1e-8)
    again = ("reformat", scores, manifest, "-o", tmp_path / "s.txt", "--layout", "asvspoof2019_la")
    assert "exists already" in refusal(*again)


# ---- evaluate: columns, intervals, tables


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, pl.DataFrame]:
    rng = np.random.default_rng(0)
    n = 600
    is_bonafide = np.arange(n) % 3 == 0
    trials = pl.DataFrame(
        {
            "utt_id": [f"u{i:04d}" for i in range(n)],
            "path": [f"u{i:04d}.flac" for i in range(n)],
            "key": np.where(is_bonafide, "bonafide", "spoof"),
            "speaker": [f"s{i // 20}" for i in range(n)],
            "attack": np.where(is_bonafide, "-", "A_01"),
            "codec": "-",
            "n_samples": 16_000,
            "gender": np.where(np.arange(n) // 20 % 2 == 0, "F", "M"),
            "vocoder": np.where(is_bonafide, "-", "wavenet"),
            "score": rng.normal(0, 1, n) + 1.5 * is_bonafide,
        }
    )
    write_manifest(tmp_path / "set.tsv", Path("/corpus"), trials.drop("score"))
    write_scores(tmp_path / "scores.tsv", trials["utt_id"].to_list(), trials["score"].to_numpy())
    return tmp_path / "scores.tsv", tmp_path / "set.tsv", trials


def test_any_column_can_be_reported_by(files: tuple[Path, Path, pl.DataFrame], tmp_path: Path) -> None:
    scores, manifest, trials = files
    command = ("evaluate", scores, manifest, "-o", tmp_path / "out", "--by", "gender", "--by", "vocoder")
    done = run_cli(*command)
    assert "Per gender: its bona fide against its spoof trials" in done.stdout
    result = json.loads((tmp_path / "out/eval.json").read_text())
    for row in result["by"]["gender"]:
        part = trials.filter(pl.col("gender") == row["gender"])
        classes = [part.filter(pl.col("key") == key)["score"].to_numpy() for key in ("bonafide", "spoof")]
        assert row["eer_official_percent"] == 100 * metrics.eer(*classes).eer
        assert row["min_dcf"] == metrics.min_dcf(*classes)
    bona, spoof = (trials.filter(pl.col("key") == key)["score"].to_numpy() for key in ("bonafide", "spoof"))
    (of_vocoder,) = result["by"]["vocoder"]  # only spoofs have one, so it is all bona fide against each
    assert (of_vocoder["vocoder"], of_vocoder["n_bonafide"], of_vocoder["n_spoof"]) == (
        "wavenet",
        bona.size,
        spoof.size,
    )
    assert of_vocoder["eer_official_percent"] == 100 * metrics.eer(bona, spoof).eer
    assert "Per vocoder: all bona fide against its spoof trials" in done.stdout
    assert "Per gender" in (tmp_path / "out/report.html").read_text()
    sentence = refusal("evaluate", scores, manifest, "-o", tmp_path / "out2", "--by", "age")
    assert "--by age: no such column, expected one of speaker, attack, codec, gender, vocoder" in sentence
    assert "(by)" in refusal("evaluate", scores, manifest, "-o", tmp_path / "out", "--reuse")


def test_scores_of_2021_df_are_tabulated_by_vocoder_and_codec_as_the_organisers_do(tmp_path: Path) -> None:
    """All bona fide of a codec, or of all, against each vocoder's; eval-package/main.py with config.py, ConfigDF."""
    rng = np.random.default_rng(0)
    vocoders, codecs = ("traditional_vocoder", "unknown"), ("nocodec", "low_mp3")
    keys, scores, parts = [], [], {}
    for index in range(400):
        vocoder, codec = ("bonafide", *vocoders)[index % 3], codecs[index // 3 % 2]
        key, attack = ("bonafide", "-") if vocoder == "bonafide" else ("spoof", f"A{7 + index % 5:02d}")
        score = float(rng.normal(vocoder == "bonafide"))
        keys.append(f"S{index % 9} DF_E_{index} {codec} asvspoof {attack} {key} notrim eval {vocoder} - - - -\n")
        scores.append(f"DF_E_{index} {score!r}\n")
        for of_codec in (codec, "Pooled"):
            parts.setdefault((vocoder, of_codec), []).append(score)
    (tmp_path / "keys.txt").write_text("".join(keys))
    (tmp_path / "scores.txt").write_text("".join(scores))
    command = ("evaluate", tmp_path / "scores.txt", tmp_path / "keys.txt", "--layout", "asvspoof2021_df")
    done = run_cli(*command, "--by", "vocoder", "--tsv", "--replicates", 0)
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    found = {(part, value): float(eer) for part, value, _, _, eer, *_ in rows if part.startswith("vocoder")}
    expected = {}
    for vocoder in vocoders:
        for codec, name in ((codecs[0], " -"), (codecs[1], f" {codecs[1]}"), ("Pooled", "")):
            of = ("vocoder and codec" if name else "vocoder", vocoder + name)
            expected[of] = 100 * metrics.eer(parts["bonafide", codec], parts[vocoder, codec]).eer
    assert found == pytest.approx(expected)
    printed = run_cli(*command, "--by", "vocoder", "--replicates", 0).stdout
    assert "Per vocoder × codec" in printed
    assert "In parentheses: fewer than 100" in printed


def test_intervals_are_those_of_resampled_speakers(files: tuple[Path, Path, pl.DataFrame], tmp_path: Path) -> None:
    scores, manifest, trials = files
    done = run_cli("evaluate", scores, manifest, "-o", tmp_path / "out")
    found = json.loads((tmp_path / "out/eval.json").read_text())["intervals"]
    number = {speaker: index for index, speaker in enumerate(sorted(trials["speaker"].unique()))}
    cluster = trials["speaker"].replace_strict(number).to_numpy()
    walk = make_walk(trials["score"].to_numpy(), (trials["key"] == "bonafide").to_numpy(), cluster, 30)
    low, high = interval(100 * eer_replicates(walk, draw_clusters(30)))
    assert found["eer_official_percent"] == pytest.approx([low, high])
    assert f"EER {low:.1f} to {high:.1f} %" in done.stdout  # 7.6 points wide
    assert "(1,000 draws of 30 speakers)" in done.stdout
    page = (tmp_path / "out/report.html").read_text()
    assert f"{low:.1f} to {high:.1f} %" in page


def test_intervals_without_speakers_say_that_they_are_too_narrow(
    files: tuple[Path, Path, pl.DataFrame], tmp_path: Path
) -> None:
    scores, _, trials = files
    unknown = trials.drop("score").with_columns(speaker=pl.lit("-"))
    write_manifest(tmp_path / "unknown.tsv", Path("/corpus"), unknown)
    done = run_cli("evaluate", scores, tmp_path / "unknown.tsv", "-o", tmp_path / "out")
    assert "the speaker of 600 of 600 trials is unknown" in done.stdout
    assert "intervals are too narrow" in done.stdout


def test_all_rows_as_tsv_and_a_table_for_papers(files: tuple[Path, Path, pl.DataFrame], tmp_path: Path) -> None:
    scores, manifest, _ = files
    command = ("evaluate", scores, manifest, "-o", tmp_path / "out", "--by", "gender")
    lines = [line.split("\t") for line in run_cli(*command, "--tsv").stdout.splitlines()]
    result = json.loads((tmp_path / "out/eval.json").read_text())
    assert lines[0][:4] == ["part", "value", "n_bonafide", "n_spoof"]
    assert [line[:2] for line in lines[1:]] == [
        ["all", ""],
        ["attack", "A_01"],
        ["codec", "-"],
        ["attack and codec", "A_01 -"],
        ["gender", "F"],
        ["gender", "M"],
    ]
    assert float(lines[1][4]) == result["eer_official_percent"]
    table = run_cli(*command, "--latex", "--reuse").stdout
    assert r"A\_01 & 400 & " in table
    assert f"Pooled & 400 & {result['eer_official_percent']:.2f} & {result['min_dcf']:.4f}" in table
    assert table.count(r"\\") == 3
    assert "expected one; choose" in refusal(*command, "--latex", "--json", "--reuse")


def test_a_table_for_papers_marks_rates_of_few_trials_and_says_so(
    files: tuple[Path, Path, pl.DataFrame], tmp_path: Path
) -> None:
    _, _, trials = files
    is_late = pl.int_range(pl.len()).over("key") >= 60
    second = pl.when((pl.col("key") == "spoof") & ~is_late).then(pl.lit("A_02")).otherwise("attack")
    table = trials.with_columns(attack=second).drop("score")
    write_manifest(tmp_path / "two.tsv", Path("/corpus"), table)
    latex = run_cli("evaluate", files[0], tmp_path / "two.tsv", "--latex", "--replicates", 0).stdout
    rows = {line.split(" & ")[0]: line.removesuffix(r" \\").split(" & ") for line in latex.splitlines() if "&" in line}
    assert rows[r"A\_02"][1] == "60"
    for place in (2, 5):  # EER, APCER
        assert rows[r"A\_02"][place].startswith("(")
        assert rows[r"A\_01"][place][0].isdigit()
    assert rows["Pooled"][2][0].isdigit()
    assert rows["Pooled"][5].startswith(r"\textasciitilde{}")  # enough trials, but the limit allows few errors
    assert "% In parentheses: fewer than 100" in latex
    assert "In parentheses" not in run_cli("evaluate", *files[:2], "--latex", "--replicates", 0).stdout


def test_what_is_wrong_with_another_system_is_said_with_its_name(
    files: tuple[Path, Path, pl.DataFrame], tmp_path: Path
) -> None:
    scores, manifest, trials = files
    write_scores(tmp_path / "turned.tsv", trials["utt_id"].to_list(), -trials["score"].to_numpy())
    (tmp_path / "turned.json").write_text(json.dumps({"contamination": "has seen these speakers"}))
    command = ("evaluate", scores, manifest, "-o", tmp_path / "out", "--against", tmp_path / "turned.tsv")
    done = run_cli(*command, "--replicates", 0)
    assert "turned: has seen these speakers" in done.stderr
    assert "turned: EER is above 50 %" in done.stderr
    (tmp_path / "turned.json").write_text("[1]")
    assert "is not a record of scores" in refusal(*command, "--overwrite")


def test_asv_scores_give_both_versions_of_the_tandem_cost(
    files: tuple[Path, Path, pl.DataFrame], tmp_path: Path
) -> None:
    scores, manifest, trials = files
    asv = {"target": [3.0, 2.0, 0.5], "nontarget": [-1.0, 1.0, 0.0], "spoof": [2.5, -2.0]}
    lines = [f"{'A_01' if kind == 'spoof' else 'bonafide'} {kind} {s}" for kind, found in asv.items() for s in found]
    (tmp_path / "asv.txt").write_text("\n".join(lines) + "\n")
    done = run_cli("evaluate", scores, manifest, "-o", tmp_path / "out", "--asv", tmp_path / "asv.txt", "--json")
    found = json.loads(done.stdout)["tandem"]
    rates = tandem.asv_rates(**asv)
    classes = [trials.filter(pl.col("key") == key)["score"].to_numpy() for key in ("bonafide", "spoof")]
    assert found["min_tdcf_2021"] == tandem.min_tdcf_2021(*classes, rates)
    assert found["min_tdcf_2019"] == tandem.min_tdcf_2019(*classes, rates)
    assert found["teer_percent"] == 100 * tandem.concurrent_teer(*classes, *asv.values())
    (tmp_path / "asv.txt").write_text("bonafide target 1\nbonafide targets 2\n")
    command = ("evaluate", scores, manifest, "-o", tmp_path / "x", "--asv", tmp_path / "asv.txt")
    assert "line 2: column 2 is 'targets'" in refusal(*command)
    assert not (tmp_path / "x").exists()


ASV_KEYS_21 = """LA_0001-alaw-ita_tx LA_E_1-alaw-ita_tx alaw ita_tx bonafide target notrim eval
LA_0001-alaw-ita_tx LA_E_4-alaw-ita_tx alaw ita_tx bonafide target notrim eval
LA_0002-none-loc_tx LA_E_1-none-loc_tx none loc_tx bonafide nontarget notrim eval
LA_0002-none-loc_tx LA_E_4-none-loc_tx none loc_tx bonafide nontarget notrim progress
LA_0001-none-loc_tx LA_E_2-none-loc_tx none loc_tx A07 spoof notrim eval
LA_0001-none-loc_tx LA_E_3-none-loc_tx none loc_tx A07 spoof notrim progress
"""
ASV_SCORES_21 = (2.0, 0.5, 1.0, 9.0, 1.5, -9.0)


@pytest.fixture
def la21(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Countermeasure's scores, keys as released, and the organisers' ASV scores, of a few trials of 2021 LA."""
    (tmp_path / "cm.txt").write_text("LA_E_1 1.0\nLA_E_2 -0.5\nLA_E_3 -1.0\n")
    cm_keys = tmp_path / "keys/LA/CM/trial_metadata.txt"
    asv = tmp_path / "keys/LA/ASV/ASVTorch_Kaldi/score.txt"
    for path in (cm_keys, asv):
        path.parent.mkdir(parents=True)
    cm_keys.write_text(LA21)
    (asv.parent.parent / "trial_metadata.txt").write_text(ASV_KEYS_21)
    names = [line.split()[:2] for line in ASV_KEYS_21.splitlines()]
    lines = [f"{' '.join(name)} {score}\n" for name, score in zip(names, ASV_SCORES_21, strict=True)]
    asv.write_text("".join(lines))
    return tmp_path / "cm.txt", cm_keys, asv


def test_the_asv_files_of_2021_are_joined_line_by_line_and_the_subset_evaluated(la21: tuple[Path, Path, Path]) -> None:
    cm, cm_keys, asv = la21
    command = ("evaluate", cm, cm_keys, "--layout", "asvspoof2021_la", "--json", "--replicates", 0)
    for options, bona, spoof, of_asv in (
        ((), [1.0], [-0.5], ([2.0, 0.5], [1.0], [1.5])),
        (("--subset", "all"), [1.0], [-0.5, -1.0], ([2.0, 0.5], [1.0, 9.0], [1.5, -9.0])),
        (("--asv-keys", asv.parent.parent / "trial_metadata.txt"), [1.0], [-0.5], ([2.0, 0.5], [1.0], [1.5])),
    ):
        found = json.loads(run_cli(*command, "--asv", asv, *options).stdout)["tandem"]
        assert found["min_tdcf_2021"] == tandem.min_tdcf_2021(bona, spoof, tandem.asv_rates(*of_asv))
        assert found["teer_percent"] == 100 * tandem.concurrent_teer(bona, spoof, *of_asv)


def test_a_manifest_of_2021_is_evaluated_beside_the_same_asv_files(
    la21: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    cm, cm_keys, asv = la21
    keys = read_layout_keys(cm_keys, "asvspoof2021_la").with_columns(n_samples=pl.lit(1), path=pl.col("utt_id"))
    order = ["utt_id", "path", "key", "speaker", "attack", "codec", "n_samples"]
    write_manifest(tmp_path / "eval.tsv", Path("/corpus"), keys.select(*order, pl.exclude(order)))
    write_scores(tmp_path / "cm.tsv", ["LA_E_1", "LA_E_2"], np.array([1.0, -0.5]))
    as_layout = ("evaluate", cm, cm_keys, "--layout", "asvspoof2021_la")
    as_manifest = ("evaluate", tmp_path / "cm.tsv", tmp_path / "eval.tsv")
    figures = [
        json.loads(run_cli(*command, "--asv", asv, "--json", "--replicates", 0).stdout)["tandem"]
        for command in (as_layout, as_manifest)
    ]
    assert figures[0] == figures[1]
    manifest = (tmp_path / "eval.tsv").read_text()
    (tmp_path / "eval.tsv").write_text(manifest.replace("\tsubset", "\tpart"))
    assert "no column subset" in refusal(*as_manifest, "--asv", asv)


@pytest.mark.parametrize(
    ("old", "new", "facts"),
    [
        ("LA_E_4-alaw-ita_tx 0.5", "LA_E_9-alaw-ita_tx 0.5", ("line 2", "LA_E_9-alaw-ita_tx", "LA_E_4-alaw-ita_tx")),
        ("LA_0001-alaw-ita_tx LA_E_1-alaw-ita_tx 2.0\n", "", ("5 scores", "6 trials")),
        (" 0.5\n", " nan\n", ("line 2", "'nan'")),
    ],
)
def test_asv_scores_of_2021_that_do_not_fit_their_keys_are_refused(
    la21: tuple[Path, Path, Path], old: str, new: str, facts: tuple[str, ...]
) -> None:
    cm, cm_keys, asv = la21
    text = asv.read_text()
    assert old in text
    asv.write_text(text.replace(old, new))
    sentence = refusal("evaluate", cm, cm_keys, "--layout", "asvspoof2021_la", "--asv", asv)
    assert [fact for fact in facts if fact not in sentence] == []


def test_asv_scores_of_2021_need_keys_and_others_have_none(la21: tuple[Path, Path, Path], tmp_path: Path) -> None:
    cm, cm_keys, asv = la21
    command = ("evaluate", cm, cm_keys, "--layout", "asvspoof2021_la")
    assert "have keys" in refusal(*command, "--asv", "asvspoof5", "--asv-keys", cm_keys)
    (asv.parent.parent / "trial_metadata.txt").unlink()
    assert "--asv-keys" in refusal(*command, "--asv", asv)


def test_asv_scores_of_other_attacks_are_refused(files: tuple[Path, Path, pl.DataFrame], tmp_path: Path) -> None:
    scores, manifest, _ = files
    (tmp_path / "asv.txt").write_text("bonafide target 2\nbonafide nontarget 0\nA_07 spoof 1\nA_01 spoof 1\n")
    sentence = refusal("evaluate", scores, manifest, "-o", tmp_path / "out", "--asv", tmp_path / "asv.txt")
    assert "A_07" in sentence
    assert not (tmp_path / "out").exists()
    preset = refusal("evaluate", scores, manifest, "--asv", "asvspoof5")
    assert "A17" in preset
    assert "A_01 only in the evaluated trials" in preset


def test_asv_scores_whose_attacks_are_not_named_are_taken_with_a_warning(
    files: tuple[Path, Path, pl.DataFrame], tmp_path: Path
) -> None:
    scores, manifest, _ = files
    (tmp_path / "asv.txt").write_text("bonafide target 2\nbonafide nontarget 0\n- spoof 1\n")
    done = run_cli("evaluate", scores, manifest, "--asv", tmp_path / "asv.txt", "--json", "--replicates", 0)
    assert [warning for warning in json.loads(done.stdout)["warnings"] if "--asv" in warning]
