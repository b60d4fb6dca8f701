"""The plan: what would run, what it costs, what it can detect, what finds no place; nothing is trained or written."""

import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from scipy import stats
from statsmodels.stats.power import TTestPower
from waiting import processor_seconds

from harness.cli.plan import plan as print_plan
from harness.experiment.earlier_results import deviations, rate
from harness.grid import Experiment, load_experiment
from harness.planning.cost import Training, detectable, minutes
from harness.planning.plan import plan
from harness.results import MemberRecord

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def forum_with(seeds=8, data=None, case="forum", train=None, **factors):
    return Experiment(name="e", case=case, factors=factors, seeds=tuple(range(seeds)), data=data, train=train or {})


def test_the_detectable_effect_is_the_stated_formula():
    for seeds in (3, 8, 10, 20):
        quantiles = stats.t.ppf(0.975, seeds - 1) + stats.t.ppf(0.8, seeds - 1)
        assert [each.effect for each in detectable(seeds)] == pytest.approx(
            [quantiles * deviation / math.sqrt(seeds) for deviation in (0.1, 0.2, 0.3)]
        )


def test_the_detectable_effect_has_about_the_power_that_statsmodels_computes():
    effect = detectable(10)[1].effect
    power = TTestPower().power(effect / 0.2, nobs=10, alpha=0.05)
    assert power == pytest.approx(0.8, abs=0.02)  # the formula is the usual approximation of the noncentral t


def test_one_seed_detects_nothing():
    assert [each.effect for each in detectable(1)] == [None] * 3


def test_deviations_of_earlier_results_replace_the_stated_ones():
    found = detectable(10, {"activation": 0.05})
    assert [each.source for each in found] == ["earlier results: activation"]


def test_steps_are_those_of_a_data_loader():
    loader = torch.utils.data.DataLoader(torch.zeros(130), batch_size=50)
    training = Training({"batch_size": 64, "epochs": 2, "snapshot_every": 1}, 130)
    assert training.steps({"batch_size": 50, "epochs": 3}) == 3 * len(loader)
    assert training.snapshots({"epochs": 3}) == 4


def test_members_alone_take_longer_and_a_measured_rate_wins():
    assert (
        minutes([1_000_000], [10], [True]) > minutes([1_000_000], [10], [False]) > minutes([1_000_000], [40], [False])
    )
    assert minutes([1_000_000], [10], [False], rate=1e9) < minutes([1_000_000], [10], [False])


def test_the_plan_of_the_forum_counts_what_the_file_says():
    found = plan(load_experiment(EXPERIMENTS / "forum.yaml"))
    assert (len(found.variants), found.members, found.steps_per_epoch) == (212, 1696, 42)
    assert found.member_steps == 1696 * 30 * 42
    assert sum(each.members for each in found.stacks) == 1696
    assert not found.not_applicable
    assert not any(each.alone for each in found.stacks)
    assert len(found.matched_beta) == 16
    assert all(beta > 0 for beta in found.matched_beta.values())
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_a_remedy_without_a_place_is_a_row_with_its_reason(tmp_path):
    (tmp_path / "flat.py").write_text(
        "import torch, harness\nfrom torch import nn\n"
        "case = harness.Case(model=lambda: nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6)),\n"
        "    data=lambda: torch.randn(40, 6, generator=torch.Generator().manual_seed(0)),\n"
        "    losses=lambda model, batch: {'reconstruction': (model(batch) - batch).square().mean()}, bottleneck='0')\n"
    )
    (tmp_path / "e.yaml").write_text("name: e\ncase: flat.py\nfactors: {activation: [relu, elu]}\nseeds: 3\n")
    found = plan(load_experiment(tmp_path / "e.yaml"))
    assert [(each.levels, each.members) for each in found.not_applicable] == [("activation: elu", 3)]
    assert "no ReLU to replace" in found.not_applicable[0].reason
    assert any("can confirm no effect" in note for note in found.notes)


def test_what_cannot_be_batched_is_told_before_it_runs():
    found = plan(forum_with(case="sibling_count", penalty=["as_posted"]))
    assert found.stacks[0].alone is not None
    assert ".item()" in found.stacks[0].alone


