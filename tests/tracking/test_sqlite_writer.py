"""What is written in bulk is what MLflow's client writes, row by row, or is not written in bulk."""

import math
import sqlite3
import threading

import pytest
from stored_members import record, rows

from harness.errors import HarnessError
from harness.results.origin import origin_of
from harness.tracking import Tracker, run_context, store_uri
from harness.tracking.sqlite_writer import COLUMNS, takes_bulk

DIVERGED = {"history": {"step": [0.0, 5.0], "loss/total": [1.0, math.inf], "r2": [0.1, math.nan]}}
MEMBERS = [
    record(0),
    record(1, status="failed", error="no memory " * 1000, verdict="", losses={}, history={}, unit_history={}),
    record(2, status="diverged", diverged_step=5, losses={"total": math.nan, "kl": -math.inf}, **DIVERGED),
    record(3, levels={"data": "Größe 'ä'; DROP TABLE runs", "beta": 1e-300}, flags=["duplicates", "heavy_tailed"]),
    record(4, losses={"kl+l1 (ß)": 0.5, "x" * 300: 1.0}),
    record(5, history={"step": [0.0] * 3, "loss/total": [2.0, 2.0, 2.0], "loss/kl": [-1.0, math.nan, -3.0]}),
    record(6, seconds=1, losses={"total": 7}, logged_at=1_700_000_000_500),
]
MANIFEST = {
    "inputs": {"data": "0f" * 32, "train_rows": 80, "evaluation_rows": 20, "features": [1, 6]},
    "experiment": {"case": "forum", "data": "patches"},
    "commit": "abc+changes",
    "command": "harness run trial.yaml",
}
TABLES = {**COLUMNS, "experiments": ("experiment_id", "name", "lifecycle_stage", "last_update_time")}


def logged(root, monkeypatch, bulk, members=MEMBERS):
    """Every row of every table that MLflow keeps of these members, runs under their keys instead of their ids."""
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    tracker = Tracker(store_uri(None, root), root, run_context(MANIFEST, {"epochs": 30}))
    if not bulk:
        tracker._file = None
    tracker.begin("trial")
    tracker.log("trial", members)
    tracker.project("trial", members, note="the answer")
    names = dict(rows(root, "SELECT run_uuid, value FROM tags WHERE key = 'harness.key'"))
    names |= dict(rows(root, "SELECT dataset_uuid, name FROM datasets"))
    edge = (
        "SELECT input_uuid, 'edge ' || value FROM inputs JOIN tags ON run_uuid = destination_id AND key = 'harness.key'"
    )
    names |= dict(rows(root, edge))
    return {
        table: sorted(
            (tuple(_named(value, names) for value in row) for row in rows(root, f"SELECT * FROM {table}")), key=repr
        )
        for table in (name for (name,) in rows(root, "SELECT name FROM sqlite_master WHERE type = 'table'"))
    }


def _named(value, names):
    for run, name in names.items():
        if isinstance(value, str) and run in value:
            return value.replace(run, name)
    return value


def _moved(tables, root):
    """Without what tells one folder from another: its path and its origin."""
    origin = origin_of(root).name
    return {
        name: [repr(row).replace(str(root), "").replace(origin, "") for row in found] for name, found in tables.items()
    }


def test_the_store_is_the_one_that_the_client_writes(root, other_root, monkeypatch):
    bulk, client = logged(root, monkeypatch, True), logged(other_root, monkeypatch, False)
    for tables in (bulk, client):
        tables["experiments"] = [row[:2] for row in tables["experiments"]]
    assert len(bulk["runs"]) == len(MEMBERS) + 2  # the parent and the summary of the one variant
    assert len(bulk["metrics"]) > 40
    assert len(bulk["datasets"]) == 1
    assert len(bulk["inputs"]) == len(bulk["input_tags"]) == len(MEMBERS) + 2
    assert len([row for row in bulk["tags"] if row[:2] == ("harness.origin", origin_of(root).name)]) == len(MEMBERS) + 2
    assert _moved(bulk, root) == _moved(client, other_root)


def test_the_client_reads_it(root, monkeypatch):
    logged(root, monkeypatch, True)
    client = Tracker(store_uri(None, root), root).client
    experiment = client.get_experiment_by_name("trial").experiment_id
    (run,) = client.search_runs([experiment], "tags.`harness.key` = 'k0'")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "as_posted bn=on s0")
    assert run.data.metrics["loss/total"] == 1.0
    assert run.data.params["beta"] == "0.001"
    assert [each.value for each in client.get_metric_history(run.info.run_id, "loss/total")] == [3.0, 2.0, 1.0]
    (lost,) = client.search_runs([experiment], "tags.`harness.key` = 'k2'")
    assert math.isnan(lost.data.metrics["loss_held_out/total"])
    client.set_tag(run.info.run_id, "mine", "still written by MLflow")


@pytest.mark.parametrize("change", ["ALTER TABLE metrics ADD COLUMN unit TEXT", "ALTER TABLE runs DROP COLUMN user_id"])
def test_a_store_of_another_shape_is_left_to_the_client(root, change):
    path = root / "mlruns" / "mlflow.db"
    assert takes_bulk(path)
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    assert not takes_bulk(path)
    assert Tracker(store_uri(None, root), root).at_once == 1


def test_a_server_is_left_to_the_client(root, monkeypatch):
    monkeypatch.setattr("harness.tracking.tracker.create_store", lambda uri: None)
    assert Tracker("http://127.0.0.1:1", root)._file is None


def test_a_stack_is_written_whole_or_not_at_all(root, monkeypatch):
    tracker = Tracker(store_uri(None, root), root)
    tracker.begin("trial")
    monkeypatch.setattr(
        "harness.tracking.sqlite_writer.stored_metrics", lambda member: [] if member.seed < 3 else 1 // 0
    )
    with pytest.raises(HarnessError, match="integer division"):
        tracker.log("trial", MEMBERS)
    monkeypatch.undo()
    assert rows(root, "SELECT count(*) FROM runs") == [(1,)]
    tracker.log("trial", MEMBERS)
    assert rows(root, "SELECT count(*) FROM runs") == [(len(MEMBERS) + 1,)]


def test_a_member_that_is_given_twice_is_one_run(root):
    tracker = Tracker(store_uri(None, root), root)
    tracker.begin("trial")
    tracker.log("trial", [record(0), record(0)])
    tracker.log("trial", [record(0)])
    assert rows(root, "SELECT count(*) FROM runs") == [(2,)]


def test_another_writer_is_waited_for(root, monkeypatch):
    """It is done half a second after the store was opened for writing; what is written then is there, however late."""
    tracker = Tracker(store_uri(None, root), root)
    tracker.begin("trial")
    other = sqlite3.connect(root / "mlruns" / "mlflow.db", check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    connect = sqlite3.connect

    def connected(path, timeout):
        threading.Timer(0.5, other.rollback).start()
        return connect(path, timeout)

    with monkeypatch.context() as patched:
        patched.setattr("harness.tracking.sqlite_writer.sqlite3.connect", connected)
        tracker.log("trial", [record(0)])
    assert rows(root, "SELECT count(*) FROM runs") == [(2,)]
