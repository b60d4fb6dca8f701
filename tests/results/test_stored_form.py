"""The format on disk: what earlier versions wrote is read, and what is written now is what they would read."""

import hashlib
import io
import json
import math
import struct
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from harness.execution.wire import dump_records, load_records
from harness.results import MemberRecord, read_records, write_stack

PLAIN = {
    "key": "k0",
    "variant": "as_posted bn=on",
    "seed": 3,
    "status": "diverged",
    "error": None,
    "diverged_step": 84,
    "verdict": "dead_layer",
    "units": 2,
    "live_units": 0,
    "r2": None,
    "seconds": 0.25,
    "logged_at": 1_700_000_000_000,
}
JSON = {
    "levels": {"penalty": "as_posted", "dropout": 0.2, "units": 2},
    "flags": ["duplicates"],
    "pca_r2": [0.1, 0.2],
    "losses": {"total": math.nan, "kl": math.inf},
    "died_at": [None, 42],
    "diagnosis": {"verdict": "dead_layer", "units": [{"mean": None, "flags": []}]},
    "examples": {},
}
SERIES = {
    "history": {"step": [0.0, 42.0, 84.0], "loss/total": [1.0, math.inf, math.nan]},
    "unit_history": {"mean": [[1.0, 2.0], [3.0, -math.inf], [math.nan, -0.0]]},
}
FAILED = {
    "key": "k1",
    "seed": 4,
    "status": "failed",
    "error": "no place",
    "diverged_step": None,
    "verdict": "",
    "units": 0,
    "live_units": 0,
    "variant": "v",
    "r2": None,
    "seconds": 0.0,
    "logged_at": 5,
}
TYPES = {
    **dict.fromkeys(("seed", "diverged_step", "units", "live_units", "logged_at"), pa.int64()),
    **dict.fromkeys(("r2", "seconds"), pa.float64()),
    **dict.fromkeys(("history", "unit_history"), pa.binary()),
}


def bytes_of(series):
    """Names and shapes as a line of JSON, then every number as 8 bytes, least significant first."""
    head, body = {}, b""
    for name, values in series.items():
        rows = values if values and isinstance(values[0], list) else [values]
        head[name] = [len(values), len(rows[0])] if rows is values else [len(values)]
        body += b"".join(struct.pack("<d", value) for row in rows for value in row)
    return json.dumps(head).encode() + b"\n" + body


def rows_of_an_earlier_version():
    failed = {"levels": {"rho": 0.1}, "flags": [], "pca_r2": [], "losses": {}, "died_at": []}
    failed |= {"diagnosis": {}, "examples": {}}
    return [
        {**PLAIN, **{n: json.dumps(v) for n, v in JSON.items()}, **{n: bytes_of(v) for n, v in SERIES.items()}},
        {**FAILED, **{n: json.dumps(v) for n, v in failed.items()}, **{n: bytes_of({}) for n in SERIES}},
    ]


def records():
    return [MemberRecord(**PLAIN, **JSON, **SERIES), MemberRecord(**FAILED, levels={"rho": 0.1})]


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    rows = rows_of_an_earlier_version()
    schema = pa.schema([(name, TYPES.get(name, pa.string())) for name in rows[0]])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")  # with dictionaries
    mark = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    (tmp_path / f"0000000000000000-{mark}.parquet").write_bytes(buffer.getvalue())
    found, damaged = read_records(tmp_path)
    assert damaged == []
    assert repr(found) == repr(records())
    assert repr(found[0].history.plain()) == repr(SERIES["history"])
    assert repr(found[0].unit_history.plain()) == repr(SERIES["unit_history"])


def test_what_is_written_now_is_what_an_earlier_version_reads(tmp_path):
    table = pq.read_table(write_stack(tmp_path, records()))
    assert repr(table.to_pylist()) == repr(
        [{name: row[name] for name in table.column_names} for row in rows_of_an_earlier_version()]
    )
    assert {name: table.schema.field(name).type for name in table.column_names} == {
        name: TYPES.get(name, pa.string()) for name in {**PLAIN, **JSON, **SERIES}
    }


def test_why_a_member_trained_alone_is_a_column_where_one_did(tmp_path):
    first, second = records()
    write_stack(tmp_path, [replace(first, alone="its optimiser is none that a stack can take over"), second])
    found = {record.key: record.alone for record in read_records(tmp_path)[0]}
    assert found == {"k0": "its optimiser is none that a stack can take over", "k1": None}


def test_the_gpu_is_a_column_where_one_trained_and_an_answer_brings_it(tmp_path):
    first, second = records()
    given = [replace(first, gpu="NVIDIA H100"), second]
    write_stack(tmp_path, list(load_records(dump_records(given))))
    assert {record.key: record.gpu for record in read_records(tmp_path)[0]} == {"k0": "NVIDIA H100", "k1": None}


def test_a_byte_that_changed_anywhere_is_noticed(tmp_path):
    path = write_stack(tmp_path, records())
    content = path.read_bytes()
    for place in range(0, len(content), 61):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert read_records(tmp_path) == ([], [path.name])
    path.write_bytes(content)
    assert len(read_records(tmp_path)[0]) == 2
