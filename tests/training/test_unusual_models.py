"""Models that are built, called or tied in ways that a stack may not know train as a plain loop trains them."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import Case
from harness.data import split_of
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.remedies.layout import build_model
from harness.training import check_vmap_support, train
from harness.training.rng import generator
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine

DEAD = 1  # the unit that is planted dead


def data():
    chance = torch.Generator().manual_seed(3)
    return torch.randn(200, 3, generator=chance) @ torch.randn(3, 12, generator=chance)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(12, 4), nn.Linear(4, 12)
        with torch.no_grad():
            self.enc.bias[DEAD] = -1e3

    def code(self, values):
        return F.relu(self.enc(values))

    def forward(self, values):
        return self.dec(self.code(values))


class GivesItsCode(Plain):
    def forward(self, values):
        code = self.code(values)
        return code, self.dec(code)


class Recurrent(Plain):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.widen = kind(3, 8, batch_first=True), nn.Linear(8, 12)

    def code(self, values):
        _, last = self.rnn(values.view(-1, 4, 3))
        return super().code(self.widen((last[0] if isinstance(last, tuple) else last)[-1]))


class Several(nn.Module):
    """A layer that returns more than its code."""

    def __init__(self, named):
        super().__init__()
        self.linear, self.named = nn.Linear(12, 4), named
        with torch.no_grad():
            self.linear.bias[DEAD] = -1e3

    def forward(self, values):
        code = self.linear(values)
        return {"code": code, "mean": code.mean()} if self.named else (code, code.mean())


class ManyOutputs(Plain):
    def __init__(self, named):
        super().__init__()
        self.enc, self.named = Several(named), named

    def code(self, values):
        return F.relu(self.enc(values)["code" if self.named else 0])


class CallsByName(Plain):
    def code(self, values):
        return F.relu(self.enc(input=values))


class UnitNorm(Plain):
    def forward(self, values):
        with torch.no_grad():
            self.dec.weight.div_(self.dec.weight.norm(dim=0, keepdim=True))
        return super().forward(values)


class Clamped(Plain):
    def forward(self, values):
        self.dec.weight.data.clamp_(min=0)
        return super().forward(values)


class Tied(Plain):
    """One layer under two names."""

    def __init__(self, layer):
        super().__init__()
        self.first = self.second = layer()

    def forward(self, values):
        return self.dec(self.second(torch.tanh(self.first(self.code(values)))))


class Ungraphed(Plain):
    """An encoder that autograd does not record."""

    def __init__(self, context, between=nn.Identity):
        super().__init__()
        self.context, self.between = context, between()

    def forward(self, values):
        with self.context():
            code = self.code(values)
        return self.dec(self.between(code.clone()))


class Reads(nn.Module):
    """An LSTM behind the code."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    def forward(self, code):
        return self.rnn(code[:, None])[0][:, -1]


def losses(model, batch):
    made = model(batch)
    return {"reconstruction": F.mse_loss(made[1] if isinstance(made, tuple) else made, batch)}


def with_more_rows(model, batch):
    code = model.code(torch.cat([batch, batch.flip(0)]))
    return {"reconstruction": F.mse_loss(model(batch), batch), "l1": 1e-2 * code.abs().mean()}


def case(model, losses=losses, bottleneck="enc"):
    return Case(model, data, losses, bottleneck, train={"epochs": 2, "batch_size": 32})


STACKED = {
    "an output": case(GivesItsCode, bottleneck="out:0"),
    "more rows": case(Plain, with_more_rows),
    "a tuple": case(lambda: ManyOutputs(False)),
    "a mapping": case(lambda: ManyOutputs(True)),
    "called by name": case(CallsByName),
    "a tied layer": case(lambda: Tied(lambda: nn.Linear(4, 4))),
    "a tied BatchNorm": case(lambda: Tied(lambda: nn.BatchNorm1d(4))),
}
ALONE = {
    "LSTM": case(lambda: Recurrent(nn.LSTM)),
    "GRU": case(lambda: Recurrent(nn.GRU)),
    "unit norm": case(UnitNorm),
    "clamped": case(Clamped),
}
ALL = {**STACKED, **ALONE}
UNGRAPHED = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": partial(torch.set_grad_enabled, False),
}


