"""A doctor for collapsed bottlenecks: whether, which unit, how, why, and what fixes it.

Names load when first used, so that `import harness` stays cheap and the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness import penalties
    from harness.auditing import audit
    from harness.case import Case, load_case
    from harness.data.rows import Rows
    from harness.diagnosis import Diagnosis, Finding, Thresholds, diagnose
    from harness.errors import HarnessError
    from harness.experiment import run
    from harness.measures import dependence, mutual_information

__version__ = "0.1.0"
__all__ = [
    "Case",
    "Diagnosis",
    "Finding",
    "HarnessError",
    "Rows",
    "Thresholds",
    "audit",
    "dependence",
    "diagnose",
    "load_case",
    "mutual_information",
    "penalties",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"harness.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__


_MODULES = ("penalties",)  # whose functions are called by their full names: harness.penalties.keep_largest

_HOMES = {
    "Case": "harness.case",
    "Diagnosis": "harness.diagnosis",
    "Finding": "harness.diagnosis",
    "HarnessError": "harness.errors",
    "Rows": "harness.data.rows",
    "Thresholds": "harness.diagnosis",
    "audit": "harness.auditing",
    "dependence": "harness.measures",
    "diagnose": "harness.diagnosis",
    "load_case": "harness.case",
    "mutual_information": "harness.measures",
    "run": "harness.experiment",
}
