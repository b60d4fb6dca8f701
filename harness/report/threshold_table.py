"""The members' diagnoses, read once: reading one takes a quarter of a millisecond, and four parts of the report ask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.diagnosis import sweep
from harness.diagnosis.sensitivity import Sensitivity
from harness.results.frames import MEASURES
from harness.results.packed import PackedJson
from harness.results.records import MemberRecord

SHOWN = ("index", "verdict", "flags", *MEASURES)


def swept_and_shown(records: Sequence[MemberRecord]) -> tuple[list[Sensitivity], list[MemberRecord]]:
    """How much the verdicts owe to the thresholds, and the members with what is shown of their diagnoses alone.

    Of a diagnosis the units remain, and of a unit what `SHOWN` names: a tenth, which is read again where it is shown.
    """
    shown: list[MemberRecord] = []

    def diagnoses() -> Iterator[Mapping[str, Any]]:
        for record in records:
            stored = record.diagnosis.plain()
            shown.append(replace(record, diagnosis=_shown(stored)))
            yield stored

    return sweep(diagnoses()), shown


def _shown(stored: Mapping[str, Any]) -> PackedJson:
    units = [{name: unit[name] for name in SHOWN if name in unit} for unit in stored.get("units", ())]
    return PackedJson.of({"units": units} if units else {})
