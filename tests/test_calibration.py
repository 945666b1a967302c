"""Calibration and fusion: closed forms, an independent optimiser, and what must be refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import unchecked_calibration
from scipy.optimize import minimize

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.calibration import Calibration, fit, read_calibration, write_calibration
from spoofkit.evaluation.metrics import ASVSPOOF5, act_dcf, cllr, min_dcf
from spoofkit.evaluation.rocch import min_cllr


def normal_trials(n_bonafide: int, n_spoof: int, separation: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose log-likelihood ratio is known: separation * score - separation² / 2."""
    rng = np.random.default_rng(seed)
    is_bonafide = np.repeat([True, False], [n_bonafide, n_spoof])
    return rng.normal(0, 1, is_bonafide.size) + separation * is_bonafide, is_bonafide


@pytest.mark.parametrize("prior", [0.5, 0.95])
def test_scores_of_known_likelihood_ratio_get_it_back(prior: float) -> None:
    score, is_bonafide = normal_trials(20_000, 60_000, 2.0, 0)
    found = fit((score * 3 + 7)[:, None], is_bonafide, prior)
    assert found.scales[0] * 3 == pytest.approx(2.0, rel=0.03)
    assert found.offset + 7 * found.scales[0] == pytest.approx(-2.0, abs=0.06)
    llr = found.apply((score * 3 + 7)[:, None])
    bonafide, spoof = llr[is_bonafide], llr[~is_bonafide]
    assert cllr(bonafide, spoof) - min_cllr(bonafide, spoof) < 0.002
    assert act_dcf(bonafide, spoof, ASVSPOOF5) < min_dcf(bonafide, spoof, ASVSPOOF5) + 0.01
    raw = score * 3 + 7
    assert act_dcf(raw[is_bonafide], raw[~is_bonafide], ASVSPOOF5) > 0.9  # before


@pytest.mark.parametrize("n_systems", [1, 3])
def test_the_map_is_the_one_that_a_general_optimiser_finds(n_systems: int) -> None:
    rng = np.random.default_rng(3)
    is_bonafide = rng.random(600) < 0.2
    scores = (
        rng.normal(size=(600, n_systems)) * [1, 20, 0.1][:n_systems] + is_bonafide[:, None] * [1, 15, 0.2][:n_systems]
    )
    prior, sign = 0.7, np.where(is_bonafide, 1, -1)
    weight = np.where(is_bonafide, prior / is_bonafide.sum(), (1 - prior) / (~is_bonafide).sum())

    def cost(parameters: np.ndarray) -> float:
        llr = scores @ parameters[:-1] + parameters[-1]
        return float(weight @ np.log1p(np.exp(-sign * (llr + math.log(prior / (1 - prior))))))

    start = np.append(np.array([1, 0.05, 1])[:n_systems], 0)
    slow = minimize(
        cost, start, method="Nelder-Mead", options={"maxiter": 40_000, "maxfev": 40_000, "xatol": 1e-10, "fatol": 1e-15}
    )
    found = fit(scores, is_bonafide, prior)
    assert cost(np.append(found.scales, found.offset)) <= slow.fun + 1e-12
    assert [*found.scales, found.offset] == pytest.approx(slow.x, rel=2e-3, abs=2e-3)


def test_how_many_trials_a_class_has_does_not_matter() -> None:
    score, is_bonafide = normal_trials(500, 500, 1.5, 1)
    once = fit(score[:, None], is_bonafide, 0.5)
    twice = np.concatenate([score, score[~is_bonafide]]), np.concatenate([is_bonafide, is_bonafide[~is_bonafide]])
    again = fit(twice[0][:, None], twice[1], 0.5)
    assert [*again.scales, again.offset] == pytest.approx([*once.scales, once.offset], abs=1e-7)


def test_two_systems_that_know_different_things_are_better_together() -> None:
    rng = np.random.default_rng(0)
    is_bonafide = np.repeat([True, False], 4000)
    scores = rng.normal(size=(8000, 2)) + np.array([1.2, 1.0]) * is_bonafide[:, None]
    fused = fit(scores, is_bonafide, 0.5)
    assert fused.scales == pytest.approx((1.2, 1.0), abs=0.12)
    llr = fused.apply(scores)
    alone = min(
        cllr(*(fit(scores[:, [k]], is_bonafide, 0.5).apply(scores[:, [k]])[c] for c in (is_bonafide, ~is_bonafide)))
        for k in (0, 1)
    )
    assert cllr(llr[is_bonafide], llr[~is_bonafide]) < alone


