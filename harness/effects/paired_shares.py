"""Paired comparison of a binary outcome: McNemar's test with mid-p, Newcombe's paired interval, and their power."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, gammaln, xlog1py, xlogy

from harness.effects.seed_intervals import Interval
from harness.errors import HarnessError
from harness.measures.statistics import wilson

ALPHA = 0.05
Counts = NDArray[np.int_]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class PairedCounts:
    """Pairs by outcome before and after: `fixed` failed only before, `broken` failed only after."""

    both: int
    fixed: int
    broken: int
    neither: int

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return self.both + self.fixed + self.broken + self.neither

    @property
    def before(self) -> int:
        """Number of pairs that failed before."""
        return self.both + self.fixed

    @property
    def after(self) -> int:
        """Number of pairs that failed after."""
        return self.both + self.broken


def mcnemar_mid_p(fixed: int, broken: int) -> float:
    """Two-sided mid-p of the exact McNemar test; 1 without a discordant pair.

    >>> round(mcnemar_mid_p(7, 1), 4)
    0.0391

    Source: Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91; the example is theirs.
    """
    discordant, smaller = fixed + broken, min(fixed, broken)
    if not discordant:
        return 1.0
    exact = 2 * float(bdtr(float(smaller), discordant, 0.5))
    return min(1.0, exact - math.comb(discordant, smaller) * 0.5**discordant)


def newcombe_paired(counts: PairedCounts) -> Interval:
    """Newcombe's interval of the change of a share, after minus before, for paired outcomes.

    Two Wilson intervals, combined with the correlation of the pairs, which is corrected towards 0.

    >>> interval = newcombe_paired(PairedCounts(both=1, fixed=7, broken=1, neither=12))
    >>> round(interval.low, 3), round(interval.high, 3)
    (-0.507, -0.026)

    Raises:
        HarnessError: without a pair.

    Source: Newcombe 1998, Statistics in Medicine 17:2635, method 10; the example is from Fagerland, Lydersen & Laake
    2014, Statistics in Medicine 33:2850.
    """
    if counts.pairs < 1:
        raise HarnessError("newcombe_paired: expected at least one pair, got none; an interval needs complete pairs")
    n = counts.pairs
    after, before = counts.after / n, counts.before / n
    (after_low, before_low), (after_high, before_high) = (
        bounds.tolist() for bounds in wilson(np.array([counts.after, counts.before]), np.array([n, n]))
    )
    correlation = _correlation(counts)
    below = _combined(after - after_low, before_high - before, correlation)
    above = _combined(after_high - after, before - before_low, correlation)
    change = after - before
    return Interval(max(-1.0, change - below), min(1.0, change + above), "Newcombe, paired")


def discordant_power(seeds: int, fixed: float, broken: float, tests: int = 1) -> float:
    """Probability of a confirmed fall, from the probabilities of the two kinds of discordant pairs.

    >>> discordant_power(10, 1.0, 0.0)
    1.0
    """
    discordant = fixed + broken
    if discordant <= 0:
        return 0.0
    counts = np.arange(1, seeds + 1)
    most_broken = np.array([_critical(count, ALPHA / tests) for count in counts.tolist()])
    usable = most_broken >= 0
    confirmed = bdtr(most_broken[usable].astype(float), counts[usable], min(1.0, broken / discordant))
    return float((_binomial(counts[usable], seeds, min(1.0, discordant)) * confirmed).sum())


@cache
def _critical(discordant: int, alpha: float) -> int:
    """Largest number of broken pairs with p below alpha; -1 where even 0 is not enough."""
    broken = np.arange(discordant // 2 + 1)
    p = 2 * bdtr(broken.astype(float), discordant, 0.5) - _binomial(broken, discordant, 0.5)
    return int((p < alpha).sum()) - 1


def _binomial(successes: Counts, trials: int, probability: float) -> Shares:
    """Binomial probabilities of the numbers of successes."""
    ways = gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1)
    return np.exp(ways + xlogy(successes, probability) + xlog1py(trials - successes, -probability))


def _correlation(counts: PairedCounts) -> float:
    margins = counts.before * (counts.pairs - counts.before) * counts.after * (counts.pairs - counts.after)
    if not margins:
        return 0.0
    excess = counts.both * counts.neither - counts.fixed * counts.broken
    corrected = max(excess - counts.pairs / 2, 0.0) if excess > 0 else float(excess)
    return corrected / math.sqrt(margins)


def _combined(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * correlation * first * second + second**2))
