"""Memory is bounded: wide layers, long trainings, and units that die and revive."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import harness
from harness.watching.row_window import MOST_UNITS, Block
from harness.watching.unit_record import Clocks, UnitRecord


class Given(nn.Module):
    """The layer returns the batch itself."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, values):
        return torch.relu(self.layer(values))


def sparse(rows, units, generator):
    """One value per row above zero; the first hundred units never fire."""
    values = torch.full((rows, units), -1.0)
    columns = torch.randint(100, units, (rows, units // 20), generator=generator)
    return values.scatter_(1, columns, 1.0)


@pytest.mark.service
def test_a_layer_of_a_million_units_is_counted_whole_and_judged_in_part():
    units, generator, model = 1_000_000, torch.Generator().manual_seed(0), Given().train()
    with harness.watch(model, "layer") as monitor:
        for _ in range(3):
            model(sparse(4, units, generator))
    table = monitor.units()
    assert len(table) == units
    assert (table["last_active"].iloc[:100] == 0).all()
    diagnosis = monitor.diagnosis()
    assert len(diagnosis.units) == MOST_UNITS
    assert diagnosis.units[-1].index == units - 1
    finding = next(finding for finding in diagnosis.findings if finding.rule == "units_sampled")
    assert finding.numbers["units"] == units
    assert finding.numbers["never_fired"] == (table["activation_frequency"] == 0).sum()
    window = monitor._recorder.windows["layer"].window
    assert sum(block.values.numel() for block in window.blocks) <= 2**25


@pytest.mark.service
def test_a_wide_finished_layer_is_judged_in_part():
    units, generator = 10_000, torch.Generator().manual_seed(0)
    diagnosis = harness.diagnose_model(Given(), [sparse(64, units, generator) for _ in range(7)], "layer")
    assert len(diagnosis.units) == MOST_UNITS
    assert diagnosis.units[0].verdict == "dead"
    assert any(finding.rule == "units_sampled" for finding in diagnosis.findings)


def test_many_rows_of_a_finished_model_are_thinned_evenly():
    rows = torch.arange(50_000.0)[:, None].repeat(1, 2)
    diagnosis = harness.diagnose_model(Given(), rows, "layer", labels=torch.arange(50_000) % 2)
    assert 10_000 <= diagnosis.rows <= 20_000
    assert diagnosis.units[0].mean == pytest.approx(25_000, rel=0.01)


def test_the_moments_of_a_long_training_are_those_of_all_rows():
    generator, model = torch.Generator().manual_seed(0), Given().train()
    batches = [torch.randn(size, 3, generator=generator) * 3 + 1 for size in [50] * 150 + [7] * 20]
    with harness.watch(model, "layer") as monitor:
        for batch in batches:
            model(batch)
    table, values = monitor.units(), torch.relu(torch.cat(batches)).double()
    np.testing.assert_allclose(table["mean"], values.mean(0), rtol=1e-9)
    np.testing.assert_allclose(table["sd"], values.std(0, correction=0), rtol=1e-9)
    np.testing.assert_allclose(table["activation_frequency"], (values > 0).double().mean(0))
    assert (table["rows"] == len(values)).all()


def test_a_unit_that_dies_and_fires_again_is_reported_as_revived():
    model, lines = Given().train(), []
    with harness.watch(model, "layer", callback=lines.append, steps_per_epoch=2) as monitor:
        for step in range(1, 41):
            values = torch.rand(200, 3) + 0.1
            values[:, 1] = 1.0 if step <= 5 or step > 30 else -1.0
            values[:, 2] = -1.0
            model(values)
    assert lines == [
        "step 6: unit 2 of layer has not fired for 3 epochs",
        "step 10: unit 1 of layer has not fired for 3 epochs",
        "step 31: unit 1 of layer is active again",
    ]
    units = monitor.units()
    assert units["death"].tolist()[1:] == [5, 0]
    assert units["death"].isna().tolist() == [True, False, False]
    assert units["revival"].tolist()[1] == 31
    assert units["revivals"].tolist() == [0, 1, 0]
    finding = next(finding for finding in monitor.diagnosis().findings if finding.rule == "revived")
    assert finding.units == (1,)
    assert "silent after step 5 and fired at step 31" in finding.evidence


def test_steps_measured_together_and_alone_give_the_same_record():
    generator = np.random.default_rng(0)
    active = generator.random((60, 5)) < np.array([0.0, 0.05, 0.2, 0.9, 1.0])
    steps = np.arange(60)
    clocks = Clocks(steps + 1, steps // 4, np.full(60, 80), steps > 8)
    together, alone = UnitRecord(5), UnitRecord(5)
    whole = together.add_activity(active, 20, clocks)
    singles = [alone.add_activity(active[[step]], 20, clocks.at(slice(step, step + 1))) for step in range(60)]
    for name in ("dead", "silenced", "revived"):
        np.testing.assert_array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in singles]))
    for name in ("active_step", "active_rows", "active_epoch", "death", "revival", "revivals", "dead"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))


def test_a_batch_that_is_overwritten_in_place_is_no_returning_row():
    model, lines = Given().train(), []
    buffer = torch.zeros(100, 3)
    with harness.watch(model, "layer", callback=lines.append):
        for step in range(120):
            buffer.copy_(torch.rand(100, 3, generator=torch.Generator().manual_seed(step)))
            buffer[:, 0] = -1.0
            model(buffer)
    assert lines == ["step 100: unit 0 of layer has not fired for 10000 rows"]


@pytest.mark.parametrize(("rows", "share"), [(1000, 7), (640, 64), (8192, 65), (10, 10)])
def test_each_row_of_a_step_is_as_likely_in_the_window_as_any_other(rows, share):
    generator, before = torch.Generator().manual_seed(0), torch.get_rng_state()
    block = Block(torch.arange(float(rows))[None, :, None], 0, rows, None, None, [None])
    draws = 20 * rows // share
    drawn = torch.stack([block.thinned(share, generator).values.flatten().long() for _ in range(draws)])
    assert all(len(set(draw.tolist())) == share for draw in drawn)
    counts = torch.bincount(drawn.flatten(), minlength=rows).numpy()
    # without replacement the counts vary a little less than those of independent draws, so only excess is a fault
    assert scipy.stats.chisquare(counts).pvalue > 0.001
    assert torch.equal(torch.get_rng_state(), before)


def test_a_long_epoch_of_sequences_is_judged_at_all_positions():
    generator, model, length = torch.Generator().manual_seed(0), Given().train(), 128
    tokens = torch.randn(40, 64, length, 2, generator=generator)
    tokens[:, :, 1:, 0] = -1.0  # unit 0 fires at the first position alone
    with harness.watch(model, "layer", steps_per_epoch=20) as monitor:
        for batch in tokens:
            model(batch)
    diagnosis = monitor.diagnosis()
    assert diagnosis.rows >= 8000
    low, high = scipy.stats.binom.interval(0.999, diagnosis.rows, 0.5 / length)
    assert low <= diagnosis.units[0].activation_frequency * diagnosis.rows <= high
