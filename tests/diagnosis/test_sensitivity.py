"""Influence of each threshold on the verdicts, from stored diagnoses alone."""

import json

import pytest
import torch
from synthetic_codes import ROWS, labels, normal

from harness import Thresholds, diagnose
from harness.diagnosis import sweep
from harness.diagnosis.flag_sensitivity import FLAGS
from harness.diagnosis.sensitivity import SWEPT
from harness.diagnosis.thresholds import TABLE


def stored(*codes: torch.Tensor, activation: str = "relu", **options: object) -> list[dict[str, object]]:
    return [json.loads(json.dumps(diagnose(code, activation=activation, **options).to_dict())) for code in codes]


def share(documents: list[dict[str, object]], name: str) -> float:
    return next(influence.share for influence in sweep(documents) if influence.threshold == name)


def test_every_threshold_that_decides_a_verdict_and_has_no_source_is_swept() -> None:
    ours = {name for name, info in TABLE.items() if info.decides == "verdict" and "this project" in info.source}
    assert ours == {name for name in SWEPT if "this project" in TABLE[name].source}
    assert all("project" in TABLE[name].source for name in SWEPT)


def test_every_threshold_of_a_units_flag_is_swept() -> None:
    assert {name for name, info in TABLE.items() if info.decides == "flag"} - {"nonlinear_share"} == set(FLAGS)


@pytest.mark.parametrize(
    ("names", "code", "options"),
    [
        ({"heavy_kurtosis"}, torch.where(torch.arange(ROWS) % 256 < 2, 10.0, 1.0)[:, None] * normal(units=1), {}),
        ({"unused"}, normal(units=1), {"ablation": [2e-3]}),
        ({"unused"}, normal(units=1), {"ablation": [-2e-3]}),
        (
            {"delta_nats", "delta_codes"},
            0.2 * normal(units=1) + normal(units=1, seed=4),
            {"factors": {"it": normal(units=1)[:, 0]}},
        ),
    ],
)
def test_a_borderline_flag_moves_with_its_threshold_and_no_verdict_does(
    names: set[str], code: torch.Tensor, options: dict
) -> None:
    influences = sweep(stored(code, activation="none", **options))
    assert names & {influence.threshold for influence in influences if influence.units_changed}
    assert {influence.changed for influence in influences if influence.threshold in FLAGS} == {0}


def test_a_stored_flag_is_the_one_that_the_sweep_finds_under_the_same_thresholds() -> None:
    from harness.diagnosis.flag_sensitivity import unit_numbers
    from harness.diagnosis.stored_evidence import stored_evidence

    codes = [0.3 * normal(seed=seed) + normal(seed=seed + 9) for seed in range(3)]
    documents = stored(*codes, activation="none", factors={"it": normal(units=1)[:, 0]}, labels=labels())
    swept = FLAGS["delta_nats"](
        unit_numbers([stored_evidence(document) for document in documents]), Thresholds()
    ).tolist()
    assert swept == [
        document["flag"] for member in documents for unit in member["units"] for document in unit["references"].values()
    ]


def test_the_bounds_of_what_is_negligible_are_obeyed() -> None:
    code, factor = 0.6 * normal(units=1) + normal(units=1, seed=4), normal(units=1)[:, 0]
    strict = Thresholds(delta_nats=1.0, delta_codes=1.0)
    assert diagnose(code, activation="none", factors={"it": factor}).units[0].references["it"].flag == "dependent"
    assert (
        diagnose(code, activation="none", factors={"it": factor}, thresholds=strict).units[0].references["it"].flag
        == "negligible"
    )


