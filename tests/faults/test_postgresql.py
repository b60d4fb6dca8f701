"""A team's server: MLflow on PostgreSQL, artifacts through the server, and a network of 300 ms in between.

Injected: the run killed while it logs, MLflow's server and PostgreSQL killed and started again. Counted: every row of the
database and every artifact, against a run that nobody disturbed.
"""

import base64
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from commands import within
from fault_injection import COMPARED, MEMBERS, assert_same, command, left_behind, prepared, told
from ports import free_port
from servers import Server, content_of, passed_on

from experiments.benchmarks.logging_latency import delayed
from harness.results.faults import VARIABLE
from harness.tracking import Tracker

pytestmark = pytest.mark.service
ROUND_TRIP = 0.3  # seconds
DEBIAN = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
PATH = os.pathsep.join([os.environ["PATH"], *DEBIAN])


class Postgres:
    """A PostgreSQL server of its own, with one empty database."""

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder, self.owner, self.port = folder, owner, free_port()
        self._command("initdb", "-D", folder / "data", "-U", "harness", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()
        self.rows("CREATE DATABASE mlflow", "postgres")

    def _command(self, program: str, *arguments: object) -> None:
        user = [] if self.owner == getpass.getuser() else ["runuser", "-u", self.owner, "--"]
        words = [*user, shutil.which(program, path=PATH), *map(str, arguments)]
        with (self.folder / "output").open("a") as output:
            subprocess.run(words, check=True, stdout=output, stderr=output, cwd="/")

    def start(self) -> None:
        """Start it and wait for it."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._command("pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-w", "-o", options, "start")

    def kill(self) -> None:
        """End it without a checkpoint, as a crash does."""
        self._command("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")

    def uri(self, database: str = "mlflow") -> str:
        return f"postgresql://harness@127.0.0.1:{self.port}/{database}"

    def rows(self, query: str, database: str = "mlflow") -> list[tuple]:
        import psycopg

        with psycopg.connect(self.uri(database), autocommit=True) as connection:
            answer = connection.execute(query)
            return answer.fetchall() if answer.description else []


@pytest.fixture(scope="module")
def postgres():
    if shutil.which("initdb", path=PATH) is None:
        pytest.skip("no PostgreSQL on this machine (Debian: apt install postgresql)")
    owner = getpass.getuser()
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        if shutil.which("runuser") is None or "postgres:" not in Path("/etc/passwd").read_text():
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        owner = "postgres"
    folder = Path(tempfile.mkdtemp(prefix="harness-postgres-"))  # pytest's folders are closed to other users
    try:
        shutil.chown(folder, owner)
        server = Postgres(folder, owner)
        yield server
        server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory, empty_store):
    mlflow = Server(tmp_path_factory.mktemp("team") / "server", empty_store)
    mlflow.backend = postgres.uri().replace("postgresql://", "postgresql+psycopg://")
    mlflow.start()
    yield mlflow
    mlflow.kill()


def stored(postgres, server, folder: Path) -> dict[str, list]:
    """What a run left behind in PostgreSQL, its folder and the server's artifacts."""

    def plain(row: tuple) -> str:  # a truth value is a number in SQLite
        return repr(tuple(int(value) if isinstance(value, bool) else value for value in row))

    def of_this_experiment(query: str) -> str:
        return f"{query} AND experiment_id = (SELECT experiment_id FROM experiments WHERE name = 'disturbed')"

    content = left_behind(folder, server.store)
    rows = {name: postgres.rows(of_this_experiment(query)) for name, query in COMPARED.items()}
    return content | {name: sorted(map(plain, table)) for name, table in rows.items()}


def test_a_killed_run_a_killed_server_and_a_killed_database_lose_and_double_nothing(
    postgres, server, tmp_path, undisturbed
):
    folder = prepared(tmp_path)
    with delayed("127.0.0.1", server.port, ROUND_TRIP) as port:
        uri = f"http://127.0.0.1:{port}"
        for moment in ("member begun", "member logged"):
            killed = command(folder, "--tracking-uri", uri, **{VARIABLE: moment})
            _, error = told(killed)
            assert killed.returncode == -signal.SIGKILL, error
        server.kill()
        postgres.kill()
        postgres.start()
        server.start()
        out, error = told(command(folder, "--tracking-uri", uri))
        assert f'"logged": {MEMBERS}' in out, error
        assert_same(stored(postgres, server, folder), undisturbed)
        synced = within("sync", "disturbed.yaml", "--tracking-uri", uri, folder=folder)
        assert (synced.returncode, synced.stderr) == (0, "")
        views = within("ui", "disturbed.yaml", "--tracking-uri", uri, folder=folder)
    assert_same(stored(postgres, server, folder), undisturbed)
    pages = views.stdout.splitlines()
    assert len(pages) >= 3
    assert all(f"{uri}/#/experiments/" in page for page in pages)


def test_the_database_is_a_store_without_a_server_too(postgres, server, tmp_path):
    from stored_members import record

    tracker = Tracker(postgres.uri(), tmp_path)
    page = tmp_path / "report.html"
    page.write_text("the report")
    members = [record(index) for index in range(20)]
    tracker.begin("direct")
    tracker.log("direct", members)
    number = tracker.project("direct", members, note="the answer", artifacts=[page])
    assert tracker.confirmed("direct", members) == 20
    runs = f"SELECT count(*) FROM runs WHERE experiment_id = {number} AND lifecycle_stage = 'active'"
    assert postgres.rows(runs) == [(20 + 1 + 1,)]
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
