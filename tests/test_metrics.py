"""The metrics against published numbers, closed forms and a second, slow implementation written here."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation import metrics
from spoofkit.evaluation.metrics import ASVSPOOF5, DcfCosts, act_dcf, cllr, eer, min_dcf, operating_points

# RawGAT-ST's scores on 2019 LA eval (eurecom-asp/RawGAT-ST-antispoofing, MIT); it lies beside the checkout.
REAL_SCORES = Path(__file__).parents[2] / "shared" / "cases" / "scores" / "la19eval_rawgat_st_mul.txt"
# Computed with the official code of ASVspoof 5 on that file.
REAL_ANSWERS = {"eer_percent": 1.060134752, "min_dcf": 0.029893113, "act_dcf": 0.044395365, "cllr": 0.066251950}
REAL_EER_PERCENT = {
    "A07": 0.3429, "A08": 0.5297, "A09": 0.0815, "A10": 0.3905, "A11": 0.2852, "A12": 0.3429, "A13": 0.3022,
    "A14": 0.2852, "A15": 0.2682, "A16": 0.8149, "A17": 1.7452, "A18": 3.0898, "A19": 0.7096,
}  # fmt: skip

# Few different values, so that ties within and across the classes are the rule; -0.0 ties with 0.0.
tied_scores = st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=25)
any_scores = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=25)
score_lists = st.one_of(tied_scores, any_scores)


def official_walk(bonafide, spoof):
    """Miss, fa and threshold after each trial of the stable walk, one trial at a time."""
    trials = sorted([(score, True) for score in bonafide] + [(score, False) for score in spoof], key=lambda t: t[0])
    points = [(0.0, 1.0, trials[0][0] - 0.001)]
    n_missed, n_accepted = 0, len(spoof)
    for score, is_bonafide in trials:
        n_missed += is_bonafide
        n_accepted -= not is_bonafide
        points.append((n_missed / len(bonafide), n_accepted / len(spoof), score))
    return points


def official_eer(bonafide, spoof):
    best = min(official_walk(bonafide, spoof), key=lambda point: abs(point[0] - point[1]))  # the first of equals
    return (best[0] + best[1]) / 2, best[2]


@pytest.fixture(scope="module")
def real_scores():
    if not REAL_SCORES.exists():
        pytest.skip(f"needs {REAL_SCORES.name}, which is not part of the project (../shared is absent)")
    rows = [line.split() for line in REAL_SCORES.read_text().splitlines()]
    bonafide = np.array([float(score) for _, _, key, score in rows if key == "bonafide"])
    spoof = {}
    for _, attack, key, score in rows:
        if key == "spoof":
            spoof.setdefault(attack, []).append(float(score))
    return bonafide, {attack: np.array(scores) for attack, scores in spoof.items()}


def test_official_answers_on_a_real_system_hold_to_1e_9(real_scores):
    bonafide, spoof_of_attack = real_scores
    spoof = np.concatenate(list(spoof_of_attack.values()))
    assert (bonafide.size, spoof.size) == (7_355, 63_882)
    found = {"eer_percent": 100 * eer(bonafide, spoof).eer, "min_dcf": min_dcf(bonafide, spoof)}
    found |= {"act_dcf": act_dcf(bonafide, spoof), "cllr": cllr(bonafide, spoof)}
    assert found == pytest.approx(REAL_ANSWERS, rel=0, abs=1e-9)


def test_official_eer_of_each_attack_of_a_real_system(real_scores):
    bonafide, spoof_of_attack = real_scores
    found = {attack: 100 * eer(bonafide, spoof).eer for attack, spoof in spoof_of_attack.items()}
    assert found == pytest.approx(REAL_EER_PERCENT, rel=0, abs=5e-5)
    # The published table has four digits; the walk gives the others.
    for attack in ("A09", "A18"):
        assert found[attack] / 100 == pytest.approx(
            official_eer(bonafide, spoof_of_attack[attack])[0], rel=0, abs=1e-15
        )


@pytest.mark.parametrize(
    ("bonafide", "spoof", "percent"),
    [
        ([0.9, 0.8, 0.3], [0.7, 0.2], 41.0 + 2 / 3),  # no interpolation (which would give 33.333)
        ([1, 1, 1, 0], [0, 0, 0, 1, 1], 45),  # ties count against the system (tie-correct: 32.5)
        ([7, 7, 7], [7, 7], 100),
        ([2, 3], [0, 1], 0),
        ([0, 1], [2, 3], 100),
        ([1], [0], 0),
        ([0], [1], 100),
    ],
)
def test_eer_of_toy_sets(bonafide, spoof, percent):
    assert 100 * eer(bonafide, spoof).eer == pytest.approx(percent, rel=0, abs=1e-12)


@settings(max_examples=600, deadline=None)
@given(score_lists, score_lists)
def test_eer_and_its_threshold_equal_the_walk_exactly(bonafide, spoof):
    found = eer(bonafide, spoof)
    assert (found.eer, found.threshold) == official_eer(bonafide, spoof)


@settings(max_examples=300, deadline=None)
@given(score_lists, score_lists)
def test_operating_points_equal_the_walk_exactly(bonafide, spoof):
    points = operating_points(bonafide, spoof)
    found = zip(points.miss.tolist(), points.fa.tolist(), points.thresholds.tolist(), strict=True)
    assert list(found) == official_walk(bonafide, spoof)


@settings(max_examples=600, deadline=None)
@given(score_lists, score_lists, st.sampled_from([ASVSPOOF5, DcfCosts(0.5, 1, 1), DcfCosts(0.9, 3, 1)]))
def test_min_dcf_and_its_threshold_equal_the_walk(bonafide, spoof, costs):
    miss_weight, fa_weight = costs.miss_cost * (1 - costs.spoof_prior), costs.fa_cost * costs.spoof_prior
    walked = [
        ((miss_weight * miss + fa_weight * fa) / min(miss_weight, fa_weight), threshold)
        for miss, fa, threshold in official_walk(bonafide, spoof)
    ]
    least = min(walked)[0]
    assert min_dcf(bonafide, spoof, costs) == pytest.approx(least, rel=1e-12)
    # Rounding may choose another of several points of the same cost, but never a threshold of a higher cost.
    found = metrics.min_dcf_of_sorted(np.sort(bonafide), np.sort(spoof), costs)
    assert min(cost for cost, threshold in walked if threshold == found.threshold) == pytest.approx(least, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(any_scores, any_scores)
def test_cllr_and_act_dcf_equal_their_definitions(bonafide, spoof):
    def log2_1p_exp(x):
        return (x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))) / math.log(2)

    slow = sum(log2_1p_exp(-s) for s in bonafide) / len(bonafide) / 2 + sum(map(log2_1p_exp, spoof)) / len(spoof) / 2
    assert cllr(bonafide, spoof) == pytest.approx(slow, rel=1e-10, abs=1e-12)
    miss = sum(s < -math.log(1.9) for s in bonafide) / len(bonafide)
    fa = sum(s >= -math.log(1.9) for s in spoof) / len(spoof)
    assert act_dcf(bonafide, spoof) == pytest.approx(1.9 * miss + fa, rel=1e-12)


def test_eer_of_two_normal_distributions_is_the_closed_form():
    # N(d, 1) against N(0, 1): EER = Phi(-d / 2) at d / 2, here on exact quantiles instead of random draws.
    from scipy.special import ndtri

    quantiles = ndtri((np.arange(20_000) + 0.5) / 20_000)
    found = eer(quantiles + 2, quantiles)
    assert found.eer == pytest.approx(0.5 * math.erfc(1 / math.sqrt(2)), abs=1e-4)
    assert found.threshold == pytest.approx(1, abs=1e-3)


def test_threshold_that_rejects_nothing_lies_below_all_scores():
    assert operating_points([5.0], [3.0]).thresholds[0] == 3 - 0.001
    assert metrics.min_dcf_of_sorted(np.array([1.0]), np.array([2.0])) == metrics.MinDcf(1.0, 0.999)


@pytest.mark.parametrize("metric", [eer, min_dcf, act_dcf, cllr])
def test_order_and_container_do_not_matter(metric):
    generator = np.random.default_rng(1)
    bonafide, spoof = generator.normal(1, 1, 50).round(1), generator.normal(0, 1, 70).round(1)
    assert metric(bonafide, spoof) == metric(sorted(bonafide, reverse=True), list(spoof[::-1]))


def test_input_arrays_are_not_changed():
    bonafide, spoof = np.array([3.0, 1.0]), np.array([2.0, 0.0])
    for metric in (eer, min_dcf, act_dcf, cllr, operating_points):
        metric(bonafide, spoof)
    assert bonafide.tolist() == [3, 1]
    assert spoof.tolist() == [2, 0]


def test_cllr_does_not_overflow_and_knows_its_anchors():
    assert cllr([0.0], [0.0]) == 1
    assert cllr([1000.0], [-1000.0]) == 0
    assert cllr([-1000.0], [1000.0]) == pytest.approx(1000 / math.log(2), rel=1e-12)


def test_act_dcf_accepts_at_the_threshold_itself_and_may_exceed_one():
    threshold = ASVSPOOF5.bayes_threshold
    assert threshold == pytest.approx(-0.641854, abs=1e-6)
    assert act_dcf([threshold], [math.nextafter(threshold, -9)]) == 0
    assert act_dcf([-5.0], [5.0]) == pytest.approx(2.9)


def test_asvspoof5_costs_are_the_evaluation_plan_s():
    assert (ASVSPOOF5.spoof_prior, ASVSPOOF5.miss_cost, ASVSPOOF5.fa_cost) == (0.05, 1, 10)


@pytest.mark.parametrize("metric", [eer, min_dcf, act_dcf, cllr, operating_points])
@pytest.mark.parametrize(
    ("bonafide", "spoof", "words"),
    [
        ([], [1.0], r"bona fide scores: found shape \(0,\)"),
        ([1.0], [], r"spoof scores: found shape \(0,\)"),
        ([1.0, math.nan], [1.0], "bona fide scores: 1 of 2 are NaN or infinite, the first at index 1"),
        ([1.0], [0.0, math.inf, -math.inf], "spoof scores: 2 of 3 are NaN or infinite, the first at index 1"),
        ([[1.0, 2.0]], [1.0], r"bona fide scores: found shape \(1, 2\)"),
        (["high"], [1.0], "bona fide scores: found something that is not a number"),
    ],
)
def test_scores_that_are_no_scores_are_refused(metric, bonafide, spoof, words):
    with pytest.raises(SpoofkitError, match=words):
        metric(bonafide, spoof)


@pytest.mark.parametrize(
    "costs", [(0, 1, 1), (1, 1, 1), (0.5, 0, 1), (0.5, 1, -1), (0.5, 1, math.inf), (math.nan, 1, 1)]
)
def test_impossible_costs_are_refused(costs):
    with pytest.raises(SpoofkitError, match="expected a prior between 0 and 1"):
        DcfCosts(*costs)


def test_cllr_of_huge_scores_is_their_mean_and_costs_too_far_apart_are_refused() -> None:
    assert cllr([-1e308, -1e308, 0.0], [1e308]) == pytest.approx((1e308 / 3 + 1e308 / 2) / math.log(2), rel=1e-12)
    with pytest.raises(SpoofkitError, match="too far apart"):
        DcfCosts(0.5, 1e-300, 1e300)


def test_costs_are_refused_in_words() -> None:
    with pytest.raises(SpoofkitError, match="spoof prior 5, ") as refused:
        DcfCosts(spoof_prior=5.0, miss_cost=1.0, fa_cost=10.0)
    assert "DcfCosts" not in str(refused.value)
