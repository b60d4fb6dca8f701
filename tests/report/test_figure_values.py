"""The maps of values over a training: shares against a count by hand, units in the order of their findings."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from browser import EXECUTABLE, chromium
from torch import nn

import harness
from harness.diagnosis import diagnose
from harness.diagnosis.finding import Finding, Severity
from harness.report.figure_values import columns_of, shares, units_shown, value_maps
from harness.watching.value_history import ValueHistory


def history_of(values):
    """A history with the values `[step, row, unit]`, from step 1."""
    history = ValueHistory()
    history.add(range(1, len(values) + 1), values, None)
    return history


@pytest.fixture(scope="module")
def fading():
    """Eight units over 20 steps: unit 2 fades to zero, unit 5 is always zero, the others vary more and more."""
    values = torch.randn(20, 200, 8, generator=torch.Generator().manual_seed(0)).relu() * torch.arange(1.0, 9.0)
    values[..., 2] *= torch.linspace(1, 0, 20)[:, None]
    values[10:, :, 2] = 0
    values[..., 5] = 0
    return values


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a model with a dead unit that was trained by a plain loop, and the monitor."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6))
    nn.init.constant_(model[0].bias[:2], -1000.0)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    with harness.watch(model, "0", callback=lambda line: None) as monitor:
        for batch in torch.randn(1600, 6).split(40):
            optimizer.zero_grad()
            F.mse_loss(model(batch), batch).backward()
            optimizer.step()
    return monitor.report(tmp_path_factory.mktemp("values"))


def test_shares_of_a_column_are_those_of_a_count_by_hand(fading):
    columns = columns_of(history_of(fading), 3, most=5)
    assert [step for step, _ in columns] == [1, 5, 9, 13, 17]
    parts, edges = shares([values for _, values in columns], bins=6)
    for index in range(5):
        values = fading[4 * index : 4 * index + 4, :, 3].flatten()
        for bin in range(5):
            inside = (values >= edges[bin]) & (values < edges[bin + 1])
            assert parts[bin, index] == pytest.approx(inside.double().mean().item())
    assert parts.sum(0) == pytest.approx(1)


def test_values_that_are_no_numbers_are_left_out_and_a_step_without_others_is_blank():
    values = torch.ones(3, 4, 2)
    values[0, 0, 0], values[1, :, 0] = torch.nan, torch.inf
    columns = columns_of(history_of(values), 0, most=64)
    assert [len(finite) for _, finite in columns] == [3, 0, 4]
    parts, _ = shares([finite for _, finite in columns], bins=2)
    assert np.isnan(parts[:, 1]).all()
    assert parts[:, [0, 2]].sum(0).tolist() == [1, 1]
    diagnosis = diagnose(values.flatten(0, 1))
    assert value_maps(diagnosis, history_of(values)) is not None
    assert value_maps(diagnosis, history_of(torch.full((3, 4, 2), torch.nan))) is not None


def test_units_with_findings_come_first_one_per_finding_and_then_those_that_vary_most(fading):
    diagnosis = diagnose(fading[-5:].flatten(0, 1))
    assert [unit.index for unit in units_shown(diagnosis, range(8))] == [2, 5, 7, 6, 4, 3]
    assert [unit.index for unit in units_shown(diagnosis, [0, 1, 5])] == [5, 1, 0]
    findings = (Finding("a", Severity.RISK, "", units=(0, 1, 2, 3)), Finding("b", Severity.NOTE, "", units=(6, 0, 5)))
    several = SimpleNamespace(units=diagnosis.units, findings=findings)
    assert [unit.index for unit in units_shown(several, range(8))] == [0, 6, 1, 2, 7, 4]


def test_the_figure_says_what_is_drawn_and_what_changed(fading):
    figure = value_maps(diagnose(fading[-5:].flatten(0, 1)), history_of(fading))
    assert figure.title == "Values over the training: 4 of 6 units shown vary at the end"
    assert figure.note == (
        "6 of 8 units are drawn: those with findings first, then those that vary most. A column has the values of one step, at "
        "most 200 rows of each; its color is the share of them in a bin. Each unit has its own scale of values."
    )
    long = history_of(fading.repeat(20, 1, 1))
    note = value_maps(diagnose(fading[-5:, :, :3].flatten(0, 1)), long).note
    assert f"One in {long.distance} observed steps is kept. A column has the values of one step" in note
    assert "Unit 5, dead: 0 to 0 at step 1, 0 to 0 at step 20." in figure.alt
    assert [row[0] for row in figure.table.rows[::8]] == ["2", "5", "7", "6", "4", "3"]


def test_of_a_hundred_thousand_units_a_few_are_drawn_and_the_caption_says_so():
    values = torch.rand(2, 600, 100_000, generator=torch.Generator().manual_seed(0))
    history, judged = ValueHistory(), torch.linspace(0, 99_999, 8192).long()
    history.add([1, 2], values, judged)
    units = [SimpleNamespace(index=unit, verdict="alive", standard_deviation=1.0) for unit in judged.tolist()]
    figure = value_maps(SimpleNamespace(units=units, findings=()), history)
    assert "6 of 100000 units are drawn" in figure.note
    assert "Values are kept of 2048 units, evenly spaced." in figure.note
    assert len(figure.svg) < 100_000


def test_a_layer_without_values_has_no_figure():
    assert value_maps(diagnose(torch.rand(100, 2)), ValueHistory()) is None


def test_the_report_of_a_monitor_shows_the_values_and_that_of_a_diagnosis_does_not(page, tmp_path):
    text = page.read_text()
    assert "Values over the training: 4 of 6 units shown vary at the end" in text
    assert 'aria-label="6 heat maps of values over the training. Unit 0, dead: 0' in text
    plain = harness.report.write_diagnosis_report(diagnose(torch.rand(100, 2)), None, tmp_path)
    assert "Values over the training" not in plain.read_text()


@pytest.mark.many
@pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium here; Debian's package `chromium` has it")
def test_the_page_fits_a_phone_and_no_letter_of_the_figure_is_cut_or_covered(page):
    with chromium() as browser:
        for width, dark in ((1600, False), (400, True)):
            browser.open(page, width, dark=dark)
            assert browser.messages() == []
            assert browser.requests() == [page.resolve().as_uri()]
            assert browser.value("document.documentElement.scrollWidth") <= width
            boxes = browser.value(
                "[...document.querySelectorAll('figure.wide svg text')].map(text => {"
                "const box = text.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom, box.height]})"
            )
            assert min(box[4] for box in boxes) >= 8
            frame = browser.value(
                "(box => [box.left, box.right])(document.querySelector('figure.wide svg').getBoundingClientRect())"
            )
            assert min(box[0] for box in boxes) >= frame[0] - 1
            assert max(box[2] for box in boxes) <= frame[1] + 1
            for index, first in enumerate(boxes):
                for second in boxes[index + 1 :]:
                    apart = (
                        first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
                    )
                    assert apart, (first, second)
