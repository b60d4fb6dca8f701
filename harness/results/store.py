"""Results on disk: one parquet file per stack, with its checksum in its name.

A damaged file is reported and otherwise ignored; its members are trained again. Unknown columns, of a newer version, are
ignored.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.results.files import checksum, write_atomic, write_json
from harness.results.records import PACKED_FIELDS, MemberRecord
from harness.results.stored_form import JSON_FIELDS, manifest_of_form, record_of

MANIFEST = "manifest.json"
DAMAGED = ".damaged"  # ending of a damaged file that was set aside
PLAIN_FIELDS = (
    *("key", "variant", "seed", "status", "error", "diverged_step", "verdict", "units", "live_units", "r2"),
    *("seconds", "logged_at"),
)
RARE_FIELDS = (
    "alone",
    "gpu",
    "split",
)  # columns only if a member has them, so that earlier versions can read files without them


@dataclass(frozen=True)
class StoredResults:
    """All stored results of an experiment.

    Args:
        manifest: the experiment, its case and data, and versions.
        records: its members.
        damaged: names of damaged files.
        brief: whether the large fields of the records were left out.
    """

    manifest: Mapping[str, Any]
    records: list[MemberRecord]
    damaged: tuple[str, ...] = field(default=())
    brief: bool = False


def write_stack(folder: Path, records: Sequence[MemberRecord]) -> Path:
    """Write the records of a stack atomically; the file name is made of a hash of its members and its checksum."""
    content = as_parquet(records)
    stack = checksum("".join(record.key for record in records).encode())
    path = folder / f"{stack}-{checksum(content)}.parquet"
    write_atomic(path, content)
    return path


def read_results(folder: Path, brief: bool = False) -> StoredResults:
    """Read a results folder. Of two records with the same key the later one counts.

    Args:
        folder: of the results.
        brief: leave out the large fields, which take most of the time to read and check, if the manifest says that these
            very files were sound when the experiment was finished.
    """
    manifest, wrong = _manifest(folder)
    brief = brief and manifest.get("sound") == names_digest(folder)
    records, damaged = read_records(folder, brief=brief)
    notes = [f"{MANIFEST} ({', '.join(wrong)})"] if wrong else []
    return StoredResults(manifest, records, (*damaged, *notes), brief)


def names_digest(folder: Path) -> str:
    """Return a digest of the names of the results files, which contain their checksums."""
    return checksum(" ".join(sorted(path.name for path in folder.glob("*.parquet"))).encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest; an empty dict if there is none, without entries that are damaged."""
    return _manifest(folder)[0]


def _manifest(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the manifest, and the names of damaged entries."""
    file = folder / MANIFEST
    if not file.is_file():
        return {}, ["not a file"] if os.path.lexists(file) else []
    try:
        return manifest_of_form(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:  # removed meanwhile
        return {}, []
    except (OSError, ValueError, RecursionError):
        return {}, ["content"]


def read_records(
    folder: Path, keys: Iterable[str] | None = None, brief: bool = False
) -> tuple[list[MemberRecord], list[str]]:
    """Read the records of the folder (only those of `keys`, if not None), and the names of damaged files.

    With `brief`, the large fields are left out.
    """
    records: dict[str, MemberRecord] = {}
    damaged = []
    requested = None if keys is None else set(keys)
    for path, content in _contents(folder):
        stack = None if content is None else _readable(content, requested, brief)
        if stack is None:
            damaged.append(path.name)
            continue
        for record in stack:
            if record.key not in records or records[record.key].logged_at <= record.logged_at:
                records[record.key] = record
    return list(records.values()), damaged


def stored_keys(folder: Path) -> dict[Path, set[str]]:
    """Read the keys of the records in each file of the folder, without the records; damaged files are skipped."""
    keys_by_file = {path: _keys(content) for path, content in _contents(folder) if content is not None}
    return {path: keys for path, keys in keys_by_file.items() if keys}


def sound_files(folder: Path) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Return name and content of the readable files of the folder, and the names of damaged files."""
    contents = [(path.name, content) for path, content in _contents(folder)]
    sound = [(name, content) for name, content in contents if content is not None and _readable(content, None)]
    names = {name for name, _ in sound}
    return sound, [name for name, _ in contents if name not in names]


def set_aside(folder: Path, names: Iterable[str]) -> None:
    """Rename damaged files, so that they are reported once; a manifest is written again in its place."""
    for name in names:
        if name.startswith(MANIFEST) and not (folder / MANIFEST).is_dir():
            continue
        with suppress(OSError):  # another process was first, or the folder cannot be written
            file = folder / name.partition(" ")[0]
            file.rename(file.with_name(f"{file.name}{DAMAGED}"))


def _contents(folder: Path) -> Iterator[tuple[Path, bytes | None]]:
    """Yield the files of the folder in order, each with its content, or None if it is damaged."""
    for path in sorted(folder.glob("*.parquet")):
        content = _content(path)
        if content is not None or os.path.lexists(path):  # otherwise removed by another process that starts over
            yield path, content


def _content(path: Path) -> bytes | None:
    """Return the content of a file with the checksum of its name; a folder or a pipe has none, and is not opened."""
    try:
        content = path.read_bytes() if path.is_file() else None
    except OSError:
        return None
    return content if content is not None and path.stem.endswith(checksum(content)) else None


def _readable(content: bytes, keys: set[str] | None, brief: bool = False) -> list[MemberRecord] | None:
    """Return the records of a file's content (only those of `keys`, if not None); None if it is damaged."""
    try:
        return list(from_parquet(content, keys, brief))
    except (ValueError, TypeError, LookupError, AttributeError, OSError, RecursionError, pa.ArrowException):
        return None


def _keys(content: bytes) -> set[str]:
    try:
        return set(_table(content, {"key"}).column("key").to_pylist())
    except (LookupError, ValueError, OSError, pa.ArrowException):
        return set()


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest beside the results."""
    write_json(folder / MANIFEST, dict(manifest))


def as_parquet(records: Sequence[MemberRecord]) -> bytes:
    """Serialize records as one parquet file."""
    columns: dict[str, Any] = {name: [getattr(record, name) for record in records] for name in PLAIN_FIELDS}
    for name in RARE_FIELDS:
        if any(getattr(record, name) for record in records):
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


def from_parquet(content: bytes, keys: set[str] | None = None, brief: bool = False) -> Iterable[MemberRecord]:
    """Read the records of a parquet file: small fields are parsed, large ones stay packed, or are left out."""
    for row in _table(content, COLUMNS - PACKED_FIELDS.keys() if brief else COLUMNS).to_pylist():
        if keys is None or row["key"] in keys:
            yield record_of(row)


def _table(content: bytes, columns: Set[str]) -> Any:
    """Read some columns in this thread: a process that exits while Arrow starts threads is aborted."""
    file = pq.ParquetFile(pa.BufferReader(content))  # `read_table` would load pandas
    return file.read(columns=[name for name in file.schema_arrow.names if name in columns], use_threads=False)


COLUMNS = frozenset({*PLAIN_FIELDS, *RARE_FIELDS, *JSON_FIELDS, *PACKED_FIELDS})
TYPES = {
    **dict.fromkeys(("seed", "split", "diverged_step", "units", "live_units", "logged_at"), pa.int64()),
    **dict.fromkeys(("r2", "seconds"), pa.float64()),
    **dict.fromkeys(("history", "unit_history"), pa.binary()),
}
