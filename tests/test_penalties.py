"""Penalties against torch's own divergence, and what each of them can and cannot do."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence
from torch.func import vmap

from harness.errors import HarnessError
from harness.penalties import bernoulli_kl, bernoulli_kl_of_logits, hard_count, keep_largest, l1

ROOT = Path(__file__).parents[1]
CODE = torch.relu(torch.randn(3, 32, 4, generator=torch.Generator().manual_seed(0)))


def test_the_kl_is_that_of_two_coins_summed_over_units():
    means = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.05
    expected = kl_divergence(Bernoulli(torch.tensor(0.05)), Bernoulli(means)).sum(-1)
    assert torch.allclose(bernoulli_kl(0.05, means), expected, rtol=1e-4)  # float32, differences of logarithms


def test_a_constant_unit_at_the_target_satisfies_the_kl_and_says_nothing():
    assert bernoulli_kl(0.05, torch.full((32, 4), 0.05).mean(-2)).item() == pytest.approx(0, abs=1e-6)


def test_the_sigmoid_of_a_relu_cannot_come_below_its_floor_and_pushes_down_whatever_fires():
    code = CODE[0].clone().requires_grad_()
    term = bernoulli_kl(0.05, torch.sigmoid(code).mean(-2))
    floor = 4 * kl_divergence(Bernoulli(torch.tensor(0.05)), Bernoulli(torch.tensor(0.5))).item()
    assert term.item() > floor == pytest.approx(4 * 0.4946, abs=1e-3)
    assert (torch.autograd.grad(term, code)[0] > 0).all()


def test_a_hard_count_counts_and_has_no_gradient():
    code = CODE.clone().requires_grad_()
    assert hard_count(code).tolist() == pytest.approx([(each > 0).sum().item() / 32 for each in CODE])
    assert not hard_count(code).requires_grad


def test_l1_is_least_when_every_unit_is_silent():
    assert l1(torch.zeros(5, 3)).item() == 0
    assert torch.allclose(l1(CODE), CODE.abs().sum((-1, -2)) / 32)


def test_top_k_keeps_what_sorting_would_keep():
    for row, kept in zip(CODE[0], keep_largest(CODE, 2)[0], strict=True):
        largest = set(row.sort(descending=True).values[:2].tolist())
        assert kept.tolist() == [value if value in largest else 0.0 for value in row.tolist()]


def by_sorting(row, count):
    """The reference: Python's stable sort, the largest first and of equal ones the first."""
    order = sorted(range(len(row)), key=lambda unit: -row[unit])[:count]
    return [value if unit in order else 0.0 for unit, value in enumerate(row)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 100])
def test_of_equal_units_exactly_the_first_are_kept(count):
    rows = torch.randint(-2, 3, (200, 6), generator=torch.Generator().manual_seed(2)).float()
    rows[0], rows[1] = 2.0, torch.tensor([0.0, 3.0, 3.0, 1.0, 3.0, 3.0])
    expected = torch.tensor([by_sorting(row, count) for row in rows.tolist()])
    assert torch.equal(keep_largest(rows, count), expected)
    assert torch.equal(vmap(lambda member: keep_largest(member, count))(rows.view(4, 50, 6)).view(200, 6), expected)
    assert int((keep_largest(rows + 3, count) != 0).sum(-1).max()) <= count


def test_what_is_kept_keeps_its_gradient_and_an_infinity_or_nan_is_not_hidden():
    rows = torch.tensor([[1.0, 3.0, 3.0, 2.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(keep_largest(rows, 2).pow(2).sum(), rows)
    assert slope.tolist() == [[0.0, 6.0, 6.0, 0.0]]
    assert keep_largest(torch.tensor([[torch.inf, 1.0, torch.inf]]), 1).tolist() == [[torch.inf, 0.0, 0.0]]
    assert keep_largest(torch.tensor([[1.0, torch.nan, 2.0]]), 1).isnan().tolist() == [[False, True, False]]


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", None])
def test_a_count_that_keeps_nothing_or_is_no_whole_number_is_refused(count):
    with pytest.raises(HarnessError, match=r"keep_largest: count: expected a whole number from 1, got"):
        keep_largest(CODE, count)


def test_the_contract_names_the_parameters():
    assert torch.equal(keep_largest(activations=CODE, count=1), keep_largest(CODE, 1))
    assert torch.equal(l1(activations=CODE), l1(CODE))
    assert torch.equal(hard_count(activations=CODE), hard_count(CODE))


@pytest.mark.parametrize(
    "penalty",
    [
        l1,
        hard_count,
        lambda code: bernoulli_kl(0.05, torch.sigmoid(code).mean(-2)),
        lambda code: bernoulli_kl_of_logits(0.05, code),
    ],
)
def test_a_stack_is_penalised_as_its_members_are_alone(penalty):
    assert torch.allclose(penalty(CODE), torch.stack([penalty(each) for each in CODE]))


def test_the_penalties_are_reached_from_the_package():
    code = "import harness; print(harness.penalties.keep_largest.__name__, 'penalties' in dir(harness))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["keep_largest", "True"], done.stderr