def test_what_cannot_be_calibrated_is_refused() -> None:
    is_bonafide = np.array([True, True, False, False])
    for scores, sentence in (
        ([[3.0], [2.0], [1.0], [0.0]], "overlap in at most one score"),
        ([[3.0, 0], [0, 3.0], [1.0, 1.0], [0.0, 1.9]], "overlap in at most one score"),  # only together
        ([[1.0], [1.0], [1.0], [1.0]], "all scores of system 1 are the same"),
        ([[0.1], [0.1], [0.1], [0.1]], "all scores of system 1 are the same"),
        ([[2.0], [1.0], [1.0], [0.0]], "overlap in at most one score"),  # they touch in a tie
        ([[3e160], [0.0], [1.0], [2.0]], "have a spread of"),
        ([[0.0], [1.0], [3.0], [0.5]], "the polarity is reversed"),
        ([[0.0], [1.0], [3.0], [2.5]], "the polarity is reversed"),  # and without an error
    ):
        with pytest.raises(SpoofkitError, match=sentence):
            fit(scores, is_bonafide, 0.5)
    many = np.arange(200) < 100
    turned = np.random.default_rng(0).normal(-1.0 * many[:, None], 1, (200, 2))
    with pytest.raises(SpoofkitError, match="system 1 and system 2 mean more spoofed"):
        fit(turned, many, 0.5)
    with pytest.raises(SpoofkitError, match="one class only"):
        fit([[1.0], [2.0]], [True, True], 0.5)
    with pytest.raises(SpoofkitError, match=r"bona fide prior is 1\.0"):
        fit([[1.0], [2.0]], [True, False], 1.0)


def test_a_calibration_file_gives_back_what_was_written_and_others_are_refused(tmp_path: Path) -> None:
    calibration = Calibration((0.1234567890123456, -2.0), 1e-17, 0.5)
    write_calibration(tmp_path / "c.json", calibration, {"systems": ["a", "b"]})
    assert read_calibration(tmp_path / "c.json")[0] == calibration
    good = unchecked_calibration(tmp_path / "c.json")
    (tmp_path / "d.json").write_text(json.dumps(good))  # of an older version
    assert read_calibration(tmp_path / "d.json")[0] == calibration
    for change in (
        {"format": 2},
        {"format": 3},
        {"scales": []},
        {"scales": "ab"},
        {"offset": None},
        {"offset": float("nan")},
        {"scales": [True]},
    ):
        (tmp_path / "d.json").write_text(json.dumps(good | change))
        with pytest.raises(SpoofkitError, match="not a calibration of format 2"):
            read_calibration(tmp_path / "d.json")
    for turned in ([-1], [0.0], [-1.0, -2.0]):
        (tmp_path / "d.json").write_text(json.dumps(good | {"scales": turned}))
        with pytest.raises(SpoofkitError, match="expected a positive one"):
            read_calibration(tmp_path / "d.json")
    (tmp_path / "d.json").write_text("[1]")
    with pytest.raises(SpoofkitError, match="not a calibration of format 2"):
        read_calibration(tmp_path / "d.json")


@pytest.mark.parametrize("prior", [1e-5, 1 - 1e-5])
def test_rare_classes_are_fitted_as_well(prior: float) -> None:
    """The scores' true likelihood ratio does not depend on the prior, and there are many of them."""
    score, is_bonafide = normal_trials(50_000, 50_000, 2.0, 4)
    found = fit(score[:, None], is_bonafide, prior)
    assert found.scales[0] == pytest.approx(2.0, rel=0.25)
    with pytest.raises(SpoofkitError, match=r"prior is 1e-09, .* between 1e-06"):
        fit(score[:, None], is_bonafide, 1e-9)


@pytest.mark.parametrize("n_trials", [200, 1000, 5000])
def test_ordinary_sets_have_a_best_map_and_the_gradient_there_is_nought(n_trials: int) -> None:
    """Rounding at the end of the search must not be taken for a search without end; nor may one outlier."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        is_bonafide = rng.random(n_trials) < 0.5
        score = rng.normal(size=n_trials) + (0.7, 1, 2)[seed % 3] * is_bonafide
        if seed % 4 == 0:
            score[np.flatnonzero(is_bonafide)[0]] = 1e9
        prior = (0.6551724137931034, 0.5, 0.01)[seed % 3]
        found = fit(score[:, None], is_bonafide, prior)
        sign = np.where(is_bonafide, 1, -1)
        weight = np.where(is_bonafide, prior / is_bonafide.sum(), (1 - prior) / (~is_bonafide).sum())
        odds = sign * (score * found.scales[0] + found.offset + math.log(prior / (1 - prior)))
        pull = weight * sign * 0.5 * (1 - np.tanh(odds / 2))
        assert abs(pull.sum()) < 1e-7
        assert abs((pull * np.clip(score, -10, 10)).sum()) < 1e-6 or seed % 4 == 0


def test_scores_with_long_tails_have_a_best_map_too() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        is_bonafide = rng.random(1000) < 0.5
        score = np.exp(8 * (rng.normal(size=1000) + 2 * is_bonafide))
        assert fit(score[:, None], is_bonafide, (0.65, 0.01)[seed % 2]).scales[0] > 0
