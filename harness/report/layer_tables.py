"""Short tables of a layer of any width: counts by verdict and quantiles of every measure."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.diagnosis.verdicts import UnitVerdict
from harness.report.format import humanize, number
from harness.report.svg import Table

if TYPE_CHECKING:
    from harness.diagnosis import Diagnosis, UnitDiagnosis

MOST_NAMED = 12
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def verdict_counts(diagnosis: "Diagnosis") -> Table:
    """One row per verdict: number, share and indices (the first twelve) of its units."""
    rows = []
    for verdict in UnitVerdict:
        indices = [unit.index for unit in diagnosis.units if unit.verdict == verdict]
        if indices:
            rows.append(
                [humanize(verdict), str(len(indices)), f"{len(indices) / len(diagnosis.units):.1%}", named(indices)]
            )
    return Table(["verdict", "units", "share", "which"], rows)


def measure_quantiles(diagnosis: "Diagnosis") -> Table | None:
    """One row per measure: minimum, quantiles over the units, maximum; None where no measure is known.

    Units without a value are omitted and counted in the last column.
    """
    rows = []
    for name, title in MEASURES.items():
        values = np.array([getattr(unit, name) for unit in diagnosis.units], dtype=float)
        finite = values[np.isfinite(values)]
        if finite.size:
            cuts = [number(float(quantile)) for quantile in np.quantile(finite, QUANTILES)]
            rows.append([title, *cuts, str(values.size - finite.size)])
    header = ["measure", "least", "5 %", "25 %", "median", "75 %", "95 %", "most", "units without"]
    return Table(header, rows) if rows else None


def gravest_first(units: "Sequence[UnitDiagnosis]") -> "list[UnitDiagnosis]":
    """Sort units by the precedence of their verdicts, then by variation, least first."""
    order = {verdict: rank for rank, verdict in enumerate(UnitVerdict)}

    def gravity(unit: "UnitDiagnosis") -> tuple[int, float]:
        return order[unit.verdict], math.inf if math.isnan(unit.variation) else unit.variation

    return sorted(units, key=gravity)


def named(indices: Sequence[int], most: int = MOST_NAMED) -> str:
    """Indices of units as text, the first ones of many.

    >>> named([1, 3]), named(range(20), 3)
    ('1, 3', '0, 1, 2 and 17 more')
    """
    listed = ", ".join(map(str, indices[:most]))
    return f"{listed} and {len(indices) - most} more" if len(indices) > most else listed


MEASURES = {
    "activation_frequency": "share of rows on which it fires",
    "mean": "mean",
    "standard_deviation": "standard deviation",
    "entropy_bits": "entropy (bits)",
    "mutual_information": "mutual information (nats)",
    "variation": "standard deviation / RMS",
}
