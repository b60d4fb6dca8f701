"""The cut into stacks: by structure, never by what a member's numbers are, and a function of the experiment alone."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import processor_seconds

from harness.grid import Experiment, stacks
from harness.grid.stack_plan import LARGEST, MULTIPLE, WORTH_A_START, chunk_sizes, dealt


def experiment(seeds=10, **factors):
    return Experiment(name="e", case="forum", factors=factors, seeds=tuple(range(seeds)))


def test_members_that_differ_in_numbers_share_a_stack():
    found = stacks(experiment(8, rho=[0.05, 0.1], beta=[0.001, "matched"]))
    assert [len(each.members) for each in found] == [32]
    assert found[0].why == "one structure: members differ in numbers and seeds only"


def test_members_that_differ_in_structure_do_not():
    found = stacks(experiment(8, activation=["relu", "elu"], rho=[0.05, 0.1], batchnorm=["off", "on"]))
    assert [len(each.members) for each in found] == [16] * 4
    assert {each.why for each in found} == {
        f"activation={a}, batchnorm={b}" for a in ("relu", "elu") for b in ("off", "on")
    }
    for each in found:
        assert len({(m.variant.levels["activation"], m.variant.levels["batchnorm"]) for m in each.members}) == 1


@given(st.integers(1, 5000))
def test_stacks_hold_at_most_64_and_all_but_the_last_a_multiple_of_8(members):
    sizes = chunk_sizes(members)
    assert sum(sizes) == members
    assert max(sizes) <= LARGEST
    assert all(size % MULTIPLE == 0 for size in sizes[:-1])
    assert all(sizes)


def test_a_structure_with_more_members_is_told_in_parts():
    found = stacks(experiment(80, rho=[0.05, 0.1]))
    assert [len(each.members) for each in found] == [56, 56, 48]
    assert found[1].why.endswith("part 2 of 3")


def test_every_member_is_in_exactly_one_stack():
    made = experiment(13, activation=["relu", "elu"], rho=[0.05, 0.1, 0.2])
    cut = [(m.variant.name, m.seed) for each in stacks(made) for m in each.members]
    assert sorted(cut) == sorted((m.variant.name, m.seed) for m in made.members())
    assert len(set(cut)) == len(cut)


def test_the_cut_depends_on_the_experiment_alone():
    made = experiment(20, activation=["relu", "elu"], rho=[0.05, 0.1, 0.2, 0.3])
    first = stacks(made)
    random.seed(1)
    assert first == stacks(Experiment(**made.to_dict()))


@pytest.mark.parametrize(("levels", "seeds"), [(50, 50), (100, 50)])
def test_a_hundred_thousand_members_are_cut_in_seconds(levels, seeds):
    numbers = [place / (levels + 1) for place in range(1, levels + 1)]

    def cut():
        made = experiment(seeds, rho=numbers[:20], beta=numbers, batchnorm=["off", "on"])
        assert sum(len(each.members) for each in stacks(made)) == 20 * levels * 2 * seeds

    assert processor_seconds(cut, 5.0) < 5.0  # 0.4 to 1 s


def slowest(sizes, workers):
    """Members of the worker that has most to do, where each takes the next stack when it is done with one."""
    loads = [0] * workers
    for size in sorted(sizes, reverse=True):
        loads[loads.index(min(loads))] += size
    return max(loads)


@given(st.lists(st.integers(1, LARGEST), max_size=40), st.integers(1, 20), st.sampled_from([0, 1260, 100_000]))
def test_what_is_shared_is_done_sooner(sizes, workers, steps):
    sizes = sorted(sizes, reverse=True)
    found = dealt(sizes, workers, steps)
    pieces = [size for parts in found for size in parts]
    assert [sum(parts) for parts in found] == sizes
    assert all(size <= LARGEST for size in pieces)
    assert all(size % MULTIPLE == 0 for parts in found for size in parts[:-1])
    assert found == [[size] for size in sizes] or slowest(pieces, workers) < slowest(sizes, workers)


def test_one_stack_is_shared_by_two_workers_and_full_rounds_are_left_whole():
    long = 10_000
    assert slowest([size for parts in dealt([64], 2, long) for size in parts], 2) == 32
    assert dealt([64] * 16, 2, long) == [[64]] * 16
    assert slowest([size for parts in dealt([64] * 17, 2, long) for size in parts], 2) == 64 * 17 / 2
    assert dealt([8] * 16, 2, long) == [[8]] * 16


def test_what_is_trained_sooner_than_a_worker_has_started_is_not_shared():
    assert dealt([64], 16, WORTH_A_START // 64) == [[64]]
    assert dealt([64], 16, WORTH_A_START // 16) == [[16] * 4]
    assert dealt([64], 16, WORTH_A_START) == [[8] * 8]