def plain_loop(case, seed, inputs):
    """torch's own optimizer on the total of the terms, the rows in the member's documented order."""
    model = build_model(case, seed, inputs[:4])
    adam = partial(torch.optim.Adam, lr=case.training()["learning_rate"])
    optimiser = (case.optimizer or adam)(model.parameters())
    for epoch in (1, 2):
        for rows in torch.randperm(len(inputs), generator=generator(seed, f"batches {epoch}")).split(32):
            optimiser.zero_grad()
            sum(case.losses(model, inputs[rows]).values()).backward()
            optimiser.step()
    return model


@pytest.mark.parametrize("name", ALL)
def test_it_trains_as_a_plain_loop_does(name):
    split = split_of(ALL[name])
    *_, last = train([ALL[name]] * 2, [0, 1], split)
    wanted = dict(plain_loop(ALL[name], 1, split.train.inputs).named_parameters())
    found = last.engine.state_of(1)
    for parameter, value in wanted.items():
        # float32 over ten steps of 1e-3: Adam's first steps magnify what the order of additions leaves
        torch.testing.assert_close(found[parameter], value.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_it_is_studied_and_its_dead_unit_is_named(name):
    records = run_stack(StackSpec(ALL[name], None, tuple(StackMember(f"k{i}", "v", {}, i) for i in range(2))))
    assert [(record.status, record.error) for record in records] == [("ok", None)] * 2
    for record in records:
        assert record.diagnosis["units"][DEAD]["verdict"] == "never_fired"


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("plan", [True, False])
def test_what_a_stack_could_not_do_trains_alone_and_says_why(name, plan):
    found = check_vmap_support(ALONE[name], data(), plan)
    assert found.rule is None
    assert "cannot be batched" in found.reason or "changes parameters in place" in found.reason


@pytest.mark.parametrize("name", STACKED)
def test_a_stack_finds_the_gradients_at_the_bottleneck_that_one_model_has(name):
    rows, case = data(), STACKED[name]
    stack = StackedEngine([case] * 2, [0, 1], check_vmap_support(case, rows).rule, rows)
    batch = rows[:32].expand(2, 32, 12)
    found, wanted = stack.gradients(batch), SequentialEngine([case] * 2, [0, 1], rows).gradients(batch)
    torch.testing.assert_close(found, wanted)
    assert all(bool((value > 0).all()) for value in found.values())


@pytest.mark.parametrize("name", UNGRAPHED)
@pytest.mark.parametrize("optimizer", [None, "AdamW", "SGD"])
def test_parameters_without_a_gradient_keep_their_values_as_in_a_plain_loop(name, optimizer):
    options = {"lr": 1e-2, "weight_decay": 0.1}
    optimizers = {
        None: None,
        "AdamW": partial(torch.optim.AdamW, **options),
        "SGD": partial(torch.optim.SGD, momentum=0.9, **options),
    }
    cut = replace(case(lambda: Ungraphed(UNGRAPHED[name])), optimizer=optimizers[optimizer])
    split = split_of(cut)
    *_, last = train([cut] * 2, [0, 1], split)
    found, wanted = last.engine.state_of(1), plain_loop(cut, 1, split.train.inputs)
    for parameter, value in wanted.named_parameters():
        torch.testing.assert_close(found[parameter], value.detach(), rtol=1e-3, atol=1e-4)
    start = build_model(cut, 1, split.train.inputs[:4])
    assert torch.equal(found["enc.weight"], start.enc.weight)
    assert not torch.equal(found["dec.weight"], start.dec.weight)


@pytest.mark.parametrize("name", UNGRAPHED)
@pytest.mark.parametrize("between", [nn.Identity, nn.LSTM])  # an LSTM trains alone
def test_an_encoder_that_autograd_does_not_record_is_judged_by_its_code(name, between):
    build = partial(Ungraphed, UNGRAPHED[name], nn.Identity if between is nn.Identity else Reads)
    records = run_stack(StackSpec(case(build), None, tuple(StackMember(f"k{i}", "v", {}, i) for i in range(2))))
    assert [(record.status, record.error) for record in records] == [("ok", None)] * 2
    assert [record.diagnosis["units"][DEAD]["verdict"] for record in records] == ["never_fired"] * 2
    assert [record.live_units for record in records] == [3, 3]
