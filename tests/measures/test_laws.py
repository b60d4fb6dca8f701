"""What every measure of the table obeys; a new entry is tested before anyone writes a test."""

import pytest
import torch
from torch import Tensor

import harness.measures
from harness.measures.laws import MEASURES


def layer(members: int = 3, rows: int = 60, units: int = 5) -> Tensor:
    """A ReLU stack with a constant unit and a rare one."""
    code = torch.relu(torch.randn(members, rows, units, generator=torch.Generator().manual_seed(5)))
    code[..., 1] = 0.75
    code[..., 2] *= torch.arange(rows) % 20 == 0
    return code


def measured(name: str, activations: Tensor) -> Tensor:
    return getattr(harness.measures, name)(activations).double()


def same(first: Tensor, second: Tensor) -> None:
    # sums of float64 in another order differ in their last digits
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", MEASURES)
def test_a_stack_is_each_member_alone(name: str) -> None:
    stack = layer()
    same(measured(name, stack), torch.stack([measured(name, member) for member in stack]))
    same(measured(name, stack[None]), measured(name, stack)[None])


@pytest.mark.parametrize("shape", [(51, 5), (100, 7), (33, 3), (64, 20)], ids=str)
@pytest.mark.parametrize("name", MEASURES)
def test_a_member_has_the_same_bits_in_every_company(name: str, shape: tuple[int, int]) -> None:
    member = layer(1, *shape)
    alone = measured(name, member)[0]
    for members, place in ((2, 1), (3, 0), (11, 10), (24, 13)):
        others = 100 * layer(members, *shape).flip(0)
        others[place] = member[0]
        for stack in (others, member.expand(members, *shape).contiguous()):
            assert torch.equal(measured(name, stack)[place].nan_to_num(77), alone.nan_to_num(77))


@pytest.mark.parametrize("name", MEASURES)
def test_the_order_of_rows_means_nothing(name: str) -> None:
    stack = layer()
    same(
        measured(name, stack[:, torch.randperm(60, generator=torch.Generator().manual_seed(1))]), measured(name, stack)
    )


@pytest.mark.parametrize("name", MEASURES)
def test_permuting_units_permutes_results(name: str) -> None:
    stack, order = layer(), torch.tensor([3, 0, 4, 2, 1])
    found, permuted = measured(name, stack), measured(name, stack[..., order])
    axes = MEASURES[name].axes
    if axes in ("unit", "pair"):
        found = found[..., order]
    same(permuted, found[..., order, :] if axes == "pair" else found)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("factor", [0.125, 1024.0])
def test_scaling_a_relu_layer_scales_by_the_declared_power(name: str, factor: float) -> None:
    stack = layer()
    same(measured(name, stack * factor), measured(name, stack) * factor ** MEASURES[name].power)


@pytest.mark.parametrize("name", [name for name, measure in MEASURES.items() if measure.repeats])
def test_rows_that_are_there_twice_change_nothing(name: str) -> None:
    stack = layer()
    same(measured(name, stack.repeat(1, 2, 1)), measured(name, stack))


@pytest.mark.parametrize("name", [name for name, measure in MEASURES.items() if not measure.repeats])
def test_what_does_depend_on_the_number_of_rows_is_declared_so(name: str) -> None:
    stack = layer()
    assert not torch.allclose(measured(name, stack.repeat(1, 2, 1)), measured(name, stack), equal_nan=True)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_unit_that_is_not_finite_leaves_the_others_numbers_as_they_were(name: str, value: float) -> None:
    broken = layer()
    broken[..., 0, 4] = value
    others = {"unit": (..., slice(4)), "pair": (..., slice(4), slice(4)), "member": ...}[MEASURES[name].axes]
    same(measured(name, broken)[others], measured(name, layer()[..., :4]))


def test_a_layer_without_a_finite_unit_has_no_size() -> None:
    assert harness.measures.layer_root_mean_square(torch.full((3, 2), torch.nan)).isnan().item()
    assert harness.measures.entropy_bits(torch.full((3, 2), torch.nan)).isnan().all()


def test_the_size_of_a_layer_does_not_leave_the_range_of_float64() -> None:
    assert harness.measures.layer_root_mean_square(torch.full((3, 2), 1e200, dtype=torch.float64)).item() == 1e200


@pytest.mark.parametrize("name", [name for name, measure in MEASURES.items() if measure.axes == "unit"])
def test_a_wide_layer_is_measured_in_pieces_of_the_same_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(name, layer())
    monkeypatch.setattr(harness.measures.chunks, "UNIT_CHUNK", 1)
    same(measured(name, layer()), whole)
