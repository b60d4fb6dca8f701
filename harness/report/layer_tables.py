"""A layer in few lines, however many units it has: counts by verdict, quantiles of every measure, the worst by name."""

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
    """A row a verdict that any unit has: how many, what share, and which (the first twelve by number)."""
    rows = []
    for verdict in UnitVerdict:
        found = [unit.index for unit in diagnosis.units if unit.verdict == verdict]
        if found:
            rows.append([humanize(verdict), str(len(found)), f"{len(found) / len(diagnosis.units):.1%}", named(found)])
    return Table(["verdict", "units", "share", "which"], rows)


def measure_quantiles(diagnosis: "Diagnosis") -> Table | None:
    """A row a measure: its least, its quantiles over the units, its most; None where no measure is known.

    Units without a value are left out; the last column says how many there are.
    """
    rows = []
    for name, title in MEASURES.items():
        values = np.array([getattr(unit, name) for unit in diagnosis.units], dtype=float)
        known = values[np.isfinite(values)]
        if known.size:
            cuts = [number(float(each)) for each in np.quantile(known, QUANTILES)]
            rows.append([title, *cuts, str(values.size - known.size)])
    header = ["measure", "least", "5 %", "25 %", "median", "75 %", "95 %", "most", "units without"]
    return Table(header, rows) if rows else None


def gravest_first(units: "Sequence[UnitDiagnosis]") -> "list[UnitDiagnosis]":
    """Units by the precedence of their verdicts, then by how little they vary."""
    order = {verdict: place for place, verdict in enumerate(UnitVerdict)}

    def gravity(unit: "UnitDiagnosis") -> tuple[int, float]:
        return order[unit.verdict], math.inf if math.isnan(unit.variation) else unit.variation

    return sorted(units, key=gravity)


def named(indices: Sequence[int], most: int = MOST_NAMED) -> str:
    """The numbers of some units, the first few of many.

    >>> named([1, 3]), named(range(20), 3)
    ('1, 3', '0, 1, 2 and 17 more')
    """
    said = ", ".join(map(str, indices[:most]))
    return f"{said} and {len(indices) - most} more" if len(indices) > most else said


MEASURES = {
    "activation_frequency": "share of rows on which it fires",
    "mean": "mean",
    "standard_deviation": "standard deviation",
    "entropy_bits": "entropy (bits)",
    "mutual_information": "mutual information (nats)",
    "variation": "standard deviation / RMS",
}
