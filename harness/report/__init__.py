"""Reports: one page that a stranger understands in a minute, and the files beside it. The only place that draws."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.report.figure_layer import draw_units
    from harness.report.heat import heat_maps
    from harness.report.layer import picture, write_diagnosis_report
    from harness.report.pair import write_comparison
    from harness.report.writing import write_report

__all__ = ["draw_units", "heat_maps", "picture", "write_comparison", "write_diagnosis_report", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'harness.report' has no attribute {name!r}")
    return getattr(import_module(f"harness.report.{PLACES[name]}"), name)


PLACES = {
    "draw_units": "figure_layer",
    "heat_maps": "heat",
    "picture": "layer",
    "write_comparison": "pair",
    "write_diagnosis_report": "layer",
    "write_report": "writing",
}
