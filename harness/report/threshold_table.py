"""Diagnoses of the members, read once: unpacking one takes 0.25 ms and four parts of the report use it."""

import json
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
    """Sensitivity of the verdicts to the thresholds, and the members with reduced diagnoses.

    A reduced diagnosis has only its units, and a unit only the fields in `SHOWN`: a tenth of the size.
    """
    reduced: list[MemberRecord] = []

    def diagnoses() -> Iterator[Mapping[str, Any]]:
        for record in records:
            stored = record.diagnosis.plain()
            reduced.append(replace(record, diagnosis=_shown(stored)))
            yield stored

    return sweep(diagnoses()), reduced


def _shown(stored: Mapping[str, Any]) -> PackedJson:
    units = [{name: unit[name] for name in SHOWN if name in unit} for unit in stored.get("units", ())]
    return PackedJson.compressed(json.dumps({"units": units} if units else {}))
