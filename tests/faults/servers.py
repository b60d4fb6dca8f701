"""A real MLflow server on this machine, and a proxy before it that answers some calls with an error."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ports import free_port
from waiting import LONGEST, until

OWN = ("host", "connection", "content-length", "transfer-encoding")  # of each connection, not of the request


class Server:
    """`mlflow server` on a store of its own, in a process group of its own."""

    def __init__(self, folder: Path, empty_store: Path) -> None:
        folder.mkdir()
        self.folder, self.store = folder, folder / "mlflow.db"
        self.backend = f"sqlite:///{self.store}"
        shutil.copy(empty_store, self.store)
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin, and come back when it answers."""
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        words += ["--backend-store-uri", self.backend, "--workers", "1"]
        words += ["--artifacts-destination", str(self.folder / "artifacts")]
        surroundings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        surroundings["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                words, cwd=self.folder, env=surroundings, stdout=log, stderr=log, start_new_session=True
            )
        until(self.answers, self.process)

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=LONGEST).status == 200
        except OSError:
            return False

    def send(self, number: int) -> None:
        """A signal to it and all its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.send(signal.SIGKILL)
        self.process.wait(LONGEST)


@contextmanager
def flaky(target: str, faults: dict[int, tuple[int, bool]], period: int):
    """A proxy that answers call `n` of every `period` of one address with a status of its own.

    Calls that run side by side come in any order, so each address has its own count: one that is called again after an
    error gets the answer that follows.

    Args:
        target: what it passes calls on to.
        faults: n -> (status, whether the call is passed on all the same, and its answer thrown away).
        period: how many calls there are before it begins again.

    Yields:
        Its address, and the list of the statuses that it made up.
    """
    made_up: list[int] = []
    calls, one_at_a_time = Counter[str](), threading.Lock()

    class Proxy(BaseHTTPRequestHandler):
        def answer(self):
            body = content_of(self.rfile, self.headers)
            address = f"{self.command} {self.path.partition('?')[0]}"
            with one_at_a_time:
                status, passed = faults.get(calls[address] % period, (0, True))
                calls[address] += 1
            content, kind = b"", "application/json"
            if passed:
                found, content, kind = passed_on(self.command, target + self.path, dict(self.headers), body)
            if status:
                made_up.append(status)
                content = b"{}"
            self.send_response(status or found)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

        def log_message(self, *arguments):
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", made_up
    finally:
        proxy.shutdown()
        proxy.server_close()


def content_of(stream, headers) -> bytes:
    """The body of a request; uploads come in chunks, each with its length before it."""
    if headers.get("Transfer-Encoding") != "chunked":
        return stream.read(int(headers.get("Content-Length") or 0))
    body = b""
    while size := int(stream.readline(), 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body


def passed_on(method: str, address: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes, str]:
    """The real answer: status, content and its kind."""
    kept = {name: value for name, value in headers.items() if name.lower() not in OWN}
    request = urllib.request.Request(address, data=body or None, headers=kept, method=method)
    try:
        with urllib.request.urlopen(request, timeout=LONGEST) as answer:
            return answer.status, answer.read(), answer.headers.get("Content-Type", "")
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers.get("Content-Type", "")
