"""Trained models of members: kept weights, weights of a second training, and the outputs that they reproduce."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from commands import within
from mlflow import MlflowClient
from safetensors.torch import load_file
from small_case import CASE
from torch import nn

import harness
from harness.errors import HarnessError
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.execution.wire import dump_records, load_records
from harness.report.remedy_code import code_of
from harness.results import MemberRecord
from harness.results.weights import extremes

pytestmark = pytest.mark.many

EXPERIMENT = """
name: small
case: small.py
remedies: [{batchnorm: on}, {activation: leaky_relu}, {bias_init: zero}]
seeds: 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, stored):
    folder = stored(tmp_path_factory.mktemp("models"))
    (folder / "small.py").write_text(CASE)
    (folder / "small.yaml").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        harness.run("small.yaml", workers=0)
        yield folder


@pytest.fixture(scope="module")
def results(folder):
    return harness.run("small.yaml", workers=0)


def held_out() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(32, 3, generator=generator) @ torch.ones(3, 8).cumsum(1) + torch.rand(32, 8, generator=generator)


def weights_of(folder) -> set[str]:
    return {path.stem for path in (folder / "mlruns" / "results" / "small" / "weights").glob("*.safetensors")}


def test_the_worst_member_of_the_baseline_and_the_best_of_each_remedy_are_kept(folder, results):
    shown = set()
    for variant, members in results.members.groupby("variant", sort=False):
        usable = members.assign(failed=members.failed.astype(bool), collapsed=members.collapsed.astype(bool))
        order = usable.sort_values(["failed", "collapsed", "r2"], ascending=[False, False, True])
        shown.add(order.iloc[0 if variant == results.members.variant[0] else -1].key)
    assert len(shown) == 4
    assert shown <= weights_of(folder)


