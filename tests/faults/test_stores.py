"""Whatever the store does, training goes on, results are kept, and a later sync logs them exactly once.

Injected: a server that is not there, answers 500, answers 429, or says nothing; a store of an older version; a store
that is no database; eight processes on a fresh store. Counted: records, runs, seconds.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from commands import harness, within
from fault_injection import MEMBERS, RUNS, assert_same, left_behind, prepared, rows_of
from waiting import LONGEST

from harness.experiment import run_experiment, sync
from harness.results.temporary import host

TIMEOUT = 1.0  # seconds, for one answer; the default is ten


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(int(TIMEOUT)))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


@contextmanager
def server(status: int):
    """A server that answers every request with this status, or with nothing at all for 0; its address, and the requests."""
    requests, closing = [], threading.Event()

    class Faulty(BaseHTTPRequestHandler):
        def answer(self):
            requests.append(self.path)
            if status == 0:
                closing.wait()
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        closing.set()
        server.shutdown()


@pytest.mark.long
@pytest.mark.parametrize("status", [500, *(pytest.param(each, marks=pytest.mark.service) for each in (429, 0))])
def test_a_faulty_server_costs_seconds_and_no_result(tmp_path, undisturbed, empty_store, status):
    folder = prepared(tmp_path, store=empty_store)
    with server(status) as (uri, requests):
        outcome = run_experiment(folder / "disturbed.yaml", tracking_uri=uri, workers=0, root=folder)
    assert 0 < len(requests) * TIMEOUT < 10  # four, of which each costs no more than its time
    assert len(outcome.records) == MEMBERS
    assert outcome.report.is_file()
    assert any("harness sync" in note for note in outcome.notes)
    assert sync(folder / "disturbed.yaml", root=folder) == []
    assert sync(folder / "disturbed.yaml", root=folder) == []
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.service
def test_a_server_that_is_not_there_is_noted_and_the_next_run_logs(tmp_path, empty_store, undisturbed):
    folder = prepared(tmp_path, store=empty_store)
    outcome = run_experiment(folder / "disturbed.yaml", tracking_uri="http://127.0.0.1:9", workers=0, root=folder)
    assert any("http://127.0.0.1:9" in note for note in outcome.notes)
    again = run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    assert (again.trained, again.notes) == (0, ())
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.service
def test_a_store_of_an_older_version_is_left_as_it_is(tmp_path, empty_store):
    folder = prepared(tmp_path, store=empty_store)
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    outcome = run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    assert len(outcome.records) == MEMBERS
    assert any("schema" in note for note in outcome.notes), outcome.notes


def test_a_store_that_is_no_database_is_one_sentence(tmp_path):
    folder = prepared(tmp_path)
    (folder / "mlruns").mkdir()
    (folder / "mlruns" / "mlflow.db").write_bytes(b"not a database" * 100)
    outcome = run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    assert len(outcome.records) == MEMBERS
    assert any("mlflow.db" in note for note in outcome.notes)


def test_a_damaged_result_is_trained_again_and_said(tmp_path, empty_store, undisturbed):
    folder = prepared(tmp_path, store=empty_store)
    run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    file = sorted((folder / "mlruns" / "results" / "disturbed").glob("*.parquet"))[0]
    file.write_bytes(file.read_bytes()[:-10])
    outcome = run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    assert outcome.trained == 2
    assert any(file.name in note and "damaged" in note for note in outcome.notes)
    assert_same(left_behind(folder), undisturbed)


def test_what_a_killed_run_left_half_written_of_a_report_is_no_artifact_and_goes(tmp_path, empty_store, undisturbed):
    folder = prepared(tmp_path, store=empty_store)
    reports = folder / "mlruns" / "reports" / "disturbed"
    reports.mkdir(parents=True)
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    half = reports / f".report.html.{host()}.{killed.pid}.00000000-0.new"
    half.write_text("half a pa")
    run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    assert_same(left_behind(folder), undisturbed)
    assert not half.exists()
    (reports / f".report.html.{host()}.{os.getppid()}.00000000-0.new").write_text("written at this moment by another")
    assert sync(folder / "disturbed.yaml", root=folder) == []
    assert (reports / f".report.html.{host()}.{os.getppid()}.00000000-0.new").exists()
    assert left_behind(folder)["artifacts"] == undisturbed["artifacts"]


@pytest.fixture
def moved(tmp_path, empty_store):
    """The folder of a finished run in another place."""
    (tmp_path / "before").mkdir()
    folder = prepared(tmp_path / "before", store=empty_store)
    run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    return Path(shutil.move(folder, tmp_path / "after"))


def test_the_store_of_a_moved_folder_is_repaired_by_one_command(moved):
    done = within("sync", "--repair", folder=moved)
    assert "paths of the store now point to this folder" in done.stdout, done.stderr
    places = rows_of(moved / "mlruns" / "mlflow.db", "SELECT artifact_uri FROM runs")
    assert len(places) == RUNS
    assert all(place.startswith((moved / "mlruns" / "artifacts").as_uri()) for (place,) in places)


@pytest.mark.service
def test_a_moved_folder_is_level_again_after_one_command(moved, undisturbed):
    """In a process of its own: one that logged before remembers where each run had its artifacts."""
    done = harness("sync", "--repair", "disturbed.yaml", folder=moved)
    assert "Note" not in done.stdout, done.stdout
    assert not (moved.parent / "before" / "mlruns" / "artifacts").exists()
    assert_same(left_behind(moved), undisturbed)


@pytest.mark.service
def test_eight_processes_open_a_fresh_store_together(tmp_path):
    code = (
        "from pathlib import Path; from harness.tracking import Tracker, store_uri; import sys\n"
        "Tracker(store_uri(None, Path.cwd()), Path.cwd()).begin(sys.argv[1])"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    together = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"e{i % 4}"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
        )
        for i in range(8)
    ]
    errors = [process.communicate(timeout=LONGEST)[1] for process in together]
    assert [process.returncode for process in together] == [0] * 8, errors
    with sqlite3.connect(tmp_path / "mlruns" / "mlflow.db") as connection:
        assert connection.execute("SELECT count(*) FROM experiments WHERE name != 'Default'").fetchone() == (4,)
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (4,)
