"""Sensitivity of the flags of stored units to thresholds without a published source."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.references import dependence_flags, negligible_below
from harness.diagnosis.stored_evidence import NUMBERS, REFERENCE_NUMBERS, StoredEvidence, rows_of
from harness.diagnosis.thresholds import Thresholds
from harness.diagnosis.unit_rules import is_heavy_tailed
from harness.diagnosis.verdicts import NOT_LIVE, UNJUDGED

Columns = Mapping[str, NDArray[Any]]


def unit_numbers(members: Sequence[StoredEvidence]) -> Columns:
    """Numbers behind the flags of every live unit, and of every reference of such a unit."""
    live = np.array([verdict not in LEFT_OUT for member in members for verdict in member.verdicts], dtype=bool)
    numbers = np.concatenate([rows_of([], len(NUMBERS)), *(member.numbers for member in members)])[live]
    columns = {name: numbers[:, NUMBERS.index(name)] for name in ("kurtosis", "energy_share", "ablation")}
    rows = np.array([member.group[1] for member in members for _ in member.verdicts], dtype=np.float64)
    return {**columns, "rows": rows[live], **_references(members, live)}


def _references(members: Sequence[StoredEvidence], live: NDArray[np.bool_]) -> Columns:
    """Numbers of the references of live units, and the index of the unit among these."""
    numbers = np.concatenate([rows_of([], 1 + len(REFERENCE_NUMBERS)), *(member.references for member in members)])
    first = np.cumsum([0, *(len(member.verdicts) for member in members)])[:-1]
    owners = numbers[:, 0].astype(np.int64) + np.repeat(first, [len(member.references) for member in members])
    chosen = live[owners]
    columns = {name: numbers[chosen, column] for column, name in enumerate(REFERENCE_NUMBERS, start=1)}
    return {**columns, "unit": (np.cumsum(live) - 1)[owners[chosen]]}


def units_flagged_otherwise(name: str, units: Columns, now: Thresholds, tried: Sequence[Thresholds]) -> int:
    """Number of units with another flag under at least one of the thresholds."""
    flags = FLAGS[name]
    before = flags(units, now)
    changed = np.any([flags(units, thresholds) != before for thresholds in tried], axis=0)
    return len(np.unique(units["unit"][changed])) if flags is _dependence else int(changed.sum())


def _heavy(units: Columns, thresholds: Thresholds) -> NDArray[Any]:
    heavy: NDArray[Any] = is_heavy_tailed(units["kurtosis"], units["energy_share"], thresholds)
    return heavy & (units["rows"] >= thresholds.few_rows)


def _unused(units: Columns, thresholds: Thresholds) -> NDArray[Any]:
    unused: NDArray[Any] = np.abs(units["ablation"]) < thresholds.unused
    return unused


def _dependence(units: Columns, thresholds: Thresholds) -> NDArray[Any]:
    delta = negligible_below(units["codes_entropy"], units["entropy"], thresholds)
    return dependence_flags(units["low"], units["high"], delta, units["p_adjusted"], thresholds.significance)


LEFT_OUT = {str(verdict) for verdict in NOT_LIVE | UNJUDGED}
FLAGS: dict[str, Callable[[Columns, Thresholds], NDArray[Any]]] = {
    "heavy_kurtosis": _heavy,
    "heavy_energy": _heavy,
    "unused": _unused,
    "delta_nats": _dependence,
    "delta_share": _dependence,
    "delta_codes": _dependence,
    "delta_classes": _dependence,
}
