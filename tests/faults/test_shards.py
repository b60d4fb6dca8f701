"""A job array in one fresh folder: nothing of another process is touched, and what is left is one whole experiment.

Injected: shards that start together, again with `--fresh`, beside a plain run, and in a wrong case. Counted: exit codes,
members on disk, in the report and in the store, parent runs, files that are left.
"""

import csv
import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from fault_injection import command, prepared, rows_of, told

from harness.errors import HarnessError
from harness.experiment import run_experiment, sync
from harness.experiment.locks import publishing, running
from harness.results import read_manifest, read_records, stored_keys, write_manifest
from harness.results.temporary import host

pytestmark = pytest.mark.many

EXPERIMENT = """
name: disturbed
case: own.py
factors: {activation: [relu, leaky_relu], bias_init: [default, zero], batchnorm: [off, on]}
seeds: 2
train: {epochs: 1, batch_size: 16}
"""
MEMBERS = 16


def shards(folder, count, *arguments):
    """So many shards, started together; the document of each that ended with exit code 0, and what the others said."""
    together = [command(folder, "--shard", f"{part}/{count}", *arguments) for part in range(1, count + 1)]
    answers = [told(process) for process in together]
    failures = [error for process, (_, error) in zip(together, answers, strict=True) if process.returncode != 0]
    return [json.loads(out) for out, _ in answers if out], failures


def assert_whole(folder, documents):
    """One report, one parent run, every member once: on disk, in the report and in the store."""
    results = folder / "mlruns" / "results" / "disturbed"
    reports = [document for document in documents if document["report"] is not None]
    assert reports
    assert all((each["done"], each["logged"], each["missing"]) == (MEMBERS, MEMBERS, []) for each in reports)
    keys = [key for stored in stored_keys(results).values() for key in stored]
    assert len(keys) == len(set(keys)) == MEMBERS
    with (folder / "mlruns" / "reports" / "disturbed" / "members.csv").open() as file:
        assert sorted(row["key"] for row in csv.DictReader(file)) == sorted(keys)
    store = folder / "mlruns" / "mlflow.db"
    runs = "SELECT value, status FROM tags JOIN runs USING (run_uuid) WHERE key = 'harness.key'"
    expected = [*((key, "FINISHED") for key in keys), ("parent:disturbed", "FINISHED")]
    variants = {record.variant for record in read_records(results)[0]}
    expected += [(f"summary:disturbed:{variant}", "FINISHED") for variant in variants]
    assert sorted(rows_of(store, runs)) == sorted(expected)
    assert rows_of(store, "SELECT count(DISTINCT value) FROM tags WHERE key = 'mlflow.parentRunId'") == [(1,)]
    assert rows_of(store, "SELECT count(DISTINCT value) FROM tags WHERE key = 'harness.origin'") == [(1,)]
    assert not list(folder.rglob(".*.new*"))


@pytest.mark.parametrize(("count", "attempt"), [(2, 1), (4, 1), pytest.param(4, 2, marks=pytest.mark.service)])
def test_shards_that_start_together_leave_one_whole_experiment(tmp_path, empty_store, count, attempt):
    folder = prepared(tmp_path, EXPERIMENT, store=empty_store if count == 2 else None)
    documents, failures = shards(folder, count)
    assert failures == []
    assert sum(document["trained"] for document in documents) == MEMBERS
    assert_whole(folder, documents)
    again = run_experiment(folder / "disturbed.yaml", workers=0, root=folder).to_dict()
    assert (again["trained"], again["done"], again["logged"], again["notes"]) == (0, MEMBERS, MEMBERS, [])


@pytest.mark.service
@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_sixteen_shards_that_start_together_leave_one_whole_experiment(tmp_path, attempt):
    folder = prepared(tmp_path, EXPERIMENT)
    documents, failures = shards(folder, 16)
    assert failures == []
    assert_whole(folder, documents)


@pytest.mark.service
def test_shards_that_start_over_together_leave_each_others_new_results(tmp_path):
    folder = prepared(tmp_path, EXPERIMENT)
    assert shards(folder, 4)[1] == []
    before = {record.key: record.logged_at for record in read_records(folder / "mlruns/results/disturbed")[0]}
    documents, failures = shards(folder, 4, "--fresh")
    assert failures == []
    assert sum(document["trained"] for document in documents) == MEMBERS
    after = {record.key: record.logged_at for record in read_records(folder / "mlruns/results/disturbed")[0]}
    assert before.keys() == after.keys()
    assert all(after[key] > before[key] for key in before)
    store = folder / "mlruns" / "mlflow.db"
    ends = (
        "SELECT value, end_time FROM tags JOIN runs USING (run_uuid) WHERE key = 'harness.key'"
        " AND lifecycle_stage = 'active' AND value NOT LIKE 'parent:%' AND value NOT LIKE 'summary:%'"
    )
    assert dict(rows_of(store, ends)) == after


