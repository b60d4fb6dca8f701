"""From the words of a file to variants: what is crossed, what is refused, and with which sentence."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import LONGEST, processor_seconds

from harness.case import TRAIN_DEFAULTS
from harness.errors import HarnessError
from harness.factors import TRAINING
from harness.grid import Experiment, load_experiment
from harness.grid.yaml_reader import parse

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
BASE = {
    "name": "e",
    "case": "forum",
    "factors": "{activation: [relu, leaky_relu], batchnorm: [off, on]}",
    "seeds": "2",
}


@pytest.fixture
def load(tmp_path):
    def loaded(**keys: str) -> Experiment:
        return load_text("\n".join(f"{key}: {value}" for key, value in {**BASE, **keys}.items()))

    def load_text(text: str) -> Experiment:
        (tmp_path / "e.yaml").write_text(text, encoding="utf-8")
        return load_experiment(tmp_path / "e.yaml")

    loaded.text = load_text
    return loaded


def cells(experiment: Experiment) -> list[tuple]:
    return [tuple(variant.levels.values()) for variant in experiment.variants()]


def test_the_full_factorial_crosses_every_level_with_every_other(load):
    experiment = load()
    assert cells(experiment) == list(itertools.product(["relu", "leaky_relu"], ["off", "on"]))
    assert [(member.variant.name, member.seed) for member in experiment.members()][:3] == [
        ("relu", 0),
        ("relu", 1),
        ("relu bn=on", 0),
    ]


def test_exclude_removes_the_cells_that_match_and_lists_mean_any_of(load):
    assert cells(load(exclude="[{activation: relu, batchnorm: on}]")) == [
        ("relu", "off"), ("leaky_relu", "off"), ("leaky_relu", "on"),
    ]  # fmt: skip
    assert cells(load(exclude="[{activation: [leaky_relu], batchnorm: [off, on]}]")) == [
        ("relu", "off"),
        ("relu", "on"),
    ]


def test_include_adds_cells_completed_with_the_baseline_and_never_doubles(load):
    experiment = load(include="[{activation: elu}, {activation: relu}]", baseline="{batchnorm: on}")
    assert cells(experiment)[4:] == [("elu", "on")]
    assert experiment.levels("activation") == ("relu", "leaky_relu", "elu")


def test_zipped_factors_move_together(load):
    experiment = load(zip="[{activation: relu, learning_rate: 0.001}, {activation: leaky_relu, learning_rate: 0.01}]")
    assert cells(experiment) == [
        ("relu", "off", 0.001), ("relu", "on", 0.001), ("leaky_relu", "off", 0.01), ("leaky_relu", "on", 0.01),
    ]  # fmt: skip
    lists = load(zip="[{batch_size: [32, 64], learning_rate: [0.001, 0.01]}]")
    assert {(v.levels["batch_size"], v.levels["learning_rate"]) for v in lists.variants()} == {(32, 0.001), (64, 0.01)}


def test_the_baseline_is_completed_with_first_levels(load):
    assert load(baseline="{batchnorm: on}").baseline == {"batchnorm": "on", "activation": "relu"}


def test_zero_is_the_same_level_however_it_is_written(load):
    experiment = load(factors="{dropout: [0, 0.2]}", baseline="{dropout: 0.0}", exclude="[{dropout: 2e-1}]")
    assert [type(variant.levels["dropout"]) for variant in experiment.variants()] == [float]


def test_seeds_are_a_number_or_a_list(load):
    assert load(seeds="3").seeds == (0, 1, 2)
    assert load(seeds="[7, 3]").seeds == (7, 3)


def test_numbers_of_the_case_are_factors(load):
    assert [v.name for v in load(factors="{rho: [1e-1, 0.05], beta: [1e-3, matched]}").variants()] == [
        "rho=0.1", "beta=matched", "rho=0.05", "rho=0.05 beta=matched",
    ]  # fmt: skip


def test_paths_start_at_the_experiment_file(load, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import harness\ncase = harness.Case(model=m, data=d, losses=l, bottleneck='b')\n"
    )
    (tmp_path / "rows.npz").write_bytes(b"")
    experiment = load(case="mine.py", data="rows.npz:codes")
    assert experiment.case_reference == str(tmp_path / "mine.py")
    assert experiment.data_reference == str(tmp_path / "rows.npz") + ":codes"
    assert (load().case_reference, load(data="digits").data_reference) == ("forum", "digits")


REFUSED = {
    "unknown key": ({"seedz": "3"}, "seedz: no key is called 'seedz'; did you mean 'seeds'"),
    "unknown case": ({"case": "form"}, "case: no case is called 'form'; did you mean 'forum'"),
    "no such case file": ({"case": "mine.py"}, "case: no file 'mine.py'"),
    "unknown factor": ({"factors": "{activaton: [relu]}"}, r"factors.activaton: no factor is called 'activaton'; did you mean 'activation'"),
    "unknown level": ({"factors": "{activation: [relu, leaky-relu]}"}, r"factors.activation\[1\]: no activation is called 'leaky-relu'; did you mean 'leaky_relu'"),
    "boolean for a word": ({"factors": "{batchnorm: [true]}"}, r"factors.batchnorm\[0\]: .*off, on.*True"),
    "negative rate": ({"factors": "{learning_rate: [-1e-3]}"}, r"factors.learning_rate\[0\]: .*above 0.* -0.001"),
    "NaN": ({"factors": "{rho: [.nan]}"}, r"factors.rho\[0\]: .*nan"),
    "empty factors": ({"factors": "{}"}, "factors: expected at least one factor"),
    "factors as list": ({"factors": "[a]"}, "factors: expected a mapping, got"),
    "empty levels": ({"factors": "{activation: []}"}, "factors.activation: expected at least one level"),
    "level without list": ({"factors": "{activation: relu}"}, r"factors.activation: expected a list of levels, got 'relu'; write \[relu\]"),
    "level twice": ({"factors": "{activation: [relu, relu]}"}, "factors.activation: the level 'relu' is listed twice"),
    "zero seeds": ({"seeds": "0"}, "seeds: expected at least 1 seed, got 0"),
    "negative seeds": ({"seeds": "-3"}, "seeds: expected at least 1 seed"),
    "seeds in words": ({"seeds": "ten"}, "seeds: expected a number of seeds or a list of seeds, got 'ten'"),
    "half a seed": ({"seeds": "2.5"}, "seeds: expected a number of seeds"),
    "true seeds": ({"seeds": "true"}, "seeds: expected a number of seeds"),
    "no seed in the list": ({"seeds": "[]"}, "seeds: expected at least 1 seed, got an empty list"),
    "seed twice": ({"seeds": "[1, 1]"}, r"seeds\[1\]: the seed 1 is listed twice"),
    "negative seed": ({"seeds": "[-1]"}, r"seeds\[0\]: expected a whole number from 0, got -1"),
    "astronomical seeds": ({"seeds": "9" * 300}, "seeds: expected at most 1,000,000 members, got a number of more than 30 digits"),
    "many seeds": ({"seeds": "600000"}, "4 cells x 600,000 seeds, at most 1,000,000 members are run"),
    "number as name": ({"name": "3"}, "name: expected a string, got 3; quote it"),
    "no name": ({"name": ""}, "name: expected a string, got nothing"),
    "long name": ({"name": "n" * 300}, "name: expected at most 200 characters, got 300"),
    "unknown data": ({"data": "patchs"}, "data: no data set is called 'patchs'; did you mean 'patches'"),
    "no such data file": ({"data": "rows.npy"}, "data: no file 'rows.npy'"),
    "unknown training number": ({"train": "{epocs: 3}"}, "train: no training number is called 'epocs'; did you mean 'epochs'"),
    "negative training rate": ({"train": "{learning_rate: -1}"}, "train.learning_rate: .*above 0.* -1"),
    "no epochs": ({"train": "{epochs: 0}"}, "train.epochs: .*from 1.* 0"),
    "snapshots never": ({"train": "{snapshot_every: 0}"}, "train.snapshot_every: .*a number of epochs above 0"),
    "half a snapshot": ({"train": "{snapshot_every: 0.5}"}, "train.snapshot_every: .*a whole number.* 0.5"),
    "a snapshot and a half": ({"train": "{snapshot_every: 1.5}"}, "train.snapshot_every: .*a whole number.* 1.5"),
    "unknown device": ({"train": "{device: gpu}"}, "train.device: .*auto, cpu, cuda, cuda:0 or mps.* 'gpu'"),
    "train as list": ({"train": "[1]"}, "train: expected a mapping"),
    "baseline outside": ({"baseline": "{activation: elu}"}, "baseline.activation: 'elu' is not among the levels of this experiment: relu, leaky_relu"),
    "baseline of another factor": ({"baseline": "{dropout: 0}"}, "baseline: no factor of this experiment is called 'dropout'"),
    "baseline of two levels": ({"baseline": "{activation: [relu]}"}, "baseline.activation: expected one level, "),
    "interaction of one": ({"interactions": "[[activation]]"}, r"interactions\[0\]: expected a pair"),
    "interaction with itself": ({"interactions": "[[activation, activation]]"}, r"interactions\[0\]: expected two different factors"),
    "interaction with a stranger": ({"interactions": "[[activation, dropout]]"}, r"interactions\[0\]: no factor of this experiment is called 'dropout'"),
    "interaction of numbers": ({"interactions": "[[1, 2]]"}, r"interactions\[0\]\[0\]: expected a string"),
    "interaction with one level": ({"factors": "{activation: [relu, elu], dropout: [0]}", "interactions": "[[activation, dropout]]"}, r"interactions\[0\]: dropout has one level"),
    "contrast of different factors": ({"contrasts": "[[{activation: relu}, {batchnorm: on}]]"}, r"contrasts\[0\]: expected two cells with the same factors"),
    "contrast with itself": ({"contrasts": "[[{activation: relu}, {activation: relu}]]"}, r"contrasts\[0\]: expected two different cells"),
    "contrast of two levels": ({"contrasts": "[[{activation: [relu]}, {activation: leaky_relu}]]"}, r"contrasts\[0\].activation: expected one level, got a list of 1"),
    "contrast of nothing": ({"contrasts": "[[{}, {}]]"}, r"contrasts\[0\]\[0\]: expected a factor with its level"),
    "exclude all": ({"exclude": "[{activation: [relu, leaky_relu]}]"}, "exclude: expected at least one remaining cell"),
    "exclude as mapping": ({"exclude": "{activation: relu}"}, "exclude: expected a list"),
    "exclude a stranger": ({"exclude": "[{activation: elu}]"}, r"exclude\[0\].activation: 'elu' is not among the levels"),
    "exclude no level": ({"exclude": "[{activation: []}]"}, r"exclude\[0\].activation: expected at least one level"),
    "include a stranger": ({"include": "[{activation: elo}]"}, r"include\[0\].activation: no activation is called 'elo'"),
    "zip of unequal lists": ({"zip": "[{batch_size: [1, 2], learning_rate: [1, 2, 3]}]"}, r"zip\[0\]: expected lists of equal length, got lengths \[2, 3\]"),
    "zip that overlaps": ({"zip": "[{activation: relu, batchnorm: on}, {activation: relu, dropout: 0}]"}, r"zip\[1\]: activation is zipped with activation and batchnorm already"),
    "zip of nothing": ({"zip": "[{batch_size: []}]"}, r"zip\[0\].batch_size: expected at least one level"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_clumsy_file_is_answered_with_file_and_key_in_under_a_second_of_the_processor(load, tmp_path, name):
    keys, sentence = REFUSED[name]
    before = sorted(tmp_path.iterdir())

    def refused():
        with pytest.raises(HarnessError, match=sentence) as caught:
            load(**keys)
        assert str(caught.value).startswith(str(tmp_path / "e.yaml"))
        assert "\n" not in str(caught.value)

    assert processor_seconds(refused, 1.0) < 1.0  # a few milliseconds, and 20 for six hundred thousand seeds
    assert sorted(tmp_path.iterdir()) == [*before, tmp_path / "e.yaml"]


@pytest.mark.parametrize("missing", ["name", "case", "seeds"])
def test_a_required_key_is_missed_by_name(load, missing):
    text = "\n".join(f"{key}: {value}" for key, value in BASE.items() if key != missing)
    with pytest.raises(HarnessError, match=f"{missing}: expected this key, which is required; it is missing"):
        load.text(text)


def test_a_list_or_a_word_is_no_experiment(load):
    with pytest.raises(
        HarnessError, match=r"expected a mapping \(name, case, factors or remedies, seeds\), got 'hello'"
    ):
        load.text("hello")


def test_a_syntax_error_is_told_with_file_and_line(load):
    with pytest.raises(HarnessError, match=r"e.yaml, line 4: expected spaces for indentation, got a tab"):
        load.text("name: e\ncase: forum\nfactors:\n\tactivation: [relu]\nseeds: 2\n")


def test_control_and_direction_marks_are_written_out_in_complaints(load):
    with pytest.raises(HarnessError, match=r"a\\u202eb\\n") as caught:
        load.text('name: e\n"a\\u202eb\\n": 1\n')
    assert str(caught.value).isprintable()


def test_ten_to_the_tenth_cells_are_counted_and_not_made(load):
    hundred = ", ".join(str(number / 200) for number in range(1, 101))
    names = ("rho", "beta", "dropout", "learning_rate")
    factors = (
        "{"
        + ", ".join(f"{name}: [{hundred}]" for name in names)
        + ", batch_size: ["
        + ", ".join(map(str, range(1, 101)))
        + "]}"
    )

    def refused():
        with pytest.raises(HarnessError, match="10,000,000,000 cells x 2 seeds, at most 1,000,000 members"):
            load(factors=factors)
        with pytest.raises(HarnessError, match="10,000,000,000 cells"):
            load(factors=factors, exclude="[{rho: 0.005}]")

    assert processor_seconds(refused, 1.0) < 1.0  # 0.02 s; making a millionth of the cells takes as long


def test_what_is_excluded_does_not_count_as_members(load):
    levels = [str(number / 100) for number in range(1, 40)]
    many = ", ".join(levels)
    keys = {"factors": f"{{rho: [{many}], dropout: [{many}]}}", "seeds": "1000"}
    with pytest.raises(HarnessError, match="1,521 cells x 1,000 seeds"):
        load(**keys)
    with pytest.raises(HarnessError, match="1,482 cells x 1,000 seeds"):
        load(**keys, exclude="[{rho: 0.01}]")
    assert len(load(**keys, exclude=f"[{{rho: [{', '.join(levels[2:])}]}}]").variants()) == 2 * 39


def test_every_training_number_of_a_case_may_be_set(load):
    assert set(TRAINING) == set(TRAIN_DEFAULTS)


def test_names_of_variants_are_unique_short_and_plain():
    for path in EXPERIMENTS.glob("*.yaml"):
        names = [variant.name for variant in load_experiment(path).variants()]
        assert len(set(names)) == len(names)
        assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-. /:=") for name in names)


factor_levels = st.fixed_dictionaries(
    {"rho": st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True)},
    optional={
        "activation": st.lists(st.sampled_from(["relu", "elu", "tanh"]), min_size=1, unique=True),
        "batchnorm": st.permutations(["off", "on"]),
        "dropout": st.lists(st.sampled_from([0.0, 0.1, 0.25]), min_size=1, unique=True),
        "units": st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    },
)


@settings(max_examples=100)
@given(factors=factor_levels, data=st.data())
def test_no_two_variants_share_a_name(factors, data):
    baseline = {name: data.draw(st.sampled_from(levels)) for name, levels in factors.items()}
    experiment = Experiment(name="e", case="forum", factors=factors, seeds=(0,), baseline=baseline)
    names = [variant.name for variant in experiment.variants()]
    assert len(set(names)) == len(names) == experiment.crossed()


words = st.sampled_from(
    ["relu", "off", "on", "name", "activation", "~", "1", "-1", "1e9", "{}", "[]", "'", "x", "true", "[relu]", "{a: 1}"]
)


@settings(max_examples=250)
@given(keys=st.dictionaries(st.sampled_from([*BASE, "baseline", "train", "zip", "include", "exclude", "data", "contrasts", "interactions", "x"]),
                            st.one_of(words, st.lists(words, max_size=3).map(lambda each: f"[{', '.join(each)}]"),
                                      st.dictionaries(words, words, max_size=3).map(lambda each: "{" + ", ".join(f"{k}: {v}" for k, v in each.items()) + "}"))))  # fmt: skip
def test_any_wrong_value_is_an_experiment_or_a_sentence(load, keys):
    try:
        load(**keys)
    except HarnessError as error:
        assert "e.yaml" in str(error) and str(error).isprintable()  # noqa: PT017, PT018


def test_an_experiment_is_loaded_without_torch():
    code = (
        "import sys; from harness.grid import load_experiment, stacks; e = load_experiment(sys.argv[1]);"
        "stacks(e); sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(EXPERIMENTS / "forum.yaml")], check=False, timeout=LONGEST)
    assert done.returncode == 0


def test_the_forum_grid_holds_every_level_of_the_question_on_the_source_case_s_own_data():
    experiment = load_experiment(EXPERIMENTS / "forum.yaml")
    assert (len(experiment.variants()), len(experiment.seeds)) == (212, 8)
    assert (experiment.data, experiment.train["learning_rate"]) == ("patches", 0.01)
    assert {name: set(levels) for name, levels in experiment.factors.items()} == {
        "penalty": {"none", "none_sigmoid_bottleneck", "as_posted", "kl_sigmoid_of_relu", "kl_sigmoid_of_preactivation", "kl_sigmoid_bottleneck", "hard_count"},
        "bias_init": {"default", "zero"}, "activation": {"relu", "leaky_relu"}, "batchnorm": {"off", "on"},
        "dropout": {0.0, 0.2}, "output_activation": {"relu", "linear"}, "beta": {0.001, "matched"},
    }  # fmt: skip
    assert ({"penalty": "kl_sigmoid_bottleneck"}, {"penalty": "none_sigmoid_bottleneck"}) in experiment.contrasts


def test_the_quickstart_has_eleven_variants_and_thirty_two_seeds():
    experiment = load_experiment(EXPERIMENTS / "quickstart.yaml")
    assert (len(experiment.variants()), len(experiment.seeds)) == (11, 32)


def test_the_resolved_experiment_is_plain_and_reads_back(load, tmp_path):
    import json

    experiment = load(exclude="[{activation: relu, batchnorm: on}]", train="{epochs: 3}")
    again = Experiment(**json.loads(json.dumps(experiment.resolved())))
    assert cells(again) == cells(experiment)
    assert parse(json.dumps(experiment.resolved()), "e.yaml")["train"] == {"epochs": 3}
