"""Rows with equal inputs are one observation: they narrow no bound."""

import pytest
import torch
from planted_codes import generator, labels, normal
from scipy import stats

from harness import diagnose

INPUTS = normal(400, 6, seed=1)


def test_a_unit_silent_on_forty_rows_ten_times_each_never_fired() -> None:
    inputs = INPUTS[:40].repeat(10, 1)
    diagnosis = diagnose(torch.zeros(400, 3), inputs=inputs)
    assert {unit.verdict for unit in diagnosis.units} == {"never_fired"}
    assert (diagnosis.rows, diagnosis.distinct_rows) == (400, 40)
    assert diagnosis.units[0].activation_frequency_bounds[1] == pytest.approx(stats.beta.ppf(0.975, 1, 40))
    assert "400 rows (40 distinct)" in str(diagnosis)
    assert {unit.verdict for unit in diagnose(torch.zeros(400, 3), inputs=INPUTS).units} == {"dead"}


def test_never_fired_says_which_frequency_the_rows_exclude_and_how_to_give_more() -> None:
    diagnosis = diagnose(torch.zeros(50, 2))
    (finding,) = [finding for finding in diagnosis.findings if finding.rule == "never_fired"]
    bound = stats.binomtest(0, 50).proportion_ci(method="exact").high
    assert finding.numbers == pytest.approx({"rows": 50, "excluded_frequency": bound})
    assert f"0 of 50 rows, which excludes frequencies above {bound:.2g}" in finding.evidence
    assert "368 distinct rows" in finding.remedy
    assert "evaluation=" in finding.remedy
    assert "never_fired" not in [finding.rule for finding in diagnose(torch.zeros(368, 2)).findings]


def test_a_unit_on_for_one_row_four_times_fires_on_one() -> None:
    code = torch.relu(normal(800, 2, seed=2))
    code[:, 0] = 0
    inputs = torch.cat([INPUTS, INPUTS])
    code[7, 0] = code[407, 0] = 1.0
    unit = diagnose(code, inputs=inputs).units[0]
    assert (unit.fired_rows, unit.verdict) == (1, "rare_insufficient")
    assert unit.activation_frequency == pytest.approx(1 / 400)


def test_a_unit_always_on_needs_distinct_rows() -> None:
    code = 1 + torch.relu(normal(100, 2))
    assert "always_on" in diagnose(torch.cat([code] * 5)).units[0].flags
    repeated = diagnose(torch.cat([code] * 5), inputs=INPUTS[:100].repeat(5, 1))
    assert "always_on" not in repeated.units[0].flags


def test_repetition_makes_no_dependence_out_of_forty_rows() -> None:
    """Labels drawn once per distinct row are independent of the code; 50 copies of each row make chance look certain."""
    wrong = {True: 0, False: 0}
    for seed in range(8):
        code = torch.relu(normal(40, 3, seed=seed)).repeat(50, 1)
        classes = torch.randint(0, 2, (40,), generator=generator(seed)).repeat(50)
        inputs = INPUTS[:40].repeat(50, 1)
        for repeated in wrong:
            diagnosis = diagnose(code, labels=classes, inputs=inputs if repeated else None)
            wrong[repeated] += sum("label_dependent" in unit.flags for unit in diagnosis.units)
    assert wrong[False] > 12
    assert wrong[True] <= 2


def test_repeated_rows_that_depend_on_their_label_still_do() -> None:
    classes = labels(400)
    code = torch.relu(normal(400, 2))
    code[:, 0] = classes + 0.1 * code[:, 1]
    inputs = INPUTS.repeat(2, 1)
    diagnosis = diagnose(code.repeat(2, 1), labels=classes.repeat(2), inputs=inputs)
    assert "label_dependent" in diagnosis.units[0].flags


def test_the_interval_of_r2_is_that_of_the_distinct_rows() -> None:
    reconstruction = INPUTS + 0.5 * normal(400, 6, seed=4)
    code = torch.relu(normal(400, 3))
    once = diagnose(code, inputs=INPUTS, reconstruction=reconstruction).output
    often = diagnose(code.repeat(4, 1), inputs=INPUTS.repeat(4, 1), reconstruction=reconstruction.repeat(4, 1)).output
    assert often.r2 == pytest.approx(once.r2)
    assert often.r2_interval == pytest.approx(once.r2_interval)


def test_zero_and_minus_zero_are_one_row() -> None:
    inputs = torch.zeros(50, 2)
    inputs[::2] = -0.0
    assert diagnose(normal(50, 2), inputs=inputs).verdict == "not_testable"


def test_distinct_rows_are_left_as_they_are() -> None:
    code = torch.relu(normal(400, 3))
    assert diagnose(code, inputs=INPUTS).distinct_rows == 400
    assert [unit.flags for unit in diagnose(code, labels=labels(400), inputs=INPUTS).units] == [
        unit.flags for unit in diagnose(code, labels=labels(400)).units
    ]


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.uint8, torch.int64]
)
def test_rows_of_every_precision_are_compared_exactly(dtype: torch.dtype) -> None:
    inputs = torch.arange(40).reshape(20, 2).to(dtype).repeat(2, 1)
    assert diagnose(normal(40, 2), inputs=inputs).distinct_rows == 20
