"""Atomic writes into folders that other processes change."""

import os
import shutil

import pytest

from harness.errors import HarnessError
from harness.results.files import ATTEMPTS, write_atomic


@pytest.mark.parametrize(("removals", "written"), [(1, True), (ATTEMPTS - 1, True), (ATTEMPTS, False)])
def test_a_folder_that_is_removed_during_a_write_is_made_again(tmp_path, monkeypatch, removals, written):
    rename, path = os.replace, tmp_path / "results" / "a.parquet"
    left = [None] * removals

    def disturbed(source, target):
        if left:
            left.pop()
            shutil.rmtree(path.parent)
        rename(source, target)

    monkeypatch.setattr(os, "replace", disturbed)
    if written:
        write_atomic(path, b"content")
        assert path.read_bytes() == b"content"
        assert [file.name for file in path.parent.iterdir()] == ["a.parquet"]
    else:
        with pytest.raises(HarnessError, match="cannot be written: No such file"):
            write_atomic(path, b"content")
