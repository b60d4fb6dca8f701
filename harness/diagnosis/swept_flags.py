"""How much flags depend on thresholds that nobody published: the flags of stored units under other numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.informing import dependence_flags, negligible_below
from harness.diagnosis.rules import heavy
from harness.diagnosis.thresholds import Thresholds
from harness.diagnosis.verdicts import CONSTANT, UNJUDGED

Stored = Mapping[str, Any]
Columns = Mapping[str, NDArray[Any]]


def unit_numbers(diagnoses: Sequence[Stored]) -> Columns:
    """Of every unit that is judged and not constant, what its flags rest on; and of every reference of such a unit."""
    units = [(each["rows"], unit) for each in diagnoses for unit in each["units"] if unit["verdict"] not in LEFT_OUT]
    shared = [(place, each) for place, (_, unit) in enumerate(units) for each in unit["references"].values()]
    found = {name: _array([unit.get(name) for _, unit in units]) for name in ("kurtosis", "energy_share", "ablation")}
    found |= {
        name: _array([each.get(name) for _, each in shared]) for name in ("entropy", "codes_entropy", "p_adjusted")
    }
    bounds = [each["interval"] for _, each in shared]
    return found | {
        "rows": _array([rows for rows, _ in units]),
        "low": _array([low for low, _ in bounds]),
        "high": _array([high for _, high in bounds]),
        "unit": np.array([place for place, _ in shared], dtype=np.int64),
    }


def units_flagged_otherwise(name: str, units: Columns, now: Thresholds, tried: Sequence[Thresholds]) -> int:
    """How many units have another flag under one of the thresholds tried."""
    flags = FLAGS[name]
    before = flags(units, now)
    changed = np.any([flags(units, each) != before for each in tried], axis=0)
    return len(np.unique(units["unit"][changed])) if flags is _dependence else int(changed.sum())


def _heavy(units: Columns, thresholds: Thresholds) -> NDArray[Any]:
    found: NDArray[Any] = heavy(units["kurtosis"], units["energy_share"], thresholds)
    return found & (units["rows"] >= thresholds.few_rows)


def _unused(units: Columns, thresholds: Thresholds) -> NDArray[Any]:
    found: NDArray[Any] = units["ablation"] < thresholds.unused
    return found


def _dependence(units: Columns, thresholds: Thresholds) -> NDArray[Any]:
    delta = negligible_below(units["codes_entropy"], units["entropy"], thresholds)
    return dependence_flags(units["low"], units["high"], delta, units["p_adjusted"], thresholds.significance)


def _array(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


LEFT_OUT = {str(each) for each in CONSTANT | UNJUDGED}
FLAGS: dict[str, Callable[[Columns, Thresholds], NDArray[Any]]] = {
    "heavy_kurtosis": _heavy,
    "heavy_energy": _heavy,
    "unused": _unused,
    "delta_nats": _dependence,
    "delta_share": _dependence,
    "delta_codes": _dependence,
}
