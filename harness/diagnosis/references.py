"""Dependence of units on reference variables: values, tests, intervals, correction over the layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.thresholds import THRESHOLDS, Thresholds
from harness.measures.association import smallest_dependence
from harness.measures.chunks import chunks
from harness.measures.reference_tests import MEASURED
from harness.measures.statistics import benjamini_hochberg

if TYPE_CHECKING:
    from harness.measures import Dependence

Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class ReferenceDependence:
    """Dependence of each unit on each reference.

    Args:
        references: name -> `value`, `p`, `p_adjusted`, `low`, `high`, `codes_entropy`, `delta`, `[member, unit]` each,
            and `entropy`.
        tested: `[member, unit]`, units that were tested: not constant, finite, fired often enough.
        smallest_p: `[member, unit]`, the least adjusted p over references; 1 without any.
    """

    references: Mapping[str, Columns]
    tested: NDArray[np.bool_]
    smallest_p: NDArray[np.float64]


def reference_dependence(
    activations: Tensor,
    references: Mapping[str, Tensor],
    tested: NDArray[np.bool_],
    finite: NDArray[np.bool_],
    constant: NDArray[np.bool_],
    blocks: Tensor | None,
    thresholds: Thresholds,
) -> ReferenceDependence:
    """Every unit of `[member, sample, unit]` against every reference; Benjamini-Hochberg over all of one member."""
    columns = _columns(activations, references, tested, finite, constant, blocks) if references else {}
    smallest = np.ones(tested.shape)
    if columns:
        adjusted = _adjust(np.stack([column["p"] for column in columns.values()]))
        for column, corrected in zip(columns.values(), adjusted, strict=True):
            column["p_adjusted"] = corrected
            column["delta"] = negligible_below(column["codes_entropy"], column["entropy"], thresholds)
        smallest = np.where(np.isnan(adjusted), 1.0, adjusted).min(0)
    return ReferenceDependence(columns, tested, smallest)


def _columns(
    activations: Tensor,
    references: Mapping[str, Tensor],
    tested: NDArray[np.bool_],
    finite: NDArray[np.bool_],
    constant: NDArray[np.bool_],
    blocks: Tensor | None,
) -> dict[str, Columns]:
    from harness.measures import dependences

    valued, parts = finite & ~constant, []
    for units_slice in chunks(tuple(activations.shape)):
        # constant units, and units that are not finite, enter as 0
        chosen = torch.from_numpy(valued[:, units_slice])
        values = torch.where(
            chosen[:, None, :], activations[..., units_slice], torch.zeros((), dtype=activations.dtype)
        )
        parts.append(dependences(values, references, blocks=blocks))
    return {name: _whole([part[name] for part in parts], tested, valued, constant) for name in references}


def _whole(
    parts: "Sequence[Dependence]",
    tested: NDArray[np.bool_],
    valued: NDArray[np.bool_],
    constant: NDArray[np.bool_],
) -> Columns:
    columns = {name: np.concatenate([getattr(part, name) for part in parts], -1) for name in MEASURED}
    for name in ("value", "low", "high"):
        columns[name] = np.where(valued, columns[name], np.where(constant, 0.0, np.nan))
    columns["p"] = np.where(tested, columns["p"], np.nan)
    return columns | {"entropy": np.asarray(parts[0].reference_entropy)}


def _adjust(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini-Hochberg over references and units of each member of `[reference, member, unit]`; NaN is no test."""
    return np.stack([benjamini_hochberg(p[:, member]) for member in range(p.shape[1])], 1)


def negligible_below(
    codes_entropy: NDArray[np.float64], entropy: NDArray[np.float64], thresholds: Thresholds = THRESHOLDS
) -> NDArray[np.float64]:
    """`smallest_dependence` under these thresholds.

    >>> negligible_below(np.array([2.0, 0.1]), np.array([np.nan, 1.0])).round(4).tolist()
    [0.01, 0.005]
    """
    return smallest_dependence(
        codes_entropy,
        entropy,
        thresholds.delta_nats,
        thresholds.delta_share,
        thresholds.delta_codes,
        thresholds.delta_classes,
    )


def dependence_flags(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    delta: NDArray[np.float64],
    p_adjusted: NDArray[np.float64],
    significance: float,
) -> NDArray[np.str_]:
    """dependent, negligible or inconclusive for each unit; p is NaN where there is no test.

    Absence of evidence is inconclusive, never negligible.

    >>> p = np.array([0.001, 0.3, np.nan])
    >>> dependence_flags(np.array([0.2, 0.0, 0.2]), np.array([0.4, 0.2, 0.4]), np.full(3, 0.01), p, 0.05).tolist()
    ['dependent', 'inconclusive', 'inconclusive']
    """
    dependent = (low > delta) & (p_adjusted <= significance)
    negligible = (high < delta) & ~np.isnan(p_adjusted)
    return np.where(dependent, "dependent", np.where(negligible, "negligible", "inconclusive"))
