"""Units that a threshold or a selection behind the activation sets to 0 on every row are dead at birth."""

import pytest
import torch
from healthy_models import case
from torch import nn
from torch.nn import functional as F

from harness.auditing import audit


def rows(count=640, factors=24):
    draw = torch.Generator().manual_seed(3)
    return torch.tanh(torch.randn(count, factors, generator=draw) @ torch.randn(factors, 24, generator=draw) / 5)


class Sparse(nn.Module):
    """A linear encoder, a selection of its units, and a linear decoder."""

    def __init__(self, select, units=40):
        super().__init__()
        self.enc, self.out, self.select = nn.Linear(24, units), nn.Linear(units, 24), select

    def forward(self, x):
        code = self.select(self.enc(x))
        return code, self.out(code)


def jump(threshold):
    return lambda entered: F.relu(entered) * (F.relu(entered) > threshold)


def jump_of(activation, threshold):
    return lambda entered: activation(entered) * (entered > threshold)


def threshold(level):
    return lambda entered: F.threshold(F.relu(entered), level, 0.0)


def top(k):
    def select(entered):
        values, units = F.relu(entered).topk(k, dim=1)
        return torch.zeros_like(entered).scatter(1, units, values)

    return select


def top_before_relu(k):
    def select(entered):
        values, units = entered.topk(k, dim=1)
        return torch.zeros_like(entered).scatter(1, units, F.relu(values))

    return select


def squared_error(model, x):
    return {"reconstruction": F.mse_loss(model(x)[1], x)}


def silent_units(model, x):
    return (model(x)[0] == 0).all(0)


def finding_of(select, data=rows, units=40):
    result = audit(case(lambda: Sparse(select, units), squared_error, data), during_training=False, seeds=3)
    return next((finding for finding in result.findings if finding.rule == "dead_at_birth"), None)


SICK = {
    "jump": (jump(9.0), 1.0),
    "jump of a gelu": (jump_of(F.gelu, 9.0), 1.0),
    "jump of a softplus": (jump_of(F.softplus, 9.0), 1.0),
    "threshold": (threshold(9.0), 1.0),
    "threshold of each unit": (jump(torch.where(torch.arange(40) < 16, 9.0, 0.02)), 0.4),
}
HEALTHY = {
    "jump": jump(0.02),
    "jump of a gelu": jump_of(F.gelu, 0.02),
    "jump of a softplus": jump_of(F.softplus, 0.02),
    "threshold": threshold(0.02),
    "top-k": top(8),
    "top-k before the ReLU": top_before_relu(8),
}


@pytest.mark.parametrize("name", SICK)
def test_units_that_never_pass_a_threshold_are_dead_at_birth(name):
    select, share = SICK[name]
    model = Sparse(select)
    silent = silent_units(model, rows())
    assert float(silent.double().mean()) == share
    squared_error(model, rows())["reconstruction"].backward()
    assert not model.enc.weight.grad[silent].any()  # and so they stay
    finding = finding_of(select)
    assert finding.numbers["share"] == finding.numbers["selected"] == pytest.approx(share, rel=1e-12)  # a mean of 8
    assert finding.remedy.startswith("a lower threshold")
    assert "set to 0 on every row behind the activation" in finding.evidence


@pytest.mark.parametrize("name", HEALTHY)
def test_a_selection_of_units_that_all_fire_on_some_rows_is_silent(name):
    assert not silent_units(Sparse(HEALTHY[name]), rows()).any()
    assert finding_of(HEALTHY[name]) is None


def few_factors(count=1600):
    return rows(count, factors=2)


@pytest.mark.parametrize("make", [top, top_before_relu])
def test_units_that_a_top_k_never_selects_are_dead_at_birth_and_stay_so(make):
    model, x = Sparse(make(4), units=64), few_factors()
    silent = silent_units(model, x)
    assert 0.1 < float(silent.float().mean()) < 1
    optimizer, draw = torch.optim.Adam(model.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
    for _ in range(300):
        loss = squared_error(model, x[torch.randint(len(x), (64,), generator=draw)])["reconstruction"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(silent_units(model, x)[silent].float().mean()) > 0.9
    assert finding_of(make(4), few_factors, units=64).numbers["selected"] > 0.1


def test_few_distinct_rows_do_not_tell_dead_units_from_rare_ones():
    few = case(lambda: Sparse(top(4), 64), squared_error, lambda: few_factors(200).repeat(8, 1))
    result = audit(few, during_training=False, seeds=3)
    assert "dead_at_birth" not in result.rules
    (reason,) = [each.evidence for each in result.undecided if each.rule == "dead_at_birth"]
    assert "200 distinct rows; 368" in reason


def test_a_code_that_is_zero_as_a_whole_needs_no_more_rows():
    assert finding_of(jump(9.0), lambda: rows(100)).numbers["share"] == 1


class ZeroElu(Sparse):
    """An elu has a gradient at 0: this code starts at 0 and moves."""

    def __init__(self):
        super().__init__(F.elu)
        nn.init.zeros_(self.enc.weight)
        nn.init.zeros_(self.enc.bias)


def test_a_layer_that_starts_at_zero_before_an_elu_is_silent():
    model = ZeroElu()
    squared_error(model, rows())["reconstruction"].backward()
    assert model.enc.weight.grad.any(1).all()
    assert "dead_at_birth" not in audit(case(ZeroElu, squared_error, rows), during_training=False, seeds=3).rules


def test_a_code_that_is_dead_as_a_whole_is_not_told_to_wait_for_the_layers_before_it():
    whole, part = (
        finding_of(lambda entered, low=low: F.relu(entered - torch.linspace(low, 50, 40))) for low in (50, 0)
    )
    model = Sparse(lambda entered: F.relu(entered - 50))
    squared_error(model, rows())["reconstruction"].backward()
    assert not model.enc.weight.grad.any()
    assert whole.numbers["share"] == 1.0
    assert 0.0 < part.numbers["share"] < 1.0
    assert "it stays dead unless" in whole.meaning
    assert "it can recover only if the layers before it change" in part.meaning
