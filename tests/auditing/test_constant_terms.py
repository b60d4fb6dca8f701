"""Terms that are constant but for rounding, beside terms with a true small gradient."""

import pytest
import torch
from penalty_zoo import Plain, data, linear_model, sigmoid_model
from torch.nn import functional as F

from harness import Case
from harness.auditing import audit

pytestmark = pytest.mark.many


def audited(penalty, model=linear_model, **options):
    def losses(net, batch):
        code, out = net(batch)
        return {"reconstruction": F.mse_loss(out, batch), "extra": penalty(code)}

    return audit(Case(model=model, data=data, losses=losses, bottleneck="enc2"), seeds=1, **options)


CONSTANT = {
    "mean of a softmax over its own axis": lambda code: (code.softmax(1).mean(1) ** 2).mean() * 36,
    "sum of a softmax": lambda code: (3 * code).softmax(1).sum(1).pow(3).mean(),
    "deviation of a softmax's sum from 1": lambda code: ((3 * code).softmax(1).sum(1) - 1).pow(2).mean(),
    "sum of squares of sine and cosine": lambda code: (code.sin().pow(2) + code.cos().pow(2)).mean(),
    "squared error of a norm that is 1": lambda code: (F.normalize(code.tanh(), dim=1).norm(dim=1) - 1).pow(2).mean(),
    "norm of normalized rows": lambda code: 5 * F.normalize(code, dim=1).pow(2).sum(1).mean(),
}
SMALL = {
    "a weight of 1e-9": lambda code: 1e-9 * code.pow(2).mean(),
    "a weight of 1e-6": lambda code: 1e-6 * code.mean(0).pow(2).sum(),
    "a large constant added": lambda code: 1e3 + 0.1 * code.pow(2).mean(),
    "a softmax over the batch": lambda code: code.softmax(0).pow(2).sum(0).mean(),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_constant_but_for_rounding_has_zero_gradient(name):
    result = audited(CONSTANT[name])
    (fault,) = result.faults
    assert (fault.rule, fault.term) == ("zero_gradient", "extra")
    assert "is constant" in fault.evidence
    assert not {"negligible", "dominates", "misses_bottleneck"} & set(result.rules), str(result)
    # the truth in plain torch: other codes give the same value
    codes = [torch.randn(64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    values = [CONSTANT[name](code).item() for code in codes]
    assert values == pytest.approx([values[0]] * 3, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_a_small_but_true_gradient_is_not_zero(name):
    assert "zero_gradient" not in audited(SMALL[name], during_training=False).rules
    # the truth in plain torch: the gradient is the same in both precisions
    norms = []
    for dtype in (torch.float32, torch.float64):
        code = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
        SMALL[name](code).backward()
        norms.append(float(code.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert norms[0] > 0


def test_the_evidence_names_both_norms_of_a_rounding_gradient():
    (fault,) = audited(CONSTANT["sum of a softmax"], during_training=False).faults
    assert "but for rounding" in fault.evidence
    assert "in float64" in fault.evidence
    assert "in float32" in fault.evidence
    assert "softmax" in fault.remedy


def test_a_penalty_on_weights_that_starts_at_its_minimum_has_a_gradient():
    class Orthogonal(Plain):
        def __init__(self):
            super().__init__()
            torch.nn.init.orthogonal_(self.dec1.weight)

    def losses(net, batch):
        _, out = net(batch)
        weight = net.dec1.weight
        identity = torch.eye(weight.shape[1]).to(weight)
        return {
            "reconstruction": F.mse_loss(out, batch),
            "orthogonality": (weight.T @ weight - identity).pow(2).sum(),
        }

    case = Case(model=Orthogonal, data=data, losses=losses, bottleneck="enc2")
    assert "zero_gradient" not in audit(case, during_training=False, seeds=1).rules


HINGES = {
    "energy above 1000": (lambda code: F.relu(code.pow(2).sum(1) - 1e3).mean(), linear_model),
    "mean above 0.98": (lambda code: F.relu(code.mean(0) - 0.98).sum(), sigmoid_model),
}


@pytest.mark.parametrize("name", HINGES)
def test_a_hinge_beyond_the_random_outputs_is_at_its_floor(name):
    result = audited(*HINGES[name])
    assert result.faults == (), str(result)
    (finding,) = [each for each in result.findings if each.rule == "negligible"]
    assert (finding.severity, finding.numbers["floor"]) == ("risk", 0)


@pytest.mark.parametrize("name", HINGES)
def test_an_inactive_hinge_is_no_fault_without_training(name):
    assert audited(*HINGES[name], during_training=False).faults == ()


def test_a_constant_main_term_is_told_how_to_name_the_objective():
    def losses(net, batch):
        _, out = net(batch)
        return {"reconstruction": 0 * out.sum(), "error": F.mse_loss(out, batch)}

    result = audit(Case(model=Plain, data=data, losses=losses, bottleneck="enc2"), during_training=False, seeds=1)
    finding = next(each for each in result.findings if each.rule == "zero_gradient")
    assert "objective=" in finding.remedy


class OneLogit(torch.nn.Module):
    def __init__(self, squash) -> None:
        super().__init__()
        self.enc, self.head, self.squash = torch.nn.Linear(12, 4), torch.nn.Linear(4, 1), squash

    def forward(self, batch):
        return self.squash(self.head(torch.tanh(self.enc(batch))))


def label_loss(net, batch):
    return {"bce": F.binary_cross_entropy(net(batch), (batch[:, :1] > 0.5).to(batch.dtype))}


def test_a_declared_main_term_that_is_constant_is_not_told_to_be_declared():
    model = OneLogit(lambda logit: logit.softmax(1))
    assert model(data()[:8]).tolist() == [[1.0]] * 8
    cases = [
        Case(lambda squash=squash: OneLogit(squash), data, label_loss, "enc", objective="bce")
        for squash in (model.squash, torch.sigmoid)
    ]
    sick, healthy = (audit(case, seeds=1, during_training=False) for case in cases)
    (finding,) = sick.faults
    assert finding.rule == "zero_gradient"
    assert "axes" in finding.remedy
    assert "objective" not in finding.remedy
    assert healthy.faults == ()


def test_a_main_term_without_a_name_of_its_own_may_be_the_wrong_one():
    def losses(net, batch):
        out = net(batch)
        return {"reconstruction": F.mse_loss(out, out.detach()), **label_loss(net, batch)}

    result = audit(Case(lambda: OneLogit(torch.sigmoid), data, losses, "enc"), seeds=1, during_training=False)
    (finding,) = [finding for finding in result.faults if finding.rule == "zero_gradient"]
    assert "its own copy" in finding.remedy
    assert "objective=" in finding.remedy
