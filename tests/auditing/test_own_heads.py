"""Terms that read the code through a head of their own, beside terms on layers that the reconstruction uses."""

import pytest
import torch
from penalty_zoo import data
from torch import nn
from torch.nn import functional as F

from harness import Case
from harness.auditing import audit

pytestmark = pytest.mark.many


class WithHead(nn.Module):
    """12-10-3-10-12 with a tanh code and a head of two layers on the code."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.enc, self.outer, self.out = (
            nn.Linear(12, 10),
            nn.Linear(10, 3),
            nn.Linear(3, 10),
            nn.Linear(10, 12),
        )
        self.head = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
        self.hidden_head = nn.Linear(10, 4)

    def forward(self, rows):
        self.hidden = F.elu(self.inner(rows))
        code = torch.tanh(self.enc(self.hidden))
        return code, self.out(F.elu(self.outer(code)))


def classes(rows):
    return (rows[:, 0] > 0).long() + 2 * (rows[:, 1] > 0).long()


def info_nce(model, code, rows, out):
    first, second = (F.normalize(model.head(code + 0.1 * torch.randn_like(code)), dim=1) for _ in range(2))
    return F.cross_entropy(first @ second.T / 0.5, torch.arange(len(rows)))


def critic(model, code, rows, out):
    return F.softplus(model.head(code)[:, 0]).mean() + F.softplus(-model.head(torch.randn_like(code))[:, 0]).mean()


HEADS = {
    "classifier": lambda m, code, rows, out: F.cross_entropy(m.head(code), classes(rows)),
    "probe on a detached code": lambda m, code, rows, out: F.cross_entropy(m.head(code.detach()), classes(rows)),
    "projection head": info_nce,
    "critic": critic,
    "entropy of a head": lambda m, code, rows, out: (
        -(m.head(code).softmax(1) * m.head(code).log_softmax(1)).sum(1).mean()
    ),
}
LAYERS = {
    "hidden layer of the decoder": (lambda m, code, rows, out: F.elu(m.outer(code)).abs().mean(), "outer"),
    "output of the decoder": (lambda m, code, rows, out: out.abs().mean(), "out"),
    "head of the hidden layer": (lambda m, code, rows, out: m.hidden_head(m.hidden).abs().mean(), "hidden_head"),
    "head and decoder": (lambda m, code, rows, out: m.head(code).abs().mean() + m.outer(code).abs().mean(), "outer"),
}


def audit_of(penalty, **options):
    def losses(model, rows):
        code, out = model(rows)
        return {"reconstruction": F.mse_loss(out, rows), "extra": 0.1 * penalty(model, code, rows, out)}

    return audit(Case(model=WithHead, data=data, losses=losses, bottleneck="enc"), seeds=1, **options)


@pytest.mark.parametrize("name", HEADS)
def test_a_term_on_a_head_of_its_own_is_not_on_the_wrong_layer(name):
    result = audit_of(HEADS[name], during_training=False)
    assert "wrong_layer" not in result.rules, str(result)
    assert result.faults == (), str(result)


@pytest.mark.parametrize("name", LAYERS)
def test_a_term_on_a_layer_that_the_reconstruction_uses_stays_on_the_wrong_layer(name):
    penalty, layer = LAYERS[name]
    (finding,) = [each for each in audit_of(penalty, during_training=False).findings if each.rule == "wrong_layer"]
    assert finding.evidence.startswith(f"extra reads the output of {layer}, not that of enc")