def test_a_number_that_the_posted_loss_takes_as_a_plain_one_is_told():
    posted, corrected = (plan(forum_with(case=name, rho=[0.05, 0.1])).notes for name in ("forum", "corrected"))
    sentence = "penalty as_posted: the loss takes rho as a plain number only, so its levels are batched apart"
    assert sentence in posted
    assert sentence not in corrected


def test_five_thousand_members_are_planned_in_seconds():
    numbers = [place / 100 for place in range(1, 26)]
    made = forum_with(50, rho=numbers, penalty=["none", "kl_sigmoid_of_relu"], batchnorm=["off", "on"])
    plan(forum_with(rho=[0.05]))  # torch's own start is not the plan's
    assert plan(made).members == 5000
    assert processor_seconds(lambda: plan(made), 2.0) < 2.0  # 0.1 to 0.3 s


def record(name, levels, seed, verdict, seconds=2.0):
    history = {"step": [0.0, 40.0]}
    plain = {"error": None, "diverged_step": None, "flags": [], "units": 4, "live_units": 2, "r2": 0.5, "pca_r2": []}
    rest = {"losses": {}, "history": history, "unit_history": {}, "died_at": [], "diagnosis": {}, "examples": {}}
    return MemberRecord(key=f"{name} {seed}", variant=name, levels=levels, seed=seed, status="ok", verdict=verdict,
                        seconds=seconds, logged_at=0, **plain, **rest)  # fmt: skip


def test_earlier_results_tell_how_much_seeds_differ_and_how_fast_they_train():
    made = forum_with(3, activation=["relu", "elu"])
    dead, alive = "full_collapse", "healthy"
    fate = {"relu": (dead, dead, alive), "elu": (dead, alive, alive)}
    records = [record(a, {"activation": a}, seed, fate[a][seed]) for a in fate for seed in range(3)]
    # differences by seed: 0, -1, 0
    expected = statistics.stdev([0, -1, 0])
    assert deviations(made, records) == {"share collapsed, activation": pytest.approx(expected)}
    assert rate(records) == pytest.approx(20)
    assert deviations(made, []) == {}
    assert rate([]) is None


def test_json_is_one_document_and_text_is_for_reading(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    print_plan(EXPERIMENTS / "quickstart.yaml", json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["members"], len(document["variants"]), document["seeds"]) == (352, 11, 32)
    print_plan(EXPERIMENTS / "quickstart.yaml")
    assert "352 models: 11 variants x 32 seeds" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


LARGE_CASE = """
import torch
from torch import nn
import harness

def build():
    return nn.Sequential(nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 100))

case = harness.Case(
    build, lambda: torch.randn(200, 100), lambda model, batch: {"reconstruction": (model(batch) - batch).pow(2).mean()}, "0"
)
"""


def test_a_large_model_is_said_to_train_member_by_member(tmp_path):
    (tmp_path / "large.py").write_text(LARGE_CASE)
    notes = plan(forum_with(case=str(tmp_path / "large.py"), learning_rate=[1e-3, 1e-2])).notes
    assert any("too large to share a stack" in note for note in notes)
    assert not any("too large to share a stack" in note for note in plan(forum_with(activation=["relu"])).notes)


def test_the_plan_says_how_likely_a_cure_is_confirmed(tmp_path):
    """Eight seeds against 24 seeds, 2 of 5 failing: known from enumerating the outcomes, 0.01 and 0.90 for six remedies."""
    text = """
name: power
case: forum
data: patches
remedies:
  - {batchnorm: on}
  - {activation: leaky_relu}
  - {bias_init: zero}
  - {dropout: 0.2}
  - {penalty: none}
  - {output_activation: linear}
seeds: SEEDS
train: {epochs: 1}
"""
    for seeds, probability in ((8, 0.01), (24, 0.90)):
        (tmp_path / "power.yaml").write_text(text.replace("SEEDS", str(seeds)))
        powers = {entry.failed: entry for entry in plan(load_experiment(tmp_path / "power.yaml")).power}
        assert powers[0.4].remedies == 6
        assert powers[0.4].probability == pytest.approx(probability, abs=0.005)
