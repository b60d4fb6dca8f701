"""Estimated against exact information, and against scikit-learn's estimator on the same normal scores."""

import numpy as np
import pytest
import torch
from known_information import TASKS, binormal, mixture
from scipy.stats import norm, rankdata
from sklearn.feature_selection import mutual_info_regression

import harness
from harness.errors import HarnessError
from harness.measures import mutual_information
from harness.measures.information import FACTOR_NEIGHBORS

ROWS, SEEDS = 2000, 6


def estimates(name: str) -> np.ndarray:
    task, _ = TASKS[name]
    found = []
    for seed in range(SEEDS):
        unit, reference, exact = task(np.random.default_rng(seed), ROWS)
        found.append(mutual_information(unit[:, None], reference).item() - exact)
    return np.array(found)


@pytest.mark.parametrize("name", TASKS)
def test_the_exact_information_is_met(name: str) -> None:
    assert abs(estimates(name).mean()) < TASKS[name][1]


def scores(values: np.ndarray) -> np.ndarray:
    return norm.ppf(rankdata(values) / (len(values) + 1))


@pytest.mark.parametrize("name", ["binormal .95", "student 1", "uniform noise .1"])
def test_without_ties_it_is_scikit_learns_number(name: str) -> None:
    unit, reference, _ = TASKS[name][0](np.random.default_rng(3), 700)
    other = mutual_info_regression(scores(unit)[:, None], scores(reference), n_neighbors=FACTOR_NEIGHBORS)[0]
    # scikit-learn adds noise of 1e-10 to the values and rescales them, which may move one count in a thousand
    assert mutual_information(unit[:, None], reference).item() == pytest.approx(other, abs=2e-3)


# scikit-learn clamps at 0: of independent pairs its error is not comparable
DEPENDENT = [name for name in TASKS if name != "binormal 0" and "classes" not in name and "independent" not in name]


@pytest.mark.parametrize("name", DEPENDENT)
def test_it_errs_no_more_than_scikit_learn(name: str) -> None:
    task, _ = TASKS[name]
    theirs = []
    for seed in range(SEEDS):
        unit, reference, exact = task(np.random.default_rng(seed), ROWS)
        bar = mutual_info_regression(scores(unit)[:, None], scores(reference), n_neighbors=3, random_state=0)[0]
        theirs.append(bar - exact)
    ours, bar = np.sqrt(np.mean(estimates(name) ** 2)), np.sqrt(np.mean(np.square(theirs)))
    # a quarter, and half a standard error of the mean: atoms and ties are told apart differently
    assert ours < 1.25 * bar + 0.005


def test_a_constant_unit_is_exactly_zero_and_a_unit_that_is_not_finite_has_no_value() -> None:
    generator = np.random.default_rng(0)
    units = np.stack([np.full(300, 0.1), np.zeros(300), generator.standard_normal(300), np.zeros(300)], axis=1)
    units[4, 3] = np.nan
    units[:, 0] += 1e-9 * generator.standard_normal(300)
    for reference in (generator.integers(0, 3, 300), generator.standard_normal(300)):
        found = mutual_information(units, reference, dtype="float32").tolist()
        assert found[:2] == [0.0, 0.0]
        assert np.isfinite(found[2])
        assert np.isnan(found[3])
        whole = mutual_information(units[:, 2:3], reference).item()
        assert found[2] == whole


def test_a_reference_that_is_the_same_on_every_row_tells_nothing() -> None:
    units = np.random.default_rng(0).standard_normal((50, 2))
    assert mutual_information(units, np.zeros(50)).tolist() == [0, 0]
    assert mutual_information(units, np.zeros(50, int)).tolist() == [0, 0]


def test_an_independent_unit_scatters_around_zero_on_both_sides() -> None:
    generator = np.random.default_rng(0)
    units = generator.standard_normal((400, 60))
    for reference in (generator.integers(0, 4, 400), generator.standard_normal(400)):
        found = mutual_information(units, reference)
        assert (found < 0).any()
        assert abs(found.mean()) < 0.02


