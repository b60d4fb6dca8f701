"""`negligible` is said only where the nearest-neighbor estimate agrees."""

import numpy as np
import pytest
import torch
from scipy import stats
from synthetic_codes import generator as torch_generator

import harness
from harness.measures import association, dependence, dependences, mutual_information
from harness.measures.association import smallest_dependence
from harness.measures.neighbor_permutation import DRAWS_AT_ONCE, MOST_DRAWS, MOST_ROWS, NeighborTest, PermutedRows

pytestmark = pytest.mark.many

Drawn = tuple[np.ndarray, np.ndarray]


def parity(seed: int, rows: int, cells: int = 32) -> Drawn:
    """A uniform unit, and the parity of its cell: log 2 nats, which 8 bins do not see."""
    unit = np.random.default_rng(seed).random(rows)
    return unit, (np.floor(unit * cells) % 2).astype(int)


def normal_parity(seed: int, rows: int) -> Drawn:
    unit = np.random.default_rng(seed).standard_normal(rows)
    return unit, (np.floor(stats.norm.cdf(unit) * 32) % 2).astype(int)


def checkerboard(seed: int, rows: int, cells: int) -> Drawn:
    """Unit and factor uniform on the black fields: the exclusive or of two parities is 0; log 2 nats."""
    unit, factor = np.random.default_rng(seed).random((2, 4 * rows))
    black = (np.floor(unit * cells) + np.floor(factor * cells)) % 2 == 0
    return unit[black][:rows], factor[black][:rows]


@pytest.mark.parametrize("rows", [300, 1000, 2000, 6000])
def test_a_label_that_is_the_parity_of_32_cells_is_never_negligible(rows: int) -> None:
    for seed in range(12):
        for draw in (parity, normal_parity):
            unit, label = draw(seed, rows)
            assert dependence(unit[:, None], label).flag[0] != "negligible"


def test_a_parity_that_the_table_does_not_see_has_a_small_p() -> None:
    for seed in range(8):
        unit, label = parity(seed, 2000)
        answer = dependence(unit[:, None], label)
        assert answer.flag[0] == "inconclusive"
        assert answer.p[0] <= 0.05
        assert answer.value[0] == pytest.approx(np.log(2), abs=0.06)
        assert answer.high[0] >= answer.delta[0]


@pytest.mark.parametrize("cells", [2, 4, 8, 16, 32])
def test_the_exclusive_or_of_unit_and_factor_is_never_negligible(cells: int) -> None:
    for seed in range(6):
        unit, factor = checkerboard(seed, 2000, cells)
        answer = dependence(unit[:, None], factor)
        assert answer.flag[0] == ("dependent" if cells <= 8 else "inconclusive")


def test_a_parity_is_not_negligible_in_a_diagnosis_either() -> None:
    unit, label = parity(0, 2000)
    code = torch.randn(2000, 4, generator=torch_generator(3)).double()
    code[:, 0] = torch.from_numpy(unit)
    units = harness.diagnose(code, activation="none", labels=torch.from_numpy(label)).units
    assert "label_negligible" not in units[0].flags
    assert units[0].references["labels"].p <= 0.05


@pytest.mark.parametrize("classes", [2, 10])
def test_independent_units_stay_negligible_and_are_rejected_hardly_more_often_than_meant(classes: int) -> None:
    flags, rejected = [], []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        answer = dependence(generator.standard_normal((2000, 40)), generator.integers(0, classes, 2000))
        flags += answer.flag.tolist()
        rejected += (answer.p <= 0.05).tolist()
    assert np.mean(np.array(flags) == "negligible") > 0.9
    assert "dependent" not in flags
    # 0.05 of the table and at most 0.025 of the estimate; 3 standard errors of 160 tests are 0.06
    assert np.mean(rejected) < 0.075 + 0.06


