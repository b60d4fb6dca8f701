"""Coverage of the paired interval, size and power of mid-p McNemar, exactly: sums over all tables of S seeds.

A part of effects_coverage.py, which writes the page. A world gives each kind of seed its share and its chances of failure
in the baseline and under the remedy; a table of S seeds is then multinomial.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import multinomial

from harness.effects import remedy_effects
from harness.effects.paired_shares import ALPHA, PairedCounts, mcnemar_mid_p, newcombe_paired
from harness.grid import Experiment
from harness.results.records import MemberRecord

Array = NDArray[np.float64]
SEEDS = (8, 16, 24, 32)
FAMILIES = 300


@dataclass(frozen=True)
class PairedWorld:
    """Kinds of seeds: (share of the seeds, chance of failure before, chance of failure after)."""

    title: str
    kinds: tuple[tuple[float, float, float], ...]

    @property
    def cells(self) -> Array:
        """Probabilities of the four outcomes of a seed: failed in both, only before, only after, in neither."""
        shares, before, after = np.array(self.kinds).T
        outcomes = before * after, before * (1 - after), (1 - before) * after, (1 - before) * (1 - after)
        return np.array([float(shares @ outcome) for outcome in outcomes])

    @property
    def change(self) -> float:
        """True change of the failed share."""
        return float(self.cells[2] - self.cells[1])


@cache
def tables(seeds: int) -> tuple[Array, Array, Array]:
    """All tables of S seeds, `[table, 4]`, with the bounds of their intervals and their p."""
    counts = np.array(
        [
            (both, fixed, broken, seeds - both - fixed - broken)
            for both in range(seeds + 1)
            for fixed in range(seeds + 1 - both)
            for broken in range(seeds + 1 - both - fixed)
        ]
    )
    intervals = [newcombe_paired(PairedCounts(*map(int, row))) for row in counts]
    bounds = np.array([(interval.low, interval.high) for interval in intervals])
    return counts, bounds, np.array([mcnemar_mid_p(int(row[1]), int(row[2])) for row in counts])


def measure(world: PairedWorld, seeds: int) -> tuple[float, float]:
    """Probability that the interval covers the true change, and that p is below 0.05."""
    counts, bounds, p = tables(seeds)
    chances = multinomial.pmf(counts, seeds, world.cells)
    covered = (bounds[:, 0] - 1e-12 <= world.change) & (world.change <= bounds[:, 1] + 1e-12)
    return float(chances @ covered), float(chances @ (p < ALPHA))


def families(seeds: int) -> dict[str, float]:
    """Whole answers of six remedies through `remedy_effects`: shares of the claims that are true and false.

    One remedy cures a baseline that fails in 40 % of the seeds; one turns every collapse into divergence; one loses a
    fifth of its members; three do nothing.
    """
    remedies = {"cure": "tanh", "diverges": "elu", "loses": "gelu", "nothing": "silu"}
    experiment = Experiment(
        name="simulated",
        case="forum",
        factors={"activation": ("relu",)},
        remedies=tuple({"activation": level} for level in (*remedies.values(), "softplus", "leaky_relu")),
        include=tuple({"activation": level} for level in (*remedies.values(), "softplus", "leaky_relu")),
        seeds=tuple(range(seeds)),
    )
    claims = dict.fromkeys((*remedies, "any false claim"), 0.0)
    for repeat in range(FAMILIES):
        generator = np.random.default_rng([seeds, repeat])
        chances = generator.choice([0.1, 0.9], seeds, p=[0.625, 0.375])  # seeds differ; 40 % fail
        before = generator.random(seeds) < chances
        records = []
        for member in experiment.members():
            level, again = member.variant.levels["activation"], generator.random() < chances[member.seed]
            gone = before[member.seed] if level in ("relu", "elu") else again
            fields: dict[str, object] = {"verdict": "full_collapse" if gone else "healthy", "r2": generator.normal()}
            if level == remedies["cure"]:
                fields = {"verdict": "healthy", "r2": generator.normal()}
            if level == remedies["diverges"] and gone:
                fields = {"status": "diverged"}
            if level == remedies["loses"] and generator.random() < 0.2:
                fields = {"status": "failed", "error": "killed"}
            records.append(
                MemberRecord("key", member.variant.name, dict(member.variant.levels), member.seed, units=4, **fields)
            )
        words = {row.remedy["activation"]: row.word for row in remedy_effects(records, experiment)}
        claimed = {level for level, word in words.items() if word in ("works", "helps", "worse")}
        for name, level in remedies.items():
            claims[name] += (level in claimed) / FAMILIES
        claims["any false claim"] += bool(claimed - {remedies["cure"]}) / FAMILIES
    return claims


def lines(worlds: Sequence[PairedWorld] = ()) -> list[str]:
    """The section of the page."""
    found = ["## The primary comparison: one remedy against the baseline, paired by seed\n", INTRODUCTION, HEAD]
    for world in worlds or WORLDS:
        for seeds in SEEDS:
            covered, rejected = measure(world, seeds)
            found.append(f"| {world.title} | {world.change:+.2f} | {seeds} | {covered:.3f} | {rejected:.3f} |")
    found += ["", FAMILY_HEAD]
    for seeds in (16, 24, 32):
        claims = families(seeds)
        found.append(f"| {seeds} | " + " | ".join(f"{share:.3f}" for share in claims.values()) + " |")
    return [*found, ""]


WORLDS = (
    PairedWorld("no effect, all seeds alike (40 % fail)", ((1.0, 0.4, 0.4),)),
    PairedWorld("no effect, seeds differ (fail with 0.1 or 0.9)", ((0.625, 0.1, 0.1), (0.375, 0.9, 0.9))),
    PairedWorld("no effect on average: half of the seeds +0.5, half -0.5", ((0.5, 0.25, 0.75), (0.5, 0.75, 0.25))),
    PairedWorld("collapse turns into divergence (failed in both)", ((0.4, 1.0, 1.0), (0.6, 0.0, 0.0))),
    PairedWorld("rare responders: 1 seed in 10 goes from 0.9 to 0", ((0.1, 0.9, 0.0), (0.9, 0.3, 0.3))),
    PairedWorld("halved: 40 % to 20 %, in the same seeds", ((0.2, 1.0, 1.0), (0.2, 1.0, 0.0), (0.6, 0.0, 0.0))),
    PairedWorld("cured: 40 % to 0", ((1.0, 0.4, 0.0),)),
    PairedWorld("cured: all seeds to 5 %", ((1.0, 1.0, 0.05),)),
)
INTRODUCTION = """Newcombe's paired interval (method 10) and the mid-p of McNemar's exact test, as `harness.effects` reports them. The
numbers are exact: sums over all tables of S seeds, without simulation. Where the true change is 0 the last column is the
size of one test and should not exceed 0.050; elsewhere it is the power of one test. The interval should cover in 0.950.
"""
HEAD = """| world | true change | seeds | interval covers | p below 0.05 |
|---|---|---|---|---|"""
FAMILY_HEAD = f"""Whole answers: {FAMILIES} simulated experiments of six remedies, through `remedy_effects` with its adjustment and its
words. A claim is *works*, *helps* or *worse*. 40 % of the baseline's seeds fail, and seeds differ (0.1 or 0.9). One remedy
cures, one turns every collapse into divergence, one does nothing and loses a fifth of its members, three do nothing.

| seeds | cure claimed | divergence claimed | losing remedy claimed | idle remedy claimed | any false claim |
|---|---|---|---|---|---|"""
