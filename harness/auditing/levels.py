"""What the audit finds at each penalty level of a grid: no training, one initialisation, about a second each."""

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
    others: Mapping[str, Any] | None = None,
    bounds: AuditThresholds = AUDIT_THRESHOLDS,
) -> dict[str, Audit]:
    """The audit of the case under every level of `penalty`; a level that the model refuses is left out.

    Args:
        case: any case.
        levels: levels of the factor `penalty`.
        split: the case's rows where they are at hand already (of another data set, say).
        others: levels of other factors that hold throughout, such as a grid's baseline.
        bounds: what the rules compare with.
    """
    split = split or split_of(case)
    found: dict[str, Audit] = {}
    for level in dict.fromkeys(str(each) for each in levels):
        try:
            treated = apply_remedies(case, {**(others or {}), "penalty": level}, split)
        except RemedyNotApplicable:
            continue
        found[level] = audit(treated, during_training=False, seeds=1, bounds=bounds, rows=split.train.inputs)
    return found


def as_manifest(audits: Mapping[str, Audit]) -> dict[str, list[dict[str, Any]]]:
    """The findings of each level as plain JSON values: what a results folder keeps under `audit`."""
    return {level: [each.to_dict() for each in found.findings] for level, found in audits.items()}
