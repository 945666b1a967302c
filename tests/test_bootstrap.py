"""The cluster bootstrap: the same figures as lists in which trials are really repeated."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import (
    draw_clusters,
    eer_replicates,
    limited_replicates,
    make_walk,
    min_dcf_replicates,
)
from spoofkit.evaluation.error_rates import Limit
from spoofkit.evaluation.intervals import holm, interval, p_value
from spoofkit.evaluation.metrics import ASVSPOOF5, DcfCosts, eer, min_dcf


def repeat(score: np.ndarray, is_bonafide: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both classes of the list in which every trial stands as often as its weight says."""
    scores, classes = np.repeat(score, weight), np.repeat(is_bonafide, weight)
    return scores[classes], scores[~classes]


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(2, 7), st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_replicates_are_the_figures_of_lists_with_repeated_trials(
    seed: int, n_trials: int, n_clusters: int, n_values: int
) -> None:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, n_values, n_trials).astype(float)  # many ties
    is_bonafide, cluster = rng.random(n_trials) < 0.4, rng.integers(0, n_clusters, n_trials)
    draws = draw_clusters(n_clusters, 5, seed)
    walk = make_walk(score, is_bonafide, cluster, n_clusters)
    repeated = [repeat(score, is_bonafide, row[cluster]) for row in draws]
    eers = [eer(*classes).eer if all(map(len, classes)) else math.nan for classes in repeated]
    assert eer_replicates(walk, draws) == pytest.approx(eers, nan_ok=True, abs=1e-12)
    for costs in (ASVSPOOF5, DcfCosts(0.5, 1, 1)):
        dcfs = [min_dcf(*classes, costs) if all(map(len, classes)) else math.nan for classes in repeated]
        assert min_dcf_replicates(walk, draws, costs) == pytest.approx(dcfs, nan_ok=True, abs=1e-12)
    for limit in (Limit("apcer", 30), Limit("bpcer", 10), Limit("bpcer", 60)):
        rates = [slow_limited(*classes, limit) if all(map(len, classes)) else math.nan for classes in repeated]
        assert limited_replicates(walk, draws, limit) == pytest.approx(rates, nan_ok=True, abs=1e-12)


def slow_limited(bonafide: np.ndarray, spoof: np.ndarray, limit: Limit) -> float:
    """The lowest of the other rate, over all thresholds at which this one is within its limit."""
    found = []
    for accept_from in [*bonafide, *spoof, np.inf]:
        rates = {"apcer": np.mean(spoof >= accept_from), "bpcer": np.mean(bonafide < accept_from)}
        if 100 * rates[limit.rate] <= limit.percent + 1e-9:
            found.append(float(rates[limit.other]))
    return min(found)


def test_drawing_every_speaker_once_gives_the_figure_itself() -> None:
    rng = np.random.default_rng(1)
    is_bonafide = rng.random(5000) < 0.1
    score = rng.normal(size=5000) + 2 * is_bonafide
    walk, once = make_walk(score, is_bonafide, rng.integers(0, 40, 5000), 40), np.ones((1, 40), dtype=int)
    classes = score[is_bonafide], score[~is_bonafide]
    assert eer_replicates(walk, once)[0] == eer(*classes).eer
    assert min_dcf_replicates(walk, once)[0] == pytest.approx(min_dcf(*classes), rel=1e-12)


def test_draws_are_as_many_speakers_as_there_are_and_follow_the_seed() -> None:
    draws = draw_clusters(30, 200, 7)
    assert draws.shape == (200, 30)
    assert (draws.sum(axis=1) == 30).all()
    assert (draws == draw_clusters(30, 200, 7)).all()
    assert (draws != draw_clusters(30, 200, 8)).any()


