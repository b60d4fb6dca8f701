"""Reports: one page that a stranger understands in a minute, and the files beside it. The only place that draws."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.report.writing import write_report

__all__ = ["write_report"]

PLACES = {"write_report": "writing"}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'harness.report' has no attribute {name!r}")
    return getattr(import_module(f"harness.report.{PLACES[name]}"), name)
