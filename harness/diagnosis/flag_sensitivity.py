"""How much flags depend on thresholds that nobody published: the flags of stored units under other numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.references import dependence_flags, negligible_below
from harness.diagnosis.stored_evidence import NUMBERS, OF_REFERENCES, StoredEvidence, rows_of
from harness.diagnosis.thresholds import Thresholds
from harness.diagnosis.unit_rules import is_heavy_tailed
from harness.diagnosis.verdicts import CONSTANT, UNJUDGED

Columns = Mapping[str, NDArray[Any]]


def unit_numbers(members: Sequence[StoredEvidence]) -> Columns:
    """Of every unit that is judged and not constant, what its flags rest on; and of every reference of such a unit."""
    kept = np.array([verdict not in LEFT_OUT for each in members for verdict in each.verdicts], dtype=bool)
    numbers = np.concatenate([rows_of([], len(NUMBERS)), *(each.numbers for each in members)])[kept]
    found = {name: numbers[:, NUMBERS.index(name)] for name in ("kurtosis", "energy_share", "ablation")}
    rows = np.array([each.kind[1] for each in members for _ in each.verdicts], dtype=np.float64)
    return {**found, "rows": rows[kept], **_references(members, kept)}


def _references(members: Sequence[StoredEvidence], kept: NDArray[np.bool_]) -> Columns:
    """Of the references of the units that are kept: their numbers, and the place of the unit among those."""
    numbers = np.concatenate([rows_of([], 1 + len(OF_REFERENCES)), *(each.references for each in members)])
    first = np.cumsum([0, *(len(each.verdicts) for each in members)])[:-1]
    owners = numbers[:, 0].astype(np.int64) + np.repeat(first, [len(each.references) for each in members])
    shown = kept[owners]
    found = {name: numbers[shown, place] for place, name in enumerate(OF_REFERENCES, start=1)}
    return {**found, "unit": (np.cumsum(kept) - 1)[owners[shown]]}


def units_flagged_otherwise(name: str, units: Columns, now: Thresholds, tried: Sequence[Thresholds]) -> int:
    """How many units have another flag under one of the thresholds tried."""
    flags = FLAGS[name]
    before = flags(units, now)
    changed = np.any([flags(units, each) != before for each in tried], axis=0)
    return len(np.unique(units["unit"][changed])) if flags is _dependence else int(changed.sum())


def _heavy(units: Columns, thresholds: Thresholds) -> NDArray[Any]:
    found: NDArray[Any] = is_heavy_tailed(units["kurtosis"], units["energy_share"], thresholds)
    return found & (units["rows"] >= thresholds.few_rows)


def _unused(units: Columns, thresholds: Thresholds) -> NDArray[Any]:
    found: NDArray[Any] = units["ablation"] < thresholds.unused
    return found


def _dependence(units: Columns, thresholds: Thresholds) -> NDArray[Any]:
    delta = negligible_below(units["codes_entropy"], units["entropy"], thresholds)
    return dependence_flags(units["low"], units["high"], delta, units["p_adjusted"], thresholds.significance)


LEFT_OUT = {str(each) for each in CONSTANT | UNJUDGED}
FLAGS: dict[str, Callable[[Columns, Thresholds], NDArray[Any]]] = {
    "heavy_kurtosis": _heavy,
    "heavy_energy": _heavy,
    "unused": _unused,
    "delta_nats": _dependence,
    "delta_share": _dependence,
    "delta_codes": _dependence,
}
