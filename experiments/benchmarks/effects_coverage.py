"""Coverage of the intervals and size of the tests, over simulated grids whose truth is known.

    python experiments/benchmarks/effects_coverage.py

writes docs/evidence/statistics-coverage.md. Seeds differ in how they respond: a level helps some initialisations and harms
others. Under the null its mean over seeds is 0. Counting the cells of a seed as independent then finds effects that are
not there.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paired_coverage
from numpy.typing import NDArray
from scipy import stats

from harness.effects import analyse
from harness.effects.risk_differences import newcombe
from harness.effects.robust import bootstrap_interval, interquartile_mean
from harness.effects.seed_intervals import mean_interval, t_interval
from harness.effects.sign_flip import sign_flip_p
from harness.grid import Experiment
from harness.measures.statistics import benjamini_hochberg
from harness.results.records import MemberRecord

Array = NDArray[np.float64]
REPEATS = 2000
GRIDS = 300
SEEDS = (5, 8, 10, 20)
PAGE = Path(__file__).parents[2] / "docs" / "evidence" / "statistics-coverage.md"
Response = Callable[[np.random.Generator, int], Array]


@dataclass(frozen=True)
class World:
    """How seeds respond: a seed collapses with chance base - response / 2, at the level with base + response / 2."""

    title: str
    truth: float
    response: Response


def grid(generator: np.random.Generator, world: World, seeds: int, pairs: int) -> tuple[Array, Array]:
    """Outcomes 0 or 1 of one simulated grid: baseline and level, `[pair, seed]` each."""
    base = generator.uniform(0.3, 0.7, seeds)
    response = world.response(generator, seeds)
    low, high = np.clip(base - response / 2, 0, 1), np.clip(base + response / 2, 0, 1)
    shape = (pairs, seeds)
    return (generator.random(shape) < low).astype(float), (generator.random(shape) < high).astype(float)


def cell_counting_p(differences: Array) -> float:
    """The forbidden test: every cell of every seed as if it were independent."""
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return float(stats.binomtest(up, up + down).pvalue) if up + down else 1.0


def measure(world: World, seeds: int, pairs: int) -> list[float]:
    """Coverage of the interval, rejections by sign flip and by counting cells."""
    generator = np.random.default_rng([seeds, pairs, len(world.title)])
    hits = np.zeros(3)
    for _ in range(REPEATS):
        baseline, level = grid(generator, world, seeds, pairs)
        differences = level - baseline
        d = differences.mean(axis=0)
        interval = mean_interval(d, (-1.0, 1.0))
        hits += [
            interval.low <= world.truth <= interval.high,
            sign_flip_p(d) <= 0.05,
            cell_counting_p(differences) <= 0.05,
        ]
    return (hits / REPEATS).tolist()


def family_error(seeds: int, tests: int = 27, real: int = 5) -> tuple[float, float]:
    """Share of false ones among the rejected after adjustment, and the share of real effects that are found."""
    generator = np.random.default_rng(seeds)
    false_share, found = [], []
    for _ in range(500):
        null, planted = (WORLDS[name] for name in ("null", "planted"))
        p = []
        for test in range(tests):
            baseline, level = grid(generator, planted if test < real else null, seeds, 48)
            p.append(sign_flip_p((level - baseline).mean(axis=0)))
        rejected = benjamini_hochberg(np.array(p)) <= 0.05
        false_share.append(rejected[real:].sum() / max(1, rejected.sum()))
        found.append(rejected[:real].mean())
    return float(np.mean(false_share)), float(np.mean(found))


def whole_path() -> tuple[float, float, float]:
    """`analyse` on whole experiments: coverage of a null level, size of its test, coverage of an interaction of 0."""
    experiment = Experiment(
        name="simulated",
        case="forum",
        factors={
            "activation": ("relu", "tanh"),
            "batchnorm": ("off", "on"),
            "dropout": (0.0, 0.2),
            "penalty": ("l1", "none"),
        },
        interactions=(("activation", "batchnorm"),),
        seeds=tuple(range(10)),
    )
    hits = np.zeros(3)
    for repeat in range(GRIDS):
        found = analyse(_members(experiment, np.random.default_rng(repeat)), experiment)
        level = next(each for each in found.of("collapsed") if each.factor == "activation")
        crossed = next(each for each in found.interactions if each.outcome == "collapsed")
        hits += [level.low <= 0 <= level.high, level.p <= 0.05, crossed.low <= 0 <= crossed.high]
    return tuple((hits / GRIDS).tolist())


def robust_coverage(seeds: int) -> tuple[float, float]:
    """Coverage of the interquartile mean of heavy-tailed R2 by its bootstrap, and of the mean by the t interval."""
    generator = np.random.default_rng(seeds)
    truth = interquartile_mean(generator.standard_t(3, 2_000_000))
    hits = np.zeros(2)
    for _ in range(1000):
        values = generator.standard_t(3, seeds)
        middle, mean = bootstrap_interval(values[None], 500), t_interval(values)
        hits += [middle.low <= truth <= middle.high, mean.low <= 0 <= mean.high]
    return tuple((hits / 1000).tolist())


def newcombe_coverage(members: int) -> float:
    """Coverage of Newcombe's interval, exactly, averaged over a grid of true shares."""
    shares = np.linspace(0.05, 0.95, 19)
    counts = np.arange(members + 1)
    bounds = {(x, y): newcombe((int(x), members), (int(y), members)) for x in counts for y in counts}
    low = np.array([[bounds[x, y].low for y in counts] for x in counts])
    high = np.array([[bounds[x, y].high for y in counts] for x in counts])
    chances = stats.binom.pmf(counts[None], members, shares[:, None])
    covered = [
        float(chances[i] @ ((low <= p - q) & (p - q <= high)) @ chances[j])
        for i, p in enumerate(shares)
        for j, q in enumerate(shares)
    ]
    return float(np.mean(covered))