@pytest.mark.parametrize(("n_lists", "n_of_trials"), [(100, 20), pytest.param(400, 60, marks=pytest.mark.release)])
def test_intervals_cover_the_true_figure_where_speakers_differ_and_those_of_trials_do_not(
    n_lists: int, n_of_trials: int
) -> None:
    """A speaker shifts the scores of either class by an amount of their own; the truth is that of endless speakers."""
    rng = np.random.default_rng(0)
    n_speakers, n_each, spread, separation = 80, 20, 0.7, 2.0

    def draw(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        speaker = np.repeat(np.arange(n), 2 * n_each)
        is_bonafide = np.tile(np.repeat([True, False], n_each), n)
        shift = rng.normal(0, spread, (2, n))[is_bonafide.astype(int), speaker]
        return rng.normal(0, 1, speaker.size) + shift + separation * is_bonafide, is_bonafide, speaker

    # Normal in both classes with the same variance: the EER is the tail beyond half the separation.
    true = 0.5 * math.erfc(separation / 2 / math.sqrt(1 + spread**2) / math.sqrt(2))
    covered = {"speakers": 0, "trials": 0}
    for number in range(n_lists):
        score, is_bonafide, speaker = draw(n_speakers)
        for kind, cluster in (("speakers", speaker), ("trials", np.arange(score.size))):
            if kind == "trials" and number >= n_of_trials:
                continue
            n_clusters = int(cluster.max()) + 1
            draws = draw_clusters(n_clusters, 400 if kind == "speakers" else 100, number)
            low, high = interval(eer_replicates(make_walk(score, is_bonafide, cluster, n_clusters), draws))
            covered[kind] += low <= true <= high
    assert 0.93 <= covered["speakers"] / n_lists <= 0.97, covered
    assert covered["trials"] / n_of_trials < 0.85, covered


def test_too_few_speakers_are_refused() -> None:
    with pytest.raises(SpoofkitError, match="found 1 speaker, expected at least two"):
        draw_clusters(1)
    draws = draw_clusters(3, 100, 0)
    lacking = eer_replicates(make_walk([1.0, 2.0, 3.0], [True, False, False], np.arange(3), 3), draws)
    with pytest.raises(SpoofkitError, match=r"of 100 resampled lists lack a class"):
        interval(lacking)


def test_a_difference_of_nothing_is_found_as_often_as_its_level_says() -> None:
    """Two systems of the same quality on the same speakers: p below 0.1 in about a tenth of all pairs."""
    rng = np.random.default_rng(5)
    n_speakers, n_each, n_pairs = 60, 10, 150
    speaker = np.repeat(np.arange(n_speakers), 2 * n_each)
    is_bonafide = np.tile(np.repeat([True, False], n_each), n_speakers)
    found = []
    for pair in range(n_pairs):
        common = rng.normal(0, 0.7, (2, n_speakers))[is_bonafide.astype(int), speaker] + 1.5 * is_bonafide
        draws = draw_clusters(n_speakers, 200, pair)
        systems = [make_walk(common + rng.normal(0, 1, speaker.size), is_bonafide, speaker, n_speakers) for _ in "AB"]
        found.append(p_value(eer_replicates(systems[0], draws) - eer_replicates(systems[1], draws)))
    assert 0.04 < np.mean(np.array(found) < 0.1) < 0.18


def test_a_real_difference_is_found_though_both_intervals_overlap() -> None:
    """Speakers move both systems together: paired, a difference is seen that two separate intervals hide."""
    rng = np.random.default_rng(2)
    speaker = np.repeat(np.arange(60), 40)
    is_bonafide = np.tile(np.repeat([True, False], 20), 60)
    common = rng.normal(0, 1.0, (2, 60))[is_bonafide.astype(int), speaker] + rng.normal(0, 1, speaker.size)
    draws = draw_clusters(60, 1000, 0)
    good, bad = (
        eer_replicates(make_walk(common + d * is_bonafide, is_bonafide, speaker, 60), draws) for d in (2.0, 1.6)
    )
    assert interval(good)[1] > interval(bad)[0]
    assert p_value(bad - good) < 0.01
    assert interval(bad - good)[0] > 0


def test_holm_is_no_stricter_than_bonferroni_and_keeps_the_order() -> None:
    p_values = [0.2, 0.001, 0.03, 0.04]
    corrected = holm(p_values)
    assert corrected == pytest.approx([0.2, 0.004, 0.09, 0.09])
    assert all(c <= min(1, 4 * p) for c, p in zip(corrected, p_values, strict=True))
