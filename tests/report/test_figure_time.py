"""Figures of few and of many members: their claims are counted, their bands are quantiles, their marks are in place."""

import io
import math
from dataclasses import replace

import numpy as np
import pandas
import pytest
from fake_results import FACTORS, effects_of, member, study

from harness.effects.outcomes import OUTCOMES
from harness.report import write
from harness.report.answer_lines import explanations
from harness.report.explanation import explain_experiment
from harness.report.figure_deaths import deaths_picture, draw_deaths
from harness.report.figure_effects import draw_forest, forest
from harness.report.figure_time import MOST_CURVES, draw_lines, live_units_picture
from harness.report.figure_units import units_picture
from harness.report.groups import panels
from harness.report.page import audited_once
from harness.report.svg import sheet
from harness.results.frames import members_frame, unit_history_frame
from harness.tracking.member_rows import member_tags

LEVELS = {"penalty": "none", "batchnorm": "on"}


def axes_of():
    _, (axes,) = sheet((200, 100))
    return axes


def many(count, failed=0):
    """So many members, of which some fail; live units at the end are 0, 1, 2, ... of the others."""
    members = []
    for seed in range(count):
        verdict = "full_collapse" if seed < failed else "healthy"
        record = member(LEVELS, seed, verdict=verdict)
        history = {**record.history.plain(), "live_units": [float(seed)] * 6}
        members.append(replace(record, history=history))
    return members


def test_a_panel_of_few_members_has_a_line_for_each():
    axes = draw_lines(axes_of(), many(5), "live_units", "few")
    assert sum(len(lines.get_segments()) for lines in axes.collections if hasattr(lines, "get_segments")) == 5
    assert not axes.lines


def test_a_panel_of_many_members_has_a_median_and_the_middle_80_percent_with_failed_members_on_top():
    members = many(MOST_CURVES + 20, failed=3)
    axes = draw_lines(axes_of(), members, "live_units", "many")
    usable = np.arange(3, MOST_CURVES + 20)
    (median,) = axes.lines
    assert median.get_ydata()[-1] == pytest.approx(np.median(usable))
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx(tuple(np.quantile(usable, (0.1, 0.9))))
    assert sum(len(lines.get_segments()) for lines in axes.collections if hasattr(lines, "get_segments")) == 3


def test_many_members_that_fail_have_a_band_of_their_own():
    axes = draw_lines(axes_of(), many(100, failed=50), "live_units", "many")
    assert sorted(line.get_ydata()[-1] for line in axes.lines) == pytest.approx([24.5, 74.5])


def test_members_that_stopped_early_do_not_stop_a_band():
    members = many(MOST_CURVES + 2)
    short = {name: values[:3] for name, values in members[0].history.plain().items()}
    members[0] = replace(members[0], history=short)
    axes = draw_lines(axes_of(), members, "live_units", "many")
    assert len(axes.lines[0].get_xdata()) == 6


def test_a_figure_of_two_thousand_members_stays_small():
    few, large = (live_units_picture(study({"penalty": ["none"]}, seeds=count).records) for count in (40, 2000))
    assert len(large.svg) < 2 * len(few.svg)


def test_the_curve_of_dead_units_ends_at_their_share():
    members = [replace(member(LEVELS, seed), died_at=[0, 40, None, None]) for seed in range(4)]
    axes = draw_deaths(axes_of(), members, 100.0, "panel")
    (line,) = axes.lines
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert y[x <= 0].max() == pytest.approx(0.25)
    assert y[x <= 100].max() == pytest.approx(0.5)
    assert y[np.isfinite(x)].min() == 0.0
    assert deaths_picture([replace(record, died_at=[None] * 4) for record in members]) is None
    picture = deaths_picture(members)
    assert picture.title == "4 of 8 constant units were so from initialization on, 4 became constant during training"
    assert "dead" not in " ".join((picture.alt, picture.note, picture.svg, *picture.table.header))


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([840], "1 more became constant in training, at step 840."),
        ([400, 840], "2 more became constant in training, at steps 400 to 840."),
        ([10, 20, 30, 40], "4 more became constant in training, half of them by step 25."),
    ],
)
def test_half_of_the_units_is_said_of_four_or_more(steps, told):
    record = replace(member(LEVELS, 0), died_at=[None, 0, *steps])
    assert told in [sentence.text for sentence in explain_experiment([record])[0].sentences]


