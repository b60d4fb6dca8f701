"""The design of one remedy at a time: what is run, what is the baseline, and what is refused with which sentence."""

import pytest

from harness.errors import HarnessError
from harness.grid import Experiment, load_experiment
from harness.grid.factorial import changes

REST = {"name": "e", "case": "forum", "seeds": "2"}


@pytest.fixture
def load(tmp_path):
    def loaded(**keys: str) -> Experiment:
        path = tmp_path / "e.yaml"
        path.write_text("\n".join(f"{key}: {value}" for key, value in {**REST, **keys}.items()))
        return load_experiment(path)

    return loaded


def cells(experiment: Experiment) -> list[dict]:
    return [changes(variant.levels, experiment.baseline) for variant in experiment.variants()]


def test_each_remedy_is_a_variant_and_the_baseline_comes_by_itself(load):
    experiment = load(remedies="[{batchnorm: on}, {activation: elu, dropout: 0.2}]")
    assert cells(experiment) == [{}, {"batchnorm": "on"}, {"activation": "elu", "dropout": 0.2}]
    assert experiment.baseline == {"batchnorm": "off", "activation": "relu", "dropout": 0.0}
    assert len(experiment.members()) == 3 * 2


def test_a_list_of_levels_is_one_remedy_for_each(load):
    assert cells(load(remedies="[{beta: [0.1, 1.0]}]"))[1:] == [{"beta": 0.1}, {"beta": 1.0}]


def test_the_baseline_of_a_number_is_what_the_case_and_the_training_numbers_say(load):
    # cases/forum.py has beta 0.001
    experiment = load(
        remedies="[{beta: 0.1}, {learning_rate: 0.1}, {batch_size: 32}]", train="{learning_rate: 0.002, batch_size: 16}"
    )
    assert experiment.baseline == {"beta": 0.001, "learning_rate": 0.002, "batch_size": 16}


def test_a_declared_baseline_wins_and_may_name_factors_that_no_remedy_changes(load):
    experiment = load(remedies="[{activation: elu}]", baseline="{activation: tanh, dropout: 0.1}")
    assert [variant.levels for variant in experiment.variants()] == [
        {"activation": "tanh", "dropout": 0.1},
        {"activation": "elu", "dropout": 0.1},
    ]


def test_remedies_are_the_factorial_of_the_baseline_with_included_cells(load):
    remedies = load(remedies="[{batchnorm: on}, {activation: elu}]")
    factorial = load(factors="{batchnorm: [off], activation: [relu]}", include="[{batchnorm: on}, {activation: elu}]")
    assert remedies.variants() == factorial.variants()
    assert remedies.resolved() == {**factorial.resolved(), "remedies": [{"batchnorm": "on"}, {"activation": "elu"}]}
    assert Experiment(**remedies.resolved()).variants() == remedies.variants()


def test_comparisons_of_remedies_may_be_declared(load):
    experiment = load(remedies="[{penalty: l1}, {penalty: none}]", contrasts="[[{penalty: l1}, {penalty: none}]]")
    assert experiment.contrasts == (({"penalty": "l1"}, {"penalty": "none"}),)


REFUSED = {
    "neither": ({}, "remedies: expected either this key or `factors`, got neither"),
    "both": (
        {"remedies": "[{batchnorm: on}]", "factors": "{batchnorm: [off, on]}"},
        "factors: expected either `remedies` .* or `factors` .*, got both",
    ),
    "misspelled key": (
        {"remedys": "[{batchnorm: on}]"},
        "remedys: no key is called 'remedys'; did you mean 'remedies'",
    ),
    "exclude beside": ({"remedies": "[{batchnorm: on}]", "exclude": "[{batchnorm: on}]"}, "exclude: .*`factors` only"),
    "include beside": ({"remedies": "[{batchnorm: on}]", "include": "[{batchnorm: on}]"}, "include: .*`factors` only"),
    "zip beside": ({"remedies": "[{batchnorm: on}]", "zip": "[{batchnorm: on}]"}, "zip: .*`factors` only"),
    "mapping": ({"remedies": "{batchnorm: [off, on]}"}, "remedies: expected a list, got "),
    "no remedy": ({"remedies": "[]"}, "remedies: expected at least one remedy"),
    "word": ({"remedies": "[batchnorm]"}, r"remedies\[0\]: expected a mapping, got 'batchnorm'"),
    "no change": ({"remedies": "[{}]"}, r"remedies\[0\]: expected a factor with its level"),
    "no level": ({"remedies": "[{dropout: []}]"}, r"remedies\[0\].dropout: expected at least one level"),
    "unknown factor": (
        {"remedies": "[{batchnorm: on}, {activaton: elu}]"},
        r"remedies\[1\].activaton: no factor is called 'activaton'; did you mean 'activation'",
    ),
    "unknown level": (
        {"remedies": "[{activation: leaky-relu}]"},
        r"remedies\[0\].activation: no activation is called 'leaky-relu'; did you mean 'leaky_relu'",
    ),
    "number outside": ({"remedies": "[{dropout: 1.5}]"}, r"remedies\[0\].dropout: .* 1.5"),
    "the baseline": (
        {"remedies": "[{activation: relu}]"},
        r"remedies\[0\].activation: expected a change, got relu, which is the baseline's level",
    ),
    "one change of two": (
        {"remedies": "[{activation: elu, batchnorm: off}]"},
        r"remedies\[0\].batchnorm: expected a ch",
    ),
    "twice": (
        {"remedies": "[{batchnorm: on}, {batchnorm: on}]"},
        r"remedies\[1\]: the remedy batchnorm: on is listed tw",
    ),
    "no default": ({"remedies": "[{units: 8}]"}, "baseline: expected the level of units in the case as it is"),
    "wrong baseline": (
        {"remedies": "[{activation: elu}]", "baseline": "{activation: rel}"},
        "baseline.activation: no activation is called 'rel'; did you mean 'relu'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_design_is_one_sentence_with_file_and_key(load, tmp_path, name):
    keys, sentence = REFUSED[name]
    with pytest.raises(HarnessError, match=sentence) as caught:
        load(**keys)
    assert str(caught.value).startswith(f"{tmp_path / 'e.yaml'}: ")
    assert "\n" not in str(caught.value)


def test_a_width_is_a_remedy_where_the_baseline_declares_it(load):
    assert cells(load(remedies="[{units: 8}]", baseline="{units: 4}")) == [{}, {"units": 8}]
