"""Killed anywhere, a run goes on as if nothing had been: the same store, artifacts and table, nothing twice.

Injected: SIGKILL at named moments and at random ones, SIGTERM and SIGINT in the middle of training.
Counted: every row of the store, every artifact, every row of members.csv.
"""

import random
import signal
import subprocess
import time

import pytest
from disturbed import MEMBERS, assert_same, command, finished, left_behind, prepared

from harness.results.faults import MOMENTS, VARIABLE

QUICK = ("stack written", "member begun")
CREATING = ("store migrated", "store created")


@pytest.mark.parametrize(
    "moment", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in MOMENTS]
)
def test_a_run_that_is_killed_is_resumed_to_the_same_store(tmp_path, undisturbed, empty_store, moment):
    folder = prepared(tmp_path, store=None if moment in CREATING else empty_store)
    killed = command(folder, **{VARIABLE: moment})
    killed.communicate(timeout=180)
    assert killed.returncode == -signal.SIGKILL
    assert finished(folder)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_a_run_that_is_killed_at_a_random_moment_is_resumed_to_the_same_store(tmp_path, undisturbed, seed):
    """Three kills, each up to 10 seconds after the start, the creation of the store included; then to the end."""
    folder, moments = prepared(tmp_path, pause=0.05), random.Random(seed)
    for _ in range(3):
        process = command(folder)
        try:
            process.communicate(timeout=moments.uniform(0.5, 10.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    assert finished(folder)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


def started(folder):
    """A run in the middle of training."""
    process = command(folder)
    deadline = time.monotonic() + 60
    while not list(folder.glob("mlruns/results/*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)
    assert process.poll() is None
    return process


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_an_interrupted_run_is_out_in_five_seconds_and_can_be_resumed(tmp_path, empty_store, undisturbed, number, code):
    folder = prepared(tmp_path, pause=2.0, store=empty_store)
    process = started(folder)
    begun = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == code
    assert "Traceback" not in error
    assert "goes on from there" in error
    assert "RUNNING" not in str(left_runs(folder))
    prepared(folder)  # without the pauses: a case's file counts, so all is trained again
    assert finished(folder)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


def left_runs(folder):
    import sqlite3

    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as connection:
        return connection.execute("SELECT name, status FROM runs").fetchall()


def test_a_second_ctrl_c_ends_a_run_at_once(tmp_path, empty_store):
    process = started(prepared(tmp_path, pause=5.0, store=empty_store))
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - begun < 2
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in error


def test_a_ctrl_c_before_anything_began_is_quiet(tmp_path):
    process = command(prepared(tmp_path))
    time.sleep(0.6)  # the interpreter is up, the command may still be loading
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in error
