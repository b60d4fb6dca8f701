"""Results on disk: one parquet file per stack, with its checksum in its name.

A damaged file is reported and otherwise ignored; its members are trained again.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.results.files import checksum, write_atomic, write_json
from harness.results.records import PACKED_FIELDS, MemberRecord

JSON_FIELDS = ("levels", "flags", "pca_r2", "losses", "died_at")
PLAIN_FIELDS = (
    *("key", "variant", "seed", "status", "error", "diverged_step", "verdict", "units", "live_units", "r2"),
    *("seconds", "logged_at"),
)
RARE_FIELDS = (
    "alone",
    "gpu",
)  # columns only if a member has them, so that earlier versions can read files without them


@dataclass(frozen=True)
class StoredResults:
    """All stored results of an experiment.

    Args:
        manifest: the experiment, its case and data, and versions.
        records: its members.
        damaged: names of damaged files.
    """

    manifest: Mapping[str, Any]
    records: list[MemberRecord]
    damaged: tuple[str, ...] = field(default=())


def write_stack(folder: Path, records: Sequence[MemberRecord]) -> Path:
    """Write the records of a stack atomically; the file name is made of a hash of its members and its checksum."""
    content = as_parquet(records)
    stack = checksum("".join(record.key for record in records).encode())
    path = folder / f"{stack}-{checksum(content)}.parquet"
    write_atomic(path, content)
    return path


def read_results(folder: Path) -> StoredResults:
    """Read a results folder. Of two records with the same key the later one counts."""
    records, damaged = read_records(folder)
    return StoredResults(read_manifest(folder), records, tuple(damaged))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest; an empty dict if there is none."""
    file = folder / "manifest.json"
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return manifest


def read_records(folder: Path, keys: Iterable[str] | None = None) -> tuple[list[MemberRecord], list[str]]:
    """Read the records of the folder (only those of `keys`, if not None), and the names of damaged files."""
    records: dict[str, MemberRecord] = {}
    damaged = []
    requested = None if keys is None else set(keys)
    for path, content in _contents(folder):
        if content is None:
            damaged.append(path.name)
            continue
        for record in from_parquet(content, requested):
            if record.key not in records or records[record.key].logged_at <= record.logged_at:
                records[record.key] = record
    return list(records.values()), damaged


def stored_keys(folder: Path) -> dict[Path, set[str]]:
    """Read the keys of the records in each file of the folder, without the records; damaged files are skipped."""
    return {path: _keys(content) for path, content in _contents(folder) if content is not None}


def _contents(folder: Path) -> Iterator[tuple[Path, bytes | None]]:
    """Yield the files of the folder in order, each with its content, or None if it is damaged."""
    for path in sorted(folder.glob("*.parquet")):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # removed by another process that starts over
            continue
        yield path, content if path.stem.endswith(checksum(content)) else None


def _keys(content: bytes) -> set[str]:
    return set(_table(content, ["key"]).column("key").to_pylist())


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest beside the results."""
    write_json(folder / "manifest.json", dict(manifest))


def as_parquet(records: Sequence[MemberRecord]) -> bytes:
    """Serialize records as one parquet file."""
    columns: dict[str, Any] = {name: [getattr(record, name) for record in records] for name in PLAIN_FIELDS}
    for name in RARE_FIELDS:
        if any(getattr(record, name) is not None for record in records):
            columns[name] = [getattr(record, name) for record in records]
    for name in JSON_FIELDS:
        columns[name] = [json.dumps(getattr(record, name)) for record in records]
    for name in PACKED_FIELDS:
        columns[name] = [getattr(record, name).content for record in records]
    schema = pa.schema([(name, TYPES.get(name, pa.string())) for name in columns])
    buffer = io.BytesIO()
    # no dictionary encoding: large values are all different, and it takes four fifths of the reading time
    pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


def from_parquet(content: bytes, keys: set[str] | None = None) -> Iterable[MemberRecord]:
    """Read the records of a parquet file: small fields are parsed, large ones stay packed."""
    for row in _table(content).to_pylist():
        if keys is None or row["key"] in keys:
            parsed = {name: json.loads(row[name]) for name in JSON_FIELDS}
            packed = {name: packed_type(row[name]) for name, packed_type in PACKED_FIELDS.items()}
            yield MemberRecord(**{**row, **parsed, **packed})


def _table(content: bytes, columns: list[str] | None = None) -> Any:
    """Read in this thread: a process that exits while Arrow starts threads is aborted."""
    # `read_table` would load pandas
    return pq.ParquetFile(pa.BufferReader(content)).read(columns=columns, use_threads=False)


TYPES = {
    **dict.fromkeys(("seed", "diverged_step", "units", "live_units", "logged_at"), pa.int64()),
    **dict.fromkeys(("r2", "seconds"), pa.float64()),
    **dict.fromkeys(("history", "unit_history"), pa.binary()),
}
