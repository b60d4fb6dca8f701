"""Is this layer collapsed, which unit, and how: thresholds, rules, findings, and the diagnosis they lead to.

Names load when first used: reading a stored diagnosis or a finding does not cost torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.diagnosis.findings import Finding
    from harness.diagnosis.judging import diagnose
    from harness.diagnosis.results import Diagnosis, OutputDiagnosis, Reference, UnitDiagnosis
    from harness.diagnosis.severity import Severity
    from harness.diagnosis.sweeping import sweep
    from harness.diagnosis.thresholds import THRESHOLDS, Thresholds, threshold_table
    from harness.diagnosis.verdicts import COLLAPSED, CONSTANT, LayerVerdict, OutputVerdict, UnitVerdict

__all__ = [
    "COLLAPSED",
    "CONSTANT",
    "THRESHOLDS",
    "Diagnosis",
    "Finding",
    "LayerVerdict",
    "OutputDiagnosis",
    "OutputVerdict",
    "Reference",
    "Severity",
    "Thresholds",
    "UnitDiagnosis",
    "UnitVerdict",
    "diagnose",
    "sweep",
    "threshold_table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness.diagnosis' has no attribute {name!r}")
    return getattr(import_module(f"harness.diagnosis.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


_HOMES = {
    "COLLAPSED": "verdicts",
    "CONSTANT": "verdicts",
    "Diagnosis": "results",
    "Finding": "findings",
    "LayerVerdict": "verdicts",
    "OutputDiagnosis": "results",
    "OutputVerdict": "verdicts",
    "Reference": "results",
    "Severity": "severity",
    "THRESHOLDS": "thresholds",
    "Thresholds": "thresholds",
    "UnitDiagnosis": "results",
    "UnitVerdict": "verdicts",
    "diagnose": "judging",
    "sweep": "sweeping",
    "threshold_table": "thresholds",
}
