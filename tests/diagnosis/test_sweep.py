"""How much a verdict owes to a threshold, from stored diagnoses alone."""

import json

import pytest
import torch
from planted_codes import ROWS, labels, normal

from harness import Thresholds, diagnose
from harness.diagnosis import sweep
from harness.diagnosis.flag_sensitivity import FLAGS
from harness.diagnosis.sensitivity import SWEPT
from harness.diagnosis.thresholds import TABLE


def stored(*codes: torch.Tensor, activation: str = "relu", **more: object) -> list[dict[str, object]]:
    return [json.loads(json.dumps(diagnose(code, activation=activation, **more).to_dict())) for code in codes]


def share(found: list[dict[str, object]], name: str) -> float:
    return next(each.share for each in sweep(found) if each.threshold == name)


def test_every_threshold_that_decides_a_verdict_and_has_no_source_is_swept() -> None:
    ours = {name for name, each in TABLE.items() if each.decides == "verdict" and "this project" in each.source}
    assert ours == {name for name in SWEPT if "this project" in TABLE[name].source}
    assert all("project" in TABLE[name].source for name in SWEPT)


def test_every_threshold_of_a_units_flag_is_swept() -> None:
    assert {name for name, each in TABLE.items() if each.decides == "flag"} - {"nonlinear_share"} == set(FLAGS)


@pytest.mark.parametrize(
    ("names", "code", "more"),
    [
        ({"heavy_kurtosis"}, torch.where(torch.arange(ROWS) % 256 < 2, 10.0, 1.0)[:, None] * normal(units=1), {}),
        ({"unused"}, normal(units=1), {"ablation": [2e-3]}),
        (
            {"delta_nats", "delta_codes"},
            0.2 * normal(units=1) + normal(units=1, seed=4),
            {"factors": {"it": normal(units=1)[:, 0]}},
        ),
    ],
)
def test_a_borderline_flag_moves_with_its_threshold_and_no_verdict_does(
    names: set[str], code: torch.Tensor, more: dict
) -> None:
    influences = sweep(stored(code, activation="none", **more))
    assert names & {each.threshold for each in influences if each.units_changed}
    assert {each.changed for each in influences if each.threshold in FLAGS} == {0}


def test_a_stored_flag_is_the_one_that_the_sweep_finds_under_the_same_thresholds() -> None:
    from harness.diagnosis.flag_sensitivity import unit_numbers
    from harness.diagnosis.stored_evidence import stored_evidence

    codes = [0.3 * normal(seed=seed) + normal(seed=seed + 9) for seed in range(3)]
    found = stored(*codes, activation="none", factors={"it": normal(units=1)[:, 0]}, labels=labels())
    swept = FLAGS["delta_nats"](unit_numbers([stored_evidence(each) for each in found]), Thresholds()).tolist()
    assert swept == [
        each["flag"] for member in found for unit in member["units"] for each in unit["references"].values()
    ]


def test_the_bounds_of_what_is_negligible_are_obeyed() -> None:
    code, factor = 0.6 * normal(units=1) + normal(units=1, seed=4), normal(units=1)[:, 0]
    strict = Thresholds(delta_nats=1.0, delta_codes=1.0)
    assert diagnose(code, activation="none", factors={"it": factor}).units[0].references["it"].flag == "dependent"
    assert (
        diagnose(code, activation="none", factors={"it": factor}, thresholds=strict).units[0].references["it"].flag
        == "negligible"
    )


def test_clear_cases_depend_on_no_threshold() -> None:
    clear = stored(torch.relu(normal()), torch.zeros(ROWS, 4), torch.relu(normal()[:, :1]).expand(ROWS, 8))
    assert {each.threshold: each.share for each in sweep(clear)} == dict.fromkeys([*SWEPT, *FLAGS], 0.0)


def test_a_borderline_member_shows_in_its_own_threshold_alone() -> None:
    still = 1 + 5e-4 * torch.tanh(normal())
    found = stored(still, torch.relu(normal()))
    assert share(found, "near_constant") == 0.5
    assert [each.threshold for each in sweep(found) if each.share > 0] == ["near_constant"]
    (influence,) = [each for each in sweep(found) if each.changed]
    assert influence.changes == {"near_collapse -> healthy": 1}
    assert (influence.members, influence.changed) == (2, 1)


@pytest.mark.parametrize(
    ("name", "code", "activation", "more"),
    [
        ("range_epsilons", 1 + 64 * 2.0**-23 * 1.5 * (normal() > 0).float(), "none", {}),
        ("redundant_share", torch.relu(normal()[:, [0, 0, 1, 2]]), "relu", {}),
        ("dimensional_share", normal(units=3) @ normal(3, 5, seed=2), "none", {}),
        ("duplicate_correlation", normal()[:, :1] + 0.15 * normal(seed=2), "none", {}),
        ("reliability", normal() + 0.3 * normal(seed=1), "none", {"repeat": normal(seed=2) + 0.3 * normal(seed=1)}),
    ],
)
def test_a_borderline_layer_moves_with_its_threshold(
    name: str, code: torch.Tensor, activation: str, more: dict
) -> None:
    assert share(stored(code, activation=activation, **more), name) == 1.0


def test_where_saturation_begins_is_swept_and_decides_units_not_layers() -> None:
    code = torch.where(normal() > 0, 0.998, 0.002)
    (found,) = stored(code + 1e-5 * normal(seed=3), activation="sigmoid")
    assert {unit["verdict"] for unit in found["units"]} == {"alive"}
    influence = {each.threshold: each for each in sweep([found])}["saturation"]
    assert influence.low < 0.001 < 0.002 < influence.high
    assert (influence.units, influence.units_changed, influence.changed) == (4, 4, 0)


def test_clearly_saturated_units_do_not_depend_on_where_saturation_begins() -> None:
    (found,) = stored(torch.where(normal() > 0, 0.99999, 0.00001).float(), activation="sigmoid")
    assert {unit["verdict"] for unit in found["units"]} == {"saturated_bimodal"}
    assert {each.threshold: each for each in sweep([found])}["saturation"].units_changed == 0


def test_the_output_is_swept_with_the_layer() -> None:
    inputs = normal(units=20, seed=3)
    made = inputs.clone()
    made[:, 0] = 0
    found = stored(torch.relu(normal()), inputs=inputs, reconstruction=made)
    assert share(found, "dead_outputs") == 1.0


def test_judging_again_under_the_same_thresholds_gives_the_stored_verdict() -> None:
    from harness.diagnosis.sensitivity import _judged
    from harness.diagnosis.stored_evidence import batches, stored_evidence

    codes = [torch.relu(normal(seed=seed) - shift) for seed in range(4) for shift in (0.0, 2.3, 3.5, 9.0)]
    found = stored(*codes)
    again = [
        verdict
        for batch in batches([stored_evidence(each) for each in found])
        for verdict in _judged(batch, Thresholds()).layers
    ]
    assert sorted(again) == sorted(str(each["verdict"]) for each in found)


def test_diagnoses_that_are_read_one_by_one_are_swept_like_those_in_memory() -> None:
    from harness.results.packed import PackedJson

    found = stored(*(torch.relu(normal(seed=seed) - 1) for seed in range(3)), labels=labels())
    packed = (PackedJson.of(each) for each in [*found, {}])
    assert sweep(packed) == sweep(found)
    assert {each.members for each in sweep(found)} == {3}


def test_nothing_stored_is_no_error() -> None:
    assert {each.share for each in sweep([])} == {0.0}
    assert {each.members for each in sweep([{}])} == {0}
