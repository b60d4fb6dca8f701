"""Grids drawn at random: every effect against a plain count, and how often intervals cover and tests reject."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from synthetic_effects import collapsed, planted

from harness.effects import analyse, stored_experiment, stored_members
from harness.effects.seed_intervals import mean_interval
from harness.effects.sign_flip import sign_flip_p
from harness.grid import Experiment
from harness.results import StoredResults

HOLES = {"verdict": "", "r2": None}


def at_random(generator):
    """Members that collapse, diverge, fail or were not run, without a pattern."""
    kinds = (collapsed(True), collapsed(False), {"status": "diverged", **HOLES}, {"status": "failed", **HOLES}, None)
    return lambda levels, seed: kinds[generator.choice(5, p=(0.4, 0.45, 0.05, 0.05, 0.05))]


def counted(records, effect):
    """Per seed the mean over pairs that differ in one factor, written out; variants that only ever failed left out."""
    tried = {frozenset(r.levels.items()) for r in records if r.status != "failed"}
    at = {(frozenset(r.levels.items()), r.seed): r for r in records}
    differences = {}
    for record in records:
        other = at.get((frozenset({**record.levels, effect.factor: effect.baseline}.items()), record.seed))
        if record.levels[effect.factor] != effect.level or other is None or record.status != "ok":
            continue
        if other.status == "ok" and frozenset(other.levels.items()) in tried:
            change = (record.verdict == "full_collapse") - (other.verdict == "full_collapse")
            differences.setdefault(record.seed, []).append(change)
    return differences


@pytest.mark.parametrize("draw", range(12))
def test_every_effect_is_the_plain_count_over_matched_pairs(grid, draw):
    holed = grid.with_changes(**{"exclude": ({"penalty": "l1", "dropout": 0.2},)} if draw % 2 else {})
    records = planted(holed, at_random(np.random.default_rng(draw)))
    for effect in analyse(records, holed).of("collapsed"):
        pairs = counted(records, effect)
        d = np.array([np.mean(each) for each in pairs.values()])
        flips = np.array(list(product([1, -1], repeat=len(d)))) @ d
        assert effect.estimate == pytest.approx(d.mean())
        assert (effect.seeds, effect.blocks) == (len(d), sum(map(len, pairs.values())))
        assert effect.discordant == sum(map(np.count_nonzero, pairs.values()))
        assert effect.p == pytest.approx((np.abs(flips) >= abs(d.sum()) - 1e-9).mean())


def test_the_order_in_which_levels_are_written_does_not_matter(grid):
    """StoredResults of an earlier run keep the order that the factors had then: the same variants must still be matched."""
    plant = lambda levels, seed: collapsed((levels["dropout"] == 0.2) == (seed % 4 == 0))  # noqa: E731
    records = planted(grid, plant)
    older = [
        record.__class__(**{**record.to_dict(), "levels": dict(reversed(record.levels.items()))})
        if record.levels["dropout"] == 0.0
        else record
        for record in records
    ]
    results = StoredResults({"name": grid.name, "experiment": grid.resolved()}, older)
    found = analyse(stored_members(results), stored_experiment(results))
    for ours, theirs in zip(analyse(records, grid).family, found.family, strict=True):
        assert (ours.factor, ours.pairs, ours.blocks) == (theirs.factor, theirs.pairs, theirs.blocks)
        assert ours.estimate == pytest.approx(theirs.estimate, nan_ok=True)


def differences(generator, seeds, responses, pairs=24):
    """`[seed]`: collapse at the level less at the baseline, where each seed responds by an amount of its own."""
    base, response = generator.uniform(0.3, 0.7, seeds), generator.choice(responses, seeds)
    shape = (pairs, seeds)
    level, baseline = (generator.random(shape) < base + sign * response / 2 for sign in (1, -1))
    return level.astype(float) - baseline


@pytest.mark.parametrize(("responses", "truth"), [((-0.5, 0.5), 0.0), ((-0.55, -0.05), -0.3)])
def test_the_interval_covers_where_seeds_respond_differently(responses, truth):
    generator = np.random.default_rng(7)
    found = [mean_interval(differences(generator, 10, responses).mean(axis=0), (-1.0, 1.0)) for _ in range(1000)]
    assert np.mean([each.low <= truth <= each.high for each in found]) > 0.92  # .95, standard error .007


def test_the_sign_flip_keeps_its_size_where_counting_cells_does_not():
    generator = np.random.default_rng(8)
    drawn = [differences(generator, 10, (-0.5, 0.5)) for _ in range(1000)]
    ups = [((d > 0).sum(), (d != 0).sum()) for d in drawn]
    assert np.mean([sign_flip_p(d.mean(axis=0)) <= 0.05 for d in drawn]) < 0.07  # .05, standard error .007
    assert np.mean([stats.binomtest(int(up), int(of)).pvalue <= 0.05 for up, of in ups]) > 0.3


def test_a_level_and_its_baseline_exchanged_give_the_mirrored_effect(grid):
    records = planted(grid, at_random(np.random.default_rng(3)))
    mirrored: Experiment = grid.with_changes(baseline={**grid.baseline, "dropout": 0.2})
    (one,), (other,) = (
        [each for each in analyse(records, which).of("collapsed") if each.factor == "dropout"]
        for which in (grid, mirrored)
    )
    assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low))
    assert (one.worst_low, one.worst_high) == pytest.approx((-other.worst_high, -other.worst_low))
    assert one.p == other.p
