"""Killed anywhere, a run goes on as if nothing had been: the same store, artifacts and table, nothing twice.

Injected: SIGKILL at named moments, an end at random moments, SIGTERM and SIGINT in the middle of training.
Counted: every row of the store, every artifact, every row of members.csv, the worker processes that are left.
Moments are what a run has done or has spent of the processor, never a time after its start.
"""

import random
import signal
from pathlib import Path

import pytest
from crash_points import MOMENTS, before_main
from fault_injection import MEMBERS, Hold, assert_same, command, continued, left_behind, prepared, rows_of, told
from waiting import LONGEST, until

QUICK = ("member begun",)
CREATING = ("store migrated", "store created")
# without the bounds of an interrupted run, which a busy machine may reach before its store is done
PATIENT = f"""
import harness.cli.signals, harness.experiment.publisher
harness.cli.signals.LATEST = harness.experiment.publisher.PATIENCE = {LONGEST}
"""


@pytest.mark.parametrize(
    "moment", [each if each in QUICK else pytest.param(each, marks=pytest.mark.service) for each in MOMENTS]
)
def test_a_run_that_is_killed_is_resumed_to_the_same_store(tmp_path, undisturbed, empty_store, moment):
    folder = prepared(tmp_path, store=None if moment in CREATING else empty_store)
    killed = command(folder, before=before_main(moment))
    told(killed)
    assert killed.returncode == -signal.SIGKILL
    assert continued(folder)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.service
@pytest.mark.parametrize("seed", range(30))
def test_a_run_that_ends_at_random_moments_is_resumed_to_the_same_store(
    tmp_path, undisturbed, usual_processor_seconds, record_property, seed
):
    """Three runs, ended by the system anywhere from their first line to the report; then one to the end.

    The system counts what a run spends of the processor, and ends it without a word when it is so much. A run that spends
    less than `usual_processor_seconds` may be done before: then sooner, and from new.
    """
    folder, moments, ended, longest = prepared(tmp_path), random.Random(seed), 0, 0.8 * usual_processor_seconds
    for attempt in range(12):
        alarm = f"import signal; signal.setitimer(signal.ITIMER_PROF, {moments.uniform(0.05, longest)})"
        process = command(folder, *(["--fresh"] if attempt and not ended else []), before=alarm)
        told(process)
        assert process.returncode in (0, -signal.SIGPROF)
        if process.returncode:
            ended += 1
        else:
            longest *= 0.7
        if ended and attempt >= 2:
            break
    record_property("ended", ended)
    assert ended
    assert continued(folder)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


def in_training(folder, *arguments, before=PATIENT):
    """A run in the middle of training, with its store open."""
    hold = Hold(folder)
    process = command(folder, *arguments, before=before, **hold.environment)
    until(hold.reached, process)
    until(lambda: "RUNNING" in str(left_runs(folder)), process)
    return process


@pytest.mark.parametrize(
    ("number", "code", "workers"),
    [
        (signal.SIGTERM, 143, "0"),
        *(
            pytest.param(number, code, workers, marks=pytest.mark.service)
            for number, code, workers in [
                (signal.SIGINT, 130, "0"),
                (signal.SIGTERM, 143, "2"),
                (signal.SIGINT, 130, "2"),
            ]
        ),
    ],
)
def test_an_interrupted_run_is_out_marked_killed_and_can_be_resumed(
    tmp_path, empty_store, undisturbed, number, code, workers
):
    """The training that it is in the middle of never ends by itself; tests/cli/test_signals.py has the five seconds."""
    folder = prepared(tmp_path, store=empty_store)
    process = in_training(folder, "--workers", workers)
    process.send_signal(number)
    _, error = told(process)
    assert process.returncode == code
    assert "Traceback" not in error
    assert "goes on from there" in error
    assert left_runs(folder) == [("disturbed", "KILLED")]
    assert continued(folder)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.service)])
def test_the_workers_of_a_driver_that_is_gone_go_too(tmp_path, empty_store, number):
    """Two workers, one at least in the middle of a step that never ends; counted: their processes."""
    folder = prepared(tmp_path, store=empty_store)
    hold = Hold(folder)
    process = command(folder, "--workers", "2", **hold.environment)
    until(lambda: hold.reached() and len(workers_of(process)) == 2, process)
    workers = workers_of(process)
    process.send_signal(number)
    told(process)
    until(lambda: not any(map(is_alive, workers)))


def workers_of(driver):
    """The driver's children that train, by their command."""
    return [child for child in children_of(driver.pid) if b"harness.execution.worker" in command_of(child)]


def children_of(parent):
    processes = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [process for process in processes if status_of(process)[1:2] == [str(parent)]]


def command_of(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # gone meanwhile
        return b""


def is_alive(process):
    return status_of(process)[:1] not in ([], ["Z"])


def status_of(process):
    """State, parent and what follows them; nothing of a process that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def left_runs(folder):
    return rows_of(folder / "mlruns" / "mlflow.db", "SELECT name, status FROM runs")


SILENT = f"""{PATIENT}
from harness.tracking import Tracker
def silent(tracker, name):
    import threading
    open("asked", "w").close()
    threading.Event().wait()
Tracker.stopped = silent
"""


def test_a_second_ctrl_c_ends_a_run_at_once(tmp_path, empty_store):
    """The first is waiting for a store that never answers, and would for ever."""
    folder = prepared(tmp_path, store=empty_store)
    process = in_training(folder, before=SILENT)
    process.send_signal(signal.SIGINT)
    until((folder / "asked").exists, process)
    process.send_signal(signal.SIGINT)
    _, error = told(process)
    assert process.returncode == 130
    assert "Traceback" not in error


COMMANDS = """
import harness.cli
def register():
    import time
    open("loading", "w").close()
    time.sleep(3600)
harness.cli._register = register
"""
CASE = """
import time
open("loading", "w").close()
time.sleep(3600)
"""


@pytest.mark.parametrize("loading", ["its commands", "the case"])
def test_a_ctrl_c_before_anything_began_is_quiet(tmp_path, loading):
    folder = prepared(tmp_path)
    if loading == "the case":
        (folder / "own.py").write_text(CASE)
    process = command(folder, before=COMMANDS if loading == "its commands" else "")
    until((folder / "loading").exists, process)
    process.send_signal(signal.SIGINT)
    _, error = told(process)
    assert process.returncode == 130
    assert "Traceback" not in error
