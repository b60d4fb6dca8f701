"""Records as a worker answers with them: what is small as a line of JSON, what is packed behind it, as it is.

Parquet would load pyarrow, and pandas with it, in every worker: a second each.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from harness.results.records import PACKED_FIELDS, MemberRecord

SMALL_FIELDS = [each.name for each in fields(MemberRecord) if each.name not in PACKED_FIELDS]


def dump_records(records: Sequence[MemberRecord]) -> bytes:
    """The records, to be read by `load_records`."""
    small = [{name: getattr(record, name) for name in SMALL_FIELDS} for record in records]
    packed = [[getattr(record, name).to_bytes() for name in PACKED_FIELDS] for record in records]
    sizes = [[len(content) for content in each] for each in packed]
    return b"".join([json.dumps([small, sizes]).encode(), b"\n", *(content for each in packed for content in each)])


def load_records(answer: bytes) -> Iterator[MemberRecord]:
    """The records of such an answer.

    >>> [record] = load_records(dump_records([MemberRecord("k", "as_posted", {}, 0, history={"step": [0, 42]})]))
    >>> record.variant, record.history["step"]
    ('as_posted', [0.0, 42.0])
    """
    start = answer.index(b"\n") + 1
    for small, sizes in zip(*json.loads(answer[:start]), strict=True):
        packed: dict[str, Any] = {}
        for (name, kind), size in zip(PACKED_FIELDS.items(), sizes, strict=True):
            packed[name] = kind.of_bytes(answer[start : start + size])
            start += size
        yield MemberRecord(**small, **packed)
