"""Log-variances of a latent: observed beside the code, in stacks, alone and under remedies."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from harness import Case
from harness.data import split_of
from harness.errors import HarnessError
from harness.execution import member_record
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.models import build_model
from harness.remedies import apply_remedies
from harness.remedies.posterior import kl_per_unit
from harness.training import check_vmap_support, train

ROWS = torch.randn(100, 6, generator=torch.Generator().manual_seed(1))
TRAIN = {"epochs": 1, "batch_size": 16}


class VariationalAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.logvar, self.decoder = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, rows):
        mean, log_variance = self.mean(rows), self.logvar(rows)
        code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.decoder(code), mean, log_variance


def losses(model, batch):
    made, mean, log_variance = model(batch)
    kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1).mean()
    return {"reconstruction": (made - batch).pow(2).sum(1).mean(), "kl": kl}


CASE = Case(
    VariationalAutoencoder, lambda: ROWS, losses, "mean", posterior="logvar", train=TRAIN, numbers={"beta": 1.0}
)


@pytest.mark.parametrize("posterior", ["logvar", "out:2"])
@pytest.mark.parametrize("levels", [{}, {"penalty": "l1", "batchnorm": "on"}])
@pytest.mark.parametrize("stacked", [True, False])
def test_the_log_variances_are_those_of_the_model(posterior, levels, stacked):
    case = replace(CASE, posterior=posterior)
    split = split_of(case)
    treated = apply_remedies(case, levels, split)
    support = check_vmap_support(treated, split.train.inputs)
    assert support.rule is not None
    *_, last = train([treated] * 2, [0, 1], split, support if stacked else replace(support, rule=None))
    view = last.engine.observe(split.evaluation.inputs)
    for member in range(2):
        state = last.engine.state_of(member)
        prefix = "model." if levels else ""
        weight, bias = (state[f"{prefix}logvar.{name}"] for name in ("weight", "bias"))
        expected = split.evaluation.inputs @ weight.T + bias
        torch.testing.assert_close(view.posterior[member], expected)


def test_the_diagnosis_gets_them(monkeypatch):
    import harness.diagnosis as diagnosis

    options = []
    original = diagnosis.diagnose

    def recorded(code, *, posterior=None, **others):
        options.append((code, posterior))
        return original(code, **others)

    monkeypatch.setattr(diagnosis, "diagnose", recorded)
    members = (StackMember("a", "v", {}, 0), StackMember("b", "v", {}, 1))
    assert [record.status for record in run_stack(StackSpec(CASE, None, members))] == ["ok", "ok"]
    ((code, posterior),) = options
    assert posterior.shape == code.shape == (2, 20, 3)
    options.clear()
    assert run_stack(StackSpec(replace(CASE, posterior=None), None, members))[0].status == "ok"
    assert [posterior for _, posterior in options] == [None]
    assert member_record.judge_members is not None


@pytest.mark.parametrize(
    ("posterior", "message"),
    [
        ("logvars", "case: posterior: .*module.*logvars.*logvar"),
        ("out:7", r"case: posterior: 'out:7': the model has 3 outputs"),
        (
            "decoder",
            r"case: posterior: expected one log-variance per unit of the bottleneck, shape \[80, 3\], got \[80, 6\]",
        ),
        ("unused", "case: posterior: 'unused' did not run"),
    ],
)
def test_a_posterior_that_is_not_there_is_refused(posterior, message):
    def model():
        built = VariationalAutoencoder()
        built.unused = nn.Linear(1, 1)
        return built

    case = replace(CASE, model=model, posterior=posterior)
    split = split_of(case)
    first = next(train([case], [0], split, replace(check_vmap_support(CASE, split.train.inputs), rule=None)))
    with pytest.raises(HarnessError, match=message):
        first.engine.observe(split.train.inputs)


def test_the_kl_of_a_unit_is_that_of_torch():
    model = build_model(CASE, 0, ROWS)
    _, mean, log_variance = model(ROWS)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(kl_per_unit(mean, log_variance), expected)


def test_a_case_without_a_posterior_has_no_log_variances():
    case = replace(CASE, posterior=None)
    split = split_of(case)
    first = next(train([case], [0], split))
    assert first.engine.observe(split.train.inputs).posterior is None
