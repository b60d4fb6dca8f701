"""The laws of training: stacked equals alone, and a member does not know who shares its stack."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from reference_loop import TRAIN, last, plain_loop
from torch import nn

import harness
from harness.capture import observe
from harness.remedies import apply_remedies
from harness.remedies.layout import build_model
from harness.training import check_vmap_support, train
from harness.training.graph import capture
from harness.training.optimizers import optimizer_spec
from harness.training.rng import generator
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine

pytestmark = pytest.mark.many

# every remedy of the table, alone and in company
LEVELS = [
    {},
    {"penalty": "none"},
    {"penalty": "none_sigmoid_bottleneck"},
    {"penalty": "kl_sigmoid_of_relu"},
    {"penalty": "kl_sigmoid_of_preactivation", "activation": "leaky_relu"},
    {"penalty": "kl_sigmoid_bottleneck", "output_activation": "linear"},
    {"penalty": "hard_count"},
    {"penalty": "l1", "output_activation": "sigmoid"},
    {"penalty": "topk"},
    {"bias_init": "zero", "rho": 0.1, "beta": 0.01},
    {"activation": "elu", "units": 3},
    {"activation": "gelu"},
    {"activation": "silu"},
    {"activation": "softplus"},
    {"activation": "tanh", "inputs": "centred"},
    {"batchnorm": "on"},
    {"dropout": 0.3},
    {"penalty": "kl_sigmoid_of_relu", "batchnorm": "on", "dropout": 0.2, "activation": "leaky_relu"},
    {"learning_rate": 1e-2, "batch_size": 20, "epochs": 1},
]


def stacked(case, seeds, split, dtype=torch.float64):
    return last(train([case] * len(seeds), seeds, split, dtype=dtype))


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_a_stack_equals_a_plain_loop_of_the_same_seed(forum, split, levels):
    case = apply_remedies(replace(forum, train=TRAIN), levels, split)
    rows = case.data() if levels.get("inputs") == "centred" else split.train
    own = replace(split, train=rows)
    snapshot = stacked(case, [3, 4], own)
    for member, seed in enumerate((3, 4)):
        model, _ = plain_loop(case, seed, rows.inputs.double(), 10**9)
        found, wanted = snapshot.engine.state_of(member), model.state_dict()
        assert found.keys() == wanted.keys()
        for name in wanted:
            # float64 over a few steps: what is left is the order of additions
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "levels",
    [
        {},
        {"penalty": "kl_sigmoid_bottleneck"},
        {"dropout": 0.3},
        {"batchnorm": "on"},
        {"batchnorm": "on", "units": 3, "batch_size": 45},
        {"activation": "elu", "units": 3, "batch_size": 45},
    ],
    ids=str,
)
def test_a_stack_that_is_filled_up_has_the_bits_of_any_other(forum, split, levels):
    case = apply_remedies(replace(forum, train=TRAIN), levels, split)
    assert_filled_like_any_other(case, split, 1, 3, 8)


def test_a_convolution_too_has_the_bits_of_any_other(split):
    def build():
        first, last = torch.nn.Conv2d(1, 8, 3, stride=2, padding=1), torch.nn.Linear(200, 100)
        shaped, flat = torch.nn.Unflatten(1, (1, 10, 10)), torch.nn.Flatten()
        return torch.nn.Sequential(shaped, first, torch.nn.ReLU(), flat, last)

    def losses(model, batch):
        return {"reconstruction": torch.nn.functional.mse_loss(model(batch), batch)}

    case = harness.Case(build, lambda: split.train.inputs, losses, "1", train={**TRAIN, "epochs": 1})
    assert_filled_like_any_other(case, split, 1, 3, 8)


@pytest.mark.parametrize("units", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("normalise", ["module", "function"])
def test_a_batch_norm_of_few_units_has_the_bits_of_any_other(split, units, normalise):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.norm = torch.nn.Linear(100, units), torch.nn.BatchNorm1d(units)
            self.back = torch.nn.Linear(units, 100)

        def forward(self, rows):
            code, norm = self.code(rows), self.norm
            if normalise == "module":
                return self.back(norm(code).relu())
            own = torch.nn.functional.batch_norm(
                input=code, running_mean=norm.running_mean, running_var=norm.running_var, training=self.training
            )
            return self.back(own.relu())

    def losses(model, batch):
        return {"reconstruction": torch.nn.functional.mse_loss(model(batch), batch)}

    case = harness.Case(Net, lambda: split.train.inputs, losses, "code", train={**TRAIN, "epochs": 1})
    assert_filled_like_any_other(case, split, 3)


@pytest.mark.parametrize("rows", [1, 15, 33, 51, 79, 199])
def test_an_odd_number_of_rows_is_observed_with_the_bits_of_any_other_stack(forum, split, rows):
    case = apply_remedies(replace(forum, train=TRAIN), {"penalty": "kl_sigmoid_bottleneck", "units": 3}, split)
    rule = check_vmap_support(case, split.train.inputs).rule
    eight, more = (StackedEngine([case] * size, range(size), rule, split.train.inputs) for size in (8, 16))
    observed = 5 * split.train.inputs[:rows]
    seen, wanted = eight.observe(observed), more.observe(observed)
    assert seen.code.shape == (8, rows, 3)
    assert torch.equal(seen.code, wanted.code[:8])
    assert torch.equal(seen.reconstruction, wanted.reconstruction[:8])


@pytest.mark.parametrize("levels", [{}, {"batchnorm": "on"}, {"dropout": 0.2}], ids=str)
@pytest.mark.parametrize("batch_size", [64, 45])
def test_a_stack_is_filled_up_where_normalisation_looks_at_its_size(forum, split, levels, batch_size):
    stacking = check_vmap_support(
        apply_remedies(replace(forum, train={"batch_size": batch_size}), levels, split), split.train.inputs
    )
    assert [stacking.filled(members) for members in (1, 3, 8)] == [8 if "batchnorm" in levels else 2, 8, 8]


def misses(model, batch):
    return {"reconstruction": (model(batch) - batch).square().mean()}


class Wavering(nn.Module):
    """What it shows is another thing each time: by a draw, or by a buffer that it changes."""

    def __init__(self, draws):
        super().__init__()
        self.draws, self.code, self.back = draws, nn.Linear(100, 4), nn.Linear(4, 100)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, values):
        code = torch.relu(self.code(values))
        if self.draws:
            return self.back(code + torch.randn_like(code))
        self.seen += 1
        return self.back(code + self.seen)


@pytest.mark.parametrize("draws", [True, False])
def test_what_wavers_is_never_taken_to_repeat_itself(draws, split):
    case = harness.Case(partial(Wavering, draws), lambda: split.train.inputs, misses, "code")
    stack = StackedEngine([case] * 8, range(8), optimizer_spec(case, Wavering(draws)), split.train.inputs)
    for _ in range(5):
        stack.observe(split.evaluation.inputs[:40])
        assert not stack.repeats(split.evaluation.inputs[:40])


def test_what_repeats_itself_does(forum, split):
    case, rows = apply_remedies(replace(forum, train=TRAIN), {"dropout": 0.2}, split), split.evaluation.inputs[:40]
    stack = StackedEngine([case] * 8, range(8), check_vmap_support(case, split.train.inputs).rule, split.train.inputs)
    assert not stack.repeats(rows)
    seen = [stack.observe(rows) for _ in range(4)]
    assert stack.repeats(rows)
    assert torch.equal(stack.observe(rows, "again").code, seen[-1].code)


def test_what_is_kept_of_the_parts_of_a_reconstruction_is_what_is_seen_of_them(forum, split):
    rows = split.train.inputs[:199]  # four parts, the last of which begins within the one before
    rule = check_vmap_support(forum, split.train.inputs).rule
    stack = StackedEngine([forum] * 8, range(8), rule, split.train.inputs)
    whole = stack.observe(rows).reconstruction
    kept = stack.observe(rows, keep=lambda made, part: (made - part).abs().amax(-1)).parts
    assert len(kept) > 1
    torch.testing.assert_close(torch.cat(kept, -1), (whole - rows).abs().amax(-1), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [StackedEngine, SequentialEngine])
def test_units_that_are_held_are_held_for_every_row_and_the_others_are_as_they_were(split, kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.back = nn.Linear(100, 3), nn.Linear(3, 100)

        def forward(self, rows):
            return self.back(self.code(rows).relu())

    def losses(model, batch):
        return {"reconstruction": nn.functional.mse_loss(model(batch), batch)}

    case, rows = harness.Case(Net, lambda: split.train.inputs, losses, "code", train=TRAIN), split.train.inputs[:150]
    rule = () if kind is SequentialEngine else (check_vmap_support(case, rows).rule,)
    engine = kind([case] * 8, range(8), *rule, rows)
    held = torch.tensor([[torch.nan, float(member), -0.5] for member in range(8)])
    for _ in range(4):  # as a function, noted, compared, as a list
        seen = engine.observe(rows, clamp=held)
    for member in range(8):
        model = build_model(case, member, rows)
        code = model.code(rows).relu()
        code[:, 1], code[:, 2] = member, -0.5
        torch.testing.assert_close(seen.code[member], code)
        torch.testing.assert_close(seen.reconstruction[member], model.back(code))


def test_what_a_model_makes_of_rows_is_not_worked_out_where_it_is_not_wanted(forum, split):
    rows = split.train.inputs[:64]
    stack = StackedEngine([forum] * 8, range(8), check_vmap_support(forum, split.train.inputs).rule, split.train.inputs)
    whole, products = stack.observe(rows), []
    for _ in range(4):  # the list of operations has proved itself by then
        with capture.DispatchRecorder() as recorder:
            few = stack.observe(rows, keep=None)
        products.append(sum("bmm" in str(call.operation) for call in recorder.calls))
    assert (products[0], products[-1]) == (7, 4)  # three layers before the code, three behind it, the size of its sums
    assert torch.equal(few.code, whole.code)
    assert torch.equal(few.raw, whole.raw)
    assert few.parts == SequentialEngine([forum], [0], split.train.inputs).observe(rows, keep=None).parts == ()


def assert_filled_like_any_other(case, split, *sizes):
    """So many members of the first seeds, filled up, are what they are behind ten others in a larger stack."""
    rows, largest = split.evaluation.inputs[:33], max(sizes)
    many = stacked(case, [*range(20, 30), *range(largest), *range(30, 46 - largest)], split, torch.float32).engine
    code = many.observe(rows).code
    for members in sizes:
        real, size = list(range(members)), check_vmap_support(case, split.train.inputs).filled(members)
        few = stacked(case, [*real, *real[-1:] * (size - members)], split, torch.float32).engine
        for member in real:
            for name, value in few.state_of(member).items():
                assert torch.equal(value, many.state_of(10 + member)[name]), name
        assert torch.equal(few.observe(rows).code[:members], code[10 : 10 + members])


def test_a_large_model_is_a_stack_of_its_own(forum, split):
    def build():
        return torch.nn.Sequential(torch.nn.Linear(100, 400), torch.nn.ReLU(), torch.nn.Linear(400, 100))

    def losses(model, batch):
        return {"reconstruction": torch.nn.functional.mse_loss(model(batch), batch)}

    large = replace(forum, model=build, losses=losses, bottleneck="0", numbers={}, reconstruction=None)
    found = check_vmap_support(large, split.train.inputs)
    assert (found.shares, found.filled(1)) == (False, 1)
    assert check_vmap_support(forum, split.train.inputs).shares


def test_a_member_that_becomes_nan_leaves_the_others_bit_for_bit_alone(forum, split):
    case = replace(forum, train=TRAIN)
    wild = replace(case, train={**TRAIN, "learning_rate": 1e30})
    calm = last(train([case, case, case], [0, 1, 2], split))
    mixed = last(train([case, wild, case], [0, 1, 2], split))
    assert mixed.diverged[1] > 0
    assert calm.diverged.tolist() == [-1, -1, -1]
    for member in (0, 2):
        for name, value in calm.engine.state_of(member).items():
            assert torch.equal(value, mixed.engine.state_of(member)[name])


def test_numbers_differ_within_a_stack_as_they_would_alone(forum, split):
    cases = [
        apply_remedies(replace(forum, train=TRAIN), {"beta": beta, "learning_rate": rate}, split)
        for beta, rate in ((0.0, 1e-3), (0.1, 5e-3))
    ]
    together = last(train(cases * 4, [6] * 8, split))
    for member, case in enumerate(cases):
        alone = last(train([case] * 8, [6] * 8, split)).engine.state_of(0)
        for name, value in alone.items():
            assert torch.equal(value, together.engine.state_of(member)[name])


def test_the_same_seed_means_the_same_initial_weights_in_every_variant(forum, split):
    plain = build_model(forum, 3, split.train.inputs[:4]).state_dict()
    other = build_model(
        apply_remedies(forum, {"penalty": "kl_sigmoid_bottleneck", "batchnorm": "on", "dropout": 0.1}, split),
        3,
        split.train.inputs[:4],
    )
    for name, value in plain.items():
        assert torch.equal(other.state_dict()[f"model.{name}"], value)


def test_the_negative_control_is_bit_for_bit_the_variant_without_penalty(forum, split):
    state = {}
    for site in ("none", "hard_count"):
        state[site] = stacked(
            apply_remedies(replace(forum, train=TRAIN), {"penalty": site}, split), [0, 1], split, torch.float32
        ).engine.state_of(1)
    for name, value in state["none"].items():
        assert torch.equal(value, state["hard_count"][name])


def test_what_is_inserted_does_not_feel_the_second_call_of_the_loss(forum, split):
    """The posted loss calls the bottleneck again in a linear chain: its buffers equal those of a loss that does not."""

    def reconstruction_only(model, batch):
        return {"reconstruction": torch.nn.functional.mse_loss(model(batch)[1], batch)}

    once = replace(forum, losses=reconstruction_only, train=TRAIN)
    twice = replace(forum, numbers={"rho": 0.05, "beta": 0.0}, train=TRAIN)
    buffers = {}
    for name, case in (("once", once), ("twice", twice)):
        snapshot = stacked(apply_remedies(case, {"batchnorm": "on"}, split), list(range(8)), split, torch.float32)
        buffers[name] = snapshot.engine.state_of(0)
    for key in ("inserted.batchnorm.running_mean", "inserted.batchnorm.running_var"):
        assert torch.equal(buffers["once"][key], buffers["twice"][key])


def test_an_index_based_penalty_is_not_moved_by_what_is_inserted(forum, split):
    treated = apply_remedies(forum, {"batchnorm": "on", "dropout": 0.2, "activation": "leaky_relu"}, split)
    batch = split.train.inputs[:32]
    plain, changed = build_model(forum, 0, batch), build_model(treated, 0, batch)
    numbers = {"rho": 0.05}
    assert float(forum.losses(plain, batch, **numbers)["sparsity"]) == float(
        treated.losses(changed, batch, **{**numbers, "dropout": 0.2})["sparsity"]
    )


def test_what_cannot_be_batched_trains_alone_and_says_so(split):
    from harness.case import load_case

    case = load_case("sibling_count")
    found = check_vmap_support(case, split.train.inputs)
    assert found.rule is None
    assert "cannot be batched" in found.reason


class Masked(nn.Module):
    """A hook keeps its first unit as it was made."""

    def __init__(self, late):
        super().__init__()
        self.code, self.back = nn.Linear(100, 4), nn.Linear(4, 100)
        self.mask = torch.tensor([0.0, 1.0, 1.0, 1.0])[:, None]
        if late:
            self.code.weight.register_post_accumulate_grad_hook(self.keep)
        else:
            self.code.weight.register_hook(lambda gradient: gradient * self.mask)

    def keep(self, weight):
        weight.grad *= self.mask

    def forward(self, values):
        return self.back(torch.relu(self.code(values)))


@pytest.mark.parametrize("late", [False, True])
def test_hooks_on_parameters_are_kept_by_training_alone(late, split):
    case = harness.Case(partial(Masked, late), lambda: split.train.inputs, misses, "code", train=TRAIN)
    stacking = check_vmap_support(case, split.train.inputs)
    assert "hooks" in stacking.reason
    snapshots = train([case] * 2, [0, 1], split, stacking)
    first = next(snapshots).engine.state_of(1)["code.weight"]
    *_, last = snapshots
    moved = (last.engine.state_of(1)["code.weight"] != first).any(1)
    assert moved.tolist() == [False, True, True, True]


def test_a_loss_that_counts_its_calls_trains_alone(forum, split):
    calls = []

    def losses(model, batch):
        calls.append(1)
        return {"reconstruction": (model(batch)[1] - batch).pow(2).mean() * min(1.0, len(calls) / 10)}

    assert "state in Python" in check_vmap_support(replace(forum, losses=losses), split.train.inputs).reason


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
        lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, dampening=0.5),
        lambda parameters: torch.optim.Adam(parameters, lr=3e-3, weight_decay=1e-2, betas=(0.8, 0.99)),
        lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1),
        lambda parameters: torch.optim.Adam(parameters, lr=3e-3, weight_decay=0.1, decoupled_weight_decay=True),
    ],
    ids=["SGD", "nesterov", "dampening", "Adam", "AdamW", "Adam, decoupled"],
)
def test_a_plain_optimizer_is_taken_over_and_equals_torch(forum, split, make):
    case = replace(forum, optimizer=make, train={"epochs": 2, "batch_size": 50})
    snapshot = stacked(case, [0, 1], split)
    model = build_model(case, 1, split.train.inputs[:4]).double()
    optimizer = make(model.parameters())
    for epoch in (1, 2):
        for rows in torch.randperm(200, generator=generator(1, f"batches {epoch}")).split(50):
            terms = case.losses(model, split.train.inputs[rows].double(), rho=0.05)
            optimizer.zero_grad()
            (terms["reconstruction"] + 0.001 * terms["sparsity"]).backward()
            optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(snapshot.engine.state_of(1)[name], value, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("named", [{}, {"learning_rate": 0.2}], ids=["its own", "the training's"])
def test_a_rate_that_the_training_names_wins_over_the_optimizers_own_in_a_stack_and_alone(forum, split, named):
    stacks = replace(
        forum, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05), train={"epochs": 2, **named}
    )
    alone = replace(stacks, optimizer=lambda parameters: scheduled(parameters, torch.optim.SGD, lr=0.05))
    found = (last(train([case], [0], split)).engine.state_of(0) for case in (stacks, alone))
    for one, other in zip(*(state.values() for state in found), strict=True):
        torch.testing.assert_close(one, other)


def clipping(parameters):
    made = torch.optim.SGD(parameters, lr=0.5)
    made.register_step_pre_hook(lambda *_: torch.nn.utils.clip_grad_norm_(parameters, 0.01) and None)
    return made


def scheduled(parameters, kind=torch.optim.Adam, lr=1e-3):
    made = kind(parameters, lr=lr)
    torch.optim.lr_scheduler.StepLR(made, 1)
    return made


def warmed_up(parameters):
    made = torch.optim.Adam(parameters, lr=1e-3)
    made.state[parameters[0]] = {"step": torch.tensor(5.0)}
    return made


@pytest.mark.parametrize(
    "make",
    [
        clipping,
        scheduled,
        warmed_up,
        lambda parameters: torch.optim.Adam(parameters, lr=1e-3, amsgrad=True),
        lambda parameters: torch.optim.SGD(parameters, lr=1e-3, maximize=True),
        lambda parameters: torch.optim.SGD([{"params": parameters, "name": "all"}], lr=1e-3),
        lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(1e-3)),
    ],
    ids=["hook", "schedule", "state", "amsgrad", "maximize", "a name of its own", "a tensor as rate"],
)
def test_an_optimizer_that_does_more_than_its_class_is_not_taken_over(forum, split, make):
    assert "optimizer" in check_vmap_support(replace(forum, optimizer=make, train=TRAIN), split.train.inputs).reason


def test_a_clipped_optimizer_clips(forum, split):
    case = replace(forum, optimizer=clipping, train={"epochs": 1, "batch_size": 50})
    snapshot, model = last(train([case], [1], split)), build_model(case, 1, split.train.inputs[:4])
    optimizer = clipping(list(model.parameters()))
    for rows in torch.randperm(200, generator=generator(1, "batches 1")).split(50):
        terms = case.losses(model, split.train.inputs[rows], rho=0.05)
        optimizer.zero_grad()
        (terms["reconstruction"] + 0.001 * terms["sparsity"]).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(snapshot.engine.state_of(0)[name], value)


def test_another_optimizer_trains_alone(forum, split):
    case = replace(forum, optimizer=lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3), train=TRAIN)
    assert "optimizer" in check_vmap_support(case, split.train.inputs).reason
    snapshot = last(train([case], [0], split))
    assert snapshot.step == 6


def test_global_random_state_stays_as_it_was(forum, split):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    stacked(apply_remedies(replace(forum, train=TRAIN), {"dropout": 0.2}, split), [0], split)
    assert torch.equal(before, torch.get_rng_state())


def test_snapshots_start_at_birth_and_see_the_code_that_the_model_uses(forum, split):
    case = replace(forum, train=TRAIN)
    first = next(iter(train([case, case], [0, 1], split)))
    assert (first.step, first.epoch, first.last) == (0, 0, False)
    seen = first.engine.observe(split.evaluation.inputs)
    model = build_model(case, 1, split.train.inputs[:4]).eval()
    with torch.no_grad():
        wanted = observe(model, split.evaluation.inputs, "enc3")
    torch.testing.assert_close(seen.code[1], wanted.code)
    assert seen.activation == "relu"
