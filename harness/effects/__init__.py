"""Statistics across members: effects of levels and remedies over seeds, with intervals. Nothing here trains or draws.

The package is callable: `harness.effects("forum")` analyzes stored results.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from harness.effects.analysis import Effects, analyse, scope_of
from harness.effects.cells import Cell
from harness.effects.comparison import Comparison, compare
from harness.effects.effect import CONFIRMING_SEEDS, Effect
from harness.effects.remedy_effects import RemedyEffect, remedy_effects
from harness.effects.stored_experiments import stored_experiment, stored_members

__all__ = [
    "CONFIRMING_SEEDS",
    "Cell",
    "Comparison",
    "Effect",
    "Effects",
    "RemedyEffect",
    "analyse",
    "compare",
    "remedy_effects",
    "scope_of",
    "stored_experiment",
    "stored_members",
]


class _EffectsPackage(ModuleType):
    """This package, which is also a verb: `harness.effects("forum")`."""

    def __call__(self, *experiments: Any, **options: Any) -> Any:
        """Analyze the stored results of an experiment; see `harness.experiment.effects`."""
        # `harness.experiment` stands above this package, so it is looked up when it is needed
        return import_module("harness.experiment").effects(*experiments, **options)


sys.modules[__name__].__class__ = _EffectsPackage
