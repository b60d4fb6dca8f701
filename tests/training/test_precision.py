"""Members train in their model's own precision: as a plain loop does, in float64, in 16 bits, and on tokens."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import Case
from harness.data import split_of
from harness.remedies.gradients import gradient_norms
from harness.training import VmapSupport, check_vmap_support, train
from harness.training.rng import generator
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine

pytestmark = pytest.mark.many

TRAIN = {"epochs": 2, "batch_size": 32, "learning_rate": 1e-3}
BY_ITSELF = VmapSupport(None, frozenset(), "")


class Plain(nn.Module):
    def __init__(self, dtype, normalised=False):
        super().__init__()
        self.enc, self.dec = nn.Linear(12, 4), nn.Linear(4, 12)
        self.norm = nn.BatchNorm1d(4) if normalised else nn.Identity()
        self.to(dtype)

    def forward(self, values):
        return self.dec(torch.relu(self.norm(self.enc(values))))


class Words(nn.Module):
    """Six tokens of twelve, and logits for each."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.table, self.enc, self.dec = nn.Embedding(12, 3), nn.Linear(18, 4), nn.Linear(4, 72)
        self.to(dtype)

    def forward(self, tokens):
        return self.dec(torch.relu(self.enc(self.table(tokens).flatten(1)))).unflatten(1, (6, 12))


def losses(model, batch, beta):
    code = torch.relu(model.enc(batch))
    return {"reconstruction": F.mse_loss(model(batch), batch), "l1": beta * code.abs().mean()}


def worded(model, batch, beta):
    weights = sum(each.square().sum() for each in model.dec.parameters())
    return {"reconstruction": F.cross_entropy(model(batch).flatten(0, 1), batch.flatten()), "decay": beta * weights}


def rows():
    chance = torch.Generator().manual_seed(3)
    return torch.randn(200, 3, generator=chance, dtype=torch.float64) @ torch.randn(3, 12, generator=chance).double()


def tokens():
    return torch.randint(0, 12, (200, 6), generator=torch.Generator().manual_seed(3))


def case(model, data=rows, losses=losses):
    return Case(model, data, losses, "enc", numbers={"beta": 1e-3}, train=TRAIN)


DOUBLE = case(partial(Plain, torch.float64))
NORMALISED = case(partial(Plain, torch.float64, True))
SIXTEEN = case(partial(Plain, torch.bfloat16))
HALF = case(partial(Plain, torch.float16))
TOKENS = case(Words, tokens, worded)
DOUBLE_TOKENS = case(partial(Words, torch.float64), tokens, worded)
ALL = {
    "float64": DOUBLE,
    "float64, BatchNorm": NORMALISED,
    "bfloat16": SIXTEEN,
    "tokens": TOKENS,
    "tokens in float64": DOUBLE_TOKENS,
}