@pytest.mark.service
def test_of_two_plain_runs_that_start_together_one_runs_and_the_other_says_so(tmp_path):
    folder = prepared(tmp_path, EXPERIMENT)
    together = [command(folder), command(folder)]
    answers = [told(process) for process in together]
    codes = sorted(process.returncode for process in together)
    assert codes in ([0, 0], [0, 2]), answers
    assert_whole(folder, [json.loads(out) for out, _ in answers if out])
    for process, (out, error) in zip(together, answers, strict=True):
        if process.returncode == 2:
            assert out == ""
            assert "another process is running this experiment; wait for it, or stop it" in error
            assert len(error.strip().splitlines()) == 1


def test_a_run_leaves_what_other_processes_write_and_removes_what_they_left(tmp_path, results, empty_store):
    prepared(tmp_path, store=empty_store)
    reports = tmp_path / "mlruns" / "reports" / "disturbed"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    places = (results / "a.parquet", reports / "report.html")
    writing, left = (
        [path.with_name(f".{path.name}.{host()}.{process}.0123abcd-0.new") for path in places]
        for process in (os.getppid(), ended.pid)
    )
    for path in (*writing, *left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    outcome = run_experiment(tmp_path / "disturbed.yaml", workers=0, root=tmp_path)
    assert outcome.notes == ()
    assert sorted(tmp_path.rglob(".*.new*")) == sorted(writing)
    artifacts = tmp_path / "mlruns" / "artifacts"
    assert "report.html" in {path.name for path in artifacts.rglob("*")}
    assert not list(artifacts.rglob(".*"))


@pytest.fixture
def results(tmp_path):
    return tmp_path / "mlruns" / "results" / "disturbed"


@pytest.mark.parametrize(
    ("held", "asked"),
    [((1, 1), (1, 1)), ((1, 1), (1, 2)), ((1, 2), (1, 1)), ((1, 2), (1, 2))],
    ids=["run and run", "run and shard", "shard and run", "shard and the same shard"],
)
def test_who_would_train_the_same_members_is_refused(tmp_path, results, held, asked):
    prepared(tmp_path, EXPERIMENT)
    with running(results, held), pytest.raises(HarnessError, match="another process is running this experiment"):
        run_experiment(
            tmp_path / "disturbed.yaml", workers=0, root=tmp_path, shard=asked, tracking_uri="http://127.0.0.1:9"
        )
    assert stored_keys(results) == {}


def test_shards_run_beside_each_other_and_publish_one_after_the_other(results):
    with ExitStack() as locks:
        for part in range(1, 17):
            locks.enter_context(running(results, (part, 16)))
        with publishing(results):
            pass
        with publishing(results):
            pass
    with running(results):
        pass


def test_a_store_and_report_are_not_made_again_while_the_experiment_is_run(tmp_path, results):
    prepared(tmp_path, EXPERIMENT)
    with running(results, (1, 2)), pytest.raises(HarnessError, match="another process is running this experiment"):
        sync(tmp_path / "disturbed.yaml", root=tmp_path)


def test_shards_of_a_wrong_case_are_refused_and_leave_nothing(tmp_path, results):
    prepared(tmp_path, EXPERIMENT)
    (tmp_path / "own.py").write_text((tmp_path / "own.py").read_text().replace('losses, "2"', 'losses, "9"'))
    file = tmp_path / "disturbed.yaml"
    with running(results, (2, 2)):  # still at the door, while the first is refused
        with pytest.raises(HarnessError, match="'9'"):
            run_experiment(file, workers=0, root=tmp_path, shard=(1, 2))
        assert results.is_dir()
    with pytest.raises(HarnessError, match="'9'"):
        run_experiment(file, workers=0, root=tmp_path, shard=(2, 2))
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.long
def test_a_shard_that_starts_over_removes_its_own_results_alone(tmp_path, results, empty_store):
    prepared(tmp_path, EXPERIMENT, store=empty_store)
    file = tmp_path / "disturbed.yaml"
    for part in (1, 2):
        run_experiment(file, workers=0, root=tmp_path, shard=(part, 2))
    before = {record.key: record.logged_at for record in read_records(results)[0]}
    outcome = run_experiment(file, fresh=True, workers=0, root=tmp_path, shard=(1, 2))
    after = {record.key: record.logged_at for record in read_records(results)[0]}
    assert before.keys() == after.keys()
    assert sum(after[key] > before[key] for key in before) == outcome.trained == MEMBERS // 2
    assert sum(map(len, stored_keys(results).values())) == MEMBERS
    assert (outcome.report is not None, outcome.logged) == (True, MEMBERS)


def test_a_shard_writes_the_manifest_where_it_says_something_else_and_leaves_what_others_found(tmp_path, results):
    prepared(tmp_path, EXPERIMENT)
    file = tmp_path / "disturbed.yaml"
    run_experiment(file, workers=0, root=tmp_path, shard=(1, 8))
    found = {**read_manifest(results), "audit": {"as_posted": []}, "machine": "another"}
    write_manifest(results, found)
    run_experiment(file, workers=0, root=tmp_path, shard=(2, 8))
    assert read_manifest(results) == found
    file.write_text(f"{file.read_text()}# changed\n")
    run_experiment(file, workers=0, root=tmp_path, shard=(2, 8))
    assert read_manifest(results)["text"].endswith("# changed\n")
