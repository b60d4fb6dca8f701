"""What is kept packed reads like the plain containers it was made from, and nothing is lost on the way."""

import json
import math
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from harness.execution.wire import dump_records, load_records
from harness.results import MemberRecord, read_records, write_stack
from harness.results.packed import PackedArrays, PackedJson

HISTORY = {"step": [0.0, 42.0], "loss/total": [math.inf, -math.inf], "late": [1.5], "none": []}
UNITS = {"mean": [[0.1, -0.0], [5e-324, 1.7e308]], "empty": [[], []]}
DIAGNOSIS = {"units": [{"mean": None, "flags": []}], "text": 'a "quote"\n\u00e4', "rows": 3}


@pytest.mark.parametrize("values", [HISTORY, UNITS, {}])
def test_series_read_as_the_lists_that_they_were(values):
    packed = PackedArrays.of(values)
    assert packed == values
    assert dict(packed) == values == packed.plain()
    assert list(packed.items()) == list(values.items())
    assert list(packed.values()) == list(values.values())
    assert repr(packed) == repr(values)
    assert len(packed) == len(values)
    assert bool(packed) == bool(values)


def test_what_is_no_number_stays_none_and_equals_itself():
    one, other = (PackedArrays.of({"r2": [value, 1.0]}) for value in (math.nan, None))
    assert repr(one) == "{'r2': [nan, 1.0]}"
    assert one == other


def test_other_numbers_and_other_names_are_not_equal():
    assert PackedArrays.of({"a": [1.0]}) != PackedArrays.of({"a": [2.0]})
    assert PackedArrays.of({"a": [1.0]}) != PackedArrays.of({"b": [1.0]})
    assert PackedArrays.of({"a": [1.0]}) != PackedJson.of({"a": [2.0]})
    assert PackedArrays.of({"a": [0.0]}) == {"a": [-0.0]}


def test_an_array_is_a_view_that_cannot_be_written():
    packed = PackedArrays.of(UNITS)
    found = packed.array("mean")
    assert found.tolist() == UNITS["mean"]
    assert not found.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1.0


def test_a_name_that_is_not_there_is_said():
    with pytest.raises(KeyError, match="r2"):
        PackedArrays.of(HISTORY)["r2"]
    assert PackedArrays.of(HISTORY).get("r2") is None
    with pytest.raises(KeyError, match="r2"):
        PackedJson.of(DIAGNOSIS)["r2"]


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="inhomogeneous"):
        PackedArrays.of({"mean": [[1.0], [1.0, 2.0]]})


def test_a_document_reads_as_it_was():
    packed = PackedJson.of(DIAGNOSIS)
    assert packed == DIAGNOSIS == packed.plain() == dict(packed)
    assert {**packed} == DIAGNOSIS
    assert repr(packed) == repr(DIAGNOSIS)
    assert "rows" in packed
    assert "row" not in packed
    assert not PackedJson()


def test_what_a_reader_changes_in_his_copy_is_not_changed_for_others():
    packed = PackedJson.of(DIAGNOSIS)
    packed.plain()["units"].append("mine")
    assert packed["units"] == DIAGNOSIS["units"]


def test_packed_fields_travel_between_processes():
    long = {"units": [DIAGNOSIS] * 50}
    compressed = PackedJson.compressed(json.dumps(long))
    assert compressed == PackedJson.of(long)
    assert compressed["units"][7] == PackedJson.of(DIAGNOSIS)
    for packed in (PackedArrays.of(UNITS), PackedJson.of(DIAGNOSIS), compressed):
        assert pickle.loads(pickle.dumps(packed)) == packed


def test_a_record_may_be_given_plain_containers_and_gives_them_back():
    plain = {"history": HISTORY, "unit_history": UNITS, "diagnosis": DIAGNOSIS, "examples": {"shape": [2]}}
    record = MemberRecord("k", "v", {"rho": 0.1}, 0, **plain)
    assert {name: record.to_dict()[name] for name in plain} == plain
    assert {type(record.to_dict()[name]) for name in plain} == {dict}
    assert MemberRecord(**record.to_dict()) == record
    assert replace(record, logged_at=5).history is record.history
    assert replace(record, history={"step": [0.0]}) != record


def test_a_member_on_disk_takes_little_memory_when_it_is_read(tmp_path):
    """31 snapshots of 22 curves and 10 measures of 4 units, and a diagnosis of 12 KB: lists and dicts take 150 KB."""
    random = np.random.default_rng(0)
    written = [
        MemberRecord(
            f"k{i}",
            "v",
            {"rho": 0.1},
            i,
            history={f"h{j}": random.normal(size=31).tolist() for j in range(22)},
            unit_history={f"m{j}": random.normal(size=(31, 4)).tolist() for j in range(10)},
            diagnosis={"units": [{f"number{j}": random.normal() for j in range(80)} for _ in range(4)]},
        )
        for i in range(64)
    ]
    write_stack(tmp_path, written)
    read_records(tmp_path)  # libraries
    tracemalloc.start(12)
    found, _ = read_records(tmp_path)
    by_the_store = tracemalloc.Filter(True, "*/harness/results/store.py", all_frames=True)  # and by no other thread
    held = sum(each.size for each in tracemalloc.take_snapshot().filter_traces([by_the_store]).traces)
    tracemalloc.stop()
    content = sum(map(len, (found[0].history.content, found[0].unit_history.content, found[0].diagnosis.content)))
    assert content > 24_000
    assert content / 3 < held / 64 < 35_000  # documents are held compressed
    assert repr(found) == repr(written)


def test_an_answer_holds_the_records_as_they_are():
    records = [
        MemberRecord("a", "v", {"beta": 0.1, "penalty": "none"}, 0, losses={"total": math.inf}, died_at=[None, 42]),
        MemberRecord("b", "\u00e4\n", {}, 2**40, error='said "no"', r2=0.1 + 0.2, history=HISTORY, unit_history=UNITS),
        MemberRecord("c", "v", {}, 1, diagnosis=DIAGNOSIS, flags=["single_unit_dominance"]),
    ]
    assert list(load_records(dump_records(records))) == records
    assert list(load_records(dump_records([]))) == []
