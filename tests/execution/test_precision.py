"""Verdicts rest on the precision of the model; tokens are judged without an R2, and it is said why."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import Case
from harness.data import split_of
from harness.data.rows import Rows
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.remedies import apply_remedies

TRAIN = {"epochs": 2, "batch_size": 64}


def rows():
    inputs = torch.rand(400, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    return Rows(inputs, factors={"first": inputs[:, 0]})


class Planted(nn.Module):
    """Its first unit moves by a share of its size, its second is dead."""

    def __init__(self, dtype, share, bias=-1e3):
        super().__init__()
        self.code, self.back = nn.Linear(6, 4), nn.Linear(4, 6)
        self.to(dtype)
        with torch.no_grad():
            self.code.weight[0] = torch.tensor([share, 0, 0, 0, 0, 0])
            self.code.bias[:2] = torch.tensor([1.0, bias])

    def forward(self, values):
        return self.back(torch.relu(self.code(values)))


def losses(model, batch):
    made = model(batch)
    return {"reconstruction": F.mse_loss(made[0] if isinstance(made, tuple) else made, batch)}


def record(case, levels=None):
    (found,) = run_stack(StackSpec(case, None, (StackMember("k", "v", levels or {}, 0),)))
    assert (found.status, found.error) == ("ok", None)
    return found


@pytest.mark.parametrize(
    ("dtype", "share", "constant"),
    [
        (torch.float64, 1e-10, False),
        (torch.float32, 1e-10, True),
        (torch.float64, 1e-15, True),
        (torch.float32, 3e-3, False),
        (torch.bfloat16, 3e-3, True),
        (torch.float16, 3e-3, False),
        (torch.bfloat16, 3e-1, False),
    ],
)
def test_a_unit_is_constant_if_the_precision_of_its_model_cannot_tell(dtype, share, constant):
    still = partial(torch.optim.SGD, lr=0)  # what is planted stays
    found = record(Case(partial(Planted, dtype, share), rows, losses, "code", train=TRAIN, optimizer=still))
    first, second, *others = (unit["verdict"] for unit in found.diagnosis["units"])
    assert (first == "constant_on") == constant
    assert second == "never_fired"
    assert others == ["alive", "alive"]
    shared = found.diagnosis["units"][0]["references"]["first"]["mutual_information"]
    assert (shared == 0) if constant else (shared > 1)
    # on the way as at the end, though on fewer rows
    assert [row[:2] for row in found.unit_history["live"]] == [[not constant, False]] * 3
    assert found.live_units == 3 - constant


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("levels", [{"batchnorm": "on"}, {"inputs": "centred"}, {"penalty": "kl_sigmoid_bottleneck"}])
def test_remedies_act_in_the_precision_of_the_model(dtype, levels):
    found, single = (
        record(Case(partial(Planted, each, 0.5, 0.1), rows, losses, "code", train=TRAIN), levels)
        for each in (dtype, torch.float32)
    )
    assert {unit["verdict"] for unit in found.diagnosis["units"]} == {"alive"}
    # before a normalisation a bias has no gradient but rounding, which Adam makes steps of 1e-3; bfloat16: three digits
    close = 2e-3 if dtype == torch.float64 else 0.05
    assert found.losses["reconstruction"] == pytest.approx(single.losses["reconstruction"], rel=close)
    assert found.r2 == pytest.approx(single.r2, abs=close)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_inserted_into_a_model_goes_with_it_by_itself(dtype):
    case = Case(partial(Planted, dtype, 0.5, 0.1), rows, losses, "code")
    treated, batch = apply_remedies(case, {"batchnorm": "on"}), split_of(case).train.inputs
    torch.manual_seed(0)
    made = treated.model()(batch)
    torch.manual_seed(0)
    plain = case.model()
    code = F.batch_norm(plain.code(batch), None, None, training=True)
    torch.testing.assert_close(made, plain.back(torch.relu(code)))


def tokens():
    chance = torch.Generator().manual_seed(1)
    kind = torch.randint(0, 3, (400,), generator=chance)
    return Rows(torch.randint(0, 4, (400, 4), generator=chance) + 4 * kind[:, None], kind, {"kind": kind.double()})


class Words(nn.Module):
    """As many units as tokens a row: its code is shaped like the batch, and it gives whole numbers so shaped too."""

    def __init__(self):
        super().__init__()
        self.table, self.code, self.back = nn.Embedding(12, 3), nn.Linear(12, 4), nn.Linear(4, 48)
        with torch.no_grad():
            self.code.bias[1] = -1e3

    def forward(self, words):
        code = torch.relu(self.code(self.table(words).flatten(1)))
        logits = self.back(code).unflatten(1, (4, 12))
        return logits, code, logits.argmax(-1)


def entropy(model, batch):
    return {"reconstruction": F.cross_entropy(model(batch)[0].flatten(0, 1), batch.flatten())}


@pytest.mark.parametrize("named", [None, "out:0", "out:1", "out:2"])
def test_tokens_are_judged_without_an_r2_whatever_is_named(named):
    train = {"epochs": 20, "batch_size": 64, "learning_rate": 1e-2}
    found = record(Case(Words, tokens, entropy, "code", reconstruction=named, train=train))
    assert found.r2 is None
    assert found.diagnosis["output"] is None
    assert "r2" not in found.history
    units = found.diagnosis["units"]
    assert units[1]["verdict"] == "never_fired"
    assert all(unit["ablation"] is None for unit in units)
    # three kinds of words, of which three live units name one or two
    assert max(unit["references"]["labels"]["mutual_information"] for unit in units) > 0.3
    assert max(unit["references"]["kind"]["mutual_information"] for unit in units) > 0.3
    # twelve words at random have log 12 nats; to know the kind leaves log 4
    assert found.losses["reconstruction"] < 2.0


class Sums(Planted):
    """Gives the sum of its reconstruction beside it."""

    def forward(self, values):
        made = super().forward(values)
        return made, made.sum(1), made.sum()


@pytest.mark.parametrize("named", ["out:1", "out:2"])
def test_a_named_output_of_another_size_has_no_r2_and_all_else_goes_on(named):
    case = Case(partial(Sums, torch.float32, 0.5), rows, losses, "code", train=TRAIN)
    found, usual = record(replace(case, reconstruction=named)), record(case)
    assert usual.r2 is not None
    assert found.r2 is None
    assert found.losses == usual.losses
    assert [unit["verdict"] for unit in found.diagnosis["units"]] == [
        unit["verdict"] for unit in usual.diagnosis["units"]
    ]
