"""A Ray cluster of several nodes on this machine: results equal the pool's in every bit, also if a node is killed.

Injected: a node killed while it trains, a loss that ends its process, and one that never returns. Counted: every field of
every member's record. `client` is the address of the same cluster for a driver outside of it.
"""

import sys
from dataclasses import fields
from pathlib import Path
from threading import Event, Lock, Thread
from types import SimpleNamespace

import pytest
from ports import free_port
from waiting import until

from harness.case import Case
from harness.errors import HarnessError
from harness.execution.ray import RayExecutor
from harness.experiment import run_experiment
from harness.experiment.driver import RunCallbacks
from harness.prescription import prescribe
from harness.prescription.procedure import Search
from harness.results import read_records, results_folder

pytestmark = pytest.mark.service
CASE = """
import os, sys, time
from pathlib import Path
import torch
from torch import nn
import harness
from scales import SCALE

HOLD = Path({hold!r})

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch, deadly=0.0):
    ray = sys.modules.get("ray")
    if ray is not None and HOLD.is_dir():
        (HOLD / ray.get_runtime_context().get_node_id()).touch()
        while not (HOLD / "open").exists():
            time.sleep(0.02)
    if deadly == 1.0:
        os._exit(7)
    return {{"reconstruction": SCALE * ((model(batch) - batch) ** 2).mean()}}

case = harness.Case(build, data, losses, "2", numbers={{"deadly": 0.0}})
"""
EXPERIMENT = """
name: cluster
case: own.py
factors: {{activation: [relu, leaky_relu, tanh], batchnorm: [off, on]{more}}}
seeds: 8
train: {{epochs: 3, batch_size: 16}}
"""
MEMBERS = 3 * 2 * 8


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": free_port()}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        patched.setenv("RAY_ADDRESS", nodes.address)
        nodes.client = f"ray://127.0.0.1:{head['ray_client_server_port']}"
        yield nodes
        nodes.shutdown()


@pytest.fixture(params=["ray", "client"])
def on(request, cluster):
    pytest.importorskip("grpc")  # of Ray's client
    return cluster.client if request.param == "client" else "ray"


def project(folder, hold, more=""):
    folder.mkdir()
    (folder / "scales.py").write_text("SCALE = 0.5")
    (folder / "own.py").write_text(CASE.format(hold=str(hold)))
    (folder / "cluster.yaml").write_text(EXPERIMENT.format(more=more))
    return folder / "cluster.yaml"


def records(root):
    return values(read_records(results_folder("cluster", root))[0])


def values(trained):
    """Every field of every record, without what the clock decides."""
    names = [field.name for field in fields(trained[0]) if field.name not in ("seconds", "logged_at")]
    return {record.key: {name: plain(getattr(record, name)) for name in names} for record in trained}


def plain(value):
    return value.to_bytes() if hasattr(value, "to_bytes") and not isinstance(value, int) else repr(value)


def test_a_killed_node_loses_nothing_and_changes_no_bit(cluster, stored, tmp_path):
    hold, texts = tmp_path / "hold", []
    file = project(tmp_path / "project", hold)
    victim, _other = (cluster.add_node(num_cpus=1) for _ in range(2))
    cluster.wait_for_nodes()
    hold.mkdir()

    def kill():
        until(lambda: len(list(hold.iterdir())) == 3)  # every node trains
        cluster.remove_node(victim, allow_graceful=False)
        (hold / "open").touch()

    killing = Thread(target=kill)
    killing.start()
    outcome = run_experiment(
        file, on="ray", root=stored(tmp_path / "cluster"), progress=RunCallbacks(says=texts.append)
    )
    killing.join()
    assert (outcome.trained, len(outcome.records)) == (MEMBERS, MEMBERS)
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert texts[0].startswith("Ray: 3 nodes: ")
    assert any(text.endswith(" trains") for text in texts[1:])
    run_experiment(file, workers=1, root=stored(tmp_path / "pool"))
    assert len(records(tmp_path / "pool")) == MEMBERS
    assert records(tmp_path / "cluster") == records(tmp_path / "pool")


def test_the_client_of_a_cluster_gets_the_records_of_the_pool(cluster, stored, tmp_path):
    file = project(tmp_path / "project", tmp_path / "no hold")
    texts = []
    outcome = run_experiment(
        file, on=cluster.client, root=stored(tmp_path / "client"), progress=RunCallbacks(says=texts.append)
    )
    assert (outcome.trained, len(outcome.records)) == (MEMBERS, MEMBERS)
    assert texts[0].startswith("Ray: ")
    assert any(text.endswith(" trains") for text in texts[1:])
    run_experiment(file, workers=1, root=stored(tmp_path / "pool"))
    assert records(tmp_path / "client") == records(tmp_path / "pool")
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def few(folder, deadly=""):
    """Two members, and under the second value of `deadly` a third one."""
    file = project(folder, folder / "no hold", deadly and ", deadly: [0.0, 1.0]")
    text = file.read_text().replace("seeds: 8", "seeds: 1").replace("[off, on]", "[off]").replace("leaky_relu, ", "")
    file.write_text(text + (deadly and "exclude: [{activation: tanh, deadly: 1.0}]\n"))
    case = file.with_name("own.py")
    case.write_text(case.read_text().replace("os._exit(7)", deadly or "pass"))
    return file


ENDLESS = """
        begun = str(os.getpid()) if ray is None else ray.get_runtime_context().get_task_id()
        Path({folder!r}, begun).touch()
        while True:
            pass"""
LIMIT = 50.0


