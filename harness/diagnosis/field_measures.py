"""Measures of a layer under the names that the fields use, as one line; numbers, never judged."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.units import OutputDiagnosis, UnitDiagnosis
from harness.measures.field import RANKME_EPSILON
from harness.types import Activations

DORMANT_TAU = 0.025  # Sokar et al. 2023
ROWS = 16384
FEW_CODES = 0.25  # of the distinct input rows
SAME_CODE = 1e-5  # of the range of the projection
MOST_UNITS = 256  # RankMe of a larger layer would take a good part of the diagnosis


def rank_me(activations: Activations) -> NDArray[np.float64]:
    """Return RankMe of each member; NaN for a layer of more than 256 units, and for one that is not finite or 0."""
    members, units = len(activations), activations.shape[-1]
    if units > MOST_UNITS:
        return np.full(members, math.nan)
    return np.array([_rank_me(member) for member in activations])


def _rank_me(activations: Activations) -> float:
    blocks = activations.split(ROWS)  # of a memory-mapped file, one after the other
    largest = max(float(block.abs().max()) for block in blocks)
    if not 0 < largest < math.inf:
        return math.nan
    scaled = (block.double() / largest for block in blocks)
    gram = sum(block.T @ block for block in scaled)
    sigma = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    shares = sigma / sigma.sum() + RANKME_EPSILON
    return math.exp(float(torch.special.entr(shares).sum()))


def codes_in_use(
    activations: Activations, distinct_rows: int, tolerance: NDArray[np.float64]
) -> list[dict[str, float]]:
    """Return of each member that has few values, as behind a quantizer, `codes_in_use` and their `perplexity`.

    Rows are equal codes if a random projection of them agrees to 1e-5 of its range, since a straight-through step rounds,
    or to the tolerance of the range test. A constant code has none. They count as a quantizer's if there are at most a
    quarter as many as distinct input rows, and most occur repeatedly.

    Args:
        activations: `[member, sample, unit]`, of which the first 16384 rows are read.
        distinct_rows: number of different input rows.
        tolerance: `[member, unit]`, widest range of a constant unit.
    """
    pairs = zip(activations, torch.from_numpy(tolerance), strict=True)
    return [_codes_in_use(member[:ROWS], distinct_rows, widest) for member, widest in pairs]


def _codes_in_use(activations: Activations, distinct_rows: int, tolerance: Tensor) -> dict[str, float]:
    if activations.shape[-1] > MOST_UNITS:
        return {}
    weights = torch.randn(activations.shape[-1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keys = (activations.double() * weights).sum(-1)
    low, high = keys.min(), keys.max()
    rounding = float((weights.abs() * tolerance).sum())
    if not rounding < float(high - low) < math.inf:
        return {}
    width = max(rounding, SAME_CODE * float(high - low))
    counts = ((keys - low) / width).round().unique(return_counts=True)[1]
    number = len(counts)
    if number > FEW_CODES * min(distinct_rows, len(keys)) or int((counts > 1).sum()) * 2 <= number:
        return {}
    entropy = float(torch.special.entr(counts.double() / len(keys)).sum())
    return {"codes_in_use": float(number), "perplexity": math.exp(entropy)}


def field_measures(
    activation: str, units: Sequence[UnitDiagnosis], output: OutputDiagnosis | None, rankme: float
) -> dict[str, float]:
    """Return `rankme`, and where they apply `l0`, `dormant` (ReLU), `kl` (a posterior), and `fvu` (an output).

    Args:
        activation: of the layer.
        units: of the layer.
        output: of the model, or None.
        rankme: of the layer, NaN where it was not measured.
    """
    numbers = {"rankme": rankme}
    if activation == "relu":  # not 0 exactly where it fires, and the mean is the mean size
        sizes = [unit.mean for unit in units]
        numbers["l0"] = sum(unit.activation_frequency for unit in units)
        numbers["dormant"] = math.nan
        if all(map(math.isfinite, sizes)):
            bound = DORMANT_TAU * sum(sizes) / len(sizes)
            numbers["dormant"] = float(sum(size <= bound for size in sizes))
    if _has_posterior(units):
        numbers["kl"] = sum(unit.kl for unit in units)
    if output is not None:
        numbers["fvu"] = 1 - output.r2
    return numbers


def field_line(measures: Mapping[str, float], units: Sequence[UnitDiagnosis]) -> str:
    """Return the measures that apply in one line, such as `L0 12.3, FVU 0.41, RankMe 3.2, dormant (tau 0.025) 5`."""
    active = measures.get("active_units", math.nan) if _has_posterior(units) else math.nan
    words = {
        "L0": (measures.get("l0", math.nan), "L0 {:.3g}"),
        "FVU": (measures.get("fvu", math.nan), "FVU {:.3g}"),
        "active": (active, f"active units {{:.0f}} of {len(units)}"),
        "KL": (measures.get("kl", math.nan), "KL {:.3g} nats"),
        "codes": (measures.get("codes_in_use", math.nan), "codes in use {:.0f}"),
        "perplexity": (measures.get("perplexity", math.nan), "perplexity {:.3g}"),
        "RankMe": (measures.get("rankme", math.nan), "RankMe {:.3g}"),
        "dormant": (measures.get("dormant", math.nan), f"dormant (tau {DORMANT_TAU}) {{:.0f}}"),
    }
    return ", ".join(text.format(value) for value, text in words.values() if math.isfinite(value))


def _has_posterior(units: Sequence[UnitDiagnosis]) -> bool:
    return any(unit.informed_rows >= 0 for unit in units)
