"""How far the audit trains is counted in work, so that a busy machine decides nothing."""

import time

import pytest
import torch
from torch import nn

import harness
from harness.auditing import gradient_ratios


def rows():
    return torch.randn(200, 10, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(10, 3), nn.Linear(3, 10)

    def forward(self, batch):
        code = torch.sigmoid(self.enc(batch))
        return code, self.dec(code)


def losses(model, batch):
    code, made = model(batch)
    return {"reconstruction": ((made - batch) ** 2).mean(), "weak": 1e-9 * code.mean()}


def findings(case):
    found = harness.audit(case)
    return [(each.rule, each.severity, each.evidence) for each in found.findings], found.undecided


@pytest.fixture
def case():
    return harness.Case(model=Small, data=rows, losses=losses, bottleneck="enc", train={"batch_size": 32})


@pytest.mark.long
def test_a_clock_that_leaps_changes_no_finding(case, monkeypatch):
    calm = findings(case)
    hours = iter(range(10**9))
    monkeypatch.setattr(time, "monotonic", lambda: 3600.0 * next(hours))
    monkeypatch.setattr(time, "perf_counter", lambda: 3600.0 * next(hours))
    assert findings(case) == calm
    assert any(rule == "negligible" and severity == "fault" for rule, severity, _ in calm[0])


def test_a_model_too_large_to_train_is_stopped_and_says_so(case, monkeypatch):
    # a step of this network: 2 products of 32 x 10 x 3, forward and twice backward, but for the input's own gradient
    a_step = 2 * 32 * 10 * 3 * 5 + gradient_ratios.PASSES * 73
    monkeypatch.setattr(gradient_ratios, "MOST_WORK", 20.5 * a_step)
    assert any("training stopped after 20 steps" in str(each) for each in harness.audit(case).undecided)
