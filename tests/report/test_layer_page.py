"""The page of one diagnosis: a small layer unit by unit, a large one in counts, quantiles and the worst by name."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.diagnosis import Diagnosis, diagnose
from harness.errors import HarnessError
from harness.report import picture, write_diagnosis_report
from harness.report.layer_tables import gravest_first, measure_quantiles, verdict_counts


@pytest.fixture(scope="module")
def large() -> Diagnosis:
    """5000 units: the first 40 dead, the next 10 on and constant."""
    code = torch.tensor(np.random.default_rng(2).normal(size=(400, 5000)).clip(0))
    code[:, :40] = 0.0
    code[:, 40:50] = 1.5
    return diagnose(code, information=False)


@pytest.fixture(scope="module")
def page(large, tmp_path_factory) -> Path:
    return write_diagnosis_report(large, None, tmp_path_factory.mktemp("layer"))


def test_a_large_layer_is_counted_by_verdict_and_its_first_units_are_named(large):
    rows = verdict_counts(large).rows
    assert [row[:2] for row in rows] == [["dead", "40"], ["constant on", "10"], ["alive", "4950"]]
    assert rows[0][3] == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 28 more"


def test_quantiles_are_those_of_numpy(large):
    table = measure_quantiles(large)
    means = next(row for row in table.rows if row[0] == "mean")
    known = [unit.mean for unit in large.units]
    assert float(means[4]) == pytest.approx(np.median(known), rel=5e-3)
    assert float(means[7]) == 1.5


def test_the_gravest_units_come_first(large):
    verdicts = [str(unit.verdict) for unit in gravest_first(large.units)]
    assert verdicts[:51] == ["dead"] * 40 + ["constant_on"] * 10 + ["alive"]


def test_the_page_of_a_large_layer_stays_small(page):
    text = page.read_text()
    assert len(text) < 200_000
    assert "<image" in text  # thousands of marks are pixels


def test_no_finding_lists_thousands_of_units(page):
    assert max(map(len, re.findall(r"\(units [^)]*\)", page.read_text()))) < 100


def test_units_at_one_place_of_the_figure_have_one_label(tmp_path):
    code = torch.tensor(np.random.default_rng(2).normal(size=(400, 6)).clip(0))
    code[:, [1, 4]] = 0.0
    labels = re.findall(
        r"<text[^>]*>([^<]*)</text>", write_diagnosis_report(diagnose(code), None, tmp_path).read_text()
    )
    assert "1, 4" in labels
    assert "1" not in labels


def test_a_small_layer_is_shown_unit_by_unit(tmp_path):
    code = torch.tensor(np.random.default_rng(2).normal(size=(400, 3)).clip(0))
    text = write_diagnosis_report(diagnose(code, information=False), None, tmp_path).read_text()
    assert "healthy: 3 of 3 units vary" in text
    assert "Measures over all units" not in text


def test_a_page_has_the_measures_that_papers_report(tmp_path):
    code = torch.tensor(np.random.default_rng(3).normal(size=(500, 3)).clip(0))
    code[:, 2] = 0.0
    text = write_diagnosis_report(diagnose(code, information=False), None, tmp_path).read_text()
    assert f"L0 {float((code > 0).double().sum(1).mean()):.3g}, RankMe" in text
    assert "dormant (tau 0.025) 1" in text


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_picture_is_written_in_the_kind_that_its_name_says(large, tmp_path, kind):
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert picture(large, tmp_path / f"units.{kind}").read_bytes().startswith(start)


def test_a_picture_of_another_kind_is_refused(large, tmp_path):
    with pytest.raises(HarnessError, match="expected a file name that ends in one of"):
        picture(large, tmp_path / "units.doc")
    with pytest.raises(HarnessError, match="does not exist"):
        picture(large, tmp_path / "nowhere" / "units.png")
