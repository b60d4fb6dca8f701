"""Records as tables: every member and every unit is there, under the names that scripts rely on."""

import math

import pandas
from fake_results import FACTORS, SNAPSHOTS, study, without_diagnosis

from harness.results.frames import history_frame, members_frame, unit_history_frame, units_frame
from harness.results.records import MemberRecord


def test_a_member_is_a_row_with_its_factors_first():
    frame = members_frame(study(seeds=3).records)
    assert len(frame) == 12
    assert list(frame.columns[:2]) == list(FACTORS)
    wanted = {
        "seed",
        "status",
        "verdict",
        "flags",
        "live_units",
        "units",
        "r2",
        "loss/reconstruction",
        "variant",
        "key",
    }
    assert wanted <= set(frame.columns)
    assert frame["flags"].unique().tolist() == ["dead_outputs"]


def test_flags_stand_in_one_cell_with_spaces_between():
    record = MemberRecord("k", "v", {}, 0, flags=["noise", "unused"])
    assert members_frame([record])["flags"].tolist() == ["noise unused"]


def test_a_failed_member_is_a_row_without_numbers():
    frame = members_frame(study(seeds=2, change=without_diagnosis).records)
    assert len(frame) == 8
    assert frame["error"].unique().tolist() == ["out of memory"]
    assert frame[["live_units", "units", "r2"]].isna().all().all()


def test_a_factor_called_like_a_column_is_told_apart():
    record = MemberRecord("k", "v", {"units": 8, "seed": "odd"}, 5, units=8)
    frame = members_frame([record])
    assert frame["seed"].tolist() == [5]
    assert frame["factor/seed"].tolist() == ["odd"]
    assert frame["units"].tolist() == frame["factor/units"].tolist() == [8]


def test_members_of_different_experiments_share_a_table():
    records = [MemberRecord("a", "a", {"rho": 0.1}, 0), MemberRecord("b", "b", {"beta": 2}, 0)]
    frame = members_frame(records)
    assert frame["rho"].tolist()[0] == 0.1
    assert pandas.isna(frame["rho"].tolist()[1])


def test_no_members_make_an_empty_table_with_its_columns():
    assert "verdict" in members_frame([]).columns
    assert "unit_verdict" in units_frame([]).columns
    assert "step" in history_frame([]).columns


def test_a_unit_is_a_row_that_says_when_it_was_lost():
    records = study(seeds=2, units=5).records
    frame = units_frame(records)
    assert len(frame) == 5 * len(records)
    for record in records:
        rows = frame[frame["key"] == record.key]
        assert [None if math.isnan(step) else step for step in rows["died_at"]] == record.died_at
        assert rows["unit"].tolist() == list(range(5))


def test_a_measure_that_is_not_known_is_no_number():
    record = MemberRecord("k", "v", {}, 0, diagnosis={"units": [{"index": 0, "verdict": "dead", "mean": None}]})
    assert units_frame([record])["mean"].isna().all()


def test_a_snapshot_is_a_row_of_the_history():
    frame = history_frame(study(seeds=1).records)
    assert len(frame) == 4 * SNAPSHOTS
    assert {"key", "seed", "step", "epoch", "loss/reconstruction", "live_units"} <= set(frame.columns)


def test_a_unit_has_a_row_at_every_snapshot():
    frame = unit_history_frame(study(seeds=1, units=3).records)
    assert len(frame) == 4 * SNAPSHOTS * 3
    assert frame["unit"].tolist()[:4] == [0, 1, 2, 0]
    assert frame["step"].tolist()[:4] == [0, 0, 0, 40]


def test_a_measure_that_a_member_lacks_is_empty_for_it():
    one = MemberRecord("a", "v", {}, 0, unit_history={"live": [[1.0]], "mean": [[0.5]]})
    other = MemberRecord("b", "v", {}, 1, unit_history={"live": [[1.0]]})
    assert unit_history_frame([one, other])["mean"].isna().tolist() == [False, True]


def test_members_of_different_lengths_and_widths_lie_row_by_row_as_their_lists_do():
    records = [
        MemberRecord("a", "v", {}, 3, history={"step": [0, 40, 80]}, unit_history={"mean": [[0.1, 0.2], [0.3, 0.4]]}),
        MemberRecord("b", "w", {}, 4, unit_history={"mean": [[1.0], [2.0], [3.0]], "live": [[1.0], [0.0], [1.0]]}),
        MemberRecord("c", "w", {}, 5),
        MemberRecord("d", "w", {}, 6, history={"step": [7]}, unit_history={"live": [[1.0, 0.0, 1.0]]}),
    ]
    wanted = []
    for record in records:
        steps = record.history.get("step") or [0, 1, 2]
        lists = dict(record.unit_history)
        for place, row in enumerate(next(iter(lists.values()), [])):
            for unit in range(len(row)):
                known = {name: values[place][unit] for name, values in lists.items()}
                about = [record.key, record.variant, record.seed, unit, float(steps[place])]
                wanted.append([*about, known.get("mean"), known.get("live")])
    frame = unit_history_frame(records)
    assert list(frame.columns) == ["key", "variant", "seed", "unit", "step", "mean", "live"]
    assert frame.astype(object).where(frame.notna(), None).values.tolist() == wanted
    assert [str(frame[name].dtype) for name in ("seed", "unit", "step")] == ["int64", "int64", "float64"]
