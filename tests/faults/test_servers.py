"""A real MLflow server that fails in the middle of a run: training goes on, and everything is logged exactly once.

Injected: the server killed and begun again, stopped until the run is over, and behind a proxy that answers some calls
with 500 or 429, before or after passing them on. Counted: every row of its store, every artifact.
"""

import json
import signal

import pytest
from fault_injection import MEMBERS, Hold, assert_same, command, left_behind, prepared, rows_of, told
from servers import Server, flaky
from waiting import until

from harness.experiment import sync

pytestmark = pytest.mark.service
# a busy server is not one that is gone; the tries are the default
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "300", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
FAULTS = {  # of every 7 calls of an address: nothing done and 500, done and 500, nothing done and 429, done and 429
    "500 before": {3: (500, False)},
    "500 after": {3: (500, True)},
    "429 before": {3: (429, False)},
    "all of them": {2: (500, True), 3: (429, False), 5: (500, False), 6: (429, True)},
}


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)


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
    """A run whose first stack is on disk and whose store is open; it is held within the second stack."""
    hold = Hold(folder, stacks=1)
    process = command(folder, "--tracking-uri", server.uri, **hold.environment, **environment)
    until(hold.reached, process)
    until(lambda: "RUNNING" in str(rows_of(server.store, "SELECT status FROM runs")), process)
    return process, hold


def level(folder, uri):
    """Store and results are level after so many syncs; two more must add nothing."""
    for attempt in range(1, 11):
        notes = sync(folder / "disturbed.yaml", uri, root=folder)
        if notes == []:
            return attempt
    raise AssertionError(f"still not level after ten syncs: {notes}")


def test_a_server_that_is_killed_and_begun_again_has_everything_once(folder, server, undisturbed):
    process, hold = begun(folder, server)
    server.kill()
    hold.let_go()
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
    process, hold = begun(folder, server)
    server.kill()
    server.start()
    hold.let_go()
    out, error = told(process)
    assert json.loads(out)["done"] == MEMBERS, error
    assert json.loads(out)["notes"] == []
    assert_same(left_behind(folder, server.store), undisturbed)


def test_a_server_that_is_stopped_holds_no_run_up_and_what_it_does_later_is_not_doubled(folder, server, undisturbed):
    """Its answers are given up after 2 s each, and it hears of the calls all the same when it goes on."""
    process, hold = begun(folder, server, MLFLOW_HTTP_REQUEST_TIMEOUT="2")
    server.send(signal.SIGSTOP)
    hold.let_go()
    out, error = told(process)
    assert json.loads(out)["done"] == MEMBERS, error
    assert any("harness sync" in note for note in json.loads(out)["notes"])
    server.send(signal.SIGCONT)
    level(folder, server.uri)
    level(folder, server.uri)
    assert_same(left_behind(folder, server.store), undisturbed)


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_behind_a_flaky_proxy_has_everything_once(
    folder, server, undisturbed, monkeypatch, record_property, name
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
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
