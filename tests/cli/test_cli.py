"""The command line as a newcomer meets it: one clear message, the right exit code, nothing written."""

import json
from pathlib import Path

import pytest
from commands import ROOT, harness, python, within

from harness.experiment import run_experiment

pytestmark = pytest.mark.many

EXPERIMENT = """
name: tiny
case: own_case.py
factors: {{bias_init: [default, zero]}}
seeds: {seeds}
train: {{epochs: 1, batch_size: 16}}
"""
OWN = """
import torch
from torch import nn
import harness

print("in case")

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch):
    print("in loss")
    return {"reconstruction": ((model(batch) - batch) ** 2).mean()}

case = harness.Case(build, data, losses, "2")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_case.py").write_text(OWN)
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT.format(seeds=2))
    return tmp_path


def test_help_names_every_verb(folder):
    done = harness("--help", folder=folder)
    assert done.returncode == 0
    for verb in ("run", "diagnose", "audit", "plan", "effects", "report", "ui", "sync", "merge"):
        assert verb in done.stdout


def test_what_a_command_loaded_is_not_searched_for_garbage_before_it_ends():
    code = (
        "import atexit, gc, sys; sys.argv = ['harness', '--help']\n"
        "atexit.register(lambda: print(len(gc.get_objects()) < gc.get_freeze_count()))\n"
        "from harness.cli import main\n"
        "main()"
    )
    assert python(code, folder=ROOT).stdout.splitlines()[-1] == "True"


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['harness', '--help']\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', [m for m in ('torch', 'mlflow', 'pandas', 'seaborn', 'scipy', 'numpy') if m in sys.modules])"
    )
    assert "LOADED []" in python(code, folder=ROOT).stdout


def test_a_plan_loads_torch_and_computes_with_one_thread(tmp_path):
    (tmp_path / "planned.yaml").write_text("name: planned\ncase: forum\nfactors: {penalty: [none]}\nseeds: 2\n")
    code = (
        "import sys; sys.argv = ['harness', 'plan', 'planned.yaml']\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('mlflow', 'pandas', 'pyarrow', 'scipy.stats', 'seaborn', 'sklearn')\n"
        "print('LOADED', [m for m in heavy if m in sys.modules], sys.modules['torch'].get_num_threads())"
    )
    done = python(code, folder=tmp_path, OMP_NUM_THREADS="2")
    assert "LOADED [] 1" in done.stdout, done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory, stored):
    """A tiny experiment of a case that prints, run once, with as many workers as there are cores."""
    folder = stored(tmp_path_factory.mktemp("finished"))
    (folder / "own_case.py").write_text(OWN)
    (folder / "tiny.yaml").write_text(EXPERIMENT.format(seeds=2))
    return folder, harness("run", "tiny.yaml", "--json", folder=folder)


def test_a_run_prints_one_document_and_nothing_else(finished):
    _, done = finished
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "in case" in done.stderr
    assert "in loss" in done.stderr
    assert {"experiment", "members", "done", "failed", "steps_per_epoch", "seconds", "report"} <= document.keys()
    assert (document["experiment"], document["members"], document["done"], document["failed"]) == ("tiny", 4, 4, 0)
    assert document["steps_per_epoch"] == 2  # 32 training rows in batches of 16
    assert Path(document["report"]).is_file()


def test_a_finished_run_is_answered_from_its_results(finished):
    folder, first = finished
    again = json.loads(harness("run", "tiny.yaml", "--json", folder=folder).stdout)
    assert again["trained"] == 0
    assert again["members"] == 4
    assert again["verdicts"] == json.loads(first.stdout)["verdicts"]


def test_a_factor_that_is_added_later_orphans_nothing(finished):
    folder, _ = finished
    (folder / "more.yaml").write_text(
        "name: tiny\ncase: own_case.py\nfactors: {bias_init: [default, zero], dropout: [0.0, 0.2]}\nseeds: 2\n"
        "train: {epochs: 1, batch_size: 16}\n"
    )
    outcome = run_experiment(folder / "more.yaml", workers=0, root=folder)
    assert (len(outcome.records), outcome.trained) == (8, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "none.yaml"), "none.yaml"),
        (("plan", "none.yaml"), "none.yaml"),
        (("run", "tiny.yaml", "--shard", "3/2"), "--shard"),
        (("run", "tiny.yaml", "--retry", "all"), "--retry"),
        (("audit", "form"), "did you mean 'forum'"),
        (("ui",), "no MLflow store"),
        (("sync",), "expected the experiment's YAML file"),
        (("sync", "tiny.yaml"), "no results"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_exit_code_2(folder, arguments, message):
    # one in a process: what `main` makes of a sentence is the same for all
    done = (harness if arguments == ("run", "none.yaml") else within)(*arguments, folder=folder)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.rglob("*.parquet"))


def test_a_remedy_that_finds_no_place_is_a_failed_row_and_exit_code_3(folder, stored):
    (folder / "tiny.yaml").write_text(
        "name: tiny\ncase: own_case.py\nfactors: {units: [2, 3]}\nseeds: 1\ntrain: {epochs: 1, batch_size: 16}\n"
    )
    done = within("run", "tiny.yaml", "--json", "--workers", "0", folder=stored(folder))
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["failed"] == 2


def test_two_processes_do_not_run_one_experiment_together(folder):
    from filelock import FileLock

    results = folder / "mlruns" / "results" / "tiny"
    results.mkdir(parents=True)
    with FileLock(results / ".lock"):
        done = harness("run", "tiny.yaml", folder=folder)
    assert done.returncode == 2
    assert "another process is running this experiment" in done.stderr


def test_a_folder_that_cannot_be_written_is_said(folder):
    (folder / "mlruns").write_text("a file, not a folder")
    done = harness("run", "tiny.yaml", folder=folder)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_finished_experiment_of_a_shipped_case_is_answered_without_torch_mlflow_or_seaborn(tmp_path, stored):
    (tmp_path / "short.yaml").write_text(
        "name: short\ncase: forum\nfactors: {penalty: [none]}\nseeds: 1\ntrain: {epochs: 1}\n"
    )
    assert run_experiment(tmp_path / "short.yaml", workers=0, root=stored(tmp_path)).trained == 1
    code = (
        "import sys\nfrom harness.experiment import run_experiment\n"
        "outcome = run_experiment('short.yaml')\n"
        "print(outcome.trained, [m for m in ('torch', 'mlflow', 'seaborn', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = python(code, folder=tmp_path)
    assert done.stdout.strip() == "0 []", done.stderr