@pytest.mark.parametrize("kind", [int, float])
def test_a_rare_unit_is_one_atom_and_not_a_thousand_neighbors(kind: type) -> None:
    generator = np.random.default_rng(1)
    label = generator.integers(0, 2, ROWS)
    unit = np.where((label == 1) & (generator.random(ROWS) < 0.1), generator.random(ROWS), 0)
    on = 0.05
    exact = np.log(2) - (1 - on) * -(0.45 / 0.95 * np.log(0.45 / 0.95) + 0.5 / 0.95 * np.log(0.5 / 0.95))
    assert mutual_information(unit[:, None], label.astype(kind)).item() == pytest.approx(exact, abs=0.012)


def test_increasing_functions_of_a_unit_change_nothing() -> None:
    unit, reference, _ = binormal(0.8)(np.random.default_rng(0), 500)
    units = np.stack([unit, np.exp(unit), unit**3, 1e6 * unit - 5], axis=1)
    found = mutual_information(units, reference).numpy()
    assert np.ptp(found) == 0


def test_the_names_of_classes_and_the_order_of_rows_mean_nothing() -> None:
    unit, label, _ = mixture(4, 1.5)(np.random.default_rng(0), 600)
    order = np.random.default_rng(1).permutation(600)
    expected = mutual_information(unit[:, None], label).item()
    assert mutual_information(unit[:, None], np.array([70, -3, 12, 5])[label]).item() == expected
    assert mutual_information(unit[order, None], label[order]).item() == pytest.approx(expected, abs=1e-12)


def test_a_stack_is_each_member_alone_for_arrays_and_tensors() -> None:
    stack = torch.relu(torch.randn(2, 3, 200, 4, generator=torch.Generator().manual_seed(0)))
    for reference in (torch.arange(200) % 5, torch.linspace(0, 1, 200)):
        whole = harness.mutual_information(stack, reference)
        assert whole.shape == (2, 3, 4)
        assert torch.equal(whole[1, 2], harness.mutual_information(stack[1, 2].numpy(), reference.numpy()))


def test_half_precision_is_read_as_it_is() -> None:
    unit, label, _ = mixture(3, 2.0)(np.random.default_rng(0), 500)
    coarse = torch.from_numpy(unit)[:, None].bfloat16()
    assert torch.equal(mutual_information(coarse, label), mutual_information(coarse.float(), label))


def test_few_rows_and_classes_of_one_row_are_no_error() -> None:
    units = np.random.default_rng(0).standard_normal((4, 2))
    assert mutual_information(units, np.array([0, 0, 1, 2])).isfinite().all()
    assert mutual_information(units[:3], np.array([0, 1, 2])).tolist() == [0, 0]
    assert mutual_information(units[:2], np.array([0.0, 1.0])).isfinite().all()


units = np.zeros((20, 2))


@pytest.mark.parametrize(
    ("activations", "reference", "message"),
    [
        (units[:, 0], np.arange(20) % 2, r"expected \[sample, unit\], got the shape \[20\]"),
        (units[:0], np.arange(0), "expected at least one row and one unit"),
        (units[:, :0], np.arange(20) % 2, "expected at least one row and one unit"),
        (units * 1j, np.arange(20) % 2, "activations: expected real numbers"),
        (units > 0, np.arange(20) % 2, "activations: expected real numbers, got an array of bool"),
        (units.astype(object), np.arange(20) % 2, "expected real numbers, got an array of object"),
        ([[1.0], [1.0, 2.0]], np.arange(2) % 2, "got rows of different lengths"),
        (units, np.array(["a", "b"] * 10), "reference: expected real numbers"),
        (units, np.arange(20) > 3, "reference: expected real numbers, got an array of bool"),
        (units, np.arange(19) % 2, r"expected one value for each of the 20 samples, got the shape \[19\]"),
        (units, np.eye(20), r"expected one value for each of the 20 samples, got the shape \[20, 20\]"),
        (units, np.where(np.arange(20) == 7, np.nan, 1.0), "NaN or infinite in row 7"),
        (
            units,
            np.arange(20),
            "expected classes with several rows, got 20 classes for 20 rows; give a quantity as floats",
        ),
    ],
)
@pytest.mark.parametrize("door", [harness.mutual_information, harness.dependence])
def test_bad_input_is_refused_with_a_sentence(
    door: object, activations: object, reference: object, message: str
) -> None:
    with pytest.raises(HarnessError, match=message):
        door(activations, reference)
