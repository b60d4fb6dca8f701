"""A prescription: what was examined, tried and proved, and the change to make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.prescription.remedy import WORKS, Remedy, code_heading
from harness.results import MemberRecord

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Prescription:
    """The remedies that were proved, best first, and everything that led to them.

    Args:
        case: name of the case.
        headline: the answer in a sentence.
        wrong: True when something is wrong with the model as it is.
        remedies: proved changes, best first; empty where nothing is wrong or nothing helped in screening.
        tried: changes that were screened, with their reason and score.
        excluded: changes that were left out, with the reason.
        findings: findings of the audit.
        untreated: counts of the layer verdicts of the untreated members, and of those without a result as `lost`.
        notes: remarks, such as parts that were left out for want of time.
        seconds: wall time.
        interrupted: True if it was stopped before its end; what was seen until then is here.
        failed_if: outcomes that count as a failed seed, in words.
        records: members of the proof.
    """

    case: str
    headline: str
    wrong: bool
    remedies: tuple[Remedy, ...] = ()
    tried: tuple[Mapping[str, Any], ...] = ()
    excluded: tuple[Mapping[str, Any], ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()
    untreated: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False
    failed_if: str = ""
    records: Sequence[MemberRecord] = field(default=(), repr=False, compare=False)

    @property
    def best(self) -> Remedy | None:
        """The first remedy that works or helps; None where none does."""
        return next((remedy for remedy in self.remedies if remedy.word in WORKS), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the names of the attributes."""
        return {
            "schema_version": SCHEMA_VERSION,
            "case": self.case,
            "headline": self.headline,
            "wrong": self.wrong,
            "remedies": [remedy.to_dict() for remedy in self.remedies],
            "tried": [dict(row) for row in self.tried],
            "excluded": [dict(row) for row in self.excluded],
            "findings": [dict(finding) for finding in self.findings],
            "untreated": dict(self.untreated),
            "notes": list(self.notes),
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "failed_if": self.failed_if,
        }

    def report(self, path: str | Path) -> Path:
        """Write the prescription as one HTML page without scripts, and return its path."""
        from harness.prescription.prescription_page import page
        from harness.results import write_atomic

        write_atomic(Path(path), page(self).encode())
        return Path(path)

    def __repr__(self) -> str:
        return f"Prescription({self.case!r}: {self.headline})"

    def __str__(self) -> str:
        lines = [self.headline]
        lines += [f"  {remedy}" for remedy in self.remedies]
        if self.best is not None and self.best.side_effects:
            lines += [f"Side effects: {self.best.side_effects}."]
        lines += [f"Failed: {self.failed_if}."] if self.remedies else []
        if self.best is not None:
            lines += ["", f"{code_heading(self.best)}:", *(f"    {line}" for line in self.best.code.splitlines())]
        lines += [""] if self.tried or self.excluded else []
        lines += [f"Tried, {reason}: {', '.join(names)}" for reason, names in _by_reason(self.tried).items()]
        lines += [f"Not tried, {reason}: {', '.join(names)}" for reason, names in _by_reason(self.excluded).items()]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from harness.prescription.prescription_page import body

        return body(self)


class PrescriptionInterrupted(KeyboardInterrupt):
    """A search that was stopped by Ctrl-C or a signal.

    Args:
        prescription: what was seen until then.
    """

    def __init__(self, prescription: Prescription) -> None:
        super().__init__(str(prescription))
        self.prescription = prescription


def _by_reason(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(str(row["reason"]), []).append(str(row["name"]))
    return names
