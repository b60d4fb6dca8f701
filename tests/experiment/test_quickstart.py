"""The experiment of `make run`: what it asks, and that it shows the disease and a cure."""

from pathlib import Path

import pytest

from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.grid import load_experiment
from harness.grid.factorial import changes
from harness.results import COLLAPSED

QUICKSTART = Path(__file__).parents[2] / "experiments" / "quickstart.yaml"
REMEDIES = [
    {},
    {"penalty": "none"},
    {"penalty": "kl_sigmoid_of_relu"},
    {"penalty": "kl_sigmoid_of_preactivation"},
    {"penalty": "none_sigmoid_bottleneck"},  # a sigmoid code and its penalty are one level of one factor
    {"penalty": "kl_sigmoid_bottleneck"},
    {"bias_init": "zero"},
    {"activation": "leaky_relu"},
    {"batchnorm": "on"},
    {"dropout": 0.2},
    {"output_activation": "linear"},
]


@pytest.fixture(scope="module")
def quickstart():
    return load_experiment(QUICKSTART)


def test_each_cell_of_the_quickstart_is_the_network_as_posted_with_one_remedy(quickstart):
    cells = [changes(variant.levels, quickstart.baseline) for variant in quickstart.variants()]
    assert cells == REMEDIES
    assert {len(cell) for cell in cells} == {0, 1}
    posted = {"penalty": "as_posted", "bias_init": "default", "activation": "relu", "batchnorm": "off"}
    assert quickstart.baseline == {**posted, "dropout": 0.0, "output_activation": "relu"}


def test_the_quickstart_trains_where_the_symptom_lives_and_with_seeds_enough_to_confirm_a_cure(quickstart):
    assert (quickstart.case, quickstart.data) == ("forum", "patches")
    assert quickstart.train["learning_rate"] == 0.01
    assert len(quickstart.seeds) >= 24


def test_the_quickstart_runs_when_it_is_copied_elsewhere(quickstart, tmp_path):
    copy = tmp_path / "elsewhere.yaml"
    copy.write_text(QUICKSTART.read_text())
    assert load_experiment(copy).resolved() == quickstart.resolved()
    assert quickstart.name == "quickstart"


def seeds_that_collapse(experiment, **remedy) -> list[int]:
    """Of the first eight seeds, after five epochs: a unit that dies has died by then."""
    (levels,) = (v.levels for v in experiment.variants() if changes(v.levels, experiment.baseline) == remedy)
    members = tuple(StackMember(f"{seed}", "v", dict(levels), seed) for seed in range(8))
    train = {**experiment.train, "epochs": 5, "snapshot_every": 5}
    records = run_stack(StackSpec(experiment.case_reference, experiment.data_reference, members, train))
    assert [record.status for record in records] == ["ok"] * 8
    return [record.seed for record in records if record.verdict in COLLAPSED]


def test_a_slice_of_the_quickstart_shows_the_disease_a_cure_and_what_worsens_it(quickstart):
    # seeds 0, 2 and 5 as posted, all eight under the KL on the pre-activation: the same ones in float64, and with all
    # initial weights moved by a ten-thousandth, so another processor's roundings leave the counts room to spare
    assert 1 <= len(seeds_that_collapse(quickstart)) < 8
    assert seeds_that_collapse(quickstart, batchnorm="on") == []
    assert len(seeds_that_collapse(quickstart, penalty="kl_sigmoid_of_preactivation")) == 8
