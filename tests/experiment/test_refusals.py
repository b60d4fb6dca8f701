"""A request that no member can carry out is refused before anything is written; any other is run and reported."""

import io
import shutil
import sqlite3
import sys
from dataclasses import replace

import pytest

from harness.auditing import audit
from harness.case import load_case
from harness.data import split_of
from harness.errors import HarnessError
from harness.experiment import run_experiment
from harness.grid import load_experiment
from harness.planning.plan import plan
from harness.training import train

pytestmark = pytest.mark.many

CASE = """
import torch
import torch.nn.functional as F
from torch import nn

import harness


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(12, 4), nn.Linear(4, 12)

    def forward(self, x):
        return self.dec(F.relu(self.enc(x)))


def load():
    return torch.randn(100, 12, generator=torch.Generator().manual_seed(3))


def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}

"""
PLAIN = "case = harness.Case(model=Autoencoder, data=load, losses=losses, bottleneck='enc')\n"
EXPERIMENT = "name: x\ncase: x.py\nfactors: {factors}\nseeds: 2\ntrain: {{epochs: 1}}\n"


def experiment(root, more, factors="{bias_init: [default]}"):
    (root / "x.py").write_text(CASE + more)
    (root / "x.yaml").write_text(EXPERIMENT.format(factors=factors))
    return root / "x.yaml"


WRONG = {
    "a misspelt bottleneck": PLAIN.replace("'enc'", "'encc'"),
    "a loss that raises": "def losses(model, batch): raise ValueError('boom')\n" + PLAIN,
    "a factory that raises": "def Autoencoder(): raise RuntimeError('no')\n" + PLAIN,
    "a model in place of its factory": PLAIN.replace("model=Autoencoder", "model=Autoencoder()"),
    "no reconstruction": "def losses(model, batch): return {'l1': model(batch).abs().mean()}\n" + PLAIN,
    "a bare tensor": "def losses(model, batch): return model(batch).abs().mean()\n" + PLAIN,
    "a keyword that nobody gives": "def losses(model, batch, rho): return {'reconstruction': model(batch).mean()}\n"
    + PLAIN,
    "a term of nothing": "def losses(model, batch): return {'reconstruction': model(batch).mean(), 'l1': None}\n"
    + PLAIN,
    "a term of one row": "def losses(model, batch): return {'reconstruction': model(batch).mean().reshape(1)}\n"
    + PLAIN,
    "a term of text": "def losses(model, batch): return {'reconstruction': model(batch).mean(), 'l1': '0'}\n" + PLAIN,
    "data that cannot be read": "def load(): raise OSError('disk')\n" + PLAIN,
    "an optimizer that raises": PLAIN.replace("'enc')", "'enc', optimizer=lambda parameters: 1 / 0)"),
    "an optimizer that is none": PLAIN.replace("'enc')", "'enc', optimizer=list)"),
    "an output that is not there": PLAIN.replace("'enc')", "'enc', reconstruction='out:7')"),
}


@pytest.mark.parametrize("more", WRONG.values(), ids=WRONG)
def test_what_no_member_can_do_is_refused_in_the_words_of_its_plan_and_leaves_nothing(tmp_path, more):
    file = experiment(tmp_path, more)
    with pytest.raises(HarnessError) as planned:
        plan(load_experiment(file))
    with pytest.raises(HarnessError) as run:
        run_experiment(file, workers=0, root=tmp_path)
    assert str(run.value) == str(planned.value)
    assert not (tmp_path / "mlruns").exists()


OF_THE_LOSS = (
    "a loss that raises",
    "no reconstruction",
    "a bare tensor",
    "a term of nothing",
    "a term of one row",
    "a term of text",
)


@pytest.mark.parametrize("name", OF_THE_LOSS)
def test_the_audit_refuses_a_loss_in_the_words_of_the_plan(tmp_path, name):
    file = experiment(tmp_path, WRONG[name])
    with pytest.raises(HarnessError) as planned:
        plan(load_experiment(file))
    with pytest.raises(HarnessError) as audited:
        audit(load_case(tmp_path / "x.py"), during_training=False, seeds=1)
    assert str(audited.value) in str(planned.value)


