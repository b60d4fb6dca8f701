"""One folder, one origin: whoever asks, wherever it is moved; a copy has another."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LONGEST

from harness.errors import HarnessError
from harness.results.origin import RECORD, origin_of


def changed(root, **place):
    """The folder's record with other facts on its place."""
    file = root / "mlruns" / RECORD
    record = json.loads(file.read_text())
    record["place"] |= place
    file.write_text(json.dumps(record))


def test_a_folder_keeps_its_origin_and_another_has_another(tmp_path):
    first = origin_of(tmp_path / "one")
    assert first.note == ""
    assert origin_of(tmp_path / "one") == first
    assert origin_of(tmp_path / "two").name != first.name


def test_a_folder_that_was_moved_keeps_its_origin(tmp_path):
    first = origin_of(tmp_path / "one")
    shutil.move(tmp_path / "one", tmp_path / "two")
    assert origin_of(tmp_path / "two") == first
    changed(tmp_path / "two", device=-1)  # as after a restart
    assert origin_of(tmp_path / "two") == first


def test_a_copy_has_an_origin_of_its_own_and_says_so_once(tmp_path):
    first = origin_of(tmp_path / "one")
    subprocess.run(["cp", "-a", tmp_path / "one", tmp_path / "two"], check=True)
    copy = origin_of(tmp_path / "two")
    assert copy.name != first.name
    assert f"is a copy of {tmp_path / 'one' / 'mlruns'}" in copy.note
    assert origin_of(tmp_path / "two").note == ""
    assert origin_of(tmp_path / "two").name == copy.name
    assert origin_of(tmp_path / "one") == first


def test_a_copy_in_the_place_of_the_first_has_another_origin(tmp_path):
    first = origin_of(tmp_path / "one")
    shutil.move(tmp_path / "one", tmp_path / "aside")
    shutil.copytree(tmp_path / "aside", tmp_path / "one")
    restored = origin_of(tmp_path / "one")
    assert restored.name != first.name
    assert "was restored from a copy" in restored.note
    assert origin_of(tmp_path / "aside") == first


def test_a_folder_of_another_disk_with_the_same_number_has_another_origin(tmp_path):
    first = origin_of(tmp_path)
    changed(tmp_path, folder="/elsewhere/mlruns", device=-1)
    assert origin_of(tmp_path).name != first.name


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"origin": "", "place": {}}', '{"origin": "a"}', "\xff"])
def test_a_record_that_cannot_be_read_is_made_anew(tmp_path, content):
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / RECORD).write_text(content, encoding="latin-1")
    origin = origin_of(tmp_path)
    assert (len(origin.name), origin.note) == (16, "")
    assert origin_of(tmp_path) == origin


def test_processes_that_ask_together_get_one_origin(tmp_path):
    code = "from pathlib import Path; from harness.results.origin import origin_of; print(origin_of(Path.cwd()).name)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    together = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert len({process.communicate(timeout=LONGEST)[0] for process in together}) == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "mlruns").write_text("a file")
    with pytest.raises(HarnessError, match=r"mlruns: cannot be written \(.*\); run in a folder that can be"):
        origin_of(tmp_path)
