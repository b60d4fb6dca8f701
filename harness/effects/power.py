"""What the design could and could not have shown, said beside what it did show."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.effects.effect import CONFIRMING_SEEDS, SIGNIFICANT, Effect


@dataclass(frozen=True)
class Power:
    """The limits of an experiment with so many seeds.

    Args:
        seeds: of the experiment. tests: in the family that p is adjusted over: all that is declared, on one outcome.
        least_p: the smallest p that so many seeds can give: all agree, 2 / 2^S.
        needed: how many tests must reach least_p together for any to stay below .05 after adjustment.
        can_confirm: whether 8 seeds are there.
        detectable: factor -> smallest true effect on collapse that 4 of 5 repetitions would find (before adjustment).
        sentences: the same in words.
    """

    seeds: int
    tests: int
    least_p: float
    needed: int
    can_confirm: bool
    detectable: dict[str, float]
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "sentences": list(self.sentences)}


def power_of(seeds: int, effects: Sequence[Effect]) -> Power:
    """The limits, from the number of seeds and the spread that the per-seed differences had."""
    tests = sum(math.isfinite(each.p) and each.outcome == "collapsed" for each in effects)
    least = min(1.0, 2.0 ** (1 - seeds))
    needed = max(1, math.ceil(least * tests / SIGNIFICANT - 1e-9))
    detectable = _detectable(effects)
    sentences = _sentences(seeds, tests, least, needed, detectable)
    return Power(seeds, tests, least, needed, seeds >= CONFIRMING_SEEDS, detectable, sentences)


def _detectable(effects: Sequence[Effect]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in effects:
        if each.kind == "level" and each.outcome == "collapsed" and math.isfinite(each.detectable):
            found[each.factor] = max(each.detectable, found.get(each.factor, 0.0))
    return found


def _sentences(seeds: int, tests: int, least: float, needed: int, detectable: dict[str, float]) -> tuple[str, ...]:
    found = [
        f"With {seeds} seeds the smallest possible p is {least:.2g}; it is adjusted over {tests} tests an outcome."
    ]
    if seeds < CONFIRMING_SEEDS:
        found.append(f"Fewer than {CONFIRMING_SEEDS} seeds confirm nothing: estimates and intervals only.")
    elif needed > 1:
        found.append(
            f"A single effect alone cannot be confirmed: at least {needed} of the {tests} tests must have the "
            "smallest p. More seeds, or fewer declared tests, would change that."
        )
    if seeds:
        found.append(
            f"A response that one seed in ten shows is absent from {0.9**seeds:.0%} of experiments of this size."
        )
    shown = ", ".join(f"{factor} {size:.2g}" for factor, size in detectable.items())
    if shown:
        found.append(
            f"Smaller changes of the share collapsed than these would be missed in 1 of 5 repetitions: {shown}."
        )
    return tuple(found)
