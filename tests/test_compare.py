"""compare, calibrate, fuse, apply, threshold: what they say, write and refuse."""

import json
import math
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import refusal, run_cli, unchecked_calibration
from scipy.stats import binom, ttest_ind

from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import clusters_of
from spoofkit.evaluation.compare import compare, print_comparison
from spoofkit.evaluation.decision_rule import genuine_threshold
from spoofkit.evaluation.error_rates import Limit
from spoofkit.evaluation.intervals import intervals
from spoofkit.evaluation.metrics import ASVSPOOF5, DcfCosts, eer, min_dcf
from spoofkit.evaluation.scores import read_scores, write_scores
from spoofkit.evaluation.thresholds import Thresholds, bayes_thresholds
from spoofkit.files import file_sha256

N_SPEAKERS = 40


@pytest.fixture(scope="module")
def trials() -> pl.DataFrame:
    """Two attacks, of which B misses one; forty speakers; the scores of two systems."""
    rng = np.random.default_rng(0)
    n = N_SPEAKERS * 30
    is_bonafide = np.arange(n) % 3 == 0
    attack = np.where(is_bonafide, "-", np.where(np.arange(n) % 3 == 1, "A01", "A02"))
    speaker = np.repeat(np.arange(N_SPEAKERS), 30)
    common = rng.normal(0, 0.5, N_SPEAKERS)[speaker] * np.where(is_bonafide, 1, -1) + rng.normal(0, 1, n)
    return pl.DataFrame(
        {
            "utt_id": [f"u{i:05d}" for i in range(n)],
            "path": [f"u{i:05d}.flac" for i in range(n)],
            "key": np.where(is_bonafide, "bonafide", "spoof"),
            "speaker": [f"s{number}" for number in speaker],
            "attack": attack,
            "codec": "-",
            "n_samples": 16_000,
            "a": common + 2.5 * is_bonafide,
            "b": common + 2.5 * is_bonafide + 1.2 * (attack == "A02"),
        }
    )


