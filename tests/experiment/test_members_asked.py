"""A run never says that it is done with fewer members than were asked for: what lies on disk is compared with it."""

import json
import shutil

import pytest
import typer.testing

from harness.cli.run import run
from harness.execution import pool
from harness.experiment import run_experiment
from harness.results import read_manifest, read_records, write_stack

pytestmark = pytest.mark.many

CASE = """
import torch
from torch import nn

import harness


def build():
    return nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6))


def load():
    return torch.randn(60, 6, generator=torch.Generator().manual_seed(0))


def losses(model, batch):
    return {"reconstruction": ((model(batch) - batch) ** 2).mean()}


case = harness.Case(build, load, losses, "0")
"""
EXPERIMENT = "name: x\ncase: x.py\nfactors: {activation: [relu, leaky_relu]}\nseeds: 3\ntrain: {epochs: 1}\n"
ASKED = 6


@pytest.fixture
def file(tmp_path, empty_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    (tmp_path / "x.py").write_text(CASE)
    (tmp_path / "x.yaml").write_text(EXPERIMENT)
    return tmp_path / "x.yaml"


def losing(*lost):
    """Workers that answer without the records of some members, named by variant and seed."""
    train = pool.run_stacks

    def run_stacks(*arguments, **more):
        for records in train(*arguments, **more):
            yield [record for record in records if f"{record.variant} s{record.seed}" not in lost]

    return run_stacks


def results(file):
    return file.parent / "mlruns" / "results" / "x"


def test_members_that_no_worker_answered_for_are_named_and_trained_by_the_next_run(file, monkeypatch):
    whole = run_experiment(file, workers=0)
    assert (whole.missing, whole.notes, whole.logged) == ((), (), ASKED)
    lost = tuple(f"{record.variant} s{record.seed}" for record in (whole.records[0], whole.records[4]))
    with monkeypatch.context() as patch:
        patch.setattr(pool, "run_stacks", losing(*lost))
        outcome = run_experiment(file, workers=0, fresh=True)
    assert outcome.missing == lost
    assert outcome.notes == (f"2 of 6 members have no result: {', '.join(lost)}; `harness run` trains them",)
    document = outcome.to_dict()
    assert [document[name] for name in ("members", "done", "failed", "logged")] == [ASKED, 4, 0, 4]
    assert document["missing"] == list(lost)
    assert "logged" not in read_manifest(results(file))
    again = run_experiment(file, workers=0)
    assert (again.trained, again.missing, again.notes, len(again.records)) == (2, (), (), ASKED)


@pytest.mark.parametrize(("lost", "code"), [(("relu s0",), 3), ((), 0)])
def test_the_command_ends_with_3_where_members_are_missing(file, monkeypatch, lost, code):
    variant = run_experiment(file, workers=0).records[0].variant
    monkeypatch.setattr(pool, "run_stacks", losing(*(f"{variant} s0" for _ in lost)))
    application = typer.Typer()
    application.command()(run)
    done = typer.testing.CliRunner().invoke(application, [str(file), "--fresh", "--workers", "0"])
    assert done.exit_code == code, done.output
    assert (f"1 of 6 members have no result: {variant} s0;" in " ".join(done.stdout.split())) == bool(lost)
    done = typer.testing.CliRunner().invoke(application, [str(file), "--fresh", "--workers", "0", "--json"])
    assert done.exit_code == code
    assert len(json.loads(done.stdout)["missing"]) == len(lost)


def test_a_shard_misses_its_own_members_alone(file, monkeypatch):
    whole = run_experiment(file, workers=0).records
    shutil.rmtree(results(file))
    monkeypatch.setattr(pool, "run_stacks", losing(f"{whole[0].variant} s0"))
    first, second = (run_experiment(file, workers=0, shard=(part, 2)) for part in (1, 2))
    assert first.missing == (f"{whole[0].variant} s0",)
    assert (second.missing, second.report) == ((), None)
    assert len(read_records(results(file))[0]) == ASKED - 1


def test_a_result_that_is_gone_from_the_disk_is_written_again(file, monkeypatch):
    """The first file is removed while the rest is trained."""
    written = []

    def lose_the_first(folder, records):
        path = write_stack(folder, records)
        if not written:
            path.unlink()
        written.append(path)
        return path

    monkeypatch.setattr("harness.experiment.driver.write_stack", lose_the_first)
    outcome = run_experiment(file, workers=0)
    assert (outcome.missing, len(outcome.records), outcome.logged) == ((), ASKED, ASKED)
    assert len(read_records(results(file))[0]) == ASKED
    assert len(written) == 3


def test_many_missing_members_are_counted_and_ten_are_named():
    from harness.experiment.run_summary import without_results

    (note,) = without_results([f"relu s{seed}" for seed in range(12)], 40)
    assert note.startswith("12 of 40 members have no result: relu s0, relu s1, ")
    assert "relu s9 and 2 more; `harness run` trains them" in note
    assert without_results([], 40) == []
