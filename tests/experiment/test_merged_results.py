"""Shards in folders of their own, merged: the experiment as one folder would have it."""

import shutil

import pytest
from commands import within

from harness.errors import HarnessError
from harness.experiment import merge, run_experiment, synchronize
from harness.results import read_records

CASE = """
import torch
from torch import nn
import harness

def losses(model, batch, scale=1.0):
    return {"reconstruction": scale * ((model(batch) - batch) ** 2).mean()}

def model():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

case = harness.Case(model, data, losses, "0", numbers={"scale": 1.0}, train={"epochs": 1, "batch_size": 16})
"""
FILE = "name: parts\ncase: own.py\nfactors: {activation: [relu, leaky_relu]}\nseeds: 2\n"


def project(folder):
    folder.mkdir()
    (folder / "own.py").write_text(CASE)
    (folder / "x.yaml").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    root = tmp_path_factory.mktemp("nodes")
    for part in (1, 2):
        folder = project(root / f"node{part}")
        outcome = run_experiment(folder / "x.yaml", workers=0, root=folder, shard=(part, 2))
        assert (outcome.trained, outcome.report) == (2, None)
    return root


@pytest.fixture
def here(tmp_path, stored):
    folder = project(tmp_path / "here")
    return stored(folder)


@pytest.mark.long
def test_merged_shards_are_the_whole_experiment(nodes, here):
    [merged] = merge([nodes / "node1", nodes / "node2"], here)
    assert (merged.name, merged.members, merged.added, merged.notes) == ("parts", 4, 4, ())
    publication = synchronize(here / "x.yaml", root=here)
    assert (publication.logged, publication.problems) == (4, [])
    again = run_experiment(here / "x.yaml", workers=0, root=here)
    assert (again.trained, len(again.records), again.report) == (0, 4, publication.report)
    both = [record for part in (1, 2) for record in records(nodes / f"node{part}")]
    assert {record.key: repr(record) for record in records(here)} == {record.key: repr(record) for record in both}


def test_merging_again_adds_nothing(nodes, here):
    merge([nodes / "node1"], here)
    assert [(merged.members, merged.added) for merged in merge([nodes / "node1" / "mlruns"], here)] == [(2, 0)]
    results = nodes / "node2" / "mlruns" / "results" / "parts"
    assert [(merged.members, merged.added) for merged in merge([results], here)] == [(4, 2)]


def test_what_is_missing_after_merging_is_trained(nodes, here):
    merge([nodes / "node1"], here)
    outcome = run_experiment(here / "x.yaml", workers=0, root=here)
    assert (outcome.trained, outcome.logged) == (2, 4)


def test_a_damaged_file_is_left_out_and_said(nodes, here, tmp_path):
    shutil.copytree(nodes / "node1", tmp_path / "damaged")
    for file in (tmp_path / "damaged").rglob("*.parquet"):
        file.write_bytes(file.read_bytes()[:-1])
    [merged] = merge([tmp_path / "damaged"], here)
    assert merged.members == 0
    assert all(note.endswith("the file is damaged and left out") for note in merged.notes)
    assert len(merged.notes) == 1


def test_another_case_is_said(nodes, here):
    (here / "own.py").write_text(CASE.replace("manual_seed(0)", "manual_seed(1)"))
    run_experiment(here / "x.yaml", workers=0, root=here, shard=(1, 2))
    [merged] = merge([nodes / "node2"], here)
    assert merged.notes == (
        f"{nodes / 'node2' / 'mlruns' / 'results' / 'parts'}: its experiment, case or data differ: members with other "
        "inputs are not counted",
    )


def test_a_folder_without_results_is_refused(tmp_path, here):
    with pytest.raises(HarnessError, match="expected a folder with mlruns/results, or a results folder, got neither"):
        merge([tmp_path / "nothing"], here)
    run_experiment(here / "x.yaml", workers=0, root=here, shard=(1, 2))
    with pytest.raises(HarnessError, match="expected other folders, got the one that they are merged into"):
        merge([here], here)


def test_the_command_says_what_was_merged(nodes, here):
    done = within("merge", nodes / "node1", nodes / "node2", folder=here)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "parts: 4 members, 4 of them new"


def records(folder):
    return read_records(folder / "mlruns" / "results" / "parts")[0]
