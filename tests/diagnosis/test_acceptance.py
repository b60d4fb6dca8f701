"""The table that every tool must meet: codes of known truth, 2048 rows and 4 units."""

import pytest
import torch
from planted_codes import ROWS, beside_zeros, normal

from harness import diagnose

ON_A_QUARTER, ON_A_HUNDREDTH = 0.6745, 2.3263


def test_a_sparse_code_is_healthy() -> None:
    diagnosis = diagnose(torch.relu(normal() - ON_A_QUARTER))
    assert diagnosis.verdict == "healthy"
    assert [unit.verdict for unit in diagnosis.units] == ["alive"] * 4
    assert diagnosis.flags == ()


def test_one_constant_unit_among_zeros_is_a_full_collapse_with_dominance() -> None:
    diagnosis = diagnose(torch.tensor([[3.0, 0.0, 0.0, 0.0]]).expand(ROWS, 4))
    assert diagnosis.verdict == "full_collapse"
    assert "single_unit_dominance" in diagnosis.flags
    assert [unit.verdict for unit in diagnosis.units] == ["constant_on", "dead", "dead", "dead"]


def test_a_unit_that_moves_by_a_thousandth_is_not_constant() -> None:
    diagnosis = diagnose(beside_zeros(5 + 0.001 * normal()[:, 0]))
    assert diagnosis.verdict == "single_live_unit"
    assert "single_unit_dominance" in diagnosis.flags
    assert diagnosis.units[0].verdict == "near_constant"


def test_one_informative_unit_is_a_single_live_unit_without_dominance() -> None:
    diagnosis = diagnose(beside_zeros(torch.relu(normal()[:, 0])))
    assert diagnosis.verdict == "single_live_unit"
    assert diagnosis.flags == ()


def test_different_constant_units_are_a_full_collapse() -> None:
    assert diagnose(torch.tensor([[1.0, 2.0, 3.0, 4.0]]).expand(ROWS, 4)).verdict == "full_collapse"


def test_zeros_are_a_full_collapse_of_rank_zero() -> None:
    diagnosis = diagnose(torch.zeros(ROWS, 4))
    assert diagnosis.verdict == "full_collapse"
    assert diagnosis.measures["effective_rank"] == 0


@pytest.mark.parametrize("end", [20.0, -20.0])
def test_sigmoids_saturated_at_one_end_are_a_full_collapse(end: float) -> None:
    assert diagnose(torch.sigmoid(normal() + end), activation="sigmoid").verdict == "full_collapse"


@pytest.mark.parametrize("end", [20.0, -20.0, 40.0, -40.0])
@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_a_float64_copy_of_saturated_sigmoids_is_judged_as_the_float32_model_it_came_from(
    end: float, noise: float
) -> None:
    copy = torch.sigmoid(noise * normal() + end).double()
    assert diagnose(copy, activation="sigmoid", dtype="float32").verdict == "full_collapse"


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_float64_sigmoid_is_constant_where_float64_is(side: float) -> None:
    assert diagnose(torch.sigmoid(normal().double() + 40 * side), activation="sigmoid").verdict == "full_collapse"
    varies = diagnose(torch.sigmoid(normal().double() + 20 * side), activation="sigmoid")
    assert {unit.verdict for unit in varies.units} == {"near_constant" if side > 0 else "subthreshold"}


def test_copies_are_redundant() -> None:
    diagnosis = diagnose(torch.relu(normal()[:, :1]).expand(ROWS, 4))
    assert diagnosis.verdict == "redundant"
    assert [unit.flags for unit in diagnosis.units] == [(), *[("duplicate_of=0",)] * 3]


def test_a_narrow_sigmoid_code_is_healthy() -> None:
    assert diagnose(0.5 + 0.1 * normal(), activation="sigmoid").verdict == "healthy"


@pytest.mark.parametrize("seed", range(5))
def test_fresh_noise_is_a_full_collapse_of_stochastic_units(seed: int) -> None:
    first, second = torch.relu(normal(seed=seed)), torch.relu(normal(seed=seed + 100))
    diagnosis = diagnose(first, repeat=second)
    assert diagnosis.verdict == "full_collapse"
    assert all("stochastic" in unit.flags for unit in diagnosis.units)


def test_units_on_for_one_row_in_a_hundred_are_healthy() -> None:
    diagnosis = diagnose(torch.relu(normal() - ON_A_HUNDREDTH))
    assert diagnosis.verdict == "healthy"
    assert {unit.verdict for unit in diagnosis.units} <= {"alive", "rare"}
