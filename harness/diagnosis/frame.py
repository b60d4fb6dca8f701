"""The units of a diagnosis as a pandas table."""

from typing import TYPE_CHECKING, Any

from harness.diagnosis.result import Diagnosis, UnitDiagnosis

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(diagnosis: Diagnosis) -> "DataFrame":
    """One row a unit, indexed by the unit's number; costs pandas only when it is asked for."""
    from pandas import DataFrame

    return DataFrame(unit_records(diagnosis)).set_index("index")


def unit_records(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """One flat mapping a unit: intervals as `<measure>_low` and `<measure>_high`, references as `<measure>/<name>`."""
    return [_flat(unit) for unit in diagnosis.units]


def _flat(unit: UnitDiagnosis) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name in UnitDiagnosis.__dataclass_fields__:
        value = getattr(unit, name)
        if name == "references":
            record.update({f"mutual_information/{each}": found.mutual_information for each, found in value.items()})
        elif name == "flags":
            record["flags"] = ", ".join(value)
        elif isinstance(value, tuple):
            stem = name.removesuffix("_interval")
            record[f"{stem}_low"], record[f"{stem}_high"] = value
        else:
            record[name] = str(value) if name == "verdict" else value
    return record
