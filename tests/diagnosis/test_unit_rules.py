"""Every verdict of a unit fires on its planted fault, at the edge of its definition, and not beyond."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from synthetic_codes import ROWS, normal
from torch import Tensor

from harness import diagnose
from harness.measures.unit_table import passed_on


def verdict(unit: Tensor, activation: str = "relu", **options: object) -> str:
    """Verdict on a unit beside a healthy one."""
    other = torch.sigmoid(normal(len(unit), 1, seed=9)[:, 0]).to(unit.dtype)
    return str(diagnose(torch.stack([unit, other], 1), activation=activation, **options).units[0].verdict)


def on_rows(count: int, rows: int = ROWS, below: float = 0.0) -> Tensor:
    unit = torch.full((rows,), below)
    unit[:count] = torch.arange(1, count + 1).float()
    return unit


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_value_makes_a_unit_invalid_and_leaves_the_others_numbers_alone(bad: float) -> None:
    code = torch.relu(normal(units=4))
    spoilt = torch.cat([code, torch.full((ROWS, 1), 1.0)], 1)
    spoilt[7, 4] = bad
    diagnosis, alone = diagnose(spoilt), diagnose(code)
    assert diagnosis.verdict == "invalid"
    assert diagnosis.units[4].verdict == "invalid"
    assert math.isnan(diagnosis.units[4].mean)
    for mine, theirs in zip(diagnosis.units, alone.units, strict=False):
        assert mine.verdict == "alive"
        assert (mine.mean, mine.entropy_bits, mine.kurtosis) == (theirs.mean, theirs.entropy_bits, theirs.kurtosis)


def test_one_row_is_not_testable() -> None:
    diagnosis = diagnose(torch.ones(1, 3))
    assert diagnosis.verdict == "not_testable"
    assert diagnosis.flags == ()


def test_identical_inputs_are_not_testable() -> None:
    diagnosis = diagnose(torch.relu(normal()), inputs=torch.ones(ROWS, 5))
    assert diagnosis.verdict == "not_testable"
    assert {unit.verdict for unit in diagnosis.units} == {"not_testable"}


def test_an_invalid_unit_precedes_too_few_rows() -> None:
    diagnosis = diagnose(torch.tensor([[math.nan, 1.0]]))
    assert diagnosis.verdict == "invalid"
    assert [unit.verdict for unit in diagnosis.units] == ["invalid", "not_testable"]


@pytest.mark.parametrize(
    ("rows", "expected"), [(2, "never_fired"), (367, "never_fired"), (368, "dead"), (5000, "dead")]
)
def test_never_becomes_dead_when_the_rows_rule_out_one_in_a_hundred(rows: int, expected: str) -> None:
    assert verdict(torch.zeros(rows)) == expected


def test_dead_states_its_resolution() -> None:
    bounds = diagnose(torch.zeros(5000, 2)).units[0].activation_frequency_bounds
    assert bounds[1] == pytest.approx(7.4e-4, rel=0.01)


@pytest.mark.parametrize("activation", ["leaky_relu", "elu", "gelu", "silu", "softplus"])
def test_a_constant_negative_side_is_dead(activation: str) -> None:
    assert verdict(torch.full((ROWS,), 0.1 if activation == "softplus" else -0.1), activation) == "dead"


def test_a_sigmoid_pinned_at_its_target_is_constant_at_target() -> None:
    pinned = torch.full((ROWS,), 0.05)
    assert verdict(pinned, "sigmoid", target=0.05) == "constant_at_target"
    assert verdict(pinned * 1.1, "sigmoid", target=0.05) == "constant_at_target"
    assert verdict(pinned * 1.11, "sigmoid", target=0.05) == "constant_off"
    assert verdict(pinned, "sigmoid") == "constant_off"


def test_dead_precedes_the_target() -> None:
    assert verdict(torch.zeros(ROWS), "relu", target=0.0) == "dead"


def test_a_constant_unit_that_fires_is_constant_on() -> None:
    assert verdict(torch.full((ROWS,), 0.7)) == "constant_on"
    assert verdict(torch.full((ROWS,), 0.7), "sigmoid") == "constant_on"


@pytest.mark.parametrize("activation", ["tanh", "none", "linear"])
def test_without_an_off_state_there_is_only_constant(activation: str) -> None:
    assert verdict(torch.full((ROWS,), 0.7), activation) == "constant_off"
    assert verdict(torch.zeros(ROWS), activation) == "constant_off"


def test_a_leaky_unit_on_its_negative_side_is_subthreshold() -> None:
    assert verdict(-0.01 * normal()[:, 0].abs() - 0.001, "leaky_relu") == "subthreshold"


def test_a_sigmoid_that_stays_below_a_half_is_subthreshold() -> None:
    assert verdict(0.2 + 0.1 * torch.tanh(normal()[:, 0]), "sigmoid") == "subthreshold"


@pytest.mark.parametrize(("crossings", "expected"), [(4, "subthreshold"), (5, "alive")])
def test_subthreshold_ends_at_five_firing_rows(crossings: int, expected: str) -> None:
    unit = -0.01 * normal()[:, 0].abs() - 0.001
    unit[:crossings] = 1.0
    assert verdict(unit, "leaky_relu") == expected


@pytest.mark.parametrize(("count", "expected"), [(1, "rare_insufficient"), (4, "rare_insufficient"), (5, "rare")])
def test_five_firing_rows_make_a_rare_unit(count: int, expected: str) -> None:
    assert verdict(on_rows(count)) == expected
    assert verdict(on_rows(count, below=-0.01), "leaky_relu") == expected


@pytest.mark.parametrize(("count", "expected"), [(9, "rare"), (10, "alive")])
def test_rare_is_below_one_row_in_a_hundred(count: int, expected: str) -> None:
    assert verdict(on_rows(count, rows=1000)) == expected


@pytest.mark.parametrize(("spread", "expected"), [(0.0009, "near_constant"), (0.0011, "alive")])
def test_near_constant_is_below_a_thousandth_of_the_rms(spread: float, expected: str) -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(ROWS // 2).double()
    assert verdict(1 + spread * signs) == expected


def test_a_binary_sigmoid_is_saturated_bimodal() -> None:
    ends = (normal()[:, 0] > 0).float() * 0.9998 + 0.0001
    assert verdict(ends, "sigmoid") == "saturated_bimodal"
    ends[: ROWS // 10] = 0.3 + 0.4 * torch.rand(ROWS // 10)
    assert verdict(ends, "sigmoid") == "alive"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rounding_is_judged_in_the_models_own_precision(dtype: torch.dtype) -> None:
    step = torch.finfo(dtype).eps
    few = 2 if dtype in (torch.float16, torch.bfloat16) else 32
    unit = torch.ones(ROWS, dtype=dtype)
    unit[::2] += few * step
    assert verdict(unit) == "constant_on"
    assert verdict(unit.double(), dtype=str(dtype).removeprefix("torch.")) == "constant_on"
    unit[::2] += 40 * few * step
    assert verdict(unit) != "constant_on"


PRECISIONS = [torch.float16, torch.bfloat16, torch.float32]


def behind_a_sum(
    function: Callable[[Tensor], Tensor], level: float, spread: float, dtype: torch.dtype
) -> tuple[Tensor, dict[str, Tensor]]:
    """A unit whose sum is `level` + `spread` times noise, of terms that cancel, added in `dtype`; what is known of the sum."""
    draws = normal()[:, :4].double() * 2
    terms = torch.cat([draws, -draws, spread * normal(seed=1)[:, :1].double()], 1)
    total = torch.full((ROWS,), level, dtype=dtype)
    for term in terms[:, torch.tensor([0, 1, 2, 3, 6, 4, 7, 5, 8])].to(dtype).T:
        total = total + term
    scale = terms.abs().mean(0).sum() + abs(level)
    return function(total), {"scale": scale.expand(2), "normalised": torch.stack([total, normal(seed=9)[:, 0]], 1)}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("function", "level"), [("sigmoid", -4.0), ("sigmoid", 0.0), ("sigmoid", 4.0), ("tanh", 1.5)])
def test_a_bounded_unit_that_only_rounding_moves_is_constant(function: str, level: float, dtype: torch.dtype) -> None:
    unit, made = behind_a_sum(getattr(torch, function), level, 0.0, dtype)
    assert len(unit.unique()) > 1
    assert verdict(unit, function, scale=made["scale"]).startswith("constant")


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("function", "level"), [("sigmoid", -4.0), ("sigmoid", 4.0), ("tanh", 1.5)])
def test_the_slope_of_a_bounded_function_narrows_the_tolerance_of_its_sum(
    function: str, level: float, dtype: torch.dtype
) -> None:
    unit, made = behind_a_sum(getattr(torch, function), level, 0.5, dtype)
    assert not verdict(unit, function, scale=made["scale"]).startswith("constant")


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("function", ["leaky_relu", "softplus", "silu", "gelu", "elu"])
def test_on_its_flat_side_a_unit_is_dead_only_if_its_sum_is_constant(function: str, dtype: torch.dtype) -> None:
    rounded, made = behind_a_sum(getattr(torch.nn.functional, function), -3.0, 0.0, dtype)
    assert len(rounded.unique()) > 1
    assert verdict(rounded, function, **made) == "dead"
    varies, made = behind_a_sum(getattr(torch.nn.functional, function), -3.0, 0.6, dtype)
    assert varies.double().max() < 0.5
    assert verdict(varies, function, **made) == "subthreshold"


def test_an_error_of_the_sum_explains_what_it_passes_on() -> None:
    sums = torch.linspace(-1.0, -0.5, 51).double()[None]
    values = torch.nn.functional.gelu(sums)  # least at -0.75
    whole, parts = (passed_on(sums, values, torch.tensor([error])) for error in (0.51, 0.105))
    assert whole.item() == (values.amax() - values.amin()).item()
    assert parts.item() == pytest.approx((values[0, 50] - values[0, 40]).item())
    left_out = torch.cat([sums, torch.full((1, 2), torch.inf)], 1)
    padded = torch.cat([values, values.amax().expand(1, 2)], 1)
    assert passed_on(left_out, padded, torch.tensor([0.105])) == parts


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_without_the_sum_a_small_sigmoid_is_judged_by_its_logit(dtype: torch.dtype) -> None:
    rounded = torch.full((ROWS,), -7.0, dtype=dtype)
    rounded[::2] += 8 * torch.finfo(dtype).eps  # two neighbors of -7
    assert verdict(torch.sigmoid(rounded), "sigmoid") == "constant_off"
    varies = torch.sigmoid((normal()[:, 0] - 8).to(dtype))  # largest value about 0.01
    assert verdict(varies, "sigmoid") == "subthreshold"


def test_a_copy_in_double_precision_needs_to_be_told_the_models() -> None:
    unit = torch.ones(ROWS).double() + 1e-6 * normal()[:, 0].double().clamp(-1, 1)
    assert verdict(unit) == "near_constant"
    assert verdict(unit, dtype=np.float32) == "constant_on"


def test_a_sum_that_cancels_is_judged_by_the_size_of_its_terms() -> None:
    unit = 1e-6 * normal()[:, :1].abs() + 1e-6
    assert diagnose(unit, activation="relu").units[0].verdict == "alive"
    assert diagnose(unit, activation="relu", scale=[1000.0]).units[0].verdict == "constant_on"


def test_noise_that_a_normalisation_blew_up_is_constant() -> None:
    noise = 1e-7 * torch.randint(-2, 3, (ROWS, 1)).float()
    blown_up = (noise - noise.mean()) / noise.std()
    diagnosis = diagnose(blown_up, activation="none", normalised=1 + noise)
    assert diagnose(blown_up, activation="none").units[0].verdict == "alive"
    assert diagnosis.units[0].verdict == "constant_off"


def test_softplus_fires_where_its_pre_activation_is_positive() -> None:
    diagnosis = diagnose(torch.nn.functional.softplus(normal()), activation="softplus")
    assert diagnosis.units[0].activation_frequency == pytest.approx(0.5, abs=0.05)
    assert torch.nn.functional.softplus(torch.zeros(1)).item() > math.log(
        2
    )  # in float32, which must not count as firing
    assert diagnose(torch.nn.functional.softplus(torch.zeros(400, 1)), activation="softplus").units[0].verdict == "dead"


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_verdicts_do_not_depend_on_the_scale_of_a_relu_layer(size: float) -> None:
    diagnosis = diagnose(torch.relu(normal()).double() * size)
    assert diagnosis.verdict == "healthy"
    assert diagnosis.units[0].kurtosis == pytest.approx(diagnose(torch.relu(normal()).double()).units[0].kurtosis)
