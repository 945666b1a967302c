"""APCER and BPCER at operating points, non-response rates, and thresholds chosen by them."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import refusal, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st

from spoofkit.data.manifest import write_manifest
from spoofkit.evaluation.bootstrap import draw_clusters
from spoofkit.evaluation.breakdown import measure
from spoofkit.evaluation.error_rates import Limit, Point, limited_point
from spoofkit.evaluation.intervals import apcer_intervals
from spoofkit.evaluation.report_points import point_rows, points_in_words
from spoofkit.evaluation.scores import write_scores
from spoofkit.files import file_sha256

tied = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=30)


def write_set(folder: Path, bonafide: list[float], spoof: dict[str, list[float]]) -> tuple[Path, Path]:
    """A score file and its manifest; utterances are numbered, bona fide first."""
    rows = [("bonafide", "-", score) for score in bonafide]
    rows += [("spoof", attack, score) for attack, scores in spoof.items() for score in scores]
    ids = [f"u{place:04d}" for place in range(len(rows))]
    table = pl.DataFrame({"utt_id": ids, "key": [row[0] for row in rows], "attack": [row[1] for row in rows]})
    table = table.with_columns(
        path=pl.col("utt_id") + ".wav", speaker=pl.lit("-"), codec=pl.lit("-"), n_samples=pl.lit(1, dtype=pl.Int64)
    )
    write_manifest(folder / "set.tsv", folder, table)
    write_scores(folder / "scores.tsv", ids, [row[2] for row in rows])
    return folder / "scores.tsv", folder / "set.tsv"


def write_record(scores: Path, **entries: object) -> None:
    scores.with_suffix(".json").write_text(json.dumps({"scores_sha256": file_sha256(scores), **entries}))


def evaluated(*arguments: object) -> dict:
    return json.loads(run_cli("evaluate", *arguments, "--replicates", 0, "--json").stdout)


@pytest.mark.parametrize(
    ("limit", "point"),
    [
        # Of the spoofs 5 5 5 4 3 2 1 1 1 0 one or two may be accepted, but not without the third: 6 is the lowest
        # score above them, and only one bona fide trial has it.
        (Limit("apcer", 10), Point(6.0, 0.0, 0.75)),
        (Limit("apcer", 20), Point(6.0, 0.0, 0.75)),
        (Limit("apcer", 30), Point(5.0, 0.3, 0.5)),  # the bona fide trial that ties with them comes with them
        (Limit("apcer", 40), Point(4.0, 0.4, 0.25)),
        (Limit("bpcer", 25), Point(4.0, 0.4, 0.25)),
        (Limit("bpcer", 49.9), Point(4.0, 0.4, 0.25)),
        (Limit("bpcer", 50), Point(5.0, 0.3, 0.5)),
        (Limit("bpcer", 24.9), None),  # not one of four
        (Limit("apcer", 9.9), None),
    ],
)
def test_operating_points_of_a_set_worked_out_by_hand(limit: Limit, point: Point | None) -> None:
    bonafide, spoof = np.array([2.0, 4.0, 5.0, 6.0]), np.array([0.0, 1, 1, 1, 2, 3, 4, 5, 5, 5])
    assert limited_point(bonafide, spoof, limit) == point


def test_where_no_threshold_accepts_few_enough_all_trials_are_rejected() -> None:
    assert limited_point(np.array([0.0, 1.0]), np.array([1.0, 1.0, 1.0]), Limit("apcer", 50)) == Point(None, 0.0, 1.0)


@given(tied, tied, st.sampled_from(["apcer", "bpcer"]), st.sampled_from([1.0, 10.0, 20.0, 33.0, 50.0, 90.0]))
@settings(max_examples=300, deadline=None)
def test_the_other_rate_is_the_lowest_of_all_thresholds_within_the_limit(
    bonafide: list[float], spoof: list[float], rate: str, percent: float
) -> None:
    limit = Limit(rate, percent)
    point = limited_point(np.sort(bonafide), np.sort(spoof), limit)
    if len(spoof if rate == "apcer" else bonafide) * percent < 100:
        assert point is None
        return
    within = []
    for accept_from in [*bonafide, *spoof, None]:
        accepted = sum(accept_from is not None and score >= accept_from for score in spoof)
        rejected = sum(accept_from is None or score < accept_from for score in bonafide)
        rates = {"apcer": accepted / len(spoof), "bpcer": rejected / len(bonafide)}
        if 100 * rates[rate] <= percent:
            within.append((rates[limit.other], rates, accept_from))
    best = min(other for other, _, _ in within)
    assert getattr(point, limit.other) == best
    assert (best, {"apcer": point.apcer, "bpcer": point.bpcer}, point.accept_from) in within


def test_too_few_trials_give_no_figure_and_few_errors_a_tilde() -> None:
    generator = np.random.default_rng(2)

    def rows(n_bonafide: int, n_spoof: int) -> tuple[dict[str, dict[str, str]], str]:
        key = ["bonafide"] * n_bonafide + ["spoof"] * n_spoof
        score = generator.normal(size=len(key)) + np.repeat([2.0, 0.0], [n_bonafide, n_spoof])
        attack = ["-"] * n_bonafide + [f"A{place % 2}" for place in range(n_spoof)]
        result = measure(pl.DataFrame({"score": score, "key": key, "attack": attack, "codec": ["-"] * len(key)}))
        return {row["rate"]: row for row in point_rows(result)}, points_in_words(result)

    found, words = rows(999, 99)
    assert found["BPCER at APCER 1 %"]["value"] == "-"
    assert "100 spoofed trials, found 99" in found["BPCER at APCER 1 %"]["left_out"]
    assert "1,000 bona fide trials, found 999" in found["APCER at BPCER 0.1 %"]["left_out"]
    assert found["BPCER at APCER 10 %"]["value"].startswith("~")  # 9 errors
    assert found["APCER at BPCER 5 %"]["value"][0].isdigit()  # 49 errors
    assert "APCER at BPCER 0.1, 1, 5 %: -, ~" in words
    assert words.splitlines()[2].startswith("~: the limit allows fewer than 30 errors")
    found, _ = rows(1000, 3000)
    assert found["APCER at BPCER 0.1 %"]["value"].startswith("~")  # one error
    assert found["BPCER at APCER 1 %"]["value"][0].isdigit()  # 30 errors


def test_the_worst_attack_is_measured_at_the_pooled_threshold_of_the_point_that_was_asked_for(tmp_path: Path) -> None:
    bonafide = [float(score) for score in range(1, 21)]
    inputs = write_set(tmp_path, bonafide, {"A1": [0.0] * 9 + [3.5], "A2": [2.5, 6.5]})
    result = evaluated(*inputs, "--operating-point", "bpcer:10")
    point = next(row for row in result["operating_points"] if row["percent"] == 10 and row["rate"] == "bpcer")
    assert (point["accept_from"], point["bpcer_percent"], point["apcer_percent"]) == (3.0, 10.0, 100 * (2 / 12))
    assert point["apcer_percent_by_attack"] == {"A1": 10.0, "A2": 50.0}
    assert point["worst_attack"] == "A2"
    assert [(row["attack"], row["apcer_percent"]) for row in result["by_attack"]] == [("A1", 10.0), ("A2", 50.0)]
    shown = run_cli("evaluate", *inputs, "--replicates", 0, "--operating-point", "bpcer:10").stdout
    assert "A2 (50) %" in shown
    for wrong in ("bpcer", "apcer:0", "eer:1", "bpcer:100", "apcer:x"):
        assert "apcer:PERCENT" in refusal("evaluate", *inputs, "--operating-point", wrong)


def test_intervals_of_attacks_are_of_lists_with_repeated_speakers_at_one_threshold() -> None:
    # Spoofs of A01 score 0, 1 or 2, the same in all trials of a speaker; 2 ties with the threshold.
    rows = [
        (f"s{number}", attack, float(score))
        for number in range(12)
        for attack, score in [("-", 3), *[("A01", number % 3)] * (1 + number % 4), ("A02", 1)]
    ]
    rows += [("s0", "A03", 1.0), ("s0", "A03", 2.0)]
    trials = pl.DataFrame(rows, schema=["speaker", "attack", "score"], orient="row")
    trials = trials.with_columns(
        key=pl.when(pl.col("attack") == "-").then(pl.lit("bonafide")).otherwise(pl.lit("spoof"))
    )
    found = apcer_intervals(trials, 2.0, n_replicates=200)
    names, draws = sorted(trials["speaker"].unique()), draw_clusters(12, 200)
    rates = []
    for draw in draws:
        drawn = [name for name, n_times in zip(names, draw, strict=True) for _ in range(n_times)]
        scores = [score for name in drawn for speaker, attack, score in rows if (speaker, attack) == (name, "A01")]
        rates.append(sum(score >= 2 for score in scores) / len(scores))
    assert found["A01"] == pytest.approx(100 * np.quantile(rates, [0.025, 0.975]), abs=1e-9)
    assert 0 < found["A01"][0] < found["A01"][1] < 100
    # None of twelve speakers' spoofs is accepted: Wilson's upper end is z^2 / (n + z^2). A03 has one speaker.
    assert found["A02"] == pytest.approx([0, 100 * 1.959964**2 / (12 + 1.959964**2)])
    assert found["A03"] is None
    assert apcer_intervals(trials, None)["A01"] == found["A02"]


def test_parentheses_mean_few_trials_and_a_tilde_few_errors_and_each_is_explained_where_it_is_used(
    tmp_path: Path,
) -> None:
    bonafide, spoof = [0.01 * n for n in range(400)], [0.01 * n - 2 for n in range(390)]
    for name, n_of_second, has_few in (("many", 200, False), ("few", 50, True)):
        attacks = {"A1": spoof[n_of_second:], "A2": spoof[:n_of_second]}
        (tmp_path / name).mkdir()
        inputs = write_set(tmp_path / name, bonafide, attacks)
        text = run_cli("evaluate", *inputs, "-o", tmp_path / name / "out", "--replicates", 0).stdout
        with_points = run_cli("evaluate", *inputs, "--operating-point", "bpcer:1", "--replicates", 0).stdout
        page = (tmp_path / name / "out/report.html").read_text()
        for said in (text, with_points, page):
            assert "~" in said.replace("~:", "")
            assert "~: the limit allows fewer than 30 errors" in said
            assert ("In parentheses: fewer than 100" in said) == has_few
            assert ("A2 (" in said) <= has_few
        latex = run_cli("evaluate", *inputs, "--operating-point", "bpcer:1", "--replicates", 0, "--latex").stdout
        assert "% ~: the limit allows fewer than 30 errors" in latex
        assert [r"\textasciitilde" in line for line in latex.splitlines()[-5:]] == [False, False, True, False, False]
        operating, per_attack = page.split("<h2>Per attack</h2>")
        assert [("In parentheses" in part) for part in (operating, per_attack)] == [has_few, has_few]


def test_text_and_page_give_a_perfect_set_an_interval_and_say_where_it_comes_from(tmp_path: Path) -> None:
    scores, manifest = write_set(tmp_path, [1 + 0.01 * n for n in range(200)], {"A1": [-0.01 * n for n in range(200)]})
    done = run_cli("evaluate", scores, manifest, "-o", tmp_path / "out", "--operating-point", "bpcer:5")
    page = (tmp_path / "out/report.html").read_text()
    lines = done.stdout.splitlines()
    assert any("EER 0.0 to 1.9 %" in line and "Wilson's" in line for line in lines)
    assert any(line.startswith("APCER at BPCER 5 %") and "0.0 to 1.9" in line for line in lines)
    assert any(line.startswith("An interval that reaches 0 or 100 %") for line in lines)
    assert page.count("0.0 to 1.9") >= 4
    assert page.count("Wilson") == 2
    assert "0.0 to 0.0" not in done.stdout + page


def test_decisions_beside_scores_give_error_and_non_response_rates(tmp_path: Path) -> None:
    scores, manifest = write_set(tmp_path, [1.0, 2, 3, 4], {"A1": [0.0, 1], "A2": [0.0, 0]})
    decisions = ["reject", "abstain", "accept", "accept", "accept", "abstain", "reject", "abstain"]
    rows = "".join(f"u{place:04d}\t0\t{decision}\t1\t\t\n" for place, decision in enumerate(decisions))
    table = tmp_path / "scores.decisions.tsv"
    table.write_text("filename\tcm-score\tdecision\tseconds\tremarks\terror\n" + rows)
    write_record(scores, decisions_sha256=file_sha256(table))
    found = evaluated(scores, manifest)["decisions"]
    assert (found["apcer_percent"], found["bpcer_percent"]) == (25.0, 25.0)
    assert (found["apnrr_percent"], found["bpnrr_percent"]) == (50.0, 25.0)
    assert [(row["apcer_percent"], row["apnrr_percent"]) for row in found["by_attack"]] == [(50.0, 50.0), (0.0, 50.0)]
    assert found["worst_attack"] == "A1"
    assert "APNRR 50 %" in run_cli("evaluate", scores, manifest, "--replicates", 0).stdout
    table.write_text(table.read_text().replace("abstain", "accept"))
    assert "scores.decisions.tsv" in refusal("evaluate", scores, manifest)


def test_trials_without_a_score_for_lack_of_speech_have_no_answer_and_others_are_still_missed(tmp_path: Path) -> None:
    scores, manifest = write_set(tmp_path, [1.0, 2, 3, 4], {"A1": [0.0, 1]})
    lines = scores.read_text().splitlines(keepends=True)
    scores.write_text("".join(line for line in lines if not line.startswith(("u0003", "u0005"))))
    write_record(scores, speech={}, errors={"u0003": "no speech", "u0005": "no speech"})
    result = evaluated(scores, manifest)
    assert (result["n_bonafide"], result["n_spoof"]) == (3, 1)
    found = result["decisions"]
    assert (found["bpnrr_percent"], found["apnrr_percent"], found["n_without_score"]) == (25.0, 50.0, 2)
    assert found["apcer_percent"] is None
    assert any("2 of 6 trials have no score" in warning for warning in result["warnings"])
    write_record(scores, speech={}, errors={"u0003": "no speech"})
    assert "u0005" in refusal("evaluate", scores, manifest)


def test_threshold_of_a_rate_gives_that_rate_and_the_options_of_score(tmp_path: Path) -> None:
    bonafide, spoof = [4.0, 5, 5, 6, 7, 8, 9, 10, 11, 12], [0.0, 1, 1, 2, 2, 3, 3, 4, 5, 6]
    inputs = write_set(tmp_path, bonafide, {"A1": spoof[:5], "A2": spoof[5:]})
    found = json.loads(run_cli("threshold", *inputs, "--accept-spoofed", 0.2, "--json").stdout)
    assert found["accept_from"] == 4.5  # midway: from 5 on two spoofs are accepted
    assert (found["accepts"], found["rejects"]) == (0.2, 0.1)
    assert (found["worst_attack"], found["accepts_of_worst"]) == ("A2", 0.4)
    assert found["accepts"] < found["accepts_at_most"] < 1
    assert found["score_options"] == ["--accept-from", "4.5"]
    found = json.loads(run_cli("threshold", *inputs, "--reject-genuine", 0.3, "--json").stdout)
    assert (found["accept_from"], found["rejects"], found["accepts"]) == (5.5, 0.3, 0.1)
    assert "at least 20" in refusal("threshold", *inputs, "--accept-spoofed", 0.05)
    refusal("threshold", *inputs, "--accept-spoofed", 0.2, "--reject-genuine", 0.2)
    refusal("threshold", *inputs, "--accept-spoofed", 2)
    assert "manifest" in refusal("threshold", inputs[0], "--accept-spoofed", 0.2)
