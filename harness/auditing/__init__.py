"""Does this penalty do what its author thinks? A case's loss and model, probed, never read.

Names load when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.auditing.bounds import AUDIT_THRESHOLDS, AuditThresholds
    from harness.auditing.judging import audit
    from harness.auditing.levels import as_manifest, audit_levels
    from harness.auditing.results import Audit

__all__ = ["AUDIT_THRESHOLDS", "Audit", "AuditThresholds", "as_manifest", "audit", "audit_levels"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness.auditing' has no attribute {name!r}")
    return getattr(import_module(f"harness.auditing.{_HOMES[name]}"), name)


_HOMES = {
    "AUDIT_THRESHOLDS": "bounds",
    "Audit": "results",
    "AuditThresholds": "bounds",
    "as_manifest": "levels",
    "audit": "judging",
    "audit_levels": "levels",
}
