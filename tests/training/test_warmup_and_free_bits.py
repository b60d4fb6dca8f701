"""Warm-up of the penalties' weight and free bits: equal to a plain torch loop, in mixed stacks and alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from harness import Case
from harness.data import split_of
from harness.errors import HarnessError
from harness.execution.program_batches import CaseCache, group_programs
from harness.execution.spec import StackMember, StackSpec
from harness.factors import check_level, training_numbers
from harness.models import build_model
from harness.penalties import bernoulli_kl_of_logits
from harness.remedies import RemedyNotApplicable, apply_remedies, why_not_applicable
from harness.remedies.free_bits import kl_term
from harness.results.fingerprint import member_key
from harness.training import check_vmap_support, train
from harness.training.batches import batch_orders

ROWS = torch.randn(80, 6, generator=torch.Generator().manual_seed(1)).double()
TRAIN = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01}
STEPS = 16


class VariationalAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.logvar, self.decoder = (nn.Linear(*size).double() for size in ((6, 3), (6, 3), (3, 6)))

    def forward(self, rows):
        mean, log_variance = self.mean(rows), self.logvar(rows)
        return self.decoder(mean), mean, log_variance


def divergences(mean, log_variance):
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1)


def losses(model, batch):
    made, mean, log_variance = model(batch)
    return {"reconstruction": (made - batch).pow(2).mean(), "kl": divergences(mean, log_variance).sum(1).mean()}


def weighted(model, batch, beta):
    terms = losses(model, batch)
    return {"reconstruction": terms["reconstruction"], "kl": beta * terms["kl"] / 6}


def summed(model, batch, beta):
    made, mean, log_variance = model(batch)
    penalty = 2 * beta * divergences(mean, log_variance).sum()
    return {"reconstruction": (made - batch).pow(2).mean(), "kl": penalty, "l1": 0.01 * mean.abs().mean()}


CASE = Case(
    VariationalAutoencoder, lambda: ROWS, losses, "mean", posterior="logvar", train=TRAIN, numbers={"beta": 0.3}
)
WEIGHTED = replace(CASE, losses=weighted)
SUMMED = replace(CASE, losses=summed)
SCALES = {
    "as a mean": (CASE, 1.0, 1.0, 0.3),
    "as a mean, of an output": (replace(CASE, posterior="out:2"), 1.0, 1.0, 0.3),
    "weighs itself": (WEIGHTED, 1 / 6, 0.3, 1.0),
    "summed": (SUMMED, 2.0, 0.3, 1.0),
}


def plain_loop(case, split, seed, total):
    """Final weights of a plain torch loop; `total(model, batch, step)` is differentiated."""
    inputs, model = split.train.inputs, build_model(case, seed, split.train.inputs)
    optimizer, done = torch.optim.Adam(model.parameters(), lr=0.01), 0
    for epoch in range(1, TRAIN["epochs"] + 1):
        for rows in batch_orders([seed], epoch, len(inputs))[0].split(16):
            optimizer.zero_grad()
            total(model, inputs[rows], done).backward()
            optimizer.step()
            done += 1
    assert done == STEPS
    return {name: value.detach() for name, value in model.named_parameters()}


def close(engine, member, expected):
    state = engine.state_of(member)
    for name, value in expected.items():
        found = state[name] if name in state else state[f"model.{name}"]
        assert torch.allclose(found, value, rtol=1e-8, atol=1e-10), name


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("case", [CASE, WEIGHTED], ids=["harness weighs", "weighs itself"])
def test_the_penalties_weight_rises_linearly_over_the_warm_up(case, stacked):
    split, levels = split_of(case), (0.0, 0.25, 1.0)
    treated = [apply_remedies(case, {"warmup": level}, split) for level in levels]
    support = check_vmap_support(treated[1], split.train.inputs)
    assert support.rule is not None, support.reason
    *_, last = train(treated, [0, 1, 2], split, support if stacked else replace(support, rule=None))
    for member, warmup in enumerate(levels):

        def total(model, batch, step, warmup=warmup):
            terms = case.losses(model, batch, **({"beta": 0.3} if case is WEIGHTED else {}))
            ramp = min(1.0, step / (warmup * STEPS)) if warmup else 1.0
            return terms["reconstruction"] + ramp * (1.0 if case is WEIGHTED else 0.3) * terms["kl"]

        close(last.engine, member, plain_loop(case, split, member, total))


def test_a_member_without_warm_up_does_not_feel_its_neighbors():
    split = split_of(CASE)
    warm, plain = (apply_remedies(CASE, {"warmup": level}, split) for level in (0.5, 0.0))
    support = check_vmap_support(CASE, split.train.inputs)
    *_, mixed = train([warm, plain], [0, 0], split, support)
    *_, pure = train([plain, plain], [0, 0], split, support)
    for name, value in pure.engine.state_of(1).items():
        assert torch.equal(value, mixed.engine.state_of(1)[name])


def test_the_total_at_the_start_has_no_penalty_and_at_the_end_all_of_it():
    split = split_of(CASE)
    first, *_, last = train([apply_remedies(CASE, {"warmup": 0.5}, split)], [0], split)
    assert float(first.losses["total"]) == float(first.losses["reconstruction"])
    batch = split.evaluation.inputs[None]
    terms = last.engine.losses(batch, {"progress": 1.0})
    assert float(terms["total"]) == pytest.approx(float(terms["reconstruction"] + 0.3 * terms["kl"]))


def test_warm_up_is_a_training_number_of_a_case_as_well():
    case = replace(CASE, train={**TRAIN, "warmup": 0.5})
    split = split_of(case)
    (*_, one), (*_, other) = (
        train([each], [0], split) for each in (case, apply_remedies(CASE, {"warmup": 0.5}, split))
    )
    for name, value in one.engine.state_of(0).items():
        assert torch.equal(value, other.engine.state_of(0)[name])


@pytest.mark.parametrize("value", [-0.1, 1.5, "long"])
def test_a_warm_up_outside_its_range_is_refused(value):
    with pytest.raises(HarnessError, match=r"train.warmup: expected a number from 0 to 1, got"):
        training_numbers({"warmup": value})
    with pytest.raises(HarnessError, match=r"warmup: expected a number from 0 to 1, got"):
        check_level("warmup", value)


def test_a_case_s_own_number_of_that_name_keeps_its_range():
    def own(model, batch, warmup, free_bits):
        return {"reconstruction": losses(model, batch)["reconstruction"] * warmup + free_bits}

    case = replace(CASE, losses=own, numbers={"warmup": 10.0, "free_bits": -3.0})
    treated = apply_remedies(case, {"warmup": 20, "free_bits": -1}, split_of(case))
    assert treated.numbers == {"warmup": 20.0, "free_bits": -1.0}
    assert "warmup" not in treated.train


def test_keys_without_warm_up_and_free_bits_stay_what_they_were():
    train_numbers = {"epochs": 3, "warmup": 0.0}
    off = member_key({"warmup": 0.0, "free_bits": 0.0}, 0, {}, {"epochs": 3}, "d", "c")
    assert off == member_key({}, 0, {}, {"epochs": 3}, "d", "c")
    keys = {
        member_key({"warmup": 0.5}, 0, {}, {"epochs": 3}, "d", "c"),
        member_key({"free_bits": 0.5}, 0, {}, {"epochs": 3}, "d", "c"),
        member_key({}, 0, {}, {**train_numbers, "warmup": 0.25}, "d", "c"),
        off,
    }
    assert len(keys) == 4


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("stacked", [True, False])
def test_free_bits_are_a_floor_of_each_unit_s_divergence(name, stacked):
    case, scale, beta, weight = SCALES[name]
    split, levels = split_of(case), (0.0, 0.1, 0.6)
    treated = [apply_remedies(case, {"free_bits": level}, split) for level in levels]
    support = check_vmap_support(treated[1], split.train.inputs)
    assert support.rule is not None, support.reason
    *_, last = train(treated, [0, 1, 2], split, support if stacked else replace(support, rule=None))
    for member, floor in enumerate(levels):

        def total(model, batch, step, floor=floor):
            made, mean, log_variance = model(batch)
            per_unit = divergences(mean, log_variance).mean(0).clamp(min=floor)
            penalty = scale * beta * per_unit.sum() * (len(batch) if case is SUMMED else 1) * weight
            penalty = penalty + (0.01 * mean.abs().mean() if case is SUMMED else 0)
            return (made - batch).pow(2).mean() + penalty

        expected = plain_loop(case, split, member, total)
        state = last.engine.state_of(member)
        for parameter, value in expected.items():
            found = state[f"model.{parameter}"]
            assert torch.allclose(found, value, rtol=1e-6, atol=1e-8), parameter


def test_free_bits_of_the_harness_s_own_penalty_are_a_floor_per_unit():
    split = split_of(CASE)
    treated = apply_remedies(CASE, {"penalty": "kl_sigmoid_of_preactivation", "free_bits": 0.3}, split)
    model = build_model(treated, 0, ROWS)
    numbers = {name: treated.numbers[name] for name in treated.loss_keywords()}
    found = treated.losses(model, ROWS, **numbers)["kl"]
    logits = model.model.mean(ROWS)
    expected = sum(max(float(bernoulli_kl_of_logits(0.05, logits[:, [unit]])), 0.3) for unit in range(3))
    assert float(found.detach()) == pytest.approx(expected)


def test_a_unit_below_the_floor_has_no_gradient_from_the_penalty():
    split = split_of(CASE)
    treated = apply_remedies(CASE, {"free_bits": 100.0}, split)
    model = build_model(treated, 0, ROWS)
    penalty = treated.losses(model, ROWS, free_bits=100.0)["kl"]
    assert float(penalty.detach()) == pytest.approx(300.0)
    gradients = torch.autograd.grad(penalty, list(model.model.mean.parameters()), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def hidden(model, batch):
    return {"reconstruction": model(batch)[0].mean(), "l2": model(batch)[1].pow(2).mean()}


def annealing(model, batch, progress):
    terms = losses(model, batch)
    return {"reconstruction": terms["reconstruction"], "kl": (0.5 + progress) * terms["kl"]}


def in_parts(model, batch):
    mean, log_variance = model.mean(batch), model.logvar(batch)
    reconstruction = (model.decoder(mean) - batch).pow(2).mean()
    return {"reconstruction": reconstruction, "kl": divergences(mean, log_variance).sum(1).mean()}


def squared(model, batch, gamma):
    terms = losses(model, batch)
    return {"reconstruction": terms["reconstruction"], "kl": gamma**2 * terms["kl"]}


@pytest.mark.parametrize(
    ("case", "levels", "reason"),
    [
        (replace(CASE, posterior=None), {}, "known only with Case.posterior or a KL penalty of the harness"),
        (CASE, {"penalty": "l1"}, "the penalty l1 has no KL divergence per unit"),
        (CASE, {"penalty": "none"}, "the penalty none has no KL divergence per unit"),
        (
            replace(CASE, losses=hidden),
            {},
            r"expected one penalty that is a multiple of the posterior's KL .* got none",
        ),
        (
            replace(CASE, losses=in_parts, posterior="out:2"),
            {},
            "out:2 of the model, which the loss does not call; name the module",
        ),
        (replace(CASE, losses=annealing), {}, "the loss changes the weight of kl during training; use `warmup`"),
        (replace(CASE, losses=squared, numbers={"gamma": 0.3}), {}, "gamma changes kl in another way than by a factor"),
    ],
)
def test_free_bits_are_refused_with_a_reason(case, levels, reason):
    split = split_of(case)
    with pytest.raises(RemedyNotApplicable, match=f"free_bits: .*{reason}"):
        apply_remedies(case, {**levels, "free_bits": 0.5}, split)


def test_no_free_bits_change_nothing_where_they_do_not_apply():
    case = replace(CASE, posterior=None)
    assert why_not_applicable(case, {"free_bits": 0.0}, split_of(case)) is None


def test_levels_of_both_share_a_stack():
    members = tuple(
        StackMember(f"{warmup} {bits}", "v", {"warmup": warmup, "free_bits": bits}, 0)
        for warmup in (0.0, 0.5)
        for bits in (0.0, 0.5)
    )
    records = {}
    (batch,) = group_programs(StackSpec(CASE, None, members), records, CaseCache())
    assert len(batch.members) == 4
    assert not records


def test_the_term_is_found_with_its_weight():
    term = kl_term(SUMMED, ROWS)
    assert (term.name, term.numbers, term.sums_rows) == ("kl", ("beta",), True)
    assert term.scale == pytest.approx(2.0, rel=1e-9)
