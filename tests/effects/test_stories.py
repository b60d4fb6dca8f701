"""Answer, explanation, comparison: every sentence rests on numbers, and claims no more than they do."""

import json

import numpy as np
import pytest
from scipy import stats
from synthetic_effects import collapsed, planted

from harness.effects import analyse, compare, stored_experiment, stored_members
from harness.effects.effect import Effect
from harness.errors import HarnessError
from harness.grid import Experiment
from harness.report.answer import headline, summarize
from harness.report.averaged_answer import averaged_lines, phrase
from harness.report.explanation import explain_experiment
from harness.results import StoredResults

AUDIT = {
    "as_posted": [
        {"rule": "index_addressing", "severity": "note", "evidence": "index 3"},
        {"rule": "wrong_layer", "severity": "fault", "evidence": "dec1 is penalised", "numbers": {"index": 3.0}},
    ]
}


@pytest.fixture
def declared(grid) -> Experiment:
    return grid.with_changes(interactions=(), contrasts=())


def results_of(experiment, plant, **manifest) -> StoredResults:
    described = {"name": experiment.name, "experiment": experiment.resolved(), "defaults": {"dropout": 0.0}}
    return StoredResults({**described, **manifest}, planted(experiment, plant))


def test_the_averaged_effects_are_given_with_their_intervals(declared):
    lines = averaged_lines(
        analyse(planted(declared, lambda levels, seed: collapsed(levels["activation"] == "relu")), declared)
    )
    assert len(lines) == 5
    assert lines[0].startswith("How often: 48 of 96 judged members collapsed; of the baseline")
    assert "8 of 8 seeds, 95 % interval 0.68 to 1.00" in lines[0]
    assert (
        "activation leaky_relu (against relu) -100 points (equal in all 8 seeds), adjusted p 0.031, 8 seeds" in lines[1]
    )
    assert "dropout 0.2 (against 0.0)" in lines[2]
    assert "inconclusive" in lines[2]
    assert lines[4].startswith("Scope: other initializations and batch orders on this data set")


@pytest.fixture
def star() -> Experiment:
    """A baseline and three changes of it, one at a time, sixteen seeds."""
    return Experiment(
        name="star",
        case="forum",
        factors={"penalty": ("as_posted",), "activation": ("relu",), "dropout": (0.0,)},
        include=({"penalty": "none"}, {"activation": "leaky_relu"}, {"dropout": 0.2}),
        seeds=tuple(range(16)),
    )


def one_changed(levels, seed):
    """Half of the seeds collapse as posted, none with leaky_relu, all with dropout, one fewer without a penalty."""
    share = {"leaky_relu": 0, "relu": 16 if levels["dropout"] else 7 if levels["penalty"] == "none" else 8}
    return {**collapsed(seed < share[levels["activation"]]), "r2": 0.9 if levels["activation"] != "relu" else 0.25}


def test_the_headline_says_how_often_the_baseline_fails_and_what_each_remedy_does(star):
    effects = analyse(planted(star, one_changed), star)
    assert headline(effects) == (
        "As posted, 8 of 16 seeds end with no unit that varies; leaky_relu cures it (0 of 16); "
        "no penalty is not shown to help; dropout 0.2 makes it certain (16 of 16)."
    )
    lines = summarize(effects)
    assert lines[0] == headline(effects)
    # with all of 8 discordant pairs one way, p is 2^-8 by mid-p; two of three tests have it, so 1.5 times as much
    assert effects.remedies[0].p_adjusted == pytest.approx(1.5 * 2**-8)
    assert lines[1].startswith("  leaky_relu: failed 8 -> 0 of 16 (-50 points, -72 to -")
    assert lines[1].endswith("R2 0.25 -> 0.90: works")
    assert len(lines) == 1 + 3  # nothing is averaged
    assert "31 of 64" not in " ".join(lines)  # a total over variants that differ is meaningless


def test_an_undecided_remedy_with_fewer_failures_may_help_and_the_headline_says_how_many_seeds_would_decide(star):
    few = star.with_changes(seeds=tuple(range(8)))
    text = headline(
        analyse(planted(few, lambda levels, seed: collapsed(seed < 3 and levels["activation"] == "relu")), few)
    )
    assert "leaky_relu may help (0 of 8): about " in text
    assert "leaky_relu is not shown to help" not in text
    worse = headline(analyse(planted(few, lambda levels, seed: collapsed(seed < 3 + bool(levels["dropout"]))), few))
    assert "may help" not in worse


