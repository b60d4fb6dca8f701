"""What tables, report and store say of members read from disk is what the plain numbers say that were put there."""

import csv
import io
import math

import pandas
import pytest
from fake_results import effects_of, study

from harness.report import write_report
from harness.report.write import spreadsheet
from harness.results import MemberRecord, StoredResults, read_records, write_stack
from harness.results.frames import history_frame, members_frame, unit_history_frame, units_frame
from harness.tracking.member_rows import stored_metrics

NAN, INF = math.nan, math.inf
SEEN = {
    "key": "a",
    "variant": "as_posted",
    "levels": {"penalty": "as_posted", "beta": 0.001},
    "seed": 0,
    "verdict": "partial_collapse",
    "flags": ["noise", "unused"],
    "units": 2,
    "live_units": 1,
    "r2": 0.25,
    "losses": {"total": 0.5},
    "history": {"step": [0.0, 10.0, 20.0], "epoch": [0.0, 1.0, 2.0], "loss/total": [3.0, 2.0, 0.1], "r2": [0, NAN, 1]},
    "unit_history": {"mean": [[0.1, 0.2], [0.3, NAN], [0.5, 0.6]], "entropy_bits": [[1, 2], [3, 4], [NAN, 6]]},
    "died_at": [None, 10],
    "diagnosis": {
        "units": [
            {"index": 0, "verdict": "healthy", "flags": ["unused"], "mean": 0.5, "kurtosis": None},
            {"index": 1, "verdict": "dead", "mean": 0.6, "minimum": -1e-300},
        ]
    },
    "seconds": 1.5,
    "logged_at": 1000,
}
DIVERGED = {
    **SEEN,
    "key": "b",
    "seed": 1,
    "status": "diverged",
    "diverged_step": 5,
    "verdict": "invalid",
    "r2": None,
    "flags": [],
    "history": {"step": [0.0, 5.0], "epoch": [0.0, 1.0], "loss/total": [1.0, INF], "r2": [NAN, NAN]},
    "unit_history": {"mean": [[NAN, NAN], [-INF, 1.0]]},
    "losses": {"total": NAN, "kl": INF},
    "died_at": [0, 0],
    "diagnosis": {},
}
FAILED = {
    "key": "c",
    "variant": "no place",
    "levels": {"penalty": "as_posted"},
    "seed": 2,
    "status": "failed",
    "error": "no place",
    "logged_at": 7,
}
MEMBERS = [SEEN, DIVERGED, FAILED]


@pytest.fixture
def found(tmp_path):
    write_stack(tmp_path, [MemberRecord(**each) for each in MEMBERS])
    return read_records(tmp_path)[0]


def test_the_spreadsheet_has_the_plain_numbers(found):
    cells = list(csv.DictReader(io.StringIO(spreadsheet(members_frame(found)))))
    for row, plain in zip(cells, MEMBERS, strict=True):
        failed = plain.get("status") == "failed"
        assert row["key"] == plain["key"]
        assert row["verdict"] == plain.get("verdict", "")
        assert row["flags"] == " ".join(plain.get("flags", []))
        assert row["live_units"] == ("" if failed else f"{float(plain['live_units'])}")
        assert row["r2"] == ("" if plain.get("r2") is None else repr(plain["r2"]))
        assert row["beta"] == ("" if failed else "0.001")
        assert row["error"] == plain.get("error", "")
    assert [row["loss/total"] for row in cells] == ["0.5", "", ""]
    assert [row["loss/kl"] for row in cells] == ["", "inf", ""]


def test_units_have_the_plain_numbers(found):
    frame = units_frame(found)
    assert frame["key"].tolist() == ["a", "a"]
    assert frame["unit_verdict"].tolist() == ["healthy", "dead"]
    assert frame["flags"].tolist() == ["unused", ""]
    assert repr(frame["died_at"].tolist()) == "[nan, 10.0]"
    assert frame["mean"].tolist() == [0.5, 0.6]
    assert repr(frame["minimum"].tolist()) == "[nan, -1e-300]"
    assert frame["kurtosis"].isna().all()


def test_the_units_histories_have_the_plain_numbers(found):
    wanted = [
        [plain["key"], plain["variant"], plain["seed"], unit, step]
        + [plain["unit_history"].get(name, NO_ROWS)[at][unit] for name in ("mean", "entropy_bits")]
        for plain in (SEEN, DIVERGED)
        for at, step in enumerate(plain["history"]["step"])
        for unit in range(2)
    ]
    frame = unit_history_frame(found)
    assert list(frame.columns) == ["key", "variant", "seed", "unit", "step", "mean", "entropy_bits"]
    assert [[str(cell) for cell in row] for row in frame.values.tolist()] == [
        [str(float(cell)) if place > 3 else str(cell) for place, cell in enumerate(row)] for row in wanted
    ]


def test_histories_have_the_plain_numbers(found):
    frame = history_frame(found)
    for name in ("step", "epoch", "loss/total", "r2"):
        wanted = [float(value) for plain in (SEEN, DIVERGED) for value in plain["history"][name]]
        assert repr(frame[name].tolist()) == repr(wanted)


@pytest.mark.parametrize("place", range(3))
def test_metric_rows_are_the_plain_numbers(found, place):
    assert sorted(map(repr, stored_metrics(found[place]))) == sorted(map(repr, metrics_of(MEMBERS[place])))


def metrics_of(plain):
    """What the store is told of these few snapshots, all of which are shown: a line a number."""
    history, logged = plain.get("history", {}), plain["logged_at"]
    steps = [int(step) for step in history.get("step", [])]
    curves = {name: values for name, values in history.items() if name.startswith("loss/")}
    curves |= {"health/r2": history["r2"]} if history else {}
    for name in {"entropy_bits"} & set(plain.get("unit_history", {})):
        curves |= {f"{name}/u{unit}": [row[unit] for row in plain["unit_history"][name]] for unit in range(2)}
    rows = [
        (name, finite(value), logged + at, steps[at])
        for name, values in curves.items()
        for at, value in enumerate(values)
        if name.startswith("loss/") or not math.isnan(value)
    ]
    last = steps[-1] if steps else 0
    rows += [(f"loss_held_out/{name}", finite(value), logged, last) for name, value in plain.get("losses", {}).items()]
    outcomes = {
        "ok": {"collapse/failed": 0.0, "collapse/collapsed": 0.0},  # partial collapse, with a reconstruction
        "diverged": {"collapse/failed": 1.0},
        "failed": {},
    }
    rows += [(name, value, logged, last) for name, value in outcomes[plain.get("status", "ok")].items()]
    return [*rows, ("time/seconds", plain.get("seconds", 0.0), logged, last)]


def finite(value):
    return float(value) if math.isfinite(value) else NAN


def test_a_report_is_the_same_of_members_that_were_never_on_a_disk(tmp_path):
    """Byte by byte, the tables, the page and the pictures of units."""
    results = study(seeds=3)
    write_stack(tmp_path / "stored", results.records)
    again = StoredResults(results.manifest, read_records(tmp_path / "stored")[0])
    for name, each in (("here", results), ("read", again)):
        write_report(each, effects_of(results), tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert {"members.csv", "units.parquet", "unit_history.parquet", "report.html"} <= set(names)
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "read" / name).read_bytes(), name
    table = pandas.read_parquet(tmp_path / "read" / "unit_history.parquet")
    wanted = [row for record in results.records for row in record.unit_history.plain()["activation_frequency"]]
    assert table["activation_frequency"].tolist() == [value for row in wanted for value in row]


NO_ROWS = [[NAN] * 2] * 3
