"""`harness effects`: from stored results to a table or a document."""

import json
from pathlib import Path

import pytest
from synthetic_effects import collapsed, planted
from typer import Typer
from typer.testing import CliRunner

from harness.cli.effects import effects
from harness.errors import HarnessError
from harness.results import write_manifest, write_stack


@pytest.fixture
def run(tmp_path, monkeypatch, grid):
    monkeypatch.chdir(tmp_path)
    folder = Path("mlruns/results/planted")
    write_stack(
        folder,
        [
            record.__class__(**{**record.to_dict(), "key": f"{record.variant}{record.seed}"})
            for record in planted(grid, lambda levels, seed: collapsed(levels["activation"] == "relu" and seed > 0))
        ],
    )
    write_manifest(folder, {"name": "planted", "experiment": grid.resolved()})
    app = Typer()
    app.command()(effects)
    return lambda *words: CliRunner().invoke(app, list(words))


def test_json_is_one_document_and_nothing_else(run):
    document = json.loads(run("planted", "--json").stdout)
    found = [e for e in document["effects"] if (e["factor"], e["outcome"]) == ("activation", "collapsed")]
    assert found[0]["estimate"] == -7 / 8
    assert found[0]["seeds"] == 8


def test_the_table_begins_with_the_answer(run):
    result = run("planted")
    assert result.exit_code == 0
    assert result.stdout.startswith("As posted, ")
    assert "Averaged over the other factors:" in result.stdout
    assert "How often: 42 of 96 judged members collapsed" in result.stdout
    assert "Effects on collapsed" in result.stdout
    assert "Contrasts on collapsed" in result.stdout


def test_another_outcome_can_be_asked_for(run):
    assert "Effects on live_fraction" in run("planted", "--outcome", "live_fraction").stdout


def test_an_experiment_that_was_not_run_is_refused_with_those_that_were(run):
    result = run("plantet")
    assert isinstance(result.exception, HarnessError)
    assert "no results" in str(result.exception)
    assert "There are: planted" in str(result.exception)


def test_an_unknown_outcome_is_refused_with_a_guess(run):
    assert "did you mean 'collapsed'" in str(run("planted", "--outcome", "colapsed").exception)


def test_a_file_that_was_not_run_says_how(run):
    Path("new.yaml").write_text("name: new\ncase: forum\nfactors: {dropout: [0.0, 0.2]}\nseeds: 2\n")
    assert "`harness run new.yaml` makes them" in str(run("new.yaml").exception)
