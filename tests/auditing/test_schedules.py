"""Terms whose weight follows a schedule: no fault while a later step has a gradient, the same fault where none has."""

from types import SimpleNamespace

import pytest
import torch
from penalty_zoo import Plain, data
from torch.nn import functional as F

from harness import Case
from harness.auditing import audit

pytestmark = pytest.mark.many


class Counting(Plain):
    def __init__(self) -> None:
        super().__init__(torch.tanh)
        self.steps = 0
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))


def size(model, batch):
    code, out = model(batch)
    return F.mse_loss(out, batch), code.pow(2).mean()


def attribute(ramp):
    def losses(model, batch):
        error, penalty = size(model, batch)
        weight, model.steps = ramp(model.steps), model.steps + 1
        return {"reconstruction": error, "size": weight * penalty}

    return losses


def buffer(ramp):
    def losses(model, batch):
        error, penalty = size(model, batch)
        weight = ramp(int(model.seen))
        model.seen += 1
        return {"reconstruction": error, "size": weight * penalty}

    return losses


def closure(ramp):
    steps = 0

    def losses(model, batch):
        nonlocal steps
        error, penalty = size(model, batch)
        weight, steps = ramp(steps), steps + 1
        return {"reconstruction": error, "size": weight * penalty}

    return losses


class Scheduled:
    def __init__(self, ramp) -> None:
        self.ramp, self.state = ramp, SimpleNamespace(steps=0)

    def __call__(self, model, batch):
        error, penalty = size(model, batch)
        weight = self.ramp(self.state.steps)
        self.state.steps += 1
        return {"reconstruction": error, "size": weight * penalty}


def without_graph(ramp):
    def losses(model, batch):
        error, penalty = size(model, batch)
        weight, model.steps = ramp(model.steps), model.steps + 1
        return {"reconstruction": error, "size": weight * penalty if weight else 0.0}

    return losses


def step_keyword(ramp):
    def losses(model, batch, step):
        error, penalty = size(model, batch)
        return {"reconstruction": error, "size": ramp(step) * penalty}

    return losses


def progress_keyword(ramp):
    def losses(model, batch, progress):
        error, penalty = size(model, batch)
        return {"reconstruction": error, "size": ramp(1000 * progress) * penalty}

    return losses


KINDS = (attribute, buffer, closure, Scheduled, without_graph, step_keyword, progress_keyword)


def slow(step):
    return min(step / 200, 1.0)


def late(step):
    return 1.0 if step > 80 else 0.0


def never(step):
    return 0.0 * step


def audited(losses, **options):
    case = Case(model=Counting, data=data, losses=losses, bottleneck="enc2", train={"epochs": 50, "batch_size": 16})
    return audit(case, seeds=1, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ramp", [slow, late])
def test_a_warm_up_is_no_fault(kind, ramp):
    result = audited(kind(ramp))
    assert result.faults == (), str(result)
    assert not {"zero_gradient", "no_gradient"} & {each.rule for each in (*result.findings, *result.undecided)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_stays_zero_is_a_fault(kind):
    assert {"zero_gradient", "no_gradient"} & set(audited(kind(never)).rules)


@pytest.mark.parametrize("kind", KINDS)
def test_a_counter_is_recognized_without_training_probes(kind):
    result = audited(kind(slow), during_training=False)
    assert result.faults == (), str(result)


def test_the_rules_see_the_term_at_its_later_weight():
    def losses(model, batch):
        _, out = model(batch)
        weight, model.steps = slow(model.steps), model.steps + 1
        return {"reconstruction": F.mse_loss(out, batch), "hidden": weight * model.hidden.abs().mean()}

    assert {"wrong_layer", "misses_bottleneck"} <= set(audited(losses).rules)


def test_a_threshold_beside_a_counter_stays_a_fault():
    def losses(model, batch):
        code, out = model(batch)
        model.steps += 1
        return {"reconstruction": F.mse_loss(out, batch), "active": slow(model.steps) * torch.sign(code).mean()}

    assert "zero_gradient" in audited(losses).rules


@pytest.mark.parametrize("kind", [closure, Scheduled])
def test_the_counter_of_a_loss_is_given_back(kind):
    losses = kind(slow)
    audited(losses, during_training=False)
    counter = losses.state.steps if isinstance(losses, Scheduled) else losses.__closure__[1].cell_contents
    assert counter == 0


@pytest.mark.parametrize("name", ["step", "progress"])
def test_a_warm_up_beside_targets_is_no_fault(name):
    def labeled():
        rows = data()
        return rows, (rows[:, 0] > 0).long()

    def by_step(model, batch, target, step):
        error, penalty = size(model, batch)
        return {"reconstruction": error, "size": slow(step) * penalty * (1 + target.to(batch).mean())}

    def by_progress(model, batch, target, progress):
        return by_step(model, batch, target, 1000 * progress)

    losses = {"step": by_step, "progress": by_progress}[name]
    train = {"epochs": 50, "batch_size": 16}
    result = audit(Case(model=Counting, data=labeled, losses=losses, bottleneck="enc2", train=train), seeds=1)
    assert result.faults == (), str(result)
    assert not {"zero_gradient", "no_gradient"} & set(result.rules)
