"""Each verb in the shell and in Python: help, version, the wrong kind of file, JSON, and the same results in both."""

import json
import math
import pickle

import pandas
import pytest
from commands import ROOT, harness, python, within

import harness as package
from harness.errors import HarnessError
from harness.experiment import Results, run_experiment
from harness.results.files import SCHEMA_VERSION, with_schema_version

EXPERIMENT = """
name: tiny
case: own_case.py
factors: {bias_init: [default, zero]}
seeds: 2
train: {epochs: 1, batch_size: 16}
"""
OWN = """
import torch
from torch import nn
import harness

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch):
    return {"reconstruction": ((model(batch) - batch) ** 2).mean()}

case = harness.Case(build, data, losses, "2")
"""
VERBS = ("run", "diagnose", "audit", "prescribe", "plan", "effects", "report", "ui", "sync", "merge")


@pytest.fixture(scope="module")
def study(tmp_path_factory, stored):
    """Two variants with two seeds, run once in this process."""
    folder = stored(tmp_path_factory.mktemp("study"))
    (folder / "own_case.py").write_text(OWN)
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    return folder, Results(run_experiment(folder / "tiny.yaml", workers=0, root=folder))


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_two_examples(verb, tmp_path):
    lines = within(verb, "--help", folder=tmp_path).stdout.splitlines()
    assert sum(line.strip().startswith(f"harness {verb}") for line in lines) == 2


def test_the_version_is_printed_by_the_program_and_by_the_module(tmp_path):
    assert harness("--version", folder=tmp_path).stdout == f"harness {package.__version__}\n"
    code = "import runpy, sys; sys.argv = ['harness', '--version']; runpy.run_module('harness', run_name='__main__')"
    assert python(code, folder=tmp_path).stdout == f"harness {package.__version__}\n"


def test_shells_are_offered_completion(tmp_path):
    assert "--install-completion" in within("--help", folder=tmp_path).stdout
    code = "import sys; sys.argv[0] = 'harness'; from harness.cli import main; main()"
    words = {"_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": "harness ef", "COMP_CWORD": "1"}
    assert python(code, folder=tmp_path, **words).stdout.split() == ["effects"]


@pytest.mark.parametrize("verb", ["run", "plan", "effects", "report", "sync"])
def test_a_case_where_an_experiment_is_expected_names_the_commands_that_take_it(verb, study):
    done = within(verb, "own_case.py", folder=study[0])
    assert done.returncode == 2
    assert "own_case.py: expected an experiment (.yaml), got a Python file; `harness audit` and" in done.stderr


def test_an_experiment_where_a_case_is_expected_names_the_commands_that_take_it(study):
    done = within("audit", "tiny.yaml", folder=study[0])
    assert done.returncode == 2
    assert "tiny.yaml: expected a case (a shipped name or a .py file), got an experiment" in done.stderr
    assert "`harness run` take it" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "tiny.yaml", "--workers", "0"),
        ("plan", "tiny.yaml"),
        ("effects", "tiny"),
        ("report", "tiny"),
        ("audit", "own_case.py", "--no-during", "--seeds", "1"),
    ],
)
def test_every_json_document_is_strict_and_has_its_schema_version(arguments, study):
    def refuse(constant):
        raise AssertionError(constant)

    done = within(*arguments, "--json", folder=study[0])
    assert json.loads(done.stdout, parse_constant=refuse)["schema_version"] == SCHEMA_VERSION


def test_files_of_a_report_have_their_schema_version(study):
    _, results = study
    for name in ("report.json", "manifest.json"):
        assert json.loads(results.report.with_name(name).read_text())["schema_version"] == SCHEMA_VERSION


def test_a_document_with_a_schema_version_of_its_own_keeps_it():
    assert with_schema_version({"schema_version": 7}) == {"schema_version": 7}


def test_the_document_of_a_run_has_its_keys(study):
    document = json.loads(within("run", "tiny.yaml", "--workers", "0", "--json", folder=study[0]).stdout)
    keys = "experiment members done trained failed logged notes steps_per_epoch seconds report schema_version"
    assert set(keys.split()) <= document.keys()


def test_results_read_as_the_table_of_their_members(study):
    _, results = study
    assert list(results) == list(results.members)
    assert len(results) == len(results.members) == 4
    pandas.testing.assert_series_equal(results["seed"], results.members["seed"])
    assert results.groupby("bias_init").size().to_dict() == {"default": 2, "zero": 2}
    assert results[results.seed == 1].bias_init.tolist() == ["default", "zero"]
    with pytest.raises(AttributeError):
        _ = results.no_such_column


