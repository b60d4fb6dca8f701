"""Escapes at the observed spread of a unit, and targets on a softmax, whose units add up to 1."""

import math

import pytest
import torch
from penalty_zoo import Plain, case_of, kl, linear_model
from torch.nn import functional as F

from harness.auditing import audit

pytestmark = pytest.mark.many


def softmax_model(units=4):
    return lambda: Plain(lambda values: values.softmax(1), units=units)


def normalized_model():
    return Plain(lambda values: F.normalize(values, dim=1), units=8)


def audited(penalty, model):
    return audit(case_of(penalty, model), during_training=False, seeds=1)


def unreachable(penalty, model):
    return [each for each in audited(penalty, model).findings if each.rule == "unreachable_target"]


def covariance(m, c, b):
    centered = c - c.mean(0)
    matrix = centered.T @ centered / len(c)
    return (matrix - torch.diag(matrix.diag())).pow(2).sum()


def log_determinant(m, c, b):
    centered = c - c.mean(0)
    return -torch.logdet(centered.T @ centered / len(c) + 1e-3 * torch.eye(c.shape[1]).to(c))


def barlow(m, c, b):
    scaled = (c - c.mean(0)) / (c.std(0) + 1e-5)
    return (scaled.T @ scaled / len(c) - torch.eye(c.shape[1]).to(c)).pow(2).sum()


@pytest.mark.parametrize("penalty", [covariance, log_determinant, barlow])
@pytest.mark.parametrize("model", [linear_model, lambda: Plain(torch.tanh), Plain], ids=["linear", "tanh", "relu"])
def test_a_penalty_on_covariances_is_no_escape(penalty, model):
    assert "escape" not in audited(penalty, model).rules


@pytest.mark.parametrize("limit", [1.5, 4.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_a_clamp_is_an_escape(limit, scale):
    def model():
        network = Plain()
        with torch.no_grad():
            network.enc2.weight.mul_(scale)
        return network

    assert "escape" in audited(lambda m, c, b: c.clamp(max=limit).pow(2).mean(), model).rules


def bernoulli_kl(rho, mean):
    """Closed form per unit, in nats."""
    return rho * math.log(rho / mean) + (1 - rho) * math.log((1 - rho) / (1 - mean))


@pytest.mark.parametrize(("target", "units"), [(0.05, 8), (0.02, 4), (0.6, 4)])
def test_a_target_that_a_softmax_cannot_share_out_is_unreachable(target, units):
    (finding,) = unreachable(lambda m, c, b: kl(target, c.mean(0)), softmax_model(units))
    assert finding.severity == "fault"
    assert f"add up to 1, so their average is {1 / units:g}" in finding.evidence
    assert "relu" not in finding.remedy.lower()
    # convex in the means, so least where they are equal
    assert finding.numbers["floor"] == pytest.approx(units * bernoulli_kl(target, 1 / units), rel=1e-4)


def test_the_floor_of_eight_units_at_a_twentieth():
    assert 8 * bernoulli_kl(0.05, 0.125) == pytest.approx(0.2585, abs=5e-5)


PROPER = {
    "target of one in eight": lambda m, c, b: kl(0.125, c.mean(0)),
    "squared distance to one in eight": lambda m, c, b: (c.mean(0) - 0.125).pow(2).sum(),
    "load balance": lambda m, c, b: (c.mean(0) * (c.mean(0) * 8).log()).sum(),
    "negative entropy of the mean": lambda m, c, b: (c.mean(0) * c.mean(0).log()).sum(),
}


@pytest.mark.parametrize("name", PROPER)
def test_a_target_that_a_softmax_reaches_is_no_fault(name):
    result = audited(PROPER[name], softmax_model(8))
    assert "unreachable_target" not in result.rules
    assert result.faults == (), str(result)


def test_mean_squares_of_normalized_rows_add_up_to_1():
    (finding,) = unreachable(lambda m, c, b: (c.pow(2).mean(0) - 0.05).pow(2).sum(), normalized_model)
    assert finding.numbers["floor"] == pytest.approx(8 * (1 / 8 - 0.05) ** 2, rel=1e-3)
    assert "normalization" in finding.remedy
    assert unreachable(lambda m, c, b: (c.pow(2).mean(0) - 1 / 8).pow(2).sum(), normalized_model) == []


def test_the_advice_names_the_range_of_the_activation():
    (finding,) = unreachable(lambda m, c, b: (c.mean(0) - 1.5).pow(2).sum(), lambda: Plain(torch.tanh))
    assert "choose a target between -1 and 1" in finding.remedy


def test_the_advice_for_a_sigmoid_of_a_relu_names_the_relu():
    (finding,) = unreachable(lambda m, c, b: kl(0.05, torch.sigmoid(c).mean(0)), Plain)
    assert "sigmoid into the model" in finding.remedy


def shares(values):
    positive = F.softplus(values)
    return positive / positive.sum(1, keepdim=True)


def sparsemax(values):
    """Euclidean projection on the simplex (Martins & Astudillo 2016, algorithm 1)."""
    ordered = values.sort(1, descending=True).values
    count = torch.arange(1, values.shape[1] + 1).to(values)
    support = (1 + count * ordered > ordered.cumsum(1)).sum(1, keepdim=True)
    threshold = (ordered.cumsum(1).gather(1, support - 1) - 1) / support
    return (values - threshold).clamp(min=0)


@pytest.mark.parametrize("activation", [shares, sparsemax])
def test_a_code_that_is_divided_by_its_sum_has_the_floor_of_a_softmax(activation):
    def model():
        return Plain(activation, units=8)

    (finding,) = unreachable(lambda m, c, b: kl(0.05, c.mean(0)), model)
    assert finding.numbers["floor"] == pytest.approx(8 * bernoulli_kl(0.05, 1 / 8), rel=1e-3)
    assert "add up to 1" in finding.evidence
    assert unreachable(lambda m, c, b: kl(1 / 8, c.mean(0)), model) == []


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("activation", [shares, sparsemax])
def test_an_entropy_of_shares_is_bounded(activation, sign):
    def entropy(m, c, b):
        return -0.01 * sign * (c * (c + 1e-8).log()).sum(1).mean()

    result = audited(entropy, lambda: Plain(activation, units=8))
    assert result.faults == (), str(result)


def test_a_log_barrier_on_the_use_of_units_is_a_risk_and_a_growing_variance_a_fault():
    def barrier(m, c, b):
        return -0.01 * (c.mean(0) + 1e-3).log().mean()

    (finding,) = [each for each in audited(barrier, Plain).findings if each.rule == "unbounded"]
    assert finding.severity == "risk"
    assert "logarithm" in finding.evidence
    (finding,) = [
        each for each in audited(lambda m, c, b: -c.var(0).mean(), linear_model).findings if each.rule == "unbounded"
    ]
    assert finding.severity == "fault"


@pytest.mark.parametrize("offset", [0.0, 1e-6])
def test_an_entropy_of_shares_has_no_set_point_for_the_mean_of_a_row(offset):
    """At 0 it is 0 log 0, not a number, and it falls towards 0; a KL divergence of the means of rows is a wrong axis."""

    def entropy(m, c, b):
        shares = c / (c.sum(1, keepdim=True) + 1e-8)
        return -(shares * (shares + offset).log()).sum(1).mean()

    assert "wrong_axis" not in audited(entropy, Plain).rules
    assert "wrong_axis" in audited(lambda m, c, b: kl(0.05, torch.sigmoid(c).mean(1)), linear_model).rules
