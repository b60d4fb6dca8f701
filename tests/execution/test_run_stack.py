"""A stack, trained and judged: what its records say."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import Case
from harness.data.rows import Rows
from harness.errors import HarnessError
from harness.execution.program_batches import CaseCache
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec

pytestmark = pytest.mark.many


def rows():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(120, 6, generator=generator)
    return Rows(inputs, factors={"first": inputs[:, 0]})


class Dead(nn.Module):
    """Its first bottleneck unit can never fire."""

    def __init__(self):
        super().__init__()
        self.code, self.back = nn.Linear(6, 3), nn.Linear(3, 6)
        with torch.no_grad():
            self.code.bias[0] = -1e3

    def forward(self, values):
        return self.back(torch.relu(self.code(values)))


class Magnified(nn.Module):
    """Its first unit is a thousand and what float32 leaves of a trillionth; normalisation makes that a code."""

    def __init__(self):
        super().__init__()
        self.code, self.normalise, self.back = Offset(), nn.BatchNorm1d(3, 1e-12, 1.0, affine=False), nn.Linear(3, 6)

    def forward(self, values):
        return self.back(torch.relu(self.normalise(self.code(values))))


class Noisy(nn.Module):
    """Draws when it is only looked at, too, and does not use its first unit."""

    def __init__(self):
        super().__init__()
        self.code, self.back = nn.Linear(100, 3), nn.Linear(3, 100)

    def forward(self, values):
        code = torch.relu(self.code(values))
        return self.back(code * torch.tensor([0.0, 1.0, 1.0])) + torch.randn_like(values)


class Offset(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, values):
        return self.linear(values) * torch.tensor([1e-4, 1.0, 1.0]) + torch.tensor([1e3, 0.0, 0.0])


def losses(model, batch, weight):
    return {"reconstruction": ((model(batch) - batch) ** 2).mean() * weight}


CASE = Case(Dead, rows, losses, "code", numbers={"weight": 1.0}, train={"epochs": 4, "batch_size": 16})


def members(*levels):
    return tuple(StackMember(f"k{i}", f"v{i}", each, i) for i, each in enumerate(levels))


def test_a_reconstruction_is_looked_at_in_a_few_snapshots_and_the_last():
    spec = StackSpec(CASE, None, members({}, {}))
    short, *_ = run_stack(spec)
    long, *_ = run_stack(replace(spec, train={"epochs": 12}))
    looked = {epoch for epoch, value in enumerate(long.history["r2"]) if not math.isnan(value)}
    assert looked == {0, 1, 2, 3, 6, 12}
    assert long.history["r2"][:4] == short.history["r2"][:4]
    assert not any(math.isnan(value) for value in short.history["r2"])


def test_a_unit_that_is_dead_at_birth_is_said_to_be():
    (record,) = run_stack(StackSpec(CASE, None, members({})))
    assert record.status == "ok"
    assert record.died_at[0] == 0
    assert record.verdict == "partial_collapse"
    assert record.live_units == 2
    assert record.history["step"] == [0.0, 6.0, 12.0, 18.0, 24.0]
    assert len(record.unit_history["mutual_information/first"]) == 5
    assert all(row[0] == 0 for row in record.unit_history["activation_frequency"])


def test_a_unit_is_judged_before_its_normalisation_too():
    (record,) = run_stack(StackSpec(replace(CASE, model=Magnified), None, members({})))
    units = record.diagnosis["units"]
    assert units[0]["standard_deviation"] > 0.1  # it looks alive behind the normalisation
    assert [unit["verdict"] == "alive" for unit in units] == [False, True, True]
    assert record.live_units == 2


class Saturated(nn.Module):
    """A sigmoid that is pinned at 0, one pinned at 1, one that is free; no linear layer tells the size of its sums."""

    def __init__(self):
        super().__init__()
        self.code, self.out = nn.Sequential(nn.Linear(6, 3)), nn.Linear(3, 6)
        nn.init.normal_(self.code[0].weight, std=0.1)
        self.code[0].bias.data = torch.tensor([-20.0, 20.0, 0.0])

    def forward(self, values):
        return self.out(torch.sigmoid(self.code(values)))


def test_a_unit_that_its_diagnosis_calls_constant_is_so_from_the_snapshot_on_at_which_it_became_that():
    for model, dead in ((Saturated, [0, 0, None]), (Magnified, [0, None, None])):
        (record,) = run_stack(StackSpec(replace(CASE, model=model), None, members({})))
        assert record.died_at == dead
        assert set(record.history["live_units"]) == {dead.count(None)}
        assert record.live_units == dead.count(None)


def test_a_member_that_diverges_is_a_row_with_its_step_and_the_others_are_as_without_it():
    calm = run_stack(StackSpec(CASE, None, members({}, {}, {})))
    mixed = run_stack(StackSpec(CASE, None, members({}, {"weight": 1e39}, {})))
    assert [record.status for record in mixed] == ["ok", "diverged", "ok"]
    assert mixed[1].diverged_step == 0
    assert mixed[1].verdict == "invalid"
    for index in (0, 2):
        assert mixed[index].losses == calm[index].losses
        assert mixed[index].unit_history["mean"] == calm[index].unit_history["mean"]


def test_a_remedy_that_finds_no_place_is_a_failed_row_with_its_reason():
    ok, refused = run_stack(StackSpec(CASE, None, members({}, {"dropout": 0.5})))
    assert ok.status == "ok"
    assert refused.status == "failed"
    assert "no hidden activation" in refused.error


def test_the_ablation_of_a_unit_is_the_fit_it_loses():
    (record,) = run_stack(
        StackSpec(replace(CASE, train={"epochs": 40, "batch_size": 16, "learning_rate": 0.02}), None, members({}))
    )
    lost = [unit["ablation"] for unit in record.diagnosis["units"]]
    assert lost[0] == pytest.approx(0.0, abs=1e-6)
    assert max(lost) > 0.05


def test_the_ablation_of_a_unit_is_not_the_noise_of_another_draw():
    wide = Rows(torch.randn(600, 100, generator=torch.Generator().manual_seed(2)))  # held out: more than a part
    (record,) = run_stack(StackSpec(replace(CASE, model=Noisy, data=lambda: wide), None, members({})))
    lost = [unit["ablation"] for unit in record.diagnosis["units"]]
    assert lost[0] == 0.0
    assert all(lost[1:])


def test_a_record_does_not_depend_on_how_the_members_were_cut():
    levels = [{} for _ in range(9)]
    whole = run_stack(StackSpec(CASE, None, members(*levels)))
    alone = [run_stack(StackSpec(CASE, None, (member,)))[0] for member in members(*levels)[:3]]
    for one, other in zip(alone, whole, strict=False):
        assert one.history == other.history
        assert one.losses == other.losses


def test_the_rows_are_read_once_for_all_stacks_of_an_experiment():
    read = []

    def counted():
        read.append(1)
        return rows()

    known, spec = CaseCache(), StackSpec(replace(CASE, data=counted), None, members({}))
    first, again = (run_stack(spec, None, known)[0] for _ in range(2))
    assert len(read) == 1
    assert first.losses == again.losses
    run_stack(spec)
    assert len(read) == 2


def test_levels_with_training_numbers_split_into_programs_of_their_own():
    records = run_stack(StackSpec(CASE, None, members({"epochs": 1}, {"epochs": 2}, {"batch_size": 32})))
    assert [record.history["step"][-1] for record in records] == [6.0, 12.0, 12.0]


def only_on_many_rows(model, batch, weight):
    """A trial on a few rows does not meet what `vmap` refuses."""
    made = model(batch)
    if len(batch) > 8 and float(made.sum()) != float(made.sum()):
        raise ValueError("not a number")
    return {"reconstruction": ((made - batch) ** 2).mean() * weight}


def always_asking(model, batch, weight):
    made = model(batch)
    float(made.sum())
    return {"reconstruction": ((made - batch) ** 2).mean() * weight}


def test_a_stack_that_fails_after_its_trial_is_trained_member_by_member_and_says_so():
    told = []
    levels = members({}, {"weight": 2.0}, {})
    found = run_stack(StackSpec(replace(CASE, losses=only_on_many_rows), None, levels), told.append)
    expected = run_stack(StackSpec(replace(CASE, losses=always_asking), None, levels))
    for here, there in zip(found, expected, strict=True):
        assert here.status == "ok"
        assert "it cannot be batched: RuntimeError: vmap: " in here.alone
        assert there.alone is None  # as its plan says
        assert repr(here.history) == repr(there.history)
        assert here.losses == there.losses
    assert sum(told) == 3 * found[0].history["step"][-1]


def between_nought_and_one(model, batch, weight):
    made = torch.sigmoid(model(batch))
    return {"reconstruction": F.binary_cross_entropy(made, torch.sigmoid(batch)) * weight}


SUDDEN = replace(CASE, losses=between_nought_and_one, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))


@pytest.mark.parametrize("place", [0, 3, 4])
def test_a_member_whose_loss_raises_once_it_diverged_leaves_the_others_bit_for_bit_as_without_it(place):
    kept = [{"weight": float(value)} for value in (1, 2, 3, 4)]
    lost = [*kept[:place], {"weight": 1e38}, *kept[place:]]
    seeds = [0, 1, 2, 3]
    seeds.insert(place, 9)
    alone = run_stack(StackSpec(SUDDEN, None, tuple(StackMember(f"k{i}", "v", each, i) for i, each in enumerate(kept))))
    found = run_stack(
        StackSpec(SUDDEN, None, tuple(StackMember(f"k{i}", "v", each, i) for i, each in zip(seeds, lost, strict=True)))
    )
    guilty = found.pop(place)
    assert (guilty.status, guilty.alone) == ("failed", None)
    assert "between 0 and 1" in guilty.error
    for here, there in zip(found, alone, strict=True):
        assert here.status == there.status == "ok"
        assert here.alone is None
        assert repr(here.history) == repr(there.history)
        assert here.losses == there.losses


class Counted(Dead):
    """Knows how often it was built."""

    built = 0

    def __init__(self):
        super().__init__()
        Counted.built += 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        HarnessError("mine"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(error):
    def failing(model, batch, weight):
        if len(batch) > 8:
            raise error
        return losses(model, batch, weight)

    trained = []
    for case in (CASE, replace(CASE, losses=failing)):
        Counted.built = 0
        found = run_stack(StackSpec(replace(case, model=Counted), None, members({}, {}, {})))
        trained.append(Counted.built)
    assert [record.status for record in found] == ["failed"] * 3
    assert trained[1] == trained[0]


def test_an_interruption_is_no_failure():
    def interrupted(model, batch, weight):
        if len(batch) > 8:
            raise KeyboardInterrupt
        return losses(model, batch, weight)

    with pytest.raises(KeyboardInterrupt):
        run_stack(StackSpec(replace(CASE, losses=interrupted), None, members({}, {})))


class Odd(nn.Module):
    """No layer of it fills a vector register."""

    def __init__(self):
        super().__init__()
        self.encoder, self.code = nn.Linear(7, 11), nn.Linear(11, 3)
        self.decoder, self.back = nn.Linear(3, 11), nn.Linear(11, 7)

    def forward(self, values):
        code = torch.sigmoid(self.code(F.elu(self.encoder(values))))
        return self.back(F.silu(self.decoder(code)))


def odd_rows():
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(150, 4, generator=generator) @ torch.randn(4, 7, generator=generator)
    return Rows(inputs, labels=torch.arange(150) % 3, factors={"first": inputs[:, 0]})


def said(record):
    """Everything that a record says of its member, but for when and how fast it came about."""
    numbers = {name: value for name, value in vars(record).items() if name not in ("key", "seconds", "logged_at")}
    return repr({name: dict(value) if hasattr(value, "keys") else value for name, value in numbers.items()})


@pytest.mark.parametrize("levels", [{}, {"batchnorm": "on"}, {"dropout": 0.2}], ids=str)
@pytest.mark.parametrize("batch_size", [33, 45])
def test_a_record_is_the_same_to_the_last_digit_whoever_shares_the_stack(levels, batch_size):
    def record_at(place, size):
        seeds = [100 + index for index in range(size)]
        seeds[place] = 5
        members = tuple(StackMember(f"k{seed}", "v", levels, seed) for seed in seeds)
        return run_stack(StackSpec(case, None, members))[place]

    train = {"epochs": 2, "batch_size": batch_size, "learning_rate": 1e-2}
    case = Case(Odd, odd_rows, losses, "code", numbers={"weight": 1.0}, train=train)
    alone = record_at(0, 1)
    assert alone.status == "ok"
    for place, size in ((2, 3), (7, 8), (10, 11), (3, 24)):
        assert said(record_at(place, size)) == said(alone)


def penalized(model, batch):
    made = model(batch)
    return {"reconstruction": ((made - batch) ** 2).mean(), "weights": model.code.weight.square().sum()}


@pytest.mark.parametrize("levels", [{"beta": 0.01}, {"beta": 50.0}, {"dropout": 0.3}, {"warmup": 0.5}], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_a_number_that_one_member_sets_and_another_does_not_reaches_the_first_alone(levels, first):
    """The case names no `beta`: the penalties' weight is 1 for a member that sets none."""
    case = Case(Odd, odd_rows, penalized, "code", train={"epochs": 2, "batch_size": 45, "learning_rate": 1e-2})
    treated, plain = StackMember("t", "v", levels, 5), StackMember("p", "v", {}, 5)
    mixed = {r.key: r for r in run_stack(StackSpec(case, None, (treated, plain) if first else (plain, treated)))}
    records = {member.key: run_stack(StackSpec(case, None, (member,)))[0] for member in (treated, plain)}
    assert said(mixed["t"]) == said(records["t"])
    assert said(mixed["p"]) == said(records["p"])
    assert records["t"].losses != records["p"].losses


def test_a_member_without_a_weight_of_the_penalties_has_the_weight_1():
    case = Case(Odd, odd_rows, penalized, "code", train={"epochs": 1, "batch_size": 45, "learning_rate": 1e-2})
    stack = tuple(StackMember(f"b{i}", "v", levels, 5) for i, levels in enumerate(({}, {"beta": 1.0}, {"beta": 0.001})))
    plain, one, light = run_stack(StackSpec(case, None, stack))
    assert plain.losses == one.losses
    assert light.losses["weights"] > 1.1 * plain.losses["weights"]
