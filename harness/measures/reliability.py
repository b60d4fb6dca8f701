"""Units that differ between two passes over the same rows: how much of them is noise."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit
from torch import Tensor

from harness.measures.unit_table import Table, pieces, unit_rows

FALSE_EXCLUSION = 1e-3
"""Chance, over a layer of pure noise, that any unit is kept out of the pool for looking reliable."""


def reliability_table(first: Tensor, second: Tensor, tolerance: NDArray[np.float64]) -> Table:
    """`[member, unit]` of `stochastic`, `reliability`, its 95 % interval, and `reliability_bound`.

    The bound is one-sided 95 %: the unit's own, or that of all units of the layer together that show no reliability,
    where it is lower. Of pure noise on 2000 rows the own bound is below .05 two times in three, that of four units
    together nearly always. Infinite for a unit that does not differ between the passes.
    """
    members, rows, units = first.shape
    products, pooled = torch.zeros(members, rows, dtype=torch.float64), torch.zeros(members, dtype=torch.float64)
    tables = []
    for piece, table, product in _pieces(first, second, tolerance):
        quiet = torch.from_numpy((table["stochastic"] > 0) & (table["chance"] > FALSE_EXCLUSION / units))
        table["quiet"] = quiet.numpy()
        products += torch.where(quiet[..., None], product, 0.0).sum(-2)
        pooled += quiet.sum(-1)
        tables.append(table)
        del piece
    table = {name: np.concatenate([each[name] for each in tables], -1) for name in tables[0]}
    bound = _pool_bound(products, pooled)[:, None]
    lower = np.where(table["quiet"], np.minimum(table["own_bound"], bound), table["own_bound"])
    table["reliability_bound"] = np.where(table["stochastic"] > 0, lower, np.inf)
    return table


def _pieces(first: Tensor, second: Tensor, tolerance: NDArray[np.float64]) -> Iterator[tuple[slice, Table, Tensor]]:
    for piece in pieces(tuple(first.shape)):
        one, finite = unit_rows(first, piece)
        two, also = unit_rows(second, piece)
        stochastic = (one - two).abs().amax(-1) > torch.from_numpy(tolerance[..., piece])
        product, power = _products(one, two)
        own = _own(product, power)
        yield piece, {"repeat_finite": also.numpy(), "stochastic": (stochastic & finite & also).numpy(), **own}, product


def _products(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    one, two = one - one.mean(-1, keepdim=True), two - two.mean(-1, keepdim=True)
    power = (one.square() + two.square()) / 2
    variance = power.mean(-1, keepdim=True)
    variance = torch.where(variance > 0, variance, torch.nan)
    return one * two / variance, power / variance


def _own(product: Tensor, power: Tensor) -> Table:
    rows = product.shape[-1]
    reliability = product.mean(-1)
    spread = (product - reliability[..., None] * power).square().mean(-1).sqrt() / rows**0.5
    # few rows can agree by chance on too small a spread: independent passes have at least this much
    spread = torch.maximum(spread, (1 - reliability.square()).clamp_min(0) / rows**0.5)
    found, error = reliability.numpy(), spread.numpy()
    degrees = max(rows - 2, 1)
    two_sided, one_sided = stdtrit(degrees, [0.975, 0.95])
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = stdtr(degrees, -found / error)
    return {
        "reliability": found,
        "reliability_low": found - two_sided * error,
        "reliability_high": found + two_sided * error,
        "own_bound": found + one_sided * error,
        "chance": chance,
    }


def _pool_bound(products: Tensor, pooled: Tensor) -> NDArray[np.float64]:
    rows = products.shape[-1]
    mean = products / pooled.clamp_min(1)[:, None]
    error = mean.std(-1, correction=0) / rows**0.5
    bound = mean.mean(-1) + stdtrit(max(rows - 2, 1), 0.95) * error
    return torch.where(pooled > 1, bound, torch.inf).numpy()
