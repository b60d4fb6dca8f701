"""Histograms of the last window, against numpy on the outputs of the layer."""

import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness.errors import HarnessError


def test_a_histogram_of_each_unit_is_that_of_numpy_over_the_rows_of_the_window():
    torch.manual_seed(0)
    model, rows = nn.Sequential(nn.Linear(5, 3), nn.Tanh()), torch.randn(1200, 5)
    with harness.watch(model, "0") as monitor:
        for batch in rows.split(100):
            model(batch)
    table = monitor.histograms(bins=7)
    codes = torch.tanh(model[0](rows)).detach().numpy()[-1000:]  # the last 1,000 rows are the window
    assert table.groupby("unit").rows.sum().tolist() == [1000] * 3
    for unit in range(3):
        counts, edges = np.histogram(codes[:, unit], 7)
        part = table[table.unit == unit]
        assert part.rows.tolist() == counts.tolist()
        assert part.low.to_numpy() == pytest.approx(edges[:-1])
        assert part.high.to_numpy() == pytest.approx(edges[1:])


def test_before_the_first_step_the_table_is_empty_and_bins_are_counted_from_1():
    monitor = harness.watch(nn.Sequential(nn.Linear(5, 3)), "0")
    assert monitor.histograms().columns.tolist() == ["layer", "unit", "low", "high", "rows"]
    assert monitor.histograms().empty
    with pytest.raises(HarnessError, match="bins: expected a whole number from 1, got 0"):
        monitor.histograms(bins=0)
