"""A real MLflow server that fails in the middle of a run: training goes on, and everything is logged exactly once.

Injected: the server killed and begun again, stopped for 30 s, and behind a proxy that answers some calls with 500 or
429, before or after passing them on. Counted: records while it was away, every row of its store, every artifact.
"""

import json
import signal
import time

import pytest
from disturbed import MEMBERS, assert_same, command, left_behind, prepared, told
from servers import Server, flaky

from harness.experiment import project

pytestmark = pytest.mark.slow
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}  # the tries are the default
FAULTS = {  # of every 7 calls: nothing done and 500, done and 500, nothing done and 429, done and 429
    "500 before": {3: (500, False)},
    "500 after": {3: (500, True)},
    "429 before": {3: (429, False)},
    "all of them": {2: (500, True), 3: (429, False), 5: (500, False), 6: (429, True)},
}


@pytest.fixture
def server(tmp_path, empty_store):
    one = Server(tmp_path / "server", empty_store)
    one.start()
    yield one
    one.send(signal.SIGCONT)
    one.kill()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "here").mkdir()
    return prepared(tmp_path / "here")


def begun(folder, server, **environment):
    """A run whose first stack is on disk; the second is being trained."""
    process = command(folder, "--tracking-uri", server.uri, **PATIENT, **environment)
    deadline = time.monotonic() + 120
    while not list(folder.glob("mlruns/results/*/*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def level(folder, uri):
    """Store and results are level after so many syncs; two more must add nothing."""
    for attempt in range(1, 11):
        notes = project(folder / "disturbed.yaml", uri, root=folder)
        if notes == []:
            return attempt
    raise AssertionError(f"still not level after ten syncs: {notes}")


def test_a_server_that_is_killed_and_begun_again_has_everything_once(folder, server, undisturbed):
    process = begun(folder, server, PAUSE="1.0")
    server.kill()
    out, error = told(process)
    outcome = json.loads(out)
    assert outcome["done"] == MEMBERS, error
    assert "Traceback" not in error
    assert any("harness sync" in note for note in outcome["notes"])
    server.start()
    assert level(folder, server.uri) == 1
    assert level(folder, server.uri) == 1
    assert_same(left_behind(folder, server.store), undisturbed)


def test_a_server_that_is_begun_again_before_the_end_is_logged_to_by_the_same_run(folder, server, undisturbed):
    process = begun(folder, server, PAUSE="3.0")
    server.kill()
    server.start()
    out, error = told(process)
    assert json.loads(out)["done"] == MEMBERS, error
    assert json.loads(out)["notes"] == []
    assert_same(left_behind(folder, server.store), undisturbed)


def test_a_server_that_is_stopped_for_half_a_minute_holds_no_training_up(folder, server, undisturbed):
    process = begun(folder, server, PAUSE="0.5")
    server.send(signal.SIGSTOP)
    stopped = time.monotonic()
    while len(list(folder.glob("mlruns/results/*/*.parquet"))) < 2 and time.monotonic() < stopped + 30:
        time.sleep(0.1)
    trained = time.monotonic() - stopped
    time.sleep(max(0.0, stopped + 30 - time.monotonic()))
    server.send(signal.SIGCONT)
    out, error = told(process)
    assert trained < 30
    assert json.loads(out)["done"] == MEMBERS, error
    assert level(folder, server.uri) == 1
    assert_same(left_behind(folder, server.store), undisturbed)


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_behind_a_flaky_proxy_has_everything_once(
    folder, server, undisturbed, monkeypatch, record_property, name
):
    for variable, value in {**PATIENT, "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0"}.items():
        monkeypatch.setenv(variable, value)
    with flaky(server.uri, FAULTS[name], period=7) as (uri, made_up):
        out, error = told(command(folder, "--tracking-uri", uri))
        assert json.loads(out)["done"] == MEMBERS, error
        syncs = level(folder, uri)
        assert len(made_up) >= 10
        assert_same(left_behind(folder, server.store), undisturbed)
        level(folder, uri)  # through the proxy: MLflow remembers for each run where its artifacts go
    record_property("faults", len(made_up))
    record_property("syncs", syncs)
    assert_same(left_behind(folder, server.store), undisturbed)