def test_a_few_classes_bound_what_is_negligible() -> None:
    rare = (torch.arange(ROWS) < ROWS // 100).long()  # an entropy of 0.056 nats: a tenth is below 0.01
    default = diagnose(normal(units=1), activation="none", labels=rare).units[0].references["labels"].delta
    wide = Thresholds(delta_classes=1.0)
    assert default < 0.0057
    loose = (
        diagnose(normal(units=1), activation="none", labels=rare, thresholds=wide).units[0].references["labels"].delta
    )
    assert loose == pytest.approx(0.01)


def test_clear_cases_depend_on_no_threshold() -> None:
    clear = stored(torch.relu(normal()), torch.zeros(ROWS, 4), torch.relu(normal()[:, :1]).expand(ROWS, 8))
    assert {influence.threshold: influence.share for influence in sweep(clear)} == dict.fromkeys([*SWEPT, *FLAGS], 0.0)


def test_a_borderline_member_shows_in_its_own_threshold_alone() -> None:
    still = 1 + 5e-4 * torch.tanh(normal())
    documents = stored(still, torch.relu(normal()))
    assert share(documents, "near_constant") == 0.5
    assert [influence.threshold for influence in sweep(documents) if influence.share > 0] == ["near_constant"]
    (influence,) = [influence for influence in sweep(documents) if influence.changed]
    assert influence.changes == {"near_collapse -> healthy": 1}
    assert (influence.members, influence.changed) == (2, 1)


@pytest.mark.parametrize(
    ("name", "code", "activation", "options"),
    [
        ("range_epsilons", 1 + 64 * 2.0**-23 * 1.5 * (normal() > 0).float(), "none", {}),
        ("redundant_share", torch.relu(normal()[:, [0, 0, 1, 2]]), "relu", {}),
        ("dimensional_share", normal(units=3) @ normal(3, 5, seed=2), "none", {}),
        ("duplicate_correlation", normal()[:, :1] + 0.15 * normal(seed=2), "none", {}),
        ("reliability", normal() + 0.3 * normal(seed=1), "none", {"repeat": normal(seed=2) + 0.3 * normal(seed=1)}),
    ],
)
def test_a_borderline_layer_moves_with_its_threshold(
    name: str, code: torch.Tensor, activation: str, options: dict
) -> None:
    assert share(stored(code, activation=activation, **options), name) == 1.0


def test_where_saturation_begins_is_swept_and_decides_units_not_layers() -> None:
    code = torch.where(normal() > 0, 0.998, 0.002)
    (documents,) = stored(code + 1e-5 * normal(seed=3), activation="sigmoid")
    assert {unit["verdict"] for unit in documents["units"]} == {"alive"}
    influence = {influence.threshold: influence for influence in sweep([documents])}["saturation"]
    assert influence.low < 0.001 < 0.002 < influence.high
    assert (influence.units, influence.units_changed, influence.changed) == (4, 4, 0)


def test_clearly_saturated_units_do_not_depend_on_where_saturation_begins() -> None:
    (documents,) = stored(torch.where(normal() > 0, 0.99999, 0.00001).float(), activation="sigmoid")
    assert {unit["verdict"] for unit in documents["units"]} == {"saturated_bimodal"}
    assert {influence.threshold: influence for influence in sweep([documents])}["saturation"].units_changed == 0


def test_the_output_is_swept_with_the_layer() -> None:
    inputs = normal(units=20, seed=3)
    reconstruction = inputs.clone()
    reconstruction[:, 0] = 0
    documents = stored(torch.relu(normal()), inputs=inputs, reconstruction=reconstruction)
    assert share(documents, "dead_outputs") == 1.0


def test_judging_again_under_the_same_thresholds_gives_the_stored_verdict() -> None:
    from harness.diagnosis.sensitivity import _judged
    from harness.diagnosis.stored_evidence import batches, stored_evidence

    codes = [torch.relu(normal(seed=seed) - shift) for seed in range(4) for shift in (0.0, 2.3, 3.5, 9.0)]
    documents = stored(*codes)
    again = [
        verdict
        for batch in batches([stored_evidence(document) for document in documents])
        for verdict in _judged(batch, Thresholds()).layers
    ]
    assert sorted(again) == sorted(str(document["verdict"]) for document in documents)


def test_diagnoses_that_are_read_one_by_one_are_swept_like_those_in_memory() -> None:
    from harness.results.packed import PackedJson

    documents = stored(*(torch.relu(normal(seed=seed) - 1) for seed in range(3)), labels=labels())
    packed = (PackedJson.of(document) for document in [*documents, {}])
    assert sweep(packed) == sweep(documents)
    assert {influence.members for influence in sweep(documents)} == {3}


def test_nothing_stored_is_no_error() -> None:
    assert {influence.share for influence in sweep([])} == {0.0}
    assert {influence.members for influence in sweep([{}])} == {0}
