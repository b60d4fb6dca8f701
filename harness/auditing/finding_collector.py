"""Collector of findings, which records the rules that could not be decided."""

from collections.abc import Callable

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import Undecided
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.user_code import failure, guarded


class FindingCollector:
    """Run rules and collect their findings; a rule that fails is recorded as undecided, with the reason."""

    def __init__(self, bounds: AuditThresholds) -> None:
        self.bounds = bounds
        self.findings: list[Finding] = []
        self.undecided: list[Finding] = []

    def run(self, rule: str, term: str | None, check: Callable[[], list[Finding]]) -> None:
        """Run one rule."""
        try:
            with guarded():
                self.findings += check()
        except Undecided as reason:
            self.add_undecided(rule, term, str(reason))
        except Exception as error:  # the user's code failed under a probe
            self.add_undecided(rule, term, f"the probe {failure(error)}")

    def add_undecided(self, rule: str, term: str | None, reason: str) -> None:
        """Record that a rule could not be decided."""
        first_line = reason.splitlines()[0][:300] if reason else ""
        self.undecided.append(Finding(rule, Severity.UNDECIDED, first_line, term=term))

    @property
    def rules(self) -> set[tuple[str | None, str]]:
        """Return (term, rule) of all findings so far."""
        return {(finding.term, finding.rule) for finding in self.findings}
