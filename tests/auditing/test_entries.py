"""Divergences taken per entry before averaging, beside divergences of a mean."""

import pytest
from penalty_zoo import case_of, kl, sigmoid_model

from harness.auditing import audit

pytestmark = pytest.mark.many


def collapses(penalty, model=sigmoid_model):
    result = audit(case_of(penalty, model), during_training=False, seeds=1)
    return [each for each in result.findings if each.rule == "collapse_optimum"]


ENTRIES = {
    "KL per entry": lambda m, c, b: kl(0.1, c) / len(b),
    "squares per entry": lambda m, c, b: (c - 0.3).pow(2).mean(),
}
MEANS = {
    "KL of units": lambda m, c, b: kl(0.1, c.mean(0)),
    "squares of units": lambda m, c, b: (c.mean(0) - 0.3).pow(2).mean(),
    "KL of rows": lambda m, c, b: kl(0.1, c.mean(1)) / len(b),
    "KL of everything": lambda m, c, b: kl(0.1, c.mean().reshape(1)),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_divergence_per_entry_is_least_at_a_constant_code(name):
    (finding,) = collapses(ENTRIES[name])
    assert finding.severity == "risk"
    assert "a constant code minimizes it" in finding.meaning
    assert finding.numbers["set_point"] == pytest.approx(0.1 if "KL" in name else 0.3, abs=0.01)


@pytest.mark.parametrize("name", MEANS)
def test_a_divergence_of_a_mean_is_not(name):
    assert collapses(MEANS[name]) == []
