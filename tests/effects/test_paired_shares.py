"""Coverage of the paired interval and size of mid-p McNemar, exactly, and both against statsmodels."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep

from harness.effects.paired_shares import PairedCounts, newcombe_paired

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "benchmarks"))
from paired_coverage import WORLDS, PairedWorld, measure, tables


@pytest.mark.parametrize("table", [(4, 4, 4, 4), (2, 4, 3, 6), (1, 5, 2, 10), (9, 3, 6, 2)])
def test_without_correlation_the_paired_interval_is_newcombes_for_independent_shares(table):
    counts = PairedCounts(*table)
    assert counts.both * counts.neither == counts.fixed * counts.broken
    low, high = confint_proportions_2indep(
        counts.after, counts.pairs, counts.before, counts.pairs, method="newcomb", compare="diff", correction=False
    )
    interval = newcombe_paired(counts)
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_the_power_of_the_sum_over_tables_is_that_of_statsmodels_p():
    world, seeds = PairedWorld("halved", ((1.0, 0.5, 0.2),)), 12
    both, fixed, broken, _ = world.cells
    expected = 0.0
    for discordant in range(seeds + 1):
        for lost in range(discordant + 1):
            exact = mcnemar([[0, discordant - lost], [lost, 0]], exact=True).pvalue if discordant else 1.0
            middle = 2 * (discordant - lost) == discordant
            p = 1.0 if middle else exact - binom.pmf(min(lost, discordant - lost), discordant, 0.5)
            chance = binom.pmf(discordant, seeds, fixed + broken) * binom.pmf(
                lost, discordant, broken / (fixed + broken)
            )
            expected += chance * (p < 0.05)
    assert measure(world, seeds)[1] == pytest.approx(expected)
    assert both == pytest.approx(0.1)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.title)
@pytest.mark.parametrize("seeds", [8, 16])
def test_the_interval_covers_and_the_test_keeps_its_size(world, seeds):
    covered, rejected = measure(world, seeds)
    assert covered >= 0.93  # 0.95 on average over shares; single shares are discrete
    if not world.change:
        assert rejected <= 0.05 + 0.005  # a mid-p test may exceed its level by a little


def test_the_interval_covers_as_often_as_it_says_on_average_over_shares():
    shares = np.linspace(0.1, 0.9, 9)
    covered = [measure(PairedWorld("", ((1.0, before, after),)), 12)[0] for before in shares for after in shares]
    assert 0.945 <= np.mean(covered) <= 0.98


def test_every_table_is_counted_once():
    counts, _, _ = tables(8)
    assert len({tuple(row) for row in counts.tolist()}) == len(counts) == 165  # 11 choose 3
