"""Units of a diagnosis as a pandas table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.diagnosis.units import UnitDiagnosis

if TYPE_CHECKING:
    from pandas import DataFrame

AT_ONCE = 50_000  # units as dicts, 2 kB each


def frame(units: Sequence[UnitDiagnosis]) -> "DataFrame":
    """One row per unit, indexed by the unit's number."""
    # pandas takes half a second to import
    from pandas import DataFrame, concat

    parts = [units[start : start + AT_ONCE] for start in range(0, len(units), AT_ONCE)] or [units]
    frames = [DataFrame(unit_records(part)) for part in parts]
    return (frames[0] if len(frames) == 1 else concat(frames, ignore_index=True)).set_index("index")


def unit_records(units: Sequence[UnitDiagnosis]) -> list[dict[str, Any]]:
    """One flat mapping per unit, with intervals as `<measure>_low` and `<measure>_high`.

    References are written as `mutual_information/<name>`.
    """
    return [_flat(unit) for unit in units]


def _flat(unit: UnitDiagnosis) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name in UnitDiagnosis.__dataclass_fields__:
        value = getattr(unit, name)
        if name == "references":
            record |= {f"mutual_information/{key}": reference.mutual_information for key, reference in value.items()}
        elif name == "flags":
            record["flags"] = ", ".join(value)
        elif isinstance(value, tuple):
            stem = name.removesuffix("_interval")
            record[f"{stem}_low"], record[f"{stem}_high"] = value
        else:
            record[name] = str(value) if name == "verdict" else value
    return record
