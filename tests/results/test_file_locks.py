"""Locks between processes: shared or alone, waited for or refused, and never on a file that is gone."""

import errno
import os
import threading
from contextlib import nullcontext

import pytest

from harness.results.file_locks import is_alone, locked

PATIENCE = 60  # seconds


def test_a_lock_is_held_by_one_and_free_again(tmp_path):
    lock = tmp_path / "below" / ".lock"
    with locked(lock), pytest.raises(BlockingIOError), locked(lock, wait=False):
        pass
    with locked(lock, wait=False):
        pass


def test_many_share_a_lock_and_none_has_it_alone_beside_them(tmp_path):
    with locked(tmp_path / ".lock", shared=True) as first:
        assert is_alone(first)
    with locked(tmp_path / ".lock", shared=True), locked(tmp_path / ".lock", shared=True, wait=False) as second:
        with pytest.raises(BlockingIOError), locked(tmp_path / ".lock", wait=False):
            pass
        assert not is_alone(second)


def test_a_lock_is_waited_for(tmp_path):
    asked, had = threading.Event(), threading.Event()

    def wait():
        asked.set()
        with locked(tmp_path / ".lock"):
            had.set()

    with locked(tmp_path / ".lock"):
        thread = threading.Thread(target=wait)
        thread.start()
        assert asked.wait(PATIENCE)
        assert not had.is_set()
    assert had.wait(PATIENCE)
    thread.join()


@pytest.mark.parametrize(("number", "works"), [(errno.ENOSYS, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)])
def test_a_file_system_without_locks_is_worked_on_without_them(tmp_path, monkeypatch, number, works):
    def missing(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("harness.results.file_locks.fcntl.flock", missing)
    with nullcontext() if works else pytest.raises(OSError, match="Input/output"), locked(tmp_path / ".lock") as lock:
        assert is_alone(lock)


def test_a_file_that_was_removed_before_it_was_locked_is_no_lock(tmp_path, monkeypatch):
    """Another process removes the file between its opening and its locking, once."""
    import fcntl

    lock, removals = fcntl.flock, [tmp_path / ".lock"]

    def late(descriptor, operation):
        if removals:
            removals.pop().unlink()
        lock(descriptor, operation)

    monkeypatch.setattr("harness.results.file_locks.fcntl.flock", late)
    with locked(tmp_path / ".lock"), pytest.raises(BlockingIOError), locked(tmp_path / ".lock", wait=False):
        pass
    assert removals == []
