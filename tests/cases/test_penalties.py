"""Penalties against torch's own divergence, and what each of them can and cannot do."""

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from harness.penalties import bernoulli_kl, hard_count, keep_largest, l1

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


@pytest.mark.parametrize("penalty", [l1, hard_count, lambda code: bernoulli_kl(0.05, torch.sigmoid(code).mean(-2))])
def test_a_stack_is_penalised_as_its_members_are_alone(penalty):
    assert torch.allclose(penalty(CODE), torch.stack([penalty(each) for each in CODE]))
