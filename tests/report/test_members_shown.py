"""What a member is shown as, and the picture of its units where not every measure is known."""

from dataclasses import replace

import pytest
from made import effects_of, member, study

from harness.cli.tables import verdict_table
from harness.effects import answer
from harness.report.figure_units import axes_for, units_picture
from harness.report.palette import LOOKS, in_order, outcome_of
from harness.report.summary import row_of

LEVELS = {"penalty": "none", "batchnorm": "on"}


def _without(*measures, seed=0):
    record = member(LEVELS, seed)
    stored = record.diagnosis.plain()
    units = [{**unit, **dict.fromkeys(measures)} for unit in stored["units"]]
    return replace(record, diagnosis={**stored, "units": units})


@pytest.mark.parametrize("fault", ["mean_output", "worse_than_mean", "invalid_output"])
def test_units_that_vary_under_an_output_of_no_use_are_not_shown_as_healthy(fault):
    record = replace(member(LEVELS, 0), flags=["label_inconclusive", fault])
    assert record.verdict == "healthy"
    assert outcome_of(record) == fault
    assert fault in LOOKS
    assert row_of("v", [record]).verdicts == f"1 {fault}"
    assert list(verdict_table([record]).columns[-1].cells) == [f"1 {fault}"]
    assert in_order(["healthy", fault, "full_collapse"]) == ["full_collapse", fault, "healthy"]


def test_a_collapse_is_shown_as_one_whatever_the_output_and_dead_outputs_leave_a_code_healthy():
    assert outcome_of(replace(member(LEVELS, 0, verdict="redundant"), flags=["mean_output"])) == "redundant"
    assert outcome_of(replace(member(LEVELS, 0), flags=["dead_outputs"])) == "healthy"
    assert outcome_of(replace(member(LEVELS, 0), status="diverged", flags=["mean_output"])) == "diverged"


def test_the_answer_counts_codes_of_which_nothing_is_made():
    healthy = study(seeds=8, change=lambda each: replace(each, verdict="healthy", live_units=each.units))
    idle = study(
        seeds=8, change=lambda each: replace(each, verdict="healthy", flags=["mean_output"] if each.seed < 3 else [])
    )
    assert "Of no use" not in answer(effects_of(healthy))[0]
    expected = "Of no use: in 12 of the 32 that did not collapse the reconstruction is no better than the mean"
    assert expected in answer(effects_of(idle))[0]


@pytest.mark.parametrize(
    ("missing", "across", "upward"),
    [
        ((), "activation_frequency", "mutual_information"),
        (("mutual_information",), "activation_frequency", "entropy_bits"),
        (("activation_frequency",), "ablation", "mutual_information"),
        (("activation_frequency", "mutual_information"), "ablation", "entropy_bits"),
    ],
)
def test_units_are_drawn_by_what_is_known_of_them(missing, across, upward):
    records = [_without(*missing, seed=seed) for seed in range(3)]
    axes = axes_for([unit for record in records for unit in record.diagnosis["units"]])
    assert axes is not None
    assert [axis.measure for axis in axes] == [across, upward]
    drawn = units_picture(records)
    assert drawn is not None
    assert axes[0].name in drawn.svg
    assert axes[1].name in drawn.svg
    (row,) = drawn.table.rows
    assert row[2] == "12"
    assert float(row[5]) == pytest.approx(
        max(u[upward] for r in records for u in r.diagnosis["units"]), rel=0.05
    )  # two digits


def test_no_picture_is_drawn_of_units_of_which_one_measure_is_known():
    assert units_picture([_without("activation_frequency", "ablation")]) is None
