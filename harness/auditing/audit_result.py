"""What an audit found, as a value: printable, in a notebook, and as plain JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from harness.auditing.audit_thresholds import AUDIT_THRESHOLDS, AuditThresholds
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity, gravity


@dataclass(frozen=True)
class Audit:
    """What the rules found about a case's loss and model.

    Args:
        case: the case's name.
        findings: faults first, then risks, then notes.
        undecided: rules that could not be decided, each with its reason in `evidence`.
        terms: the loss terms that were judged.
        source: `file:line` of the loss function, or "".
        seeds: how many initialisations were looked at.
        during_training: whether the case was also trained for a few hundred steps.
        evaluations: how often the loss or the model was evaluated by the probes.
        seconds: what it cost.
        bounds: what the rules compared with.
    """

    case: str
    findings: tuple[Finding, ...]
    undecided: tuple[Finding, ...] = ()
    terms: tuple[str, ...] = ()
    source: str = ""
    seeds: int = 3
    during_training: bool = True
    evaluations: int = 0
    seconds: float = 0.0
    bounds: AuditThresholds = field(default=AUDIT_THRESHOLDS)

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that say: this does not do what its author thinks."""
        return self._of(Severity.FAULT)

    @property
    def risks(self) -> tuple[Finding, ...]:
        """The findings that may hurt, depending on the data and the numbers."""
        return self._of(Severity.RISK)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What is worth knowing."""
        return self._of(Severity.NOTE)

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that fired, each once."""
        return tuple(dict.fromkeys(str(each.rule) for each in self.findings))

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.severity == severity)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, with the names of the attributes."""
        return {
            "case": self.case,
            "source": self.source,
            "terms": list(self.terms),
            "findings": [each.to_dict() for each in self.findings],
            "faults": len(self.faults),
            "risks": len(self.risks),
            "notes": len(self.notes),
            "undecided": [each.to_dict() for each in self.undecided],
            "seeds": self.seeds,
            "during_training": self.during_training,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "bounds": self.bounds.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Audit":
        """The audit that `to_dict` wrote."""
        kept = {name: stored[name] for name in ("case", "source", "seeds", "during_training", "evaluations", "seconds")}
        findings = tuple(Finding.from_dict(each) for each in stored["findings"])
        undecided = tuple(Finding.from_dict(each) for each in stored["undecided"])
        return cls(
            findings=findings,
            undecided=undecided,
            terms=tuple(stored["terms"]),
            bounds=AuditThresholds(**stored["bounds"]),
            **kept,
        )

    def headline(self) -> str:
        """The audit in one line."""
        counts = [(len(self._of(severity)), severity) for severity in (Severity.FAULT, Severity.RISK, Severity.NOTE)]
        said = ", ".join(f"{count} {severity}{'s' if count != 1 else ''}" for count, severity in counts)
        said += f", {len(self.undecided)} {Severity.UNDECIDED}"
        where = f" ({self.source})" if self.source else ""
        return f"{self.case}{where}: {said}; terms {', '.join(self.terms)}; {self.seeds} seeds, {self.seconds:.1f} s"

    def __str__(self) -> str:
        lines = [self.headline(), *("\n" + str(each) for each in self.findings)]
        if self.undecided:
            lines.append(f"\n{Severity.UNDECIDED}")
            lines += [
                f"    {each.rule}{f' in {each.term}' if each.term else ''}: {each.evidence}" for each in self.undecided
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = [
            (each.severity, each.rule, each.term or "", each.evidence, each.meaning, each.remedy)
            for each in self.findings
        ]
        cells += [(Severity.UNDECIDED, each.rule, each.term or "", each.evidence, "", "") for each in self.undecided]
        body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in cells)
        head = "".join(f"<th>{each}</th>" for each in ("severity", "rule", "term", "evidence", "meaning", "remedy"))
        return f"<div><p><b>{escape(self.headline())}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def by_gravity(findings: list[Finding]) -> tuple[Finding, ...]:
    """Faults first, then risks, then notes; within each in the order found.

    >>> [str(finding.severity) for finding in by_gravity([Finding("a", "note"), Finding("b", "fault")])]
    ['fault', 'note']
    """
    return tuple(sorted(findings, key=lambda finding: gravity(finding.severity)))
