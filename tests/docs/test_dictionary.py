"""The dictionary page: a measure of the field, computed by its definition, equals the number that the page names."""

import math

import pytest
import torch

import harness
from harness.results.records import MemberRecord


def code(rows=3000, units=6):
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(rows, units, generator=generator) - 0.5).relu()
    values[:, 2] = 0
    return values


def test_l0_is_the_sum_of_the_frequencies():
    activations = code()
    diagnosis = harness.diagnose(activations, activation="relu")
    l0 = (activations != 0).sum(1).double().mean()
    assert sum(unit.activation_frequency for unit in diagnosis.units) == pytest.approx(float(l0))


def test_the_fraction_of_variance_unexplained_is_one_less_r2():
    activations, generator = code(), torch.Generator().manual_seed(1)
    inputs = torch.randn(3000, 5, generator=generator)
    reconstruction = inputs + 0.3 * torch.randn(3000, 5, generator=generator)
    diagnosis = harness.diagnose(activations, activation="relu", inputs=inputs, reconstruction=reconstruction)
    residual = (inputs - reconstruction).double().square().sum()
    total = (inputs - inputs.mean(0)).double().square().sum()
    assert 1 - diagnosis.output.r2 == pytest.approx(float(residual / total))


def test_rankme_of_the_centered_code_is_the_effective_rank():
    activations = code()
    live = activations[:, [0, 1, 3, 4, 5]].double()
    singular = torch.linalg.svdvals(live - live.mean(0))
    shares = singular / singular.sum()
    rankme = math.exp(-float((shares * shares.log()).sum()))
    diagnosis = harness.diagnose(activations, activation="relu")
    assert diagnosis.measures["effective_rank"] == pytest.approx(rankme, rel=1e-6)


def test_the_dormant_score_is_a_units_mean_over_that_of_the_layer():
    activations = code()
    score = activations.abs().mean(0) / activations.abs().mean()
    diagnosis = harness.diagnose(activations, activation="relu")
    means = torch.tensor([unit.mean for unit in diagnosis.units])
    assert torch.allclose(means / means.mean(), score.to(means.dtype), atol=1e-5)
    dormant = [index for index, value in enumerate(score.tolist()) if value <= 0]
    assert dormant == [unit.index for unit in diagnosis.units if str(unit.verdict) == "dead"]


def test_active_units_and_the_kl_of_a_unit_are_those_of_the_definitions():
    means, log_variance = torch.randn(1000, 2, generator=torch.Generator().manual_seed(3)), torch.full((1000, 2), -2.0)
    means[:, 1] *= 0.01
    diagnosis = harness.diagnose(means, activation="none", posterior=log_variance)
    kl = -0.5 * (1 + log_variance - means.square() - log_variance.exp()).mean(0)
    assert [unit.kl for unit in diagnosis.units] == pytest.approx(kl.tolist(), rel=1e-4)
    assert [bool(unit.active) for unit in diagnosis.units] == (means.var(0) > 0.01).tolist()


def test_the_page_on_mlflow_has_every_tag_and_metric_of_a_member():
    from blocks import ROOT

    from harness.tracking.member_rows import HISTORY_KEYS, KEY_TAG, ORIGIN_TAG, UNIT_MEASURES
    from harness.tracking.views import KIND_TAG

    page = (ROOT / "docs/reference/mlflow.md").read_text()
    names = [KEY_TAG, ORIGIN_TAG, KIND_TAG, *HISTORY_KEYS.values(), *(f"{name}/u<j>" for name in UNIT_MEASURES)]
    fields = ["variant", "seed", "verdict", "status", "flags", "error", "alone", "gpu", "diverged_step"]
    assert all(name in MemberRecord.__dataclass_fields__ for name in fields)
    assert [name for name in [*names, *fields, "not_finite"] if f"`{name}`" not in page] == []
