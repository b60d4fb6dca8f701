"""Dimensions of the code against those that the inputs allow."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from synthetic_codes import ROWS, generator, labels, normal
from torch import Tensor

from harness import Thresholds, diagnose
from harness.diagnosis.redundancy import input_dimension


def mixed(rows: Tensor, units: int, seed: int = 3) -> Tensor:
    return rows @ torch.randn(rows.shape[1], units, generator=generator(seed))


def test_a_lossless_code_of_data_with_six_dimensions_is_healthy() -> None:
    inputs = mixed(normal(units=6), 40)
    code = mixed(inputs, 24, seed=4)
    diagnosis = diagnose(code, activation="none", inputs=inputs)
    assert (diagnosis.measures["rank"], diagnosis.measures["dimension"]) == (6, 6)
    assert diagnosis.verdict == "healthy"
    assert diagnose(code, activation="none").verdict == "dimensional_collapse"


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1])
def test_a_code_that_drops_most_dimensions_of_its_inputs_is_a_dimensional_collapse(noise: float) -> None:
    inputs = normal(units=30)
    narrow = mixed(inputs[:, :3], 16)
    narrow = narrow / narrow.std(0) + noise * normal(units=16, seed=4)
    diagnosis = diagnose(narrow, activation="none", inputs=inputs)
    assert (diagnosis.verdict, diagnosis.measures["rank"]) == ("dimensional_collapse", 3)
    (finding,) = [finding for finding in diagnosis.findings if finding.rule == "dimensional_collapse"]
    assert "rank 3 of 16 possible" in finding.evidence
    assert diagnose(mixed(inputs, 16), activation="none", inputs=inputs).verdict == "healthy"


def test_noise_features_do_not_raise_the_dimension_of_the_inputs() -> None:
    """A correlation matrix gives 34 features of noise at 1e-3 as much weight as six that carry the variance."""
    inputs = torch.cat([normal(units=6), 1e-3 * normal(units=34, seed=2)], 1)
    code = mixed(inputs[:, :6], 24)
    diagnosis = diagnose(code, activation="none", inputs=inputs)
    assert (diagnosis.measures["dimension"], diagnosis.verdict) == (6, "healthy")


def test_features_that_never_vary_are_no_dimensions() -> None:
    inputs = torch.cat([normal(units=3), torch.ones(ROWS, 5)], 1)
    assert input_dimension(inputs, False, Thresholds()) == 3
    assert input_dimension(torch.ones(ROWS, 5), False, Thresholds()) == 0


def test_the_dimension_of_the_inputs_is_the_smaller_of_rank_and_principal_components() -> None:
    from sklearn.decomposition import PCA

    inputs = normal(units=30) * torch.logspace(0, -2, 30)
    share = PCA().fit(inputs[:1024].numpy()).explained_variance_ratio_.cumsum()
    components = int((share < 0.99).sum()) + 1
    assert input_dimension(inputs[:1024], False, Thresholds()) == components < 30


def test_tokens_are_no_quantities() -> None:
    """The numbers of words have no correlation that means anything: the features themselves are counted."""
    tokens = torch.randint(0, 50, (ROWS, 1), generator=generator()).expand(ROWS, 8)
    code = torch.nn.Embedding(50, 8).weight.detach()[tokens[:, 0]]
    diagnosis = diagnose(code, activation="none", inputs=tokens)
    assert (diagnosis.measures["dimension"], diagnosis.verdict) == (8, "healthy")
    pixels = tokens.to(torch.uint8)
    assert diagnose(code, activation="none", inputs=pixels).measures["dimension"] == 1


def test_without_inputs_the_dimension_is_unknown() -> None:
    assert math.isinf(diagnose(normal()).measures["dimension"])


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_dimensions_do_not_depend_on_scale(size: float) -> None:
    inputs = mixed(normal(units=3), 10).double() * size
    diagnosis = diagnose(mixed(normal(units=3), 8).double() * size, activation="none", inputs=inputs)
    assert (diagnosis.measures["rank"], diagnosis.measures["dimension"]) == (3, 3)


def test_the_rank_is_the_number_of_large_eigenvalues_of_the_correlation_matrix() -> None:
    code = mixed(normal(units=5), 12) + 0.2 * normal(units=12, seed=7)
    power = np.linalg.eigvalsh(np.corrcoef(code.double().numpy().T))
    assert diagnose(code, activation="none").measures["rank"] == (power > 0.01 * power[-1]).sum()


@pytest.mark.parametrize("units", [16, 1100])
def test_a_wide_layer_counts_its_dimensions_as_a_narrow_one(units: int) -> None:
    code = mixed(normal(4 * units, 5), units)
    diagnosis = diagnose(code, activation="none")
    assert (diagnosis.measures["rank"], diagnosis.verdict) == (5, "dimensional_collapse")


def test_one_point_per_class_is_neural_collapse_and_not_without_labels() -> None:
    """Four classes at the corners of a simplex in three dimensions, seen by eight units."""
    classes = labels()
    corners = torch.eye(4) - 0.25
    code = mixed(corners[classes], 8) + 0.02 * normal(units=8)
    diagnosis = diagnose(code, activation="none", labels=classes)
    assert "neural_collapse" in diagnosis.flags
    (finding,) = [finding for finding in diagnosis.findings if finding.rule == "neural_collapse"]
    assert "rank 3" in finding.evidence
    assert "neural_collapse" not in diagnose(code, activation="none").flags
    spread = mixed(corners[classes], 8) + normal(units=8)
    assert "neural_collapse" not in diagnose(spread, activation="none", labels=classes).flags


def test_the_variance_within_classes_is_that_of_an_analysis_of_variance() -> None:
    classes = labels()
    code = normal(units=3) + classes[:, None] * torch.tensor([0.0, 0.5, 2.0])
    ratios = []
    for unit in code.double().T.numpy():
        groups = [unit[classes.numpy() == label] for label in range(4)]
        f = stats.f_oneway(*groups).statistic
        ratios.append(1 / (1 + f * 3 / (ROWS - 4)))
    measured = diagnose(code, activation="none", labels=classes).measures["within_class_variance"]
    assert measured == pytest.approx(np.mean(ratios))
