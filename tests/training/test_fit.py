"""A case that trains by its own function: the same weights as that function gives, and the reason for what does not apply."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import Case
from harness.data import split_of
from harness.errors import HarnessError
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.loss_terms import loss_terms
from harness.models import build_model
from harness.remedies import RemedyNotApplicable, apply_remedies, why_not_applicable
from harness.remedies.layout import inspect_model
from harness.training import check_vmap_support, device_of, train

ROWS = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, rows):
        return self.decoder(F.relu(self.encoder(rows)))


def fit(model, seed):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    noise = 0.01 * torch.randn(ROWS.shape, generator=generator)

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(model(ROWS + noise), ROWS)
        loss.backward()
        return loss

    optimizer.step(closure)


def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch), "l1": F.relu(model.encoder(batch)).mean()}


CASE = Case(Autoencoder, lambda: ROWS, bottleneck="encoder", fit=fit, numbers={"beta": 0.1})


def members(*levels):
    return tuple(StackMember(str(index), "v", level, 3) for index, level in enumerate(levels))


@pytest.mark.parametrize("given", [None, losses])
def test_the_weights_are_those_of_the_function(given):
    case = replace(CASE, losses=given)
    first, last = train([case, case], [3, 4], split_of(case))
    for member, seed in enumerate((3, 4)):
        model = build_model(case, seed, ROWS)
        fit(model, seed)
        for name, value in last.engine.state_of(member).items():
            assert torch.equal(value, model.state_dict()[name])
    assert (first.last, last.last, last.progress) == (False, True, 1.0)
    assert set(last.losses) == (set() if given is None else {"reconstruction", "l1", "total"})
    assert last.diverged.tolist() == [-1, -1]


def test_a_run_judges_it_with_losses_and_without():
    for given, terms in ((None, set()), (losses, {"reconstruction", "l1", "total"})):
        steps = []
        spec = StackSpec(replace(CASE, losses=given), None, members({}, {"activation": "tanh"}, {"bias_init": "zero"}))
        records = run_stack(spec, steps.append)
        assert [record.status for record in records] == ["ok"] * 3, records[1].error
        assert set(records[0].losses) == terms
        assert records[0].r2 is not None
        assert sum(steps) == 3 * 30


def test_random_numbers_of_the_function_are_the_member_s():
    def noisy(model, seed):
        with torch.no_grad():
            model.encoder.weight.copy_(torch.rand(3, 6))

    case = replace(CASE, fit=noisy)
    *_, alone = train([case], [7], split_of(case))
    torch.rand(5)
    *_, second = train([case, case], [1, 7], split_of(case))
    assert torch.equal(alone.engine.state_of(0)["encoder.weight"], second.engine.state_of(1)["encoder.weight"])


def test_parameters_that_are_not_finite_are_a_divergence():
    def breaking(model, seed):
        with torch.no_grad():
            model.decoder.bias[0] = torch.nan if seed == 3 else 0.0

    case = replace(CASE, fit=breaking)
    *_, last = train([case, case], [3, 4], split_of(case))
    assert last.diverged.tolist() == [1, -1]
    (record,) = run_stack(StackSpec(case, None, members({})))
    assert (record.status, record.diverged_step) == ("diverged", 1)


def test_a_function_that_raises_fails_its_member_alone():
    def odd(model, seed):
        if seed == 3:
            raise ValueError("no")

    case = replace(CASE, fit=odd)
    both = (StackMember("a", "v", {}, 3), StackMember("b", "v", {}, 4))
    failed, done = run_stack(StackSpec(case, None, both))
    assert (failed.status, done.status) == ("failed", "ok")
    assert failed.error == "case: fit(model, seed) failed with ValueError: no"


def test_members_train_alone_on_the_processor_and_say_why():
    support = check_vmap_support(CASE, ROWS)
    assert (support.rule, support.reason) == (None, "its own fit function trains it")
    assert device_of(CASE, ROWS) == "cpu"
    assert inspect_model(CASE, ROWS[:4]).scope == "model"


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ({"penalty": "l1"}, "penalty: a penalty needs `losses` that the harness trains"),
        ({"free_bits": 0.5}, "free_bits: a penalty needs `losses`"),
        ({"beta": 0.5}, "beta: a penalty needs `losses`"),
        ({"learning_rate": 0.5}, "learning_rate: Case.fit trains by itself"),
        ({"warmup": 0.5}, "warmup: Case.fit trains by itself"),
        ({"epochs": 3}, "epochs: Case.fit trains by itself"),
        ({"inputs": "centred"}, "inputs: Case.fit trains by itself"),
    ],
)
def test_factors_of_the_harness_s_training_are_refused(levels, reason):
    for case in (CASE, replace(CASE, losses=losses)):
        with pytest.raises(RemedyNotApplicable, match=reason):
            apply_remedies(case, levels, split_of(case))
    plain = Case(Autoencoder, lambda: ROWS, losses, "encoder", numbers={"beta": 0.1})
    assert "free_bits" in levels or why_not_applicable(plain, levels, split_of(plain)) is None


def test_levels_that_change_nothing_are_taken():
    levels = {"penalty": "as_posted", "beta": 0.1, "warmup": 0.0, "free_bits": 0.0, "inputs": "as_given"}
    assert why_not_applicable(CASE, levels, split_of(CASE)) is None


def test_terms_of_a_case_without_a_loss_are_an_error():
    with pytest.raises(HarnessError, match=r"case: losses: expected a function, got None"):
        loss_terms(CASE, build_model(CASE, 0, ROWS), ROWS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fit": None, "losses": None}, r"Case\.losses: expected a function, got None"),
        ({"fit": 3}, r"Case\.fit: expected a function or None, got int 3"),
        ({"bottleneck": ""}, r"Case\.bottleneck: expected the dotted name"),
    ],
)
def test_a_case_needs_losses_or_a_function(change, message):
    fields = {"model": Autoencoder, "data": lambda: ROWS, "losses": losses, "bottleneck": "encoder", "fit": fit}
    with pytest.raises(HarnessError, match=message):
        Case(**{**fields, **change})
