"""Moments, range, frequency, entropy of single units, against scipy and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from harness.errors import HarnessError
from harness.measures import (
    activation_frequency,
    active_units,
    entropy_bits,
    fires,
    is_constant,
    kurtosis,
    range_tolerance,
    resolution,
    saturated_share,
    standard_deviation,
    value_range,
    variance,
)
from harness.measures.units import FIRES_ABOVE


def normal(rows: int = 500, units: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, units, generator=torch.Generator().manual_seed(seed))


def test_variance_survives_an_offset_that_one_pass_in_float32_does_not() -> None:
    values = (1e4 + 0.05 * normal()).float()
    one_pass = (values**2).mean(0) - values.mean(0) ** 2
    expected = np.var(values.double().numpy(), axis=0)
    assert np.allclose(variance(values), expected, rtol=1e-9)
    assert not np.allclose(one_pass, expected, rtol=0.5)


def test_kurtosis_is_scipys() -> None:
    values = normal().double() ** 3
    assert np.allclose(kurtosis(values), stats.kurtosis(values.numpy(), fisher=False))


def test_kurtosis_does_not_leave_the_range_of_float64() -> None:
    assert np.allclose(kurtosis(normal().double() * 1e150), kurtosis(normal().double()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_rounding_noise_is_constant_and_the_smallest_real_change_is_not(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    factor = 4 if dtype in (torch.float16, torch.bfloat16) else 64
    values = torch.full((100, 2), 1.0, dtype=dtype)
    values[0, 0] += factor * eps
    values[0, 1] += 2 * factor * eps
    assert is_constant(values).tolist() == [True, False]


def test_the_models_own_precision_counts_where_a_copy_is_judged() -> None:
    copy = torch.full((10, 1), 3.0) + 1e-6 * torch.rand(10, 1, generator=torch.Generator().manual_seed(0))
    assert not is_constant(copy.double()).item()
    assert is_constant(copy.double(), dtype="float32").item()
    assert is_constant(copy.double(), dtype=torch.float32).item()
    assert is_constant(copy.double(), dtype=np.float32).item()
    assert is_constant(copy.double(), dtype=np.dtype("float32")).item()


def test_the_scale_of_a_sum_that_cancels_widens_the_tolerance() -> None:
    values = torch.tensor([[0.0], [1e-5]])
    assert not is_constant(values).item()
    assert is_constant(values, scale=torch.tensor([100.0])).item()
    assert range_tolerance(values, scale=2.0).item() == 64 * 2**-23 * 2


def test_what_is_not_finite_is_not_constant() -> None:
    values = torch.tensor([[1.0, torch.inf, torch.nan], [1.0, torch.inf, 1.0]])
    assert is_constant(values).tolist() == [True, False, False]
    assert math.isnan(value_range(values)[1])


def test_a_precision_that_no_model_computes_in_is_refused() -> None:
    with pytest.raises(HarnessError, match="no precision is called 'float8'"):
        range_tolerance(normal(), dtype="float8")


@pytest.mark.parametrize("name", [name for name, threshold in FIRES_ABOVE.items() if threshold is not None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_unit_fires_exactly_where_its_preactivation_is_positive(name: str, dtype: torch.dtype) -> None:
    before = torch.tensor([[-2.0], [-0.5], [0.0], [0.5], [2.0]], dtype=dtype)
    function = torch.sigmoid if name == "sigmoid" else getattr(torch.nn.functional, name)
    assert fires(function(before), name).flatten().tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("name", ["tanh", "none", "linear"])
def test_units_without_an_off_state_have_no_frequency(name: str) -> None:
    assert activation_frequency(normal(), name).isnan().all()
    assert not fires(normal(), name).any()


def test_a_misspelt_activation_is_refused_with_a_suggestion() -> None:
    with pytest.raises(HarnessError, match="did you mean 'leaky_relu'"):
        activation_frequency(normal(), "leaky-relu")


def test_entropy_of_a_uniform_sigmoid_is_six_bits() -> None:
    values = torch.rand(200_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # cells of 1/64 centred on multiples: 63 whole ones and a half at either end
    exact = (63 * 6 + 7) / 64
    assert entropy_bits(values, "sigmoid").item() == pytest.approx(exact, abs=2e-3)


def test_the_corrections_mean_is_right_where_the_plug_in_entropy_is_not() -> None:
    # 32 values equally often, 128 rows: the plug-in estimate misses a sixth of a bit
    drawn = torch.randint(0, 32, (128, 400), generator=torch.Generator().manual_seed(1)) / 32.0
    plain = np.mean([stats.entropy(np.unique(column, return_counts=True)[1], base=2) for column in drawn.T.numpy()])
    assert plain < 4.85
    assert entropy_bits(drawn, "sigmoid").mean().item() == pytest.approx(5.0, abs=0.03)


def test_the_resolution_of_a_relu_layer_is_the_layers_and_not_the_units() -> None:
    values = torch.relu(normal(2000, 2))
    values[:, 1] *= 1e-4
    assert resolution(values).item() == pytest.approx((values.double() ** 2).mean().sqrt().item() / 32)
    assert entropy_bits(values)[1].item() == 0
    assert entropy_bits(torch.zeros(10, 2)).tolist() == [0, 0]


def test_burdas_active_unit_and_saturation_are_thresholds_on_variance_and_value() -> None:
    values = torch.tensor([[0.0, 0.0005], [0.3, 0.5]])
    assert active_units(values).tolist() == [True, True]
    assert active_units(values / 10).tolist() == [False, False]
    assert saturated_share(values).tolist() == [0.5, 0.5]
    assert standard_deviation(values)[0].item() == pytest.approx(0.15)
