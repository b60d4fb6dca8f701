"""Whatever comes in from outside, only a `HarnessError` of one line comes out, and nothing is written.

Injected, by properties: experiment files with the right keys and any values, and any arguments of `diagnose`; guided
by the lines that they reach: mutated experiment files, arrays in files and arguments. Counted: inputs, lines, errors.
"""

import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.benchmarks.fuzz import DOORS, diagnose_anything, fuzz
from harness.errors import HarnessError
from harness.grid import load_experiment
from harness.grid.loader import KEYS

QUICK = 60  # inputs through each door
LONG = {"yaml": 5_000, "readers": 20_000, "diagnose": 5_000}
NAMES = ("penalty", "activation", "batchnorm", "dropout", "rho", "beta", "epochs", "learning_rate", "bias_init", "x")
LEVELS = ("none", "as_posted", "relu", "elu", "on", "off", "zero", "default", "", "../x", "=1+1", "\u202e", "<b>")
numbers = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 10**9, 10**400, 1e-320, 1e308])
scalars = st.none() | st.booleans() | numbers | st.sampled_from(LEVELS) | st.text(max_size=8)
cells = st.dictionaries(st.sampled_from(NAMES), scalars | st.lists(scalars, max_size=3), max_size=3)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
usual = {
    "name": st.text(min_size=1, max_size=12),
    "case": st.sampled_from(["forum", "own.py", "../own.py", "nobody"]),
    "data": st.sampled_from(["digits", "a.npy", "../a.npz:x", ""]),
    "factors": st.dictionaries(st.sampled_from(NAMES), st.lists(scalars, max_size=4), max_size=4),
    "seeds": st.integers(-2, 5) | st.lists(st.integers(-1, 3), max_size=4) | numbers,
    "train": st.dictionaries(st.sampled_from(["epochs", "batch_size", "device", "snapshot_every", "x"]), scalars),
    "baseline": cells,
    "interactions": st.lists(st.lists(st.sampled_from(NAMES), max_size=3), max_size=3),
    "contrasts": st.lists(st.lists(cells, max_size=3), max_size=2),
    "keep_weights": st.sampled_from(["none", "shown", "all", "some"]),
    "splits": st.integers(-2, 5) | numbers,
    **{name: st.lists(cells, max_size=3) for name in ("remedies", "exclude", "include", "zip")},
}


def documents_with(design, *absent):
    """Experiment files of any values with this design, without the keys that it excludes."""
    required = ("name", "case", design, "seeds")
    optional = [name for name in KEYS if name not in (*required, *absent)]
    return st.fixed_dictionaries(
        {name: usual[name] for name in required}, optional={name: usual[name] | anything for name in optional}
    )


documents = (
    documents_with("factors", "remedies")
    | documents_with("remedies", "factors", "exclude", "include", "zip")
    | documents_with("factors")
)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(documents)
def test_an_experiment_file_of_any_values_is_loaded_or_refused_in_one_line(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "documents"
    folder.mkdir(exist_ok=True)
    (folder / "e.yaml").write_text(json.dumps(content))
    try:
        load_experiment(folder / "e.yaml")
    except HarnessError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert "e.yaml" in str(error)  # noqa: PT017
    assert [path.name for path in folder.iterdir()] == ["e.yaml"]


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_arguments_of_diagnose_are_judged_or_refused_in_one_line(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            diagnose_anything(lambda choices: data.draw(st.integers(0, choices - 1)))
        except HarnessError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("door", "inputs"),
    [*((door, QUICK) for door in DOORS), *(pytest.param(*each, marks=pytest.mark.evidence) for each in LONG.items())],
)
def test_nothing_that_reaches_new_lines_gets_anything_else_out(door, inputs, record_property):
    found = fuzz(door, inputs, seed=1)
    record_property("found", json.dumps(found))
    assert found["failures"] == []
    assert found["answered"] + found["refused"] == inputs
    assert found["answered"] > 0


def test_the_fuzzer_finds_its_way_to_a_planted_fault_by_the_lines_that_lead_to_it(monkeypatch):
    """An error behind three bytes in a row: blind, that takes some 2^24 inputs."""

    def planted(content, folder):
        if content[:1] == b"b":  # noqa: SIM102
            if content[1:2] == b"a":  # noqa: SIM102
                if content[2:3] == b"d":
                    raise ZeroDivisionError("found")

    monkeypatch.setattr("experiments.benchmarks.fuzz.TRACED", (__file__, "ruamel"))
    monkeypatch.setitem(DOORS, "planted", (lambda: [b"xxx"], planted))
    failures = fuzz("planted", 30_000, seed=0)["failures"]
    assert "ZeroDivisionError: found" in failures[0]["error"]
