"""What members left behind, on disk: one parquet file a stack, whose name carries its checksum.

A file that is damaged counts as not there, and is said; its members are trained again.
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
RARE_FIELDS = ("alone", "gpu")  # a column only where a member has it, so that an earlier version reads the others


@dataclass(frozen=True)
class Results:
    """Everything that is known of an experiment.

    Args:
        manifest: what was asked, of which case and data, with which versions.
        records: its members.
        damaged: files that were found damaged.
    """

    manifest: Mapping[str, Any]
    records: list[MemberRecord]
    damaged: tuple[str, ...] = field(default=())


def write_stack(folder: Path, records: Sequence[MemberRecord]) -> Path:
    """Write the records of a stack, atomically; the file is named by its members and its checksum."""
    content = as_parquet(records)
    stack = checksum("".join(record.key for record in records).encode())
    path = folder / f"{stack}-{checksum(content)}.parquet"
    write_atomic(path, content)
    return path


def read_results(folder: Path) -> Results:
    """All that lies in a results folder. Of two records with one key the later one counts."""
    records, damaged = read_records(folder)
    return Results(read_manifest(folder), records, tuple(damaged))


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_manifest` wrote, or nothing."""
    file = folder / "manifest.json"
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return manifest


def read_records(folder: Path, keys: Iterable[str] | None = None) -> tuple[list[MemberRecord], list[str]]:
    """The records of the folder, those of `keys` alone where given, and the names of damaged files."""
    found: dict[str, MemberRecord] = {}
    damaged = []
    wanted = None if keys is None else set(keys)
    for path, content in _contents(folder):
        if content is None:
            damaged.append(path.name)
            continue
        for record in from_parquet(content, wanted):
            if record.key not in found or found[record.key].logged_at <= record.logged_at:
                found[record.key] = record
    return list(found.values()), damaged


def stored_keys(folder: Path) -> dict[Path, set[str]]:
    """The keys of the records in each file of the folder, read without the records; damaged files are left out."""
    return {path: _keys(content) for path, content in _contents(folder) if content is not None}


def _contents(folder: Path) -> Iterator[tuple[Path, bytes | None]]:
    """The files of the folder in order, each with its content, or None where it is damaged."""
    for path in sorted(folder.glob("*.parquet")):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # another process starts over
            continue
        yield path, content if path.stem.endswith(checksum(content)) else None


def _keys(content: bytes) -> set[str]:
    return set(_table(content, ["key"]).column("key").to_pylist())


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """What was asked, beside what came of it."""
    write_json(folder / "manifest.json", dict(manifest))


def as_parquet(records: Sequence[MemberRecord]) -> bytes:
    """Records as one parquet file."""
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
    # no dictionaries: every large value is another, and looking for alike ones takes four fifths of the reading
    pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


def from_parquet(content: bytes, wanted: set[str] | None = None) -> Iterable[MemberRecord]:
    """The records of such a file: what is small is parsed, what is large stays packed."""
    for row in _table(content).to_pylist():
        if wanted is None or row["key"] in wanted:
            parsed = {name: json.loads(row[name]) for name in JSON_FIELDS}
            packed = {name: kind(row[name]) for name, kind in PACKED_FIELDS.items()}
            yield MemberRecord(**{**row, **parsed, **packed})


def _table(content: bytes, columns: list[str] | None = None) -> Any:
    """Read by this thread alone: a process that ends while Arrow starts threads of its own is aborted."""
    # `read_table` would load pandas
    return pq.ParquetFile(pa.BufferReader(content)).read(columns=columns, use_threads=False)


TYPES = {
    **dict.fromkeys(("seed", "diverged_step", "units", "live_units", "logged_at"), pa.int64()),
    **dict.fromkeys(("r2", "seconds"), pa.float64()),
    **dict.fromkeys(("history", "unit_history"), pa.binary()),
}
