"""Counts within a radius against numpy's search."""

import numpy as np
import pytest

from harness.measures.neighbor_counts import LOOKED_UP_ROWS, neighbor_counts
from harness.measures.ranks import ordering


def searched(scores: np.ndarray, radius: np.ndarray) -> np.ndarray:
    above = np.searchsorted(scores, scores + radius, side="right")
    return above - np.searchsorted(scores, scores - radius, side="left")


def column(kind: str, rows: int, generator: np.random.Generator) -> np.ndarray:
    values = generator.normal(size=rows)
    if kind == "zeros":
        return np.maximum(values, 0)
    return values.round(1) if kind == "ties" else values


@pytest.mark.parametrize("rows", [2, 3, 17, 256, 1024, 5000])
@pytest.mark.parametrize("width", [1e-6, 0.05, 1.0, 20.0])
def test_counts_are_those_of_a_search(rows: int, width: float) -> None:
    generator = np.random.default_rng(rows)
    kinds = ("plain", "zeros", "ties", "plain", "ties")
    columns = ordering(np.stack([column(kind, rows, generator) for kind in kinds]))
    radius = np.abs(generator.normal(size=(5, rows))) * width
    for scores, wide, found in zip(columns.scores, radius, neighbor_counts(columns, radius), strict=True):
        assert found.tolist() == searched(scores, wide).tolist()


@pytest.mark.parametrize("kind", ["plain", "ties"])
def test_one_column_counts_for_many_lines(kind: str) -> None:
    generator = np.random.default_rng(5)
    one, radius = ordering(column(kind, 200, generator)[None]), np.abs(generator.normal(size=(3, 200)))
    assert neighbor_counts(one, radius).tolist() == [searched(one.scores[0], wide).tolist() for wide in radius]


@pytest.mark.parametrize("kind", ["plain", "zeros", "ties"])
@pytest.mark.parametrize("rows", [2, 9, 500])
def test_radii_that_end_on_a_score_count_it_and_hardly_smaller_ones_do_not(kind: str, rows: int) -> None:
    generator = np.random.default_rng(rows)
    one = ordering(column(kind, rows, generator)[None])
    scores = one.scores[0]
    for part in (1.0, 1 - 1e-10):
        radius = np.abs(scores - scores[generator.integers(0, rows, rows)]) * part
        assert neighbor_counts(one, radius[None])[0].tolist() == searched(scores, radius).tolist()
    assert (
        neighbor_counts(one, np.zeros((1, rows)))[0].tolist()
        == np.count_nonzero(scores[:, None] == scores, axis=1).tolist()
    )


@pytest.mark.parametrize("rows", [LOOKED_UP_ROWS, LOOKED_UP_ROWS + 1])
def test_long_columns_are_counted_as_well(rows: int) -> None:
    generator = np.random.default_rng(0)
    one = ordering(generator.normal(size=(1, rows)))
    radius = np.abs(one.scores - np.roll(one.scores, 1))
    assert (neighbor_counts(one, radius)[0] == searched(one.scores[0], radius[0])).all()
