"""The primary comparison: each remedy alone against the baseline, paired by seed, and its word."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from statsmodels.stats.contingency_tables import mcnemar
from synthetic_effects import collapsed, planted

from harness.effects import analyse, remedy_effects
from harness.effects.paired_shares import PairedCounts, mcnemar_mid_p, newcombe_paired
from harness.effects.power import mcnemar_power
from harness.effects.remedy_effects import has_failed
from harness.errors import HarnessError
from harness.grid import Experiment
from harness.results.records import MemberRecord

MEAN = {"flags": ["mean_output"], "r2": 0.0}
LOST = {"status": "failed", "verdict": "", "error": "killed", "r2": None}
DIVERGED = {"status": "diverged", "verdict": "", "r2": None}


def star(seeds=24, *changes) -> Experiment:
    return Experiment(
        name="star",
        case="forum",
        factors={"penalty": ("as_posted",), "activation": ("relu",), "dropout": (0.0,)},
        include=changes or ({"activation": "leaky_relu"},),
        seeds=tuple(range(seeds)),
    )


def only(plant, seeds=24):
    """The single row of a baseline with one remedy."""
    (row,) = remedy_effects(planted(star(seeds), plant), star(seeds))
    return row


def arms(before, after):
    """Plant outcomes: the fields of seed s in the baseline and in the remedy."""
    return lambda levels, seed: (after if levels["activation"] == "leaky_relu" else before)(seed)


def fails(count, fields=None):
    return lambda seed: (fields or collapsed(True)) if seed < count else {}


@pytest.mark.parametrize("fixed", range(9))
@pytest.mark.parametrize("broken", range(9))
def test_mid_p_is_the_exact_p_without_half_of_the_observed_table(fixed, broken):
    n = fixed + broken
    if not n:
        assert mcnemar_mid_p(0, 0) == 1.0
        return
    exact = mcnemar([[3, fixed], [broken, 5]], exact=True).pvalue
    assert binomtest(fixed, n, 0.5).pvalue == pytest.approx(exact)
    closed = 1.0 if fixed == broken else exact - binom.pmf(min(fixed, broken), n, 0.5)
    assert mcnemar_mid_p(fixed, broken) == pytest.approx(closed)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [  # e, f, g, h of the paper's tables; the first is also the worked example in Altman et al. 2000, page 52
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((36, 12, 2, 0), 0.0569, 0.3404),
    ],
)
def test_newcombes_paired_interval_gives_his_published_limits(table, low, high):
    both, first, second, neither = table
    interval = newcombe_paired(PairedCounts(both=both, fixed=second, broken=first, neither=neither))
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


def test_an_interval_without_pairs_is_refused():
    with pytest.raises(HarnessError, match="expected at least one pair"):
        newcombe_paired(PairedCounts(0, 0, 0, 0))
    assert newcombe_paired(PairedCounts(0, 1, 0, 0)).high <= 1


def test_more_extreme_tables_never_get_a_wider_interval_on_the_side_of_zero():
    highs = [newcombe_paired(PairedCounts(0, fixed, 0, 24 - fixed)).high for fixed in range(4, 25)]
    assert highs == sorted(highs, reverse=True)


@pytest.mark.parametrize(("seeds", "power"), [(8, 0.01), (16, 0.47), (24, 0.90), (32, 0.99)])
def test_the_power_of_a_cure_from_forty_percent_in_a_family_of_six(seeds, power):
    assert mcnemar_power(seeds, 0.4, tests=6) == pytest.approx(power, abs=0.006)
    # by hand: with no failure left, p = 2^-b, so at least 7 of the seeds must have failed before
    assert mcnemar_power(seeds, 0.4, tests=6) == pytest.approx(binom.sf(6, seeds, 0.4))


def test_the_design_says_how_likely_a_cure_is_confirmed():
    design = star(24, {"activation": "leaky_relu"}, {"dropout": 0.2})
    sentence = analyse(planted(design, lambda levels, seed: {}), design).design.sentences[0]
    assert f"with probability {binom.sf(5, 24, 0.4):.2f}" in sentence  # 2^-6 is below 0.05 / 2, 2^-5 is not
    assert "24 seeds, 2 remedies compared" in sentence


def test_power_agrees_with_a_simulation_where_both_arms_fail():
    generator = np.random.default_rng(3)
    before, after = generator.random((4000, 24)) < 0.6, generator.random((4000, 24)) < 0.1
    hits = [
        mcnemar_mid_p(int((was & ~now).sum()), int((~was & now).sum())) < 0.05 and was.sum() > now.sum()
        for was, now in zip(before, after, strict=True)
    ]
    # standard error of a share of 4000: at most 0.008
    assert mcnemar_power(24, 0.6, 0.1) == pytest.approx(np.mean(hits), abs=0.03)


def test_power_refuses_what_is_no_share():
    with pytest.raises(HarnessError, match="expected at least 1 seed and test and shares from 0 to 1"):
        mcnemar_power(8, 1.4)
    assert mcnemar_power(8, 0.0) == 0.0


def test_under_the_null_the_test_rejects_no_more_than_it_says():
    seeds, share = 24, 0.4
    level = sum(
        binom.pmf(n, seeds, 2 * share * (1 - share)) * binom.pmf(b, n, 0.5)
        for n in range(seeds + 1)
        for b in range(n + 1)
        if mcnemar_mid_p(b, n - b) < 0.05
    )
    assert 0.02 < level < 0.055  # mid-p may pass 0.05 by little: Fagerland et al. 2013


def test_the_paired_interval_covers_the_true_change():
    generator = np.random.default_rng(5)
    common = generator.random((3000, 24)) < 0.3
    before, after = common | (generator.random((3000, 24)) < 0.3), common & (generator.random((3000, 24)) < 0.7)
    truth = 0.3 * 0.7 - (1 - 0.7 * 0.7)
    covered = 0
    for was, now in zip(before, after, strict=True):
        counts = PairedCounts(*(int(each.sum()) for each in (was & now, was & ~now, ~was & now, ~was & ~now)))
        interval = newcombe_paired(counts)
        covered += interval.low <= truth <= interval.high
    assert 0.93 < covered / 3000 < 0.985  # standard error 0.004


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({"verdict": "healthy"}, False),
        ({"verdict": "partial_collapse"}, False),
        ({"verdict": "full_collapse"}, True),
        ({"verdict": "single_live_unit"}, True),
        ({"verdict": "near_collapse"}, True),
        ({"verdict": "healthy", "flags": ["worse_than_mean"]}, True),
        ({"verdict": "partial_collapse", "flags": ["mean_output"]}, True),
        ({"verdict": "healthy", "flags": ["invalid_output"]}, True),
        ({"verdict": "mean_output"}, True),
        ({"verdict": "constant_output"}, True),
        ({"verdict": "invalid"}, True),
        ({"status": "diverged"}, True),
        ({"status": "failed"}, None),
        ({"verdict": "not_testable"}, None),
    ],
)
def test_failed_means_that_the_model_cannot_be_used(fields, failed):
    assert has_failed(MemberRecord("k", "v", {}, 0, **fields)) is failed


def test_a_cure_of_all_seeds_works():
    row = only(arms(fails(8), fails(0)))
    assert row.word == "works"
    assert (row.failed_before, row.failed_after, row.seeds) == (8, 0, 24)
    assert row.change == pytest.approx(-1 / 3)
    assert row.p == pytest.approx(2**-8)
    assert row.low < -1 / 3 < row.high < 0


def test_a_cure_that_leaves_more_than_a_tenth_of_the_seeds_helps():
    assert only(arms(fails(20), fails(3))).word == "helps"
    assert only(arms(fails(20), fails(2))).word == "works"


def test_more_failures_are_worse_and_an_equal_share_is_undecided_or_no_effect():
    assert only(arms(fails(4), fails(20))).word == "worse"
    assert only(arms(fails(6), fails(5)), 24).word == "no_effect_seen"
    few = only(arms(fails(4), fails(1)), 8)
    assert few.word == "undecided"
    assert few.seeds_needed is not None
    assert few.seeds_needed > 8


def test_live_units_without_a_better_reconstruction_are_not_called_a_cure():
    row = only(arms(fails(16), fails(16, MEAN)))
    assert row.word == "live_not_better_than_mean"
    assert (row.collapsed_before, row.collapsed_after) == (16, 0)
    assert (row.failed_before, row.failed_after) == (16, 16)


def test_collapse_that_turns_into_divergence_confirms_nothing():
    row = only(arms(fails(16), fails(16, DIVERGED)))
    assert row.word != "works"
    assert row.word != "helps"
    assert row.failed_after == 16


def test_lost_members_count_against_the_claim_in_both_arms():
    assert only(arms(fails(8), lambda seed: LOST if seed < 8 else {})).word != "works"
    assert only(arms(lambda seed: LOST if 0 < seed < 8 else collapsed(seed == 0), fails(0))).word != "works"
    one_lost = only(arms(fails(16), lambda seed: LOST if seed == 23 else {}))
    assert one_lost.word == "works"
    assert one_lost.lost_after == 1
    assert one_lost.worst_high < 0


def test_results_that_are_equal_bit_for_bit_are_said_to_be_equal():
    def trained(last):
        return lambda seed: {**collapsed(seed < 8), "history": {"step": [0.0, 1.0], "r2": [0.1, last + seed]}}

    assert only(arms(trained(0.5), trained(0.5))).word == "equal"
    assert only(arms(trained(0.5), trained(np.nextafter(0.5, 1)))).word == "no_effect_seen"


def test_r2_decides_where_nothing_fails():
    def fit(mean, **more):
        return lambda seed: {"r2": mean + 0.001 * (seed % 5), "pca_r2": [0.3, 0.5, 0.6, 0.7], **more}

    assert only(arms(fit(0.3), fit(0.65))).word == "works"  # 0.8 of PCA's 0.7 is 0.56
    assert only(arms(fit(0.3), fit(0.45))).word == "helps"
    assert only(arms(fit(0.6), fit(0.3))).word == "worse"
    assert only(arms(fit(0.6), fit(0.61))).word == "no_effect_seen"
    assert only(arms(fit(0.3), fit(0.65, pca_r2=[]))).word == "helps"  # the level of PCA is not known


def test_a_factorial_has_a_row_for_each_cell_that_changes_one_factor(grid):
    rows = analyse(planted(grid, lambda levels, seed: collapsed(levels["activation"] == "relu")), grid).remedies
    assert sorted(row.name for row in rows) == ["activation leaky_relu", "dropout 0.2", "penalty l1", "penalty none"]
    assert rows[0].name == "activation leaky_relu"
    assert rows[0].word == "works"


def test_a_design_of_one_remedy_at_a_time_has_a_row_for_a_change_of_several_factors():
    both = {"activation": "leaky_relu", "dropout": 0.2}
    design = star(16, {"penalty": "none"}, both)
    rows = remedy_effects(planted(design, lambda levels, seed: collapsed(levels["activation"] == "relu")), design)
    assert rows[0].remedy == both
    assert len(rows) == 2


def test_without_a_baseline_there_are_no_rows():
    records = planted(star(), lambda levels, seed: {} if levels["activation"] == "leaky_relu" else None)
    assert remedy_effects(records, star()) == ()


def test_p_is_adjusted_over_the_rows():
    design = star(24, {"activation": "leaky_relu"}, {"dropout": 0.2}, {"penalty": "none"})
    rows = remedy_effects(
        planted(design, lambda levels, seed: collapsed(seed < (0 if levels["dropout"] else 6))), design
    )
    cure = next(row for row in rows if row.name == "dropout 0.2")
    assert cure.p_adjusted == pytest.approx(3 * 2**-6)
    assert cure.word == "works"
