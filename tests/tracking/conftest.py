"""A copy of the migrated store for each test, and a second one to compare with."""

import pytest


@pytest.fixture
def root(stored, tmp_path):
    return stored(tmp_path / "one")


@pytest.fixture
def other_root(stored, tmp_path):
    return stored(tmp_path / "two")