def test_a_factorial_adds_the_averages_over_the_other_factors_and_labels_them(declared):
    lines = summarize(
        analyse(planted(declared, lambda levels, seed: collapsed(levels["activation"] == "relu")), declared)
    )
    label = lines.index("Averaged over the other factors:")
    assert lines[label + 2].startswith(
        "Reduces collapse (share collapsed, averaged over the other factors): activation"
    )
    assert "leaky_relu cures it (0 of 8)" in lines[0]


def test_a_variant_of_several_changes_is_a_row_of_its_own(star):
    both = star.with_changes(include=({"penalty": "none"}, {"activation": "leaky_relu", "dropout": 0.2}))
    assert "leaky_relu with dropout 0.2 cures it (0 of 16)" in headline(analyse(planted(both, one_changed), both))


def test_a_baseline_that_does_not_fail_and_few_seeds_claim_no_cure(star):
    healthy = headline(analyse(planted(star, lambda levels, seed: {}), star))
    assert healthy.startswith("As posted, none of 16 seeds fails (R2 0.50)")
    assert "cure" not in healthy
    few = star.with_changes(seeds=(0, 1, 2))
    text = headline(analyse(planted(few, one_changed), few))
    assert "cure" not in text
    assert "leaky_relu" in text


def test_what_reconstructs_no_better_than_the_mean_is_not_called_a_cure(star):
    def live(levels, seed):
        better = levels["activation"] == "leaky_relu"
        return {"flags": ["mean_output"], "r2": 0.0} if better else collapsed(seed < 12)

    lived = star.with_changes(include=({"activation": "leaky_relu"},))
    text = headline(analyse(planted(lived, live), lived))
    assert "leaky_relu" in text
    assert "cure" not in text
    same = headline(analyse(planted(lived, lambda levels, seed: live(levels, seed) if seed < 12 else {}), lived))
    assert "leaky_relu keeps units live but reconstructs no better than the mean (12 of 16 fail)" in same


def test_lost_members_are_named_in_their_row(star):
    def lossy(levels, seed):
        killed = levels["activation"] == "leaky_relu" and seed == 15
        return {"status": "failed", "verdict": "", "r2": None} if killed else one_changed(levels, seed)

    lines = summarize(analyse(planted(star, lossy), star))
    assert "leaky_relu: failed 8 -> 0 of 16, 1 lost" in lines[1]


def test_the_answer_holds_without_a_baseline(star):
    records = planted(star, lambda levels, seed: {} if levels["activation"] == "leaky_relu" else None)
    assert headline(analyse(records, star)).startswith("No member of the baseline has a result")
    lost = {"status": "failed", "verdict": "", "r2": None}
    killed = analyse(planted(star, lambda levels, seed: {} if levels["activation"] == "leaky_relu" else lost), star)
    assert headline(killed).startswith("No member of the baseline has a result")


def test_what_worsens_collapse_is_said_to_worsen_it(declared):
    lines = averaged_lines(
        analyse(planted(declared, lambda levels, seed: collapsed(levels["dropout"] == 0.2)), declared)
    )
    assert lines[2].startswith("Worsens it: dropout 0.2 (against 0.0) +100 points")
    assert "nothing is confirmed" not in lines[2]
    assert lines[1].startswith("Reduces collapse: nothing is confirmed") or "no level did" in lines[1]


def test_few_seeds_are_answered_with_estimates_only(declared):
    few = declared.with_changes(seeds=(0, 1, 2))
    lines = averaged_lines(analyse(planted(few, lambda levels, seed: collapsed(levels["activation"] == "relu")), few))
    assert lines[1].startswith("Reduces collapse: fewer than 8 seeds confirm nothing; the largest reduction seen is")


def test_the_answer_holds_where_nothing_ran(declared):
    lost = {"status": "failed", "error": "no such layer", "verdict": "", "r2": None}
    lines = averaged_lines(analyse(planted(declared, lambda levels, seed: lost), declared))
    assert lines[0] == "How often: not estimable, no member has a verdict (another 96 failed)."
    assert "nothing can be said" in lines[1]
    assert "not estimable: penalty none" in lines[2]
    assert "no reconstruction was judged" in lines[3]


def test_a_phrase_tells_the_worst_case_where_members_are_lost():
    effect = Effect("level", "dropout", 0.2, 0.0, "collapsed", -0.5, -0.8, -0.2, p_adjusted=0.01, seeds=9, diverged=3)
    told = phrase(Effect(**{**vars(effect), "worst_low": -0.6, "worst_high": -0.1}))
    assert told.endswith("with 3 members lost: -60 to -10 at worst")


def test_no_sentence_calls_an_unshown_effect_absent(declared):
    lines = averaged_lines(
        analyse(planted(declared, lambda levels, seed: collapsed((seed + len(str(levels))) % 3 == 0)), declared)
    )
    text = " ".join(lines).lower()
    assert not any(word in text for word in ("no effect", "does nothing", "proves", "always", "never", "equivalent"))


