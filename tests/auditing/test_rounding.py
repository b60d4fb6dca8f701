"""Where a term diverges by rounding alone, in the precision in which the model trains."""

import pytest
import torch
import torch.nn as nn
from penalty_zoo import Plain, case_of, kl, linear_model, normed_model, sigmoid_model

from harness.auditing import audit
from harness.penalties import bernoulli_kl_of_logits

pytestmark = pytest.mark.many


def naive(values):
    return kl(0.05, torch.sigmoid(values).mean(0))


def exact(values):
    return bernoulli_kl_of_logits(0.05, values)


class Lifted(Plain):
    """Units that are far on for every row, from the first step."""

    def __init__(self, level, activation=torch.relu):
        super().__init__(activation)
        nn.init.constant_(self.enc2.bias, level)


def domain_findings(case):
    found = audit(case, during_training=False, seeds=1)
    return [each for each in found.findings if each.rule == "outside_domain"]


NAIVE = {
    "of a ReLU code": lambda: case_of(lambda m, c, b: naive(c)),
    "of the pre-activation": lambda: case_of(lambda m, c, b: naive(m.pre)),
    "of a linear code": lambda: case_of(lambda m, c, b: naive(c), linear_model),
    "of another layer": lambda: case_of(lambda m, c, b: naive(m.dec1(c))),
}
EXACT = {
    "of a ReLU code": lambda: case_of(lambda m, c, b: exact(c)),
    "of the pre-activation": lambda: case_of(lambda m, c, b: exact(m.pre)),
    "of a linear code": lambda: case_of(lambda m, c, b: exact(c), linear_model),
    "of another layer": lambda: case_of(lambda m, c, b: exact(m.dec1(c))),
    "of a code far on": lambda: case_of(lambda m, c, b: exact(c), lambda: Lifted(25.0)),
    "of a sigmoid code far on": lambda: case_of(lambda m, c, b: exact(m.pre), lambda: Lifted(25.0, torch.sigmoid)),
}


def edge_of(form, dtype=torch.float32):
    """The least constant, in steps of a hundredth, at which 64 rows of it make the term infinite in plain torch."""
    levels = torch.arange(0, 30, 0.01, dtype=torch.float64).tolist()
    return next(level for level in levels if not form(torch.full((64, 4), level, dtype=dtype)).isfinite())


@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_kl_is_a_risk_with_the_value_from_which_on_it_is_infinite(name):
    (found,) = domain_findings(NAIVE[name]())
    assert found.severity == "risk"
    assert "in float32, penalty is not finite once" in found.evidence
    assert "75.21 in float64" in found.evidence or name == "of another layer"
    assert found.numbers["from"] == pytest.approx(edge_of(naive), abs=0.05)
    assert 16.5 < found.numbers["from"] < 17.5
    assert "bernoulli_kl_of_logits" in found.remedy


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_form_is_finite_everywhere(name):
    assert domain_findings(EXACT[name]()) == []


@pytest.mark.parametrize(
    "case",
    [
        case_of(lambda m, c, b: kl(0.05, c.mean(0)), sigmoid_model),
        case_of(lambda m, c, b: kl(0.05, c.mean(0).clamp(1e-3, 1 - 1e-3)), sigmoid_model),
        case_of(lambda m, c, b: naive(c), normed_model),
        case_of(lambda m, c, b: c.abs().mean()),
    ],
    ids=["a bounded code", "a clamped mean", "behind a normalisation", "L1"],
)
def test_a_term_that_cannot_come_there_is_not_accused(case):
    assert domain_findings(case) == []


@pytest.mark.parametrize("activation", [torch.relu, torch.sigmoid], ids=["relu", "sigmoid"])
def test_a_term_that_is_infinite_from_the_first_step_is_a_fault(activation):
    case = case_of(lambda m, c, b: naive(m.pre), lambda: Lifted(25.0, activation))
    (found,) = domain_findings(case)
    assert found.severity == "fault"
    assert "in float32, penalty is inf on the data at initialization; in float64 it is finite" in found.evidence


def test_a_sigmoid_code_within_ten_times_of_its_end_is_a_risk():
    (found,) = domain_findings(case_of(lambda m, c, b: kl(0.05, c.mean(0)), lambda: Lifted(4.0, torch.sigmoid)))
    assert found.severity == "risk"
    assert "for pre-activations 10 times the observed ones" in found.evidence


def test_a_model_in_float64_is_asked_in_float64():
    case = case_of(lambda m, c, b: naive(c), lambda: Plain().double())
    assert domain_findings(case) == []


def test_a_narrow_float_ends_sooner():
    case = case_of(lambda m, c, b: naive(c), lambda: Plain().bfloat16())
    (found,) = domain_findings(case)
    assert "in bfloat16" in found.evidence
    assert found.numbers["from"] == pytest.approx(edge_of(naive, torch.bfloat16), abs=0.1)
