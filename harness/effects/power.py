"""Limits of a design: what it can and cannot detect."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.effects.effect import CONFIRMING_SEEDS, SIGNIFICANT, Effect
from harness.effects.paired_shares import discordant_power
from harness.errors import HarnessError

FAILED_BEFORE = 0.4  # the share that the printed power assumes: a baseline that fails in 4 of 10 seeds


@dataclass(frozen=True)
class Power:
    """Limits of an experiment.

    Args:
        seeds: number of seeds. tests: size of the family that p is adjusted over: all declared effects on one outcome.
        least_p: the smallest p that this number of seeds can give (all agree): 2 / 2^S.
        needed: number of tests that must reach least_p together for any to stay below 0.05 after adjustment.
        can_confirm: True from 8 seeds on.
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


def mcnemar_power(seeds: int, before: float, after: float = 0.0, tests: int = 1) -> float:
    """Probability that the mid-p McNemar test confirms a fall of the failed share, by exact enumeration.

    The outcomes before and after are independent within a seed. p must stay below 0.05 / `tests`, which is the
    threshold of Benjamini-Hochberg for the smallest p of a family.

    Args:
        seeds: number of pairs. before, after: true failed shares. tests: size of the family.

    >>> [round(mcnemar_power(seeds, 0.4, tests=6), 2) for seeds in (8, 16, 24, 32)]
    [0.01, 0.47, 0.9, 0.99]

    Raises:
        HarnessError: for a share outside 0 to 1, or fewer than one seed or test.
    """
    if seeds < 1 or tests < 1 or not (0 <= before <= 1 and 0 <= after <= 1):
        raise HarnessError(
            f"mcnemar_power: expected at least 1 seed and test and shares from 0 to 1, got seeds {seeds}, "
            f"tests {tests}, before {before}, after {after}"
        )
    return discordant_power(seeds, before * (1 - after), after * (1 - before), tests)


def power_of(seeds: int, effects: Sequence[Effect], remedies: int = 0) -> Power:
    """Limits from the number of seeds, the spread of the per-seed differences, and the number of remedies compared."""
    tests = sum(math.isfinite(effect.p) and effect.outcome == "collapsed" for effect in effects)
    least = min(1.0, 2.0 ** (1 - seeds))
    needed = max(1, math.ceil(least * tests / SIGNIFICANT - 1e-9))
    detectable = _detectable(effects)
    sentences = (*_cure_sentence(seeds, remedies), *_sentences(seeds, tests, least, needed, detectable))
    return Power(seeds, tests, least, needed, seeds >= CONFIRMING_SEEDS, detectable, sentences)


def _cure_sentence(seeds: int, remedies: int) -> tuple[str, ...]:
    """Power of the primary comparison as a sentence; nothing without seeds or remedies."""
    if not seeds or not remedies:
        return ()
    power = mcnemar_power(seeds, FAILED_BEFORE, tests=remedies)
    return (
        f"A remedy that takes failures from {FAILED_BEFORE:.0%} of the seeds to none is confirmed with probability "
        f"{power:.2f} (McNemar's mid-p, {seeds} seeds, {remedies} remedies compared).",
    )


def _detectable(effects: Sequence[Effect]) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for effect in effects:
        if effect.kind == "level" and effect.outcome == "collapsed" and math.isfinite(effect.detectable):
            sizes[effect.factor] = max(effect.detectable, sizes.get(effect.factor, 0.0))
    return sizes


def _sentences(seeds: int, tests: int, least: float, needed: int, detectable: dict[str, float]) -> tuple[str, ...]:
    sentences = [
        f"With {seeds} seeds the smallest possible p is {least:.2g}; it is adjusted over {tests} tests per outcome."
    ]
    if seeds < CONFIRMING_SEEDS:
        sentences.append(f"Fewer than {CONFIRMING_SEEDS} seeds confirm nothing: estimates and intervals only.")
    elif needed > 1:
        sentences.append(
            f"A single effect alone cannot be confirmed: at least {needed} of the {tests} tests must have the "
            "smallest p. More seeds, or fewer declared tests, would change that."
        )
    if seeds:
        sentences.append(
            f"An outcome that occurs in one seed of ten is missed by {0.9**seeds:.0%} of experiments with {seeds} seeds."
        )
    listed = ", ".join(f"{factor} {size:.2g}" for factor, size in detectable.items())
    if listed:
        sentences.append(
            f"True changes of the share collapsed that 4 of 5 repetitions would find, before adjustment: {listed}. "
            "Smaller ones are found less often."
        )
    return tuple(sentences)
