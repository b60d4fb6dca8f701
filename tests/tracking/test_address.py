"""Stores in awkward folders work, stores that cannot be opened are given up at once, and `harness ui` finds the views."""

import os
import time
from urllib.parse import quote

import pytest
from ports import free_port
from stored_members import record

from harness.cli.ui import _with_password, server_environment, ui
from harness.errors import HarnessError
from harness.tracking import Tracker, local_store, mlflow_address, store_uri, stored_experiments
from harness.tracking.address import artifact_folder, plain_path

AWKWARD = ["a%20b%zz", "what?mode=ro", "a#b", os.fsdecode(b"caf\xe9"), "a b ü"]


@pytest.mark.parametrize("name", AWKWARD, ids=["percent", "question", "hash", "bytes", "space"])
def test_a_store_works_in_any_folder(stored, tmp_path, name):
    root = stored(tmp_path / name)
    uri = store_uri(None, root)
    tracker = Tracker(uri, root)
    tracker.begin("trial")
    tracker._file = None  # by MLflow's client, as a store of another version
    page = root / "report.html"
    page.write_text("the report")
    number = tracker.project("trial", [record(0)], note="the answer", artifacts=[page])
    assert tracker.confirmed("trial", [record(0)]) == 1
    ((experiment, stored_number, views),) = stored_experiments(uri)
    assert (experiment, stored_number, views[0]) == ("trial", number, "variants")
    assert [path.read_text() for path in (root / "mlruns" / "artifacts").rglob("report.html")] == ["the report"]
    assert [os.fsencode(path) for path in tmp_path.iterdir()] == [os.fsencode(root)]  # nothing beside it
    address = server_environment(uri)["MLFLOW_BACKEND_STORE_URI"]
    assert address.isascii() or name == "a b ü"
    assert local_store(address).samefile(root / "mlruns" / "mlflow.db")


def test_a_plain_path_stays_as_it_is_and_an_awkward_one_gets_one_link(tmp_path):
    assert plain_path(tmp_path / "mlflow.db") == tmp_path / "mlflow.db"
    awkward = tmp_path / "a#b"
    awkward.mkdir()
    link = plain_path(awkward / "mlflow.db")
    assert link == plain_path(awkward / "mlflow.db")
    assert link.parent.samefile(awkward)


def test_artifacts_go_where_their_location_says():
    folder = artifact_folder("file:///" + quote(b"caf\xe9/a#b"))
    assert os.fsencode(folder) == b"/caf\xe9/a#b"
    assert artifact_folder("s3://bucket/1") is None


def test_a_relative_store_is_in_the_working_directory(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(stored(tmp_path) / "mlruns")
    tracker = Tracker("sqlite:///mlflow.db", tmp_path)
    number = tracker.project("trial", [record(0)], note="the answer")
    assert [row[:2] for row in stored_experiments(store_uri(None, tmp_path))] == [("trial", number)]
    assert (tmp_path / "mlruns" / "artifacts").as_uri() in tracker.client.get_experiment(number).artifact_location


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        ("sqlite:///{folder}/mlflow.db", "expected MLflow's SQLite file, got a folder"),
        ("postgresql://ann:secret@127.0.0.1:{port}/mlflow", "Connection refused"),
        ("postgresql+psycopg://ann:secret@127.0.0.1:{port}/mlflow", "Connection refused"),
    ],
)
def test_a_store_that_cannot_be_opened_is_tried_once(tmp_path, monkeypatch, store, reason):
    (tmp_path / "mlflow.db").mkdir()
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s for another attempt"))
    uri = store.format(folder=tmp_path, port=free_port())
    with pytest.raises(HarnessError, match=reason) as error:
        Tracker(uri, tmp_path)
    assert "secret" not in str(error.value)


def test_postgresql_is_reached_by_the_driver_that_is_installed(monkeypatch):
    installed = {"psycopg"}
    monkeypatch.setattr("harness.tracking.address.find_spec", lambda name: name if name in installed else None)
    assert mlflow_address("postgresql://ann@host/db") == "postgresql+psycopg://ann@host/db"
    assert mlflow_address("postgresql+pg8000://ann@host/db") == "postgresql+pg8000://ann@host/db"
    installed.add("psycopg2")
    assert mlflow_address("postgresql://ann@host/db") == "postgresql://ann@host/db"
    installed.clear()
    with pytest.raises(HarnessError, match=r"collapse-harness\[postgresql\]"):
        mlflow_address("postgresql://ann@host/db")


def test_the_ui_of_a_server_is_its_own_address_with_the_views(monkeypatch, capsys):
    experiments = [("newer", "7", ["variants", "factors"]), ("trial", "3", [])]
    monkeypatch.setattr("harness.tracking.stored_experiments", lambda uri: experiments)
    ui(tracking_uri="https://ann:secret@host:8443/team/")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "MLflow UI, by variants: https://host:8443/team/#/experiments/7/runs?workflowType=machine_learning"
        "&compareRunsMode=CHART&viewStateShareKey=variants"
    )
    assert len(lines) == 3
    ui("trial", tracking_uri="https://host")
    assert capsys.readouterr().out.split()[-1] == "https://host/#/experiments/3/runs?workflowType=machine_learning"
    with pytest.raises(HarnessError, match=r"no experiment is called 'other'\. Known: newer, trial"):
        ui("other", tracking_uri="https://host")


def test_a_masked_address_is_completed_from_the_environment(monkeypatch):
    masked = "postgresql://ann:***@host/db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:secret@host/db")
    assert _with_password(masked) == "postgresql://ann:secret@host/db"
    assert _with_password("postgresql://ann@host/db") == "postgresql://ann@host/db"
    assert _with_password(None) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:secret@another/db")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(HarnessError, match="set MLFLOW_TRACKING_URI"):
        _with_password(masked)