@pytest.mark.parametrize("nothing", ["0.0", "0", "torch.tensor(0.0)"])
def test_a_penalty_that_is_switched_off_may_be_any_zero(tmp_path, nothing):
    losses = f"{{'reconstruction': F.mse_loss(model(batch), batch), 'kl': {nothing}}}"
    experiment(tmp_path, f"def losses(model, batch): return {losses}\n" + PLAIN)
    case = load_case(tmp_path / "x.py")
    found = audit(case, during_training=False, seeds=1)
    assert [(each.rule, each.term) for each in found.findings] == [("no_gradient", "kl")]
    last = list(train([replace(case, train={"epochs": 1})], [0], split_of(case)))[-1]
    assert last.losses["kl"].tolist() == [0.0]
    assert last.losses["total"].tolist() == last.losses["reconstruction"].tolist()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a term of nothing", "losses: term 'l1': expected a scalar tensor or a number, got None"),
        ("a term of one row", r"losses: term 'reconstruction': expected a scalar, got shape \[1\]; reduce it"),
        ("data that cannot be read", "case x: data: reading it failed with OSError: disk"),
    ],
)
def test_the_sentence_says_what_is_wanted(tmp_path, name, sentence):
    with pytest.raises(HarnessError, match=sentence):
        run_experiment(experiment(tmp_path, WRONG[name]), workers=0, root=tmp_path)


def test_a_loss_that_fails_later_is_an_error_line_of_its_plan(tmp_path):
    with pytest.raises(HarnessError, match=r"losses\(model, batch\) failed with ValueError: boom"):
        plan(load_experiment(experiment(tmp_path, LATER + PLAIN)))


def test_data_with_a_hole_leave_nothing_either(tmp_path):
    file = experiment(tmp_path, PLAIN.replace("data=load", "data=lambda: load() * float('nan')"))
    with pytest.raises(HarnessError, match="NaN"):
        run_experiment(file, workers=0, root=tmp_path)
    assert not (tmp_path / "mlruns").exists()


