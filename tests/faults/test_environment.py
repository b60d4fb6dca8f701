"""Odd surroundings: works, or one clear line.

Injected: LANG=C, NO_COLOR, no home, an odd time zone, one core, no terminal, no network, a clock set back, two
processes, processes that were forked or spawned. Counted: every row of the store, every artifact.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fault_injection import MEMBERS, RUNS, Hold, assert_same, command, finished, left_behind, prepared, rows_of, told
from waiting import LONGEST, until

from harness.experiment import run_experiment
from harness.results import MemberRecord, read_records, write_stack

ODD = {
    "LANG": "C",
    "LC_ALL": "C",
    "NO_COLOR": "1",
    "HOME": "/nonexistent",
    "TZ": "Pacific/Chatham",
    "TERM": "dumb",
    "COLUMNS": "20",
    "PYTHONUTF8": "0",
}


@pytest.mark.service
def test_a_run_in_odd_surroundings_leaves_what_any_run_leaves(tmp_path, empty_store, undisturbed):
    wrapper = ("taskset", "-c", str(min(os.sched_getaffinity(0)))) if shutil.which("taskset") else ()
    if (
        shutil.which("unshare")
        and subprocess.run(["unshare", "-n", "true"], capture_output=True, timeout=LONGEST).returncode == 0
    ):
        wrapper = ("unshare", "-n", *wrapper)  # no network at all, not even to this machine
    folder = prepared(tmp_path, store=empty_store)
    out, error = told(command(folder, wrapper=wrapper, **ODD))
    assert json.loads(out)["done"] == MEMBERS, error
    assert "\x1b" not in out + error
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.long
def test_a_clock_that_was_set_back_does_not_bring_an_old_result_back(tmp_path, empty_store, monkeypatch):
    folder = prepared(tmp_path, store=empty_store)
    first = run_experiment(folder / "disturbed.yaml", workers=0, root=folder).records
    monkeypatch.setattr("harness.execution.run_stack.time.time", lambda: 1.0)
    run_experiment(folder / "disturbed.yaml", fresh=True, workers=0, root=folder)
    again, _ = read_records(folder / "mlruns" / "results" / "disturbed")
    before = {record.key: record.logged_at for record in first}
    assert {record.key for record in again} == set(before)
    assert all(record.logged_at > before[record.key] for record in again)
    assert "RUNNING" not in str(left_behind(folder)["runs"])
    assert len(left_behind(folder)["runs"]) == RUNS


@pytest.mark.service
def test_a_second_process_says_whose_experiment_it_is(tmp_path, empty_store, undisturbed):
    folder = prepared(tmp_path, store=empty_store)
    hold = Hold(folder)
    first = command(folder, **hold.environment)
    until(hold.reached, first)
    second = command(folder)
    _, error = told(second)
    assert second.returncode == 2
    assert "another process is running this experiment" in error
    hold.let_go()
    out, _ = told(first)
    assert json.loads(out)["done"] == MEMBERS
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.service
def test_two_experiments_share_one_store(tmp_path, empty_store):
    """Two processes at once; counted: each experiment's runs: members, a summary of each variant and a parent."""
    folder = prepared(tmp_path, store=empty_store)
    (folder / "other.yaml").write_text(
        (folder / "disturbed.yaml").read_text().replace("name: disturbed", "name: other")
    )
    one = command(folder)
    outcome = run_experiment(folder / "other.yaml", workers=0, root=folder)
    out, error = told(one)
    assert json.loads(out)["notes"] == [], error
    assert outcome.notes == ()
    runs = rows_of(folder / "mlruns" / "mlflow.db", "SELECT experiment_id, status FROM runs")
    assert len(runs) == 2 * RUNS
    assert {sum(run == each for run in runs) for each in set(runs)} == {RUNS}
    assert {status for _, status in runs} == {"FINISHED"}


@pytest.mark.service
def test_shards_that_are_done_are_merged_by_the_last(tmp_path, empty_store, undisturbed):
    folder = prepared(tmp_path, store=empty_store)
    first = finished(folder, "--shard", "1/2")
    assert (first["done"], first["report"]) == (2, None)
    last = finished(folder, "--shard", "2/2")
    assert last["done"] == MEMBERS
    assert last["report"] is not None
    assert_same(left_behind(folder), undisturbed)


def test_a_failed_member_is_tried_again_when_asked(tmp_path, empty_store, undisturbed):
    folder = prepared(tmp_path, store=empty_store)
    records = run_experiment(folder / "disturbed.yaml", workers=0, root=folder).records
    results = folder / "mlruns" / "results" / "disturbed"
    for file in results.glob("*.parquet"):
        file.unlink()
    failed = MemberRecord(
        key=records[0].key,
        variant=records[0].variant,
        levels=records[0].levels,
        seed=records[0].seed,
        status="failed",
        error="no memory",
        logged_at=records[0].logged_at + 1,
    )
    write_stack(results, [failed, *records[1:]])
    outcome = run_experiment(folder / "disturbed.yaml", retry_failed=True, workers=0, root=folder)
    assert outcome.trained == 1
    assert {record.status for record in outcome.records} == {"ok"}
    assert_same(left_behind(folder), undisturbed)


STARTED = """
import json, multiprocessing, sys
import harness

def work():
    frame = harness.run("disturbed.yaml", workers={workers})
    print(json.dumps(sorted(frame.status)))

{guard}
    process = multiprocessing.get_context("{method}").Process(target=work)
    process.start()
    process.join({patience})
    sys.exit(process.exitcode)
"""


@pytest.mark.service
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_within_a_process_that_was_forked_or_spawned_is_like_any(
    tmp_path, empty_store, undisturbed, method, workers
):
    folder = prepared(tmp_path, store=empty_store)
    guard = 'if __name__ == "__main__":'
    text = STARTED.format(method=method, workers=workers, guard=guard, patience=0.9 * LONGEST)
    assert script(folder, text) == ["ok"] * MEMBERS
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.service
def test_a_script_without_a_main_guard_may_use_worker_processes(tmp_path, empty_store, undisturbed):
    folder = prepared(tmp_path, store=empty_store)
    text = 'import json, harness\nprint(json.dumps(sorted(harness.run("disturbed.yaml", workers=2).status)))'
    assert script(folder, text) == ["ok"] * MEMBERS
    assert_same(left_behind(folder), undisturbed)


def script(folder, text):
    """What a user's script printed last."""
    (folder / "script.py").write_text(text)
    surroundings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=surroundings, capture_output=True, text=True, timeout=LONGEST
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
