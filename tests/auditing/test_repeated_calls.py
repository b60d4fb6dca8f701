"""A penalty on a code that the loss computes again is judged as one on the code of the model's own pass."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness import Case
from harness.auditing import audit

pytestmark = pytest.mark.many


def data():
    draw = torch.Generator().manual_seed(84)
    return torch.rand(400, 5, generator=draw) @ torch.rand(5, 24, generator=draw) - 1.2


class Coder(nn.Module):
    def __init__(self, activation, normalized: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.enc, self.dec = nn.Linear(24, 16), nn.Linear(16, 6), nn.Linear(6, 24)
        self.norm = nn.BatchNorm1d(6, affine=False) if normalized else nn.Identity()
        self.activation, self.dropout = activation, nn.Dropout(dropout)

    def logits(self, rows):
        return self.norm(self.enc(self.dropout(torch.tanh(self.hidden(rows)))))

    def encode(self, rows):
        return self.activation(self.logits(rows))

    def forward(self, rows):
        return self.dec(self.encode(rows))


def kl(mean, rho=0.05):
    return (rho * torch.log(rho / mean) + (1 - rho) * torch.log((1 - rho) / (1 - mean))).sum()


WEIGHT = 0.03


def model_first(penalty):
    return lambda model, rows: {
        "reconstruction": F.mse_loss(model(rows), rows),
        "p": WEIGHT * penalty(model.encode(rows)),
    }


def penalty_first(penalty):
    return lambda model, rows: {
        "p": WEIGHT * penalty(model.encode(rows)),
        "reconstruction": F.mse_loss(model(rows), rows),
    }


def two_calls(penalty):
    def losses(model, rows):
        out, code, again = model(rows), model.encode(rows), model.encode(rows)
        return {"reconstruction": F.mse_loss(out, rows), "p": WEIGHT * (penalty(code) + penalty(again)) / 2}

    return losses


def one_pass(penalty):
    def losses(model, rows):
        code = model.encode(rows)
        return {"reconstruction": F.mse_loss(model.dec(code), rows), "p": WEIGHT * penalty(code)}

    return losses


PENALTIES = {
    "KL of the sigmoid of a ReLU": (
        F.relu,
        False,
        lambda code: kl(torch.sigmoid(code).mean(0)),
        {"unreachable_target"},
    ),
    "KL behind BatchNorm": (torch.sigmoid, True, lambda code: kl(code.mean(0)), {"unreachable_target"}),
    "target out of range": (
        torch.sigmoid,
        False,
        lambda code: (code.mean(0) - 2).square().sum(),
        {"unreachable_target"},
    ),
    "KL of a clamped ReLU": (F.relu, False, lambda code: kl(code.clamp(1e-4, 1 - 1e-4).mean(0)), set()),
    "KL of a sigmoid code": (torch.sigmoid, False, lambda code: kl(code.mean(0)), set()),
    "L1": (F.relu, False, lambda code: code.sum(1).mean(), set()),
    "entropy": (torch.sigmoid, False, lambda code: -(code * code.clamp(min=1e-6).log()).mean(), set()),
    "variance": (F.relu, False, lambda code: code.var(0).sum(), set()),
}


def judged(activation, normalized, losses, dropout=0.0):
    case = Case(lambda: Coder(activation, normalized, dropout), data, losses, "enc")
    return audit(case, during_training=False, seeds=1)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_answer_does_not_depend_on_the_call_that_the_penalty_reads(name):
    activation, normalized, penalty, faults = PENALTIES[name]
    results = [
        judged(activation, normalized, form(penalty)) for form in (one_pass, model_first, penalty_first, two_calls)
    ]
    for result in results:
        assert {finding.rule for finding in result.faults} == faults, str(result)
        assert result.undecided == ()
        assert result.rules == results[0].rules


def test_a_floor_is_measured_where_the_loss_computes_the_code_again():
    activation, normalized, penalty, _ = PENALTIES["KL of the sigmoid of a ReLU"]
    result = judged(activation, normalized, model_first(penalty))
    (finding,) = [finding for finding in result.findings if finding.rule == "collapse_optimum"]
    floor = float(kl(torch.full((6,), 0.5, dtype=torch.float64)))  # of the dead layer: every sigmoid is 0.5
    assert all(value == pytest.approx(WEIGHT * floor, rel=1e-3) for value in finding.numbers.values())


def test_calls_that_dropout_tells_apart_are_judged_too():
    activation, normalized, penalty, faults = PENALTIES["KL of the sigmoid of a ReLU"]
    result = judged(activation, normalized, model_first(penalty), dropout=0.3)
    assert {finding.rule for finding in result.faults} == faults
    assert result.undecided == ()


def test_two_views_of_the_rows_are_no_repeated_call():
    def losses(model, rows):
        code, other = model.encode(rows), model.encode(rows + 0.1)
        return {
            "reconstruction": F.mse_loss(model.dec(code), rows),
            "apart": (1 - (code - other).square().sum(1)).relu().mean(),
        }

    result = judged(torch.tanh, False, losses)
    assert result.undecided == (), str(result)


def test_a_term_that_rises_along_its_gradient_is_not_said_to_have_none():
    def losses(model, rows):
        code = model.encode(rows)
        # the value is -|code|, its gradient that of +|code|: a target that follows the code
        return {
            "reconstruction": F.mse_loss(model.dec(code), rows),
            "p": code.abs().mean() - 2 * code.detach().abs().mean(),
        }

    result = judged(torch.tanh, False, losses)
    reasons = [str(reason) for reason in result.undecided]
    assert len(reasons) == 1
    assert "no step along the gradient lowers the term" in reasons[0]
