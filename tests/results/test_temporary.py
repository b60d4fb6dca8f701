"""A temporary file goes when its writer is gone, and stays as long as the writer may be at work."""

import os
import subprocess
import sys

import pytest
from waiting import LONGEST

from harness.results import remove_abandoned
from harness.results.files import write_atomic
from harness.results.temporary import host, temporary_path

DAY = 86_400


@pytest.fixture(scope="module")
def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(LONGEST)
    return process.pid


def left(folder, writer, name="a.parquet", age=0.0):
    path = folder / f".{name}.{writer}.new"
    path.write_bytes(b"half")
    os.utime(path, (path.stat().st_mtime - age,) * 2)
    return path


def test_two_names_are_never_equal_and_say_who_writes(tmp_path):
    names = [temporary_path(tmp_path / "a.parquet").name for _ in range(3)]
    assert len(set(names)) == 3
    assert all(name.startswith(f".a.parquet.{host()}.{os.getpid()}.") for name in names)


@pytest.mark.parametrize("age", [0.0, 10 * DAY])
def test_what_a_running_process_writes_stays(tmp_path, age):
    running = left(tmp_path, f"{host()}.{os.getppid()}.0123abcd-0", age=age)
    own = temporary_path(tmp_path / "b.parquet")
    own.write_bytes(b"half")
    remove_abandoned(tmp_path)
    assert running.exists()
    assert own.exists()


def test_what_a_process_left_that_ended_goes(tmp_path, ended):
    gone = left(tmp_path, f"{host()}.{ended}.0123abcd-0")
    journal = gone.with_name(f"{gone.name}-journal")
    journal.write_bytes(b"")
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_process_with_this_number_left_goes(tmp_path):
    left(tmp_path, f"{host()}.{os.getpid()}.0123abcd-0")
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", ["elsewhere-0123abcd.{ended}.0123abcd-0", "{ended}"], ids=["host", "older version"])
def test_of_another_machine_and_of_an_older_version_only_what_is_old_goes(tmp_path, ended, writer):
    young = left(tmp_path, writer.format(ended=ended), name="young")
    left(tmp_path, writer.format(ended=ended), name="old", age=2 * DAY)
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_of_one_file_alone_nothing_else_goes(tmp_path, ended):
    other = left(tmp_path, f"{host()}.{ended}.0123abcd-0", name="other.db")
    left(tmp_path, f"{host()}.{ended}.0123abcd-0", name="mlflow.db")
    (tmp_path / "mlflow.db").write_bytes(b"")
    remove_abandoned(tmp_path, "mlflow.db")
    assert sorted(tmp_path.iterdir()) == sorted([other, tmp_path / "mlflow.db"])


def test_what_is_no_temporary_file_stays_however_old(tmp_path):
    path = tmp_path / "a.new.parquet"
    path.write_bytes(b"")
    os.utime(path, (0, 0))
    remove_abandoned(tmp_path)
    assert path.exists()


def test_a_file_that_was_written_leaves_no_temporary_one(tmp_path):
    write_atomic(tmp_path / "a", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