def page() -> str:
    """The page: what was simulated, and what came of it."""
    lines = [INTRODUCTION, *paired_coverage.lines(), "## Averages over the other factors: one factor\n"]
    for world in WORLDS.values():
        lines += [f"### {world.title}", "", HEAD]
        for pairs in (1, 12, 96):
            for seeds in SEEDS:
                covered, flips, cells = measure(world, seeds, pairs)
                lines.append(f"| {seeds} | {pairs} | {covered:.3f} | {flips:.3f} | {cells:.3f} |")
        lines.append("")
    return "\n".join([*lines, *_rest()])


def _rest() -> list[str]:
    covered, size, crossed = whole_path()
    families = [f"| {seeds} | {a:.3f} | {b:.2f} |" for seeds in SEEDS for a, b in [family_error(seeds)]]
    robust = [f"| {seeds} | {a:.3f} | {b:.3f} |" for seeds in (20, 40) for a, b in [robust_coverage(seeds)]]
    arms = [f"| {members} | {newcombe_coverage(members):.3f} |" for members in (3, 5, 10, 20)]
    return [
        "## Whole experiments through `analyse`\n",
        f"{GRIDS} experiments of 16 variants and 10 seeds, the seeds responding differently to a level",
        f"whose mean effect is 0: its interval covers 0 in {covered:.3f}, its sign flip rejects in "
        f"{size:.3f}, and the interval of an",
        f"interaction that is 0 covers it in {crossed:.3f} (standard error .013).\n",
        "## Many tests\n\n27 tests, 5 of them real (-.30), adjusted by Benjamini and Hochberg, 500 families.\n",
        "| seeds | false among the rejected | real ones found |\n|---|---|---|",
        *families,
        "\n## Interquartile mean of heavy tails (Student, 3 degrees of freedom)\n",
        "| seeds | bootstrap covers the interquartile mean | t covers the mean |\n|---|---|---|",
        *robust,
        "\n## Separate arms: Newcombe's interval, mean coverage over true shares .05 to .95, exact\n",
        "| members an arm | coverage |\n|---|---|",
        *arms,
        "",
    ]


def _members(experiment: Experiment, generator: np.random.Generator) -> list[MemberRecord]:
    base, response = generator.uniform(0.3, 0.7, 10), generator.choice([-0.5, 0.5], 10)
    found = []
    for member in experiment.members():
        sign = 0.5 if member.variant.levels["activation"] == "tanh" else -0.5
        gone = generator.random() < base[member.seed] + sign * response[member.seed]
        verdict, live = ("full_collapse", 0) if gone else ("healthy", 4)
        levels = dict(member.variant.levels)
        found.append(
            MemberRecord("key", member.variant.name, levels, member.seed, verdict=verdict, units=4, live_units=live)
        )
    return found


def _skewed(generator: np.random.Generator, seeds: int) -> Array:
    return np.where(generator.random(seeds) < 0.1, 0.45, -0.05)


WORLDS = {
    "none": World("No seed responds (true mean 0)", 0.0, lambda generator, seeds: np.zeros(seeds)),
    "null": World("Seeds respond by -.5 or +.5 (true mean 0)", 0.0, lambda g, seeds: g.choice([-0.5, 0.5], seeds)),
    "skewed": World("One seed in ten responds by +.45, the others by -.05 (true mean 0)", 0.0, _skewed),
    "planted": World(
        "A planted effect of -.30, seeds between -.60 and 0", -0.3, lambda g, seeds: g.uniform(-0.6, 0, seeds)
    ),
}
HEAD = """| seeds | pairs of variants | interval covers | sign flip rejects | counting cells rejects |
|---|---|---|---|---|"""
INTRODUCTION = f"""# How often the intervals cover and the tests reject

Made by `python experiments/benchmarks/effects_coverage.py`. Each row of the tables of averages is {REPEATS:,} simulated
grids: a seed's members collapse with a chance of its own, and the seeds respond to the level by amounts of their own.
*Interval* is the one that is reported: t over seeds, or the value itself where all seeds agree. A test *rejects* at .05. Where the true mean is 0 that should happen in at most .050 of the grids, and the
interval should cover in .950. Standard error of a share near .05: {(0.05 * 0.95 / REPEATS) ** 0.5:.3f}.

The last column is the test that this project does not use: a sign test over all cells of all seeds.

What the tables show: where seeds respond symmetrically, interval and sign flip stay close to their level at every
number of seeds (coverage .93 to .99), while counting cells rejects a true null in .37 to .92 of the
grids with 12 or 96 pairs, the more the larger they are. Where only a rare seed
responds, strongly, and the others lean the other way, neither keeps it (third table, 96 pairs): with few seeds the rare
one is often not among them. Nothing but more seeds helps. And where one seed's difference is a single 0 or 1 the sign
flip is cautious, as most seeds tie.

"""

if __name__ == "__main__":
    started = time.perf_counter()
    PAGE.write_text(page())
    print(f"{PAGE.name} in {time.perf_counter() - started:.0f} s")
