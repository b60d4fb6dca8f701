"""Shared by the fault tests: one run that nobody disturbed."""

import signal
import time

import pytest
from disturbed import finished, left_behind, prepared

LONGEST_TEST = 900  # seconds; the long fuzzing takes minutes


@pytest.fixture(autouse=True)
def _no_test_hangs():
    """A test that hangs fails, and says where."""

    def late(number, frame):
        raise TimeoutError(f"not done after {LONGEST_TEST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_TEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, empty_store):
    folder = prepared(tmp_path_factory.mktemp("undisturbed"), store=empty_store)
    assert finished(folder)["done"] == 4
    return left_behind(folder)


@pytest.fixture(scope="session")
def usual_seconds(tmp_path_factory):
    """How long an undisturbed run takes that has to create its store, with the pauses of the random kills."""
    begun = time.monotonic()
    finished(prepared(tmp_path_factory.mktemp("usual")), PAUSE="0.05")
    return time.monotonic() - begun
