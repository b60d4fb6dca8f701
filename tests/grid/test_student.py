"""Quantiles of Student's t are scipy's."""

import pytest
from scipy.special import stdtrit

from harness.grid.student import LARGE, student_quantile


@pytest.mark.parametrize("p", [0.5, 0.8, 0.975, 0.9999])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 124, LARGE, LARGE + 1, 999, 999_999])
def test_a_quantile_is_scipys(p, freedom):
    assert student_quantile(p, freedom) == pytest.approx(stdtrit(freedom, p), rel=1e-9, abs=1e-12)
