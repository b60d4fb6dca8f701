"""The audit of models in other precisions, and of those that are given tokens: the same findings, no broken probes."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.auditing import audit
from harness.case import Case

pytestmark = pytest.mark.many


def rows():
    return torch.rand(200, 6, generator=torch.Generator().manual_seed(1))


def tokens():
    return torch.randint(0, 12, (200, 4), generator=torch.Generator().manual_seed(1))


class Plain(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.enc, self.code, self.back = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 6)
        self.to(dtype)

    def forward(self, values):
        return self.back(torch.relu(self.code(torch.relu(self.enc(values)))))


class Own(Plain):
    """It insists on its own precision, so that no other can be borrowed."""

    def forward(self, values):
        return super().forward(values.bfloat16())


class Words(nn.Module):
    def __init__(self, beside=False):
        super().__init__()
        self.table, self.code, self.back = nn.Embedding(12, 3), nn.Linear(12, 4), nn.Linear(4, 48)
        self.beside = nn.Linear(12, 48) if beside else None

    def forward(self, words):
        read = self.table(words).flatten(1)
        made = self.back(torch.relu(self.code(read)))
        return (made if self.beside is None else made + self.beside(read)).unflatten(1, (4, 12))


PENALTIES = {
    "l1": lambda model, batch: torch.relu(model.code(torch.relu(model.enc(batch)))).abs().mean(),
    "inert": lambda model, batch: (torch.relu(model.code(torch.relu(model.enc(batch)))) > 0).to(batch.dtype).mean(),
    "misplaced": lambda model, batch: torch.relu(model.enc(batch)).abs().mean(),
}
WORDED = {
    "l1": lambda model, batch: torch.relu(model.code(model.table(batch).flatten(1))).abs().mean(),
    "inert": lambda model, batch: (model.code(model.table(batch).flatten(1)) > 0).float().mean(),
    "misplaced": lambda model, batch: model.table(batch).abs().mean(),
    "decay": lambda model, batch: model.code.weight.square().sum(),
}


def losses(model, batch, penalty):
    return {"reconstruction": F.mse_loss(model(batch), batch), "penalty": PENALTIES[penalty](model, batch)}


def worded(model, batch, penalty):
    return {
        "reconstruction": F.cross_entropy(model(batch).flatten(0, 1), batch.flatten()),
        "penalty": WORDED[penalty](model, batch),
    }


def rules(found):
    return {(each.term, each.rule) for each in found.findings}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_precision_has_the_findings_of_its_float32_twin(penalty, dtype):
    found, single = (
        audit(Case(partial(Plain, each), rows, partial(losses, penalty=penalty), "code"), False, 1)
        for each in (dtype, torch.float32)
    )
    assert rules(found) == rules(single)
    assert [each.rule for each in found.undecided] == [each.rule for each in single.undecided]


def test_a_model_that_runs_in_its_own_precision_alone_is_probed_in_it():
    found = audit(Case(partial(Own, torch.bfloat16), rows, partial(own, penalty="inert"), "code"), False, 1)
    assert "probes ran in bfloat16" in next(each.evidence for each in found.undecided if each.rule == "float64")
    assert ("penalty", "no_gradient") in rules(found)


def own(model, batch, penalty):
    return losses(model, batch.bfloat16(), penalty)


@pytest.mark.parametrize(
    ("penalty", "planted"),
    [("l1", None), ("inert", "no_gradient"), ("misplaced", "misses_bottleneck"), ("decay", None)],
)
def test_the_penalty_of_a_token_model_is_audited(penalty, planted):
    found = audit(Case(Words, tokens, partial(worded, penalty=penalty), "code", reconstruction="out:0"), False, 2)
    faults = {"no_gradient", "misses_bottleneck", "not_the_code_in_use", "wrong_axis", "bypass"}
    assert {rule for _, rule in rules(found)} & faults == ({planted} if planted else set())
    assert not [each for each in found.undecided if "failed" in each.evidence]


@pytest.mark.parametrize("beside", [False, True])
def test_a_way_around_the_bottleneck_of_a_token_model_is_found(beside):
    case = Case(partial(Words, beside), tokens, partial(worded, penalty="l1"), "code", reconstruction="out:0")
    assert (("reconstruction", "bypass") in rules(audit(case, False, 1))) == beside


def test_a_cast_to_float_in_the_model_keeps_the_probes_in_float64():
    class OneHot(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.dec = nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x):
            soft = self.enc(x).softmax(1)
            hard = F.one_hot(soft.argmax(1), 8).float()
            return hard + soft - soft.detach(), self.dec(hard + soft - soft.detach())

    def losses(net, batch):
        return {"reconstruction": F.mse_loss(net(batch)[1], batch)}

    result = audit(Case(model=OneHot, data=rows, losses=losses, bottleneck="enc"), during_training=False, seeds=1)
    assert result.undecided == (), str(result)
    assert torch.ones(2, dtype=torch.int64).float().dtype == torch.float32  # outside of a probe
