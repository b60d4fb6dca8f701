"""Intervals against scipy, statsmodels and closed forms."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from harness.effects.risk_differences import boschloo_p, newcombe, risk_difference
from harness.effects.robust import bimodality, bootstrap_interval, interquartile_mean, robust_summary
from harness.effects.seed_intervals import (
    detectable_effect,
    log_error_interval,
    mean_interval,
    t_interval,
)
from harness.errors import HarnessError
from harness.measures.statistics import benjamini_hochberg


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(1).normal(0.2, 0.4, 10)


def test_the_interval_over_seeds_is_students(values):
    oracle = stats.ttest_1samp(values, 0)
    found = t_interval(np.append(values, np.nan))
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval()))


def test_a_bounded_outcome_has_a_bounded_interval():
    found = mean_interval(np.array([1.0, 1.0, 1.0, 0.0]), (-1.0, 1.0))
    assert found.high == 1.0
    assert found.low == pytest.approx(t_interval(np.array([1.0, 1.0, 1.0, 0.0])).low)


@pytest.mark.parametrize("limits", [None, (-1.0, 1.0)])
def test_seeds_that_all_agree_have_their_value_and_a_method_that_says_so(limits):
    interval = mean_interval(np.full(10, 0.25), limits)
    assert (interval.low, interval.high) == (0.25, 0.25)
    assert interval.method == "equal in all 10 seeds"


def test_one_seed_has_no_interval():
    assert mean_interval(np.array([0.5]), (-1, 1)).method == "one seed has no spread"
    assert mean_interval(np.array([np.nan])).method == "no seed"


def test_errors_are_judged_on_the_log_scale():
    errors = np.exp(np.random.default_rng(2).normal(-2, 1, 9))
    estimate, found = log_error_interval(1 - errors)
    oracle = stats.ttest_1samp(np.log(errors), 0).confidence_interval()
    assert estimate == pytest.approx(1 - stats.gmean(errors))
    assert (found.low, found.high) == pytest.approx((1 - np.exp(oracle.high), 1 - np.exp(oracle.low)))


def test_a_perfect_reconstruction_has_no_logarithm_and_uses_the_plain_mean():
    estimate, found = log_error_interval(np.array([1.0, 0.8]))
    assert estimate == pytest.approx(0.9)
    assert "log" not in found.method


def test_the_detectable_effect_is_found_in_four_of_five_repetitions():
    effect = detectable_effect(0.2, 10)
    draws = np.random.default_rng(0).normal(effect, 0.2, (4000, 10))
    power = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.02)  # 4000 repetitions: standard error .006; the formula is approximate
    assert np.isnan(detectable_effect(0.0, 10))
    assert np.isnan(detectable_effect(0.1, 1))


def test_adjusted_p_is_that_of_statsmodels():
    p = np.random.default_rng(0).uniform(size=30) ** 2
    p[:5] = p[5]  # ties
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])
    assert benjamini_hochberg(np.array([])).size == 0


@pytest.mark.parametrize(
    ("first", "second"), [((5, 5), (0, 5)), ((3, 10), (7, 10)), ((0, 3), (0, 4)), ((56, 70), (48, 80))]
)
def test_newcombe_is_that_of_statsmodels(first, second):
    oracle = confint_proportions_2indep(*first, *second, compare="diff", method="newcomb")
    found = newcombe(first, second)
    assert (found.low, found.high) == pytest.approx(oracle)


def test_boschloo_has_the_groups_in_columns():
    oracle = stats.boschloo_exact([[8, 2], [2, 10]]).pvalue
    assert boschloo_p((8, 10), (2, 12)) == pytest.approx(oracle)
    assert boschloo_p((8, 10), (2, 12)) < stats.fisher_exact([[8, 2], [2, 10]]).pvalue


@pytest.mark.parametrize("arms", [((3, 3), (5, 5)), ((0, 3), (0, 5))])
def test_arms_that_agree_in_everything_have_p_one(arms):
    assert risk_difference(*arms).p == 1.0


@pytest.mark.parametrize("arm", [(0, 0), (4, 3), (-1, 3)])
def test_an_arm_without_members_is_refused(arm):
    with pytest.raises(HarnessError, match="at least one member"):
        risk_difference(arm, (1, 2))


def test_the_interquartile_mean_is_scipys_trimmed_mean():
    values = np.random.default_rng(0).normal(size=(4, 25))
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=None))


def test_the_bootstrap_resamples_within_strata_and_covers():
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        found = bootstrap_interval(generator.normal(0, 1, (2, 20)) + np.array([[0.0], [0.5]]), samples=400)
        hits += found.low <= 0.25 <= found.high
    assert hits / 200 > 0.88  # percentile intervals are a little short; standard error .02
    steady = bootstrap_interval(np.array([[0.0] * 20, [1.0] * 20]))
    assert steady.low == steady.high == 0.5  # strata are kept whole: nothing varies


def test_interquartile_means_need_twenty_seeds_and_one_hump():
    normal = np.random.default_rng(0).normal(size=24)
    assert np.isfinite(robust_summary(normal, mixed=False)[0])
    assert robust_summary(normal[:19], mixed=False)[1].method == "fewer than 20 seeds"
    assert robust_summary(normal, mixed=True)[1].method == "collapsed and other members mixed"
    two = np.repeat([0.0, 1.0], 12) + normal / 100
    assert robust_summary(two, mixed=False)[1].method.startswith("bimodal")


def test_sarles_coefficient_knows_its_landmarks():
    generator = np.random.default_rng(0)
    assert bimodality(generator.uniform(size=200_000)) == pytest.approx(5 / 9, abs=0.01)
    assert bimodality(generator.normal(size=200_000)) == pytest.approx(1 / 3, abs=0.01)
    assert np.isnan(bimodality(np.zeros(10)))
