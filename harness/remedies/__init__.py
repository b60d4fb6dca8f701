"""Remedies: named changes of a case, applicable to models that were not written for them.

Names load when first used: the table of levels (`remedies.levels`) is read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.remedies.table import RemedyNotApplicable
    from harness.remedies.target import judged_target
    from harness.remedies.treating import apply_remedies, matched_beta, same_as_default, why_not_applicable

__all__ = [
    "RemedyNotApplicable",
    "apply_remedies",
    "judged_target",
    "matched_beta",
    "same_as_default",
    "why_not_applicable",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'harness.remedies' has no attribute {name!r}")
    home = {"RemedyNotApplicable": "table", "judged_target": "target"}.get(name, "treating")
    return getattr(import_module(f"harness.remedies.{home}"), name)
