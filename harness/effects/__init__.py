"""Statistics across members: what a level does, over seeds, with intervals; nothing here trains or draws."""

from harness.effects.analysis import SCOPE, Effects, analyse
from harness.effects.answer import is_one_at_a_time, phrase, summarize
from harness.effects.cells import Cell
from harness.effects.comparison import Comparison, compare
from harness.effects.effect import CONFIRMING_SEEDS, Effect
from harness.effects.explanation import Paragraph, explain_experiment
from harness.effects.stored import stored_experiment, stored_members

__all__ = [
    "CONFIRMING_SEEDS",
    "SCOPE",
    "Cell",
    "Comparison",
    "Effect",
    "Effects",
    "Paragraph",
    "analyse",
    "compare",
    "explain_experiment",
    "is_one_at_a_time",
    "phrase",
    "stored_experiment",
    "stored_members",
    "summarize",
]
