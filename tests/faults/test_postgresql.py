"""A team's server: MLflow on PostgreSQL, artifacts through the server, and a network of 300 ms in between.

Injected: the run killed while it logs, MLflow's server and PostgreSQL killed and started again. Counted: every row of the
database and every artifact, against a run that nobody disturbed.
"""

import base64
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from commands import within
from crash_points import before_main
from fault_injection import COMPARED, MEMBERS, assert_same, command, left_behind, prepared, told
from postgres import lacking, started
from servers import Server, content_of, passed_on

from experiments.benchmarks.logging_latency import delayed
from harness.tracking import Tracker

ROUND_TRIP = 0.3  # seconds


@pytest.fixture(scope="module")
def database():
    if reason := lacking():
        pytest.skip(reason)
    with started() as server:
        yield server


@pytest.fixture(scope="module")
def server(database, tmp_path_factory, empty_store):
    mlflow = Server(tmp_path_factory.mktemp("team") / "server", empty_store)
    mlflow.backend = database.uri().replace("postgresql://", "postgresql+psycopg://")
    mlflow.start()
    yield mlflow
    mlflow.kill()


def stored(database, server, folder: Path) -> dict[str, list]:
    """What a run left behind in PostgreSQL, its folder and the server's artifacts."""

    def plain(row: tuple) -> str:  # a truth value is a number in SQLite
        return repr(tuple(int(value) if isinstance(value, bool) else value for value in row))

    def of_this_experiment(query: str) -> str:
        return f"{query} AND experiment_id = (SELECT experiment_id FROM experiments WHERE name = 'disturbed')"

    content = left_behind(folder, server.store)
    rows = {name: database.rows(of_this_experiment(query)) for name, query in COMPARED.items()}
    return content | {name: sorted(map(plain, table)) for name, table in rows.items()}


def test_a_killed_run_a_killed_server_and_a_killed_database_lose_and_double_nothing(
    database, server, tmp_path, undisturbed
):
    folder = prepared(tmp_path)
    with delayed("127.0.0.1", server.port, ROUND_TRIP) as port:
        uri = f"http://127.0.0.1:{port}"
        for moment in ("member begun", "member logged"):
            killed = command(folder, "--tracking-uri", uri, before=before_main(moment))
            _, error = told(killed)
            assert killed.returncode == -signal.SIGKILL, error
        server.kill()
        database.kill()
        database.start()
        server.start()
        out, error = told(command(folder, "--tracking-uri", uri))
        assert f'"logged": {MEMBERS}' in out, error
        assert_same(stored(database, server, folder), undisturbed)
        synced = within("sync", "disturbed.yaml", "--tracking-uri", uri, folder=folder)
        assert (synced.returncode, synced.stderr) == (0, "")
        views = within("ui", "disturbed.yaml", "--tracking-uri", uri, folder=folder)
    assert_same(stored(database, server, folder), undisturbed)
    pages = views.stdout.splitlines()
    assert len(pages) >= 3
    assert all(f"{uri}/#/experiments/" in page for page in pages)


def test_the_database_is_a_store_without_a_server_too(database, server, tmp_path):
    from stored_members import record

    tracker = Tracker(database.uri(), tmp_path)
    page = tmp_path / "report.html"
    page.write_text("the report")
    members = [record(index) for index in range(20)]
    tracker.begin("direct")
    tracker.log("direct", members)
    number = tracker.project("direct", members, note="the answer", artifacts=[page])
    assert tracker.confirmed("direct", members) == 20
    runs = f"SELECT count(*) FROM runs WHERE experiment_id = {number} AND lifecycle_stage = 'active'"
    assert database.rows(runs) == [(20 + 1 + 1,)]
    assert len(list((tmp_path / "mlruns" / "artifacts" / "direct").rglob("report.html"))) == 1


def test_basic_authentication(server, tmp_path):
    from stored_members import record

    expected = f"Basic {base64.b64encode(b'ann:p@ss').decode()}"
    refused = []

    class Guard(BaseHTTPRequestHandler):
        def answer(self):
            body = content_of(self.rfile, self.headers)
            status, content, kind = (
                401,
                b'{"error_code": "UNAUTHENTICATED", "message": "who is it"}',
                "application/json",
            )
            if self.headers.get("Authorization") == expected:
                status, content, kind = passed_on(self.command, server.uri + self.path, dict(self.headers), body)
            else:
                refused.append(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

        def log_message(self, *arguments):
            pass

    guard = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    guard.daemon_threads = True
    Thread(target=guard.serve_forever, daemon=True).start()
    page = tmp_path / "report.html"
    page.write_text("the report")
    try:
        tracker = Tracker(f"http://ann:p%40ss@127.0.0.1:{guard.server_port}", tmp_path)
        tracker.project("guarded", [record(0)], note="the answer", artifacts=[page])
        assert tracker.confirmed("guarded", [record(0)]) == 1
    finally:
        guard.shutdown()
        guard.server_close()
    assert refused == []
