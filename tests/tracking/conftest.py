"""One migrated store a session, copied for each test."""

import shutil

import pytest

from harness.tracking import create_store, store_uri


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """Creating a store takes seconds: once a session."""
    root = tmp_path_factory.mktemp("store")
    create_store(store_uri(None, root))
    return root / "mlruns" / "mlflow.db"


@pytest.fixture
def root(empty_store, tmp_path, monkeypatch):
    return _with_store(empty_store, tmp_path / "one", monkeypatch)


@pytest.fixture
def other_root(empty_store, tmp_path, monkeypatch):
    return _with_store(empty_store, tmp_path / "two", monkeypatch)


def _with_store(empty_store, root, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (root / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, root / "mlruns" / "mlflow.db")
    return root
