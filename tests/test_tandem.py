"""Tandem costs and the other EERs: published answers, closed forms, and slow second implementations."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from spoofkit.addons.sasv.evaluate import evaluate_sasv
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation import rocch, tandem
from spoofkit.evaluation.metrics import act_dcf, cllr, eer, min_dcf, operating_points
from spoofkit.evaluation.tandem import ASVSPOOF, ASVSPOOF5_ASV, AsvRates, TandemCosts

SCORES = SHARED / "cases/scores"
TEER = SHARED / "cases/teer"
# Scores made up here; answers of the organisers' code (asvspoof-challenge/asvspoof5 at fe23d30: calculate_modules.py
# with compute_teer, a_dcf.py), all as fractions. The ASV rates are miss, false alarm, false alarm of spoofs.
OFFICIAL = {
    "apart": (
        {
            "bonafide": [2.5, 1.9, 1.2, 0.4, 3.1],
            "spoof": [0.9, -0.3, -1.4, 0.6, -2.0, 0.1],
            "target": [1.5, 2.2, 0.3, 1.1],
            "nontarget": [-1.0, 0.5, -0.2, -1.7],
            "asv_spoof": [1.3, 0.2, 0.9, -0.4, 1.9],
        },
        {
            "eer": 0.18333333333333335, "min_dcf": 0.3333333333333333, "act_dcf": 0.6666666666666666,
            "cllr": 0.6216939576534815, "asv": (0.0, 0.25, 0.6), "tdcf_2021": 0.38223938223938225,
            "tdcf_2019": 0.3333333333333333, "adcf": 0.5441176470588235, "teer": 0.2,
        },
    ),
    "tied": (
        {
            "bonafide": [1, 1, 1, 0, 2, 2],
            "spoof": [0, 0, 0, 1, 1, -1],
            "target": [1, 2, 2, 1, 0],
            "nontarget": [0, 0, 1, -1],
            "asv_spoof": [1, 1, 0, 2],
        },
        {
            "eer": 0.3333333333333333, "min_dcf": 0.6499999999999997, "act_dcf": 0.8333333333333334,
            "cllr": 0.8302727837032841, "asv": (0.0, 0.75, 1.0), "tdcf_2021": 0.6700948212983223,
            "tdcf_2019": 0.6230833333333332, "adcf": 0.9600840336134455, "teer": 0.3333333333333333,
        },
    ),
    "weak": (
        {
            "bonafide": [0.1, -0.8, 1.4, 0.7],
            "spoof": [0.5, -0.1, 1.0, -1.2, 0.2],
            "target": [0.4, 0.1, 1.6, -0.3, 0.8],
            "nontarget": [0.0, 0.5, -0.6, -1.1, 0.2],
            "asv_spoof": [0.3, 0.6, -0.2, 1.0],
        },
        {
            "eer": 0.55, "min_dcf": 0.8, "act_dcf": 1.275, "cllr": 1.0159505581245138, "asv": (0.2, 0.4, 0.75),
            "tdcf_2021": 0.8752287472966229, "tdcf_2019": 0.8000000000000002, "adcf": 0.9361344537815125,
            "teer": 0.45,
        },
    ),
}  # fmt: skip
scores = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=14)


def columns(path: Path, which: int, value: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for line in path.read_text().splitlines():
        fields = line.split()
        found.setdefault(fields[which], []).append(float(fields[value]))
    return found


@pytest.mark.skipif(not SCORES.is_dir(), reason="the real score files are not on this machine")
def test_official_answers_on_a_real_system_beside_the_organisers_asv_hold_to_1e_9() -> None:
    cm = columns(SCORES / "la19eval_rawgat_st_mul.txt", 2, 3)
    asv = columns(SCORES / "ASVspoof2019.LA.asv.eval.gi.trl.scores.txt", 1, 2)
    rates = tandem.asv_rates(asv["target"], asv["nontarget"], asv["spoof"])
    assert 100 * eer(asv["target"], asv["nontarget"]).eer == pytest.approx(2.4578, abs=1e-3)
    assert (rates.fa, rates.miss, 1 - rates.fa_spoof) == pytest.approx((0.02460467, 0.02458101, 0.23934755), abs=1e-8)
    classes = (cm["bonafide"], cm["spoof"])
    assert tandem.min_tdcf_2019(*classes, rates) == pytest.approx(0.033538947, abs=1e-9)
    assert tandem.min_tdcf_2021(*classes, rates) == pytest.approx(0.094167831, abs=1e-9)
    assert rocch.min_cllr(*classes) == pytest.approx(0.046527091, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(scores, scores, st.tuples(*[st.floats(0.01, 0.4)] * 2), st.floats(0.2, 0.9))
def test_tandem_costs_are_their_formulas_at_every_point_of_the_walk(bonafide, spoof, errors, fa_spoof) -> None:
    asv = AsvRates(*errors, fa_spoof)
    points = list(zip(*(getattr(operating_points(bonafide, spoof), name) for name in ("miss", "fa")), strict=True))
    t, n, s = 0.9405, 0.0095, 0.05
    c1, c2 = t * (1 - asv.miss) - n * 10 * asv.fa, 10 * s * (1 - (1 - asv.fa_spoof))
    if c1 > 0:
        slow = min(c1 * miss + c2 * fa for miss, fa in points) / min(c1, c2)
        assert tandem.min_tdcf_2019(bonafide, spoof, asv) == pytest.approx(slow, rel=1e-12)
    c0 = t * asv.miss + n * 10 * asv.fa
    c1, c2 = t - c0, s * 10 * asv.fa_spoof
    slow = min(c0 + c1 * miss + c2 * fa for miss, fa in points) / (c0 + min(c1, c2))
    assert tandem.min_tdcf_2021(bonafide, spoof, asv) == pytest.approx(slow, rel=1e-12)


def test_a_countermeasure_that_tells_nothing_costs_one_and_a_perfect_one_what_the_asv_costs() -> None:
    assert tandem.min_tdcf_2021([0.0], [1.0], ASVSPOOF5_ASV) == 1
    perfect = tandem.min_tdcf_2021([1.0], [0.0], ASVSPOOF5_ASV)
    c0 = 0.9405 * ASVSPOOF5_ASV.miss + 0.095 * ASVSPOOF5_ASV.fa
    assert perfect == pytest.approx(c0 / (c0 + min(0.9405 - c0, 0.5 * ASVSPOOF5_ASV.fa_spoof)), rel=1e-12)
    assert tandem.min_tdcf_2019([1.0], [0.0], ASVSPOOF5_ASV) == 0


@settings(max_examples=200, deadline=None)
@given(scores, scores, scores)
def test_adcf_is_its_formula_at_every_threshold(target, nontarget, spoof) -> None:
    def share(values, at):
        return sum(value >= at for value in values) / len(values)

    costs = TandemCosts(0.9, 0.05, 0.05, 1, 10, 20)
    slow = min(
        0.9 * (1 - share(target, at)) + 0.5 * share(nontarget, at) + 1.0 * share(spoof, at)
        for at in [*target, *nontarget, *spoof, math.inf]
    )
    assert tandem.min_adcf(target, nontarget, spoof, costs) == pytest.approx(slow / 0.9, rel=1e-12)


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_figure_is_the_organisers_on_scores_apart_tied_and_weak(name: str) -> None:
    given_scores, expected = OFFICIAL[name]
    cm = (given_scores["bonafide"], given_scores["spoof"])
    asv = tuple(given_scores[kind] for kind in ("target", "nontarget", "asv_spoof"))
    rates = tandem.asv_rates(*asv)
    found = {
        "eer": eer(*cm).eer,
        "min_dcf": min_dcf(*cm),
        "act_dcf": act_dcf(*cm),
        "cllr": cllr(*cm),
        "asv": (rates.miss, rates.fa, rates.fa_spoof),
        "tdcf_2021": tandem.min_tdcf_2021(*cm, rates),
        "tdcf_2019": tandem.min_tdcf_2019(*cm, rates),
        "adcf": tandem.min_adcf(*asv),
        "teer": tandem.concurrent_teer(*cm, *asv),
    }
    for figure, value in expected.items():
        assert found[figure] == pytest.approx(value, abs=1e-12), figure


@pytest.mark.skipif(not TEER.is_dir(), reason="the organisers' t-EER cases are not on this machine (../shared)")
@pytest.mark.parametrize("name", ["separated", "normal6", "ties", "weak"])
def test_concurrent_teer_is_the_organisers_on_their_track_2_files(name: str) -> None:
    expected = json.loads((TEER / "expected_percent.json").read_text())[name]
    found = evaluate_sasv(TEER / f"{name}.scores.tsv", TEER / f"{name}.keys.tsv")
    assert found["teer_percent"] == pytest.approx(expected, abs=1e-6)


def slow_teer(bonafide, spoof, target, nontarget, asv_spoof) -> float:
    """The definition, threshold by threshold; inf where no pair is left."""
    walk = sorted([(s, k) for k, part in enumerate((bonafide, spoof)) for s in part], key=lambda trial: trial[0])
    cm = [(0.0, 1.0)]
    for n in range(1, len(walk) + 1):
        missed = sum(k == 0 for _, k in walk[:n])
        cm.append((missed / len(bonafide), (len(spoof) - n + missed) / len(spoof)))
    classes = (target, nontarget, asv_spoof)
    walk = sorted([(s, k) for k, part in enumerate(classes) for s in part], key=lambda trial: trial[0])
    best = (math.inf, math.inf)
    for n in range(len(walk) + 1):
        below = [sum(k == kind for _, k in walk[:n]) / len(part) for kind, part in enumerate(classes)]
        asv_miss, asv_fa, asv_fa_spoof = below[0], 1 - below[1], 1 - below[2]
        if asv_fa_spoof == 0 or not asv_miss < 0.5 * asv_fa + 0.5 * asv_fa_spoof:
            continue
        gaps = [abs((m + (1 - m) * asv_miss) - (0.5 * (1 - m) * asv_fa + 0.5 * f * asv_fa_spoof)) for m, f in cm]
        miss, fa = cm[gaps.index(min(gaps))]
        if miss < 1:
            criterion = abs(asv_fa / asv_fa_spoof - fa / (1 - miss))
            best = min(best, (criterion, asv_fa_spoof * fa), key=lambda pair: pair[0])  # of equal ones the first
    return best[1]


@settings(max_examples=400, deadline=None)
@given(scores, scores, scores, scores, scores)
def test_concurrent_teer_is_its_definition_at_every_pair_of_thresholds(
    bona, spoof, target, nontarget, asv_spoof
) -> None:
    slow = slow_teer(bona, spoof, target, nontarget, asv_spoof)
    if math.isinf(slow):
        with pytest.raises(SpoofkitError, match="no pair of thresholds"):
            tandem.concurrent_teer(bona, spoof, target, nontarget, asv_spoof)
    else:
        assert tandem.concurrent_teer(bona, spoof, target, nontarget, asv_spoof) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_concurrent_teer_is_its_definition_on_larger_random_sets_with_and_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    means = [rng.normal(2), 0, rng.normal(2), 0, rng.normal(1.5)]
    sets = [np.round(rng.normal(mean, 1, rng.integers(40, 120)), 1 + 6 * (seed % 2)).tolist() for mean in means]
    assert tandem.concurrent_teer(*sets) == pytest.approx(slow_teer(*sets), abs=1e-12)


def test_concurrent_teer_of_normal_scores_is_where_the_three_rates_meet() -> None:
    """Exact quantiles of normal classes; the two thresholds solved for by bisection of the closed forms."""
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    q = ndtri((np.arange(4000) + 0.5) / 4000)
    found = tandem.concurrent_teer(q + 3, q, q + 3.5, q, q + 2.5)

    def cm_threshold(asv: float) -> float:  # miss equals the nontargets' false alarms
        def gap(cm: float) -> float:
            accepted = ndtr(3 - cm)
            return float(1 - accepted * ndtr(3.5 - asv) - accepted * ndtr(-asv))

        return float(brentq(gap, -9, 9))

    def gap(asv: float) -> float:
        cm = cm_threshold(asv)
        return float(ndtr(3 - cm) * ndtr(-asv) - ndtr(-cm) * ndtr(2.5 - asv))

    asv = brentq(gap, 0.5, 1.74)
    expected = ndtr(3 - cm_threshold(asv)) * ndtr(-asv)
    assert found == pytest.approx(float(expected), abs=5e-4)


@settings(max_examples=300, deadline=None)
@given(scores, scores)
def test_pooling_gives_what_the_best_monotone_map_gives(bonafide, spoof) -> None:
    """Slow pooling of neighbours, then Cllr of the log-odds it gives, by the metric itself."""
    values = sorted({*bonafide, *spoof})
    groups = [[bonafide.count(v), spoof.count(v), [v]] for v in values]
    merged = True
    while merged:
        merged = False
        for k in range(len(groups) - 1):
            a, b = groups[k], groups[k + 1]
            if a[0] * (b[0] + b[1]) >= b[0] * (a[0] + a[1]):
                groups[k : k + 2] = [[a[0] + b[0], a[1] + b[1], a[2] + b[2]]]
                merged = True
                break
    llr = {}
    for n_bonafide, n_spoof, members in groups:
        odds = (n_bonafide / len(bonafide)) / (n_spoof / len(spoof)) if n_spoof else math.inf
        for value in members:
            llr[value] = min(700.0, max(-700.0, math.log(odds) if 0 < odds < math.inf else (odds - 0.5) * math.inf))
    slow = cllr([llr[v] for v in bonafide], [llr[v] for v in spoof])
    assert rocch.min_cllr(bonafide, spoof) == pytest.approx(slow, abs=1e-12)
    assert rocch.min_cllr(bonafide, spoof) <= min(1.0, cllr(bonafide, spoof)) + 1e-12


@settings(max_examples=300, deadline=None)
@given(scores, scores)
def test_hull_and_crossing_are_found_by_brute_force_too(bonafide, spoof) -> None:
    thresholds = sorted({*bonafide, *spoof, math.inf})
    points = [
        (sum(v < at for v in bonafide) / len(bonafide), sum(v >= at for v in spoof) / len(spoof)) for at in thresholds
    ]

    def cross(a, b):
        gap_a, gap_b = a[1] - a[0], b[0] - b[1]
        if gap_a < 0 or gap_b < 0:
            return None
        return a[0] if gap_a + gap_b == 0 else a[0] + gap_a / (gap_a + gap_b) * (b[0] - a[0])

    joined = [found for a, b in itertools.pairwise(points) if (found := cross(a, b)) is not None]
    assert rocch.interpolated_eer(bonafide, spoof) == pytest.approx(joined[0], abs=1e-12)
    # The hull's EER is the least that a chord between any two points reaches on the diagonal.
    chords = [found for a in points for b in points if (found := cross(a, b)) is not None]
    assert rocch.rocch_eer(bonafide, spoof) == pytest.approx(min(chords), abs=1e-12)


def test_impossible_rates_priors_and_asv_systems_are_refused() -> None:
    with pytest.raises(SpoofkitError, match="expected fractions between 0 and 1"):
        AsvRates(0.1, 1.1, 0.5)
    with pytest.raises(SpoofkitError, match="expected priors that sum to 1"):
        TandemCosts(0.9, 0.1, 0.1)
    with pytest.raises(SpoofkitError, match=r"0\.8369 and 0, expected positive ones"):
        tandem.min_tdcf_2021([1.0], [0.0], AsvRates(0.1, 0.1, 0.0))
    assert ASVSPOOF.target_prior + ASVSPOOF.nontarget_prior + ASVSPOOF.spoof_prior == pytest.approx(1)
