"""A member that is lost takes nobody with it, and leaves no number behind that is none.

Injected: a loss scaled by NaN, infinity or 1e30; a learning rate that explodes. Counted: neighbours' bits, the store.
"""

import math
import sqlite3

import pytest
from fault_injection import prepared

from harness.errors import HarnessError
from harness.experiment import run_experiment


def experiment(factors: str) -> str:
    return f"name: disturbed\ncase: own.py\n{factors}\ntrain: {{epochs: 2, batch_size: 16}}\n"


@pytest.fixture
def calm(tmp_path_factory, empty_store):
    folder = prepared(
        tmp_path_factory.mktemp("calm"), experiment=experiment("factors: {scale: [1.0]}\nseeds: 2"), store=empty_store
    )
    return {record.seed: record for record in run_experiment(folder / "disturbed.yaml", workers=0, root=folder).records}


@pytest.mark.parametrize("poison", [".nan", ".inf"])
def test_a_level_that_is_no_number_is_refused_at_the_door(tmp_path, poison):
    folder = prepared(tmp_path, experiment=experiment(f"factors: {{scale: [1.0, {poison}]}}\nseeds: 2"))
    with pytest.raises(HarnessError, match="scale"):
        run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    assert not (folder / "mlruns").exists()


def test_a_lost_member_is_a_row_and_its_neighbours_keep_every_bit(tmp_path, empty_store, calm):
    folder = prepared(tmp_path, experiment=experiment("factors: {scale: [1.0, 1e39]}\nseeds: 2"), store=empty_store)
    outcome = run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    lost = [record for record in outcome.records if record.levels["scale"] != 1.0]
    kept = [record for record in outcome.records if record.levels["scale"] == 1.0]
    assert {record.status for record in lost} == {"diverged"}
    assert all(record.diverged_step == 0 for record in lost)
    for record in kept:
        assert record.status == "ok"
        assert repr(record.history) == repr(calm[record.seed].history)
        assert repr(record.losses) == repr(calm[record.seed].losses)
    assert huge(folder) == 0


def test_when_all_members_are_lost_there_is_still_a_report(tmp_path, empty_store):
    factors = "factors: {scale: [1e39, 2e39]}\nseeds: 2"
    folder = prepared(tmp_path, experiment=experiment(factors), store=empty_store)
    outcome = run_experiment(folder / "disturbed.yaml", workers=0, root=folder)
    assert {record.status for record in outcome.records} == {"diverged"}
    assert outcome.notes == ()
    assert outcome.report.is_file()
    assert outcome.to_dict()["failed"] == 0
    assert huge(folder) == 0


def test_a_learning_rate_that_explodes_is_told_with_its_step(tmp_path, empty_store):
    factors = "factors: {learning_rate: [0.001, 1e30]}\nseeds: 1"
    folder = prepared(tmp_path, experiment=experiment(factors), store=empty_store)
    calm, lost = run_experiment(folder / "disturbed.yaml", workers=0, root=folder).records
    assert (calm.status, lost.status) == ("ok", "diverged")
    assert lost.diverged_step is not None
    assert lost.diverged_step > 0
    assert all(math.isfinite(value) for value in calm.losses.values())
    assert huge(folder) == 0


def huge(folder) -> int:
    """Rows of the store that hold an infinity in disguise."""
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as connection:
        return connection.execute("SELECT count(*) FROM metrics WHERE abs(value) > 1e300").fetchone()[0]
