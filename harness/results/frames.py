"""Records as tables: a row per member, per unit, per snapshot. pandas loads when first needed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.results.records import MemberRecord

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[Any]
Size = tuple[int, int]
Column = Callable[[Sequence[MemberRecord], Sequence[Size]], Array]


def members_frame(records: Sequence[MemberRecord]) -> "DataFrame":
    """Return a table with one row per member.

    Returns:
        A column per factor (None where a member has no such factor), `seed`, `split` (where there are several), `status`, `verdict`, `failed`
        (see `MemberRecord`), `collapsed`, `flags` (separated by spaces), `live_units`, `units`, `r2`, `loss/<term>`, `variant`, `key`, `error`. Missing values are NaN.

    >>> record = MemberRecord("k", "relu", {"activation": "relu"}, 3, verdict="healthy", units=4, live_units=4)
    >>> members_frame([record])[["activation", "seed", "verdict"]].values.tolist()
    [['relu', 3, 'healthy']]
    """
    from pandas import DataFrame

    factors = dict.fromkeys(name for record in records for name in record.levels)
    terms = dict.fromkeys(term for record in records for term in record.losses)
    rows = [_member(record, factors, terms) for record in records]
    columns = [*_columns(factors), *BEFORE, *(f"loss/{term}" for term in terms), *AFTER]
    # nullable: a member without a verdict is neither
    frame = DataFrame(rows, columns=columns).astype({"failed": "boolean", "collapsed": "boolean"})
    splits = [record.split for record in records]
    if any(splits):
        frame.insert(frame.columns.get_loc("seed") + 1, "split", splits)
    return frame


def units_frame(records: Sequence[MemberRecord]) -> "DataFrame":
    """Return a table with one row per unit of a judged member, at the end of training.

    Returns:
        `key`, `variant`, `seed`, `unit`, the layer's `verdict`, `unit_verdict`, `flags`, `died_at` (NaN: alive at the
        end; 0: dead at initialization), and the measures of `MEASURES` in their own units; NaN if unknown.
    """
    from pandas import DataFrame

    columns = ["key", "variant", "seed", "verdict", "unit", "unit_verdict", "flags", "died_at", *MEASURES]
    return DataFrame([row for record in records for row in _units(record)], columns=columns)


def history_frame(records: Sequence[MemberRecord]) -> "DataFrame":
    """Return a table with one row per snapshot of a member: `key`, `variant`, `seed`, `verdict`, then `step`, `epoch`, `loss/<term>`, ..."""
    from pandas import DataFrame

    rows: list[dict[str, Any]] = []
    for record in records:
        names, series = list(record.history), list(record.history.values())
        about = {"key": record.key, "variant": record.variant, "seed": record.seed, "verdict": record.reported_verdict}
        rows += [{**about, **dict(zip(names, values, strict=True))} for values in zip(*series, strict=True)]
    return DataFrame(rows) if rows else DataFrame(columns=["key", "variant", "seed", "verdict", "step", "epoch"])


def unit_history_frame(records: Sequence[MemberRecord]) -> "DataFrame":
    """Return a table with one row per unit and snapshot: `key`, `variant`, `seed`, `unit`, `step`, then each measure of the units' histories.

    A measure that was not computed at a snapshot is NaN.
    """
    from pandas import DataFrame

    measures = dict.fromkeys(name for record in records for name in record.unit_history)
    recorded = [record for record in records if record.unit_history]
    if not recorded:
        return DataFrame(columns=["key", "variant", "seed", "unit", "step", *measures])
    columns, sizes = (
        {**ABOUT_UNITS, **{name: _measured(name) for name in measures}},
        [_size(record) for record in recorded],
    )
    # column by column, without copies: for thousands of members this table is the largest object in memory
    return DataFrame({name: column(recorded, sizes) for name, column in columns.items()}, copy=False)


def _size(record: MemberRecord) -> Size:
    """Return the numbers of snapshots and units of a member."""
    snapshots, units = record.unit_history.array(next(iter(record.unit_history))).shape[:2]
    return snapshots, units


def _repeated(values: Sequence[Any], sizes: Sequence[Size], dtype: type | None = None) -> Array:
    """Repeat a member's value in each of its rows."""
    return np.repeat(np.array(values, dtype=dtype), [snapshots * units for snapshots, units in sizes])


def _steps(records: Sequence[MemberRecord], sizes: Sequence[Size]) -> Array:
    return np.concatenate(
        [
            np.repeat(_steps_of(record, snapshots), units)
            for record, (snapshots, units) in zip(records, sizes, strict=True)
        ]
    )


def _steps_of(record: MemberRecord, snapshots: int) -> Array:
    steps = record.history.array("step") if "step" in record.history else np.empty(0)
    return steps[:snapshots] if steps.size else np.arange(snapshots, dtype=float)


def _measured(name: str) -> Column:
    """Column of a measure; NaN for members without it."""

    def values(record: MemberRecord, length: int) -> Array:
        measured = record.unit_history.array(name).ravel() if name in record.unit_history else np.empty(0)
        return measured if measured.size == length else np.full(length, np.nan)

    def column(records: Sequence[MemberRecord], sizes: Sequence[Size]) -> Array:
        return np.concatenate(
            [values(record, snapshots * units) for record, (snapshots, units) in zip(records, sizes, strict=True)]
        )

    return column


def _member(record: MemberRecord, factors: Mapping[str, None], terms: Mapping[str, None]) -> list[Any]:
    judged = record.status != "failed"
    return [
        *(record.levels.get(name) for name in factors),
        *(record.seed, record.status, record.reported_verdict, record.failed, record.collapsed, " ".join(record.flags)),
        *((record.live_units, record.units) if judged else (float("nan"), float("nan"))),
        float("nan") if record.r2 is None else record.r2,
        *(record.losses.get(term, float("nan")) for term in terms),
        *(record.variant, record.key, record.error or ""),
    ]


def _columns(factors: Mapping[str, None]) -> list[str]:
    """Return the factors' names; a name that collides with another column gets the prefix `factor/`."""
    return [f"factor/{name}" if name in (*BEFORE, *AFTER) else name for name in factors]


def _units(record: MemberRecord) -> Iterator[list[Any]]:
    about = [record.key, record.variant, record.seed, record.reported_verdict]
    for unit in record.diagnosis.get("units", ()):
        index = unit["index"]
        died = record.died_at[index] if index < len(record.died_at) else None
        measures = [float("nan") if unit.get(name) is None else unit[name] for name in MEASURES]
        step = float("nan") if died is None else float(died)
        yield [*about, index, unit["verdict"], " ".join(unit.get("flags", ())), step, *measures]


ABOUT_UNITS: dict[str, Column] = {
    "key": lambda records, sizes: _repeated([record.key for record in records], sizes, object),
    "variant": lambda records, sizes: _repeated([record.variant for record in records], sizes, object),
    "seed": lambda records, sizes: _repeated([record.seed for record in records], sizes),
    "unit": lambda records, sizes: np.concatenate([np.tile(np.arange(units), snapshots) for snapshots, units in sizes]),
    "step": _steps,
}
BEFORE = ("seed", "status", "verdict", "failed", "collapsed", "flags", "live_units", "units", "r2")
AFTER = ("variant", "key", "error")
MEASURES = (
    *("activation_frequency", "mutual_information", "entropy_bits", "mean", "standard_deviation"),
    *("minimum", "maximum", "kurtosis", "energy_share", "reliability", "ablation"),
)
