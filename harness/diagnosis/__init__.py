"""Is this layer collapsed, which unit, and how: thresholds, rules, findings, and the diagnosis they lead to.

Names load when first used: reading a stored diagnosis or a finding does not cost torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.diagnosis.findings import Finding

__all__ = ["Finding"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness.diagnosis' has no attribute {name!r}")
    return getattr(import_module(f"harness.diagnosis.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


_HOMES = {
    "Finding": "findings",
}
