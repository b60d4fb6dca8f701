"""Remedies: named changes of a case, applicable to models that were not written for them.

Names load when first used: the table of levels (`remedies.levels`) is read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.remedies.table import Refused
    from harness.remedies.target import judged_target
    from harness.remedies.treating import matched_beta, refusal, same_as_default, treat

__all__ = ["Refused", "judged_target", "matched_beta", "refusal", "same_as_default", "treat"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'harness.remedies' has no attribute {name!r}")
    home = {"Refused": "table", "judged_target": "target"}.get(name, "treating")
    return getattr(import_module(f"harness.remedies.{home}"), name)
