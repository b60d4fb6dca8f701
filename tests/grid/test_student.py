"""Quantiles of Student's t equal their closed forms for 1, 2 and 4 degrees of freedom, and the normal's for many."""

import math
from statistics import NormalDist

import pytest

from harness.grid.student import student_quantile


@pytest.mark.parametrize("p", [0.5, 0.8, 0.975, 0.9999])
def test_quantiles_equal_their_closed_forms(p):
    spread = 4 * p * (1 - p)
    four = 2 * math.sqrt(math.cos(math.acos(math.sqrt(spread)) / 3) / math.sqrt(spread) - 1)
    assert student_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-9, abs=1e-12)
    assert student_quantile(p, 2) == pytest.approx((2 * p - 1) * math.sqrt(2 / spread), rel=1e-9, abs=1e-12)
    assert student_quantile(p, 4) == pytest.approx(four, rel=1e-7, abs=1e-7)
    # t exceeds the normal quantile z by (z^3 + z) / (4 freedom) to first order
    assert student_quantile(p, 10**7) == pytest.approx(NormalDist().inv_cdf(p), abs=1e-5)