class Reached(Thread):
    """A timer in place of seconds: it ends the stack whose loss says that it never returns, on a busy machine as well."""

    def __init__(self, folder, end):
        super().__init__(daemon=True)
        task = end.__self__.process  # of the pool a process, of Ray a task
        self.end, self.over = end, Event()
        self.begun = folder / (task.reference.task_id().hex() if hasattr(task, "reference") else str(task.pid))

    def run(self):
        while not self.begun.exists():
            if self.over.wait(0.02):
                return
        self.end()

    def cancel(self):
        self.over.set()


@pytest.fixture(scope="module")
def limited(stored, tmp_path_factory):
    """Trains an experiment with a loss that never returns under a time limit."""
    folder = tmp_path_factory.mktemp("limited")
    file = few(folder / "project", ENDLESS.format(folder=str(folder)))

    def trained(on, root):
        with pytest.MonkeyPatch.context() as patched:
            timer = SimpleNamespace(Timer=lambda seconds, end: Reached(folder, end))
            patched.setattr("harness.execution.time_limit.threading", timer)
            return run_experiment(file, workers=1, on=on, root=stored(root), timeout=LIMIT)

    return trained


def test_a_loss_that_never_returns_is_ended_as_on_the_pool(on, limited, tmp_path):
    outcome, pool = limited(on, tmp_path / "cluster"), limited(None, tmp_path / "pool")
    errors = {(record.levels["activation"], record.levels["deadly"]): record.error for record in outcome.records}
    assert errors == {
        ("relu", 0.0): None,
        ("tanh", 0.0): None,
        ("relu", 1.0): f"took longer than --timeout {LIMIT:g} s",
    }
    assert values(outcome.records) == values(pool.records)
    assert outcome.to_dict()["failed"] == pool.to_dict()["failed"] == 1  # decides on the exit code
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_a_limit_that_is_not_reached_changes_no_bit(on, stored, tmp_path):
    file = few(tmp_path / "project")
    run_experiment(file, on=on, root=stored(tmp_path / "cluster"), timeout=500.0)
    run_experiment(file, workers=1, root=stored(tmp_path / "pool"))
    assert records(tmp_path / "cluster") == records(tmp_path / "pool")


def test_a_member_that_ends_its_process_fails_alone(on, stored, tmp_path):
    file = few(tmp_path / "project", "os._exit(7)")
    outcome = run_experiment(file, on=on, root=stored(tmp_path / "cluster"))
    statuses = sorted((record.levels["deadly"], record.status) for record in outcome.records)
    assert statuses == [(0.0, "ok"), (0.0, "ok"), (1.0, "failed")]
    (failed,) = (record for record in outcome.records if record.status == "failed")
    assert "Ray worker or node died" in failed.error


FIT = """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        ((model(ROWS) - ROWS) ** 2).mean().backward()
        optimizer.step()
"""


@pytest.mark.parametrize("kind", ["a file", "a session", "a session with its own training"])
def test_a_prescription_on_a_cluster_is_the_one_of_this_machine(cluster, tmp_path, kind):
    project(tmp_path / "project", tmp_path / "no hold")
    case = str(tmp_path / "project" / "own.py")
    if kind != "a file":
        text = Path(case).read_text().replace("from scales import SCALE", "SCALE = 0.5")
        text = text.replace("(2, 6))\n", "(2, 6))\n\nROWS = torch.ones(8, 6)\n\ndef fit(model, seed):" + FIT)
        names = {"__name__": "notebook"}
        exec(text.replace('"2", ', '"2", fit=fit, ' if "training" in kind else '"2", '), names)
        case = names["case"]
    trained, cells = [], [{}, {"activation": "leaky_relu"}]
    for on in ("ray", None):
        search = Search(case, "60s", None, "usable", 1, lambda text: None, tmp_path / str(on))
        with search.trial.training_on(on, lambda text: None):
            for seeds in ((0, 1), (2,)):  # two calls, one connection
                search.trial.train(cells, seeds)
        trained.append([record for cell in cells for record in search.trial.results(cell, (0, 1, 2))])
    assert len(trained[0]) == 6
    assert all(record.status == "ok" for record in trained[0])
    assert values(trained[0]) == values(trained[1])
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_a_prescription_from_end_to_end_on_a_cluster(cluster, tmp_path):
    file = project(tmp_path / "project", tmp_path / "no hold").with_name("own.py")
    file.write_text(file.read_text().replace("os._exit(7)", "pass"))  # the audit tries other numbers in this process
    lines = []
    prescription = prescribe(str(file), 60, 2, ["leaky_relu"], says=lines.append, root=tmp_path, on="ray")
    assert prescription.to_dict()["headline"]
    assert any(line.startswith("Ray: ") for line in lines)
    assert any(line.endswith(" trains") for line in lines)


def test_a_session_case_that_cannot_travel_is_a_sentence(cluster, tmp_path):
    lock = Lock()
    case = Case(lambda: lock, lambda: None, lambda model, batch: {}, "2")
    with pytest.raises(HarnessError, match=r"travels pickled, and it cannot be: .*write it in a file"):
        RayExecutor("ray", case, None)


def test_a_cluster_that_is_not_there_is_a_sentence(tmp_path, monkeypatch, recwarn):
    pytest.importorskip("grpc")  # of Ray's client
    file = project(tmp_path / "project", tmp_path / "no hold")
    monkeypatch.setattr("ray.util.client.worker.INITIAL_TIMEOUT_SEC", 1)
    with pytest.raises(HarnessError, match="no Ray cluster answers"):
        run_experiment(file, on="ray://127.0.0.1:9", root=tmp_path)
    assert not [warning for warning in recwarn if "Ray" in str(warning.message)]
