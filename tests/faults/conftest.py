"""Shared by the fault tests: one run that nobody disturbed."""

import resource
import signal

import pytest
from fault_injection import MEMBERS, continued, finished, left_behind, prepared

LONGEST_TEST = 7200  # seconds; the long fuzzing takes minutes, and on a busy machine many


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
    assert continued(folder)["done"] == MEMBERS
    return left_behind(folder)


@pytest.fixture(scope="session")
def usual_processor_seconds(tmp_path_factory):
    """What an undisturbed run takes of the processor that has to create its store."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished(prepared(tmp_path_factory.mktemp("usual")))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
