"""Products with what all members share, against each member's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from harness.placement import PlaceInvariant
from harness.training.kernels import StackKernels
from harness.training.products import FIRST_FACTOR, is_member_product, separate_factors

SHARED = torch.randn(11, 7, generator=torch.Generator().manual_seed(1))
ROWS = torch.randn(45, 11, generator=torch.Generator().manual_seed(2))
PRODUCTS = {
    "addmm": lambda rows: torch.addmm(SHARED[0], rows, SHARED),
    "addmv": lambda rows: torch.addmv(rows[:, 0], rows, SHARED[:, 0]),
    "at": lambda rows: rows @ SHARED,
    "inner": lambda rows: torch.inner(rows, SHARED.T),
    "linear": lambda rows: F.linear(rows, SHARED.T, SHARED[0]),
    "linear, by name": lambda rows: F.linear(input=rows, weight=SHARED.T, bias=None),
    "matmul": lambda rows: rows.matmul(SHARED),
    "mm": lambda rows: torch.mm(rows, SHARED),
    "mv": lambda rows: rows.mv(SHARED[:, 0]),
    "tensordot": lambda rows: torch.tensordot(rows, SHARED, 1),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_member_s_product_has_the_same_bits_in_any_stack_and_its_gradient_too(name):
    def squares(rows):
        return PRODUCTS[name](rows).square().sum()

    def stacked(function, members):
        with StackKernels(), PlaceInvariant():
            return vmap(function)(ROWS.expand(members, *ROWS.shape).contiguous())

    for function in (PRODUCTS[name], grad(squares)):
        results = [stacked(function, members) for members in (2, 8, 33)]
        for result in results:
            assert torch.equal(result, results[0][:1].expand_as(result))
        # only the order of the additions is another
        torch.testing.assert_close(results[0][0], function(ROWS), rtol=1e-4, atol=1e-4)


def test_rows_that_all_members_share_are_not_copied():
    def product(weight):
        args, _ = separate_factors(torch.matmul, (ROWS, weight), {})
        assert args[0] is ROWS
        return torch.matmul(*args)

    assert vmap(product)(SHARED.expand(3, 11, 7)).shape == (3, 45, 7)


def test_what_differs_from_member_to_member_is_told_from_what_does_not():
    told = []

    def look(rows):
        told.append((is_member_product(rows), is_member_product(SHARED), is_member_product(3)))
        return rows.sum()

    vmap(grad(look))(torch.zeros(2, 3))
    look(torch.zeros(3))
    assert told == [(True, False, False), (False, False, False)]


def test_a_product_without_factors_is_torchs_own_error():
    for product in FIRST_FACTOR:
        assert separate_factors(product, (), {}) == ((), {})
