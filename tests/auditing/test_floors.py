"""Terms at their floor at every probe: clamped, hinged, and their healthy twins."""

import pytest
import torch
from penalty_zoo import Plain, data, linear_model
from torch.nn import functional as F

from harness import Case
from harness.auditing import audit

pytestmark = pytest.mark.many


def case_of(penalty, model=linear_model, bottleneck="enc2"):
    def losses(net, batch):
        code, out = net(batch)
        return {"reconstruction": F.mse_loss(out, batch), "energy": penalty(code)}

    return Case(model=model, data=data, losses=losses, bottleneck=bottleneck)


def normed_linear_model():
    return Plain(lambda values: values, norm=True)


def weight_findings(penalty, model=linear_model, bottleneck="enc2"):
    result = audit(case_of(penalty, model, bottleneck), seeds=1)
    assert not [each for each in result.undecided if each.term == "energy" and each.rule != "depends_on_batch_size"], (
        str(result)
    )
    return [each for each in result.findings if each.rule in ("negligible", "zero_gradient")]


def test_a_term_at_a_positive_floor_is_a_fault_with_ratio_0():
    (finding,) = weight_findings(lambda code: code.pow(2).sum(1).clamp(min=60).mean())
    assert (finding.rule, finding.severity, finding.term) == ("negligible", "fault", "energy")
    assert "at its floor of 60" in finding.evidence
    assert set(finding.numbers) == {"ratio_at_0", "ratio_at_50", "ratio_at_300", "floor"}
    assert [finding.numbers[f"ratio_at_{step}"] for step in (0, 50, 300)] == [0, 0, 0]


def test_a_hinge_whose_condition_holds_is_a_risk():
    (finding,) = weight_findings(lambda code: F.relu(code.pow(2).sum(1) - 60).mean())
    assert (finding.rule, finding.severity, finding.numbers["floor"]) == ("negligible", "risk", 0)


@pytest.mark.parametrize(
    "penalty",
    [
        lambda code: 0.1 * code.pow(2).sum(1).clamp(min=1e-3).mean(),
        lambda code: 0.1 * F.relu(1.5 - (code.var(0) + 1e-4).sqrt()).mean(),
        lambda code: 0.1 * code.pow(2).sum(1).mean(),
    ],
    ids=["a low floor", "an active hinge", "no floor"],
)
def test_a_term_above_its_floor_is_not_accused(penalty):
    assert weight_findings(penalty) == []


def test_a_term_on_parameters_is_not_at_a_floor():
    def losses(net, batch):
        _, out = net(batch)
        return {"reconstruction": F.mse_loss(out, batch), "decay": 1e-4 * net.dec1.weight.pow(2).sum()}

    result = audit(Case(model=Plain, data=data, losses=losses, bottleneck="enc2"), seeds=1)
    assert "negligible" not in result.rules
    assert "it is on parameters" in next(each.evidence for each in result.undecided if each.term == "decay")


def test_a_loss_that_differentiates_itself_is_trained_by_the_probes():
    def losses(net, batch):
        rows = batch.clone().requires_grad_()
        code, out = net(rows)
        slope = torch.autograd.grad(code.sum(), rows, create_graph=True)[0]
        return {"reconstruction": F.mse_loss(out, batch), "contractive": 1e-2 * slope.pow(2).sum(1).mean()}

    result = audit(Case(model=Plain, data=data, losses=losses, bottleneck="enc2"), seeds=1)
    assert not [each for each in result.undecided if "failed" in each.evidence], str(result)


@pytest.mark.parametrize("beta", [0.05, 0.2])
def test_a_mean_square_that_a_normalization_fixes_is_negligible(beta):
    found = weight_findings(lambda code: beta * code.pow(2).mean(), normed_linear_model, "bn")
    assert [each.rule for each in found] == ["negligible"]
    assert "normalization" in found[0].meaning
    rows = torch.randn(64, 4, requires_grad=True)
    norm = torch.nn.BatchNorm1d(4, affine=False)
    (exact,) = torch.autograd.grad(norm(rows).pow(2).mean(), rows)
    (other,) = torch.autograd.grad(norm(rows).abs().mean(), rows)
    assert exact.norm() < 1e-3 * other.norm()  # what is left is the constant under the root


def test_absolute_values_behind_a_normalization_are_not_negligible():
    assert weight_findings(lambda code: 0.2 * code.abs().mean(), normed_linear_model, "bn") == []
