"""The verdict on a reconstruction, beside what principal components reach."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from synthetic_codes import ROWS, normal
from torch import Tensor

from harness import diagnose

CODE = torch.relu(normal())
INPUTS = normal(units=40, seed=1) @ torch.diag(torch.linspace(1, 3, 40))


def output(reconstruction: Tensor, inputs: Tensor = INPUTS, **options: object):
    return diagnose(CODE[: len(inputs)], inputs=inputs, reconstruction=reconstruction, **options)


def test_a_good_reconstruction_is_healthy_and_its_r2_is_sklearns() -> None:
    reconstruction = INPUTS + 0.5 * normal(units=40, seed=2)
    diagnosis = output(reconstruction)
    assert (diagnosis.output.verdict, diagnosis.flags) == ("healthy", ())
    truth = r2_score(INPUTS, reconstruction, multioutput="variance_weighted")
    assert diagnosis.output.r2 == pytest.approx(truth, abs=1e-6)
    assert diagnosis.output.r2_interval[0] < truth < diagnosis.output.r2_interval[1]


def test_the_mean_for_every_row_is_mean_output_and_a_flag_of_the_layer() -> None:
    diagnosis = output(INPUTS.mean(0).expand(ROWS, 40) + 0.01 * normal(units=40, seed=2))
    assert diagnosis.output.verdict == "mean_output"
    assert diagnosis.verdict == "mean_output"
    assert diagnosis.flags == ("mean_output",)
    assert [finding.rule for finding in diagnosis.findings if finding.severity == "fault"] == ["mean_output"]
    assert output(0.2 * INPUTS).output.verdict == "healthy"


@pytest.mark.parametrize(("dead", "expected"), [(2, "healthy"), (3, "dead_outputs")])
def test_more_than_a_twentieth_of_constant_features_is_dead_outputs(dead: int, expected: str) -> None:
    reconstruction = INPUTS.clone()
    reconstruction[:, :dead] = 0
    diagnosis = output(reconstruction)
    assert diagnosis.output.verdict == expected
    assert diagnosis.output.dead_share == dead / 40
    assert diagnosis.output.dead_features == tuple(range(dead))


def test_a_feature_that_never_varies_may_be_constant() -> None:
    inputs = INPUTS.clone()
    inputs[:, :10] = 1.0
    reconstruction = inputs.clone()
    assert output(reconstruction, inputs).output.verdict == "healthy"


def test_live_units_with_r2_below_zero_are_not_healthy() -> None:
    diagnosis = output(-INPUTS)
    assert diagnosis.output.verdict == "mean_output"
    assert diagnosis.output.variance_ratio == pytest.approx(1)
    assert (diagnosis.verdict, diagnosis.flags) == ("mean_output", ("mean_output",))


def test_a_reconstruction_that_is_not_finite_is_invalid() -> None:
    reconstruction = INPUTS.clone()
    reconstruction[0, 0] = math.nan
    diagnosis = output(reconstruction)
    assert diagnosis.output.verdict == "invalid_output"
    assert math.isnan(diagnosis.output.r2)


def test_data_that_do_not_vary_leave_the_output_untestable() -> None:
    same = torch.ones(ROWS, 3)
    assert output(same, same).output.verdict == "output_not_testable"


def test_principal_components_are_sklearns_and_as_many_as_live_units() -> None:
    training = normal(units=40, seed=7) @ torch.diag(torch.linspace(1, 3, 40))
    diagnosis = output(INPUTS, training_inputs=training)
    assert diagnosis.output.pca_rows == "training"
    assert len(diagnosis.output.pca_r2) == 4
    fitted = PCA(4).fit(training.double().numpy())
    reconstruction = fitted.inverse_transform(fitted.transform(INPUTS.double().numpy()))
    assert diagnosis.output.pca_r2[3] == pytest.approx(
        r2_score(INPUTS, reconstruction, multioutput="variance_weighted"), abs=1e-6
    )
    assert output(INPUTS).output.pca_rows == "evaluation"


def test_a_reconstruction_below_the_principal_components_is_a_finding() -> None:
    low = normal(units=2, seed=1) @ normal(2, 40, seed=5)
    assert "below_pca" in [item.rule for item in output(0.3 * low, low).findings]


@pytest.mark.parametrize(("noise", "lower"), [(1e-3, False), (0.02, False), (0.3, True)])
def test_a_difference_to_the_principal_components_that_does_not_matter_is_no_finding(noise: float, lower: bool) -> None:
    low = normal(units=2, seed=1) @ normal(2, 40, seed=5)
    reconstruction = low + noise * normal(units=40, seed=6)
    diagnosis = output(reconstruction, low)
    assert diagnosis.output.r2_interval[1] < diagnosis.output.pca_r2[-1]
    assert (
        diagnosis.output.pca_r2[-1] - r2_score(low, reconstruction, multioutput="variance_weighted") > 0.02
    ) == lower
    assert ("below_pca" in [finding.rule for finding in diagnosis.findings]) == lower


def test_an_output_without_r2_has_its_reason_in_the_evidence() -> None:
    broken = INPUTS.clone()
    broken[0, 0] = torch.nan
    (finding,) = [finding for finding in output(broken).findings if finding.rule == "invalid_output"]
    assert finding.evidence == "R2 is not available: the output contains NaN or infinity"


def test_no_live_unit_leaves_no_component() -> None:
    diagnosis = diagnose(torch.zeros(ROWS, 4), inputs=INPUTS, reconstruction=INPUTS)
    assert diagnosis.output.pca_r2 == ()


def test_each_member_has_its_own_output() -> None:
    reconstruction = torch.stack([INPUTS, INPUTS.mean(0).expand(ROWS, 40)])
    diagnosis = diagnose(torch.stack([CODE, CODE]), inputs=INPUTS, reconstruction=reconstruction, members=True)
    assert [str(item.output.verdict) for item in diagnosis] == ["healthy", "constant_output"]
    assert np.isclose(diagnosis[0].output.r2, 1)


def test_an_output_of_another_shape_that_never_varies_is_constant_output() -> None:
    """A softmax of one number is 1 on every row; there are no rows of its shape to compare it with."""
    softmax = torch.softmax(normal(units=1, seed=3), 1)
    for options in ({}, {"inputs": INPUTS}):
        diagnosis = diagnose(CODE, output=softmax, **options)
        assert diagnosis.output.verdict == "constant_output"
        assert (diagnosis.verdict, diagnosis.flags) == ("constant_output", ("constant_output",))
        assert math.isnan(diagnosis.output.r2)
        (finding,) = [finding for finding in diagnosis.findings if finding.severity == "fault"]
        assert "constant although the inputs vary" in finding.evidence
    assert diagnose(CODE, output=torch.sigmoid(normal(units=1, seed=3)), inputs=INPUTS).output is None
    assert diagnose(CODE, output=torch.softmax(normal(units=2, seed=3), 1)).verdict == "healthy"


def test_an_output_of_another_shape_may_be_constant_where_the_inputs_are() -> None:
    diagnosis = diagnose(CODE, output=torch.ones(ROWS, 1), inputs=torch.ones(ROWS, 3))
    assert (diagnosis.verdict, diagnosis.output) == ("not_testable", None)


def test_a_constant_reconstruction_is_constant_before_it_is_the_mean() -> None:
    for value in (INPUTS.mean(0), torch.full((40,), 9.0)):
        diagnosis = output(value.expand(ROWS, 40))
        assert (diagnosis.output.verdict, diagnosis.output.constant) == ("constant_output", True)


def test_an_output_is_compared_with_targets_where_they_are_given() -> None:
    targets = INPUTS[:, :3].sum(1, keepdim=True)
    good = targets + 0.1 * normal(units=1, seed=8)
    diagnosis = diagnose(CODE, inputs=INPUTS, reconstruction=good, expected_output=targets)
    assert diagnosis.output.r2 == pytest.approx(r2_score(targets, good), abs=1e-6)
    assert (diagnosis.verdict, diagnosis.output.pca_r2) == ("healthy", ())
    noise = normal(units=1, seed=8)
    assert diagnose(CODE, inputs=INPUTS, reconstruction=noise, expected_output=targets).verdict == "mean_output"
    assert diagnose(CODE, reconstruction=noise, expected_output=targets).verdict == "mean_output"


def test_an_upper_bound_of_r2_above_a_twentieth_is_not_the_mean() -> None:
    """The best linear reconstruction from a unit of correlation r has R2 = r^2."""
    unit, rest = normal(units=1, seed=1), normal(units=1, seed=2)
    for correlation, verdict in ((0.1, "mean_output"), (0.4, "healthy")):
        rows = correlation * unit + (1 - correlation**2) ** 0.5 * rest
        diagnosis = diagnose(CODE, inputs=rows, reconstruction=correlation * unit)
        assert diagnosis.output.r2 == pytest.approx(correlation**2, abs=0.03)
        assert diagnosis.output.verdict == verdict


def test_two_verdicts_say_the_same_after_json() -> None:
    from harness import Diagnosis

    diagnosis = diagnose(CODE, output=torch.ones(ROWS, 1))
    assert Diagnosis.from_dict(diagnosis.to_dict()).output.verdict == "constant_output"
    stored = output(INPUTS).to_dict()
    stored["output"]["verdict"] = "worse_than_mean"
    del stored["output"]["constant"]
    stored["thresholds"]["mean_output_variance"] = 0.01
    assert Diagnosis.from_dict(stored).output.verdict == "worse_than_mean"
