"""Shared by the fault tests: one migrated store a session, and one run that nobody disturbed."""

import pytest
from disturbed import finished, left_behind, prepared

from harness.tracking import create_store, store_uri


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    create_store(store_uri(None, root))
    return root / "mlruns" / "mlflow.db"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, empty_store):
    folder = prepared(tmp_path_factory.mktemp("undisturbed"), store=empty_store)
    assert finished(folder)["done"] == 4
    return left_behind(folder)
