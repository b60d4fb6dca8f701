"""The layers of many members, judged in one step, against the rules read out one by one."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from synthetic_codes import ROWS, labels, normal

from harness import Thresholds
from harness.diagnosis import diagnose, sweep
from harness.diagnosis.layer_rules import LAYER_VERDICTS, LayerStructure, _layer_rules, layer_verdicts, padded
from harness.diagnosis.unit_rules import UNIT_VERDICTS, Evidence, _unit_rules, unit_places
from harness.diagnosis.verdicts import LayerVerdict, OutputVerdict, UnitVerdict

NOT_LIVE = {"never_fired", "dead", "constant_at_target", "constant_on", "constant_off", "at_prior"}


def read_out(
    verdicts: list[str],
    links: list[float],
    rank: float,
    dimension: float,
    rows: int,
    output: str | None,
    ablation: float,
) -> str:
    """One layer, by the sentences of the order of precedence and the published thresholds."""
    live = [verdict for verdict in verdicts if verdict not in NOT_LIVE]
    for stopper in ("invalid", "not_testable"):
        if stopper in verdicts:
            return stopper
    if not live:
        return "full_collapse"
    if len(live) == 1 and len(verdicts) > 1:
        return "single_live_unit"
    if set(live) == {"near_constant"}:
        return "near_collapse"
    if len(live) < len(verdicts):
        return "partial_collapse"
    if len(live) - len([link for link in links if link >= 0.99]) <= 0.5 * len(live):
        return "redundant"
    if len(live) >= 2 and rows >= 4 * len(live) and rank <= 0.5 * min(len(live), dimension):
        return "dimensional_collapse"
    if output in ("constant_output", "mean_output"):
        return output
    return "unused" if abs(ablation) < 1e-3 else "healthy"


def nothing_measured(members: int, units: int, rows: int) -> Evidence:
    """Evidence of which the rules of layers look at the number of rows alone."""
    shape = (members, units)
    whole, numbers = np.ones(shape, dtype=bool), np.zeros(shape)
    return Evidence(
        "relu", rows, None, np.ones(members, dtype=bool), whole, numbers, numbers, numbers,
        np.zeros(shape, dtype=np.int64), *[numbers] * 4, whole, whole, numbers, np.full(shape, -1),
    )  # fmt: skip


def drawn(random: np.random.Generator, units: int) -> NDArray[np.int64]:
    """Verdicts of a layer's units: of few kinds, so that every rule has its turn."""
    kinds = random.choice(len(UNIT_VERDICTS), size=random.integers(1, 3), p=LIKELY)
    return random.choice(kinds, size=units)


LIKELY = np.array([1, 1, 2, 2, 2, 2, 2, 3, 3, 2, 4, 6, 6, 24]) / 60


@pytest.mark.parametrize("units", [1, 2, 5])
@pytest.mark.parametrize("rows", [3, 400])
def test_layers_in_one_step_are_judged_as_one_by_one(units: int, rows: int) -> None:
    random, members = np.random.default_rng(0), 400
    places = np.array([drawn(random, units) for _ in range(members)])
    links = [np.sort(random.choice([1.0, 0.99, 0.98, 0.5], size=random.integers(0, units)))[::-1] for _ in places]
    rank, dimension = random.uniform(0, units, size=members), 3.0
    ablation = random.choice([np.nan, -9e-4, 0.0, 2e-3], size=members)
    structure = LayerStructure(padded(links), rank, dimension, ablation)
    outputs = random.choice([None, *OutputVerdict], size=members)
    verdicts = layer_verdicts(places, nothing_measured(members, units, rows), structure, outputs, Thresholds())
    expected = [
        read_out(
            [str(UNIT_VERDICTS[index]) for index in row],
            list(links[member]),
            rank[member],
            dimension,
            rows,
            outputs[member],
            ablation[member],
        )
        for member, row in enumerate(places)
    ]
    assert [str(verdict) for verdict in verdicts] == [str(verdict) for verdict in expected]
    assert len(set(expected)) >= {1: 7, 2: 10, 5: 10}[units] - (rows < 8)


def test_the_rules_stand_in_the_order_of_precedence_that_the_names_declare() -> None:
    evidence, structure = (
        nothing_measured(2, 3, 10),
        LayerStructure(padded([np.array([])] * 2), np.ones(2), 3.0, np.full(2, np.nan)),
    )
    places = unit_places(evidence)
    assert places.shape == (2, 3)
    assert [*_unit_rules(evidence, Thresholds()), UnitVerdict.ALIVE] == UNIT_VERDICTS.tolist() == list(UnitVerdict)
    layers = [*_layer_rules(places, 10, structure, [None, None], Thresholds()), LayerVerdict.HEALTHY]
    assert layers == LAYER_VERDICTS.tolist() == list(LayerVerdict)


def test_many_members_owe_their_thresholds_what_each_owes_alone() -> None:
    inputs = normal(units=20, seed=3)
    flat = torch.where(torch.arange(20) < 1, 0.0, inputs)
    codes = [torch.relu(normal(seed=seed) - shift) for seed in range(3) for shift in (0.0, 2.3, 9.0)]
    codes += [1 + 5e-4 * torch.tanh(normal()), torch.relu(normal()[:, [0, 0, 1, 2]]), torch.zeros(ROWS, 4)]
    codes += [normal()[:, :1] + 0.15 * normal(seed=2), normal()[:, [0, 0, 1, 1]] + 0.3 * normal(seed=2)]
    documents = [diagnose(item, labels=labels()).to_dict() for item in codes]
    documents += [diagnose(item, activation="none", inputs=inputs, reconstruction=flat).to_dict() for item in codes]
    alone = [sweep([item]) for item in documents]
    for index, together in enumerate(sweep(documents)):
        parts = [item[index] for item in alone]
        assert together.members == len(documents)
        assert (together.changed, together.units, together.units_changed) == tuple(
            sum(getattr(item, name) for item in parts) for name in ("changed", "units", "units_changed")
        )
    assert sum(item.changed > 0 for item in sweep(documents)) >= 4