@pytest.fixture(scope="module")
def files(trials: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_manifest(folder / "set.tsv", Path("/corpus"), trials.drop("a", "b"))
    for name in "ab":
        write_scores(folder / f"{name}.tsv", trials["utt_id"].to_list(), trials[name].to_numpy())
        for seed in range(3):
            noise = np.random.default_rng(seed).normal(0, 0.3, trials.height)
            write_scores(folder / f"{name}{seed}.tsv", trials["utt_id"].to_list(), trials[name].to_numpy() + noise)
    return folder


def test_figures_are_those_of_the_metrics_and_a_real_difference_is_told_by_attack(trials: pl.DataFrame) -> None:
    result = compare({name: [trials[name].to_numpy()] for name in "ab"}, trials, by=["attack"])
    everything, first, second = result["rows"]
    assert [row["part"] for row in result["rows"]] == ["all", "A01", "A02"]
    for row, chosen in ((everything, ["A01", "A02"]), (first, ["A01"]), (second, ["A02"])):
        kept = trials.filter(pl.col("attack").is_in(["-", *chosen]))
        for name in "ab":
            classes = [kept.filter(pl.col("key") == key)[name].to_numpy() for key in ("bonafide", "spoof")]
            assert row["eer_official_percent"]["systems"][name]["mean"] == 100 * eer(*classes).eer
            assert row["min_dcf"]["systems"][name]["mean"] == min_dcf(*classes)
    assert first["eer_official_percent"]["difference"] == 0
    assert first["eer_official_percent"]["p_corrected"] == 1
    found = second["eer_official_percent"]
    assert found["p_corrected"] == pytest.approx(2 * found["p"])
    assert found["p"] < 0.01
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert result["n_clusters"] == N_SPEAKERS


def perfect(n_bonafide: int, n_spoof: int, n_each: int = 5, speaker: str = "{class_}{number}") -> pl.DataFrame:
    """Trials that a system separates without an error: human speakers, and others whose voices are spoofed."""
    rows = [
        (key, speaker.format(class_=key, number=number), sign * (1 + 0.01 * trial))
        for key, n_speakers, sign in (("bonafide", n_bonafide, 1), ("spoof", n_spoof, -1))
        for number in range(n_speakers)
        for trial in range(n_each)
    ]
    table = pl.DataFrame(rows, schema=["key", "speaker", "score"], orient="row")
    return table.with_columns(attack=pl.when(pl.col("key") == "spoof").then(pl.lit("A01")).otherwise(pl.lit("-")))


def upper(n: int) -> float:
    """Wilson's upper end of a rate, if none of n is an error."""
    return 100 * 1.959964**2 / (n + 1.959964**2)


def test_where_no_trial_is_an_error_intervals_have_the_width_that_the_number_of_speakers_leaves() -> None:
    limits = [Limit("apcer", 10), Limit("bpcer", 10)]
    found = intervals(perfect(30, 20), limits=limits)
    assert found["eer_official_percent"] == pytest.approx([0, upper(20)])  # of the class with fewer speakers
    miss, fa = upper(30) / 100, upper(20) / 100
    assert found["min_dcf"] == pytest.approx([0, 1.9 * miss + fa])
    assert found["operating_points"][0]["bpcer_percent"] == pytest.approx([0, upper(30)])
    assert found["operating_points"][1]["apcer_percent"] == pytest.approx([0, upper(20)])
    assert intervals(perfect(3, 3))["min_dcf"] == [0, 1]  # a minDCF is never higher
    of_trials = intervals(perfect(500, 800, speaker="-"))  # 2,000 groups of 6,500 trials
    assert of_trials["eer_official_percent"] == pytest.approx([0, upper(2500)])


def test_where_every_trial_is_an_error_the_eer_may_be_lower() -> None:
    reversed_ = perfect(30, 20).with_columns(-pl.col("score"))
    assert intervals(reversed_)["eer_official_percent"] == pytest.approx([100 - upper(20), 100])


def test_a_single_error_gives_no_narrower_interval_than_none() -> None:
    table = perfect(30, 20).with_columns(score=pl.when(pl.int_range(pl.len()) == 0).then(-9.0).otherwise("score"))
    low, high = intervals(table)["eer_official_percent"]
    assert (low, high) == pytest.approx((0, upper(20)))


def test_two_systems_without_an_error_may_differ_as_much_as_either_may_have_errors() -> None:
    table = perfect(30, 20)
    scores = {"A": [table["score"].to_numpy()], "B": [2 * table["score"].to_numpy()]}
    (row,) = compare(scores, table)["rows"]
    found = row["eer_official_percent"]
    assert (found["difference"], found["p"]) == (0, 1)
    assert (found["low"], found["high"]) == pytest.approx((-upper(20), upper(20)))
    assert row["min_dcf"]["high"] == pytest.approx((1.9 * upper(30) + upper(20)) / 100)


def test_each_of_several_columns_is_broken_down_and_corrected_as_alone(files: Path) -> None:
    call = ("compare", files / "a.tsv", files / "b.tsv", files / "set.tsv")
    alone = [json.loads(run_cli(*call, "--by", name, "--json").stdout)["rows"] for name in ("attack", "codec")]
    together = json.loads(run_cli(*call, "--by", "attack", "--by", "codec", "--by", "attack", "--json").stdout)
    assert together["by"] == ["attack", "codec"]
    assert together["rows"] == [*alone[0], *alone[1][1:]]
    shown = run_cli(*call, "--by", "attack", "--by", "codec").stdout
    assert "attack A02" in shown
    assert "codec -" in shown


def test_seeds_give_mean_spread_and_welchs_p(files: Path) -> None:
    names = [",".join(str(files / f"{system}{seed}.tsv") for seed in range(3)) for system in "ab"]
    done = run_cli("compare", *names, files / "set.tsv", "--json")
    (row,) = json.loads(done.stdout)["rows"]
    seeds = [row["eer_official_percent"]["systems"][name]["seeds"] for name in "AB"]
    assert row["eer_official_percent"]["p_seeds"] == pytest.approx(ttest_ind(*seeds, equal_var=False).pvalue)
    assert row["eer_official_percent"]["difference"] == pytest.approx(np.mean(seeds[1]) - np.mean(seeds[0]))
    text = run_cli("compare", *names, files / "set.tsv").stdout
    assert "(3 seeds)" in text
    assert "the difference exceeds" in text
    assert "1,000 draws of 40 speakers" in text


def test_unknown_speakers_are_said(trials: pl.DataFrame) -> None:
    unknown = trials.with_columns(speaker=pl.lit("-"))
    found = clusters_of(unknown)
    assert (found.of, found.n_clusters) == ("trial", trials.height)
    assert "intervals are too narrow" in found.note
    assert clusters_of(trials, "speaker_attack").n_clusters == 3 * N_SPEAKERS
    assert clusters_of(trials, "trial").note == ""
    with pytest.raises(SpoofkitError, match="--resample utterance: expected one of speaker, speaker_attack, trial"):
        clusters_of(trials, "utterance")


def test_very_many_single_trials_are_drawn_in_groups_which_vary_as_much() -> None:
    rng = np.random.default_rng(0)
    n = 6000
    is_bonafide = rng.random(n) < 0.5
    trials = pl.DataFrame(
        {
            "score": rng.normal(0, 1, n) + 1.5 * is_bonafide,
            "key": np.where(is_bonafide, "bonafide", "spoof"),
            "speaker": "-",
            "attack": "-",
        }
    )
    clusters = clusters_of(trials)
    assert clusters.n_clusters == 2000
    assert np.bincount(clusters.number_N).tolist() == [3] * 2000
    found = intervals(trials, n_replicates=400)["eer_official_percent"]
    spreads = []
    for _ in range(200):
        rows = rng.integers(0, n, n)
        score, chosen = trials["score"].to_numpy()[rows], is_bonafide[rows]
        spreads.append(100 * eer(score[chosen], score[~chosen]).eer)
    assert (found[1] - found[0]) / 2 / 1.96 == pytest.approx(np.std(spreads), rel=0.2)


def test_seeds_that_are_one_file_or_none_are_refused(files: Path) -> None:
    a = files / "a.tsv"
    assert "each once" in refusal("compare", f"{a},{a},{a}", files / "b.tsv", files / "set.tsv")
    assert "found the score files none" in refusal("compare", ",", files / "b.tsv", files / "set.tsv")
    assert "--by utt_id: no such column" in refusal("compare", a, files / "b.tsv", files / "set.tsv", "--by", "utt_id")


def test_files_that_do_not_fit_are_refused_by_name(files: Path, tmp_path: Path) -> None:
    scores = read_scores(files / "a.tsv")
    write_scores(tmp_path / "cut.tsv", scores["utt_id"].to_list()[:-1], scores["score"].to_numpy()[:-1])
    sentence = refusal("compare", files / "a.tsv", tmp_path / "cut.tsv", files / "set.tsv")
    assert "cut.tsv" in sentence
    assert "u01199" in sentence
    assert "--by gender: no such column" in refusal(
        "compare", files / "a.tsv", files / "b.tsv", files / "set.tsv", "--by", "gender"
    )


def test_calibrating_dev_makes_eval_scores_cost_what_they_could(files: Path, tmp_path: Path) -> None:
    """The raw scores, times ten and shifted, are no log-likelihood ratios; calibrated they are."""
    scores = read_scores(files / "a.tsv")
    shifted = tmp_path / "shifted.tsv"
    write_scores(shifted, scores["utt_id"].to_list(), 10 * scores["score"].to_numpy() + 40)
    out = tmp_path / "calibration.json"
    done = run_cli("calibrate", shifted, files / "set.tsv", "-o", out, "--on", shifted, files / "set.tsv")
    figures = json.loads(out.read_text())["figures"]
    before, after = (figures[f"tried on {files / 'set.tsv'}, {when}"] for when in ("before", "after"))
    assert before["cllr_bits"] > 5
    assert after["cllr_bits"] < after["min_cllr_bits"] + 0.03
    assert after["min_dcf"] == before["min_dcf"]
    assert (tmp_path / "calibration.png").read_bytes()[:4] == b"\x89PNG"
    assert "llr = " in done.stdout
    run_cli("apply", out, shifted, "-o", tmp_path / "llr.tsv")
    record = json.loads(out.read_text())
    llr = read_scores(tmp_path / "llr.tsv")
    assert llr["utt_id"].to_list() == scores["utt_id"].to_list()
    expected = record["scales"][0] * (10 * scores["score"].to_numpy() + 40) + record["offset"]
    assert llr["score"].to_numpy() == pytest.approx(expected, rel=1e-7)
    assert json.loads((tmp_path / "llr.json").read_text())["score"] == "log-likelihood ratio, nats"
    assert "exists already" in refusal("apply", out, shifted, "-o", tmp_path / "llr.tsv")


def test_apply_replaces_nothing_of_others_and_hands_on_what_is_known_of_the_model(files: Path, tmp_path: Path) -> None:
    scores = read_scores(files / "a.tsv")
    write_scores(tmp_path / "a.tsv", scores["utt_id"].to_list(), scores["score"].to_numpy())
    (tmp_path / "a.json").write_text(json.dumps({"contamination": "trained on this very set"}))
    calibration = tmp_path / "c.json"
    run_cli("calibrate", tmp_path / "a.tsv", files / "set.tsv", "-o", calibration)
    before = calibration.read_bytes()
    (tmp_path / "mine.json").write_text("{}")
    assert "mine.json: exists but was not written by" in refusal(
        "apply", calibration, tmp_path / "a.tsv", "-o", tmp_path / "mine.tsv"
    )
    assert not (tmp_path / "mine.tsv").exists()
    for out in ("c.tsv", "a.tsv"):  # whose record would be the calibration; the scores themselves
        command = ("apply", calibration, tmp_path / "a.tsv", "-o", tmp_path / out, "--overwrite")
        assert "would replace" in refusal(*command)
    assert "x.json: " in refusal("apply", calibration, tmp_path / "a.tsv", "-o", tmp_path / "x.json")
    assert calibration.read_bytes() == before
    run_cli("apply", calibration, tmp_path / "a.tsv", "-o", tmp_path / "llr.tsv")
    for option in ((), ("--overwrite",)):  # both would have the record llr.json
        assert "llr.tsv" in refusal("apply", calibration, tmp_path / "a.tsv", "-o", tmp_path / "llr.txt", *option)
    assert not (tmp_path / "llr.txt").exists()
    done = run_cli("evaluate", tmp_path / "llr.tsv", files / "set.tsv", "-o", tmp_path / "out", "--replicates", 0)
    assert "trained on this very set" in done.stderr


def test_a_fusion_is_applied_to_as_many_systems_in_whatever_order_their_trials_stand(
    files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fusion.json"
    run_cli("fuse", files / "a0.tsv", files / "b1.tsv", files / "set.tsv", "-o", out)
    record = json.loads(out.read_text())
    assert len(record["scales"]) == 2
    b = read_scores(files / "b1.tsv")
    write_scores(tmp_path / "b_reversed.tsv", b["utt_id"].to_list()[::-1], b["score"].to_numpy()[::-1])
    run_cli("apply", out, files / "a0.tsv", tmp_path / "b_reversed.tsv", "-o", tmp_path / "llr.tsv")
    a = read_scores(files / "a0.tsv")
    expected = record["scales"] @ np.stack([a["score"].to_numpy(), b["score"].to_numpy()]) + record["offset"]
    assert read_scores(tmp_path / "llr.tsv")["score"].to_numpy() == pytest.approx(expected, rel=1e-6)
    assert "2 systems, found 1 score files" in refusal("apply", out, files / "a0.tsv", "-o", tmp_path / "x.tsv")
    write_scores(tmp_path / "others.tsv", ["x"], [1.0])
    sentence = refusal("apply", out, files / "a0.tsv", tmp_path / "others.tsv", "-o", tmp_path / "x.tsv")
    assert "others.tsv: its trials differ" in sentence
    assert "expected scores of two or more systems" in refusal("fuse", files / "a.tsv", files / "set.tsv", "-o", out)
    assert not (tmp_path / "x.tsv").exists()


def test_bayes_decisions_cost_least_of_the_three_whatever_the_score() -> None:
    costs, abstain = DcfCosts(0.1, 2.0, 8.0), 0.5
    cut = bayes_thresholds(costs, abstain)
    assert cut.reject_below < costs.bayes_threshold < cut.accept_from
    for llr in np.linspace(-6, 6, 241):
        p_spoof = 1 / (1 + math.exp(llr) * 0.9 / 0.1)
        cost = {"accept": 8 * p_spoof, "reject": 2 * (1 - p_spoof), "abstain": abstain}
        assert cost[cut.decide(llr)] <= min(cost.values()) + 1e-9
    assert bayes_thresholds(ASVSPOOF5) == Thresholds(-math.log(1.9), -math.log(1.9))
    with pytest.raises(SpoofkitError, match=r"less than 1\.6"):
        bayes_thresholds(costs, 1.6)
    for accept_from, reject_below in ((0, -math.inf), (math.inf, 0), (math.nan, 0), (0, math.nan), (0, 1)):
        with pytest.raises(SpoofkitError, match="finite"):
            Thresholds(accept_from, reject_below)


def test_a_threshold_from_genuine_recordings_rejects_the_share_that_was_asked_for() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(200.0))
    threshold, share, at_most = genuine_threshold(scores, 0.02)
    assert (scores < threshold).mean() == share == 0.02
    # Clopper and Pearson: at that share, four or fewer of 200 are rejected with probability 0.05.
    assert binom.cdf(4, 200, at_most) == pytest.approx(0.05, abs=1e-9)
    tied = np.repeat([0.0, 1.0], [10, 90])
    threshold, share, _ = genuine_threshold(tied, 0.05)
    assert (tied < threshold).mean() == share == 0  # a tie is not torn apart
    with pytest.raises(SpoofkitError, match=r"found 50 bona fide scores, expected at least 100 for a share of 0\.01"):
        genuine_threshold(np.arange(50.0), 0.01)


def test_threshold_says_from_where_to_accept(files: Path, tmp_path: Path) -> None:
    found = json.loads(run_cli("threshold", "--spoof-prior", 0.5, "--fa-cost", 1, "--json").stdout)
    assert found["accept_from"] == found["reject_below"] == 0
    table = read_manifest(files / "set.tsv").table.filter(pl.col("key") == "bonafide")
    scores = read_scores(files / "a.tsv").filter(pl.col("utt_id").is_in(table["utt_id"].to_list()))
    write_scores(tmp_path / "mine.tsv", scores["utt_id"].to_list(), scores["score"].to_numpy())
    text = run_cli("threshold", tmp_path / "mine.tsv", "--reject-genuine", 0.01).stdout
    assert "rejects 1.00% of these 400 genuine recordings" in text
    assert "belong together" in refusal("threshold", tmp_path / "mine.tsv")
    command = ("threshold", tmp_path / "mine.tsv", "--reject-genuine", 0.01, "--fa-cost", 3)
    assert "costs have no effect" in refusal(*command)


def test_a_fusion_is_refused_for_other_models_and_for_another_order(files: Path, tmp_path: Path) -> None:
    """As far as the records beside the scores say which model made them."""
    for name, model in (("a0", "a" * 64), ("b1", "b" * 64)):
        scores = read_scores(files / f"{name}.tsv")
        write_scores(tmp_path / f"{name}.tsv", scores["utt_id"].to_list(), scores["score"].to_numpy())
        (tmp_path / f"{name}.json").write_text(json.dumps({"model_sha256": model}))
    a, b, fusion, out = tmp_path / "a0.tsv", tmp_path / "b1.tsv", tmp_path / "fusion.json", tmp_path / "llr.tsv"
    run_cli("fuse", a, b, files / "set.tsv", "-o", fusion)
    sentence = refusal("apply", fusion, b, a, "-o", out)
    assert "was scored by model bbbbbbbbbbbb, expected aaaaaaaaaaaa" in sentence
    assert "this is system 2, check the order" in sentence
    (tmp_path / "b1.json").write_text(json.dumps({"model_sha256": "c" * 64}))
    assert "fit a calibration for this model" in refusal("apply", fusion, a, b, "-o", out)
    assert not out.exists()
    (tmp_path / "b1.json").write_text(json.dumps({"model_sha256": "c" * 64, "exported_from_sha256": "b" * 64}))
    run_cli("apply", fusion, a, b, "-o", out)
    run_cli("apply", fusion, files / "a0.tsv", files / "b1.tsv", "-o", tmp_path / "unknown.tsv")
    assert read_scores(out).equals(read_scores(tmp_path / "unknown.tsv"))


def test_a_comparison_says_what_it_was_made_of_and_all_verbs_warn_of_cut_files(files: Path, tmp_path: Path) -> None:
    cut, manifest = tmp_path / "cut.tsv", files / "set.tsv"
    cut.write_text((files / "a.tsv").read_text().rstrip("\n"))
    done = run_cli("compare", cut, files / "b.tsv", manifest, "--json")
    assert json.loads(done.stdout)["made_from"] == {
        "scores_sha256": {"A": [file_sha256(cut)], "B": [file_sha256(files / "b.tsv")]},
        "manifest_sha256": file_sha256(manifest),
    }
    calls = (
        ("calibrate", cut, manifest, "-o", tmp_path / "c.json"),
        ("apply", tmp_path / "c.json", cut, "-o", tmp_path / "llr.tsv"),
        ("reformat", cut, manifest, "-o", tmp_path / "f.txt", "--layout", "asvspoof2021_df"),
        ("threshold", cut, "--reject-genuine", 0.1),
    )
    for warned in (done, *(run_cli(*call) for call in calls)):
        assert f"{cut}: does not end in a newline" in warned.stderr


def test_a_comparison_warns_of_scores_as_evaluate_does(files: Path, trials: pl.DataFrame, tmp_path: Path) -> None:
    scores = trials["a"].to_numpy()
    odd = {
        "turned": (-scores, "polarity may be reversed"),
        "same": (0 * scores, "all scores are the same"),
        "decided": ((scores > 1).astype(float), "take only two values"),
        "shares": (1 / (1 + np.exp(-scores)), "look like probabilities"),
    }
    for name, (changed, said) in odd.items():
        write_scores(tmp_path / f"{name}.tsv", trials["utt_id"].to_list(), changed)
        done = run_cli("compare", files / "b.tsv", tmp_path / f"{name}.tsv", files / "set.tsv", "--json")
        warnings = json.loads(done.stdout)["warnings"]
        assert [said in warning for warning in warnings if f"{name}.tsv" in warning].count(True) == 1
        assert said in done.stderr
        assert said in run_cli("evaluate", tmp_path / f"{name}.tsv", files / "set.tsv", "--replicates", 0).stderr
    assert (
        json.loads(run_cli("compare", files / "a.tsv", files / "b.tsv", files / "set.tsv", "--json").stdout)["warnings"]
        == []
    )


def test_a_calibration_that_does_not_say_whose_scores_it_is_for_is_applied_with_a_warning(
    files: Path, tmp_path: Path
) -> None:
    a = with_record(files, tmp_path, "a", model_sha256="a" * 64)
    run_cli("calibrate", a, files / "set.tsv", "-o", tmp_path / "c.json")
    assert "not checked" not in run_cli("apply", tmp_path / "c.json", a, "-o", tmp_path / "known.tsv").stderr
    known = unchecked_calibration(tmp_path / "c.json")
    for name, fitted_on in (("absent", None), ("a list", ["a" * 64]), ("nameless", {"made_by": [{}]})):
        (tmp_path / "d.json").write_text(json.dumps(known | {"fitted_on": fitted_on}))
        done = run_cli("apply", tmp_path / "d.json", a, "-o", tmp_path / f"{name}.tsv")
        assert f"{tmp_path / 'd.json'}: does not record the model" in done.stderr


def with_record(files: Path, folder: Path, name: str, **record: object) -> Path:
    """A copy of some scores with a record beside it, as `score` writes it."""
    path = folder / f"{name}.tsv"
    path.write_bytes((files / "a0.tsv").read_bytes())
    (folder / f"{name}.json").write_text(json.dumps({"scores_sha256": file_sha256(path)} | record))
    return path


def test_scores_are_calibrated_once_and_with_what_was_fitted_on_their_like(files: Path, tmp_path: Path) -> None:
    manifest, a = files / "set.tsv", with_record(files, tmp_path, "a", model_sha256="a" * 64)
    raw, llr, again = tmp_path / "raw.json", tmp_path / "llr.tsv", tmp_path / "again.tsv"
    run_cli("calibrate", a, manifest, "-o", raw)
    run_cli("apply", raw, a, "-o", llr)
    assert "llr.tsv: holds calibrated scores, " in refusal("apply", raw, llr, "-o", again)
    assert json.loads(llr.with_suffix(".json").read_text())["model_sha256"] == "a" * 64
    run_cli("calibrate", llr, manifest, "-o", tmp_path / "second.json")
    assert "a.tsv: holds raw scores, " in refusal("apply", tmp_path / "second.json", a, "-o", again)
    run_cli("apply", tmp_path / "second.json", llr, "-o", again)
    other = with_record(files, tmp_path, "b", model_sha256="b" * 64)
    assert "fit a calibration for this model" in refusal(
        "calibrate", a, manifest, "-o", tmp_path / "third.json", "--on", other, manifest
    )
    assert not (tmp_path / "third.json").exists()
    exported = with_record(files, tmp_path, "x", model_sha256="e" * 64, exported_from_sha256="a" * 64)
    run_cli("apply", raw, exported, "-o", tmp_path / "x_llr.tsv")
    run_cli("calibrate", exported, manifest, "-o", tmp_path / "of_exported.json")
    run_cli("apply", tmp_path / "of_exported.json", a, "-o", tmp_path / "a_llr.tsv")


def test_scores_that_are_not_those_of_their_record_are_refused(files: Path, tmp_path: Path) -> None:
    a = with_record(files, tmp_path, "a", model_sha256="a" * 64, contamination="trained on this very set")
    run_cli("calibrate", a, files / "set.tsv", "-o", tmp_path / "c.json")
    a.write_bytes((files / "b1.tsv").read_bytes())
    sentence = f"{a}: does not match its record a.json"
    for command in (
        ["apply", tmp_path / "c.json", a, "-o", tmp_path / "out.tsv"],
        ["calibrate", a, files / "set.tsv", "-o", tmp_path / "out.json"],
        ["evaluate", a, files / "set.tsv", "-o", tmp_path / "out"],
        ["evaluate", files / "b1.tsv", files / "set.tsv", "-o", tmp_path / "out", "--against", a],
        ["compare", files / "b1.tsv", a, files / "set.tsv"],
    ):
        assert sentence in refusal(*command)
        assert not list(tmp_path.glob("out*"))
    record = (tmp_path / "a.json").rename(tmp_path / "moved.json")  # as the sentence says
    run_cli("evaluate", a, files / "set.tsv", "--replicates", 0)
    record.rename(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"model_sha256": 5}')
    assert "a.json: is not a record of scores" in refusal("evaluate", a, files / "set.tsv")


def test_nothing_is_replaced_by_what_is_made_of_it(files: Path, tmp_path: Path) -> None:
    a = with_record(files, tmp_path, "a", model_sha256="a" * 64)
    manifest = tmp_path / "set.tsv"
    manifest.write_bytes((files / "set.tsv").read_bytes())
    (tmp_path / "results").mkdir()
    other = with_record(files, tmp_path / "results", "eval")
    before = {path: path.read_bytes() for path in (a, a.with_suffix(".json"), manifest, other.with_suffix(".json"))}
    for command in (
        ("evaluate", a, manifest, "-o", other.parent, "--against", other),
        ("calibrate", a, manifest, "-o", a.with_suffix(".json")),
        ("reformat", a, manifest, "-o", a, "--layout", "asvspoof2021_la"),
        ("reformat", a, manifest, "-o", manifest, "--layout", "asvspoof2021_la"),
        ("reformat", a, manifest, "-o", tmp_path / "results" / ".." / "set.tsv", "--layout", "asvspoof2021_la"),
    ):
        assert "would replace" in refusal(*command, "--overwrite")
        assert {path: path.read_bytes() for path in before} == before
    assert "is named twice" in refusal("fuse", a, a, manifest, "-o", tmp_path / "f.json")


def test_apply_that_fails_leaves_what_stood_there(files: Path, tmp_path: Path) -> None:
    calibration, out = tmp_path / "c.json", tmp_path / "llr.tsv"
    run_cli("calibrate", files / "a.tsv", files / "set.tsv", "-o", calibration)
    run_cli("apply", calibration, files / "a.tsv", "-o", out)
    before = out.read_bytes(), out.with_suffix(".json").read_bytes()
    calibration.write_text(json.dumps(unchecked_calibration(calibration) | {"scales": [1e308]}))
    sentence = refusal("apply", calibration, files / "a.tsv", "-o", out, "--overwrite")
    assert "expected a finite ratio" in sentence
    assert (out.read_bytes(), out.with_suffix(".json").read_bytes()) == before


def test_a_threshold_from_genuine_recordings_rejects_as_many_as_it_says(tmp_path: Path) -> None:
    scores = 1 - np.geomspace(1e-9, 1e-7, 1000)
    write_scores(tmp_path / "genuine.tsv", [f"u{n:04d}" for n in range(1000)], scores)
    words = run_cli("threshold", tmp_path / "genuine.tsv", "--reject-genuine", 0.01).stdout
    accept_from = float(words.split("accept from ")[1].split(":")[0])
    assert (scores < accept_from).sum() == 10


def test_what_has_to_be_known_of_a_set_is_said_by_every_verb(files: Path, tmp_path: Path) -> None:
    table = read_manifest(files / "set.tsv").table
    write_manifest(tmp_path / "part.tsv", Path("/corpus"), table, partial="half of it")
    a = with_record(files, tmp_path, "a", contamination="trained on this very set")
    for command in (("compare", a, files / "b.tsv"), ("calibrate", a)):
        end = ("-o", tmp_path / "c.json") if command[0] == "calibrate" else ()
        done = run_cli(*command, tmp_path / "part.tsv", *end)
        assert "part.tsv: partial: half of it" in done.stderr
        assert "trained on this very set" in done.stderr
    assert "partial set: half of it" in run_cli("evaluate", a, tmp_path / "part.tsv", "--latex").stdout


def test_few_speakers_of_a_class_are_said(trials: pl.DataFrame) -> None:
    assert clusters_of(trials).note == ""
    few = trials.filter((pl.col("key") == "bonafide") | pl.col("speaker").is_in(trials["speaker"].unique().sort()[:9]))
    assert clusters_of(few).note.startswith("only 9 speakers with spoof trials")


def test_compare_says_when_so_few_draws_cannot_give_a_small_corrected_p(trials: pl.DataFrame) -> None:
    many = trials.with_row_index().with_columns(attack=pl.format("A{}", pl.col("index") % 30))
    scores = {"A": [many["a"]], "B": [many["b"]]}
    with redirect_stdout(StringIO()) as said:
        print_comparison(compare(scores, many, by=["attack"], n_replicates=200) | {"n_trials": many.height})
    assert "--replicates" in said.getvalue()
    with redirect_stdout(StringIO()) as said:
        print_comparison(compare(scores, many, n_replicates=200) | {"n_trials": many.height})
    assert "--replicates" not in said.getvalue()