def test_the_explanation_follows_the_chain_and_each_sentence_has_its_number(declared):
    history = {
        "step": [0.0, 10.0, 20.0],
        "gradient/reconstruction": [1.0, 2.0, 1.0],
        "gradient/sparsity": [3.0, 8.0, 9.0],
    }
    units = [{"verdict": "alive", "flags": ["unused"], "ablation": 0.0}] + [{"verdict": "dead", "flags": []}] * 3
    small = declared.with_changes(factors={"penalty": ("as_posted",)}, baseline={"penalty": "as_posted"})
    told = {"verdict": "single_live_unit", "live_units": 1, "r2": 0.2, "pca_r2": [0.26], "died_at": [None, 0, 20, 20]}
    records = planted(small, lambda levels, seed: {**told, "history": history, "diagnosis": {"units": units}})
    (paragraph,) = explain_experiment(records, AUDIT)
    told_in_order = [
        "The audit of the penalty reports the fault wrong_layer: dec1 is penalised.",
        "At initialization 8 of 32 units (25.0%) were constant on the held-out rows and stayed so.",
        "16 more became constant in training, half of them by step 20.",
        "Just before the first unit became constant, the penalty's gradient at the bottleneck was 4 times the "
        "reconstruction's (median).",
        "8 of 8 live units are unused; replacing a unit by its mean lowers R2 by 0.000 (median).",
        "The reconstruction's R2 is 0.20 (median), 0.06 below that of as many principal components as live units "
        "(median of 8); 0 of 8 members have an R2 of at most 0.",
        "At the end of training 8 of 8 seeds collapsed (95 % interval 0.68 to 1.00).",
    ]
    assert [sentence.text for sentence in paragraph.sentences] == told_in_order
    assert all(sentence.numbers for sentence in paragraph.sentences)
    json.dumps(paragraph.to_dict(), allow_nan=False)


def audited_paragraph(declared, *findings):
    small = declared.with_changes(factors={"penalty": ("as_posted",)}, baseline={"penalty": "as_posted"})
    return explain_experiment(planted(small, lambda levels, seed: {}), {"as_posted": findings})[0]


def test_a_risk_that_the_audit_found_is_explained_with_its_evidence(declared):
    risk = {"rule": "dominates", "severity": "risk", "evidence": "40 times the norm", "numbers": {"ratio_at_0": 40.0}}
    sentence = audited_paragraph(declared, risk).sentences[0]
    assert sentence.text == "The audit of the penalty reports the risk dominates: 40 times the norm."
    assert sentence.numbers == {"ratio_at_0": 40.0}
    stored_before = audited_paragraph(declared, {**risk, "severity": "warning"})
    assert stored_before.sentences[0] == sentence


@pytest.mark.parametrize("severity", ["note", "undecided", "catastrophe", None])
def test_what_is_no_fault_and_no_risk_is_not_called_a_reason(declared, severity):
    assert "audit" not in audited_paragraph(declared, {"rule": "unused", "severity": severity}).text


def test_faults_come_before_risks_and_what_is_too_much_for_a_paragraph_is_named(declared):
    risks = [{"rule": rule, "severity": "risk", "evidence": "e"} for rule in ("escape", "dominates", "dominates")]
    faults = [{"rule": rule, "severity": "fault", "evidence": "e"} for rule in ("wrong_layer", "wrong_axis")]
    sentences = audited_paragraph(declared, risks[0], faults[0], *risks[1:], faults[1]).sentences
    assert [sentence.text for sentence in sentences[:3]] == [
        "The audit of the penalty reports the fault wrong_layer: e.",
        "The audit of the penalty reports the fault wrong_axis: e.",
        "It also reports the risk escape; the risk dominates.",
    ]
    assert sentences[2].numbers == {"findings": 5.0}


@pytest.mark.parametrize(
    ("reconstruction", "penalty", "said"),
    [(1.0, 0.0, "did not act on the bottleneck"), (0.0, 1.0, "the penalty's was not"), (2.0, 1.0, "0.5 times")],
)
def test_gradients_of_nothing_are_told_as_such(declared, reconstruction, penalty, said):
    history = {"step": [0.0], "gradient/reconstruction": [reconstruction], "gradient/kl": [penalty]}
    paragraph = explain_experiment(planted(declared, lambda levels, seed: {"died_at": [None], "history": history}))[0]
    assert said in paragraph.text
    assert "At initialization the" in paragraph.text
    json.dumps(paragraph.to_dict(), allow_nan=False)


