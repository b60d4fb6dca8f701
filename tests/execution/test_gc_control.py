"""Workers are started before the data are read where something is certain to be run, and nowhere else."""

import gc
import subprocess
import sys

import pytest
from filelock import FileLock

from harness.errors import HarnessError
from harness.execution import worker_client
from harness.execution.gc_control import gc_paused
from harness.experiment import driver, run_experiment
from harness.grid import load_experiment
from harness.results import MemberRecord, write_stack

FILE = "name: early\ncase: {case}\nfactors: {{penalty: [as_posted, none]}}\nseeds: {seeds}\n"
OWN = "import harness\ncase = harness.Case(None, None, None, 'x')\n"


class Stopped(Exception):
    """The test has seen enough."""


@pytest.fixture
def started(monkeypatch):
    """The workers that were started, and those of them that lived when the data were to be read."""
    found = {"all": [], "alive": 0}

    def new_worker():
        found["all"].append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]))
        return found["all"][-1]

    def prepare(*arguments, **options):
        found["alive"] = sum(each.poll() is None for each in found["all"])
        raise Stopped

    monkeypatch.setattr(worker_client, "new_worker", new_worker)
    monkeypatch.setattr(driver, "load_state", prepare)
    return found


def begin(root, case="forum", seeds=2, **options):
    (root / "own.py").write_text(OWN)
    (root / "early.yaml").write_text(FILE.format(case=case, seeds=seeds))
    with pytest.raises(Stopped):
        run_experiment(root / "early.yaml", root=root, **options)


@pytest.mark.parametrize(
    ("options", "count"), [({"workers": 1}, 1), ({"workers": 9}, 2), ({"workers": 9, "shard": (2, 2)}, 1)]
)
def test_a_new_experiment_of_a_shipped_case_has_its_workers_at_once(tmp_path, started, options, count):
    """Two penalties are two stacks, and a stack is one worker's."""
    begin(tmp_path, **options)
    assert len(started["all"]) == started["alive"] == count
    assert not any(each.poll() is None for each in started["all"])  # given up, and none is left


def test_to_start_over_is_certain_as_well(tmp_path, started):
    write_stack(tmp_path / "mlruns" / "results" / "early", [MemberRecord("k", "v", {}, 0)])
    begin(tmp_path, fresh=True, workers=2)
    assert started["alive"] == 2


def test_where_results_are_there_nothing_is_certain(tmp_path, started):
    write_stack(tmp_path / "mlruns" / "results" / "early", [MemberRecord("k", "v", {}, 0)])
    begin(tmp_path, workers=2)
    assert not started["all"]


def test_a_case_file_may_be_wrong_and_is_read_first_by_one_worker(tmp_path, started):
    begin(tmp_path, case="own.py", workers=2)
    assert started["alive"] == 1


def test_without_workers_none_is_started(tmp_path, started):
    begin(tmp_path, workers=0)
    assert not started["all"]


def test_a_shard_without_stacks_starts_none(tmp_path, started):
    begin(tmp_path, workers=2, shard=(3, 3))
    assert not started["all"]


def test_a_wrong_request_starts_none(tmp_path, started):
    (tmp_path / "early.yaml").write_text(FILE.format(case="forum", seeds="many"))
    with pytest.raises(HarnessError, match="seeds"):
        run_experiment(tmp_path / "early.yaml", root=tmp_path, workers=2)
    assert not started["all"]


def test_an_experiment_that_another_process_runs_starts_none(tmp_path, started):
    folder = tmp_path / "mlruns" / "results" / "early"
    folder.mkdir(parents=True)
    (tmp_path / "early.yaml").write_text(FILE.format(case="forum", seeds=2))
    with FileLock(folder / ".lock"), pytest.raises(HarnessError, match="another process"):
        run_experiment(load_experiment(tmp_path / "early.yaml"), root=tmp_path, workers=2)
    assert not started["all"]


def test_garbage_is_collected_again_once_the_libraries_are_there():
    with gc_paused(), gc_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(Stopped), gc_paused():
        raise Stopped
    assert gc.isenabled()
