"""Damaged states of a results folder, each made from a whole one."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.results.files import checksum


def stack_file(results: Path) -> Path:
    """The first stack of the folder."""
    return sorted(results.glob("*.parquet"))[0]


def with_content(file: Path, content: bytes) -> Path:
    """Replace a stack by other content, with the right checksum in its name."""
    file.unlink()
    other = file.with_name(f"{file.stem.partition('-')[0]}-{checksum(content)}.parquet")
    other.write_bytes(content)
    return other


def written(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def with_values(file: Path, **values: object) -> Path:
    """Replace columns of a stack by one value, of the column's type where it takes it."""
    table = pq.read_table(file)
    for name, value in values.items():
        table = table.set_column(table.schema.names.index(name), name, pa.array([value] * len(table)))
    return with_content(file, written(table))


def replaced(make: Callable[[Path], object]) -> Callable[[Path], Path]:
    """Replace a stack's file by something else of the same name."""

    def damage(file: Path) -> Path:
        file.unlink()
        make(file)
        return file

    return damage


def cut(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-100])
    return file


def flipped(file: Path) -> Path:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file


HISTORY = b'{"step": [2], "loss/total": [2]}\n' + b"\x00" * 24  # one number of four is missing
STACKS: dict[str, Callable[[Path], Path]] = {  # file -> the damaged one in its place
    "cut": cut,
    "a byte changed": flipped,
    "empty": lambda file: (file.write_bytes(b""), file)[1],
    "a folder": replaced(Path.mkdir),
    "a link to itself": replaced(lambda file: file.symlink_to(file)),
    "a link to nothing": replaced(lambda file: file.symlink_to(file.with_name("nothing"))),
    "a pipe": replaced(os.mkfifo),
    "right checksum, no parquet": lambda file: with_content(file, b"garbage"),
    "right checksum, empty": lambda file: with_content(file, b""),
    "right checksum, a cut parquet": lambda file: with_content(file, file.read_bytes()[:-9]),
    "other columns": lambda file: with_content(file, written(pa.table({"a": [1], "b": ["x"]}))),
    "keys alone": lambda file: with_content(file, written(pq.read_table(file).select(["key"]))),
    "keys are numbers": lambda file: with_values(file, key=3),
    "an unknown status": lambda file: with_values(file, status="perhaps"),
    "no seed": lambda file: with_values(file, seed=None),
    "levels are broken JSON": lambda file: with_values(file, levels='{"a": '),
    "levels are a list": lambda file: with_values(file, levels="[]"),
    "flags are a number": lambda file: with_values(file, flags="3"),
    "losses are deeply nested": lambda file: with_values(file, losses="[" * 100_000),
    "the diagnosis is broken JSON": lambda file: with_values(file, diagnosis='{"units": ['),
    "the diagnosis is a list": lambda file: with_values(file, diagnosis="[]"),
    "the history is text": lambda file: with_values(file, history="garbage"),
    "the history is bytes": lambda file: with_values(file, history=b"garbage"),
    "the history is cut": lambda file: with_values(file, history=HISTORY),
    "the history's shapes are text": lambda file: with_values(file, history=b'{"step": ["a"]}\n'),
    "the history's header is a list": lambda file: with_values(file, history=b"[]\n"),
    "no history": lambda file: with_values(file, history=None),
}


def of_manifest(**values: object) -> Callable[[Path], object]:
    """Replace entries of the manifest."""

    def damage(file: Path) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return damage


MANIFESTS: dict[str, Callable[[Path], object]] = {
    "garbage": lambda file: file.write_text("garbage"),
    "empty": lambda file: file.write_text(""),
    "a list": lambda file: file.write_text("[1, 2]"),
    "a number": lambda file: file.write_text("3"),
    "not UTF-8": lambda file: file.write_bytes(b'{"name": "\xff\xfe"}'),
    "cut": lambda file: file.write_text(file.read_text()[:-30]),
    "deeply nested": lambda file: file.write_text("[" * 100_000),
    "a folder": replaced(Path.mkdir),
    "a link to itself": replaced(lambda file: file.symlink_to(file)),
    "a pipe": replaced(os.mkfifo),
    "inputs are a list": of_manifest(inputs=[]),
    "the experiment is a text": of_manifest(experiment="x"),
    "factors are a number": of_manifest(factors=3),
    "the audit is a list": of_manifest(audit=[1]),
    "findings are a text": of_manifest(audit={"as_posted": "x"}),
    "a finding is a text": of_manifest(audit={"as_posted": ["x"]}),
    "a finding without severity": of_manifest(audit={"as_posted": [{"rule": "inert"}]}),
    "a finding without rule": of_manifest(audit={"as_posted": [{"severity": "fault"}]}),
    "versions are a list": of_manifest(versions=[]),
    "files are a list": of_manifest(files=["report.html"]),
}
