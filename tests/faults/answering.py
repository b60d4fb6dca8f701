"""Servers in a thread of this process: one that always gives the same answer, and MLflow's interface in memory."""

import json
import threading
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@contextmanager
def serving(answer):
    """The address of a server that answers with `answer(method, path, content)`: (status, headers, bytes)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: in two, the second waits 40 ms for the first to be acknowledged

        def respond(self):
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = answer(self.command, self.path, content)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = respond

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Remembering:
    """As much of MLflow's server as logging needs, in memory.

    Args:
        artifacts: a folder for artifacts.

    `faults` maps the end of a path to what is done in its place: an answer (status, headers, bytes), or a function
    that is given the request as a dict, and answers with one or with None to have it done after all.
    """

    def __init__(self, artifacts):
        self.artifacts, self.experiments, self.runs, self.faults = artifacts, {}, {}, {}
        self.calls = []
        self.lock = threading.Lock()

    def __call__(self, method, path, content):
        address = urlsplit(path)
        asked = {name: value for name, (value, *_) in parse_qs(address.query).items()}
        asked |= json.loads(content) if content else {}
        name = address.path.partition("/mlflow/")[2]
        with self.lock:
            self.calls.append(name)
            fault = self.faults.get(name)
            fault = fault(asked) if callable(fault) else fault
            if fault is not None:
                return fault
            answer = getattr(self, name.replace("/", "_").replace("-", "_"))(**asked)
        if answer is None:
            return 404, JSON, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not there"}).encode()
        return 200, JSON, json.dumps(answer).encode()

    def members(self):
        """The runs of members that are finished and have numbers."""
        ended = [run for run in self.runs.values() if run["info"]["status"] in ("FINISHED", "FAILED")]
        return [run for run in ended if run["data"]["metrics"] and tags_of(run).get("harness.kind") == "member"]

    def experiments_get_by_name(self, experiment_name):
        number = self.experiments.get(experiment_name)
        facts = {"experiment_id": number, "name": experiment_name, "lifecycle_stage": "active"}
        return None if number is None else {"experiment": facts}

    def experiments_create(self, name, **more):
        self.experiments[name] = str(len(self.experiments) + 1)
        return {"experiment_id": self.experiments[name]}

    def experiments_set_experiment_tag(self, **asked):
        return {}

    def runs_create(self, experiment_id, start_time, tags, run_name="", **more):
        run = uuid.uuid4().hex  # MLflow's client remembers where the artifacts of a run go
        info = {"run_id": run, "run_uuid": run, "experiment_id": experiment_id, "run_name": run_name}
        info |= {"status": "RUNNING", "start_time": start_time, "lifecycle_stage": "active"}
        info |= {"artifact_uri": f"file://{self.artifacts}/{run}"}
        self.runs[run] = {"info": info, "data": {"tags": tags, "params": [], "metrics": []}}
        return {"run": self.runs[run]}

    def runs_get(self, run_id, **more):
        return {"run": self.runs[run_id]}

    def runs_update(self, run_id, status, **more):
        self.runs[run_id]["info"]["status"] = status
        return {"run_info": self.runs[run_id]["info"]}

    def runs_log_batch(self, run_id, metrics=(), params=(), tags=()):
        latest = {metric["key"]: metric for metric in [*self.runs[run_id]["data"]["metrics"], *metrics]}
        self.runs[run_id]["data"] |= {"metrics": list(latest.values()), "params": list(params)}
        return {}

    def runs_log_inputs(self, **asked):
        return {}

    def runs_set_tag(self, run_id, key, value, **more):
        self.runs[run_id]["data"]["tags"].append({"key": key, "value": value})
        return {}

    def runs_log_metric(self, **asked):
        return {}

    def runs_delete(self, run_id):
        del self.runs[run_id]
        return {}

    def runs_search(self, experiment_ids, **more):
        return {"runs": [run for run in self.runs.values() if run["info"]["experiment_id"] in experiment_ids]}


def tags_of(run):
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


JSON = {"Content-Type": "application/json"}
