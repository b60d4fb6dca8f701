"""Effects of planted grids: what was planted is found, what is missing is said."""

import json

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from synthetic_effects import collapsed, planted

from harness.effects import analyse
from harness.effects.matched_blocks import contrast_blocks, interaction_blocks, level_blocks
from harness.grid import Experiment


def only(effects, outcome="collapsed", **wanted):
    found = [e for e in effects if e.outcome == outcome and all(getattr(e, k) == v for k, v in wanted.items())]
    assert len(found) == 1
    return found[0]


def random_collapse(levels, seed):
    """Seeds differ in how often they collapse and in what leaky_relu does to them."""
    generator = np.random.default_rng([seed, *map(ord, str(sorted(levels.items())))])
    share = 0.4 + 0.05 * seed - (levels["activation"] == "leaky_relu") * 0.07 * seed
    return {**collapsed(generator.random() < share), "r2": float(generator.normal(0.5, 0.1))}


def frame_of(records):
    import pandas

    rows = [{**r.levels, "seed": r.seed, "y": float(r.verdict == "full_collapse"), "r2": r.r2} for r in records]
    return pandas.DataFrame(rows)


def test_a_level_is_judged_by_its_seeds_and_not_by_its_cells(grid):
    records = planted(grid, random_collapse)
    found = only(analyse(records, grid).effects, factor="activation")
    means = frame_of(records).groupby(["seed", "activation"]).y.mean().unstack()
    d = (means["leaky_relu"] - means["relu"]).to_numpy()
    oracle = stats.ttest_1samp(d, 0)
    flips = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.estimate == pytest.approx(d.mean())
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert found.p == pytest.approx(flips.pvalue)
    assert found.differences == pytest.approx(d)
    assert (found.seeds, found.blocks, found.pairs) == (8, 48, 6)
    assert found.deviation == pytest.approx(d.std(ddof=1))


def test_the_other_outcomes_follow_the_same_way(grid):
    records = planted(grid, random_collapse)
    effects = analyse(records, grid).effects
    frame = frame_of(records)
    means = frame.groupby(["seed", "dropout"]).r2.mean().unstack()
    assert only(effects, "r2", factor="dropout").estimate == pytest.approx((means[0.2] - means[0.0]).mean())
    wide = frame[frame.y == 0].set_index(["seed", "penalty", "activation", "dropout"]).r2.unstack()
    pairs = (wide[0.2] - wide[0.0]).dropna()
    kept = only(effects, "r2_not_collapsed", factor="dropout")
    assert kept.estimate == pytest.approx(pairs.groupby("seed").mean().mean())
    assert kept.blocks == len(pairs)