def test_one_forest_has_a_panel_per_outcome_and_names_the_better_side():
    effects = effects_of(study())
    figure = forest(effects.effects)
    assert figure.wide
    assert figure.svg.count("better") == len({effect.outcome for effect in effects.effects if effect.estimable})
    assert {row[1] for row in figure.table.rows} <= {outcome.title for outcome in OUTCOMES.values()}
    collapsed = [effect for effect in effects.effects if effect.outcome == "collapsed"]
    assert draw_forest(axes_of(), collapsed, OUTCOMES["collapsed"]).get_xlabel() == "change\n← better"
    assert draw_forest(axes_of(), collapsed, OUTCOMES["r2"]).get_xlabel() == "change\nbetter →"


def test_a_forest_is_the_same_twice_and_leaves_numpys_generator_as_it_was():
    effects = effects_of(study()).effects
    np.random.seed(5)  # noqa: NPY002 - the user's
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert forest(effects).svg == forest(effects).svg
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_units_are_drawn_by_their_own_verdict():
    figure = units_picture([member({"penalty": "none", "batchnorm": "off"}, 0)])
    assert set(figure.keys) <= {"constant", "doubtful", "alive", "not_judged"}
    assert "constant" in figure.keys


def test_the_baseline_is_marked_in_panels():
    records = study(FACTORS, seeds=1).records
    baseline = {"penalty": "as_posted", "batchnorm": "off"}
    assert [name for name in panels(records, baseline) if name.endswith("(baseline)")] == ["as_posted (baseline)"]
    by_level = panels(records, baseline, most=2)
    assert list(by_level) == ["penalty: none", "penalty: as_posted (baseline)"]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"flags": ["mean_output"]}, "mean_output"),
        ({"flags": ["constant_output"]}, "constant_output"),
        ({"status": "diverged"}, "diverged"),
        ({}, "healthy"),
    ],
)
def test_no_table_and_no_tag_says_healthy_over_an_output_of_no_use(changes, shown):
    record = replace(member(LEVELS, 0, verdict="healthy"), **{"flags": [], **changes})
    assert member_tags(record)["verdict"] == shown
    assert members_frame([record]).verdict.tolist() == [shown]
    assert record.failed is (shown != "healthy")


def test_values_that_are_not_finite_are_failed_and_what_cannot_be_judged_has_no_outcome():
    assert replace(member(LEVELS, 0), verdict="invalid").failed is True
    assert replace(member(LEVELS, 0), verdict="invalid").collapsed is None
    assert replace(member(LEVELS, 0), verdict="not_testable").failed is None


def test_a_finding_of_several_penalties_stands_once_with_all_of_them():
    fault = {"rule": "wrong_axis", "severity": "fault", "evidence": "rows"}
    risk = {"rule": "dominates", "severity": "risk", "evidence": "40 times"}
    findings = audited_once({"as_posted": [risk, fault], "l1": [fault], "none": []})
    assert [(finding["rule"], finding["levels"]) for finding in findings] == [
        ("wrong_axis", ["as_posted", "l1"]),
        ("dominates", ["as_posted"]),
    ]


def test_the_audit_is_told_in_the_first_paragraph_of_its_penalty():
    audit = {"as_posted": [{"rule": "wrong_axis", "severity": "fault", "evidence": "rows"}]}
    texts = [paragraph["text"] for paragraph in explanations(study().records, {"audit": audit})]
    assert sum("wrong_axis" in text for text in texts) == 1


def test_the_table_of_unit_histories_is_the_same_in_parts(monkeypatch):
    records = study(seeds=3).records
    more = {**records[-1].unit_history.plain(), "entropy_bits": [[1.0] * 4] * 6}
    records = [*records[:-1], replace(records[-1], unit_history=more)]
    monkeypatch.setattr(write, "MEMBERS_AT_ONCE", 5)
    parts = pandas.read_parquet(io.BytesIO(write._history_parquet(records)))
    whole = unit_history_frame(records)
    assert set(parts.columns) <= set(whole.columns)
    assert len(parts) == len(whole)
    assert parts.activation_frequency.tolist() == whole.activation_frequency.tolist()
    assert not math.isnan(parts.step.sum())