def test_results_have_effects_cells_and_the_report(study):
    folder, results = study
    assert results.report == folder / "mlruns" / "reports" / "tiny" / "report.html"
    assert results.cells.variant.tolist() == ["bias=default", "bias=zero"]
    collapsed = results.members.groupby("variant", sort=False).collapsed.sum().tolist()
    assert results.cells.collapsed.tolist() == collapsed
    (effect,) = results.effects[results.effects.outcome == "collapsed"].to_dict("records")
    assert (effect["factor"], effect["level"], effect["baseline"]) == ("bias_init", "zero", "default")
    assert effect["estimate"] == pytest.approx((collapsed[1] - collapsed[0]) / 2)


def test_results_are_short_in_a_console_and_a_table_in_a_notebook(study):
    _, results = study
    assert repr(results).startswith("<Results of 'tiny': 4 members, 2 variants, ")
    html = results._repr_html_()
    assert "<table" in html
    assert results.report.as_uri() in html


def test_results_survive_pickling(study):
    _, results = study
    pandas.testing.assert_frame_equal(pickle.loads(pickle.dumps(results)).members, results.members)


def test_the_answer_is_that_of_the_report_where_it_is_a_document(study, tmp_path):
    _, results = study
    copy = Results(results.summary)
    copy.__dict__["summary"] = type("Summary", (), {"report": tmp_path / "report.html"})()
    assert copy.answer is None
    (tmp_path / "report.json").write_text('{"answer": ["a sentence"]}')
    assert copy.answer is None
    (tmp_path / "report.json").write_text('{"answer": {"headline": "none helps", "remedies": []}}')
    assert copy.answer == {"headline": "none helps", "remedies": []}


def test_stored_results_are_read_by_name_file_or_experiment(study, monkeypatch):
    folder, results = study
    monkeypatch.chdir(folder)
    by_name = package.effects("tiny")
    for source in ("tiny.yaml", folder / "tiny.yaml", results.summary.experiment):
        assert package.effects(source).to_dict() == by_name.to_dict()
    assert package.report("tiny") == results.report
    assert package.report("tiny", "tiny").is_file()
    assert package.compare("tiny", "tiny").paired
    assert [effect.estimate for effect in package.compare("tiny", "tiny").overall if effect.outcome == "collapsed"] == [
        0
    ]
    assert package.plan("tiny.yaml").members == 4


@pytest.mark.parametrize("verb", ["effects", "report"])
def test_results_that_are_not_there_are_said_with_those_that_are(verb, study, monkeypatch):
    monkeypatch.chdir(study[0])
    with pytest.raises(HarnessError, match=r"no results of 'tinny'.*There are: tiny"):
        getattr(package, verb)("tinny")
    with pytest.raises(HarnessError, match=r"own_case.py: expected an experiment \(.yaml\), got a Python file"):
        getattr(package, verb)("own_case.py")


def test_the_package_loads_without_torch_pandas_and_mlflow():
    code = (
        "import sys, harness; harness.run, harness.plan, harness.compare, harness.sync, harness.effects, harness.report\n"
        "print([m for m in ('mlflow', 'pandas', 'seaborn') if m in sys.modules])"
    )
    assert python(code, folder=ROOT).stdout.strip() == "[]"


def test_members_say_whether_they_failed_and_collapsed():
    from harness.results import MemberRecord
    from harness.results.frames import members_frame

    records = [
        MemberRecord("a", "v", {}, 0, verdict="healthy"),
        MemberRecord("b", "v", {}, 1, verdict="full_collapse"),
        MemberRecord("c", "v", {}, 2, verdict="healthy", flags=["mean_output"]),
        MemberRecord("d", "v", {}, 3, status="diverged", verdict="invalid"),
        MemberRecord("e", "v", {}, 4, status="failed"),
    ]
    frame = members_frame(records)
    assert frame.failed.astype(object).tolist()[:4] == [False, True, True, True]
    assert frame.collapsed.astype(object).tolist()[:3] == [False, True, False]
    assert frame.failed.isna().tolist() == [False] * 4 + [True]
    assert frame.collapsed.isna().tolist() == [False] * 3 + [True] * 2
    assert math.isclose(frame.failed.mean(), 3 / 4)
    assert list(frame.columns)[:9] == [
        *("seed", "status", "verdict", "failed", "collapsed", "flags", "live_units", "units", "r2"),
    ]  # fmt: skip
