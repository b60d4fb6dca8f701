"""Format of a worker's records: small fields as a line of JSON, followed by the bytes of packed fields.

Parquet would load pyarrow and pandas in every worker, one second each.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from harness.results.records import PACKED_FIELDS, MemberRecord

SMALL_FIELDS = [field.name for field in fields(MemberRecord) if field.compare and field.name not in PACKED_FIELDS]


def dump_records(records: Sequence[MemberRecord]) -> bytes:
    """Return the bytes of records, to be read by `load_records`."""
    small = [{name: getattr(record, name) for name in SMALL_FIELDS} for record in records]
    packed = [[*(getattr(record, name).to_bytes() for name in PACKED_FIELDS), record.weights] for record in records]
    sizes = [[len(content) for content in contents] for contents in packed]
    return b"".join(
        [json.dumps([small, sizes]).encode(), b"\n", *(content for contents in packed for content in contents)]
    )


def record_keys(answer: bytes) -> list[str]:
    """Return the keys of the records of these bytes.

    >>> record_keys(dump_records([MemberRecord("k", "as_posted", {}, 0)]))
    ['k']
    """
    small, _sizes = json.loads(answer[: answer.index(b"\n")])
    return [record["key"] for record in small]


def load_records(answer: bytes) -> Iterator[MemberRecord]:
    """Yield the records of these bytes.

    >>> [record] = load_records(dump_records([MemberRecord("k", "as_posted", {}, 0, history={"step": [0, 42]})]))
    >>> record.variant, record.history["step"]
    ('as_posted', [0.0, 42.0])
    """
    start = answer.index(b"\n") + 1
    for small, sizes in zip(*json.loads(answer[:start]), strict=True):
        packed: dict[str, Any] = {}
        for (name, packed_type), size in zip(PACKED_FIELDS.items(), sizes[:-1], strict=True):
            packed[name] = packed_type.of_bytes(answer[start : start + size])
            start += size
        weights = answer[start : start + sizes[-1]]
        start += sizes[-1]
        yield MemberRecord(**small, **packed, weights=weights)
