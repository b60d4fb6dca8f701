"""A loss with its targets fixed, for evaluations outside training: audits, trials, layouts."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import harness
from harness import Case
from harness.data import split_of
from harness.errors import HarnessError
from harness.loss_terms import bind_losses
from harness.models import build_model
from harness.remedies import apply_remedies, judged_target

ROWS = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))
VALUES = torch.randn(80, 2, generator=torch.Generator().manual_seed(2))


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Linear(6, 3), nn.Linear(3, 2)

    def forward(self, rows):
        return self.head(F.relu(self.encoder(rows)))


def losses(model, batch, target, rho):
    code = torch.sigmoid(model.encoder(batch))
    return {"reconstruction": F.mse_loss(model(batch), target), "sparsity": (code.mean(0) - rho).pow(2).sum()}


def detached(model, batch, target, rho):
    terms = losses(model, batch, target, rho)
    return {"reconstruction": terms["reconstruction"], "sparsity": terms["sparsity"].detach()}


CASE = Case(Regressor, lambda: (ROWS, VALUES), losses, "encoder", numbers={"rho": 0.05, "beta": 0.1})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_in_any_order_find_their_targets(dtype):
    bound, model = bind_losses(CASE, VALUES, rows=ROWS), build_model(CASE, 0, ROWS).to(dtype)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(3))[:20]
    found = bound.losses(model, ROWS[order].to(dtype), rho=0.05)["reconstruction"]
    expected = F.mse_loss(model(ROWS[order].to(dtype)), VALUES[order].to(dtype))
    assert torch.equal(found, expected)


def test_unknown_rows_get_the_first_targets():
    bound, model = bind_losses(CASE, VALUES, rows=ROWS), build_model(CASE, 0, ROWS)
    found = bound.losses(model, ROWS[30:40] + 1, rho=0.05)["reconstruction"]
    assert torch.equal(found, F.mse_loss(model(ROWS[30:40] + 1), VALUES[:10]))


def test_a_loss_that_names_none_of_them_stays_the_same_case():
    def plain(model, batch):
        return {"reconstruction": model(batch).mean()}

    case = replace(CASE, losses=plain)
    assert bind_losses(case, VALUES) is case


def test_a_bound_case_keeps_its_numbers_weight_and_target():
    bound = bind_losses(CASE, VALUES)
    assert bound.loss_keywords() == ("rho",)
    assert bound.weighs_itself is CASE.weighs_itself is False
    split = split_of(CASE)
    for levels, target in (({}, 0.05), ({"penalty": "l1"}, None)):
        treated = apply_remedies(CASE, levels, split)
        assert judged_target(treated) == judged_target(bind_losses(treated, VALUES)) == target


def test_an_audit_passes_targets():
    healthy = harness.audit(CASE, during_training=False)
    faulty = harness.audit(replace(CASE, losses=detached), during_training=False)
    rules = [{finding.rule for finding in audit.findings if finding.term == "sparsity"} for audit in (healthy, faulty)]
    assert "no_gradient" in rules[1] or "detached" in rules[1], rules
    assert not rules[0] & {"no_gradient", "detached"}
    assert healthy.terms == ("reconstruction", "sparsity")
    assert not [finding for finding in healthy.undecided if "target" in finding.evidence]


def test_an_audit_of_a_case_without_a_loss_says_what_it_needs():
    case = Case(Regressor, lambda: ROWS, bottleneck="encoder", fit=lambda model, seed: None)
    with pytest.raises(
        HarnessError, match=r"expected a case with losses=\.\.\., got one that trains by fit=\.\.\. alone"
    ):
        harness.audit(case)
