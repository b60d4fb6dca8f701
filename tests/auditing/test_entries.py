"""Divergences taken per entry before averaging, beside divergences of a mean."""

import pytest
import torch
import torch.nn.functional as F
from penalty_zoo import Plain, case_of, kl, sigmoid_model

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


def leaky_model():
    return Plain(F.leaky_relu)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mean_of_clamped_values_is_least_at_codes_that_vary_too(axis):
    """Far from the set point the clamp at 0 moves the mean; near it, values that vary have the same mean."""

    def of_means(model, code, batch):
        return (code.clamp(0, 1).mean(axis) - 0.05).pow(2).mean()

    def of_entries(model, code, batch):
        return (code.clamp(0, 1) - 0.05).pow(2).mean()

    varying = torch.tensor([[0.02, 0.08], [0.08, 0.02]])
    assert float(of_means(None, varying, varying)) < 1e-12 < float(of_entries(None, varying, varying))
    assert collapses(of_means, leaky_model) == []
    (finding,) = collapses(of_entries, leaky_model)
    assert finding.severity == "risk"