def test_a_case_that_asks_is_refused_where_workers_would_train_it(tmp_path, monkeypatch, empty_store):
    typed = io.StringIO("12\n" * 99)
    monkeypatch.setattr("sys.stdin", typed)
    file = experiment(tmp_path, "width = int(input())\n" + PLAIN)
    with pytest.raises(HarnessError, match=r"x.py: the case reads standard input .* --workers 0"):
        run_experiment(file, workers=1, root=tmp_path)
    assert not (tmp_path / "mlruns").exists()
    assert sys.stdin is typed
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    outcome = run_experiment(file, workers=0, root=tmp_path)
    assert [each.status for each in outcome.records] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("cut_off.pt", b"PK\x03\x04 and no more", "cannot be read as .pt"),
        ("words.csv", b"name,size\nann,1\n", "these columns hold something else: name; leave them out"),
        ("empty.csv", b"", "the file is empty"),
    ],
    ids=["cut off", "words", "empty"],
)
def test_a_data_file_that_cannot_be_used_leaves_nothing_either(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    file = experiment(tmp_path, PLAIN)
    file.write_text(f"{file.read_text()}data: {name}\n")
    with pytest.raises(HarnessError, match=f"{name}: .*{sentence}") as planned:
        plan(load_experiment(file))
    with pytest.raises(HarnessError) as run:
        run_experiment(file, workers=0, root=tmp_path)
    assert str(run.value) == str(planned.value)
    assert not (tmp_path / "mlruns").exists()


def test_an_optimizer_that_was_made_before_is_not_made_again(tmp_path, empty_store):
    """Making the first one costs torch a second or more: a finished run is answered without."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    made = (
        "def optimizer(parameters):\n    open('made', 'a').write('x')\n    return torch.optim.SGD(parameters, lr=0.1)\n"
    )
    made = made.replace("'made'", repr(str(tmp_path / "made")))
    file = experiment(tmp_path, made + PLAIN.replace("'enc')", "'enc', optimizer=optimizer)"))
    assert run_experiment(file, workers=0, root=tmp_path).trained == 2
    (tmp_path / "made").unlink()
    assert run_experiment(file, workers=0, root=tmp_path).trained == 0
    assert not (tmp_path / "made").exists()


def test_a_refused_run_takes_nothing_of_an_earlier_one(tmp_path):
    kept = tmp_path / "mlruns" / "results" / "x" / "kept.parquet"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    with pytest.raises(HarnessError, match="encc"):
        run_experiment(experiment(tmp_path, WRONG["a misspelt bottleneck"]), workers=0, root=tmp_path)
    assert kept.is_file()


def test_a_loss_that_cannot_be_batched_after_all_is_a_note_of_its_run(tmp_path, empty_store):
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    asks = "def losses(model, batch):\n    made = model(batch)\n    len(batch) > 8 and print(float(made.sum()))\n"
    asks += "    return {'reconstruction': F.mse_loss(made, batch)}\n"
    outcome = run_experiment(experiment(tmp_path, asks + PLAIN), workers=0, root=tmp_path)
    assert [each.status for each in outcome.records] == ["ok", "ok"]
    (note,) = outcome.notes
    assert note.startswith("2 members trained one by one: it cannot be batched: RuntimeError: vmap: ")
    (tag,) = {row[0] for row in tags(tmp_path, "alone")}
    assert note.endswith(tag)


def tags(root, name):
    with sqlite3.connect(root / "mlruns" / "mlflow.db") as store:
        return store.execute("SELECT value FROM tags WHERE key = ?", [name]).fetchall()


def test_a_term_that_is_gone_later_is_named_in_the_record(tmp_path, empty_store):
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    gone = LATER.replace("""raise ValueError("boom")""", """return {"reconstruction": None}""").replace("> 2", "> 6")
    outcome = run_experiment(experiment(tmp_path, gone + PLAIN), workers=0, root=tmp_path)
    assert {each.error for each in outcome.records} == {
        "x: losses: term 'reconstruction': expected a scalar tensor or a number, got None"
    }


LATER = """
import itertools
calls = itertools.count(1)
def losses(model, batch):
    if next(calls) > 2:
        raise ValueError("boom")
    return {"reconstruction": F.mse_loss(model(batch), batch)}
"""


def test_members_that_fail_and_an_audit_that_does_are_reported(tmp_path, empty_store):
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    outcome = run_experiment(experiment(tmp_path, LATER + PLAIN), workers=0, root=tmp_path)
    assert [each.status for each in outcome.records] == ["failed", "failed"]
    page = outcome.report.read_text()
    assert "the audit failed: " in page
    assert "boom" in page


HEAVY = """
def losses(model, batch, l1=1.0):
    code = F.relu(model.enc(batch))
    return {"reconstruction": F.mse_loss(model(batch), batch), "l1": l1 * code.abs().mean()}

"""


@pytest.mark.parametrize(("weight", "found"), [(40.0, True), (0.02, False)])
def test_a_risk_that_the_audit_of_a_run_finds_stands_under_why(tmp_path, empty_store, weight, found):
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    case = HEAVY + PLAIN.replace("'enc')", f"'enc', numbers={{'l1': {weight}}})")
    outcome = run_experiment(experiment(tmp_path, case), workers=0, root=tmp_path)
    why = outcome.report.read_text().split('id="explanation">Why')[1].split("</section>")[0]
    assert ("The audit of the penalty reports the risk dominates:" in why) is found


def test_where_one_width_can_be_built_the_others_are_failed_members(tmp_path):
    narrow = """
class Narrow(Autoencoder):
    def __init__(self, units):
        super().__init__()
        if units == 2:
            raise RuntimeError("too narrow")
        self.enc, self.dec = nn.Linear(12, units), nn.Linear(units, 12)
"""
    from harness.execution.first_look import fingerprints

    file = experiment(tmp_path, narrow + PLAIN.replace("Autoencoder", "Narrow"), "{units: [2, 3]}")
    assert fingerprints(load_experiment(file))["bottleneck"] == "enc"
    with pytest.raises(HarnessError, match="too narrow"):
        fingerprints(
            load_experiment(experiment(tmp_path, narrow + PLAIN.replace("Autoencoder", "Narrow"), "{units: [2]}"))
        )
