"""Damaged results: said, ignored, trained again; nothing hangs and nothing is a traceback.

Injected: every state of `damages.py` in a finished experiment, each looked at by the next run and by the commands that
only read.
"""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damages import MANIFESTS, STACKS, stack_file, with_content, written
from fault_injection import MEMBERS, continued, prepared

from harness.errors import HarnessError
from harness.experiment import effects, report, run_experiment
from harness.experiment.state import load_state
from harness.grid import load_experiment
from harness.results import read_manifest, read_records, read_results, stored_keys, write_manifest
from harness.tracking import store_uri

pytestmark = pytest.mark.many


@pytest.fixture(scope="module")
def whole(tmp_path_factory, empty_store):
    """A finished experiment."""
    folder = prepared(tmp_path_factory.mktemp("whole"), store=empty_store)
    assert continued(folder)["done"] == MEMBERS
    return folder


@pytest.fixture
def folder(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def results_of(folder):
    return folder / "mlruns" / "results" / "disturbed"


def said(outcome):
    """Notes of a run, without the one that the folder is a copy."""
    return [note for note in outcome["notes"] if "is a copy of" not in note]


def state_of(folder):
    return load_state(load_experiment(folder / "disturbed.yaml"), results_of(folder))


@pytest.mark.parametrize("damage", STACKS)
def test_a_damaged_stack_is_said_and_its_members_are_missing(folder, damage):
    results = results_of(folder)
    file = STACKS[damage](stack_file(results))
    records, damaged = read_records(results)
    assert damaged == [file.name]
    assert len(records) == MEMBERS // 2
    assert read_results(results, brief=True).damaged == (file.name,)
    state = state_of(folder)
    assert f"{file.name}: the file is damaged, its members are trained again" in state.notes
    assert len(state.done) == MEMBERS // 2
    stored_keys(results)


@pytest.mark.parametrize("damage", MANIFESTS)
def test_a_damaged_manifest_is_said_and_every_member_is_kept(folder, damage):
    results = results_of(folder)
    MANIFESTS[damage](results / "manifest.json")
    assert len(read_results(results).damaged) == 1
    read_manifest(results)
    state = state_of(folder)
    assert [note for note in state.notes if note.startswith("manifest.json") and "it is written again" in note]
    assert len(state.done) == MEMBERS
    for read in (effects, report):
        try:
            read("disturbed", root=folder)
        except HarnessError as error:
            assert "`harness run FILE.yaml` writes" in str(error)  # noqa: PT017


def test_healthy_results_are_not_damaged(folder):
    results = results_of(folder)
    assert read_results(results).damaged == ()
    assert state_of(folder).notes == []


def test_a_finished_experiment_is_read_without_large_fields_and_says_the_same(folder):
    results = results_of(folder)
    whole, brief = read_results(results), read_results(results, brief=True)
    assert (whole.brief, brief.brief) == (False, True)
    assert all(record.diagnosis and record.history for record in whole.records)
    assert not any(record.diagnosis or record.history or record.unit_history for record in brief.records)
    small = {"diagnosis", "examples", "history", "unit_history"}
    plain = [[{k: v for k, v in r.to_dict().items() if k not in small} for r in s.records] for s in (whole, brief)]
    assert plain[0] == plain[1]
    options = {"workers": 0, "root": folder}
    briefly = run_experiment(folder / "disturbed.yaml", **options, brief=True)
    outcome = run_experiment(folder / "disturbed.yaml", **options)
    assert briefly.trained == outcome.trained == 0
    assert {**briefly.to_dict(), "seconds": 0} == {**outcome.to_dict(), "seconds": 0}
    assert not any(record.history for record in briefly.records)
    assert all(record.history for record in outcome.records)


def test_an_unfinished_experiment_keeps_the_large_fields_of_what_is_there(folder):
    stack_file(results_of(folder)).unlink()
    outcome = run_experiment(folder / "disturbed.yaml", workers=0, root=folder, brief=True)
    assert outcome.trained == MEMBERS // 2
    assert all(record.history and record.diagnosis for record in outcome.records)


def test_a_column_of_a_newer_version_is_ignored(folder):
    results = results_of(folder)
    before = read_records(results)[0]
    file = stack_file(results)
    table = pq.read_table(file)
    with_content(file, written(table.append_column("of_a_newer_version", pa.array([1] * len(table)))))
    records, damaged = read_records(results)
    assert damaged == []
    assert {record.key: repr(record) for record in records} == {record.key: repr(record) for record in before}


def test_damaged_results_are_made_again_and_reported_once(folder):
    results = results_of(folder)
    file = STACKS["a pipe"](stack_file(results))
    MANIFESTS["a folder"](results / "manifest.json")
    first = continued(folder)
    assert (first["done"], first["trained"], first["logged"]) == (MEMBERS, MEMBERS // 2, MEMBERS)
    assert [note for note in first["notes"] if file.name in note]
    second = continued(folder)
    assert (second["trained"], said(second)) == (0, [])
    assert json.loads((results / "manifest.json").read_text())["name"] == "disturbed"
    assert not os.path.lexists(file)


@pytest.mark.parametrize(
    ("name", "damage"), [("report.html", "emptied"), ("members.csv", "removed"), ("report.json", "changed")]
)
def test_a_report_that_is_not_whole_is_made_again(folder, name, damage):
    file = folder / "mlruns" / "reports" / "disturbed" / name
    before = file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "emptied" else before[:-1] + b"?")
    outcome = run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    assert (outcome.trained, outcome.report) == (0, file.with_name("report.html"))
    if name == "members.csv":  # without a date
        assert file.read_bytes() == before
    assert file.stat().st_size > 0


@pytest.mark.parametrize("damage", ["removed", "empty", "garbage", "of another experiment"])
def test_a_store_without_the_experiment_is_filled_again_or_the_reason_is_given(folder, damage, empty_store):
    store = folder / "mlruns" / "mlflow.db"
    if damage == "of another experiment":
        shutil.copy(empty_store, store)
    elif damage == "removed":
        store.unlink()
    else:
        store.write_bytes(b"" if damage == "empty" else b"garbage" * 1000)
    outcome = continued(folder)
    if damage == "garbage":
        assert outcome["logged"] == 0
        assert [note for note in outcome["notes"] if "MLflow store" in note]
    else:
        assert (outcome["logged"], said(outcome)) == (MEMBERS, [])


def test_inputs_that_are_not_whole_are_read_again_for_a_shipped_case(tmp_path):
    (tmp_path / "x.yaml").write_text("name: x\ncase: forum\nfactors: {activation: [relu]}\nseeds: 1\n")
    experiment, results = load_experiment(tmp_path / "x.yaml"), tmp_path / "results"
    state = load_state(experiment, results)
    write_manifest(results, {**state.manifest, "inputs": {}})
    assert load_state(experiment, results).manifest["inputs"] == state.manifest["inputs"]


def test_a_store_that_is_a_link_to_itself_is_one_sentence(folder):
    store = folder / "mlruns" / "mlflow.db"
    store.unlink()
    store.symlink_to(store)
    with pytest.raises(HarnessError, match=r"mlflow.db: expected a file, got a link to itself; remove it"):
        store_uri(None, folder)
