"""The diagnosis as a value: JSON and back, a table, a page, and members apart from one another."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from synthetic_codes import ROWS, normal

from harness import Diagnosis, diagnose
from harness.diagnosis import Finding, threshold_table
from harness.diagnosis.verdicts import LayerVerdict, OutputVerdict, UnitVerdict

INPUTS = normal(units=6, seed=1)


def mixed() -> torch.Tensor:
    code = torch.relu(normal(units=6))
    code[:, 1], code[:, 2], code[3, 4] = 0, code[:, 0], math.nan
    return code


def test_json_and_back_is_the_same() -> None:
    diagnosis = diagnose(mixed(), inputs=INPUTS, reconstruction=INPUTS * 0.5, target=0.05, repeat=mixed() + 0.1)
    stored = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    again = Diagnosis.from_dict(stored)
    assert again.to_dict() == diagnosis.to_dict()
    assert str(again) == str(diagnosis)
    assert isinstance(again.units[0].verdict, UnitVerdict)
    assert isinstance(again.verdict, LayerVerdict)
    assert isinstance(again.output.verdict, OutputVerdict)
    assert all(isinstance(item, Finding) for item in again.findings)


def test_names_are_plain_strings() -> None:
    diagnosis = diagnose(mixed())
    assert diagnosis.verdict == "invalid"
    assert diagnosis.verdict.value == "invalid"
    assert all(type(flag) is str for unit in diagnosis.to_dict()["units"] for flag in unit["flags"])
    assert all(type(item.rule) is str for item in diagnosis.findings)


def test_every_measure_of_a_unit_has_its_interval() -> None:
    unit = diagnose(torch.relu(normal())).units[0]
    for name in ("mean", "standard_deviation", "activation_frequency", "entropy_bits"):
        low, high = getattr(unit, f"{name}_interval")
        assert low < getattr(unit, name) < high
    exact = stats.binomtest(unit.fired_rows, ROWS).proportion_ci(method="exact")
    assert unit.activation_frequency_bounds == pytest.approx((exact.low, exact.high))


def test_the_intervals_of_mean_and_spread_cover_the_truth() -> None:
    units = [
        unit for item in diagnose(torch.randn(100, 200, 4), activation="none", members=True) for unit in item.units
    ]
    for name, truth in (("mean", 0.0), ("standard_deviation", 1.0)):
        inside = np.mean(
            [getattr(u, f"{name}_interval")[0] <= truth <= getattr(u, f"{name}_interval")[1] for u in units]
        )
        assert 0.91 < inside < 0.98


def test_entropy_is_that_of_the_rounded_values() -> None:
    code = torch.sigmoid(normal(20000))
    _, counts = np.unique(np.floor(code[:, 0].double().numpy() * 64 + 0.5), return_counts=True)
    truth = stats.entropy(counts, base=2) + (len(counts) - 1) / (2 * 20000) / math.log(2)
    unit = diagnose(code, activation="sigmoid").units[0]
    assert unit.entropy_bits == pytest.approx(truth, rel=1e-12)
    assert unit.resolution == 1 / 64


def test_the_frame_has_a_row_a_unit() -> None:
    frame = diagnose(mixed()).to_frame()
    assert list(frame["verdict"]) == ["alive", "dead", "alive", "alive", "invalid", "alive"]
    assert {"activation_frequency_low", "mean_high", "flags"} <= set(frame.columns)
    assert "duplicate_of=0" in frame.loc[2, "flags"]


def test_print_and_notebook_show_the_verdict_and_escape_what_is_foreign() -> None:
    diagnosis = diagnose(mixed())
    assert str(diagnosis).startswith("invalid")
    assert "dead (units 1): 1 of 6 units; active on 0 of 2048 rows" in str(diagnosis)
    page = diagnosis._repr_html_()
    assert page.count("<tr>") == 7
    assert "<b>invalid" in page


def test_a_number_of_rows_is_a_range_only_where_units_differ() -> None:
    one, two = torch.full((2, ROWS), 0.2) + 0.01 * normal(units=2).T
    two[:3] = 0.9
    alike = str(diagnose(torch.stack([one, one.flip(0)], 1), activation="sigmoid"))
    assert "subthreshold (units 0, 1): 2 of 2 units; active on 0 of 2048 rows" in alike
    differ = str(diagnose(torch.stack([one, two], 1), activation="sigmoid"))
    assert "subthreshold (units 0, 1): 2 of 2 units; active on 0 to 3 of 2048 rows" in differ


def test_a_collapse_beside_a_skip_says_nothing_of_what_the_decoder_receives() -> None:
    around = diagnose(torch.zeros(ROWS, 4), inputs=INPUTS, reconstruction=INPUTS + 0.1 * normal(units=6))
    assert around.output is not None
    assert (around.verdict, around.output.verdict) == ("full_collapse", "healthy")
    (meaning,) = (finding.meaning for finding in around.findings if finding.rule == "full_collapse")
    assert "passes no information on" in meaning
    assert "decoder" not in meaning


def test_members_are_judged_as_if_alone() -> None:
    codes = torch.stack([torch.relu(normal(seed=seed)) * (seed % 2 + torch.eye(4)[0]) for seed in range(6)])
    codes[2, 5, 1] = math.nan
    reconstruction = INPUTS + 0.1 * torch.randn(6, ROWS, 6)
    together = diagnose(codes, inputs=INPUTS, reconstruction=reconstruction, members=True)
    for member, diagnosis in enumerate(together):
        alone = diagnose(codes[member], inputs=INPUTS, reconstruction=reconstruction[member])
        mine, theirs = diagnosis.to_dict(), alone.to_dict()
        assert (mine["verdict"], mine["flags"]) == (theirs["verdict"], theirs["flags"])
        assert [unit.verdict for unit in diagnosis.units] == [unit.verdict for unit in alone.units]
        assert diagnosis.units[0].entropy_bits == pytest.approx(alone.units[0].entropy_bits, rel=1e-12)
        assert diagnosis.output.r2 == pytest.approx(alone.output.r2, rel=1e-12)


def test_permuting_units_permutes_the_diagnosis() -> None:
    code, order = mixed()[:, [0, 1, 3, 4, 5]], [4, 2, 0, 1, 3]
    diagnosis, permuted = diagnose(code), diagnose(code[:, order])
    assert [unit.verdict for unit in permuted.units] == [diagnosis.units[i].verdict for i in order]
    assert permuted.verdict == diagnosis.verdict


def test_permuting_rows_changes_nothing() -> None:
    code = mixed()[:, :4]
    shuffled = diagnose(code[torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))])
    assert [(u.verdict, u.flags) for u in shuffled.units] == [(u.verdict, u.flags) for u in diagnose(code).units]


def test_every_threshold_is_named_with_its_source() -> None:
    rows = {row["name"]: row for row in threshold_table()}
    assert rows["near_constant"]["source"] == "this project"
    assert "Burda" in str(rows["active_variance"]["source"])
    assert all(row["meaning"] for row in rows.values())


def test_a_wide_layer_stays_readable_and_its_copies_are_found() -> None:
    code = torch.relu(normal(600, 1500))
    code[:, 7], code[:, 9], code[:, 1400] = 0, torch.exp(code[:, 3]) - 1, 2 * code[:, 20]
    diagnosis = diagnose(code)
    assert diagnosis.verdict == "partial_collapse"
    assert "nonlinear_redundancy_not_searched" in diagnosis.flags
    assert {u.index: u.flags for u in diagnosis.units if any(f.startswith("dup") for f in u.flags)} == {
        9: ("duplicate_of=3",),
        1400: ("duplicate_of=20",),
    }
    printed = str(diagnosis)
    assert "1 dead, 1499 alive" in printed
    assert len(printed.splitlines()) < 50


def test_a_wide_layer_of_copies_is_redundant() -> None:
    assert diagnose(torch.relu(normal(300, 1)).expand(300, 1100)).verdict == "redundant"


def test_a_wide_layer_with_rows_enough_has_its_dimensions_judged() -> None:
    narrow = normal(4600, 8) @ normal(8, 1100, seed=2) + 0.3 * normal(4600, 1100, seed=3)
    assert diagnose(narrow, activation="none").verdict == "dimensional_collapse"


def test_flags_have_a_name_and_an_argument_and_equal_their_strings() -> None:
    code = torch.relu(normal(units=3))
    code[:, 2] = 2 * code[:, 0]
    (flag,) = diagnose(code).units[2].flags
    assert (flag, flag.name, flag.argument) == ("duplicate_of=0", "duplicate_of", "0")
    assert json.dumps([flag]) == '["duplicate_of=0"]'
    again = Diagnosis.from_dict(diagnose(code).to_dict())
    assert (again.units[2].flags[0].argument, again.flags[0].argument) == ("0", None)


def test_repr_is_a_line_and_equal_units_share_one() -> None:
    code = torch.relu(normal(units=12))
    code[:, :8] = 0
    diagnosis = diagnose(code)
    assert repr(diagnosis).startswith("Diagnosis(partial_collapse")
    assert len(repr(diagnosis).splitlines()) == 1
    lines = str(diagnosis).splitlines()
    assert [line.split()[:2] for line in lines[3:8]] == [
        ["0-7", "dead"],
        *([str(unit), "alive"] for unit in range(8, 12)),
    ]
    assert diagnosis._repr_html_().count("<tr>") == 6


def test_members_have_a_function_of_their_own() -> None:
    from harness.diagnosis import diagnose_members

    codes = torch.stack([torch.relu(normal()), torch.zeros(ROWS, 4)])
    assert [str(diagnosis.verdict) for diagnosis in diagnose_members(codes)] == ["healthy", "full_collapse"]
    assert [diagnosis.to_dict() for diagnosis in diagnose_members(codes)] == [
        diagnosis.to_dict() for diagnosis in diagnose(codes, members=True)
    ]


@pytest.mark.parametrize(
    ("code", "activation"),
    [
        (normal(), "none"),
        (torch.sigmoid(normal()), "sigmoid"),
        (torch.relu(normal()), "relu"),
        (torch.relu(torch.tanh(normal())), "relu"),
        (torch.full((ROWS, 4), math.nan), "relu"),
    ],
)
def test_the_activation_is_inferred_from_the_values_and_printed(code: torch.Tensor, activation: str) -> None:
    diagnosis = diagnose(code)
    assert (diagnosis.activation, diagnosis.activation_inferred) == (activation, True)
    assert f"activation {activation} (inferred from the values)" in str(diagnosis)
    declared = diagnose(code, activation=activation)
    assert "inferred" not in str(declared)
    assert declared.units[0].verdict == diagnosis.units[0].verdict


def test_each_member_has_its_own_inferred_activation() -> None:
    codes = torch.stack([normal(), torch.sigmoid(normal()), torch.relu(normal())])
    repeat = codes + 0.1
    for member, diagnosis in enumerate(diagnose(codes, repeat=repeat, members=True)):
        alone = diagnose(codes[member], repeat=repeat[member])
        assert (diagnosis.activation, diagnosis.verdict) == (alone.activation, alone.verdict)
        assert diagnosis.units[2].reliability == pytest.approx(alone.units[2].reliability)


def test_rounding_below_zero_is_still_a_relu() -> None:
    code = torch.relu(normal())
    code[0, 0] = -1e-7 * code.max()
    assert diagnose(code, activation="relu").verdict == "healthy"
