"""Schedulers and clipping of a case: equal to a plain torch loop in stacks and alone; the reason where they cannot stack."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from harness import Case
from harness.data import split_of
from harness.errors import HarnessError
from harness.models import build_model
from harness.remedies import apply_remedies
from harness.training import check_vmap_support, train
from harness.training.batches import batch_orders
from harness.training.schedules import learning_rates, why_no_schedule

ROWS = torch.randn(80, 6, generator=torch.Generator().manual_seed(1)).double()
TRAIN = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01}
STEPS = 16


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 3).double(), nn.Linear(3, 6).double()

    def forward(self, rows):
        return self.decoder(F.relu(self.encoder(rows)))


def losses(model, batch):
    return {"reconstruction": 10 * F.mse_loss(model(batch), batch), "l1": F.relu(model.encoder(batch)).mean()}


CASE = Case(Autoencoder, lambda: ROWS, losses, "encoder", train=TRAIN, numbers={"beta": 0.1})


def linear(optimizer, steps):
    return lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)


def cosine(optimizer, steps):
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)


def warm_restart(optimizer, steps):
    first = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=steps // 4)
    return lr_scheduler.SequentialLR(optimizer, [first, lr_scheduler.ExponentialLR(optimizer, 0.8)], [steps // 4])


def one_cycle(optimizer, steps):
    return lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps, cycle_momentum=False)


def cycling_momentum(optimizer, steps):
    return lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)


def plateau(optimizer, steps):
    return lr_scheduler.ReduceLROnPlateau(optimizer)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


def plain_loop(case, split, seed, rate, make=torch.optim.Adam):
    """Final weights and the gradient norms of a plain torch loop with the case's scheduler and clipping."""
    inputs, model = split.train.inputs, build_model(case, seed, split.train.inputs)
    optimizer, norms = make(model.parameters()), []
    for group in optimizer.param_groups:
        group["lr"] = rate
    scheduler = None if case.scheduler is None else case.scheduler(optimizer, STEPS)
    for epoch in range(1, TRAIN["epochs"] + 1):
        for rows in batch_orders([seed], epoch, len(inputs))[0].split(16):
            optimizer.zero_grad()
            terms = losses(model, inputs[rows])
            (terms["reconstruction"] + 0.1 * terms["l1"]).backward()
            if case.clip is not None:
                norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), case.clip)))
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    return {name: value.detach() for name, value in model.named_parameters()}, norms


def assert_equal_to_plain(case, stacked, rates=(0.01, 0.03), make=torch.optim.Adam):
    split = split_of(case)
    cases = [apply_remedies(case, {"learning_rate": rate}, split) for rate in rates]
    support = check_vmap_support(cases[0], split.train.inputs)
    assert support.rule is not None, support.reason
    *_, last = train(cases, [5, 6], split, support if stacked else replace(support, rule=None))
    for member, rate in enumerate(rates):
        expected, norms = plain_loop(case, split, 5 + member, rate, make)
        for name, value in last.engine.state_of(member).items():
            assert torch.allclose(value, expected[name], rtol=1e-8, atol=1e-10), name
    return norms


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("scheduler", [linear, cosine, warm_restart, one_cycle])
def test_a_scheduler_sets_the_rate_of_each_step(scheduler, stacked):
    assert_equal_to_plain(replace(CASE, scheduler=scheduler), stacked)


@pytest.mark.parametrize("stacked", [True, False])
def test_a_scheduler_of_sgd(stacked):
    assert_equal_to_plain(replace(CASE, scheduler=cosine, optimizer=momentum), stacked, make=momentum)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("clip", [0.5, 2.0, 1e6])
def test_clipping_is_that_of_torch_for_each_member(clip, stacked):
    norms = assert_equal_to_plain(
        replace(CASE, clip=clip, optimizer=momentum), stacked, rates=(0.001, 0.003), make=momentum
    )
    assert (max(norms) > clip) == (clip < 1e6)


def test_a_scheduler_and_clipping_together():
    assert_equal_to_plain(replace(CASE, scheduler=linear, clip=0.5), True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_a_clipped_member_does_not_know_who_shares_its_stack(size, dtype):
    model = lambda: Autoencoder().to(dtype)  # noqa: E731
    case = replace(CASE, model=model, clip=0.5, scheduler=cosine)
    split = split_of(case)
    support = check_vmap_support(case, split.train.inputs)
    *_, few = train([case] * 2, [0, 1], split, support)
    *_, many = train([case] * size, range(size), split, support)
    for name, value in few.engine.state_of(1).items():
        assert torch.equal(value, many.engine.state_of(1)[name])


def test_the_rates_are_those_of_the_closed_form():
    rates = learning_rates(replace(CASE, scheduler=linear), 0.5, 4)
    assert rates == pytest.approx([0.5, 0.375, 0.25, 0.125])
    assert learning_rates(CASE, 0.5, 4) is None


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (cycling_momentum, "changes more than the learning rate"),
        (plateau, r"cannot be evaluated before training \(scheduler.step\(\) failed with TypeError"),
    ],
)
def test_a_scheduler_that_cannot_be_evaluated_beforehand_trains_alone_and_says_so(scheduler, reason):
    case = replace(CASE, scheduler=scheduler)
    support = check_vmap_support(case, split_of(case).train.inputs)
    assert support.rule is None
    assert re.search(reason, support.reason)


def test_a_scheduler_that_draws_random_numbers_trains_alone():
    def noisy(optimizer, steps):
        return lr_scheduler.LambdaLR(optimizer, lambda step: float(torch.rand(())))

    assert "draws random numbers" in why_no_schedule(replace(CASE, scheduler=noisy), 0.1, 4)
    assert why_no_schedule(replace(CASE, scheduler=linear), 0.1, 4) == ""


def test_cycled_momentum_alone_equals_a_plain_loop():
    case = replace(CASE, scheduler=cycling_momentum)
    split = split_of(case)
    *_, last = train([case], [5], split)
    expected, _ = plain_loop(case, split, 5, 0.01)
    for name, value in last.engine.state_of(0).items():
        assert torch.allclose(value, expected[name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (plateau, r"case: scheduler.step\(\) failed with TypeError"),
        (lambda optimizer, steps: 3, r"case: scheduler\(optimizer, steps\): expected a .*LRScheduler, got a int"),
        (lambda optimizer: None, r"case: scheduler\(optimizer, steps\) failed with TypeError"),
    ],
)
def test_a_scheduler_that_fails_says_where(scheduler, message):
    case = replace(CASE, scheduler=scheduler)
    with pytest.raises(HarnessError, match=message):
        list(train([case], [0], split_of(case)))


@pytest.mark.parametrize("clip", [0, -1.0, float("nan"), float("inf"), "much", True])
def test_a_limit_that_is_no_positive_number_is_refused(clip):
    with pytest.raises(HarnessError, match=r"Case.clip: expected a number above 0 or None, got"):
        replace(CASE, clip=clip)


def test_a_scheduler_that_is_no_function_is_refused():
    with pytest.raises(HarnessError, match=r"Case\.scheduler: expected a function or None, got int 3"):
        replace(CASE, scheduler=3)
