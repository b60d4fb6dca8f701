"""Audits of an experiment's penalty levels, as plain findings."""

from typing import Any

from harness.errors import HarnessError
from harness.execution.remedy_lines import remedy_lines
from harness.grid import Experiment
from harness.user_code import guarded

CODE = "code"  # beside the penalty levels


def audits(experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    """Audit each penalty level of the experiment; return plain findings by level, and the remedies' lines as "code"."""
    from harness.auditing import audit_levels
    from harness.case import load_case
    from harness.data import split_of

    levels = experiment.levels("penalty") if "penalty" in experiment.factors else ("as_posted",)
    try:
        with guarded():
            case = load_case(experiment.case_reference)
            split = split_of(case, experiment.data_reference)
            audits_by_level = audit_levels(case, map(str, levels), split)
    except Exception as error:  # the case's code may raise anything; the members' results remain valid
        return undecided(error)
    findings = {level: [finding.to_dict() for finding in audit.findings] for level, audit in audits_by_level.items()}
    return {**findings, CODE: remedy_lines(experiment, case, split)}


def undecided(error: Exception) -> dict[str, list[dict[str, Any]]]:
    """Return the finding for an audit that failed."""
    from harness.diagnosis import Finding, Severity

    error_type = "" if isinstance(error, HarnessError) else f"{type(error).__name__}: "
    return {"undecided": [Finding("audit", Severity.UNDECIDED, f"the audit failed: {error_type}{error}").to_dict()]}
