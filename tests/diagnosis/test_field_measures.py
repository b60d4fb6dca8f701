"""Measures by the fields' names beside the verdicts, against the functions that state the published definitions."""

import math

import numpy as np
import pytest
import torch

from harness import diagnose
from harness.measures import field


def rectified(seed=0, rows=600, units=12):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, units, generator=draw) - torch.linspace(-1, 3, units)
    values[:, -1] = 0
    return values.clamp(min=0)


def test_numbers_of_a_relu_code_are_those_of_the_definitions():
    code = rectified()
    inputs = torch.randn(600, 5, generator=torch.Generator().manual_seed(1))
    outputs = 0.7 * inputs + 0.1
    diagnosis = diagnose(code, activation="relu", inputs=inputs, reconstruction=outputs)
    measures = diagnosis.measures
    assert measures["l0"] == pytest.approx(float(field.l0(code)), rel=1e-9)
    assert measures["dormant"] == int(field.dormant_units(code, 0.025).sum())
    assert measures["fvu"] == pytest.approx(float(field.fraction_of_variance_unexplained(inputs, outputs)), rel=1e-6)
    assert measures["rankme"] == pytest.approx(float(field.rankme(code)), rel=1e-5)
    for word in ("L0 ", "FVU ", "RankMe ", "dormant (tau 0.025) "):
        assert word in str(diagnosis)
        assert word in diagnosis._repr_html_()


def test_numbers_of_a_posterior_are_those_of_the_definitions():
    draw = torch.Generator().manual_seed(2)
    mean, logvar = torch.randn(500, 4, generator=draw), torch.full((500, 4), -2.0)
    mean[:, 3], logvar[:, 3] = 1e-3 * mean[:, 3], 0.0
    diagnosis = diagnose(mean, posterior=logvar)
    assert diagnosis.measures["kl"] == pytest.approx(float(field.gaussian_kl(mean, logvar).sum()), rel=1e-6)
    assert "active units 3 of 4" in str(diagnosis)


def test_measures_that_do_not_apply_are_not_shown():
    draw = np.random.default_rng(3)
    shown = str(diagnose(draw.normal(size=(500, 4)), activation="none"))
    for word in ("L0", "FVU", "active units", "dormant"):
        assert word not in shown
    broken = draw.normal(size=(500, 4))
    broken[0, 0] = math.nan
    assert "RankMe" not in str(diagnose(broken, activation="none"))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_rankme_does_not_depend_on_the_scale(scale):
    values = np.random.default_rng(4).normal(size=(500, 6))
    expected = float(field.rankme(torch.from_numpy(values)))
    assert diagnose(values * scale, activation="none").measures["rankme"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("straight", [False, True])
def test_codes_of_a_quantizer_in_use_and_their_perplexity(straight):
    draw = torch.Generator().manual_seed(5)
    book = torch.randn(32, 6, generator=draw)
    index = torch.randint(0, 9, (700,), generator=draw) ** 2 // 3
    before, entries = torch.randn(700, 6, generator=draw), book[index]
    code = before + (entries - before) if straight else entries
    diagnosis = diagnose(code, activation="none")
    assert diagnosis.measures["codes_in_use"] == len(index.unique())
    assert diagnosis.measures["perplexity"] == pytest.approx(float(field.perplexity(index, 32)), rel=1e-9)
    assert f"codes in use {len(index.unique())}, perplexity " in str(diagnosis)


@pytest.mark.parametrize("entries", [1, 5])
def test_rounding_of_a_straight_through_step_is_no_code(entries):
    draw = torch.Generator().manual_seed(8)
    before, book = torch.randn(700, 4, generator=draw) / 4, torch.rand(entries, 4, generator=draw)
    index = torch.randint(0, entries, (700,), generator=draw)
    code = before + (book[index] - before)
    assert len(code.unique(dim=0)) > entries  # the numbers differ by rounding
    measures = diagnose(code, activation="none").measures
    assert measures.get("codes_in_use", 1) == len(index.unique())


@pytest.mark.parametrize("rows", [300, 20000])
def test_a_code_without_repeated_rows_has_no_codes(rows):
    draw = torch.Generator().manual_seed(6)
    values = torch.randn(rows, 3, generator=draw)
    rare = values * (torch.rand(rows, 1, generator=draw) < 0.1)  # 0 on nine rows in ten
    inputs = torch.randn(rows, 5, generator=draw)
    for code in (values, rare.clamp(min=0), rare):
        assert "codes_in_use" not in diagnose(code, activation="none", inputs=inputs).measures


def test_rows_that_repeat_because_the_inputs_do_are_no_codes():
    draw = torch.Generator().manual_seed(7)
    inputs = torch.randn(40, 5, generator=draw).repeat(20, 1)
    code = inputs @ torch.randn(5, 3, generator=draw)
    assert "codes_in_use" not in diagnose(code, activation="none", inputs=inputs).measures
