"""Statistics across members: what a level does, over seeds, with intervals; nothing here trains or draws."""

from harness.effects.analysis import SCOPE, Effects, analyse
from harness.effects.cells import Cell
from harness.effects.effect import CONFIRMING_SEEDS, Effect

__all__ = ["CONFIRMING_SEEDS", "SCOPE", "Cell", "Effect", "Effects", "analyse"]
