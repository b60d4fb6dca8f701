"""Terms that rise as a power of the number of rows, and terms that rise as its logarithm or scatter."""

import pytest
import torch
from penalty_zoo import Plain, case_of, linear_model
from torch.nn import functional as F

from harness.auditing import audit

pytestmark = pytest.mark.many


def slopes(penalty, model=linear_model):
    result = audit(case_of(penalty, model), during_training=False, seeds=1)
    return [each.numbers["slope"] for each in result.findings if each.rule == "depends_on_batch_size"]


def info_nce(m, c, b):
    unit = F.normalize(c + 0.05 * torch.randn_like(c), dim=1)
    return F.cross_entropy(unit @ F.normalize(c, dim=1).T / 0.5, torch.arange(len(c)))


def test_the_logarithm_of_the_number_of_negatives_is_no_dependence():
    assert slopes(info_nce) == []


def test_an_average_of_few_noisy_numbers_is_no_dependence():
    assert slopes(lambda m, c, b: 1e-3 * torch.randn(len(c)).to(c).mean() + 1e-6 * c.pow(2).mean()) == []


@pytest.mark.parametrize(
    ("power", "penalty"),
    [
        (1, lambda m, c, b: c.pow(2).sum()),
        (0.5, lambda m, c, b: c.norm()),
        (2, lambda m, c, b: torch.cdist(c, c).sum()),
        (-1, lambda m, c, b: c.pow(2).mean() / len(c)),
    ],
    ids=["sum", "norm", "pairs", "divided twice"],
)
def test_a_power_of_the_number_of_rows_is_said_with_its_exponent(power, penalty):
    (slope,) = slopes(penalty)
    assert slope == pytest.approx(power, abs=0.02)


def test_a_sum_beside_a_constant_is_said():
    # the exponent of the whole is below 1, and the term rises with every row
    assert slopes(lambda m, c, b: 0.1 + c.pow(2).sum())


def test_the_root_of_a_silent_unit_behind_a_relu_has_no_gradient_that_is_nan():
    def group(m, c, b):
        return 0.01 * c.pow(2).sum(0).sqrt().mean()

    code = torch.tensor([[-1.0, 2.0], [-2.0, 1.0]], requires_grad=True)
    F.relu(code).pow(2).sum(0).sqrt().mean().backward()
    assert code.grad.isfinite().all()  # torch sets the gradient of a ReLU at 0 to 0
    assert "outside_domain" not in audit(case_of(group, Plain), during_training=False, seeds=1).rules


def test_the_root_of_a_silent_unit_behind_a_gate_has_one():
    def gate(values):
        return values * (values > 0)

    def group(m, c, b):
        return 0.01 * gate(m.pre).pow(2).sum(0).sqrt().mean()

    code = torch.tensor([[-1.0, 2.0], [-2.0, 1.0]], requires_grad=True)
    gate(code).pow(2).sum(0).sqrt().mean().backward()
    assert code.grad.isnan().any()
    assert "outside_domain" in audit(case_of(group, lambda: Plain(gate)), during_training=False, seeds=1).rules
