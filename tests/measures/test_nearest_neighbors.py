"""Distances to the k-th neighbor, against all distances."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from harness.measures import nearest_neighbors
from harness.measures.nearest_neighbors import neighbor_distances
from harness.measures.ranks import ordering

ROWS = 700


def columns(kind: str, rows: int, count: int) -> np.ndarray:
    generator = np.random.default_rng(rows)
    drawn = generator.standard_normal((count, rows))
    return {
        "continuous": drawn,
        "relu": np.maximum(drawn, 0),
        "rarely on": np.where(drawn > 2, drawn, 0),
        "five values": np.round(drawn),
        "two values": (drawn > 1) * 1.0,
        "heavy tails": drawn**15,
    }[kind]


def by_all_distances(unit: np.ndarray, factor: np.ndarray, k: int) -> np.ndarray:
    points = ordering(np.stack([unit, factor])).row_scores.T
    return np.sort(cdist(points, points, "chebyshev"), axis=1)[:, k]


@pytest.mark.parametrize("factor", ["continuous", "five values", "two values"])
@pytest.mark.parametrize("unit", ["continuous", "relu", "rarely on", "five values", "two values", "heavy tails"])
def test_they_are_those_of_all_distances(unit: str, factor: str) -> None:
    units, reference = columns(unit, ROWS, 3), columns(factor, ROWS, 4)[-1]
    found = neighbor_distances(ordering(units), ordering(reference[None]), 3)
    assert np.array_equal(found, [by_all_distances(each, reference, 3) for each in units])


def test_a_dependent_unit_and_a_copy_too() -> None:
    factor = columns("continuous", ROWS, 1)[0]
    units = np.stack([factor, -factor, factor**2, factor + columns("continuous", ROWS, 2)[1] / 10])
    found = neighbor_distances(ordering(units), ordering(factor[None]), 3)
    assert np.array_equal(found, [by_all_distances(each, factor, 3) for each in units])


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("rows", [6, 7, 12, 13, 40])
def test_few_rows(rows: int, k: int) -> None:
    units, factor = columns("relu", rows, 2), columns("continuous", rows, 3)[-1]
    found = neighbor_distances(ordering(units), ordering(factor[None]), k)
    assert np.array_equal(found, [by_all_distances(each, factor, k) for each in units])


@pytest.mark.parametrize("unit", ["continuous", "relu", "two values"])
def test_a_tree_takes_over_where_rows_are_many(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    units, factor = columns(unit, ROWS, 2), columns("five values", ROWS, 3)[-1]
    monkeypatch.setattr(nearest_neighbors, "SHIFTED_ROWS", ROWS - 1)
    monkeypatch.setattr(nearest_neighbors, "_by_shifts", None)
    found = neighbor_distances(ordering(units), ordering(factor[None]), 3)
    assert np.array_equal(found, [by_all_distances(each, factor, 3) for each in units])


def test_rows_far_from_all_others_are_decided_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbors, "SHIFTS", 1)
    angles = np.linspace(0, 2 * np.pi, ROWS, endpoint=False)  # a circle: no line sees both ends of it at once
    units, factor = np.cos(angles)[None], np.sin(angles)
    found = neighbor_distances(ordering(units), ordering(factor[None]), 3)
    assert np.array_equal(found, [by_all_distances(units[0], factor, 3)])


def test_units_do_not_know_each_other() -> None:
    many, factor = columns("relu", ROWS, 200), ordering(columns("continuous", ROWS, 201)[-1:])
    alone = np.concatenate([neighbor_distances(ordering(each[None]), factor, 3) for each in many[::50]])
    assert np.array_equal(neighbor_distances(ordering(many), factor, 3)[::50], alone)