def plain_loop(case, seed, inputs):
    """The user's own loop: nothing of the harness but the documented order of rows."""
    torch.manual_seed(seed)
    model, totals = case.model(), []
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in (1, 2):
        for chosen in torch.randperm(len(inputs), generator=generator(seed, f"batches {epoch}")).split(32):
            optimiser.zero_grad()
            total = sum(case.losses(model, inputs[chosen], 1e-3).values())
            total.backward()
            optimiser.step()
            totals.append(float(total.detach()) * len(chosen) / len(inputs))
    return model, sum(totals[len(totals) // 2 :])


def last(snapshots):
    for snapshot in snapshots:
        final = snapshot
    return final


@pytest.mark.parametrize("name", ALL)
def test_a_member_trains_as_a_plain_loop_in_the_precision_of_its_model(name):
    case, dtype = ALL[name], next(ALL[name].model().parameters()).dtype
    split = split_of(case)
    inputs = split.train.inputs
    assert inputs.dtype in (dtype, torch.int64)
    final = last(train([case] * 2, [0, 1], split))
    assert final.engine.precision == dtype
    # the order of additions is left; 16 bits train alone, where nothing is
    close = {torch.float64: {"rtol": 1e-8, "atol": 1e-11}, torch.float32: {"rtol": 1e-3, "atol": 1e-4}}
    for member in (0, 1):
        model, loss = plain_loop(case, member, inputs)
        found = final.engine.state_of(member)
        for key, wanted in model.state_dict().items():
            torch.testing.assert_close(found[key], wanted, **close.get(dtype, {"rtol": 0, "atol": 0}))
        # a plain loop in 16 bits rounds each total to 3 digits, of which ten are averaged
        assert float(final.losses["total"][member]) == pytest.approx(
            loss, rel={torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 1e-2)
        )


@pytest.mark.parametrize("name", ["float64", "float64, BatchNorm", "tokens", "tokens in float64"])
@pytest.mark.parametrize("members", [1, 3, 8])
def test_a_stack_has_the_bits_of_any_other_in_float64_and_on_tokens(name, members):
    case, split = ALL[name], split_of(ALL[name])
    stacking = check_vmap_support(case, split.train.inputs)
    assert stacking.rule is not None
    size, real = stacking.filled(members), list(range(members))
    many_seeds = [*range(20, 30), *real, *range(30, 46 - members)]
    few = last(train([case] * size, [*real, *real[-1:] * (size - members)], split)).engine
    many = last(train([case] * len(many_seeds), many_seeds, split)).engine
    held = split.evaluation.inputs[:33]
    for member in real:
        for key, value in few.state_of(member).items():
            assert torch.equal(value, many.state_of(10 + member)[key]), key
        assert torch.equal(few.observe(held).code[member], many.observe(held).code[10 + member])


def test_sixteen_bits_train_alone_and_it_is_said():
    for each in (SIXTEEN, HALF):
        found = check_vmap_support(each, split_of(each).train.inputs)
        assert found.rule is None
        assert "16-bit" in found.reason


def test_what_float16_cannot_train_is_lost_as_in_a_plain_loop_and_raises_nothing():
    """Adam's epsilon, 1e-8, is 0 in float16: a gradient of 0 is divided by 0."""
    split = split_of(HALF)
    final = last(train([HALF] * 2, [0, 1], split))
    model, loss = plain_loop(HALF, 0, split.train.inputs)
    assert loss != loss
    assert final.diverged[0] > 0
    found = final.engine.state_of(0)
    for key, wanted in model.state_dict().items():
        torch.testing.assert_close(found[key], wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["float64", "float64, BatchNorm", "tokens", "tokens in float64"])
def test_a_stack_sees_what_one_model_shows(name):
    case, split = ALL[name], split_of(ALL[name])
    stack = StackedEngine([case] * 8, range(8), check_vmap_support(case, split.train.inputs).rule, split.train.inputs)
    alone = SequentialEngine([case] * 8, range(8), split.train.inputs)
    batch = split.train.inputs[:32].expand(8, *split.train.inputs[:32].shape)
    for ask in (lambda engine: engine.gradients(batch), lambda engine: engine.losses(batch)):
        torch.testing.assert_close(ask(stack), ask(alone))
    held = split.evaluation.inputs
    seen, wanted = stack.observe(held), alone.observe(held)
    assert seen.code.dtype == stack.precision
    torch.testing.assert_close(seen.code, wanted.code)
    assert (seen.reconstruction is None) == (wanted.reconstruction is None) == (not held.is_floating_point())


def test_rows_of_another_precision_are_trained_on_in_it_where_that_is_asked_for():
    split = split_of(case(partial(Plain, torch.float32)))
    final = last(train([DOUBLE] * 2, [0, 1], split, BY_ITSELF, dtype=torch.float64))
    assert final.engine.state_of(0)["enc.weight"].dtype == torch.float64


def test_gradients_too_small_to_be_squared_in_16_bits_are_measured_in_wider_numbers():
    """A gradient of 1e-4 squared is 0 in float16."""

    def small(model, batch):
        return {"reconstruction": model.enc(batch).mean() * 1e-2}

    half, batch = replace(HALF, losses=small, numbers={}), torch.ones(32, 12).half()
    found = gradient_norms(half, Plain(torch.float16), batch, {})["reconstruction"]
    # each of 128 entries has 1e-2 / 128; half of a unit in the last place of float16 there is 3e-8
    assert found == pytest.approx(1e-2 / 128**0.5, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_terms_are_no_coarser_than_float32(dtype):
    each = case(partial(Plain, dtype))
    split = split_of(each)
    found = SequentialEngine([each], [0], split.train.inputs).losses(split.train.inputs[None, :32])
    assert {value.dtype for value in found.values()} == {torch.promote_types(dtype, torch.float32)}
