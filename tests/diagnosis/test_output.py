"""The verdict on a reconstruction, beside what principal components reach."""

import math

import numpy as np
import pytest
import torch
from planted_codes import ROWS, normal
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from torch import Tensor

from harness import diagnose

CODE = torch.relu(normal())
INPUTS = normal(units=40, seed=1) @ torch.diag(torch.linspace(1, 3, 40))


def output(reconstruction: Tensor, inputs: Tensor = INPUTS, **more: object):
    return diagnose(CODE[: len(inputs)], inputs=inputs, reconstruction=reconstruction, **more)


def test_a_good_reconstruction_is_healthy_and_its_r2_is_sklearns() -> None:
    made = INPUTS + 0.5 * normal(units=40, seed=2)
    found = output(made)
    assert (found.output.verdict, found.flags) == ("healthy", ())
    truth = r2_score(INPUTS, made, multioutput="variance_weighted")
    assert found.output.r2 == pytest.approx(truth, abs=1e-6)
    assert found.output.r2_interval[0] < truth < found.output.r2_interval[1]


def test_the_mean_for_every_row_is_mean_output_and_a_flag_of_the_layer() -> None:
    found = output(INPUTS.mean(0).expand(ROWS, 40) + 0.01 * normal(units=40, seed=2))
    assert found.output.verdict == "mean_output"
    assert found.verdict == "healthy"
    assert found.flags == ("mean_output",)
    assert output(0.2 * INPUTS).output.verdict == "healthy"


@pytest.mark.parametrize(("dead", "expected"), [(2, "healthy"), (3, "dead_outputs")])
def test_more_than_a_twentieth_of_constant_features_is_dead_outputs(dead: int, expected: str) -> None:
    made = INPUTS.clone()
    made[:, :dead] = 0
    found = output(made)
    assert found.output.verdict == expected
    assert found.output.dead_share == dead / 40
    assert found.output.dead_features == tuple(range(dead))


def test_a_feature_that_never_varies_may_be_constant() -> None:
    inputs = INPUTS.clone()
    inputs[:, :10] = 1.0
    made = inputs.clone()
    assert output(made, inputs).output.verdict == "healthy"


def test_live_units_with_r2_below_zero_are_not_healthy() -> None:
    found = output(-INPUTS)
    assert found.output.verdict == "worse_than_mean"
    assert found.flags == ("worse_than_mean",)


def test_a_reconstruction_that_is_not_finite_is_invalid() -> None:
    made = INPUTS.clone()
    made[0, 0] = math.nan
    found = output(made)
    assert found.output.verdict == "invalid_output"
    assert math.isnan(found.output.r2)


def test_data_that_do_not_vary_leave_the_output_untestable() -> None:
    same = torch.ones(ROWS, 3)
    assert output(same, same).output.verdict == "output_not_testable"


def test_principal_components_are_sklearns_and_as_many_as_live_units() -> None:
    training = normal(units=40, seed=7) @ torch.diag(torch.linspace(1, 3, 40))
    found = output(INPUTS, training_inputs=training)
    assert found.output.pca_rows == "training"
    assert len(found.output.pca_r2) == 4
    fitted = PCA(4).fit(training.double().numpy())
    made = fitted.inverse_transform(fitted.transform(INPUTS.double().numpy()))
    assert found.output.pca_r2[3] == pytest.approx(r2_score(INPUTS, made, multioutput="variance_weighted"), abs=1e-6)
    assert output(INPUTS).output.pca_rows == "evaluation"


def test_a_reconstruction_below_the_principal_components_is_a_finding() -> None:
    low = normal(units=2, seed=1) @ normal(2, 40, seed=5)
    assert "below_pca" in [each.rule for each in output(0.3 * low, low).findings]


def test_no_live_unit_leaves_no_component() -> None:
    found = diagnose(torch.zeros(ROWS, 4), inputs=INPUTS, reconstruction=INPUTS)
    assert found.output.pca_r2 == ()


def test_each_member_has_its_own_output() -> None:
    made = torch.stack([INPUTS, INPUTS.mean(0).expand(ROWS, 40)])
    found = diagnose(torch.stack([CODE, CODE]), inputs=INPUTS, reconstruction=made, members=True)
    assert [str(each.output.verdict) for each in found] == ["healthy", "mean_output"]
    assert np.isclose(found[0].output.r2, 1)
