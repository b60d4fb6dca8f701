"""A copy of the migrated store for each test, and a second one to compare with."""

import shutil

import pytest


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
