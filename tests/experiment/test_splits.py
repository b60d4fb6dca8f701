"""Several splits of the rows: what is held out, what is trained, and how variants are compared."""

import csv
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_case import CASE
from torch import nn

import harness
from harness.case import load_case
from harness.data import split_of
from harness.data.rows import Rows
from harness.data.split import hold_out
from harness.effects import analyse, remedy_effects, stored_members
from harness.errors import HarnessError
from harness.grid import Experiment, load_experiment, stacks
from harness.planning.plan import plan
from harness.report.answer import headline
from harness.results import MemberRecord, StoredResults, member_key, read_results, write_stack
from harness.training.rng import generator

EXPERIMENT = """
name: small
case: small.py
remedies: [{activation: leaky_relu}]
seeds: 2
splits: 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, stored):
    folder = stored(tmp_path_factory.mktemp("splits"))
    (folder / "small.py").write_text(CASE)
    (folder / "small.yaml").write_text(EXPERIMENT)
    return folder


@pytest.fixture(scope="module")
def results(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield harness.run("small.yaml", workers=0)


def ramp(count: int) -> torch.Tensor:
    return torch.arange(float(count))[:, None].expand(-1, 2).contiguous()


def test_each_split_holds_out_another_fifth_and_the_first_is_the_usual_one():
    rows = Rows(ramp(50))
    held = [hold_out(rows, split)[1].inputs[:, 0].tolist() for split in range(3)]
    assert [len(part) for part in held] == [10, 10, 10]
    assert held[0] == hold_out(rows)[1].inputs[:, 0].tolist()
    assert held[0] != held[1] != held[2]
    for split, part in enumerate(held):
        order = torch.randperm(50, generator=torch.Generator().manual_seed(split))
        assert part == sorted(order[:10].tolist())


def test_a_split_of_a_case_with_its_own_held_out_rows_pools_them_in_whole_blocks():
    case = load_case("forum")
    usual, other = split_of(case), split_of(case, split=2)
    assert (len(other.train), len(other.evaluation)) == (len(usual.train), len(usual.evaluation))
    everything = [torch.cat([part.train.inputs, part.evaluation.inputs]).sum(1).sort()[0] for part in (usual, other)]
    assert torch.equal(*everything)
    assert not set(other.train.blocks.tolist()) & set(other.evaluation.blocks.tolist())
    assert set(other.evaluation.factors) == set(usual.evaluation.factors)
    assert usual.fingerprint != other.fingerprint


def test_a_member_of_a_split_is_the_one_of_a_plain_loop_on_its_rows(results):
    def rows(seed):
        own = torch.Generator().manual_seed(seed)
        return torch.randn(32, 3, generator=own) @ torch.ones(3, 8).cumsum(1) + torch.rand(32, 8, generator=own)

    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.code, self.decoder = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(3, 8)

        def forward(self, batch):
            return self.decoder(F.relu(self.code(F.relu(self.first(batch)))))

    pool = torch.cat([rows(0), rows(1)])
    held = torch.isin(torch.arange(64), torch.randperm(64, generator=torch.Generator().manual_seed(2))[:32])
    train, evaluation = pool[~held], pool[held]
    torch.manual_seed(1)
    model = Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(1, 4):
        batch = train[torch.randperm(32, generator=generator(1, f"batches {epoch}"))]
        optimizer.zero_grad()
        (F.mse_loss(model(batch), batch) + 0.1 * model.code.weight.abs().mean()).backward()
        optimizer.step()
    with torch.no_grad():
        output = model(evaluation)
    r2 = 1 - float(((output - evaluation) ** 2).sum() / ((evaluation - evaluation.mean(0)) ** 2).sum())
    table = results.members
    (member,) = table[(table.seed == 1) & (table.split == 2) & (table.variant == table.variant[0])].itertuples()
    assert member.r2 == pytest.approx(r2, abs=1e-5)  # float32 sums in another order
    loaded = results.model(member.key)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_every_seed_is_trained_on_every_split_and_the_table_says_which(results, folder):
    table = results.members
    assert len(table) == 2 * 2 * 3
    assert sorted(set(zip(table.seed, table.split, strict=True))) == [(s, k) for s in range(2) for k in range(3)]
    assert table.key.nunique() == 12
    with (folder / "mlruns" / "reports" / "small" / "members.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"0", "1", "2"}


def test_the_answer_counts_blocks_and_the_scope_names_both_numbers(results):
    assert {remedy["seeds"] for remedy in results.answer["remedies"]} == {6}
    document = json.loads(results.report.with_name("report.json").read_text())
    assert "over 2 seeds x 3 splits of the rows" in json.dumps(document)


def test_a_run_with_splits_is_continued_without_training(results, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert harness.run("small.yaml", workers=0).summary.trained == 0


def test_without_splits_keys_and_the_stored_experiment_are_as_before(folder):
    arguments = ({"activation": "relu"}, 0, {"beta": 0.1}, {"epochs": 3}, "data", "case")
    assert member_key(*arguments) == member_key(*arguments, 0) != member_key(*arguments, 1)
    experiment = load_experiment(folder / "small.yaml")
    assert experiment.resolved()["splits"] == 3
    assert "splits" not in experiment.with_changes(splits=1).resolved()


def test_the_plan_counts_splits_and_each_stack_has_one(folder):
    experiment = load_experiment(folder / "small.yaml")
    found = plan(experiment)
    assert (found.seeds, found.splits, found.members) == (2, 3, 12)
    assert {len({member.split for member in stack.members}) for stack in stacks(experiment)} == {1}
    assert any("over 2 seeds x 3 splits of the rows" in note for note in found.notes)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "two", "true", "1001", "[2]"])
def test_a_bad_number_of_splits_is_refused(folder, value):
    (folder / "bad.yaml").write_text(EXPERIMENT.replace("splits: 3", f"splits: {value}"))
    with pytest.raises(HarnessError, match=r"bad.yaml: splits: expected a number of splits of the rows from 1 to 1000"):
        load_experiment(folder / "bad.yaml")


def planted(splits: int) -> tuple[Experiment, list[MemberRecord]]:
    """The baseline collapses in split 0 for every seed and in split 1 for none; the remedy never does."""
    experiment = Experiment(
        name="planted",
        case="forum",
        factors={"activation": ("relu",)},
        remedies=({"activation": "leaky_relu"},),
        include=({"activation": "leaky_relu"},),
        seeds=tuple(range(12)),
        splits=splits,
    )
    records = [
        MemberRecord(
            f"{member.variant.name}{member.seed}{member.split}",
            member.variant.name,
            dict(member.variant.levels),
            member.seed,
            split=member.split,
            verdict="full_collapse"
            if member.split == 0 and member.variant.levels["activation"] == "relu"
            else "healthy",
            units=4,
            live_units=4,
        )
        for member in experiment.members()
    ]
    return experiment, records


def test_pairs_of_seed_and_split_are_compared_with_each_other():
    experiment, records = planted(2)
    (row,) = remedy_effects(records, experiment)
    assert (row.seeds, row.failed_before, row.failed_after) == (24, 12, 0)
    assert row.change == -0.5
    assert row.p == pytest.approx(0.5**12)  # mid-p of 12 discordant pairs, all in one direction
    assert headline(analyse(records, experiment)).startswith(
        "At the baseline, 12 of 24 models (12 seeds x 2 splits of the rows)"
    )


def test_a_missing_block_leaves_only_its_own_pair_out():
    experiment, records = planted(2)
    lost = next(record for record in records if record.split == 1 and record.variant == "leaky_relu")
    rest = [replace(record, status="failed", verdict="") if record is lost else record for record in records]
    (row,) = remedy_effects(rest, experiment)
    assert (row.lost_after, row.failed_before) == (1, 12)
    effects = analyse(rest, experiment).of("collapsed")
    assert all(effect.seeds == 23 for effect in effects)


def test_records_of_splits_are_stored_and_selected(tmp_path):
    experiment, records = planted(2)
    write_stack(tmp_path, records)
    stored = read_results(tmp_path)
    assert {record.block for record in stored.records} == {(split, seed) for split in range(2) for seed in range(12)}
    chosen = stored_members(StoredResults({"experiment": experiment.resolved()}, stored.records))
    assert len(chosen) == 48
    first = {**experiment.resolved(), "splits": 1}
    assert {record.split for record in stored_members(StoredResults({"experiment": first}, stored.records))} == {0}


def test_a_case_that_trains_by_itself_has_no_splits(folder):
    own = CASE.replace('"code", evaluation', '"code", fit=lambda model, seed: None, evaluation')
    (folder / "fits.py").write_text(own)
    (folder / "fits.yaml").write_text(EXPERIMENT.replace("small.py", "fits.py"))
    with pytest.raises(HarnessError, match=r"splits: fits trains by its own Case.fit"):
        plan(load_experiment(folder / "fits.yaml"))
    (folder / "fits.yaml").write_text(EXPERIMENT.replace("small.py", "fits.py").replace("splits: 3", "splits: 1"))
    assert plan(load_experiment(folder / "fits.yaml")).members == 4
