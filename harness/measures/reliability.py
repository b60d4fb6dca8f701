"""Test-retest reliability of units that differ between two passes over the same rows."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit
from torch import Tensor

from harness.measures.chunks import UNIT_CHUNK, chunks, unit_rows
from harness.measures.unit_table import Table

FALSE_EXCLUSION = 1e-3
"""Chance, over a layer of pure noise, that any unit is kept out of the pool for looking reliable."""


def reliability_table(first: Tensor, second: Tensor, tolerance: NDArray[np.float64]) -> Table:
    """Test-retest reliability cov(z1, z2) / var(z) of every unit, `[member, unit]` each.

    Args:
        first, second: two passes over the same rows, `[member, sample, unit]`.
        tolerance: `[member, unit]`, difference that rounding explains.

    Returns:
        `stochastic` (1 where the passes differ), `reliability` (1: the passes agree; 0: noise; down to -1), its 95 %
        interval `reliability_low` and `reliability_high`, `repeat_finite`, and `reliability_bound`, one-sided 95 %: the
        unit's own, or the lower one of all units of the layer together that show no reliability. On 2000 rows of
        noise the own bound is below 0.05 two times in three, that of four units together nearly always. The bound is
        infinite for a unit that does not differ between the passes.

    >>> first = torch.tensor([[[1.0], [-1.0], [1.0], [-1.0]]])
    >>> second = torch.tensor([[[1.0], [-1.0], [-1.0], [1.0]]])
    >>> reliability_table(first, second, np.zeros((1, 1)))["reliability"].tolist()
    [[0.0]]
    """
    members, rows, units = first.shape
    products, pooled = torch.zeros(members, rows, dtype=torch.float64), torch.zeros(members, dtype=torch.float64)
    tables = []
    for table, product in _chunk_tables(first, second, tolerance):
        quiet = torch.from_numpy((table["stochastic"] > 0) & (table["chance"] > FALSE_EXCLUSION / units))
        table["quiet"] = quiet.numpy()
        products += torch.where(quiet[..., None], product, 0.0).sum(-2)
        pooled += quiet.sum(-1)
        tables.append(table)
    table = {name: np.concatenate([chunk[name] for chunk in tables], -1) for name in tables[0]}
    bound = _pool_bound(products, pooled)[:, None]
    lower = np.where(table["quiet"], np.minimum(table["own_bound"], bound), table["own_bound"])
    table["reliability_bound"] = np.where(table["stochastic"] > 0, lower, np.inf)
    return table


def _chunk_tables(first: Tensor, second: Tensor, tolerance: NDArray[np.float64]) -> Iterator[tuple[Table, Tensor]]:
    for chunk in chunks(tuple(first.shape), UNIT_CHUNK):
        lines, finite = unit_rows(first, chunk)
        repeats, repeat_finite = unit_rows(second, chunk)
        stochastic = (lines - repeats).abs().amax(-1) > torch.from_numpy(tolerance[..., chunk])
        product, power = _products(lines, repeats)
        table = {
            "repeat_finite": repeat_finite.numpy(),
            "stochastic": (stochastic & finite & repeat_finite).numpy(),
            **_own(product, power),
        }
        yield table, product


def _products(lines: Tensor, repeats: Tensor) -> tuple[Tensor, Tensor]:
    """Products of the two passes about their means, and their mean squares, both over the variance."""
    lines, repeats = lines - lines.mean(-1, keepdim=True), repeats - repeats.mean(-1, keepdim=True)
    power = (lines.square() + repeats.square()) / 2
    variance = power.mean(-1, keepdim=True)
    variance = torch.where(variance > 0, variance, torch.nan)
    return lines * repeats / variance, power / variance


def _own(product: Tensor, power: Tensor) -> Table:
    rows = product.shape[-1]
    reliability = product.mean(-1)
    spread = (product - reliability[..., None] * power).square().mean(-1).sqrt() / rows**0.5
    # few rows can agree by chance on too small a spread: independent passes have at least this much
    spread = torch.maximum(spread, (1 - reliability.square()).clamp_min(0) / rows**0.5)
    value, error = reliability.numpy(), spread.numpy()
    degrees = max(rows - 2, 1)
    two_sided, one_sided = stdtrit(degrees, [0.975, 0.95])
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = stdtr(degrees, -value / error)
    return {
        "reliability": value,
        "reliability_low": value - two_sided * error,
        "reliability_high": value + two_sided * error,
        "own_bound": value + one_sided * error,
        "chance": chance,
    }


def _pool_bound(products: Tensor, pooled: Tensor) -> NDArray[np.float64]:
    rows = products.shape[-1]
    mean = products / pooled.clamp_min(1)[:, None]
    error = mean.std(-1, correction=0) / rows**0.5
    bound = mean.mean(-1) + stdtrit(max(rows - 2, 1), 0.95) * error
    return torch.where(pooled > 1, bound, torch.inf).numpy()