def test_weights_from_mlflow_are_those_of_the_model(folder, results):
    client = MlflowClient(f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small").experiment_id
    parents = client.search_runs([experiment])
    runs = [run for run in parents if client.list_artifacts(run.info.run_id, "weights")]
    assert len(runs) == 1
    logged = {Path(item.path).stem: item.path for item in client.list_artifacts(runs[0].info.run_id, "weights")}
    assert set(logged) == weights_of(folder)
    for key, path in logged.items():
        state = load_file(client.download_artifacts(runs[0].info.run_id, path))
        model = results.model(key)
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_a_loaded_model_reproduces_the_recorded_numbers_on_the_held_out_rows(results):
    rows = held_out()
    for _, member in results.members.iterrows():
        model = results.model(member.key)
        assert isinstance(model, nn.Module)
        assert not model.training
        with torch.no_grad():
            output = model(rows)
        total = ((rows - rows.mean(0)).double() ** 2).sum()
        r2 = 1 - ((output - rows).double() ** 2).sum() / total
        assert float(r2) == pytest.approx(member.r2, abs=1e-6)  # float32 sums
        assert float(F.mse_loss(output, rows)) == pytest.approx(member["loss/reconstruction"], rel=1e-5)


def test_a_member_trained_again_has_the_weights_of_the_run(folder, results):
    key = next(iter(weights_of(folder)))
    file = folder / "mlruns" / "results" / "small" / "weights" / f"{key}.safetensors"
    kept = file.read_bytes()
    file.unlink()
    results.model(key)
    assert file.read_bytes() == kept


def test_a_run_that_is_continued_keeps_the_weights(folder):
    before = weights_of(folder)
    harness.run("small.yaml", workers=0)
    assert weights_of(folder) == before


def test_a_member_is_found_by_key_prefix_and_name(results):
    key, name = results.members.key[0], f"{results.members.variant[0]} s0"
    states = [results.model(word).state_dict() for word in (key, key[:8], name)]
    assert all(torch.equal(states[0][entry], other[entry]) for other in states for entry in states[0])


def test_an_unknown_member_is_refused(results):
    with pytest.raises(HarnessError, match=r"small: no member is called 'leaky_relu s9'; did you mean 'leaky_relu s"):
        results.model("leaky_relu s9")
    with pytest.raises(HarnessError, match="small: no member is called 'zzzzzz'"):
        results.model("zzzzzz")


def test_a_member_whose_result_cannot_be_repeated_is_refused(folder, results):
    code = folder / "small.py"
    other = code.read_text().replace("0.01}", "0.02}")
    code.write_text(other)
    try:
        with pytest.raises(HarnessError, match="the case's file changed since the last run"):
            results.model(results.members.key[0])
    finally:
        code.write_text(CASE)


def test_the_command_writes_a_state_dict(folder):
    from safetensors.torch import load_file

    done = within("model", "small", "--member", "leaky_relu s1", "--output", "cured.safetensors", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "leaky_relu s1:" in done.stdout
    state = load_file(folder / "cured.safetensors")
    assert state["model.code.weight"].shape == (3, 6)


def test_the_command_refuses_a_bad_key_in_one_line(folder):
    done = within("model", "small", "--member", "nobody", folder=folder)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "Error: small: no member is called 'nobody'; members.csv beside the report has the keys"
    )


def members(count: int) -> tuple[StackMember, ...]:
    return tuple(StackMember(str(seed), "v", {}, seed) for seed in range(count))


def test_keeping_weights_changes_no_record(folder):
    records = [
        run_stack(StackSpec(str(folder / "small.py"), None, members(2), keep_weights=k)) for k in ("none", "all")
    ]
    without, every = ([{**r.to_dict(), "seconds": 0, "logged_at": 0} for r in stack] for stack in records)
    assert str(without) == str(every)  # text: NaN equals NaN
    assert [bool(record.weights) for stack in records for record in stack] == [False, False, True, True]


def test_weights_travel_with_a_workers_records(folder):
    sent = run_stack(StackSpec(str(folder / "small.py"), None, members(2), keep_weights="all"))
    received = list(load_records(dump_records(sent)))
    assert [record.weights for record in received] == [record.weights for record in sent]
    assert [record.diagnosis for record in received] == [record.diagnosis for record in sent]


def test_weights_are_no_part_of_a_record():
    record = MemberRecord("k", "v", {}, 0, weights=b"many")
    assert "weights" not in record.to_dict()
    assert record == MemberRecord("k", "v", {}, 0)


def test_a_failed_member_is_worse_than_a_usable_one_with_less_r2():
    usable = MemberRecord("a", "v", {}, 0, verdict="healthy", r2=0.1)
    failed = MemberRecord("b", "v", {}, 1, verdict="full_collapse", r2=0.9)
    diverged = MemberRecord("c", "v", {}, 2, status="diverged")
    assert extremes([usable, failed, diverged]) == (failed, usable)
    assert extremes([diverged]) is None


def test_an_unknown_value_of_keep_weights_is_refused(tmp_path):
    (tmp_path / "small.py").write_text(CASE)
    (tmp_path / "bad.yaml").write_text(EXPERIMENT + "keep_weights: some\n")
    with pytest.raises(HarnessError, match="keep_weights: expected shown, all, none, got 'some'"):
        harness.run(str(tmp_path / "bad.yaml"))


def test_every_member_is_kept_on_request_and_none_on_request(tmp_path, stored, monkeypatch):
    for keep, count in (("all", 4), ("none", 0)):
        root = stored(tmp_path / keep)
        (root / "small.py").write_text(CASE)
        text = EXPERIMENT.replace("seeds: 3", f"seeds: 2\nkeep_weights: {keep}")
        (root / "small.yaml").write_text(text.replace("[{batchnorm: on}, {activation: leaky_relu}, ", "["))
        monkeypatch.chdir(root)
        harness.run("small.yaml", workers=0)
        assert len(weights_of(root)) == count


def test_the_report_prints_the_diff_of_the_users_own_source(folder, results):
    line = "+        return self.decoder(F.relu(self.code_norm(self.code(F.relu(self.first(batch))))))"
    stored = json.loads((folder / "mlruns" / "results" / "small" / "manifest.json").read_text())
    assert line in stored["code"]["batchnorm: on"].splitlines()
    assert "code" not in stored["audit"]
    assert code_of({"batchnorm": "on"}, stored) == stored["code"]["batchnorm: on"]
