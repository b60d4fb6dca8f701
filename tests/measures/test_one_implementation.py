"""The number of each documented measure is the number in a diagnosis."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import harness
import harness.measures
from harness.diagnosis import redundancy, redundancy_large
from harness.measures.ranks import average_ranks
from harness.measures.reliability import reliability_table
from harness.measures.unit_table import range_ratios

ROWS = 400


def normal(units: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(ROWS, units, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mixed() -> Tensor:
    """A ReLU layer with a constant unit, a dead one, a rare one, and one that is not finite."""
    layer = torch.relu(normal(6))
    layer[:, 1], layer[:, 2] = 0.75, 0.0
    layer[:, 3] *= torch.arange(ROWS) % 40 == 0
    layer[7, 4] = torch.nan
    return layer


LAYERS = {
    "relu": (mixed(), "relu"),
    "sigmoid": (torch.sigmoid(3 * normal()), "sigmoid"),
    "saturated sigmoid": (torch.sigmoid(60 * normal()), "sigmoid"),
    "tanh": (torch.tanh(normal()), "tanh"),
    "softplus": (torch.nn.functional.softplus(normal()), "softplus"),
    "bfloat16": (torch.relu(normal()).bfloat16(), "relu"),
    "large": (1e200 * normal(dtype=torch.float64), "none"),
    "small": (1e-200 * normal(dtype=torch.float64), "none"),
    "offset": (1e4 + 0.05 * normal(), "none"),
    "zero": (torch.zeros(ROWS, 3), "relu"),
}
OF_UNITS = {
    "mean": "mean",
    "standard_deviation": "standard_deviation",
    "variation": "variation",
    "kurtosis": "kurtosis",
    "energy_share": "energy_share",
    "range_tolerance": "tolerance",
}
OF_ACTIVATIONS = ("activation_frequency", "entropy_bits")


def in_diagnosis(name: str, attribute: str) -> Tensor:
    layer, activation = LAYERS[name]
    units = harness.diagnose(layer, activation=activation).units
    return torch.tensor([getattr(unit, attribute) for unit in units], dtype=torch.float64)


def equal(first: Tensor, second: Tensor) -> None:
    assert first.tolist() == pytest.approx(second.tolist(), rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("measure", OF_UNITS)
def test_a_documented_measure_of_units_is_the_number_in_a_diagnosis(measure: str, name: str) -> None:
    layer, activation = LAYERS[name]
    if measure == "range_tolerance":
        # the scale of a sigmoid is at least 1 there
        measured = harness.measures.range_tolerance(layer, scale=1.0 if activation == "sigmoid" else None)
        measured = torch.where(torch.isfinite(measured), measured, torch.nan)
    else:
        measured = getattr(harness.measures, measure)(layer)
    equal(measured, in_diagnosis(name, OF_UNITS[measure]))


@pytest.mark.parametrize("name", LAYERS)
def test_frequency_entropy_range_and_activity_are_those_of_a_diagnosis(name: str) -> None:
    layer, activation = LAYERS[name]
    finite = torch.isfinite(layer).all(0)
    entropy = harness.measures.entropy_bits(layer, activation)
    equal(entropy, in_diagnosis(name, "entropy_bits"))
    width = torch.where(finite, harness.measures.resolution(layer, activation), torch.nan)
    equal(width, in_diagnosis(name, "resolution"))
    low, high = in_diagnosis(name, "minimum"), in_diagnosis(name, "maximum")
    equal(torch.where(finite, harness.measures.value_range(layer), torch.nan), high - low)
    frequency = torch.where(finite, harness.measures.activation_frequency(layer, activation), torch.nan)
    equal(frequency, in_diagnosis(name, "activation_frequency"))
    assert harness.measures.active_units(layer).tolist() == in_diagnosis(name, "active").bool().tolist()


@pytest.mark.parametrize("name", LAYERS)
def test_constant_is_a_range_ratio_of_at_most_one_and_the_size_is_the_layers(name: str) -> None:
    layer, activation = LAYERS[name]
    scale = 1.0 if activation == "sigmoid" else None
    ratio = in_diagnosis(name, "range_ratio")
    assert harness.measures.is_constant(layer, scale=scale).tolist() == (ratio <= 1).tolist()
    before = torch.from_numpy(range_ratios(layer[None], layer.dtype)[0])
    assert harness.measures.is_constant(layer).tolist() == (before <= 1).tolist()
    diagnosis = harness.diagnose(layer, activation=activation)
    assert harness.measures.layer_root_mean_square(layer).item() == diagnosis.measures["rms"]


@pytest.mark.parametrize("name", ["sigmoid", "saturated sigmoid"])
def test_the_saturated_share_is_that_of_a_diagnosis(name: str) -> None:
    equal(harness.measures.saturated_share(LAYERS[name][0]), in_diagnosis(name, "saturated"))


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softplus", "large", "small", "offset"])
def test_the_layer_s_dimensions_are_those_of_a_diagnosis(name: str) -> None:
    layer, activation = LAYERS[name]
    measures = harness.diagnose(layer, activation=activation).measures
    assert harness.measures.effective_rank(layer).item() == pytest.approx(measures["effective_rank"], rel=1e-9)
    ratio = harness.measures.participation_ratio(layer)
    assert ratio.item() == pytest.approx(measures["participation_ratio"], rel=1e-9)
    corrected = harness.measures.participation_ratio(layer, corrected=True).item()
    assert corrected == pytest.approx(measures["participation_ratio_corrected"], rel=1e-9)


def test_information_and_its_test_are_those_of_a_diagnosis() -> None:
    layer, labels = LAYERS["softplus"][0], torch.arange(ROWS) % 3
    layer = layer + labels[:, None] * torch.tensor([2.0, 0.3, 0.0, 0.0, 0.0])
    factor = layer[:, 1].double() + normal(1, 5)[:, 0]
    units = harness.diagnose(layer, activation="none", labels=labels, factors={"size": factor}).units
    for name, reference in (("labels", labels), ("size", factor)):
        expected = harness.dependence(layer, reference)
        stored = [unit.references[name] for unit in units]
        assert [each.mutual_information for each in stored] == expected.value.tolist()
        assert [each.p for each in stored] == expected.p.tolist()
        assert [each.interval for each in stored] == list(zip(*expected.interval, strict=True))
        assert [each.delta for each in stored] == expected.delta.tolist()


def test_there_is_one_function_of_average_ranks_and_it_is_scipys() -> None:
    values = torch.relu(normal(4)).T
    assert redundancy.average_ranks is redundancy_large.average_ranks is average_ranks
    np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values.numpy(), axis=-1))
    stack = torch.stack([values, values.flip(-1)])
    np.testing.assert_array_equal(average_ranks(stack)[1], average_ranks(values.flip(-1)))


def test_reliability_is_the_covariance_of_two_passes_over_their_mean_variance() -> None:
    signal = normal(3, dtype=torch.float64)
    first, second = signal + normal(3, 1).double(), signal + normal(3, 2).double()
    table = reliability_table(first[None], second[None], np.zeros((1, 3)))
    for unit in range(3):
        covariance = np.cov(first[:, unit], second[:, unit], bias=True)
        expected = covariance[0, 1] / ((covariance[0, 0] + covariance[1, 1]) / 2)
        assert table["reliability"][0, unit] == pytest.approx(expected, rel=1e-12)
