"""An interrupt finds the store being opened, being begun, open, or silent: nothing is left RUNNING, nothing is waited for."""

import threading
from types import SimpleNamespace

import pytest
from waiting import LONGEST, until

from harness.experiment import publisher as publisher_module
from harness.experiment.publisher import Publisher


class Store:
    """Holds each call until its event is set, and writes down what was done."""

    at_once = 64

    def __init__(self):
        self.gates = {name: threading.Event() for name in ("open", "begin", "stopped")}
        self.reached, self.done = [], []

    def _passed(self, name):
        self.reached.append(name)
        assert self.gates[name].wait(LONGEST)
        self.done.append(name)

    def opened(self, uri, root, used):
        self._passed("open")
        return self

    def begin(self, name):
        self._passed("begin")

    def stopped(self, name):
        self._passed("stopped")


@pytest.fixture
def store(monkeypatch):
    store = Store()
    monkeypatch.setattr("harness.tracking.Tracker", store.opened)
    monkeypatch.setattr("harness.report.svg.load_libraries", lambda: None)
    monkeypatch.setattr(publisher_module, "PATIENCE", LONGEST)
    monkeypatch.setattr(publisher_module, "_used", lambda experiment: {})
    yield store
    for gate in store.gates.values():
        gate.set()


@pytest.fixture
def publisher(store, tmp_path):
    publisher = Publisher(SimpleNamespace(name="x"), tmp_path, None)
    publisher.prepare()
    until(lambda: store.reached == ["open"])
    return publisher


def interrupted(publisher):
    """An interrupt, in a thread of its own."""
    thread = threading.Thread(target=publisher.interrupted, daemon=True)
    thread.start()
    return thread


def test_an_experiment_that_is_being_begun_is_marked_when_it_is(store, publisher):
    store.gates["open"].set()
    until(lambda: "begin" in store.reached)
    leaving = interrupted(publisher)
    until(lambda: publisher._stopping)
    store.gates["begin"].set()
    store.gates["stopped"].set()
    until(lambda: not leaving.is_alive())
    assert store.done == ["open", "begin", "stopped"]


def test_a_store_that_is_being_opened_is_not_waited_for_and_nothing_is_begun_in_it(store, publisher):
    leaving = interrupted(publisher)
    until(lambda: not leaving.is_alive())
    assert store.done == []
    for gate in store.gates.values():
        gate.set()
    publisher._thread.join(LONGEST)
    assert store.done == ["open"]


def test_an_open_store_is_marked_and_one_that_does_not_answer_is_left(store, publisher, monkeypatch):
    monkeypatch.setattr(publisher_module, "PATIENCE", 0.05)
    store.gates["open"].set()
    store.gates["begin"].set()
    until(lambda: "begin" in store.done)
    leaving = interrupted(publisher)
    until(lambda: not leaving.is_alive())
    until(lambda: "stopped" in store.reached)
    assert store.done == ["open", "begin"]
    store.gates["stopped"].set()
    until(lambda: "stopped" in store.done)
