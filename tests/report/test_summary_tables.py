"""What a member is shown as, and the picture of its units where not every measure is known."""

from dataclasses import replace

import pytest
from fake_results import FACTORS, effects_of, member, study

from harness.cli.tables import verdict_table
from harness.report.answer import summarize
from harness.report.answer_lines import question
from harness.report.figure_units import axes_for, units_picture
from harness.report.groups import in_declared_order
from harness.report.style import LOOKS, by_severity, shown_verdict
from harness.report.summary_tables import first_rows, level_rows, row_of, variant_rows

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
    assert shown_verdict(record) == fault
    assert fault in LOOKS
    assert row_of("v", [record]).verdicts == f"1 {fault}"
    assert list(verdict_table([record]).columns[-1].cells) == [f"1 {fault}"]
    assert by_severity(["healthy", fault, "full_collapse"]) == ["full_collapse", fault, "healthy"]


def test_a_collapse_is_shown_as_one_whatever_the_output_and_dead_outputs_leave_a_code_healthy():
    assert shown_verdict(replace(member(LEVELS, 0, verdict="redundant"), flags=["mean_output"])) == "redundant"
    assert shown_verdict(replace(member(LEVELS, 0), flags=["dead_outputs"])) == "healthy"
    assert shown_verdict(replace(member(LEVELS, 0), status="diverged", flags=["mean_output"])) == "diverged"


def test_the_answer_counts_codes_of_which_nothing_is_made():
    healthy = study(seeds=8, change=lambda each: replace(each, verdict="healthy", live_units=each.units))
    idle = study(
        seeds=8, change=lambda each: replace(each, verdict="healthy", flags=["mean_output"] if each.seed < 3 else [])
    )
    assert "useless" not in " ".join(summarize(effects_of(healthy)))
    lines = summarize(effects_of(idle))
    assert "Not collapsed but useless: 12 of 32 reconstruct no better than the mean" in " ".join(lines)
    assert lines[0].startswith("At the baseline, 3 of 8 seeds end with a reconstruction no better than the mean")


BASELINE = {"penalty": "as_posted", "batchnorm": "off"}
STAR = [BASELINE, {**BASELINE, "penalty": "none"}, {**BASELINE, "batchnorm": "on"}]


def test_tables_begin_with_the_baseline_and_go_on_with_what_changes_least_of_it():
    records = study(FACTORS, seeds=2).records  # in which the baseline's penalty comes second
    names = ["as_posted (baseline)", "none", "as_posted bn=on", "none bn=on"]
    assert [row.name for row in first_rows(records, BASELINE)] == names
    assert [str(cell) for cell in verdict_table(records, BASELINE).columns[0].cells] == names
    assert sum(row.name.endswith("(baseline)") for row in variant_rows(records, BASELINE)) == 1
    assert [str(cell) for cell in verdict_table(records).columns[0].cells] == list(
        dict.fromkeys(r.variant for r in records)
    )


def test_of_many_variants_those_are_shown_first_that_change_one_factor():
    wide = {"penalty": ["none", "as_posted"], "rho": [0.1, 0.2, 0.3, 0.4], "beta": [1, 2, 3, 4]}
    records = study(wide, seeds=1).records
    rows = first_rows(records, {"penalty": "as_posted", "rho": 0.2, "beta": 3})
    assert len(rows) == 1 + 1 + 3 + 3
    assert rows[0].name.endswith("(baseline)")
    assert (
        verdict_table(records, {"penalty": "as_posted", "rho": 0.2, "beta": 3}).caption
        == "and 24 more variants, in the report"
    )
    assert len(first_rows(records, {})) == 24


def test_the_table_of_a_factor_counts_matched_variants_alone():
    full, star = study(FACTORS, seeds=3).records, [member(levels, seed) for levels in STAR for seed in range(3)]
    assert {factor: [row.members for row in rows] for factor, rows in level_rows(full).items()} == {
        "penalty": [6, 6],
        "batchnorm": [6, 6],
    }
    # pooled, "as_posted" would hold the six members of two variants, of which one has BatchNorm
    assert {factor: [(row.name, row.members) for row in rows] for factor, rows in level_rows(star).items()} == {
        "penalty": [("as_posted", 3), ("none", 3)],
        "batchnorm": [("off", 3), ("on", 3)],
    }
    apart = [member(levels, 0) for levels in (BASELINE, {"penalty": "none", "batchnorm": "on"})]
    assert level_rows(apart) == {}


def test_members_come_in_the_order_of_the_experiment_and_included_cells_in_theirs():
    manifest = {
        "factors": {"penalty": ["as_posted"], "batchnorm": ["off"]},
        "experiment": {"include": [{"penalty": ["none", "l1"]}, {"batchnorm": "on"}]},
    }
    records = [member(levels, seed) for seed in range(2) for levels in reversed(STAR)]
    ordered = in_declared_order(records, manifest)
    assert [(record.levels, record.seed) for record in ordered] == [
        (levels, seed) for levels in STAR for seed in range(2)
    ]


def test_the_question_names_the_levels_that_were_trained_and_no_factor_that_was_not_varied():
    manifest = {"factors": {"penalty": ["as_posted"], "batchnorm": ["off"], "dropout": [0.0]}}
    text = question(manifest, [member({**levels, "dropout": 0.0}, 0) for levels in STAR])
    assert text.endswith("3 models: 3 variants x 1 seed; factors: penalty (as_posted, none); batchnorm (off, on).")


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
