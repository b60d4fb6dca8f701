"""The shipped experiments are found by name, in any folder."""

import json

import pytest
from commands import ROOT, harness

import harness as package
from harness.grid.shipped import companions, experiment_file, shipped_experiments, shipped_file, summaries


def test_every_experiment_of_the_repository_is_shipped_with_a_sentence():
    assert shipped_experiments() == sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
    assert all(len(text) > 20 for text in summaries().values()), summaries()


def test_an_experiment_is_planned_by_name_elsewhere(tmp_path):
    done = harness("plan", "quickstart", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["members"] == 352
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_name_is_corrected(tmp_path):
    done = harness("run", "quikstart", folder=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'quickstart'" in done.stderr


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert experiment_file("quickstart") == shipped_file("quickstart")
    (tmp_path / "quickstart").write_text("name: mine\n")
    assert experiment_file("quickstart").resolve() == tmp_path / "quickstart"
    assert str(experiment_file("folder/quickstart")) == "folder/quickstart"


def test_a_copy_has_its_case_file_beside_it_and_can_be_planned(tmp_path):
    assert [path.name for path in companions(shipped_file("own_case"))] == ["own_case.yaml", "own_case.py"]
    done = harness("examples", "own_case", "--to", "mine", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert package.plan(tmp_path / "mine/own_case.yaml").members > 0
    again = harness("examples", "own_case", "--to", "mine", folder=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_all_are_listed(tmp_path):
    done = harness("examples", folder=tmp_path)
    assert [line.split()[0] for line in done.stdout.splitlines()] == shipped_experiments()


def test_a_shipped_file_that_does_not_exist_is_refused():
    with pytest.raises(package.HarnessError, match="or give a YAML file"):
        shipped_file("nothing_like_it")
