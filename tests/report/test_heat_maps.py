"""The units' histories as pictures: means over seeds, one row a unit, and nothing invented where nothing is known."""

import numpy as np
import pytest
from made import study, without_diagnosis

from harness.report import heat_maps
from harness.report.heat import unit_histories
from harness.results.records import MemberRecord


def test_a_row_is_the_mean_over_the_seeds_of_a_unit():
    records = [
        MemberRecord("a", "v", {}, 0, unit_history={"live": [[1, 0], [1, 1]]}, history={"step": [0, 9]}),
        MemberRecord("b", "v", {}, 1, unit_history={"live": [[1, 1], [0, 1]]}, history={"step": [0, 9]}),
    ]
    rows, labels, steps = unit_histories(records, "live")
    assert rows.tolist() == [[1.0, 0.5], [0.5, 1.0]]
    assert labels == ["v u0", "v u1"]
    assert steps == [0, 9]


def test_a_member_that_stopped_early_counts_while_it_lasted():
    records = [
        MemberRecord("a", "v", {}, 0, unit_history={"live": [[0.0]]}, history={"step": [0]}),
        MemberRecord("b", "v", {}, 1, unit_history={"live": [[1.0], [1.0]]}, history={"step": [0, 9]}),
    ]
    assert unit_histories(records, "live")[0].tolist() == [[0.5, 1.0]]


def test_what_no_seed_knows_stays_empty():
    record = MemberRecord("a", "v", {}, 0, unit_history={"live": [[float("nan")], [1.0]]}, history={"step": [0, 9]})
    assert np.isnan(unit_histories([record], "live")[0][0, 0])


@pytest.mark.filterwarnings("error")
def test_a_picture_is_written_for_each_measure_that_is_there(tmp_path):
    assert [path.name for path in heat_maps(study(seeds=2), tmp_path)] == ["heat_activation_frequency.png"]
    assert (tmp_path / "heat_activation_frequency.png").read_bytes().startswith(b"\x89PNG")


def test_no_picture_is_written_of_members_that_failed(tmp_path):
    assert heat_maps(study(seeds=2, change=without_diagnosis), tmp_path) == []
