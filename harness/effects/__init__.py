"""Statistics across members: effects of levels and remedies over seeds, with intervals. Nothing here trains or draws."""

from harness.effects.analysis import SCOPE, Effects, analyse
from harness.effects.cells import Cell
from harness.effects.comparison import Comparison, compare
from harness.effects.effect import CONFIRMING_SEEDS, Effect
from harness.effects.remedy_effects import RemedyEffect, remedy_effects
from harness.effects.stored_experiments import stored_experiment, stored_members

__all__ = [
    "CONFIRMING_SEEDS",
    "SCOPE",
    "Cell",
    "Comparison",
    "Effect",
    "Effects",
    "RemedyEffect",
    "analyse",
    "compare",
    "remedy_effects",
    "stored_experiment",
    "stored_members",
]
