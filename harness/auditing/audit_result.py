"""The result of an audit, which prints as text, HTML and plain JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from harness.auditing.audit_thresholds import AUDIT_THRESHOLDS, AuditThresholds
from harness.diagnosis.finding import Finding, pointer
from harness.diagnosis.severity import Severity, gravity
from harness.text import plural


@dataclass(frozen=True)
class Audit:
    """Findings of the rules about a case's loss and model.

    Args:
        case: the case's name.
        findings: faults first, then risks, then notes.
        undecided: rules that could not be decided, with the reason in `evidence`.
        terms: the loss terms that were judged.
        source: `file:line` of the loss function, or "".
        seeds: number of initializations that were probed.
        during_training: whether the case was also trained for a few hundred steps.
        evaluations: number of evaluations of the loss or the model by the probes.
        seconds: duration of the audit.
        bounds: thresholds of the rules.
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
        """Findings of severity fault: the loss or the model does not do what its author intends."""
        return self._of(Severity.FAULT)

    @property
    def risks(self) -> tuple[Finding, ...]:
        """Findings of severity risk: harmful for some data or numbers."""
        return self._of(Severity.RISK)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Findings of severity note: no action is needed."""
        return self._of(Severity.NOTE)

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules that fired, without repetition."""
        return tuple(dict.fromkeys(str(finding.rule) for finding in self.findings))

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values under the names of the attributes."""
        return {
            "case": self.case,
            "source": self.source,
            "terms": list(self.terms),
            "findings": [finding.to_dict() for finding in self.findings],
            "faults": len(self.faults),
            "risks": len(self.risks),
            "notes": len(self.notes),
            "undecided": [finding.to_dict() for finding in self.undecided],
            "seeds": self.seeds,
            "during_training": self.during_training,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "bounds": self.bounds.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Audit":
        """Rebuild the audit that `to_dict` wrote."""
        fields = {
            name: stored[name] for name in ("case", "source", "seeds", "during_training", "evaluations", "seconds")
        }
        findings = tuple(Finding.from_dict(finding) for finding in stored["findings"])
        undecided = tuple(Finding.from_dict(finding) for finding in stored["undecided"])
        return cls(
            findings=findings,
            undecided=undecided,
            terms=tuple(stored["terms"]),
            bounds=AuditThresholds(**stored["bounds"]),
            **fields,
        )

    def headline(self) -> str:
        """Summarize the audit in one line."""
        severities = (Severity.FAULT, Severity.RISK, Severity.NOTE)
        text = ", ".join(plural(len(self._of(severity)), severity) for severity in severities)
        text += f", {len(self.undecided)} {Severity.UNDECIDED}"
        location = f" ({self.source})" if self.source else ""
        effort = f"{plural(self.seeds, 'seed')}, {self.seconds:.1f} s"
        return f"{self.case}{location}: {text}; terms {', '.join(self.terms)}; {effort}"

    def __str__(self) -> str:
        lines = [self.headline(), *("\n" + str(finding) for finding in self.findings)]
        lines += [f"\n{pointer(self.findings)}"] if self.findings else []
        if self.undecided:
            lines.append(f"\n{Severity.UNDECIDED}")
            lines += [
                f"    {finding.rule}{f' in {finding.term}' if finding.term else ''}: {finding.evidence}"
                for finding in self.undecided
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = [
            (finding.severity, finding.rule, finding.term or "", finding.evidence, finding.meaning, finding.remedy)
            for finding in self.findings
        ]
        cells += [
            (Severity.UNDECIDED, finding.rule, finding.term or "", finding.evidence, "", "")
            for finding in self.undecided
        ]
        body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in cells)
        header = "".join(f"<th>{title}</th>" for title in ("severity", "rule", "term", "evidence", "meaning", "remedy"))
        return f"<div><p><b>{escape(self.headline())}</b></p><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"


def by_gravity(findings: list[Finding]) -> tuple[Finding, ...]:
    """Sort findings: faults, risks, notes; stable within one severity.

    >>> [str(finding.severity) for finding in by_gravity([Finding("a", "note"), Finding("b", "fault")])]
    ['fault', 'note']
    """
    return tuple(sorted(findings, key=lambda finding: gravity(finding.severity)))