def test_the_gradient_of_a_penalty_counts_with_the_weight_that_it_has_in_the_loss(declared):
    history = {
        "step": [0.0, 1.0],
        "gradient/reconstruction": [1.0, 1.0],
        "gradient/kl": [1500.0, 1500.0],
        "loss/reconstruction": [0.9, 0.5],
        "loss/kl": [2.0, 1.0],
        "loss/total": [0.902, 0.501],
    }
    paragraph = explain_experiment(planted(declared, lambda levels, seed: {"died_at": [None], "history": history}))[0]
    assert "was 1.5 times the reconstruction's" in paragraph.text


def test_many_variants_are_told_by_the_level_of_their_penalty(declared):
    wide = declared.with_changes(factors={**declared.factors, "bias_init": ("default", "zero")})
    paragraphs = explain_experiment(planted(wide.with_changes(baseline={}), lambda levels, seed: {}))
    assert [each.group for each in paragraphs] == ["penalty: as_posted", "penalty: none", "penalty: l1"]
    assert "At the end of training 0 of 64 members collapsed" in paragraphs[0].text  # no interval: members share seeds


def test_a_group_without_verdicts_says_why(declared):
    lost = {"status": "failed", "error": "no such layer", "verdict": "", "r2": None}
    assert (
        explain_experiment(planted(declared, lambda levels, seed: lost))[0].text
        == "No member has a verdict: no such layer."
    )


def test_the_same_case_is_compared_seed_by_seed(declared):
    def before(levels, seed):
        return {**collapsed(seed < 6), "r2": 0.1 * seed}

    def after(levels, seed):
        return {**collapsed(seed < 3), "r2": 0.1 * seed + 0.01 * (seed % 2)}

    found = compare(results_of(declared, before), results_of(declared, after))
    assert found.paired
    assert len(found.variants) == 12
    share = found.overall[0]
    d = np.array([0, 0, 0, -1, -1, -1, 0, 0])
    assert share.estimate == pytest.approx(d.mean())
    assert share.p == pytest.approx(
        stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    )
    assert found.variants[0].effects[2].estimate == pytest.approx(0.005)
    assert "paired by variant and seed: 8 shared seeds" in found.sentences[0]
    json.dumps(found.to_dict(), allow_nan=False)


def test_other_cases_are_compared_as_separate_arms(declared):
    other = declared.with_changes(case="digits", name="other")
    found = compare(
        results_of(declared, lambda levels, seed: collapsed(True)),
        results_of(other, lambda levels, seed: collapsed(False)),
    )
    assert not found.paired
    assert "the cases differ" in found.why
    risk = found.variants[0].risk
    assert (risk.estimate, risk.first, risk.second) == (-1.0, (0, 8), (8, 8))
    assert "12 of 12 variants differ" in found.sentences[1]
    json.dumps(found.to_dict(), allow_nan=False)


def test_other_seeds_are_separate_arms_and_lost_arms_have_no_difference(declared):
    other = declared.with_changes(seeds=tuple(range(20, 25)))
    lost = {"status": "failed", "error": "x", "verdict": "", "r2": None}
    found = compare(results_of(declared, lambda levels, seed: {}), results_of(other, lambda levels, seed: lost))
    assert "share 0 seeds" in found.why
    assert found.variants[0].risk is None
    assert found.variants[0].p_adjusted is None
    assert found.variants[0].second["failed"] == 5


def test_a_factor_that_only_one_names_counts_at_its_default(declared):
    fewer = declared.with_changes(factors={k: v for k, v in declared.factors.items() if k != "dropout"})
    fewer = fewer.with_changes(baseline={"penalty": "as_posted", "activation": "relu"})
    found = compare(results_of(declared, lambda levels, seed: {}), results_of(fewer, lambda levels, seed: {}))
    assert len(found.variants) == 6
    assert len(found.only_first) == 6
    assert not found.only_second
    assert found.sentences[-1] == "Not compared: 6 only in planted."


def test_stored_results_keep_the_latest_of_each_member_and_what_was_asked(declared):
    results = results_of(declared, lambda levels, seed: {"logged_at": 1})
    newer = planted(declared, lambda levels, seed: {"logged_at": 2, "verdict": "full_collapse"} if seed == 0 else None)
    stale = planted(declared.with_changes(seeds=(99,)), lambda levels, seed: {})
    mixed = StoredResults(results.manifest, [*newer, *results.records, *stale])
    kept = stored_members(mixed)
    assert len(kept) == 96
    assert sum(each.verdict == "full_collapse" for each in kept) == 12
    assert stored_experiment(mixed).seeds == declared.seeds


def test_results_that_name_no_experiment_are_refused():
    with pytest.raises(HarnessError, match="expected an experiment in the manifest"):
        compare(StoredResults({}, []), StoredResults({}, []))
