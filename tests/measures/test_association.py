"""Tests and intervals of dependence against scipy, statsmodels and plain shuffling."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from known_information import binormal, independent_labels, mixture
from scipy import stats
from statsmodels.stats.multitest import multipletests

from harness.errors import HarnessError
from harness.measures import benjamini_hochberg, dependence, mutual_information, table_information
from harness.measures.block_permutation import BlockOrders, block_orders
from harness.measures.contingency import (
    binned_information,
    codes_of,
    contingency,
    information_interval,
    pearson,
)
from harness.measures.permutation import block_p, random_tables, table_p

OCTILES = np.arange(1, 8) / 8


def test_p_is_pearsons_where_every_cell_expects_five_rows() -> None:
    unit, label, _ = mixture(3, 0.2)(np.random.default_rng(0), 900)
    table = contingency(codes_of(unit[None]), label)[0]
    expected = stats.chi2_contingency(table, correction=False)
    assert expected.expected_freq.min() >= 5
    assert dependence(unit[:, None], label).p[0] == pytest.approx(expected.pvalue)
    assert pearson(table[None])[0][0] == pytest.approx(expected.statistic)


def test_of_a_continuous_factor_p_is_the_smaller_of_two_doubled() -> None:
    unit, factor, _ = binormal(0.1)(np.random.default_rng(0), 600)
    table = contingency(codes_of(unit[None]), codes_of(factor[None])[0])[0]
    pearsons = stats.chi2_contingency(table, correction=False).pvalue
    expected = 2 * min(pearsons, stats.spearmanr(unit, factor).pvalue)
    assert dependence(unit[:, None], factor).p[0] == pytest.approx(expected)


def test_binned_information_is_scikit_learns() -> None:
    from sklearn.metrics import mutual_info_score

    unit, label, _ = mixture(5, 1.0)(np.random.default_rng(0), 800)
    codes = codes_of(unit[None])
    expected = mutual_info_score(codes[0], label)
    assert binned_information(contingency(codes, label))[0] == pytest.approx(expected)
    assert table_information(unit[:, None], label)[0] == pytest.approx(expected)


def test_codes_are_quantiles_and_frequent_values_have_their_own() -> None:
    generator = np.random.default_rng(0)
    normal = generator.standard_normal(1600)
    assert np.bincount(codes_of(normal[None])[0]).tolist() == [200] * 8
    relu = np.maximum(normal, 0)
    codes = codes_of(relu[None])[0]
    zeros = codes[relu == 0]
    assert len(set(zeros)) == 1
    assert zeros[0] not in codes[relu > 0]
    assert len(set(codes)) == 5
    few = generator.choice([0.0, 1.0, 5.0], size=1600, p=[0.9, 0.08, 0.02])
    assert len(set(codes_of(few[None])[0])) == 3


def test_an_atom_in_the_middle_splits_no_bin() -> None:
    values = np.concatenate([np.linspace(-2, -1, 300), np.zeros(400), np.linspace(1, 2, 300)])
    codes = codes_of(values[None])[0]
    assert sorted(np.bincount(codes)) == [120] * 5 + [400]


@pytest.mark.parametrize("counts", [[[7, 1, 0], [2, 5, 6], [1, 0, 3]], [[2, 0, 1], [1, 1, 0], [0, 1, 1]]])
def test_sampled_tables_are_distributed_as_shuffled_rows(counts: list[list[int]]) -> None:
    table = np.array(counts)
    drawn = random_tables(table, 0, 20_000)
    assert (drawn.sum(2) == table.sum(1)).all()
    assert (drawn.sum(1) == table.sum(0)).all()
    exact = stats.random_table(table.sum(1), table.sum(0))
    cells, found = np.unique(drawn.reshape(-1, 9), axis=0, return_counts=True)
    chance = exact.pmf(cells.reshape(-1, 3, 3))
    common = chance > 2e-3
    error = np.sqrt(chance[common] * (1 - chance[common]) / 20_000)
    assert (np.abs(found[common] / 20_000 - chance[common]) < 5 * error).all()


def test_p_of_a_sparse_table_is_fishers_to_within_its_own_noise() -> None:
    table = np.array([[6, 1], [2, 7]])
    exact = stats.fisher_exact(table).pvalue
    assert table_p(table, 0, 9999) == pytest.approx(exact, abs=0.01)


def test_a_test_rejects_truly_independent_units_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    units = generator.standard_normal((200, 400))
    units[:, 200:] *= generator.random((200, 200)) < 0.04  # sparse tables, judged by permutation
    for reference in (generator.integers(0, 10, 200), generator.standard_normal(200)):
        p = dependence(units, reference).p
        assert np.mean(p[:200] <= 0.05) < 0.09
        assert np.mean(p[200:] <= 0.05) < 0.09


def test_the_interval_inverts_scipys_noncentral_chi_square() -> None:
    unit, label, _ = mixture(4, 0.5)(np.random.default_rng(0), 1000)
    tables = contingency(codes_of(unit[None]), label)
    low, high = information_interval(tables)
    statistic = 2000 * binned_information(tables)[0]
    assert stats.ncx2.cdf(statistic, 21, 2000 * low[0]) == pytest.approx(0.975)
    assert stats.ncx2.cdf(statistic, 21, 2000 * high[0]) == pytest.approx(0.025)


def test_the_interval_passes_smoothly_into_its_normal_form() -> None:
    table = np.array([[[40, 10], [10, 40]]])
    rows = 2 * 100 * binned_information(table)[0]
    for scale in (int(0.999e4 / rows), int(1.01e4 / rows) + 1):
        low, high = information_interval(table * scale)
        assert np.allclose([low[0], high[0]], 0.1927, atol=0.012)
        statistic = rows * scale
        assert stats.ncx2.cdf(statistic, 1, 200 * scale * low[0]) == pytest.approx(0.975, abs=2e-3)
        assert stats.ncx2.cdf(statistic, 1, 200 * scale * high[0]) == pytest.approx(0.025, abs=2e-3)


def test_the_interval_covers_the_information_of_the_codes() -> None:
    # one code a level, so the binned information is the information itself
    shares = np.array([[0.2, 0.1, 0.05], [0.05, 0.1, 0.2], [0.1, 0.1, 0.1]])
    exact = binned_information((shares[None] * 1e6).astype(np.int64))[0]
    tables = np.random.default_rng(0).multinomial(500, shares.ravel(), size=1000).reshape(-1, 3, 3)
    low, high = information_interval(tables)
    assert 0.93 < np.mean((low <= exact) & (exact <= high)) < 0.985


def levels_of_classes(classes: int, share: float) -> tuple[np.ndarray, float]:
    """A level for each class, and the exact information of the class with the octiles of level + noise, nats."""
    level = share**0.5 * stats.norm.ppf((np.arange(classes) + 0.5) / classes)
    edges = np.quantile(level[:, None] + (1 - share) ** 0.5 * stats.norm.ppf(np.arange(0.5, 400) / 400), OCTILES)
    below = stats.norm.cdf((edges - level[:, None]) / (1 - share) ** 0.5)
    codes = np.diff(below, axis=1, prepend=0, append=1)
    return level, float(stats.entropy(codes.mean(0)) - stats.entropy(codes, axis=1).mean())


@pytest.mark.parametrize("classes", [10, 100, 300, 1000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6])
def test_the_upper_bound_holds_however_few_rows_a_class_has(classes: int, share: float) -> None:
    generator = np.random.default_rng(0)
    level, exact = levels_of_classes(classes, share)
    for rows in (500, 2048):
        label = generator.integers(0, classes, rows)
        units = level[label] + (1 - share) ** 0.5 * generator.standard_normal((100, rows))
        high = information_interval(contingency(codes_of(units), label))[1]
        assert np.mean(high >= exact) >= 0.95, rows


def test_a_dependence_with_two_rows_a_class_is_not_called_negligible() -> None:
    generator = np.random.default_rng(0)
    for classes, rows, share in ((1000, 2048, 0.6), (300, 700, 0.5)):
        level, _ = levels_of_classes(classes, share)
        label = generator.integers(0, classes, rows)
        units = level[label, None] + (1 - share) ** 0.5 * generator.standard_normal((rows, 4))
        found = dependence(units, label)
        assert (found.p == 0.001).all()
        assert (found.flag != "negligible").all()


def test_empty_cells_of_a_dense_table_change_nothing() -> None:
    table = np.array([[[60, 0, 40], [0, 50, 50]]])
    assert pearson(table)[1][0] >= 5
    statistic, high = 400 * binned_information(table)[0], information_interval(table)[1][0]
    assert stats.ncx2.cdf(statistic, 2, 400 * high) == pytest.approx(0.025)


def test_dependence_has_three_values() -> None:
    generator = np.random.default_rng(0)
    unit, label, _ = mixture(4, 1.5)(generator, 2000)
    noise, few = generator.standard_normal(2000), np.zeros(2000)
    units = np.stack([unit, noise, few], axis=1)
    assert dependence(units, label).flag.tolist() == ["dependent", "negligible", "negligible"]
    assert dependence(units[:60], label[:60]).flag[[0, 2]].tolist() == ["dependent", "negligible"]


def test_few_rows_of_noise_are_mostly_inconclusive_and_hardly_ever_dependent() -> None:
    generator = np.random.default_rng(0)
    flags = dependence(generator.standard_normal((100, 200)), generator.integers(0, 5, 100)).flag
    assert np.mean(flags == "inconclusive") > 0.8
    assert np.mean(flags == "dependent") < 0.05


def test_delta_is_bounded_by_the_classes_and_by_the_units_own_codes() -> None:
    unit, label, _ = mixture(8, 1.0)(np.random.default_rng(0), 2000)
    rare = np.where(np.arange(2000) % 200 == 0, unit, 0.0)
    found = dependence(np.stack([unit, rare], axis=1), label)
    assert found.reference_entropy == pytest.approx(np.log(8), abs=0.01)
    assert found.delta[0] == pytest.approx(0.01 * found.reference_entropy)
    assert found.delta[1] == pytest.approx(0.05 * stats.entropy([0.995, 0.005]), rel=0.01)
    assert dependence(unit[:, None], np.random.default_rng(1).random(2000)).delta[0] == 0.01


def test_constant_units_are_no_tests_and_values_are_those_of_the_other_door() -> None:
    unit, label, _ = mixture(4, 1.5)(np.random.default_rng(0), 500)
    units = np.stack([unit, np.ones(500), np.where(np.arange(500) == 3, np.inf, 0)], axis=1)
    found = dependence(units, label)
    assert np.array_equal(found.value, mutual_information(units, label).numpy(), equal_nan=True)
    assert np.isnan(found.p).tolist() == [False, True, True]
    assert found.value[1] == found.low[1] == found.high[1] == 0
    assert np.isnan(found.high[2])
    assert found.flag.tolist() == ["dependent", "negligible", "inconclusive"]
    assert found.interval == (found.low, found.high)


def test_a_units_answer_does_not_depend_on_its_neighbors() -> None:
    generator = np.random.default_rng(0)
    stack = np.where(generator.random((2, 120, 3)) < 0.1, generator.random((2, 120, 3)), 0)
    for reference in (generator.integers(0, 6, 120), generator.random(120)):
        for blocks in (None, np.arange(120) // 10):
            whole = dependence(stack, reference, blocks)
            alone = dependence(stack[1, :, 2:], reference, blocks)
            assert whole.p[1, 2] == alone.p[0]
            assert whole.high[1, 2] == alone.high[0]


def walks(series: int, length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((series, length)).cumsum(1).ravel()


@pytest.mark.parametrize("kind", ["classes", "factor"])
def test_rows_of_one_series_are_alike_and_blocks_say_so(kind: str) -> None:
    blocks = np.arange(1200) // 60
    units = np.stack([walks(20, 60, seed) for seed in range(40)], axis=1)
    reference = walks(20, 60, 99)
    reference = (reference > 0).astype(int) if kind == "classes" else reference
    plain, blocked = dependence(units, reference), dependence(units, reference, blocks)
    assert np.mean(plain.p <= 0.05) > 0.6
    assert np.mean(blocked.p <= 0.05) < 0.2
    assert (blocked.flag == "dependent").mean() < 0.2
    assert np.mean(blocked.low == 0) > 0.8
    assert np.mean(plain.low == 0) < 0.4


def test_a_dependence_within_blocks_is_still_found() -> None:
    factor = walks(20, 60, 1)
    unit = factor + np.random.default_rng(2).standard_normal(1200)
    found = dependence(unit[:, None], factor, np.arange(1200) // 60)
    assert found.p[0] < 0.01
    assert found.flag[0] == "dependent"


def test_blocks_that_cannot_be_permuted_are_refused() -> None:
    unit, label, _ = independent_labels(3)(np.random.default_rng(0), 60)
    with pytest.raises(HarnessError, match="expected one block for each of the 60 samples"):
        dependence(unit[:, None], label, blocks=np.zeros(59))
    with pytest.raises(HarnessError, match="expected at least two blocks, got one"):
        dependence(unit[:, None], label, blocks=np.zeros(60))


def test_adjusted_p_values_are_statsmodels_and_nan_is_no_test() -> None:
    p = np.random.default_rng(0).uniform(size=(4, 5)) ** 3
    p[1, 2] = np.nan
    found = benjamini_hochberg(p)
    tests = ~np.isnan(p)
    assert np.allclose(found[tests], multipletests(p[tests], method="fdr_bh")[1])
    assert np.isnan(found[1, 2])
    assert np.isnan(benjamini_hochberg([np.nan])).all()


ROWS = np.arange(40)
CODE = np.random.default_rng(0).standard_normal((40, 3))


@pytest.mark.parametrize("measure", [dependence, mutual_information])
@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (torch.zeros(40, 2, device="meta"), "activations: expected a dense tensor, got a meta tensor, without values"),
        (torch.zeros(40, 2).to(torch.float8_e4m3fn), "activations: expected real numbers, got torch.float8_e4m3fn"),
        (
            [torch.ones(3, requires_grad=True)] * 40,
            "activations: expected an array, got a list that numpy cannot convert",
        ),
        (np.ma.masked_array(CODE, CODE > 1), "activations: expected an array, got a masked array"),
        (torch.zeros(40, 2, dtype=torch.bool), "activations: expected real numbers, got torch.bool"),
        (None, r"activations: expected real numbers, got an array of object \(from a NoneType\)"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(measure: object, activations: object, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        measure(activations, ROWS % 2)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "error:The given NumPy array is not writable")
def test_sparse_negated_and_read_only_values_are_read_as_the_matrix_they_are() -> None:
    expected = mutual_information(CODE, ROWS % 2).tolist()
    frozen = np.asfortranarray(CODE)
    frozen.setflags(write=False)
    tensor = torch.from_numpy(CODE)
    negated = torch.complex(tensor, -tensor).conj().imag
    for same in (frozen, tensor.to_sparse(), tensor.to_sparse_csr(), negated):
        assert mutual_information(same, ROWS % 2).tolist() == expected


@pytest.mark.parametrize("codes", [0, 2, 3, 5])
@pytest.mark.parametrize("blocks", [None, np.arange(360) // 3], ids=["rows", "blocks"])
def test_a_unit_s_answer_has_the_same_bits_beside_units_of_more_codes_and_of_fewer(blocks: object, codes: int) -> None:
    for seed in range(5):
        generator = np.random.default_rng(seed)
        rectified = np.maximum(generator.normal(size=(360, 1)), 0)
        even = generator.permutation(np.arange(360) % max(codes, 1))[:, None] * 1.0  # codes as frequent as each other
        unit = even if codes else rectified
        two, many = generator.integers(0, 2, (360, 1)) * 1.0, generator.normal(size=(360, 1))
        reference = np.arange(360) // 3 % 3 if seed % 2 else generator.normal(size=360)
        alone = dependence(unit, reference, blocks)
        for others in ([two], [many], [two, many, two]):
            beside = dependence(np.concatenate([unit, *others], 1), reference, blocks)
            for name in ("value", "p", "low", "high", "codes_entropy"):
                assert getattr(beside, name)[0] == getattr(alone, name)[0], name


@pytest.mark.parametrize("blocks", [[None] * 40, [np.nan] * 40, [[1], [1, 2]] * 20])
def test_what_names_no_block_is_refused(blocks: object) -> None:
    with pytest.raises(HarnessError, match="blocks: "):
        dependence(CODE, ROWS % 2, blocks=blocks)


@pytest.mark.parametrize("seed", ["x", -1, 1.5, None, True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(HarnessError, match="seed: expected a whole number from 0, got"):
        dependence(CODE, ROWS % 2, seed=seed)


@pytest.mark.parametrize(
    ("rows", "blocks", "count"), [(300, 30, 7), (3000, 30, 7), (200_000, 30, 7), (500, 50, 24), (2000, 50, 24)]
)
def test_p_of_permuted_blocks_is_that_of_every_table_by_itself(rows: int, blocks: int, count: int) -> None:
    """Counts of one, two and more bytes, blocks whole and in halves, against scipy's statistic of each permuted table."""
    generator = np.random.default_rng(1)
    codes = (np.arange(rows)[None] * 3 // rows > np.zeros((2, 1))).astype(np.uint8)
    codes[1] = generator.integers(0, 3, rows)
    classes = np.where(generator.random(rows) < 0.01, 1 - codes[0], codes[0])
    lengths = np.cumsum(1 + np.arange(blocks - 1) % 3 * (rows // blocks // 4))
    for groups in ([np.arange(each, rows, blocks) for each in range(blocks)], np.split(np.arange(rows), lengths)):
        orders = block_orders(groups, 0, count)
        p, inflation = block_p(codes, classes, orders)
        compare_one_by_one(codes, classes, orders, p, inflation)


def test_a_half_of_the_blocks_may_lack_a_unit_s_commonest_code() -> None:
    orders = block_orders([np.arange(each, 500, 50) for each in range(50)], 0, 24)
    codes = np.random.default_rng(0).integers(0, 2, (1, 500)).astype(np.uint8)
    codes[:, orders.parts[1].rows] = 2
    classes = np.arange(500) % 3
    compare_one_by_one(codes, classes, orders, *block_p(codes, classes, orders))


def compare_one_by_one(
    codes: np.ndarray, classes: np.ndarray, orders: BlockOrders, p: np.ndarray, inflation: np.ndarray
) -> None:
    rows, count = len(classes), len(orders.whole)
    for unit, found, wider in zip(codes, p, inflation, strict=True):
        own, *drawn = (statistic(unit, classes[order]) for order in (np.arange(rows), *orders.whole))
        assert found == (1 + sum(each >= own * (1 - 1e-9) for each in drawn)) / (count + 1)
        assert wider == pytest.approx(max(1.0, np.mean(drawn) / (len(np.unique(unit)) - 1)))


def test_of_a_continuous_factor_in_blocks_both_tests_are_permuted() -> None:
    """A strong dependence, a weak one that only ranks show, and none; ranks by scipy, one order after the other."""
    generator, rows = np.random.default_rng(0), 480
    factor = generator.standard_normal(rows)
    units = np.stack([factor**2, 0.1 * factor + generator.standard_normal(rows), generator.standard_normal(rows)])
    blocks = np.arange(rows) // 8
    orders = block_orders([np.flatnonzero(blocks == each) for each in range(60)], 0)
    tables, _ = block_p(codes_of(units), codes_of(factor[None])[0], orders)
    own, *drawn = (
        abs(stats.spearmanr(np.vstack([units, factor[order]]), axis=1)[0][-1, :-1])
        for order in everywhere(orders, rows)
    )
    ranks = (1 + np.sum(np.array(drawn) >= own - 1e-12, axis=0)) / 1000
    assert dependence(units.T, factor, blocks).p == pytest.approx(2 * np.minimum(tables, ranks))
    assert (tables[0], ranks[0] > 0.05, ranks[1] < tables[1]) == (0.001, True, True)


def everywhere(orders: BlockOrders, rows: int) -> Iterator[np.ndarray]:
    yield np.arange(rows)
    yield from orders.whole


@pytest.mark.parametrize("blocks", [12, 57])
def test_orders_keep_blocks_whole_and_the_rows_that_stand_are_none_of_them(blocks: int) -> None:
    groups = np.array_split(np.random.default_rng(0).permutation(8 * blocks), blocks)
    orders = block_orders(groups, 0)
    places = np.concatenate([part.rows for part in orders.parts])
    assert orders.whole.shape == (999, 8 * blocks)
    assert len({tuple(each) for each in [np.arange(8 * blocks), *orders.whole]}) == 1000
    names = np.repeat(np.arange(blocks), 8)[np.argsort(np.concatenate(groups))]
    for order in orders.whole[::50]:
        laid = names[order[places]]  # block by block
        assert sorted(order) == sorted(places)
        assert np.count_nonzero(np.diff(laid)) == blocks - 1


@pytest.mark.parametrize("blocks", [12, 57])
def test_a_true_null_hypothesis_is_rejected_as_often_as_p_says(blocks: int) -> None:
    """Units and references that are alike within blocks, and independent of one another."""
    generator, groups = np.random.default_rng(3), np.arange(8 * blocks).reshape(blocks, 8)

    def drawn(columns: int) -> np.ndarray:
        return generator.normal(size=(columns, blocks)).repeat(8, 1) + generator.normal(size=(columns, 8 * blocks))

    found = [
        block_p(codes_of(drawn(5), 4), codes_of(drawn(1), 4)[0], block_orders(list(groups), seed))[0]
        for seed in range(100)
    ]
    for level in (0.05, 0.2, 0.5):
        shares = (np.array(found) <= level).mean(1)
        assert abs(shares.mean() - level) < 3.5 * shares.std() / len(shares) ** 0.5


UNEQUAL = {
    "one short": np.array([*[20] * 19, 10]),
    "alike": np.arange(15, 26).repeat(2),
    "of any length": np.random.default_rng(0).integers(1, 41, 50),
}


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("one short", marks=pytest.mark.evidence),
        pytest.param("alike", marks=pytest.mark.evidence),
        "of any length",
    ],
)
def test_blocks_of_unequal_length_find_nothing_that_is_not_there(name: str, continuous: bool) -> None:
    """A reference that is the same on all rows of a block, and units that nearly are, drawn for each block anew."""
    sizes = UNEQUAL[name]
    generator, blocks = np.random.default_rng(5), np.arange(len(sizes)).repeat(sizes)
    found = []
    for seed in range(25):
        units = generator.normal(size=(len(sizes), 20)).repeat(sizes, 0)
        units += 0.3 * generator.normal(size=units.shape)
        drawn = generator.normal(size=len(sizes)) if continuous else generator.integers(0, 3, len(sizes))
        found.append(np.mean(dependence(units, drawn.repeat(sizes), blocks, seed).p <= 0.05))
    # laid end to end such blocks are cut, and .13 to .4 of these are rejected
    assert np.mean(found) < 0.05 + 3 * np.std(found) / 5


def test_a_block_shows_the_rows_of_one_other_from_its_first_on_and_again() -> None:
    groups = np.split(np.random.default_rng(0).permutation(60), [5, 6, 20, 33])
    orders = block_orders(groups, 0, 200)
    for order in orders.whole:
        shown = [next(each for each in groups if each[0] == order[group[0]]) for group in groups]
        assert sorted(each[0] for each in shown) == sorted(each[0] for each in groups)
        for group, other in zip(groups, shown, strict=True):
            assert (order[group] == np.resize(other, len(group))).all()


def statistic(codes: np.ndarray, classes: np.ndarray) -> float:
    table = stats.contingency.crosstab(codes, classes).count
    return float(stats.chi2_contingency(table, correction=False).statistic)