def test_exceedances_stop_the_draws_as_besag_and_clifford_say() -> None:
    generator = np.random.default_rng(1)
    rows, label = PermutedRows(400, None, 5), generator.integers(0, 2, 400)
    test, stopped = NeighborTest(label, rows), 0
    for unit in generator.standard_normal((6, 400)):
        p, draws = test.p(unit, -1.0, MOST_DRAWS)
        own = mutual_information(unit[:, None], label).item()
        drawn = np.array([mutual_information(unit[order, None], label).item() for order in rows.orders])
        larger = drawn >= own - 1e-12
        if larger.sum() >= 10:
            last = int(np.flatnonzero(larger)[9])
            assert p == 10 / (last + 1)
            assert draws == min(-(-(last + 1) // DRAWS_AT_ONCE) * DRAWS_AT_ONCE, MOST_DRAWS)
            stopped += 1
        else:
            assert p == (1 + larger.sum()) / 200
    assert stopped > 2


def test_p_of_the_estimate_is_valid_for_independent_pairs() -> None:
    p = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        test = NeighborTest(generator.integers(0, 3, 150), PermutedRows(150, None, seed))
        p.append(test.p(generator.standard_normal(150), -1.0, MOST_DRAWS)[0])
    for level in (0.1, 0.3, 0.6):
        # three standard errors of 60 draws
        assert np.mean(np.array(p) <= level) < level + 3 * (level * (1 - level) / 60) ** 0.5


def test_what_the_budget_does_not_reach_is_inconclusive_and_the_largest_estimate_comes_first(monkeypatch) -> None:
    unit, label = parity(0, 2000)
    weaker = np.where(np.random.default_rng(1).random(2000) < 0.5, unit, np.random.default_rng(2).random(2000))
    units = np.stack([weaker, unit], axis=1)
    full = dependence(units, label)
    assert (full.p <= 0.05).all()
    monkeypatch.setattr(association, "LAYER_BUDGET", MOST_DRAWS * 2000)
    answer = dependence(units, label)
    assert answer.p[1] == full.p[1]
    assert answer.p[0] > 0.05
    assert answer.flag.tolist() == ["inconclusive", "inconclusive"]
    assert answer.high[0] == answer.value[0]
    # every member has a budget of its own
    stack = dependence(np.stack([units, units[:, ::-1]]), label)
    assert stack.p.tolist() == [answer.p.tolist(), answer.p.tolist()[::-1]]


def test_many_rows_are_tested_on_a_part_of_them_and_blocks_stay_whole() -> None:
    rows = PermutedRows(9000, None, 0)
    assert len(rows.chosen) == MOST_ROWS == len(set(rows.chosen.tolist()))
    assert (np.sort(rows.orders, axis=1) == np.arange(MOST_ROWS)).all()
    groups = np.split(np.arange(9000), np.arange(300, 9000, 300))
    blocks = PermutedRows(9000, groups, 0)
    assert len(blocks.chosen) == 1800
    assert all(np.isin(group, blocks.chosen).mean() in (0, 1) for group in groups)
    few = PermutedRows(9000, [np.arange(4500), np.arange(4500, 9000)], 0)
    assert np.isnan(NeighborTest(np.arange(9000) % 2, few).p(np.arange(9000.0), 0.01, 199)[0])


def test_a_parity_in_blocks_is_not_negligible() -> None:
    generator = np.random.default_rng(0)
    unit, label = parity(0, 2400)
    blocks = np.arange(2400) // 12
    assert dependence(unit[:, None], label, blocks).flag[0] != "negligible"
    noise = generator.standard_normal((2400, 10))
    assert "dependent" not in dependence(noise, label, blocks).flag


def test_a_weak_estimate_on_the_tested_rows_decides_nothing() -> None:
    test = NeighborTest(np.arange(400) % 2, PermutedRows(400, None, 0))
    assert np.isnan(test.p(np.random.default_rng(0).standard_normal(400), 0.5, 199)[0])


def test_the_order_of_units_and_references_changes_no_answer() -> None:
    generator = np.random.default_rng(0)
    units = np.concatenate([parity(0, 2000)[0][:, None], generator.standard_normal((2000, 5))], axis=1)
    references = {"parity": parity(0, 2000)[1], "factor": generator.standard_normal(2000)}
    whole = dependences(units, references)
    turned = dependences(units[:, ::-1], dict(reversed(references.items())))
    for name in references:
        for column in ("value", "p", "low", "high", "delta"):
            np.testing.assert_array_equal(getattr(turned[name], column)[::-1], getattr(whole[name], column))


def test_delta_is_bounded_by_a_share_of_the_classes_and_of_the_codes() -> None:
    rare = float(stats.entropy([0.01, 0.99]))
    entropies = np.array([np.log(10), np.log(2), rare, np.nan, np.nan, 0.0])
    codes = np.array([2.0, 2.0, 2.0, 2.0, 0.1, 2.0])
    expected = [0.01 * np.log(10), 0.01, 0.1 * rare, 0.01, 0.005, 0.01]
    assert smallest_dependence(codes, entropies).tolist() == pytest.approx(expected)


def test_a_reference_of_a_single_class_is_negligible() -> None:
    units = np.random.default_rng(0).standard_normal((500, 2))
    assert dependence(units, np.zeros(500, int)).flag.tolist() == ["negligible", "negligible"]
    diagnosis = harness.diagnose(torch.from_numpy(units), activation="none", labels=torch.zeros(500).long())
    assert all("label_negligible" in unit.flags for unit in diagnosis.units)
