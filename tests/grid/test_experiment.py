"""An experiment that is built in Python."""

import json

import pytest

from harness.errors import HarnessError
from harness.grid import Experiment

PLAIN = {"name": "own", "case": "forum", "factors": {"activation": ["relu", "elu"]}, "seeds": [3, 4]}


def test_lists_and_ranges_become_tuples_and_the_baseline_has_a_level_of_every_factor():
    experiment = Experiment(**{**PLAIN, "seeds": range(2)})
    assert experiment.factors == {"activation": ("relu", "elu")}
    assert experiment.seeds == (0, 1)
    assert experiment.baseline == {"activation": "relu"}


def test_its_plain_values_survive_json_and_give_the_same_experiment(tmp_path):
    experiment = Experiment(
        **PLAIN,
        interactions=[("activation", "activation")],
        contrasts=[({"activation": "relu"}, {"activation": "elu"})],
        include=[{"activation": ["tanh", "selu"]}],
        path=tmp_path / "own.yaml",
    )
    assert Experiment(**json.loads(json.dumps(experiment.to_dict()))) == experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "name: expected str, got 3"),
        ({"factors": ["relu"]}, "factors: expected Mapping"),
        ({"seeds": ["a"]}, "seeds: expected whole numbers"),
        ({"seeds": 4}, "seeds: expected whole numbers, got 4"),
    ],
)
def test_a_value_of_another_kind_is_refused(changes, message):
    with pytest.raises(HarnessError, match=message):
        Experiment(**{**PLAIN, **changes})
