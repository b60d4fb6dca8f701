"""The exact test against scipy's permutation test and against all sign flips written out."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from harness.effects.sign_flip import flip_method, sign_flip_p


def all_flips(d: np.ndarray) -> float:
    sums = np.array([np.dot(signs, d) for signs in product([1, -1], repeat=len(d))])
    return float((np.abs(sums) >= abs(d.sum()) - 1e-9).mean())


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 8, 11])
def test_p_is_that_of_all_sign_flips_written_out(seeds):
    generator = np.random.default_rng(seeds)
    for _ in range(20):
        d = generator.normal(0.3, 1, seeds)
        assert sign_flip_p(d) == pytest.approx(all_flips(d), abs=1e-12)


@pytest.mark.parametrize("seeds", [5, 8, 10])
def test_p_agrees_with_scipy_where_differences_tie(seeds):
    generator = np.random.default_rng(seeds)
    for _ in range(10):
        d = generator.integers(-3, 5, seeds)
        oracle = stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf)
        # the same differences as sixths, whose sums round: ties must stay ties
        assert sign_flip_p(d / 6) == pytest.approx(oracle.pvalue, abs=1e-12)


def test_five_seeds_that_agree_give_a_sixteenth_and_ten_give_a_five_hundred_and_twelfth():
    assert sign_flip_p(np.full(5, -0.2)) == 2 / 2**5
    assert sign_flip_p(np.full(10, 1.0)) == 2 / 2**10


def test_no_difference_in_any_seed_is_no_evidence():
    assert sign_flip_p(np.zeros(10)) == 1.0


def test_seeds_without_a_difference_are_left_out_and_none_at_all_is_no_test():
    assert sign_flip_p(np.array([1.0, np.nan, 1.0, 1.0])) == 0.25
    assert np.isnan(sign_flip_p(np.array([np.nan])))


def test_thirty_seeds_are_still_exact():
    d = np.ones(30)
    d[:5] = -1  # p is a binomial tail: at most 5 or at least 25 of 30 signs
    assert sign_flip_p(d) == pytest.approx(2 * stats.binom.cdf(5, 30, 0.5), rel=1e-12)
    assert flip_method(30) == "exact sign flips"


def test_beyond_forty_seeds_random_flips_never_give_zero():
    assert sign_flip_p(np.ones(60), flips=999) == 1 / 1000
    d = np.random.default_rng(0).normal(0.3, 1, 60)
    assert sign_flip_p(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)  # near normal at 60 seeds
    assert "random" in flip_method(60)


def test_p_ignores_the_order_of_the_seeds_and_the_sign_of_the_question():
    d = np.random.default_rng(3).normal(0.5, 1, 9)
    assert sign_flip_p(d) == sign_flip_p(-d) == sign_flip_p(d[::-1])
