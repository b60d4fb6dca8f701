from .audit_result import Audit as Audit
from .audit_thresholds import AUDIT_THRESHOLDS as AUDIT_THRESHOLDS
from .audit_thresholds import AuditThresholds as AuditThresholds
from .penalty_levels import as_manifest as as_manifest
from .penalty_levels import audit_levels as audit_levels
from .runner import audit as audit
