"""Killed anywhere, a run goes on as if nothing had been: the same store, artifacts and table, nothing twice.

Injected: SIGKILL at named moments and at random ones, SIGTERM and SIGINT in the middle of training.
Counted: every row of the store, every artifact, every row of members.csv, the worker processes that are left.
"""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from disturbed import LONGEST, MEMBERS, assert_same, command, finished, left_behind, prepared, rows_of, told

from harness.results.faults import MOMENTS, VARIABLE

QUICK = ("member begun",)
CREATING = ("store migrated", "store created")


@pytest.mark.parametrize(
    "moment", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in MOMENTS]
)
def test_a_run_that_is_killed_is_resumed_to_the_same_store(tmp_path, undisturbed, empty_store, moment):
    folder = prepared(tmp_path, store=None if moment in CREATING else empty_store)
    killed = command(folder, **{VARIABLE: moment})
    told(killed)
    assert killed.returncode == -signal.SIGKILL
    assert finished(folder)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_a_run_that_is_killed_at_random_moments_is_resumed_to_the_same_store(
    tmp_path, undisturbed, usual_seconds, record_property, seed
):
    """Three runs, killed anywhere from the start of the interpreter to the report; then one to the end.

    A machine that is faster than it was when `usual_seconds` was taken may be done before: then sooner, and from new.
    """
    folder, moments, kills, longest = prepared(tmp_path), random.Random(seed), 0, 0.8 * usual_seconds
    for attempt in range(12):
        process = command(folder, *(["--fresh"] if attempt and not kills else []), PAUSE="0.05")
        try:
            process.communicate(timeout=moments.uniform(0.2, longest))
            longest *= 0.7
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=LONGEST)
            kills += 1
        if kills and attempt >= 2:
            break
    record_property("kills", kills)
    assert kills
    assert finished(folder)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


def started(folder, *arguments, pause):
    """A run in the middle of training."""
    process = command(folder, *arguments, PAUSE=pause)
    deadline = time.monotonic() + 60
    while "RUNNING" not in str(left_runs(folder)) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    assert process.poll() is None
    return process


@pytest.mark.parametrize(
    ("number", "code", "workers"),
    [
        (signal.SIGTERM, 143, "0"),
        (signal.SIGINT, 130, "2"),
        *(
            pytest.param(number, code, workers, marks=pytest.mark.slow)
            for number, code, workers in [(signal.SIGINT, 130, "0"), (signal.SIGTERM, 143, "2")]
        ),
    ],
)
def test_an_interrupted_run_is_out_in_five_seconds_marked_killed_and_can_be_resumed(
    tmp_path, empty_store, undisturbed, number, code, workers
):
    folder = prepared(tmp_path, store=empty_store)
    process = started(folder, "--workers", workers, pause="2.0")
    begun = time.monotonic()
    process.send_signal(number)
    _, error = told(process, 30)
    assert time.monotonic() - begun < 5
    assert process.returncode == code
    assert "Traceback" not in error
    assert "goes on from there" in error
    assert left_runs(folder) == [("disturbed", "KILLED")]
    assert finished(folder)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_workers_of_a_driver_that_is_gone_go_too(tmp_path, empty_store, number):
    """Two workers in the middle of a step of 60 s; counted: their processes, 5 s later."""
    folder = prepared(tmp_path, store=empty_store)
    process = command(folder, "--workers", "2", PAUSE="60")
    deadline = time.monotonic() + 60
    while len(workers_of(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = workers_of(process)
    assert len(workers) == 2
    process.send_signal(number)
    process.wait(30)
    deadline = time.monotonic() + 5
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, workers))
    process.communicate(timeout=30)


def workers_of(driver):
    """The driver's children that train, by their command."""
    listed = subprocess.run(
        ["ps", "--ppid", str(driver.pid), "-o", "pid=,args="], capture_output=True, text=True, timeout=10
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "harness.execution.worker" in line]


def is_alive(process):
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def left_runs(folder):
    return rows_of(folder / "mlruns" / "mlflow.db", "SELECT name, status FROM runs")


def test_a_second_ctrl_c_ends_a_run_at_once(tmp_path, empty_store):
    process = started(prepared(tmp_path, store=empty_store), pause="5.0")
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = told(process, 30)
    assert time.monotonic() - begun < 2
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in error


def test_a_ctrl_c_before_anything_began_is_quiet(tmp_path):
    process = command(prepared(tmp_path))
    time.sleep(0.6)  # the interpreter is up, the command may still be loading
    process.send_signal(signal.SIGINT)
    _, error = told(process, 30)
    assert process.returncode == 130
    assert "Traceback" not in error