def test_an_interaction_is_a_difference_of_differences_per_seed(grid):
    records = planted(grid, random_collapse)
    found = only(analyse(records, grid).interactions, level="l1 x leaky_relu")
    means = frame_of(records).groupby(["seed", "penalty", "activation"]).y.mean().unstack([1, 2])
    d = (means["l1", "leaky_relu"] - means["as_posted", "leaky_relu"]) - (
        means["l1", "relu"] - means["as_posted", "relu"]
    )
    assert found.estimate == pytest.approx(d.mean())
    assert found.p == pytest.approx(
        stats.permutation_test((d.to_numpy(),), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    )
    assert found.baseline == "as_posted x relu"


def test_a_declared_contrast_compares_its_two_cells(grid):
    records = planted(grid, random_collapse)
    found = only(analyse(records, grid).contrasts)
    means = frame_of(records).groupby(["seed", "penalty"]).y.mean().unstack()
    assert found.estimate == pytest.approx((means["l1"] - means["none"]).mean())
    assert (found.level, found.baseline) == ("penalty: l1", "penalty: none")


def test_p_is_adjusted_over_all_that_was_declared_an_outcome_at_a_time(grid):
    effects = analyse(planted(grid, random_collapse), grid)
    family = [each for each in effects.family if each.outcome == "collapsed"]
    assert len(family) == 2 + 1 + 1 + 2 + 1 == effects.design.tests
    oracle = multipletests([each.p for each in family], method="fdr_bh")[1]
    assert [each.p_adjusted for each in family] == pytest.approx(oracle)


def test_a_remedy_that_always_works_is_confirmed_with_eight_seeds_and_not_with_seven(grid):
    def plant(levels, seed):
        return collapsed(levels["activation"] == "relu")

    few = grid.with_changes(seeds=tuple(range(7)), interactions=(), contrasts=())
    many = grid.with_changes(interactions=(), contrasts=())
    sure = only(analyse(planted(many, plant), many).effects, factor="activation")
    unsure = only(analyse(planted(few, plant), few).effects, factor="activation")
    assert sure.estimate == unsure.estimate == -1.0
    assert sure.confirmed
    assert not unsure.confirmed
    assert sure.interval == "equal in all 8 seeds"
    assert sure.low == sure.high == -1.0
    assert not analyse(planted(few, plant), few).design.can_confirm


def test_a_control_that_is_equal_in_every_seed_is_said_to_be_equal_and_not_confirmed(grid):
    effects = analyse(planted(grid, lambda levels, seed: collapsed(seed % 2 == 0)), grid)
    found = only(effects.effects, factor="dropout")
    assert (found.estimate, found.p, found.discordant) == (0.0, 1.0, 0)
    assert (found.low, found.high, found.interval) == (0.0, 0.0, "equal in all 8 seeds")
    assert not found.confirmed
    r2 = only(effects.effects, "r2", factor="dropout")
    assert (r2.low, r2.high, r2.interval) == (0.0, 0.0, "equal in all 8 seeds")


def test_members_that_diverged_or_failed_are_counted_and_bound_the_estimate(grid):
    def plant(levels, seed):
        if levels["activation"] == "leaky_relu" and seed == 0:
            return {"status": "diverged", "verdict": "", "r2": None}
        if levels == {"penalty": "none", "activation": "relu", "dropout": 0.0} and seed == 1:
            return {"status": "failed", "error": "no memory", "verdict": "", "r2": None}
        return collapsed(levels["activation"] == "relu")

    effects = analyse(planted(grid, plant), grid)
    found = only(effects.effects, factor="activation")
    assert (found.diverged, found.failed, found.seeds, found.blocks) == (6, 1, 7, 41)
    assert found.estimate == -1.0
    # worst for leaky_relu: seed 0 collapses everywhere (0 instead of -1), and seed 1's failed relu member does not
    assert (found.worst_low, found.worst_high) == pytest.approx((-1.0, (-6 - 5 / 6) / 8))
    cell = next(
        each for each in effects.cells if each.levels == {"penalty": "none", "activation": "relu", "dropout": 0.0}
    )
    assert (cell.members, cell.judged, cell.collapsed, cell.counts["failed"]) == (8, 7, 7, 1)
    assert (cell.worst_low, cell.worst_high) == (7 / 8, 1.0)
    assert [each["category"] for each in cell.outcomes][1] == "failed"


def test_a_level_that_cannot_be_applied_is_not_estimable_and_says_why(grid):
    def plant(levels, seed):
        refused = {"status": "failed", "error": "no ReLU to swap", "verdict": "", "r2": None}
        return refused if levels["activation"] == "leaky_relu" else {}

    effects = analyse(planted(grid, plant), grid)
    found = only(effects.effects, factor="activation")
    assert not found.estimable
    assert np.isnan(found.p_adjusted)
    assert "failed on all of its seeds" in found.note
    assert found.pairs_refused == 6
    penalty = only(effects.effects, factor="penalty", level="none")
    assert (penalty.pairs, penalty.pairs_refused, penalty.blocks) == (4, 2, 16)
    cell = next(each for each in effects.cells if each.levels["activation"] == "leaky_relu")
    assert cell.note == "not estimable: no ReLU to swap"
    assert np.isnan(cell.share)


def test_one_seed_gives_a_difference_without_an_interval(grid):
    one = grid.with_changes(seeds=(3,))
    found = only(
        analyse(planted(one, lambda levels, seed: collapsed(levels["dropout"] == 0.2)), one).effects, factor="dropout"
    )
    assert (found.estimate, found.p) == (1.0, 1.0)
    assert np.isnan(found.low)
    assert found.interval == "one seed has no spread"
    assert "one seed" in found.note


def test_seeds_that_were_not_run_yet_are_counted(grid):
    records = planted(grid, lambda levels, seed: None if seed == 7 and levels["dropout"] == 0.2 else {})
    found = only(analyse(records, grid).effects, factor="dropout")
    assert (found.seeds, found.not_run, found.failed) == (7, 6, 0)
    assert analyse(records, grid).cells[1].counts["not run"] == 1


def test_no_verdict_at_all_is_not_estimable(grid):
    records = planted(grid, lambda levels, seed: {"verdict": "invalid", "r2": None})
    effects = analyse(records, grid)
    assert all(not each.estimable for each in effects.effects)
    assert "no matched members" in effects.effects[0].note
    assert effects.effects[0].unjudged == 4 * 2 * 8


def test_zipped_factors_never_vary_alone_and_a_contrast_is_the_way_out():
    zipped = Experiment(
        name="z",
        case="forum",
        factors={"activation": ("relu", "leaky_relu"), "dropout": (0.0, 0.2)},
        zip=({"activation": ["relu", "leaky_relu"], "dropout": [0.0, 0.2]},),
        contrasts=(({"activation": "leaky_relu"}, {"activation": "relu", "dropout": 0.0}),),
        seeds=tuple(range(8)),
    )
    effects = analyse(planted(zipped, lambda levels, seed: collapsed(levels["dropout"] == 0.0)), zipped)
    assert "declare a contrast" in only(effects.effects, factor="dropout").note
    assert only(effects.contrasts).estimate == -1.0


def test_holes_in_the_grid_leave_only_matched_pairs(grid):
    holed = grid.with_changes(exclude=({"penalty": "l1", "dropout": 0.2},))
    found = analyse(planted(holed, random_collapse), holed)
    assert only(found.effects, factor="dropout").pairs == 4
    assert only(found.effects, factor="penalty", level="l1").pairs == 2
    levels = [dict(each.levels) for each in holed.variants()]
    assert len(interaction_blocks(levels, ("penalty", "activation"), ("l1", "leaky_relu"), ("as_posted", "relu"))) == 1
    assert level_blocks(levels, "penalty", "topk", "as_posted") == []
    open_side = contrast_blocks(levels, {"penalty": "l1"}, {"penalty": "none", "dropout": 0.2})
    assert [len(block.variants) for block in open_side] == [2, 2]


def test_included_levels_have_effects_too(grid):
    wider = grid.with_changes(include=({"activation": "tanh"},))
    found = only(analyse(planted(wider, random_collapse), wider).effects, factor="activation", level="tanh")
    assert found.pairs == 1


def test_cells_have_wilson_intervals(grid):
    for cell in analyse(planted(grid, random_collapse), grid).cells:
        assert (cell.low, cell.high) == pytest.approx(proportion_confint(cell.collapsed, cell.judged, method="wilson"))
        assert len(cell.outcomes) == 8


def test_the_document_is_plain_json_with_the_promised_names(grid):
    records = planted(grid, lambda levels, seed: {"status": "failed", "verdict": "", "r2": None} if seed else {})
    document = json.loads(json.dumps(analyse(records, grid).to_dict(), allow_nan=False))
    promised = {"factor", "level", "baseline", "outcome", "estimate", "low", "high", "p", "p_adjusted"}
    assert promised | {"seeds", "blocks", "discordant"} <= set(document["effects"][0])
    assert {"interactions", "contrasts", "cells", "design", "scope"} <= set(document)


def test_the_order_of_the_members_does_not_matter(grid):
    records = planted(grid, random_collapse)
    key = lambda each: (each.factor, str(each.level), each.outcome)  # noqa: E731
    one, other = (analyse(each, grid) for each in (records, records[::-1]))
    for left, right in zip(sorted(one.family, key=key), sorted(other.family, key=key), strict=True):
        assert left.estimate == pytest.approx(right.estimate, nan_ok=True)
        assert left.p == pytest.approx(right.p, nan_ok=True)


def test_the_plan_gets_the_spread_of_each_factor(grid):
    effects = analyse(planted(grid, random_collapse), grid)
    activation = only(effects.effects, factor="activation")
    assert effects.deviations()["activation"] == activation.deviation


def test_twenty_seeds_add_an_interquartile_mean_where_nothing_has_two_humps(grid):
    many = grid.with_changes(seeds=tuple(range(20)))

    def plant(levels, seed):
        generator = np.random.default_rng([seed, int(levels["dropout"] * 10)])
        return {"r2": float(generator.normal(0.5, 0.1))}

    effects = analyse(planted(many, plant), many)
    found = only(effects.effects, "r2", factor="dropout")
    assert found.iqm_low < found.iqm < found.iqm_high
    assert found.iqm == pytest.approx(stats.trim_mean(np.array(found.differences), 0.25))
    assert np.isnan(only(effects.effects, "collapsed", factor="dropout").iqm)
    mixed = analyse(planted(many, lambda levels, seed: {**collapsed(seed % 3 == 0), **plant(levels, seed)}), many)
    assert "mixed" in only(mixed.effects, "r2", factor="dropout").robust


def test_the_design_says_when_one_effect_alone_cannot_be_confirmed(grid):
    crossed = grid.with_changes(interactions=(("penalty", "activation"), ("penalty", "dropout")))
    design = analyse(planted(crossed, random_collapse), crossed).design
    assert design.needed == int(np.ceil(design.tests * 2**-7 / 0.05)) > 1
    assert any("alone cannot be confirmed" in sentence for sentence in design.sentences)


def test_an_effect_that_one_seed_makes_is_told_as_such(grid):
    effects = analyse(planted(grid, lambda levels, seed: collapsed(levels["dropout"] == 0.2 and seed == 4)), grid)
    found = only(effects.effects, factor="dropout")
    assert "one seed contributes more than half of the estimate" in found.note
    assert "occurs in one seed of ten is missed by 43% of experiments with 8 seeds" in " ".join(
        effects.design.sentences
    )
