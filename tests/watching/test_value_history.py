"""Values of a layer at steps at equal distances, against those that a plain loop keeps."""

import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness.watching.value_history import MOST_ROWS, MOST_UNITS, MOST_VALUES, STEPS, ValueHistory


def test_a_short_training_keeps_every_value():
    torch.manual_seed(0)
    model, rows = nn.Sequential(nn.Linear(5, 3), nn.Tanh()), torch.randn(300, 5)
    with harness.watch(model, "0", every=2) as monitor:
        for batch in rows.split(10):
            model(batch)
    history = monitor._recorder.windows["0"].values
    assert [step for step, _ in history.steps] == list(range(1, 31, 2))
    for step, values in history.steps:
        assert torch.equal(values, torch.tanh(model[0](rows[10 * (step - 1) : 10 * step])).detach())


@pytest.mark.parametrize(("rows", "units"), [(4, 3), (900, 3), (70, 5000), (300, 700)])
def test_a_long_training_keeps_steps_at_equal_distances_in_bounded_memory(rows, units):
    history = ValueHistory()
    for first in range(0, 6000, 100):
        values = torch.arange(first, first + 100.0)[:, None, None].expand(100, rows, units)
        history.add(range(first, first + 100), values, None)
    numbers = [step for step, _ in history.steps]
    assert numbers == list(range(0, 6000, history.distance))
    assert len(numbers) >= STEPS // 2
    assert all(bool((values == step).all()) for step, values in history.steps)
    assert sum(len(values) for _, values in history.steps) <= MOST_ROWS
    kept = [values for _, values in history.steps]
    assert sum(values.numel() for values in kept) <= MOST_VALUES
    # no view keeps the values of a step that was dropped
    storages = {values.untyped_storage().data_ptr(): values.untyped_storage().nbytes() for values in kept}
    assert sum(storages.values()) <= 2 * 4 * MOST_VALUES
    assert len(history.units) == min(units, MOST_UNITS)


def test_kept_units_of_a_wide_layer_are_among_the_judged_ones():
    history, judged = ValueHistory(), torch.linspace(0, 99_999, 8192).long()
    values = torch.arange(100_000.0).expand(2, 20, -1)
    history.add([1, 2], values, judged)
    assert len(history.units) == MOST_UNITS
    assert np.isin(history.units, judged.numpy()).all()
    assert history.steps[0][1][7].tolist() == history.units.tolist()


def test_rows_of_a_large_step_are_drawn_without_replacement_and_by_no_generator_of_the_user():
    state, history = torch.get_rng_state(), ValueHistory()
    history.add([1], torch.arange(5000.0)[None, :, None], None)
    (_, values), *_ = history.steps
    assert len(values.unique()) == len(values) == MOST_ROWS // STEPS
    assert torch.equal(torch.get_rng_state(), state)
