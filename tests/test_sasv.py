"""a-DCF and the other figures of track 2: from the package's files and the released list, checked by slow formulas."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spoofkit.addons.sasv.evaluate import describe_sasv, evaluate_sasv, join_trials
from spoofkit.cli.main import app
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import eer
from spoofkit.evaluation.tandem import ASVSPOOF5_ASV, concurrent_teer, min_tdcf_2021

Row = tuple[str, str, str, float, float, float]
HEADER = "spk\tfilename\tcm-score\tasv-score\tsasv-score\n"


@pytest.fixture
def rows() -> list[Row]:
    """Speaker, utterance, kind, three scores; an utterance stands in two trials, of two claimed speakers."""
    rng = np.random.default_rng(1)
    made = []
    for index in range(60):
        kinds = ("target", "nontarget") if index % 3 else ("spoof",)
        for speaker, kind in enumerate(kinds):
            cm, asv = rng.normal(2 * (kind != "spoof")), rng.normal(2 * (kind != "nontarget"))
            made.append((f"E_{speaker:04d}", f"E_{index:010d}", kind, float(cm), float(asv), float(cm + asv)))
    return made


def write(folder: Path, rows: list[Row], *, with_keys: str = "package") -> tuple[Path, Path]:
    scores, keys = folder / "scores.tsv", folder / "keys.tsv"
    scores.write_text(HEADER + "".join(f"{s}\t{u}\t{cm!r}\t{asv!r}\t{sasv!r}\n" for s, u, _, cm, asv, sasv in rows))
    if with_keys == "package":
        body = [f"{s}\t{u}\t{'spoof' if k == 'spoof' else 'bonafide'}\t{k}\n" for s, u, k, *_ in reversed(rows)]
        keys.write_text("spk\tfilename\tcm-label\tasv-label\n" + "".join(body))
    else:
        body = [f"{s} {u} F {'A17' if k == 'spoof' else 'bonafide'} {k}\n" for s, u, k, *_ in reversed(rows)]
        keys.write_text("".join(body))
    return scores, keys


def slow_adcf(rows: list[Row]) -> float:
    """The formula at every threshold, trial by trial."""
    weights = {"target": 0.9405, "nontarget": 0.0095 * 10, "spoof": 0.05 * 10}
    of = {kind: [row[5] for row in rows if row[2] == kind] for kind in weights}

    def cost(at: float) -> float:
        rejected = sum(score < at for score in of["target"]) / len(of["target"])
        accepted = [weights[k] * sum(score >= at for score in of[k]) / len(of[k]) for k in ("nontarget", "spoof")]
        return weights["target"] * rejected + sum(accepted)

    return min(map(cost, [*(row[5] for row in rows), math.inf])) / (weights["nontarget"] + weights["spoof"])


@pytest.mark.parametrize("with_keys", ["package", "released list"])
def test_adcf_is_the_formula_with_the_packages_keys_and_with_the_released_list(tmp_path, rows, with_keys) -> None:
    result = evaluate_sasv(*write(tmp_path, rows, with_keys=with_keys))
    assert result["min_adcf"] == pytest.approx(slow_adcf(rows), rel=1e-12)
    assert (result["n_trials"], result["n_target"], result["n_nontarget"], result["n_spoof"]) == (100, 40, 40, 20)


def test_secondary_figures_take_both_kinds_of_bona_fide_and_the_organisers_asv(tmp_path, rows) -> None:
    result = evaluate_sasv(*write(tmp_path, rows))
    cm = [[row[3] for row in rows if (row[2] == "spoof") == is_spoof] for is_spoof in (False, True)]
    asv = [[row[4] for row in rows if row[2] == kind] for kind in ("target", "nontarget", "spoof")]
    assert result["min_tdcf_2021"] == pytest.approx(min_tdcf_2021(*cm, ASVSPOOF5_ASV), rel=1e-12)
    assert result["teer_percent"] == pytest.approx(100 * concurrent_teer(*cm, *asv), rel=1e-12)
    of = {kind: [row[5] for row in rows if row[2] == kind] for kind in ("target", "nontarget", "spoof")}
    assert result["sv_eer_official_percent"] == 100 * eer(of["target"], of["nontarget"]).eer
    assert result["spf_eer_official_percent"] == 100 * eer(of["target"], of["spoof"]).eer
    assert "min t-DCF" in describe_sasv(result)[2]
    assert "version of 2021 and 5" in describe_sasv(result)[2]


def test_a_system_with_one_score_has_an_adcf_and_says_what_it_has_not(tmp_path, rows) -> None:
    scores, keys = write(tmp_path, rows)
    for cm, asv in (("-", "1.5"), ("0.5", "-"), ("-", "-")):
        lines = [HEADER, *(f"{s}\t{u}\t{cm}\t{asv}\t{sasv!r}\n" for s, u, *_, sasv in rows)]
        scores.write_text("".join(lines))
        result = evaluate_sasv(scores, keys)
        assert result["min_tdcf_2021"] is None
    assert result["min_adcf"] == pytest.approx(slow_adcf(rows), rel=1e-12)
    assert result["teer_percent"] is None
    assert "not without cm-score" in describe_sasv(result)[2]


def test_trials_are_utterances_where_no_speaker_is_named(tmp_path, rows) -> None:
    once = [row for row in rows if row[0] == "E_0000"]
    once = [(s, u, "nontarget" if i % 7 == 1 and k == "target" else k, *v) for i, (s, u, k, *v) in enumerate(once)]
    scores, keys = write(tmp_path, once)
    with_speakers = evaluate_sasv(scores, keys)["min_adcf"]
    for path in (scores, keys):
        path.write_text("".join(line.partition("\t")[2] for line in path.read_text().splitlines(keepends=True)))
    assert evaluate_sasv(scores, keys)["min_adcf"] == with_speakers
    # The released list names speakers; scores without them fit where an utterance stands once.
    write(tmp_path, once, with_keys="released list")
    scores.write_text("".join(line.partition("\t")[2] for line in scores.read_text().splitlines(keepends=True)))
    assert evaluate_sasv(scores, keys)["min_adcf"] == with_speakers
    assert join_trials(scores, keys)["trial"][0].startswith("E_0")


@pytest.mark.parametrize(
    ("which", "old", "new", "said"),
    [
        ("scores", "sasv-score", "score", "line 1 holds spk, filename, cm-score, asv-score, score, expected"),
        ("scores", "E_0000\tE_0000000001\t", "E_0000\tE_0000000002\t", "stand more than once: 1 (E_0000 E_0000000002)"),
        ("scores", "E_0000\tE_0000000001\t", "E_0009\tE_0000000001\t", "no score for 1 (E_0000 E_0000000001)"),
        ("scores", "spk\t", "speaker\t", "line 1 holds speaker"),
        ("keys", "\ttarget\n", "\tgenuine\n", "line 3: the key is 'genuine', expected target, nontarget or spoof"),
        ("keys", "bonafide\ttarget", "spoof\ttarget", "cm-label 'spoof' contradicts asv-label 'target'"),
        ("keys", "bonafide\ttarget", "genuine\ttarget", "cm-label is 'genuine', expected bonafide or spoof"),
        ("keys", "E_0000000059\tbonafide", "\tbonafide", "line 2: holds no utterance"),
        ("keys", "spk\tfilename\tcm-label", "spk\tfilename\tlabel", "line 1 holds spk, filename, label, asv-label"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, rows, which, old, new, said) -> None:
    paths = dict(zip(("scores", "keys"), write(tmp_path, rows), strict=True))
    text = paths[which].read_text()
    assert old in text
    paths[which].write_text(text.replace(old, new, 1))
    with pytest.raises(SpoofkitError) as refusal:
        evaluate_sasv(paths["scores"], paths["keys"])
    assert said in str(refusal.value)
    assert str(paths[which]) in str(refusal.value)


@pytest.mark.parametrize(("value", "column"), [("nan", 4), ("inf", 2), ("x", 3), ("-", 4), ("-", 2)])
def test_a_score_that_is_no_number_is_refused_by_line(tmp_path, rows, value, column) -> None:
    scores, keys = write(tmp_path, rows)
    lines = scores.read_text().splitlines()
    fields = lines[5].split("\t")
    lines[5] = "\t".join([*fields[:column], value, *fields[column + 1 :]])
    scores.write_text("\n".join(lines) + "\n")
    with pytest.raises(SpoofkitError, match=rf"scores.tsv, line 6: (cm|asv|sasv)-score is '{value}'"):
        evaluate_sasv(scores, keys)


def test_a_class_without_trials_and_a_missing_speaker_column_are_refused(tmp_path, rows) -> None:
    with pytest.raises(SpoofkitError, match="holds no nontarget trial"):
        evaluate_sasv(*write(tmp_path, [row for row in rows if row[2] != "nontarget"]))
    scores, keys = write(tmp_path, rows)
    whole = {path: path.read_text() for path in (scores, keys)}
    for path in (scores, keys):
        path.write_text("".join(line.partition("\t")[2] for line in whole[path].splitlines(keepends=True)))
        with pytest.raises(SpoofkitError, match=f"{path.name}: has no column spk"):
            evaluate_sasv(scores, keys)
        path.write_text(whole[path])


def test_the_verb_prints_figures_or_json_and_warns_of_a_cut_file(tmp_path, rows) -> None:
    scores, keys = write(tmp_path, rows)
    scores.write_text(scores.read_text().rstrip("\n"))
    runner = CliRunner()
    shown = runner.invoke(app, ["evaluate-sasv", str(scores), str(keys)])
    assert shown.exit_code == 0
    assert shown.stdout.startswith(f"min a-DCF {slow_adcf(rows):.6f}\n")
    assert "does not end in a newline" in shown.stderr
    found = json.loads(runner.invoke(app, ["evaluate-sasv", str(scores), str(keys), "--json"]).stdout)
    assert found["min_adcf"] == pytest.approx(slow_adcf(rows), rel=1e-12)
    assert len(found["scores_sha256"]) == 64


def test_attack_and_key_of_the_released_list_must_agree(tmp_path, rows) -> None:
    scores, keys = write(tmp_path, rows, with_keys="released list")
    keys.write_text(keys.read_text().replace("bonafide target", "A18 target", 1))
    with pytest.raises(SpoofkitError, match=r"keys.tsv, line 2: attack 'A18' contradicts the key 'target'"):
        evaluate_sasv(scores, keys)
