"""Audits of a case under the levels of the factor `penalty`."""

from collections.abc import Iterable, Mapping
from typing import Any

from harness.auditing.audit_result import Audit
from harness.auditing.audit_thresholds import AUDIT_THRESHOLDS, AuditThresholds
from harness.auditing.runner import audit
from harness.case import Case
from harness.data import split_of
from harness.data.rows import Split
from harness.remedies import RemedyNotApplicable, apply_remedies


def audit_levels(
    case: Case,
    levels: Iterable[str],
    split: Split | None = None,
    baseline: Mapping[str, Any] | None = None,
    bounds: AuditThresholds = AUDIT_THRESHOLDS,
) -> dict[str, Audit]:
    """Audit the case under every level of `penalty`, without training; levels that the model refuses are left out.

    Args:
        case: any case.
        levels: levels of the factor `penalty`.
        split: the case's rows, if they are loaded already.
        baseline: levels of other factors that apply throughout, such as those of a grid's baseline.
        bounds: thresholds of the rules.
    """
    split = split or split_of(case)
    audits: dict[str, Audit] = {}
    for level in dict.fromkeys(str(level) for level in levels):
        try:
            treated = apply_remedies(case, {**(baseline or {}), "penalty": level}, split)
        except RemedyNotApplicable:
            continue
        audits[level] = audit(treated, during_training=False, seeds=1, bounds=bounds, rows=split.train.inputs)
    return audits


def as_manifest(audits: Mapping[str, Audit]) -> dict[str, list[dict[str, Any]]]:
    """Return the findings of every level as plain JSON values, as a results folder stores them under `audit`."""
    return {level: [finding.to_dict() for finding in result.findings] for level, result in audits.items()}
